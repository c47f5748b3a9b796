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
from needskit import kept_files, needs, program

from layerlens.attribution import Attribution
from layerlens.ecosystems import ImageView, Serves
from layerlens.ecosystems.node import ecosystem
from layerlens.graph import Needs
from layerlens.history import parse_config
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


# --- needs ------------------------------------------------------------------------------------------------

NODE: dict[str, Member] = {"/usr/local/bin/node": program()}
"""An interpreter of which nothing can be read."""


def needs_of(tree: Mapping[str, Member | str], *cmd: str, **more: Any) -> Needs:
    """What an image needs that has Node, these files, and this command in /app."""
    files: dict[str, Member] = {
        path: text.encode() if isinstance(text, str) else text for path, text in tree.items()
    }
    return needs({**NODE, **files}, cmd=cmd, workdir=more.pop("workdir", "/app"), **more)


def below(found: Needs, folder: str) -> list[str]:
    """Kept files and links below a folder, by their path in it."""
    return sorted(path[len(folder) + 1 :] for path in kept_files(found) if path.startswith(f"{folder}/"))


def kinds_to(found: Needs, path: str) -> set[tuple[str, str]]:
    """(kind, evidence) of every edge to a path."""
    return {(edge.kind, edge.evidence) for edge in found.edges if edge.target == path}


def told(found: Needs, code: str) -> list[tuple[str, str | None, str]]:
    """(severity, path, message) of the diagnostics with a code."""
    return [(one.severity, one.path, one.message) for one in found.diagnostics if one.code == code]


def npm_package(name: str, files: Mapping[str, str] | None = None, **fields: object) -> dict[str, str]:
    """A package in /app/node_modules."""
    top = f"/app/node_modules/{name}"
    listed = {"index.js": "exports.x = 1\n", **(files or {})}
    return {
        f"{top}/package.json": manifest(name, **fields).decode(),  # type: ignore[arg-type]
        **{f"{top}/{path}": text for path, text in listed.items()},
    }


def test_a_program_with_its_modules_packages_and_own_files() -> None:
    found = needs_of(
        {
            "/app/package.json": manifest(
                "app", dependencies={"used": "*", "engine": "*"}, devDependencies={"tool": "*"}
            ).decode(),
            "/app/server.js": "const { b } = require('./lib/b')\nrequire('used')\n",
            "/app/lib/b.js": "module.exports = require('./b.json')\n",
            "/app/lib/b.json": "{}",
            "/app/views/index.pug": "p hello\n",
            "/app/test/server.test.js": "require('tool')\n",
            "/app/README.md": "# read me\n",
            "/app/Dockerfile": "FROM node\n",
            "/app/package-lock.json": "{}",
            "/app/jest.config.js": "module.exports = require('tool')\n",
            "/app/.env": "SECRET=1\n",
            "/app/native/addon.c": "int x;\n",
            **npm_package(
                "used",
                {
                    "lib/deep.js": "",
                    "README.md": "",
                    "index.d.ts": "",
                    "index.js.map": "{}",
                    "src/x.ts": "",
                    "test/t.js": "require('tool')",
                    "data.bin": "x",
                },
                dependencies={"inner": "*"},
            ),
            **npm_package("inner"),
            **npm_package("engine", {"index.js": ""}),
            **npm_package("tool"),
            **npm_package("stray"),
        },
        "node",
        "server.js",
    )
    assert below(found, "/app") == [
        "lib/b.js",
        "lib/b.json",
        "node_modules/engine/index.js",
        "node_modules/engine/package.json",
        "node_modules/inner/index.js",
        "node_modules/inner/package.json",
        "node_modules/used/data.bin",
        "node_modules/used/index.js",
        "node_modules/used/lib/deep.js",
        "node_modules/used/package.json",
        "package.json",
        "server.js",
        "views/index.pug",
    ]
    chain = [edge.target for edge in found.chain("/app/node_modules/inner/index.js")]
    assert chain[:3] == ["/usr/local/bin/node", "/app/server.js", "/app/node_modules/used/index.js"]
    assert ("script", "node server.js") in kinds_to(found, "/app/server.js")
    assert found.kept["/app/views/index.pug"].kind == "app-file"
    assert found.kept["/app/views/index.pug"].certainty == "assumed"
    assert found.kept["/app/lib/b.js"].evidence == 'line 1: require "./lib/b"'
    assert told(found, "missing-module") == []


