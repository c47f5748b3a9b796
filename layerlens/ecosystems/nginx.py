"""nginx: what its configuration names.

The syntax is that of nginx's own documentation (nginx.org/en/docs, "Beginner's Guide" and "Core functionality"):
directives that end with ``;`` or with a block, ``include`` with wildcards. Where the defaults are said nowhere but in
the program (``--prefix``, ``--conf-path``, the temporary folders), they are read there: ``nginx -V`` prints the
configure line, so that the program has it as a string.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from layerlens.ecosystems import Explorer, Hosting, ImageView, WithoutPackages
from layerlens.ecosystems.arguments import SHARED, clean
from layerlens.errors import LayerLensError
from layerlens.model import Command, Edge, ImagePath, StaticSite
from layerlens.patterns import regex

if TYPE_CHECKING:
    from layerlens.filesystem import Filesystem

PROGRAMS = frozenset(["nginx", "nginx-debug", "openresty", "angie", "tengine", "freenginx"])
CONFIG_LIMIT = 4 << 20
PROGRAM_LIMIT = 32 << 20
MAX_CONFIGS = 1000
"""Configuration files that are read; one that includes itself is read once."""
SERVED_WITHOUT = frozenset(["vcs", "secrets"])
"""What a web root does not serve; all else in it may be asked for by name, documentation included."""

_DIRECTIVES_BY_KIND = {
    # What the first argument of a directive names, by nginx.org/en/docs/dirindex.html: "conf" and "prefix" are files,
    # relative to the configuration's folder or to the prefix; "tree" a folder that is served; "log" a file that is
    # written; "folder" one that is filled.
    "tree": "root alias",
    "log": "access_log error_log slow_query_log pid lock_file state",
    "folder": """
        client_body_temp_path proxy_temp_path fastcgi_temp_path scgi_temp_path uwsgi_temp_path
        proxy_cache_path fastcgi_cache_path scgi_cache_path uwsgi_cache_path
    """,
    "conf": """
        ssl_certificate ssl_certificate_key ssl_dhparam ssl_client_certificate ssl_trusted_certificate
        ssl_password_file ssl_session_ticket_key ssl_crl ssl_stapling_file auth_basic_user_file auth_jwt_key_file
        proxy_ssl_certificate proxy_ssl_certificate_key proxy_ssl_trusted_certificate proxy_ssl_crl
        proxy_ssl_password_file grpc_ssl_certificate grpc_ssl_certificate_key grpc_ssl_trusted_certificate
        uwsgi_ssl_certificate uwsgi_ssl_certificate_key uwsgi_ssl_trusted_certificate
        geoip_country geoip_city geoip_org geoip2 xslt_stylesheet xml_entities js_include perl_require
        modsecurity_rules_file brotli_dictionary
    """,
    "prefix": "load_module js_path perl_modules",
}
DIRECTIVES = {name: kind for kind, names in _DIRECTIVES_BY_KIND.items() for name in names.split()}
"""Directives whose argument names a file or folder, and what it names."""

CONFIGURED: Mapping[str, str] = {
    # nginx.org/en/docs/configure.html: what the configure line decides, and what it names.
    "--error-log-path": "log",
    "--http-log-path": "log",
    "--pid-path": "log",
    "--lock-path": "log",
    "--http-client-body-temp-path": "folder",
    "--http-proxy-temp-path": "folder",
    "--http-fastcgi-temp-path": "folder",
    "--http-uwsgi-temp-path": "folder",
    "--http-scgi-temp-path": "folder",
}

OFFICIAL = ("/etc/nginx/nginx.conf", "/etc/nginx/conf.d", "/usr/share/nginx/html")
"""Configuration, the folder of its servers and the folder that is served, in the official image
(hub.docker.com/_/nginx, "How to use this image")."""
PROGRAM_PATHS = (
    "/usr/sbin/nginx",
    "/usr/local/sbin/nginx",
    "/usr/local/nginx/sbin/nginx",
    "/usr/bin/nginx",
    "/usr/local/openresty/nginx/sbin/nginx",
)
"""Where distributions and the projects' own images have the program."""
ON_PATH = frozenset(["/usr/sbin", "/usr/local/sbin", "/usr/bin"])
"""Folders of those that every PATH has."""
SERVERS = frozenset(["conf.d", "http.d", "servers"])
"""Folders of configurations that are included where servers are said: nginx.org's packages, Alpine's, Homebrew's."""
MEDIA_TYPES: Mapping[str, str] = {
    # IANA, media types: extensions that a site's files have and not every mime.types knows.
    "avif": "image/avif",
    "csv": "text/csv",
    "geojson": "application/geo+json",
    "glb": "model/gltf-binary",
    "gltf": "model/gltf+json",
    "map": "application/json",
    "md": "text/markdown",
    "mjs": "text/javascript",
    "otf": "font/otf",
    "ttf": "font/ttf",
    "wasm": "application/wasm",
    "webmanifest": "application/manifest+json",
    "webp": "image/webp",
    "woff": "font/woff",
    "woff2": "font/woff2",
}

