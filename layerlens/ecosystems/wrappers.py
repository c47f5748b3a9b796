"""Programs that run the command line which follows their own options: ``env``, ``timeout``, ``tini``, ``gosu`` …

Each is a row of a table: its manual, the options that take a word of their own, and how many operands stand before
the command. A few need more than a row: they hand a line to a shell, or run every file of a folder.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from layerlens.ecosystems import Explorer, ImageView, WithoutPackages
from layerlens.model import Command, Edge, ImagePath
from layerlens.patterns import regex


@dataclass(frozen=True, slots=True)
class Wrapper:
    """How to find the command in a wrapper's command line."""

    source: str
    """The manual that says so."""
    valued: str = ""
    """Options that take the next word, without it attached: ``-s --signal``."""
    operands: int = 0
    """Words between the options and the command."""
    assigns: bool = False
    """Whether ``NAME=VALUE`` words before the command go to its environment."""


WRAPPERS: Mapping[str, Wrapper] = {
    "env": Wrapper("env(1)", "-u --unset -C --chdir", assigns=True),
    "nohup": Wrapper("nohup(1)"),
    "nice": Wrapper("nice(1)", "-n --adjustment"),
    "timeout": Wrapper("timeout(1)", "-s --signal -k --kill-after", 1),
    "stdbuf": Wrapper("stdbuf(1)", "-i --input -o --output -e --error"),
    "setsid": Wrapper("setsid(1)"),
    "ionice": Wrapper("ionice(1)", "-c --class -n --classdata"),
    "taskset": Wrapper("taskset(1)", "", 1),
    "chrt": Wrapper("chrt(1)", "-T --sched-runtime -P --sched-period -D --sched-deadline", 1),
    "prlimit": Wrapper("prlimit(1)"),
    "numactl": Wrapper("numactl(8)", "-i -m -N -C -p --interleave --membind --cpunodebind --physcpubind"),
    "setarch": Wrapper("setarch(8)", "", 1),
    "linux32": Wrapper("setarch(8)"),
    "linux64": Wrapper("setarch(8)"),
    "time": Wrapper("time(1)", "-f --format -o --output"),
    "xargs": Wrapper(
        "xargs(1)",
        "-a --arg-file -d --delimiter -E -I -L -n --max-args -P --max-procs -s --max-chars --process-slot-var",
    ),
    "sudo": Wrapper(
        "sudo(8)",
        "-u --user -g --group -h --host -p --prompt -C --close-from -r --role -t --type -T -U -D --chdir -R --chroot",
        assigns=True,
    ),
    "doas": Wrapper("doas(1)", "-u -C"),
    "gosu": Wrapper("gosu's README", "", 1),
    "su-exec": Wrapper("su-exec's README", "", 1),
    "setuidgid": Wrapper("setuidgid(8), daemontools", "", 1),
    "envuidgid": Wrapper("envuidgid(8), daemontools", "", 1),
    "envdir": Wrapper("envdir(8), daemontools", "", 1),
    "softlimit": Wrapper("softlimit(8), daemontools", "-a -c -d -f -l -m -o -p -r -s -t"),
    "setlock": Wrapper("setlock(8), daemontools", "", 1),
    "chpst": Wrapper("chpst(8), runit", "-u -U -b -e -/ -C -n -l -L -m -d -o -p -f -c -r -t"),
    "s6-setuidgid": Wrapper("s6-setuidgid, skarnet.org", "", 1),
    "s6-envuidgid": Wrapper("s6-envuidgid, skarnet.org", "", 1),
    "s6-applyuidgid": Wrapper("s6-applyuidgid, skarnet.org", "-u -g -G"),
    "s6-envdir": Wrapper("s6-envdir, skarnet.org", "-n -l", 1),
    "s6-softlimit": Wrapper("s6-softlimit, skarnet.org", "-a -c -d -f -l -m -o -p -r -s -t"),
    "s6-setlock": Wrapper("s6-setlock, skarnet.org", "-d -t", 1),
    "s6-notifyoncheck": Wrapper("s6-notifyoncheck, skarnet.org", "-s -T -t -w -n -3 -c"),
    "with-contenv": Wrapper("s6-overlay's README"),
    "setpriv": Wrapper(
        "setpriv(1)",
        "--ambient-caps --inh-caps --bounding-set --ruid --euid --reuid --rgid --egid --regid --groups --securebits "
        "--pdeathsig --ptracer --selinux-label --apparmor-profile",
    ),
    "tini": Wrapper("tini's README", "-p -e"),
    "tini-static": Wrapper("tini's README", "-p -e"),
    "docker-init": Wrapper("tini's README", "-p -e"),
    "dumb-init": Wrapper("dumb-init's README", "-r --rewrite"),
    "catatonit": Wrapper("catatonit's README"),
    "dockerize": Wrapper(
        "dockerize's README",
        "-wait -timeout -wait-retry-interval -template -stdout -stderr -env -env-section -wait-http-header -poll "
        "-delims",
    ),
    "eatmydata": Wrapper("eatmydata(1)"),
    "fakeroot": Wrapper("fakeroot(1)", "-l --lib -f --faked -s -i -b"),
    "catchsegv": Wrapper("catchsegv(1)"),
    "unbuffer": Wrapper("unbuffer(1)"),
    "dbus-run-session": Wrapper("dbus-run-session(1)", "--config-file --dbus-daemon"),
    "strace": Wrapper("strace(1)", "-e -o -p -s -u -a -b -E -I -O -P -S -X"),
    "parallel": Wrapper(
        "parallel(1)", "-j --jobs -S --tmpdir --joblog --retries --delay --timeout -I -a -n -N"
    ),
}
"""Programs by name; the options of each that are not listed stand alone or carry their word with them."""

