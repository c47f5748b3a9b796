"""The squash: one test for each case that others get wrong, then random layers against a second squash."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imagekit import (
    DIR,
    END,
    FIFO,
    Device,
    Dir,
    Fifo,
    File,
    Hardlink,
    Member,
    Symlink,
    header,
    layer,
    padded,
    pax_header,
    sample,
)
from squashkit import listing, listing_of_model, squash, stacked

from layerlens.errors import InvalidImageError, LinkLoopError, PathNotFoundError
from layerlens.filesystem import Filesystem
from layerlens.model import EntryType


def live(fs: Filesystem) -> set[str]:
    """Live paths that are not directories."""
    return set(fs.walk_files("/"))


def shadows(fs: Filesystem) -> set[tuple[str, str, int, int, str]]:
    """(path, kind, the layer that stores it, the layer that hid it, the path that did it)."""
    found = set()
    for shadow in fs.shadows:
        entry = fs.stored_entry(shadow.gid)
        found.add((entry.path, shadow.kind, entry.layer, shadow.by_layer, shadow.at))
    return found


def sums(fs: Filesystem) -> tuple[int, int, int]:
    """(stored, live, shadowed) payload bytes, each counted in its own way."""
    stored = sum(fs.sizes_column())
    payloads = {fs.inode.get(gid, gid) for gid in fs.live.values() if gid >= 0}
    column = fs.sizes_column()
    return stored, sum(column[gid] for gid in payloads), sum(column[shadow.gid] for shadow in fs.shadows)


def built(*layers: bytes) -> Filesystem:
    """The squash, with the laws that hold for every image checked."""
    fs = squash(*layers)
    stored, visible, hidden = sums(fs)
    assert stored == visible + hidden
    assert len({shadow.gid for shadow in fs.shadows}) == len(fs.shadows), "hidden once at most"
    for directory, names in fs.children.items():
        for name in names:
            assert f"{directory}/{name}" in fs.live
    for path in fs.live:
        if path != "/":
            parent, _, name = path.rpartition("/")
            assert name in fs.children[parent], "every live path has a live parent directory"
    return fs


# --- whiteouts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("markers_first", [True, False])
def test_whiteout_and_file_of_the_same_name_in_one_layer(markers_first: bool) -> None:
    """A whiteout hides lower layers only: whichever the tar has first, the file stays."""
    upper = layer({"/foo": b"new"}, whiteouts=["/foo"], markers_first=markers_first)
    fs = built(layer({"/foo": b"older"}), upper)
    assert fs.read("/foo") == b"new"
    assert fs.layer_of("/foo") == 1
    assert sums(fs) == (8, 3, 5)


@pytest.mark.parametrize("markers_first", [True, False])
def test_whiteout_and_directory_of_the_same_name_in_one_layer(markers_first: bool) -> None:
    upper = layer({"/d/": DIR, "/d/new": b"n"}, whiteouts=["/d"], markers_first=markers_first)
    fs = built(layer({"/d/old": b"o", "/d/sub/old": b"p"}), upper)
    assert live(fs) == {"/d/new"}
    assert not fs.exists("/d/sub")


def test_whiteout_of_a_directory_hides_all_below() -> None:
    fs = built(layer({"/d/a": b"1", "/d/e/b": b"22", "/dd": b"3"}), layer(whiteouts=["/d"]))
    assert live(fs) == {"/dd"}
    assert not fs.exists("/d")
    assert shadows(fs) == {("/d/a", "deleted", 0, 1, "/d"), ("/d/e/b", "deleted", 0, 1, "/d")}


def test_whiteout_of_nothing() -> None:
    fs = built(layer({"/a": b"1"}), layer(whiteouts=["/b", "/no/such/place"]))
    assert live(fs) == {"/a"}
    assert fs.is_dir("/no/such"), "engines make the directory that a marker lies in"
    assert shadows(fs) == set()


def test_whiteout_of_a_symlink_leaves_its_target() -> None:
    fs = built(layer({"/t/x": b"1", "/l": Symlink("t")}), layer(whiteouts=["/l"]))
    assert live(fs) == {"/t/x"}


def test_whiteout_hides_only_lower_layers_and_a_later_layer_brings_back() -> None:
    fs = built(layer({"/a": b"1"}), layer(whiteouts=["/a"]), layer({"/a": b"333"}))
    assert (fs.read("/a"), fs.layer_of("/a")) == (b"333", 2)
    assert shadows(fs) == {("/a", "deleted", 0, 1, "/a")}


def test_markers_in_the_base_layer_hide_nothing() -> None:
    base = layer({"/a": b"1", "/d/b": b"2"}, whiteouts=["/a", "/x"], opaque=["/d", "/"])
    fs = built(base)
    assert live(fs) == {"/a", "/d/b"}
    assert not any(".wh." in path for path in fs.live)


def test_bare_and_odd_markers_are_neither_files_nor_hide_any() -> None:
    lower = layer({"/d/X": b"1", "/d/opqX": b"2", "/d/.wh": b"3", "/d/keep": b"4"})
    upper = layer([("d/.wh.", b""), ("d/.wh..wh..opqX", b""), ("d/.wh..wh.aufs", b"")], verbatim=True)
    fs = built(lower, upper)
    assert live(fs) == {"/d/X", "/d/opqX", "/d/.wh", "/d/keep"}


# --- opaque directories -----------------------------------------------------------------------------------


def test_opaque_marker_alone() -> None:
    """No entry for the directory itself: it stays, empty."""
    fs = built(layer({"/d/": Dir(mode=0o700), "/d/a": b"1", "/d/e/b": b"2"}), layer(opaque=["/d"]))
    assert live(fs) == set()
    assert fs.is_dir("/d") and fs.listdir("/d") == []
    assert shadows(fs) >= {("/d/a", "deleted", 0, 1, "/d"), ("/d/e/b", "deleted", 0, 1, "/d")}


@pytest.mark.parametrize("markers_first", [True, False])
def test_opaque_marker_spares_its_own_layer(markers_first: bool) -> None:
    upper = layer({"/d/new": b"n", "/d/a": b"aa"}, opaque=["/d"], markers_first=markers_first)
    fs = built(layer({"/d/a": b"1", "/d/old": b"2"}), upper)
    assert live(fs) == {"/d/new", "/d/a"}
    assert fs.read("/d/a") == b"aa"


def test_opaque_marker_through_a_symlinked_directory() -> None:
    """``lib -> usr/lib`` below, ``lib/.wh..wh..opq`` above: the marker makes a directory, as overlay2 does.

    The layer's own tree has a directory ``lib``, which hides the link; what the link led to is not touched.
    """
    lower = layer({"/usr/lib/a": b"1", "/lib": Symlink("usr/lib")})
    fs = built(lower, layer(opaque=["/lib"]))
    assert live(fs) == {"/usr/lib/a"}
    assert fs.entry("/lib").type == EntryType.DIR and fs.listdir("/lib") == []


def test_opaque_marker_where_nothing_is() -> None:
    fs = built(layer({"/a": b"1"}), layer(opaque=["/new"]))
    assert live(fs) == {"/a"}


def test_opaque_root() -> None:
    fs = built(layer({"/a": b"1", "/d/b": b"2"}), layer({"/c": b"3"}, opaque=["/"]))
    assert live(fs) == {"/c"}
    assert not fs.exists("/d")


# --- one type replaces another ----------------------------------------------------------------------------


def test_file_replaces_directory() -> None:
    fs = built(layer({"/x/a": b"1", "/x/y/b": b"22"}), layer({"/x": b"file"}))
    assert live(fs) == {"/x"}
    assert fs.read("/x") == b"file"
    assert {shadow[0] for shadow in shadows(fs)} == {"/x/a", "/x/y/b"}


def test_directory_replaces_file() -> None:
    for upper in (layer({"/x/": DIR, "/x/a": b"1"}), layer({"/x/a": b"1"})):
        fs = built(layer({"/x": b"file"}), upper)
        assert live(fs) == {"/x/a"}
        assert fs.is_dir("/x")
        assert sums(fs) == (5, 1, 4)


def test_directory_replaces_symlink_and_the_reverse() -> None:
    down = {"/t/a": b"1", "/l": Symlink("t")}
    for upper in (layer({"/l/": DIR, "/l/b": b"2"}), layer({"/l/b": b"2"})):
        fs = built(layer(down), upper)
        assert live(fs) == {"/t/a", "/l/b"}, "overlay2 does not write through a lower layer's link"
    fs = built(layer({"/t/a": b"1", "/l/b": b"2"}), layer({"/l": Symlink("t")}))
    assert live(fs) == {"/t/a", "/l"}
    assert fs.resolve("/l/a") == "/t/a"


def test_an_entry_behind_a_link_of_its_own_layer_lands_where_it_leads() -> None:
    """An engine unpacks a layer in order: ``lib -> usr/lib`` and then ``lib/x`` writes ``usr/lib/x``."""
    fs = built(layer([("/usr/lib/", DIR), ("/lib", Symlink("usr/lib")), ("/lib/x", b"1")]))
    assert live(fs) == {"/lib", "/usr/lib/x"}
    assert fs.read("/lib/x") == b"1"


def test_a_directory_again_keeps_its_children_and_takes_the_new_attributes() -> None:
    fs = built(layer({"/d/": Dir(mode=0o755), "/d/a": b"1"}), layer({"/d/": Dir(mode=0o700, uid=5)}))
    assert live(fs) == {"/d/a"}
    entry = fs.entry("/d")
    assert (entry.mode, entry.uid, entry.layer) == (0o700, 5, 1)


def test_implied_directories_exist() -> None:
    fs = built(layer({"/a/b/c/d": b"1"}))
    assert fs.is_dir("/a/b") and fs.listdir("/a") == ["b"]
    entry = fs.entry("/a/b")
    assert (entry.type, entry.mode, entry.uid, entry.gid) == (EntryType.DIR, 0o755, 0, 0)


# --- hard links -------------------------------------------------------------------------------------------


def test_hard_links_are_one_payload() -> None:
    fs = built(layer({"/b": b"12345", "/a": Hardlink("/b"), "/c": Hardlink("/b")}))
    assert sums(fs) == (5, 5, 0)
    assert [fs.entry(path).type for path in ("/a", "/b", "/c")] == [
        EntryType.FILE,
        EntryType.HARDLINK,
        EntryType.HARDLINK,
    ]
    assert {fs.entry(path).link_target for path in ("/b", "/c")} == {"/a"}, "the group's first path"
    assert fs.read("/c") == b"12345"


def test_chains_of_hard_links_in_any_order() -> None:
    pairs: list[tuple[str, Member]] = [
        ("/d", Hardlink("/c")),
        ("/c", Hardlink("/b")),
        ("/b", Hardlink("/a")),
        ("/a", b"123"),
    ]
    for order in (pairs, pairs[::-1], [pairs[2], pairs[3], pairs[0], pairs[1]]):
        fs = built(layer(order))
        assert live(fs) == {"/a", "/b", "/c", "/d"}
        assert list(fs.groups.values()) == [["/a", "/b", "/c", "/d"]]
        assert all(fs.read(path) == b"123" for path in live(fs))


def test_hard_link_to_a_lower_layer() -> None:
    fs = built(layer({"/a": File(b"123", mode=0o600, uid=7)}), layer({"/b": Hardlink("/a")}))
    assert fs.read("/b") == b"123"
    entry = fs.entry("/b")
    assert (entry.type, entry.link_target, entry.mode, entry.uid) == (EntryType.HARDLINK, "/a", 0o600, 7)
    assert fs.layer_of("/b") == 1
    assert sums(fs) == (3, 3, 0)


def test_payload_lives_while_any_of_its_names_does() -> None:
    lower = layer({"/a": b"123", "/b": Hardlink("/a")})
    fs = built(lower, layer(whiteouts=["/a"]))
    assert (live(fs), fs.read("/b"), sums(fs)) == ({"/b"}, b"123", (3, 3, 0))
    assert fs.entry("/b").type == EntryType.FILE, "the only name left is no link"
    fs = built(lower, layer({"/a": b"new!"}))
    assert (fs.read("/a"), fs.read("/b"), sums(fs)) == (b"new!", b"123", (7, 7, 0))
    fs = built(lower, layer(whiteouts=["/a", "/b"]))
    assert (live(fs), sums(fs)) == (set(), (3, 0, 3))


def test_hard_link_to_a_path_its_own_layer_overwrites() -> None:
    fs = built(layer({"/a": b"old"}), layer({"/a": b"newer", "/b": Hardlink("/a")}))
    assert fs.read("/b") == b"newer"
    assert sums(fs) == (8, 5, 3)


def test_hard_link_to_symlink_device_and_fifo() -> None:
    fs = built(
        layer(
            {
                "/l": Symlink("t"),
                "/l2": Hardlink("/l"),
                "/n": Device(kind="char", major=1, minor=3),
                "/n2": Hardlink("/n"),
                "/f": FIFO,
                "/f2": Hardlink("/f"),
            }
        )
    )
    assert sorted(fs.groups.values()) == [["/f", "/f2"], ["/l", "/l2"], ["/n", "/n2"]]


def test_hard_link_to_nothing_itself_or_a_directory() -> None:
    fs = built(
        layer({"/d/": DIR, "/a": Hardlink("/gone"), "/b": Hardlink("/b"), "/c": Hardlink("/d"), "/ok": b"1"})
    )
    assert live(fs) == {"/ok"}
    codes = [(item.code, item.path) for item in fs.diagnostics]
    assert ("hard-link-target-missing", "/a") in codes
    assert ("hard-link-target-missing", "/c") in codes


def test_hard_links_in_a_circle() -> None:
    fs = built(layer({"/a": Hardlink("/b"), "/b": Hardlink("/c"), "/c": Hardlink("/a"), "/ok": b"1"}))
    assert live(fs) == {"/ok"}
    assert len(fs.diagnostics) == 3


# --- repeated and odd names -------------------------------------------------------------------------------


def test_same_path_twice_in_one_layer() -> None:
    fs = built(layer([("/a", b"first"), ("/b", b"x"), ("/a", b"second!")]))
    assert fs.read("/a") == b"second!"
    assert sums(fs) == (13, 8, 5)
    assert shadows(fs) == {("/a", "overwritten", 0, 0, "/a")}


def test_same_path_with_other_types_in_one_layer() -> None:
    fs = built(layer([("/a", b"first"), ("/a/b", b"x"), ("/c/d", b"22"), ("/c", Symlink("a"))]))
    assert live(fs) == {"/a/b", "/c"}


def test_names_written_in_other_ways_are_one_path() -> None:
    lower = layer([("./a", b"1"), ("/b", b"2"), ("c/./d//e", b"3"), ("x/../f", b"4")], verbatim=True)
    fs = built(lower, layer([("a", b"11"), ("./b", b"22"), ("/c/d/e", b"33"), ("f", b"44")], verbatim=True))
    assert live(fs) == {"/a", "/b", "/c/d/e", "/f"}
    assert sums(fs) == (12, 8, 4)


def test_names_above_the_root_are_held_and_told() -> None:
    fs = built(layer([("../../etc/passwd", b"1"), ("ok", b"2")], verbatim=True))
    assert live(fs) == {"/etc/passwd", "/ok"}
    assert [item.code for item in fs.diagnostics] == ["path-escapes-root"]


@pytest.mark.parametrize(
    "name",
    [
        "/line\nbreak",
        "/tab\tand\rreturn",
        "/\x1b[31mred\x1b[0m",
        "/caf\u00e9",
        os.fsdecode(b"/raw\xff\xfe"),
        "/ leading and trailing ",
        "/back\\slash",
        "/-",
        "/*?[x]",
        "/" + "/".join(["d" * 255] * 16)[:4096],
        "/d/" + "n" * 4096,
    ],
)
@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_odd_names(name: str, form: Any) -> None:
    fs = built(layer({name: b"old", "/dir/x": b"1"}, form=form), layer({name: b"new!"}, form=form))
    assert (fs.read(name), fs.entry(name).path) == (b"new!", name)
    assert live(fs) == {name, "/dir/x"}
    fs = built(layer({name: b"old"}, form=form), layer(whiteouts=[name], form=form))
    assert live(fs) == set()


# --- looking things up ------------------------------------------------------------------------------------


def test_links_resolve_inside_the_image() -> None:
    fs = built(
        layer(
            {
                "/usr/lib/x.so.1": b"elf",
                "/usr/lib/x.so": Symlink("x.so.1"),
                "/lib": Symlink("usr/lib"),
                "/abs": Symlink("/lib/x.so"),
                "/up": Symlink("../../../../lib"),
                "/dot": Symlink("./usr/./lib/../lib"),
                "/dangling": Symlink("/no/where"),
                "/etc/passwd": b"the image's own",
                "/host": Symlink("/etc/passwd"),
            }
        )
    )
    assert fs.resolve("/lib/x.so") == "/usr/lib/x.so.1"
    assert fs.resolve("/abs") == fs.resolve("/up/x.so") == fs.resolve("/dot/x.so") == "/usr/lib/x.so.1"
    assert fs.resolve_parent("/lib/x.so") == "/usr/lib/x.so"
    assert fs.read("/host") == b"the image's own"
    assert fs.is_dir("/lib") and not fs.is_file("/lib") and fs.is_file("/abs")
    assert fs.listdir("/lib") == ["x.so", "x.so.1"]
    with pytest.raises(PathNotFoundError):
        fs.resolve("/dangling")
    with pytest.raises(PathNotFoundError):
        fs.resolve("/etc/passwd/below")
    with pytest.raises(PathNotFoundError):
        fs.entry("/no")
    assert not fs.is_file("/dangling") and fs.exists("/dangling")


def test_link_loops_end() -> None:
    fs = built(
        layer(
            {
                "/a": Symlink("b"),
                "/b": Symlink("a"),
                "/self": Symlink("self/deeper"),
                **{f"/chain{number}": Symlink(f"chain{number + 1}") for number in range(60)},
                "/chain60": b"end",
                "/grow": Symlink("grow/grow"),
            }
        )
    )
    for path in ("/a", "/b/x", "/self", "/chain0", "/grow"):
        with pytest.raises(LinkLoopError):
            fs.resolve(path)
        assert not fs.is_file(path)
        assert fs.resolve_parent(path + "/x") == path + "/x"
    assert fs.resolve("/chain25") == "/chain60"
    assert fs.listdir("/a") == []


def test_own_links_in_a_circle_end_while_building() -> None:
    fs = squash(layer([("/a", Symlink("b")), ("/b", Symlink("a")), ("/a/x", b"1"), ("/b/y", b"2")]))
    assert sums(fs)[0] == 2


def test_read_bounds() -> None:
    fs = built(layer({"/f": b"0123456789", "/bom": b"\xef\xbb\xbftext", "/bad": b"caf\xe9", "/d/": DIR}))
    assert fs.read("/f", limit=4) == b"0123"
    assert fs.read_text("/bom") == "text"
    assert fs.read_text("/bad") == "caf\ufffd"
    with pytest.raises(PathNotFoundError):
        fs.read("/d")
    with pytest.raises(PathNotFoundError):
        fs.read("/nothing")


def test_a_huge_sparse_file_is_not_read_whole() -> None:
    real = 900_000_000_000
    records = {
        "GNU.sparse.major": b"1",
        "GNU.sparse.minor": b"0",
        "GNU.sparse.name": b"huge",
        "GNU.sparse.realsize": b"%d" % real,
    }
    data = padded(b"1\n0\n3\n") + b"abc"
    fs = squash(pax_header(records) + header(b"x", size=len(data)) + padded(data) + END)
    assert fs.size("/huge") == real
    with pytest.raises(InvalidImageError):
        fs.read("/huge")
    assert fs.read("/huge", limit=8) == b"abc" + bytes(5)
    again = squash(pax_header(records) + header(b"x", size=len(data)) + padded(data) + END)
    other = squash(
        pax_header(records) + header(b"x", size=len(data)) + padded(data.replace(b"abc", b"abd")) + END
    )
    row = fs.live["/huge"]
    assert fs.digest(row) == again.digest(row) != other.digest(row), "told apart without hashing a terabyte"


def test_glob_and_names() -> None:
    fs = built(
        layer(
            {
                "/usr/lib/a/package.json": b"",
                "/usr/lib/b/package.json": b"",
                "/usr/lib/b/c/package.json": b"",
                "/usr/lib/b/other.json": b"",
                "/lib": Symlink("usr/lib"),
                "/srv/package.json/": DIR,
                "/usr/lib/odd\nname/package.json": b"",
            }
        )
    )
    assert fs.glob("/usr/lib/?/*.json") == [
        "/usr/lib/a/package.json",
        "/usr/lib/b/other.json",
        "/usr/lib/b/package.json",
    ]
    assert fs.glob("/usr/**/package.json") == [
        "/usr/lib/a/package.json",
        "/usr/lib/b/c/package.json",
        "/usr/lib/b/package.json",
        "/usr/lib/odd\nname/package.json",
    ]
    assert fs.glob("/lib/[ab]/package.json") == ["/lib/a/package.json", "/lib/b/package.json"]
    assert fs.glob("/nothing/*") == []
    assert len(fs.named("package.json")) == 4
    assert fs.directories_named("package.json") == ["/srv/package.json"]
    assert list(fs.walk_files("/usr/lib/b")) == [
        "/usr/lib/b/c/package.json",
        "/usr/lib/b/other.json",
        "/usr/lib/b/package.json",
    ]


# --- random layers against the second squash --------------------------------------------------------------

COMPONENT = st.sampled_from(["a", "b", "c"])
PATH = st.lists(COMPONENT, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))


@st.composite
def random_layer(draw: st.DrawFn) -> bytes:
    """A layer as an engine could have written it: no path below a link or file of the same layer."""
    members: dict[str, Member] = {}

    def free(path: str) -> bool:
        above = [path[:at] for at in range(1, len(path)) if path[at] == "/"]
        clash = any(isinstance(members.get(top, DIR), Dir) is False for top in above)
        below = any(other.startswith(path + "/") for other in members)
        return not clash and not below and path not in members

    for path in draw(st.lists(PATH, max_size=7)):
        if not free(path):
            continue
        mode, uid = draw(st.sampled_from([0o644, 0o755, 0o4711, 0])), draw(st.sampled_from([0, 5]))
        files = [name for name, spec in members.items() if isinstance(spec, File)]
        kind = draw(st.sampled_from(["file", "file", "dir", "symlink", "fifo", "device", "hardlink"]))
        if kind == "dir":
            members[path] = Dir(mode=mode, uid=uid)
        elif kind == "symlink":
            members[path] = Symlink(draw(PATH), uid=uid)
        elif kind == "fifo":
            members[path] = Fifo(mode=mode)
        elif kind == "device":
            members[path] = Device(kind="char", major=1, minor=draw(st.integers(1, 9)))
        elif kind == "hardlink" and files:
            members[path] = Hardlink(draw(st.sampled_from(files)))
        else:
            members[path] = File(draw(st.binary(max_size=6)), mode=mode, uid=uid)

    def may_mark(path: str) -> bool:
        above = [path[:at] for at in range(1, len(path)) if path[at] == "/"]
        return all(isinstance(members.get(top, DIR), Dir) for top in above)

    whiteouts = [path for path in draw(st.lists(PATH, max_size=3)) if may_mark(path)]
    opaque = [path for path in draw(st.lists(PATH, max_size=2)) if may_mark(path + "/")]
    gone = [path + "/" for path in whiteouts]  # a marker below a whiteout of the same layer contradicts it
    whiteouts = [path for path in whiteouts if not path.startswith(tuple(gone))]
    opaque = [path for path in opaque if not (path + "/").startswith(tuple(gone))]
    return layer(members, whiteouts=whiteouts, opaque=opaque, markers_first=draw(st.booleans()))


@settings(max_examples=600)
@given(st.lists(random_layer(), min_size=1, max_size=4))
def test_agrees_with_a_stack_of_trees(layers: list[bytes]) -> None:
    fs = built(*layers)
    wanted = listing_of_model(stacked(*layers))
    found = listing(fs)
    assert set(found) == set(wanted)
    for path, row in wanted.items():
        if row[0] == EntryType.DIR:  # whose attributes count where an upper layer only implies it is open
            assert found[path][0] == EntryType.DIR
        else:
            assert found[path] == row


def test_the_sample_agrees_with_a_stack_of_trees() -> None:
    layers = sample().layers
    fs = built(*layers)
    wanted = listing_of_model(stacked(*layers))
    found = listing(fs)
    assert {path: row for path, row in found.items() if row[0] != EntryType.DIR} == {
        path: row for path, row in wanted.items() if row[0] != EntryType.DIR
    }
    assert set(found) == set(wanted)
    assert "/data/one" not in found and "/data/three" in found and "/srv/new" in found


def test_reading_from_the_middle_of_a_file() -> None:
    found = squash(layer({"/a": b"0123456789", "/l": Symlink(target="a"), "/d/": DIR}))
    assert found.read_at("/l", 3, 4) == b"3456"
    assert found.read_at("/a", 8, 100) == b"89"
    assert found.read_at("/a", 11, 1) == found.read_at("/a", -1, 1) == b""
    with pytest.raises(PathNotFoundError):
        found.read_at("/d", 0, 1)


def test_paths_by_their_ending() -> None:
    found = squash(layer({"/b/x.jar": b"", "/a/y.war": b"", "/a/z.jar/": DIR, "/x.jar.txt": b""}))
    assert found.ending((".jar", ".war")) == ["/a/y.war", "/b/x.jar"]
