"""RAF-DB's basic emotions (Li et al., CVPR 2017), as its authors distribute them or in folders by split and label.

The authors' layout is EmoLabel/list_patition_label.txt, with a file name and a code from 1 to 7 in each row, and the
aligned faces in Image/aligned/, train_00001_aligned.jpg for train_00001.jpg.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from edgeemo.data.layouts import folder, holdout
from edgeemo.data.layouts.codes import RAFDB
from edgeemo.data.layouts.tables import iterate_rows
from edgeemo.data.layouts.tree import Tree, open_tree
from edgeemo.data.sample import DataSet, Sample, raise_faults
from edgeemo.errors import DataError
from edgeemo.names import escape_name

TABLES = ("list_patition_label.txt", "list_partition_label.txt")  # the first is the authors' spelling
SPLITS = ("train", "test")


def open_rafdb(path: Path) -> DataSet:
    """Recognise the authors' layout, or folders named 1 to 7 or by label; without valid, a fifth of train is valid."""
    tree = open_tree(path, expected=f"EmoLabel/{TABLES[0]} or {folder.EXPECTED}")
    table = next((name for name in tree.files if name.rpartition("/")[2].lower() in TABLES), None)
    if table is None:
        return folder.interpret(tree, codes=RAFDB)
    aligned = _find_aligned(tree)
    if not aligned:
        raise DataError(f"{path} has {table} but no *_aligned.jpg; unpack Image/aligned.zip beside it")
    used = {table, *aligned.values()}
    unused = [escape_name(name) for name in tree.files if name not in used]
    sources = {split: f"{table}, names with {split}_" for split in SPLITS}
    data = DataSet(
        str(path),
        "RAF-DB's basic emotions",
        sources,
        partial(_read_split, tree, table, aligned),
        unused,
        tree.passed_over,
    )
    return holdout.add_valid(data, holdout.hash_pixels)


def _find_aligned(tree: Tree) -> dict[str, str]:
    """Return the aligned images by the name in the table, without its suffix."""
    found = {}
    for name in tree.files:
        stem = name.rpartition("/")[2].rpartition(".")[0]
        if stem.endswith("_aligned"):
            found[stem.removesuffix("_aligned")] = name
    return found


def _read_split(tree: Tree, table: str, aligned: dict[str, str], split: str) -> list[Sample]:
    faults: list[str] = []
    samples = []
    for number, row in enumerate(iterate_rows(tree, table, delimiter=" "), start=1):
        cells = [cell for cell in row if cell]
        if not cells:
            continue
        if len(cells) != 2 or cells[1] not in RAFDB or not cells[0].startswith(SPLITS):
            faults.append(f"row {number}: {' '.join(cells)!r}; expected train_NUMBER.jpg or test_NUMBER.jpg and 1 to 7")
            continue
        name, code = cells
        if name.startswith(split):
            file = aligned.get(name.rpartition(".")[0])
            read = partial(_read_image, tree, file, name)
            samples.append(Sample(name, {RAFDB[code]: 1.0}, read, (tree.get_source(file or table),)))
    raise_faults(faults, escape_name(table))
    return samples


def _read_image(tree: Tree, file: str | None, name: str) -> np.ndarray:
    if file is None:
        raise DataError(f"{name} is listed but has no aligned image; unpack Image/aligned.zip again")
    return tree.read_image(file, name)
