"""Static sites, and the servers that would hand them out."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from imagekit import DIR, Dir, File, Member, Symlink, docker_archive_25, image, layer, tar_of
from plankit import RUN, base_of, built, config, packages, plan_of
from squashkit import squash

from layerlens.api import open_image
from layerlens.attribution import Attribution
from layerlens.errors import UsageError
from layerlens.exchange import Exchange, proposed, static_site
from layerlens.model import ImageConfig
from layerlens.plan import Plan
from layerlens.runtime import Base, catalogued
from layerlens.stages import STAGING, written

SITE: dict[str, Member] = {
    "/etc/os-release": b"ID=debian\nVERSION_ID=12\nVERSION_CODENAME=bookworm\n",
    "/bin/sh": RUN,
    "/usr/bin/npm": RUN,
    "/app/package.json": json.dumps(
        {"name": "app", "scripts": {"preview": "vite preview --port 8123"}}
    ).encode(),
    "/app/node_modules/vite/package.json": b'{"name": "vite", "version": "5.0.0"}',
    "/app/node_modules/vite/bin/vite.js": b"x" * 1_000_000,
    "/app/dist/index.html": b"<title>Site</title>",
    "/app/dist/assets/app.mjs": b"export {}",
    "/app/dist/assets/app.css": b"body {}",
}
BINARY = File(
    mode=0o755,
    data=b"\x7fPROGRAM\0configure arguments: --prefix=/usr/share/nginx --conf-path=/etc/nginx/nginx.conf "
    b"--http-log-path=/var/log/nginx/access.log --http-client-body-temp-path=/var/lib/nginx/body\0",
)
NGINX: dict[str, Member] = {
    "/bin/sh": RUN,
    "/usr/bin/tar": RUN,
    "/usr/sbin/nginx": BINARY,
    "/etc/passwd": b"root:x:0:0::/:/bin/sh\nnginx:x:101:101::/:/bin/false\n",
    "/etc/nginx/nginx.conf": b"user nginx;\nhttp { include mime.types; include /etc/nginx/conf.d/*.conf; }\n",
    "/etc/nginx/mime.types": b"types { text/html html htm; text/css css; }",
    "/etc/nginx/conf.d/default.conf": b"server { listen 80; location / { root /usr/share/nginx/html; } }",
    "/usr/share/nginx/html/index.html": b"Welcome to nginx" * 1000,
    "/usr/share/doc/nginx/manual": b"m" * 1_000_000,
    "/var/log/nginx/access.log": Symlink(target="/dev/stdout"),
    "/var/lib/nginx/": DIR,
}


def served(
    runtime: str | None = "base",
    members: dict[str, Member] | None = None,
    server: Base | None = None,
    *,
    keep: tuple[str, ...] = (),
    drop: tuple[str, ...] = (),
    **values: Any,
) -> Exchange | None:
    made = config(**{"Cmd": ["npm", "run", "preview"], "WorkingDir": "/app", **values})
    filesystem = squash(layer({**SITE, **(members or {})}))
    attribution = Attribution(filesystem, packages(filesystem, made))
    site = static_site(attribution, made)
    assert site is not None and site.port == 8123 and site.single_page
    server = server or base_of(
        NGINX,
        "nginx:bookworm",
        Cmd=["nginx", "-g", "daemon off;"],
        StopSignal="SIGQUIT",
        Env=["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
    )
    found, tried = proposed(
        attribution, made, site, runtime, {server.reference: server}.get, keep=keep, drop=drop
    )
    assert tried == ("nginx:bookworm", "nginx:stable", "nginx:latest") or runtime not in (
        "base",
        "scratch",
        None,
    )
    return found


def plan_for(found: Exchange | None) -> Plan:
    from layerlens.plan import make_plan

    assert found is not None
    return make_plan(
        found.needs,
        base=found.base,
        choice=found.choice,
        layer_bytes=found.needs.attribution.live_bytes,
        exchange=found,
    )


def test_a_site_goes_onto_the_servers_image() -> None:
    found = served()
    plan = plan_for(found)
    assert found is not None and plan.runtime_image == "nginx:bookworm" and found.closure is None
    (copy,) = plan.copies
    assert (copy.sources, copy.target, copy.whole) == (("/app/dist",), "/usr/share/nginx/html", True)
    text = found.hosting.files["/etc/nginx/conf.d/default.conf"]
    assert plan.estimated_bytes == found.server.size_bytes + copy.size_bytes + len(text)
    assert plan.verdict("/app/dist/index.html") == "copy"
    assert plan.verdict("/app/node_modules/vite/bin/vite.js") == "drop"
    assert plan.chain("/app/dist/index.html")[0].source == "CMD"
    assert sum(built(plan).values()) == plan.live_bytes
    assert any("another program is proposed" in warning for warning in plan.warnings)
    row = plan.to_dict()["exchange"]
    assert (row["server_image"], row["port"], row["root"]) == ("nginx:bookworm", 8123, "/app/dist")


def test_its_dockerfile() -> None:
    lines = written(plan_for(served(Labels={"a": "b"})), "app:1").text.splitlines()
    assert lines[:4] == ["FROM app:1 AS builder", "", "FROM nginx:bookworm", "RUN printf '%s\\n' \\"]
    assert lines[-3:] == [
        "COPY --from=builder /app/dist /usr/share/nginx/html",
        "EXPOSE 8123",
        "LABEL a=b",
    ]


def test_the_configuration_arrives_as_it_is_written(tmp_path: Path) -> None:
    found = served()
    text = written(plan_for(found), "app:1").text
    step = next(s for s in re.split(r"(?<!\\)\n", text) if s.startswith("RUN printf"))
    command = step.removeprefix("RUN ").replace("\\\n", " ").replace("/etc/nginx/conf.d/", f"{tmp_path}/")
    subprocess.run(["/bin/sh", "-c", command], check=True, timeout=20)
    assert found is not None
    assert (tmp_path / "default.conf").read_text() == found.hosting.files["/etc/nginx/conf.d/default.conf"]


def test_on_scratch_the_server_comes_along_with_what_it_needs() -> None:
    found = served("scratch")
    assert found is not None and found.closure is not None and found.base is None
    plan = plan_for(found)
    files = found.server_files()
    assert {
        "/usr/sbin/nginx",
        "/etc/nginx/nginx.conf",
        "/etc/passwd",
        "/var/log/nginx/access.log",
    } <= files.keys()
    assert not any(path.startswith(("/usr/share/nginx/html", "/usr/share/doc")) for path in files)
    assert files["/etc/nginx/conf.d/default.conf"] == 0  # another is written in its place
    assert plan.runtime_image == "scratch" and plan.totals.base_bytes == sum(files.values())
    assert plan.estimated_bytes == plan.totals.base_bytes + found.written_bytes + plan.totals.copy_bytes
    server, site = plan.copies_dict()
    assert (server["image"], server["source"], server["target"]) == ("nginx:bookworm", "/", "/")
    assert (site["image"], site["source"], site["target"]) == (None, "/app/dist", "/usr/share/nginx/html")
    text = written(plan, "app:1", name="D").text
    assert "\nFROM nginx:bookworm AS server\nRUN printf" in text
    assert f"\nFROM scratch\nCOPY --from=server {STAGING} /\nCOPY --from=builder /app/dist " in text
    assert "etc/nginx/conf.d/default.conf" in text
    assert text.endswith('EXPOSE 8123\nSTOPSIGNAL SIGQUIT\nCMD ["nginx", "-g", "daemon off;"]\n')


def test_what_the_original_said_and_the_server_does_not_do_is_said() -> None:
    plan = plan_for(served(User="node", Healthcheck={"Test": ["CMD", "true"]}))
    assert any("USER node is left out" in warning for warning in plan.warnings)
    assert any("HEALTHCHECK is left out" in warning for warning in plan.warnings)
    text = written(plan, "app:1").text
    assert "HEALTHCHECK" not in text and "USER" not in text
    assert len(plan_for(served()).warnings) == 1


def test_files_that_only_their_owner_reads_are_opened_up() -> None:
    closed: dict[str, Member] = {"/app/dist/secret.html": File(data=b"s", mode=0o600, uid=5)}
    text = written(plan_for(served(members=closed)), "app:1").text
    assert "FROM builder AS pruned\nRUN chmod -R a+rX /app/dist\n" in text and "--from=pruned" in text
    folder: dict[str, Member] = {"/app/dist/x/": Dir(mode=0o700), "/app/dist/x/y.html": b"y"}
    assert "chmod -R" in written(plan_for(served(members=folder)), "app:1").text
    assert "chmod" not in written(plan_for(served()), "app:1").text


def test_keep_and_drop_hold_for_sites_too() -> None:
    members: dict[str, Member] = {"/data/extra.bin": b"e" * 100}
    plan = plan_for(served(members=members, keep=("/data",), drop=("/app/dist/assets/app.css",)))
    assert plan.verdict("/data/extra.bin") == "copy" and plan.verdict("/app/dist/assets/app.css") == "drop"
    text = written(plan, "app:1").text
    assert "RUN rm -rf \\\n    /app/dist/assets/app.css" in text and "COPY --from=pruned /data /data" in text


def test_repositories_and_secrets_are_no_part_of_a_site() -> None:
    plan = plan_for(served(members={"/app/dist/.git/config": b"g", "/app/dist/.git/x": b"o"}))
    assert plan.verdict("/app/dist/.git/config") == "drop" and plan.verdict("/app/dist/index.html") == "copy"
    assert "rm -rf" in written(plan, "app:1").text


def test_a_musl_server_is_offered_beside_it() -> None:
    from layerlens.plan import make_plan

    found = served()
    other = catalogued("nginx:alpine")
    assert found is not None and other is not None
    plan = make_plan(
        found.needs, base=found.base, choice=found.choice, layer_bytes=1, musl=[other], exchange=found
    )
    (offered,) = plan.alternatives
    assert offered.estimated_bytes == other.size_bytes + plan.totals.copy_bytes + found.written_bytes
    assert "catalogue" in offered.reason


def test_a_server_that_cannot_be_opened_is_taken_as_documented_but_has_no_closure() -> None:
    known = Base("nginx:bookworm", 170_000_000, source="a book", libc="glibc")
    found = served(server=known)
    assert found is not None and found.hosting.folder == "/usr/share/nginx/html"
    text = written(plan_for(found), "app:1").text
    assert "> /etc/nginx/conf.d/default.conf" in text and 'CMD ["nginx", "-g", "daemon off;"]' in text
    assert served("scratch", server=known) is None


def test_without_a_server_there_is_no_exchange() -> None:
    assert served(server=base_of({"/bin/sh": RUN}, "nginx:bookworm")) is None
    assert served(server=base_of(NGINX, "another:1")) is None
    assert served("node:18-slim", server=base_of({"/bin/sh": RUN}, "node:18-slim")) is None
    named = served("my/nginx:1", server=base_of(NGINX, "my/nginx:1"))
    assert named is not None and named.server.reference == "my/nginx:1"


def test_what_is_no_static_site_has_none() -> None:
    made: ImageConfig = config(Cmd=["/app/run"])
    filesystem = squash(layer({"/app/run": RUN}))
    assert static_site(Attribution(filesystem, packages(filesystem, made)), made) is None


def test_a_plan_of_the_program_itself_is_not_touched() -> None:
    from plankit import needs_of

    needs = needs_of({**SITE, "/app/run": RUN})
    assert plan_of(needs, base_of({"/bin/sh": RUN})).exchange is None


@pytest.mark.skipif(shutil.which("nginx") is None, reason="no nginx on this machine")
def test_nginx_itself_accepts_the_configuration(tmp_path: Path) -> None:
    found = served()
    assert found is not None
    (text,) = found.hosting.files.values()
    types = tmp_path / "mime.types"
    types.write_text("types { text/html html; }")
    text = text.replace("/etc/nginx/mime.types", str(types))
    conf = tmp_path / "nginx.conf"
    conf.write_text(
        f"pid {tmp_path}/pid;\nerror_log stderr;\nevents {{}}\nhttp {{ access_log off;\n{text} }}\n"
    )
    result = subprocess.run(
        ["nginx", "-t", "-c", str(conf), "-p", str(tmp_path)], capture_output=True, text=True, timeout=20
    )
    assert result.returncode == 0, result.stderr


def test_the_library_exchanges_only_where_it_may(tmp_path: Path) -> None:
    app, server = tmp_path / "app.tar", tmp_path / "server.tar"
    ran = {"Cmd": ["npm", "run", "preview"], "WorkingDir": "/app", "Env": ["PATH=/usr/bin:/bin"]}
    app.write_bytes(tar_of(docker_archive_25(image([layer(SITE)], config=ran))))
    command = {"Cmd": ["nginx", "-g", "daemon off;"], "Env": ["PATH=/usr/sbin:/bin"]}
    server.write_bytes(tar_of(docker_archive_25(image([layer(NGINX)], config=command))))
    with open_image(str(app)) as opened:
        plan = opened.recommend(str(server))
        assert plan.exchange is not None and plan.runtime_image == str(server)
        assert any("server:latest" in warning for warning in plan.warnings)
        assert "FROM server:latest" in plan.dockerfile() and "FROM app:latest AS builder" in plan.dockerfile()
        own = opened.recommend(str(server), exchange=False)
        assert own.exchange is None and "/usr/bin/npm" in own.needs.kept
        with pytest.raises(UsageError, match=r"no-such\.tar cannot be opened .*catalogue does not know it"):
            opened.recommend(str(tmp_path / "no-such.tar"))
