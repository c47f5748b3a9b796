"""Go programs: the modules they were built from, and what their standard library reads at run time.

A program says what it was built from in a blob that the linker writes (Go, ``debug/buildinfo``, and
``cmd/link/internal/ld``, ``buildinfo``); ``go version -m`` prints it. The main module owns the program; its
dependencies are inside and own nothing. Only programs where one's own are put are looked at
(:func:`layerlens.ecosystems._compiled.own_programs`).

What a program needs is told by the functions that are linked into it: the linker leaves out what cannot be reached,
and the names of all others stay in the line table of a stripped program too (``runtime/symtab.go``, ``funcnametab``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
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
from layerlens.ecosystems._elffile import PF_W, Elf
from layerlens.errors import LayerLensError
from layerlens.model import Command, Diagnostic, Edge, ImageConfig, ImagePath, Package

if TYPE_CHECKING:
    from layerlens.filesystem import Filesystem

MAGIC = b"\xff Go buildinf:"
HEADER = 32
ALIGN = 16
SEARCHED = 1 << 20
"""Bytes of the data segment that are searched where the section table was removed; the linker puts the blob first."""
MAX_BUILDINFO = 1 << 20


@dataclass(frozen=True, slots=True)
class BuildInfo:
    """What a Go program says of itself: the toolchain, its main package, and modules as (path, version) pairs."""

    go_version: str
    main_package: str
    main: tuple[str, str] | None
    dependencies: tuple[tuple[str, str], ...]


def read_build_info(elf: Elf) -> BuildInfo | None:
    """The build information of a program; None where it has none, as one that is not Go's."""
    try:
        found = _blob(elf)
    except (LayerLensError, OSError):
        return None
    if found is None:
        return None
    version, modules = found
    return _parse(version, modules) if version else None


def _blob(elf: Elf) -> tuple[str, str] | None:
    """(Go version, module text) as ``readRawBuildInfo`` finds them."""
    named = sections(elf)
    if ".go.buildinfo" in named:
        data = read_section(elf, named[".go.buildinfo"], MAX_BUILDINFO)
    else:
        writable = [segment for segment in elf.segments if segment.flags & PF_W and segment.size]
        if not writable or named:
            return None
        data = elf.fs.read_at(elf.path, writable[0].offset, min(writable[0].size, SEARCHED))
    at = data.find(MAGIC)
    while at >= 0 and at % ALIGN:
        at = data.find(MAGIC, at + 1)
    if at < 0 or len(data) < at + HEADER:
        return None
    pointer_size, flags = data[at + 14], data[at + 15]
    if flags & 2:
        version, next_at = _inline(data, at + HEADER)
        modules, _ = _inline(data, next_at)
    else:
        if pointer_size not in (4, 8):
            return None
        order = "big" if flags & 1 else "little"
        version, modules = (
            _pointed(elf, int.from_bytes(data[start : start + pointer_size], order), pointer_size, order)  # type: ignore[arg-type]
            for start in (at + 16, at + 16 + pointer_size)
        )
    # Sentinels of 16 bytes frame the module text (cmd/go/internal/modload, infoStart and infoEnd).
    framed = len(modules) >= 33 and modules[-17:-16] == b"\n"
    return version.decode("utf-8", "replace"), modules[16:-16].decode("utf-8", "replace") if framed else ""


def _inline(data: bytes, at: int) -> tuple[bytes, int]:
    """A string with its length before it as a varint (encoding/binary, ``Uvarint``), and where the next begins."""
    length = shift = 0
    while at < len(data) and shift < 63:
        byte = data[at]
        at += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return data[at : at + length], at + length
    return b"", len(data)


def _pointed(elf: Elf, address: int, size: int, order: str) -> bytes:
    """A Go string by the address of its header, a pointer and a length."""
    header = elf.at(address, 2 * size)
    if len(header) < 2 * size:
        return b""
    start = int.from_bytes(header[:size], order)  # type: ignore[arg-type]
    length = int.from_bytes(header[size:], order)  # type: ignore[arg-type]
    return elf.at(start, min(length, MAX_BUILDINFO))


def _parse(version: str, text: str) -> BuildInfo:
    """``debug.ParseBuildInfo``: lines of words between tabs; ``=>`` replaces the module of the line before."""
    main_package = ""
    main: tuple[str, str] | None = None
    dependencies: list[tuple[str, str]] = []
    for line in text.split("\n"):
        words = line.split("\t")
        if words[0] == "path" and len(words) > 1:
            main_package = words[1]
        elif words[0] == "mod" and len(words) > 2:
            main = words[1], words[2]
        elif words[0] == "dep" and len(words) > 2:
            dependencies.append((words[1], words[2]))
        elif words[0] == "=>" and len(words) > 2 and dependencies:
            dependencies[-1] = words[1], words[2] or dependencies[-1][1]
    return BuildInfo(version.split(" ")[0], main_package, main, tuple(dependencies))


