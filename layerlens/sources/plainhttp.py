"""One question to an engine over its Unix socket, without the docker SDK, whose import takes longer than the answer.

A description (:func:`get`) is asked for in HTTP/1.0 (RFC 1945): the answer has no chunks and ends where the
connection does, which a few lines can read. An export (:func:`stream`) comes in HTTP/1.1's chunks (RFC 9112, section
7.1), since only these tell an end from a broken connection; what tells its own end can come without
(:func:`unchunked`). Only questions are asked this way, and only where the answer is as expected; in every other case
the SDK asks again, and says what is wrong.
"""

from __future__ import annotations

import io
import json
import re
import select
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

from layerlens.patterns import regex
from layerlens.sources.spool import PushbackReader

if TYPE_CHECKING:
    import socket

MAX_ANSWER = 64 << 20
"""Bytes of an answer that are read; a description of an image has a few kilobytes."""
MAX_HEAD = 64 << 10
"""Bytes of status line and headers that are read, as in Python's http.client for one line of them."""
_MAX_LINE = 4096
"""Bytes of the line before a chunk; the number takes at most sixteen, extensions nobody uses."""
_RECEIVED = 1 << 18
"""Bytes of the buffer before a chunk's bytes are copied on: few enough to stay in a core's cache."""
_END = 1024
_ZEROS = bytes(_END)
"""What a tar ends with (POSIX.1-2017, pax, "ustar Interchange Format")."""
_POLLED_MS = 5

_TARGET = regex(r"/[A-Za-z0-9._/:@?=-]+", re.ASCII)
"""What may be asked for: image names need no quoting (``references.is_valid_name``)."""
_CHUNK_SIZE = regex(rb"[0-9A-Fa-f]{1,16}")


class Answer(NamedTuple):
    """Status, the version of the API that the engine speaks (its header ``Api-Version``), and the body.

    The body is parsed where it is JSON by its ``Content-Type``, else text.
    """

    status: int
    api_version: tuple[int, ...]
    body: Any


def get(socket_path: Path, target: str, timeout_s: float) -> Answer | None:
    """What the engine answers to ``GET target``; None for anything that is not a whole answer of an engine.

    Raises OSError where nobody listens, this user may not ask, or no answer comes within ``timeout_s``.
    """
    if not _TARGET.fullmatch(target):
        return None
    raw = _exchange(socket_path, f"GET {target} HTTP/1.0\r\nHost: engine\r\n\r\n".encode("ascii"), timeout_s)
    head, separator, body = raw.partition(b"\r\n\r\n")
    parsed = _parsed(head) if separator else None
    if parsed is None:
        return None
    status, headers = parsed
    version = headers.get("api-version", "").split(".")
    if "transfer-encoding" in headers or not all(part.isascii() and part.isdigit() for part in version):
        return None
    if headers.get("content-length", str(len(body))) != str(len(body)):
        return None
    try:
        said = json.loads(body) if "json" in headers.get("content-type", "") else body.decode("utf-8")
    except (ValueError, RecursionError):
        return None
    return Answer(status, tuple(map(int, version)), said)


def _parsed(head: bytes) -> tuple[int, dict[str, str]] | None:
    """Status and headers, by their names in lower case; None for what is no head of an answer."""
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ", 2)
    if (
        len(words) < 2
        or not words[0].startswith("HTTP/1.")
        or not (words[1].isascii() and words[1].isdigit())
    ):
        return None
    headers = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return int(words[1]), headers


def _exchange(socket_path: Path, request: bytes, timeout_s: float) -> bytes:
    """Send a request, and read until the other side hangs up."""
    deadline_s = time.monotonic() + timeout_s
    parts: list[bytes] = []
    done = 0
    with _asked(socket_path, request, timeout_s) as connection:
        while done <= MAX_ANSWER:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError("timed out")
            connection.settimeout(left_s)
            part = connection.recv(1 << 16)
            if not part:
                return b"".join(parts)
            parts.append(part)
            done += len(part)
    return b""


def _asked(socket_path: Path, request: bytes, timeout_s: float) -> socket.socket:
    """A connection over which the request was sent."""
    import socket

    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_s)
        connection.connect(str(socket_path))
        connection.sendall(request)
    except BaseException:
        connection.close()
        raise
    return connection


def stream(
    socket_path: Path,
    target: str,
    connect_timeout_s: float,
    meanwhile: Callable[[], object] | None = None,
    is_whole: Callable[[], bool] | None = None,
) -> Chunked | None:
    """The body of the answer to ``GET target``; None where that is no 200, or has another form than chunks.

    There is no limit to how long the answer may take. ``meanwhile`` is called once it has been asked for. Where
    nothing more comes behind a chunk that ends in zeros, ``is_whole`` says whether what was taken is all there is.

    Raises OSError where nobody listens, or who does hangs up before there is an answer.
    """
    begun = _answered(socket_path, target, "1.1", connect_timeout_s, meanwhile)
    return None if begun is None else Chunked(*begun, is_whole)


def unchunked(
    socket_path: Path, target: str, connect_timeout_s: float, meanwhile: Callable[[], object] | None = None
) -> PushbackReader | None:
    """As :func:`stream`, in HTTP/1.0: for what tells its own end, and is to come with as little ado as possible."""
    begun = _answered(socket_path, target, "1.0", connect_timeout_s, meanwhile)
    if begun is None:
        return None
    connection, received = begun
    return PushbackReader(received, cast("BinaryIO", _Received(connection)))


