"""The table: fits its width, needs no colour, says everything, and obeys no name."""

from __future__ import annotations

import os
import re
from dataclasses import replace

import pytest
from reportkit import EVIL, Explanation, hostile, layer, report
from rich.cells import cell_len

from layerlens.model import Edge, Entry, EntryType
from layerlens.render import terminal
from layerlens.report import Totals

ANSI = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize("width", [60, 80, 100, 119, 120, 160, 200])
@pytest.mark.parametrize("made", [report(), hostile()], ids=["ordinary", "hostile"])
def test_fits_its_width(made: object, width: int) -> None:
    for line in terminal.report(made, width).splitlines():  # type: ignore[arg-type]
        assert cell_len(line) <= width, line


def test_uses_the_width_it_has() -> None:
    widest = {width: max(map(cell_len, terminal.report(report(), width).splitlines())) for width in (80, 160)}
    assert widest[80] > 70
    assert widest[160] > 140
    assert "--no-install-recommends g++ gcc make" in terminal.report(report(), 160)


def test_says_everything() -> None:
    text = terminal.report(report(), 160)
    for part in (
        "myapp:latest",
        "linux/amd64",
        "docker-entrypoint.sh node server.js",
        "as node",
        "in /app",
        "1.06 GB in 6 layers, 402 MB as blobs",
        "1.00 GB in 61,009 files",
        "59.2 MB shadowed",
        "RUN npm ci # with a comment",
        "(the history does not say)",
        "base",
        "yours",
        "/app/node_modules",
        "373 MB",
        "dpkg:gcc-12 12.2.0-14",
        "1-3,5",
        "typescript 66.0 MB",
        "efficiency 94.43 %",
        "dive's definition 99.91 %",
        "4 → 5",
        "RUN rm -rf /tmp/build",
        "/a/libx.so",
        "/b/libx.so",
        "1 warning, 1 info",
        "METADATA has no Version",
        "layerlens why myapp:latest /usr/lib/gcc",
    ):
        assert part in text, part
    assert "secrets" not in text  # an empty category


def test_colour_changes_nothing_but_colour() -> None:
    coloured = terminal.report(report(), 100, colour=True)
    assert ANSI.search(coloured)
    plain = [line.rstrip() for line in ANSI.sub("", coloured).splitlines()]
    assert plain == terminal.report(report(), 100).splitlines()


def test_without_colour_there_is_no_escape_sequence() -> None:
    assert "\x1b" not in terminal.report(report(), 80)


def test_the_environment_has_no_say(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = terminal.report(report(), 80)
    for name, value in {"COLUMNS": "30", "FORCE_COLOR": "1", "TERM": "dumb", "TTY_COMPATIBLE": "1"}.items():
        monkeypatch.setenv(name, value)
    assert terminal.report(report(), 80) == expected


def test_names_are_not_obeyed() -> None:
    text = ANSI.sub("", terminal.report(hostile(), 160, colour=True))
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u202e\ud800-\udfff]", text)
    assert "[red]" in text  # markup is text
    assert "\\x1b[31m" in text


def test_long_names_are_cut_in_the_middle() -> None:
    made = report()
    path = replace(made.paths[0], path="/start" + "/deep" * 50 + "/end.js")
    line = next(x for x in terminal.report(replace(made, paths=(path,)), 80).splitlines() if "end.js" in x)
    assert "/start" in line
    assert "…" in line


def test_bars() -> None:
    assert terminal.layer_bar(layer(0, 100), 100, 10) == "█" * 10
    assert terminal.layer_bar(layer(0, 50), 100, 10) == "█" * 5
    assert terminal.layer_bar(layer(0, 100, shadowed=100), 100, 10) == "░" * 10
    assert terminal.layer_bar(layer(0, 100, shadowed=50), 100, 10) == "█" * 5 + "░" * 5
    assert terminal.layer_bar(layer(0, 1), 10**9, 10) == "▏"
    assert terminal.layer_bar(layer(0, 0), 100, 10) == ""
    assert terminal.layer_bar(layer(0, 0), 0, 10) == ""


