"""Images that only hand out files: a development or preview server, or a server of static files, and a built site."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from layerlens.ecosystems._node_commands import (
    MANAGERS,
    NODES,
    WRAPPERS,
    manager_line,
    node_line,
    script_lines,
    wrapped,
)
from layerlens.ecosystems._node_resolve import Resolver
from layerlens.errors import LayerLensError
from layerlens.model import StaticSite
from layerlens.patterns import regex

if TYPE_CHECKING:
    from layerlens.ecosystems import ImageView
    from layerlens.model import ImagePath

MAX_STEPS = 12
"""Command lines that start one another; more lead in a circle."""
MAX_FILES = 100_000


@dataclass(frozen=True, slots=True)
class Server:
    """A program that serves a folder, as its manual describes it."""

    port: int
    """Its port where nobody says another."""
    folders: tuple[str, ...]
    """Where the site is, the first that is there; ``*`` is any one folder."""
    words: tuple[str, ...] = ("",)
    """First words with which it serves; ``""`` is none."""
    takes_folder: bool = False
    """Whether a further word names the folder."""
    port_options: tuple[str, ...] = ("--port", "-p")
    single_page: bool = False
    single_page_options: tuple[str, ...] = ()
    port_variable: str = ""
    """The environment's name for the port."""
    config: str = ""
    """Beginning of its configuration file's name, in which ``port`` and ``outDir`` are looked for."""
    section: str = ""
    """The part of the configuration that has the port."""


SERVERS: dict[str, Server] = {
    # vite.dev: guide/cli, config/preview-options, config/server-options; appType "spa" falls back to index.html.
    "vite preview": Server(
        4173, ("dist",), single_page=True, port_options=("--port",), config="vite.config", section="preview"
    ),
    "vite": Server(
        5173,
        ("dist",),
        ("", "dev", "serve"),
        single_page=True,
        port_options=("--port",),
        config="vite.config",
        section="server",
    ),
    # github.com/vercel/serve, README and --help.
    "serve": Server(
        3000,
        (".",),
        takes_folder=True,
        port_options=("-l", "--listen", "-p", "--port"),
        single_page_options=("-s", "--single"),
        port_variable="PORT",
    ),
    # github.com/http-party/http-server, README: ./public if it is there, else ./.
    "http-server": Server(8080, ("public", "."), takes_folder=True, port_variable="PORT"),
    # github.com/tapio/live-server, README.
    "live-server": Server(8080, (".",), takes_folder=True, port_options=("--port",), port_variable="PORT"),
    # github.com/lukeed/sirv, packages/sirv-cli.
    "sirv": Server(
        8080, (".",), takes_folder=True, single_page_options=("-s", "--single"), port_variable="PORT"
    ),
    # create-react-app.dev: docs/advanced-configuration.
    "react-scripts": Server(3000, ("build",), ("start",), single_page=True, port_variable="PORT"),
    # webpack.js.org: configuration/dev-server.
    "webpack-dev-server": Server(
        8080, ("dist", "build"), port_options=("--port",), config="webpack.config", section="devServer"
    ),
    "webpack": Server(
        8080,
        ("dist", "build"),
        ("serve",),
        port_options=("--port",),
        config="webpack.config",
        section="devServer",
    ),
    # angular.dev: cli/serve; the application builder writes to dist/NAME/browser.
    "ng": Server(
        4200, ("dist/*/browser", "dist/*", "dist"), ("serve",), single_page=True, config="angular.json"
    ),
    # cli.vuejs.org: guide/cli-service.
    "vue-cli-service": Server(
        8080, ("dist",), ("serve",), single_page=True, config="vue.config", section="devServer"
    ),
    # parceljs.org: features/cli.
    "parcel": Server(1234, ("dist",), ("", "serve"), single_page=True, port_variable="PORT"),
    # docs.astro.build: reference/cli-reference.
    "astro": Server(4321, ("dist",), ("preview", "dev"), port_options=("--port",), config="astro.config"),
}

DOES_MORE = regex(
    # In a server's configuration: it passes requests on, answers some itself, encrypts, or serves below a folder.
    # vite.dev: config/server-options, config/shared-options, guide/api-plugin; webpack.js.org: configuration/
    # dev-server; cli.vuejs.org: config; docs.astro.build: reference/configuration-reference; angular.dev: cli/serve.
    r"""\b(?:proxy|proxyConfig|configureServer|configurePreviewServer|setupMiddlewares|onBeforeSetupMiddleware
    |onAfterSetupMiddleware|https|basicSsl)["']?\s{0,9}[:(]|\b(?:base|publicPath)\s{0,9}:\s{0,9}["'`](?!\.?/?["'`])""",
    re.VERBOSE,
)
DOES_MORE_OPTIONS = frozenset(
    # The same on the command line: http-server --help, serve --help, vite --help, ng serve --help.
    (
        *("-P", "--proxy", "--proxy-config", "--base", "--username", "--password", "-S", "--tls", "--ssl"),
        *(
            "--ssl-cert",
            "--ssl-key",
            "--https",
            "--http2",
            "--serve-path",
            "--public-url",
            "--mount",
            "--middleware",
        ),
    )
)
DOES_MORE_FILES = ("serve.json", "now.json", "src/setupProxy.js", "src/setupProxy.ts")
"""Files that tell such a server more: serve's README, create-react-app.dev: docs/proxying-api-requests."""

