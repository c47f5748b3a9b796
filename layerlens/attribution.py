"""Whose bytes they are: by layer, instruction, category, package and path; and which are waste.

Everything here counts payload bytes of regular files. The payload of a hard-link group is counted once, at
the group's first path. Directories are classified once, in one pass from the root down, and files inherit;
sums go back up in one pass, so that the work grows with the number of entries and nothing else.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from layerlens.categories import CATEGORIES, NONE, Classifier
from layerlens.filesystem import Filesystem, Shadow
from layerlens.model import EntryType, ImagePath, Package, ShadowKind
from layerlens.report import DuplicateGroup, PathReport, WasteItem, WasteReport
from layerlens.tarindex import SMALL

_FILE = int(EntryType.FILE)
_NOBODY = -1

PATH_SHARE = 0.01
"""Share of the live bytes from which on a subtree is listed."""
CHILD_SHARE = 0.9
"""Share of a directory's bytes from which on a listed descendant stands for it."""
HOME_CATEGORIES = ("package-cache", "vcs", "compilers")
"""Categories whose topmost directories are listed whatever their size."""
HOME_NAMES = frozenset({"node_modules"})
HOME_MARKERS = frozenset({"pyvenv.cfg"})


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
        fs, sizes, types, layer_column = self.fs, self.sizes, self.types, self.layer_column
        categories, owners, subtrees = self.categories, self.owners, self.subtrees
        category_bytes, category_files = self.category_bytes, self.category_files
        layer_categories = self.layer_categories
        package_bytes, package_files = self.package_bytes, self.package_files
        directory_state, file_category = self._classifier.directory, self._classifier.file
        purpose_of = self._classifier.purpose
        inode, groups = fs.inode, fs.groups
        has_links = bool(groups)
        owned_names, roots = self._owned.names, self._owned.roots
        hints = [(package.category, package.ecosystem) for package in self.packages]
        states: dict[str, object] = {}
        children = fs.children
        nothing: dict[str, int] = {}
        for directory, names in children.items():
            tree = subtrees[directory] = Subtree()
            if directory:
                parent = directory.rpartition("/")[0]
                state = directory_state(directory, states[parent])
                inherited = subtrees[parent].owner
            else:
                state = directory_state("", None)
                inherited = _NOBODY
            states[directory] = state
            tree.purpose = purpose_of(state)
            tree.owner = owner_here = roots.get(directory, inherited)
            owned = owned_names.get(directory, nothing)
            total = files = mask = 0
            sums = tree.categories
            for name, gid in names.items():
                if gid < 0:
                    continue
                if has_links:
                    gid = inode.get(gid, gid)
                    group = groups.get(gid)
                    if group is not None and group[0] != f"{directory}/{name}":
                        continue
                if types[gid] != _FILE:
                    continue
                owner = owned.get(name, owner_here) if owned else owner_here
                if owner < 0:
                    category = file_category(name, state, None, None)
                else:
                    hint, ecosystem = hints[owner]
                    category = file_category(name, state, hint, ecosystem)
                    owners[gid] = owner
                    package_bytes[owner] += sizes[gid]
                    package_files[owner] += 1
                categories[gid] = category
                size = sizes[gid]
                layer = layer_column[gid]
                files += 1
                category_files[category] += 1
                if size:
                    total += size
                    mask |= 1 << layer
                    sums[category] = sums.get(category, 0) + size
                    layer_categories[layer][category] += size
            tree.size_bytes, tree.files, tree.layers = total, files, mask
        for directory in reversed(list(children)):
            tree = subtrees[directory]
            if directory:
                above = subtrees[directory.rpartition("/")[0]]
                above.size_bytes += tree.size_bytes
                above.files += tree.files
                above.layers |= tree.layers
                for category, size in tree.categories.items():
                    above.categories[category] = above.categories.get(category, 0) + size
        top = subtrees[""]
        self.live_bytes, self.live_files = top.size_bytes, top.files
        for category, size in top.categories.items():
            category_bytes[category] = size

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
        for directory in reversed(list(self.subtrees)):
            tree = self.subtrees[directory]
            largest = covered.get(directory, 0)
            if tree.size_bytes >= least:
                for name, gid in self.fs.children[directory].items():
                    if gid < 0:
                        continue
                    gid = self.fs.inode.get(gid, gid)
                    size = self.sizes[gid]
                    if size < least or self.types[gid] != _FILE:
                        continue
                    path = f"{directory}/{name}"
                    group = self.fs.groups.get(gid)
                    if group is None or group[0] == path:
                        listed.append(self._file_report(path, gid))
                        largest = max(largest, size)
            wanted = tree.size_bytes >= least and largest < CHILD_SHARE * tree.size_bytes
            if directory and tree.size_bytes and (wanted or directory in homes):
                listed.append(self._tree_report(directory, tree))
                largest = tree.size_bytes
            if directory:
                parent = directory.rpartition("/")[0]
                covered[parent] = max(covered.get(parent, 0), largest)
        listed.sort(key=lambda report: (-report.size_bytes, report.path))
        return listed

    def _homes(self) -> set[ImagePath]:
        """Directories that the reader looks for, whatever their size."""
        found: set[ImagePath] = set()
        wanted = [CATEGORIES.index(name) for name in HOME_CATEGORIES]
        inside_modules: set[ImagePath] = set()
        for directory, tree in self.subtrees.items():
            parent, _, name = directory.rpartition("/")
            nested = parent in inside_modules
            if nested or name in HOME_NAMES:
                inside_modules.add(directory)
            if name in HOME_NAMES:
                if not nested:
                    found.add(directory)
            elif HOME_MARKERS & self.fs.children[directory].keys() or (
                tree.purpose in wanted and directory and tree.purpose != self.subtrees[parent].purpose
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


def find_duplicates(fs: Filesystem, *, by_digest: bool = False) -> list[DuplicateGroup]:
    """Live files of equal content, most wasted bytes first; only files that may be equal are looked at.

    ``by_digest`` hashes small ones as well, where comparing them would do: digests can be remembered.
    """
    sizes = fs.sizes_column()
    types = fs.types_column()
    by_digest = by_digest or any(index.digests for index in fs.indexes)
    checks = fs.checks_column()
    first: dict[int, int] = {}
    collisions: dict[int, list[int]] = {}
    path_of: dict[int, str] = {}
    inode, groups = fs.inode, fs.groups
    for path, gid in fs.live.items():
        if gid < 0 or types[gid] != _FILE:
            continue
        size = sizes[gid]
        if not size or gid in inode or gid in groups:
            continue
        key = size << 32 | checks[gid]
        earlier = first.setdefault(key, gid)
        if earlier != gid:
            found = collisions.get(key)
            if found is None:
                collisions[key] = [earlier, gid]
            else:
                found.append(gid)
        path_of[gid] = path
    for gid, names in groups.items():
        size = sizes[gid]
        if size and types[gid] == _FILE:
            key = size << 32 | checks[gid]
            path_of[gid] = names[0]
            earlier = first.setdefault(key, gid)
            if earlier != gid:
                collisions.setdefault(key, [earlier]).append(gid)
    report: list[DuplicateGroup] = []
    fs.hash_ahead([gid for key, gids in collisions.items() if key >> 32 > SMALL for gid in gids])
    for key, gids in collisions.items():
        by_content: dict[bytes, list[int]] = {}
        # Comparing small contents is cheaper than hashing each; a digest is needed only once a group.
        content = fs.read_gid if key >> 32 <= SMALL and not by_digest else fs.digest
        for gid in sorted(gids):
            by_content.setdefault(content(gid), []).append(gid)
        for same in by_content.values():
            if len(same) > 1:
                names = sorted(path_of[gid] for gid in same)
                digest = fs.digest(same[0]).hex()
                report.append(DuplicateGroup("sha256:" + digest, key >> 32, names))
    report.sort(key=lambda group: (-group.size_bytes * (len(group.paths) - 1), group.paths[0]))
    return report


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
        for path in package.paths:
            parent, _, name = fs.resolve_parent(path).rpartition("/")
            names = into.get(parent)
            if names is None:
                names = into[parent] = {}
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
