"""What scripts run and read: at command positions, along all branches, with the values that are known."""

from __future__ import annotations

import shutil
import subprocess
import textwrap
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from imagekit import Member, Symlink
from needskit import codes, kept_files, needs, program

from layerlens.graph import Needs

TOOLS = """
    env java dirname basename node npm python gunicorn grep sort date id sed xargs gosu nginx find rm gzip xz curl
"""


def bin_files(*more: str) -> dict[str, Member]:
    """A PATH with a shell and programs in it."""
    return {f"/usr/bin/{name}": program() for name in ("dash", "bash", *TOOLS.split(), *more)} | {
        "/bin": Symlink(target="usr/bin"),
        "/usr/bin/sh": Symlink(target="dash"),
    }


def run(script: str, *args: str, more: dict[str, Member] | None = None, **config: object) -> Needs:
    """The needs of an image whose entrypoint is the script /entry.sh."""
    members = bin_files() | {"/entry.sh": program("#!/bin/sh\n" + textwrap.dedent(script))} | (more or {})
    return needs(members, entrypoint=["/entry.sh"], cmd=list(args), **config)  # type: ignore[arg-type]


def tools(found: Needs) -> set[str]:
    """The names of the kept programs but the shells themselves."""
    names = {path.removeprefix("/usr/bin/") for path in found.kept if path.startswith("/usr/bin/")}
    return names - {"dash", "sh", "bash"}


def test_only_command_positions_count() -> None:
    found = run(
        """
        echo "run curl and sed to grep" sort date
        # xargs node
        case "$1" in
            python|nginx) id ;;
            *) rm -f curl ;;
        esac
        cat <<EOF
        gzip $(date) npm
        EOF
        if grep -q node /etc/x; then sort </dev/null | sed s/python/curl/; fi
        """
    )
    assert tools(found) == {"id", "rm", "date", "grep", "sort", "sed"}


def test_a_line_of_sh_c() -> None:
    found = needs(bin_files(), cmd=["/bin/sh", "-c", "exec gunicorn --bind :80 app:app"])
    assert tools(found) == {"gunicorn"}
    assert [edge.evidence for edge in found.chain("/usr/bin/gunicorn")][
        -1
    ] == "-c: gunicorn --bind :80 app:app"


def test_combined_options_and_further_operands() -> None:
    found = needs(bin_files(), cmd=["bash", "-euxo", "pipefail", "-c", 'exec "$0" "$@"', "node", "app.js"])
    assert tools(found) == {"node"}


def test_exec_of_the_arguments() -> None:
    found = run('set -e\nid\nexec "$@"\n', "gunicorn", "app:app")
    assert tools(found) == {"id", "gunicorn"}
    edge = found.kept["/usr/bin/gunicorn"]
    assert (edge.source, edge.evidence, edge.kind) == ("/entry.sh", "line 4: gunicorn app:app", "command")


def test_the_official_node_entrypoint() -> None:
    script = """
        if [ "${1#-}" != "${1}" ] || [ -z "$(command -v "${1}")" ] || { [ -f "${1}" ] && ! [ -x "${1}" ]; }; then
          set -- node "$@"
        fi
        exec "$@"
    """
    commands = {edge.evidence for edge in run(script, "npm", "start").edges if edge.target == "/usr/bin/npm"}
    assert commands == {"line 6: npm start"}
    assert {e.evidence for e in run(script, "-v").edges if e.target == "/usr/bin/node"} == {"line 6: node -v"}


