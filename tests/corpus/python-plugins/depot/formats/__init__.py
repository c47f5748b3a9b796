"""One module a format; each has read(path, mime) -> str | None."""
