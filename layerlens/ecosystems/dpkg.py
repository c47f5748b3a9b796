"""Debian's packages: ``/var/lib/dpkg`` and distroless' ``status.d``.

The status file is in Debian control syntax (deb-control(5), Debian policy chapter 5); the files of a package
are listed in ``info/<package>[:<architecture>].list`` (dpkg(1), "FILES"), by the names the package was built
with: on a merged-usr system its ``/bin/sh`` is the image's ``/usr/bin/sh``, so that directories are resolved
through the image's own links. Distroless images have, for each package, a stanza and ``.md5sums`` in
``status.d`` instead.

Relations between packages are those of Debian policy chapter 7.

Nothing outside reads this database for us: python-debian is GPL, python-apt needs the host's libapt.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING

from layerlens.ecosystems import READ_LIMIT, ImageView, bounded_read
from layerlens.ecosystems._os_packages import (
    OsPackageExplorer,
    Relations,
    has_program,
    run_line,
    same_release,
    with_stanzas,
)
from layerlens.model import Diagnostic, EntryType, ImageConfig, ImagePath, Package
from layerlens.patterns import regex

if TYPE_CHECKING:
    from layerlens.filesystem import Filesystem

ADMIN = "/var/lib/dpkg"
STATUS = f"{ADMIN}/status"
INFO = f"{ADMIN}/info"
STATUS_D = f"{ADMIN}/status.d"
DIVERSIONS = f"{ADMIN}/diversions"
TEMPLATES = "/var/cache/debconf/templates.dat"

CERTIFICATES = "/etc/ssl/certs/"
LOCAL_CERTIFICATES = "/usr/local/share/ca-certificates"

GENERATED: tuple[tuple[ImagePath, str], ...] = (
    # What maintainer scripts write without its being in any list of files, and the package that does it.
    (CERTIFICATES, "ca-certificates"),  # update-ca-certificates(8)
    ("/etc/ld.so.cache", "libc-bin"),  # ldconfig(8)
    ("/var/cache/fontconfig/", "fontconfig"),  # fc-cache(1)
    ("/etc/mailcap", "mailcap"),  # update-mime(8)
)
PER_PACKAGE_BYTES = 2_000
"""A stanza in each status file, maintainer scripts and log lines, for each package (bookworm, mean)."""
DEBCONF_BYTES = 40_000
"""Logs of apt and dpkg and debconf's answers after an installation of few packages (bookworm-slim)."""

