"""Names made safe to show: a name out of an image may hold any byte but NUL, and some are attacks.

Control characters (ESC starts a terminal sequence, and so does U+009B alone), newlines, bidirectional
overrides (U+202E shows ``gpj.exe`` as ``exe.jpg``), invisible format characters and separators other than
the plain space become visible escapes such as ``\\x1b`` and ``\\u202e``, as `ls -b` shows them; bytes that
are not UTF-8 and lone surrogates become U+FFFD.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from layerlens.patterns import regex
from layerlens.report import display

ELLIPSIS = "…"
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_JSON_UNSAFE = regex("[\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


def terminal(text: str) -> str:
    """`text` on one line that moves no cursor, changes no colour and reads in the order it is stored."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _visible(c) for c in display(text))


def _visible(character: str) -> str:
    code = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def line(text: str) -> str:
    """An instruction on one line: runs of white space (here-documents have newlines) become one space."""
    return terminal(" ".join(text.split()))


def html(text: str) -> str:
    """`text` as HTML character data or a quoted attribute value, its control characters made visible."""
    safe = terminal(text)
    safe = safe.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return safe.replace('"', "&quot;").replace("'", "&#x27;")


def markdown(text: str, *, cell: bool = False) -> str:
    """`text` as a code span; in a table's `cell` bars take a backslash (GitHub Flavored Markdown, 4.10)."""
    safe = terminal(text)
    if cell:
        safe = safe.replace("|", "\\|")
    longest = max((len(run) for run in re.findall("`+", safe)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if safe.startswith("`") or safe.endswith("`") else ""
    return f"{fence}{pad}{safe}{pad}{fence}" if safe else ""


def json(document: str) -> str:
    """A JSON document that may be printed: what a terminal would obey becomes ``\\u009b`` and so on.

    Inside a JSON string that is the same value (RFC 8259, section 7), and outside strings there is none of
    it. Lone surrogates, which UTF-8 cannot hold, become U+FFFD.
    """
    if _is_plain(document):
        return document
    # Few lines have anything but ASCII, and looking for it is cheaper than looking at every character.
    lines = document.split("\n")
    return "\n".join(line if _is_plain(line) else _JSON_UNSAFE.sub(_json_escape, line) for line in lines)


def _is_plain(text: str) -> bool:
    return text.isascii() and "\x7f" not in text


def _json_escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return "\ufffd" if 0xD800 <= code <= 0xDFFF else f"\\u{code:04x}"


def middle(text: str, width: int, measure: Callable[[str], int] = len) -> str:
    """`text` in at most `width` columns, cut in the middle: both ends of a path say something."""
    if measure(text) <= width:
        return text
    if width <= 1:
        return ELLIPSIS[:width]
    tail = width // 2
    return _fit(text, width - 1 - tail, measure) + ELLIPSIS + _fit(text[::-1], tail, measure)[::-1]


def end(text: str, width: int, measure: Callable[[str], int] = len) -> str:
    """`text` in at most `width` columns, cut at its end: an instruction says most at its beginning."""
    if measure(text) <= width:
        return text
    return (_fit(text, width - 1, measure) + ELLIPSIS) if width > 0 else ""


def _fit(text: str, width: int, measure: Callable[[str], int]) -> str:
    """The longest beginning of `text` that fits; no more than `width` characters are looked at."""
    text = text[: max(width, 0)]
    while text and measure(text) > width:
        text = text[:-1]
    return text
