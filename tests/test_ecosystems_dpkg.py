"""Debian's database, against dpkg itself where the machine has it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import treekit
from imagekit import DIR, Symlink

from layerlens.ecosystems.dpkg import category_of, ecosystem

STATUS = b"""\
Package: hello
Status: install ok installed
Section: misc
Architecture: amd64
Version: 2.10-3
Depends: libc6 (>= 2.34), libgcc-s1 | libgcc1 (>= 1:3.0),
 dpkg (>= 1.15.4)
Pre-Depends: init-system-helpers
Description: example package
 Version: 9 in the description is none

Package: libtwo
Status: install ok installed
Architecture: amd64
Multi-Arch: same
Version: 1

Package: libtwo
Status: install ok installed
Architecture: i386
Multi-Arch: same
Version: 1

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: g++-12
Status: install ok installed
Architecture: amd64
Version: 12.2.0-14
"""


def test_a_database_from_literals() -> None:
    filesystem = treekit.fs(
        {
            "/bin": Symlink(target="usr/bin"),
            "/usr/bin/": DIR,
            "/usr/bin/hello": b"x",
            "/var/lib/dpkg/status": STATUS,
            "/var/lib/dpkg/info/hello.list": b"/.\n/bin\n/bin/hello\n/usr\n/usr/share\n/usr/share/doc\n"
            b"/etc/hello.conf\n",
            "/var/lib/dpkg/info/libtwo:amd64.list": b"/.\n/usr/lib/a.so\n",
            "/var/lib/dpkg/info/libtwo:i386.list": b"/.\n/usr/lib/b.so\n",
            "/var/lib/dpkg/info/g++-12.list": b"",
            "/var/lib/dpkg/info/gone.list": b"/.\n/etc/gone\n",
        }
    )
    found, diagnostics = treekit.packages(ecosystem, filesystem)
    assert diagnostics == []
    assert [(p.name, p.version, p.location, p.category) for p in found] == [
        ("hello", "2.10-3", "/var/lib/dpkg/info/hello.list", None),
        ("libtwo", "1", "/var/lib/dpkg/info/libtwo:amd64.list", None),
        ("libtwo", "1", "/var/lib/dpkg/info/libtwo:i386.list", None),
        ("g++-12", "12.2.0-14", "/var/lib/dpkg/info/g++-12.list", "compilers"),
    ]
    hello = found[0]
    # /bin/hello is the image's /usr/bin/hello; directories that others lie in are not owned.
    assert hello.paths == ("/usr/bin/hello", "/usr/share/doc", "/etc/hello.conf")
    assert hello.requires == (
        "init-system-helpers",
        "libc6 (>= 2.34)",
        "libgcc-s1 | libgcc1 (>= 1:3.0)",
        "dpkg (>= 1.15.4)",
    )
    assert found[1].paths == ("/usr/lib/a.so",) and found[2].paths == ("/usr/lib/b.so",)
    assert all(package.is_os for package in found)


def test_diversions_give_the_path_to_the_package_that_diverts() -> None:
    filesystem = treekit.fs(
        {
            "/var/lib/dpkg/status": b"Package: dash\nStatus: install ok installed\nVersion: 1\n\n"
            b"Package: bash\nStatus: install ok installed\nVersion: 5\n",
            "/var/lib/dpkg/info/dash.list": b"/bin\n/bin/sh\n",
            "/var/lib/dpkg/info/bash.list": b"/bin\n/bin/sh\n/bin/bash\n",
            "/var/lib/dpkg/diversions": b"/bin/sh\n/bin/sh.distrib\ndash\n",
        }
    )
    found, _ = treekit.packages(ecosystem, filesystem)
    assert [(p.name, p.paths) for p in found] == [
        ("dash", ("/bin/sh",)),
        ("bash", ("/bin/sh.distrib", "/bin/bash")),
    ]


def test_bytecode_belongs_to_the_package_of_its_module() -> None:
    filesystem = treekit.fs(
        {
            "/var/lib/dpkg/status": b"Package: python3-six\nStatus: install ok installed\nVersion: 1\n",
            "/var/lib/dpkg/info/python3-six.list": b"/usr/lib/python3/dist-packages/six.py\n",
            "/usr/lib/python3/dist-packages/six.py": b"",
            "/usr/lib/python3/dist-packages/__pycache__/six.cpython-311.pyc": b"",
            "/usr/lib/python3/dist-packages/__pycache__/other.cpython-311.pyc": b"",
        }
    )
    found, _ = treekit.packages(ecosystem, filesystem)
    assert found[0].paths == (
        "/usr/lib/python3/dist-packages/six.py",
        "/usr/lib/python3/dist-packages/__pycache__/six.cpython-311.pyc",
    )


def test_distroless_keeps_a_stanza_for_each_package() -> None:
    filesystem = treekit.fs(
        {
            "/var/lib/dpkg/status.d/base": b"Package: base-files\nVersion: 12.4\nDepends: libc6\n",
            "/var/lib/dpkg/status.d/base.md5sums": (
                b"9f86d081884c7d659a2feaa0c55ad015  etc/debian_version\n"
                b"60303ae22b998861bce3b28f33eec1be  usr/lib/os-release\n"
            ),
            "/var/lib/dpkg/status.d/nothing": b"\x00\xff\n",
        }
    )
    found, diagnostics = treekit.packages(ecosystem, filesystem)
    assert [(p.name, p.version, p.paths, p.requires) for p in found] == [
        ("base-files", "12.4", ("/etc/debian_version", "/usr/lib/os-release"), ("libc6",))
    ]
    assert [(d.code, d.path) for d in diagnostics] == [("broken-metadata", "/var/lib/dpkg/status.d/nothing")]


def test_a_missing_list_is_said_once() -> None:
    status = b"".join(b"Package: p%d\nStatus: install ok installed\nVersion: 1\n\n" % n for n in range(9))
    found, diagnostics = treekit.packages(ecosystem, treekit.fs({"/var/lib/dpkg/status": status}))
    assert len(found) == 9 and all(package.paths == () for package in found)
    assert [diagnostic.code for diagnostic in diagnostics] == ["missing-file-list"]
    assert "9 installed packages" in diagnostics[0].message


@pytest.mark.parametrize(
    "status",
    [b"", b"\n\n\n", b"\xff\xfe\x00", b"Package:\nStatus: install ok installed\n", b"x" * 100_000, b": :\n"],
)
def test_nonsense_is_no_package_and_no_exception(status: bytes) -> None:
    assert treekit.packages(ecosystem, treekit.fs({"/var/lib/dpkg/status": status}))[0] == []


def test_links_in_a_circle_are_a_diagnostic() -> None:
    filesystem = treekit.fs({"/var/lib/dpkg/status": Symlink(target="status")})
    found, diagnostics = treekit.packages(ecosystem, filesystem)
    assert found == [] and [diagnostic.code for diagnostic in diagnostics] == ["unreadable-metadata"]


@pytest.mark.parametrize(
    ("name", "category"),
    [
        ("gcc-12", "compilers"),
        ("gcc-12-base", "os-base"),
        ("cpp-12", "compilers"),
        ("libgcc-12-dev", "compilers"),
        ("libgcc-s1", None),
        ("libstdc++6", None),
        ("libstdc++-12-dev", None),
        ("libgomp1", None),
        ("libasan8", "compilers"),
        ("binutils-x86-64-linux-gnu", "compilers"),
        ("make", "compilers"),
        ("makedev", None),
        ("git", "compilers"),
        ("gitlab-shell", None),
        ("mercurial", "compilers"),
        ("libc6-dev", None),
        ("libc6-dbg", "debug"),
        ("python3.11-minimal", "runtime"),
        ("libpython3.11-stdlib", "runtime"),
        ("libpython3.11-dev", None),
        ("python3-yaml", None),
        ("python3-pip", "compilers"),
        ("perl-base", "runtime"),
        ("libperl5.36", "runtime"),
        ("nodejs", "runtime"),
        ("openjdk-17-jre-headless", "runtime"),
        ("openjdk-17-jdk-headless", "compilers"),
        ("golang-1.19-src", "compilers"),
        ("golang-github-foo-bar-dev", None),
        ("libllvm14", None),
        ("libllvm15", None),
        ("llvm-14-dev", None),
        ("clang-14", "compilers"),
        ("bash-doc", "docs"),
        ("locales", "locale"),
        ("bash", None),
        ("coreutils", None),
    ],
)
def test_what_a_package_is_for_by_its_name(name: str, category: str | None) -> None:
    assert category_of(name) == category


def test_wants_is_what_it_reads() -> None:
    assert ecosystem.wants("/var/lib/dpkg/status")
    assert ecosystem.wants("/var/lib/dpkg/info/libc6:amd64.list")
    assert ecosystem.wants("/var/lib/dpkg/status.d/base.md5sums")
    assert not ecosystem.wants("/var/lib/dpkg/info/libc6:amd64.postinst")
    assert not ecosystem.wants("/srv/x.list")


@pytest.mark.skipif(shutil.which("dpkg-query") is None, reason="no dpkg on this machine")
def test_this_machine_as_dpkg_itself_tells_it() -> None:
    """Names, versions and files of every installed package, against dpkg-query -W and -L."""
    database = Path("/var/lib/dpkg")
    filesystem = treekit.fs_of_folders(
        {
            "/var/lib/dpkg/status": database / "status",
            "/var/lib/dpkg/info": database / "info",
            "/var/lib/dpkg/diversions": database / "diversions",
        }
    )
    found, diagnostics = treekit.packages(ecosystem, filesystem)
    assert diagnostics == []
    shown = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package}\t${Version}\t${db:Status-Status}\n"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    expected = [
        tuple(line.split("\t")[:2])
        for line in shown.splitlines()
        if line.split("\t")[2] not in ("config-files", "not-installed")
    ]
    assert sorted((package.name, package.version) for package in found) == sorted(expected)
    assert len(found) > 50
    for package in found[:: max(1, len(found) // 25)]:
        name = package.location.rpartition("/")[2].removesuffix(".list")
        shown = subprocess.run(["dpkg", "-L", name], capture_output=True, text=True, check=True).stdout
        listed = _after_diversions(shown.splitlines())
        leaves = {path for path in listed if not any(other.startswith(f"{path}/") for other in listed)}
        assert set(package.paths) == leaves - {"/."}, name


def _after_diversions(lines: list[str]) -> set[str]:
    """`dpkg -L` prints a diverted path, then a line that says where the file went."""
    listed: list[str] = []
    for line in lines:
        if line.startswith("package diverts others to: "):
            continue
        if line.startswith(("diverted by ", "locally diverted to: ")):
            listed[-1] = line.partition(" to: ")[2]
            continue
        listed.append(line)
    return set(listed)
