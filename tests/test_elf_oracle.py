"""The libraries of every kept ELF file against ``ldd`` in a container of the same image."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from corpuskit import build as builds  # noqa: E402
from corpuskit import cases, engine  # noqa: E402
from corpuskit.archives import archive_of  # noqa: E402
from test_corpus import BUILT_HERE  # noqa: E402

from layerlens import open_image  # noqa: E402
from layerlens.ecosystems._dynamicloader import DynamicLoader  # noqa: E402
from layerlens.graph import Needs  # noqa: E402

SCRIPT = 'while IFS= read -r file; do printf "== %s\\n" "$file"; ldd "$file" 2>&1; done'
FOUND = re.compile(r"^\s+(?:\S+ => )?(/\S+) \(0x[0-9a-f]+\)$")


def ldd(image: str, files: list[str]) -> dict[str, list[str]]:
    """What ldd prints as loaded, by file; glibc's ldd runs the loader itself."""
    done = engine.docker(
        *("run", "--rm", "-i", "--network=none", "--user=0", "--entrypoint=/bin/sh", image, "-c", SCRIPT),
        input="\n".join(files) + "\n",
    )
    found: dict[str, list[str]] = {}
    at = ""
    for line in done.stdout.splitlines():
        if line.startswith("== "):
            at = line[3:]
            found[at] = []
        elif match := FOUND.match(line):
            found[at].append(match[1])
    return found


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.parametrize("name", ["already-slim", "shell-tool", "c-plugins", "python-scientific", "php-slim"])
def test_ldd_loads_the_same(name: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("the corpus's private engine needs root")
    case = cases.load_case(name)
    if name in BUILT_HERE:
        builds.build_case(case, print)
    elif engine.inspect_image(case.tag("single")) is None:
        pytest.skip(f"{case.tag('single')} is not built (scripts/corpus build {name})")
    with open_image(str(archive_of(case))) as image:
        needs = Needs(image.attribution, image.config)
        fs = image.fs
        loader = DynamicLoader(needs.view)
        files = [
            path
            for path in sorted(needs.kept)
            if fs.type_of(path) == 0
            and needs.view.head(path)[:4] == b"\x7fELF"
            and (elf := loader.read(path)) is not None
            and elf.needed
        ]
        assert len(files) > 3
        theirs = ldd(case.tag("single"), files)
        env = {key: value for key, value in needs.view.env.items() if key.startswith("LD_")}
        differing = {}
        for path in files:
            mine = {fs.follow(e.target) for e in loader.load(path, env) if e.certainty == "certain"}
            loaded = {fs.follow(one) for one in theirs[path]}
            interpreters = {path for path in loaded if path and "/ld-linux" in path}
            if mine - interpreters != loaded - interpreters - {path}:
                differing[path] = sorted(map(str, mine ^ loaded))
            assert loaded <= {*needs.kept, path}, path
    assert not differing
