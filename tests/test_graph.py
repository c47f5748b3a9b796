"""The search for what a program needs: links, ends, and explorers that never have enough."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest
from imagekit import Symlink
from needskit import needs, program

from layerlens import graph
from layerlens.ecosystems import Explorer, ImageView, WithoutPackages
from layerlens.model import Command, Edge, ImagePath


class Toy(WithoutPackages):
    """An ecosystem around one explorer."""

    name = "toy"

    def __init__(self, explorer: type[Explorer]) -> None:
        self._explorer = explorer

    def explorer(self, image: ImageView) -> Explorer:
        """The explorer of one image."""
        return self._explorer(image)


class Repeats(Explorer):
    """Asks for the same command line whenever it is asked."""

    def finish(self, kept: Mapping[ImagePath, Edge]) -> Iterable[Edge | Command]:
        """The same command line, however often."""
        yield Command("/bin/app", ("/bin/other",), "again", "/", {})


class GoesThrough(Explorer):
    """Finds something for each kept path while it goes through them."""

    def finish(self, kept: Mapping[ImagePath, Edge]) -> Iterable[Edge | Command]:
        """The data beside each program."""
        for path in kept:
            data = f"{path}.data"
            if self.image.fs.exists(data):
                yield Edge(path, data, "data", "beside it", "certain")


class Asks(Explorer):
    """Asks for one path of the program."""

    target = "/"

    def edges(self, path: ImagePath) -> Iterable[Edge | Command]:
        """The path, from the program alone."""
        if path == "/bin/app":
            yield Edge(path, self.target, "literal", "names it", "certain")


def only(monkeypatch: pytest.MonkeyPatch, explorer: type[Explorer]) -> None:
    monkeypatch.setattr(graph, "ecosystems", lambda: (Toy(explorer),))


def test_the_search_ends_where_an_explorer_repeats_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, Repeats)
    found = needs({"/bin/app": program(), "/bin/other": program()}, cmd=["/bin/app"])
    assert [edge.target for edge in found.chain("/bin/other")] == ["/bin/app", "/bin/other"]


def test_an_explorer_may_go_through_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, GoesThrough)
    members = {"/bin/app": program(), "/bin/app.data": b"1", "/bin/app.data.data": b"2"}
    assert {"/bin/app.data", "/bin/app.data.data"} <= needs(members, cmd=["/bin/app"]).kept.keys()


def test_links_on_the_way_are_kept_and_stand_in_the_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, Asks)
    monkeypatch.setattr(Asks, "target", "/lib/../lib/one")
    members = {
        "/bin/app": program(),
        "/lib": Symlink(target="usr/lib"),
        "/usr/lib/one": Symlink(target="./two"),
        "/usr/lib/two": b"found",
    }
    found = needs(members, cmd=["/bin/app"])
    assert [edge.target for edge in found.chain("/usr/lib/two")] == [
        "/bin/app",
        "/lib",
        "/usr/lib/one",
        "/usr/lib/two",
    ]
    assert found.kept["/usr/lib/two"].evidence == "symbolic link /usr/lib/one → ./two"


@pytest.mark.parametrize(
    ("target", "code"), [("/gone", "missing-file"), ("/loop", "link-loop"), ("/dangling", None)]
)
def test_what_cannot_be_reached_is_told(
    monkeypatch: pytest.MonkeyPatch, target: str, code: str | None
) -> None:
    only(monkeypatch, Asks)
    monkeypatch.setattr(Asks, "target", target)
    members = {
        "/bin/app": program(),
        "/loop": Symlink(target="loop"),
        "/dangling": Symlink(target="gone"),
    }
    found = needs(members, cmd=["/bin/app"])
    assert [(d.code, d.path) for d in found.diagnostics] == ([(code, target)] if code else [])
    assert ("/dangling" in found.kept) == (target == "/dangling")
