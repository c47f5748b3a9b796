"""The commands of scripts/corpus."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from corpuskit.build import build_case
from corpuskit.cases import DOCKERFILES, REPOSITORY, VARIANTS, Case, load_case, load_cases
from corpuskit.engine import docker, ensure_bases, environment, inspect_image
from corpuskit.errors import CorpusError
from corpuskit.probe import PROBE_LABEL, Check, run_probe
from corpuskit.report import ProbeResults, made_line, make_rows, megabytes, tables, write_report
from corpuskit.trace import read_observed, trace_case


def say(text: str) -> None:
    """Progress and complaints, on stderr."""
    print(text, file=sys.stderr, flush=True)


def _list() -> int:
    for case in load_cases():
        observed = read_observed(case)
        sizes = []
        for variant in VARIANTS:
            image = inspect_image(case.tag(variant))
            sizes.append(megabytes(int(image["Size"]) if image else None))
        sizes.append(megabytes(observed[1] if observed else None))
        print(f"{case.name:22}" + "".join(f"{size:>10}" for size in sizes) + f"  {case.title}")
    return 0


def _build(names: list[str], everything: bool) -> int:
    if not names and not everything:
        raise CorpusError("name cases, or say --all; `scripts/corpus list` shows them")
    failed = []
    cases = load_cases() if everything else [load_case(name) for name in names]
    _ensure_bases_of(cases)
    for case in cases:
        try:
            for image in build_case(case, say):
                how = "unchanged" if image.cached else f"built in {image.seconds:.0f} s"
                print(f"{image.tag:50}{megabytes(image.size_bytes):>10}  {how}", flush=True)
        except CorpusError as error:
            say(f"FAILED {error}")
            failed.append(case.name)
    if failed:
        say(f"not built: {', '.join(failed)}")
    return 1 if failed else 0


def _ensure_bases_of(cases: list[Case]) -> None:
    """All bases in one go, since each call takes seconds; a case whose base cannot be built says so itself."""
    found: dict[str, None] = {}
    for case in cases:
        for name in [*DOCKERFILES.values(), *(image.dockerfile for image in case.images)]:
            try:
                found |= dict.fromkeys(case.bases(name))
            except CorpusError:
                continue
    try:
        ensure_bases(list(found))
    except CorpusError:
        return


def _probe(name: str, image: str | None) -> int:
    case = load_case(name)
    failed = 0
    for tag in [image] if image else [case.tag(variant) for variant in VARIANTS]:
        if inspect_image(tag) is None:
            raise CorpusError(f"no image {tag} in the engine; run `scripts/corpus build {name}`")
        print(tag)
        for check in run_probe(tag, case.probe()):
            failed += not check.passed
            print(_line(check), flush=True)
    return 1 if failed else 0


def _line(check: Check) -> str:
    return f"  {'ok  ' if check.passed else 'FAIL'}  {check.what}" + (
        f": {check.detail}" if check.detail else ""
    )


def _trace(names: list[str]) -> int:
    for case in [load_case(name) for name in names]:
        observed = trace_case(case, say)
        print(f"{case.name}: {len(observed.paths)} files, {observed.size_bytes} bytes → observed.txt")
    return 0


def _in_project_environment() -> None:
    """Start again with the project's own Python, where that is not what runs."""
    environment = REPOSITORY / ".venv"
    if Path(sys.prefix).resolve() != environment.resolve():
        subprocess.run([REPOSITORY / "scripts" / "setup"], check=True)
        os.execv(environment / "bin" / "python", [str(environment / "bin" / "python"), *sys.argv])


def _closure(names: list[str]) -> int:
    """What the needs graph keeps beside what was observed."""
    _in_project_environment()
    from corpuskit.closure import closure_of, told

    lacking = 0
    for case in [load_case(name) for name in names]:
        closure = closure_of(case)
        lacking += bool(closure.missing) or len(closure.passing) > closure.most_passing
        print(told(case, closure), flush=True)
    return 1 if lacking else 0


def _why(names: list[str]) -> int:
    """What `why` says of every live path."""
    _in_project_environment()
    from corpuskit.whys import answers_of, told

    os.environ.update(environment())  # the bases that recommend stands on are in the private engine
    wrong = 0
    for case in [load_case(name) for name in names]:
        found = answers_of(case)
        wrong += found.wrong_count
        print(told(case, found), flush=True)
    return 1 if wrong else 0


def _recommend(names: list[str], runtimes: list[str]) -> int:
    """What layerlens makes of the single-stage images, built, probed and held against the twins."""
    _in_project_environment()
    from corpuskit.recommended import SLIM, Made, recommend, slim

    failed = []
    for case in [load_case(name) for name in names]:
        twin = inspect_image(case.tag("multistage"))
        for runtime in runtimes:
            try:
                made: Made = slim(case, say) if runtime == SLIM else recommend(case, runtime, say)
                checks = run_probe(made.image_id, case.probe())
                ProbeResults().keep(case, made.image_id, checks)
            except (CorpusError, subprocess.TimeoutExpired) as error:
                say(f"FAILED {error}")
                failed.append(f"{case.name}:{runtime}")
                continue
            bad = [check for check in checks if not check.passed]
            print(made_line(made, int(twin["Size"]) if twin else None, len(checks), len(bad)), flush=True)
            for check in bad:
                print(_line(check))
            if bad or (made.estimate_error or 0) > 0.02:
                failed.append(f"{case.name}:{runtime}")
    if failed:
        say(f"not as they should be: {', '.join(failed)}")
    return 1 if failed else 0


