"""What JavaScript asks for: modules, files beside it, programs; from its text, without running it.

Two readings. :func:`mentions` is a regular expression: quick, for the thousands of files of packages, and seeing
also what stands in comments. :func:`scan` asks the syntax tree (tree-sitter-javascript), at the places where a
regular expression finds a word of interest, and follows constants: ``path.join(__dirname, "views")``,
```require(`./locale/${name}`)```, ``new URL("./x", import.meta.url)``.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import unquote

from layerlens.patterns import regex

if TYPE_CHECKING:
    from tree_sitter import Node, Parser

    from layerlens.model import ImagePath

SOURCE_LIMIT = 16 << 20
"""Bytes of a source file that are read."""
MAX_ASKED = 20_000
"""Places of interest in one file; more is no program."""
MAX_CONSTANTS = 400
"""Names whose declaration is looked for in one file."""
MAX_DEPTH = 40

_COMMENT = r"(?:/\*[^*]{0,200}\*/\s{0,20})?"
_QUOTED = r"([\"'`])((?:(?!\1)[^\\\n]){1,400})\1"
_REQUIRED = regex(r"equire[\w$]{0,40}(?:\.resolve)?\s{0,20}\(\s{0,200}" + _COMMENT + _QUOTED)
_IMPORTED = regex(r"import\s{0,200}\(\s{0,200}" + _COMMENT + _QUOTED)
_BARE_IMPORT = regex(r"import\s{0,20}" + _QUOTED)
_FROM = regex(r"from\s{0,20}" + _QUOTED)
_WORDS = regex(
    rb"[rR]equire|\bimport\b|\bfrom\b|__dirname|__filename|\bcwd\b|\bWorker\b|\bspawn|\bexec|\bfork\b|\bbindings\b"
    rb"|view engine|setViewEngine"
)
_LITERAL = regex(rb"(?P<quote>[\"'`])(?P<text>[\w.@~+/ -]{2,200})(?P=quote)")
_TYPES_ONLY = regex(rb"^(?:import|export)\s+type\s+[\w{*]")
_ALIAS = regex(
    rb"\b(?P<name>[\w$]{1,60})\s{0,20}=\s{0,20}(?:[\w$]{1,60}\.)?"
    rb"(?:createRequire\(|promisify\(\s{0,20}(?:[\w$]{1,60}\.)?(?P<runs>exec|execFile)\s{0,20}\))"
)
MAX_ALIASES = 8

SPAWNS = frozenset(("spawn", "spawnSync", "execFile", "execFileSync", "execa", "execaSync"))
"""Calls that take a program and its words: Node documentation, child_process; execa's README."""
SHELLS = frozenset(("exec", "execSync", "execaCommand", "execaCommandSync"))
"""Calls that take a line for ``/bin/sh`` (child_process) or for words split at blanks (execa)."""


@dataclass(frozen=True, slots=True)
class Text:
    """A string as far as it is known: its beginning and its end, and whether these are all of it."""

    head: str = ""
    tail: str = ""
    whole: bool = False

    def then(self, other: Text) -> Text:
        """This string followed by another."""
        if self.whole:
            return Text(self.head + other.head, other.tail, other.whole)
        return Text(self.head, self.tail + other.head if other.whole else other.tail, False)


UNKNOWN = Text()


@dataclass(frozen=True, slots=True)
class Asked:
    """One thing that a source asks for."""

    kind: str
    """``require``, ``import``, ``path`` (an absolute path), ``literal``, ``worker``, ``addon``, ``engine``, ``spawn``
    or ``shell``."""
    text: Text
    line: int
    optional: bool = False
    """True in a ``try``, a condition, or with a ``.catch``: its absence is reckoned with."""
    words: tuple[str, ...] = ()
    """The further words of a ``spawn``, up to the first that is not known."""


@dataclass(frozen=True, slots=True)
class Mention:
    """A specifier that a source file seems to ask for."""

    specifier: str
    is_import: bool
    position: int


def mentions(text: str) -> list[Mention]:
    """What stands quoted behind ``require(``, ``import(``, ``import`` or ``from``, in comments too."""
    found: dict[tuple[str, bool], int] = {}
    for pattern, is_import in ((_REQUIRED, False), (_IMPORTED, True), (_BARE_IMPORT, True), (_FROM, True)):
        for match in pattern.finditer(text):
            specifier = match[2]
            if "${" not in specifier:
                found.setdefault((specifier, is_import), match.start())
    return [Mention(specifier, kind, position) for (specifier, kind), position in found.items()]


