"""Whether `why` answers for every live path of a case's image, and with what."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from corpuskit.archives import archive_of
from corpuskit.cases import Case
from layerlens import open_image
from layerlens.api import Explanation
from layerlens.model import EntryType

MOST_TOLD = 20
"""Wrong answers that are told of one image."""


@dataclass(slots=True)
class Answers:
    """What `why` said of one image."""

    paths: int = 0
    """Live paths that are no directories; each was asked for."""
    verdicts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    """Dropped paths by what is said of them."""
    wrong: list[str] = field(default_factory=list)
    wrong_count: int = 0
    kept_bytes: int = 0
    dropped_bytes: int = 0
    live_bytes: int = 0
    seconds: float = 0.0

    def complain(self, path: str, what: str) -> None:
        """Note a wrong answer."""
        self.wrong_count += 1
        if len(self.wrong) < MOST_TOLD:
            self.wrong.append(f"{path}: {what}")


def answers_of(case: Case, *, archive: Path | None = None) -> Answers:
    """Ask `why` for every live path of the case's single-stage image, and check each answer."""
    found = Answers()
    started = time.monotonic()
    with open_image(str(archive or archive_of(case))) as image:
        fs, attribution = image.fs, image.attribution
        found.live_bytes = attribution.live_bytes
        payloads: dict[int, str] = {}
        for answer in image.whys():
            _check(answer, found)
            if answer.type is EntryType.DIR:
                continue
            found.paths += 1
            found.verdicts[answer.verdict or "none"] += 1
            gid = fs.payload_gid(answer.path)
            is_file = gid is not None and fs.type_of(answer.path) == EntryType.FILE
            if gid is not None and is_file and payloads.get(gid, "drop") == "drop":
                payloads[gid] = answer.verdict or "none"  # a payload is shipped while any of its names is
        for gid, verdict in payloads.items():
            size = attribution.sizes[gid]
            if verdict == "drop":
                found.dropped_bytes += size
            else:
                found.kept_bytes += size
        if found.kept_bytes + found.dropped_bytes != found.live_bytes:
            found.complain(
                "/", f"kept {found.kept_bytes} + dropped {found.dropped_bytes} ≠ {found.live_bytes}"
            )
        if found.paths != sum(1 for path in fs.live if fs.type_of(path) != EntryType.DIR):
            found.complain("/", f"{found.paths} answers, and not one for each live file")
    found.seconds = time.monotonic() - started
    return found


def _check(answer: Explanation, found: Answers) -> None:
    if answer.verdict is None or answer.chain is None or answer.would_need is None:
        found.complain(answer.path, "no verdict")
    elif answer.verdict == "drop":
        _check_dropped(answer, found)
    else:
        _check_kept(answer, found)


def _check_kept(answer: Explanation, found: Answers) -> None:
    """A chain that starts at the config, an option or a policy, each edge where the last one ended."""
    chain = list(answer.chain or ())
    if answer.reason is not None:
        found.complain(answer.path, f"is kept, and dropped because {answer.reason}")
    if not chain:
        found.complain(answer.path, "is kept without a chain")
        return
    if chain[0].source.startswith("/"):
        found.complain(answer.path, f"its chain begins at {chain[0].source}, not at a root")
    if answer.type is not EntryType.DIR and chain[-1].target != answer.path:
        found.complain(answer.path, f"its chain ends at {chain[-1].target}")
    for one, two in pairwise(chain):
        if one.target != two.source:
            found.complain(answer.path, f"its chain breaks between {one.target} and {two.source}")
    if not all(edge.kind and edge.evidence.strip() for edge in chain):
        found.complain(answer.path, "an edge of its chain says nothing")


def _check_dropped(answer: Explanation, found: Answers) -> None:
    """A sentence, which names what would need it wherever something does."""
    reason = (answer.reason or "").strip()
    named = list(answer.would_need or ())
    if answer.chain:
        found.complain(answer.path, "is dropped, and has a chain")
    if not reason or reason == "not needed":
        found.complain(answer.path, "is dropped without a reason")
    if answer.type is EntryType.FILE and answer.category is None:
        found.complain(answer.path, "has no category")
    if named and named[0].source not in reason and _package_name(answer) not in reason:
        found.complain(answer.path, f"{named[0].source} would need it, which the reason does not say")
    if answer.type is not EntryType.DIR:
        said = "something unneeded needs it" if named else reason.replace(_package_name(answer), "…")
        found.reasons[said] += 1


def _package_name(answer: Explanation) -> str:
    return (answer.package or " ").rpartition(" ")[0] or "\0"


def told(case: Case, found: Answers) -> str:
    """The answers for people."""
    verdicts = ", ".join(f"{count:,} {name}" for name, count in sorted(found.verdicts.items()))
    lines = [
        f"{case.name}: {found.paths:,} files asked in {found.seconds:.1f} s: {verdicts}; "
        f"{found.wrong_count} wrong answers",
        *(f"    {count:7,}  {reason}" for reason, count in found.reasons.most_common(12)),
        *(f"    WRONG {line}" for line in found.wrong),
    ]
    return "\n".join(lines)
