"""What Node programs need: from a command line to scripts, modules, packages and the application's own files.

Three kinds of files are told apart. *Packages* (below ``node_modules``, or installed by the distribution) are kept
whole once a module of theirs is reached, with the dependencies that their package.json declares; their reached
modules are read quickly. The *application's own* reached files are read by their syntax tree. Own files that are kept
without being reached (*assumed*) may only ask for what production installs.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Set
from typing import Any

from layerlens.ecosystems import UNNEEDED_CATEGORIES, Explorer, ImageView
from layerlens.ecosystems._node_builds import (
    export_targets,
    foreign,
    is_told,
    loads_by_computed_names,
    located,
    located_packages,
    matching,
)
from layerlens.ecosystems._node_commands import (
    COMPILING,
    LISTS,
    MANAGERS,
    NODES,
    WRAPPERS,
    NodeLine,
    manager_line,
    node_line,
    script_lines,
    wrapped,
)
from layerlens.ecosystems._node_packages import Platform
from layerlens.ecosystems._node_resolve import IMPORT, REQUIRE, Resolver, split_specifier
from layerlens.ecosystems._node_source import SOURCE_LIMIT, Asked, Mention, counted_on, mentions, scan
from layerlens.errors import LayerLensError
from layerlens.model import Certainty, Command, Edge, EntryType, ImagePath
from layerlens.patterns import regex

MODULES = "/node_modules/"
SCRIPTS = (".js", ".cjs", ".mjs", ".jsx", ".ts", ".tsx", ".mts", ".cts")
TYPED = (".ts", ".tsx", ".mts", ".cts")
LOADED = (*SCRIPTS, ".json", ".node")
"""Endings of what ``require`` and ``import`` load."""

VERIFY_LIMIT = 2 << 20
"""Bytes of a package's file up to which its syntax tree decides what a quick reading left in doubt."""
REPORT_LIMIT = 256 << 10
"""Bytes of a package's file up to which it is told what finds nothing; bundles ask for much that they do without."""
MAX_LITERAL_FILES = 5000
"""Files of a folder that is named in the source; a larger one is kept as far as other rules go."""

_SHARED_FOLDERS_WORDS = """
    /bin /boot /dev /etc /home /lib /lib64 /media /mnt /opt /proc /root /run /sbin /srv /sys /tmp
    /usr /usr/bin /usr/lib /usr/local /usr/local/bin /usr/local/lib /usr/local/share /usr/sbin
    /usr/share /usr/src /var /var/cache /var/lib /var/log /var/run /var/tmp /var/www
"""
SHARED_FOLDERS = frozenset(_SHARED_FOLDERS_WORDS.split())
"""Folders that hold everybody's files (FHS 3.0): to name one asks for none of them."""

BUILD_OUTPUTS = frozenset(("dist", "build", "lib", "out", "output", "compiled", ".next", ".output", ".nuxt"))
"""Folders beside ``src`` that hold what was compiled from it, as the compilers' and frameworks' manuals name them."""
_CODE = (*SCRIPTS, ".coffee", ".vue", ".svelte")

_NOT_SHIPPED_NAMES_WORDS = """
    package-lock.json npm-shrinkwrap.json yarn.lock pnpm-lock.yaml pnpm-workspace.yaml bun.lockb
    bun.lock lerna.json nx.json turbo.json .dockerignore .gitignore .gitattributes .gitmodules
    .npmignore .npmrc .yarnrc .yarnrc.yml .nvmrc .node-version .editorconfig .prettierignore
    .eslintignore .browserslistrc nodemon.json nest-cli.json angular.json .travis.yml .gitlab-ci.yml
    appveyor.yml Makefile Jenkinsfile Vagrantfile Procfile .swcrc .mocharc.js .nycrc tslint.json
    LICENSE LICENSE.md LICENSE.txt
"""
NOT_SHIPPED_NAMES = frozenset(_NOT_SHIPPED_NAMES_WORDS.split())
"""What installs, builds, tests and publishes an application reads these, each by its own manual."""
_NOT_SHIPPED_PATTERNS = r"""
    Dockerfile.* .*\.Dockerfile docker-compose.* compose\.ya?ml tsconfig.*\.json jsconfig\.json \.?eslint.*
    \.?prettier.* \.?stylelint.* \.?commitlint.* \.?lintstaged.* \.?mocharc.* \.?nycrc.* jest\.(?:config|setup).*
    vitest\..* cypress\..* playwright\..* karma\..* [Gg]ulpfile.* Gruntfile.* \.babelrc.* [^.].*\.tsbuildinfo
    (?:webpack|rollup|vite|babel|postcss|tailwind|tsup|esbuild|gulp|grunt)\.config.*
"""
NOT_SHIPPED = regex("|".join(_NOT_SHIPPED_PATTERNS.split()))
_NOT_SHIPPED_FOLDERS_WORDS = """
    node_modules .git .github .gitlab .circleci .husky .vscode .idea .devcontainer .storybook
    .changeset coverage .nyc_output
"""
NOT_SHIPPED_FOLDERS = frozenset(_NOT_SHIPPED_FOLDERS_WORDS.split())
APP_LEFT_OUT = (UNNEEDED_CATEGORIES | {"sources"}) - {"locale", "debug"}
"""Of an application's own files; its catalogues of messages are read by nothing else."""
NAMED_LEFT_OUT = frozenset(("vcs", "package-cache", "dev-dependencies", "compilers", "secrets"))
"""Of a folder that the source names: whoever asks for ``docs`` or ``test`` by name has use for it."""

BUNDLERS = frozenset(
    (
        *(
            "webpack",
            "rollup",
            "vite",
            "esbuild",
            "parcel",
            "@parcel/core",
            "browserify",
            "metro",
            "next",
            "nuxt",
        ),
        *(
            "@rspack/core",
            "@angular/build",
            "@remix-run/dev",
            "astro",
            "gatsby",
            "snowpack",
            "@web/dev-server",
        ),
    )
)
"""Packages that make bundles for browsers, of whatever build is meant for those, by each one's README."""
_TOOL_CONFIG = regex(
    r"(?:\.?(?P<one>[\w-]{2,40})\.config|\.(?P<two>[\w-]{2,40}?)rc)(?:\.(?:js|cjs|mjs|ts|mts|cts|json|ya?ml))?"
)
TOOL_PACKAGES = {
    # The word in a configuration file's name → the package that reads it, where it is not the package's own name.
    "tailwind": "tailwindcss",
    "babel": "@babel/core",
    "ecosystem": "pm2",
    "swc": "@swc/core",
    "browserslist": "browserslist",
    "svelte": "@sveltejs/kit",
}
_NAMED_PACKAGE = regex(r"[\"'`]?(@[\w.-]{1,60}/[\w.-]{1,60}|[\w.-]{3,60})[\"'`]?\s{0,4}[:,(\]}]")
DOTENV_FILES = (".env", ".env.local", ".env.{NODE_ENV}", ".env.{NODE_ENV}.local")
"""What packages of the dotenv family read in the working directory (READMEs of dotenv and dotenv-flow)."""
ADDON_PLACES = (
    # bindings 1.5, README: "Search Order".
    "build/{}",
    "build/Debug/{}",
    "build/Release/{}",
    "out/Debug/{}",
    "Debug/{}",
    "out/Release/{}",
    "Release/{}",
    "build/default/{}",
)


