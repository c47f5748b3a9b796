"""Python distributions: wheels, eggs and distutils installs, wherever they lie.

A distribution is known by its metadata beside the modules it installed: ``NAME-VERSION.dist-info`` (PyPA
"Recording installed projects": ``METADATA``, ``RECORD``), ``NAME-VERSION.egg-info`` as a folder
(``PKG-INFO``, ``top_level.txt``, ``installed-files.txt``, setuptools' formats) or a single file (distutils,
Debian), or an ``.egg`` folder with ``EGG-INFO``. The folder it lies in is its *site*: site-packages, Debian's
dist-packages, ``--user`` and virtual environments alike, or any target of ``pip install --target``.

What belongs to one distribution alone is owned as a directory, so that bytecode written later belongs too;
what several share (namespace packages as ``google/``) is owned file by file, with each module's bytecode.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from posixpath import normpath
from typing import TYPE_CHECKING

from layerlens.ecosystems import bounded_read
from layerlens.model import Diagnostic, ImageConfig, ImagePath, Package

if TYPE_CHECKING:
    from layerlens.ecosystems import ImageView
    from layerlens.ecosystems._python_needs import PythonExplorer
    from layerlens.filesystem import Filesystem

# Installers and build backends, by normalised name (PyPA "Name normalization"); a program that runs does not
# need them. Sources: the PyPA's project list, and each project's own summary on the package index.
BUILD_TOOLS = """
    pip setuptools wheel build virtualenv pipenv poetry poetry-core poetry-plugin-export pdm pdm-backend uv
    hatch hatchling flit flit-core installer pyproject-hooks distlib cython meson ninja cmake meson-python
    scikit-build scikit-build-core maturin setuptools-rust setuptools-scm setuptools-git-versioning pip-tools
    pipx twine auditwheel cibuildwheel conan conda mercurial
