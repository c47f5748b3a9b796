"""What the package managers of operating systems have in common: dependencies, data, releases.

Two questions. Which packages come along when some are installed (:class:`Relations`), and which files does a
program need of its own package and of the packages that its package depends on, beyond those that files name
themselves (:class:`OsPackageExplorer`). The second is answered file by file: a package is not kept whole because one
of its files is.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from layerlens.ecosystems import READ_LIMIT, UNNEEDED_CATEGORIES, Explorer, ImageView, os_release
from layerlens.model import Command, Edge, EntryType, ImagePath, Package

if TYPE_CHECKING:
    from layerlens.filesystem import Filesystem

Alternatives = Callable[[str], tuple[str, ...]]
"""From an entry of ``Package.requires`` to the plain names of which one must be met, best first; empty: none."""

_FILE = int(EntryType.FILE)

PROGRAM_DIRECTORIES = frozenset(
    "/bin /sbin /usr/bin /usr/sbin /usr/games /usr/local/bin /usr/local/sbin".split()  # noqa: SIM905
)
"""Where programs are that people and scripts call by name (FHS 3.0, 3.4, 3.16, 4.4, 4.5, 4.10)."""

DATABASE_TOOLS = ("update-",)
"""Programs of a data package that only rebuild its data: update-ca-certificates(8), update-mime-database(1),
update-mime(8), update-catalog(8), update-java-alternatives(8). Package scripts and triggers (deb-triggers(5)) call
them."""

MODULE_DIRECTORIES: tuple[str, ...] = (
    # Code that an interpreter finds by an import, which its own ecosystem follows; not data.
    "/usr/lib/python",  # Debian Python policy 2.5; PEP 370 and site.py elsewhere
    "/usr/lib64/python",  # Fedora packaging guidelines, Python
    "/usr/share/perl",  # Debian Perl policy 2.3: @INC (perl, perl5)
    "/usr/share/python-wheels",  # Debian Python policy 4.3.1
    "/usr/lib/ruby",  # Debian Ruby policy 2.2
    "/usr/share/ruby",
    "/usr/share/rubygems-integration",
    "/usr/share/gems",  # Fedora packaging guidelines, Ruby
    "/usr/share/nodejs",  # Debian JavaScript policy 3.1
    "/usr/lib/nodejs",
    "/usr/lib/node_modules",
    "/usr/share/php",  # Debian PHP policy: include_path (php-pear, php-*)
    "/usr/share/pear",
    "/usr/share/java",  # Debian Java policy 2.2
    "/usr/share/maven-repo",
    "/usr/lib/jvm",
    "/usr/share/guile",
    "/usr/share/emacs",  # Debian Emacs policy 6
    "/usr/lib/erlang",
    "/usr/lib/ocaml",
    "/usr/lib/R",
    "/usr/share/lua",  # Debian Lua policy
)

PERL_IN_LIBRARY = "/perl"
"""Below a multiarch library directory: ``/usr/lib/x86_64-linux-gnu/perl5`` (Debian Perl policy 2.3)."""

CONFIG_OF_OTHERS: tuple[str, ...] = (
    # Directories below /etc into which packages drop files for another program than their own.
    "alternatives",  # update-alternatives(1): links, kept as they are followed
    "apparmor.d",  # apparmor.d(5): the kernel's policy, loaded on the host
    "apt",  # apt.conf(5)
    "bash_completion.d",  # interactive shells
    "cron.d",  # cron(8)
    "cron.daily",
    "cron.hourly",
    "cron.monthly",
    "cron.weekly",
    "default",  # Debian policy 9.3.3.2: settings of init scripts
    "dpkg",  # dpkg.cfg(5)
    "init",  # Debian policy 9.3: the init system's
    "init.d",
    "initramfs-tools",  # initramfs-tools(7)
    "kernel",  # Debian kernel handbook 8.4
    "logcheck",
    "logrotate.d",  # logrotate(8)
    "modprobe.d",  # modprobe.d(5)
    "rc.d",
    "runit",
    "skel",  # useradd(8)
    "sv",
    "sysctl.d",  # sysctl.d(5)
    "systemd",  # systemd.unit(5)
    "tmpfiles.d",  # tmpfiles.d(5)
    "udev",  # udev(7)
    "ufw",  # ufw-framework(8)
    "update-motd.d",  # update-motd(5)
    "X11/Xsession.d",  # Xsession(5)
    "xdg/autostart",  # Desktop Application Autostart specification
    "yum.repos.d",  # dnf.conf(5)
)

SHARED_DIRECTORIES = frozenset(
    name
    for names in (
        # Directories below /usr/share and /usr/lib that many packages put files into: of no package alone, even
        # where an image has one of them only. FHS 3.0, 4.11.2 and 4.11.3:
        "color dict doc games info locale man misc nls ppd sgml terminfo tmac xml zoneinfo",
        # freedesktop.org's specifications (base directories, icons, MIME, AppStream, D-Bus, polkit):
        "appdata applications dbus-1 desktop-directories fonts icons metainfo mime mime-info pixmaps polkit-1",
        "sounds themes wayland-sessions xsessions",
        # Completions, editors' and debuggers' files; what build tools read:
        "bash-completion fish vim vim-scripts zsh gcc gdb aclocal cmake gir-1.0 pkgconfig vala girepository-1.0",
        # Debian's own (doc-base, reportbug, lintian, debhelper, dpkg triggers, init systems):
        "apport bug cgi-bin debhelper dh-python doc-base initramfs-tools javascript licenses lintian menu",
        "overrides pam pam-configs systemd sysusers.d tmpfiles.d sysctl.d modprobe.d modules-load.d environment.d",
        "binfmt.d udev user-tmpfiles.d valgrind debug locale-langpack keyrings pki",
        # Fedora's:
        "crypto-policies selinux rpm .build-id",
    )
    for name in names.split()
)

PLUGINS_OF_THE_LOADER = frozenset(["gconv", "audit", "sasl2"])
"""Private directories whose files the rules for ELF files choose: iconv(3), rtld-audit(7), Cyrus SASL's plug-ins."""

