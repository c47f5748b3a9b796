"""Node packages: every ``node_modules/<name>`` and ``node_modules/@scope/<name>`` with a package.json.

A package owns its directory, down to the ``node_modules`` inside it whose packages own theirs. Whether it is
needed in production or only in development is told, in this order, by

1. npm's hidden lockfile ``node_modules/.package-lock.json``, which describes the tree as installed
   (npm documentation, package-lock-json, "Hidden Lockfiles");
2. ``npm-shrinkwrap.json`` or ``package-lock.json`` of the project, versions 1 to 3;
3. the installed tree, as for yarn and pnpm: what Node's own look-up (Node documentation, modules, "Loading
   from node_modules folders") reaches from the project's ``dependencies`` is production, what it reaches
   from ``devDependencies`` alone is development. npm's rule holds: reached from both is production, and an
   optional peer does not make a package production.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from json import loads
from typing import TYPE_CHECKING, Any

from layerlens.ecosystems import Explorer, ImageView, Lack, bounded_read
from layerlens.errors import LayerLensError
from layerlens.model import Diagnostic, ImageConfig, ImagePath, Improvement, Package, StaticSite

if TYPE_CHECKING:
    from layerlens.filesystem import Filesystem

MODULES = "/node_modules/"
HIDDEN_LOCKFILE = ".package-lock.json"
LOCKFILES = ("npm-shrinkwrap.json", "package-lock.json")
"""In the order in which npm looks (npm documentation, npm-shrinkwrap.json)."""

OTHER_INSTALLERS = (".yarn-integrity", ".yarn-state.yml", ".modules.yaml")
"""What yarn 1, yarn 2 and later, and pnpm leave in ``node_modules``: npm's hidden lockfile is stale beside them."""

PRUNING = (
    # (program, what it leaves behind, the line): pnpm.io/cli/prune, classic.yarnpkg.com/en/docs/cli/install,
    # npm documentation, npm-prune. npm last: its lockfile stays where another program took over.
    ("pnpm", ("node_modules/.modules.yaml",), "CI=true pnpm prune --prod --ignore-scripts"),
    (
        "yarn",
        ("node_modules/.yarn-integrity",),
        "yarn install --production --frozen-lockfile --ignore-scripts",
    ),
    ("npm", ("node_modules/.package-lock.json", *LOCKFILES), "npm prune --omit=dev"),
)

PACKAGE_MANAGERS = frozenset(("npm", "yarn", "yarnpkg", "pnpm", "corepack", "node-gyp", "npx"))
"""Build tools: what installs packages (npm's own global install, Node's corepack)."""


@dataclass(slots=True)
class _Installed:
    """One package directory."""

    directory: ImagePath
    name: str
    version: str
    license: str | None
    manifest: Mapping[str, Any]
    """Its package.json, or the entry of the hidden lockfile that repeats the fields used here."""


class Node:
    """Packages that npm, yarn or pnpm installed."""

    name = "node"

    endings: tuple[str, ...] = (
        "/package.json",
        "/.package-lock.json",
        "/package-lock.json",
        "/npm-shrinkwrap.json",
    )

    def wants(self, path: ImagePath) -> bool:
        """Manifests and npm's lockfiles."""
        return path.endswith(self.endings)

    def packages(
        self, fs: Filesystem, config: ImageConfig, diagnostics: list[Diagnostic]
    ) -> Iterable[Package]:
        """Packages by project (the directory that holds the outermost ``node_modules``), then by path."""
        projects: dict[ImagePath, list[ImagePath]] = {}
        for path in fs.named("package.json"):
            directory = path[: -len("/package.json")]
            if MODULES in path and _is_package_directory(directory):
                projects.setdefault(directory[: directory.index(MODULES)], []).append(directory)
        found: list[Package] = []
        known: dict[ImagePath, _Project] = {}
        for root in sorted(projects):
            known[root] = project = _Project(fs, root, sorted(projects[root]), diagnostics)
            project.read_hidden_lockfile(known)
            found += project.packages()
        return found

    def explorer(self, image: ImageView) -> Explorer:
        """What Node's command lines and modules need."""
        from layerlens.ecosystems._node_needs import NodeExplorer

        return NodeExplorer(image)

    def lacks(self, image: ImageView) -> Iterable[Lack]:
        """Modules that the application asks for in vain."""
        from layerlens.ecosystems._node_lacking import lacks

        return lacks(image)

    def static_site(self, image: ImageView) -> StaticSite | None:
        """The built site that a preview server, a development server or a server of static files hands out."""
        from layerlens.ecosystems._node_static import static_site

        return static_site(image)

    def improvements(self, image: ImageView) -> Iterator[Improvement]:
        """Taking development packages out of a project's ``node_modules``, by the program that put them there."""
        projects: dict[ImagePath, int] = {}
        for package in image.packages:
            if (
                package.ecosystem == "node"
                and package.category == "dev-dependencies"
                and MODULES in package.location
            ):
                root = package.location[: package.location.index(MODULES)]
                projects[root] = projects.get(root, 0) + 1
        for root in sorted(projects):
            modules = f"{root}/node_modules"
            if not image.fs.is_file(f"{root}/package.json"):
                continue
            for program, lockfiles, line in PRUNING:
                present = any(image.fs.is_file(f"{root}/{name}") for name in lockfiles)
                if present and _is_on_path(image, program):
                    reason = f"takes {projects[root]} packages that only development needs out of {modules}"
                    yield Improvement(f"RUN {line}", reason, root or "/", (modules,))
                    break


