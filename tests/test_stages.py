"""Plans as Dockerfiles; the shell lines among them are run by a real shell."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from imagekit import DIR, Dir, File, Hardlink, Member, Symlink
from plankit import RUN, base_of, config, needs_of, plan_of
from test_plan import BIG, DEBIAN, LIBRARY, installed, many

from layerlens import dockerfile
from layerlens.plan import FEW_LINES, Plan
from layerlens.runtime import Base, catalogued
from layerlens.stages import LONGEST_INLINE, STAGING, Written, written

GATHERS: dict[str, Member] = {**DEBIAN, "/usr/bin/tar": RUN}


def lines_of(plan: Plan, text: str | None = None, **how: str) -> Written:
    source = None if text is None else dockerfile.parse(text)
    target = None if source is None else source.stages[-1]
    made = written(plan, "app:1", source=source, target=target, **how)
    dockerfile.parse(made.text)  # what is written can be read
    return made


def runtime_stage(made: Written) -> list[str]:
    return made.text[made.text.rindex("\nFROM ") + 1 :].splitlines()


def app(members: dict[str, Member] | None = None, base: Base | None = None, **values: object) -> Plan:
    image = {**DEBIAN, "/app/run": RUN, "/opt/left": BIG, **(members or {})}
    return plan_of(needs_of(image, made=config(**values)), base or base_of(DEBIAN))


def test_the_builder_is_the_image_where_no_dockerfile_is_given() -> None:
    made = lines_of(app(WorkingDir="/app", ExposedPorts={"80/tcp": {}}))
    assert made.text.splitlines() == [
        "FROM app:1 AS builder",
        "",
        "FROM slim:1",
        "COPY --from=builder /app /app",
        "WORKDIR /app",
        "EXPOSE 80",
        'CMD ["/app/run"]',
    ]
    ((line, copy),) = made.copies
    assert line == "COPY --from=builder /app /app" and copy.size_bytes == 64 and made.files == ()


def test_the_users_own_file_becomes_the_builder() -> None:
    made = lines_of(app(), "# syntax=docker/dockerfile:1\nFROM debian\nCOPY . /app\n")
    assert made.text.startswith("# syntax=docker/dockerfile:1\nFROM debian AS builder\nCOPY . /app\n")
    assert "COPY --from=builder /app /app" in runtime_stage(made)


def test_with_nothing_to_gain_the_file_comes_back() -> None:
    plan = plan_of(needs_of({**DEBIAN, "/app/run": RUN}), base_of({**DEBIAN, "/x": BIG}))
    assert plan.nothing_to_gain
    assert lines_of(plan, "FROM debian\nCOPY . /app\n").text == "FROM debian\nCOPY . /app\n"


def test_the_order_is_packages_accounts_copies_attributes_configuration() -> None:
    image: dict[str, Member] = {
        **DEBIAN,
        "/etc/passwd": b"root:x:0:0::/:/bin/sh\napp:x:999:999::/srv:/bin/sh\n",
        "/app/run": File(data=RUN.data, mode=0o755, uid=999, gid=999),
        "/app/up/": Dir(mode=0o1777),
        "/app/link": Symlink(target="run"),
        "/app/left": BIG,
        **installed(libone=("", {"/usr/lib/libone.so": LIBRARY})),
    }
    needs = needs_of(
        image,
        keep=["/app/up", "/app/link", "/usr/lib/libone.so"],
        made=config(User="app", Env=["PATH=/bin", "A=b c"]),
    )
    stage = "\n".join(runtime_stage(lines_of(plan_of(needs, base_of(DEBIAN)))))
    wanted = [
        "RUN apt-get update",
        "RUN echo app:x:999:999::/srv:/bin/sh >> /etc/passwd",
        "COPY --from=builder --chown=999:999 /app/run /app/",
        "RUN mkdir -p /app \\\n && ln -sfn run /app/link \\\n && mkdir -p /app/up \\\n && chmod 1777 /app/up",
        'A="b c"',
        "USER app",
        'CMD ["/app/run"]',
    ]
    places = [stage.find(text) for text in wanted]
    assert -1 not in places and places == sorted(places), stage


def test_a_directory_is_trimmed_in_a_stage_of_its_own() -> None:
    modules = many(FEW_LINES + 4)
    image: dict[str, Member] = {**DEBIAN, "/usr/bin/find": RUN, "/app/run": RUN, **modules}
    keep = [path for path in modules if path.endswith(".js")]
    plan = plan_of(needs_of(image, keep=keep, made=config(User="5")), base_of(DEBIAN))
    text = lines_of(plan, "FROM debian AS pruned\nCOPY . /app\nUSER 5\n").text
    assert "FROM pruned AS pruned2\nUSER root\nRUN rm -rf \\\n    /app/node_modules/p00/cdn \\\n" in text
    assert "RUN find /app -type f \\( -name '*.map' \\) -delete\n\nFROM slim:1\n" in text
    assert "COPY --from=pruned2 /app /app\n" in text


def test_folders_that_go_by_their_name() -> None:
    modules: dict[str, Member] = {
        path.replace("/cdn/", "/test/").replace("p09", "p[9]"): data for path, data in many(12).items()
    }
    image: dict[str, Member] = {**DEBIAN, "/usr/bin/find": RUN, "/app/run": RUN, **modules}
    keep = [path for path in modules if path.endswith(".js")] + ["/app/node_modules/p[9]/test/big"]
    text = lines_of(plan_of(needs_of(image, keep=keep), base_of(DEBIAN))).text
    but = r"! -path '/app/node_modules/p\[9\]/test'"
    assert f"RUN find /app -type d \\( -name test \\) {but} -prune -exec rm -rf {{}} +\n" in text


def test_what_packages_bring_for_tests_alone_goes_in_the_same_layer() -> None:
    tests: dict[str, Member] = {f"/usr/lib/python3/dist-packages/np/tests/t{n}.py": BIG for n in range(2)}
    image = {
        **DEBIAN,
        "/app/run": RUN,
        **installed(np=("", {"/usr/lib/python3/dist-packages/np/core.so": LIBRARY, **tests})),
    }
    plan = plan_of(needs_of(image, keep=["/usr/lib/python3/dist-packages/np/core.so"]), base_of(DEBIAN))
    (run,) = [step for step in re.split(r"(?<!\\)\n", lines_of(plan).text) if "apt-get" in step]
    assert run.endswith("&& rm -rf \\\n        /usr/lib/python3/dist-packages/np/tests")


def test_libraries_below_usr_local_are_made_known_to_the_loader() -> None:
    image: dict[str, Member] = {**DEBIAN, "/app/run": RUN, "/usr/local/lib/libx.so.1": b"\x7fELF"}
    needs = needs_of(image, keep=["/usr/local/lib/libx.so.1"])
    edge = needs.kept["/usr/local/lib/libx.so.1"]
    needs.kept[edge.target] = type(edge)("/app/run", edge.target, "needed", "NEEDED libx.so.1", "certain")
    has = base_of({**DEBIAN, "/sbin/ldconfig": RUN})
    assert "RUN ldconfig" in runtime_stage(lines_of(plan_of(needs, has)))
    assert "ldconfig" not in lines_of(plan_of(needs, base_of(DEBIAN))).text


def test_the_bases_own_entrypoint_does_not_run_before_the_command() -> None:
    stage = runtime_stage(lines_of(app(base=base_of(DEBIAN, Entrypoint=["/start"], Cmd=["x"]))))
    assert stage[-2:] == ["ENTRYPOINT []", 'CMD ["/app/run"]']


def test_a_base_that_runs_as_somebody_is_root_while_it_is_built() -> None:
    stage = runtime_stage(lines_of(app(base=base_of(DEBIAN, User="nobody"))))
    assert stage[1] == "USER root" and "USER root" in stage[2:]


def test_accounts_of_a_base_that_nobody_has_seen_are_added_where_they_lack() -> None:
    base = catalogued("debian:bookworm-slim")
    members: dict[str, Member] = {"/etc/passwd": b"root:x:0:0::/:/bin/sh\napp:x:9:0::/:/bin/sh\n"}
    stage = "\n".join(runtime_stage(lines_of(app(members, base, User="app"))))
    line = "{ grep -q '^app:' /etc/passwd || echo app:x:9:0::/:/bin/sh >> /etc/passwd; }"
    assert f"RUN {line}" in stage and "root:x" not in stage


# --- scratch ----------------------------------------------------------------------------------------------


def test_scratch_with_a_short_list() -> None:
    made = lines_of(plan_of(needs_of({**GATHERS, "/app/run": RUN}, made=config(User="7")), None))
    assert made.files == () and f"FROM builder AS staging\nUSER root\nRUN mkdir {STAGING}" in made.text
    assert "        app \\\n        app/run \\\n        etc \\\n" in made.text
    assert f"\nFROM scratch\nCOPY --from=staging {STAGING} /\n" in made.text
    assert made.text.endswith('USER 7\nCMD ["/app/run"]\n')


def test_scratch_with_a_list_beside_the_dockerfile() -> None:
    data: dict[str, Member] = {f"/app/d{n:03}": b"d" for n in range(LONGEST_INLINE)}
    plan = plan_of(needs_of({**GATHERS, "/app/run": RUN, **data}, keep=list(data)), None)
    made = lines_of(plan, name="Dockerfile.slim")
    ((name, text),) = made.files
    assert name == "Dockerfile.slim.paths"
    assert set(text.split()) >= {"app", "app/run", "app/d039", "etc/passwd"}
    assert text.split() == sorted(text.split()) and "COPY Dockerfile.slim.paths" in made.text


def test_without_a_tar_every_folder_is_a_copy_and_a_second_name_is_none() -> None:
    image: dict[str, Member] = {**DEBIAN, "/app/run": RUN, "/app/again": Hardlink(target="/app/run")}
    stage = runtime_stage(lines_of(plan_of(needs_of(image), None)))
    assert "COPY --from=builder /app/run /app/" in stage and not any("again" in line for line in stage)


def test_names_that_are_taken_are_not_taken_again() -> None:
    made = lines_of(
        plan_of(needs_of({**GATHERS, "/app/run": RUN}), None), "FROM debian AS staging\nCOPY . /app\n"
    )
    assert "FROM staging AS staging2\n" in made.text and "COPY --from=staging2" in made.text


def test_a_files_own_escape_continues_what_is_added() -> None:
    plan = plan_of(needs_of({**GATHERS, "/app/run": RUN}), None)
    made = lines_of(plan, "# escape=`\nFROM debian\nCOPY . /app\n")
    assert f"RUN mkdir {STAGING} `\n && printf '%s\\n' `\n" in made.text


# --- by the shell -----------------------------------------------------------------------------------------

STRANGE = ["/app/it's", "/app/two\nlines", "/app/back\\slash", "/app/a\udcffb", "/app/$HOME `x`", "/-x"]


@pytest.mark.skipif(shutil.which("tar") is None, reason="no tar on this machine")
@pytest.mark.parametrize("count", [0, LONGEST_INLINE])
def test_the_gathering_step_gathers_strange_names_too(tmp_path: Path, count: int) -> None:
    members: dict[str, Member] = {path: path.encode("utf-8", "surrogateescape") for path in STRANGE}
    members |= {f"/app/n{number}": b"n" for number in range(count)}
    plan = plan_of(needs_of({**GATHERS, "/app/run": RUN, **members}, keep=list(members)), None)
    made = lines_of(plan)
    root, out = tmp_path / "root", tmp_path / "out"
    for path in plan.needs.kept:
        if plan.fs.is_dir(path):
            (root / path[1:]).mkdir(parents=True, exist_ok=True)
    for path in plan.needs.kept:
        if plan.fs.is_file(path):
            (root / path[1:]).parent.mkdir(parents=True, exist_ok=True)
            (root / path[1:]).write_bytes(plan.fs.read(path))
    step = next(s for s in re.split(r"(?<!\\)\n", made.text) if s.startswith("RUN mkdir"))
    command = step.removeprefix("RUN ").replace("\\\n", " ").replace("-C /", f"-C {root}/", 1)
    command = command.replace(f"-C {root}/ ", f"-C {root} ").replace(STAGING, str(out))
    for _, text in made.files:
        Path(f"{out}.paths").write_text(text)
    result = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, timeout=20)
    assert result.returncode == 0, result.stderr
    for path in plan.needs.kept:
        if plan.fs.is_file(path):
            assert (out / path[1:]).read_bytes() == plan.fs.read(path), path


def test_made_things_are_made_as_they_were(tmp_path: Path) -> None:
    image: dict[str, Member] = {
        **DEBIAN,
        "/app/run": RUN,
        "/app/left": BIG,
        "/app/it's a dir/": Dir(mode=0o1777),
        "/app/two\nlines/": DIR,
        "/app/to": Symlink(target="it's a dir"),
    }
    keep = ["/app/it's a dir", "/app/two\nlines", "/app/to"]
    text = lines_of(plan_of(needs_of(image, keep=keep), base_of(DEBIAN))).text
    step = next(s for s in re.split(r"(?<!\\)\n", text) if "ln -sfn" in s)
    command = step.removeprefix("RUN ").replace("\\\n", " ").replace("/app", f"{tmp_path}/app")
    octal = "".join(f"\\{byte:03o}" for byte in b"/app/two\nlines")
    command = command.replace(
        octal, "".join(f"\\{byte:03o}" for byte in f"{tmp_path}/app/two\nlines".encode())
    )
    subprocess.run(["/bin/sh", "-c", command], check=True, timeout=20)
    assert (tmp_path / "app/it's a dir").stat().st_mode & 0o7777 == 0o1777
    assert (tmp_path / "app/two\nlines").is_dir()
    assert (tmp_path / "app/to").readlink() == Path("it's a dir")
