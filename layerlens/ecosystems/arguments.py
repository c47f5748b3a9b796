"""Words of a command line that name files of the image: ``--config /etc/app.conf``, ``-t public``, ``-f x.awk``.

No program's manual is needed to see that a word which is the path of an existing file will be read; what each program
does beyond that is for its own ecosystem to say. A word that names a folder of the application brings the folder.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Sequence

from layerlens.ecosystems import UNNEEDED_CATEGORIES, Explorer, ImageView, WithoutPackages
from layerlens.model import Command, Edge, EntryType, ImagePath

APPLICATION = frozenset(["app", "other"])
"""Categories of files that are the application's own."""

_FHS = """
    / /bin /boot /dev /etc /home /lib /lib64 /media /mnt /opt /proc /root /run /sbin /srv /sys /tmp
    /usr /usr/bin /usr/lib /usr/lib64 /usr/libexec /usr/local /usr/local/bin /usr/local/etc /usr/local/lib
    /usr/local/libexec /usr/local/sbin /usr/local/share /usr/sbin /usr/share /usr/src
    /var /var/cache /var/lib /var/log /var/run /var/spool /var/tmp /var/www
"""
SHARED = frozenset(_FHS.split())
"""Folders that hold everybody's files (FHS 3.0): naming one asks for none of them."""

NEVER_DATA = frozenset(
    ["vcs", "secrets", "package-cache", "dev-dependencies", "compilers", "tests", "sources"]
)
"""What a folder that a program names by a string may hold and the program does not read."""

LONGEST = 1024
"""Longer words are programs and texts, not paths."""


class Arguments(WithoutPackages):
    """Words that name files, whatever program is given them."""

    name = "arguments"
    takes_any_word = True
    """What understands a word says more of it than that it is the name of a file, and is asked before."""

    def explorer(self, image: ImageView) -> ArgumentsExplorer:
        """The files that words name."""
        return ArgumentsExplorer(image)


class ArgumentsExplorer(Explorer):
    """Looks at the words of every command line."""

    def command(self, command: Command, program: ImagePath) -> Iterator[Edge | Command]:
        """An edge for each word that names a file, from the script that has it or else from the program."""
        if len(command.argv) > 1:
            source = command.source if command.source.startswith("/") else program
            yield from named(self.image, source, command.argv[1:], command.cwd, "")


def named(
    image: ImageView,
    source: ImagePath,
    words: Sequence[str],
    cwd: ImagePath,
    where: str,
    *,
    folders: bool = True,
) -> Iterator[Edge]:
    """Edges to the files that words name, relative to ``cwd``; ``where`` goes before the evidence.

    A word is taken whole, after its first ``=`` (``--config=FILE``), after a ``@``, a ``file:`` or a colon, and after
    one option letter (``-c/etc/x``). A folder brings its files where they are the application's and ``folders`` is
    set, else only itself.
    """
    fs = image.fs
    option = False
    for word in words:
        if 0 < len(word) <= LONGEST and "\0" not in word and "\n" not in word:
            for part in _parts(word):
                path = clean(posixpath.join(cwd, part))
                kind = fs.type_of(path)
                if kind is None:
                    real = fs.follow(path)
                    kind = fs.type_of(real) if real is not None else None
                elif kind == EntryType.SYMLINK:
                    real = fs.follow(path)
                    kind = fs.type_of(real) if real is not None else kind
                evidence = f"{where}the word {word}"
                if kind == EntryType.FILE and path != source:
                    yield Edge(source, path, "literal", evidence, "likely")
                elif kind == EntryType.DIR and (option or part != word or "/" in word):
                    yield from _folder(image, source, path, evidence, folders)
        option = word.startswith("-")


def clean(path: str) -> ImagePath:
    """A path without ``.``, ``..`` and empty steps, as the shell's ``cd -L`` takes it."""
    return "/" + posixpath.normpath(path).lstrip("/") if path.startswith("/") else posixpath.normpath(path)


def literal_files(
    image: ImageView, source: ImagePath, literals: Iterable[tuple[int, str]], folders: Sequence[ImagePath]
) -> Iterator[Edge]:
    """Edges to the files, and the files of folders, that strings of a program name below one of ``folders``.

    ``literals`` are lines and strings. A string that is no more than a word names no folder: too many words do.
    """
    fs = image.fs
    for line, text in literals:
        name = text.strip("/")
        if not name or len(name) > LONGEST or "\0" in name or name in (".", ".."):
            continue
        for folder in folders:
            path = clean(f"{folder}/{name}")
            if not path.startswith(f"{folder}/") and not any(path.startswith(f"{one}/") for one in folders):
                continue
            evidence = f"line {line}: {text!r}"
            if fs.is_file(path):
                if path != source:
                    yield Edge(source, path, "literal", evidence, "likely")
                break
            if "/" in text and fs.is_dir(path) and path not in SHARED:
                yield from image.tree(source, path, "literal", evidence, "likely", without=NEVER_DATA)
                break


def _parts(word: str) -> Iterator[str]:
    """The pieces of a word that may be a path."""
    if word.startswith("-"):
        if word[1:2].isalpha() and word[2:3] == "/":
            yield word[2:]
    elif word not in (".", ".."):
        yield word.removeprefix("file://") if word.startswith("file:///") else word
    for mark in ("=", "@", ":"):
        _, found, rest = word.partition(mark)
        if found and rest and (mark == "=" or rest.startswith("/")) and not rest.startswith("//"):
            yield rest


def _folder(
    image: ImageView, source: ImagePath, path: ImagePath, evidence: str, with_files: bool
) -> Iterator[Edge]:
    """An edge to a folder, and to its files where they are the application's own."""
    real = image.fs.follow(path) or path
    if real in SHARED or path in SHARED:
        return
    yield Edge(source, path, "literal", evidence, "likely")
    if not with_files or image.owner_of(real) is not None:
        return
    for edge in image.tree(
        source, path, "app-file", evidence, "assumed", without=UNNEEDED_CATEGORIES | {"sources"}
    ):
        if edge.target == path or _is_own(image, edge.target):
            yield edge


def _is_own(image: ImageView, path: ImagePath) -> bool:
    """Whether a path is the application's: by its category, or as configuration that no package brought."""
    if image.category_of(path) in APPLICATION:
        return True
    return path.startswith("/etc/") and image.owner_of(path) is None


ecosystem = Arguments()
