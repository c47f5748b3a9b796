"""What the needs graph keeps contains what really ran, for every case whose image is built."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from corpuskit import build as builds  # noqa: E402
from corpuskit import cases, closure, engine, recommended, report, whys  # noqa: E402
from test_corpus import BUILT_HERE  # noqa: E402

NAMES = sorted(folder.parent.name for folder in cases.CASES.glob("*/observed.txt"))
MOST_KEPT = 3.0
"""Bytes kept for each byte observed, at most (DESIGN 8)."""


@pytest.mark.parametrize("name", NAMES)
def test_what_is_looked_at_in_passing_was_observed(name: str) -> None:
    case = cases.load_case(name)
    seen = closure.observed_paths(case)
    for note in case.passing:
        assert len(note.reason) > 10, f"{note.path}: say why the program works without it"
        assert any(closure.fnmatchcase(path, note.path) for path in seen), f"{note.path} was never observed"


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_closure_keeps_what_was_observed(name: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("the corpus's private engine needs root")
    case = cases.load_case(name)
    if name in BUILT_HERE:
        builds.build_case(case, print)
    elif engine.inspect_image(case.tag("single")) is None:
        pytest.skip(f"{case.tag('single')} is not built (scripts/corpus build {name})")
    found = closure.closure_of(case)
    assert not found.missing, "observed, not kept, and no [[passing]] in case.toml says why"
    assert len(found.passing) <= found.most_passing
    assert found.ratio <= MOST_KEPT, closure.told(case, found)


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.parametrize("name", ["already-slim"])
def test_why_answers_for_every_live_path(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`scripts/corpus why NAME…` asks the same of the other cases."""
    if os.geteuid() != 0:
        pytest.skip("the corpus's private engine needs root")
    case = cases.load_case(name)
    builds.build_case(case, print)
    for variable, value in engine.environment().items():
        monkeypatch.setenv(variable, value)
    found = whys.answers_of(case)
    assert found.wrong == []
    assert set(found.verdicts) >= {"base", "copy", "drop"}
    assert found.verdicts.total() - found.verdicts["drop"] > 1000
    assert len(found.reasons) > 3


def test_the_report_shows_what_layerlens_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "README", tmp_path / "README.md")
    monkeypatch.setattr(report, "REPORT", tmp_path / "REPORT.md")
    made = recommended.Made("t:base", "sha256:1", 100_000_000, 101_000_000, 1.5, is_default=True)
    slim = recommended.Made("t:slim", "sha256:2", 50_000_000, None, 2.5, is_default=False)
    found = closure.Closure(
        10, 150, 5, 100, missing=["/a"], passing=["/b"], unseen=[("/usr", 1_000_000, "because")]
    )
    row = report.Row(
        cases.load_case("go-static"),
        {"single": 900_000_000, "multistage": 200_000_000},
        100,
        5,
        {"single": "passed (9)", "multistage": "passed (9)", "base": "passed (9)", "slim": "1 failed"},
        {"base": made, "slim": slim},
        found,
    )
    report.write_report([row])
    lines = (tmp_path / "REPORT.md").read_text().splitlines()
    assert (
        "| go-static | 1.50 × | 1 (1 in passing) | 100 MB \\* | 0.50 × | 1.0 % | passed (9) | – | – | – | – "
        "| 50.0 MB | 0.25 × | 2.5 s | 1 failed |"
    ) in lines
    assert "- `/usr` 1.00 MB: because" in lines
    assert "| go-static | 800 MB → 10 MB, 99 % | 77.8 % | 88.9 % | – | no |" in lines
    scratch = recommended.Made("t:scratch", "sha256:3", 9_000_000, 9_000_000, 1.5, is_default=False)
    row.made["scratch"], row.probes["scratch"] = scratch, "passed (9)"
    assert report.guide_table([row]).endswith("| 88.9 % | 99.0 % | yes |")
    row.probes["scratch"] = "1 failed"
    assert report.guide_table([row]).endswith("| 88.9 % | 99.0 % | no |")
    assert "median image is 0.04 ×" in report.medians([row]) and "1.50 × what" in report.medians([row])
    assert report.medians([]) == ""
    assert report.made_line(made, 200_000_000, 9, 0).endswith("probe: passed (9)  1.5 s  default")


def test_a_made_image_says_what_was_predicted_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    image = {
        "Id": "sha256:1",
        "Size": 1000,
        "Config": {
            "Labels": {recommended.ESTIMATE: "990", recommended.SECONDS: "1.5", recommended.DEFAULT: "base"}
        },
    }
    monkeypatch.setattr(recommended, "inspect_image", lambda tag: image)
    made = recommended.made_before(cases.load_case("go-static"), "base")
    assert made is not None
    assert (made.estimated_bytes, made.seconds, made.is_default) == (990, 1.5, True)
    assert made.estimate_error == pytest.approx(0.01)
    other = recommended.made_before(cases.load_case("go-static"), "scratch")
    assert other is not None and not other.is_default
    monkeypatch.setattr(recommended, "inspect_image", lambda tag: None)
    assert recommended.made_before(cases.load_case("go-static"), "base") is None