def scan(data: bytes, path: ImagePath, cwd: ImagePath, env: Mapping[str, str]) -> list[Asked]:
    """Everything that a source file asks for, by line.

    ``path`` is the file's canonical path (a made-up name in the working directory for ``node -e``), ``cwd`` and
    ``env`` the process's.
    """
    if not _WORDS.search(data) and not _LITERAL.search(data):
        return []
    found = list(_Source(data, path, cwd, env).asked())
    return sorted(dict.fromkeys(found), key=lambda asked: (asked.line, asked.kind, asked.text.head))


def counted_on(data: bytes, specifiers: Collection[str]) -> set[str]:
    """Those of the specifiers that the code, not a comment, asks for without reckoning with their absence."""
    root = parser().parse(data).root_node
    return {one for one in sorted(specifiers)[:MAX_CONSTANTS] if any(_counts_on(root, data, one))}


def _counts_on(root: Node, data: bytes, specifier: str) -> Iterator[bool]:
    quoted = re.compile(rb"([\"'`])" + re.escape(specifier.encode("utf-8", "replace")) + rb"\1")
    for number, match in enumerate(quoted.finditer(data)):
        if number > MAX_ASKED:
            return
        node = root.descendant_for_byte_range(match.start(), match.end())
        if node is None or node.type not in ("string", "template_string") or node.parent is None:
            continue
        outer = node.parent
        if outer.type in ("import_statement", "export_statement"):
            yield not _TYPES_ONLY.match(data[outer.start_byte : outer.start_byte + 200])
        elif outer.type == "arguments" and outer.parent is not None:
            function = outer.parent.child_by_field_name("function")
            called = b"" if function is None else data[function.start_byte : function.end_byte][-80:]
            yield (b"equire" in called or called == b"import") and not _is_optional(outer.parent)


@cache
def parser() -> Parser:
    """The JavaScript parser, loaded at the first use."""
    import tree_sitter
    import tree_sitter_javascript

    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_javascript.language()))


