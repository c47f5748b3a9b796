"""Whether what surrounds the program works."""

from __future__ import annotations

import os
import pwd
import ssl
import subprocess
from datetime import datetime
from zoneinfo import ZoneInfo


def describe(tidecalc: str) -> dict[str, object]:
    version = subprocess.run([tidecalc, "--version"], capture_output=True, text=True, check=True, timeout=5).stdout
    return {
        "user": pwd.getpwuid(os.getuid()).pw_name,
        "trusts_plenty": ssl.create_default_context().cert_store_stats()["x509_ca"] > 50,
        "oslo": datetime(2024, 6, 21, 12, tzinfo=ZoneInfo("Europe/Oslo")).isoformat(),
        "tidecalc": version.strip(),
    }
