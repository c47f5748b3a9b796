"""The needs graph held against what a container was seen to open (observed.txt)."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from corpuskit.archives import archive_of
from corpuskit.cases import Case
from corpuskit.trace import HOST_AUTHORITIES, MOUNTED
from layerlens import open_image
from layerlens.graph import Needs
from layerlens.model import EntryType


@dataclass(slots=True)
class Closure:
    """What the graph keeps of one case's single-stage image, beside what was observed."""

    kept_files: int
    kept_bytes: int
    observed_files: int
    observed_bytes: int
    missing: list[str] = field(default_factory=list)
    """Observed and not kept, without what case.toml excuses."""
    passing: list[str] = field(default_factory=list)
    """Observed and not kept, and looked at only in passing, as case.toml says."""
    unseen: list[tuple[str, int, str]] = field(default_factory=list)
    """Kept and not observed: the largest subtrees, their bytes, and why the largest file of each is kept."""
    diagnostics: list[str] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """Bytes kept for each byte observed."""
        return self.kept_bytes / self.observed_bytes if self.observed_bytes else 0.0

    @property
    def most_passing(self) -> int:
        """How many paths may be looked at in passing: two, or one in a hundred."""
        return max(2, self.observed_files // 100)


def observed_paths(case: Case) -> list[str]:
    """The paths of observed.txt that are the image's own."""
    lines = (
        line for line in (case.folder / "observed.txt").read_text().splitlines() if not line.startswith("#")
    )
    paths = [json.loads(line) if line.startswith('"') else line for line in lines if line]
    return [
        path
        for path in paths
        if not path.startswith(HOST_AUTHORITIES)
        and not any(path == mount or path.startswith(f"{mount}/") for mount in MOUNTED)
    ]


def closure_of(case: Case, *, archive: Path | None = None, most: int = 25) -> Closure:
    """Build the graph of the case's image and compare; ``most`` bounds the list of unseen subtrees."""
    seen = set(observed_paths(case))
    excused = [note.path for note in case.passing]
    with open_image(str(archive or archive_of(case))) as image:
        needs = Needs(image.attribution, image.config)
        fs = image.fs
        payloads: dict[int, str] = {}
        for path in needs.kept:
            gid = fs.payload_gid(path)
            if gid is not None and fs.type_of(path) == EntryType.FILE:
                payloads.setdefault(gid, path)
        observed_payloads = {gid for path in seen if (gid := fs.payload_gid(path)) is not None}
        # Links count nothing: what they lead to is in the list as well.
        observed_files = {fs.payload_gid(p): p for p in sorted(seen) if fs.type_of(p) == EntryType.FILE}
        sums: Counter[str] = Counter()
        largest: dict[str, tuple[int, str]] = {}
        for gid, path in payloads.items():
            if gid in observed_payloads:
                continue
            size = fs.size(path)
            above = path
            while above:
                sums[above] += size
                largest[above] = max(largest.get(above, (0, path)), (size, path))
                above = above.rpartition("/")[0]
        unseen: list[tuple[str, int, str]] = []
        for tree, size in sorted(sums.items(), key=lambda item: (-item[1], item[0])):
            # A subtree that one of its children makes up is told by that child.
            inside = [sums[f"{tree}/{name}"] for name in fs.listdir(tree)] if fs.is_dir(tree) else []
            if len(unseen) >= most or size < 100_000:
                break
            if max(inside, default=0) >= 0.7 * size:
                continue
            edge = needs.kept[largest[tree][1]]
            why = f"{largest[tree][1]}: {edge.kind} from {edge.source}: {edge.evidence} ({edge.certainty})"
            unseen.append((tree, size, why))
        lost = sorted(path for path in seen if path not in needs.kept)
        passing = [path for path in lost if any(fnmatchcase(path, pattern) for pattern in excused)]
        return Closure(
            kept_files=len(payloads),
            kept_bytes=sum(fs.size(path) for path in payloads.values()),
            observed_files=len(seen),
            observed_bytes=sum(fs.size(path) for path in observed_files.values()),
            missing=[path for path in lost if path not in passing],
            passing=passing,
            unseen=unseen,
            diagnostics=[f"{d.severity} {d.code} {d.path or ''}: {d.message}" for d in needs.diagnostics],
        )


def told(case: Case, closure: Closure) -> str:
    """The comparison for people."""
    lines = [
        f"{case.name}: {closure.kept_files:,} files, {closure.kept_bytes / 1e6:,.1f} MB kept; "
        f"{closure.observed_files:,} paths, {closure.observed_bytes / 1e6:,.1f} MB observed: {closure.ratio:.2f} x",
        f"  {len(closure.missing)} observed paths are not kept:",
        *(f"    {path}" for path in closure.missing[:60]),
        f"  {len(closure.passing)} are looked at in passing (at most {closure.most_passing} may):",
        *(f"    {path}" for path in closure.passing[:60]),
        "  largest subtrees kept and not observed:",
        *(f"    {size / 1e6:8.2f} MB  {tree}\n                 {why}" for tree, size, why in closure.unseen),
        f"  {len(closure.diagnostics)} diagnostics:",
        *(f"    {line}" for line in closure.diagnostics[:40]),
    ]
    return "\n".join(lines)
