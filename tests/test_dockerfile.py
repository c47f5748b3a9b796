"""Dockerfiles: read as BuildKit reads them, rewritten without touching a byte too much, written so that builders come
out with the same paths and config again, and held against the history of images that an engine built."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import layerlens
from layerlens import differences, dockerfile, dockerlines
from layerlens.dockerfile import Dockerfile, Instruction, parse
from layerlens.errors import DockerfileError
from layerlens.history import dockerfile_line, instructions, parse_config
from layerlens.model import EntryType, ImageConfig
from layerlens.model import Instruction as HistoryEntry

ROOT = Path(__file__).resolve().parent.parent
CASES = ROOT / "tests" / "cases" / "dockerfile"
CORPUS = ROOT / "tests" / "corpus"
REAL = sorted([*CORPUS.glob("*/Dockerfile*"), *(ROOT / "scripts" / "bases").glob("*/Dockerfile*")])
WRITTEN = sorted(path for path in CASES.glob("*.Dockerfile") if not path.name.startswith("refused-"))
REFUSED = sorted(CASES.glob("refused-*.Dockerfile"))

sys.path.insert(0, str(ROOT / "scripts"))


def read(path: Path) -> str:
    return dockerfile.decode(path.read_bytes())


def every(parsed: Dockerfile) -> list[Instruction]:
    stages = (instruction for stage in parsed.stages for instruction in (stage.origin, *stage.instructions))
    return [*parsed.global_args, *stages]


# --- reading ----------------------------------------------------------------------------------------------


def as_answered(parsed: Dockerfile) -> dict[str, Any]:
    """A Dockerfile in the form of the answers of BuildKit's parser."""
    return {
        "escape": parsed.escape,
        "global_args": len(parsed.global_args),
        "instructions": [
            {
                "keyword": found.keyword,
                "flags": list(found.flags),
                "words": list(found.words),
                "exec_form": found.exec_form,
                "heredocs": [
                    {"name": doc.name, "content": doc.content, "chomp": doc.chomp, "expand": doc.expand}
                    for doc in found.heredocs
                ],
                "lines": [parsed.text.count("\n", 0, found.start) + 1, found.end_line],
            }
            for found in every(parsed)
        ],
        "stages": [
            {
                "name": stage.name or "",
                "base": stage.base,
                "platform": stage.platform or "",
                "base_expanded": stage.base_expanded,
                "instructions": len(stage.instructions),
            }
            for stage in parsed.stages
        ],
    }


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.stem)
def test_read_as_buildkit_reads_it(path: Path) -> None:
    expected = json.loads(path.with_suffix(".json").read_text())
    assert "error" not in expected
    del expected["error_lines"]
    assert as_answered(parse(read(path))) == expected


