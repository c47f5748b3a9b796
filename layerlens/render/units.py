"""Numbers for people: decimal units as the engines print them, three digits that count."""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=4096)
def size(size_bytes: int) -> str:
    """``0 B``, ``512 B``, ``1.50 kB``, ``117 MB``, ``1.21 GB``."""
    if abs(size_bytes) < 1000:
        return f"{size_bytes} B"
    import humanize

    return str(humanize.metric(size_bytes, "B", precision=3))


def count(number: int, noun: str = "", plural: str = "") -> str:
    """``1 file``, ``75,123 files``; without a noun the number alone."""
    if not noun:
        return f"{number:,}"
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def share(part: float, whole: float) -> str:
    """``9.7 %``; ``<0.1 %`` where there is something but next to nothing, ``0 %`` of nothing."""
    if not part or not whole:
        return "0 %"
    percent = 100 * part / whole
    if percent < 0.05:
        return "<0.1 %"
    if 99.95 <= percent < 100:
        return "99.9 %"
    return f"{percent:.1f} %" if percent < 99.95 else f"{percent:.0f} %"


def ratio(value: float) -> str:
    """An efficiency as ``95.23 %``; never rounded up to a hundred while something is wasted."""
    percent = 100 * value
    if 99.995 <= percent < 100:
        percent = 99.99
    return f"{percent:.2f} %"
