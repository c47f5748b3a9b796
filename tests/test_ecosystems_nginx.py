"""nginx and its configuration."""

from __future__ import annotations

import pytest
import treekit
from imagekit import DIR, Member, Symlink
from needskit import codes, needs, program

from layerlens.ecosystems import Hosting, Hosts
from layerlens.ecosystems.nginx import directives, ecosystem
from layerlens.graph import Needs
from layerlens.model import StaticSite

BINARY = program(
    b"\x7fPROGRAM\0configure arguments: --prefix=/etc/nginx --conf-path=/etc/nginx/nginx.conf "
    b"--http-client-body-temp-path=/var/cache/nginx/client_temp --pid-path=/run/nginx.pid\0"
)
CONF = b"""
user nginx; # a comment; root /nowhere;
load_module modules/ngx_http_js_module.so;
error_log /var/log/nginx/error.log notice;
http {
    include mime.types;
    access_log "/var/log/nginx/access.log" main;
    log_format main '$remote_addr - "root /also/nowhere;"';
    include /etc/nginx/conf.d/*.conf;
}
"""
SITE = b"""
server {
    listen 80; root /srv/www; ssl_certificate certs/site.pem;
    location /files/ { alias /data/files/; }
    location ~ ^/users/(.+)$ { alias /users/$1; }
    location /gone { ssl_dhparam /gone.pem; }
}
"""


def image(**config: object) -> Needs:
    members = {
        "/usr/sbin/nginx": BINARY,
        "/etc/nginx/nginx.conf": CONF,
        "/etc/nginx/mime.types": b"types { text/html html; }",
        "/etc/nginx/fastcgi_params": b"",
        "/etc/nginx/modules/ngx_http_js_module.so": b"",
        "/etc/nginx/certs/site.pem": b"",
        "/etc/nginx/conf.d/site.conf": SITE,
        "/etc/nginx/conf.d/site.conf.off": b"include /etc/passwd;",
        "/etc/nginx/html/index.html": b"",
        "/other.conf": b"include /other.conf; http { server { } }",
        "/srv/www/index.html": b"",
        "/srv/www/README.md": b"served as it is",
        "/srv/www/.git/config": b"",
        "/data/files/a.bin": b"",
        "/users/x": b"",
        "/nowhere/x": b"",
        "/also/nowhere/x": b"",
        "/var/log/nginx/access.log": Symlink(target="/dev/stdout"),
        "/var/log/nginx/error.log.1": b"old",
        "/var/cache/nginx/": DIR,
        "/run/": DIR,
    }
    return needs(members, **config)  # type: ignore[arg-type]


def test_what_the_configuration_names() -> None:
    found = image(cmd=["nginx", "-g", "daemon off;"])
    assert {
        *("/etc/nginx/nginx.conf", "/etc/nginx/mime.types", "/etc/nginx/conf.d/site.conf"),
        *("/etc/nginx/modules/ngx_http_js_module.so", "/etc/nginx/certs/site.pem"),
        *("/srv/www/index.html", "/srv/www/README.md", "/data/files/a.bin", "/users/x"),
        *("/var/log/nginx/access.log", "/var/log/nginx", "/var/cache/nginx", "/run"),
    } <= found.kept.keys()
    assert (
        not {
            *("/nowhere/x", "/also/nowhere/x", "/srv/www/.git/config", "/etc/nginx/fastcgi_params"),
            *("/etc/nginx/conf.d/site.conf.off", "/var/log/nginx/error.log.1", "/etc/nginx/html/index.html"),
        }
        & found.kept.keys()
    )
    assert found.kept["/srv/www/index.html"].evidence == "line 3: root /srv/www"
    assert "missing-file" in codes(found)


def test_another_configuration_and_the_default_root() -> None:
    found = image(cmd=["/usr/sbin/nginx", "-c/other.conf"])
    assert "/other.conf" in found.kept and "/etc/nginx/html/index.html" in found.kept
    assert "/etc/nginx/nginx.conf" not in found.kept
    assert "config-not-found" in codes(image(cmd=["nginx", "-c", "/gone.conf"]))


