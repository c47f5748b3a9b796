"""The corpus: its files are well formed, its harness works, and the hand-written twins are as careful as they claim.

What is careful is written down here as plain rules over the files of the built image, independent of what layerlens
itself calls a compiler, a header or a cache.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from corpuskit import archives, cases, engine, probe, report, trace  # noqa: E402
from corpuskit import build as builds  # noqa: E402
from corpuskit.errors import CorpusError  # noqa: E402

NAMES = sorted(folder.parent.name for folder in cases.CASES.glob("*/Dockerfile"))
GUIDES = ("node-express", "go-static", "python-flask-user", "react-nginx")
BUILT_HERE = (*GUIDES, "already-slim", "shell-tool", "three-stages")


# --- the cases on disk ------------------------------------------------------------------------------------


def test_the_guides_four_are_marked() -> None:
    marked = {case.guide: case.name for case in cases.load_cases() if case.guide}
    assert marked == dict(zip(("node", "go", "python", "react"), GUIDES, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_case_is_well_formed(name: str) -> None:
    case = cases.load_case(name)
    asked = case.probe()
    assert len(asked.http) + len(asked.execs) >= 3, "a probe that asks for less exercises only start-up"
    assert all(check.contains or check.status != 200 for check in asked.http[:1])
    for dockerfile in cases.DOCKERFILES.values():
        assert case.bases(dockerfile) or "FROM scratch" in case.dockerfile(dockerfile)
    stages = re.findall(r"(?im)^FROM ", case.dockerfile("Dockerfile"))
    assert len(stages) == 1, "the first Dockerfile is written in one stage"
    assert len(re.findall(r"(?im)^FROM ", case.dockerfile("Dockerfile.multistage"))) >= 2


@cache
def base_tags() -> set[str]:
    listed = subprocess.run(
        [str(ROOT / "scripts" / "engine"), "base", "--list"], capture_output=True, text=True, check=True
    ).stdout
    return {word for line in listed.splitlines() for word in line.partition(" - ")[0].split()}


@pytest.mark.parametrize("name", NAMES)
def test_every_base_can_be_built_from_nothing(name: str) -> None:
    """A base that is only there because somebody built it once is missing on the next machine."""
    case = cases.load_case(name)
    wanted = {
        engine.tagged(base) for dockerfile in cases.DOCKERFILES.values() for base in case.bases(dockerfile)
    }
    assert wanted <= base_tags()


def test_ports_are_unique() -> None:
    owners: dict[int, str] = {}
    for case in cases.load_cases():
        for port in {check.port for check in case.probe().http}:
            assert owners.setdefault(port, case.name) == case.name, f"{port} is in {owners[port]} too"


@pytest.mark.parametrize("name", NAMES)
def test_case_names_no_registry_and_no_download(name: str) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", f"tests/corpus/{name}"], cwd=ROOT, capture_output=True, check=True
    )
    for file in filter(None, listed.stdout.decode().split("\0")):
        path = ROOT / file
        if not path.is_file():
            continue
        text = path.read_text(errors="replace").replace(
            "http://maven.apache.org/POM/", ""
        )  # a name, no address
        if path.name == "package-lock.json":
            assert '"resolved": "http' not in text, f"{file} records download addresses"
        found = re.search(
            r"https?://[\w.-]*(registry|mirror|proxy|pypi|crates|maven|rubygems|packagist)[\w.-]*", text
        )
        assert found is None, f"{file} names {found[0]}"


def test_no_such_case_lists_what_there_is() -> None:
    with pytest.raises(CorpusError, match=r"no case named nodeexpress; there are: .*node-express"):
        cases.load_case("nodeexpress")


def test_external_images() -> None:
    dockerfile = """
# FROM comment
ARG VERSION=18
FROM --platform=linux/amd64 node:${VERSION} AS Deps
COPY --from=ghost/image:1 \\
     /a /b
