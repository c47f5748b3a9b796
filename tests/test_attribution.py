"""Attribution: owners, categories, paths, waste and duplicates, on squashes whose answers are known by hand."""

from __future__ import annotations

import hashlib
import random

import pytest
from imagekit import DIR, Dir, File, Hardlink, Symlink, layer
from squashkit import squash

from layerlens.attribution import Attribution, find_duplicates
from layerlens.categories import CATEGORIES
from layerlens.model import Package


def attributed(*layers: bytes, packages: tuple[Package, ...] = ()) -> Attribution:
    return Attribution(squash(*layers), packages)


def sums_hold(attribution: Attribution) -> None:
    fs = attribution.fs
    stored = sum(sum(index.sizes) for index in fs.indexes)
    waste = attribution.waste([None] * len(fs.indexes))
    assert attribution.live_bytes + waste.shadowed_bytes == stored
    assert sum(attribution.category_bytes) == attribution.live_bytes
    assert sum(item.size_bytes for item in waste.items) == waste.shadowed_bytes
    assert sum(attribution.shadowed_by_layer()) == waste.shadowed_bytes
    assert sum(map(sum, attribution.layer_categories)) == attribution.live_bytes


def test_deleted_directory_is_one_item_and_names_who_deleted_it() -> None:
    result = attributed(
        layer({"/d/": DIR, "/d/a": b"12345", "/d/e/": DIR, "/d/e/b": b"123", "/keep": b"x"}),
        layer({}, whiteouts=["/d"]),
    )
    waste = result.waste(["ADD rootfs", "RUN rm -rf /d"])
    assert [(i.path, i.kind, i.size_bytes, tuple(i.layers), i.instruction, i.files) for i in waste.items] == [
        ("/d", "deleted", 8, (0, 1), "RUN rm -rf /d", 2)
    ]
    assert waste.efficiency == round(1 / 9, 6)
    sums_hold(result)


def test_chmod_is_metadata_only_and_gathers_under_the_directory() -> None:
    before = {f"/app/{n}": File(data=b"same" * n, mode=0o600) for n in range(1, 5)}
    after = {f"/app/{n}": File(data=b"same" * n, mode=0o644) for n in range(1, 5)}
    result = attributed(
        layer({"/app/": DIR, **before, "/other": b"1"}), layer({"/app/": Dir(mode=0o700), **after})
    )
    waste = result.waste([None, "RUN chmod -R a+r /app"])
    assert [(i.path, i.kind, i.size_bytes, i.files) for i in waste.items] == [
        ("/app", "metadata-only", 40, 4)
    ]
    sums_hold(result)


def test_overwritten_with_the_same_size_is_not_metadata_only() -> None:
    result = attributed(layer({"/f": b"aaaa"}), layer({"/f": b"bbbb"}))
    assert [item.kind for item in result.waste([None, None]).items] == ["overwritten"]


def test_overwritten_large_files_are_compared_by_content() -> None:
    noise = random.Random(7).randbytes(100_000)
    other = noise[:-1] + bytes([noise[-1] ^ 1])
    result = attributed(layer({"/same": noise, "/other": noise}), layer({"/same": noise, "/other": other}))
    kinds = {item.path: item.kind for item in result.waste([None, None]).items}
    assert kinds == {"/same": "metadata-only", "/other": "overwritten"}


def test_hard_links_are_one_payload_and_no_duplicate() -> None:
    result = attributed(
        layer({"/a": b"payload", "/b": Hardlink(target="/a"), "/c": b"payload", "/d": b"payloae"}),
        layer({}, whiteouts=["/a"]),
    )
    assert result.live_bytes == 21
    assert result.live_files == 3
    groups = find_duplicates(result.fs)
    assert [(group.paths, group.size_bytes) for group in groups] == [(["/b", "/c"], 7)]
    assert groups[0].digest == "sha256:" + hashlib.sha256(b"payload").hexdigest()
    assert result.waste([None, None]).items == []
    sums_hold(result)


def test_duplicates_need_equal_content_at_every_size() -> None:
    small = random.Random(1).randbytes(5_000)
    large = random.Random(2).randbytes(200_000)
    wrong = large[:100_000] + b"?" + large[100_001:]
    result = attributed(
        layer(
            {
                "/s1": small,
                "/s2": small,
                "/l1": large,
                "/l2": large,
                "/l3": wrong,
                "/empty": b"",
                "/empty2": b"",
            }
        )
    )
    assert [group.paths for group in find_duplicates(result.fs)] == [["/l1", "/l2"], ["/s1", "/s2"]]
    assert result.waste([None]).duplicate_bytes == 205_000


