"""Histories of well-known images, as their configs record them, and configs that nobody should write."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerlens.errors import InvalidImageError
from layerlens.history import NOT_RECORDED, dockerfile_line, instructions, parse_config
from layerlens.model import Instruction

Entry = dict[str, Any]


def config(history: list[Entry] | None, **more: Any) -> Any:
    return parse_config(
        json.dumps({"os": "linux", "architecture": "amd64", "history": history, **more}).encode()
    )


def read(history: list[Entry], layers: int | None = None) -> tuple[Instruction, ...]:
    count = sum(not entry.get("empty_layer") for entry in history) if layers is None else layers
    found, diagnostics = instructions(config(history), count)
    assert diagnostics == []
    return found


def yours(history: list[Entry]) -> list[str]:
    """Text of what is not the base's."""
    return [instruction.text for instruction in read(history) if not instruction.from_base]


def classic(text: str, day: str = "2023-06-12T04:01:00Z") -> Entry:
    """An entry of Docker's classic builder."""
    keyword = text.partition(" ")[0]
    if keyword == "RUN":
        return {"created": day, "created_by": f"/bin/sh -c {text[4:]}"}
    layered = keyword in ("COPY", "ADD", "WORKDIR")
    entry: Entry = {"created": day, "created_by": f"/bin/sh -c #(nop) {'' if layered else ' '}{text}"}
    return entry if layered else {**entry, "empty_layer": True}


def buildkit(text: str, day: str = "2024-02-07T12:00:00Z") -> Entry:
    """An entry of BuildKit."""
    entry: Entry = {"created": day, "created_by": text, "comment": "buildkit.dockerfile.v0"}
    keyword = text.partition(" ")[0]
    if keyword == "RUN":
        entry["created_by"] = f"RUN /bin/sh -c {text[4:]} # buildkit"
    elif keyword in ("COPY", "ADD"):
        entry["created_by"] = f"{text} # buildkit"
    elif keyword != "WORKDIR":
        entry["empty_layer"] = True
    return entry


ROOTFS = "ADD file:4eb3ee0cd3f8fd4c4d9e0f0c7e4dc3a1cbf8ae8d5d4fa67a3cfa3ed5da1ab16c in / "
DEBUERREOTYPE = {
    "created": "2024-01-31T00:00:00Z",
    "created_by": "# debian.sh --arch 'amd64' out/ 'bookworm' '@1706659200'",
    "comment": "debuerreotype 0.15",
}

