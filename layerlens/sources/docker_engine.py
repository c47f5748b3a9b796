"""Images of a running engine: Docker, or Podman through its Docker-compatible socket.

The engine is asked by name, tag, digest or ID (Docker Engine API, ``GET /images/{name}/json``), and what it
exports (``GET /images/{name}/get``, the bytes of ``docker save``) streams into a spool that is then read like
any archive. Only this module knows the docker SDK, and only when an engine is really there: importing it
takes longer than most of what is asked. ``endpoints`` knows where engines are.
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from layerlens.errors import (
    EngineError,
    ImageNotFoundError,
    InvalidImageError,
    LayerLensError,
    PlatformError,
    SpoolError,
    UsageError,
)
from layerlens.model import Diagnostic, DiffId, Platform
from layerlens.sources import engine_storage, plainhttp, recalled, references
from layerlens.sources.beneath import StorageError
from layerlens.sources.endpoints import Endpoint, EngineName, endpoints
from layerlens.sources.engine_storage import KeptImage
from layerlens.sources.indexedarchive import index_archive
from layerlens.sources.membersums import Following
from layerlens.sources.recalled import KnownImage, KnownLayer
from layerlens.sources.spool import Chunks, SpoolWriter, open_inflated, spool
from layerlens.sources.tarsplit import SplitLayer

if TYPE_CHECKING:
    from layerlens.cache import Cache
    from layerlens.sources import Progress, Source, SourceLayer
    from layerlens.tarindex import Wants

_CONNECT_TIMEOUT_S = 20
_ANSWER_TIMEOUT_S = 60
_OLDEST = (1, 24)
"""The oldest version of the API that the SDK speaks."""
_LISTS_MANIFESTS = (1, 48)
"""API version from which inspect lists an image's platforms and an export takes one (API history, v1.48)."""
_TAIL_BYTES = 64 * 1024
_CHUNK = 1 << 20


class EngineDeniedError(EngineError):
    """There is an engine, but this user may not speak to it."""


class EngineRefusedError(EngineError):
    """The engine answered, and said no: ``status`` is HTTP's, ``said`` its own words."""

    def __init__(self, message: str, hint: str, status: int, said: str) -> None:
        super().__init__(message, hint)
        self.status = status
        self.said = said


class EngineAbsentError(EngineError):
    """There is no engine at that address."""

    def __init__(self, endpoint: Endpoint, reason: str, hint: str) -> None:
        super().__init__(f"{endpoint}: not running, {reason}", hint)
        self.endpoint = endpoint
        self.reason = reason


# --- an engine that answers -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EngineImage:
    """What an engine says of an image (``GET /images/{name}/json``)."""

    image_id: str
    platform: Platform
    diff_ids: tuple[DiffId, ...]
    size_bytes: int
    """The engine's own idea of its size: near that of the export, not equal to it."""
    available: tuple[Platform, ...]
    """The platforms that the engine holds under this name; ``platform`` alone in older engines."""
    inspected: dict[str, Any] = field(repr=False)


