"""The handbook as an Atom feed."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from feedgen.feed import FeedGenerator

from handbook.library import Library

OFFICE = ZoneInfo("Europe/Lisbon")


def atom(library: Library) -> bytes:
    feed = FeedGenerator()
    feed.id("urn:handbook")
    feed.title("Handbook")
    feed.updated(max(page.updated for page in library).replace(tzinfo=OFFICE))
    for page in library:
        entry = feed.add_entry()
        entry.id(f"urn:handbook:{page.slug}")
        entry.title(page.title)
        entry.updated(page.updated.replace(tzinfo=OFFICE))
        entry.content(page.html(), type="html")
    return feed.atom_str(pretty=True)
