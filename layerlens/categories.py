"""What files are for: one category for each, from a table.

The table is ``categories.toml`` beside this module; what it says is data, how it is read is here. A category is
found in two parts. *Purposes* (``secrets`` to ``sources``) may be given by a directory, by the file's name or by
its package, and of those that fit the first in the list decides. *Parts* (``runtime`` to ``other``) say what a file
belongs to: the package's category if it has one, else the innermost directory that the table knows, else what the
table says of files that this package manager owns, else what it says of the outermost directory.

Directories are classified once, top down, and files inherit, so that a file costs a look-up of its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

CATEGORIES: tuple[str, ...] = (
    *(
        "secrets",
        "vcs",
        "package-cache",
        "logs-temp",
        "dev-dependencies",
        "compilers",
        "headers",
        "static-libs",
    ),
    *("debug", "docs", "locale", "tests", "sources", "runtime", "dependencies", "app", "os-base", "other"),
)
"""The closed list, in the order in which the first that fits decides."""

FIRST_PART = CATEGORIES.index("runtime")
"""From here on a category says what a file is part of rather than what it is for."""

NONE = len(CATEGORIES)
"""Index that stands for no category: after all of them."""

Table = Mapping[str, Any]

_CONTEXTS = ("system", "config", "app", "library")


@cache
def table() -> Table:
    """The table as parsed, once."""
    import tomllib

    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


class _Names:
    """File patterns of one context: exact names, suffixes, and the rest tried one by one."""

    __slots__ = ("ends", "exact", "heads", "seen", "suffixes", "wild")

    def __init__(self) -> None:
        self.exact: dict[str, int] = {}
        self.suffixes: dict[str, tuple[int, tuple[tuple[str, int], ...]]] = {}
        """By last suffix without its dot: what that alone says, and longer endings (of ``map``: ``.js.map``)."""
        self.wild: list[tuple[str, str, int]] = []
        """(prefix, suffix, category) of patterns with a ``*`` elsewhere."""
        self.heads: tuple[str, ...] = ()
        """Their prefixes, and in ``ends`` the suffixes of those without: one look tells that none fits."""
        self.ends: tuple[str, ...] = ()
        self.seen: dict[str, int] = {}

    def add(self, pattern: str, category: int) -> None:
        """Adds a row; of two for the same name the first category in the list stays."""
        head, star, tail = pattern.partition("*")
        if not star:
            _put(self.exact, pattern, category)
        elif not head and "." in tail:
            longer, _, suffix = tail.rpartition(".")
            alone, tails = self.suffixes.get(suffix, (NONE, ()))
            if longer:
                self.suffixes[suffix] = alone, (*tails, (tail, category))
            else:
                self.suffixes[suffix] = min(alone, category), tails
        else:
            self.add_wild(head, tail, category)

    def add_wild(self, head: str, tail: str, category: int) -> None:
        """Adds a pattern that is neither exact nor an ending."""
        self.wild.append((head, tail, category))
        if head:
            self.heads += (head,)
        else:
            self.ends += (tail,)

    def look(self, name: str) -> int:
        """The first category whose pattern fits, or NONE; remembered."""
        found = self.exact.get(name, NONE)
        _, dot, suffix = name.rpartition(".")
        if dot and suffix in self.suffixes:
            alone, tails = self.suffixes[suffix]
            if alone < found:
                found = alone
            for tail, category in tails:
                if category < found and name.endswith(tail):
                    found = category
        if name.startswith(self.heads) or name.endswith(self.ends):
            for head, tail, category in self.wild:
                if category < found and name.startswith(head) and name.endswith(tail):
                    found = category
        self.seen[name] = found
        return found


class _Node:
    """A step of a directory pattern: what the directory reached is, and what may follow."""

    __slots__ = ("category", "exact", "files", "wild", "zone")

    def __init__(self) -> None:
        self.category = NONE
        self.zone: tuple[str, int] | None = None
        self.exact: dict[str, _Node] = {}
        self.wild: list[tuple[str, str, _Node]] = []
        self.files: list[tuple[str, str | None, int]] = []
        """Patterns of single files here: (name or prefix, suffix or None where exact, category)."""

    def grow(self, component: str) -> _Node:
        """The node that a component of a pattern leads to."""
        head, star, tail = component.partition("*")
        if not star:
            return self.exact.setdefault(component, _Node())
        for known_head, known_tail, node in self.wild:
            if (known_head, known_tail) == (head, tail):
                return node
        node = _Node()
        self.wild.append((head, tail, node))
        return node

    def step(self, name: str) -> list[_Node]:
        """The nodes that a directory's name leads to."""
        found = [self.exact[name]] if name in self.exact else []
        for head, tail, node in self.wild:
            if name.startswith(head) and name.endswith(tail) and len(name) >= len(head) + len(tail):
                found.append(node)
        return found


