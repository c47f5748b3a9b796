"""A case as it lies on disk: the folder, its Dockerfiles, case.toml and probe.toml, checked on loading."""

from __future__ import annotations

import hashlib
import os
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpuskit.errors import CorpusError

REPOSITORY = Path(__file__).resolve().parent.parent.parent
CASES = REPOSITORY / "tests" / "corpus"
STATE = REPOSITORY / ".corpus"
"""Prepared contexts, build logs and cached results; never committed."""

IMAGE_PREFIX = "layerlens-corpus/"
VARIANTS = ("single", "multistage")
DOCKERFILES = {"single": "Dockerfile", "multistage": "Dockerfile.multistage"}
HARNESS_FILES = {"case.toml", "probe.toml", "prepare.sh", "observed.txt", "observed.json"}
LOCAL_LEFTOVERS = {"node_modules", "__pycache__", "target", ".pytest_cache"}

_CASE_KEYS = {
    "title",
    "guide",
    "slim_already",
    "single",
    "multistage",
    "images",
    "careful",
    "differs",
    "passing",
}
_GUIDE_KEYS = {"node", "go", "python", "react"}


@dataclass(frozen=True, slots=True)
class ExtraImage:
    """An image of the case that is built before its two, for ``COPY --from``."""

    tag: str
    dockerfile: str
    target: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """A path pattern (fnmatch) and the reason for what is said of it."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class HttpCheck:
    """A GET on 127.0.0.1 and what it must answer."""

    port: int
    path: str
    status: int
    contains: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ExecCheck:
    """A fresh container with these arguments after the image's name, and how it must end."""

    command: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    exit_status: int
    contains: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Probe:
    """probe.toml."""

    env: tuple[tuple[str, str], ...]
    args: tuple[str, ...]
    network: str
    timeout_s: float
    http: tuple[HttpCheck, ...]
    execs: tuple[ExecCheck, ...]
    digest: str


@dataclass(frozen=True, slots=True)
class Case:
    """One application of the corpus."""

    name: str
    folder: Path
    title: str
    guide: str | None
    slim_already: bool
    targets: dict[str, str]
    images: tuple[ExtraImage, ...]
    careful_allow: tuple[Note, ...]
    differs: tuple[Note, ...]
    passing: tuple[Note, ...] = ()
    """Observed paths that the program only looks at in passing: it works without them."""

    def tag(self, variant: str) -> str:
        """The image's reference: ``layerlens-corpus/NAME:single``, ``:multistage``, or of what was made of them."""
        return f"{IMAGE_PREFIX}{self.name}:{variant}"

    def dockerfile(self, name: str) -> str:
        """The text of one of the folder's Dockerfiles."""
        try:
            return (self.folder / name).read_text()
        except OSError as error:
            raise CorpusError(f"{self.name}: no {name}: {error.strerror}") from error

    def bases(self, name: str) -> list[str]:
        """The images outside the case that a Dockerfile of it is built from, in order of appearance."""
        own = {image.tag for image in self.images}
        return [base for base in external_images(self.dockerfile(name)) if base not in own]

    def app_files(self) -> Iterator[tuple[str, Path]]:
        """The context's own files as (relative path, file), sorted; without what the harness keeps there."""
        yield from sorted(_walk(self.folder))

    def context_hash(self) -> str:
        """Of everything that ``prepare`` and the build see, but for the Dockerfiles."""
        digest = hashlib.sha256()
        for relative, file in self.app_files():
            digest.update(f"{relative}\0{os.lstat(file).st_mode & 0o170111:o}\0".encode())
            digest.update(os.readlink(file).encode() if file.is_symlink() else file.read_bytes())
        prepare = self.folder / "prepare.sh"
        digest.update(b"\0prepare\0" + (prepare.read_bytes() if prepare.exists() else b""))
        return digest.hexdigest()

    def probe(self) -> Probe:
        """The case's probe.toml, checked."""
        return load_probe(self.folder / "probe.toml", self.name)


def _walk(folder: Path) -> Iterator[tuple[str, Path]]:
    for root, directories, files in os.walk(folder):
        top = Path(root) == folder
        dropped = LOCAL_LEFTOVERS if top else {"__pycache__"}
        directories[:] = sorted(d for d in directories if d not in dropped)
        links = [d for d in directories if (Path(root) / d).is_symlink()]
        for name in [*files, *links]:
            if top and (name in HARNESS_FILES or re.fullmatch(r"Dockerfile(\..*)?", name)):
                continue
            file = Path(root) / name
            yield str(file.relative_to(folder)), file


