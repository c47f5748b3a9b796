"""The command line: parse, call, render, and map errors to exit statuses; nothing is decided here.

Exit status: 0 done, 1 a check failed, 2 the input or the usage was bad, 130 interrupted; a reader that closes the
pipe early (``| head``) has got what it wanted, which is 0. Errors are two lines on stderr, what happened and what to
do; progress is on stderr, only on a terminal; stdout carries the report and nothing else.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from copy import copy
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from layerlens import __version__
from layerlens.errors import LayerLensError, UsageError
from layerlens.render import escape

if TYPE_CHECKING:
    from layerlens.api import Image
    from layerlens.dockerfile import Dockerfile
    from layerlens.probing import Probe
    from layerlens.stages import Written

DONE, CHECK_FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
LINES_AT_ONCE = 2048
"""Lines of `ls` that are written in one go."""

app = typer.Typer(
    name="layerlens",
    help="Say where every byte of a container image comes from.",
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
plugin_app = typer.Typer(
    name="plugin",
    help="Make `docker layerlens` work, or stop it.",
    rich_markup_mode=None,
    no_args_is_help=True,
)
app.add_typer(plugin_app)
cache_app = typer.Typer(
    name="cache",
    help="Say what is kept of images that were read, or remove it.",
    rich_markup_mode=None,
    no_args_is_help=True,
)
app.add_typer(cache_app)

_debug = False
_held: list[object] = []
"""The image that was opened last: it lives until the process ends, since to give back its objects takes longer."""


class ReportFormat(StrEnum):
    """Forms of a report."""

    table = "table"
    json = "json"
    markdown = "markdown"


class RowFormat(StrEnum):
    """Forms of the smaller answers."""

    table = "table"
    json = "json"


class PlanFormat(StrEnum):
    """Forms of a plan."""

    table = "table"
    dockerfile = "dockerfile"
    json = "json"


class ImageFormat(StrEnum):
    """Forms of an image in a file."""

    docker_archive = "docker-archive"
    oci = "oci"


class LayerCompression(StrEnum):
    """How the layers of an OCI layout are stored."""

    gzip = "gzip"
    zstd = "zstd"
    none = "none"


class OutputClosedError(Exception):
    """Whoever read stdout has left."""


def _set_debug(value: bool) -> None:
    global _debug
    _debug = _debug or value


def _show_version(value: bool) -> None:
    if value:
        write(f"layerlens {__version__}\n")
        raise typer.Exit


Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        show_default=False,
        help="An image of the engine (myapp:latest), an archive or OCI folder (./app.tar), or - for stdin.",
    ),
]
PlatformOption = Annotated[
    str | None,
    typer.Option(
        "--platform",
        metavar="OS/ARCH[/VARIANT]",
        show_default=False,
        help="Which image of a multi-platform one; this machine's by default.",
    ),
]
NoCacheOption = Annotated[
    bool,
    typer.Option("--no-cache", help="Read everything anew: take nothing from earlier runs, keep nothing."),
]
KeepOption = Annotated[
    list[str] | None,
    typer.Option("--keep", metavar="PATH", show_default=False, help="Keep this subtree as well."),
]
RootOption = Annotated[
    list[str] | None,
    typer.Option("--root", metavar="PATH", show_default=False, help="Keep what this program needs as well."),
]
DropOption = Annotated[
    list[str] | None,
    typer.Option("--drop", metavar="PATH", show_default=False, help="Leave this subtree, whatever needs it."),
]
HttpOption = Annotated[
    list[str] | None,
    typer.Option(
        "--http", metavar="PORT/PATH", show_default=False, help="Ask for this, as in 8080/health; repeatable."
    ),
]
ExecOption = Annotated[
    list[str] | None,
    typer.Option(
        "--exec", metavar="CMD", show_default=False, help="Run the image with CMD as its command; repeatable."
    ),
]
ProbeOption = Annotated[
    Path | None,
    typer.Option("--probe", metavar="FILE", show_default=False, help="Ask what this probe.toml says."),
]
IgnoreOption = Annotated[
    list[str] | None,
    typer.Option(
        "--ignore",
        metavar="REGEX",
        show_default=False,
        help="Leave this out of what is compared, beside times, UUIDs and addresses; repeatable.",
    ),
]
TimeoutOption = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="S",
        min=0.1,
        max=3600,
        show_default=False,
        help="Seconds until the first answer, and for each command; 30 by default.",
    ),
]
RowFormatOption = Annotated[RowFormat, typer.Option("--format", help="How to print it.")]
DebugOption = Annotated[
    bool, typer.Option("--debug", callback=_set_debug, help="Show a traceback with an error.")
]


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: DebugOption = False,
) -> None:
    pass


@app.command()
def inspect(
    source: Source,
    platform: PlatformOption = None,
    no_cache: NoCacheOption = False,
    no_recommend: Annotated[
        bool, typer.Option("--no-recommend", help="Report what is there, recommend nothing.")
    ] = False,
    verify_digests: Annotated[
        bool, typer.Option("--verify-digests", help="Hash every layer, also where reading needs no hash.")
    ] = False,
    format: Annotated[ReportFormat, typer.Option("--format", help="How to print it.")] = ReportFormat.table,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", show_default=False, help="Write it to FILE instead."),
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Report where an image's bytes are.

    By layer and instruction, category, package and path; and which of them are stored but never seen.
    """
    refuse_directory(output)
    with opened(
        source, platform, no_cache, verify_digests=verify_digests, contents=not no_recommend
    ) as image:
        report = image.inspect(recommend=not no_recommend, files=False)
        if format is ReportFormat.json:
            from layerlens.render import json

            text = json.dumps(report)
        elif format is ReportFormat.markdown:
            from layerlens.render import markdown

            text = markdown.report(report)
        else:
            from layerlens.render import terminal

            to_stdout = output is None or str(output) == "-"
            text = terminal.report(
                report, terminal_width() if to_stdout else 80, to_stdout and wants_colour()
            )
    deliver(text, output, as_utf8=format is not ReportFormat.table)


