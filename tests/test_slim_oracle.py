"""The engine's export of a slim image is a subset of the original's, the same but for what was rewritten."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from imagekit import DIR, FIFO, Device, Dir, File, Hardlink, Symlink, docker_archive_old, image, layer, tar_of
from squashkit import squash
from test_engine_oracle import MASKED, MASKED_TREES, docker, exported, tag

import layerlens
from layerlens.destinations import DockerArchive
from layerlens.errors import EngineError
from layerlens.slim import SlimSpec, plan_slim
from layerlens.sources.docker_engine import Engine, connect

__all__ = ["tag"]
pytestmark = pytest.mark.engine


@pytest.fixture
def engine() -> Iterator[Engine]:
    found = connect(("docker",))
    yield found
    found.close()


@pytest.fixture
def loaded() -> Iterator[list[str]]:
    """Images to remove afterwards."""
    names: list[str] = []
    yield names
    for name in names:
        subprocess.run(["docker", "image", "rm", "--force", name], capture_output=True, check=False)


LAYERS = (
    layer(
        {
            "/etc/": Dir(mode=0o751, uid=3, gid=4),
            "/etc/motd": File(data=b"hello", mode=0o640, uid=11, gid=12),
            "/bin/sudo": File(data=b"\x7fELF", mode=0o4755),
            "/bin/ping": File(
                data=b"\x7fELF2",
                mode=0o755,
                xattrs={"security.capability": bytes.fromhex("0100000200200000000000000000000000000000")},
            ),
            "/usr/lib/a": b"payload",
            "/usr/lib/z": Hardlink(target="/usr/lib/a"),
            "/app/m": Hardlink(target="/usr/lib/a"),
            "/null": Device(kind="char", major=1, minor=3, mode=0o666),
            "/pipe": FIFO,
            "/tmp/": Dir(mode=0o1777),
            "/lnk": Symlink(target="etc/motd"),
            "/caf\xe9": b"latin",
            "/" + "d" * 90 + "/" + "f" * 120: b"long",
            "/opt/cache/old": b"gone",
        }
    ),
    layer(
        {
            "/opt/cache/": Dir(mode=0o700, uid=9),
            "/opt/cache/new": b"1",
            "/etc/extra": b"implies /etc",
            "/usr/lib/site-packages/": DIR,
            "/usr/lib/site-packages/x.py": b"2",
            "/app/run": File(data=b"3", mode=0o755),
        },
        opaque=["/opt/cache"],
    ),
)


def group(path: str) -> int:
    return 2 if path.startswith("/app") else 1 if "site-packages" in path else 0


def unmasked(rows: dict[str, Any]) -> dict[str, Any]:
    return {
        path: {**row, "group": ()}
        for path, row in rows.items()
        if path not in MASKED and not any(path == t or path.startswith(f"{t}/") for t in MASKED_TREES)
    }


def test_the_export_is_a_subset(engine: Engine, tag: str, loaded: list[str]) -> None:
    docker("load", data=tar_of(docker_archive_old(image(LAYERS, tags=[tag]))))
    original = unmasked(exported(tag))
    with layerlens.open_image(f"docker://{tag}") as opened:
        fs = opened.fs
        for keep in (sorted(fs.live), sorted(fs.live)[::2]):
            slim = plan_slim(fs, SlimSpec(keep, group, opened.config.raw, {"/etc/motd": b"rewritten"}))
            image_id = engine.load(DockerArchive(slim).chunks())
            loaded.append(image_id)
            found = unmasked(exported(image_id))
            assert set(found) <= set(original) and {*keep} - {"/"} <= set(found)
            different = [path for path in found if found[path] != original[path]]
            assert different == ["/etc/motd"] or (different == [] and "/etc/motd" not in found)
            assert found.get("/etc/motd", {"payload": b"rewritten"})["payload"] == b"rewritten"


def test_an_archive_that_breaks_off_loads_nothing(engine: Engine, tag: str) -> None:
    config = {"os": "linux", "architecture": "amd64", "author": tag}
    slim = plan_slim(squash(*LAYERS), SlimSpec(["/etc/motd"], group, config))
    whole = DockerArchive(slim, tag)
    assert len(list(whole.chunks())) > 1

    def broken() -> Iterator[bytes]:
        chunks = list(DockerArchive(slim, tag).chunks())
        yield from chunks[:-1]
        raise EngineError("the source went away", "")

    with pytest.raises(EngineError, match="the source went away"):
        engine.load(broken())
    assert engine.find(tag) is None and engine.find(whole.written.image_id) is None
