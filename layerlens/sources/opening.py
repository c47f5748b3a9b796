"""From a SOURCE string to an open source: ``open_source``, which ``layerlens.sources`` hands on.

What can be said of a path before a byte of it is read (missing, no permission, a folder that is no layout, a
device) is said here; what the bytes are is the readers' business. Each reader is loaded when it is needed.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from layerlens.errors import EngineError, ImageNotFoundError, InvalidImageError, SourceError
from layerlens.sources.references import Reference, parse
from layerlens.sources.spool import seekable_plain

if TYPE_CHECKING:
    from layerlens.cache import Cache
    from layerlens.model import Platform
    from layerlens.sources import Progress, Source
    from layerlens.sources.endpoints import EngineName


def open_source(
    source: str,
    *,
    platform: Platform | None = None,
    progress: Progress | None = None,
    stdin: BinaryIO | None = None,
    cache: Cache | None = None,
    meanwhile: Callable[[], object] | None = None,
) -> Source:
    """The image that ``source`` means, whatever the way in. The caller closes it.

    ``platform`` chooses among several, this machine's by default; ``progress`` hears of exports and spools;
    ``stdin`` is read for ``-`` in place of the process's standard input; ``cache`` knows images of engines;
    ``meanwhile``, which does what has to be done anyway, may be called while an engine prepares an export.

    Raises UsageError for what can mean nothing, a SourceError where the way in fails, and InvalidImageError
    where what is there is no image.
    """
    reference = parse(source)
    if reference.kind in ("engine", "docker", "podman"):
        return _from_engine(reference, platform, progress, cache, meanwhile)
    if reference.kind == "stdin":
        return _from_stdin(reference, platform, progress, stdin)
    return _from_path(reference, platform, progress)


def _from_engine(
    reference: Reference,
    platform: Platform | None,
    progress: Progress | None,
    cache: Cache | None,
    meanwhile: Callable[[], object] | None,
) -> Source:
    from layerlens.sources import docker_engine

    engines: dict[str, tuple[EngineName, ...]] = {
        "engine": ("docker", "podman"),
        "docker": ("docker",),
        "podman": ("podman",),
    }
    try:
        return docker_engine.open_engine(
            reference.value,
            reference=reference.text,
            engines=engines[reference.kind],
            platform=platform,
            progress=progress,
            cache=cache,
            meanwhile=meanwhile,
        )
    except (EngineError, ImageNotFoundError):
        if "podman" not in engines[reference.kind]:
            raise
        from layerlens.sources import containers_storage

        found = containers_storage.open_here(reference.value, reference.text, platform)
        if found is None:
            raise
        return found


def _from_stdin(
    reference: Reference, platform: Platform | None, progress: Progress | None, stdin: BinaryIO | None
) -> Source:
    if stdin is None:
        if sys.stdin is None or sys.stdin.closed:
            raise SourceError("standard input is closed", _STDIN_HINT)
        try:
            descriptor = os.dup(sys.stdin.fileno())
        except (OSError, io.UnsupportedOperation) as error:
            raise SourceError(f"standard input cannot be read: {error}", _STDIN_HINT) from error
        if os.isatty(descriptor):
            os.close(descriptor)
            raise SourceError("standard input is a terminal, not an image", _STDIN_HINT)
        stdin = cast("BinaryIO", io.FileIO(descriptor, "rb"))
    return _from_stream(stdin, reference, platform, progress, "standard input")


_STDIN_HINT = "Send an archive into it: docker save myapp:latest | layerlens inspect -"


def _from_path(reference: Reference, platform: Platform | None, progress: Progress | None) -> Source:
    path = Path(reference.path)
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise _cannot_open(reference, path, error) from error
    if stat.S_ISDIR(mode):
        return _from_folder(reference, path, platform)
    if reference.kind == "oci":
        raise InvalidImageError(
            f"{reference.path} is a file, and oci: is for folders",
            f"Write oci-archive:{path}, or just its path.",
        )
    if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
        raise InvalidImageError(
            f"{reference.path} is a device or a socket, not an image", "Give an archive or a folder."
        )
    try:
        # A pipe has a path in the shell's <(docker save …); a regular file is read by os.pread.
        stream = path.open("rb", buffering=0)
    except OSError as error:
        raise _cannot_open(reference, path, error) from error
    return _from_stream(cast("BinaryIO", stream), reference, platform, progress, reference.path)


def _from_folder(reference: Reference, path: Path, platform: Platform | None) -> Source:
    if reference.kind in ("docker-archive", "oci-archive"):
        raise InvalidImageError(
            f"{reference.path} is a folder, and {reference.kind}: is for archives",
            f"Write oci:{path}, or just its path.",
        )
    try:
        names = {child.name for child in path.iterdir()}
    except OSError as error:
        raise _cannot_open(reference, path, error) from error
    if not names & {"oci-layout", "index.json"}:
        if "manifest.json" in names:
            hint = f"It looks like an unpacked `docker save`: pack it again (tar -C {path} -cf app.tar .)."
        elif "Dockerfile" in names:
            hint = "It has a Dockerfile: build it (docker build -t app .) and give the image's name."
        else:
            hint = "Give an OCI layout's folder, an archive (docker save -o app.tar …) or an image's name."
        raise InvalidImageError(f"{reference.path} is a folder without an OCI layout in it", hint)
    from layerlens.sources import oci_layout

    return oci_layout.open_layout(path, reference.text, reference.selector, platform)


def _from_stream(
    stream: BinaryIO,
    reference: Reference,
    platform: Platform | None,
    progress: Progress | None,
    name: str,
) -> Source:
    from layerlens.sources import docker_archive

    file = seekable_plain(stream, progress=progress, what=f"reading {name}", name=name)
    try:
        return docker_archive.open_archive(
            file,
            reference.text,
            reference.selector,
            platform,
            kind=reference.kind,
            streamed=file is not stream,
        )
    except BaseException:
        file.close()
        raise


def _cannot_open(reference: Reference, path: Path, error: OSError | ValueError) -> SourceError:
    """What keeps a path from being opened, and what to do about it."""
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOENT, errno.ENOTDIR):
        hint = "Check the path" + _missing_part(path)
        if reference.selector is not None and os.path.lexists(f"{reference.path}:{reference.selector}"):
            hint = (
                f"{reference.kind}: cuts at the first colon, as skopeo does: give the path without a prefix "
                f"(./{reference.path}:{reference.selector})."
            )
        return ImageNotFoundError(f"{reference.path} does not exist", hint)
    if number in (errno.EACCES, errno.EPERM):
        return SourceError(
            f"{reference.path} cannot be read: permission denied", "Run as a user who may read it."
        )
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return SourceError(f"{reference.path} cannot be opened: {reason or error}", "Check the path.")


def _missing_part(path: Path) -> str:
    """How far the path exists, where it is a folder of it that is missing; and what is spelled alike."""
    parent = path.parent
    if not parent.is_dir():
        return f": the folder {parent} does not exist either."
    try:
        from difflib import get_close_matches

        near = get_close_matches(path.name, [child.name for child in parent.iterdir()], 1, 0.75)
    except OSError:
        near = []
    if near:
        return f"; did you mean {parent / near[0]}?"
    return f": there is nothing of that name in {'this folder' if str(parent) == '.' else parent}."
