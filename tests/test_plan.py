"""Plans: what goes where, from images made of literals."""

from __future__ import annotations

from pathlib import Path

import pytest
from imagekit import DIR, Dir, File, Hardlink, Member, Symlink
from plankit import RUN, base_of, built, config, needs_of, plan_of

from layerlens.errors import UsageError
from layerlens.model import Instruction
from layerlens.plan import FEW_LINES, MOST_LINES, Copy, Plan, refuse_other_libc
from layerlens.runtime import catalogued

BIG = bytes(3_000_000)
DEBIAN: dict[str, Member] = {
    "/bin/sh": RUN,
    "/usr/bin/apt-get": RUN,
    "/etc/os-release": b"ID=debian\nVERSION_ID=12\nVERSION_CODENAME=bookworm\n",
    "/etc/passwd": b"root:x:0:0:root:/root:/bin/sh\n",
    "/etc/group": b"root:x:0:\n",
}


def sources(plan: Plan) -> list[tuple[str, ...]]:
    return [copy.sources for copy in plan.copies]


def the_copy(plan: Plan, source: str) -> Copy:
    return next(copy for copy in plan.copies if source in copy.sources)


def stanza(name: str, depends: str = "") -> bytes:
    line = f"Depends: {depends}\n" if depends else ""
    return (
        f"Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n{line}\n".encode()
    )


def installed(**files: tuple[str, dict[str, Member]]) -> dict[str, Member]:
    """Debian packages: name = (what it depends on, its files)."""
    found: dict[str, Member] = {
        "/var/lib/dpkg/status": b"".join(
            stanza(name.replace("_", "-"), depends) for name, (depends, _) in files.items()
        )
    }
    for name, (_, own) in files.items():
        found[f"/var/lib/dpkg/info/{name.replace('_', '-')}.list"] = "".join(
            f"{path}\n" for path in own
        ).encode()
        found.update(own)
    return found


# --- conservation -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_base", [True, False])
def test_every_live_byte_has_one_verdict(on_base: bool) -> None:
    image: dict[str, Member] = {
        **DEBIAN,
        "/app/run": RUN,
        "/app/lib/a.txt": b"a" * 100,
        "/app/lib/same.txt": Hardlink(target="/app/lib/a.txt"),
        "/app/.git/objects/pack": BIG,
        "/opt/left.bin": BIG,
        "/etc/hosts.allow": b"the same",
    }
    base = base_of({**DEBIAN, "/etc/hosts.allow": b"the same"}) if on_base else None
    needs = needs_of(image, keep=["/app/lib", "/etc/hosts.allow"])
    plan = plan_of(needs, base)
    sums = built(plan)
    assert sum(sums.values()) == plan.live_bytes == needs.attribution.live_bytes
    assert sums["copy"] == plan.totals.copy_bytes and sums["drop"] == plan.totals.drop_bytes
    for path in needs.kept:
        assert plan.verdict(path) != "drop" and plan.chain(path)
    for path in plan.fs.walk_files("/"):
        assert bool(plan.chain(path)) == (plan.verdict(path) != "drop"), path
    assert plan.verdict("/opt/left.bin") == "drop" and plan.verdict("/app/.git/objects/pack") == "drop"
    assert plan.verdict("/etc/hosts.allow") == ("base" if on_base else "copy")


def test_scratch_takes_what_is_needed_and_groups_it_by_how_often_it_changes() -> None:
    image: dict[str, Member] = {"/app/run": RUN, "/usr/lib/x.so": b"x" * 10, "/left": b"y", **DEBIAN}
    plan = plan_of(needs_of(image, keep=["/usr/lib/x.so"]), None)
    assert plan.runtime_image == plan.runtime == "scratch"
    assert [copy.group for copy in plan.copies] == sorted(copy.group for copy in plan.copies)
    assert plan.estimated_bytes == plan.totals.copy_bytes == sum(copy.size_bytes for copy in plan.copies)
    assert plan.totals.base_bytes == 0 and plan.install_line is None and plan.made == ()


# --- copies -----------------------------------------------------------------------------------------------


