"""The length of the days of a year, smoothed by NumPy, drawn by Cairo; the letters are FreeType's and fontconfig's."""

from __future__ import annotations

import io
from datetime import date, timedelta

import cairo
import numpy

from almanac.sun import Place, day

WIDTH, HEIGHT, MARGIN = 600, 300, 40


def year(place: Place, number: int, kind: str) -> bytes:
    """The chart as "svg" or "png"."""
    weeks = numpy.arange(53)
    hours = numpy.array([day(place, date(number, 1, 1) + timedelta(weeks=int(week))).hours for week in weeks])
    curve = numpy.polynomial.Polynomial.fit(weeks, hours, 8)
    stream = io.BytesIO()
    if kind == "svg":
        surface = cairo.SVGSurface(stream, WIDTH, HEIGHT)
    else:
        surface = cairo.ImageSurface(cairo.FORMAT_RGB24, WIDTH, HEIGHT)
    draw(cairo.Context(surface), f"{place.name}: {hours.min():.1f} to {hours.max():.1f} hours", curve)
    if kind == "png":
        surface.write_to_png(stream)
    surface.finish()
    return stream.getvalue()


def draw(context: cairo.Context, title: str, curve: numpy.polynomial.Polynomial) -> None:
    context.set_source_rgb(1, 1, 1)
    context.paint()
    context.set_source_rgb(0.1, 0.1, 0.2)
    context.select_font_face("DejaVu Sans", cairo.FONT_SLANT_NORMAL, cairo.FONT_WEIGHT_BOLD)
    context.set_font_size(14)
    extents = context.text_extents(title)
    context.move_to((WIDTH - extents.width) / 2, MARGIN / 2)
    context.show_text(title)
    context.rectangle(MARGIN, MARGIN, WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN)
    context.set_line_width(1)
    context.stroke()
    context.set_source_rgb(0.8, 0.4, 0)
    context.set_line_width(2)
    for week in numpy.linspace(0, 52, 200):
        x = MARGIN + week / 52 * (WIDTH - 2 * MARGIN)
        y = HEIGHT - MARGIN - curve(week) / 24 * (HEIGHT - 2 * MARGIN)
        context.line_to(x, y)
    context.stroke()
