"""FER+: FER2013's faces with ten crowd votes each (Barsoum et al., arXiv 1608.01041).

Two layouts are supported: the folders that Microsoft's tools write (FER2013Train/, …, each with a label.csv; as a
folder or a zip), and Kaggle's fer2013.csv next to Microsoft's fer2013new.csv, with rows in the same order.
"""

from __future__ import annotations

import csv
import io
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from edgeemo import images
from edgeemo.data.sample import NoSuchSplit, Sample
from edgeemo.errors import DataError
from edgeemo.labels import FERPLUS8

COLUMNS = (*FERPLUS8, "unknown", "NF")
FOLDERS = {"train": "FER2013Train", "valid": "FER2013Valid", "test": "FER2013Test"}
USAGE = {"train": "Training", "valid": "PublicTest", "test": "PrivateTest"}
# fer2013.csv's codes
KAGGLE = {"0": "anger", "1": "disgust", "2": "fear", "3": "happiness", "4": "sadness", "5": "surprise", "6": "neutral"}
SIDE = 48  # pixels of a FER2013 face
SHOWN = 20  # faulty rows listed in one error

Root = Path | zipfile.Path

# Errors of a damaged zip, by the damaged field: checksum, stream, length, method, encryption flag, name.
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError)
NOT_A_TABLE = (UnicodeDecodeError, csv.Error)


def samples(path: Path, split: str) -> list[Sample]:
    """Return the faces of one split, in file order; raise DataError for an unknown layout or faulty rows."""
    if not path.exists():
        raise DataError(f"{path} does not exist; expected FER+ as a folder or zip with {FOLDERS['train']}/label.csv")
    if (path / "fer2013.csv").is_file():
        return _read_kaggle(path, split)
    root = path if path.is_dir() else _open_zip(path)
    table = root / FOLDERS[split] / "label.csv"
    if not table.is_file():
        raise NoSuchSplit(
            f"{path} has no {FOLDERS[split]}/label.csv and no fer2013.csv with fer2013new.csv; "
            f"expected one of the two FER+ layouts"
        )
    return _read_folder(root / FOLDERS[split], _parse_table(_read_bytes(table), f"{FOLDERS[split]}/label.csv"))


def _open_zip(path: Path) -> zipfile.Path:
    try:
        return zipfile.Path(path)
    except DAMAGE as error:
        raise DataError(f"{path} is neither a folder nor an intact zip ({error}); download it again") from error


def _read_bytes(file: Root) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{file.name} is listed in label.csv but missing; download FER+ again") from error
    except DAMAGE as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(f"{file.name} cannot be read ({why}); download FER+ again") from error


def _parse_table(content: bytes, name: str) -> list[list[str]]:
    try:
        return list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    except NOT_A_TABLE as error:
        raise DataError(f"{name} is not a CSV file in UTF-8 ({error}); use the file as downloaded") from error


def _read_folder(folder: Root, table: list[list[str]]) -> list[Sample]:
    faults: list[str] = []
    faces = []
    for number, row in enumerate(table, start=1):
        if len(row) != 2 + len(COLUMNS):
            faults.append(f"row {number}: {len(row)} columns, expected {2 + len(COLUMNS)} (file, box, ten votes)")
            continue
        if Path(row[0]).name != row[0]:
            faults.append(f"row {number}: file name {row[0]!r} is outside its folder")
            continue
        votes = _parse_votes(row[2:], number, faults)
        faces.append(Sample(row[0], votes, partial(_read_image, folder / row[0])))
    _raise_faults(faults, f"{folder.name}/label.csv")
    return faces


def _read_image(file: Root) -> np.ndarray:
    return images.read(_read_bytes(file), name=file.name)


def _parse_votes(cells: list[str], number: int, faults: list[str]) -> dict[str, float]:
    if not all(cell.strip().isdecimal() for cell in cells):
        faults.append(f"row {number}: votes {cells} are not all non-negative integers")
        return {}
    return {name: float(cell) for name, cell in zip(COLUMNS, cells, strict=True) if int(cell)}


def _raise_faults(faults: list[str], table: str) -> None:
    if faults:
        more = f"\n  … and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise DataError(f"{table} has {len(faults)} faulty rows:\n  " + "\n  ".join(faults[:SHOWN]) + more)


def _read_kaggle(path: Path, split: str) -> list[Sample]:
    votes_table = path / "fer2013new.csv"
    if not votes_table.is_file():
        raise DataError(
            f"{path} has fer2013.csv but not fer2013new.csv with the FER+ votes; download it from microsoft/FERPlus"
        )
    faults: list[str] = []
    faces, emotions = [], []
    for number, (face, row) in enumerate(_join_rows(path / "fer2013.csv", votes_table), start=2):
        if face["Usage"] != row["Usage"]:
            faults.append(f"row {number}: usage {face['Usage']!r} in fer2013.csv, {row['Usage']!r} in fer2013new.csv")
        elif face["emotion"].strip() not in KAGGLE:
            faults.append(f"row {number}: emotion {face['emotion']!r} is not a code from 0 to 6")
        elif row["Usage"] == USAGE[split] and row["Image name"]:
            votes = _parse_votes([row[name] for name in COLUMNS], number, faults)
            faces.append(Sample(row["Image name"], votes, partial(_decode_pixels, face["pixels"], row["Image name"])))
            emotions.append(KAGGLE[face["emotion"].strip()])
    _raise_faults(faults, "fer2013.csv joined with fer2013new.csv")
    _check_alignment(faces, emotions)
    return faces


def _join_rows(faces: Path, votes: Path) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    csv.field_size_limit(1 << 20)
    left = _iterate_rows(faces, {"emotion", "pixels", "Usage"})
    right = _iterate_rows(votes, {"Usage", "Image name", *COLUMNS})
    try:
        yield from zip(left, right, strict=True)
    except ValueError as error:
        raise DataError(
            f"{faces.name} and {votes.name} do not have the same number of rows; use both as downloaded"
        ) from error


def _iterate_rows(file: Path, columns: set[str]) -> Iterator[dict[str, str]]:
    """Yield the rows one by one (fer2013.csv has 300 MB); missing cells of a short row are empty."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            table = csv.DictReader(stream, restval="")
            if missing := columns - set(table.fieldnames or ()):
                raise DataError(f"{file.name} lacks the columns {sorted(missing)}; use the file as downloaded")
            yield from table
    except NOT_A_TABLE as error:
        raise DataError(f"{file.name} is not a CSV file in UTF-8 ({error}); use the file as downloaded") from error


def _decode_pixels(pixels: str, name: str) -> np.ndarray:
    try:
        values = np.array(pixels.split(), dtype=np.int64)
    except (ValueError, OverflowError) as error:
        raise DataError(f"{name}: expected integer pixels from 0 to 255 ({error})") from error
    if values.size != SIDE * SIDE or values.min() < 0 or values.max() > 255:
        raise DataError(f"{name}: expected {SIDE * SIDE} pixels from 0 to 255, got {values.size}")
    return values.astype(np.uint8).reshape(SIDE, SIDE)


def _check_alignment(samples: list[Sample], emotions: list[str]) -> None:
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
            f"the rows of fer2013.csv and fer2013new.csv do not match: only {agree} of {len(samples)} "
            f"labels agree; use both files as downloaded, in their original order"
        )
