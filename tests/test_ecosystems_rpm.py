"""rpm's database: one that rpm wrote (tests/cases/rpm/make), against what rpm said of it."""

from __future__ import annotations

import gzip
import shutil
import sqlite3
import struct
import subprocess
from contextlib import closing
from pathlib import Path

import needskit
import pytest
import treekit
from imagekit import DIR, Symlink

from layerlens.ecosystems.rpm import category_of, ecosystem, read_header
from layerlens.model import Package

CASE = Path(__file__).parent / "cases" / "rpm" / "sqlite"
DATABASE = gzip.decompress((CASE / "rpmdb.sqlite.gz").read_bytes())
AT = "/var/lib/rpm/rpmdb.sqlite"


def told(file: str) -> list[list[str]]:
    return [line.split("\t") for line in (CASE / file).read_text().splitlines()]


def found() -> list[Package]:
    packages, diagnostics = treekit.packages(ecosystem, treekit.fs({AT: DATABASE}))
    assert diagnostics == []
    return packages


def test_packages_as_rpm_tells_them() -> None:
    assert sorted([p.name, p.version, p.license] for p in found()) == told("qa.txt")
    listed: dict[str, set[str]] = {}
    for name, path in told("ql.txt"):
        listed.setdefault(name, set()).add(path)
    for package in found():
        paths = listed[package.name]
        assert set(package.paths) == {p for p in paths if not any(q.startswith(f"{p}/") for q in paths)}
        requires = {line[1] for line in told("requires.txt") if line[0] == package.name}
        plain = {word if word.startswith("(") else word.split()[0] for word in requires}
        assert set(package.requires) == {word for word in plain if not word.startswith("rpmlib(")}
    assert all(package.is_os and package.location == AT for package in found())


def test_a_folder_that_links_to_the_other_is_read_once() -> None:
    linked = {"/var/lib/rpm": Symlink(target="../../usr/lib/sysimage/rpm"), "/bin": Symlink(target="usr/bin")}
    at = "/usr/lib/sysimage/rpm/rpmdb.sqlite"
    packages, diagnostics = treekit.packages(ecosystem, treekit.fs({**linked, at: DATABASE}))
    assert diagnostics == [] and len(packages) == 4 and {p.location for p in packages} == {at}


def test_what_installing_brings() -> None:
    names = [p.name for p in ecosystem.closure(["tide"], found(), ())]
    # /usr/bin/sh is a file of tide-shell; the "or" is met by what is installed.
    assert names == ["tide", "tide-data", "tide-libs", "tide-shell"]
    assert [p.name for p in ecosystem.closure(["tide"], found(), {"tide-shell"})] == names[:3]
    assert ecosystem.install_lines(["b", "a"]) == (
        "RUN dnf=$(command -v microdnf || command -v dnf || command -v yum) \\\n"
        "    && $dnf install -y --nodocs --setopt=install_weak_deps=0 a b \\\n"
        "    && $dnf clean all"
    )


def test_data_of_a_dependency_is_kept() -> None:
    kept = needskit.kept_files(
        needskit.needs(
            {
                AT: DATABASE,
                "/usr/bin/tide": needskit.program(),
                "/usr/bin/sh": needskit.program(),
                "/usr/lib64/libtide.so.2.1": b"\x7fELF",
                "/usr/share/tide/bergen.dat": b"1",
                "/etc/tide/tide.conf": b"x",
                "/usr/share/doc/tide/README": b"x",
            },
            entrypoint=["/usr/bin/tide"],
        )
    )
    assert kept >= {"/usr/bin/tide", "/usr/share/tide/bergen.dat", "/etc/tide/tide.conf"}
    assert kept.isdisjoint({"/usr/share/doc/tide/README", "/usr/lib64/libtide.so.2.1", "/usr/bin/sh"})


