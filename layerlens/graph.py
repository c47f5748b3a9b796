"""From the entrypoint to every file that the program needs.

The search is breadth first, so that the first edge that reaches a path is the last of a shortest chain. It runs
over dictionaries; a :mod:`networkx` graph is built when somebody asks for one. What a file or a command line
needs is the ecosystems' to say (:class:`layerlens.ecosystems.Explorer`); here is what the kernel does with a path
and a ``#!`` line (path_resolution(7), execve(2)), and what the config starts.
"""

from __future__ import annotations

import posixpath
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from layerlens.attribution import Attribution
from layerlens.ecosystems import ImageView, Lack, Lacks, ecosystems, explorers_of
from layerlens.errors import LinkLoopError, PathNotFoundError, UsageError
from layerlens.filesystem import Filesystem
from layerlens.model import Command, Diagnostic, Edge, EntryType, ImageConfig, ImagePath, Severity

if TYPE_CHECKING:
    from networkx import DiGraph

_FILE = int(EntryType.FILE)
_DIR = int(EntryType.DIR)

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where programs are looked for without a PATH in the config (moby, ``oci/defaults``)."""
MAX_COMMANDS = 20_000
"""Command lines that are looked at; an image that asks for more is lying."""

ALWAYS: tuple[tuple[ImagePath, str], ...] = (
    # What the container runtime or every program takes for granted and no file names.
    ("/tmp", "programs take a writable /tmp for granted (POSIX.1-2017, 10.1)"),  # noqa: S108 - a path of the image
    ("/etc/passwd", "the container runtime looks USER and HOME up in it (OCI runtime-spec, POSIX user)"),
    ("/etc/group", "the container runtime looks the groups of USER up in it"),
)


class Needs:
    """What the processes of an image need, each path with the edge that reached it first.

    ``keep`` are paths (subtrees) that are kept without asking why, ``roots`` programs that are started besides the
    config's, ``drop`` paths (subtrees) that are not kept whatever needs them, ``observed`` those that a container was
    seen to use, each with how.

    Raises:
        UsageError: nothing says what is started, or it is not in the image.
        PathNotFoundError: a path of ``keep``, ``roots`` or ``drop`` is not in the image.
    """

    def __init__(
        self,
        attribution: Attribution,
        config: ImageConfig,
        *,
        keep: Sequence[ImagePath] = (),
        roots: Sequence[ImagePath] = (),
        drop: Sequence[ImagePath] = (),
        observed: Mapping[ImagePath, str] | None = None,
    ) -> None:
        self.attribution = attribution
        self.fs: Filesystem = attribution.fs
        self.config = config
        self.kept: dict[ImagePath, Edge] = {}
        """Every kept path, links on the way included, and the first edge that reached it."""
        self.edges: list[Edge] = []
        """Every edge that was found, also to what was kept already; in the order found."""
        env = dict(word.split("=", 1) for word in config.env if "=" in word)
        env.setdefault("PATH", DEFAULT_PATH)
        self.view = ImageView(
            fs=self.fs,
            config=config,
            packages=attribution.packages,
            owner_of=attribution.owner_of,
            category_of=attribution.category_of,
            env=env,
        )
        self._explorers, self._any_word = explorers_of(ecosystems(), self.view)
        self._dropped = {self._option_path("--drop", path) for path in drop}
        self._queue: deque[ImagePath | Command] = deque()
        self._late: deque[tuple[Command, ImagePath]] = deque()
        """Command lines for those that take any word for a path, once all that is understood of them is followed."""
        self._edges_seen: set[tuple[str, str, str]] = set()
        self._commands_seen: set[tuple[object, ...]] = set()
        self._start(keep, roots)
        self._search()
        if observed:  # last, so that what is found without it keeps its own reason
            self._observe(observed)
            self._search()

    @property
    def diagnostics(self) -> list[Diagnostic]:
        """What could not be known, in the order met."""
        return self.view.diagnostics

    @property
    def dropped(self) -> tuple[ImagePath, ...]:
        """The subtrees that are not kept whatever needs them, sorted."""
        return tuple(sorted(self._dropped))

    # -- where it starts -----------------------------------------------------------------------------------

    def _start(self, keep: Sequence[ImagePath], roots: Sequence[ImagePath]) -> None:
        started = [*self._config_commands()]
        for path in roots:
            found = self._option_path("--root", path)
            started.append(self._command("--root", (found,), f"--root {path}", "root"))
        if not started:
            raise UsageError(
                "the image has no entrypoint and no command: nothing says what it runs",
                "Name the program with --root PATH.",
            )
        for command in started:
            if command.kind != "healthcheck" and self.find_program(command) is None:
                raise UsageError(
                    f"{command.source} {command.argv[0]!r} is not in the image",
                    "Mend the image's ENTRYPOINT or CMD, or name the program with --root PATH.",
                )
            self._run(command)
        for path, why in ALWAYS:
            if self.fs.exists(path):
                self._arrive(Edge("policy", path, "policy", why, "assumed"))
        workdir = self.config.workdir
        if workdir and self.fs.is_dir(workdir):
            self._arrive(Edge("WORKDIR", workdir, "config", f"WORKDIR {workdir}", "certain"))
        for volume in self.config.volumes:
            if self.fs.is_dir(volume):
                edge = Edge("VOLUME", volume, "config", f"VOLUME {volume}", "certain")
                self._add(self.view.tree(edge.source, volume, edge.kind, edge.evidence, edge.certainty))
        self._keep_named(keep)

    def _observe(self, observed: Mapping[ImagePath, str]) -> None:
        """Keep what a container was seen to use, and what that needs."""
        for path, how in observed.items():
            if self.fs.exists(path):
                self._arrive(Edge("--trace", path, "observed", how, "certain"))

    def _config_commands(self) -> Iterator[Command]:
        entrypoint, cmd = self.config.entrypoint or (), self.config.cmd or ()
        if entrypoint:
            yield self._command(
                "ENTRYPOINT", (*entrypoint, *cmd), _exec_form("ENTRYPOINT", entrypoint), "entrypoint"
            )
        elif cmd:
            yield self._command("CMD", cmd, _exec_form("CMD", cmd), "entrypoint")
        test = (self.config.healthcheck or {}).get("Test")
        words = tuple(word for word in test if isinstance(word, str)) if isinstance(test, list) else ()
        if words[:1] == ("CMD-SHELL",) and len(words) > 1:
            shell = self.config.shell or ("/bin/sh", "-c")
            yield self._command(
                "HEALTHCHECK", (*shell, words[1]), f"HEALTHCHECK CMD {words[1]}", "healthcheck"
            )
        elif words[:1] == ("CMD",) and len(words) > 1:
            yield self._command(
                "HEALTHCHECK", words[1:], _exec_form("HEALTHCHECK CMD", words[1:]), "healthcheck"
            )

    def _command(self, source: str, argv: Sequence[str], evidence: str, kind: str) -> Command:
        return Command(source, tuple(argv), evidence, self.config.workdir or "/", dict(self.view.env), kind)

    def _option_path(self, option: str, path: ImagePath) -> ImagePath:
        asked = "/" + path.strip("/")
        real = self.fs.resolve_parent(asked) if asked != "/" else "/"
        if not self.fs.exists(real):
            raise PathNotFoundError(
                f"{option}: no such path in the image: {path}", "Check the path with `layerlens ls`."
            )
        return real

    def _keep_named(self, keep: Sequence[ImagePath]) -> None:
        """Keep what the option names."""
        for path in keep:
            found = self._option_path("--keep", path)
            self._keep_only(found, Edge("--keep", found, "keep", f"--keep {path}", "certain"))

    def _keep_only(self, path: ImagePath, edge: Edge) -> None:
        """Keep a subtree without asking what it needs."""
        for found in (path, *(self.fs.walk(path) if self.fs.is_dir(path) else ())):
            if not self._is_dropped(found):
                one = Edge(edge.source, found, edge.kind, edge.evidence, edge.certainty)
                self.edges.append(one)
                self.kept.setdefault(found, one)

    # -- the search ----------------------------------------------------------------------------------------

    def _search(self) -> None:
        self._follow()
        before = None
        while before != (found := (len(self.kept), len(self._commands_seen))):
            before = found
            for explorer in self._explorers:
                # All of it before any arrives: what is kept must not change while an explorer goes through it.
                self._add(list(explorer.finish(self.kept)))
            self._follow()

    def _follow(self) -> None:
        """Look at everything that waits, and at what that brings."""
        while self._queue or self._late:
            if not self._queue:
                command, program = self._late.popleft()
                for explorer in self._any_word:
                    self._add(explorer.command(command, program))
                continue
            item = self._queue.popleft()
            if isinstance(item, Command):
                self._run(item)
                continue
            for explorer in self._explorers:
                self._add(explorer.edges(item))

    def _add(self, found: Iterable[Edge | Command]) -> None:
        for item in found:
            if isinstance(item, Command):
                self._queue.append(item)
            else:
                self._arrive(item)

    def _arrive(self, edge: Edge) -> ImagePath | None:
        """Keep what an edge leads to and every symbolic link on the way; the canonical path, None where it ends."""
        key = (edge.source, edge.target, edge.kind)
        fs = self.fs
        if key in self._edges_seen:
            return fs.follow(edge.target)
        self._edges_seen.add(key)
        asked, looping = edge.target, False
        target: ImagePath | None = None
        walked: list[ImagePath] = []
        try:
            target = fs.resolve(asked, walked)
        except PathNotFoundError:
            pass  # told below, once the links that lead nowhere are kept
        except LinkLoopError:
            looping = True
        for link in walked:
            if self._is_dropped(link):
                return None
            self._record(Edge(edge.source, link, edge.kind, edge.evidence, edge.certainty))
            told = f"symbolic link {link} → {fs.entry(link).link_target}"
            edge = Edge(link, asked, "symlink", told, "certain")
        if looping:
            self.view.diagnose("link-loop", "symbolic links lead in a circle", asked)
        if target is None:
            if edge.certainty == "certain" and edge.kind != "symlink":
                told = f"is needed ({edge.evidence}) and not in the image"
                self.view.diagnose("missing-file", told, posixpath.normpath(asked))
            return None
        if target == "/":
            return target
        if self._is_dropped(target):
            return None
        if target != edge.target:
            edge = Edge(edge.source, target, edge.kind, edge.evidence, edge.certainty)
        if self._record(edge) and fs.type_of(target) == _FILE:
            self._queue.append(target)
        return target

    def _record(self, edge: Edge) -> bool:
        """Note an edge; True where its target was not kept before."""
        self.edges.append(edge)
        if edge.target in self.kept:
            return False
        self.kept[edge.target] = edge
        for name in self.fs.groups.get(self.fs.payload_gid(edge.target) or -1, ()):
            if name not in self.kept and not self._is_dropped(name):
                self.kept[name] = Edge(
                    edge.target, name, "hard-link", "the same file under another name", "certain"
                )
        return True

    def _is_dropped(self, path: ImagePath) -> bool:
        if not self._dropped:
            return False
        while path:
            if path in self._dropped:
                return True
            path = path.rpartition("/")[0]
        return "/" in self._dropped

    # -- command lines -------------------------------------------------------------------------------------

    def _run(self, command: Command) -> None:
        if not command.argv:
            return
        found = self.find_program(command)
        if found is None:
            severity: Severity = "warning" if command.certainty == "certain" else "info"
            source = command.source if command.source.startswith("/") else None
            self.view.diagnose(
                "command-not-found",
                f"runs {command.argv[0]!r} ({command.evidence}), which is not there",
                source,
                severity,
            )
            return
        program = self._arrive(Edge(command.source, found, command.kind, command.evidence, command.certainty))
        if program is None or self.fs.type_of(program) != _FILE:
            return
        key = (program, found, command.argv[1:], command.cwd, tuple(sorted(command.env.items())))
        if key in self._commands_seen:
            return
        if len(self._commands_seen) >= MAX_COMMANDS:
            self.view.diagnose(
                "too-many-commands", f"only the first {MAX_COMMANDS} command lines were followed"
            )
            return
        self._commands_seen.add(key)
        process = Command(
            command.source,
            (found, *command.argv[1:]),
            command.evidence,
            command.cwd,
            command.env,
            command.kind,
            command.certainty,
        )
        interpreter = shebang(self.view.head(program))
        if interpreter:
            line = "#!" + " ".join(interpreter)
            argv = (*interpreter, found, *command.argv[1:])
            self._queue.append(
                Command(program, argv, line, command.cwd, command.env, "interpreter", command.certainty)
            )
        for explorer in self._explorers:
            self._add(explorer.command(process, program))
        self._late.append((process, program))

    def find_program(self, command: Command) -> ImagePath | None:
        """The absolute path that execvp(3) would run."""
        name = command.argv[0]
        if not name:
            return None
        if "/" in name:
            path = posixpath.join(command.cwd or "/", name)
            return path if self.fs.is_file(path) else None
        for folder in (command.env.get("PATH") or DEFAULT_PATH).split(":"):
            path = posixpath.join(command.cwd or "/", folder, name)
            real = self.fs.follow(path)
            if real is not None and self.fs.type_of(real) == _FILE and self.fs.entry(real).mode & 0o111:
                return path
        return None

    # -- answers -------------------------------------------------------------------------------------------

    def chain(self, path: ImagePath) -> list[Edge]:
        """The edges from the config to a kept path, the config's first; empty for a path that is not kept."""
        found: list[Edge] = []
        seen: set[ImagePath] = set()
        while path in self.kept and path not in seen:
            seen.add(path)
            edge = self.kept[path]
            found.append(edge)
            path = edge.source
        return found[::-1]

    def beside(self, path: ImagePath) -> tuple[list[Edge], list[Edge]]:
        """What needs a kept path, its shortest chain's edge first, and what it needs itself; an edge for each."""
        first = self.kept.get(path)
        before: dict[ImagePath, Edge] = {} if first is None else {first.source: first}
        after: dict[ImagePath, Edge] = {}
        for edge in self.edges:
            if edge.target == path:
                before.setdefault(edge.source, edge)
            elif edge.source == path and edge.target in self.kept:
                after.setdefault(edge.target, edge)
        return list(before.values()), [after[target] for target in sorted(after)]

    def lacks(self) -> list[Lack]:
        """What kept files count on and the image does not have, the file that is reached first first."""
        found = [lack for one in ecosystems() if isinstance(one, Lacks) for lack in one.lacks(self.view)]
        order = {path: number for number, path in enumerate(self.kept)}
        return sorted(dict.fromkeys(found), key=lambda lack: order.get(lack.path, len(order)))

    def second_names(self) -> set[ImagePath]:
        """Kept paths that nothing asks for: hard links to what another name is kept for.

        What carries one file at a time leaves them out, since each name would get a payload of its own.
        """
        links = {path for path, edge in self.kept.items() if edge.kind == "hard-link"}
        return links - {edge.target for edge in self.edges} if links else links

    def digraph(self, verdicts: Mapping[ImagePath, str] | None = None) -> DiGraph:
        """The kept paths and the edges between them.

        Nodes carry ``size_bytes``, ``category``, ``package``, ``verdict`` (``copy`` without ``verdicts``) and
        ``root`` (the evidence for a path that the config or an option names, else None); edges carry ``kind``,
        ``evidence`` and ``certainty``.
        """
        import networkx

        graph = networkx.DiGraph()
        fs, attribution = self.fs, self.attribution
        for path in sorted(self.kept):
            owner = attribution.owner_of(path)
            graph.add_node(
                path,
                size_bytes=fs.size(path) if fs.type_of(path) == _FILE else 0,
                category=attribution.category_of(path) if fs.type_of(path) == _FILE else None,
                package=None if owner is None else f"{owner.ecosystem}:{owner.name} {owner.version}",
                verdict="copy" if verdicts is None else verdicts.get(path, "copy"),
                root=None,
            )
        for edge in self.edges:
            if edge.target not in self.kept:
                continue
            if edge.source not in self.kept:
                graph.nodes[edge.target]["root"] = f"{edge.source}: {edge.evidence}"
            elif not graph.has_edge(edge.source, edge.target):
                graph.add_edge(
                    edge.source, edge.target, kind=edge.kind, evidence=edge.evidence, certainty=edge.certainty
                )
        return graph


def shebang(head: bytes) -> tuple[str, ...]:
    """The interpreter of a ``#!`` line and its one argument, as execve(2) splits them; empty where there is none."""
    if head[:2] != b"#!":
        return ()
    line = head[2:].split(b"\n", 1)[0].strip(b" \t\r").decode("utf-8", "surrogateescape")
    interpreter, _, argument = line.replace("\t", " ").partition(" ")
    if not interpreter:
        return ()
    return (interpreter, argument.strip()) if argument.strip() else (interpreter,)


def _exec_form(instruction: str, words: Sequence[str]) -> str:
    import json

    return f"{instruction} {json.dumps(list(words), ensure_ascii=False)}"
