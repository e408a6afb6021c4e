"""What the readers of labelled boxes return, and the checks that they share."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path, PurePosixPath

from edgeemo.errors import DataError
from edgeemo.faces.detection import Box
from edgeemo.names import escape_name

log = logging.getLogger(__name__)
SHOWN = 60  # characters of foreign text in an error


@dataclass(frozen=True)
class LabelledBox:
    """One face: x, y, width and height in pixels of the upright image; (0, 0) is its top left corner.

    ignored: the face counts neither as missed nor as false, because it is too hard or one of a crowd.
    """

    box: Box
    where: str  # file and line, for errors
    ignored: bool = False


@dataclass
class LabelledImage:
    """An image and all of its faces; without boxes it shows none."""

    name: str  # relative to the folder of the images, with slashes
    where: str
    size: tuple[int, int] | None = None  # width and height of the upright image, if the file states them
    boxes: list[LabelledBox] = field(default_factory=list)


class Collector:
    """The images of a file in order, checked as they come."""

    def __init__(self) -> None:
        self._images: dict[str, LabelledImage] = {}
        self._boxes: dict[tuple[str, Box], str] = {}  # where each box of an image is first
        self._repeated: list[str] = []  # where boxes are that their image had already

    def add_image(self, name: str, where: str, size: tuple[int, int] | None = None) -> LabelledImage:
        """Add an image; raise DataError if it is in the file already, or would be outside the folder of the images."""
        path = PurePosixPath(name)
        if not name.strip() or path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
            raise DataError(f"{where}: expected the name of an image inside the folder of images, found {show(name)}")
        if (known := self._images.get(str(path))) is not None:
            raise DataError(f"{where}: {show(name)} is there twice, first at {known.where}; leave one of them out")
        self._images[str(path)] = LabelledImage(str(path), where, size)
        return self._images[str(path)]

    def get(self, name: str) -> LabelledImage | None:
        """Return an image that was added."""
        return self._images.get(str(PurePosixPath(name)))

    def add_box(self, image: LabelledImage, numbers: list[float], where: str, *, ignored: bool = False) -> None:
        """Add a box to its image, unless the image has the same one already; raise DataError if it has no size."""
        x, y, width, height = numbers
        if not all(map(isfinite, numbers)) or width <= 0 or height <= 0:
            raise DataError(f"{where}: expected a box with a width and height above 0 px, found {_format(numbers)}")
        box = (x, y, width, height)
        if (first := self._boxes.setdefault((image.name, box), where)) != where:
            self._repeated.append(f"{where}: the same as at {first}")
            return
        image.boxes.append(LabelledBox(box, where, ignored))

    def finish(self, file: Path) -> list[LabelledImage]:
        """Return the images, and log how many boxes were left out; raise DataError if there is no image."""
        if not self._images:
            raise DataError(f"{file} names no image; expected labelled boxes of at least one")
        if self._repeated:
            boxes = f"{len(self._repeated):,} box{'es'[: 2 * (len(self._repeated) != 1)]}"
            log.warning("%s: left out %s repeated in an image, first at %s", file, boxes, self._repeated[0])
        return list(self._images.values())


def check_inside(image: LabelledImage, width: int, height: int) -> None:
    """Raise DataError if the upright image has another size than stated, or a box that counts lies outside of it.

    Boxes may extend over the edges of the image.
    """
    if image.size not in (None, (width, height)):
        stated = "x".join(map(str, image.size or ()))
        raise DataError(
            f"{image.where}: {show(image.name)} is {width}x{height} px when upright, expected {stated}; boxes must be "
            "those of the upright image"
        )
    for one in image.boxes:
        x, y, across, down = one.box
        if not one.ignored and not (-across < x < width and -down < y < height):
            raise DataError(
                f"{one.where}: the box {_format(one.box)} lies outside of {show(image.name)}, {width}x{height} px; "
                "expected x, y, width, height in pixels"
            )


def parse_numbers(cells: list[str], where: str) -> list[float]:
    """Return finite numbers; raise DataError for any other text."""
    try:
        numbers = [float(cell) for cell in cells]
    except ValueError:
        numbers = []
    if not numbers or not all(map(isfinite, numbers)):
        raise DataError(f"{where}: expected numbers, found {show(' '.join(cells))}")
    return numbers


def show(text: object) -> str:
    """Return foreign text for an error, shortened and without control characters."""
    escaped = escape_name(str(text))
    return repr(escaped if len(escaped) <= SHOWN else escaped[:SHOWN] + "…")


def _format(numbers: list[float] | Box) -> str:
    return " ".join(f"{one:g}" for one in numbers)
