"""Which image a runtime stage stands on."""

from __future__ import annotations

import re
import tomllib

import pytest
import treekit
from conftest import ROOT
from imagekit import Member
from plankit import RUN, base_of, config

from layerlens.runtime import (
    Base,
    catalogued,
    choose,
    in_tree,
    installer,
    name_for_from,
    opened_first,
    servers,
)

BOOKWORM: dict[str, Member] = {
    "/etc/os-release": b'ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n',
    "/usr/bin/apt-get": RUN,
}


@pytest.mark.parametrize(
    ("kept", "env", "images", "musl"),
    [
        (
            "/usr/local/bin/node",
            ["NODE_VERSION=18.20.8"],
            ("node:18-bookworm-slim", "node:18-slim"),
            ("node:18-alpine",),
        ),
        (
            "/usr/local/bin/python3.11",
            [],
            ("python:3.11-slim-bookworm", "python:3.11-slim"),
            ("python:3.11-alpine",),
        ),
        (
            "/usr/local/bin/python3.9",
            ["PYTHON_VERSION=3.12.1"],
            ("python:3.12-slim-bookworm", "python:3.12-slim"),
            ("python:3.12-alpine",),
        ),
        (
            "/usr/local/bin/ruby",
            ["RUBY_VERSION=3.3.0"],
            ("ruby:3.3-slim-bookworm", "ruby:3.3-slim"),
            ("ruby:3.3-alpine",),
        ),
        (
            "/opt/java/openjdk/bin/java",
            ["JAVA_VERSION=jdk-17.0.19+10"],
            ("eclipse-temurin:17-jre-bookworm", "eclipse-temurin:17-jre"),
            ("eclipse-temurin:17-jre-alpine",),
        ),
        ("/app/program", [], ("debian:bookworm-slim",), ()),
    ],
)
def test_families_and_distributions(
    kept: str, env: list[str], images: tuple[str, ...], musl: tuple[str, ...]
) -> None:
    filesystem = treekit.fs({**BOOKWORM, kept: RUN})
    choice = choose(filesystem, config(Env=env), {kept}, set())
    assert (choice.images, choice.musl) == (images, musl) and choice.reason


def test_an_interpreter_of_the_distributions_is_a_package_to_install() -> None:
    kept = "/usr/local/bin/node"
    choice = choose(treekit.fs({**BOOKWORM, kept: RUN}), config(), {kept}, {kept})
    assert choice.images == ("debian:bookworm-slim",)


def test_where_nothing_is_known_no_image_is_named() -> None:
    assert choose(treekit.fs({"/x": RUN}), config(), {"/x"}, set()).images == ()
    odd = treekit.fs({"/etc/os-release": b"ID=debian\n", "/usr/local/bin/node": RUN})
    assert choose(odd, config(), {"/usr/local/bin/node"}, set()).images == ()


def test_servers_of_static_sites() -> None:
    assert servers(treekit.fs(BOOKWORM)).images == ("nginx:bookworm", "nginx:stable", "nginx:latest")
    alpine = servers(treekit.fs({"/etc/os-release": b"ID=alpine\nVERSION_ID=3.20.1\n"}))
    assert alpine.images == ("nginx:alpine", "nginx:stable", "nginx:latest")
    assert alpine.musl == ("nginx:alpine",)


def test_trees_are_patterns_of_leading_components() -> None:
    patterns = ["/usr/local/lib/python3.*", "/opt/yarn-*"]
    assert in_tree("/usr/local/lib/python3.11/os.py", patterns)
    assert in_tree("/opt/yarn-v1.22", patterns)
    assert not in_tree("/usr/local/lib/libpython3.11.so", patterns)
    assert not in_tree("/usr/local/lib", patterns)


def test_the_catalogue_knows_official_images_by_all_their_names() -> None:
    for name in (
        "node:18-alpine",
        "docker.io/library/node:18-alpine",
        "library/node:18-alpine",
        "docker://node:18-alpine",
    ):
        base = catalogued(name)
        assert base is not None and base.libc == "musl" and not base.opened and base.reference == name
    assert catalogued("alpine") == Base(
        "alpine",
        catalogued("alpine:latest").size_bytes,
        source=catalogued("alpine:latest").source,
        libc="musl",  # type: ignore[union-attr]
    )
    assert catalogued("registry.example/node:18-alpine") is None and catalogued("nosuch:1") is None


def test_every_row_of_the_catalogue_is_cited() -> None:
    rows = tomllib.loads((ROOT / "layerlens" / "base_sizes.toml").read_text())
    assert len(rows) >= 10
    for name, row in rows.items():
        assert row.keys() == {"size_bytes", "libc", "source"}, name
        assert re.fullmatch(r"[a-z-]+:[\w.-]+", name) and 1_000_000 < row["size_bytes"] < 2_000_000_000
        assert row["libc"] == ("musl" if "alpine" in name else "glibc")
        assert "repo-info" in row["source"] and re.search(r"20\d\d", row["source"])


def test_every_family_says_where_its_names_come_from() -> None:
    table = tomllib.loads((ROOT / "layerlens" / "bases.toml").read_text())
    for row in (*table["family"], *table["distribution"], *table["server"]):
        assert row["source"] and row["slim"]


def test_what_can_be_opened_comes_before_what_only_the_catalogue_knows() -> None:
    opened = base_of({"/bin/sh": RUN}, "b:1")
    asked = []

    def open_base(name: str) -> Base | None:
        asked.append(name)
        return {"a:1": Base("a:1", 5, source="a book"), "b:1": opened}.get(name)

    found = opened_first(["a:1", "gone:1", "b:1", "c:1"], open_base)
    assert next(found) is opened and asked == ["a:1", "gone:1", "b:1"]
    assert [base.reference for base in found] == ["a:1"]


def test_packages_are_installed_in_the_same_release_alone() -> None:
    filesystem = treekit.fs(BOOKWORM)
    assert installer(filesystem, base_of(BOOKWORM), "dpkg") is not None
    assert installer(filesystem, base_of(BOOKWORM), "apk") is None
    other = {**BOOKWORM, "/etc/os-release": b"ID=debian\nVERSION_ID=13\nVERSION_CODENAME=trixie\n"}
    assert installer(filesystem, base_of(other), "dpkg") is None
    assert installer(filesystem, Base("slim:1", 5), "dpkg") is None


@pytest.mark.parametrize(
    ("reference", "name", "is_known"),
    [
        ("myapp:1", "myapp:1", True),
        ("docker://myapp:1", "myapp:1", True),
        ("docker-archive:app.tar:team/app:2", "team/app:2", True),
        ("./build/My App.tar.gz", "my-app:latest", False),
        ("oci:layouts/web/", "web:latest", False),
        ("docker-archive:app.tar:@1", "app:latest", False),
        ("-", "image:latest", False),
    ],
)
def test_what_a_from_line_calls_an_image(reference: str, name: str, is_known: bool) -> None:
    assert name_for_from(reference) == (name, is_known)
