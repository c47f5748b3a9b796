"""The corpus's table: sizes, the guide's figures, what was observed, what the probes said."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpuskit.cases import CASES, REPOSITORY, STATE, VARIANTS, Case
from corpuskit.engine import inspect_image
from corpuskit.errors import CorpusError
from corpuskit.probe import Check, run_probe
from corpuskit.trace import read_observed

REPORT = CASES / "REPORT.md"
README = REPOSITORY / "README.md"
BEGIN, END = "<!-- corpus:begin -->", "<!-- corpus:end -->"
COMMAND = "scripts/corpus build --all && scripts/corpus report"

# What the guide says of its four applications: single stage, multi-stage, reduction in percent.
GUIDE = {
    "node": ("1 GB → 200 MB", 80),
    "go": ("800 MB → 10 MB", 99),
    "python": ("1 GB → 150 MB", 85),
    "react": ("1.5 GB → 25 MB", 98),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One case's line; None where an image is not built or nothing was traced."""

    case: Case
    sizes: dict[str, int | None]
    observed_bytes: int | None
    observed_files: int | None
    probes: dict[str, str]

    @property
    def complete(self) -> bool:
        """Whether everything is there and every probe passed."""
        return (
            all(size is not None for size in self.sizes.values())
            and self.observed_bytes is not None
            and all(result.startswith("passed") for result in self.probes.values())
        )

    @property
    def reduction(self) -> float | None:
        """1 - multistage / single."""
        single, multistage = (self.sizes[variant] for variant in VARIANTS)
        return 1 - multistage / single if single and multistage is not None else None


class ProbeResults:
    """Probe results by image ID and probe, kept between runs."""

    def __init__(self, file: Path = STATE / "probes.json") -> None:
        self._file = file
        try:
            self._known: dict[str, list[dict[str, Any]]] = json.loads(file.read_text())
        except (OSError, ValueError):
            self._known = {}

    def run(self, case: Case, image_id: str, tag: str, say: Callable[[str], None]) -> list[Check]:
        """The checks of the probe against an image, from the cache if both are unchanged and all passed."""
        probe = case.probe()
        key = f"{image_id} {probe.digest}"
        if key in self._known:
            return [Check(**check) for check in self._known[key]]
        say(f"probing {tag}")
        checks = run_probe(image_id, probe)
        if all(check.passed for check in checks):
            self.keep(key, checks)
        return checks

    def keep(self, key: str, checks: list[Check]) -> None:
        """Remember passed checks."""
        self._known[key] = [
            {"what": check.what, "passed": check.passed, "detail": check.detail} for check in checks
        ]
        self._file.parent.mkdir(exist_ok=True)
        partial = self._file.with_suffix(".part")
        partial.write_text(json.dumps(self._known, indent=1, sort_keys=True))
        partial.replace(self._file)


def make_rows(cases: list[Case], say: Callable[[str], None]) -> list[Row]:
    """One row a case, probing what has no kept result."""
    results = ProbeResults()
    rows = []
    for case in cases:
        sizes: dict[str, int | None] = {}
        probes: dict[str, str] = {}
        for variant in VARIANTS:
            tag = case.tag(variant)
            image = inspect_image(tag)
            sizes[variant] = int(image["Size"]) if image else None
            if image is None:
                probes[variant] = "not built"
                continue
            try:
                checks = results.run(case, image["Id"], tag, say)
            except CorpusError as error:
                say(f"{tag}: {error}")
                probes[variant] = "not run"
                continue
            failed = [check for check in checks if not check.passed]
            for check in failed:
                say(f"{tag}: {check.what}: {check.detail}")
            probes[variant] = f"{len(failed)} failed" if failed else f"passed ({len(checks)})"
        observed = read_observed(case)
        files, payload = observed if observed else (None, None)
        rows.append(Row(case, sizes, payload, files, probes))
    return rows


def megabytes(size: int | None) -> str:
    """Decimal megabytes with three significant digits, as the guide counts; – for None."""
    if size is None:
        return "–"
    value = size / 1e6
    digits = 0 if value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:,.{digits}f} MB"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the table: its heading, whether it holds figures, and a row's cell."""

    heading: str
    figures: bool
    cell: Callable[[Row], str]


COLUMNS = (
    Column("app", False, lambda row: row.case.name),
    Column("", False, lambda row: row.case.title),
    Column("single stage", True, lambda row: megabytes(row.sizes["single"])),
    Column("multi-stage by hand", True, lambda row: megabytes(row.sizes["multistage"])),
    Column("less", True, lambda row: percent(row.reduction)),
    Column("the guide says", False, lambda row: guide(row.case.guide)),
    Column("observed", True, lambda row: megabytes(row.observed_bytes)),
    Column("files", True, lambda row: "–" if row.observed_files is None else f"{row.observed_files:,}"),
    Column("probe: single", False, lambda row: row.probes["single"]),
    Column("multi-stage", False, lambda row: row.probes["multistage"]),
)


def percent(ratio: float | None) -> str:
    """A ratio in percent with one digit; – for None."""
    return "–" if ratio is None else f"{100 * ratio:.1f} %"


def guide(key: str | None) -> str:
    """What the guide says of an application of this kind; nothing for None."""
    if key is None:
        return ""
    sizes, reduction = GUIDE[key]
    return f"{sizes}, {reduction} %"


def table(rows: list[Row], columns: tuple[Column, ...] = COLUMNS) -> str:
    """The Markdown table."""
    lines = [
        [column.heading for column in columns],
        ["---:" if column.figures else "---" for column in columns],
        *([column.cell(row) for column in columns] for row in rows),
    ]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def document(rows: list[Row]) -> str:
    """REPORT.md."""
    reductions = [row.reduction for row in rows if row.reduction is not None and not row.case.slim_already]
    complete = sum(row.complete for row in rows)
    summary = (
        f"{len(rows)} applications, {complete} of them built, traced and passing their probe on both images."
    )
    if reductions:
        median = percent(statistics.median(reductions))
        summary += f" Median reduction by hand, without what is slim already: {median}."
    return f"""# The corpus, measured

Made by `{COMMAND}`; what a case is, `README.md` beside this file says.

{summary}

{table(rows)}

Sizes are what the engine gives as the image's `Size`: the payload bytes of the regular files of every layer, base
image included, in decimal megabytes (a second name of the same file adds nothing). *Observed*: the files of the
single-stage image that its processes opened or executed while the probe ran, links walked on the way included, and
their payload (`scripts/corpus trace NAME`): the floor for a tool that watches the program run. *Probe*: the number of
checks that passed. The bases are made by `scripts/engine base` to lie near the official images' sizes.
"""


def write_report(rows: list[Row]) -> None:
    """REPORT.md, and the table into the README where it has the markers."""
    _replace(REPORT, document(rows))
    try:
        text = README.read_text()
    except FileNotFoundError:
        return
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if begin and end:
        _replace(README, f"{before}{BEGIN}\n\n{table(rows)}\n\n{END}{after}")


def _replace(file: Path, text: str) -> None:
    partial = file.with_suffix(".part")
    partial.write_text(text)
    partial.replace(file)