@app.command()
def ls(
    source: Source,
    path: Annotated[
        str, typer.Argument(metavar="[PATH]", show_default=False, help="List what is below it; / by default.")
    ] = "/",
    layer: Annotated[
        int | None,
        typer.Option(
            "--layer",
            metavar="N",
            min=0,
            show_default=False,
            help="List layer N's own entries, whiteouts too, instead of what a container sees.",
        ),
    ] = None,
    platform: PlatformOption = None,
    no_cache: NoCacheOption = False,
    format: RowFormatOption = RowFormat.table,
    debug: DebugOption = False,
) -> None:
    """List an image's files and the layer each comes from."""
    with opened(source, platform, no_cache, contents=False) as image:
        entries = image.ls(image_path(path), layer=layer)
        if format is RowFormat.json:
            from layerlens.render import json

            write_lines(map(json.ls_line, entries), as_utf8=True)
        else:
            from layerlens.render import terminal

            write_lines(terminal.ls(entries))


@app.command()
def why(
    source: Source,
    path: Annotated[str, typer.Argument(metavar="PATH", show_default=False, help="A path inside the image.")],
    platform: PlatformOption = None,
    no_cache: NoCacheOption = False,
    format: RowFormatOption = RowFormat.table,
    debug: DebugOption = False,
) -> None:
    """Say what brought a path into the image, and what needs it.

    Its layer, the instruction that made the layer, the package that owns it, what it is for, and the chain of needs
    from the entrypoint to it, or what would need it.
    """
    with opened(source, platform, no_cache) as image:
        explanation = image.why(image_path(path))
        if format is RowFormat.json:
            from layerlens.render import json

            text = json.why(explanation)
        else:
            from layerlens.render import terminal

            text = terminal.why(explanation, terminal_width(), wants_colour())
    write(text, as_utf8=format is RowFormat.json)


