"""What was read once, kept on disk: entries that are named by a digest and hold sections of bytes.

An entry is one file in one private folder. It is written beside its name and renamed over it, so that a reader, or
a process that is killed, never sees half of one; it says which version wrote it and carries a checksum of every
section, so that one that is damaged, of another version or under a wrong name is *no* entry, and is made anew.
No lock is needed: of two writers the later one wins, and both were right.

What an entry is called after must have been verified by the one who writes it: this module knows files, not images.

The folder must be the user's own, and nobody else's to write to; it is opened once and used by its descriptor.
Whatever goes wrong with it (it cannot be made, the disk is full) costs the speed and is a diagnostic, never an
error.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
import struct
import sys
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from layerlens import __version__
from layerlens.model import Diagnostic
from layerlens.patterns import regex

try:
    from isal.isal_zlib import crc32 as crc32  # RFC 1952's; fast also where zlib has no vector code
except ImportError:  # pragma: no cover - isal is a dependency, but the cache must not need it
    from zlib import crc32 as crc32

FORMAT = 1
"""Raised with every change to what entries mean."""
VERSION = f"{FORMAT} {__version__} {sys.byteorder} {array('I').itemsize}"
"""Columns lie in the machine's own byte order, so that it is part of the version."""
MAX_BYTES = 2 << 30
"""Bytes of all entries together; what was used longest ago goes first."""
DAMAGED = (OSError, ValueError, KeyError, IndexError, TypeError, RecursionError, OverflowError)
"""What reading an entry that is not what it claims may raise."""

_MAGIC = b"layerlens entry\n"
_FIXED = struct.Struct("<16sQII")
"""Magic; where the JSON head is, its length and its CRC-32. The sections lie between this and the head."""
_MAX_HEAD = 1 << 20
_HELD_BYTES = 8 << 20
"""Entries up to this size are read whole; the file of a larger one stays open, and MAX_BYTES bounds their number."""
_NAME = regex(r"(?:config|layer|reads|blob|report)-[0-9a-f]{40}\.entry", re.ASCII)
_UNFINISHED = regex(r"\.new-([0-9]+)-[0-9a-f]{16}", re.ASCII)
_UNFINISHED_AGE_S = 3600.0
_TAG_NAME = "CACHEDIR.TAG"
_TAG = b"Signature: 8a477f597d28d172789f06886806bc55\n# What layerlens read of images; `layerlens cache clear`.\n"
"""Tells backups to pass the folder over (Cache Directory Tagging Specification)."""

Found = TypeVar("Found")


class _UnwritableError(Exception):
    """The disk or the folder did not take what was written, and says why."""


class _SweptUpError(Exception):
    """Another process has removed the unfinished file, or the folder."""


@contextmanager
def _writing() -> Iterator[None]:
    """Tell what writing raises from what making the bytes to be written raises."""
    try:
        yield
    except FileNotFoundError as error:
        raise _SweptUpError from error
    except OSError as error:
        raise _UnwritableError((error.strerror or str(error)).lower()) from error


@dataclass(frozen=True, slots=True)
class Usage:
    """How much there is of something: files, and their bytes."""

    files: int
    size_bytes: int


