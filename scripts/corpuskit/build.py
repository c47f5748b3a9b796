"""A case's images: context prepared, bases ensured, built by the classic builder, cached by content."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from corpuskit.cases import DOCKERFILES, STATE, VARIANTS, Case
from corpuskit.engine import docker, ensure_bases, environment, inspect_image, labels, log_file
from corpuskit.errors import CorpusError

CONTENT_LABEL = "layerlens-corpus.content"
PREPARE_TIMEOUT_S = 1800
BUILD_TIMEOUT_S = 3600


@dataclass(frozen=True, slots=True)
class Built:
    """One image of a case after `build`."""

    tag: str
    image_id: str
    size_bytes: int
    cached: bool
    seconds: float


def build_case(case: Case, say: Callable[[str], None]) -> list[Built]:
    """Build what is not there: extra images, then single and multistage; raises at the first failure."""
    with alone(case.name):
        context_hash = case.context_hash()
        wanted = [(image.tag, image.dockerfile, image.target) for image in case.images]
        wanted += [(case.tag(name), DOCKERFILES[name], case.targets[name]) for name in VARIANTS]
        return [_build(case, *image, context_hash, say) for image in wanted]


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Let nobody else work on a case meanwhile, or on what is named like it."""
    STATE.mkdir(exist_ok=True)
    with (STATE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def prepared_context(case: Case, context_hash: str, say: Callable[[str], None]) -> Path:
    """The copied context with what prepare.sh fetched, from an earlier run if nothing changed."""
    folder = STATE / "contexts" / case.name / context_hash[:24]
    if folder.exists():
        return folder
    for old in folder.parent.glob("*"):
        shutil.rmtree(old)
    staging = folder.with_suffix(".part")
    staging.mkdir(parents=True)
    for relative, file in case.app_files():
        target = staging / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, target, follow_symlinks=False)
    script = case.folder / "prepare.sh"
    if script.exists():
        say(f"{case.name}: preparing the context")
        log = log_file(f"{case.name}-prepare")
        with log.open("wb") as stream:
            result = subprocess.run(
                ["sh", "-eu", script.absolute()],
                cwd=staging,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                timeout=PREPARE_TIMEOUT_S,
            )
        if result.returncode != 0:
            shutil.rmtree(staging)
            raise CorpusError(f"{case.name}: prepare.sh failed (exit {result.returncode}):\n{tail(log)}")
    staging.rename(folder)
    return folder


def _build(
    case: Case, tag: str, dockerfile: str, target: str, context_hash: str, say: Callable[[str], None]
) -> Built:
    started = time.monotonic()
    text = case.dockerfile(dockerfile)
    bases = ensure_bases(case.bases(dockerfile))
    for image in case.images:  # built before; only those that this file names count
        if image.tag in text and image.tag != tag:
            found = inspect_image(image.tag)
            bases[image.tag] = found["Id"] if found else ""
    parts = [context_hash, text, target, *(f"{name}={identity}" for name, identity in sorted(bases.items()))]
    content = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    before = inspect_image(tag)
    if before is not None and labels(before).get(CONTENT_LABEL) == content:
        return Built(tag, before["Id"], int(before["Size"]), True, time.monotonic() - started)
    context = prepared_context(case, context_hash, say)
    (context / "Dockerfile").write_text(text)
    say(f"building {tag}")
    log = log_file(tag.rpartition("/")[2].replace(":", "-"))
    command = ["docker", "build", "--network=host", "--rm", "--force-rm", f"--tag={tag}"]
    command += [f"--label={CONTENT_LABEL}={content}"] + ([f"--target={target}"] if target else [])
    status = run_build(command, context, tag, log)
    if status != 0:
        raise CorpusError(f"{tag}: {dockerfile} does not build (exit {status}); log: {log}\n{tail(log)}")
    after = inspect_image(tag)
    if after is None:
        raise CorpusError(f"{tag}: the build ended well, but there is no such image; log: {log}")
    if before is not None and before["Id"] != after["Id"]:
        docker(
            "image", "rm", before["Id"], check=False
        )  # what the tag named until now; kept while others use it
    return Built(tag, after["Id"], int(after["Size"]), False, time.monotonic() - started)


def run_build(command: list[str], context: Path, tag: str, log: Path) -> int:
    """Run a `docker build` of a context, its output into ``log``; the exit status."""
    with log.open("wb") as stream:
        try:
            return subprocess.run(
                [*command, str(context)],
                cwd=context,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                timeout=BUILD_TIMEOUT_S,
            ).returncode
        except subprocess.TimeoutExpired as error:
            raise CorpusError(f"{tag}: the build took more than {BUILD_TIMEOUT_S} s; log: {log}") from error


def tail(log: Path, lines: int = 15) -> str:
    """The end of a log, indented."""
    text = log.read_text(errors="replace").splitlines()
    return os.linesep.join(f"    {line}" for line in text[-lines:])
