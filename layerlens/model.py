"""The nouns: frozen values that every other module speaks in.

Words are the OCI image specification's (image-spec: config.md, layer.md, manifest.md); what is ours is
defined in the docstring of each class. Sizes are integers in bytes, times are RFC 3339 strings, indexes
start at 0 with the base layer first, paths are absolute inside the image (``/usr/bin/env``) and carry bytes
that are not UTF-8 as surrogate escapes (PEP 383).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Literal, NewType

from layerlens.errors import UsageError

_ARCHITECTURES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386", "armhf": "arm"}
"""Names that people write for Go's (GOARCH), as containerd's platforms package normalises them."""

Digest = NewType("Digest", str)
"""Digest of a blob as it is stored: ``sha256:…`` (image-spec descriptor.md)."""

DiffId = NewType("DiffId", str)
"""Digest of a layer's uncompressed tar (image-spec config.md, ``rootfs.diff_ids``)."""

ImagePath = str
"""Absolute path inside the image; ``os.fsencode`` gives the exact bytes."""

Severity = Literal["info", "warning", "error"]
Certainty = Literal["certain", "likely", "assumed"]
ShadowKind = Literal["overwritten", "deleted", "metadata-only"]
Verdict = Literal["copy", "base", "package", "drop"]


class EntryType(IntEnum):
    """What a tar member is (POSIX.1-2017 pax, ``typeflag``), plus the two markers of layer.md."""

    FILE = 0
    DIR = 1
    SYMLINK = 2
    HARDLINK = 3
    CHAR = 4
    BLOCK = 5
    FIFO = 6
    WHITEOUT = 7
    OPAQUE = 8

    @property
    def label(self) -> str:
        """The name that `ls` prints: ``file``, ``dir``, ``symlink`` …"""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """Partial trouble that did not stop the work: part of the report, not an exception, not a log line."""

    severity: Severity
    code: str
    message: str
    path: ImagePath | None = None


@dataclass(frozen=True, slots=True)
class Platform:
    """``os/arch[/variant]`` as in image-spec image-index.md."""

    os: str
    architecture: str
    variant: str | None = None

    @classmethod
    def parse(cls, text: str) -> Platform:
        """``linux/arm64/v8``; ``UsageError`` where it is not of that form."""
        parts = text.strip().lower().split("/")
        if len(parts) not in (2, 3) or not all(parts):
            raise UsageError(
                f"not a platform: {text!r}", "Write it as os/arch[/variant], as in linux/arm64/v8."
            )
        return cls(parts[0], _ARCHITECTURES.get(parts[1], parts[1]), parts[2] if len(parts) == 3 else None)

    def matches(self, wanted: Platform, exact: bool = False) -> bool:
        """True where an image for this platform is what ``wanted`` asks for.

        Without ``exact``, a variant that only one side names does not matter (arm64 is arm64/v8).
        """
        if (self.os, self.architecture) != (wanted.os, wanted.architecture):
            return False
        if exact:
            return self.variant == wanted.variant
        return self.variant is None or wanted.variant is None or self.variant == wanted.variant

    def __str__(self) -> str:
        parts = [self.os, self.architecture] + ([self.variant] if self.variant else [])
        return "/".join(parts)


