"""The builds of a package that are for others than Node: browsers, bundlers, other module loaders.

Many packages ship the same code several times. Which build Node loads is said by ``exports``, else by ``main`` and by
whoever asks for a file by name; which are for others is said by further fields of package.json, by the names that
bundlers give to what they write, and by ``exports``, beside which nothing can be asked for. Here is which files
those are; a file that anything leads to is none of them, and of a package whose modules load or hand out files by
computed names nothing is told.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Set
from typing import Any

from layerlens.model import ImagePath
from layerlens.patterns import regex

CODE = (".js", ".mjs", ".cjs")

FOREIGN_FIELDS = (
    # Fields of package.json that name an entry for others; whoever defined each.
    "browser",  # github.com/defunctzombie/package-browser-field-spec
    "module",  # webpack, resolve.mainFields; Rollup, pkg.module
    "jsnext:main",  # Rollup, before "module"
    "esnext",  # Babel and rollup-plugin-node-resolve
    "es2015",  # Angular Package Format
    "fesm2015",
    "esm2015",
    "esm5",
    "react-native",  # Metro, resolver.resolverMainFields
    "unpkg",  # unpkg.com
    "jsdelivr",  # jsdelivr.com, "Publishing packages"
    "cdn",
    "umd:main",  # microbundle, README
    "source",  # microbundle, Parcel
)
FOREIGN_FOLDERS = frozenset(
    # Rollup, output.format: amd, es, esm, iife, system, umd; Angular Package Format: bundles, fesm*; the rest by what
    # they say.
    (
        *("amd", "es", "es6", "esm", "esm5", "esm2015", "fesm5", "fesm2015", "iife", "system", "umd"),
        *(
            "browser",
            "browsers",
            "browserify",
            "bundles",
            "cdn",
            "cjs-browser",
            "global",
            "standalone",
            "web",
        ),
    )
)
FOREIGN_NAME = regex(
    # What Rollup, Vite (build.lib), tsup and terser add before the ending; and names that say it alone.
    r"(?:[^/]*[._-](?:umd|amd|iife|min|browser|browserified|standalone|global|bundle|esm|es6|esnext|slim|cdn)"
    r"|browser|cdn|umd|amd|iife)\.[cm]?js"
)
OUTPUT_FOLDERS = frozenset(("dist", "build", "bundle", "min"))
"""Where ``x.js`` beside ``x.min.js`` is the same build, not yet made small; so is the package's own name anywhere."""

_COMPUTED = regex(r"(?<![\w$.])(?:require|import)\s{0,4}\(\s{0,200}(?:[^\s\"'`)/]|`[^`\n]{0,200}\$\{)")
"""A module that is asked for by a computed name."""
_EXPOSED = regex(
    r"__dirname(?!\s{0,20}[+,]\s{0,20}[\"'`]|\}/)|fileURLToPath\(\s{0,20}import\.meta|import\.meta\.dirname"
)
"""The package's own folder, told to others or joined to a computed name."""
_LOCATED = regex(r"(?:__dirname|import\.meta\.url|readFile\w{0,12}\(|require\.resolve\()[^\n]{0,120}")
"""A path inside the package, told from its own folder, with the words around it."""

MAX_FILES = 20_000
"""Modules of one package that are looked at."""