@pytest.mark.parametrize("path", REFUSED, ids=lambda path: path.stem)
def test_refused_as_buildkit_refuses_it(path: Path) -> None:
    expected = json.loads(path.with_suffix(".json").read_text())
    assert expected["error"]
    text = read(path)
    with pytest.raises(DockerfileError) as caught:
        parse(text, name=path.name)
    name, line, column, message = str(caught.value).split(":", 3)
    assert name == path.name
    assert message.strip()
    assert caught.value.hint
    first, last = expected["error_lines"]
    if first:  # of a directive BuildKit counts from 0; of the whole file it says no line
        assert first <= int(line) <= max(last, first + 1)
    lines = text.split("\n")
    assert 1 <= int(column) <= len(lines[int(line) - 1]) + 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FROM a\n\n  RUNN true\n", "Dockerfile:3:3: unknown instruction: RUNN"),
        ("FROM a\nCOPY --from=x \\\n  --bogus \\\n  a b\n", "Dockerfile:3:3: unknown flag: --bogus"),
        ("FROM a\nRUN x \\\n  y <<EOF\nz\n", "Dockerfile:3:5: unterminated heredoc"),
        ("FROM\n", "Dockerfile:1:1: FROM requires either one or three arguments"),
        ("FROM a\nCOPY   x\n", "Dockerfile:2:8: COPY requires at least two arguments, but only 1 was given"),
        ("\ufeffFROM a\nRUNN\n", "Dockerfile:2:1: unknown instruction: RUNN"),
        ("ARG V\nFROM node:18\nFROM ${V}\n", "Dockerfile:3:1: base name (${V}) should not be blank"),
        ("FROM ${V:?which}\n", "Dockerfile:1:1: "),
        ("FROM a\nRUN " + "x" * 70_000, "Dockerfile:2:65535: line greater than max allowed size of 65535"),
    ],
)
def test_errors_say_line_and_column(text: str, message: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        parse(text)
    assert str(caught.value).startswith(message)


def test_errors_help() -> None:
    with pytest.raises(DockerfileError) as caught:
        parse("FROM a\nCPOY a b\n")
    assert caught.value.hint == "Did you mean COPY?"
    with pytest.raises(DockerfileError) as caught:
        parse("FROM a\nCOPY --form=x a b\n")
    assert "--from" in caught.value.hint


@pytest.mark.parametrize("path", [*REAL, *WRITTEN], ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_text_is_the_instructions_and_what_stands_between(path: Path) -> None:
    text = read(path)
    parsed = parse(text)
    assert parsed.text == text
    assert dockerfile.encode(text) == path.read_bytes()
    at = 0
    for instruction in every(parsed):
        between = text[at : instruction.start].removeprefix("\ufeff" if at == 0 else "")
        for line in between.splitlines():
            assert not line.strip() or line.lstrip().startswith("#")
        assert text[instruction.start : instruction.end] == instruction.source
        at = instruction.end
    for line in text[at:].splitlines():
        assert not line.strip() or line.lstrip().startswith("#")


@given(
    st.lists(
        st.sampled_from(
            [
                *(
                    "FROM a\n",
                    "RUN ",
                    "x",
                    "<<EOF",
                    "\nEOF\n",
                    "\n",
                    "\\\n",
                    "`",
                    "# escape=`\n",
                    "COPY ",
                    '["a"',
                ),
                *(
                    "]",
                    " ",
                    "$",
                    "${",
                    "}",
                    "'",
                    '"',
                    "--from=b ",
                    "ENV A=1 ",
                    "ONBUILD ",
                    "\ufeff",
                    "\r\n",
                    "é",
                ),
                *("AS b", "\udcff"),
            ]
        ),
        max_size=30,
    ).map("".join)
)
def test_only_our_errors_escape(text: str) -> None:
    try:
        parsed = parse(text)
    except DockerfileError as error:
        assert error.hint
        return
    for instruction in every(parsed):
        assert text[instruction.start : instruction.end] == instruction.source
    differences.differences(parsed, parsed.stages[-1], (), config())
    name = dockerfile.as_builder(parsed, parsed.stages[-1])[1]
    assert name


def test_deep_json_is_refused() -> None:
    with pytest.raises(DockerfileError):
        parse("FROM a\nCMD " + "[" * 30_000 + "\n")


def test_directives() -> None:
    parsed = parse("#syntax=a/b:1\n# ESCAPE = `\n# check=skip=all\nFROM x\n")
    assert [(one.name, one.value, one.line) for one in parsed.directives] == [
        ("syntax", "a/b:1", 1),
        ("escape", "`", 2),
        ("check", "skip=all", 3),
    ]
    assert parsed.escape == "`"


def test_stages_and_what_they_are_built_upon() -> None:
    parsed = parse(
        "ARG V=18\nFROM node:$V AS Base\nFROM base AS build\nRUN --mount=from=busybox,target=/b x\n"
        "FROM scratch\nCOPY --from=build /a /a\nCOPY --from=nginx:1 /b /b\nCOPY --from=0 /c /c\n"
    )
    assert [stage.from_stage for stage in parsed.stages] == [None, 0, None]
    assert [stage.base_expanded for stage in parsed.stages] == ["node:18", "base", "scratch"]
    assert [stage.lines for stage in parsed.stages] == [(2, 2), (3, 4), (5, 8)]
    assert parsed.lineage(parsed.stages[1]) == parsed.stages[:2]
    assert parsed.external_images == ("node:18", "busybox", "nginx:1")
    assert parsed.stage("BUILD").index == 1
    assert parsed.stage("2").index == 2
    with pytest.raises(DockerfileError, match="no stage named runner"):
        parsed.stage("runner")
    assert parse(parsed.text, {"V": "20"}).stages[0].base_expanded == "node:20"


def test_what_needs_buildkit() -> None:
    assert not parse("FROM a\nCOPY --from=b --chown=1 /a /b\n").needs_buildkit
    assert parse("FROM a\nCOPY --chmod=1 /a /b\n").needs_buildkit
    assert parse("FROM a\nRUN --mount=type=cache,target=/x y\n").needs_buildkit
    assert parse("FROM a\nRUN <<E\nE\n").needs_buildkit


# --- rewriting --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM node:18\nRUN x\n", "FROM node:18 AS builder\nRUN x\n"),
        ("FROM node:18", "FROM node:18 AS builder"),
        ("from  node:18  \r\nRUN x\r\n", "from  node:18 AS builder  \r\nRUN x\r\n"),
        ("FROM --platform=linux/amd64 \\\n # c node:18\n node:18\n", None),
        ("FROM node AS Deps\nFROM deps\n", "FROM node AS Deps\nFROM deps AS builder\n"),
        ("FROM a AS builder\nFROM b\n", "FROM a AS builder\nFROM b AS builder2\n"),
        ("FROM a\nCOPY --from=builder /a /b\n", "FROM a AS builder2\nCOPY --from=builder /a /b\n"),
        ("FROM a AS mine\n", "FROM a AS mine\n"),
        ("FROM fromage\n", "FROM fromage AS builder\n"),
        ("FROM M\n", "FROM M AS builder\n"),
        ("FROM --platform=a a\n", "FROM --platform=a a AS builder\n"),
    ],
)
def test_as_builder(text: str, expected: str | None) -> None:
    parsed = parse(text)
    named, name = dockerfile.as_builder(parsed, parsed.stages[-1])
    if expected is not None:
        assert named == expected
    again = parse(named)
    assert again.stages[-1].name == name
    assert again.stages[-1].base == parsed.stages[-1].base
    assert named.replace(f" AS {name}", "", 1) == text or parsed.stages[-1].name == name


