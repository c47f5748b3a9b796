"""Every exception the library raises on purpose.

All derive from :class:`LayerLensError`; each carries a ``hint``, one line that says how to mend it.
The library never prints and never exits: the command line turns these into two lines on stderr.
"""

from __future__ import annotations

from collections.abc import Callable


class LayerLensError(Exception):
    """Base of all errors: ``str(error)`` says what happened, ``error.hint`` what to do about it.

    A hint that takes time to find is given as a function, which is called when somebody reads it.
    """

    def __init__(self, message: str, hint: str | Callable[[], str] = "") -> None:
        super().__init__(message)
        self.message = message
        self._hint = hint

    @property
    def hint(self) -> str:
        """What to do about it, in one line; empty where there is nothing to say."""
        if not isinstance(self._hint, str):
            self._hint = self._hint()
        return self._hint

    def __str__(self) -> str:
        return self.message


class UsageError(LayerLensError, ValueError):
    """An argument or option that makes no sense as given."""


class SourceError(LayerLensError):
    """The way in to an image failed: not found, engine unreachable, no permission, no space."""


class ImageNotFoundError(SourceError):
    """No such image where it was looked for."""


class EngineError(SourceError):
    """A container engine could not be reached, refused, or broke off."""


class PlatformError(SourceError):
    """The image exists, but not for the platform that was asked for."""


class AmbiguousImageError(SourceError):
    """An archive or layout holds several images and the reference does not say which."""


class SpoolError(SourceError):
    """Bytes that had to be kept on disk for a while could not be written (disk full, read-only)."""


class InvalidImageError(LayerLensError, ValueError):
    """The bytes are not the image they claim to be: manifest, digest, media type, broken layer."""


class DigestMismatchError(InvalidImageError):
    """Content does not hash to the digest it is stored or listed under."""


class PathNotFoundError(LayerLensError, FileNotFoundError):
    """A path does not exist inside the image."""


class LinkLoopError(LayerLensError, OSError):
    """Symbolic links inside the image lead in a circle, or deeper than the kernel's limit of 40."""


class DockerfileError(LayerLensError, ValueError):
    """A Dockerfile that no builder takes, or that cannot be rewritten as asked; says line and column."""


class OutputError(LayerLensError):
    """What was made could not be put where it should go (disk full, no permission, something else is there)."""


class VerifyError(LayerLensError):
    """Two images could not be compared at all: no container can be made, a port is taken, a probe makes no sense."""


class UnavailableError(LayerLensError):
    """Something that only some systems can do, and why this one cannot."""
