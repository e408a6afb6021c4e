"""Read files that others wrote: regular ones only, up to a size, and JSON that no two readers read differently."""

from __future__ import annotations

import errno
import itertools
import json
import stat
from pathlib import Path
from typing import Any

SHOWN = 60  # characters of a foreign text in a message


def read_json(path: Path, *, max_bytes: int) -> Any:
    """Read the JSON of a regular file.

    Raises OSError for what is not a regular file, or cannot be read; ValueError for a file over `max_bytes`, which is
    not read, for what is not JSON in UTF-8 or nested too deeply, and for a key that an object has twice, of which
    readers take one or the other.
    """
    check_regular(path, max_bytes=max_bytes)
    with path.open("rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:  # it has grown meanwhile
        raise ValueError(f"it has more than {max_bytes:,} bytes")
    return parse_json(content)


def parse_json(content: bytes) -> Any:
    """Parse JSON; ValueError for what is not JSON in UTF-8 or nested too deeply, and for a key twice in an object."""
    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=_make_object)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def check_regular(path: Path, *, max_bytes: int) -> None:
    """Raise OSError unless `path` is a regular file, ValueError if it has more than `max_bytes`; nothing is read."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        kind = errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.EINVAL
        raise OSError(kind, f"it is a {_name_mode(status.st_mode)}; expected a regular file", str(path))
    if status.st_size > max_bytes:
        raise ValueError(f"it has {status.st_size:,} bytes; expected at most {max_bytes:,}")


def _name_mode(mode: int) -> str:
    return {stat.S_IFDIR: "folder", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}.get(stat.S_IFMT(mode), "device")


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = sorted(name for name, _ in pairs)
        twice = next(one for one, other in itertools.pairwise(names) if one == other)
        raise ValueError(f"it has the key {twice[:SHOWN]!r} twice in one object")
    return made