@pytest.mark.parametrize("path", [*REAL, *WRITTEN], ids=lambda path: f"{path.parent.name}/{path.name}")
def test_rewriting_leaves_the_rest_alone(path: Path) -> None:
    text = read(path)
    parsed = parse(text)
    for target in parsed.stages:
        named, name = dockerfile.as_builder(parsed, target)
        if path.stem == "continuation-at-end":
            text, named = text.replace(" \\\n", " \n"), named.replace(" \\\n", " \n")
        elif target.name is None:
            assert len(named) == len(text) + len(f" AS {name}")
        whole = dockerfile.append_stages(
            parsed, named, f"FROM scratch\nRUN a \\\n b\nCOPY --from={name} /x /x\n"
        )
        assert whole.startswith(named)
        again = parse(whole)
        assert len(again.stages) == len(parsed.stages) + 1
        assert again.stages[target.index].name == name
        assert [found.words for found in again.stages[-1].instructions] == [("a  b",), ("/x", "/x")]
        assert again.directives == parsed.directives
        inserted = dockerfile.insert_after(parsed, target.last, ["RUN last \\\n  one"])
        again = parse(inserted)
        assert again.stages[target.index].last.words == ("last   one",)
        assert len(every(again)) == len(every(parsed)) + 1
        how = dockerfile.succession(parsed, target)
        stages = f"{dockerlines.from_line('scratch', how.name)}\nCOPY --from={how.builder} /x /x\n"
        followed = dockerfile.succeed(parsed, target, how, stages)
        again = parse(followed)
        small = again.stages[target.index + 1 if how.takes_over else -1]
        assert (again.stages[target.index].name, small.name, small.base) == (how.builder, how.name, "scratch")
        if how.takes_over:
            assert small.name == target.name
        assert [stage.origin.words[0] for stage in again.stages if stage is not small] == [
            stage.origin.words[0] for stage in parsed.stages
        ]
        assert followed.startswith(text[: target.origin.start])
        if how.takes_over and target is not parsed.stages[-1]:
            assert followed.endswith(text[target.last.end :])
        assert ("\r\n" in text) == ("\r\n" in followed)


def test_lines_go_behind_an_instruction() -> None:
    text = read(CORPUS / "three-stages" / "Dockerfile.forgotten")
    parsed = parse(text)
    line = dockerlines.copy_line(["/app/node_modules"], "./node_modules", "builder")
    mended = dockerfile.insert_after(parsed, parsed.stages[-1].instructions[0], [line])
    assert mended == text.replace("runner\nWORKDIR /app\n", f"runner\nWORKDIR /app\n{line}\n")
    bare = parse("FROM a\nENV A=1\n# why\nUSER x\nCMD b")
    assert dockerfile.insert_after(bare, bare.stages[0].instructions[0], ["COPY a b"]) == (
        "FROM a\nENV A=1\nCOPY a b\n# why\nUSER x\nCMD b"
    )
    alone = parse("FROM a")
    assert dockerfile.insert_after(alone, alone.stages[0].origin, ["COPY a b"]) == "FROM a\nCOPY a b\n"


def followed(text: str, index: int) -> str:
    parsed = parse(text)
    how = dockerfile.succession(parsed, parsed.stages[index])
    stages = f"{dockerlines.from_line('d', how.name)}\nCOPY --from={how.builder} /x /x\n"
    return dockerfile.succeed(parsed, parsed.stages[index], how, stages)


def test_the_small_stage_takes_over_the_name_and_the_place() -> None:
    small = "FROM d AS run\nCOPY --from=run-builder /x /x\n"
    assert followed("FROM a AS b\nFROM --platform=$X c  as  Run\nCMD x\n", 1) == (
        f"FROM a AS b\nFROM --platform=$X c  as  run-builder\nCMD x\n\n{small}"
    )
    assert followed("FROM a AS run\nCMD x\n\n# others\nFROM b\n", 0) == (
        f"FROM a AS run-builder\nCMD x\n\n{small}\n# others\nFROM b\n"
    )
    assert followed("FROM a\nFROM b\nCMD x", 1) == (
        "FROM a\nFROM b AS builder\nCMD x\n\nFROM d\nCOPY --from=builder /x /x\n"
    )


