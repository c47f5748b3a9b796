"""PHP: Composer's packages, the interpreter's extensions, and the files of an application.

Packages are read from ``vendor/composer/installed.json`` (getcomposer.org, "The vendor directory"); packages that
only development needs are named there (``dev-package-names``). Classes are loaded by computed names, so that every
package that production needs is kept once the autoloader is reached. Extensions are those that the ini files load
(php.ini directives ``extension`` and ``zend_extension``); where these files and extensions are is compiled into the
program.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from layerlens.ecosystems import UNNEEDED_CATEGORIES, Explorer, ImageView, bounded_read
from layerlens.ecosystems._options import after_options
from layerlens.ecosystems.arguments import SHARED, clean
from layerlens.errors import LayerLensError
from layerlens.model import Command, Diagnostic, Edge, ImageConfig, ImagePath, Package
from layerlens.patterns import regex

if TYPE_CHECKING:
    from layerlens.filesystem import Filesystem

PROGRAMS = regex(r"(php|php-cli|php-cgi|php-fpm|phpdbg|frankenphp)-?([\d.]*)(\.default)?\Z")
"""Names of interpreters: php, php8.2, php83, php-fpm8.2 … (Debian, Alpine, the official images)."""
SAPI_FOLDERS = {"php": "cli", "php-cli": "cli", "php-cgi": "cgi", "php-fpm": "fpm", "phpdbg": "phpdbg"}
"""Debian's folder of each program's configuration (php-common: /usr/share/php/*/…)."""
SCRIPT_LIMIT = 2 << 20
PROGRAM_LIMIT = 64 << 20
MAX_INCLUDES = 500
NOT_RUN = UNNEEDED_CATEGORIES | {"sources"}
TAKES_WORD = frozenset(f"-{letter}" for letter in "cdfrBRFEStzypg")
"""Options of php(1) and php-fpm(8) with a word of their own."""

INI_FILES: Mapping[str, str] = {
    # php.net/manual/en/ini.list.php: directives that name a file that is read, and directories that are filled.
    **dict.fromkeys(["auto_prepend_file", "auto_append_file", "browscap", "opcache.preload"], "file"),
    **dict.fromkeys(["openssl.cafile", "curl.cainfo", "opcache.blacklist_filename"], "file"),
    **dict.fromkeys(["session.save_path", "upload_tmp_dir", "sys_temp_dir", "opcache.file_cache"], "folder"),
    **dict.fromkeys(["include_path", "openssl.capath"], "folder"),
    "error_log": "log",
}

_INI_LINE = regex(r"^\s*([\w.]+)(?:\[[^\]]*\])?\s*=\s*(.*?)\s*$")
_SCAN_FOLDER = regex(rb"(/[\w./+-]{1,200}/conf\.d)\0")
_CONFIG_FOLDER = regex(rb"\0(/[\w./+-]{0,200}(?:/php[\d.]*|/php/[\d.]+/\w+|/etc|/lib))\0")
_EXTENSION_FOLDER = regex(
    rb"(/[\w./+-]{1,200}/(?:no-debug-(?:non-)?zts-\d{8}|php/\d{8}(?:-zts)?|php\d*/modules))\0"
)
_INCLUDE = regex(
    r"\b(?:require|include)(?:_once)?\b\s*\(?\s*"
    r"(?:(__DIR__|dirname\(\s*__(?:FILE|DIR)__\s*(?:,\s*(\d))?\s*\))\s*\.\s*)?"
    r"""['"]([^'"$\n]{1,500})['"]"""
)
_AUTOLOAD_FILE = regex(r"(\$vendorDir|\$baseDir|__DIR__)\s*\.\s*'([^'\n]{1,500})'")
_FPM_LINE = regex(r"^\s*([\w.]+(?:\[[^\]]*\])?)\s*=\s*(.*?)\s*$")


class Php:
    """Packages that Composer installed, and what PHP programs need."""

    name = "php"

    endings: tuple[str, ...] = ("/composer/installed.json",)

    def wants(self, path: ImagePath) -> bool:
        """The list of installed packages."""
        return path.endswith(self.endings)

    def packages(
        self, fs: Filesystem, config: ImageConfig, diagnostics: list[Diagnostic]
    ) -> Iterable[Package]:
        """The packages of every ``installed.json``, by its path and in its order."""
        for path in fs.named("installed.json"):
            if path.endswith("/composer/installed.json"):
                yield from _packages(fs, path, diagnostics)

    def explorer(self, image: ImageView) -> PhpExplorer:
        """What PHP programs need."""
        return PhpExplorer(image)