class Engine:
    """A connection to an engine. Every failure of it comes out as a LayerLensError."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Connect. Raises EngineError where nobody answers, or nobody who speaks the engine's language.

        A local engine is first asked without the SDK, which is loaded where that does not do.
        """
        self.endpoint = endpoint
        self._connection: Any = None
        self._version: tuple[int, ...] = ()
        _look_at_socket(endpoint)
        try:
            greeting = self._plainly("/_ping", _CONNECT_TIMEOUT_S)
        except OSError as error:
            raise _unreachable(endpoint, error) from error
        if greeting is not None and _is_engines(greeting):
            self._version = greeting.api_version
        else:
            self._connection = _connected(endpoint)

    @property
    def _client(self) -> Any:
        """The SDK's low-level client."""
        if self._connection is None:
            self._connection = _connected(self.endpoint)
        return self._connection

    def _plainly(self, target: str, timeout_s: float) -> plainhttp.Answer | None:
        """What the engine answers over its Unix socket without the SDK; None where the SDK has to ask.

        Raises OSError where nobody answers.
        """
        path = self.endpoint.socket_path
        return None if path is None else plainhttp.get(path, target, timeout_s)

    @property
    def api_version(self) -> tuple[int, ...]:
        """The version of the API that is spoken."""
        if self._connection is None:
            return self._version
        return tuple(int(part) for part in self._client.api_version.split(".") if part.isdigit())

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()

    def find(self, name: str) -> EngineImage | None:
        """The image that ``name`` (name, tag, digest, ID or the start of one) means; None if there is none.

        podman calls what it built ``localhost/name``, and its Docker-compatible API does not look there for
        a name without a registry as its command line does; so that is asked for as well.
        """
        names = [name]
        if self.endpoint.engine == "podman" and references.has_no_registry(name):
            names.append(f"localhost/{name}")
        for candidate in names:
            inspected = self._inspect(candidate)
            if inspected is not None:
                return self._understood(candidate, inspected)
        return None

    def tags(self) -> list[str]:
        """The names of all images the engine has, sorted; empty where it will not say."""
        try:
            listed = self._client.images()
            return sorted(
                {
                    str(tag)
                    for image in listed
                    for tag in image.get("RepoTags") or ()
                    if "<none>" not in str(tag)
                }
            )
        except Exception:  # only wanted for a hint
            return []

    def export(
        self,
        image: EngineImage,
        *,
        progress: Progress | None,
        what: str,
        meanwhile: Callable[[], object] | None = None,
    ) -> BinaryIO:
        """The image as ``docker save`` writes it, spooled: an unnamed file, open at its first byte.

        ``meanwhile`` may be called while the engine gathers the layers.

        Raises EngineError where the engine refuses or breaks off, SpoolError where the bytes find no room.
        """
        size = image.size_bytes

        def forward(label: str, done: int, _expected: int | None) -> None:
            if progress is not None:
                progress(label, done, max(size, done) if size else None)

        if progress is not None:
            progress(what, 0, size or None)
        done = 0
        following = Following()
        try:
            stream = self._exporting(image.image_id, meanwhile, following.has_ended)
            try:
                file = spool(
                    cast("BinaryIO", stream),
                    progress=forward,
                    expected=size or None,
                    what=what,
                    following=following,
                )
            finally:
                done = stream.position
                stream.close()
        except LayerLensError:
            raise
        except Exception as error:
            raise self._failed(f"exporting the image broke off after {done:,} bytes", error) from error
        try:
            _check_end(file, self.endpoint)
        except BaseException:
            file.close()
            raise
        return file

    def index(
        self,
        image: EngineImage,
        wants: Wants,
        *,
        progress: Progress | None,
        what: str,
        meanwhile: Callable[[], object] | None = None,
    ) -> BinaryIO | None:
        """As :meth:`export`, but for the layers, which are indexed as they pass by and not kept.

        None where that cannot be had, for whatever reason that an export will tell.
        """
        path = self.endpoint.socket_path
        if self._connection is not None or path is None:
            return None
        size = image.size_bytes
        if progress is not None:
            progress(what, 0, size or None)

        def count(done: int) -> None:
            if progress is not None:
                progress(what, done, max(size, done) if size else None)

        try:
            stream = plainhttp.unchunked(path, f"/images/{image.image_id}/get", _ANSWER_TIMEOUT_S, meanwhile)
            if stream is None:
                return None
            with stream, SpoolWriter(what, None) as kept:
                return index_archive(stream, wants, kept, count)
        except (OSError, InvalidImageError, SpoolError):
            return None

    def _exporting(
        self, image_id: str, meanwhile: Callable[[], object] | None, is_whole: Callable[[], bool]
    ) -> plainhttp.Chunked | Chunks:
        """The bytes of an export as they come; the SDK asks where its errors are wanted or there is no Unix socket.

        The engine first gathers the layers, in silence: of ten gigabytes, for minutes. So there is no time limit. And
        once all is out, it removes what it gathered before it says that this was all, which is not waited for.
        """
        path = self.endpoint.socket_path
        if self._connection is None and path is not None:
            target = f"/images/{image_id}/get"
            plain = plainhttp.stream(path, target, _ANSWER_TIMEOUT_S, meanwhile, is_whole)
            if plain is not None:
                return plain
        self._client.timeout = (_ANSWER_TIMEOUT_S, None)
        try:
            return Chunks(self._client.get_image(image_id))
        finally:
            self._client.timeout = _ANSWER_TIMEOUT_S

    def storage(self) -> engine_storage.Place | None:
        """Where its own storage is; None for an engine that cannot be on this machine, or does not say."""
        try:
            said = self._plainly("/info", _ANSWER_TIMEOUT_S)
        except OSError:
            return None  # whoever asks for an export next hears what is wrong
        return engine_storage.place_of(said.body) if said is not None and said.status == 200 else None

    def history(self, image: EngineImage) -> list[dict[str, Any]]:
        """The image's history as the engine renders it, newest first."""
        try:
            return [step for step in self._client.history(image.image_id) if isinstance(step, dict)]
        except Exception as error:
            raise self._failed("asking for the image's history failed", error) from error

    def ask(self, what: str, method: str, /, *arguments: Any, **options: Any) -> Any:
        """Call one method of the SDK's low-level client; ``what`` says in an error what was tried.

        Raises EngineRefusedError where the engine says no, EngineError where it does not answer.
        """
        try:
            return getattr(self._client, method)(*arguments, **options)
        except Exception as error:
            raise self._failed(what, error) from error

    def load(self, chunks: Iterable[bytes]) -> str:
        """Load a docker-archive that holds one image, streamed; the image's ID in the engine's own words.

        An archive that breaks off, or whose iteration raises, loads nothing (the engine unpacks it first). What
        iterating ``chunks`` raises passes; EngineError where the engine refuses or breaks off.
        """
        feed = _Feed(chunks)
        self._client.timeout = (_ANSWER_TIMEOUT_S, None)
        said: list[str] = []
        try:
            for message in self._client.load_image(feed):
                if isinstance(message, dict):
                    if message.get("error"):
                        raise EngineError(
                            f"{self.endpoint}: loading the image failed: {_one_line(str(message['error']))}",
                            "The image was not loaded; the engine's disk may be full (`docker system df`).",
                        )
                    said.append(str(message.get("stream") or ""))
        except LayerLensError:
            raise
        except Exception as error:
            if feed.failure is not None:
                raise feed.failure from error
            raise self._failed("loading the image broke off", error) from error
        finally:
            self._client.timeout = _ANSWER_TIMEOUT_S
        loaded = re.findall(r"Loaded image(?: ID)?: *(\S+)", "".join(said))
        found = self.find(loaded[-1]) if loaded else None
        if found is None:
            raise EngineError(
                f"{self.endpoint}: it does not say which image it loaded: {_one_line(''.join(said))}",
                "Write the image to a file (-o FILE.tar) and load that by hand.",
            )
        return found.image_id

    def _inspect(self, name: str) -> dict[str, Any] | None:
        plain = None
        try:
            if self._connection is None:
                plain = self._plainly(f"/images/{name}/json", _ANSWER_TIMEOUT_S)
        except OSError as error:
            raise self._failed(f"asking for {name!r} failed", error) from error
        if plain is not None and isinstance(plain.body, dict):
            if plain.status == 404:
                return None
            if plain.status == 200 and isinstance(plain.body.get("Id"), str):
                return plain.body
        import docker.errors

        try:
            answer = self._client.inspect_image(name)
        except docker.errors.NotFound:
            return None
        except Exception as error:
            raise self._failed(f"asking for {name!r} failed", error) from error
        if not isinstance(answer, dict) or not isinstance(answer.get("Id"), str):
            raise EngineError(
                f"{self.endpoint}: what it says of {name!r} is not the description of an image",
                "Check that a container engine answers at that address.",
            )
        return answer

    def _understood(self, name: str, inspected: dict[str, Any]) -> EngineImage:
        rootfs = inspected.get("RootFS")
        layers = rootfs.get("Layers") if isinstance(rootfs, dict) else None
        if not isinstance(layers, list):
            layers = []  # null where there are none
        platform = _platform_of(inspected, "Os", "Architecture", "Variant")
        size = inspected.get("Size")
        return EngineImage(
            image_id=inspected["Id"],
            platform=platform,
            diff_ids=tuple(DiffId(str(layer)) for layer in layers),
            size_bytes=size if isinstance(size, int) and size > 0 else 0,
            available=self._available(name) or (platform,),
            inspected=inspected,
        )

    def _available(self, name: str) -> tuple[Platform, ...]:
        """The platforms whose content is there, from an engine that keeps several under one name."""
        if self.endpoint.engine != "docker" or self.api_version < _LISTS_MANIFESTS:
            return ()
        try:
            manifests = self._described(name).get("Manifests") or ()
            return tuple(
                _platform_of(manifest["ImageData"]["Platform"], "os", "architecture", "variant")
                for manifest in manifests
                if manifest.get("Kind") == "image" and manifest.get("Available")
            )
        except Exception:  # an answer to a question that only newer engines understand
            return ()

    def _described(self, name: str) -> Any:
        """What inspect says with a list of manifests (API history, v1.48)."""
        if self._connection is None:
            plain = self._plainly(f"/images/{name}/json?manifests=1", _ANSWER_TIMEOUT_S)
            if plain is not None and plain.status == 200:
                return plain.body
        response = self._client._get(self._client._url("/images/{0}/json", name), params={"manifests": 1})
        return self._client._result(response, json=True)

    def _failed(self, what: str, error: Exception) -> EngineError:
        """An engine's refusal, or the connection's end, in the words of the one that caused it."""
        import docker.errors

        if isinstance(error, docker.errors.APIError):
            status = error.status_code or (error.response.status_code if error.response is not None else 0)
            said = _one_line(str(error.explanation or error.response or error))
            return EngineRefusedError(
                f"{self.endpoint}: {what}: it answered HTTP {status}: {said}",
                "Its log says more (`journalctl -u docker`, or `podman system service` run by hand).",
                status,
                said,
            )
        reason = (
            "no answer in time"
            if _timed_out(error)
            else f"the connection ended ({_one_line(_deepest(error))})"
        )
        return EngineError(
            f"{self.endpoint}: {what}: {reason}",
            "Check that the engine still runs (`docker version`), then try again.",
        )


