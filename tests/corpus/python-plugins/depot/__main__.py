"""The command line: `python -m depot serve | formats | describe FILE`. The command's module is found by its name."""

import sys
from importlib import import_module


def main(arguments: list[str]) -> int:
    command, *rest = arguments or ["formats"]
    try:
        module = import_module(f"depot.command_{command}")
    except ModuleNotFoundError as error:
        if error.name != f"depot.command_{command}":
            raise
        print(f"depot: no command {command!r}", file=sys.stderr)
        return 2
    return module.run(rest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
