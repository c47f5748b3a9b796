"""layerlens: where every byte of a container image comes from, and which of them the program needs.

>>> import layerlens
>>> image = layerlens.open_image("myapp:latest")
>>> report = layerlens.inspect(image)

The names below are loaded when they are first used (PEP 562), so that ``import layerlens`` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from layerlens.api import Explanation as Explanation
    from layerlens.api import Image as Image
    from layerlens.api import Report as Report
    from layerlens.api import inspect as inspect
    from layerlens.api import open_image as open_image
    from layerlens.api import recommend as recommend
    from layerlens.errors import AmbiguousImageError as AmbiguousImageError
    from layerlens.errors import DigestMismatchError as DigestMismatchError
    from layerlens.errors import EngineError as EngineError
    from layerlens.errors import ImageNotFoundError as ImageNotFoundError
    from layerlens.errors import InvalidImageError as InvalidImageError
    from layerlens.errors import LayerLensError as LayerLensError
    from layerlens.errors import LinkLoopError as LinkLoopError
    from layerlens.errors import OutputError as OutputError
    from layerlens.errors import PathNotFoundError as PathNotFoundError
    from layerlens.errors import PlatformError as PlatformError
    from layerlens.errors import SourceError as SourceError
    from layerlens.errors import SpoolError as SpoolError
    from layerlens.errors import UnavailableError as UnavailableError
    from layerlens.errors import UsageError as UsageError
    from layerlens.errors import VerifyError as VerifyError
    from layerlens.planned import Plan as Plan
    from layerlens.probing import Probe as Probe
    from layerlens.slimming import Proof as Proof
    from layerlens.slimming import Slimmed as Slimmed
    from layerlens.verify import Verification as Verification

_HOMES = {
    "Explanation": "api",
    "Image": "api",
    "Plan": "planned",
    "Probe": "probing",
    "Proof": "slimming",
    "Report": "api",
    "Slimmed": "slimming",
    "Verification": "verify",
    "inspect": "api",
    "open_image": "api",
    "recommend": "api",
    "AmbiguousImageError": "errors",
    "DigestMismatchError": "errors",
    "EngineError": "errors",
    "ImageNotFoundError": "errors",
    "InvalidImageError": "errors",
    "LayerLensError": "errors",
    "LinkLoopError": "errors",
    "OutputError": "errors",
    "PathNotFoundError": "errors",
    "PlatformError": "errors",
    "SourceError": "errors",
    "SpoolError": "errors",
    "UnavailableError": "errors",
    "UsageError": "errors",
    "VerifyError": "errors",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
