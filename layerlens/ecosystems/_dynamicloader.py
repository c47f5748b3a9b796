"""Which libraries the dynamic loader loads with a program or a plugin, found as it finds them, inside the image.

glibc's loader is described by ld.so(8) and ldconfig(8); the names that are loaded already come before any search
(glibc ``elf/dl-load.c``, ``_dl_map_object``), and breadth first is the order. musl's is ``ldso/dynlink.c``,
``load_library``, with musl's manual, "Dynamic linker path configuration".
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from layerlens.ecosystems import ImageView
from layerlens.ecosystems._elffile import ET_REL, BrokenElf, Elf, read_elf
from layerlens.errors import LayerLensError
from layerlens.model import Certainty, Edge, ImagePath

if TYPE_CHECKING:
    from layerlens.filesystem import Filesystem

MAX_OBJECTS = 5_000
"""Libraries of one process that are followed; LibreOffice has 300."""
MAX_CONF_FILES = 500
MAX_CACHE = 16 << 20
"""Bytes of ld.so.cache that are read; one of 1,500 libraries has 80 KB."""

CACHE_PATH = "/etc/ld.so.cache"
CONF_PATH = "/etc/ld.so.conf"
PRELOAD_PATH = "/etc/ld.so.preload"

TUPLES: dict[tuple[str, int, str], tuple[str, ...]] = {
    # Debian's multiarch tuples (wiki.debian.org/Multiarch/Tuples), by machine, bits and byte order.
    ("x86-64", 64, "<"): ("x86_64-linux-gnu",),
    ("x86-64", 32, "<"): ("x86_64-linux-gnux32",),
    ("i386", 32, "<"): ("i386-linux-gnu",),
    ("aarch64", 64, "<"): ("aarch64-linux-gnu",),
    ("arm", 32, "<"): ("arm-linux-gnueabihf", "arm-linux-gnueabi"),
    ("powerpc64", 64, "<"): ("powerpc64le-linux-gnu",),
    ("powerpc64", 64, ">"): ("powerpc64-linux-gnu",),
    ("s390x", 64, ">"): ("s390x-linux-gnu",),
    ("riscv", 64, "<"): ("riscv64-linux-gnu",),
    ("mips", 64, "<"): ("mips64el-linux-gnuabi64",),
    ("mips", 32, "<"): ("mipsel-linux-gnu",),
    ("loongarch", 64, "<"): ("loongarch64-linux-gnu",),
}

MUSL_OWN = ("libc.", "libpthread.", "librt.", "libm.", "libdl.", "libutil.", "libxnet.")
"""Libraries that are part of musl's one file, whatever a NEEDED says (ldso/dynlink.c, ``reserved``)."""
MUSL_FOLDERS = ("/lib", "/usr/local/lib", "/usr/lib")
"""Where musl looks without its path file (ldso/dynlink.c, ``load_library``)."""

_CACHE_MAGIC = b"glibc-ld.so.cache1.1"


@dataclass(slots=True)
class _Loaded:
    """One object of a process."""

    name: ImagePath
    """The path under which it was opened: ``$ORIGIN`` is its folder (elf/dl-origin.c)."""
    real: ImagePath
    elf: Elf
    loader: _Loaded | None
    """The object whose NEEDED loaded it."""


@dataclass(slots=True)
class _Process:
    """What the loader knows while it loads one program or plugin."""

    main: _Loaded
    env: Mapping[str, str]
    musl: bool
    names: dict[str, _Loaded]
    """Every name under which something is loaded: as asked for, and its SONAME."""
    by_file: dict[ImagePath, _Loaded]


