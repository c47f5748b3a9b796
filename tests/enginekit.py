"""An engine that does as it is told: the part of the Docker Engine API that layerlens uses, on a Unix socket."""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import socketserver
import threading
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imagekit

KIT = imagekit.sample()
ARCHIVE = imagekit.tar_of(imagekit.docker_archive_old(KIT))


@dataclass
class FakeEngine:
    """What the engine has and how it misbehaves."""

    socket: Path
    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    archive: bytes = ARCHIVE
    chunk: int = 32 * 1024
    api_version: str = "1.41"
    answers: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    """Path (without version) → status and body, instead of the usual answer."""
    break_off_after: int | None = None
    silent_for_s: float = 0
    lingers_for_s: float = 0
    """How long it takes from the last byte of an export to the chunk that ends it."""
    tells_version: bool = True
    """Whether every answer has the header Api-Version, as real engines' answers have."""
    asked: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def add(self, built: imagekit.BuiltImage, *names: str, **more: Any) -> None:
        config = json.loads(built.config)
        inspected = {
            "Id": built.image_id,
            "RepoTags": list(names),
            "Created": config["created"],
            "Os": config["os"],
            "Architecture": config["architecture"],
            "Size": sum(map(len, built.layers)),
            "Config": config["config"],
            "RootFS": {"Type": "layers", "Layers": built.diff_ids},
            **more,
        }
        for name in (*names, built.image_id):
            self.images[name] = inspected


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    engine: FakeEngine

    def address_string(self) -> str:
        return "socket"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        address = urllib.parse.urlsplit(self.path)
        path = re.sub(r"^/v[\d.]+", "", urllib.parse.unquote(address.path))
        self.engine.asked.append(path + (f"?{address.query}" if address.query else ""))
        image = re.fullmatch(r"/images/(.+)/(json|get|history)", path)
        if path in self.engine.answers:
            self.answer(*self.engine.answers[path])
        elif path == "/_ping":
            self.answer(200, b"OK", "text/plain")
        elif path == "/version":
            self.answer_json({"ApiVersion": self.engine.api_version})
        elif path == "/images/json":
            self.answer_json(list(self.engine.images.values()))
        elif image and image[1] in self.engine.images:
            known = self.engine.images[image[1]]
            if image[2] == "get":
                self.export()
            else:
                self.answer_json(known if image[2] == "json" else [])
        else:
            self.answer(404, b'{"message": "No such image"}')

    def answer_json(self, value: object) -> None:
        self.answer(200, json.dumps(value).encode())

    def answer(self, status: int, body: bytes, media_type: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        if self.engine.tells_version:
            self.send_header("Api-Version", self.engine.api_version)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def export(self) -> None:
        time.sleep(self.engine.silent_for_s)
        self.send_response(200)
        self.send_header("Content-Type", "application/x-tar")
        chunked = self.request_version != "HTTP/1.0"  # which has no chunks: the body ends with the connection
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        sent = 0
        for start in range(0, len(self.engine.archive), self.engine.chunk):
            piece = self.engine.archive[start : start + self.engine.chunk]
            limit = self.engine.break_off_after
            if limit is not None and sent + len(piece) > limit:
                self.wfile.write((b"%x\r\n" % len(piece) if chunked else b"") + piece[: limit - sent])
                self.wfile.flush()
                self.close_connection = True
                return
            with contextlib.suppress(BrokenPipeError):
                self.wfile.write(b"%x\r\n" % len(piece) + piece + b"\r\n" if chunked else piece)
            sent += len(piece)
        self.wfile.flush()
        time.sleep(self.engine.lingers_for_s)
        if chunked:
            with contextlib.suppress(BrokenPipeError):
                self.wfile.write(b"0\r\n\r\n")


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        pass  # a client that hangs up is no news


@contextlib.contextmanager
def served(folder: Path) -> Iterator[FakeEngine]:
    engine = FakeEngine(folder / "engine.sock")
    handler = type("BoundHandler", (Handler,), {"engine": engine})
    with Server(str(engine.socket), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield engine
        finally:
            server.shutdown()
            thread.join()
