"""Readers of formats: those of the package, by name, and those that other distributions declare."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path

import magic
from stevedore import ExtensionManager

import depot.formats
from depot import settings

Reader = Callable[[Path, str], str | None]


class Registry:
    """The readers: depot.toml's choice of the modules in depot.formats, then the entry points depot.formats."""

    def __init__(self) -> None:
        present = {module.name for module in pkgutil.iter_modules(depot.formats.__path__)}
        self.readers: dict[str, Reader] = {}
        for name in settings()["formats"]:
            if name in present:
                self.readers[name] = importlib.import_module("depot.formats." + name).read
        for extension in ExtensionManager("depot.formats"):
            self.readers[extension.name] = extension.plugin

    def describe(self, path: Path) -> str:
        """The first reader's words on the file, or libmagic's."""
        kind = magic.from_file(str(path), mime=True)
        for name, reader in self.readers.items():
            if found := reader(path, kind):
                return f"{name}, {found}"
        return f"plain, {magic.from_file(str(path))}"
