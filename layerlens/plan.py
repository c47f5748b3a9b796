"""From what the program needs to what is shipped: keep, drop, base, OS packages, copies; data, not text.

Every live file gets one verdict. ``copy``: a COPY brings it, because it is needed or because it comes along with a
directory that is. ``base``: the runtime image has it. ``package``: an OS package that the runtime stage installs
brings it. ``drop``: it stays behind. :mod:`layerlens.stages` writes the plan as a Dockerfile, :mod:`layerlens.slim`
as an image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from layerlens.categories import CATEGORIES
from layerlens.dockerlines import inexpressible
from layerlens.ecosystems import Binding, BindsLibc, Improves, Installs, Reduces, Unpacks, ecosystems
from layerlens.errors import UsageError
from layerlens.filesystem import Filesystem
from layerlens.graph import Needs
from layerlens.model import (
    Diagnostic,
    Edge,
    EntryType,
    ImageConfig,
    ImagePath,
    Improvement,
    Instruction,
    Package,
    Verdict,
)
from layerlens.report import diagnostic_row, display
from layerlens.runtime import SCRATCH, Base, Choice, in_tree, installer

if TYPE_CHECKING:
    from layerlens.exchange import Exchange

_FILE, _DIR, _SYMLINK = int(EntryType.FILE), int(EntryType.DIR), int(EntryType.SYMLINK)

OF_NOTE_BYTES = 1_000_000
"""A subtree that a copy leaves behind, or one that is dropped, is named from this size on."""
COMES_ALONG_SHARE = 0.02
"""Share of a directory's bytes that may come along unneeded before it is copied in parts."""
COMES_ALONG_BYTES = 256_000
"""Bytes that may come along with a directory, whatever its size."""
COMES_ALONG_MOST = 0.5
"""… and that may come along with a directory that would take many lines otherwise."""
FEW_LINES = 6
"""COPY lines that a person would write for one directory."""
MOST_LINES = 24
"""COPY lines for one directory beyond which it is copied whole, whatever comes along: a layer each, 125 at most."""
MOST_REMOVALS = 12
"""Subtrees that the builder may remove from a directory so that it can be copied whole."""
MOST_EXCEPTIONS = 3
"""Folders of one name that are needed, though all others of that name are removed."""
MOST_SUFFIXES = 8
"""Kinds of files, and names of folders, that it may remove besides, of which nothing in the directory is needed."""
NOTHING_TO_GAIN = 0.05
"""Share of the image that must be saved for a new Dockerfile to be worth it."""
COPIED_PACKAGES = ((8_000_000, 10), (1_000_000, 100))
"""A package whose installation brings more bytes than the first number, and more than the second number times those
that are needed of it, has them copied instead."""
COPIED_DATA_BYTES = 1_000_000
"""Where packages are wanted for files of data alone, these are copied up to this size: that asks no network."""

SHARED = frozenset(
    """
    / /bin /boot /dev /etc /home /lib /lib64 /media /mnt /opt /proc /root /run /sbin /srv /sys /tmp /usr /var
    /usr/bin /usr/lib /usr/lib64 /usr/libexec /usr/sbin /usr/share /usr/src /usr/local /usr/local/bin /usr/local/etc
    /usr/local/lib /usr/local/sbin /usr/local/share /var/cache /var/lib /var/log /var/opt /var/run /var/tmp /var/www
    /etc/opt /etc/alternatives
    """.split()  # noqa: SIM905 - forty names read better as words
)
"""Directories that many things share (FHS 3.0): never copied whole."""

OWN_OF_EACH = frozenset({"/etc/ld.so.cache", "/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow"})
"""Files that every image has of its own and that serve there; accounts that are lacking are added."""

LOADED = frozenset({"needed", "interpreter", "plugin", "symlink", "hard-link"})
"""Kinds of edges along which a file becomes part of a process, or is another name of what does."""

GROUPS = ("OS and runtime", "dependencies", "application")
"""What is copied, least to most volatile, so that a change of the application rebuilds only the last."""
_GROUP_OF = {"dependencies": 1, "dev-dependencies": 1, "app": 2, "other": 2, "sources": 2, "tests": 2}

_OF_THE_BUILD = frozenset({"sources", "compilers", "headers", "dev-dependencies", "package-cache"})

_ASIDE_CATEGORIES = frozenset({"tests", "docs", "headers", "static-libs"})
"""What folders are removed for by their name."""
MOST_UNINSTALLED = 20
"""Subtrees of installed packages that are removed in the step that installs them."""
_SPARE_CATEGORIES = frozenset({"tests", "headers", "static-libs", "dependencies"})
"""What packages bring for builds and tests alone, and packages of languages, which are needed whole or not at all."""

IGNORED_CATEGORIES = frozenset({"vcs", "logs-temp", "secrets", "package-cache", "docs"})
"""Categories of files that no build step needs: where COPY brought them in, .dockerignore keeps them out."""
IGNORED_NAMES = frozenset(
    {"node_modules", "__pycache__", ".venv", "venv", ".pytest_cache", ".idea", ".vscode", "coverage"}
)


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """A subtree that is not shipped, and why."""

    path: ImagePath
    size_bytes: int
    category: str
    reason: str


@dataclass(frozen=True, slots=True)
class Swept:
    """Files of one directory, at any depth, that are not shipped because of what they or their folders are named."""

    directory: ImagePath
    suffixes: tuple[str, ...]
    """``.d.ts``, ``.md`` …: no file that is needed there ends so."""
    size_bytes: int
    files: int
    folders: tuple[str, ...] = ()
    """``tests``, ``docs`` …, in place of suffixes: nothing that is needed lies in a folder of that name …"""
    but: tuple[ImagePath, ...] = ()
    """… but for these few."""


@dataclass(frozen=True, slots=True)
class Copy:
    """One COPY: a directory with all that is in it, or files of one directory."""

    sources: tuple[ImagePath, ...]
    target: ImagePath
    """Where it goes: for a directory its own path, for files the directory that holds them."""
    size_bytes: int
    files: int
    reason: str
    group: int
    """Index into GROUPS."""
    whole: bool
    """Whether the one source is a directory."""
    unneeded_bytes: int = 0
    """Bytes that come along though nothing needs them."""
    owner: tuple[int, int] | None = None
    """Numeric user and group of everything in it where that is one and not root's."""
    image: str | None = None
    """Another image that it comes from; None for the one that is planned for."""


@dataclass(frozen=True, slots=True)
class Made:
    """Something the runtime stage makes itself: a directory, a link, or the attributes of what COPY made."""

    path: ImagePath
    kind: str
    """``directory``, ``symlink`` or ``attributes``."""
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    link_target: str = ""


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another runtime image that would do."""

    runtime_image: str
    estimated_bytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class Totals:
    """Bytes by verdict: what COPY brings, the runtime image's own, what packages bring, what is dropped."""

    copy_bytes: int
    base_bytes: int
    package_bytes: int
    drop_bytes: int


