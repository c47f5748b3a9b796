"""What a case's slim image holds, held against the original entry by entry, as the engine exports both."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from corpuskit.archives import archive_of
from corpuskit.cases import STATE, Case
from corpuskit.engine import docker, environment
from corpuskit.errors import CorpusError
from corpuskit.recommended import layerlens, loaded_name

MADE_BY_THE_ENGINE = frozenset(
    ("/.dockerenv", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/etc/mtab", "/dev", "/proc", "/sys")
)
"""What the engine adds to a container, creates or empties (DESIGN, law 2)."""
TOUCHED = frozenset(("/", "/etc"))
"""Directories whose time the engine changes by what it makes in them."""
TIMEOUT_S = 300

Row = tuple[object, ...]
"""Type, mode, owner, group, size, time, target, extended attributes, digest of the content."""


@dataclass(slots=True)
class Subset:
    """The comparison of one case."""

    entries: int
    original_entries: int
    rewritten: list[str]
    """Files that the plan gives another content."""
    added: list[str] = field(default_factory=list)
    """Entries that the original lacks."""
    different: list[str] = field(default_factory=list)
    """Entries that are not as they were, though nothing rewrites them."""
    digests: list[str] = field(default_factory=list)
    """Of two runs."""
    refused: list[str] = field(default_factory=list)
    """What skopeo or umoci said of the OCI layout."""

    @property
    def passed(self) -> bool:
        """Whether all is as it should be."""
        return not (self.added or self.different or self.refused) and len(set(self.digests)) == 1


def subset_of(case: Case, say: Callable[[str], None]) -> Subset:
    """Make the case's slim image twice, load it, export it and its original, and compare."""
    folder = STATE / "subset" / case.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        say(f"{case.name}: slim, twice and as a layout")
        first, second, layout = folder / "first.tar", folder / "second.tar", folder / "layout"
        told = json.loads(_slim(case, "-o", first, "--format", "json"))
        _slim(case, "-o", second)
        digests = [_digest(first), _digest(second)]
        second.unlink()
        _slim(case, "-o", layout, "-t", "case:slim")
        refused = refusals(layout, folder)
        say(f"{case.name}: exporting both")
        image = loaded_name(docker("load", "--input", str(first)).stdout)
        try:
            found = exported(image)
        finally:
            docker("image", "rm", image, check=False)
        original = exported(case.tag("single"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    added, different = compared(original, found, told["rewritten"])
    return Subset(len(found), len(original), told["rewritten"], added, different, digests, refused)


def compared(
    original: Mapping[str, Row], found: Mapping[str, Row], rewritten: Collection[str]
) -> tuple[list[str], list[str]]:
    """The entries that the original lacks, and those that are not as they were; neither with what is rewritten."""
    added = [path for path in sorted(found) if path not in original and path not in rewritten]
    different = []
    for path in sorted(found):
        if path in original and path not in rewritten and found[path] != original[path]:
            before, after = original[path], found[path]
            different.append(
                f"{path}: {[pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]]}"
            )
    return added, different


def exported(image: str) -> dict[str, Row]:
    """What `docker export` of a container that was never started holds, without what the engine makes."""
    container = docker("create", "--network=none", image, "/x").stdout.strip()
    rows: dict[str, Row] = {}
    links: dict[str, str] = {}
    try:
        with subprocess.Popen(
            ["docker", "export", container], env=environment(), stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
                for member in tar:
                    path = "/" + member.name.strip("/").removeprefix("./")
                    if path in MADE_BY_THE_ENGINE or any(
                        path.startswith(f"{one}/") for one in MADE_BY_THE_ENGINE
                    ):
                        continue
                    if member.islnk():
                        links[path] = "/" + member.linkname.strip("/")
                        continue
                    rows[path] = _row(tar, member, path)
            process.stdout.read()  # the padding after the last entry
        if process.returncode != 0:
            raise CorpusError(f"docker export of {image} ended with {process.returncode}")
    finally:
        docker("rm", container, check=False)
    # Which name of a group comes first is the order of the tar: every name has the row of the payload.
    for path, target in links.items():
        rows[path] = rows[target]
    return rows


def _row(tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> Row:
    digest = ""
    stream = tar.extractfile(member) if member.isfile() else None
    if stream is not None:
        digest = hashlib.file_digest(cast("BinaryIO", stream), "sha256").hexdigest()
    attributes = tuple(
        sorted((key, value) for key, value in member.pax_headers.items() if key.startswith("SCHILY.xattr."))
    )
    device = (member.devmajor, member.devminor) if member.ischr() or member.isblk() else ()
    return (
        member.type,
        member.mode,
        member.uid,
        member.gid,
        member.size,
        0 if path in TOUCHED else int(member.mtime),
        member.linkname,
        attributes,
        device,
        digest,
    )


def refusals(layout: Path, folder: Path) -> list[str]:
    """What skopeo and umoci say against an OCI layout; nothing where they accept it, or are not here."""
    asked = [
        ["skopeo", "--insecure-policy", "copy", f"oci:{layout}:slim", f"dir:{folder / 'copy'}"],
        ["umoci", "stat", "--json", "--image", f"{layout}:slim"],
        ["umoci", "unpack", "--rootless", "--image", f"{layout}:slim", str(folder / "bundle")],
    ]
    found = []
    for command in asked:
        if shutil.which(command[0]) is None:
            continue
        result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
        if result.returncode != 0:
            found.append(f"{' '.join(command[:2])}: {result.stderr.strip()[-400:]}")
    return found


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _slim(case: Case, *options: str | Path) -> str:
    arguments = ["slim", archive_of(case), "--runtime", "scratch", *options]
    return layerlens(case, arguments, STATE)


def told(case: Case, found: Subset) -> str:
    """The comparison for people."""
    state = "a subset" if found.passed else "NOT as it should be"
    lines = [
        f"{case.name}: {found.entries:,} of {found.original_entries:,} entries, {state}; "
        f"rewritten: {', '.join(found.rewritten) or 'nothing'}"
    ]
    lines += [f"  not in the original: {path}" for path in found.added[:40]]
    lines += [f"  different: {row}" for row in found.different[:40]]
    lines += [f"  refused: {row}" for row in found.refused]
    if len(set(found.digests)) != 1:
        lines.append(f"  two runs, two digests: {' '.join(found.digests)}")
    return "\n".join(lines)
