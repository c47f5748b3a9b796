"""A small server as a static program, and images of it: what it opens is known, and one folder cannot be foreseen.

``serve PORT`` answers ``GET /NAME`` with the file ``/data/NAME`` (the name of the folder is put together when it
runs), ``GET /is/NAME`` with whether ``/etc/NAME`` is there, without opening it; ``cat FILE`` prints a file, ``die``
ends at once with status 9, ``hang`` does nothing and ignores SIGTERM, ``mute PORT`` listens and never answers.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import docker_trouble
from imagekit import BuiltImage, Dir, File, docker_archive_old, image, layer, tar_of

from layerlens.sources.containers import LABEL

SOURCE = r"""
#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
static void quit(int n) { (void)n; _exit(0); }
static int print(const char *name) {
    char text[4096];
    int file = open(name, O_RDONLY);
    if (file < 0) { perror(name); return 4; }
    ssize_t size = read(file, text, sizeof text);
    return write(1, text, size) == size ? 0 : 5;
}
int main(int argc, char **argv) {
    char text[4096], folder[] = "0ebub0";  /* each letter is one too far */
    for (char *at = folder; *at; at++) --*at;
    if (argc > 2 && !strcmp(argv[1], "cat")) return print(argv[2]);
    if (argc > 1 && !strcmp(argv[1], "hang")) { signal(SIGTERM, SIG_IGN); for (;;) pause(); }
    if (argc > 1 && !strcmp(argv[1], "die")) { puts("dying words"); return 9; }
    signal(SIGTERM, quit);
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1, mute = argc > 1 && !strcmp(argv[1], "mute");
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2])),
                               .sin_addr.s_addr = htonl(ANY ? INADDR_ANY : INADDR_LOOPBACK)};
    if (bind(listener, (void *)&here, sizeof here) || listen(listener, 8)) { perror("bind"); return 1; }
    for (;;) {
        if (mute) { pause(); continue; }
        int client = accept(listener, 0, 0);
        char asked[512] = "", name[600], answer[8192];
        struct stat found;
        ssize_t size = read(client, text, sizeof text - 1);
        text[size > 0 ? size : 0] = 0;
        sscanf(text, "GET /%400s", asked);
        int fine;
        if (!strncmp(asked, "is/", 3)) {
            sprintf(name, "/%s%s", "etc/", asked + 3);
            fine = !stat(name, &found);
            size = fine ? (strcpy(text, "there"), 5) : 0;
        } else {
            sprintf(name, "%s%s", folder, asked);
            int file = open(name, O_RDONLY);
            fine = file >= 0;
            size = fine ? read(file, text, sizeof text) : 0;
            if (fine) close(file);
        }
        int head = sprintf(answer, "HTTP/1.0 %s\r\nContent-Type: text/plain\r\n\r\n", fine ? "200 OK" : "404 No");
        memcpy(answer + head, text, size);
        if (write(client, answer, head + size) < 0) perror("write");
        close(client);
    }
}
"""

LABELLED = "layerlens-test"
"""Label of every image of this kit, which the slim image keeps: others use the engine at the same time."""
FILES = {"a": b"alpha", "b": b"beta"}


def compiled(folder: Path, any_address: bool = False) -> bytes:
    """The program; listens on the loopback address alone unless ``any_address``."""
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    (folder / "s.c").write_text(SOURCE)
    address = f"-DANY={int(any_address)}"
    subprocess.run(["gcc", "-static", "-Os", "-w", address, "-o", folder / "s", folder / "s.c"], check=True)
    return (folder / "s").read_bytes()


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port: int = trial.getsockname()[1]
        return port


class Images:
    """Images of the program; what was loaded is removed from the engine at the end, and nothing else may be left."""

    def __init__(self, program: bytes) -> None:
        self.program = program
        self.port = free_port()
        self.name = f"layerlens-test/s{uuid.uuid4().hex[:12]}"
        self.tags: list[str] = []
        self.loaded: list[str] = []

    def built(self, architecture: str = "amd64", tag: str = "made", **config: Any) -> BuiltImage:
        """The image: the program, what it serves, something to leave behind."""
        members: dict[str, Any] = {
            "/bin/serve": File(data=self.program, mode=0o755),
            "/bin/sh": File(data=b"\x7fnot a shell", mode=0o4755),
            "/tmp/": Dir(mode=0o1777),
            "/etc/flag": b"1",
            "/usr/share/doc/big": bytes(300_000),
            **{f"/data/{name}": content for name, content in FILES.items()},
        }
        return image(
            [layer(members)],
            config={
                "Entrypoint": ["/bin/serve"],
                "Cmd": ["serve", str(self.port)],
                "Labels": {LABELLED: self.name},
                **config,
            },
            platform=f"linux/{architecture}",
            tags=[f"{self.name}:{tag}"],
        )

    def archive(self, folder: Path, **options: Any) -> Path:
        """The image as an archive."""
        path = folder / "original.tar"
        path.write_bytes(tar_of(docker_archive_old(self.built(**options))))
        return path

    def load(self, tag: str = "made", **options: Any) -> str:
        """The image in the engine; its name."""
        built = self.built(tag=tag, **options)
        docker("load", data=tar_of(docker_archive_old(built)))
        self.tags.append(built.tags[0])
        self.loaded.append(built.image_id)
        return built.tags[0]

    def ids(self) -> set[str]:
        """All that the engine has of these images, with a name or without."""
        labelled = f"label={LABELLED}={self.name}"
        return set(docker("images", "--all", "--quiet", "--no-trunc", "--filter", labelled).split())

    def tag(self, name: str) -> str:
        """A name for a slim image, removed at the end."""
        self.tags.append(f"{self.name}:{name}")
        return self.tags[-1]


def docker(*arguments: str, data: bytes | None = None) -> str:
    done = subprocess.run(["docker", *arguments], input=data, capture_output=True, check=False)
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr.decode()}"
    return done.stdout.decode()


def image_id(name: str) -> str | None:
    """The ID behind a name; None if there is none."""
    done = subprocess.run(
        ["docker", "image", "inspect", "--format", "{{.Id}}", name],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or None


def containers_of(process: int) -> list[str]:
    """Containers that a process left in the engine."""
    listed = docker("ps", "--all", "--format", f'{{{{.ID}}}} {{{{.Label "{LABEL}"}}}}').splitlines()
    return [line for line in listed if f"/{process}/" in line]


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return compiled(tmp_path_factory.mktemp("program"))


@pytest.fixture
def images(program: bytes) -> Iterator[Images]:
    found = Images(program)
    yield found
    if docker_trouble() is None:
        for name in (*found.tags, *found.loaded):
            subprocess.run(["docker", "image", "rm", "--force", name], capture_output=True, check=False)
        assert containers_of(os.getpid()) == []
        assert found.ids() == set()
