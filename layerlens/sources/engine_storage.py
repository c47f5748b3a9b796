"""An engine's own storage, where it is local and this user may read it: an image without an export.

Which storage an engine has, and where, is its own word (Docker Engine API, ``GET /info``: ``DockerRootDir``,
``Driver``, ``DriverStatus``). What is found there is of the image that was asked for: its config must hash to
the ID, and its layers must have the engine's diff IDs. An engine that is elsewhere, or whose folders this user may
not enter, has no storage here; anything else that is not as expected is a StorageError, and the export's turn.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerlens.errors import LayerLensError
from layerlens.model import DiffId
from layerlens.sources.beneath import StorageError, open_file
from layerlens.sources.store import diff_ids_of
from layerlens.sources.tarsplit import SplitLayer

SWITCH = "LAYERLENS_ENGINE_STORAGE"
"""Environment variable: ``off`` leaves engines' storage alone, so that every image is exported."""

_MAX_FILE = 64 << 20
"""Largest config or list of layers that is read."""


@dataclass(frozen=True, slots=True)
class KeptImage:
    """An image as its engine keeps it: the config, byte for byte, and the layers, base first."""

    config: bytes
    layers: Sequence[SplitLayer]

    def close(self) -> None:
        """Close what reading the layers has opened."""
        for layer in self.layers:
            layer.close()


@dataclass(frozen=True, slots=True)
class Place:
    """Where an engine says that its storage is, and of which kind."""

    root: Path
    driver: str
    status: Mapping[str, str]
    """``DriverStatus``: what the driver says of itself."""

    @property
    def is_containerd(self) -> bool:
        """True where images are in containerd's content store (moby, daemon/containerd/service.go)."""
        return self.status.get("driver-type") == "io.containerd.snapshotter.v1"


def is_wanted() -> bool:
    """False where the environment says to leave engines' storage alone."""
    return os.environ.get(SWITCH, "").lower() not in ("off", "no", "false", "0")


def place_of(said: Any) -> Place | None:
    """What an engine's ``GET /info`` says of its storage; None where it says nothing that is understood."""
    if not isinstance(said, dict):
        return None
    root, driver, status = said.get("DockerRootDir"), said.get("Driver"), said.get("DriverStatus")
    if not isinstance(root, str) or not root.startswith("/") or not isinstance(driver, str):
        return None
    rows = status if isinstance(status, list) else []
    pairs = [row for row in rows if isinstance(row, list) and len(row) == 2]
    return Place(Path(root), driver, {str(name): str(value) for name, value in pairs})


def open_kept(place: Place, image_id: str, diff_ids: Sequence[DiffId]) -> KeptImage | None:
    """The image with this ID and these diff IDs; None where such a storage is not read, or is not here.

    Raises StorageError where the storage is here and is not as expected.
    """
    from layerlens.sources import containers_storage, overlay2

    readers = {"overlay2": overlay2.open_image, "overlay": containers_storage.open_image}
    reader = readers.get(place.driver)
    # With kernel features that the driver does not expect ("metacopy"), a layer's folder may hold names without
    # content, and the driver itself no longer reads it directly (moby, daemon/graphdriver/overlay2/check.go).
    if reader is None or place.status.get("Native Overlay Diff") != "true":
        return None
    hexadecimal = image_id.removeprefix("sha256:")
    if len(hexadecimal) != 64 or not hexadecimal.isalnum():
        return None
    try:
        return reader(place.root, hexadecimal, diff_ids)
    except (OSError, ValueError) as error:  # an InvalidImageError is a ValueError
        raise StorageError(f"{place.root}: {error}") from error


def read_file(path: Path) -> bytes:
    """A small regular file of the engine's own. Raises OSError, and ValueError where it is none or not small."""
    with os.fdopen(open_file(path), "rb") as file:
        data = file.read(_MAX_FILE + 1)
    if len(data) > _MAX_FILE:
        raise ValueError(f"{path} is larger than {_MAX_FILE:,} bytes")
    return data


def read_config(path: Path, image_id: str, diff_ids: Sequence[DiffId]) -> bytes | None:
    """The config at ``path``; None where it is not there or may not be read, as with an engine that is elsewhere.

    Raises StorageError where it does not hash to ``image_id`` (hexadecimal) or has other diff IDs.
    """
    try:
        config = read_file(path)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    if hashlib.sha256(config).hexdigest() != image_id:
        raise StorageError(f"{path} does not hash to the image's ID")
    try:
        listed = diff_ids_of(config, str(path))
    except LayerLensError as error:
        raise StorageError(f"{path}: {error}") from error
    if listed != list(diff_ids):
        raise StorageError(f"{path} lists other layers than the engine")
    return config