# docker-library/repo-info has the histories of the official images; cut to what matters.
NODE_18 = [
    classic(ROOTFS),
    classic('CMD ["bash"]'),
    classic("RUN apt-get update && apt-get install -y --no-install-recommends \t\tca-certificates \t\tcurl"),
    classic("RUN set -ex; \tapt-get update; \tapt-get install -y --no-install-recommends \t\tautoconf"),
    classic(
        "RUN groupadd --gid 1000 node   && useradd --uid 1000 --gid node --shell /bin/bash --create-home node"
    ),
    classic("ENV NODE_VERSION=18.16.0"),
    classic('RUN ARCH= && dpkgArch="$(dpkg --print-architecture)"   && case "${dpkgArch##*-}" in     amd64)'),
    classic("ENV YARN_VERSION=1.22.19"),
    classic("COPY file:4d192565a7220e135cab6c77fbc1c73211b69f3d9fb37e62857b2c6eb9363d51 in /usr/local/bin/ "),
    classic('ENTRYPOINT ["docker-entrypoint.sh"]'),
    classic('CMD ["node"]'),
]
GOLANG = [
    DEBUERREOTYPE,
    buildkit(
        "RUN set -eux; \tapt-get update; \tapt-get install -y --no-install-recommends \t\tca-certificates"
    ),
    buildkit("RUN set -eux; \tapt-get update; \tapt-get install -y --no-install-recommends \t\tg++ \t\tgcc"),
    buildkit("ENV GOLANG_VERSION=1.22.0"),
    buildkit("ENV GOPATH=/go"),
    buildkit("COPY /target/ /"),
    buildkit('RUN mkdir -p "$GOPATH/src" "$GOPATH/bin" && chmod -R 1777 "$GOPATH"'),
    buildkit("WORKDIR /go"),
]
RUST = [
    *GOLANG[:3],
    buildkit("ENV RUSTUP_HOME=/usr/local/rustup CARGO_HOME=/usr/local/cargo RUST_VERSION=1.75.0"),
    buildkit('RUN set -eux;     dpkgArch="$(dpkg --print-architecture)"'),
]
NGINX = [
    DEBUERREOTYPE,
    buildkit("LABEL maintainer=NGINX Docker Maintainers <docker-maint@nginx.com>"),
    buildkit("ENV NGINX_VERSION=1.27.3"),
    buildkit("RUN set -x     && groupadd --system --gid 101 nginx"),
    buildkit("COPY docker-entrypoint.sh /"),
    buildkit('ENTRYPOINT ["/docker-entrypoint.sh"]'),
    buildkit("EXPOSE map[80/tcp:{}]"),
    buildkit("STOPSIGNAL SIGQUIT"),
    buildkit('CMD ["nginx" "-g" "daemon off;"]'),
]
PYTHON = [
    DEBUERREOTYPE,
    buildkit("ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/bin:/sbin:/bin"),
    buildkit("RUN set -eux; \tapt-get update"),
    buildkit("ENV PYTHON_VERSION=3.11.8"),
    buildkit("RUN set -eux; \t\twget -O python.tar.xz"),
    buildkit('CMD ["python3"]'),
]
POSTGRES = [
    *PYTHON[:3],
    buildkit("ENV PG_MAJOR=16"),
    buildkit("RUN set -ex; \t\texport PYTHONDONTWRITEBYTECODE=1"),
    buildkit("VOLUME [/var/lib/postgresql/data]"),
    buildkit("COPY docker-entrypoint.sh docker-ensure-initdb.sh /usr/local/bin/"),
    buildkit('ENTRYPOINT ["docker-entrypoint.sh"]'),
    buildkit("STOPSIGNAL SIGINT"),
    buildkit("EXPOSE map[5432/tcp:{}]"),
    buildkit('CMD ["postgres"]'),
]
LATER = "2024-03-01T09:00:00Z"