class _Feed:
    """What is sent to an engine; keeps the exception of the one who makes it, which the HTTP client wraps."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks
        self.failure: BaseException | None = None

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._chunks
        except GeneratorExit:
            raise
        except BaseException as error:
            self.failure = error
            raise


def _check_end(file: BinaryIO, endpoint: Endpoint) -> None:
    """Raise EngineError where the export ends in an error message instead of an archive's end.

    Once the first byte is out, an engine can no longer answer with a status: moby appends the error as JSON
    to what it has written so far, and the stream then ends as if all were well (api/server/router/image,
    getImagesGet; pkg/streamformatter, FormatError).
    """
    size = os.fstat(file.fileno()).st_size
    tail = os.pread(file.fileno(), _TAIL_BYTES, max(0, size - _TAIL_BYTES))
    start = tail.rfind(b'{"errorDetail"')
    if start >= 0:
        try:
            said = json.loads(tail[start:])["errorDetail"]["message"]
        except (ValueError, KeyError, TypeError):
            return  # a file's content that looks like it; the archive's reader decides
        raise EngineError(
            f"{endpoint}: exporting the image broke off after {size:,} bytes: {_one_line(str(said))}",
            "The image may be damaged in the engine's storage: `docker save` should fail in the same way.",
        )
    if not size:
        raise EngineError(f"{endpoint}: the export of the image is empty", "Check what `docker save` says.")


# --- connecting -----------------------------------------------------------------------------------------


def _look_at_socket(endpoint: Endpoint) -> None:
    """Say at once, and without loading the SDK, what would keep a Unix socket from answering."""
    if endpoint.engine == "podman" and endpoint.url.startswith("ssh://"):
        raise EngineError(
            f"{endpoint}: podman over ssh is not supported",
            "Forward its socket (ssh -L /tmp/podman.sock:…/podman.sock HOST), set CONTAINER_HOST to that.",
        )
    path = endpoint.socket_path
    if path is None:
        return
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise _unreachable(endpoint, error) from error
    if not stat.S_ISSOCK(mode):
        raise EngineError(f"{endpoint}: {path} is not a socket", _start_hint(endpoint))


def _is_engines(greeting: plainhttp.Answer) -> bool:
    """Whether an answer to ``GET /_ping`` is that of an engine that the SDK can speak to as well."""
    return greeting.status == 200 and greeting.body == "OK" and greeting.api_version >= _OLDEST


def _connected(endpoint: Endpoint) -> Any:
    """The SDK's low-level client, which has spoken with the engine. Raises EngineError where it cannot."""
    import docker
    import docker.errors
    import docker.tls

    try:
        client: Any = docker.APIClient(
            base_url=endpoint.url,
            version="auto",
            timeout=_CONNECT_TIMEOUT_S,
            tls=_tls(endpoint),
            use_ssh_client=True,
        )
    except docker.errors.InvalidVersion as error:
        raise EngineError(
            f"{endpoint}: its API is too old ({error})",
            "Use an engine of 2017 or later (API 1.24), or give an archive that `docker save` wrote.",
        ) from error
    except LayerLensError:
        raise
    except Exception as error:  # whatever sits at that address may answer anything
        raise _unreachable(endpoint, error) from error
    client.timeout = _ANSWER_TIMEOUT_S
    return client


