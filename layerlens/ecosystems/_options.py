"""Options in front of operands on a command line, as interpreters read them (POSIX.1-2017, 12.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def after_options(words: Sequence[str], take: Callable[[str, str], int]) -> int:
    """Index of the first operand; ``take`` notes an option, given the word after it too, and says how many it takes.

    ``--`` ends the options, and ``-`` is an operand.
    """
    at = 0
    while at < len(words):
        word = words[at]
        if word == "--":
            return at + 1
        if not word.startswith("-") or word == "-":
            return at
        at += take(word, words[at + 1] if at + 1 < len(words) else "")
    return at