# --- lines ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("created_by", "line"),
    [
        # the classic builder
        (f"/bin/sh -c #(nop) {ROOTFS}", "ADD … /"),
        (
            "/bin/sh -c #(nop) COPY dir:8ba7f7cc9b5dd6ac5dc6c1d0b3cbe3b6e1a6f7e1e1c7f0b6c7f6e5d4c3b2a190 in /app ",
            "COPY … /app",
        ),
        (
            "/bin/sh -c #(nop) COPY --chown=node:node multi:8ba7f7cc9b5dd6ac5dc6c1d0b3cbe3b6e1a6f7e1 in ./ ",
            "COPY --chown=node:node … ./",
        ),
        ("/bin/sh -c #(nop) COPY file:8ba7f7cc9b5dd6ac5dc6c1 in /a dir/b ", "COPY … /a dir/b"),
        ('/bin/sh -c #(nop)  CMD ["node"]', 'CMD ["node"]'),
        ('/bin/sh -c #(nop)  CMD ["node" "a \\"b\\".js"]', 'CMD ["node", "a \\"b\\".js"]'),
        ('/bin/sh -c #(nop)  CMD ["/bin/sh" "-c" "npm start"]', "CMD npm start"),
        ("/bin/sh -c #(nop)  CMD []", "CMD []"),
        ('/bin/sh -c #(nop)  ENTRYPOINT ["/bin/sh" "-c" "exec java $OPTS"]', "ENTRYPOINT exec java $OPTS"),
        ("/bin/sh -c npm ci", "RUN npm ci"),
        ("/bin/sh -c set -x \t&& make  -j4 'a  b' \t&& true", "RUN set -x && make -j4 'a  b' && true"),
        ("|2 A=1 B=two words /bin/sh -c npm ci", "RUN npm ci"),
        ("|1 A=/bin/x /bin/bash -c make", "RUN make"),
        ("/bin/bash -o pipefail -c curl x | sh", "RUN curl x | sh"),
        ("/bin/bash -euxo pipefail -c curl x | sh", "RUN curl x | sh"),
        ("/bin/ash -eo pipefail -c apk add x", "RUN apk add x"),
        (
            "/bin/sh -c #(nop)  SHELL [/bin/bash -o pipefail -c]",
            'SHELL ["/bin/bash", "-o", "pipefail", "-c"]',
        ),
        ("/bin/sh -c #(nop) WORKDIR /app", "WORKDIR /app"),
        ("/bin/sh -c #(nop)  USER [node]", "USER node"),
        ("/bin/sh -c #(nop)  EXPOSE 80/tcp 443/tcp", "EXPOSE 80/tcp 443/tcp"),
        ("/bin/sh -c #(nop)  VOLUME [/data /logs]", "VOLUME /data /logs"),
        ("/bin/sh -c #(nop)  ENV A=1", "ENV A=1"),
        ("/bin/sh -c #(nop)  ONBUILD COPY . /app", "ONBUILD COPY . /app"),
        (
            '/bin/sh -c #(nop)  HEALTHCHECK &{["CMD-SHELL" "kong health"] "10s" "10s" "0s" \'\\n\'}',
            "HEALTHCHECK --interval=10s --timeout=10s --retries=10 CMD kong health",
        ),
        # BuildKit
        ("RUN /bin/sh -c npm ci # buildkit", "RUN npm ci"),
        ("RUN |2 A=1 B= /bin/sh -c npm ci # buildkit", "RUN npm ci"),
        ("RUN |1 A=hello there /bin/bash -o pipefail -c make # buildkit", "RUN make"),
        ("RUN npm ci # buildkit", "RUN npm ci"),
        ("RUN |1 A=1 npm ci # buildkit", "RUN npm ci"),
        ("RUN /bin/sh -c <<EOF (apt-get update...) # buildkit", "RUN <<EOF (apt-get update...)"),
        ("COPY . /app # buildkit", "COPY . /app"),
        ("COPY --chown=node:node package.json ./ # buildkit", "COPY --chown=node:node package.json ./"),
        (
            "ADD alpine-minirootfs-3.20.3-x86_64.tar.gz / # buildkit",
            "ADD alpine-minirootfs-3.20.3-x86_64.tar.gz /",
        ),
        ("WORKDIR /app", "WORKDIR /app"),
        ("EXPOSE map[8000/tcp:{} 8443/tcp:{}]", "EXPOSE 8000/tcp 8443/tcp"),
        ("EXPOSE [8080/tcp]", "EXPOSE 8080/tcp"),
        ("VOLUME [/var/lib/postgresql/data]", "VOLUME /var/lib/postgresql/data"),
        ('CMD ["nginx" "-g" "daemon off;"]', 'CMD ["nginx", "-g", "daemon off;"]'),
        (
            'HEALTHCHECK &{["CMD" "curl" "-f" "http://x/"] "0s" "3s" "0s" "0s" \'\\x03\'}',
            'HEALTHCHECK --timeout=3s --retries=3 CMD ["curl", "-f", "http://x/"]',
        ),
        ('HEALTHCHECK &{["NONE"] "0s" "0s" "0s" "0s" \'\\x00\'}', "HEALTHCHECK NONE"),
        # buildah writes CMD as JSON; kaniko writes the line itself
        (
            '/bin/sh -c #(nop) CMD ["/usr/sbin/httpd", "-DFOREGROUND"]',
            'CMD ["/usr/sbin/httpd", "-DFOREGROUND"]',
        ),
        ("RUN addgroup -S nonroot", "RUN addgroup -S nonroot"),
        ("COPY manager .", "COPY manager ."),
        # what no Dockerfile made
        ("bazel build ...", "bazel build ..."),
        ("apko", "apko"),
        ("# debian.sh --arch 'amd64' out/ 'bookworm' '@1706659200'",) * 2,
    ],
)
def test_lines_are_what_a_person_wrote(created_by: str, line: str) -> None:
    assert dockerfile_line(created_by) == line


def test_what_has_no_command_is_told_by_its_comment() -> None:
    assert dockerfile_line(None, "Imported from -") == "Imported from -"
    assert dockerfile_line(None, None) == dockerfile_line("", " ") == NOT_RECORDED
    assert dockerfile_line("ko build ko://example.com/app", "go build output, at /ko-app/app") == (
        "ko build ko://example.com/app (go build output, at /ko-app/app)"
    )
    assert dockerfile_line("jib-maven-plugin:3.4.0", "classes") == "jib-maven-plugin:3.4.0 (classes)"


