"""YAML, for the depot. Found through the entry point depot.formats."""

from __future__ import annotations

from pathlib import Path

import yaml


def read(path: Path, mime: str) -> str | None:
    if path.suffix not in {".yaml", ".yml"}:
        return None
    documents = list(yaml.load_all(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader))
    kinds = ", ".join(type(document).__name__ for document in documents)
    return f"{len(documents)} documents: {kinds}"