class _Source:
    """One source file and its syntax tree."""

    def __init__(self, data: bytes, path: ImagePath, cwd: ImagePath, env: Mapping[str, str]) -> None:
        self._data = data
        self._path = path
        self._cwd = cwd
        self._env = env
        self._root = parser().parse(data).root_node
        self._constants: dict[str, Text] = {}
        self._child_process: dict[bytes, bool] = {}
        self._has_child_process = b"child_process" in data or b"execa" in data

    def asked(self) -> Iterator[Asked]:
        seen: set[tuple[int, int]] = set()
        for number, match in enumerate(_WORDS.finditer(self._data)):
            if number > MAX_ASKED:
                break
            node = self._root.descendant_for_byte_range(match.start(), match.end())
            if node is None or node.type == "comment":
                continue
            for asked, at in self._at(node, match[0]):
                key = (at.start_byte, at.end_byte)
                if key not in seen:
                    seen.add(key)
                    yield asked
        for asked, at in self._aliases():
            if (at.start_byte, at.end_byte) not in seen:
                yield asked
        for number, match in enumerate(_LITERAL.finditer(self._data)):
            if number > MAX_ASKED:
                break
            text = match["text"].decode("utf-8", "replace")
            if "/" in text or "." in text:
                yield Asked("literal", Text(text, "", True), 0)

    def _aliases(self) -> Iterator[tuple[Asked, Node]]:
        """Calls of ``const load = createRequire(import.meta.url)`` and of ``const run = promisify(exec)``."""
        for number, bound in enumerate(_ALIAS.finditer(self._data)):
            if number >= MAX_ALIASES:
                break
            called = re.compile(rb"(?<![\w$.])" + re.escape(bound["name"]) + rb"(?:\.resolve)?\(")
            for match in list(called.finditer(self._data))[:MAX_ASKED]:
                node = self._root.descendant_for_byte_range(match.end() - 1, match.end())
                while node is not None and node.type != "call_expression":
                    node = node.parent
                if node is None:
                    continue
                if bound["runs"]:
                    yield from self._program(bound["runs"].decode(), node)
                else:
                    yield from self._call("require", node)

    # -- places --------------------------------------------------------------------------------------------

    def _at(self, node: Node, word: bytes) -> Iterator[tuple[Asked, Node]]:
        if word in (b"import", b"from"):
            yield from self._import(node)
        elif word in (b"require", b"Require"):
            yield from self._require(node)
        elif word in (b"__dirname", b"__filename", b"cwd"):
            yield from self._located(node)
        elif word == b"Worker":
            yield from self._first_argument(node, "worker", "new_expression")
        elif word == b"fork" and self._has_child_process:
            yield from self._first_argument(node, "worker", "call_expression")
        elif word == b"bindings":
            yield from self._first_argument(node, "addon", "call_expression")
        elif word in (b"view engine", b"setViewEngine"):
            yield from self._engine(node)
        elif word in (b"spawn", b"exec") and self._has_child_process:
            yield from self._spawn(node)

    def _import(self, node: Node) -> Iterator[tuple[Asked, Node]]:
        outer = node.parent
        if outer is not None and outer.type == "import":  # the keyword within the node of its name
            outer = outer.parent
        if outer is not None and outer.type == "call_expression":
            yield from self._call("import", outer)
            return
        if node.parent is not None and node.parent.type == "meta_property":
            yield from self._located(node.parent)
            return
        statement: Node | None = node
        while statement is not None and statement.type not in ("import_statement", "export_statement"):
            statement = statement.parent
        source = None if statement is None else statement.child_by_field_name("source")
        if statement is not None and source is not None and not _TYPES_ONLY.match(self._text(statement)):
            yield Asked("import", self.value(source), source.start_point[0] + 1), source

    def _require(self, node: Node) -> Iterator[tuple[Asked, Node]]:
        if node.type not in ("identifier", "property_identifier"):
            return
        name = self._text(node)
        if name == b"createRequire" or (name.endswith(b"equired")):
            return
        function = node
        parent = node.parent
        while parent is not None and parent.type == "member_expression":
            function, parent = parent, parent.parent
        if parent is None or parent.type != "call_expression" or not _same(parent.child(0), function):
            return
        if function.type == "member_expression":
            last = self._text(function.child_by_field_name("property"))
            if last not in (b"resolve", b"require", name):
                return
        if name in (b"require", b"__require") or self._only_literal(parent):
            yield from self._call("require", parent)

    def _only_literal(self, call: Node) -> bool:
        """Whether the argument is a constant, which is asked of functions that only sound like ``require``."""
        argument = _argument(call, 0)
        return argument is not None and argument.type in ("string", "template_string")

    def _call(self, kind: str, call: Node) -> Iterator[tuple[Asked, Node]]:
        argument = _argument(call, 0)
        if argument is None:
            return
        optional = _is_optional(call)
        for leaf in _alternatives(argument):
            yield Asked(kind, self.value(leaf), leaf.start_point[0] + 1, optional), leaf

    def _first_argument(self, node: Node, kind: str, call_type: str) -> Iterator[tuple[Asked, Node]]:
        call = _call_of(node)
        if call is None or call.type != call_type:
            return
        argument = _argument(call, 0)
        if argument is not None:
            text = self.value(argument)
            if text.head:
                text = Text(_without_scheme(text.head), text.tail, text.whole)
                yield Asked(kind, text, argument.start_point[0] + 1, _is_optional(call)), argument

    def _engine(self, node: Node) -> Iterator[tuple[Asked, Node]]:
        """``app.set("view engine", NAME)`` (Express API, app.set), ``setViewEngine(NAME)`` (Nest, techniques/mvc)."""
        place = 0
        call = _call_of(node)
        if call is None:  # the words themselves, inside of a string that is the first argument
            at: Node | None = node
            while at is not None and at.type in ("string", "string_fragment"):
                at = at.parent
            call, place = (None if at is None else at.parent), 1
        argument = _argument(call, place) if call is not None and call.type == "call_expression" else None
        if argument is not None:
            text = self.value(argument)
            if text.whole:
                yield Asked("engine", text, argument.start_point[0] + 1), argument

    def _located(self, node: Node) -> Iterator[tuple[Asked, Node]]:
        """The largest expression around ``__dirname`` and its like that is a path."""
        best: Node | None = None
        at: Node | None = node
        depth = 0
        while at is not None and depth < MAX_DEPTH:
            depth += 1
            if at.type in ("arguments", "template_substitution"):
                at = at.parent
                continue
            value = self.value(at)
            if value.head:
                best = at
            elif best is not None:
                break
            at = at.parent
        if best is None:
            return
        value = self.value(best)
        head = _without_scheme(value.head)
        own = posixpath.dirname(self._path)
        if not head.startswith("/") or head in (own, f"{own}/", self._path, "/", self._cwd):
            return
        yield Asked("path", Text(head, value.tail, value.whole), best.start_point[0] + 1), best

    # -- programs ------------------------------------------------------------------------------------------

    def _spawn(self, node: Node) -> Iterator[tuple[Asked, Node]]:
        call = _call_of(node)
        if call is None or node.type not in ("identifier", "property_identifier"):
            return
        name = self._text(node).decode("utf-8", "replace")
        if name not in SPAWNS and name not in SHELLS:
            return
        function = call.child_by_field_name("function")
        if call.type != "call_expression" or function is None:
            return
        if function.type == "member_expression" and not self._is_child_process(
            function.child_by_field_name("object")
        ):
            return
        yield from self._program(name, call)

    def _program(self, name: str, call: Node) -> Iterator[tuple[Asked, Node]]:
        first = _argument(call, 0)
        text = UNKNOWN if first is None else self.value(first)
        if first is None or not text.whole or not text.head.strip():
            return
        kind = "shell" if name in SHELLS else "spawn"
        words = tuple(self._words(_argument(call, 1))) if kind == "spawn" else ()
        yield Asked(kind, text, first.start_point[0] + 1, _is_optional(call), words), first

    def _is_child_process(self, node: Node | None) -> bool:
        """Whether an expression is the module ``child_process``, so that ``pattern.exec(…)`` is not taken for it."""
        if node is None:
            return False
        if node.type == "identifier":
            text = self._text(node)
            if text not in self._child_process and len(self._child_process) < MAX_CONSTANTS:
                self._child_process[text] = self._is_bound_to_child_process(text)
            return self._child_process.get(text, False)
        return b"child_process" in self._text(node)[:200]

    def _is_bound_to_child_process(self, text: bytes) -> bool:
        name = re.escape(text)
        bound = (
            rb"\b"
            + name
            + rb"\s{0,20}=\s{0,20}[\w$]{0,40}\(?\s{0,20}require\(\s{0,20}[\"'`](?:node:)?child_process"
            rb"|import\s+(?:\*\s+as\s+)?" + name + rb"\s+from\s+[\"'](?:node:)?child_process"
        )
        return len(text) < 80 and re.search(bound, self._data) is not None

    def _words(self, node: Node | None) -> Iterator[str]:
        if node is None or node.type != "array":
            return
        for child in node.named_children[:64]:
            text = self.value(child)
            if not text.whole:
                return
            yield text.head

    # -- values --------------------------------------------------------------------------------------------

    def _text(self, node: Node | None) -> bytes:
        return b"" if node is None else self._data[node.start_byte : node.end_byte]

    def value(self, node: Node, depth: int = 0) -> Text:
        """What an expression evaluates to, where it is a string."""
        if depth > MAX_DEPTH:
            return UNKNOWN
        match node.type:
            case "string":
                return Text(_unescaped(self._text(node)[1:-1].decode("utf-8", "replace")), "", True)
            case "template_string":
                return self._template(node, depth)
            case "identifier":
                return self._identifier(self._text(node).decode("utf-8", "replace"), depth)
            case "parenthesized_expression" | "await_expression" | "non_null_expression":
                inner = node.named_children[0] if node.named_children else None
                return UNKNOWN if inner is None else self.value(inner, depth + 1)
            case "binary_expression":
                return self._binary(node, depth)
            case "member_expression":
                return self._member(node, depth)
            case "call_expression":
                return self._called(node, depth)
            case "new_expression":
                return self._made(node, depth)
        return UNKNOWN

    def _template(self, node: Node, depth: int) -> Text:
        found = Text("", "", True)
        for child in node.named_children[:200]:
            if child.type == "template_substitution":
                inner = child.named_children[0] if child.named_children else None
                found = found.then(UNKNOWN if inner is None else self.value(inner, depth + 1))
            else:
                piece = _unescaped(self._text(child).decode("utf-8", "replace"))
                found = found.then(Text(piece, "", True))
        return found

    def _binary(self, node: Node, depth: int) -> Text:
        left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
        operator = self._text(node.child_by_field_name("operator"))
        if left is None or right is None:
            return UNKNOWN
        first = self.value(left, depth + 1)
        if operator == b"+":
            return first.then(self.value(right, depth + 1))
        if operator in (b"||", b"??"):
            return first if first.whole and first.head else self.value(right, depth + 1)
        return UNKNOWN

    def _identifier(self, name: str, depth: int) -> Text:
        if name == "__dirname":
            return Text(posixpath.dirname(self._path), "", True)
        if name == "__filename":
            return Text(self._path, "", True)
        if name not in self._constants:
            self._constants[name] = UNKNOWN  # a constant that is made of itself stays unknown
            if len(name) < 80 and len(self._constants) < MAX_CONSTANTS:
                self._constants[name] = self._constant(name, depth)
        return self._constants[name]

    def _constant(self, name: str, depth: int) -> Text:
        declared = re.search(
            rb"\b(?:const|let|var)\s{1,20}" + re.escape(name.encode()) + rb"\s{0,20}=(?!=)", self._data
        )
        if declared is None:
            return UNKNOWN
        node = self._root.descendant_for_byte_range(declared.end() - 1, declared.end())
        while node is not None and node.type != "variable_declarator":
            node = node.parent
        value = None if node is None else node.child_by_field_name("value")
        return UNKNOWN if value is None else self.value(value, depth + 1)

    def _member(self, node: Node, depth: int) -> Text:
        text = self._text(node)
        if text in (b"import.meta.url", b"module.filename", b"import.meta.filename"):
            return Text(("file://" if text.endswith(b"url") else "") + self._path, "", True)
        if text in (b"import.meta.dirname", b"module.path"):
            return Text(posixpath.dirname(self._path), "", True)
        if text in (b"path.sep", b"path.posix.sep"):
            return Text("/", "", True)
        if text.startswith(b"process.env."):
            value = self._env.get(text[12:].decode("utf-8", "replace"))
            return UNKNOWN if value is None else Text(value, "", True)
        inner = node.child_by_field_name("object")
        last = self._text(node.child_by_field_name("property"))
        if inner is not None and inner.type == "new_expression" and last in (b"pathname", b"href"):
            found = self.value(inner, depth + 1)
            return (
                Text(_without_scheme(found.head), found.tail, found.whole) if last == b"pathname" else found
            )
        return UNKNOWN

    def _called(self, node: Node, depth: int) -> Text:
        function = node.child_by_field_name("function")
        if function is None:
            return UNKNOWN
        if function.type == "member_expression":
            name = self._text(function.child_by_field_name("property")).decode("utf-8", "replace")
            owner = self._text(function.child_by_field_name("object"))
        else:
            name, owner = self._text(function).decode("utf-8", "replace"), b""
        if name == "cwd" and owner in (b"process", b""):
            return Text(self._cwd, "", True)
        arguments = node.child_by_field_name("arguments")
        given = [] if arguments is None else arguments.named_children[:32]
        if name in ("join", "resolve", "normalize") and b"require" not in owner and owner[:1] not in b"[\"'`":
            return self._joined([self.value(child, depth + 1) for child in given], name == "resolve")
        if owner == b"" and name == "join" and given:
            return self._joined([self.value(child, depth + 1) for child in given], False)
        if len(given) != 1:
            return UNKNOWN
        only = self.value(given[0], depth + 1)
        if name == "dirname" and only.whole:
            return Text(posixpath.dirname(_without_scheme(only.head)), "", True)
        if name == "fileURLToPath":
            return Text(_without_scheme(only.head), only.tail, only.whole)
        if name == "pathToFileURL" and only.head:
            return Text("file://" + only.head, only.tail, only.whole)
        return only if name == "String" else UNKNOWN

    def _joined(self, pieces: list[Text], resolves: bool) -> Text:
        """``path.join`` and ``path.resolve`` (Node documentation, path); beyond an unknown piece is the tail."""
        at = self._cwd if resolves else ""
        for number, piece in enumerate(pieces):
            if not piece.head and not piece.whole:
                tail = "/".join(one.head for one in pieces[number + 1 :] if one.whole)
                head = posixpath.normpath(at) + "/" if at else ""
                return Text(head, f"{piece.tail}/{tail}" if tail else piece.tail, False)
            starts_anew = not at or (resolves and piece.head.startswith("/"))
            at = piece.head if starts_anew else f"{at}/{piece.head}"
            if not piece.whole:
                head = posixpath.normpath(at) + ("/" if at.endswith("/") else "")
                return Text(head.replace("//", "/"), piece.tail, False)
        return Text(posixpath.normpath(at).replace("//", "/"), "", True) if at else UNKNOWN

    def _made(self, node: Node, depth: int) -> Text:
        """``new URL(reference, base)``."""
        if self._text(node.child_by_field_name("constructor")) != b"URL":
            return UNKNOWN
        arguments = node.child_by_field_name("arguments")
        given = [] if arguments is None else arguments.named_children
        if len(given) != 2:
            return UNKNOWN
        reference, base = self.value(given[0], depth + 1), self.value(given[1], depth + 1)
        if not base.whole or not base.head.startswith("file://") or "://" in reference.head:
            return UNKNOWN
        folder = posixpath.dirname(base.head[7:])
        full = posixpath.join(folder, reference.head)
        ends = "/" if full.endswith("/") and reference.head else ""
        if not reference.head:
            ends = "/"
        return Text("file://" + posixpath.normpath(full).rstrip("/") + ends, reference.tail, reference.whole)


