"""ELF programs and libraries: what the dynamic loader loads with them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from layerlens.ecosystems import Binding, Explorer, ImageView
from layerlens.ecosystems._dynamicloader import CACHE_PATH, DynamicLoader, bound_to, image_libc
from layerlens.ecosystems._elffile import MAGIC, BrokenElf, read_elf
from layerlens.model import Command, Diagnostic, Edge, ImageConfig, ImagePath, Package

if TYPE_CHECKING:
    from layerlens.filesystem import Filesystem


class Elf:
    """Programs and libraries in the Executable and Linkable Format; it has no packages."""

    name = "elf"

    def wants(self, path: ImagePath) -> bool:
        """Nothing: no package is read."""
        return False

    def packages(
        self, fs: Filesystem, config: ImageConfig, diagnostics: list[Diagnostic]
    ) -> Iterable[Package]:
        """None."""
        return ()

    def explorer(self, image: ImageView) -> Explorer:
        """What the ELF files of an image need."""
        return ElfExplorer(image)

    def binding(self, fs: Filesystem, path: ImagePath) -> Binding | None:
        """The libc that an ELF file is bound to; None for other files, static programs and broken ones."""
        try:
            elf = read_elf(fs, path)
        except BrokenElf:
            return None
        bound = bound_to(elf) if elf is not None else None
        return Binding(*bound) if bound else None

    def libc(self, fs: Filesystem) -> str | None:
        """``glibc`` or ``musl``, told by the image's loader and libc."""
        return image_libc(fs)


class ElfExplorer(Explorer):
    """Interpreter and libraries of each kept ELF file."""

    def __init__(self, image: ImageView) -> None:
        super().__init__(image)
        self.loader = DynamicLoader(image)

    def command(self, command: Command, program: ImagePath) -> Iterable[Edge | Command]:
        """The libraries of a program that is started with other variables than the image's."""
        env = self.image.env
        if any(command.env.get(name) != env.get(name) for name in ("LD_LIBRARY_PATH", "LD_PRELOAD")):
            yield from self.loader.load(program, command.env)

    def edges(self, path: ImagePath) -> Iterable[Edge | Command]:
        """What a kept ELF file needs."""
        if self.image.head(path)[:4] != MAGIC:
            return
        elf = self.loader.read(path)
        if elf is None:
            return
        if elf.interpreter:
            yield Edge(path, elf.interpreter, "interpreter", f"interpreter {elf.interpreter}", "certain")
            real = self.image.fs.follow(elf.interpreter)
            if real is not None and not self.loader.is_musl(elf) and self.image.fs.is_file(CACHE_PATH):
                yield Edge(real, CACHE_PATH, "data", "where it looks libraries up (ld.so(8))", "certain")
        if elf.interpreter or path not in self.loader.loaded:
            yield from self.loader.load(path, self.image.env)


ecosystem = Elf()
