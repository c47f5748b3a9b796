#!/usr/bin/env python3
"""Two processes inspect an image through one cache, one is killed at a random moment, again and again.

    scripts/cache_torture.py IMAGE [--rounds N] [--seed N] [--recommend]

The longer variant of a test in tests/test_cached_images.py, on an image of the engine and with the command as users
run it. Most rounds start with some entries missing, damaged or all gone. After each, what the survivor printed and
what a third process prints must be what a run without a cache prints, but for diagnostics. Exit status 1: it was not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def command(image: str, *more: str) -> list[str]:
    return [sys.executable, "-m", "layerlens", "inspect", image, "--format", "json", *more]


def document(text: bytes) -> dict[str, object]:
    return {**json.loads(text), "diagnostics": None}


def spoil(folder: Path, rng: random.Random) -> str:
    """Take something away or damage it, or do nothing; what was done."""
    if rng.random() < 0.75:  # otherwise all that is read is the report that was made before
        for entry in folder.glob("report-*.entry"):
            entry.unlink()
    entries = sorted(folder.glob("*.entry"))
    what = rng.choice(["nothing", "a few gone", "a few damaged", "a few cut", "all gone"])
    chosen = entries if what == "all gone" else rng.sample(entries, min(len(entries), rng.randint(1, 4)))
    for entry in chosen if what != "nothing" else ():
        if what.endswith("gone"):
            entry.unlink()
        elif what.endswith("cut"):
            os.truncate(entry, rng.randrange(entry.stat().st_size))
        else:
            with entry.open("r+b") as file:
                file.seek(rng.randrange(entry.stat().st_size))
                file.write(rng.randbytes(rng.randint(1, 64)))
    return what


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("image")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recommend", action="store_true", help="with the recommendation, and so its reads")
    options = parser.parse_args()
    more = () if options.recommend else ("--no-recommend",)
    began_s = time.monotonic()
    plain = subprocess.run([*command(options.image, *more), "--no-cache"], stdout=subprocess.PIPE, check=True)
    lasts_s = time.monotonic() - began_s
    expected = document(plain.stdout)
    rng = random.Random(options.seed)
    wrong = killed = 0
    with tempfile.TemporaryDirectory(prefix="layerlens-torture-") as place:
        folder = Path(place) / "cache"
        environment = {**os.environ, "LAYERLENS_CACHE_DIR": str(folder)}

        def run() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                command(options.image, *more), stdout=subprocess.PIPE, env=environment, cwd=ROOT
            )

        for number in range(options.rounds):
            what = spoil(folder, rng) if folder.exists() else "none yet"
            cold = what in ("none yet", "all gone")
            victim, survivor = run(), run()
            time.sleep(rng.uniform(0, lasts_s if cold else 1.5))
            victim.send_signal(signal.SIGKILL)
            victim.communicate()
            killed += victim.returncode == -signal.SIGKILL
            told = [survivor.communicate()[0], run().communicate()[0]]
            good = [document(text) == expected for text in told]
            wrong += not all(good)
            print(
                f"{number:4}  {what:14}  {'killed' if victim.returncode < 0 else 'was done':8}  {good}",
                flush=True,
            )
        left = len(list(folder.glob(".new-*")))
    print(f"{options.rounds} rounds, {killed} killed, {left} unfinished files left, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