def test_releases_go_together_by_their_first_number() -> None:
    def image(version: str, tool: bool = True) -> treekit.Filesystem:
        release = f'ID="rhel"\nVERSION_ID="{version}"\n'.encode()
        return treekit.fs(
            {"/etc/os-release": release, "/usr/bin/": DIR} | ({"/usr/bin/microdnf": b""} if tool else {})
        )

    assert ecosystem.same_distribution(image("9.3"), image("9.4"))
    assert not ecosystem.same_distribution(image("9.3"), image("8.9"))
    assert not ecosystem.same_distribution(image("9.3"), image("9.3", tool=False))


def test_a_reduced_database_is_rpms_own() -> None:
    filesystem = treekit.fs({AT: DATABASE})
    kept = [package for package in found() if package.name in ("tide", "tide-data")]
    reduced = ecosystem.reduced(filesystem, kept)
    assert list(reduced) == [AT] and reduced == ecosystem.reduced(filesystem, kept)
    again, diagnostics = treekit.packages(ecosystem, treekit.fs(reduced))
    assert diagnostics == [] and [(p.name, p.paths) for p in again] == [(p.name, p.paths) for p in kept]
    with closing(sqlite3.connect(":memory:")) as old, closing(sqlite3.connect(":memory:")) as new:
        old.deserialize(DATABASE[:18] + b"\x01\x01" + DATABASE[20:])
        new.deserialize(reduced[AT])
        assert new.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        blobs = dict(old.execute("SELECT hnum, blob FROM Packages"))
        left = dict(new.execute("SELECT hnum, blob FROM Packages"))
        assert left.items() <= blobs.items() and len(left) == 2
        for table, sql in old.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND sql LIKE '%hnum%' AND name != 'Packages'"
        ):
            made = new.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()
            assert "".join(made[0].split()) == "".join(sql.split())
            rows = set(old.execute(f"SELECT key, hnum, idx FROM '{table}'"))
            assert set(new.execute(f"SELECT key, hnum, idx FROM '{table}'")) == {
                r for r in rows if r[1] in left
            }


def test_rpm_itself_reads_what_is_reduced(tmp_path: Path) -> None:
    rpm = shutil.which("rpm")
    if rpm is None:
        pytest.skip("no rpm on this machine; the test above compares schema and rows with what it wrote")
    kept = [package for package in found() if package.name in ("tide", "tide-data")]
    (tmp_path / "rpmdb.sqlite").write_bytes(ecosystem.reduced(treekit.fs({AT: DATABASE}), kept)[AT])

    def ask(*words: str) -> list[str]:
        command = [rpm, "--dbpath", str(tmp_path), "--define", "_db_backend sqlite", *words]
        return sorted(
            subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")[:-1]
        )

    assert ask("-qa", "--qf", "%{NAME}\\n") == ["tide", "tide-data"]
    assert ask("-q", "--whatprovides", "config(tide-data)", "--qf", "%{NAME}\\n") == ["tide-data"]
    assert ask("-qf", "/usr/bin/tide", "--qf", "%{NAME}\\n") == ["tide"]


def headers(*blobs: bytes, sql: str = "CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB)") -> bytes:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(sql)
        if "TABLE" in sql:
            connection.executemany("INSERT INTO Packages (blob) VALUES (?)", [(blob,) for blob in blobs])
        connection.commit()
        return connection.serialize()


def header(*entries: tuple[int, int, int, int], data: bytes = b"", count: int | None = None) -> bytes:
    index = b"".join(struct.pack(">IIII", *entry) for entry in entries)
    return struct.pack(">II", len(entries) if count is None else count, len(data)) + index + data


BROKEN_HEADERS = [
    b"",
    b"\xff" * 200,
    header(count=0xFFFF),
    header(count=0xFFFFFFFF),
    header((1000, 6, 99, 1), data=b"x\0"),
    header((1000, 6, 0, 1), data=b"unterminated"),
    header((1000, 4, 0, 0xFFFFFFFF), (1001, 8, 0, 0xFFFFFFFF), data=b"x\0"),
    header((1000, 6, 0, 1), data=b"name-without-version\0"),
]


