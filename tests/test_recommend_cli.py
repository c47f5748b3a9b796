"""`layerlens recommend` as users run it: with their Dockerfile, with --write, with what is wrong."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import imagekit
import pytest
from conftest import ROOT, CommandLine, Run
from imagekit import Dir, File
from needskit import program

from layerlens.dockerfile import decode, parse

sys.path.insert(0, str(ROOT / "scripts"))

LATIN = (
    'FROM debian\n# gr\xfc\xdfe\nCOPY --chmod=755 app /srv/app\nCOPY big /srv/big\nCMD ["/srv/app"]\n'.encode(
        "latin-1"
    )
)
"""A Dockerfile whose bytes are not UTF-8."""
HISTORY = ("RUN base", "COPY app /srv/app # buildkit", "COPY big /srv/big # buildkit", 'CMD ["/srv/app"]')


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., str]:
    """``save(layers, config, history)``: the archive of an image."""

    def saved(
        layers: Sequence[Mapping[str, Any]],
        config: Mapping[str, Any],
        history: Sequence[str] | None = None,
        name: str = "app",
    ) -> str:
        built = imagekit.image(
            [imagekit.layer(members) for members in layers], config=config, history=history
        )
        path = tmp_path / f"{name}.tar"
        path.write_bytes(imagekit.tar_of(imagekit.docker_archive_25(built)))
        return str(path)

    return saved


@pytest.fixture
def app(save: Callable[..., str]) -> str:
    """An image of which little is needed, made by :data:`LATIN`."""
    return save(
        [
            {"/bin": Dir(), "/bin/true": program(), "/tmp": Dir(mode=0o1777)},
            {"/srv/app": program()},
            {"/srv/big": File(data=b"x" * 3_000_000)},
        ],
        {"Cmd": ["/srv/app"]},
        HISTORY,
    )


def two_lines(done: Run) -> tuple[str, str]:
    """What happened and what to do; nothing on stdout, exit status 2."""
    assert done.status == 2, done
    assert done.stdout == b""
    what, how = done.stderr.splitlines()
    assert what.startswith("error: ")
    assert how.startswith("hint: ")
    return what.removeprefix("error: "), how.removeprefix("hint: ")


# --- what is wrong ----------------------------------------------------------------------------------------


def test_nothing_says_what_is_run(cli: CommandLine, save: Callable[..., str]) -> None:
    archive = save([{"/srv/app": program()}], {"Cmd": None})
    what, how = two_lines(cli("recommend", archive))
    assert what == "the image has no entrypoint and no command: nothing says what it runs"
    assert "--root PATH" in how
    assert cli("recommend", archive, "--root", "/srv/app", "--runtime", "scratch").status == 0


def test_an_entrypoint_that_is_not_there(cli: CommandLine, save: Callable[..., str]) -> None:
    archive = save([{"/srv/app": program()}], {"Entrypoint": ["/srv/ap\x1bp"], "Cmd": None})
    what, how = two_lines(cli("recommend", archive))
    assert what.startswith("ENTRYPOINT ")
    assert what.endswith(" is not in the image")
    assert "\x1b" not in what
    assert "ENTRYPOINT or CMD" in how


def test_a_dockerfile_that_does_not_parse(cli: CommandLine, app: str, tmp_path: Path) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text("FROM debian\n\n  RUNN apt-get update\n")
    assert two_lines(cli("recommend", app, "--dockerfile", file)) == (
        "Dockerfile:3:3: unknown instruction: RUNN",
        "Did you mean RUN?",
    )
    assert two_lines(cli("recommend", app, "--dockerfile", tmp_path))[0].endswith("Is a directory")
    what, how = two_lines(cli("recommend", app, "--dockerfile", tmp_path / "none"))
    assert what.endswith("No such file or directory")
    assert how == "Name the Dockerfile that built the image."


def test_a_dockerfile_that_built_another_image(cli: CommandLine, app: str, tmp_path: Path) -> None:
    file = tmp_path / "Dockerfile"
    file.write_bytes(LATIN.replace(b"/srv/big\n", b"/srv/other\n"))
    what, how = two_lines(cli("recommend", app, "--dockerfile", file))
    assert what == (
        "this Dockerfile built another image: Dockerfile:4 COPY big /srv/other - the image was built with "
        "COPY big /srv/big"
    )
    assert "--force" in how
    forced = cli("recommend", app, "--dockerfile", file, "--force", "--format", "dockerfile")
    assert forced.status == 0
    assert b"COPY big /srv/other" in forced.stdout


def test_a_runtime_that_cannot_be_opened(cli: CommandLine, app: str) -> None:
    what, how = two_lines(cli("recommend", app, "--runtime", "nowhere:1"))
    assert what.startswith("the runtime image nowhere:1 cannot be opened")
    assert "catalogue" in what
    assert how.startswith("Pull it")


def test_options_that_contradict(cli: CommandLine, app: str, tmp_path: Path) -> None:
    assert "none is named" in two_lines(cli("recommend", app, "--write"))[0]
    file = tmp_path / "Dockerfile"
    file.write_bytes(LATIN)
    done = cli("recommend", app, "--dockerfile", file, "--write", "-o", tmp_path / "other")
    assert two_lines(done) == ("--write and -o both say where the Dockerfile goes", "Give one of the two.")
    assert file.read_bytes() == LATIN


# --- what is written --------------------------------------------------------------------------------------


def test_bytes_stay_bytes(cli: CommandLine, app: str, tmp_path: Path) -> None:
    file, output = tmp_path / "Dockerfile", tmp_path / "Dockerfile.slim"
    file.write_bytes(LATIN)
    more = ("--dockerfile", file, "--runtime", "scratch")
    assert cli("recommend", app, *more, "-o", output).status == 0
    made = output.read_bytes()
    assert made.startswith(LATIN.replace(b"FROM debian", b"FROM debian AS builder"))
    assert cli("recommend", app, *more, "--format", "dockerfile").stdout == made
    assert cli("recommend", app, *more, "--format", "dockerfile", "-o", "-").stdout == made
    assert json.loads(cli("recommend", app, *more, "--format", "json").stdout)["dockerfile"] == made.decode(
        errors="replace"
    )
    done = cli("recommend", app, *more, "--write")
    assert done.status == 0
    assert done.text.endswith(f"kept the old one as {file}.bak\nwrote {file}\n")
    assert file.read_bytes() == made
    assert file.with_name("Dockerfile.bak").read_bytes() == LATIN
    assert {path.name for path in tmp_path.glob("*ockerfile*")} == {
        "Dockerfile",
        "Dockerfile.bak",
        "Dockerfile.slim",
    }


def test_no_backup_is_written_over(cli: CommandLine, app: str, tmp_path: Path) -> None:
    file = tmp_path / "Dockerfile"
    file.with_name("Dockerfile.bak").write_text("precious\n")
    file.write_bytes(LATIN)
    for _ in range(2):
        file.write_bytes(LATIN)
        assert cli("recommend", app, "--dockerfile", file, "--runtime", "scratch", "--write").status == 0
        assert file.with_name("Dockerfile.bak").read_text() == "precious\n"
        assert file.with_name("Dockerfile.bak.2").read_bytes() == LATIN
    assert not file.with_name("Dockerfile.bak.3").exists()


def test_json_goes_out_and_the_dockerfile_is_replaced(cli: CommandLine, app: str, tmp_path: Path) -> None:
    file, output = tmp_path / "Dockerfile", tmp_path / "plan.json"
    file.write_bytes(LATIN)
    done = cli("recommend", app, "--dockerfile", file, "--write", "--format", "json", "-o", output)
    assert (done.status, done.stdout) == (0, b"")
    assert json.loads(output.read_text())["dockerfile"] == file.read_bytes().decode(errors="replace")


def test_nothing_to_gain_gives_the_file_back(
    cli: CommandLine, save: Callable[..., str], tmp_path: Path
) -> None:
    archive = save([{"/srv/app": File(mode=0o755, data=b"x" * 500_000)}], {"Cmd": ["/srv/app"]}, HISTORY[1:2])
    text = b"# gr\xfc\xdfe\r\nFROM scratch\r\nCOPY app /srv/app"
    file, output = tmp_path / "Dockerfile", tmp_path / "out"
    file.write_bytes(text)
    done = cli("recommend", archive, "--dockerfile", file, "-o", output)
    assert done.status == 0
    assert "Nothing to gain  500 kB → 500 kB on scratch (0 % less)" in done.text
    assert output.read_bytes() == text
    done = cli("recommend", archive, "--dockerfile", file, "--write")
    assert done.text.endswith(f"{file} stays as it is\n")
    assert file.read_bytes() == text
    assert not file.with_name("Dockerfile.bak").exists()


def test_generated_lines_keep_to_the_escape_directive(
    cli: CommandLine, save: Callable[..., str], tmp_path: Path
) -> None:
    odd = "/srv/it's `50$"
    archive = save(
        [{odd: program(), "/srv/big": File(data=b"x" * 3_000_000)}],
        {"Cmd": [odd], "Env": ["PATH=/bin", "A=a`b$c d", "B=c:\\x"], "WorkingDir": "/srv"},
        ("COPY . /srv # buildkit",),
    )
    file = tmp_path / "Dockerfile"
    file.write_text("# escape=`\nFROM scratch\nCOPY . `\n  /srv\n")
    more = ("--runtime", "scratch", "--format", "dockerfile")
    done = cli("recommend", archive, "--dockerfile", file, "--force", *more)
    assert done.status == 0, done.stderr
    last = parse(decode(done.stdout)).stages[-1]
    from e2b_dockerfile_utils import ShellLex

    lexer = ShellLex("`", env={}, skip_unset_env=False)
    for instruction in last.instructions:
        if instruction.keyword == "COPY":
            assert lexer.process_word(instruction.words[0]) == odd
        if instruction.keyword == "ENV":
            words = [lexer.process_word(word) for word in instruction.words]
            assert dict(zip(words[::2], words[1::2], strict=True))["A"] == "a`b$c d"
            assert dict(zip(words[::2], words[1::2], strict=True))["B"] == "c:\\x"
    assert {"COPY", "ENV", "CMD"} <= {instruction.keyword for instruction in last.instructions}


# --- files of several stages ------------------------------------------------------------------------------

STAGES = """FROM debian AS base
COPY app /srv/app
FROM base AS tools
FROM base AS run
COPY --from=other/image big /srv/big
CMD ["/srv/app"]

