#!/usr/bin/env python3
"""Builds an image archive out of real files of this machine, without a container engine.

    python scripts/demo_image.py build/demo.tar

The image is what the single-stage habit gives: the running Python with its standard library and the native
libraries it loads as the base, a compiler with its headers, an application that `COPY . .` brought in with
its tests and its `.git`, a virtual environment of installed packages with the installer's cache, one file
overwritten, a recursive `chown`, and a tree deleted in a later layer, where that no longer helps. Files lie
where such an image has them (`/usr/local/bin/python3`), whatever this machine's paths. On one machine the
same bytes come out each time. Where a part is missing (no dpkg, no gcc), the image goes without it.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import io
import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

TIME = 1_700_000_000
CREATED = "2023-11-14T22:13:20Z"
SITE = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
STDLIB = f"usr/local/lib/python{sys.version_info.major}.{sys.version_info.minor}"
VENV = "app/.venv"
REQUIREMENTS = ("docker", "networkx", "numpy", "rich", "typer")
DEVELOPMENT = ("pytest", "hypothesis")
COMPILER = ("gcc-12", "cpp-12", "binutils", "libgcc-12-dev", "libc6-dev", "linux-libc-dev", "make")

APP = {
    "app/app.py": '''"""Serves the shortest path between two stations."""

import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs, urlparse

import networkx

from settings import PORT, STATIONS

GRAPH = networkx.Graph()
GRAPH.add_weighted_edges_from(STATIONS)


class Route(BaseHTTPRequestHandler):
    def do_GET(self):
        query = parse_qs(urlparse(self.path).query)
        path = networkx.shortest_path(GRAPH, query["from"][0], query["to"][0], weight="weight")
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(path).encode())


if __name__ == "__main__":
    HTTPServer(("", PORT), Route).serve_forever()
''',
    "app/settings.py": '''"""Where the stations are."""

PORT = 8000
STATIONS = [("a", "b", 3), ("b", "c", 4), ("a", "c", 9)]
''',
    "app/requirements.txt": "\n".join(REQUIREMENTS + DEVELOPMENT) + "\n",
    "app/README.md": "# Stations\n\nAsk for `/?from=a&to=c`.\n",
    "app/tests/test_app.py": """import app


def test_shortest():
    assert app.networkx.shortest_path(app.GRAPH, "a", "c", weight="weight") == ["a", "b", "c"]
""",
}


@dataclass
class Layer:
    """Members by path; written sorted, so that the bytes do not depend on the order of discovery."""

    files: dict[str, bytes | Path] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
    folders: dict[str, int] = field(default_factory=dict)
    """Folders to write even when empty, with their modes."""
    app_owner: int = 0
    """User and group of /app and everything in it."""

    def add(self, path: str, source: bytes | str | Path, mode: int | None = None) -> None:
        self.files[path] = source.encode() if isinstance(source, str) else source
        if mode is not None:
            self.modes[path] = mode

    def add_real(self, path: str, source: Path) -> None:
        """A file of this machine, or the link that it is."""
        if source.is_symlink():
            self.links[path] = os.readlink(source)
        elif source.is_file() and os.access(source, os.R_OK):
            self.files[path] = source

    def write(self, out: IO[bytes]) -> None:
        paths = set(self.files) | set(self.links)
        folders = {str(parent) for path in paths for parent in Path(path).parents} - {"."} | set(self.folders)
        # A link is kept where a folder of the same name is needed: the files then go through the folder.
        links = {path: target for path, target in self.links.items() if path not in folders}
        with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as archive:
            for path in sorted(folders | set(self.files) | set(links)):
                info = tarfile.TarInfo(path)
                info.mtime = TIME
                info.uid = info.gid = self.app_owner if path == "app" or path.startswith("app/") else 0
                if path in folders:
                    info.type, info.mode = tarfile.DIRTYPE, self.folders.get(path, 0o755)
                    archive.addfile(info)
                elif path in links:
                    info.type, info.linkname, info.mode = tarfile.SYMTYPE, links[path], 0o777
                    archive.addfile(info)
                else:
                    source = self.files[path]
                    if isinstance(source, bytes):
                        info.size, info.mode = len(source), self.modes.get(path, 0o644)
                        archive.addfile(info, io.BytesIO(source))
                    else:
                        status = source.stat()
                        info.size = status.st_size
                        info.mode = self.modes.get(path, 0o755 if status.st_mode & 0o100 else 0o644)
                        with source.open("rb") as handle:
                            archive.addfile(info, handle)


def native_libraries() -> list[Path]:
    """The shared libraries that Python and its extension modules map, from the process's own memory map."""
    for name in (
        "_ssl",
        "_hashlib",
        "_sqlite3",
        "_ctypes",
        "_lzma",
        "_bz2",
        "zlib",
        "readline",
        "_uuid",
        "_curses",
        "numpy",  # the C++ library
    ):
        try:
            importlib.import_module(name)
        except ImportError:
            pass
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return []
    prefix = os.path.realpath(sys.base_prefix) + "/"
    mine = () if prefix == "/usr/" else (prefix, os.path.realpath(sys.prefix) + "/")
    found = {line.split(maxsplit=5)[5] for line in maps.splitlines() if line.count("/")}
    return sorted(
        Path(path) for path in found if re.search(r"\.so(\.|$)", path) and not path.startswith(mine)
    )


