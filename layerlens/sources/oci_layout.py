"""OCI image layout, as a folder or inside a tar (image-spec image-layout.md, image-index.md, manifest.md).

Indexes may be nested, and hold Docker's media types beside OCI's; attestation manifests (BuildKit's
``vnd.docker.reference.type``) are not images and are passed over. Manifests and configs are small and always
checked against their digests; layers are checked when they are inflated.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerlens.errors import AmbiguousImageError, ImageNotFoundError, InvalidImageError, PlatformError
from layerlens.model import Diagnostic, Digest, Platform
from layerlens.sources import Source, SourceLayer, host_platform
from layerlens.sources.references import same_image
from layerlens.sources.store import (
    FolderStore,
    Store,
    StoredSource,
    blob_path,
    check_digest,
    diff_ids_of,
    listing,
    parse_json,
    platform_of,
    read_json,
    read_small,
    require_platform,
    source_layer,
)

INDEX_TYPES = frozenset(
    {
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    }
)
MANIFEST_TYPES = frozenset(
    {
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    }
)
CONFIG_TYPES = frozenset(
    {
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.docker.container.image.v1+json",
    }
)
LAYER_TYPES = frozenset(
    {
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    }
)
"""Layer media types that are tars (image-spec layer.md; Docker's "Image Manifest Version 2, Schema 2")."""

MAX_DEPTH = 8
MAX_MANIFESTS = 1000
_COPY_AGAIN = "The layout is damaged or incomplete; copy the image again."
_NAME_KEYS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


@dataclass(frozen=True, slots=True)
class _Candidate:
    """An image manifest found in the layout, and the names that lead to it."""

    digest: str
    names: tuple[str, ...]
    platform: Platform | None
    top: int
    """Which descriptor of ``index.json`` it hangs from."""


def open_layout(
    folder: Path, reference: str, selector: str | None = None, platform: Platform | None = None
) -> Source:
    """Open an OCI layout folder; errors as :func:`open_store`."""
    store = FolderStore(folder, reference)
    try:
        if not store.has("index.json"):
            raise InvalidImageError(
                f"{reference} is a folder but not an OCI layout: it has no index.json",
                "Give an OCI layout folder, or an archive that `docker save` wrote.",
            )
        return open_store(store, reference, selector, platform)
    except BaseException:
        store.close()
        raise


def open_store(
    store: Store,
    reference: str,
    selector: str | None = None,
    platform: Platform | None = None,
    *,
    streamed: bool = False,
    index: Any = None,
) -> Source:
    """Open the image that ``selector`` (name, tag or digest) and ``platform`` (the host's by default) pick.

    ``index`` stands in for the store's ``index.json``.

    Raises:
        InvalidImageError: an index, manifest or config that is none, a digest that is wrong, a blob missing.
        AmbiguousImageError: several images and no selector.
        ImageNotFoundError: the selector names none of them.
        PlatformError: none for this platform; lists what is there.
    """
    diagnostics: list[Diagnostic] = []
    candidates = _candidates(store, reference, index)
    if not candidates:
        raise InvalidImageError(f"{reference}: index.json names no image manifest", _COPY_AGAIN)
    chosen = _choose(_select(candidates, reference, selector), reference, platform)
    manifest = _read_blob_json(store, chosen.digest, "manifest", reference)
    config_descriptor = manifest.get("config")
    if not isinstance(config_descriptor, dict):
        raise InvalidImageError(f"{reference}: the manifest has no config", _schema_hint(manifest))
    media_type = config_descriptor.get("mediaType")
    if media_type not in CONFIG_TYPES:
        raise InvalidImageError(
            f"{reference} is not a container image: its config has the media type {str(media_type)[:100]}",
            "Give an image; charts, signatures and other artifacts have no filesystem.",
        )
    config_path = blob_path(config_descriptor.get("digest"), f"{reference}: config")
    if not store.has(config_path):
        raise InvalidImageError(f"{reference} lacks the config {config_descriptor['digest']}", _COPY_AGAIN)
    config = read_small(store, config_path)
    check_digest(config, config_descriptor["digest"], f"{reference}: config")
    require_platform(platform_of(config, f"{reference}: config"), platform, reference)
    layers = _layers(store, manifest, config, reference, streamed)
    return StoredSource(reference, config, layers, diagnostics, store.close)


def _candidates(store: Store, reference: str, index: Any) -> list[_Candidate]:
    """Every image manifest of the layout, in order; nested indexes followed."""
    top = read_json(store, "index.json") if index is None else index
    descriptors = top.get("manifests") if isinstance(top, dict) else None
    if not isinstance(descriptors, list):
        raise InvalidImageError(f"{reference}: index.json lists no manifests", _COPY_AGAIN)
    found: list[_Candidate] = []
    missing: list[str] = []
    for number, descriptor in enumerate(descriptors):
        _collect(store, descriptor, (), None, number, 0, reference, found, missing)
    if not found and missing:
        raise InvalidImageError(
            f"{reference} lacks the manifest {missing[0]}",
            "Only part of the image was saved: pull it whole, then save it again.",
        )
    return found


def _collect(
    store: Store,
    descriptor: Any,
    names: tuple[str, ...],
    platform: Platform | None,
    top: int,
    depth: int,
    reference: str,
    found: list[_Candidate],
    missing: list[str],
) -> None:
    if not isinstance(descriptor, dict) or depth > MAX_DEPTH or len(found) > MAX_MANIFESTS:
        raise InvalidImageError(f"{reference}: an index that is broken or nested too deep", _COPY_AGAIN)
    annotations = descriptor.get("annotations")
    annotations = annotations if isinstance(annotations, dict) else {}
    if annotations.get("vnd.docker.reference.type"):
        return
    names += tuple(str(annotations[key]) for key in _NAME_KEYS if annotations.get(key))
    said = descriptor.get("platform")
    if isinstance(said, dict):
        if said.get("os") == "unknown" and said.get("architecture") == "unknown":
            return  # an attestation, in builders that write no annotation
        variant = said.get("variant")
        platform = Platform(
            str(said.get("os")), str(said.get("architecture")), str(variant) if variant else None
        )
    path = blob_path(descriptor.get("digest"), f"{reference}: index")
    if not store.has(path):
        missing.append(str(descriptor["digest"]))
        return
    media_type = descriptor.get("mediaType")
    if media_type not in INDEX_TYPES and media_type not in MANIFEST_TYPES:
        parsed = _read_blob_json(store, descriptor["digest"], "manifest", reference)
        media_type = parsed.get("mediaType")
        if media_type is None:
            media_type = next(iter(INDEX_TYPES if "manifests" in parsed else MANIFEST_TYPES))
    if media_type in INDEX_TYPES:
        index = _read_blob_json(store, descriptor["digest"], "index", reference)
        children = index.get("manifests")
        if not isinstance(children, list):
            raise InvalidImageError(
                f"{reference}: index {descriptor['digest']} lists no manifests", _COPY_AGAIN
            )
        for child in children:
            _collect(store, child, names, platform, top, depth + 1, reference, found, missing)
    elif media_type in MANIFEST_TYPES:
        found.append(_Candidate(descriptor["digest"], names, platform, top))
    else:
        raise InvalidImageError(
            f"{reference}: unknown media type of a manifest: {str(media_type)[:100]}",
            "layerlens reads OCI image manifests and Docker's schema 2.",
        )


def _select(candidates: list[_Candidate], reference: str, selector: str | None) -> list[_Candidate]:
    """The candidates of the one image that is meant (its platforms are still several)."""
    if selector is None:
        if len({candidate.top for candidate in candidates}) > 1:
            names = {candidate.top: candidate for candidate in reversed(candidates)}
            if len({candidate.names for candidate in names.values()}) > 1 or not all(
                candidate.platform for candidate in candidates
            ):
                raise AmbiguousImageError(
                    f"{reference} holds {len(names)} images: {_listing(candidates)}",
                    f"Say which, as in oci:{reference}:{_label(candidates[0])}",
                )
        return candidates
    if selector.startswith("@") and selector[1:].isdigit():
        picked = [candidate for candidate in candidates if candidate.top == int(selector[1:])]
    else:
        picked = [
            candidate
            for candidate in candidates
            if any(same_image(selector, name) for name in candidate.names)
            or (
                len(selector) >= 6
                and candidate.digest.startswith("sha256:" + selector.removeprefix("sha256:"))
            )
        ]
    if not picked:
        raise ImageNotFoundError(
            f"{reference} holds no image {selector}", f"It holds: {_listing(candidates)}"
        )
    return picked


def _choose(candidates: list[_Candidate], reference: str, platform: Platform | None) -> _Candidate:
    """The candidate for the platform; the only one, whatever it is for, where none was asked for."""
    if len(candidates) == 1:
        return candidates[0]
    wanted = platform or host_platform()
    for exact in (True, False):
        for candidate in candidates:
            if candidate.platform is not None and candidate.platform.matches(wanted, exact=exact):
                return candidate
    if not any(candidate.platform for candidate in candidates):
        return candidates[0]
    there = ", ".join(sorted({str(candidate.platform) for candidate in candidates if candidate.platform}))
    raise PlatformError(f"{reference} has nothing for {wanted}", f"Ask with --platform for one of: {there}.")


def _layers(
    store: Store, manifest: dict[str, Any], config: bytes, reference: str, streamed: bool
) -> list[SourceLayer]:
    diff_ids = diff_ids_of(config, f"{reference}: config")
    descriptors = manifest.get("layers")
    if not isinstance(descriptors, list):
        raise InvalidImageError(f"{reference}: the manifest lists no layers", _schema_hint(manifest))
    if len(descriptors) != len(diff_ids):
        raise InvalidImageError(
            f"{reference}: the manifest lists {len(descriptors)} layers, the config {len(diff_ids)}",
            _COPY_AGAIN,
        )
    layers = []
    for descriptor, diff_id in zip(descriptors, diff_ids, strict=True):
        if not isinstance(descriptor, dict):
            raise InvalidImageError(f"{reference}: the manifest lists a layer that is none", _COPY_AGAIN)
        path = blob_path(descriptor.get("digest"), f"{reference}: layer")
        media_type = str(descriptor.get("mediaType"))
        if media_type not in LAYER_TYPES:
            hint = (
                "Decrypt the image first."
                if media_type.endswith("+encrypted")
                else "Layers are tars, plain or compressed with gzip or zstd."
            )
            raise InvalidImageError(f"{reference}: unknown media type of a layer: {media_type[:100]}", hint)
        if not store.has(path):
            raise InvalidImageError(
                f"{reference} lacks the layer {descriptor['digest']}",
                "Only part of the image is here: copy or pull it whole, then try again.",
            )
        file_range = store.file_range(path)
        size = descriptor.get("size")
        if isinstance(size, int) and size != file_range.size:
            raise InvalidImageError(
                f"{reference}: layer {descriptor['digest']} has {file_range.size} bytes, the manifest says {size}",
                _COPY_AGAIN,
            )
        layers.append(source_layer(file_range, diff_id, media_type, Digest(descriptor["digest"]), streamed))
    return layers


def _read_blob_json(store: Store, digest: str, what: str, reference: str) -> dict[str, Any]:
    """A JSON blob, checked against its digest."""
    path = blob_path(digest, f"{reference}: {what}")
    if not store.has(path):
        raise InvalidImageError(f"{reference} lacks the {what} {digest}", _COPY_AGAIN)
    data = read_small(store, path)
    check_digest(data, digest, f"{reference}: {what}")
    parsed = parse_json(data, f"{reference}: {what} {digest}")
    if not isinstance(parsed, dict):
        raise InvalidImageError(f"{reference}: {what} {digest} is not an object", _COPY_AGAIN)
    return parsed


def _schema_hint(manifest: dict[str, Any]) -> str:
    if manifest.get("schemaVersion") == 1:
        return "Docker's schema 1 is no longer read by anybody: push or copy the image with a current tool."
    return _COPY_AGAIN


def _label(candidate: _Candidate) -> str:
    return candidate.names[0] if candidate.names else candidate.digest[:19]


def _listing(candidates: list[_Candidate]) -> str:
    labels = list(
        dict.fromkeys(
            _label(candidate) + (f" ({candidate.platform})" if candidate.platform else "")
            for candidate in candidates
        )
    )
    return listing(labels)
