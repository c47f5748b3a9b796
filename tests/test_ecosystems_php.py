"""PHP: Composer's packages, extensions by ini files, autoloaders and includes."""

from __future__ import annotations

import json

from imagekit import Member
from needskit import codes, needs, program
from treekit import fs, packages

from layerlens.ecosystems.php import ecosystem
from layerlens.graph import Needs

PHP = program(
    b"\x7fPROGRAM\0/usr/local/etc/php\0/usr/local/etc/php/conf.d\0"
    b"/usr/local/lib/php/extensions/no-debug-non-zts-20220829\0"
)
INSTALLED = {
    "packages": [
        {"name": "slim/slim", "version": "v4.12.0", "install-path": "../slim/slim", "license": ["MIT"]},
        {"name": "psr/log", "version": "3.0.0", "install-path": "../psr/log", "require": {"php": ">=8"}},
        {"name": "dev/lint", "version": "1.0.0", "install-path": "../dev/lint"},
        {"name": "gone/gone", "version": "1.0.0", "install-path": "../gone/gone"},
    ],
    "dev": True,
    "dev-package-names": ["dev/lint"],
}
EXTENSIONS = "/usr/local/lib/php/extensions/no-debug-non-zts-20220829"
FILES: dict[str, Member] = {
    "/usr/local/bin/php": PHP,
    "/usr/local/sbin/php-fpm": PHP,
    "/usr/local/etc/php/php.ini": b"[PHP]\nmemory_limit = 1G\nauto_prepend_file = /opt/prepend.php ; first\n",
    "/usr/local/etc/php/conf.d/docker-php-ext-gd.ini": b"extension=gd\n;extension=off\n",
    "/usr/local/etc/php/conf.d/opcache.ini": b"zend_extension = opcache.so\nextension=missing\n",
    "/usr/local/etc/php-fpm.conf": b"[global]\ninclude=etc/php-fpm.d/*.conf\n;include=/x\n",
    "/usr/local/etc/etc/php-fpm.d/www.conf": b"[www]\nuser = www-data\nlisten = /run/php/fpm.sock\n"
    b"chdir = /srv/app\n",
    **{f"{EXTENSIONS}/{name}.so": b"" for name in ("gd", "opcache", "off", "xsl")},
    "/run/php/keep": b"",
    "/opt/prepend.php": b"<?php",
    "/srv/app/composer.json": b"{}",
    "/srv/app/public/index.php": b"<?php require __DIR__ . '/../vendor/autoload.php'; include 'other/part.php';",
    "/srv/app/templates/page.twig": b"",
    "/srv/app/tests/PageTest.php": b"",
    "/srv/app/vendor/autoload.php": b"<?php require_once __DIR__ . '/composer/autoload_real.php';",
    "/srv/app/vendor/composer/autoload_real.php": b"",
    "/srv/app/vendor/composer/autoload_files.php": b"<?php $vendorDir = x; return array(\n"
    b"    'a' => $vendorDir . '/dev/lint/functions.php',\n    'b' => $baseDir . '/src/helpers.php',\n);",
    "/srv/app/vendor/composer/installed.json": json.dumps(INSTALLED).encode(),
    "/srv/app/vendor/slim/slim/App.php": b"<?php",
    "/srv/app/vendor/slim/slim/tests/AppTest.php": b"<?php",
    "/srv/app/vendor/psr/log/LoggerInterface.php": b"<?php",
    "/srv/app/vendor/dev/lint/functions.php": b"<?php",
    "/srv/app/vendor/dev/lint/Lint.php": b"<?php",
    "/srv/app/src/helpers.php": b"<?php require_once dirname(__DIR__) . '/data/table.php';",
    "/srv/app/data/table.php": b"<?php",
    "/srv/other/left.php": b"<?php",
}


def image(*words: str, **config: object) -> Needs:
    return needs(FILES, cmd=list(words), workdir="/srv/app", **config)  # type: ignore[arg-type]


def test_packages() -> None:
    found, diagnostics = packages(ecosystem, fs(FILES))
    assert [(p.name, p.version, p.roots, p.category, p.license) for p in found] == [
        ("slim/slim", "4.12.0", ("/srv/app/vendor/slim/slim",), None, "MIT"),
        ("psr/log", "3.0.0", ("/srv/app/vendor/psr/log",), None, None),
        ("dev/lint", "1.0.0", ("/srv/app/vendor/dev/lint",), "dev-dependencies", None),
    ]
    assert found[1].requires == ("php",) and not diagnostics


def test_packages_of_composer_1_and_of_nonsense() -> None:
    one = fs(
        {"/a/vendor/composer/installed.json": b'[{"name": "x/y", "version": "1"}]', "/a/vendor/x/y/z": b""}
    )
    assert [p.roots for p in packages(ecosystem, one)[0]] == [("/a/vendor/x/y",)]
    for text in (
        b"[",
        b"[" * 100_000,
        b"7",
        b'{"packages": 7}',
        b'[{"name": 7}]',
        b'[{"name":"a","version":"1"}]',
    ):
        found, _ = packages(ecosystem, fs({"/a/vendor/composer/installed.json": text}))
        assert found == []
    up = b'[{"name":"a","version":"1","install-path":"../../.."}]'
    assert packages(ecosystem, fs({"/a/vendor/composer/installed.json": up}))[0] == []


def test_a_server_with_a_router() -> None:
    found = image("php", "-S", "0.0.0.0:80", "-t", "public", "public/index.php")
    assert {
        *(
            "/usr/local/etc/php/php.ini",
            "/usr/local/etc/php/conf.d/docker-php-ext-gd.ini",
            "/opt/prepend.php",
        ),
        *(f"{EXTENSIONS}/gd.so", f"{EXTENSIONS}/opcache.so"),
        *("/srv/app/templates/page.twig", "/srv/app/vendor/composer/autoload_real.php"),
        *("/srv/app/vendor/slim/slim/App.php", "/srv/app/vendor/psr/log/LoggerInterface.php"),
        *("/srv/app/vendor/dev/lint/functions.php", "/srv/app/data/table.php"),
    } <= found.kept.keys()
    assert (
        not {
            *(f"{EXTENSIONS}/off.so", f"{EXTENSIONS}/xsl.so", "/srv/app/vendor/dev/lint/Lint.php"),
            *(
                "/srv/app/tests/PageTest.php",
                "/srv/app/vendor/slim/slim/tests/AppTest.php",
                "/srv/other/left.php",
            ),
        }
        & found.kept.keys()
    )
    assert found.kept[f"{EXTENSIONS}/gd.so"].kind == "plugin"
    assert codes(found) == {"extension-not-found"}


def test_fpm_with_its_pools() -> None:
    found = image("php-fpm", "-F")
    assert {"/usr/local/etc/php-fpm.conf", "/srv/app/templates/page.twig"} <= found.kept.keys()
    assert f"{EXTENSIONS}/gd.so" in found.kept


def test_options() -> None:
    bare = image("php", "-n", "-d", "extension=xsl", "-r", "require '/srv/other/left.php';")
    assert f"{EXTENSIONS}/xsl.so" in bare.kept and "/srv/other/left.php" in bare.kept
    assert not {f"{EXTENSIONS}/gd.so", "/usr/local/etc/php/php.ini"} & bare.kept.keys()
    assert "script-not-found" in codes(image("php", "gone.php"))
    none = image("php", "-r", "1;", env={"PHP_INI_SCAN_DIR": ""})
    assert f"{EXTENSIONS}/gd.so" in none.kept
