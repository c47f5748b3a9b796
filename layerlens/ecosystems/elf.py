"""ELF programs and libraries: what the dynamic loader loads with them, and what they open by themselves at run time.

Modules and data that libraries are known to open are tables in ``_runtimefiles``; paths among a file's constant
strings are literal edges. A constant proves that a file may be opened, not that it is; so a literal that names a
program counts only where the file calls something that starts programs, and one that names a shared object only
where it loads objects. The C library's own constants count for nothing: what it opens depends on what is called.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from layerlens.ecosystems import UNNEEDED_CATEGORIES, Binding, Explorer, ImageView, WithoutPackages
from layerlens.ecosystems._dynamicloader import (
    CACHE_PATH,
    DynamicLoader,
    bound_to,
    default_folders,
    image_libc,
)
from layerlens.ecosystems._elffile import ET_REL, MAGIC, BrokenElf, read_elf
from layerlens.ecosystems._elffile import Elf as ElfFile
from layerlens.ecosystems._elftext import Constants, relative_names
from layerlens.ecosystems._runtimefiles import (
    BY_IMPORT,
    BY_LIBRARY,
    DATA_FOLDERS,
    FOR_CALLERS,
    FOR_ICU,
    LOADS_OBJECTS,
    LOCALE_CONVERTERS,
    NSS_BUILT_IN,
    NSS_DEFAULT,
    STARTS_PROGRAMS,
    STARTS_SHELL,
    WEB_CHARSETS,
    WITH_ICU,
    Taken,
    stem,
)
from layerlens.errors import LayerLensError
from layerlens.model import (
    Certainty,
    Command,
    Edge,
    EntryType,
    ImagePath,
)
from layerlens.patterns import regex

if TYPE_CHECKING:
    from layerlens.filesystem import Filesystem

SHELL = "/bin/sh"
NSSWITCH = "/etc/nsswitch.conf"
ZONES = "/usr/share/zoneinfo"
LOCALE_ARCHIVE = "/usr/lib/locale/locale-archive"

C_LIBRARY = ("libc.so.6", "libc-2.", "libc.musl-", "ld-musl-", "ld-linux", "ld64.so", "ld-2.")
"""File names of C libraries and their loaders (glibc shlib-versions; musl INSTALL)."""

START_FILES = frozenset(
    ("_ITM_deregisterTMCloneTable", "_ITM_registerTMCloneTable", "__cxa_finalize", "__gmon_start__")
)
"""Symbols that GCC's start files refer to in every library (libgcc/crtstuff.c, glibc sysdeps/x86_64/crti.S)."""

GO_SECTION = ".go.buildinfo"
"""Marks a Go program (cmd/link), whose strings have no end: what it names is read by another module."""

OWN = frozenset(("app", "other"))
"""Categories of files that are the application's own."""

NAMED_IN_PASSING = frozenset(
    (
        *("sources", "package-cache", "headers", "static-libs", "debug", "dev-dependencies", "locale"),
        *("logs-temp", "compilers"),
    )
)
"""Files that programs name in messages, write themselves, or choose by the user's language."""

_SHARED = """
    / /bin /boot /dev /etc /home /lib /lib32 /lib64 /libx32 /media /mnt /opt /proc /root /run /sbin /srv /sys /tmp
    /usr /usr/bin /usr/games /usr/include /usr/lib /usr/lib32 /usr/lib64 /usr/libexec /usr/libx32 /usr/local
    /usr/local/bin /usr/local/etc /usr/local/games /usr/local/include /usr/local/lib /usr/local/lib64
    /usr/local/libexec /usr/local/man /usr/local/sbin /usr/local/share /usr/local/src /usr/sbin /usr/share
    /usr/share/man /usr/share/misc /usr/src /var /var/cache /var/lib /var/lock /var/log /var/mail /var/opt /var/run
    /var/spool /var/tmp /var/www
"""
SHARED_FOLDERS = frozenset(_SHARED.split())
"""Folders that hold everybody's files (FHS 3.0, 3 to 5): naming one asks for none of them."""

MAX_MATCHES = 2_000
"""Files of one folder or pattern that are taken."""
MAX_PRIVATE = 5_000
"""Paths below a folder from which on it is too large to be one program's data."""
MAX_CONFIGURATION = 1 << 18
"""Bytes of a configuration file that are looked at."""
MAX_NAMES = 500
"""Names of a folder that are looked for in a program."""

