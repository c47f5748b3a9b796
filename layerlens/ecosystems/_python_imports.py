"""What a Python source says that it needs: imports, and what else it names in so many words.

Two readers give the same :class:`Facts`. :func:`read_exactly` goes by the syntax tree (:mod:`ast`; tree-sitter where
the running ``ast`` refuses, as for Python 2 or for syntax newer than its own). :func:`read_quickly` goes by lines:
it finds every import that the tree has and perhaps some that only a string shows, at ten times the speed; whoever
uses it looks twice where that would matter.

Sources: the Python language reference, "The import statement"; :mod:`importlib`, :mod:`pkgutil`, :mod:`ctypes`,
:mod:`subprocess` in the library reference.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from layerlens.patterns import regex

if TYPE_CHECKING:
    from tree_sitter import Node

EXACT_LIMIT = 4 << 20
"""Longer sources are generated tables, and are read by lines alone."""

PYTHON = "<python>"
"""Stands for ``sys.executable`` as a command's first word."""


@dataclass(frozen=True, slots=True)
class Import:
    """One module that a statement or a call imports."""

    module: str
    """Dotted name without leading dots; empty for ``from . import x``."""
    line: int
    level: int = 0
    """Leading dots: 0 is absolute."""
    names: tuple[str, ...] = ()
    """What ``from module import …`` lists, each perhaps a submodule; ``*`` as it is."""
    firm: bool = True
    """False where the module can be loaded without this import: in a function, under ``try`` or ``if``."""
    main: bool = False
    """True where it runs only if the file itself is the program: ``if __name__ == "__main__"``."""
    instead_of: tuple[tuple[Import, ...], ...] = ()
    """It runs only where each of these groups fails to import: ``try: import a`` / ``except ImportError: import b``;
    exact readers only."""

    def told(self) -> str:
        """The import as a person would write it."""
        dots = "." * self.level
        if self.names:
            listed = ", ".join(self.names[:3]) + (" …" if len(self.names) > 3 else "")
            return f"from {dots}{self.module} import {listed}"
        return f"import {dots}{self.module}"


@dataclass(frozen=True, slots=True)
class Prefix:
    """An import of a name that is known only as far as here: ``import_module(f"plugins.{name}")``."""

    text: str
    line: int
    level: int = 0


@dataclass(frozen=True, slots=True)
class Call:
    """A program that the source runs, as far as its words are literals."""

    words: tuple[str, ...]
    line: int
    shell: bool = False
    """True where the one word is a shell's command line."""


@dataclass(slots=True)
class Facts:
    """What one source says; lines count from 1."""

    imports: list[Import] = field(default_factory=list)
    prefixes: list[Prefix] = field(default_factory=list)
    computed: int | None = None
    """The first line that imports a module whose name cannot be known."""
    libraries: list[tuple[str, int]] = field(default_factory=list)
    """Shared libraries loaded by name: ``libz.so.1``; ``z`` as :func:`ctypes.util.find_library` takes it."""
    finds_libraries: bool = False
    """Whether it calls :func:`ctypes.util.find_library`, which runs programs."""
    calls: list[Call] = field(default_factory=list)
    strings: list[tuple[str, int]] = field(default_factory=list)
    """String constants that may name a module, an entry point group or a file; exact readers only."""
    settings: list[tuple[str, int]] = field(default_factory=list)
    """String constants of one word inside what is assigned to a constant's name, as in ``INSTALLED_APPS``."""
    groups: list[tuple[str, int]] = field(default_factory=list)
    """Entry point groups that are asked for."""
    extends_path: bool = False
    """Whether a package spreads over every folder of its name (pkgutil.extend_path, pkg_resources)."""
    trouble: tuple[str, int] | None = None
    """A syntax error and its line, where no reader could make sense of the source."""


