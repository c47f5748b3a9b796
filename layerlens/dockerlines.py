"""Generated lines of a Dockerfile: COPY, ENV, HEALTHCHECK … that say exactly what is meant, and .dockerignore.

Whatever a path or a value holds (blanks, quotes, ``$``, wildcards, the escape character), the builder comes out with
it again. The grammar is BuildKit's, as in :mod:`layerlens.dockerfile`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from layerlens.errors import DockerfileError
from layerlens.model import ImageConfig
from layerlens.patterns import regex

SHORTEST_DURATION_NS: Final = 1_000_000
"""A shorter interval, but for zero, is refused (instructions/parse.go, parseOptInterval)."""

_PLAIN = regex(r"[A-Za-z0-9_./:@%+,=~^-]+")


def from_line(image: str, name: str | None = None, platform: str | None = None) -> str:
    """``FROM [--platform=…] image [AS name]``."""
    flag = f"--platform={platform} " if platform else ""
    return f"FROM {flag}{image}" + (f" AS {name}" if name else "")


def copy_line(
    sources: Sequence[str],
    target: str,
    from_stage: str | None = None,
    chown: str | None = None,
    chmod: str | None = None,
    escape: str = "\\",
) -> str:
    """``COPY [--from=…] [--chown=…] [--chmod=…] sources… target``, each source taken by its exact name.

    A path with blanks, quotes, ``$``, wildcards or the escape character is written so that the builder comes out
    with the path again: wildcards as in Go's ``filepath.Match``, then variables and quotes escaped (the builder
    expands the exec form's members too), then JSON. Several sources need a target that ends with ``/``.

    Raises:
        DockerfileError: a target whose bytes are not UTF-8, which no Dockerfile can name.
    """
    flags = [
        f"--{name}={value}"
        for name, value in (("from", from_stage), ("chown", chown), ("chmod", chmod))
        if value
    ]
    if _is_not_text(target):
        raise DockerfileError(
            f"a Dockerfile cannot name {target!r}: not UTF-8", "Copy the folder it is in instead."
        )
    if len(sources) > 1 and not target.endswith("/"):
        target += "/"
    words = [_unexpanded(_exact(source), escape) for source in sources] + [_unexpanded(target, escape)]
    if all(_PLAIN.fullmatch(path) for path in (*sources, target)):
        return " ".join(["COPY", *flags, *words])
    return " ".join(["COPY", *flags, exec_form(words)])


def _is_not_text(path: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in path)


def _exact(path: str) -> str:
    """A pattern of Go's ``filepath.Match`` for one path; a byte that is not UTF-8 can only be met by ``?``.

    The builder takes a path without wildcards as it stands, a backslash in it too.
    """
    if not any(character in "*?[" for character in path) and not _is_not_text(path):
        return path
    return re.sub("[\ud800-\udfff]", "?", re.sub(r"[*?\[\\]", lambda found: f"[{_in_class(found[0])}]", path))


def _in_class(character: str) -> str:
    return "\\\\" if character == "\\" else character


def _unexpanded(word: str, escape: str) -> str:
    """A word that the builder's expansion gives back unchanged outside quotes."""
    return re.sub(rf"[$'\"{re.escape(escape)}]", lambda found: escape + found[0], word)


def exec_form(words: Sequence[str]) -> str:
    """Words as the JSON list of an exec form."""
    return json.dumps(list(words), ensure_ascii=False)


def _quoted(value: str, escape: str) -> str:
    """A value of ENV, LABEL, WORKDIR or USER: bare where it can be, else in double quotes."""
    if _PLAIN.fullmatch(value):
        return value
    inside = re.sub(rf"[$\"{re.escape(escape)}]", lambda found: escape + found[0], value)
    return f'"{inside}"'


def _expressible(text: str) -> bool:
    """Whether a Dockerfile can hold it outside JSON: no line breaks, no NUL, and UTF-8."""
    return not any(character in "\n\r\0" for character in text) and not _is_not_text(text)


def _pairs_line(keyword: str, pairs: Sequence[tuple[str, str]], escape: str) -> str:
    written = [f"{_quoted(name, escape)}={_quoted(value, escape)}" for name, value in pairs]
    return f"{keyword} " + f" {escape}\n    ".join(written)


def env_line(pairs: Sequence[tuple[str, str]], escape: str = "\\") -> str:
    """``ENV A=b …``, one variable on a line; values with blanks, quotes, ``$`` … quoted."""
    return _pairs_line("ENV", pairs, escape)


def label_line(pairs: Sequence[tuple[str, str]], escape: str = "\\") -> str:
    """``LABEL a=b …``, as :func:`env_line`."""
    return _pairs_line("LABEL", pairs, escape)


