"""A depot of files that says what is in them."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

HOME = Path(__file__).resolve().parent.parent
SAMPLES = HOME / "samples"


def settings() -> dict[str, Any]:
    """What depot.toml says."""
    return tomllib.loads((HOME / "depot.toml").read_text(encoding="utf-8"))
