"""Why a file is not needed: what names it but is not needed itself, or that nothing in the image does.

The ecosystems are asked once more, of files that the search never reached, by explorers of their own, so that what
they note on the way changes nothing of the plan. Asked of all files at once that takes about as long as the search;
asked of one, only files are looked at that hold its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property

from layerlens.ecosystems import UNNEEDED_CATEGORIES, ImageView, ecosystems, explorers_of
from layerlens.errors import LayerLensError
from layerlens.graph import Needs, shebang
from layerlens.model import Command, Edge, EntryType, ImagePath, Package, Severity

_FILE, _DIR, _SYMLINK = EntryType.FILE, EntryType.DIR, EntryType.SYMLINK

NAMED_BY_FOLDER = frozenset(("index", "__init__", "__main__", "main", "mod"))
"""Files that others name by the folder that they are in (Node's LOAD_AS_DIRECTORY, Python's packages …)."""
READ_LIMIT = 64 << 20
"""Bytes of a file in which a name is looked for."""
MOST_EDGES = 20
"""What names one path is told up to this number."""


class _Quiet(ImageView):
    """A view in which what cannot be known is not told: of files that nothing needs nobody wants to hear."""

    def diagnose(
        self, code: str, message: str, path: ImagePath | None = None, severity: Severity = "warning"
    ) -> None:
        """Nothing."""


class Unneeded:
    """What would need the live paths that ``needs`` does not keep."""

    def __init__(self, needs: Needs) -> None:
        self.needs, self.fs, self.attribution = needs, needs.fs, needs.attribution
        view = needs.view
        self._view = _Quiet(view.fs, view.config, view.packages, view.owner_of, view.category_of, view.env)
        specific, any_word = explorers_of(ecosystems(), self._view)
        self._explorers = [*specific, *any_word]
        self._one: dict[ImagePath, list[Edge]] = {}
        self._all: dict[ImagePath, list[Edge]] | None = None

    def named_by(self, path: ImagePath) -> list[Edge]:
        """What names a path that is not kept, and is not kept itself: files, then packages that require its own.

        At most ``MOST_EDGES``, sorted; none for a directory.
        """
        if self.fs.type_of(path) == _DIR:
            return []
        if self._all is not None:
            return self._told(path, self._all.get(path, ()))
        if path not in self._one:
            asked = [edge for edge in self._edges(path) if self._ends_at(edge, path)]
            self._one[path] = self._told(path, asked)
        return self._one[path]

    def find_all(self) -> None:
        """Find what names what in one pass, so that :meth:`named_by` has all the answers."""
        if self._all is not None:
            return
        self._all = {}
        for edge in self._edges(None):
            for target in self._ends(edge):
                edges = self._all.setdefault(target, [])
                if len(edges) < MOST_EDGES:
                    edges.append(edge)

    def reason(self, path: ImagePath, named: list[Edge]) -> str:
        """One sentence for people, where ``named`` is what :meth:`named_by` says."""
        if self.fs.type_of(path) == _DIR:
            return (
                "nothing below it is needed"
                if self.fs.listdir(path)
                else "an empty directory that nothing asks for"
            )
        if named:
            first = named[0]
            more = f" ({len(named) - 1} more do)" if len(named) > 1 else ""
            owner = self.attribution.owner_of(path)
            who = f"{first.source} needs it: {first.evidence}"
            if first.kind == "package-file" and owner is not None:
                return f"only its own package {owner.ecosystem}:{owner.name} needs it, and nothing that is kept does"
            if first.kind == "depends":
                who = f"{first.evidence} ({first.source})"
            return f"{who}; but nothing that is kept needs that{more}"
        owner, category = self.attribution.owner_of(path), self.attribution.category_of(path)
        nothing = "nothing in the image names it"
        if owner is None:
            return nothing
        name = f"{owner.ecosystem}:{owner.name}"
        if id(owner) in self._kept_owners:
            without = f", but without its {category}" if category in UNNEEDED_CATEGORIES else ""
            return f"its package {name} is needed{without}; {nothing}"
        return f"{nothing}, and nothing requires its package {name}"

    # -- what names what -----------------------------------------------------------------------------------

    def _edges(self, only: ImagePath | None) -> Iterator[Edge]:
        """Everything that files which are not kept ask for; ``only``: of those that hold the name of that path."""
        fs, kept = self.fs, self.needs.kept
        words = None if only is None else self._words(only)
        for path in sorted(fs.live):
            if path in kept:
                continue
            kind = fs.type_of(path)
            if kind == _SYMLINK:
                target = fs.entry(path).link_target
                yield Edge(path, path, "symlink", f"symbolic link to {target}", "certain")
            elif kind == _FILE and path != only and (words is None or self._holds(path, words)):
                for item in self._asked(path):
                    edge = self._program(item) if isinstance(item, Command) else item
                    if edge is not None and edge.target != path:
                        yield edge

    def _asked(self, path: ImagePath) -> Iterator[Edge | Command]:
        """What one file asks for, and what it would ask for if it were run, where a ``#!`` line says how."""
        for explorer in self._explorers:
            yield from explorer.edges(path)
        interpreter = shebang(self._view.head(path))
        if not interpreter:
            return
        config = self._view.config
        line = "#!" + " ".join(interpreter)
        run = Command(path, (*interpreter, path), line, config.workdir or "/", self._view.env, "interpreter")
        found = self.needs.find_program(run)
        program = None if found is None else self.fs.follow(found)
        if found is None or program is None:
            return
        yield Edge(path, found, "interpreter", line, "certain")
        for explorer in self._explorers:
            yield from explorer.command(replace(run, argv=(found, *run.argv[1:])), program)

    def _program(self, command: Command) -> Edge | None:
        found = self.needs.find_program(command) if command.argv else None
        if found is None:
            return None
        return Edge(command.source, found, command.kind, command.evidence, command.certainty)

    def _ends(self, edge: Edge) -> Iterator[ImagePath]:
        """The paths that are not kept and that an edge leads to: links on the way, and the end."""
        walked: list[ImagePath] = []
        try:
            walked.append(self.fs.resolve(edge.target, walked))
        except LayerLensError:
            pass  # the links that lead nowhere are named all the same
        for path in dict.fromkeys(walked):
            if path not in self.needs.kept and path != edge.source:
                yield path

    def _ends_at(self, edge: Edge, path: ImagePath) -> bool:
        return any(target == path for target in self._ends(edge))

    def _words(self, path: ImagePath) -> re.Pattern[bytes]:
        """What a file that names ``path`` holds: its name without endings, that of a link to it, or its folder's."""
        names = {path}
        for link in self.fs.live:
            if self.fs.type_of(link) == _SYMLINK and self.fs.follow(link) == path:
                names.add(link)
        words = set()
        for name in names:
            folder, _, last = name.rpartition("/")
            stem = last.lstrip(".").split(".")[0] or last
            words.add(stem)
            if stem in NAMED_BY_FOLDER:
                words.add(folder.rpartition("/")[2] or stem)
        owner = self.attribution.owner_of(path)
        if owner is not None and not owner.is_os:
            words.add(owner.name)
        spelled = {one.encode("utf-8", "surrogateescape") for one in words}
        return re.compile(b"|".join(re.escape(one) for one in sorted(spelled)))

    def _holds(self, path: ImagePath, words: re.Pattern[bytes]) -> bool:
        try:
            return words.search(self.fs.read(path, READ_LIMIT)) is not None
        except (LayerLensError, OSError):
            return False

    def _told(self, path: ImagePath, edges: Iterable[Edge]) -> list[Edge]:
        unique = {(edge.source, edge.kind): edge for edge in edges}
        owner = self.attribution.owner_of(path)
        # What names a file says more than what only belongs to the same package.
        found = [unique[key] for key in sorted(unique, key=lambda key: (key[1] == "package-file", key))]
        if owner is not None:
            found += [
                Edge(location, path, "depends", evidence, "assumed")
                for location, evidence in self._requirers.get(id(owner), ())
            ]
        return found[:MOST_EDGES]

    # -- packages ------------------------------------------------------------------------------------------

    @cached_property
    def _kept_owners(self) -> set[int]:
        """Identities of the packages of which some file is kept."""
        owners = (self.attribution.owner_of(path) for path in self.needs.kept)
        return {id(owner) for owner in owners if owner is not None}

    @cached_property
    def _requirers(self) -> Mapping[int, list[tuple[ImagePath, str]]]:
        """For each package of which no file is kept, the packages that require it and are not kept either."""
        by_name: dict[tuple[str, str], list[Package]] = {}
        packages = self.attribution.packages
        for package in packages:
            for name in {package.name, *(word.split(" ")[0] for word in package.provides)}:
                by_name.setdefault((package.ecosystem, name), []).append(package)
        found: dict[int, list[tuple[ImagePath, str]]] = {}
        for package in packages:
            if id(package) in self._kept_owners:
                continue
            for relation in package.requires:
                for word in relation.split("|"):
                    for owner in by_name.get((package.ecosystem, required_name(word)), ()):
                        if owner is not package and id(owner) not in self._kept_owners:
                            told = (package.location, f"{package.name} requires {relation.strip()}")
                            if told not in found.setdefault(id(owner), []):
                                found[id(owner)].append(told)
        return found


def required_name(relation: str) -> str:
    """The name in a requirement: ``libc6 (>= 2.36)``, ``requests>=2``, ``so:libz.so.1`` → the word in front."""
    return re.split(r"[\s(<>=!~\[;@]", relation.strip(), maxsplit=1)[0]