STARTED_BY_NAME = frozenset(
    (
        "git-daemon",
        "git-http-backend",
        "git-imap-send",
        "git-shell",
        "git-cvsserver",
        "git-instaweb",
        "scalar",
    )
)
"""Programs in private directories that no program of their package starts: servers, login shells, front ends, each by
its manual page. A command line that names one reaches it."""

DOCUMENTATION = tuple(
    f"/usr/share/{name}/"
    for name in ("bug", "doc", "doc-base", "gtk-doc", "info", "licenses", "lintian", "locale", "man")
)
"""Read by people (FHS 3.0, 4.11): left out also of packages whose name decides the category of all their files."""

PRIVATE_PARENTS = ("/usr/share", "/usr/lib", "/usr/lib64", "/usr/libexec")
"""Where a package has a directory of its own (FHS 3.0, 4.6, 4.7, 4.11), also one step below, by architecture."""


class Relations:
    """Which of some installed packages meets which dependency.

    Versions are not compared: the image's package manager did that when it installed them.
    """

    def __init__(self, packages: Sequence[Package], alternatives: Alternatives) -> None:
        self._alternatives = alternatives
        self._named: dict[str, Package] = {}
        self._providers: dict[str, list[Package]] = {}
        for package in packages:
            self._named.setdefault(package.name, package)
            for name in package.provides:
                self._providers.setdefault(name, []).append(package)

    def named(self, name: str) -> Package | None:
        """The installed package of that name; of several architectures, the first in the database."""
        return self._named.get(name)

    def met_by(self, requirement: str, first: Collection[str] = ()) -> Package | None:
        """The installed package that meets a requirement; one named in ``first`` before all others."""
        found = [package for name in self._alternatives(requirement) for package in self._candidates(name)]
        for package in found:
            if package.name in first:
                return package
        return found[0] if found else None

    def _candidates(self, name: str) -> Iterator[Package]:
        if name in self._named:
            yield self._named[name]
        yield from self._providers.get(name, ())

    def closure(self, names: Iterable[str], present: Collection[str]) -> list[Package]:
        """What installing ``names`` brings beside what is ``present``, in the order of names.

        Each requirement is met by what is present where that can be, else by the package that met it in this
        image. Names that are not installed here bring nothing.
        """
        wanted = [self._named[name] for name in sorted(set(names)) if name in self._named]
        found: dict[str, Package] = {}
        while wanted:
            package = wanted.pop()
            if package.name in found or package.name in present:
                continue
            found[package.name] = package
            for requirement in package.requires:
                if any(name in present for name in self._alternatives(requirement)):
                    continue
                met = self.met_by(requirement, present)
                if met is not None:
                    wanted.append(met)
        return [found[name] for name in sorted(found)]


