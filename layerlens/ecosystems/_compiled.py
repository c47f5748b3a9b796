"""What compiled programs have in common: sections that are asked for by name, and names among their bytes.

Go and Rust keep the text of string constants without a terminating NUL and run them together, so that what a program
names cannot be listed from its bytes. It is found the other way round: the image's own names are looked for in the
program (:class:`NamedFiles`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from layerlens.ecosystems import UNNEEDED_CATEGORIES, ImageView
from layerlens.ecosystems._elffile import BrokenElf, Elf, read_elf
from layerlens.filesystem import Filesystem
from layerlens.model import Edge, EntryType, ImageConfig, ImagePath
from layerlens.patterns import regex

MAX_PROGRAM = 256 << 20
"""Bytes of a program that are searched for names."""
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

BUILT = (
    # What a build leaves, or compiles, beside the file that describes it: folder, description.
    *(
        ("target", name) for name in ("pom.xml", "Cargo.toml", "build.sbt", "project.clj")
    ),  # Maven, Cargo, sbt, Leiningen
    *(("build", name) for name in ("build.gradle", "build.gradle.kts", "CMakeLists.txt", "meson.build")),
    *(("src", name) for name in ("pom.xml", "Cargo.toml", "build.gradle", "build.gradle.kts", "build.sbt")),
)

DESCRIPTIONS = frozenset(
    (
        # What tells a build what to do, and nothing at run time: each builder's own reference.
        *(
            "Dockerfile",
            ".dockerignore",
            "Makefile",
            "GNUmakefile",
            "CMakeLists.txt",
            "meson.build",
            "Justfile",
        ),
        *("go.mod", "go.sum", "go.work", "go.work.sum", "Cargo.toml", "Cargo.lock", "rust-toolchain.toml"),
        *("pom.xml", "build.gradle", "build.gradle.kts", "settings.gradle", "gradlew", "mvnw", "build.sbt"),
    )
)

CACHE_TAG = "CACHEDIR.TAG"
"""Marks a directory that can be made again, as cargo's target/ (bford.info/cachedir)."""

NAMED_BY_COMPILERS = frozenset(
    ("sources", "package-cache", "headers", "static-libs", "debug", "dev-dependencies")
)
"""Files whose paths compilers leave in programs, for messages and debuggers; no program reads them."""

MAX_PATH = 512
_NOT_OF_PATHS = regex(rb"[^A-Za-z0-9_.+@%~/-]")


MIN_PROGRAM = 250_000
"""Smaller files are not looked at: an empty Go program has more than a million bytes, an empty Rust one 300,000."""
MAX_PROGRAMS = 64
"""Programs of an image whose parts are read."""

OWN_FOLDERS = ("/usr/local/bin", "/usr/local/sbin", "/go/bin", "/root/go/bin", "/app", "/app/bin", "/")
"""Where programs of one's own are put: FHS 4.9, ``go help install``, and what people write in a Dockerfile."""

INTERPRETERS = regex(
    r"(?:node(?:js)?|python[0-9.]*|ruby[0-9.]*|php.*|perl[0-9.]*|java|deno|bun|lua.*|tini|gosu)\Z"
)
"""Programs of an image's first folders that are known not to have what is looked for, or to be the image's tools."""

SHT_NOBITS = 8


def read_program(fs: Filesystem, path: ImagePath) -> Elf | None:
    """The ELF file at ``path``; None where it is none or is cut short, which whoever loads it reports."""
    try:
        return read_elf(fs, path)
    except BrokenElf:
        return None


def sections(elf: Elf) -> dict[str, tuple[int, int]]:
    """Offset and size in the file of each named section that has bytes there; of two of a name the first."""
    found: dict[str, tuple[int, int]] = {}
    for name, kind, _, offset, size in elf.section_headers():
        if kind != SHT_NOBITS:
            found.setdefault(name, (offset, size))
    return found


def read_section(elf: Elf, where: tuple[int, int], limit: int = MAX_PROGRAM) -> bytes:
    """The content of a section, at most ``limit`` bytes."""
    return elf.fs.read_at(elf.path, where[0], min(where[1], limit))


