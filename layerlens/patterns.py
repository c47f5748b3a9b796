"""Regular expressions that are compiled when they are first used.

Modules keep theirs as constants. To compile all of them takes as long as reading a large image's package database,
and most commands use few.
"""

from __future__ import annotations

import re
from typing import Any, AnyStr, cast


class Uncompiled:
    """Stands for a compiled regular expression, whose methods it takes over one by one as they are asked for."""

    def __init__(self, source: str | bytes, flags: int) -> None:
        self._source = source
        self._flags = flags

    def __getattr__(self, name: str) -> Any:
        found = getattr(re.compile(self._source, self._flags), name)  # `re` remembers what it compiled
        setattr(self, name, found)
        return found


def regex(source: AnyStr, flags: int = 0) -> re.Pattern[AnyStr]:
    """As :func:`re.compile`, at the first use; what is wrong with ``source`` is raised then (``re.error``)."""
    return cast("re.Pattern[AnyStr]", Uncompiled(source, flags))