def test_case_narrows_its_subject_to_literal_patterns() -> None:
    found = run(
        """
        libdir=${HARVEST_LIB:-/usr/local/lib/harvest}
        command=${1:---help}
        case $command in
            report | page)
                . "$libdir/$command.sh"
                "harvest_$command" "$@" ;;
            gz) packer=gzip ;;
            *) packer=xz ;;
        esac
        "$packer" -c
        """,
        "--help",
        more={
            "/usr/local/lib/harvest/report.sh": b"harvest_report() { sort; }\n",
            "/usr/local/lib/harvest/page.sh": b'harvest_page() { . "$libdir/deep.sh"; curl; }\n',
            "/usr/local/lib/harvest/deep.sh": b"grep x\n",
            "/usr/local/lib/harvest/other.sh": b"python\n",
        },
    )
    assert tools(found) == {"sort", "curl", "grep", "gzip", "xz"}
    assert "/usr/local/lib/harvest/other.sh" not in found.kept
    assert found.kept["/usr/local/lib/harvest/deep.sh"].source == "/usr/local/lib/harvest/page.sh"


def test_a_computed_file_in_a_known_folder_is_any_that_fits() -> None:
    more: dict[str, Member] = {
        "/opt/app/steps/a.sh": b"sort\n",
        "/opt/app/steps/b.sh": b"curl\n",
        "/opt/app/steps/c.txt": b"grep\n",
    }
    found = run('read step; . "/opt/app/steps/$step.sh"', more=more)
    assert tools(found) == {"sort", "curl"}


def test_scripts_of_a_folder_that_is_looped_over() -> None:
    script = """
        if /usr/bin/find "/docker-entrypoint.d/" -mindepth 1 -type f -print -quit | read v; then
            find "/docker-entrypoint.d/" -follow -type f -print | sort -V | while read -r f; do
                case "$f" in
                    *.envsh) if [ -x "$f" ]; then . "$f"; fi ;;
                    *.sh) if [ -x "$f" ]; then "$f"; fi ;;
                    *) echo "ignoring $f" ;;
                esac
            done
        fi
        exec "$@"
    """
    more: dict[str, Member] = {
        "/docker-entrypoint.d/10-default.sh": program("#!/bin/sh\nsed -i x\n"),
        "/docker-entrypoint.d/15-local.envsh": program("#!/bin/sh\ndate\n"),
        "/docker-entrypoint.d/README": b"curl\n",
    }
    found = run(script, "nginx", more=more)
    assert tools(found) == {"find", "sort", "sed", "date", "nginx"}
    assert "/docker-entrypoint.d/README" not in found.kept or not tools(found) & {"curl"}
    loop = run('for f in /docker-entrypoint.d/*.sh; do [ -x "$f" ] && "$f"; done', more=more)
    assert tools(loop) == {"sed"}


def test_values_and_folders_are_followed() -> None:
    found = run(
        """
        APP_HOME=$(cd "$(dirname "$0")/opt/.." && pwd -P)
        [ -n "$JAVA" ] || JAVA="$APP_HOME/opt/jre/bin/java"
        cd "$APP_HOME/opt/jre" || exit 1
        exec "$JAVA" $OPTS -jar lib/app.jar
        """,
        more={"/opt/jre/bin/java": program(), "/opt/jre/lib/app.jar": b"PK"},
        env={"OPTS": "-Xmx1g -Dconf=/etc/app.conf"},
    )
    assert {"/opt/jre/bin/java", "/opt/jre/lib/app.jar"} <= found.kept.keys()
    line = "line 6: /opt/jre/bin/java -Xmx1g -Dconf=/etc/app.conf -jar lib/app.jar"
    assert line in {edge.evidence for edge in found.edges if edge.target == "/opt/jre/bin/java"}


def test_path_that_a_script_sets_finds_its_programs() -> None:
    found = run('export PATH="/opt/x/bin:$PATH"\nhello', more={"/opt/x/bin/hello": program()})
    assert "/opt/x/bin/hello" in found.kept


def test_functions_with_arguments_arrays_traps_and_eval() -> None:
    found = run(
        """
        main() { "$@"; }
        tidy() { rm -rf "$work"; }
        trap 'tidy; curl' EXIT
        eval "date --utc"
        cmd=(env LANG=C); cmd+=(sort)
        main node app.js
        "${cmd[@]}" x
        unused() { xz; }
        """
    )
    assert tools(found) == {"rm", "curl", "date", "node", "env", "sort", "xz"}