def _is_on_path(image: ImageView, program: str) -> bool:
    folders = image.env.get("PATH", "/usr/local/bin:/usr/bin").split(":")
    return any(image.fs.is_file(f"{folder}/{program}") for folder in folders if folder.startswith("/"))


def _is_package_directory(directory: ImagePath) -> bool:
    """Whether the directory lies directly in ``node_modules``, or in a scope that does."""
    parent, _, name = directory.rpartition("/")
    if name.startswith("."):
        return False
    if parent.endswith("/node_modules"):
        return not name.startswith("@")
    grandparent, _, scope = parent.rpartition("/")
    return scope.startswith("@") and grandparent.endswith("/node_modules")


class _Project:
    """A directory with a ``node_modules``: an application, a workspace root, or npm's global prefix."""

    def __init__(
        self, fs: Filesystem, root: ImagePath, directories: list[ImagePath], diagnostics: list[Diagnostic]
    ) -> None:
        self._fs = fs
        self._root = root
        self._directories = directories
        self._diagnostics = diagnostics
        self._locked: dict[str, dict[str, Any]] = {}
        """Entries of the hidden lockfile by path relative to the project."""

    def read_hidden_lockfile(self, known: Mapping[ImagePath, _Project]) -> None:
        """Finds what was installed here: in the project's own file, or, in a workspace, the root's."""
        modules = f"{self._root}/node_modules"
        if not any(self._fs.exists(f"{modules}/{name}") for name in OTHER_INSTALLERS):
            self._locked = _locked(self._json(f"{modules}/{HIDDEN_LOCKFILE}"))
        above = self._root
        while above and not self._locked:
            above = above[: above.rindex("/")]
            if above in known:
                prefix = f"{self._root[len(above) + 1 :]}/"
                self._locked = {
                    path[len(prefix) :]: entry
                    for path, entry in known[above]._locked.items()
                    if path.startswith(prefix)
                }

    def packages(self) -> Iterator[Package]:
        """The packages of the project, by path."""
        locked = self._locked
        installed = {directory: self._installed(directory, locked) for directory in self._directories}
        development = self._development(locked, installed)
        for directory in self._directories:
            package = installed[directory]
            yield Package(
                ecosystem="node",
                name=package.name,
                version=package.version,
                location=f"{directory}/package.json",
                roots=(directory,),
                category=self._category(directory, development),
                license=package.license,
                requires=tuple(_names(package.manifest.get("dependencies"))),
            )

    def _category(self, directory: ImagePath, development: set[ImagePath]) -> str | None:
        if directory in development:
            return "dev-dependencies"
        outermost = directory[len(self._root) + len(MODULES) :].partition("/")[0]
        return "compilers" if outermost in PACKAGE_MANAGERS else None

    def _installed(self, directory: ImagePath, locked: Mapping[str, Any]) -> _Installed:
        entry = locked.get(directory[len(self._root) + 1 :])
        if entry is None or not isinstance(entry.get("version"), str):
            entry = self._json(f"{directory}/package.json")
        by_path = directory[directory.rindex(MODULES) + len(MODULES) :]
        license_name = entry.get("license")
        if isinstance(license_name, dict):  # the form of before npm 2
            license_name = license_name.get("type")
        return _Installed(
            directory=directory,
            name=_text(entry.get("name")) or by_path,
            version=_text(entry.get("version")),
            license=_text(license_name) or None,
            manifest=entry,
        )

    def _development(
        self, locked: Mapping[str, Any], installed: Mapping[ImagePath, _Installed]
    ) -> set[ImagePath]:
        """Directories of the packages that only development needs."""
        flags = {path: bool(entry.get("dev")) for path, entry in locked.items()}
        if not flags:
            flags = self._flags_of_lockfile()
        known: dict[ImagePath, bool] = {}
        unknown = False
        for directory in installed:
            flag = flags.get(directory[len(self._root) + 1 :])
            if flag is None:
                unknown = True
            else:
                known[directory] = flag
        development = {directory for directory, flag in known.items() if flag}
        if unknown:
            development |= {directory for directory in self._by_tree(installed) if directory not in known}
        return development

    def _flags_of_lockfile(self) -> dict[str, bool]:
        for name in LOCKFILES:
            lockfile = self._json(f"{self._root}/{name}")
            packages = _locked(lockfile)
            if packages:
                return {path: bool(entry.get("dev")) for path, entry in packages.items()}
            if isinstance(lockfile.get("dependencies"), dict):
                return dict(_flags_of_version_1(lockfile["dependencies"], "node_modules", 0))
        return {}

    def _by_tree(self, installed: Mapping[ImagePath, _Installed]) -> set[ImagePath]:
        manifest = self._json(f"{self._root}/package.json")
        if not manifest:
            return set()
        members = self._workspace_members(installed)
        production = self._closure(
            [
                (self._root, _names(manifest.get("dependencies"), manifest.get("optionalDependencies"))),
                (self._root, _peers(manifest)),
                *((directory, _needs(member)) for directory, member in members.items()),
            ],
            installed,
        )
        development = self._closure(
            [
                (self._root, _names(manifest.get("devDependencies"))),
                *(
                    (directory, _names(member.get("devDependencies")))
                    for directory, member in members.items()
                ),
            ],
            installed,
        )
        return development - production

    def _workspace_members(
        self, installed: Mapping[ImagePath, _Installed]
    ) -> dict[ImagePath, Mapping[str, Any]]:
        """Manifests of the workspaces: links in the outermost ``node_modules`` that lead outside of any."""
        fs = self._fs
        members: dict[ImagePath, Mapping[str, Any]] = {}
        top = f"{self._root}/node_modules"
        for name in fs.listdir(top):
            names = [f"{name}/{child}" for child in fs.listdir(f"{top}/{name}")] if name[0] == "@" else [name]
            for link in names:
                directory = self._real(f"{top}/{link}")
                if directory and MODULES not in directory and directory not in installed:
                    manifest = self._json(f"{directory}/package.json")
                    if manifest:
                        members[directory] = manifest
        return members

    def _closure(
        self, starts: Iterable[tuple[ImagePath, list[str]]], installed: Mapping[ImagePath, _Installed]
    ) -> set[ImagePath]:
        """Package directories that Node's look-up reaches from the names that the starts need."""
        reached: set[ImagePath] = set()
        queue = list(starts)
        while queue:
            directory, names = queue.pop()
            for name in names:
                found = self._look_up(directory, name)
                if found is None or found in reached:
                    continue
                reached.add(found)
                package = installed.get(found)
                manifest = package.manifest if package else self._json(f"{found}/package.json")
                queue.append((found, _needs(manifest)))
        return reached

    def _look_up(self, directory: ImagePath, name: str) -> ImagePath | None:
        """Where ``require(name)`` from a file of ``directory`` leads, up to and including the project."""
        if not name or name[0] in "./" or "/../" in f"{name}/":
            return None
        while len(directory) >= len(self._root):
            if not directory.endswith("/node_modules"):
                found = self._real(f"{directory}/node_modules/{name}")
                if found:
                    return found
            if not directory:
                break
            directory = directory[: directory.rindex("/")]
        return None

    def _real(self, path: ImagePath) -> ImagePath | None:
        """The directory that a path leads to through links (pnpm, workspaces), or None."""
        try:
            found = self._fs.resolve(path)
        except (LayerLensError, OSError):
            return None
        return found if self._fs.is_dir(found) else None

    def _json(self, path: ImagePath) -> dict[str, Any]:
        """An object from a JSON file; empty where there is none, with a diagnostic where it is broken."""
        if not self._fs.exists(path):
            return {}
        text = bounded_read(self._fs, path, self._diagnostics)
        if text is None:
            return {}
        try:
            value = loads(text)
        except (ValueError, RecursionError) as error:
            self._diagnostics.append(Diagnostic("warning", "broken-metadata", f"is not JSON: {error}", path))
            return {}
        if not isinstance(value, dict):
            self._diagnostics.append(Diagnostic("warning", "broken-metadata", "is not a JSON object", path))
            return {}
        return value


