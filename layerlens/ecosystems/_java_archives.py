"""Java archives: jar, war and ear files, read by ranges where they lie (JAR File Specification; APPNOTE.TXT 6.3.10).

An archive may lie about anything: directories of more than a few megabytes, entries that inflate to more than they
say, names of any kind. Whatever is wrong ends as :class:`BrokenArchive`, which never leaves this folder.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, cast

if TYPE_CHECKING:
    from zipfile import ZipFile

    from layerlens.filesystem import Filesystem
    from layerlens.model import ImagePath

MAX_DIRECTORY = 8 << 20
"""Bytes that are read at once: a directory of 100,000 entries has less."""
MAX_TEXT = 1 << 20
"""Bytes of a manifest or of a properties file that are read."""
MAX_NESTED = 64 << 20
"""Bytes of an archive inside an archive that is looked into."""
MAX_CLASSES = 96 << 20
"""Bytes of classes of one archive that are looked through, inflated."""
MAX_ENTRIES = 200_000

NESTED = ("BOOT-INF/lib/", "WEB-INF/lib/", "APP-INF/lib/", "lib/")
"""Where archives carry others: Spring Boot, Servlet 6.0 (10.5), Jakarta EE (8.2)."""


class BrokenArchive(Exception):  # noqa: N818 - never leaves this folder; its readers make a diagnostic of it
    """The file is no archive that can be read."""


class _Ranges(io.RawIOBase):
    """A file of the image as zipfile wants it: seekable, read by ranges, never much at once."""

    def __init__(self, fs: Filesystem, path: ImagePath) -> None:
        super().__init__()
        self._fs, self._path, self._at = fs, path, 0
        self._size = fs.size(path)

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move; before the start is an error, as for a file."""
        at = offset + (0, self._at, self._size)[whence]
        if at < 0:
            raise OSError("before the start of the file")
        self._at = at
        return at

    def tell(self) -> int:
        """Where the next read starts."""
        return self._at

    def read(self, size: int = -1) -> bytes:
        """At most ``MAX_DIRECTORY`` bytes; BrokenArchive where more are asked for."""
        size = self._size - self._at if size < 0 else min(size, self._size - self._at)
        if size > MAX_DIRECTORY:
            raise BrokenArchive(f"its directory has {size} bytes")
        data = self._fs.read_at(self._path, self._at, max(size, 0))
        self._at += len(data)
        return data


@dataclass
class Archive:
    """An opened archive: the names of its entries in order, and their contents on request."""

    file: ZipFile = field(repr=False)
    names: tuple[str, ...] = ()

    def text(self, name: str) -> str:
        """A small text of the archive; empty where it has none of that name or it cannot be read."""
        return self.content(name, MAX_TEXT).decode("utf-8", "replace")

    def content(self, name: str, limit: int) -> bytes:
        """At most ``limit`` bytes of an entry, whatever it says of its size; empty where it cannot be read."""
        try:
            with self.file.open(name) as stream:
                found = stream.read(limit)
        except Exception:
            return b""
        return found

    def manifest(self) -> dict[str, str]:
        """The main section of META-INF/MANIFEST.MF, names in lower case (JAR File Specification, "Manifest")."""
        name = next((name for name in self.names if name.upper() == "META-INF/MANIFEST.MF"), None)
        return parse_manifest(self.text(name)) if name else {}

    def modules(self) -> list[tuple[str, str, str]]:
        """(group, artifact, version) of each META-INF/maven/…/pom.properties (Maven Archiver)."""
        found: list[tuple[str, str, str]] = []
        for name in self.names:
            if name.startswith("META-INF/maven/") and name.endswith("/pom.properties"):
                values = parse_properties(self.text(name))
                if values.get("artifactId") and len(found) < 10_000:
                    found.append((values.get("groupId", ""), values["artifactId"], values.get("version", "")))
        return sorted(found)

    def nested(self, name: str) -> Archive:
        """An archive inside this one; BrokenArchive where it is none or too large."""
        content = self.content(name, MAX_NESTED + 1)
        if len(content) > MAX_NESTED:
            raise BrokenArchive(f"{name} has more than {MAX_NESTED} bytes")
        return _opened(io.BytesIO(content))

    def libraries(self) -> list[str]:
        """The archives inside, by name."""
        return sorted(name for name in self.names if name.endswith(".jar") and name.startswith(NESTED))

    def classes(self) -> Iterator[bytes]:
        """The contents of the classes, as far as ``MAX_CLASSES`` bytes go."""
        left = MAX_CLASSES
        for name in self.names:
            if name.endswith(".class") and left > 0:
                content = self.content(name, left)
                left -= len(content)
                yield content


def open_archive(fs: Filesystem, path: ImagePath) -> Archive:
    """The archive at ``path``; BrokenArchive where it cannot be read."""
    return _opened(cast(BinaryIO, _Ranges(fs, path)))


def _opened(stream: BinaryIO) -> Archive:
    from zipfile import ZipFile

    try:
        file = ZipFile(stream)
        names = file.namelist()
    except BrokenArchive:
        raise
    except Exception as error:
        raise BrokenArchive(str(error)) from None
    if len(names) > MAX_ENTRIES:
        raise BrokenArchive(f"it has {len(names)} entries")
    return Archive(file, tuple(names))


def parse_manifest(text: str) -> dict[str, str]:
    """The main section of a manifest; lines that start with a space go on with the one before."""
    found: dict[str, str] = {}
    main = re.split(r"\r?\n\r?\n", text.replace("\r\n", "\n").replace("\r", "\n"), maxsplit=1)[0]
    for line in main.replace("\n ", "").split("\n"):
        name, colon, value = line.partition(":")
        if colon:
            found.setdefault(name.strip().lower(), value.strip())
    return found


def parse_properties(text: str) -> dict[str, str]:
    """``key=value`` lines of a .properties file, without escapes and continuations, which Maven does not write."""
    found = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith(("#", "!")):
            found[name.strip()] = value.strip()
    return found