CATEGORY_BY_NAME: dict[str, str] = {
    # What a package is for where its name says so. In the names, "#" stands for a version (digits and dots);
    # a final "*" for anything. Packages are those of Debian bookworm and trixie and of Ubuntu noble; what
    # decides is the description that `apt-cache show NAME` prints. *-dev packages are left to their paths
    # (headers, static libraries), but for those whose files only a compiler's own directory holds.
    "compilers": """
        gcc gcc-# gcc-#-* g++ g++-# g++-#-* cpp cpp-# cpp-#-* gfortran gfortran-# gfortran-#-* gobjc gobjc-#
        gnat gnat-# gdc gdc-# gccgo gccgo-# libgcc-#-dev libgfortran-#-dev libobjc-#-dev
        libcc#-# libisl# libmpc# libasan# liblsan# libtsan# libubsan# libhwasan# libitm#
        binutils binutils-* libbinutils libctf# libctf-nobfd# libgprofng# libsframe#
        clang clang-* clangd clangd-* lld lld-# lldb lldb-# llvm llvm-# llvm-#-* llvm-runtime flang flang-#
        libclang# libclang#-# libclang-* libclang-cpp# liblld-* libpolly-*
        build-essential make cmake cmake-data cmake-curses-gui ninja-build meson scons bazel* ccache distcc
        autoconf autoconf-* automake automake-# autotools-dev autopoint libtool libtool-bin m4 libltdl-dev
        pkg-config pkgconf pkgconf-bin bison flex byacc re#c gperf swig swig# nasm yasm patch patchutils quilt
        dpkg-dev libdpkg-perl debhelper libdebhelper-perl dh-* fakeroot libfakeroot libalgorithm-diff-perl
        libalgorithm-diff-xs-perl libalgorithm-merge-perl libfile-fcntllock-perl devscripts dwz intltool
        intltool-debian gettext po-debconf chrpath patchelf equivs
        gdb gdb-* gdbserver valgrind valgrind-* strace ltrace linux-perf linux-perf-# libdebuginfod#
        libdebuginfod-common libbabeltrace# libsource-highlight-common libsource-highlight#v#
        protobuf-compiler protobuf-compiler-grpc libprotoc# libprotoc#t# thrift-compiler
        gobject-introspection gtk-doc-tools doxygen asciidoc xmlto universal-ctags exuberant-ctags cscope
        cppcheck lcov gcovr
        git git-* liberror-perl mercurial mercurial-common subversion libsvn# libserf-#-# bzr brz cvs
        golang golang-* rustc rustc-# cargo cargo-# libstd-rust-* rust-* ghc ghc-* ocaml ocaml-* sbcl fpc
        fpc-* mono-mcs mono-devel zig* openjdk-#-jdk openjdk-#-jdk-headless default-jdk default-jdk-headless
        maven libmaven* gradle libgradle* ant ant-optional ivy sbt dotnet-sdk-# dotnet-targeting-pack-#
        netstandard-targeting-pack-#-# aspnetcore-targeting-pack-#
        npm yarnpkg node-gyp python#-pip python#-pip-whl python-pip-whl python#-setuptools
        python#-setuptools-whl python#-wheel python#-wheel-whl python#-venv python#-virtualenv virtualenv pipx
        composer bundler ruby-bundler
    """,
    "runtime": """
        python# python#-minimal libpython# libpython#t# libpython#-minimal libpython#-stdlib python#-tk
        python#-gdbm python#-distutils python#-lib#to# pypy# pypy#-lib
        perl perl-base perl-modules-# libperl# libperl#t# nodejs nodejs-* libnode#
        ruby ruby# libruby libruby# libruby#t# rubygems-integration ruby-rubygems
        php php# php-cli php#-cli php-fpm php#-fpm php-common php#-common php#-opcache php#-readline
        openjdk-#-jre openjdk-#-jre-headless default-jre default-jre-headless ca-certificates-java java-common
        libatk-wrapper-java libatk-wrapper-java-jni lua# liblua#-# guile-# guile-#-libs tcl tcl# libtcl#
        mono-runtime mono-runtime-* erlang-base dotnet-runtime-# aspnetcore-runtime-# dotnet-hostfxr-#
        dotnet-host dotnet-host-# dotnet-runtime-deps-#
    """,
    "docs": "man-db manpages manpages-* info groff-base doc-base git-man git-doc",
    "locale": "locales locales-all libc-l#n gnupg-l#n language-pack-*",
    "os-base": "gcc-#-base",
}

CATEGORY_BY_SUFFIX: tuple[tuple[str, str], ...] = (
    # Debian developer's reference, 6.7.9 "Best practices for debug packages"; 5.9 and 6.7 for the others.
    ("-dbg", "debug"),
    ("-dbgsym", "debug"),
    ("-doc", "docs"),
    ("-docs", "docs"),
    ("-l10n", "locale"),
)

FOR_MAINTAINER_SCRIPTS = frozenset(
    [
        # Packages without programs or libraries that only package scripts and init scripts use (Debian policy 6 and
        # 9.3; each one's description). All others of that kind (debconf, ucf, adduser, init-system-helpers …)
        # have programs, and what has programs is not kept for a Depends.
        "lsb-base",  # functions for init scripts
        "runit-helper",  # called by scripts that dh_runit adds
        "debconf-i18n",
        "javascript-common",  # configuration of web servers for /usr/share/javascript
        "tex-common",  # dh_tex's triggers
    ]
)

MADE_BY_SCRIPTS: dict[str, tuple[ImagePath, ...]] = {
    # What scripts of data packages make from their data, and no package lists.
    "ca-certificates": ("/etc/ssl/certs",),  # update-ca-certificates(8), FILES
    "ca-certificates-java": ("/etc/ssl/certs/java",),  # its postinst: the cacerts keystore
    "shared-mime-info": ("/usr/share/mime",),  # update-mime-database(1)
    "tzdata": ("/etc/localtime", "/etc/timezone"),  # its postinst; localtime(5)
    "fontconfig-config": ("/etc/fonts/conf.d",),  # its postinst: links to conf.avail
    "xml-core": ("/etc/xml/catalog",),  # update-xmlcatalog(8)
    "sgml-base": ("/etc/sgml/catalog",),  # update-catalog(8)
}