def exec_line(keyword: str, words: Sequence[str]) -> str:
    """``CMD``, ``ENTRYPOINT`` or ``SHELL`` in exec form, which no shell and no expansion touches."""
    return f"{keyword} {exec_form(words)}"


def go_duration(nanoseconds: int) -> str:
    """A Go duration, ``1m30s`` or ``1.5s``, that ``time.ParseDuration`` reads back exactly."""
    minutes, rest = divmod(nanoseconds, 60_000_000_000)
    seconds, fraction = divmod(rest, 1_000_000_000)
    text = f"{minutes}m" if minutes else ""
    if fraction:
        return f"{text}{seconds}.{fraction:09d}".rstrip("0") + "s"
    return f"{text}{seconds}s" if seconds or not text else text


HEALTHCHECK_FLAGS: Final = (
    # Key of the config (docker-image-spec, HealthcheckConfig), flag of the instruction.
    ("Interval", "interval"),
    ("Timeout", "timeout"),
    ("StartPeriod", "start-period"),
    ("StartInterval", "start-interval"),
)


def healthcheck_line(healthcheck: Mapping[str, Any]) -> str | None:
    """HEALTHCHECK from a config's ``Healthcheck``; None where it says nothing (an empty ``Test`` inherits)."""
    test = healthcheck.get("Test")
    if not isinstance(test, list) or not test or not all(isinstance(word, str) for word in test):
        return None
    if test[0] == "NONE":
        return "HEALTHCHECK NONE"
    flags = []
    for key, flag in HEALTHCHECK_FLAGS:
        value = healthcheck.get(key)
        if isinstance(value, int) and value >= SHORTEST_DURATION_NS:  # less is refused
            flags.append(f"--{flag}={go_duration(value)}")
    retries = healthcheck.get("Retries")
    if isinstance(retries, int) and retries > 0:
        flags.append(f"--retries={retries}")
    if test[0] == "CMD-SHELL":
        command = " ".join(test[1:])
        if not _expressible(command) or command != command.strip() or command.startswith("["):
            command = exec_form(["/bin/sh", "-c", command])
    else:
        command = exec_form(test[1:] if test[0] == "CMD" else test)
    return " ".join(["HEALTHCHECK", *flags, "CMD", command])


def carried_config_lines(
    config: ImageConfig,
    base: ImageConfig | None = None,
    without: Sequence[str] = (),
    escape: str = "\\",
) -> tuple[str, ...]:
    """Instructions that give an image on ``base`` (None: scratch) the run configuration of ``config``.

    In this order: ENV, WORKDIR, USER, EXPOSE, VOLUME, LABEL, HEALTHCHECK, STOPSIGNAL, SHELL, ENTRYPOINT, CMD;
    only what differs from the base's. ENTRYPOINT comes with CMD, since setting the one clears the other. Keywords
    in ``without`` are left out. What no Dockerfile can say is left out as well: see :func:`inexpressible`.
    """
    lines: list[str | None] = []
    for keyword, make in _CARRIED:
        if keyword not in without:
            lines.append(make(config, base, escape))
    return tuple(line for line in lines if line)


def inexpressible(config: ImageConfig) -> tuple[str, ...]:
    """What of a config no Dockerfile can say, for people: ``ENV BANNER`` (its value has a line break)."""
    found = [f"ENV {name}" for name, value in env_pairs(config) if not _expressible(name + value)]
    found += [
        f"LABEL {name}"
        for name, value in sorted(config.labels.items())
        if not _expressible(name + value) or "=" in name or not name
    ]
    return tuple(found)


def env_pairs(config: ImageConfig | None) -> list[tuple[str, str]]:
    """Names and values of a config's ENV."""
    if config is None:
        return []
    return [(name, value) for name, _, value in (pair.partition("=") for pair in config.env) if name]


def _carried_env(config: ImageConfig, base: ImageConfig | None, escape: str) -> str | None:
    there = dict(env_pairs(base))
    pairs = [
        (name, value)
        for name, value in dict(env_pairs(config)).items()
        if there.get(name) != value and _expressible(name + value)
    ]
    return env_line(pairs, escape) if pairs else None


def _carried_label(config: ImageConfig, base: ImageConfig | None, escape: str) -> str | None:
    there = base.labels if base is not None else {}
    pairs = [
        (name, value)
        for name, value in sorted(config.labels.items())
        if there.get(name) != value and _expressible(name + value) and "=" not in name and name
    ]
    return label_line(pairs, escape) if pairs else None


def _carried_word(keyword: str, field_name: str, default: str) -> Callable[..., str | None]:
    """WORKDIR, USER and STOPSIGNAL: one word, set again to its default where only the base has one."""

    def make(config: ImageConfig, base: ImageConfig | None, escape: str) -> str | None:
        mine: str | None = getattr(config, field_name)
        theirs: str | None = getattr(base, field_name) if base is not None else None
        if (mine or default) == (theirs or default) or not _expressible(mine or ""):
            return None
        return f"{keyword} {_quoted(mine or default, escape)}"

    return make


