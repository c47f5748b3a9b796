"""Whether what surrounds the program works."""

from __future__ import annotations

import os
import pwd
import socket
import sqlite3
import ssl

import psutil


def describe() -> dict[str, object]:
    entry = pwd.getpwuid(os.getuid())
    process = psutil.Process()
    with sqlite3.connect(":memory:") as database:
        (squares,) = database.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9) SELECT sum(i * i) FROM n"
        ).fetchone()
    return {
        "user": entry.pw_name,
        "home": entry.pw_dir,
        "same_user": process.username() == entry.pw_name,
        "resident": process.memory_info().rss > 0,
        "localhost": bool(socket.getaddrinfo("localhost", 18250)),
        "squares": squares,
        "trusts_plenty": ssl.create_default_context().cert_store_stats()["x509_ca"] > 50,
    }
