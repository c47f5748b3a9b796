"""What an application's own JavaScript asks for and the image does not have, and where Node would look for it."""

from __future__ import annotations

from collections.abc import Iterator

from layerlens.ecosystems import ImageView, Lack
from layerlens.ecosystems._node_resolve import IMPORT, REQUIRE, Resolver, split_specifier
from layerlens.ecosystems._node_source import SOURCE_LIMIT, scan
from layerlens.errors import LayerLensError
from layerlens.model import ImagePath
from layerlens.patterns import regex

INSTALLERS = {
    # Program → the words that let it fill node_modules (their manuals); "" for none at all.
    "npm": frozenset(("ci", "clean-install", "i", "install")),
    "yarn": frozenset(("", "install")),
    "pnpm": frozenset(("i", "install")),
    "bun": frozenset(("i", "install")),
}
_ELSEWHERE = frozenset(("-g", "--global", "--prefix", "-C", "--dir", "--cwd", "cd", "pushd"))
"""Words after which packages go to another directory."""
_ENDS_OF_COMMANDS = regex(r"&&|[|]{1,2}|[;\n]")
_MODULE_SYNTAX = regex(rb"(?m)^(?:import\s{0,20}[\w{*'\"]|export\s{0,20}[\w{*])")
"""What only an ES module may have at its top level."""


def installs(line: str) -> bool:
    """Whether a line for the shell reads the package.json of its directory and fills the node_modules there."""
    for command in _ENDS_OF_COMMANDS.split(line):
        words = command.split()
        if not _ELSEWHERE.isdisjoint(words):
            return False
        asked = INSTALLERS.get(words[0]) if words else None
        if asked is not None and next((word for word in words[1:] if not word.startswith("-")), "") in asked:
            return True
    return False


def lacks(image: ImageView) -> Iterator[Lack]:
    """For each own file that was told to ask for what is not there: each such thing, by line."""
    resolver = Resolver.of_env(image.fs, image.env)
    told = {
        found.path
        for found in image.diagnostics
        if found.code == "missing-module" and found.severity == "warning" and found.path is not None
    }
    for path in sorted(told):
        if "/node_modules/" not in path and image.fs.is_file(path):
            yield from _lacks_of(image, resolver, path)


def _lacks_of(image: ImageView, resolver: Resolver, path: ImagePath) -> Iterator[Lack]:
    try:
        data = image.fs.read(path, SOURCE_LIMIT)
    except (LayerLensError, OSError):
        return
    for asked in scan(data, path, image.config.workdir or "/", image.env):
        specifier = asked.text.head
        if asked.kind not in ("require", "import") or not asked.text.whole or asked.optional:
            continue
        if resolver.is_builtin(specifier):
            continue
        if resolver.resolve(specifier, path, IMPORT if asked.kind == "import" else REQUIRE) is not None:
            continue
        evidence = f'line {asked.line}: {asked.kind} "{specifier}" finds nothing'
        if specifier.startswith(("./", "../")):
            yield Lack(path, evidence, specifier, False, installs)
        elif split_specifier(specifier)[0]:
            yield Lack(path, evidence, "node_modules", True, installs)
    module = _MODULE_SYNTAX.search(data) if path.endswith(".js") else None
    if module is not None and resolver.scope(path) is None:
        line = data.count(b"\n", 0, module.start()) + 1
        said = f'line {line}: is an ES module, and no package.json says "type": "module" (packages, "type")'
        yield Lack(path, said, "package.json", True, installs)