SHELL_LINES: Mapping[str, tuple[str, str, str]] = {
    # Programs that give a line to a shell: the option that has it, which shell, the manual.
    "su": ("-c --command", "/bin/sh", "su(1)"),
    "runuser": ("-c --command", "/bin/sh", "runuser(1)"),
    "flock": ("-c --command", "/bin/sh", "flock(1)"),
    "script": ("-c --command", "/bin/sh", "script(1)"),
    "capsh": ("-c", "/bin/bash", "capsh(1), after --"),
}

RUN_PARTS_NAME = regex(r"[A-Za-z0-9_-]+\Z")
"""Names that run-parts(8) runs unless told otherwise."""

_ASSIGNMENT = regex(r"[A-Za-z_]\w*=", re.ASCII)
_AWK_COMMAND = regex(r'(?:system\s*\(\s*|(?:print|printf)\b[^"\n|]{0,200}\|\s*)"((?:[^"\\\n]|\\.)*)"')
_AWK_PIPE = regex(r'"((?:[^"\\\n]|\\.)*)"\s*\|\s*getline')
AWKS = frozenset(["awk", "mawk", "gawk", "nawk", "original-awk"])
MAX_FILES = 256


class Wrappers(WithoutPackages):
    """Programs that run other programs."""

    name = "wrappers"

    def explorer(self, image: ImageView) -> WrappersExplorer:
        """The commands inside command lines."""
        return WrappersExplorer(image)


