"""The needs of an image from literals, for tests of what ecosystems find."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from imagekit import File, Member, layer
from squashkit import squash

from layerlens.attribution import Attribution
from layerlens.ecosystems import ecosystems
from layerlens.graph import Needs
from layerlens.history import parse_config
from layerlens.model import Diagnostic


def program(text: bytes | str = b"") -> File:
    """An executable file; without a text, one of which nothing can be read."""
    data = text.encode() if isinstance(text, str) else text
    return File(mode=0o755, data=data or b"\x7fPROGRAM")


def needs(
    members: Mapping[str, Member],
    *,
    entrypoint: Sequence[str] | None = None,
    cmd: Sequence[str] | None = None,
    env: Mapping[str, str] | None = None,
    workdir: str = "/",
    healthcheck: Sequence[str] | None = None,
    user: str = "",
) -> Needs:
    """What an image of one layer with this config needs."""
    inside: dict[str, object] = {
        "Entrypoint": list(entrypoint) if entrypoint else None,
        "Cmd": list(cmd) if cmd else None,
        "Env": [f"{name}={value}" for name, value in (env or {}).items()],
        "WorkingDir": workdir,
        "User": user,
    }
    if healthcheck:
        inside["Healthcheck"] = {"Test": list(healthcheck)}
    config = parse_config(json.dumps({"os": "linux", "architecture": "amd64", "config": inside}).encode())
    filesystem = squash(layer(members))
    diagnostics: list[Diagnostic] = []
    found = [
        package
        for ecosystem in ecosystems()
        for package in ecosystem.packages(filesystem, config, diagnostics)
    ]
    return Needs(Attribution(filesystem, found), config)


def kept_files(found: Needs) -> set[str]:
    """Every kept path that is no directory."""
    return {path for path in found.kept if not found.fs.is_dir(path)}


def codes(found: Needs) -> set[str]:
    """The codes of what could not be known."""
    return {diagnostic.code for diagnostic in found.diagnostics}
