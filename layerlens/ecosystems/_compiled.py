"""What programs that were compiled to one ELF file have in common: its sections, and names among its bytes.

Go and Rust keep the text of string constants without a terminating NUL and run them together, so that what a program
names cannot be listed from its bytes. It is found the other way round: the image's own names are looked for in the
program (:class:`NamedFiles`). ELF is read as in System V gABI 4.1, chapters 4 and 5.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from layerlens.ecosystems import UNNEEDED_CATEGORIES, ImageView
from layerlens.errors import LayerLensError
from layerlens.filesystem import Filesystem
from layerlens.model import Command, Edge, EntryType, ImagePath

MAX_PROGRAM = 256 << 20
"""Bytes of a program that are searched for names."""
MAX_TABLE = 1 << 20
"""Bytes of a section header table or of a name table that are read."""
MAX_WALKED = 50_000
"""Entries of an application's directory that are looked at."""
MAX_CANDIDATES = 3_000
"""Names that are looked for in one program."""
MIN_NAME = 3
"""Shorter names occur in any program by chance."""

SYSTEM_TOP = frozenset(
    (
        *("bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32", "media", "mnt"),
        *("proc", "run", "sbin", "sys", "usr", "var"),
    )
)
"""Directories of the root that are the distribution's (FHS 3.0, 3); a program in ``/`` has its files beside them."""

PROGRAM_FOLDERS = frozenset(
    f"{prefix}/{name}"
    for prefix in ("", "/usr", "/usr/local", "/go", "/root/.cargo")
    for name in ("bin", "sbin")
)
"""Where programs lie without their files (FHS 3.0, 3.4 and 4.4; go help install; cargo install)."""

SHARED_FOLDERS = PROGRAM_FOLDERS | {
    # Directories that hold the files of many programs (FHS 3.0, 4.9, 4.11, 5.8).
    *(
        "/usr/local",
        "/usr/local/etc",
        "/usr/local/lib",
        "/usr/local/libexec",
        "/usr/local/share",
        "/usr/local/src",
    ),
    *("/usr/share", "/usr/lib", "/usr/libexec", "/usr/src", "/var/lib", "/var/cache", "/var/log"),
}

DATA_TREES: tuple[tuple[ImagePath, str], ...] = (
    # Directories that are the distribution's and that a program reads whole, or by names that come from outside.
    ("/usr/share/zoneinfo", "names the time zone database"),  # tzfile(5)
    ("/etc/ssl/certs", "names the directory of CA certificates"),  # update-ca-certificates(8)
    ("/etc/pki/tls/certs", "names the directory of CA certificates"),  # update-ca-trust(8)
)

CACHE_TAG = "CACHEDIR.TAG"
"""Marks a directory that can be made again, as cargo's target/ (bford.info/cachedir)."""

NAMED_BY_COMPILERS = frozenset(
    ("sources", "package-cache", "headers", "static-libs", "debug", "dev-dependencies")
)
"""Files whose paths compilers leave in programs, for messages and debuggers; no program reads them."""

MAX_PATH = 512
_NOT_OF_PATHS = re.compile(rb"[^A-Za-z0-9_.+@%~/-]")


@dataclass(frozen=True, slots=True)
class Section:
    """One section of an ELF file: where it is loaded, where it lies in the file, and how many bytes it has there."""

    name: str
    address: int
    offset: int
    size: int


@dataclass(slots=True)
class ElfFile:
    """The header of an ELF file and what its two tables say."""

    fs: Filesystem
    path: ImagePath
    is_64: bool
    order: str
    """``<`` or ``>``, as :mod:`struct` writes it."""
    machine: int
    sections: dict[str, Section] = field(default_factory=dict)
    segments: list[tuple[int, int, int, int]] = field(default_factory=list)
    """Loaded segments: flags, address, offset, bytes in the file."""

    def at_address(self, address: int, size: int) -> bytes:
        """At most ``size`` bytes that are loaded at ``address``; empty where nothing is."""
        for _, start, offset, length in self.segments:
            if start <= address < start + length:
                return self.fs.read_at(
                    self.path, offset + address - start, min(size, start + length - address)
                )
        return b""

    def read(self, section: Section) -> bytes:
        """The content of a section, at most ``MAX_PROGRAM`` bytes."""
        return self.fs.read_at(self.path, section.offset, min(section.size, MAX_PROGRAM))


