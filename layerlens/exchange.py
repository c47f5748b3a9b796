"""Another server for a static site: an image that only hands out files needs no builder's program to do it.

A built site behind a development or preview server (DESIGN 5) goes onto an image that is a server, and listens where
the original did. On a base that is the server's image itself, on scratch the closure of that image. What is exchanged
is the program, so that it is proposed and said, never done unasked: whoever wants the image's own program asks for
the needs of that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from layerlens.attribution import Attribution
from layerlens.ecosystems import Hosting, Hosts, ImageView, Serves, ecosystems
from layerlens.filesystem import Filesystem
from layerlens.graph import Needs
from layerlens.history import parse_config
from layerlens.model import Edge, EntryType, ImageConfig, ImagePath, StaticSite
from layerlens.runtime import SCRATCH, Base, Choice, OpenBase, is_root, opened_first, servers

SERVED_WITHOUT = frozenset(["vcs", "secrets"])
"""Categories of files that a site does not consist of, wherever they lie."""


class SiteNeeds(Needs):
    """What is needed of an image whose program is exchanged: the site's own files, and what options name.

    Nothing that is kept is asked what it needs: the files are handed out, not run.
    """

    def __init__(
        self,
        attribution: Attribution,
        config: ImageConfig,
        site: StaticSite,
        *,
        keep: Sequence[ImagePath] = (),
        drop: Sequence[ImagePath] = (),
    ) -> None:
        self._site = site
        super().__init__(attribution, config, keep=keep, drop=drop)

    def _start(self, keep: Sequence[ImagePath], roots: Sequence[ImagePath]) -> None:
        source = "ENTRYPOINT" if self.config.entrypoint else "CMD"
        root = self.fs.follow(self._site.root) or self._site.root
        edge = Edge(source, root, "app-file", self._site.evidence, "certain")
        for path in (root, *self.fs.walk(root)):
            if self.fs.is_dir(path) or self.view.category_of(path) not in SERVED_WITHOUT:
                self._keep_one(path, edge)
        self._keep_named(keep)

    def _keep_one(self, path: ImagePath, edge: Edge) -> None:
        if not self._is_dropped(path):
            self._record(Edge(edge.source, path, edge.kind, edge.evidence, edge.certainty))


@dataclass(frozen=True)
class Exchange:
    """A site, and the server that would hand it out."""

    site: StaticSite
    root: ImagePath
    """The site's folder in the image, links followed."""
    server: Base
    hosting: Hosting
    needs: SiteNeeds = field(repr=False)
    choice: Choice
    """Where the server's image comes from."""
    closure: Needs | None = field(default=None, repr=False)
    """What the server needs of its own image, where that alone is shipped."""

    @property
    def reason(self) -> str:
        """Why there is another program, for people."""
        return f"{self.site.evidence}; {self.server.reference} does that alone"

    @property
    def base(self) -> Base | None:
        """What the runtime stage stands on; None for scratch."""
        return self.server if self.closure is None else None

    @property
    def config(self) -> ImageConfig:
        """How the result runs: as the server's image does, listening where the original did."""
        own = self.needs.config
        theirs = self.server.config or replace(parse_config(b'{"os": "linux"}'), platform=own.platform)
        return replace(
            theirs,
            entrypoint=None if self.closure is not None else theirs.entrypoint,
            cmd=self.hosting.command,
            exposed_ports=(f"{self.site.port}/tcp",),
            labels={**theirs.labels, **own.labels},
            healthcheck=None if self.closure is not None else theirs.healthcheck,
        )

    def server_files(self) -> dict[ImagePath, int]:
        """What is shipped of the server's image on scratch, with its bytes; each payload at its first name."""
        if self.closure is None:
            return {}
        fs, written = self.closure.fs, self.hosting.files
        found: dict[ImagePath, int] = {}
        seen: set[int] = set()
        for path in sorted(self.closure.kept):
            gid = fs.payload_gid(path) if fs.type_of(path) == EntryType.FILE else None
            counts = gid is not None and gid not in seen and path not in written
            found[path] = fs.size(path) if counts else 0
            if gid is not None:
                seen.add(gid)
        return found

    @property
    def written_bytes(self) -> int:
        """Bytes of the files that are written for the server."""
        return sum(len(text.encode()) for text in self.hosting.files.values())

    def must_open_up(self) -> bool:
        """Whether some of the site cannot be read by just anybody, as the server's workers will have to."""
        fs = self.needs.fs
        for path in (self.root, *fs.walk(self.root)):
            kind = fs.type_of(path)
            wanted = 0o005 if kind == EntryType.DIR else 0o004
            if kind != EntryType.SYMLINK and fs.entry(path).mode & wanted != wanted:
                return True
        return False

    def warnings(self) -> Iterator[str]:
        """What people have to know before they take it."""
        own = self.needs.config
        yield (
            f"another program is proposed: {self.site.evidence}, and {self.server.reference} does that too, on port "
            f"{self.site.port}; headers, redirects and compression are then its own. `layerlens slim` and a "
            "--runtime IMAGE without a server keep the program"
        )
        if own.healthcheck and (own.healthcheck.get("Test") or ["NONE"])[0] != "NONE":
            yield "the HEALTHCHECK is left out: it is a command of the original image"
        if not is_root(own.user):
            yield f"USER {own.user} is left out: the server starts as root, and answers as a user of its own"


