"""Debian's database, against dpkg itself where the machine has it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import needskit
import pytest
import treekit
from imagekit import DIR, Member, Symlink

from layerlens.ecosystems.dpkg import alternatives, category_of, ecosystem

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


def status(**fields: str) -> str:
    """A stanza of an installed package; names with a dash are written with an underscore."""
    pairs = {"Status": "install ok installed", "Version": "1", **fields}
    return "".join(f"{name.replace('_', '-')}: {value}\n" for name, value in pairs.items())


def database(*packages: tuple[str, str]) -> dict[str, Member]:
    """A dpkg database of stanzas, each with the paths it lists."""
    members: dict[str, Member] = {"/var/lib/dpkg/status": "\n".join(s for s, _ in packages).encode()}
    for stanza, paths in packages:
        name = stanza.split("Package: ")[1].split("\n")[0]
        members[f"/var/lib/dpkg/info/{name}.list"] = ("/.\n" + "\n".join(paths.split()) + "\n").encode()
    return members


TOOL = database(
    (
        status(
            Package="tool",
            Depends="libtool2 (>= 2), debconf | debconf-2.0, essential-data, tool-man",
            Source="ts",
        ),
        "/usr/bin/tool /usr/lib/tool/step /usr/lib/tool/run.sh /usr/lib/tool/run.pl /etc/tool.conf /etc/init.d/tool"
        " /usr/share/tool/table /usr/share/applications/tool.desktop /usr/share/doc/tool/copyright",
    ),
    (
        status(Package="libtool2", Pre_Depends="magic:any, meta, tools-of-data", Depends="libperlish-perl"),
        "/usr/lib/x86_64-linux-gnu/libtool.so.2 /usr/lib/x86_64-linux-gnu/tool2/plugin.so",
    ),
    (
        status(Package="magic-table", Provides="magic (= 3)"),
        "/usr/share/magic/table /usr/share/man/man5/magic.5",
    ),
    (status(Package="meta", Depends="fonts"), "/usr/share/doc/meta/copyright"),
    (status(Package="fonts"), "/usr/share/fonts/a.ttf"),
    (
        status(Package="tools-of-data", Depends="more"),
        "/usr/sbin/update-tables /usr/share/tables/x /etc/cron.daily/x",
    ),
    (status(Package="more", Depends="tools-of-data"), "/usr/bin/more-tool /usr/share/more/x"),
    (status(Package="debconf"), "/usr/sbin/debconf /usr/share/debconf/x"),
    (status(Package="essential-data", Essential="yes"), "/usr/share/essential/x"),
    (status(Package="libperlish-perl"), "/usr/share/perl5/Perlish.pm"),
    (status(Package="tool-man", Source="ts (2)"), "/usr/share/tool/manual-table"),
)


def files_of(members: dict[str, Member]) -> dict[str, Member]:
    """The database with every file it lists."""
    texts = [text for path, text in members.items() if path.endswith(".list") and isinstance(text, bytes)]
    listed = [path for text in texts for path in text.decode().split("\n")[1:-1]]
    contents: dict[str, Member] = dict.fromkeys(listed, b"x")
    contents |= {path: b"\x7fELF" for path in listed if ".so" in path}
    return {**members, **contents}


def test_what_a_program_needs_of_its_package_and_of_data_packages() -> None:
    members = files_of(TOOL)
    members |= {
        "/usr/bin/tool": needskit.program("#!/usr/lib/x86_64-linux-gnu/libtool.so.2\n"),
        "/usr/lib/tool/step": needskit.program(b"\x7fELF"),
        "/usr/lib/tool/run.sh": needskit.program("#!/usr/bin/env tool\n"),
        "/usr/lib/tool/run.pl": needskit.program("#!/usr/bin/perl\n"),
        "/usr/bin/perl": needskit.program(),
        "/usr/sbin/update-tables": needskit.program(),
    }
    found = needskit.needs(members, entrypoint=["tool"])
    why = {
        path: (edge.kind, edge.evidence) for path, edge in found.kept.items() if edge.certainty == "assumed"
    }
    own = {path: told for path, told in why.items() if not found.fs.is_dir(path) and told[0] != "policy"}
    assert own == {
        "/etc/tool.conf": ("config", "configuration of tool"),
        "/usr/lib/tool/step": ("package-file", "/usr/lib/tool is a directory of tool alone"),
        "/usr/lib/tool/run.sh": ("package-file", "/usr/lib/tool is a directory of tool alone"),
        # tool-man is of the same source, so that the directory is theirs together.
        "/usr/share/tool/table": ("package-file", "/usr/share/tool is a directory of tool alone"),
        "/usr/share/tool/manual-table": own["/usr/share/tool/manual-table"],
        "/usr/lib/x86_64-linux-gnu/tool2/plugin.so": (
            "package-file",
            "/usr/lib/x86_64-linux-gnu/tool2 is a directory of libtool2 alone",
        ),
        "/usr/share/magic/table": ("depends", "libtool2 depends on magic-table"),
        "/usr/share/fonts/a.ttf": ("depends", "meta depends on fonts"),
        "/usr/share/tables/x": ("depends", "libtool2 depends on tools-of-data"),
    }


def test_what_installing_brings() -> None:
    found, _ = treekit.packages(ecosystem, treekit.fs(TOOL))
    assert [package.name for package in ecosystem.closure(["libtool2"], found, ["fonts"])] == [
        "libperlish-perl",
        "libtool2",
        "magic-table",
        "meta",
        "more",
        "tools-of-data",
    ]
    # What the base has meets an alternative, whatever its place and whether the builder has it too.
    names = [
        package.name for package in ecosystem.closure(["tool", "none"], found, ["debconf-2.0", "libtool2"])
    ]
    assert names == ["essential-data", "tool", "tool-man"]


@pytest.mark.parametrize(
    ("relation", "names"),
    [
        ("libc6 (>= 2.34)", ("libc6",)),
        ("python3:any (>= 3.5~) | python3-minimal [amd64] <!nocheck>", ("python3", "python3-minimal")),
        ("g++-12", ("g++-12",)),
        ("", ()),
        ("|(|:", ()),
    ],
)
def test_names_of_a_relation(relation: str, names: tuple[str, ...]) -> None:
    assert alternatives(relation) == names


def test_the_line_that_installs() -> None:
    assert ecosystem.install_lines(["b", "a"]) == (
        "RUN apt-get update \\\n    && apt-get install -y --no-install-recommends a b \\\n"
        "    && rm -rf /var/lib/apt/lists/*"
    )
    assert ecosystem.install_lines(list("edcba")).split("\n")[1:4] == [
        "    && apt-get install -y --no-install-recommends \\",
        "        a \\",
        "        b \\",
    ]


def test_a_release_is_an_id_and_a_version_or_a_codename() -> None:
    def image(release: str, tool: str = "/usr/bin/apt-get") -> treekit.Filesystem:
        return treekit.fs({"/usr/lib/os-release": release.encode(), tool: b""})

    bookworm = image('ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n')
    assert ecosystem.same_distribution(bookworm, bookworm)
    assert not ecosystem.same_distribution(bookworm, image('ID=debian\nVERSION_ID="11"\n'))
    assert not ecosystem.same_distribution(bookworm, image('ID=ubuntu\nVERSION_ID="12"\n'))
    assert not ecosystem.same_distribution(bookworm, image("ID=debian\nVERSION_ID=12\n", "/usr/bin/none"))
    trixie = image("ID=debian\nVERSION_CODENAME=trixie\n")
    assert ecosystem.same_distribution(trixie, trixie) and not ecosystem.same_distribution(trixie, bookworm)
    assert not ecosystem.same_distribution(image(""), image(""))


def test_status_is_cut_to_the_kept_packages() -> None:
    filesystem = treekit.fs(
        {
            "/var/lib/dpkg/status": STATUS,
            "/var/lib/dpkg/info/hello.list": b"/.\n/usr/bin/hello\n",
            "/var/lib/dpkg/info/libtwo:amd64.list": b"/.\n/usr/lib/a.so\n",
            "/var/lib/dpkg/info/libtwo:i386.list": b"/.\n/usr/lib/b.so\n",
            "/var/lib/dpkg/status.d/base": b"Package: base-files\nVersion: 12.4\n",
            "/var/lib/dpkg/status.d/base.md5sums": b"9f86d081884c7d659a2feaa0c55ad015  etc/debian_version\n",
            "/var/lib/dpkg/status.d/more": b"Package: more\nVersion: 1\n",
        }
    )
    found, _ = treekit.packages(ecosystem, filesystem)
    kept = [package for package in found if package.paths and package.paths != ("/usr/lib/a.so",)]
    stanzas = STATUS.split(b"\n\n")
    assert ecosystem.reduced(filesystem, kept) == {
        "/var/lib/dpkg/status": stanzas[0] + b"\n\n" + stanzas[2] + b"\n\n",
        "/var/lib/dpkg/status.d/base": b"Package: base-files\nVersion: 12.4\n",
        "/var/lib/dpkg/status.d/base.md5sums": b"9f86d081884c7d659a2feaa0c55ad015  etc/debian_version\n",
    }


@pytest.mark.skipif(shutil.which("dpkg-query") is None, reason="no dpkg on this machine")
def test_dpkg_reads_the_reduced_status_of_this_machine(tmp_path: Path) -> None:
    folders = {"/var/lib/dpkg/status": "/var/lib/dpkg/status", "/var/lib/dpkg/info": "/var/lib/dpkg/info"}
    filesystem = treekit.fs_of_folders(folders)
    found, _ = treekit.packages(ecosystem, filesystem)
    kept = found[::7]
    (tmp_path / "status").write_bytes(ecosystem.reduced(filesystem, kept)["/var/lib/dpkg/status"])
    command = ["dpkg-query", f"--admindir={tmp_path}", "-W", "-f", "${Package}\t${Version}\n"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert sorted(shown.stdout.split("\n")[:-1]) == sorted(f"{p.name}\t{p.version}" for p in kept)
    assert shown.stderr == ""


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="no apt on this machine")
def test_closures_are_what_apt_would_install(tmp_path: Path) -> None:
    """``apt-get install --simulate`` on an empty system, from a repository of this machine's packages alone."""
    database = Path("/var/lib/dpkg")
    filesystem = treekit.fs_of_folders(
        {"/var/lib/dpkg/status": database / "status", "/var/lib/dpkg/info": database / "info"}
    )
    found, _ = treekit.packages(ecosystem, filesystem)
    apt = _apt_of(tmp_path, (database / "status").read_text(), {package.name for package in found})
    compared = 0
    for package in found[::25]:
        names = [package.name, found[0].name]
        shown = subprocess.run(
            [*apt, "install", "--simulate", "--no-install-recommends", *names], capture_output=True
        )
        if shown.returncode:  # this machine has it in spite of a dependency that nothing here meets
            continue
        lines = shown.stdout.decode().splitlines()
        apts = {line.split()[1].partition(":")[0] for line in lines if line.startswith("Inst ")}
        assert {one.name for one in ecosystem.closure(names, found, ())} == apts, names
        compared += 1
    assert compared > 5