class Entry:
    """One entry that was found: sections by name, each checked when it is read."""

    def __init__(self, descriptor: int, key: str) -> None:
        """Take over an open file. Raises ValueError or OSError where it is not an intact entry for ``key``."""
        self._descriptor = descriptor
        self._whole: bytes | None = None
        self._sections: dict[str, tuple[int, int, int]] = {}
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise ValueError("not a file of this user's")
        if status.st_size <= _HELD_BYTES:
            self._whole = _pread(descriptor, 0, status.st_size)
        magic, start, length, checksum = _FIXED.unpack(self._at(0, _FIXED.size))
        if magic != _MAGIC or length > _MAX_HEAD or start + length != status.st_size:
            raise ValueError("not an entry")
        head = self._at(start, length)
        if crc32(head) != checksum:
            raise ValueError("a damaged head")
        said = json.loads(head)
        if said["version"] != VERSION or said["key"] != key:
            raise ValueError("another version's, or another's")
        offset = _FIXED.size
        for name, size, crc in said["sections"]:
            self._sections[name] = (offset, size, crc)
            offset += size
        if offset != start:
            raise ValueError("sections of another length")
        if self._whole is not None:
            self.close()

    def section(self, name: str) -> bytes:
        """A section's bytes. Raises KeyError where there is none, ValueError where it is damaged."""
        offset, size, checksum = self._sections[name]
        data = self._at(offset, size)
        if crc32(data) != checksum:
            raise ValueError(f"the section {name} is damaged")
        return data

    def part(self, name: str, offset: int, size: int) -> bytes:
        """Bytes out of a section, not checked: the caller has checksums of parts.

        Raises KeyError where there is no such section, ValueError where it is shorter.
        """
        start, length, _ = self._sections[name]
        if offset < 0 or offset + size > length:
            raise ValueError("beyond the section's end")
        return self._at(start + offset, size)

    def _at(self, offset: int, size: int) -> bytes:
        if self._whole is not None:
            data = self._whole[offset : offset + size]
        else:
            data = _pread(self._descriptor, offset, size)
        if len(data) != size:
            raise ValueError("cut short")
        return data

    def close(self) -> None:
        """Close the file; what was read whole stays readable."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Cache:
    """The entries in one folder. Nothing is opened, and nothing made, before it is first needed."""

    def __init__(self, folder: Path | None = None, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder
        self.max_bytes = max_bytes
        self.diagnostics: list[Diagnostic] = []
        """What keeps it from being used, once."""
        self._descriptor = -1
        self._broken = False
        self._grown = False

    @property
    def folder(self) -> Path:
        """Where the entries are; the default is looked for when it is first needed."""
        if self._folder is None:
            self._folder = default_folder()
        return self._folder

    # -- entries -------------------------------------------------------------------------------------------

    def find(self, kind: str, key: str) -> Entry | None:
        """The entry of that kind for that key, marked as used now; None where there is no intact one."""
        folder = self._open(make=False)
        if folder is None:
            return None
        try:
            descriptor = os.open(
                _name(kind, key), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder
            )
        except OSError:
            return None
        try:
            entry = Entry(descriptor, key)
        except (OSError, ValueError, KeyError, TypeError, RecursionError, struct.error):
            os.close(descriptor)
            return None
        self._touch(_name(kind, key), folder)
        return entry

    def read(self, kind: str, key: str, understood: Callable[[Entry], Found]) -> Found | None:
        """What ``understood`` makes of the entry of that kind for that key; None where there is no intact one.

        An entry that it fails on with one of ``DAMAGED`` is dropped.
        """
        entry = self.find(kind, key)
        if entry is None:
            return None
        try:
            return understood(entry)
        except DAMAGED:
            self.forget(kind, key)
            return None
        finally:
            entry.close()

    @staticmethod
    def _touch(name: str, folder: int) -> None:
        try:
            os.utime(name, dir_fd=folder, follow_symlinks=False)
        except OSError:
            pass  # a folder that may only be read still serves

    def store(self, kind: str, key: str, sections: Mapping[str, Iterable[bytes]]) -> bool:
        """Write an entry, each section in pieces, one section after the other; whether it is there now.

        What iterating over a section raises passes, and nothing is written then.
        """
        folder = self._open(make=True)
        if folder is None:
            return False
        beside = f".new-{os.getpid()}-{os.urandom(8).hex()}"
        stored = False
        try:
            with _writing():
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                file = os.fdopen(os.open(beside, flags, 0o600, dir_fd=folder), "wb")
            try:
                whole = self._write(file, key, sections)
            finally:
                with _writing():
                    file.close()
            if whole:
                with _writing():
                    os.rename(beside, _name(kind, key), src_dir_fd=folder, dst_dir_fd=folder)
                self._grown = stored = True
        except _SweptUpError:
            return False
        except _UnwritableError as error:
            self._unlink(folder, beside)
            self._give_up(f"cannot be written: {error}")
        except BaseException:
            self._unlink(folder, beside)
            raise
        else:
            if not stored:
                self._unlink(folder, beside)
        return stored

    def _write(self, file: BinaryIO, key: str, sections: Mapping[str, Iterable[bytes]]) -> bool:
        """The sections, then the head that lists them; False where they are too large to be kept."""
        listed = []
        with _writing():
            file.write(bytes(_FIXED.size))
        start = _FIXED.size
        for name, pieces in sections.items():
            size = checksum = 0
            for piece in pieces:
                size += len(piece)
                checksum = crc32(piece, checksum)
                if start + size > self.max_bytes // 2:
                    return False  # it would push out all the others
                with _writing():
                    file.write(piece)
            listed.append([name, size, checksum])
            start += size
        head = json.dumps({"version": VERSION, "key": key, "sections": listed}).encode()
        with _writing():
            file.write(head)
            file.seek(0)
            file.write(_FIXED.pack(_MAGIC, start, len(head), crc32(head)))
            file.flush()
        return len(head) <= _MAX_HEAD

    def forget(self, kind: str, key: str) -> None:
        """Drop an entry that turned out to be damaged."""
        folder = self._open(make=False)
        if folder is not None:
            self._unlink(folder, _name(kind, key))

    # -- the whole -----------------------------------------------------------------------------------------

    def usage(self) -> Usage:
        """What is there, unfinished files of processes that were killed included."""
        found = self._files()
        return Usage(len(found), sum(size for _, size, _ in found))

    def clear(self) -> Usage:
        """Remove every entry; what was removed. Files that are not ours stay, and those that are being written."""
        folder = self._open(make=False)
        removed = [
            size
            for used_s, size, name in self._files()
            if folder is not None and not _is_in_use(name, used_s) and self._unlink(folder, name)
        ]
        return Usage(len(removed), sum(removed))

    def close(self) -> None:
        """Make room where this process has written, and let the folder go; calling it twice is fine."""
        if self._grown:
            self._grown = False
            self._trim()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _trim(self) -> None:
        """Remove what killed processes left, then what was used longest ago until the rest fits."""
        folder = self._open(make=False)
        if folder is None:
            return
        found = self._files()
        kept = []
        for used_s, size, name in found:
            if _UNFINISHED.fullmatch(name) and not _is_in_use(name, used_s):
                self._unlink(folder, name)
            else:
                kept.append((used_s, size, name))
        total = sum(size for _, size, _ in kept)
        for _, size, name in sorted(kept):
            if total <= self.max_bytes:
                return
            if _NAME.fullmatch(name) and self._unlink(folder, name):
                total -= size

    def _files(self) -> list[tuple[float, int, str]]:
        """(last used, bytes, name) of everything here that is ours."""
        folder = self._open(make=False)
        if folder is None:
            return []
        found = []
        try:
            with os.scandir(folder) as listing:
                for item in listing:
                    if _NAME.fullmatch(item.name) or _UNFINISHED.fullmatch(item.name):
                        try:
                            status = item.stat(follow_symlinks=False)
                        except OSError:
                            continue  # another process has just removed it
                        found.append((status.st_mtime, status.st_size, item.name))
        except OSError as error:
            self._give_up(f"cannot be listed: {(error.strerror or str(error)).lower()}")
        return found

    @staticmethod
    def _unlink(folder: int, name: str) -> bool:
        try:
            os.unlink(name, dir_fd=folder)
        except OSError:
            return False
        return True

    # -- the folder ----------------------------------------------------------------------------------------

    def _open(self, *, make: bool) -> int | None:
        """The folder's descriptor; None where it is not there, or must not be used."""
        if self._descriptor >= 0:
            return self._descriptor
        if self._broken:
            return None
        try:
            refusal = _foreign_link(self.folder)
            if refusal is None and make and not self.folder.is_dir():
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if refusal is None:
                descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                refusal = _foreign_folder(descriptor)
                if refusal is None:
                    self._descriptor = descriptor
                    if make:
                        self._mark(descriptor)
                    return descriptor
                os.close(descriptor)
        except FileNotFoundError:
            if not make:
                return None  # nothing was ever written
            refusal = "cannot be made"
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else None
            refusal = f"cannot be used: {(reason or str(error)).lower()}"
        self._give_up(refusal)
        return None

    def _mark(self, folder: int) -> None:
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(_TAG_NAME, flags, 0o600, dir_fd=folder)
        except OSError:
            return  # it is there already, or the first entry will say what is wrong
        with os.fdopen(descriptor, "wb") as file:
            file.write(_TAG)

    def _give_up(self, reason: str) -> None:
        """Use it no more, and say why once."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._broken = True
        self._grown = False
        self.diagnostics.append(
            Diagnostic("info", "cache-not-used", f"the cache folder {self.folder} {reason}")
        )


def default_folder() -> Path:
    """``LAYERLENS_CACHE_DIR``, else the folder that the system has for such things (XDG_CACHE_HOME …)."""
    named = os.environ.get("LAYERLENS_CACHE_DIR")
    if named:
        return Path(named).absolute()
    from platformdirs import user_cache_path  # twenty milliseconds that a named folder saves

    return user_cache_path("layerlens")


def _name(kind: str, key: str) -> str:
    return f"{kind}-{hashlib.sha256(f'{kind} {key}'.encode()).hexdigest()[:40]}.entry"


def _pread(descriptor: int, offset: int, size: int) -> bytes:
    data = os.pread(descriptor, size, offset)
    while len(data) < size:
        more = os.pread(descriptor, size - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


def _is_in_use(name: str, written_s: float) -> bool:
    """Whether a file is unfinished and somebody still writes to it: its process lives, and it is not old.

    In another PID namespace the answer may be wrong; that process then finds it gone, and merely keeps nothing.
    """
    unfinished = _UNFINISHED.fullmatch(name)
    if unfinished is None or time.time() - written_s > _UNFINISHED_AGE_S:
        return False
    try:
        os.kill(int(unfinished[1]), 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _foreign_link(folder: Path) -> str | None:
    """Why the way to the folder cannot be trusted: a symbolic link in it that another user has set."""
    for place in (*reversed(folder.parents), folder):
        try:
            status = os.lstat(place)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return None
            raise
        if stat.S_ISLNK(status.st_mode) and status.st_uid not in (0, os.geteuid()):
            return f"is not used: the link {place} is another user's"
    return None


def _foreign_folder(descriptor: int) -> str | None:
    """Why the folder must not be used: others own it, or may write to it."""
    status = os.fstat(descriptor)
    if status.st_uid != os.geteuid():
        return "is not used: it is another user's"
    if status.st_mode & 0o022:
        return "is not used: others may write to it (chmod 700)"
    return None
