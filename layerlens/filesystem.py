"""The squash: the merged filesystem a container sees, with the history of every path.

Layers are applied as image-spec layer.md says ("Applying Changesets"), with the reading that overlay2 gives to
what the text leaves open, because the container engine is the judge:

- a layer's whiteouts act on *lower* layers only, so the order inside a layer does not matter;
- a file or link that takes a directory's path hides the directory with everything below it;
- parent directories that no layer holds exist all the same (mode 0755, owned by root); one that a layer merely
  implies replaces a link or file of a lower layer at that path, and hides the attributes of a directory there;
- hard links join the group of the path that they name, as it is once the layer is applied.

Every entry of every layer has a global number (``gid``): the layers' entries one after another, base first.
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Protocol
from zlib import crc32

from layerlens.errors import InvalidImageError, LayerLensError, LinkLoopError, PathNotFoundError
from layerlens.model import Diagnostic, Entry, EntryType, ImagePath, ShadowKind
from layerlens.tarindex import MAX_HOLES, SMALL, LayerIndex, normal_path

MAX_LINKS = 40
"""Symbolic links followed in one lookup before it counts as a loop (Linux: path_resolution(7))."""
MAX_READ = 256 << 20
WORTH_AN_INDEX = 20
"""Names that are looked for in every directory, until an index by name is worth what it costs to make."""
MAX_IMPLIED_BYTES = 1 << 29
"""Bytes of paths that may be walked to make directories which no layer holds."""

_FILE, _DIR, _SYMLINK, _HARDLINK, _CHAR, _BLOCK, _FIFO, _WHITEOUT, _OPAQUE = map(int, EntryType)


class LayerContent(Protocol):
    """A layer as the squash needs it: its index, and its bytes by range."""

    @property
    def index(self) -> LayerIndex:
        """The layer's entries."""

    def pread(self, offset: int, size: int) -> bytes:
        """``size`` bytes of the uncompressed tar at ``offset``; short only at its end."""

    def ask(self, offset: int, size: int) -> bytes:
        """As :meth:`pread`, for what the same analysis will ask for again another time."""


class Shadow:
    """A stored entry that no container sees, how it was hidden and by which layer.

    ``at`` is the path that did it: of a deleted directory, the directory.
    """

    __slots__ = ("at", "by_layer", "gid", "kind", "replacement")

    def __init__(
        self, gid: int, kind: ShadowKind, by_layer: int, at: ImagePath, replacement: int | None
    ) -> None:
        self.gid = gid
        self.kind: ShadowKind = kind
        self.by_layer = by_layer
        self.at = at
        self.replacement = replacement


