"""What a soak has shown, as a table, and where it is written down: docs/reliability.md, one part for each server.

No host names and no dates: what tells two runs apart is the machine, the versions, the seed.
"""

import re
from collections import Counter
from collections.abc import Sequence

from bench.report import DOCUMENT, machine, table
from tests.chaos.scenario import Outcome

PAGE = DOCUMENT.with_name("reliability.md")
PARTS = {
    "messages sent by clients": ("sent",),
    "of these acknowledged by stream management": ("acknowledged",),
    "stanzas in archives": ("archived",),
    "rows of the message index compared with archives": ("messages checked",),
    "conversations compared, each with its counters": ("conversations checked",),
    "calls compared": ("calls checked",),
    "pushes; VoIP pushes": ("pushes", "VoIP pushes"),
    "message pushes sent; called off": ("message pushes", "message pushes called off"),
    "deltas answered; refused or not answered": ("deltas", "deltas refused"),
    "looks at the rows' versions": ("audits",),
    "sessions resumed; begun anew": ("did: resumed", "did: logged in again"),
    "archived by a server that died before it told the component": ("archived, no event",),
    "of these acknowledged to their senders": ("archived and acknowledged, no event",),
    "told by a server that died before it archived it": ("event, not archived",),
}


def told(outcomes: Sequence[Outcome], *, server: str, seed: str, asked: float, took: float) -> str:
    """The text of one run."""
    figures: Counter[str] = sum((one.figures for one in outcomes), Counter())
    faults: Counter[str] = sum((one.faults for one in outcomes), Counter())
    findings = [f"`{one.seed}`: {finding}" for one in outcomes for finding in one.findings]
    slowest = max((one.recovery_seconds for one in outcomes), default=0.0)
    rows = [(text, "; ".join(f"{figures[name]:,}" for name in names)) for text, names in PARTS.items()]
    verdict = "**Nothing was lost, doubled or out of date.**" if not findings else f"**{len(findings)} findings:**"
    facts = machine()
    if server != "prosody":  # whose version that line ends with
        facts = re.sub(r", Prosody [^,\n]*\.$", ".", facts)
    return "\n\n".join(
        [
            facts,
            f"{len(outcomes)} performances in {took / 60:.0f} minutes, {faults.total()} faults. {verdict}",
            *(["\n".join(f"- {one}" for one in findings)] if findings else []),
            table(["fault", "times"], sorted(faults.items())),
            table(["what", "how many"], rows),
            f"From the last fault until every part answered: {slowest:.1f} s at the most.",
            f"Reproduce: `make soak SERVER={server} SECONDS={asked:.0f} SEED={seed}`",
        ]
    )


def rewrite(server: str, text: str) -> None:
    """Replace the server's part of the document."""
    begin, end = f"<!-- generated: {server} -->", f"<!-- generated: end of {server} -->"
    document = PAGE.read_text(encoding="utf-8")
    head, found, rest = document.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"{PAGE.name} has lost its markers {begin} and {end}.")
    PAGE.write_text("\n".join([head + begin, "", text.strip(), "", end + tail]), encoding="utf-8")