def _subset(names: list[str]) -> int:
    """Hold what the slim images hold against their originals, as the engine exports both."""
    _in_project_environment()
    from corpuskit.subset import subset_of, told

    lacking = 0
    for case in [load_case(name) for name in names]:
        found = subset_of(case, say)
        lacking += not found.passed
        print(told(case, found), flush=True)
    return 1 if lacking else 0


def _drops(names: list[str], draws: int, seed: int, again: bool) -> int:
    """What slim --verify says where an observed file is left out; writes tests/corpus/DROPS.md."""
    _in_project_environment()
    from corpuskit.drops import MISSED, run, write_table

    failed = []
    for case in [load_case(name) for name in names]:
        try:
            found = run(case, draws, seed, say, again=again)
        except (CorpusError, subprocess.TimeoutExpired) as error:
            say(f"FAILED {error}")
            failed.append(case.name)
            continue
        for draw in found:
            told = f": {draw.note}" if draw.note else ""
            print(f"{case.name}  {draw.outcome:<14}  {draw.path}  {draw.seconds:.1f} s{told}", flush=True)
        failed += [case.name] if any(draw.outcome == MISSED for draw in found) else []
        write_table()
    if failed:
        say(f"not as they should be: {', '.join(failed)}")
    return 1 if failed else 0


def _report() -> int:
    _in_project_environment()
    rows = make_rows(load_cases(), say)
    write_report(rows)
    print(tables(rows))
    lacking = [row.case.name for row in rows if not row.complete]
    if lacking:
        say(f"incomplete: {', '.join(lacking)}")
    return 1 if lacking else 0


def remove_stale_containers() -> None:
    """Remove containers of probes whose process is gone (killed before it could clean up)."""
    listed = docker(
        "ps",
        "--all",
        "--filter",
        f"label={PROBE_LABEL}",
        "--format",
        f'{{{{.ID}}}} {{{{.Label "{PROBE_LABEL}"}}}}',
    ).stdout.split("\n")
    for line in filter(None, listed):
        container, pid = line.split()
        if not Path(f"/proc/{pid}").exists():
            docker("rm", "--force", "--volumes", container, check=False)


def main() -> int:
    """Parse the command line and run one command; 0 done, 1 a case failed, 2 bad usage, 130 interrupted."""
    parser = argparse.ArgumentParser(
        prog="scripts/corpus", description="Real applications and what they need."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the cases, with sizes: single stage, multi-stage, observed")
    building = commands.add_parser("build", help="build both images of cases")
    building.add_argument("names", nargs="*", metavar="NAME")
    building.add_argument("--all", action="store_true", help="every case")
    probing = commands.add_parser("probe", help="run a case's probe on its two images, or on another")
    probing.add_argument("name", metavar="NAME")
    probing.add_argument("--image", metavar="TAG", help="an image of the engine to probe instead")
    tracing = commands.add_parser(
        "trace", help="watch what the single-stage image opens; writes observed.txt"
    )
    tracing.add_argument("names", nargs="+", metavar="NAME")
    closing = commands.add_parser("closure", help="hold the needs graph against observed.txt")
    closing.add_argument("names", nargs="+", metavar="NAME")
    asking = commands.add_parser("why", help="ask `why` for every live path, and check the answers")
    asking.add_argument("names", nargs="+", metavar="NAME")
    recommending = commands.add_parser(
        "recommend", help="let layerlens slim the single-stage images, build and probe the results"
    )
    recommending.add_argument("names", nargs="+", metavar="NAME")
    recommending.add_argument(
        "--runtime",
        action="append",
        choices=("base", "scratch", "slim"),
        help="base and scratch if not given",
    )
    dropping = commands.add_parser(
        "drops", help="leave out one observed file at a time; writes tests/corpus/DROPS.md"
    )
    dropping.add_argument("names", nargs="+", metavar="NAME")
    dropping.add_argument("--draws", type=int, default=5, help="files for each case, 5 if not given")
    dropping.add_argument("--again", action="store_true", help="try also what an earlier run has found")
    dropping.add_argument("--seed", type=int, default=2026, help="of the draws, 2026 if not given")
    holding = commands.add_parser(
        "subset", help="hold the entries of the slim image against the original's, as the engine exports both"
    )
    holding.add_argument("names", nargs="+", metavar="NAME")
    commands.add_parser("report", help="the table; writes tests/corpus/REPORT.md and into README.md")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _terminate)
    try:
        if os.geteuid() != 0 or sys.platform != "linux":
            raise CorpusError("the corpus needs root on Linux, for its private engine")
        if options.command in ("probe", "trace", "recommend", "drops", "report"):
            remove_stale_containers()
        match options.command:
            case "list":
                return _list()
            case "build":
                return _build(options.names, options.all)
            case "probe":
                return _probe(options.name, options.image)
            case "closure":
                return _closure(options.names)
            case "why":
                return _why(options.names)
            case "recommend":
                return _recommend(options.names, options.runtime or ["base", "scratch"])
            case "trace":
                return _trace(options.names)
            case "subset":
                return _subset(options.names)
            case "drops":
                return _drops(options.names, options.draws, options.seed, options.again)
            case _:
                return _report()
    except CorpusError as error:
        say(f"corpus: {error}")
        return 2
    except KeyboardInterrupt:
        return 130


def _terminate(number: int, frame: object) -> NoReturn:
    """Unwind, so that containers are removed."""
    raise KeyboardInterrupt
