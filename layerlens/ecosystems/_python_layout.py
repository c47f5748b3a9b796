"""Where a Python interpreter looks for modules: its prefix, its standard library, its sites, ``sys.path``.

What CPython does at every start, done over the image: ``Modules/getpath.py`` (prefix and landmarks, ``pyvenv.cfg``),
``Lib/site.py`` (site directories, ``.pth`` files, ``sitecustomize``), ``Doc/using/cmdline.rst`` (options and
environment), ``importlib.machinery.FileFinder`` (which file a name is). Debian's own ``site.py`` differs: Debian
Python policy, section 2.5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from posixpath import dirname, normpath
from typing import TYPE_CHECKING

from layerlens.errors import LayerLensError
from layerlens.model import ImagePath
from layerlens.patterns import regex

if TYPE_CHECKING:
    from layerlens.filesystem import Filesystem

PROGRAM = regex(r"python(?:\d(?:\.\d+)?)?(?:d|t|m)?")
"""Names of an interpreter: ``python``, ``python3``, ``python3.11``."""

_VERSIONED = regex(r"python(\d)\.(\d+)")
_LIBRARIES = ("lib", "lib64")
"""``sys.platlibdir`` of the distributions: lib, and Fedora's lib64."""
_PTH_LIMIT = 1 << 20


@dataclass(slots=True)
class Interpreter:
    """One interpreter as it is called; paths are as it names them, links not followed."""

    called: ImagePath
    program: ImagePath
    """The binary, canonical."""
    version: tuple[int, int]
    prefix: ImagePath
    """``sys.base_prefix``: where the standard library is."""
    stdlib: list[ImagePath] = field(default_factory=list)
    """Directories (and the zip) of the standard library, in the order of ``sys.path``."""
    sites: list[ImagePath] = field(default_factory=list)
    """Site directories that exist, in the order of ``sys.path``."""
    landmarks: list[tuple[ImagePath, str]] = field(default_factory=list)
    """Files and directories that it must find at start, and what for."""
    pths: list[ImagePath] = field(default_factory=list)
    """``.pth`` files, which site.py reads and runs."""
    added: list[ImagePath] = field(default_factory=list)
    """Directories that ``.pth`` files and editable installs add, the app's own mostly."""
    pth_imports: list[tuple[ImagePath, str]] = field(default_factory=list)
    """Lines of ``.pth`` files that are run, each with its file."""

    @property
    def tag(self) -> str:
        """``sys.implementation.cache_tag`` (PEP 3147)."""
        return f"cpython-{self.version[0]}{self.version[1]}"


def find_interpreter(
    fs: Filesystem, called: ImagePath, program: ImagePath, env: Mapping[str, str], home: str, user_site: bool
) -> Interpreter | None:
    """The interpreter that runs when ``called`` is executed; None where no standard library is found for it.

    ``env`` is empty for ``-E``; ``home`` is the process's home directory and ``user_site`` false for ``-s``.
    """
    venv = _pyvenv(fs, called)
    start = program
    if venv is not None and venv[1].get("home"):
        start = fs.follow(f"{venv[1]['home']}/{program.rpartition('/')[2]}") or program
    version = _version_of(fs, called, program)
    found = _prefix_of(fs, start, version, env.get("PYTHONHOME", "").split(":")[0])
    if found is None:
        return None
    prefix, version, library = found
    name = f"python{version[0]}.{version[1]}"
    interpreter = Interpreter(called, program, version, prefix)
    stdlib = f"{prefix}/{library}/{name}"
    archive = f"{prefix}/{library}/python{version[0]}{version[1]}.zip"
    interpreter.stdlib = [path for path in (archive, stdlib, f"{stdlib}/lib-dynload") if fs.exists(path)]
    interpreter.landmarks.append((f"{stdlib}/os.py", "landmark of the standard library (getpath.py)"))
    if fs.is_dir(f"{stdlib}/lib-dynload"):
        interpreter.landmarks.append((f"{stdlib}/lib-dynload", "landmark of extension modules (getpath.py)"))
    if venv is not None:
        interpreter.landmarks.append((venv[0], "pyvenv.cfg of the virtual environment (PEP 405)"))
    _add_sites(fs, interpreter, venv, env, home, user_site)
    return interpreter


def _pyvenv(fs: Filesystem, called: ImagePath) -> tuple[ImagePath, dict[str, str]] | None:
    """The ``pyvenv.cfg`` beside the program or one directory up, and what it says."""
    for folder in (dirname(called), dirname(dirname(called))):
        path = f"{folder.rstrip('/')}/pyvenv.cfg"
        if fs.is_file(path):
            pairs = (line.partition("=") for line in _text(fs, path).splitlines())
            return path, {key.strip().lower(): value.strip() for key, equals, value in pairs if equals}
    return None