class DirectoryState:
    """What a directory passes on to what lies in it."""

    __slots__ = (
        "children",
        "context",
        "decisions",
        "fallback",
        "look",
        "nodes",
        "part",
        "plain",
        "purpose",
        "seen",
    )

    def __init__(
        self, context: str, purpose: int, part: int, fallback: int, nodes: tuple[_Node, ...], names: _Names
    ) -> None:
        self.context = context
        self.purpose = purpose
        """Index of the category that the directory itself stands for, with all below it; NONE if for none."""
        self.part = part
        self.fallback = fallback
        self.nodes = nodes
        self.seen = names.seen
        """File name → index of what the name alone says, or NONE; :attr:`look` finds what is not in it yet."""
        self.look = names.look
        self.children: dict[str, DirectoryState] = {}
        """States of subdirectories by name, as far as they were asked for."""
        self.plain: dict[bool, DirectoryState] = {}
        """The state of a subdirectory whose name says nothing, by whether it is a package for its place."""
        self.decisions: dict[tuple[str | None, str | None], bytes] = {}


class Classifier:
    """Assigns categories; one is built from the table and serves for any number of images."""

    def __init__(self, rows: Table | None = None) -> None:
        rows = table() if rows is None else rows
        self._index = {name: index for index, name in enumerate(CATEGORIES)}
        self._owned = {name: self._index[category] for name, category in rows["owned"].items()}
        self._owned_default = self._owned["*"]
        self._containers = frozenset(_words(rows["containers"]["names"]))
        self._anchored = _Node()
        self._anywhere = {context: _Node() for context in (*_CONTEXTS, "package")}
        self._names = {context: _Names() for context in _CONTEXTS}
        self._names["package"] = self._names["container"] = self._names["library"]
        self._states: dict[tuple[object, ...], DirectoryState] = {}
        self._read(rows)
        root = self._anchored.zone
        assert root is not None, "the table has a zone for /"
        self._root = self._state(root[0], NONE, NONE, root[1], (self._anchored,))

    def directory(self, path: str, parent: DirectoryState | None) -> DirectoryState:
        """The state of a directory from its parent's; ``parent`` is None for the root, whose path is "" or "/".

        Called once for each directory, parents first.
        """
        if parent is None:
            if path in ("", "/"):
                return self._root
            parent = self._root
        name = path[path.rfind("/") + 1 :]
        state = parent.children.get(name)
        return self._enter(parent, name) if state is None else state

    def file(self, name: str, state: DirectoryState, owner_category: str | None, owned_by: str | None) -> int:
        """Index into ``CATEGORIES`` of the file ``name`` in the directory that ``state`` was made for.

        ``owner_category`` is what the owning package is for (``Package.category``) and ``owned_by`` its ecosystem;
        both None for a file that no package owns.
        """
        found = state.seen.get(name)
        if found is None:
            found = state.look(name)
        return self.decisions(state, owner_category, owned_by)[found]

    def decisions(self, state: DirectoryState, owner_category: str | None, owned_by: str | None) -> bytes:
        """The category of a file in a directory of this state, by what its name alone says (or NONE)."""
        decisions = state.decisions.get((owner_category, owned_by))
        if decisions is None:
            decisions = bytes(
                self._decide(found, state, owner_category, owned_by) for found in range(NONE + 1)
            )
            state.decisions[owner_category, owned_by] = decisions
        return decisions

    def _decide(
        self, found: int, state: DirectoryState, owner_category: str | None, owned_by: str | None
    ) -> int:
        purpose = state.purpose
        if owner_category is not None:
            by_owner = self._index[owner_category]
            if by_owner >= FIRST_PART:
                best = found if found < purpose else purpose
                return best if best < FIRST_PART else by_owner
            if by_owner < purpose:
                purpose = by_owner
        if found < purpose:
            purpose = found
        if purpose != NONE:
            return purpose
        if state.part != NONE:
            return state.part
        if owned_by is not None:
            return self._owned.get(owned_by, self._owned_default)
        return state.fallback

    # -- building ------------------------------------------------------------------------------------------

    def _read(self, rows: Table) -> None:
        for context, by_category in rows["zones"].items():
            for category, pattern in _rows(by_category):
                self._node(self._anchored, pattern).zone = (context, self._index[category])
        for context, by_category in rows["directories"].items():
            contexts = tuple(self._anywhere) if context == "any" else (context,)
            if context == "library":
                contexts = ("library", "package")
            for category, pattern in _rows(by_category):
                starts = (
                    (self._anchored,)
                    if pattern.startswith("/")
                    else tuple(self._anywhere[context] for context in contexts)
                )
                for start in starts:
                    node = self._node(start, pattern)
                    node.category = min(node.category, self._index[category])
        for context, by_category in rows["files"].items():
            contexts = _CONTEXTS if context == "any" else (context,)
            for category, pattern in _rows(by_category):
                for one in contexts:
                    if "/" in pattern:
                        self._add_path(self._anywhere[one], pattern, self._index[category])
                    else:
                        self._names[one].add(pattern, self._index[category])
        for category, pattern in _rows(rows["paths"]):
            self._add_path(self._anchored, pattern, self._index[category])

    def _add_path(self, start: _Node, pattern: str, category: int) -> None:
        folder, _, name = pattern.rpartition("/")
        head, star, tail = name.partition("*")
        self._node(start, folder).files.append((head, tail if star else None, category))

    @staticmethod
    def _node(start: _Node, pattern: str) -> _Node:
        for component in pattern.split("/"):
            if component:
                start = start.grow(component)
        return start

    def _state(
        self, context: str, purpose: int, part: int, fallback: int, nodes: tuple[_Node, ...]
    ) -> DirectoryState:
        key = (context, purpose, part, fallback, *map(id, nodes))
        state = self._states.get(key)
        if state is None:
            names = self._names[context]
            local = [row for node in nodes for row in node.files]
            state = self._states[key] = DirectoryState(
                context, purpose, part, fallback, nodes, _with_local(names, local) if local else names
            )
        return state

    def _enter(self, parent: DirectoryState, name: str) -> DirectoryState:
        """The state of the child directory ``name``, remembered with its parent."""
        package = parent.context == "container" and not name.startswith((".", "@"))
        steps: list[_Node] = []
        for node in parent.nodes:
            steps += node.step(name)
        if not package:
            anywhere = parent.context if parent.context != "container" else "library"
            steps += self._anywhere[anywhere].step(name)
        if steps:
            state = self._stepped(parent, name, package, steps)
        elif package in parent.plain:
            state = parent.plain[package]
        else:
            state = parent.plain[package] = self._stepped(parent, name, package, steps)
        parent.children[name] = state
        return state

    def _stepped(
        self, parent: DirectoryState, name: str, package: bool, steps: Sequence[_Node]
    ) -> DirectoryState:
        """The state of a child directory whose name led to ``steps``; without any, the name decides nothing."""
        context, purpose, part, fallback = parent.context, parent.purpose, parent.part, parent.fallback
        if context == "container":
            context = "package" if package else "container"
        elif context == "package":
            context = "library"
        for node in steps:
            if node.zone is not None:
                context, fallback = node.zone
                purpose, part = NONE, NONE
        category = min((node.category for node in steps), default=NONE)
        if category != NONE:
            if category < FIRST_PART:
                purpose = min(purpose, category)
                context = "library"
            else:
                part = category
                if CATEGORIES[category] == "app":
                    purpose, context = NONE, "app"
                elif name in self._containers:
                    context = "container"
                else:
                    context = "library"
        onward = tuple(node for node in steps if node.exact or node.wild or node.files)
        return self._state(context, purpose, part, fallback, onward)


def _with_local(names: _Names, local: Iterable[tuple[str, str | None, int]]) -> _Names:
    """The same patterns and those of single files in one directory."""
    more = _Names()
    more.exact = dict(names.exact)
    more.suffixes = names.suffixes
    more.wild, more.heads, more.ends = list(names.wild), names.heads, names.ends
    for head, tail, category in local:
        if tail is None:
            _put(more.exact, head, category)
        else:
            more.add_wild(head, tail, category)
    return more


def _put(rows: dict[str, int], key: str, category: int) -> None:
    rows[key] = min(rows.get(key, NONE), category)


def _rows(by_category: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for category, patterns in by_category.items():
        for pattern in _words(patterns):
            yield category, pattern


def _words(patterns: str) -> list[str]:
    """The rows of a category: words, without the comments.

    One string a category, since tomllib reads that twenty times faster than as many strings in an array.
    """
    return [word for line in patterns.split("\n") for word in line.partition("#")[0].split()]


@cache
def classifier() -> Classifier:
    """The classifier of the table that comes with layerlens, built at the first call."""
    return Classifier()