def test_a_directory_is_copied_at_the_highest_level_that_brings_nothing_else() -> None:
    image: dict[str, Member] = {
        **DEBIAN,
        "/app/run": RUN,
        "/app/pages/a/b/index.html": b"1",
        "/app/pages/a/c/index.html": b"2",
        "/app/.git/pack": BIG,
        "/srv/site/static/x.css": b"3",
    }
    plan = plan_of(needs_of(image, keep=["/app/pages", "/srv/site"]), base_of(DEBIAN))
    assert sources(plan) == [("/app/pages",), ("/app/run",), ("/srv/site",)]
    assert the_copy(plan, "/app/pages").whole and not the_copy(plan, "/app/run").whole
    assert the_copy(plan, "/app/run").target == "/app"
    assert plan.dropped[0].path == "/app/.git" and plan.dropped[0].size_bytes == len(BIG)


def test_little_that_comes_along_is_no_reason_for_parts() -> None:
    image: dict[str, Member] = {
        **DEBIAN,
        "/app/run": RUN,
        "/app/big.bin": BIG,
        "/app/README.md": b"r" * 500,
    }
    needs = needs_of(image, keep=["/app/big.bin"])
    plan = plan_of(needs, base_of(DEBIAN))
    assert sources(plan) == [("/app",)]
    assert the_copy(plan, "/app").unneeded_bytes >= 500
    assert plan.verdict("/app/README.md") == "copy" and "/app/README.md" not in needs.kept
    assert plan.chain("/app/README.md")[-1].kind == "comes-along"


def test_directories_that_many_share_are_never_copied_whole() -> None:
    image: dict[str, Member] = {**DEBIAN, "/app/run": RUN, "/usr/local/bin/tool": RUN, "/opt/x": b"x"}
    plan = plan_of(needs_of(image, keep=["/usr/local/bin/tool", "/opt/x"]), base_of(DEBIAN))
    assert ("/usr/local/bin/tool",) in sources(plan) and ("/opt/x",) in sources(plan)


def many(count: int) -> dict[str, Member]:
    found: dict[str, Member] = {}
    for number in range(count):
        folder = f"/app/node_modules/p{number:02}"
        found[f"{folder}/lib/index.js"] = b"j" * 40_000
        found[f"{folder}/cdn/big"] = b"t" * (70_000 if number < 6 else 10)
        found[f"{folder}/lib/index.js.map"] = b"m" * 60_000
    return found


def test_a_directory_of_many_things_is_trimmed_and_copied_whole() -> None:
    modules = many(FEW_LINES + 4)
    image: dict[str, Member] = {**DEBIAN, "/usr/bin/find": RUN, "/app/run": RUN, **modules}
    keep = [path for path in modules if path.endswith(".js")]
    plan = plan_of(needs_of(image, keep=keep), base_of(DEBIAN))
    assert sources(plan) == [("/app",)]
    (swept,) = plan.swept
    assert (swept.directory, swept.suffixes, swept.files) == ("/app", (".map",), FEW_LINES + 4)
    assert swept.size_bytes == 60_000 * (FEW_LINES + 4)
    assert {tree.path for tree in plan.removals} == {f"/app/node_modules/p0{n}/cdn" for n in range(6)}
    for path in modules:
        removed = path.endswith(".map") or path in {f"/app/node_modules/p0{n}/cdn/big" for n in range(6)}
        assert plan.verdict(path) == ("drop" if removed else "copy"), path
    assert plan.totals.copy_bytes == 64 + (FEW_LINES + 4) * 40_000 + 4 * 10


def test_folders_of_tests_are_swept_by_their_name_but_for_those_that_are_needed() -> None:
    modules: dict[str, Member] = {
        path.replace("/cdn/", "/test/").replace(".map", ".txt"): data
        for path, data in many(FEW_LINES + 4).items()
        if not path.endswith(".map")
    }
    modules["/app/node_modules/p07/aside/test/inner"] = b"i" * 50
    needed = "/app/node_modules/p09/test/big"
    image: dict[str, Member] = {**DEBIAN, "/usr/bin/find": RUN, "/app/run": RUN, **modules}
    keep = [path for path in modules if path.endswith(".js")] + [needed]
    plan = plan_of(needs_of(image, keep=keep), base_of(DEBIAN))
    (swept,) = plan.swept
    assert (swept.directory, swept.suffixes, swept.folders) == ("/app", (), ("test",))
    assert swept.but == ("/app/node_modules/p09/test",)
    assert {path for path in modules if plan.verdict(path) == "drop"} == {
        path for path in modules if "/test/" in path and path != needed
    }
    assert swept.files == FEW_LINES + 4 and swept.size_bytes == 6 * 70_000 + 3 * 10 + 50
    assert sum(built(plan).values()) == plan.live_bytes
    row = next(row for row in plan.to_dict()["removed_in_builder"] if "**" in row["path"])
    assert row["path"] == "/app/**/test/"


