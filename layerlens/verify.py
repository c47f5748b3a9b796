"""The proof: original and slim image, the same probe, the answers side by side.

Two answers are the same when they are so after the masks: what every program may say differently from one minute to
the next (``MASKS``), and what ``--ignore`` adds. Where they still differ, the original is asked once more, in a fresh
container: words in which it differs from itself say nothing about the slim image and are left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from layerlens.errors import PlatformError, UnavailableError, UsageError, VerifyError
from layerlens.filesystem import Filesystem
from layerlens.history import parse_config
from layerlens.layers import close_layers, open_layers
from layerlens.loading import engine_of, in_engine
from layerlens.model import ImageConfig, ImagePath, Platform
from layerlens.patterns import regex
from layerlens.probing import Answer, Answers, Probe, ask
from layerlens.report import display
from layerlens.sources import Progress, Source, open_source, references
from layerlens.sources.docker_engine import Engine, EngineImage, EngineSource, open_engine
from layerlens.trace import Observed, trace, with_above

MASKS: tuple[tuple[str, str], ...] = (
    # RFC 3339, section 5.6, and ISO 8601's form with a space or without a zone, as programs print it.
    ("time", r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?"),
    # RFC 9110, section 5.6.7: IMF-fixdate.
    ("date", r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT"),
    # Common Log Format, as web servers write to standard output.
    ("log time", r"\d\d/[A-Z][a-z]{2}/\d{4}[: ]\d\d:\d\d:\d\d(?: [+-]\d{4})?"),
    # RFC 9562, section 4.
    ("uuid", r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"),
    # Addresses of objects, as CPython's default repr and others print them.
    ("address", r"\b0x[0-9a-f]{6,16}\b"),
)
"""What differs between two runs of the same program, and where its form is defined."""

_STARTUP, _MEMORY = "start-up time", "memory"
_MEASURED = frozenset({_STARTUP, _MEMORY})
"""Checks of what a busy machine changes."""
_SLOW_FACTOR = 3.0
_SLOW_S = 2.0
_LARGE_FACTOR = 2.0
_LARGE_BYTES = 64 << 20
"""A slim image that takes longer or more memory than these over the original is not the same: machines are noisy, and
a fallback that replaces a missing file is not."""
_WORDS = regex(rb"\w+|\W")
_DIFFERENCE_BYTES = 160
_END_BYTES = 250
_KILLED = b"killed"
_OF_ORIGINAL = "the original: "
"""How a detail begins that is about the original alone."""


@dataclass(frozen=True, slots=True)
class Check:
    """One question and both answers, in words."""

    probe: str
    original: str
    slim: str
    same: bool
    detail: str = ""
    """Where they differ and how; or what was left out of the comparison."""


@dataclass(frozen=True, slots=True)
class Verification:
    """All checks. ``missing``: files that the original opened and the slim image lacks, where that was traced."""

    checks: tuple[Check, ...]
    missing: tuple[ImagePath, ...] = ()
    untraced: str = ""
    """Why the original was not watched though something differs, or not for all of the probe."""

    @property
    def passed(self) -> bool:
        """True where every check is the same."""
        return all(check.same for check in self.checks)

    @property
    def original_fails(self) -> bool:
        """Whether the original itself does not do what the probe asks for, so that nothing is proved."""
        return any(not check.same and check.detail.startswith(_OF_ORIGINAL) for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """As ``verify --format json`` prints it (DESIGN, section 6)."""
        return {
            "passed": self.passed,
            "checks": [
                {
                    "probe": check.probe,
                    "original": check.original,
                    "slim": check.slim,
                    "same": check.same,
                    "detail": check.detail,
                }
                for check in self.checks
            ],
            "missing": [display(path) for path in self.missing],
            "untraced": self.untraced or None,
        }


def verify(
    original: str,
    slim: str,
    probe: Probe,
    ignore: Sequence[str] = (),
    *,
    platform: Platform | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Run two images under the probe and compare; ``ignore`` holds regular expressions to mask.

    Both are named as everywhere, and ``platform`` chooses among several; what no engine has yet, as an archive, is
    loaded and removed again. Where they differ, the original is asked once more under watch, so that what the slim
    image lacks can be named.

    Raises:
        ImageNotFoundError: there is no such image.
        PlatformError: one is for another platform than the engine's.
        VerifyError: one cannot be asked at all: a port that is taken, a container that cannot be made.
        EngineError: the engine cannot be reached, or went away.
        UsageError: an ``ignore`` that is no regular expression.
    """
    compiled_masks(ignore)  # before anything is opened
    with closing(open_source(original, platform=platform, progress=progress)) as first:
        return verify_beside(first, slim, probe, ignore, platform=platform, progress=progress)


