"""What files are for, on paths as real images have them."""

from __future__ import annotations

import time
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerlens import categories
from layerlens.categories import CATEGORIES, Classifier, table

CLASSIFIER = Classifier()


def category(path: str, owner: str | None = None, purpose: str | None = None) -> str:
    """Category of a file by its path, its owner's ecosystem and its owner's purpose."""
    state = CLASSIFIER.directory("", None)
    *folders, name = path.strip("/").split("/")
    above = ""
    for folder in folders:
        above = f"{above}/{folder}"
        state = CLASSIFIER.directory(above, state)
    return CATEGORIES[CLASSIFIER.file(name, state, purpose, owner)]


UNOWNED = """
# node:18 with an application
runtime             /usr/local/bin/node
compilers           /usr/local/lib/node_modules/npm/lib/npm.js
compilers           /usr/local/lib/node_modules/npm/node_modules/semver/index.js
compilers           /usr/local/lib/node_modules/npm/man/man1/npm.1
compilers           /usr/local/lib/node_modules/corepack/dist/corepack.js
compilers           /opt/yarn-v1.22.19/lib/cli.js
headers             /usr/local/include/node/openssl/archs/linux-x86_64/asm/crypto/x.inc
docs                /usr/local/CHANGELOG.md
docs                /usr/local/share/doc/node/gdbinit
docs                /usr/local/share/man/man1/node.1
app                 /usr/local/bin/docker-entrypoint.sh
package-cache       /root/.npm/_cacache/content-v2/sha512/ab/cd/ef
logs-temp           /app/npm-debug.log
package-cache       /root/.cache/node-gyp/18.0.0/include/node/node.h
package-cache       /usr/local/share/.cache/yarn/v6/npm-x/package.json
logs-temp           /tmp/v8-compile-cache-0/x
app                 /app/server.js
app                 /app/package.json
app                 /usr/src/app/index.js
app                 /home/node/app/dist/main.js
debug               /app/dist/main.js.map
sources             /app/src/main.ts
sources             /app/src/App.vue
tests               /app/tests/a.js
tests               /app/src/main.spec.ts
docs                /app/README.md
app                 /app/pages/expenses.md
docs                /app/docs/guide.html
vcs                 /app/.git/objects/pack/pack-1.pack
secrets             /app/.env
secrets             /app/.npmrc
app                 /app/.env.example
secrets             /app/config/server.key
secrets             /root/.ssh/id_ed25519
app                 /root/.ssh/id_ed25519.pub
secrets             /root/.aws/credentials
secrets             /home/node/.docker/config.json
app                 /app/docker/config.json
os-base             /root/.bashrc
dependencies        /app/node_modules/express/index.js
dependencies        /app/node_modules/express/lib/router/index.js
docs                /app/node_modules/express/Readme.md
docs                /app/node_modules/express/HISTORY.md
dependencies        /app/node_modules/express/LICENSE
headers             /app/node_modules/@types/node/fs.d.ts
debug               /app/node_modules/rxjs/dist/cjs/index.js.map
sources             /app/node_modules/rxjs/src/index.ts
tests               /app/node_modules/x/test/a.js
tests               /app/node_modules/x/lib/__tests__/a.js
docs                /app/node_modules/x/docs/a.html
dependencies        /app/node_modules/yaml/dist/doc/Document.js
dependencies        /app/node_modules/@s/docs/index.js
dependencies        /app/node_modules/test/index.js
sources             /app/node_modules/better-sqlite3/deps/sqlite3/sqlite3.c
static-libs         /app/node_modules/better-sqlite3/build/Release/obj/x.o
dependencies        /app/node_modules/better-sqlite3/build/Release/better_sqlite3.node
headers             /app/node_modules/nan/nan.h
dependencies        /app/node_modules/x/certs/server.key
dependencies        /app/node_modules/x/.npmrc
package-cache       /app/node_modules/.cache/babel-loader/x.json
dependencies        /app/node_modules/.pnpm/a@1.0.0/node_modules/a/index.js
vcs                 /app/node_modules/x/.git/HEAD
package-cache       /app/.next/cache/webpack/x.pack
app                 /app/.next/server/pages/index.js
app                 /usr/share/nginx/html/index.html
app                 /var/www/html/index.php
dependencies        /app/vendor/autoload.php
# python:3.11
runtime             /usr/local/bin/python3.11
runtime             /usr/local/lib/libpython3.11.so.1.0
runtime             /usr/local/lib/python3.11/os.py
runtime             /usr/local/lib/python3.11/__pycache__/os.cpython-311.pyc
runtime             /usr/local/lib/python3.11/lib-dynload/_ssl.so
tests               /usr/local/lib/python3.11/test/test_os.py
tests               /usr/local/lib/python3.11/idlelib/idle_test/test_run.py
static-libs         /usr/local/lib/python3.11/config-3.11-x86_64-linux-gnu/libpython3.11.a
compilers           /usr/local/lib/python3.11/ensurepip/_bundled/pip.whl
headers             /usr/local/include/python3.11/Python.h
dependencies        /usr/local/lib/python3.11/site-packages/flask/app.py
dependencies        /usr/local/lib/python3.11/site-packages/flask/__pycache__/app.cpython-311.pyc
tests               /usr/local/lib/python3.11/site-packages/numpy/core/tests/test_x.py
dependencies        /usr/local/lib/python3.11/site-packages/numpy/testing/utils.py
headers             /usr/local/lib/python3.11/site-packages/numpy/core/include/numpy/npy.h
headers             /usr/local/lib/python3.11/site-packages/numpy/__init__.pyi
sources             /usr/local/lib/python3.11/site-packages/numpy/random/mtrand.pyx
locale              /usr/local/lib/python3.11/site-packages/django/conf/locale/de/LC_MESSAGES/django.mo
dependencies        /usr/local/lib/python3.11/site-packages/django/conf/locale/de/formats.py
dependencies        /usr/local/lib/python3.11/site-packages/certifi/cacert.pem
runtime             /opt/pyenv/versions/3.12.1/lib/python3.12/os.py
dependencies        /app/.venv/lib/python3.11/site-packages/x/y.py
dependencies        /home/a/.local/lib/python3.11/site-packages/x/y.py
package-cache       /root/.cache/pip/http/1/2
package-cache       /home/app/.cache/uv/archive-v0/x
app                 /root/.cache/huggingface/hub/model.bin
package-cache       /app/.mypy_cache/3.11/x.json
app                 /app/manage.py
tests               /app/conftest.py
# golang
compilers           /usr/local/go/bin/go
compilers           /usr/local/go/src/fmt/print.go
compilers           /usr/local/go/src/crypto/tls/testdata/example-key.pem
package-cache       /go/pkg/mod/github.com/a/b@v1.0.0/README.md
package-cache       /go/pkg/mod/cache/download/x.zip
package-cache       /root/go/pkg/mod/x.go
package-cache       /root/.cache/go-build/00/x
sources             /app/main.go
tests               /app/main_test.go
app                 /app/server
app                 /server
# rust, java, ruby, php
compilers           /usr/local/rustup/toolchains/stable/bin/rustc
compilers           /usr/local/cargo/bin/cargo
package-cache       /usr/local/cargo/registry/cache/x.crate
package-cache       /root/.cargo/registry/src/x/lib.rs
compilers           /root/.cargo/bin/rustup
sources             /app/src/main.rs
sources             /app/target/release/deps/libx.rlib
app                 /app/target/release/app
runtime             /opt/java/openjdk/lib/modules
runtime             /opt/java/openjdk/bin/java
compilers           /opt/java/openjdk/bin/javac
compilers           /opt/java/openjdk/jmods/java.base.jmod
compilers           /opt/java/openjdk/lib/ct.sym
sources             /opt/java/openjdk/lib/src.zip
headers             /usr/local/openjdk-17/include/jni.h
runtime             /opt/java/openjdk/lib/security/cacerts
package-cache       /root/.m2/repository/org/x/x.jar
package-cache       /home/gradle/.gradle/caches/x.jar
compilers           /usr/share/maven/lib/maven-core.jar
sources             /app/src/main/java/App.java
app                 /app/target/app.jar
runtime             /usr/local/lib/ruby/3.2.0/json.rb
dependencies        /usr/local/bundle/gems/rack-3.0/lib/rack.rb
tests               /usr/local/bundle/gems/rack-3.0/test/x.rb
package-cache       /usr/local/bundle/cache/rack-3.0.gem
sources             /usr/local/bundle/gems/nokogiri-1.15/ext/nokogiri/xml.c
runtime             /usr/local/lib/php/extensions/x/opcache.so
sources             /usr/src/php.tar.xz
# the distribution
os-base             /usr/bin/bash
os-base             /lib/ld-musl-x86_64.so.1
os-base             /etc/passwd
os-base             /etc/ssl/certs/ca-certificates.crt
secrets             /etc/ssl/private/server.pem
secrets             /etc/ssh/ssh_host_rsa_key
os-base             /etc/ssh/ssh_host_rsa_key.pub
secrets             /etc/nginx/tls/site.key
compilers           /usr/lib/gcc/x86_64-linux-gnu/12/cc1plus
compilers           /usr/lib/gcc/x86_64-linux-gnu/12/include/stddef.h
compilers           /usr/libexec/gcc/x86_64-linux-gnu/12/collect2
compilers           /usr/lib/git-core/git-remote-http
compilers           /usr/lib/x86_64-linux-gnu/pkgconfig/zlib.pc
headers             /usr/include/zlib.h
headers             /usr/include/c++/12/vector
static-libs         /usr/lib/x86_64-linux-gnu/libc.a
static-libs         /usr/lib/x86_64-linux-gnu/crt1.o
debug               /usr/lib/debug/.build-id/00/x.debug
docs                /usr/share/doc/bash/copyright
docs                /usr/share/man/man1/bash.1.gz
locale              /usr/share/locale/de/LC_MESSAGES/bash.mo
locale              /usr/share/i18n/locales/de_DE
locale              /usr/lib/locale/locale-archive
package-cache       /var/cache/apt/archives/x.deb
package-cache       /var/lib/apt/lists/deb.example_dists_x
package-cache       /var/cache/apk/APKINDEX.tar.gz
logs-temp           /var/log/dpkg.log
logs-temp           /var/tmp/x
os-base             /var/lib/dpkg/status
runtime             /usr/share/perl/5.36.0/strict.pm
runtime             /usr/lib/x86_64-linux-gnu/perl-base/POSIX.pm
other               /.dockerenv
other               /proc/x
"""