_VERSION = regex(r"\d+(?:\.\d+)*")
_EXACT: dict[str, str] = {}
_PREFIXES: list[tuple[str, str]] = []
for _category, _names in CATEGORY_BY_NAME.items():
    for _name in _names.split():
        if _name.endswith("*"):
            _PREFIXES.append((_name[:-1], _category))
        else:
            _EXACT[_name] = _category
_ANY_PREFIX = tuple(prefix for prefix, _ in _PREFIXES)


def category_of(name: str) -> str | None:
    """The category that the name of a Debian package decides; None where its paths do."""
    plain = _VERSION.sub("#", name)
    found = _EXACT.get(plain)
    if found is not None:
        return found
    for suffix, category in CATEGORY_BY_SUFFIX:
        if name.endswith(suffix):
            return category
    if plain.startswith(_ANY_PREFIX) and not name.endswith("-dev"):
        return next(category for prefix, category in _PREFIXES if plain.startswith(prefix))
    return None


class Dpkg:
    """Packages that dpkg installed."""

    name = "dpkg"

    def wants(self, path: ImagePath) -> bool:
        """The database files that say which package owns what."""
        return path.startswith("/var/lib/dpkg/") and (
            path.endswith(".list")
            or path in (STATUS, DIVERSIONS)
            or path.startswith("/var/lib/dpkg/status.d/")
        )

    def packages(
        self, fs: Filesystem, config: ImageConfig, diagnostics: list[Diagnostic]
    ) -> Iterable[Package]:
        """Installed packages in the order of the status file, then those of ``status.d`` by file name."""
        resolver = _Resolver(fs)
        found = [
            *self._from_status(fs, diagnostics, resolver),
            *self._from_status_d(fs, diagnostics, resolver),
        ]
        return _with_bytecode(fs, found) if found else found

    def _from_status(
        self, fs: Filesystem, diagnostics: list[Diagnostic], resolver: _Resolver
    ) -> Iterator[Package]:
        if not fs.exists(STATUS):
            return
        text = bounded_read(fs, STATUS, diagnostics)
        if text is None:
            return
        lists = set(fs.listdir(INFO))
        diversions = _diversions(fs, diagnostics)
        without_list: list[str] = []
        for stanza in text.split("\n\n"):
            name = _field(stanza, "Package")
            status = _field(stanza, "Status").split()
            # dpkg(1): "config-files" and "not-installed" packages have no files but configuration.
            if not name or len(status) != 3 or status[2] in ("config-files", "not-installed"):
                continue
            file = f"{name}:{_field(stanza, 'Architecture')}.list"
            if file not in lists:
                file = f"{name}.list"
            paths: tuple[ImagePath, ...] = ()
            location = STATUS
            if file in lists:
                location = f"{INFO}/{file}"
                listing = bounded_read(fs, location, diagnostics)
                if listing is not None:
                    own = listing.split("\n")
                    if not diversions.keys().isdisjoint(own):
                        own = [_diverted(path, name, diversions) for path in own]
                    paths = resolver.leaves(own)
            else:
                without_list.append(name)
            yield _package(stanza, name, location, paths)
        if without_list:
            some = ", ".join(without_list[:5]) + (" …" if len(without_list) > 5 else "")
            diagnostics.append(
                Diagnostic(
                    "warning",
                    "missing-file-list",
                    f"{len(without_list)} installed packages have no list of files ({some}): "
                    "their files count as unowned",
                    INFO,
                )
            )

    def _from_status_d(
        self, fs: Filesystem, diagnostics: list[Diagnostic], resolver: _Resolver
    ) -> Iterator[Package]:
        for file in fs.listdir(STATUS_D):
            if file.endswith(".md5sums"):
                continue
            location = f"{STATUS_D}/{file}"
            text = bounded_read(fs, location, diagnostics) if fs.is_file(location) else None
            if text is None:
                continue
            stanza = text.split("\n\n")[0]
            name = _field(stanza, "Package")
            if not name:
                diagnostics.append(
                    Diagnostic("warning", "broken-metadata", "is not a Debian control stanza", location)
                )
                continue
            paths: tuple[ImagePath, ...] = ()
            sums = f"{location}.md5sums"
            if fs.exists(sums):
                listing = bounded_read(fs, sums, diagnostics) or ""
                # deb-md5sums(5): 32 hex digits, two spaces, the path without its leading slash.
                paths = resolver.leaves(
                    ["/" + line[34:].removeprefix("./") for line in listing.split("\n") if len(line) > 34]
                )
            yield _package(stanza, name, location, paths)

    def explorer(self, image: ImageView) -> OsPackageExplorer:
        """What Debian's packages need of each other, and of their own data."""
        sources, essential = _sources_and_essential(image)
        return OsPackageExplorer(
            image,
            self.name,
            alternatives,
            # Policy 3.5: a dependency on an essential package says which version it has to be, and no more.
            ignored=FOR_MAINTAINER_SCRIPTS | essential,
            made_by_scripts=MADE_BY_SCRIPTS,
            family_of=lambda package: sources.get(package.name, package.name),
        )

    def generated_by(self, fs: Filesystem, path: ImagePath) -> str | None:
        """The package whose maintainer scripts make ``path``: alternatives, and the table ``GENERATED``.

        update-alternatives(1) makes ``/etc/alternatives/NAME`` and the link that leads there, and keeps a file of
        that name in its administrative directory; the package is the one that owns what the link ends at.
        """
        for prefix, package in GENERATED:
            if path.startswith(prefix):
                return None if self._is_local(fs, path) else package
        link = path if path.startswith("/etc/alternatives/") else self._link_text(fs, path)
        if not link.startswith("/etc/alternatives/"):
            return None
        target = fs.follow(path)
        if target is None:
            return None
        return self._owners(fs).get(target)

    @classmethod
    def _is_local(cls, fs: Filesystem, path: ImagePath) -> bool:
        """Whether what maintainer scripts make here comes of this image's own files too.

        update-ca-certificates(8) takes the certificates of ``/usr/local/share/ca-certificates`` into the bundle and
        makes links to them, which an installation elsewhere would not.
        """
        if not path.startswith(CERTIFICATES):
            return False
        target = fs.follow(path) or ""
        if target.startswith(f"{LOCAL_CERTIFICATES}/"):
            return True
        return target == path and any(name.endswith(".crt") for name in fs.listdir(LOCAL_CERTIFICATES))

    @staticmethod
    def _link_text(fs: Filesystem, path: ImagePath) -> str:
        return (fs.entry(path).link_target or "") if fs.type_of(path) == EntryType.SYMLINK else ""

    @staticmethod
    @lru_cache(maxsize=4)
    def _owners(fs: Filesystem) -> dict[ImagePath, str]:
        """Which package lists a path, read off ``info/*.list``."""
        owners: dict[ImagePath, str] = {}
        for name in fs.listdir(INFO):
            if name.endswith(".list"):
                package = name[: -len(".list")].partition(":")[0]
                for line in (bounded_read(fs, f"{INFO}/{name}", []) or "").split("\n"):
                    if line:
                        owners.setdefault(fs.resolve_parent(line), package)
        return owners

    def would_unpack(self, base: Filesystem, path: ImagePath) -> bool:
        """Whether dpkg in this base writes a path: its last matching ``path-exclude`` or ``path-include`` decides.

        dpkg(1), "--path-exclude=glob-pattern"; slim images leave documentation, manuals and locales out so.
        """
        wanted = True
        for exclude, pattern in _path_rules(base):
            if fnmatchcase(path, pattern):
                wanted = not exclude
        return wanted

    def overhead_bytes(self, fs: Filesystem, base: Filesystem, packages: Sequence[Package]) -> int:
        """What apt and dpkg leave besides: the status file twice (``-old``), lists and sums, logs, debconf's files.

        The two status files are written whole into the new layer, so that the base's own size counts again. So
        are debconf's two files of templates where one of the packages has some (debconf-devel(7)).
        """
        status = base.size(STATUS) if base.is_file(STATUS) else 0
        listed = sum(len(path) + 1 for package in packages for path in package.paths)
        asked = sum(
            fs.size(path)
            for package in packages
            if fs.is_file(path := f"{package.location.removesuffix('.list')}.templates")
        )
        if asked and base.is_file(TEMPLATES):
            asked += 2 * base.size(TEMPLATES)
        return 2 * (status + listed) + len(packages) * PER_PACKAGE_BYTES + DEBCONF_BYTES + asked

    def install_lines(self, names: Sequence[str]) -> str:
        """``apt-get install`` without recommended packages, and without the lists it reads."""
        return run_line(
            ["apt-get update"],
            "apt-get install -y --no-install-recommends",
            names,
            ["rm -rf /var/lib/apt/lists/*"],
        )

    def closure(
        self, names: Iterable[str], packages: Sequence[Package], present: Collection[str]
    ) -> list[Package]:
        """Depends and Pre-Depends, alternatives and Provides included (Debian policy 7.1, 7.2, 7.5)."""
        found = [package for package in packages if package.ecosystem == self.name]
        return Relations(found, alternatives).closure(names, present)

    def same_distribution(self, one: Filesystem, other: Filesystem) -> bool:
        """One release of Debian or Ubuntu, and an apt-get in the second image."""
        return has_program(other, ["apt-get"]) and same_release(one, other, None)

    def reduced(self, fs: Filesystem, kept: Sequence[Package]) -> Mapping[ImagePath, bytes]:
        """The status file with the stanzas of the kept packages alone, each as it was, and their ``status.d`` files.

        The lists of files in ``info`` are left out: dpkg-query(1) and scanners find packages and versions in the
        status file, and a list would name files that were dropped.
        """
        locations = {package.location for package in kept if package.ecosystem == self.name}
        unlisted = {
            (package.name, package.version)
            for package in kept
            if package.ecosystem == self.name and package.location == STATUS
        }
        found: dict[ImagePath, bytes] = {}
        if fs.is_file(STATUS):
            stanzas = fs.read(STATUS, READ_LIMIT).split(b"\n\n")
            left = [stanza for stanza in stanzas if _is_kept(stanza, locations, unlisted)]
            found[STATUS] = b"".join(stanza.strip(b"\n") + b"\n\n" for stanza in left)
        for location in sorted(locations):
            if location.startswith(f"{STATUS_D}/"):
                for path in (location, f"{location}.md5sums"):
                    if fs.is_file(path):
                        found[path] = fs.read(path, READ_LIMIT)
        return found

    def extended(
        self, base: Filesystem, fs: Filesystem, added: Sequence[Package]
    ) -> Mapping[ImagePath, bytes]:
        """The base's database with the stanzas of the added packages, each as it was."""
        return with_stanzas(base, self.reduced(fs, added))


