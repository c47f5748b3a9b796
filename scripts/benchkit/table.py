"""The table of what was measured, and its place in the README."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchkit.measure import Comparison

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
HEADINGS = ("work", "goal", "layerlens", "against", "theirs", "ratio (median, min-max)", "peak memory")


@dataclass(frozen=True, slots=True)
class Row:
    """One line. ``met`` is None where there is no goal."""

    work: str
    goal: str
    ours: str
    against: str = ""
    theirs: str = ""
    ratio: str = ""
    memory: str = ""
    met: bool | None = None

    def cells(self) -> list[str]:
        """The line's cells; a goal that was missed says so."""
        goal = self.goal if self.met is not False else f"{self.goal} (missed)"
        return [self.work, goal, self.ours, self.against, self.theirs, self.ratio, self.memory]


def seconds(value: float) -> str:
    """Seconds as people read them."""
    return f"{value:.1f} s" if value >= 10 else f"{value:.2f} s" if value >= 0.1 else f"{1000 * value:.0f} ms"


def megabytes(value: int) -> str:
    """Decimal megabytes."""
    return f"{value / 1e6:,.0f} MB"


def compared(
    work: str,
    against: str,
    found: Comparison,
    *,
    most_ratio: float | None = None,
    most_seconds: float | None = None,
    most_bytes: int | None = None,
) -> Row:
    """A row of a comparison; the goals are upper bounds on the median ratio, the median time, the peak memory."""
    ratios = found.ratios
    median = statistics.median(ratios)
    goals, met = [], []
    if most_ratio is not None:
        goals.append(f"≤ {most_ratio:g} ×")
        met.append(median <= most_ratio)
    if most_seconds is not None:
        goals.append(f"≤ {most_seconds:g} s")
        met.append(found.seconds <= most_seconds)
    if most_bytes is not None:
        goals.append(f"≤ {most_bytes / 1e6:.0f} MB")
        met.append(found.peak_bytes <= most_bytes)
    return Row(
        work,
        ", ".join(goals),
        seconds(found.seconds),
        against,
        seconds(found.their_seconds),
        f"{median:.2f} ({min(ratios):.2f}-{max(ratios):.2f})",
        megabytes(found.peak_bytes),
        all(met) if met else None,
    )


def markdown(rows: Sequence[Row]) -> str:
    """All rows as a Markdown table."""
    lines = [list(HEADINGS), ["---"] * len(HEADINGS), *(row.cells() for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def put_between(text: str, table: str) -> str:
    """``text`` with the table between the markers, whatever was there.

    Raises:
        ValueError: it has no markers.
    """
    before, found, rest = text.partition(BEGIN)
    if not found or END not in rest:
        raise ValueError("no bench markers")
    return f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}"


def write_readme(readme: Path, table: str) -> None:
    """Put the table into the README."""
    readme.write_text(put_between(readme.read_text(encoding="utf-8"), table), encoding="utf-8")