def test_without_find_nothing_is_swept() -> None:
    modules = many(FEW_LINES + 4)
    keep = [path for path in modules if path.endswith(".js")]
    plan = plan_of(needs_of({**DEBIAN, "/app/run": RUN, **modules}, keep=keep), base_of(DEBIAN))
    assert plan.swept == () and len(plan.removals) == 12


def test_a_suffix_that_something_needed_has_is_not_swept() -> None:
    modules = many(FEW_LINES + 4)
    image: dict[str, Member] = {**DEBIAN, "/usr/bin/find": RUN, "/app/run": RUN, **modules}
    keep = [path for path in modules if path.endswith(".js")] + ["/app/node_modules/p00/lib/index.js.map"]
    assert plan_of(needs_of(image, keep=keep), base_of(DEBIAN)).swept == ()


def test_there_are_never_more_copies_than_a_builder_has_layers() -> None:
    image: dict[str, Member] = {**DEBIAN, "/app/run": RUN}
    for number in range(3 * MOST_LINES):
        image[f"/app/m/p{number:03}/need.txt"] = b"n"
        image[f"/app/m/p{number:03}/other/{number}.bin"] = b"u" * 400_000
    keep = [path for path in image if path.endswith("need.txt")]
    plan = plan_of(needs_of(image, keep=keep), base_of(DEBIAN))
    assert len(plan.copies) <= MOST_LINES


def test_what_the_base_has_and_nobody_asked_to_change_is_not_overwritten() -> None:
    image: dict[str, Member] = {**DEBIAN, "/app/run": RUN, "/opt/t/own": BIG, "/opt/t/theirs": b"old"}
    needs = needs_of(image, keep=["/opt/t/own"])
    assert ("/opt/t/own",) in sources(plan_of(needs, base_of({**DEBIAN, "/opt/t/theirs": b"new"})))
    assert ("/opt/t",) in sources(plan_of(needs, base_of({**DEBIAN, "/opt/t/theirs": b"old"})))
    assert ("/opt/t",) in sources(plan_of(needs, base_of(DEBIAN)))


def test_a_second_name_of_a_file_is_not_copied_a_second_time() -> None:
    image: dict[str, Member] = {
        **DEBIAN,
        "/app/run": RUN,
        "/app/data": BIG,
        "/app/target/deps/data-1": Hardlink(target="/app/data"),
        "/app/target/other": BIG[:900_000],
    }
    plan = plan_of(needs_of(image, keep=["/app/data"]), base_of(DEBIAN))
    assert sources(plan) == [("/app/data", "/app/run")]
    assert plan.totals.copy_bytes == len(BIG) + 64 == sum(copy.size_bytes for copy in plan.copies)


def test_dependencies_come_before_the_application() -> None:
    modules: dict[str, Member] = {
        "/app/node_modules/a/package.json": b'{"name": "a", "version": "1.0.0"}',
        "/app/node_modules/a/index.js": b"1" * 100,
    }
    image: dict[str, Member] = {**DEBIAN, "/app/run": RUN, "/app/left.bin": BIG, **modules}
    plan = plan_of(needs_of(image, keep=["/app/node_modules"]), base_of(DEBIAN))
    assert sources(plan) == [("/app/node_modules",), ("/app/run",)]


# --- attributes -------------------------------------------------------------------------------------------


def test_links_empty_directories_and_what_copy_does_not_bring() -> None:
    image: dict[str, Member] = {
        **DEBIAN,
        "/app/": Dir(mode=0o750, uid=7, gid=8),
        "/app/run": RUN,
        "/app/left.bin": BIG,
        "/app/uploads/": Dir(mode=0o1777),
        "/app/log/": Dir(uid=7, gid=8),
        "/app/current": Symlink(target="run"),
    }
    plan = plan_of(needs_of(image, keep=["/app/uploads", "/app/log", "/app/current"]), base_of(DEBIAN))
    made = {one.path: one for one in plan.made}
    assert made["/app/current"].kind == "symlink" and made["/app/current"].link_target == "run"
    assert (made["/app/uploads"].kind, made["/app/uploads"].mode) == ("directory", 0o1777)
    assert (made["/app/log"].uid, made["/app/log"].gid) == (7, 8)
    assert (made["/app"].kind, made["/app"].mode, made["/app"].uid) == ("attributes", 0o750, 7)