def test_words_and_redirections_that_name_files() -> None:
    more: dict[str, Member] = {
        "/etc/app.conf": b"",
        "/etc/other.conf": b"",
        "/opt/x.awk": b"",
        "/in": b"",
        "/etc/default/app": b"export MODE=fast\n",
        "/var/log/app/old.log": b"",
    }
    found = run(
        """
        [ -f /etc/default/app ] && . /etc/default/app
        CONF=/etc/app.conf
        sed -f /opt/x.awk < /in > /var/log/app/new.log
        exec nginx --conf="$CONF"
        """,
        more=more,
    )
    assert {"/etc/app.conf", "/opt/x.awk", "/in", "/etc/default/app", "/var/log/app"} <= found.kept.keys()
    assert not {"/etc/other.conf", "/var/log/app/old.log"} & found.kept.keys()


def test_what_cannot_be_known_is_said_once() -> None:
    found = run('read a; "$a" x\n$(date) y\n')
    said = [d for d in found.diagnostics if d.code == "computed-command"]
    assert len(said) == 1 and said[0].path == "/entry.sh" and said[0].severity == "info"
    assert "line 2" in said[0].message and "$a" in said[0].message


def test_bad_input_is_a_diagnostic() -> None:
    assert "shell-syntax" in codes(run("date\nif then ( ;; fi\n"))
    assert "script-not-found" in codes(needs(bin_files(), cmd=["sh", "/gone.sh"]))
    assert "interactive-shell" in codes(needs(bin_files(), cmd=["bash"]))
    deep = "$(" * 3000 + ")" * 3000
    assert run("date\necho " + deep).kept
    assert run('. "$0"\nf() { f; g; }\ng() { f; }\nf\n').kept
    assert tools(run("x=$x$x$x$x\n" * 200 + "date\n")) == {"date"}


def test_binary_in_place_of_a_script() -> None:
    members = bin_files() | {"/x.sh": bytes(range(256)) * 40}
    assert needs(members, cmd=["sh", "/x.sh"]).kept


@given(st.text(alphabet="ab$@{}()\"'`;|&<>\n \\-=*[]!#/~x1", max_size=120))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_script_escapes(text: str) -> None:
    assert "/entry.sh" in kept_files(run(text, "a", "b"))


CASES = [
    ('set -- a b c; shift; exec node "$@"', []),
    ('x=${1%.js}; node "${x##*/}.mjs"', ["/srv/app.js"]),
    ('f() { node "$2" "$1"; }; f one \'two words\'', []),
    ('for i in 1 2; do node "v$i"; done', []),
    ('node "${UNSET:-default}" "${1:+given}" ${EMPTY} "$#"', ["x"]),
    ("node $'a\\tb' \"q\\\"q\" 'r\\r' a\\ b", []),
    ('node "$(basename /a/b.c .c)" "$(dirname /a/b.c)"', []),
    ("A='1 2'; node $A \"$A\"", []),
    ('node "${1:0:1}" "${1/b/x}"', ["abc"]),
]


@pytest.mark.skipif(shutil.which("bash") is None, reason="the oracle is bash itself")
@pytest.mark.parametrize(("script", "args"), CASES)
def test_words_are_what_bash_makes_of_them(script: str, args: list[str], tmp_path: Path) -> None:
    tool = tmp_path / "node"
    tool.write_text('#!/bin/sh\nprintf "%s" "$0"; printf "\\037%s" "$@"; echo\n')
    tool.chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", script, "entry", *args],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    expected = {tuple(line.split("\037")[1:]) for line in done.stdout.splitlines()}
    members = bin_files("basename", "dirname") | {"/usr/bin/node": program("#!/usr/bin/python\n")}
    found = needs(members, cmd=["bash", "-c", script, "entry", *args])
    seen = {key[2] for key in found._commands_seen if key[0] == "/usr/bin/node"}
    assert seen == expected