class OsPackageExplorer(Explorer):
    """What a kept file of an operating system's package needs that no file names in full.

    - Its package's configuration below ``/etc``, if the file is code: a program, a library, a module.
    - Its package's private directories (``/usr/lib/git-core``, ``/usr/share/tcltk/tcl8.6``): those below
      :data:`PRIVATE_PARENTS` in which no unrelated package has a file. FHS 4.6 and 4.11 give them to one
      application, which makes up the names inside at run time. Scripts among them come if something else keeps
      their interpreter.
    - The *data packages* that its package depends on (fonts, magic numbers, character tables): packages without a
      program, a library or a module. Only a program that goes by computed names can be why they are
      depended on. What has programs and libraries is left to what calls and links them, and with it all that
      only package scripts call (debconf, adduser, init-system-helpers …).
    """

    def __init__(
        self,
        image: ImageView,
        ecosystem: str,
        alternatives: Alternatives,
        *,
        ignored: Collection[str] = (),
        made_by_scripts: Mapping[str, Sequence[ImagePath]] | None = None,
        family_of: Callable[[Package], str] = lambda package: package.name,
    ) -> None:
        """For the packages of one ecosystem.

        ``ignored`` are packages whose data nobody reads who depends on them; ``made_by_scripts`` the paths
        that package scripts make, by package; ``family_of`` names what packages of one source have in common.
        """
        super().__init__(image)
        self._ecosystem = ecosystem
        self._alternatives = alternatives
        self._ignored = ignored
        self._made_by_scripts = made_by_scripts or {}
        self._family_of = family_of
        self._relations: Relations | None = None
        self._families: dict[ImagePath, str | None] = {}
        """Directory below a private parent → the one family of packages that has files there, None: several."""
        self._is_data: dict[str, bool] = {}
        self._depends_told: set[str] = set()
        self._files_told: set[tuple[str, bool]] = set()
        self._scripts: list[Edge] = []
        """Edges to scripts in private directories, whose interpreter nothing had kept yet."""

    def edges(self, path: ImagePath) -> Iterable[Edge | Command]:
        """What comes with a package's file, once for a package and for its first program and first other code."""
        package = self.image.owner_of(path)
        if package is None or package.ecosystem != self._ecosystem:
            return
        if package.name not in self._depends_told:
            self._depends_told.add(package.name)
            yield from self._data_of_dependencies(path, package)
        is_program = self._is_program(path)
        key = package.name, is_program
        if key in self._files_told or not (is_program or self._is_library(path) or _holds_modules(path)):
            return
        self._files_told.add(key)
        yield from self._own_files(path, package, is_program)

    def finish(self, kept: Mapping[ImagePath, Edge]) -> Iterable[Edge | Command]:
        """The scripts in private directories whose interpreter is kept."""
        waiting, self._scripts = self._scripts, []
        for edge in waiting:
            interpreter = self._interpreter(edge.target)
            if interpreter is not None and interpreter in kept:
                yield edge
            elif interpreter is not None:
                self._scripts.append(edge)

    # -- the package's own files ---------------------------------------------------------------------------

    def _own_files(self, path: ImagePath, package: Package, is_program: bool) -> Iterator[Edge]:
        for listed in package.paths:
            if listed.startswith("/etc/") and not _is_for_another(listed):
                yield Edge(path, listed, "config", f"configuration of {package.name}", "assumed")
        if package.category == "runtime":
            return  # an interpreter's library: modules are found by imports
        for directory in self._private_directories(package):
            yield from self._private_files(path, directory, package, is_program)

    def _private_directories(self, package: Package) -> list[ImagePath]:
        self._learn()
        family = self._family_of(package)
        found = {
            top
            for listed in package.paths
            for top in (_private_top(listed),)
            if top is not None
            and self._families.get(top) == family
            and top.rpartition("/")[2] not in PLUGINS_OF_THE_LOADER
            and not _holds_modules(top)
        }
        return sorted(found)

    def _private_files(
        self, path: ImagePath, directory: ImagePath, package: Package, is_program: bool
    ) -> Iterator[Edge]:
        """A program's directory with its programs and plug-ins; a library's without programs."""
        without = UNNEEDED_CATEGORIES - {package.category or ""}
        evidence = f"{directory} is a directory of {package.name} alone"
        edges = self.image.tree(path, directory, "package-file", evidence, "assumed", without=without)
        for edge in edges:
            if edge.target.rpartition("/")[2] in STARTED_BY_NAME:
                continue
            code = self._executable(edge.target) and not self._is_library(edge.target)
            if not code or (is_program and self._is_elf(edge.target)):
                yield edge
            elif is_program:
                self._scripts.append(edge)

    def _interpreter(self, script: ImagePath) -> ImagePath | None:
        """The canonical path of what runs a script, through env(1) too; None where the image lacks it."""
        head = self.image.head(script)
        words = (
            head[2:].split(b"\n")[0].decode("utf-8", "surrogateescape").split() if head[:2] == b"#!" else []
        )
        if words and words[0].endswith("/env"):
            words = [f"{folder}/{words[-1]}" for folder in sorted(PROGRAM_DIRECTORIES)]
        for path in words:
            real = self.image.fs.follow(path) if path.startswith("/") else None
            if real is not None:
                return real
        return None

    # -- the packages that it depends on -------------------------------------------------------------------

    def _data_of_dependencies(self, path: ImagePath, package: Package) -> Iterator[Edge]:
        """Edges to the files of data packages, through those that have no files of their own."""
        relations = self._learn()
        pending = [package]
        while pending:
            one = pending.pop()
            for requirement in one.requires:
                needed = relations.met_by(requirement)
                if (
                    needed is None
                    or needed.name in self._depends_told
                    or needed.name in self._ignored
                    or not self._holds_data_only(needed)
                ):
                    continue
                self._depends_told.add(needed.name)
                pending.append(needed)
                yield from self._data_files(path, needed, f"{one.name} depends on {needed.name}")

    def _data_files(self, path: ImagePath, package: Package, evidence: str) -> Iterator[Edge]:
        without = (
            UNNEEDED_CATEGORIES - {"compilers"} if package.category == "compilers" else UNNEEDED_CATEGORIES
        )
        for listed in package.paths:
            if listed.startswith(DOCUMENTATION) or self._is_tool(listed) or _is_for_another(listed):
                continue
            if self.image.category_of(listed) not in without:
                yield Edge(path, listed, "depends", evidence, "assumed")
        for made in self._made_by_scripts.get(package.name, ()):
            yield from self.image.tree(path, made, "depends", evidence, "assumed", without=without)

    def _holds_data_only(self, package: Package) -> bool:
        found = self._is_data.get(package.name)
        if found is None:
            found = not any(self._is_code(path) for path in package.paths)
            self._is_data[package.name] = found
        return found

    def _is_code(self, path: ImagePath) -> bool:
        if posixpath.dirname(path) in PROGRAM_DIRECTORIES:
            return not self._is_tool(path)
        return _holds_modules(path) or ((".so" in path or self._executable(path)) and self._is_elf(path))

    def _is_tool(self, path: ImagePath) -> bool:
        directory, _, name = path.rpartition("/")
        return directory in PROGRAM_DIRECTORIES and name.startswith(DATABASE_TOOLS)

    # -- what a file is ------------------------------------------------------------------------------------

    def _is_program(self, path: ImagePath) -> bool:
        return self._executable(path) and path.rpartition("/")[0] in PROGRAM_DIRECTORIES

    def _is_library(self, path: ImagePath) -> bool:
        return ".so" in path.rpartition("/")[2] and self._is_elf(path)

    def _executable(self, path: ImagePath) -> bool:
        fs = self.image.fs
        return fs.type_of(path) == _FILE and bool(fs.entry(path).mode & 0o111)

    def _is_elf(self, path: ImagePath) -> bool:
        return self.image.head(path)[:4] == b"\x7fELF"

    def _learn(self) -> Relations:
        """Relations and private directories, read once and only where a package's file is kept."""
        if self._relations is None:
            packages = [p for p in self.image.packages if p.ecosystem == self._ecosystem]
            self._relations = Relations(packages, self._alternatives)
            for package in packages:
                family = self._family_of(package)
                for top in {_private_top(path) for path in package.paths}:
                    if top is not None and self._families.setdefault(top, family) != family:
                        self._families[top] = None
        return self._relations


