"""Which files of an image its processes open while a probe runs: the observed ones.

The containers are held back by a gate, a static program of a hundred-odd bytes that this module writes itself: it
waits on a FIFO until the watcher is in place and then becomes the image's own program, so that nothing of the start
is missed and nothing of the container runtime is seen. The watcher is a process of its own (``python -m
layerlens.trace PID``) with two sources: fanotify(7) on the container's root filesystem says which files were opened
or executed, and ptrace(2) by which names files were asked for, which tells the symbolic links on the way and the
files that were only looked at (stat, access, readlink). What was seen is looked up in the image's own filesystem.

Needs Linux 5.3 on x86-64 or arm64, root, and an engine on the same machine; :class:`UnavailableError` says what of it
is not so.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import select
import signal
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from layerlens.errors import LayerLensError, LinkLoopError, PathNotFoundError, UnavailableError, VerifyError
from layerlens.filesystem import Filesystem
from layerlens.graph import DEFAULT_PATH, shebang
from layerlens.model import EntryType, ImageConfig, ImagePath
from layerlens.probing import Answers, Probe, ask
from layerlens.sources.containers import Container, ContainerSpec
from layerlens.sources.docker_engine import Engine

GATE_FOLDER = "/.layerlens-gate"
MOUNTED = (
    # The engine mounts these over the image, or makes them: what is opened there is not the image's (DESIGN, law 2).
    "/dev",
    "/proc",
    "/sys",
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/.dockerenv",
    GATE_FOLDER,
)

_FIFO = f"{GATE_FOLDER}/go".encode()
_MAX_INTERPRETERS = 4
"""How deep the kernel follows ``#!`` (BINPRM_MAX_RECURSION)."""
_PATIENCE = 4.0
"""How much longer a program may take while each of its calls that names a file is stopped at."""
_READY_S = 20.0
_END_S = 20.0


@dataclass(frozen=True, slots=True)
class Observed:
    """What a container was seen to use of the image; paths are canonical but for links, which are themselves."""

    opened: frozenset[ImagePath]
    """Regular files that were opened or executed."""
    walked: frozenset[ImagePath]
    """Symbolic links on the way to them."""
    looked_at: frozenset[ImagePath]
    """Other files and links whose name a system call asked for and found, without opening them."""
    folders: frozenset[ImagePath]
    """Directories that a system call named, or made something in: a program may need one that is empty."""
    answers: Answers

    @property
    def paths(self) -> frozenset[ImagePath]:
        """The files that were opened, and the links on the way."""
        return self.opened | self.walked


def trace(engine: Engine, image_id: str, fs: Filesystem, config: ImageConfig, probe: Probe) -> Observed:
    """Run the probe under watch; ``fs`` is the image's squash, ``config`` its config.

    Raises:
        UnavailableError: this machine cannot watch, and why.
        VerifyError, EngineError: as for :func:`layerlens.probing.ask`.
    """
    check_available()
    probe = replace(probe, timeout_s=probe.timeout_s * _PATIENCE)
    with tempfile.TemporaryDirectory(prefix="layerlens-trace-") as folder:
        gatekeeper = _Gatekeeper(fs, config, Path(folder))
        try:
            answers = ask(engine, image_id, config, probe, gatekeeper)
        finally:
            gatekeeper.close()
    return observe(fs, gatekeeper.records, answers)


def check_available() -> None:
    """UnavailableError where this process cannot watch containers."""
    if sys.platform != "linux":
        raise UnavailableError(
            f"tracing needs Linux (fanotify and ptrace), and this is {platform.system()}",
            "Trace on a Linux machine with an engine, as root; static analysis and verify need none of that.",
        )
    if platform.machine() not in _MACHINES:
        raise UnavailableError(
            f"tracing knows no system calls of {platform.machine()}", "Trace on x86-64 or arm64."
        )
    if os.geteuid() != 0:
        raise UnavailableError(
            "tracing needs root: fanotify watches whole filesystems, ptrace other users' processes",
            "Run with sudo, or leave tracing out.",
        )