def _tls(endpoint: Endpoint) -> Any:
    """What the SDK wants to know of TLS: False without certificates."""
    if endpoint.certificates is None:
        return False
    import docker.errors
    import docker.tls

    folder = endpoint.certificates
    files = {name: folder / f"{name}.pem" for name in ("ca", "cert", "key")}
    pair = (
        (str(files["cert"]), str(files["key"])) if files["cert"].exists() and files["key"].exists() else None
    )
    ca = str(files["ca"]) if files["ca"].exists() else None
    try:
        return docker.tls.TLSConfig(client_cert=pair, ca_cert=ca, verify=endpoint.verify_tls)
    except docker.errors.TLSParameterError as error:
        raise EngineError(
            f"{endpoint}: the TLS certificates in {folder} cannot be used: {_one_line(str(error))}",
            "ca.pem, cert.pem and key.pem belong there; DOCKER_CERT_PATH names another folder.",
        ) from error


def _unreachable(endpoint: Endpoint, error: Exception) -> EngineError:
    """Why nobody answers at an address, in one line, and what to do about it."""
    path = endpoint.socket_path
    number = _error_number(error)
    if endpoint.url.startswith("ssh://") and any("paramiko" in str(inner) for inner in _chain(error)):
        return EngineError(
            f"{endpoint}: the docker SDK speaks ssh only with paramiko installed",
            "`pip install paramiko`, or forward the socket (ssh -L) and set DOCKER_HOST to that.",
        )
    if number in (errno.EACCES, errno.EPERM):
        return EngineDeniedError(
            f"{endpoint}: permission denied" + (f" on {path}" if path else ""), _permission_hint(endpoint)
        )
    if number in (errno.ENOENT, errno.ENOTDIR):
        return EngineAbsentError(endpoint, "no such socket", _start_hint(endpoint))
    if number == errno.ECONNREFUSED:
        return EngineAbsentError(endpoint, "nobody listens there", _start_hint(endpoint))
    if _timed_out(error):
        return EngineError(
            f"{endpoint}: no answer within {_CONNECT_TIMEOUT_S} seconds", _start_hint(endpoint)
        )
    return EngineError(f"{endpoint}: cannot be reached: {_one_line(_deepest(error))}", _start_hint(endpoint))


