"""Images that visit an engine: loaded without a name, and removed again unless they are kept or were there before.

An image that is removed is one that this process loaded: no engine had it before, and nobody has given it a name
since.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from layerlens.destinations import DockerArchive
from layerlens.errors import EngineError, ImageNotFoundError, LayerLensError
from layerlens.slim import SlimLayer, StoredLayer
from layerlens.sources import Progress, Source
from layerlens.sources.docker_engine import Engine, EngineImage, EngineSource, connect

_SETTLES_S = 5.0
"""How long an engine may take over an archive that it has whole when we are interrupted."""
_PAUSE_S = 0.2


class CarriedImage:
    """An image as its source has it, for an engine that has not: the config byte for byte, the layers as stored."""

    def __init__(self, source: Source) -> None:
        self._config = source.config
        self.layers: Sequence[StoredLayer | SlimLayer] = [StoredLayer(layer) for layer in source.layers]
        self.epoch = 0

    @property
    def size_bytes(self) -> int:
        """Bytes of all layers as they are stored."""
        return sum(layer.size_bytes for layer in self.layers)

    def config(self, diff_ids: Sequence[str]) -> bytes:
        """The source's config, which has these diff IDs."""
        return self._config


class Guest:
    """An image that was loaded. It stays where :meth:`keep` was called or the engine had it before."""

    def __init__(self, image: EngineImage, was_there: bool) -> None:
        self.image = image
        self.was_there = was_there
        self.stays = was_there

    def keep(self) -> None:
        """Leave it in the engine."""
        self.stays = True


@contextmanager
def loaded(engine: Engine, archive: DockerArchive) -> Iterator[Guest]:
    """Load an archive for the length of a ``with``.

    Raises:
        EngineError: the engine refuses, breaks off or is full; nothing of the image stays there.
    """
    before = set(_image_ids(engine))
    try:
        image_id = engine.load(archive.chunks())
    except BaseException:
        if archive.is_complete:
            _remove_late(engine, before, archive.written.diff_ids)
        raise
    found = engine.find(image_id)
    if found is None:
        raise EngineError(
            f"{engine.endpoint}: the image that it has just loaded is gone",
            "Something else removes images there.",
        )
    guest = Guest(found, image_id in before)
    try:
        yield guest
    finally:
        if not guest.stays:
            _remove(engine, image_id)


@contextmanager
def engine_of(*sources: Source) -> Iterator[Engine]:
    """The engine that the first of these is from, else the first that answers. EngineError where none does."""
    for source in sources:
        if isinstance(source, EngineSource):
            yield source.engine
            return
    engine = connect()
    try:
        yield engine
    finally:
        engine.close()


@contextmanager
def in_engine(engine: Engine, source: Source, progress: Progress | None = None) -> Iterator[EngineImage]:
    """The image of a source as ``engine`` has it; loaded for the length of the ``with`` where it has not."""
    if isinstance(source, EngineSource) and source.engine.endpoint.url == engine.endpoint.url:
        yield source.image
        return
    archive = DockerArchive(CarriedImage(source), progress=progress, task="loading the original image")
    with loaded(engine, archive) as guest:
        yield guest.image


def _image_ids(engine: Engine) -> list[str]:
    listed = engine.ask("listing images failed", "images", quiet=True, all=True)
    return sorted(str(image_id) for image_id in listed)


def _remove(engine: Engine, image_id: str) -> None:
    """Remove an image that has no name; what removing meets must not hide why we are here."""
    try:
        found = engine.find(image_id)
        if found is not None and not found.inspected.get("RepoTags"):
            engine.ask("removing an image failed", "remove_image", image_id)
    except (EngineError, ImageNotFoundError):
        pass  # the engine is gone, or a container of somebody else's uses the image


def _remove_late(engine: Engine, before: set[str], diff_ids: Sequence[str]) -> None:
    """Remove what the engine makes of an archive that it has whole and did not answer for yet."""
    deadline = time.monotonic() + _SETTLES_S
    try:
        while time.monotonic() < deadline:
            for image_id in _image_ids(engine):
                found = engine.find(image_id) if image_id not in before else None
                if found is not None and found.diff_ids == tuple(diff_ids):
                    _remove(engine, image_id)
                    return
            time.sleep(_PAUSE_S)
    except LayerLensError:
        pass  # the engine is gone
