"""The pages on disk: front matter in YAML, body in Markdown."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import markdown
import yaml
from dateutil import parser as dates


@dataclass(frozen=True)
class Page:
    slug: str
    title: str
    updated: datetime
    tags: tuple[str, ...]
    source: str

    def html(self) -> str:
        # The extensions are named, not imported: Markdown looks them up among its entry points.
        return markdown.markdown(self.source, extensions=["tables", "fenced_code", "toc"])


class Library:
    def __init__(self, folder: str | Path) -> None:
        self.pages = {page.slug: page for page in map(self._read, sorted(Path(folder).glob("*.md")))}

    def __iter__(self):
        return iter(sorted(self.pages.values(), key=lambda page: page.title))

    def get(self, slug: str) -> Page | None:
        return self.pages.get(slug)

    @staticmethod
    def _read(path: Path) -> Page:
        _, front, body = path.read_text(encoding="utf-8").split("---\n", 2)
        # libyaml's parser: the C extension, not the pure Python one.
        meta = yaml.load(front, Loader=yaml.CSafeLoader)
        return Page(path.stem, meta["title"], dates.parse(str(meta["updated"])), tuple(meta["tags"]), body)
