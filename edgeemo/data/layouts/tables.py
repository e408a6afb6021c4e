"""CSV tables of data sets, read row by row."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from edgeemo.data.layouts.tree import Tree, reading_table
from edgeemo.data.sample import NOT_A_TABLE
from edgeemo.errors import DataError
from edgeemo.names import escape_name

MAX_CELL = 1 << 20  # characters; a FER2013 face has 9,216 at most


def iterate_rows(tree: Tree, name: str, *, delimiter: str = ",") -> Iterator[list[str]]:
    """Yield the rows of a table in UTF-8, with or without a byte order mark."""
    with reading_table(tree, name) as stream:
        try:
            yield from _make_reader(stream, delimiter)
        except NOT_A_TABLE as error:
            raise DataError(
                f"{escape_name(name)} is not a CSV file in UTF-8 ({error}); use the file as downloaded"
            ) from error


def iterate_records(tree: Tree, name: str, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    """Yield each row as the cells of `columns`; a missing cell is empty.

    Spaces around a name in the header and its case do not matter. Raises DataError if a column is missing.
    """
    rows = iterate_rows(tree, name)
    head = [_normalize(cell) for cell in next(rows, [])]
    if missing := [column for column in columns if _normalize(column) not in head]:
        raise DataError(f"{escape_name(name)} lacks the columns {missing}; use the file as downloaded")
    positions = {column: head.index(_normalize(column)) for column in columns}
    for row in rows:
        if row:
            yield {column: row[k] if k < len(row) else "" for column, k in positions.items()}


def read_columns(tree: Tree, name: str) -> list[str]:
    """Return the names in the header of a table, in lower case without spaces around them."""
    return [_normalize(cell) for cell in next(iterate_rows(tree, name), [])]


def _normalize(column: str) -> str:
    return column.strip().casefold()


def _make_reader(stream: BinaryIO, delimiter: str) -> Iterator[list[str]]:
    csv.field_size_limit(MAX_CELL)
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    return csv.reader(_iterate_lines(text), delimiter=delimiter)


def _iterate_lines(text: io.TextIOWrapper) -> Iterator[str]:
    """Yield lines; raise csv.Error for one that is too long to be of a table, before it fills the memory."""
    while line := text.readline(MAX_CELL):
        if len(line) == MAX_CELL:
            raise csv.Error(f"a line has more than {MAX_CELL:,} characters")
        yield line
