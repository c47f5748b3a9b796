"""Which SOURCE string means what, and when two names mean the same image.

What looks like a path is a path, ``-`` is standard input, anything else a name that an engine is asked for;
``docker://``, ``podman://``, ``docker-archive:``, ``oci:`` and ``oci-archive:`` say it outright. The last
three are written as in containers-transports(5), so that what skopeo was told works here.
Nothing in this module touches a disk or an engine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from layerlens.errors import UsageError
from layerlens.patterns import regex

Kind = Literal["engine", "docker", "podman", "path", "stdin", "docker-archive", "oci", "oci-archive"]

_PATH_STARTS = ("/", "./", "../", "~")
_PATH_ENDS = (".tar", ".tar.gz", ".tgz", ".tar.zst")
_ENGINES: tuple[tuple[str, Kind], ...] = (("docker://", "docker"), ("podman://", "podman"))
_FILES: tuple[tuple[str, Kind], ...] = (
    ("docker-archive:", "docker-archive"),
    ("oci-archive:", "oci-archive"),
    ("oci:", "oci"),
)
_KNOWN = "a name (myapp:latest), a path (./app.tar), - (standard input), docker://NAME, podman://NAME, "
_KNOWN += "docker-archive:PATH[:NAME], oci:FOLDER[:NAME] or oci-archive:PATH[:NAME]"

# distribution/reference, regexp.go: a domain is told from a path component by a dot, a colon or "localhost".
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_HOST = r"\[[0-9a-fA-F:]+\]|[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?"
_DOMAIN = rf"(?:localhost|(?=[^/]*[.:A-Z])(?:{_HOST})(?::[0-9]+)?)"
_NAME = regex(
    rf"(?:(?P<domain>{_DOMAIN})/)?(?P<path>{_COMPONENT}(?:/{_COMPONENT})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?"
    r"(?:@(?P<digest>[A-Za-z][A-Za-z0-9]*(?:[+._-][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}))?"
)
_ID = regex(r"(?:sha256:)?[0-9a-f]{4,64}")


@dataclass(frozen=True, slots=True)
class Reference:
    """A SOURCE, understood.

    ``engine`` is a name for whichever engine has it, ``path`` a file or folder whose content says what it
    is. ``selector`` picks one image of several: a name as the archive or layout lists it, or ``@N`` for the
    one at index N (containers-transports(5)).
    """

    kind: Kind
    value: str
    """The name for an engine, or the path, with ``~`` still in it; empty for standard input."""
    selector: str | None
    text: str
    """The SOURCE as it was written."""

    @property
    def path(self) -> str:
        """``value`` as a path of this machine, ``~`` and ``~name`` replaced by the home folder."""
        return os.path.expanduser(self.value) if self.value.startswith("~") else self.value  # noqa: PTH111


def parse(source: str) -> Reference:
    """What ``source`` means. Raises UsageError where it can mean nothing."""
    if not source:
        raise UsageError("the SOURCE is empty", f"Give {_KNOWN}.")
    if "\0" in source:
        raise UsageError("the SOURCE contains a NUL character", f"Give {_KNOWN}.")
    if source == "-":
        return Reference("stdin", "", None, source)
    for prefix, kind in _ENGINES:
        if source.startswith(prefix):
            return Reference(kind, _engine_name(source[len(prefix) :], source), None, source)
    for prefix, kind in _FILES:
        if source.startswith(prefix):
            path, selector = split_selector(source[len(prefix) :])
            if not path:
                raise UsageError(f"{source!r} names no path", f"Write {prefix}PATH or {prefix}PATH:NAME.")
            return Reference(kind, path, selector, source)
    if source in (".", "..") or source.startswith(_PATH_STARTS) or source.endswith(_PATH_ENDS):
        return Reference("path", source, None, source)
    if re.match(r"[a-z][a-z0-9+.-]*://", source):
        raise UsageError(f"{source!r}: there is no such kind of source", f"Give {_KNOWN}.")
    return Reference("engine", source, None, source)


def split_selector(value: str, *, windows: bool = os.name == "nt") -> tuple[str, str | None]:
    r"""``PATH[:NAME]`` at its first colon, as skopeo does; on Windows not at the one behind the drive letter.

    (containers/image: docker/archive/transport.go and oci/internal/oci_util.go.) ``PATH:`` has no name.
    """
    drive = value[:2] if windows and re.match(r"[A-Za-z]:[\\/]", value) else ""
    path, _, selector = value[len(drive) :].partition(":")
    return drive + path, selector or None


def _engine_name(name: str, source: str) -> str:
    if not name:
        raise UsageError(
            f"{source!r} names no image", "Write the image's name behind it: docker://myapp:latest."
        )
    return name


# --- names that engines know ----------------------------------------------------------------------------


def is_id(name: str) -> bool:
    """True where ``name`` may be an image's ID, whole or its start (it may be a name as well: ``cafe``)."""
    return _ID.fullmatch(name) is not None


