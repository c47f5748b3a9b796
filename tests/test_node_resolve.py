"""Where a specifier leads, with Node itself as the judge over a tree that has every form of package."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import treekit
from imagekit import Member, Symlink

from layerlens.ecosystems._node_resolve import IMPORT, REQUIRE, Resolver, split_specifier

HAVE_NODE = shutil.which("node") is not None

CODE = "module.exports = 1\n"


def package(**fields: object) -> str:
    return json.dumps(fields)


TREE: dict[str, str] = {
    "app/package.json": package(
        name="app",
        exports={".": "./index.js", "./own": "./src/own.js"},
        imports={
            "#lib/*": "./src/lib/*.js",
            "#dep": {"node": "plain", "default": "./src/shim.js"},
            "#only-import": {"import": "./src/own.js"},
            "#missing": "./src/nothing.js",
            "#array": ["./src/lib/a.js", "./src/own.js"],
        },
    ),
    "app/index.js": CODE,
    "app/src/main.js": CODE,
    "app/src/own.js": CODE,
    "app/src/shim.js": CODE,
    "app/src/lib/a.js": CODE,
    "app/src/lib/index.js": CODE,
    "app/src/both.js": CODE,
    "app/src/both/index.js": CODE,
    "app/src/table.json": "{}",
    "app/src/no-index/x.js": CODE,
    "app/src/directory/package.json": package(main="./lib"),
    "app/src/directory/lib/index.js": CODE,
    "app/src/bad-main/package.json": package(main="gone.js"),
    "app/src/bad-main/index.js": CODE,
    "app/src/exact": CODE,
    "app/src/with.dots.js": CODE,
    "app/node_modules/plain/package.json": package(name="plain", main="lib/main"),
    "app/node_modules/plain/lib/main.js": CODE,
    "app/node_modules/plain/other.js": CODE,
    "app/node_modules/no-main/package.json": package(name="no-main"),
    "app/node_modules/no-main/index.js": CODE,
    "app/node_modules/no-manifest/index.js": CODE,
    "app/node_modules/single.js": CODE,
    "app/node_modules/@scope/name/package.json": package(name="@scope/name", exports="./main.js"),
    "app/node_modules/@scope/name/main.js": CODE,
    "app/node_modules/@scope/name/hidden.js": CODE,
    "app/node_modules/dual/package.json": package(
        name="dual",
        exports={
            ".": {"import": "./esm/index.mjs", "require": "./cjs/index.cjs"},
            "./features/*": {"import": "./esm/features/*.mjs", "default": "./cjs/features/*.cjs"},
            "./features/private/*": None,
            "./deep/*.js": "./deep/*.js",
            "./deep/*": "./deep/*/index.js",
            "./nested": {"browser": "./b.js", "node": {"production": "./p.js", "default": "./n.js"}},
            "./nothing": {"browser": "./b.js"},
            "./array": [{"browser": "./b.js"}, "./n.js"],
            "./package.json": "./package.json",
        },
    ),
    "app/node_modules/dual/esm/index.mjs": "",
    "app/node_modules/dual/cjs/index.cjs": CODE,
    "app/node_modules/dual/esm/features/a.mjs": "",
    "app/node_modules/dual/cjs/features/a.cjs": CODE,
    "app/node_modules/dual/cjs/features/private/x.cjs": CODE,
    "app/node_modules/dual/deep/one.js": CODE,
    "app/node_modules/dual/deep/one/index.js": CODE,
    "app/node_modules/dual/b.js": CODE,
    "app/node_modules/dual/n.js": CODE,
    "app/node_modules/dual/p.js": CODE,
    "app/node_modules/outer/package.json": package(name="outer", main="index.js"),
    "app/node_modules/outer/index.js": CODE,
    "app/node_modules/outer/node_modules/plain/package.json": package(name="plain", main="inner.js"),
    "app/node_modules/outer/node_modules/plain/inner.js": CODE,
    "app/node_modules/punycode/package.json": package(name="punycode", main="p.js"),
    "app/node_modules/punycode/p.js": CODE,
    "app/node_modules/.generated/client/package.json": package(name="generated", main="g.js"),
    "app/node_modules/.generated/client/g.js": CODE,
    "app/packages/web/package.json": package(name="web", main="web.js"),
    "app/packages/web/web.js": CODE,
    "app/packages/web/node_modules/nearer/index.js": CODE,
    "elsewhere/fallback/index.js": CODE,
}
LINKS = {"app/node_modules/web": "../packages/web"}

SPECIFIERS = """
    ./own ./own.js ./lib ./lib/a ./both ./both/ ./table ./table.json ./no-index ./directory
    ./bad-main ./exact ./with.dots ./gone . .. ../index.js plain plain/other plain/other.js
    plain/lib plain/gone no-main no-manifest single gone @scope/name @scope/name/hidden.js
    @scope/name/main.js @scope/gone dual dual/features/a dual/features/private/x dual/deep/one.js
    dual/deep/one dual/nested dual/nothing dual/array dual/package.json dual/esm/index.mjs outer web
    web/web.js app app/own app/src/own.js #lib/a #lib/gone #dep #only-import #missing #array
    #unknown punycode/ punycode/p.js nearer .generated/client fallback
