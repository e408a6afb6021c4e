"""A CSV table with the columns image, x, y, width and height: a row per face.

An image without faces is a row whose other cells are empty. A column `ignored` with 1 marks faces that do not count.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

from edgeemo.data.boxes.labelled import Collector, LabelledImage, parse_numbers, show
from edgeemo.errors import DataError

BOX = ("x", "y", "width", "height")
IGNORED = "ignored"
FLAGS = {"": False, "0": False, "1": True}


def read(path: Path, text: str) -> list[LabelledImage]:
    """Return the images in the order of their first row; the columns may have any order.

    Raises DataError for a row that is not of the format, with the number of its line.
    """
    collector = Collector()
    empty: set[str] = set()
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        head = [cell.strip().casefold() for cell in next(rows, [])]
        if missing := [name for name in ("image", *BOX) if name not in head]:
            raise DataError(f"{path}, line 1: expected the columns image, {', '.join(BOX)}; lacks {', '.join(missing)}")
        if repeated := [name for name in ("image", *BOX, IGNORED) if head.count(name) > 1]:
            raise DataError(f"{path}, line 1: expected each column once; has several of {', '.join(repeated)}")
        for row in rows:
            where = f"{path}, line {rows.line_num}"
            if row and len(row) != len(head):
                raise DataError(f"{where}: expected {len(head)} cells, as in the first line, found {len(row)}")
            if row:
                _read_row(collector, empty, dict(zip(head, row, strict=True)), where)
    except csv.Error as error:
        raise DataError(f"{path}, line {rows.line_num}: not CSV ({error})") from error
    return collector.finish(path)


def _read_row(collector: Collector, empty: set[str], cells: dict[str, str], where: str) -> None:
    """Add a row; `empty`: images without faces so far."""
    name, box, flag = cells["image"].strip(), [cells[column].strip() for column in BOX], cells.get(IGNORED, "").strip()
    image = collector.get(name)
    if flag not in FLAGS:
        raise DataError(f"{where}: expected {IGNORED} as 0 or 1, found {show(flag)}")
    if not any(box):
        empty.add(collector.add_image(name, where).name)
        return
    image = image or collector.add_image(name, where)
    if image.name in empty:
        raise DataError(f"{where}: a face in {show(name)}, which has none at {image.where}; leave one of them out")
    collector.add_box(image, parse_numbers(box, where), where, ignored=FLAGS[flag])
