"""The corpus's table: sizes, the guide's figures, what was observed, what the probes said."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corpuskit.cases import CASES, REPOSITORY, STATE, VARIANTS, Case
from corpuskit.engine import inspect_image
from corpuskit.errors import CorpusError
from corpuskit.probe import Check, run_probe
from corpuskit.recommended import RUNTIMES, SLIM, Made, made_before
from corpuskit.trace import read_observed

if TYPE_CHECKING:
    from corpuskit.closure import Closure

REPORT = CASES / "REPORT.md"
README = REPOSITORY / "README.md"
BEGIN, END = "<!-- corpus:begin -->", "<!-- corpus:end -->"
COMMAND = "scripts/corpus build --all && scripts/corpus recommend NAME… && scripts/corpus report"
MADE = (*RUNTIMES, SLIM)
"""What layerlens makes of the single-stage image, by tag."""

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
    made: dict[str, Made] = field(default_factory=dict)
    """By tag what layerlens made of it; their probes are in ``probes``."""
    closure: Closure | None = None
    """What the needs graph keeps, beside what was observed."""

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
        self._known = self._read()

    def _read(self) -> dict[str, list[dict[str, Any]]]:
        try:
            found: dict[str, list[dict[str, Any]]] = json.loads(self._file.read_text())
        except (OSError, ValueError):
            return {}
        return found

    def run(self, case: Case, image_id: str, tag: str, say: Callable[[str], None]) -> list[Check]:
        """The checks of the probe against an image, from the cache if both are unchanged and all passed."""
        probe = case.probe()
        key = f"{image_id} {probe.digest}"
        if key in self._known:
            return [Check(**check) for check in self._known[key]]
        say(f"probing {tag}")
        checks = run_probe(image_id, probe)
        self.keep(case, image_id, checks)
        return checks

    def keep(self, case: Case, image_id: str, checks: list[Check]) -> None:
        """Remember the checks of an image if all passed, beside what others remember meanwhile."""
        if not all(check.passed for check in checks):
            return
        self._known |= self._read()
        self._known[f"{image_id} {case.probe().digest}"] = [
            {"what": check.what, "passed": check.passed, "detail": check.detail} for check in checks
        ]
        self._file.parent.mkdir(exist_ok=True)
        partial = self._file.with_suffix(f".{os.getpid()}")
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
            probes[variant] = _probed(results, case, image["Id"], tag, say)
        made = {name: found for name in MADE if (found := made_before(case, name)) is not None}
        for name, found in made.items():
            probes[name] = _probed(results, case, found.image_id, found.tag, say)
        observed = read_observed(case)
        files, payload = observed if observed else (None, None)
        closure = _closure(case, say) if observed and sizes["single"] else None
        rows.append(Row(case, sizes, payload, files, probes, made, closure))
    return rows


def _probed(results: ProbeResults, case: Case, image_id: str, tag: str, say: Callable[[str], None]) -> str:
    """The probe's outcome in words."""
    try:
        checks = results.run(case, image_id, tag, say)
    except CorpusError as error:
        say(f"{tag}: {error}")
        return "not run"
    failed = [check for check in checks if not check.passed]
    for check in failed:
        say(f"{tag}: {check.what}: {check.detail}")
    return f"{len(failed)} failed" if failed else f"passed ({len(checks)})"


def _closure(case: Case, say: Callable[[str], None]) -> Closure:
    from corpuskit.closure import closure_of  # loads layerlens, which only the project's environment has

    say(f"{case.name}: what the entrypoint needs")
    return closure_of(case, most=5)


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


def made_line(made: Made, twin_bytes: int | None, checks: int, failed: int) -> str:
    """One made image for people: its size, against the twin, the estimate's error, the probe."""
    error = made.estimate_error
    words = [
        f"{made.tag:44}{megabytes(made.size_bytes):>10}",
        f"{share(made.size_bytes, twin_bytes):>7} of the twin",
    ]
    words += [f"estimate off by {percent(error)}"] if error is not None else []
    words += [f"probe: {failed} failed" if failed else f"probe: passed ({checks})", f"{made.seconds:.1f} s"]
    return "  ".join(words) + ("  default" if made.is_default else "")


def share(size: int | None, of: int | None) -> str:
    """One size as a multiple of another; – where one is lacking."""
    return "–" if size is None or not of else f"{size / of:.2f} ×"


def _made_columns(name: str) -> tuple[Column, ...]:
    """The columns for one kind of image that layerlens makes."""

    def size(row: Row) -> str:
        made = row.made.get(name)
        return "–" if made is None else megabytes(made.size_bytes) + (" \\*" if made.is_default else "")

    def against_twin(row: Row) -> str:
        return share(row.made[name].size_bytes, row.sizes["multistage"]) if name in row.made else "–"

    def error(row: Row) -> str:
        return percent(row.made[name].estimate_error) if name in row.made else "–"

    def last(row: Row) -> str:
        return f"{row.made[name].seconds:.1f} s" if name in row.made else "–"

    return (
        Column(name, True, size),
        Column("of the twin", True, against_twin),
        *(() if name == SLIM else (Column("estimate off by", True, error),)),
        *((Column("time", True, last),) if name == SLIM else ()),
        Column("probe", False, lambda row: row.probes.get(name, "–")),
    )