def _start_hint(endpoint: Endpoint) -> str:
    if endpoint.engine == "podman":
        return (
            "Start it with `systemctl --user start podman.socket`, or set CONTAINER_HOST to where it listens."
        )
    if endpoint.origin == "DOCKER_HOST":
        return "Start the engine there, or correct or unset DOCKER_HOST."
    if endpoint.origin:
        return "Start the engine there, or choose another context with `docker context use`."
    return "Start it (`systemctl start docker`, or Docker Desktop), or set DOCKER_HOST to where it listens."


def _permission_hint(endpoint: Endpoint) -> str:
    if endpoint.engine == "podman":
        return "It is another user's: start your own podman with `systemctl --user start podman.socket`."
    group = "docker"
    try:
        import grp

        path = endpoint.socket_path
        group = grp.getgrgid(path.stat().st_gid).gr_name if path is not None else group
    except (ImportError, KeyError, OSError):
        pass  # the usual name of the group will do
    if group == "root":
        return "Only root may use it: run with sudo."
    return f"Join its group (`sudo usermod -aG {group} $USER`, then log in again), or run with sudo."


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and what it was raised from, wrapped in or given as argument, outermost first."""
    seen: set[int] = set()
    waiting: list[BaseException] = [error]
    while waiting:
        current = waiting.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        inner = [current.__cause__, current.__context__, getattr(current, "reason", None), *current.args]
        waiting.extend(item for item in inner if isinstance(item, BaseException))


def _error_number(error: BaseException) -> int | None:
    """The system's error number at the bottom of what the layers of an HTTP client made of it."""
    for inner in _chain(error):
        if isinstance(inner, OSError) and inner.errno is not None:
            return inner.errno
    return None


def _timed_out(error: BaseException) -> bool:
    return any(
        isinstance(inner, TimeoutError) or "timed out" in str(inner).lower() for inner in _chain(error)
    )


def _deepest(error: BaseException) -> str:
    """What the innermost exception says, or its name where it says nothing."""
    said = ""
    for inner in _chain(error):
        said = (inner.strerror if isinstance(inner, OSError) else None) or str(inner) or type(inner).__name__
    return said


def _one_line(text: str) -> str:
    """An engine's words without line breaks and control characters, at most 300 of them."""
    words = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return words if len(words) <= 300 else words[:299] + "…"


# --- the source -----------------------------------------------------------------------------------------


