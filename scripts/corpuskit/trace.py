"""Which files of an image its container's processes open while the probe runs: observed.txt.

A static gate holds the entrypoint back until watch.c's fanotify and ptrace are in place, so nothing of engine or
runtime is seen and nothing of the program is missed. What was opened is then looked up in the image's own filesystem
(as the engine exports it): regular files count, and the symbolic links that were walked to reach them; files made at
run time don't.
"""

from __future__ import annotations

import fnmatch
import json
import os
import posixpath
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from corpuskit.cases import STATE, Case
from corpuskit.engine import docker, environment, inspect_image
from corpuskit.errors import CorpusError
from corpuskit.probe import Check, run_probe

SOURCES = Path(__file__).resolve().parent
GATE_FOLDER = "/.layerlens-gate"
SHARED_RATIO = 0.99
LINKS_LIMIT = 40

# The engine mounts these over the image, or creates them: what is opened there is not the image's.
MOUNTED = (
    "/dev",
    "/proc",
    "/sys",
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/.dockerenv",
    GATE_FOLDER,
)

# The bases carry the certificate authorities that this host trusts beyond Debian's (scripts/bases/host-setup).
# Another machine has others, or none, so what was opened there says nothing of the application.
HOST_AUTHORITIES = "/usr/local/share/ca-certificates/"


@dataclass(frozen=True, slots=True)
class Node:
    """One path of the image: "f"ile, "d"irectory, "l"ink or "o"ther."""

    kind: str
    size_bytes: int = 0
    target: str = ""
    """Of a link: where it points; of a second name of a file: the first one."""


@dataclass(slots=True)
class Tree:
    """The image's filesystem by path, enough of it to walk links."""

    nodes: dict[str, Node] = field(default_factory=lambda: {"/": Node("d")})

    def resolve(self, path: str, follow: bool) -> tuple[list[str], str | None]:
        """The links walked on the way to `path`, and what it is in the end; None if it is not there."""
        links: list[str] = []
        pending = [part for part in path.split("/") if part and part != "."][::-1]
        at = "/"
        while pending:
            part = pending.pop()
            if part in ("", "."):
                continue
            if part == "..":
                at = posixpath.dirname(at)
                continue
            step = posixpath.join(at, part)
            node = self.nodes.get(step)
            if node is None:
                return links, None
            if node.kind == "l":
                links.append(step)
                if not pending and not follow:
                    return links, step
                if len(links) > LINKS_LIMIT:
                    return links, None
                if node.target.startswith("/"):
                    at = "/"
                pending += node.target.split("/")[::-1]
                continue
            at = step
        return links, at


@dataclass(frozen=True, slots=True)
class Observed:
    """The files of the image that were opened, links walked on the way included, and their payload."""

    paths: frozenset[str]
    size_bytes: int
    looked_at: frozenset[str] = frozenset()
    """Other files and links that a system call named and found (stat, access, readlink), without opening them."""


class Gate:
    """Starts containers held back, watches them, keeps the records."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._gate = work / "gate"
        self._gate.mkdir()
        self._gate.chmod(0o755)
        _compile("gate", ["-static"], self._gate / "gate")
        _compile("watch", ["-pthread"], work / "watch")
        self._fifo = self._gate / "go"
        os.mkfifo(self._fifo)
        self._fifo.chmod(0o666)  # whoever the image's USER is
        self._watch: subprocess.Popen[str] | None = None
        self.records: set[bytes] = set()

    def options(self, image: str, args: tuple[str, ...]) -> tuple[list[str], list[str]]:
        """The gate as entrypoint, and the image's own entrypoint and command as its arguments."""
        config = (inspect_image(image) or {}).get("Config") or {}
        real = [*(config.get("Entrypoint") or []), *(list(args) or config.get("Cmd") or [])]
        if not real:
            raise CorpusError(f"{image} has neither entrypoint nor command")
        mount = f"type=bind,source={self._gate},target={GATE_FOLDER},readonly"
        return ["--mount", mount, "--entrypoint", f"{GATE_FOLDER}/gate"], real

    def started(self, container: str) -> None:
        """Put the watcher in place, then open the gate."""
        pid = docker("inspect", "--format", "{{.State.Pid}}", container).stdout.strip()
        with (self._work / "records").open("wb") as records:
            self._watch = subprocess.Popen(
                [self._work / "watch", pid], stdout=records, stderr=subprocess.PIPE, text=True
            )
        assert self._watch.stderr is not None
        line = self._watch.stderr.readline()
        if line != "ready\n":
            self._watch.wait()
            raise CorpusError(f"the watcher cannot watch (root, Linux 5.6, CAP_SYS_ADMIN?): {line.strip()}")
        deadline = time.monotonic() + 10
        while True:
            try:
                os.close(os.open(self._fifo, os.O_WRONLY | os.O_NONBLOCK))
                return
            except OSError as error:  # ENXIO: the gate has not opened its end yet
                if time.monotonic() > deadline:
                    raise CorpusError(f"the gate in {container[:12]} never opened: {error}") from error
            time.sleep(0.01)

    def ended(self, container: str) -> None:
        """Let the watcher finish, and keep what it saw."""
        assert self._watch is not None and self._watch.stderr is not None
        try:
            status = self._watch.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._watch.terminate()
            status = self._watch.wait(timeout=20)
        words = self._watch.stderr.read().strip()
        if status != 0:
            raise CorpusError(f"the watcher failed (exit {status}): {words}")
        self.records.update(record for record in (self._work / "records").read_bytes().split(b"\0") if record)

    def close(self) -> None:
        """End a watcher that a failed probe left."""
        if self._watch is not None and self._watch.poll() is None:
            self._watch.terminate()
            self._watch.wait()