@pytest.mark.parametrize(
    "other", ["FROM run", "FROM c\nCOPY --from=RUN /x /x", "FROM c\nCOPY --from=1 /x /x"]
)
def test_a_stage_that_others_count_on_stays(other: str) -> None:
    text = f"FROM a\nFROM b AS run\n{other}\n"
    assert followed(text, 1) == (
        f"{text}\n# other stages count on run: docker build --target run-slim\n"
        "FROM d AS run-slim\nCOPY --from=run /x /x\n"
    )


def test_generated_lines_use_the_files_escape_character() -> None:
    parsed = parse("# escape=`\nFROM a")
    text = dockerfile.append_stages(parsed, parsed.text, "FROM b\nENV A=1 \\\n  B=2\n")
    assert text == "# escape=`\nFROM a\n\nFROM b\nENV A=1 `\n  B=2\n"
    pairs = [("A", 'say "hi" for $5 ` \\'), ("B", "plain")]
    line = dockerlines.env_line(pairs, "`")
    assert expanded(parse(f"# escape=`\nFROM a\n{line}\n")) == [word for pair in pairs for word in pair]


# --- lines ------------------------------------------------------------------------------------------------


def expanded(parsed: Dockerfile) -> list[str]:
    """The words of the last instruction as the builder uses them, by a port of BuildKit's lexer."""
    from e2b_dockerfile_utils import ShellLex

    lexer = ShellLex(parsed.escape, env={"HOME": "wrong", "x": "wrong"}, skip_unset_env=False)
    return [lexer.process_word(word) for word in parsed.stages[-1].last.words]


NAMES = st.text("ab $\\'\"`*?[]é#!<>{}()~%=,-", min_size=1, max_size=12)


@given(st.lists(NAMES.map("/d/{}".format), min_size=1, max_size=3), NAMES, st.sampled_from("\\`"))
def test_copied_paths_come_out_again(sources: list[str], target: str, escape: str) -> None:
    directive = "# escape=`\n" if escape == "`" else ""
    line = dockerlines.copy_line(sources, f"/t/{target}/", "builder", escape=escape)
    parsed = parse(f"{directive}FROM a\n{line}\n")
    *written, where = expanded(parsed)
    assert where == f"/t/{target}/"
    assert len(written) == len(sources)
    for pattern, source in zip(written, sources, strict=True):
        if any(character in pattern for character in "*?["):
            assert go_match(pattern, source)
            assert not go_match(pattern, source + "x")
        else:
            assert pattern == source


def go_match(pattern: str, name: str) -> bool:
    """Go's filepath.Match, from its documentation."""
    import re

    out, at = "", 0
    while at < len(pattern):
        character = pattern[at]
        if character == "*":
            out += "[^/]*"
        elif character == "?":
            out += "[^/]"
        elif character == "\\":
            at += 1
            out += re.escape(pattern[at])
        elif character == "[":
            end = at + 1
            members = ""
            while pattern[end] != "]" or not members:
                if pattern[end] == "\\":
                    end += 1
                members += pattern[end]
                end += 1
            out += "(?:" + "|".join(map(re.escape, members)) + ")"
            at = end
        else:
            out += re.escape(character)
        at += 1
    return re.fullmatch(out, name, re.DOTALL) is not None


def test_copy_lines() -> None:
    assert dockerlines.copy_line(["/a", "/b"], "/c", "x", "1:2", "0755") == (
        "COPY --from=x --chown=1:2 --chmod=0755 /a /b /c/"
    )
    assert dockerlines.copy_line(["/a b"], "/c") == 'COPY ["/a b", "/c"]'
    assert dockerlines.copy_line(["/a[b]*\udcff"], "/c") == 'COPY ["/a[[]b][*]?", "/c"]'
    with pytest.raises(DockerfileError):
        dockerlines.copy_line(["/a"], "/c\udcff")


VALUES = st.text(st.characters(exclude_characters="\n\r\0", exclude_categories=["Cs"]), max_size=20)


@given(
    st.lists(st.tuples(st.from_regex(r"[A-Za-z_]\w{0,5}", fullmatch=True), VALUES), min_size=1, max_size=4),
    st.sampled_from("\\`"),
)
def test_values_come_out_again(pairs: list[tuple[str, str]], escape: str) -> None:
    directive = "# escape=`\n" if escape == "`" else ""
    for make in (dockerlines.env_line, dockerlines.label_line):
        lines = dockerfile.append_stages(
            parse(f"{directive}FROM a\n"), f"{directive}FROM a\n", make(pairs, escape)
        )
        assert expanded(parse(lines)) == [word for pair in pairs for word in pair]


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (30_000_000_000, "30s"),
        (1_500_000_000, "1.5s"),
        (90_000_000_000, "1m30s"),
        (3_600_000_000_000, "60m"),
        (1_000_000, "0.001s"),
        (0, "0s"),
    ],
)
def test_go_durations(nanoseconds: int, text: str) -> None:
    assert dockerlines.go_duration(nanoseconds) == text


