"""FER+: FER2013's faces with ten crowd votes each (Barsoum et al., arXiv 1608.01041).

Two layouts are supported, each as a folder or an archive: the folders that Microsoft's tools write (FER2013Train/, …,
each with a label.csv), and Kaggle's table of faces next to Microsoft's fer2013new.csv, with rows in the same order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from edgeemo.data.layouts import fer2013, holdout
from edgeemo.data.layouts.codes import FER2013
from edgeemo.data.layouts.fer2013 import USAGE, Row
from edgeemo.data.layouts.tables import iterate_records, iterate_rows
from edgeemo.data.layouts.tree import Tree
from edgeemo.data.sample import DataSet, Sample, log_once, raise_faults
from edgeemo.errors import DataError
from edgeemo.labels import FERPLUS8
from edgeemo.names import escape_name

COLUMNS = (*FERPLUS8, "unknown", "NF")
FOLDERS = {"train": "FER2013Train", "valid": "FER2013Valid", "test": "FER2013Test"}
VOTES = "fer2013new.csv"
EXPECTED = f"{FOLDERS['train']}/label.csv, or {fer2013.TABLES[0]} with {VOTES}"
ANNOTATORS = 10


def open_ferplus(path: Path) -> DataSet:
    """Recognise one of the two layouts in a folder or archive, or a table of faces with the votes beside it."""
    tree, table = fer2013.open_table(path, expected=EXPECTED)
    votes = next((name for name in tree.files if name.rpartition("/")[2].lower() == VOTES), None)
    if table and votes:
        return _open_kaggle(tree, table, votes)
    root = _find_root(tree)
    if root is None:
        raise _make_layout_error(path, table)
    prefix = f"{root}/" if root else ""
    folders = {split: prefix + name for split, name in FOLDERS.items() if f"{prefix}{name}/label.csv" in tree.files}
    sources = {split: f"{folder}/label.csv" for split, folder in folders.items()}

    def read(split: str) -> list[Sample]:
        return _read_folder(tree, folders[split])

    used = tuple(f"{folder}/" for folder in folders.values())
    unused = [escape_name(name) for name in tree.files if not name.startswith(used)]
    data = DataSet(str(path), "FER+ as Microsoft's folders", sources, read, unused, tree.passed_over)
    return holdout.add_valid(data, holdout.hash_pixels)


def _find_root(tree: Tree) -> str | None:
    """Return the folder of FER2013Train and so on."""
    tables = {f"{name}/label.csv" for name in FOLDERS.values()}
    for name in tree.files:
        parts = name.split("/")
        if "/".join(parts[-2:]) in tables:
            return "/".join(parts[:-2])
    return None


def _make_layout_error(path: Path, table: str | None) -> DataError:
    if table:
        return DataError(
            f"{path} has {table} but not Microsoft's votes; expected {VOTES} beside it (github.com/microsoft/FERPlus)."
            f"  For FER2013's own labels:  --data fer2013:{path}"
        )
    return DataError(f"{path}: expected {EXPECTED}.  For images in folders by label:  --data folder:{path}")


def _read_folder(tree: Tree, folder: str) -> list[Sample]:
    table = f"{folder}/label.csv"
    present = set(tree.files)
    faults: list[str] = []
    faces: list[Sample] = []
    repeats: Counter[str] = Counter()
    for number, row in enumerate(iterate_rows(tree, table), start=1):
        if not row or (number == 1 and not any(cell.strip().isdecimal() for cell in row[2:])):
            continue  # an empty line, a header
        if len(row) != 2 + len(COLUMNS):
            faults.append(f"row {number}: {len(row)} columns, expected {2 + len(COLUMNS)} (file, box, ten votes)")
            continue
        name = row[0]
        if Path(name).name != name:
            faults.append(f"row {number}: file name {name!r} is outside its folder")
            continue
        if repeats[name]:
            faults.append(f"row {number}: {name} has votes in an earlier row already")
        repeats[name] += 1
        votes = _parse_votes(row[2:], number, faults)
        file = f"{folder}/{name}"
        faces.append(Sample(name, votes, partial(_read_image, tree, file, name, present), (tree.get_source(file),)))
    raise_faults(faults, escape_name(table))
    _report_missing_votes(faces, table)
    return faces


def _read_image(tree: Tree, file: str, name: str, present: set[str]) -> np.ndarray:
    if file not in present:
        raise DataError(f"{name} is listed in label.csv but missing; download FER+ again")
    return tree.read_image(file, name)


def _parse_votes(cells: list[str], number: int, faults: list[str]) -> dict[str, float]:
    if not all(cell.strip().isdecimal() for cell in cells):
        faults.append(f"row {number}: votes {cells} are not all non-negative integers")
        return {}
    votes = {name: float(cell) for name, cell in zip(COLUMNS, cells, strict=True) if int(cell)}
    if sum(votes.values()) > ANNOTATORS:
        faults.append(f"row {number}: {sum(votes.values()):g} votes, but a face has {ANNOTATORS} annotators")
    return votes


def _report_missing_votes(faces: list[Sample], table: str) -> None:
    short = [face.id for face in faces if sum(face.votes.values()) < ANNOTATORS]
    if short:
        count = f"{len(short)} of {len(faces)} faces"
        log_once(f"{escape_name(table)}: {count} have fewer than {ANNOTATORS} votes, such as {short[0]}")


def _open_kaggle(tree: Tree, table: str, votes: str) -> DataSet:
    found = {record["Usage"] for record in iterate_records(tree, votes, ("Usage",))}
    sources = {split: f"{table} with {votes}, usage {usage}" for split, usage in USAGE.items() if usage in found}
    unused = [escape_name(name) for name in tree.files if name not in (table, votes)]
    return DataSet(
        str(tree.path),
        "FER+ as two tables",
        sources,
        partial(_read_tables, tree, table, votes),
        unused,
        tree.passed_over,
    )


def _read_tables(tree: Tree, table: str, votes_table: str, split: str) -> list[Sample]:
    faults: list[str] = []
    faces, emotions, unnamed = [], [], 0
    for face, row in _join_rows(tree, table, votes_table):
        if face.usage != row["Usage"]:
            faults.append(f"row {face.number}: usage {face.usage!r} in {table}, {row['Usage']!r} in {votes_table}")
        elif face.emotion not in FER2013:
            faults.append(f"row {face.number}: emotion {face.emotion!r} is not a code from 0 to 6")
        elif row["Usage"] == USAGE[split] and not row["Image name"]:
            unnamed += 1  # FER+ removed these images, which show no face
        elif row["Usage"] == USAGE[split]:
            name = row["Image name"]
            votes = _parse_votes([row[column] for column in COLUMNS], face.number, faults)
            faces.append(Sample(name, votes, partial(face.read, name), (tree.get_source(table),)))
            emotions.append(FER2013[face.emotion])
    raise_faults(faults, f"{table} joined with {votes_table}")
    _check_alignment(faces, emotions, table, votes_table)
    if unnamed:
        log_once(f"{votes_table}: {unnamed} rows of {split} have no image name (no face) and are left out")
    _report_missing_votes(faces, votes_table)
    return faces


def _join_rows(tree: Tree, table: str, votes: str) -> Iterator[tuple[Row, dict[str, str]]]:
    right = iterate_records(tree, votes, ("Usage", "Image name", *COLUMNS))
    try:
        yield from zip(fer2013.iterate_faces(tree, table), right, strict=True)
    except ValueError as error:
        raise DataError(f"{table} and {votes} do not have the same number of rows; use both as downloaded") from error


def _check_alignment(samples: list[Sample], emotions: list[str], table: str, votes: str) -> None:
    """Raise DataError if votes and faces do not match.

    FER2013's own label wins the FER+ vote for about two thirds of the faces; if rows are shifted, for a fifth.
    """
    agree = sum(
        max(sample.votes, key=lambda name: sample.votes[name]) == emotion
        for sample, emotion in zip(samples, emotions, strict=True)
        if sample.votes
    )
    if samples and agree < 0.5 * len(samples):
        raise DataError(
            f"the rows of {table} and {votes} do not match: only {agree} of {len(samples)} "
            f"labels agree; use both files as downloaded, in their original order"
        )
