"""An image's config and history: who built what, shown as the Dockerfile a person wrote.

Two readings of one JSON document (image-spec config.md): :func:`parse_config` gives the settings,
:func:`instructions` the history entries, each with the layer it made and whether it is the base image's.

**Which entries belong to the base.** No config says where the base image ends, so that it is inferred, from
the config alone and hence the same for every source:

1. buildah and podman mark a build's first entry with the comment ``FROM <name>``. That is exact; where it is
   found nothing else counts. Otherwise the base ends at the latest of 2 to 4.
2. The entry where the tool changes for the last time, since one build has one tool: ``comment``, ``author``
   and the form of ``created_by`` tell BuildKit, the classic builder, kaniko, ko, jib, Bazel … apart.
3. The entry after the last CMD or ENTRYPOINT that a layer-making instruction follows: images that are meant
   as bases end with one.
4. The entry after the last instruction of a well-known base that has neither (``KNOWN_ENDINGS``: golang,
   rust, buildpack-deps, the .NET SDK).

Where these find nothing beyond a bootstrapped root filesystem (ADD of a tarball to ``/``, ``docker import``,
debuerreotype), one more is tried: a pause of at least a day, ten times any other, after entries that label or
version themselves as reusable images do. Else the root filesystem alone is the base; an image without one
(FROM scratch) has none.

Limits: in a Dockerfile with CMD or ENTRYPOINT above its last RUN or COPY, what is above counts as base; a base
that shows in none of these ways counts as yours from its first RUN on. The label
``org.opencontainers.image.base.name`` says that there is a base but not where it ends, and is not used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from layerlens.errors import InvalidImageError
from layerlens.model import Diagnostic, DiffId, ImageConfig, Instruction, Platform
from layerlens.patterns import regex

NOT_RECORDED = "(not recorded)"
"""Text of a history entry that says neither what made it nor why."""

KEYWORDS = (
    # Dockerfile reference, "Overview".
    *(
        "ADD",
        "ARG",
        "CMD",
        "COPY",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "FROM",
        "HEALTHCHECK",
        "LABEL",
        "MAINTAINER",
    ),
    *("ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"),
)

KNOWN_ENDINGS: tuple[tuple[str, str], ...] = (
    # (what an entry contains, what the first entry from there on contains that is the base's last), each from
    # the Dockerfile of the image: none of them ends with a CMD or ENTRYPOINT of its own.
    ("ENV GOLANG_VERSION", "WORKDIR /go\n"),  # docker-library/golang
    ("ENV RUSTUP_HOME=/usr/local/rustup", "RUN "),  # rust-lang/docker-rust: one RUN installs the toolchain
    ("libmagickwand-dev", "libmagickwand-dev"),  # docker-library/buildpack-deps, the variant without a suffix
    ("DOTNET_SDK_VERSION", "pwsh"),  # dotnet/dotnet-docker, sdk
)

_DIFF_ID = regex(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+")
"""Digest grammar of image-spec descriptor.md."""

_SHELL_COMMAND = regex(
    # The shell that ran a RUN (the default or one set by SHELL, Dockerfile reference), and its command.
    r"(?:/(?:[\w.-]+/){0,8}(?:ba|da|a|z|k)?sh(?: -\w*o \w+| -\w+){0,8}? -\w*c|cmd /S /C|powershell -Command) (.*)",
    re.DOTALL,
)
_BUILD_ARGUMENTS = regex(r"\|(\d+) ?(.*)", re.DOTALL)
_COPIED = regex(
    # The classic builder puts no blank behind --chown: ``COPY --chown=app:appdir:1a2b… in /app``.
    r"(COPY|ADD)((?: --\S+?)*?)(?: |(?=(?:file|dir|multi):))(?:(?:file|dir|multi):\s*)?[0-9a-f]{16,128} in (.*)",
    re.DOTALL,
)
_QUOTED = regex(r'"(?:[^"\\]|\\.)*(?:"|\Z)', re.DOTALL)
"""A quoted string; one that is never closed reaches to the end, so that matching stays linear."""
_QUOTES = regex(r"""("(?:[^"\\]|\\.)*(?:"|\Z)|'[^']*(?:'|\Z))""", re.DOTALL)
_HEALTHCHECK = regex(r"&?\{(\[.*\])((?: \"[^\"]*\")*) '((?:[^'\\]|\\.)*)'\}?", re.DOTALL)
_HEX_NAME = regex(r"(?:sha256:)?[0-9a-f]{12,64}")


# -- the config --------------------------------------------------------------------------------------------