def _packages(fs: Filesystem, path: ImagePath, diagnostics: list[Diagnostic]) -> Iterator[Package]:
    rows, development = _installed(fs, path, diagnostics)
    folder = posixpath.dirname(path)
    for row in rows:
        name, version = row.get("name"), row.get("version")
        if not isinstance(name, str) or not isinstance(version, str) or not name:
            continue
        where = row.get("install-path")
        # Composer 1 has no install-path: packages are at vendor/NAME.
        root = clean(posixpath.join(folder, where if isinstance(where, str) else f"../{name}"))
        if not fs.is_dir(root) or root in SHARED or folder.startswith(root + "/"):
            continue
        licenses = row.get("license")
        requires = row.get("require")
        yield Package(
            ecosystem="php",
            name=name,
            version=version.removeprefix("v"),
            location=path,
            roots=(root,),
            category="dev-dependencies" if name in development else None,
            license=" OR ".join(str(one) for one in licenses) if isinstance(licenses, list) else None,
            requires=tuple(str(one) for one in requires) if isinstance(requires, dict) else (),
        )


def _installed(
    fs: Filesystem, path: ImagePath, diagnostics: list[Diagnostic]
) -> tuple[list[dict[str, Any]], frozenset[str]]:
    """The rows of an ``installed.json`` of Composer 1 or 2, and the names that only development needs."""
    text = bounded_read(fs, path, diagnostics)
    if text is None:
        return [], frozenset()
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        diagnostics.append(Diagnostic("warning", "broken-metadata", "is not JSON", path))
        return [], frozenset()
    rows = data.get("packages") if isinstance(data, dict) else data
    names = data.get("dev-package-names") if isinstance(data, dict) else ()
    development = frozenset(str(name) for name in names) if isinstance(names, list) else frozenset()
    found = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return found, development


