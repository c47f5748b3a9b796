"""A second squash, built as overlayfs works, to test the first against: every layer extracted into a tree of its
own, then the trees stacked. Slow and plain; it shares no code with layerlens.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from imagekit import as_bytes

from layerlens.filesystem import Filesystem
from layerlens.model import EntryType
from layerlens.tarindex import LayerIndex, index_stream


class Memory:
    """A layer that lies in memory, as the squash wants it."""

    def __init__(self, data: bytes, *, indexed: bool = True) -> None:
        self.data = data
        self.index: LayerIndex = index_stream(io.BytesIO(data))

    def pread(self, offset: int, size: int) -> bytes:
        return self.data[offset : offset + size]

    ask = pread


def squash(*layers: bytes) -> Filesystem:
    """layerlens's squash of these layers."""
    return Filesystem([Memory(data) for data in layers])


@dataclass(eq=False)
class Node:
    """A file of any type; hard links are one node under several names."""

    kind: EntryType
    meta: tuple[int, int, int]
    payload: Any = None
    layer: int = 0
    children: dict[str, Node] | None = None
    opaque: bool = False
    whiteout: bool = False


def directory(layer: int) -> Node:
    return Node(EntryType.DIR, (0o755, 0, 0), layer=layer, children={})


@dataclass
class Extracted:
    """One layer in a tree of its own."""

    number: int
    root: Node = field(init=False)

    def __post_init__(self) -> None:
        self.root = directory(self.number)

    def parent_of(self, parts: Sequence[str]) -> Node:
        node = self.root
        for part in parts[:-1]:
            assert node.children is not None
            below = node.children.get(part)
            if below is None or below.kind != EntryType.DIR:
                fresh = directory(self.number)
                fresh.opaque = below is not None and below.whiteout
                node.children[part] = below = fresh
            node = below
        return node

    def put(self, parts: Sequence[str], new: Node) -> None:
        if not parts:
            self.root.meta = new.meta
            return
        siblings = self.parent_of(parts).children
        assert siblings is not None
        old = siblings.get(parts[-1])
        if new.kind == EntryType.DIR and not new.whiteout:
            if old is not None and old.kind == EntryType.DIR:
                old.meta = new.meta
                return
            new.opaque = old is not None and (old.whiteout or old.opaque)
        siblings[parts[-1]] = new

    def find(self, parts: Sequence[str]) -> Node:
        node = self.root
        for part in parts:
            assert node.children is not None
            node = node.children[part]
        return node


def parts_of(name: str) -> list[str]:
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return parts


TYPES = {
    tarfile.REGTYPE: EntryType.FILE,
    tarfile.DIRTYPE: EntryType.DIR,
    tarfile.SYMTYPE: EntryType.SYMLINK,
    tarfile.CHRTYPE: EntryType.CHAR,
    tarfile.BLKTYPE: EntryType.BLOCK,
    tarfile.FIFOTYPE: EntryType.FIFO,
}


def extract(data: bytes, number: int) -> Node:
    tree = Extracted(number)
    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8", errors="surrogateescape") as tar:
        infos = tar.getmembers()
        for info in infos:  # markers first: they speak of lower layers only
            *above, name = parts_of(info.name) or [""]
            if name == ".wh..wh..opq":
                at = tree.parent_of([*above, name])
                at.opaque = True
            elif name.startswith(".wh.") and name != ".wh." and not name.startswith(".wh..wh."):
                tree.put([*above, name[4:]], Node(EntryType.WHITEOUT, (0, 0, 0), whiteout=True))
        for info in infos:
            parts = parts_of(info.name)
            if parts and parts[-1].startswith(".wh."):
                continue
            if info.islnk():
                tree.put(parts, tree.find(parts_of(info.linkname)))
                continue
            kind = TYPES[info.type]
            payload: Any = None
            if kind == EntryType.FILE:
                content = tar.extractfile(info)
                assert content is not None
                payload = content.read()
            elif kind == EntryType.SYMLINK:
                payload = info.linkname
            elif kind in (EntryType.CHAR, EntryType.BLOCK):
                payload = (info.devmajor, info.devminor)
            below = {} if kind == EntryType.DIR else None
            tree.put(parts, Node(kind, (info.mode & 0o7777, info.uid, info.gid), payload, number, below))
    return tree.root


def stack(nodes: Sequence[Node]) -> Node:
    """Merge directories, topmost first, as overlayfs looks names up."""
    merged = Node(EntryType.DIR, nodes[0].meta, layer=nodes[0].layer, children={})
    assert merged.children is not None
    names = {name for node in nodes for name in node.children or ()}
    for name in names:
        directories: list[Node] = []
        for node in nodes:
            found = (node.children or {}).get(name)
            if found is None:
                continue
            if found.kind != EntryType.DIR:
                if not directories and not found.whiteout:
                    merged.children[name] = found
                break
            directories.append(found)
            if found.opaque:
                break
        if directories:
            merged.children[name] = stack(directories)
    return merged


def stacked(*layers: bytes) -> Node:
    roots = []
    for number in reversed(range(len(layers))):
        roots.append(extract(layers[number], number))
        if roots[-1].opaque:
            break
    return stack(roots)


Listing = dict[str, tuple[Any, ...]]


def listing_of_model(root: Node) -> Listing:
    """path → (type, payload, mode, uid, gid, names of its hard-link group)."""
    nodes: dict[str, Node] = {}
    groups: dict[int, list[str]] = {}

    def walk(node: Node, path: str) -> None:
        for name, child in (node.children or {}).items():
            below = f"{path}/{name}"
            nodes[below] = child
            groups.setdefault(id(child), []).append(below)
            walk(child, below)

    walk(root, "")
    return {
        path: (node.kind, node.payload, *node.meta, tuple(sorted(groups[id(node)])))
        for path, node in nodes.items()
    }


def listing(fs: Filesystem) -> Listing:
    """The same of layerlens's squash, through its public face."""
    entries = {path: fs.entry(path) for path in fs.live if path != "/"}
    groups: dict[str, list[str]] = {}
    for path, entry in entries.items():
        first = entry.link_target if entry.type == EntryType.HARDLINK else path
        assert first is not None
        groups.setdefault(first, []).append(path)
    found: Listing = {}
    for path, entry in entries.items():
        first = entry.link_target if entry.type == EntryType.HARDLINK else path
        assert first is not None
        original = entries[first]
        payload: Any = None
        if original.type == EntryType.FILE:
            payload = fs.read(path)
            assert len(payload) == original.size_bytes == fs.size(path)
        elif original.type == EntryType.SYMLINK:
            payload = original.link_target
        elif original.type in (EntryType.CHAR, EntryType.BLOCK):
            payload = original.device
        found[path] = (
            original.type,
            payload,
            entry.mode,
            entry.uid,
            entry.gid,
            tuple(sorted(groups[first])),
        )
    return found


def exact(path: str) -> bytes:
    """The bytes of a path, for messages."""
    return as_bytes(path)