def _carried_expose(config: ImageConfig, base: ImageConfig | None, _escape: str) -> str | None:
    there = base.exposed_ports if base is not None else ()
    ports = [port for port in config.exposed_ports if port not in there]
    ports = [port.removesuffix("/tcp") for port in ports if re.fullmatch(r"[0-9-]+(?:/[a-z]+)?", port)]
    return f"EXPOSE {' '.join(ports)}" if ports else None


def _carried_volume(config: ImageConfig, base: ImageConfig | None, escape: str) -> str | None:
    there = base.volumes if base is not None else ()
    volumes = [_unexpanded(path, escape) for path in config.volumes if path not in there and path.strip()]
    return f"VOLUME {exec_form(volumes)}" if volumes else None


def _carried_healthcheck(config: ImageConfig, base: ImageConfig | None, _escape: str) -> str | None:
    theirs = base.healthcheck if base is not None else None
    if config.healthcheck == theirs:
        return None
    return healthcheck_line(config.healthcheck or {}) or ("HEALTHCHECK NONE" if theirs else None)


def _carried_shell(config: ImageConfig, base: ImageConfig | None, _escape: str) -> str | None:
    theirs = base.shell if base is not None else None
    if config.shell == theirs or (not config.shell and not theirs):
        return None
    return exec_line("SHELL", config.shell or ("/bin/sh", "-c"))


def _carried_entrypoint(config: ImageConfig, base: ImageConfig | None, _escape: str) -> str | None:
    if (config.entrypoint or ()) == ((base.entrypoint if base is not None else None) or ()):
        return None
    return exec_line("ENTRYPOINT", config.entrypoint or ())


def _carried_cmd(config: ImageConfig, base: ImageConfig | None, escape: str) -> str | None:
    theirs = (base.cmd if base is not None else None) or ()
    if _carried_entrypoint(config, base, escape) is not None and (config.cmd or theirs):
        return exec_line("CMD", config.cmd or ())
    if (config.cmd or ()) == theirs:
        return None
    return exec_line("CMD", config.cmd or ())


_CARRIED: Final[tuple[tuple[str, Callable[[ImageConfig, ImageConfig | None, str], str | None]], ...]] = (
    ("ENV", _carried_env),
    ("WORKDIR", _carried_word("WORKDIR", "workdir", "/")),
    ("USER", _carried_word("USER", "user", "root")),
    ("EXPOSE", _carried_expose),
    ("VOLUME", _carried_volume),
    ("LABEL", _carried_label),
    ("HEALTHCHECK", _carried_healthcheck),
    ("STOPSIGNAL", _carried_word("STOPSIGNAL", "stop_signal", "SIGTERM")),
    ("SHELL", _carried_shell),
    ("ENTRYPOINT", _carried_entrypoint),
    ("CMD", _carried_cmd),
)


def leaves_out(dockerignore: str, name: str) -> bool:
    """Whether a .dockerignore leaves a file at the top of the build context out; its last line that fits decides.

    Docker's build context documentation, ".dockerignore files": Go's ``filepath.Match``, ``**`` for any number of
    directories.
    """
    out = False
    for line in dockerignore.removeprefix("\ufeff").splitlines():
        if line.startswith("#") or not line.strip():
            continue
        pattern = line.strip()
        wanted = pattern.startswith("!")
        parts = [part for part in pattern.removeprefix("!").strip().split("/") if part not in ("", ".")]
        while len(parts) > 1 and parts[0] == "**":
            del parts[0]
        if len(parts) == 1 and _go_pattern(parts[0]).fullmatch(name):
            out = not wanted
    return out


def _go_pattern(text: str) -> re.Pattern[str]:
    """A pattern of Go's filepath.Match for one name, as a regular expression; what is malformed fits nothing."""
    text = re.sub(r"\*+", "*", text)
    known = re.compile(r"\*|\?|\[\^?(?:\\.|[^\]\\])+\]|\\.|[^\[\\]", re.DOTALL)
    found, at = [], 0
    while at < len(text):
        match = known.match(text, at)
        if match is None:
            return re.compile(r"(?!)")
        found.append(_go_token(match[0]))
        at = match.end()
    try:
        return re.compile("".join(found), re.DOTALL)
    except re.error:
        return re.compile(r"(?!)")


def _go_token(token: str) -> str:
    if token in ("*", "?"):
        return {"*": ".*", "?": "."}[token]
    if token.startswith("[") and len(token) > 1:
        return token.replace("[", r"\[")[1:]
    return re.escape(token[1:] if token.startswith("\\") and len(token) == 2 else token)
