"""Markdown: tables whose rows stay rows whatever the names hold."""

from __future__ import annotations

import re

import pytest
from markdown_it import MarkdownIt
from reportkit import hostile, report

from layerlens.render import markdown


def _tables(text: str) -> list[list[list[str]]]:
    """Every table as rows of cell contents, read by a Markdown parser."""
    tables: list[list[list[str]]] = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            tables[-1].append([])
        elif token.type == "inline" and tables and tables[-1] and token.level == 4:
            tables[-1][-1].append(
                "".join(child.content for child in token.children or [] if child.type != "html_inline")
            )
    return tables


def test_tables_are_read_back() -> None:
    text = markdown.report(report())
    layers, categories, paths, packages, waste, duplicates = _tables(text)
    assert [row[0] for row in layers] == ["#", "0", "1", "2", "3", "4", "5"]
    assert layers[5][4:] == ["yours", "RUN npm ci # with a comment"]
    assert categories[1] == ["dependencies", "500 MB", "49.8 %", "41,000"]
    assert paths[2] == ["/usr/lib/gcc", "312 MB", "compilers", "dpkg:gcc-12 12.2.0-14", "1-3,5"]
    assert packages[1][:4] == ["gcc-12", "12.2.0-14", "dpkg", "102 MB"]
    assert waste[1] == ["/tmp/build", "deleted", "58.0 MB", "4 → 5", "RUN rm -rf /tmp/build"]
    assert duplicates[1] == ["4.10 MB", "2", "/a/libx.so, /b/libx.so"]
    assert "efficiency 94.43 %" in text
    assert text.endswith("\n")


@pytest.mark.parametrize("made", [report(), hostile()], ids=["ordinary", "hostile"])
def test_every_row_has_the_cells_of_its_heading(made: object) -> None:
    for table in _tables(markdown.report(made)):  # type: ignore[arg-type]
        assert len({len(row) for row in table}) == 1


def test_no_name_becomes_html_or_a_control_character() -> None:
    text = markdown.report(hostile())
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u202e\ud800-\udfff]", text)
    rendered = MarkdownIt("commonmark").enable("table").render(text)
    assert "<script" not in rendered


def test_sections_without_rows_are_left_out() -> None:
    text = markdown.report(report(packages=(), paths=(), diagnostics=()))
    assert "## Packages" not in text
    assert "## Paths" not in text
    assert "Diagnostics" not in text