def test_a_bundle_needs_no_packages() -> None:
    found = needs_of(
        {
            "/app/package.json": manifest("app", dependencies={"bundled": "*"}).decode(),
            "/app/dist/main.js": "const fs = require('fs'), http = require('node:http');\n// require('bundled')\n",
            "/app/src/main.js": "require('bundled')",
            "/app/src/page.html": "<p>",
            **npm_package("bundled"),
        },
        "node",
        "dist/main.js",
    )
    assert below(found, "/app") == ["dist/main.js", "package.json", "src/page.html"]


def test_what_is_required_and_not_there_is_told_with_its_place() -> None:
    found = needs_of(
        {
            "/app/dist/server.js": (
                "import { serve } from '@hono/node-server';\n"
                "import './gone.js';\n"
                "try { require('optional') } catch {}\n"
                "import('later').catch(() => {});\n"
                "if (process.env.X) require('perhaps');\n"
            ),
        },
        "node",
        "dist/server.js",
    )
    at = "/app/dist/server.js"
    assert told(found, "missing-module") == [
        ("warning", at, 'line 1: import "@hono/node-server" finds nothing'),
        ("warning", at, 'line 2: import "./gone.js" finds nothing'),
        ("info", at, 'line 3: require "optional" finds nothing'),
        ("info", at, 'line 4: import "later" finds nothing'),
        ("info", at, 'line 5: require "perhaps" finds nothing'),
    ]


def test_computed_names_bring_what_they_may_mean() -> None:
    found = needs_of(
        {
            "/app/server.js": (
                "const path = require('path');\n"
                "const plugins = path.join(__dirname, 'plugins');\n"
                "for (const name of ['a', 'b']) require(path.join(plugins, name));\n"
                "const text = require(`./locale/${process.env.LANG}.json`);\n"
                "import('./routes/' + name + '.js');\n"
                "require(`driver-${kind}`);\n"
                "require(process.argv[2]);\n"
                "app.set('view engine', 'pug');\n"
            ),
            "/app/plugins/a.js": "",
            "/app/plugins/b/index.js": "",
            "/app/locale/de.json": "{}",
            "/app/locale/en.json": "{}",
            "/app/routes/one.js": "require('../lib/one')",
            "/app/routes/one.test.js": "",
            "/app/lib/one.js": "",
            **npm_package("driver-x"),
            **npm_package("driver-y"),
            **npm_package("other"),
            **npm_package("pug"),
        },
        "node",
        "server",
    )
    files = set(below(found, "/app"))
    assert {"plugins/a.js", "plugins/b/index.js", "locale/de.json", "routes/one.js", "lib/one.js"} <= files
    assert {
        "node_modules/driver-x/index.js",
        "node_modules/driver-y/index.js",
        "node_modules/pug/index.js",
    } <= files
    assert "node_modules/other/index.js" not in files and "routes/one.test.js" not in files
    assert found.kept["/app/locale/en.json"].certainty == "likely"
    assert told(found, "computed-require") == [
        ("warning", "/app/server.js", "line 7: require of a computed name: what it loads is not known")
    ]


def test_folders_and_programs_that_the_code_names() -> None:
    found = needs_of(
        {
            "/srv/app/package.json": manifest("app", type="module").decode(),
            "/srv/app/src/main.js": (
                "import { execFile, exec } from 'node:child_process';\n"
                "import { fileURLToPath } from 'node:url';\n"
                "import { Worker } from 'node:worker_threads';\n"
                "const program = fileURLToPath(new URL('../tools/compute.py', import.meta.url));\n"
                "execFile('python3', [program, ...more]);\n"
                "exec('convert in out');\n"
                "/x/.exec('rm');\n"
                "new Worker(new URL('./worker.js', import.meta.url));\n"
                "const docs = fileURLToPath(new URL('../docs', import.meta.url));\n"
                "const zone = '/opt/data/zones.bin';\n"
            ),
            "/srv/app/src/worker.js": "import './part.js'",
            "/srv/app/src/part.js": "",
            "/srv/app/tools/compute.py": "print(1)\n",
            "/srv/app/docs/page.md": "# page\n",
            "/opt/data/zones.bin": "x",
            "/usr/bin/python3": program(),
            "/usr/bin/convert": program(),
            "/bin/sh": program(),
            "/usr/bin/rm": program(),
        },
        "node",
        "/srv/app/src/main.js",
        workdir="/srv/app",
    )
    files = kept_files(found)
    assert {"/usr/bin/python3", "/bin/sh", "/opt/data/zones.bin"} <= files
    assert {f"/srv/app/{name}" for name in ("src/worker.js", "src/part.js", "docs/page.md")} <= files
    assert "/usr/bin/rm" not in files
    assert found.kept["/usr/bin/python3"].source == "/srv/app/src/main.js"