@pytest.mark.parametrize(
    ("healthcheck", "line"),
    [
        ({"Test": ["NONE"]}, "HEALTHCHECK NONE"),
        ({"Test": []}, None),
        ({}, None),
        ({"Test": "x"}, None),
        (
            {"Test": ["CMD", "a", "b c"], "Interval": 5_000_000_000},
            'HEALTHCHECK --interval=5s CMD ["a", "b c"]',
        ),
        ({"Test": ["CMD-SHELL", "a || b"], "Retries": 3}, "HEALTHCHECK --retries=3 CMD a || b"),
        ({"Test": ["CMD-SHELL", "a\nb"]}, 'HEALTHCHECK CMD ["/bin/sh", "-c", "a\\nb"]'),
    ],
)
def test_healthcheck_lines(healthcheck: dict[str, Any], line: str | None) -> None:
    assert dockerlines.healthcheck_line(healthcheck) == line


def config(**changes: Any) -> ImageConfig:
    return replace(parse_config(b"{}"), **changes)


FULL = {
    "env": ("PATH=/usr/bin:/bin", 'ODD= $HOME "quoted" \\ it\'s', "EMPTY=", "EQUALS=a=b"),
    "workdir": "/srv/my app",
    "user": "1000:1000",
    "exposed_ports": ("53/udp", "3000/tcp"),
    "volumes": ("/data", "/my $data"),
    "labels": {"org.example.title": 'It\'s a "title" for $5', "b": ""},
    "healthcheck": {
        "Test": ["CMD-SHELL", "curl -f http://localhost:$PORT/ || exit 1"],
        "Interval": 90_000_000_000,
        "Timeout": 1_500_000_000,
        "StartPeriod": 5_000_000_000,
        "Retries": 4,
    },
    "stop_signal": "SIGQUIT",
    "shell": ("/bin/bash", "-o", "pipefail", "-c"),
    "entrypoint": ("/bin/sh", "-c", 'exec "$0" "$@"', "a\nb"),
    "cmd": ("node", "dist/my server.js"),
}


def test_carried_config_is_in_order_and_only_what_differs() -> None:
    full = config(**FULL)
    lines = dockerlines.carried_config_lines(full)
    order = [keyword for keyword, _ in dockerlines._CARRIED]
    assert order == [*("ENV", "WORKDIR", "USER", "EXPOSE", "VOLUME", "LABEL"), *order[6:]]
    assert [line.split()[0] for line in lines] == order
    assert dockerlines.carried_config_lines(full, full) == ()
    assert dockerlines.carried_config_lines(config()) == ()
    assert [line.split()[0] for line in dockerlines.carried_config_lines(full, without=("LABEL", "ENV"))] == [
        word for word in order if word not in ("LABEL", "ENV")
    ]
    base = config(
        env=("A=1", "B=2"), entrypoint=("docker-entrypoint.sh",), cmd=("node",), user="app", workdir="/x"
    )
    assert dockerlines.carried_config_lines(config(env=("A=1", "B=3"), cmd=("x",)), base) == (
        "ENV B=3",
        "WORKDIR /",
        "USER root",
        "ENTRYPOINT []",
        'CMD ["x"]',
    )
    assert dockerlines.carried_config_lines(replace(base, entrypoint=("y",)), base) == (
        'ENTRYPOINT ["y"]',
        'CMD ["node"]',
    )
    assert dockerlines.carried_config_lines(replace(base, cmd=None), base) == ("CMD []",)


def test_what_no_dockerfile_can_say() -> None:
    odd = config(env=("A=1\n2", "B=1"), labels={"a=b": "c", "d": "e\nf", "g": "h"})
    assert dockerlines.inexpressible(odd) == ("ENV A", "LABEL a=b", "LABEL d")
    assert dockerlines.carried_config_lines(odd) == ("ENV B=1", "LABEL g=h")


@pytest.mark.parametrize(
    ("dockerignore", "name", "out"),
    [
        ("node_modules\nDockerfile*\n", "Dockerfile.slim.paths", True),
        ("Dockerfile*\n!Dockerfile.slim*", "Dockerfile.slim.paths", False),
        ("!slim.paths\n*", "slim.paths", True),
        ("**/*.paths", "slim.paths", True),
        ("**", "slim.paths", True),
        ("/slim.paths/\r\n", "slim.paths", True),
        ("./slim.paths", "slim.paths", True),
        ("docs/slim.paths\n# slim.paths\n\n", "slim.paths", False),
        ("[r-t]lim.paths", "slim.paths", True),
        ("[^r-t]lim.paths", "slim.paths", False),
        ("sl?m.paths", "slim.paths", True),
        ("\\*", "slim.paths", False),
        ("[", "[", False),
    ],
)
def test_what_a_dockerignore_leaves_out(dockerignore: str, name: str, out: bool) -> None:
    from e2b_dockerfile_utils import PatternMatcher

    assert dockerlines.leaves_out(dockerignore, name) is out
    lines = [line.strip().strip("/").removeprefix("./") for line in dockerignore.splitlines()]
    if "[" not in lines:  # malformed, an error there
        theirs = PatternMatcher([line for line in lines if line and not line.startswith("#")])
        assert bool(theirs.matches(name)) is out