@app.command()
def recommend(
    source: Source,
    runtime: Annotated[
        str | None,
        typer.Option(
            "--runtime",
            metavar="base|scratch|IMAGE",
            show_default=False,
            help="What to stand on; scratch for a static program and a slim base for others by default.",
        ),
    ] = None,
    dockerfile: Annotated[
        Path | None,
        typer.Option(
            "--dockerfile", metavar="FILE", show_default=False, help="The Dockerfile that built the image."
        ),
    ] = None,
    keep: KeepOption = None,
    root: RootOption = None,
    drop: DropOption = None,
    platform: PlatformOption = None,
    no_cache: NoCacheOption = False,
    format: Annotated[PlanFormat, typer.Option("--format", help="How to print it.")] = PlanFormat.table,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            show_default=False,
            help="Write the Dockerfile (or JSON) to FILE.",
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--write", help="Replace the --dockerfile, keeping it as FILE.bak.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Go on where the Dockerfile built another image.")
    ] = False,
    debug: DebugOption = False,
) -> None:
    """Find what the program needs, and write the multi-stage Dockerfile that ships only that."""
    if replace and dockerfile is None:
        raise UsageError(
            "--write replaces a Dockerfile, and none is named", "Name it with --dockerfile FILE."
        )
    as_json = format is PlanFormat.json
    if replace and output is not None and not as_json:
        raise UsageError("--write and -o both say where the Dockerfile goes", "Give one of the two.")
    refuse_directory(output)
    parsed = None if dockerfile is None else read_dockerfile(dockerfile)
    with opened(source, platform, no_cache) as image:
        plan = image.recommend(
            runtime,
            keep=image_paths(keep),
            roots=image_paths(root),
            drop=image_paths(drop),
            dockerfile=parsed,
            force=force,
        )
        named = output if output is not None and str(output) != "-" and not as_json else None
        target = dockerfile if replace else named
        made = plan.written("Dockerfile" if target is None else name_beside(target))
        document = plan.to_dict(made)
    written = [] if target is None else write_dockerfile(made, target, parsed if replace else None)
    if as_json:
        from layerlens.render import json

        deliver(json.document(document), output, as_utf8=True)
    elif format is PlanFormat.dockerfile and target is None:
        from layerlens.dockerfile import encode

        deliver(encode(made.text), output)
    elif format is PlanFormat.table:
        from layerlens.render import terminal

        notes = {
            line: terminal.copy_note(copy.size_bytes, copy.files, copy.reason, copy.unneeded_bytes)
            for line, copy in made.copies
        }
        write(terminal.plan(document, notes, terminal_width(), wants_colour()))
        write("".join(f"{line}\n" for line in written))


def name_beside(target: Path) -> str:
    """The name that files beside a Dockerfile take after: its own, where .dockerignore does not leave them out."""
    from layerlens.stages import PATHS_SUFFIX

    names = (target.name, f"slim.{target.name}", "slim", "layerlens-slim")
    return next((name for name in names if not is_left_out(target, f"{name}{PATHS_SUFFIX}")), target.name)


def is_left_out(target: Path, name: str) -> bool:
    """Whether the .dockerignore beside a Dockerfile keeps a file there out of the build context."""
    from layerlens.dockerlines import leaves_out

    try:
        return leaves_out(target.with_name(".dockerignore").read_text(errors="replace"), name)
    except OSError:
        return False


def write_dockerfile(made: Written, target: Path, replaced: Dockerfile | None) -> list[str]:
    """Write a Dockerfile and what belongs beside it, after a copy of the one that it replaces; what to say of it.

    A Dockerfile that would not change is left alone.
    """
    from layerlens.dockerfile import encode

    name = escape.terminal(str(target))
    said = []
    if replaced is not None:
        if made.text == replaced.text:
            return [f"{name} stays as it is"]
        backup = free_backup(target, encode(replaced.text))
        deliver(encode(replaced.text), backup)
        said.append(f"kept the old one as {escape.terminal(str(backup))}")
    for beside, text in made.files:
        deliver(encode(text), target.with_name(beside))
        said.append(f"wrote {escape.terminal(str(target.with_name(beside)))}, which the build context needs")
        if is_left_out(target, beside):
            said.append(f"its .dockerignore leaves that out: add the line !{escape.terminal(beside)}")
    deliver(encode(made.text), target)
    return [*said, f"wrote {name}"]


def free_backup(target: Path, content: bytes) -> Path:
    """``FILE.bak``, or ``FILE.bak.2`` … where that holds something else."""
    backup, number = target.with_name(f"{target.name}.bak"), 1
    while os.path.lexists(backup):
        try:
            if backup.read_bytes() == content:
                break
        except OSError:  # a directory, or nothing that may be read
            pass
        number += 1
        backup = target.with_name(f"{target.name}.bak.{number}")
    return backup