def test_a_directory_that_a_mere_name_leads_to_is_made_only_where_it_is_not_the_builds() -> None:
    image: dict[str, Member] = {
        **DEBIAN,
        "/app/go.mod": b"module m\n",
        "/app/run": RUN,
        "/app/vendor/dep/x.go": b"package dep\n" * 50_000,
        "/app/state/": DIR,
    }
    needs = needs_of(image, keep=["/app/state"])
    edge = needs.kept["/app/state"]
    for path in ("/app/state", "/app/vendor"):
        needs.kept[path] = type(edge)("/app/run", path, "app-file", f"names {path}", "likely")
    made = {one.path for one in plan_of(needs, base_of(DEBIAN)).made}
    assert "/app/state" in made
    if needs.attribution.category_of("/app/vendor") == "sources":
        assert "/app/vendor" not in made


def test_empty_directories_of_packages_come_with_them_or_not_at_all() -> None:
    image = {
        **DEBIAN,
        "/app/run": RUN,
        **installed(tool=("", {"/etc/tool.conf": b"c", "/etc/tool.d/": DIR, "/var/lib/tool/": Dir(uid=5)})),
        "/var/lib/dpkg/info/tool.list": b"/etc/tool.conf\n/etc/tool.d\n/var/lib/tool\n",
    }
    needs = needs_of(image, keep=["/etc/tool.conf", "/etc/tool.d", "/var/lib/tool"])
    for path in ("/etc/tool.d", "/var/lib/tool"):
        edge = needs.kept[path]
        needs.kept[path] = type(edge)("/app/run", path, "literal", f"literal {path}", "likely")
    plan = plan_of(needs, base_of(DEBIAN))
    assert plan.os_packages == () and [one.path for one in plan.made] == ["/var/lib/tool"]


def test_the_owner_of_a_copy_is_carried_where_there_is_one() -> None:
    image: dict[str, Member] = {
        **DEBIAN,
        "/app/run": RUN,
        "/srv/mine/a": File(data=b"a", uid=1000, gid=1001),
        "/srv/mine/b": File(data=b"b", uid=1000, gid=1001),
        "/srv/ours/a": File(data=b"a", uid=1000),
        "/srv/ours/b": File(data=b"b", uid=2),
    }
    plan = plan_of(needs_of(image, keep=["/srv/mine", "/srv/ours"]), base_of(DEBIAN))
    assert the_copy(plan, "/srv/mine").owner == (1000, 1001)
    assert the_copy(plan, "/srv/ours").owner is None and the_copy(plan, "/app").owner is None


def test_accounts_that_the_base_lacks() -> None:
    image: dict[str, Member] = {
        **DEBIAN,
        "/etc/passwd": b"root:x:0:0::/:/bin/sh\napp:x:999:998::/srv:/bin/sh\nx:x:5:5::/:/x\nold:x:7:0::/:/x\n",
        "/etc/group": b"root:x:0:\napp:x:998:\nx:x:5:\naudio:x:29:app\n",
        "/app/run": RUN,
        "/srv/f": File(data=b"f", uid=7),
    }
    needs = needs_of(image, keep=["/srv/f"], made=config(User="app"))
    plan = plan_of(needs, base_of(DEBIAN))
    assert plan.accounts == (
        ("/etc/passwd", "app:x:999:998::/srv:/bin/sh"),
        ("/etc/passwd", "old:x:7:0::/:/x"),
        ("/etc/group", "app:x:998:"),
        ("/etc/group", "audio:x:29:app"),
    )
    known = base_of({**DEBIAN, "/etc/passwd": image["/etc/passwd"], "/etc/group": image["/etc/group"]})
    assert plan_of(needs, known).accounts == ()
    assert plan.verdict("/etc/passwd") == "base"


def test_passwords_of_the_builder_stay_there() -> None:
    image: dict[str, Member] = {**DEBIAN, "/app/run": RUN, "/etc/shadow": b"root:$y$j9T$secret:1::::::"}
    needs = needs_of(image, keep=["/etc/shadow"])
    assert (
        plan_of(needs, base_of({**DEBIAN, "/etc/shadow": b"root:*:1::::::"})).verdict("/etc/shadow") == "base"
    )


