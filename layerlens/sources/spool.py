"""Bytes that can be read only once: kept on disk for as long as they are needed, and inflated on the way.

:func:`spool` puts a stream into a temporary file that has no name, so that nothing is left of it however the
process ends. :func:`open_inflated` reads a gzip or zstd stream as what was compressed, chosen by its first
bytes and not by anybody's word, with one rule more than the libraries below it have: a stream that ends
early, or has something else behind its end, is an error.

Formats: RFC 1952 (gzip), RFC 8878 (zstd).
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast

from layerlens.errors import InvalidImageError, SourceError, SpoolError

if TYPE_CHECKING:
    from layerlens.sources import PassedLayer, Progress
    from layerlens.sources.membersums import Following

Compression = Literal["none", "gzip", "zstd"]

GZIP_MAGIC = b"\x1f\x8b\x08"
"""ID1, ID2 and the only method there is, deflate (RFC 1952, section 2.3.1)."""
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
"""Magic_Number of a frame, little-endian 0xFD2FB528 (RFC 8878, section 3.1.1)."""
_OTHER_MAGIC = {
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x04\x22\x4d\x18": "lz4",
    b"LZIP": "lzip",
}

_CHUNK = 1 << 20
_ZEROS = bytes(_CHUNK)
_DISK_ERRORS = {
    errno.ENOSPC: "no space left",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than allowed there",
    errno.EROFS: "it is read-only",
    errno.EACCES: "no permission to write",
    errno.EPERM: "no permission to write",
    errno.ENOENT: "it does not exist",
    errno.ENOTDIR: "it is not a folder",
    errno.EIO: "the disk reports an error",
}


def compression_of(first_bytes: bytes) -> Compression:
    """How a stream that starts with ``first_bytes`` (at least four of them, if it has them) is compressed.

    A zstd stream may start with a skippable frame (RFC 8878, section 3.1.2). Raises InvalidImageError for
    the compressions that no container tool writes.
    """
    if first_bytes.startswith(GZIP_MAGIC):
        return "gzip"
    if first_bytes.startswith(ZSTD_MAGIC) or _is_skippable(first_bytes):
        return "zstd"
    for magic, name in _OTHER_MAGIC.items():
        if first_bytes.startswith(magic):
            raise InvalidImageError(
                f"compressed with {name}, which container images do not use",
                "Decompress it first, or compress it with gzip or zstd.",
            )
    return "none"


def _is_skippable(first_bytes: bytes) -> bool:
    return len(first_bytes) >= 4 and first_bytes[1:4] == b"\x2a\x4d\x18" and first_bytes[0] & 0xF0 == 0x50


# --- streams --------------------------------------------------------------------------------------------


class PushbackReader(io.RawIOBase):
    """A stream with bytes put back in front of it, that counts what was taken (``position``)."""

    def __init__(self, first_bytes: bytes, stream: BinaryIO) -> None:
        super().__init__()
        self._first = memoryview(first_bytes)
        self._stream = stream
        self._readinto: Callable[[Any], int | None] | None = getattr(stream, "readinto", None)
        self.position = 0

    def readable(self) -> bool:
        """Always: this is what it is for."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` as far as one read of the stream below gives; 0 at the end."""
        view = memoryview(buffer).cast("B")
        if len(self._first):
            count = min(len(view), len(self._first))
            view[:count] = self._first[:count]
            self._first = self._first[count:]
        elif self._readinto is not None:
            count = self._readinto(view) or 0
        else:
            piece = self._stream.read(len(view))
            count = len(piece)
            view[:count] = piece
        self.position += count
        return count

    def read(self, size: int | None = -1, /) -> bytes:
        """``size`` bytes, fewer only at the end; all of them with -1."""
        if size is None or size < 0:
            return self.readall()
        buffer = bytearray(size)
        count = fill(self, memoryview(buffer))
        del buffer[count:]
        return bytes(buffer)

    def close(self) -> None:
        """Close the stream below as well."""
        if not self.closed:
            self._stream.close()
        super().close()


class Chunks(io.RawIOBase):
    """An iterator of byte strings as a stream, that counts what was taken (``position``)."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        super().__init__()
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")
        self.position = 0

    def readable(self) -> bool:
        """Always: this is what it is for."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer``; less than its length only where the chunks end. What iterating raises passes."""
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view):
            if not len(self._rest):
                chunk = next(self._chunks, None)
                if chunk is None:
                    break
                self._rest = memoryview(chunk)
            count = min(len(view) - done, len(self._rest))
            view[done : done + count] = self._rest[:count]
            self._rest = self._rest[count:]
            done += count
        self.position += done
        return done

    def close(self) -> None:
        """Close the iterator as well, if it is a generator or else can be closed."""
        close = getattr(self._chunks, "close", None)
        if close is not None and not self.closed:
            close()
        super().close()