# -- the tree ----------------------------------------------------------------------------------------------


def _same(one: Node | None, other: Node) -> bool:
    return one is not None and (one.start_byte, one.end_byte) == (other.start_byte, other.end_byte)


def _argument(call: Node, number: int) -> Node | None:
    arguments = call.child_by_field_name("arguments")
    if arguments is None:
        return None
    given = [child for child in arguments.named_children[: number + 8] if child.type != "comment"]
    return given[number] if len(given) > number else None


def _call_of(node: Node) -> Node | None:
    """The call or ``new`` whose function is this name, perhaps behind a dot."""
    function, parent = node, node.parent
    if parent is not None and parent.type == "member_expression":
        if not _same(parent.child_by_field_name("property"), function):
            return None
        function, parent = parent, parent.parent
    if parent is None or parent.type not in ("call_expression", "new_expression"):
        return None
    callee = parent.child_by_field_name("function") or parent.child_by_field_name("constructor")
    return parent if _same(callee, function) else None


def _alternatives(node: Node) -> Iterator[Node]:
    """The branches of ``a ? b : c``, else the expression itself."""
    while node.type == "parenthesized_expression" and node.named_children:
        node = node.named_children[0]
    if node.type == "ternary_expression":
        for field in ("consequence", "alternative"):
            child = node.child_by_field_name(field)
            if child is not None:
                yield child
    else:
        yield node


