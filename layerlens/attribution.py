"""Whose bytes they are: by layer, instruction, category, package and path; and which are waste.

Everything here counts payload bytes of regular files. The payload of a hard-link group is counted once, at
the group's first path. Directories are classified once, in one pass from the root down, and files inherit;
sums go back up in one pass, so that the work grows with the number of entries and nothing else.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from layerlens.categories import CATEGORIES, NONE, Classifier, DirectoryState
from layerlens.filesystem import Filesystem, Shadow, StoredEntries
from layerlens.model import EntryType, ImagePath, Package, ShadowKind
from layerlens.report import DuplicateGroup, PathReport, WasteItem, WasteReport

_FILE = int(EntryType.FILE)
_LINKED = 255
"""In place of an entry's type: a hard link, or what hard links lead to."""
_NOBODY = -1
_KEY_BITS = 5
"""A layer and a category in one number: the category is the lowest bits."""
_CATEGORY_MASK = (1 << _KEY_BITS) - 1

PATH_SHARE = 0.01
"""Share of the live bytes from which on a subtree is listed."""
CHILD_SHARE = 0.9
"""Share of a directory's bytes from which on a listed descendant stands for it."""
HOME_CATEGORIES = ("package-cache", "vcs", "compilers")
"""Categories whose topmost directories are listed whatever their size."""
HOME_NAMES = frozenset({"node_modules"})
HOME_MARKERS = frozenset({"pyvenv.cfg"})
MAX_COMPARED = 1 << 20
"""Bytes of the largest files that are compared rather than hashed."""
MAX_CONTENTS = 8
"""Contents that files of one size and checksum are compared with before they are hashed after all."""


@dataclass(slots=True)
class Subtree:
    """Sums over a live directory and everything below it."""

    size_bytes: int = 0
    files: int = 0
    layers: int = 0
    """Bit *n* is set where layer *n* stores some of it."""
    categories: dict[int, int] = field(default_factory=dict)
    """Bytes by index into CATEGORIES."""
    owner: int = _NOBODY
    """Index of the package that owns the directory itself."""
    purpose: int = NONE
    """Index of the category that the directory itself stands for."""
    parent: Subtree | None = field(default=None, repr=False)