def test_npm_start_runs_the_scripts_of_package_json() -> None:
    npm_at = "/usr/local/lib/node_modules/npm"
    found = needs_of(
        {
            "/usr/local/bin/npm": Symlink(target="../lib/node_modules/npm/bin/npm-cli.js"),
            f"{npm_at}/package.json": manifest("npm", "10.0.0", dependencies={"semver": "*"}).decode(),
            f"{npm_at}/bin/npm-cli.js": program("#!/usr/bin/env node\nrequire('../lib/cli.js')(process)\n"),
            f"{npm_at}/lib/cli.js": "require('semver')",
            f"{npm_at}/man/man1/npm.1": "",
            f"{npm_at}/node_modules/semver/package.json": manifest("semver").decode(),
            f"{npm_at}/node_modules/semver/index.js": "",
            "/usr/bin/env": program(),
            "/bin/sh": program(),
            "/app/package.json": manifest(
                "app", scripts={"prestart": "node check.js", "start": "node -r ./preload server.js"}
            ).decode(),
            "/app/check.js": "",
            "/app/server.js": "",
            "/app/preload.js": "",
        },
        "npm",
        "start",
    )
    files = kept_files(found)
    assert {"/app/check.js", "/app/server.js", "/app/preload.js", "/bin/sh", "/usr/bin/env"} <= files
    assert f"{npm_at}/node_modules/semver/index.js" in files and f"{npm_at}/man/man1/npm.1" not in files
    assert ("script", "node check.js") in kinds_to(found, "/app/check.js")
    sources = [edge.source for edge in found.chain("/app/server.js")]
    assert "/app/package.json" in sources


@pytest.mark.parametrize(
    "command",
    [
        ["npm", "run", "serve", "--", "--port", "80"],
        ["yarn", "serve"],
        ["pnpm", "run", "serve"],
        ["npx", "server-tool"],
        ["npm", "--prefix", "/app", "exec", "server-tool"],
        ["yarn", "server-tool"],
        ["sh", "-c", "npm run serve"],
    ],
)
def test_package_managers_find_programs_of_packages(command: list[str]) -> None:
    tree: dict[str, Member | str] = {
        f"/usr/local/bin/{name}": program("#!/usr/bin/env node\n") for name in ("npm", "npx", "yarn", "pnpm")
    }
    found = needs_of(
        {
            **tree,
            "/usr/bin/env": program(),
            "/bin/sh": program(),
            "/app/package.json": manifest("app", scripts={"serve": "server-tool ./public"}).decode(),
            "/app/public/index.html": "<p>",
            **npm_package("server-tool", {"lib.js": "", "cli.js": ""}, bin={"server-tool": "cli.js"}),
            "/app/node_modules/server-tool/cli.js": program("#!/usr/bin/env node\nrequire('./lib')\n"),
            "/app/node_modules/.bin/server-tool": Symlink(target="../server-tool/cli.js"),
        },
        *command,
    )
    files = below(found, "/app")
    assert {"node_modules/.bin/server-tool", "node_modules/server-tool/lib.js", "public/index.html"} <= set(
        files
    )


