"""Java: runtimes, the artifacts in archives, and what a ``java`` command line reads.

A runtime's home is the directory above its ``bin/java``; since JDK 9 its ``release`` file says what it is (JEP 223).
What of it a program needs is known by layout (JEP 220, "Modular Run-Time Images"): the classes in ``lib/modules``,
the libraries beside it that classes load by name, ``conf``; not what the development kit adds. Artifacts are told by
what Maven writes into archives, else by the file's name.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, cast

from layerlens.ecosystems import UNNEEDED_CATEGORIES, Explorer, ImageView, bounded_read
from layerlens.ecosystems._compiled import NamedFiles
from layerlens.ecosystems._dynamicloader import DynamicLoader
from layerlens.ecosystems._elffile import BrokenElf, read_elf
from layerlens.ecosystems._java_archives import Archive, BrokenArchive, open_archive, parse_properties
from layerlens.errors import LayerLensError
from layerlens.model import Command, Diagnostic, Edge, EntryType, ImageConfig, ImagePath, Package
from layerlens.patterns import regex

if TYPE_CHECKING:
    from layerlens.filesystem import Filesystem

ARCHIVES = (".jar", ".war", ".ear")
MAX_ARCHIVES = 2_000
"""Archives of an image whose artifacts are read."""
MAX_LIBRARY = 32 << 20
"""Bytes of a native library inside an archive."""
MAX_CLASS_PATH = 5_000

NOT_ARTIFACTS = (
    # Archives that are the distribution's, a build tool's or a cache's: they are reported as such.
    *("/usr/share/", "/usr/lib/", "/.m2/", "/.gradle/", "/.ivy2/", "/.sbt/", "/.coursier/", "/opt/maven"),
)

VERSIONED = regex(r"(?P<name>.+?)-(?P<version>\d[0-9A-Za-z.+_-]*)\.(?:jar|war|ear)\Z")
"""``artifactId-version.extension`` (Maven repository layout, default)."""

DEVELOPMENT = frozenset(
    (
        # Directories and files of a development kit that its runtime never reads (JEP 220; JDK tool specifications).
        *("jmods", "include", "man", "demo", "sample", "legal"),
        *(
            "src.zip",
            "ct.sym",
            "jrt-fs.jar",
            "tools.jar",
            "dt.jar",
            "sa-jdi.jar",
            "jconsole.jar",
            "ant-javafx.jar",
        ),
        *("classlist", "jar.binfmt", "jexec", "libsaproc.so", "javafx-src.zip"),
    )
)
DISPLAY_ONLY = frozenset(
    ("libawt_xawt.so", "libjawt.so", "libsplashscreen.so", "libjsound.so", "libjsoundalsa.so")
)
"""Libraries for a screen or sound card: without DISPLAY, AWT is headless (GraphicsEnvironment.isHeadless)."""
DEBUGGERS = frozenset(("libjdwp.so", "libdt_socket.so"))
"""Loaded for ``-agentlib:jdwp`` alone (JPDA connection and invocation)."""
WIDE_ARCHIVE = "classes_nocoops.jsa"
"""Mapped where object pointers are not compressed (JEP 341); without it the JVM starts, only later."""
WIDE = regex(r"-XX:-UseCompressedOops|-XX:\+UseZGC|-Xmx(?:3[2-9]|[4-9]\d|\d{3,})[gG]")

OPTIONS_WITH_VALUE = frozenset(
    (
        # The java command, "Standard options": the value is the next word.
        *(
            "-cp",
            "-classpath",
            "--class-path",
            "-p",
            "--module-path",
            "--upgrade-module-path",
            "--add-modules",
        ),
        *(
            "--add-reads",
            "--add-exports",
            "--add-opens",
            "--limit-modules",
            "--patch-module",
            "-m",
            "--module",
        ),
        *("-d", "--describe-module", "--source", "-jar"),
    )
)
PATH_OPTIONS = frozenset(
    ("-cp", "-classpath", "--class-path", "-p", "--module-path", "--upgrade-module-path")
)
OPTION_VARIABLES = ("JDK_JAVA_OPTIONS", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS")
"""Read by the launcher and by the JVM itself (The java command, "Using the JDK_JAVA_OPTIONS"; JVM TI)."""

SPRING_FILES = ("application", "config", "bootstrap")
"""What Spring Boot reads in the working directory (Externalized Configuration): application.*, config/."""

MACHINES = {
    "amd64": "x86-64",
    "arm64": "aarch64",
    "386": "i386",
    "arm": "arm",
    "riscv64": "riscv",
    "s390x": "s390x",
}
"""GOARCH of the image's platform → machine of an ELF file."""