class Attribution:
    """The bytes of one squash, attributed. ``packages`` are those that own something or nothing, each once."""

    def __init__(
        self, fs: Filesystem, packages: Iterable[Package], classifier: Classifier | None = None
    ) -> None:
        self.fs = fs
        self.sizes = fs.sizes_column()
        self.types = fs.types_column()
        self._shadows = [shadow for shadow in fs.shadows if self.types[shadow.gid] == _FILE]
        self.layer_column = array("I")
        for number, index in enumerate(fs.indexes):
            self.layer_column.extend(array("I", [number]) * len(index))
        self._classifier = classifier or Classifier()
        listed = list(packages)
        self._owned = _Ownership(fs, listed)
        self.packages: list[Package] = self._owned.packages
        self.categories = bytearray(fs.entry_count)
        """Index into CATEGORIES, by gid of each live payload."""
        self.owners = array("i", [_NOBODY]) * fs.entry_count
        """Index into ``packages`` or -1, by gid of each live payload."""
        self.subtrees: dict[ImagePath, Subtree] = {}
        count = len(CATEGORIES)
        self.category_bytes = [0] * count
        self.category_files = [0] * count
        self.layer_categories = [[0] * count for _ in fs.indexes]
        self.package_bytes = [0] * len(self.packages)
        self.package_files = [0] * len(self.packages)
        self.live_bytes = 0
        self.live_files = 0
        self._attribute()

    def _attribute(self) -> None:
        """One pass over all files, directory by directory. Locals and inlined look-ups: there may be millions."""
        fs, sizes, types = self.fs, self.sizes, self.types
        categories, owners = self.categories, self.owners
        subtrees, classifier = self.subtrees, self._classifier
        package_bytes, package_files = self.package_bytes, self.package_files
        owned_names, roots = self._owned.names, self._owned.roots
        hints: list[tuple[str | None, str | None]]
        hints = [(package.category, package.ecosystem) for package in self.packages]
        hints.append((None, None))  # at -1: of nobody's files
        inode, groups = fs.inode, fs.groups
        kinds = bytearray(types)
        for gid in (*inode, *groups):
            kinds[gid] = _LINKED
        sums_by_key = [0] * (len(fs.indexes) << _KEY_BITS)
        layer_keys = array("I")
        for number, index in enumerate(fs.indexes):
            layer_keys.extend(array("I", [number << _KEY_BITS]) * len(index))
        states: dict[str, DirectoryState] = {}
        nobody: dict[str, int] = {}
        for directory, names in fs.children.items():
            above_path, _, base = directory.rpartition("/")
            if directory:
                parent = subtrees[above_path]
                above = states[above_path]
                state = above.children.get(base)
                if state is None:
                    state = classifier.directory(directory, above)
                owner_here = roots.get(directory, parent.owner) if roots else _NOBODY
            else:
                parent, state, owner_here = None, classifier.directory("", None), roots.get("", _NOBODY)
            states[directory] = state
            tree = subtrees[directory] = Subtree(owner=owner_here, purpose=state.purpose, parent=parent)
            seen, look = state.seen, state.look
            owned = owned_names.get(directory, nobody)
            owner = owner_here
            decisions = state.decisions.get(hints[owner]) or classifier.decisions(state, *hints[owner])
            sums: dict[int, int] = {}
            size_bytes = files = 0
            for name, gid in names.items():
                if gid < 0:
                    continue
                if kinds[gid]:
                    if kinds[gid] != _LINKED:
                        continue
                    gid = inode.get(gid, gid)
                    group = groups.get(gid)
                    if types[gid] != _FILE or (group is not None and group[0] != f"{directory}/{name}"):
                        continue
                if owned:
                    owner_now = owned.get(name, owner_here)
                    if owner_now != owner:
                        if owner >= 0:
                            package_bytes[owner] += size_bytes
                            package_files[owner] += files
                        tree.size_bytes += size_bytes
                        tree.files += files
                        size_bytes = files = 0
                        owner = owner_now
                        decisions = state.decisions.get(hints[owner]) or classifier.decisions(
                            state, *hints[owner]
                        )
                found = seen.get(name)
                if found is None:
                    found = look(name)
                category = decisions[found]
                categories[gid] = category
                if owner >= 0:
                    owners[gid] = owner
                files += 1
                size = sizes[gid]
                if size:
                    size_bytes += size
                    key = layer_keys[gid] | category
                    sums[key] = sums.get(key, 0) + size
            if files:
                if owner >= 0:
                    package_bytes[owner] += size_bytes
                    package_files[owner] += files
                tree.size_bytes += size_bytes
                tree.files += files
            for key, size in sums.items():
                sums_by_key[key] += size
                category = key & _CATEGORY_MASK
                tree.layers |= 1 << (key >> _KEY_BITS)
                tree.categories[category] = tree.categories.get(category, 0) + size
        self._sum_up(sums_by_key)

    def _sum_up(self, sums_by_key: Sequence[int]) -> None:
        """Each directory's sums into those of the one above, and the image's own."""
        for tree in reversed(self.subtrees.values()):
            above = tree.parent
            if above is not None and tree.files:
                above.size_bytes += tree.size_bytes
                above.files += tree.files
                above.layers |= tree.layers
                into = above.categories
                for category, size in tree.categories.items():
                    into[category] = into.get(category, 0) + size
        top = self.subtrees[""]
        self.live_bytes, self.live_files = top.size_bytes, top.files
        for category, size in top.categories.items():
            self.category_bytes[category] = size
        self.category_files = [self.categories.count(category) for category in range(len(CATEGORIES))]
        self.category_files[0] -= (
            self.fs.entry_count - self.live_files
        )  # entries without a category have its number
        for key, size in enumerate(sums_by_key):
            if size:
                self.layer_categories[key >> _KEY_BITS][key & _CATEGORY_MASK] = size

    # -- one path ------------------------------------------------------------------------------------------

    def category_of(self, path: ImagePath) -> str | None:
        """Category of a live file (of a directory: of most of its bytes); None for links and devices."""
        tree = self.subtrees.get("" if path == "/" else path)
        if tree is not None:
            return _dominant(tree.categories)
        gid = self.fs.payload_gid(path)
        if gid is None or self.types[gid] != _FILE:
            return None
        return CATEGORIES[self.categories[gid]]

    def owner_of(self, path: ImagePath) -> Package | None:
        """The package that owns a live path; a link or device belongs to whoever lists it."""
        tree = self.subtrees.get("" if path == "/" else path)
        if tree is not None:
            return self.packages[tree.owner] if tree.owner >= 0 else None
        gid = self.fs.payload_gid(path)
        if gid is None:
            return None
        if self.types[gid] == _FILE:
            owner = self.owners[gid]
        else:
            parent, _, name = path.rpartition("/")
            owner = self._owned.names.get(parent, {}).get(name, self.subtrees[parent].owner)
        return self.packages[owner] if owner >= 0 else None

    # -- paths ---------------------------------------------------------------------------------------------

    def paths(self) -> list[PathReport]:
        """Subtrees worth naming, largest first: see PATH_SHARE, CHILD_SHARE and HOME_CATEGORIES."""
        least = max(1, int(self.live_bytes * PATH_SHARE + 0.999999))
        listed: list[PathReport] = []
        homes = self._homes()
        covered: dict[str, int] = {}
        """Directory → bytes of its largest listed descendant."""
        for directory in reversed(self.subtrees):
            tree = self.subtrees[directory]
            largest = covered.get(directory, 0)
            if tree.size_bytes >= least:
                for path, gid in self._files_from(directory, least):
                    listed.append(self._file_report(path, gid))
                    largest = max(largest, self.sizes[gid])
            elif not largest and directory not in homes:
                continue
            wanted = tree.size_bytes >= least and largest < CHILD_SHARE * tree.size_bytes
            if directory and tree.size_bytes and (wanted or directory in homes):
                listed.append(self._tree_report(directory, tree))
                largest = tree.size_bytes
            if directory:
                parent = directory.rpartition("/")[0]
                covered[parent] = max(covered.get(parent, 0), largest)
        listed.sort(key=lambda report: (-report.size_bytes, report.path))
        return listed

    def _files_from(self, directory: ImagePath, least: int) -> Iterator[tuple[ImagePath, int]]:
        """Path and gid of a directory's own files of at least ``least`` bytes; of hard links, the first name."""
        for name, gid in self.fs.children[directory].items():
            if gid >= 0:
                gid = self.fs.inode.get(gid, gid)
                if self.sizes[gid] >= least and self.types[gid] == _FILE:
                    path = f"{directory}/{name}"
                    group = self.fs.groups.get(gid)
                    if group is None or group[0] == path:
                        yield path, gid

    def _homes(self) -> set[ImagePath]:
        """Directories that the reader looks for, whatever their size."""
        found: set[ImagePath] = set()
        wanted = [CATEGORIES.index(name) for name in HOME_CATEGORIES]
        inside_modules: set[ImagePath] = set()
        for (directory, names), tree in zip(self.fs.children.items(), self.subtrees.values(), strict=True):
            above, _, name = directory.rpartition("/")
            if name in HOME_NAMES:
                if above not in inside_modules:
                    found.add(directory)
                inside_modules.add(directory)
                continue
            if above in inside_modules:
                inside_modules.add(directory)
            purpose = tree.purpose
            if any(map(names.__contains__, HOME_MARKERS)) or (
                purpose != NONE and tree.parent and purpose in wanted and purpose != tree.parent.purpose
            ):
                found.add(directory)
        return found

    def _file_report(self, path: ImagePath, gid: int) -> PathReport:
        owner = self.owners[gid]
        return PathReport(
            path=path,
            size_bytes=self.sizes[gid],
            files=1,
            category=CATEGORIES[self.categories[gid]],
            package=self.packages[owner].name if owner >= 0 else None,
            layers=(self.layer_column[gid],),
        )

    def _tree_report(self, path: ImagePath, tree: Subtree) -> PathReport:
        return PathReport(
            path=path,
            size_bytes=tree.size_bytes,
            files=tree.files,
            category=_dominant(tree.categories) or "other",
            package=self.packages[tree.owner].name if tree.owner >= 0 else None,
            layers=tuple(number for number in range(tree.layers.bit_length()) if tree.layers >> number & 1),
        )

    # -- waste ---------------------------------------------------------------------------------------------

    def waste(
        self, instructions: Sequence[str | None], duplicates: Sequence[DuplicateGroup] | None = None
    ) -> WasteReport:
        """What is stored and not seen, and what is stored twice; ``instructions`` by layer.

        ``duplicates`` are those of :func:`find_duplicates`, where they were looked for already.
        """
        shadowed = sum(self.shadowed_by_layer())
        layer_bytes = self.live_bytes + shadowed
        if duplicates is None:
            duplicates = find_duplicates(self.fs)
        return WasteReport(
            efficiency=round(self.live_bytes / layer_bytes, 6) if layer_bytes else 1.0,
            dive_efficiency=self.dive_efficiency(),
            shadowed_bytes=shadowed,
            duplicate_bytes=sum(group.size_bytes * (len(group.paths) - 1) for group in duplicates),
            items=self._waste_items(instructions),
            duplicates=duplicates,
        )

    def shadowed_by_layer(self) -> list[int]:
        """Shadowed bytes of each layer that stores them."""
        sums = [0] * len(self.fs.indexes)
        for shadow in self._shadows:
            sums[self.layer_column[shadow.gid]] += self.sizes[shadow.gid]
        return sums

    def _waste_items(self, instructions: Sequence[str | None]) -> list[WasteItem]:
        grouped: dict[tuple[ShadowKind, int, ImagePath], list[int]] = {}
        changed: dict[tuple[ShadowKind, int, int], list[tuple[ImagePath, int]]] = {}
        for shadow in self._shadows:
            if shadow.kind == "deleted":
                grouped.setdefault(("deleted", shadow.by_layer, shadow.at), []).append(shadow.gid)
            else:
                kind: ShadowKind = "metadata-only" if self._same_content(shadow) else "overwritten"
                stored = self.layer_column[shadow.gid]
                changed.setdefault((kind, stored, shadow.by_layer), []).append((shadow.at, shadow.gid))
        for (kind, _, by_layer), members in changed.items():
            for at, gids in self._topmost(members):
                grouped.setdefault((kind, by_layer, at), []).extend(gids)
        items = []
        for (kind, by_layer, at), gids in grouped.items():
            size = sum(self.sizes[gid] for gid in gids)
            if size:
                stored_in = sorted({self.layer_column[gid] for gid in gids if self.sizes[gid]})
                items.append(
                    WasteItem(at, kind, size, (*stored_in, by_layer), instructions[by_layer], len(gids))
                )
        items.sort(key=lambda item: (-item.size_bytes, item.path, item.layers))
        return items

    def _topmost(self, members: Sequence[tuple[ImagePath, int]]) -> Iterator[tuple[ImagePath, list[int]]]:
        """Files that one layer changed, gathered under the topmost directory all of whose files they are."""
        counts: dict[str, int] = {}
        for path, _ in members:
            parent = path.rpartition("/")[0]
            while parent:
                counts[parent] = counts.get(parent, 0) + 1
                parent = parent.rpartition("/")[0]
        gathered: dict[str, list[int]] = {}
        for path, gid in members:
            at, parent = path, path.rpartition("/")[0]
            while parent:
                tree = self.subtrees.get(parent)
                if tree is not None and counts[parent] == tree.files and tree.files > 1:
                    at = parent
                parent = parent.rpartition("/")[0]
            gathered.setdefault(at, []).append(gid)
        yield from gathered.items()

    def _same_content(self, shadow: Shadow) -> bool:
        """True where what replaced the file has the same bytes: only mode, owner or time changed."""
        if shadow.replacement is None:
            return False
        new = self.fs.inode.get(shadow.replacement, shadow.replacement)
        if self.types[new] != _FILE or self.sizes[new] != self.sizes[shadow.gid]:
            return False
        if not self.sizes[new] or new == shadow.gid:
            return True
        if self.fs.check(new) != self.fs.check(shadow.gid):
            return False
        return self.fs.digest(new) == self.fs.digest(shadow.gid)

    def dive_efficiency(self) -> float:
        """dive's figure, by its own definition: Σ smallest size / Σ all sizes, per path over the layers' leaves.

        (dive, filetree/efficiency.go.) A whiteout counts as a size: 0 for a file, for a directory the bytes
        below it, which dive adds to both sums. It calls an image efficient that deletes whole directories.
        """
        discovered = sum(self.sizes) + self.fs.deleted_tree_bytes
        excess = sum(sum(sizes) - min(sizes) for sizes in self.fs.sizes_by_path.values() if sizes)
        return round((discovered - excess) / discovered, 6) if discovered else 1.0