_DOTTED = regex(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+(?::[\w.]+)?")
_WORD = regex(r"[A-Za-z_]\w*")
_SHARED_LIBRARY = regex(r"(?:[\w./+-]*/)?lib[\w.+-]+\.so(?:\.\d+)*|[\w.+-]+\.so\.\d+(?:\.\d+)*")
_LOADERS = frozenset(["CDLL", "PyDLL", "LoadLibrary", "dlopen", "find_library"])
_IMPORTERS = frozenset(["import_module", "__import__", "find_spec", "find_loader"])
_PROGRAM_CALLS: dict[str, frozenset[str]] = {
    # Module of the library reference: its functions whose first argument is a program or a command line.
    "subprocess": frozenset(
        ["run", "Popen", "call", "check_call", "check_output", "getoutput", "getstatusoutput"]
    ),
    "os": frozenset(
        [
            "system",
            "popen",
            "execl",
            "execle",
            "execlp",
            "execlpe",
            "execv",
            "execve",
            "execvp",
            "execvpe",
            "posix_spawn",
            "posix_spawnp",
        ]
    ),
    "shutil": frozenset(["which"]),
    "asyncio": frozenset(["create_subprocess_exec", "create_subprocess_shell"]),
}
_SHELL_CALLS = frozenset(["getoutput", "getstatusoutput", "system", "popen", "create_subprocess_shell"])
_SPREAD_CALLS = frozenset(["execl", "execle", "execlp", "execlpe", "create_subprocess_exec"])
_VECTOR_CALLS = frozenset(["execv", "execve", "execvp", "execvpe", "posix_spawn", "posix_spawnp"])


def read_exactly(source: bytes) -> Facts:
    """The facts of a source by its syntax tree."""
    if len(source) > EXACT_LIMIT:
        return read_quickly(source)
    try:
        tree = _parsed(source)
    except SyntaxError as error:
        return _read_otherwise(source, error.msg or "invalid syntax", error.lineno or 1)
    except (ValueError, RecursionError, MemoryError) as error:
        return _read_otherwise(source, str(error) or type(error).__name__, 1)
    return _TreeReader().read(tree)


def _parsed(source: bytes) -> ast.Module:
    """The syntax tree of a source, without the warnings that it gives.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: it has none, or too deep a one.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(source)


class _TreeReader:
    """Walks a syntax tree once, without recursion, so that depth costs nothing but memory."""

    def __init__(self) -> None:
        self.facts = Facts()
        self._aliases: dict[str, str] = {}
        """Names that imports bind, to what they stand for."""
        self._values: dict[str, list[ast.expr]] = {}
        """Names that assignments bind, to the expressions."""
        self._calls: list[ast.Call] = []
        self._instead_of: dict[int, tuple[tuple[Import, ...], ...]] = {}
        """Import statements (by :func:`id`) that stand in for others that fail."""

    def read(self, tree: ast.Module) -> Facts:
        """The facts of a module."""
        stack: list[tuple[ast.AST, bool, bool]] = [(node, True, False) for node in reversed(tree.body)]
        while stack:
            node, firm, main = stack.pop()
            stack += reversed(list(self._visit(node, firm, main)))
        for call in self._calls:
            self._read_call(call)
        return self.facts

    def _visit(self, node: ast.AST, firm: bool, main: bool) -> Iterator[tuple[ast.AST, bool, bool]]:
        """Notes what one node says, and gives what is to be visited below it."""
        if isinstance(node, ast.Import | ast.ImportFrom):
            self._read_import(node, firm, main)
            return
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return  # documentation
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str):
                self._read_string(node.value, node.lineno)
            return
        if isinstance(node, ast.If):
            if _is_type_checking(node.test):
                yield from ((child, False, main) for child in node.orelse)
                return
            runs = main or _is_main(node.test)
            yield node.test, firm, main
            yield from ((child, False, runs) for child in node.body)
            yield from ((child, False, main) for child in node.orelse)
            return
        if isinstance(node, ast.Assign | ast.AnnAssign):
            self._read_assignment(node)
        if isinstance(node, ast.Call):
            self._calls.append(node)
        if isinstance(node, ast.Try):
            self._note_fallbacks(node)
        if isinstance(
            node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.Try | ast.For | ast.While
        ) or node.__class__.__name__ in ("TryStar", "Match"):
            firm = False
        for child in ast.iter_child_nodes(node):
            yield child, firm, main

    def _note_fallbacks(self, node: ast.Try) -> None:
        """Note what the handlers of ``try: import a`` import instead; nested ones stand in for all around them."""
        tried: list[Import] = []
        for statement in node.body:
            if not isinstance(statement, ast.Import | ast.ImportFrom):
                return  # something else may raise ImportError
            tried += _imports(statement)
        around = self._instead_of.get(id(node), ())
        for handler in node.handlers:
            if _catches_import_error(handler.type):
                for statement in handler.body:
                    if isinstance(statement, ast.Import | ast.ImportFrom | ast.Try):
                        self._instead_of[id(statement)] = (*around, tuple(tried))
        for statement in node.body:
            if around:
                self._instead_of[id(statement)] = around

    def _read_import(self, node: ast.Import | ast.ImportFrom, firm: bool, main: bool) -> None:
        instead_of = self._instead_of.get(id(node), ())
        for one in _imports(node):
            self.facts.imports.append(replace(one, firm=firm, main=main, instead_of=instead_of))
        if isinstance(node, ast.Import):
            for name in node.names:
                self._aliases[name.asname or name.name.partition(".")[0]] = (
                    name.name if name.asname else name.name.partition(".")[0]
                )
            return
        for name in node.names:
            dots = "." * node.level
            joint = "." if node.module else ""
            self._aliases[name.asname or name.name] = f"{dots}{node.module or ''}{joint}{name.name}"

    def _read_string(self, text: str, line: int) -> None:
        if len(text) > 255:
            return
        if _SHARED_LIBRARY.fullmatch(text):
            self.facts.libraries.append((text, line))
        elif _DOTTED.fullmatch(text) or (text[:1] == "/" and len(text) > 1 and text.isprintable()):
            self.facts.strings.append((text, line))

    def _read_assignment(self, node: ast.Assign | ast.AnnAssign) -> None:
        value = node.value
        if value is None:
            return
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            if not isinstance(target, ast.Name):
                continue
            self._values.setdefault(target.id, []).append(value)
            if target.id.isupper():
                for child in _elements(value):
                    if isinstance(child.value, str) and _WORD.fullmatch(child.value):
                        self.facts.settings.append((child.value, child.lineno))

    # -- calls -------------------------------------------------------------------------------------------------

    def _read_call(self, call: ast.Call) -> None:
        called = self._dotted(call.func)
        function = called.rpartition(".")[2]
        first = call.args[0] if call.args else None
        if function in _IMPORTERS and first is not None:
            self._read_importer(call, first)
        elif function in _LOADERS:
            self._read_loader(function, first, call.lineno)
        elif function in ("iter_modules", "walk_packages"):
            self._read_walk(first, call)
        elif function in ("extend_path", "declare_namespace"):
            self.facts.extends_path = True
        elif function in ("entry_points", "iter_entry_points", "select"):
            self._read_group(call)
        elif function in _PROGRAM_CALLS.get(called.partition(".")[0], ()):
            self._read_program(function, call)

    def _dotted(self, node: ast.expr) -> str:
        """``a.b.c`` with what the first name stands for; the attributes alone where it is no name."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if isinstance(node, ast.Name):
            parts.append(self._aliases.get(node.id, node.id))
        return ".".join(reversed(parts))

    def _read_importer(self, call: ast.Call, first: ast.expr) -> None:
        known = False
        for text, whole, relative in self._texts(first):
            known = True
            level = len(text) - len(text.lstrip("."))
            if relative:
                level, text = 1, text.lstrip(".")
            if whole:
                self.facts.imports.append(Import(text.lstrip("."), call.lineno, level, firm=False))
            elif text.strip(".") or level:
                self.facts.prefixes.append(Prefix(text.lstrip("."), call.lineno, level))
            else:
                known = False
        if not known and self.facts.computed is None:
            self.facts.computed = call.lineno

    def _texts(self, node: ast.expr, depth: int = 0) -> Iterator[tuple[str, bool, bool]]:
        """What an expression's text begins with, whether that is all of it, and whether ``__name__`` comes before."""
        if depth > 8:
            return
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str):
                yield node.value, True, False
        elif isinstance(node, ast.Name):
            if node.id in ("__name__", "__package__"):
                yield "", False, True
            for value in self._values.get(node.id, ())[:4]:
                yield from self._texts(value, depth + 1)
        elif isinstance(node, ast.Attribute) and node.attr in ("__name__", "__package__"):
            name = self._dotted(node.value)
            if name.strip("."):
                yield name, False, False
        elif isinstance(node, ast.JoinedStr):
            yield from self._joined([*node.values], depth)
        elif isinstance(node, ast.FormattedValue):
            yield from self._texts(node.value, depth + 1)
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            yield from self._joined([node.left, node.right], depth)
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod):
            for text, _, _ in self._texts(node.left, depth + 1):
                yield text.partition("%")[0], "%" not in text, False
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr == "format":
                for text, _, _ in self._texts(node.func.value, depth + 1):
                    yield text.partition("{")[0], False, False
            elif node.func.attr == "join" and node.args and isinstance(node.args[0], ast.List | ast.Tuple):
                for text, _, relative in self._joined(node.args[0].elts[:1], depth):
                    yield text + ".", False, relative
        elif isinstance(node, ast.IfExp):
            yield from self._texts(node.body, depth + 1)
            yield from self._texts(node.orelse, depth + 1)
        elif isinstance(node, ast.BoolOp):
            for value in node.values[:4]:
                yield from self._texts(value, depth + 1)

    def _joined(self, parts: list[ast.expr], depth: int) -> Iterator[tuple[str, bool, bool]]:
        """The beginnings of a concatenation: a part that is known whole lets the next one follow."""
        found = [("", True, False)]
        for part in parts:
            if not any(whole or (relative and not text) for text, whole, relative in found):
                break
            more = list(self._texts(part, depth + 1))[:4]
            following: list[tuple[str, bool, bool]] = []
            for text, whole, relative in found:
                if not whole and not (relative and not text):
                    following.append((text, whole, relative))
                elif more:
                    following += [(text + after, done, relative or at) for after, done, at in more]
                else:
                    following.append((text, False, relative))
            found = following[:8]
        yield from (item for item in found if item[0] or item[2])

    def _read_loader(self, function: str, first: ast.expr | None, line: int) -> None:
        if function == "find_library":
            self.facts.finds_libraries = True
        if first is None:
            return
        for text, whole, _ in self._texts(first):
            if whole and text and not _SHARED_LIBRARY.fullmatch(text):
                self.facts.libraries.append((text, line))

    def _read_walk(self, first: ast.expr | None, call: ast.Call) -> None:
        """All modules of the package whose ``__path__`` is walked."""
        for keyword in call.keywords:
            if keyword.arg == "path":
                first = keyword.value
        if isinstance(first, ast.Name) and first.id == "__path__":
            self.facts.prefixes.append(Prefix("", call.lineno, 1))
        elif isinstance(first, ast.Attribute) and first.attr == "__path__":
            name = self._dotted(first.value)
            level = len(name) - len(name.lstrip("."))
            self.facts.prefixes.append(Prefix(name.lstrip(".") + ".", call.lineno, level))

    def _read_group(self, call: ast.Call) -> None:
        asked = [keyword.value for keyword in call.keywords if keyword.arg == "group"] or call.args[:1]
        for node in asked:
            for text, whole, _ in self._texts(node):
                if whole and text:
                    self.facts.groups.append((text, call.lineno))

    def _read_program(self, function: str, call: ast.Call) -> None:
        first = call.args[0] if call.args else next((k.value for k in call.keywords if k.arg == "args"), None)
        if first is None:
            return
        through_shell = function in _SHELL_CALLS or any(
            keyword.arg == "shell" and isinstance(keyword.value, ast.Constant) and keyword.value.value
            for keyword in call.keywords
        )
        if isinstance(first, ast.Name) and isinstance(
            value := (self._values.get(first.id) or [first])[0], ast.List | ast.Tuple
        ):
            first = value
        if function in _SPREAD_CALLS:
            words = self._words(call.args if function == "create_subprocess_exec" else call.args[1:])
            head = self._words(call.args[:1])
            words = (*head, *words[1:]) if head else ()
        elif function in _VECTOR_CALLS:
            head = self._words(call.args[:1])
            vector = call.args[1] if len(call.args) > 1 else None
            rest = self._words(vector.elts) if isinstance(vector, ast.List | ast.Tuple) else ()
            words = (*head, *rest[1:]) if head else ()
        elif isinstance(first, ast.List | ast.Tuple):
            words, through_shell = self._words(first.elts), False
        else:
            words = self._words([first])
        if words and words[0]:
            self.facts.calls.append(Call(words, call.lineno, through_shell))

    def _words(self, nodes: Sequence[ast.expr]) -> tuple[str, ...]:
        """The leading words that are literals."""
        words: list[str] = []
        for node in nodes:
            if isinstance(node, ast.Attribute) and self._dotted(node) == "sys.executable":
                words.append(PYTHON)
                continue
            text = next((text for text, whole, _ in self._texts(node) if whole), None)
            if text is None and isinstance(node, ast.Name):
                text = self._default(node.id)
            if text is None:
                break
            words.append(text)
        return tuple(words)

    def _default(self, name: str) -> str | None:
        """The default of ``NAME = os.environ.get("NAME", default)``."""
        for value in self._values.get(name, ()):
            if (
                isinstance(value, ast.Call)
                and len(value.args) == 2
                and self._dotted(value.func) in ("os.environ.get", "os.getenv")
            ):
                return next((text for text, whole, _ in self._texts(value.args[1]) if whole), None)
        return None