FROM deps AS builder
COPY --from=deps /x /y
COPY --from=0 /x /y
FROM scratch
COPY --from=builder /x /y
"""
    assert cases.external_images(dockerfile) == ["node:18", "ghost/image:1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "checks nothing"),
        ("[run]\nports = [1]\n[[exec]]", "unknown key ports"),
        ('[run]\nnetwork = "bridge"\n[[exec]]', "network is 'bridge'"),
        ('[run]\nnetwork = "none"\n[[http]]\nport = 1\npath = "/"', "cannot reach"),
        ("[[exec]", "probe.toml"),
    ],
)
def test_bad_probe(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "probe.toml").write_text(text)
    with pytest.raises(CorpusError, match=message):
        cases.load_probe(tmp_path / "probe.toml", "app")


def test_context_leaves_out_what_the_harness_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "CASES", tmp_path)
    folder = tmp_path / "app"
    for file in (
        "Dockerfile",
        "Dockerfile.multistage",
        "probe.toml",
        "observed.txt",
        "src/probe.toml",
        "node_modules/a",
    ):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("x")
    case = cases.load_case("app")
    assert [relative for relative, _ in case.app_files()] == ["src/probe.toml"]
    before = case.context_hash()
    (folder / "observed.txt").write_text("other")
    assert case.context_hash() == before
    (folder / "src/probe.toml").write_text("other")
    assert case.context_hash() != before


# --- what a trace makes of its records --------------------------------------------------------------------


def tree(**more: trace.Node) -> trace.Tree:
    nodes = {
        "/usr": trace.Node("d"),
        "/usr/lib": trace.Node("d"),
        "/lib": trace.Node("l", target="usr/lib"),
        "/usr/lib/libz.so.1.2": trace.Node("f", 100),
        "/usr/lib/libz.so.1": trace.Node("l", target="libz.so.1.2"),
        "/usr/lib/libz.so": trace.Node("l", target="libz.so.1.2"),
        "/usr/lib/again": trace.Node("f", target="/usr/lib/libz.so.1.2"),
        "/loop": trace.Node("l", target="/loop"),
        "/etc": trace.Node("d"),
        "/etc/hosts": trace.Node("f", 10),
        "/up": trace.Node("l", target="../../usr/./lib/../lib/libz.so"),
    }
    made = trace.Tree()
    made.nodes.update(nodes)
    return made


@pytest.mark.parametrize(
    ("path", "follow", "links", "end"),
    [
        ("/lib/libz.so.1", True, ["/lib", "/usr/lib/libz.so.1"], "/usr/lib/libz.so.1.2"),
        ("/lib/libz.so.1", False, ["/lib", "/usr/lib/libz.so.1"], "/usr/lib/libz.so.1"),
        ("/up", True, ["/up", "/usr/lib/libz.so"], "/usr/lib/libz.so.1.2"),
        ("/usr//lib/./libz.so.1.2", True, [], "/usr/lib/libz.so.1.2"),
        ("/lib/nothing", True, ["/lib"], None),
        ("/", True, [], "/"),
    ],
)
def test_resolve(path: str, follow: bool, links: list[str], end: str | None) -> None:
    assert tree().resolve(path, follow) == (links, end)


def test_resolve_ends_in_a_loop() -> None:
    assert tree().resolve("/loop/x", True)[1] is None


def test_observe_keeps_files_of_the_image_and_the_links_walked() -> None:
    seen = trace.observe(
        tree(),
        [
            b"O/usr/lib/libz.so.1.2",
            b"O/usr/lib/again",  # the same payload by another name
            b"O/usr/lib",  # a folder that was listed
            b"O/tmp/made-at-run-time",
            b"O/etc/hosts",  # the engine's
            b"F/lib/libz.so.1",
            b"N/loop",
            b"N/usr/lib/libz.so.1.2",
        ],
    )
    assert seen.paths == {"/lib", "/usr/lib/libz.so.1", "/usr/lib/libz.so.1.2", "/usr/lib/again"}
    assert seen.size_bytes == 100
    assert seen.looked_at == {"/loop"}


def test_observe_leaves_out_the_hosts_own_authorities() -> None:
    nodes = tree()
    host = "/usr/local/share/ca-certificates/company.crt"
    nodes.nodes.update(
        {
            path: trace.Node("d")
            for path in ("/usr/local", "/usr/local/share", "/usr/local/share/ca-certificates")
        }
    )
    nodes.nodes |= {host: trace.Node("f", 9), "/etc/company.pem": trace.Node("l", target=host)}
    records = [b"O" + host.encode(), b"F/etc/company.pem", b"O/usr/lib/libz.so.1.2"]
    seen = trace.observe(nodes, records)
    assert (seen.paths, seen.size_bytes) == ({"/usr/lib/libz.so.1.2"}, 100)


def test_no_trace_names_the_hosts_authorities() -> None:
    for case in cases.load_cases():
        assert trace.HOST_AUTHORITIES not in (case.folder / "observed.txt").read_text(errors="replace"), (
            case.name
        )


def test_observe_counts_a_link_that_was_read() -> None:
    records = [b"O/usr/lib/libz.so.1.2", b"N/usr/lib/libz.so"]
    assert "/usr/lib/libz.so" in trace.observe(tree(), records).paths
    assert trace.observe(tree(), records[1:]).paths == frozenset()


# --- the report -------------------------------------------------------------------------------------------


def test_megabytes() -> None:
    assert [report.megabytes(size) for size in (None, 1_234_567, 12_345_678, 123_456_789, 1_234_567_890)] == [
        "–",
        "1.23 MB",
        "12.3 MB",
        "123 MB",
        "1,235 MB",
    ]


def test_report_goes_between_the_markers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = tmp_path / "README.md"
    monkeypatch.setattr(report, "README", readme)
    monkeypatch.setattr(report, "REPORT", tmp_path / "REPORT.md")
    row = report.Row(
        cases.load_case("node-express"),
        {"single": 1_000_000_000, "multistage": 200_000_000},
        100_000_000,
        50,
        {"single": "passed (9)", "multistage": "1 failed"},
    )
    readme.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.write_report([row])
    text = readme.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert "| node-express |" in text and "80.0 %" in text and "1 GB → 200 MB, 80 %" in text
    assert report.COMMAND in (tmp_path / "REPORT.md").read_text()
    assert not row.complete
    readme.write_text("no markers\n")
    report.write_report([row])
    assert readme.read_text() == "no markers\n"


# --- careful twins ----------------------------------------------------------------------------------------

COMPILERS = re.compile(
    r"/(?:(?:[\w.]+-)*(?:gcc|g\+\+|cpp|clang|ld|as|gfortran)(?:-\d+)?|cc|c\+\+|cc1(?:plus)?|collect2|lto1|make|cmake|ninja|meson"
    r"|rustc|cargo|javac|mvn|go|gofmt|tsc|autoconf|automake|libtool)$"
)
HEADERS = re.compile(r"\.(?:h|hh|hpp|hxx|inc\.h|pxd|pyx)$")
OBJECTS = re.compile(r"\.(?:a|o|la|gch)$")
CACHES = re.compile(
    r"/\.npm/|/_cacache/|/\.cache/(?:pip|yarn|go-build|node-gyp|bazel|composer|pnpm|uv|pypoetry)/|/\.yarn/cache/"
    r"|^/var/cache/apt/.+|^/var/lib/apt/lists/.+|/go/pkg/mod/|/\.cargo/registry/|/\.m2/repository/"
    r"|/usr/local/bundle/cache/|/\.bundle/cache/|/gems/[^/]+/cache/[^/]+\.gem$|/\.composer/cache/|/\.gem/specs/|^/tmp/.+"
)
VCS = re.compile(r"/\.(?:git|hg|svn|bzr)(?:/|$)")
DEVELOPMENT_PYTHON = {
    "pytest",
    "mypy",
    "black",
    "flake8",
    "ruff",
    "cython",
    "coverage",
    "tox",
    "ipython",
    "pylint",
    "hypothesis",
}
DEVELOPMENT_RUBY = {"rspec", "rspec-core", "rubocop", "minitest-reporters", "pry", "byebug", "guard"}
DEVELOPMENT_PHP = {
    "phpunit/phpunit",
    "phpstan/phpstan",
    "squizlabs/php_codesniffer",
    "friendsofphp/php-cs-fixer",
}


def final_base(case: cases.Case, dockerfile: str, target: str) -> str:
    """The image that the built stage starts from, through the stages it builds on."""
    stages: dict[str, str] = {}
    reference = ""
    for line in case.dockerfile(dockerfile).splitlines():
        words = line.split()
        if words[:1] == ["FROM"]:
            reference = stages.get(words[1].lower(), words[1])
            if len(words) == 4:
                stages[words[3].lower()] = reference
    return stages[target] if target else reference


@cache
def files_of(image: str) -> frozenset[str]:
    """Every file and link of an image, as the engine exports it."""
    nodes = trace.image_tree(image).nodes
    return frozenset(path for path, node in nodes.items() if node.kind in "fl")


def development_packages(case: cases.Case, files: frozenset[str]) -> Iterator[str]:
    """Packages in the image that only development needs, by the app's own lockfile or by name."""
    lockfile = case.folder / "package-lock.json"
    locked = json.loads(lockfile.read_text())["packages"] if lockfile.exists() else {}
    development = {key for key, package in locked.items() if package.get("dev")}
    for path in files:
        if match := re.fullmatch(r"(?!/usr/local/lib/)/.*?/?(node_modules/.+)/package\.json", path):
            if match[1] in development:
                yield path
        elif match := re.search(r"/site-packages/([^/]+?)-[^/-]+\.(?:dist|egg)-info/METADATA$", path):
            if match[1].lower().replace("_", "-") in DEVELOPMENT_PYTHON:
                yield path
        elif match := re.search(r"/specifications/(.+)-[\d.]+\.gemspec$", path):
            if match[1] in DEVELOPMENT_RUBY:
                yield path
        elif (match := re.search(r"/vendor/([^/]+/[^/]+)/composer\.json$", path)) and match[
            1
        ] in DEVELOPMENT_PHP:
            yield path