def _private_top(path: ImagePath) -> ImagePath | None:
    """The directory below a private parent that a path lies in; None where it lies in none.

    >>> _private_top("/usr/lib/x86_64-linux-gnu/ImageMagick-6.9.11/config-Q16/configure.xml")
    '/usr/lib/x86_64-linux-gnu/ImageMagick-6.9.11'
    """
    parts = path.split("/", 5)
    if len(parts) < 5 or f"/{parts[1]}/{parts[2]}" not in PRIVATE_PARENTS:
        return None
    depth = 5 if "-linux-" in parts[3] else 4  # below a GNU triplet (Debian policy 9.1.1)
    if len(parts) <= depth or parts[depth - 1] in SHARED_DIRECTORIES:
        return None
    return "/".join(parts[:depth])


def _holds_modules(path: ImagePath) -> bool:
    if path.startswith(MODULE_DIRECTORIES):
        return True
    parts = path.split("/", 5)
    return len(parts) > 4 and "-linux-" in parts[3] and f"/{parts[4]}".startswith(PERL_IN_LIBRARY)


def _is_for_another(path: ImagePath) -> bool:
    """Whether a path below /etc is for another program than its package's."""
    if not path.startswith("/etc/"):
        return False
    inside = path[len("/etc/") :]
    first, _, rest = inside.partition("/")
    return first in CONFIG_OF_OTHERS or f"{first}/{rest.partition('/')[0]}" in CONFIG_OF_OTHERS