@app.command()
def slim(
    source: Source,
    tag: Annotated[
        str | None,
        typer.Option(
            "-t",
            "--tag",
            metavar="TAG",
            show_default=False,
            help="Load it into the engine under this name; with -o, the name that it has inside.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE.tar|FOLDER",
            show_default=False,
            help="Write an archive, or an OCI layout into a folder.",
        ),
    ] = None,
    output_format: Annotated[
        ImageFormat | None,
        typer.Option(
            "--output-format",
            show_default=False,
            help="What -o writes; docker-archive to FILE.tar and oci to a folder by default.",
        ),
    ] = None,
    compression: Annotated[
        LayerCompression | None,
        typer.Option(
            "--compression", show_default=False, help="Of the layers of an OCI layout; gzip by default."
        ),
    ] = None,
    runtime: Annotated[
        str,
        typer.Option("--runtime", metavar="scratch|base|IMAGE", help="What it stands on."),
    ] = "scratch",
    keep: KeepOption = None,
    root: RootOption = None,
    drop: DropOption = None,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Run both, and give it its name only once it answers as the original."),
    ] = False,
    trace: Annotated[
        bool, typer.Option("--trace", help="Run the original first, and keep what it is seen to use as well.")
    ] = False,
    http: HttpOption = None,
    exec_: ExecOption = None,
    probe: ProbeOption = None,
    ignore: IgnoreOption = None,
    timeout: TimeoutOption = None,
    platform: PlatformOption = None,
    no_cache: NoCacheOption = False,
    format: RowFormatOption = RowFormat.table,
    debug: DebugOption = False,
) -> int:
    """Make the small image itself, from what the program needs and nothing else.

    Layers are put together from the old ones. Nothing is run without --verify or --trace, and no engine is needed but
    to load the result. Exit status 1: it did not pass, and was not made.
    """
    from layerlens.probing import Probe
    from layerlens.slimming import Destination, Proof

    asked = read_probe(http, exec_, probe, timeout)
    if asked is not None and not (verify or trace):
        raise UsageError("a probe is given, and nothing is run", "Say --verify, --trace, or both.")
    if ignore and not verify:
        raise UsageError("--ignore is given, and nothing is compared", "Say --verify.")
    destination = Destination(
        tag,
        output,
        None if output_format is None else output_format.value,
        None if compression is None else compression.value,
    )
    destination.check()
    with (
        saying_if_stopped("the slim image was not made, and nothing was changed"),
        opened(source, platform, no_cache) as image,
    ):
        made = image.slim(
            runtime,
            tag=tag,
            output=output,
            output_format=destination.form,
            compression=destination.compression,
            keep=image_paths(keep),
            roots=image_paths(root),
            drop=image_paths(drop),
            proof=Proof(asked or Probe(), tuple(ignore or ())) if verify else None,
            observe=(asked or Probe()) if trace else None,
        )
        document = made.to_dict()
    if format is RowFormat.json:
        from layerlens.render import json

        text = json.document(document)
    else:
        from layerlens.render import terminal

        text = terminal.slim(document, terminal_width(), wants_colour())
    write(text, as_utf8=format is RowFormat.json)
    return DONE if made.passed else CHECK_FAILED


@app.command()
def verify(
    original: Annotated[
        str,
        typer.Argument(
            metavar="ORIGINAL", show_default=False, help="The image as it was: of the engine, or an archive."
        ),
    ],
    slim: Annotated[
        str, typer.Argument(metavar="SLIM", show_default=False, help="The image that should do the same.")
    ],
    http: HttpOption = None,
    exec_: ExecOption = None,
    probe: ProbeOption = None,
    ignore: IgnoreOption = None,
    timeout: TimeoutOption = None,
    platform: PlatformOption = None,
    format: RowFormatOption = RowFormat.table,
    debug: DebugOption = False,
) -> int:
    """Run two images under the same probe, and say where they differ.

    In containers with limits, on the loopback address alone, removed whatever happens. The image's health check, its
    start-up time, memory and stop on SIGTERM are compared as well. Exit status 1: something differs.
    """
    from layerlens.model import Platform
    from layerlens.probing import Probe
    from layerlens.verify import verify as compare

    asked = read_probe(http, exec_, probe, timeout) or Probe()
    with saying_if_stopped("the containers were removed"), progress_line() as progress:
        wanted = None if platform is None else Platform.parse(platform)
        found = compare(original, slim, asked, ignore or (), platform=wanted, progress=progress)
    if format is RowFormat.json:
        from layerlens.render import json

        text = json.document(found.to_dict())
    else:
        from layerlens.render import terminal

        text = terminal.verification(found.to_dict(), terminal_width(), wants_colour())
    write(text, as_utf8=format is RowFormat.json)
    return DONE if found.passed else CHECK_FAILED