class StoredEntries:
    """Every entry of every layer by its global number, whether a container sees it or not, and their contents."""

    def __init__(self, layers: Sequence[LayerContent]) -> None:
        self.layers = list(layers)
        self.indexes = [layer.index for layer in layers]
        self.bases: list[int] = []
        total = 0
        for index in self.indexes:
            self.bases.append(total)
            total += len(index)
        self.entry_count = total
        self._digests: dict[int, bytes] = {}

    def locate(self, gid: int) -> tuple[int, int]:
        """(layer, row in its index) of a global entry number."""
        layer = bisect_right(self.bases, gid) - 1
        return layer, gid - self.bases[layer]

    def _size(self, gid: int) -> int:
        if gid < 0:
            return 0
        layer = bisect_right(self.bases, gid) - 1
        return self.indexes[layer].sizes[gid - self.bases[layer]]

    def read_gid(self, gid: int, limit: int | None = None) -> bytes:
        """The payload of the regular file with this gid."""
        layer, row = self.locate(gid)
        index = self.indexes[layer]
        size = index.sizes[row]
        if limit is None and size > MAX_READ:
            raise InvalidImageError(
                f"{index.paths[row]} has {size} bytes: too many to read at once", "Read it with a limit."
            )
        want = size if limit is None else min(size, limit)
        if want <= 0:
            return b""
        held = index.contents.get(row)
        if held is not None and len(held) >= want:
            return held[:want]
        content = self.layers[layer]
        pieces = index.sparse.get(row)
        if pieces is None:
            return content.ask(index.offsets[row], want)
        data = bytearray(want)
        source = index.offsets[row]
        for offset, length in pieces:
            if offset < want:
                piece = content.ask(source, min(length, want - offset))
                data[offset : offset + len(piece)] = piece
            source += length
        return bytes(data)

    def chunks(self, gid: int, chunk_size: int = 1 << 20) -> Iterator[bytes]:
        """The payload of the regular file with this gid, in pieces of at most ``chunk_size`` bytes."""
        layer, row = self.locate(gid)
        index, content = self.indexes[layer], self.layers[layer]
        size = index.sizes[row]
        pieces = index.sparse.get(row) or [(0, size)]
        at, source = 0, index.offsets[row]
        for offset, length in [*pieces, (size, 0)]:
            while at < offset:
                step = min(chunk_size, offset - at)
                yield bytes(step)
                at += step
            end = source + length
            while source < end:
                data = content.pread(source, min(chunk_size, end - source))
                if not data:
                    raise InvalidImageError(f"{index.paths[row]} ends early", "Export the image again.")
                yield data
                source += len(data)
            at = offset + length

    @staticmethod
    def _mostly_holes(index: LayerIndex, row: int) -> bool:
        pieces = index.sparse.get(row)
        return pieces is not None and index.sizes[row] - sum(length for _, length in pieces) > MAX_HOLES

    def stored_pieces(self, gid: int) -> Iterator[bytes]:
        """A sparse file's map and the bytes that are stored of it; no zeros."""
        layer, row = self.locate(gid)
        index, content = self.indexes[layer], self.layers[layer]
        yield f"{index.sizes[row]} {index.sparse[row]}".encode()
        source = index.offsets[row]
        for _, length in index.sparse[row]:
            for at in range(source, source + length, 1 << 20):
                yield content.pread(at, min(1 << 20, source + length - at))
            source += length

    def digest(self, gid: int) -> bytes:
        """SHA-256 of the payload of the regular file with this gid; computed once.

        Of a sparse file with more than a gigabyte of holes: of its map and its stored bytes.
        """
        layer, row = self.locate(gid)
        known = self.indexes[layer].digests.get(row) or self._digests.get(gid)
        if known is None:
            index = self.indexes[layer]
            size = index.sizes[row]
            if size <= 1 << 20 and row not in index.sparse:
                known = hashlib.sha256(self.layers[layer].pread(index.offsets[row], size)).digest()
            else:
                hasher = hashlib.sha256()
                for chunk in self.stored_pieces(gid) if self._mostly_holes(index, row) else self.chunks(gid):
                    hasher.update(chunk)
                known = hasher.digest()
            self._digests[gid] = known
        return known

    @property
    def learned_digests(self) -> dict[int, bytes]:
        """SHA-256 by gid, as far as :meth:`digest` had to compute it."""
        return self._digests

    def learn_digests(self, digests: Mapping[int, bytes]) -> None:
        """Take over what :attr:`learned_digests` of another process's copy of this squash says."""
        self._digests.update(digests)

    def check(self, gid: int) -> int:
        """A number that files of equal content have in common: of ``LayerIndex.crcs``, made comparable over layers.

        Where the layers have different checks it is the CRC-32 of a small file's payload, and 0 for larger ones,
        which only their digests tell apart.
        """
        layer, row = self.locate(gid)
        index = self.indexes[layer]
        if index.sizes[row] > SMALL:
            return index.crcs[row] if self._alike else 0
        if index.checks != "crc32-whole" and (
            row in index.sparse or (not self._alike and index.checks != "crc32")
        ):
            return crc32(self.read_gid(gid)) if index.sizes[row] else 0
        return index.crcs[row]

    @cached_property
    def _alike(self) -> bool:
        """Whether the checks of all layers compare; a small sparse file's is always a CRC-32, computed if need be."""
        checks = {index.checks for index in self.indexes if len(index)}
        sparse = any(index.sparse for index in self.indexes)
        return len(checks) <= 1 and (not sparse or "crc64" not in checks)

    def checks_column(self) -> array[int]:
        """:meth:`check` of every regular file, by gid."""
        column = array("I")
        for index in self.indexes:
            column.extend(index.crcs)
        if self._alike:
            computed: Iterable[int] = (
                self.bases[number] + row for number, index in enumerate(self.indexes) for row in index.sparse
            )
        else:
            computed = [gid for gid, kind in enumerate(self.types_column()) if kind == _FILE]
        for gid in computed:
            column[gid] = self.check(gid)
        return column

    def hash_ahead(self, gids: Sequence[int]) -> None:
        """Compute the digests of many files, on two threads: ``hashlib`` and ``pread`` let each other run."""
        if len(gids) < 16:
            return
        from threading import Thread

        def work(part: Sequence[int]) -> None:
            try:
                for gid in part:
                    self.digest(gid)
            except LayerLensError:
                return  # whoever asks for that digest gets the error

        helper = Thread(target=work, args=(gids[1::2],), daemon=True)
        helper.start()
        work(gids[::2])
        helper.join()

    def types_column(self) -> bytearray:
        """Entry type of every gid, all layers one after another."""
        return bytearray().join(index.types for index in self.indexes)

    def sizes_column(self) -> array[int]:
        """Payload size of every gid, all layers one after another."""
        column = array("q")
        for index in self.indexes:
            column.extend(index.sizes)
        return column


