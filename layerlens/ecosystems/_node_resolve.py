"""Where a ``require`` or an ``import`` leads, by Node's own algorithms, inside the image.

CommonJS: Node documentation, modules, "All together" (``LOAD_AS_FILE``, ``LOAD_NODE_MODULES`` …). ES modules: Node
documentation, esm, "Resolution algorithm specification" (``PACKAGE_EXPORTS_RESOLVE``, ``PACKAGE_TARGET_RESOLVE`` …).
The names of those steps are in the docstrings here.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from json import loads
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from layerlens.errors import LayerLensError
from layerlens.model import ImagePath

if TYPE_CHECKING:
    from layerlens.filesystem import Filesystem

_BUILTINS = """
    assert assert/strict async_hooks buffer child_process cluster console constants crypto dgram
    diagnostics_channel dns dns/promises domain events fs fs/promises http http2 https inspector
    inspector/promises module net os path path/posix path/win32 perf_hooks process punycode querystring
    readline readline/promises repl stream stream/consumers stream/promises stream/web string_decoder sys
    timers timers/promises tls trace_events tty url util util/types v8 vm wasi worker_threads zlib
    _http_agent _http_client _http_common _http_incoming _http_outgoing _http_server _stream_duplex
    _stream_passthrough _stream_readable _stream_transform _stream_wrap _stream_writable _tls_common _tls_wrap
"""
BUILTINS = frozenset(_BUILTINS.split())
"""``module.builtinModules`` of Node 18 to 24."""

EXTENSIONS = (".js", ".json", ".node")
"""What ``require`` tries after the exact name (modules, ``LOAD_AS_FILE``)."""
TYPED_EXTENSIONS = (".ts", ".tsx", ".jsx", ".mts", ".cts")
"""What ts-node, tsx and bundlers try besides, for a specifier in a file of one of these kinds."""
TYPED_FOR = {".js": (".ts", ".tsx"), ".jsx": (".tsx",), ".mjs": (".mts",), ".cjs": (".cts",)}
"""The source of a compiled name (TypeScript handbook, modules, "Module resolution": file extension substitution)."""

REQUIRE = frozenset(("node", "require", "module-sync", "node-addons", "default"))
IMPORT = frozenset(("node", "import", "module-sync", "node-addons", "default"))
"""Conditions that Node sets (packages, "Conditional exports"); ``module-sync`` only from 20.19 and 22.10 on."""

MANIFEST_LIMIT = 4 << 20
MAX_TARGETS = 1000
"""Keys and alternatives that are looked at in one ``exports``; more is a lie."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a specifier names: a file, as Node would open it, before links are followed."""

    path: ImagePath
    manifests: tuple[ImagePath, ...] = ()
    """The package.json files that decided it."""
    evidence: str = ""
    """Which field of a package.json decided it: ``exports "./locale"``; empty where none did."""