class Debian:
    """This machine's package database, if it has one: whole packages go into the image with their records."""

    def __init__(self) -> None:
        self.info = Path("/var/lib/dpkg/info")
        self.stanzas: dict[str, str] = {}
        self.lists: dict[str, Path] = {}
        status = Path("/var/lib/dpkg/status")
        if not status.is_file():
            return
        for stanza in status.read_text(errors="replace").split("\n\n"):
            name = re.match(r"Package: (\S+)", stanza)
            if name and "Status: install ok installed" in stanza:
                self.stanzas[name[1]] = stanza
        for path in self.info.glob("*.list"):
            self.lists[path.stem.partition(":")[0]] = path

    def owners(self, wanted: list[Path]) -> list[str]:
        """The packages that own these files, usr-merge aside."""
        names = {str(path) for path in wanted} | {os.path.realpath(path) for path in wanted}
        names |= {name.removeprefix("/usr") for name in names}
        pattern = re.compile("^(?:" + "|".join(map(re.escape, sorted(names))) + ")$", re.M)
        return sorted(
            name for name, path in self.lists.items() if pattern.search(path.read_text(errors="replace"))
        )

    def install(self, layer: Layer, names: list[str], before: list[str]) -> list[str]:
        """Adds the files of the packages that are there and not yet in ``before``; all that are in now."""
        names = [name for name in names if name in self.stanzas and name in self.lists and name not in before]
        for name in names:
            listed = self.lists[name]
            for line in listed.read_text(errors="replace").splitlines():
                source = Path(line)
                if line != "/." and not (source.is_dir() and not source.is_symlink()):
                    layer.add_real(merged(line), source)
            layer.add(f"var/lib/dpkg/info/{listed.name}", listed)
        everything = sorted({*names, *before})
        if everything:
            layer.add("var/lib/dpkg/status", "".join(self.stanzas[name] + "\n\n" for name in everything))
        return everything


def merged(path: str) -> str:
    """A path of this machine as a merged-/usr image has it."""
    path = path.lstrip("/")
    return "usr/" + path if path.split("/")[0] in ("bin", "sbin", "lib", "lib64", "lib32", "libx32") else path


def base_system(debian: Debian) -> tuple[Layer, list[str]]:
    layer = Layer(folders={"tmp": 0o1777, "root": 0o700, "proc": 0o755, "sys": 0o755, "dev": 0o755})
    shell = Path(os.path.realpath("/bin/sh"))
    wanted = native_libraries() + ([shell] if shell.is_file() else [])
    packages = debian.install(layer, debian.owners(wanted), [])
    for path in wanted:
        if merged(str(path)) not in layer.files:
            layer.add_real(merged(os.path.realpath(path)), Path(os.path.realpath(path)))
    for name in ("bin", "sbin", "lib", "lib64"):
        layer.links[name] = f"usr/{name}"
    layer.links.setdefault("usr/bin/sh", shell.name)
    release = Path("/etc/os-release")
    layer.add("etc/os-release", release.read_bytes() if release.is_file() else "ID=linux\n")
    layer.add(
        "etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"
    )
    layer.add("etc/group", "root:x:0:\nnogroup:x:65534:\n")
    return layer, packages