def is_valid_name(name: str) -> bool:
    """True for a name, with or without tag and digest, or an ID, by the grammar that the engines use."""
    return is_id(name) or _NAME.fullmatch(name) is not None


def split_tag(name: str) -> tuple[str, str] | None:
    """``(repository, tag)`` of a name that an image may be given, ``latest`` where it says none; None for any other.

    A digest or a whole ID cannot be given to an image (distribution/reference, normalize.go).
    """
    match = _NAME.fullmatch(name)
    if match is None or match["digest"] or re.fullmatch(r"(?:sha256:)?[0-9a-f]{64}", name):
        return None
    return (name[: match.start("tag") - 1], match["tag"]) if match["tag"] else (name, "latest")


def full_name(name: str) -> str:
    """The name with all that engines leave out: ``app`` → ``docker.io/library/app:latest``.

    distribution/reference, normalize.go. ``name`` comes back as it is where it is no valid name.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return name
    domain, path = match["domain"] or "docker.io", match["path"]
    if domain == "index.docker.io":
        domain = "docker.io"
    if domain == "docker.io" and "/" not in path:
        path = f"library/{path}"
    if match["digest"]:
        tag = f":{match['tag']}" if match["tag"] else ""
        return f"{domain}/{path}{tag}@{match['digest']}"
    return f"{domain}/{path}:{match['tag'] or 'latest'}"


def same_image(asked: str, listed: str) -> bool:
    """True where ``asked`` (``app``) names what is listed as ``listed`` (``docker.io/library/app:latest``).

    A name without a registry also fits ``localhost/…``, which is what podman and buildah make of it.
    """
    if asked == listed or full_name(asked) == full_name(listed):
        return True
    return has_no_registry(asked) and full_name(f"localhost/{asked}") == full_name(listed)


def has_no_registry(name: str) -> bool:
    """True for a name that does not say which registry it is from, as ``app`` or ``team/app:1``."""
    match = _NAME.fullmatch(name)
    return match is not None and match["domain"] is None


def near_matches(name: str, listed: Iterable[str], limit: int = 3) -> list[str]:
    """Listed names that somebody who wrote ``name`` may have meant, best first; never more than ``limit``.

    Other tags of the same repository come first, then what is spelled alike.
    """
    from difflib import SequenceMatcher

    asked = full_name(name)
    repository = asked.rpartition(":")[0]
    scored = []
    for candidate in sorted(set(listed)):
        whole = full_name(candidate)
        short = whole.removeprefix("docker.io/").removeprefix("library/").removeprefix("localhost/")
        mine = asked.removeprefix("docker.io/").removeprefix("library/").removeprefix("localhost/")
        alike = SequenceMatcher(None, mine, short).ratio()
        if whole.rpartition(":")[0] == repository:
            alike += 1
        else:
            names = mine.rpartition(":")[0], short.rpartition(":")[0]
            alike = max(alike, SequenceMatcher(None, *names).ratio() - 0.05)
        if alike >= 0.7:
            scored.append((-alike, candidate))
    return [candidate for _, candidate in sorted(scored)[:limit]]
