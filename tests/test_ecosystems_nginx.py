"""nginx and its configuration."""

from __future__ import annotations

from imagekit import DIR, Symlink
from needskit import codes, needs, program

from layerlens.ecosystems.nginx import directives
from layerlens.graph import Needs

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
