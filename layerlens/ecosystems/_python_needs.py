"""What Python programs need: the explorer behind :mod:`layerlens.ecosystems.python`.

A command line of an interpreter is one *run*: an interpreter, its ``sys.path``, a program. From the program the
imports are followed module by module, each found as that run would find it. Two strengths are told apart:

- a module is *imported* where a chain of imports leads to it, and merely *shipped* where its distribution brought it;
- an import is *firm* where loading the module always runs it, and loose in a function, under ``try`` or ``if``.

All are followed, for whatever is in the image may be used, with three exceptions. What stands in for an import that
the standard library satisfies (``except ImportError:``) is not imported. To the standard library's own development
modules (:data:`DEVELOPMENT`) only firm imports lead. To build tools and test runners only a chain of firm imports, or
an import by a distribution that declares the tool as its requirement.
What the application's own sources import is followed in any case.
"""

from __future__ import annotations

import posixpath
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from layerlens.ecosystems import UNNEEDED_CATEGORIES, Explorer, ImageView
from layerlens.ecosystems._python_commands import (
    IN_CWD,
    MODULE_VARIABLES,
    Invocation,
    folders_of,
    named_modules,
    parse,
)
from layerlens.ecosystems._python_distributions import (
    Distribution,
    Distributions,
    normalized,
    pick,
    point_module,
)
from layerlens.ecosystems._python_imports import (
    PYTHON,
    Facts,
    Import,
    bound_names,
    offered_languages,
    primary_tag,
    read_exactly,
    read_quickly,
)
from layerlens.ecosystems._python_layout import PROGRAM, Finder, Folder, Interpreter, Module, find_interpreter
from layerlens.ecosystems.arguments import SHARED
from layerlens.errors import LayerLensError
from layerlens.model import Certainty, Command, Edge, EntryType, ImagePath, Package

START_MODULES: tuple[str, ...] = (
    # `python3.11 -v -c pass`: frozen into the program or not, all have their file in the standard library, and what
    # finds them frozen still looks for it.
    *(
        "encodings",
        "codecs",
        "io",
        "abc",
        "site",
        "os",
        "stat",
        "posixpath",
        "genericpath",
        "_collections_abc",
    ),
    *("_sitebuiltins", "zipimport", "importlib", "importlib._bootstrap", "importlib._bootstrap_external"),
)
RUN_MODULE: tuple[str, ...] = ("runpy", "pkgutil", "importlib.util", "importlib.machinery")
"""What ``-m``, a directory or a zip needs besides (Modules/main.c, Lib/runpy.py)."""
SITE_MODULES: tuple[str, ...] = ("sitecustomize", "usercustomize")
"""What site.py tries to import at every start."""

COMPUTED: dict[str, tuple[str, ...]] = {
    # Module of the standard library: what it imports by names that its source computes, or from C (CPython 3.11,
    # Lib/ and Modules/ of each). One that ends with "." or "_" stands for all modules that begin so.
    "encodings": ("encodings.",),
    "sysconfig": ("_sysconfigdata_",),
    "dbm": ("dbm.",),
    "xml.sax": ("xml.sax.expatreader",),
    "xml.dom.domreg": ("xml.dom.minidom",),
    "datetime": ("_strptime",),
    "_datetime": ("_strptime",),
    "time": ("_strptime",),
    "pickle": ("_compat_pickle",),
    "_pickle": ("_compat_pickle", "copyreg", "functools"),
    "_decimal": ("numbers", "collections"),
    "_elementtree": ("xml.etree.ElementPath", "copy", "pyexpat"),
    "_asyncio": (
        *("asyncio.base_futures", "asyncio.base_tasks", "asyncio.coroutines", "asyncio.exceptions"),
        *("asyncio.events", "asyncio.format_helpers", "traceback", "weakref"),
    ),
    "_zoneinfo": ("zoneinfo._tzpath", "zoneinfo._common"),
    "_socket": ("selectors",),
    "_sqlite3": ("sqlite3.dump",),
    "_lsprof": ("enum",),
    "_ctypes": ("ctypes._endian",),
    "_json": ("json.decoder", "json.encoder"),
    "_csv": ("io", "re"),
    "_io": ("locale", "_pyio"),
    "multiprocessing": ("multiprocessing.",),
    "concurrent.futures": ("concurrent.futures.",),
    "zoneinfo": ("tzdata", "tzdata."),
    "logging.config": ("logging.handlers",),
    "importlib.resources": ("importlib.resources.", "importlib.readers"),
    "importlib.metadata": ("importlib.metadata.",),
    "readline": ("rlcompleter",),
    "unittest": ("unittest.",),
    "curses": ("_curses", "_curses_panel"),
    "email": ("email.",),
    "ctypes.util": ("struct", "subprocess", "tempfile"),
}

DATA: dict[str, tuple[tuple[ImagePath, str], ...]] = {
    # Module: the directories and files that it reads and nothing names as a whole.
    "zoneinfo": (("/usr/share/zoneinfo", "zoneinfo reads time zones by name (PEP 615)"),),
    "dateutil.tz": (("/usr/share/zoneinfo", "dateutil.tz reads time zones by name"),),
    "mimetypes": tuple(
        (path, "mimetypes.knownfiles")
        for path in (
            *("/etc/mime.types", "/etc/httpd/mime.types", "/etc/httpd/conf/mime.types"),
            *("/etc/apache/mime.types", "/etc/apache2/mime.types"),
        )
    ),
}
_NOT_TIME_ZONES = frozenset(["posix", "right"])
"""Copies of the time zones without and with leap seconds, which no program asks for by accident (tzselect(8))."""

