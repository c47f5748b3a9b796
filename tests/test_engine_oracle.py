"""Law 2: the squash equals what the container engine itself exports, for layers made to be tricky.

Images are loaded into the engine from archives that imagekit writes, and one is built by the engine from a
Dockerfile; a container is created (never started) and exported; every path, type, size, mode, owner, link
target, hard-link group and content must be layerlens's. Masked is what the engine adds, creates or empties.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from imagekit import (
    DIR,
    FIFO,
    BuiltImage,
    Device,
    Dir,
    File,
    Hardlink,
    Symlink,
    docker_archive_old,
    image,
    layer,
    oci_layout,
    sample,
    tar_of,
)

import layerlens
from layerlens.filesystem import Filesystem
from layerlens.model import EntryType

pytestmark = pytest.mark.engine

MASKED = {"/.dockerenv", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/etc/mtab"}
MASKED_TREES = ("/dev", "/proc", "/sys")
TYPES = {
    tarfile.REGTYPE: EntryType.FILE,
    tarfile.DIRTYPE: EntryType.DIR,
    tarfile.SYMTYPE: EntryType.SYMLINK,
    tarfile.CHRTYPE: EntryType.CHAR,
    tarfile.BLKTYPE: EntryType.BLOCK,
    tarfile.FIFOTYPE: EntryType.FIFO,
}

Row = dict[str, Any]


def docker(*args: str, data: bytes | None = None) -> bytes:
    done = subprocess.run(["docker", *args], input=data, capture_output=True, check=False)
    assert done.returncode == 0, f"docker {' '.join(args)}: {done.stderr.decode()}"
    return done.stdout


@pytest.fixture
def tag() -> Iterator[str]:
    """A tag of this test's own, removed from the engine afterwards."""
    name = f"layerlens-test/{uuid.uuid4().hex}:latest"
    yield name
    subprocess.run(["docker", "image", "rm", "--force", name], capture_output=True, check=False)


def exported(tag: str) -> dict[str, Row]:
    """What ``docker export`` of a created container holds, by path."""
    container = docker("create", "--network=none", tag, "/x").decode().strip()
    try:
        data = docker("export", container)
    finally:
        docker("rm", container)
    rows: dict[str, Row] = {}
    groups: dict[str, list[str]] = {}
    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8", errors="surrogateescape") as tar:
        for info in tar:
            path = "/" + info.name.strip("/")
            if path == "/":
                continue
            if info.islnk():
                first = "/" + info.linkname.strip("/")
                rows[path] = dict(rows[first])
                groups.setdefault(first, [first]).append(path)
                continue
            kind = TYPES[info.type]
            payload: Any = None
            if kind == EntryType.FILE:
                content = tar.extractfile(info)
                assert content is not None
                payload = content.read()
            elif kind == EntryType.SYMLINK:
                payload = info.linkname
            elif kind in (EntryType.CHAR, EntryType.BLOCK):
                payload = (info.devmajor, info.devminor)
            xattrs = {
                key.removeprefix("SCHILY.xattr."): value.encode("utf-8", "surrogateescape")
                for key, value in info.pax_headers.items()
                if key.startswith("SCHILY.xattr.security.")
            }
            rows[path] = {
                "type": kind,
                "mode": info.mode & 0o7777,
                "uid": info.uid,
                "gid": info.gid,
                "payload": payload,
                "xattrs": xattrs,
                "mtime": int(info.mtime) if kind == EntryType.FILE else None,
                "group": (),
            }
    for paths in groups.values():
        for path in paths:
            rows[path]["group"] = tuple(sorted(paths))
    return rows


