"""A plan as a multi-stage Dockerfile: the builder as it is, and the stage that ships what is needed.

Generated lines are those that the classic builder and BuildKit read alike (Dockerfile reference). Three things that
COPY does not do are made good with a RUN: it follows a symbolic link that it is given, it does not bring a
directory's own mode and owner, and it makes no empty directory.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from layerlens import dockerfile as text_of
from layerlens import dockerlines as lines_of
from layerlens.dockerfile import Dockerfile, Stage
from layerlens.model import EntryType, ImageConfig, ImagePath
from layerlens.runtime import is_root, name_for_from

if TYPE_CHECKING:
    from layerlens.exchange import Exchange
    from layerlens.filesystem import Filesystem
    from layerlens.plan import Copy, Made, Plan
    from layerlens.runtime import Base

PATHS_SUFFIX = ".paths"
"""What is put behind the Dockerfile's name for the list of paths that a staging stage reads."""
STAGING = "/layerlens-slim"
"""Where the staging stage gathers the kept paths, on the builder."""
LONGEST_INLINE = 40
"""Paths up to which a list is written into the Dockerfile itself."""


@dataclass(frozen=True, slots=True)
class Written:
    """A Dockerfile and what belongs beside it."""

    text: str
    files: tuple[tuple[str, str], ...] = ()
    """(name, content) of files that the build context needs beside it."""
    copies: tuple[tuple[str, Copy], ...] = ()
    """Each COPY line of the runtime stage, and the copy that it makes."""


def written(
    plan: Plan,
    reference: str,
    *,
    source: Dockerfile | None = None,
    target: Stage | None = None,
    name: str = "Dockerfile",
) -> Written:
    """The Dockerfile of a plan.

    ``reference`` is the image, which becomes the builder where no Dockerfile is given. ``source`` is the user's own
    file and ``target`` the stage that built the image; everything in it stays, and a stage that has no name gets one.
    Of a file with several stages only the target is improved, and what replaces it takes over its place and its name,
    so that ``--target`` builds the small image from now on. ``name`` is the file's own name, which the list of paths
    takes after. With nothing to gain the file comes back as it was.
    """
    if plan.nothing_to_gain and source is not None:
        return Written(source.text)
    if source is None or target is None:
        source = text_of.parse("FROM scratch\n")
        stage = _RuntimeStage(plan, "builder", source, name)
        first = lines_of.from_line(name_for_from(reference)[0], "builder")
        text = text_of.append_stages(source, f"{first}\n", stage.text())
    elif target.index == 0 and len(source.stages) == 1:
        text, builder = text_of.as_builder(source, target)
        stage = _RuntimeStage(plan, builder, source, name)
        text = text_of.append_stages(source, text, stage.text())
    else:
        place = text_of.succession(source, target)
        stage = _RuntimeStage(plan, place.builder, source, name, place.name)
        text = text_of.succeed(source, target, place, stage.text())
    return Written(text, stage.files(), tuple(stage.copies))