"""
_BUILD_TOOLS = frozenset(BUILD_TOOLS.split())

_SITE_NAMES = ("site-packages", "dist-packages")


@dataclass(slots=True)
class _Distribution:
    """One distribution as it was found, before it is settled what it alone owns."""

    site: ImagePath
    location: ImagePath
    """The metadata file."""
    name: str
    version: str
    license: str | None
    requires: tuple[str, ...]
    inside: list[str] = field(default_factory=list)
    """Owned files below the site, relative to it."""
    outside: list[ImagePath] = field(default_factory=list)
    """Owned files elsewhere (scripts, data), absolute."""
    roots: list[ImagePath] = field(default_factory=list)
    """Directories that are known to be its own."""


class Python:
    """Distributions that pip, uv, setuptools or distutils installed."""

    name = "python"

    endings: tuple[str, ...] = (
        "/METADATA",
        "/RECORD",
        "/PKG-INFO",
        "/top_level.txt",
        "/installed-files.txt",
        ".egg-info",
    )

    def wants(self, path: ImagePath) -> bool:
        """Metadata and lists of installed files."""
        return path.endswith(self.endings)

    def packages(
        self, fs: Filesystem, config: ImageConfig, diagnostics: list[Diagnostic]
    ) -> Iterable[Package]:
        """Distributions by site, then by metadata path; those vendored inside another belong to that one."""
        sites: dict[ImagePath, list[_Distribution]] = {}
        for distribution in _distributions(fs, diagnostics):
            sites.setdefault(distribution.site, []).append(distribution)
        claimed: set[ImagePath] = set()
        found: list[Package] = []
        for site in sorted(sites, key=lambda site: (site.count("/"), site)):
            if _lies_in(site, claimed):
                continue
            installed = _packages_of_site(fs, site, sites[site])
            for package in installed:
                claimed.update(package.roots)
            found += installed
        return found

    def explorer(self, image: ImageView) -> PythonExplorer:
        """What Python programs need."""
        from layerlens.ecosystems._python_needs import PythonExplorer

        diagnostics: list[Diagnostic] = []  # told already when the image was opened
        return PythonExplorer(image, lambda: self.packages(image.fs, image.config, diagnostics), _BUILD_TOOLS)


def _lies_in(path: ImagePath, roots: set[ImagePath]) -> bool:
    """Whether a directory is one of the roots or below one; never by way of a nested site-packages."""
    while path and path != "/":
        if path in roots:
            return True
        path = path[: path.rindex("/")]
    return False


def _distributions(fs: Filesystem, diagnostics: list[Diagnostic]) -> Iterator[_Distribution]:
    for path in fs.named("METADATA"):
        folder = path[: -len("/METADATA")]
        if folder.endswith(".dist-info"):
            yield from _from_dist_info(fs, folder, diagnostics)
    for path in fs.named("PKG-INFO"):
        folder = path[: -len("/PKG-INFO")]
        if folder.endswith((".egg-info", "/EGG-INFO")):
            yield from _from_egg_info(fs, folder, diagnostics)
    for name in _SITE_NAMES:
        for site in fs.directories_named(name):
            for child in fs.listdir(site):
                path = f"{site}/{child}"
                if child.endswith(".egg-info") and fs.is_file(path):
                    yield from _from_egg_file(fs, site, path, diagnostics)
                elif child.endswith(".dist-info") and not fs.exists(f"{path}/METADATA"):
                    diagnostics.append(
                        Diagnostic(
                            "info", "broken-metadata", "has no METADATA, so it is no distribution", path
                        )
                    )


def _from_dist_info(
    fs: Filesystem, folder: ImagePath, diagnostics: list[Diagnostic]
) -> Iterator[_Distribution]:
    location = f"{folder}/METADATA"
    distribution = _described(fs, _parent(folder), location, folder, diagnostics)
    if distribution is None:
        return
    distribution.roots.append(folder)
    record = f"{folder}/RECORD"
    listing = bounded_read(fs, record, diagnostics) if fs.is_file(record) else None
    if listing is None:
        # "RECORD may be absent" (PyPA): Debian removes it, as do image builders that save space.
        _claim_top_level(fs, distribution, f"{folder}/top_level.txt", diagnostics)
    else:
        _claim(distribution, _recorded(listing), distribution.site)
    yield distribution


def _from_egg_info(
    fs: Filesystem, folder: ImagePath, diagnostics: list[Diagnostic]
) -> Iterator[_Distribution]:
    location = f"{folder}/PKG-INFO"
    if folder.endswith("/EGG-INFO"):  # an egg is a folder of its own, modules and metadata together
        egg = _parent(folder)
        if not egg.endswith(".egg"):
            return
        distribution = _described(fs, _parent(egg), location, egg, diagnostics)
        if distribution is not None:
            distribution.roots.append(egg)
            yield distribution
        return
    distribution = _described(fs, _parent(folder), location, folder, diagnostics)
    if distribution is None:
        return
    distribution.roots.append(folder)
    installed = f"{folder}/installed-files.txt"
    if fs.is_file(installed):
        listing = bounded_read(fs, installed, diagnostics) or ""
        _claim(distribution, (line.strip() for line in listing.splitlines()), folder)
    elif _is_site(distribution.site):
        _claim_top_level(fs, distribution, f"{folder}/top_level.txt", diagnostics)
    # Elsewhere it is what `setup.py develop` leaves beside the project's own sources: nothing was installed.
    yield distribution


def _from_egg_file(
    fs: Filesystem, site: ImagePath, path: ImagePath, diagnostics: list[Diagnostic]
) -> Iterator[_Distribution]:
    distribution = _described(fs, site, path, path, diagnostics)
    if distribution is not None:
        distribution.inside.append(path[len(site) + 1 :])
        module = distribution.name.replace("-", "_")
        _claim_module(fs, distribution, module)
        yield distribution


def _described(
    fs: Filesystem, site: ImagePath, location: ImagePath, folder: ImagePath, diagnostics: list[Diagnostic]
) -> _Distribution | None:
    """A distribution with what its core metadata says, or None with a diagnostic."""
    text = bounded_read(fs, location, diagnostics)
    if text is None:
        return None
    name = version = ""
    licenses: dict[str, str] = {}
    requires: list[str] = []
    for line in text.split("\n"):
        if not line or line == "\r":  # the description follows (core metadata, RFC 822 headers)
            break
        key, colon, value = line.partition(":")
        if not colon or key[0] in " \t":
            continue
        if key == "Name":
            name = value.strip()
        elif key == "Version":
            version = value.strip()
        elif key == "Requires-Dist":
            requires.append(value.strip())
        elif key in ("License", "License-Expression"):
            licenses[key] = value.strip()
    if not name:
        guessed, _, rest = folder.rsplit("/", 1)[1].rpartition(".")[0].partition("-")
        diagnostics.append(
            Diagnostic(
                "warning", "broken-metadata", f"has no Name; taken for {guessed} by its path", location
            )
        )
        name, version = guessed, version or rest.partition("-")[0]
    license_name = licenses.get("License-Expression") or licenses.get("License")
    return _Distribution(
        site, location, name, version, license_name if license_name != "UNKNOWN" else None, tuple(requires)
    )


def _recorded(listing: str) -> Iterator[str]:
    """First column of a RECORD (CSV, PEP 376): the path."""
    if '"' in listing:
        import csv

        for row in csv.reader(line for line in listing.splitlines() if "\0" not in line):
            if row and row[0]:
                yield row[0]
        return
    for line in listing.split("\n"):
        path = line.split(",", 1)[0].strip()
        if path:
            yield path


def _claim(distribution: _Distribution, listed: Iterable[str], folder: ImagePath) -> None:
    """Adds listed files, relative to ``folder`` or absolute, inside the site or outside of it."""
    site = distribution.site
    direct = folder == site
    below = f"{site}/"
    for path in listed:
        if direct and path[0] not in "./" and "/../" not in path:
            distribution.inside.append(path)
            continue
        full = normpath(path if path[0] == "/" else f"{folder}/{path}")
        if full.startswith(below):
            distribution.inside.append(full[len(below) :])
        elif full.startswith("/"):
            distribution.outside.append(full.replace("//", "/", 1) if full.startswith("//") else full)


def _claim_top_level(
    fs: Filesystem, distribution: _Distribution, path: ImagePath, diagnostics: list[Diagnostic]
) -> None:
    listing = bounded_read(fs, path, diagnostics) if fs.is_file(path) else None
    if listing is None:
        _claim_module(fs, distribution, distribution.name.replace("-", "_").lower())
        return
    for line in listing.splitlines():
        module = line.strip()
        if module and "/.." not in f"/{module}":
            _claim_module(fs, distribution, module)


def _claim_module(fs: Filesystem, distribution: _Distribution, module: str) -> None:
    """Claims a top-level package or module, pure or compiled, where there is one of that name."""
    site = distribution.site
    path = f"{site}/{module}"
    if fs.is_dir(path):
        distribution.inside.append(f"{module}/__init__.py")
    elif fs.exists(f"{path}.py"):
        distribution.inside.append(f"{module}.py")
    else:
        distribution.inside += [child for child in fs.listdir(site) if child.startswith(f"{module}.")]


def _packages_of_site(fs: Filesystem, site: ImagePath, distributions: list[_Distribution]) -> list[Package]:
    claims: dict[str, set[int]] = {}
    """By top-level directory of the site: the distributions with files in it."""
    for index, distribution in enumerate(distributions):
        for path in distribution.inside:
            head, slash, _ = path.partition("/")
            if slash:
                claims.setdefault(head, set()).add(index)
    bytecode: dict[str, list[str]] = {}
    packages = []
    for distribution in sorted(distributions, key=lambda distribution: distribution.location):
        roots = dict.fromkeys(distribution.roots)
        paths = dict.fromkeys(distribution.outside)
        for path in distribution.inside:
            head, slash, _ = path.partition("/")
            if slash and head != "__pycache__" and len(claims[head]) == 1:
                roots[f"{site}/{head}"] = None
            else:
                paths[f"{site}/{path}"] = None
                if path.endswith(".py"):
                    paths.update(dict.fromkeys(_bytecode_of(fs, f"{site}/{path}", bytecode)))
        packages.append(
            Package(
                ecosystem="python",
                name=distribution.name,
                version=distribution.version,
                location=distribution.location,
                paths=tuple(_real(fs, paths)),
                roots=tuple(roots),
                category=_category_of(distribution),
                license=distribution.license,
                requires=distribution.requires,
            )
        )
    return packages


def _real(fs: Filesystem, paths: Iterable[ImagePath]) -> Iterator[ImagePath]:
    """The paths with their directories resolved: ``lib64`` of a virtual environment is a link to ``lib``."""
    real: dict[str, str] = {}
    for path in paths:
        head, _, tail = path.rpartition("/")
        if head not in real:
            real[head] = fs.resolve_parent(f"{head}/x")[:-1]
        yield real[head] + tail


def _bytecode_of(fs: Filesystem, path: ImagePath, listed: dict[str, list[str]]) -> Iterator[ImagePath]:
    """The ``__pycache__/x.*.pyc`` files of module ``x.py`` (PEP 3147)."""
    folder, _, name = path.rpartition("/")
    cache = f"{folder}/__pycache__"
    if cache not in listed:
        listed[cache] = fs.listdir(cache)
    stem = f"{name[:-3]}."
    for child in listed[cache]:
        if child.startswith(stem) and child.endswith(".pyc"):
            yield f"{cache}/{child}"


def _category_of(distribution: _Distribution) -> str | None:
    if distribution.name.lower().replace("_", "-").replace(".", "-") in _BUILD_TOOLS:
        return "compilers"
    if not _is_site(distribution.site) and distribution.location.endswith(".egg-info/PKG-INFO"):
        return "app"  # the project's own sources, made importable in place
    return None


def _is_site(folder: ImagePath) -> bool:
    return folder.endswith(_SITE_NAMES)


def _parent(path: ImagePath) -> ImagePath:
    return path[: path.rindex("/")] or "/"


ecosystem = Python()