class Go:
    """Modules that were compiled into the programs of an image, and the needs of such programs."""

    name = "go"

    endings: tuple[str, ...] = ()

    def wants(self, path: ImagePath) -> bool:
        """Nothing: programs are too large to be kept from a stream."""
        return False

    def packages(
        self, fs: Filesystem, config: ImageConfig, diagnostics: list[Diagnostic]
    ) -> Iterable[Package]:
        """The main module of each program and then its dependencies, by the program's path."""
        found: list[Package] = []
        for path in own_programs(fs, config):
            elf = read_program(fs, path)
            built = read_build_info(elf) if elf is not None else None
            if built is None:
                continue
            name, version = built.main or (built.main_package or path[path.rfind("/") + 1 :], "")
            found.append(Package("go", name, version, path, paths=(path,), category="app"))
            found.append(Package("go", "stdlib", built.go_version.removeprefix("go"), path))
            found += [Package("go", *module, path) for module in built.dependencies]
        return found

    def explorer(self, image: ImageView) -> Explorer:
        """What Go programs need."""
        return GoExplorer(image)


LINE_TABLE = ".gopclntab"
CONSTANTS = frozenset((".rodata", ".data.rel.ro", ".data", ".noptrdata"))
"""Sections with string constants (cmd/link/internal/ld, ``dodata``); the line table names every source file."""


@dataclass(frozen=True, slots=True)
class _Reads:
    """Files that the standard library reads where one of its functions is linked in."""

    function: str
    evidence: str
    paths: tuple[ImagePath, ...]
    first_only: bool = False
    """Whether the first that exists is enough, since the function stops there."""
    variable: str | None = None
    """The environment variable whose value is read instead, a list of paths between colons."""
    kind: str = "data"


READS = (
    _Reads(
        "crypto/x509.loadSystemRoots",  # crypto/x509/root_linux.go, certFiles
        "crypto/x509 reads the CA certificates",
        (
            "/etc/ssl/certs/ca-certificates.crt",
            "/etc/pki/tls/certs/ca-bundle.crt",
            "/etc/ssl/ca-bundle.pem",
            "/etc/pki/tls/cacert.pem",
            "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
            "/etc/ssl/cert.pem",
        ),
        first_only=True,
        variable="SSL_CERT_FILE",
    ),
    _Reads(
        "crypto/x509.loadSystemRoots",  # crypto/x509/root_linux.go, certDirectories: "all will be read"
        "crypto/x509 reads every file of the CA directories",
        ("/etc/ssl/certs", "/etc/pki/tls/certs"),
        variable="SSL_CERT_DIR",
    ),
    _Reads("time.initLocal", "time reads the local zone", ("/etc/localtime",)),  # time/zoneinfo_unix.go
    _Reads(
        "net.dnsReadConfig",  # net/conf.go, net/dnsconfig_unix.go, net/hosts.go
        "net resolves names",
        ("/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/hosts", "/etc/mdns.allow"),
        kind="config",
    ),
    _Reads(
        "net.readServices", "net looks ports up by name", ("/etc/services",), kind="config"
    ),  # net/port_unix.go
    _Reads("net.readProtocols", "net looks protocols up by name", ("/etc/protocols",), kind="config"),
    _Reads(
        "mime.loadMimeGlobsFile",  # mime/type_unix.go, mimeGlobs
        "mime reads the types of file names",
        ("/usr/local/share/mime/globs2", "/usr/share/mime/globs2"),
        first_only=True,
    ),
    _Reads(
        "mime.loadMimeFile",  # mime/type_unix.go, typeFiles
        "mime reads the types of file names",
        (
            "/etc/mime.types",
            "/etc/apache2/mime.types",
            "/etc/apache/mime.types",
            "/etc/httpd/conf/mime.types",
        ),
    ),
)
"""By function; the tables of the standard library itself, named behind each row."""

ZONES = ("/usr/share/zoneinfo", "/usr/share/lib/zoneinfo", "/usr/lib/locale/TZ", "/etc/zoneinfo")
"""Where the time zones are, the first that exists (time/zoneinfo_unix.go, platformZoneSources)."""
ZONES_ARCHIVE = "/lib/time/zoneinfo.zip"
"""In the Go distribution, where there are no others (time/zoneinfo_goroot.go)."""
EMBEDDED_ZONES = "time/tzdata.loadFromEmbeddedTZData"