def carelessness(case: cases.Case, image: str, base: str) -> dict[str, list[str]]:
    """Rule → files of an image that break it. A compiler counts wherever it comes from, the rest beyond the base."""
    files = files_of(image)
    ours = files - (files_of(base) if base != "scratch" else frozenset())
    rules: dict[str, Callable[[str], object]] = {
        "headers": HEADERS.search,
        "objects": OBJECTS.search,
        "caches": CACHES.search,
        "version control": VCS.search,
    }
    found = {rule: [path for path in ours if breaks(path)] for rule, breaks in rules.items()}
    found["compilers"] = [
        path for path in files if COMPILERS.search(path) and "/bash-completion/" not in path
    ]
    found["development"] = list(development_packages(case, files))
    allowed = [note.path for note in case.careful_allow]
    kept = {
        rule: sorted(path for path in paths if not any(fnmatchcase(path, pattern) for pattern in allowed))
        for rule, paths in found.items()
    }
    return {rule: paths[:10] for rule, paths in kept.items() if paths}


def twin_carelessness(case: cases.Case) -> dict[str, list[str]]:
    base = final_base(case, "Dockerfile.multistage", case.targets["multistage"])
    return carelessness(case, case.tag("multistage"), base)


@pytest.fixture(autouse=True)
def private_engine(request: pytest.FixtureRequest) -> None:
    """The corpus is built in an engine of its own, whatever engine the other tests use; that takes root."""
    if request.node.get_closest_marker("engine") and os.geteuid() != 0:
        pytest.skip("the corpus's private engine needs root")


