"""`docker layerlens …`: the link in the engine client's plugin folder, and what the client asks and passes.

The protocol is the client's own (docker/cli, ``cli-plugins/metadata``, ``cli-plugins/manager``): it looks for
executables named ``docker-NAME`` in ``$DOCKER_CONFIG/cli-plugins`` and in system folders (never on PATH),
asks each ``docker-cli-plugin-metadata``, and then runs ``docker-NAME [its own flags] NAME [arguments]``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path

from layerlens import __version__
from layerlens.errors import LayerLensError, UsageError

EXECUTABLE = "docker-layerlens"
NAME = "layerlens"
METADATA_COMMAND = "docker-cli-plugin-metadata"

_FLAGS_WITH_VALUE = {
    "-c": "context",
    "--context": "context",
    "-H": "host",
    "--host": "host",
    "--config": "config",
    "-l": "log-level",
    "--log-level": "log-level",
    "--tlscacert": "tlscacert",
    "--tlscert": "tlscert",
    "--tlskey": "tlskey",
}
_FLAGS = {"-D": "debug", "--debug": "debug", "--tls": "tls", "--tlsverify": "tlsverify"}
_CERTIFICATES = {"tlscacert": "ca.pem", "tlscert": "cert.pem", "tlskey": "key.pem"}


def metadata() -> str:
    """The answer to ``docker-cli-plugin-metadata``: one JSON object."""
    import json

    return json.dumps(
        {
            "SchemaVersion": "0.1.0",
            "Vendor": "the layerlens authors",
            "Version": f"v{__version__}",
            "ShortDescription": "Say where every byte of an image comes from",
        }
    )


def strip_client_flags(arguments: Sequence[str], environment: MutableMapping[str, str]) -> list[str]:
    """What is meant for layerlens of what the client passes; the client's own flags go into `environment`.

    ``--host``, ``--context``, ``--config`` and the TLS flags say which engine to talk to, and the environment
    variables of the same meaning say it to the engine source. As in the client, a flag beats a variable.
    Raises :class:`UsageError` for flags that cannot be honoured.
    """
    rest = list(arguments)
    said: dict[str, str] = {}
    while rest and rest[0].startswith("-") and rest[0] not in ("-h", "--help", "-v", "--version"):
        flag = rest.pop(0)
        name, value = _split_flag(flag)
        if name in _FLAGS:
            said[_FLAGS[name]] = "1" if value is None else value
        elif name in _FLAGS_WITH_VALUE:
            if value is None:
                if not rest:
                    raise UsageError(f"flag needs an argument: {flag}", "See `docker --help`.")
                value = rest.pop(0)
            said[_FLAGS_WITH_VALUE[name]] = value
        else:
            raise UsageError(f"no such flag of the docker client: {flag}", "See `docker --help`.")
    if rest[:2] == ["help", NAME]:  # docker help layerlens …
        rest = [*rest[2:], "--help"]
    elif rest and rest[0] == NAME:
        rest.pop(0)
    _honour(said, environment)
    if _is_true(said.get("debug")):
        rest.insert(0, "--debug")
    return rest or ["--help"]


def _split_flag(flag: str) -> tuple[str, str | None]:
    """A flag and the value glued to it, if any: ``--host=X``, ``-H=X``, ``-HX``."""
    if flag.startswith("--"):
        name, equals, value = flag.partition("=")
        return name, value if equals else None
    if len(flag) > 2 and flag[:2] in _FLAGS_WITH_VALUE:
        return flag[:2], flag[2:].removeprefix("=")
    name, equals, value = flag.partition("=")
    return name, value if equals else None


def _is_true(value: str | None) -> bool:
    return value is not None and value.lower() not in ("0", "f", "false")


def _honour(said: Mapping[str, str], environment: MutableMapping[str, str]) -> None:
    if "host" in said and "context" in said:
        raise UsageError("both --host and --context say which engine to use", "Give one of them.")
    if "config" in said:
        environment["DOCKER_CONFIG"] = said["config"]
    if "host" in said:
        environment["DOCKER_HOST"] = said["host"]
        environment.pop("DOCKER_CONTEXT", None)
    if "context" in said:
        environment["DOCKER_CONTEXT"] = said["context"]
        environment.pop("DOCKER_HOST", None)
    folders = set()
    for name, expected in _CERTIFICATES.items():
        if name in said:
            path = Path(said[name])
            if path.name != expected:
                raise UsageError(
                    f"--{name} names {path.name}, but certificates are found by folder",
                    "Put ca.pem, cert.pem and key.pem in one folder and set DOCKER_CERT_PATH to it.",
                )
            folders.add(str(path.parent))
    if len(folders) > 1:
        raise UsageError(
            "the TLS files lie in different folders",
            "Put ca.pem, cert.pem and key.pem in one folder and set DOCKER_CERT_PATH to it.",
        )
    if folders:
        environment["DOCKER_CERT_PATH"] = folders.pop()
    if _is_true(said.get("tlsverify")):
        environment["DOCKER_TLS_VERIFY"] = "1"
    elif _is_true(said.get("tls")):
        # docker-py reads a variable that is set and empty as "TLS, but do not verify the server"
        environment["DOCKER_TLS_VERIFY"] = ""


def link_path(environment: Mapping[str, str] | None = None) -> Path:
    """Where the client looks: ``$DOCKER_CONFIG/cli-plugins/docker-layerlens``, else in ``~/.docker``."""
    environment = os.environ if environment is None else environment
    config = environment.get("DOCKER_CONFIG")
    try:
        folder = Path(config) if config else Path.home() / ".docker"
    except RuntimeError as error:
        raise UsageError("there is no home directory", "Set DOCKER_CONFIG to the client's folder.") from error
    return folder / "cli-plugins" / EXECUTABLE


def executable() -> Path:
    """The installed ``docker-layerlens`` of this Python, or else the one on PATH."""
    import shutil
    import sysconfig

    folders = [
        Path(sys.argv[0]).parent,
        Path(sysconfig.get_path("scripts")),
        Path(sysconfig.get_path("scripts", sysconfig.get_preferred_scheme("user"))),
    ]
    for folder in folders:
        candidate = folder / EXECUTABLE
        if os.access(candidate, os.X_OK) and candidate.is_file():
            return candidate.absolute()
    found = shutil.which(EXECUTABLE)
    if found is None:
        raise LayerLensError(
            f"there is no {EXECUTABLE} beside this layerlens",
            "Install it with pip, pipx or uv, then try again.",
        )
    return Path(found).absolute()


def install(target: Path | None = None, link: Path | None = None) -> tuple[Path, Path]:
    """Link `target` into the client's plugin folder; doing it again changes nothing. Returns link, target.

    A link of ours, also one that leads nowhere any more, is replaced; anything else at that place is
    somebody's and raises :class:`UsageError`.
    """
    target = executable() if target is None else target
    link = link_path() if link is None else link
    if _occupied(link) and not _is_ours(link):
        raise UsageError(
            f"{link} exists and is not a link that layerlens made", "Move it away, then install again."
        )
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_symlink() and link.readlink() == target:
            return link, target
        beside = link.with_name(f".{EXECUTABLE}.{os.getpid()}")
        beside.symlink_to(target)
        try:
            beside.replace(link)
        except OSError:
            beside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise _cannot("link", link, error) from error
    return link, target


def remove(link: Path | None = None) -> Path | None:
    """Take our link away; returns it, or None where there was none. What is not ours stays (UsageError)."""
    link = link_path() if link is None else link
    if not _occupied(link):
        return None
    if not _is_ours(link):
        raise UsageError(
            f"{link} is not a link that layerlens made",
            "It was left as it is; remove it yourself if nobody needs it.",
        )
    try:
        link.unlink()
    except OSError as error:
        raise _cannot("remove", link, error) from error
    return link


def _occupied(link: Path) -> bool:
    return os.path.lexists(link)


def _is_ours(link: Path) -> bool:
    """A link to an executable of our name; it may be gone, as after its environment was deleted."""
    return link.is_symlink() and link.readlink().name == EXECUTABLE


def _cannot(verb: str, link: Path, error: OSError) -> LayerLensError:
    return LayerLensError(
        f"cannot {verb} {link}: {error.strerror or error}",
        "Make the folder writable, or set DOCKER_CONFIG to one that is.",
    )
