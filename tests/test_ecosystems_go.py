"""Go programs, against ``go version -m`` and programs that the machine's own toolchain builds."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import treekit
from elfkit import elf
from imagekit import DIR, Dir, File, Member, Symlink

from layerlens.attribution import Attribution
from layerlens.ecosystems._compiled import OWN_FOLDERS, read_program
from layerlens.ecosystems.go import READS, BuildInfo, ecosystem, read_build_info
from layerlens.graph import Needs

GO = shutil.which("go")
needs_go = pytest.mark.skipif(GO is None, reason="the machine has no Go toolchain")

INFO_START = bytes.fromhex(
    "3077af0c9274080241e1c107e6d618e6"
)  # cmd/go/internal/modload, infoStart and infoEnd
INFO_END = bytes.fromhex("f932433186182072008242104116d8f2")

MAIN = """
package main

import (
	"fmt"
	"mime"
	"os"
	"path/filepath"
	"time"

	"example.org/greeting"
)

func main() {
	name := filepath.Join("pages", "de")
	text, err := os.ReadFile("settings.yaml")
	zone, _ := time.LoadLocation(os.Getenv("ZONE"))
	key, _ := os.ReadFile("/etc/greeter/private.key")
	fmt.Println(greeting.Hello(), mime.TypeByExtension(name), text, err, time.Now().In(zone), key)
}
"""


def build_info(modules: str, version: str = "go1.22.1") -> bytes:
    """The blob as a linker since Go 1.18 writes it."""
    framed = INFO_START + modules.encode() + INFO_END
    strings = b"".join(bytes([*varint(len(text))]) + text for text in (version.encode(), framed))
    return b"\xff Go buildinf:" + bytes([8, 2]) + bytes(16) + strings


def varint(number: int) -> list[int]:
    """A number as ``encoding/binary`` writes it."""
    digits = []
    while number >= 0x80:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    return [*digits, number]


def program(
    *functions: str, constants: bytes = b"", modules: str = "path\tx/cmd\nmod\tx\tv1.0.0\t\n"
) -> File:
    """A Go program as far as it is read: linked functions and string constants."""
    sections = {
        ".rodata": constants + bytes(600_000),
        ".go.buildinfo": build_info(modules),
        ".gopclntab": b"\0" + b"\0".join(name.encode() for name in functions) + b"\0",
    }
    return File(data=elf(sections), mode=0o755)


def kept(
    members: Mapping[str, Member], *entrypoint: str, workdir: str = "/srv", env: tuple[str, ...] = ()
) -> set[str]:
    """What the needs graph keeps of an image."""
    filesystem = treekit.fs(members)
    config = replace(treekit.CONFIG, entrypoint=entrypoint, workdir=workdir, env=env)
    found = list(ecosystem.packages(filesystem, config, []))
    return set(Needs(Attribution(filesystem, found), config).kept)


def info(data: bytes) -> BuildInfo | None:
    filesystem = treekit.fs({"/app": File(data=data, mode=0o755)})
    read = read_program(filesystem, "/app")
    return read_build_info(read) if read is not None else None


def test_modules_of_a_program_and_their_owner() -> None:
    modules = (
        "path\texample.org/shop/cmd/server\nmod\texample.org/shop\t(devel)\t\n"
        "dep\tgithub.com/x/y\tv1.2.3\th1:abc=\n"
        "dep\tgithub.com/old/z\tv0.1.0\n=>\tgithub.com/fork/z\tv0.1.1\th1:def=\nbuild\tCGO_ENABLED=0\n"
    )
    filesystem = treekit.fs({"/srv/": DIR, "/srv/server": program(modules=modules)})
    config = replace(treekit.CONFIG, cmd=("./server",), workdir="/srv")
    found = list(ecosystem.packages(filesystem, config, []))
    assert [(p.name, p.version, p.paths) for p in found] == [
        ("example.org/shop", "(devel)", ("/srv/server",)),
        ("stdlib", "1.22.1", ()),
        ("github.com/x/y", "v1.2.3", ()),
        ("github.com/fork/z", "v0.1.1", ()),
    ]
    attribution = Attribution(filesystem, found)
    assert attribution.category_of("/srv/server") == "app"


def test_only_likely_programs_are_read() -> None:
    plain = File(data=program().data, mode=0o644)
    filesystem = treekit.fs(
        {
            "/usr/bin/docker": program(),
            "/usr/local/bin/node": program(),
            "/app/data": plain,
            "/deep/er/x": program(),
        }
    )
    assert not list(ecosystem.packages(filesystem, treekit.CONFIG, []))
    for folder in OWN_FOLDERS:
        filesystem = treekit.fs({f"{folder.rstrip('/')}/tool": program()})
        assert [p.name for p in ecosystem.packages(filesystem, treekit.CONFIG, [])] == ["x", "stdlib"]


@pytest.mark.parametrize("cut", [0, 10, 64, 200, 600_100])
def test_a_program_that_is_cut_short_is_no_program(cut: int) -> None:
    assert info(program().data[:cut]) is None


def test_a_program_without_its_section_table() -> None:
    whole = program().data
    assert info(whole[: -4 * 64]) == info(whole) is not None


def test_a_blob_that_lies_about_its_lengths() -> None:
    blob = b"\xff Go buildinf:" + bytes([8, 2]) + bytes(16) + b"\xff" * 9 + b"\x7f"
    assert info(elf({".go.buildinfo": blob})) is None
    blob = b"\xff Go buildinf:" + bytes([8, 0]) + b"\xff" * 16
    assert info(elf({".go.buildinfo": blob})) is None


def test_linked_functions_decide_which_system_files_are_kept() -> None:
    system: dict[str, Member] = {
        "/etc/ssl/certs/ca-certificates.crt": b"bundle",
        "/etc/ssl/certs/A.pem": Symlink(target="/usr/share/ca-certificates/A.crt"),
        "/usr/share/ca-certificates/A.crt": b"A",
        "/etc/ssl/cert.pem": b"other",
        "/etc/services": b"http 80/tcp\n",
        "/etc/mime.types": b"text/x-y y\n",
        "/usr/share/zoneinfo/Europe/Oslo": b"TZif",
        "/usr/share/zoneinfo/right/Europe/Oslo": b"TZif",
        "/etc/localtime": Symlink(target="/usr/share/zoneinfo/Europe/Oslo"),
    }
    for row in READS:
        assert not {*row.paths} & kept({**system, "/srv/a": program()}, "/srv/a")
    assert kept({**system, "/srv/a": program()}, "/srv/a") == {"/srv", "/srv/a"}
    certificates = kept({**system, "/srv/a": program("crypto/x509.loadSystemRoots")}, "/srv/a")
    assert certificates - {"/srv", "/srv/a"} == {
        "/etc/ssl/certs",
        "/etc/ssl/certs/A.pem",
        "/etc/ssl/certs/ca-certificates.crt",
        "/usr/share/ca-certificates/A.crt",
    }
    zones = kept({**system, "/srv/a": program("time.LoadLocation")}, "/srv/a")
    assert "/usr/share/zoneinfo/Europe/Oslo" in zones
    assert "/usr/share/zoneinfo/right/Europe/Oslo" not in zones
    embedded = program("time.LoadLocation", "time/tzdata.loadFromEmbeddedTZData")
    assert "/usr/share/zoneinfo/Europe/Oslo" not in kept({**system, "/srv/a": embedded}, "/srv/a")
    local = kept({**system, "/srv/a": program("time.initLocal")}, "/srv/a", env=("TZ=Europe/Oslo",))
    assert {"/etc/localtime", "/usr/share/zoneinfo/Europe/Oslo"} <= local


def test_environment_variables_that_the_standard_library_reads() -> None:
    image: dict[str, Member] = {
        "/srv/a": program("crypto/x509.loadSystemRoots", "time.LoadLocation"),
        "/etc/ssl/certs/ca-certificates.crt": b"",
        "/pki/own.pem": b"",
        "/zones.zip": b"",
    }
    found = kept(
        image, "/srv/a", env=("SSL_CERT_FILE=/pki/own.pem", "SSL_CERT_DIR=/none", "ZONEINFO=/zones.zip")
    )
    assert found == {"/srv", "/srv/a", "/pki/own.pem", "/zones.zip"}


def test_zones_of_the_distribution_only_where_there_are_no_others() -> None:
    image: dict[str, Member] = {
        "/srv/a": program("time.LoadLocation", constants=b"/usr/local/go"),
        "/usr/local/go/lib/time/zoneinfo.zip": b"PK",
        "/elsewhere/lib/time/zoneinfo.zip": b"",
    }
    found = kept(image, "/srv/a")
    assert "/usr/local/go/lib/time/zoneinfo.zip" in found
    assert "/elsewhere/lib/time/zoneinfo.zip" not in found
    image["/usr/share/zoneinfo/UTC"] = b""
    assert "/usr/local/go/lib/time/zoneinfo.zip" not in kept(image, "/srv/a")


def test_files_that_a_program_names_without_an_end_between_them() -> None:
    constants = (
        b"goodbye"
        + b"settings.yamlgo.modpages/etc/greeter/private.keynonsense*.sql/opt/greeter"
        + b"Xmigrations"
    )
    image: dict[str, Member] = {
        "/srv/greeter": program(constants=constants),
        "/srv/settings.yaml": b"",
        "/srv/unnamed.yaml": b"",
        "/srv/main.go": b"",
        "/srv/go.mod": b"",
        "/srv/db/1.sql": b"",
        "/srv/pages/de/index.html": b"",
        "/srv/pages/de/page.go": b"",
        "/srv/migrations/.cache/big": b"",
        "/srv/target/CACHEDIR.TAG": b"Signature: 8a477f597d28d172789f06886806bc55",
        "/srv/target/settings.yaml": b"",
        "/etc/greeter/private.key": b"",
        "/etc/greeter/other.key": b"",
        "/opt/greeter/words": b"",
        "/opt/other/words": b"",
    }
    assert kept(image, "./greeter") == {
        *("/srv", "/srv/greeter", "/srv/settings.yaml", "/srv/db/1.sql", "/srv/migrations"),
        *("/srv/pages", "/srv/pages/de/index.html", "/etc/greeter/private.key"),
        *("/opt/greeter", "/opt/greeter/words"),
    }


def test_a_directory_in_which_a_program_makes_a_file() -> None:
    image: dict[str, Member] = {
        "/srv/greeter": program(constants=b"x/var/lib/greeter/greetings.db/var/lib/apt"),
        "/var/lib/greeter/": Dir(mode=0o700, uid=999),
        "/var/lib/other/": DIR,
    }
    assert kept(image, "./greeter") == {"/srv", "/srv/greeter", "/var/lib/greeter"}


def test_arguments_and_directories_of_the_environment() -> None:
    image: dict[str, Member] = {
        "/usr/local/bin/tool": program(constants=b"a.tmpl"),
        "/srv/conf/app.toml": b"",
        "/srv/static/x.css": b"",
        "/home/tool/a.tmpl": b"",
        "/home/tool/b.tmpl": b"",
    }
    found = kept(image, "tool", "--config=conf/app.toml", env=("TOOL_HOME=/home/tool",))
    assert found == {"/srv", "/usr/local/bin/tool", "/srv/conf/app.toml", "/home/tool/a.tmpl"}


# -- against the toolchain ---------------------------------------------------------------------------------


def go_says(file: Path) -> tuple[str, list[tuple[str, ...]]]:
    """The version and the lines of modules that ``go version -m`` prints."""
    assert GO is not None
    output = subprocess.run([GO, "version", "-m", file], check=True, capture_output=True, text=True).stdout
    head, *lines = output.splitlines()
    words = [tuple(line.strip("\t").split("\t")) for line in lines]
    return head.rpartition(": ")[2].split(" ")[0], [
        row for row in words if row[0] in ("path", "mod", "dep", "=>")
    ]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One program, built in three ways."""
    assert GO is not None
    folder = tmp_path_factory.mktemp("greeter")
    (folder / "greeting").mkdir()
    (folder / "greeting/go.mod").write_text("module example.org/greeting\n\ngo 1.20\n")
    (folder / "greeting/hello.go").write_text('package greeting\n\nfunc Hello() string { return "hello" }\n')
    (folder / "go.mod").write_text(
        "module example.org/greeter\n\ngo 1.20\n\nrequire example.org/greeting v1.0.0\n\n"
        "replace example.org/greeting => ./greeting\n"
    )
    (folder / "main.go").write_text(MAIN)
    ways = {"plain": [], "stripped": ["-ldflags=-s -w"], "pie": ["-buildmode=pie", "-trimpath"]}
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "", "GOPROXY": "off"}
    for name, options in ways.items():
        subprocess.run(
            [GO, "build", *options, "-o", folder / name, "."], check=True, cwd=folder, env=environment
        )
    return {name: folder / name for name in ways}


