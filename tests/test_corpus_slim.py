"""The slim images of the corpus: held against their originals, and with observed files left out on purpose.

Here one small case goes all the way; `scripts/corpus recommend --runtime slim`, `subset` and `drops` ask the same of
all others.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from corpuskit import build as builds  # noqa: E402
from corpuskit import cases, drops, engine, probe, recommended, subset  # noqa: E402


def report(passed: bool, missing: list[str]) -> str:
    check = {"probe": "GET :80/", "same": passed, "detail": "status 500"}
    return json.dumps({"verification": {"checks": [check], "missing": missing, "untraced": None}})


@pytest.mark.parametrize(
    ("status", "stdout", "stderr", "expected"),
    [
        (0, report(True, []), "", (drops.WITHOUT, "")),
        (1, report(False, ["/lib/a", "/lib/b"]), "", (drops.FOUND, "GET :80/: status 500")),
        (1, report(False, ["/lib/b"]), "", (drops.MISSED, "GET :80/: status 500")),
        (1, report(True, []), "", (drops.MISSED, "nothing failed")),
        (
            2,
            "",
            "error: ENTRYPOINT '/lib/a' is not in the image\n",
            (drops.FOUND, "refused: error: ENTRYPOINT"),
        ),
        (2, "", "error: the engine went away\n", (drops.MISSED, "refused: error: the engine")),
    ],
)
def test_what_slim_says_of_a_file_that_was_left_out(
    status: int, stdout: str, stderr: str, expected: tuple[str, str]
) -> None:
    found = drops.outcome("/lib/a", status, stdout, stderr)
    assert found[0] == expected[0] and found[1].startswith(expected[1])


def test_the_table_counts_and_escapes() -> None:
    case = cases.load_case("go-static")
    rows = [
        drops.Draw("/a", "runtime", drops.FOUND, "GET :1/: a | `b`", 1.0),
        drops.Draw("/c", "app", drops.WITHOUT, "", 1.0),
    ]
    text = drops.table([(case, rows)])
    assert "2 draws (seed 2026): 1 found, 1 the program can do without, 0 not found." in text
    assert "| go-static | `/a` | runtime | found | `GET :1/: a \\| 'b'` |" in text


def test_entries_are_compared_but_for_what_is_rewritten() -> None:
    original: dict[str, subset.Row] = {"/a": ("0", 1), "/b": ("0", 2), "/c": ("0", 3), "/d": ("0", 4)}
    found: dict[str, subset.Row] = {"/a": ("0", 1), "/b": ("0", 9), "/c": ("0", 8), "/new": ("0", 0)}
    added, different = subset.compared(original, found, ["/c"])
    assert added == ["/new"] and different == ["/b: [(2, 9)]"]


@pytest.mark.engine
@pytest.mark.slow
def test_one_case_all_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slim answers as the twin does and is smaller; entries are the original's; what is left out is found."""
    if os.geteuid() != 0:
        pytest.skip("the corpus's private engine needs root")
    for variable, value in engine.environment().items():
        monkeypatch.setenv(variable, value)
    case = cases.load_case("go-static")
    builds.build_case(case, print)
    made = recommended.slim(case, print)
    assert [check for check in probe.run_probe(made.image_id, case.probe()) if not check.passed] == []
    twin = engine.inspect_image(case.tag("multistage"))
    assert twin is not None and made.size_bytes < twin["Size"]

    found = subset.subset_of(case, print)
    assert found.passed, subset.told(case, found)
    assert 500 < found.entries < found.original_entries / 10 and found.rewritten == ["/var/lib/dpkg/status"]

    assert drops.drawn(case, 3, 1) == drops.drawn(case, 3, 1) != drops.drawn(case, 3, 2)
    group = drops.try_without(case, "/etc/group", "os-base", print)
    assert (group.outcome, "/etc/group" in group.note) == (drops.FOUND, True)
    assert engine.inspect_image("layerlens-corpus/go-static:drop") is None
