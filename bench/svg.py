"""Charts as SVG, by hand: lines over a scale, bars beside each other. Each value may have a spread. Decides sizes and
colours; refuses to know what is drawn.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 380, 84, 24, 64, 52
BAR, LABELS = 26, 300
COLOURS = ("#1f5fa8", "#c2571a", "#2c8a4b", "#8a3fa0", "#8c6d1f", "#3d8f9c", "#a83252", "#5a5a5a")
INK, FAINT = "#222222", "#d9d9d9"


class Value(NamedTuple):
    """A median with its lowest and highest."""

    middle: float
    low: float
    high: float


class Line(NamedTuple):
    """A named line: x and value."""

    name: str
    points: Sequence[tuple[float, Value]]


class Scale(NamedTuple):
    """From values to places, even or by powers of ten."""

    low: float
    high: float
    begin: float
    end: float
    powers: bool

    def __call__(self, value: float) -> float:
        low, high, at = self.low, self.high, value
        if self.powers:
            low, high, at = math.log10(low), math.log10(high), math.log10(max(value, self.low))
        return self.begin + (at - low) / ((high - low) or 1) * (self.end - self.begin)

    def ticks(self) -> list[float]:
        """Round values in it."""
        if self.powers:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            found = [times * 10.0**power for power in powers for times in (1, 2, 5)]
            inside = [value for value in found if self.low <= value <= self.high]
            return inside if len(inside) <= 6 else [value for value in inside if math.log10(value).is_integer()]
        step = 10 ** math.floor(math.log10(self.high / 4))
        step *= next(times for times in (1, 2, 2.5, 5, 10) if self.high / (step * times) <= 6)
        return [step * number for number in range(int(self.high / step) + 1)]


def scale(values: Sequence[float], begin: float, end: float, *, powers: bool) -> Scale:
    """One that holds them all; an even one begins at nothing."""
    if powers:
        return Scale(min(values), max(*values, min(values) * 1.01), begin, end, powers)
    return Scale(0, max(values) * 1.05 or 1, begin, end, powers)


def text(x: float, y: float, what: str, *, anchor: str = "start", size: int = 12, turn: bool = False) -> str:
    """A piece of text."""
    turned = f" transform='rotate(-90 {x:.0f} {y:.0f})'" if turn else ""
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' font-size='{size}' fill='{INK}'{turned}>"
        f"{escape(what)}</text>"
    )


def stroke(x: float, y: float, to_x: float, to_y: float, *, colour: str = FAINT, dashes: str = "") -> str:
    """A line between two places."""
    dashed = f" stroke-dasharray='{dashes}'" if dashes else ""
    return f"<line x1='{x:.1f}' y1='{y:.1f}' x2='{to_x:.1f}' y2='{to_y:.1f}' stroke='{colour}'{dashed}/>"


def number(value: float) -> str:
    """As on an axis."""
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:g}"


def drawing(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    """The whole file."""
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width:.0f} {height:.0f}' width='{width:.0f}' "
        f"font-family='sans-serif'>\n<title>{escape(title)}</title>\n"
        f"<rect width='100%' height='100%' fill='#ffffff'/>\n{text(12, 22, title, size=15)}\n"
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def lines(
    title: str,
    drawn: Sequence[Line],
    *,
    x: str,
    y: str,
    powers_x: bool = False,
    powers_y: bool = False,
    target: float | None = None,
) -> str:
    """Lines with their spread, a legend, and the target as a dashed line."""
    points = [point for line in drawn for point in line.points]
    values = [part for _, value in points for part in value] + ([target] if target is not None else [])
    across = scale([at for at, _ in points], LEFT, WIDTH - RIGHT, powers=powers_x)
    up = scale(values, HEIGHT - BOTTOM, TOP + 18 * ((len(drawn) + 1) // 2), powers=powers_y)
    parts = [
        text((LEFT + WIDTH) / 2, HEIGHT - 12, x, anchor="middle"),
        text(16, HEIGHT / 2, y, anchor="middle", turn=True),
    ]
    for at in up.ticks():
        parts += [stroke(LEFT, up(at), WIDTH - RIGHT, up(at)), text(LEFT - 8, up(at) + 4, number(at), anchor="end")]
    parts += [
        text(across(at), HEIGHT - BOTTOM + 18, number(at), anchor="middle") for at in sorted({at for at, _ in points})
    ]
    if target is not None:
        parts.append(stroke(LEFT, up(target), WIDTH - RIGHT, up(target), colour=INK, dashes="6 4"))
        parts.append(text(WIDTH - RIGHT, up(target) - 5, f"target {number(target)}", anchor="end", size=11))
    for place, line in enumerate(drawn):
        colour = COLOURS[place % len(COLOURS)]
        way = " ".join(f"{across(at):.1f},{up(value.middle):.1f}" for at, value in line.points)
        parts.append(f"<polyline points='{way}' fill='none' stroke='{colour}' stroke-width='2'/>")
        for at, value in line.points:
            parts.append(stroke(across(at), up(value.low), across(at), up(value.high), colour=colour))
            parts.append(f"<circle cx='{across(at):.1f}' cy='{up(value.middle):.1f}' r='3' fill='{colour}'/>")
        left, top = LEFT + (place % 2) * (WIDTH - LEFT) / 2, 44 + place // 2 * 18
        parts += [f"<rect x='{left:.0f}' y='{top - 9}' width='10' height='10' fill='{colour}'/>"]
        parts.append(text(left + 16, top, line.name))
    return drawing(WIDTH, HEIGHT, title, parts)


def bars(
    title: str, drawn: Sequence[tuple[str, Value]], *, unit: str, powers: bool = False, target: float | None = None
) -> str:
    """Bars with their spread and figure, the target as a dashed line."""
    values = [part for _, value in drawn for part in value] + ([target] if target is not None else [])
    across = scale([*values, min(values) / 2] if powers else values, LABELS, WIDTH - 110, powers=powers)
    bottom = 44 + BAR * len(drawn)
    parts = [text(WIDTH - 12, bottom + 24, unit, anchor="end")]
    for at in across.ticks():
        parts += [
            stroke(across(at), 38, across(at), bottom),
            text(across(at), bottom + 14, number(at), anchor="middle", size=11),
        ]
    for place, (name, value) in enumerate(drawn):
        top, colour = 42 + BAR * place, COLOURS[0]
        parts.append(text(LABELS - 8, top + 15, name, anchor="end"))
        width = max(1.0, across(value.middle) - LABELS)
        parts.append(f"<rect x='{LABELS}' y='{top + 3}' width='{width:.1f}' height='{BAR - 8}' fill='{colour}'/>")
        parts.append(stroke(across(value.low), top + BAR / 2 - 1, across(value.high), top + BAR / 2 - 1, colour=INK))
        parts.append(text(max(across(value.high), across(value.middle)) + 6, top + 15, number(value.middle), size=11))
    if target is not None:
        parts.append(stroke(across(target), 34, across(target), bottom, colour=INK, dashes="6 4"))
        parts.append(text(across(target), 32, f"target {number(target)}", anchor="middle", size=11))
    return drawing(WIDTH, bottom + 34, title, parts)