_TOKEN = regex(
    r"""#[^\n]*|"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'|([{};])|((?:[^\s;{}\\]|\\.|\$\{)+)""", re.DOTALL
)


class Nginx(WithoutPackages):
    """The configuration of nginx and of what is built on it."""

    name = "nginx"

    def explorer(self, image: ImageView) -> NginxExplorer:
        """What a running nginx reads and writes."""
        return NginxExplorer(image)

    def hosting(
        self, server: Filesystem | None, site: StaticSite, extensions: Collection[str], has_error_page: bool
    ) -> Hosting | None:
        """A server block of its own, in the folder whose files the image's configuration includes.

        The official image's layout is taken where the image could not be opened. None where no such folder is
        included, or another of its files listens on the port already.
        """
        config, folder, root = OFFICIAL
        known: set[str] | None = None
        command: tuple[str, ...] = ("nginx", "-g", "daemon off;")
        if server is not None:
            found = _layout(server)
            if found is None:
                return None
            program, config, folder, text = found
            own = f"{folder}/{OWN_FILE}"
            if _listens(server, config, text, own, site.port):
                return None
            if server.is_file(own):
                roots = _values(_text(server, own), "root")
                root = next((path for path in roots if path.startswith("/") and "$" not in path), root)
            name = "nginx" if posixpath.dirname(program) in ON_PATH else program
            in_front = any(words[0] == "daemon" for _, words in directives(text))
            command = (name,) if in_front else (name, "-g", "daemon off;")
            types = posixpath.join(posixpath.dirname(config), "mime.types")
            known = set(_words_of(server, types)) if server.is_file(types) else set()
        lines = _server_block(site, root, config, _untold(extensions, known), has_error_page)
        return Hosting(root, {f"{folder}/{OWN_FILE}": "".join(f"{line}\n" for line in lines)}, command)


OWN_FILE = "default.conf"


def _text(fs: Filesystem, path: ImagePath) -> str:
    try:
        return fs.read(path, CONFIG_LIMIT).decode("utf-8", "surrogateescape")
    except (LayerLensError, OSError):
        return ""


def _words_of(fs: Filesystem, path: ImagePath) -> Iterator[str]:
    for _, words in directives(_text(fs, path)):
        yield from words[1:]


def _values(text: str, name: str) -> Iterator[str]:
    """The first value of each directive of a name."""
    for _, words in directives(text):
        if words[0] == name and len(words) > 1:
            yield words[1]


def _included(config: ImagePath, text: str) -> Iterator[ImagePath]:
    """The patterns of the files that a configuration includes, from the root."""
    for value in _values(text, "include"):
        yield clean(posixpath.join(posixpath.dirname(config), value))


def _layout(fs: Filesystem) -> tuple[ImagePath, ImagePath, ImagePath, str] | None:
    """The nginx of an image, its configuration, the folder of servers that this includes, and its text."""
    program = next((path for path in PROGRAM_PATHS if fs.is_file(path)), None)
    if program is None:
        return None
    built = configure_line(fs, program)
    prefix = clean(built.get("--prefix", "/usr/local/nginx"))
    config = clean(posixpath.join(prefix, built.get("--conf-path", "conf/nginx.conf")))
    if not fs.is_file(config):
        return None
    text = _text(fs, config)
    for pattern in _included(config, text):
        folder, name = posixpath.split(pattern)
        if name in ("*", "*.conf") and posixpath.basename(folder) in SERVERS and fs.is_dir(folder):
            return program, config, folder, text
    return None


def _listens(fs: Filesystem, config: ImagePath, text: str, without: ImagePath, port: int) -> bool:
    """Whether the configuration listens on a port already, the files that it includes with it, but for one."""
    texts = [text]
    for pattern in _included(config, text):
        found = fs.glob(pattern)
        texts += [_text(fs, path) for path in found[:MAX_CONFIGS] if path != without and fs.is_file(path)]
    return any(value.rpartition(":")[2] == str(port) for one in texts for value in _values(one, "listen"))