def _is_optional(node: Node) -> bool:
    """Whether the code around an expression reckons with its failure or chooses whether to reach it."""
    at = node
    while at.parent is not None:
        above = at.parent
        if above.type in (
            "try_statement",
            "catch_clause",
            "if_statement",
            "ternary_expression",
            "switch_case",
        ):
            condition = above.child_by_field_name("condition")
            if not _same(condition, at):
                return True
        if above.type == "binary_expression":
            operator = above.child_by_field_name("operator")
            right = above.child_by_field_name("right")
            if operator is not None and operator.type in ("&&", "||", "??") and _same(right, at):
                return True
        if above.type == "member_expression":
            name = above.child_by_field_name("property")
            if name is not None and name.text == b"catch":
                return True
        at = above
    return False


def _without_scheme(text: str) -> str:
    return unquote(text[7:].partition("?")[0]) if text.startswith("file://") else text


_ESCAPE = regex(r"\\(?:u\{([0-9a-fA-F]{1,6})\}|u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_SIMPLE = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "0": "\0", "\n": ""}


def _unescaped(text: str) -> str:
    """A literal's content with its escapes replaced (ECMA-262, 12.9.4)."""

    def replaced(match: re.Match[str]) -> str:
        digits = match[1] or match[2] or match[3]
        if digits:
            code = int(digits, 16)
            return chr(code) if code <= 0x10FFFF else ""
        return _SIMPLE.get(match[4], match[4])

    return _ESCAPE.sub(replaced, text) if "\\" in text else text