class Java:
    """Java runtimes and archives, and what programs that run on them need."""

    name = "java"

    endings: tuple[str, ...] = ("/release",)

    def wants(self, path: ImagePath) -> bool:
        """The file that says what a runtime is."""
        return path.endswith(self.endings)

    def packages(
        self, fs: Filesystem, config: ImageConfig, diagnostics: list[Diagnostic]
    ) -> Iterable[Package]:
        """Runtimes by path, then the artifacts of each archive by the archive's path."""
        found = list(_runtimes(fs, diagnostics))
        homes = tuple(f"{package.roots[0]}/" for package in found)
        started = " ".join((*(config.entrypoint or ()), *(config.cmd or ())))
        archives = sorted(
            path
            for path in fs.ending(ARCHIVES)
            if not any(part in path for part in NOT_ARTIFACTS) and not path.startswith(homes)
        )
        for path in archives[:MAX_ARCHIVES]:
            if fs.type_of(path) == EntryType.FILE:
                found += _artifacts(fs, path, path[path.rfind("/") + 1 :] in started, diagnostics)
        return found

    def explorer(self, image: ImageView) -> Explorer:
        """What Java programs need."""
        return JavaExplorer(image)


def _runtimes(fs: Filesystem, diagnostics: list[Diagnostic]) -> Iterator[Package]:
    """Each home with a ``release`` file and a launcher owns everything below it."""
    for path in fs.named("release"):
        home = path.rpartition("/")[0]
        if not home or not fs.is_file(f"{home}/bin/java"):
            continue
        values = parse_properties(bounded_read(fs, path, diagnostics) or "")
        version = values.get("JAVA_RUNTIME_VERSION") or values.get("JAVA_VERSION") or ""
        kind = "jdk" if fs.exists(f"{home}/bin/javac") else "jre"
        yield Package("java", kind, version.strip('"'), path, roots=(home,), category="runtime")


def _artifacts(
    fs: Filesystem, path: ImagePath, is_started: bool, diagnostics: list[Diagnostic]
) -> Iterator[Package]:
    """The artifact that an archive is, which owns it, and then those inside it."""
    name, version = _named_artifact(path)
    try:
        archive = open_archive(fs, path)
    except BrokenArchive as error:
        diagnostics.append(Diagnostic("warning", "broken-archive", f"cannot be read: {error}", path))
        return
    modules = archive.modules()
    own = next((m for m in modules if m[1] == name and (not version or m[2] == version)), None)
    if own is None:
        own = next((m for m in modules if m[1].startswith(name) or name.startswith(m[1])), None)
    if own is None and len(modules) == 1:
        own = modules[0]
    if own is None:
        values = archive.manifest()
        version = version or values.get("implementation-version") or values.get("bundle-version") or ""
    else:
        name, version = ":".join(filter(None, own[:2])), own[2]
    category = "app" if is_started else None
    yield Package("java", name, version, path, paths=(path,), category=category)
    inside = {(":".join(filter(None, m[:2])), m[2]) for m in modules if m != own}
    inside |= {_named_artifact(library) for library in archive.libraries()}
    for other, its_version in sorted(inside):
        yield Package("java", other, its_version, path)


def _named_artifact(path: str) -> tuple[str, str]:
    """Artifact and version by a file's name; the version empty where it has none."""
    name = path[path.rfind("/") + 1 :]
    match = VERSIONED.match(name)
    return (match["name"], match["version"]) if match else (name.rpartition(".")[0], "")