class _RuntimeStage:
    """The stages that follow the builder."""

    def __init__(
        self, plan: Plan, builder: str, taken: Dockerfile, name: str, final: str | None = None
    ) -> None:
        self.plan, self.builder, self.taken, self.name, self.final = plan, builder, taken, name, final
        self.escape = taken.escape
        self.config: ImageConfig = plan.needs.config
        """The builder's; the result's is the plan's."""
        self.copies: list[tuple[str, Copy]] = []
        self.gathered: list[str] | None = None
        """Paths that a staging stage gathers, relative to the root, parents first; None without one."""
        if plan.exchange is not None:
            if plan.base is None:
                self.gathered = _with_parents([*plan.exchange.server_files(), *plan.exchange.hosting.files])
        elif plan.base is None and _can_gather(plan.fs, plan.needs.kept):
            self.gathered = _with_parents(plan.needs.kept)

    def text(self) -> str:
        """Everything after the builder."""
        plan = self.plan
        if plan.base is not None:
            lines = self._on_base(plan.base)
        elif plan.exchange is not None:
            lines = self._served(plan.exchange)
        else:
            lines = self._scratch()
        return "".join(f"{line}\n" for line in lines)

    def files(self) -> tuple[tuple[str, str], ...]:
        """The list of paths, where the staging stage reads one."""
        if self.gathered is None or len(self.gathered) <= LONGEST_INLINE:
            return ()
        text = "".join(f"{path}\n" for path in self._listed())
        return ((f"{self.name}{PATHS_SUFFIX}", text),)

    def _listed(self) -> list[str]:
        """The gathered paths as the tar of their stage reads them from a list."""
        exchange = self.plan.exchange
        closure = None if exchange is None else exchange.closure
        fs = self.plan.fs if closure is None else closure.fs
        names = [path if _is_busybox(fs) else _for_gnu_tar(path) for path in self.gathered or ()]
        return [f"./{name}" if name.startswith("-") else name for name in names]  # an option otherwise

    def _stage_name(self, wanted: str) -> str:
        return text_of.unused_stage_name(self.taken, wanted)

    # -- on a base -----------------------------------------------------------------------------------------

    def _on_base(self, base: Base) -> Iterator[str]:
        plan = self.plan
        origin = yield from self._pruned()
        yield lines_of.from_line(name_for_from(base.reference)[0], self.final)
        if base.config is not None and not is_root(base.config.user):
            yield "USER root"
        if plan.exchange is not None:
            yield from _writing_lines(plan.exchange.hosting.files)
        if plan.install_line:
            gone = sorted(tree.path for tree in plan.uninstalled)
            paths = "".join(f" \\\n        {_word(path)}" for path in gone)
            yield f"{plan.install_line} \\\n    && rm -rf{paths}" if gone else plan.install_line
        accounts = _account_line(plan.accounts, base.opened)
        if accounts:
            yield accounts
        yield from self._copied(origin)
        making = _making_line(plan.made, self._needs_loader_cache())
        if making:
            yield making
        yield from self._config_lines(base.config)

    def _copied(self, origin: str) -> Iterator[str]:
        for copy in self.plan.copies:
            if copy.image is None:
                line = lines_of.copy_line(
                    copy.sources, _target(copy), origin, _owner(copy), escape=self.escape
                )
                self.copies.append((line, copy))
                yield line

    def _pruned(self) -> Generator[str, None, str]:
        """The stage that trims the builder, where there is something to trim; the name of the stage to copy from."""
        trimming = list(self._trimming())
        if not trimming:
            return self.builder
        name = self._stage_name("pruned")
        yield lines_of.from_line(self.builder, name)
        yield from trimming
        yield ""
        return name

    def _trimming(self) -> Iterator[str]:
        """What makes the builder's directories fit to be copied whole."""
        plan = self.plan
        commands = [(step.workdir, step.line.removeprefix("RUN ").strip()) for step in plan.improvements]
        gone = [tree.path for tree in plan.removals]
        opened = plan.exchange.root if plan.exchange is not None and plan.exchange.must_open_up() else None
        if not commands and not gone and not plan.swept and opened is None:
            return
        if not is_root(self.config.user):
            yield "USER root"
        workdir = self.config.workdir or "/"
        for where, command in commands:
            yield f"RUN {command}" if where == workdir else f"RUN cd {_word(where)} && {command}"
        if gone:
            yield "RUN rm -rf \\\n" + " \\\n".join(f"    {_word(path)}" for path in sorted(gone))
        for kind in plan.swept:
            if kind.folders:
                names = " -o ".join(f"-name {_word(_pattern(name))}" for name in kind.folders)
                where = _word(kind.directory)
                but = "".join(f" ! -path {_word(_pattern(path))}" for path in kind.but)
                yield f"RUN find {where} -type d \\( {names} \\){but} -prune -exec rm -rf {{}} +"
                continue
            names = " -o ".join(f"-name {_word(f'*{suffix}')}" for suffix in kind.suffixes)
            yield f"RUN find {_word(kind.directory)} -type f \\( {names} \\) -delete"
        if opened is not None:
            yield f"RUN chmod -R a+rX {_word(opened)}"

    def _needs_loader_cache(self) -> bool:
        """Whether libraries are copied to where only ld.so.cache leads (ldconfig(8))."""
        fs, base = self.plan.fs, self.plan.base
        if base is None or base.fs is None or not base.fs.is_file("/sbin/ldconfig"):
            return False
        return any(
            edge.kind in ("needed", "symlink") and ".so" in path and path.startswith("/usr/local/")
            for path, edge in self.plan.needs.kept.items()
            if self.plan.verdict(path) == "copy" and fs.type_of(path) == EntryType.FILE
        )

    def _config_lines(self, base: ImageConfig | None) -> Iterator[str]:
        config = self.plan.config
        if base is not None and base.entrypoint and not config.entrypoint:
            # The base's own ENTRYPOINT would run before the image's CMD.
            yield from lines_of.carried_config_lines(
                config,
                replace(base, entrypoint=None),
                without=("ENTRYPOINT", "CMD"),
                escape=self.escape,
            )
            yield "ENTRYPOINT []"
            yield lines_of.exec_line("CMD", config.cmd or ())
            return
        yield from lines_of.carried_config_lines(config, base, escape=self.escape)

    # -- on nothing ----------------------------------------------------------------------------------------

    def _scratch(self) -> Iterator[str]:
        if self.gathered is not None:
            staging = self._stage_name("staging")
            yield lines_of.from_line(self.builder, staging)
            if not is_root(self.config.user):
                yield "USER root"
            yield from self._gathering(self.plan.fs, self.gathered)
            yield ""
            yield lines_of.from_line("scratch", self.final)
            line = lines_of.copy_line([STAGING], "/", staging, escape=self.escape)
            self.copies.extend((line, copy) for copy in self.plan.copies)
            yield line
        else:
            yield lines_of.from_line("scratch", self.final)
            yield from self._plain_copies()
        yield from lines_of.carried_config_lines(self.plan.config, None, escape=self.escape)

    def _served(self, exchange: Exchange) -> Iterator[str]:
        """A server out of its own image, and the site out of the builder."""
        assert exchange.closure is not None and self.gathered is not None, "on scratch a server is gathered"
        origin = yield from self._pruned()
        server = self._stage_name("server")
        yield lines_of.from_line(name_for_from(exchange.server.reference)[0], server)
        if not is_root(exchange.closure.config.user):
            yield "USER root"
        yield from _writing_lines(exchange.hosting.files)
        yield from self._gathering(exchange.closure.fs, self.gathered)
        yield ""
        yield lines_of.from_line("scratch", self.final)
        line = lines_of.copy_line([STAGING], "/", server, escape=self.escape)
        self.copies.extend((line, copy) for copy in self.plan.copies if copy.image is not None)
        yield line
        yield from self._copied(origin)
        yield from lines_of.carried_config_lines(self.plan.config, None, escape=self.escape)

    def _gathering(self, fs: Filesystem, paths: Sequence[str]) -> Iterator[str]:
        tar = "tar --no-recursion"
        out = "tar"
        if not _is_busybox(fs) and any(
            fs.exists(f"/{path}") and fs.entry(f"/{path}").xattrs for path in paths
        ):
            tar, out = f"{tar} --xattrs", f"{out} --xattrs --xattrs-include='*'"
        pipe = f"{tar} -C / -cf - -T {STAGING}.paths | {out} -C {STAGING} -xpf -"
        if len(paths) <= LONGEST_INLINE:
            quoted = " \\\n".join(f"        {_word(path)}" for path in self._listed())
            listing = f"printf '%s\\n' \\\n{quoted} \\\n        > {STAGING}.paths"
            yield f"RUN mkdir {STAGING} \\\n && {listing} \\\n && {pipe}"
            return
        yield lines_of.copy_line([f"{self.name}{PATHS_SUFFIX}"], f"{STAGING}.paths", escape=self.escape)
        yield f"RUN mkdir {STAGING} \\\n && {pipe}"

    def _plain_copies(self) -> Iterator[str]:
        """A COPY for each directory; a link becomes what it leads to, since COPY follows it."""
        fs = self.plan.fs
        by_folder: dict[ImagePath, list[ImagePath]] = {}
        for path in sorted(set(self.plan.needs.kept) - self.plan.needs.second_names()):
            if fs.is_file(path):
                by_folder.setdefault(path.rpartition("/")[0], []).append(path)
        rows = {copy.group: copy for copy in self.plan.copies}
        for folder, sources in sorted(by_folder.items()):
            line = lines_of.copy_line(sources, f"{folder}/", self.builder, escape=self.escape)
            if rows:
                self.copies.append((line, next(iter(rows.values()))))
            yield line