@pytest.fixture(scope="module")
def built() -> Callable[[str], cases.Case]:
    """Builds a case once, or says why not."""

    @cache
    def once(name: str) -> cases.Case:
        case = cases.load_case(name)
        builds.build_case(case, print)
        return case

    return once


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.parametrize("name", BUILT_HERE)
def test_both_images_pass_the_probe(name: str, built: Callable[[str], cases.Case]) -> None:
    case = built(name)
    for variant in cases.VARIANTS:
        checks = probe.run_probe(case.tag(variant), case.probe())
        assert [check for check in checks if not check.passed] == [], variant
        assert len(checks) >= 3


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.parametrize("name", BUILT_HERE)
def test_twin_is_careful(name: str, built: Callable[[str], cases.Case]) -> None:
    assert twin_carelessness(built(name)) == {}


@pytest.mark.engine
@pytest.mark.slow
def test_every_other_twin_that_is_built_here_is_careful() -> None:
    others = [case for case in cases.load_cases() if case.name not in BUILT_HERE]
    there = [case for case in others if engine.inspect_image(case.tag("multistage")) is not None]
    found = {case.name: twin_carelessness(case) for case in there}
    assert {name: rules for name, rules in found.items() if rules} == {}


@pytest.mark.engine
@pytest.mark.slow
def test_the_rules_find_what_a_single_stage_leaves(built: Callable[[str], cases.Case]) -> None:
    case = built("node-express")
    found = carelessness(case, case.tag("single"), "scratch")
    assert set(found) >= {"compilers", "headers", "objects", "caches", "development"}


@pytest.mark.engine
@pytest.mark.slow
def test_twins_are_smaller(built: Callable[[str], cases.Case]) -> None:
    for name in BUILT_HERE:
        case = built(name)
        single, multistage = (engine.inspect_image(case.tag(variant)) or {} for variant in cases.VARIANTS)
        if case.slim_already:
            assert multistage["Size"] >= 0.9 * single["Size"], "something was to gain after all"
        else:
            assert multistage["Size"] < 0.4 * single["Size"]
            assert 0.6e9 < single["Size"] < 2.5e9


