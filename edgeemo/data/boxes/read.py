"""Read a file of labelled boxes, by its ending."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgeemo.data.boxes import coco, table, wider
from edgeemo.data.boxes.labelled import LabelledImage
from edgeemo.errors import DataError, known
from edgeemo.limits import check_shortage
from edgeemo.reading import check_regular

MAX_BYTES = 1 << 28  # the boxes of WIDER FACE have less than a hundredth
FORMATS = {".txt": "wider", ".json": "coco", ".csv": "csv"}
READERS: dict[str, Callable[[Path, str], list[LabelledImage]]] = {
    "wider": wider.read,
    "coco": coco.read,
    "csv": table.read,
}


def read_boxes(path: Path) -> list[LabelledImage]:
    """Return the images of a file in order, with their boxes: WIDER FACE's text (.txt), COCO's JSON or CSV.

    Of a box that an image has twice, the first counts; the log says how many were left out. Raises UsageError for
    another ending; DataError, with file and line, for a file that cannot be read or is not of the format of its ending,
    an image that is there twice, and a box without a size.
    """
    if path.suffix.lower() not in FORMATS:
        raise known("format of labelled boxes", path.suffix or path.name, FORMATS)
    try:
        check_regular(path, max_bytes=MAX_BYTES)
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        check_shortage(error)
        raise DataError(f"{path} cannot be read ({error.strerror}); expected a file of labelled boxes") from error
    except ValueError as error:
        raise DataError(f"{path} cannot be read ({error}); expected text in UTF-8") from error
    return READERS[FORMATS[path.suffix.lower()]](path, text)
