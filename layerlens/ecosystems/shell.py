"""Shells: the commands of a script or of ``sh -c``, at their command positions alone.

A script is read by tree-sitter-bash (bashlex fails on ``case`` and is GPL) and walked as the shell would run it
(POSIX.1-2017, XCU 2; bash(1)), but along all branches: whatever some arguments could make it do is kept. Values are
followed as sets: a variable has the values that the environment and the script's assignments give it, ``case``
narrows its subject, ``"$@"`` is the script's own arguments until ``set --`` or ``shift`` changes them. Where a part
of a word cannot be known (``"$libdir/$name.sh"``), the files of the image that fit the rest stand for it, as long as
the folder is known; a command that cannot be known at all is a diagnostic.
"""

from __future__ import annotations

import fnmatch
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

from layerlens.ecosystems import Explorer, ImageView, WithoutPackages
from layerlens.ecosystems.arguments import SHARED, clean, named
from layerlens.errors import LayerLensError
from layerlens.model import Certainty, Command, Edge, EntryType, ImagePath
from layerlens.patterns import regex

if TYPE_CHECKING:
    from tree_sitter import Node, Parser


SHELLS = frozenset(["sh", "bash", "dash", "ash", "ksh", "mksh", "zsh", "rbash", "lksh", "hush", "yash"])
"""Programs whose command line is that of sh(1) (POSIX.1-2017, XCU ``sh``), applets of busybox included."""

_BUILTINS_BY_SOURCE = {
    "POSIX.1-2017, XCU 2.14, special built-in utilities": """
        break : continue . eval exec exit export readonly return set shift times trap unset
    """,
    "POSIX.1-2017, XCU 2.9.1, utilities found before PATH": """
        alias bg cd command false fc fg getopts hash jobs kill newgrp pwd read true type ulimit umask unalias wait
    """,
    "dash(1), bash(1), busybox ash: what every one of them has built in besides": "echo printf test [ local",
    "bash(1), SHELL BUILTIN COMMANDS": """
        bind builtin caller compgen complete compopt declare dirs disown enable help history let logout mapfile popd
        pushd readarray shopt source suspend typeset
    """,
}
BUILTINS = frozenset(name for names in _BUILTINS_BY_SOURCE.values() for name in names.split())
"""Commands that are not looked up in PATH."""

PREFIXES = frozenset(["exec", "command", "builtin", "time", "coproc", "noglob", "nocorrect"])
"""Words of the shell itself that run the command after them (bash(1), zshmisc(1))."""

CONCERNS_NO_FILE = frozenset(
    ["echo", "printf", ":", "read", "local", "shift", "exit", "return", "kill", "umask"]
)
"""Builtins whose words name no file that is read."""

SCRIPT_LIMIT = 1 << 20
"""Bytes of a script that are read; a longer one is an archive with a script in front."""
MAX_DEPTH = 120
"""Nested statements, calls and sourced files."""
MAX_NESTED = 3
"""Command substitutions inside one another of which the output is worked out."""
MAX_STEPS = 100_000
"""Statements and words of one shell process; a longer script is cut, with a word."""
MAX_VALUES = 24
"""Values a variable may have, and alternatives of a command line."""
MAX_FILES = 256
"""Files that a pattern stands for."""
MAX_CALLS = 24
"""Different argument lists with which one function is walked."""

_VARIABLES_BY_SOURCE = {
    "bash(1), Shell Variables": """
        PPID UID EUID GROUPS RANDOM SECONDS LINENO REPLY OPTARG OPTIND OLDPWD IFS BASHPID BASH_VERSION BASH FUNCNAME
        PIPESTATUS HOSTTYPE MACHTYPE OSTYPE EPOCHSECONDS EPOCHREALTIME
    """,
    "environ(7): what a container runtime sets besides the image's ENV": "HOME HOSTNAME USER LOGNAME SHELL TERM",
}
_SET_BY_OTHERS = frozenset(name for names in _VARIABLES_BY_SOURCE.values() for name in names.split())

_UNKNOWN = regex("\0([^\0\1]*)\1")
_NO_WORDS: tuple[str, ...] = ()
_ALL_ARGS = "\0@\1"
"""A word that stands for any number of unknown ones."""
_LITERAL_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'", '"': '"', "e": "\x1b", "0": ""}

Words = tuple[str, ...]
"""The fields of a command line; an unknown part of a field is its source between NUL and SOH."""

_Pieces = tuple[tuple[str, str], ...]
"""A word on its way to fields: (``q`` quoted | ``u`` unquoted | ``s`` to be split | ``b`` a field ends, text)."""


@cache
def parser() -> Parser:
    """The parser of shell scripts, loaded when the first is met."""
    import tree_sitter
    import tree_sitter_bash

    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_bash.language()))


def _unknown(text: str) -> str:
    return "\0" + text.replace("\0", "").replace("\1", "") + "\1"


def is_known(word: str) -> bool:
    """Whether every part of a word is known."""
    return "\0" not in word


def shown(word: str) -> str:
    """A word as people read it: unknown parts as they were written."""
    return _UNKNOWN.sub(r"\1", word)


class Shell(WithoutPackages):
    """Shell scripts and the command lines of shells."""

    name = "shell"

    def explorer(self, image: ImageView) -> ShellExplorer:
        """What scripts run and read."""
        return ShellExplorer(image)


class ShellExplorer(Explorer):
    """Follows ``sh -c LINE``, ``sh SCRIPT ARGUMENT…`` and scripts that a ``#!`` line gives to a shell."""

    def __init__(self, image: ImageView) -> None:
        super().__init__(image)
        self._named: set[ImagePath] = set()

    def command(self, command: Command, program: ImagePath) -> Iterator[Edge | Command]:
        """What a shell's command line runs and reads."""
        name = command.argv[0].rpartition("/")[2]
        if name not in SHELLS:
            return
        asked = _Invocation(name, command.argv[1:])
        source = program
        if asked.login:
            for profile in ("/etc/profile", "~/.bash_profile", "~/.profile"):
                path = profile.replace("~", command.env.get("HOME", "/root"))
                if self.image.fs.is_file(path):
                    run = Run(self.image, source, command, profile, ())
                    yield from run.file(path)
        if name == "bash" and not asked.interactive and is_absolute(command.env.get("BASH_ENV", "")):
            run = Run(self.image, source, command, "BASH_ENV", ())
            yield from run.file(command.env["BASH_ENV"])
        if asked.line is not None:
            first = asked.operands[0] if asked.operands else name
            run = Run(self.image, source, command, first, asked.operands[1:])
            yield from run.text(asked.line.encode("utf-8", "surrogateescape"), None)
        elif asked.operands:
            script = self._script(asked.operands[0], command)
            if script is None:
                self.image.diagnose(
                    "script-not-found", f"{name} is given {asked.operands[0]!r}, which is not there", program
                )
                return
            run = Run(self.image, source, command, script, asked.operands[1:])
            yield from run.file(script)
        elif command.kind in ("entrypoint", "root"):
            self.image.diagnose(
                "interactive-shell",
                f"{name} reads its commands from its input: what is typed into it cannot be known",
                program,
                "info",
            )

    def _script(self, word: str, command: Command) -> ImagePath | None:
        """The script an operand names: a path, or for bash(1) a name that PATH finds."""
        fs = self.image.fs
        path = clean(posixpath.join(command.cwd, word))
        if fs.is_file(path):
            return path
        if "/" not in word:
            for folder in command.env.get("PATH", "").split(":"):
                if folder and fs.is_file(posixpath.join(command.cwd, folder, word)):
                    return posixpath.join(command.cwd, folder, word)
        return None

    def finish(self, kept: Mapping[ImagePath, Edge]) -> Iterator[Edge | Command]:
        """Scripts that a literal of a program names are run by it: with arguments that nobody knows."""
        fs = self.image.fs
        for path, edge in kept.items():
            if edge.kind == "literal" and path not in self._named and fs.type_of(path) == EntryType.FILE:
                self._named.add(path)
                head = self.image.head(path)
                if head[:2] == b"#!" and fs.entry(path).mode & 0o111:
                    words = head.split(b"\n", 1)[0][2:].split()
                    if words and words[-1].rpartition(b"/")[2].decode("latin-1") in SHELLS:
                        yield Command(
                            path,
                            (path,),
                            "a script that its caller names",
                            "/",
                            self.image.env,
                            "script",
                            "likely",
                        )