def python() -> Layer:
    """The interpreter and its standard library under /usr/local, as the official images have them."""
    layer = Layer()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    program = Path(os.path.realpath(getattr(sys, "_base_executable", sys.executable)))
    layer.add(f"usr/local/bin/python{version}", program)
    layer.links["usr/local/bin/python3"] = f"python{version}"
    layer.links["usr/local/bin/python"] = "python3"
    library = Path(sysconfig.get_config_var("LIBDIR") or "") / (sysconfig.get_config_var("INSTSONAME") or "")
    if library.is_file() and ".so" in library.name:
        layer.add(f"usr/local/lib/{library.name}", Path(os.path.realpath(library)))
    skip = re.compile(
        r"(^|/)(__pycache__|site-packages|dist-packages|test|idle_test|turtledemo|config-[^/]*)(/|$)"
    )
    mine = os.path.realpath(sys.base_prefix).encode()
    for root in {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}:
        base = Path(os.path.realpath(root))
        for path in sorted(base.rglob("*")):
            name = str(path.relative_to(base))
            if skip.search(name) or path.is_dir():
                continue
            if path.name.startswith("_sysconfigdata") and mine != b"/usr":
                layer.add(f"{STDLIB}/{name}", path.read_bytes().replace(mine, b"/usr/local"))
            else:
                layer.add_real(f"{STDLIB}/{name}", path)
    return layer


def compiler(debian: Debian, before: list[str]) -> tuple[Layer, str]:
    """A C compiler with headers and static libraries, from the package database or from where gcc says."""
    layer = Layer()
    names = [
        name
        for name in debian.stanzas
        if name.startswith(("binutils-", "libgcc-s", "libisl", "libmpc", "libmpfr"))
    ]
    packages = debian.install(layer, sorted({*COMPILER, *names}), before)
    if "gcc-12" in packages:
        layer.links["usr/bin/gcc"] = "gcc-12"
        layer.links["usr/bin/cc"] = "gcc"
        return layer, "apt-get update && apt-get install -y gcc libc6-dev make"
    for program in ("cc1", "collect2", "as", "ld"):
        try:
            command = ["gcc", f"-print-prog-name={program}"]
            path = Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
        except (OSError, subprocess.CalledProcessError):
            continue
        if path.is_file():
            layer.add(merged(str(path)), Path(os.path.realpath(path)))
    headers = Path("/usr/include")
    headers = headers if headers.is_dir() else Path(sysconfig.get_path("include"))
    for path in sorted(headers.rglob("*.h")):
        layer.add_real(f"usr/include/{path.relative_to(headers)}", path)
    return layer, "install-compiler"


def distributions(names: tuple[str, ...]) -> list[importlib.metadata.Distribution]:
    """The installed distributions with all they require, sorted; those not installed are passed over."""
    found: dict[str, importlib.metadata.Distribution] = {}
    queue = list(names)
    while queue:
        name = re.sub(r"[-_.]+", "-", queue.pop()).lower()
        if name in found:
            continue
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        for line in found[name].requires or []:
            requirement = re.match(r"[A-Za-z0-9._-]+", line)
            if requirement and "extra ==" not in line:
                queue.append(requirement[0])
    return [found[name] for name in sorted(found)]


def installed_files(distribution: importlib.metadata.Distribution) -> Iterator[tuple[str, Path]]:
    """(path inside the virtual environment, file here) of an installed distribution, without bytecode."""
    for listed in distribution.files or []:
        source = Path(str(distribution.locate_file(listed)))
        if "__pycache__" in listed.parts or not source.is_file():
            continue
        yield os.path.normpath(f"{SITE}/{listed}"), source