def test_tools_bring_their_configuration_and_its_plugins() -> None:
    found = needs_of(
        {
            "/usr/bin/env": program(),
            "/app/package.json": manifest("app", devDependencies={"vite": "*", "jest": "*"}).decode(),
            "/app/vite.config.ts": "import plugin from 'vite-plugin'; export default { plugins: [plugin()] }",
            "/app/postcss.config.js": "module.exports = { plugins: { tailwindcss: {} } }",
            "/app/jest.config.js": "module.exports = require('jest-preset')",
            "/app/tsconfig.json": "{}",
            "/app/src/main.tsx": "import 'react'",
            "/app/dist/index.html": "<p>",
            **npm_package(
                "vite", {"bin/vite.js": ""}, bin={"vite": "bin/vite.js"}, dependencies={"postcss": "*"}
            ),
            "/app/node_modules/vite/bin/vite.js": program("#!/usr/bin/env node\nimport('../index.js')\n"),
            "/app/node_modules/.bin/vite": Symlink(target="../vite/bin/vite.js"),
            **npm_package("postcss"),
            **npm_package("vite-plugin"),
            **npm_package("tailwindcss"),
            **npm_package("jest-preset"),
            **npm_package("react"),
        },
        "/app/node_modules/.bin/vite",
        "preview",
    )
    files = set(below(found, "/app"))
    assert {"vite.config.ts", "postcss.config.js", "tsconfig.json", "dist/index.html"} <= files
    assert {f"node_modules/{name}/index.js" for name in ("vite-plugin", "tailwindcss", "postcss")} <= files
    assert not {"jest.config.js", "src/main.tsx"} & files
    assert not [
        path for path in files if path.startswith(("node_modules/react/", "node_modules/jest-preset/"))
    ]


def test_development_packages_are_needed_only_where_the_code_counts_on_them() -> None:
    lock = {
        "lockfileVersion": 3,
        "packages": {
            "node_modules/used": {"version": "1.0.0"},
            **{
                f"node_modules/{name}": {"version": "1.0.0", "dev": True}
                for name in ("perhaps", "surely", "own")
            },
        },
    }
    found = needs_of(
        {
            "/app/package.json": manifest("app", dependencies={"used": "*"}).decode(),
            "/app/node_modules/.package-lock.json": json.dumps(lock),
            "/app/main.js": "require('used'); require('own')",
            "/app/unused.js": "require('perhaps')",
            **npm_package(
                "used",
                {
                    "index.js": "// require('perhaps')\ntry { require('perhaps') } catch (e) {}\nrequire('surely')"
                },
            ),
            **npm_package("perhaps"),
            **npm_package("surely"),
            **npm_package("own"),
        },
        "node",
        "main.js",
    )
    assert below(found, "/app/node_modules") == [
        f"{name}/{file}" for name in ("own", "surely", "used") for file in ("index.js", "package.json")
    ]


def elf(machine: int) -> bytes:
    """The head of an ELF file for a machine (System V gABI, ELF header)."""
    return (
        b"\x7fELF\x02\x01\x01"
        + bytes(9)
        + (3).to_bytes(2, "little")
        + machine.to_bytes(2, "little")
        + bytes(44)
    )


@pytest.mark.parametrize("libc", ["glibc", "musl"])
def test_addons_of_other_platforms_stay_behind(libc: str) -> None:
    x64, arm = elf(62), elf(183)
    loader = "/lib64/ld-linux-x86-64.so.2" if libc == "glibc" else "/lib/ld-musl-x86_64.so.1"
    top = "/app/node_modules/addon"
    platforms = {
        "@img/addon-linux-x64": {"os": ["linux"], "cpu": ["x64"], "libc": ["glibc"]},
        "@img/addon-linuxmusl-x64": {"os": ["linux"], "cpu": ["x64"], "libc": ["musl"]},
        "@img/addon-darwin-arm64": {"os": ["darwin"], "cpu": ["arm64"]},
    }
    files: dict[str, Member | str] = {
        loader: b"x",
        "/app/main.js": "require('addon')",
        **npm_package(
            "addon",
            {"binding.gyp": "{}", "deps/lib.tar.gz": "x"},
            optionalDependencies=dict.fromkeys(platforms, "*"),
        ),
        f"{top}/index.js": "require('node-gyp-build')(__dirname); require(`@img/addon-${platform}`)",
        f"{top}/prebuilds/linux-x64/node.napi.node": x64,
        f"{top}/prebuilds/linux-x64/node.napi.musl.node": x64,
        f"{top}/prebuilds/linux-arm64/node.napi.node": arm,
        f"{top}/prebuilds/darwin-x64+arm64/node.napi.node": b"\xcf\xfa\xed\xfe" + bytes(60),
        f"{top}/build/Release/addon.node": x64,
        f"{top}/build/Release/obj.target/addon.node": x64,
        f"{top}/build/Release/.deps/x.d": "x",
        f"{top}/build/Makefile": "x",
        f"{top}/lib/other.node": arm,
        f"{top}/lib/tool.exe": "MZ",
    }
    for name, fields in platforms.items():
        files |= npm_package(name, {"addon.node": ""}, **fields)
        files[f"/app/node_modules/{name}/addon.node"] = x64
    found = needs_of(files, "node", "main.js")
    kept = below(found, "/app/node_modules")
    musl = libc == "musl"
    assert kept == sorted(
        [
            *(
                f"{'@img/addon-linuxmusl-x64' if musl else '@img/addon-linux-x64'}/{name}"
                for name in ("addon.node", "index.js", "package.json")
            ),
            "addon/build/Release/addon.node",
            "addon/index.js",
            "addon/package.json",
            "addon/prebuilds/linux-x64/node.napi.node",
            *(["addon/prebuilds/linux-x64/node.napi.musl.node"] if musl else []),
        ]
    )


