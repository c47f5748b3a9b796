"""Statements as CSV, signed with an argon2 hash so that a later copy can be checked."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from argon2.low_level import Type, hash_secret

if TYPE_CHECKING:
    from ledger.store import Account

SALT = b"ledger-statement"


def csv_of(account: Account) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["day", "amount", "memo"])
    for entry in account.entries:
        writer.writerow([entry.day.isoformat(), f"{entry.amount:.2f}", entry.memo])
    seal = hash_secret(text.getvalue().encode(), SALT, 1, 1024, 1, 16, Type.ID)
    return f"{text.getvalue()}# {seal.decode()}\r\n"
