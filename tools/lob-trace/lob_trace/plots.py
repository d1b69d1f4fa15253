"""Plots as SVG text: axes, lines, bars. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

COLOURS = ("#3569b8", "#c8553d", "#3c8d5a", "#8a5cad", "#b8860b", "#4a8fa3", "#777777")
WIDTH, HEIGHT = 860, 300
LEFT, RIGHT, TOP, BOTTOM = 70, 30, 12, 42


@dataclass(frozen=True)
class Axis:
    """From `low` to `high`; the logarithm of both if `log` (then they are above 0)."""

    title: str
    low: float
    high: float
    log: bool = False
    ticks: Sequence[tuple[float, str]] | None = None  # None: chosen

    def at(self, value: float) -> float:
        """0 to 1 along the axis."""
        if self.log:
            low, high, value = math.log(self.low), math.log(self.high), math.log(max(value, self.low))
        else:
            low, high = self.low, self.high
        return min(1.0, max(0.0, (value - low) / ((high - low) or 1.0)))

    def chosen_ticks(self) -> Sequence[tuple[float, str]]:
        if self.ticks is not None:
            return self.ticks
        if self.log:
            exponents = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            steps = (1, 2, 5) if len(exponents) <= 4 else (1,)
            values = [step * 10.0**exponent for exponent in exponents for step in steps]
        else:
            wanted = max(self.high - self.low, 1e-12) / 6
            magnitude = 10.0 ** math.floor(math.log10(wanted))
            step = next(magnitude * factor for factor in (1, 2, 5, 10) if magnitude * factor >= wanted)
            values = [step * i for i in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]
        return [(value, f"{value:g}") for value in values if self.low <= value <= self.high]


def _x(axis: Axis) -> Callable[[float], float]:
    return lambda value: LEFT + axis.at(value) * (WIDTH - LEFT - RIGHT)


def _y(axis: Axis) -> Callable[[float], float]:
    return lambda value: HEIGHT - BOTTOM - axis.at(value) * (HEIGHT - TOP - BOTTOM)


def frame(x: Axis, y: Axis, inside: list[str], legend: Sequence[str] = ()) -> str:
    """A plot around what is drawn inside."""
    place_x, place_y = _x(x), _y(y)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(y.title)} over {escape(x.title)}">']
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    for value, text in x.chosen_ticks():
        at = place_x(value)
        parts.append(f'<path class="grid" d="M{at:.1f} {TOP}V{bottom}"/>')
        parts.append(f'<text x="{at:.1f}" y="{bottom + 15}" text-anchor="middle">{escape(text)}</text>')
    for value, text in y.chosen_ticks():
        at = place_y(value)
        parts.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{right}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{escape(text)}</text>')
    parts += inside
    parts.append(f'<path class="axis" d="M{LEFT} {TOP}V{bottom}H{right}"/>')
    middle = (LEFT + right) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x.title)}</text>')
    upright = f"translate(14 {(TOP + bottom) / 2}) rotate(-90)"
    parts.append(f'<text transform="{upright}" text-anchor="middle">{escape(y.title)}</text>')
    for index, name in enumerate(legend):
        at = TOP + 16 + 17 * index
        parts.append(f'<rect x="{LEFT + 12}" y="{at - 9}" width="11" height="11" fill="{colour(index)}"/>')
        parts.append(f'<text x="{LEFT + 29}" y="{at}">{escape(name)}</text>')
    return "".join([*parts, "</svg>"])


def colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def line(x: Axis, y: Axis, points: Sequence[tuple[float, float]], index: int) -> str:
    place_x, place_y = _x(x), _y(y)
    path = "L".join(f"{place_x(a):.1f} {place_y(b):.1f}" for a, b in points)
    return f'<path class="line" stroke="{colour(index)}" d="M{path}"/>' if points else ""


def dots(x: Axis, y: Axis, points: Sequence[tuple[float, float]], index: int) -> str:
    place_x, place_y = _x(x), _y(y)
    return "".join(
        f'<circle cx="{place_x(a):.1f}" cy="{place_y(b):.1f}" r="1.6" fill="{colour(index)}"/>' for a, b in points
    )


def bars(x: Axis, y: Axis, found: Sequence[tuple[float, float, float, str]], index: int) -> str:
    """Of (from, to, height, what a pointer on it is told)."""
    place_x, place_y = _x(x), _y(y)
    parts = []
    for low, high, height, told in found:
        left, right, top = place_x(low), place_x(high), place_y(height)
        parts.append(
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{max(right - left - 0.5, 0.5):.1f}" '
            f'height="{max(HEIGHT - BOTTOM - top, 0):.1f}" fill="{colour(index)}"><title>{escape(told)}</title></rect>'
        )
    return "".join(parts)