# the others start this
FROM tools AS debug
CMD ["/bin/true"]
"""


def test_the_target_alone_is_improved(cli: CommandLine, app: str, tmp_path: Path) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text(STAGES)
    done = cli("recommend", app, "--dockerfile", file, "--runtime", "scratch", "--format", "dockerfile")
    assert done.status == 0, done.stderr
    before, after = done.text.split("FROM scratch AS run\n")
    assert before == STAGES[: STAGES.index("\n# the others")].replace("AS run", "AS run-builder") + "\n"
    assert after.endswith(STAGES[STAGES.index("\n# the others") :])
    assert "--from=run-builder" in after
    assert "/srv/app" in after
    assert "/srv/big" not in after


# --- what the last stage forgot ---------------------------------------------------------------------------

FORGETFUL = """FROM node:18 AS builder
WORKDIR /app
COPY package*.json ./
RUN npm ci
COPY . .
RUN npm run build

FROM node:18-slim
WORKDIR /app
COPY --from=builder --chown=node /app/dist ./dist
CMD ["node", "dist/server.js"]
"""


def forgetful(save: Callable[..., str]) -> str:
    return save(
        [
            {"/usr/local/bin/node": program()},
            {"/app": Dir()},
            {"/app/dist/server.js": File(data=b'import express from "express";\nexpress().listen(3000);\n')},
        ],
        {"Cmd": ["node", "dist/server.js"], "WorkingDir": "/app"},
        (
            "RUN base",
            "WORKDIR /app",
            "COPY --chown=node /app/dist ./dist # buildkit",
            'CMD ["node" "dist/server.js"]',
        ),
    )


def test_what_was_forgotten_is_copied(cli: CommandLine, save: Callable[..., str], tmp_path: Path) -> None:
    archive, file, output = forgetful(save), tmp_path / "Dockerfile", tmp_path / "out"
    file.write_text(FORGETFUL)
    done = cli("recommend", archive, "--dockerfile", file, "-o", output)
    assert done.status == 0, done.stderr
    told = " ".join(done.text.split())
    assert (
        '/app/dist/server.js line 1: import "express" finds nothing: forgotten is COPY --from=builder '
        "--chown=node /app/node_modules /app/node_modules" in told
    )
    assert output.read_text() == FORGETFUL.replace(
        "COPY --from=builder --chown",
        "COPY --from=builder --chown=node /app/node_modules /app/node_modules\n"
        "COPY --from=builder --chown=node /app/package.json /app/package.json\n"
        "COPY --from=builder --chown",
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("RUN npm ci\n", ""),
        ("RUN npm ci", "RUN npm install -g typescript"),
        ("RUN npm ci", "RUN cd web && npm ci"),
        ("RUN npm ci", "WORKDIR /elsewhere\nRUN npm ci\nWORKDIR /app"),
    ],
)
def test_only_what_a_stage_is_proved_to_have_is_copied(
    cli: CommandLine, save: Callable[..., str], tmp_path: Path, old: str, new: str
) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text(FORGETFUL.replace(old, new))
    done = cli("recommend", forgetful(save), "--dockerfile", file, "--format", "json")
    document = json.loads(done.stdout)
    assert "node_modules" not in document["dockerfile"].replace("/elsewhere/node_modules", "")
    assert any(one["code"] == "missing-module" for one in document["diagnostics"])


# --- on the corpus's images -------------------------------------------------------------------------------


@pytest.fixture
def private(cli: CommandLine) -> CommandLine:
    """The command line with the corpus's own engine."""
    if os.geteuid() != 0:
        pytest.skip("the corpus's private engine needs root")
    from corpuskit.engine import environment

    cli.environment.update({name: environment()[name] for name in ("DOCKER_HOST",)})
    return cli