def external_images(dockerfile: str) -> list[str]:
    """References in FROM and ``COPY --from`` that are no stage of the file; ARG defaults are filled in."""
    arguments: dict[str, str] = {}
    stages: set[str] = set()
    found: dict[str, None] = {}
    for line in _logical_lines(dockerfile):
        words = line.split()
        keyword = words[0].upper()
        if keyword == "ARG" and not stages and not found and "=" in line:
            name, _, value = words[1].partition("=")
            arguments[name] = value.strip("\"'")
        elif keyword == "FROM":
            operands = [word for word in words[1:] if not word.startswith("--")]
            reference = _substitute(operands[0], arguments)
            if reference not in stages and reference != "scratch":
                found[reference] = None
            if len(operands) == 3 and operands[1].upper() == "AS":
                stages.add(operands[2].lower())
        elif keyword == "COPY":
            for word in words[1:]:
                if word.startswith("--from="):
                    reference = word.removeprefix("--from=")
                    if not reference.isdigit() and reference.lower() not in stages:
                        found[reference] = None
    return list(found)


def _logical_lines(dockerfile: str) -> Iterator[str]:
    pending = ""
    for raw in dockerfile.splitlines():
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if line.endswith("\\"):
            pending += line[:-1] + " "
            continue
        yield pending + line
        pending = ""
    if pending.strip():
        yield pending


def _substitute(text: str, arguments: dict[str, str]) -> str:
    return re.sub(r"\$\{?(\w+)\}?", lambda match: arguments.get(match[1], match[0]), text)


def load_cases() -> list[Case]:
    """Every folder of tests/corpus with a Dockerfile, sorted by name."""
    return [load_case(folder.name) for folder in sorted(CASES.iterdir()) if (folder / "Dockerfile").exists()]


def load_case(name: str) -> Case:
    """The case of that name; `CorpusError` names the nearest ones when there is none."""
    folder = CASES / name
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name) or not (folder / "Dockerfile").exists():
        known = ", ".join(sorted(f.parent.name for f in CASES.glob("*/Dockerfile")))
        raise CorpusError(f"no case named {name}; there are: {known}")
    file = folder / "case.toml"
    data = _toml(file, name) if file.exists() else {}
    _only(data, _CASE_KEYS, f"{name}/case.toml")
    guide = data.get("guide")
    if guide is not None and guide not in _GUIDE_KEYS:
        raise CorpusError(
            f"{name}/case.toml: guide is {guide!r}, not one of {', '.join(sorted(_GUIDE_KEYS))}"
        )
    return Case(
        name=name,
        folder=folder,
        title=data.get("title", name),
        guide=guide,
        slim_already=bool(data.get("slim_already", False)),
        targets={variant: data.get(variant, {}).get("target", "") for variant in VARIANTS},
        images=tuple(ExtraImage(**image) for image in data.get("images", [])),
        careful_allow=tuple(Note(**note) for note in data.get("careful", {}).get("allow", [])),
        differs=tuple(Note(**note) for note in data.get("differs", [])),
        passing=tuple(Note(**note) for note in data.get("passing", [])),
    )


def load_probe(file: Path, name: str) -> Probe:
    """Parse and check a probe.toml."""
    data = _toml(file, name)
    where = f"{name}/probe.toml"
    _only(data, {"run", "wait", "http", "exec"}, where)
    run = data.get("run", {})
    _only(run, {"env", "args", "network"}, f"{where} [run]")
    network = run.get("network", "host")
    if network not in ("host", "none"):
        raise CorpusError(f'{where}: network is {network!r}, not "host" or "none"')
    http, execs = [], []
    for check in data.get("http", []):
        _only(check, {"port", "path", "status", "contains"}, f"{where} [[http]]")
        http.append(
            HttpCheck(
                int(check["port"]),
                check["path"],
                int(check.get("status", 200)),
                _strings(check.get("contains")),
            )
        )
    for check in data.get("exec", []):
        _only(check, {"command", "env", "exit_status", "contains"}, f"{where} [[exec]]")
        execs.append(
            ExecCheck(
                tuple(check.get("command", [])),
                _env(check.get("env", {})),
                int(check.get("exit_status", 0)),
                _strings(check.get("contains")),
            )
        )
    if not http and not execs:
        raise CorpusError(f"{where}: a probe without [[http]] or [[exec]] checks nothing")
    if http and network == "none":
        raise CorpusError(f'{where}: [[http]] cannot reach a container with network = "none"')
    return Probe(
        env=_env(run.get("env", {})),
        args=tuple(run.get("args", [])),
        network=network,
        timeout_s=float(data.get("wait", {}).get("timeout_s", 30)),
        http=tuple(http),
        execs=tuple(execs),
        digest=hashlib.sha256(file.read_bytes()).hexdigest(),
    )


def _env(table: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((key, str(value)) for key, value in table.items())


def _strings(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def _toml(file: Path, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except OSError as error:
        raise CorpusError(f"{name}: no {file.name}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise CorpusError(f"{name}/{file.name}: {error}") from error


def _only(table: dict[str, Any], known: set[str], where: str) -> None:
    unknown = set(table) - known
    if unknown:
        raise CorpusError(
            f"{where}: unknown key {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}"
        )
