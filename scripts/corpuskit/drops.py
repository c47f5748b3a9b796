"""What `layerlens slim --verify` says when a file that the program was seen to open is left out on purpose.

For each case, seeded draws from observed.txt. Either the probe tells that the file is missing, and slim names it; or
it passes, because the program can do without.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from corpuskit.cases import REPOSITORY, STATE, Case, load_cases
from corpuskit.closure import observed_paths
from corpuskit.engine import docker, inspect_image
from corpuskit.errors import CorpusError
from corpuskit.probe import alone_on
from corpuskit.recommended import run_layerlens
from layerlens import open_image
from layerlens.model import EntryType

SEED = 2026
TIMEOUT_S = 900
TABLE = REPOSITORY / "tests" / "corpus" / "DROPS.md"

FOUND, WITHOUT, MISSED = "found", "can do without", "NOT FOUND"


@dataclass(frozen=True, slots=True)
class Draw:
    """One file that was left out, and what came of it."""

    path: str
    category: str
    outcome: str
    """:data:`FOUND`, :data:`WITHOUT` or :data:`MISSED`."""
    note: str
    """The first question that was answered otherwise; for what passed, nothing."""
    seconds: float


def drawn(case: Case, draws: int, seed: int) -> list[tuple[str, str]]:
    """Observed regular files of the case's image, each with its category; the same for the same seed.

    A folder is drawn first and a file in it then, so that 140 certificates do not stand in for all the rest.
    """
    with open_image(f"docker://{case.tag('single')}") as image:
        fs = image.fs
        folders: dict[str, list[str]] = {}
        for path in sorted(observed_paths(case)):
            if fs.type_of(path) == EntryType.FILE:
                folders.setdefault(path.rpartition("/")[0], []).append(path)
        dice = random.Random(f"{case.name} {seed}")
        chosen: list[str] = []
        while len(chosen) < draws and folders:
            folder = dice.choice(sorted(folders)) if len(folders) < draws else ""
            for one in [folder] if folder else dice.sample(sorted(folders), draws):
                chosen.append(folders[one].pop(dice.randrange(len(folders[one]))))
                if not folders[one]:
                    del folders[one]
        if len(chosen) < draws:
            raise CorpusError(f"{case.name}: only {len(chosen)} files were observed")
        return [(path, image.attribution.category_of(path) or "") for path in chosen]


def try_without(case: Case, path: str, category: str, say: Callable[[str], None]) -> Draw:
    """Let slim leave a file out, and see whether it says so."""
    say(f"{case.name}: without {path}")
    tag = f"layerlens-corpus/{case.name}:drop"
    probe = case.folder / "probe.toml"
    command = ["slim", f"docker://{case.tag('single')}", "-t", tag, "--drop", path, "--verify"]
    command += ["--probe", str(probe), "--format", "json"]
    started = time.monotonic()
    try:
        with ExitStack() as held:
            for port in sorted({check.port for check in case.probe().http}):
                held.enter_context(alone_on(port))
            result = run_layerlens(command, timeout_s=TIMEOUT_S)
    finally:
        if inspect_image(tag) is not None:
            docker("image", "rm", tag, check=False)
    seconds = time.monotonic() - started
    return Draw(path, category, *outcome(path, result.returncode, result.stdout, result.stderr), seconds)


def outcome(path: str, status: int, stdout: str, stderr: str) -> tuple[str, str]:
    """What slim's exit status and report say of a file that was left out.

    It is found where slim fails and names it: among what the original opened and the slim image lacks, or, when no
    image can be made without it, in the message.
    """
    if status == 0:
        return WITHOUT, ""
    if status != 1:
        message = " ".join(stderr.split())
        return (FOUND if path in message else MISSED), f"refused: {message[:200]}"
    verification = json.loads(stdout)["verification"]
    first = next((check for check in verification["checks"] if not check["same"]), None)
    told = f"{first['probe']}: {first['detail']}" if first else ""
    told = " ".join(told.split())[:160]
    if path in verification["missing"]:
        return FOUND, told
    return MISSED, verification["untraced"] or told or "nothing failed"


def run(case: Case, draws: int, seed: int, say: Callable[[str], None], *, again: bool = False) -> list[Draw]:
    """All draws of one case, each kept beside the engine's state at once.

    What was found or done without earlier is not tried again, unless asked for.
    """
    before = {} if again else {draw.path: draw for draw in stored(case) if draw.outcome != MISSED}
    found: list[Draw] = []
    file = _stored(case)
    file.parent.mkdir(parents=True, exist_ok=True)
    for path, category in drawn(case, draws, seed):
        found.append(before.get(path) or try_without(case, path, category, say))
        file.write_text(json.dumps({"seed": seed, "draws": [asdict(draw) for draw in found]}, indent=1))
    return found


def _stored(case: Case) -> Path:
    return STATE / "drops" / f"{case.name}.json"


def stored(case: Case) -> list[Draw]:
    """What was found of a case so far."""
    try:
        return [Draw(**draw) for draw in json.loads(_stored(case).read_text())["draws"]]
    except OSError:
        return []


def table(rows: Sequence[tuple[Case, Sequence[Draw]]]) -> str:
    """The outcome as Markdown."""
    every = [draw for _, draws in rows for draw in draws]
    counts = {one: sum(draw.outcome == one for draw in every) for one in (FOUND, WITHOUT, MISSED)}
    lines = [
        "# One observed file left out",
        "",
        "`scripts/corpus drops` leaves out one file that the running program was seen to open, by `--drop PATH`,",
        "and lets `layerlens slim --verify` say what it thinks of that. *found*: the probe fails, and slim names the",
        "file. *can do without*: the slim image answers as the original does.",
        "",
        f"{len(every)} draws (seed {SEED}): {counts[FOUND]} found, {counts[WITHOUT]} the program can do without, "
        f"{counts[MISSED]} not found.",
        "",
        "| case | left out | category | outcome | the first answer that differed |",
        "|---|---|---|---|---|",
    ]
    for case, draws in rows:
        for draw in draws:
            note = draw.note.replace("|", "\\|").replace("`", "'")
            lines.append(
                f"| {case.name} | `{draw.path}` | {draw.category} | {draw.outcome} | "
                + (f"`{note}`" if note else "")
                + " |"
            )
    return "\n".join(lines) + "\n"


def write_table() -> None:
    """Write tests/corpus/DROPS.md from what was found so far."""
    TABLE.write_text(table([(case, stored(case)) for case in load_cases()]))