def test_dives_figure_by_its_own_definition() -> None:
    # A file rewritten twice: sizes 10, 4, 6 → smallest 4 of 20 in all; one deleted: 0 of 5; one left alone: 1 of 1.
    result = attributed(
        layer({"/f": b"x" * 10, "/gone": b"y" * 5, "/still": b"z"}),
        layer({"/f": b"x" * 4}),
        layer({"/f": b"x" * 6}, whiteouts=["/gone"]),
    )
    assert result.dive_efficiency() == round(5 / 26, 6)


def test_dive_counts_a_deleted_directory_as_well_used() -> None:
    result = attributed(layer({"/d/": DIR, "/d/f": b"x" * 10}), layer({}, whiteouts=["/d"]))
    assert result.dive_efficiency() == 1.0
    assert result.waste([None, None]).efficiency == 0.0


def test_os_packages_come_first_then_the_innermost() -> None:
    files = layer(
        {
            "/usr/": DIR,
            "/usr/lib/": DIR,
            "/lib": Symlink(target="usr/lib"),
            "/usr/lib/libx.so": b"12",
            "/app/": DIR,
            "/app/node_modules/": DIR,
            "/app/node_modules/outer/": DIR,
            "/app/node_modules/outer/package.json": b"{}",
            "/app/node_modules/outer/node_modules/": DIR,
            "/app/node_modules/outer/node_modules/inner/": DIR,
            "/app/node_modules/outer/node_modules/inner/package.json": b"{ }",
        }
    )
    outer = Package(
        "node", "outer", "1", "/app/node_modules/outer/package.json", roots=("/app/node_modules/outer",)
    )
    inner_root = "/app/node_modules/outer/node_modules/inner"
    inner = Package("node", "inner", "2", f"{inner_root}/package.json", roots=(inner_root,))
    library = Package("dpkg", "libx", "3", "/var/lib/dpkg/status", paths=("/lib/libx.so",), is_os=True)
    shipped = Package("python", "x", "3", "/lib/libx.so", paths=("/lib/libx.so",))
    result = attributed(files, packages=(outer, inner, library, shipped))
    owners = {path: result.owner_of(path) for path in result.fs.live}
    assert owners["/usr/lib/libx.so"] is library  # listed as /lib/…, found through the merged-usr link
    assert owners["/app/node_modules/outer/package.json"] is outer
    assert owners[f"{inner_root}/package.json"] is inner
    assert owners["/app"] is None
    assert shipped not in result.packages  # an OS package ships it: reported with that package
    assert dict(zip((p.name for p in result.packages), result.package_bytes, strict=True)) == {
        "libx": 2,
        "outer": 2,
        "inner": 3,
    }
    sums_hold(result)


def test_paths_name_subtrees_unless_a_listed_child_stands_for_them() -> None:
    result = attributed(
        layer(
            {
                "/usr/": DIR,
                "/usr/lib/": DIR,
                "/usr/lib/big": b"b" * 90_000,
                "/usr/small": b"s" * 2_000,
                "/opt/": DIR,
                **{f"/opt/{n}": b"o" * 900 for n in range(30)},
                "/srv/": DIR,
                "/srv/node_modules/": DIR,
                "/srv/node_modules/tiny": b"t",
            }
        )
    )
    listed = {report.path: (report.size_bytes, report.files) for report in result.paths()}
    assert listed == {
        "/usr/lib/big": (90_000, 1),
        "/opt": (27_000, 30),
        "/usr/small": (2_000, 1),
        "/srv/node_modules": (1, 1),
    }


def test_paths_list_caches_and_environments_whatever_their_size() -> None:
    result = attributed(
        layer(
            {
                "/big": b"b" * 100_000,
                "/root/.npm/_cacache/x": b"1",
                "/root/other": b"1",
                "/app/.git/config": b"1",
                "/opt/venv/pyvenv.cfg": b"1",
                "/app/node_modules/a/node_modules/b/index.js": b"1",
            }
        )
    )
    assert {report.path for report in result.paths()} >= {
        "/root/.npm",
        "/app/.git",
        "/opt/venv",
        "/app/node_modules",
    }
    assert "/root" not in {report.path for report in result.paths()}
    assert "/app/node_modules/a/node_modules" not in {report.path for report in result.paths()}


@pytest.mark.parametrize("path", ["/l", "/dev0"])
def test_links_and_devices_have_no_category(path: str) -> None:
    from imagekit import Device

    result = attributed(layer({"/f": b"1", "/l": Symlink(target="f"), "/dev0": Device(major=1, minor=3)}))
    assert result.category_of(path) is None
    assert result.category_of("/f") in CATEGORIES