def static_site(attribution: Attribution, config: ImageConfig) -> StaticSite | None:
    """The site that an image's command hands out and does nothing else; None for all other images."""
    env = dict(word.split("=", 1) for word in config.env if "=" in word)
    view = ImageView(
        attribution.fs,
        config,
        attribution.packages,
        attribution.owner_of,
        attribution.category_of,
        env,
    )
    found = (ecosystem.static_site(view) for ecosystem in ecosystems() if isinstance(ecosystem, Serves))
    return next((site for site in found if site is not None), None)


def proposed(
    attribution: Attribution,
    config: ImageConfig,
    site: StaticSite,
    runtime: str | None,
    open_base: OpenBase,
    *,
    keep: Sequence[ImagePath] = (),
    drop: Sequence[ImagePath] = (),
) -> tuple[Exchange | None, tuple[str, ...]]:
    """The site on a server, None where no image of one is at hand; and the images that were tried.

    ``runtime`` is ``base``, ``scratch``, an image, or None for the default, which is ``base``.
    """
    fs = attribution.fs
    choice = servers(fs)
    images = choice.images if runtime in (None, "base", SCRATCH) else (str(runtime),)
    root = fs.follow(site.root) or site.root
    names = [path.rpartition("/")[2] for path in fs.walk_files(root)]
    extensions = {name.rpartition(".")[2] for name in names if "." in name}
    for base in opened_first(images, open_base):
        hosting = _hosting(base.fs, site, extensions, fs.is_file(f"{root}/404.html"))
        if hosting is None or (base.fs is None and runtime == SCRATCH):
            continue
        needs = SiteNeeds(attribution, config, site, keep=keep, drop=drop)
        closure = _closure(base, hosting) if runtime == SCRATCH else None
        return Exchange(site, root, base, hosting, needs, choice, closure), images
    return None, images


def _hosting(
    server: Filesystem | None, site: StaticSite, extensions: set[str], has_error_page: bool
) -> Hosting | None:
    if server is not None and not server.is_file("/bin/sh"):
        return None  # its configuration is written by a RUN
    for ecosystem in ecosystems():
        if isinstance(ecosystem, Hosts):
            found = ecosystem.hosting(server, site, extensions, has_error_page)
            if found is not None:
                return found
    return None


def _closure(server: Base, hosting: Hosting) -> Needs:
    """What the server's command needs of its image, without the site that it has of its own."""
    assert server.fs is not None and server.config is not None, (
        "a closure is that of an image that was opened"
    )
    config = replace(
        server.config, entrypoint=None, cmd=hosting.command, healthcheck=None, volumes=(), workdir=None
    )
    drop = [path for path in (hosting.folder,) if server.fs.exists(path)]
    return Needs(Attribution(server.fs, server.packages), config, drop=drop)
