"""What DESIGN section 4 says of the code's shape, read off the code itself."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, CommandLine

PACKAGE = ROOT / "layerlens"

# Data flows down this list and nowhere else: a module imports only from above its own line. Modules on one
# line with others are one stage. `remembered` says what the cache keeps of a layer, `history` reads the config and
# `layers` opens what sources hand out. `report` stands higher than in the design's list: it holds nouns alone, and
# attribution speaks in them. `beside` and `passing` know nothing of images.
ORDER = [
    {"errors", "beside", "passing", "patterns"},
    {"model"},
    {"cache"},
    {"tarindex"},
    {"tarheader", "remembered"},
    {"sources"},
    {"layers", "history"},
    {"filesystem"},
    {"ecosystems"},
    {"categories"},
    {"report"},
    {"reported"},
    {"attribution"},
    {"graph"},
    {"unneeded"},
    {"dockerlines"},
    {"dockerfile"},
    {"differences", "forgotten"},
    {"runtime"},
    {"exchange"},
    {"stages"},
    {"plan"},
    {"slim", "loadercache", "security"},
    {"destinations"},
    {"loading"},
    {"probing"},
    {"trace"},
    {"verify"},
    {"slimming"},
    {"render"},
    {"planned"},
    {"api"},
    {"plugin"},
    {"cli"},
    {"__main__"},
]
LEVEL = {name: number for number, names in enumerate(ORDER) for name in names}
HEAVY = {"docker": "sources/docker_engine.py", "humanize": "render/", "elftools": "ecosystems/elf.py"}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def stage(path: Path) -> str:
    """The name in ORDER that a file belongs to: its subpackage, or itself."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def only_for_types(tree: ast.Module) -> set[ast.AST]:
    """Statements under ``if TYPE_CHECKING``: names, not data, and nothing at run time."""
    found: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            found.update(inner for statement in node.body for inner in ast.walk(statement))
    return found


def imports(path: Path) -> list[tuple[int, str]]:
    """(line, dotted name) of everything that a file imports, also inside functions; relative ones made whole."""
    tree = ast.parse(path.read_text())
    skipped = only_for_types(tree)
    package = ["layerlens", *path.relative_to(PACKAGE).parent.parts]
    found: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            found += [(node.lineno, f"{name}.{alias.name}") for alias in node.names]
    return found


def test_every_module_has_its_place() -> None:
    names = {stage(path) for path in modules()} - {"__init__"}
    assert names <= set(LEVEL), f"new modules need a place in DESIGN 4's list: {names - set(LEVEL)}"


def test_data_flows_down_the_list() -> None:
    wrong = []
    for path in modules():
        mine = stage(path)
        if mine == "__init__":
            continue
        for line, name in imports(path):
            parts = name.split(".")
            if parts[0] != "layerlens" or len(parts) < 2 or parts[1] not in LEVEL:
                continue
            theirs = parts[1]
            if theirs != mine and LEVEL[theirs] >= LEVEL[mine]:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_the_rule_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check above sees an import upwards, relative ones and those inside functions too."""
    package = tmp_path / "layerlens"
    (package / "sources").mkdir(parents=True)
    (package / "errors.py").write_text("def f():\n    from .render import terminal\n")
    (package / "sources" / "bad.py").write_text("from ..api import Image\nimport layerlens.cli\n")
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", package)
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    with pytest.raises(AssertionError) as caught:
        test_data_flows_down_the_list()
    for text in ("errors.py:2", "bad.py:1", "bad.py:2"):
        assert text in str(caught.value)


def test_format_libraries_stay_at_the_edge() -> None:
    for path in modules():
        where = str(path.relative_to(PACKAGE))
        for line, name in imports(path):
            home = HEAVY.get(name.split(".")[0])
            assert home is None or where.startswith(home), f"{where}:{line} imports {name}; only {home} may"


def test_no_module_outside_ecosystems_names_one() -> None:
    names = {path.stem for path in (PACKAGE / "ecosystems").glob("*.py")} - {"__init__"}
    assert {"dpkg", "python", "node"} <= names
    for path in modules():
        if stage(path) == "ecosystems":
            continue
        for line, name in imports(path):
            parts = name.split(".")
            if parts[:2] == ["layerlens", "ecosystems"]:
                assert not set(parts[2:]) & names, f"{path.relative_to(ROOT)}:{line} imports {name}"


def test_ecosystems_do_not_import_each_other_or_the_graph() -> None:
    for path in (PACKAGE / "ecosystems").glob("*.py"):
        for line, name in imports(path):
            assert "graph" not in name.split("."), f"{path.name}:{line}"


def test_nothing_touches_the_hosts_paths_with_the_images_names() -> None:
    """Law 4: analysis resolves paths inside the image; ``os.path`` and ``open`` have no place in it."""
    for name in ("filesystem", "attribution", "categories", "tarindex"):
        for line, imported in imports(PACKAGE / f"{name}.py"):
            assert (
                not imported.startswith(("os.path", "pathlib", "shutil", "glob")) or name == "categories"
            ), f"{name}.py:{line} imports {imported}"


@pytest.mark.parametrize(
    "statement", ["import layerlens", "from layerlens import open_image, LayerLensError"]
)
def test_importing_is_light(statement: str) -> None:
    script = f"{statement}\nimport sys\nprint(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    loaded = set(done.stdout.split())
    assert "layerlens" in loaded
    forbidden = ("docker", "networkx", "rich", "typer", "click", "pandas", "numpy", "requests", "humanize")
    assert not [name for name in forbidden if name in loaded]


def test_the_public_names() -> None:
    import layerlens

    for name in ("open_image", "inspect", "Image", "Report", "LayerLensError", "SourceError", "__version__"):
        assert getattr(layerlens, name) is not None
        assert name in dir(layerlens)
    with pytest.raises(AttributeError):
        layerlens.no_such_name  # noqa: B018


def test_docstrings_on_everything_public() -> None:
    """ruff's D1 looks at definitions; modules and packages are looked at here."""
    for path in modules():
        assert ast.get_docstring(ast.parse(path.read_text())), path


# --- the README -------------------------------------------------------------------------------------------


def readme_commands() -> set[tuple[str, ...]]:
    """Every ``layerlens …`` command line in the README, as words."""
    text = (ROOT / "README.md").read_text()
    found = set()
    for line in re.findall(r"^\s*(?:\$ )?(?:.*\| *)?((?:docker )?layerlens [^|#>\n]*)", text, re.M):
        words = tuple(line.removeprefix("docker ").split())
        if len(words) > 1 and re.fullmatch(r"[a-z]+|--version", words[1]):
            found.add(words)
    return found


def test_the_readmes_commands_exist(cli: CommandLine) -> None:
    commands = readme_commands()
    assert len(commands) >= 5, "the README shows the commands"
    listed = cli("--help").text
    for words in commands:
        if words[1] == "--version":
            continue
        assert re.search(rf"^\s+{words[1]}\b", listed, re.M), f"{words} is not in --help"
        name = [words[1]]
        if words[1] == "plugin":
            name.append(words[2])
        described = cli(*name, "--help")
        assert described.status == 0
        for word in words:
            if word.startswith("-") and word != "-":
                assert re.search(rf"{re.escape(word.partition('=')[0])}\b", described.text), (
                    f"{word} of {words}"
                )


def test_the_readmes_scripts_exist() -> None:
    text = (ROOT / "README.md").read_text()
    named = set(re.findall(r"\bscripts/[a-z_]+(?:\.(?:py|svg))?", text))
    assert {"scripts/demo", "scripts/test"} <= named
    for name in named:
        assert (ROOT / name).is_file(), name
