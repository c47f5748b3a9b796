"""Ruby: gems, Bundler, and what programs require.

Gems are found by their specifications (RubyGems guides, "Specification reference"; ``gem environment``): a folder
``specifications`` beside ``gems`` and ``extensions``. What a program needs starts at its script, ``-r`` and ``-e``,
at Bundler's Gemfile and its lock, and follows ``require``, ``require_relative``, ``load`` and ``autoload`` with
literal names through ``$LOAD_PATH`` and the gems; a gem of which anything is reached is kept whole, its dependencies
too.
What every start loads (gem_prelude.rb) and the few encodings that have no other name than a string are rules here.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from layerlens.ecosystems import UNNEEDED_CATEGORIES, Explorer, ImageView, bounded_read
from layerlens.ecosystems._options import after_options
from layerlens.ecosystems.arguments import SHARED, clean, literal_files
from layerlens.errors import LayerLensError
from layerlens.model import Certainty, Command, Diagnostic, Edge, EntryType, ImageConfig, ImagePath, Package
from layerlens.patterns import regex

if TYPE_CHECKING:
    from layerlens.filesystem import Filesystem

RUBY = regex(r"(?:ruby|jruby|truffleruby)-?[\d.]*\Z")
BUNDLER = regex(r"bundler?[\d.]*\Z")
SPEC_LIMIT = 1 << 20
SCRIPT_LIMIT = 2 << 20
EXTENSION_LIMIT = 8 << 20
MAX_GEMS = 5000
NOT_RUN = UNNEEDED_CATEGORIES - {"dev-dependencies"}
NOT_RUN_APP = UNNEEDED_CATEGORIES | {"sources"}
BUILD_FOLDERS = (
    "ext",
    "sig",
    "rbi",
    "doc",
    "docs",
    "test",
    "tests",
    "spec",
    "features",
    "benchmark",
    "benchmarks",
)
"""Folders at the top of a gem that are for building, checking and reading it (RubyGems guides, "Gems with
extensions": what ``ext`` is built into lies in ``lib`` and ``extensions``)."""
NOT_IN_PRODUCTION = frozenset(["development", "test"])
"""Groups of a Gemfile of which only the specifications are needed: Bundler resolves them all the same."""

DEVELOPERS = frozenset(
    ["Gemfile", "Rakefile", "Guardfile", "Capfile", "Vagrantfile", "Dangerfile", "Brewfile"]
)
"""Ruby programs that nobody runs in production; what they name is for building and checking."""

COMPUTED: Mapping[str, tuple[str, ...]] = {
    # Features that a library requires by a computed name, and where it does.
    "digest": ("digest/md5", "digest/sha1", "digest/sha2", "digest/rmd160"),  # const_missing in digest.rb
    "openssl/digest": ("digest",),
    "json": ("json/ext", "json/ext/parser", "json/ext/generator"),  # json/common.rb
}

AT_START = (
    # gem_prelude.rb, and Init_enc, Init_prelude in ruby's source: what ruby loads before the script.
    *("rubygems", "monitor", "rbconfig", "enc/encdb", "enc/trans/transdb"),
    *("error_highlight", "did_you_mean", "syntax_suggest/core_ext", "rubygems/defaults/operating_system"),
)
ENCODINGS = (
    # Encodings that texts of programs and the web are in by default; others are kept where a program names them.
    *("utf_16be", "utf_16le", "utf_32be", "utf_32le", "iso_8859_1", "iso_8859_15", "windows_1252"),
    *("trans/single_byte", "trans/utf_16_32", "trans/utf8_mac"),
)
_ENCODING_NAMES: Mapping[str, tuple[str, ...]] = {
    # A name in a program's text, and the extensions that carry the encoding (enc/ and enc/trans/ of ruby's source).
    r"shift[_-]?jis|windows-31j|cp932|\bsjis": (
        "shift_jis",
        "windows_31j",
        "trans/japanese",
        "trans/japanese_sjis",
    ),
    r"euc-jp|cp51932|eucjp": ("euc_jp", "trans/japanese", "trans/japanese_euc"),
    r"iso-2022-jp": ("iso_2022_jp", "trans/iso2022", "trans/japanese"),
    r"\bgbk\b|gb18030|gb2312|euc-cn": (
        "gbk",
        "gb18030",
        "gb2312",
        "trans/chinese",
        "trans/gb18030",
        "trans/gbk",
    ),
    r"\bbig5": ("big5", "trans/big5", "trans/chinese"),
    r"euc-kr|cp949": ("euc_kr", "cp949", "trans/korean"),
    r"koi8": ("koi8_r", "koi8_u"),
    r"windows-125|cp125": tuple(f"windows_125{digit}" for digit in range(8)),
    r"iso-8859": tuple(f"iso_8859_{number}" for number in range(1, 17)),
}
_ANY_ENCODING = regex("|".join(_ENCODING_NAMES), re.IGNORECASE)

_C_FEATURE = regex(rb"(?<=\0)[a-z]\w{1,40}(?:/\w{1,40}){0,4}(?:\.rb|\.so)?(?=\0)")
_REQUIRE = regex(
    r"""(?:^|[\s;({&|=!])(?:Kernel\.)?(require|load|gem|require_dependency)\s*\(?\s*(['"])([^'"\n]{1,300})\2"""
)
_RELATIVE = regex(r"""\brequire_relative\s*\(?\s*(['"])([^'"\n]{1,300})\1""")
_AUTOLOAD = regex(r"""\bautoload\s*\(?\s*:?['"]?[\w:]+['"]?\s*,\s*(['"])([^'"\n]{1,300})\1""")
_PLACED = regex(
    r"""File\.(?:expand_path\(\s*['"]([^'"#\n]{1,300})['"]\s*,\s*(__dir__|__FILE__|File\.dirname\(__FILE__\))"""
    r"""|join\(\s*(__dir__|File\.dirname\(__FILE__\))\s*,\s*['"]([^'"#\n]{1,300})['"])"""
    r"""|["']\#\{(?:__dir__|File\.dirname\(__FILE__\))\}/([^'"#\n]{1,300})["']"""
)
_STRING = regex(r"""(['"])([^'"#\n]{2,200})\1""")
_JOINED = regex(
    r"""\.join\(\s*[^'"\n(]{0,100}(?:\([^()\n]{0,100}\))?[^'"\n(]{0,20}((?:['"][^'"#\n]{1,100}['"]\s*,?\s*)+)\)"""
)
_BINSTUB = regex(r"""(?:activate_bin_path|bin_path)\s*\(\s*['"]([\w.-]+)['"]\s*,\s*['"]([\w.-]+)['"]""")
_DEPENDS = regex(r"""\.add_(?:runtime_)?dependency\s*\(?\s*(?:%q<([^>\n]+)>|['"]([^'"\n]+)['"])""")
_STUB = regex(r"^# stub: (\S+) (\S+) (\S+) (.*)$", re.MULTILINE)
_NAME = regex(r"""^\s*\w+\.name\s*=\s*['"]([^'"\n]+)['"]""", re.MULTILINE)
_BINDIR = regex(r"""\.bindir\s*=\s*['"]([^'"\n]+)['"]""")
_LICENSES = regex(r"""\.licenses?\s*=\s*\[?\s*['"]([^'"\n]+)['"]""")
_GROUP = regex(r"^\s*group\s*\(?\s*(.*?)\)?\s+do\b")
_GEM_LINE = regex(r"""^\s*gem\s*\(?\s*['"]([^'"\n]+)['"](.*)$""")
_GEM_GROUP = regex(r""":?groups?:?\s*(?:=>)?\s*(\[[^\]]*\]|:\w+|['"]\w+['"])""")


@dataclass(frozen=True, slots=True)
class Gem:
    """An installed gem, as its specification says."""

    name: str
    version: str
    full_name: str
    """The specification's file name: ``nokogiri-1.15.4-x86_64-linux``."""
    home: ImagePath
    """The folder with ``specifications``, ``gems`` and ``extensions``."""
    specification: ImagePath
    is_default: bool
    requires: tuple[str, ...] = ()
    require_paths: tuple[str, ...] = ("lib",)
    bindir: str = "bin"
    license: str | None = None

    @property
    def root(self) -> ImagePath:
        """The folder of its files."""
        return f"{self.home}/gems/{self.full_name}"


class Ruby:
    """Installed gems, and what Ruby programs need."""

    name = "ruby"

    endings: tuple[str, ...] = (".gemspec",)

    def wants(self, path: ImagePath) -> bool:
        """Specifications."""
        return path.endswith(".gemspec") and "/specifications/" in path

    def packages(
        self, fs: Filesystem, config: ImageConfig, diagnostics: list[Diagnostic]
    ) -> Iterable[Package]:
        """Every gem with a folder or an extension of its own, by the path of its specification."""
        for gem in gems(fs, diagnostics):
            extensions = extension_folders(fs, gem)
            roots = tuple(folder for folder in (gem.root, *extensions) if fs.is_dir(folder))
            if roots and not gem.is_default:
                yield Package(
                    ecosystem="ruby",
                    name=gem.name,
                    version=gem.version,
                    location=gem.specification,
                    paths=(gem.specification,),
                    roots=roots,
                    license=gem.license,
                    requires=gem.requires,
                )

    def explorer(self, image: ImageView) -> RubyExplorer:
        """What Ruby programs need."""
        return RubyExplorer(image)


def gems(fs: Filesystem, diagnostics: list[Diagnostic]) -> Iterator[Gem]:
    """Every specification of the image; default gems (those that ruby's own library is made of) too."""
    count = 0
    for folder in fs.directories_named("specifications"):
        home = posixpath.dirname(folder)
        for below, is_default in ((folder, False), (f"{folder}/default", True)):
            for name in fs.listdir(below):
                path = f"{below}/{name}"
                if name.endswith(".gemspec") and fs.type_of(path) == EntryType.FILE and count < MAX_GEMS:
                    count += 1
                    gem = _gem(fs, home, path, is_default, diagnostics)
                    if gem is not None:
                        yield gem


def _gem(
    fs: Filesystem, home: ImagePath, path: ImagePath, is_default: bool, diagnostics: list[Diagnostic]
) -> Gem | None:
    text = bounded_read(fs, path, diagnostics, SPEC_LIMIT)
    if text is None:
        return None
    full_name = posixpath.basename(path).removesuffix(".gemspec")
    stub = _STUB.search(text[:4096])
    name = stub[1] if stub else (_NAME.search(text) or ["", ""])[1]
    version = stub[2] if stub else full_name.removeprefix(f"{name}-") if name else ""
    if not name or not version or not full_name.startswith(name):
        diagnostics.append(Diagnostic("warning", "broken-metadata", "names no gem", path))
        return None
    bindir = _BINDIR.search(text)
    license_name = _LICENSES.search(text)
    depends = dict.fromkeys(one or other for one, other in _DEPENDS.findall(_without_else(text)))
    return Gem(
        name=name,
        version=version,
        full_name=full_name,
        home=home,
        specification=path,
        is_default=is_default,
        requires=tuple(depends),
        require_paths=tuple(one for one in stub[4].split("\0") if one) if stub else ("lib",),
        bindir=bindir[1] if bindir else "bin",
        license=license_name[1] if license_name else None,
    )


def _without_else(text: str) -> str:
    """A specification without what it says to RubyGems of before 1.2, development dependencies included."""
    return text.partition("\n  else\n")[0]


def extension_folders(fs: Filesystem, gem: Gem) -> list[ImagePath]:
    """Where a gem's compiled extensions are: ``extensions/PLATFORM/API/FULL_NAME``."""
    found = []
    base = f"{gem.home}/extensions"
    for platform in fs.listdir(base):
        for api in fs.listdir(f"{base}/{platform}"):
            folder = f"{base}/{platform}/{api}/{gem.full_name}"
            if fs.is_dir(folder):
                found.append(folder)
    return found


class RubyExplorer(Explorer):
    """Follows command lines of ruby, Gemfiles and ``require``."""

    def __init__(self, image: ImageView) -> None:
        super().__init__(image)
        self._layout: _Layout | None = None
        self._gems: _Gems | None = None
        self._scanned: set[ImagePath] = set()
        self._reached: set[str] = set()
        self._bundles: set[ImagePath] = set()
        self._applications: set[ImagePath] = set()
        self._cwd = "/"

    # -- command lines -------------------------------------------------------------------------------------

    def command(self, command: Command, program: ImagePath) -> Iterator[Edge | Command]:
        """``ruby [OPTION…] SCRIPT``; a gem's program arrives as its interpreter's command line."""
        names = (posixpath.basename(command.argv[0]), posixpath.basename(program))
        if not any(RUBY.match(name) for name in names):
            return
        if self._layout is None:
            self._layout = _Layout(self.image, program, command.env)
            self._gems = _Gems(self.image, self._layout)
            yield from self._start(program)
        self._cwd = command.cwd
        options = _Options((*command.env.get("RUBYOPT", "").split(), *command.argv[1:]))
        for folder in reversed(options.folders):
            self._layout.load_path.insert(0, clean(posixpath.join(command.cwd, folder)))
        for feature in options.libraries:
            yield from self._feature(program, feature, f"-r {feature}", "certain", command)
        if options.code is not None:
            yield from self._text(options.code, program, command.cwd, command)
        if options.script is None:
            return
        script = self._script(options, command)
        if script is None:
            self.image.diagnose(
                "script-not-found", f"ruby is given {options.script!r}, which is not there", program
            )
            return
        yield Edge(program, script, "script", f"ruby runs {options.script}", "certain")
        real = self.image.fs.follow(script) or script
        if BUNDLER.match(posixpath.basename(script)):
            yield from self._bundle(real, command)
        yield from self._scan(real, command)
        yield from self._run(real, posixpath.basename(script), options.arguments, command)

    def _script(self, options: _Options, command: Command) -> ImagePath | None:
        fs = self.image.fs
        folders = [command.cwd]
        if options.searches and options.script and "/" not in options.script:
            folders += [folder for folder in command.env.get("PATH", "").split(":") if folder]
        for folder in folders:
            path = clean(posixpath.join(command.cwd, folder, options.script or ""))
            if fs.is_file(path):
                return path
        return None

    def _run(
        self, script: ImagePath, name: str, words: Sequence[str], command: Command
    ) -> Iterator[Edge | Command]:
        """What a script does beyond what it requires: Bundler's commands, and the application around it."""
        if BUNDLER.match(name):
            inner = _bundled(words)
            if inner:
                folders = self._program_folders()
                env = dict(command.env)
                env["PATH"] = ":".join([*folders, env.get("PATH", "")])
                env["RUBYOPT"] = f"-rbundler/setup {env.get('RUBYOPT', '')}".strip()
                yield Command(script, tuple(inner), f"bundle exec {' '.join(inner)}", command.cwd, env)
        for folder in dict.fromkeys((command.cwd, posixpath.dirname(script))):
            yield from self._application(script, folder)

    def _program_folders(self) -> list[ImagePath]:
        assert self._gems is not None
        found = [f"{home}/bin" for home in self._gems.homes]
        return [folder for folder in found if self.image.fs.is_dir(folder)]

    def edges(self, path: ImagePath) -> Iterator[Edge | Command]:
        """What a kept Ruby file requires."""
        if self._layout is None:
            return
        if path.endswith((".rb", ".ru")):
            yield from self._scan(path, None)
        elif path.endswith(".so") and path.startswith(self._layout.extensions):
            yield from self._extension(path)

    def _extension(self, path: ImagePath) -> Iterator[Edge | Command]:
        """Features that a compiled extension requires: ``rb_require("psych/syntax_error")``."""
        assert self._layout is not None
        try:
            content = self.image.fs.read(path, EXTENSION_LIMIT)
        except (LayerLensError, OSError):
            return
        if b"rb_require" not in content:
            return
        for name in dict.fromkeys(_C_FEATURE.findall(content)):
            feature = name.decode("latin-1")
            found = self._layout.find(feature)
            if found is not None and found != path:
                yield Edge(path, found, "require", f"rb_require {feature}", "likely")

    def finish(self, kept: Mapping[ImagePath, Edge]) -> Iterator[Edge | Command]:
        """Files that were kept before an interpreter was seen."""
        if self._layout is not None:
            for path in kept:
                if path.endswith((".rb", ".ru")):
                    yield from self._scan(path, None)
            yield from self._shared_specifications(kept)

    def _shared_specifications(self, kept: Mapping[ImagePath, Edge]) -> Iterator[Edge]:
        """Specifications of gems that an OS package has beside files that are kept: it is there, so are they."""
        assert self._gems is not None
        for gem in self._gems.installed:
            owner = self.image.owner_of(gem.specification)
            if owner is None or not owner.is_os or gem.specification in kept:
                continue
            beside = next((path for path in owner.paths if path in kept and path != gem.specification), None)
            if beside is not None:
                yield Edge(
                    beside, gem.specification, "package-file", "RubyGems reads every specification", "certain"
                )

    def _start(self, program: ImagePath) -> Iterator[Edge | Command]:
        """What ruby loads before any script."""
        assert self._layout is not None
        for feature in AT_START:
            found = self._layout.find(feature)
            if found is not None:
                yield Edge(program, found, "require", "loaded at each start (gem_prelude.rb)", "certain")
                yield from self._scan(found, None)
        for folder in self._layout.archives:
            for name in ENCODINGS:
                path = f"{folder}/enc/{name}.so"
                if self.image.fs.is_file(path):
                    yield Edge(program, path, "plugin", "an encoding that is loaded by its name", "assumed")
        for home in self._layout.homes:
            defaults = f"{home}/specifications/default"
            if self.image.fs.is_dir(defaults):
                evidence = "RubyGems reads the default gems' specifications at its start"
                yield from self.image.tree(
                    program, defaults, "require", evidence, "certain", without=frozenset()
                )

    # -- applications and Bundler --------------------------------------------------------------------------

    def _application(self, source: ImagePath, folder: ImagePath) -> Iterator[Edge | Command]:
        """The application around a Gemfile, a config.ru or a script: views and classes are found by name."""
        fs = self.image.fs
        root = self._project(folder)
        if root is None or root in self._applications:
            return
        self._applications.add(root)
        evidence = f"the application in {root}"
        for edge in self.image.tree(source, root, "app-file", evidence, "assumed", without=NOT_RUN_APP):
            if edge.target == root or self.image.owner_of(edge.target) is None:
                yield edge
        for name in ("tmp", "log", "tmp/pids", "tmp/sockets", "tmp/cache"):
            if fs.is_dir(f"{root}/{name}"):
                yield Edge(source, f"{root}/{name}", "app-file", evidence, "assumed")

    def _project(self, folder: ImagePath) -> ImagePath | None:
        fs = self.image.fs
        at = folder
        while at not in SHARED and at != "/":
            if any(fs.is_file(f"{at}/{name}") for name in ("Gemfile", "gems.rb", "config.ru", "Rakefile")):
                owner = self.image.owner_of(f"{at}/Gemfile") or self.image.owner_of(f"{at}/Rakefile")
                return at if owner is None else None
            at = posixpath.dirname(at)
        if folder not in SHARED and self.image.category_of(folder) == "app":
            return folder if any(name.endswith(".rb") for name in fs.listdir(folder)) else None
        return None

    def _bundle(self, source: ImagePath, command: Command) -> Iterator[Edge | Command]:
        """Bundler's Gemfile, and every gem that it resolves (bundler.io, "Gemfile" and "bundle config")."""
        fs = self.image.fs
        gemfile = self._gemfile(command)
        if gemfile is None or gemfile in self._bundles or self._gems is None:
            return
        self._bundles.add(gemfile)
        bundle = _Bundle(self.image, gemfile, command.env)
        for path in (gemfile, bundle.lock, *bundle.configs):
            if fs.is_file(path):
                yield Edge(source, path, "config", "Bundler reads it at its start", "certain")
        self._gems.add_homes(bundle.homes())
        self._gems.locked.update(bundle.versions)
        self._gems.locked["bundler"] = bundle.bundler
        lock = bundle.lock if fs.is_file(bundle.lock) else gemfile
        yield from self._gem(source, "bundler", "Bundler itself", "certain")
        for name, needed in bundle.wanted(self._gems).items():
            evidence = f"{posixpath.basename(lock)}: {name} {bundle.versions.get(name, '')}".strip()
            if needed:
                yield from self._gem(lock, name, evidence, "certain")
            else:
                gem = self._gems.pick(name)
                if gem is not None:
                    why = f"{evidence}, which Bundler resolves though its group is not loaded"
                    yield Edge(lock, gem.specification, "package-file", why, "certain")
        for folder in bundle.sources:
            yield from self.image.tree(
                lock, folder, "package-file", "a path gem", "likely", without=NOT_RUN_APP
            )

    def _gemfile(self, command: Command) -> ImagePath | None:
        fs = self.image.fs
        asked = command.env.get("BUNDLE_GEMFILE")
        if asked:
            path = clean(posixpath.join(command.cwd, asked))
            return path if fs.is_file(path) else None
        at = command.cwd
        while True:
            for name in ("Gemfile", "gems.rb"):
                path = clean(f"{at}/{name}")
                if fs.is_file(path):
                    return path
            if at in ("/", ""):
                return None
            at = posixpath.dirname(at)

    def _gem(
        self, source: ImagePath, name: str, evidence: str, certainty: Certainty
    ) -> Iterator[Edge | Command]:
        """A whole gem and its dependencies, once."""
        assert self._gems is not None and self._layout is not None
        gem = self._gems.pick(name)
        if gem is None or gem.specification in self._reached:
            return
        self._reached.add(gem.specification)
        fs, image = self.image.fs, self.image
        yield Edge(source, gem.specification, "package-file", evidence, certainty)
        whole = f"{gem.name} {gem.version} is kept whole"
        at = gem.specification
        for folder in (gem.root, *extension_folders(fs, gem)):
            for edge in image.tree(at, folder, "package-file", whole, "likely", without=NOT_RUN):
                top = edge.target[len(gem.root) + 1 :].partition("/")[0]
                if not edge.target.startswith(f"{gem.root}/") or top not in BUILD_FOLDERS:
                    yield edge
        package = self._gems.package_of(gem)
        if package is not None:
            folders = tuple(f"{folder}/" for folder in self._layout.load_path)
            for path in package.paths:
                if path.startswith(folders) and fs.exists(path) and image.category_of(path) not in NOT_RUN:
                    yield Edge(at, path, "package-file", whole, "likely")
        for feature in dict.fromkeys((gem.name, gem.name.replace("-", "/"))):
            yield from self._feature(at, feature, f"{gem.name}'s own name", "likely", None)
        for needed in gem.requires:
            yield from self._gem(at, needed, f"{gem.name} depends on {needed}", "certain")
        if gem.name == "tzinfo" and self._gems.pick("tzinfo-data") is None:
            evidence = "tzinfo reads the system's zones without tzinfo-data"
            folder = "/usr/share/zoneinfo"
            yield from image.tree(at, folder, "data", evidence, "likely", skip=("right", "posix"))

    # -- requires ------------------------------------------------------------------------------------------

    def _scan(self, path: ImagePath, command: Command | None) -> Iterator[Edge | Command]:
        if path in self._scanned:
            return
        self._scanned.add(path)
        if path.endswith(".so") or self.image.fs.type_of(path) != EntryType.FILE:
            return
        try:
            text = self.image.fs.read(path, SCRIPT_LIMIT).decode("utf-8", "replace")
        except (LayerLensError, OSError):
            return
        yield from self._text(text, path, posixpath.dirname(path), command)

    def _text(
        self, text: str, source: ImagePath, folder: ImagePath, command: Command | None
    ) -> Iterator[Edge | Command]:
        for number, line in code_lines(text):
            where = f"line {number}: "
            certainty: Certainty = "likely" if line[:1] in " \t" else "certain"
            if "require" in line or "load" in line or "gem" in line:
                for kind, _, feature in _REQUIRE.findall(line):
                    evidence = f"{where}{kind} {feature}"
                    if kind == "gem":
                        yield from self._gem(source, feature, evidence, certainty)
                    else:
                        yield from self._feature(source, feature, evidence, certainty, command)
                for _, name in _RELATIVE.findall(line):
                    yield from self._file(
                        source, f"{folder}/{name}", f"{where}require_relative {name}", certainty
                    )
                for _, name in _AUTOLOAD.findall(line):
                    yield from self._feature(source, name, f"{where}autoload {name}", "likely", command)
            if "bin_path" in line:
                for gem, program in _BINSTUB.findall(line):
                    yield from self._program(source, gem, program, f"{where}{gem}'s program {program}")
            if "__dir__" in line or "__FILE__" in line:
                for one, base, _, two, three in _PLACED.findall(line):
                    name = one or two or three
                    at = source if base == "__FILE__" else folder
                    yield from self._file(source, f"{at}/{name}", f"{where}{name}", "likely")
            if "Bundler.require" in line or "Bundler.setup" in line:
                yield from self._bundle(source, command or Command(source, (), "", self._cwd, self.image.env))
        if self.image.category_of(source) == "app":
            yield from self._encodings(text, source)
            yield from self._literals(text, source, folder)

    def _encodings(self, text: str, source: ImagePath) -> Iterator[Edge]:
        if self._layout is None or not _ANY_ENCODING.search(text):
            return
        for pattern, names in _ENCODING_NAMES.items():
            if re.search(pattern, text, re.IGNORECASE):
                for folder in self._layout.archives:
                    for name in names:
                        if self.image.fs.is_file(f"{folder}/enc/{name}.so"):
                            evidence = f"names an encoding ({pattern.replace(chr(92), '')})"
                            yield Edge(source, f"{folder}/enc/{name}.so", "plugin", evidence, "likely")

    def _literals(self, text: str, source: ImagePath, folder: ImagePath) -> Iterator[Edge]:
        """Files that strings of the application's own code name: ``File.join(root, "docs", "rules.md")``."""
        if posixpath.basename(source) in DEVELOPERS or source.endswith(".gemspec"):
            return
        root = self._project(folder)
        folders = [one for one in dict.fromkeys((root, folder, self._cwd)) if one and one not in SHARED]
        found: list[tuple[int, str]] = []
        for number, line in code_lines(text):
            if "'" in line or '"' in line:
                found += [
                    (number, value) for _, value in _STRING.findall(line) if "/" in value or "." in value
                ]
                for strings in _JOINED.findall(line):
                    found.append((number, "/" + "/".join(value for _, value in _STRING.findall(strings))))
        yield from literal_files(self.image, source, found, folders)

    def _file(
        self, source: ImagePath, path: str, evidence: str, certainty: Certainty
    ) -> Iterator[Edge | Command]:
        """A file that is named by its place, with or without its ending."""
        fs = self.image.fs
        for ending in ("", ".rb", ".so"):
            target = clean(path + ending)
            if fs.is_file(target):
                if target != source:
                    yield Edge(source, target, "require", evidence, certainty)
                return

    def _feature(
        self, source: ImagePath, feature: str, evidence: str, certainty: Certainty, command: Command | None
    ) -> Iterator[Edge | Command]:
        """What ``require`` finds: in ``$LOAD_PATH``, else in a gem (Kernel#require)."""
        assert self._layout is not None and self._gems is not None
        if feature in ("bundler/setup", "bundler"):
            asked = command or Command(source, (), "", self._cwd, self.image.env)
            if feature == "bundler/setup":
                yield from self._bundle(source, asked)
        if feature.startswith(("/", "./", "../")):
            base = "" if feature.startswith("/") else f"{self._cwd}/"
            yield from self._file(source, base + feature, evidence, certainty)
            return
        if "#{" in feature:
            for path in self._layout.like(feature):
                yield Edge(source, path, "require", evidence, "likely")
            return
        found = self._layout.find(feature)
        if found is not None:
            yield Edge(source, found, "require", evidence, certainty)
            for computed in COMPUTED.get(feature.removesuffix(".rb"), ()):
                target = self._layout.find(computed)
                if target is not None and target != found:
                    yield Edge(
                        found,
                        target,
                        "require",
                        f"{feature} requires {computed} by a computed name",
                        "likely",
                    )
            gem = self._gems.shipped_with(found)
            if gem is not None:
                yield from self._gem(source, gem, evidence, "likely")
            return
        for name in self._gems.with_feature(feature):
            yield from self._gem(source, name, evidence, certainty)
            return

    def _program(self, source: ImagePath, name: str, program: str, evidence: str) -> Iterator[Edge | Command]:
        """A gem's own program, which a stub in PATH loads."""
        assert self._gems is not None
        yield from self._gem(source, name, evidence, "certain")
        gem = self._gems.pick(name)
        if gem is None:
            return
        for folder in dict.fromkeys((gem.bindir, "exe", "bin", "libexec")):
            path = f"{gem.root}/{folder}/{program}"
            if self.image.fs.is_file(path):
                yield Edge(source, path, "script", evidence, "certain")
                yield from self._scan(self.image.fs.follow(path) or path, None)


class _Options:
    """A command line of ruby(1)."""

    code: str | None = None
    script: str | None = None
    searches = False

    def __init__(self, words: Sequence[str]) -> None:
        self.libraries: list[str] = []
        self.folders: list[str] = []
        rest = words[after_options(words, self._one) :]
        if self.code is None and rest:
            self.script, rest = rest[0], rest[1:]
        self.arguments = tuple(rest)

    def _one(self, word: str, following: str) -> int:
        """Note an option; how many words it takes."""
        if word.startswith("--"):
            return 2 if word in ("--encoding", "--external-encoding", "--internal-encoding") else 1
        letter = word[1]
        value = word[2:] or following
        taken = 1 if word[2:] else 2
        if letter == "r":
            self.libraries.append(value)
        elif letter == "I":
            self.folders += [folder for folder in value.split(":") if folder]
        elif letter == "e":
            self.code = f"{self.code or ''}\n{value}"
        elif re.fullmatch(r"-[nplaw]+e", word):
            self.code = f"{self.code or ''}\n{following}"
            return 2
        else:
            self.searches |= letter == "S"
            return taken if letter in "CEX" else 1
        return taken


class _Layout:
    """Where one ruby finds its library: ``$LOAD_PATH`` without the gems, and the homes of gems."""

    def __init__(self, image: ImageView, program: ImagePath, env: Mapping[str, str]) -> None:
        self.fs = image.fs
        prefix = posixpath.dirname(posixpath.dirname(program))
        configs = [
            path for path in self.fs.named("rbconfig.rb") if path.startswith(f"{prefix}/")
        ] or self.fs.named("rbconfig.rb")
        versions = sorted({version for path in configs for version in _api(path)}, key=_key)
        asked = re.search(r"(\d+)\.?(\d+)", posixpath.basename(program))
        fitting = [v for v in versions if asked and v.startswith(f"{asked[1]}.{asked[2]}.")] or versions
        self.version = fitting[-1] if fitting else ""
        self.archives = [posixpath.dirname(path) for path in configs if self.version in _api(path)]
        """Folders of compiled extensions (RbConfig's archdir)."""
        self.load_path = self._load_path(prefix, env)
        self.homes = self._homes(prefix, env)
        self.extensions = tuple(f"{folder}/" for folder in (*self.load_path, *self.homes))
        """Where compiled extensions of Ruby lie."""
        self._found: dict[str, ImagePath | None] = {}

    def _load_path(self, prefix: ImagePath, env: Mapping[str, str]) -> list[ImagePath]:
        """``RbConfig::CONFIG`` of the official images, Debian and Alpine; folders that exist."""
        version = self.version
        triplets = [path.split("/")[3] for path in self.archives if re.match(r"/usr/lib/[^/]+/ruby/", path)]
        platforms = [
            posixpath.basename(path) for path in self.archives if posixpath.basename(path) != version
        ]
        lib = f"{prefix}/lib/ruby"
        found = [folder for folder in env.get("RUBYLIB", "").split(":") if folder.startswith("/")]
        for kind, base in (("site_ruby", "/usr/local/lib"), ("site_ruby", lib), ("vendor_ruby", lib)):
            found += [f"{base}/{kind}/{version}"]
            found += [f"{base}/{kind}/{version}/{platform}" for platform in platforms]
            found += [f"{base}/{triplet}/{kind}" for triplet in triplets]
            found += [f"/usr/lib/{triplet}/ruby/{kind}/{version}" for triplet in triplets]
            found += [f"{base}/{kind}"]
        found += [f"{lib}/{version}", *self.archives]
        return [folder for folder in dict.fromkeys(found) if version and self.fs.is_dir(folder)]

    def _homes(self, prefix: ImagePath, env: Mapping[str, str]) -> list[ImagePath]:
        """``Gem.path``: the environment's, the user's, Debian's and ruby's own."""
        version = self.version
        found = [env.get("GEM_HOME", ""), *env.get("GEM_PATH", "").split(":")]
        home = env.get("HOME", "/root")
        found += [f"{home}/.local/share/gem/ruby/{version}", f"{home}/.gem/ruby/{version}"]
        found += [
            f"/var/lib/gems/{version}",
            f"/usr/local/lib/ruby/gems/{version}",
            f"{prefix}/lib/ruby/gems/{version}",
        ]
        for archive in self.archives:
            if re.match(r"/usr/lib/[^/]+/ruby/", archive):
                triplet = archive.split("/")[3]
                found.append(f"/usr/lib/{triplet}/ruby/gems/{version}")
                found.append(f"/usr/lib/{triplet}/rubygems-integration/{version}")
        found += [f"/usr/share/rubygems-integration/{name}" for name in (version, "all")]
        return [folder for folder in dict.fromkeys(found) if folder and self.fs.is_dir(folder)]

    def find(self, feature: str) -> ImagePath | None:
        """The file of a feature in the load path: Ruby before extensions, folder by folder."""
        if feature not in self._found:
            self._found[feature] = self._search(feature)
        return self._found[feature]

    def _search(self, feature: str) -> ImagePath | None:
        endings = ("",) if feature.endswith((".rb", ".so")) else (".rb", ".so")
        for folder in self.load_path:
            for ending in endings:
                path = clean(f"{folder}/{feature}{ending}")
                if path.startswith("/") and self.fs.is_file(path):
                    return path
        return None

    def like(self, feature: str) -> list[ImagePath]:
        """The files that a name with ``#{…}`` in it can mean, where its folder is known."""
        literal = feature.partition("#{")[0]
        folder, slash, start = literal.rpartition("/")
        if not slash or not folder:
            return []
        found: list[ImagePath] = []
        for base in self.load_path:
            names = self.fs.listdir(f"{base}/{folder}")
            found += [
                f"{base}/{folder}/{name}"
                for name in names
                if name.startswith(start) and name.endswith((".rb", ".so"))
            ]
        return found[:200]


class _Gems:
    """The gems that one ruby can activate."""

    def __init__(self, image: ImageView, layout: _Layout) -> None:
        self.image = image
        self.layout = layout
        self.locked: dict[str, str] = {}
        """Versions that a lock names."""
        self._homes = list(layout.homes)
        self._every = list(gems(image.fs, []))
        self._by_name: dict[str, list[Gem]] = {}
        self._by_owner: dict[str, str] = {}
        self._order: dict[ImagePath, int] = {}
        self._by_top: dict[str, list[tuple[str, ImagePath]]] | None = None
        """First part of a feature → the gems and folders that may have it."""
        self._index()

    def _index(self) -> None:
        self._by_name = {}
        self._by_top = None
        real = dict.fromkeys(self.image.fs.follow(home) or home for home in self._homes)
        self._order = {home: number for number, home in enumerate(real)}
        for gem in self._every:
            if gem.home in self._order:
                self._by_name.setdefault(gem.name, []).append(gem)
        by_owner: dict[str, list[str]] = {}
        for gem in self._every:
            owner = self.image.owner_of(gem.specification)
            if owner is not None and owner.is_os and not gem.is_default:
                by_owner.setdefault(owner.name, []).append(gem.name)
        for owner_name, names in by_owner.items():
            if len(names) == 1 and self._is_in_load_path(names[0]):
                self._by_owner[owner_name] = names[0]

    def _is_in_load_path(self, name: str) -> bool:
        return any(
            self.layout.find(feature) for feature in (name, name.replace("-", "/"), name.replace("-", "_"))
        )

    def add_homes(self, homes: Iterable[ImagePath]) -> None:
        """More folders of gems: Bundler's own."""
        self._homes = list(dict.fromkeys([*homes, *self._homes]))
        self._index()

    @property
    def installed(self) -> list[Gem]:
        """Every gem in the homes."""
        return [gem for name in sorted(self._by_name) for gem in self._by_name[name]]

    @property
    def homes(self) -> list[ImagePath]:
        """The homes of gems, Bundler's first."""
        return self._homes

    def pick(self, name: str) -> Gem | None:
        """The version of a gem that is locked, else the highest."""
        found = sorted(self._by_name.get(name, ()), key=self._rank)
        locked = [gem for gem in found if gem.version == self.locked.get(name)]
        picked = locked or found
        return picked[-1] if picked else None

    def _rank(self, gem: Gem) -> tuple[object, ...]:
        """The higher version comes last, of the same one that in the earlier home, a default gem before others."""
        return _key(gem.version), not gem.is_default, -self._order.get(gem.home, len(self._order))

    def with_feature(self, feature: str) -> list[str]:
        """The gems in which a feature is found; with a lock, only those that it has."""
        if self._by_top is None:
            self._by_top = {}
            for name in sorted(self._by_name):
                gem = self.pick(name)
                for folder in [f"{gem.root}/{part}" for part in gem.require_paths] if gem else []:
                    for top in {
                        found.removesuffix(".rb").removesuffix(".so")
                        for found in self.image.fs.listdir(folder)
                    }:
                        self._by_top.setdefault(top, []).append((name, folder))
        found = []
        for name, folder in self._by_top.get(feature.partition("/")[0].removesuffix(".rb"), ()):
            if self.locked and name not in self.locked:
                continue
            if any(self.image.fs.is_file(f"{folder}/{feature}{ending}") for ending in ("", ".rb", ".so")):
                found.append(name)
        return found

    def shipped_with(self, path: ImagePath) -> str | None:
        """The gem of the OS package that brought a file of ``vendor_ruby``."""
        owner = self.image.owner_of(path)
        return None if owner is None or not owner.is_os else self._by_owner.get(owner.name)

    def package_of(self, gem: Gem) -> Package | None:
        """The OS package that has this gem alone and keeps its files in the load path."""
        owner = self.image.owner_of(gem.specification)
        return owner if owner is not None and self._by_owner.get(owner.name) == gem.name else None


@dataclass
class _Bundle:
    """A Gemfile with its lock and its settings."""

    image: ImageView
    gemfile: ImagePath
    env: Mapping[str, str]
    versions: dict[str, str] = field(default_factory=dict)
    depends: dict[str, list[str]] = field(default_factory=dict)
    sources: list[ImagePath] = field(default_factory=list)
    """Folders of path gems."""
    settings: dict[str, str] = field(default_factory=dict)
    bundler: str = ""
    """The version of Bundler that wrote the lock; RubyGems takes it where it is installed."""

    def __post_init__(self) -> None:
        self.root = posixpath.dirname(self.gemfile)
        plain = posixpath.basename(self.gemfile) == "gems.rb"
        self.lock = f"{self.root}/gems.locked" if plain else f"{self.gemfile}.lock"
        home = self.env.get("BUNDLE_APP_CONFIG") or f"{self.root}/.bundle"
        user = self.env.get("BUNDLE_USER_CONFIG") or f"{self.env.get('HOME', '/root')}/.bundle/config"
        self.configs = list(dict.fromkeys([user, f"{home}/config", f"{self.root}/.bundle/config"]))
        for path in self.configs:
            self.settings.update(
                re.findall(r'^(BUNDLE_[A-Z_]+): "?([^"\n]*)"?', self._text(path), re.MULTILINE)
            )
        self.settings.update({key: value for key, value in self.env.items() if key.startswith("BUNDLE_")})
        self._read_lock()

    def _text(self, path: ImagePath) -> str:
        if not self.image.fs.is_file(path):
            return ""
        try:
            return self.image.fs.read(path, SCRIPT_LIMIT).decode("utf-8", "replace")
        except (LayerLensError, OSError):
            return ""

    def _read_lock(self) -> None:
        section = last = ""
        for line in self._text(self.lock).splitlines():
            if line and not line.startswith(" "):
                section = line.strip()
            elif section == "BUNDLED WITH" and line.strip():
                self.bundler = line.strip()
            elif section == "PATH" and line.startswith("  remote: "):
                folder = clean(posixpath.join(self.root, line[10:].strip()))
                if folder != self.root and self.image.fs.is_dir(folder):
                    self.sources.append(folder)
            elif match := re.match(r"( {4}| {6})([\w.-]+)!?(?: \(([^)]*)\))?$", line):
                if section in ("GEM", "PATH", "GIT", "PLUGIN SOURCE") and len(match[1]) == 4:
                    last = match[2]
                    self.versions[last] = (match[3] or "").partition("-")[0]
                    self.depends.setdefault(last, [])
                elif len(match[1]) == 6 and last:
                    self.depends[last].append(match[2])

    def homes(self) -> list[ImagePath]:
        """Where ``bundle install`` put the gems: BUNDLE_PATH, or vendor/bundle in a deployment."""
        found = []
        path = self.settings.get("BUNDLE_PATH", "")
        if not path and self.settings.get("BUNDLE_DEPLOYMENT", "false") not in ("", "false"):
            path = "vendor/bundle"
        for base in (path, "vendor/bundle", ".bundle"):
            if base:
                at = clean(posixpath.join(self.root, base))
                found += [at] if self.image.fs.is_dir(f"{at}/specifications") else []
                found += [f"{at}/ruby/{name}" for name in self.image.fs.listdir(f"{at}/ruby")]
        return found

    def wanted(self, installed: _Gems) -> dict[str, bool]:
        """Every gem that Bundler resolves; True for those of a group that production loads."""
        groups = self._groups()
        without = set(re.split(r"[: ]+", self.settings.get("BUNDLE_WITHOUT", "")))
        mode = self.env.get("RAILS_ENV") or self.env.get("RACK_ENV")
        loaded = {mode} if mode else {"development"} if "rails" in self.versions else set()
        idle = NOT_IN_PRODUCTION - loaded
        found: dict[str, bool] = {}
        names = groups if groups else dict.fromkeys(self.versions, frozenset(["default"]))
        for name, of in sorted(names.items()):
            if of and of <= without:
                continue
            self._close(name, not of or not of <= idle, found, installed)
        return found

    def _close(self, name: str, needed: bool, found: dict[str, bool], installed: _Gems) -> None:
        stack = [name]
        while stack:
            one = stack.pop()
            if found.get(one) or (one in found and not needed):
                continue
            found[one] = needed
            gem = installed.pick(one)
            stack += self.depends.get(one, gem.requires if gem else ())

    def _groups(self) -> dict[str, frozenset[str]]:
        """The groups of each gem that the Gemfile names; the default group where it says none."""
        found: dict[str, set[str]] = {}
        stack: list[list[str]] = []
        for _, line in code_lines(self._text(self.gemfile)):
            if match := _GROUP.match(line):
                stack.append(re.findall(r"\w+", match[1].partition("optional")[0]))
            elif re.search(r"\bdo\s*(?:\|[^|]*\|)?\s*$", line) or re.match(r"\s*(?:if|unless|case)\b", line):
                stack.append([])
            elif re.match(r"\s*end\b", line) and stack:
                stack.pop()
            elif match := _GEM_LINE.match(line):
                inline = _GEM_GROUP.search(match[2])
                of = re.findall(r"\w+", inline[1]) if inline else [name for block in stack for name in block]
                found.setdefault(match[1], set()).update(of or ["default"])
            elif re.match(r"\s*gemspec\b", line):
                for path in self.image.fs.glob(f"{self.root}/*.gemspec"):
                    for one, other in _DEPENDS.findall(self._text(path)):
                        found.setdefault(one or other, set()).add("default")
        return {name: frozenset(of) for name, of in found.items()}


def code_lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines of a Ruby program with their numbers, comments and what follows ``__END__`` left out."""
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("=begin"):
            inside = True
        elif line.startswith("=end"):
            inside = False
        elif line == "__END__":
            return
        elif not inside and not line.lstrip().startswith("#") and len(line) < 4096:
            yield number, line


def _bundled(words: Sequence[str]) -> list[str]:
    """The command of ``bundle [OPTION…] exec [OPTION…] COMMAND…``."""
    rest = [*words]
    while rest and rest[0].startswith(("-", "_")):
        rest = rest[1:]
    if rest[:1] not in (["exec"], ["e"], ["ex"], ["exe"]):
        return []
    rest = rest[1:]
    while rest and rest[0].startswith("-"):
        rest = rest[1:]
    return rest


def _api(path: ImagePath) -> list[str]:
    """Ruby's API version in a path: ``3.1.0``."""
    return re.findall(r"/(\d+\.\d+\.\d+)(?=/)", path)[:1]


def _key(version: str) -> tuple[tuple[int, int, str], ...]:
    """Orders versions as Gem::Version does: numbers by value, letters (pre-releases) before numbers."""
    parts = re.findall(r"\d+|[a-z]+", version.lower())[:12]
    ordered = [(1, int(part[:9]), "") if part.isdecimal() else (-1, 0, part) for part in parts]
    return (*ordered, (0, 0, ""))


ecosystem = Ruby()
