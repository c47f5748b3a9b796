"""Builds a stand-in for the guide's Node example, `FROM node:18` to `CMD ["node", "dist/server.js"]`, as an archive.

usage: python scripts/guide_image.py guide.tar

The notebook `from-fat-to-slim` opens it where no engine has the real one. Its layers, manifests and sources are as
npm and tsc leave them; Node itself, the compilers and the packages' insides are filler of a tenth of their real size,
so that it can be opened, explained and slimmed, but not run.
"""

from __future__ import annotations

import json
import sys
import tarfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from demo_image import CREATED, Layer, append, append_layer

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MANIFEST = {
    "name": "bookshop",
    "version": "1.0.0",
    "private": True,
    "scripts": {"build": "tsc", "start": "node dist/server.js"},
    "dependencies": {"express": "^4.19.2"},
    "devDependencies": {"typescript": "~5.5.2", "@types/express": "^4.17.21"},
}
PACKAGES = {
    # Name → (version, what it depends on, files besides index.js as (name, bytes)).
    "express": ("4.19.2", ("body-parser", "debug"), (("lib/application.js", 14_000), ("Readme.md", 9_000))),
    "body-parser": ("1.20.2", ("debug",), (("lib/types/json.js", 5_000),)),
    "debug": ("2.6.9", ("ms",), (("CHANGELOG.md", 12_000),)),
    "ms": ("2.0.0", (), ()),
    "typescript": ("5.5.4", (), (("lib/tsc.js", 600_000), ("lib/typescript.js", 900_000))),
    "@types/express": ("4.17.21", (), (("index.d.ts", 5_000),)),
}
SERVER_TS = (
    'import express from "express";\nimport { page } from "./page";\n\n'
    'express().get("/", page).listen(3000);\n'
)
SERVER_JS = (
    '"use strict";\nconst express = require("express");\nconst { page } = require("./page");\n'
    'express().get("/", page).listen(3000);\n'
)
PAGE_TS = "export const page = (_request: unknown, response: any) => response.send('Bookshop');\n"
PAGE_JS = '"use strict";\nexports.page = (_request, response) => response.send("Bookshop");\n'


def filler(name: str, size: int) -> bytes:
    """As many bytes, the same each time, that are no format and different for each name."""
    return (f"stand-in for {name}\n".encode() * (size // (len(name) + 14) + 1))[:size]


def base() -> Layer:
    """What `node:18` brings: Debian, Node and npm, a compiler."""
    layer = Layer()
    for path, size in (
        ("bin/sh", 12_000),
        ("bin/tar", 50_000),
        ("usr/local/bin/node", 9_000_000),
        ("usr/lib/gcc/x86_64-linux-gnu/12/cc1plus", 3_500_000),
        ("usr/lib/gcc/x86_64-linux-gnu/12/lto1", 3_000_000),
        ("usr/lib/python3.11/ast.py", 60_000),
        ("usr/include/openssl/ssl.h", 120_000),
        ("usr/share/doc/gcc-12/README.Debian", 40_000),
        ("usr/local/lib/node_modules/npm/lib/npm.js", 900_000),
    ):
        layer.add(path, filler(path, size), 0o755 if "/bin/" in path or path.startswith("bin/") else 0o644)
    layer.add("usr/local/lib/node_modules/npm/package.json", json.dumps({"name": "npm", "version": "10.8.2"}))
    layer.add("etc/passwd", "root:x:0:0:root:/root:/bin/bash\nnode:x:1000:1000::/home/node:/bin/bash\n")
    layer.add("etc/group", "root:x:0:\nnode:x:1000:\n")
    layer.folders["tmp"] = 0o1777
    return layer


def manifests() -> Layer:
    """`COPY package*.json ./`."""
    layer = Layer()
    packages = {
        f"node_modules/{name}": {"version": version, **({"dev": True} if is_development(name) else {})}
        for name, (version, _, _) in PACKAGES.items()
    }
    lock = {"name": "bookshop", "lockfileVersion": 3, "packages": {"": MANIFEST, **packages}}
    layer.add("app/package.json", json.dumps(MANIFEST, indent=2))
    layer.add("app/package-lock.json", json.dumps(lock, indent=2))
    return layer


def is_development(name: str) -> bool:
    """Whether only the build has use for a package."""
    return name in MANIFEST["devDependencies"]  # type: ignore[operator]


def installed() -> Layer:
    """`RUN npm install`."""
    layer = Layer()
    for name, (version, needs, files) in PACKAGES.items():
        folder = f"app/node_modules/{name}"
        manifest = {
            "name": name,
            "version": version,
            "main": "index.js",
            "dependencies": dict.fromkeys(needs, "*"),
        }
        layer.add(f"{folder}/package.json", json.dumps(manifest))
        required = "".join(f'require("{one}");\n' for one in needs)
        own = "".join(f'require("./{file}");\n' for file, _ in files if file.endswith(".js"))
        layer.add(f"{folder}/index.js", f'"use strict";\n{required}{own}')
        for file, size in files:
            layer.add(f"{folder}/{file}", b"// " + filler(name, size).replace(b"\n", b"\n// "))
    layer.add("root/.npm/_cacache/content-v2/sha512/00/11/2233", filler("a cached tarball", 700_000))
    return layer


def build(path: Path) -> None:
    """Writes the image as a docker-archive (the layout of Docker 25 and later) to ``path``."""
    sources, compiled = Layer(), Layer()
    sources.add("app/src/server.ts", SERVER_TS)
    sources.add("app/src/page.ts", PAGE_TS)
    sources.add("app/README.md", "# Bookshop\n")
    sources.add("app/tsconfig.json", '{"compilerOptions": {"outDir": "dist", "rootDir": "src"}}\n')
    compiled.add("app/dist/server.js", SERVER_JS)
    compiled.add("app/dist/page.js", PAGE_JS)
    workdir = Layer(folders={"app": 0o755})
    steps: list[tuple[str, Layer | None]] = [
        ("/bin/sh -c #(nop) ADD file:8f1d5d0a7e4c49b2 in / ", base()),
        ('/bin/sh -c #(nop)  CMD ["node"]', None),
        ("WORKDIR /app", workdir),
        ("COPY package*.json ./ # buildkit", manifests()),
        ("RUN /bin/sh -c npm install # buildkit", installed()),
        ("COPY . . # buildkit", sources),
        ("RUN /bin/sh -c npm run build # buildkit", compiled),
        ('CMD ["node" "dist/server.js"]', None),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("w+b") as out:
        diff_ids = [append_layer(out, layer) for _, layer in steps if layer is not None]
        history = [
            {
                "created": CREATED,
                "created_by": text,
                **({"empty_layer": True} if layer is None else {}),
                **({} if "nop" in text else {"comment": "buildkit.dockerfile.v0"}),
            }
            for text, layer in steps
        ]
        config = {
            "architecture": "amd64",
            "config": {"Cmd": ["node", "dist/server.js"], "Env": [f"PATH={PATH}"], "WorkingDir": "/app"},
            "created": CREATED,
            "history": history,
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
        manifest = {
            "Config": append(out, json.dumps(config).encode()),
            "RepoTags": ["bookshop:latest"],
            "Layers": [f"blobs/sha256/{diff_id.partition(':')[2]}" for diff_id in diff_ids],
        }
        append(out, json.dumps([manifest]).encode(), "manifest.json")
        out.write(bytes(2 * tarfile.BLOCKSIZE))
    partial.replace(path)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    build(Path(sys.argv[1]))
