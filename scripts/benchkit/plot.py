"""Growth as an SVG that needs no library: one panel for each of entries, layers and bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT, GAP, LEFT, TOP, BOTTOM = 260, 190, 70, 60, 56, 46
COLOURS = {"layerlens": "#0b6e99", "tarfile": "#b4552d"}
FONT = "font-family='system-ui, sans-serif'"


@dataclass(frozen=True, slots=True)
class Panel:
    """Seconds over one quantity, by who took them; the quantity of each point, smallest first."""

    title: str
    unit: str
    quantities: Sequence[float]
    seconds: dict[str, Sequence[float]]
    logarithmic: bool = False


def svg(panels: Sequence[Panel]) -> str:
    """The panels side by side on white, so that they can be read on any page."""
    width = LEFT + len(panels) * (WIDTH + GAP)
    height = TOP + HEIGHT + BOTTOM
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' "
        f"height='{height}' role='img' aria-label='Seconds over entries, layers and bytes'>",
        f"<rect width='{width}' height='{height}' fill='#ffffff'/>",
    ]
    for number, panel in enumerate(panels):
        parts += _panel(panel, LEFT + number * (WIDTH + GAP))
    for number, (name, colour) in enumerate(COLOURS.items()):
        x = LEFT + number * 150
        label = name if name == "layerlens" else "tarfile, listing entries only"
        parts.append(f"<rect x='{x}' y='10' width='12' height='12' fill='{colour}'/>")
        parts.append(_text(x + 18, 20, label, "start"))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(panel: Panel, left: int) -> list[str]:
    most = max(max(values) for values in panel.seconds.values())
    least = min(min(values) for values in panel.seconds.values())
    bottom = TOP + HEIGHT

    def across(quantity: float) -> float:
        first, last = panel.quantities[0], panel.quantities[-1]
        if panel.logarithmic:
            first, last, quantity = math.log10(first), math.log10(last), math.log10(quantity)
        return left + 10 + (WIDTH - 20) * (quantity - first) / ((last - first) or 1)

    floor = 10 ** math.floor(math.log10(least)) if panel.logarithmic else 0.0
    roof = 10 ** math.ceil(math.log10(most)) if panel.logarithmic else _round_up(most)

    def up(seconds: float) -> float:
        if panel.logarithmic:
            return bottom - HEIGHT * math.log10(seconds / floor) / (math.log10(roof / floor) or 1)
        return bottom - HEIGHT * seconds / roof

    parts = [_text(left + WIDTH / 2, TOP - 12, panel.title, "middle", bold=True)]
    for mark in _marks(floor, roof, panel.logarithmic):
        y = up(mark)
        parts.append(f"<line x1='{left}' x2='{left + WIDTH}' y1='{y:.1f}' y2='{y:.1f}' stroke='#e3e3e3'/>")
        parts.append(_text(left - 6, y + 4, f"{mark:g} s", "end"))
    parts += [_text(across(each), bottom + 18, _short(each), "middle") for each in panel.quantities]
    parts.append(_text(left + WIDTH / 2, bottom + 36, panel.unit, "middle"))
    parts.append(f"<line x1='{left}' x2='{left + WIDTH}' y1='{bottom}' y2='{bottom}' stroke='#888888'/>")
    for name, values in panel.seconds.items():
        points = [(across(q), up(s)) for q, s in zip(panel.quantities, values, strict=True)]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f"<polyline points='{line}' fill='none' stroke='{COLOURS[name]}' stroke-width='2'/>")
        parts += [f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3' fill='{COLOURS[name]}'/>" for x, y in points]
    return parts


def _marks(floor: float, roof: float, logarithmic: bool) -> list[float]:
    if logarithmic:
        return [floor * 10**power for power in range(round(math.log10(roof / floor)) + 1)]
    return [roof * part / 4 for part in range(5)]


def _round_up(value: float) -> float:
    """The next of 1, 2, 4 and 8 times a power of ten, so that quarters of it are short."""
    power = 10 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 8, 10) if step * power >= value)


def _short(value: float) -> str:
    for size, letter in ((1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _text(x: float, y: float, text: str, anchor: str, bold: bool = False) -> str:
    weight = " font-weight='600'" if bold else ""
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' {FONT} font-size='12'{weight} fill='#333333' "
        f"text-anchor='{anchor}'>{text}</text>"
    )