DEVELOPMENT = frozenset(
    (
        *("unittest", "doctest", "pydoc", "pydoc_data", "distutils", "test", "lib2to3"),
        *("idlelib", "turtle", "turtledemo", "tkinter", "_tkinter", "ensurepip", "venv"),
    )
)
"""Library reference: "Development Tools", "Software Packaging and Distribution", "Graphical User Interfaces with Tk",
as far as they are large; imported by many for their own tests."""
UNCOMMON = DEVELOPMENT - {"unittest", "doctest", "pydoc", "distutils"}
"""Those of them that no program meets without importing them; the others are met by what a pickle names, say."""

_TEST_TOOLS = """
    pytest nose nose2 tox nox coverage hypothesis mock mypy mypy-extensions black ruff flake8 pylint isort pyflakes
    pycodestyle bandit pre-commit sphinx ipython ipykernel jupyter notebook jupyterlab pytest-cov pytest-asyncio
    pytest-mock pytest-xdist yapf autopep8 pyright pytype asv pydocstyle safety ipdb pudb debugpy bumpversion
"""
TEST_TOOLS = frozenset(_TEST_TOOLS.split())
"""Normalised names of distributions that test, check, format and document; by each one's summary on the index."""

_PROJECT_FILES = """
    setup.py setup.cfg conftest.py noxfile.py fabfile.py tox.ini pytest.ini mypy.ini ruff.toml .ruff.toml .flake8
    .pylintrc .coveragerc MANIFEST.in Pipfile Pipfile.lock poetry.lock uv.lock pdm.lock requirements.txt
    requirements-dev.txt dev-requirements.txt requirements-test.txt environment.yml Makefile makefile Dockerfile
    docker-compose.yml docker-compose.yaml compose.yml compose.yaml .dockerignore .gitignore .gitattributes
    .editorconfig .pre-commit-config.yaml .gitlab-ci.yml .travis.yml
"""
PROJECT_FILES = frozenset(_PROJECT_FILES.split())
"""Files at the top of a project that build, check and pack it; each tool's manual."""
PROJECT_FOLDERS = frozenset(
    ["node_modules", "__pycache__", ".git", ".github", ".venv", "venv", ".idea", ".vscode", ".tox", ".nox"]
)
"""Folders of a project that its running program does not look into."""

CATALOGUES = ("/LC_MESSAGES/django.mo", "/LC_MESSAGES/djangojs.mo")
"""Message catalogues that Django loads, of itself and of the applications made for it (Django, "Translation")."""

NOT_OF_THE_APP = (UNNEEDED_CATEGORIES - {"locale"}) | {"sources", "dependencies", "runtime"}
NOT_OF_A_DISTRIBUTION = (UNNEEDED_CATEGORIES - {"locale"}) | {"sources"}
"""Message catalogues stay: which languages are asked for, only the program's users know."""

FALLBACKS: dict[str, str] = {
    # Modules of the standard library that are imported where another is missing (PEP 399): what they replace.
    "_pydecimal": "_decimal",
    "_pydatetime": "_datetime",
}
INTERACTIVE = frozenset(("readline", "rlcompleter"))
"""For people who type at the interpreter; site, cmd, code and pdb do without (library reference)."""

LIBRARY_FOLDERS = ("/usr/local/lib", "/lib", "/usr/lib", "/lib64", "/usr/lib64")
"""Where ldconfig(8) looks, besides the multiarch folders below them."""

SHIPPED, LOOSELY, FIRMLY = range(3)
"""How a module is reached: brought by its distribution, imported on some path, or by firm imports alone."""

MAX_SOURCE = 16 << 20
"""Bytes of one source that are read."""
MAX_RUNS = 200
"""Runs of one image; one that starts more is lying."""


@dataclass(slots=True, eq=False)
class Run:
    """One way in which the image runs an interpreter."""

    interpreter: Interpreter
    finder: Finder
    command: Command
    optimize: int
    standard: frozenset[ImagePath]
    """Entries of the path that hold the standard library."""
    sites: frozenset[ImagePath]
    roots: list[ImagePath] = field(default_factory=list)
    """The application's folders."""
    told: set[str] = field(default_factory=set)
    """What was told once for the whole run."""

    @property
    def bytecode_suffix(self) -> str:
        """``.cpython-311.pyc``, ``.cpython-311.opt-2.pyc`` (PEP 488)."""
        level = f".opt-{min(self.optimize, 2)}" if self.optimize else ""
        return f".{self.interpreter.tag}{level}.pyc"


@dataclass(slots=True)
class Reached:
    """A file as one run reaches it."""

    module: Module
    imported: int
    """One of :data:`SHIPPED`, :data:`LOOSELY`, :data:`FIRMLY`."""
    program: bool = False


