"""What the words of a Python command line mean: options, the program, and the modules that its arguments name.

Sources: ``Doc/using/cmdline.rst`` of CPython; for the servers and runners, the page of each that says where it looks
for the application.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from layerlens.patterns import regex

IN_CWD: dict[str, str] = {
    # Programs that put their working directory on sys.path, and where that is said.
    "gunicorn": "gunicorn settings, chdir",
    "uvicorn": "uvicorn settings, --app-dir",
    "hypercorn": "hypercorn, config.application_path",
    "daphne": "daphne/cli.py",
    "granian": "granian, --working-dir",
    "waitress-serve": "waitress runner",
    "flask": "flask.cli.prepare_import",
    "quart": "quart.cli",
    "sanic": "sanic, Running",
    "litestar": "litestar, --app-dir",
    "fastapi": "fastapi_cli.discover",
    "celery": "celery.bin.celery",
    "dramatiq": "dramatiq, --path",
    "rq": "rq, --path",
    "arq": "arq.cli",
    "huey_consumer": "huey consumer",
    "alembic": "alembic, prepend_sys_path",
    "scrapy": "scrapy, project settings",
    "streamlit": "streamlit, script's folder",
    "chainlit": "chainlit.cli",
    "robyn": "robyn",
    "mitmdump": "mitmproxy, scripts",
}
FOLDER_OPTIONS = frozenset(["--chdir", "--app-dir", "--pythonpath", "--working-dir", "--workdir", "--path"])
"""Options of those programs whose value is a further folder for modules."""

MODULE_VARIABLES = regex(
    r"DJANGO_SETTINGS_MODULE|CELERY_CONFIG_MODULE|\w*_APP|APP_MODULE|\w+_SETTINGS_MODULE"
)
"""Variables that name the application's module: of Django, Flask, Celery, and of images that start any of them."""

_NAMED = regex(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)(:[\w.]+(?:\(.*\))?)?")
_WITH_VALUE = frozenset("WX")


@dataclass(frozen=True, slots=True)
class Invocation:
    """A command line of the interpreter, taken apart."""

    script: str | None = None
    module: str | None = None
    code: str | None = None
    arguments: tuple[str, ...] = ()
    ignores_environment: bool = False
    no_user_site: bool = False
    no_site: bool = False
    safe_path: bool = False
    optimize: int = 0


def parse(words: Sequence[str], env: Mapping[str, str]) -> Invocation:
    """The invocation of an interpreter by the words after its own name."""
    flags: set[str] = set()
    optimize = _level(env.get("PYTHONOPTIMIZE", ""))
    at = 0
    script = module = code = None
    while at < len(words):
        word = words[at]
        at += 1
        if word.startswith("--"):
            at += word == "--check-hash-based-pycs"
            if word == "--":
                script = words[at] if at < len(words) else None
                at += 1
                break
            continue
        if not word.startswith("-") or word == "-":
            script = word if word != "-" else None
            break
        letters = word[1:]
        for position, letter in enumerate(letters):
            rest = letters[position + 1 :]
            if letter in "cm":
                value = rest or (words[at] if at < len(words) else "")
                at += not rest
                code, module = (value, None) if letter == "c" else (None, value)
                break
            if letter in _WITH_VALUE:
                at += not rest
                break
            optimize += letter == "O"
            flags.add(letter)
        if code is not None or module is not None:
            break
    isolated = "I" in flags
    return Invocation(
        script,
        module,
        code,
        tuple(words[at:]),
        ignores_environment=isolated or "E" in flags,
        no_user_site=isolated or "s" in flags,
        no_site="S" in flags,
        safe_path=isolated or "P" in flags or bool(env.get("PYTHONSAFEPATH")),
        optimize=optimize,
    )


def _level(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 3 else int(bool(text))


def named_modules(words: Iterable[str]) -> Iterator[tuple[str, str, bool]]:
    """(module, word, sure) for each word that may name one; sure where it is dotted or has an attribute.

    ``app.main:app``, ``--worker-class=uvicorn.workers.UvicornWorker``, ``-A proj``.
    """
    for word in words:
        text = word.partition("=")[2] if word.startswith("-") else word
        found = _NAMED.fullmatch(text)
        if found:
            yield found[1], word, "." in found[1] or found[2] is not None


def folders_of(words: Sequence[str]) -> Iterator[str]:
    """The values of :data:`FOLDER_OPTIONS`."""
    for number, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option in FOLDER_OPTIONS:
            if equals:
                yield value
            elif number + 1 < len(words):
                yield words[number + 1]