@dataclass(frozen=True, slots=True)
class EqualFiles:
    """Stored regular files of one content, whether a container sees them or not."""

    digest: bytes
    """SHA-256."""
    size_bytes: int
    gids: Sequence[int]


def find_equal(stored: StoredEntries, *, by_digest: bool = False) -> list[EqualFiles]:
    """Stored files of equal content; only those that may be equal, by size and checksum, are read.

    It needs no squash, so that it can be done beside making one. ``by_digest`` hashes also where comparing would do:
    digests can be remembered.
    """
    checks = stored.checks_column()
    keys = [size << 32 | check for size, check in zip(stored.sizes_column(), checks, strict=True)]
    repeated = {key for key, count in Counter(keys).items() if count > 1 and key >> 32}
    collisions: dict[int, list[int]] = {}
    for gid, key in enumerate(keys):
        if key in repeated:
            collisions.setdefault(key, []).append(gid)
    by_digest = by_digest or any(index.digests for index in stored.indexes)
    least = 0 if by_digest else MAX_COMPARED
    stored.hash_ahead([gid for key, gids in collisions.items() if key >> 32 > least for gid in gids])
    found: list[EqualFiles] = []
    for key, gids in collisions.items():
        size = key >> 32
        for digest, same in _by_digest(stored, gids) if size > least else _by_content(stored, gids):
            found.append(EqualFiles(digest, size, same))
    return found