@dataclass(slots=True)
class Plan:
    """What to ship of an image, and on what. Made by :func:`make_plan`."""

    needs: Needs = field(repr=False)
    runtime: str
    """``base`` or ``scratch``."""
    base: Base | None
    base_reason: str
    verdicts: dict[ImagePath, Verdict] = field(repr=False)
    """Every live path that is not dropped; directories and links too."""
    reasons: dict[ImagePath, Edge] = field(repr=False)
    """Why a path is shipped that nothing needs."""
    copies: tuple[Copy, ...]
    made: tuple[Made, ...]
    os_packages: tuple[str, ...]
    """Names to install, without those that others bring as dependencies."""
    os_packages_all: tuple[Package, ...] = field(repr=False)
    """Everything that installing them brings."""
    install_line: str | None
    uninstalled: tuple[LeftBehind, ...]
    """Subtrees of installed packages that are removed in the same step: tests, headers, modules nobody imports."""
    accounts: tuple[tuple[str, str], ...]
    """Lines that /etc/passwd and /etc/group of the runtime image lack: (file, line)."""
    improvements: tuple[Improvement, ...]
    removals: tuple[LeftBehind, ...]
    """Subtrees that the builder stage removes, so that the directory around them can be copied whole."""
    swept: tuple[Swept, ...]
    """Kinds of files that it removes besides."""
    dropped: tuple[LeftBehind, ...]
    totals: Totals
    live_bytes: int
    layer_bytes: int
    """Σ layer bytes of the image as it is."""
    estimated_bytes: int
    dockerignore: tuple[str, ...]
    alternatives: tuple[Alternative, ...]
    rewrites: dict[ImagePath, bytes] = field(repr=False)
    """Package databases as a slim image has them."""
    warnings: tuple[str, ...]
    diagnostics: tuple[Diagnostic, ...] = field(repr=False)
    exchange: Exchange | None = field(default=None, repr=False)
    """Another program that is shipped instead of the image's own."""

    @property
    def config(self) -> ImageConfig:
        """How the result is to run."""
        return self.needs.config if self.exchange is None else self.exchange.config

    @property
    def fs(self) -> Filesystem:
        """The image's squash."""
        return self.needs.fs

    @property
    def runtime_image(self) -> str:
        """Reference of the runtime image, ``scratch`` without one."""
        return SCRATCH if self.base is None else self.base.reference

    @property
    def saved_bytes(self) -> int:
        """Layer bytes of the image less those of the result; negative where it would grow."""
        return self.layer_bytes - self.estimated_bytes

    @property
    def saved_ratio(self) -> float:
        """Share of the image's layer bytes that is saved."""
        return self.saved_bytes / self.layer_bytes if self.layer_bytes else 0.0

    @property
    def nothing_to_gain(self) -> bool:
        """Whether the image is as good as slim already."""
        return self.saved_ratio < NOTHING_TO_GAIN

    def verdict(self, path: ImagePath) -> Verdict:
        """What becomes of a live path."""
        return self.verdicts.get(path, "drop")

    def chain(self, path: ImagePath) -> list[Edge]:
        """Why a path is shipped: the edges from a root to it; empty where it is dropped."""
        if path in self.needs.kept:
            return self.needs.chain(path)
        edge = self.reasons.get(path)
        return [] if edge is None else [*self.needs.chain(edge.source), edge]

    def to_dict(self) -> dict[str, Any]:
        """The plan as `recommend --format json` prints it, but for the texts."""
        return {
            "runtime": self.runtime,
            "runtime_image": self.runtime_image,
            "copies": self.copies_dict(),
            "os_packages": list(self.os_packages),
            "totals": {
                "copy_bytes": self.totals.copy_bytes,
                "base_bytes": self.totals.base_bytes,
                "package_bytes": self.totals.package_bytes,
                "drop_bytes": self.totals.drop_bytes,
            },
            "dropped": [_left_behind_row(tree) for tree in self.dropped],
            "removed_in_builder": [
                *(_left_behind_row(tree) for tree in self.removals),
                *(_swept_row(kind) for kind in self.swept),
            ],
            "removed_after_install": [_left_behind_row(tree) for tree in self.uninstalled],
            "improvements": [{"line": i.line, "reason": i.reason} for i in self.improvements],
            "exchange": None if self.exchange is None else _exchange_row(self.exchange),
            "estimated_bytes": self.estimated_bytes,
            "saved_bytes": self.saved_bytes,
            "saved_ratio": self.saved_ratio,
            "nothing_to_gain": self.nothing_to_gain,
            "alternatives": [
                {
                    "runtime_image": other.runtime_image,
                    "estimated_bytes": other.estimated_bytes,
                    "reason": other.reason,
                }
                for other in self.alternatives
            ],
            "dockerignore": [display(line) for line in self.dockerignore],
            "warnings": [display(line) for line in self.warnings],
            "diagnostics": [diagnostic_row(diagnostic) for diagnostic in self.diagnostics],
        }

    def copies_dict(self) -> list[dict[str, Any]]:
        """The copies as the report has them: a row for each source."""
        fs = self.fs
        rows: list[dict[str, Any]] = []
        for copy in self.copies:
            gathered = copy.image is not None or (self.base is None and self.exchange is None)
            for source in ("/",) if gathered else copy.sources:
                reason = (
                    f"{GROUPS[copy.group]}, {copy.files} files: {copy.reason}" if gathered else copy.reason
                )
                rows.append(
                    {
                        "source": display(source),
                        "target": display(
                            copy.target if copy.whole or gathered else f"{copy.target.rstrip('/')}/"
                        ),
                        "size_bytes": copy.size_bytes if copy.whole or gathered else fs.size(source),
                        "reason": display(reason),
                        "image": copy.image,
                    }
                )
        return rows


def _left_behind_row(tree: LeftBehind) -> dict[str, Any]:
    return {
        "path": display(tree.path),
        "size_bytes": tree.size_bytes,
        "category": tree.category,
        "reason": tree.reason,
    }


def _swept_row(kind: Swept) -> dict[str, Any]:
    names = " ".join([*(f"{name}/" for name in kind.folders), *(f"*{suffix}" for suffix in kind.suffixes)])
    return {
        "path": display(f"{kind.directory}/**/{names}"),
        "size_bytes": kind.size_bytes,
        "category": "other",
        "reason": f"{kind.files} files: nothing that is kept there is named so",
    }


def _exchange_row(exchange: Exchange) -> dict[str, Any]:
    return {
        "server_image": exchange.server.reference,
        "root": display(exchange.root),
        "folder": display(exchange.hosting.folder),
        "port": exchange.site.port,
        "single_page": exchange.site.single_page,
        "command": list(exchange.hosting.command),
        "files": {display(path): text for path, text in sorted(exchange.hosting.files.items())},
        "reason": display(exchange.reason),
    }


def is_static(needs: Needs) -> bool:
    """Whether nothing that is kept asks for a dynamic loader or an interpreter: such programs run on scratch."""
    return not any(edge.kind in ("interpreter", "needed", "script") for edge in needs.edges)


def make_plan(
    needs: Needs,
    *,
    base: Base | None,
    choice: Choice,
    layer_bytes: int,
    instructions: Sequence[Instruction] = (),
    musl: Iterable[Base] = (),
    warnings: Iterable[str] = (),
    exchange: Exchange | None = None,
) -> Plan:
    """The plan that ships what ``needs`` keeps on ``base``, or on nothing where that is None.

    ``choice`` is where the base came from, ``instructions`` the image's history and ``musl`` bases of the same family
    that would be offered beside it; they are asked for only where they would do. With ``exchange``, ``needs`` and
    ``base`` are those of that.

    Raises:
        UsageError: the base has another libc than the files that would be copied onto it.
    """
    return _Planner(needs, base, choice, layer_bytes, instructions, musl, warnings, exchange).plan()


