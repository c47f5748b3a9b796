"""The small image itself: new layers made of ranges of the old ones, and the config that goes with them.

Every kept entry is carried over with the header and the bytes that its layer stores, so that owner, mode, time,
device numbers, extended attributes and holes survive exactly; nothing is unpacked. There are at most three layers,
least to most volatile, and a directory is written in each of them that has something below it, because an engine
gives a directory that a layer merely implies the attributes of a new one. A group of hard links goes into one layer,
its payload under the first kept name.

Where the image goes is :mod:`layerlens.destinations`' part.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, BinaryIO, Protocol

from layerlens.errors import InvalidImageError, PathNotFoundError, UsageError
from layerlens.filesystem import Filesystem
from layerlens.model import EntryType, ImagePath
from layerlens.plan import GROUPS
from layerlens.sources import SourceLayer
from layerlens.sources.spool import compression_of, open_inflated, read_fully, spool
from layerlens.tarheader import END, Head, linked, made, padded, parse_head, renamed, resized
from layerlens.tarindex import BLOCK

CREATED_BY = "layerlens slim"

_CHUNK = 1 << 20
_TYPEFLAGS = {
    EntryType.FILE: b"0\0",
    EntryType.DIR: b"5",
    EntryType.SYMLINK: b"2",
    EntryType.CHAR: b"3",
    EntryType.BLOCK: b"4",
    EntryType.FIFO: b"6",
}
"""Typeflags that every engine reads as what the index read them as."""
_OF_THE_BUILD = ("container", "container_config", "docker_version", "id", "parent", "parent_id", "Size")
"""Fields of a config in which Docker's classic builder describes the build of the old image's last layer."""

_Range = tuple[int, int, int]
"""(layer, offset, size) of bytes of a source layer's tar."""


@dataclass(frozen=True)
class SlimSpec:
    """What a slim image holds.

    ``keep`` lists files, links and directories; the directories above them are implied, a directory's content is
    not. ``group`` says of a path in which of the layers it goes. ``rewrites`` gives files another content, with
    the attributes that they have; one that the image lacks is made (0644, root).
    """

    keep: Collection[ImagePath]
    group: Callable[[ImagePath], int]
    config: Mapping[str, Any]
    """The image's raw config (image-spec config.md)."""
    rewrites: Mapping[ImagePath, bytes] = field(default_factory=dict)
    titles: Sequence[str] = GROUPS


class OutputLayer(Protocol):
    """A layer on its way out."""

    @property
    def size_bytes(self) -> int:
        """Bytes that :meth:`chunks` yields."""

    def chunks(self) -> Iterator[bytes]:
        """The uncompressed tar, in pieces of about a megabyte; may be asked for more than once."""


class SlimLayer:
    """A new layer: literal headers and ranges of the old layers, in the order of its tar."""

    def __init__(self, fs: Filesystem, title: str, created: str | None) -> None:
        self._fs = fs
        self._pieces: list[bytes | _Range] = []
        self._size = 0
        self.title = title
        self.created = created
        self.paths: list[ImagePath] = []
        """What it holds, in order."""
        self.payload_bytes = 0
        """Payload of its regular files, hard-link groups once."""

    @property
    def history(self) -> dict[str, Any]:
        """The entry in the config's history (image-spec config.md)."""
        entry: dict[str, Any] = {"created": self.created} if self.created else {}
        return {**entry, "created_by": f"{CREATED_BY}: {self.title}"}

    @property
    def size_bytes(self) -> int:
        """Size of the uncompressed tar."""
        return self._size + len(END)

    def add(self, piece: bytes | _Range) -> None:
        """Append literal bytes or a range; either is filled up to whole blocks."""
        size = len(piece) if isinstance(piece, bytes) else piece[2]
        if size:
            self._pieces.append(piece)
            self._size += size + (-size % BLOCK)

    def chunks(self) -> Iterator[bytes]:
        """The tar, in pieces of about a megabyte. InvalidImageError where a source layer is shorter than it was."""
        layers = self._fs.layers
        batch: list[bytes] = []
        held = 0
        for piece in self._pieces:
            if isinstance(piece, bytes):
                batch.append(padded(piece))
                held += len(batch[-1])
            else:
                layer, offset, size = piece
                end = offset + size
                while offset < end:
                    part = layers[layer].pread(offset, min(_CHUNK, end - offset))
                    batch.append(part)
                    offset += len(part)
                    held += len(part)
                    if held >= _CHUNK:
                        yield b"".join(batch)
                        batch, held = [], 0
                filling = -size % BLOCK
                if filling:
                    batch.append(bytes(filling))
                    held += filling
            if held >= _CHUNK:
                yield b"".join(batch)
                batch, held = [], 0
        yield b"".join([*batch, END])


