"""File names as text: any byte string that a file system allows."""

from __future__ import annotations

import os
import unicodedata


def is_utf8(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is UTF-8, as libraries that do not take bytes expect."""
    try:
        os.fsencode(path).decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def escape_name(name: str) -> str:
    r"""Return a file name as text that can be stored anywhere and fits into a line.

    Bytes that are not UTF-8, which Python keeps as surrogates (PEP 383), and control characters become \xNN.
    """
    text = os.fsencode(name).decode("utf-8", errors="backslashreplace")
    return "".join(f"\\x{ord(letter):02x}" if unicodedata.category(letter) == "Cc" else letter for letter in text)