def _untold(extensions: Collection[str], known: set[str] | None) -> dict[str, list[str]]:
    """Media types that the server has to be told, with their extensions; where its own are not known, all of them."""
    found: dict[str, list[str]] = {}
    for extension in sorted(extensions):
        if extension in MEDIA_TYPES and (known is None or extension not in known):
            found.setdefault(MEDIA_TYPES[extension], []).append(extension)
    return found


def _server_block(
    site: StaticSite,
    root: ImagePath,
    config: ImagePath,
    types: Mapping[str, Sequence[str]],
    has_error_page: bool,
) -> Iterator[str]:
    """Lines of a server block (nginx.org, ngx_http_core_module: listen, root, types, try_files, error_page)."""
    yield "server {"
    yield f"    listen {site.port};"
    yield f"    root {root};"
    yield "    charset utf-8;"
    if types:
        yield f"    include {posixpath.dirname(config)}/mime.types;"
        yield "    types {"
        for media_type, extensions in sorted(types.items()):
            yield f"        {media_type} {' '.join(extensions)};"
        yield "    }"
    if site.single_page:
        yield "    location = /favicon.ico {"
        yield "        try_files $uri =404;"
        yield "    }"
        yield "    # the application routes in the browser"
    elif has_error_page:
        yield "    error_page 404 /404.html;"
    last = "/index.html" if site.single_page else "=404"
    yield "    location / {"
    yield f"        try_files $uri $uri.html $uri/index.html {last};"
    yield "    }"
    yield "}"


def configure_line(fs: Filesystem, program: ImagePath) -> dict[str, str]:
    """The options that a program was built with, which ``nginx -V`` prints; empty where it does not say."""
    try:
        content = fs.read(program, PROGRAM_LIMIT)
    except (LayerLensError, OSError):
        return {}
    at = content.find(b"configure arguments: ")
    if at < 0:
        at = content.find(b"--prefix=")
    if at < 0:
        return {}
    line = content[at : content.find(b"\0", at)][:16384].decode("utf-8", "replace")
    return dict(re.findall(r"(--[a-z-]+)=([^\s'\"]+)", line))


class NginxExplorer(Explorer):
    """Reads the configuration that a command line of nginx uses."""

    def command(self, command: Command, program: ImagePath) -> Iterator[Edge | Command]:
        """``nginx [-p PREFIX] [-c FILE] [-g DIRECTIVES]`` (nginx(8))."""
        if command.argv[0].rpartition("/")[2] in PROGRAMS:
            yield from _Server(self.image, command, program).needs()


