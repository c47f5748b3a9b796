"""An engine's image as an earlier run found it: the config, and what is known of each layer without its bytes.

An image's ID is a digest (of its config; of its manifest with containerd's store), so that what was exported under
it once is what would be exported now. The bytes themselves are not kept here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from layerlens.cache import Cache, Entry
from layerlens.model import Diagnostic, DiffId, Digest, Platform
from layerlens.sources import Source


class KnownLayer(NamedTuple):
    """What is known of a layer without its bytes: see :class:`layerlens.sources.SourceLayer`."""

    diff_id: DiffId
    media_type: str
    compressed_bytes: int | None
    digest: Digest | None


@dataclass(frozen=True, slots=True)
class KnownImage:
    """Config, layers (base first), and what was odd on the way in."""

    config: bytes
    layers: tuple[KnownLayer, ...]
    diagnostics: tuple[Diagnostic, ...]


def _key(engine: str, image_id: str, platform: Platform | None) -> str:
    return f"{engine} {image_id} {platform or ''}"


def find_image(cache: Cache, engine: str, image_id: str, platform: Platform | None) -> KnownImage | None:
    """What an earlier run stored of this image of an engine; None where there is no intact entry."""
    return cache.read("config", _key(engine, image_id, platform), _understood)


def _understood(entry: Entry) -> KnownImage:
    said = json.loads(entry.section("known"))
    return KnownImage(
        entry.section("config"),
        tuple(KnownLayer(*layer) for layer in said["layers"]),
        tuple(Diagnostic(*diagnostic) for diagnostic in said["diagnostics"]),
    )


def store_image(
    cache: Cache, engine: str, image_id: str, platform: Platform | None, found: Source | KnownImage
) -> None:
    """Store what an engine exported, or was found to keep, as the image with this ID."""
    known = {
        "layers": [
            KnownLayer(layer.diff_id, layer.media_type, layer.compressed_bytes, layer.digest)
            for layer in found.layers
        ],
        "diagnostics": _plain(found.diagnostics),
    }
    sections = {"known": [json.dumps(known).encode()], "config": [found.config]}
    cache.store("config", _key(engine, image_id, platform), sections)


def _plain(diagnostics: Sequence[Diagnostic]) -> list[tuple[str, str, str, str | None]]:
    return [(found.severity, found.code, found.message, found.path) for found in diagnostics]
