"""What a report picks out: groups of packages, layer runs, and one thing to do next."""

from __future__ import annotations

import shlex
from dataclasses import replace

from reportkit import EVIL, hostile, report

from layerlens.model import Diagnostic
from layerlens.render import highlights
from layerlens.report import PathReport


def test_packages_by_ecosystem() -> None:
    groups = highlights.by_ecosystem(report().packages)
    assert [(group.name, len(group.packages), group.size_bytes, group.files) for group in groups] == [
        ("dpkg", 2, 115_000_000, 321),
        ("node", 1, 66_000_000, 132),
    ]
    assert [package.name for package in groups[0].packages] == ["gcc-12", "libc6"]


def test_layer_lists() -> None:
    assert highlights.layer_list((3, 1, 2, 7)) == "1-3,7"
    assert highlights.layer_list(()) == ""
    assert highlights.hidden_layers((0, 1, 4)) == "0-1 → 4"
    assert highlights.hidden_layers((2,)) == "2"


def test_diagnostics() -> None:
    found = [Diagnostic("info", "a", "a"), Diagnostic("warning", "b", "b"), Diagnostic("info", "c", "c")]
    assert highlights.diagnostics_count(found) == "1 warning, 2 info"
    assert [d.code for d in highlights.worst_first(found)] == ["b", "a", "c"]
    assert highlights.diagnostics_count([]) == ""


def test_next_step_names_the_biggest_build_only_path() -> None:
    step = highlights.next_step(report())
    assert step == ("layerlens why myapp:latest /usr/lib/gcc", "what brought these 312 MB, mostly compilers")


def test_next_step_looks_below_a_path_of_several_purposes() -> None:
    made = report(
        paths=(
            PathReport("/usr", 800_000_000, 9, "compilers", None, (0, 1)),
            PathReport("/usr/lib/gcc", 312_000_000, 9, "compilers", None, (1,)),
            PathReport("/usr/local/lib", 100_000_000, 9, "runtime", None, (0,)),
        )
    )
    step = highlights.next_step(made)
    assert step is not None
    assert step[0] == "layerlens why myapp:latest /usr/lib/gcc"


def test_next_step_names_the_layer_of_the_biggest_waste() -> None:
    made = report()
    step = highlights.next_step(replace(made, paths=made.paths[:1]))
    assert step == ("layerlens ls myapp:latest --layer 4", "58.0 MB there are deleted in a later layer")


def test_next_step_can_be_typed() -> None:
    made = report(paths=(PathReport("/a b/'c", 10**9, 1, "compilers", None, (1,)),))
    made = replace(made, image=replace(made.image, reference="./my image.tar"))
    step = highlights.next_step(made)
    assert step is not None
    assert shlex.split(step[0]) == ["layerlens", "why", "./my image.tar", "/a b/'c"]


def test_next_step_passes_over_what_cannot_be_typed() -> None:
    assert highlights.next_step(hostile()) is None
    made = report(paths=(PathReport("/" + EVIL, 10**9, 1, "compilers", None, (1,)),))
    step = highlights.next_step(made)
    assert step is not None
    assert step[0].startswith("layerlens ls")
    made = report()
    assert highlights.next_step(replace(made, image=replace(made.image, reference="-"))) is None


def test_no_next_step_where_nothing_stands_out() -> None:
    made = report(paths=())
    assert highlights.next_step(replace(made, waste=replace(made.waste, items=()))) is None
