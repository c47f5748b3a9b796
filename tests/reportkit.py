"""Reports from literals, for the tests of what is made of a report: an ordinary one and a hostile one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from layerlens.model import Diagnostic, Edge, EntryType, Instruction
from layerlens.report import (
    CategoryReport,
    DuplicateGroup,
    ImageSummary,
    LayerReport,
    PackageReport,
    PathReport,
    Report,
    Totals,
    WasteItem,
    WasteReport,
)

EVIL = "ev\x1b[31mil\n\t\u202egpj.exe\x9b2J[red]<script>alert(1)</script>&\"'|`\udce9\u2028"
"""Every kind of name that must not reach a reader as it is."""


@dataclass(frozen=True)
class Explanation:
    """What `Image.why` gives, as far as the renderers look."""

    path: str = "/usr/bin/gcc"
    type: EntryType = EntryType.SYMLINK
    size_bytes: int = 0
    layer: int = 3
    instruction: str | None = "RUN apt-get install -y gcc"
    package: str | None = "dpkg:gcc 4:12.2.0-3"
    category: str | None = "compilers"
    verdict: None = None
    chain: tuple[Edge, ...] | None = None
    would_need: tuple[Edge, ...] | None = None
    reason: str | None = None


def layer(
    index: int, size: int, shadowed: int = 0, instruction: str | None = "RUN true", **more: Any
) -> LayerReport:
    """One layer whose live bytes are all of one category."""
    values: dict[str, Any] = {
        "index": index,
        "diff_id": f"sha256:{index:064x}",
        "digest": None,
        "size_bytes": size,
        "compressed_bytes": size // 3,
        "shadowed_bytes": shadowed,
        "entries": 10 * (index + 1),
        "instruction": instruction,
        "from_base": index < 2,
        "categories": {"os-base" if index < 2 else "dependencies": size - shadowed} if size else {},
    }
    return LayerReport(**{**values, **more})


def report(**changes: Any) -> Report:
    """An ordinary report: six layers, a Node application on Debian, built the single-stage way."""
    layers = (
        layer(0, 117_000_000, 1_200_000, "ADD rootfs.tar.xz /"),
        layer(
            1,
            512_300_000,
            0,
            "RUN apt-get update && apt-get install -y --no-install-recommends g++ gcc make python3 "
            "&& rm -rf /var/lib/apt/lists/*",
        ),
        layer(2, 0, 0, "WORKDIR /app"),
        layer(3, 300_000, 1_000, "COPY package.json package-lock.json ./"),
        layer(4, 431_000_000, 58_000_000, "RUN npm ci\n  # with a comment"),
        layer(5, 2_400_000, 0, None),
    )
    stored = sum(item.size_bytes for item in layers)
    shadowed = sum(item.shadowed_bytes for item in layers)
    live = stored - shadowed
    made = Report(
        image=ImageSummary(
            reference="myapp:latest",
            id="sha256:" + "0123456789abcdef" * 4,
            platform="linux/amd64",
            created="2026-11-20T10:00:00Z",
            entrypoint=("docker-entrypoint.sh",),
            cmd=("node", "server.js"),
            user="node",
            workdir="/app",
            env=("PATH=/usr/local/bin:/usr/bin",),
            exposed_ports=("3000/tcp",),
            healthcheck=None,
        ),
        totals=Totals(stored, live, shadowed, 402_000_000, 75_123, 61_009),
        layers=layers,
        categories=(
            CategoryReport("dependencies", 500_000_000, 41_000),
            CategoryReport("compilers", 312_000_000, 2_100),
            CategoryReport("os-base", live - 812_003_000, 17_000),
            CategoryReport("app", 3_000, 12),
            CategoryReport("secrets", 0, 0),
        ),
        packages=(
            PackageReport(
                "dpkg", "gcc-12", "12.2.0-14", 102_000_000, 51, None, 1, "/var/lib/dpkg/info/gcc-12.list"
            ),
            PackageReport(
                "dpkg", "libc6", "2.36-9", 13_000_000, 270, None, 0, "/var/lib/dpkg/info/libc6.list"
            ),
            PackageReport("node", "typescript", "5.4.2", 66_000_000, 132, None, 4, None),
        ),
        paths=(
            PathReport("/app/node_modules", 373_000_000, 40_000, "dependencies", None, (4,)),
            PathReport(
                "/usr/lib/gcc", 312_000_000, 1_900, "compilers", "dpkg:gcc-12 12.2.0-14", (1, 2, 3, 5)
            ),
            PathReport("/root/.npm", 58_000_000, 900, "package-cache", None, (4,)),
        ),
        waste=WasteReport(
            efficiency=live / stored,
            dive_efficiency=0.9991,
            shadowed_bytes=shadowed,
            duplicate_bytes=4_100_000,
            items=(
                WasteItem("/tmp/build", "deleted", 58_000_000, (4, 5), "RUN rm -rf /tmp/build", 120),
                WasteItem("/etc/passwd", "overwritten", 1_201_000, (0, 3), None),
            ),
            duplicates=(DuplicateGroup("sha256:" + "ab" * 32, 4_100_000, ("/a/libx.so", "/b/libx.so")),),
        ),
        diagnostics=(
            Diagnostic("info", "config-history", "the history has fewer entries than there are layers"),
            Diagnostic("warning", "python-broken", "METADATA has no Version", "/usr/lib/python3/x.dist-info"),
        ),
        instructions=(
            Instruction(0, "ADD rootfs.tar.xz /", "/bin/sh -c #(nop) ADD file:1 in / ", None, None, 0, True),
            Instruction(1, "RUN apt-get install -y gcc", "/bin/sh -c apt-get install", None, None, 1, True),
            Instruction(2, 'CMD ["bash"]', '/bin/sh -c #(nop)  CMD ["bash"]', None, None, None, True),
        ),
    )
    return replace(made, **changes)


def hostile() -> Report:
    """A report every string of which is an attack."""
    ordinary = report()
    long_name = "/deep" * 200_000
    return replace(
        ordinary,
        image=replace(
            ordinary.image,
            reference=EVIL,
            id=EVIL,
            platform=EVIL,
            created=EVIL,
            entrypoint=(EVIL, "\ud800"),
            cmd=(EVIL,),
            user=EVIL,
            workdir=EVIL,
            env=(EVIL,),
            exposed_ports=(EVIL,),
            healthcheck={EVIL: [EVIL]},
        ),
        layers=tuple(replace(item, instruction=EVIL, digest=EVIL) for item in ordinary.layers),
        packages=(PackageReport(EVIL, EVIL, EVIL, 10**30, 1, None, None, "/" + EVIL),),
        paths=(
            PathReport("/" + EVIL, 10**18, 1, "app", EVIL, (0, 5)),
            PathReport(long_name, -1, 1, "app", EVIL, tuple(range(0, 120, 2))),
            PathReport("/" + "界" * 300, 5, 1, "app", None, ()),
        ),
        waste=replace(
            ordinary.waste,
            items=(WasteItem("/" + EVIL, "deleted", 58_000_000, (4, 5), EVIL),),
            duplicates=(DuplicateGroup(EVIL, 1, ("/" + EVIL, long_name)),),
        ),
        diagnostics=(Diagnostic("error", EVIL, EVIL, "/" + EVIL),),
        instructions=(Instruction(0, EVIL, EVIL, EVIL, EVIL, 0, False),),
    )