def read_elf(fs: Filesystem, path: ImagePath) -> ElfFile | None:
    """The tables of an ELF file; None where it is none, or is cut before them."""
    try:
        head = fs.read_at(path, 0, 64)
        if head[:4] != b"\x7fELF" or len(head) < 52 or head[4] not in (1, 2) or head[5] not in (1, 2):
            return None
        is_64, order = head[4] == 2, "<>"[head[5] - 1]
        form = "HHIQQQIHHHHHH" if is_64 else "HHIIIIIHHHHHH"
        if len(head) < 16 + struct.calcsize("=" + form):
            return None
        _, machine, _, _, phoff, shoff, _, _, phentsize, phnum, shentsize, shnum, shstrndx = (
            struct.unpack_from(order + form, head, 16)
        )
        elf = ElfFile(fs, path, is_64, order, machine)
        _read_segments(elf, phoff, phentsize, phnum)
        _read_sections(elf, shoff, shentsize, shnum, shstrndx)
    except (LayerLensError, OSError, struct.error):
        return None
    return elf


def _read_segments(elf: ElfFile, offset: int, step: int, count: int) -> None:
    form, least = (elf.order + "IIQQQQ", 56) if elf.is_64 else (elf.order + "IIIIIII", 32)
    if step < least or step * count > MAX_TABLE:
        return
    table = elf.fs.read_at(elf.path, offset, step * count)
    for at in range(0, len(table) - least + 1, step):
        if elf.is_64:
            kind, flags, where, address, _, size = struct.unpack_from(form, table, at)
        else:
            kind, where, address, _, size, _, flags = struct.unpack_from(form, table, at)
        if kind == 1:  # PT_LOAD
            elf.segments.append((flags, address, where, size))


def _read_sections(elf: ElfFile, offset: int, step: int, count: int, names_at: int) -> None:
    form, least = (elf.order + "IIQQQQII", 64) if elf.is_64 else (elf.order + "IIIIIIII", 40)
    if step < least or step * count > MAX_TABLE or names_at >= count:
        return
    table = elf.fs.read_at(elf.path, offset, step * count)
    rows = [struct.unpack_from(form, table, at) for at in range(0, len(table) - least + 1, step)]
    if names_at >= len(rows):
        return
    names = elf.fs.read_at(elf.path, rows[names_at][4], min(rows[names_at][5], MAX_TABLE))
    for name_at, kind, _, address, where, size, _, _ in rows:
        name = names[name_at : max(names.find(b"\0", name_at), name_at)].decode("ascii", "replace")
        if kind != 8:  # SHT_NOBITS: nothing in the file
            elf.sections.setdefault(name, Section(name, address, where, size))


def looks_like_program(image: ImageView, path: ImagePath) -> bool:
    """Whether a file may be a compiled program: ELF, executable, and no library by its name."""
    name = path[path.rfind("/") + 1 :]
    if ".so" in name or name.endswith((".node", ".o", ".a", ".ko")):
        return False
    return image.head(path)[:4] == b"\x7fELF" and bool(image.fs.entry(path).mode & 0o111)


