"""Rust programs: the crates that ``cargo auditable`` lists in them, and the files that they name.

The list is zlib-compressed JSON in a section of its own (rust-secure-code/cargo-auditable, PARSING.md). What a
program links is the dynamic loader's matter; here is what its constants name, which no NUL ends, so that the search
that serves Go serves here too.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from layerlens.ecosystems import Explorer, ImageView
from layerlens.ecosystems._compiled import (
    MAX_PROGRAM,
    NamedFiles,
    looks_like_program,
    own_programs,
    read_program,
    read_section,
    sections,
)
from layerlens.errors import LayerLensError
from layerlens.model import Command, Diagnostic, Edge, ImageConfig, ImagePath, Package
from layerlens.patterns import regex

if TYPE_CHECKING:
    from layerlens.filesystem import Filesystem

CRATES = ".dep-v0"
MAX_CRATES = 8 << 20
"""Bytes of the list, inflated (PARSING.md asks readers for a limit)."""
MAX_STORED = 1 << 20
STANDARD_LIBRARY = regex(rb"/rustc/[0-9a-f]{40}/library/|/rustc-[0-9.]{3,12}[^\0]{0,40}/library/")
"""Where the standard library says it panicked: the path that its builders gave it, or a distribution's."""
CONSTANTS = frozenset((".rodata", ".data.rel.ro", ".data"))


class Rust:
    """Crates that were compiled into the programs of an image, and the needs of such programs."""

    name = "rust"

    endings: tuple[str, ...] = ()

    def wants(self, path: ImagePath) -> bool:
        """Nothing: programs are too large to be kept from a stream."""
        return False

    def packages(
        self, fs: Filesystem, config: ImageConfig, diagnostics: list[Diagnostic]
    ) -> Iterable[Package]:
        """The crates of each program, its own crate first, which owns it; by the program's path."""
        found: list[Package] = []
        for path in own_programs(fs, config):
            elf = read_program(fs, path)
            where = sections(elf).get(CRATES) if elf is not None else None
            if elf is None or where is None:
                continue
            try:
                crates = _crates(read_section(elf, where, MAX_STORED))
            except (LayerLensError, OSError, ValueError, zlib.error, RecursionError) as error:
                diagnostics.append(
                    Diagnostic("warning", "broken-crate-list", f"{CRATES} cannot be read: {error}", path)
                )
                continue
            for name, version, is_root in sorted(crates, key=lambda crate: (not crate[2], crate)):
                if is_root:
                    found.append(Package("rust", name, version, path, paths=(path,), category="app"))
                else:
                    found.append(Package("rust", name, version, path))
        return found

    def explorer(self, image: ImageView) -> Explorer:
        """The files that Rust programs name."""
        return RustExplorer(image)


def _crates(stored: bytes) -> list[tuple[str, str, bool]]:
    """Name, version, and whether it is the program's own, of every crate that is linked in."""
    inflater = zlib.decompressobj()
    text = inflater.decompress(stored, MAX_CRATES)
    if inflater.unconsumed_tail:
        raise ValueError(f"more than {MAX_CRATES} bytes")
    document = json.loads(text)
    rows = document.get("packages") if isinstance(document, dict) else None
    found = []
    for row in rows if isinstance(rows, list) else ():
        if not isinstance(row, dict) or row.get("kind") == "build":
            continue
        name, version = row.get("name"), row.get("version")
        if isinstance(name, str) and isinstance(version, str):
            found.append((name, version, row.get("root") is True))
    return found


class RustExplorer(Explorer):
    """What Rust programs name."""

    def __init__(self, image: ImageView) -> None:
        super().__init__(image)
        self._files = NamedFiles(image)
        self._constants: dict[ImagePath, bytes | None] = {}

    def command(self, command: Command, program: ImagePath) -> Iterable[Edge | Command]:
        """The files that a Rust program names below the directory it is run in."""
        constants = self._read(program)
        if constants is not None:
            for root in self._files.roots(program, command.cwd, command.env):
                yield from self._files.below(program, constants, root)

    def edges(self, path: ImagePath) -> Iterable[Edge | Command]:
        """The paths that a Rust program names."""
        constants = self._read(path)
        if constants is not None:
            yield from self._files.absolute(path, constants)
            for root in self._files.roots(path, self.image.config.workdir or "/", self.image.env):
                yield from self._files.below(path, constants, root)

    def _read(self, path: ImagePath) -> bytes | None:
        """The constants of a program that was compiled by Rust; None for any other. The last one is remembered."""
        if path not in self._constants:
            self._constants = {path: self._constants_of(path) if self._may_be_own(path) else None}
        return self._constants[path]

    def _may_be_own(self, path: ImagePath) -> bool:
        """A program that is no part of the distribution nor an interpreter: those are large and many."""
        owner = self.image.owner_of(path)
        if (owner is not None and owner.is_os) or self.image.category_of(path) == "runtime":
            return False
        return looks_like_program(self.image, path)

    def _constants_of(self, path: ImagePath) -> bytes | None:
        elf = read_program(self.image.fs, path)
        if elf is None:
            return None
        try:
            named = sections(elf)
            found = b"".join(read_section(elf, where) for name, where in named.items() if name in CONSTANTS)
            if not named:
                found = self.image.fs.read(path, MAX_PROGRAM)
        except (LayerLensError, OSError):
            return None
        return found if STANDARD_LIBRARY.search(found) else None


ecosystem = Rust()
