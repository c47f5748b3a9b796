"""`depot serve`: over HTTP."""

import os

from depot import settings
from depot.web import application


def run(arguments: list[str]) -> int:
    # bottle knows its servers by name and imports the one that is asked for.
    application().run(
        server=settings()["serve"]["server"], host="0.0.0.0", port=int(os.environ.get("PORT", "18240")), quiet=True
    )
    return 0