# --- which image did it build? ----------------------------------------------------------------------------


def history(*created_by: str, base: int = 0) -> tuple[HistoryEntry, ...]:
    return tuple(
        HistoryEntry(index, dockerfile_line(made), made, None, None, None, index < base)
        for index, made in enumerate(created_by)
    )


CLASSIC = (
    "/bin/sh -c #(nop) ADD file:9f4c5d2c2a1b3e8e7f6a5b4c3d2e1f0a9b8c7d6e5f4a3b2c1d0e9f8a7b6c5d4e in / ",
    '/bin/sh -c #(nop)  CMD ["bash"]',
    "/bin/sh -c #(nop)  ARG VERSION",
    "/bin/sh -c #(nop) WORKDIR /app",
    "/bin/sh -c #(nop) COPY multi:2ee4173ecdc99e40e04eaa388d2fd4c934df5fe18625ca26ce55f31fb983210a in ./ ",
    '|1 VERSION=7 /bin/sh -c npm ci   && echo "$VERSION"',
    "/bin/sh -c #(nop)  ENV PORT=3000 NAME=two words",
    "/bin/sh -c #(nop)  EXPOSE 3000",
    '/bin/sh -c #(nop)  HEALTHCHECK &{["CMD-SHELL" "curl -f localhost"] "1m0s" "3s" "0s" \'\\x00\'}',
    "/bin/sh -c #(nop)  USER node",
    '/bin/sh -c #(nop)  CMD ["npm" "start"]',
)
BUILDKIT = (
    "# debian.sh --arch 'amd64'",
    "ARG VERSION=7",
    "WORKDIR /app",
    "COPY package.json package-lock.json ./ # buildkit",
    'RUN |1 VERSION=7 /bin/sh -c npm ci   && echo "$VERSION" # buildkit',
    "ENV PORT=3000 NAME=two words",
    "EXPOSE map[3000/tcp:{}]",
    'HEALTHCHECK &{["CMD-SHELL" "curl -f localhost"] "1m0s" "3s" "0s" "0s" \'\\x00\'}',
    "USER node",
    'CMD ["npm" "start"]',
)
ITS_DOCKERFILE = """ARG V=7
FROM debian AS base
ARG VERSION=${V}
WORKDIR /srv/..
WORKDIR app
"""
DOCKERFILE = """ARG VERSION=7
FROM debian AS deps
ARG VERSION
WORKDIR app
COPY package.json package-lock.json ./
RUN npm ci \\
    # why
    && echo "$VERSION"
FROM deps AS run
ENV PORT=3000 NAME="two words"
EXPOSE ${PORT}
HEALTHCHECK --timeout=3s --interval=60s CMD curl -f localhost
USER node
CMD ["npm", "start"]
"""


@pytest.mark.parametrize("built", [CLASSIC, BUILDKIT], ids=["classic", "buildkit"])
@pytest.mark.parametrize("base", [0, 1, 4])
def test_its_own_history_does_not_differ(built: tuple[str, ...], base: int) -> None:
    parsed = parse(DOCKERFILE)
    entries = history(*built, base=base)
    assert differences.differences(parsed, parsed.stages[-1], entries, config()) == []
    assert differences.find_target(parsed, entries, config()).name == "run"
    labelled = history(*built, "/bin/sh -c #(nop)  LABEL a=b", base=base)
    assert differences.differences(parsed, parsed.stages[-1], labelled, config()) == []


def test_differences_are_named_with_their_line() -> None:
    parsed = parse(
        DOCKERFILE.replace("npm ci", "npm install").replace("USER node\n", "").replace("./\n", "/x\n")
    )
    found = differences.differences(parsed, parsed.stages[-1], history(*CLASSIC, base=2), config())
    assert [str(one) for one in found] == [
        "Dockerfile:5 COPY package.json package-lock.json /x - the image was built with COPY … ./",
        'Dockerfile:6 RUN npm install && echo "$VERSION" - the image was built with RUN npm ci && echo "$VERSION"',
        "the image was built with USER node, which the Dockerfile lacks",
    ]
    found = differences.differences(
        parse(DOCKERFILE), parse(DOCKERFILE).stages[-1], history(*CLASSIC[:-1], base=2), config()
    )
    assert [str(one) for one in found] == [
        'Dockerfile:14 CMD ["npm", "start"] - the image was built without it'
    ]


def test_sources_are_compared_where_they_are_recorded() -> None:
    parsed = parse(DOCKERFILE.replace("package.json package-lock.json", "package.json"))
    assert len(differences.differences(parsed, parsed.stages[-1], history(*BUILDKIT, base=1), config())) == 1
    assert differences.differences(parsed, parsed.stages[-1], history(*CLASSIC, base=2), config()) == []