@dataclass(frozen=True, slots=True)
class Instruction:
    """One history entry (image-spec config.md, ``history``), shown as the Dockerfile line a person wrote."""

    index: int
    text: str
    """The Dockerfile line: ``RUN npm ci``, ``COPY dir:1a2b… in /app`` shown as ``COPY … /app``."""
    created_by: str | None
    """As recorded; None where the history does not say."""
    created: str | None
    comment: str | None
    layer: int | None
    """Index of the layer it made; None for instructions that only change the config."""
    from_base: bool
    """True where it belongs to the image that the Dockerfile's FROM named."""


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What layerlens reads of an image's config (image-spec config.md), null where it is not said."""

    platform: Platform
    created: str | None
    entrypoint: tuple[str, ...] | None
    cmd: tuple[str, ...] | None
    user: str | None
    workdir: str | None
    env: tuple[str, ...]
    exposed_ports: tuple[str, ...]
    volumes: tuple[str, ...]
    labels: dict[str, str]
    healthcheck: dict[str, Any] | None
    stop_signal: str | None
    shell: tuple[str, ...] | None
    diff_ids: tuple[DiffId, ...]
    history: tuple[dict[str, Any], ...]
    raw: dict[str, Any] = field(repr=False)
    """The whole parsed config, for what the fields above leave out."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One path of a layer or of the squash, all of it: what a tar header says about a file.

    ``size_bytes`` is the payload of a regular file and 0 for everything else, hard links included:
    the payload of a hard-link group belongs to the group and is counted at its first name.
    """

    path: ImagePath
    type: EntryType
    size_bytes: int
    mode: int
    uid: int
    gid: int
    mtime: float
    link_target: str | None
    """A symlink's text as stored; a hard link's first path of the group."""
    layer: int
    device: tuple[int, int] | None = None
    xattrs: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Package:
    """A package found in the image, and how to tell which live files it owns.

    ``paths`` lists owned paths one by one (dpkg's ``.list``, a wheel's RECORD); ``roots`` are directories that
    it owns with everything below, unless a package further inside claims them (nested ``node_modules``).
    ``location`` is the path that proves the package: its database entry or its metadata file.
    """

    ecosystem: str
    name: str
    version: str
    location: ImagePath
    paths: tuple[ImagePath, ...] = field(default=(), repr=False)
    roots: tuple[ImagePath, ...] = ()
    category: str | None = None
    """A category that the package's purpose decides, as ``dev-dependencies`` or ``compilers``; None: by path."""
    is_os: bool = False
    """True for the operating system's package database, whose word on ownership comes first."""
    license: str | None = None
    requires: tuple[str, ...] = field(default=(), repr=False)
    """What it depends on, in the words of its package manager: ``libc6 (>= 2.34) | libc6-udeb``, ``so:libz.so.1``."""
    provides: tuple[str, ...] = field(default=(), repr=False)
    """Other names that satisfy a dependency on it, without versions: ``awk``, ``so:libz.so.1``, ``config(setup)``."""


@dataclass(frozen=True, slots=True)
class Edge:
    """One dependency: the file ``source`` needs ``target`` (both absolute paths inside the image).

    The first edge of a chain comes from the config or an option instead: its ``source`` is the word for that
    (``ENTRYPOINT``, ``CMD``, ``HEALTHCHECK``, ``USER``, ``--root`` …), which no absolute path can be.
    """

    source: ImagePath
    target: ImagePath
    kind: str
    """What makes the need: ``command``, ``interpreter``, ``needed``, ``import``, ``require``, ``literal`` …"""
    evidence: str
    """What was read, in words for people: ``NEEDED libssl.so.3``, ``line 3: import flask``."""
    certainty: Certainty


@dataclass(frozen=True, slots=True)
class Command:
    """A command line that ``source`` runs; like an edge, but what it needs depends on all its words.

    ``source`` is a file of the image or, as for an edge, the word for the config or an option.
    """

    source: ImagePath
    argv: tuple[str, ...]
    """The words. For an ecosystem that is asked what they mean, the first is the absolute path that was found."""
    evidence: str
    cwd: ImagePath = "/"
    env: Mapping[str, str] = field(default_factory=dict)
    """The whole environment of the process, as far as it is known."""
    kind: str = "command"
    certainty: Certainty = "certain"


@dataclass(frozen=True, slots=True)
class Improvement:
    """Something that makes the builder stage leave less: a line for the end of the builder, and why."""

    line: str
    """A Dockerfile instruction: ``RUN npm prune --omit=dev``."""
    reason: str
    workdir: ImagePath = "/"
    """Where the line must run."""
    covers: tuple[ImagePath, ...] = ()
    """Subtrees in which what the plan drops is exactly what the line removes."""


@dataclass(frozen=True, slots=True)
class StaticSite:
    """A folder of HTML, CSS and JavaScript that the image's program does nothing but hand out."""

    root: ImagePath
    """The folder whose index.html is the site's."""
    port: int
    """Where the original listens (TCP)."""
    evidence: str
    """What says so, in words for people: ``scripts.preview: vite preview``."""
    single_page: bool
    """True where unknown paths get index.html, since the application routes in the browser."""
