"""Ways in: where an image's bytes come from.

A source gives the minimum (the config's bytes, and layers with ``diff_id``, ``media_type`` and ``open()``);
everything else is derived from that by one shared path, so that every source yields the same report.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

from layerlens.model import Diagnostic, DiffId, Digest, Platform

if TYPE_CHECKING:
    from layerlens.cache import Cache
    from layerlens.sources.beneath import StorageError
    from layerlens.tarindex import LayerIndex, Wants

Progress = Callable[[str, int, int | None], None]
"""Called now and then with (what is being done, bytes so far, bytes in all or None where unknown)."""


@dataclass(frozen=True, slots=True)
class PassedLayer:
    """What is known of a layer's uncompressed tar that passed by and was not kept."""

    index: LayerIndex
    sha256: str
    """``sha256:…`` of the tar."""


@dataclass(frozen=True, slots=True)
class FileRange:
    """Bytes ``offset … offset + size`` of an open, seekable file; read with ``os.pread``, never seeked."""

    fd: int
    offset: int
    size: int
    sha256: str | None = None
    """``sha256:…`` of these bytes, where it was computed when they came in; None where it was not."""
    passed: PassedLayer | None = None
    """Where these bytes were not kept when they came in: all that is known of them. There are zeros in the file."""


class Unpacked(Protocol):
    """A layer as its engine keeps it, unpacked in a folder. Raises StorageError for what is not as expected."""

    @property
    def stored_bytes(self) -> int:
        """Bytes that indexing has to read."""

    def index(self) -> LayerIndex:
        """The layer's entries."""

    def pread(self, index: LayerIndex, offset: int, size: int) -> bytes:
        """``size`` bytes of the uncompressed tar at ``offset``; ``index`` is the layer's, from whatever source."""

    def open(self) -> BinaryIO:
        """The uncompressed tar as a stream, put together on the way."""

    def give_up(self, error: StorageError) -> None:
        """Note why it is not used any more; :meth:`SourceLayer.stored_range` has the same bytes."""


@dataclass(frozen=True, slots=True)
class SourceLayer:
    """One layer as its source stores it.

    ``media_type`` is an OCI or Docker layer media type, or ``""`` where the source does not say: the first
    bytes decide then (and they decide whatever it says: engines store gzip under plain names).
    """

    diff_id: DiffId
    media_type: str
    compressed_bytes: int | None
    """Size in bytes of the blob as stored; None where only indexing the layer tells."""
    digest: Digest | None
    """Digest of the blob as stored; None where the source does not name one. Verified when inflated."""
    open: Callable[[], BinaryIO]
    """A fresh stream of the blob as stored, from its first byte."""
    file_range: FileRange | None = None
    """Where the blob as stored lies in a seekable local file, if it does."""
    streamed: bool = False
    """True where that file is a spool of what passed by once: it is verified even if it is uncompressed."""
    locate: Callable[[], FileRange | None] | None = None
    """Of a layer whose bytes are fetched only when they are wanted: fetches them, and says where they lie."""
    unpacked: Callable[[], Unpacked | None] | None = None
    """Of a layer that its engine may keep unpacked: looks, and gives what is there, if anything is."""
    passed: PassedLayer | None = None
    """Of a layer that was indexed as it passed by; ``open`` and ``locate`` fetch it once more."""

    def stored_range(self) -> FileRange | None:
        """Where the blob as stored lies in a seekable local file, fetched first if need be; None if in none."""
        return self.locate() if self.file_range is None and self.locate is not None else self.file_range


class Source(Protocol):
    """What every way in provides. Whoever opened it closes it, which also drops its spools."""

    @property
    def reference(self) -> str:
        """The reference as the user would write it again: ``myapp:latest``, ``./app.tar``."""

    @property
    def image_id(self) -> str | None:
        """The image's ID: the digest of the config (of the manifest, with containerd's store)."""

    @property
    def config(self) -> bytes:
        """The config blob (image-spec config.md), byte for byte."""

    @property
    def layers(self) -> Sequence[SourceLayer]:
        """The layers, base first."""

    def pass_by(self, wants: Wants) -> None:
        """Say, before all else, that only the indexes of the layers will be asked for, and what ``wants`` wants.

        What can be read only once need not be kept then. Whoever asks for more nevertheless gets it, later.
        """

    @property
    def diff_ids_trusted(self) -> bool:
        """True where the diff IDs are an engine's own word or were hashed on the way in."""

    @property
    def diagnostics(self) -> Sequence[Diagnostic]:
        """What was odd but not wrong on the way in."""

    def close(self) -> None:
        """Release files, sockets and spools; calling it twice is fine."""


def host_platform() -> Platform:
    """The platform that is looked for where none is given: linux on this machine's architecture."""
    import platform

    machine = platform.machine().lower()
    known = {
        "x86_64": ("amd64", None),
        "amd64": ("amd64", None),
        "aarch64": ("arm64", None),
        "arm64": ("arm64", None),
        "armv7l": ("arm", "v7"),
        "armv6l": ("arm", "v6"),
        "i386": ("386", None),
        "i686": ("386", None),
    }
    architecture, variant = known.get(machine, (machine, None))
    return Platform("linux", architecture, variant)


def open_source(
    source: str,
    *,
    platform: Platform | None = None,
    progress: Progress | None = None,
    cache: Cache | None = None,
    meanwhile: Callable[[], object] | None = None,
) -> Source:
    """The image that ``source`` means, whatever the way in: see :func:`layerlens.sources.opening.open_source`."""
    from layerlens.sources import opening

    return opening.open_source(source, platform=platform, progress=progress, cache=cache, meanwhile=meanwhile)
