"""Perl: the modules that scripts use, found through ``@INC``.

``use``, ``no``, ``require`` and ``do`` with literal names (perlfunc), without what POD (perlpod) and ``__END__``
(perldata) hide. A module brings its compiled part and its autoloaded pieces from ``auto/`` (XSLoader, AutoLoader).
What perl itself loads for an operator (``glob``, ``\\p{…}``, ``:encoding``) is a table. Where ``@INC`` is, the
interpreter's own library tells: the folders that hold ``strict.pm`` and ``Config.pm``, and those of the distributions
beside them.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from layerlens.ecosystems import Explorer, ImageView, WithoutPackages
from layerlens.ecosystems._options import after_options
from layerlens.ecosystems.arguments import SHARED, clean
from layerlens.errors import LayerLensError
from layerlens.model import Certainty, Command, Edge, EntryType, ImagePath
from layerlens.patterns import regex

if TYPE_CHECKING:
    from layerlens.filesystem import Filesystem

PERL = regex(r"c?perl[\d.]*\Z")
SCRIPT_LIMIT = 2 << 20
ENDINGS = (".pl", ".pm", ".al", ".t", ".psgi", ".cgi", ".ph")

LOADED_BY_OPERATORS: tuple[tuple[re.Pattern[str], tuple[str, ...], str], ...] = (
    # What perl requires by itself when a program does something: pattern, modules, where it says so.
    (regex(r"\bglob\b|<[^<>=\n]*[*?][^<>\n]*>"), ("File::Glob",), "glob (perlfunc)"),
    (regex(r"\$!\{|%!"), ("Errno",), "%! (perlvar)"),
    (regex(r"\$[+-]\{|%[+-]\s*[);]"), ("Tie::Hash::NamedCapture",), "%+ and %- (perlvar)"),
    (
        regex(r":encoding\(|:utf-?8\b.*\bopen\b|\buse\s+open\b"),
        ("PerlIO::encoding", "PerlIO", "Encode"),
        "PerlIO layers",
    ),
    (regex(r":gzip\b|:via\("), ("PerlIO::via", "PerlIO"), "layers (PerlIO)"),
    (regex(r"\bopen\b[^;\n]{0,200}\\[$]"), ("PerlIO::scalar", "PerlIO"), "open on a scalar (perlfunc)"),
    (regex(r"\\N\{|charnames"), ("_charnames", "charnames"), r"\N{…} (charnames)"),
    (
        regex(r"\b(?:IO::File|STDOUT->|STDERR->|STDIN->)"),
        ("IO::File",),
        "methods of handles (perlfunc, open)",
    ),
    (regex(r"\bdbmopen\b"), ("AnyDBM_File",), "dbmopen (perlfunc)"),
)
COMPUTED: Mapping[str, tuple[str, ...]] = {
    # Modules that a module loads by a computed name, where that name can only be one or a few.
    "File/Spec": ("File::Spec::Unix",),  # File/Spec.pm: by $^O
    "LWP/UserAgent": ("LWP::Protocol::http", "LWP::Protocol::https", "LWP::Protocol::file"),  # LWP::Protocol
    "DBI": (
        "DBD::SQLite",
        "DBD::Pg",
        "DBD::mysql",
        "DBD::MariaDB",
        "DBD::Oracle",
        "DBD::ODBC",
    ),  # DBI: by the DSN
    "JSON": ("JSON::XS", "JSON::PP", "JSON::backportPP"),  # JSON.pm, BACKENDS
    "YAML/Any": ("YAML::XS", "YAML::Syck", "YAML"),  # YAML::Any, implementations
    "Params/Util": ("Params::Util::PP",),
    "List/MoreUtils": ("List::MoreUtils::XS", "List::MoreUtils::PP"),
    "Moo": ("Class::XSAccessor", "Class::Method::Modifiers"),
    "DateTime": ("DateTime::PP",),
    "DateTime/TimeZone": ("DateTime::TimeZone::Local::Unix", "DateTime::TimeZone::UTC"),
}

CHARSETS: tuple[tuple[re.Pattern[str], str], ...] = (
    # Encode loads the module of a character set by a name that Encode::Config maps.
    (
        regex(r"iso-?8859|latin-?\d|cp(?:437|85\d|125\d)|windows-125|koi8|mac[A-Z]", re.IGNORECASE),
        "Encode::Byte",
    ),
    (regex(r"utf-?(?:16|32)|ucs-?[24]", re.IGNORECASE), "Encode::Unicode"),
    (regex(r"euc-?jp|shift_?jis|cp932|iso-2022-jp", re.IGNORECASE), "Encode::JP"),
    (regex(r"\bgbk\b|gb2312|euc-cn|cp936", re.IGNORECASE), "Encode::CN"),
    (regex(r"euc-kr|cp949", re.IGNORECASE), "Encode::KR"),
    (regex(r"\bbig5", re.IGNORECASE), "Encode::TW"),
)

_USE = regex(r"(?:^|[;{(\s])(?:use|no|require)\s+([A-Za-z_]\w*(?:(?:::|')\w+)*)\s*([^;\n]{0,400})")
_FILE = regex(r"""(?:^|[;{(\s])(require|do)\s*\(?\s*(["'])([^"'$@\n]{1,300})\2""")
_BASES = regex(r"[A-Za-z_]\w*(?:::\w+)*")
_LIB = regex(r"(?:^|;)\s*use\s+lib\s+(.{1,300}?);", re.MULTILINE)
_LIB_WORD = regex(r"""["']([^"'\n]{1,300})["']|qw\s*[(/\[{<]([^)/\]}>\n]{1,300})""")
_LITERAL_MODULE = regex(r"""["']([A-Z]\w*(?:::\w+)+)["']""")


class Perl(WithoutPackages):
    """Perl programs; their packages are the distribution's: CPAN asks for no list of files that could be read."""

    name = "perl"

    def explorer(self, image: ImageView) -> PerlExplorer:
        """What Perl programs use."""
        return PerlExplorer(image)


class PerlExplorer(Explorer):
    """Follows command lines of perl and the modules of its files."""

    def __init__(self, image: ImageView) -> None:
        super().__init__(image)
        self._include: list[ImagePath] = []
        self._running = False
        self._scanned: set[ImagePath] = set()
        self._unicode = False

    def command(self, command: Command, program: ImagePath) -> Iterator[Edge | Command]:
        """``perl [OPTION…] [-e CODE | SCRIPT]`` (perlrun)."""
        names = (posixpath.basename(command.argv[0]), posixpath.basename(program))
        if not any(PERL.match(name) for name in names):
            return
        if not self._running:
            self._running = True
            self._include = include_path(self.image.fs, program)
            if self.image.fs.is_file("/etc/perl/sitecustomize.pl"):
                yield Edge(
                    program, "/etc/perl/sitecustomize.pl", "script", "perlrun: -f turns it off", "likely"
                )
        options = _Options((*command.env.get("PERL5OPT", "").split(), *command.argv[1:]))
        folders = [*options.folders, *command.env.get("PERL5LIB", "").split(":")]
        self._prepend(clean(posixpath.join(command.cwd, folder)) for folder in folders if folder)
        for module in options.modules:
            yield from self._module(program, module, f"-M{module}", "certain")
        if options.code:
            yield from self._code(options.code, program, command.cwd)
        elif options.script is not None:
            yield from self._script(options, command, program)

    def _script(self, options: _Options, command: Command, program: ImagePath) -> Iterator[Edge | Command]:
        fs = self.image.fs
        word = options.script or ""
        folders = ["", *(command.env.get("PATH", "").split(":") if options.searches else ())]
        for folder in folders:
            path = clean(posixpath.join(command.cwd, folder, word))
            if fs.is_file(path):
                yield Edge(program, path, "script", f"perl runs {word}", "certain")
                yield from self._scan(fs.follow(path) or path)
                return
        self.image.diagnose("script-not-found", f"perl is given {word!r}, which is not there", program)

    def edges(self, path: ImagePath) -> Iterator[Edge | Command]:
        """What a kept Perl file uses."""
        if self._running and path.endswith(ENDINGS):
            yield from self._scan(path)

    def finish(self, kept: Mapping[ImagePath, Edge]) -> Iterator[Edge | Command]:
        """Files that were kept before an interpreter was seen."""
        if self._running:
            for path in kept:
                if path.endswith(ENDINGS):
                    yield from self._scan(path)

    def _prepend(self, folders: Iterable[ImagePath]) -> None:
        for folder in folders:
            if folder.startswith("/") and folder not in self._include and self.image.fs.is_dir(folder):
                self._include.insert(0, folder)

    # -- files ---------------------------------------------------------------------------------------------

    def _scan(self, path: ImagePath) -> Iterator[Edge | Command]:
        if path in self._scanned:
            return
        self._scanned.add(path)
        if self.image.fs.type_of(path) != EntryType.FILE or "/unicore/" in path:
            return
        try:
            text = self.image.fs.read(path, SCRIPT_LIMIT).decode("utf-8", "replace")
        except (LayerLensError, OSError):
            return
        yield from self._code(text, path, posixpath.dirname(path))

    def _code(self, text: str, source: ImagePath, folder: ImagePath) -> Iterator[Edge | Command]:
        code = "\n".join(code_lines(text))
        self._prepend(_libraries(code, folder))
        number, at = 1, 0
        for match in _USE.finditer(code):
            number += code.count("\n", at, match.start(1))
            at = match.start(1)
            name, rest = match[1].replace("'", "::"), match[2]
            evidence = f"line {number}: {match[0].strip(' ;{(' + chr(10))[:90]}"
            top = match[0].lstrip("\n")[:1] not in (" ", "\t")
            certainty: Certainty = "certain" if top and match[0].lstrip().startswith("use") else "likely"
            if name not in ("if", "lib"):
                yield from self._module(source, name, evidence, certainty)
            if name in ("base", "parent", "fields"):
                for base in _BASES.findall(rest.replace("-norequire", "").replace("qw", " ")):
                    yield from self._module(source, base, evidence, certainty)
            elif name in ("if", "autouse", "aliased", "Module::Runtime", "Class::Load"):
                for module in re.findall(r"""["']?([A-Z]\w*(?:::\w+)*)["']?""", rest):
                    yield from self._module(source, module, evidence, "likely")
        for match in _FILE.finditer(code):
            yield from self._file(source, match[3], f"{match[1]} {match[3]}", folder)
        for name in dict.fromkeys(_LITERAL_MODULE.findall(code)):
            yield from self._module(source, name, f"the string {name!r}", "likely")
        yield from self._operators(code, source)

    def _operators(self, code: str, source: ImagePath) -> Iterator[Edge]:
        for pattern, modules, why in LOADED_BY_OPERATORS:
            if pattern.search(code):
                for module in modules:
                    yield from self._module(source, module, f"perl loads it for {why}", "likely")
        if "ncod" in code:
            for pattern, module in CHARSETS:
                if pattern.search(code):
                    yield from self._module(source, module, "a character set that is named", "likely")
        if not self._unicode and re.search(r"\\[pP]\{|\\X\b|\bcharnames\b|\\N\{", code):
            self._unicode = True
            for folder in self._include:
                if self.image.fs.is_dir(f"{folder}/unicore"):
                    why = r"perl reads the tables of Unicode for \p{…} (perluniprops)"
                    yield from self.image.tree(source, f"{folder}/unicore", "data", why, "assumed")

    def _file(
        self, source: ImagePath, name: str, evidence: str, folder: ImagePath
    ) -> Iterator[Edge | Command]:
        fs = self.image.fs
        candidates = [name] if name.startswith("/") else [f"{one}/{name}" for one in (*self._include, folder)]
        for candidate in candidates:
            path = clean(candidate)
            if fs.is_file(path):
                yield Edge(source, path, "require", evidence, "likely")
                yield from self._scan(fs.follow(path) or path)
                return

    def _module(self, source: ImagePath, name: str, evidence: str, certainty: Certainty) -> Iterator[Edge]:
        """A module's file, its compiled part and its autoloaded pieces; the first folder of ``@INC`` that has it."""
        fs = self.image.fs
        relative = name.replace("::", "/")
        for folder in self._include:
            path = f"{folder}/{relative}.pm"
            if fs.is_file(path):
                yield Edge(source, path, "import", evidence, certainty)
                yield from self._parts(path, relative)
                for computed in COMPUTED.get(relative, ()):
                    yield from self._module(
                        path, computed, f"{name} loads {computed} by a computed name", "likely"
                    )
                return

    def _parts(self, module: ImagePath, relative: str) -> Iterator[Edge]:
        fs = self.image.fs
        for folder in self._include:
            auto = f"{folder}/auto/{relative}"
            for name in fs.listdir(auto):
                path = f"{auto}/{name}"
                if fs.is_dir(path) or not name.endswith((".so", ".al", ".ix", ".bs", ".ld")):
                    continue
                kind, why = ("plugin", "XSLoader") if name.endswith(".so") else ("require", "AutoLoader")
                yield Edge(module, path, kind, f"{why}: auto/{relative}/{name}", "certain")


class _Options:
    """A command line of perl (perlrun)."""

    def __init__(self, words: Sequence[str]) -> None:
        self.modules: list[str] = []
        self.folders: list[str] = []
        self.code = ""
        self.script: str | None = None
        self.searches = False
        at = after_options(words, self._one)
        if not self.code and at < len(words):
            self.script = words[at]

    def _one(self, word: str, following: str) -> int:
        """Note the letters of one option word; how many words it takes."""
        rest = word[1:]
        while rest:
            letter, rest = rest[0], rest[1:]
            if letter in "eE":
                self.code += f"\n{following}"
                return 2
            if letter in "Mm":
                module = re.match(r"-?([\w:]+)", rest)
                if module is not None:
                    self.modules.append(module[1])
                return 1
            if letter == "I":
                self.folders.append(rest or following)
                return 1 if rest else 2
            self.searches |= letter == "S"
            if letter in "FdxDCiV":
                return 1
        return 1


def include_path(fs: Filesystem, program: ImagePath) -> list[ImagePath]:
    """``@INC`` of a perl: the folders of its own library, and those that distributions and sites add.

    Debian's perl-base, perl and /usr/share/perl5, the official images' /usr/local/lib/perl5, Alpine's and Fedora's
    core_perl, vendor_perl and site_perl.
    """
    prefix = posixpath.dirname(posixpath.dirname(program))
    own = [posixpath.dirname(path) for name in ("strict.pm", "Config.pm") for path in fs.named(name)]
    own = [folder for folder in dict.fromkeys(own) if folder.startswith(f"{prefix}/")] or list(
        dict.fromkeys(own)
    )
    versions = {match[1] for folder in own if (match := re.search(r"/(5\.\d+(?:\.\d+)?)(?:/|$)", folder))}
    found = ["/etc/perl"]
    for pattern in (
        *("/usr/lib/*/perl-base", "/usr/lib/*/perl/5*", "/usr/share/perl/5*"),
        *("/usr/local/lib/*/perl/5*", "/usr/local/share/perl/5*", "/usr/lib/*/perl5/5*", "/usr/share/perl5"),
        *("/usr/local/lib/site_perl", "/usr/lib/perl5/site_perl", "/usr/lib/perl5/vendor_perl"),
        *("/usr/local/lib/perl5/site_perl/5*", "/usr/local/lib/perl5/site_perl/5*/*-linux*"),
        *(
            "/usr/local/lib/perl5/vendor_perl/5*",
            "/usr/local/share/perl5/site_perl",
            "/usr/local/lib/perl5/site_perl",
        ),
        *(
            "/usr/share/perl5/vendor_perl",
            "/usr/share/perl5/core_perl",
            "/usr/lib64/perl5/vendor_perl",
            "/usr/lib64/perl5",
        ),
    ):
        found += fs.glob(pattern)
    found = [
        folder for folder in found if not (v := re.search(r"/(5\.\d+)", folder)) or _fits(v[1], versions)
    ]
    return [folder for folder in dict.fromkeys([*found, *own]) if fs.is_dir(folder) and folder not in SHARED]


def _fits(version: str, versions: Iterable[str]) -> bool:
    known = sorted(versions)
    return not known or any(one == version or one.startswith(f"{version}.") for one in known)


def _libraries(code: str, folder: ImagePath) -> Iterator[ImagePath]:
    """The folders of ``use lib``, with FindBin's and ``__FILE__``'s folder in place of their variables."""
    for match in _LIB.finditer(code):
        for quoted, words in _LIB_WORD.findall(match[1]):
            for word in words.split() if words else [quoted]:
                filled = re.sub(r"\$(?:FindBin::)?(?:Real)?Bin\b|\$\{FindBin::Bin\}", folder, word)
                if "$" not in filled and "@" not in filled:
                    yield clean(posixpath.join(folder, filled))


def code_lines(text: str) -> Iterator[str]:
    """The lines of a Perl program, those of POD and comments empty, up to ``__END__`` or ``__DATA__``."""
    pod = False
    for line in text.splitlines():
        if line.startswith("="):
            pod = not line.startswith("=cut") if line[1:2].isalpha() else pod
            yield ""
        elif pod or line.lstrip().startswith("#"):
            yield ""
        elif line.strip() in ("__END__", "__DATA__"):
            return
        else:
            yield line[:4096]


ecosystem = Perl()
