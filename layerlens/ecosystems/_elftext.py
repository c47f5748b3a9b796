"""Paths among the constant strings of an ELF file, and how an application's own program names its files.

C's strings end with NUL (ISO C17, 6.4.5); the constants of languages whose strings do not are their own modules' to
read. Constants lie in sections that are loaded, neither written nor executed (gABI 4.1, "Sections"); in a file
without section headers, in segments of that kind.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from layerlens.ecosystems._elffile import PF_W, PF_X, Elf
from layerlens.errors import LayerLensError
from layerlens.patterns import regex

if TYPE_CHECKING:
    from layerlens.filesystem import Filesystem

MAX_SCANNED = 256 << 20
"""Bytes of one file that are searched."""
MAX_TEXTS = 5_000
"""Paths of one file that are looked at."""
LONGEST = 255
CHUNK = 4 << 20

_PROGBITS, _ALLOC, _WRITE, _EXEC = 1, 2, 1, 4
_NO_TEXT = (".eh_frame", ".gcc_except_table", ".interp", ".gnu.", ".note", ".plt", ".rela", ".gopclntab")
NO_FILES = frozenset(("dev", "proc", "sys"))
"""Folders of the root that the kernel fills."""

_OPENSSL = regex(rb'(OPENSSLDIR|MODULESDIR): "(/[^"\0]{1,200})"')
"""What `openssl version -a` prints, which every libcrypto holds, a statically linked one too (crypto/cversion.c)."""


_SONAME = regex(rb"(?<![\x20-\x7e\x80-\xff])lib[\w.+-]{1,120}\.so(?:\.\d{1,5}){1,3}(?=\0)", re.ASCII)
"""A library's name with the version of its interface, as a program that is installed asks for it (Debian policy 8.1);
the name without one is a link for the linker."""


class Constants:
    """The constant strings of one file that look like paths of the image, or like the names of libraries."""

    def __init__(self, fs: Filesystem, elf: Elf) -> None:
        self.absolute: list[str] = []
        """Texts that start with a folder of the image's root, sorted."""
        self.sonames: list[str] = []
        """Names of libraries as dlopen(3) takes them, sorted."""
        self.openssl: dict[str, str] = {}
        """``OPENSSLDIR`` and ``MODULESDIR`` of a libcrypto, where the file holds one."""
        texts: set[bytes] = set()
        names: set[bytes] = set()
        pattern = _absolute(fs)
        for data in chunks(elf):
            if pattern is not None and len(texts) < MAX_TEXTS:
                texts.update(pattern.findall(data))
            if len(names) < MAX_TEXTS:
                names.update(_SONAME.findall(data))
            if not self.openssl:
                self.openssl = {
                    name.decode(): path.decode("utf-8", "surrogateescape")
                    for name, path in _OPENSSL.findall(data)
                }
        found = {word for text in texts for word in text.split(b":") if word.startswith(b"/")}
        self.absolute = sorted(word.decode("utf-8", "surrogateescape") for word in found)[:MAX_TEXTS]
        self.sonames = sorted(name.decode() for name in names)[:MAX_TEXTS]


def _absolute(fs: Filesystem) -> re.Pattern[bytes] | None:
    tops = [name for name in fs.listdir("/") if name not in NO_FILES and fs.is_dir(f"/{name}")]
    if not tops:
        return None
    names = b"|".join(re.escape(name.encode("utf-8", "surrogateescape")) for name in tops)
    return re.compile(rb"/(?:" + names + rb")(?:/[\x21-\x7e\x80-\xff]{0,%d})?(?=\0)" % LONGEST)


def chunks(elf: Elf) -> Iterator[bytes]:
    """The constants of a file in pieces that overlap by the longest text; nothing where they are not in the file."""
    budget = MAX_SCANNED
    for offset, size in _places(elf):
        at, end = offset, offset + min(size, budget)
        budget -= end - at
        while at < end:
            try:
                data = elf.fs.read_at(elf.path, at, min(CHUNK + LONGEST, end - at))
            except (LayerLensError, OSError):
                return
            if not data:
                break
            yield data
            at += CHUNK


def _places(elf: Elf) -> list[tuple[int, int]]:
    """Offset and size of what holds constants."""
    sections = [
        (offset, size)
        for name, kind, flags, offset, size in elf.section_headers()
        if kind == _PROGBITS and flags & (_ALLOC | _WRITE | _EXEC) == _ALLOC and not name.startswith(_NO_TEXT)
    ]
    if sections:
        return sections
    plain = [(part.offset, part.size) for part in elf.segments if not part.flags & (PF_W | PF_X)]
    return plain or [(part.offset, part.size) for part in elf.segments if not part.flags & PF_W]


def relative_names(elf: Elf, names: list[str]) -> dict[str, list[str]]:
    """Which of ``names``, a folder's, a file's constants start with, and the whole texts, sorted.

    ``templates/`` and ``./config/app.conf`` are found; ``%s/templates`` is not a name that C would open.
    """
    if not names:
        return {}
    words = b"|".join(re.escape(name.encode("utf-8", "surrogateescape")) for name in names)
    pattern = re.compile(
        rb"(?<![\x21-\x7e\x80-\xff])(?:\./)?((?:"
        + words
        + rb")(?:/[\x21-\x7e\x80-\xff]{0,%d})?)(?=\0)" % LONGEST
    )
    found: dict[str, set[str]] = {}
    for data in chunks(elf):
        for text in pattern.findall(data):
            word = text.decode("utf-8", "surrogateescape")
            found.setdefault(word.partition("/")[0], set()).add(word)
    return {name: sorted(texts)[:MAX_TEXTS] for name, texts in sorted(found.items())}