def _imports(node: ast.Import | ast.ImportFrom) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        for name in node.names:
            yield Import(name.name, node.lineno)
    else:
        names = tuple(name.name for name in node.names)
        yield Import(node.module or "", node.lineno, node.level, names)


def _catches_import_error(kind: ast.expr | None) -> bool:
    kinds = kind.elts if isinstance(kind, ast.Tuple) else [kind]
    return kind is None or any(
        isinstance(one, ast.Name) and one.id in ("ImportError", "ModuleNotFoundError") for one in kinds
    )


def bound_names(source: bytes) -> frozenset[str] | None:
    """The names that a module binds whenever it is loaded: definitions, assignments and imports at its top level.

    None where that cannot be told: what does not parse, ``from x import *``, a module's own ``__getattr__``.
    """
    try:
        tree = _parsed(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found.update(name.asname or name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.Assign):
            found.update(target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and node.value is not None and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    return None if found & {"*", "__getattr__"} else frozenset(found)


def _elements(node: ast.expr) -> Iterator[ast.Constant]:
    """The constants of a literal, those of nested ones included, dictionary keys not."""
    stack: list[ast.expr] = [node]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Constant):
            yield node
        elif isinstance(node, ast.List | ast.Tuple | ast.Set):
            stack += reversed(node.elts)
        elif isinstance(node, ast.Dict):
            stack += reversed(node.values)
        elif isinstance(node, ast.BinOp):
            stack += [node.right, node.left]


def _is_type_checking(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else test.id if isinstance(test, ast.Name) else ""
    return name == "TYPE_CHECKING" or (isinstance(test, ast.Constant) and not test.value)


def _is_main(test: ast.expr) -> bool:
    return (
        isinstance(test, ast.Compare)
        and isinstance(test.left, ast.Name)
        and test.left.id == "__name__"
        and any(isinstance(other, ast.Constant) and other.value == "__main__" for other in test.comparators)
    )


# -- by lines ------------------------------------------------------------------------------------------------

_STATEMENT = regex(
    rb"\n([ \t]*)(?:from[ \t]+(\.*)[ \t]*([\w.]*)[ \t]*\bimport\b[ \t]*"
    rb"(\((?:[^)#]|#[^\n]*)*\)?|(?:[^\n\\#;]|\\\r?\n)*)"
    rb"|import[ \t]+((?:[^\n\\#;]|\\\r?\n)+))",
)
"""A statement on a line of its own, the newline before it included: twice as fast as ``^``."""
_LATER = regex(
    rb"[:;][ \t]*(?:from[ \t]+(\.*)[ \t]*([\w.]+)[ \t]+import[ \t]+([^\n#;()]+)|import[ \t]+([\w., \t]+))"
)
_CALLED = regex(rb"(?:import_module|__import__|find_spec)\([ \t\r\n]*[rbuf]?[\"']([.\w]*)([\"'%{]?)")
_LIBRARY = regex(rb"[\"']((?:[\w./+-]*/)?lib[\w.+-]{1,60}\.so(?:\.\d+)*)[\"']")
_FOUND = regex(rb"(?:CDLL|LoadLibrary|dlopen|find_library)\([ \t\r\n]*[rbu]?[\"']([\w.+/-]+)[\"']")
_GROUP = regex(rb"entry_points\([ \t\r\n]*(?:group[ \t]*=[ \t]*)?[\"']([\w.:-]+)[\"']")
_NAME = regex(rb"[A-Za-z_][\w.]*")
_CHECKING = regex(rb"^([ \t]*)if[ \t]+(?:\w+\.)?TYPE_CHECKING[ \t]*:", re.MULTILINE)
_MAIN = regex(rb"^if[ \t]+__name__[ \t]*==[ \t]*[\"']__main__[\"'][ \t]*:", re.MULTILINE)


def read_quickly(source: bytes) -> Facts:
    """The facts of a source by its lines: no import is missed, one in a string may be taken for one.

    ``strings``, ``settings`` and ``calls`` stay empty, and imports for type checkers or under
    ``__name__ == "__main__"`` are left out.
    """
    facts = Facts()
    if b"import" not in source:
        return facts
    if b"TYPE_CHECKING" in source:
        source = _without_blocks(source, _CHECKING)
    if b"__main__" in source:
        source = _without_blocks(source, _MAIN)
    line, at = 0, 0
    for found in _STATEMENT.finditer(b"\n" + source):
        line += found.string.count(b"\n", at, found.start() + 1)
        at = found.start() + 1
        indent, dots, module, names, modules = found.groups()
        facts.imports += _quick_imports(dots, module, names, modules, line, not indent)
    for found in _LATER.finditer(source):
        line = source.count(b"\n", 0, found.start()) + 1
        dots, module, names, modules = found.groups()
        facts.imports += _quick_imports(dots, module, names, modules, line, False)
    if b"import_module(" in source or b"__import__(" in source or b"find_spec(" in source:
        for found in _CALLED.finditer(source):
            _quick_call(facts, found, source.count(b"\n", 0, found.start()) + 1)
    if b".so" in source or b"dlopen" in source or b"CDLL" in source or b"find_library" in source:
        for pattern in (_LIBRARY, _FOUND):
            for found in pattern.finditer(source):
                facts.libraries.append((found[1].decode(), source.count(b"\n", 0, found.start()) + 1))
        facts.finds_libraries = b"find_library(" in source
    if b"entry_points(" in source:
        for found in _GROUP.finditer(source):
            facts.groups.append((found[1].decode(), source.count(b"\n", 0, found.start()) + 1))
    facts.extends_path = b"extend_path(" in source or b"declare_namespace(" in source
    return facts


def _quick_imports(
    dots: bytes | None,
    module: bytes | None,
    names: bytes | None,
    modules: bytes | None,
    line: int,
    firm: bool,
) -> Iterator[Import]:
    if modules is not None:
        for part in modules.split(b","):
            match = _NAME.match(part.strip().lstrip(b"\\ \t\r\n"))
            if match:
                yield Import(match[0].decode("utf-8", "replace").rstrip("."), line, firm=firm)
        return
    if names is None or not (dots or module):
        return
    listed = re.sub(rb"#[^\n]*", b"", names).strip(b"() \t\r\n\\")
    words = [
        part.strip(b"\\ \t\r\n").split(None, 1)[0] for part in listed.split(b",") if part.strip(b"\\ \t\r\n")
    ]
    kept = tuple(word.decode("utf-8", "replace") for word in words if word == b"*" or _NAME.fullmatch(word))
    if kept:
        yield Import((module or b"").decode("utf-8", "replace"), line, len(dots or b""), kept, firm)


def _quick_call(facts: Facts, found: re.Match[bytes], line: int) -> None:
    text = found[1].decode("utf-8", "replace")
    level = len(text) - len(text.lstrip("."))
    if found[2] in (b'"', b"'"):
        following = found.string[found.end() : found.end() + 40].lstrip()
        if following[:1] not in (b"+", b"%") and not following.startswith(b".format"):
            facts.imports.append(Import(text.lstrip("."), line, level, firm=False))
            return
    if text:
        facts.prefixes.append(Prefix(text.lstrip("."), line, level))


def _without_blocks(source: bytes, opening: re.Pattern[bytes]) -> bytes:
    """The source with the blocks below matching lines made empty, so that line numbers stay."""
    pieces: list[bytes] = []
    at = 0
    for found in opening.finditer(source):
        if found.start() < at:
            continue
        depth = len(found[1]) if opening.groups else 0
        end = source.find(b"\n", found.end())
        start = len(source) if end < 0 else end + 1
        end = start
        while end < len(source):
            following = source.find(b"\n", end)
            following = len(source) if following < 0 else following + 1
            line = source[end:following]
            bare = line.lstrip(b" \t")
            if bare.strip() and len(line) - len(bare) <= depth and not bare.startswith((b"#", b")")):
                break
            end = following
        pieces += [source[at:start], b"\n" * source.count(b"\n", start, end)]
        at = end
    return b"".join((*pieces, source[at:]))


# -- by another parser ---------------------------------------------------------------------------------------


def _read_otherwise(source: bytes, message: str, line: int) -> Facts:
    """The imports of what ``ast`` refuses, by tree-sitter's grammar, which knows Python 2 and what is newest."""
    from tree_sitter import Language, Parser
    from tree_sitter_python import language

    tree = Parser(Language(language())).parse(source)
    facts = Facts()
    stack: list[tuple[Node, bool]] = [(tree.root_node, True)]
    while stack:
        node, firm = stack.pop()
        kind = node.type
        if kind in ("import_statement", "import_from_statement"):
            text = source[node.start_byte : node.end_byte]
            row = node.start_point[0] + 1
            for one in _statements(text):
                facts.imports.append(Import(one.module, row, one.level, one.names, firm))
            continue
        if kind == "call":
            for found in _CALLED.finditer(source[node.start_byte : node.end_byte]):
                if found.start() == 0 or source[node.start_byte : node.start_byte + found.start()].endswith(
                    b"."
                ):
                    _quick_call(facts, found, node.start_point[0] + 1)
        if kind == "if_statement":
            condition = node.child_by_field_name("condition")
            if condition is not None and (condition.text or b"").endswith(b"TYPE_CHECKING"):
                alternatives = node.children_by_field_name("alternative")
                stack += [(child, False) for child in reversed(alternatives)]
                continue
        inside = firm and kind not in (
            *("function_definition", "try_statement", "if_statement", "for_statement"),
            *("while_statement", "match_statement", "lambda"),
        )
        stack += [(child, inside) for child in reversed(node.children)]
    if tree.root_node.has_error:
        facts.trouble = (message, line)
    return facts


def _statements(text: bytes) -> Iterable[Import]:
    found = _STATEMENT.match(b"\n" + text)
    if found is None:
        return ()
    _, dots, module, names, modules = found.groups()
    return _quick_imports(dots, module, names, modules, 1, True)


def offered_languages(source: bytes) -> set[str] | None:
    """The primary tags of the languages that a module's ``LANGUAGES`` lists as Django's setting of that name does.

    ``[("de", _("German")), ("pt-br", "Portuguese")]`` gives ``{"de", "pt"}``. None where the module has no such
    setting, empty where it is there and computed (Django documentation, settings: LANGUAGES).
    """
    if b"LANGUAGES" not in source:
        return None
    try:
        tree = _parsed(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    found: set[str] | None = None
    for node in ast.walk(tree):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign | ast.AugAssign):
            targets = [node.target]
        if not any(isinstance(target, ast.Name) and target.id == "LANGUAGES" for target in targets):
            continue
        value = None if isinstance(node, ast.AugAssign) else getattr(node, "value", None)
        codes = _pairs(value)
        if not codes:
            return set()
        found = (found or set()) | codes
    return found


def _pairs(value: ast.expr | None) -> set[str]:
    """The first words of a literal list of pairs, as primary tags; empty for anything else."""
    found = set()
    for element in value.elts if isinstance(value, ast.List | ast.Tuple) else ():
        pair = element.elts if isinstance(element, ast.Tuple | ast.List) else []
        first = pair[0] if len(pair) == 2 else None
        if not (isinstance(first, ast.Constant) and isinstance(first.value, str)):
            return set()
        found.add(primary_tag(first.value))
    return found


def primary_tag(language: str) -> str:
    """The primary tag (RFC 5646) of a language or a locale: ``pt`` of ``pt-br`` and of ``pt_BR``."""
    return language.replace("_", "-").partition("-")[0].lower()
