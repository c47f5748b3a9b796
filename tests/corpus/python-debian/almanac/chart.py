"""The length of the days of a year, drawn by Matplotlib."""

from __future__ import annotations

import io
from datetime import date, timedelta

import matplotlib

matplotlib.use("agg")

from matplotlib import dates, pyplot  # noqa: E402

from almanac.sun import Place, day  # noqa: E402


def year(place: Place, number: int, kind: str) -> bytes:
    days = [date(number, 1, 1) + timedelta(days=week * 7) for week in range(53)]
    figure, axes = pyplot.subplots(figsize=(6, 3))
    axes.plot(days, [day(place, when).hours for when in days], color="#c60")
    axes.set_title(f"Hours of daylight, {place.name}")
    axes.xaxis.set_major_formatter(dates.DateFormatter("%b"))
    axes.set_ylabel(r"$\Delta t$ / h")
    stream = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "almanac"}):
        figure.savefig(stream, format=kind, metadata={"Date": None} if kind == "svg" else None)
    pyplot.close(figure)
    return stream.getvalue()