class StoredLayer:
    """A layer of the base image, carried over as its source stores it, compressed or not."""

    def __init__(self, source: SourceLayer) -> None:
        self.diff_id = source.diff_id
        self._source = source

    @cached_property
    def size_bytes(self) -> int:
        """Size as stored; the blob is read for it where its source does not say."""
        known = self._source.compressed_bytes
        if known is not None:
            return known
        with self._source.open() as stream:
            return sum(len(chunk) for chunk in iter(lambda: stream.read(_CHUNK), b""))

    def for_docker(self) -> StoredLayer:
        """The layer as every engine loads it from a docker-archive: Docker knows zstd there since 23 alone."""
        with self._source.open() as stream:
            compression = compression_of(read_fully(stream, 6))
        return InflatedLayer(self._source) if compression == "zstd" else self

    def chunks(self) -> Iterator[bytes]:
        """The blob as stored. InvalidImageError where it has another size than its source said."""
        stream = self._source.open()
        done = 0
        try:
            while chunk := stream.read(_CHUNK):
                done += len(chunk)
                yield chunk
        finally:
            stream.close()
        if done != self.size_bytes:
            raise InvalidImageError(
                f"a layer of the base has {done:,} bytes and not {self.size_bytes:,}",
                "Export the base again.",
            )


class InflatedLayer(StoredLayer):
    """The same without its compression, kept in a spool since its size has to be known first."""

    def __init__(self, source: SourceLayer) -> None:
        super().__init__(source)
        self._inflated: BinaryIO | None = None

    def _spooled(self) -> BinaryIO:
        if self._inflated is None:
            what = f"inflating layer {self.diff_id}"
            with open_inflated(self._source.open(), what=what) as stream:
                self._inflated = spool(stream, what=what)
        return self._inflated

    @cached_property
    def size_bytes(self) -> int:
        """Size of the tar."""
        return os.fstat(self._spooled().fileno()).st_size

    def chunks(self) -> Iterator[bytes]:
        """The tar, in pieces of about a megabyte."""
        with self._spooled() as file:
            yield from iter(lambda: file.read(_CHUNK), b"")
        self._inflated = None


@dataclass(frozen=True)
class BaseImage:
    """The image that a slim image stands on: its layers as stored, and its raw config."""

    layers: Sequence[SourceLayer]
    config: Mapping[str, Any]


