"""Law 3: one image, every form in which images travel, one report."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from conftest import CommandLine
from imagekit import (
    BuiltImage,
    Way,
    compress,
    containerd_save,
    docker_archive_25,
    docker_archive_old,
    foreign,
    image,
    kaniko,
    layer,
    oci_layout,
    other,
    podman,
    sample,
    tar_of,
    ways,
    write_folder,
)

import layerlens
from layerlens.errors import AmbiguousImageError, InvalidImageError, PlatformError

BUILT = sample()
STORED = 0
for data in BUILT.layers:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        STORED += sum(member.size for member in tar if member.isreg())
WAYS = {way.name: way for way in ways()}


def comparable(report: dict[str, Any]) -> dict[str, Any]:
    """The report without what law 3 lets differ."""
    report = json.loads(json.dumps(report))
    for key in ("id", "reference"):
        report["image"].pop(key)
    report["totals"].pop("compressed_bytes")
    report.pop("diagnostics")
    for row in report["layers"]:
        row.pop("digest")
        row.pop("compressed_bytes")
    return report


def report_of(source: str, **options: Any) -> dict[str, Any]:
    with layerlens.open_image(source, **options) as opened:
        return opened.inspect().to_dict()


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The report of the plainest form, with figures that are known from the literals."""
    path = tmp_path_factory.mktemp("plain") / "image.tar"
    path.write_bytes(tar_of(docker_archive_old(BUILT)))
    report = report_of(str(path))
    assert report["totals"]["layer_bytes"] == STORED
    assert [row["diff_id"] for row in report["layers"]] == BUILT.diff_ids
    assert report["image"]["entrypoint"] == ["/bin/app"]
    assert {"hello", "six", "left-pad"} <= {row["name"] for row in report["packages"]}
    assert {row["kind"] for row in report["waste"]["items"]} == {"overwritten", "deleted", "metadata-only"}
    return comparable(report)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_every_way_in_gives_the_same_report(
    way: Way, expected: dict[str, Any], tmp_path: Path, cli: CommandLine
) -> None:
    source = way.write(BUILT, tmp_path)
    if way.stdin:
        run = cli("inspect", "-", "--format", "json", "--platform", "linux/amd64", stdin=Path(source))
        assert run.status == 0, run.stderr
        report = json.loads(run.stdout)
        assert run.left == ()
    else:
        source = source if source.endswith((".tar", ".tar.gz", ".tgz", ".tar.zst")) else f"./{source}"
        report = report_of(source.removeprefix("./"), platform="linux/amd64")
    assert comparable(report) == expected


def test_twice_is_byte_identical(tmp_path: Path, cli: CommandLine) -> None:
    (tmp_path / "i.tar").write_bytes(tar_of(docker_archive_25(BUILT)))
    runs = [
        cli("inspect", tmp_path / "i.tar", "--format", "json", env={"PYTHONHASHSEED": seed}) for seed in "012"
    ]
    assert runs[0].status == 0 and runs[0].stdout
    assert {run.stdout for run in runs} == {runs[0].stdout}


@pytest.mark.parametrize("how", ["gzip", "zstd"])
def test_digests_and_sizes_are_the_blobs(how: Any, tmp_path: Path) -> None:
    """What law 3 lets differ is right all the same."""
    blobs = [compress(data, how) for data in BUILT.layers]
    write_folder(oci_layout(BUILT, compression=how), tmp_path / "l")
    report = report_of(f"oci:{tmp_path / 'l'}", platform="linux/amd64")
    assert [row["compressed_bytes"] for row in report["layers"]] == [len(blob) for blob in blobs]
    assert report["totals"]["compressed_bytes"] == sum(len(blob) for blob in blobs)
    assert [row["diff_id"] for row in report["layers"]] == BUILT.diff_ids
    assert all(row["digest"] != row["diff_id"] for row in report["layers"])


MANY = {
    "docker-old": docker_archive_old,
    "docker-25": docker_archive_25,
    "kaniko": kaniko,
    "podman": podman,
    "oci": oci_layout,
}