# --- the gate -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Machine:
    """What differs between processors."""

    elf: int
    """e_machine (ELF gABI)."""
    audit: int
    """AUDIT_ARCH_* (linux/audit.h): other values in a traced call mean a 32-bit process."""
    gate: bytes
    """The gate's code; the FIFO's name follows it."""
    calls: MappingProxyType[int, tuple[int, int, int, int]]
    """System call → (kind, argument that is the path, argument with flags or -1, flag that says: follow no link)."""


_AT, _EXEC, _NOFOLLOW, _CREATES, _MAKES = 1, 2, 4, 8, 16
_O_CREAT = 0o100
_O_NOFOLLOW = {"x86_64": 0o400000, "aarch64": 0o100000}
_AT_NOFOLLOW = 0x100

# The gate: open(FIFO, O_RDONLY | O_CLOEXEC), again after EINTR; execve(argv[1], argv + 2, environment); exit 127.
#
#   x86-64                                    arm64
#   again: lea  rdi, [rip + path]             again: mov  x0, #-100            AT_FDCWD
#          mov  esi, 0x80000                         adr  x1, path
#          xor  edx, edx                             mov  x2, #0x80000
#          push 2; pop rax; syscall                  mov  x3, #0
#          cmp  eax, -4                              mov  x8, #56; svc #0      openat
#          je   again                                cmn  x0, #4; b.eq again
#          test eax, eax; js fail                    tbnz x0, #63, fail
#          mov  rcx, [rsp]                           ldr  x4, [sp]
#          mov  rdi, [rsp + 16]                      ldr  x0, [sp, #16]
#          lea  rsi, [rsp + 24]                      add  x1, sp, #24
#          lea  rdx, [rsp + rcx * 8 + 16]            add  x2, sp, #16; add x2, x2, x4, lsl #3
#          push 59; pop rax; syscall                 mov  x8, #221; svc #0     execve
#   fail:  mov  edi, 127                      fail:  mov  x0, #127
#          mov  eax, 231; syscall                    mov  x8, #94; svc #0      exit_group
#   path:                                     path:
_GATE_X86_64 = bytes.fromhex(
    "488d3d39000000be0000080031d26a02580f0583f8fc74e885c07818488b0c24488b7c2410488d742418488d54cc10"
    "6a3b580f05bf7f000000b8e70000000f05"
)
_GATE_AARCH64 = bytes.fromhex(
    "600c8092410200100201a0d2030080d2080780d2010000d41f1000b120ffff540001f8b7e40340f9e00b40f9e1630091"
    "e2430091420c048ba81b80d2010000d4e00f80d2c80b80d2010000d4"
)


def _calls(machine: str, numbers: dict[str, int]) -> MappingProxyType[int, tuple[int, int, int, int]]:
    """The table of calls by number; a machine that lacks an old call has only the newer one."""
    nofollow = _O_NOFOLLOW[machine]
    kinds = {
        "open": (_CREATES, 0, 1, nofollow),
        "creat": (_MAKES, 0, -1, 0),
        "mkdir": (_MAKES, 0, -1, 0),
        "mkdirat": (_AT | _MAKES, 1, -1, 0),
        "stat": (0, 0, -1, 0),
        "lstat": (_NOFOLLOW, 0, -1, 0),
        "access": (0, 0, -1, 0),
        "readlink": (_NOFOLLOW, 0, -1, 0),
        "openat": (_AT | _CREATES, 1, 2, nofollow),
        "openat2": (_AT, 1, -1, 0),
        "execve": (_EXEC, 0, -1, 0),
        "execveat": (_AT | _EXEC, 1, 4, _AT_NOFOLLOW),
        "newfstatat": (_AT, 1, 3, _AT_NOFOLLOW),
        "statx": (_AT, 1, 2, _AT_NOFOLLOW),
        "faccessat": (_AT, 1, -1, 0),
        "faccessat2": (_AT, 1, 3, _AT_NOFOLLOW),
        "readlinkat": (_AT | _NOFOLLOW, 1, -1, 0),
        "chdir": (0, 0, -1, 0),
        "chroot": (0, 0, -1, 0),
        "statfs": (0, 0, -1, 0),
        "truncate": (0, 0, -1, 0),
        "getxattr": (0, 0, -1, 0),
        "inotify_add_watch": (_AT, 1, -1, 0),
    }
    return MappingProxyType({number: kinds[name] for name, number in numbers.items()})