def foreign(
    files: Iterable[ImagePath],
    package: ImagePath,
    manifest: Mapping[str, Any],
    public: Callable[[], Set[ImagePath] | None],
) -> set[ImagePath]:
    """The code of a package that seems to be for others than Node, before anybody's asking is looked at.

    ``files`` are the package's, ``public`` gives what its entries for Node lead to, None where its ``exports`` let
    everything through or are not there.
    """
    code = [path for path in files if path.endswith(CODE)][:MAX_FILES]
    below = len(package) + 1
    found = {path for path in code if _says_foreign(path[below:])}
    fields = set(_named_by_fields(package, manifest))
    found.update(path for path in code if path in fields)
    names = set(code)
    named_so = str(manifest.get("name", "")).rpartition("/")[2]
    for path in sorted(found):
        head, small, ending = path.rpartition(".min.")
        folder, _, stem = head[below:].rpartition("/")
        twin = f"{head}.{ending}"
        if small and twin in names and (folder.rpartition("/")[2] in OUTPUT_FOLDERS or stem == named_so):
            found.add(twin)
    main = posixpath.normpath(f"{package}/{manifest.get('main') or 'index.js'}")
    standalone = f"{package}/dist/{named_so}.js"  # browserify's --standalone, by custom
    if standalone in names and not main.startswith(f"{package}/dist"):
        found.add(standalone)
    if isinstance(manifest.get("exports"), dict | str):
        led_to = public()
        if led_to is not None:
            found.update(path for path in code if path not in led_to)
            found -= led_to
    return found


def _says_foreign(inside: str) -> bool:
    *folders, name = inside.split("/")
    return bool(FOREIGN_NAME.fullmatch(name)) or any(folder in FOREIGN_FOLDERS for folder in folders)


def _named_by_fields(package: ImagePath, manifest: Mapping[str, Any]) -> Iterator[ImagePath]:
    """What fields for others name; of ``browser`` as a table, the files that stand in for Node's."""
    for field in FOREIGN_FIELDS:
        value = manifest.get(field)
        for one in value.values() if isinstance(value, dict) else (value,):
            if isinstance(one, str) and one:
                path = posixpath.normpath(f"{package}/{one}")
                yield path
                yield f"{path}.js"


def export_targets(exports: object, conditions: Collection[str]) -> Iterator[str]:
    """Every target of ``exports`` under any of the conditions: ``./dist/index.js``, ``./locale/*.js``."""
    stack, left = [exports], MAX_FILES
    while stack and left:
        left -= 1
        value = stack.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            stack += value
        elif isinstance(value, dict):
            stack += [
                inner for key, inner in value.items() if str(key).startswith(".") or str(key) in conditions
            ]


def matching(targets: Iterable[str], package: ImagePath, files: Collection[ImagePath]) -> set[ImagePath]:
    """The files of a package that targets of its ``exports`` name, patterns and folders included."""
    found: set[ImagePath] = set()
    for target in targets:
        path = posixpath.normpath(f"{package}/{target}")
        head, star, tail = path.partition("*")
        if star or target.endswith("/"):
            tail = tail.replace("*", "")
            head = head if star else f"{head}/"
            found.update(file for file in files if file.startswith(head) and file.endswith(tail))
        elif path in files:
            found.add(path)
    return found


def loads_by_computed_names(text: str) -> bool:
    """Whether a module asks for others by computed names, or tells where its package lies."""
    return bool(_COMPUTED.search(text) or _EXPOSED.search(text))


def located(text: str) -> str:
    """The pieces of a module's text that tell paths inside its package, joined."""
    return "\n".join(match[0] for match in _LOCATED.finditer(text))


def is_told(path: ImagePath, package: ImagePath, words: str) -> bool:
    """Whether a piece of text names a file, or the folder of the package that it is in."""
    inside = path[len(package) + 1 :]
    folders = inside.split("/")[:-1]
    name = inside.rpartition("/")[2]
    return name in words or any(
        re.search(rf"(?<![\w-]){re.escape(folder)}(?![\w-])", words) for folder in folders
    )


_RESOLVED = regex(r"(?:equire[\w$]{0,40}|import\.meta)\.resolve\(\s{0,40}([\"'`])([@\w][^\"'`\n]{0,200})\1")
_MANIFEST = regex(r"([\"'`])([@\w][^\"'`\n]{0,200}/package\.json)\1")


def located_packages(text: str) -> Iterator[str]:
    """Specifiers of which a module asks where they lie, to find other files beside them.

    That is done by ``require.resolve`` and by asking for the package.json of another package.
    """
    if ".resolve(" in text:
        yield from (match[2] for match in _RESOLVED.finditer(text))
    if "/package.json" in text:
        yield from (match[2] for match in _MANIFEST.finditer(text))
