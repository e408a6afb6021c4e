"""AffectNet (Mollahosseini et al., arXiv 1708.03985), as its authors distribute it or in folders by split and label.

Two layouts of the authors: train_set/ and val_set/ with images/N.jpg and annotations/N_exp.npy, and tables
(training.csv, validation.csv) with a path, the box of the face and a code for each image.
"""

from __future__ import annotations

from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np

from edgeemo.data.layouts import folder, holdout
from edgeemo.data.layouts.codes import AFFECTNET
from edgeemo.data.layouts.tables import iterate_records
from edgeemo.data.layouts.tree import Tree, open_tree, reading_table
from edgeemo.data.sample import DataSet, Sample, raise_faults
from edgeemo.errors import DataError
from edgeemo.names import IMAGE_SUFFIXES, escape_name, is_image_name

DROPPED = {"8": "unknown", "9": "unknown", "10": "NF"}  # none, uncertain, no face
CODES = {**AFFECTNET, **DROPPED}
TABLES = {"train": ("training.csv", "manually_training.csv"), "valid": ("validation.csv", "manually_validation.csv")}
PATH, CODE = "subDirectory_filePath", "expression"
BOX = ("face_x", "face_y", "face_width", "face_height")
ANNOTATION = "_exp.npy"
MAX_ANNOTATION_BYTES = 1 << 16


def open_affectnet(path: Path) -> DataSet:
    """Recognise one of the authors' layouts, or folders named 0 to 7 or by label."""
    tree = open_tree(path, expected=f"train_set/images, {TABLES['train'][0]} or {folder.EXPECTED}")
    tables = {
        split: found
        for split, names in TABLES.items()
        if (found := next((name for name in tree.files if name.rpartition("/")[2].lower() in names), None))
    }
    if tables:
        return _open_tables(tree, tables)
    annotations = _find_annotations(tree)
    return _open_annotations(tree, annotations) if annotations else folder.interpret(tree, codes=AFFECTNET)


def _open_tables(tree: Tree, tables: dict[str, str]) -> DataSet:
    images = {"/".join(name.split("/")[-2:]): name for name in tree.files if is_image_name(name)}

    def read(split: str) -> list[Sample]:
        return _read_table(tree, tables[split], images)

    unused = [escape_name(name) for name in tree.files if name not in tables.values() and not is_image_name(name)]
    data = DataSet(str(tree.path), "AffectNet's tables", dict(tables), read, unused, tree.passed_over)
    return holdout.add_valid(data, holdout.hash_pixels)


def _read_table(tree: Tree, table: str, images: dict[str, str]) -> list[Sample]:
    faults: list[str] = []
    samples = []
    for number, row in enumerate(iterate_records(tree, table, (PATH, *BOX, CODE)), start=2):
        code, name = row[CODE].strip(), row[PATH].strip()
        box = _parse_box([row[column] for column in BOX])
        if code not in CODES:
            faults.append(f"row {number}: expression {code!r} is not a code from 0 to 10")
        elif box is None:
            faults.append(f"row {number}: the box of the face is not four integers")
        else:
            file = images.get(name)
            read = partial(_read_face, tree, file, name, box)
            sources = tuple(map(tree.get_source, (table, file) if file else (table,)))  # the table has the box
            samples.append(Sample(escape_name(name), {CODES[code]: 1.0}, read, sources))
    raise_faults(faults, escape_name(table))
    return samples


def _parse_box(cells: list[str]) -> tuple[int, int, int, int] | None:
    try:
        left, top, width, height = (round(float(cell)) for cell in cells)
    except (ValueError, OverflowError):
        return None
    return left, top, width, height


def _read_face(tree: Tree, file: str | None, name: str, box: tuple[int, int, int, int]) -> np.ndarray:
    """Return the part of an image inside the box of the face, as far as it lies in the image."""
    if file is None:
        raise DataError(f"{name} is listed but missing; unpack all parts of the images below one folder")
    image = tree.read_image(file, escape_name(name))
    left, top, width, height = box
    face = image[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)]
    if 0 in face.shape:
        raise DataError(f"{name}: the box {box} lies outside the image of {image.shape[1]}x{image.shape[0]} px")
    return face


def _find_annotations(tree: Tree) -> dict[str, dict[str, str]]:
    """Return, for each split, the annotation of each image, by the image's name."""
    found: dict[str, dict[str, str]] = {}
    files = set(tree.files)
    for name in tree.files:
        parts = name.split("/")
        if len(parts) < 3 or parts[-2] != "annotations" or not name.endswith(ANNOTATION):
            continue
        split = folder.get_split(parts[-3])
        image = "/".join([*parts[:-2], "images", parts[-1].removesuffix(ANNOTATION)])
        file = next((image + suffix for suffix in IMAGE_SUFFIXES if image + suffix in files), f"{image}.jpg")
        if split:
            found.setdefault(split, {})[file] = name
    return found


def _open_annotations(tree: Tree, annotations: dict[str, dict[str, str]]) -> DataSet:
    def read(split: str) -> list[Sample]:
        return _read_annotations(tree, annotations[split])

    used = {name for pairs in annotations.values() for pair in pairs.items() for name in pair}
    unused = [escape_name(name) for name in tree.files if name not in used and ANNOTATION[-4:] not in name]
    sources = {split: f"{next(iter(pairs)).rpartition('/images/')[0]}/" for split, pairs in annotations.items()}
    data = DataSet(str(tree.path), "AffectNet's annotations", sources, read, unused, tree.passed_over)
    return holdout.add_valid(data, holdout.hash_pixels)


def _read_annotations(tree: Tree, pairs: dict[str, str]) -> list[Sample]:
    faults: list[str] = []
    samples = []
    present = set(tree.files)
    for file, annotation in pairs.items():
        code = _read_code(tree, annotation)
        if code not in CODES:
            faults.append(f"{annotation}: {code!r} is not a code from 0 to 10")
            continue
        read = partial(_read_image, tree, file, present)
        samples.append(Sample(escape_name(file), {CODES[code]: 1.0}, read, (tree.get_source(file),)))
    raise_faults(faults, "AffectNet's annotations")
    return samples


def _read_code(tree: Tree, annotation: str) -> str:
    """Return the code in an annotation, a NumPy array of one string or number."""
    with reading_table(tree, annotation) as stream:
        content = stream.read(MAX_ANNOTATION_BYTES)
    try:
        value = np.load(BytesIO(content), allow_pickle=False)
        return str(int(value.reshape(-1)[0]))
    except (ValueError, EOFError, IndexError, OSError) as error:
        raise DataError(f"{escape_name(annotation)} does not hold a code ({error}); download it again") from error


def _read_image(tree: Tree, file: str, present: set[str]) -> np.ndarray:
    if file not in present:
        raise DataError(f"{escape_name(file)} has an annotation but is missing; download the images again")
    return tree.read_image(file)
