"""The storage of Podman, Buildah and CRI-O with its driver overlay (github.com/containers/storage).

``overlay-images/images.json`` lists images with the ID of their top ``layer``, ``overlay-layers/layers.json`` layers
with ``parent`` and ``diff-digest`` (the diff ID). An image's blobs are in ``overlay-images/<id>/`` under their key,
in base64 after ``=`` where it has other characters than letters, digits, ``.`` and ``-`` (images.go,
makeBigDataBaseName); the config's key is its digest. ``overlay-layers/<id>.tar-split.gz`` and
``overlay/<id>/diff`` are a layer's headers and folder.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from layerlens.model import DiffId
from layerlens.sources.beneath import StorageError
from layerlens.sources.engine_storage import KeptImage, read_config, read_file
from layerlens.sources.tarsplit import SplitLayer
from layerlens.tarindex import LayerIndex

_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)


def open_image(root: Path, image_id: str, diff_ids: Sequence[DiffId]) -> KeptImage | None:
    """The image with this ID (hexadecimal); None where ``root`` has none or may not be read.

    Raises StorageError, OSError and ValueError where it is not as expected.
    """
    key = "=" + b64encode(f"sha256:{image_id}".encode()).decode("ascii")
    config = read_config(root / "overlay-images" / image_id / key, image_id, diff_ids)
    if config is None:
        return None
    image = _by_id(root / "overlay-images" / "images.json").get(image_id)
    if image is None:
        raise StorageError(f"{root}: images.json does not list the image")
    known = _by_id(root / "overlay-layers" / "layers.json")
    layers = []
    at = image.get("layer")
    for diff_id in reversed(diff_ids):
        layer = known.get(at) if isinstance(at, str) else None
        if layer is None or not isinstance(at, str) or layer.get("diff-digest") != diff_id:
            raise StorageError(f"{root}: layers.json has no layer {diff_id} where the image has it")
        headers = root / "overlay-layers" / f"{at}.tar-split.gz"
        fits = partial(_has_size, layer.get("diff-size"))
        layers.append(SplitLayer(headers, root / "overlay" / at / "diff", fits))
        at = layer.get("parent")
    return KeptImage(config, layers[::-1])


def _has_size(size: Any, index: LayerIndex) -> bool:
    """Whether a layer's tar has the size that was counted when it was unpacked, where it was."""
    return size is None or index.size == size


def _by_id(path: Path) -> dict[str, dict[str, Any]]:
    """The entries of a list of images or layers by their ID."""
    try:
        listed = json.loads(read_file(path))
    except RecursionError as error:
        raise StorageError(f"{path} is nested too deep") from error
    if not isinstance(listed, list):
        raise StorageError(f"{path} is not a list")
    return {
        str(entry["id"]): entry
        for entry in listed
        if isinstance(entry, dict) and _ID.fullmatch(str(entry.get("id")))
    }