@pytest.mark.parametrize("name", MANY)
def test_several_images_ask_which(name: str, expected: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "many.tar"
    path.write_bytes(tar_of(MANY[name](other("first:1"), BUILT, other("third:latest"))))
    with pytest.raises(AmbiguousImageError) as caught:
        report_of(str(path), platform="linux/amd64")
    said = f"{caught.value} {caught.value.hint}"
    assert all(tag in said for tag in ("first:1", "kit:latest", "third:latest"))
    scheme = "oci-archive" if name == "oci" else "docker-archive"
    for selector in ("kit:latest", "@1"):
        assert comparable(report_of(f"{scheme}:{path}:{selector}", platform="linux/amd64")) == expected


def test_the_platform_is_chosen_and_the_missing_one_named(tmp_path: Path) -> None:
    path = tmp_path / "i.tar"
    arm = foreign(BUILT, "arm64")
    path.write_bytes(tar_of(oci_layout(BUILT, arm, attestations=True)))
    assert report_of(str(path), platform="linux/arm64")["layers"][0]["diff_id"] == arm.diff_ids[0]
    assert report_of(str(path), platform="linux/amd64")["layers"][0]["diff_id"] == BUILT.diff_ids[0]
    with pytest.raises(PlatformError) as caught:
        report_of(str(path), platform="linux/riscv64")
    said = f"{caught.value} {caught.value.hint}"
    assert "linux/amd64" in said and "linux/arm64" in said and "unknown" not in said


def test_variants_of_a_platform(tmp_path: Path) -> None:
    built = [image([layer({"/v": v.encode()})], platform=f"linux/arm/{v}") for v in ("v6", "v7")]
    write_folder(oci_layout(*built), tmp_path / "l")
    for number, variant in enumerate(("v6", "v7")):
        report = report_of(str(tmp_path / "l"), platform=f"linux/arm/{variant}")
        assert report["layers"][0]["diff_id"] == built[number].diff_ids[0]


def test_a_platform_that_the_archive_does_not_have(tmp_path: Path) -> None:
    path = tmp_path / "i.tar"
    path.write_bytes(tar_of(docker_archive_25(BUILT)))
    with pytest.raises(PlatformError):
        report_of(str(path), platform="linux/s390x")


def test_an_image_of_several_platforms_of_which_one_is_local(tmp_path: Path) -> None:
    """containerd's store saves the index whole and the blobs that it has."""
    path = tmp_path / "i.tar"
    path.write_bytes(tar_of(containerd_save(BUILT)))
    with pytest.raises((PlatformError, InvalidImageError)) as caught:
        report_of(str(path), platform="linux/s390x")
    assert caught.value.hint


@pytest.mark.parametrize("tree", [docker_archive_old, docker_archive_25, podman, oci_layout])
def test_one_layer_twice(tree: Any, tmp_path: Path) -> None:
    """The same diff ID at two places of one image (old archives link the second to the first)."""
    same = layer({"/a": b"same"})
    built = image([same, layer({"/b": b"other"}), same])
    path = tmp_path / "i.tar"
    path.write_bytes(tar_of(tree(built)))
    report = report_of(str(path), platform="linux/amd64")
    assert [row["diff_id"] for row in report["layers"]] == built.diff_ids
    assert report["totals"] | {"compressed_bytes": None} == {
        "layer_bytes": 13,
        "live_bytes": 9,
        "shadowed_bytes": 4,
        "compressed_bytes": None,
        "entries": 3,
        "live_files": 2,
    }


def test_no_history_at_all(tmp_path: Path) -> None:
    built = BuiltImage(BUILT.layers, BUILT.config.replace(b'"history":', b'"forgotten":'))
    path = tmp_path / "i.tar"
    path.write_bytes(tar_of(docker_archive_25(built)))
    report = report_of(str(path))
    assert report["totals"]["layer_bytes"] == STORED
    assert all(row["instruction"] is None for row in report["layers"])
