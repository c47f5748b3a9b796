"""docker-archive: what ``docker save``, ``podman save``, ``skopeo copy docker-archive:`` and kaniko write.

All of them have a ``manifest.json``, a list of ``{"Config", "RepoTags", "Layers"}`` (moby, image/tarexport
and "Docker Image Specification v1.2", "Combined Image JSON + Filesystem Changeset Format"); they differ in where
the blobs lie and how these are compressed, which the first bytes of each decide. Since Docker 25 an
``index.json`` lies beside it, which is not used: where both are there ``manifest.json`` rules (Engine 25 wrote
an index without layers, moby #47065 and #47210). Only where the manifest lacks what was asked for, or there is none,
is the archive read as an OCI layout.
"""

from __future__ import annotations

from typing import Any, BinaryIO

from layerlens.errors import AmbiguousImageError, ImageNotFoundError, InvalidImageError
from layerlens.model import Digest, Platform
from layerlens.sources import Source
from layerlens.sources.oci_layout import open_store
from layerlens.sources.references import same_image
from layerlens.sources.store import (
    StoredSource,
    TarStore,
    check_digest,
    diff_ids_of,
    digest_in,
    listing,
    platform_of,
    read_json,
    read_small,
    require_platform,
    source_layer,
)

_SAVE_AGAIN = "The archive is damaged or incomplete; save the image again."
_WRITE_ONE = "Give an archive that `docker save` or `skopeo copy` wrote, or an OCI layout."


def open_archive(
    file: BinaryIO,
    reference: str,
    selector: str | None = None,
    platform: Platform | None = None,
    *,
    kind: str | None = None,
    streamed: bool = False,
    diff_ids_trusted: bool = False,
) -> Source:
    """Open an uncompressed image archive that lies in a seekable file; the file is taken over.

    ``selector`` picks one of several images by tag, by ID or its beginning, or by ``@N`` (its place in the
    manifest). ``kind`` insists on ``"docker-archive"`` or ``"oci-archive"``; anything else takes what is there.
    ``streamed`` says that the file is a spool of something that passed by, whose layers are to be verified
    even where they lie uncompressed; ``diff_ids_trusted`` that an engine vouches for them.

    Raises:
        InvalidImageError: not an image archive, or a broken one.
        AmbiguousImageError: several images and no selector.
        ImageNotFoundError: the selector names none of them.
        PlatformError: not for this platform.
    """
    store = None
    try:
        store = TarStore(file, reference)
        return _open(store, reference, selector, platform, kind, streamed, diff_ids_trusted)
    except BaseException:
        if store is not None:
            store.close()
        file.close()
        raise


def _open(
    store: TarStore,
    reference: str,
    selector: str | None,
    platform: Platform | None,
    kind: str | None,
    streamed: bool,
    diff_ids_trusted: bool,
) -> Source:
    has_index = store.has("index.json")
    if has_index and (kind == "oci-archive" or (kind != "docker-archive" and not store.has("manifest.json"))):
        return open_store(store, reference, selector, platform, streamed=streamed)
    if not store.has("manifest.json"):
        raise InvalidImageError(
            f"{reference} is a tar but not an image archive: it has neither manifest.json nor index.json",
            _WRITE_ONE,
        )
    manifest = read_json(store, "manifest.json")
    if not isinstance(manifest, list) or not manifest or not all(isinstance(item, dict) for item in manifest):
        said = "null" if manifest is None else "empty" if manifest == [] else "not a list of images"
        raise InvalidImageError(f"{reference}: manifest.json is {said}", _SAVE_AGAIN)
    image = _choose(manifest, reference, selector)
    config_path = image.get("Config")
    if not isinstance(config_path, str) or not config_path:
        raise InvalidImageError(f"{reference}: manifest.json names no config", _SAVE_AGAIN)
    config = read_small(store, config_path)
    digest = digest_in(config_path)
    if digest is not None:
        check_digest(config, digest, f"{reference}: config {config_path}")
    what = f"{reference}: config"
    found = platform_of(config, what)
    if platform is not None and not found.matches(platform) and has_index:
        return open_store(store, reference, selector, platform, streamed=streamed)
    require_platform(found, platform, reference)
    paths = image.get("Layers") or []
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise InvalidImageError(f"{reference}: manifest.json: Layers is not a list of paths", _SAVE_AGAIN)
    diff_ids = diff_ids_of(config, what)
    if len(paths) != len(diff_ids):
        raise InvalidImageError(
            f"{reference}: manifest.json names {len(paths)} layers, the config {len(diff_ids)}", _SAVE_AGAIN
        )
    sources = image.get("LayerSources")
    layers = []
    for path, diff_id in zip(paths, diff_ids, strict=True):
        if not store.has(path):
            raise InvalidImageError(
                f"{reference} lacks the layer {path}",
                "Only part of the image was saved: pull it whole (docker pull --platform …), then save it again.",
            )
        named = sources.get(diff_id) if isinstance(sources, dict) else None
        media_type = str(named.get("mediaType") or "") if isinstance(named, dict) else ""
        blob = digest_in(path) if "blobs/" in path else None
        layers.append(source_layer(store.file_range(path), diff_id, media_type, blob, streamed))
    return StoredSource(reference, config, layers, (), store.close, diff_ids_trusted=diff_ids_trusted)


def _choose(manifest: list[dict[str, Any]], reference: str, selector: str | None) -> dict[str, Any]:
    """The one image of the manifest that is meant."""
    if selector is None:
        if len(manifest) == 1:
            return manifest[0]
        raise AmbiguousImageError(
            f"{reference} holds {len(manifest)} images: {_names(manifest)}",
            f"Say which, as in docker-archive:{reference}:{_first_name(manifest[0], 0)}",
        )
    if selector.startswith("@") and selector[1:].isdigit() and int(selector[1:]) < len(manifest):
        return manifest[int(selector[1:])]
    for image in manifest:
        if any(same_image(selector, tag) for tag in _tags(image)):
            return image
    identifier = selector.removeprefix("sha256:")
    if len(identifier) >= 6:
        for image in manifest:
            config: Digest | None = digest_in(str(image.get("Config") or ""))
            if config is not None and config.removeprefix("sha256:").startswith(identifier):
                return image
    raise ImageNotFoundError(f"{reference} holds no image {selector}", f"It holds: {_names(manifest)}")


def _tags(image: dict[str, Any]) -> list[str]:
    tags = image.get("RepoTags")
    return [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []


def _first_name(image: dict[str, Any], number: int) -> str:
    tags = _tags(image)
    return tags[0] if tags else f"@{number}"


def _names(manifest: list[dict[str, Any]]) -> str:
    return listing([_first_name(image, number) for number, image in enumerate(manifest)])
