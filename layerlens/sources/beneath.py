"""Regular files beneath a folder, whatever the links in it say.

The folder holds an image's files, so that no name in it is to be trusted: every component of a path is opened by
itself, in the one before it, and never through a symbolic link (``openat`` with ``O_NOFOLLOW``: open(2)). What is
not a regular file is never read, and nothing waits for a fifo.
"""

from __future__ import annotations

import os
import stat
import threading
from collections import OrderedDict
from itertools import count
from pathlib import Path

from layerlens.errors import SourceError
from layerlens.model import ImagePath
from layerlens.sources import FileRange
from layerlens.sources.store import read_range

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_OPEN_FOLDERS = 256
"""Folders that stay open for the next file in them, of all layers together: a process may have 1,024 files."""
_KEPT_DEPTH = 24
"""Components down to which the folders on the way stay open as well."""
MAX_DEPTH = 2048
"""Components of a path; more than Linux takes at once (PATH_MAX is 4096 bytes)."""


class StorageError(SourceError):
    """An engine's storage is not as expected; whoever asked can fall back to the engine's export."""

    def __init__(self, message: str) -> None:
        super().__init__(
            message, "Export the image (docker or podman save -o app.tar …), and give ./app.tar."
        )


class _OpenFolders:
    """Descriptors of folders, by whose they are and their path; what was used longest ago is closed first."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._open: OrderedDict[tuple[int, str], int] = OrderedDict()

    def find(self, owner: int, path: str) -> int | None:
        """The descriptor, good for as long as the lock is held."""
        descriptor = self._open.get((owner, path))
        if descriptor is not None:
            self._open.move_to_end((owner, path))
        return descriptor

    def keep(self, owner: int, path: str, descriptor: int) -> None:
        """Take a descriptor over; may close others."""
        self._open[owner, path] = descriptor
        if len(self._open) > _OPEN_FOLDERS:
            os.close(self._open.popitem(last=False)[1])

    def drop(self, owner: int) -> None:
        """Close all of an owner's."""
        with self.lock:
            for key in [key for key in self._open if key[0] == owner]:
                os.close(self._open.pop(key))


_FOLDERS = _OpenFolders()
_OWNERS = count()


class Beneath:
    """The regular files beneath one folder, by their absolute, normal path in it. Threads may share it."""

    def __init__(self, folder: Path) -> None:
        """``folder`` itself is the host's, and may be reached through links; it is opened when it is needed."""
        self._folder = folder
        self._owner = next(_OWNERS)
        self._closed = False

    def read(self, path: ImagePath, size: int, offset: int, count: int) -> bytes:
        """``count`` bytes at ``offset`` of the file at ``path``, which must have ``size`` bytes.

        Raises StorageError where there is no such regular file, it has another size, or ends early.
        """
        try:
            descriptor = self._open(path)
            try:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode) or status.st_size != size:
                    raise StorageError(f"{self._folder}{path} is not the file of {size:,} bytes that it was")
                data = read_range(FileRange(descriptor, offset, count))
                if len(data) < count:
                    raise StorageError(f"{self._folder}{path} ends early")
                return data
            finally:
                os.close(descriptor)
        except (OSError, ValueError) as error:
            raise _unusable(f"{self._folder}{path}", error) from error

    def _open(self, path: ImagePath) -> int:
        parent, _, name = path.rpartition("/")
        with _FOLDERS.lock:
            folder = _FOLDERS.find(self._owner, parent)
            if folder is None:
                folder = self._enter(parent)
            return os.open(_raw(name), _FILE, dir_fd=folder)

    def _enter(self, path: str) -> int:
        """Open a folder, one component after the other from the nearest that is open, and keep it open."""
        if self._closed:
            raise StorageError(f"{self._folder} is closed")
        missing: list[str] = []
        known, at = path, None
        while known and at is None:
            known, _, name = known.rpartition("/")
            missing.append(name)
            at = _FOLDERS.find(self._owner, known)
        if len(missing) > MAX_DEPTH:
            raise StorageError(f"{self._folder}: a path of {len(missing):,} folders")
        if at is None:
            at = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            _FOLDERS.keep(self._owner, "", at)
        kept = True
        while missing:
            name = missing.pop()
            try:
                inner = os.open(_raw(name), _DIRECTORY, dir_fd=at)
            finally:
                if not kept:
                    os.close(at)
            known, at = f"{known}/{name}", inner
            kept = not missing or len(missing) < _KEPT_DEPTH
            if kept:
                _FOLDERS.keep(self._owner, known, at)
        return at

    def close(self) -> None:
        """Close the folders; calling it twice is fine."""
        self._closed = True
        _FOLDERS.drop(self._owner)


def open_file(path: Path) -> int:
    """A descriptor of a regular file of the host's, which may be reached through links and is never waited for.

    Raises OSError, and ValueError where it is not a regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError(f"{path} is not a file")
    return descriptor


def _raw(name: str) -> bytes:
    """A name as the bytes that it has in the image, whatever the locale."""
    if name in ("", ".", ".."):
        raise StorageError(f"{name!r} is not a file's name")
    return name.encode("utf-8", "surrogateescape")


def _unusable(what: object, error: OSError | ValueError) -> StorageError:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return StorageError(f"{what}: {reason or error}")