@pytest.mark.engine
@pytest.mark.slow
def test_a_second_build_finds_everything_there(built: Callable[[str], cases.Case]) -> None:
    assert all(image.cached for image in builds.build_case(built("already-slim"), print))


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.parametrize("name", ["already-slim", "shell-tool"])
def test_two_traces_agree_and_so_does_what_is_written(name: str, built: Callable[[str], cases.Case]) -> None:
    case = built(name)
    image = case.tag("single")
    filesystem = trace.image_tree(image)
    first, second = (trace.trace_image(image, case, filesystem)[0].paths for _ in range(2))
    assert len(first & second) >= 0.99 * len(first | second)
    text = (case.folder / "observed.txt").read_text()
    written = {line for line in text.splitlines() if line.startswith("/")}
    # another point release of Debian may name a library or two otherwise
    assert len(written & (first | second)) >= 0.95 * len(written | first | second)
    assert trace.read_observed(case) == (len(written), int(re.search(r"# bytes: (\d+)", text)[1]))  # type: ignore[index]


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.parametrize("name", ["already-slim", "python-flask-user"])
def test_what_was_observed_suffices(name: str, built: Callable[[str], cases.Case], tmp_path: Path) -> None:
    """An image of nothing but the files that were opened or looked at passes the probe: a trace misses nothing.

    Looked at: CPython asks whether os.py is there to find its home, and whether a module's source is as old as
    its bytecode, and opens neither.
    """
    case = built(name)
    image = case.tag("single")
    seen = trace.trace_image(image, case, trace.image_tree(image))[0]
    needed = (
        seen.paths | seen.looked_at | {"/etc/passwd", "/etc/group"}
    )  # the runtime's own, for USER and HOME
    container = engine.docker("create", image, "-").stdout.strip()
    tag = f"layerlens-corpus-test/{name}:observed"
    try:
        with (tmp_path / "all.tar").open("wb") as archive:
            subprocess.run(
                ["docker", "export", container], env=engine.environment(), stdout=archive, check=True
            )
        with (
            tarfile.open(tmp_path / "all.tar", errors="surrogateescape") as whole,
            tarfile.open(tmp_path / "observed.tar", "w", errors="surrogateescape") as kept,
        ):
            for member in whole:
                path = "/" + member.name.strip("/")
                if member.isdir():
                    kept.addfile(member)
                elif path in needed:
                    content = whole.extractfile(member) if member.isfile() or member.islnk() else None
                    if member.islnk():  # its first name may be left out, so it becomes a file of its own
                        member.size = whole.getmember(member.linkname).size
                        member.type = tarfile.REGTYPE
                    kept.addfile(member, content)
        config = (engine.inspect_image(image) or {})["Config"]
        changes = [
            f"ENTRYPOINT {json.dumps(config['Entrypoint'] or [])}",
            f"CMD {json.dumps(config['Cmd'] or [])}",
        ]
        changes += [
            f"ENV {name}={json.dumps(value)}" for name, _, value in (e.partition("=") for e in config["Env"])
        ]
        changes += [f"WORKDIR {config['WorkingDir']}"] if config["WorkingDir"] else []
        changes += [f"USER {config['User']}"] if config["User"] else []
        options = [part for change in changes for part in ("--change", change)]
        engine.docker("import", *options, str(tmp_path / "observed.tar"), tag)
        checks = probe.run_probe(tag, case.probe())
        assert [check for check in checks if not check.passed] == []
    finally:
        engine.docker("rm", "--force", "--volumes", container, check=False)
        engine.docker("image", "rm", "--force", tag, check=False)


@pytest.mark.engine
def test_the_engines_size_is_the_payload_of_the_layers(built: Callable[[str], cases.Case]) -> None:
    image = built("already-slim").tag("single")
    with subprocess.Popen(
        ["docker", "save", image], env=engine.environment(), stdout=subprocess.PIPE
    ) as saved:
        total = 0
        with tarfile.open(fileobj=saved.stdout, mode="r|") as archive:
            for member in archive:
                if member.isfile() and (layer := archive.extractfile(member)) is not None:
                    try:
                        with tarfile.open(fileobj=layer, mode="r|") as inner:
                            total += sum(entry.size for entry in inner if entry.isfile())
                    except tarfile.ReadError:
                        continue  # the config and the manifest
    size = (engine.inspect_image(image) or {})["Size"]
    assert abs(total - size) <= 0.002 * size


