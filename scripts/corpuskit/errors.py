"""The one error the harness raises for what it can explain."""

from __future__ import annotations


class CorpusError(Exception):
    """Something about a case, its build or its probe is wrong; the message says which and why."""