def _with_parents(paths: Iterable[ImagePath]) -> list[str]:
    """Paths and the directories that they lie in, relative to the root, parents first."""
    found: set[str] = set()
    for path in paths:
        while path and path != "/" and path not in found:
            found.add(path)
            path = path.rpartition("/")[0]
    return [path.lstrip("/") for path in sorted(found)]


def _can_gather(fs: Filesystem, paths: Iterable[ImagePath]) -> bool:
    """Whether an image has what gathers these paths: a shell, and a tar whose list can name them all."""
    if not fs.is_file("/bin/sh") or _tar(fs) is None:
        return False
    return not _is_busybox(fs) or not any(_is_strange(path) for path in paths)


def _is_busybox(fs: Filesystem) -> bool:
    return (_tar(fs) or "").endswith("busybox")


def _is_strange(path: ImagePath) -> bool:
    """Whether a path has line breaks or other control characters, or bytes that are not UTF-8."""
    return any(
        character < " " or character == "\x7f" or "\ud800" <= character <= "\udfff" for character in path
    )


def _for_gnu_tar(path: str) -> str:
    """A path as GNU tar reads it from ``--files-from`` (its manual, "Reading Names from a File": ``--unquote``)."""
    path = path.replace("\\", "\\\\")
    return _octal(path) if _is_strange(path) else path