class PhpExplorer(Explorer):
    """Follows command lines of the interpreters, their configuration, autoloaders and includes."""

    def __init__(self, image: ImageView) -> None:
        super().__init__(image)
        self._running = False
        self._configured: set[tuple[ImagePath, str]] = set()
        self._applications: set[ImagePath] = set()
        self._scanned: set[ImagePath] = set()
        self._include_path: list[ImagePath] = []

    def command(self, command: Command, program: ImagePath) -> Iterator[Edge | Command]:
        """``php [OPTION…] FILE``, ``php -S ADDRESS -t ROOT ROUTER``, ``php-fpm``, a program with PHP inside."""
        name = posixpath.basename(command.argv[0])
        match = PROGRAMS.match(name) or PROGRAMS.match(posixpath.basename(program))
        if match is None:
            return
        self._running = True
        options = _Options(command.argv[1:])
        yield from self._configuration(command, program, match[1], options)
        if match[1] == "php-fpm":
            yield from self._pools(command, program, options)
            yield from self._application(program, command.cwd, "the working directory of php-fpm")
            return
        root = clean(posixpath.join(command.cwd, options.root or "."))
        if options.served:
            yield from self._application(
                program, root, f"php -S serves {options.root or 'its working directory'}"
            )
        if options.code is not None:
            yield from self._includes(options.code, program, command.cwd)
        if options.script is not None:
            script = clean(posixpath.join(command.cwd, options.script))
            if not self.image.fs.is_file(script):
                # The built-in server takes a router by its include path too, and a script may be a folder (a phar).
                self.image.diagnose(
                    "script-not-found", f"php is given {options.script!r}, which is not there", program
                )
                return
            yield Edge(program, script, "script", f"php runs {options.script}", "certain")
            real = self.image.fs.follow(script) or script
            yield from self._scan(real)
            yield from self._application(real, posixpath.dirname(real), f"beside {posixpath.basename(real)}")

    def edges(self, path: ImagePath) -> Iterator[Edge | Command]:
        """What a PHP file includes."""
        if self._running and path.endswith((".php", ".phtml", ".inc")):
            yield from self._scan(path)

    def finish(self, kept: Mapping[ImagePath, Edge]) -> Iterator[Edge | Command]:
        """Files that were kept before an interpreter was seen; an Apache that loads PHP."""
        for path in kept:
            name = posixpath.basename(path)
            if (
                name.startswith("libphp")
                and name.endswith(".so")
                and (path, "apache2") not in self._configured
            ):
                self._running = True
                served = Command(path, (path,), "Apache's PHP", "/", self.image.env)
                yield from self._configuration(served, path, "apache2", _Options(()))
        if self._running:
            for path in kept:
                if path.endswith((".php", ".phtml", ".inc")):
                    yield from self._scan(path)

    # -- configuration -------------------------------------------------------------------------------------

    def _configuration(
        self, command: Command, program: ImagePath, kind: str, options: _Options
    ) -> Iterator[Edge | Command]:
        if (program, kind) in self._configured:
            return
        self._configured.add((program, kind))
        layout = _Layout(self.image, program, SAPI_FOLDERS.get(kind, kind))
        extensions: list[tuple[str, str, ImagePath]] = []
        for path in layout.ini_files(options, command.env):
            yield Edge(program, path, "config", "the interpreter reads it at its start", "certain")
            yield from self._ini(path, extensions, layout)
        extensions += [("extension", value, program) for value in options.extensions]
        for key, value, source in extensions:
            found = layout.extension(value)
            if found is not None:
                yield Edge(source, found, "plugin", f"{key} = {value}", "certain")
            elif value:
                self.image.diagnose(
                    "extension-not-found", f"{key} = {value}: it is not there", source, "info"
                )
        for folder in ("/usr/share/php", "/usr/share/pear", "/usr/local/lib/php"):
            if self.image.fs.is_dir(folder) and folder not in self._include_path:
                self._include_path.append(folder)
        if layout.reads_zoneinfo:
            yield from self.image.tree(
                program,
                "/usr/share/zoneinfo",
                "data",
                "the program has /usr/share/zoneinfo in place of PHP's own time zones",
                "assumed",
                skip=("posix", "right"),
            )

    def _ini(
        self, path: ImagePath, extensions: list[tuple[str, str, ImagePath]], layout: _Layout
    ) -> Iterator[Edge | Command]:
        fs = self.image.fs
        source = fs.follow(path) or path
        for line in self._text(path).splitlines():
            match = _INI_LINE.match(line)
            if match is None:
                continue
            key, value = match[1].lower(), match[2].partition(";")[0].strip().strip("\"'")
            if key in ("extension", "zend_extension"):
                extensions.append((key, value, source))
            elif key == "extension_dir" and fs.is_dir(value):
                layout.folders.insert(0, value)
            elif key in INI_FILES and value.startswith("/"):
                kind = INI_FILES[key]
                for one in value.split(":") if key == "include_path" else [value.rpartition(";")[2]]:
                    target = posixpath.dirname(one) if kind == "log" else one
                    if target not in SHARED and fs.exists(fs.resolve_parent(target)):
                        yield Edge(source, target, "config", f"{key} = {value}", "certain")
                if key == "include_path":
                    self._include_path += [one for one in value.split(":") if one.startswith("/")]

    def _pools(self, command: Command, program: ImagePath, options: _Options) -> Iterator[Edge | Command]:
        """php-fpm's configuration and its pools (php.net/manual/en/install.fpm.configuration.php)."""
        layout = _Layout(self.image, program, "fpm")
        tried = [options.config] if options.config else [f"{folder}/php-fpm.conf" for folder in layout.homes]
        queue = [clean(posixpath.join(command.cwd, path)) for path in tried if path]
        read: set[ImagePath] = set()
        while queue and len(read) < MAX_INCLUDES:
            path = queue.pop(0)
            if path in read or not self.image.fs.is_file(path):
                continue
            read.add(path)
            yield Edge(program, path, "config", "php-fpm reads it at its start", "certain")
            source = self.image.fs.follow(path) or path
            for line in self._text(path).splitlines():
                match = _FPM_LINE.match(line)
                if match is None or line.lstrip().startswith(";"):
                    continue
                key, value = match[1], match[2].strip("\"'")
                evidence = f"{key} = {value}"
                if key == "include":
                    queue += self.image.fs.glob(clean(posixpath.join(posixpath.dirname(path), value)))
                elif key == "chdir" and value.startswith("/"):
                    yield from self._application(source, value, evidence)
                elif value.startswith("/") and key in (
                    *("pid", "error_log", "access.log", "slowlog", "listen", "php_admin_value[error_log]"),
                    *("php_value[session.save_path]", "php_admin_value[session.save_path]"),
                ):
                    folder = value if "save_path" in key else posixpath.dirname(value)
                    if folder != "/" and self.image.fs.is_dir(folder):
                        yield Edge(source, folder, "config", evidence, "certain")

    # -- applications --------------------------------------------------------------------------------------

    def _application(self, source: ImagePath, folder: ImagePath, evidence: str) -> Iterator[Edge | Command]:
        """The whole application: templates, classes and data are found by computed names."""
        fs = self.image.fs
        root = self._project(folder)
        if root in self._applications or root in SHARED or not fs.is_dir(root):
            return
        if self.image.category_of(root) not in ("app", "other", "dependencies", None) and root == folder:
            return
        owner = self.image.owner_of(root)
        if owner is not None and owner.is_os:
            return
        self._applications.add(root)
        for edge in self.image.tree(source, root, "app-file", evidence, "assumed", without=NOT_RUN):
            owner = self.image.owner_of(edge.target)
            if owner is None or edge.target == root:
                yield edge
        if fs.is_file(f"{root}/vendor/autoload.php"):
            yield from self._autoloader(source, f"{root}/vendor/autoload.php")

    def _project(self, folder: ImagePath) -> ImagePath:
        """The folder above that has a composer.json or an autoloader; else the folder itself."""
        at = folder
        while at not in SHARED and at != "/":
            if self.image.fs.is_file(f"{at}/composer.json") or self.image.fs.is_file(
                f"{at}/vendor/autoload.php"
            ):
                return at
            at = posixpath.dirname(at)
        return folder

    def _autoloader(self, source: ImagePath, autoload: ImagePath) -> Iterator[Edge | Command]:
        """The autoloader and the packages that it can load classes of."""
        fs = self.image.fs
        vendor = posixpath.dirname(autoload)
        yield Edge(source, autoload, "require", "the application's autoloader", "assumed")
        folder = f"{vendor}/composer"
        for name in fs.listdir(folder):
            if name.endswith(".php") or name == "installed.json":
                yield Edge(autoload, f"{folder}/{name}", "require", "the autoloader's tables", "certain")
        for table in ("autoload_files.php",):
            for base, path in _AUTOLOAD_FILE.findall(self._text(f"{folder}/{table}")):
                at = clean(
                    {"$baseDir": posixpath.dirname(vendor), "$vendorDir": vendor}.get(base, folder) + path
                )
                if fs.is_file(at):
                    yield Edge(f"{folder}/{table}", at, "require", "loaded at each start", "certain")
        installed = f"{folder}/installed.json"
        for package in self.image.packages:
            if package.location == installed and package.category != "dev-dependencies":
                evidence = f"{package.name} {package.version}: production needs it"
                for root in package.roots:
                    yield from self._package(autoload, root, evidence)

    def _package(self, source: ImagePath, root: ImagePath, evidence: str) -> Iterator[Edge]:
        for edge in self.image.tree(source, root, "package-file", evidence, "likely", without=NOT_RUN):
            inside = self.image.owner_of(edge.target)
            if inside is None or root in inside.roots:
                yield edge

    # -- files ---------------------------------------------------------------------------------------------

    def _scan(self, path: ImagePath) -> Iterator[Edge | Command]:
        if path in self._scanned:
            return
        self._scanned.add(path)
        if path.endswith(("/composer/autoload_static.php", "/composer/autoload_classmap.php")):
            return
        if path.endswith("/vendor/autoload.php"):
            yield from self._autoloader(path, path)
        text = self._text(path)
        if "require" in text or "include" in text:
            yield from self._includes(text, path, posixpath.dirname(path))

    def _includes(self, text: str, source: ImagePath, folder: ImagePath) -> Iterator[Edge | Command]:
        fs = self.image.fs
        for match in _INCLUDE.finditer(text):
            base, levels, name = match[1], match[2], match[3]
            evidence = f"line {text.count(chr(10), 0, match.start()) + 1}: {match[0].strip()[:100]}"
            if base is not None:
                above = 0 if base == "__DIR__" else int(levels or 1) - ("__FILE__" in base)
                at = folder
                for _ in range(above):
                    at = posixpath.dirname(at)
                candidates = [at + ("" if name.startswith("/") else "/") + name]
            elif name.startswith("/"):
                candidates = [name]
            else:
                candidates = [f"{one}/{name}" for one in (*self._include_path, folder)]
            for candidate in candidates:
                target = clean(candidate)
                if fs.is_file(target):
                    yield Edge(source, target, "require", evidence, "certain")
                    yield from self._library(target, evidence)
                    break

    def _library(self, target: ImagePath, evidence: str) -> Iterator[Edge]:
        """An autoloader in a shared folder (Debian's Composer packages) loads whatever lies beside it."""
        folder = posixpath.dirname(target)
        if posixpath.basename(target) == "autoload.php" and folder.startswith(
            ("/usr/share/php/", "/usr/share/pear/")
        ):
            yield from self.image.tree(target, folder, "package-file", evidence, "likely", without=NOT_RUN)

    def _text(self, path: ImagePath) -> str:
        try:
            return self.image.fs.read(path, SCRIPT_LIMIT).decode("utf-8", "replace")
        except (LayerLensError, OSError):
            return ""


