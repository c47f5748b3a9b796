"""Rust programs, from literals and against what the machine's own compiler builds."""

from __future__ import annotations

import json
import shutil
import subprocess
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import treekit
from elfkit import elf
from imagekit import File, Member

from layerlens.attribution import Attribution
from layerlens.ecosystems.rust import MAX_CRATES, ecosystem
from layerlens.graph import Needs

RUSTC = shutil.which("rustc")
PANIC = b"/rustc/9fc6b43126469e3858e2fe86cafb4f0fd5068869/library/core/src/option.rs"
CRATES = {
    "packages": [
        {"name": "serde", "version": "1.0.1", "source": "crates.io"},
        {"name": "cc", "version": "1.0.0", "source": "crates.io", "kind": "build"},
        {"name": "shop", "version": "0.3.0", "source": "local", "root": True, "dependencies": [0]},
        {"name": 5},
        "nonsense",
    ]
}

SOURCE = """
fn main() {
    let home = std::env::args().next().unwrap_or_default();
    let text = std::fs::read_to_string("notices.json").unwrap_or_default();
    let page = std::fs::read_to_string(format!("templates/{home}.html")).unwrap_or_default();
    let key = std::fs::read("/etc/board/private.key").unwrap_or_default();
    println!("{text}{page}{}", key.len());
}
"""


def program(constants: bytes = b"", crates: bytes | None = None) -> File:
    """A Rust program as far as it is read."""
    sections = {".rodata": PANIC + constants + bytes(300_000)}
    if crates is not None:
        sections[".dep-v0"] = crates
    return File(data=elf(sections), mode=0o755)


def kept(members: Mapping[str, Member], *entrypoint: str) -> set[str]:
    """The files that the needs graph keeps of an image."""
    filesystem = treekit.fs(members)
    config = replace(treekit.CONFIG, entrypoint=entrypoint, workdir="/srv")
    needs = Needs(Attribution(filesystem, []), config)
    return {path for path in needs.kept if not filesystem.is_dir(path)}


def test_the_crates_of_a_program_and_its_owner() -> None:
    stored = zlib.compress(json.dumps(CRATES).encode())
    filesystem = treekit.fs(
        {"/usr/local/bin/shop": program(crates=stored), "/usr/local/bin/plain": program()}
    )
    found, diagnostics = treekit.packages(ecosystem, filesystem)
    assert [(p.name, p.version, p.paths) for p in found] == [
        ("shop", "0.3.0", ("/usr/local/bin/shop",)),
        ("serde", "1.0.1", ()),
    ]
    assert not diagnostics


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"no zlib",
        zlib.compress(b"[" * 100_000),
        zlib.compress(bytes(MAX_CRATES + 1)),
        zlib.compress(b'{"packages": 5}'),
        zlib.compress(b"{}")[:-6],
    ],
)
def test_a_broken_list_of_crates_is_a_diagnostic(stored: bytes) -> None:
    filesystem = treekit.fs({"/usr/local/bin/shop": program(crates=stored)})
    found, diagnostics = treekit.packages(ecosystem, filesystem)
    assert not found
    assert {diagnostic.code for diagnostic in diagnostics} <= {"broken-crate-list"}
    assert bool(diagnostics) == (stored != zlib.compress(b'{"packages": 5}'))


def test_files_that_a_program_names_in_a_build_tree() -> None:
    image: dict[str, Member] = {
        "/srv/target/CACHEDIR.TAG": b"Signature: 8a477f597d28d172789f06886806bc55",
        "/srv/target/release/board": program(b"notices.jsonreleasetemplates/depssrc/main.rs"),
        "/srv/target/release/deps/libx.so": b"",
        "/srv/Cargo.toml": b"",
        "/srv/notices.json": b"",
        "/srv/src/notes.txt": b"",
        "/srv/src/main.rs": b"",
        "/srv/templates/board.html": b"",
        "/srv/other/board.html": b"",
    }
    assert kept(image, "./target/release/board") == {
        *("/srv/target/release/board", "/srv/notices.json", "/srv/templates/board.html"),
    }


def test_other_programs_are_not_searched() -> None:
    image: dict[str, Member] = {
        "/srv/tool": File(data=elf({".rodata": b"xnotices.jsonx"}), mode=0o755),
        "/srv/notices.json": b"",
    }
    assert kept(image, "/srv/tool") == {"/srv/tool"}


@pytest.mark.skipif(RUSTC is None, reason="the machine has no Rust compiler")
def test_needs_of_a_real_program(tmp_path: Path) -> None:
    assert RUSTC is not None
    (tmp_path / "main.rs").write_text(SOURCE)
    subprocess.run([RUSTC, "-O", "-C", "strip=symbols", "main.rs", "-o", "board"], check=True, cwd=tmp_path)
    image: dict[str, Member] = {
        "/srv/board": File(data=(tmp_path / "board").read_bytes(), mode=0o755),
        "/srv/notices.json": b"",
        "/srv/unnamed.json": b"",
        "/srv/templates/a.html": b"",
        "/etc/board/private.key": b"",
        "/etc/board/other.key": b"",
    }
    found = kept(image, "/srv/board")
    assert found == {"/srv/board", "/srv/notices.json", "/srv/templates/a.html", "/etc/board/private.key"}
