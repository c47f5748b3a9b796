"""Ways out: a report, an entry or an explanation becomes text. Pure functions, one module a form.

Nothing here reads an image, prints or exits. Units for people (humanize) and layout (rich, pandas) are
imported by the functions that need them, so that JSON costs neither. Every name that comes out of an image
passes through :mod:`layerlens.render.escape` before it reaches a terminal, Markdown or HTML.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from layerlens.model import Edge, EntryType, ImagePath, Verdict


class Explained(Protocol):
    """What `why` says of one path; the renderers need no more of it than this."""

    @property
    def path(self) -> ImagePath:
        """The path that was asked for, absolute."""

    @property
    def type(self) -> EntryType:
        """What it is."""

    @property
    def size_bytes(self) -> int:
        """Payload in bytes."""

    @property
    def layer(self) -> int:
        """Index of the layer that holds it."""

    @property
    def instruction(self) -> str | None:
        """The Dockerfile line that made that layer."""

    @property
    def package(self) -> str | None:
        """Its owner, as ``dpkg:gcc-12 12.2.0-14``."""

    @property
    def category(self) -> str | None:
        """What it is for."""

    @property
    def verdict(self) -> Verdict | None:
        """What a plan does with it; None without one."""

    @property
    def chain(self) -> Sequence[Edge] | None:
        """Edges from a root to it; None without a plan."""

    @property
    def would_need(self) -> Sequence[Edge] | None:
        """For a dropped file: what names it but is itself dropped; None without a plan."""

    @property
    def reason(self) -> str | None:
        """Why it is dropped, in a sentence."""