class DynamicLoader:
    """The dynamic loaders of one image; remembers what it found."""

    def __init__(self, image: ImageView) -> None:
        self.image = image
        self.fs: Filesystem = image.fs
        self.loaded: set[ImagePath] = set()
        """Every file that was loaded with some program, canonical."""
        self._files: dict[ImagePath, Elf | None] = {}
        self._in_folder: dict[tuple[ImagePath, str, tuple[int, str, str]], ImagePath | None] = {}
        self._variants: dict[ImagePath, list[ImagePath]] = {}
        self._reported: set[tuple[ImagePath, str]] = set()
        self._cache: dict[str, list[ImagePath]] | None = None
        self._conf: list[ImagePath] | None = None
        self._musl_folders: dict[ImagePath, list[ImagePath]] = {}

    def read(self, path: ImagePath) -> Elf | None:
        """The ELF file at a path, links followed; None where there is none. A broken one is a diagnostic."""
        real = self.fs.follow(path)
        if real is None or not self.fs.is_file(real):
            return None
        if real not in self._files:
            try:
                self._files[real] = read_elf(self.fs, real)
            except BrokenElf as error:
                self._files[real] = None
                self.image.diagnose("broken-elf", f"is no whole ELF file: {error}", real)
        return self._files[real]

    def load(self, path: ImagePath, env: Mapping[str, str]) -> Iterator[Edge]:
        """Edges to all libraries that are loaded with the file at a canonical path, each from what names it."""
        elf = self.read(path)
        if elf is None or elf.dynamic is None or elf.type == ET_REL:
            return
        main = _Loaded(path, path, elf, None)
        process = _Process(main, env, self.is_musl(elf), {}, {path: main})
        if elf.soname:
            process.names[elf.soname] = main
        queue = deque([main])
        if elf.interpreter:
            for edge, found in self._preloaded(process):
                yield edge
                queue.append(found)
        while queue:
            item = queue.popleft()
            for tag, names in (("FILTER", item.elf.filters), ("NEEDED", item.elf.needed)):
                for name in names:
                    edges, fresh = self._need(process, item, name, tag)
                    yield from edges
                    if fresh is not None and len(process.by_file) <= MAX_OBJECTS:
                        queue.append(fresh)

    def find(self, asked: str, source: ImagePath, env: Mapping[str, str]) -> list[ImagePath]:
        """Where dlopen(3) finds ``asked``, a name without a slash or a path, when the file ``source`` calls it."""
        elf = self.read(source)
        if elf is None:
            return []
        item = _Loaded(source, source, elf, None)
        return self._search(_Process(item, env, self.is_musl(elf), {}, {}), item, asked)

    def is_musl(self, elf: Elf) -> bool:
        """Whether musl's loader loads a file: its interpreter, its libraries, else the image's libc say so."""
        bound = bound_to(elf)
        return (bound[0] if bound else image_libc(self.fs)) == "musl"

    # -- one NEEDED ----------------------------------------------------------------------------------------

    def _need(
        self, process: _Process, item: _Loaded, name: str, tag: str
    ) -> tuple[list[Edge], _Loaded | None]:
        known = process.names.get(name)
        if known is not None:
            return [Edge(item.real, known.name, "needed", f"{tag} {name}", "certain")], None
        found = self._search(process, item, name)
        certainty: Certainty = "certain"
        evidence = f"{tag} {name}"
        if not found and not (process.musl and name.startswith(MUSL_OWN)):
            found = self._elsewhere(process, item, name)
            certainty = "likely"
            evidence += ", not on the loader's path: loaded by its own path before"
            if not found:
                self._report(process, item, name, tag)
        if not found:
            return [], None
        edges = [Edge(item.real, path, "needed", evidence, certainty) for path in found]
        return edges, self._enter(process, item, name, found[0])

    def _enter(self, process: _Process, item: _Loaded, name: str, path: ImagePath) -> _Loaded | None:
        """Take a file into the process; None where it is there already under another name."""
        real = self.fs.follow(path) or path
        known = process.by_file.get(real)
        fresh = None
        if known is None:
            elf = self.read(real)
            if elf is None:
                return None
            known = fresh = _Loaded(path, real, elf, item)
            process.by_file[real] = known
            self.loaded.add(real)
            if elf.soname:
                process.names.setdefault(elf.soname, known)
        process.names[name] = known
        return fresh

    def _report(self, process: _Process, item: _Loaded, name: str, tag: str) -> None:
        if tag != "NEEDED" or (item.real, name) in self._reported:  # a filtee may be missing: ld(1), -f
            return
        self._reported.add((item.real, name))
        self.image.diagnose(
            "library-not-found",
            f"needs {name}, which the dynamic loader does not find in the image",
            item.real,
            "warning" if process.main.elf.interpreter else "info",
        )

    def _preloaded(self, process: _Process) -> Iterator[tuple[Edge, _Loaded]]:
        """LD_PRELOAD and /etc/ld.so.preload (musl has the variable alone)."""
        asked = [(name, "LD_PRELOAD") for name in process.env.get("LD_PRELOAD", "").replace(":", " ").split()]
        if not process.musl and self.fs.is_file(PRELOAD_PATH):
            text = self._text(PRELOAD_PATH)
            asked += [(name, PRELOAD_PATH) for name in text.replace(":", " ").split()]
        for name, why in asked:
            for path in self._search(process, process.main, name)[:1]:
                fresh = self._enter(process, process.main, name, path)
                if fresh is not None:
                    yield Edge(process.main.real, path, "needed", f"{why} {name}", "certain"), fresh

    # -- where to look -------------------------------------------------------------------------------------

    def _search(self, process: _Process, item: _Loaded, name: str) -> list[ImagePath]:
        """The path that the loader opens, and its variants for newer processors; empty where it finds none."""
        platform = item.elf.platform
        if "/" in name:
            paths = self._expand(name, item)
            return [path for path in paths if path.startswith("/") and self._fits(path, platform)][:1]
        if process.musl:
            folders = self._musl_search(process, item)
            return [path for folder in folders if (path := self._pick(folder, name, platform))][:1]
        for folder in self._named_folders(process, item):
            if found := self._with_variants(folder, name, platform):
                return found
        for path in self._cached().get(name, ()):
            if self._fits(path, platform):
                return self._with_variants(path.rpartition("/")[0], name, platform) or [path]
        if not item.elf.ignores_default_folders:
            for folder in default_folders(item.elf):
                if found := self._with_variants(folder, name, platform):
                    return found
        for folder in self._conf_folders():  # as ldconfig would have found it, were it run
            if found := self._with_variants(folder, name, platform):
                return found
        return []

    def _named_folders(self, process: _Process, item: _Loaded) -> Iterator[ImagePath]:
        """RPATH of the object and of what loaded it, unless it has a RUNPATH; LD_LIBRARY_PATH; its RUNPATH."""
        if item.elf.runpath is None:
            chain: _Loaded | None = item
            while chain is not None:
                if chain.elf.rpath is not None and chain.elf.runpath is None:
                    yield from self._folders(chain.elf.rpath, chain)
                chain = chain.loader
        path = process.env.get("LD_LIBRARY_PATH", "").replace(";", ":")
        yield from self._folders(path, process.main)
        if item.elf.runpath is not None:
            yield from self._folders(item.elf.runpath, item)

    def _musl_search(self, process: _Process, item: _Loaded) -> Iterator[ImagePath]:
        """LD_LIBRARY_PATH, RUNPATH or RPATH of the object and of what loaded it, then the path file's folders."""
        yield from self._folders(process.env.get("LD_LIBRARY_PATH", "").replace("\n", ":"), process.main)
        chain: _Loaded | None = item
        while chain is not None:
            yield from self._folders(chain.elf.runpath or chain.elf.rpath or "", chain)
            chain = chain.loader
        yield from self._musl_path(process.main.elf.interpreter)

    def _musl_path(self, interpreter: ImagePath | None) -> list[ImagePath]:
        if interpreter is None:
            interpreter = next(iter(self.fs.glob("/lib/ld-musl-*.so.1")), "")
        if interpreter not in self._musl_folders:
            name = interpreter.rpartition("/")[2].removesuffix(".so.1")
            prefix = interpreter.rpartition("/lib/")[0]
            path = f"{prefix}/etc/{name}.path"
            text = self._text(path) if name and self.fs.is_file(path) else ""
            named = [folder for folder in text.replace("\n", ":").split(":") if folder.startswith("/")]
            self._musl_folders[interpreter] = named or list(MUSL_FOLDERS)
        return self._musl_folders[interpreter]

    def _folders(self, text: str, item: _Loaded) -> Iterator[ImagePath]:
        for word in text.split(":"):
            for folder in self._expand(word, item):
                if folder.startswith("/"):
                    yield folder.rstrip("/")

    def _expand(self, text: str, item: _Loaded) -> list[str]:
        """Dynamic string tokens (ld.so(8)): what ``$LIB`` is depends on how glibc was built, so all are tried."""
        if "$" not in text:
            return [text]
        texts = [_replaced(text, "ORIGIN", item.name.rpartition("/")[0])]
        machine, bits, order = item.elf.machine, item.elf.bits, item.elf.order
        libs = [f"lib/{name}" for name in TUPLES.get((machine, bits, order), ())]
        libs += ["lib64", "lib"] if bits == 64 else ["lib"]
        if _replaced(text, "LIB", "") != text:
            texts = [_replaced(texts[0], "LIB", lib) for lib in libs]
        return [_replaced(one, "PLATFORM", machine.replace("-", "_")) for one in texts]

    def _with_variants(self, folder: ImagePath, name: str, platform: tuple[int, str, str]) -> list[ImagePath]:
        """The library in one folder and those for newer processors: the processor says which is taken."""
        plain = self._pick(folder, name, platform)
        if folder not in self._variants:
            top = f"{folder}/glibc-hwcaps"
            self._variants[folder] = [f"{top}/{one}" for one in self.fs.listdir(top)]
        others = [self._pick(variant, name, platform) for variant in self._variants[folder]]
        return [path for path in (plain, *others) if path is not None]

    def _pick(self, folder: ImagePath, name: str, platform: tuple[int, str, str]) -> ImagePath | None:
        key = folder, name, platform
        if key not in self._in_folder:
            path = f"{folder}/{name}"
            self._in_folder[key] = path if self._fits(path, platform) else None
        return self._in_folder[key]

    def _fits(self, path: ImagePath, platform: tuple[int, str, str]) -> bool:
        """Whether a file is there and for the process's machine: the loader passes over others."""
        elf = self.read(path)
        return elf is not None and elf.platform == platform

    def _elsewhere(self, process: _Process, item: _Loaded, name: str) -> list[ImagePath]:
        """For a plugin, a library of that name outside the loader's path.

        A program that loads its plugins may load their libraries before by path (libjvm.so, torch's libraries); the
        loader then takes what has the name. The nearest to the plugin is taken.
        """
        if process.main.elf.interpreter or "/" in name:
            return []
        found = [path for path in self.fs.named(name) if self._fits(path, item.elf.platform)]
        return [max(found, key=lambda path: (_common(path, item.real), path))] if found else []

    # -- ldconfig's files ----------------------------------------------------------------------------------

    def _cached(self) -> dict[str, list[ImagePath]]:
        """/etc/ld.so.cache: names and their paths, the first preferred."""
        if self._cache is None:
            self._cache = {}
            if self.fs.is_file(CACHE_PATH):
                try:
                    self._cache = parse_cache(self.fs.read(CACHE_PATH, MAX_CACHE))
                except (LayerLensError, OSError, struct.error, ValueError) as error:
                    self.image.diagnose("broken-ld-cache", f"cannot be read: {error}", CACHE_PATH)
        return self._cache

    def _conf_folders(self) -> list[ImagePath]:
        """The folders of /etc/ld.so.conf and what it includes (ldconfig(8))."""
        if self._conf is None:
            folders: dict[ImagePath, None] = {}
            files = deque([CONF_PATH])
            seen: set[ImagePath] = set()
            while files and len(seen) < MAX_CONF_FILES:
                path = files.popleft()
                if path in seen or not self.fs.is_file(path):
                    continue
                seen.add(path)
                for line in self._text(path).splitlines():
                    words = line.partition("#")[0].replace(",", " ").replace(":", " ").split()
                    if words[:1] == ["include"]:
                        base = path.rpartition("/")[0]
                        for word in words[1:]:
                            files.extend(self.fs.glob(word if word.startswith("/") else f"{base}/{word}"))
                    elif words[:1] != ["hwcap"]:
                        folders.update((word.partition("=")[0].rstrip("/"), None) for word in words)
            self._conf = [folder for folder in folders if folder.startswith("/")]
        return self._conf

    def _text(self, path: ImagePath) -> str:
        try:
            return self.fs.read(path, MAX_CACHE).decode("utf-8", "surrogateescape")
        except (LayerLensError, OSError) as error:
            self.image.diagnose("unreadable-file", str(error), path)
            return ""