class _Options:
    """A command line of php(1) or php-fpm(8)."""

    def __init__(self, words: Sequence[str]) -> None:
        self.script: str | None = None
        self.code: str | None = None
        self.root: str | None = None
        self.ini: str | None = None
        self.config: str | None = None
        self.served = self.no_ini = False
        self.extensions: list[str] = []
        at = after_options(words, self._one)
        if at < len(words):
            self._operand(words[at])

    def _one(self, word: str, following: str) -> int:
        """Note an option; how many words it takes."""
        name, value = word[:2], word[2:]
        if word.startswith("--"):
            name, _, value = word.partition("=")
            name = {"--fpm-config": "-y", "--php-ini": "-c", "--define": "-d", "--docroot": "-t"}.get(
                name, name
            )
        apart = name in TAKES_WORD and not value
        self._set(name, following if apart else value)
        return 2 if apart else 1

    def _operand(self, word: str) -> None:
        if self.script is None and self.code is None:
            self.script = word

    def _set(self, name: str, value: str) -> None:
        if name in ("-f", "-r", "-t", "-c", "-y"):
            setattr(
                self, {"-f": "script", "-r": "code", "-t": "root", "-c": "ini", "-y": "config"}[name], value
            )
        elif name == "-S":
            self.served = True
        elif name == "-n":
            self.no_ini = True
        elif name in ("-d", "-z"):
            key, _, extension = value.partition("=")
            if name == "-z" or key in ("extension", "zend_extension"):
                self.extensions.append(extension if name == "-d" else value)