def is_absolute(path: str) -> bool:
    """Whether a word is an absolute path of which every part is known."""
    return path.startswith("/") and is_known(path)


class _Invocation:
    """A shell's own options and operands (POSIX.1-2017, XCU ``sh``; bash(1), OPTIONS)."""

    def __init__(self, name: str, words: Sequence[str]) -> None:
        self.line: str | None = None
        """What ``-c`` is given."""
        self.operands: Words = ()
        self.login = self.interactive = False
        wants_line = False
        at = 0
        while at < len(words):
            word = words[at]
            if word in ("--", "-"):
                at += 1
                break
            if word.startswith("--"):
                self.login |= word == "--login"
                at += 2 if word in ("--rcfile", "--init-file") else 1
                continue
            if len(word) < 2 or word[0] not in "-+":
                break
            wants_line |= word[0] == "-" and "c" in word
            self.login |= word[0] == "-" and "l" in word
            self.interactive |= word[0] == "-" and "i" in word
            at += 1 + sum(word.count(letter) for letter in ("o", "O"))
        self.operands = tuple(words[at:])
        if wants_line and self.operands:
            self.line, self.operands = self.operands[0], self.operands[1:]


class Run:
    """One shell process, walked along all its branches; yields what it runs and reads.

    ``source`` is the program or script that edges start from until a script file is read; ``name`` is ``$0``.
    """

    def __init__(
        self, image: ImageView, source: ImagePath, command: Command, name: str, arguments: Words
    ) -> None:
        self.image = image
        self.fs = image.fs
        self.source = source
        self.name = name
        self.given = tuple(arguments)
        self.initial_cwd = command.cwd or "/"
        self.environment = dict(command.env)
        self.certainty: Certainty = command.certainty
        self.exported = set(self.environment)
        self.vars: dict[str, Words] = {}
        self.arrays: dict[str, tuple[Words, ...]] = {}
        self.functions: dict[str, Node] = {}
        self._bodies: dict[str, tuple[bytes, ImagePath]] = {}
        self._walked: dict[str, set[tuple[Words, ...]]] = {}
        self._begin((self.given,))
        self.found: list[Edge | Command] = []
        self._seen: set[object] = set()
        self._sourced: list[ImagePath] = []
        self._said_computed = False
        self._quiet = False
        self._code = b""
        self._first_line = 1
        self._of_file = False
        self._depth = self._maybe = self._steps = self._nested = 0
        self._narrowed: dict[str, Words] = {}
        self._piped: Words = ()

    def _begin(self, args: tuple[Words, ...]) -> None:
        self.args = args
        self.cwd = self.initial_cwd
        self.vars.update({name: (value,) for name, value in self.environment.items()})
        self._walked = {}
        self._sources_walked: set[ImagePath] = set()

    # -- what is walked ------------------------------------------------------------------------------------

    def file(self, path: ImagePath) -> list[Edge | Command]:
        """What a script file needs, the edge to it included."""
        evidence = f"the shell is given {posixpath.basename(path)}"
        self.found.append(Edge(self.source, path, "script", evidence, "certain"))
        content = self._read(path)
        if content is not None:
            real = self.fs.follow(path) or path
            self.text(content, real)
        return self.found

    def text(self, code: bytes, path: ImagePath | None) -> list[Edge | Command]:
        """What a script needs; ``path`` is its file, None for a line of ``-c``."""
        if path is not None:
            self.source, self._of_file = path, True
            self._sourced = [path]
        for self._quiet in (True, False):  # first what variables can be, then what that leads to
            self._begin((self.given,))
            self._steps = 0
            self._parse(code, say=not self._quiet)
            for function in sorted(set(self.functions) - set(self._walked)):
                with self._perhaps():
                    self._call(function, ((_ALL_ARGS,),))
        return self.found

    def _read(self, path: ImagePath) -> bytes | None:
        try:
            return self.fs.read(path, SCRIPT_LIMIT)
        except (LayerLensError, OSError) as error:
            self.image.diagnose("unreadable-script", f"cannot be read: {error}", path)
            return None

    def _parse(self, code: bytes, say: bool = True) -> None:
        """Walk a piece of code in this shell, its lines counted from the place where it stands."""
        if self._depth > MAX_DEPTH:
            return
        kept = self._code
        self._code = code
        root = parser().parse(code).root_node
        if root.has_error and say:
            line = _first_error(root)
            where = f"line {line}" if self._of_file else f"{code[:60].decode('utf-8', 'replace')!r}"
            self.image.diagnose(
                "shell-syntax", f"{where} is not understood, the rest is", self.source, "info"
            )
        self._visit(root)
        self._code = kept

    # -- statements ----------------------------------------------------------------------------------------

    def _visit(self, node: Node) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS or self._depth > MAX_DEPTH:
            if not self._quiet:
                self.image.diagnose(
                    "long-script", "is too long or too deep to be followed to its end", self.source
                )
            return
        self._depth += 1
        visit = _STATEMENTS.get(node.type)
        if visit is not None:
            visit(self, node)
        else:
            for child in node.named_children:
                self._visit(child)
        self._depth -= 1

    @contextmanager
    def _perhaps(self) -> Iterator[None]:
        """What happens inside may not happen: assignments add to what was there."""
        self._maybe += 1
        try:
            yield
        finally:
            self._maybe -= 1

    @contextmanager
    def _branch(self, taken: bool | None) -> Iterator[None]:
        """A branch that is taken, is not with the arguments that are known, or (None) may be."""
        before = self.args
        if taken is False:
            self.args = ((_ALL_ARGS,),)
        with self._perhaps():
            yield
        if taken is False:
            changed = tuple(args for args in self.args if args != (_ALL_ARGS,))
            self.args = _merged(before, changed)
        elif taken is None:
            self.args = _merged(before, self.args)

    def _if(self, node: Node) -> None:
        truth = self._conditions(node)
        untaken = truth is True
        with self._branch(truth):
            for child in node.named_children:
                if child not in _conditions(node) and child.type not in ("elif_clause", "else_clause"):
                    self._visit(child)
        for clause in node.named_children:
            if clause.type == "elif_clause":
                asked = [c for c in _until(clause, "then") if c.is_named]
                with self._branch(False if untaken else None):
                    for child in asked:
                        self._visit(child)
                    truth = False if untaken else self._truth(asked[-1] if asked else None)
                    untaken = untaken or truth is True
                    with self._branch(truth):
                        for child in clause.named_children:
                            if child not in asked:
                                self._visit(child)
            elif clause.type == "else_clause":
                with self._branch(False if untaken else None):
                    for child in clause.named_children:
                        self._visit(child)

    def _conditions(self, node: Node) -> bool | None:
        conditions = _conditions(node)
        for child in conditions:
            self._visit(child)
        return self._truth(conditions[-1] if conditions else None)

    def _while(self, node: Node) -> None:
        conditions = _conditions(node)
        for child in conditions:
            self._visit(child)
        with self._perhaps():
            for child in node.named_children:
                if child not in conditions:
                    self._visit(child)

    def _for(self, node: Node) -> None:
        name = self._field_text(node, "variable")
        words = node.children_by_field_name("value")
        values: list[str] = []
        for word in words:
            self._inner(word)
            for fields in self._words(word):
                values.extend(field for field in fields if field != _ALL_ARGS)
        if not words:
            values = [value for args in self.args for value in args if value != _ALL_ARGS]
        self.vars[name] = tuple(dict.fromkeys(values))[:MAX_FILES] or (_unknown(f"${name}"),)
        self._note_words(values, node)
        body = node.child_by_field_name("body")
        if body is not None:
            with self._perhaps():
                self._visit(body)

    def _case(self, node: Node) -> None:
        subject = node.child_by_field_name("value")
        name, values = "", _NO_WORDS
        if subject is not None:
            self._inner(subject)
            name = _variable_of(subject, self._code)
            values = tuple(fields[0] for fields in self._words(subject) if fields)
        left = [value for value in values if is_known(value)]
        certain = len(left) == len(values) == 1
        for item in node.named_children:
            if item.type != "case_item":
                continue
            patterns = self._patterns(item)
            fits = [v for v in left if any(fnmatch.fnmatchcase(v, pattern) for pattern in patterns)]
            narrowed = tuple(dict.fromkeys(fits + [p for p in patterns if not any(c in p for c in "*?[")]))
            if not narrowed:
                narrowed = (_unknown("$" + name),)
            left = [value for value in left if value not in fits]
            shadowed = self._narrowed
            self._narrowed = {**shadowed, name: narrowed} if name else shadowed
            with self._branch(bool(fits) if certain else None):
                for child in item.children:
                    if child.is_named and child not in item.children_by_field_name("value"):
                        self._visit(child)
            self._narrowed = shadowed

    def _patterns(self, item: Node) -> list[str]:
        found: list[str] = []
        for value in item.children_by_field_name("value"):
            for fields in self._words(value, expand=False):
                found.extend(shown(field) for field in fields)
        return found

    def _define(self, node: Node) -> None:
        name = self._field_text(node, "name")
        body = node.child_by_field_name("body")
        if name and body is not None:
            self.functions[name] = body
            self._bodies[name] = (self._code, self.source)

    def _subshell(self, node: Node) -> None:
        cwd, args = self.cwd, self.args
        for child in node.named_children:
            self._visit(child)
        self.cwd, self.args = cwd, args

    def _pipeline(self, node: Node) -> None:
        before, cwd = self._piped, self.cwd
        for child in node.named_children:
            self._visit(child)
            self._piped = self._listing(child) or self._piped
        self._piped, self.cwd = before, cwd

    def _list(self, node: Node) -> None:
        """``A && B``, ``A || B``: the second may not happen."""
        parts = node.named_children
        for number, child in enumerate(parts):
            if number == 0:
                self._visit(child)
                continue
            truth = self._truth(parts[0]) if number == 1 else None
            operator = node.children[1].type if len(node.children) > 1 else ""
            if truth is not None and operator == "||":
                truth = not truth
            with self._branch(truth):
                self._visit(child)

    def _listing(self, node: Node) -> Words:
        """The files that ``find FOLDER`` or ``ls FOLDER`` print into a pipe."""
        command = _first_of(node, "command")
        if command is None:
            return ()
        for words in self._command_words(command):
            if words and words[0] in ("find", "ls") and all(is_known(word) for word in words):
                listed: list[str] = []
                for word in words[1:]:
                    path = self._absolute(word)
                    if not word.startswith(("-", "(", "!")) and path not in SHARED and self.fs.is_dir(path):
                        below = self.fs.walk_files(self.fs.follow(path) or path)
                        real = self.fs.follow(path) or path
                        for _, found in zip(range(MAX_FILES), below, strict=False):
                            shown_path = path.rstrip("/") + found[len(real) :]
                            listed.append(shown_path if words[0] == "find" else posixpath.basename(found))
                return tuple(listed)
        return ()

    def _redirected(self, node: Node) -> None:
        body = node.child_by_field_name("body")
        piped = self._piped
        extra: list[Node] = []
        for redirect in node.children_by_field_name("redirect"):
            extra.extend(self._redirect(redirect))
            if redirect.type == "file_redirect" and body is not None and body.type == "while_statement":
                substitution = _first_of(redirect, "process_substitution")
                if substitution is not None:
                    self._piped = self._listing(substitution)
        if body is not None and body.type == "command":
            self._command(body, extra)
        elif body is not None:
            self._visit(body)
        self._piped = piped

    def _redirect(self, redirect: Node) -> list[Node]:
        """What a redirection reads; words after its file are the command's own."""
        if redirect.type != "file_redirect":
            for child in redirect.named_children:
                if child.type == "file_redirect":
                    self._redirect(child)
                elif child.type == "heredoc_body":
                    self._inner(child)
                elif child.type not in ("heredoc_start", "heredoc_end"):
                    self._visit(child)
            return []
        targets = redirect.children_by_field_name("destination")
        reads = any(child.type in ("<", "<>", "<<<") for child in redirect.children)
        for target in targets[:1]:
            self._inner(target)
            for fields in self._words(target):
                for field in fields:
                    if reads:
                        self._note_words((field,), redirect)
                    elif is_absolute(field) and not self._quiet:
                        folder = posixpath.dirname(field)
                        if folder not in ("/", "/dev") and self.fs.is_dir(folder):
                            evidence = f"{self._where(redirect)}writes {field}"
                            self.found.append(Edge(self.source, folder, "literal", evidence, "likely"))
        return targets[1:]

    def _redirect_alone(self, node: Node) -> None:
        self._redirect(node)

    def _declare(self, node: Node) -> None:
        exports = self._code[node.start_byte : node.start_byte + 8].startswith((b"export", b"declare "))
        for child in node.named_children:
            if child.type == "variable_assignment":
                self._assign(child)
                if exports:
                    self.exported.add(self._field_text(child, "name"))
            elif child.type in ("variable_name", "word") and exports:
                self.exported.add(self._text(child))
            else:
                self._inner(child)

    def _assign(self, node: Node) -> None:
        name = self._field_text(node, "name")
        value = node.child_by_field_name("value")
        appends = any(child.type == "+=" for child in node.children)
        if value is not None and value.type == "array":
            self._assign_array(name, value, appends)
            return
        values: list[str] = [""]
        if value is not None:
            self._inner(value)
            values = [" ".join(fields) for fields in self._words(value, split=False)]
        if appends:
            values = [old + new for old in self.vars.get(name, ("",)) for new in values]
        if re.fullmatch(r"[A-Za-z_]\w*", name):
            self._set(name, values, node)

    def _assign_array(self, name: str, value: Node, appends: bool) -> None:
        self._inner(value)
        lists: list[Words] = [()]
        for child in value.named_children:
            lists = [before + fields for before in lists for fields in self._words(child)][:MAX_VALUES]
        old = self.arrays.get(name, ())
        if appends:
            lists = [before + after for before in old or ((),) for after in lists]
            lists = [words for words in lists if len(words) <= 2 * MAX_FILES]
        self.arrays[name] = _merged(old if self._maybe or appends else (), tuple(lists))
        for words in lists:
            self._note_words(words, value)

    def _set(self, name: str, values: Sequence[str], node: Node) -> None:
        old = self.vars.get(name, ()) if self._maybe else ()
        merged = tuple(dict.fromkeys([*old, *values]))
        known = tuple(value for value in merged if is_known(value))
        unknown = tuple(value for value in merged if not is_known(value))
        self.vars[name] = (*known, *unknown)[:MAX_VALUES]
        self._note_words(values, node)

    def _unset(self, node: Node) -> None:
        if not self._maybe:
            for child in node.named_children:
                self.vars.pop(self._text(child), None)
                self.arrays.pop(self._text(child), None)

    def _test(self, node: Node) -> None:
        """``[ -f /etc/x ]``: a file that is asked for is read when it is there."""
        self._inner(node)
        for test in _descendants(node):
            operator = test.child_by_field_name("operator") if test.type == "unary_expression" else None
            if operator is not None and self._text(operator) not in ("-n", "-z", "!"):
                for fields in self._words(test.named_children[-1]):
                    self._note_words(fields, node)

    def _inner(self, node: Node) -> None:
        """The commands of substitutions inside a word."""
        if node.type in ("command_substitution", "process_substitution"):
            cwd, args = self.cwd, self.args
            for child in node.named_children:
                self._visit(child)
            self.cwd, self.args = cwd, args
            return
        if self._depth < MAX_DEPTH:
            self._depth += 1
            for child in node.named_children:
                self._inner(child)
            self._depth -= 1

    # -- commands ------------------------------------------------------------------------------------------

    def _command(self, node: Node, extra: Sequence[Node] = ()) -> None:
        prefix: dict[str, str] = {}
        for child in node.named_children:
            if child.type == "file_redirect":
                self._redirect(child)
                continue
            self._inner(child)
            if child.type == "variable_assignment":
                value = child.child_by_field_name("value")
                fields = self._words(value, split=False)[0] if value is not None else ("",)
                if all(is_known(field) for field in fields):
                    prefix[self._field_text(child, "name")] = " ".join(fields)
        for words in self._command_words(node, extra):
            self._simple(words, node, prefix)

    def _command_words(self, node: Node, extra: Sequence[Node] = ()) -> list[Words]:
        name = node.child_by_field_name("name")
        if name is None:
            return []
        parts = [*name.named_children, *node.children_by_field_name("argument"), *extra]
        lists: list[Words] = [()]
        for part in parts:
            choices = self._words(part)
            lists = list(dict.fromkeys(before + fields for before in lists for fields in choices))[
                :MAX_VALUES
            ]
        return lists

    def _simple(self, words: Words, node: Node, prefix: Mapping[str, str]) -> None:
        """One command line of which the words are known as far as they can be."""
        while words and words[0] in PREFIXES:
            if words[0] == "command" and words[1:2] and words[1] in ("-v", "-V"):
                return
            words = _after_options(words[1:], "a" if words[0] == "exec" else "fo")
        if not words:
            return
        name = words[0]
        if name == _ALL_ARGS:
            self._computed('"$@"', node)
        elif not is_known(name):
            self._computed_name(words, node, prefix)
        elif name in self.functions:
            self._call(name, (words[1:],))
        elif name in BUILTINS:
            self._builtin(name, words[1:], node)
        elif name:
            self._run(words, node, prefix)

    def _computed_name(self, words: Words, node: Node, prefix: Mapping[str, str]) -> None:
        pattern = re.compile("".join(_as_regex(words[0])) + r"\Z", re.DOTALL)
        named = [name for name in sorted(self.functions) if pattern.match(name)]
        if "/" not in words[0] and named and not words[0].startswith("\0"):
            for name in named[:MAX_VALUES]:
                self._call(name, (words[1:],))
            return
        files = self._fitting(words[0])
        for path in files:
            if self.fs.entry(self.fs.follow(path) or path).mode & 0o111:
                self._run((path, *words[1:]), node, prefix)
        if not files:
            self._computed(shown(words[0]), node)

    def _computed(self, written: str, node: Node) -> None:
        if not self._quiet and not self._said_computed:
            self._said_computed = True
            self.image.diagnose(
                "computed-command",
                f"{self._where(node)}runs {written}, which cannot be known",
                self.source,
                "info",
            )

    def _run(self, words: Words, node: Node, prefix: Mapping[str, str]) -> None:
        if self._quiet:
            return
        self._note_words([word for word in words[1:] if not is_known(word)], node)
        first = clean(words[0]) if words[0].startswith("/") else words[0]
        argv = (first, *(shown(word) for word in words[1:] if word != _ALL_ARGS))
        line = " ".join(argv)
        evidence = f"{self._where(node)}{line if len(line) <= 100 else line[:99] + '…'}"
        certainty: Certainty = "likely" if self._maybe or self.certainty != "certain" else "certain"
        env = dict(self.environment)
        for name in sorted(self.exported):
            known = [value for value in self.vars.get(name, ()) if is_known(value)]
            if known:
                env[name] = known[-1]
        env.update(prefix)
        key = (argv, self.cwd, tuple(sorted(env.items())))
        if key not in self._seen:
            self._seen.add(key)
            self.found.append(Command(self.source, argv, evidence, self.cwd, env, "command", certainty))

    def _call(self, name: str, args: tuple[Words, ...]) -> None:
        """Walk a function's body with arguments, each list of them once."""
        walked = self._walked.setdefault(name, set())
        if args in walked or len(walked) >= MAX_CALLS:
            return
        walked.add(args)
        body, (code, source) = self.functions[name], self._bodies[name]
        kept = self.args, self._code, self.source, self._narrowed
        self.args, self._code, self.source = args, code, source
        self._narrowed = {key: value for key, value in self._narrowed.items() if not key.isdigit()}
        with self._perhaps():
            self._visit(body)
        self.args, self._code, self.source, self._narrowed = kept

    def _builtin(self, name: str, words: Words, node: Node) -> None:
        if name not in CONCERNS_NO_FILE:
            self._note_words(words, node)
        act = _BUILTINS.get(name)
        if act is not None:
            act(self, words, node)

    def _source(self, words: Words, node: Node) -> None:
        """``. FILE [ARGUMENT…]``: read into this very shell."""
        if not words:
            return
        paths = [self._found_source(words[0])] if is_known(words[0]) else self._fitting(words[0])
        for path in paths:
            if path is None:
                continue
            if not self._quiet:
                evidence = f"{self._where(node)}. {shown(words[0])}"
                self.found.append(
                    Edge(self.source, path, "script", evidence, "likely" if self._maybe else "certain")
                )
            real = self.fs.follow(path) or path
            if (
                real in self._sourced
                or real in self._sources_walked
                or self.fs.type_of(real) != EntryType.FILE
            ):
                continue
            content = self._read(path)
            if content is None:
                continue
            self._sources_walked.add(real)
            kept = self.source, self._of_file, self.args
            self.source, self._of_file = real, True
            if len(words) > 1:
                self.args = (words[1:],)
            self._sourced.append(real)
            with self._perhaps():
                self._parse(content, say=not self._quiet)
            self._sourced.pop()
            self.source, self._of_file = kept[:2]
            if len(words) > 1:
                self.args = kept[2]

    def _found_source(self, word: str) -> ImagePath | None:
        if "/" in word:
            path = self._absolute(word)
            return path if self.fs.is_file(path) else None
        folders = [*(self.vars.get("PATH") or ("",))[-1].split(":"), self.cwd]
        for folder in folders:
            path = posixpath.join(self.cwd, folder, word)
            if folder and self.fs.is_file(path):
                return path
        return None

    def _eval(self, words: Words, node: Node) -> None:
        line = " ".join(words)
        if is_known(line):
            with self._perhaps():
                self._parse(line.encode("utf-8", "surrogateescape"), say=False)
        elif words == (_ALL_ARGS,) or not is_known(words[0]):
            self._computed("eval", node)
        else:
            self._simple(words, node, {})

    def _trap(self, words: Words, node: Node) -> None:
        if len(words) > 1 and words[0] not in ("-", "--", "", "-p", "-l"):
            self._eval((words[1] if words[0] == "--" else words[0],), node)

    def _set_args(self, words: Words, node: Node) -> None:
        """``set -- WORD…`` replaces the arguments (POSIX.1-2017, XCU 2.14 ``set``)."""
        if "--" in words:
            new = words[words.index("--") + 1 :]
        else:
            new = _after_options(words, "o")
            if not new:
                return
        self.args = (new,)  # what a branch had before, it merges itself

    def _shift(self, words: Words, node: Node) -> None:
        count = int(words[0]) if words and words[0].isdecimal() and len(words[0]) < 4 else 1
        self.args = tuple(args if args[:1] == (_ALL_ARGS,) else args[count:] for args in self.args)

    def _change_folder(self, words: Words, node: Node) -> None:
        operands = [word for word in words if not word.startswith("-")]
        target = operands[0] if operands else self.vars.get("HOME", ("/",))[0]
        path = self._absolute(target)
        if is_known(target) and self.fs.is_dir(path):
            self.cwd = path

    def _read_into(self, words: Words, node: Node) -> None:
        for word in _after_options(words, "adinNptu"):
            if re.fullmatch(r"[A-Za-z_]\w*", word):
                values = self._piped or (_unknown(f"${word}"),)
                self.vars[word] = _merged_values(self.vars.get(word, ()) if not self._piped else (), values)

    def _map_into(self, words: Words, node: Node) -> None:
        for word in words[-1:]:
            self.arrays[word] = ((*(self._piped or (_ALL_ARGS,)),),)

    # -- conditions ----------------------------------------------------------------------------------------

    def _truth(self, node: Node | None) -> bool | None:
        """Whether a condition on known arguments and the image's files holds; None where that depends."""
        if node is None or self._depth > MAX_DEPTH:
            return None
        if node.type == "negated_command":
            inner = self._truth(node.named_children[0] if node.named_children else None)
            return None if inner is None else not inner
        if node.type == "list" and len(node.named_children) == 2:
            one, other = (self._truth(child) for child in node.named_children)
            if node.children[1].type == "&&":
                return False if False in (one, other) else (True if one and other else None)
            return True if True in (one, other) else (False if one is False and other is False else None)
        if node.type in ("compound_statement", "redirected_statement", "test_command"):
            inside = [
                child for child in node.named_children if child.type not in ("file_redirect", "comment")
            ]
            return self._truth(inside[0]) if len(inside) == 1 else None
        if node.type == "unary_expression":
            return self._unary(node)
        if node.type == "binary_expression":
            return self._binary(node)
        return None

    def _one(self, node: Node | None) -> str | None:
        """The one value of a word, where it has one."""
        if node is None:
            return None
        choices = self._words(node, split=False)
        if len(choices) == 1 and len(choices[0]) <= 1:
            word = choices[0][0] if choices[0] else ""
            return word if is_known(word) else None
        return None

    def _unary(self, node: Node) -> bool | None:
        operator = node.child_by_field_name("operator")
        operand = node.named_children[-1] if node.named_children else None
        if operator is None:
            return None
        kind = self._text(operator)
        if kind == "!":
            inner = self._truth(operand)
            return None if inner is None else not inner
        word = self._one(operand)
        if word is None:
            return None
        if kind in ("-n", "-z"):
            return bool(word) == (kind == "-n")
        path = self._absolute(word)
        if not word or kind not in ("-f", "-e", "-d", "-x", "-s", "-r"):
            return False if not word else None
        if kind == "-d":
            return self.fs.is_dir(path) or None
        real = self.fs.follow(path)
        if real is None or (kind == "-f" and self.fs.type_of(real) != EntryType.FILE):
            return False
        return kind != "-x" or bool(self.fs.entry(real).mode & 0o111)

    def _binary(self, node: Node) -> bool | None:
        operator = node.child_by_field_name("operator")
        left = self._one(node.child_by_field_name("left"))
        right = self._one(node.child_by_field_name("right"))
        if operator is None or left is None or right is None:
            return None
        compare = _COMPARISONS.get(self._text(operator))
        return compare(left, right) if compare else None

    # -- words ---------------------------------------------------------------------------------------------

    def _words(self, node: Node, split: bool = True, expand: bool = True) -> list[Words]:
        """The fields that a word can become, as alternatives (POSIX.1-2017, XCU 2.6)."""
        alternatives = []
        for pieces in self._pieces(node, False):
            fields = tuple(self._fields(pieces, split, expand))
            if fields not in alternatives:
                alternatives.append(fields)
        return alternatives[:MAX_VALUES] or [()]

    def _pieces(self, node: Node, quoted: bool) -> list[_Pieces]:
        """Alternatives of (kind, text): ``q`` quoted, ``u`` unquoted, ``s`` to be split, ``b`` a field ends."""
        read = _PIECES.get(node.type)
        self._steps += 1
        if self._depth > MAX_DEPTH or self._steps > MAX_STEPS:
            return [(("q", _unknown(self._text(node)[:80])),)]
        self._depth += 1
        found: list[_Pieces] = read(self, node, quoted) if read else []
        self._depth -= 1
        return found if read else [(("q", _unknown(self._text(node)[:80])),)]

    def _fields(self, pieces: Sequence[tuple[str, str]], split: bool, expand: bool) -> Iterator[str]:
        field, started, pattern = "", False, False
        for kind, text in pieces:
            if kind == "b":
                if started:
                    yield from self._globbed(field, pattern and expand)
                field, started, pattern = "", False, False
                continue
            if kind == "s" and split:
                parts = re.split(r"[ \t\n]+", text)
                for number, part in enumerate(parts):
                    if number and started:
                        yield from self._globbed(field, pattern and expand)
                        field, started, pattern = "", False, False
                    if part:
                        field, started = field + part, True
                        pattern |= any(mark in part for mark in "*?[")
                continue
            field += text
            started = started or kind == "q" or bool(text)
            pattern |= kind != "q" and any(mark in text for mark in "*?[")
        if started:
            yield from self._globbed(field, pattern and expand)

    def _globbed(self, field: str, pattern: bool) -> Iterable[str]:
        if not pattern or not is_known(field) or len(field) > 4096:
            return (field,)
        found = self.fs.glob(self._absolute(field))[:MAX_FILES]
        return found or (field,)

    def _plain(self, node: Node, quoted: bool) -> list[_Pieces]:
        text = self._text(node)
        if text.startswith("~") and not quoted and (len(text) == 1 or text[1] == "/"):
            homes = self.vars.get("HOME") or (_unknown("~"),)
            return [(("q", home), ("u", text[1:])) for home in homes]
        if "\\" not in text:
            return [(("u", text),)]
        pieces: list[tuple[str, str]] = []
        for escaped, plain in re.findall(r"\\(.)|([^\\]+)", text, re.DOTALL):
            pieces.append(("u", plain) if plain else ("q", "" if escaped == "\n" else escaped))
        return [tuple(pieces)]

    def _quoted(self, node: Node, quoted: bool) -> list[_Pieces]:
        """A double-quoted string; blanks between its parts belong to it though the grammar skips them."""
        lists: list[_Pieces] = [(("q", ""),)]
        only_args = [child.type for child in node.named_children] == ["simple_expansion"]
        if only_args and self._text(node) == '"$@"':
            lists = [()]
        children = node.children
        at = children[0].end_byte if children else node.start_byte
        for child in children[1:]:
            gap = self._code[at : child.start_byte].decode("utf-8", "surrogateescape")
            at = child.end_byte
            if child.type == '"':
                choices: list[_Pieces] = [()]
            elif child.type == "string_content":
                text = re.sub(r'\\([$`"\\\n])', lambda m: m[1].strip("\n"), self._text(child))
                choices = [(("q", text),)]
            else:
                choices = self._pieces(child, True) if child.is_named else [(("q", self._text(child)),)]
            lists = [(*one, ("q", gap), *two) if gap else one + two for one in lists for two in choices]
            lists = lists[:MAX_VALUES]
        return lists

    def _raw(self, node: Node, quoted: bool) -> list[_Pieces]:
        return [(("q", self._text(node)[1:-1]),)]

    def _ansi(self, node: Node, quoted: bool) -> list[_Pieces]:
        text = re.sub(r"\\(.)", lambda m: _LITERAL_ESCAPES.get(m[1], m[0]), self._text(node)[2:-1])
        return [(("q", text),)]

    def _joined(self, node: Node, quoted: bool) -> list[_Pieces]:
        lists: list[_Pieces] = [()]
        for child in node.children:
            choices = self._pieces(child, quoted) if child.is_named else [(("q", self._text(child)),)]
            lists = [one + two for one in lists for two in choices][:MAX_VALUES]
        return lists

    def _variable(self, node: Node, quoted: bool) -> list[_Pieces]:
        name = self._text(node).lstrip("$")
        return self._expanded(name, quoted, self._text(node))

    def _expanded(self, name: str, quoted: bool, written: str) -> list[_Pieces]:
        if name in ("@", "*"):
            found = []
            for args in self.args:
                pieces: list[tuple[str, str]] = []
                for number, word in enumerate(args):
                    if number:
                        pieces.append(("b", ""))
                    pieces.append(("q" if quoted else "s", word))
                found.append(tuple(pieces))
            return found or [()]
        kind = "q" if quoted else "s"
        values = self._values(name)
        if values is None:
            return [((kind, ""),)]
        return [((kind, value),) for value in values]

    def _values(self, name: str) -> Words | None:
        """The values of a parameter; None where it is not set."""
        if name in self._narrowed:
            return self._narrowed[name]
        if name == "0":
            return (self.name,)
        if name == "BASH_SOURCE":
            return (self.source if self._of_file else self.name,)
        if name.isdecimal():
            values: list[str] = []
            for args in self.args:
                number = int(name[:4])
                if number <= len(args) and _ALL_ARGS not in args[:number]:
                    values.append(args[number - 1])
                elif _ALL_ARGS in args:
                    values.append(_unknown(f"${name}"))
            return tuple(dict.fromkeys(values)) or None
        if name == "#":
            counts = {str(len(args)) if _ALL_ARGS not in args else _unknown("$#") for args in self.args}
            return tuple(sorted(counts))
        if name in self.vars:
            return self.vars[name]
        if name in self.arrays:
            return tuple(words[0] for words in self.arrays[name] if words) or None
        if name == "PWD":
            return (self.cwd,)
        if name in _SET_BY_OTHERS or not re.match(r"\w", name):
            return (_unknown(f"${name}"),)
        return None

    def _parameter(self, node: Node, quoted: bool) -> list[_Pieces]:
        """``${NAME…}`` (POSIX.1-2017, XCU 2.6.2; bash(1), Parameter Expansion)."""
        children = [child for child in node.children if child.type not in ("${", "}")]
        written = self._text(node)
        if not children:
            return [(("q", ""),)]
        kind = "q" if quoted else "s"
        first = children[0]
        if first.type == "subscript":
            return self._element(first, kind, written)
        name = self._text(first)
        if first.type not in ("variable_name", "special_variable_name"):
            return [((kind, _unknown(written)),)]
        if len(children) == 1:
            return self._expanded(name, quoted, written)
        operator = self._text(children[1])
        if operator.lstrip(":") in ("-", "=", "+", "?"):
            return self._defaulted(name, operator, children[2:], quoted)
        values = self._values(name)
        if values is None:
            return [((kind, ""),)]
        change = _CHANGES.get(operator)
        pattern = "".join(self._one(child) or self._text(child) for child in children[2:])
        if change is None or any(mark in pattern for mark in "$`"):
            return [((kind, _unknown(written)),)]
        return [((kind, change(v, pattern) if is_known(v) else _unknown(written)),) for v in values]

    def _defaulted(self, name: str, operator: str, rest: Sequence[Node], quoted: bool) -> list[_Pieces]:
        values = () if name in ("@", "*") else self._values(name) or ()
        have = [value for value in values if value]
        kind = "q" if quoted else "s"
        default: list[_Pieces] = [()]
        for child in rest:
            default = [one + two for one in default for two in self._pieces(child, quoted)][:MAX_VALUES]
        if operator.endswith("+"):
            return default if have else [()]
        found: list[_Pieces] = [((kind, value),) for value in have]
        if operator.endswith("?"):
            return found or [((kind, _unknown(f"${name}")),)]
        if not have or not all(is_known(value) for value in have) or name not in self.environment:
            found += default
        if operator.endswith("=") and not have:
            self.vars[name] = tuple("".join(text for _, text in pieces) for pieces in default)
        return found

    def _element(self, node: Node, kind: str, written: str) -> list[_Pieces]:
        name = self._field_text(node, "name")
        index = self._field_text(node, "index")
        if name == "BASH_SOURCE":
            return [((kind, self.source if self._of_file else self.name),)]
        found: list[_Pieces] = []
        lists = self.arrays.get(name)
        if lists is None:
            found.extend(((kind, value),) for value in self.vars.get(name, ()))
            return found or [()]
        if index not in ("@", "*"):
            return [((kind, _unknown(written)),)]
        for words in lists:
            pieces: list[tuple[str, str]] = []
            for number, word in enumerate(words):
                pieces += [("b", "")] * bool(number) + [("q", word)]
            found.append(tuple(pieces))
        return found

    def _substitution(self, node: Node, quoted: bool) -> list[_Pieces]:
        kind = "q" if quoted else "s"
        values: Words | None = None
        listed: Words = ()
        if self._nested < MAX_NESTED:
            self._nested += 1
            values = self._printed(node)
            listed = self._listing(node) if values is None and not quoted else ()
            self._nested -= 1
        if listed:
            return [((kind, "\n".join(listed)),)]
        if values is None:
            return [((kind, _unknown(self._text(node)[:80])),)]
        return [((kind, value),) for value in values]

    def _printed(self, node: Node) -> Words | None:
        """What a command substitution prints, for the few programs that only rework paths."""
        outer = list(_outer_commands(node))
        if (
            len(outer) == 2
            and self._text(outer[0]).startswith("cd ")
            and self._text(outer[1]).startswith("pwd")
        ):
            found = []
            for words in self._command_words(outer[0]):
                operands = [word for word in words[1:] if word and not word.startswith("-")]
                if not operands or not is_known(operands[0]):
                    return None
                found.append(self._absolute(operands[0]))
            return tuple(found)
        if len(outer) != 1 or outer[0].type != "command":
            return None
        found = []
        for words in self._command_words(outer[0]):
            if not words or not all(is_known(word) for word in words):
                return None
            prints = _PRINTS.get(words[0])
            value = prints(self, words[1:]) if prints else None
            if value is None:
                return None
            found.append(value)
        return tuple(dict.fromkeys(found))

    def _which(self, words: Words) -> str | None:
        names = [word for word in words if not word.startswith("-")]
        if not names:
            return None
        if names[0] in self.functions or names[0] in BUILTINS:
            return names[0]
        for folder in (self.vars.get("PATH") or ("",))[-1].split(":"):
            path = posixpath.join(self._absolute(folder or "."), names[0])
            if self.fs.is_file(path):
                return path
        return ""

    def _print_file(self, words: Words) -> str | None:
        path = self._absolute(words[0]) if len(words) == 1 else ""
        if not self.fs.is_file(path) or self.fs.size(path) > 4096:
            return None
        try:
            return self.fs.read(path, 4096).decode("utf-8", "surrogateescape").rstrip("\n").replace("\0", "")
        except (LayerLensError, OSError):
            return None

    def _real(self, words: Words) -> str | None:
        operands = [word for word in words if not word.startswith("-")]
        if len(operands) != 1:
            return None
        path = self._absolute(operands[0])
        return self.fs.follow(path) or path

    # -- files ---------------------------------------------------------------------------------------------

    def _absolute(self, word: str) -> ImagePath:
        return clean(posixpath.join(self.cwd, word))

    def _fitting(self, word: str) -> list[ImagePath]:
        """The files of a known folder whose name fits a word of which a part is unknown."""
        folder, _, name = word.rpartition("/")
        if not folder or not is_known(folder) or not name:
            return []
        at = self._absolute(folder)
        if at in SHARED or not self.fs.is_dir(at):
            return []
        fits = re.compile("".join(_as_regex(name)) + r"\Z", re.DOTALL)
        names = [found for found in self.fs.listdir(at) if fits.match(found)]
        paths = [f"{at}/{found}" for found in names if self.fs.is_file(f"{at}/{found}")]
        return paths[:MAX_FILES]

    def _note_words(self, words: Iterable[str], node: Node) -> None:
        """Words that name files of the image, without what a folder holds: naming it is not reading it."""
        if self._quiet:
            return
        where = self._where(node)
        known: list[str] = []
        edges: list[Edge] = []
        for word in words:
            if is_known(word):
                known.append(word)
            elif word != _ALL_ARGS:
                evidence = f"{where}the word {shown(word)}"
                edges += [
                    Edge(self.source, path, "literal", evidence, "likely") for path in self._fitting(word)
                ]
        edges += named(self.image, self.source, known, self.cwd, where, folders=False)
        for edge in edges:
            key = ("word", edge.source, edge.target)
            if key not in self._seen:
                self._seen.add(key)
                self.found.append(edge)

    # -- source text ---------------------------------------------------------------------------------------

    def _text(self, node: Node) -> str:
        return (
            self._code[node.start_byte : node.end_byte].decode("utf-8", "surrogateescape").replace("\0", "")
        )

    def _field_text(self, node: Node, field: str) -> str:
        child = node.child_by_field_name(field)
        return "" if child is None else self._text(child)

    def _where(self, node: Node) -> str:
        return f"line {node.start_point[0] + 1}: " if self._of_file else "-c: "