def test_linked_packages_are_read_where_they_lie() -> None:
    found = needs_of(
        {
            "/app/package.json": manifest("root", workspaces=["packages/*"]).decode(),
            "/app/packages/web/package.json": manifest("web", dependencies={"lib": "*"}).decode(),
            "/app/packages/web/main.js": "require('lib')",
            "/app/packages/lib/package.json": manifest("lib", main="l.js").decode(),
            "/app/packages/lib/l.js": "require('leaf')",
            "/app/node_modules/lib": Symlink(target="../packages/lib"),
            **npm_package("leaf"),
        },
        "node",
        "packages/web/main.js",
    )
    assert {"packages/lib/l.js", "node_modules/leaf/index.js"} <= set(below(found, "/app"))
    assert "/app/node_modules/lib" in found.kept
    assert told(found, "missing-module") == []


def test_dotenv_and_source_maps() -> None:
    found = needs_of(
        {
            "/app/main.js": "require('dotenv/config')\n//# sourceMappingURL=main.js.map\n",
            "/app/main.js.map": "{}",
            "/app/.env": "A=1",
            "/app/.env.production": "B=1",
            "/app/.env.test": "C=1",
            **npm_package("dotenv", {"config.js": ""}),
        },
        "node",
        "--enable-source-maps",
        "main.js",
        env={"NODE_ENV": "production"},
    )
    files = below(found, "/app")
    assert {".env", ".env.production", "main.js.map"} <= set(files) and ".env.test" not in files


def test_sources_that_lie() -> None:
    deep = "(" * 5000 + "require('x')" + ")" * 5000
    found = needs_of(
        {
            "/app/main.js": "require('./a'); require('./b'); require('./c'); require('./d'); require('./e')",
            "/app/a.js": b"\xff\xfe\x00require('",
            "/app/b.js": deep,
            "/app/c.js": "const a = b; const b = a; require(a); require('./c'); require('./main')",
            "/app/d.js": Symlink(target="d.js"),
            "/app/e.js": "require(" * 3000,
            "/app/package.json": "{",
            "/app/node_modules/x/package.json": '{"main": "../../../../etc/passwd", "dependencies": ["x", 7]}',
            "/etc/passwd": "root:x:0:0::/root:/bin/sh\n",
        },
        "node",
        "main.js",
    )
    assert {"a.js", "b.js", "c.js", "e.js"} <= set(below(found, "/app"))
    assert ("warning", "/app/main.js", 'line 1: require "./d" finds nothing') in told(found, "missing-module")