def verify_beside(
    first: Source,
    slim: str,
    probe: Probe,
    ignore: Sequence[str] = (),
    *,
    platform: Platform | None = None,
    progress: Progress | None = None,
) -> Verification:
    """The same for an original that is open already, and stays so."""
    masks = compiled_masks(ignore)
    with ExitStack() as stack:
        second = stack.enter_context(closing(_open_beside(first, slim, platform, progress)))
        engine = stack.enter_context(engine_of(first, second))
        one = stack.enter_context(in_engine(engine, first, progress))
        two = stack.enter_context(in_engine(engine, second, progress))
        found = verify_images(engine, one, two, probe, masks)
        if found.passed or found.original_fails:
            return found
        whole = stack.enter_context(_squash(first, progress))
        there = stack.enter_context(_squash(second, progress))
        missing, untraced, _ = find_missing(engine, one, whole, parse_config(first.config), probe, there.live)
        return replace(found, missing=missing, untraced=untraced)


def _open_beside(first: Source, slim: str, platform: Platform | None, progress: Progress | None) -> Source:
    """The second image; a plain name means one of the engine that the first is from."""
    if isinstance(first, EngineSource) and references.parse(slim).kind == "engine":
        engines = (first.engine.endpoint.engine,)
        return open_engine(slim, engines=engines, platform=platform, progress=progress)
    return open_source(slim, platform=platform, progress=progress)


@contextmanager
def _squash(source: Source, progress: Progress | None) -> Iterator[Filesystem]:
    layers = open_layers(source.layers, lambda _path: False, progress=progress)
    try:
        yield Filesystem(layers)
    finally:
        close_layers(layers)


def find_missing(
    engine: Engine,
    original: EngineImage,
    fs: Filesystem,
    config: ImageConfig,
    probe: Probe,
    there: Collection[ImagePath],
) -> tuple[tuple[ImagePath, ...], str, Observed | None]:
    """What the original was seen to open and is not ``there``; or why it could not be watched, then in words."""
    try:
        observed = trace(engine, original.image_id, fs, config, probe)
    except (UnavailableError, VerifyError) as error:
        return (), f"{error.message}. {error.hint}".strip(), None
    answers = (*observed.answers.http.values(), *observed.answers.execs)
    silent = next((answer.failure for answer in answers if answer.failure), "")
    untraced = f"Under watch the original did not do all of it: {silent}" if silent else ""
    return tuple(sorted(observed.paths - with_above(there))), untraced, observed


def verify_images(
    engine: Engine,
    original: EngineImage,
    slim: EngineImage,
    probe: Probe,
    masks: Sequence[re.Pattern[bytes]],
) -> Verification:
    """The same for two images of one engine that were found already."""
    config = config_of(original)
    for image in (original, slim):
        must_run_here(engine, image)
    compared = Comparison(probe, masks, ask(engine, original.image_id, config, probe))
    answers = ask(engine, slim.image_id, config, probe)
    checks = compared.checks(answers)
    if not all(check.same for check in checks):
        again = ask(engine, original.image_id, config, probe)
        compared = Comparison(probe, masks, compared.original, again)
        checks = compared.checks(answers)
    if {check.probe for check in checks if not check.same} & _MEASURED:
        # The machine may have been busy with something else just then.
        checks = _better(checks, compared.checks(ask(engine, slim.image_id, config, probe)))
    return Verification(tuple(checks))


def _better(checks: Sequence[Check], again: Sequence[Check]) -> list[Check]:
    """The checks, those of what was measured from the second time where that is within the limits."""
    second = {check.probe: check for check in again}
    return [
        second[check.probe]
        if check.probe in _MEASURED and not check.same and check.probe in second
        else check
        for check in checks
    ]


def config_of(image: EngineImage) -> ImageConfig:
    """What the engine says of an image, as the config that a probe needs."""
    run = image.inspected.get("Config")
    document = {
        "os": image.platform.os,
        "architecture": image.platform.architecture,
        "config": run if isinstance(run, dict) else {},
    }
    return parse_config(json.dumps(document).encode())


def must_run_here(engine: Engine, image: EngineImage) -> None:
    """PlatformError for an image that the engine's machine cannot run."""
    version = engine.ask("asking for its version failed", "version")
    here = Platform.parse(f"{version.get('Os') or 'linux'}/{version.get('Arch') or 'unknown'}")
    if not image.platform.matches(here):
        raise PlatformError(
            f"image {image.image_id.removeprefix('sha256:')[:12]} is for {image.platform}, and "
            f"{engine.endpoint.engine} runs {here}",
            "Verify it on a machine of that platform.",
        )