STATIC = frozenset(
    (
        # What a browser loads (IANA media types of the web, W3C manifests), and what servers are given beside it.
        *(
            ".html",
            ".htm",
            ".xhtml",
            ".css",
            ".js",
            ".mjs",
            ".map",
            ".json",
            ".json5",
            ".txt",
            ".xml",
            ".webmanifest",
        ),
        *(
            ".svg",
            ".png",
            ".jpg",
            ".jpeg",
            ".gif",
            ".webp",
            ".avif",
            ".ico",
            ".bmp",
            ".cur",
            ".pdf",
            ".md",
            ".csv",
        ),
        *(
            ".woff",
            ".woff2",
            ".ttf",
            ".otf",
            ".eot",
            ".mp3",
            ".mp4",
            ".webm",
            ".ogg",
            ".wav",
            ".m4a",
            ".wasm",
        ),
        *(
            ".glb",
            ".gltf",
            ".bin",
            ".geojson",
            ".topojson",
            ".rss",
            ".atom",
            ".vtt",
            ".br",
            ".gz",
            ".zip",
            ".LICENSE",
        ),
    )
)


@dataclass(slots=True)
class _Started:
    """A command line on its way from the config to a server."""

    argv: tuple[str, ...]
    cwd: ImagePath
    env: dict[str, str]
    evidence: list[str] = field(default_factory=list)


def static_site(image: ImageView) -> StaticSite | None:
    """The site that the image's command serves, where it is built already and nothing but static files."""
    config = image.config
    argv = (*(config.entrypoint or ()), *(config.cmd or ()))
    started = _Started(argv, config.workdir or "/", dict(image.env))
    resolver = Resolver(image.fs)
    for _ in range(MAX_STEPS):
        if not started.argv:
            return None
        server = _server(started.argv)
        if server is not None:
            return _site(image, resolver, *server, started)
        if not _step(image, resolver, started):
            return None
    return None


def _server(argv: Sequence[str]) -> tuple[str, Server, tuple[str, ...]] | None:
    """The server that a command line runs, and its further words."""
    name = posixpath.basename(argv[0])
    words = tuple(argv[1:])
    first = words[0] if words and not words[0].startswith("-") else ""
    two = SERVERS.get(f"{name} {first}")
    if two is not None:
        return f"{name} {first}", two, words[1:]
    server = SERVERS.get(name)
    if server is None:
        return None
    if server.takes_folder:
        return name, server, words
    return (name, server, words[1:] if first else words) if first in server.words else None


def _step(image: ImageView, resolver: Resolver, started: _Started) -> bool:
    """Replace a command line by the one that it starts; False where that is not known."""
    name, words = posixpath.basename(started.argv[0]), started.argv[1:]
    if name in ("docker-entrypoint.sh", "tini", "dumb-init", "exec", "catatonit"):
        rest = list(words)
        while rest and rest[0].startswith("-"):
            rest.pop(0)
        started.argv = tuple(rest)
        return bool(rest)
    if name in ("sh", "bash", "ash", "dash") and len(words) >= 2 and words[-2].lstrip("-").endswith("c"):
        return _line(started, words[-1])
    if name in WRAPPERS or name == "env":
        assigned, inner = wrapped(words)
        started.env.update(assigned)
        started.argv = inner
        return bool(inner)
    if name in NODES:
        line = node_line(words)
        if line.script is None:
            return False
        script = image.fs.follow(posixpath.normpath(posixpath.join(started.cwd, line.script)))
        scope = None if script is None else resolver.scope(script)
        bins = None if scope is None else (resolver.manifest(scope) or {}).get("bin")
        package = (resolver.manifest(scope or "") or {}).get("name")
        if isinstance(bins, str) and isinstance(package, str):
            bins = {package.rpartition("/")[2]: bins}
        for program, path in bins.items() if isinstance(bins, dict) else ():
            if isinstance(path, str) and posixpath.normpath(f"{scope}/{path}") == script:
                started.argv = (str(program), *line.words)
                return True
        return False
    return name in MANAGERS and _managed(resolver, name, started)


def _line(started: _Started, line: str) -> bool:
    """The last command of a plain shell line."""
    last = re.split(r"&&|;", line)[-1].strip()
    if re.search(r"[|<>`(){}]|\$\(|&", last):
        return False
    for name, value in started.env.items():
        last = last.replace(f"${{{name}}}", value)
    last = re.sub(r"\$(\w+)", lambda match: started.env.get(match[1], ""), last)
    try:
        words = shlex.split(last)
    except ValueError:
        return False
    while words and re.fullmatch(r"\w+=.*", words[0]):
        name, _, value = words.pop(0).partition("=")
        started.env[name] = value
    started.argv = tuple(words)
    return bool(words)


