"""A small double-entry ledger behind an HTTP interface."""