_MACHINES = {
    # Numbers: linux, arch/x86/entry/syscalls/syscall_64.tbl.
    "x86_64": _Machine(
        62,
        0xC000003E,
        _GATE_X86_64,
        _calls(
            "x86_64",
            {
                "open": 2,
                "stat": 4,
                "lstat": 6,
                "access": 21,
                "execve": 59,
                "truncate": 76,
                "chdir": 80,
                "mkdir": 83,
                "creat": 85,
                "readlink": 89,
                "statfs": 137,
                "chroot": 161,
                "getxattr": 191,
                "inotify_add_watch": 254,
                "openat": 257,
                "mkdirat": 258,
                "newfstatat": 262,
                "readlinkat": 267,
                "faccessat": 269,
                "execveat": 322,
                "statx": 332,
                "openat2": 437,
                "faccessat2": 439,
            },
        ),
    ),
    # Numbers: linux, include/uapi/asm-generic/unistd.h.
    "aarch64": _Machine(
        183,
        0xC00000B7,
        _GATE_AARCH64,
        _calls(
            "aarch64",
            {
                "getxattr": 8,
                "inotify_add_watch": 27,
                "mkdirat": 34,
                "statfs": 43,
                "truncate": 45,
                "faccessat": 48,
                "chdir": 49,
                "chroot": 51,
                "openat": 56,
                "readlinkat": 78,
                "newfstatat": 79,
                "execve": 221,
                "execveat": 281,
                "statx": 291,
                "openat2": 437,
                "faccessat2": 439,
            },
        ),
    ),
}


def gate(machine: str) -> bytes:
    """A static ELF executable: one header, one segment, the code, the FIFO's name (ELF gABI, chapters 4 and 5)."""
    known = _MACHINES[machine]
    body = known.gate + _FIFO + b"\0"
    base, start = 0x400000, 64 + 56
    identification = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)  # 64 bits, little-endian, version 1, System V
    header = struct.pack("<HHIQQQIHHHHHH", 2, known.elf, 1, base + start, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    size = start + len(body)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x10000)  # PT_LOAD, read and execute
    return identification + header + segment + body