OWNED = """
# path, ecosystem, the package's purpose
os-base          /usr/bin/curl                                       dpkg    -
os-base          /usr/lib/x86_64-linux-gnu/libssl.so.3               dpkg    -
os-base          /opt/tool/bin/x                                     dpkg    -
compilers        /usr/bin/x86_64-linux-gnu-gcc-12                    dpkg    compilers
compilers        /usr/share/doc/gcc-12/README.Debian                 dpkg    compilers
docs             /usr/share/doc/curl/copyright                       dpkg    -
runtime          /usr/bin/node                                       dpkg    runtime
docs             /usr/share/doc/nodejs/api/all.html                  dpkg    runtime
runtime          /usr/lib/python3.11/os.py                           dpkg    runtime
tests            /usr/lib/python3.11/test/support/x.py               dpkg    runtime
dependencies     /usr/lib/python3/dist-packages/yaml/__init__.py     dpkg    -
dependencies     /usr/share/nodejs/semver/index.js                   dpkg    -
os-base          /usr/share/nginx/html/50x.html                      dpkg    -
headers          /usr/include/openssl/ssl.h                          dpkg    -
os-base          /usr/lib/x86_64-linux-gnu/libgcc_s.so.1             dpkg    os-base
os-base          /lib/libc.musl-x86_64.so.1                          apk     -
dependencies     /app/node_modules/express/index.js                  node    -
dev-dependencies /app/node_modules/jest/build/index.js               node    dev-dependencies
dev-dependencies /app/node_modules/jest/README.md                    node    dev-dependencies
dev-dependencies /app/node_modules/typescript/lib/lib.d.ts           node    dev-dependencies
package-cache    /app/node_modules/.cache/x                          node    dev-dependencies
compilers        /opt/venv/lib/python3.11/site-packages/pip/x.py     python  compilers
dependencies     /usr/local/bin/gunicorn                             python  -
dependencies     /usr/local/bin/uvicorn                              python  -
dependencies     /srv/lib/flask/app.py                               python  -
app              /app/src/shop/models.py                             python  app
dependencies     /usr/local/bundle/gems/rack-3.0/lib/rack.rb         ruby    -
"""


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize(("expected", "path"), rows(UNOWNED))
def test_files_that_no_package_owns(expected: str, path: str) -> None:
    assert category(path) == expected


