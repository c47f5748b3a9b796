"""Plans of images from literals: what is kept is named, so that a test of the plan is none of the search."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from imagekit import File, Member, layer
from squashkit import squash

from layerlens.attribution import Attribution
from layerlens.ecosystems import ecosystems
from layerlens.filesystem import Filesystem
from layerlens.graph import Needs
from layerlens.history import parse_config
from layerlens.model import ImageConfig, Instruction, Package
from layerlens.plan import Plan, make_plan
from layerlens.runtime import Base, Choice

RUN = File(mode=0o755, data=b"\x7fPROGRAM" + bytes(56))
"""A program of 64 bytes that needs nothing else."""


def config(**values: Any) -> ImageConfig:
    """A parsed config with these fields of the config's own ``config`` object."""
    inside = {"Cmd": ["/app/run"], "Env": ["PATH=/usr/bin:/bin"], **values}
    return parse_config(json.dumps({"os": "linux", "architecture": "amd64", "config": inside}).encode())


def packages(filesystem: Filesystem, made: ImageConfig) -> list[Package]:
    return [package for ecosystem in ecosystems() for package in ecosystem.packages(filesystem, made, [])]


def needs_of(
    *layers: Mapping[str, Member],
    keep: Sequence[str] = (),
    drop: Sequence[str] = (),
    made: ImageConfig | None = None,
) -> Needs:
    """What is kept of an image of these layers: what its command needs, and ``keep``."""
    made = made or config()
    filesystem = squash(*(layer(members) for members in layers))
    attribution = Attribution(filesystem, packages(filesystem, made))
    return Needs(attribution, made, keep=keep, drop=drop)


def base_of(members: Mapping[str, Member], reference: str = "slim:1", **values: Any) -> Base:
    """A runtime image that was opened."""
    filesystem = squash(layer(members))
    made = config(**{"Cmd": ["sh"], **values})
    size = sum(layer.index.sizes[number] for layer in filesystem.layers for number in range(len(layer.index)))
    return Base(reference, size, filesystem, made, tuple(packages(filesystem, made)))


def plan_of(
    needs: Needs,
    base: Base | None,
    *,
    tree: Sequence[str] = (),
    derived: Sequence[str] = (),
    instructions: Sequence[Instruction] = (),
    musl: Iterable[Base] = (),
) -> Plan:
    """The plan on a base, or on scratch."""
    choice = Choice((), (), tuple(tree), "said by the test", tuple(derived))
    return make_plan(
        needs,
        base=base,
        choice=choice,
        layer_bytes=needs.attribution.live_bytes,
        instructions=instructions,
        musl=musl,
    )


def built(plan: Plan) -> dict[str, int]:
    """Bytes by verdict over the live payloads; raises where a payload has several verdicts."""
    fs, sums = plan.fs, dict.fromkeys(("copy", "base", "package", "drop"), 0)
    seen: dict[int, str] = {}
    for path in fs.walk_files("/"):
        gid = fs.payload_gid(path)
        if gid is None:
            continue
        verdict = plan.verdict(path)
        if gid not in seen:
            sums[verdict] += fs.size(path)
            seen[gid] = verdict
        elif "drop" not in (verdict, seen[gid]):
            assert verdict == seen[gid], path
    return sums