def squashed(fs: Filesystem) -> dict[str, Row]:
    """The same of layerlens."""
    rows: dict[str, Row] = {}
    entries = {path: fs.entry(path) for path in fs.live if path != "/"}
    groups: dict[str, list[str]] = {}
    for path, entry in entries.items():
        if entry.type == EntryType.HARDLINK:
            assert entry.link_target is not None
            groups.setdefault(entry.link_target, [entry.link_target]).append(path)
    for path, entry in entries.items():
        original = entries[entry.link_target] if entry.type == EntryType.HARDLINK else entry  # type: ignore[index]
        payload: Any = None
        if original.type == EntryType.FILE:
            payload = fs.read(path)
        elif original.type == EntryType.SYMLINK:
            payload = original.link_target
        elif original.type in (EntryType.CHAR, EntryType.BLOCK):
            payload = original.device
        rows[path] = {
            "type": original.type,
            "mode": entry.mode,
            "uid": entry.uid,
            "gid": entry.gid,
            "payload": payload,
            "xattrs": {k: v for k, v in entry.xattrs.items() if k.startswith("security.")},
            "mtime": int(entry.mtime) if original.type == EntryType.FILE else None,
            "group": tuple(sorted(groups.get(original.path, ()))),
        }
    return rows


def masked(rows: dict[str, Row], workdir: str | None = None) -> dict[str, Row]:
    return {
        path: row
        for path, row in rows.items()
        if path not in MASKED
        and path != "/etc"  # the engine makes it for its own files where no layer has it
        and path != workdir
        and not any(path == tree or path.startswith(tree + "/") for tree in MASKED_TREES)
    }


def agree(tag: str) -> None:
    """The engine's export and layerlens's squash of ``tag`` are the same."""
    wanted = masked(exported(tag))
    with layerlens.open_image(f"docker://{tag}") as opened:
        found = masked(squashed(opened.fs))
    assert sorted(found) == sorted(wanted)
    differing = {path: (found[path], row) for path, row in wanted.items() if found[path] != row}
    assert not differing, differing


