"""supervisord and the programs that it starts."""

from __future__ import annotations

import configparser

from imagekit import DIR
from needskit import codes, needs, program

from layerlens.ecosystems.supervisor import sections

CONF = """
[supervisord]
nodaemon=true
logfile=/var/log/supervisor/supervisord.log ; (main log file)
;[program:off]
;command=/usr/bin/off

[program:web]
command=web --bind
    %(ENV_PORT)s --config "%(here)s/web.ini"
directory=/srv
environment=MODE="fast",LEVEL=2

[include]
files = conf.d/*.conf
"""


def test_programs_of_the_configuration() -> None:
    found = needs(
        {
            **{f"/usr/bin/{name}": program() for name in ("supervisord", "web", "worker", "off")},
            "/etc/supervisor/supervisord.conf": CONF.encode(),
            "/etc/supervisor/web.ini": b"",
            "/etc/supervisor/conf.d/worker.conf": b"[program:worker]\ncommand=/usr/bin/worker\nuser=www\n",
            "/srv/": DIR,
            "/var/log/supervisor/": DIR,
        },
        cmd=["supervisord", "-n"],
        env={"PORT": "80"},
    )
    assert {
        *("/usr/bin/web", "/usr/bin/worker", "/etc/supervisor/web.ini"),
        *("/etc/supervisor/conf.d/worker.conf", "/srv", "/var/log/supervisor"),
    } <= found.kept.keys()
    assert "/usr/bin/off" not in found.kept
    run = next(key for key in found._commands_seen if key[0] == "/usr/bin/web")
    assert run[2:4] == (("--bind", "80", "--config", "/etc/supervisor/web.ini"), "/srv")
    assert ("MODE", "fast") in run[4] and ("LEVEL", "2") in run[4]


def test_trouble() -> None:
    broken = {
        "/bin/supervisord": program(),
        "/c.conf": b"[program:x]\ncommand='a\n[include]\nfiles=/c.conf\n",
    }
    assert "broken-config" in codes(needs(broken, cmd=["supervisord", "-c", "/c.conf"]))
    assert "config-not-found" in codes(needs(broken, cmd=["supervisord"]))


def test_sections_as_configparser_reads_them() -> None:
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";",), strict=False)
    parser.read_string(CONF)
    assert {title: dict(keys) for title, keys in sections(CONF)} == {
        title: dict(parser[title].items()) for title in parser.sections()
    }
