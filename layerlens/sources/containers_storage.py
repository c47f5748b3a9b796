"""The storage of Podman, Buildah and CRI-O with its driver overlay (github.com/containers/storage).

``overlay-images/images.json`` lists images with the ID of their top ``layer``, ``overlay-layers/layers.json`` layers
with ``parent`` and ``diff-digest`` (the diff ID). An image's blobs are in ``overlay-images/<id>/`` under their key,
in base64 after ``=`` where it has other characters than letters, digits, ``.`` and ``-`` (images.go,
makeBigDataBaseName); the config's key is its digest. ``overlay-layers/<id>.tar-split.gz`` and
``overlay/<id>/diff`` are a layer's headers and folder.

Podman and Buildah need no daemon, so that there may be nobody to ask: then the storage is looked for where their
configuration says it is (containers-storage.conf(5)).
"""

from __future__ import annotations

import json
import os
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerlens.model import DiffId
from layerlens.patterns import regex
from layerlens.sources import references
from layerlens.sources.beneath import StorageError
from layerlens.sources.engine_storage import KeptImage, read_config, read_file
from layerlens.sources.store import StoredSource, diff_ids_of, platform_of, require_platform
from layerlens.sources.tarsplit import SplitLayer
from layerlens.tarindex import LayerIndex

if TYPE_CHECKING:
    from layerlens.model import Platform
    from layerlens.sources import Source, SourceLayer

_ID = regex(r"[0-9a-f]{64}", re.ASCII)


def open_image(root: Path, image_id: str, diff_ids: Sequence[DiffId]) -> KeptImage | None:
    """The image with this ID (hexadecimal); None where ``root`` has none or may not be read.

    Raises StorageError, OSError and ValueError where it is not as expected.
    """
    config = read_config(_config_path(root, image_id), image_id, diff_ids)
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


def _config_path(root: Path, image_id: str) -> Path:
    key = "=" + b64encode(f"sha256:{image_id}".encode()).decode("ascii")
    return root / "overlay-images" / image_id / key


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


# --- without anybody to ask -------------------------------------------------------------------------------------


def roots(environment: Mapping[str, str], user: int) -> list[Path]:
    """Where the storage of this user may be: what a storage.conf says, then the usual folder."""
    home = environment.get("HOME") or "/"
    named = environment.get("CONTAINERS_STORAGE_CONF")
    if user == 0:
        files = [Path("/etc/containers/storage.conf"), Path("/usr/share/containers/storage.conf")]
        usual = Path("/var/lib/containers/storage")
    else:
        settings = Path(environment.get("XDG_CONFIG_HOME") or f"{home}/.config")
        files = [settings / "containers" / "storage.conf"]
        usual = Path(environment.get("XDG_DATA_HOME") or f"{home}/.local/share") / "containers" / "storage"
    configured = [_configured(path) for path in ([Path(named)] if named else files)]
    return list(dict.fromkeys([*(Path(root) for root in configured if root), usual]))


def _configured(path: Path) -> str | None:
    """The absolute ``graphroot`` of a storage.conf; None where it gives none."""
    import tomllib

    try:
        said = tomllib.loads(read_file(path).decode())["storage"]["graphroot"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return said if isinstance(said, str) and said.startswith("/") else None


def open_named(
    folders: Sequence[Path], name: str, reference: str, platform: Platform | None
) -> Source | None:
    """The image ``name`` (name, tag, ID or the start of one) of the first of ``folders`` that has it; else None.

    Raises PlatformError where it is for another platform, StorageError where it is there and not as expected.
    """
    for root in folders:
        try:
            image_id = _named(_by_id(root / "overlay-images" / "images.json"), name)
        except (OSError, ValueError, StorageError):
            continue  # nothing there, or nothing for this user
        if image_id is not None:
            try:
                return _source(root, image_id, reference, platform)
            except (OSError, ValueError) as error:  # an InvalidImageError is a ValueError
                raise StorageError(f"{root}: {error}") from error
    return None


def _named(images: Mapping[str, Mapping[str, Any]], name: str) -> str | None:
    """The ID of the image that ``name`` means: names come before IDs, and a start of several IDs means none."""
    for image_id in sorted(images):
        names = images[image_id].get("names")
        if isinstance(names, list) and any(references.same_image(name, str(listed)) for listed in names):
            return image_id
    start = name.removeprefix("sha256:")
    fitting = [image_id for image_id in images if references.is_id(name) and image_id.startswith(start)]
    return fitting[0] if len(fitting) == 1 else None


def _source(root: Path, image_id: str, reference: str, platform: Platform | None) -> Source:
    from layerlens.sources import SourceLayer

    what = f"{reference}: config"
    config = read_file(_config_path(root, image_id))
    diff_ids = diff_ids_of(config, what)
    require_platform(platform_of(config, what), platform, reference)
    kept = open_image(root, image_id, diff_ids)
    if kept is None:
        raise StorageError(f"{root}: the config has gone")

    def layer(diff_id: DiffId, split: SplitLayer) -> SourceLayer:
        return SourceLayer(diff_id, "", None, None, split.open, unpacked=lambda: split)

    layers = [layer(diff_id, split) for diff_id, split in zip(diff_ids, kept.layers, strict=True)]
    return StoredSource(reference, config, layers, (), kept.close, diff_ids_trusted=True)


def open_here(name: str, reference: str, platform: Platform | None) -> Source | None:
    """As :func:`open_named`, in the storage of whoever runs this, unless the environment names an engine to ask."""
    if os.environ.get("CONTAINER_HOST") or not hasattr(os, "geteuid"):
        return None
    return open_named(roots(os.environ, os.geteuid()), name, reference, platform)
