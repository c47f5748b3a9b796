"""What sources say they import: the two readers against each other, against modulefinder and on what is hard."""

from __future__ import annotations

import modulefinder
import sysconfig
from pathlib import Path

import pytest

from layerlens.ecosystems._python_imports import (
    PYTHON,
    Call,
    Facts,
    Import,
    Prefix,
    bound_names,
    read_exactly,
    read_quickly,
)

STDLIB = Path(sysconfig.get_path("stdlib"))


def exactly(text: str) -> Facts:
    return read_exactly(text.encode())


def modules(facts: Facts) -> set[tuple[int, str]]:
    return {(one.level, one.module) for one in facts.imports}


def test_statements_with_their_lines_levels_and_names() -> None:
    facts = exactly(
        "import a.b as c, d\nfrom . import x\nfrom ..pkg.mod import (y,\n  z as w)\nfrom e import *\n"
    )
    assert facts.imports == [
        Import("a.b", 1),
        Import("d", 1),
        Import("", 2, 1, ("x",)),
        Import("pkg.mod", 3, 2, ("y", "z")),
        Import("e", 5, 0, ("*",)),
    ]


def test_firm_is_what_always_runs() -> None:
    text = (
        "import a\n"
        "try:\n    import b\nexcept ImportError:\n    b = None\n"
        "if b:\n    import c\n"
        "def f():\n    import d\n"
        "class K:\n    import e\n"
        "with open('x'):\n    import g\n"
        "if __name__ == '__main__':\n    import h\n"
    )
    found = {one.module: (one.firm, one.main) for one in exactly(text).imports}
    assert found == {
        "a": (True, False),
        "b": (False, False),
        "c": (False, False),
        "d": (False, False),
        "e": (True, False),
        "g": (True, False),
        "h": (False, True),
    }


@pytest.mark.parametrize("read", [read_exactly, read_quickly])
@pytest.mark.parametrize("guard", ["TYPE_CHECKING", "typing.TYPE_CHECKING"])
def test_imports_for_type_checkers_are_none(read: object, guard: str) -> None:
    text = f"import typing\nif {guard}:\n    import a\n\n    # c\n    from b import (\n        x,\n    )\nimport d\n"
    assert [(one.module, one.line) for one in read(text.encode()).imports] == [("typing", 1), ("d", 9)]  # type: ignore[operator]


@pytest.mark.parametrize(
    ("text", "imports", "prefixes", "computed"),
    [
        ("import importlib\nimportlib.import_module('a.b')", {(0, "a.b")}, [], None),
        ("from importlib import import_module as load\nload('a')", {(0, "a")}, [], None),
        ("__import__('a.b')", {(0, "a.b")}, [], None),
        ("NAME = 'a.b'\n__import__(NAME)", {(0, "a.b")}, [], None),
        ("__import__(f'plugins.{name}')", set(), [Prefix("plugins.", 1)], None),
        ("__import__('plugins.' + name)", set(), [Prefix("plugins.", 1)], None),
        ("__import__('plugins.%s' % name)", set(), [Prefix("plugins.", 1)], None),
        ("__import__('plugins.{}'.format(name))", set(), [Prefix("plugins.", 1)], None),
        ("__import__('.'.join(['plugins', name]))", set(), [Prefix("plugins.", 1)], None),
        ("P = 'plug'\n__import__(f'{P}ins.{name}')", set(), [Prefix("plugins.", 2)], None),
        ("__import__(f'{__name__}.{name}')", set(), [Prefix("", 1, 1)], None),
        ("__import__(__package__ + '.x.' + name)", set(), [Prefix("x.", 1, 1)], None),
        ("import importlib\nimportlib.import_module('.x', __package__)", {(1, "x")}, [], None),
        (
            "import importlib\nimportlib.import_module('.x.' + n, __package__)",
            set(),
            [Prefix("x.", 2, 1)],
            None,
        ),
        ("def f(name):\n    return __import__(name)", set(), [], 2),
        ("import pkgutil, a.b\npkgutil.iter_modules(a.b.__path__)", set(), [Prefix("a.b.", 2)], None),
        (
            "import pkgutil\nfrom a import b\npkgutil.walk_packages(path=b.__path__)",
            set(),
            [Prefix("a.b.", 3)],
            None,
        ),
        ("import pkgutil\nfor m in pkgutil.iter_modules(__path__): pass", set(), [Prefix("", 2, 1)], None),
    ],
)
def test_calls_that_import(
    text: str, imports: set[tuple[int, str]], prefixes: list[Prefix], computed: int | None
) -> None:
    facts = exactly(text)
    statements = {(0, "importlib"), (0, "pkgutil"), (0, "a.b"), (0, "a")} if "import " in text else set()
    assert imports <= modules(facts) and modules(facts) - imports <= statements
    assert facts.prefixes == prefixes
    assert facts.computed == computed