def test_an_owner_that_the_classic_builder_writes_without_a_blank() -> None:
    parsed = parse("FROM a\nWORKDIR /app\nCOPY --chown=app:app . ./static\n")
    entries = history(
        "/bin/sh -c #(nop) WORKDIR /app",
        f"/bin/sh -c #(nop) COPY --chown=app:appdir:{'c1c6cb73' * 8} in ./static ",
    )
    assert entries[-1].text == "COPY --chown=app:app … ./static"
    assert differences.differences(parsed, parsed.stages[-1], entries, config()) == []


def test_heredocs_in_history() -> None:
    """As BuildKit records them: frontend/dockerfile/dockerfile2llb/convert.go, dispatchRun."""
    parsed = parse(
        "FROM a\nRUN <<EOF\necho one\necho two\nEOF\nRUN <<EOF\n#!/usr/bin/python3\nprint()\nEOF\n"
        "RUN cat <<A >/a\nx\nA\nCOPY <<f /f\ny\nf\n"
    )
    entries = history(
        "RUN /bin/sh -c echo one\necho two\n # buildkit",
        "RUN /bin/sh -c /dev/pipes/EOF # buildkit",
        "RUN /bin/sh -c cat <<A >/a\nx\nA # buildkit",
        "COPY <<f /f # buildkit",
    )
    assert differences.differences(parsed, parsed.stages[-1], entries, config()) == []


def test_an_image_without_history_is_held_against_its_config() -> None:
    parsed = parse('FROM a\nWORKDIR /app\nUSER node\nCMD ["npm", "start"]\n')
    same = config(workdir="/app", user="node", cmd=("npm", "start"))
    assert differences.differences(parsed, parsed.stages[-1], (), same) == []
    found = differences.differences(parsed, parsed.stages[-1], history("kaniko"), replace(same, user="root"))
    assert [str(one) for one in found] == ["Dockerfile:3 USER node - the image was built with USER root"]


