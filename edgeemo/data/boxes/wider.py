"""The text format of WIDER FACE: wider_face_train_bbx_gt.txt, wider_face_val_bbx_gt.txt.

    0--Parade/0_Parade_marchingband_1_849.jpg      the image
    1                                              its number of faces
    449 330 122 149 0 0 0 0 0 0                    x, y, width, height, blur, expression, illumination, invalid, ...

An image without faces has the number 0 and, in the original files, a line of zeros.
"""

from __future__ import annotations

from pathlib import Path

from edgeemo.data.boxes.labelled import Collector, LabelledBox, LabelledImage, parse_numbers, show
from edgeemo.errors import DataError
from edgeemo.names import is_image_name

COLUMNS = (4, 10)  # of a box, without or with its attributes
MAX_DIGITS = 9  # of a number of faces
INVALID = 7  # column of the flag of faces that the authors of WIDER FACE leave out


def read(path: Path, text: str) -> list[LabelledImage]:
    """Return the images; boxes that are marked as invalid, or have no width or height, are ignored.

    Raises DataError for a line that is not of the format, with its number.
    """
    lines = [line.strip() for line in text.rstrip().split("\n")] if text.strip() else []
    collector = Collector()
    at = 0
    while at < len(lines):
        at = _read_image(path, lines, at, collector)
    return collector.finish(path)


def _read_image(path: Path, lines: list[str], at: int, collector: Collector) -> int:
    """Read an image with its boxes from line `at`, from 0; return the number of the line after them."""
    name, where = lines[at], _name_line(path, at)
    if not is_image_name(name):
        raise DataError(f"{where}: expected the name of an image, found {show(name)}; is the number of faces right?")
    image = collector.add_image(name, where)
    count = _get_line(path, lines, at + 1)
    if not (count.isascii() and count.isdecimal() and len(count) <= MAX_DIGITS):
        raise DataError(f"{_name_line(path, at + 1)}: expected the number of faces, found {show(count)}")
    first = at + 2
    for number in range(first, first + int(count)):
        _read_box(collector, image, _get_line(path, lines, number), _name_line(path, number))
    if int(count) == 0 and first < len(lines) and set(lines[first].split()) == {"0"}:
        return first + 1
    return first + int(count)


def _read_box(collector: Collector, image: LabelledImage, line: str, where: str) -> None:
    cells = line.split()
    if len(cells) not in COLUMNS:
        raise DataError(f"{where}: expected a box, {' or '.join(map(str, COLUMNS))} numbers, found {show(line)}")
    numbers = parse_numbers(cells, where)
    if min(numbers[2:4]) == 0:  # so that a file with such faces can be used
        image.boxes.append(LabelledBox((numbers[0], numbers[1], 0.0, 0.0), where, ignored=True))
        return
    collector.add_box(image, numbers[:4], where, ignored=len(numbers) > INVALID and numbers[INVALID] != 0)


def _get_line(path: Path, lines: list[str], at: int) -> str:
    if at >= len(lines):
        raise DataError(f"{path} ends after line {len(lines)}, in the middle of an image; is the file complete?")
    return lines[at]


def _name_line(path: Path, at: int) -> str:
    return f"{path}, line {at + 1}"