class _Server:
    """One nginx with its prefix and configuration."""

    def __init__(self, image: ImageView, command: Command, program: ImagePath) -> None:
        self.image = image
        self.program = program
        self.built = configure_line(image.fs, program)
        options = _options(command.argv[1:])
        self.prefix = clean(options.get("-p") or self.built.get("--prefix", "/usr/local/nginx"))
        default = posixpath.join(self.prefix, self.built.get("--conf-path", "conf/nginx.conf"))
        self.config = clean(posixpath.join(self.prefix, options.get("-c") or default))
        self.inline = options.get("-g", "")
        self.served = False
        self._read: set[ImagePath] = set()

    def needs(self) -> Iterator[Edge | Command]:
        """The configuration, all that it names, and the folders that the program fills by default."""
        fs = self.image.fs
        if not fs.is_file(self.config):
            self.image.diagnose(
                "config-not-found", f"nginx reads {self.config}, which is not there", self.program
            )
        else:
            yield Edge(self.program, self.config, "config", f"nginx reads {self.config}", "certain")
            yield from self._file(self.config)
        if self.inline:
            yield from self._directives(self.inline, self.program, "-g: ")
        for option, kind in CONFIGURED.items():
            if option in self.built:
                yield from self._named(kind, self.built[option], self.program, f"built with {option}=")
        if not self.served:
            html = f"{self.prefix}/html"
            if fs.is_dir(html):
                yield from self._tree(self.config, html, "root is html unless it is set")

    def _file(self, path: ImagePath) -> Iterator[Edge | Command]:
        real = self.image.fs.follow(path) or path
        if real in self._read or len(self._read) >= MAX_CONFIGS:
            return
        self._read.add(real)
        try:
            text = self.image.fs.read(path, CONFIG_LIMIT).decode("utf-8", "surrogateescape")
        except (LayerLensError, OSError) as error:
            self.image.diagnose("unreadable-config", f"cannot be read: {error}", path)
            return
        yield from self._directives(text, real, "")

    def _directives(self, text: str, source: ImagePath, where: str) -> Iterator[Edge | Command]:
        for line, words in directives(text):
            name, arguments = words[0], words[1:]
            evidence = f"{where or f'line {line}: '}{' '.join(words)}"
            if name == "include" and arguments:
                yield from self._include(arguments[0], source, evidence)
            elif name == "js_import" and arguments:
                yield from self._named("conf", arguments[-1], source, evidence)
            elif name in DIRECTIVES and arguments:
                yield from self._named(DIRECTIVES[name], arguments[0], source, evidence)

    def _include(self, pattern: str, source: ImagePath, evidence: str) -> Iterator[Edge | Command]:
        path = clean(posixpath.join(posixpath.dirname(self.config), pattern))
        found = self.image.fs.glob(path) if any(mark in path for mark in "*?[") else [path]
        for one in found[:MAX_CONFIGS]:
            if self.image.fs.is_file(one):
                yield Edge(source, one, "config", evidence, "certain")
                yield from self._file(one)
            elif one == path:
                self.image.diagnose("config-not-found", f"{evidence}: it is not there", source)

    def _named(self, kind: str, value: str, source: ImagePath, evidence: str) -> Iterator[Edge | Command]:
        if kind == "tree":
            self.served = True
        if value in ("off", "stderr", "on") or value.startswith(
            ("data:", "engine:", "syslog:", "memory:", "unix:")
        ):
            return
        base = posixpath.dirname(self.config) if kind == "conf" else self.prefix
        literal, variable, _ = value.partition("$")
        path = clean(posixpath.join(base, posixpath.dirname(literal) if variable else literal))
        if variable:
            # A name that is computed for each request: any file of the folder in front of it may be meant.
            if path not in SHARED and literal.startswith("/"):
                yield from self._tree(source, path, evidence)
        elif kind == "tree":
            yield from self._tree(source, path, evidence)
        elif kind == "log":
            yield from self._written(source, path, evidence)
        elif kind == "folder":
            folder = path if self.image.fs.is_dir(path) else posixpath.dirname(path)
            yield from _existing(self.image, Edge(source, folder, "config", evidence, "certain"))
        else:
            certain = Edge(source, path, "config", evidence, "certain")
            if not self.image.fs.is_file(path):
                self.image.diagnose(
                    "missing-file", f"is needed ({evidence}) and not in the image", path, "info"
                )
            yield from _existing(self.image, certain)

    def _tree(self, source: ImagePath, path: ImagePath, evidence: str) -> Iterator[Edge]:
        if path in SHARED:
            self.image.diagnose("broad-root", f"{evidence}: the files of {path} are everybody's", source)
            return
        if self.image.fs.is_dir(path):
            yield from self.image.tree(source, path, "app-file", evidence, "certain", without=SERVED_WITHOUT)

    def _written(self, source: ImagePath, path: ImagePath, evidence: str) -> Iterator[Edge]:
        """The folder of a file that is written, and the file where it is a link to elsewhere."""
        fs = self.image.fs
        yield from _existing(self.image, Edge(source, posixpath.dirname(path), "config", evidence, "certain"))
        if fs.exists(path) and (fs.entry(path).link_target or not fs.size(path)):
            yield Edge(source, path, "config", evidence, "likely")


def _existing(image: ImageView, edge: Edge) -> Iterator[Edge]:
    if edge.target != "/" and image.fs.follow(edge.target) is not None:
        yield edge


def _options(words: Sequence[str]) -> dict[str, str]:
    """The options of nginx(8) that take a word, attached or not; the last of each."""
    found: dict[str, str] = {}
    at = 0
    while at < len(words):
        word = words[at]
        if word[:2] in ("-p", "-c", "-g", "-e", "-s"):
            if len(word) > 2:
                found[word[:2]] = word[2:]
            elif at + 1 < len(words):
                at += 1
                found[word] = words[at]
        at += 1
    return found


def directives(text: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The directives of a configuration with their lines, blocks flattened; broken ends are left out."""
    words: list[str] = []
    line = start = 1
    at = 0
    for token in _TOKEN.finditer(text):
        line += text.count("\n", at, token.start())
        at = token.start()
        double, single, mark, word = token.groups()
        if mark is not None:
            if words and mark != "}":
                yield start, tuple(words)
            words = []
        elif double is not None or single is not None or word is not None:
            if not words:
                start = line
            words.append(next(part for part in (double, single, word) if part is not None))


ecosystem = Nginx()