def parse_config(raw: bytes) -> ImageConfig:
    """The config blob as values; what is missing is None or empty, since builders leave out almost anything.

    Raises:
        InvalidImageError: it is not JSON, or not an object, or a field has a type that no builder writes.
    """
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InvalidImageError(f"the image's config is not JSON: {error}", _HINT) from error
    if b"\\ud" in raw or b"\\uD" in raw:
        value = _without_lone_surrogates(value)
    if not isinstance(value, dict):
        raise InvalidImageError(f"the image's config is not a JSON object but {_kind(value)}", _HINT)
    run = _object(value.get("config"), "config")
    rootfs = _object(value.get("rootfs"), "rootfs")
    diff_ids = _strings(rootfs.get("diff_ids"), "rootfs.diff_ids") or ()
    for diff_id in diff_ids:
        if _DIFF_ID.fullmatch(diff_id) is None:
            raise InvalidImageError(f"the image's config lists {diff_id!r}, which is no diff ID", _HINT)
    history = value.get("history")
    if history is None:
        history = []
    if not isinstance(history, list) or not all(isinstance(entry, dict) for entry in history):
        raise InvalidImageError("the image's config has a history that is not a list of objects", _HINT)
    return ImageConfig(
        platform=Platform(
            _text(value.get("os"), "os") or "linux",
            _text(value.get("architecture"), "architecture") or "unknown",
            _text(value.get("variant"), "variant"),
        ),
        created=_text(value.get("created"), "created"),
        entrypoint=_strings(run.get("Entrypoint"), "config.Entrypoint", lone=True),
        cmd=_strings(run.get("Cmd"), "config.Cmd", lone=True),
        user=_text(run.get("User"), "config.User"),
        workdir=_text(run.get("WorkingDir"), "config.WorkingDir"),
        env=_strings(run.get("Env"), "config.Env") or (),
        exposed_ports=tuple(sorted(_keys(run.get("ExposedPorts"), "config.ExposedPorts"), key=_port_order)),
        volumes=tuple(sorted(_keys(run.get("Volumes"), "config.Volumes"))),
        labels={
            name: label if isinstance(label, str) else json.dumps(label)
            for name, label in _object(run.get("Labels"), "config.Labels").items()
        },
        healthcheck=_object(run.get("Healthcheck"), "config.Healthcheck") or None,
        stop_signal=_text(run.get("StopSignal"), "config.StopSignal"),
        shell=_strings(run.get("Shell"), "config.Shell", lone=True),
        diff_ids=tuple(DiffId(diff_id) for diff_id in diff_ids),
        history=tuple(history),
        raw=value,
    )


_HINT = "the image is damaged, or this is not an image's config: save or pull it again"


def _kind(value: object) -> str:
    return {type(None): "null", list: "a list", str: "a string", bool: "a boolean"}.get(
        type(value), "a number"
    )