def test_an_image_of_nothing() -> None:
    made = report(
        totals=Totals(0, 0, 0, None, 0, 0), layers=(), categories=(), packages=(), paths=(), diagnostics=()
    )
    made = replace(
        made,
        image=replace(made.image, entrypoint=None, cmd=None, user=None, workdir=None, id=None, created=None),
        waste=replace(
            made.waste, items=(), duplicates=(), shadowed_bytes=0, duplicate_bytes=0, efficiency=1.0
        ),
    )
    text = terminal.report(made, 80)
    assert "0 B in 0 layers" in text
    assert "neither ENTRYPOINT nor CMD" in text
    assert "Next:" not in text


def test_ascii_only() -> None:
    text = terminal.plain_ascii(terminal.report(report(), 80))
    assert text.isascii()
    assert "4 -> 5" in text
    assert "####" in text


def _entry(path: str, kind: EntryType = EntryType.FILE, **more: object) -> Entry:
    values = {
        "size_bytes": 0,
        "mode": 0o644,
        "uid": 0,
        "gid": 0,
        "mtime": 0.0,
        "link_target": None,
        "layer": 0,
    }
    return Entry(path=path, type=kind, **{**values, **more})  # type: ignore[arg-type]


def test_ls() -> None:
    entries = [
        _entry("/bin", EntryType.SYMLINK, mode=0o777, link_target="usr/bin"),
        _entry("/usr", EntryType.DIR, mode=0o755),
        _entry("/usr/bin/sudo", size_bytes=232_416, mode=0o4755, uid=0, gid=1000, layer=12),
        _entry("/usr/bin/x", EntryType.HARDLINK, link_target="/usr/bin/sudo"),
        _entry("/dev/null", EntryType.CHAR, mode=0o666),
        _entry("/dev/sda", EntryType.BLOCK),
        _entry("/run/p", EntryType.FIFO),
        _entry("/old", EntryType.WHITEOUT, mode=0),
        _entry("/cache", EntryType.OPAQUE, mode=0),
    ]
    assert list(terminal.ls(entries)) == [
        "MODE            UID:GID     SIZE  LAYER  PATH",
        "lrwxrwxrwx          0:0      0 B      0  /bin → usr/bin",
        "drwxr-xr-x          0:0      0 B      0  /usr",
        "-rwsr-xr-x       0:1000   232 kB     12  /usr/bin/sudo",
        "hrw-r--r--          0:0      0 B      0  /usr/bin/x → /usr/bin/sudo",
        "crw-rw-rw-          0:0      0 B      0  /dev/null",
        "brw-r--r--          0:0      0 B      0  /dev/sda",
        "prw-r--r--          0:0      0 B      0  /run/p",
        "w---------          0:0      0 B      0  /old",
        "o---------          0:0      0 B      0  /cache",
    ]


def test_ls_escapes_and_bounds_names() -> None:
    lines = list(
        terminal.ls(
            [
                _entry("/" + EVIL, EntryType.SYMLINK, link_target=EVIL),
                _entry("/" + "x" * 1_000_000),
                _entry(os.fsdecode(b"/caf\xe9")),
            ]
        )
    )
    assert all(line.isprintable() for line in lines)
    assert len(lines[2]) < 5000
    assert lines[3].endswith("/caf\ufffd")


def test_why() -> None:
    text = terminal.why(Explanation(path="/usr/bin/" + EVIL, instruction=EVIL, package=EVIL), 80)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u202e]", text)
    text = terminal.why(Explanation(size_bytes=1234567), 80)
    for part in (
        "/usr/bin/gcc",
        "symlink",
        "1.23 MB (1,234,567 bytes)",
        "RUN apt-get install -y gcc",
        "dpkg:gcc 4:12.2.0-3",
        "compilers",
    ):
        assert part in text
    assert "verdict" not in text


def test_why_with_a_chain() -> None:
    edge = Edge("/app/x", "/lib/libz.so.1", "elf", "DT_NEEDED", "certain")
    text = terminal.why(Explanation(chain=(edge,)), 80)
    assert "Needed by" in text
    assert "/app/x → /lib/libz.so.1  elf, certain: DT_NEEDED" in text