def read_probe(
    http: list[str] | None, commands: list[str] | None, file: Path | None, timeout_s: float | None
) -> Probe | None:
    """The probe that the options describe; None where they describe none."""
    from layerlens.probing import Probe, exec_probe, http_probe, load_probe

    if not (http or commands or file or timeout_s):
        return None
    start = Probe() if file is None else load_probe(file)
    return start.with_more(
        [http_probe(text) for text in http or ()], [exec_probe(text) for text in commands or ()], timeout_s
    )


def read_dockerfile(file: Path) -> Dockerfile:
    """The user's Dockerfile, parsed; UsageError where it cannot be read, DockerfileError with line and column."""
    from layerlens.dockerfile import decode, parse

    try:
        data = file.read_bytes()
    except OSError as error:
        raise UsageError(
            f"cannot read {file}: {error.strerror or error}", "Name the Dockerfile that built the image."
        ) from error
    return parse(decode(data), name=file.name)


@plugin_app.command("install")
def plugin_install(debug: DebugOption = False) -> None:
    """Link layerlens into the docker client's plugin folder."""
    from layerlens import plugin

    link, target = plugin.install()
    write(f"{escape.terminal(str(link))} → {escape.terminal(str(target))}\n")


@plugin_app.command("remove")
def plugin_remove(debug: DebugOption = False) -> None:
    """Take the link away again."""
    from layerlens import plugin

    removed = plugin.remove()
    if removed is None:
        write(f"nothing to remove: there is no {escape.terminal(str(plugin.link_path()))}\n")
    else:
        write(f"removed {escape.terminal(str(removed))}\n")


@cache_app.command("info")
def cache_info(debug: DebugOption = False) -> None:
    """Print where the cache is, how much is in it, and how much may be."""
    from layerlens.cache import Cache
    from layerlens.render import units

    with closing(Cache()) as cache:
        usage = cache.usage()
        trouble = [found.message for found in cache.diagnostics]
    write(
        f"folder   {escape.terminal(str(cache.folder))}\n"
        f"entries  {usage.files:,}\n"
        f"size     {units.size(usage.size_bytes)} of {units.size(cache.max_bytes)}\n"
        + "".join(f"{escape.terminal(message)}\n" for message in trouble)
    )


@cache_app.command("clear")
def cache_clear(debug: DebugOption = False) -> None:
    """Remove what is kept of images that were read."""
    from layerlens.cache import Cache
    from layerlens.render import units

    with closing(Cache()) as cache:
        removed = cache.clear()
        trouble = next(iter(cache.diagnostics), None)
    if trouble is not None:
        raise LayerLensError(trouble.message, "Remove it by hand, or name another with LAYERLENS_CACHE_DIR.")
    entries = "entry" if removed.files == 1 else "entries"
    write(f"removed {removed.files:,} {entries}, {units.size(removed.size_bytes)}\n")


# What the commands share


@contextmanager
def opened(
    source: str,
    platform: str | None,
    no_cache: bool,
    *,
    verify_digests: bool = False,
    contents: bool = True,
) -> Iterator[Image]:
    """The image that SOURCE names, closed again afterwards, with progress while it is read."""
    from layerlens.api import open_image

    with (
        progress_line() as progress,
        open_image(
            source,
            platform=platform,
            verify_digests=verify_digests,
            progress=progress,
            cache=not no_cache,
            contents=contents,
        ) as image,
    ):
        _held[:] = [image]
        yield image