def default_folders(elf: Elf) -> list[ImagePath]:
    """The loader's own folders for a file's machine: Debian's multiarch ones, those of FHS 3.0, 3.10 and 4.7."""
    names = [f"lib/{name}" for name in TUPLES.get((elf.machine, elf.bits, elf.order), ())]
    names += ["lib64", "lib"] if elf.bits == 64 else ["lib"]
    return [f"{prefix}/{name}" for name in names for prefix in ("", "/usr")]


def parse_cache(data: bytes) -> dict[str, list[ImagePath]]:
    """ld.so.cache in glibc's format since 2.2 (sysdeps/generic/dl-cache.h, ``struct cache_file_new``).

    Raises:
        ValueError: it has no such header, or the table that the header announces is not there.
    """
    start = data.find(_CACHE_MAGIC)
    if start < 0:
        raise ValueError("no header that is known")
    data = data[start:]
    for order in "<>":
        (count,) = struct.unpack_from(order + "I", data, 20)
        if 48 + 24 * count <= len(data):
            break
    else:
        raise ValueError("it is cut short")
    found: dict[str, list[ImagePath]] = {}
    for _, key, value, _, _ in struct.iter_unpack(order + "iIIIQ", data[48 : 48 + 24 * count]):
        paths = found.setdefault(_cached_text(data, key), [])
        path = _cached_text(data, value)
        if path.startswith("/") and path not in paths:
            paths.append(path)
    return found


