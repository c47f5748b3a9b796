"""One module a way out; each has TYPE and write(listing) -> str."""