@pytest.mark.parametrize(("expected", "path", "owner", "purpose"), rows(OWNED))
def test_files_that_a_package_owns(expected: str, path: str, owner: str, purpose: str) -> None:
    assert category(path, owner, None if purpose == "-" else purpose) == expected


def test_the_list_is_closed_and_in_the_order_that_decides() -> None:
    assert (
        *("secrets", "vcs", "package-cache", "logs-temp", "dev-dependencies", "compilers", "headers"),
        *("static-libs", "debug", "docs", "locale", "tests", "sources", "runtime", "dependencies", "app"),
        *("os-base", "other"),
    ) == CATEGORIES


def test_every_purpose_beats_the_later_ones() -> None:
    """An owner's purpose and the path's meet: the first in the list is it, whichever says so."""
    by_path = {"docs": "/usr/share/doc/x", "headers": "/usr/include/x", "locale": "/usr/share/locale/x"}
    for first, path in by_path.items():
        for second in CATEGORIES[: CATEGORIES.index("runtime")]:
            assert category(path, "dpkg", second) == min(first, second, key=CATEGORIES.index)


def words(text: str) -> list[str]:
    return [word for line in text.split("\n") for word in line.partition("#")[0].split()]


def test_every_row_of_the_table_decides_about_something() -> None:
    """No row is dead, mistyped or overruled everywhere by an earlier one."""
    checked = 0
    for context, by_category in table()["directories"].items():
        inside = {"any": "", "app": "/app", "config": "/etc", "library": "/app/node_modules/x/lib"}
        inside["package"] = "/app/node_modules/x"
        for name, patterns in by_category.items():
            for pattern in words(patterns):
                at = pattern if pattern.startswith("/") else f"{inside[context] or '/app'}/{pattern}"
                found = category(f"{at.replace('*', '1')}/some-file")
                assert found == name, (context, name, pattern)
                checked += 1
    for context, by_category in table()["files"].items():
        inside = {"any": "/usr/lib", "system": "/usr/lib", "config": "/etc", "app": "/app"}
        inside["library"] = "/app/node_modules/x/lib"
        for name, patterns in by_category.items():
            for pattern in words(patterns):
                found = category(f"{inside[context]}/{pattern.replace('*', 'x')}")
                assert CATEGORIES.index(found) <= CATEGORIES.index(name), (context, name, pattern)
                checked += 1
    for name, patterns in table()["paths"].items():
        for pattern in words(patterns):
            assert CATEGORIES.index(category(pattern.replace("*", ""))) <= CATEGORIES.index(name), pattern
            checked += 1
    assert checked > 400