def virtual_environment() -> Layer:
    layer = Layer()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    layer.add(
        f"{VENV}/pyvenv.cfg",
        f"home = /usr/local/bin\ninclude-system-site-packages = false\nversion = {sys.version.split()[0]}\n"
        f"executable = /usr/local/bin/python{version}\ncommand = /usr/local/bin/python -m venv /{VENV}\n",
    )
    layer.links[f"{VENV}/bin/python"] = "/usr/local/bin/python"
    layer.links[f"{VENV}/bin/python3"] = "python"
    layer.links[f"{VENV}/lib64"] = "lib"
    for distribution in distributions(REQUIREMENTS + DEVELOPMENT):
        wheel = io.BytesIO()
        with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, source in installed_files(distribution):
                path = f"{VENV}/{name}"
                if name.startswith("bin/"):
                    script = re.sub(rb"\A#!.*", b"#!/" + f"{VENV}/bin/python".encode(), source.read_bytes())
                    layer.add(path, script, 0o755)
                    continue
                layer.add(path, source)
                entry = zipfile.ZipInfo(name.removeprefix(SITE + "/"))
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, source.read_bytes())
        key = hashlib.sha224(f"{distribution.name}-{distribution.version}".encode()).hexdigest()
        layer.add(f"root/.cache/pip/http-v2/{'/'.join(key[:5])}/{key}.body", wheel.getvalue())
    return layer


def git_objects(files: dict[str, str]) -> dict[str, bytes]:
    """A repository of one commit: its objects as git stores them loose."""
    objects: dict[str, bytes] = {}

    def store(kind: str, body: bytes) -> bytes:
        whole = f"{kind} {len(body)}\0".encode() + body
        name = hashlib.sha1(whole, usedforsecurity=False)
        objects[f"app/.git/objects/{name.hexdigest()[:2]}/{name.hexdigest()[2:]}"] = zlib.compress(whole, 1)
        return name.digest()

    flat = {path.removeprefix("app/"): text.encode() for path, text in files.items()}
    tests = b"".join(
        b"100644 " + path.removeprefix("tests/").encode() + b"\0" + store("blob", body)
        for path, body in sorted(flat.items())
        if path.startswith("tests/")
    )
    tree = b"".join(
        b"100644 " + path.encode() + b"\0" + store("blob", body)
        for path, body in sorted(flat.items())
        if "/" not in path
    )
    top = store("tree", tree + b"40000 tests\0" + store("tree", tests)).hex()
    person = f"Someone <someone@example.com> {TIME} +0000"
    commit = store("commit", f"tree {top}\nauthor {person}\ncommitter {person}\n\nStations\n".encode())
    objects["app/.git/HEAD"] = b"ref: refs/heads/main\n"
    objects["app/.git/refs/heads/main"] = commit.hex().encode() + b"\n"
    objects["app/.git/config"] = b"[core]\n\trepositoryformatversion = 0\n"
    return objects


def application() -> Layer:
    layer = Layer()
    for path, text in APP.items():
        layer.add(path, text)
    for path, data in git_objects(APP).items():
        layer.add(path, data)
    return layer