class _Planner:
    """The steps of one plan."""

    def __init__(
        self,
        needs: Needs,
        base: Base | None,
        choice: Choice,
        layer_bytes: int,
        instructions: Sequence[Instruction],
        musl: Iterable[Base],
        warnings: Iterable[str],
        exchange: Exchange | None,
    ) -> None:
        self.needs, self.base, self.choice, self.exchange = needs, base, choice, exchange
        self.fs, self.attribution = needs.fs, needs.attribution
        self.layer_bytes, self.instructions, self.musl = layer_bytes, instructions, musl
        self.warnings = [*(exchange.warnings() if exchange is not None else ()), *warnings]
        self.verdicts: dict[ImagePath, Verdict] = {}
        self.reasons: dict[ImagePath, Edge] = {}
        self.installed: list[Package] = []
        self.os_names: tuple[str, ...] = ()
        self.install_line: str | None = None
        self.uninstalled: list[LeftBehind] = []
        self.improvements = self._improvements()
        self.covered = tuple(f"{covered}/" for step in self.improvements for covered in step.covers)
        self.removals: list[LeftBehind] = []
        self.swept: list[Swept] = []
        self.swept_files: set[ImagePath] = set()
        self.tree = _Tree(self)

    def plan(self) -> Plan:
        """All of it."""
        self._judge()
        self._ship_packages()
        copies = _Copies(self).found()
        self._ship_along(copies)
        self._ship_base()
        made = tuple(self._made(copies))
        totals = self._totals()
        estimated = totals.copy_bytes + totals.base_bytes + totals.package_bytes
        if self.exchange is not None:
            estimated += self.exchange.written_bytes
        self.warnings.extend(self._late_warnings())
        return Plan(
            needs=self.needs,
            runtime=SCRATCH if self.base is None else "base",
            base=self.base,
            base_reason=self.choice.reason,
            verdicts=self.verdicts,
            reasons=self.reasons,
            copies=tuple(copies),
            made=made,
            os_packages=self.os_names,
            os_packages_all=tuple(self.installed),
            install_line=self.install_line,
            uninstalled=tuple(self.uninstalled),
            accounts=tuple(self._accounts()),
            improvements=tuple(self.improvements),
            removals=tuple(self.removals),
            swept=tuple(self.swept),
            dropped=tuple(self._dropped()),
            totals=totals,
            live_bytes=self.attribution.live_bytes,
            layer_bytes=self.layer_bytes,
            estimated_bytes=estimated,
            dockerignore=tuple(self._dockerignore()),
            alternatives=tuple(self._alternatives(totals)),
            rewrites=self._rewrites(),
            warnings=tuple(self.warnings),
            diagnostics=tuple(self.needs.diagnostics),
            exchange=self.exchange,
        )

    def _late_warnings(self) -> Iterator[str]:
        """What the plan cannot know, or cannot say in a Dockerfile."""
        base = self.base
        if base is not None and not base.opened:
            yield (
                f"{base.reference} could not be opened: its size is the catalogue's ({base.source}), and which of "
                "the needed files it holds is assumed"
            )
            assumed = self._assumed_packages(base)
            if assumed:
                yield (
                    f"{base.reference} is assumed to have these packages, of which something is needed; install "
                    f"what it lacks: {' '.join(assumed)}"
                )
        config = self.needs.config if self.exchange is None else self.exchange.config
        for what in inexpressible(config):
            yield f"a Dockerfile cannot say {what}: it is left out"

    def _assumed_packages(self, base: Base) -> list[str]:
        """OS packages of which something is needed; with another C library those alone that hold no code."""
        code: set[str] = set()
        found: set[str] = set()
        for path in self.needs.kept:
            owner = self.attribution.owner_of(path)
            if owner is not None and owner.is_os and self.fs.type_of(path) == _FILE:
                found.add(owner.name)
                if self.needs.view.head(path)[:4] == b"\x7fELF":
                    code.add(owner.name)
        libcs = {base.libc, libc_of(self.fs)} - {None}
        return sorted(found - code if len(libcs) > 1 else found)

    # -- verdicts ------------------------------------------------------------------------------------------

    def _judge(self) -> None:
        """A verdict for every needed path; packages are settled afterwards."""
        if self.base is None or self.exchange is not None:
            self.verdicts.update(dict.fromkeys(self.needs.kept, "copy"))
            return
        for path in self.needs.kept:
            self.verdicts[path] = self._judged(path, self.base)
        self._leave_to_other_libc(self.base)

    def _leave_to_other_libc(self, base: Base) -> None:
        """On a base with another libc, leave to it what it has of its own: not the same files, but the same use.

        That is files of the builder's system which are bound to its libc and which only a program needs that the base
        has as well: the family's interpreter with its libraries, the shell. And links of a merged /usr where the base
        has a directory.
        """
        libc = None if base.fs is None else libc_of(base.fs)
        if libc is None or base.fs is None or libc_of(self.fs) in (None, libc):
            return
        left = set()
        for path, _ in bound_to_other(libc, self.needs, self.verdicts):
            owner = self.attribution.owner_of(path)
            if owner is not None and owner.is_os and self._is_used_by_base(path, base.fs):
                self.verdicts[path] = "base"
                left.add(path)
        for path, verdict in self.verdicts.items():
            if verdict == "copy" and self.fs.type_of(path) == _SYMLINK:
                end = self.fs.follow(path)
                if end in left or (self.fs.is_dir(path) and base.fs.is_dir(path)):
                    self.verdicts[path] = "base"
        self._leave_what_only_those_need(left)

    def _leave_what_only_those_need(self, left: set[ImagePath]) -> None:
        """The other libc's own loader, configuration and caches, which nothing but what is left to the base reads."""
        sources: dict[ImagePath, set[ImagePath]] = {}
        asked_for = set()
        for edge in self.needs.edges:
            sources.setdefault(edge.target, set()).add(edge.source)
            if edge.kind not in LOADED and edge.kind not in ("config", "data"):
                asked_for.add(edge.target)  # a program that is run, say by the shell that is left to the base
        waiting = [p for p, verdict in self.verdicts.items() if verdict == "copy" and p not in asked_for]
        found = True
        while found:
            found = False
            for path in waiting:
                by = self._through_links(path, sources)
                if path not in left and by & left and all(self.verdicts.get(one) == "base" for one in by):
                    self.verdicts[path] = "base"
                    left.add(path)
                    found = True

    def _through_links(
        self, path: ImagePath, sources: Mapping[ImagePath, Collection[ImagePath]]
    ) -> set[ImagePath]:
        """What needs a path, by whatever links."""
        found: set[ImagePath] = set()
        seen, stack = {path}, [path]
        while stack:
            for source in sources.get(stack.pop(), ()):
                if source not in seen:
                    seen.add(source)
                    if self.fs.type_of(source) == _SYMLINK:
                        stack.append(source)
                    else:
                        found.add(source)
        return found

    def _is_used_by_base(self, path: ImagePath, other: Filesystem) -> bool:
        """Whether a path, or the program that it is loaded into, is one that the base has of its own."""
        for edge in reversed(self.needs.chain(path)):
            one = edge.target
            under_usr = one if one.startswith("/usr/") else f"/usr{one}"
            owner = self.attribution.owner_of(one)
            own = in_tree(one, self.choice.tree) or (owner is not None and owner.is_os)
            if own and (other.is_file(under_usr) or other.is_file(under_usr.removeprefix("/usr"))):
                return True
            if edge.kind not in LOADED:
                return False
        return False

    def _judged(self, path: ImagePath, base: Base) -> Verdict:
        owner = self.attribution.owner_of(path)
        if base.fs is None:  # only its size is known: what the system and the family bring is assumed there
            system = (owner is not None and owner.is_os) or self.fs.layer_of(path) in self.base_layers
            return "base" if system or in_tree(path, self.choice.tree) else "copy"
        if self._base_has(path, base.fs, owner) or self._is_derived(path, base.fs):
            return "base"
        if owner is None or not owner.is_os:
            by = self._generated(path)
            return "copy" if by is None else ("base" if by in base.os_packages else "package")
        if owner.name in base.os_packages or owner.ecosystem not in self.installers:
            return "copy"
        return "package"

    def _is_derived(self, path: ImagePath, other: Filesystem) -> bool:
        """Whether a path is what the family's interpreter made of its own files, which the base has as well."""
        if not in_tree(path, self.choice.tree):
            return False
        for name in self.choice.derived:
            before, found, _ = f"{path}/".partition(f"/{name}/")
            if found:
                made_of = [file for file in other.children.get(before, ()) if "." in file]
                stem = path.rpartition("/")[2].partition(".")[0]
                return path.endswith(f"/{name}") or any(file.partition(".")[0] == stem for file in made_of)
        return False

    def _base_has(self, path: ImagePath, other: Filesystem, owner: Package | None) -> bool:
        fs = self.fs
        kind = fs.type_of(path)
        if other.type_of(path) != kind:
            return False
        if kind == _DIR:
            return True
        if (
            owner is not None
            and owner.is_os
            and self.base is not None
            and owner.name in self.base.os_packages
        ):
            return True
        if in_tree(path, self.choice.tree):
            return True
        if path in OWN_OF_EACH:
            return True
        return self._is_same(path, other)

    def _is_same(self, path: ImagePath, other: Filesystem) -> bool:
        """Whether the base has the same link, or a file of the same content, at a path."""
        fs = self.fs
        kind = fs.type_of(path)
        if other.type_of(path) != kind:
            return False
        if kind == _SYMLINK:
            return fs.entry(path).link_target == other.entry(path).link_target
        if kind != _FILE:
            return True
        if fs.size(path) != other.size(path):
            return False
        gid, theirs = fs.payload_gid(path), other.payload_gid(path)
        return gid is not None and theirs is not None and fs.digest(gid) == other.digest(theirs)

    def _generated(self, path: ImagePath) -> str | None:
        """The OS package whose maintainer scripts make this path, where it is installed or in the base."""
        for found in self.installers.values():
            if isinstance(found, Unpacks):
                name = found.generated_by(self.fs, path)
                if name is not None:
                    return name
        return None

    @cached_property
    def base_layers(self) -> frozenset[int]:
        """The layers of the image that the builder's Dockerfile began with."""
        return frozenset(i.layer for i in self.instructions if i.from_base and i.layer is not None)

    @cached_property
    def installers(self) -> dict[str, Installs]:
        """What can install the image's OS packages in the base, by the name of their ecosystem."""
        if self.base is None:
            return {}
        names = sorted({package.ecosystem for package in self.attribution.packages if package.is_os})
        return {name: found for name in names if (found := installer(self.fs, self.base, name)) is not None}

    def _ship_packages(self) -> None:
        """Settle which OS packages are installed; what is cheaper to copy is copied."""
        if self.base is None or self.base.fs is None:
            return
        wanted = self._wanted_packages()
        os_packages = [package for package in self.attribution.packages if package.is_os]
        ecosystem = next((package.ecosystem for package in os_packages if package.name in wanted), None)
        found, present = self.installers.get(ecosystem or ""), self.base.os_packages

        def brought(names: Iterable[str]) -> list[Package]:
            return [] if found is None else found.closure(names, os_packages, present)

        names = self._worth_installing(wanted, brought)
        self.installed = brought(names)
        by_installing = {package.name for package in self.installed}
        for path, verdict in list(self.verdicts.items()):
            if verdict == "package" and self._brings(path) not in by_installing:
                self.verdicts[path] = "copy"
        if found is None or not self.installed:
            return
        top = [
            name
            for name in names
            if all(name != package.name for package in brought(other for other in names if other != name))
        ]
        # Packages that need each other in a circle would all be left out: then every name is written.
        covered = {package.name for package in brought(top)}
        self.os_names = tuple(top if by_installing <= covered else names)
        self.install_line = found.install_lines(self.os_names)
        self.uninstalled = self._uninstalled()
        self._ship_installed()

    def _brings(self, path: ImagePath) -> str | None:
        """The package by whose installation a path comes."""
        owner = self.attribution.owner_of(path)
        return owner.name if owner is not None and owner.is_os else self._generated(path)

    def _wanted_packages(self) -> dict[str, list[ImagePath]]:
        """The needed paths of each package that could be installed, by name."""
        known = {package.name for package in self.attribution.packages if package.is_os}
        found: dict[str, list[ImagePath]] = {}
        for path, verdict in self.verdicts.items():
            name = self._brings(path) if verdict == "package" else None
            if name in known:
                found.setdefault(str(name), []).append(path)
        return dict(sorted(found.items()))

    def _worth_installing(
        self, wanted: Mapping[str, Sequence[ImagePath]], brought: Callable[[Iterable[str]], Sequence[Package]]
    ) -> list[str]:
        """The packages to install: not those that bring much more than is needed of them, nor a few files of data."""
        files = {name: [p for p in paths if self.fs.type_of(p) == _FILE] for name, paths in wanted.items()}
        needed = {name: sum(map(self.fs.size, paths)) for name, paths in files.items()}
        packages = zip(self.attribution.packages, self.attribution.package_bytes, strict=True)
        sizes = {id(package): size for package, size in packages}
        closures = {name: {package.name for package in brought([name])} for name in wanted}
        names = list(wanted)
        for name in wanted:
            # With a package go those that depend on it: as long as one of them is installed, it comes too.
            group = [other for other in names if name in closures[other]]
            others = [other for other in names if other not in group]
            with_it = {id(package) for package in brought(names)}
            brings = sum(sizes[one] for one in with_it - {id(package) for package in brought(others)})
            used = max(sum(needed[other] for other in group), 1)
            if any(brings > size and brings > factor * used for size, factor in COPIED_PACKAGES):
                names = others
        is_data = all(self.needs.view.head(path)[:4] != b"\x7fELF" for name in names for path in files[name])
        return [] if is_data and sum(needed[name] for name in names) <= COPIED_DATA_BYTES else names

    def _uninstalled(self) -> list[LeftBehind]:
        """The largest subtrees of the installed packages that hold nothing but what builds, tests and others use."""
        fs, category_of = self.fs, self.attribution.category_of

        def is_spare(path: ImagePath) -> bool:
            return path not in self.needs.kept and category_of(path) in _SPARE_CATEGORIES

        spare = [
            path
            for package in self.installed
            for path in package.paths
            if fs.type_of(path) == _FILE and is_spare(path)
        ]
        if sum(map(fs.size, spare)) < OF_NOTE_BYTES:
            return []
        others = self.tree.sums(lambda path: not is_spare(path))
        tops: set[ImagePath] = set()
        for path in spare:
            above = path.rpartition("/")[0]
            top = None
            while above and above not in SHARED and not others.get(above):
                top, above = above, above.rpartition("/")[0]
            if top is not None:
                tops.add(top)
        trees = [self._left_behind(top, self.tree.all_bytes(top)) for top in tops]
        trees = [tree for tree in trees if tree.size_bytes >= COMES_ALONG_BYTES // 2]
        return sorted(trees, key=lambda tree: (-tree.size_bytes, tree.path))[:MOST_UNINSTALLED]

    def _ship_installed(self) -> None:
        """What comes along with the packages that are installed."""
        fs = self.fs
        gone = tuple(f"{tree.path}/" for tree in self.uninstalled)
        first_needed: dict[int, ImagePath] = {}
        for path in self.needs.kept:
            owner = self.attribution.owner_of(path)
            if owner is not None:
                first_needed.setdefault(id(owner), path)
        for package in self.installed:
            source = first_needed.get(id(package), "FROM")
            for path in package.paths:
                if path.startswith(gone):
                    continue
                if path in fs.live and path not in self.verdicts and fs.type_of(path) != _DIR:
                    self.verdicts[path] = "package"
                    self.reasons[path] = Edge(
                        source,
                        path,
                        "package",
                        f"the package {package.name} is installed whole",
                        "certain",
                    )

    def _ship_along(self, copies: Sequence[Copy]) -> None:
        """What a directory that is copied whole brings along."""
        fs = self.fs
        removed = tuple(f"{tree.path}/" for tree in self.removals)
        for copy in copies:
            if not copy.whole:
                continue
            top = copy.sources[0]
            needed = next((p for p in fs.walk(top) if p in self.needs.kept), top)
            for path in (top, *fs.walk(top)):
                if (
                    path in self.needs.kept
                    or path in self.swept_files
                    or f"{path}/".startswith(removed)
                    or self._is_improved(path)
                ):
                    continue
                self.verdicts[path] = "copy"
                self.reasons[path] = Edge(
                    needed, path, "comes-along", f"COPY {top} brings the directory whole", "assumed"
                )

    def _ship_base(self) -> None:
        """What the runtime image has anyway."""
        if self.base is None or self.base.fs is None:
            return
        fs, other = self.fs, self.base.fs
        for path in other.live:
            if path == "/" or path in self.verdicts or path not in fs.live:
                continue
            kind = fs.type_of(path)
            if other.type_of(path) != kind or (kind == _FILE and fs.size(path) != other.size(path)):
                continue
            self.verdicts[path] = "base"
            self.reasons[path] = Edge("FROM", path, "base", f"{self.base.reference} has it", "certain")

    def _is_improved(self, path: ImagePath) -> bool:
        """Whether a step that improves the builder removes the path."""
        return path.startswith(self.covered) and self.attribution.category_of(path) == "dev-dependencies"

    def _improvements(self) -> list[Improvement]:
        """What the builder could do better; nothing that would take away what is needed."""
        if self.base is None or self.exchange is not None:
            return []
        kept = [path for path in self.needs.kept if self.attribution.category_of(path) == "dev-dependencies"]
        return [
            step
            for ecosystem in ecosystems()
            if isinstance(ecosystem, Improves)
            for step in ecosystem.improvements(self.needs.view)
            if not any(path.startswith(f"{covered}/") for covered in step.covers for path in kept)
        ]

    # -- the rest of the runtime stage -----------------------------------------------------------------------

    def _made(self, copies: Sequence[Copy]) -> Iterator[Made]:
        """Links that COPY would follow, empty directories, and attributes that COPY does not bring."""
        if self.base is None:
            return
        fs, other = self.fs, self.base.fs
        whole = {copy.sources[0] for copy in copies if copy.whole}
        targets = {copy.target for copy in copies}
        brought = targets | _above(targets)
        there = _above(path for path, verdict in self.verdicts.items() if verdict in ("base", "package"))
        for path in sorted(self.needs.kept):
            if self.verdicts[path] != "copy" or _inside(path, whole):
                continue
            kind = fs.type_of(path)
            if kind == _SYMLINK:
                yield Made(path, "symlink", link_target=fs.entry(path).link_target or "")
            elif kind == _DIR and path not in there and path not in brought and not self._is_leftover(path):
                entry = fs.entry(path)
                yield Made(path, "directory", entry.mode & 0o7777, entry.uid, entry.gid)
        for path in sorted(brought):
            if (other is not None and other.is_dir(path)) or not fs.is_dir(path):
                continue
            entry = fs.entry(path)
            if (entry.mode & 0o7777, entry.uid, entry.gid) != (0o755, 0, 0):
                yield Made(path, "attributes", entry.mode & 0o7777, entry.uid, entry.gid)

    @cached_property
    def listed_folders(self) -> Mapping[ImagePath, str]:
        """The directories that OS packages list without a file in them, and whose they are."""
        packages = (package for package in self.attribution.packages if package.is_os)
        return {p: package.name for package in packages for p in package.paths if self.fs.type_of(p) == _DIR}

    def _is_leftover(self, path: ImagePath) -> bool:
        """Whether a directory that is merely named would be empty, and nobody misses it.

        That is one that holds nothing but what only the build had use for, or one of an OS package that is installed
        anyway, or where nothing is written (FHS 3.0, 5: what varies is below /var).
        """
        if self.needs.kept[path].certainty == "certain":
            return False
        owner = self.listed_folders.get(path)
        if owner is not None:
            present = {package.name for package in self.installed}
            return not path.startswith("/var/") or owner in present
        return self.tree.all_bytes(path) > 0 and self.attribution.category_of(path) in _OF_THE_BUILD

    def _accounts(self) -> Iterator[tuple[str, str]]:
        """Lines of passwd(5) and group(5) that what is shipped needs and the base lacks."""
        if self.base is None or self.exchange is not None:
            return
        fs, other = self.fs, self.base.fs
        users, groups = _accounts_of(fs, "/etc/passwd"), _accounts_of(fs, "/etc/group")
        known_users = {} if other is None else _accounts_of(other, "/etc/passwd")
        known_groups = {} if other is None else _accounts_of(other, "/etc/group")
        user, _, group = (self.needs.config.user or "").partition(":")
        uids, gids = {0}, {0}
        for path, verdict in self.verdicts.items():
            if verdict == "copy":
                entry = fs.entry(path)
                uids.add(entry.uid)
                gids.add(entry.gid)
        wanted = [
            row for row in users.values() if row[0] == user or row[2] == user or _number(row[2]) in uids
        ]
        gids |= {_number(row[3]) for row in wanted if len(row) > 3}
        installed = {package.name for package in self.installed}
        if other is None:  # every image has root
            known_users, known_groups = {"root": []}, {"root": []}
        for row in wanted:
            if row[0] not in known_users and row[0] not in installed:
                yield "/etc/passwd", ":".join(row)
        for row in groups.values():
            member = any(name in row[3].split(",") for name in [user] if name and len(row) > 3)
            if (_number(row[2]) in gids or row[0] == group or member) and row[0] not in known_groups:
                yield "/etc/group", ":".join(row)

    def _totals(self) -> Totals:
        attribution = self.attribution
        sums: Counter[str] = Counter()
        generated = 0
        for gid, paths in _payloads(self.fs):
            shipped = next((self.verdicts[path] for path in paths if path in self.verdicts), "drop")
            sums[shipped] += attribution.sizes[gid]
            if shipped == "package" and attribution.owner_of(paths[0]) is None:
                generated += attribution.sizes[gid]
        package_bytes = sum(self._package_bytes(package) for package in self.installed) + generated
        if self.installed and self.base is not None and self.base.fs is not None:
            found = self.installers[self.installed[0].ecosystem]
            if isinstance(found, Unpacks):
                package_bytes += found.overhead_bytes(self.fs, self.base.fs, self.installed)
        return Totals(
            copy_bytes=sums["copy"],
            base_bytes=self._base_bytes(),
            package_bytes=package_bytes,
            drop_bytes=sums["drop"],
        )

    def _base_bytes(self) -> int:
        if self.base is not None:
            return self.base.size_bytes
        return 0 if self.exchange is None else sum(self.exchange.server_files().values())

    def _package_bytes(self, package: Package) -> int:
        """What installing a package adds: its files, but for those that the base's own rules leave out."""
        fs, base = self.fs, self.base
        assert base is not None and base.fs is not None, "packages are installed in bases that were opened"
        found = self.installers[package.ecosystem]
        gone = tuple(f"{tree.path}/" for tree in self.uninstalled)
        total = 0
        for path in package.paths:
            if fs.type_of(path) != _FILE or path.startswith(gone):
                continue
            if not isinstance(found, Unpacks) or found.would_unpack(base.fs, path):
                total += fs.size(path)
        return total

    def _dropped(self) -> Iterator[LeftBehind]:
        """The largest subtrees that are dropped whole, at most 25."""
        tree = self.tree
        found: list[LeftBehind] = []
        shipped = tree.sums(lambda path: self.verdicts.get(path, "drop") != "drop")
        stack = [""]
        while stack:
            folder = stack.pop()
            for name in self.fs.children.get(folder, ()):
                path = f"{folder}/{name}"
                if path not in self.fs.children:
                    size = self.fs.size(path) if self.fs.type_of(path) == _FILE else 0
                    if size >= OF_NOTE_BYTES and self.verdicts.get(path, "drop") == "drop":
                        found.append(self._left_behind(path, size))
                elif tree.all_bytes(path) >= OF_NOTE_BYTES:
                    if shipped.get(path, 0) == 0 and path not in SHARED:
                        found.append(self._left_behind(path, tree.all_bytes(path)))
                    else:
                        stack.append(path)
        found.sort(key=lambda one: (-one.size_bytes, one.path))
        yield from found[:25]

    def _left_behind(self, path: ImagePath, size: int) -> LeftBehind:
        category = self.attribution.category_of(path) or "other"
        owner = self.attribution.owner_of(path)
        whose = f" of {owner.name}" if owner is not None else ""
        return LeftBehind(path, size, category, f"{category}{whose}: nothing that is kept needs it")

    def _dockerignore(self) -> Iterator[str]:
        """Paths, as the build context has them, that COPY brought in and neither program nor build needs."""
        lines: set[str] = set()
        for instruction in self.instructions:
            keyword, _, rest = instruction.text.partition(" ")
            if instruction.from_base or instruction.layer is None or keyword != "COPY" or "--from" in rest:
                continue
            lines |= self._ignorable(instruction.layer)
        yield from sorted(lines)

    def _ignorable(self, layer: int) -> set[str]:
        fs, index = self.fs, self.fs.indexes[layer]
        tops = {p for p, kind in zip(index.paths, index.types, strict=True) if kind == _DIR}
        files = [p for p, kind in zip(index.paths, index.types, strict=True) if kind == _FILE]
        # The context's own root: the deepest directory that holds everything the layer brought.
        root = _common(files)
        found: set[str] = set()
        for path in files:
            if self.verdicts.get(path, "drop") != "drop" or path not in fs.live:
                continue
            inside = path[len(root) :].strip("/").split("/")
            named = next((n for n, part in enumerate(inside[:-1]) if part in IGNORED_NAMES), None)
            if named is not None:
                found.add("/".join(inside[: named + 1]))
            elif self.attribution.category_of(path) in IGNORED_CATEGORIES:
                parts = inside
                while len(parts) > 1 and self._all_ignorable(f"{root}/{'/'.join(parts[:-1])}", tops):
                    parts = parts[:-1]
                found.add("/".join(parts))
        return found

    def _all_ignorable(self, directory: ImagePath, tops: set[ImagePath]) -> bool:
        subtree = self.attribution.subtrees.get(directory)
        if subtree is None or directory not in tops:
            return False
        return all(CATEGORIES[category] in IGNORED_CATEGORIES for category in subtree.categories)

    def _alternatives(self, totals: Totals) -> Iterator[Alternative]:
        """musl bases of the family, where nothing that is copied is bound to glibc and no package is installed."""
        if self.base is None or self.installed or bound_to_other("musl", self.needs, self.verdicts):
            return
        written = 0 if self.exchange is None else self.exchange.written_bytes
        for base in self.musl:
            if base.reference != self.base.reference:
                reason = "nothing that is copied is bound to glibc"
                if not base.opened:
                    reason += f"; it could not be opened, and its size is the catalogue's ({base.source})"
                yield Alternative(base.reference, base.size_bytes + totals.copy_bytes + written, reason)

    def _rewrites(self) -> dict[ImagePath, bytes]:
        """Package databases cut to the packages of which something is kept."""
        if self.base is not None or self.exchange is not None:
            return {}
        kept: dict[str, dict[int, Package]] = {}
        for path in self.needs.kept:
            owner = self.attribution.owner_of(path)
            if owner is not None and self.fs.type_of(path) == _FILE:
                kept.setdefault(owner.ecosystem, {})[id(owner)] = owner
        found: dict[ImagePath, bytes] = {}
        for ecosystem in ecosystems():
            if isinstance(ecosystem, Reduces) and ecosystem.name in kept:
                packages = sorted(
                    kept[ecosystem.name].values(), key=lambda package: (package.name, package.version)
                )
                found.update(ecosystem.reduced(self.fs, packages))
        return found


class _Tree:
    """Sums over the live tree, each payload at its first name."""

    def __init__(self, planner: _Planner) -> None:
        self.fs = planner.fs
        self.attribution = planner.attribution

    def all_bytes(self, path: ImagePath) -> int:
        """Payload bytes below a directory."""
        subtree = self.attribution.subtrees.get("" if path == "/" else path)
        return 0 if subtree is None else subtree.size_bytes

    def sums_of(self, paths: Iterable[ImagePath]) -> dict[ImagePath, int]:
        """As :meth:`sums`, of these paths alone."""
        found: dict[ImagePath, int] = {}
        for path in paths:
            if path in self.fs.children:
                continue
            gid = self.fs.live.get(path, -1)
            size = 1 + (self.attribution.sizes[self.fs.inode.get(gid, gid)] if gid >= 0 else 0)
            while path:
                path = path.rpartition("/")[0]
                found[path] = found.get(path, 0) + size
        return found

    def sums(self, counts: Callable[[ImagePath], bool]) -> dict[ImagePath, int]:
        """Bytes (and one for each entry) of what ``counts`` says yes to, by directory."""
        sizes = self.attribution.sizes
        found: dict[ImagePath, int] = {}
        for directory, names in reversed(self.fs.children.items()):
            total = found.get(directory, 0)
            for name, gid in names.items():
                path = f"{directory}/{name}"
                if path not in self.fs.children and counts(path):
                    total += 1 + (sizes[self.fs.inode.get(gid, gid)] if gid >= 0 else 0)
            found[directory] = total
            if directory and total:
                parent = directory.rpartition("/")[0]
                found[parent] = found.get(parent, 0) + total
        return found


@dataclass(frozen=True, slots=True)
class _Trimmed:
    """What the builder takes out of a directory before it is copied whole."""

    trees: tuple[LeftBehind, ...] = ()
    swept: tuple[Swept, ...] = ()
    files: frozenset[ImagePath] = frozenset()
    """Those that are swept."""
    swept_outside: int = 0
    """Bytes of those that lie in none of the trees, and one for each."""


class _Copies:
    """The COPY lines: the highest directories that bring nothing unneeded of note."""

    def __init__(self, planner: _Planner) -> None:
        self.p, self.fs = planner, planner.fs
        verdicts, kept = planner.verdicts, planner.needs.kept
        self.wanted = {p for p, v in verdicts.items() if v == "copy" and p in kept}
        if planner.base is not None:
            self.wanted -= planner.needs.second_names()
        self.need = planner.tree.sums_of(self.wanted)
        self.everything = planner.tree.sums(lambda path: not planner._is_improved(path))

    def found(self) -> list[Copy]:
        """The copies, least to most volatile, then by path."""
        if self.p.exchange is not None:
            return self._served(self.p.exchange)
        return self._scratch() if self.p.base is None else self._on_base()

    def _on_base(self) -> list[Copy]:
        copies: list[Copy] = []
        stack = [""]
        while stack:
            folder = stack.pop()
            below, files = [], []
            for name in sorted(self.fs.children.get(folder, ())):
                path = f"{folder}/{name}"
                if path in self.fs.children:
                    below.append(path)
                elif path in self.wanted and self.fs.type_of(path) == _FILE:
                    files.append(path)
            if files:
                copies.append(self._copy(tuple(files), folder or "/", False, 0))
            for path in below:
                if not self.need.get(path):
                    continue
                trimmed = self._whole(path)
                if trimmed is None:
                    stack.append(path)
                    continue
                self.p.removals.extend(trimmed.trees)
                self.p.swept.extend(trimmed.swept)
                self.p.swept_files |= trimmed.files
                copies.append(self._copy((path,), path, True, self._unneeded(path, trimmed)))
        copies.sort(key=lambda copy: (copy.group, copy.sources))
        return copies

    def _served(self, exchange: Exchange) -> list[Copy]:
        """The site, what options name besides, and on scratch the server."""
        root = exchange.root
        site = self._copy((root,), root, True, 0)
        shipped = {root, *self.wanted}
        for path in self.fs.walk(root):
            if path not in self.wanted and path.rpartition("/")[0] in shipped:
                self.p.removals.append(self.p._left_behind(path, self._bytes_at(path)))
        inside = tuple(path for path in self.wanted if path == root or path.startswith(f"{root}/"))
        self.wanted.difference_update(inside)
        self.need = self.p.tree.sums_of(self.wanted)
        found = [*self._on_base(), replace(site, target=exchange.hosting.folder, owner=None)]
        files = exchange.server_files()
        if files:
            size = sum(files.values()) + exchange.written_bytes
            reason = f"{' '.join(exchange.hosting.command)} and what it needs of {exchange.server.reference}"
            found.insert(
                0, Copy(("/",), "/", size, len(files), reason, 0, False, image=exchange.server.reference)
            )
        return found

    def _bytes_at(self, path: ImagePath) -> int:
        if path in self.fs.children:
            return self.p.tree.all_bytes(path)
        return self.fs.size(path) if self.fs.type_of(path) == _FILE else 0

    def _scratch(self) -> list[Copy]:
        """On scratch everything goes in one tree; a row for each group."""
        rows: dict[int, list[ImagePath]] = {}
        for path in sorted(self.wanted):
            if self.fs.type_of(path) == _FILE:
                rows.setdefault(group_of(self.p.attribution.category_of(path)), []).append(path)
        return [self._copy(tuple(rows[group]), "/", False, 0, group) for group in sorted(rows)]

    def _whole(self, path: ImagePath) -> _Trimmed | None:
        """What the builder removes so that a directory can be copied whole; None where it is copied in parts.

        Parts are for what a person would name in a few lines. A directory of many things, as ``node_modules``, is
        copied whole, with what comes along, once its largest unneeded subtrees are removed, and the kinds of
        files of which none is needed.
        """
        if path in SHARED or self._narrower(path):
            return None
        need, extra = self.need[path], self.everything[path] - self.need[path]
        few = max(COMES_ALONG_BYTES, COMES_ALONG_SHARE * need)
        if extra <= min(few, 2 * need) and not self._disturbs(path, _Trimmed()):
            return _Trimmed()
        lines = self._lines(path, MOST_LINES + 1)
        if lines <= FEW_LINES:
            return None
        trimmed = self._trimmed(path)
        if self._disturbs(path, trimmed):
            return None
        too_much = self._unneeded(path, trimmed) > max(few, COMES_ALONG_MOST * need)
        return None if too_much and lines <= MOST_LINES else trimmed

    def _unneeded(self, path: ImagePath, trimmed: _Trimmed) -> int:
        """Bytes that come along with a directory that was trimmed so."""
        gone = sum(self.everything.get(tree.path, tree.size_bytes) for tree in trimmed.trees)
        return max(0, self.everything[path] - self.need[path] - gone - trimmed.swept_outside)

    def _narrower(self, path: ImagePath) -> bool:
        """Whether all that is needed lies in one subdirectory, which is then what is copied."""
        below = [child for name in self.fs.children[path] if self.need.get(child := f"{path}/{name}")]
        own = any(
            f"{path}/{name}" in self.wanted
            for name in self.fs.children[path]
            if f"{path}/{name}" not in self.fs.children
        )
        return len(below) == 1 and not own and self.everything[path] > self.need[path]

    def _lines(self, path: ImagePath, most: int) -> int:
        """COPY lines that a directory takes where everything unneeded of note stays behind, up to ``most``."""
        if self.everything[path] - self.need[path] <= max(
            COMES_ALONG_BYTES, COMES_ALONG_SHARE * self.need[path]
        ):
            return 1
        lines = 0
        own = False
        for name in self.fs.children[path]:
            child = f"{path}/{name}"
            if child not in self.fs.children:
                own = own or child in self.wanted
            elif self.need.get(child):
                lines += self._lines(child, most - lines)
            if lines >= most:
                return lines
        return lines + own

    def _trimmed(self, path: ImagePath) -> _Trimmed:
        """The unneeded kinds of files and subtrees of a directory, largest first, down to what does not matter."""
        emptied, folders = self._swept_folders(path)
        more, kinds = self._swept(path, emptied)
        files, swept = [*sorted(emptied), *more], (*folders, *kinds)
        gone: Counter[ImagePath] = Counter()
        for file in files:
            above = file
            while above != path:
                gone[above] += self.fs.size(file) + 1
                above = above.rpartition("/")[0]
        trees = self._removals(path, gone)
        inside = tuple(f"{tree.path}/" for tree in trees)
        outside = sum(self.fs.size(file) + 1 for file in files if not f"{file}/".startswith(inside))
        return _Trimmed(tuple(trees), swept, frozenset(files), outside)

    def _has_find(self) -> bool:
        """Whether the builder has what finds files by their names (find(1))."""
        return self.fs.is_file("/usr/bin/find") or self.fs.is_file("/bin/find")

    def _swept_folders(self, path: ImagePath) -> tuple[set[ImagePath], tuple[Swept, ...]]:
        """The files of folders that go by their name, where there are several of that name."""
        if not self._has_find():
            return set(), ()
        needed: dict[str, list[ImagePath]] = {path.rpartition("/")[2]: [path]}
        found: dict[str, list[ImagePath]] = {}
        inner: dict[str, list[ImagePath]] = {}
        for child in self.fs.walk(path):
            if child in self.fs.children:
                above, _, name = child.rpartition("/")
                if self.need.get(child) or child in self.p.needs.kept:
                    needed.setdefault(name, []).append(child)
                else:
                    (found if self.need.get(above) else inner).setdefault(name, []).append(child)
        sizes = {
            name: sum(self.everything[child] for child in folders)
            for name, folders in found.items()
            if len(folders) > 1 + 4 * len(needed.get(name, ()))
            and len(needed.get(name, ())) <= MOST_EXCEPTIONS
        }
        chosen = sorted(
            (
                name
                for name, size in sizes.items()
                if size >= COMES_ALONG_BYTES // 8 and self._is_aside(found[name])
            ),
            key=lambda name: (-sizes[name], name),
        )
        inside = {
            child
            for name in chosen[:MOST_SUFFIXES]
            for folder in (*found[name], *inner.get(name, ()))
            for child in self.fs.walk_files(folder)
            if self.fs.type_of(child) == _FILE and not self.p._is_improved(child)
        }
        names = tuple(sorted(chosen[:MOST_SUFFIXES]))
        if not inside or any(child in self.p.needs.kept for child in inside):
            return set(), ()
        but = tuple(sorted(folder for name in names for folder in needed.get(name, ())))
        return inside, (Swept(path, (), sum(map(self.fs.size, inside)), len(inside), names, but),)

    def _is_aside(self, folders: Iterable[ImagePath]) -> bool:
        """Whether folders hold what is no part of the program for what it is, not by chance: nine bytes in ten."""
        sizes: Counter[bool] = Counter()
        for folder in folders:
            for child in self.fs.walk_files(folder):
                if self.fs.type_of(child) == _FILE:
                    sizes[self.p.attribution.category_of(child) in _ASIDE_CATEGORIES] += self.fs.size(child)
        return sizes[True] > 9 * sizes[False]

    def _swept(
        self, path: ImagePath, emptied: Collection[ImagePath]
    ) -> tuple[list[ImagePath], tuple[Swept, ...]]:
        """The files that go by their suffix, without those of folders that are ``emptied`` already."""
        if not self._has_find():
            return [], ()
        unneeded: list[ImagePath] = []
        kept: set[str] = set()
        sizes: Counter[str] = Counter()
        for file in self.fs.walk_files(path):
            if file in self.p.needs.kept:
                kept.add(file.rpartition("/")[2])
            elif file not in emptied and not self.p._is_improved(file) and self.fs.type_of(file) == _FILE:
                unneeded.append(file)
                sizes[_suffix(file)] += self.fs.size(file)
        chosen = sorted(
            (suffix for suffix, size in sizes.items() if suffix and size >= COMES_ALONG_BYTES // 8),
            key=lambda suffix: (-sizes[suffix], suffix),
        )
        suffixes = tuple(
            [suffix for suffix in chosen if not any(name.endswith(suffix) for name in kept)][:MOST_SUFFIXES]
        )
        if not suffixes:
            return [], ()
        files = [file for file in unneeded if file.endswith(suffixes)]
        size = sum(map(self.fs.size, files))
        return files, (Swept(path, tuple(sorted(suffixes)), size, len(files)),)

    def _removals(self, path: ImagePath, gone: Mapping[ImagePath, int]) -> list[LeftBehind]:
        """The unneeded subtrees of a directory, without the bytes that are ``gone`` already."""
        found: list[LeftBehind] = []
        stack = [path]
        while stack:
            folder = stack.pop()
            for name in self.fs.children[folder]:
                child = f"{folder}/{name}"
                if child in self.fs.children:
                    size = self.everything[child] - gone.get(child, 0)
                    if size - self.need.get(child, 0) < COMES_ALONG_BYTES // 8:
                        continue
                    if not self.need.get(child):
                        found.append(self.p._left_behind(child, size))
                    else:
                        stack.append(child)
                elif (
                    child not in self.wanted
                    and child not in gone
                    and self.fs.type_of(child) == _FILE
                    and self.fs.size(child) >= COMES_ALONG_BYTES // 8
                    and not self.p._is_improved(child)
                ):
                    found.append(self.p._left_behind(child, self.fs.size(child)))
        return sorted(found, key=lambda tree: (-tree.size_bytes, tree.path))[:MOST_REMOVALS]

    def _disturbs(self, path: ImagePath, trimmed: _Trimmed) -> bool:
        """Whether copying a directory whole would change files of the base that nothing asked to change."""
        base = self.p.base.fs if self.p.base is not None else None
        if base is None or not base.is_dir(path):
            return False
        gone = tuple(f"{tree.path}/" for tree in trimmed.trees)
        return any(
            child not in self.wanted
            and child not in trimmed.files
            and base.exists(child)
            and not f"{child}/".startswith(gone)
            and not self.p._is_same(child, base)
            for child in self.fs.walk_files(path)
        )

    def _copy(
        self,
        sources: tuple[ImagePath, ...],
        target: ImagePath,
        whole: bool,
        unneeded: int,
        group: int | None = None,
    ) -> Copy:
        fs = self.fs
        paths = [p for p in (fs.walk(sources[0]) if whole else sources) if p in self.wanted]
        sums: Counter[int] = Counter()
        owners: Counter[tuple[int, int]] = Counter()
        largest, why = -1, ""
        seen: set[int] = set()
        size = files = 0
        for path in paths:
            if fs.type_of(path) != _FILE:
                continue
            gid = fs.payload_gid(path)
            if gid is None or gid in seen:
                continue
            seen.add(gid)
            entry = fs.entry(fs.groups[gid][0] if gid in fs.groups else path)
            size, files = size + entry.size_bytes, files + 1
            sums[group_of(self.p.attribution.category_of(path))] += entry.size_bytes + 1
            owners[entry.uid, entry.gid] += 1
            if entry.size_bytes > largest:
                largest, why = entry.size_bytes, self._why(path)
        if group is None:
            group = max(sums, key=lambda one: (sums[one], one)) if sums else 2
        owner = next(iter(owners)) if len(owners) == 1 else None
        return Copy(
            sources=sources,
            target=target,
            size_bytes=size + unneeded,
            files=files,
            reason=why or "needed by name alone",
            group=group,
            whole=whole,
            unneeded_bytes=unneeded,
            owner=None if owner == (0, 0) else owner,
        )

    def _why(self, path: ImagePath) -> str:
        edge = self.p.needs.kept[path]
        return f"{edge.evidence} ({edge.source.rpartition('/')[2] or edge.source})"


def _suffix(path: ImagePath) -> str:
    """What a file's name ends in: ``.md``, and ``.d.ts`` for TypeScript's declarations; empty without any."""
    name = path.rpartition("/")[2].lstrip(".")
    stem, dot, last = name.rpartition(".")
    if not dot or not stem or not last.isalnum() or last.isdigit():
        return ""
    return f".d.{last}" if stem.endswith(".d") else f".{last}"


def group_of(category: str | None) -> int:
    """Index into GROUPS for a file of this category."""
    return _GROUP_OF.get(category or "", 0)


def _payloads(fs: Filesystem) -> Iterator[tuple[int, Sequence[ImagePath]]]:
    """Every live payload of a regular file once, with its live names."""
    types = fs.types_column()
    done: set[int] = set()
    for path, gid in fs.live.items():
        if gid < 0:
            continue
        gid = fs.inode.get(gid, gid)
        if types[gid] != _FILE:
            continue
        group = fs.groups.get(gid)
        if group is None:
            yield gid, (path,)
        elif gid not in done:
            done.add(gid)
            yield gid, group


def _above(paths: Iterable[ImagePath]) -> set[ImagePath]:
    """The directories that these paths lie in, without the root."""
    found: set[ImagePath] = set()
    for path in paths:
        path = path.rpartition("/")[0]
        while path and path not in found:
            found.add(path)
            path = path.rpartition("/")[0]
    return found


def _inside(path: ImagePath, tops: set[ImagePath]) -> bool:
    while path:
        if path in tops:
            return True
        path = path.rpartition("/")[0]
    return False


def _common(files: Sequence[ImagePath]) -> ImagePath:
    """The deepest directory that holds all of these files."""
    if not files:
        return ""
    first, last = min(files).split("/"), max(files).split("/")
    same = 0
    while same < min(len(first), len(last)) - 1 and first[same] == last[same]:
        same += 1
    return "/".join(first[:same])


def _accounts_of(fs: Filesystem, path: ImagePath) -> dict[str, list[str]]:
    """Rows of passwd(5) or group(5) by name."""
    if not fs.is_file(path):
        return {}
    rows = (line.split(":") for line in fs.read_text(path, 1 << 20).splitlines())
    return {row[0]: row for row in rows if len(row) >= 4 and row[0] and not row[0].startswith("#")}


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 11 else -1


def bound_to_other(
    libc: str, needs: Needs, verdicts: Mapping[ImagePath, Verdict]
) -> list[tuple[ImagePath, Binding]]:
    """The needed files that are copied and cannot run where the C library is ``libc``, with what proves it."""
    fs = needs.fs
    readers = [found for found in ecosystems() if isinstance(found, BindsLibc)]
    found = []
    for path, verdict in sorted(verdicts.items()):
        if verdict == "copy" and path in needs.kept and fs.type_of(path) == _FILE:
            for reader in readers:
                binding = reader.binding(fs, path)
                if binding is not None and binding.libc != libc:
                    found.append((path, binding))
    return found


def libc_of(fs: Filesystem) -> str | None:
    """The C library of an image; None where it has none."""
    answers = (found.libc(fs) for found in ecosystems() if isinstance(found, BindsLibc))
    return next((libc for libc in answers if libc is not None), None)


def refuse_other_libc(plan: Plan) -> None:
    """Refuse a plan that would copy files onto a base whose libc they cannot use.

    Raises:
        UsageError: with the first files that prove it.
    """
    base = plan.base
    if base is None:
        return
    libc = base.libc if base.fs is None else libc_of(base.fs)
    if libc is None:
        return
    bound = bound_to_other(libc, plan.needs, plan.verdicts)
    if bound:
        proofs = ", ".join(f"{path} ({binding.evidence})" for path, binding in bound[:3])
        more = f" and {len(bound) - 3} more" if len(bound) > 3 else ""
        raise UsageError(
            f"{base.reference} has {libc}, and these files are bound to {bound[0][1].libc}: {proofs}{more}",
            f"Choose a runtime image with {bound[0][1].libc}, or build for {libc}.",
        )
