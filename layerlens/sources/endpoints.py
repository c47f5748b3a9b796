"""Where container engines listen.

Docker: ``DOCKER_HOST``, else the client's context (``DOCKER_CONTEXT``, else ``currentContext`` of its
config.json), else ``/var/run/docker.sock``. Podman: ``CONTAINER_HOST``, else the user's socket, else root's.
The contexts are read here and not by the docker SDK, which looks for them in the working directory when the
client has no config.json, and whose import takes longer than all of this.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from layerlens.errors import EngineError

EngineName = Literal["docker", "podman"]

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_DEFAULT_SOCKET = "unix:///var/run/docker.sock"
_ROOT_PODMAN_SOCKET = "/run/podman/podman.sock"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address at which an engine may answer, and why it is looked for there."""

    engine: EngineName
    url: str
    """As in DOCKER_HOST: ``unix:///…``, ``tcp://host:port``, ``ssh://…``, ``npipe://…``."""
    origin: str
    """What named it: ``DOCKER_HOST``, ``context "desktop-linux"``, or empty for the usual place."""
    certificates: Path | None = None
    """Folder with ca.pem, cert.pem and key.pem where TLS is used."""
    verify_tls: bool = True

    def __str__(self) -> str:
        origin = f", from {self.origin}" if self.origin else ""
        return f"{self.engine} ({self.url}{origin})"

    @property
    def socket_path(self) -> Path | None:
        """The socket's path where the address is a Unix socket."""
        for prefix in ("unix://", "http+unix://"):
            if self.url.startswith(prefix):
                return Path("/" + self.url[len(prefix) :].lstrip("/"))
        return None

    @property
    def is_local(self) -> bool:
        """Whether its loopback address is this machine's: a socket, a pipe, or TCP at that very address."""
        from urllib.parse import urlsplit

        try:
            address = urlsplit(self.url)
        except ValueError:
            return False
        return address.scheme in ("unix", "http+unix", "npipe") or address.hostname in _LOOPBACK


def endpoints(engine: EngineName, environment: Mapping[str, str] | None = None) -> list[Endpoint]:
    """Where ``engine`` is looked for, in this order. Raises EngineError for a context that cannot be read."""
    environment = os.environ if environment is None else environment
    return _docker_endpoints(environment) if engine == "docker" else _podman_endpoints(environment)


def _docker_endpoints(environment: Mapping[str, str]) -> list[Endpoint]:
    """DOCKER_HOST wins over DOCKER_CONTEXT, as in the client (docker/cli, cli/command/cli.go)."""
    host = environment.get("DOCKER_HOST")
    if host:
        verify = bool(environment.get("DOCKER_TLS_VERIFY"))
        folder = environment.get("DOCKER_CERT_PATH")
        certificates = Path(folder) if folder else (_client_folder(environment) if verify else None)
        return [Endpoint("docker", host, "DOCKER_HOST", certificates, verify)]
    folder_ = _client_folder(environment)
    context = environment.get("DOCKER_CONTEXT") or _current_context(folder_)
    if context and context != "default":
        return [_context_endpoint(folder_, context)]
    if os.name == "nt":  # pragma: no cover
        return [Endpoint("docker", "npipe:////./pipe/docker_engine", "")]
    return [Endpoint("docker", _DEFAULT_SOCKET, "")]


def _client_folder(environment: Mapping[str, str]) -> Path:
    named = environment.get("DOCKER_CONFIG")
    return Path(named) if named else Path(environment.get("HOME") or os.path.expanduser("~")) / ".docker"  # noqa: PTH111


def _current_context(folder: Path) -> str | None:
    """``currentContext`` of the client's config.json; None where there is no file or nothing in it."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return None  # the client itself warns and goes on with its defaults
    name = config.get("currentContext") if isinstance(config, dict) else None
    return name if isinstance(name, str) else None


def _context_endpoint(folder: Path, context: str) -> Endpoint:
    """The endpoint of a client's context (docker/cli, cli/context/store: folders are named by SHA-256)."""
    key = hashlib.sha256(context.encode()).hexdigest()
    file = folder / "contexts" / "meta" / key / "meta.json"
    hint = "`docker context ls` lists the contexts; set DOCKER_CONTEXT to one of them, or set DOCKER_HOST."
    try:
        endpoint = json.loads(file.read_bytes())["Endpoints"]["docker"]
        host = endpoint.get("Host") or _DEFAULT_SOCKET
        skip = bool(endpoint.get("SkipTLSVerify"))
    except FileNotFoundError as error:
        raise EngineError(f"the docker context {context!r} does not exist ({file})", hint) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EngineError(f"the docker context {context!r} cannot be read ({file}: {error})", hint) from error
    certificates = folder / "contexts" / "tls" / key / "docker"
    return Endpoint(
        "docker", str(host), f'context "{context}"', certificates if certificates.is_dir() else None, not skip
    )


def _podman_endpoints(environment: Mapping[str, str]) -> list[Endpoint]:
    host = environment.get("CONTAINER_HOST")
    if host:
        return [Endpoint("podman", host, "CONTAINER_HOST")]
    found = []
    runtime = environment.get("XDG_RUNTIME_DIR")
    user = os.getuid() if hasattr(os, "getuid") else 0
    if runtime:
        found.append(f"{runtime.rstrip('/')}/podman/podman.sock")
    elif user:
        found.append(f"/run/user/{user}/podman/podman.sock")
    found.append(_ROOT_PODMAN_SOCKET)
    return [Endpoint("podman", f"unix://{path}", "") for path in dict.fromkeys(found)]