class _Gatekeeper:
    """Starts containers held back, watches them, keeps the records (a :class:`layerlens.probing.Launcher`)."""

    def __init__(self, fs: Filesystem, config: ImageConfig, work: Path) -> None:
        self._fs = fs
        self._config = config
        self._work = work
        self._watch: subprocess.Popen[bytes] | None = None
        self.records: set[bytes] = set()

    def prepare(self, spec: ContainerSpec) -> ContainerSpec:
        command = self._config.cmd or () if spec.command is None else spec.command
        words = [*(self._config.entrypoint or ()), *command]
        if not words:
            raise VerifyError(
                "the image has neither ENTRYPOINT nor CMD",
                "Say what to run: --exec CMD, or args in probe.toml.",
            )
        program = _program(self._fs, self._config, {**spec.env}, words[0])
        return replace(spec, entrypoint=[f"{GATE_FOLDER}/gate"], command=[program, *words])

    def made(self, made: Container) -> None:
        members = []
        for name, kind, mode in (("", tarfile.DIRTYPE, 0o755), ("/gate", tarfile.REGTYPE, 0o755)):
            member = tarfile.TarInfo(GATE_FOLDER[1:] + name)
            member.type, member.mode = kind, mode
            members.append((member, gate(platform.machine()) if kind == tarfile.REGTYPE else b""))
        fifo = tarfile.TarInfo(f"{GATE_FOLDER[1:]}/go")
        fifo.type, fifo.mode = tarfile.FIFOTYPE, 0o666  # whoever the image's USER is
        made.put([*members, (fifo, b"")])

    def started(self, made: Container) -> None:
        process = made.state().pid
        inside = Path(f"/proc/{process}/root{os.fsdecode(_FIFO)}")
        if not process or not _is_fifo(inside):
            raise UnavailableError(
                f"the container's processes are not this machine's: {made.last_words()}",
                "Trace on the machine that the engine runs on.",
            )
        self._start_watching(process)
        deadline = time.monotonic() + _READY_S
        while True:
            try:
                os.close(os.open(inside, os.O_WRONLY | os.O_NONBLOCK))
                return
            except OSError as error:  # ENXIO: the gate has not opened its end yet
                if error.errno != errno.ENXIO or time.monotonic() > deadline:
                    raise VerifyError(
                        f"the gate in the container never opened: {error.strerror}", "Try once more."
                    ) from error
            time.sleep(0.005)

    def _start_watching(self, process: int) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        with (self._work / "records").open("wb") as records:
            self._watch = subprocess.Popen(  # noqa: S603 - our own interpreter and a number
                [sys.executable, "-m", "layerlens.trace", str(process)],
                stdout=records,
                stderr=subprocess.PIPE,
                env=environment,
            )
        assert self._watch.stderr is not None
        line = self._watch.stderr.readline()
        if line != b"ready\n":
            rest = (line + self._watch.stderr.read()).decode("utf-8", "replace").strip()
            self._watch.wait()
            self._watch = None
            raise UnavailableError(
                f"the container cannot be watched: {rest or 'the watcher ended'}",
                "Tracing needs root with CAP_SYS_ADMIN and CAP_SYS_PTRACE, and Linux 5.3.",
            )

    def ended(self, made: Container) -> None:
        watch, self._watch = self._watch, None
        if watch is None:
            return
        if made.state().running:
            made.stop(0)
        assert watch.stderr is not None
        try:
            status = watch.wait(_END_S)
        except subprocess.TimeoutExpired:
            watch.terminate()
            status = watch.wait(_END_S)
        words = watch.stderr.read().decode("utf-8", "replace").strip()
        watch.stderr.close()
        if status != 0:
            raise VerifyError(
                f"the watcher failed: {words}", "Try once more; a busy machine may lose events."
            )
        self.records.update(filter(None, (self._work / "records").read_bytes().split(b"\0")))

    def close(self) -> None:
        """End a watcher that a failed probe left."""
        if self._watch is not None:
            self._watch.kill()
            self._watch.wait()
            self._watch = None


def _is_fifo(path: Path) -> bool:
    try:
        return stat.S_ISFIFO(path.lstat().st_mode)
    except OSError:
        return False


def _program(fs: Filesystem, config: ImageConfig, env: dict[str, str], word: str) -> str:
    """Where a container runtime finds a program: in PATH unless it holds a slash (runc, as execvp(3))."""
    if "/" in word:
        return word
    variables = dict(pair.partition("=")[::2] for pair in config.env) | env
    for folder in (variables.get("PATH") or DEFAULT_PATH).split(":"):
        found = fs.follow(f"/{folder.strip('/')}/{word}")
        if found is not None and fs.type_of(found) == EntryType.FILE and fs.entry(found).mode & 0o111:
            return f"{folder.rstrip('/')}/{word}"
    raise VerifyError(f"the image's PATH has no program {word}", "Check its ENTRYPOINT and CMD.")


# --- from records to the image's files ------------------------------------------------------------------------------


def observe(fs: Filesystem, records: Iterable[bytes], answers: Answers) -> Observed:
    """From the watcher's records to the image's own files, and the links on the way to them."""
    decoded = [(record[:1], os.fsdecode(record[1:])) for record in records]
    opened = {
        path
        for kind, path in decoded
        if kind == b"O" and not _mounted(path) and fs.type_of(path) == EntryType.FILE
    }
    reached = with_above(opened)
    walked: set[ImagePath] = set()
    found: set[ImagePath] = set()
    folders = {fs.follow(path.rpartition("/")[0] or "/") or "/" for kind, path in decoded if kind == b"C"}
    names = {(kind, path) for kind, path in decoded if kind in b"FNX"}
    names |= {(b"F", name) for kind, path in names if kind == b"X" for name in _interpreters(fs, path)}
    named: set[ImagePath] = set()
    for kind, path in names:
        links, end = _walk(fs, path, follow=kind != b"N")
        found.update(links)
        if end is not None:
            (folders if fs.type_of(end) == EntryType.DIR else found).add(end)
        if end in links:  # the link itself was read: it matters if what it leads to was opened
            end = _walk(fs, path, follow=True)[1]
        if end in reached:
            named.add(end)
            walked.update(link for link in links if not _mounted(link))
    walked |= _links_to(fs, opened - named)
    looked_at = {path for path in found - opened - walked if not _mounted(path)}
    there = {path for path in folders if path != "/" and fs.is_dir(path) and not _mounted(path)}
    return Observed(frozenset(opened), frozenset(walked), frozenset(looked_at), frozenset(there), answers)