class GoExplorer(Explorer):
    """What Go programs need of the image."""

    def __init__(self, image: ImageView) -> None:
        super().__init__(image)
        self._files = NamedFiles(image)
        self._is_go: dict[ImagePath, bool] = {}
        self._read: tuple[ImagePath, bytes, bytes] = ("", b"", b"")

    def command(self, command: Command, program: ImagePath) -> Iterable[Edge | Command]:
        """The files that a Go program names below the directory it is run in."""
        if not self._go(program):
            return
        _, data = self._content(program)
        for root in self._files.roots(program, command.cwd, command.env):
            yield from self._files.below(program, data, root)

    def edges(self, path: ImagePath) -> Iterable[Edge | Command]:
        """What the standard library of a Go program reads, and the paths that the program names."""
        if not self._go(path):
            return
        functions, data = self._content(path)
        yield from self._standard_library(path, functions)
        yield from self._zones(path, functions)
        yield from self._files.absolute(path, data)
        for root in self._files.roots(path, self.image.config.workdir or "/", self.image.env):
            yield from self._files.below(path, data, root)

    def _go(self, path: ImagePath) -> bool:
        known = self._is_go.get(path)
        if known is None:
            known = False
            if looks_like_program(self.image, path):
                elf = read_program(self.image.fs, path)
                known = elf is not None and read_build_info(elf) is not None
            self._is_go[path] = known
        return known

    def _content(self, path: ImagePath) -> tuple[bytes, bytes]:
        """Of a program: its line table, with the names of functions, and its constants, which name files."""
        if self._read[0] != path:
            try:
                elf = read_program(self.image.fs, path)
                named = sections(elf) if elf is not None else {}
                table = named.get(LINE_TABLE)
                if elf is None or table is None:
                    functions = constants = self.image.fs.read(path, MAX_PROGRAM)
                else:
                    functions = read_section(elf, table)
                    constants = b"".join(
                        read_section(elf, where) for name, where in named.items() if name in CONSTANTS
                    )
            except (LayerLensError, OSError) as error:
                self.image.diagnose("unreadable-program", f"cannot be read: {error}", path)
                functions = constants = b""
            self._read = path, functions, constants
        return self._read[1:]

    def _standard_library(self, program: ImagePath, functions: bytes) -> Iterator[Edge]:
        fs = self.image.fs
        for row in READS:
            if not _links(functions, row.function):
                continue
            value = self.image.env.get(row.variable, "") if row.variable else ""
            paths: Sequence[ImagePath] = value.split(":") if value else row.paths
            present = [path for path in paths if path.startswith("/") and fs.exists(fs.resolve_parent(path))]
            for path in present[:1] if row.first_only else present:
                if fs.is_dir(path):
                    yield from self.image.tree(program, path, row.kind, row.evidence, "certain")
                else:
                    yield Edge(program, path, row.kind, row.evidence, "certain")

    def _zones(self, program: ImagePath, functions: bytes) -> Iterator[Edge]:
        """Time zones: those that TZ and ZONEINFO name, and all where the program loads zones by name."""
        fs, env = self.image.fs, self.image.env
        zones = next((path for path in ZONES if fs.is_dir(path)), None)
        zone = env.get("TZ", "").lstrip(":")
        if zones and zone and fs.is_file(f"{zones}/{zone}"):
            yield Edge(program, f"{zones}/{zone}", "data", f"TZ={zone}", "certain")
        if not _links(functions, "time.LoadLocation"):
            return
        named = env.get("ZONEINFO", "")
        if named.startswith("/") and fs.is_file(named):
            yield Edge(program, named, "data", "ZONEINFO names the time zones", "certain")
        if _links(functions, EMBEDDED_ZONES):
            return
        evidence = "time.LoadLocation loads time zones by name"
        if zones:
            yield from self.image.tree(program, zones, "data", evidence, "certain", skip=("posix", "right"))
            return
        for path in fs.named("zoneinfo.zip"):
            root = path.removesuffix(ZONES_ARCHIVE)
            if root and root != path and root.encode() in self._content(program)[1]:
                yield Edge(program, path, "data", evidence, "certain")


def _links(data: bytes, function: str) -> bool:
    """Whether a function is linked into a program; the names end with a NUL."""
    return function.encode() + b"\0" in data


ecosystem = Go()
