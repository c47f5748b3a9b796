"""Bad input, as a user meets it: exit status 2, two lines on stderr, no traceback, nothing left, bounded memory.

And layers that are well-formed and hostile: they end in a report or in such an error, within bounds.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, CommandLine, Run
from imagekit import (
    DIR,
    END,
    BuiltImage,
    Hardlink,
    Member,
    Symlink,
    Tree,
    compress,
    containerd_save,
    docker_archive_25,
    docker_archive_old,
    dumps,
    header,
    hex_of,
    image,
    kaniko,
    layer,
    oci_layout,
    padded,
    pax_header,
    sample,
    sha256,
    tar_of,
    write_folder,
)

MEMORY = 1 << 30
"""Address space that a run may have; its resident memory is far smaller."""
RESIDENT_KB = 130 << 10
"""Resident memory that a run may reach (Linux: VmHWM), whatever it reads."""

SMALL = image([layer({"/a": b"1" * 2000, "/b": b"2"})])


def bounded() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def refused(run: Run, *words: str) -> None:
    """Ended as bad input ends."""
    assert run.status == 2, (run.status, run.stderr)
    assert run.stdout == b""
    lines = run.stderr.rstrip("\n").split("\n")
    assert len(lines) == 2, run.stderr
    assert all(line.strip() for line in lines)
    assert "Traceback" not in run.stderr and "went wrong" not in run.stderr
    assert not any(ord(char) < 0x20 for line in lines for char in line), (
        "no control character reaches a terminal"
    )
    for word in words:
        assert word in run.stderr, run.stderr
    assert run.left == (), "no temporary file is left"


def reported(run: Run) -> dict[str, Any]:
    assert run.status == 0, run.stderr
    assert run.left == ()
    report: dict[str, Any] = json.loads(run.stdout)
    totals = report["totals"]
    assert totals["layer_bytes"] == totals["live_bytes"] + totals["shadowed_bytes"]
    return report


@pytest.fixture
def inspect(cli: CommandLine, tmp_path: Path) -> Callable[..., Run]:
    """Inspects bytes as an archive, within bounded memory."""

    def run(data: bytes | Tree, *options: str, name: str = "image.tar", timeout: float = 60) -> Run:
        path = tmp_path / name
        path.write_bytes(data if isinstance(data, bytes) else tar_of(data))
        args = ("inspect", path, "--format", "json", "--platform", "linux/amd64", *options)
        return cli(*args, limit=bounded, timeout=timeout)

    return run


def without(tree: Tree, *names: str) -> Tree:
    found = [(name, spec) for name, spec in tree if not any(part in name for part in names)]
    assert len(found) < len(tree)
    return found


def swapped(tree: Tree, name: str, data: Member) -> Tree:
    assert any(known == name for known, _ in tree)
    return [(known, data if known == name else spec) for known, spec in tree]


# --- nothing there, or no image ---------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["inspect"], ["ls"], ["why"]])
def test_no_engine_and_no_such_image(command: list[str], cli: CommandLine) -> None:
    run = cli(*command, "myapp:latest", *(["/etc"] if command == ["why"] else []))
    refused(run, "myapp:latest")
    assert "docker" in run.stderr and "podman" in run.stderr, "says what was tried"


def test_a_name_that_is_also_a_file(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "app").write_bytes(b"")
    refused(cli("inspect", "app", cwd=tmp_path, env={"PYTHONPATH": os.getcwd()}), "./app")


def test_no_such_file_and_near_misses(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "myapp.tar").write_bytes(b"")
    refused(cli("inspect", tmp_path / "myap.tar"), "does not exist", "myapp.tar")
    refused(cli("inspect", tmp_path / "no" / "such.tar"), "does not exist")


def png() -> bytes:
    body = b"IHDR" + bytes([0, 0, 0, 1, 0, 0, 0, 1, 8, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + b"\0\0\0\r" + body + zlib.crc32(body).to_bytes(4, "big") + bytes(600)


NOT_IMAGES = {
    "empty": b"",
    "png": png(),
    "text": b"FROM scratch\n" * 100,
    "zeros": bytes(20_000),
    "random": b"\x93\x11\xfe" * 5000,
    "plain tar": layer({"/etc/passwd": b"x", "/bin/sh": b"y"}),
    "plain tar, gzip": gzip.compress(layer({"/etc/passwd": b"x"})),
    "zip": b"PK\x03\x04" + bytes(600),
    "bzip2": b"BZh91AY&SY" + bytes(600),
    "xz": b"\xfd7zXZ\0" + bytes(600),
    "one byte": b"x",
    "gzip magic alone": b"\x1f\x8b\x08",
    "zstd magic alone": b"\x28\xb5\x2f\xfd",
    "end-of-archive blocks": END,
}


@pytest.mark.parametrize("name", NOT_IMAGES)
def test_not_an_image(name: str, inspect: Callable[..., Run], cli: CommandLine) -> None:
    refused(inspect(NOT_IMAGES[name]))
    refused(cli("inspect", "-", stdin=NOT_IMAGES[name], limit=bounded))


def test_folders_that_are_no_image(cli: CommandLine, tmp_path: Path) -> None:
    refused(cli("inspect", tmp_path), "OCI")
    (tmp_path / "index.json").write_text("{}")
    refused(cli("inspect", tmp_path))
    refused(cli("inspect", "/dev/null"))
    refused(cli("inspect", f"oci:{tmp_path / 'none'}"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_permission_denied(cli: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "i.tar"
    path.write_bytes(b"x")
    path.chmod(0)
    refused(cli("inspect", path), "ermission")


# --- broken manifests -------------------------------------------------------------------------------------

BAD_JSON: dict[str, bytes] = {
    "null": b"null",
    "empty": b"",
    "empty list": b"[]",
    "not JSON": b"{nope",
    "a number": b"7",
    "a string": b'"x"',
    "list of null": b"[null]",
    "list of numbers": b"[1, 2]",
    "names nothing": b'[{"Config": null, "RepoTags": null, "Layers": null}]',
    "no layers": b'[{"Config": "c.json", "RepoTags": ["a:1"]}]',
    "wrong types": b'[{"Config": 7, "RepoTags": 8, "Layers": 9}]',
    "layers of wrong types": b'[{"Config": "c.json", "Layers": [null, {}, 3]}]',
    "not UTF-8": b'[{"Config": "\xff\xfe"}]',
    "a huge number": b'[{"Config": 1' + b"0" * 5000 + b"}]",
    "deeply nested": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "paths outside": b'[{"Config": "../../../../etc/passwd", "RepoTags": ["a:1"], "Layers": ["/etc/shadow"]}]',
    "escape sequences": b'[{"Config": "\\u001b[2J\\u001b]0;x\\u0007", "RepoTags": ["\\u001b[31m:1"], "Layers": []}]',
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_broken_manifest(name: str, inspect: Callable[..., Run]) -> None:
    tree = [(known, spec) for known, spec in docker_archive_old(SMALL) if known != "manifest.json"]
    refused(inspect([*tree, ("manifest.json", BAD_JSON[name])]))


@pytest.mark.parametrize("name", BAD_JSON)
def test_broken_index_and_layout(
    name: str, inspect: Callable[..., Run], cli: CommandLine, tmp_path: Path
) -> None:
    refused(inspect(swapped(oci_layout(SMALL), "index.json", BAD_JSON[name])))
    write_folder(swapped(oci_layout(SMALL), "index.json", BAD_JSON[name]), tmp_path / "layout")
    refused(cli("inspect", tmp_path / "layout", limit=bounded))


@pytest.mark.parametrize("name", [*BAD_JSON, "no rootfs"])
def test_broken_config(name: str, inspect: Callable[..., Run]) -> None:
    config = BAD_JSON.get(name, b'{"architecture": "amd64", "os": "linux", "config": {}}')
    refused(inspect(docker_archive_25(replace(SMALL, config=config))))


ODD_CONFIGS: dict[str, dict[str, Any]] = {
    "types": {"config": {"Env": 7, "Cmd": "x", "ExposedPorts": [1], "Labels": 3, "Healthcheck": "no"}},
    "nulls": {"config": None, "history": None, "created": None, "os": None, "architecture": None},
    "history": {"history": [None, 7, {"created_by": 9, "empty_layer": "yes"}, {"created_by": None}]},
    "long": {"history": [{"created_by": "RUN " + "x" * 200_000}], "config": {"Env": ["A=" + "y" * 100_000]}},
    "escapes": {"config": {"User": "\x1b[31m", "Cmd": ["\x07", "\ud800"]}, "author": "\x9b"},
}


@pytest.mark.parametrize("name", ODD_CONFIGS)
def test_odd_configs_end_in_a_report_or_an_error(
    name: str, inspect: Callable[..., Run], cli: CommandLine
) -> None:
    document = {**json.loads(SMALL.config), **ODD_CONFIGS[name]}
    run = inspect(docker_archive_25(replace(SMALL, config=json.dumps(document).encode())))
    if run.status == 0:
        reported(run)
        table = cli("inspect", cli.folder.parent / "image.tar", "--platform", "linux/amd64")
        assert table.status == 0
        assert not any(ord(char) < 0x20 and char != "\n" for char in table.text)
    else:
        refused(run)


def test_missing_parts(inspect: Callable[..., Run]) -> None:
    old = docker_archive_old(SMALL)
    refused(inspect(without(old, "manifest.json")))
    refused(inspect(without(old, "layer.tar")), "layer.tar")
    refused(inspect(without(old, hex_of(SMALL.image_id))))
    kept = without(containerd_save(SMALL), hex_of(sha256(compress(SMALL.layers[0], "gzip"))))
    refused(inspect(kept))
    refused(inspect(without(kaniko(SMALL), ".tar.gz")))
    refused(inspect(without(oci_layout(SMALL), hex_of(SMALL.image_id))))
    refused(inspect(without(oci_layout(SMALL), "index.json")))


def test_an_image_without_layers(inspect: Callable[..., Run]) -> None:
    empty = image([], history=["ENV A=1"])
    for tree in (docker_archive_25(empty), kaniko(empty), oci_layout(empty)):
        run = inspect(tree)
        if run.status == 0:
            assert reported(run)["totals"]["layer_bytes"] == 0
        else:
            refused(run)


def test_layers_and_diff_ids_disagree(inspect: Callable[..., Run]) -> None:
    more = replace(SMALL, layers=(*SMALL.layers, layer({"/c": b"3"})))
    refused(inspect(docker_archive_25(more)))
    refused(inspect(oci_layout(more)))


# --- digests and compression ------------------------------------------------------------------------------


def test_digest_mismatch_of_what_is_inflated(inspect: Callable[..., Run]) -> None:
    """The blob's name says one thing, its bytes another: both are named."""
    good = compress(SMALL.layers[0], "gzip")
    name = f"blobs/sha256/{hex_of(sha256(good))}"
    bad = compress(layer({"/evil": b"1"}), "gzip")
    tampered = swapped(oci_layout(SMALL), name, bad)
    run = inspect(tampered)
    refused(run)
    # A blob that is its own digest and inflates to another tar than the config says.
    body = json.loads(SMALL.config)
    body["rootfs"]["diff_ids"] = [sha256(b"another")]
    run = inspect(oci_layout(replace(SMALL, config=dumps(body))))
    refused(run, hex_of(sha256(b"another"))[:12], hex_of(SMALL.diff_ids[0])[:12])


