"""The private engine of scripts/engine, through the docker client."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from corpuskit.cases import REPOSITORY, STATE
from corpuskit.errors import CorpusError

ENGINE = REPOSITORY / "scripts" / "engine"


@cache
def environment() -> dict[str, str]:
    """The process environment pointed at the private engine, which is started if it does not run."""
    started = subprocess.run([ENGINE, "start"], capture_output=True, text=True)
    if started.returncode != 0:
        raise CorpusError(f"the private engine does not start:\n{started.stderr.strip()}")
    printed = subprocess.run([ENGINE, "env"], capture_output=True, text=True)
    if printed.returncode != 0:
        raise CorpusError(f"scripts/engine env: {printed.stderr.strip()}")
    variables = dict(os.environ)
    for line in printed.stdout.splitlines():
        words = shlex.split(line)
        if words[:1] == ["export"]:
            name, _, value = words[1].partition("=")
            variables[name] = value
        elif words[:1] == ["unset"]:
            for name in words[1:]:
                variables.pop(name, None)
    variables["DOCKER_BUILDKIT"] = "0"
    return variables


def docker(*arguments: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the docker client; its output is captured as text."""
    result = subprocess.run(
        ["docker", *arguments], env=environment(), capture_output=True, text=True, errors="replace", **options
    )
    if check and result.returncode != 0:
        raise CorpusError(f"docker {shlex.join(arguments)}: {result.stderr.strip() or result.stdout.strip()}")
    return result


def state_folder() -> Path:
    """Where the private engine keeps its state."""
    return Path(environment()["LAYERLENS_ENGINE_DIR"])


def inspect_image(reference: str) -> dict[str, Any] | None:
    """What the engine knows of an image; None if it has none of that name."""
    result = docker("image", "inspect", reference, check=False)
    if result.returncode != 0:
        return None
    image: dict[str, Any] = json.loads(result.stdout)[0]
    return image


def labels(image: dict[str, Any]) -> dict[str, str]:
    """The image's labels."""
    return (image.get("Config") or {}).get("Labels") or {}


def ensure_bases(references: list[str]) -> dict[str, str]:
    """Reference → image ID of every base; scripts/engine builds the missing and outdated ones. Asked once a run."""
    asked = [reference for reference in references if reference not in _BASES]
    bases = _engine_script().bases()
    ours = [tag for tag in map(tagged, asked) if tag in bases and not _current(tag)]
    words = ""
    if ours:  # it goes on after a failure, so what is there afterwards decides
        result = subprocess.run([ENGINE, "base", *ours], env=environment(), capture_output=True, text=True)
        words = result.stderr.strip() if result.returncode != 0 else ""
    for reference in asked:
        image = inspect_image(reference)
        if image is not None and not (tagged(reference) in ours and f"{tagged(reference)} failed" in words):
            _BASES[reference] = image["Id"]
    missing = [reference for reference in references if reference not in _BASES]
    if missing:
        raise CorpusError(
            f"no base image {', '.join(missing)}: "
            + (words or "neither in the engine nor in `scripts/engine base --list`")
        )
    return {reference: _BASES[reference] for reference in references}


_BASES: dict[str, str] = {}


def tagged(reference: str) -> str:
    """The reference with the tag that engines add where a FROM line has none: `nginx` is `nginx:latest`."""
    return reference if {":", "@"} & set(reference.rpartition("/")[2]) else f"{reference}:latest"


def _current(reference: str) -> bool:
    """Whether the engine has this base as it is defined now; unlike `engine base`, this waits for no lock."""
    script = _engine_script()
    wanted = script.content_hash(script.bases()[reference])
    return bool(script.built().get(reference, {}).get("hash") == wanted)


@cache
def _engine_script() -> Any:
    """scripts/engine as a module."""
    environment()
    loader = importlib.machinery.SourceFileLoader("corpuskit_engine_script", str(ENGINE))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[loader.name] = module  # its dataclasses look themselves up
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module


def log_file(name: str) -> Path:
    """Where a build's output is kept."""
    folder = STATE / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.log"