@contextmanager
def saying_if_stopped(outcome: str) -> Iterator[None]:
    """Tell on stderr, once all is undone, that a signal ended the work and how things stand."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        _say(f"interrupted: {outcome}\n")
        raise


@contextmanager
def progress_line() -> Iterator[ProgressLine | None]:
    """A progress line where stderr is a terminal, wiped out at the end."""
    progress = ProgressLine() if sys.stderr.isatty() else None
    try:
        yield progress
    finally:
        if progress:
            progress.clear()


class ProgressLine:
    """One line on stderr that is written over: what is being done, bytes, share and rate.

    It appears after a moment, so that quick work shows none, and changes a few times a second.
    """

    APPEARS_AFTER_S = 0.4
    CHANGES_AFTER_S = 0.15

    def __init__(self) -> None:
        self._task = ""
        self._began_s = time.monotonic()
        self._next_s = self._began_s + self.APPEARS_AFTER_S
        self._shown = False

    def __call__(self, task: str, done_bytes: int, all_bytes: int | None) -> None:
        """Say how far it is (:data:`layerlens.sources.Progress`)."""
        now_s = time.monotonic()
        if task != self._task:
            self._task, self._began_s = task, now_s
        if now_s < self._next_s:
            return
        self._next_s = now_s + self.CHANGES_AFTER_S
        from layerlens.render import units

        line = f"{escape.terminal(task)}  {units.size(done_bytes)}"
        if all_bytes:
            line += f" of {units.size(all_bytes)} ({units.share(done_bytes, all_bytes)})"
        elapsed_s = now_s - self._began_s
        if elapsed_s > 0:
            line += f"  {units.size(round(done_bytes / elapsed_s))}/s"
        self._write(f"\r{escape.middle(line, terminal_width() - 1)}\x1b[K")
        self._shown = True

    def clear(self) -> None:
        """Leave no trace of it."""
        if self._shown:
            self._write("\r\x1b[K")
            self._shown = False

    @staticmethod
    def _write(text: str) -> None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except (OSError, ValueError):  # a terminal that went away is no reason to stop
            pass


def image_path(argument: str) -> str:
    """An argument as a path inside an image: its bytes as UTF-8, whatever the locale decoded them with."""
    return os.fsencode(argument).decode("utf-8", "surrogateescape")


def image_paths(arguments: list[str] | None) -> list[str]:
    """What an option that can be repeated names inside an image."""
    return [image_path(argument) for argument in arguments or ()]


def terminal_width() -> int:
    """Columns of the terminal (COLUMNS says otherwise); 80 where there is none."""
    import shutil

    return shutil.get_terminal_size((80, 24)).columns


def wants_colour() -> bool:
    """Colour on a terminal; NO_COLOR and a dumb terminal say no, FORCE_COLOR says yes."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def write(report: str | bytes, *, as_utf8: bool = False) -> None:
    """Everything to stdout in one large write; bytes as they are.

    JSON is UTF-8 (RFC 8259), tables what the terminal reads.
    """
    if isinstance(report, str):
        encoding = "utf-8" if as_utf8 else (sys.stdout.encoding or "utf-8")
        if encoding.lower().replace("-", "") not in ("utf8", "utf8sig"):
            from layerlens.render import terminal

            report = terminal.plain_ascii(report)
        report = report.encode(encoding, "replace")
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(report)
        sys.stdout.buffer.flush()
    except BrokenPipeError as error:
        raise OutputClosedError from error
    except OSError as error:
        raise LayerLensError(
            f"cannot write to standard output: {error.strerror or error}", "Make room, or write elsewhere."
        ) from error


def write_lines(lines: Iterable[str], *, as_utf8: bool = False) -> None:
    """Lines to stdout, many at a time."""
    batch: list[str] = []
    for line in lines:
        batch.append(line)
        if len(batch) >= LINES_AT_ONCE:
            write("\n".join(batch) + "\n", as_utf8=as_utf8)
            batch.clear()
    if batch:
        write("\n".join(batch) + "\n", as_utf8=as_utf8)


def refuse_directory(output: Path | None) -> None:
    """Say so before the work is done, not after it."""
    if output is not None and output.is_dir():
        raise UsageError(f"{output} is a directory", "Name a file in it.")


def deliver(report: str | bytes, output: Path | None, *, as_utf8: bool = False) -> None:
    """To stdout, or into a file that is written beside its target and renamed: whole or not at all.

    Bytes go as they are.
    """
    if output is None or str(output) == "-":
        write(report, as_utf8=as_utf8)
        return
    refuse_directory(output)
    content = report.encode("utf-8", "replace") if isinstance(report, str) else report
    try:
        if output.exists() and not output.is_file():  # a pipe or a device: there is nothing to rename
            output.write_bytes(content)
        else:
            _replace(Path(os.path.realpath(output)), content)
    except BrokenPipeError as error:
        raise OutputClosedError from error
    except OSError as error:
        raise LayerLensError(
            f"cannot write {output}: {error.strerror or error}",
            "Name a file in a folder that can be written.",
        ) from error