# --- with an engine ---------------------------------------------------------------------------------------


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """``build(text, files)``: the tag of what the classic builder makes of it, removed afterwards."""
    tags: list[str] = []

    def run(text: str, files: dict[str, str] | None = None, *args: str, **env: str) -> str:
        tag = f"layerlens-test/dockerfile:{uuid.uuid4().hex[:12]}"
        context = tmp_path / tag.rpartition(":")[2]
        context.mkdir()
        (context / "Dockerfile").write_bytes(dockerfile.encode(text))
        for name, content in (files or {}).items():
            (context / name).parent.mkdir(parents=True, exist_ok=True)
            (context / name).write_text(content)
        client = env.pop("client", "docker")
        done = subprocess.run(
            [client, "build", "--network=host", *args, "-t", tag, str(context)],
            capture_output=True,
            text=True,
            timeout=240,
            env={**os.environ, "DOCKER_BUILDKIT": "0", **env},
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        tags.append(tag)
        return tag

    yield run
    for tag in reversed(tags):
        subprocess.run(["docker", "image", "rm", "--force", tag], capture_output=True, timeout=60)


def inspected(tag: str) -> dict[str, Any]:
    out = subprocess.run(
        ["docker", "image", "inspect", tag], capture_output=True, check=True, timeout=60
    ).stdout
    found: dict[str, Any] = json.loads(out)[0]["Config"]
    return found


@pytest.mark.engine
@pytest.mark.parametrize("escape", ["\\", "`"])
def test_a_carried_config_is_the_same_config(build: Callable[..., str], escape: str) -> None:
    full = config(**FULL)
    head = parse(f"# escape={escape}\nFROM scratch\n")
    lines = "\n".join(dockerlines.carried_config_lines(full, escape=escape))
    built = inspected(build(dockerfile._in_its_manner(head, head.text + lines)))
    assert built["Env"] == list(full.env)
    assert built["WorkingDir"] == full.workdir
    assert built["User"] == full.user
    assert sorted(built["ExposedPorts"]) == sorted(full.exposed_ports)
    assert sorted(built["Volumes"]) == sorted(full.volumes)
    assert built["Labels"] == full.labels
    assert built["Healthcheck"] == full.healthcheck
    assert built["StopSignal"] == full.stop_signal
    assert tuple(built["Shell"]) == full.shell
    assert tuple(built["Entrypoint"]) == full.entrypoint
    assert tuple(built["Cmd"]) == full.cmd


ODD_NAMES = (
    "plain",
    "two words",
    "do$llar",
    'quo"te',
    "it's",
    "st*r",
    "wh?t",
    "br[ack]et",
    "back\\slash",
    "b*\\x",
    "é",
    "#h",
)


@pytest.mark.engine
def test_odd_paths_arrive(build: Callable[..., str]) -> None:
    """Each file is copied by its exact name, beside one that a careless pattern would take as well."""
    context = {name: name for name in ODD_NAMES} | {"star": "wrong", "what": "wrong", "bae": "wrong"}
    context = {f"in/{name}": content for name, content in context.items()}
    copies = [
        dockerlines.copy_line([f"/all/{name}"], f"/out/{number}-{name}/", "builder")
        for number, name in enumerate(ODD_NAMES)
    ]
    text = "\n".join(["FROM scratch AS builder", "COPY in /all/", "FROM scratch", *copies, 'CMD ["x"]', ""])
    tag = build(text, context)
    with layerlens.open_image(tag) as image:
        found = {entry.path for entry in image.ls("/out") if entry.type is EntryType.FILE}
    assert found == {f"/out/{number}-{name}/{name}" for number, name in enumerate(ODD_NAMES)}


DEBIANS_CLIENT = "/usr/bin/docker"
"""Debian's own client: with DOCKER_BUILDKIT=1 it uses the BuildKit that is inside the engine."""

MOUNTING = """# syntax names no image here: the engine's own frontend reads it
FROM busybox:musl
ARG GREETING=hello
WORKDIR /srv/app
COPY --chown=1000:1000 ["a file", "./"]
RUN --mount=type=cache,target=/cache \\
    # between
    echo "$GREETING" > /cache/x &&   cp /cache/x x
ENV PATH=/srv/app:$PATH
EXPOSE 80
HEALTHCHECK --interval=60s CMD test -f x || exit 1
USER 1000
CMD ["cat", "x"]
"""


@pytest.mark.engine
@pytest.mark.skipif(not os.access(DEBIANS_CLIENT, os.X_OK), reason="needs Debian's docker client")
def test_a_file_that_needs_buildkit(build: Callable[..., str]) -> None:
    """Its history is recognised, and with a runtime stage of generated lines behind it, it builds again."""
    from corpuskit import engine

    if engine.inspect_image("busybox:musl") is None:
        pytest.skip("needs busybox:musl: scripts/engine base busybox:musl")
    parsed = parse(MOUNTING)
    assert parsed.needs_buildkit
    use = {"client": DEBIANS_CLIENT, "DOCKER_BUILDKIT": "1"}
    tag = build(MOUNTING, {"a file": "a"}, **use)
    found = config_of(tag, engine)
    assert found is not None
    its_config, told = found
    assert differences.differences(parsed, parsed.stages[-1], told, its_config) == []
    other = parse(MOUNTING.replace("cp /cache/x x", "cp /cache/x y"))
    assert [one.line for one in differences.differences(other, other.stages[-1], told, its_config)] == [6]
    named, name = dockerfile.as_builder(parsed, parsed.stages[-1])
    lines = [
        dockerlines.from_line("busybox:musl"),
        dockerlines.copy_line(["/srv/app/a file", "/srv/app/x"], "/srv/app", name, chown="1000:1000"),
        *dockerlines.carried_config_lines(its_config),
    ]
    again = inspected(
        build(dockerfile.append_stages(parsed, named, "\n".join(lines)), {"a file": "a"}, **use)
    )
    before = inspected(tag)
    for key in ("Env", "Cmd", "Entrypoint", "WorkingDir", "User", "ExposedPorts", "Healthcheck"):
        assert again.get(key) == before.get(key), key


def corpus_images() -> list[str]:
    return sorted(folder.parent.name for folder in CORPUS.glob("*/case.toml"))


@pytest.mark.engine
@pytest.mark.parametrize("name", corpus_images())
def test_the_corpuss_images_were_built_by_their_dockerfiles(name: str) -> None:
    from corpuskit import cases, engine

    case = cases.load_case(name)
    images = [config_of(case.tag(variant), engine) for variant in ("single", "multistage")]
    if None in images:
        pytest.skip(f"needs its images: scripts/corpus build {name}")
    single, multi = (parse(read(CORPUS / name / file)) for file in ("Dockerfile", "Dockerfile.multistage"))
    (one, one_told), (two, two_told) = filter(None, images)
    assert differences.differences(single, single.stages[-1], one_told, one) == []
    assert differences.find_target(single, one_told, one) == single.stages[-1]
    assert differences.find_target(multi, two_told, two) == multi.stage(
        case.targets["multistage"] or multi.stages[-1].label
    )
    target = differences.find_target(multi, two_told, two)
    assert differences.differences(multi, target, two_told, two) == []
    assert differences.differences(single, single.stages[-1], two_told, two)


def config_of(tag: str, engine: Any) -> tuple[ImageConfig, tuple[HistoryEntry, ...]] | None:
    """An image's config out of the engine's own store, which is quicker than an export of the image."""
    found = engine.inspect_image(tag)
    if found is None:
        return None
    asked = ["docker", "info", "--format", "{{.DockerRootDir}}/image/{{.Driver}}/imagedb/content/sha256"]
    store = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    try:
        read_config = parse_config((Path(store) / found["Id"].removeprefix("sha256:")).read_bytes())
    except OSError:
        with layerlens.open_image(tag) as image:
            return image.config, image.instructions
    return read_config, instructions(read_config, len(read_config.diff_ids))[0]
