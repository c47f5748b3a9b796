"""Git: ``git NAME`` runs ``git-NAME`` from its own directory where that is no built-in (git(1), ``--exec-path``)."""

from __future__ import annotations

from collections.abc import Iterator

from layerlens.ecosystems import Explorer, ImageView, WithoutPackages
from layerlens.ecosystems._options import after_options
from layerlens.model import Command, Edge

EXEC_PATHS = ("/usr/lib/git-core", "/usr/libexec/git-core", "/usr/local/libexec/git-core")
"""Where distributions and Git's own Makefile (``gitexecdir``) put the programs behind ``git``."""
VALUED = frozenset(("-C", "-c", "--git-dir", "--work-tree", "--namespace", "--super-prefix", "--config-env"))
"""Options of git(1) that take the next word."""


class GitExplorer(Explorer):
    """Which program a ``git`` command line starts."""

    def command(self, command: Command, program: str) -> Iterator[Edge | Command]:
        """The program of the subcommand, with its words."""
        if command.argv[0].rpartition("/")[2] != "git":
            return
        words = command.argv[1:]
        words = words[after_options(words, lambda option, _: 2 if option in VALUED else 1) :]
        if not words or "/" in words[0] or "\0" in words[0]:
            return
        for folder in (command.env.get("GIT_EXEC_PATH", ""), *EXEC_PATHS):
            target = f"{folder}/git-{words[0]}"
            real = self.image.fs.follow(target) if folder.startswith("/") else None
            if real is not None and self.image.fs.is_file(real):
                if real != program and not real.endswith("/git"):
                    argv = (target, *words[1:])
                    evidence = f"git {words[0]}"
                    yield Command(program, argv, evidence, command.cwd, command.env, "command", "likely")
                return


class Git(WithoutPackages):
    """Version control, as far as it starts other programs."""

    name = "git"

    def explorer(self, image: ImageView) -> Explorer:
        """What the ``git`` command lines of an image start."""
        return GitExplorer(image)


ecosystem = Git()
