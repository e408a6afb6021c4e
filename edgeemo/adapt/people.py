"""Who is on each face: by folder, by a pattern in the file name, or by a column of a table."""

from __future__ import annotations

import csv
import re
from pathlib import Path, PurePosixPath

from edgeemo.errors import DataError, UsageError
from edgeemo.labels import normalize_label
from edgeemo.names import escape_name
from edgeemo.reading import check_regular

KINDS = "folder, name:PATTERN or csv:FILE[:COLUMN]"
COLUMN = "person"
IMAGE_COLUMNS = ("image", "path", "file", "name")
MAX_TABLE_BYTES = 64 * 2**20
SHOWN = 3  # faces in an error
SHOWN_NAME = 60  # characters of a name in an error


def find_people(spec: str, ids: list[str], labels: tuple[str, ...]) -> list[str]:
    """Return a name per face, from the ids of a data set; labels: those of the model, whose folders are no person's.

    Raises UsageError for an unknown `spec`, DataError for a face without a person.
    """
    kind, _, rest = spec.partition(":")
    if kind == "folder" and not rest:
        found = [_read_folder(one, labels) for one in ids]
        advice = "expected LABEL/PERSON/FACE.png, or another way with --people: name:PATTERN or csv:FILE"
    elif kind == "name" and rest:
        found = _match_names(rest, ids)
        advice = f"no match of {rest!r} in the file name"
    elif kind == "csv" and rest:
        found = _read_table(rest, ids)
        advice = f"no row of {rest} has this file, or its person is empty"
    else:
        raise UsageError(f"--people {spec}: expected {KINDS}")
    if missing := [one for one, person in zip(ids, found, strict=True) if not person]:
        shown = ", ".join(map(escape_name, missing[:SHOWN])) + (", …" if len(missing) > SHOWN else "")
        raise DataError(f"{len(missing)} of {len(ids)} faces have no person: {shown}; {advice}")
    return found


def _read_folder(one: str, labels: tuple[str, ...]) -> str:
    """Return the folder below that of the label, which is the first with a label's name; empty if there is none."""
    folders = PurePosixPath(one).parent.parts
    below = [place + 1 for place, folder in enumerate(folders) if normalize_label(folder) in labels]
    return folders[below[0]] if below and below[0] < len(folders) else ""


def _match_names(pattern: str, ids: list[str]) -> list[str]:
    """Return the first group of a regular expression, or all that matches, in each file name."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"--people name:{pattern}: not a valid regular expression: {error}") from error
    matches = [compiled.search(PurePosixPath(one).name) for one in ids]
    return [(match[1] if match.re.groups else match[0]) or "" if match else "" for match in matches]


def _read_table(rest: str, ids: list[str]) -> list[str]:
    """Return the column of a table in which a row names each file, by its id or by its name alone."""
    try:
        path, column = (Path(rest), COLUMN) if Path(rest).exists() or ":" not in rest else _split(rest)
    except OSError as error:
        raise DataError(f"{rest[:SHOWN_NAME]}… cannot be read as a table: {error.strerror}") from error
    try:
        check_regular(path, max_bytes=MAX_TABLE_BYTES)
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, ValueError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{path} cannot be read as a table: {reason}") from error
    columns = list(rows[0]) if rows else []
    image = next((name for name in IMAGE_COLUMNS if name in columns), None)
    if column not in columns or image is None:
        expected = f"a column {column!r} and one of {', '.join(IMAGE_COLUMNS)}"
        raise DataError(f"{path}: expected {expected}; got {', '.join(map(str, columns)) or 'no row'}")
    by_id: dict[str, set[str]] = {}
    for row in rows:
        name = PurePosixPath((row[image] or "").replace("\\", "/"))
        for key in {str(name), name.name}:
            by_id.setdefault(key, set()).add((row[column] or "").strip())
    return [_pick(path, one, by_id) for one in ids]


def _split(rest: str) -> tuple[Path, str]:
    path, _, column = rest.rpartition(":")
    return Path(path), column


def _pick(path: Path, one: str, by_id: dict[str, set[str]]) -> str:
    parts = PurePosixPath(one).parts
    names = ["/".join(parts[start:]) for start in range(len(parts))]  # from the whole id to the file name
    found = next((by_id[name] for name in names if name in by_id), {""})
    if len(found) > 1:
        raise DataError(f"{path} has several people for {escape_name(one)}: {', '.join(sorted(found))}")
    return next(iter(found))
