"""Names out of an image reach a terminal, Markdown, HTML and JSON only in a form that does nothing."""

from __future__ import annotations

import json
import os
import unicodedata
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from layerlens.render import escape

BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
ANY = st.text(alphabet=st.characters(exclude_categories=()), max_size=40)
"""Any text at all, lone surrogates too."""


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("/usr/bin/env", "/usr/bin/env"),
        ("naïve 世界 🎉.txt", "naïve 世界 🎉.txt"),
        ("a b", "a b"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("\x9b2J", "\\x9b2J"),
        ("a\nb\tc\rd\x00\x7f", "a\\nb\\tc\\rd\\x00\\x7f"),
        ("photo\u202egpj.exe", "photo\\u202egpj.exe"),
        ("a\u2028b\u200bc", "a\\u2028b\\u200bc"),
        ("\U000e0041", "\\U000e0041"),
        (os.fsdecode(b"caf\xe9"), "caf\ufffd"),
        ("\ud800\udfff", "\ufffd\ufffd"),
        ("[bold]x[/bold]", "[bold]x[/bold]"),
    ],
)
def test_terminal(name: str, shown: str) -> None:
    assert escape.terminal(name) == shown


@given(ANY)
def test_terminal_is_one_harmless_line(name: str) -> None:
    shown = escape.terminal(name)
    assert shown.isprintable()
    assert not set(shown) & set(BIDI)
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in shown)
    assert len(shown.splitlines()) <= 1
    shown.encode("utf-8")
    assert escape.terminal(shown) == shown


@given(st.text(alphabet=st.characters(categories=("L", "N", "P", "S", "Mn")), max_size=40))
def test_ordinary_names_are_left_alone(name: str) -> None:
    assert escape.terminal(name) == name


def test_line_folds_white_space() -> None:
    assert escape.line("RUN <<EOF\n  apt-get update\n\tnpm ci\nEOF") == "RUN <<EOF apt-get update npm ci EOF"


class _Seen(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attrs))

    def handle_data(self, data: str) -> None:
        self.text += data


@given(ANY)
def test_html_is_text_inside_an_element_and_an_attribute(name: str) -> None:
    seen = _Seen()
    seen.feed(
        f"<p>{escape.html(name)}</p><a title=\"{escape.html(name)}\"></a><a title='{escape.html(name)}'></a>"
    )
    seen.close()
    shown = escape.terminal(name)
    assert seen.text == shown
    assert seen.tags == [("p", []), ("a", [("title", shown)]), ("a", [("title", shown)])]


@pytest.mark.parametrize(
    ("name", "span"),
    [
        ("plain", "`plain`"),
        ("a`b", "``a`b``"),
        ("``", "``` `` ```"),
        ("`x", "`` `x ``"),
        ("<b>", "`<b>`"),
        ("", ""),
    ],
)
def test_markdown(name: str, span: str) -> None:
    assert escape.markdown(name) == span


def test_markdown_cell_keeps_its_bars() -> None:
    assert escape.markdown("a|b", cell=True) == "`a\\|b`"
    assert escape.markdown("a|b") == "`a|b`"


@given(ANY)
def test_json_keeps_the_value_and_moves_no_cursor(text: str) -> None:
    document = escape.json(json.dumps(text, ensure_ascii=False))
    document.encode("utf-8")
    assert not any(unicodedata.category(c) == "Cc" for c in document)
    assert not set(document) & set(BIDI)
    expected = "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)
    assert json.loads(document) == expected


def test_middle_keeps_both_ends() -> None:
    assert escape.middle("/usr/lib/python3/site-packages/x.py", 20) == "/usr/lib/…kages/x.py"
    assert escape.middle("short", 20) == "short"
    assert escape.middle("short", 1) == "…"
    assert escape.middle("short", 0) == ""
    assert escape.end("RUN apt-get update", 8) == "RUN apt…"


@given(st.text(max_size=60), st.integers(0, 30))
def test_cut_names_fit(name: str, width: int) -> None:
    shown = escape.terminal(name)
    assert cell_len(escape.middle(shown, width, cell_len)) <= width
    assert cell_len(escape.end(shown, width, cell_len)) <= width


def test_a_name_of_a_megabyte_is_cut_quickly() -> None:
    assert len(escape.middle("界" * 1_000_000, 80, cell_len)) == 40
