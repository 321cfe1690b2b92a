"""Sections of `make bench`, sized down to seconds: each runs to its end and writes every row of its tables. No figure
is looked at: what they come to is the business of a quiet machine.
"""

import asyncio
import os
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import plots

ROOT = Path(__file__).parents[2]
SECONDS, SVG = 300.0, "{http://www.w3.org/2000/svg}"
KNOWN = "import asyncio; from bench import known; print(asyncio.run(known.run(30, lambda _: None)))"


async def printed(*arguments: str) -> str:
    """What a command of ours prints; fails with its last words."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(SECONDS):
            out, words = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode == 0, words.decode()[-3000:]
    return out.decode()


def rows(text: str) -> list[list[str]]:
    """The cells of all tables, without their heads."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    rules = [place for place, line in enumerate(lines) if line.startswith("| ---")]
    heads = {place - 1 for place in rules} | {*rules}
    return [[cell.strip() for cell in line.strip("|").split("|")] for n, line in enumerate(lines) if n not in heads]


@pytest.mark.timeout(SECONDS + 60)
@pytest.mark.parametrize(
    ("section", "first"),
    [
        ("start", ["nothing missed", "1,000 events of an outage", "1,000 events of an outage, an empty database"]),
        (
            "clients",
            [
                f"{what}, urn:convsync:0; {rate} messages/s"
                for _ in ("at times of their own", "without a pause")
                for what in ("nothing new", "10 changed")
                for rate in (0, 50)
            ],
        ),
        (
            "scale",
            [
                "100 accounts",
                "1,000 accounts",
                "1,000 accounts",
                "one account, 0 messages held",
                "one account, 1,000 messages held",
            ],
        ),
        ("push", ["the gate", "bare hyper-h2", "400"]),
    ],
)
async def test_a_section_measures_every_row(section: str, first: list[str]) -> None:
    text = await printed("-m", "bench", section, "--quick")
    assert f"### {section}\n" in text
    assert f"Reproduce: `python -m bench {section} --quick`" in text
    found = [row for row in rows(text) if row[0] != "h2load"]  # where it is installed
    assert [row[0] for row in found] == first
    assert all(all(row[1:]) for row in found)
    assert all(plots.drawn(plot, text) for plot in plots.PLOTS if plot.section == section)


@pytest.mark.timeout(SECONDS + 60)
async def test_memory_is_measured_with_many_accounts() -> None:
    found = rows(await printed("-c", KNOWN))
    assert [row[0] for row in found] == [
        "after the start",
        "each account got a message",
        "and has a session",
        "and is told what changes",
        "and got another message",
        "started again, all of them there",
        "and each account is met",
    ]
    assert all(float(row[1]) > 10 for row in found)


# ---- plots -----------------------------------------------------------------------------------------------------------


DOCUMENT = """\
# Benchmarks

### rooms

What is measured.

<!-- generated: begin -->

Machine: one.

### rooms

| absent members | one message, ms | µs a member | of it our CPU | bare statements, µs a member |
| --- | ---: | ---: | ---: | ---: |
| 10 | 8.3 (7.6–10.3) | 825 | 453 | 178 |
| 10,000 | 2,092.2 (1,885.5–2,395.8) | 209 | 121 | 32 |

Reproduce: `python -m bench rooms`

### push

| client | pushes/s, 100 at once | ÷ bare |
| --- | ---: | ---: |
| the gate | 3,000 (2,000–3,500) | 75% |
| bare hyper-h2 | 4,000 (3,900–4,100) | 100% |

Reproduce: `python -m bench push`

<!-- generated: end -->
"""


def test_plots_are_drawn_from_the_tables_and_shown_beside_them(tmp_path: Path) -> None:
    document = tmp_path / "benchmarks.md"
    document.write_text(DOCUMENT, encoding="utf-8")
    files = plots.draw(document)
    assert sorted(file.name for file in files) == ["push.svg", "rooms.svg"]
    drawn = {file.stem: ElementTree.parse(file).getroot() for file in files}  # noqa: S314 - ours
    words = {name: [node.text for node in root.iter(f"{SVG}text")] for name, root in drawn.items()}
    assert {"the gate", "bare hyper-h2", "3,000", "4,000", "target 4,000"} <= set(words["push"])
    assert {"µs a member", "bare statements, µs a member", "10", "10,000", "absent members"} <= set(words["rooms"])
    gate, bare = (float(bar.get("width", "")) for bar in drawn["push"].findall(f"{SVG}rect")[1:])
    assert gate / bare == pytest.approx(3 / 4, rel=0.01)
    text = document.read_text(encoding="utf-8")
    assert text.count("](benchmarks/rooms.svg)\n\nReproduce: `python -m bench rooms`") == 1
    assert text.partition("<!-- generated: begin -->")[0] == DOCUMENT.partition("<!-- generated: begin -->")[0]
    assert text.count(".svg)") == 2
    plots.draw(document)
    assert document.read_text(encoding="utf-8") == text


def test_every_plot_finds_its_table_in_a_document_that_has_all_sections() -> None:
    """What the sections' own tables look like is checked above: here, that no picture asks for a column that is not."""
    for plot in plots.PLOTS:
        columns = [*plot.y, *plot.by, *([plot.x] if plot.x is not None else [])]
        head = [f"c{column}" for column in range(max(columns) + 1)]
        table_ = f"| {' | '.join(head)} |\n|---|\n| {' | '.join('7 (6–8)' for _ in head)} |\n"
        drawn = plots.drawn(plot, plot.under + "\n" + f"{table_}\n" * (plot.table + 1))
        assert drawn is not None
        assert ElementTree.fromstring(drawn).tag == f"{SVG}svg"  # noqa: S314 - ours
