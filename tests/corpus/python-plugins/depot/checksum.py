"""The CRC of a file by zlib's own function, called through ctypes."""

from __future__ import annotations

import ctypes
import ctypes.util
from functools import cache
from pathlib import Path


@cache
def zlib() -> ctypes.CDLL:
    name = ctypes.util.find_library("z")
    if name is None:
        raise OSError("no zlib in this system")
    library = ctypes.CDLL(name)
    library.crc32.argtypes = [ctypes.c_ulong, ctypes.c_char_p, ctypes.c_uint]
    library.crc32.restype = ctypes.c_ulong
    return library


def crc32(path: Path) -> str:
    content = path.read_bytes()
    return f"{zlib().crc32(0, content, len(content)):08x}"
