"""The keys of each label: a digit, and a letter of its name."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_lowercase

UNDO, SKIP, SHOW, QUIT = "u", "s", "p", "q"
RESERVED = {UNDO, SKIP, SHOW, QUIT}
DIGITS = "123456789"


def assign_keys(labels: Sequence[str]) -> dict[str, str]:
    """Return the keys of each label, the digit first; empty for labels beyond the ninth whose letters are all taken.

    A label gets its first letter if no earlier one has it, else the first letter that is left in it.
    """
    letters: dict[str, str] = {}
    for label in labels:
        _take(letters, label, label[:1])
    for label in labels:
        if label not in letters:
            _take(letters, label, label)
    digits = dict(zip(labels, DIGITS, strict=False))
    return {label: digits.get(label, "") + letters.get(label, "") for label in labels}


def _take(letters: dict[str, str], label: str, candidates: str) -> None:
    """Give a label the first of some letters that is free."""
    taken = RESERVED | set(letters.values())
    free = [letter for letter in candidates.lower() if letter in ascii_lowercase and letter not in taken]
    if free:
        letters[label] = free[0]


def find_label(text: str, keys: dict[str, str]) -> str | None:
    """Return the label that a key or a whole name stands for, in any case; None if it is none."""
    word = text.strip().casefold()
    by_key = {key: label for label, own in keys.items() for key in own}
    by_name = {label.casefold(): label for label in keys}
    return by_key.get(word) or by_name.get(word)