def _object(value: object, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidImageError(f"{where} of the image's config is {_kind(value)}, not an object", _HINT)
    return value


def _text(value: object, where: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidImageError(f"{where} of the image's config is not a string", _HINT)
    return value or None


def _strings(value: object, where: str, lone: bool = False) -> tuple[str, ...] | None:
    """A list of strings; where ``lone``, a string is a list of one, as Docker itself reads Cmd."""
    if value is None:
        return None
    if lone and isinstance(value, str):
        return (value,)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidImageError(f"{where} of the image's config is not a list of strings", _HINT)
    return tuple(value)


def _keys(value: object, where: str) -> list[str]:
    """Names of a set, which JSON holds as an object with empty values (config.md, ExposedPorts, Volumes)."""
    if isinstance(value, list):
        return list(_strings(value, where) or ())
    return list(_object(value, where))


def _port_order(port: str) -> tuple[int, str]:
    number = port.partition("/")[0].partition("-")[0]
    return (int(number) if number.isascii() and number.isdigit() and len(number) < 6 else 1 << 16, port)


def _without_lone_surrogates(value: Any) -> Any:
    """The same value with halves of surrogate pairs, which JSON can hold and UTF-8 cannot, as U+FFFD."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_without_lone_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_lone_surrogates(key): _without_lone_surrogates(item) for key, item in value.items()}
    return value


# -- the history -------------------------------------------------------------------------------------------


def instructions(config: ImageConfig, layer_count: int) -> tuple[tuple[Instruction, ...], list[Diagnostic]]:
    """The history, oldest first, each entry as a Dockerfile line with the layer it made.

    Entries are matched to layers in order, those marked ``empty_layer`` left out (config.md, ``history``).
    Where the numbers differ nothing is matched, with a diagnostic: no instruction is better than a wrong one.
    """
    entries = config.history
    diagnostics: list[Diagnostic] = []
    makers = [index for index, entry in enumerate(entries) if not entry.get("empty_layer")]
    layer_of: dict[int, int] = {}
    if len(makers) == layer_count:
        layer_of = {index: layer for layer, index in enumerate(makers)}
    elif not entries:
        diagnostics.append(
            Diagnostic("info", "no-history", "the image's config has no history: layers have no instruction")
        )
    else:
        diagnostics.append(
            Diagnostic(
                "warning",
                "history-mismatch",
                f"the history tells of {len(makers)} layers and the image has {layer_count}: "
                "layers are shown without their instruction",
            )
        )
    texts = _lines(entries)
    base_end = _end_of_base(entries, texts)
    return (
        tuple(
            Instruction(
                index=index,
                text=text,
                created_by=_string(entry, "created_by"),
                created=_string(entry, "created"),
                comment=_string(entry, "comment"),
                layer=layer_of.get(index),
                from_base=index < base_end,
            )
            for index, (entry, text) in enumerate(zip(entries, texts, strict=True))
        ),
        diagnostics,
    )


def _string(entry: dict[str, Any], key: str) -> str | None:
    value = entry.get(key)
    return value if isinstance(value, str) and value else None


def _lines(entries: Sequence[dict[str, Any]]) -> list[str]:
    """Text of every entry, with the shell that SHELL sets on the way."""
    texts = []
    shell = "/bin/sh -c"
    for entry in entries:
        text = dockerfile_line(_string(entry, "created_by"), _string(entry, "comment"), shell)
        if text.startswith("SHELL "):
            words = _words(text[len("SHELL ") :])
            shell = " ".join(words) if words else shell
        texts.append(text)
    return texts


def dockerfile_line(created_by: str | None, comment: str | None = None, shell: str = "/bin/sh -c") -> str:
    """What ``created_by`` records as the line of a Dockerfile; what no Dockerfile made, as it is recorded.

    Understood are the classic builder and buildah (``/bin/sh -c #(nop) COPY dir:… in /app``,
    ``/bin/sh -c npm ci``, build arguments in front as ``|1 A=b``), BuildKit
    (``RUN /bin/sh -c npm ci # buildkit``) and kaniko (the line itself); ``shell`` is what the last SHELL set.
    What COPY copied is known only by a hash in the classic form and shown as ``…``. Runs of blanks outside
    quotes, which continuation lines leave, become one.
    """
    if created_by is None or not created_by.strip():
        return comment.strip() if comment and comment.strip() else NOT_RECORDED
    recorded = created_by.strip()
    before, nop, instruction = recorded.partition("#(nop)")
    if nop and len(before) < 4096:
        return _tidy(instruction.strip())
    if recorded.endswith("# buildkit"):
        recorded = recorded[: -len("# buildkit")].rstrip()
    keyword, _, rest = recorded.partition(" ")
    if keyword == "RUN":
        return f"RUN {_tidy_blanks(_command(rest.strip(), shell))}"
    if keyword in KEYWORDS:
        return _tidy(recorded)
    command = _command(recorded, shell)
    if command != recorded:
        return f"RUN {_tidy_blanks(command)}"
    if comment and not comment.startswith(("buildkit", "FROM ", "debuerreotype")):
        return f"{_tidy_blanks(recorded)} ({comment.strip()})"
    return _tidy_blanks(recorded)


def _command(recorded: str, shell: str) -> str:
    """The command of a RUN without build arguments and shell in front."""
    arguments = _BUILD_ARGUMENTS.fullmatch(recorded)
    if arguments is None:
        return _after_shell(recorded, shell) or recorded
    rest = arguments[2]
    # Values may hold blanks, so that the shell is looked for rather than the words counted.
    at = rest.find(f"{shell} ")
    if at == 0 or (at > 0 and rest[at - 1] == " "):
        return rest[at + len(shell) + 1 :].strip()
    for match in re.finditer(r"(?:^| )(?=/|cmd |powershell )", rest):
        found = _after_shell(rest[match.end() :], shell)
        if found is not None:
            return found
    return " ".join(rest.split(" ")[int(arguments[1][:4]) :]).strip() or recorded


def _after_shell(recorded: str, shell: str) -> str | None:
    if recorded.startswith(f"{shell} "):
        return recorded[len(shell) + 1 :].strip()
    match = _SHELL_COMMAND.fullmatch(recorded)
    return match[1].strip() if match else None


def _tidy(instruction: str) -> str:
    """An instruction other than RUN in the form of the Dockerfile reference."""
    keyword, _, rest = instruction.partition(" ")
    rest = rest.strip()
    if keyword in ("COPY", "ADD"):
        copied = _COPIED.fullmatch(instruction.strip())
        if copied:
            return f"{keyword}{copied[2]} … {copied[3].strip()}"
    elif keyword in ("CMD", "ENTRYPOINT"):
        return f"{keyword} {_exec_form(rest)}"
    elif keyword == "SHELL":
        return f"SHELL {_json_list(_words(rest))}"
    elif keyword in ("EXPOSE", "VOLUME", "USER"):
        return f"{keyword} {_set_members(rest)}"
    elif keyword == "HEALTHCHECK":
        return _healthcheck(rest)
    return _tidy_blanks(f"{keyword} {rest}".strip())


def _exec_form(rest: str) -> str:
    """``["a" "b"]`` as Go prints it, or JSON, as JSON; the shell form where a shell was put in front."""
    if not rest.startswith("["):
        return _tidy_blanks(rest)
    words = [_unquoted(word) for word in _QUOTED.findall(rest)]
    if len(words) == 3 and words[0] in ("/bin/sh", "cmd") and words[1] in ("-c", "/S /C"):
        return _tidy_blanks(words[2])
    return _json_list(words)


def _words(rest: str) -> list[str]:
    """Members of a list, quoted or (as Go prints a list of strings) bare between blanks."""
    if '"' in rest:
        return [_unquoted(word) for word in _QUOTED.findall(rest)]
    return rest.strip("[]").split()


def _unquoted(word: str) -> str:
    try:
        value = json.loads(word, strict=False)
    except ValueError:  # an escape that Go has and JSON has not
        value = word[1:-1]
    return value if isinstance(value, str) else word


def _json_list(words: Iterable[str]) -> str:
    return json.dumps(list(words), ensure_ascii=False)


def _set_members(rest: str) -> str:
    """``map[80/tcp:{} 443/tcp:{}]``, ``[80/tcp]`` and ``["/data"]`` as plain words."""
    if rest.startswith("map["):
        return " ".join(word.removesuffix(":{}") for word in rest[4:].rstrip("]").split())
    if rest.startswith("["):
        return " ".join(_words(rest)) or rest
    return _tidy_blanks(rest)


def _healthcheck(rest: str) -> str:
    """``&{["CMD-SHELL" "curl …"] "30s" "3s" "0s" "0s" '\\x03'}`` as the flags and command that were written.

    Go prints interval, timeout, start period, start interval (from Docker 25 on) and retries; zero is unset.
    """
    match = _HEALTHCHECK.fullmatch(rest) if len(rest) < 8192 else None
    if match is None:
        return _tidy_blanks(f"HEALTHCHECK {rest}")
    words = [_unquoted(word) for word in _QUOTED.findall(match[1])]
    if words[:1] == ["NONE"]:
        return "HEALTHCHECK NONE"
    durations = [_unquoted(word) for word in _QUOTED.findall(match[2])]
    names = ("interval", "timeout", "start-period", "start-interval")
    flags = [
        f" --{name}={value}" for name, value in zip(names, durations, strict=False) if value not in ("0s", "")
    ]
    retries = _rune(match[3])
    if retries:
        flags.append(f" --retries={retries}")
    command = (
        _tidy_blanks(words[1]) if words[:1] == ["CMD-SHELL"] and len(words) == 2 else _json_list(words[1:])
    )
    return f"HEALTHCHECK{''.join(flags)} CMD {command}"


_GO_RUNES = {"a": 7, "b": 8, "t": 9, "n": 10, "v": 11, "f": 12, "r": 13, "\\": 92, "'": 39}


def _rune(text: str) -> int:
    """The number that Go printed as a quoted character (Go specification, "Rune literals")."""
    if len(text) == 1:
        return ord(text)
    if text.startswith("\\") and text[1:2] in ("x", "u", "U"):
        try:
            return int(text[2:], 16)
        except ValueError:
            return 0
    return _GO_RUNES.get(text[1:], 0)


def _tidy_blanks(text: str) -> str:
    """Runs of blanks and tabs outside quotes become one blank; line breaks stay (heredocs)."""
    if "\t" not in text and "  " not in text:
        return text
    pieces = _QUOTES.split(text)
    pieces[::2] = [re.sub(r"[ \t]+", " ", piece) for piece in pieces[::2]]
    return "".join(pieces).strip()


# -- the base ----------------------------------------------------------------------------------------------


def _end_of_base(entries: Sequence[dict[str, Any]], texts: Sequence[str]) -> int:
    """Index of the first entry that is not the base image's; the module's docstring has the rule."""
    marked = [index for index, entry in enumerate(entries) if _begins_build(entry)]
    if marked:
        return marked[-1]
    last_maker = max(
        (index for index, entry in enumerate(entries) if not entry.get("empty_layer")), default=-1
    )
    rootfs_end = _end_of_rootfs(entries, texts)
    end = max(
        rootfs_end,
        _last_change_of_tool(entries),
        _after_last_command(texts, last_maker),
        _after_known_ending(texts, last_maker),
    )
    if end == rootfs_end and end:
        end = _after_pause(entries, texts, end, last_maker)
    return end


def _begins_build(entry: dict[str, Any]) -> bool:
    """Whether buildah marked the entry as the first of a build ``FROM <name>``; steps say ``FROM <ID>``."""
    comment = _string(entry, "comment") or ""
    if not comment.startswith("FROM "):
        return False
    name = comment[len("FROM ") :].strip()
    return name not in ("", "scratch") and _HEX_NAME.fullmatch(name) is None


def _tool(entry: dict[str, Any]) -> str:
    """The tool that wrote an entry; everything that is not told apart counts as the classic builder."""
    comment = _string(entry, "comment") or ""
    author = (_string(entry, "author") or "").lower()
    created_by = _string(entry, "created_by") or ""
    if comment.startswith("buildkit") or created_by.endswith("# buildkit"):
        return "buildkit"
    if comment.startswith("debuerreotype") or (not created_by and comment.startswith("Imported from")):
        return "rootfs"
    for tool in ("kaniko", "bazel", "ko", "apko", "jib"):
        if author == tool:
            return tool
    if created_by.startswith(("bazel build", "jib-", "ko build", "Buildpacks ", "Layer: '", "crane ")):
        return created_by.partition(" ")[0].partition("-")[0]
    return "nix" if comment.startswith("store paths:") else "classic"


def _last_change_of_tool(entries: Sequence[dict[str, Any]]) -> int:
    tools = [_tool(entry) for entry in entries]
    for index in range(len(tools) - 1, 0, -1):
        if tools[index] != tools[index - 1]:
            # Config-only entries of another tool alone are no base.
            made = any(not entry.get("empty_layer") for entry in entries[:index])
            return index if made else 0
    return 0


def _is_command(text: str) -> bool:
    return text.startswith(("CMD ", "ENTRYPOINT "))


def _after_last_command(texts: Sequence[str], last_maker: int) -> int:
    return max((index + 1 for index in range(last_maker) if _is_command(texts[index])), default=0)


def _after_known_ending(texts: Sequence[str], last_maker: int) -> int:
    end = 0
    for beginning, ending in KNOWN_ENDINGS:
        begun = False
        for index in range(last_maker):
            begun = begun or beginning in texts[index]
            if begun and ending in f"{texts[index]}\n":
                end = max(end, index + 1)
                break
    return end


def _end_of_rootfs(entries: Sequence[dict[str, Any]], texts: Sequence[str]) -> int:
    """The first layer and the commands right after it, where that layer is a whole root filesystem."""
    first = next((index for index, entry in enumerate(entries) if not entry.get("empty_layer")), None)
    if first is None:
        return 0
    text = texts[first]
    imported = _string(entries[first], "created_by") is None or _tool(entries[first]) == "rootfs"
    if not imported and not (text.startswith("ADD ") and text.split()[-1] == "/"):
        return 0
    end = first + 1
    while end < len(texts) and entries[end].get("empty_layer") and _is_command(texts[end]):
        end += 1
    return end


def _after_pause(entries: Sequence[dict[str, Any]], texts: Sequence[str], start: int, last_maker: int) -> int:
    """Index after the one long pause between ``start`` and the last layer, or ``start``."""
    times = [_time(_string(entry, "created")) for entry in entries]
    pauses: list[tuple[timedelta, int]] = []
    for index in range(start + 1, last_maker + 1):
        before, after = times[index - 1], times[index]
        if before is not None and after is not None:
            pauses.append((after - before, index))
    if not pauses:
        return start
    pauses.sort()
    longest, index = pauses[-1]
    second = pauses[-2][0] if len(pauses) > 1 else timedelta(0)
    reusable = any(
        text.startswith("LABEL ") or (text.startswith("ENV ") and "VERSION" in text)
        for text in texts[start:index]
    )
    return index if reusable and longest >= timedelta(days=1) and longest >= 10 * second else start


def _time(text: str | None) -> datetime | None:
    """An RFC 3339 time, its fraction cut to microseconds; None where missing, broken or without a zone."""
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))
    except ValueError:
        return None
    return time if time.tzinfo is not None else None