def alternatives(relation: str) -> tuple[str, ...]:
    """The package names of a dependency, without versions and architectures (Debian policy 7.1).

    >>> alternatives("python3:any (>= 3.5~) | python3-minimal [amd64] <!nocheck>")
    ('python3', 'python3-minimal')
    """
    names = [_NAME.match(part.strip()) for part in relation.split("|")]
    return tuple(name[0] for name in names if name)


_NAME = regex(r"[A-Za-z0-9][A-Za-z0-9+.\-]*")


def _is_kept(stanza: bytes, locations: set[ImagePath], unlisted: set[tuple[str, str]]) -> bool:
    text = stanza.decode("utf-8", "surrogateescape")
    name = _field(text, "Package")
    status = _field(text, "Status").split()
    if not name or len(status) != 3 or status[2] in ("config-files", "not-installed"):
        return False
    return (
        f"{INFO}/{name}:{_field(text, 'Architecture')}.list" in locations
        or f"{INFO}/{name}.list" in locations
        or (name, _field(text, "Version")) in unlisted
    )


def _sources_and_essential(image: ImageView) -> tuple[dict[str, str], frozenset[str]]:
    """By package, the source it was built from where that has another name; and the essential ones (policy 5.6.9)."""
    sources: dict[str, str] = {}
    essential: set[str] = set()
    if not image.fs.is_file(STATUS):
        return sources, frozenset()
    ignored: list[Diagnostic] = []  # said when the packages were read
    for stanza in (bounded_read(image.fs, STATUS, ignored) or "").split("\n\n"):
        name, source = _field(stanza, "Package"), _field(stanza, "Source")
        if source:
            sources[name] = source.partition(" ")[0]
        if _field(stanza, "Essential") == "yes":
            essential.add(name)
    return sources, frozenset(essential)