def compiled_masks(ignore: Sequence[str]) -> list[re.Pattern[bytes]]:
    """``ignore`` before the built-in masks. UsageError for what is no regular expression."""
    found = []
    for text in ignore:
        try:
            found.append(re.compile(text.encode()))
        except re.error as error:
            raise UsageError(f"not a regular expression: {text!r} ({error})", "Python's syntax.") from None
    return found + [re.compile(text.encode()) for _, text in MASKS]


class Comparison:
    """The original's answers, ready to be held against others. ``again``: a second set of its own."""

    def __init__(
        self,
        probe: Probe,
        masks: Sequence[re.Pattern[bytes]],
        original: Answers,
        again: Answers | None = None,
    ) -> None:
        self._probe = probe
        self._masks = masks
        self.original = original
        self._again = again

    def checks(self, slim: Answers) -> list[Check]:
        """Every check, in the order of the probe."""
        found = [self._http(number, slim) for number in range(len(self._probe.http))]
        found += [self._exec(number, slim) for number in range(len(self._probe.execs))]
        found += self._others(slim)
        return found

    def _http(self, number: int, slim: Answers) -> Check:
        entry = self._probe.http[number]
        again = self._again.http.get(entry) if self._again is not None else None
        mine, theirs = self.original.http[entry], slim.http[entry]
        wanted = _unmet(mine, theirs, entry.status, entry.contains, "status")
        return self._compared(entry.what, mine, theirs, again, slim, _of_http, wanted)

    def _exec(self, number: int, slim: Answers) -> Check:
        entry = self._probe.execs[number]
        again = self._again.execs[number] if self._again is not None else None
        mine, theirs = self.original.execs[number], slim.execs[number]
        wanted = _unmet(mine, theirs, entry.exit_status, entry.contains, "exit status")
        return self._compared(entry.what, mine, theirs, again, slim, _of_run, wanted)

    def _compared(
        self,
        what: str,
        mine: Answer,
        theirs: Answer,
        again: Answer | None,
        slim: Answers,
        words: Any,
        wanted: str,
    ) -> Check:
        detail = wanted or self._difference(mine, theirs, again, slim)
        varies = ""
        if (
            not detail
            and again is not None
            and self._body(again, self._again) != self._body(mine, self.original)
        ):
            varies = "left out: words in which two runs of the original differ"
        return Check(what, words(mine), words(theirs), not detail, detail or varies)

    def _difference(self, mine: Answer, theirs: Answer, again: Answer | None, slim: Answers) -> str:
        """How two answers differ, in words; nothing where they are the same."""
        if mine.failure:
            return f"{_OF_ORIGINAL}{mine.failure}"
        if theirs.failure:
            return theirs.failure
        if mine.status != theirs.status and (again is None or again.status != theirs.status):
            return f"status {theirs.status} instead of {mine.status}: {_shown(theirs.body)}"
        if mine.content_type != theirs.content_type:
            return f"content type {theirs.content_type!r} instead of {mine.content_type!r}"
        ours, other = self._body(mine, self.original), self._body(theirs, slim)
        if again is not None:
            ours, other = _without_volatile(ours, self._body(again, self._again), other)
        return "" if ours == other else _first_difference(ours, other)

    def _body(self, answer: Answer, answers: Answers | None) -> bytes:
        """An answer's body with everything masked that no comparison should see."""
        body = answer.body
        for name in sorted(answers.hostnames) if answers is not None else ():
            body = body.replace(name.encode(), b"<hostname>")
        for mask in self._masks:
            body = mask.sub(b"<masked>", body)
        return _in_order(body)

    def _others(self, slim: Answers) -> list[Check]:
        original, found = self.original, []
        if original.health is not None and slim.health is not None:
            detail = (
                f"{_OF_ORIGINAL}{original.health.failure}" if original.health.failure else slim.health.failure
            )
            found.append(
                Check("HEALTHCHECK", _of_health(original.health), _of_health(slim.health), not detail, detail)
            )
        if original.runs is not None and slim.runs is not None:
            again = self._again.runs if self._again is not None else None
            check = self._compared("start", original.runs, slim.runs, again, slim, _of_start, "")
            if check.same and not check.detail and original.runs.status:
                said = (
                    "both end by themselves, and not well: say with --http or --exec what there is to compare"
                )
                check = replace(check, detail=said)
            found.append(check)
        if original.stopped is not None and slim.stopped is not None:
            found.append(self._stop(original.stopped, slim.stopped))
        if original.startup_s is not None and slim.startup_s is not None:
            limit = original.startup_s * _SLOW_FACTOR + _SLOW_S
            same = slim.startup_s <= limit or any(a.failure for a in slim.http.values())
            detail = "" if same else f"more than {limit:.1f} s"
            found.append(
                Check(_STARTUP, f"{original.startup_s:.2f} s", f"{slim.startup_s:.2f} s", same, detail)
            )
        if original.memory_bytes is not None and slim.memory_bytes is not None:
            most = original.memory_bytes * _LARGE_FACTOR + _LARGE_BYTES
            same = slim.memory_bytes <= most
            detail = "" if same else f"more than {most:.0f} bytes"
            found.append(
                Check(_MEMORY, f"{original.memory_bytes} bytes", f"{slim.memory_bytes} bytes", same, detail)
            )
        return found

    def _stop(self, mine: Answer, theirs: Answer) -> Check:
        again = self._again.stopped if self._again is not None else None
        same = (mine.status, mine.body, mine.failure) == (theirs.status, theirs.body, theirs.failure)
        varies = again is not None and (again.status, again.body) == (theirs.status, theirs.body)
        if mine.failure or theirs.failure:
            same, varies = not theirs.failure, False  # an original that ends by itself says so at its checks
        detail = ""
        if varies and not same:
            detail = "two runs of the original differ in this as well"
        elif not same:
            detail = theirs.failure or f"{_of_stop(theirs)} instead of {_of_stop(mine)}"
        return Check("SIGTERM", _of_stop(mine), _of_stop(theirs), same or varies, detail)


