"""layerlens: where every byte of a container image comes from, and which of them the program needs."""

from __future__ import annotations

__version__ = "0.1.0"