class WrappersExplorer(Explorer):
    """Unwraps command lines, one program at a time."""

    def command(self, command: Command, program: ImagePath) -> Iterator[Edge | Command]:
        """The command line inside this one."""
        words = command.argv[1:]
        name = command.argv[0].rpartition("/")[2]
        if name in ("busybox", "toybox") and words and not words[0].startswith("-"):
            # One of its applets (busybox's manual): shells among them are told by the name.
            yield from self._applet(command, program)
            return
        special = _SPECIAL.get(name)
        if special is not None:
            yield from special(self, command, program, words)
        wrapper = WRAPPERS.get(name)
        if wrapper is not None:
            yield from self._unwrap(command, program, words, wrapper)
        elif name in SHELL_LINES:
            yield from self._shell_line(command, program, words, name)
        elif command.kind == "entrypoint" and "--" in words[:-1]:
            # POSIX.1-2017, XBD 12.2, guideline 10: operands follow, here a command if they are one.
            inner = words[words.index("--") + 1 :]
            if self._is_program(inner[0], command):
                yield self._inner(command, program, inner, command.env, "likely")

    def _is_program(self, word: str, command: Command) -> bool:
        fs = self.image.fs
        if word.startswith("-"):
            return False
        folders = [""] if "/" in word else [f for f in command.env.get("PATH", "").split(":") if f]
        for folder in folders:
            real = fs.follow(posixpath.join(command.cwd, folder, word))
            if real is not None and fs.is_file(real) and fs.entry(real).mode & 0o111:
                return True
        return False

    def _inner(
        self,
        command: Command,
        program: ImagePath,
        argv: tuple[str, ...],
        env: Mapping[str, str],
        certainty: str | None = None,
        cwd: ImagePath | None = None,
    ) -> Command:
        line = " ".join(argv)
        evidence = f"{command.argv[0].rpartition('/')[2]} runs {line if len(line) <= 90 else line[:89] + '…'}"
        return Command(
            program,
            argv,
            evidence,
            command.cwd if cwd is None else cwd,
            env,
            "command",
            command.certainty if certainty is None else "likely",
        )

    def _applet(self, command: Command, program: ImagePath) -> Iterator[Edge | Command]:
        from layerlens.ecosystems.shell import SHELLS, ShellExplorer

        applet = Command(
            command.source,
            command.argv[1:],
            command.evidence,
            command.cwd,
            command.env,
            command.kind,
            command.certainty,
        )
        if applet.argv[0] in SHELLS:
            yield from ShellExplorer(self.image).command(applet, program)
        elif applet.argv[0] not in ("busybox", "toybox"):
            yield from self.command(applet, program)

    def _unwrap(
        self, command: Command, program: ImagePath, words: tuple[str, ...], wrapper: Wrapper
    ) -> Iterator[Edge | Command]:
        valued = wrapper.valued.split()
        env, cwd = dict(command.env), command.cwd
        at, operands = 0, wrapper.operands
        while at < len(words):
            word = words[at]
            if word == "--":
                at += 1
                break
            if word in ("-S", "--split-string") and wrapper.source == "env(1)":
                # env -S: one word that holds several, as #! lines need them.
                words = (*words[:at], *_split(words[at + 1 : at + 2]), *words[at + 2 :])
                continue
            if word.startswith(("-S", "--split-string=")) and wrapper.source == "env(1)":
                text = word.removeprefix("--split-string=").removeprefix("-S")
                words = (*words[:at], *_split((text,)), *words[at + 1 :])
                continue
            if word in ("-i", "--ignore-environment", "-") and wrapper.source == "env(1)":
                env = {"PATH": env.get("PATH", "")}
            elif wrapper.source == "env(1)" and word in ("-C", "--chdir") and at + 1 < len(words):
                cwd = posixpath.normpath(posixpath.join(cwd, words[at + 1]))
            elif wrapper.source == "env(1)" and word in ("-u", "--unset") and at + 1 < len(words):
                env.pop(words[at + 1], None)
            if word.startswith("-") and len(word) > 1:
                at += 2 if word in valued else 1
            elif word == "-":
                at += 1
            else:
                break
        at += operands
        while wrapper.assigns and at < len(words) and _ASSIGNMENT.match(words[at]):
            name, _, value = words[at].partition("=")
            env[name] = value
            at += 1
        if words[at : at + 1] == ("--",):
            at += 1
        inner = words[at:]
        if ":::" in inner:
            inner = inner[: inner.index(":::")]
        if inner:
            yield self._inner(command, program, inner, env, cwd=cwd)

    def _shell_line(
        self, command: Command, program: ImagePath, words: tuple[str, ...], name: str
    ) -> Iterator[Edge | Command]:
        options, shell, _ = SHELL_LINES[name]
        for at, word in enumerate(words):
            option, equals, value = word.partition("=")
            if option in options.split() and (equals or at + 1 < len(words)):
                line = value if equals else words[at + 1]
                yield self._inner(command, program, (shell, "-c", line), command.env)
                return
        operands = [word for word in words if not word.startswith("-")]
        if name == "flock" and len(operands) > 1:
            first = next(at for at, word in enumerate(words) if word == operands[1])
            yield self._inner(command, program, words[first:], command.env)
        elif name == "runuser" and "--" in words[:-1]:
            yield self._inner(command, program, words[words.index("--") + 1 :], command.env)

    def _find(self, command: Command, program: ImagePath, words: tuple[str, ...]) -> Iterator[Edge | Command]:
        """``find … -exec COMMAND ;`` (find(1), ACTIONS)."""
        for at, word in enumerate(words):
            if word in ("-exec", "-execdir", "-ok", "-okdir"):
                rest = words[at + 1 :]
                ends = [number for number, end in enumerate(rest) if end in (";", "+", "\\;")]
                inner = rest[: ends[0]] if ends else rest
                if inner and inner[0] != "{}":
                    yield self._inner(command, program, inner, command.env)

    def _watch(
        self, command: Command, program: ImagePath, words: tuple[str, ...]
    ) -> Iterator[Edge | Command]:
        """``watch COMMAND`` gives its words to ``sh -c`` (watch(1))."""
        at = 0
        while at < len(words) and words[at].startswith("-"):
            at += 2 if words[at] in ("-n", "--interval", "-q", "--equexit") else 1
        if words[at:]:
            yield self._inner(command, program, ("/bin/sh", "-c", " ".join(words[at:])), command.env)

    def _chroot(
        self, command: Command, program: ImagePath, words: tuple[str, ...]
    ) -> Iterator[Edge | Command]:
        """``chroot [OPTION] / COMMAND``: elsewhere than in ``/``, paths are another root's (chroot(1))."""
        operands = [at for at, word in enumerate(words) if not word.startswith("--")]
        if len(operands) > 1 and words[operands[0]] == "/":
            yield self._inner(command, program, words[operands[1] :], command.env)

    def _run_parts(
        self, command: Command, program: ImagePath, words: tuple[str, ...]
    ) -> Iterator[Edge | Command]:
        """Every executable of a folder (run-parts(8))."""
        fs = self.image.fs
        any_name = any(word.startswith(("--regex", "--lsbsysinit")) for word in words)
        for folder in [word for word in words if not word.startswith("-")][:1]:
            at = posixpath.normpath(posixpath.join(command.cwd, folder))
            yield Edge(program, at, "literal", f"run-parts {folder}", "certain")
            for name in fs.listdir(at)[:MAX_FILES]:
                path = f"{at}/{name}"
                if (any_name or RUN_PARTS_NAME.match(name)) and self._is_program(path, command):
                    yield self._inner(command, program, (path,), command.env)

    def _services(
        self, command: Command, program: ImagePath, words: tuple[str, ...]
    ) -> Iterator[Edge | Command]:
        """A folder of services, each with its ``run`` (runsvdir(8); s6-svscan; svscan(8))."""
        fs = self.image.fs
        operands = [word for word in words if not word.startswith("-")] or [command.cwd]
        at = posixpath.normpath(posixpath.join(command.cwd, operands[0]))
        if fs.is_dir(at):
            yield from self.image.tree(
                program, at, "config", f"the services of {at}", "certain", without=frozenset()
            )
        for service in fs.listdir(at)[:MAX_FILES]:
            for script in ("run", "finish", "check", "log/run"):
                path = f"{at}/{service}/{script}"
                if self._is_program(path, command):
                    yield self._inner(command, program, (path,), command.env, cwd=f"{at}/{service}")

    def _awk(self, command: Command, program: ImagePath, words: tuple[str, ...]) -> Iterator[Edge | Command]:
        """``system("…")``, ``print | "…"`` and ``"…" | getline`` of an awk program (POSIX.1-2017, XCU ``awk``)."""
        for text in self._awk_programs(command, words):
            lines = [*_AWK_COMMAND.findall(text[:65536]), *_AWK_PIPE.findall(text[:65536])]
            for line in dict.fromkeys(lines):
                yield self._inner(
                    command, program, ("/bin/sh", "-c", line.replace('\\"', '"')), command.env, "likely"
                )

    def _awk_programs(self, command: Command, words: tuple[str, ...]) -> Iterator[str]:
        at, from_file = 0, False
        while at < len(words) and words[at].startswith("-"):
            if words[at] == "-f" and at + 1 < len(words):
                from_file = True
                path = posixpath.join(command.cwd, words[at + 1])
                if self.image.fs.is_file(path):
                    yield self.image.fs.read_text(path, 65536)
            at += 2 if words[at] in ("-f", "-v", "-F") else 1
        if not from_file:
            yield from words[at : at + 1]


_Special = Callable[[WrappersExplorer, Command, ImagePath, tuple[str, ...]], Iterator[Edge | Command]]
_SPECIAL: Mapping[str, _Special] = {
    "find": WrappersExplorer._find,
    "watch": WrappersExplorer._watch,
    "chroot": WrappersExplorer._chroot,
    "run-parts": WrappersExplorer._run_parts,
    "runsvdir": WrappersExplorer._services,
    "s6-svscan": WrappersExplorer._services,
    "svscan": WrappersExplorer._services,
    **dict.fromkeys(sorted(AWKS), WrappersExplorer._awk),
}


def _split(words: tuple[str, ...]) -> tuple[str, ...]:
    """The words of ``env -S``, quotes taken off (env(1), OPTIONS)."""
    import shlex

    try:
        return tuple(part for word in words for part in shlex.split(word[:4096]))
    except ValueError:
        return tuple(part for word in words for part in word.split())


ecosystem = Wrappers()