# --- the base's own ---------------------------------------------------------------------------------------


def test_what_the_base_has_is_not_copied() -> None:
    image: dict[str, Member] = {
        **DEBIAN,
        "/app/run": RUN,
        "/opt/same": b"same",
        "/opt/changed": b"mine",
        "/opt/link": Symlink(target="same"),
        "/usr/local/lib/python3.11/os.py": b"mine",
        "/usr/local/lib/python3.11/__pycache__/os.cpython-311.pyc": b"compiled",
        "/usr/local/lib/python3.11/__pycache__/own.cpython-311.pyc": b"compiled",
        "/usr/local/lib/python3.11/own.py": b"mine alone",
    }
    theirs: dict[str, Member] = {
        **DEBIAN,
        "/opt/same": b"same",
        "/opt/changed": b"base",
        "/opt/link": Symlink(target="same"),
        "/usr/local/lib/python3.11/os.py": b"another build",
    }
    keep = ["/opt", "/usr/local/lib"]
    plan = plan_of(
        needs_of(image, keep=keep),
        base_of(theirs),
        tree=["/usr/local/lib/python3.*"],
        derived=["__pycache__"],
    )
    verdicts = {path: plan.verdict(path) for path in image if path.startswith(("/opt", "/usr/local"))}
    assert verdicts == {
        "/opt/same": "base",
        "/opt/changed": "copy",
        "/opt/link": "base",
        "/usr/local/lib/python3.11/os.py": "base",
        "/usr/local/lib/python3.11/__pycache__/os.cpython-311.pyc": "base",
        "/usr/local/lib/python3.11/__pycache__/own.cpython-311.pyc": "copy",
        "/usr/local/lib/python3.11/own.py": "copy",
    }


# --- OS packages ------------------------------------------------------------------------------------------

LIBRARY = b"\x7fELF" + bytes(2_000_000)


def test_packages_of_needed_libraries_are_installed_with_what_they_depend_on() -> None:
    image = {
        **DEBIAN,
        "/app/run": RUN,
        **installed(
            libone=("libtwo, libsmall (>= 1)", {"/usr/lib/libone.so": LIBRARY, "/usr/share/doc/one": b"d"}),
            libtwo=("", {"/usr/lib/libtwo.so": LIBRARY}),
            libsmall=("", {"/usr/lib/libsmall.so": b"\x7fELF"}),
            unneeded=("", {"/usr/lib/unneeded.so": LIBRARY}),
        ),
    }
    base = base_of({**DEBIAN, **installed(libsmall=("", {"/usr/lib/libsmall.so": b"\x7fELF other"}))})
    plan = plan_of(needs_of(image, keep=["/usr/lib/libone.so", "/usr/lib/libtwo.so"]), base)
    assert plan.os_packages == ("libone",)
    assert [package.name for package in plan.os_packages_all] == ["libone", "libtwo"]
    assert plan.install_line is not None and "--no-install-recommends libone" in plan.install_line
    assert plan.verdict("/usr/lib/libone.so") == plan.verdict("/usr/share/doc/one") == "package"
    assert plan.chain("/usr/share/doc/one")[-1].evidence == "the package libone is installed whole"
    assert plan.verdict("/usr/lib/unneeded.so") == "drop"
    assert 2 * len(LIBRARY) < plan.totals.package_bytes < 2 * len(LIBRARY) + 100_000
    assert sum(built(plan).values()) == plan.live_bytes


def test_packages_in_a_circle_are_all_named() -> None:
    image = {
        **DEBIAN,
        "/app/run": RUN,
        **installed(liba=("libb", {"/usr/lib/a.so": LIBRARY}), libb=("liba", {"/usr/lib/b.so": LIBRARY})),
    }
    plan = plan_of(needs_of(image, keep=["/usr/lib/a.so", "/usr/lib/b.so"]), base_of(DEBIAN))
    assert plan.os_packages == ("liba", "libb")


def test_a_few_files_of_data_are_copied_instead_of_installed() -> None:
    image = {
        **DEBIAN,
        "/app/run": RUN,
        **installed(netbase=("", {"/etc/services": b"s" * 12_000, "/etc/rpc": b"r"})),
    }
    plan = plan_of(needs_of(image, keep=["/etc/services"]), base_of(DEBIAN))
    assert plan.os_packages == () and plan.install_line is None
    assert plan.verdict("/etc/services") == "copy" and plan.verdict("/etc/rpc") == "drop"
    assert ("/etc/services",) in sources(plan)


