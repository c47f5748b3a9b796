"""Regular expressions that wait: the same answers as `re`'s own, and every one of the package compiles."""

from __future__ import annotations

import importlib
import pkgutil
import re

import pytest

import layerlens
from layerlens.patterns import Uncompiled, regex


def test_answers_as_the_compiled_one_does() -> None:
    lazy, eager = regex(r"(\w)-(?P<n>\d+)", re.ASCII), re.compile(r"(\w)-(?P<n>\d+)", re.ASCII)
    for text in ("a-12 b-3", "", "é-1"):
        assert lazy.findall(text) == eager.findall(text)
        assert [m.groupdict() for m in lazy.finditer(text)] == [m.groupdict() for m in eager.finditer(text)]
    assert lazy.sub("x", "a-1") == "x"
    assert (lazy.pattern, lazy.flags, lazy.groups) == (eager.pattern, eager.flags, eager.groups)
    assert regex(rb"\d").search(b"a1") is not None


def test_what_is_wrong_is_raised_at_the_first_use() -> None:
    broken = regex("(")
    with pytest.raises(re.error):
        broken.match("x")


def test_every_pattern_of_the_package_compiles() -> None:
    compiled = 0
    for module in pkgutil.walk_packages(layerlens.__path__, "layerlens."):
        if module.name == "layerlens.__main__":
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, Uncompiled):
                assert value.pattern is not None, f"{module.name}.{name}"
                compiled += 1
    assert compiled > 100