def _first_error(root: Node) -> int:
    """The line of the first syntax error."""
    node = root
    while True:
        if node.is_error or node.is_missing:
            return node.start_point[0] + 1
        broken = [child for child in node.children if child.has_error or child.is_missing]
        if not broken:
            return node.start_point[0] + 1
        node = broken[0]


def _conditions(node: Node) -> list[Node]:
    return [child for child in node.children_by_field_name("condition") if child.is_named]


def _until(node: Node, word: str) -> Iterator[Node]:
    for child in node.children:
        if child.type == word:
            return
        yield child


def _descendants(node: Node) -> Iterator[Node]:
    stack = list(reversed(node.named_children))
    while stack:
        at = stack.pop()
        yield at
        stack.extend(reversed(at.named_children))


def _first_of(node: Node, kind: str) -> Node | None:
    if node.type == kind:
        return node
    return next((child for child in _descendants(node) if child.type == kind), None)


def _outer_commands(node: Node) -> Iterator[Node]:
    """The commands of a substitution itself, not those of substitutions inside it."""
    stack = list(reversed(node.named_children))
    while stack:
        at = stack.pop()
        if at.type in ("command", "pipeline"):
            yield at
        elif at.type not in ("command_substitution", "process_substitution"):
            stack.extend(reversed(at.named_children))


