"""Which files of an npm package a running program has use for, on one platform."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from layerlens.ecosystems import UNNEEDED_CATEGORIES
from layerlens.model import EntryType

if TYPE_CHECKING:
    from layerlens.ecosystems import ImageView
    from layerlens.model import ImagePath

ARCHITECTURES = {
    "amd64": "x64",
    "386": "ia32",
    "arm64": "arm64",
    "arm": "arm",
    "ppc64le": "ppc64",
    "s390x": "s390x",
}
"""Go's names (OCI image-spec) → Node's (Node documentation, ``process.arch``)."""
MACHINES = {"amd64": 62, "386": 3, "arm64": 183, "arm": 40, "ppc64le": 21, "s390x": 22, "riscv64": 243}
"""``e_machine`` (System V gABI, ELF header)."""

LEFT_OUT = UNNEEDED_CATEGORIES | {"sources"}

_TOOL_CATEGORIES = frozenset(("dev-dependencies", "compilers"))
"""A package of one of these keeps it for all its files, so that its parts are told by name."""
_UNREAD_ENDINGS = """
    .d.ts .d.mts .d.cts .ts .tsx .mts .cts .flow .map .md .markdown .c .cc .cpp .cxx .h .hpp .o .a .obj .gyp .gypi .mk
    .tsbuildinfo .1 .5 .7
"""
_UNREAD = tuple(_UNREAD_ENDINGS.split())
"""What only people, compilers and debuggers read: TypeScript handbook; ECMA-426; node-gyp; man(1)."""
_UNREAD_FOLDERS = frozenset(
    (
        ".github",
        "man",
        "docs",
        "doc",
        "test",
        "tests",
        "__tests__",
        "example",
        "examples",
        "benchmark",
        "coverage",
    )
)
_OTHER_SYSTEMS = (".dll", ".dylib", ".exe", ".pdb", ".lib")
"""Binaries of systems that run no Linux image."""


class Platform:
    """The image's system, machine and C library, in npm's words."""

    def __init__(self, image: ImageView) -> None:
        self._image = image
        architecture = image.config.platform.architecture
        self.cpu = ARCHITECTURES.get(architecture, architecture)
        self._machine = MACHINES.get(architecture)
        fs = image.fs
        musl = any(
            name.startswith("ld-musl-") for folder in ("/lib", "/usr/lib") for name in fs.listdir(folder)
        )
        glibc = any(
            name.startswith("ld-linux")
            for folder in ("/lib", "/lib64", "/usr/lib64")
            for name in fs.listdir(folder)
        )
        self.libc = "musl" if musl and not glibc else "glibc"

    def fits(self, manifest: Mapping[str, Any]) -> bool:
        """Whether npm would install a package here (npm documentation, package.json: ``os``, ``cpu``, ``libc``)."""
        return all(
            _allows(manifest.get(field), here)
            for field, here in (("os", "linux"), ("cpu", self.cpu), ("libc", self.libc))
        )

    def is_foreign(self, path: ImagePath) -> bool:
        """Whether a file is a binary for another machine, system or C library, told by its name and its head."""
        name = path.rpartition("/")[2]
        if name.endswith(_OTHER_SYSTEMS):
            return True
        if not name.endswith(".node") and ".so" not in name:
            return False
        other = r"(?:gnu|glibc)" if self.libc == "musl" else r"musl"
        if re.search(rf"(?:^|[._-]){other}(?:[._-]|$)", name):
            return True
        if name.endswith(".node") and re.search(r"(?:^|[._-])(?:electron|node-webkit)(?:[._-]|$)", name):
            return True
        head = self._image.head(path)
        if len(head) < 20 or not name.endswith((".node", ".so")):
            return False
        if head[:4] != b"\x7fELF":
            return name.endswith(".node")
        order = "big" if head[5] == 2 else "little"
        return self._machine is not None and int.from_bytes(head[18:20], order) != self._machine  # type: ignore[arg-type]

    def files(self, directory: ImagePath) -> Iterator[ImagePath]:
        """The files of a package that a program may read, without those of the packages inside of it."""
        fs = self._image.fs
        owner = self._image.owner_of(f"{directory}/package.json")
        is_tool = owner is not None and owner.category in _TOOL_CATEGORIES
        is_addon = fs.exists(f"{directory}/binding.gyp")
        stack = [directory]
        while stack:
            folder = stack.pop()
            for name in fs.listdir(folder):
                path = f"{folder}/{name}"
                if fs.type_of(path) == EntryType.DIR:
                    if not self._skips(directory, path, name, is_tool, is_addon):
                        stack.append(path)
                elif not self._is_unneeded(path, name, is_tool, is_addon, directory):
                    yield path

    def _skips(self, package: ImagePath, path: ImagePath, name: str, is_tool: bool, is_addon: bool) -> bool:
        if name == "node_modules" and path != package:
            return True
        if name in ("obj.target", ".deps", "node_gyp_bins") and "/build/" in path:  # node-gyp's objects
            return True
        if is_addon and path == f"{package}/deps":  # the sources of what is linked in
            return True
        if path.endswith("/node_modules/node-gyp/gyp"):  # in Python, beside a compiler
            return True
        if path.rpartition("/")[0].endswith("/prebuilds"):  # prebuildify: PLATFORM-ARCH[+ARCH…]
            system, _, machines = name.partition("-")
            return system != "linux" or self.cpu not in machines.split("+")
        return is_tool and name in _UNREAD_FOLDERS and path == f"{package}/{name}"

    def _is_unneeded(
        self, path: ImagePath, name: str, is_tool: bool, is_addon: bool, package: ImagePath
    ) -> bool:
        if (
            is_addon
            and path.startswith(f"{package}/build/")
            and not (name.endswith(".node") or ".so" in name)
        ):
            return True
        if is_tool:
            if name.endswith(_UNREAD):
                return True
        elif self._image.category_of(path) in LEFT_OUT:
            return True
        return self.is_foreign(path)


def _allows(field: object, here: str) -> bool:
    """Whether a list such as ``["!win32"]`` or ``["linux"]`` allows a name."""
    names = [field] if isinstance(field, str) else field
    if not isinstance(names, list) or not names or "any" in names:
        return True
    if f"!{here}" in names:
        return False
    wanted = [name for name in names if isinstance(name, str) and not name.startswith("!")]
    return not wanted or here in wanted