# -- runtime stages ----------------------------------------------------------------------------------------


def run_line(before: Sequence[str], install: str, names: Sequence[str], after: Sequence[str]) -> str:
    """A RUN instruction: commands joined with ``&&``, the names sorted, one to a line where they are many."""
    listed = sorted(set(names))
    joined = " \\\n        ".join(["", *listed]) if len(listed) > MOST_IN_A_LINE else " " + " ".join(listed)
    return "RUN " + " \\\n    && ".join([*before, install + joined, *after])


MOST_IN_A_LINE = 4


def with_stanzas(base: Filesystem, added: Mapping[ImagePath, bytes]) -> dict[ImagePath, bytes]:
    """Databases of stanzas, as a base has them, with more stanzas at their end."""
    found = {}
    for path, stanzas in added.items():
        there = base.read(path, READ_LIMIT).strip(b"\n") if base.is_file(path) else b""
        found[path] = (there + b"\n\n" if there else b"") + stanzas
    return found


def same_release(one: Filesystem, other: Filesystem, version_parts: int | None) -> bool:
    """Whether two images are of one release, by os-release(5): ID, and VERSION_ID or else VERSION_CODENAME.

    ``version_parts`` are how many parts of VERSION_ID a release has whose packages go together; None: all. An
    image without the file is of no release that is known.
    """
    first, second = os_release(one), os_release(other)
    if not first.get("ID") or first.get("ID") != second.get("ID"):
        return False
    versions = [
        ".".join(found.get("VERSION_ID", "").split(".")[:version_parts]) or found.get("VERSION_CODENAME", "")
        for found in (first, second)
    ]
    return versions[0] == versions[1] and bool(versions[0])


def has_program(fs: Filesystem, names: Iterable[str]) -> bool:
    """Whether one of some programs is in a program directory."""
    return any(fs.is_file(f"{folder}/{name}") for name in names for folder in sorted(PROGRAM_DIRECTORIES))