def _octal(path: str, every: bool = False) -> str:
    """Bytes that cannot stand in a line of text as ``\\ooo``; with ``every``, all of them."""
    return "".join(
        "".join(f"\\{byte:03o}" for byte in os.fsencode(character))
        if every or _is_strange(character)
        else character
        for character in path
    )


def _word(text: str) -> str:
    """One word of a shell's command line, whatever it holds (POSIX.1-2017, XCU 2.6.3 and printf)."""
    return f"\"$(printf '{_octal(text, every=True)}')\"" if _is_strange(text) else shlex.quote(text)


def _pattern(text: str) -> str:
    """A pattern of find(1) that matches this text alone (fnmatch(3))."""
    return re.sub(r"([*?\[\]\\])", r"\\\1", text)


def _tar(fs: Filesystem) -> ImagePath | None:
    for folder in ("/usr/bin", "/bin", "/usr/local/bin"):
        if fs.is_file(f"{folder}/tar"):
            return fs.follow(f"{folder}/tar")
    return None


def _writing_lines(files: Mapping[ImagePath, str]) -> Iterator[str]:
    """The RUN for each file that is written, a line of text on each line: printf, since heredocs need BuildKit."""
    for path, text in sorted(files.items()):
        lines = " \\\n".join(f"        {_word(line)}" for line in text.splitlines())
        yield f"RUN printf '%s\\n' \\\n{lines} \\\n    > {_word(path)}"


def _target(copy: Copy) -> str:
    return copy.target if copy.whole else f"{copy.target.rstrip('/')}/"


def _owner(copy: Copy) -> str | None:
    return None if copy.owner is None else f"{copy.owner[0]}:{copy.owner[1]}"


def _account_line(accounts: Sequence[tuple[str, str]], known: bool) -> str | None:
    """The RUN that adds users and groups as the builder has them, with the same numbers.

    Without ``known``, nobody has looked whether the runtime image has them: the shell does.
    """
    if not accounts:
        return None
    parts = []
    for file, line in accounts:
        echo = "printf '%s\\n'" if "\\" in line else "echo"  # some shells' echo reads escapes
        added = f"{echo} {_word(line)} >> {file}"
        name = line.partition(":")[0]
        parts.append(added if known else f"{{ grep -q {_word(f'^{name}:')} {file} || {added}; }}")
    return "RUN " + " \\\n && ".join(parts)


def _making_line(made: Sequence[Made], loader_cache: bool) -> str | None:
    """The RUN for links, empty directories and attributes."""
    parts: list[str] = []
    folder = None
    for one in made:
        path = _word(one.path)
        if one.kind == "symlink":
            above = one.path.rpartition("/")[0]
            if above and above != folder:
                parts.append(f"mkdir -p {_word(above)}")
                folder = above
            parts.append(f"ln -sfn {_word(one.link_target)} {path}")
            continue
        if one.kind == "directory":
            parts.append(f"mkdir -p {path}")
        if (one.uid, one.gid) != (0, 0):
            parts.append(f"chown {one.uid}:{one.gid} {path}")
        if one.mode != 0o755:
            parts.append(f"chmod {one.mode:04o} {path}")
    if loader_cache:
        parts.append("ldconfig")
    return "RUN " + " \\\n && ".join(parts) if parts else None
