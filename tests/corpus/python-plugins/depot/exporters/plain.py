"""As text."""

TYPE = "text/plain; charset=utf-8"


def write(listing: dict[str, str]) -> str:
    return "".join(f"{name}\t{words}\n" for name, words in listing.items())