def test_the_shell_that_SHELL_sets_is_taken_off() -> None:
    history = [
        buildkit("SHELL [/opt/microsoft/pwsh -Exec ByPass]"),
        {"created_by": "RUN /opt/microsoft/pwsh -Exec ByPass Get-Item x # buildkit"},
        {"created_by": "RUN |1 A=b c /opt/microsoft/pwsh -Exec ByPass Get-Item y # buildkit"},
    ]
    assert [instruction.text for instruction in read(history)] == [
        'SHELL ["/opt/microsoft/pwsh", "-Exec", "ByPass"]',
        "RUN Get-Item x",
        "RUN Get-Item y",
    ]


@given(st.text(max_size=300), st.one_of(st.none(), st.text(max_size=30)))
def test_any_text_gives_a_line(created_by: str, comment: str | None) -> None:
    assert dockerfile_line(created_by, comment)


@pytest.mark.parametrize(
    "text",
    [
        "RUN |1 " + "/a" * 500_000,
        "x  " + '"\\"' * 300_000,
        "CMD [" + '"\\"' * 300_000,
        "RUN |9 " + " /bin/sh -a" * 50_000,
        "HEALTHCHECK &{[" + "]" * 500_000,
        "HEALTHCHECK &{[]" + ' "0s"' * 200_000,
        "COPY" + " --a" * 200_000,
        "x  " + "'" * 500_001,
    ],
)
def test_long_text_takes_time_in_proportion(text: str, time_limit: Any) -> None:
    time_limit(20)
    assert dockerfile_line(text)


# --- layers -----------------------------------------------------------------------------------------------


def test_entries_are_matched_to_layers_in_order() -> None:
    found = read(NODE_18)
    assert [instruction.layer for instruction in found] == [0, None, 1, 2, 3, None, 4, None, 5, None, None]
    assert [instruction.index for instruction in found] == list(range(len(NODE_18)))
    assert found[0].created == "2023-06-12T04:01:00Z" and found[0].comment is None
    assert found[2].created_by == NODE_18[2]["created_by"]


@pytest.mark.parametrize("layers", [0, 5, 7])
def test_where_the_numbers_differ_nothing_is_matched(layers: int) -> None:
    found, diagnostics = instructions(config(NODE_18), layers)
    assert all(instruction.layer is None for instruction in found)
    assert [diagnostic.code for diagnostic in diagnostics] == ["history-mismatch"]
    assert f"6 layers and the image has {layers}" in diagnostics[0].message


def test_no_history_is_said() -> None:
    found, diagnostics = instructions(config(None), 3)
    assert found == () and [diagnostic.code for diagnostic in diagnostics] == ["no-history"]


def test_entries_may_lack_everything() -> None:
    history = [
        {},
        {"created": 7, "created_by": ["x"], "comment": None},
        {"created_by": "", "empty_layer": False},
    ]
    assert [(instruction.text, instruction.layer, instruction.created) for instruction in read(history)] == [
        (NOT_RECORDED, 0, None),
        (NOT_RECORDED, 1, None),
        (NOT_RECORDED, 2, None),
    ]


# --- the base ---------------------------------------------------------------------------------------------


MINE = [
    buildkit("WORKDIR /app", LATER),
    buildkit("COPY package.json ./", LATER),
    buildkit("RUN npm ci", LATER),
    buildkit('CMD ["node" "server.js"]', LATER),
]
MINE_TEXTS = ["WORKDIR /app", "COPY package.json ./", "RUN npm ci", 'CMD ["node", "server.js"]']


@pytest.mark.parametrize(
    "base",
    [NODE_18, GOLANG, RUST, NGINX, PYTHON, POSTGRES],
    ids=["node", "golang", "rust", "nginx", "python", "postgres"],
)
def test_official_bases_end_where_yours_begins(base: list[Entry]) -> None:
    assert yours(base + MINE) == MINE_TEXTS


def test_a_base_of_the_same_builder_in_the_same_minute_still_ends_at_its_command() -> None:
    mine = [
        classic("COPY dir:8ba7f7cc9b5dd6ac5dc6c1d0b3cbe3b6 in /app "),
        classic("RUN npm ci"),
        classic('CMD ["x"]'),
    ]
    assert yours(NODE_18 + mine) == ["COPY … /app", "RUN npm ci", 'CMD ["x"]']