def _variable_of(node: Node, code: bytes) -> str:
    """The parameter that a ``case`` looks at, where its subject is one alone."""
    text = code[node.start_byte : node.end_byte].decode("utf-8", "replace")
    match = re.fullmatch(r'"?\$(?:\{(\w+)(?::?-[^{}]*)?\}|(\w+))"?', text)
    return (match[1] or match[2]) if match else ""


def _after_options(words: Words, valued: str) -> Words:
    """The words after a builtin's options, of which those in ``valued`` take the next word."""
    at = 0
    while at < len(words) and len(words[at]) > 1 and words[at][0] in "-+" and is_known(words[at]):
        if words[at] == "--":
            return words[at + 1 :]
        at += 2 if words[at][-1] in valued else 1
    return words[at:]


def _merged(one: tuple[Words, ...], other: tuple[Words, ...]) -> tuple[Words, ...]:
    return tuple(dict.fromkeys((*one, *other)))[:8]


def _merged_values(one: Words, other: Words) -> Words:
    return tuple(dict.fromkeys((*one, *other)))[:MAX_FILES]


def _as_regex(word: str) -> Iterator[str]:
    """A word with unknown parts as a regular expression of one path component."""
    at = 0
    for match in _UNKNOWN.finditer(word):
        yield re.escape(word[at : match.start()])
        yield "[^/]*"
        at = match.end()
    yield re.escape(word[at:])