@pytest.mark.parametrize(("needed", "brought"), [(800_000, 9_000_000), (10_000, 1_100_000)])
def test_a_package_that_brings_far_more_than_is_needed_has_that_copied(needed: int, brought: int) -> None:
    image = {
        **DEBIAN,
        "/app/run": RUN,
        **installed(
            perl=("perl-modules", {"/usr/bin/tool": b"\x7fELF" + bytes(needed)}),
            perl_modules=("", {"/usr/share/perl/all": bytes(brought)}),
            libone=("", {"/usr/lib/libone.so": LIBRARY}),
        ),
    }
    plan = plan_of(needs_of(image, keep=["/usr/bin/tool", "/usr/lib/libone.so"]), base_of(DEBIAN))
    assert plan.os_packages == ("libone",)
    assert plan.verdict("/usr/bin/tool") == "copy"
    assert ("/usr/bin/tool",) in sources(plan)


CERTIFICATES = {
    "/usr/share/ca-certificates/mozilla/A.crt": b"A" * 1000,
    "/usr/sbin/update-ca-certificates": b"#!/bin/sh\n",
}
MADE_CERTIFICATES: dict[str, Member] = {
    "/etc/ssl/certs/A.pem": Symlink(target="/usr/share/ca-certificates/mozilla/A.crt"),
    "/etc/ssl/certs/0a1b.0": Symlink(target="A.pem"),
    "/etc/ssl/certs/ca-certificates.crt": b"A" * 1000,
}


@pytest.mark.parametrize("code", [False, True])
def test_certificates_arrive_by_copy_or_with_their_package(code: bool) -> None:
    """What maintainer scripts make goes the way of its package."""
    image = {
        **DEBIAN,
        "/app/run": RUN,
        **installed(ca_certificates=("", dict(CERTIFICATES)), libone=("", {"/usr/lib/libone.so": LIBRARY})),
        **MADE_CERTIFICATES,
    }
    keep = [*MADE_CERTIFICATES, "/usr/share/ca-certificates", *(["/usr/lib/libone.so"] if code else [])]
    plan = plan_of(needs_of(image, keep=keep), base_of(DEBIAN))
    wanted = "package" if code else "copy"
    assert {plan.verdict(path) for path in (*MADE_CERTIFICATES, next(iter(CERTIFICATES)))} == {wanted}
    if code:
        assert plan.os_packages == ("ca-certificates", "libone")
        assert plan.totals.package_bytes > len(LIBRARY) + 2 * 1000
    else:
        assert sources(plan)[:2] == [("/etc/ssl",), ("/usr/share/ca-certificates",)]
        assert not any(one.path.startswith("/etc/ssl/certs") for one in plan.made)


def test_certificates_of_ones_own_are_copied_since_no_package_has_them() -> None:
    own = "/usr/local/share/ca-certificates/own.crt"
    image: dict[str, Member] = {
        **DEBIAN,
        "/app/run": RUN,
        **installed(ca_certificates=("", dict(CERTIFICATES)), libone=("", {"/usr/lib/libone.so": LIBRARY})),
        **MADE_CERTIFICATES,
        own: b"own",
        "/etc/ssl/certs/own.pem": Symlink(target=own),
    }
    keep = [*MADE_CERTIFICATES, "/etc/ssl/certs/own.pem", own, "/usr/lib/libone.so", *CERTIFICATES]
    plan = plan_of(needs_of(image, keep=keep), base_of(DEBIAN))
    assert "ca-certificates" in plan.os_packages
    verdicts = {path: plan.verdict(path) for path in (*MADE_CERTIFICATES, "/etc/ssl/certs/own.pem")}
    assert verdicts == {
        "/etc/ssl/certs/A.pem": "package",
        "/etc/ssl/certs/0a1b.0": "package",
        "/etc/ssl/certs/ca-certificates.crt": "copy",
        "/etc/ssl/certs/own.pem": "copy",
    }


def test_other_distributions_install_nothing() -> None:
    image = {**DEBIAN, "/app/run": RUN, **installed(libone=("", {"/usr/lib/libone.so": LIBRARY}))}
    other = base_of({**DEBIAN, "/etc/os-release": b"ID=debian\nVERSION_CODENAME=trixie\nVERSION_ID=13\n"})
    plan = plan_of(needs_of(image, keep=["/usr/lib/libone.so"]), other)
    assert plan.os_packages == () and plan.verdict("/usr/lib/libone.so") == "copy"