def _version_of(fs: Filesystem, called: ImagePath, program: ImagePath) -> tuple[int, int] | None:
    for path in (program, called, fs.resolve_parent(called)):
        found = _VERSIONED.search(path.rpartition("/")[2])
        if found:
            return int(found[1]), int(found[2])
    return None


def _prefix_of(
    fs: Filesystem, program: ImagePath, version: tuple[int, int] | None, home: str
) -> tuple[ImagePath, tuple[int, int], str] | None:
    """(prefix, version, library directory): PYTHONHOME, else upwards from the program, else where it is built for."""
    candidates = [home] if home else []
    folder = dirname(program)
    while folder and folder != "/":
        candidates.append(folder)
        folder = dirname(folder)
    candidates += ["/usr/local", "/usr"]
    for prefix in candidates:
        for library in _LIBRARIES:
            for found in _versions_in(fs, f"{prefix}/{library}", version):
                name = f"python{found[0]}.{found[1]}"
                if fs.is_file(f"{prefix}/{library}/{name}/os.py") or fs.is_file(
                    f"{prefix}/{library}/{name}/os.pyc"
                ):
                    return prefix, found, library
    return None


def _versions_in(fs: Filesystem, folder: ImagePath, version: tuple[int, int] | None) -> list[tuple[int, int]]:
    if version is not None:
        return [version]
    found = (_VERSIONED.fullmatch(name) for name in fs.listdir(folder))
    return sorted(((int(match[1]), int(match[2])) for match in found if match), reverse=True)


def _add_sites(
    fs: Filesystem,
    interpreter: Interpreter,
    venv: tuple[ImagePath, dict[str, str]] | None,
    env: Mapping[str, str],
    home: str,
    user_site: bool,
) -> None:
    """Site directories in site.py's order: the user's, the virtual environment's, the system's; with their .pth."""
    name = f"python{interpreter.version[0]}.{interpreter.version[1]}"
    system = venv is None or venv[1].get("include-system-site-packages", "").lower() == "true"
    candidates: list[ImagePath] = []
    if user_site and system and not env.get("PYTHONNOUSERSITE"):
        base = env.get("PYTHONUSERBASE") or f"{home.rstrip('/')}/.local"
        candidates.append(f"{base}/lib/{name}/site-packages")
    if venv is not None:
        root = dirname(venv[0])
        candidates += [f"{root}/{library}/{name}/site-packages" for library in _LIBRARIES]
    if system:
        if interpreter.prefix == "/usr":  # Debian Python policy 2.5: what pip installs, what dpkg does
            candidates += [f"/usr/local/lib/{name}/dist-packages", "/usr/lib/python3/dist-packages"]
        for library in _LIBRARIES:
            folder = f"{interpreter.prefix}/{library}/{name}"
            candidates += [f"{folder}/site-packages", f"{folder}/dist-packages"]
    seen: set[ImagePath] = set()
    for site in candidates:
        real = fs.follow(site)
        if real is not None and fs.is_dir(site) and real not in seen:
            seen.add(real)
            interpreter.sites.append(site)
    for site in interpreter.sites:
        _read_pths(fs, interpreter, site)


def _read_pths(fs: Filesystem, interpreter: Interpreter, site: ImagePath) -> None:
    """site.addsitedir: each line of a ``.pth`` is a directory, or code where it begins with ``import``."""
    for name in fs.listdir(site):
        path = f"{site}/{name}"
        if not name.endswith(".pth") or name.startswith(".") or not fs.is_file(path):
            continue
        interpreter.pths.append(path)
        for line in _text(fs, path).splitlines():
            if line.startswith(("import ", "import\t")):
                interpreter.pth_imports.append((path, line))
                _read_editable(fs, interpreter, site, line)
            elif line.strip() and not line.startswith("#"):
                folder = normpath(line.strip() if line.startswith("/") else f"{site}/{line.strip()}")
                if fs.exists(folder) and folder not in interpreter.added:
                    interpreter.added.append(folder)


_EDITABLE = regex(r"import (__editable___\w+)")
_MAPPED = regex(r"'[\w.]+': ?'(/[^'\n]+)'")


def _read_editable(fs: Filesystem, interpreter: Interpreter, site: ImagePath, line: str) -> None:
    """setuptools' editable finders (``setuptools.command.editable_wheel``) map packages to the project's folders."""
    found = _EDITABLE.match(line)
    path = f"{site}/{found[1]}.py" if found else ""
    if found and fs.is_file(path):
        for mapped in _MAPPED.findall(_text(fs, path)):
            folder = dirname(normpath(mapped))
            if fs.is_dir(folder) and folder not in interpreter.added:
                interpreter.added.append(folder)


def _text(fs: Filesystem, path: ImagePath) -> str:
    try:
        return fs.read_text(path, _PTH_LIMIT)
    except (LayerLensError, OSError):
        return ""


