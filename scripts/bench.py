#!/usr/bin/env python3
"""Measure what the README claims: whole processes, in turn, medians of their ratios in one run.

    scripts/bench.py ARCHIVE.tar [--runs N] [--readme]

ARCHIVE is an uncompressed docker-archive (``docker save IMAGE -o ARCHIVE.tar``). Each row names what it is measured
against, which is never our own code. ``--readme`` writes the table into README.md between its markers.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tarfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"

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


def run(command: list[str], env: dict[str, str]) -> tuple[float, int, bytes]:
    """Wall seconds, peak resident bytes and standard output of one process."""
    reader, writer = os.pipe()
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=writer, env=env)
    os.close(writer)
    chunks = []
    while chunk := os.read(reader, 1 << 20):
        chunks.append(chunk)
    os.close(reader)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        sys.exit(f"{' '.join(command[:4])} … ended with status {os.waitstatus_to_exitcode(status)}")
    return seconds, usage.ru_maxrss * 1024, b"".join(chunks)


def main() -> None:
    """Run the pairs and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archive", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--readme", action="store_true", help="write the table into README.md")
    options = parser.parse_args()
    if not tarfile.is_tarfile(options.archive):
        sys.exit(
            f"{options.archive} is not an uncompressed archive: docker save IMAGE -o FILE.tar writes one"
        )
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    layerlens = str(Path(sys.executable).with_name("layerlens"))
    ours = [layerlens, "inspect", "--no-recommend", "--format", "json", str(options.archive)]
    theirs = [sys.executable, "-c", TARFILE_LISTING, str(options.archive)]
    run(ours, env), run(theirs, env)  # warm the page cache and the byte code
    ratios, our_times, their_times, peaks = [], [], [], []
    entries = b"?"
    for _ in range(options.runs):
        our_seconds, peak, _report = run(ours, env)
        their_seconds, _, entries = run(theirs, env)
        ratios.append(our_seconds / their_seconds)
        our_times.append(our_seconds)
        their_times.append(their_seconds)
        peaks.append(peak)
    size = options.archive.stat().st_size
    rows = [
        ("what", "ours", "theirs", "ratio (median, min-max)", "our peak memory"),
        ("---", "---", "---", "---", "---"),
        (
            f"`inspect --format json` of an archive of {size / 1e9:.2f} GB, {int(entries):,} entries, "
            "against `tarfile` listing them",
            f"{statistics.median(our_times):.2f} s",
            f"{statistics.median(their_times):.2f} s",
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})",
            f"{max(peaks) / 1e6:.0f} MB",
        ),
    ]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    print(table)
    if options.readme:
        readme = ROOT / "README.md"
        text = readme.read_text()
        before, found, rest = text.partition(BEGIN)
        if not found or END not in rest:
            sys.exit("README.md has no bench markers")
        readme.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
