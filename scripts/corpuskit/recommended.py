"""What layerlens makes of a case's single-stage image: by its Dockerfile, built as a user would, and by slim."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from corpuskit.archives import archive_of
from corpuskit.build import alone, prepared_context, run_build, tail
from corpuskit.cases import REPOSITORY, STATE, Case
from corpuskit.engine import docker, environment, inspect_image, labels, log_file
from corpuskit.errors import CorpusError

LAYERLENS = REPOSITORY / ".venv" / "bin" / "layerlens"
RUNTIMES = ("base", "scratch")
"""The values of --runtime that are tried, and the tags of the images they give."""
SLIM = "slim"
"""The tag of what `layerlens slim --runtime scratch` gives."""
ESTIMATE, SECONDS, DEFAULT = (
    f"layerlens-corpus.{name}" for name in ("estimated-bytes", "seconds", "default-runtime")
)
"""Labels of those images: what was predicted, how long layerlens took, and what it takes without --runtime."""
TIMEOUT_S = 300


@dataclass(frozen=True, slots=True)
class Made:
    """One image that layerlens made, or whose Dockerfile it wrote."""

    tag: str
    image_id: str
    size_bytes: int
    estimated_bytes: int | None
    seconds: float
    """What layerlens itself took, without the build."""
    is_default: bool
    """Whether it is what recommend does without --runtime."""

    @property
    def estimate_error(self) -> float | None:
        """Predicted against built, as a share of what was built."""
        if self.estimated_bytes is None or not self.size_bytes:
            return None
        return abs(self.estimated_bytes - self.size_bytes) / self.size_bytes


def recommend(case: Case, runtime: str, say: Callable[[str], None]) -> Made:
    """Let recommend write Dockerfile.slim in a copy of the context, and build it unedited."""
    with alone(f"{case.name}.{runtime}"):
        return _recommend(case, runtime, say)


def _recommend(case: Case, runtime: str, say: Callable[[str], None]) -> Made:
    archive = archive_of(case)
    folder = STATE / "recommended" / f"{case.name}.{runtime}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(prepared_context(case, case.context_hash(), say), folder, symlinks=True)
    try:
        (folder / "Dockerfile").write_text(case.dockerfile("Dockerfile"))
        command = ["recommend", str(archive), "--dockerfile", "Dockerfile", "--runtime", runtime]
        say(f"{case.name}: layerlens recommend --runtime {runtime}")
        started = time.monotonic()
        layerlens(case, [*command, "-o", "Dockerfile.slim"], folder)
        seconds = time.monotonic() - started
        estimate = json.loads(layerlens(case, [*command, "--format", "json"], folder))["estimated_bytes"]
        chosen = json.loads(layerlens(case, [*command[:4], "--format", "json"], folder))["runtime"]
        return _build(case, runtime, folder, (estimate, seconds, chosen), say)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _build(
    case: Case, runtime: str, folder: Path, told: tuple[int, float, str], say: Callable[[str], None]
) -> Made:
    tag = case.tag(runtime)
    before = inspect_image(tag)
    say(f"building {tag}")
    log = log_file(f"{case.name}-{runtime}")
    command = [
        "docker",
        "build",
        "--network=host",
        "--rm",
        "--force-rm",
        f"--tag={tag}",
        "--file=Dockerfile.slim",
    ]
    command += [
        f"--label={name}={value}" for name, value in zip((ESTIMATE, SECONDS, DEFAULT), told, strict=True)
    ]
    status = run_build(command, folder, tag, log)
    kept = log.with_suffix(".dockerfile")
    shutil.copyfile(folder / "Dockerfile.slim", kept)
    if status != 0:
        raise CorpusError(f"{tag}: the Dockerfile ({kept}) does not build (exit {status}):\n{tail(log)}")
    made = made_before(case, runtime)
    assert made is not None
    if before is not None and before["Id"] != made.image_id:
        docker("image", "rm", before["Id"], check=False)
    return made


def slim(case: Case, say: Callable[[str], None]) -> Made:
    """Let slim write an archive of the closure alone, and load it."""
    archive = archive_of(case)
    tag = case.tag(SLIM)
    output = STATE / "recommended" / f"{case.name}.slim.tar"
    output.parent.mkdir(parents=True, exist_ok=True)
    say(f"{case.name}: layerlens slim --runtime scratch")
    try:
        started = time.monotonic()
        layerlens(case, ["slim", str(archive), "--runtime", "scratch", "-o", str(output)], output.parent)
        seconds = time.monotonic() - started
        loaded = docker("load", "--input", str(output)).stdout
    finally:
        output.unlink(missing_ok=True)
    # A label would make another image of it, so that the seconds are kept beside.
    docker("tag", loaded_name(loaded), tag)
    (STATE / "recommended" / f"{case.name}.slim.seconds").write_text(f"{seconds:.2f}\n")
    made = made_before(case, SLIM)
    assert made is not None
    return made


def loaded_name(said: str) -> str:
    """The image that `docker load` says it loaded."""
    found = re.search(r"Loaded image(?: ID)?: (\S+)", said)
    if found is None:
        raise CorpusError(f"the engine does not say what it loaded: {said.strip()}")
    return found[1]


def made_before(case: Case, variant: str) -> Made | None:
    """What the engine has of an earlier run; None if nothing."""
    image = inspect_image(case.tag(variant))
    if image is None:
        return None
    own = labels(image)
    try:
        stored = (STATE / "recommended" / f"{case.name}.slim.seconds").read_text() if variant == SLIM else "0"
    except OSError:
        stored = "0"
    estimate = own.get(ESTIMATE) if variant != SLIM else None
    return Made(
        tag=case.tag(variant),
        image_id=image["Id"],
        size_bytes=int(image["Size"]),
        estimated_bytes=int(estimate) if estimate else None,
        seconds=float(own.get(SECONDS, stored) if variant != SLIM else stored),
        is_default=variant != SLIM and own.get(DEFAULT) == variant,
    )


def run_layerlens(
    arguments: Sequence[str | Path], *, folder: Path | None = None, timeout_s: float = TIMEOUT_S
) -> subprocess.CompletedProcess[str]:
    """Run layerlens as a user would, its output captured, whatever its exit status."""
    return subprocess.run(
        [str(LAYERLENS), *map(str, arguments)],
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


def layerlens(case: Case, arguments: Sequence[str | Path], folder: Path) -> str:
    """What layerlens prints, run in ``folder``; CorpusError with its words where it fails."""
    result = run_layerlens(arguments, folder=folder)
    if result.returncode != 0:
        told = " ".join(map(str, arguments))
        raise CorpusError(
            f"{case.name}: layerlens {told} (exit {result.returncode}):\n{result.stderr.strip()}"
        )
    return result.stdout