HOOK = """
const Module = require('module'), fs = require('fs'), original = Module._resolveFilename;
Module._resolveFilename = function (request, parent, ...rest) {
  const found = original.call(this, request, parent, ...rest);
  if (found.startsWith('/')) fs.appendFileSync(process.env.LOADED, found + '\\n');
  return found;
};
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="no node on this machine")
def test_what_node_itself_loads_is_kept(tmp_path: Path) -> None:
    top = tmp_path.resolve() / "app"
    files = {
        "main.js": (
            "const path = require('path');\n"
            "require('./lib/one');\n"
            "for (const n of ['x', 'y']) require(path.join(__dirname, 'plugins', n));\n"
            "require(`./locale/${['en'][0]}`);\n"
            "const { createRequire } = require('module'); const load = createRequire(__filename); load('late');\n"
            "try { require('absent') } catch {}\n"
            "require('dual/features/a');\n"
        ),
        "lib/one.js": "require('../lib/two.json'); require('pkg'); require('linked');",
        "lib/two.json": "{}",
        "plugins/x.js": "",
        "plugins/y/index.js": "require('../../helper')",
        "helper.js": "",
        "locale/en.js": "",
        "package.json": manifest("app", dependencies={"pkg": "*"}).decode(),
        "node_modules/pkg/package.json": manifest("pkg", main="./m", dependencies={"leaf": "*"}).decode(),
        "node_modules/pkg/m.js": "const name = 'le' + 'af'; require(name); require('./test/needed')",
        "node_modules/pkg/test/needed.js": "",
        "node_modules/leaf/index.js": "module.exports = require('./data')",
        "node_modules/leaf/data.json": "{}",
        "node_modules/leaf/package.json": manifest("leaf").decode(),
        "node_modules/late/index.js": "",
        "node_modules/dual/package.json": manifest(
            "dual", exports={"./features/*": {"import": "./f/*.mjs", "require": "./f/*.cjs"}}
        ).decode(),
        "node_modules/dual/f/a.cjs": "",
        "packages/linked/index.js": "require('leaf')",
        "unused/never.js": "require('pkg')",
    }
    for path, text in files.items():
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_text(text)
    (top / "node_modules/linked").symlink_to("../packages/linked")
    (tmp_path / "hook.js").write_text(HOOK)
    loaded = tmp_path / "loaded.txt"
    subprocess.run(
        ["node", "--require", str(tmp_path / "hook.js"), "main.js"],
        cwd=top,
        env={"PATH": os.environ["PATH"], "LOADED": str(loaded)},
        check=True,
        timeout=60,
    )
    seen = {path[len(str(top)) + 1 :] for path in loaded.read_text().split() if path.startswith(f"{top}/")}
    assert len(seen) == 14
    tree: dict[str, Member | str] = {f"/app/{path}": text for path, text in files.items()}
    found = needs_of(
        {**tree, "/app/node_modules/linked": Symlink(target="../packages/linked")}, "node", "main.js"
    )
    assert seen - set(below(found, "/app")) == set()
    assert told(found, "computed-require") == []


# --- what the plan may do ---------------------------------------------------------------------------------

SITE: dict[str, Member | str] = {
    "/bin/sh": program(),
    "/app/package.json": manifest(
        "site",
        scripts={
            "preview": "vite preview",
            "start": "react-scripts start",
            "serve": "serve -s build -l 5000",
            "both": "vite build && vite preview --port 9000",
            "api": "node server.js",
        },
    ).decode(),
    "/app/vite.config.ts": "export default { server: { port: 1 }, preview: { strictPort: true, port: 18104 } }",
    "/app/dist/index.html": "<div id=root>",
    "/app/dist/assets/a.js": "",
    "/app/build/index.html": "<div id=root>",
    "/app/server.js": "",
}


def site(
    *cmd: str, tree: Mapping[str, Member | str] | None = None, **config: Any
) -> tuple[str, int, bool] | None:
    """(root, port, single page) of an image with the site above."""
    members = {
        path: text.encode() if isinstance(text, str) else text for path, text in (tree or SITE).items()
    }
    view = view_of(members, cmd, **config)
    found = ecosystem.static_site(view)
    return None if found is None else (found.root, found.port, found.single_page)


def view_of(members: Mapping[str, Member], cmd: tuple[str, ...], **config: Any) -> ImageView:
    inside = {"Cmd": list(cmd), "WorkingDir": "/app", "Env": ["PATH=/usr/local/bin:/bin"], **config}
    raw = json.dumps({"os": "linux", "architecture": "amd64", "config": inside}).encode()
    filesystem = treekit.fs(members)
    found, _ = treekit.packages(ecosystem, filesystem)
    attribution = Attribution(filesystem, found)
    parsed = parse_config(raw)
    env = dict(word.split("=", 1) for word in parsed.env)
    return ImageView(filesystem, parsed, found, attribution.owner_of, attribution.category_of, env)


def test_servers_that_hand_out_a_built_site() -> None:
    assert site("npm", "run", "preview", "--", "--host", "0.0.0.0") == ("/app/dist", 18104, True)
    assert site("npm", "run", "preview", "--", "--port", "80") == ("/app/dist", 80, True)
    assert site("npm", "start") == ("/app/build", 3000, True)
    assert site("npm", "start", Env=["PORT=3333"]) == ("/app/build", 3333, True)
    assert site("yarn", "serve") == ("/app/build", 5000, True)
    assert site("pnpm", "both") == ("/app/dist", 9000, True)
    assert site("npx", "http-server", "dist") == ("/app/dist", 8080, False)
    assert site("npx", "http-server", "dist", ExposedPorts={"8081/tcp": {}}) == ("/app/dist", 8081, False)
    assert site("sh", "-c", "exec npx serve dist -p $PORT", Env=["PORT=70"]) == ("/app/dist", 70, False)
    assert site("docker-entrypoint.sh", "npm", "run", "preview") == ("/app/dist", 18104, True)


def test_what_is_no_static_site() -> None:
    assert site("npm", "run", "api") is None
    assert site("node", "server.js") is None
    assert site("npx", "serve") is None  # the whole project is no site
    assert site("npm", "run", "gone") is None
    assert site("sh", "-c", "node server.js & npx serve dist") is None
    assert site("npm", "run", "preview", tree={**SITE, "/app/dist/server.node": "x"}) is None
    assert site("npm", "run", "preview", tree={"/app/package.json": SITE["/app/package.json"]}) is None
    assert isinstance(ecosystem, Serves)


def test_a_server_that_does_more_is_no_static_site() -> None:
    assert site("npx", "http-server", "dist", "-P", "http://api:80") is None
    assert site("npm", "run", "preview", "--", "--base", "/shop/") is None
    for more in (
        "export default { base: '/shop/' }",
        "export default { preview: { proxy: { '/api': 'http://api' } } }",
        "export default { plugins: [{ configurePreviewServer(server) {} }] }",
    ):
        assert site("npm", "run", "preview", tree={**SITE, "/app/vite.config.ts": more}) is None, more
    proxied = {**SITE, "/app/angular.json": '{"options": {"proxyConfig": "proxy.conf.json"}}'}
    assert site("npx", "ng", "serve", tree=proxied) is None and site("npx", "ng", "serve") is not None
    same = "export default { base: './', preview: { port: 18104 } }"
    assert site("npm", "run", "preview", tree={**SITE, "/app/vite.config.ts": same}) is not None
    assert site("npx", "serve", "dist") is not None
    assert site("npx", "serve", "dist", tree={**SITE, "/app/serve.json": "{}"}) is None


def test_the_builder_can_prune_what_only_development_needs() -> None:
    lock = json.dumps(
        {"lockfileVersion": 3, "packages": {"node_modules/t": {"version": "1.0.0", "dev": True}}}
    )
    tree: dict[str, Member] = {
        "/usr/local/bin/npm": program(),
        "/app/package.json": manifest("app", devDependencies={"t": "*"}),
        "/app/node_modules/.package-lock.json": lock.encode(),
        "/app/node_modules/t/package.json": manifest("t"),
    }
    (found,) = ecosystem.improvements(view_of(tree, ()))
    assert (found.line, found.workdir, found.covers) == (
        "RUN npm prune --omit=dev",
        "/app",
        ("/app/node_modules",),
    )
    assert list(ecosystem.improvements(view_of({k: v for k, v in tree.items() if "bin" not in k}, ()))) == []
    pruned = {k: v for k, v in tree.items() if "/t/" not in k}
    assert list(ecosystem.improvements(view_of(pruned, ()))) == []


@pytest.mark.skipif(not HAVE_NPM, reason="no npm on this machine")
def test_pruning_takes_away_what_is_told(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project / "app", tmp_path / "app", symlinks=True)
    tree = treekit.fs_of_folders({"/app": tmp_path / "app"})
    found, _ = treekit.packages(ecosystem, tree)
    doomed = {package.roots[0] for package in found if package.category == "dev-dependencies"}
    npm(tmp_path, "prune", "--omit=dev", "--offline", "--no-audit", "--no-fund")
    left = {root for root in (package.roots[0] for package in found) if (tmp_path / root[1:]).exists()}
    assert {package.roots[0] for package in found} - left == doomed and doomed
