"""`depot formats`: the formats that are known, and who brings them."""

from depot.registry import Registry


def run(arguments: list[str]) -> int:
    for name, reader in Registry().readers.items():
        print(f"{name}: {reader.__module__}")
    return 0