class PythonExplorer(Explorer):
    """Interpreters, what they import, and the files that come with it."""

    def __init__(
        self, image: ImageView, packages: Callable[[], Iterable[Package]], tools: frozenset[str]
    ) -> None:
        super().__init__(image)
        self.fs = image.fs
        self._packages = packages
        self._tools = tools | TEST_TOOLS
        self._known: Distributions | None = None
        self._runs: dict[tuple[object, ...], Run] = {}
        self._folders: dict[tuple[ImagePath, str], Folder] = {}
        self._reached: dict[ImagePath, dict[Run, Reached]] = {}
        self._asked: set[ImagePath] = set()
        self._late: dict[tuple[ImagePath, int], Run] = {}
        """Files that were asked for before a run reached them (again)."""
        self._facts: dict[tuple[ImagePath, bool], Facts] = {}
        self._bound: dict[ImagePath, frozenset[str] | None] = {}
        """What modules of the standard library bind, by file."""
        self._files: dict[tuple[Distribution, str], list[ImagePath]] = {}
        self._libraries: list[ImagePath] | None = None
        self._catalogues: list[Edge] = []
        """Django's message catalogues, which wait for the application's choice of languages."""
        self._languages: set[str] = set()
        """Primary tags of the languages that settings of the application offer."""
        self._any_language = False
        """Whether settings compute their languages."""
        self._trees: list[tuple[Run, ImagePath, ImagePath]] = []
        """Folders of the application that wait for their files: (run, what leads to it, folder)."""

    @property
    def distributions(self) -> Distributions:
        """Found at the first use: most images have an interpreter, few run it."""
        if self._known is None:
            self._known = Distributions(self.image, self._packages(), self._tools)
        return self._known

    # -- command lines ----------------------------------------------------------------------------------

    def command(self, command: Command, program: ImagePath) -> Iterator[Edge | Command]:
        """What an interpreter's command line needs."""
        name = program.rpartition("/")[2]
        called = command.argv[0].rpartition("/")[2]
        if (
            not (PROGRAM.fullmatch(name) or PROGRAM.fullmatch(called))
            or self.image.head(program)[:2] == b"#!"
        ):
            return
        invocation = parse(command.argv[1:], command.env)
        env = {} if invocation.ignores_environment else command.env
        user_site = not (invocation.no_user_site or invocation.no_site)
        interpreter = find_interpreter(self.fs, command.argv[0], program, env, self._home(command), user_site)
        if interpreter is None:
            self.image.diagnose("no-standard-library", "no standard library is found for it", program)
            return
        if invocation.no_site:
            interpreter.sites, interpreter.added, interpreter.pths, interpreter.pth_imports = [], [], [], []
        run = self._run(command, invocation, interpreter, env)
        if run is None:
            return
        yield from self._start(run, program, invocation)
        yield from self._program(run, program, invocation)
        self._trees += [(run, self._entry_file(run, program, invocation), root) for root in run.roots]

    def _home(self, command: Command) -> ImagePath:
        """HOME, or the home of USER by /etc/passwd (OCI runtime-spec)."""
        home = command.env.get("HOME")
        if home:
            return home
        user = (self.image.config.user or "0").partition(":")[0] or "0"
        try:
            lines = self.fs.read_text("/etc/passwd", 1 << 20).splitlines()
        except (LayerLensError, OSError):
            lines = []
        for line in lines:
            fields = line.split(":")
            if len(fields) >= 6 and user in (fields[0], fields[2]):
                return fields[5] or "/"
        return "/root" if user in ("0", "root") else "/"

    def _run(
        self, command: Command, invocation: Invocation, interpreter: Interpreter, env: Mapping[str, str]
    ) -> Run | None:
        first = self._first_entry(command, invocation)
        entries = [] if first is None or invocation.safe_path else [first]
        if self._tool_of(invocation) in IN_CWD and command.cwd not in entries:
            entries.append(command.cwd)
        entries += [
            posixpath.normpath(posixpath.join(command.cwd, f)) for f in folders_of(invocation.arguments)
        ]
        entries += [
            posixpath.normpath(posixpath.join(command.cwd, folder))
            for folder in env.get("PYTHONPATH", "").split(":")
            if folder
        ]
        entries += [*interpreter.stdlib, *interpreter.sites, *interpreter.added]
        entries = [entry for entry in entries if self.fs.exists(entry)]
        roots = self._roots(command, entries, interpreter)
        key = (interpreter.called, tuple(entries), tuple(roots), invocation.optimize)
        run = self._runs.get(key)
        if run is None:
            if len(self._runs) >= MAX_RUNS:
                return None
            finder = Finder(self.fs, entries, interpreter.tag, self._folders, self._extends_path)
            standard = frozenset(interpreter.stdlib)
            sites = frozenset(interpreter.sites)
            run = Run(interpreter, finder, command, invocation.optimize, standard, sites, roots)
            self._runs[key] = run
        return run

    def _first_entry(self, command: Command, invocation: Invocation) -> ImagePath | None:
        """``sys.path[0]``: the script's folder, links followed; the working directory for -m and -c."""
        if invocation.script is None:
            return command.cwd
        path = posixpath.normpath(posixpath.join(command.cwd, invocation.script))
        real = self.fs.follow(path)
        if real is None:
            return None
        return path if self.fs.is_dir(path) or self._is_zip(real) else posixpath.dirname(real)

    def _is_zip(self, path: ImagePath) -> bool:
        head = self.image.head(path)
        return head[:4] == b"PK\3\4" or (head[:2] == b"#!" and b"PK\3\4" in head)

    def _roots(
        self, command: Command, entries: Iterable[ImagePath], interpreter: Interpreter
    ) -> list[ImagePath]:
        """The folders whose files are the application's: of the path, and where it is started."""
        system = {*interpreter.stdlib, *interpreter.sites}
        found: dict[ImagePath, None] = {}
        for entry in (*entries, command.cwd):
            real = self.fs.follow(entry)
            if entry in system or real is None or real not in self.fs.children:
                continue
            if real not in SHARED and real not in self.distributions.sites:
                found[real] = None
        return list(found)

    @staticmethod
    def _tool_of(invocation: Invocation) -> str:
        """The name under which a program on top of Python is known: ``gunicorn``, ``flask``."""
        if invocation.script is not None:
            name = invocation.script.rpartition("/")[2]
            return name.removesuffix(".py") if name.endswith(".py") else name
        return (invocation.module or "").partition(".")[0].replace("_", "-")

    # -- the start of a run -----------------------------------------------------------------------------

    def _start(self, run: Run, program: ImagePath, invocation: Invocation) -> Iterator[Edge | Command]:
        """What every start of the interpreter reads."""
        if "start" in run.told:
            return
        run.told.add("start")
        interpreter = run.interpreter
        for path, why in interpreter.landmarks:
            yield Edge(program, path, "data", why, "certain")
        for entry in interpreter.stdlib:
            if entry.endswith(".zip"):
                yield Edge(program, entry, "data", "the standard library in a zip", "certain")
        for name in START_MODULES:
            yield from self._named(run, program, name, "every start of Python imports it", "certain")
        for name in () if invocation.no_site else SITE_MODULES:
            yield from self._named(run, program, name, "site.py imports it", "certain")
        for path in interpreter.pths:
            yield Edge(program, path, "config", "site.py reads it at every start", "certain")
        for path, line in interpreter.pth_imports:
            for one in read_exactly(line.encode("utf-8", "surrogateescape")).imports:
                module = run.finder.find(one.module)
                if module is not None:
                    evidence = f"{path.rpartition('/')[2]}: {line[:60]}"
                    yield from self._module(run, path, module, evidence, "certain", FIRMLY, alone=True)

    def _program(self, run: Run, program: ImagePath, invocation: Invocation) -> Iterator[Edge | Command]:
        cwd = run.command.cwd
        if invocation.script is not None:
            path = posixpath.normpath(posixpath.join(cwd, invocation.script))
            yield from self._script(run, program, path)
        elif invocation.module is not None:
            for name in RUN_MODULE:
                yield from self._named(run, program, name, "python -m imports it", "certain")
            for name in (invocation.module, f"{invocation.module}.__main__"):
                yield from self._named(run, program, name, f"python -m {invocation.module}", "certain", True)
        elif invocation.code is not None:
            module = Module("__main__", None, (), cwd)
            facts = read_exactly(invocation.code.encode("utf-8", "surrogateescape"))
            yield from self._follow(run, program, Reached(module, FIRMLY, True), facts, "app", "python -c")
        words = [*invocation.arguments]
        if self._tool_of(invocation) == "gunicorn":
            words += run.command.env.get("GUNICORN_CMD_ARGS", "").split()
        source = program
        if invocation.script is not None:
            source = self.fs.follow(posixpath.join(cwd, invocation.script)) or program
        yield from self._words(run, source, words, cwd)
        for name, value in sorted(run.command.env.items()):
            if MODULE_VARIABLES.fullmatch(name):
                for module_name, _, _ in named_modules([value]):
                    evidence = f"{name}={value}"
                    yield from self._named(run, source, module_name, evidence, "likely", below=True)

    def _entry_file(self, run: Run, program: ImagePath, invocation: Invocation) -> ImagePath:
        """The file that a run begins with: the script, the module's, else the interpreter."""
        if invocation.script is not None:
            path = posixpath.normpath(posixpath.join(run.command.cwd, invocation.script))
        else:
            module = run.finder.find(invocation.module) if invocation.module else None
            path = (module.file if module is not None else None) or program
        real = self.fs.follow(path)
        return real if real is not None and real in self._reached else program

    def _script(self, run: Run, source: ImagePath, path: ImagePath) -> Iterator[Edge | Command]:
        """A file, a directory or a zip that is run."""
        evidence = f"python {path}"
        if self.fs.is_dir(path):
            for name in (*RUN_MODULE, "__main__"):
                yield from self._named(run, source, name, evidence, "certain", True)
            return
        real = self.fs.follow(path)
        if real is None:
            return
        module = Module("__main__", path, (), posixpath.dirname(real))
        yield Edge(source, path, "script", evidence, "certain")
        self._reach(run, real, Reached(module, FIRMLY, True))
        if self._is_zip(real):
            for name in RUN_MODULE:
                yield from self._named(run, source, name, "a zip is run", "certain")

    def _words(
        self, run: Run, source: ImagePath, words: Iterable[str], cwd: ImagePath
    ) -> Iterator[Edge | Command]:
        """Modules and sources that the arguments of a program on top of Python name."""
        words = list(words)
        for name, word, sure in named_modules(words):
            module = self._deepest(run, name)
            if module is None:
                continue
            area = self._area(run, module)
            if area == "app" or (sure and area == "site"):
                yield from self._module(run, source, module, f"the word {word}", "likely", FIRMLY)
        for word in words:
            text = word.partition("=")[2] if word.startswith("-") else word
            path = posixpath.normpath(posixpath.join(cwd, text))
            if text.endswith(".py") and self.fs.is_file(path):
                yield from self._script(run, source, path)

    # -- modules ----------------------------------------------------------------------------------------

    def _named(
        self,
        run: Run,
        source: ImagePath,
        name: str,
        evidence: str,
        certainty: Certainty,
        program: bool = False,
        *,
        below: bool = False,
    ) -> Iterator[Edge]:
        """Edges to the module of a name, where there is one; ``below``: or the deepest package of it."""
        module = self._deepest(run, name) if below else run.finder.find(name)
        if module is not None:
            yield from self._module(run, source, module, evidence, certainty, FIRMLY, program=program)

    def _deepest(self, run: Run, name: str) -> Module | None:
        """The module of a dotted name, or of as much of it as is a module: ``a.b.Class``."""
        while name:
            module = run.finder.find(name)
            if module is not None:
                return module
            name = name.rpartition(".")[0]
        return None

    def _module(
        self,
        run: Run,
        source: ImagePath,
        module: Module,
        evidence: str,
        certainty: Certainty,
        imported: int,
        *,
        kind: str = "import",
        program: bool = False,
        alone: bool = False,
    ) -> Iterator[Edge]:
        """Edges to a module and to the packages that it is in, which are imported first.

        ``alone`` leaves its distribution where it is.
        """
        name = module.name
        parts = name.split(".")
        for depth in range(1, len(parts)):
            above = run.finder.find(".".join(parts[:depth]))
            if above is not None and above.file is not None:
                yield from self._one(run, source, above, evidence, certainty, imported, kind, False, alone)
        if module.file is not None:
            yield from self._one(run, source, module, evidence, certainty, imported, kind, program, alone)

    def _one(
        self,
        run: Run,
        source: ImagePath,
        module: Module,
        evidence: str,
        certainty: Certainty,
        imported: int,
        kind: str,
        program: bool,
        alone: bool,
    ) -> Iterator[Edge]:
        assert module.file is not None
        real = self.fs.follow(module.file)
        if real is None:
            return
        if real != source:
            yield Edge(source, module.file, kind, evidence, certainty)
        self._reach(run, real, Reached(module, imported, program))
        area = self._area(run, module)
        if area == "site" and not alone:
            yield from self._with_distribution(run, real, module)
        elif area == "app" and module.folders and "." not in module.name:
            folder = self.fs.follow(module.folders[0])
            if folder is not None and not any(f"{folder}/".startswith(f"{root}/") for root in run.roots):
                run.roots.append(folder)
                self._trees.append((run, real, folder))

    def _reach(self, run: Run, path: ImagePath, reached: Reached) -> None:
        """Note that a run reaches a file, and have it looked at again where that says more than was known."""
        by_run = self._reached.setdefault(path, {})
        known = by_run.get(run)
        if known is not None:
            if known.imported >= reached.imported and (known.program or not reached.program):
                return
            reached = Reached(
                reached.module if reached.imported > known.imported else known.module,
                max(known.imported, reached.imported),
                known.program or reached.program,
            )
        by_run[run] = reached
        if path in self._asked:
            self._late[path, id(run)] = run

    def _area(self, run: Run, module: Module) -> str:
        """Whose a module is: ``stdlib``, ``site`` (installed) or ``app``."""
        if module.entry in run.standard:
            return "stdlib"
        if module.entry in run.sites:
            return "site"
        real = self.fs.follow(module.file or module.folders[0]) if module.file or module.folders else None
        return "site" if real is not None and self.distributions.of(real) is not None else "app"

    # -- files ------------------------------------------------------------------------------------------

    def edges(self, path: ImagePath) -> Iterator[Edge | Command]:
        """What a module or a distribution's metadata leads to, for every run that reached it."""
        self._asked.add(path)
        by_run = self._reached.get(path)
        if by_run:
            for run in list(by_run):
                self._late.pop((path, id(run)), None)
                yield from self._look(run, path)

    def finish(self, kept: Mapping[ImagePath, Edge]) -> Iterator[Edge | Command]:
        """What runs reached after it had been looked at."""
        late, self._late = self._late, {}
        for (path, _), run in late.items():
            if path in kept:
                yield from self._look(run, path)
        trees, self._trees = self._trees, []
        for run, source, root in trees:  # after the imports, whose chains say more
            yield from self._app_tree(run, source, root)
        catalogues, self._catalogues = self._catalogues, []
        for edge in catalogues:
            if self._any_language or not self._languages or _language(edge.target) in self._languages:
                yield edge
            else:
                self._catalogues.append(edge)

    def _look(self, run: Run, path: ImagePath) -> Iterator[Edge | Command]:
        reached = self._reached[path][run]
        found = self.distributions.by_location.get(path)
        if found is not None:
            yield from self._distribution(run, found)
            return
        name = path.rpartition("/")[2]
        area = self._area(run, reached.module)
        yield from self._by_table(run, path, reached.module)
        if ".so" in name and not name.endswith(".py"):
            return
        if reached.program and self._is_zip(path):
            yield from self._zip(run, path, reached)
            return
        facts = self._read(path, exact=area == "app")
        for source in dict.fromkeys((path, reached.module.file or path)):
            yield from self._bytecode(run, source)
        if area == "app":
            self._note_languages(path)
        yield from self._follow(run, path, reached, facts, area, None)

    def _read(self, path: ImagePath, *, exact: bool) -> Facts:
        """The facts of a source; read once each way."""
        found = self._facts.get((path, exact))
        if found is None:
            try:
                source = self.fs.read(path, MAX_SOURCE)
            except (LayerLensError, OSError):
                source = b""
            if path.endswith(".pyc") or source[:4] == b"\x7fELF":
                source = b""
            found = read_exactly(source) if exact else read_quickly(source)
            self._facts[path, exact] = found
            if exact and found.trouble is not None:
                message, line = found.trouble
                self.image.diagnose("python-syntax", f"line {line}: {message}", path)
        return found

    def _extends_path(self, path: ImagePath) -> bool:
        return self._read(self.fs.follow(path) or path, exact=False).extends_path

    def _note_languages(self, path: ImagePath) -> None:
        """Note which languages Django's settings offer (Django, settings: LANGUAGES)."""
        try:
            source = self.fs.read(path, MAX_SOURCE)
        except (LayerLensError, OSError):
            return
        found = offered_languages(source)
        self._languages.update(found or ())
        self._any_language |= found is not None and not found

    def _bytecode(self, run: Run, path: ImagePath) -> Iterator[Edge]:
        """The ``.pyc`` beside a source (PEP 3147), which is loaded in its place while its stamp is right."""
        if path.endswith(".py"):
            folder, _, name = path.rpartition("/")
            compiled = f"{folder}/__pycache__/{name[:-3]}{run.bytecode_suffix}"
            if self.fs.exists(compiled):
                yield Edge(path, compiled, "import", f"bytecode of {name} (PEP 3147)", "certain")

    def _zip(self, run: Run, path: ImagePath, reached: Reached) -> Iterator[Edge | Command]:
        """The imports of the sources in a zip that is run, as far as they lead out of it."""
        import io
        import zipfile

        try:
            archive = zipfile.ZipFile(io.BytesIO(self.fs.read(path, 64 << 20)))
            names = [name for name in archive.namelist() if name.endswith(".py")][:2000]
            sources = [archive.open(name).read(MAX_SOURCE // 8) for name in names]
        except (LayerLensError, OSError, ValueError, RuntimeError, NotImplementedError, EOFError) as error:
            self.image.diagnose("broken-zip", f"cannot be read: {error}", path)
            return
        except zipfile.BadZipFile as error:
            self.image.diagnose("broken-zip", f"cannot be read: {error}", path)
            return
        inside = {name.partition("/")[0].removesuffix(".py") for name in names}
        for name, source in zip(names, sources, strict=True):
            facts = read_exactly(source)
            facts.imports = [
                one for one in facts.imports if not one.level and one.module.partition(".")[0] not in inside
            ]
            facts.prefixes = []
            yield from self._follow(run, path, reached, facts, "app", name)

    def _by_table(self, run: Run, path: ImagePath, module: Module) -> Iterator[Edge]:
        """What the tables say of a module: computed imports, data."""
        for name in COMPUTED.get(module.name, ()):
            evidence = f"{module.name} imports it by a computed name"
            if name.endswith((".", "_")):
                for found in run.finder.below(name):
                    yield from self._module(run, path, found, evidence, "certain", LOOSELY)
            else:
                yield from self._named(run, path, name, evidence, "certain")
        for data, why in DATA.get(module.name, ()):
            if self.fs.is_dir(data):
                yield from self.image.tree(path, data, "data", why, "assumed", skip=_NOT_TIME_ZONES)
            elif self.fs.exists(data):
                yield Edge(path, data, "data", why, "assumed")
        if module.folders and module.entry in run.standard:
            for folder in module.folders:
                for name in self.fs.listdir(folder):
                    inside = f"{folder}/{name}"
                    if (
                        not name.endswith((".py", ".so", ".pyc"))
                        and self.fs.type_of(inside) == EntryType.FILE
                        and self.image.category_of(inside) not in UNNEEDED_CATEGORIES
                    ):
                        yield Edge(path, inside, "data", f"data of {module.name}", "assumed")

    # -- what a source says -----------------------------------------------------------------------------

    def _follow(
        self, run: Run, path: ImagePath, reached: Reached, facts: Facts, area: str, within: str | None
    ) -> Iterator[Edge | Command]:
        where = f"{within}, " if within else ""
        for one in facts.imports:
            if not one.main or reached.program:
                yield from self._import(run, path, reached, one, area, where)
        for prefix in facts.prefixes:
            base = _absolute(reached.module, prefix.level, prefix.text) if prefix.level else prefix.text
            if base is None:
                continue
            if prefix.level and not prefix.text:
                base += "."
            evidence = f"{where}line {prefix.line}: imports {base}…"
            for module in run.finder.below(base):
                if self._is_wanted(run, path, reached, module, area, False):
                    # That a distribution may load any of its modules makes none of them more than shipped.
                    imported = SHIPPED if area == "site" else reached.imported
                    yield from self._module(run, path, module, evidence, "likely", imported)
        for group, line in facts.groups:
            yield from self._group(run, path, group, f"{where}line {line}: entry points {group}")
        if area != "stdlib":
            yield from self._shared_libraries(run, path, facts, where)
        if area == "app":
            yield from self._application(run, path, reached, facts, where)

    def _import(
        self, run: Run, path: ImagePath, reached: Reached, one: Import, area: str, where: str
    ) -> Iterator[Edge]:
        base = _absolute(reached.module, one.level, one.module) if one.level else one.module
        if base is None or self._is_superseded(run, one):
            return
        module = self._deepest(run, base)
        if module is None:
            self._unresolved(path, reached, one, area)
            return
        found = [module]
        if module.name == base and module.folders:
            for name in one.names:
                below = run.finder.find(f"{base}.{name}")
                if below is not None:
                    found.append(below)
        evidence = f"{where}line {one.line}: {one.told()}"
        certainty: Certainty = "certain" if one.firm else "likely"
        for target in found:
            if self._is_wanted(run, path, reached, target, area, one.firm, one):
                imported = reached.imported
                if not one.firm and area != "app":
                    imported = min(imported, LOOSELY)
                yield from self._module(run, path, target, evidence, certainty, imported)

    def _is_wanted(
        self,
        run: Run,
        path: ImagePath,
        reached: Reached,
        target: Module,
        area: str,
        firm: bool,
        one: Import | None = None,
    ) -> bool:
        """Whether an import is to be followed: see the head of this module."""
        of = self._area(run, target)
        top = target.name.partition(".")[0]
        if of == "stdlib":
            if top in INTERACTIVE and not firm and area != "app":
                return False
            if top in FALLBACKS and area == "stdlib" and run.finder.find(FALLBACKS[top]) is not None:
                return False
            if top not in DEVELOPMENT or (area == "stdlib" and reached.module.name.partition(".")[0] == top):
                return True
        elif of == "site" and area != "app":
            found = self._distribution_of(target)
            if found is None or f"{id(found)}" in run.told:
                return True
            if one is not None:
                exact = self._firmly(run, path, one)
                if exact is None:
                    return False
                firm = exact
            if not found.is_tool:
                return True
            if reached.imported and self._declares(reached.module, found):
                return True
            return bool(firm) and reached.imported == FIRMLY
        elif of == "site":
            found = self._distribution_of(target)
            return found is None or not found.is_tool or reached.imported > SHIPPED
        else:
            return True
        if area == "app":
            return reached.imported > SHIPPED
        if not firm or (top in UNCOMMON and not reached.imported):
            return False
        return one is None or bool(self._firmly(run, path, one))

    def _declares(self, module: Module, tool: Distribution) -> bool:
        """Whether the distribution of a module names another among its requirements, extras aside."""
        found = self._distribution_of(module)
        if found is None:
            return False
        wanted = normalized(tool.package.name)
        return any(
            name == wanted and extra is None
            for name, _, extra in self.distributions.requirements(found, (3, 0))
        )

    def _firmly(self, run: Run, path: ImagePath, one: Import) -> bool | None:
        """Whether the syntax tree has an import firmly; None where it does not have it at all, or it never runs."""
        exact = [
            other.firm
            for other in self._read(path, exact=True).imports
            if (other.level, other.module) == (one.level, one.module)
            and not other.main
            and not self._is_superseded(run, other)
        ]
        return any(exact) if exact else None

    def _is_superseded(self, run: Run, one: Import) -> bool:
        """Whether an import stands in for others, of which the standard library has every module and name."""
        return any(all(self._is_standard(run, other) for other in group) for group in one.instead_of)

    def _is_standard(self, run: Run, one: Import) -> bool:
        module = None if one.level else run.finder.find(one.module)
        if module is None or module.file is None or self._area(run, module) != "stdlib":
            return False
        if one.module.partition(".")[0] in DEVELOPMENT:
            return False  # distributions leave some of them out
        if not one.names:
            return True
        if module.file not in self._bound:
            try:
                source = self.fs.read(module.file, MAX_SOURCE) if module.file.endswith(".py") else b""
            except (LayerLensError, OSError):
                source = b""
            self._bound[module.file] = bound_names(source)
        bound = self._bound[module.file]
        return bound is not None and all(
            name in bound or run.finder.find(f"{one.module}.{name}") is not None for name in one.names
        )

    def _distribution_of(self, module: Module) -> Distribution | None:
        place = module.file or (module.folders[0] if module.folders else None)
        real = self.fs.follow(place) if place is not None else None
        return self.distributions.of(real) if real is not None else None

    def _unresolved(self, path: ImagePath, reached: Reached, one: Import, area: str) -> None:
        top = one.module.partition(".")[0]
        if area == "app" and one.firm and reached.imported and top and top not in sys.stdlib_module_names:
            self.image.diagnose(
                "unresolved-import", f"line {one.line}: {one.told()}: no such module in the image", path
            )

    # -- the application's own words --------------------------------------------------------------------

    def _application(
        self, run: Run, path: ImagePath, reached: Reached, facts: Facts, where: str
    ) -> Iterator[Edge | Command]:
        if facts.computed is not None:
            self.image.diagnose(
                "computed-import", f"{where}line {facts.computed}: imports a module by a computed name", path
            )
        groups = self.distributions.groups()
        for text, line in (*facts.strings, *facts.settings):
            evidence = f"{where}line {line}: {text}"
            if text in groups:
                yield from self._group(run, path, text, evidence)
            if text.startswith("/"):
                yield from self._named_path(path, text, evidence)
                continue
            module = self._deepest(run, text.partition(":")[0])
            if module is None or self._area(run, module) == "stdlib":
                continue
            if "." not in text and not module.folders:
                continue
            if self._is_wanted(run, path, reached, module, "app", False):
                yield from self._module(
                    run, path, module, evidence, "likely", reached.imported, kind="literal"
                )
        for call in facts.calls:
            evidence = f"{where}line {call.line}: runs {' '.join(call.words)[:80]}"
            words = call.words
            if words[0] == PYTHON:
                words = (run.interpreter.called, *words[1:])
            if call.shell:
                words = ("/bin/sh", "-c", words[0])
            if "\0" not in "".join(words):
                yield Command(path, words, evidence, run.command.cwd, run.command.env, "command", "likely")

    def _named_path(self, path: ImagePath, text: str, evidence: str) -> Iterator[Edge | Command]:
        """A path that the application's source names; its folders with what is the application's in them."""
        target = posixpath.normpath(text)
        real = self.fs.follow(target)
        if real is None or real in SHARED:
            return
        yield Edge(path, target, "literal", evidence, "likely")
        if real in self.fs.children and self.image.category_of(real) in ("app", "other"):
            for edge in self.image.tree(
                path, target, "app-file", evidence, "assumed", without=NOT_OF_THE_APP
            ):
                if edge.target != target:
                    yield edge

    def _app_tree(self, run: Run, source: ImagePath, root: ImagePath) -> Iterator[Edge]:
        """The application's files in a folder: sources, templates, static files, data."""
        if f"tree {root}" in run.told:
            return
        run.told.add(f"tree {root}")
        evidence = f"the application's files in {root}"
        stack = [root]
        while stack:
            folder = stack.pop()
            names = self.fs.children.get(folder, {})
            if "pyvenv.cfg" in names:
                continue
            for name in sorted(names, reverse=True):
                path = f"{folder}/{name}"
                inside = path in self.fs.children and name not in PROJECT_FOLDERS
                if inside and path not in self.distributions.sites:
                    stack.append(path)
            for name in sorted(names):
                path = f"{folder}/{name}"
                if path in self.fs.children or (name in PROJECT_FILES and folder == root):
                    continue
                if name.endswith((".po", ".pot", ".pyc")) or self.image.category_of(path) in NOT_OF_THE_APP:
                    continue
                yield Edge(source, path, "app-file", evidence, "assumed")
                if name.endswith(".py") and self.fs.type_of(path) == EntryType.FILE:
                    self._note_languages(path)
                    self._reach(run, path, Reached(self._module_at(run, root, path), SHIPPED))

    def _module_at(self, run: Run, root: ImagePath, path: ImagePath) -> Module:
        """The module of a source by its place below the longest entry of the path, or below ``root``."""
        entry = root
        for candidate in run.finder.entries:
            real = self.fs.follow(candidate)
            if real is not None and path.startswith(f"{real}/") and len(real) > len(entry):
                entry = real
        return _module_of(entry, path)

    # -- distributions ----------------------------------------------------------------------------------

    def _with_distribution(self, run: Run, source: ImagePath, module: Module) -> Iterator[Edge]:
        """The distribution of a module that is reached: its metadata, which leads to all the rest."""
        found = self.distributions.of(source)
        if found is not None:
            yield from self._whole(
                run, source, found, "package-file", f"{module.name} belongs to {found.told}"
            )
            return
        top = run.finder.find(module.name.partition(".")[0])
        if top is None or top.file is None or not top.folders or f"loose {top.name}" in run.told:
            return
        run.told.add(f"loose {top.name}")
        folder = self.fs.follow(top.folders[0])
        if folder is not None:
            evidence = f"package {top.name}, which no distribution records"
            for edge in self.image.tree(
                source, folder, "package-file", evidence, "certain", without=NOT_OF_A_DISTRIBUTION,
                skip=["__pycache__"],
            ):  # fmt: skip
                yield edge
                if edge.target.endswith(".py"):
                    self._reach(
                        run, edge.target, Reached(_module_of(posixpath.dirname(folder), edge.target), SHIPPED)
                    )

    def _whole(
        self, run: Run, source: ImagePath, found: Distribution, kind: str, evidence: str,
        certainty: Certainty = "certain",
    ) -> Iterator[Edge]:  # fmt: skip
        key = f"{id(found)}"
        if key in run.told:
            return
        run.told.add(key)
        yield Edge(source, found.location, kind, evidence, certainty)
        self._reach(run, found.location, Reached(Module(found.package.name, None, (), found.site), FIRMLY))

    def _distribution(self, run: Run, found: Distribution) -> Iterator[Edge]:
        """All files of a distribution, what it requires, and what plugs into it."""
        location = found.location
        tag = run.interpreter.tag
        files = self._files.get((found, tag))
        if files is None:
            without = NOT_OF_A_DISTRIBUTION - {found.package.category or ""}
            files = self._files[found, tag] = self.distributions.files(found, tag, without, self.image)
        evidence = f"RECORD of {found.told}"
        for path in files:
            edge = Edge(location, path, "package-file", evidence, "certain")
            if path.endswith(CATALOGUES):
                self._catalogues.append(edge)
                continue
            yield edge
            if path.endswith(".py"):
                self._reach(run, path, Reached(_module_of(found.site, path), SHIPPED))
        sites = [real for entry in run.finder.entries if (real := self.fs.follow(entry)) is not None]
        by_name = self.distributions.by_name
        for name, requirement, extra in self.distributions.requirements(found, run.interpreter.version):
            other = pick(by_name.get(name, ()), sites)
            if other is not None and not other.is_tool:
                evidence = f"{found.package.name} requires {requirement}"
                certainty: Certainty = "certain" if extra is None else "assumed"
                yield from self._whole(run, location, other, "depends", evidence, certainty)
        for group, points in sorted(self.distributions.groups().items()):
            if (
                group.partition(".")[0].partition("_")[0] in found.tops
                or group.partition(".")[0] in found.tops
            ):
                for other, point in points:
                    if other is not found and not other.is_tool and other.site in sites:
                        evidence = f"entry point of {found.package.name}: {group}: {point}"
                        yield from self._point(run, location, point, evidence)

    def _group(self, run: Run, source: ImagePath, group: str, evidence: str) -> Iterator[Edge]:
        """The modules that distributions declare in an entry point group."""
        for _, point in self.distributions.groups().get(group, ()):
            yield from self._point(run, source, point, f"{evidence}: {point}")

    def _point(self, run: Run, source: ImagePath, point: str, evidence: str) -> Iterator[Edge]:
        module = run.finder.find(point_module(point))
        if module is not None:
            yield from self._module(run, source, module, evidence, "likely", LOOSELY)

    # -- shared libraries -------------------------------------------------------------------------------

    def _shared_libraries(
        self, run: Run, path: ImagePath, facts: Facts, where: str
    ) -> Iterator[Edge | Command]:
        if facts.finds_libraries:
            ldconfig = "/sbin/ldconfig"  # ctypes.util._findSoname_ldconfig
            if self.fs.is_file(ldconfig):
                evidence = f"{where}ctypes.util.find_library runs it"
                yield Command(path, (ldconfig, "-p"), evidence, "/", run.command.env, "command", "likely")
        for name, line in facts.libraries:
            for target in self._library(path, name):
                yield Edge(path, target, "plugin", f"{where}line {line}: loads {name}", "likely")

    def _library(self, path: ImagePath, name: str) -> Iterator[ImagePath]:
        """The files that a name given to dlopen(3) or find_library may mean."""
        if "/" in name or name.endswith(".so"):
            beside = posixpath.normpath(posixpath.join(posixpath.dirname(path), name))
            if self.fs.is_file(beside):
                yield beside
                return
        if "/" in name:
            return
        for folder in self._library_folders():
            if ".so" in name:
                if self.fs.is_file(f"{folder}/{name}"):
                    yield f"{folder}/{name}"
                    return
                continue
            names = [n for n in self.fs.listdir(folder) if n.startswith(f"lib{name}.so")]
            sonames = [n for n in names if n[len(name) + 6 :].lstrip(".").isdecimal()] or names[:1]
            if sonames:
                yield from (f"{folder}/{soname}" for soname in sonames)
                return

    def _library_folders(self) -> list[ImagePath]:
        if self._libraries is None:
            folders = []
            for folder in LIBRARY_FOLDERS:
                folders += [f"{folder}/{n}" for n in self.fs.listdir(folder) if "-linux-" in n]
                folders.append(folder)
            self._libraries = folders
        return self._libraries


def _absolute(module: Module, level: int, name: str) -> str | None:
    """The absolute name of a relative one (language reference, "Package Relative Imports"); None beyond the top."""
    parts = module.name.split(".")
    if not module.folders:
        parts = parts[:-1]
    if level - 1 >= len(parts):
        return None
    base = parts[: len(parts) - (level - 1)]
    return ".".join([*base, name] if name else base)


def _module_of(entry: ImagePath, path: ImagePath) -> Module:
    """The module that a source is by its place below an entry of the path."""
    inside = path[len(entry.rstrip("/")) + 1 :].removesuffix(".py")
    if inside == "__init__" or inside.endswith("/__init__"):
        folder = posixpath.dirname(path)
        return Module(inside[: -len("/__init__")].replace("/", "."), path, (folder,), entry)
    return Module(inside.replace("/", "."), path, (), entry)


def _language(catalogue: ImagePath) -> str:
    """The primary tag of the language of ``…/locale/pt_BR/LC_MESSAGES/django.mo``: ``pt``."""
    return primary_tag(catalogue.split("/")[-3])
