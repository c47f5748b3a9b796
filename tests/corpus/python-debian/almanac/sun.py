"""Sunrise and sunset, by PyEphem's C library."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timezone
from zoneinfo import ZoneInfo

import ephem
from babel.dates import format_date, format_time


@dataclass(frozen=True)
class Place:
    name: str
    latitude: float
    longitude: float
    zone: str


@dataclass(frozen=True)
class Day:
    place: Place
    date: date
    rises: datetime
    sets: datetime

    @property
    def hours(self) -> float:
        return (self.sets - self.rises).total_seconds() / 3600

    def as_dict(self, locale: str) -> dict[str, object]:
        return {
            "place": self.place.name,
            "date": format_date(self.date, "full", locale),
            "rises": format_time(self.rises, "HH:mm", locale=locale),
            "sets": format_time(self.sets, "HH:mm", locale=locale),
            "hours": round(self.hours, 1),
        }


def day(place: Place, when: date) -> Day:
    """The sun at a place on a day of its own calendar."""
    zone = ZoneInfo(place.zone)
    observer = ephem.Observer()
    observer.lat, observer.lon = str(place.latitude), str(place.longitude)
    midnight = datetime.combine(when, time(), zone).astimezone(timezone.utc)
    observer.date = ephem.Date(midnight.replace(tzinfo=None))
    rises = observer.next_rising(ephem.Sun())
    observer.date = rises
    sets = observer.next_setting(ephem.Sun())
    local = [moment.datetime().replace(tzinfo=timezone.utc).astimezone(zone) for moment in (rises, sets)]
    return Day(place, when, *local)