# -- which file a name is ------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class Module:
    """A module that can be imported: its file, and where its submodules lie."""

    name: str
    file: ImagePath | None
    """None for a namespace package (PEP 420)."""
    folders: tuple[ImagePath, ...]
    """``__path__``; empty for what is no package."""
    entry: ImagePath
    """The entry of ``sys.path`` that has it (of a namespace, the first)."""


class Folder:
    """What a directory holds, as ``FileFinder`` sees it."""

    __slots__ = ("files", "folders")

    def __init__(self, fs: Filesystem, path: ImagePath, tag: str) -> None:
        self.files: dict[str, str] = {}
        """Module name → file name, the one that the finder prefers."""
        self.folders: set[str] = set()
        ranks: dict[str, int] = {}
        real = fs.follow(path)
        children = fs.children.get("" if real == "/" else real, {}) if real is not None else {}
        for child in sorted(children):
            stem, _, rest = child.partition(".")
            rank = _rank(rest, tag)
            if rank is None:
                if not rest and fs.is_dir(f"{path}/{child}"):
                    self.folders.add(child)
            elif rank < ranks.get(stem, 9):
                ranks[stem] = rank
                self.files[stem] = child


def _rank(rest: str, tag: str) -> int | None:
    """Place among the suffixes of FileFinder: extension modules, sources, bytecode (importlib.machinery)."""
    if rest == "py":
        return 3
    if rest == "pyc":
        return 4
    if rest == "so":
        return 2
    if rest.endswith(".so"):
        if rest.startswith(tag):
            return 0
        return 1 if rest == "abi3.so" else None
    return None


class Finder:
    """Finds modules on one ``sys.path``."""

    def __init__(
        self,
        fs: Filesystem,
        entries: Iterable[ImagePath],
        tag: str,
        folders: dict[tuple[ImagePath, str], Folder],
        extends_path: Callable[[ImagePath], bool] = lambda path: False,
    ) -> None:
        self.fs = fs
        self._extends_path = extends_path
        self.entries = tuple(dict.fromkeys(entries))
        self._tag = tag
        self._folders = folders
        self._found: dict[str, Module | None] = {}

    def folder(self, path: ImagePath) -> Folder:
        """The listing of a directory; shared by every finder of the image."""
        key = (path, self._tag)
        found = self._folders.get(key)
        if found is None:
            found = self._folders[key] = Folder(self.fs, path, self._tag)
        return found

    def find(self, name: str) -> Module | None:
        """The module of an absolute dotted name; None where nothing on the path has it."""
        if name in self._found:
            return self._found[name]
        self._found[name] = None
        parent, _, last = name.rpartition(".")
        if not last or name.count(".") > 40:
            return None
        if parent:
            above = self.find(parent)
            where: Iterable[tuple[ImagePath, ImagePath]] = (
                () if above is None else ((folder, above.entry) for folder in above.folders)
            )
        else:
            where = ((entry, entry) for entry in self.entries)
        found = self._found[name] = self._look(name, last, where)
        return found

    def _look(self, name: str, last: str, where: Iterable[tuple[ImagePath, ImagePath]]) -> Module | None:
        portions: list[ImagePath] = []
        first = ""
        for folder, entry in where:
            listing = self.folder(folder)
            if last in listing.folders:
                inside = f"{folder.rstrip('/')}/{last}"
                init = self.folder(inside).files.get("__init__")
                if init is not None:
                    init = f"{inside}/{init}"
                    folders = (inside,) if "." in name else self._spread(name, inside, init)
                    return Module(name, init, folders, entry)
                if last not in listing.files:
                    portions.append(inside)
                    first = first or entry
                    continue
            file = listing.files.get(last)
            if file is not None:
                return Module(name, f"{folder.rstrip('/')}/{file}", (), entry)
        return Module(name, None, tuple(portions), first) if portions else None

    def _spread(self, name: str, inside: ImagePath, init: ImagePath) -> tuple[ImagePath, ...]:
        """Every folder of a top-level package's name, where its source says so (pkgutil.extend_path)."""
        folders = [
            f"{entry.rstrip('/')}/{name}" for entry in self.entries if name in self.folder(entry).folders
        ]
        if len(folders) < 2 or not self._extends_path(init):
            return (inside,)
        return tuple(dict.fromkeys((inside, *folders)))

    def below(self, prefix: str) -> Iterator[Module]:
        """Every module whose dotted name begins with ``prefix``, one level deep, sorted by name."""
        parent, dot, start = prefix.rpartition(".")
        if dot:
            above = self.find(parent)
            folders = above.folders if above is not None else ()
        elif len(start) < 3:
            return  # nearly everything begins so
        else:
            folders = self.entries
        names: set[str] = set()
        for folder in folders:
            listing = self.folder(folder)
            names.update(name for name in (*listing.files, *listing.folders) if name.startswith(start))
        for name in sorted(names - {"__init__", "__main__", "__pycache__"}):
            module = self.find(f"{parent}{dot}{name}")
            if module is not None and (module.file is not None or dot):
                yield module