def _cached_text(data: bytes, at: int) -> str:
    end = data.find(b"\0", at, at + 4096)
    return data[at : max(at, end)].decode("utf-8", "surrogateescape")


def _replaced(text: str, token: str, value: str) -> str:
    return text.replace("${" + token + "}", value).replace("$" + token, value)


def _common(one: str, other: str) -> int:
    """How many leading folders two paths share."""
    count = 0
    for mine, yours in zip(one.split("/"), other.split("/"), strict=False):
        if mine != yours:
            break
        count += 1
    return count


def bound_to(elf: Elf) -> tuple[str, str] | None:
    """``glibc`` or ``musl`` and what proves it, for a file that says which; else None.

    musl's loader is ``ld-musl-ARCH.so.1`` and its library's SONAME ``libc.so``, which Alpine renames to
    ``libc.musl-ARCH.so.1`` (musl's INSTALL; Alpine's APKBUILD of musl). glibc's are ``libc.so.6`` and ``ld-linux…``
    or ``ld64…`` (glibc ``shlib-versions``), and its symbols have versions ``GLIBC_…``.
    """
    if elf.interpreter:
        name = elf.interpreter.rpartition("/")[2]
        if name.startswith("ld-musl"):
            return "musl", f"interpreter {elf.interpreter}"
        if name.startswith(("ld-linux", "ld64.", "ld.so.")):
            return "glibc", f"interpreter {elf.interpreter}"
    for library, versions in elf.versions:
        newest = max((v for v in versions if v.startswith("GLIBC_")), key=_version, default=None)
        if newest:
            return "glibc", f"{library} {newest}"
    for library in elf.needed:
        if library.startswith("libc.musl-") or library == "libc.so":
            return "musl", f"NEEDED {library}"
        if library in ("libc.so.6", "libc.so.6.1") or library.startswith("ld-linux"):
            return "glibc", f"NEEDED {library}"
    return None


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.removeprefix("GLIBC_").split(".") if part.isdecimal())


def image_libc(fs: Filesystem) -> str | None:
    """The libc that an image has, told by its dynamic loader; glibc where it has both, None without one.

    glibc's loader counts only where its library is there too: Alpine's gcompat has a loader of that name.
    """
    for pattern in ("/lib*/libc.so.6", "/lib/*/libc.so.6", "/usr/lib*/libc.so.6", "/usr/lib/*/libc.so.6"):
        for path in fs.glob(pattern):
            real = fs.follow(path)
            if real is not None and "musl" not in real:
                return "glibc"
    return "musl" if fs.glob("/lib/ld-musl-*.so.1") or fs.glob("/usr/lib/ld-musl-*.so.1") else None
