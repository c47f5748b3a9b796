"""What Jupyter shows: HTML that is only text and tables, and frames with the right dtypes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from typing import Any

import pytest
from reportkit import EVIL, Explanation, hostile, report

from layerlens.errors import LayerLensError, UsageError
from layerlens.model import Edge
from layerlens.render import notebook
from layerlens.report import Report

pd = pytest.importorskip("pandas")


ELEMENTS = frozenset(
    [
        "div",
        "style",
        "p",
        "span",
        "b",
        "i",
        "code",
        "details",
        "summary",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
    ]
)


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.seen: set[str] = set()
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes.update(name for name, _ in attrs)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def _read(html: str) -> _Tags:
    tags = _Tags()
    tags.feed(html)
    tags.close()
    assert tags.open == []
    return tags


def _image_html(made: Report) -> str:
    return notebook.image_html(made.image, made.instructions, [item.size_bytes for item in made.layers])


@pytest.mark.parametrize("made", [report(), hostile()], ids=["ordinary", "hostile"])
@pytest.mark.parametrize("render", [notebook.report_html, _image_html])
def test_html_is_tables_and_nothing_else(made: Report, render: Any) -> None:
    html = render(made)
    tags = _read(html)
    assert tags.seen <= ELEMENTS
    assert tags.attributes <= {"class", "style", "open"}
    for outside in ("http:", "https:", "url(", "@import", "<script", "javascript:"):
        assert outside not in html
    html.encode("utf-8")
    assert not any(c in html for c in "\x1b\x9b\u202e\u2028")


def test_html_says_what_the_report_says() -> None:
    text = _read(notebook.report_html(report())).text
    for part in (
        "myapp:latest",
        "1.06 GB in 6 layers, 402 MB as blobs",
        "Efficiency 94.43 %",
        "RUN npm ci # with a comment",
        "/app/node_modules",
        "gcc-12",
        "/tmp/build",
        "1 warning, 1 info",
    ):
        assert part in text


def test_image_html_shows_the_history_with_sizes() -> None:
    text = _read(_image_html(report())).text
    assert 'CMD ["bash"]' in text
    assert "512 MB" in text


def _edges(name: str, count: int) -> list[Edge]:
    return [
        Edge(f"/{n:03d}{name}", f"/{n:03d}{name}", f"kind{name}", f"says {name}", "likely")
        for n in range(count)
    ]


@pytest.mark.parametrize("name", ["plain", EVIL])
@pytest.mark.parametrize(("before", "after"), [(0, 0), (3, 1), (1, 40), (500, 500)])
def test_a_neighbourhood_is_drawn(name: str, before: int, after: int) -> None:
    edges = (_edges(name, before), _edges(name, after))
    told = Explanation(path=f"/{name}", chain=(*_edges(name, 1),), reason=f"because {name}", category=name)
    html = notebook.neighbourhood_html(told, *edges, {f"/000{name}": 5_000_000})
    tags = _read(html)
    assert tags.seen <= ELEMENTS | {"svg", "rect", "path", "text", "title"}
    assert not {one for one in tags.attributes if one.startswith("on") or "href" in one}
    for outside in ("http:", "https:", "url(", "@import", "<script", "javascript:"):
        assert outside not in html
    assert not any(c in html for c in "\x1b\x9b\u202e\u2028")
    html.encode("utf-8")
    assert html.count("<path ") == min(before, notebook.MOST_DRAWN) + min(after, notebook.MOST_DRAWN)
    for count in (before, after):
        if count > notebook.MOST_DRAWN:
            assert f"and {count - notebook.MOST_DRAWN:,} more" in tags.text
    if before:
        assert "5.00 MB" in tags.text
    assert "because " in tags.text


def test_both_themes_are_served() -> None:
    html = notebook.report_html(report())
    assert "prefers-color-scheme:dark" in html
    assert "--jp-layout-color0" in html
    assert "--jp-content-font-color1" in html


def test_an_image_of_nothing() -> None:
    made = report(layers=(), categories=(), packages=(), paths=(), diagnostics=())
    _read(notebook.report_html(made))
    _read(notebook.image_html(made.image, (), ()))


@dataclass(frozen=True, slots=True)
class _WithFiles(Report):
    """A report that can say its files, as the one of `layerlens.inspect` can."""

    def file_rows(self) -> Iterator[tuple[Any, ...]]:
        yield ("/bin", "symlink", 0, 0o777, 0, 0, 1_700_000_000.5, "os-base", None, None, 0, "usr/bin")
        yield ("/caf\udce9", "file", 12, 0o644, 0, 1000, -5.0, "app", "node:x 1.0", "node", 4, None)
        yield ("/far", "file", 2**40, 0o644, 2**40, 0, 1e300, "app", None, None, 4, None)


def _with_files() -> _WithFiles:
    made = report()
    return _WithFiles(**{name: getattr(made, name) for name in Report.__dataclass_fields__})


def _dtypes(frame: Any) -> dict[str, str]:
    return {name: str(dtype) for name, dtype in frame.dtypes.items()}


def test_files_frame() -> None:
    frame = notebook.to_frame(_with_files(), "files")
    assert tuple(frame.columns) == notebook.FILE_COLUMNS
    assert _dtypes(frame) == {
        "path": "object",
        "type": "category",
        "size_bytes": "int64",
        "mode": "int64",
        "uid": "int64",
        "gid": "int64",
        "mtime": "datetime64[ns, UTC]",
        "category": "category",
        "package": "object",
        "ecosystem": "category",
        "layer": "int64",
        "link_target": "object",
    }
    assert list(frame["path"]) == ["/bin", "/caf\ufffd", "/far"]
    assert frame["mtime"][0] == pd.Timestamp("2023-11-14T22:13:20.5Z")
    assert frame["mtime"][1] == pd.Timestamp("1969-12-31T23:59:55Z")
    assert pd.isna(frame["mtime"][2])
    assert frame["size_bytes"].sum() == 2**40 + 12
    assert list(frame["category"].cat.categories)[:2] == ["dependencies", "compilers"]
    assert frame["package"][0] is None


def test_files_frame_needs_the_image() -> None:
    with pytest.raises(UsageError) as caught:
        notebook.to_frame(report(), "files")
    assert "layerlens.inspect" in caught.value.hint


def test_layers_frame() -> None:
    frame = notebook.to_frame(report(), "layers")
    dtypes = _dtypes(frame)
    assert dtypes["index"] == dtypes["size_bytes"] == dtypes["shadowed_bytes"] == dtypes["entries"] == "int64"
    assert dtypes["compressed_bytes"] == "Int64"
    assert dtypes["from_base"] == "bool"
    assert len(frame) == 6
    by_category = frame.filter(like="categories.")
    assert all(dtype == "int64" for dtype in _dtypes(by_category).values())
    assert by_category.to_numpy().sum() == report().totals.live_bytes


def test_unknown_compressed_sizes_are_missing_values() -> None:
    made = report()
    made = replace(made, layers=tuple(replace(item, compressed_bytes=None) for item in made.layers))
    assert notebook.to_frame(made, "layers")["compressed_bytes"].isna().all()


def test_packages_frame() -> None:
    frame = notebook.to_frame(report(), "packages")
    assert _dtypes(frame) == {
        "ecosystem": "category",
        "name": "object",
        "version": "object",
        "size_bytes": "int64",
        "files": "int64",
        "needed": "boolean",
        "layer": "Int64",
        "location": "object",
    }
    assert frame.groupby("ecosystem", observed=True)["size_bytes"].sum()["dpkg"] == 115_000_000


def test_paths_and_waste_frames() -> None:
    paths = notebook.to_frame(report(), "paths")
    assert _dtypes(paths)["category"] == "category"
    assert paths["layers"][1] == [1, 2, 3, 5]
    waste = notebook.to_frame(report(), "waste")
    assert list(waste["kind"].cat.categories) == ["overwritten", "deleted", "metadata-only"]
    assert waste["size_bytes"].sum() == 59_201_000


@pytest.mark.parametrize("table", ["layers", "packages", "paths", "waste"])
def test_frames_of_hostile_and_of_empty_reports(table: str) -> None:
    frame = notebook.to_frame(hostile(), table)
    assert "\udce9" not in frame.to_csv()
    made = report(layers=(), categories=(), packages=(), paths=())
    empty = notebook.to_frame(replace(made, waste=replace(made.waste, items=())), table)
    assert len(empty) == 0
    assert _dtypes(empty)["size_bytes"] == "int64"


def test_no_such_table() -> None:
    with pytest.raises(UsageError) as caught:
        notebook.to_frame(report(), EVIL)
    assert "files, layers, packages" in caught.value.hint


def test_without_pandas_the_hint_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(LayerLensError) as caught:
        notebook.to_frame(report(), "layers")
    assert "layerlens-oci[notebook]" in caught.value.hint
