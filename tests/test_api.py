"""The facade: what it returns, and that nothing is read before it is needed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import imagekit
import pytest
from imagekit import DIR, File, Hardlink, Symlink, layer

import layerlens
from layerlens.model import EntryType


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    built = imagekit.image(
        [
            layer(
                {
                    "/etc/": DIR,
                    "/etc/os-release": b"ID=x\n",
                    "/bin/": DIR,
                    "/bin/sh": File(data=b"#!", mode=0o755),
                }
            ),
            layer(
                {
                    "/app/": DIR,
                    "/app/a.py": b"print(1)\n",
                    "/app/b.py": Hardlink(target="/app/a.py"),
                    "/sh": Symlink(target="bin/sh"),
                },
                whiteouts=["/etc/os-release"],
            ),
        ]
    )
    path = tmp_path / "app.tar"
    path.write_bytes(imagekit.tar_of(imagekit.docker_archive_25(built)))
    return path


def test_the_laws_of_the_dictionary(archive: Path) -> None:
    with layerlens.open_image(str(archive)) as image:
        report = image.inspect()
        assert layerlens.inspect(image).to_dict() == report.to_dict()
    data = json.loads(json.dumps(report.to_dict()))
    totals = data["totals"]
    assert totals["layer_bytes"] == totals["live_bytes"] + totals["shadowed_bytes"] == 16
    assert sum(category["size_bytes"] for category in data["categories"]) == totals["live_bytes"]
    assert sum(row["size_bytes"] for row in data["layers"]) == totals["layer_bytes"]
    assert [row["index"] for row in data["layers"]] == [0, 1]
    assert data["recommendation"] is None
    assert data["waste"]["items"][0]["path"] == "/etc/os-release"


def test_ls_lists_the_squash_or_one_layer(archive: Path) -> None:
    with layerlens.open_image(str(archive)) as image:
        squash = {entry.path: entry for entry in image.ls()}
        assert list(squash) == sorted(squash)
        assert squash["/app/b.py"].type is EntryType.HARDLINK
        assert squash["/app/b.py"].link_target == "/app/a.py"
        assert "/etc/os-release" not in squash
        own = [(entry.path, entry.type.label) for entry in image.ls(layer=1)]
        assert ("/etc/os-release", "whiteout") in own
        assert [entry.path for entry in image.ls("/app")] == ["/app", "/app/a.py", "/app/b.py"]
        with pytest.raises(layerlens.UsageError):
            image.ls(layer=2)
        with pytest.raises(layerlens.PathNotFoundError):
            list(image.ls("/nowhere"))


def test_why_tells_layer_owner_and_category(archive: Path) -> None:
    with layerlens.open_image(str(archive)) as image:
        link = image.why("/app/b.py")
        assert (link.layer, link.size_bytes, link.category) == (1, 9, "app")
        folder = image.why("/app/")
        assert (folder.path, folder.type, folder.size_bytes) == ("/app", EntryType.DIR, 9)
        assert image.why("/").size_bytes == 11
        with pytest.raises(layerlens.PathNotFoundError) as caught:
            image.why("/etc/os-release")
        assert isinstance(caught.value, FileNotFoundError)


def test_a_report_outlives_its_image(archive: Path) -> None:
    report = layerlens.inspect(str(archive))
    frame = report.to_pandas("files")
    assert list(frame["path"]) == sorted(frame["path"])
    assert frame["size_bytes"].sum() == report.totals.live_bytes
    assert "<table" in report._repr_html_()


def test_opening_reads_no_layer(archive: Path) -> None:
    with layerlens.open_image(str(archive)) as image:
        assert image.platform.os == "linux"
        assert len(image.instructions) >= 2
        assert image._layers is None


def test_names_are_there_and_no_others() -> None:
    for name in layerlens.__all__:
        assert getattr(layerlens, name) is not None
    with pytest.raises(AttributeError):
        _ = layerlens.utils  # type: ignore[attr-defined]


def test_import_loads_nothing_heavy() -> None:
    code = (
        "import sys, layerlens; "
        "print(sorted({'docker', 'networkx', 'rich', 'typer', 'pandas', 'humanize'} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
