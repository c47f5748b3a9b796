"""One question to an engine over its Unix socket, without the docker SDK, whose import takes longer than the answer.

HTTP/1.0 (RFC 1945): the answer has no chunks and ends where the connection does, which a few lines can read. Only
questions are asked this way, and only where the answer is as expected; in every other case the SDK asks again, and
says what is wrong.
"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any, NamedTuple

from layerlens.patterns import regex

MAX_ANSWER = 64 << 20
"""Bytes of an answer that are read; a description of an image has a few kilobytes."""

_TARGET = regex(r"/[A-Za-z0-9._/:@?=-]+", re.ASCII)
"""What may be asked for: image names need no quoting (``references.is_valid_name``)."""


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
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ", 2)
    if not separator or len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
        return None
    headers = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    version = headers.get("api-version", "").split(".")
    if "transfer-encoding" in headers or not all(part.isascii() and part.isdigit() for part in version):
        return None
    if headers.get("content-length", str(len(body))) != str(len(body)):
        return None
    try:
        said = json.loads(body) if "json" in headers.get("content-type", "") else body.decode("utf-8")
    except (ValueError, RecursionError):
        return None
    return Answer(int(words[1]), tuple(map(int, version)), said)


def _exchange(socket_path: Path, request: bytes, timeout_s: float) -> bytes:
    """Send a request, and read until the other side hangs up."""
    import socket

    deadline_s = time.monotonic() + timeout_s
    parts: list[bytes] = []
    done = 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        connection.connect(str(socket_path))
        connection.sendall(request)
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
