"""Which SOURCE string means what."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerlens.errors import LayerLensError, UsageError
from layerlens.sources.references import (
    full_name,
    has_no_registry,
    is_id,
    is_valid_name,
    near_matches,
    parse,
    same_image,
    split_selector,
)

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("source", "kind", "value", "selector"),
    [
        ("myapp:latest", "engine", "myapp:latest", None),
        ("myapp", "engine", "myapp", None),
        (
            "registry.example:5000/team/app@" + DIGEST,
            "engine",
            "registry.example:5000/team/app@" + DIGEST,
            None,
        ),
        ("b34b230e85d2", "engine", "b34b230e85d2", None),
        ("dir/app", "engine", "dir/app", None),
        ("app.tar:v1", "engine", "app.tar:v1", None),
        ("app.tarball", "engine", "app.tarball", None),
        ("/var/app", "path", "/var/app", None),
        ("./app", "path", "./app", None),
        ("../app", "path", "../app", None),
        (".", "path", ".", None),
        ("..", "path", "..", None),
        ("~/app", "path", "~/app", None),
        ("~someone/app", "path", "~someone/app", None),
        ("app.tar", "path", "app.tar", None),
        ("dir/app.tar.gz", "path", "dir/app.tar.gz", None),
        ("app.tgz", "path", "app.tgz", None),
        ("app.tar.zst", "path", "app.tar.zst", None),
        ("./a:b.tar", "path", "./a:b.tar", None),
        ("-", "stdin", "", None),
        ("docker://app.tar", "docker", "app.tar", None),
        ("docker://localhost:5000/app:1", "docker", "localhost:5000/app:1", None),
        ("podman://localhost/app", "podman", "localhost/app", None),
        ("docker-archive:app", "docker-archive", "app", None),
        ("docker-archive:/x/app.tar:app:1", "docker-archive", "/x/app.tar", "app:1"),
        ("docker-archive:app.tar:localhost:5000/app:1", "docker-archive", "app.tar", "localhost:5000/app:1"),
        ("docker-archive:app.tar:@1", "docker-archive", "app.tar", "@1"),
        ("oci:layout", "oci", "layout", None),
        ("oci:layout:latest", "oci", "layout", "latest"),
        ("oci:layout:", "oci", "layout", None),
        ("oci:./x.tar", "oci", "./x.tar", None),
        ("oci-archive:a/b.tar:registry/app:1", "oci-archive", "a/b.tar", "registry/app:1"),
    ],
)
def test_what_a_source_means(source: str, kind: str, value: str, selector: str | None) -> None:
    reference = parse(source)
    assert (reference.kind, reference.value, reference.selector) == (kind, value, selector)
    assert reference.text == source


@pytest.mark.parametrize(
    "source",
    ["", "docker://", "podman://", "oci:", "oci-archive::x", "docker-archive:", "s3://bucket/x", "a\0b"],
)
def test_what_can_mean_nothing(source: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(source)
    assert caught.value.hint


@given(st.text(max_size=40))
def test_any_text_is_a_source_or_a_usage_error(text: str) -> None:
    try:
        reference = parse(text)
    except LayerLensError as error:
        assert error.hint
        return
    assert reference.text == text
    assert text.endswith((reference.value, ":")) or reference.selector is not None


def test_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse("~/app.tar").path == f"{tmp_path}/app.tar"
    assert parse("docker-archive:~/app.tar:x").path == f"{tmp_path}/app.tar"
    assert parse("./~").path == "./~"


@pytest.mark.parametrize(
    ("value", "path", "selector"),
    [
        (r"C:\images\app", r"C:\images\app", None),
        (r"C:\images\app:latest", r"C:\images\app", "latest"),
        (r"C:\images\app:host:5000/x:1", r"C:\images\app", "host:5000/x:1"),
        ("images/app:latest", "images/app", "latest"),
    ],
)
def test_a_drive_letter_is_no_selector_on_windows(value: str, path: str, selector: str | None) -> None:
    assert split_selector(value, windows=True) == (path, selector)


def test_elsewhere_the_first_colon_cuts_as_for_skopeo() -> None:
    assert split_selector(r"C:\images", windows=False) == ("C", r"\images")


@pytest.mark.parametrize(
    "name",
    [
        "app",
        "app:1.0_rc-1",
        "team/app",
        "a__b/c.d-e--f",
        "localhost/app",
        "localhost:5000/a/b:c",
        "registry.example/app",
        "MYREGISTRY/app",
        "[::1]:5000/app",
        "app@" + DIGEST,
        "app:1@" + DIGEST,
        DIGEST,
        "sha256:b34b230e85d2",
        "b34b",
    ],
)
def test_names_that_an_engine_may_know(name: str) -> None:
    assert is_valid_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "App",
        "app:",
        "app:-1",
        "a:b:c",
        "app@sha256:12",
        "-app",
        "a b",
        "a//b",
        "app/",
        "",
        "ä",
        "a" * 9 + ":" + "t" * 129,
    ],
)
def test_names_that_no_engine_can_know(name: str) -> None:
    assert not is_valid_name(name)


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("app", "docker.io/library/app:latest"),
        ("team/app:1", "docker.io/team/app:1"),
        ("docker.io/app", "docker.io/library/app:latest"),
        ("index.docker.io/library/app", "docker.io/library/app:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("host:5000/app", "host:5000/app:latest"),
        ("app@" + DIGEST, "docker.io/library/app@" + DIGEST),
        ("NOT a name", "NOT a name"),
    ],
)
def test_full_names(name: str, full: str) -> None:
    assert full_name(name) == full
    assert full_name(full) == full


def test_same_image() -> None:
    assert same_image("app", "app:latest")
    assert same_image("app", "docker.io/library/app:latest")
    assert same_image("app:1", "localhost/app:1")
    assert not same_image("app:1", "localhost/app:2")
    assert not same_image("host:5000/app", "localhost/host:5000/app")
    assert not same_image("app", "team/app")
    assert has_no_registry("team/app") and not has_no_registry("host.example/app")


def test_ids() -> None:
    assert is_id("b34b230e85d2") and is_id(DIGEST) and not is_id("b34") and not is_id("app1")


def test_near_matches_put_other_tags_of_the_same_name_first() -> None:
    listed = ["node:18", "node:18-slim", "nodes:20", "python:3.11", "myapp:latest", "localhost/other:1"]
    assert near_matches("node:20", listed)[:2] == ["node:18", "node:18-slim"]
    assert near_matches("node:17-slim", listed)[0] == "node:18-slim"
    assert near_matches("myap", listed) == ["myapp:latest"]
    assert near_matches("othre:1", listed) == ["localhost/other:1"]
    assert near_matches("zzz", listed) == []
    assert near_matches("myapp:latest", []) == []
