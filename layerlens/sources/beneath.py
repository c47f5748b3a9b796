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
from pathlib import Path

from layerlens.errors import SourceError
from layerlens.model import ImagePath

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_OPEN_FOLDERS = 64
"""Folders that stay open for the next file in them."""
MAX_DEPTH = 2048
"""Components of a path; more than Linux takes at once (PATH_MAX is 4096 bytes)."""


class StorageError(SourceError):
    """An engine's storage is not as expected; whoever asked can fall back to the engine's export."""

    def __init__(self, message: str) -> None:
        super().__init__(
            message, "Export the image (docker or podman save -o app.tar …), and give ./app.tar."
        )


class Beneath:
    """The regular files beneath one folder, by their absolute, normal path in it. Threads may share it."""

    def __init__(self, folder: Path) -> None:
        """Open ``folder`` itself, which is the host's and may be reached through links. Raises StorageError."""
        self._folder = folder
        try:
            self._root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (OSError, ValueError) as error:
            raise _unusable(folder, error) from error
        self._lock = threading.Lock()
        self._folders: OrderedDict[str, int] = OrderedDict()

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
                data = os.pread(descriptor, count, offset)
                while len(data) < count:
                    more = os.pread(descriptor, count - len(data), offset + len(data))
                    if not more:
                        raise StorageError(f"{self._folder}{path} ends early")
                    data += more
                return data
            finally:
                os.close(descriptor)
        except (OSError, ValueError) as error:
            raise _unusable(f"{self._folder}{path}", error) from error

    def _open(self, path: ImagePath) -> int:
        parent, _, name = path.rpartition("/")
        with self._lock:
            folder = self._folders.get(parent)
            if folder is None:
                folder = self._enter(parent)
            else:
                self._folders.move_to_end(parent)
            return os.open(_raw(name), _FILE, dir_fd=folder)

    def _enter(self, path: str) -> int:
        """Open a folder, one component after the other, and keep it open."""
        components = path.split("/")[1:]
        if self._root < 0 or len(components) > MAX_DEPTH:
            raise StorageError(f"{self._folder} is closed, or a path in it too deep")
        at = os.dup(self._root)
        try:
            for name in components:
                if name in ("", ".", ".."):
                    raise StorageError(f"{self._folder}: {path!r} is no normal path")
                inner = os.open(_raw(name), _DIRECTORY, dir_fd=at)
                os.close(at)
                at = inner
        except BaseException:
            os.close(at)
            raise
        self._folders[path] = at
        if len(self._folders) > _OPEN_FOLDERS:
            os.close(self._folders.popitem(last=False)[1])
        return at

    def close(self) -> None:
        """Close the folders; calling it twice is fine."""
        with self._lock:
            for descriptor in self._folders.values():
                os.close(descriptor)
            self._folders.clear()
            if self._root >= 0:
                os.close(self._root)
                self._root = -1


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