def _compile(name: str, options: list[str], output: Path) -> None:
    """Compile one of the two programs; kept under .corpus by the source's time."""
    kept = STATE / "bin" / name
    source = SOURCES / f"{name}.c"
    if not kept.exists() or kept.stat().st_mtime < source.stat().st_mtime:
        kept.parent.mkdir(parents=True, exist_ok=True)
        command = ["gcc", "-O2", "-Wall", *options, "-o", str(kept.with_suffix(".part")), str(source)]
        try:
            result = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError as error:
            raise CorpusError("trace needs gcc: apt-get install gcc libc6-dev") from error
        if result.returncode != 0:
            raise CorpusError(f"{' '.join(command)}: {result.stderr.strip()}")
        kept.with_suffix(".part").replace(kept)
    output.write_bytes(kept.read_bytes())
    output.chmod(0o755)


def image_tree(image: str) -> Tree:
    """The filesystem that a container of the image sees, by the engine's export."""
    tree = Tree()
    for member in exported(image):
        path = "/" + member.name.removeprefix("./").strip("/")
        if member.issym():
            tree.nodes[path] = Node("l", target=member.linkname)
        elif member.islnk():
            tree.nodes[path] = Node("f", target="/" + member.linkname.removeprefix("./").strip("/"))
        elif member.isfile():
            tree.nodes[path] = Node("f", member.size)
        else:
            tree.nodes[path] = Node("d" if member.isdir() else "o")
    return tree


def exported(image: str) -> Iterable[tarfile.TarInfo]:
    """The members of `docker export` of a container of the image that never ran."""
    container = docker("create", "--network=none", image, "-").stdout.strip()
    try:
        with subprocess.Popen(
            ["docker", "export", container], env=environment(), stdout=subprocess.PIPE
        ) as export:
            assert export.stdout is not None
            with tarfile.open(fileobj=export.stdout, mode="r|", errors="surrogateescape") as archive:
                yield from archive
            while export.stdout.read(1 << 16):
                pass
        if export.returncode != 0:
            raise CorpusError(f"docker export of {image} failed")
    finally:
        docker("rm", "--force", "--volumes", container, check=False)


def trace_image(image: str, case: Case, tree: Tree) -> tuple[Observed, list[Check]]:
    """Run the probe once under watch."""
    with tempfile.TemporaryDirectory(prefix="layerlens-trace-") as folder:
        work = Path(folder)
        work.chmod(0o755)
        gate = Gate(work)
        try:
            checks = run_probe(image, case.probe(), gate)
        finally:
            gate.close()
    return observe(tree, gate.records), checks