class NamedFiles:
    """The files of an image that a program names, found by looking for the image's names in the program.

    Looked for are, below the directories where an application's files can be, the names of directories and files that
    belong to the application (categories ``app`` and ``other``), and absolute paths of any kind.
    """

    def __init__(self, image: ImageView) -> None:
        self.image = image
        self._words: dict[ImagePath, bytes] = {}

    def roots(self, program: ImagePath, cwd: ImagePath, env: Mapping[str, str]) -> list[ImagePath]:
        """Where a program's own files may be: where it runs, where it lies, and what its environment names."""
        fs = self.image.fs
        found = [cwd]
        folder = program.rpartition("/")[0] or "/"
        if folder not in PROGRAM_FOLDERS:
            found.append(folder)
        found += [value for _, value in sorted(env.items()) if value.startswith("/") and ":" not in value]
        real = (fs.follow(path.rstrip("/") or "/") for path in found)
        return list(
            dict.fromkeys(
                path for path in real if path is not None and fs.is_dir(path) and self._is_own(path)
            )
        )

    def _is_own(self, path: ImagePath) -> bool:
        """Whether a directory is an application's, or may hold one: not the distribution's, no toolchain's."""
        if path == "/":
            return True
        owner = self.image.owner_of(path)
        if owner is not None and owner.is_os:
            return False
        return self.image.category_of(path) not in UNNEEDED_CATEGORIES | {"runtime", "os-base"}

    def below(self, program: ImagePath, data: bytes, root: ImagePath) -> Iterator[Edge]:
        """Edges to what ``data``, a program's bytes, names below ``root``, directories with what is in them."""
        image, fs = self.image, self.image.fs
        folders = [root]
        walked = tried = 0
        while folders:
            folder = folders.pop(0)
            for name in fs.listdir(folder):
                path = f"{'' if folder == '/' else folder}/{name}"
                walked += 1
                if walked > MAX_WALKED or tried > MAX_CANDIDATES:
                    image.diagnose(
                        "too-many-candidates", "has too many files to look for each in the program", root
                    )
                    return
                kind = fs.type_of(path)
                if kind == EntryType.DIR:
                    if self._skips(folder, path, name):
                        continue
                    tried += 1
                    if named(name, data):
                        yield from self.own_tree(program, path, f"names {name}/")
                    else:
                        folders.append(path)
                elif kind == EntryType.FILE and path != program:
                    if image.category_of(path) not in ("app", "other"):
                        continue
                    tried += 1
                    pattern = "*" + name[name.rfind(".") :] if "." in name[1:] else ""
                    if named(name, data):
                        yield Edge(program, path, "literal", f"names {name}", "likely")
                    elif pattern and pattern.encode() in data:
                        yield Edge(program, path, "literal", f"names {pattern}", "likely")

    def _skips(self, folder: ImagePath, path: ImagePath, name: str) -> bool:
        if folder == "/" and name in SYSTEM_TOP:
            return True
        if f"{path}/{CACHE_TAG}" in self.image.fs.live:
            return True
        return name.startswith(".") or self.image.category_of(path) in UNNEEDED_CATEGORIES | {
            "dependencies",
            "runtime",
            "os-base",
        }

    def own_tree(self, program: ImagePath, folder: ImagePath, evidence: str) -> Iterator[Edge]:
        """Edges to a directory and the application's own files in it, without hidden and regenerable directories."""
        image, fs = self.image, self.image.fs
        yield Edge(program, folder, "app-file", evidence, "likely")
        stack = [folder]
        while stack:
            at = stack.pop()
            for name in fs.listdir(at):
                path = f"{at}/{name}"
                if fs.type_of(path) == EntryType.DIR:
                    if not self._skips(at, path, name):
                        stack.append(path)
                elif image.category_of(path) in ("app", "other", None):
                    yield Edge(program, path, "app-file", evidence, "assumed")

    def absolute(self, program: ImagePath, data: bytes) -> Iterator[Edge]:
        """Edges to files, and to directories of applications, whose whole path is among the bytes of ``program``."""
        image, fs = self.image, self.image.fs
        for path in self._paths(data):
            if path == program:
                continue
            if fs.is_file(path):
                if image.category_of(fs.follow(path) or path) not in NAMED_BY_COMPILERS:
                    yield Edge(program, path, "literal", f"names {path}", "likely")
                continue
            folder = fs.follow(path)
            if folder is not None and folder not in SHARED_FOLDERS and self._is_own(folder):
                yield from self.own_tree(program, folder, f"names {path}")
        for path, evidence in DATA_TREES:
            if path.encode() in data:
                yield from image.tree(program, path, "data", evidence, "likely", skip=("posix", "right"))

    def _paths(self, data: bytes) -> list[ImagePath]:
        """The paths of the image that occur in ``data``, each the longest from where it starts; sorted."""
        fs = self.image.fs
        tops = [
            re.escape(name.encode("utf-8", "surrogateescape"))
            for name in fs.listdir("/")
            if name not in ("dev", "proc", "sys") and fs.is_dir(f"/{name}")
        ]
        if not tops:
            return []
        texts = set()
        for match in re.finditer(b"/(?:" + b"|".join(tops) + b")/", data):
            text = data[match.start() : match.start() + MAX_PATH]
            end = _NOT_OF_PATHS.search(text)
            texts.add(text[: end.start()] if end else text)
        found = (self._longest(text.decode("ascii", "surrogateescape")) for text in texts)
        return sorted({path for path in found if path is not None})

    def _longest(self, text: str) -> ImagePath | None:
        """The longest existing path of two or more components that ``text`` starts with; its end is not marked."""
        fs = self.image.fs
        at = ""
        parts = text[1:].split("/")
        for number, part in enumerate(parts):
            path = f"{at}/{part}"
            if number + 1 < len(parts) and fs.is_dir(path):
                at = path
                continue
            names = fs.listdir(at) if at else ()
            best = max((name for name in names if part.startswith(name)), key=len, default="")
            if len(best) >= MIN_NAME or (best and best == part):
                return f"{at}/{best}"
            return at if not part and at.count("/") > 1 else None
        return None

    def arguments(self, command: Command, program: ImagePath) -> Iterator[Edge]:
        """Edges to the files and directories that a program's arguments name: ``--config=conf/app.yaml``."""
        fs = self.image.fs
        for word in command.argv[1:]:
            for text in dict.fromkeys((word, word.partition("=")[2])):
                if not text or text.startswith("-") or "\0" in text:
                    continue
                path = text if text.startswith("/") else f"{command.cwd.rstrip('/')}/{text}"
                real = fs.follow(path)
                if real is None or real == "/":
                    continue
                evidence = f"argument {word}"
                if fs.is_dir(real):
                    if self._is_own(real):
                        yield from self.own_tree(program, real, evidence)
                elif "/" in text or "." in text:
                    yield Edge(program, path, "literal", evidence, "likely")


def named(name: str, data: bytes) -> bool:
    """Whether a name is long enough to tell and occurs in ``data``."""
    raw = name.encode("utf-8", "surrogateescape")
    return len(raw) >= MIN_NAME and raw in data