class _Resolver:
    """Turns listed paths into the image's own, one look-up per directory."""

    def __init__(self, fs: Filesystem) -> None:
        self._fs = fs
        self._real: dict[str, str | None] = {"": None}
        """By directory as listed: its canonical path, or None where they are the same."""

    def leaves(self, listed: list[str]) -> tuple[ImagePath, ...]:
        """The listed paths without the directories that others lie in, resolved up to the last component."""
        heads = [path.rpartition("/")[0] for path in listed]
        parents = set(heads)
        parents.add("/.")  # the root, as every list begins
        moved: dict[str, str] = {}
        for head in parents:
            if head not in self._real:
                resolved = self._fs.resolve_parent(f"{head}/x")[:-2]
                self._real[head] = None if resolved == head else resolved
            real = self._real[head]
            if real is not None:
                moved[head] = real
        if not moved:
            return tuple([path for path in listed if path not in parents and path[:1] == "/"])
        return tuple(
            [
                moved[head] + path[len(head) :] if head in moved else path
                for head, path in zip(heads, listed, strict=True)
                if path not in parents and path[:1] == "/"
            ]
        )


def _field(stanza: str, name: str) -> str:
    """The value of a field of a control stanza, folded lines joined; empty where it is not there."""
    if stanza.startswith(f"{name}:"):
        start = len(name) + 1
    else:
        start = stanza.find(f"\n{name}:") + len(name) + 2
        if start == len(name) + 1:
            return ""
    end = stanza.find("\n", start)
    while end >= 0 and stanza[end + 1 : end + 2] in (" ", "\t"):
        end = stanza.find("\n", end + 1)
    value = stanza[start:] if end < 0 else stanza[start:end]
    return value.strip() if "\n" not in value else " ".join(value.split())