def _replace(target: Path, content: bytes) -> None:
    beside = target.with_name(f".{target.name[:200]}.{os.getpid()}.tmp")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if target.exists():
                os.fchmod(file.fileno(), target.stat().st_mode & 0o7777)
            file.write(content)
        beside.replace(target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


# Running it


def run_as_plugin(arguments: Sequence[str]) -> int:
    """As :func:`run`, for what the docker client passes."""
    from layerlens import plugin

    try:
        rest = plugin.strip_client_flags(arguments, os.environ)
    except LayerLensError as error:
        return _fail(error.message, error.hint)
    return run(rest, "docker layerlens")


def run(arguments: Sequence[str], program: str = "layerlens") -> int:
    """Run one command and return its exit status; errors have been told on stderr by then."""
    global _debug
    _debug = False
    if sys.stderr is None:  # closed by whoever started us
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
    if sys.stdout is None:
        return _fail("standard output is closed", "Leave it open, or let it go to /dev/null.")
    try:
        status = _app_for(arguments)(list(arguments), prog_name=program, standalone_mode=False)
        sys.stdout.flush()
    except OutputClosedError:
        return _reader_left()
    except BrokenPipeError:
        return _reader_left()
    except LayerLensError as error:
        return _fail(error.message, error.hint)
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else DONE
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        return _fail(
            f"the system says: {error.strerror or error}{where}", "Mend that; --debug shows where it arose."
        )
    except Exception as error:
        return _unforeseen(error, program)
    return status if isinstance(status, int) else DONE


def _app_for(arguments: Sequence[str]) -> typer.Typer:
    """The application, with that command alone which is asked for: to make each of them costs a millisecond."""
    alone = copy(app)
    alone.registered_groups = []
    alone.registered_commands = [
        command
        for command in app.registered_commands
        if command.callback is not None and [command.callback.__name__] == list(arguments[:1])
    ]
    return alone if alone.registered_commands else app


def _unforeseen(error: Exception, program: str) -> int:
    format_message = getattr(error, "format_message", None)
    if callable(format_message):  # typer's own: the arguments were wrong
        context = getattr(error, "ctx", None)
        if type(error).__name__ == "NoArgsIsHelpError" and context is not None:
            sys.stderr.write(context.get_help() + "\n")
            return BAD_INPUT
        command = getattr(context, "command_path", program)
        return _fail(str(format_message()), f"See `{command} --help`.", trace=False)
    if isinstance(error, MemoryError):
        return _fail("there is not enough memory for this image", "Run it where more is free.")
    return _fail(
        f"layerlens itself went wrong: {type(error).__name__}: {error}",
        "This is a bug: please report it with the traceback that --debug shows.",
    )


def _fail(message: str, hint: str, *, trace: bool = True) -> int:
    """Two lines on stderr, each on one line whatever the names in it hold."""
    lines = [f"error: {escape.line(message)}"]
    if hint:
        lines.append(f"hint: {escape.line(hint)}")
    shown = ""
    if _debug and trace:
        import traceback

        shown = escape_traceback(traceback.format_exc())
    _say(shown + "\n".join(lines) + "\n")
    return BAD_INPUT


def _say(text: str) -> None:
    """Text on stderr, as far as it can show it."""
    encoding = sys.stderr.encoding or "utf-8"
    try:
        sys.stderr.write(text.encode(encoding, "replace").decode(encoding))
        sys.stderr.flush()
    except (OSError, ValueError):  # nobody listens; the exit status still speaks
        pass


def escape_traceback(text: str) -> str:
    """A traceback whose lines stay lines and whose names are escaped."""
    return "".join(f"{escape.terminal(line)}\n" for line in text.splitlines())


def _reader_left() -> int:
    """Let the interpreter's own flush at exit go nowhere."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
    except (OSError, ValueError):  # stdout is not a file of the system
        pass
    return DONE


def stop_cleanly_when_terminated() -> None:
    """SIGTERM and SIGHUP unwind the stack, so that no temporary file stays behind."""

    def stop(number: int, frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    try:
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, stop)
    except ValueError:  # not the main thread: whoever embeds this decides about signals
        pass