def build(path: Path) -> None:
    """Writes the image as a docker-archive (the layout of Docker 25 and later) to ``path``."""
    debian = Debian()
    system, packages = base_system(debian)
    toolchain, install = compiler(debian, packages)
    app, environment = application(), virtual_environment()

    certificates = Layer()
    bundle = f"{VENV}/{SITE}/certifi/cacert.pem"
    source = environment.files.get(bundle)
    if isinstance(source, Path):
        extra = (
            b"\n# Example Corp internal root\n-----BEGIN CERTIFICATE-----\nTUlJ\n-----END CERTIFICATE-----\n"
        )
        certificates.add(bundle, source.read_bytes() + extra)
    else:
        certificates.add("app/settings.py", APP["app/settings.py"].replace("8000", "8080"))

    owned = Layer(app_owner=1000)
    for layer in (app, environment, certificates):
        for name, content in layer.files.items():
            if name.startswith("app/"):
                owned.add(name, content, layer.modes.get(name))
        owned.links.update({name: to for name, to in layer.links.items() if name.startswith("app/")})
    owned.add("etc/passwd", "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/app:/bin/sh\n")

    tidied = Layer()
    documents = {f.split("/")[2] for f in (*system.files, *toolchain.files) if f.startswith("usr/share/")}
    tidied.files.update({f"usr/share/.wh.{name}": b"" for name in ("doc", "man") if name in documents})
    tidied.files["app/.wh.README.md"] = b""

    pip = f"python -m venv /{VENV} && /{VENV}/bin/pip install -r requirements.txt"
    buildkit = "buildkit.dockerfile.v0"
    environ = [
        "PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
        f"PYTHON_VERSION={sys.version.split()[0]}",
        "LD_LIBRARY_PATH=/usr/local/lib",  # there is no ld.so.cache, which only a run of ldconfig would make
    ]
    steps: list[tuple[str, Layer | None, str]] = [
        ("/bin/sh -c #(nop) ADD file:8f1d5d0a7e4c49b2 in / ", system, ""),
        ('/bin/sh -c #(nop)  CMD ["bash"]', None, ""),
        *((f"ENV {word}", None, buildkit) for word in environ),
        ("RUN /bin/sh -c set -eux; ./configure --enable-shared; make install # buildkit", python(), buildkit),
        ('CMD ["python3"]', None, buildkit),
        (f"RUN /bin/sh -c {install} # buildkit", toolchain, buildkit),
        ("WORKDIR /app", None, buildkit),
        ("COPY . . # buildkit", app, buildkit),
        (f"RUN /bin/sh -c {pip} # buildkit", environment, buildkit),
        (
            "RUN /bin/sh -c cat corporate-root.pem >> $(.venv/bin/python -m certifi) # buildkit",
            certificates,
            buildkit,
        ),
        ("RUN /bin/sh -c useradd -m app && chown -R app:app /app # buildkit", owned, buildkit),
        ("RUN /bin/sh -c rm -rf /usr/share/doc /usr/share/man README.md # buildkit", tidied, buildkit),
        ("USER app", None, buildkit),
        ("EXPOSE [8000/tcp]", None, buildkit),
        (f'CMD ["/{VENV}/bin/python" "app.py"]', None, buildkit),
    ]

    diff_ids: list[str] = []
    history: list[dict[str, object]] = []
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("w+b") as out:
        for text, layer, comment in steps:
            entry: dict[str, object] = {"created": CREATED, "created_by": text}
            if comment:
                entry["comment"] = comment
            if layer is None:
                entry["empty_layer"] = True
            else:
                diff_ids.append(append_layer(out, layer))
            history.append(entry)
        config = {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(
                os.uname().machine, os.uname().machine
            ),
            "config": {
                "Cmd": [f"/{VENV}/bin/python", "app.py"],
                "Env": environ,
                "ExposedPorts": {"8000/tcp": {}},
                "User": "app",
                "WorkingDir": "/app",
            },
            "created": CREATED,
            "history": history,
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
        config_name = append(out, json.dumps(config).encode())
        manifest = [
            {
                "Config": config_name,
                "RepoTags": ["layerlens-demo:latest"],
                "Layers": [f"blobs/sha256/{diff_id.partition(':')[2]}" for diff_id in diff_ids],
            }
        ]
        append(out, json.dumps(manifest).encode(), "manifest.json")
        out.write(bytes(2 * tarfile.BLOCKSIZE))
    partial.replace(path)


def member(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mtime = size, TIME
    return info.tobuf(tarfile.USTAR_FORMAT)


def append(out: IO[bytes], data: bytes, name: str | None = None) -> str:
    """Appends a blob under its digest, or a file under ``name``; the name."""
    name = name or f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"
    out.write(member(name, len(data)) + data + bytes(-len(data) % tarfile.BLOCKSIZE))
    return name


class Hashing(io.RawIOBase):
    """Passes what is written on to ``out`` and hashes it."""

    def __init__(self, out: IO[bytes]) -> None:
        self.out, self.sha256 = out, hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        self.sha256.update(data)  # type: ignore[arg-type]
        return self.out.write(data)  # type: ignore[arg-type]


def append_layer(out: IO[bytes], layer: Layer) -> str:
    """Writes a layer straight into the archive and puts its header before it afterwards; its diff ID."""
    at = out.tell()
    out.write(bytes(tarfile.BLOCKSIZE))
    hashing = Hashing(out)
    layer.write(hashing)  # type: ignore[arg-type]
    end = out.tell()
    digest = hashing.sha256.hexdigest()
    out.seek(at)
    out.write(member(f"blobs/sha256/{digest}", end - at - tarfile.BLOCKSIZE))
    out.seek(end)
    out.write(bytes(-end % tarfile.BLOCKSIZE))
    return f"sha256:{digest}"


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    build(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