class Filesystem(StoredEntries):
    """The squash of an image's layers, base first. Reads and resolves paths inside the image only."""

    def __init__(self, layers: Sequence[LayerContent]) -> None:
        super().__init__(layers)
        self.live: dict[ImagePath, int] = {}
        """Every live path → its gid; a directory that no layer holds has ``-(layer + 1)``."""
        self.children: dict[ImagePath, dict[str, int]] = {"": {}}
        """Every live directory (the root is ``""``) → the names in it and their gids; parents come first."""
        self.inode: dict[int, int] = {}
        """gid of a hard link → gid of the entry that holds the payload."""
        self.groups: dict[int, list[ImagePath]] = {}
        """gid of a payload with several live names → those names, sorted."""
        self.shadows: list[Shadow] = []
        self.diagnostics: list[Diagnostic] = []
        self.sizes_by_path: dict[ImagePath, list[int]] = {}
        """Paths in several layers → size in each (for dive's figure: a whiteout of a file is 0)."""
        self.deleted_tree_bytes = 0
        """Bytes under directories that a whiteout deleted, at that moment (dive's figure needs it)."""
        self._unspent = MAX_IMPLIED_BYTES
        self._buried: dict[ImagePath, int] = {}
        self._resolved_dirs: dict[str, str] = {}
        self._asked_by_name = 0
        for number in range(len(self.indexes)):
            self._apply(number)
        self._settle()

    # -- building ------------------------------------------------------------------------------------------

    def _apply(self, number: int) -> None:
        """Apply one layer. Locals and few look-ups: the loop runs once for each of up to millions of entries."""
        index, base = self.indexes[number], self.bases[number]
        live, children, buried = self.live, self.children, self._buried
        types, paths = index.types, index.paths
        marked = _WHITEOUT in types or _OPAQUE in types
        if number and marked:
            self._whiteouts(number)
        for name in index.escapes:
            self._diagnose(
                "path-escapes-root", f"layer {number}: {name!r} points above the root; held inside it", "/"
            )
        hardlinks: list[int] = []
        parents: list[ImagePath] = []
        last: ImagePath | None = None
        names: dict[str, int] | None = None
        for gid, (path, kind) in enumerate(zip(paths, types, strict=True), base):
            parent, _, name = path.rpartition("/")
            if parent != last:  # most entries follow one of the same directory
                last = parent
                parents.append(parent)
                names = children.get(parent)
            if kind > _SYMLINK:
                if kind == _HARDLINK:
                    hardlinks.append(gid)
                    continue
                if kind >= _WHITEOUT:
                    if kind == _OPAQUE and name:
                        parents.append(path)
                    continue
            if names is None:  # so that nothing is at the path itself either
                through = self._through_own_links(path, base)
                if through != path:
                    self._place(through, gid, kind, number)
                    continue
                self._imply(parent, number)
                names = children[parent]
            old = live.setdefault(path, gid)
            if old != gid:
                self._replace(path, old, gid, kind, number)
            elif name:
                names[name] = gid
                if kind == _DIR:
                    children[path] = {}
                if buried and path in buried:
                    self._again(path, self._size(gid))
        self._link_up(hardlinks, number)
        if number:
            self._claim_parents(parents, number)
        if marked:
            self._imply_marked(number)

    def _claim_parents(self, parents: Iterable[ImagePath], number: int) -> None:
        """Give the directories that this layer implies, and lower layers hold, the attributes of implied ones.

        ``parents`` are the directories of its entries, and those that it makes opaque. overlay2 and
        containers/storage unpack each layer into a folder of its own, where such a directory is made anew, and the
        upper layer's attributes are the ones that count.
        """
        base = self.bases[number]
        live, children = self.live, self.children
        seen: set[ImagePath] = set()
        for parent in parents:
            while parent and parent not in seen:
                self._spend(len(parent))
                seen.add(parent)
                gid = live.get(parent)
                if (
                    gid is not None
                    and parent in children
                    and (-gid - 1 if gid < 0 else gid) < (number if gid < 0 else base)
                ):
                    live[parent] = -(number + 1)
                    above, _, name = parent.rpartition("/")
                    children[above][name] = -(number + 1)
                parent = parent.rpartition("/")[0]

    def _place(self, path: ImagePath, gid: int, kind: int, number: int) -> None:
        """Make ``path`` live, whatever is there; the unhurried form of the loop above."""
        old = self.live.get(path)
        if old is not None:
            self._replace(path, old, gid, kind, number)
            return
        parent, _, name = path.rpartition("/")
        if parent not in self.children:
            self._imply(parent, number)
        self.children[parent][name] = gid
        self.live[path] = gid
        if kind == _DIR:
            self.children[path] = {}
        if path in self._buried:
            self._again(path, self._size(gid))

    def _through_own_links(self, path: ImagePath, base: int) -> ImagePath:
        """Where an engine writes ``path`` when a parent of it is a symlink that the same layer brought."""
        for _ in range(MAX_LINKS):
            at = path.find("/", 1)
            while at > 0:
                self._spend(at)
                gid = self.live.get(path[:at], -1)
                text = self._symlink_text(gid) if gid >= base else None
                if text is not None:
                    start = text if text.startswith("/") else f"{path[:at].rpartition('/')[0]}/{text}"
                    path = normal_path(start + path[at:])[0]
                    break
                at = path.find("/", at + 1)
            else:
                return path
        return path

    def _imply(self, path: str, number: int) -> None:
        """Make the directory ``path`` and its parents exist, replacing what a lower layer has there."""
        live, children = self.live, self.children
        missing: list[str] = []
        while path not in children:
            self._spend(len(path))
            missing.append(path)
            path = path.rpartition("/")[0]
        for path in reversed(missing):
            old = live.get(path)
            if old is not None:
                self._bury(path, old, number, path)
            parent, _, name = path.rpartition("/")
            live[path] = -(number + 1)
            children[path] = {}
            children[parent][name] = -(number + 1)

    def _spend(self, path_bytes: int) -> None:
        """Bound the work on parents that no layer holds, which grows with the square of a path's depth."""
        self._unspent -= path_bytes
        if self._unspent < 0:
            raise InvalidImageError(
                "the layers imply directories nested beyond any reason",
                "No engine could unpack this image: have it built again.",
            )

    def _replace(self, path: str, old: int, gid: int, kind: int, number: int) -> None:
        """An entry for a path that is live already."""
        children = self.children
        if path == "/":
            self.live[path] = gid
            return
        if number:
            self._again(path, self._size(gid), old)
        parent, _, name = path.rpartition("/")
        children[parent][name] = gid
        if path in children:
            if kind == _DIR:
                self.live[path] = gid
                return
            self._delete_below(path, number, path)
            del children[path]
        elif kind == _DIR:
            children[path] = {}
        if old >= 0:
            self._hide(old, "overwritten", number, path, gid)
        self.live[path] = gid

    def _hide(self, gid: int, kind: ShadowKind, number: int, at: str, replacement: int | None = None) -> None:
        self.shadows.append(Shadow(gid, kind, number, at, replacement))

    def _again(self, path: str, size: int, old: int | None = None) -> None:
        """Note that ``path`` occurs in one more layer, with this size."""
        sizes = self.sizes_by_path.get(path)
        if sizes is None:
            first = self._buried.get(path, 0) if old is None else self._size(old)
            sizes = self.sizes_by_path[path] = [first]
        sizes.append(size)

    def _imply_marked(self, number: int) -> None:
        """Make the directories that a layer's markers lie in: engines do, also where a marker hides nothing."""
        index, base = self.indexes[number], self.bases[number]
        for path, kind in zip(index.paths, index.types, strict=True):
            if kind < _WHITEOUT:
                continue
            directory = path.rstrip("/") if kind == _OPAQUE else path.rpartition("/")[0]
            above = directory
            while above not in self.children and above not in self.live:
                self._spend(len(above))
                above = above.rpartition("/")[0]
            if directory not in self.children and (above in self.children or self.live[above] < base):
                self._imply(directory, number)

    def _whiteouts(self, number: int) -> None:
        """Apply a layer's whiteouts and opaque markers to the layers below."""
        index, live = self.indexes[number], self.live
        for row, kind in enumerate(index.types):
            if kind == _WHITEOUT:
                path = index.paths[row]
                old = live.get(path)
                if old is None:
                    continue
                if path in self.children:
                    before = self.deleted_tree_bytes
                    self._delete_below(path, number, path, count=True)
                    grown = self.deleted_tree_bytes - before
                    sizes = self.sizes_by_path.setdefault(path, [])
                    sizes.append(grown)
                    del self.children[path]
                else:
                    self._again(path, 0, old)
                self._bury(path, old, number, path)
            elif kind == _OPAQUE:
                path = index.paths[row]
                self._opaque("" if path == "/" else path, number)

    def _opaque(self, path: str, number: int) -> None:
        if path in self.children:
            self._delete_below(path, number, path)
        elif path in self.live:  # a link or file of a lower layer: the marker implies a directory instead
            self._imply(path, number)

    def _bury(self, path: str, old: int, number: int, at: str) -> None:
        """Take a path out of the squash."""
        del self.live[path]
        parent, _, name = path.rpartition("/")
        self.children[parent].pop(name, None)
        if old >= 0:
            self._hide(old, "deleted", number, at)
            self._buried.setdefault(path, self._size(old))

    def _delete_below(self, path: str, number: int, at: str, count: bool = False) -> None:
        """Hide everything below a directory."""
        stack = [path]
        live, children = self.live, self.children
        while stack:
            directory = stack.pop()
            for name in children[directory]:
                child = f"{directory}/{name}"
                old = live.pop(child)
                if child in children:
                    stack.append(child)
                if old >= 0:
                    size = self._size(old)
                    if count:
                        self.deleted_tree_bytes += size
                    self._hide(old, "deleted", number, at)
                    self._buried.setdefault(child, size)
            if directory != path:
                del children[directory]
        children[path] = {}

    def _link_up(self, rows: list[int], number: int) -> None:
        """Place hard links once everything they may name is there; chains may need more than one round."""
        index, base = self.indexes[number], self.bases[number]
        waiting = rows
        while waiting:
            missing = []
            for gid in waiting:
                row = gid - base
                target, path = index.links[row], index.paths[row]
                if path.rpartition("/")[0] not in self.children:
                    path = self._through_own_links(path, base)
                if target not in self.live:
                    target = self._through_own_links(target, base)
                found = self.live.get(target)
                if found is None or found < 0 or target in self.children:
                    missing.append(gid)
                    continue
                inode = self.inode.get(found, found)
                if inode == gid or path == target:
                    continue
                self.inode[gid] = inode
                self._place(path, gid, _HARDLINK, number)
            if len(missing) == len(waiting):
                for gid in missing:
                    row = gid - base
                    self._diagnose(
                        "hard-link-target-missing",
                        f"layer {number}: hard link to {index.links[row]}, which does not exist there",
                        index.paths[row],
                    )
                return
            waiting = missing

    def _settle(self) -> None:
        """After the last layer: hard-link groups, and shadows that a surviving name keeps alive."""
        groups: dict[int, list[str]] = {}
        if self.inode:
            of = self.inode
            linked = set(of.values())
            for path, gid in self.live.items():
                inode = of.get(gid)
                if inode is None:
                    if gid not in linked:
                        continue
                    inode = gid
                groups.setdefault(inode, []).append(path)
        self.groups = {inode: sorted(paths) for inode, paths in groups.items()}
        # An entry that lost its own path is still stored for good reason while another name leads to it.
        self.shadows = [
            shadow for shadow in self.shadows if shadow.gid not in groups and shadow.gid not in self.inode
        ]
        self._buried = {}

    def _diagnose(self, code: str, message: str, path: str | None) -> None:
        self.diagnostics.append(Diagnostic("warning", code, message, path))

    # -- entries -------------------------------------------------------------------------------------------

    def payload_gid(self, path: ImagePath) -> int | None:
        """gid of the entry that holds the bytes of a live non-directory; None for an implied directory."""
        gid = self.live.get(path)
        if gid is None or gid < 0:
            return None
        return self.inode.get(gid, gid)

    def exists(self, path: ImagePath) -> bool:
        """True where the path itself is live; its last component is not followed."""
        return path in self.live or path in ("", "/")

    def entry(self, path: ImagePath) -> Entry:
        """The live entry at exactly this path, no link followed.

        Raises:
            PathNotFoundError: no such live path.
        """
        gid = self.live.get(path)
        if gid is None:
            if path in ("", "/"):
                return Entry("/", EntryType.DIR, 0, 0o755, 0, 0, 0.0, None, 0)
            raise _missing(path)
        if gid < 0:
            return Entry(path, EntryType.DIR, 0, 0o755, 0, 0, 0.0, None, -gid - 1)
        inode = self.inode.get(gid, gid)
        layer, _ = self.locate(gid)
        group = self.groups.get(inode)
        if group is not None and path != group[0]:
            return self.stored_entry(inode, path, EntryType.HARDLINK, group[0], layer)
        return self.stored_entry(inode, path, None, None, layer)

    def stored_entry(
        self,
        gid: int,
        path: ImagePath | None = None,
        kind: EntryType | None = None,
        link_target: str | None = None,
        layer: int | None = None,
    ) -> Entry:
        """The entry with this gid as its layer stores it, under another path or type where given."""
        stored_layer, row = self.locate(gid)
        index = self.indexes[stored_layer]
        kind = EntryType(index.types[row]) if kind is None else kind
        mode, uid, owner_gid = index.owner_table[index.owners[row]]
        return Entry(
            path=index.paths[row] if path is None else path,
            type=kind,
            size_bytes=index.sizes[row] if kind is EntryType.FILE else 0,
            mode=mode,
            uid=uid,
            gid=owner_gid,
            mtime=index.mtimes[row],
            link_target=index.links.get(row) if link_target is None else link_target,
            layer=stored_layer if layer is None else layer,
            device=index.devices.get(row),
            xattrs=index.xattrs.get(row, {}),
        )

    def layer_of(self, path: ImagePath) -> int:
        """Index of the layer that a live path comes from."""
        gid = self.live.get(path)
        if gid is None:
            if path in ("", "/"):
                return 0
            raise _missing(path)
        return -gid - 1 if gid < 0 else bisect_right(self.bases, gid) - 1

    def type_of(self, path: ImagePath) -> int | None:
        """The type of a live path (a hard link: of its payload), not following it; None if not live."""
        gid = self.live.get(path)
        if gid is None:
            return _DIR if path in ("", "/") else None
        if gid < 0:
            return _DIR
        gid = self.inode.get(gid, gid)
        layer = bisect_right(self.bases, gid) - 1
        return self.indexes[layer].types[gid - self.bases[layer]]

    # -- links ---------------------------------------------------------------------------------------------

    def resolve(self, path: ImagePath, walked: list[ImagePath] | None = None) -> ImagePath:
        """The canonical path, every symbolic link followed inside the image (path_resolution(7)).

        The links that are followed are added to ``walked``, in order, also where it raises.

        Raises:
            PathNotFoundError: some component does not exist.
            LinkLoopError: more than 40 links.
        """
        pending = [part for part in reversed(path.split("/")) if part]
        done = ""
        links = 0
        while pending:
            part = pending.pop()
            if part == ".":
                continue
            if part == "..":
                done = done.rpartition("/")[0]
                continue
            step = f"{done}/{part}"
            gid = self.live.get(step)
            if gid is None:
                raise _missing(path)
            if step in self.children:
                done = step
                continue
            target = self._symlink_text(gid)
            if target is None:
                if pending:
                    raise PathNotFoundError(f"not a directory in the image: {step}", "Check the path.")
                return step
            if walked is not None:
                walked.append(step)
            links += 1
            if links > MAX_LINKS:
                raise LinkLoopError(
                    f"symbolic links lead in a circle: {path}", "The image itself has this loop."
                )
            if target.startswith("/"):
                done = ""
            pending.extend(part for part in reversed(target.split("/")) if part)
        return done or "/"

    def _symlink_text(self, gid: int) -> str | None:
        if gid < 0:
            return None
        gid = self.inode.get(gid, gid)
        layer = bisect_right(self.bases, gid) - 1
        row = gid - self.bases[layer]
        index = self.indexes[layer]
        return index.links[row] if index.types[row] == _SYMLINK else None

    def resolve_parent(self, path: ImagePath) -> ImagePath:
        """Canonical directory, last component as it is (``/lib/x`` → ``/usr/lib/x``); never raises."""
        parent, _, name = path.rpartition("/")
        resolved = self._resolved_dirs.get(parent)
        if resolved is None:
            try:
                resolved = self.resolve(parent) if parent else ""
            except (PathNotFoundError, LinkLoopError):
                resolved = parent
            if resolved == "/":
                resolved = ""
            self._resolved_dirs[parent] = resolved
        return f"{resolved}/{name}"

    def follow(self, path: ImagePath) -> ImagePath | None:
        """Like :meth:`resolve`, but None where that raises."""
        gid = self.live.get(path)
        if gid is not None and gid >= 0 and self._symlink_text(gid) is None:
            return path
        try:
            return self.resolve(path)
        except (PathNotFoundError, LinkLoopError):
            return None

    def is_file(self, path: ImagePath) -> bool:
        """True where the path leads to a regular file, links followed."""
        target = self.follow(path)
        return target is not None and self.type_of(target) == _FILE

    def is_dir(self, path: ImagePath) -> bool:
        """True where the path leads to a directory, links followed."""
        target = self.follow(path)
        return target is not None and (target == "/" or target in self.children)

    # -- looking around ------------------------------------------------------------------------------------

    def listdir(self, path: ImagePath) -> list[str]:
        """Sorted names in a directory, links followed; empty where it is not one."""
        target = self.follow(path)
        if target is None:
            return []
        return sorted(self.children.get("" if target == "/" else target, ()))

    def walk(self, root: ImagePath = "/") -> Iterator[ImagePath]:
        """Every live path below ``root``, depth first, names in order; ``root`` itself not included."""
        start = "" if root == "/" else root
        stack = [iter(sorted(self.children.get(start, ())))]
        where = [start]
        while stack:
            name = next(stack[-1], None)
            if name is None:
                stack.pop()
                where.pop()
                continue
            path = f"{where[-1]}/{name}"
            yield path
            if path in self.children:
                stack.append(iter(sorted(self.children[path])))
                where.append(path)

    def walk_files(self, root: ImagePath = "/") -> Iterator[ImagePath]:
        """Every live path below ``root`` that is not a directory, in the order of :meth:`walk`."""
        return (path for path in self.walk(root) if path not in self.children)

    def named(self, name: str) -> list[ImagePath]:
        """Sorted live paths, directories excluded, whose last component is ``name``."""
        suffix = "/" + name
        children = self.children
        directories: Iterable[ImagePath]
        if self._asked_by_name < WORTH_AN_INDEX:
            self._asked_by_name += 1
            directories = [directory for directory, names in children.items() if name in names]
        else:
            directories = self._directories_by_name.get(name, ())
        return sorted(directory + suffix for directory in directories if directory + suffix not in children)

    def ending(self, suffixes: tuple[str, ...]) -> list[ImagePath]:
        """Sorted live paths, directories excluded, that end in one of ``suffixes``, none of which has a slash."""
        children = self.children
        return sorted(
            path
            for directory, names in children.items()
            for name in names
            if name.endswith(suffixes) and (path := f"{directory}/{name}") not in children
        )

    @cached_property
    def _directories_by_name(self) -> dict[str, list[ImagePath]]:
        """Every name there is and the directories that have it."""
        found: dict[str, list[ImagePath]] = {}
        for directory, names in self.children.items():
            for name in names:
                found.setdefault(name, []).append(directory)
        return found

    def directories_named(self, name: str) -> list[ImagePath]:
        """Sorted live directories whose last component is ``name``."""
        suffix = "/" + name
        return sorted(directory for directory in self.children if directory.endswith(suffix))

    def glob(self, pattern: str) -> list[ImagePath]:
        """Sorted live paths that match: ``*``, ``?``, ``[…]`` within a component, ``**`` any number of them."""
        parts = [part for part in pattern.split("/") if part]
        found = self._glob("", parts)
        return sorted(set(found))

    def _glob(self, directory: str, parts: Sequence[str]) -> Iterable[ImagePath]:
        if not parts:
            if directory:
                yield directory
            return
        part, rest = parts[0], parts[1:]
        if part == "**":
            yield from self._glob(directory, rest)
            for name in self.children.get(directory, ()):
                path = f"{directory}/{name}"
                if path in self.children:
                    yield from self._glob(path, parts)
                elif not rest:
                    yield path
            return
        real = directory
        if directory not in self.children:
            target = self.follow(directory)
            if target is None:
                return
            real = "" if target == "/" else target
        names = self.children.get(real, {})
        if not any(mark in part for mark in "*?["):
            if part in names:
                yield from self._glob(f"{directory}/{part}", rest)
            return
        match = re.compile(fnmatch.translate(part), re.DOTALL).match
        for name in names:
            if match(name) and (part.startswith(".") or not name.startswith(".")):
                yield from self._glob(f"{directory}/{name}", rest)

    # -- contents ------------------------------------------------------------------------------------------

    def size(self, path: ImagePath) -> int:
        """Payload bytes of the regular file that a path leads to, links followed; 0 for all else."""
        target = self.follow(path)
        gid = self.payload_gid(target) if target is not None else None
        return 0 if gid is None else self._size(gid)

    def read(self, path: ImagePath, limit: int | None = None) -> bytes:
        """The content of a regular file, links followed; at most ``limit`` bytes of it.

        Raises:
            PathNotFoundError: it does not exist or is not a regular file.
            LinkLoopError: its links lead in a circle.
            InvalidImageError: larger than 256 MiB and no limit given.
        """
        gid = self.live.get(path)
        if gid is None or gid < 0 or self._symlink_text(gid) is not None:
            path = self.resolve(path)
        gid = self.payload_gid(path)
        if gid is None or self.type_of(path) != _FILE:
            raise PathNotFoundError(f"not a regular file in the image: {path}", "Read a file.")
        return self.read_gid(gid, limit)

    def read_at(self, path: ImagePath, offset: int, size: int) -> bytes:
        """``size`` bytes of a regular file from ``offset``, links followed; fewer where it ends before.

        Raises:
            PathNotFoundError: it does not exist or is not a regular file.
            LinkLoopError: its links lead in a circle.
            InvalidImageError: more than 256 MiB at once.
        """
        real = self.resolve(path)
        gid = self.payload_gid(real)
        if gid is None or self.type_of(real) != _FILE:
            raise PathNotFoundError(f"not a regular file in the image: {path}", "Read a file.")
        layer, row = self.locate(gid)
        index = self.indexes[layer]
        size = max(0, min(size, index.sizes[row] - offset))
        if size > MAX_READ:
            raise InvalidImageError(f"{path}: {size} bytes are too many to read at once", "Read fewer.")
        if not size or offset < 0:
            return b""
        held = index.contents.get(row)
        if held is not None and len(held) >= offset + size:
            return held[offset : offset + size]
        pieces = index.sparse.get(row)
        if pieces is None:
            return self.layers[layer].ask(index.offsets[row] + offset, size)
        data = bytearray(size)
        source = index.offsets[row]
        for start, length in pieces:
            first, last = max(start, offset), min(start + length, offset + size)
            if first < last:
                piece = self.layers[layer].ask(source + first - start, last - first)
                data[first - offset : first - offset + len(piece)] = piece
            source += length
        return bytes(data)

    def read_text(self, path: ImagePath, limit: int | None = 16 << 20) -> str:
        """A file as text: UTF-8, a byte-order mark taken off, what is not UTF-8 as U+FFFD."""
        data = self.read(path, limit)
        return data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")


def _missing(path: str) -> PathNotFoundError:
    return PathNotFoundError(f"no such path in the image: {path}", "List what is there with `layerlens ls`.")