def _managed(resolver: Resolver, name: str, started: _Started) -> bool:
    asked = manager_line(name, started.argv[1:])
    if asked.directory:
        started.cwd = posixpath.normpath(posixpath.join(started.cwd, asked.directory))
    if asked.program:
        started.argv = (asked.program, *asked.words)
        return True
    manifest = resolver.manifest(started.cwd.rstrip("/"))
    if not asked.scripts or manifest is None:
        return False
    lines = [
        line
        for script, line in script_lines(manifest.get("scripts"), asked.scripts[0], asked.words)
        if script == asked.scripts[0]
    ]
    if not lines:
        return False
    started.evidence.append(f"scripts.{asked.scripts[0]}: {lines[0]}")
    return _line(started, lines[0])


def _site(
    image: ImageView,
    resolver: Resolver,
    name: str,
    server: Server,
    words: tuple[str, ...],
    started: _Started,
) -> StaticSite | None:
    options, folders = _options(server, words)
    text = _configuration(image, server, started.cwd)
    if _does_more(image, resolver, options, text, started.cwd):
        return None
    out = re.search(r"\boutDir\s{0,9}:\s{0,9}[\"'`]([\w./-]{1,100})[\"'`]", text)
    named = [options["--outDir"]] if "--outDir" in options else []
    if not named and server.takes_folder:
        named = folders[:1]
    if not named and out:
        named = [out[1]]
    for folder in named or server.folders:
        for root in _matching(image, posixpath.normpath(posixpath.join(started.cwd, folder))):
            if _is_static(image, root):
                what = started.evidence[-1] if started.evidence else " ".join(started.argv)
                return StaticSite(
                    root,
                    _port(image, server, options, started.env, text),
                    f"{what}: {name} hands out {root}",
                    server.single_page or any(option in options for option in server.single_page_options),
                )
    return None


def _does_more(
    image: ImageView, resolver: Resolver, options: Mapping[str, str], text: str, cwd: ImagePath
) -> bool:
    """Whether a server is told to do more than hand out a folder at the top of its address."""
    if DOES_MORE_OPTIONS & options.keys() or DOES_MORE.search(text):
        return True
    if any(image.fs.is_file(posixpath.join(cwd, name)) for name in DOES_MORE_FILES):
        return True
    manifest = resolver.manifest(cwd.rstrip("/")) or {}
    return isinstance(manifest.get("proxy"), str | dict)


def _options(server: Server, words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Options with their values, and the other words."""
    valued = {*server.port_options, "--outDir", "--host", "--config", "-c", "-a", "-d", "--mode"}
    options: dict[str, str] = {}
    rest: list[str] = []
    at = 0
    while at < len(words):
        option, mark, value = words[at].partition("=")
        at += 1
        if not option.startswith("-"):
            rest.append(words[at - 1])
        elif mark or option not in valued:
            options[option] = value
        elif at < len(words) and not words[at].startswith("-"):
            options[option] = words[at]
            at += 1
        else:
            options[option] = ""
    return options, rest


def _configuration(image: ImageView, server: Server, cwd: ImagePath) -> str:
    if not server.config:
        return ""
    for name in image.fs.listdir(cwd):
        if name.startswith(server.config):
            try:
                return image.fs.read_text(posixpath.join(cwd, name), 1 << 20)
            except (LayerLensError, OSError):
                return ""
    return ""


def _port(
    image: ImageView, server: Server, options: Mapping[str, str], env: Mapping[str, str], text: str
) -> int:
    """From the command line, the environment, the configuration, EXPOSE, else the program's own."""
    said = [options[option].rpartition(":")[2] for option in server.port_options if option in options]
    if server.port_variable:
        said.append(env.get(server.port_variable, ""))
    if server.section:
        configured = re.search(
            rf"\b{server.section}\s{{0,9}}:\s{{0,9}}\{{[^}}]{{0,2000}}?\bport\s{{0,9}}:\s{{0,9}}(\d+)", text
        )
        said.append(configured[1] if configured else "")
    exposed = [port.partition("/")[0] for port in image.config.exposed_ports]
    said += exposed if len(exposed) == 1 else []
    return next((int(port) for port in said if port.isdigit() and 0 < int(port) < 65536), server.port)


def _matching(image: ImageView, path: ImagePath) -> list[ImagePath]:
    if "*" not in path:
        return [path] if image.fs.is_dir(path) else []
    return [found for found in image.fs.glob(path) if image.fs.is_dir(found)]


def _is_static(image: ImageView, root: ImagePath) -> bool:
    """Whether a folder is a built site: an index.html, and nothing that a browser has no use for."""
    real = image.fs.follow(root)
    if real is None or real == "/" or not image.fs.is_file(f"{real}/index.html"):
        return False
    for number, path in enumerate(image.fs.walk_files(real)):
        name = path.rpartition("/")[2]
        if number >= MAX_FILES or name == "package.json" or "/node_modules/" in path:
            return False
        if posixpath.splitext(name)[1] not in STATIC and "." in name.lstrip("."):
            return False
    return True