_PATHS = regex(rb"(?<![\w.+@%/:-])/[\w.+@%/-]{2,255}")
"""Absolute paths of a text, without those of URLs."""


class Elf(WithoutPackages):
    """Programs and libraries in the Executable and Linkable Format."""

    name = "elf"

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
    """Interpreter, libraries, run-time modules and literals of each kept ELF file."""

    def __init__(self, image: ImageView) -> None:
        super().__init__(image)
        self.loader = DynamicLoader(image)

    def command(self, command: Command, program: ImagePath) -> Iterable[Edge | Command]:
        """The libraries of a program that is started with other variables than the image's, and its own files."""
        env = self.image.env
        if any(command.env.get(name) != env.get(name) for name in ("LD_LIBRARY_PATH", "LD_PRELOAD")):
            yield from self.loader.load(program, command.env)
        yield from self._zone(command, program)
        elf = self._own_program(program)
        if elf is not None:
            for folder in dict.fromkeys((command.cwd, program.rpartition("/")[0] or "/")):
                if folder not in SHARED_FOLDERS:
                    yield from self._relative(elf, program, folder)
            for word in command.argv[1:]:
                path = posixpath.join(command.cwd or "/", word.partition("=")[2] or word)
                if "\0" not in path and self.image.fs.is_file(path):
                    yield from self._configuration(path)

    def edges(self, path: ImagePath) -> Iterable[Edge | Command]:
        """What a kept ELF file needs."""
        if self.image.head(path)[:4] != MAGIC:
            return
        elf = self.loader.read(path)
        if elf is None or elf.type == ET_REL:
            return
        if elf.interpreter:
            yield Edge(path, elf.interpreter, "interpreter", f"interpreter {elf.interpreter}", "certain")
            real = self.image.fs.follow(elf.interpreter)
            if real is not None and not self.loader.is_musl(elf) and self.image.fs.is_file(CACHE_PATH):
                yield Edge(real, CACHE_PATH, "data", "where it looks libraries up (ld.so(8))", "certain")
        if elf.interpreter or path not in self.loader.loaded:
            yield from self.loader.load(path, self.image.env)
        yield from self._modules(elf, path)
        if path.rpartition("/")[2].startswith(C_LIBRARY) or elf.soname == "libc.so.6":
            yield from self._name_services(elf, path)
            yield from self._locales(path)
        elif not (elf.interpreter is None and elf.soname and elf.soname.startswith(C_LIBRARY)):
            yield from self._literals(elf, path)

    # -- what the tables say -------------------------------------------------------------------------------

    def _modules(self, elf: ElfFile, path: ImagePath) -> Iterator[Edge | Command]:
        folder = path.rpartition("/")[0]
        name = elf.soname or (path.rpartition("/")[2] if elf.interpreter is None else "")
        for row in BY_LIBRARY.get(stem(name), ()) if name else ():
            yield from self._take(elf, path, row, row.source, folder)
        if elf.soname == "libc.so.6":
            return
        file = path.rpartition("/")[2]
        library = stem(name or file)
        passed_over = FOR_ICU if file in WITH_ICU else FOR_CALLERS.get(library, frozenset())
        for symbol in sorted(elf.imports & BY_IMPORT.keys() - passed_over):
            for row in BY_IMPORT[symbol]:
                yield from self._take(elf, path, row, f"calls {symbol}: {row.source}", folder)
        if "iconv_open" in elf.imports and library not in LOCALE_CONVERTERS:
            yield from self._converters(elf, path)
        shells = sorted(elf.imports & STARTS_SHELL)
        if shells and self.image.fs.is_file(SHELL):
            evidence = f"calls {shells[0]}, which runs {SHELL} -c"
            yield Command(
                path, (SHELL,), evidence, self.image.config.workdir or "/", self.image.env, certainty="likely"
            )

    def _take(
        self, elf: ElfFile, path: ImagePath, row: Taken, evidence: str, folder: ImagePath
    ) -> Iterator[Edge]:
        fs = self.image.fs
        certainty: Certainty = "assumed" if row.kind == "data" else "likely"
        for pattern in row.paths:
            asked = pattern.replace("{folder}", folder)
            if "{openssl}" in asked:
                found = self.loader.find("libcrypto.so.3", path, self.image.env)
                if not found:
                    continue
                asked = asked.replace("{openssl}", (fs.follow(found[0]) or found[0]).rpartition("/")[0])
            named = [] if "/" in asked else self.loader.find(asked, path, self.image.env)
            for target in named or self._matches(asked):
                if asked.endswith("/"):
                    skip = DATA_FOLDERS.get(target, ("", ()))[1]
                    yield from self.image.tree(
                        path, target, row.kind, evidence, certainty, without=frozenset(), skip=skip
                    )
                elif fs.is_file(target) and self._same_platform(target, elf):
                    yield Edge(path, target, row.kind, evidence, certainty)

    def _matches(self, pattern: str) -> list[ImagePath]:
        asked = pattern.rstrip("/")
        if any(mark in asked for mark in "*?["):
            return self.image.fs.glob(asked)[:MAX_MATCHES]
        return [asked] if self.image.fs.follow(asked) is not None else []

    def _same_platform(self, path: ImagePath, elf: ElfFile) -> bool:
        if self.image.head(path)[:4] != MAGIC:
            return True
        other = self.loader.read(path)
        return other is not None and other.platform == elf.platform

    def _converters(self, elf: ElfFile, path: ImagePath) -> Iterator[Edge]:
        """glibc's gconv modules: all of them for an application's own program, those of the web for others.

        The name of the encoding comes from the data; an application's own program may ask for any.
        """
        libc = self.loader.find("libc.so.6", path, self.image.env)
        if not libc:
            return
        fs = self.image.fs
        own = self.image.owner_of(path) is None and self.image.category_of(path) in OWN
        folder = f"{(fs.follow(libc[0]) or libc[0]).rpartition('/')[0]}/gconv"
        for name in fs.listdir(folder):
            target = f"{folder}/{name}"
            wanted = own or not name.endswith(".so") or name.removesuffix(".so") in WEB_CHARSETS
            if wanted and fs.is_file(target) and name != "gconv-modules.d":
                yield Edge(
                    path, target, "plugin", "calls iconv_open: gconv modules (iconvconfig(8))", "likely"
                )
        for target in fs.glob(f"{folder}/gconv-modules.d/*.conf"):
            yield Edge(path, target, "plugin", "calls iconv_open: gconv modules (iconvconfig(8))", "likely")

    def _name_services(self, elf: ElfFile, path: ImagePath) -> Iterator[Edge]:
        """glibc's name services that /etc/nsswitch.conf asks (nsswitch.conf(5))."""
        services = self._nsswitch()
        version, built_in = NSS_BUILT_IN
        if b"\0" + version.encode() + b"\0" in elf.strings:
            services = [name for name in services if name not in built_in]
        for name in services:
            for target in self.loader.find(f"libnss_{name}.so.2", path, self.image.env):
                yield Edge(path, target, "plugin", f"{NSSWITCH}: {name} (nsswitch.conf(5))", "certain")

    def _nsswitch(self) -> list[str]:
        fs = self.image.fs
        if not fs.is_file(NSSWITCH):
            return list(NSS_DEFAULT)
        try:
            text = fs.read_text(NSSWITCH, 1 << 20)
        except (LayerLensError, OSError) as error:
            self.image.diagnose("unreadable-file", str(error), NSSWITCH)
            return list(NSS_DEFAULT)
        lines = (line.partition("#")[0].partition(":")[2] for line in text.splitlines())
        words = (word for line in lines for word in re.sub(r"\[[^\]]*\]", " ", line).split())
        return sorted({word for word in words if re.fullmatch(r"[\w-]{1,64}", word)})

    def _locales(self, path: ImagePath) -> Iterator[Edge]:
        """The locales that ENV chooses (locale(7)): ``de_DE.UTF-8`` lies in de_DE.utf8 or in the archive."""
        fs = self.image.fs
        for variable in sorted(self.image.env):
            value = self.image.env[variable]
            if not (variable in ("LANG", "LANGUAGE") or variable.startswith("LC_")) or value in (
                "",
                "C",
                "POSIX",
            ):
                continue
            name, dot, charset = value.partition("@")[0].partition(".")
            spelled = {value, f"{name}{dot}{re.sub('[^0-9A-Za-z]', '', charset).lower()}", name}
            folders = [f"/usr/lib/locale/{one}" for one in sorted(spelled) if "/" not in one]
            found = [folder for folder in folders if fs.is_dir(folder)]
            evidence = f"ENV {variable}={value} (locale(7))"
            for folder in found:
                yield from self.image.tree(path, folder, "data", evidence, "certain", without=frozenset())
            if not found and fs.is_file(LOCALE_ARCHIVE):
                yield Edge(path, LOCALE_ARCHIVE, "data", evidence, "likely")

    def _zone(self, command: Command, program: ImagePath) -> Iterator[Edge]:
        """The file of the time zone that TZ names (tzset(3))."""
        zone = command.env.get("TZ", "").removeprefix(":")
        if zone and "\0" not in zone and ".." not in zone.split("/"):
            target = zone if zone.startswith("/") else f"{ZONES}/{zone}"
            if self.image.fs.is_file(target):
                yield Edge(program, target, "data", f"ENV TZ={zone} (tzset(3))", "certain")

    # -- literals ------------------------------------------------------------------------------------------

    def _literals(self, elf: ElfFile, path: ImagePath) -> Iterator[Edge | Command]:
        if elf.soname and not elf.needed and elf.imports <= START_FILES:
            return  # a library that calls nothing opens nothing: ICU's data
        if any(header[0] == GO_SECTION for header in elf.section_headers()):
            return
        constants = Constants(self.image.fs, elf)
        yield from self._openssl(constants.openssl, elf, path)
        loads = bool(elf.imports & LOADS_OBJECTS) or elf.is_static
        starts = bool(elf.imports & STARTS_PROGRAMS) or elf.is_static
        if elf.imports & LOADS_OBJECTS:
            yield from self._named_libraries(constants.sonames, path)
        for text in constants.absolute:
            real = self.image.fs.follow(text)
            if real is None or real in (path, "/"):
                continue
            if self.image.fs.is_dir(real):
                yield from self._folder_literal(elf, path, text.rstrip("/"), real, loads)
            elif self.image.fs.type_of(real) == EntryType.FILE:
                yield from self._file_literal(elf, path, text, real, loads, starts)

    def _named_libraries(self, names: Sequence[str], path: ImagePath) -> Iterator[Edge]:
        """Libraries that a file which calls dlopen(3) has the names of."""
        for name in names:
            for target in self.loader.find(name, path, self.image.env):
                yield Edge(path, target, "plugin", f"names {name} and calls dlopen(3)", "likely")

    def _openssl(self, folders: Mapping[str, str], elf: ElfFile, path: ImagePath) -> Iterator[Edge]:
        """What libcrypto opens in its OPENSSLDIR (openssl(1), config(5), SSL_CTX_set_default_verify_paths(3))."""
        top = folders.get("OPENSSLDIR")
        if top is None:
            return
        for name in ("openssl.cnf", "cert.pem"):
            if self.image.fs.is_file(f"{top}/{name}"):
                yield Edge(path, f"{top}/{name}", "config", f"OPENSSLDIR {top} (config(5))", "certain")
        yield from self.image.tree(
            path,
            f"{top}/certs",
            "data",
            f"OPENSSLDIR {top}: trusted authorities",
            "assumed",
            without=frozenset(),
        )
        modules = folders.get("MODULESDIR", "")
        for name in self.image.fs.listdir(modules) if modules else ():
            target = f"{modules}/{name}"
            if name.endswith(".so") and self.image.fs.is_file(target) and self._same_platform(target, elf):
                yield Edge(
                    path, target, "plugin", f"MODULESDIR {modules} (OSSL_PROVIDER-legacy(7))", "likely"
                )

    def _file_literal(
        self, elf: ElfFile, path: ImagePath, text: str, real: ImagePath, loads: bool, starts: bool
    ) -> Iterator[Edge | Command]:
        evidence = f"literal {text}"
        head = self.image.head(real)
        executable = bool(self.image.fs.entry(real).mode & 0o111)
        if self.image.category_of(real) in NAMED_IN_PASSING:
            return
        if head[:4] == MAGIC:
            other = self.loader.read(real)
            if other is None or other.platform != elf.platform:
                return
            if other.interpreter is None and ".so" in real.rpartition("/")[2]:
                if loads:
                    yield Edge(path, text, "plugin", evidence, "likely")
                return
        if executable and (head[:4] == MAGIC or head[:2] == b"#!"):
            if starts:
                cwd = self.image.config.workdir or "/"
                yield Command(path, (text,), evidence, cwd, self.image.env, certainty="likely")
            return
        yield Edge(path, text, "literal", evidence, "likely")

    def _folder_literal(
        self, elf: ElfFile, path: ImagePath, text: ImagePath, real: ImagePath, loads: bool
    ) -> Iterator[Edge]:
        fs = self.image.fs
        evidence = f"literal {text}"
        known = DATA_FOLDERS.get(text) or DATA_FOLDERS.get(real)
        if ZONES in (text, real) and path.rpartition("/")[2] in WITH_ICU:
            known = None
        if known is not None:
            why, skip = known
            yield from self.image.tree(
                path, text, "data", f"{evidence}: {why}", "likely", without=frozenset(), skip=skip
            )
            return
        yield Edge(path, text, "literal", evidence, "likely")
        if real in SHARED_FOLDERS or real in default_folders(elf):
            return
        if real.endswith("/gconv") and not self._is_own(path):
            return  # a constant of the C library, which is in every static program
        if self._is_own(path) and self._is_private(real):
            yield from self.image.tree(
                path, real, "app-file", evidence, "assumed", without=UNNEEDED_CATEGORIES | {"sources"}
            )
        elif loads:
            for name in fs.listdir(real)[:MAX_MATCHES]:
                target = f"{real}/{name}"
                if name.endswith(".so") and fs.is_file(target) and self._same_platform(target, elf):
                    yield Edge(path, target, "plugin", f"{evidence}: a folder of objects to load", "likely")

    # -- an application's own program ----------------------------------------------------------------------

    def _is_own(self, path: ImagePath) -> bool:
        return self.image.owner_of(path) is None and self.image.category_of(path) in OWN

    def _own_program(self, path: ImagePath) -> ElfFile | None:
        if self.image.head(path)[:4] != MAGIC or not self._is_own(path):
            return None
        return self.loader.read(path)

    def _configuration(self, path: ImagePath) -> Iterator[Edge]:
        """Files and folders that a file given to an application's own program names by their absolute paths."""
        fs = self.image.fs
        real = fs.follow(path)
        if real is None or fs.size(real) > MAX_CONFIGURATION:
            return
        try:
            data = fs.read(real, MAX_CONFIGURATION)
        except (LayerLensError, OSError) as error:
            self.image.diagnose("unreadable-file", str(error), real)
            return
        if b"\0" in data:
            return
        texts = {text.decode("utf-8", "surrogateescape") for text in _PATHS.findall(data)}
        for text in sorted(texts)[:MAX_MATCHES]:
            target = fs.follow(text.rstrip("/."))
            if target is None or target == "/":
                continue
            evidence = f"names {text}"
            if fs.is_file(target):
                yield Edge(real, text, "config", evidence, "likely")
            else:
                yield Edge(real, text.rstrip("/."), "config", evidence, "likely")
                if self._is_private(target):
                    without = UNNEEDED_CATEGORIES | {"sources"}
                    yield from self.image.tree(real, target, "config", evidence, "assumed", without=without)

    def _is_private(self, folder: ImagePath) -> bool:
        """Whether a folder is an application's: no package owns anything in it, and it is no whole system."""
        if folder in SHARED_FOLDERS or folder == "/":
            return False
        for count, path in enumerate(self.image.fs.walk(folder)):
            if count >= MAX_PRIVATE or self.image.owner_of(path) is not None:
                return False
        return True

    def _relative(self, elf: ElfFile, program: ImagePath, folder: ImagePath) -> Iterator[Edge]:
        """Files and folders below ``folder`` that constants of the program name: ``templates/page.html``."""
        fs = self.image.fs
        names = [
            name for name in fs.listdir(folder)[:MAX_NAMES] if len(name) > 2 and not name.startswith(".")
        ]
        base = "" if folder == "/" else folder
        for name, texts in relative_names(elf, names).items():
            top = f"{base}/{name}"
            if folder == "/" and top in SHARED_FOLDERS:
                continue
            if fs.is_file(top):
                if top != program and self.image.category_of(top) not in NAMED_IN_PASSING:
                    yield Edge(program, top, "literal", f"literal {name} in {folder}", "likely")
                continue
            files = [text for text in texts if fs.is_file(f"{base}/{text}")]
            for text in files:
                if self.image.category_of(f"{base}/{text}") not in NAMED_IN_PASSING:
                    yield Edge(program, f"{base}/{text}", "literal", f"literal {text} in {folder}", "likely")
            if len(files) < len(texts) and self._is_private(top):  # the rest of the name is computed
                yield from self.image.tree(
                    program,
                    top,
                    "app-file",
                    f"literal {name} in {folder}",
                    "assumed",
                    without=UNNEEDED_CATEGORIES | {"sources"},
                )


ecosystem = Elf()
