"""`depot describe FILE…`."""

import sys
from pathlib import Path

from depot.registry import Registry


def run(arguments: list[str]) -> int:
    registry = Registry()
    for name in arguments:
        path = Path(name)
        if not path.is_file():
            print(f"depot: no file {name}", file=sys.stderr)
            return 1
        print(f"{path.name}: {registry.describe(path)}")
    return 0