@pytest.mark.engine
@pytest.mark.slow
def test_the_guides_three_stages_are_mended_and_answer(private: CommandLine, tmp_path: Path) -> None:
    from corpuskit import build, cases, engine, probe

    case = cases.load_case("three-stages")
    build.build_case(case, print)
    context = build.prepared_context(case, case.context_hash(), print)
    file, output = case.folder / "Dockerfile.forgotten", tmp_path / "Dockerfile.mended"
    tags = [case.tag("forgotten"), case.tag("mended")]
    try:
        for dockerfile, tag in zip((file, output), tags, strict=True):
            if dockerfile == output:
                told = private("recommend", tags[0], "--dockerfile", file, "-o", output, timeout=300)
                assert told.status == 0, told.stderr
                shown = " ".join(told.text.split())
                assert '/app/dist/server.js line 1: import "@hono/node-server" finds nothing' in shown
                assert "forgotten is COPY --from=builder /app/node_modules /app/node_modules" in shown
            command = ["docker", "build", "--network=host", "--rm", "--force-rm", "--tag", tag, "--file"]
            status = build.run_build([*command, str(dockerfile)], context, tag, tmp_path / "log")
            assert status == 0, build.tail(tmp_path / "log")
            checks = probe.run_probe(tag, case.probe())
            assert all(check.passed for check in checks) == (dockerfile == output), checks
        added = [
            line for line in output.read_text().splitlines() if line not in file.read_text().splitlines()
        ]
        assert [line.split()[0] for line in added] == ["COPY", "COPY"]
    finally:
        engine.docker("image", "rm", "--force", *tags, check=False)