def observe(tree: Tree, records: Iterable[bytes]) -> Observed:
    """From the watcher's records to the image's own files and the links on the way to them."""
    decoded = [(record[:1], os.fsdecode(record[1:])) for record in records]
    opened = {
        path
        for kind, path in decoded
        if kind == b"O" and (node := tree.nodes.get(path)) and node.kind == "f" and not _mounted(path)
    }
    reached = opened | {parent for path in opened for parent in _parents(path)}
    walked: set[str] = set()
    found: set[str] = set()
    for kind, path in decoded:
        if kind in (b"F", b"N"):
            links, end = tree.resolve(path, follow=kind == b"F")
            found.update(links)
            if end is not None and tree.nodes[end].kind != "d":
                found.add(end)
            if end in links:  # the link itself was read: it matters if what it leads to was opened
                _, end = tree.resolve(path, follow=True)
            if links and end in reached:
                walked.update(link for link in links if not _mounted(link))
    kept = frozenset(path for path in opened | walked if not _of_host(tree, path))
    payload = {}
    for path in opened & kept:
        node = tree.nodes[path]
        first = node.target or path
        payload[first] = tree.nodes[first].size_bytes if first in tree.nodes else node.size_bytes
    looked_at = frozenset(path for path in found - kept if not _mounted(path))
    return Observed(kept, sum(payload.values()), looked_at)


def _parents(path: str) -> Iterable[str]:
    while path != "/":
        path = posixpath.dirname(path)
        yield path


def _of_host(tree: Tree, path: str) -> bool:
    return (tree.resolve(path, follow=True)[1] or "").startswith(HOST_AUTHORITIES)


def _mounted(path: str) -> bool:
    return any(path == mount or path.startswith(f"{mount}/") for mount in MOUNTED)


def trace_case(case: Case, say: Callable[[str], None]) -> Observed:
    """Trace twice, compare, write observed.txt; raises if a probe fails or they differ without a reason."""
    image = case.tag("single")
    if inspect_image(image) is None:
        raise CorpusError(f"{image} is not built; run `scripts/corpus build {case.name}`")
    tree = image_tree(image)
    runs = []
    for number in (1, 2):
        observed, checks = trace_image(image, case, tree)
        failed = [check for check in checks if not check.passed]
        if failed:
            raise CorpusError(
                f"{case.name}: the probe fails under watch: {failed[0].what}: {failed[0].detail}"
            )
        say(f"{case.name}: trace {number}: {len(observed.paths)} paths, {observed.size_bytes} bytes")
        runs.append(observed.paths)
    union, differing = runs[0] | runs[1], runs[0] ^ runs[1]
    unexplained = sorted(
        path for path in differing if not any(fnmatch.fnmatchcase(path, note.path) for note in case.differs)
    )
    if len(differing) > (1 - SHARED_RATIO) * len(union):
        raise CorpusError(
            f"{case.name}: two traces share only {1 - len(differing) / len(union):.2%} of their paths: "
            + ", ".join(sorted(differing)[:20])
        )
    if unexplained:
        raise CorpusError(
            f"{case.name}: two traces differ in paths that case.toml's [[differs]] does not explain: "
            + ", ".join(unexplained[:20])
        )
    observed = Observed(frozenset(union), _payload(tree, union))
    write_observed(case, image, observed)
    return observed


def _payload(tree: Tree, paths: Iterable[str]) -> int:
    firsts = {tree.nodes[path].target or path for path in paths if tree.nodes[path].kind == "f"}
    return sum(tree.nodes[first].size_bytes for first in firsts if first in tree.nodes)


def write_observed(case: Case, image: str, observed: Observed) -> None:
    """observed.txt as tests/corpus/README.md describes it."""
    lines = [
        f"# files of {image} that its processes opened or executed under probe.toml",
        f"# made by: scripts/corpus trace {case.name}",
        f"# files: {len(observed.paths)}",
        f"# bytes: {observed.size_bytes}",
        *(_printable(path) for path in sorted(observed.paths)),
    ]
    target = case.folder / "observed.txt"
    partial = target.with_suffix(".part")
    partial.write_text("\n".join(lines) + "\n", errors="surrogateescape")
    partial.replace(target)


def _printable(path: str) -> str:
    plain = path.isprintable() and "\\" not in path and not path.startswith('"')
    return path if plain else json.dumps(path)


def read_observed(case: Case) -> tuple[int, int] | None:
    """(files, bytes) from the header of observed.txt; None if the case was not traced."""
    try:
        text = (case.folder / "observed.txt").read_text(errors="surrogateescape")
    except FileNotFoundError:
        return None
    figures = {}
    for line in text.splitlines():
        if not line.startswith("# "):
            break
        name, _, value = line[2:].partition(": ")
        figures[name] = value
    return int(figures["files"]), int(figures["bytes"])