class SlimImage:
    """A slim image that was planned and not yet written: :attr:`layers`, and the config once they have diff IDs."""

    def __init__(
        self,
        spec: SlimSpec,
        layers: Sequence[SlimLayer],
        base: BaseImage | None,
        created: str | None,
    ) -> None:
        self.new_layers = list(layers)
        self._spec = spec
        self._created = created
        self._base_history = list(base.config.get("history") or ()) if base is not None else []
        self._stored = [StoredLayer(layer) for layer in base.layers] if base is not None else []

    @property
    def layers(self) -> list[StoredLayer | SlimLayer]:
        """The base's layers, then the new ones."""
        return [*self._stored, *self.new_layers]

    @property
    def rewritten(self) -> list[ImagePath]:
        """The paths that have another content than in the source, sorted."""
        return sorted(self._spec.rewrites)

    @property
    def payload_bytes(self) -> int:
        """Payload of the regular files in the new layers (DESIGN's ``size_bytes``)."""
        return sum(layer.payload_bytes for layer in self.new_layers)

    @property
    def size_bytes(self) -> int:
        """Bytes of all layers as they are written."""
        return sum(layer.size_bytes for layer in self.layers)

    @property
    def epoch(self) -> int:
        """The image's time in whole seconds since 1970."""
        return _epoch(self._created)

    def config(self, diff_ids: Sequence[str]) -> bytes:
        """The config blob: the source's, with these layers and a history that says what each of them is."""
        config = {
            key: deepcopy(value) for key, value in self._spec.config.items() if key not in _OF_THE_BUILD
        }
        if self._created is not None:
            config["created"] = self._created
        config["rootfs"] = {"type": "layers", "diff_ids": list(diff_ids)}
        config["history"] = [*self._base_history, *(layer.history for layer in self.new_layers)]
        return json.dumps(config, sort_keys=True, separators=(",", ":")).encode()


def plan_slim(fs: Filesystem, spec: SlimSpec, base: BaseImage | None = None) -> SlimImage:
    """The layers of a slim image of ``fs``: reads headers, no payloads.

    Raises:
        PathNotFoundError: a path to keep is not in the image.
        UsageError: nothing is kept.
    """
    created = created_time(spec.config)
    writer = _Writer(fs, spec, created)
    layers = writer.layers()
    if not layers and base is None:
        raise UsageError(
            "nothing is kept, and an image without files cannot run", "Keep a program: --keep PATH."
        )
    return SlimImage(spec, layers, base, created)


