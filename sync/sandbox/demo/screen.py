"""What the visitor sees: one line for each thing that happens, its milliseconds at the right, a table at the end.

On a terminal with colours and a spinner while the parts start; elsewhere the same lines, plain. Decides nothing.
"""

import json
import os
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sync.sandbox.demo.pushes import Push
from sync.sandbox.demo.story import Measured

COLOURS = {"alice": "magenta", "phone": "cyan", "laptop": "green", "web": "green", "APNs": "yellow"}
WHO, WHAT = 8, 60  # columns; with the milliseconds, a line fits into 80


class Output(Console):
    """Standard output; whoever reads it may stop reading."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())  # what Python still writes when it ends
        raise BrokenPipeError


class Screen:
    """What is said, in the order in which it happens."""

    def __init__(self, console: Console | None = None) -> None:
        if console is None and hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="replace")  # an ASCII terminal gets question marks, not a traceback
        self._console = console or Output(highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        self._console.print(text, markup=False)

    @contextmanager
    def starting(self) -> Iterator[None]:
        """While the parts start."""
        self._console.print("Starting Postgres, Valkey, an APNs simulator, Prosody and Convsync:", style="bold")
        if not self._console.is_terminal:
            yield
            return
        with self._console.status("one moment"):
            yield

    def part(self, line: str) -> None:
        """A part of the stack answers."""
        self._console.print(line, markup=False)

    def scene(self, number: int, title: str) -> None:
        self._console.print(f"\n{number}. {title}", style="bold", markup=False)

    def line(self, who: str, what: str, ms: float | None = None) -> None:
        text = Text("  ").append(f"{who:<{WHO}}", COLOURS.get(who, ""))
        text.append(what if ms is None else f"{what:<{WHAT}}")
        if ms is not None:
            text.append(f" {ms:6.1f} ms", "bold")
        self._console.print(text)

    def push(self, push: Push, *, ms: float | None = None, whole: bool = True) -> None:
        """A push at APNs; `whole`: with everything that it says."""
        kind = "VoIP" if push.push_type == "voip" else push.push_type
        version = f" · version {push.news['v']}" if "v" in push.news else ""
        self.line("APNs", f"{kind} push: {push.kind or 'no kind'}{version}", ms)
        if whole:
            said = textwrap.wrap(
                json.dumps(push.payload, ensure_ascii=False), WHAT, break_long_words=False, break_on_hyphens=False
            )
            for line in said:
                self._console.print(Text(f"  {'':<{WHO}}{line}", "dim"))

    def failed(self, step: str, why: str) -> None:
        self._console.print(f"\nFailed at “{step}”: {why}", style="bold red", markup=False)

    def logs(self, data: Path | None) -> None:
        """Where to look after a failure."""
        where = f"The parts' logs are in {data}/logs." if data else "With --data DIR the parts' logs are kept."
        self._console.print(where, markup=False)

    def table(self, rows: Sequence[Measured]) -> None:
        table = Table(
            title="What it took, in milliseconds", title_justify="left", title_style="bold", box=None, pad_edge=False
        )
        table.add_column(min_width=34)
        for heading in ("push at APNs", "phone logged in", "phone knows"):
            table.add_column(heading, justify="right")
        for row in rows:
            table.add_row(row.what, *(_number(value) for value in (row.push, row.login, row.answer)))
        self._console.print()
        self._console.print(table)
        self._console.print(
            "push at APNs: from the stanza's departure until APNs has answered. phone logged in, phone knows:\n"
            "from the wake to the end of the login, from the question to the answer. Everything runs on this\n"
            "one machine.",
            style="dim",
        )

    def how_to_connect(self, ready: dict[str, Any]) -> None:
        """For the visitor's own client."""
        base, apns = ready["http"]["base"], ready["apns"]
        accounts = "\n".join(f"  {account['jid']:<18} {account['password']}" for account in ready["accounts"])
        self.say(
            f"""
Now you. Log in with any XMPP client: server {ready["c2s"]["host"]}, port {ready["c2s"]["port"]}, no TLS; as
{accounts}
Write to bob, or call him, as anybody else: the pushes for his phone appear below.

Pushes   {apns["log"]}
Metrics  {base}{ready["http"]["metrics"]}
Health   {base}{ready["http"]["ready"]}
Ctrl-C ends everything.
"""
        )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