def _without_prefix(value: str, pattern: str, longest: bool) -> str:
    """``${NAME#PATTERN}`` and ``${NAME##PATTERN}``."""
    lengths = range(len(value), -1, -1) if longest else range(len(value) + 1)
    for length in lengths:
        if fnmatch.fnmatchcase(value[:length], pattern):
            return value[length:]
    return value


def _without_suffix(value: str, pattern: str, longest: bool) -> str:
    """``${NAME%PATTERN}`` and ``${NAME%%PATTERN}``."""
    starts = range(len(value) + 1) if longest else range(len(value), -1, -1)
    for start in starts:
        if fnmatch.fnmatchcase(value[start:], pattern):
            return value[:start]
    return value


def _substring(value: str, text: str) -> str:
    """``${NAME:OFFSET:LENGTH}``; ``text`` is what stands after the first colon."""
    start, _, length = text.partition(":")
    if not start.strip().isdecimal() or (length and not length.strip().isdecimal()):
        return value
    offset = int(start)
    return value[offset : offset + int(length)] if length else value[offset:]


def _replaced(value: str, text: str, every: bool) -> str:
    """``${NAME/PATTERN/STRING}`` for a pattern without wildcards."""
    pattern, _, string = text.partition("/")
    if not pattern or any(mark in pattern for mark in "*?["):
        return value
    return value.replace(pattern, string) if every else value.replace(pattern, string, 1)