class EngineSource:
    """An image of an engine. Its ID and diff IDs are known at once; config and layers need the export.

    The export runs when ``config`` or ``layers`` is first asked for. Then this is the archive that was exported,
    under the engine's name for it. Where a cache knows the image, both come from there, and the export runs when the
    bytes of a layer are first wanted, if they ever are. Where the engine's own storage can be read, there is no
    export at all, unless something in that is not as expected.
    """

    def __init__(
        self,
        engine: Engine,
        image: EngineImage,
        *,
        reference: str,
        name: str,
        platform: Platform | None,
        progress: Progress | None,
        diagnostics: Sequence[Diagnostic] = (),
        cache: Cache | None = None,
        meanwhile: Callable[[], object] | None = None,
    ) -> None:
        self._engine = engine
        self._image = image
        self._reference = reference
        self._name = name
        self._platform = platform
        self._progress = progress
        self._diagnostics = list(diagnostics)
        self._archive: Source | None = None
        self._passed: Source | None = None
        """The export without its layers, which were indexed as they passed by."""
        self._layerless: bytes | None = None
        self._cache = cache
        self._meanwhile = meanwhile
        self._exporting = threading.RLock()
        self._gave_up = False

    def __enter__(self) -> EngineSource:
        return self

    @property
    def engine(self) -> Engine:
        """The engine that has it; closed with this."""
        return self._engine

    @property
    def image(self) -> EngineImage:
        """What the engine says of it."""
        return self._image

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def reference(self) -> str:
        """The reference as it was written."""
        return self._reference

    @property
    def image_id(self) -> str | None:
        """The image's ID in the engine's own words."""
        return self._image.image_id

    @property
    def diff_ids(self) -> tuple[DiffId, ...]:
        """The diff IDs, base first, in the engine's word; asking for them exports nothing."""
        return self._image.diff_ids

    @property
    def config(self) -> bytes:
        """The config blob as exported; of an image without layers, which is never exported, as rendered."""
        if not self._image.diff_ids:
            if self._layerless is None:
                self._layerless = self._rendered_config()
            return self._layerless
        if self._passed is not None:
            return self._passed.config
        if self._known is not None:
            return self._known.config
        return self._kept.config if self._kept is not None else self._exported().config

    @property
    def layers(self) -> Sequence[SourceLayer]:
        """The layers, base first."""
        if not self._image.diff_ids:
            return ()
        if self._passed is not None:
            return self._passed_layers
        if self._known is None and self._kept is None:
            return self._exported().layers
        return self._put_off

    def pass_by(self, wants: Wants) -> None:
        """Where there has to be an export, index its layers as they pass by, instead of keeping them all."""
        with self._exporting:
            if not self._image.diff_ids or self._archive is not None or self._passed is not None:
                return
            place = self._place
            if (
                self._known is not None
                or self._kept is not None
                or (place is not None and place.is_containerd)
            ):
                return
            file = self._engine.index(
                self._image, wants, progress=self._progress, what=self._what, meanwhile=self._meanwhile
            )
            if file is not None:
                try:
                    self._passed = self._opened(file)
                except LayerLensError:
                    return  # an export will tell
                self._remember_image(self._passed)

    @cached_property
    def _passed_layers(self) -> Sequence[SourceLayer]:
        """The layers of the export that passed by; whose bytes are wanted after all, those are exported again."""
        assert self._passed is not None, "asked for once it has passed"

        def layer(number: int, passed: SourceLayer) -> SourceLayer:
            if passed.passed is None:
                return passed
            return replace(
                passed,
                open=lambda: self._exported().layers[number].open(),
                locate=lambda: self._exported().layers[number].stored_range(),
            )

        return [layer(number, passed) for number, passed in enumerate(self._passed.layers)]

    @cached_property
    def _known(self) -> KnownImage | None:
        """What an earlier run found, where the engine still says the same of the image."""
        if self._cache is None or not self._image.diff_ids:
            return None
        known = recalled.find_image(self._cache, *self._identity)
        if known is None:
            return None
        platform = self._identity[2]
        comparable = platform is None or platform == self._image.platform
        if comparable and tuple(layer.diff_id for layer in known.layers) != self._image.diff_ids:
            return None
        return known

    @property
    def _identity(self) -> tuple[str, str, Platform | None]:
        """What the export depends on: the engine's kind, the image's ID, and the platform where there are several."""
        several = len(self._image.available) > 1
        platform = self._platform or (self._image.platform if several else None)
        return self._engine.endpoint.engine, self._image.image_id, platform

    @cached_property
    def _put_off(self) -> Sequence[SourceLayer]:
        """The layers of a known image or a kept one, whose bytes are exported when they are not to be had else."""
        from layerlens.sources import SourceLayer

        def layer(number: int, known: KnownLayer) -> SourceLayer:
            return SourceLayer(
                *known,
                open=lambda: self._open_layer(number),
                streamed=True,
                locate=lambda: self._exported().layers[number].stored_range(),
                unpacked=lambda: self._unpacked(number),
            )

        if self._known is not None:
            layers = self._known.layers
        else:
            layers = tuple(KnownLayer(diff_id, "", None, None) for diff_id in self._image.diff_ids)
            if self._cache is not None and self._kept is not None:
                known = KnownImage(self._kept.config, layers, ())
                recalled.store_image(self._cache, *self._identity, known)
        return [layer(number, known) for number, known in enumerate(layers)]

    @cached_property
    def _place(self) -> engine_storage.Place | None:
        """Where the engine's own storage is; None where that is not to be read."""
        return self._engine.storage() if engine_storage.is_wanted() else None

    @cached_property
    def _kept(self) -> KeptImage | None:
        """The image unpacked in the engine's own storage; None where that is not to be read."""
        place = self._place
        if place is None or place.is_containerd:
            return None
        try:
            kept = engine_storage.open_kept(place, self._image.image_id, self._image.diff_ids)
        except StorageError as error:
            self._give_up(error)
            return None
        for layer in kept.layers if kept is not None else ():
            layer.report = self._give_up
        return kept

    def _unpacked(self, number: int) -> SplitLayer | None:
        return self._kept.layers[number] if self._kept is not None else None

    def _give_up(self, error: LayerLensError) -> None:
        """Note, once, why the engine's storage was not enough; of a rootless engine some files are not the user's."""
        if not self._gave_up:
            self._gave_up = True
            denied = isinstance(error.__cause__, PermissionError)
            self._diagnostics.append(
                Diagnostic(
                    "info" if denied else "warning",
                    "engine-storage",
                    f"{self._engine.endpoint}: its storage is not as expected, so that it exports: {error}",
                )
            )

    def _open_layer(self, number: int) -> BinaryIO:
        """A layer's bytes as stored: put together from the engine's storage, as far as that goes, or exported."""
        unpacked = self._unpacked(number)
        if unpacked is None:
            return self._exported().layers[number].open()

        def chunks() -> Iterator[bytes]:
            done = 0
            try:
                for chunk in unpacked.chunks():
                    yield chunk
                    done += len(chunk)
                return
            except StorageError as error:
                self._give_up(error)
            with open_inflated(self._exported().layers[number].open(), what=f"layer {number}") as stream:
                while done > 0 and (skipped := stream.read(min(done, _CHUNK))):
                    done -= len(skipped)
                while chunk := stream.read(_CHUNK):
                    yield chunk

        return cast("BinaryIO", io.BufferedReader(Chunks(chunks()), _CHUNK))

    @property
    def diff_ids_trusted(self) -> bool:
        """True: an engine hashed its layers when it made or pulled them."""
        return True

    @property
    def diagnostics(self) -> Sequence[Diagnostic]:
        """What was odd on the way in."""
        found = self._archive or self._passed or self._known
        return [*self._diagnostics, *(found.diagnostics if found is not None else ())]

    def close(self) -> None:
        """Close the spool and the connection."""
        for archive in (self._archive, self._passed):
            if archive is not None:
                archive.close()
        kept = self.__dict__.get("_kept")
        if kept is not None:
            kept.close()
        self._engine.close()

    def _exported(self) -> Source:
        with self._exporting:
            if self._archive is None:
                self._archive = self._from_content_store() or self._export()
                self._remember_image(self._archive)
            return self._archive

    def _remember_image(self, archive: Source) -> None:
        if self._cache is not None and self._known is None:
            recalled.store_image(self._cache, *self._identity, archive)

    def _from_content_store(self) -> Source | None:
        """The image out of containerd's content store, where the engine has that and it can be read."""
        from layerlens.sources import containerd_store

        place = self._place
        if place is None or not place.is_containerd:
            return None
        folders = containerd_store.roots(place.root)
        platform = self._identity[2] or self._image.platform
        found = None
        try:
            found = containerd_store.open_image(folders, self._image.inspected, self._reference, platform)
            if found is not None:
                self._compare(found)
        except (StorageError, InvalidImageError) as error:
            if found is not None:
                found.close()
            self._give_up(error)
            return None
        return found

    @property
    def _what(self) -> str:
        return f"exporting {self._name} from {self._engine.endpoint.engine}"

    def _export(self) -> Source:
        return self._opened(
            self._engine.export(
                self._image, progress=self._progress, what=self._what, meanwhile=self._meanwhile
            )
        )

    def _opened(self, file: BinaryIO) -> Source:
        """What was exported into ``file``, which is taken over."""
        from layerlens.sources import docker_archive

        archive = docker_archive.open_archive(
            file, self._reference, None, self._identity[2], streamed=True, diff_ids_trusted=True
        )
        try:
            self._compare(archive)
        except BaseException:
            archive.close()
            raise
        return archive

    def _compare(self, archive: Source) -> None:
        """The export must be of the image that was asked for: its layers are the ones that were promised."""
        exported = tuple(layer.diff_id for layer in archive.layers)
        one_platform = len(self._image.available) == 1
        if one_platform and exported != self._image.diff_ids:
            raise InvalidImageError(
                f"{self._engine.endpoint}: the export of {self._name!r} has {len(exported)} layers, and not "
                f"the {len(self._image.diff_ids)} that the engine lists for it",
                "Export it by hand (docker save -o app.tar …) and give ./app.tar.",
            )

    def _rendered_config(self) -> bytes:
        """A config made of what the engine shows, since moby refuses to export an image without layers."""
        self._diagnostics.append(
            Diagnostic(
                "info",
                "config-from-engine",
                "the image has no layers, so the engine cannot export it: the config is the engine's "
                "rendering of it",
            )
        )
        return _config_of(self._image, self._engine.history(self._image))


