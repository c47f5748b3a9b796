"""Why a file is not needed: what names it, and the sentence that says so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import imagekit
import pytest
from imagekit import Dir, File, Member, Symlink
from needskit import needs, program

from layerlens import open_image
from layerlens.unneeded import MOST_EDGES, Unneeded, required_name

STATUS = """Package: app
Status: install ok installed
Version: 1
Depends: libused

Package: libused
Status: install ok installed
Version: 1

Package: builder
Status: install ok installed
Version: 2
Depends: libtool (>= 1) | other

Package: libtool
Status: install ok installed
Version: 3
"""

TREE: Mapping[str, Member] = {
    "/bin/sh": program(),
    "/srv/start": File(mode=0o755, data=b"#!/bin/sh\nexec /srv/app\n"),
    "/srv/app": program(),
    "/srv/old": File(mode=0o755, data=b"#!/bin/sh\nexec /srv/helper\n"),
    "/srv/helper": program(),
    "/srv/link": Symlink("helper"),
    "/srv/empty": Dir(),
    "/srv/notes/readme": File(data=b"words"),
    "/usr/lib/libtool.so": File(data=b"x"),
    "/usr/lib/libused.so": File(data=b"y"),
    "/usr/share/doc/libused/copyright": File(data=b"z"),
    "/var/lib/dpkg/status": File(data=STATUS.encode()),
    "/var/lib/dpkg/info/app.list": File(data=b"/srv/app\n"),
    "/var/lib/dpkg/info/libused.list": File(data=b"/usr/lib/libused.so\n/usr/share/doc/libused/copyright\n"),
    "/var/lib/dpkg/info/builder.list": File(data=b"/usr/bin/builder\n"),
    "/var/lib/dpkg/info/libtool.list": File(data=b"/usr/lib/libtool.so\n"),
}


STARTER = File(mode=0o755, data=b'#!/bin/sh\nexec "$@"\n')


def answer(found: Unneeded, path: str) -> tuple[list[tuple[str, str]], str]:
    named = found.named_by(path)
    return [(edge.source, edge.kind) for edge in named], found.reason(path, named)


@pytest.mark.parametrize("all_at_once", [False, True])
def test_what_names_a_dropped_file(all_at_once: bool) -> None:
    found = Unneeded(needs(TREE, cmd=["/srv/start"]))
    if all_at_once:
        found.find_all()
    named, reason = answer(found, "/srv/helper")
    assert ("/srv/old", "command") in named
    assert ("/srv/link", "symlink") in named
    assert reason.endswith("but nothing that is kept needs that (1 more do)")
    assert answer(found, "/srv/old") == ([], "nothing in the image names it")
    assert answer(found, "/srv/notes/readme") == ([], "nothing in the image names it")
    assert answer(found, "/srv/empty") == ([], "an empty directory that nothing asks for")
    assert answer(found, "/srv/notes") == ([], "nothing below it is needed")


@pytest.mark.parametrize("all_at_once", [False, True])
def test_packages_that_require_its_own(all_at_once: bool) -> None:
    found = Unneeded(needs(TREE, cmd=["/srv/start"]))
    if all_at_once:
        found.find_all()
    named, reason = answer(found, "/usr/lib/libtool.so")
    assert [kind for _, kind in named] == ["depends"]
    assert "builder requires libtool (>= 1) | other" in reason
    assert "nothing that is kept needs that" in reason


def test_a_package_that_is_kept_without_some_of_its_files() -> None:
    kept = needs(TREE, cmd=["/srv/start", "/usr/lib/libused.so"])
    assert "/usr/lib/libused.so" in kept.kept
    found = Unneeded(kept)
    assert answer(found, "/usr/share/doc/libused/copyright") == (
        [],
        "its package dpkg:libused is needed, but without its docs; nothing in the image names it",
    )


def test_a_package_whose_own_files_alone_need_one_another() -> None:
    found = Unneeded(
        needs(
            {
                **TREE,
                "/usr/bin/node": program(),
                "/app/node_modules/tool/package.json": File(
                    data=b'{"name": "tool", "version": "1", "main": "a.js"}'
                ),
                "/app/node_modules/tool/a.js": File(data=b'require("./lib/b");\n'),
                "/app/node_modules/tool/lib/b.js": File(data=b""),
                "/app/node_modules/tool/lib/c.js": File(data=b""),
            },
            cmd=["/srv/start"],
        )
    )
    assert answer(found, "/app/node_modules/tool/lib/c.js")[1] == (
        "only its own package node:tool needs it, and nothing that is kept does"
    )


def test_asking_once_more_changes_no_diagnostics() -> None:
    kept = needs({**TREE, "/srv/bad.py": File(data=b"import nowhere\n")}, cmd=["/srv/start"])
    before = list(kept.diagnostics)
    found = Unneeded(kept)
    found.find_all()
    assert kept.diagnostics == before


def test_as_much_is_told_as_a_person_reads() -> None:
    many = {f"/srv/old{n:03d}": File(mode=0o755, data=b"#!/bin/sh\nexec /srv/helper\n") for n in range(60)}
    found = Unneeded(needs({**TREE, **many}, cmd=["/srv/start"]))
    assert len(found.named_by("/srv/helper")) == MOST_EDGES


@pytest.mark.parametrize(
    ("relation", "name"),
    [
        ("libc6 (>= 2.36)", "libc6"),
        ("requests>=2", "requests"),
        ("so:libz.so.1", "so:libz.so.1"),
        ("a ; b", "a"),
    ],
)
def test_required_names(relation: str, name: str) -> None:
    assert required_name(relation) == name


def test_every_live_path_has_an_answer(tmp_path: Path) -> None:
    path = tmp_path / "app.tar"
    built = imagekit.image([imagekit.layer(TREE)], config={"Cmd": ["/srv/start"]})
    path.write_bytes(imagekit.tar_of(imagekit.docker_archive_25(built)))
    with open_image(str(path)) as image:
        answers = {answer.path: answer for answer in image.whys()}
        assert set(answers) == set(image.fs.live)
        for one in answers.values():
            assert bool(one.chain) != bool(one.reason), one
            assert (one.verdict == "drop") == bool(one.reason), one
        assert answers["/srv"].chain, "a directory is shipped where something in it is"
        # Asked alone, a path gets the answer that it gets among all.
    with open_image(str(path)) as image:
        for one in answers.values():
            assert image.why(one.path) == one


def test_a_neighbourhood_shows_itself(tmp_path: Path) -> None:
    path = tmp_path / "app.tar"
    built = imagekit.image([imagekit.layer(TREE)], config={"Cmd": ["/srv/start"]})
    path.write_bytes(imagekit.tar_of(imagekit.docker_archive_25(built)))
    with open_image(str(path)) as image:
        near = image.neighbourhood("/srv/start")
        assert [edge.source for edge in near.needed_by] == ["CMD", "/bin/sh"]
        assert {edge.target for edge in near.needs} >= {"/bin/sh", "/srv/app"}
        assert near.sizes["/srv/app"] == len(program().data)
        assert "<svg " in near._repr_html_()
        dropped = image.neighbourhood("/srv/helper")
        assert dropped.needs == []
        assert {edge.source for edge in dropped.needed_by} == {"/srv/link", "/srv/old"}
        assert "nothing that is kept needs that" in dropped._repr_html_()


def test_a_script_is_told_as_one_rather_than_as_a_word() -> None:
    node = needs(
        {
            "/usr/bin/node": program(),
            "/bin/sh": program(),
            "/start": STARTER,
            "/app/server.js": File(data=b"console.log(1)\n"),
            "/app/x.txt": File(data=b""),
        },
        entrypoint=["/start"],
        cmd=["node", "server.js", "x.txt"],
        workdir="/app",
    )
    assert node.chain("/app/server.js")[-1].kind == "script"
    assert node.chain("/app/server.js")[-1].evidence == "node server.js"
    assert node.chain("/app/x.txt")[-1].kind == "literal"