_CHANGES: Mapping[str, Callable[[str, str], str]] = {
    # bash(1), Parameter Expansion; the first four are POSIX.1-2017, XCU 2.6.2.
    "#": lambda value, pattern: _without_prefix(value[:512], pattern, False),
    "##": lambda value, pattern: _without_prefix(value[:512], pattern, True),
    "%": lambda value, pattern: _without_suffix(value[:512], pattern, False),
    "%%": lambda value, pattern: _without_suffix(value[:512], pattern, True),
    ":": _substring,
    "/": lambda value, text: _replaced(value, text, False),
    "//": lambda value, text: _replaced(value, text, True),
    ",,": lambda value, _: value.lower(),
    "^^": lambda value, _: value.upper(),
}

_COMPARISONS: Mapping[str, Callable[[str, str], bool | None]] = {
    # POSIX.1-2017, XCU ``test``.
    "=": lambda left, right: left == right,
    "==": lambda left, right: fnmatch.fnmatchcase(left, right),
    "!=": lambda left, right: left != right,
    "-eq": lambda left, right: left == right,
    "-ne": lambda left, right: left != right,
    "-gt": lambda left, right: _number(left) > _number(right),
    "-ge": lambda left, right: _number(left) >= _number(right),
    "-lt": lambda left, right: _number(left) < _number(right),
    "-le": lambda left, right: _number(left) <= _number(right),
}