class JavaExplorer(Explorer):
    """What Java programs need of the image."""

    def __init__(self, image: ImageView) -> None:
        super().__init__(image)
        self._files = NamedFiles(image)
        self._loader = DynamicLoader(image)
        self._archives: dict[ImagePath, Archive | None] = {}
        self._options: list[str] = []
        """Options of every ``java`` command line met so far."""
        self._homes: dict[ImagePath, ImagePath] = {}
        """Homes whose runtime is kept, and the launcher or library that made it so."""

    # -- the runtime ---------------------------------------------------------------------------------------

    def edges(self, path: ImagePath) -> Iterable[Edge | Command]:
        """Of a launcher or the JVM's library: the runtime around it. Of an archive: what it names."""
        if path.endswith(("/bin/java", "/libjvm.so")):
            home = self._home(path)
            if home is not None and home not in self._homes:
                self._homes[home] = path
                yield from self._runtime(path, home)
        elif path.endswith(ARCHIVES):
            yield from self._archive_edges(path)

    def _home(self, path: ImagePath) -> ImagePath | None:
        """The runtime's home that a file belongs to: where lib/modules or, before JDK 9, lib/rt.jar is."""
        fs = self.image.fs
        for _ in range(5):
            path = path.rpartition("/")[0]
            if not path:
                return None
            if any(fs.exists(f"{path}/{name}") for name in ("lib/modules", "lib/rt.jar", "jre/lib/rt.jar")):
                return path
        return None

    def _runtime(self, source: ImagePath, home: ImagePath) -> Iterator[Edge]:
        """The files of a home that its JVM reads, those in directories that are links included."""
        fs, image = self.image.fs, self.image
        options = " ".join((*self._options, *(image.env.get(name, "") for name in OPTION_VARIABLES)))
        left_out = set(DEVELOPMENT)
        if "DISPLAY" not in image.env and "java.awt.headless=false" not in options:
            left_out |= DISPLAY_ONLY
        if "jdwp" not in options:
            left_out |= DEBUGGERS
        if not WIDE.search(options):
            left_out.add(WIDE_ARCHIVE)
        stack, seen = [home], {home}
        while stack:
            folder = stack.pop()
            real = fs.follow(folder) or folder
            for name in fs.listdir(real):
                path = f"{folder}/{name}"
                target = fs.follow(path)
                if name in left_out or target is None or (name == "bin" and folder == home):
                    continue
                if fs.is_dir(target):
                    yield Edge(source, path, "data", f"runtime in {home}", "certain")
                    if target not in seen and len(seen) < MAX_CLASS_PATH:
                        seen.add(target)
                        stack.append(path)
                elif image.category_of(target) not in UNNEEDED_CATEGORIES - {"secrets"}:
                    yield Edge(source, path, "data", f"runtime in {home}", "certain")

    # -- command lines -------------------------------------------------------------------------------------

    def command(self, command: Command, program: ImagePath) -> Iterable[Edge | Command]:
        """The archives, class paths, agents and files that a ``java`` command line names."""
        if posixpath.basename(command.argv[0]) != "java" and posixpath.basename(program) != "java":
            return
        words = [*self._variable_options(command), *self._expanded(command, command.argv[1:])]
        self._options += words
        line = _Line(words)
        for option, value in line.paths:
            yield from self._class_path(command, program, value, f"{option} {value}")
        if line.archive:
            yield from self._class_path(command, program, line.archive, f"-jar {line.archive}", "command")
        elif not any(option in PATH_OPTIONS for option, _ in line.paths):
            value = command.env.get("CLASSPATH") or "."
            yield from self._class_path(command, program, value, f"class path {value}")
        yield from self._words(command, program, words)
        if line.archive:
            archive = self._archive(posixpath.join(command.cwd, line.archive))
            if archive is not None and any(name.startswith("BOOT-INF/") for name in archive.names):
                yield from self._spring(command, program)

    @staticmethod
    def _variable_options(command: Command) -> list[str]:
        return [word for name in OPTION_VARIABLES for word in command.env.get(name, "").split()]

    def _expanded(self, command: Command, words: Sequence[str]) -> Iterator[str]:
        """Words with ``@argfile`` replaced by the words in it (The java command, "Argument Files")."""
        for word in words:
            if word.startswith("@") and not word.startswith("@@"):
                path = posixpath.join(command.cwd, word[1:])
                if self.image.fs.is_file(path):
                    yield from self._argument_file(path)
                    continue
            yield word

    def _argument_file(self, path: ImagePath) -> Iterator[str]:
        text = bounded_read(self.image.fs, path, self.image.diagnostics) or ""
        for line in text.splitlines():
            for match in re.finditer(r'"([^"]*)"|\'([^\']*)\'|([^\s#"\']+)|#.*', line):
                word = match[1] or match[2] or match[3]
                if word:
                    yield word

    def _words(self, command: Command, program: ImagePath, words: Sequence[str]) -> Iterator[Edge]:
        """What single words name: ``@argfile``, agents, ``-Dname=/path``."""
        for word in command.argv[1:]:
            path = posixpath.join(command.cwd, word[1:])
            if word.startswith("@") and self.image.fs.is_file(path):
                yield Edge(program, path, "config", f"argument file {word}", "certain")
        for word in words:
            for prefix in ("-javaagent:", "-agentpath:", "-Xbootclasspath/a:", "-XX:SharedArchiveFile="):
                if word.startswith(prefix):
                    value = word[len(prefix) :]
                    value = value.split("=")[0] if prefix.endswith("agent:") else value
                    yield from self._class_path(command, program, value, word)
            name, equals, value = word.partition("=")
            if name.startswith("-D") and equals:
                for part in value.split(":"):
                    path = posixpath.join(command.cwd, part.removeprefix("file:"))
                    if part and self.image.fs.is_file(path):
                        yield Edge(program, path, "literal", f"option {word}", "likely")

    def _class_path(
        self, command: Command, program: ImagePath, value: str, evidence: str, kind: str = "import"
    ) -> Iterator[Edge]:
        """Archives and directories of a class path; ``dir/*`` is every archive in it (The java command)."""
        fs = self.image.fs
        for entry in value.split(":")[:MAX_CLASS_PATH]:
            path = posixpath.normpath(posixpath.join(command.cwd, entry or "."))
            if posixpath.basename(path) == "*":
                folder = posixpath.dirname(path)
                for name in fs.listdir(folder):
                    if name.lower().endswith(".jar"):
                        yield Edge(program, f"{folder}/{name}", kind, evidence, "certain")
            elif fs.is_dir(path):
                yield from self._classes(program, path, evidence)
            elif fs.is_file(path):
                yield Edge(program, path, kind, evidence, "certain")

    def _classes(self, program: ImagePath, folder: ImagePath, evidence: str) -> Iterator[Edge]:
        """A directory on the class path: what is in it, unless it holds no class (``.`` by default)."""
        real = self.image.fs.follow(folder)
        if real in (None, "/"):
            return
        without = UNNEEDED_CATEGORIES | {"sources"}
        edges = list(self.image.tree(program, folder, "import", evidence, "certain", without=without))
        if evidence.startswith("class path .") and not any(edge.target.endswith(".class") for edge in edges):
            return
        yield from edges

    def _spring(self, command: Command, program: ImagePath) -> Iterator[Edge]:
        """Configuration beside a Spring Boot program (Spring Boot reference, "External Application Properties")."""
        fs = self.image.fs
        evidence = "Spring Boot reads its configuration where it runs"
        for name in fs.listdir(command.cwd):
            path = f"{command.cwd.rstrip('/')}/{name}"
            if name == "config" and fs.is_dir(path):
                yield from self.image.tree(program, path, "config", evidence, "likely", without=frozenset())
            elif name.startswith(SPRING_FILES) and name.endswith((".properties", ".yml", ".yaml")):
                yield Edge(program, path, "config", evidence, "likely")

    # -- archives ------------------------------------------------------------------------------------------

    def _archive(self, path: ImagePath) -> Archive | None:
        real = self.image.fs.follow(path)
        if real is None:
            return None
        if real not in self._archives:
            try:
                self._archives[real] = open_archive(self.image.fs, real)
            except BrokenArchive as error:
                self._archives[real] = None
                self.image.diagnose("broken-archive", f"cannot be read: {error}", real)
        return self._archives[real]

    def _archive_edges(self, path: ImagePath) -> Iterator[Edge]:
        """The manifest's Class-Path, the libraries' NEEDED, and files that the classes name."""
        archive = self._archive(path)
        if archive is None:
            return
        folder = path.rpartition("/")[0]
        for entry in archive.manifest().get("class-path", "").split()[:MAX_CLASS_PATH]:
            target = posixpath.normpath(posixpath.join(folder, entry.removeprefix("file:")))
            if self.image.fs.is_file(target):
                yield Edge(path, target, "import", f"Class-Path: {entry}", "certain")
            elif entry.endswith("/") and self.image.fs.is_dir(target):
                yield from self.image.tree(path, target, "import", f"Class-Path: {entry}", "certain")
        yield from self._native(path, archive)
        owner = self.image.owner_of(path)
        if owner is None or not owner.is_os:
            yield from self._named(path, archive)

    def _native(self, path: ImagePath, archive: Archive) -> Iterator[Edge]:
        """What the libraries that an archive carries are linked with, once they are unpacked into /tmp and loaded."""
        found: set[str] = set()
        for holder in self._with_nested(archive):
            for name in holder.names:
                if name.endswith(".so") and "/" in name:
                    found.update(self._needed(holder.content(name, MAX_LIBRARY)))
        launcher = next(iter(self._homes.values()), None)
        for name in sorted(found):
            targets = self._loader.find(name, launcher, self.image.env) if launcher else []
            for target in targets[-1:]:
                yield Edge(path, target, "needed", f"NEEDED {name} of a library inside", "certain")

    def _with_nested(self, archive: Archive) -> Iterator[Archive]:
        """The archive and those inside it whose names say that they carry libraries of their own, or might."""
        yield archive
        for name in archive.libraries():
            try:
                yield archive.nested(name)
            except BrokenArchive:
                continue

    def _needed(self, content: bytes) -> tuple[str, ...]:
        machine = MACHINES.get(self.image.config.platform.architecture)
        try:
            elf = read_elf(cast("Filesystem", _OneFile(content)), "")
            if elf is None or elf.machine != machine:
                return ()
            # Android's libraries name libraries that no Linux distribution has.
            return elf.needed
        except (BrokenElf, LayerLensError):
            return ()

    def _named(self, path: ImagePath, archive: Archive) -> Iterator[Edge]:
        """Files that the constants of an archive's classes name (JVM specification, 4.4.7)."""
        roots = self._files.roots(path, self.image.config.workdir or "/", self.image.env)
        data = b"\0".join(archive.classes())
        yield from self._files.absolute(path, data)
        for root in roots:
            for edge in self._files.below(path, data, root):
                if not edge.target.endswith((*ARCHIVES, ".class")):
                    yield edge


class _OneFile:
    """Bytes that are read as a file of the image is."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def read_at(self, path: ImagePath, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset``, fewer at the end."""
        return self._content[offset : offset + size] if offset >= 0 else b""


class _Line:
    """A ``java`` command line: its class and module paths, and its archive."""

    def __init__(self, words: Sequence[str]) -> None:
        self.paths: list[tuple[str, str]] = []
        self.archive: str | None = None
        at = 0
        while at < len(words):
            word = words[at]
            option, equals, value = word.partition("=")
            if word in OPTIONS_WITH_VALUE:
                value = words[at + 1] if at + 1 < len(words) else ""
                at += 1
            elif not word.startswith("-"):
                return
            elif not equals:
                value = ""
            if option == "-jar" and value:
                self.archive = value
                return
            if option in PATH_OPTIONS and value:
                self.paths.append((option, value))
            at += 1


ecosystem = Java()
