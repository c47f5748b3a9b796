"""Command lines of Node and of its package managers, taken apart.

Node's options: Node documentation, cli. npm's: npm documentation, "run-script", "exec", "config". yarn's and pnpm's:
their own command-line references. Nothing here looks at an image.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field

NODES = frozenset(("node", "nodejs"))
"""Names of the interpreter: upstream's, and Debian's of before 2013."""

MANAGERS = frozenset(("npm", "npx", "yarn", "yarnpkg", "pnpm", "pnpx", "corepack"))

_WITH_VALUE_WORDS = """
    -r --require --import --loader --experimental-loader -e --eval -p --print -pe -C --conditions
    --env-file --env-file-if-exists --input-type --title --icu-data-dir --openssl-config
    --redirect-warnings --diagnostic-dir --report-dir --report-directory --report-filename
    --experimental-default-type --watch-path --test-reporter --test-reporter-destination
    --test-name-pattern --disable-warning --unhandled-rejections --dns-result-order --tls-keylog
    --trace-event-categories --max-http-header-size --localstorage-file --experimental-config-file
    --run
"""
_WITH_VALUE = frozenset(_WITH_VALUE_WORDS.split())
"""Options of node(1) whose value may be the next word."""

_MANAGER_VALUES_WORDS = """
    --prefix -C --dir --cwd --filter -F --workspace -w --loglevel --cache --userconfig
    --globalconfig --script-shell --registry --package -p -c --call --reporter
"""
_MANAGER_VALUES = frozenset(_MANAGER_VALUES_WORDS.split())
"""Options of npm, yarn and pnpm whose value is the next word."""

WRAPPERS = frozenset(("cross-env", "cross-env-shell", "dotenv-cli", "env-cmd", "c8", "nyc", "wait-on"))
"""npm packages whose program runs the command line that follows its options and assignments."""

LISTS = {"concurrently": "line", "npm-run-all": "script", "npm-run-all2": "script"}
"""npm packages whose program runs each of its words: a shell's line, or a script of package.json."""

COMPILING: dict[str, tuple[str, ...]] = {
    # Programs that read the application's sources themselves, with the words that make them do so; no words: always.
    "ts-node": (),
    "ts-node-dev": (),
    "tsx": (),
    "@swc-node/register": (),
    "@babel/node": (),
    "vite": ("", "dev", "serve", "build"),
    "react-scripts": ("start", "build"),
    "next": ("", "dev", "build"),
    "nuxt": ("", "dev", "build"),
    "@angular/cli": ("serve", "build"),
    "@vue/cli-service": ("serve", "build"),
    "webpack": ("serve", "build", ""),
    "webpack-cli": ("serve", "build", ""),
    "webpack-dev-server": (),
    "parcel": (),
    "@nestjs/cli": ("start", "build"),
    "astro": ("", "dev", "build"),
    "gatsby": ("develop", "build"),
    "@remix-run/dev": ("dev", "build"),
}


@dataclass(slots=True)
class NodeLine:
    """``node [options] [script] [words]``."""

    script: str | None = None
    words: tuple[str, ...] = ()
    preloads: list[tuple[str, str, bool]] = field(default_factory=list)
    """(option, specifier, whether it is imported rather than required)."""
    code: list[str] = field(default_factory=list)
    files: list[tuple[str, str]] = field(default_factory=list)
    """(option, path) of the other files that options name."""
    conditions: list[str] = field(default_factory=list)
    source_maps: bool = False
    run: str | None = None
    """The script of package.json that ``--run`` names."""


_PRELOADS = {
    "-r": False,
    "--require": False,
    "--import": True,
    "--loader": True,
    "--experimental-loader": True,
}
_CODE = frozenset(("-e", "--eval", "-p", "--print", "-pe"))
_FILES = frozenset(("--env-file", "--openssl-config", "--icu-data-dir", "--experimental-config-file"))


def node_line(words: Sequence[str], node_options: str = "") -> NodeLine:
    """Takes the words behind ``node`` apart; ``node_options`` is the environment's NODE_OPTIONS."""
    line = NodeLine()
    try:
        before = shlex.split(node_options)
    except ValueError:
        before = node_options.split()
    _read_options(line, before)
    rest = _read_options(line, list(words))
    if rest[:1] == ["inspect"] and len(rest) > 1:
        rest = rest[1:]
    if rest and not line.code and line.run is None and rest[0] != "-":
        line.script, line.words = rest[0], tuple(rest[1:])
    return line


def _read_options(line: NodeLine, words: list[str]) -> list[str]:
    """Reads options up to the first word that is none; what is left."""
    at = 0
    while at < len(words) and words[at].startswith("-") and words[at] != "-":
        option, has_value, value = words[at].partition("=")
        at += 1
        if option == "--":
            break
        if not has_value and option in _WITH_VALUE and at < len(words):
            value = words[at]
            at += 1
        if option in _PRELOADS:
            line.preloads.append((option, value, _PRELOADS[option]))
        elif option in _CODE:
            line.code.append(value)
        elif option in _FILES:
            line.files.append((option, value))
        elif option in ("-C", "--conditions"):
            line.conditions.append(value)
        elif option == "--enable-source-maps":
            line.source_maps = True
        elif option == "--run":
            line.run = value
    return words[at:]