def _number(word: str) -> int:
    return int(word) if word.isdecimal() and len(word) < 12 else 0


_PRINTS: Mapping[str, Callable[[Run, Words], str | None]] = {
    # What programs that rework names print (POSIX.1-2017, XCU; readlink(1), realpath(1), which(1)).
    "dirname": lambda run, words: posixpath.dirname(words[-1].rstrip("/")) or "." if words else None,
    "basename": lambda run, words: (
        posixpath.basename(words[0].rstrip("/")).removesuffix(words[1] if len(words) > 1 else "\0")
        if words and not words[0].startswith("-")
        else None
    ),
    "readlink": Run._real,
    "realpath": Run._real,
    "pwd": lambda run, words: run.cwd,
    "echo": lambda run, words: " ".join(words[1:] if words[:1] == ("-n",) else words),
    "printf": lambda run, words: words[1] if len(words) == 2 and words[0] in ("%s", "%s\\n") else None,
    "command": lambda run, words: run._which(words) if words[:1] == ("-v",) else None,
    "which": Run._which,
    "type": lambda run, words: run._which(words) if words[:1] in (("-p",), ("-P",)) else None,
    "cat": Run._print_file,
}

_BUILTINS: Mapping[str, Callable[[Run, Words, Node], None]] = {
    ".": Run._source,
    "source": Run._source,
    "eval": Run._eval,
    "trap": Run._trap,
    "set": Run._set_args,
    "shift": Run._shift,
    "cd": Run._change_folder,
    "pushd": Run._change_folder,
    "read": Run._read_into,
    "mapfile": Run._map_into,
    "readarray": Run._map_into,
}

