"""Which builds of a package are for others than Node; Node itself is the oracle where it is there."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from imagekit import Member
from needskit import kept_files, needs, program

from layerlens.ecosystems._node_builds import (
    export_targets,
    foreign,
    is_told,
    loads_by_computed_names,
    located,
    located_packages,
    matching,
)

PACKAGE = "/app/node_modules/lux"
BUILDS = {
    "index.js": b"module.exports = require('./lib/a')",
    "lib/a.js": b"module.exports = 1",
    "lib/unasked.js": b"",
    "es/index.js": b"export default 1",
    "umd/lux.js": b"",
    "dist/lux.js": b"",
    "dist/lux.min.js": b"",
    "dist/extra.js": b"",
    "browser.js": b"",
    "web-only.js": b"",
    "style.css": b"",
}


def image(
    main: bytes, builds: dict[str, bytes], manifest: dict[str, object], **more: bytes
) -> dict[str, Member]:
    tree: dict[str, Member] = {
        "/usr/bin/node": program(),
        "/app/main.js": main,
        "/app/package.json": json.dumps({"name": "app", "dependencies": {"lux": "*"}}).encode(),
        f"{PACKAGE}/package.json": json.dumps({"name": "lux", "version": "1.0.0", **manifest}).encode(),
    }
    tree |= {f"{PACKAGE}/{name}": data for name, data in builds.items()}
    return tree | {f"/app/node_modules/{name}": data for name, data in more.items()}


def kept(tree: dict[str, Member]) -> set[str]:
    """What is kept of the package, below its folder."""
    found = needs(tree, entrypoint=["node", "main.js"], workdir="/app", env={"PATH": "/usr/bin"})
    return {path[len(PACKAGE) + 1 :] for path in kept_files(found) if path.startswith(f"{PACKAGE}/")}


LEFT = {"es/index.js", "umd/lux.js", "dist/lux.js", "dist/lux.min.js", "browser.js", "web-only.js"}


def test_builds_that_fields_and_names_give_to_others_are_left() -> None:
    manifest: dict[str, object] = {"browser": {"./lib/a.js": "./web-only.js", "fs": False}}
    found = kept(image(b"require('lux')", BUILDS, manifest))
    assert found == {"package.json", *BUILDS} - LEFT


@pytest.mark.parametrize(
    ("main", "back"),
    [
        (b"require('lux/umd/lux.js')", {"umd/lux.js"}),
        (b"require('lux'); require(`lux/es/${name}`)", LEFT),
        (b"require('lux'); const where = require.resolve('lux')", LEFT),
        (b"require('lux'); require('lux/package.json')", LEFT),
        (b"require('lux'); serve(path.join(__dirname, 'node_modules'))", LEFT),
        (b"require('lux'); serve('node_modules/lux/dist')", {"dist/lux.js", "dist/lux.min.js"}),
    ],
)
def test_what_anybody_may_ask_for_stays(main: bytes, back: set[str]) -> None:
    manifest: dict[str, object] = {"browser": "./web-only.js"}
    found = kept(image(main, BUILDS, manifest))
    assert found & LEFT == back


@pytest.mark.parametrize(
    ("module", "back"),
    [
        (b"exports.load = name => require(name)", LEFT),
        (b"exports.root = __dirname", LEFT),
        (b"exports.client = path.join(__dirname, '../umd')", {"umd/lux.js"}),
        (b"fs.readFileSync(__dirname + '/../dist/lux.min.js')", {"dist/lux.js", "dist/lux.min.js"}),
        (b"fs.readFileSync(__dirname + '/../data/font.afm')", set()),
    ],
)
def test_a_package_that_loads_or_hands_out_its_own_files_keeps_them(module: bytes, back: set[str]) -> None:
    builds = {**BUILDS, "lib/a.js": module}
    found = kept(image(b"require('lux')", builds, {"browser": "./web-only.js"}))
    assert found & LEFT == back


def test_with_a_bundler_in_the_image_all_builds_stay() -> None:
    manifest: dict[str, object] = {"browser": "./web-only.js", "dependencies": {"rollup": "*"}}
    tree = image(
        b"require('lux')",
        BUILDS,
        manifest,
        **{"rollup/package.json": b'{"name": "rollup", "version": "1"}', "rollup/index.js": b""},
    )
    assert kept(tree) >= LEFT


EXPORTS: dict[str, object] = {
    ".": {"types": "./x.d.ts", "browser": "./web.js", "import": "./index.mjs", "require": "./index.cjs"},
    "./locale/*": "./locale/*.js",
}
TWINS = {
    "index.mjs": b"export * from './inner.mjs'",
    "inner.mjs": b"",
    "index.cjs": b"require('./shared.js')",
    "shared.js": b"",
    "locale/de.js": b"",
    "cdn/de.js": b"",
    "unexported.js": b"",
    "web.js": b"",
}


def test_beside_exports_nothing_can_be_asked_for() -> None:
    found = kept(image(b"import('lux'); require('lux')", TWINS, {"exports": EXPORTS}))
    assert set(TWINS) - found == {"cdn/de.js", "unexported.js", "web.js"}


def test_the_build_for_import_goes_where_everybody_requires() -> None:
    twins = {"index.mjs", "inner.mjs"}
    assert twins.isdisjoint(kept(image(b"require('lux')", TWINS, {"exports": EXPORTS})))
    for main in (b"import('lux')", b"require('lux'); import(name)", b"require('gone')"):
        assert twins <= kept(image(main, TWINS, {"exports": EXPORTS})), main
    asks = {"other/package.json": b'{"name": "other", "version": "1", "type": "module"}'}
    asks["other/index.js"] = b"import lux from 'lux'"
    tree = image(b"require('lux'); require('other')", TWINS, {"exports": EXPORTS}, **asks)
    assert twins <= kept(tree)


def test_the_pieces() -> None:
    targets = list(export_targets(EXPORTS, {"require"}))
    assert sorted(targets) == ["./index.cjs", "./locale/*.js"]
    files = {f"{PACKAGE}/{name}" for name in TWINS}
    assert matching(targets, PACKAGE, files) == {f"{PACKAGE}/index.cjs", f"{PACKAGE}/locale/de.js"}
    assert foreign([f"{PACKAGE}/lib/module.js", f"{PACKAGE}/lib/global.js"], PACKAGE, {}, set) == set()
    assert loads_by_computed_names("const x = require(name)") and loads_by_computed_names("import(`./${a}`)")
    assert not loads_by_computed_names("__webpack_require__(3); require('a'); path.join(__dirname, 'views')")
    assert is_told(f"{PACKAGE}/client-dist/io.js", PACKAGE, located("join(__dirname, '../client-dist/')"))
    assert list(located_packages("require.resolve('a/b'); require('c/package.json'); x.resolve('d')")) == [
        "a/b",
        "c/package.json",
    ]


@pytest.mark.skipif(shutil.which("node") is None, reason="no node on this machine")
def test_node_itself_finds_all_that_it_asks_for(tmp_path: Path) -> None:
    """The kept files of the package, laid out for Node: what the application asks for is there."""
    main = b"console.log(require('lux').x)"
    builds = {**TWINS, "index.cjs": b"exports.x = require('./shared.js')", "shared.js": b"module.exports = 7"}
    tree = image(main, builds, {"exports": EXPORTS})
    found = needs(tree, entrypoint=["node", "main.js"], workdir="/app", env={"PATH": "/usr/bin"})
    for path in kept_files(found):
        if path.startswith("/app/"):
            place = tmp_path / path[1:]
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(found.fs.read(path, 1 << 20))
    result = subprocess.run(["node", "main.js"], cwd=tmp_path / "app", capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "7\n"), result.stderr


def test_the_builder_of_addons_comes_without_its_generators() -> None:
    tree = image(b"require('node-gyp')", {}, {})
    folder = "/app/node_modules/node-gyp"
    tree |= {
        f"{folder}/package.json": b'{"name": "node-gyp", "version": "1"}',
        f"{folder}/index.js": b"",
        f"{folder}/gyp/gyp_main.py": b"",
    }
    found = needs(tree, entrypoint=["node", "main.js"], workdir="/app", env={"PATH": "/usr/bin"})
    assert f"{folder}/index.js" in found.kept and f"{folder}/gyp/gyp_main.py" not in found.kept