def _config_of(image: EngineImage, history: Sequence[dict[str, Any]]) -> bytes:
    """An image config (image-spec config.md) with what inspect and history say, for no layers."""
    inspected = image.inspected
    entries = []
    for step in reversed(history):
        created = step.get("Created")
        entry = {"created_by": step.get("CreatedBy") or "", "empty_layer": True}
        if isinstance(created, int) and 0 <= created < 1 << 37:  # until the year 6325
            entry["created"] = datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        if step.get("Comment"):
            entry["comment"] = step["Comment"]
        entries.append(entry)
    config: dict[str, Any] = {
        "created": inspected.get("Created"),
        "author": inspected.get("Author"),
        "architecture": image.platform.architecture,
        "os": image.platform.os,
        "variant": image.platform.variant,
        "config": inspected.get("Config") or {},
        "rootfs": {"type": "layers", "diff_ids": []},
        "history": entries,
    }
    kept = {key: value for key, value in config.items() if value not in (None, "")}
    return json.dumps(kept).encode()


def _platform_of(said: Mapping[str, Any], os_key: str, architecture_key: str, variant_key: str) -> Platform:
    return Platform(
        str(said.get(os_key) or "unknown"),
        str(said.get(architecture_key) or "unknown"),
        str(said[variant_key]) if said.get(variant_key) else None,
    )


# --- opening --------------------------------------------------------------------------------------------