# Of a directory that an upper layer only implies, overlay2 takes root's attributes (containerd those of the layer
# below): the engine that the tests run on is followed.
CASES: dict[str, list[bytes]] = {
    "whiteouts": [
        layer(
            {"/d/": DIR, "/d/a": b"1", "/d/b": b"2", "/e/": DIR, "/e/f": b"3", "/g": b"4", "/l": Symlink("d")}
        ),
        layer({"/d/": DIR, "/d/a": b"new", "/z": b"z"}, whiteouts=["/d/b", "/e", "/l"]),
        layer({"/e/": DIR, "/e/again": b"5"}, whiteouts=["/g"], markers_first=True),
    ],
    "whiteout before the file of its name": [
        layer({"/d/": DIR, "/d/old": b"1", "/f": b"2"}),
        layer({"/f": b"new"}, whiteouts=["/f"], markers_first=True),
    ],
    "whiteout of nothing": [
        layer({"/a": b"1"}),
        layer({"/b": b"2"}, whiteouts=["/nothing", "/no/such/place"]),
    ],
    "markers below a file": [
        layer({"/a": b"1", "/b": b"2"}),
        layer(whiteouts=["/a/below"], opaque=["/b"]),
    ],
    "markers in the base layer": [
        layer({"/a": b"1", "/d/": DIR, "/d/b": b"2"}, whiteouts=["/x"], opaque=["/d"]),
        layer({"/c": b"3"}),
    ],
    "opaque with its directory": [
        layer({"/d/": Dir(mode=0o700), "/d/a": b"1", "/d/e/": DIR, "/d/e/b": b"2"}),
        layer({"/d/": Dir(mode=0o711, uid=9), "/d/new": b"3"}, opaque=["/d"]),
    ],
    "directories that an upper layer implies": [
        layer(
            {
                "/d/": Dir(mode=0o700, uid=5, gid=6),
                "/d/e/": Dir(mode=0o711, uid=7),
                "/d/e/old": b"1",
                "/w/": Dir(mode=0o750, uid=8),
                "/w/x": b"1",
                "/o/": Dir(mode=0o1777, uid=9),
                "/o/y": b"2",
            }
        ),
        layer({"/d/e/new": b"2"}, whiteouts=["/w/x"], opaque=["/o"]),
    ],
    "opaque alone": [
        layer({"/d/": DIR, "/d/a": b"1", "/d/e/": DIR, "/d/e/b": b"2"}),
        layer(opaque=["/d"]),
    ],
    "opaque where nothing is": [layer({"/a": b"1"}), layer(opaque=["/new"])],
    "opaque at a link": [
        layer({"/usr/": DIR, "/usr/lib/": DIR, "/usr/lib/a": b"1", "/lib": Symlink("usr/lib")}),
        layer({"/b": b"2"}, opaque=["/lib"]),
    ],
    "types replace each other": [
        layer(
            {
                "/file-dir": b"1",
                "/dir-file/": DIR,
                "/dir-file/x": b"2",
                "/dir-link/": DIR,
                "/dir-link/y": b"3",
                "/link-dir": Symlink("dir-link"),
                "/file-link": b"4",
                "/link-file": Symlink("file-link"),
            }
        ),
        layer(
            {
                "/file-dir/": DIR,
                "/file-dir/in": b"5",
                "/dir-file": b"6",
                "/dir-link": Symlink("elsewhere"),
                "/link-dir/": DIR,
                "/link-dir/in": b"7",
                "/file-link": Symlink("x"),
                "/link-file": b"8",
            }
        ),
    ],
    "a path below a lower layer's link": [
        layer({"/usr/": DIR, "/usr/lib/": DIR, "/usr/lib/a": b"1", "/lib": Symlink("usr/lib")}),
        layer({"/lib/b": b"2"}),
    ],
    "a path below a link of its own layer": [
        layer([("/usr/", DIR), ("/usr/lib/", DIR), ("/lib", Symlink("usr/lib")), ("/lib/x", b"1")]),
    ],
    "hard links": [
        layer({"/a": b"123", "/b": Hardlink("/a"), "/c": Hardlink("/b"), "/x": b"1", "/y": Hardlink("/x")}),
        layer({"/a": b"new", "/d": b"4", "/e": Hardlink("/d")}, whiteouts=["/x"]),
    ],
    "hard links to other types": [
        layer(
            {
                "/f": FIFO,
                "/f2": Hardlink("/f"),
                "/n": Device(major=1, minor=3, mode=0o644),
                "/n2": Hardlink("/n"),
            }
        ),
    ],
    "devices, pipes and special bits": [
        layer(
            {
                "/bin/": DIR,
                "/bin/su": File(b"su", mode=0o4755),
                "/bin/wall": File(b"wall", mode=0o2755, gid=5),
                "/tmp/": Dir(mode=0o1777),
                "/null": Device(kind="char", major=1, minor=3, mode=0o666),
                "/disk": Device(kind="block", major=8, minor=300, mode=0o640, gid=6),
                "/fifo": FIFO,
                "/far": File(b"x", uid=3_000_000, gid=2_999_999),
                "/none": File(b"", mode=0),
            }
        )
    ],
    "capabilities": [
        layer(
            {"/ping": File(b"ping", mode=0o755, xattrs={"security.capability": b"\1\0\0\2\0 " + bytes(14)})}
        ),
        layer({"/other": b"1"}),
    ],
    "odd names": [
        layer(
            {
                "/caf\u00e9": b"1",
                os.fsdecode(b"/raw\xff\xfe"): b"2",
                "/line\nbreak": b"3",
                "/ space ": b"4",
                "/\x1b[31m": b"5",
                "/back\\slash": b"6",
                "/.wh": b"7",
                "/deep/" + "/".join(["d" * 200] * 15) + "/f": b"8",
            }
        ),
        layer(whiteouts=["/caf\u00e9", "/line\nbreak"]),
    ],
    "names written in other ways": [
        layer(
            [("./a", b"1"), ("./d/", DIR), ("./d/./b", b"2"), ("c//e", b"3"), ("./", Dir())], verbatim=True
        ),
        layer([("a", b"11"), ("./d/b", b"22")], verbatim=True),
    ],
    "the sample": list(sample().layers),
}


def prepared(built: BuiltImage, tag: str) -> BuiltImage:
    return BuiltImage(built.layers, built.config, (tag,))


