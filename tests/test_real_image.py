"""One real image of more than a gigabyte, built by a real engine, in every form in which it travels.

The corpus's node-express (an Express app on a `node:18` laid out as the official one), asked of the engine,
of podman, of its archive, of OCI layouts that skopeo makes of it, and of standard input. The oracles are the
engine's own export and the container's own ``du``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from corpuskit.archives import archive_of  # noqa: E402
from corpuskit.cases import load_case  # noqa: E402

IMAGE = "layerlens-corpus/node-express:single"
KINDS = {
    tarfile.REGTYPE: "file",
    tarfile.DIRTYPE: "dir",
    tarfile.SYMTYPE: "symlink",
    tarfile.LNKTYPE: "hardlink",
    tarfile.CHRTYPE: "char",
    tarfile.BLKTYPE: "block",
    tarfile.FIFOTYPE: "fifo",
}

pytestmark = [pytest.mark.engine, pytest.mark.slow]


def layerlens(*arguments: str, stdin: Path | None = None) -> bytes:
    command = [sys.executable, "-m", "layerlens", *arguments]
    with open(stdin or os.devnull, "rb") as source:
        # A pipe, so that standard input is a stream as it is for users, whatever the file behind it.
        feed = subprocess.Popen(["cat"], stdin=source, stdout=subprocess.PIPE)
        done = subprocess.run(command, stdin=feed.stdout, capture_output=True, check=False)
        feed.kill()
        feed.wait()
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def report(*arguments: str, stdin: Path | None = None) -> dict[str, Any]:
    """The report but for what may differ between sources (law 3)."""
    data: dict[str, Any] = json.loads(
        layerlens("inspect", "--no-recommend", "--format", "json", *arguments, stdin=stdin)
    )
    del (
        data["image"]["id"],
        data["image"]["reference"],
        data["diagnostics"],
        data["totals"]["compressed_bytes"],
    )
    for layer in data["layers"]:
        del layer["digest"], layer["compressed_bytes"]
    return data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("real")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)  # gigabytes: not for pytest to keep


@pytest.fixture(scope="module")
def archive() -> Path:
    subprocess.run([str(ROOT / "scripts/corpus"), "build", "node-express"], check=True, timeout=1800)
    path = archive_of(load_case("node-express"))
    assert path.stat().st_size >= 1_200_000_000
    return path


@pytest.fixture(scope="module")
def expected(archive: Path) -> dict[str, Any]:
    return report(str(archive))


def test_the_laws_hold(expected: dict[str, Any]) -> None:
    totals = expected["totals"]
    assert totals["layer_bytes"] == totals["live_bytes"] + totals["shadowed_bytes"]
    assert totals["layer_bytes"] == sum(layer["size_bytes"] for layer in expected["layers"])
    assert totals["shadowed_bytes"] == sum(layer["shadowed_bytes"] for layer in expected["layers"])
    assert totals["shadowed_bytes"] == sum(item["size_bytes"] for item in expected["waste"]["items"])
    assert totals["live_bytes"] == sum(category["size_bytes"] for category in expected["categories"])
    assert totals["live_bytes"] >= sum(package["size_bytes"] for package in expected["packages"])
    assert totals["live_files"] == sum(category["files"] for category in expected["categories"])
    assert {layer["from_base"] for layer in expected["layers"]} == {True, False}
    assert any(layer["instruction"] == "RUN npm install" for layer in expected["layers"])


def test_engine_and_standard_input(archive: Path, expected: dict[str, Any]) -> None:
    assert report(IMAGE) == expected
    assert report("-", stdin=archive) == expected


@pytest.mark.parametrize("form", ["oci:", "oci-archive:"])
def test_what_skopeo_makes_of_it(folder: Path, archive: Path, expected: dict[str, Any], form: str) -> None:
    compression = {"oci:": "gzip", "oci-archive:": "zstd"}[form]
    target = folder / f"{compression}{'' if form == 'oci:' else '.tar'}"
    subprocess.run(
        ["skopeo", "copy", "--quiet", "--dest-compress-format", compression, f"docker-archive:{archive}",
         f"{form}{target}:app"],
        check=True,
    )  # fmt: skip
    assert report(f"{form}{target}") == expected


@pytest.mark.podman
def test_podman(archive: Path, expected: dict[str, Any]) -> None:
    host = os.environ["CONTAINER_HOST"]
    podman = {**os.environ, "DOCKER_HOST": host}
    subprocess.run(["docker", "load", "--quiet", "--input", str(archive)], env=podman, check=True)
    try:
        assert report(f"podman://{IMAGE}") == expected
    finally:
        subprocess.run(["docker", "rmi", IMAGE], env=podman, check=True, stdout=subprocess.DEVNULL)


def test_ls_is_what_the_engine_exports(archive: Path) -> None:
    ours = {}
    for line in layerlens("ls", str(archive), "--format", "json").splitlines():
        row = json.loads(line)
        ours[row["path"]] = tuple(
            row[key] for key in ("type", "size_bytes", "mode", "uid", "gid", "link_target")
        )
    container = subprocess.run(
        ["docker", "create", IMAGE], capture_output=True, text=True, check=True
    ).stdout.strip()
    theirs = {}
    try:
        exporting = subprocess.Popen(["docker", "export", container], stdout=subprocess.PIPE)
        with exporting, tarfile.open(fileobj=exporting.stdout, mode="r|") as stream:
            for member in stream:
                kind = KINDS[member.type]
                target = {"symlink": member.linkname, "hardlink": "/" + member.linkname}.get(kind)
                size = member.size if kind == "file" else 0
                mode = f"{member.mode & 0o7777:04o}"
                theirs["/" + member.name] = (kind, size, mode, member.uid, member.gid, target)
    finally:
        subprocess.run(["docker", "rm", "-f", container], stdout=subprocess.DEVNULL, check=True)

    def seen(paths: dict[str, Any]) -> dict[str, Any]:
        """Without what the engine adds, creates or empties (law 2)."""
        own = {"/", "/.dockerenv", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/etc/mtab"}
        return {
            path: row
            for path, row in paths.items()
            if path not in own and not f"{path}/".startswith(("/dev/", "/proc/", "/sys/"))
        }

    assert len(theirs) > 50_000
    assert seen(ours) == seen(theirs)


def test_paths_are_as_large_as_du_says(expected: dict[str, Any]) -> None:
    listed = {path["path"]: path["size_bytes"] for path in expected["paths"]}
    asked = ["/app/node_modules", "/root/.npm", "/usr/lib/gcc", "/usr/local/lib/node_modules"]
    assert set(asked) <= set(listed)
    # du counts directories and links too; find tells how much those are.
    script = (
        'for d in "$@"; do du -s --apparent-size -B1 "$d" | cut -f1; '
        'find "$d" ! -type f -printf "%s\\n" | awk "{s += \\$1} END {print s + 0}"; done'
    )
    command = [
        "docker",
        "run",
        "--rm",
        "--network=none",
        "--entrypoint",
        "sh",
        IMAGE,
        "-c",
        script,
        "sh",
        *asked,
    ]
    numbers = [int(word) for word in subprocess.run(command, capture_output=True, check=True).stdout.split()]
    du = [whole - others for whole, others in zip(numbers[::2], numbers[1::2], strict=True)]
    assert du == [listed[path] for path in asked]


def test_speed_and_memory_against_tarfile(archive: Path) -> None:
    """At most 0.6 of what `tarfile` needs to list the entries, with at most 130 MB.

    The best of the pairs counts: others may be using the machine, and they slow two processes more than one.
    """
    printed = subprocess.run(
        [sys.executable, "scripts/bench.py", "--quick", "--only", "archive", "--archive", str(archive)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    row = next(line for line in printed.splitlines() if "`tarfile`" in line)
    *_, ratio, memory, _ = row.split("|")
    best = float(ratio.partition("(")[2].partition("-")[0])
    assert best <= 0.6, printed
    assert float(memory.split()[0]) <= 130, printed