def test_a_change_of_builder_is_a_boundary() -> None:
    alpine = [classic(ROOTFS), classic("RUN apk add nodejs"), classic("ENV X=1")]
    assert yours(alpine + MINE) == MINE_TEXTS


def test_buildah_marks_the_first_entry_of_a_build() -> None:
    history = [
        {"created_by": "ADD fedora-20241031.tar / # buildkit", "comment": "buildkit.dockerfile.v0"},
        {"created_by": 'CMD ["/bin/bash"]', "comment": "buildkit.dockerfile.v0", "empty_layer": True},
        {"created_by": "/bin/sh -c dnf install -y httpd", "comment": "FROM docker.io/library/fedora:latest"},
        {
            "created_by": "/bin/sh -c #(nop) COPY file:846c7ee0fa97be3c73c8d2fb0dd482f31c2ec12d in /var/www/html ",
            "comment": "FROM 97ad0fd6a1a3",
        },
        {"created_by": '/bin/sh -c #(nop) CMD ["x"]', "comment": "FROM f737afe7b188", "empty_layer": True},
    ]
    assert yours(history) == ["RUN dnf install -y httpd", "COPY … /var/www/html", 'CMD ["x"]']


def test_tools_that_build_without_a_dockerfile() -> None:
    apko = {"author": "apko", "created_by": "apko", "comment": "This is an apko single-layer image"}
    ko = {"author": "ko", "created": "0001-01-01T00:00:00Z", "created_by": "ko build ko://example.com/app"}
    kaniko = {"author": "kaniko", "created": "0001-01-01T00:00:00Z", "created_by": "COPY manager ."}
    bazel = {"author": "Bazel", "created": "1970-01-01T00:00:00Z", "created_by": "bazel build ..."}
    jib = {"author": "Jib", "created_by": "jib-maven-plugin:3.4.0", "comment": "classes"}
    assert yours([apko, ko, ko]) == ["ko build ko://example.com/app"] * 2
    assert yours([apko, kaniko]) == ["COPY manager ."]
    assert yours([bazel, bazel, jib]) == ["jib-maven-plugin:3.4.0 (classes)"]
    assert yours([*NODE_18, kaniko]) == ["COPY manager ."]


def test_one_build_on_a_bootstrapped_root_has_that_for_its_base() -> None:
    assert yours([DEBUERREOTYPE, *MINE]) == MINE_TEXTS
    assert yours([classic(ROOTFS), classic('CMD ["bash"]'), classic("RUN make"), classic('CMD ["x"]')]) == [
        "RUN make",
        'CMD ["x"]',
    ]
    imported = {"created": "2022-02-25T17:39:29Z", "comment": "Imported from -"}
    assert yours([imported, classic("RUN make")]) == ["RUN make"]


def test_an_image_from_scratch_has_no_base() -> None:
    history = [buildkit("COPY /app /app"), buildkit('ENTRYPOINT ["/app"]')]
    assert yours(history) == ["COPY /app /app", 'ENTRYPOINT ["/app"]']


def test_a_long_pause_after_a_labelled_image_is_a_boundary() -> None:
    vendor = [
        DEBUERREOTYPE,
        buildkit("LABEL org.opencontainers.image.title=vendor", "2024-02-01T10:00:00Z"),
        buildkit("RUN install the product", "2024-02-01T10:05:00Z"),
    ]
    assert yours(vendor + MINE) == MINE_TEXTS
    # Without a label, or where another pause is as long, it may be the builder's cache: yours from the first RUN.
    assert len(yours([DEBUERREOTYPE, vendor[2], *MINE])) == 5
    assert len(yours([*vendor, *MINE[:2], buildkit("RUN x", "2024-03-25T00:00:00Z")])) == 5


def test_broken_times_are_no_times() -> None:
    history = [DEBUERREOTYPE, buildkit("LABEL a=b", "yesterday"), buildkit("RUN x", "2024-02-01T10:00:00")]
    assert yours(history) == ["LABEL a=b", "RUN x"]


# --- the config -------------------------------------------------------------------------------------------