_STATEMENTS: Mapping[str, Callable[[Run, Node], None]] = {
    # Node types of tree-sitter-bash (its grammar.js).
    "command": Run._command,
    "if_statement": Run._if,
    "while_statement": Run._while,
    "for_statement": Run._for,
    "case_statement": Run._case,
    "function_definition": Run._define,
    "subshell": Run._subshell,
    "pipeline": Run._pipeline,
    "list": Run._list,
    "redirected_statement": Run._redirected,
    "file_redirect": Run._redirect_alone,
    "declaration_command": Run._declare,
    "variable_assignment": Run._assign,
    "unset_command": Run._unset,
    "test_command": Run._test,
    "comment": lambda run, node: None,
    "word": lambda run, node: None,
    "string": Run._inner,
    "concatenation": Run._inner,
    "command_substitution": Run._inner,
    "process_substitution": Run._inner,
}

_PIECES: Mapping[str, Callable[[Run, Node, bool], list[_Pieces]]] = {
    "word": Run._plain,
    "number": Run._plain,
    "extglob_pattern": Run._plain,
    "regex": Run._plain,
    "variable_name": Run._plain,
    "test_operator": Run._plain,
    "command_name": Run._joined,
    "concatenation": Run._joined,
    "string": Run._quoted,
    "translated_string": Run._joined,
    "raw_string": Run._raw,
    "ansi_c_string": Run._ansi,
    "simple_expansion": Run._variable,
    "expansion": Run._parameter,
    "command_substitution": Run._substitution,
}

ecosystem = Shell()
