"""From a propose to its VoIP push: the whole sandbox, nothing left out.

The clock starts before the propose is written to the caller's socket and stops at the instant that the APNs simulator
logs for the request, on the same machine's clock. Each call is retracted before the next. The callee is offline, with
a registered phone, as a phone in a pocket is.
"""

import asyncio
import json
import os
import random
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.client import Client
from bench.crowd import PEOPLE, Crowd, accounts, crowd
from bench.report import milliseconds, table
from bench.stage import committed_messages
from sync.sandbox.stack import Options, Ready, sandbox

JMI, RTP = "urn:xmpp:jingle-message:0", "urn:xmpp:jingle:apps:rtp:1"
RATES = (0, 200, 1_000)
CALLS, QUICK_CALLS = 200, 20
PUSH_SECONDS = 5.0  # a push that has not come by then counts as missing
POLL_SECONDS = 0.002  # the log has the instants: reading it late costs nothing, reading it often costs a core
WARM_SECONDS = 2.0
PAUSE_SECONDS = (0.05, 0.09)  # between calls; by chance, so that calls and load do not march in step


class Log:
    """New lines of the simulator's log."""

    def __init__(self, path: str) -> None:
        self._file = os.open(Path(path), os.O_RDONLY)
        os.lseek(self._file, 0, os.SEEK_END)
        self._rest = b""

    def lines(self) -> Iterator[dict[str, Any]]:
        """What has come since the last time."""
        while data := os.read(self._file, 65_536):
            *whole, self._rest = (self._rest + data).split(b"\n")
            for line in whole:
                yield json.loads(line)

    def voip(self, token: str, seconds: float) -> float | None:
        """When the next VoIP request to this token was accepted; None when there is none in time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for line in self.lines():
                if line["token"] == token and line["push_type"] == "voip" and line["status"] == 200:
                    return float(line["t"])
            time.sleep(POLL_SECONDS)
        return None


@dataclass(frozen=True, slots=True)
class Outcome:
    """One load: seconds of each call, how many pushes never came, and what flowed meanwhile."""

    rate: int
    took: list[float]
    missing: int
    routed: float
    committed: float


def client(ready: Ready, number: int) -> Client:
    """A logged-in session of one of the accounts."""
    jid, password = accounts(ready)[number]
    return Client.connect(host=ready["c2s"]["host"], port=ready["c2s"]["port"], jid=jid, password=password)


def step(caller: Client, name: str, to: str, sid: str) -> None:
    """XEP-0353: one step of a call."""
    inner = f"<description xmlns='{RTP}' media='audio'/>" if name == "propose" else ""
    caller.message(to, f"<{name} xmlns='{JMI}' id='{sid}'>{inner}</{name}><store xmlns='urn:xmpp:hints'/>")


def phone(ready: Ready, caller: Client) -> tuple[str, str]:
    """The callee's JID and VoIP token: a friend with a registered phone, who goes offline."""
    token = "f" + secrets.token_hex(32)[1:]
    with client(ready, 1) as callee:
        callee.bind("phone")
        callee.befriend(caller)
        callee.register_phone(
            component=ready["component"],
            app=ready["apns"]["app"],
            alert_token="a" + secrets.token_hex(32)[1:],
            voip_token=token,
        )
        return callee.jid, token


def ring(caller: Client, to: str, token: str, log: Log, many: int) -> tuple[list[float], int]:
    """So many calls, one after the other."""
    took, missing, chance = [], 0, random.Random(3)  # noqa: S311 - pauses, not secrets
    for _ in range(many):
        sid = secrets.token_hex(8)
        began = time.time()
        step(caller, "propose", to, sid)
        arrived = log.voip(token, PUSH_SECONDS)
        if arrived is None:
            missing += 1
        else:
            took.append(arrived - began)
        step(caller, "retract", to, sid)
        time.sleep(chance.uniform(*PAUSE_SECONDS))
    return took, missing


def measure(ready: Ready, many: int, say: Callable[[str], None]) -> Iterator[Outcome]:
    """Each load in turn; blocks."""
    with client(ready, 0) as caller:
        caller.bind("desk")
        to, token = phone(ready, caller)
        log = Log(ready["apns"]["log"])
        ring(caller, to, token, log, 10)
        for rate in RATES:
            say(f"calls: {many} at {rate} messages/s")
            load: AbstractContextManager[Crowd | None] = crowd(ready, rate=rate) if rate else nullcontext()
            with load as people:
                time.sleep(WARM_SECONDS if people else 0)
                before, began = committed_messages(ready), time.monotonic()
                took, missing = ring(caller, to, token, log, many)
                seconds = time.monotonic() - began
                # Two of them are each call's own: propose and retract, each in two archives.
                committed = (committed_messages(ready) - before - 4 * many) / seconds
                result = people.finish(now=True) if people else {"received": 0, "all_seconds": 1}
            yield Outcome(rate, took, missing, result["received"] / result["all_seconds"], max(0.0, committed))


async def run(*, quick: bool, say: Callable[[str], None]) -> str:
    """The section."""
    many = QUICK_CALLS if quick else CALLS
    async with sandbox(Options(accounts=4 + PEOPLE)) as ready:
        outcomes = await asyncio.to_thread(lambda: list(measure(ready, many, say)))
    rows = [
        [
            f"{o.rate:,} messages/s" if o.rate else "idle",
            *(milliseconds(o.took, 50, 90, 99, 100) if o.took else ["–"] * 4),
            o.missing,
            f"{o.routed:,.0f}",
            f"{o.committed:,.0f}",
            "10 / 50" if o.rate else "5 / 20",
        ]
        for o in outcomes
    ]
    head = ["load", "p50 ms", "p90 ms", "p99 ms", "max ms", "never came", "routed/s", "events committed/s", "target"]
    return (
        f"{many} calls for each load, one after the other, the callee offline with a VoIP token. Prosody, Convsync, "
        f"Postgres, Valkey, the simulator, the load and the caller share this machine. `routed` is what the load's "
        f"receivers got, each message being two events. Target: p50 / p99.\n\n{table(head, rows)}"
    )
