"""Engines: where they are looked for, what they are asked, and every way in which they fail.

What can go wrong is played by a small server on a Unix socket that speaks just enough of the Docker Engine
API; what must work is asked of a real engine and of a real podman.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import json
import os
import random
import shutil
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import imagekit
import pytest
from conftest import CommandLine
from enginekit import ARCHIVE, KIT, FakeEngine, Handler, Server, served

from layerlens.errors import (
    EngineError,
    ImageNotFoundError,
    InvalidImageError,
    LayerLensError,
    PlatformError,
    SpoolError,
    UsageError,
)
from layerlens.model import Platform
from layerlens.sources import docker_engine, plainhttp
from layerlens.sources.docker_engine import EngineSource, open_engine
from layerlens.sources.endpoints import Endpoint, endpoints
from layerlens.sources.opening import open_source


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name (socket addresses end at 108 bytes) that every user may enter."""
    path = Path(tempfile.mkdtemp(prefix="ll-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """No engine anywhere, an empty home, a temporary folder of its own."""
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    monkeypatch.setenv("CONTAINER_HOST", "unix:///nonexistent/podman.sock")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "client"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    return monkeypatch


@pytest.fixture
def engine(folder: Path, nowhere: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    """A docker that has ``kit:latest``."""
    with served(folder) as fake:
        fake.add(KIT, "kit:latest")
        nowhere.setenv("DOCKER_HOST", fake.url)
        yield fake


def left_behind(tmp_path: Path) -> list[str]:
    return sorted(os.listdir(tmp_path / "temporary"))


def failure(run: Callable[[], object], kind: type[LayerLensError]) -> LayerLensError:
    """The error that ``run`` ends in, which must say something and what to do, in a line each."""
    with pytest.raises(kind) as caught:
        run()
    error = caught.value
    assert str(error) and "\n" not in str(error)
    assert error.hint and "\n" not in error.hint
    return error


# --- what works -------------------------------------------------------------------------------------------


def test_the_source_is_what_the_engine_exports(engine: FakeEngine, tmp_path: Path) -> None:
    with open_engine("kit:latest") as source:
        assert source.reference == "kit:latest"
        assert source.image_id == KIT.image_id
        assert list(source.diff_ids) == KIT.diff_ids
        assert source.diff_ids_trusted
        assert not [path for path in engine.asked if path.endswith("/get")]  # nothing was exported yet
        assert source.config == KIT.config
        assert [layer.diff_id for layer in source.layers] == KIT.diff_ids
        for layer, data in zip(source.layers, KIT.layers, strict=True):
            assert layer.open().read() == data
        assert list(source.diagnostics) == []
        assert left_behind(tmp_path) == []
    source.close()  # twice is fine
    assert len([path for path in engine.asked if path.endswith("/get")]) == 1


def test_the_export_is_asked_for_by_id(engine: FakeEngine) -> None:
    """A tag may move between the question and the export; an ID does not."""
    with open_engine("kit:latest") as source:
        assert source.config
    assert f"/images/{KIT.image_id}/get" in engine.asked


def test_a_digest_is_asked_for_as_it_is(engine: FakeEngine) -> None:
    name = "registry.example:5000/team/kit@" + KIT.image_id
    engine.add(KIT, name)
    with open_engine(name) as source:
        assert source.config == KIT.config
    assert f"/images/{name}/json" in engine.asked


def test_progress_counts_bytes(engine: FakeEngine) -> None:
    told: list[tuple[str, int, int | None]] = []
    with open_engine("kit:latest", progress=lambda *said: told.append(said)) as source:
        assert source.config
    size = sum(map(len, KIT.layers))
    assert told[0] == ("exporting kit:latest from docker", 0, size)
    assert told[-1][1] == len(ARCHIVE)
    assert all(total is not None and done <= total for _, done, total in told)


def test_an_engine_that_needs_long_before_it_speaks(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Engines gather all layers before the first byte: an export has no time limit, a question has."""
    monkeypatch.setattr(docker_engine, "_ANSWER_TIMEOUT_S", 0.5)
    engine.silent_for_s = 1.2
    with open_engine("kit:latest") as source:
        assert source.config == KIT.config


@pytest.mark.parametrize("archive", [imagekit.docker_archive_25(KIT), imagekit.containerd_save(KIT)])
def test_what_newer_engines_save(engine: FakeEngine, archive: imagekit.Tree) -> None:
    engine.archive = imagekit.tar_of(archive)
    with open_engine("kit:latest") as source:
        assert source.config == KIT.config
        assert [layer.diff_id for layer in source.layers] == KIT.diff_ids


def test_an_image_without_layers_is_never_exported(engine: FakeEngine) -> None:
    """moby: "empty export - not implemented"."""
    empty = imagekit.image([], config={"Labels": {"a": "b"}, "Cmd": ["/x"]}, history=["LABEL a=b"])
    engine.add(empty, "empty:latest")
    engine.answers[f"/images/{empty.image_id}/history"] = (
        200,
        json.dumps(
            [
                {
                    "Created": 1700000001,
                    "CreatedBy": '/bin/sh -c #(nop)  CMD ["/x"]',
                    "Size": 0,
                    "Comment": "",
                },
                {"Created": 1700000000, "CreatedBy": "LABEL a=b", "Size": 0, "Comment": "buildkit"},
            ]
        ).encode(),
    )
    with open_engine("empty:latest") as source:
        assert list(source.layers) == []
        config = json.loads(source.config)
        assert config["rootfs"] == {"type": "layers", "diff_ids": []}
        assert config["config"]["Labels"] == {"a": "b"}
        assert (config["os"], config["architecture"]) == ("linux", "amd64")
        assert [entry["created_by"] for entry in config["history"]] == [
            "LABEL a=b",
            '/bin/sh -c #(nop)  CMD ["/x"]',
        ]
        assert config["history"][0]["created"] == "2023-11-14T22:13:20Z"
        assert all(entry["empty_layer"] for entry in config["history"])
        assert [said.code for said in source.diagnostics] == ["config-from-engine"]
    assert not [path for path in engine.asked if path.endswith("/get")]


# --- docker, then podman ----------------------------------------------------------------------------------


@pytest.fixture
def podman(nowhere: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    """A podman that has ``localhost/pod:1``, beside whatever docker there is."""
    path = Path(tempfile.mkdtemp(prefix="ll-", dir="/tmp"))
    try:
        with served(path) as fake:
            fake.add(KIT, "localhost/pod:1")
            nowhere.setenv("CONTAINER_HOST", fake.url)
            yield fake
    finally:
        shutil.rmtree(path)


def test_docker_is_asked_first(engine: FakeEngine, podman: FakeEngine) -> None:
    podman.add(imagekit.other("kit:latest"), "kit:latest")
    source = open_source("kit:latest")
    assert source.image_id == KIT.image_id
    source.close()
    assert podman.asked == []


def test_podman_is_asked_where_docker_has_none(engine: FakeEngine, podman: FakeEngine) -> None:
    with open_engine("pod:1") as source:
        assert source.config == KIT.config
    assert "/images/pod:1/json" in engine.asked
    assert "/images/localhost/pod:1/json" in podman.asked


def test_podman_is_asked_where_docker_is_not_running(podman: FakeEngine) -> None:
    with open_engine("pod:1") as source:
        assert source.config == KIT.config
        assert list(source.diagnostics) == []


def test_an_engine_that_was_passed_over_is_told(engine: FakeEngine, podman: FakeEngine) -> None:
    engine.answers["/images/pod:1/json"] = (500, b'{"message": "layer store is on fire"}')
    with open_engine("pod:1") as source:
        assert source.config == KIT.config
        assert [said.code for said in source.diagnostics] == ["engine-passed-over"]
        assert "layer store is on fire" in source.diagnostics[0].message


def test_only_the_engine_that_was_named_is_asked(engine: FakeEngine, podman: FakeEngine) -> None:
    error = failure(lambda: open_source("docker://pod:1"), ImageNotFoundError)
    assert "podman" not in str(error)
    error = failure(lambda: open_source("podman://kit"), ImageNotFoundError)
    assert "podman" in str(error) and "docker (" not in str(error)
    source = open_source("podman://pod:1")
    assert source.reference == "podman://pod:1"
    source.close()


def test_the_same_socket_is_asked_once(engine: FakeEngine, nowhere: pytest.MonkeyPatch) -> None:
    nowhere.setenv("CONTAINER_HOST", engine.url)
    failure(lambda: open_engine("zzz"), ImageNotFoundError)
    assert engine.asked.count("/images/zzz/json") == 1


# --- what fails -------------------------------------------------------------------------------------------


def test_no_such_image_says_what_was_tried_and_what_is_near(engine: FakeEngine) -> None:
    error = failure(lambda: open_engine("kitt"), ImageNotFoundError)
    assert "no image 'kitt' in docker" in str(error) and engine.url in str(error)
    assert "podman" in str(error) and "not running" in str(error)
    assert error.hint == "Did you mean kit:latest?"
    error = failure(lambda: open_engine("something-else"), ImageNotFoundError)
    assert "docker images" in error.hint


def test_a_path_of_that_name_is_pointed_at(
    engine: FakeEngine, tmp_path: Path, nowhere: pytest.MonkeyPatch
) -> None:
    (tmp_path / "app").write_bytes(ARCHIVE)
    nowhere.chdir(tmp_path)
    assert "write ./app" in failure(lambda: open_source("app"), ImageNotFoundError).hint
    nowhere.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    assert "write ./app" in failure(lambda: open_source("app"), EngineError).hint
    (tmp_path / "App").write_bytes(ARCHIVE)
    assert "write ./App" in failure(lambda: open_source("App"), UsageError).hint
    source = open_source("./app")
    assert source.config == KIT.config
    source.close()


def test_no_engine_running(nowhere: pytest.MonkeyPatch) -> None:
    error = failure(lambda: open_engine("app"), EngineError)
    assert str(error) == (
        "no engine can be asked for 'app': docker is not running (unix:///nonexistent/docker.sock from "
        "DOCKER_HOST: no such socket); podman is not running (unix:///nonexistent/podman.sock from "
        "CONTAINER_HOST: no such socket)"
    )
    assert "docker save -o app.tar app" in error.hint


def test_a_socket_where_nobody_listens(folder: Path, nowhere: pytest.MonkeyPatch) -> None:
    with served(folder) as fake:
        pass
    assert fake.socket.exists()
    nowhere.setenv("DOCKER_HOST", fake.url)
    error = failure(lambda: open_engine("app", engines=("docker",)), EngineError)
    assert "nobody listens there" in str(error)


def test_not_a_socket(folder: Path, nowhere: pytest.MonkeyPatch) -> None:
    (folder / "file").write_bytes(b"")
    nowhere.setenv("DOCKER_HOST", f"unix://{folder}/file")
    assert "not a socket" in str(failure(lambda: open_engine("app", engines=("docker",)), EngineError))


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Nobody's rights for a while, where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("closed", ["socket", "folder"])
def test_permission_denied_on_the_socket(engine: FakeEngine, folder: Path, closed: str) -> None:
    import docker  # noqa: F401  (loaded while it may be read)

    (engine.socket if closed == "socket" else folder).chmod(0o600)
    with unprivileged():
        error = failure(lambda: open_engine("kit", engines=("docker",)), EngineError)
    folder.chmod(0o755)
    assert f"permission denied on {engine.socket}" in str(error)
    assert "sudo" in error.hint


@pytest.mark.parametrize(
    "url", ["tcp://127.0.0.1:9", "nonsense", "unix://", "fd://3", "ssh://nobody@127.0.0.1:9"]
)
def test_addresses_that_lead_nowhere(nowhere: pytest.MonkeyPatch, url: str) -> None:
    nowhere.setenv("DOCKER_HOST", url)
    error = failure(lambda: open_engine("app", engines=("docker",)), EngineError)
    assert url in str(error)


def test_something_else_answers(engine: FakeEngine) -> None:
    engine.answers["/_ping"] = engine.answers["/version"] = (200, b"<html>hello</html>")
    failure(lambda: open_engine("kit", engines=("docker",)), EngineError)
    engine.answers["/version"] = (200, b"{}")
    failure(lambda: open_engine("kit", engines=("docker",)), EngineError)
    del engine.answers["/version"], engine.answers["/_ping"]
    for body in (b"[]", b"{}", b"null", b"not json", b'{"Id": 3}'):
        engine.answers["/images/kit/json"] = (200, body)
        failure(lambda: open_engine("kit", engines=("docker",)), EngineError)


@pytest.mark.parametrize(
    "more",
    [
        {"RootFS": None},
        {"RootFS": 3},
        {"RootFS": {"Layers": None}},
        {"Size": "x", "Os": 3, "Architecture": None},
    ],
)
def test_odd_answers_end_in_a_source_or_an_error(engine: FakeEngine, more: dict[str, Any]) -> None:
    engine.add(KIT, "kit:latest", **more)
    engine.answers[f"/images/{KIT.image_id}/history"] = (
        200,
        b'[3, {"Created": 1e99}, {"Created": 1152921504606846976}]',
    )
    with open_engine("kit:latest") as source:
        assert json.loads(source.config)["os"]


def test_an_api_that_is_too_old(engine: FakeEngine) -> None:
    engine.api_version = "1.18"
    error = failure(lambda: open_engine("kit", engines=("docker",)), EngineError)
    assert "too old" in str(error)


def test_an_engine_that_fails_to_answer(engine: FakeEngine) -> None:
    engine.answers["/images/kit/json"] = (500, b'{"message": "open /var/lib/docker: input/output\\nerror"}')
    error = failure(lambda: open_engine("kit", engines=("docker",)), EngineError)
    assert "HTTP 500" in str(error) and "input/output error" in str(error)


def test_an_engine_that_does_not_answer(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker_engine, "_ANSWER_TIMEOUT_S", 0.3)

    monkeypatch.setattr(Handler, "do_GET", _slow(Handler.do_GET))
    error = failure(lambda: open_engine("kit", engines=("docker",)), EngineError)
    assert "no answer in time" in str(error)


def _slow(answer: Callable[[Handler], None]) -> Callable[[Handler], None]:
    def slow(handler: Handler) -> None:
        if "/images/" in handler.path:
            time.sleep(1)
        with contextlib.suppress(BrokenPipeError):
            answer(handler)

    return slow


@pytest.mark.parametrize("plainly", [True, False], ids=["plainly", "by-the-sdk"])
@pytest.mark.parametrize("after", [0, 1, 40_000, len(ARCHIVE) - 1])
def test_an_engine_that_goes_away_in_mid_export(
    engine: FakeEngine, tmp_path: Path, after: int, plainly: bool
) -> None:
    engine.break_off_after = after
    engine.tells_version = plainly
    descriptors = len(os.listdir("/proc/self/fd"))
    with open_engine("kit:latest") as source:
        error = failure(lambda: source.config, EngineError)
    assert "broke off after" in str(error) and "the connection ended" in str(error)
    assert left_behind(tmp_path) == []
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 2  # the server's side may close later


@pytest.mark.parametrize("plainly", [True, False], ids=["plainly", "by-the-sdk"])
def test_an_export_that_is_refused(engine: FakeEngine, tmp_path: Path, plainly: bool) -> None:
    engine.tells_version = plainly
    engine.answers[f"/images/{KIT.image_id}/get"] = (500, b'{"message": "no space left on device"}')
    with open_engine("kit:latest") as source:
        error = failure(lambda: source.config, EngineError)
    assert "HTTP 500" in str(error) and "no space left on device" in str(error)
    assert left_behind(tmp_path) == []


def test_an_error_at_the_end_of_an_export(engine: FakeEngine) -> None:
    """Once bytes are out, moby can only append the error to them, and the stream ends as if all were well."""
    said = b'{"errorDetail":{"message":"open layer.tar-split.gz:\\nno such file"},"error":"no such file"}\r\n'
    engine.archive = ARCHIVE[:20_000] + said
    with open_engine("kit:latest") as source:
        error = failure(lambda: source.config, EngineError)
    assert "open layer.tar-split.gz: no such file" in str(error)


def test_an_error_in_the_middle_of_the_zeros_of_an_archive(engine: FakeEngine) -> None:
    """What ends in zeros may be the end, or a pause; only where the archive's own end has come is there no wait."""
    end = len(ARCHIVE.rstrip(b"\0"))
    said = b'{"errorDetail":{"message":"gone"},"error":"gone"}'
    engine.chunk = 512
    engine.archive = ARCHIVE[: end + -end % 512] + bytes(512) + said
    with open_engine("kit:latest") as source:
        assert "gone" in str(failure(lambda: source.config, EngineError))


def test_the_end_of_an_archive_is_the_end_of_the_export(engine: FakeEngine) -> None:
    """An engine removes what it gathered before it ends its answer, which takes a while for a large image."""
    engine.lingers_for_s = 5
    begun = time.monotonic()
    with open_engine("kit:latest") as source:
        assert source.config == KIT.config
        for layer, data in zip(source.layers, KIT.layers, strict=True):
            assert layer.open().read() == data
        assert [layer.stored_range().sha256 for layer in source.layers] == KIT.diff_ids  # type: ignore[union-attr]
    assert time.monotonic() - begun < 3


def test_zeros_in_a_layer_are_no_end(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each chunk comes after a pause and ends in zeros; the archive goes on behind all of them but the last."""
    sparse = imagekit.image([imagekit.layer({"/a": bytes(20_000), "/b": b"b" * 20_000})])
    engine.add(sparse, "sparse:1")
    engine.archive, engine.chunk = imagekit.tar_of(imagekit.docker_archive_old(sparse)), 4096
    monkeypatch.setattr(Handler, "setup", _hesitant(Handler.setup))
    with open_engine("sparse:1") as source:
        assert [layer.open().read() for layer in source.layers] == list(sparse.layers)


def _hesitant(setup: Callable[[Handler], None]) -> Callable[[Handler], None]:
    """Every answer but the shortest waits a little longer than its reader before it looks whether that was all."""

    class Slow:
        def __init__(self, below: Any) -> None:
            self._below = below

        def write(self, data: bytes) -> int:
            if len(data) > 4000:
                time.sleep(0.012)
            return int(self._below.write(data))

        def __getattr__(self, name: str) -> Any:
            return getattr(self._below, name)

    def slow(handler: Handler) -> None:
        setup(handler)
        handler.wfile = Slow(handler.wfile)  # type: ignore[assignment]

    return slow


def test_something_is_done_while_the_engine_prepares(engine: FakeEngine) -> None:
    asked: list[list[str]] = []
    with open_engine("kit:latest", meanwhile=lambda: asked.append(list(engine.asked))) as source:
        assert asked == []
        assert source.config == KIT.config
        assert source.layers
    assert len(asked) == 1


def test_an_empty_export(engine: FakeEngine) -> None:
    engine.archive = b""
    with open_engine("kit:latest") as source:
        assert "empty" in str(failure(lambda: source.config, EngineError))


def test_an_export_cut_short_without_a_word(engine: FakeEngine, tmp_path: Path) -> None:
    engine.archive = ARCHIVE[: len(ARCHIVE) // 2]
    with open_engine("kit:latest") as source:
        failure(lambda: source.config, InvalidImageError)
    assert left_behind(tmp_path) == []


def test_an_export_of_another_image(engine: FakeEngine) -> None:
    engine.archive = imagekit.tar_of(imagekit.docker_archive_old(imagekit.other("kit:latest")))
    with open_engine("kit:latest") as source:
        error = failure(lambda: source.config, InvalidImageError)
    assert "has 1 layers, and not the 4" in str(error)


def test_no_room_for_the_export(engine: FakeEngine, tmp_path: Path, nowhere: pytest.MonkeyPatch) -> None:
    nowhere.setenv("TMPDIR", str(tmp_path / "missing"))
    with open_engine("kit:latest") as source:
        error = failure(lambda: source.config, SpoolError)
    assert str(tmp_path / "missing") in str(error) and "TMPDIR" in error.hint


def test_another_platform(engine: FakeEngine) -> None:
    error = failure(lambda: open_engine("kit:latest", platform=Platform("linux", "arm64")), PlatformError)
    assert "for linux/amd64 only, not for linux/arm64" in str(error)
    assert "--platform linux/amd64" in error.hint
    open_engine("kit:latest", platform=Platform("linux", "amd64")).close()


def test_an_engine_that_holds_several_platforms(engine: FakeEngine) -> None:
    """From API 1.48 inspect lists them (containerd's image store)."""
    engine.api_version = "1.48"
    there = [
        {
            "Kind": "image",
            "Available": True,
            "ImageData": {"Platform": {"os": "linux", "architecture": "amd64"}},
        },
        {
            "Kind": "image",
            "Available": True,
            "ImageData": {"Platform": {"os": "linux", "architecture": "s390x"}},
        },
        {
            "Kind": "image",
            "Available": False,
            "ImageData": {"Platform": {"os": "linux", "architecture": "arm64"}},
        },
        {"Kind": "attestation", "Available": True, "AttestationData": {}},
    ]
    engine.add(KIT, "kit:latest", Manifests=there)
    open_engine("kit:latest", platform=Platform("linux", "s390x")).close()
    error = failure(lambda: open_engine("kit:latest", platform=Platform("linux", "arm64")), PlatformError)
    assert "for linux/amd64, linux/s390x only" in str(error)


@pytest.mark.parametrize("name", ["App", "a b", "app:", "a//b", "-x", "a:b:c"])
def test_names_that_cannot_be(engine: FakeEngine, name: str) -> None:
    failure(lambda: open_engine(name), UsageError)
    assert engine.asked == []


# --- where engines are looked for -------------------------------------------------------------------------


def context(folder: Path, name: str, meta: object) -> None:
    key = hashlib.sha256(name.encode()).hexdigest()
    target = folder / "contexts" / "meta" / key / "meta.json"
    target.parent.mkdir(parents=True)
    target.write_text(meta if isinstance(meta, str) else json.dumps(meta))


def test_docker_host_wins(tmp_path: Path) -> None:
    """docker/cli: DOCKER_HOST before DOCKER_CONTEXT before currentContext before the usual socket."""
    client = tmp_path / "client"
    for name in ("one", "two"):
        context(client, name, {"Name": name, "Endpoints": {"docker": {"Host": f"unix:///{name}.sock"}}})
    (client / "config.json").write_text('{"currentContext": "one"}')
    environment = {"DOCKER_CONFIG": str(client), "DOCKER_CONTEXT": "two", "DOCKER_HOST": "tcp://host:1"}
    assert endpoints("docker", environment) == [
        Endpoint("docker", "tcp://host:1", "DOCKER_HOST", None, False)
    ]
    del environment["DOCKER_HOST"]
    assert [place.url for place in endpoints("docker", environment)] == ["unix:///two.sock"]
    del environment["DOCKER_CONTEXT"]
    assert [place.url for place in endpoints("docker", environment)] == ["unix:///one.sock"]
    environment["DOCKER_CONTEXT"] = "default"
    assert [place.url for place in endpoints("docker", environment)] == ["unix:///var/run/docker.sock"]
    for damaged in ("not json", "[]", '{"currentContext": 3}'):
        (client / "config.json").write_text(damaged)
        assert [place.url for place in endpoints("docker", {"DOCKER_CONFIG": str(client)})] == [
            "unix:///var/run/docker.sock"
        ]


def test_the_client_folder_is_in_the_home_by_default(tmp_path: Path) -> None:
    context(tmp_path / ".docker", "mine", {"Endpoints": {"docker": {"Host": "unix:///mine.sock"}}})
    found = endpoints("docker", {"HOME": str(tmp_path), "DOCKER_CONTEXT": "mine"})
    assert [place.url for place in found] == ["unix:///mine.sock"]
    assert str(found[0]) == 'docker (unix:///mine.sock, from context "mine")'


@pytest.mark.parametrize("meta", ["not json", "[]", {}, {"Endpoints": {}}, {"Endpoints": {"docker": []}}])
def test_a_context_that_cannot_be_read(tmp_path: Path, meta: object) -> None:
    context(tmp_path, "bad", meta)
    environment = {"DOCKER_CONFIG": str(tmp_path), "DOCKER_CONTEXT": "bad"}
    error = failure(lambda: endpoints("docker", environment), EngineError)
    assert "'bad'" in str(error) and "docker context ls" in error.hint
    environment["DOCKER_CONTEXT"] = "none"
    assert "does not exist" in str(failure(lambda: endpoints("docker", environment), EngineError))


def test_tls_is_taken_from_where_the_client_has_it(tmp_path: Path) -> None:
    environment = {"DOCKER_HOST": "tcp://h:2376", "DOCKER_TLS_VERIFY": "1", "HOME": str(tmp_path)}
    assert endpoints("docker", environment)[0].certificates == tmp_path / ".docker"
    environment["DOCKER_CERT_PATH"] = "/certs"
    assert endpoints("docker", environment)[0].certificates == Path("/certs")
    assert endpoints("docker", environment)[0].verify_tls
    context(tmp_path, "tls", {"Endpoints": {"docker": {"Host": "tcp://h:2376", "SkipTLSVerify": False}}})
    key = hashlib.sha256(b"tls").hexdigest()
    (tmp_path / "contexts" / "tls" / key / "docker").mkdir(parents=True)
    found = endpoints("docker", {"DOCKER_CONFIG": str(tmp_path), "DOCKER_CONTEXT": "tls"})[0]
    assert found.certificates == tmp_path / "contexts" / "tls" / key / "docker" and found.verify_tls


def test_certificates_that_are_missing(nowhere: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nowhere.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    nowhere.setenv("DOCKER_TLS_VERIFY", "1")
    nowhere.setenv("DOCKER_CERT_PATH", str(tmp_path / "none"))
    failure(lambda: open_engine("app", engines=("docker",)), EngineError)


def test_where_podman_is() -> None:
    assert endpoints("podman", {"CONTAINER_HOST": "unix:///p.sock"}) == [
        Endpoint("podman", "unix:///p.sock", "CONTAINER_HOST")
    ]
    found = [place.url for place in endpoints("podman", {"XDG_RUNTIME_DIR": "/run/user/1000/"})]
    assert found == ["unix:///run/user/1000/podman/podman.sock", "unix:///run/podman/podman.sock"]
    assert endpoints("podman", {})[-1].url == "unix:///run/podman/podman.sock"


def test_podman_over_ssh(nowhere: pytest.MonkeyPatch) -> None:
    nowhere.setenv("CONTAINER_HOST", "ssh://user@host/run/podman.sock")
    error = failure(lambda: open_source("podman://app"), EngineError)
    assert "ssh" in str(error) and "ssh -L" in error.hint


def test_the_sdk_is_not_loaded_where_no_engine_is() -> None:
    program = (
        "import sys\n"
        "from layerlens.errors import EngineError\n"
        "from layerlens.sources.opening import open_source\n"
        "try:\n"
        "    open_source('app')\n"
        "except EngineError:\n"
        "    print(sorted({'docker', 'requests', 'urllib3'} & set(sys.modules)))\n"
    )
    environment = {
        **os.environ,
        "DOCKER_HOST": "unix:///nonexistent/docker.sock",
        "CONTAINER_HOST": "unix:///nonexistent/podman.sock",
    }
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.stdout == "[]\n", done.stderr


# --- real engines -----------------------------------------------------------------------------------------


def real(*tags: str) -> imagekit.BuiltImage:
    """An image that engines unpack (the sample's attributes and devices need more than they give)."""
    base = imagekit.layer({"/etc/": imagekit.DIR, "/etc/motd": b"hello\n", "/bin/sh": b"#!" * 40_000})
    app = imagekit.layer({"/app/": imagekit.DIR, "/app/main": b"main", "/etc/motd": b"bye\n"})
    again = imagekit.layer({"/app/more": b"more" * 5000}, whiteouts=["/app/main"])
    labels = {"for": "layerlens' tests"}
    return imagekit.image([base, app, again], config={"Labels": labels}, tags=tags)


REAL = real()


def docker_client(*args: str, stdin: bytes | None = None) -> str:
    done = subprocess.run(["docker", *args], input=stdin, capture_output=True, check=True)
    return done.stdout.decode().strip()


@pytest.fixture
def loaded() -> Iterator[str]:
    """An image in the real docker, under a tag of its own, which is given."""
    tag = f"layerlens-test/engine-{os.getpid()}:one"
    built = real(tag)
    docker_client("load", "-q", stdin=imagekit.tar_of(imagekit.docker_archive_old(built)))
    yield tag
    docker_client("rmi", "-f", tag)


def same_as_real(source: EngineSource) -> None:
    with source:
        assert source.image_id == REAL.image_id
        assert source.config == REAL.config
        assert [layer.diff_id for layer in source.layers] == REAL.diff_ids
        for layer, data in zip(source.layers, REAL.layers, strict=True):
            with layer.open() as stream:
                got = stream.read()
            assert "sha256:" + hashlib.sha256(got).hexdigest() == layer.diff_id
            assert got == data


@pytest.mark.engine
def test_a_real_engine_by_tag_and_id(loaded: str) -> None:
    hexadecimal = REAL.image_id.removeprefix("sha256:")
    for name in (loaded, REAL.image_id, hexadecimal, hexadecimal[:12], f"sha256:{hexadecimal[:12]}"):
        same_as_real(open_engine(name, engines=("docker",)))
    source = open_source(f"docker://{loaded}")
    assert source.reference == f"docker://{loaded}"
    source.close()


@pytest.mark.engine
def test_a_real_engine_whose_tag_is_missing(loaded: str) -> None:
    other = loaded.replace(":one", ":two")
    error = failure(lambda: open_engine(other, engines=("docker",)), ImageNotFoundError)
    assert error.hint == f"Did you mean {loaded}?"
    docker_client("tag", loaded, loaded.replace(":one", ":latest"))
    try:
        same_as_real(open_engine(loaded.removesuffix(":one"), engines=("docker",)))
    finally:
        docker_client("rmi", loaded.replace(":one", ":latest"))


@pytest.mark.engine
def test_a_real_engine_through_a_context(
    loaded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    docker_client("context", "create", "tried", "--docker", f"host={host}")
    monkeypatch.setenv("DOCKER_HOST", "")
    monkeypatch.setenv("DOCKER_CONTEXT", "tried")
    same_as_real(open_engine(loaded, engines=("docker",)))
    monkeypatch.delenv("DOCKER_CONTEXT")
    docker_client("context", "use", "tried")
    same_as_real(open_engine(loaded, engines=("docker",)))


@pytest.mark.engine
def test_a_real_engine_has_an_image_without_layers(tmp_path: Path) -> None:
    tag = f"layerlens-test/empty-{os.getpid()}"
    (tmp_path / "Dockerfile").write_text('FROM scratch\nLABEL maker=kit\nENV A=1\nCMD ["/x"]\n')
    docker_client("build", "-q", "-t", tag, str(tmp_path))
    try:
        with open_engine(tag, engines=("docker",)) as source:
            assert list(source.layers) == []
            config = json.loads(source.config)
            assert config["config"]["Labels"] == {"maker": "kit"}
            assert "A=1" in config["config"]["Env"]
            assert len(config["history"]) == 3
            assert config["history"][0]["created_by"].endswith("LABEL maker=kit")
    finally:
        docker_client("rmi", "-f", tag)


@pytest.mark.engine
def test_a_real_engine_has_another_platform(loaded: str) -> None:
    error = failure(lambda: open_engine(loaded, platform=Platform("linux", "s390x")), PlatformError)
    assert "linux/amd64 only" in str(error)


@pytest.mark.podman
def test_a_real_podman() -> None:
    name = f"layerlens-test-podman-{os.getpid()}"
    built = real(f"localhost/{name}:one")
    _podman("POST", "/images/load?quiet=1", imagekit.tar_of(imagekit.docker_archive_old(built)))
    try:
        for asked in (f"{name}:one", f"localhost/{name}:one", REAL.image_id, REAL.image_id[7:19]):
            with open_engine(asked, engines=("podman",)) as source:
                assert source.image_id == REAL.image_id
                assert [layer.diff_id for layer in source.layers] == REAL.diff_ids
                config = json.loads(source.config)
                assert config["config"] == json.loads(REAL.config)["config"]
                for layer, data in zip(source.layers, REAL.layers, strict=True):
                    with layer.open() as stream:
                        assert stream.read() == data
        error = failure(lambda: open_source(f"podman://{name}:two"), ImageNotFoundError)
        assert error.hint == f"Did you mean localhost/{name}:one?"
    finally:
        _podman("DELETE", f"/images/localhost/{name}:one?force=1", None)


def _podman(method: str, path: str, body: bytes | None) -> None:
    """One request to podman's Docker-compatible API, without the code under test."""
    import http.client
    import socket

    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(os.environ["CONTAINER_HOST"].removeprefix("unix://"))
    connection.request(method, path, body, {"Content-Type": "application/x-tar"})
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    answer.read()
    connection.close()


# --- without the SDK ------------------------------------------------------------------------------------------


def test_a_question_needs_no_sdk(engine: FakeEngine, cli: CommandLine) -> None:
    """Importing docker takes longer than the answer, and neither a question nor an export needs it."""
    script = (
        "import sys\n"
        "from layerlens.sources.docker_engine import open_engine\n"
        "with open_engine('kit:latest', engines=('docker',)) as source:\n"
        "    print(source.image_id, *(layer.diff_id for layer in source.layers))\n"
        "print('docker' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=cli.env(DOCKER_HOST=engine.url),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [KIT.image_id, *KIT.diff_ids, "False"]
    assert engine.asked[:2] == ["/_ping", "/images/kit:latest/json"]
    assert engine.asked[-1] == f"/images/{KIT.image_id}/get"


def test_an_engine_that_does_not_tell_its_version_is_asked_by_the_sdk(engine: FakeEngine) -> None:
    engine.tells_version = False
    with open_engine("kit:latest", engines=("docker",)) as source:
        assert source.image_id == KIT.image_id
        assert source.config == KIT.config
        for layer, data in zip(source.layers, KIT.layers, strict=True):
            assert layer.open().read() == data
    assert engine.asked[:3] == ["/_ping", "/version", "/images/kit:latest/json"]
    assert engine.asked[-1] == f"/images/{KIT.image_id}/get"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Type: application/json\r\n\r\nnot json",
        b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\n\r\n\xff\xfe",
        b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Length: 9\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nApi-Version: one\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\n\r\n{}",
        b"HTTP/1.1 OK\r\nApi-Version: 1.41\r\n\r\n{}",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Type: application/json\r\n\r\n" + b"[" * 100_000,
    ],
)
def test_what_is_not_an_engines_answer_is_none(folder: Path, answer: bytes) -> None:
    with answering(folder / "socket", answer) as path:
        assert plainhttp.get(path, "/version", 5) is None


def test_a_plain_answer(folder: Path) -> None:
    said = (
        b"HTTP/1.0 404 Not Found\r\nAPI-version: 1.54\r\nContent-Type: application/json; charset=utf-8\r\n"
        b'Content-Length: 8\r\n\r\n{"a": 1}'
    )
    with answering(folder / "socket", said) as path:
        assert plainhttp.get(path, "/images/a:b/json", 5) == (404, (1, 54), {"a": 1})
        assert plainhttp.get(path, "/images/a b/json", 5) is None  # would need quoting
        assert plainhttp.get(path, "/images/\r\nX: y/json", 5) is None


HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def streamed(folder: Path, answer: bytes, size: int = 1 << 20) -> bytes | None:
    with answering(folder / "socket", answer) as path:
        stream = plainhttp.stream(path, "/images/a/get", 5)
        if stream is None:
            return None
        found = b""
        with stream:
            while True:
                buffer = bytearray(size)
                count = stream.readinto(buffer)
                found += buffer[:count]
                assert stream.position == len(found)
                if count < size:
                    assert stream.readinto(buffer) == 0
                    return found


@pytest.mark.parametrize("size", [1, 7, 4096, 1 << 20])
@pytest.mark.parametrize("longest", [1, 16, 17, 5000, 600_000])
def test_chunks_of_every_size(folder: Path, size: int, longest: int) -> None:
    """What http.client makes of the same answer is the oracle."""
    numbers = random.Random(longest)
    data = numbers.randbytes(min(1_500_000, longest * 50, size * 5000))
    body, at = b"", 0
    while at < len(data):
        piece = data[at : at + (longest if numbers.random() < 0.7 else numbers.randint(1, longest))]
        at += len(piece)
        body += b"%x" % len(piece) + numbers.choice([b"", b"", b";a=b"]) + b"\r\n" + piece + b"\r\n"
    answer = HEAD + body + b"0\r\n\r\n"

    class Connection:
        def makefile(self, *_: object) -> io.BytesIO:
            return io.BytesIO(answer)

    response = http.client.HTTPResponse(Connection())  # type: ignore[arg-type]
    response.begin()
    assert response.read() == data
    assert streamed(folder, answer, size) == data


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"x" * 200_000,
    ],
)
def test_what_the_sdk_is_to_ask_for(folder: Path, answer: bytes) -> None:
    assert streamed(folder, answer) is None
    assert plainhttp.stream(folder / "nothing", "/images/a b/get", 5) is None  # would need quoting


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"5",
        b"5\r\n",
        b"5\r\nabc",
        b"5\r\nabcde",
        b"5\r\nabcde\r\n",
        b"5\r\nabcdefgh\r\n0\r\n\r\n",
        b"-5\r\nabcde\r\n0\r\n\r\n",
        b"0x5\r\nabcde\r\n0\r\n\r\n",
        b"5_0\r\nabcde\r\n0\r\n\r\n",
        b"\r\n0\r\n\r\n",
        b"1" * 17 + b"\r\nx",
        b"x" * 100_000,
        b"5\r\nabcde" + b"x" * 100_000,
    ],
)
def test_chunks_that_break_off_or_are_none(folder: Path, body: bytes) -> None:
    with pytest.raises(OSError):
        streamed(folder, HEAD + body)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\n"])
def test_an_answer_that_breaks_off_in_its_head(folder: Path, answer: bytes) -> None:
    with pytest.raises(OSError):
        streamed(folder, answer)


def test_nobody_answers_plainly(folder: Path) -> None:
    with pytest.raises(FileNotFoundError):
        plainhttp.get(folder / "nothing", "/version", 5)
    with answering(folder / "socket", b"HTTP", hangs_s=1) as path, pytest.raises(TimeoutError):
        plainhttp.get(path, "/version", 0.2)


@contextlib.contextmanager
def answering(path: Path, answer: bytes, hangs_s: float = 0) -> Iterator[Path]:
    """A socket that says the same whatever it is asked, and hangs up after a while."""

    class Same(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline().strip():
                pass
            with contextlib.suppress(BrokenPipeError):
                self.wfile.write(answer)
                self.wfile.flush()
                time.sleep(hangs_s)

    with Server(str(path), Same) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield path
        finally:
            server.shutdown()
            thread.join()