def created_time(config: Mapping[str, Any]) -> str | None:
    """When the slim image was made, RFC 3339: SOURCE_DATE_EPOCH if set, else the source's own time.

    Raises:
        UsageError: SOURCE_DATE_EPOCH is no number of seconds.
    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if epoch:
        try:
            return datetime.fromtimestamp(int(epoch), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        except (ValueError, OverflowError, OSError):
            raise UsageError(
                f"SOURCE_DATE_EPOCH is {epoch!r}, not a number of seconds", "Unset it, or set it to one."
            ) from None
    created = config.get("created")
    return created if isinstance(created, str) else None


def _epoch(created: str | None) -> int:
    try:
        moment = datetime.fromisoformat(created or "")
        return max(0, int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()))
    except (ValueError, OverflowError):
        return 0


class _Writer:
    """Shares the kept paths out among the layers and finds the bytes of each."""

    def __init__(self, fs: Filesystem, spec: SlimSpec, created: str | None) -> None:
        self._fs = fs
        self._spec = spec
        self._created = created
        self._epoch = _epoch(created)
        self._rewrites = {self._written(path): content for path, content in sorted(spec.rewrites.items())}
        self._first: dict[int, ImagePath] = {}
        """gid of a payload with several kept names → the first of them."""

    def _written(self, path: ImagePath) -> ImagePath:
        return self._fs.follow(path) or self._fs.resolve_parent("/" + path.strip("/"))

    def layers(self) -> list[SlimLayer]:
        found = [SlimLayer(self._fs, title, self._created) for title in self._spec.titles]
        for number, paths in enumerate(self._shared_out()):
            for path in sorted(paths):
                self._entry(found[number], path)
        return [layer for layer in found if layer.paths]

    def _shared_out(self) -> list[set[ImagePath]]:
        """The paths of each layer, the directories above them included."""
        fs, group = self._fs, self._spec.group
        last = len(self._spec.titles) - 1
        places: dict[ImagePath, int] = {}
        groups: dict[int, list[ImagePath]] = {}
        for path in {*map(self._canonical, self._spec.keep), *self._rewrites} - {"/"}:
            places[path] = min(max(group(path), 0), last)
            gid = fs.payload_gid(path)
            if gid is not None and gid in fs.groups:
                groups.setdefault(gid, []).append(path)
        for gid, names in groups.items():
            self._first[gid] = min(names)
            earliest = min(places[name] for name in names)
            places.update(dict.fromkeys(names, earliest))
        shared: list[set[ImagePath]] = [set() for _ in self._spec.titles]
        alone = []
        for path, place in places.items():
            if path in fs.children:
                alone.append((path, place))
                continue
            self._place(shared[place], path)
        # A directory that has something kept below it lies where that does; only an empty one has a place of its own.
        everywhere = set().union(*shared)
        for path, place in sorted(alone, reverse=True):
            if path not in everywhere:
                self._place(shared[place], path)
                everywhere |= shared[place]
        return shared

    @staticmethod
    def _place(paths: set[ImagePath], path: ImagePath) -> None:
        while path and path not in paths:
            paths.add(path)
            path = path.rpartition("/")[0]

    def _canonical(self, path: ImagePath) -> ImagePath:
        path = "/" + path.strip("/")
        if path == "/" or path in self._fs.live:
            return path
        found = self._fs.resolve_parent(path)
        if found not in self._fs.live:
            raise PathNotFoundError(
                f"cannot keep {path}: the image has no such path", "List what is there with `layerlens ls`."
            )
        return found

    # -- one entry -----------------------------------------------------------------------------------------

    def _entry(self, layer: SlimLayer, path: ImagePath) -> None:
        fs = self._fs
        layer.paths.append(path)
        gid = fs.live.get(path)
        name = os.fsencode(path[1:])
        if gid is None:
            self._new_file(layer, path, name)
            return
        if gid < 0:
            layer.add(made(name + b"/", EntryType.DIR, mode=0o755, mtime=self._epoch))
            return
        payload = fs.inode.get(gid, gid)
        first = self._first.get(payload, path)
        if first != path:
            layer.add(linked(self._head(payload), name, os.fsencode(first[1:])))
            return
        content = self._rewritten(payload, path)
        if content is not None:
            layer.add(resized(self._head(payload), name, len(content)))
            layer.add(content)
            layer.payload_bytes += len(content)
            return
        self._carried(layer, payload, name)

    def _new_file(self, layer: SlimLayer, path: ImagePath, name: bytes) -> None:
        content = self._rewrites.get(path)
        if content is None:  # a directory above a file that the image lacks
            layer.add(made(name + b"/", EntryType.DIR, mode=0o755, mtime=self._epoch))
            return
        layer.add(made(name, size=len(content), mtime=self._epoch))
        layer.add(content)
        layer.payload_bytes += len(content)

    def _rewritten(self, payload: int, path: ImagePath) -> bytes | None:
        if not self._rewrites:
            return None
        for name in self._fs.groups.get(payload, [path]):
            if name in self._rewrites:
                return self._rewrites[name]
        return None

    def _range(self, gid: int) -> _Range:
        """(layer, start, header bytes) of an entry."""
        number, row = self._fs.locate(gid)
        index = self._fs.indexes[number]
        return number, index.starts[row], index.offsets[row] - index.starts[row]

    def _head(self, gid: int) -> Head:
        number, start, size = self._range(gid)
        return parse_head(self._fs.layers[number].pread(start, size))

    def _carried(self, layer: SlimLayer, gid: int, name: bytes) -> None:
        """An entry as it is stored; only where its name or type is not what it is read as, with those corrected."""
        number, start, size = self._range(gid)
        row = gid - self._fs.bases[number]
        index = self._fs.indexes[number]
        kind = EntryType(index.types[row])
        raw = self._fs.layers[number].pread(start, size)
        stored = index.sizes[row]
        layer.payload_bytes += stored
        exact = name + b"/" if kind is EntryType.DIR else name
        head = parse_head(raw)
        sparse = row in index.sparse
        if sparse:
            stored = head.payload_size
        if head.plain and head.name == exact and (sparse or head.typeflag in _TYPEFLAGS[kind]):
            layer.add((number, start, size + stored))
            return
        layer.add(renamed(head, exact, kind))
        layer.add((number, start + size, stored))
