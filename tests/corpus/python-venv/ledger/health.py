"""The image's health check: `python -m ledger.health` exits 0 while the server answers."""

import sys
import urllib.request

from ledger.settings import settings

if __name__ == "__main__":
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{settings.port}/accounts/rent", timeout=4) as answer:
            sys.exit(0 if answer.status == 200 else 1)
    except OSError as error:
        sys.exit(f"unhealthy: {error}")