@needs_go
@pytest.mark.parametrize("name", ["plain", "stripped", "pie"])
def test_build_information_as_go_itself_reads_it(built: dict[str, Path], name: str) -> None:
    version, rows = go_says(built[name])
    found = info(built[name].read_bytes())
    assert found is not None
    assert found.go_version == version
    assert found.main_package == next(row[1] for row in rows if row[0] == "path")
    assert found.main == next(row[1:3] for row in rows if row[0] == "mod")
    replaced = next(row for row in rows if row[0] == "=>")
    assert [path for path, _ in found.dependencies] == [replaced[1]]


@needs_go
@pytest.mark.parametrize("name", ["plain", "stripped", "pie"])
def test_needs_of_a_real_program(built: dict[str, Path], name: str) -> None:
    image: dict[str, Member] = {
        "/srv/greeter": File(data=built[name].read_bytes(), mode=0o755),
        "/srv/settings.yaml": b"",
        "/srv/unnamed.yaml": b"",
        "/srv/pages/de": b"",
        "/etc/greeter/private.key": b"",
        "/etc/mime.types": b"",
        "/etc/services": b"",
        "/etc/ssl/certs/ca-certificates.crt": b"",
        "/usr/share/zoneinfo/Europe/Oslo": b"",
    }
    assert kept(image, "/srv/greeter") == {
        *(
            "/srv",
            "/srv/greeter",
            "/srv/settings.yaml",
            "/srv/pages",
            "/srv/pages/de",
            "/etc/greeter/private.key",
        ),
        *("/etc/mime.types", "/usr/share/zoneinfo", "/usr/share/zoneinfo/Europe/Oslo"),
    }


@needs_go
def test_build_information_of_the_time_before_go_1_18() -> None:
    assert GO is not None
    root = subprocess.run([GO, "env", "GOROOT"], check=True, capture_output=True, text=True).stdout.strip()
    stored = Path(root, "src/debug/buildinfo/testdata/go117/go117.base64")
    if not stored.exists():
        pytest.skip("this toolchain comes without the test data of debug/buildinfo")
    found = info(base64.b64decode(stored.read_bytes()))
    assert found == BuildInfo("go1.17", "example.com/go117", ("example.com/go117", "(devel)"), ())