@pytest.mark.parametrize("blob", BROKEN_HEADERS)
def test_a_broken_header_is_a_diagnostic(blob: bytes) -> None:
    good = header((1000, 6, 0, 1), (1001, 6, 2, 1), data=b"n\x001\0")
    filesystem = treekit.fs({AT: headers(blob, good)})
    packages, diagnostics = treekit.packages(ecosystem, filesystem)
    assert [(p.name, p.version) for p in packages] == [("n", "1")]
    assert [d.code for d in diagnostics] == ["broken-metadata"]
    assert list(ecosystem.reduced(filesystem, packages)) == [AT]


def test_an_index_beyond_the_directories_is_no_path() -> None:
    data = b"n\x001\0/usr/bin/\0a\0b\0\0\0" + struct.pack(">II", 0, 7)
    offset = len(data) - 8
    blob = header(
        (1000, 6, 0, 1), (1001, 6, 2, 1), (1118, 8, 4, 1), (1117, 8, 14, 2), (1116, 4, offset, 2), data=data
    )
    assert read_header(blob)[1117] == ("a", "b")
    packages, _ = treekit.packages(ecosystem, treekit.fs({AT: headers(blob)}))
    assert packages[0].paths == ("/usr/bin/a",)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"SQLite format 3\0" + b"\xff" * 500,
        DATABASE[:9000],
        DATABASE[:100] + bytes(reversed(DATABASE[100:])),
        headers(sql="CREATE VIEW Packages AS SELECT 1 hnum, x'00' blob"),
        headers(
            sql="CREATE VIEW Packages AS WITH RECURSIVE n(hnum, blob) AS "
            "(SELECT 1, x'00' UNION ALL SELECT hnum + 1, blob FROM n) SELECT hnum, blob FROM n"
        ),
    ],
)
def test_no_database_is_a_diagnostic(content: bytes) -> None:
    filesystem = treekit.fs({AT: content})
    packages, diagnostics = treekit.packages(ecosystem, filesystem)
    assert packages == [] and [d.code for d in diagnostics] == ["broken-metadata"]
    assert ecosystem.reduced(filesystem, []) == {}


def test_what_is_not_read_is_said() -> None:
    members = {
        "/var/lib/rpm/Packages": b"\0" * 12 + b"\x61\x15\x06\x00",
        "/usr/lib/sysimage/rpm/Packages.db": b"RpmP",
        AT: DATABASE,
        f"{AT}-wal": b"x" * 32,
    }
    packages, diagnostics = treekit.packages(ecosystem, treekit.fs(members))
    assert len(packages) == 4
    assert [(d.code, d.path) for d in diagnostics] == [
        ("unmerged-database-log", f"{AT}-wal"),
        ("unsupported-package-database", "/var/lib/rpm/Packages"),
        ("unsupported-package-database", "/usr/lib/sysimage/rpm/Packages.db"),
    ]
    assert "Berkeley DB" in diagnostics[1].message and "ndb" in diagnostics[2].message
    assert ecosystem.wants(AT) and not ecosystem.wants("/srv/rpmdb.sqlite")


def test_what_a_package_is_for_by_its_name() -> None:
    named = {
        "gcc-c++": "compilers",
        "gcc": "compilers",
        "libgcc": None,
        "glibc-devel": None,
        "git-core": "compilers",
    }
    named |= {
        "python3-libs": "runtime",
        "python3-pip": "compilers",
        "glibc-langpack-de": "locale",
        "bash": None,
    }
    named |= {
        "java-17-openjdk-headless": "runtime",
        "java-17-openjdk-devel": "compilers",
        "zlib-debuginfo": "debug",
    }
    assert {name: category_of(name) for name in named} == named