def _unmet(mine: Answer, theirs: Answer, status: int | None, contains: Sequence[str], what: str) -> str:
    """What the probe asks for and an answer does not give; the original comes first, since it decides."""
    for who, answer in ((_OF_ORIGINAL, mine), ("", theirs)):
        if answer.failure:
            return f"{who}{answer.failure}"
        if status is not None and answer.status != status:
            return f"{who}{what} {answer.status} instead of {status}: {_shown(answer.body)}"
        text = answer.body.decode("utf-8", "replace")
        lacking = [words for words in contains if words not in text]
        if lacking:
            return f"{who}lacks {lacking}: {_shown(answer.body)}"
    return ""


def _in_order(body: bytes) -> bytes:
    """A JSON document with the members of its objects sorted, which have no order (RFC 8259, 4); else as it is."""
    if body[:64].lstrip()[:1] not in (b"{", b"["):
        return body
    try:
        return json.dumps(json.loads(body), sort_keys=True, ensure_ascii=False).encode(
            "utf-8", "surrogatepass"
        )
    except (ValueError, RecursionError):
        return body


def _without_volatile(ours: bytes, again: bytes, other: bytes) -> tuple[bytes, bytes]:
    """Two bodies without the words in which the original differs from itself."""
    first, second, third = (_WORDS.findall(body) for body in (ours, again, other))
    if ours == again:
        return ours, other
    if not len(first) == len(second) == len(third):
        # Its length varies: what is the same at both ends is compared, what lies between is not.
        start = _common(first, second)
        end = min(_common(first[::-1], second[::-1]), min(len(first), len(second)) - start)
        if len(third) < start + end:
            return ours, other
        return (
            b"".join(first[:start] + first[len(first) - end :]),
            b"".join(third[:start] + third[len(third) - end :]),
        )
    stable = [number for number in range(len(first)) if first[number] == second[number]]
    return b"".join(first[n] for n in stable), b"".join(third[n] for n in stable)


def _common(first: Sequence[bytes], second: Sequence[bytes]) -> int:
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count


def _first_difference(ours: bytes, other: bytes) -> str:
    at = _common([ours[n : n + 1] for n in range(len(ours))], [other[n : n + 1] for n in range(len(other))])
    start = max(0, at - 40)
    end = at + _DIFFERENCE_BYTES
    return f"at byte {at}: {_shown(other[start:end])} instead of {_shown(ours[start:end])}"


def _shown(body: bytes) -> str:
    """Both ends of a body: a failure's cause stands first in one program's output, last in another's."""
    if len(body) > 2 * _END_BYTES:
        body = body[:_END_BYTES] + " … ".encode() + body[-_END_BYTES:]
    return repr(body.decode("utf-8", "replace"))


def _of_http(answer: Answer) -> str:
    if answer.failure:
        return "no answer"
    kind = f" {answer.content_type}" if answer.content_type else ""
    return f"{answer.status}{kind}, {len(answer.body)} bytes"


def _of_run(answer: Answer) -> str:
    return "failed" if answer.failure else f"exit {answer.status}, {len(answer.body)} bytes"


def _of_start(answer: Answer) -> str:
    if answer.failure:
        return "failed"
    return "still running" if answer.status is None else f"exit {answer.status}, {len(answer.body)} bytes"


def _of_health(answer: Answer) -> str:
    if answer.status == 0:
        return "healthy"
    return "unhealthy" if answer.status is not None else "failed"


def _of_stop(answer: Answer) -> str:
    if answer.failure:
        return "had ended"
    return "killed after the grace" if answer.body == _KILLED else f"exit {answer.status}"