class NodeExplorer(Explorer):
    """What Node's command lines and modules need, in one image."""

    def __init__(self, image: ImageView) -> None:
        super().__init__(image)
        self._fs = image.fs
        self._resolver = Resolver.of_env(image.fs, image.env)
        self._require: Set[str] = REQUIRE
        self._import: Set[str] = IMPORT
        self._platform_found: Platform | None = None
        self._source_maps = False
        self._processes: list[Command] = []
        self._reached: set[ImagePath] = set()
        self._asked: set[ImagePath] = set()
        self._late: list[ImagePath] = []
        self._packages_seen: set[ImagePath] = set()
        self._names_seen: set[str] = set()
        self._own: dict[ImagePath, bool] = {}
        self._roots: dict[ImagePath, tuple[ImagePath, str]] = {}
        """Application directory → the file that makes it one, and why."""
        self._entries: dict[ImagePath, set[ImagePath]] = {}
        self._tools: dict[ImagePath, ImagePath] = {}
        """Application directory → the program of an installed package that runs there."""
        self._compiled: set[ImagePath] = set()
        """Application directories whose sources the running program compiles itself."""
        self._bare: dict[ImagePath, ImagePath] = {}
        """Directory of a manifest with dependencies → an own file below it that asks for some package."""
        self._finished: set[tuple[str, ImagePath]] = set()
        self._configs: set[ImagePath] = set()
        self._absent: dict[ImagePath, set[str]] = {}
        self._builds: dict[ImagePath, list[ImagePath]] = {}
        """Directory of a kept package → its builds for others, which wait for who asks for them."""
        self._file_words: dict[ImagePath, str | None] = {}
        """Module → what it says of files of its package, None where it may mean any."""
        self._twins: dict[ImagePath, list[ImagePath]] = {}
        """Directory of a kept package → what its entries for ``import`` alone lead to, not those for ``require``."""
        self._import_entries: dict[ImagePath, list[Edge]] = {}
        """… → the edges to those entries, of packages that declare it."""
        self._required_packages: set[ImagePath] = set()
        self._imported_packages: set[ImagePath] = set()
        self._imports_anything = False
        """Whether the application imports modules by names that it computes altogether."""
        self._whole: set[ImagePath] = set()
        """Packages of which somebody asks for files by computed names."""
        self._served = False
        """Whether the application names a node_modules as a folder."""

    @property
    def _platform(self) -> Platform:
        if self._platform_found is None:
            self._platform_found = Platform(self.image)
        return self._platform_found

    # -- command lines -------------------------------------------------------------------------------------

    def command(self, command: Command, program: ImagePath) -> Iterator[Edge | Command]:
        """Node with a script, and the package managers."""
        name = posixpath.basename(command.argv[0])
        if name in NODES or posixpath.basename(program) in NODES:
            yield from self._node(command, program)
        elif name in MANAGERS:
            yield from self._manager(name, command, program)

    def _node(self, command: Command, program: ImagePath) -> Iterator[Edge | Command]:
        line = node_line(command.argv[1:], command.env.get("NODE_OPTIONS", ""))
        self._processes.append(command)
        if line.conditions:
            self._require |= set(line.conditions)
            self._import |= set(line.conditions)
        source = command.source if command.source.startswith("/") else program
        self._source_maps |= line.source_maps
        yield from self._options(line, command, source)
        if line.run is not None:
            yield from self._package_scripts([line.run], line.words, command, program)
        if line.script is None:
            return
        found = self._resolver.load_path(posixpath.join(command.cwd, line.script), typed=True)
        if found is None:
            self.image.diagnose(
                "missing-module",
                f"{command.evidence}: runs {line.script}, which is not there",
                source if source != program else None,
            )
            return
        for manifest in found.manifests:
            yield from self._to(source, manifest, "config", "package.json: main", "certain")
        evidence = command.evidence if command.kind == "interpreter" else f"node {line.script}"
        yield from self._to(source, found.path, "script", evidence, command.certainty)
        real = self._fs.follow(found.path)
        if real is None:
            return
        if self._is_own(real):
            self._add_root(real, f"{real} is run in it", command)
        else:
            yield from self._tool(real, line.words, command)

    def _options(self, line: NodeLine, command: Command, source: ImagePath) -> Iterator[Edge | Command]:
        here = f"{command.cwd.rstrip('/')}/[node]"
        for option, specifier, imported in line.preloads:
            if self._resolver.is_builtin(specifier):
                continue
            found = self._resolver.resolve(specifier, here, self._import if imported else self._require)
            if found is None:
                self.image.diagnose(
                    "missing-module", f"{option} {specifier} finds nothing ({command.evidence})"
                )
                continue
            yield from self._to(source, found.path, "require", f"{option} {specifier}", "certain")
        for option, path in line.files:
            target = posixpath.join(command.cwd, path)
            yield from self._to(source, target, "config", f"{option}={path}", "certain")
        for name in ("NODE_EXTRA_CA_CERTS", "OPENSSL_CONF", "NODE_ICU_DATA"):
            path = command.env.get(name, "")
            if path and self._fs.exists(posixpath.join(command.cwd, path)):
                target = posixpath.join(command.cwd, path)
                yield from self._to(source, target, "config", f"{name}={path}", "certain")
        for code in line.code:
            for asked in scan(code.encode("utf-8", "replace"), here, command.cwd, command.env):
                yield from self._one(source, here, asked, "node -e: ", report=True, production=False)

    def _tool(self, real: ImagePath, words: tuple[str, ...], command: Command) -> Iterator[Edge | Command]:
        """A program of an installed package that works on the application in the working directory."""
        name = self._package_name(real)
        if name in MANAGERS or name == "npm":
            return
        if name in WRAPPERS:
            assigned, inner = wrapped(words)
            if inner:
                yield self._nested(real, inner, f"{name} {' '.join(inner)}", command, assigned)
            return
        if name in LISTS:
            for word in words:
                if LISTS[name] == "script" or word.startswith("npm:"):
                    script = word.removeprefix("npm:")
                    yield from self._package_scripts([script], (), command, real)
                elif " " in word:
                    yield self._nested(real, ("sh", "-c", word), f"{name} {word}", command, {})
            return
        if name == "@nestjs/cli" and words[:1] == ("start",):  # Nest documentation, cli/usages: nest start
            yield self._nested(real, ("node", "dist/main"), "nest start runs node dist/main", command, {})
        for word in words:
            if word.endswith(SCRIPTS):
                target = posixpath.normpath(posixpath.join(command.cwd, word))
                if self._fs.is_file(target):
                    yield from self._to(real, target, "script", f"{name} {word}", "likely")
                    self._add_root(self._fs.follow(target) or target, f"{name} runs {word}", command)
        root = self._application(command.cwd)
        if root is not None:
            self._tools.setdefault(root, real)
            self._roots.setdefault(root, (real, f"{name} works in it"))
            if name in COMPILING:
                first = next((word for word in words if not word.startswith("-")), "")
                if not COMPILING[name] or first in COMPILING[name]:
                    self._compiled.add(root)

    def _nested(
        self, source: ImagePath, argv: tuple[str, ...], evidence: str, outer: Command, more: Mapping[str, str]
    ) -> Command:
        return Command(source, argv, evidence, outer.cwd, {**outer.env, **more}, "command", outer.certainty)

    def _manager(self, name: str, command: Command, program: ImagePath) -> Iterator[Edge | Command]:
        asked = manager_line(name, command.argv[1:])
        cwd = command.cwd
        if asked.directory:
            cwd = posixpath.normpath(posixpath.join(cwd, asked.directory))
        root = self._manifest_above(cwd)
        inner = Command(
            command.source,
            command.argv,
            command.evidence,
            root or cwd,
            command.env,
            "command",
            command.certainty,
        )
        prefix = posixpath.dirname(posixpath.dirname(posixpath.normpath(command.argv[0])))
        global_config = f"{prefix}/etc/npmrc"  # npm documentation, npmrc: "Global config file"
        if self._fs.is_file(global_config):
            yield from self._to(program, global_config, "config", f"{name} reads its global npmrc", "likely")
        if asked.workspace and root is not None:
            member = self._workspace(root, asked.workspace)
            if member is not None:
                inner = self._moved(inner, member)
        if asked.scripts:
            yield from self._package_scripts(asked.scripts, asked.words, inner, program)
        where = self._with_bins(inner, {})
        if asked.line is not None:
            yield self._nested(program, ("sh", "-c", asked.line), f"{name} -c", where, {})
        if asked.program is not None:
            argv = (self._bin(asked.program, inner.cwd), *asked.words)
            yield self._nested(program, argv, f"{name} {asked.program}", where, {})

    def _bin(self, name: str, cwd: ImagePath) -> str:
        """The program that ``npx NAME`` runs: the one of that name, else the only one of the package NAME."""
        package = self._resolver.package(name, cwd)
        manifest = None if package is None else self._resolver.manifest(package)
        bins = (manifest or {}).get("bin")
        if isinstance(bins, dict) and bins and name.rpartition("/")[2] not in bins:
            return str(next(iter(bins)))
        return name.rpartition("/")[2] if name.startswith("@") else name

    def _moved(self, command: Command, cwd: ImagePath) -> Command:
        return Command(
            command.source,
            command.argv,
            command.evidence,
            cwd,
            command.env,
            command.kind,
            command.certainty,
        )

    def _with_bins(self, command: Command, more: Mapping[str, str]) -> Command:
        """The command with PATH as npm sets it (npm documentation, scripts, "path")."""
        bins: list[ImagePath] = []
        directory = command.cwd.rstrip("/")
        while True:
            bins.append(f"{directory}/node_modules/.bin")
            if not directory:
                break
            directory = directory.rpartition("/")[0]
        present = [folder for folder in bins if self._fs.is_dir(folder)]
        path = ":".join([*present, *filter(None, [command.env.get("PATH", "")])])
        return Command(
            command.source,
            command.argv,
            command.evidence,
            command.cwd,
            {**command.env, "PATH": path, **more},
            command.kind,
            command.certainty,
        )

    def _package_scripts(
        self, names: list[str], words: tuple[str, ...], command: Command, program: ImagePath
    ) -> Iterator[Edge | Command]:
        """The lines of package.json that ``npm run`` gives to the shell."""
        root = self._manifest_above(command.cwd)
        manifest = None if root is None else self._resolver.manifest(root)
        if root is None or manifest is None:
            self.image.diagnose(
                "missing-file", f"{command.evidence}: there is no package.json in {command.cwd} or above"
            )
            return
        path = f"{root}/package.json"
        yield from self._to(program, path, "config", f"{command.evidence} reads package.json", "certain")
        for name in names:
            lines = script_lines(manifest.get("scripts"), name, words)
            if not lines and self._find_bin(name, root) is not None:
                where = self._with_bins(self._moved(command, root), {})
                yield self._nested(path, (name, *words), f"{command.evidence}: {name}", where, {})
            elif not lines:
                self.image.diagnose("missing-script", f"{command.evidence}: no script {name!r}", path)
            for script, line in lines:
                more = {
                    "npm_lifecycle_event": script,
                    "npm_lifecycle_script": line,
                    "npm_package_json": path,
                    "npm_package_name": str(manifest.get("name", "")),
                    "npm_package_version": str(manifest.get("version", "")),
                    "INIT_CWD": command.cwd,
                }
                where = self._with_bins(self._moved(command, root), more)
                yield self._nested(path, ("sh", "-c", line), f"scripts.{script}: {line}", where, {})

    def _find_bin(self, name: str, directory: ImagePath) -> ImagePath | None:
        if "/" in name:
            return None
        for modules in self._resolver.module_directories(directory):
            if self._fs.is_file(f"{modules}/.bin/{name}"):
                return f"{modules}/.bin/{name}"
        return None

    def _workspace(self, root: ImagePath, name: str) -> ImagePath | None:
        """The directory of a workspace, by its path or its package's name."""
        by_path = posixpath.normpath(posixpath.join(root, name))
        if self._resolver.manifest(by_path) is not None:
            return by_path
        package = self._resolver.package(name, root)
        return None if package is None else self._fs.follow(package)

    # -- applications --------------------------------------------------------------------------------------

    def _manifest_above(self, directory: ImagePath) -> ImagePath | None:
        """The innermost directory with a package.json, from ``directory`` upwards."""
        directory = directory.rstrip("/")
        while True:
            if self._resolver.manifest(directory) is not None:
                return directory
            if not directory:
                return None
            directory = directory.rpartition("/")[0]

    def _application(self, directory: ImagePath) -> ImagePath | None:
        """The directory of the application that ``directory`` is part of; None where that would be everybody's."""
        root = directory.rstrip("/")
        while root:
            manifest = self._resolver.manifest(root)
            if manifest is not None and (
                "name" in manifest or "dependencies" in manifest or self._fs.is_dir(f"{root}/node_modules")
            ):
                break
            root = root.rpartition("/")[0]
        workdir = (self.image.config.workdir or "/").rstrip("/")
        if not root:
            root = workdir if f"{directory}/".startswith(f"{workdir}/") else directory.rstrip("/")
        return None if not root or root in SHARED_FOLDERS else root

    def _add_root(self, script: ImagePath, why: str, command: Command) -> None:
        root = self._application(script.rpartition("/")[0])
        if root is not None:
            self._roots.setdefault(root, (script, why))
            self._entries.setdefault(root, set()).add(script)

    def _is_own(self, path: ImagePath) -> bool:
        """Whether a file is the application's rather than an installed package's or tool's."""
        found = self._own.get(path)
        if found is None:
            owner = self.image.owner_of(path)
            found = (
                MODULES not in path
                and not (owner is not None and owner.is_os)
                and self.image.category_of(path) not in ("compilers", "dev-dependencies", "package-cache")
            )
            self._own[path] = found
        return found

    def _package_of(self, path: ImagePath) -> ImagePath | None:
        """The directory of the package that a file belongs to; None for the application's own files."""
        at = path.rfind(MODULES)
        if at < 0:
            return None if self._is_own(path) else self._named_scope(path)
        below = path[at + len(MODULES) :].split("/")
        if below[0].startswith("."):
            return self._named_scope(path) if below[0] not in (".bin", ".cache") else None
        count = 2 if below[0].startswith("@") else 1
        return f"{path[: at + len(MODULES)]}{'/'.join(below[:count])}" if len(below) > count else None

    def _named_scope(self, path: ImagePath) -> ImagePath | None:
        scope = self._resolver.scope(path)
        while scope is not None and scope and "name" not in (self._resolver.manifest(scope) or {}):
            scope = self._resolver.scope(scope)
        return scope or None

    def _package_name(self, path: ImagePath) -> str:
        package = self._package_of(path)
        manifest = None if package is None else self._resolver.manifest(package)
        name = (manifest or {}).get("name")
        return name if isinstance(name, str) else ""

    # -- edges ---------------------------------------------------------------------------------------------

    def _to(
        self, source: ImagePath, target: ImagePath, kind: str, evidence: str, certainty: Certainty
    ) -> Iterator[Edge]:
        """An edge to a file or directory that exists; a module is read when its turn comes."""
        real = self._fs.follow(target)
        if real is None:
            return
        if real != source or target != real:
            yield Edge(source, target, kind, evidence, certainty)
        if real not in self._reached and self._fs.type_of(real) == EntryType.FILE:
            self._reached.add(real)
            if real in self._asked:
                self._late.append(real)

    def edges(self, path: ImagePath) -> Iterator[Edge | Command]:
        """What a module asks for, and the package that it is part of."""
        self._asked.add(path)
        loaded = path.endswith(LOADED)
        if loaded or path in self._reached:
            package = self._package_of(path)
            if package is not None:
                yield from self._package(package, path)
            if path in self._reached:
                yield from self._module(path, package)
            elif package is None and path.endswith(SCRIPTS) and self._is_own(path) and self._roots:
                yield from self._own_module(path, reached=False)
        yield from self._overdue()

    def _overdue(self) -> Iterator[Edge | Command]:
        """Modules that were kept for another reason before anything required them."""
        while self._late:
            path = self._late.pop()
            package = self._package_of(path)
            if package is not None:
                yield from self._package(package, path)
            yield from self._module(path, package)

    def _module(self, path: ImagePath, package: ImagePath | None) -> Iterator[Edge | Command]:
        if path.endswith((".json", ".node")):
            return
        if not path.endswith(SCRIPTS) and not self._looks_like_script(path):
            return
        if self._source_maps:
            yield from self._source_map(path)
        if package is None and self._is_own(path):
            yield from self._own_module(path, reached=True)
        else:
            yield from self._package_module(path, package)

    def _looks_like_script(self, path: ImagePath) -> bool:
        """Whether a file without a known ending is JavaScript: by its ``#!`` line, or for want of any ending."""
        head = self.image.head(path)
        if b"node" in head.partition(b"\n")[0]:
            return True
        return bool(head) and b"\0" not in head and "." not in path.rpartition("/")[2]

    def _source_map(self, path: ImagePath) -> Iterator[Edge]:
        """The map that Node reads under ``--enable-source-maps`` (ECMA-426, linking generated code)."""
        last = self._read(path)[-500:].decode("utf-8", "replace")
        match = re.search(r"[#@] sourceMappingURL=([^\s'\"]{1,300})\s*(?:\*/)?\s*$", last)
        if match and not match[1].startswith("data:"):
            target = posixpath.normpath(posixpath.join(posixpath.dirname(path), match[1]))
            if self._fs.is_file(target):
                yield Edge(path, target, "data", "--enable-source-maps reads its source map", "likely")

    def _read(self, path: ImagePath) -> bytes:
        try:
            return self._fs.read(path, SOURCE_LIMIT)
        except (LayerLensError, OSError) as error:
            self.image.diagnose("unreadable-source", f"cannot be read: {error}", path)
            return b""

    # -- packages ------------------------------------------------------------------------------------------

    def _package(self, directory: ImagePath, path: ImagePath) -> Iterator[Edge | Command]:
        """A package's files, and what its package.json declares."""
        directory = self._fs.follow(directory) or directory
        if directory in self._packages_seen:
            return
        self._packages_seen.add(directory)
        manifest = self._resolver.manifest(directory) or {}
        name = str(manifest.get("name") or directory.rpartition(MODULES)[2])
        self._names_seen.add(name)
        title = f"{name} {manifest.get('version', '')}".strip()
        files = list(self._platform.files(directory))
        either = self._require | self._import
        apart = foreign(files, directory, manifest, lambda: self._public(directory, manifest, files, either))
        if apart:
            self._builds[directory] = sorted(apart)
        twins = self._twins_of(directory, manifest, files)
        if twins:
            self._twins[directory] = sorted(twins)
            apart |= twins
        for file in files:
            if file != path and file not in apart:
                yield Edge(path, file, "package-file", f"part of the package {title}", "assumed")
        yield from self._declared(directory, manifest)
        if name.startswith("dotenv") or name == "@nestjs/config":
            yield from self._dotenv(path, name)

    def _twins_of(
        self, directory: ImagePath, manifest: Mapping[str, Any], files: list[ImagePath]
    ) -> set[ImagePath]:
        """The ES modules of a package that has a build for ``import`` and one for ``require``."""
        exports = manifest.get("exports")
        if not isinstance(exports, dict):
            return set()
        if set(export_targets(exports, self._import)) <= set(export_targets(exports, self._require)):
            return set()
        library = {key: value for key, value in manifest.items() if key != "bin"}
        required = self._public(directory, library, files, self._require)
        if not required:
            return set()
        imported = self._public(directory, library, files, self._import)
        return {path for path in imported - required if path.endswith((".js", ".mjs"))}

    def _public(
        self,
        directory: ImagePath,
        manifest: Mapping[str, Any],
        files: list[ImagePath],
        conditions: Set[str],
    ) -> set[ImagePath]:
        """What the ``exports`` of a package and its programs lead to inside of it, under some conditions."""
        names = set(files)
        targets = list(export_targets(manifest.get("exports"), conditions))
        bins = manifest.get("bin")
        targets += [one for one in bins.values() if isinstance(one, str)] if isinstance(bins, dict) else []
        targets += [one for one in (bins, manifest.get("main")) if isinstance(one, str)]
        imports = manifest.get("imports")
        for one in imports.values() if isinstance(imports, dict) else ():
            targets += export_targets(one, conditions)
        found = matching(targets, directory, names)
        waiting = sorted(found)
        while waiting:
            path = waiting.pop()
            if not path.endswith(SCRIPTS):
                continue
            for mention in mentions(self._read(path).decode("utf-8", "replace")):
                if not mention.specifier.startswith("."):
                    continue
                conditions = self._import if mention.is_import else self._require
                target = self._resolver.resolve(mention.specifier, path, conditions)
                if target is not None and target.path in names and target.path not in found:
                    found.add(target.path)
                    waiting.append(target.path)
        return found

    def _note_located(self, path: ImagePath, text: str) -> None:
        """Packages of which a module asks where they lie: it may take any of their files."""
        for specifier in located_packages(text):
            name, _ = split_specifier(specifier)
            package = self._resolver.package(name, posixpath.dirname(path)) if name else None
            if package is not None:
                self._whole.add(self._fs.follow(package) or package)

    def _other_builds(self) -> Iterator[Edge]:
        """The builds of packages that were kept apart, as far as somebody may ask for them after all."""
        keep_all = self._served or bool(self._compiled) or not BUNDLERS.isdisjoint(self._names_seen)
        yield from self._builds_for_import(keep_all)
        yield from self._builds_for_others(keep_all)

    def _builds_for_import(self, keep_all: bool) -> Iterator[Edge]:
        """Those for ``import``, but of packages that everybody asks for by ``require``."""
        for directory in sorted({*self._twins, *self._import_entries}):
            if (
                (keep_all or self._imports_anything or directory in self._whole)
                or directory in self._imported_packages
                or directory not in self._required_packages
                or directory not in self._twins
            ):
                for edge in self._import_entries.pop(directory, ()):
                    yield from self._to(edge.source, edge.target, edge.kind, edge.evidence, edge.certainty)
                source = f"{directory}/package.json"
                for path in self._twins.pop(directory, ()):
                    yield Edge(source, path, "package-file", "its build for import", "assumed")

    def _builds_for_others(self, keep_all: bool) -> Iterator[Edge]:
        """Those for browsers and bundlers, of packages whose modules may load or hand out any file of theirs."""
        reached: dict[ImagePath, list[ImagePath]] = {}
        for path in sorted(self._reached) if self._builds else ():
            package = self._package_of(path) if path.endswith(SCRIPTS) else None
            if package in self._builds:
                reached.setdefault(package, []).append(path)
        for directory in sorted(self._builds):
            modules = reached.get(directory, [])
            whole = keep_all or directory in self._whole
            if not self._once(f"builds {len(modules)} {whole}", directory):
                continue
            words = None if whole else self._words_about_files(modules)
            source = f"{directory}/package.json"
            for path in self._builds[directory]:
                if words is None or is_told(path, directory, words):
                    yield Edge(source, path, "package-file", "a build that its package may name", "assumed")

    def _words_about_files(self, modules: list[ImagePath]) -> str | None:
        """What modules say of files of their package; None where one may load or hand out any."""
        for path in modules:
            if path not in self._file_words:
                text = self._read(path).decode("utf-8", "replace")
                self._file_words[path] = None if loads_by_computed_names(text) else located(text)
            if self._file_words[path] is None:
                return None
        return "\n".join(filter(None, map(self._file_words.get, modules)))

    def _declared(self, directory: ImagePath, manifest: Mapping[str, Any]) -> Iterator[Edge]:
        """Installed dependencies of a package, which may be asked for by computed names."""
        source = f"{directory}/package.json"
        for field in ("dependencies", "optionalDependencies", "peerDependencies"):
            table = manifest.get(field)
            for name in table if isinstance(table, dict) else ():
                if not isinstance(name, str) or name.startswith("@types/"):  # declarations only
                    continue
                package = self._resolver.package(name, directory)
                if package is None:
                    continue
                inner = self._resolver.manifest(package) or {}
                if not self._platform.fits(inner):
                    continue
                if field == "peerDependencies" and self._is_optional_peer(manifest, name, package):
                    continue
                yield from self._depends(source, package, name, f"{field}: {name}")

    def _is_optional_peer(self, manifest: Mapping[str, Any], name: str, package: ImagePath) -> bool:
        """npm installs no optional peer; one that is here for development alone would not be in production."""
        meta = manifest.get("peerDependenciesMeta")
        row = meta.get(name) if isinstance(meta, dict) else None
        optional = isinstance(row, dict) and bool(row.get("optional"))
        return optional and self._is_development(package)

    def _depends(self, source: ImagePath, package: ImagePath, name: str, evidence: str) -> Iterator[Edge]:
        """A package that is declared: its package.json, and its entry points as modules that may be asked for."""
        target = f"{package}/package.json"
        if self._fs.is_file(target):
            yield from self._to(source, target, "depends", evidence, "assumed")
        required = self._resolver.resolve(name, source, self._require)
        imported = self._resolver.resolve(name, source, self._import)
        for found in (required, imported):
            if found is None or found.path.endswith(TYPED):
                continue
            why = found.evidence or "its main"
            if found is imported and required is not None and required.path != found.path:
                # It waits for somebody who imports the package.
                edge = Edge(target, found.path, "package-file", why, "assumed")
                self._import_entries.setdefault(self._fs.follow(package) or package, []).append(edge)
                continue
            yield from self._to(target, found.path, "package-file", why, "assumed")

    def _is_development(self, package: ImagePath) -> bool:
        real = self._fs.follow(f"{package}/package.json")
        owner = None if real is None else self.image.owner_of(real)
        return owner is not None and owner.category == "dev-dependencies"

    def _dotenv(self, source: ImagePath, name: str) -> Iterator[Edge]:
        for process in self._processes:
            mode = process.env.get("NODE_ENV", "")
            for pattern in DOTENV_FILES:
                target = posixpath.join(process.cwd, pattern.replace("{NODE_ENV}", mode))
                if self._fs.is_file(target):
                    yield from self._to(source, target, "config", f"{name} reads {target}", "likely")

    def _package_module(self, path: ImagePath, package: ImagePath | None) -> Iterator[Edge | Command]:
        """What a module of a package asks for, read quickly; what is doubtful, by its syntax tree."""
        text = self._read(path).decode("utf-8", "replace")
        self._note_located(path, text)
        in_doubt: list[Mention] = []
        resolver = self._resolver
        for mention in mentions(text):
            specifier = mention.specifier
            if resolver.is_builtin(specifier):
                continue
            conditions = self._import if mention.is_import else self._require
            found = resolver.resolve(specifier, path, conditions)
            if found is None:
                if split_specifier(specifier)[0] and specifier[0] != "#" and len(text) < REPORT_LIMIT:
                    in_doubt.append(mention)
                continue
            if self._leaves_production(found.path, package):
                in_doubt.append(mention)
                continue
            yield from self._required(path, mention, found.path, text)
        if in_doubt:
            yield from self._settle(path, package, text, in_doubt)

    def _required(self, path: ImagePath, mention: Mention, target: ImagePath, text: str) -> Iterator[Edge]:
        line = text.count("\n", 0, mention.position) + 1
        verb = "import" if mention.is_import else "require"
        self._note_asked(path, target, mention.is_import)
        yield from self._to(path, target, "require", f'line {line}: {verb} "{mention.specifier}"', "certain")

    def _note_asked(self, path: ImagePath, target: ImagePath, is_import: bool) -> None:
        """Note whether a package is asked for by ``require`` or by ``import``, by others than itself."""
        real = self._fs.follow(target) or target
        package = self._package_of(real)
        if package is not None and not path.startswith(f"{package}/"):
            (self._imported_packages if is_import else self._required_packages).add(package)

    def _leaves_production(self, target: ImagePath, package: ImagePath | None) -> bool:
        """Whether a module lies in a package that only development installs, asked for from one that is not."""
        if MODULES not in target:
            return False
        real = self._fs.follow(target) or target
        owner = self.image.owner_of(real)
        if owner is None or owner.category != "dev-dependencies":
            return False
        return package is None or not self._is_development(package)

    def _settle(
        self, path: ImagePath, package: ImagePath | None, text: str, in_doubt: list[Mention]
    ) -> Iterator[Edge]:
        """Follow what the code really asks for without reckoning with its absence; note what finds nothing."""
        if len(text) > VERIFY_LIMIT:
            return
        real = counted_on(text.encode("utf-8", "replace"), {mention.specifier for mention in in_doubt})
        for mention in in_doubt:
            if mention.specifier not in real:
                continue
            conditions = self._import if mention.is_import else self._require
            found = self._resolver.resolve(mention.specifier, path, conditions)
            if found is not None:
                yield from self._required(path, mention, found.path, text)
            elif package is not None:
                self._absent.setdefault(package, set()).add(mention.specifier)

    # -- the application's own modules ---------------------------------------------------------------------

    def _own_module(self, path: ImagePath, *, reached: bool) -> Iterator[Edge | Command]:
        process = self._processes[0] if self._processes else None
        cwd = process.cwd if process else self.image.config.workdir or "/"
        env = process.env if process else self.image.env
        data = self._read(path)
        self._note_located(path, data.decode("utf-8", "replace"))
        found = scan(data, path, cwd, env)
        specifiers = {one.text.head for one in found if one.kind in ("require", "import")}
        for asked in found:
            if asked.kind == "literal" and asked.text.head in specifiers:
                continue
            yield from self._one(
                path, path, asked, "", report=reached, production=not reached, cwd=cwd, env=env
            )
        if path.endswith(TYPED):
            yield from self._typed(path, data)
        if path in self._configs:
            yield from self._named_packages(path, data)
        scope = self._resolver.scope(path)
        if scope is not None and not path.endswith((".mjs", ".cjs")):
            manifest = f"{scope}/package.json"
            yield from self._to(path, manifest, "config", "Node reads the nearest package.json", "certain")

    def _typed(self, path: ImagePath, data: bytes) -> Iterator[Edge]:
        """A TypeScript file: what the JavaScript grammar may have missed, and the compiler's configuration."""
        text = data.decode("utf-8", "replace")
        for mention in mentions(text):
            found = self._resolver.resolve(
                mention.specifier, path, self._import if mention.is_import else self._require
            )
            before = text[max(0, mention.position - 300) : mention.position]
            if found is not None and not before.rpartition("import")[2].lstrip().startswith("type "):
                yield from self._required(path, mention, found.path, text)
        scope = self._resolver.scope(path)
        if scope is not None:
            yield from self._to(path, f"{scope}/tsconfig.json", "config", "its compiler's options", "likely")

    def _one(
        self,
        source: ImagePath,
        importer: ImagePath,
        asked: Asked,
        where: str,
        *,
        report: bool,
        production: bool,
        cwd: ImagePath = "/",
        env: Mapping[str, str] | None = None,
    ) -> Iterator[Edge | Command]:
        """One thing that own code asks for; ``importer`` is where a specifier is resolved from."""
        text, line = asked.text, asked.line
        where = f"{where}line {line}: " if line else where
        if asked.kind in ("require", "import"):
            if text.whole:
                yield from self._specifier(source, importer, asked, where, report, production)
            else:
                yield from self._prefix(source, importer, asked, where, report)
        elif asked.kind == "engine":
            found = self._resolver.resolve(text.head, importer, self._require)
            if found is not None:
                yield from self._to(
                    source, found.path, "require", f"{where}view engine {text.head}", "likely"
                )
        elif asked.kind == "path":
            yield from self._path(source, text.head, text.whole, f"{where}{text.head}")
        elif asked.kind == "literal":
            yield from self._literal(source, importer, text.head, cwd)
        elif asked.kind == "worker":
            if text.whole:
                target = posixpath.join(cwd, text.head)
                for path in (target, posixpath.join(posixpath.dirname(importer), text.head)):
                    found = self._resolver.load_path(path, typed=True)
                    if found is not None:
                        yield from self._to(
                            source, found.path, "script", f"{where}runs {text.head}", "likely"
                        )
                        break
        elif asked.kind == "addon":
            yield from self._addon(source, importer, text.head, where)
        elif asked.kind in ("spawn", "shell") and env is not None:
            argv = (text.head, *asked.words) if asked.kind == "spawn" else ("/bin/sh", "-c", text.head)
            yield Command(source, argv, f"{where}runs {text.head}", cwd, env, "command", "likely")

    def _specifier(
        self, source: ImagePath, importer: ImagePath, asked: Asked, where: str, report: bool, production: bool
    ) -> Iterator[Edge]:
        specifier = asked.text.head
        if self._resolver.is_builtin(specifier) or specifier.startswith(("data:", "http:", "https:")):
            return
        conditions = self._import if asked.kind == "import" else self._require
        found = self._resolver.resolve(specifier, importer, conditions)
        if found is not None and production and self._leaves_production(found.path, None):
            return
        if report and split_specifier(specifier)[0] and not specifier.startswith("#"):
            self._note_bare(source)
        if found is None:
            if report:
                self._say_missing(source, asked, where, specifier)
            return
        for manifest in found.manifests:
            if MODULES not in manifest:
                yield from self._to(source, manifest, "config", f"{where}{found.evidence}", "certain")
        verb = asked.kind
        self._note_asked(source, found.path, verb == "import")
        certainty: Certainty = "assumed" if production else "certain"
        yield from self._to(source, found.path, "require", f'{where}{verb} "{specifier}"', certainty)

    def _note_bare(self, source: ImagePath) -> None:
        if source in self._configs or not self._is_own(source):
            return
        directory = source.rpartition("/")[0]
        while directory and directory not in self._bare:
            manifest = self._resolver.manifest(directory)
            if manifest is not None and ("dependencies" in manifest or "name" in manifest):
                self._bare[directory] = source
                return
            directory = directory.rpartition("/")[0]

    def _say_missing(self, source: ImagePath, asked: Asked, where: str, specifier: str) -> None:
        if asked.kind == "require" and specifier.endswith((".css", ".scss", ".svg", ".png")):
            return
        severity = "info" if asked.optional else "warning"
        path = source if source.startswith("/") else None
        verb = f'{asked.kind} "{specifier}"'
        self.image.diagnose("missing-module", f"{where}{verb} finds nothing", path, severity)  # type: ignore[arg-type]

    def _prefix(
        self, source: ImagePath, importer: ImagePath, asked: Asked, where: str, report: bool
    ) -> Iterator[Edge]:
        """A specifier of which the beginning is known: whatever may be meant."""
        head, tail = asked.text.head, asked.text.tail
        if head.startswith("file://"):
            head = head[7:]
        if head.startswith(("/", "./", "../")):
            base = head if head[0] == "/" else f"{posixpath.dirname(importer)}/{head}"
            folder, _, stem = base.rpartition("/")
            yield from self._candidates(source, posixpath.normpath(folder or "/"), stem, tail, where, head)
            return
        name, subpath = split_specifier(head.rstrip("/") if head.endswith("/") else head)
        if name and (subpath != "." or head.endswith("/")):
            found = self._resolver.resolve(f"{name}/package.json", importer, self._require)
            package = self._resolver.package(name, posixpath.dirname(importer))
            if found is not None or package is not None:
                target = f"{package}/package.json"
                self._whole.add(self._fs.follow(package or "") or "")
                yield from self._to(source, target, "require", f"{where}{asked.kind} of {head}…", "likely")
                return
        if len(head) >= 4:
            yield from self._packages_named(source, importer, head, where)
            return
        self._imports_anything |= asked.kind == "import"
        if report and not asked.optional:
            what = f"{asked.kind} of a computed name: what it loads is not known"
            path = source if source.startswith("/") else None
            self.image.diagnose("computed-require", f"{where}{what}", path)

    def _candidates(
        self, source: ImagePath, folder: ImagePath, stem: str, tail: str, where: str, head: str
    ) -> Iterator[Edge]:
        real = self._fs.follow(folder)
        if real is None or real in SHARED_FOLDERS or real == "/":
            return
        evidence = f"{where}loads {head}…"
        for name in self._fs.listdir(real):
            if not name.startswith(stem):
                continue
            path = f"{'' if real == '/' else real}/{name}"
            if self._fs.is_dir(path):
                if name == "node_modules":
                    continue
                inner = f"{path}{tail}" if tail.startswith("/") else path
                found = self._resolver.load_path(inner, typed=False)
                if found is not None:
                    yield from self._to(source, found.path, "require", evidence, "likely")
            elif (
                name.endswith(LOADED)
                and (name.endswith(tail) or not tail.endswith(LOADED))
                and self.image.category_of(path) not in ("tests", "headers", "debug")
            ):
                yield from self._to(source, path, "require", evidence, "likely")

    def _packages_named(
        self, source: ImagePath, importer: ImagePath, head: str, where: str
    ) -> Iterator[Edge]:
        scope, slash, _ = head.partition("/")
        for modules in self._resolver.module_directories(posixpath.dirname(importer)):
            folder = f"{modules}/{scope}" if slash else modules
            for name in self._fs.listdir(folder):
                full = f"{scope}/{name}" if slash else name
                if full.startswith(head) and self._fs.is_file(f"{folder}/{name}/package.json"):
                    yield from self._depends(source, f"{folder}/{name}", full, f"{where}loads {head}…")

    # -- files that own code names -------------------------------------------------------------------------

    def _path(self, source: ImagePath, path: ImagePath, whole: bool, evidence: str) -> Iterator[Edge]:
        """A path made of ``__dirname`` or the working directory: a file, a folder, or the beginning of one."""
        special = re.search(r"[*?{\[]", path)
        if special:
            path, whole = path[: special.start()], False
        if not whole:
            folder, _, stem = path.rpartition("/")
            if stem:
                for name in self._fs.listdir(folder):
                    if name.startswith(stem) and self._fs.is_file(f"{folder}/{name}"):
                        yield from self._to(source, f"{folder}/{name}", "literal", evidence, "likely")
                return
            path = folder
        real = self._fs.follow(path)
        if real is None:
            return
        if self._fs.is_dir(real):
            yield from self._folder(source, path, real, evidence)
        else:
            yield from self._to(source, path, "literal", evidence, "likely")

    def _folder(self, source: ImagePath, path: ImagePath, real: ImagePath, evidence: str) -> Iterator[Edge]:
        """A folder that is named; with its files, unless it is everybody's or holds the application itself."""
        if real == "/" or real in SHARED_FOLDERS:
            return
        self._served |= real.endswith("/node_modules")
        yield Edge(source, path, "literal", evidence, "likely")
        if any(f"{root}/".startswith(f"{real}/") for root in self._roots) or real.endswith("/node_modules"):
            return
        if real.count("/") == 1 and not any(real.startswith(f"{root}/") for root in self._roots):
            return
        if (
            sum(1 for _, _ in zip(self._fs.walk_files(real), range(MAX_LITERAL_FILES), strict=False))
            >= MAX_LITERAL_FILES
        ):
            return
        yield from self.image.tree(
            source, path, "literal", evidence, "likely", without=NAMED_LEFT_OUT, skip=("node_modules", ".git")
        )

    def _literal(self, source: ImagePath, importer: ImagePath, text: str, cwd: ImagePath) -> Iterator[Edge]:
        """A constant that is the path of an existing file or folder, from the working directory or absolute."""
        self._served |= posixpath.basename(text) == "node_modules"
        if text.strip("./") == "" or text != text.strip() or text.endswith("/node_modules"):
            return
        places = [posixpath.join(cwd, text)]
        if not text.startswith("/") and text.startswith("."):
            places.append(posixpath.join(posixpath.dirname(importer), text))
        for place in places:
            path = posixpath.normpath(place)
            real = self._fs.follow(path)
            if real is None:
                continue
            if self._fs.is_dir(real):
                if "/" in text:
                    yield from self._folder(source, path, real, f'the text "{text}"')
            else:
                yield from self._to(source, path, "literal", f'the text "{text}"', "likely")

    def _addon(self, source: ImagePath, importer: ImagePath, name: str, where: str) -> Iterator[Edge]:
        scope = self._resolver.scope(importer)
        file = name if name.endswith(".node") else f"{name}.node"
        for place in ADDON_PLACES if scope is not None else ():
            target = f"{scope}/{place.format(file)}"
            if self._fs.is_file(target):
                yield from self._to(source, target, "require", f"{where}bindings({name})", "certain")
                return

    def _named_packages(self, path: ImagePath, data: bytes) -> Iterator[Edge]:
        """Packages that a tool's configuration names without requiring them: ``plugins: { tailwindcss: {} }``."""
        directory = posixpath.dirname(path)
        text = data[:VERIFY_LIMIT].decode("utf-8", "replace")
        for name in sorted(set(_NAMED_PACKAGE.findall(text))):
            package = self._resolver.package(name, directory)
            if package is not None and self._fs.is_file(f"{package}/package.json"):
                yield from self._depends(path, package, name, f"names the package {name}")

    # -- when all else is done -----------------------------------------------------------------------------

    def finish(self, kept: Mapping[ImagePath, Edge]) -> Iterator[Edge | Command]:
        """Declared dependencies, the application's own files, configuration files of tools."""
        yield from self._overdue()
        yield from self._other_builds()
        for directory in sorted(self._bare):
            if self._once("dependencies", directory):
                manifest = self._resolver.manifest(directory) or {}
                source = f"{directory}/package.json"
                by = self._bare[directory]
                yield from self._to(by, source, "config", "the application's package.json", "assumed")
                yield from self._declared(directory, manifest)
        for root in sorted(self._tools):
            yield from self._tool_configs(root)
        for root in sorted(self._roots):
            if self._once("files", root):
                yield from self._app_files(root)
        for package in sorted(self._absent):
            if self._once("absent", package):
                names = ", ".join(sorted(self._absent[package])[:12])
                self.image.diagnose("missing-module", f"asks for {names}: not there", package, "info")

    def _once(self, what: str, path: ImagePath) -> bool:
        if (what, path) in self._finished:
            return False
        self._finished.add((what, path))
        return True

    def _tool_configs(self, root: ImagePath) -> Iterator[Edge]:
        """Configuration files in the application's directory whose tools are kept: ``vite.config.ts``."""
        tool = self._tools[root]
        for name in self._fs.listdir(root):
            match = _TOOL_CONFIG.fullmatch(name)
            word = (match["one"] or match["two"]) if match else None
            if word is None or TOOL_PACKAGES.get(word, word) not in self._names_seen:
                continue
            path = f"{root}/{name}"
            if self._fs.is_file(path) and self._once("config", path):
                self._configs.add(path)
                yield from self._to(tool, path, "config", f"{word} reads {name}", "likely")

    def _app_files(self, root: ImagePath) -> Iterator[Edge]:
        """The application's own files, which it may read by computed names."""
        source, why = self._roots[root]
        if self._fs.is_file(f"{root}/.pnp.cjs"):
            self.image.diagnose(
                "plug-n-play", "packages in Yarn's archives are not looked into; the archives are kept", root
            )
        left_out = APP_LEFT_OUT - {"sources"} if root in self._compiled else APP_LEFT_OUT
        entries = [entry[len(root) + 1 :] for entry in sorted(self._entries.get(root, ()))]
        compiled = bool(entries) and all(
            entry.partition("/")[0] in BUILD_OUTPUTS for entry in entries if "/" in entry
        )
        compiled = compiled and any("/" in entry for entry in entries) and root not in self._compiled
        manifest = self._resolver.manifest(root) is not None
        if not manifest and not entries:
            return
        stack = [root]
        while stack:
            folder = stack.pop()
            for name in self._fs.listdir(folder):
                path = f"{folder}/{name}"
                kind = self._fs.type_of(path)
                if kind == EntryType.DIR:
                    if name not in NOT_SHIPPED_FOLDERS and not self._is_obj(path, name):
                        stack.append(path)
                    continue
                if kind not in (EntryType.FILE, EntryType.SYMLINK) or (
                    folder == root and (name in NOT_SHIPPED_NAMES or NOT_SHIPPED.fullmatch(name))
                ):
                    continue
                if compiled and path.startswith(f"{root}/src/") and name.endswith(_CODE):
                    continue
                if self.image.category_of(path) in left_out or self._platform.is_foreign(path):
                    continue
                yield Edge(source, path, "app-file", f"the application's own file: {why}", "assumed")

    @staticmethod
    def _is_obj(path: ImagePath, name: str) -> bool:
        return name in ("obj.target", ".deps") and "/build/" in path
