"""What the dynamic section of an ELF file says, read by ranges, so that a program of 100 MB costs kilobytes.

Layouts are those of System V gABI 4.1, chapters 4 and 5 (``Elf32_Ehdr``, ``Elf64_Phdr``, ``Elf64_Dyn``,
``Elf64_Sym``) and of the Linux Standard Base 5.0 core, 10.7 (``Elfxx_Verneed``).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from layerlens.errors import LayerLensError

if TYPE_CHECKING:
    from layerlens.filesystem import Filesystem
    from layerlens.model import ImagePath

MAGIC = b"\x7fELF"

MAX_TABLE = 1 << 20
"""Bytes of a header table or of a dynamic section that are read."""
MAX_NAMES = 64 << 20
"""Bytes of a dynamic string table that are read; LLVM's has 4 MB."""
MAX_SYMBOLS = 1 << 17
"""Dynamic symbols that are read."""
MAX_SYMBOL = 256
"""Bytes of a symbol's name from which on it is passed over: a mangled one, of no function that is asked for."""
MAX_NEEDED = 4096
"""NEEDED entries that are read."""
MAX_VERSIONS = 50_000
"""Versions of symbols that are read; entries may overlap, so that their number is not bounded by the file's size."""
MAX_TEXT = 4096
"""Bytes of one name (limits.h, PATH_MAX)."""

MACHINES: dict[int, str] = {
    # e_machine (gABI, "ELF Header"; the registry of values is at the gABI's own site) as `uname -m` writes it.
    3: "i386",
    8: "mips",
    20: "powerpc",
    21: "powerpc64",
    22: "s390x",
    40: "arm",
    62: "x86-64",
    183: "aarch64",
    243: "riscv",
    258: "loongarch",
}

ET_REL, ET_EXEC, ET_DYN, ET_CORE = 1, 2, 3, 4
PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3
PF_X, PF_W = 1, 2
SHT_DYNSYM = 11
DT_NEEDED, DT_STRTAB, DT_SYMTAB, DT_STRSZ, DT_SONAME, DT_RPATH = 1, 5, 6, 10, 14, 15
DT_RUNPATH, DT_FLAGS_1 = 29, 0x6FFFFFFB
DT_VERNEED, DT_VERNEEDNUM = 0x6FFFFFFE, 0x6FFFFFFF
DT_AUXILIARY, DT_FILTER = 0x7FFFFFFD, 0x7FFFFFFF
DF_1_NODEFLIB = 0x800


class BrokenElf(Exception):  # noqa: N818 - never leaves this folder; its readers make a diagnostic of it
    """The file claims to be ELF and does not hold what its header says."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the file that is loaded into memory (PT_LOAD)."""

    flags: int
    offset: int
    address: int
    size: int
    """Bytes in the file."""


