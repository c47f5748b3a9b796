"""Supervisor: the programs that its configuration starts (supervisord.org/configuration.html)."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence

from layerlens.ecosystems import Explorer, ImageView, WithoutPackages
from layerlens.ecosystems.arguments import clean
from layerlens.errors import LayerLensError
from layerlens.model import Command, Edge, ImagePath

DEFAULTS = (
    # Where supervisord looks without -c, in order; relative ones in its working directory ("Running Supervisor").
    "supervisord.conf",
    "etc/supervisord.conf",
    "/etc/supervisord.conf",
    "/etc/supervisor/supervisord.conf",
)
RUNS = ("program", "fcgi-program", "eventlistener")
"""Sections that start a process."""
WRITES = ("logfile", "stdout_logfile", "stderr_logfile", "pidfile", "childlogdir", "file", "socket")
"""Keys that name what is written: the folder must exist."""
CONFIG_LIMIT = 1 << 20
MAX_CONFIGS = 500

Section = tuple[str, dict[str, str]]


class Supervisor(WithoutPackages):
    """The configuration of supervisord."""

    name = "supervisor"

    def explorer(self, image: ImageView) -> SupervisorExplorer:
        """What supervisord starts."""
        return SupervisorExplorer(image)


class SupervisorExplorer(Explorer):
    """Reads the configuration that a command line of supervisord uses."""

    def command(self, command: Command, program: ImagePath) -> Iterator[Edge | Command]:
        """``supervisord [-c FILE]``."""
        if command.argv[0].rpartition("/")[2] != "supervisord":
            return
        path = self._config(command, program)
        if path is None:
            self.image.diagnose("config-not-found", "supervisord finds no configuration", program)
            return
        yield Edge(program, path, "config", f"supervisord reads {path}", "certain")
        yield from self._file(path, command, [])

    def _config(self, command: Command, program: ImagePath) -> ImagePath | None:
        words = command.argv[1:]
        above = posixpath.dirname(posixpath.dirname(command.argv[0]))
        tried: list[str] = [f"{above}/etc/supervisord.conf", f"{above}/supervisord.conf", *DEFAULTS]
        for at, word in enumerate(words):
            if word in ("-c", "--configuration") and at + 1 < len(words):
                tried = [words[at + 1]]
            elif word.startswith("--configuration="):
                tried = [word.partition("=")[2]]
            elif word.startswith("-c") and len(word) > 2:
                tried = [word[2:]]
        for one in tried:
            path = clean(posixpath.join(command.cwd, one))
            if self.image.fs.is_file(path):
                return path
        return None

    def _file(self, path: ImagePath, command: Command, read: list[ImagePath]) -> Iterator[Edge | Command]:
        fs = self.image.fs
        real = fs.follow(path) or path
        if real in read or len(read) >= MAX_CONFIGS:
            return
        read.append(real)
        try:
            text = fs.read(path, CONFIG_LIMIT).decode("utf-8", "surrogateescape")
        except (LayerLensError, OSError) as error:
            self.image.diagnose("unreadable-config", f"cannot be read: {error}", path)
            return
        here = posixpath.dirname(path)
        for title, keys in sections(text):
            kind, _, name = title.partition(":")
            known = {
                "here": here,
                "program_name": name,
                "group_name": name,
                "process_num": "0",
                "numprocs": "1",
            }
            known |= {f"ENV_{key}": value for key, value in command.env.items()}
            filled = {key: _expanded(value, known) for key, value in keys.items()}
            if kind == "include":
                for pattern in filled.get("files", "").split():
                    for found in fs.glob(clean(posixpath.join(here, pattern)))[:MAX_CONFIGS]:
                        yield Edge(real, found, "config", f"[include] files = {pattern}", "certain")
                        yield from self._file(found, command, read)
            for key in WRITES:
                folder = posixpath.dirname(filled.get(key, ""))
                if folder.startswith("/") and folder != "/" and fs.is_dir(folder):
                    yield Edge(real, folder, "config", f"[{title}] {key} = {filled[key]}", "certain")
            if kind in RUNS and filled.get("command"):
                yield from self._start(real, title, filled, command)

    def _start(
        self, source: ImagePath, title: str, keys: Mapping[str, str], command: Command
    ) -> Iterator[Edge | Command]:
        try:
            argv = tuple(shlex.split(keys["command"]))
        except ValueError:
            self.image.diagnose(
                "broken-config", f"[{title}] command = {keys['command']}: quotes do not match", source
            )
            return
        env = {**command.env, **_environment(keys.get("environment", ""))}
        cwd = posixpath.join(command.cwd, keys.get("directory") or command.cwd)
        if keys.get("directory") and self.image.fs.is_dir(cwd):
            yield Edge(source, clean(cwd), "config", f"[{title}] directory = {cwd}", "certain")
        if argv:
            yield Command(source, argv, f"[{title}] command = {keys['command']}", clean(cwd), env)


def sections(text: str) -> Iterator[Section]:
    """The sections of an INI file as Supervisor reads them: ``;`` after a blank starts a comment."""
    title, keys, last = "", dict[str, str](), ""
    for line in text.splitlines():
        stripped = re.sub(r"(?:^|\s);.*", "", line).rstrip()
        if not stripped.strip() or stripped.lstrip().startswith("#"):
            continue
        if stripped.startswith("["):
            if title:
                yield title, keys
            title, keys, last = stripped.strip("[] \t"), {}, ""
        elif line[0] in " \t" and last:
            keys[last] = f"{keys[last]}\n{stripped.strip()}".strip()
        else:
            key, _, value = stripped.partition("=")
            last = key.strip().lower()
            keys[last] = value.strip()
    if title:
        yield title, keys


def _expanded(value: str, known: Mapping[str, str]) -> str:
    """``%(here)s`` and the like; what is not known stays as it is."""
    return re.sub(r"%\((\w+)\)0?\d*[sd]", lambda match: known.get(match[1], match[0]), value)


def _environment(text: str) -> dict[str, str]:
    """``KEY="value",OTHER=value``."""
    pairs: Sequence[tuple[str, str, str, str]] = re.findall(
        r"""([A-Za-z_]\w*)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^,\s]*))""", text
    )
    return {name: double or single or plain for name, double, single, plain in pairs}


ecosystem = Supervisor()