@pytest.mark.engine
@pytest.mark.slow
def test_what_is_slim_already_comes_back_as_it_was(private: CommandLine, tmp_path: Path) -> None:
    from corpuskit import build, cases

    case = cases.load_case("already-slim")
    build.build_case(case, print)
    file, output = case.folder / "Dockerfile", tmp_path / "Dockerfile.slim"
    done = private("recommend", case.tag("single"), "--dockerfile", file, "-o", output, timeout=300)
    assert done.status == 0, done.stderr
    assert output.read_bytes() == file.read_bytes()
    assert re.match(r"\nNothing to gain  \d+ MB → \d+ MB on node:18-\S*slim \([\d.]+ % less\)\n", done.text)


@pytest.mark.engine
@pytest.mark.slow
def test_a_careful_file_of_several_stages_comes_back_as_it_was(private: CommandLine, tmp_path: Path) -> None:
    """Its target is neither its last stage nor all that it has, and another image is copied from."""
    from corpuskit import build, cases

    case = cases.load_case("three-stages")
    build.build_case(case, print)
    file, output = case.folder / "Dockerfile.multistage", tmp_path / "Dockerfile.slim"
    done = private("recommend", case.tag("multistage"), "--dockerfile", file, "-o", output, timeout=300)
    assert done.status == 0, done.stderr
    text, made = file.read_text(), output.read_text()
    if "Nothing to gain" in done.text:
        assert made == text
    else:  # what it gains is gained at its target alone
        assert made.startswith(text[: text.index("AS runner")])
        assert made.endswith(text[text.index("# what the others") :])
        assert (
            "AS runner-builder" in made and "COPY --from=layerlens-corpus/three-stages-static:latest" in made
        )


def test_what_goes_beside_a_dockerfile_has_a_name_that_reaches_the_build_context(tmp_path: Path) -> None:
    from layerlens.cli import is_left_out, name_beside

    target = tmp_path / "Dockerfile.slim"
    assert name_beside(target) == "Dockerfile.slim"
    (tmp_path / ".dockerignore").write_text("Dockerfile*\n")
    assert name_beside(target) == "slim.Dockerfile.slim"
    (tmp_path / ".dockerignore").write_text("*Dockerfile*\n")
    assert name_beside(target) == "slim"
    (tmp_path / ".dockerignore").write_text("*\n!src\n")
    assert name_beside(target) == "Dockerfile.slim" and is_left_out(target, "Dockerfile.slim.paths")