def test_digest_mismatch_of_what_is_hopped_over(inspect: Callable[..., Run]) -> None:
    name = f"blobs/sha256/{hex_of(SMALL.diff_ids[0])}"
    tree = swapped(docker_archive_25(SMALL), name, layer({"/a": b"3" * 2000, "/b": b"2"}))
    refused(inspect(tree, "--verify-digests"), hex_of(SMALL.diff_ids[0])[:12])


@pytest.mark.parametrize("kind", ["config", "manifest", "index"])
def test_digest_mismatch_of_documents(kind: str, inspect: Callable[..., Run]) -> None:
    tree = oci_layout(SMALL, nested=1)
    index = json.loads(dict(tree)["index.json"])  # type: ignore[arg-type]
    nested = index["manifests"][0]["digest"]
    manifest = json.loads(dict(tree)[f"blobs/sha256/{hex_of(nested)}"])["manifests"][0]["digest"]  # type: ignore[arg-type]
    digest = {"config": SMALL.image_id, "manifest": manifest, "index": nested}[kind]
    name = f"blobs/sha256/{hex_of(digest)}"
    data = dict(tree)[name]
    assert isinstance(data, bytes)
    refused(inspect(swapped(tree, name, data + b" ")))


@pytest.mark.parametrize("how", ["gzip", "gzip-members", "zstd", "zstd-frames"])
def test_truncated_layers(how: Any, inspect: Callable[..., Run]) -> None:
    """A stream that ends early is an error, whatever the library below says."""
    whole = compress(SMALL.layers[0], how)
    for cut in (len(whole) - 1, len(whole) - 9, len(whole) // 2, 5, 0):
        part = whole[:cut]
        tree = []
        for name, spec in oci_layout(SMALL, compression=how):
            tree.append((name, part if spec == whole else spec))
        refused(inspect(tree))


def test_unknown_media_types(inspect: Callable[..., Run]) -> None:
    for old, new in (
        (b"application/vnd.oci.image.layer.v1.tar+gzip", b"application/vnd.example.layer.v9+brotli"),
        (b"application/vnd.oci.image.manifest.v1+json", b"application/vnd.example.thing.v1+json"),
    ):
        tree = oci_layout(SMALL)
        for name, spec in tree:
            if isinstance(spec, bytes) and spec.startswith(b'{"schemaVersion":2') and name != "index.json":
                fresh = spec.replace(old, new)
                index = dict(tree)["index.json"]
                assert isinstance(index, bytes)
                index = index.replace(sha256(spec).encode(), sha256(fresh).encode()).replace(old, new)
                index = index.replace(b'"size":%d' % len(spec), b'"size":%d' % len(fresh))
                tree = [(n, s) for n, s in tree if n not in (name, "index.json")]
                tree += [(f"blobs/sha256/{hex_of(sha256(fresh))}", fresh), ("index.json", index)]
                break
        refused(inspect(tree))


def test_unknown_compression_of_a_layer(inspect: Callable[..., Run]) -> None:
    for magic, name in ((b"\xfd7zXZ\0", "xz"), (b"BZh9", "bzip2"), (b"\x04\x22\x4d\x18", "lz4")):
        blob = magic + bytes(3000)
        body = json.loads(SMALL.config)
        tree = []
        for known, spec in docker_archive_old(replace(SMALL, config=dumps(body))):
            tree.append((known, blob if known.endswith("layer.tar") else spec))
        refused(inspect(tree), name)


@pytest.mark.parametrize("form", ["docker", "oci", "gzip"])
def test_truncated_archives(form: str, inspect: Callable[..., Run], cli: CommandLine) -> None:
    tree = oci_layout(SMALL) if form == "oci" else docker_archive_old(SMALL)
    data = tar_of(tree)
    if form == "gzip":
        data = compress(data, "gzip")
    step = max(1, len(data) // 6)
    for cut in [*range(1, len(data) - 2048, step), *([len(data) - 5] if form == "gzip" else [])]:
        refused(inspect(data[:cut]))
    refused(cli("inspect", "-", stdin=data[: len(data) // 2], limit=bounded))


def test_wrong_platform(cli: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "i.tar"
    path.write_bytes(tar_of(oci_layout(SMALL)))
    refused(cli("inspect", path, "--platform", "plan9/mips"), "plan9/mips", "linux/amd64")
    refused(cli("inspect", path, "--platform", "nonsense"))
    refused(cli("inspect", path, "--platform", ""))


# --- hostile layers ---------------------------------------------------------------------------------------


def raw(*parts: bytes) -> BuiltImage:
    return image([b"".join(parts) + END])


LONG = "/".join(["d" * 250] * 4000)

LAYERS: dict[str, Callable[[], BuiltImage]] = {
    "negative size": lambda: raw(header(b"liar", size=-512, gnu=True), padded(b"x" * 600)),
    "most negative size": lambda: raw(header(b"liar", size=-(2**87), gnu=True)),
    "huge size": lambda: raw(header(b"liar", size=2**62, gnu=True), padded(b"x")),
    "size of a quintillion in pax": lambda: raw(pax_header({"size": b"9" * 19}), header(b"liar")),
    "size of thousands of digits": lambda: raw(pax_header({"size": b"9" * 9000}), header(b"liar")),
    "pax header of a terabyte": lambda: raw(header(b"x", b"x", size=2**40, gnu=True)),
    "long name of a terabyte": lambda: raw(header(b"L", b"L", size=2**40, gnu=True)),
    "path of a megabyte": lambda: image([layer({LONG: b"1", LONG + "x": Hardlink(LONG)})]),
    "link of a megabyte": lambda: image([layer({"/l": Symlink("../" * 350_000)})]),
    "link loops": lambda: image(
        [layer({"/a": Symlink("b"), "/b": Symlink("a"), "/c/d": Symlink("../c/d/e")})]
    ),
    "links that double": lambda: image(
        [layer({f"/{n}": Symlink(f"{n + 1}/../{n + 1}") for n in range(64)} | {"/64/": DIR})]
    ),
    "paths through own links that double": lambda: image(
        [layer([*((f"/{n}", Symlink(f"/{n + 1}/{n + 1}")) for n in range(40)), ("/0/x/y", b"1")])]
    ),
    "hard links in a circle": lambda: image([layer({"/a": Hardlink("/b"), "/b": Hardlink("/a")})]),
    "hard links in a long chain": lambda: image(
        [layer({f"/{n:04}": Hardlink(f"/{n + 1:04}") for n in range(3000)} | {"/3000": b"end"})]
    ),
    "sparse file of a petabyte": lambda: raw(
        pax_header({"GNU.sparse.map": b"0,1", "GNU.sparse.size": b"%d" % 10**15, "GNU.sparse.name": b"s"}),
        header(b"s", size=1),
        padded(b"x"),
    ),
    "two sparse files of a petabyte": lambda: raw(
        *(
            pax_header({"GNU.sparse.map": b"0,1", "GNU.sparse.size": b"%d" % 10**15, "GNU.sparse.name": name})
            + header(name, size=1)
            + padded(b"x")
            for name in (b"s", b"t")
        )
    ),
    "owners and times beyond all bounds": lambda: raw(
        pax_header({"uid": b"9" * 18, "gid": b"9" * 18, "mtime": b"9" * 300}), header(b"f")
    ),
    "a time that is no time": lambda: raw(pax_header({"mtime": b"nan"}), header(b"f")),
    "endless times": lambda: raw(
        pax_header({"mtime": b"-inf"}), header(b"f"), header(b"g", mtime=-(2**70), gnu=True)
    ),
    "extension headers on extension headers": lambda: raw(
        *[pax_header({"path": b"x" * 500})] * 3000, header(b"f")
    ),
    "markers of all kinds": lambda: image(
        [layer({"/a": b"1"}), layer(whiteouts=["/", "/a/b/c", "/.wh.", "/.wh..wh.x"], opaque=["/", "/a"])]
    ),
    "a thousand layers": lambda: image([layer({f"/{n}": b"x", "/same": b"y"}) for n in range(1000)]),
    "a deep tree": lambda: image([layer({"/" + "d/" * 20_000 + "f": b"1"}), layer(whiteouts=["/d"])]),
    "names with NUL in pax": lambda: raw(pax_header({"path": b"a\0b"}), header(b"f")),
    "file in place of the root": lambda: image([layer([("/", b"root"), (".", Symlink("x")), ("/ok", b"1")])]),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("how", ["docker", "gzip"])
def test_hostile_layers(name: str, how: str, inspect: Callable[..., Run]) -> None:
    built = LAYERS[name]()
    run = inspect(docker_archive_25(built) if how == "docker" else oci_layout(built), timeout=60)
    if run.status == 0:
        reported(run)
    else:
        refused(run)


ESCAPES = {
    "/\x1b[2J\x1b[31mred": b"1" * 900,
    "/\x1b]0;title\x07": b"2" * 900,
    "/line\nbreak": b"3" * 900,
    "/return\rto": b"4" * 900,
    "/\x9bcsi": b"5" * 900,
    "/\u202ereversed": b"6" * 900,
    os.fsdecode(b"/raw\xff\xfe"): b"7" * 900,
    "/<script>alert(1)</script>": b"8" * 900,
    "/| table | breaks": b"9" * 900,
}


def test_escape_sequences_never_reach_a_terminal(cli: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "i.tar"
    built = image(
        [layer(ESCAPES), layer(whiteouts=list(ESCAPES)[:3])],
        history=["RUN \x1b[31mevil\x07 # x", "RUN ok"],
        config={"User": "\x1b[1m", "Cmd": ["\x1b]8;;http://x\x07"]},
        tags=["kit:latest"],
    )
    path.write_bytes(tar_of(docker_archive_25(built)))
    where = ("--platform", "linux/amd64")
    for args in (
        ("inspect", path, *where),
        ("inspect", path, *where, "--format", "markdown"),
        ("ls", path, *where),
        ("ls", path, *where, "--layer", "1"),
        ("why", path, "/return\rto", *where),
    ):
        run = cli(*args, env={"PYTHONUTF8": "1"})
        assert run.status == 0, run.stderr
        bad = [char for char in run.text if (ord(char) < 0x20 and char != "\n") or 0x7F <= ord(char) < 0xA0]
        assert not bad, (args, bad)
        assert "\u202e" not in run.text
    refused(cli("why", path, "/\x1b[31mno such", *where))
    refused(cli("inspect", "./\x1b[31m\nno such.tar"))


def bomb(path: Path, size: int, before: bytes = b"", after: bytes = b"") -> str:
    """A gzip of ``before``, ``size`` zeros and ``after``, made without ever holding them; its inflated digest."""
    digest = hashlib.sha256()
    chunk = bytes(8 << 20)
    with (
        path.open("wb") as raw_out,
        gzip.GzipFile(fileobj=raw_out, mode="wb", compresslevel=1, mtime=0) as out,
    ):
        for piece in (before, *[chunk] * (size // len(chunk)), after):
            out.write(piece)
            digest.update(piece)
    return f"sha256:{digest.hexdigest()}"


def measured(cli: CommandLine, path: Path) -> tuple[dict[str, Any], int]:
    """The report, and the most memory in KB that the process had resident (its own, unlike ``ru_maxrss``)."""
    script = """
import atexit, sys
from layerlens.__main__ import main

@atexit.register
def tell():
    with open("/proc/self/status") as status:
        print(*(line.split()[1] for line in status if line.startswith("VmHWM")), file=sys.stderr)

main()
"""
    args = [
        sys.executable,
        "-c",
        script,
        "inspect",
        str(path),
        "--format",
        "json",
        "--platform",
        "linux/amd64",
    ]
    done = subprocess.run(args, capture_output=True, env=cli.env(), cwd=ROOT, timeout=300, check=False)
    assert not list(cli.temporary.rglob("*"))
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report, int(done.stderr.split()[-1])


@pytest.mark.slow
def test_a_gzip_of_four_gigabytes_of_zeros(cli: CommandLine, tmp_path: Path) -> None:
    """As a layer of one file it is a report, in a few minutes at most and in little memory."""
    size = 4 << 30
    blob = tmp_path / "bomb.gz"
    diff_id = bomb(blob, size, header(b"zeros", size=size), END)
    data = blob.read_bytes()
    config = {**json.loads(SMALL.config), "rootfs": {"type": "layers", "diff_ids": [diff_id]}}
    name = hex_of(sha256(data)) + ".tar.gz"
    manifest = [{"Config": "config.json", "RepoTags": ["bomb:1"], "Layers": [name]}]
    path = tmp_path / "i.tar"
    tree: Tree = [("config.json", dumps(config)), (name, data), ("manifest.json", dumps(manifest))]
    path.write_bytes(tar_of(tree))
    report, resident_kb = measured(cli, path)
    assert report["totals"]["live_bytes"] == size
    assert resident_kb < RESIDENT_KB


@pytest.mark.slow
def test_an_archive_that_inflates_beyond_the_disk_is_an_error(cli: CommandLine, tmp_path: Path) -> None:
    """The whole file compressed: it is spooled, and a spool that may not grow ends in two lines."""
    path = tmp_path / "i.tar.gz"
    bomb(path, 512 << 20, tar_of(docker_archive_25(SMALL), end=b"") + header(b"big", size=512 << 20), END)

    def small_files() -> None:
        bounded()
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 20, 64 << 20))

    refused(cli("inspect", path, "--platform", "linux/amd64", limit=small_files))


def test_memory_of_an_ordinary_run(cli: CommandLine, tmp_path: Path) -> None:
    """A large payload is hopped over, not read: the process stays small however large the file."""
    path = tmp_path / "i.tar"
    size = 1 << 30
    tree = docker_archive_25(SMALL)
    with path.open("wb") as out:
        out.write(tar_of(tree, end=b""))
        out.write(header(b"unreferenced", size=size, gnu=True))
        out.truncate(out.tell() + size)
        out.seek(0, os.SEEK_END)
        out.write(END)
    report, resident_kb = measured(cli, path)
    assert report["totals"]["layer_bytes"] == 2001
    assert resident_kb < RESIDENT_KB


# --- pipes and signals ------------------------------------------------------------------------------------


def crowded(folder: Path) -> Path:
    path = folder / "crowded.tar"
    built = image([layer({f"/dir{n % 50}/{'f' * 80}{n}": b"" for n in range(20_000)})])
    path.write_bytes(tar_of(docker_archive_25(built)))
    return path


def test_a_closed_pipe_is_no_error(cli: CommandLine, tmp_path: Path) -> None:
    process = cli.start(
        "ls",
        str(crowded(tmp_path)),
        "--platform",
        "linux/amd64",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait(30) == 0
    assert errors == b""


def test_head_in_a_shell(cli: CommandLine, tmp_path: Path) -> None:
    command = f"{sys.executable} -m layerlens ls {crowded(tmp_path)} --platform linux/amd64 | head -n 3"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, env=cli.env(), check=False)
    assert (done.returncode, len(done.stdout.splitlines()), done.stderr) == (0, 3, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_while_spooling(number: signal.Signals, cli: CommandLine) -> None:
    """Ctrl-C while standard input is read: exit 130, no traceback, no temporary file."""
    process = cli.start("inspect", "-", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    data = tar_of(docker_archive_25(sample()))
    process.stdin.write(data[:50_000])
    process.stdin.flush()
    time.sleep(1.0)
    process.send_signal(number)
    errors = process.stderr.read().decode()
    status = process.wait(20)
    process.stdin.close()
    assert status == (130 if number == signal.SIGINT else -signal.SIGTERM) or status == 143
    assert "Traceback" not in errors
    assert not list(cli.temporary.rglob("*"))


def test_no_space_on_the_disk(cli: CommandLine, small_disk: Callable[[str], Path]) -> None:
    """Spooling into a full filesystem; needs root for a filesystem of its own."""
    small = small_disk("1m")
    big = image([layer({"/big": os.urandom(3 << 20)})])
    data = compress(tar_of(docker_archive_25(big)), "gzip")
    run = cli("inspect", "-", stdin=data, env={"TMPDIR": str(small)})
    refused(run, "pace")
    assert not list(small.iterdir())


def test_every_random_flip_of_an_archive_ends_well(cli: CommandLine, tmp_path: Path) -> None:
    """In one process, many archives with a few bytes changed: a report or the one error, nothing else."""
    script = r"""
import io, random, sys
sys.path.insert(0, sys.argv[1])
import imagekit, layerlens
from layerlens.render import json, terminal, markdown
built = imagekit.sample()
trees = [imagekit.docker_archive_25(built), imagekit.docker_archive_old(built), imagekit.oci_layout(built)]
rng = random.Random(7)
done = {"report": 0, "error": 0}
for number in range(400):
    data = bytearray(imagekit.tar_of(trees[number % 3]))
    for _ in range(rng.choice([1, 2, 8])):
        data[rng.randrange(len(data))] = rng.randrange(256)
    with open(sys.argv[2], "wb") as out:
        out.write(data)
    try:
        with layerlens.open_image(sys.argv[2], platform="linux/amd64") as opened:
            report = opened.inspect()
            json.dumps(report), markdown.report(report), terminal.report(report, 80, False)
        done["report"] += 1
    except layerlens.LayerLensError as error:
        assert str(error) and error.hint
        done["error"] += 1
print(done)
assert min(done.values()) > 20
"""
    args = [sys.executable, "-c", script, str(Path(__file__).parent), str(tmp_path / "i.tar")]
    done = subprocess.run(args, capture_output=True, text=True, env=cli.env(), timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_random_json_documents(inspect: Callable[..., Run]) -> None:
    """Manifests whose every value is replaced by something of another type, one at a time."""
    manifest = json.loads(dict(docker_archive_25(SMALL))["manifest.json"])  # type: ignore[arg-type]
    for key in list(manifest[0]):
        for value in (None, 0, "", [], {}, [None], True, "../x", -1):
            broken = [{**manifest[0], key: value}]
            run = inspect(swapped(docker_archive_25(SMALL, index="absent"), "manifest.json", dumps(broken)))
            if run.status != 0:
                refused(run)
            else:
                assert key in ("RepoTags", "LayerSources"), (key, value)


def test_stdin_that_is_not_there(cli: CommandLine) -> None:
    refused(cli("inspect", "-", stdin=b""))
