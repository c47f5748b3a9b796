"""nginx: what its configuration names.

The syntax is that of nginx's own documentation (nginx.org/en/docs, "Beginner's Guide" and "Core functionality"):
directives that end with ``;`` or with a block, ``include`` with wildcards. Where the defaults are said nowhere but in
the program (``--prefix``, ``--conf-path``, the temporary folders), they are read there: ``nginx -V`` prints the
configure line, so that the program has it as a string.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from layerlens.ecosystems import Explorer, ImageView, WithoutPackages
from layerlens.ecosystems.arguments import SHARED, clean
from layerlens.errors import LayerLensError
from layerlens.model import Command, Edge, ImagePath

if TYPE_CHECKING:
    pass

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

_TOKEN = re.compile(
    r"""#[^\n]*|"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'|([{};])|((?:[^\s;{}\\]|\\.|\$\{)+)""", re.DOTALL
)


class Nginx(WithoutPackages):
    """The configuration of nginx and of what is built on it."""

    name = "nginx"

    def explorer(self, image: ImageView) -> NginxExplorer:
        """What a running nginx reads and writes."""
        return NginxExplorer(image)


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
        self.built = self._configure_line()
        options = _options(command.argv[1:])
        self.prefix = clean(options.get("-p") or self.built.get("--prefix", "/usr/local/nginx"))
        default = posixpath.join(self.prefix, self.built.get("--conf-path", "conf/nginx.conf"))
        self.config = clean(posixpath.join(self.prefix, options.get("-c") or default))
        self.inline = options.get("-g", "")
        self.served = False
        self._read: set[ImagePath] = set()

    def _configure_line(self) -> dict[str, str]:
        try:
            content = self.image.fs.read(self.program, PROGRAM_LIMIT)
        except (LayerLensError, OSError):
            return {}
        at = content.find(b"configure arguments: ")
        if at < 0:
            at = content.find(b"--prefix=")
        if at < 0:
            return {}
        line = content[at : content.find(b"\0", at)][:16384].decode("utf-8", "replace")
        return dict(re.findall(r"(--[a-z-]+)=([^\s'\"]+)", line))

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