def _links_to(fs: Filesystem, unnamed: set[ImagePath]) -> set[ImagePath]:
    """Every link to files that were opened by no name that ptrace saw, or to a directory above them.

    Whatever the engine runs in a container from outside (a health check) is no child of its first process.
    """
    if not unnamed:
        return set()
    ends = with_above(unnamed)
    links = (path for path in fs.live if fs.type_of(path) == EntryType.SYMLINK)
    return {path for path in links if fs.follow(path) in ends and not _mounted(path)}


def _walk(fs: Filesystem, path: str, follow: bool) -> tuple[list[ImagePath], ImagePath | None]:
    """The links walked on the way to ``path``, and what it is in the end; None if it is not in the image."""
    links: list[ImagePath] = []
    folder, _, name = path.rstrip("/").rpartition("/")
    try:
        if follow or name in ("", ".", ".."):
            return links, fs.resolve(path, links)
        above = fs.resolve(folder or "/", links)
    except (PathNotFoundError, LinkLoopError):
        return links, None
    end = f"{above.rstrip('/')}/{name}"
    if fs.type_of(end) == EntryType.SYMLINK:
        links.append(end)
    return links, end if fs.exists(end) else None


def _interpreters(fs: Filesystem, program: str) -> Iterator[str]:
    """What the kernel asks for when it executes a file: the interpreter of a script, the loader of an ELF file."""
    for _ in range(_MAX_INTERPRETERS):
        try:
            path = fs.resolve(program)
            start = fs.read(path, 4096)
        except (LayerLensError, PathNotFoundError, LinkLoopError):
            return
        if not start.startswith(b"#!"):
            loader = _elf_loader(fs, path, start)
            if loader:
                yield loader
            return
        words = shebang(start)
        if not words or not words[0].startswith("/"):
            return
        program = words[0]
        yield program


def _elf_loader(fs: Filesystem, path: ImagePath, start: bytes) -> str | None:
    """PT_INTERP of a 64-bit little-endian ELF file (ELF gABI, chapter 5); None where it has none."""
    if start[:6] != b"\x7fELF\x02\x01" or len(start) < 64:
        return None
    offset, size, count = (
        int.from_bytes(start[32:40], "little"),
        int.from_bytes(start[54:56], "little"),
        int.from_bytes(start[56:58], "little"),
    )
    for number in range(count):
        segment = start[offset + number * size : offset + number * size + 56]
        if len(segment) < 56:
            return None
        if int.from_bytes(segment[:4], "little") == 3:
            at = int.from_bytes(segment[8:16], "little")
            length = min(int.from_bytes(segment[32:40], "little"), 4096)
            text = start if at + length <= len(start) else fs.read(path, min(at + length, 1 << 20))
            return os.fsdecode(text[at : at + length].partition(b"\0")[0]) or None
    return None


def with_above(paths: Iterable[ImagePath]) -> set[ImagePath]:
    """Paths with the directories above them, without the root."""
    found: set[ImagePath] = set()
    for path in paths:
        while path and path not in found:
            found.add(path)
            path = path.rpartition("/")[0]
    return found


def _mounted(path: ImagePath) -> bool:
    return any(path == mount or path.startswith(f"{mount}/") for mount in MOUNTED)


# --- the watcher: a process of its own ------------------------------------------------------------------------------

_FAN_MARK_ADD_FILESYSTEM = 0x1 | 0x100
_FAN_OPEN_OR_EXEC = 0x20 | 0x1000
_FAN_Q_OVERFLOW = 0x4000
_FAN_INIT = 0x1 | 0x2 | 0x10  # FAN_CLOEXEC, FAN_NONBLOCK, FAN_UNLIMITED_QUEUE; linux/fanotify.h
_FAN_EVENT = struct.Struct("=IBBHQii")
_AT_FDCWD = -100

