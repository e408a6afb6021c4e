"""FER2013 with its own seven labels, one per face (Goodfellow et al., arXiv 1307.0414).

Kaggle's tables fer2013.csv, icml_face_data.csv and train.csv, alone, in a folder or in an archive, or its images in
folders by split and label.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from edgeemo.data.layouts import folder, holdout
from edgeemo.data.layouts.codes import FER2013
from edgeemo.data.layouts.tables import iterate_records, read_columns
from edgeemo.data.layouts.tree import FolderTree, Tree, is_archive, open_tree
from edgeemo.data.sample import SPLITS, DataSet, Sample, raise_faults
from edgeemo.errors import DataError
from edgeemo.names import escape_name

TABLES = ("fer2013.csv", "icml_face_data.csv", "train.csv")  # the last has the training faces alone
USAGE = {"train": "Training", "valid": "PublicTest", "test": "PrivateTest"}
COLUMNS = ("emotion", "pixels", "Usage")
EXPECTED = f"{', '.join(TABLES[:-1])}, {TABLES[-1]} or {folder.EXPECTED}"
SHOWN = 20  # characters of an unknown usage
SIDE = 48  # pixels of a FER2013 face


@dataclass(frozen=True)
class Row:
    """A row of the table of faces."""

    number: int  # in the file, from 2
    usage: str
    emotion: str  # a code of FER2013
    pixels: str

    def read(self, name: str) -> np.ndarray:
        """Return the (48, 48) uint8 face; raise DataError with its name if the pixels are invalid."""
        return parse_pixels(self.pixels, name)


def open_fer2013(path: Path) -> DataSet:
    """Recognise a table, or folders by split and label, in a folder or archive, or a table itself."""
    tree, table = open_table(path)
    if table is None:
        return folder.interpret(tree, codes=FER2013)
    found = _find_usages(tree, table)
    sources = {split: f"{table}, usage {USAGE[split]}" for split in SPLITS if USAGE[split] in found}
    if not sources:
        shown = ", ".join(sorted(repr(usage[:SHOWN]) for usage in found)[:3]) or "no rows"
        raise DataError(f"{table}: expected the usages {', '.join(USAGE.values())}, got {shown}; use it as downloaded")
    unused = [escape_name(name) for name in tree.files if name != table]
    data = DataSet(
        str(path), "FER2013's table of faces", sources, partial(_read_split, tree, table), unused, tree.passed_over
    )
    return holdout.add_valid(data, holdout.hash_pixels)


def open_table(path: Path, *, expected: str = EXPECTED) -> tuple[Tree, str | None]:
    """Return the tree that a path names, and its table of faces, or None if it has none.

    A path to a table stands for its folder, with this table.
    """
    if path.is_file() and not is_archive(path) and path.suffix.lower() == ".csv":
        return _make_flat_tree(path), path.name
    tree = open_tree(path, expected=expected)
    names = {name.rpartition("/")[2].lower(): name for name in reversed(tree.files)}
    return tree, next((names[table] for table in TABLES if table in names), None)


def _make_flat_tree(table: Path) -> Tree:
    """Return the folder of a table, with the files directly inside it only: the rest may be anything."""
    return FolderTree(table.parent, deep=False)


def iterate_faces(tree: Tree, table: str) -> Iterator[Row]:
    """Yield the rows of a table of faces; the one of train.csv has no usages and holds training faces only."""
    columns = COLUMNS if "usage" in read_columns(tree, table) else COLUMNS[:2]
    for number, record in enumerate(iterate_records(tree, table, columns), start=2):
        usage = _normalize_usage(record["Usage"]) if "Usage" in record else USAGE["train"]
        yield Row(number, usage, record["emotion"].strip(), record["pixels"])


def parse_pixels(pixels: str, name: str) -> np.ndarray:
    """Return (48, 48) uint8 from 2,304 numbers in text; raise DataError with the name of the face."""
    try:
        values = np.array(pixels.split(), dtype=np.int64)
    except (ValueError, OverflowError) as error:
        raise DataError(f"{name}: expected integer pixels from 0 to 255 ({error})") from error
    if values.size != SIDE * SIDE or values.min() < 0 or values.max() > 255:
        raise DataError(f"{name}: expected {SIDE * SIDE} pixels from 0 to 255, got {values.size}")
    return values.astype(np.uint8).reshape(SIDE, SIDE)


def _normalize_usage(cell: str) -> str:
    """Return a usage as in USAGE, whatever its case."""
    return next((usage for usage in USAGE.values() if usage.casefold() == cell.strip().casefold()), cell.strip())


def _find_usages(tree: Tree, table: str) -> set[str]:
    if "usage" not in read_columns(tree, table):
        return {USAGE["train"]}
    return {_normalize_usage(record["Usage"]) for record in iterate_records(tree, table, ("Usage",))}


def _read_split(tree: Tree, table: str, split: str) -> list[Sample]:
    faults: list[str] = []
    samples = []
    for row in iterate_faces(tree, table):
        if row.emotion not in FER2013:
            faults.append(f"row {row.number}: emotion {row.emotion!r} is not a code from 0 to 6")
        elif row.usage not in USAGE.values():
            faults.append(f"row {row.number}: usage {row.usage!r} is not one of {', '.join(USAGE.values())}")
        elif row.usage == USAGE[split]:
            name = f"fer{row.number - 2:07d}.png"  # as FER+ names the faces
            source = tree.get_source(table)
            samples.append(Sample(name, {FER2013[row.emotion]: 1.0}, partial(row.read, name), (source,)))
    raise_faults(faults, escape_name(table))
    return samples
