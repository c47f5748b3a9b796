"""Debian's packages: ``/var/lib/dpkg`` and distroless' ``status.d``.

The status file is in Debian control syntax (deb-control(5), Debian policy chapter 5); the files of a package
are listed in ``info/<package>[:<architecture>].list`` (dpkg(1), "FILES"), in the names the package was built
with: on a merged-usr system ``/bin/sh`` there is ``/usr/bin/sh`` in the image, so that parents are resolved
through the image's own links. Distroless images have a stanza and ``.md5sums`` a package in ``status.d`` instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from layerlens.ecosystems import bounded_read
from layerlens.model import Diagnostic, ImageConfig, ImagePath, Package

if TYPE_CHECKING:
    from layerlens.filesystem import Filesystem

ADMIN = "/var/lib/dpkg"
STATUS = f"{ADMIN}/status"
INFO = f"{ADMIN}/info"
STATUS_D = f"{ADMIN}/status.d"
DIVERSIONS = f"{ADMIN}/diversions"

_FIELDS = re.compile(
    r"^(Package|Status|Version|Architecture|Section|Depends|Pre-Depends): *(.*(?:\n[ \t].*)*)", re.MULTILINE
)

CATEGORY_BY_NAME: tuple[tuple[str, str], ...] = (
    # Patterns of package names (full match) and what the package is for, first match wins. Names are those of
    # Debian bookworm and trixie and of Ubuntu noble (`apt-cache show NAME` has the description that decides).
    #
    # Documentation and debug symbols by Debian policy's and developer's reference's own suffixes.
    (r".*-dbg|.*-dbgsym", "debug"),
    (r".*-doc|.*-docs|doc-base|manpages(-.*)?|info|man-db|groff-base", "docs"),
    (r"locales(-all)?|language-pack-.*|libc-l10n|.*-l10n|iso-codes", "locale"),
    # GCC, its parts, and libraries that nothing but a compiler uses (sanitizers, cc1's arithmetic).
    (r"(gcc|g\+\+|cpp|gfortran|gobjc|gobjc\+\+|gnat|gdc|gccgo|gm2)(-\d+.*|-[a-z0-9]+-linux-gnu.*)?", "compilers"),
    (r"gcc-\d+-base", "os-base"),
    (r"libgcc-\d+-dev|libgfortran-\d+-dev|libobjc-\d+-dev|libcc1-\d+|libisl\d+|libmpc\d+", "compilers"),
    (r"lib(a|l|t|hwa|ub)san\d+|libitm1", "compilers"),
    # binutils and its libraries.
    (r"binutils.*|libbinutils|libctf.*|libgprofng\d+|libsframe\d+", "compilers"),
    # LLVM. libllvm itself is left by path: Mesa's drivers run on it.
    (r"(clang|clangd|clang-tidy|clang-format|clang-tools|lld|lldb|llvm|llvm-runtime|flang)(-\d+.*)?", "compilers"),
    (r"llvm(-\d+)?-(dev|tools|linker-tools|runtime)|libclang.*|liblld.*|libclang-rt-.*|libpolly-.*", "compilers"),
    # Build tools: what a Makefile or a configure script calls (section devel).
    (r"build-essential|make|cmake(-data|-curses-gui)?|ninja-build|meson|scons|bazel.*|ccache|distcc", "compilers"),
    (r"autoconf.*|automake.*|autotools-dev|autopoint|libtool(-bin)?|m4|libltdl-dev", "compilers"),
    (r"pkg-config|pkgconf(-bin)?|bison|flex|byacc|re2c|gperf|swig.*|nasm|yasm|patch|patchutils|quilt", "compilers"),
    (r"dpkg-dev|libdpkg-perl|debhelper.*|dh-.*|fakeroot|libfakeroot|libalgorithm-.*|libfile-fcntllock-perl", "compilers"),
    (r"devscripts|dwz|intltool.*|gettext|autopoint|po-debconf|chrpath|patchelf|lsb-build-.*|equivs", "compilers"),
    (r"gdb.*|valgrind.*|strace|ltrace|linux-perf.*|libdebuginfod.*|libbabeltrace\d+|libsource-highlight.*", "compilers"),
    (r"protobuf-compiler.*|libprotoc\d+.*|thrift-compiler|googletest|libgtest-dev|libgmock-dev", "compilers"),
    (r"gobject-introspection.*|gir1\.2-.*-dev|gtk-doc-tools|doxygen.*|asciidoc.*|xmlto|docbook.*", "compilers"),
    (r"universal-ctags|exuberant-ctags|cscope|cppcheck|lcov|gcovr", "compilers"),
    # Version control programs fetch sources; their libraries and data come with them.
    (r"git|git-man|git-lfs|liberror-perl|mercurial(-common)?|subversion|libsvn.*|libserf-.*|bzr|cvs|brz", "compilers"),
    # Compilers and SDKs of other languages.
    (r"golang.*|rustc.*|cargo.*|libstd-rust-.*|rust-.*|ghc.*|ocaml.*|sbcl|fpc.*|gnat-.*|mono-mcs|zig.*", "compilers"),
    (r"(openjdk-\d+|default)-jdk(-headless)?|maven.*|libmaven.*|gradle.*|libgradle.*|ant(-optional)?|ivy|sbt", "compilers"),
    (r"dotnet-sdk-.*|dotnet-targeting-pack-.*|netstandard-targeting-pack-.*|aspnetcore-targeting-pack-.*", "compilers"),
    # Package managers of languages.
    (r"npm|yarnpkg|node-gyp|python3?-pip(-whl)?|python3?-setuptools(-whl)?|python3?-wheel(-whl)?", "compilers"),
    (r"python3?-venv|python3\.\d+-venv|python3?-virtualenv|virtualenv|pipx|poetry|composer|bundler|ruby-bundler", "compilers"),
    (r"(lib)?python3(\.\d+)?-dev|python3-distutils|python3-lib2to3|2to3|ruby\d*(\.\d+)?-dev|php\d*(\.\d+)?-dev", "compilers"),
    # Interpreters and their libraries, JREs (sections python, perl, ruby, php, java, web, interpreters).
    (r"python[23](\.\d+)?(-minimal)?|libpython[23](\.\d+)?(-minimal|-stdlib)?|pypy3?(-lib)?", "runtime"),
    (r"python3-(tk|gdbm)|libpython3-stdlib|python3-distutils|idle.*", "runtime"),
    (r"perl|perl-base|perl-modules-.*|libperl5.*", "runtime"),
    (r"nodejs|libnode\d+|nodejs-data", "runtime"),
    (r"ruby|ruby\d+(\.\d+)?|libruby.*|rubygems-integration|ruby-rubygems", "runtime"),
    (r"php\d*(\.\d+)?(-(cli|fpm|common|opcache|readline))?|libapache2-mod-php.*", "runtime"),
    (r"(openjdk-\d+|default)-jre(-headless)?|ca-certificates-java|java-common|libatk-wrapper-java.*", "runtime"),
    (r"lua5\.\d|liblua5\.\d.*|guile-\d.*|tcl\d*(\.\d+)?|libtcl.*|mono-runtime.*|erlang-base|libmono.*", "runtime"),
    (r"dotnet-runtime-.*|aspnetcore-runtime-.*|dotnet-hostfxr-.*|dotnet-host(-.*)?|dotnet-runtime-deps-.*", "runtime"),
)
"""What a package is for where its name says so; None (by path) for all others."""

_CATEGORY = tuple((re.compile(pattern), category) for pattern, category in CATEGORY_BY_NAME)
_PREFILTER = re.compile("|".join(f"(?:{pattern})" for pattern, _ in CATEGORY_BY_NAME))


def category_of(name: str) -> str | None:
    """The category that the name of a Debian package decides, or None."""
    if _PREFILTER.fullmatch(name) is None:
        return None
    return next((category for pattern, category in _CATEGORY if pattern.fullmatch(name)), None)