def fill(stream: io.RawIOBase, view: memoryview) -> int:
    """Read until ``view`` is full or the stream ends; the number of bytes read."""
    done = 0
    while done < len(view):
        count = stream.readinto(view[done:])
        if not count:
            break
        done += count
    return done


class InflatedReader(io.RawIOBase):
    """A compressed stream, read as what was compressed. Unseekable; ``read`` gives all it is asked for.

    ``compression`` says what it was, ``position`` the inflated bytes handed out and ``compressed_position``
    the stored bytes taken so far (read ahead by up to a megabyte).
    """

    compression: Compression = "none"

    def __init__(self, source: PushbackReader, what: str) -> None:
        super().__init__()
        self._source = source
        self._what = what
        self.position = 0

    @property
    def compressed_position(self) -> int:
        """Stored bytes taken so far."""
        return self._source.position

    def readable(self) -> bool:
        """Always: this is what it is for."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer``; less than its length only at the end of the stream.

        Raises InvalidImageError where the stream is damaged, cut off, or followed by something else.
        """
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view):
            count = self._inflate(view[done:])
            if not count:
                break
            done += count
        self.position += done
        return done

    def read(self, size: int | None = -1, /) -> bytes:
        """``size`` bytes, fewer only at the end; all of them with -1."""
        if size is None or size < 0:
            return self.readall()
        buffer = bytearray(size)
        count = self.readinto(buffer)
        if count < size:
            del buffer[count:]
        return bytes(buffer)

    def close(self) -> None:
        """Close the stream below as well."""
        if not self.closed:
            self._source.close()
        super().close()

    def _inflate(self, view: memoryview) -> int:
        """Some bytes into ``view``; 0 only at the end."""
        return self._source.readinto(view)

    def _damaged(self, detail: str) -> InvalidImageError:
        return InvalidImageError(
            f"{self._what}: {self.compression} stream damaged near byte {self._source.position:,}: {detail}",
            "Copy or export it again; `gzip -t` or `zstd -t` on the file should say the same.",
        )

    def _cut_off(self) -> InvalidImageError:
        return InvalidImageError(
            f"{self._what}: {self.compression} stream ends early, after byte {self._source.position:,}",
            "It is truncated: copy or export it again.",
        )


class GzipReader(InflatedReader):
    """gzip, one member after the other (RFC 1952, section 2.2), each verified against its CRC-32 and size.

    Zeros behind the last member are padding, as for gzip(1) and Python; anything else there is refused, as
    Go's compress/gzip, and so every engine, refuses it.
    """

    compression: Compression = "gzip"

    def __init__(self, source: PushbackReader, what: str) -> None:
        super().__init__(source, what)
        from isal import isal_zlib

        # The reader below isal's public IGzipFile, without a buffer's copy between it and the caller.
        self._members = isal_zlib._GzipReader(cast("BinaryIO", source), _CHUNK)
        self._error = cast("type[Exception]", isal_zlib.error)

    def _inflate(self, view: memoryview) -> int:
        try:
            return int(self._members.readinto(view))
        except EOFError as error:
            raise self._cut_off() from error
        except self._error as error:
            raise self._damaged(_library_words(error)) from error
        except OSError as error:
            if error.errno is not None:
                raise  # reading below failed, not inflating
            raise self._damaged(_library_words(error)) from error


