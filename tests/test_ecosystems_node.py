"""Node packages, against npm itself on trees that npm installed, without a registry."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import treekit
from imagekit import Member, Symlink

from layerlens.ecosystems.node import ecosystem
from layerlens.model import Package

HAVE_NPM = shutil.which("npm") is not None


def manifest(name: str, version: str = "1.0.0", **more: object) -> bytes:
    return json.dumps({"name": name, "version": version, **more}).encode()


def found_in(tree: Mapping[str, Member]) -> dict[str, Package]:
    found, diagnostics = treekit.packages(ecosystem, treekit.fs(tree))
    assert diagnostics == []
    return {package.roots[0]: package for package in found}


def development(found: Mapping[str, Package]) -> list[str]:
    return [root for root, package in found.items() if package.category == "dev-dependencies"]


def test_packages_scopes_and_what_is_neither() -> None:
    found = found_in(
        {
            "/app/package.json": manifest("app", dependencies={"a": "*", "@s/b": "*"}),
            "/app/node_modules/a/package.json": manifest(
                "a", "1.2.3", license="MIT", dependencies={"c": "1"}
            ),
            "/app/node_modules/a/esm/package.json": b'{"type": "module"}',
            "/app/node_modules/a/node_modules/c/package.json": manifest("c"),
            "/app/node_modules/@s/b/package.json": manifest("@s/b", license={"type": "ISC"}),
            "/app/node_modules/.bin/package.json": b"not even JSON",
            "/app/node_modules/.cache/x/package.json": b"nor this",
            "/app/node_modules/.prisma/client/package.json": manifest("made"),
        }
    )
    assert [(p.name, p.version, p.license, p.requires) for p in found.values()] == [
        ("@s/b", "1.0.0", "ISC", ()),
        ("a", "1.2.3", "MIT", ("c",)),
        ("c", "1.0.0", None, ()),
    ]
    assert list(found) == [
        "/app/node_modules/@s/b",
        "/app/node_modules/a",
        "/app/node_modules/a/node_modules/c",
    ]
    assert found["/app/node_modules/a"].location == "/app/node_modules/a/package.json"
    assert development(found) == []


def test_development_by_the_installed_tree() -> None:
    found = found_in(
        {
            "/app/package.json": manifest(
                "app", dependencies={"a": "*"}, devDependencies={"t": "*", "b": "*"}
            ),
            "/app/node_modules/a/package.json": manifest(
                "a", dependencies={"b": "*"}, optionalDependencies={"o": "*"}
            ),
            "/app/node_modules/b/package.json": manifest("b", peerDependencies={"p": "*", "q": "*"})
            .replace(b"}", b"}", 1)
            .replace(
                b'"peerDependencies"',
                b'"peerDependenciesMeta": {"q": {"optional": true}}, "peerDependencies"',
            ),
            "/app/node_modules/o/package.json": manifest("o"),
            "/app/node_modules/p/package.json": manifest("p"),
            "/app/node_modules/q/package.json": manifest("q"),
            "/app/node_modules/t/package.json": manifest("t", dependencies={"u": "*", "q": "*", "a": "*"}),
            "/app/node_modules/t/node_modules/a/package.json": manifest("a", "2.0.0"),
            "/app/node_modules/u/package.json": manifest("u", dependencies={"t": "*"}),
            "/app/node_modules/stray/package.json": manifest("stray"),
        }
    )
    # b is needed by a as well; q only as an optional peer; t's own copy of a is development, the other not;
    # nothing names stray, so nothing says that it is for development.
    assert development(found) == [
        "/app/node_modules/q",
        "/app/node_modules/t",
        "/app/node_modules/t/node_modules/a",
        "/app/node_modules/u",
    ]


@pytest.mark.parametrize(
    "lock", ["node_modules/.package-lock.json", "package-lock.json", "npm-shrinkwrap.json"]
)
def test_development_by_the_lockfile(lock: str) -> None:
    entries = {
        "": {"name": "app"},
        "node_modules/a": {"version": "1.0.0"},
        "node_modules/t": {"version": "1.0.0", "dev": True},
        "node_modules/both": {"version": "1.0.0", "devOptional": True},
        "node_modules/t/node_modules/a": {"version": "2.0.0", "dev": True},
        "node_modules/gone": {"version": "1.0.0", "dev": True},
    }
    tree: dict[str, Member] = {
        "/app/package.json": manifest("app", dependencies={"t": "*"}),
        f"/app/{lock}": json.dumps({"lockfileVersion": 3, "packages": entries}).encode(),
    }
    for path, entry in entries.items():
        if path and not path.endswith("gone"):
            name = path.rpartition("/")[2]
            tree[f"/app/{path}/package.json"] = manifest(name, str(entry["version"]))
    found = found_in(tree)
    assert development(found) == ["/app/node_modules/t", "/app/node_modules/t/node_modules/a"]
    assert found["/app/node_modules/t/node_modules/a"].version == "2.0.0"


def test_development_by_a_lockfile_of_version_1() -> None:
    lock = {
        "lockfileVersion": 1,
        "dependencies": {
            "a": {"version": "1.0.0"},
            "t": {"version": "1.0.0", "dev": True, "dependencies": {"u": {"version": "1.0.0", "dev": True}}},
        },
    }
    found = found_in(
        {
            "/app/package.json": manifest("app"),
            "/app/package-lock.json": json.dumps(lock).encode(),
            "/app/node_modules/a/package.json": manifest("a"),
            "/app/node_modules/t/package.json": manifest("t"),
            "/app/node_modules/t/node_modules/u/package.json": manifest("u"),
        }
    )
    assert development(found) == ["/app/node_modules/t", "/app/node_modules/t/node_modules/u"]


def test_pnpm_links_into_its_store() -> None:
    store = "/app/node_modules/.pnpm"
    found = found_in(
        {
            "/app/package.json": manifest(
                "app", dependencies={"express": "*"}, devDependencies={"jest": "*"}
            ),
            "/app/node_modules/express": Symlink(target=".pnpm/express@4.0.0/node_modules/express"),
            "/app/node_modules/jest": Symlink(target=".pnpm/jest@29.0.0/node_modules/jest"),
            f"{store}/express@4.0.0/node_modules/express/package.json": manifest(
                "express", "4.0.0", dependencies={"debug": "*"}
            ),
            f"{store}/express@4.0.0/node_modules/debug": Symlink(
                target="../../debug@2.0.0/node_modules/debug"
            ),
            f"{store}/debug@2.0.0/node_modules/debug/package.json": manifest("debug", "2.0.0"),
            f"{store}/jest@29.0.0/node_modules/jest/package.json": manifest(
                "jest", "29.0.0", dependencies={"x": "*"}
            ),
            f"{store}/jest@29.0.0/node_modules/x": Symlink(target="../../x@1.0.0/node_modules/x"),
            f"{store}/x@1.0.0/node_modules/x/package.json": manifest("x"),
        }
    )
    assert sorted(package.name for package in found.values()) == ["debug", "express", "jest", "x"]
    assert sorted(found[root].name for root in development(found)) == ["jest", "x"]


def test_npm_itself_is_a_build_tool() -> None:
    at = "/usr/local/lib/node_modules"
    found = found_in(
        {
            f"{at}/npm/package.json": manifest("npm", "10.0.0", dependencies={"abbrev": "*"}),
            f"{at}/npm/node_modules/abbrev/package.json": manifest("abbrev"),
            f"{at}/serve/package.json": manifest("serve", dependencies={"ajv": "*"}),
            f"{at}/serve/node_modules/ajv/package.json": manifest("ajv"),
        }
    )
    assert {root[len(at) + 1 :]: package.category for root, package in found.items()} == {
        "npm": "compilers",
        "npm/node_modules/abbrev": "compilers",
        "serve": None,
        "serve/node_modules/ajv": None,
    }


def test_broken_files_are_diagnostics() -> None:
    tree: dict[str, Member] = {
        "/app/package.json": b"[]",
        "/app/package-lock.json": b"{" + b'"a":{' * 50_000,
        "/app/node_modules/.package-lock.json": b"\xff\xfe",
        "/app/node_modules/a/package.json": b"{",
        "/app/node_modules/b/package.json": b'{"name": 7, "version": ["x"], "dependencies": "no", "license": 3}',
        "/app/node_modules/c/package.json": Symlink(target="package.json"),
        "/app/node_modules/\udcff/package.json": manifest("bytes"),
    }
    found, diagnostics = treekit.packages(ecosystem, treekit.fs(tree))
    assert [(package.name, package.version) for package in found] == [
        ("a", ""),
        ("b", ""),
        ("c", ""),
        ("bytes", "1.0.0"),
    ]
    assert {diagnostic.path for diagnostic in diagnostics} == {
        "/app/package.json",
        "/app/package-lock.json",
        "/app/node_modules/.package-lock.json",
        "/app/node_modules/a/package.json",
        "/app/node_modules/c/package.json",
    }


def test_links_and_names_that_lead_out_or_in_circles() -> None:
    tree: dict[str, Member] = {
        "/app/package.json": manifest(
            "app", dependencies={"a": "*", "../../etc": "*", "": "*", "loop": "*", "/x": "*"}
        ),
        "/app/node_modules/loop": Symlink(target="loop"),
        "/app/node_modules/a/package.json": manifest("a", dependencies={"a": "*", "b": "*"}),
        "/app/node_modules/a/node_modules/b": Symlink(target="../.."),
        "/app/node_modules/up": Symlink(target="/"),
    }
    found, diagnostics = treekit.packages(ecosystem, treekit.fs(tree))
    assert [package.name for package in found] == ["a"] and diagnostics == []


# --- npm as the judge -------------------------------------------------------------------------------------


def pack(folder: Path, name: str, **more: object) -> str:
    """A package as a tarball that npm installs without a registry."""
    path = folder / f"{name.replace('/', '-').removeprefix('@')}.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for member, data in {
            "package.json": manifest(name, **more),  # type: ignore[arg-type]
            "index.js": b"module.exports = 1\n",
            "README.md": b"# read me\n",
        }.items():
            info = tarfile.TarInfo(f"package/{member}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return f"file:{path}"


def npm(folder: Path, *words: str) -> str:
    environment = {
        **os.environ,
        "npm_config_cache": str(folder / ".npm-cache"),
        "npm_config_update_notifier": "false",
    }
    done = subprocess.run(
        ["npm", *words], cwd=folder / "app", env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def installed(folder: Path, *words: str) -> dict[str, str]:
    """Directory → version of every package, by `npm ls`."""
    found: dict[str, str] = {}

    def walk(node: dict[str, Any]) -> None:
        for child in node.get("dependencies", {}).values():
            if "path" in child and not child.get("missing"):
                relative = os.path.relpath(child["path"], folder)
                if f"/{relative}" not in found:
                    found[f"/{relative}"] = child["version"]
                    walk(child)

    walk(json.loads(npm(folder, "ls", "--all", "--long", "--json", *words)))
    return found


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("npm")
    leaf = pack(folder, "leaf")
    leaf_2 = pack(folder / "..", "leaf", version="2.0.0")
    shared = pack(folder, "shared", dependencies={"leaf": leaf})
    peer = pack(folder, "peer")
    plugin = pack(folder, "plugin", peerDependencies={"peer": "1.0.0"})
    optional = pack(folder, "optional")
    framework = pack(
        folder,
        "@scope/framework",
        dependencies={"shared": shared},
        optionalDependencies={"optional": optional},
    )
    runner = pack(folder, "runner", dependencies={"shared": shared, "leaf": leaf_2})
    (folder / "app").mkdir()
    (folder / "app/package.json").write_bytes(
        manifest(
            "app",
            dependencies={"@scope/framework": framework, "plugin": plugin, "peer": peer},
            devDependencies={
                "runner": runner,
                "only": pack(folder, "only", dependencies={"deep": pack(folder, "deep")}),
            },
        )
    )
    npm(folder, "install", "--offline", "--no-audit", "--no-fund")
    return folder


@pytest.mark.skipif(not HAVE_NPM, reason="no npm on this machine")
@pytest.mark.parametrize("keep", ["hidden lockfile", "lockfile", "version 1", "tree"])
def test_what_npm_itself_says_is_installed_and_for_production(project: Path, keep: str) -> None:
    everything = installed(project)
    production = installed(project, "--omit=dev")
    assert len(everything) == 10 and len(production) == 6
    folders = {
        "/app/package.json": project / "app/package.json",
        "/app/node_modules": project / "app/node_modules",
    }
    lockfile = json.loads((project / "app/package-lock.json").read_text())
    more: dict[str, Member] = {}
    if keep == "lockfile":
        more["/app/package-lock.json"] = json.dumps(lockfile).encode()
    elif keep == "version 1":
        more["/app/package-lock.json"] = json.dumps(version_1(lockfile)).encode()
    filesystem = treekit.fs_of_folders(folders, more)
    if keep != "hidden lockfile":
        from imagekit import layer
        from squashkit import Memory

        from layerlens.filesystem import Filesystem

        without = Memory(layer({}, whiteouts=["/app/node_modules/.package-lock.json"]))
        filesystem = Filesystem([*filesystem.layers, without])
    found, diagnostics = treekit.packages(ecosystem, filesystem)
    assert diagnostics == []
    assert {package.roots[0]: package.version for package in found} == everything
    kept = {package.roots[0] for package in found if package.category != "dev-dependencies"}
    assert kept == set(production)


def version_1(lockfile: dict[str, Any]) -> dict[str, Any]:
    """The same lockfile in the form of npm 5 and 6: dependencies nested as the folders are."""
    top: dict[str, Any] = {}
    for path, entry in sorted(lockfile["packages"].items()):
        if path:
            *above, name = path.removeprefix("node_modules/").split("/node_modules/")
            where = top
            for parent in above:
                where = where[parent].setdefault("dependencies", {})
            where[name] = {key: entry[key] for key in ("version", "dev") if key in entry}
    return {"lockfileVersion": 1, "dependencies": top}


@pytest.mark.skipif(not HAVE_NPM, reason="no npm on this machine")
def test_workspaces_as_npm_installs_them(tmp_path: Path) -> None:
    leaf, leaf_2, tool = (
        pack(tmp_path, "leaf"),
        pack(tmp_path / "..", "leaf", version="2.0.0"),
        pack(tmp_path, "tool"),
    )
    for name, more in {
        "app": {"workspaces": ["packages/*"], "devDependencies": {"tool": tool}},
        "app/packages/web": {"dependencies": {"leaf": leaf}},
        "app/packages/lib": {"dependencies": {"leaf": leaf_2}, "devDependencies": {"tool": tool}},
    }.items():
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "package.json").write_bytes(manifest(name.rpartition("/")[2], **more))  # type: ignore[arg-type]
    npm(tmp_path, "install", "--offline", "--no-audit", "--no-fund")
    inside = {path: version for path, version in installed(tmp_path).items() if "/node_modules/" in path}
    for hidden in (True, False):
        if not hidden:
            (tmp_path / "app/node_modules/.package-lock.json").unlink()
            (tmp_path / "app/package-lock.json").unlink()
        found, diagnostics = treekit.packages(ecosystem, treekit.fs_of_folders({"/app": tmp_path / "app"}))
        assert diagnostics == []
        assert {package.roots[0]: package.version for package in found} == {
            path: version for path, version in inside.items() if not path.endswith(("/web", "/lib"))
        }
        assert [package.name for package in found if package.category == "dev-dependencies"] == ["tool"]
