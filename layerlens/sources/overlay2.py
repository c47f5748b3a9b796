"""Docker's storage with the driver overlay2.

``image/overlay2/imagedb/content/sha256/<image ID>`` is the config. ``image/overlay2/layerdb/sha256/<chain ID>/`` has
what is known of a layer: ``diff`` (its diff ID), ``size``, ``tar-split.json.gz`` and ``cache-id``, the name of its
folder ``overlay2/<cache-id>/diff`` (moby, image/fs.go, layer/filestore.go, daemon/graphdriver/overlay2). The chain ID
of a layer names it with all below it (image-spec config.md, "Layer ChainID").
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from layerlens.model import DiffId, EntryType
from layerlens.patterns import regex
from layerlens.sources.beneath import StorageError
from layerlens.sources.engine_storage import KeptImage, read_config, read_file
from layerlens.sources.tarsplit import SplitLayer
from layerlens.tarindex import LayerIndex

_FOLDER = regex(r"[0-9a-z][0-9a-z-]{0,254}", re.ASCII)
"""A cache ID: 64 hexadecimal digits, and 25 letters and digits where BuildKit made the layer."""


def open_image(root: Path, image_id: str, diff_ids: Sequence[DiffId]) -> KeptImage | None:
    """The image with this ID (hexadecimal); None where ``root`` has none or may not be read.

    Raises StorageError, OSError and ValueError where it is not as expected.
    """
    images = root / "image" / "overlay2"
    config = read_config(images / "imagedb" / "content" / "sha256" / image_id, image_id, diff_ids)
    if config is None:
        return None
    layers = []
    chain = ""
    for diff_id in diff_ids:
        chain = "sha256:" + hashlib.sha256(f"{chain} {diff_id}".encode()).hexdigest() if chain else diff_id
        known = images / "layerdb" / chain.replace(":", "/", 1)
        if read_file(known / "diff").strip() != diff_id.encode():
            raise StorageError(f"{known} is not of the layer {diff_id}")
        folder = read_file(known / "cache-id").strip().decode("ascii")
        if not _FOLDER.fullmatch(folder):
            raise StorageError(f"{known}: {folder[:80]!r} is not a cache ID")
        size = int(read_file(known / "size"))
        fits = partial(_has_size, size)
        layers.append(SplitLayer(known / "tar-split.json.gz", root / "overlay2" / folder / "diff", fits))
    return KeptImage(config, layers)


def _has_size(size: int, index: LayerIndex) -> bool:
    """Whether a layer has the size that the engine counted.

    It counted what it unpacked, where links are as long as their targets (moby, pkg/directory), or, of layers that
    BuildKit made, files alone (layer/migration.go).
    """
    files = sum(index.sizes)
    links = sum(
        len(target.encode("utf-8", "surrogateescape"))
        for row, target in index.links.items()
        if index.types[row] == EntryType.SYMLINK
    )
    return size in (files, files + links)