def _answered(
    socket_path: Path,
    target: str,
    version: str,
    connect_timeout_s: float,
    meanwhile: Callable[[], object] | None,
) -> tuple[socket.socket, bytes] | None:
    """The connection over which a body comes, as chunks in HTTP/1.1 and as it is in 1.0, and what came of it."""
    if not _TARGET.fullmatch(target):
        return None
    request = f"GET {target} HTTP/{version}\r\nHost: engine\r\nConnection: close\r\n\r\n".encode("ascii")
    connection = _asked(socket_path, request, connect_timeout_s)
    try:
        connection.settimeout(None)
        if meanwhile is not None:
            meanwhile()
        begun = _begun(connection, "chunked" if version == "1.1" else "")
    except BaseException:
        connection.close()
        raise
    if begun is None:
        connection.close()
        return None
    return connection, begun


class _Received(io.RawIOBase):
    """What comes over a connection, which it takes over, until the other side hangs up."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__()
        import socket

        self._connection = connection
        self._wait_for_all = socket.MSG_WAITALL

    def readable(self) -> bool:
        """Always: this is what it is for."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer``; less than its length only at the end."""
        # The kernel gathers them: an engine sends thirty kilobytes at a time.
        return self._connection.recv_into(buffer, len(buffer), self._wait_for_all)

    def close(self) -> None:
        """Hang up."""
        self._connection.close()
        super().close()


def _begun(connection: socket.socket, encoding: str) -> bytes | None:
    """What came of the body while its head was read; None where the head is not as it should be.

    ``encoding`` is the Transfer-Encoding that the body should have.
    """
    received = b""
    while b"\r\n\r\n" not in received and len(received) < MAX_HEAD:
        part = connection.recv(1 << 14)
        if not part:
            raise ConnectionResetError("closed without an answer")
        received += part
    head, separator, begun = received.partition(b"\r\n\r\n")
    parsed = _parsed(head) if separator else None
    if parsed is None or parsed[0] != 200 or "content-encoding" in parsed[1]:
        return None
    return begun if parsed[1].get("transfer-encoding", "").lower() == encoding else None


class Chunked(io.RawIOBase):
    """What comes in chunks over a connection, which it takes over; ``position`` counts the bytes taken of it.

    Reading raises OSError where the connection ends before the last chunk, or something else than a chunk comes.
    """

    def __init__(
        self, connection: socket.socket, begun: bytes, is_whole: Callable[[], bool] | None = None
    ) -> None:
        super().__init__()
        self.position = 0
        self._connection = connection
        self._is_whole = is_whole
        self._buffer = bytearray(max(_RECEIVED, len(begun)))
        self._buffer[: len(begun)] = begun
        self._view = memoryview(self._buffer)
        self._at = 0
        self._end = len(begun)
        """What was received and not taken is in ``_buffer[_at:_end]``."""
        self._left = 0
        """Bytes of the chunk at hand that were not taken."""
        self._size = 0
        self._repeated = b""
        """What comes between this chunk and one of the same size, as most are; empty before the first one."""
        self._is_over = False

    def readable(self) -> bool:
        """Always: this is what it is for."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer``; less than its length only behind the last chunk, or where that may have been it."""
        view = memoryview(buffer).cast("B")
        done, size = 0, len(view)
        while done < size:
            if not self._left:
                if self._is_whole is not None and self._is_between and self._pauses(view[:done]):
                    break
                self._left = self._next_chunk()
                if not self._left:
                    break
            if self._at == self._end:
                self._receive()
            count = min(size - done, self._left, self._end - self._at)
            view[done : done + count] = self._view[self._at : self._at + count]
            self._at += count
            self._left -= count
            done += count
            self.position += count
        return done

    def close(self) -> None:
        """Hang up."""
        self._connection.close()
        super().close()

    @property
    def _is_between(self) -> bool:
        """Whether of the next chunk nothing was received: at most the line break behind the last one."""
        return self._end - self._at <= len(b"\r\n")

    def _pauses(self, taken: memoryview) -> bool:
        """Whether to hand out what was taken, or nothing more, instead of waiting for another chunk."""
        if taken:
            return taken[-_END:] == _ZEROS[: len(taken)] and not self._comes(0)
        while not self._is_over and not self._comes(_POLLED_MS):
            self._is_over = self._is_whole is not None and self._is_whole()
        return self._is_over

    def _comes(self, timeout_ms: int) -> bool:
        """Whether there is something to receive, the connection's end included."""
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        return bool(poll.poll(timeout_ms))

    def _next_chunk(self) -> int:
        """The size of the next chunk; 0 for the last one, behind which nothing is looked at."""
        if self._is_over:
            return 0
        if self._repeated and self._buffer.startswith(self._repeated, self._at, self._end):
            self._at += len(self._repeated)
            return self._size
        if self._repeated and self._line():
            raise ConnectionError("a chunk is longer than it says")
        line = self._line()
        digits = line.partition(b";")[0].strip()
        if not _CHUNK_SIZE.fullmatch(digits):
            raise ConnectionError("what came is not a chunk")
        self._size = int(digits, 16)
        self._repeated = b"\r\n" + line + b"\r\n"
        self._is_over = not self._size
        return self._size

    def _line(self) -> bytes:
        """What comes up to the next line break, which is taken as well."""
        while (end := self._buffer.find(b"\r\n", self._at, self._end)) < 0:
            if self._end - self._at > _MAX_LINE:
                raise ConnectionError("what came is not a chunk")
            self._receive()
        line = bytes(self._view[self._at : end])
        self._at = end + 2
        return line

    def _receive(self) -> None:
        """Receive some bytes behind those that were not taken yet, which are fewer than a line has."""
        rest = self._end - self._at
        self._view[:rest] = self._view[self._at : self._end]
        count = self._connection.recv_into(self._view[rest:])
        if not count:
            raise ConnectionResetError("closed before the last chunk")
        self._at, self._end = 0, rest + count
