"""ELF files from literals: sections with content, as little-endian 64-bit files (System V gABI 4.1, chapter 4)."""

from __future__ import annotations

import struct
from collections.abc import Mapping

BASE = 0x400000


def elf(sections: Mapping[str, bytes], *, machine: int = 62) -> bytes:
    """An ELF file with one loaded segment that holds the named sections, in order."""
    body = bytearray(64 + 56)
    names = bytearray(b"\0")
    rows = [bytes(64)]
    for name, content in (*sections.items(), (".shstrtab", b"")):
        body += bytes(-len(body) % 16)
        name_at = len(names)
        names += name.encode() + b"\0"
        content = bytes(names) if name == ".shstrtab" else content
        kind = 3 if name == ".shstrtab" else 1  # SHT_STRTAB, SHT_PROGBITS
        rows.append(
            struct.pack(
                "<IIQQQQIIQQ", name_at, kind, 2, BASE + len(body), len(body), len(content), 0, 0, 1, 0
            )
        )
        body += content
    body += bytes(-len(body) % 16)
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    fields = (2, machine, 1, BASE, 64, len(body), 0, 64, 56, 1, 64, len(rows), len(rows) - 1)
    body[:64] = header + struct.pack("<HHIQQQIHHHHHH", *fields)
    body[64:120] = struct.pack("<IIQQQQQQ", 1, 6, 0, BASE, BASE, len(body), len(body), 0x1000)
    return bytes(body) + b"".join(rows)
