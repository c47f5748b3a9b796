"""ELF: the reader against pyelftools on this machine's own files, and the explorer on files that a compiler made."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import treekit
from hypothesis import given
from hypothesis import strategies as st
from imagekit import Dir, File, Member, Symlink

from layerlens.ecosystems import Binding, Explorer, ImageView
from layerlens.ecosystems._dynamicloader import bound_to, parse_cache
from layerlens.ecosystems._elffile import BrokenElf, read_elf
from layerlens.ecosystems._runtimefiles import BY_LIBRARY, stem
from layerlens.ecosystems.elf import ecosystem
from layerlens.filesystem import Filesystem
from layerlens.model import Command, Edge

COMPILER = shutil.which("gcc") or shutil.which("cc")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler")


class HostFiles:
    """The host's own files where the reader expects an image's: only what it calls."""

    def read_at(self, path: str, offset: int, size: int) -> bytes:
        with open(path, "rb") as file:
            return os.pread(file.fileno(), size, offset)


def host_elf_files() -> Iterator[str]:
    for top in ("/usr/bin", "/usr/lib"):
        for folder, _, names in os.walk(top):
            for name in sorted(names):
                path = os.path.join(folder, name)
                if os.path.isfile(path) and not os.path.islink(path) and os.access(path, os.R_OK):
                    with open(path, "rb") as file:
                        if file.read(4) == b"\x7fELF":
                            yield path


def test_the_reader_agrees_with_pyelftools() -> None:
    from elftools.elf.dynamic import DynamicSegment
    from elftools.elf.elffile import ELFFile
    from elftools.elf.gnuversions import GNUVerNeedSection
    from elftools.elf.sections import SymbolTableSection

    seen = 0
    for path in list(host_elf_files())[::3]:
        ours = read_elf(HostFiles(), path)  # type: ignore[arg-type]
        assert ours is not None
        with open(path, "rb") as file:
            theirs = ELFFile(file)
            assert (ours.bits, ours.order == "<") == (theirs.elfclass, theirs.little_endian)
            interpreters = [s.get_interp_name() for s in theirs.iter_segments() if s["p_type"] == "PT_INTERP"]
            assert ours.interpreter == next(iter(interpreters), None), path
            dynamic = [s for s in theirs.iter_segments() if isinstance(s, DynamicSegment)]
            tags = [tag for segment in dynamic for tag in segment.iter_tags()]
            assert list(ours.needed) == [t.needed for t in tags if t.entry.d_tag == "DT_NEEDED"], path
            assert ours.soname == next((t.soname for t in tags if t.entry.d_tag == "DT_SONAME"), None), path
            assert ours.rpath == next((t.rpath for t in tags if t.entry.d_tag == "DT_RPATH"), None), path
            assert ours.runpath == next((t.runpath for t in tags if t.entry.d_tag == "DT_RUNPATH"), None), (
                path
            )
            symbols = theirs.get_section_by_name(".dynsym")
            if isinstance(symbols, SymbolTableSection) and os.path.getsize(path) < 400_000:
                undefined = {
                    s.name for s in symbols.iter_symbols() if s["st_shndx"] == "SHN_UNDEF" and s.name
                }
                assert ours.imports == {name for name in undefined if len(name) < 256}, path
            versions = theirs.get_section_by_name(".gnu.version_r")
            if isinstance(versions, GNUVerNeedSection):
                wanted = [(file.name, tuple(a.name for a in aux)) for file, aux in versions.iter_versions()]
                assert list(ours.versions) == wanted, path
        seen += 1
    if seen < 50:
        pytest.skip("this machine has few ELF files")


# --- built by a compiler ----------------------------------------------------------------------------------


def compiled(folder: Path, name: str, source: str, *options: str) -> bytes:
    """What the compiler makes of C source."""
    assert COMPILER is not None
    (folder / f"{name}.c").write_text(source)
    subprocess.run(
        [COMPILER, "-o", str(folder / name), str(folder / f"{name}.c"), *options], check=True, cwd=folder
    )
    return (folder / name).read_bytes()


def library(folder: Path, name: str, source: str = "int f(void){return 1;}", *options: str) -> bytes:
    """A shared library without libc, with its file name as SONAME."""
    return compiled(folder, name, source, "-shared", "-fPIC", "-nostdlib", f"-Wl,-soname,{name}", *options)


def program(folder: Path, source: str, *options: str) -> bytes:
    """A program without libc."""
    return compiled(folder, "program", source, "-nostdlib", "-Wl,-e,main", "-Wl,--no-as-needed", *options)


def executable(data: bytes) -> File:
    return File(data, mode=0o755)


def explored(
    members: Mapping[str, Member], env: Mapping[str, str] | None = None
) -> tuple[Explorer, ImageView, Filesystem]:
    fs = treekit.fs(members)
    view = ImageView(
        fs=fs,
        config=treekit.CONFIG,
        packages=(),
        owner_of=lambda _: None,
        category_of=lambda path: "app" if path.startswith("/app") else "os-base",
        env=env or {},
    )
    return ecosystem.explorer(view), view, fs


def targets(found: object, kind: str) -> list[str]:
    assert isinstance(found, list)
    return [item.target for item in found if isinstance(item, Edge) and item.kind == kind]


@needs_compiler
@pytest.mark.parametrize(
    ("tags", "env", "folder"),
    [
        (("-Wl,--disable-new-dtags", "-Wl,-rpath,$ORIGIN/../own"), {}, "/opt/own"),
        (("-Wl,--enable-new-dtags", "-Wl,-rpath,/opt/own"), {}, "/opt/own"),
        (("-Wl,--disable-new-dtags", "-Wl,-rpath,/opt/own"), {"LD_LIBRARY_PATH": "/opt/env"}, "/opt/own"),
        (("-Wl,--enable-new-dtags", "-Wl,-rpath,/opt/own"), {"LD_LIBRARY_PATH": "/opt/env"}, "/opt/env"),
        ((), {}, "/srv/conf"),
    ],
)
def test_the_order_of_the_search(
    tags: tuple[str, ...], env: dict[str, str], folder: str, tmp_path: Path
) -> None:
    """ld.so(8): RPATH comes before LD_LIBRARY_PATH, RUNPATH after it, then ld.so.conf, then the default folders."""
    one = library(tmp_path, "libone.so.1")
    main = program(tmp_path, "int main(void){return 0;}", "libone.so.1", *tags)
    members: dict[str, Member] = {
        "opt/bin/main": executable(main),
        "etc/ld.so.conf": File(b"# folders\ninclude ld.so.conf.d/*.conf\n"),
        "etc/ld.so.conf.d/a.conf": File(b"/srv/conf\n"),
        "lib/libother.so": File(one),
        **{f"{at}/libone.so.1": File(one) for at in ("opt/own", "opt/env", "srv/conf")},
    }
    explorer, view, _ = explored(members, env)
    found = list(explorer.edges("/opt/bin/main"))
    assert [os.path.normpath(path) for path in targets(found, "needed")] == [f"{folder}/libone.so.1"]
    assert not [one for one in view.diagnostics if one.code == "library-not-found"]


@needs_compiler
def test_rpath_of_the_loader_serves_its_libraries_and_runpath_does_not(tmp_path: Path) -> None:
    inner = library(tmp_path, "libinner.so")
    outer = library(tmp_path, "libouter.so", "int g(void){return 2;}", "-Wl,--no-as-needed", "libinner.so")
    for tags, reached in (("--disable-new-dtags", True), ("--enable-new-dtags", False)):
        main = program(
            tmp_path,
            "int main(void){return 0;}",
            "libouter.so",
            f"-Wl,{tags}",
            "-Wl,-rpath,/own",
            "-Wl,--allow-shlib-undefined",
            "-Wl,-rpath-link,.",
        )
        explorer, view, _ = explored(
            {"bin/main": executable(main), "own/libouter.so": File(outer), "own/libinner.so": File(inner)}
        )
        found = list(explorer.edges("/bin/main"))
        assert ("/own/libinner.so" in targets(found, "needed")) is reached
        missing = [one for one in view.diagnostics if one.code == "library-not-found"]
        assert [(one.path, one.severity) for one in missing] == (
            [] if reached else [("/own/libouter.so", "warning")]
        )


@needs_compiler
@pytest.mark.parametrize(
    ("env", "path_file", "found"),
    [
        ({}, None, "/usr/local/lib/libone.so"),
        ({}, b"/srv/musl\n/usr/lib", "/srv/musl/libone.so"),
        ({"LD_LIBRARY_PATH": "/opt/env"}, b"/srv/musl", "/opt/env/libone.so"),
    ],
)
def test_musls_loader(env: dict[str, str], path_file: bytes | None, found: str, tmp_path: Path) -> None:
    """Its path file stands in for the default folders, its own libraries need no file, ld.so.conf is not read."""
    one = library(tmp_path, "libone.so")
    library(tmp_path, "libpthread.so.0")
    interpreter = "-Wl,--dynamic-linker=/lib/ld-musl-x86_64.so.1"
    main = program(tmp_path, "int main(void){return 0;}", "libone.so", "libpthread.so.0", interpreter)
    folders = ("usr/local/lib", "usr/lib", "srv/musl", "opt/env", "srv/conf")
    explorer, view, fs = explored(
        {
            "bin/main": executable(main),
            "lib/ld-musl-x86_64.so.1": executable(one),
            "etc/ld.so.conf": File(b"/srv/conf\n"),
            **({} if path_file is None else {"etc/ld-musl-x86_64.path": File(path_file)}),
            **{f"{folder}/libone.so": File(one) for folder in folders},
        },
        env,
    )
    edges = list(explorer.edges("/bin/main"))
    assert targets(edges, "needed") == [found]
    assert targets(edges, "interpreter") == ["/lib/ld-musl-x86_64.so.1"]
    assert not view.diagnostics
    assert ecosystem.binding(fs, "/bin/main") == Binding("musl", "interpreter /lib/ld-musl-x86_64.so.1")


@needs_compiler
def test_what_the_c_library_opens(tmp_path: Path) -> None:
    """The services of nsswitch.conf that are not in libc.so.6 itself, the locale and the zone of ENV."""
    libc = library(tmp_path, "libc.so.6")
    (tmp_path / "versions").write_text("GLIBC_2.34 { f; };")
    with_version = library(tmp_path, "libc.so.6", "int f(void){return 1;}", "-Wl,--version-script=versions")
    members: dict[str, Member] = {
        "etc/nsswitch.conf": File(b"passwd: files ldap # local\nhosts: files [NOTFOUND=return] dns\n"),
        **{f"lib/libnss_{name}.so.2": File(libc) for name in ("files", "dns", "ldap", "nis")},
        "usr/lib/locale/de_DE.utf8/LC_TIME": File(b"x"),
        "usr/share/zoneinfo/Asia/Tokyo": File(b"TZif"),
    }
    asked = (
        (libc, ["/lib/libnss_dns.so.2", "/lib/libnss_files.so.2", "/lib/libnss_ldap.so.2"]),
        (with_version, ["/lib/libnss_ldap.so.2"]),
    )
    for data, services in asked:
        explorer, _, _ = explored({**members, "lib/libc.so.6": File(data)}, {"LANG": "de_DE.UTF-8"})
        found = list(explorer.edges("/lib/libc.so.6"))
        assert targets(found, "plugin") == services
        assert targets(found, "config") == ["/etc/nsswitch.conf"]
        assert "/usr/lib/locale/de_DE.utf8/LC_TIME" in targets(found, "data")
    command = Command("ENTRYPOINT", ("/bin/x",), "", "/", {"TZ": "Asia/Tokyo"})
    assert targets(list(explorer.command(command, "/bin/x")), "data") == ["/usr/share/zoneinfo/Asia/Tokyo"]


@needs_compiler
def test_a_library_of_another_machine_is_passed_over(tmp_path: Path) -> None:
    one = bytearray(library(tmp_path, "libone.so"))
    main = program(tmp_path, "int main(void){return 0;}", "libone.so", "-Wl,-rpath,/first:/second")
    other = bytes(one)
    one[18:20] = struct.pack("<H", 183 if one[18] != 183 else 62)
    explorer, _, _ = explored(
        {"bin/main": executable(main), "first/libone.so": File(bytes(one)), "second/libone.so": File(other)}
    )
    assert targets(list(explorer.edges("/bin/main")), "needed") == ["/second/libone.so"]


@needs_compiler
def test_constants(tmp_path: Path) -> None:
    """A file is a literal edge; a program only where something starts programs; an object where something loads."""
    starts = 'int execv(const char*,char**);int main(void){return execv("/usr/bin/tool",0);}'
    plain = (
        'const char *p="/usr/bin/tool";const char *q="/etc/app.conf";const char *r="/opt/mods";'
        'const char *s="/usr/lib/gconv";int main(void){return !p+!q+!r+!s;}'
    )
    loads = plain.replace(
        "int main", "void *dlopen(const char*,int);void *(*d)(const char*,int)=dlopen;int main"
    )
    plugin = library(tmp_path, "plug.so")
    stub = "int execv(const char*a,char**b){return 0;}void *dlopen(const char*a,int b){return 0;}"
    library(tmp_path, "libstub.so", stub)
    for source, commands, literals, plugins in (
        (starts, ["/usr/bin/tool"], [], []),
        (plain, [], ["/etc/app.conf", "/opt/mods", "/usr/lib/gconv"], []),
        (loads, [], ["/etc/app.conf", "/opt/mods", "/usr/lib/gconv"], ["/opt/mods/plug.so"]),
    ):
        main = program(tmp_path, source, "libstub.so")
        explorer, _, _ = explored(
            {
                "usr/bin/main": executable(main),
                "usr/bin/tool": executable(b"#!/bin/sh\n"),
                "etc/app.conf": File(b"x=1\n"),
                "opt/mods/plug.so": File(plugin),
                "opt/mods/README": File(b"not to be loaded\n"),
                "usr/lib/gconv/BIG5.so": File(plugin),
            }
        )
        found = list(explorer.edges("/usr/bin/main"))
        assert [item.argv[0] for item in found if isinstance(item, Command)] == commands
        assert targets(found, "literal") == literals
        assert targets(found, "plugin") == plugins


@needs_compiler
@pytest.mark.parametrize(
    ("loader", "plugins"), [("dlopen", ["/usr/lib/libshape.so.2"]), ("other", [])], ids=["loads", "names"]
)
def test_a_library_whose_name_a_caller_of_dlopen_has(loader: str, plugins: list[str], tmp_path: Path) -> None:
    """The name with its interface's version; the linker's, one that is not there and part of a text are none."""
    library(tmp_path, "libstub.so", f"void *{loader}(const char*a,int b){{return 0;}}")
    names = ", ".join(
        f'"{name}"' for name in ("libshape.so.2", "libshape.so", "libgone.so.1", "no libnone.so.1")
    )
    source = f"void *{loader}(const char*,int);const char *n[]={{{names}}};"
    source += f"int main(int c,char**v){{return !{loader}(n[c],1);}}"
    found, _, _ = explored(
        {
            "usr/bin/main": executable(program(tmp_path, source, "libstub.so")),
            "usr/lib/libshape.so.2": library(tmp_path, "libshape.so.2"),
            "usr/lib/libshape.so": library(tmp_path, "libshape.so"),
            "usr/lib/libnone.so.1": library(tmp_path, "libnone.so.1"),
            "usr/lib/libstub.so": library(tmp_path, "libstub.so"),
        }
    )
    assert targets(list(found.edges("/usr/bin/main")), "plugin") == plugins


@needs_compiler
def test_what_unwinds_a_stack_comes_with_threads_that_end(tmp_path: Path) -> None:
    library(tmp_path, "libstub.so", "void pthread_exit(void*a){for(;;);}")
    source = "void pthread_exit(void*);int main(void){pthread_exit(0);return 0;}"
    found, _, _ = explored(
        {
            "usr/bin/main": executable(program(tmp_path, source, "libstub.so")),
            "usr/lib/libgcc_s.so.1": library(tmp_path, "libgcc_s.so.1"),
        }
    )
    assert targets(list(found.edges("/usr/bin/main")), "plugin") == ["/usr/lib/libgcc_s.so.1"]


@needs_compiler
@pytest.mark.parametrize(
    ("name", "zones"),
    [("node", []), ("main", ["/usr/lib/locale/C.utf8/LC_CTYPE", "/usr/share/zoneinfo/Asia/Tokyo"])],
)
def test_node_has_time_zones_and_locales_inside(name: str, zones: list[str], tmp_path: Path) -> None:
    library(tmp_path, "libstub.so", "void tzset(void){} char *setlocale(int a, const char *b){return 0;}")
    source = "void tzset(void);char *setlocale(int,const char*);"
    source += 'const char *p="/usr/share/zoneinfo";int main(void){tzset();return !p+!setlocale(0,p);}'
    members = {f"usr/bin/{name}": executable(program(tmp_path, source, "libstub.so"))}
    zone: dict[str, Member] = {
        "usr/share/zoneinfo/Asia/Tokyo": File(b"TZif"),
        "usr/lib/locale/C.utf8/LC_CTYPE": File(b"x"),
    }
    found, _, _ = explored({**members, **zone})
    data = targets(list(found.edges(f"/usr/bin/{name}")), "data")
    assert sorted({path for path in data if path.endswith(("LC_CTYPE", "Tokyo"))}) == zones


@needs_compiler
@pytest.mark.parametrize(
    ("function", "locale"), [("_ZNSt6localeC1EPKc", True), ("_ZNSt6locale7classicEv", False)]
)
def test_the_locales_of_cpp_are_the_programs(function: str, locale: bool, tmp_path: Path) -> None:
    """libstdc++ calls newlocale(3) itself, with the name that std::locale is made of."""
    standard = "int newlocale(void);int use(void){return newlocale();}" + f"int {function}(void){{return 0;}}"
    cpp = library(tmp_path, "libstdc++.so.6", standard)
    source = f"int {function}(void);int main(void){{return {function}();}}"
    main = program(tmp_path, source, "libstdc++.so.6", "-Wl,--unresolved-symbols=ignore-in-shared-libs")
    members: dict[str, Member] = {
        "usr/bin/main": executable(main),
        "usr/lib/libstdc++.so.6": cpp,
        "usr/lib/locale/C.utf8/LC_CTYPE": File(b"x"),
    }
    found, _, _ = explored(members)
    edges = [*found.edges("/usr/bin/main"), *found.edges("/usr/lib/libstdc++.so.6")]
    assert ("/usr/lib/locale/C.utf8/LC_CTYPE" in targets(edges, "data")) == locale


@needs_compiler
@pytest.mark.parametrize("server", [False, True])
def test_stores_of_passwords_come_with_servers_that_ask_them(server: bool, tmp_path: Path) -> None:
    """Cyrus SASL: its client part loads mechanisms, its server part auxiliary properties too."""
    function = "sasl_server_init" if server else "sasl_client_init"
    sasl = library(tmp_path, "libsasl2.so.2", f"int {function}(void){{return 0;}}")
    main = program(tmp_path, f"int {function}(void);int main(void){{return {function}();}}", "libsasl2.so.2")
    folder = "/usr/lib/x86_64-linux-gnu"
    names = (
        "libsasldb.so.2",
        "libldapdb.so.2",
        "libsql.so.2",
        "libscram.so.2",
        "liblogin.so.2",
        "libplain.so.2",
    )
    members: dict[str, Member] = {f"{folder}/sasl2/{name}": library(tmp_path, name) for name in names}
    found, _, _ = explored(
        {"/usr/bin/main": executable(main), f"{folder}/libsasl2.so.2": File(sasl), **members}
    )
    edges = [*found.edges("/usr/bin/main"), *found.edges(f"{folder}/libsasl2.so.2")]
    wanted = names if server else names[3:]
    assert sorted(targets(edges, "plugin")) == sorted(f"{folder}/sasl2/{name}" for name in wanted)


@needs_compiler
def test_an_applications_own_program_and_its_files(tmp_path: Path) -> None:
    """Relative names, folders whose files have computed names, and what the configuration names."""
    source = 'const char *p="templates/%s.html";const char *q="./rules.txt";int main(void){return !p+!q;}'
    main = program(tmp_path, source)
    explorer, _, _ = explored(
        {
            "app/main": executable(main),
            "app/rules.txt": File(b"one\n"),
            "app/unnamed.txt": File(b"two\n"),
            "app/templates/page.html": File(b"<p>"),
            "app/app.conf": File(b"modules = /srv/modules # see https://example.org/etc/passwd\n"),
            "etc/passwd": File(b""),
            "srv/modules/one.so": File(b"x"),
        }
    )
    argv = ("/app/main", "--config=app.conf")
    found = list(explorer.command(Command("ENTRYPOINT", argv, "", "/app"), "/app/main"))
    assert {item.target for item in found if isinstance(item, Edge)} == {
        *(
            "/app/rules.txt",
            "/app/templates",
            "/app/templates/page.html",
            "/srv/modules",
            "/srv/modules/one.so",
        ),
    }


# --- broken and hostile -----------------------------------------------------------------------------------


@needs_compiler
def test_an_elf_file_cut_short_is_a_diagnostic(tmp_path: Path) -> None:
    data = library(tmp_path, "libone.so")
    for length in (5, 20, 60, 70, len(data) // 3):
        explorer, view, _ = explored({"usr/lib/libone.so": File(data[:length])})
        assert list(explorer.edges("/usr/lib/libone.so")) == []
        assert {one.code for one in view.diagnostics} <= {"broken-elf"}
        if length < 200:
            assert view.diagnostics, length


@given(st.data())
def test_any_bytes_are_read_or_broken(data: st.DataObject) -> None:
    head = bytearray(
        b"\x7fELF" + bytes([data.draw(st.sampled_from([1, 2])), data.draw(st.sampled_from([1, 2]))])
    )
    body = bytes(head) + data.draw(st.binary(max_size=400))
    fs = treekit.fs({"x": File(body)})
    try:
        elf = read_elf(fs, "/x")
    except BrokenElf:
        return
    assert elf is not None
    assert (elf.needed, elf.soname, elf.imports, elf.versions, elf.section_headers()) is not None
    assert ecosystem.binding(fs, "/x") is None or bound_to(elf)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_cache_or_refused(body: bytes) -> None:
    try:
        found = parse_cache(b"glibc-ld.so.cache1.1" + body)
    except (ValueError, struct.error):
        return
    assert all(path.startswith("/") for paths in found.values() for path in paths)


# --- libc -------------------------------------------------------------------------------------------------


def test_the_libc_of_a_file_and_of_an_image() -> None:
    host = HostFiles()
    mine = next(path for path in host_elf_files() if read_elf(host, path).versions)  # type: ignore[union-attr,arg-type]
    bound = bound_to(read_elf(host, mine))  # type: ignore[arg-type]
    if bound is None or bound[0] == "musl":
        pytest.skip("this machine is not glibc's")
    assert bound[0] == "glibc"
    musl = {"lib/ld-musl-x86_64.so.1": File(b""), "lib/libc.musl-x86_64.so.1": Symlink("ld-musl-x86_64.so.1")}
    glibc: dict[str, Member] = {"lib/x86_64-linux-gnu/libc.so.6": File(b"")}
    assert ecosystem.libc(treekit.fs(musl)) == "musl"
    assert ecosystem.libc(treekit.fs(glibc)) == "glibc"
    assert ecosystem.libc(treekit.fs({**musl, **glibc})) == "glibc"
    compat = {**musl, "lib/libc.so.6": Symlink("libc.musl-x86_64.so.1")}
    assert ecosystem.libc(treekit.fs(compat)) == "musl"
    assert ecosystem.libc(treekit.fs({"app": Dir()})) is None


@pytest.mark.parametrize(
    ("soname", "name"),
    [
        ("libc.so.6", "libc"),
        ("libgio-2.0.so.0", "libgio"),
        ("libMagickCore-6.Q16.so.6", "libMagickCore"),
        ("libssl.so.1.1", "libssl"),
        ("libnss3.so", "libnss3"),
        ("libtcl8.6.so", "libtcl"),
        ("libenchant-2.so.2", "libenchant-2"),
    ],
)
def test_a_soname_finds_its_row(soname: str, name: str) -> None:
    assert stem(soname) == name
    assert name in BY_LIBRARY
