"""Bytes, counts and shares for people."""

from __future__ import annotations

import pytest

from layerlens.render import units


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (999_949, "1.00 MB"),
        (58_300_000, "58.3 MB"),
        (117_000_000, "117 MB"),
        (1_213_000_000, "1.21 GB"),
        (-1, "-1 B"),
        (2**63, "9.22 EB"),
    ],
)
def test_size(size_bytes: int, shown: str) -> None:
    assert units.size(size_bytes) == shown


def test_count() -> None:
    assert units.count(1, "file") == "1 file"
    assert units.count(75_123, "file") == "75,123 files"
    assert units.count(2, "entry", "entries") == "2 entries"
    assert units.count(1234) == "1,234"


@pytest.mark.parametrize(
    ("part", "whole", "shown"),
    [
        (0, 10, "0 %"),
        (1, 0, "0 %"),
        (1, 10**6, "<0.1 %"),
        (97, 1000, "9.7 %"),
        (999_999, 10**6, "99.9 %"),
        (1, 1, "100 %"),
    ],
)
def test_share(part: int, whole: int, shown: str) -> None:
    assert units.share(part, whole) == shown


def test_ratio_never_rounds_up_to_perfect() -> None:
    assert units.ratio(1.0) == "100.00 %"
    assert units.ratio(0.999999) == "99.99 %"
    assert units.ratio(0.5) == "50.00 %"
