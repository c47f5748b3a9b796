"""DESIGN section 3's laws as properties, on random images and in every report that tests make of them."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from imagekit import (
    BuiltImage,
    Dir,
    File,
    Hardlink,
    Member,
    Symlink,
    docker_archive_25,
    docker_archive_old,
    image,
    layer,
    oci_layout,
    podman,
    sample,
    shuffled,
    tar_of,
)
from test_sources import comparable

import layerlens
from layerlens.categories import CATEGORIES
from layerlens.model import EntryType

NAMES = [
    "app",
    "src",
    "node_modules",
    "left-pad",
    "package.json",
    "index.js",
    "usr",
    "lib",
    "bin",
    "gcc",
    "include",
    "stdio.h",
    ".git",
    "test",
    "doc",
    "cache",
    ".cache",
    "x.so",
    "x.a",
    "id_rsa",
    "a\nb",
    "\x1b[31m",
    os.fsdecode(b"\xff"),
    "é",
]
COMPONENTS = st.one_of(st.sampled_from(NAMES), st.sampled_from("ab"))
PATHS = st.lists(COMPONENTS, min_size=1, max_size=5).map(lambda parts: "/" + "/".join(parts))
CONTENTS = st.one_of(
    st.binary(max_size=12), st.sampled_from([b"same content", b"{}", b'{"name":"x","version":"1"}'])
)


@st.composite
def layers(draw: st.DrawFn) -> bytes:
    """Anything at all: repeated paths, links to nowhere, paths below files, markers that contradict."""
    pairs: list[tuple[str, Member]] = []
    for path in draw(st.lists(PATHS, max_size=10)):
        kind = draw(st.sampled_from(["file", "file", "file", "dir", "symlink", "hardlink"]))
        mode = draw(st.sampled_from([0o644, 0o755]))
        if kind == "dir":
            pairs.append((path, Dir(mode=mode)))
        elif kind == "symlink":
            pairs.append((path, Symlink(draw(st.one_of(PATHS, st.just(".."), COMPONENTS)))))
        elif kind == "hardlink":
            names = [name for name, _ in pairs]
            pairs.append((path, Hardlink(draw(st.one_of(PATHS, st.sampled_from(names)) if names else PATHS))))
        else:
            pairs.append((path, File(draw(CONTENTS), mode=mode)))
    return layer(
        pairs,
        whiteouts=draw(st.lists(PATHS, max_size=3)),
        opaque=draw(st.lists(PATHS, max_size=2)),
        markers_first=draw(st.booleans()),
        form=draw(st.sampled_from(["pax", "gnu"])),
    )


def empty_or_line() -> st.SearchStrategy[Any]:
    return st.sampled_from(["RUN make", "COPY . /app", {"created_by": "ENV A=1", "empty_layer": True}, {}])


@st.composite
def images(draw: st.DrawFn) -> BuiltImage:
    found = draw(st.lists(layers(), min_size=1, max_size=4))
    history = draw(st.one_of(st.none(), st.just([]), st.lists(empty_or_line(), max_size=6)))
    return image(found, history=history)


def report_of(tree: Any) -> dict[str, Any]:
    with tempfile.NamedTemporaryFile(suffix=".tar") as out:
        out.write(tar_of(tree))
        out.flush()
        with layerlens.open_image(out.name) as opened:
            return opened.inspect().to_dict()


def conserved(report: dict[str, Any], built: BuiltImage) -> None:
    """Law 1, from the JSON alone and against the bytes that went in."""
    totals = report["totals"]
    assert totals["layer_bytes"] == totals["live_bytes"] + totals["shadowed_bytes"]
    assert sum(row["size_bytes"] for row in report["layers"]) == totals["layer_bytes"]
    assert sum(row["shadowed_bytes"] for row in report["layers"]) == totals["shadowed_bytes"]
    assert sum(row["entries"] for row in report["layers"]) == totals["entries"]
    assert sum(row["size_bytes"] for row in report["categories"]) == totals["live_bytes"]
    assert sum(row["files"] for row in report["categories"]) == totals["live_files"]
    assert len({row["name"] for row in report["categories"]}) == len(report["categories"])
    assert {row["name"] for row in report["categories"]} <= set(CATEGORIES)
    for row in report["layers"]:
        assert sum(row["categories"].values()) == row["size_bytes"] - row["shadowed_bytes"]
        assert 0 <= row["shadowed_bytes"] <= row["size_bytes"]
    sums: dict[str, int] = {}
    for row in report["layers"]:
        for name, size in row["categories"].items():
            sums[name] = sums.get(name, 0) + size
    assert {name: size for name, size in sums.items() if size} == {
        row["name"]: row["size_bytes"] for row in report["categories"] if row["size_bytes"]
    }
    assert sum(row["size_bytes"] for row in report["packages"]) <= totals["live_bytes"], "one owner at most"
    for row in report["paths"]:
        assert row["size_bytes"] <= totals["live_bytes"]
        assert row["category"] in CATEGORIES or row["category"] is None or row["size_bytes"] == 0
        assert all(0 <= number < len(built.layers) for number in row["layers"])
    waste = report["waste"]
    assert waste["shadowed_bytes"] == totals["shadowed_bytes"]
    assert sum(item["size_bytes"] for item in waste["items"]) == totals["shadowed_bytes"], (
        "all that is hidden is listed"
    )
    saved = sum(group["size_bytes"] * (len(group["paths"]) - 1) for group in waste["duplicates"])
    assert waste["duplicate_bytes"] == saved <= totals["live_bytes"]
    assert 0 <= waste["efficiency"] <= 1 and 0 <= waste["dive_efficiency"] <= 1
    if totals["layer_bytes"]:
        assert abs(waste["efficiency"] - totals["live_bytes"] / totals["layer_bytes"]) < 1e-6


@settings(max_examples=250)
@given(images())
def test_conservation(built: BuiltImage) -> None:
    conserved(report_of(docker_archive_25(built)), built)


@settings(max_examples=60)
@given(images(), st.integers(0, 5))
def test_determinism_across_sources(built: BuiltImage, seed: int) -> None:
    first = comparable(report_of(docker_archive_25(built)))
    for tree in (
        docker_archive_old(built),
        shuffled(podman(built), seed),
        oci_layout(built, compression="gzip", platforms=False),
        oci_layout(built, compression="zstd-frames", nested=1),
    ):
        assert comparable(report_of(tree)) == first


def test_the_laws_hold_of_the_sample() -> None:
    built = sample()
    report = report_of(docker_archive_25(built))
    conserved(report, built)
    categories = {row["name"] for row in report["categories"] if row["size_bytes"]}
    assert {"compilers", "headers", "package-cache", "vcs", "dependencies", "app"} <= categories


@settings(max_examples=100)
@given(images())
def test_every_path_has_one_explanation(built: BuiltImage) -> None:
    """Law 1 the other way round: from `ls` and `why`, path by path, to the totals."""
    with tempfile.NamedTemporaryFile(suffix=".tar") as out:
        out.write(tar_of(docker_archive_25(built)))
        out.flush()
        with layerlens.open_image(out.name) as opened:
            report = opened.inspect()
            total = 0
            by_category: dict[str, int] = {}
            by_layer = [0] * len(built.layers)
            seen: set[str] = set()
            for entry in opened.ls():
                assert entry.path not in seen
                seen.add(entry.path)
                why = opened.why(entry.path)
                assert (why.layer, why.type) == (entry.layer, entry.type)
                if entry.type == EntryType.FILE:
                    total += entry.size_bytes
                    assert why.size_bytes == entry.size_bytes
                    assert why.category in CATEGORIES
                    by_category[why.category] = by_category.get(why.category, 0) + entry.size_bytes
                    by_layer[entry.layer] += entry.size_bytes
                elif entry.type != EntryType.DIR:
                    assert entry.size_bytes == 0
            assert total == report.totals.live_bytes
            assert {name: size for name, size in by_category.items() if size} == {
                row.name: row.size_bytes for row in report.categories if row.size_bytes
            }
            if not opened.fs.inode:  # a payload whose own name is gone belongs to the layer that stores it
                assert by_layer == [row.size_bytes - row.shadowed_bytes for row in report.layers]


@settings(max_examples=60)
@given(images())
def test_json_is_plain_and_complete(built: BuiltImage) -> None:
    from layerlens.render import json as render

    with tempfile.NamedTemporaryFile(suffix=".tar") as out:
        out.write(tar_of(docker_archive_old(built)))
        out.flush()
        with layerlens.open_image(out.name) as opened:
            report = opened.inspect()
            text = render.dumps(report)
            text.encode("utf-8")
            document = json.loads(text)
            for entry in opened.ls():
                line = json.loads(render.ls_line(entry))
                assert line["path"].startswith("/")
    assert document == json.loads(json.dumps(report.to_dict()))
    assert list(document) == [
        "schema_version",
        "image",
        "totals",
        "layers",
        "categories",
        "packages",
        "paths",
        "waste",
        "recommendation",
        "diagnostics",
    ]


def integers_only(value: Any, path: str = "") -> None:
    """Law 7: sizes are integers."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key.endswith(("_bytes", "files", "entries")) and inner is not None:
                assert type(inner) is int, f"{path}.{key}"
            integers_only(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            integers_only(inner, f"{path}[{number}]")


def test_integer_bytes_inside() -> None:
    integers_only(report_of(docker_archive_25(sample())))


def test_the_image_is_data(tmp_path: Path) -> None:
    """Law 4: names that point outside are files of the image, and nothing on the host is made or read."""
    secret = tmp_path / "secret"
    secret.write_text("host")
    built = image(
        [
            layer(
                [
                    (f"../../../..{secret}", b"image"),
                    ("link", Symlink(str(secret))),
                    ("up", Symlink("../" * 20 + str(secret).lstrip("/"))),
                ],
                verbatim=True,
            )
        ]
    )
    before = sorted(tmp_path.rglob("*"))
    out = tmp_path / "i.tar"
    out.write_bytes(tar_of(docker_archive_25(built)))
    with layerlens.open_image(str(out)) as opened:
        opened.inspect()
        assert opened.fs.read("/link") == b"image"
        assert opened.fs.read("/up") == b"image"
    assert secret.read_text() == "host"
    assert sorted(tmp_path.rglob("*")) == sorted([*before, out])
