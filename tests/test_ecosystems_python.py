"""Python distributions, against importlib.metadata on the running environment and on literal trees."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import treekit
from imagekit import DIR, Member, Symlink

from layerlens.ecosystems.python import ecosystem
from layerlens.model import Package

SITE = "/usr/local/lib/python3.11/site-packages"


def metadata(name: str, version: str = "1.0", more: str = "") -> bytes:
    return f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{more}\nLong text.\nName: not me\n".encode()


def wheel(name: str, files: list[str], site: str = SITE, more: str = "") -> dict[str, Member]:
    """What pip leaves of a wheel: its files and a dist-info that records them."""
    info = f"{name.replace('-', '_')}-1.0.dist-info"
    record = [f"{file},sha256=abc,1" for file in files]
    record += [f"{info}/METADATA,sha256=abc,1", f"{info}/RECORD,,"]
    tree: dict[str, Member] = {
        f"{site}/{info}/METADATA": metadata(name, more=more),
        f"{site}/{info}/RECORD": "\n".join(record).encode(),
    }
    for file in files:
        tree[os.path.normpath(f"{site}/{file}")] = b"x"
    return tree


def found_in(tree: dict[str, Member]) -> dict[str, Package]:
    found, diagnostics = treekit.packages(ecosystem, treekit.fs(tree))
    assert diagnostics == []
    assert len({package.name for package in found}) == len(found)
    return {package.name: package for package in found}


def test_a_wheel_owns_its_directories_whole_and_its_scripts_one_by_one() -> None:
    more = "Requires-Dist: anyio (>=4)\nRequires-Dist: h2; extra == 'http2'\nLicense: BSD-3-Clause\n"
    tree = wheel("httpx", ["httpx/__init__.py", "httpx/_api.py", "../../../bin/httpx"], more=more)
    package = found_in(tree)["httpx"]
    assert package.version == "1.0" and package.license == "BSD-3-Clause"
    assert package.requires == ("anyio (>=4)", "h2; extra == 'http2'")
    assert package.location == f"{SITE}/httpx-1.0.dist-info/METADATA"
    assert package.roots == (f"{SITE}/httpx-1.0.dist-info", f"{SITE}/httpx")
    assert package.paths == ("/usr/local/bin/httpx",)
    assert package.category is None and not package.is_os


def test_a_namespace_is_shared_file_by_file_with_the_bytecode() -> None:
    tree = wheel("ns-one", ["ns/one.py"]) | wheel(
        "ns-two", ["ns/two.py", "ns/two_more.py", "alone/__init__.py"]
    )
    tree |= {
        f"{SITE}/ns/__pycache__/one.cpython-311.pyc": b"",
        f"{SITE}/ns/__pycache__/two.cpython-311.pyc": b"",
    }
    found = found_in(tree)
    assert found["ns-one"].paths == (f"{SITE}/ns/one.py", f"{SITE}/ns/__pycache__/one.cpython-311.pyc")
    assert found["ns-two"].paths == (
        f"{SITE}/ns/two.py",
        f"{SITE}/ns/__pycache__/two.cpython-311.pyc",
        f"{SITE}/ns/two_more.py",
    )
    assert f"{SITE}/alone" in found["ns-two"].roots and f"{SITE}/ns" not in found["ns-two"].roots


def test_a_top_level_module_brings_its_bytecode() -> None:
    tree = wheel("six", ["six.py"]) | {
        f"{SITE}/__pycache__/six.cpython-311.pyc": b"",
        f"{SITE}/sixty.py": b"",
    }
    assert found_in(tree)["six"].paths == (f"{SITE}/six.py", f"{SITE}/__pycache__/six.cpython-311.pyc")


def test_without_a_record_the_top_level_names_decide() -> None:
    tree: dict[str, Member] = {
        f"{SITE}/PyYAML-6.0.dist-info/METADATA": metadata("PyYAML", "6.0"),
        f"{SITE}/PyYAML-6.0.dist-info/top_level.txt": b"_yaml\nyaml\n../../../etc\n",
        f"{SITE}/yaml/__init__.py": b"",
        f"{SITE}/_yaml.cpython-311-x86_64-linux-gnu.so": b"",
        f"{SITE}/flask_cors-1.dist-info/METADATA": metadata("Flask-Cors"),
        f"{SITE}/flask_cors/__init__.py": b"",
    }
    found = found_in(tree)
    assert found["PyYAML"].roots == (f"{SITE}/PyYAML-6.0.dist-info", f"{SITE}/yaml")
    assert found["PyYAML"].paths == (f"{SITE}/_yaml.cpython-311-x86_64-linux-gnu.so",)
    assert found["Flask-Cors"].roots[1:] == (f"{SITE}/flask_cors",)


def test_eggs_in_all_their_forms() -> None:
    dist = "/usr/lib/python3/dist-packages"
    tree: dict[str, Member] = {
        # a single file, as distutils and Debian leave it
        f"{dist}/wadllib-1.3.6.egg-info": metadata("wadllib", "1.3.6"),
        f"{dist}/wadllib/__init__.py": b"",
        # a folder with the list of what was installed, relative to itself
        f"{SITE}/docopt-0.6-py3.11.egg-info/PKG-INFO": metadata("docopt", "0.6"),
        f"{SITE}/docopt-0.6-py3.11.egg-info/installed-files.txt": b"../docopt.py\nPKG-INFO\n",
        f"{SITE}/docopt.py": b"",
        # an egg, modules and metadata in one folder
        f"{SITE}/old-2.0-py3.11.egg/EGG-INFO/PKG-INFO": metadata("old", "2.0"),
        f"{SITE}/old-2.0-py3.11.egg/old/__init__.py": b"",
        # the project's own sources, made importable in place
        "/app/src/shop.egg-info/PKG-INFO": metadata("shop", "0.1"),
        "/app/src/shop.egg-info/top_level.txt": b"shop\n",
        "/app/src/shop/__init__.py": b"",
    }
    found = found_in(tree)
    assert found["wadllib"].roots == (f"{dist}/wadllib",)
    assert found["wadllib"].paths == (f"{dist}/wadllib-1.3.6.egg-info",)
    assert found["docopt"].paths == (f"{SITE}/docopt.py",)
    assert found["old"].roots == (f"{SITE}/old-2.0-py3.11.egg",)
    assert found["shop"].category == "app" and found["shop"].roots == ("/app/src/shop.egg-info",)


def test_what_is_vendored_belongs_to_the_one_that_vendors() -> None:
    vendored = f"{SITE}/setuptools/_vendor"
    tree = wheel("setuptools", ["setuptools/__init__.py"]) | wheel(
        "packaging", ["packaging/__init__.py"], vendored
    )
    found = found_in(tree)
    assert list(found) == ["setuptools"] and found["setuptools"].category == "compilers"


def test_every_site_counts_environments_and_user_installs_too() -> None:
    sites = [
        SITE,
        "/usr/lib/python3/dist-packages",
        "/app/.venv/lib/python3.11/site-packages",
        "/home/a/.local/lib/python3.11/site-packages",
        "/srv/target",
    ]
    tree: dict[str, Member] = {}
    for number, site in enumerate(sites):
        tree |= wheel(f"p{number}", [f"p{number}/__init__.py"], site)
    assert [package.roots[1] for package in sorted(found_in(tree).values(), key=lambda p: p.name)] == [
        f"{site}/p{number}" for number, site in enumerate(sites)
    ]


def test_recorded_links_are_followed_to_the_real_directory() -> None:
    site = "/venv/lib/python3.11/site-packages"
    tree = wheel("p", ["p/__init__.py", "../../../lib64/python3.11/site-packages/q.py"], site)
    del tree["/venv/lib64/python3.11/site-packages/q.py"]
    tree |= {"/venv/lib64": Symlink(target="lib"), f"{site}/q.py": b""}
    assert found_in(tree)["p"].paths == (f"{site}/q.py",)


@pytest.mark.parametrize(
    "record",
    [
        b'"p/with,comma.py",,\n"p/quo""te.py",,\np/x.py,,',
        b"\xff\xfe\n",
        b"",
        b",,\n,,",
        b"/etc/passwd,,\n../../../../../../../../../../x,,",
        b'"never closed',
        b"p/\x00.py,,",
    ],
)
def test_a_hostile_record_is_no_exception(record: bytes) -> None:
    tree: dict[str, Member] = {
        f"{SITE}/p-1.dist-info/METADATA": metadata("p"),
        f"{SITE}/p-1.dist-info/RECORD": record,
    }
    package = found_in(tree)["p"]
    assert all(path.startswith("/") and "/../" not in path for path in (*package.paths, *package.roots))


def test_metadata_without_a_name_is_said_and_told_by_its_path() -> None:
    tree = {f"{SITE}/lost-3.1.dist-info/METADATA": b"\x00\xff\n", f"{SITE}/empty-1.dist-info/": DIR}
    found, diagnostics = treekit.packages(ecosystem, treekit.fs(tree))
    assert [(package.name, package.version) for package in found] == [("lost", "3.1")]
    assert sorted(diagnostic.severity for diagnostic in diagnostics) == ["info", "warning"]


def skeleton(site: Path, at: str) -> dict[str, Member]:
    """A real site, every file there but empty unless the ecosystem wants it."""
    tree: dict[str, Member] = {}
    for folder, _, names in os.walk(site):
        for name in names:
            path = Path(folder) / name
            inside = f"{at}/{path.relative_to(site)}"
            tree[inside] = path.read_bytes() if ecosystem.wants(inside) and path.is_file() else b""
    return tree


def test_the_running_environment_as_importlib_metadata_tells_it() -> None:
    site = Path(sysconfig.get_path("purelib"))
    filesystem = treekit.fs(skeleton(site, SITE))
    found, diagnostics = treekit.packages(ecosystem, filesystem)
    expected = {
        (dist.metadata["Name"], dist.version): dist
        for dist in importlib.metadata.distributions(path=[str(site)])
    }
    assert {(package.name, package.version) for package in found} == set(expected)
    assert [diagnostic for diagnostic in diagnostics if diagnostic.severity != "info"] == []
    owners = treekit.owners(filesystem, found)
    checked = 0
    for (name, _), dist in expected.items():
        for file in dist.files or ():
            path = os.path.normpath(f"{SITE}/{file}")
            if path.startswith(SITE) and filesystem.exists(path):
                assert owners[path].name == name, path
                checked += 1
    assert checked > 1000
    # And what nobody owns is nobody's: .pth files and such that tools write by hand.
    unowned = [path for path in filesystem.walk_files(SITE) if path not in owners]
    assert len(unowned) < 0.01 * checked


def test_what_pip_installs_from_a_project_into_an_environment(tmp_path: Path) -> None:
    """A real build and install, without an index: the wheel is made by hand, pip does the rest."""
    import base64
    import hashlib
    import zipfile

    files = {
        "shop/__init__.py": b"",
        "shop/data/prices.txt": b"1\n",
        "shop-0.3.dist-info/METADATA": metadata("shop", "0.3"),
        "shop-0.3.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "shop-0.3.dist-info/entry_points.txt": b"[console_scripts]\nshop = shop:main\n",
    }
    record = "".join(
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}\n"
        for name, data in files.items()
    )
    archive = tmp_path / "shop-0.3-py3-none-any.whl"
    with zipfile.ZipFile(archive, "w") as zipped:
        for name, data in {**files, "shop-0.3.dist-info/RECORD": record.encode()}.items():
            zipped.writestr(name, data)
    prefix = tmp_path / "prefix"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-index",
            "--no-deps",
            "--prefix",
            prefix,
            archive,
        ],
        check=True,
        capture_output=True,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )
    filesystem = treekit.fs_of_folders({"/opt/shop": prefix})
    found, _ = treekit.packages(ecosystem, filesystem)
    assert [(package.name, package.version) for package in found] == [("shop", "0.3")]
    owners = treekit.owners(filesystem, found)
    # Everything that pip put there, bytecode and console script included, is owned.
    assert sorted(owners) == sorted(filesystem.walk_files("/"))
    assert any(path.endswith("/bin/shop") for path in owners)
    assert any(path.endswith(".pyc") for path in owners)
