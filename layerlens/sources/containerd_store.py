"""containerd's content store, where Docker Engine keeps images with the containerd image store.

``io.containerd.content.v1.content/blobs/<algorithm>/<hexadecimal>`` (containerd, plugins/content/local) lies as in an
OCI image layout, without an ``index.json``: the names are in a database that belongs to the daemon (boltdb, locked).
So the engine says which blob the image is, its index or manifest (``Descriptor`` of ``GET /images/{name}/json``
from API 1.48 on; the image's ID is the same digest), and everything else hangs from that. Layers are compressed
there, so that reading means inflating, and hashing what was read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerlens.errors import LayerLensError
from layerlens.sources import oci_layout
from layerlens.sources.beneath import StorageError
from layerlens.sources.store import FolderStore, blob_path

if TYPE_CHECKING:
    from layerlens.model import Platform
    from layerlens.sources import Source

_STORE = "io.containerd.content.v1.content"
_SHARED = Path("/var/lib/containerd")
"""Where a containerd that the system runs has its files; one that dockerd runs has them in Docker's folder."""


def roots(engine_root: Path) -> tuple[Path, ...]:
    """Where the containerd of an engine with this folder may have its files, in the order they are looked at."""
    return engine_root / "containerd" / "daemon", _SHARED


def open_image(
    folders: Sequence[Path], inspected: Mapping[str, Any], reference: str, platform: Platform | None
) -> Source | None:
    """The image that an engine's ``inspected`` describes, out of the first of ``folders`` (containerd's roots) that
    has it; None where none has or may be read.

    Raises StorageError where the image is there and not as expected.
    """
    descriptor = inspected.get("Descriptor")
    if not isinstance(descriptor, dict):
        descriptor = {"digest": inspected.get("Id")}
    try:
        path = blob_path(descriptor.get("digest"), reference)
        for folder in folders:
            store = FolderStore(folder / _STORE, reference)
            if store.has(path):
                try:
                    index = {"manifests": [descriptor]}
                    return oci_layout.open_store(store, reference, None, platform, index=index)
                except BaseException:
                    store.close()
                    raise
    except LayerLensError as error:
        raise StorageError(f"containerd's content store: {error}") from error
    return None