def test_modules_of_packages_that_nobody_imports_are_removed_in_the_same_step() -> None:
    core = "/usr/lib/python3/dist-packages/np/core.so"
    image = {
        **DEBIAN,
        "/app/run": RUN,
        **installed(
            np=("other, libbig", {core: LIBRARY}),
            other=("", {"/usr/lib/python3/dist-packages/other/__init__.py": BIG * 2}),
            libbig=("", {"/usr/lib/big/big.so": LIBRARY}),
        ),
    }
    plan = plan_of(needs_of(image, keep=[core]), base_of(DEBIAN))
    assert [tree.path for tree in plan.uninstalled] == ["/usr/lib/python3/dist-packages/other"]
    assert plan.verdict("/usr/lib/big/big.so") == "package"
    assert sum(built(plan).values()) == plan.live_bytes


def test_what_packages_bring_for_tests_alone_is_removed_in_the_same_step() -> None:
    tests: dict[str, Member] = {f"/usr/lib/python3/dist-packages/np/tests/t{n}.py": BIG for n in range(2)}
    image = {
        **DEBIAN,
        "/app/run": RUN,
        **installed(
            np=("", {"/usr/lib/python3/dist-packages/np/core.so": LIBRARY, **tests}),
        ),
    }
    plan = plan_of(needs_of(image, keep=["/usr/lib/python3/dist-packages/np/core.so"]), base_of(DEBIAN))
    assert [tree.path for tree in plan.uninstalled] == ["/usr/lib/python3/dist-packages/np/tests"]
    assert {plan.verdict(path) for path in tests} == {"drop"}
    assert plan.totals.package_bytes < len(LIBRARY) + 100_000
    kept = plan_of(needs_of(image, keep=["/usr/lib/python3/dist-packages/np"]), base_of(DEBIAN))
    assert kept.uninstalled == () and {kept.verdict(path) for path in tests} == {"package"}


# --- the C library ----------------------------------------------------------------------------------------

PROGRAM = Path("/bin/sh").resolve().read_bytes()
MUSL = {"/lib/ld-musl-x86_64.so.1": RUN, "/bin/sh": RUN}
is_glibc = pytest.mark.skipif(b"/ld-linux" not in PROGRAM[:4096], reason="/bin/sh here is no glibc program")


@is_glibc
def test_what_glibc_built_is_refused_on_musl_with_the_file_that_proves_it() -> None:
    image: dict[str, Member] = {**DEBIAN, "/app/run": RUN, "/app/addon.node": File(data=PROGRAM, mode=0o755)}
    needs = needs_of(image, keep=["/app/addon.node"])
    for base in (base_of(MUSL, "node:18-alpine"), catalogued("node:18-alpine")):
        plan = plan_of(needs, base)
        with pytest.raises(
            UsageError, match=r"node:18-alpine has musl.*glibc: /app/addon\.node \("
        ) as caught:
            refuse_other_libc(plan)
        assert caught.value.hint
    refuse_other_libc(plan_of(needs, base_of(DEBIAN)))
    refuse_other_libc(plan_of(needs, None))


@is_glibc
def test_musl_is_offered_where_nothing_that_is_copied_is_bound() -> None:
    image: dict[str, Member] = {**DEBIAN, "/app/run": RUN, "/app/addon.node": File(data=PROGRAM, mode=0o755)}
    musl = base_of(MUSL, "app:alpine")
    free = plan_of(needs_of(image), base_of(DEBIAN), musl=[musl])
    (offered,) = free.alternatives
    assert offered.runtime_image == "app:alpine"
    assert offered.estimated_bytes == musl.size_bytes + free.totals.copy_bytes
    assert plan_of(needs_of(image, keep=["/app/addon.node"]), base_of(DEBIAN), musl=[musl]).alternatives == ()


# --- estimates and warnings -------------------------------------------------------------------------------


def test_the_estimate_is_the_base_the_packages_and_the_copies() -> None:
    plan = plan_of(needs_of({**DEBIAN, "/app/run": RUN}), base := base_of({**DEBIAN, "/x": bytes(1000)}))
    assert plan.estimated_bytes == base.size_bytes + 64
    assert plan.saved_bytes == plan.layer_bytes - plan.estimated_bytes < 0 and plan.nothing_to_gain