@pytest.mark.parametrize("case", CASES)
def test_squash_equals_the_export(case: str, tag: str) -> None:
    built = image([layer({"/etc/": DIR, "/etc/keep": b"k"}), *CASES[case]])
    docker("load", data=tar_of(docker_archive_old(prepared(built, tag))))
    agree(tag)


DOCKERFILE = """
FROM scratch
COPY --chown=7:8 tree /tree
COPY tree/one /tree/two
ADD tree.tar /added/
COPY tree/link /copied-link
WORKDIR /work/dir
"""


def test_an_image_that_the_engine_built(tag: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "one").write_bytes(b"1" * 5000)
    (tree / "two").write_bytes(b"2")
    os.link(tree / "one", tree / "sub" / "hard")
    (tree / "link").symlink_to("one")
    (tree / "run").write_bytes(b"#!/bin/sh\n")
    (tree / "run").chmod(0o755)
    archive = layer({"/x/": Dir(mode=0o750), "/x/a": b"a", "/x/b": Hardlink("/x/a"), "/x/s": Symlink("a")})
    (tmp_path / "tree.tar").write_bytes(archive)
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    docker("build", "--quiet", "--tag", tag, str(tmp_path))
    agree(tag)


def busybox() -> Path | None:
    """A statically linked shell to run inside a container, where Debian's busybox-static is installed."""
    for name in ("/bin/busybox", "/usr/bin/busybox"):
        path = Path(name)
        if path.is_file() and b"/ld-linux" not in path.read_bytes()[:4096]:
            return path
    return None


def test_commits_of_a_running_container(tag: str, tmp_path: Path) -> None:
    """Layers that the engine's own diff writes: deleted and remade directories, chmod, links, overwriting."""
    shell = busybox()
    if shell is None and shutil.which("apt-get") and os.geteuid() == 0:
        subprocess.run(
            ["apt-get", "install", "-y", "-qq", "busybox-static"], capture_output=True, check=False
        )
        shell = busybox()
    assert shell is not None, "needs busybox-static"
    shutil.copy(shell, tmp_path / "busybox")
    steps = [
        "mkdir -p /d/e/f; echo 1 >/d/e/f/a; echo 2 >/d/b; ln /d/b /d/hard; ln -s b /d/soft; mkfifo /d/pipe",
        "rm -rf /d/e; mkdir /d/e; echo new >/d/e/only",
        "chmod 700 /d/b; chown 5:6 /d/e/only; rm /d/soft",
        "rm -rf /d/e; echo file >/d/e; ln /d/hard /d/harder; mknod /d/null c 1 3",
        "cd /d; mv b moved; rm -f e; mkdir -p e/deep; touch e/deep/.wh",
    ]
    lines = [
        "FROM scratch",
        "COPY busybox /bin/busybox",
        'SHELL ["/bin/busybox", "sh", "-c"]',
        "ENV PATH=/bin",
    ]
    lines += ['RUN ["/bin/busybox", "--install", "-s", "/bin"]', *[f"RUN {step}" for step in steps]]
    (tmp_path / "Dockerfile").write_text("\n".join(lines) + "\n")
    docker("build", "--quiet", "--network=host", "--tag", tag, str(tmp_path))
    agree(tag)


@pytest.mark.parametrize("way", ["docker-archive", "oci"])
def test_the_engine_and_its_archive_give_the_same_report(way: str, tag: str, tmp_path: Path) -> None:
    """Law 3 over the engine as a source, against what was loaded into it."""
    built = prepared(sample(), tag)
    docker("load", data=tar_of(docker_archive_old(built)))
    path = tmp_path / "image.tar"
    tree = docker_archive_old(built) if way == "docker-archive" else oci_layout(built)
    path.write_bytes(tar_of(tree))
    reports = []
    for source in (f"docker://{tag}", str(path)):
        with layerlens.open_image(source) as opened:
            report = opened.inspect().to_dict()
        for key in ("id", "reference"):
            report["image"].pop(key)
        report["totals"].pop("compressed_bytes")
        report.pop("diagnostics")
        for row in report["layers"]:
            row.pop("digest")
            row.pop("compressed_bytes")
        reports.append(report)
    assert reports[0] == reports[1]
