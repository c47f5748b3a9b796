"""The readings as a table: local times, gaps filled."""

from __future__ import annotations

import pandas as pd

from growth import READINGS


def load(zone: str = "America/Santiago") -> pd.DataFrame:
    """The readings, indexed by the time in the greenhouse's zone."""
    table = pd.read_csv(READINGS, parse_dates=["time"])
    table = table.set_index(table.pop("time").dt.tz_localize("UTC").dt.tz_convert(zone))
    table["hour"] = table.index.hour
    return table.interpolate()


def daily(zone: str = "America/Santiago") -> pd.DataFrame:
    return load(zone).resample("D").agg({"light": "sum", "heat": "mean", "water": "sum", "yield": "sum"}).round(2)