@dataclass
class Elf:
    """One ELF file: its header, its segments and its dynamic section."""

    fs: Filesystem = field(repr=False)
    path: ImagePath
    bits: int
    order: str
    """``<`` little endian, ``>`` big."""
    type: int
    """``ET_EXEC``, ``ET_DYN`` (shared objects and position-independent programs), ``ET_REL`` …"""
    machine: str
    """``x86-64``, ``aarch64`` …; a number where it is none of MACHINES."""
    segments: tuple[Segment, ...] = ()
    interpreter: ImagePath | None = None
    """PT_INTERP: the dynamic loader that the kernel starts."""
    dynamic: tuple[tuple[int, int], ...] | None = None
    """Tags and values; None for a static program."""
    sections: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Where the section headers are: offset, size of one, count, index of the one with the names."""

    @property
    def platform(self) -> tuple[int, str, str]:
        """What must be equal for one file to be loaded into the process of another."""
        return self.bits, self.order, self.machine

    def _values(self, tag: int) -> list[int]:
        return [value for kind, value in self.dynamic or () if kind == tag]

    def _value(self, tag: int) -> int | None:
        return next(iter(self._values(tag)), None)

    def at(self, address: int, size: int) -> bytes:
        """At most ``size`` bytes that are loaded at ``address``; empty where the file has none for it."""
        for segment in self.segments:
            within = address - segment.address
            if 0 <= within < segment.size:
                return self.fs.read_at(self.path, segment.offset + within, min(size, segment.size - within))
        return b""

    @cached_property
    def strings(self) -> bytes:
        """The dynamic string table; empty where there is none."""
        address, size = self._value(DT_STRTAB), self._value(DT_STRSZ)
        return b"" if address is None or size is None else self.at(address, min(size, MAX_NAMES))

    def _text(self, offset: int) -> str:
        end = self.strings.find(b"\0", offset, offset + MAX_TEXT)
        return "" if end < 0 else self.strings[offset:end].decode("utf-8", "surrogateescape")

    def _texts(self, tag: int) -> tuple[str, ...]:
        found = (self._text(value) for value in self._values(tag)[:MAX_NEEDED])
        return tuple(dict.fromkeys(text for text in found if text))

    @cached_property
    def needed(self) -> tuple[str, ...]:
        """DT_NEEDED, in order."""
        return self._texts(DT_NEEDED)

    @cached_property
    def filters(self) -> tuple[str, ...]:
        """DT_AUXILIARY and DT_FILTER: objects whose symbols come before this one's (ld(1), ``-f`` and ``-F``)."""
        return self._texts(DT_AUXILIARY) + self._texts(DT_FILTER)

    @cached_property
    def soname(self) -> str | None:
        """DT_SONAME."""
        return next(iter(self._texts(DT_SONAME)), None)

    @property
    def is_static(self) -> bool:
        """Whether nothing is loaded with it: it holds what it calls, position-independent or not."""
        return self.interpreter is None and not self.needed and self.soname is None

    @cached_property
    def rpath(self) -> str | None:
        """DT_RPATH: folders with ``:`` between them."""
        return next(iter(self._texts(DT_RPATH)), None)

    @cached_property
    def runpath(self) -> str | None:
        """DT_RUNPATH."""
        return next(iter(self._texts(DT_RUNPATH)), None)

    @property
    def ignores_default_folders(self) -> bool:
        """Linked with ``-z nodefaultlib``."""
        return bool((self._value(DT_FLAGS_1) or 0) & DF_1_NODEFLIB)

    @cached_property
    def imports(self) -> frozenset[str]:
        """The undefined symbols of the dynamic symbol table: functions and variables of other objects."""
        # Elf64_Sym: name, info, other, shndx, value, size; Elf32_Sym: name, value, size, info, other, shndx.
        row = struct.Struct(self.order + ("IBBHQQ" if self.bits == 64 else "IIIBBH"))
        shndx = 3 if self.bits == 64 else 5
        table = self._value(DT_SYMTAB)
        if table is None:
            return frozenset()
        raw = self.at(table, min(self._symbol_bytes(table), MAX_SYMBOLS * row.size))
        raw = raw[: len(raw) - len(raw) % row.size]
        offsets = {fields[0] for fields in row.iter_unpack(raw) if not fields[shndx] and fields[0]}
        strings, find = self.strings, self.strings.find
        names = {
            strings[at:end] for at in offsets if (end := find(b"\0", at, at + MAX_SYMBOL)) > at
        }  # a comprehension without calls: a large library has thousands
        return frozenset(name.decode("utf-8", "surrogateescape") for name in names)

    def _symbol_bytes(self, table: int) -> int:
        """The size of the dynamic symbol table, which the dynamic section does not tell.

        It is that of the section of type SHT_DYNSYM; where section headers were stripped, the table ends before the
        string table, which linkers write after it.
        """
        for _, kind, _, _, size in self._section_headers:
            if kind == SHT_DYNSYM:
                return size
        return max((self._value(DT_STRTAB) or 0) - table, 0)

    @cached_property
    def versions(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """DT_VERNEED: for each library the versions of its symbols that are wanted (``GLIBC_2.34``)."""
        address, count = self._value(DT_VERNEED), self._value(DT_VERNEEDNUM)
        if address is None or not count:
            return ()
        raw = self.at(address, MAX_TABLE)
        found = []
        at, budget = 0, MAX_VERSIONS
        for _ in range(min(count, MAX_NEEDED)):
            if at < 0 or at + 16 > len(raw):
                break
            _, names, file, first, following = struct.unpack_from(self.order + "HHIII", raw, at)
            wanted = tuple(self._wanted(raw, at + first, min(names, budget)))
            budget -= len(wanted)
            found.append((self._text(file), wanted))
            if not following:
                break
            at += following
        return tuple(found)

    def _wanted(self, raw: bytes, at: int, count: int) -> Iterator[str]:
        for _ in range(count):
            if at + 16 > len(raw):
                return
            *_, name, following = struct.unpack_from(self.order + "IHHII", raw, at)
            yield self._text(name)
            if not following:
                return
            at += following

    def section_headers(self) -> list[tuple[str, int, int, int, int]]:
        """Name, type, flags, offset and size of each section; empty where they were stripped or make no sense."""
        return self._section_headers

    @cached_property
    def _section_headers(self) -> list[tuple[str, int, int, int, int]]:
        offset, step, count, names_at = self.sections
        form = struct.Struct(self.order + ("IIQQQQIIQQ" if self.bits == 64 else "IIIIIIIIII"))
        if not offset or step < form.size or step * count > MAX_TABLE:
            return []
        table = self.fs.read_at(self.path, offset, step * count)
        rows = [form.unpack_from(table, at) for at in range(0, len(table) - form.size + 1, step)]
        if names_at >= len(rows):
            return []
        names = self.fs.read_at(self.path, rows[names_at][4], min(rows[names_at][5], MAX_TABLE))

        def name(at: int) -> str:
            end = names.find(b"\0", at)
            return names[at : max(end, at)].decode("ascii", "replace")

        return [(name(row[0]), row[1], row[2], row[4], row[5]) for row in rows]


def read_elf(fs: Filesystem, path: ImagePath) -> Elf | None:
    """The ELF file at ``path``, links followed; None where it does not start as one.

    Raises:
        BrokenElf: it starts as one, and its header, its segments or its dynamic section are not there.
    """
    try:
        head = fs.read_at(path, 0, 64)
        if head[:4] != MAGIC:
            return None
        return _parse(fs, path, head)
    except struct.error as error:
        raise BrokenElf(f"the header ends early ({error})") from None
    except (LayerLensError, OSError) as error:
        raise BrokenElf(str(error)) from None


def _parse(fs: Filesystem, path: ImagePath, head: bytes) -> Elf:
    if len(head) < 52 or head[4] not in (1, 2) or head[5] not in (1, 2):
        raise BrokenElf(
            "the header ends early" if len(head) < 52 else "neither 32 nor 64 bits, or no byte order"
        )
    bits, order = 32 * head[4], "<>"[head[5] - 1]
    form = order + ("HHIQQQIHHHHHH" if bits == 64 else "HHIIIIIHHHHHH")
    kind, machine, _, _, phoff, shoff, _, _, phentsize, phnum, *sections = struct.unpack_from(form, head, 16)
    elf = Elf(fs, path, bits, order, kind, MACHINES.get(machine, str(machine)))
    elf.sections = (shoff, *sections)
    if not phnum:
        return elf
    row = struct.Struct(order + ("IIQQQQQQ" if bits == 64 else "IIIIIIII"))
    if phentsize < row.size or phentsize * phnum > MAX_TABLE:
        raise BrokenElf(f"{phnum} program headers of {phentsize} bytes")
    table = fs.read_at(path, phoff, phentsize * phnum)
    if len(table) < phentsize * phnum:
        raise BrokenElf("the program headers are beyond the end of the file")
    _read_segments(elf, table, phentsize, row)
    return elf


def _read_segments(elf: Elf, table: bytes, step: int, row: struct.Struct) -> None:
    fs, path = elf.fs, elf.path
    loaded = []
    dynamic = None
    for at in range(0, len(table) - row.size + 1, step):
        fields = row.unpack_from(table, at)
        if elf.bits == 64:
            kind, flags, offset, address, _, size = fields[:6]
        else:
            kind, offset, address, _, size, _, flags = fields[:7]
        if kind == PT_LOAD:
            loaded.append(Segment(flags, offset, address, size))
        elif kind == PT_INTERP:
            text = fs.read_at(path, offset, min(size, MAX_TEXT)).split(b"\0")[0]
            elf.interpreter = text.decode("utf-8", "surrogateescape") or None
        elif kind == PT_DYNAMIC:
            dynamic = fs.read_at(path, offset, min(size, MAX_TABLE))
            if len(dynamic) < min(size, MAX_TABLE):
                raise BrokenElf("the dynamic section is beyond the end of the file")
    elf.segments = tuple(loaded)
    if dynamic is not None:
        pair = struct.Struct(elf.order + ("QQ" if elf.bits == 64 else "II"))
        elf.dynamic = tuple(_until_null(pair.iter_unpack(dynamic[: len(dynamic) // pair.size * pair.size])))
        if elf.type in (ET_EXEC, ET_DYN) and elf._values(DT_NEEDED) and not elf.strings:
            raise BrokenElf("the names of the libraries it needs are not in the file")


def _until_null(pairs: Iterator[tuple[int, ...]]) -> Iterator[tuple[int, int]]:
    for tag, value in pairs:
        if not tag:
            return
        yield tag, value