class Resolver:
    """Node's module resolution in one image. ``node_path`` are the directories of NODE_PATH."""

    def __init__(self, fs: Filesystem, node_path: Sequence[ImagePath] = ()) -> None:
        self._fs = fs
        self.node_path = list(node_path)
        self._manifests: dict[ImagePath, dict[str, Any] | None] = {}
        self._scopes: dict[ImagePath, ImagePath | None] = {}
        self._packages: dict[tuple[ImagePath, str], ImagePath | None] = {}
        self._resolved: dict[tuple[str, ImagePath, str, Set[str]], Resolution | None] = {}

    @classmethod
    def of_env(cls, fs: Filesystem, env: Mapping[str, str]) -> Resolver:
        """The resolver of a process with the environment ``env``, of which NODE_PATH counts."""
        return cls(fs, [folder for folder in env.get("NODE_PATH", "").split(":") if folder.startswith("/")])

    # -- package.json --------------------------------------------------------------------------------------

    def manifest(self, directory: ImagePath) -> dict[str, Any] | None:
        """The package.json of a directory as an object; None where there is none, empty where it is broken."""
        if directory not in self._manifests:
            self._manifests[directory] = self._read_manifest(f"{directory}/package.json")
        return self._manifests[directory]

    def _read_manifest(self, path: ImagePath) -> dict[str, Any] | None:
        if not self._fs.is_file(path):
            return None
        try:
            value = loads(self._fs.read(path, MANIFEST_LIMIT).removeprefix(b"\xef\xbb\xbf"))
        except (LayerLensError, OSError, ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}

    def scope(self, path: ImagePath) -> ImagePath | None:
        """The directory of the package that a file is part of (``LOOKUP_PACKAGE_SCOPE``), if any."""
        directory = path.rpartition("/")[0]
        way: list[ImagePath] = []
        found: ImagePath | None = None
        while True:
            if directory in self._scopes:
                found = self._scopes[directory]
                break
            if directory.endswith("/node_modules"):
                break
            way.append(directory)
            if self.manifest(directory) is not None:
                found = directory
                break
            if not directory:
                break
            directory = directory.rpartition("/")[0]
        for one in way:
            self._scopes[one] = found
        return found

    # -- specifiers ----------------------------------------------------------------------------------------

    @staticmethod
    def is_builtin(specifier: str) -> bool:
        """Whether a specifier names a module that is compiled into Node."""
        return specifier.startswith("node:") or specifier in BUILTINS

    def resolve(
        self, specifier: str, importer: ImagePath, conditions: Set[str] = REQUIRE
    ) -> Resolution | None:
        """What ``specifier`` leads to from the file ``importer`` (its canonical path); None where nothing is found.

        The conditions tell ``require`` from ``import``. ES modules know neither extensions nor directories, but
        what bundlers and compilers wrote relies on both, so that they are tried last there.
        """
        directory, _, name = importer.rpartition("/")
        kind = posixpath.splitext(name)[1]
        kind = kind if kind in TYPED_EXTENSIONS else ""
        key = (specifier, directory, kind, conditions)
        if key not in self._resolved:
            self._resolved[key] = self._resolve(specifier, importer, conditions, kind)
        return self._resolved[key]

    def _resolve(
        self, specifier: str, importer: ImagePath, conditions: Set[str], kind: str
    ) -> Resolution | None:
        if "\0" in specifier or not specifier:
            return None
        directory = importer.rpartition("/")[0]
        if specifier.startswith("file://"):
            specifier = unquote(specifier[7:].partition("?")[0])
        if specifier in (".", "..") or specifier.startswith(("./", "../", "/")):
            base = specifier if specifier[0] == "/" else f"{directory}/{specifier}"
            found = self.load_path(base, bool(kind))
            if found is None and "?" in specifier and "import" in conditions:
                found = self.load_path(base.partition("?")[0], bool(kind))
            return found
        if specifier[0] == "#":
            return self._imports(specifier, importer, conditions)
        name, subpath = split_specifier(specifier)
        if not name:
            return self._by_path(specifier, directory, bool(kind)) if "require" in conditions else None
        return self._self_reference(name, subpath, importer, conditions) or self._in_packages(
            name, subpath, directory, conditions, bool(kind)
        )

    def load_path(self, path: ImagePath, typed: bool = False) -> Resolution | None:
        """``LOAD_AS_FILE`` and then ``LOAD_AS_DIRECTORY`` of an absolute path.

        A package.json that names no ``main`` is followed as one that does.
        """
        only_directory = path.endswith(("/", "/.", "/.."))
        path = _normal(path)
        if not only_directory:
            found = self._as_file(path, typed)
            if found is not None:
                return Resolution(found)
        return self._as_directory(path, typed)

    def _as_file(self, path: ImagePath, typed: bool) -> ImagePath | None:
        if self._fs.is_file(path):
            return path
        for extension in EXTENSIONS + (TYPED_EXTENSIONS if typed else ()):
            if self._fs.is_file(path + extension):
                return path + extension
        if typed:
            stem, extension = posixpath.splitext(path)
            for source in TYPED_FOR.get(extension, ()):
                if self._fs.is_file(stem + source):
                    return stem + source
        return None

    def _as_directory(self, path: ImagePath, typed: bool) -> Resolution | None:
        if not self._fs.is_dir(path):
            return None
        manifest = self.manifest(path)
        read = () if manifest is None else (f"{path}/package.json",)
        main = (manifest or {}).get("main")
        if isinstance(main, str) and main:
            target = _normal(f"{path}/{main}")
            found = self._as_file(target, typed) or self._as_index(target, typed)
            if found is not None:
                return Resolution(found, read, f'main "{main}"')
        found = self._as_index(path, typed)
        return None if found is None else Resolution(found, read)

    def _as_index(self, path: ImagePath, typed: bool) -> ImagePath | None:
        for extension in EXTENSIONS + (TYPED_EXTENSIONS if typed else ()):
            if self._fs.is_file(f"{path}/index{extension}"):
                return f"{path}/index{extension}"
        return None

    # -- packages ------------------------------------------------------------------------------------------

    def module_directories(self, directory: ImagePath) -> Iterator[ImagePath]:
        """``NODE_MODULES_PATHS``: every ``node_modules`` that is searched from a directory, innermost first."""
        while True:
            if not directory.endswith("/node_modules"):
                yield f"{directory}/node_modules"
            if not directory:
                break
            directory = directory.rpartition("/")[0]
        yield from self.node_path

    def package(self, name: str, directory: ImagePath) -> ImagePath | None:
        """The directory of the package ``name`` for files of ``directory``, links not followed."""
        key = (directory, name)
        if key not in self._packages:
            self._packages[key] = next(
                (
                    f"{modules}/{name}"
                    for modules in self.module_directories(directory)
                    if self._fs.is_dir(f"{modules}/{name}")
                ),
                None,
            )
        return self._packages[key]

    def _by_path(self, specifier: str, directory: ImagePath, typed: bool) -> Resolution | None:
        """What is no package's name is joined to each ``node_modules`` all the same: ``.prisma/client``."""
        for modules in self.module_directories(directory):
            found = self.load_path(f"{modules}/{specifier}", typed) if self._fs.is_dir(modules) else None
            if found is not None:
                return found
        return None

    def _in_packages(
        self, name: str, subpath: str, directory: ImagePath, conditions: Set[str], typed: bool
    ) -> Resolution | None:
        """``LOAD_NODE_MODULES``."""
        for modules in self.module_directories(directory):
            package = f"{modules}/{name}"
            if self._fs.is_dir(package):
                manifest = self.manifest(package)
                if manifest and manifest.get("exports") is not None:
                    found = self._exports(package, subpath, manifest["exports"], conditions)
                else:
                    found = self.load_path(package + subpath[1:], typed)
                    if found is not None and manifest is not None:
                        read = (f"{package}/package.json", *found.manifests)
                        found = Resolution(found.path, tuple(dict.fromkeys(read)), found.evidence)
                if found is not None:
                    return found
            elif subpath == ".":
                file = self._as_file(package, typed)
                if file is not None:
                    return Resolution(file)
        return None

    def _self_reference(
        self, name: str, subpath: str, importer: ImagePath, conditions: Set[str]
    ) -> Resolution | None:
        """``LOAD_PACKAGE_SELF``."""
        scope = self.scope(importer)
        manifest = None if scope is None else self.manifest(scope)
        if scope is None or not manifest or manifest.get("name") != name or manifest.get("exports") is None:
            return None
        return self._exports(scope, subpath, manifest["exports"], conditions)

    def _imports(self, specifier: str, importer: ImagePath, conditions: Set[str]) -> Resolution | None:
        """``PACKAGE_IMPORTS_RESOLVE``."""
        scope = self.scope(importer)
        table = None if scope is None else (self.manifest(scope) or {}).get("imports")
        if scope is None or not isinstance(table, dict) or specifier == "#" or specifier.startswith("#/"):
            return None
        for target in self._match(specifier, table, scope, conditions, internal=True):
            manifest = (f"{scope}/package.json",)
            evidence = f'imports "{specifier}"'
            if target.startswith("/"):
                found = self._as_file(target, typed=False)
                return None if found is None else Resolution(found, manifest, evidence)
            if target.startswith(
                "#"
            ):  # PACKAGE_RESOLVE would take it for a package's name, which it cannot be
                continue
            outside = self._resolve(target, f"{scope}/package.json", conditions, "")
            if outside is not None:
                return Resolution(outside.path, manifest + outside.manifests, evidence)
        return None

    def _exports(
        self, package: ImagePath, subpath: str, exports: object, conditions: Set[str]
    ) -> Resolution | None:
        """``PACKAGE_EXPORTS_RESOLVE``."""
        table: Mapping[str, object]
        if isinstance(exports, dict) and any(str(key).startswith(".") for key in exports):
            table = exports
        else:
            table = {".": exports}
        for target in self._match(subpath, table, package, conditions, internal=False):
            if self._fs.is_file(target):
                return Resolution(target, (f"{package}/package.json",), f'exports "{subpath}"')
        return None

    def _match(
        self,
        key: str,
        table: Mapping[str, object],
        package: ImagePath,
        conditions: Set[str],
        *,
        internal: bool,
    ) -> Iterator[str]:
        """``PACKAGE_IMPORTS_EXPORTS_RESOLVE``: the exact key, else the most specific pattern."""
        budget = [MAX_TARGETS]
        if key in table and "*" not in key:
            yield from self._target(table[key], None, package, conditions, internal, budget)
            return
        best: tuple[int, int, str] | None = None
        for pattern in list(table)[:MAX_TARGETS]:
            head, star, tail = pattern.partition("*")
            if not star and pattern.endswith("/"):  # folder mappings, removed in Node 17, still shipped
                head, tail = pattern, ""
            elif not star or "*" in tail:
                continue
            if (
                key.startswith(head)
                and key != head
                and key.endswith(tail)
                and len(key) >= len(head) + len(tail)
            ):
                rank = (len(head), len(pattern), pattern)
                best = rank if best is None or rank > best else best
        if best is not None:
            pattern = best[2]
            head, star, tail = pattern.partition("*")
            match = key[len(head) : len(key) - len(tail)] if star else key[len(pattern) :]
            yield from self._target(table[pattern], match, package, conditions, internal, budget)

    def _target(
        self,
        target: object,
        match: str | None,
        package: ImagePath,
        conditions: Set[str],
        internal: bool,
        budget: list[int],
        depth: int = 0,
    ) -> Iterator[str]:
        """``PACKAGE_TARGET_RESOLVE``; of an array, every alternative (Node takes the first that is valid)."""
        budget[0] -= 1
        if budget[0] < 0 or depth > 32:
            return
        if isinstance(target, str):
            named = target if match is None else target.replace("*", match)
            if match is not None and "*" not in target and target.endswith("/"):
                named = target + match
            if named.startswith("./"):
                parts = named[2:].replace("\\", "/").split("/")
                if ".." not in parts and "node_modules" not in parts:
                    yield _normal(f"{package}/{named}")
            elif internal and not named.startswith(("../", "/")):
                yield named
        elif isinstance(target, list):
            for one in target:
                yield from self._target(one, match, package, conditions, internal, budget, depth + 1)
        elif isinstance(target, dict):
            for condition, value in target.items():
                if condition in conditions:
                    found = list(self._target(value, match, package, conditions, internal, budget, depth + 1))
                    if found or value is None:
                        yield from found
                        return


def split_specifier(specifier: str) -> tuple[str, str]:
    """``@scope/name/sub/path`` as (``@scope/name``, ``./sub/path``); an empty name where it is not one.

    ``PACKAGE_RESOLVE``, steps 4 to 8; the subpath of the package itself is ``.``.
    """
    parts = specifier.split("/")
    count = 2 if specifier.startswith("@") else 1
    name = "/".join(parts[:count])
    if (
        len(parts) < count
        or not all(parts[:count])
        or name.startswith((".", "@/"))
        or "\\" in name
        or "%" in name
    ):
        return "", ""
    rest = "/".join(parts[count:])
    return name, f"./{rest}" if len(parts) > count else "."


def _normal(path: ImagePath) -> ImagePath:
    path = posixpath.normpath(path)
    return "/" + path.lstrip("/")