def _by_digest(stored: StoredEntries, gids: Sequence[int]) -> Iterator[tuple[bytes, list[int]]]:
    """Files of one size that are equal, with their SHA-256."""
    groups: dict[bytes, list[int]] = {}
    for gid in gids:
        groups.setdefault(stored.digest(gid), []).append(gid)
    return ((digest, same) for digest, same in groups.items() if len(same) > 1)


def _by_content(stored: StoredEntries, gids: Sequence[int]) -> Iterator[tuple[bytes, list[int]]]:
    """As :func:`_by_digest`, but compared byte by byte, which is cheaper than hashing each of them."""
    contents: list[bytes] = []
    groups: list[list[int]] = []
    for gid in gids:
        content = stored.read_gid(gid)
        for known, same in zip(contents, groups, strict=True):
            if known == content:
                same.append(gid)
                break
        else:
            if len(contents) == MAX_CONTENTS:
                return _by_digest(stored, gids)
            contents.append(content)
            groups.append([gid])
    return (
        (sha256(content).digest(), same)
        for content, same in zip(contents, groups, strict=True)
        if len(same) > 1
    )


def live_duplicates(fs: Filesystem, equal: Iterable[EqualFiles]) -> list[DuplicateGroup]:
    """Those of equal files that a container sees at different paths, most wasted bytes first."""
    sought = {gid for files in equal for gid in files.gids}
    paths = {gid: path for path, gid in fs.live.items() if gid in sought and gid not in fs.groups}
    paths |= {gid: names[0] for gid, names in fs.groups.items() if gid in sought}
    report = []
    for files in equal:
        names = sorted(paths[gid] for gid in files.gids if gid in paths)
        if len(names) > 1:
            report.append(DuplicateGroup("sha256:" + files.digest.hex(), files.size_bytes, names))
    report.sort(key=lambda group: (-group.size_bytes * (len(group.paths) - 1), group.paths[0]))
    return report