class _Layout:
    """Where an interpreter finds its configuration and extensions: strings in the program that exist as folders."""

    def __init__(self, image: ImageView, program: ImagePath, sapi: str) -> None:
        self.fs = image.fs
        try:
            content = self.fs.read(program, PROGRAM_LIMIT)
        except (LayerLensError, OSError):
            content = b""
        self.reads_zoneinfo = b"/usr/share/zoneinfo" in content and self.fs.is_dir("/usr/share/zoneinfo")
        self.scanned = self._folders(_SCAN_FOLDER, content)
        self.folders = self._folders(_EXTENSION_FOLDER, content)
        """Folders of extensions, the one that counts first."""
        above = [posixpath.dirname(folder) for folder in self.scanned]
        homes = [
            *above,
            *(posixpath.dirname(folder) for folder in above if posixpath.basename(folder) == "php"),
        ]
        self.homes = list(dict.fromkeys([*homes, *self._folders(_CONFIG_FOLDER, content)]))
        debian = [home for home in self.homes if posixpath.basename(home) == sapi]
        if debian:
            self.homes = debian
            self.scanned = [folder for folder in self.scanned if posixpath.dirname(folder) in debian]

    def _folders(self, pattern: re.Pattern[bytes], content: bytes) -> list[ImagePath]:
        found = dict.fromkeys(match.decode("latin-1") for match in pattern.findall(content))
        return [folder for folder in found if self.fs.is_dir(folder)]

    def ini_files(self, options: _Options, env: Mapping[str, str]) -> Iterator[ImagePath]:
        """The main file and those of the scanned folders (php.net/manual/en/configuration.file.php)."""
        if options.no_ini:
            return
        mains = [f"{home}/php.ini" for home in self.homes]
        for asked in (options.ini, env.get("PHPRC")):
            if asked:
                mains = [asked, f"{asked}/php.ini"]
                break
        yield from [path for path in mains if self.fs.is_file(path)][:1]
        folders = self.scanned
        asked = env.get("PHP_INI_SCAN_DIR")
        if asked is not None:
            folders = [one for part in asked.split(":") for one in ([part] if part else self.scanned)]
        for folder in folders:
            for name in self.fs.listdir(folder):
                if name.endswith(".ini") and self.fs.is_file(f"{folder}/{name}"):
                    yield f"{folder}/{name}"

    def extension(self, value: str) -> ImagePath | None:
        """The file of an extension: a path, a file name or, from PHP 7.2, a bare name."""
        if value.startswith("/"):
            return value if self.fs.is_file(value) else None
        for folder in self.folders:
            for name in (value, f"{value}.so"):
                if value and self.fs.is_file(f"{folder}/{name}"):
                    return f"{folder}/{name}"
        return None


ecosystem = Php()