@pytest.mark.engine
def test_a_failed_build_says_which_and_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "CASES", tmp_path)
    monkeypatch.setattr(builds, "STATE", tmp_path / "state")
    folder = tmp_path / "zz-broken"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY forgotten /\n")
    with pytest.raises(CorpusError, match=r"zz-broken:single: Dockerfile does not build(.|\n)*forgotten"):
        builds.build_case(cases.load_case("zz-broken"), print)
    (folder / "Dockerfile").write_text("FROM no-such-base:1\n")
    with pytest.raises(CorpusError, match="no base image no-such-base:1"):
        builds.build_case(cases.load_case("zz-broken"), print)
    (folder / "prepare.sh").write_text("echo fetching >&2; exit 3\n")
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    with pytest.raises(CorpusError, match=r"prepare.sh failed \(exit 3\)(.|\n)*fetching"):
        builds.build_case(cases.load_case("zz-broken"), print)


@pytest.mark.engine
def test_a_failing_probe_says_how_and_leaves_no_container(
    tmp_path: Path, built: Callable[[str], cases.Case]
) -> None:
    image = built("already-slim").tag("single")
    (tmp_path / "probe.toml").write_text(
        """
        [run]
        env = { PORT = "18106" }
        [[http]]
        port = 18106
        path = "/status"
        contains = "nobody says this"
        [[exec]]
        command = ["node", "-e", "process.exit(7)"]
        exit_status = 3
        [[exec]]
        command = ["node", "-e", "console.log(process.versions.node)"]
        contains = ["18."]
        """
    )
    checks = probe.run_probe(image, cases.load_probe(tmp_path / "probe.toml", "app"))
    assert [check.passed for check in checks] == [False, True, False, True]
    assert "lacks ['nobody says this']" in checks[0].detail
    assert "exit 7 instead of 3" in checks[2].detail
    label = f"label={probe.PROBE_LABEL}={os.getpid()}"
    assert engine.docker("ps", "--all", "--quiet", "--filter", label).stdout == ""


@pytest.mark.engine
def test_a_taken_port_is_not_mistaken_for_the_app(tmp_path: Path, built: Callable[[str], cases.Case]) -> None:
    image = built("already-slim").tag("single")
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        port = server.server_port
        (tmp_path / "probe.toml").write_text(f'[[http]]\nport = {port}\npath = "/"\n')
        with pytest.raises(CorpusError, match=f"port {port} on 127.0.0.1 is taken"):
            probe.run_probe(image, cases.load_probe(tmp_path / "probe.toml", "app"))
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.engine
def test_a_program_that_ends_or_never_answers_fails(
    tmp_path: Path, built: Callable[[str], cases.Case]
) -> None:
    image = built("already-slim").tag("single")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for script, message in (
        ("console.error('oh no'); process.exit(1)", "oh no"),
        ("setInterval(() => 0, 1000)", "no answer within 2 s"),
    ):
        (tmp_path / "probe.toml").write_text(
            f'[run]\nargs = ["node", "-e", {json.dumps(script)}]\n[wait]\ntimeout_s = 2\n'
            f'[[http]]\nport = {port}\npath = "/"\n'
        )
        checks = probe.run_probe(image, cases.load_probe(tmp_path / "probe.toml", "app"))
        assert not checks[0].passed and message in checks[0].detail


def test_archives_give_way_the_least_recently_used_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for use, name in enumerate(("new", "old", "middle")):
        archive = tmp_path / f"{name}.tar"
        archive.write_bytes(b"x" * 100)
        os.utime(archive, (0, (3, 1, 2)[use]))
    (tmp_path / "other.txt").write_text("not an archive")

    def usage(folder: Path) -> object:
        return SimpleNamespace(free=1000 - sum(path.stat().st_size for path in folder.glob("*.tar")))

    monkeypatch.setattr(archives.shutil, "disk_usage", usage)
    archives.make_room(tmp_path, 700)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "middle.tar",
        "new.tar",
        "old.tar",
        "other.txt",
    ]
    archives.make_room(tmp_path, 850)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.tar", "other.txt"]
    archives.make_room(tmp_path, 2000)
    assert [path.name for path in tmp_path.iterdir()] == ["other.txt"]