def test_syntax() -> None:
    text = 'a \'b c\' "d;\\"e"; # x\nf { g\nh; } } unfinished'
    assert list(directives(text)) == [(1, ("a", "b c", 'd;\\"e')), (2, ("f",)), (2, ("g", "h"))]


# --- handing out a site -------------------------------------------------------------------------------------

PAGES = StaticSite("/app/dist", 8123, "said by the test", False)
SERVER: dict[str, Member] = {
    "/usr/sbin/nginx": BINARY,
    "/etc/nginx/nginx.conf": b"http { include mime.types; include /etc/nginx/conf.d/*.conf; }",
    "/etc/nginx/mime.types": b"types { text/html html; font/woff2 woff2; }",
    "/etc/nginx/conf.d/default.conf": b"server { listen 80; location / { root /srv/pages; } }",
}


def hosting(
    members: dict[str, Member | None] | None = None, site: StaticSite = PAGES, error_page: bool = False
) -> Hosting | None:
    assert isinstance(ecosystem, Hosts)
    image = {path: member for path, member in {**SERVER, **(members or {})}.items() if member is not None}
    return ecosystem.hosting(treekit.fs(image), site, {"html", "woff2", "mjs", "wasm", "odd"}, error_page)


def test_a_site_gets_a_server_of_its_own() -> None:
    found = hosting()
    assert found is not None and found.folder == "/srv/pages"
    assert found.command == ("nginx", "-g", "daemon off;")
    ((path, text),) = found.files.items()
    assert path == "/etc/nginx/conf.d/default.conf"
    parsed = [words for _, words in directives(text)]
    assert parsed == [
        ("server",),
        ("listen", "8123"),
        ("root", "/srv/pages"),
        ("charset", "utf-8"),
        ("include", "/etc/nginx/mime.types"),
        ("types",),
        ("application/wasm", "wasm"),
        ("text/javascript", "mjs"),
        ("location", "/"),
        ("try_files", "$uri", "$uri.html", "$uri/index.html", "=404"),
    ]


def text_of(found: Hosting | None) -> str:
    assert found is not None
    return "".join(found.files.values())


def test_single_pages_and_error_pages() -> None:
    single = text_of(hosting(site=StaticSite("/app/dist", 8123, "", True), error_page=True))
    assert "/index.html /index.html;" in single and "location = /favicon.ico" in single
    assert "error_page" not in single and "error_page" not in text_of(hosting())
    assert "error_page 404 /404.html;" in text_of(hosting(error_page=True))


@pytest.mark.parametrize(
    "members",
    [
        {"/usr/sbin/nginx": None},
        {"/etc/nginx/nginx.conf": None},
        {"/etc/nginx/nginx.conf": b"http { server { listen 80; } }"},
        {"/etc/nginx/nginx.conf": b"http { include /etc/nginx/conf.d/*.conf; server { listen 8123; } }"},
        {"/etc/nginx/conf.d/other.conf": b"server { listen 127.0.0.1:8123; }"},
    ],
)
def test_where_there_is_no_place_for_it(members: dict[str, Member | None]) -> None:
    assert hosting(members) is None


def test_what_the_image_says_otherwise_holds() -> None:
    assert hosting(site=StaticSite("/app/dist", 80, "", False)) is not None  # what is replaced listens there
    front = hosting({"/etc/nginx/nginx.conf": b"daemon off; http { include /etc/nginx/conf.d/*.conf; }"})
    assert front is not None and front.command == ("nginx",)
    elsewhere = hosting({"/usr/sbin/nginx": None, "/usr/local/nginx/sbin/nginx": BINARY})
    assert elsewhere is not None and elsewhere.command[0] == "/usr/local/nginx/sbin/nginx"
    bare = hosting({"/etc/nginx/conf.d/default.conf": None, "/etc/nginx/conf.d/": DIR})
    assert bare is not None and bare.folder == "/usr/share/nginx/html"


def test_the_official_image_is_known_without_being_opened() -> None:
    assert isinstance(ecosystem, Hosts)
    found = ecosystem.hosting(None, PAGES, {"mjs"}, False)
    assert found is not None and found.folder == "/usr/share/nginx/html"
    assert list(found.files) == ["/etc/nginx/conf.d/default.conf"]