def test_a_base_from_the_catalogue_is_said_to_be_one() -> None:
    image = {**DEBIAN, "/app/run": RUN, **installed(libone=("", {"/usr/lib/libone.so": LIBRARY}))}
    base = catalogued("debian:bookworm-slim")
    assert base is not None and not base.opened
    own: dict[str, Member] = {"/etc/own.conf": b"mine"}
    instructions = [
        Instruction(0, "ADD rootfs.tar /", None, None, None, 0, True),
        Instruction(1, "COPY own.conf /etc", None, None, None, 1, False),
    ]
    keep = ["/usr/lib/libone.so", "/etc/os-release", "/etc/own.conf"]
    plan = plan_of(needs_of(image, own, keep=keep), base, instructions=instructions)
    assert plan.totals.base_bytes == base.size_bytes
    assert any("docker-library/repo-info" in warning for warning in plan.warnings)
    assert any("install what it lacks: libone" in warning for warning in plan.warnings)
    assert plan.verdict("/usr/lib/libone.so") == plan.verdict("/etc/os-release") == "base"
    assert plan.verdict("/etc/own.conf") == "copy"
    assert plan.accounts == () or all(line.split(":")[0] != "root" for _, line in plan.accounts)
    opened = plan_of(needs_of(image), base_of(DEBIAN))
    assert not any("catalogue" in warning for warning in opened.warnings)


def test_what_no_dockerfile_can_say_is_said() -> None:
    made = config(Env=["PATH=/bin", "BANNER=two\nlines"])
    plan = plan_of(needs_of({**DEBIAN, "/app/run": RUN}, made=made), None)
    assert any("ENV BANNER" in warning for warning in plan.warnings)
    assert plan_of(needs_of({**DEBIAN, "/app/run": RUN}), None).warnings == ()


def test_pruning_is_not_proposed_where_it_would_take_what_is_needed() -> None:
    lock = b'{"lockfileVersion": 3, "packages": {"node_modules/t": {"version": "1.0.0", "dev": true}}}'
    image: dict[str, Member] = {
        **DEBIAN,
        "/usr/bin/npm": RUN,
        "/app/run": RUN,
        "/app/package.json": b'{"name": "app", "version": "1.0.0", "devDependencies": {"t": "*"}}',
        "/app/node_modules/.package-lock.json": lock,
        "/app/node_modules/t/package.json": b'{"name": "t", "version": "1.0.0"}',
        "/app/node_modules/t/index.js": b"1",
    }
    (step,) = plan_of(needs_of(image), base_of(DEBIAN)).improvements
    assert step.line == "RUN npm prune --omit=dev"
    assert plan_of(needs_of(image, keep=["/app/node_modules/t"]), base_of(DEBIAN)).improvements == ()
    assert plan_of(needs_of(image), None).improvements == ()


def test_dockerignore_has_what_copy_brought_and_nobody_needs() -> None:
    brought: dict[str, Member] = {
        "/app/run": RUN,
        "/app/.git/": DIR,
        "/app/.git/config": b"g",
        "/app/.git/objects/": DIR,
        "/app/.git/objects/x": BIG,
        "/app/node_modules/left/x.js": BIG,
        "/app/kept.txt": b"k",
    }
    instructions = [
        Instruction(0, "ADD rootfs.tar /", None, None, None, 0, True),
        Instruction(1, "COPY . /app", None, None, None, 1, False),
    ]
    needs = needs_of(DEBIAN, brought, keep=["/app/kept.txt"])
    plan = plan_of(needs, base_of(DEBIAN), instructions=instructions)
    assert plan.dockerignore == (".git", "node_modules")


def test_the_dictionary_is_plain_and_the_same_each_time() -> None:
    needs = needs_of({**DEBIAN, "/app/run": RUN, "/opt/x": BIG})
    one, two = (plan_of(needs, base_of(DEBIAN)).to_dict() for _ in range(2))
    assert one == two and one["exchange"] is None
    assert {
        "runtime",
        "runtime_image",
        "copies",
        "os_packages",
        "totals",
        "dropped",
        "warnings",
    } <= one.keys()
    assert one["copies"] == [
        {
            "source": "/app",
            "target": "/app",
            "size_bytes": 64,
            "reason": 'CMD ["/app/run"] (CMD)',
            "image": None,
        }
    ]