def test_programs_that_are_run() -> None:
    text = (
        "import os, subprocess, sys, shutil\n"
        "from subprocess import run as go\n"
        "TOOL = os.environ.get('TOOL', '/opt/tool')\n"
        "go(['git', '-C', path, 'log'])\n"
        "subprocess.check_output('ls -l | wc', shell=True)\n"
        "os.system('convert x y')\n"
        "subprocess.Popen([sys.executable, '-m', 'worker'])\n"
        "subprocess.run([TOOL, '-'])\n"
        "shutil.which('ffmpeg')\n"
        "os.execvp('nginx', ['nginx', '-g', 'daemon off;'])\n"
        "app.run('not a program')\n"
    )
    assert exactly(text).calls == [
        Call(("git", "-C"), 4),
        Call(("ls -l | wc",), 5, shell=True),
        Call(("convert x y",), 6, shell=True),
        Call((PYTHON, "-m", "worker"), 7),
        Call(("/opt/tool", "-"), 8),
        Call(("ffmpeg",), 9),
        Call(("nginx", "-g", "daemon off;"), 10),
    ]


@pytest.mark.parametrize("read", [read_exactly, read_quickly])
def test_libraries_that_are_loaded(read: object) -> None:
    text = "import ctypes.util\nz = ctypes.util.find_library('z')\nctypes.CDLL('libfoo.so.1')\n"
    facts = read(text.encode())  # type: ignore[operator]
    assert {name for name, _ in facts.libraries} == {"z", "libfoo.so.1"} and facts.finds_libraries


def test_settings_and_names_in_strings() -> None:
    text = '"""Not.name"""\nAPPS = ["rest_framework", "a.apps.Config"]\nlower = ["word"]\nX = {"k": "/etc/x.conf"}\n'
    facts = exactly(text)
    assert [text for text, _ in facts.strings] == ["a.apps.Config", "/etc/x.conf"]
    assert facts.settings == [("rest_framework", 2)]


@pytest.mark.parametrize(
    "text",
    [
        "type X = int\nimport a\nfrom .b import c\n",  # PEP 695
        "def f[T](x: T) -> T:\n    return x\nimport a\nfrom .b import c\n",
        "x = f'{'a' + f'{'b'}'}'\nimport a\nfrom .b import c\n",  # PEP 701
        "print 'two'\nimport a\nfrom .b import c\n",
        "try:\n    x\nexcept E, e:\n    pass\nimport a\nfrom .b import c\n",
    ],
)
def test_what_ast_refuses_is_read_by_another_grammar(text: str) -> None:
    assert {(0, "a"), (1, "b")} <= modules(exactly(text))


@pytest.mark.parametrize("source", [b"\x7fELF\0\1", b"def (:\n", b"import \0", b"(" * 5000, b"\xff\xfe\xfd"])
def test_what_is_not_python_is_told_with_its_line(source: bytes) -> None:
    facts = read_exactly(source)
    assert facts.imports == [] or b"import" in source
    assert facts.trouble is not None and facts.trouble[1] >= 1


def test_deep_nesting_is_read() -> None:
    facts = read_exactly(b"import a\nx = " + b"-" * 3000 + b"1\nimport b\n")
    assert {(0, "a"), (0, "b")} <= modules(facts)


def sources() -> list[Path]:
    folders = ("asyncio", "email", "json", "logging", "multiprocessing", "xml", "unittest", "distutils", "")
    return [path for folder in folders for path in sorted((STDLIB / folder).glob("*.py"))]


def test_the_quick_reader_misses_nothing_that_the_exact_one_finds() -> None:
    checked = 0
    for path in sources():
        source = path.read_bytes()
        exact, quick = read_exactly(source), read_quickly(source)
        statements = {(one.level, one.module, one.names) for one in exact.imports if not one.main}
        literal = {(one.level, one.module, one.names) for one in quick.imports}
        assert statements <= literal, path
        checked += len(statements)
    assert checked > 1500


def test_the_exact_reader_agrees_with_modulefinder() -> None:
    """modulefinder scans the compiled code for IMPORT_NAME; it leaves out calls, and knows no TYPE_CHECKING."""
    finder = modulefinder.ModuleFinder()
    for path in sources()[::5]:
        code = compile(path.read_bytes(), str(path), "exec", dont_inherit=True, optimize=0)
        theirs: set[tuple[int, str]] = set()
        pending = [code]
        while pending:
            one = pending.pop()
            for what, arguments in finder.scan_opcodes(one):
                if what == "absolute_import":
                    theirs.add((0, arguments[1]))
                elif what == "relative_import":
                    theirs.add((arguments[0], arguments[2]))
            pending += [constant for constant in one.co_consts if hasattr(constant, "co_code")]
        assert theirs <= modules(read_exactly(path.read_bytes())), path


def test_what_stands_in_for_imports_that_fail() -> None:
    facts = read_exactly(
        b"try:\n import a, b\nexcept ImportError:\n try:\n  from c import d\n except (ImportError, OSError):\n"
        b"  import e\nelse:\n import f\ntry:\n import g\nexcept ValueError:\n import h\n"
    )
    found = {
        one.module: [[other.module for other in group] for group in one.instead_of] for one in facts.imports
    }
    assert found == {"a": [], "b": [], "c": [["a", "b"]], "e": [["a", "b"], ["c"]], "f": [], "g": [], "h": []}


def test_names_that_a_module_binds() -> None:
    source = b"import os.path\nfrom a import b as c\nd = e = 1\nf: int = 2\ng: int\ndef h(): i = 1\nclass J: k = 1\n"
    assert bound_names(source) == {"os", "c", "d", "e", "f", "h", "J"}
    assert bound_names(b"from a import *") is None
    assert bound_names(b"def __getattr__(name): ...") is None
    assert bound_names(b"def") is None