def test_no_row_is_there_twice() -> None:
    for section in ("zones", "directories", "files"):
        for context, by_category in table()[section].items():
            all_words = [word for patterns in by_category.values() for word in words(patterns)]
            twice = {word for word in all_words if all_words.count(word) > 1}
            assert twice == set(), (section, context)


def test_the_table_is_toml_and_names_only_listed_categories() -> None:
    parsed = tomllib.loads(Path(categories.__file__).with_suffix(".toml").read_text())
    named = {
        name
        for section in ("zones", "directories", "files")
        for rows in parsed[section].values()
        for name in rows
    }
    named |= set(parsed["paths"]) | set(parsed["owned"].values())
    assert named <= set(CATEGORIES)
    assert named >= set(CATEGORIES) - {"dev-dependencies"}  # only packages can tell those


@given(
    st.lists(
        st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=12), min_size=1, max_size=8
    ),
    st.sampled_from([None, "dpkg", "node", "a language of tomorrow"]),
    st.sampled_from([None, *CATEGORIES]),
)
def test_any_path_has_a_category_and_always_the_same(
    parts: list[str], owner: str | None, purpose: str | None
) -> None:
    path = "/" + "/".join(parts)
    found = category(path, owner, purpose if owner else None)
    assert found in CATEGORIES
    state = (fresh := Classifier()).directory("/", None)
    for depth in range(1, len(parts)):
        state = fresh.directory("/" + "/".join(parts[:depth]), state)
    assert CATEGORIES[fresh.file(parts[-1], state, purpose if owner else None, owner)] == found


def test_classifying_a_big_image_takes_no_time_to_speak_of() -> None:
    """75,000 files in 8,000 directories: 0.08 s on an idle machine; the bound is for a busy one."""
    classifier = Classifier()
    start = time.process_time()
    root = classifier.directory("/", None)
    modules = classifier.directory("/app/node_modules", classifier.directory("/app", root))
    count = 0
    for number in range(2000):
        state: object = modules
        path = "/app/node_modules"
        for folder in (f"package-{number}", "lib", "internal", "es"):
            path = f"{path}/{folder}"
            state = classifier.directory(path, state)
            for name in (
                "index.js",
                "README.md",
                f"part-{number}.js",
                "x.d.ts",
                "y.test.js",
                "z",
                "a.js.map",
                "b",
                "c",
            ):
                count += classifier.file(name, state, None, "node") >= 0
    assert count == 72_000
    assert time.process_time() - start < 0.6