_PTRACE_SYSCALL = 24
_PTRACE_SEIZE = 0x4206
_PTRACE_INTERRUPT = 0x4207
_PTRACE_LISTEN = 0x4208
_PTRACE_GET_SYSCALL_INFO = 0x420E
_PTRACE_OPTIONS = 0x1 | 0x2 | 0x4 | 0x8 | 0x10  # TRACESYSGOOD, TRACEFORK, TRACEVFORK, TRACECLONE, TRACEEXEC
_PTRACE_EVENT_STOP = 128
_SYSCALL_INFO_ENTRY = 1
_SYSCALL_INFO = struct.Struct("=BxxxIQQQ6Q")
_WALL = 0x40000000
_PATH_BYTES = 4096
_STOPS = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)


class _Vector(ctypes.Structure):
    """``struct iovec`` (readv(2))."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Watcher:
    """Writes NUL-terminated records: ``O``path opened; ``F``, ``N``, ``X``name asked for (the link at its end
    followed, not followed, executed); ``C``name that may have been made.
    """

    def __init__(self, process: int, output: BinaryIO) -> None:
        self._machine = _MACHINES[platform.machine()]
        self._output = output
        self._first = process
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        self._libc.ptrace.restype = ctypes.c_long
        self._libc.fanotify_mark.argtypes = [
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.c_uint64,
            ctypes.c_int,
            ctypes.c_char_p,
        ]
        self._libc.process_vm_readv.restype = ctypes.c_ssize_t
        self._info = ctypes.create_string_buffer(_SYSCALL_INFO.size + 8)
        self._text = ctypes.create_string_buffer(_PATH_BYTES)
        self._seen: set[bytes] = set()
        self._ending = False
        self._overflow = False
        self._queue = self._attach()

    def _attach(self) -> int:
        queue: int = self._libc.fanotify_init(_FAN_INIT, os.O_RDONLY | os.O_CLOEXEC)
        self._must(queue >= 0, "fanotify_init")
        root = f"/proc/{self._first}/root".encode()
        marked = self._libc.fanotify_mark(queue, _FAN_MARK_ADD_FILESYSTEM, _FAN_OPEN_OR_EXEC, _AT_FDCWD, root)
        self._must(marked == 0, "fanotify_mark")
        self._must(self._ptrace(_PTRACE_SEIZE, self._first, 0, _PTRACE_OPTIONS) == 0, "ptrace")
        self._must(self._ptrace(_PTRACE_INTERRUPT, self._first) == 0, "ptrace")
        return queue

    @staticmethod
    def _must(done: bool, what: str) -> None:
        if not done:
            raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")

    def _ptrace(self, request: int, task: int, address: int = 0, value: int = 0) -> int:
        result: int = self._libc.ptrace(request, task, address, value)
        return result

    def _record(self, kind: bytes, path: bytes) -> None:
        record = kind + path
        if record not in self._seen:
            self._seen.add(record)
            self._output.write(record + b"\0")

    def end(self) -> None:
        """Stop after what is queued."""
        self._ending = True

    def run(self) -> int:
        """Watch until every process has ended; the exit status."""
        files = threading.Thread(target=self._watch_files)
        files.start()
        try:
            self._trace_calls()
        finally:
            self._ending = True
            files.join()
        self._output.flush()
        if self._overflow:
            sys.stderr.write("the queue of file events overflowed\n")
        return 3 if self._overflow else 0

    # -- files ---------------------------------------------------------------------------------------------------

    def _watch_files(self) -> None:
        poll = select.poll()
        poll.register(self._queue, select.POLLIN)
        while True:
            more = bool(poll.poll(50)) and self._drain()
            if self._ending and not more:
                return

    def _drain(self) -> bool:
        try:
            data = os.read(self._queue, 1 << 16)
        except BlockingIOError:
            return False
        own, at = os.getpid(), 0
        while at + _FAN_EVENT.size <= len(data):
            length, _, _, _, mask, file, process = _FAN_EVENT.unpack_from(data, at)
            at += max(length, _FAN_EVENT.size)
            self._overflow |= bool(mask & _FAN_Q_OVERFLOW)
            if file >= 0:
                if process != own:
                    self._record(b"O", os.readlink(b"/proc/self/fd/%d" % file))  # noqa: PTH115
                os.close(file)
        return at > 0

    # -- names in system calls -------------------------------------------------------------------------------------

    def _trace_calls(self) -> None:
        """Trace every task until none is left. The container's own signals pass through."""
        waitpid, ptrace = os.waitpid, self._libc.ptrace
        at_call = signal.SIGTRAP | 0x80
        while not self._ending:
            try:
                task, status = waitpid(-1, _WALL)
            except ChildProcessError:
                return
            if status & 0xFF != 0x7F:  # WIFSTOPPED
                continue
            number, event, deliver = (status >> 8) & 0xFF, status >> 16, 0
            if number == at_call:
                self._call(task)
            elif event == _PTRACE_EVENT_STOP:
                if number in _STOPS:  # a group stop: leave it stopped, but hear what comes next
                    ptrace(_PTRACE_LISTEN, task, 0, 0)
                    continue
            elif not event:
                deliver = number
            ptrace(_PTRACE_SYSCALL, task, 0, deliver)

    def _call(self, task: int) -> None:
        size = self._libc.ptrace(
            _PTRACE_GET_SYSCALL_INFO, task, len(self._info), ctypes.addressof(self._info)
        )
        if size < _SYSCALL_INFO.size or self._info.raw[0] != _SYSCALL_INFO_ENTRY:
            return
        _, audit, _, _, number, *arguments = _SYSCALL_INFO.unpack_from(self._info.raw)
        call = self._machine.calls.get(number)
        if call is None or audit != self._machine.audit:
            return
        kind, place, flags, nofollow = call
        path = self._string(task, arguments[place]) if arguments[place] else b""
        if not path:
            return
        directory = ctypes.c_int(arguments[place - 1] & 0xFFFFFFFF).value if kind & _AT else _AT_FDCWD
        whole = self._absolute(task, directory, path)
        if whole is None:
            return
        if kind & _MAKES or (kind & _CREATES and arguments[flags] & _O_CREAT):
            self._record(b"C", whole)
        if kind & _EXEC:
            self._record(b"X", whole)
        elif kind & _NOFOLLOW or (flags >= 0 and arguments[flags] & nofollow):
            self._record(b"N", whole)
        else:
            self._record(b"F", whole)

    def _string(self, task: int, address: int) -> bytes:
        """A string of another process; empty if it cannot be read or is too long."""
        have = b""
        while len(have) < _PATH_BYTES:
            want = 4096 - (address + len(have)) % 4096  # not into a page that may not be there
            here = _Vector(ctypes.addressof(self._text), want)
            there = _Vector(address + len(have), want)
            size = self._libc.process_vm_readv(
                task,
                ctypes.byref(here),
                ctypes.c_ulong(1),
                ctypes.byref(there),
                ctypes.c_ulong(1),
                ctypes.c_ulong(0),
            )
            if size <= 0:
                return b""
            head, end, _ = ctypes.string_at(self._text, size).partition(b"\0")
            have += head
            if end:
                return have
        return b""

    @staticmethod
    def _absolute(task: int, directory: int, path: bytes) -> bytes | None:
        """From the task's working directory, or from an open directory of it."""
        if path.startswith(b"/"):
            return path
        place = b"cwd" if directory == _AT_FDCWD else b"fd/%d" % directory
        try:
            base = os.readlink(b"/proc/%d/%s" % (task, place))  # noqa: PTH115 - bytes, which Path has not
        except OSError:
            return None
        return base + b"/" + path if base.startswith(b"/") else None


def _watch(process: int) -> int:
    try:
        watcher = _Watcher(process, sys.stdout.buffer)
    except OSError as error:
        sys.stderr.write(f"{error.strerror or error}\n")
        return 2

    def end(_number: int, _frame: object) -> None:
        watcher.end()
        raise InterruptedError

    signal.signal(signal.SIGTERM, end)
    sys.stderr.write("ready\n")
    sys.stderr.flush()
    try:
        return watcher.run()
    except InterruptedError:
        sys.stdout.buffer.flush()
        return 0


if __name__ == "__main__":
    sys.exit(_watch(int(sys.argv[1])))
