"""What Python programs need: literal images, and a real program's sys.modules as the oracle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from imagekit import DIR, Member, Symlink, layer
from needskit import codes, kept_files, needs, program
from squashkit import squash
from treekit import fs_of_folders

from layerlens.attribution import Attribution
from layerlens.ecosystems import ecosystems
from layerlens.ecosystems._python_commands import parse
from layerlens.ecosystems._python_distributions import holds
from layerlens.ecosystems._python_layout import find_interpreter
from layerlens.graph import Needs
from layerlens.history import parse_config
from layerlens.model import Diagnostic

LIB = "/usr/local/lib/python3.11"
SITE = f"{LIB}/site-packages"
PYTHON: dict[str, Member] = {
    "/usr/local/bin/python3.11": program(),
    "/usr/local/bin/python3": Symlink(target="python3.11"),
    "/usr/local/bin/python": Symlink(target="python3"),
    f"{LIB}/os.py": b"import abc\n",
    f"{LIB}/abc.py": b"",
    f"{LIB}/__pycache__/abc.cpython-311.pyc": b"x",
    f"{LIB}/__pycache__/abc.cpython-310.pyc": b"x",
    f"{LIB}/site.py": b"",
    f"{LIB}/encodings/__init__.py": b"",
    f"{LIB}/encodings/idna.py": b"import stringprep",
    f"{LIB}/stringprep.py": b"",
    f"{LIB}/unittest/__init__.py": b"",
    f"{LIB}/json/__init__.py": b"from . import decoder",
    f"{LIB}/json/decoder.py": b"",
    f"{LIB}/unused.py": b"",
    f"{LIB}/lib-dynload": DIR,
    f"{LIB}/runpy.py": b"",
}
PATH = {"PATH": "/usr/local/bin:/usr/bin:/bin"}


def wheel(name: str, files: dict[str, bytes], more: str = "", points: str = "") -> dict[str, Member]:
    info = f"{name.replace('-', '_')}-1.0.dist-info"
    tree: dict[str, Member] = {f"{SITE}/{path}": data for path, data in files.items()}
    tree[f"{SITE}/{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{more}\n".encode()
    if points:
        tree[f"{SITE}/{info}/entry_points.txt"] = points.encode()
    listed = [path.removeprefix(f"{SITE}/") for path in tree]
    tree[f"{SITE}/{info}/RECORD"] = "".join(f"{path},,\n" for path in [*listed, f"{info}/RECORD"]).encode()
    return tree


def kept(tree: dict[str, Member], *cmd: str, workdir: str = "/app", **env: str) -> Needs:
    return needs(PYTHON | tree, cmd=cmd, workdir=workdir, env=PATH | env)


def why(found: Needs, path: str) -> list[str]:
    return [f"{edge.kind}: {edge.evidence}" for edge in found.chain(path)]


def test_every_start_keeps_the_landmarks_and_what_site_imports() -> None:
    files = kept_files(kept({"/app/main.py": b""}, "python", "main.py"))
    assert {
        "/usr/local/bin/python",
        "/usr/local/bin/python3.11",
        f"{LIB}/os.py",
        f"{LIB}/abc.py",
        f"{LIB}/__pycache__/abc.cpython-311.pyc",
        f"{LIB}/encodings/idna.py",
        f"{LIB}/stringprep.py",
        "/app/main.py",
    } <= files
    assert (
        not {
            f"{LIB}/unused.py",
            f"{LIB}/unittest/__init__.py",
            f"{LIB}/__pycache__/abc.cpython-310.pyc",
        }
        & files
    )


def test_imports_have_their_line_as_evidence() -> None:
    found = kept({"/app/main.py": b"\nimport json\n"}, "python", "main.py")
    assert why(found, f"{LIB}/json/decoder.py")[-2:] == [
        "import: line 2: import json",
        "import: line 1: from . import decoder",
    ]


APP: dict[str, Member] = {
    "/app/main.py": b"import web\n",
    "/app/notes.md": b"x",
    "/app/templates/index.html": b"x",
    "/app/tests/test_main.py": b"import pytest",
    "/app/.git/config": b"x",
    "/app/setup.py": b"import setuptools",
    "/app/requirements.txt": b"web",
    "/app/node_modules/x/index.js": b"x",
    "/app/env/pyvenv.cfg": b"home = /usr/local/bin",
    "/app/env/lib/x.py": b"",
    "/app/locale/de/LC_MESSAGES/d.mo": b"x",
    "/app/locale/de/LC_MESSAGES/d.po": b"x",
}


def test_the_applications_files_are_kept_without_what_only_its_developers_need() -> None:
    found = kept(APP, "python", "main.py")
    files = {path for path in kept_files(found) if path.startswith("/app")}
    assert files == {
        *("/app/main.py", "/app/notes.md", "/app/templates/index.html"),
        "/app/locale/de/LC_MESSAGES/d.mo",
    }
    assert found.kept["/app/templates/index.html"].kind == "app-file"
    assert codes(found) == {"unresolved-import"}


WEB = wheel(
    "web",
    {
        "web/__init__.py": b"try:\n    import fast\nexcept ImportError: pass\ndef f():\n    import pytest\n",
        "web/static/x.css": b"x",
        "web/tests/test_web.py": b"import json",
        "web/_speed.cpython-311-x86_64-linux-gnu.so": b"x",
        "web/_speed.cpython-310-x86_64-linux-gnu.so": b"x",
        "web/plugin_for_mypy.py": b"import mypy",
    },
    more="Requires-Dist: core>=1\nRequires-Dist: docs-tool; extra == 'docs'\n"
    "Requires-Dist: extra-thing; extra == 'z'\nRequires-Dist: old; python_version < '3.8'\n",
)
OTHERS = (
    wheel("core", {"core.py": b""})
    | wheel("fast", {"fast.py": b""})
    | wheel("pytest", {"pytest/__init__.py": b""})
    | wheel("mypy", {"mypy/__init__.py": b""})
    | wheel("docs-tool", {"docs_tool.py": b""})
    | wheel("extra-thing", {"extra_thing.py": b""})
    | wheel("old", {"old.py": b""})
    | wheel("unrelated", {"unrelated.py": b""})
)


def test_a_distribution_is_kept_whole_with_what_it_requires_and_may_use() -> None:
    files = {
        path for path in kept_files(kept(APP | WEB | OTHERS, "python", "main.py")) if path.startswith(SITE)
    }
    names = {path.removeprefix(f"{SITE}/") for path in files}
    assert {
        *("web/__init__.py", "web/static/x.css", "web/plugin_for_mypy.py", "web-1.0.dist-info/METADATA"),
        *("web/_speed.cpython-311-x86_64-linux-gnu.so", "core.py", "fast.py", "extra_thing.py"),
    } <= names
    assert (
        not {
            *("web/tests/test_web.py", "web/_speed.cpython-310-x86_64-linux-gnu.so", "pytest/__init__.py"),
            *("mypy/__init__.py", "docs_tool.py", "old.py", "unrelated.py"),
        }
        & names
    )


def test_a_build_tool_comes_where_a_chain_of_firm_imports_leads_to_it() -> None:
    tool = wheel("setuptools", {"pkg_resources/__init__.py": b"", "setuptools/__init__.py": b""})
    firm = wheel("web", {"web/__init__.py": b"import pkg_resources"})
    loose = wheel("web", {"web/__init__.py": b"def f():\n    import pkg_resources"})
    declared = wheel(
        "web", {"web/__init__.py": b"def f():\n    import pkg_resources"}, "Requires-Dist: setuptools"
    )
    reached = [
        f"{SITE}/setuptools/__init__.py" in kept_files(kept(APP | tree | tool, "python", "main.py"))
        for tree in (firm, loose, declared)
    ]
    assert reached == [True, False, True]


def test_what_stands_in_for_an_import_that_the_standard_library_satisfies_is_left() -> None:
    # The script that setuptools and Debian's dh-python write for an entry point, among others.
    tree = {
        f"{LIB}/metadata.py": b"def distribution(name): ...",
        f"{LIB}/newer.py": b"from json import *\n",
        **wheel("pkg-resources", {"pkg_resources/__init__.py": b""}),
        **wheel("backport", {"backport.py": b""}),
        **wheel("spare", {"spare.py": b""}),
        **wheel("other", {"other.py": b""}),
        "/app/main.py": b"try:\n    from metadata import distribution\n"
        b"except ImportError:\n    try:\n        from absent import distribution\n"
        b"    except ImportError:\n        from pkg_resources import load_entry_point\n"
        b"try:\n    from metadata import later\nexcept ImportError:\n    from backport import later\n"
        b"try:\n    from newer import what\nexcept (ImportError, KeyError):\n    from spare import what\n"
        b"try:\n    import json\n    json.made_later()\nexcept ImportError:\n    import other\n",
    }
    files = kept_files(kept(tree, "python", "main.py"))
    assert f"{SITE}/pkg_resources/__init__.py" not in files
    assert {f"{SITE}/backport.py", f"{SITE}/spare.py", f"{SITE}/other.py"} <= files


def test_an_import_in_a_string_is_none() -> None:
    text = b'"""Example::\n\nimport unrelated\n"""\nimport core\n'
    found = kept(APP | wheel("web", {"web/__init__.py": text}) | OTHERS, "python", "main.py")
    assert f"{SITE}/core.py" in found.kept and f"{SITE}/unrelated.py" not in found.kept


def test_computed_names_bring_the_package_or_a_word() -> None:
    tree: dict[str, Member] = {
        "/srv/lib/run.py": b"import importlib\nimportlib.import_module(f'plug.{x}')\nimportlib.import_module(y)\n",
        "/opt/plugs/plug/__init__.py": b"",
        "/opt/plugs/plug/one.py": b"import json",
        "/opt/plugs/plug/two.py": b"",
    }
    found = kept(tree, "python", "/srv/lib/run.py", workdir="/", PYTHONPATH="/opt/plugs")
    assert {"/opt/plugs/plug/one.py", "/opt/plugs/plug/two.py", f"{LIB}/json/decoder.py"} <= kept_files(found)
    assert codes(found) == {"computed-import"}


def test_entry_point_groups_bring_their_modules() -> None:
    plug = wheel("plug-yaml", {"plug_yaml.py": b""}, points="[shop.formats]\nyaml = plug_yaml:read\n")
    for text in (b"entry_points(group='shop.formats')", b"Manager('shop.formats')"):
        found = kept({"/app/main.py": text} | plug, "python", "main.py")
        assert f"{SITE}/plug_yaml.py" in found.kept
    other = kept({"/app/main.py": b""} | plug, "python", "main.py")
    assert f"{SITE}/plug_yaml.py" not in other.kept


def test_names_in_settings_are_modules() -> None:
    text = b"INSTALLED_APPS = ['web', 'app.parts.Config']\n"
    found = kept({"/app/main.py": text, "/app/app/parts.py": b""} | WEB | OTHERS, "python", "main.py")
    assert found.kept[f"{SITE}/web/__init__.py"].kind == "literal"
    assert found.kept["/app/app/parts.py"].kind == "literal"


@pytest.mark.parametrize(
    ("cmd", "env"),
    [
        (["gunicorn", "-b", ":80", "proj.wsgi:app"], {}),
        (["gunicorn"], {"GUNICORN_CMD_ARGS": "--workers 2 proj.wsgi:app"}),
        (["gunicorn", "--worker-class=proj.wsgi.Worker"], {}),
        (["gunicorn", "x"], {"DJANGO_SETTINGS_MODULE": "proj.wsgi"}),
        (["python", "-m", "proj.wsgi"], {}),
        (["python", "-Bum", "proj.wsgi", "x"], {}),
        (["python", "-c", "from proj import wsgi"], {}),
        (["python", "-X", "dev", "-W", "error", "proj/wsgi.py"], {}),
    ],
)
def test_command_lines_that_lead_to_a_module(cmd: list[str], env: dict[str, str]) -> None:
    tree: dict[str, Member] = {
        "/app/proj/__init__.py": b"",
        "/app/proj/wsgi.py": b"import json",
        "/usr/local/bin/gunicorn": program("#!/usr/local/bin/python3.11\nimport gunicorn\n"),
    } | wheel("gunicorn", {"gunicorn/__init__.py": b""})
    found = kept(tree, *cmd, **env)
    assert found.kept["/app/proj/wsgi.py"].kind in ("import", "script", "literal")
    assert f"{LIB}/json/__init__.py" in found.kept


def test_programs_the_application_runs() -> None:
    tree: dict[str, Member] = {
        "/app/main.py": b"import subprocess, sys\nsubprocess.run(['tool', '-x'])\n"
        b"subprocess.run([sys.executable, '-m', 'work'])\n",
        "/app/work.py": b"",
        f"{LIB}/subprocess.py": b"",
        "/usr/bin/tool": program(),
    }
    found = kept(tree, "python", "main.py")
    assert why(found, "/usr/bin/tool")[-1] == "command: line 2: runs tool -x"
    assert f"{LIB}/runpy.py" in found.kept


def test_libraries_that_are_loaded_by_name() -> None:
    tree: dict[str, Member] = {
        "/app/main.py": b"import ctypes.util\nctypes.util.find_library('z')\nctypes.CDLL('libq.so.2')\n",
        "/usr/lib/x86_64-linux-gnu/libz.so": Symlink(target="libz.so.1.2"),
        "/usr/lib/x86_64-linux-gnu/libz.so.1": Symlink(target="libz.so.1.2"),
        "/usr/lib/x86_64-linux-gnu/libz.so.1.2": b"x",
        "/usr/local/lib/libq.so.2": b"x",
        "/sbin/ldconfig": program(),
    }
    files = kept_files(kept(tree, "python", "main.py"))
    library = "/usr/lib/x86_64-linux-gnu/libz.so"
    assert {f"{library}.1", f"{library}.1.2", "/usr/local/lib/libq.so.2", "/sbin/ldconfig"} <= files
    assert library not in files


def test_zoneinfo_brings_the_time_zones() -> None:
    tree: dict[str, Member] = {
        "/app/main.py": b"import zoneinfo",
        f"{LIB}/zoneinfo/__init__.py": b"",
        "/usr/share/zoneinfo/Europe/Oslo": b"x",
        "/usr/share/zoneinfo/right/Europe/Oslo": b"x",
    }
    files = kept_files(kept(tree, "python", "main.py"))
    assert "/usr/share/zoneinfo/Europe/Oslo" in files and "/usr/share/zoneinfo/right/Europe/Oslo" not in files


def test_what_people_type_at_and_fallbacks_for_what_is_there_are_left() -> None:
    tree: dict[str, Member] = {
        f"{LIB}/site.py": b"def enable():\n    import readline\n    import rlcompleter\n",
        f"{LIB}/rlcompleter.py": b"import readline",
        f"{LIB}/lib-dynload/readline.cpython-311-x86_64-linux-gnu.so": b"x",
        f"{LIB}/decimal.py": b"try:\n    from _decimal import *\nexcept ImportError:\n    from _pydecimal import *\n",
        f"{LIB}/_pydecimal.py": b"",
    }
    accelerator: dict[str, Member] = {f"{LIB}/lib-dynload/_decimal.cpython-311-x86_64-linux-gnu.so": b"x"}
    readline = {f"{LIB}/rlcompleter.py", f"{LIB}/lib-dynload/readline.cpython-311-x86_64-linux-gnu.so"}
    main: dict[str, Member] = {"/app/main.py": b"import decimal"}
    files = kept_files(kept(tree | accelerator | main, "python", "main.py"))
    assert not readline & files and f"{LIB}/_pydecimal.py" not in files
    assert f"{LIB}/_pydecimal.py" in kept_files(kept(tree | main, "python", "main.py"))
    asks: dict[str, Member] = {"/app/main.py": b"def f():\n    import rlcompleter"}
    assert readline <= kept_files(kept(tree | asks, "python", "main.py"))


@pytest.mark.parametrize(
    ("settings", "kept_languages"),
    [
        (b"LANGUAGES = [('en', _('English')), ('pt-br', 'Portugu\xc3\xaas')]", {"en", "pt", "pt_BR"}),
        (b"LANGUAGES = (('de-at', 'x'),)", {"de"}),
        (b"LANGUAGES = [(code, name) for code, name in ALL]", {"de", "en", "ko", "pt", "pt_BR"}),
        (b"LANGUAGES: list = [('de', 'x')]\nLANGUAGES += MORE", {"de", "en", "ko", "pt", "pt_BR"}),
        (b"LANGUAGES = ['python', 'go']", {"de", "en", "ko", "pt", "pt_BR"}),
        (b"USE_I18N = True", {"de", "en", "ko", "pt", "pt_BR"}),
        (b"LANGUAGES = [(", {"de", "en", "ko", "pt", "pt_BR"}),
    ],
)
def test_djangos_catalogues_of_the_languages_that_the_settings_offer(
    settings: bytes, kept_languages: set[str]
) -> None:
    languages = ("de", "en", "ko", "pt", "pt_BR")
    files = {f"django/conf/locale/{one}/LC_MESSAGES/django.mo": b"x" for one in languages}
    files |= {"django/__init__.py": b"", "django/locale/ko/LC_MESSAGES/other.mo": b"x"}
    tree: dict[str, Member] = {"/app/main.py": b"import django", "/app/shop/settings.py": settings}
    found = kept_files(kept(tree | wheel("django", files), "python", "main.py"))
    assert {path.split("/")[-3] for path in found if path.endswith("django.mo")} == kept_languages
    assert f"{SITE}/django/locale/ko/LC_MESSAGES/other.mo" in found


def test_a_pth_of_a_build_tool_brings_its_module_alone() -> None:
    tree = wheel(
        "setuptools",
        {
            "distutils-precedence.pth": b"import os; os.environ and __import__('_distutils_hack').add_shim()",
            "_distutils_hack/__init__.py": b"def f():\n    import setuptools",
            "setuptools/__init__.py": b"",
        },
    )
    files = kept_files(kept({"/app/main.py": b""} | tree, "python", "main.py"))
    assert {f"{SITE}/distutils-precedence.pth", f"{SITE}/_distutils_hack/__init__.py"} <= files
    assert f"{SITE}/setuptools/__init__.py" not in files


def test_broken_sources_and_cyclic_links_are_diagnostics() -> None:
    tree: dict[str, Member] = {
        "/app/main.py": b"import a\nimport loop\n",
        "/app/a.py": b"\x7f not python (",
        "/app/loop.py": Symlink(target="loop.py"),
    }
    found = kept(tree, "python", "main.py")
    assert "python-syntax" in codes(found) and "/app/a.py" in found.kept


# -- layout ----------------------------------------------------------------------------------------------------

STDLIB = {f"{LIB}/os.py": b"", f"{LIB}/lib-dynload": DIR}


def test_a_virtual_environment_has_its_own_site_and_the_bases_library() -> None:
    tree: dict[str, Member] = {
        "/usr/local/bin/python3.11": program(),
        "/v/bin/python": Symlink(target="/usr/local/bin/python3.11"),
        "/v/pyvenv.cfg": b"home = /usr/local/bin\ninclude-system-site-packages = false\n",
        "/v/lib/python3.11/site-packages/x.pth": b"# no\n/src/pkg\nmissing\nimport x\n",
        "/v/lib64": Symlink(target="lib"),
        "/src/pkg/m.py": b"",
        f"{SITE}/y.py": b"",
        **STDLIB,
    }
    found = find_interpreter(
        squash(layer(tree)), "/v/bin/python", "/usr/local/bin/python3.11", {}, "/root", True
    )
    assert found is not None and found.prefix == "/usr/local" and found.version == (3, 11)
    assert found.stdlib == [LIB, f"{LIB}/lib-dynload"]
    assert found.sites == ["/v/lib/python3.11/site-packages"] and found.added == ["/src/pkg"]
    assert "/v/pyvenv.cfg" in dict(found.landmarks)


def test_debian_and_user_sites() -> None:
    tree: dict[str, Member] = {
        "/usr/bin/python3.11": program(),
        "/usr/lib/python3.11/os.py": b"",
        "/usr/lib/python3/dist-packages/a.py": b"",
        "/usr/local/lib/python3.11/dist-packages/b.py": b"",
        "/home/me/.local/lib/python3.11/site-packages/c.py": b"",
    }
    filesystem = squash(layer(tree))
    found = find_interpreter(filesystem, "/usr/bin/python3.11", "/usr/bin/python3.11", {}, "/home/me", True)
    assert found is not None and found.sites == [
        "/home/me/.local/lib/python3.11/site-packages",
        "/usr/local/lib/python3.11/dist-packages",
        "/usr/lib/python3/dist-packages",
    ]


def test_options_of_the_interpreter() -> None:
    found = parse(["-BuOO", "-W", "ignore", "-Xdev", "-Im", "mod", "-x"], {})
    assert (found.module, found.arguments, found.optimize) == ("mod", ("-x",), 2)
    assert found.ignores_environment and found.no_user_site and found.safe_path
    assert parse(["-c", "code", "a"], {}).code == "code" and parse(["-"], {}).script is None
    assert parse(["--check-hash-based-pycs", "never", "s.py", "-m"], {}).script == "s.py"


def test_markers_against_packaging() -> None:
    markers = pytest.importorskip("packaging.markers")
    version = (sys.version_info[0], sys.version_info[1])
    for text in (
        "python_version < '3.8'",
        "python_version >= '3.8' and sys_platform == 'linux'",
        "sys_platform == 'win32' or os_name == 'posix'",
        "platform_python_implementation != 'CPython'",
        "python_version == '3.11' and platform_system == 'Windows'",
        "implementation_name in 'cpython pypy'",
    ):
        assert holds(text, version) == markers.Marker(text).evaluate(), text


# -- the oracle: a real interpreter ----------------------------------------------------------------------------

PROGRAM = """
import argparse, asyncio, concurrent.futures, csv, ctypes, datetime, decimal, email.message, hashlib, http.server
import importlib.metadata, json, logging.config, logging.handlers, multiprocessing, pickle, sqlite3, ssl, sysconfig
import statistics, tarfile, tempfile, urllib.request, uuid, xml.etree.ElementTree, xml.sax, zipfile, zoneinfo
import helper, sys
datetime.datetime.strptime("2024", "%Y"); sysconfig.get_config_var("prefix"); "ä".encode("idna")
xml.sax.make_parser()
pickle.dumps(decimal.Decimal(1)); "x".encode("cp437"); uuid.uuid4(); asyncio.run(asyncio.sleep(0))
concurrent.futures.ThreadPoolExecutor(1).submit(int).result(); multiprocessing.get_context("spawn").Queue()
json.dump(sorted({m.__file__ for m in list(sys.modules.values()) if getattr(m, "__file__", None)}), sys.stdout)
"""


def test_all_that_a_real_program_loads_is_kept(tmp_path: Path) -> None:
    base = Path(os.path.realpath(sys.base_prefix))
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    app = tmp_path / "app"
    app.mkdir()
    (app / "main.py").write_text(PROGRAM)
    (app / "helper.py").write_text("import textwrap\n")
    binary = base / "bin" / version
    ran = subprocess.run(
        [binary, "-I", "-c", f"import runpy, sys; sys.path.insert(0, {str(app)!r}); "
         f"runpy.run_path({str(app / 'main.py')!r}, run_name='__main__')"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    library = base / "lib" / version
    trees = {f"/py/bin/{version}": binary}
    for path in sorted(library.iterdir()):
        if path.name not in ("site-packages", "test", "ensurepip", "idlelib", "config-3.11-x86_64-linux-gnu"):
            trees[f"/py/lib/{version}/{path.name}"] = path
    filesystem = fs_of_folders(trees | {"/app": app})
    inside = {
        "os": "linux",
        "architecture": "amd64",
        "config": {"Cmd": [f"/py/bin/{version}", "/app/main.py"]},
    }
    config = parse_config(json.dumps(inside).encode())
    diagnostics: list[Diagnostic] = []
    found = [one for ecosystem in ecosystems() for one in ecosystem.packages(filesystem, config, diagnostics)]
    result = Needs(Attribution(filesystem, found), config)
    loaded = json.loads(ran.stdout)
    assert len(loaded) > 150
    missing = [
        file
        for file in loaded
        if file.startswith(str(library))
        and "/site-packages/" not in file
        and f"/py/lib/{version}{file.removeprefix(str(library))}" not in result.kept
    ]
    assert missing == []
    for name in ("tkinter", "turtle.py", "lib2to3", "pydoc_data", "turtledemo", "unittest", "distutils"):
        assert not any(path.startswith(f"/py/lib/{version}/{name}") for path in result.kept), name
