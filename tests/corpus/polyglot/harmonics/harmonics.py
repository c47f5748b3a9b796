#!/usr/bin/env python3
"""Tides by harmonic analysis. The sums are tidecalc's, a C program; what goes in is a station's YAML.

harmonics.py list | tide STATION DATE | raw STATION DATE | machinery
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import yaml

STATIONS = Path(__file__).resolve().parent / "stations"
TIDECALC = os.environ.get("TIDECALC", "/usr/local/bin/tidecalc")
STEP_S = 360
EPOCH = datetime(2024, 1, 1, tzinfo=timezone.utc)


def station(name: str) -> dict:
    path = STATIONS / f"{name}.yaml"
    if not name.isidentifier() or not path.is_file():
        print(f"no station {name}", file=sys.stderr)
        sys.exit(3)
    return yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)


def calculate(what: dict, day: str) -> dict:
    """Ask tidecalc for a day's heights, one every STEP_S seconds, and the turning points."""
    start = datetime.fromisoformat(day).replace(tzinfo=timezone.utc)
    lines = [f"{hours(start):.6f} {STEP_S / 3600:.6f} {86400 // STEP_S} {what['mean']}"]
    lines += [f"{wave['amplitude']} {wave['speed']} {wave['phase']}" for wave in what["constituents"]]
    answer = subprocess.run(
        [TIDECALC, "-"], input="\n".join(lines) + "\n", capture_output=True, text=True, check=True, timeout=10
    )
    return json.loads(answer.stdout)


def hours(moment: datetime) -> float:
    return (moment - EPOCH).total_seconds() / 3600


def main(arguments: list[str]) -> object:
    match arguments:
        case ["list"]:
            stations = ((path.stem, station(path.stem)) for path in sorted(STATIONS.glob("*.yaml")))
            return [{"id": i, "name": s["name"], "constituents": len(s["constituents"])} for i, s in stations]
        case ["tide", name, day]:
            what = station(name)
            extremes = [
                {
                    "kind": turn["kind"],
                    "height": round(turn["height"], 2),
                    "time": (EPOCH + timedelta(hours=turn["hour"])).strftime("%Y-%m-%dT%H:%M:00Z"),
                }
                for turn in calculate(what, day)["turns"]
            ]
            return {"name": what["name"], "zone": what["zone"], "extremes": extremes}
        case ["raw", name, day]:
            # Statistics are wanted for the archive only.
            import statistics

            result = calculate(station(name), day)
            return {**result, "spread": round(statistics.pstdev(result["heights"]), 3)}
        case ["machinery"]:
            import machinery

            return machinery.describe(TIDECALC)
    sys.exit(__doc__)


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