def _package(stanza: str, name: str, location: ImagePath, paths: tuple[ImagePath, ...]) -> Package:
    requires = [
        relation.strip()
        for value in (_field(stanza, "Pre-Depends"), _field(stanza, "Depends"))
        for relation in value.split(",")
        if relation.strip()
    ]
    return Package(
        ecosystem="dpkg",
        name=name,
        version=_field(stanza, "Version"),
        location=location,
        paths=paths,
        category=category_of(name),
        is_os=True,
        requires=tuple(requires),
        provides=tuple(name for part in _field(stanza, "Provides").split(",") for name in alternatives(part)),
    )


@lru_cache(maxsize=4)
def _path_rules(fs: Filesystem) -> tuple[tuple[bool, str], ...]:
    """The ``path-exclude`` (True) and ``path-include`` patterns of /etc/dpkg/dpkg.cfg.d, in their order."""
    rules: list[tuple[bool, str]] = []
    for name in fs.listdir("/etc/dpkg/dpkg.cfg.d"):
        for line in (bounded_read(fs, f"/etc/dpkg/dpkg.cfg.d/{name}", [], 1 << 16) or "").split("\n"):
            word, _, pattern = line.strip().replace("=", " ", 1).partition(" ")
            if word in ("path-exclude", "path-include") and pattern.strip():
                rules.append((word == "path-exclude", pattern.strip()))
    return tuple(rules)


def _diversions(fs: Filesystem, diagnostics: list[Diagnostic]) -> dict[str, tuple[str, str]]:
    """By diverted path: where it went, and the package (":" for the administrator) that may keep the name.

    Three lines a diversion: from, to, package (dpkg-divert(1)).
    """
    if not fs.exists(DIVERSIONS):
        return {}
    lines = (bounded_read(fs, DIVERSIONS, diagnostics) or "").split("\n")
    return {lines[at]: (lines[at + 1], lines[at + 2]) for at in range(0, len(lines) - 2, 3)}


def _diverted(path: str, package: str, diversions: dict[str, tuple[str, str]]) -> str:
    found = diversions.get(path)
    return path if found is None or found[1] == package else found[0]


def _with_bytecode(fs: Filesystem, packages: list[Package]) -> list[Package]:
    """The packages, each owning what py3compile made of its modules.

    Debian's Python packages ship no bytecode: their postinst scripts write ``__pycache__/x.cpython-311.pyc``
    (PEP 3147), and their prerm scripts remove it again (Debian Python policy, "Byte-Compilation").
    """
    owner: dict[str, int] = {}
    for folder in fs.directories_named("__pycache__"):
        if folder.startswith(("/usr/lib/", "/usr/share/")):
            owner.setdefault(folder[: -len("/__pycache__")], -1)
    if not owner:
        return packages
    sources: dict[str, int] = {}
    for index, package in enumerate(packages):
        for path in package.paths:
            if path.endswith(".py") and path[: path.rindex("/")] in owner:
                sources[path] = index
    extra: dict[int, list[str]] = {}
    for parent in owner:
        for name in fs.listdir(f"{parent}/__pycache__"):
            found = sources.get(f"{parent}/{name.partition('.')[0]}.py")
            if found is not None:
                extra.setdefault(found, []).append(f"{parent}/__pycache__/{name}")
    return [
        replace(package, paths=package.paths + tuple(extra[index])) if index in extra else package
        for index, package in enumerate(packages)
    ]


ecosystem = Dpkg()