""".split()  # noqa: SIM905 - one a word reads best
IMPORTERS = ("app/src/main.js", "app/node_modules/outer/index.js", "app/packages/web/web.js")

ORACLE = """
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import { pathToFileURL, fileURLToPath } from 'node:url';
const found = [];
for (const [importer, specifier] of JSON.parse(readFileSync(0))) {
  let required = null, imported = null;
  try { required = createRequire(importer).resolve(specifier) } catch { }
  try { imported = fileURLToPath(import.meta.resolve(specifier, pathToFileURL(importer))) } catch { }
  found.push([required, imported]);
}
console.log(JSON.stringify(found));
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("resolve").resolve()
    for path, text in TREE.items():
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_text(text)
    for path, target in LINKS.items():
        (top / path).symlink_to(target)
    return top


@pytest.mark.skipif(not HAVE_NODE, reason="no node on this machine")
def test_every_form_as_node_resolves_it(folder: Path) -> None:
    (folder / "oracle.mjs").write_text(ORACLE)
    asked = [(f"{folder}/{importer}", specifier) for importer in IMPORTERS for specifier in SPECIFIERS]
    done = subprocess.run(
        ["node", "--experimental-import-meta-resolve", "oracle.mjs"],
        cwd=folder,
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "NODE_PATH": f"{folder}/elsewhere"},
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    filesystem = treekit.fs_of_folders({str(folder): folder})
    resolver = Resolver(filesystem, [f"{folder}/elsewhere"])
    wrong = []
    counted = 0
    for (importer, specifier), (required, imported) in zip(asked, json.loads(done.stdout), strict=True):
        for conditions, expected in ((REQUIRE, required), (IMPORT, imported)):
            if conditions is IMPORT and (expected is None or not Path(expected).is_file()):
                if specifier[0] in ".#" or expected is not None or required is not None:
                    continue  # what bundlers and compilers wrote may rely on more than Node allows
                if (
                    specifier == "fallback"
                ):  # import does not look in NODE_PATH; being found there does no harm
                    continue
            found = resolver.resolve(specifier, importer, conditions)
            got = None if found is None else filesystem.follow(found.path)
            counted += expected is not None
            if got != (None if expected is None else str(Path(expected).resolve())):
                wrong.append((importer, specifier, conditions is IMPORT, expected, got))
    assert not wrong, "\n".join(map(str, wrong))
    assert counted > 120


def test_builtins_are_no_packages() -> None:
    assert all(map(Resolver.is_builtin, ("fs", "node:test", "fs/promises", "_http_agent")))
    assert not any(map(Resolver.is_builtin, ("express", "punycode/", "fs/other", "./fs")))


@pytest.mark.skipif(not HAVE_NODE, reason="no node on this machine")
def test_the_builtins_are_those_of_node() -> None:
    listed = subprocess.run(
        ["node", "-p", "JSON.stringify(require('module').builtinModules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert [name for name in json.loads(listed.stdout) if not Resolver.is_builtin(name)] == []


def test_specifiers_are_split_as_packages_and_subpaths() -> None:
    assert split_specifier("a") == ("a", ".")
    assert split_specifier("@s/a/b/c.js") == ("@s/a", "./b/c.js")
    for broken in ("", ".hidden", "@s", "@/x", "a%2f", "a\\b", "/x"):
        assert split_specifier(broken) == ("", "")


def test_what_decided_it_is_told() -> None:
    resolver = Resolver(treekit.fs({f"/{path}": text.encode() for path, text in TREE.items()}))
    found = resolver.resolve("dual/features/a", "/app/src/main.js", REQUIRE)
    assert found is not None
    assert found.path == "/app/node_modules/dual/cjs/features/a.cjs"
    assert found.manifests == ("/app/node_modules/dual/package.json",)
    assert found.evidence == 'exports "./features/a"'
    production = resolver.resolve("dual/nested", "/app/src/main.js", REQUIRE | {"production"})
    assert production is not None and production.path == "/app/node_modules/dual/p.js"


def test_typescript_may_name_what_it_compiles_to() -> None:
    resolver = Resolver(treekit.fs({"/a/x.ts": b"", "/a/y.tsx": b"", "/a/main.ts": b"", "/a/main.js": b""}))
    for specifier, expected in (("./x", "/a/x.ts"), ("./x.js", "/a/x.ts"), ("./y.js", "/a/y.tsx")):
        found = resolver.resolve(specifier, "/a/main.ts")
        assert found is not None and found.path == expected
        assert resolver.resolve(specifier, "/a/main.js") is None


def test_hostile_manifests_lead_nowhere() -> None:
    nested: object = "./x.js"
    for _ in range(200):
        nested = {"default": nested}
    deep = json.dumps({"name": "deep", "exports": nested}).encode()
    tree: dict[str, Member] = {
        "/app/node_modules/deep/package.json": deep,
        "/app/node_modules/deep/x.js": b"",
        "/app/node_modules/up/package.json": b'{"exports": {".": "./../../secret.js", "./a/*": "./*"}}',
        "/app/secret.js": b"",
        "/app/node_modules/broken/package.json": b'{"exports": ',
        "/app/node_modules/wrong/package.json": b'{"exports": 7, "main": {}}',
        "/app/node_modules/loop": Symlink(target="loop"),
        "/app/node_modules/list/package.json": b"[]",
        "/app/package.json": b'{"name": "app", "imports": {"#a": "#b", "#b": "#a", "#*": "#*"}}',
    }
    resolver = Resolver(treekit.fs(tree))
    names = (
        "deep",
        "up",
        "up/a/../../../secret.js",
        "broken",
        "wrong",
        "loop",
        "list",
        "#a",
        "#x",
        "a\0b",
        "",
    )
    for name in names:
        assert resolver.resolve(name, "/app/main.js") is None
