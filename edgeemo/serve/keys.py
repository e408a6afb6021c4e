"""API keys: random, shown once, and stored as hashes in a file.

A key has 256 random bits, so a plain SHA-256 cannot be reversed by guessing; a slow hash, which passwords need, would
only make each request slow.
"""

from __future__ import annotations

import hmac
import re
import secrets
from hashlib import sha256
from pathlib import Path

from edgeemo.errors import UsageError
from edgeemo.reading import check_regular

PREFIX = "edgeemo_"  # by which scanners for leaked secrets can know a key
MAX_BYTES = 2**20
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
LINE = re.compile(rf"({NAME.pattern})\s+sha256:([0-9a-f]{{64}})")


class Keys:
    """The hashes of keys, by the names of their owners."""

    def __init__(self, hashes: dict[str, str]) -> None:
        self._hashes = hashes

    def __len__(self) -> int:
        return len(self._hashes)

    def find(self, key: str) -> str | None:
        """Return the name of a key's owner; None for an unknown one. Takes as long for every key."""
        digest, owner = _hash(key), None
        for name, stored in self._hashes.items():
            if hmac.compare_digest(digest, stored):
                owner = name
        return owner


def make_key(name: str) -> tuple[str, str]:
    """Return a new key and its line for the file of keys; UsageError for a name that a line cannot have."""
    if not NAME.fullmatch(name):
        raise UsageError(f"--make-key {name!r}: expected a name of letters, digits, dots, dashes and underscores")
    key = PREFIX + secrets.token_urlsafe(32)
    return key, f"{name} sha256:{_hash(key)}"


def read_keys(file: Path) -> Keys:
    """Read a file of keys, one `NAME sha256:HASH` per line; empty lines and comments, from #, are skipped.

    Raises UsageError for a file that cannot be read, another line, a name twice, or no key.
    """
    try:
        check_regular(file, max_bytes=MAX_BYTES)
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UsageError(f"--api-keys {file}: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(f"--api-keys {file}: {error}") from error
    hashes: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        if not (found := LINE.fullmatch(text)):
            raise UsageError(
                f"{file}, line {number}: expected NAME sha256:HASH, as  edgeemo serve --make-key NAME  prints"
            )
        if found[1] in hashes:
            raise UsageError(f"{file}, line {number}: {found[1]} is there twice; give each key a name of its own")
        hashes[found[1]] = found[2]
    if not hashes:
        raise UsageError(f"{file} has no key, so nobody could use the server; make one:  edgeemo serve --make-key NAME")
    return Keys(hashes)


def _hash(key: str) -> str:
    return sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