def own_programs(fs: Filesystem, config: ImageConfig) -> list[ImagePath]:
    """Files that may be compiled programs of one's own, without a look at what they hold; sorted.

    The heads of all files of an image cannot be read in the time that ``inspect`` has, and a streamed layer that must
    give up a byte is inflated a second time.
    """
    folders = dict.fromkeys((*OWN_FOLDERS, config.workdir or "/"))
    found: dict[ImagePath, None] = {}
    for folder in folders:
        for name in fs.listdir(folder):
            path = f"{'' if folder == '/' else folder}/{name}"
            if "." not in name and not INTERPRETERS.match(name):
                found[path] = None
    started = [*(config.entrypoint or ()), *(config.cmd or ())][:1]
    if (
        started
        and "/" in started[0]
        and not started[0].startswith(("/bin/", "/usr/bin/", "/sbin/", "/usr/sbin/"))
    ):
        found[started[0] if started[0].startswith("/") else f"{config.workdir or ''}/{started[0]}"] = None
    real: dict[ImagePath, None] = {}
    for path in sorted(found):
        target = fs.follow(path)
        if target is None or fs.type_of(target) != EntryType.FILE or fs.size(target) < MIN_PROGRAM:
            continue
        if not target.startswith(("/usr/bin/", "/usr/lib/")) and fs.entry(target).mode & 0o111:
            real[target] = None
    return sorted(real)[:MAX_PROGRAMS]


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
        if folder not in PROGRAM_FOLDERS and not self._is_built(folder):
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
        return self.image.category_of(path) not in UNNEEDED_CATEGORIES | {"runtime"}

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
                elif kind == EntryType.FILE and path != program and name not in DESCRIPTIONS:
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
        if self._is_built(path, above=False):
            return True
        return name.startswith(".") or self.image.category_of(path) in UNNEEDED_CATEGORIES | {
            "dependencies",
            "runtime",
            "os-base",
        }

    def _is_made(self, path: ImagePath) -> bool:
        """Whether a file in one of the distribution's directories is none of its own: ``/etc/app/app.yaml``."""
        return self.image.category_of(path) == "os-base" and self.image.owner_of(path) is None

    def _is_built(self, path: ImagePath, above: bool = True) -> bool:
        """Whether a directory, or one that it lies in, can be made again, or was compiled."""
        live = self.image.fs.live
        while path:
            folder, _, name = path.rpartition("/")
            if f"{path}/{CACHE_TAG}" in live:
                return True
            if any(name == built and f"{folder}/{beside}" in live for built, beside in BUILT):
                return True
            path = folder if above else ""
        return False

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
                elif name in DESCRIPTIONS:
                    continue
                elif image.category_of(path) in ("app", "other", None) or self._is_made(path):
                    yield Edge(program, path, "app-file", evidence, "assumed")

    def absolute(self, program: ImagePath, data: bytes) -> Iterator[Edge]:
        """Edges to files, and to directories of applications, whose whole path is in ``data``, a program's bytes."""
        image, fs = self.image, self.image.fs
        for path, whole in self._paths(data):
            folder = fs.follow(path)
            if path == program or folder is None:
                continue
            if not whole:
                if folder not in SHARED_FOLDERS and self._is_own(folder):
                    yield Edge(program, path, "literal", f"names a file to be made in {path}", "likely")
            elif fs.is_file(path):
                if image.category_of(folder) not in NAMED_BY_COMPILERS:
                    yield Edge(program, path, "literal", f"names {path}", "likely")
            elif folder not in SHARED_FOLDERS and self._is_own(folder):
                yield from self.own_tree(program, folder, f"names {path}")
        for path, evidence in DATA_TREES:
            if path.encode() in data:
                yield from image.tree(program, path, "data", evidence, "likely", skip=("posix", "right"))

    def _paths(self, data: bytes) -> list[tuple[ImagePath, bool]]:
        """The paths of the image that occur in ``data``, each the longest from where it starts; sorted.

        False with a directory where what is named in it is not there.
        """
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

    def _longest(self, text: str) -> tuple[ImagePath, bool] | None:
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
                return f"{at}/{best}", True
            return (at, not part) if at.count("/") > 1 else None
        return None


def named(name: str, data: bytes) -> bool:
    """Whether a name is long enough to tell and occurs in ``data``."""
    raw = name.encode("utf-8", "surrogateescape")
    return len(raw) >= MIN_NAME and raw in data