def kept_ratio(row: Row) -> str:
    """Bytes kept for each byte observed."""
    return "–" if row.closure is None else f"{row.closure.ratio:.2f} ×"


def lost(row: Row) -> str:
    """Observed paths that are not kept, and those excused."""
    found = row.closure
    return "–" if found is None else f"{len(found.missing)} ({len(found.passing)} in passing)"


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


def made_columns() -> tuple[Column, ...]:
    """The table of what layerlens makes."""
    return (
        COLUMNS[0],
        Column("kept / observed", True, kept_ratio),
        Column("lost", True, lost),
        *(column for name in MADE for column in _made_columns(name)),
    )


def tables(rows: list[Row]) -> str:
    """Both tables: what was built by hand, and what layerlens makes of the single-stage images."""
    return f"{table(rows)}\n\n{table(rows, made_columns())}"


def guide_table(rows: list[Row]) -> str:
    """The guide's own table again: its four kinds of application, and what recommend alone makes of them."""

    def less(row: Row, name: str) -> float | None:
        single = row.sizes["single"]
        return 1 - row.made[name].size_bytes / single if single and name in row.made else None

    def best(row: Row) -> float | None:
        return max((found for name in RUNTIMES if (found := less(row, name)) is not None), default=None)

    def outcome(row: Row) -> str:
        found, wanted = best(row), GUIDE[row.case.guide or ""][1]
        passed = all(row.probes.get(name, "").startswith("passed") for name in RUNTIMES if name in row.made)
        return "–" if found is None else "yes" if 100 * found >= wanted and passed else "no"

    columns = (
        COLUMNS[0],
        COLUMNS[5],
        Column("by hand", True, lambda row: percent(row.reduction)),
        *(Column(name, True, lambda row, name=name: percent(less(row, name))) for name in RUNTIMES),
        Column("the better, probes passing, reaches it", False, outcome),
    )
    return table([row for row in rows if row.case.guide is not None], columns)


def medians(rows: list[Row]) -> str:
    """What scratch comes to over all applications, in a sentence; empty where nothing was made."""
    twins = [
        row.made["scratch"].size_bytes / twin
        for row in rows
        if "scratch" in row.made and (twin := row.sizes["multistage"])
    ]
    kept = [row.closure.ratio for row in rows if row.closure is not None]
    if not twins or not kept:
        return ""
    return (
        f"With `--runtime scratch` the median image is {statistics.median(twins):.2f} × its hand-written twin (the "
        f"largest {max(twins):.2f} ×); what is kept is {statistics.median(kept):.2f} × what was observed (at most "
        f"{max(kept):.2f} ×)."
    )


def unseen(rows: list[Row]) -> str:
    """The largest subtrees that are kept and were not observed, and why the largest file of each is kept."""
    parts = []
    for row in rows:
        if row.closure is None:
            continue
        lines = [f"**{row.case.name}**", ""]
        lines += [f"- `{tree}` {megabytes(size)}: {why}" for tree, size, why in row.closure.unseen]
        parts.append("\n".join(lines) if row.closure.unseen else f"**{row.case.name}** nothing above 100 kB")
    return "\n\n".join(parts)


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

{tables(rows)}

{medians(rows)}

What the guide's table says, and what recommend alone reaches:

{guide_table(rows)}

Sizes are what the engine gives as the image's `Size`: the payload bytes of the regular files of every layer, base
image included, in decimal megabytes (a second name of the same file adds nothing). *Observed*: the files of the
single-stage image that its processes opened or executed while the probe ran, links walked on the way included, and
their payload (`scripts/corpus trace NAME`): the floor for a tool that watches the program run. *Probe*: the number of
checks that passed. The bases are made by `scripts/engine base` to lie near the official images' sizes.

*base*, *scratch*: the single-stage Dockerfile as `layerlens recommend --runtime …` rewrites it, built unedited (\\*:
what recommend takes without `--runtime`); *estimate off by*: predicted against built. *slim*: what `layerlens slim
--runtime scratch` writes, archive to archive. *kept / observed*: bytes that the plan for scratch keeps for each byte
that was observed; *lost*: observed paths that it does not keep, and those that the program only looks at in
passing (`case.toml` says why).

## Kept and not observed

{unseen(rows)}
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
        _replace(README, f"{before}{BEGIN}\n\n{tables(rows)}\n\n{guide_table(rows)}\n\n{END}{after}")


def _replace(file: Path, text: str) -> None:
    partial = file.with_suffix(".part")
    partial.write_text(text)
    partial.replace(file)