@dataclass(slots=True)
class ManagerLine:
    """What a package manager is asked to run: scripts of package.json, or a program of an installed package."""

    scripts: list[str] = field(default_factory=list)
    words: tuple[str, ...] = ()
    """What is appended to the script's line, or the program's words."""
    program: str | None = None
    line: str | None = None
    """A line for the shell: ``npx -c``."""
    directory: str | None = None
    workspace: str | None = None


_SCRIPTS = frozenset(("start", "stop", "restart", "test"))
"""Scripts that npm, yarn and pnpm run by their names alone."""

_NPM_RUN = frozenset(("run", "run-script", "rum", "urn"))
_EXEC = frozenset(("exec", "x", "dlx"))
_NO_SCRIPT_WORDS = """
    add install i ci remove rm update up upgrade prune cache config info list ls link unlink publish
    pack why audit init login logout version versions global store rebuild rb import fetch deploy
    set plugin dedupe
"""
_NO_SCRIPT = frozenset(_NO_SCRIPT_WORDS.split())
"""Subcommands of yarn and pnpm, which take any other word for a script."""


def manager_line(name: str, words: Sequence[str]) -> ManagerLine:
    """Takes the words behind ``npm``, ``npx``, ``yarn``, ``pnpm`` or ``corepack`` apart."""
    asked = ManagerLine()
    if name == "corepack":
        if words and words[0].partition("@")[0] in MANAGERS:
            return manager_line(words[0].partition("@")[0], words[1:])
        return asked
    is_npx = name in ("npx", "pnpx")
    rest = _manager_options(asked, list(words))
    if asked.line is not None:
        return asked
    if is_npx:
        _set_program(asked, rest)
        return asked
    command = rest[0] if rest else ""
    if name == "yarn" and command == "workspace" and len(rest) > 1:
        asked.workspace = rest[1]
        rest = rest[2:]
        command = rest[0] if rest else ""
    if command in _NPM_RUN:
        rest = _manager_options(asked, rest[1:])
        if rest:
            _set_script(asked, name, rest)
    elif command in _EXEC:
        _set_program(asked, _manager_options(asked, rest[1:]))
    elif command == "node" and name != "npm":
        asked.program, asked.words = "node", tuple(rest[1:])
    elif command in _SCRIPTS or command in ("t", "tst"):
        _set_script(asked, name, ["test" if command in ("t", "tst") else command, *rest[1:]])
    elif command and name != "npm" and command not in _NO_SCRIPT:
        _set_script(asked, name, rest)
    return asked


def _manager_options(asked: ManagerLine, words: list[str]) -> list[str]:
    at = 0
    while at < len(words) and words[at].startswith("-") and words[at] != "--":
        option, has_value, value = words[at].partition("=")
        at += 1
        if not has_value and option in _MANAGER_VALUES and at < len(words):
            value = words[at]
            at += 1
        if option in ("--prefix", "-C", "--dir", "--cwd"):
            asked.directory = value
        elif option in ("--workspace", "-w", "--filter", "-F"):
            asked.workspace = value
        elif option in ("-c", "--call"):
            asked.line = value
    return words[at:]


def _set_script(asked: ManagerLine, name: str, rest: list[str]) -> None:
    asked.scripts = [rest[0]]
    words = rest[1:]
    if name == "npm":
        words = _manager_options(asked, words)
    asked.words = tuple(words[1:] if words[:1] == ["--"] else words)


def _set_program(asked: ManagerLine, rest: list[str]) -> None:
    if rest[:1] == ["--"]:
        rest = rest[1:]
    if rest:
        name = rest[0]
        at = name.find("@", 1)
        asked.program, asked.words = name[:at] if at > 0 else name, tuple(rest[1:])


def wrapped(words: Sequence[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The assignments and the command behind a wrapper's options: ``cross-env A=b node x.js``."""
    assigned: dict[str, str] = {}
    at = 0
    while at < len(words):
        word = words[at]
        name, mark, value = word.partition("=")
        if word == "--":
            return assigned, tuple(words[at + 1 :])
        if mark and name.replace("_", "a").isalnum():
            assigned[name] = value
        elif word in ("-f", "-e", "--environments", "-o"):
            at += 1
        elif not word.startswith("-"):
            break
        at += 1
    return assigned, tuple(words[at:])


def script_lines(scripts: object, name: str, words: Sequence[str]) -> list[tuple[str, str]]:
    """(script, line for the shell) of a script of package.json with what runs before and after it.

    npm documentation, scripts, "Pre & Post Scripts" and, for ``start`` without a script, "npm start".
    """
    table = scripts if isinstance(scripts, dict) else {}
    found: list[tuple[str, str]] = []
    for one in (f"pre{name}", name, f"post{name}"):
        line = table.get(one)
        if not isinstance(line, str) and one == name == "start":
            line = "node server.js"
        if isinstance(line, str) and line.strip():
            more = " ".join(shlex.quote(word) for word in words) if one == name else ""
            found.append((one, f"{line} {more}".rstrip()))
    return found