def find_duplicates(fs: Filesystem) -> list[DuplicateGroup]:
    """Live files of equal content at different paths, most wasted bytes first."""
    return live_duplicates(fs, find_equal(fs))


class _Ownership:
    """Which package owns which path: OS databases by path first, then the innermost language package."""

    def __init__(self, fs: Filesystem, packages: list[Package]) -> None:
        self.names: dict[ImagePath, dict[str, int]] = {}
        """Directory → name in it → index of the package that lists this very path."""
        self.roots: dict[ImagePath, int] = {}
        """Directory → index of the package that owns it with all below."""
        by_os = [package for package in packages if package.is_os]
        self.packages: list[Package] = []
        os_names = self.names
        for package in by_os:
            self._add(fs, package, os_names)
        languages: dict[ImagePath, dict[str, int]] = {}
        shipped: list[Package] = []
        for package in packages:
            if package.is_os:
                continue
            location = fs.resolve_parent(package.location)
            parent, _, name = location.rpartition("/")
            if name in os_names.get(parent, ()) or self._inside_os_root(location):
                shipped.append(
                    package
                )  # a distribution that an OS package ships is reported with that package
                continue
            self._add(fs, package, languages)
        for directory, names in languages.items():
            known = os_names.setdefault(directory, {})
            for name, owner in names.items():
                known.setdefault(name, owner)

    def _add(self, fs: Filesystem, package: Package, into: dict[ImagePath, dict[str, int]]) -> None:
        number = len(self.packages)
        self.packages.append(package)
        last: ImagePath | None = None
        names: dict[str, int] = {}
        for path in package.paths:
            parent, _, name = path.rpartition("/")
            if parent != last:  # most follow one of the same directory
                last = parent
                names = into.setdefault(fs.resolve_parent(path).rpartition("/")[0], {})
            names.setdefault(name, number)
        for root in package.roots:
            resolved = fs.resolve_parent(root)
            if resolved in fs.children:
                self.roots.setdefault(resolved, number)

    def _inside_os_root(self, location: ImagePath) -> bool:
        parent = location.rpartition("/")[0]
        while parent:
            owner = self.roots.get(parent)
            if owner is not None:
                return self.packages[owner].is_os
            parent = parent.rpartition("/")[0]
        return False


def _dominant(categories: dict[int, int]) -> str | None:
    """The category with most bytes; the earlier one of the list where two have as many."""
    if not categories:
        return None
    return CATEGORIES[min(categories, key=lambda category: (-categories[category], category))]
