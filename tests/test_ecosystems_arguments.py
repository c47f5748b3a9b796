"""Words of command lines that name files."""

from __future__ import annotations

from imagekit import DIR, Member
from needskit import needs, program

FILES: dict[str, Member] = {
    "/bin/app": program(),
    "/etc/app/app.conf": b"",
    "/etc/app/extra/a.conf": b"",
    "/srv/site/public/index.html": b"<html>",
    "/srv/site/public/docs/README.md": b"",
    "/srv/site/public/x.c": b"",
    "/srv/site/x.awk": b"",
    "/srv/site/test": DIR,
    "/usr/lib/big/file": b"",
    "/opt/data.json": b"{}",
}


def kept(*words: str) -> set[str]:
    found = needs(FILES, cmd=["/bin/app", *words], workdir="/srv/site")
    return set(found.kept) - {"/bin/app", "/srv/site", "/bin", "/etc", "/tmp"}


def test_files_are_named_in_many_ways() -> None:
    assert kept("--config", "/etc/app/app.conf") == {"/etc/app/app.conf"}
    assert kept("--config=/etc/app/app.conf") == {"/etc/app/app.conf"}
    assert kept("-c/etc/app/app.conf") == {"/etc/app/app.conf"}
    assert kept("@/opt/data.json") == {"/opt/data.json"}
    assert kept("file:///opt/data.json") == {"/opt/data.json"}
    assert kept("-f", "x.awk") == {"/srv/site/x.awk"}
    assert kept("key:/opt/data.json") == {"/opt/data.json"}
    assert kept("../site/./x.awk") == {"/srv/site/x.awk"}


def test_a_folder_of_the_application_comes_with_its_files() -> None:
    assert kept("-t", "public") == {"/srv/site/public", "/srv/site/public/index.html"}
    assert "/etc/app/extra/a.conf" in kept("--conf-dir", "/etc/app/extra")


def test_what_names_nothing_of_the_application() -> None:
    assert kept("test", "public", "http://host/opt/data.json", "-", "", "/", "/usr", "x" * 5000) == set()
    assert kept("--prefix", "/usr/lib/big") == {"/usr/lib/big"}


def test_the_edge_says_which_word() -> None:
    found = needs(FILES, cmd=["/bin/app", "--config=/etc/app/app.conf"])
    edge = found.kept["/etc/app/app.conf"]
    assert (edge.source, edge.kind, edge.certainty) == ("/bin/app", "literal", "likely")
    assert edge.evidence == "the word --config=/etc/app/app.conf"