def _apt_of(folder: Path, status: str, names: set[str]) -> list[str]:
    """apt-get with an empty dpkg status and one repository: the stanzas of ``status`` of those names."""
    wanted = (stanza for stanza in status.split("\n\n") if stanza.split("\n")[0][len("Package: ") :] in names)
    fields = "Filename: ./x.deb\nSize: 1\nSHA256: " + "0" * 64
    packages = [f"{stanza.strip()}\n{fields}\n" for stanza in wanted]
    (folder / "repository").mkdir()
    (folder / "repository" / "Packages").write_text("\n".join(packages))
    (folder / "sources").write_text(f"deb [trusted=yes] file:{folder}/repository ./\n")
    (folder / "status").write_text("")
    options = {
        "Dir::State": folder / "state",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
        "Dir::Etc::SourceList": folder / "sources",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::Etc::Preferences": "/dev/null",
        "Dir::Etc::PreferencesParts": "/dev/null",
        "APT::Sandbox::User": "root",
    }
    for made in ("state/lists/partial", "cache/archives/partial"):
        (folder / made).mkdir(parents=True)
    command = ["apt-get", *(word for key, value in options.items() for word in ("-o", f"{key}={value}"))]
    subprocess.run([*command, "update"], capture_output=True, check=True)
    return command