class ZstdReader(InflatedReader):
    """zstd, one frame after the other, skippable frames skipped (RFC 8878, section 3.1)."""

    compression: Compression = "zstd"

    def __init__(self, source: PushbackReader, what: str) -> None:
        super().__init__(source, what)
        if sys.version_info >= (3, 14):  # pragma: no cover
            from compression import zstd
        else:
            from backports import zstd

        self._decompressor: Any = None
        self._zstd = zstd
        self._input = bytearray(_CHUNK // 4)
        self._rest = b""

    def _inflate(self, view: memoryview) -> int:
        while True:
            decompressor = self._decompressor
            if decompressor is None:
                data: bytes | memoryview = self._rest or self._more()
                self._rest = b""
                if not data:
                    return 0
                decompressor = self._decompressor = self._zstd.ZstdDecompressor()
            elif decompressor.needs_input:
                data = self._more()
                if not data:
                    raise self._cut_off()
            else:
                data = b""
            try:
                piece: bytes = decompressor.decompress(data, len(view))
            except self._zstd.ZstdError as error:
                raise self._damaged(_library_words(error)) from error
            if decompressor.eof:
                self._rest = decompressor.unused_data
                self._decompressor = None
            if piece:
                view[: len(piece)] = piece
                return len(piece)

    def _more(self) -> memoryview:
        count = self._source.readinto(self._input)
        return memoryview(self._input)[:count]


def _library_words(error: BaseException) -> str:
    return str(error).strip().rstrip(".") or type(error).__name__


def open_inflated(stream: BinaryIO, *, what: str = "stream") -> BinaryIO:
    """``stream`` from where it stands, inflated if it is gzip or zstd by its first bytes, else as it is.

    The result reads forward only, has ``readinto`` and ``compression`` (``none``, ``gzip`` or ``zstd``), and
    closes ``stream`` when closed. ``what`` names the stream in errors. Raises InvalidImageError, here or
    while reading, with the byte where a stream is damaged or ends.
    """
    first = read_fully(stream, 6)
    try:
        compression = compression_of(first)
    except InvalidImageError as error:
        raise InvalidImageError(f"{what}: {error}", error.hint) from None
    source = PushbackReader(first, stream)
    reader = {"none": InflatedReader, "gzip": GzipReader, "zstd": ZstdReader}[compression]
    return cast("BinaryIO", reader(source, what))


def read_fully(stream: BinaryIO, size: int) -> bytes:
    """``size`` bytes of a stream that may give fewer at a time; fewer only at its end."""
    pieces = b""
    while len(pieces) < size:
        piece = stream.read(size - len(pieces))
        if not piece:
            break
        pieces += piece
    return pieces


# --- spool ----------------------------------------------------------------------------------------------


class Spool(io.BufferedReader):
    """A file without a name that holds what passed by, and dies with its last descriptor."""

    digests: Mapping[tuple[int, int], str] = {}
    """Of an archive: ``sha256:…`` of members by their offset and size in bytes, as computed on the way."""
    passed: Mapping[tuple[int, int], PassedLayer] = {}
    """Of an archive: what is known of members by their offset and size in bytes, of which nothing was kept."""


def spool_folder() -> Path:
    """Where spools go: ``$TMPDIR`` if set, else ``/var/tmp`` (``/tmp`` is memory on many systems), else /tmp.

    Raises SpoolError where none can be written to.
    """
    named = os.environ.get("TMPDIR")
    if named:
        return Path(named)
    if os.name == "posix" and os.access("/var/tmp", os.W_OK | os.X_OK):  # noqa: S108
        return Path("/var/tmp")  # noqa: S108
    try:
        import tempfile  # it brings random numbers, which take as long to load as all of this module

        return Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise SpoolError("no folder for temporary files can be written to", _set_tmpdir(None)) from error


def spool(
    stream: BinaryIO,
    *,
    progress: Progress | None = None,
    expected: int | None = None,
    what: str = "keeping the image",
    following: Following | None = None,
) -> BinaryIO:
    """Read ``stream`` to its end into a temporary file without a name; the :class:`Spool`, open at its first byte.

    The file is gone once it is closed or the process ended, by whatever means. Runs of zeros become holes,
    so that they cost no disk. ``expected`` is the number of bytes where it is known or can be guessed, for
    ``progress`` and for errors only; ``what`` is what is being done, for both of them. Where the stream is an
    archive, ``following`` hashes its members meanwhile, on another core if there is one; it is finished here.

    Raises SpoolError where the folder cannot take the bytes; whatever reading ``stream`` raises passes.
    """
    with SpoolWriter(what, expected) as writer:
        try:
            size = _copy(stream, writer, progress, expected, what, following)
        finally:
            digests = following.finish() if following is not None else {}
        kept = writer.finish(size)
    kept.digests = digests
    return kept


class SpoolWriter:
    """Writes a :class:`Spool`; a context manager, which drops the file unless :meth:`finish` has handed it out.

    ``what`` is what is being done, and ``expected`` how many bytes are, where that is known: both for errors only.
    Every method raises SpoolError where the folder cannot take the bytes.
    """

    def __init__(self, what: str, expected: int | None) -> None:
        self._what = what
        self._expected = expected
        self._folder = spool_folder()
        self._descriptor = -1
        try:
            self._descriptor = _nameless_file(self._folder)
        except OSError as error:
            raise self._failed(error, 0) from error

    def __enter__(self) -> SpoolWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def write(self, piece: memoryview, offset: int) -> None:
        """Put ``piece`` at ``offset``; zeros become holes."""
        if piece == _ZEROS[: len(piece)]:
            return  # the last hole is made real by `finish`
        end = offset + len(piece)
        try:
            while len(piece):
                count = os.pwrite(self._descriptor, piece, offset)
                piece = piece[count:]
                offset += count
        except OSError as error:
            raise self._failed(error, end) from error

    def finish(self, size: int) -> Spool:
        """The file, of ``size`` bytes, open at its first one."""
        try:
            os.ftruncate(self._descriptor, size)
        except OSError as error:
            raise self._failed(error, size) from error
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        kept = Spool(cast("io.RawIOBase", io.FileIO(self._descriptor, "rb")))
        self._descriptor = -1
        return kept

    def _failed(self, error: OSError, needed: int) -> SpoolError:
        expected, folder = self._expected, self._folder
        reason = _DISK_ERRORS.get(error.errno or 0) or (error.strerror or str(error)).lower()
        needs = (
            f"about {expected:,}" if expected is not None and expected > needed else f"more than {needed:,}"
        )
        try:
            free = f"; {shutil.disk_usage(folder).free:,} are free"
        except OSError:
            free = ""
        return SpoolError(
            f"{self._what}: cannot write to {folder}: {reason} ({needs} bytes needed{free})",
            _set_tmpdir(folder),
        )


def _nameless_file(folder: Path) -> int:
    """A descriptor, open for reading and writing, of a file that no folder lists.

    O_TMPFILE where the system has it, so that not even a SIGKILL between two calls leaves a name behind;
    filesystems that lack it say EOPNOTSUPP, EISDIR or EINVAL (open(2), NFS and some overlays).
    """
    if hasattr(os, "O_TMPFILE"):
        try:
            return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
                raise
    import tempfile

    descriptor, name = tempfile.mkstemp(prefix="layerlens-", dir=folder)
    try:
        os.unlink(name)  # noqa: PTH108
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _copy(
    stream: BinaryIO,
    writer: SpoolWriter,
    progress: Progress | None,
    expected: int | None,
    what: str,
    following: Following | None,
) -> int:
    """Write all of ``stream``; the number of its bytes."""
    readinto: Callable[[Any], int | None] | None = getattr(stream, "readinto", None)
    whole = memoryview(bytearray(_CHUNK))
    written = 0
    while True:
        if following is not None:
            whole = following.buffer()
        if readinto is not None:
            count = readinto(whole) or 0
        else:
            read = stream.read(len(whole))
            count = len(read)
            whole[:count] = read
        if not count:
            return written
        writer.write(whole[:count], written)
        written += count
        if following is not None:
            following.passed(whole[:count], whole)
        if progress is not None:
            progress(what, written, expected)


def _set_tmpdir(folder: Path | None) -> str:
    other = "another folder" if folder is not None else "a folder"
    return f"Set TMPDIR to {other} on a disk with room for the whole image."


# --- files that can be read from anywhere ---------------------------------------------------------------


def seekable_plain(
    stream: BinaryIO,
    *,
    progress: Progress | None = None,
    what: str = "keeping the image",
    name: str = "stream",
) -> BinaryIO:
    """``stream`` as an uncompressed file for ``os.pread``: itself if it is that already, else a spool of it.

    A regular file that stands at its first byte and is not compressed is returned as it came; a pipe is
    spooled, and what is compressed as a whole is inflated into the spool. ``stream`` is closed if it is
    not what is returned. ``name`` is what errors call it, ``what`` what progress calls it.
    """
    if _is_regular(stream):
        first = os.pread(stream.fileno(), 6, 0)
        try:
            compression = compression_of(first)
        except InvalidImageError as error:
            raise InvalidImageError(f"{name}: {error}", error.hint) from None
        if compression == "none":
            return stream
    expected = os.fstat(stream.fileno()).st_size if _is_regular(stream) else None
    with stream:
        try:
            reader = cast("InflatedReader", open_inflated(stream, what=name))

            def forward(_label: str, done: int, _total: int | None) -> None:
                if progress is not None:
                    progress(what, done if expected is None else reader.compressed_position, expected)

            from layerlens.sources.membersums import Following

            return spool(
                cast("BinaryIO", reader), progress=progress and forward, what=what, following=Following()
            )
        except OSError as error:
            raise SourceError(
                f"cannot read {name}: {error.strerror or error}", "Check where it comes from."
            ) from error


def _is_regular(stream: BinaryIO) -> bool:
    """True for a regular file that stands at its first byte."""
    try:
        descriptor = stream.fileno()
        return stat.S_ISREG(os.fstat(descriptor).st_mode) and stream.tell() == 0
    except (OSError, ValueError, AttributeError):
        return False