def test_the_config_of_a_real_image() -> None:
    raw = {
        "architecture": "arm64",
        "variant": "v8",
        "os": "linux",
        "created": "2024-03-01T09:00:00.123456789Z",
        "config": {
            "User": "node",
            "ExposedPorts": {"8080/tcp": {}, "443/tcp": {}, "53/udp": {}, "weird": {}},
            "Env": ["PATH=/usr/bin", "A=b=c"],
            "Entrypoint": ["docker-entrypoint.sh"],
            "Cmd": ["node", "server.js"],
            "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 30000000000},
            "Volumes": {"/logs": {}, "/data": {}},
            "WorkingDir": "/app",
            "Labels": {"a": "b", "n": 1},
            "StopSignal": "SIGQUIT",
            "Shell": ["/bin/bash", "-c"],
        },
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + "a" * 64]},
        "history": [{"created_by": "x"}],
    }
    found = parse_config(json.dumps(raw).encode())
    assert str(found.platform) == "linux/arm64/v8"
    assert found.created == "2024-03-01T09:00:00.123456789Z"
    assert found.entrypoint == ("docker-entrypoint.sh",) and found.cmd == ("node", "server.js")
    assert found.exposed_ports == ("53/udp", "443/tcp", "8080/tcp", "weird")
    assert found.volumes == ("/data", "/logs") and found.workdir == "/app" and found.user == "node"
    assert found.env == ("PATH=/usr/bin", "A=b=c") and found.labels == {"a": "b", "n": "1"}
    assert found.healthcheck == {"Test": ["CMD-SHELL", "true"], "Interval": 30000000000}
    assert found.stop_signal == "SIGQUIT" and found.shell == ("/bin/bash", "-c")
    assert found.diff_ids == ("sha256:" + "a" * 64,) and found.raw == raw


def test_what_is_missing_is_none_or_empty() -> None:
    for raw in (b"{}", b'{"config": null, "rootfs": null, "history": null, "created": null}'):
        found = parse_config(raw)
        assert found.entrypoint is found.cmd is found.user is found.created is found.healthcheck is None
        assert found.env == found.diff_ids == found.history == found.exposed_ports == ()
        assert str(found.platform) == "linux/unknown"


def test_an_empty_string_says_nothing_and_a_lone_one_is_a_list() -> None:
    found = parse_config(b'{"config": {"User": "", "WorkingDir": "", "Cmd": "run", "Entrypoint": []}}')
    assert found.user is None and found.workdir is None and found.cmd == ("run",) and found.entrypoint == ()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"7",
        b"{",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"config": []}',
        b'{"config": {"Env": {"A": "b"}}}',
        b'{"config": {"Env": [1]}}',
        b'{"config": {"Cmd": 1}}',
        b'{"config": {"User": 0}}',
        b'{"config": {"ExposedPorts": "80"}}',
        b'{"config": {"Labels": ["a"]}}',
        b'{"history": {}}',
        b'{"history": ["x"]}',
        b'{"rootfs": {"diff_ids": "sha256:aa"}}',
        b'{"rootfs": {"diff_ids": ["../../etc/passwd"]}}',
        b'{"rootfs": []}',
        b'{"os": 1}',
        b'{"created": 1}',
        b'{"a": ' + b"1" * 10_000 + b"}",
    ],
)
def test_a_config_that_no_builder_writes_is_an_error_with_a_hint(raw: bytes) -> None:
    with pytest.raises(InvalidImageError) as caught:
        parse_config(raw)
    assert caught.value.hint and "\n" not in str(caught.value)


def test_half_a_surrogate_pair_does_not_get_through() -> None:
    found = parse_config(b'{"config": {"Env": ["A=\\ud83d", "B=\\ud83d\\ude00", "C=\\\\ud83d"]}}')
    assert found.env == ("A=\ufffd", "B=\U0001f600", "C=\\ud83d")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["config", "Env", "Cmd", "history", "rootfs", "diff_ids", "Labels", "created_by", "os"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    ),
    st.integers(0, 3),
)
def test_any_json_is_a_config_or_that_error(value: Any, layers: int) -> None:
    try:
        found = parse_config(json.dumps(value).encode())
    except InvalidImageError:
        return
    instructions(found, layers)
