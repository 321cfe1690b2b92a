"""The plots of docs/benchmarks.md, drawn from its tables: `python -m bench.plots`. What a plot shows is therefore what
the table beside it says; one whose table is not there is left out.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import svg
from bench.report import BEGIN, DOCUMENT
from bench.svg import Line, Value

FOLDER = "benchmarks"
FIGURE = re.compile(r"\d[\d,]*(?:\.\d+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """One picture: which table of which section (behind the text `under`), which columns. With `x` lines, one for each
    value of the column `by` and each of `y`; without it bars, named by `by`.
    """

    name: str
    section: str
    title: str
    y: Sequence[int]
    unit: str
    table: int = 0
    under: str = ""
    by: Sequence[int] = ()
    x: int | None = None
    x_title: str = ""
    powers_x: bool = False
    powers_y: bool = False
    target: float | None = None


PLOTS = (
    Plot(
        name="ingest", section="ingest", title="Ingest, feed to commit, one process", y=(2, 4), unit="events/s",
        by=(1,), x=0, x_title="batch limit, events; lines by workers", powers_x=True,
    ),
    Plot(
        name="scale", section="scale", title="Ingest from the text of the feed, as the service grows", y=(3,),
        unit="events/s", by=(0, 1, 2), target=10_000,
    ),
    Plot(
        name="rooms", section="rooms", title="A message in a room, for each absent member", y=(2, 4),
        unit="µs a member", x=0, x_title="absent members", powers_x=True, powers_y=True,
    ),
    Plot(
        name="clients", section="clients", title="Questions while messages come in, once a second from each client",
        y=(4,), unit="p99, ms", by=(0,), x=1, x_title="clients", powers_x=True, powers_y=True, target=10,
    ),
    Plot(
        name="prosody", section="sessions", under="**On prosody**",
        title="Prosody: back after 2,000 messages, from bind", y=(1,), unit="ms", by=(0,), powers_y=True,
    ),
    Plot(
        name="ejabberd", section="sessions", under="**On ejabberd**",
        title="ejabberd: back after 2,000 messages, from bind", y=(1,), unit="ms", by=(0,), powers_y=True,
    ),
    Plot(
        name="push", section="push", title="Pushes from one process", y=(1,), unit="pushes/s", by=(0,), target=4_000,
    ),
    Plot(
        name="memory", section="memory", title="Resident memory of the component, 100,000 accounts", y=(1,), unit="MB",
        table=1, by=(0,), target=150,
    ),
)  # fmt: skip


def sections(generated: str) -> dict[str, str]:
    """The measured sections by name."""
    parts = re.split(r"(?m)^### (.+)$", generated)
    return {name.strip(): part for name, part in zip(parts[1::2], parts[2::2], strict=True)}


def tables(part: str) -> list[list[list[str]]]:
    """Its tables: the head and the rows, without the rule."""
    found: list[list[list[str]]] = []
    for lines in re.findall(r"(?m)(?:^\|.*\|\n?)+", part):
        rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines.strip().splitlines()]
        found.append([rows[0], *rows[2:]])
    return found


def value(cell: str) -> Value:
    """A figure, with its spread where it has one. ValueError: there is none."""
    figures = [float(one.replace(",", "")) for one in FIGURE.findall(cell)]
    if not figures or cell.startswith("–"):
        raise ValueError(cell)
    return Value(*figures[:3]) if len(figures) >= 3 else Value(figures[0], figures[0], figures[0])


def drawn(plot: Plot, part: str) -> str | None:
    """The picture; None: its table is not there."""
    found = tables(part.partition(plot.under)[2] if plot.under else part)
    if len(found) <= plot.table:
        return None
    head, *rows = found[plot.table]
    shown = f"{plot.title} ({plot.unit})"
    if plot.x is None:
        named = [(" / ".join(row[column] for column in plot.by), value(row[plot.y[0]])) for row in rows]
        return svg.bars(shown, named, unit=plot.unit, powers=plot.powers_y, target=plot.target)
    points: dict[str, list[tuple[float, Value]]] = {}
    for row in rows:
        for column in plot.y:
            group = ", ".join([*(row[one] for one in plot.by), *([head[column]] if len(plot.y) > 1 else [])])
            points.setdefault(group, []).append((value(row[plot.x]).middle, value(row[column])))
    return svg.lines(
        shown,
        [Line(name, found_) for name, found_ in points.items()],
        x=plot.x_title,
        y=plot.unit,
        powers_x=plot.powers_x,
        powers_y=plot.powers_y,
        target=plot.target,
    )


def pictures(generated: str) -> Iterator[tuple[Plot, str]]:
    """Those whose tables are there."""
    there = sections(generated)
    for plot in PLOTS:
        picture = drawn(plot, there[plot.section]) if plot.section in there else None
        if picture is not None:
            yield plot, picture


def shown(generated: str, plots: Sequence[Plot]) -> str:
    """The generated part with each picture at the end of its section, once."""
    for plot in plots:
        link = f"![{plot.title}]({FOLDER}/{plot.name}.svg)"
        if link not in generated:
            head, name, rest = generated.partition(f"### {plot.section}\n")
            tables_, mark, more = rest.partition("\nReproduce:")
            generated = f"{head}{name}{tables_}\n{link}\n{mark}{more}"
    return generated


def draw(document: Path = DOCUMENT) -> list[Path]:
    """Draw them all beside the document, and show them in it."""
    head, begin, generated = document.read_text(encoding="utf-8").partition(BEGIN)
    folder = document.parent / FOLDER
    folder.mkdir(exist_ok=True)
    files, plots = [], []
    for plot, picture in pictures(generated):
        file = folder / f"{plot.name}.svg"
        file.write_text(picture, encoding="utf-8")
        files.append(file)
        plots.append(plot)
    document.write_text(f"{head}{begin}{shown(generated, plots)}", encoding="utf-8")
    return files


if __name__ == "__main__":
    for name in draw():
        print(name)
