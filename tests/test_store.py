"""What archives and layouts share: JSON that must be JSON, digests that must be digests."""

from __future__ import annotations

import pytest

from layerlens.errors import DigestMismatchError, InvalidImageError
from layerlens.sources.store import blob_path, check_digest, diff_ids_of, digest_in, parse_json


@pytest.mark.parametrize("text", [b"NaN", b'{"a": Infinity}', b"[1e999]", b"", b"{", b"[" * 200_000])
def test_what_is_not_json(text: bytes) -> None:
    with pytest.raises(InvalidImageError) as caught:
        parse_json(text, "app.tar: manifest.json")
    assert str(caught.value).startswith("app.tar: manifest.json")
    assert caught.value.hint


def test_what_is_json() -> None:
    assert parse_json(b'{"a": [1.5, null]}', "x") == {"a": [1.5, None]}


@pytest.mark.parametrize(
    "digest", [None, "", "sha256:abc", "sha256:" + "G" * 64, "../../etc/passwd", "md5:" + "0" * 32]
)
def test_digests_that_are_none(digest: object) -> None:
    with pytest.raises(InvalidImageError):
        blob_path(digest, "index")


def test_digests() -> None:
    name = "a" * 64
    assert blob_path(f"sha256:{name}", "x") == f"blobs/sha256/{name}"
    assert digest_in(f"{name}.json") == f"sha256:{name}"
    assert digest_in("layer.tar") is None
    check_digest(b"", "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "nothing")
    with pytest.raises(DigestMismatchError):
        check_digest(
            b"x", "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "nothing"
        )


@pytest.mark.parametrize(
    "config",
    [b"[]", b"null", b'{"rootfs": []}', b'{"rootfs": {"diff_ids": "x"}}', b'{"rootfs": {"diff_ids": [1]}}'],
)
def test_configs_that_are_none(config: bytes) -> None:
    with pytest.raises(InvalidImageError):
        diff_ids_of(config, "config")


def test_a_config_without_layers() -> None:
    assert diff_ids_of(b"{}", "config") == []