def open_engine(
    name: str,
    *,
    reference: str | None = None,
    engines: Sequence[EngineName] = ("docker", "podman"),
    platform: Platform | None = None,
    progress: Progress | None = None,
    cache: Cache | None = None,
    meanwhile: Callable[[], object] | None = None,
) -> EngineSource:
    """The image ``name`` (name, tag, digest, ID or the start of one) of the first of ``engines`` that has it.

    ``reference`` is how the user wrote it, ``name`` itself by default. The source exports when asked for its
    config or layers, or with a ``cache`` that knows the image, when asked for their bytes; ``meanwhile`` may be
    called while the engine prepares that.

    Raises ImageNotFoundError, listing what was tried and what is spelled alike; EngineError where no engine
    answers; PlatformError where the image is there for other platforms only.
    """
    if not references.is_valid_name(name):
        raise UsageError(
            f"{name!r} cannot be the name of an image",
            _path_hint(name) or "Names are like myapp:latest, in lower case.",
        )
    failed: list[LayerLensError] = []
    without: list[Endpoint] = []
    asked: set[str] = set()
    for which in engines:
        try:
            places = endpoints(which)
        except EngineError as error:
            failed.append(error)
            continue
        for place in places:
            if place.url in asked:
                continue  # DOCKER_HOST may name podman's socket
            asked.add(place.url)
            engine = None
            try:
                engine = Engine(place)
                image = engine.find(name)
                if image is not None:
                    _check_platform(name, place, image, platform)
                    source = EngineSource(
                        engine,
                        image,
                        reference=reference or name,
                        name=name,
                        platform=platform,
                        progress=progress,
                        diagnostics=_passed_over(failed),
                        cache=cache,
                        meanwhile=meanwhile,
                    )
                    engine = None  # the source closes it
                    return source
                without.append(place)
            except EngineError as error:
                failed.append(error)
            finally:
                if engine is not None:
                    engine.close()
    raise _nobody_has(name, without, failed)


def connect(engines: Sequence[EngineName] = ("docker", "podman")) -> Engine:
    """The first of ``engines`` that answers. Raises EngineError where none does."""
    failed: list[LayerLensError] = []
    for which in engines:
        try:
            for place in endpoints(which):
                try:
                    return Engine(place)
                except EngineError as error:
                    failed.append(error)
        except EngineError as error:
            failed.append(error)
    denied = next((error for error in failed if isinstance(error, EngineDeniedError)), None)
    hint = (denied or failed[0]).hint if failed else "Start an engine."
    raise EngineError(f"no engine can be used: {_reasons(failed)}", hint)


def _passed_over(failed: Sequence[LayerLensError]) -> list[Diagnostic]:
    """What should be known of engines that came first and were there, but could not be asked."""
    return [
        Diagnostic("warning", "engine-passed-over", f"{error} {error.hint}")
        for error in failed
        if not isinstance(error, EngineAbsentError)
    ]


def _check_platform(name: str, place: Endpoint, image: EngineImage, wanted: Platform | None) -> None:
    if wanted is None or any(there.matches(wanted) for there in image.available):
        return
    there = ", ".join(sorted({str(platform) for platform in image.available}))
    raise PlatformError(
        f"{place} has {name!r} for {there} only, not for {wanted}",
        f"Ask for --platform {image.available[0]}, or `{place.engine} pull --platform {wanted} {name}`.",
    )


def _nobody_has(name: str, without: Sequence[Endpoint], failed: Sequence[LayerLensError]) -> LayerLensError:
    """The error for an image that was found nowhere: what was tried, and what to do."""
    reasons = _reasons(failed)
    if not without:
        denied = next((error for error in failed if isinstance(error, EngineDeniedError)), None)
        advice = (denied or failed[0]).hint if failed else "Start an engine."
        return EngineError(
            f"no engine can be asked for {name!r}: {reasons}", _path_hint(name) or _archive_hint(name, advice)
        )
    message = f"no image {name!r} in {_or([str(place) for place in without])}"
    if reasons:
        message += f"; {reasons}"
    # Listing images can take an engine a second, which whoever merely tries a name need not wait for.
    return ImageNotFoundError(message, lambda: _path_hint(name) or _near_hint(name, without))


def _near_hint(name: str, places: Sequence[Endpoint]) -> str:
    """What is spelled alike in the engines that were asked, else how to look and how to get it."""
    listed: list[str] = []
    for place in places:
        try:
            engine = Engine(place)
        except EngineError:
            continue  # it has gone away since
        listed += engine.tags()
        engine.close()
    near = references.near_matches(name, listed)
    if near:
        return f"Did you mean {_or(near)}?"
    first = places[0].engine
    return f"`{first} images` lists what is there, `{first} pull {name}` fetches it; a path starts with ./"


def _reasons(failed: Sequence[LayerLensError]) -> str:
    """Why engines could not be asked, in one line; the places where one does not run are taken together."""
    absent: dict[str, list[str]] = {}
    said = []
    for error in failed:
        if isinstance(error, EngineAbsentError):
            place = error.endpoint
            origin = f" from {place.origin}" if place.origin else ""
            absent.setdefault(place.engine, []).append(f"{place.url}{origin}: {error.reason}")
        else:
            said.append(str(error))
    said += [f"{engine} is not running ({', '.join(places)})" for engine, places in absent.items()]
    return "; ".join(said)


def _or(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _archive_hint(name: str, advice: str) -> str:
    return f"{advice.rstrip('.')}; or give an archive (`docker save -o app.tar {name}`) as ./app.tar."


def _path_hint(name: str) -> str:
    """The hint for a name that is a path, if there is something at it."""
    try:
        exists = os.path.lexists(name)
    except (OSError, ValueError):
        return ""
    return f"There is a file or folder of that name: write ./{name} for it." if exists else ""