def _locked(lockfile: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """``packages`` of a lockfile of version 2 or 3, by path relative to the project, links left out."""
    packages = lockfile.get("packages")
    if not isinstance(packages, dict):
        return {}
    return {
        path: entry
        for path, entry in packages.items()
        if path and isinstance(entry, dict) and not entry.get("link")
    }


def _flags_of_version_1(
    dependencies: Mapping[str, Any], below: str, depth: int
) -> Iterator[tuple[str, bool]]:
    """Development flags of a version 1 lockfile, whose tree nests as ``node_modules`` does."""
    for name, entry in dependencies.items():
        if isinstance(entry, dict):
            path = f"{below}/{name}"
            yield path, bool(entry.get("dev"))
            nested = entry.get("dependencies")
            if isinstance(nested, dict) and depth < 64:
                yield from _flags_of_version_1(nested, f"{path}/node_modules", depth + 1)


def _needs(manifest: Mapping[str, Any]) -> list[str]:
    """Names that a package needs when it runs: dependencies, optional ones, peers that are not optional."""
    return _names(manifest.get("dependencies"), manifest.get("optionalDependencies")) + _peers(manifest)


def _peers(manifest: Mapping[str, Any]) -> list[str]:
    meta = manifest.get("peerDependenciesMeta")
    optional = {
        name
        for name, value in (meta.items() if isinstance(meta, dict) else ())
        if isinstance(value, dict) and value.get("optional")
    }
    return [name for name in _names(manifest.get("peerDependencies")) if name not in optional]


def _names(*groups: object) -> list[str]:
    return [name for group in groups if isinstance(group, dict) for name in group]


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


ecosystem = Node()
