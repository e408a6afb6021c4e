"""What labelling writes: OUT/LABEL/PERSON/NAME.png, and OUT/labels.csv with a row for each face labelled or skipped.

A row is on the disk before its crop gets its name, and a row without a crop counts for nothing: wherever the process
is killed, the next one shows the face again, and none is there twice. A crop that was moved to another label's folder
by hand has that label.
"""

from __future__ import annotations

import csv
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from glob import escape
from io import StringIO
from pathlib import Path, PurePath

import numpy as np
from PIL import Image

from edgeemo.artifact import atomic_write, make_folder, remove_leftovers, write_json
from edgeemo.card import Crop, to_json
from edgeemo.data.crop_record import RECORD, CropRecord, describe, read_crop
from edgeemo.data.label_record import COLUMNS, LABELS
from edgeemo.data.layouts.tree import open_tree
from edgeemo.errors import DataError, MachineError, UsageError
from edgeemo.faces.detection import Box
from edgeemo.faces.merge import compute_iou
from edgeemo.label.find import Candidate
from edgeemo.names import clean_stem, count, is_system_name, mark_name

log = logging.getLogger(__name__)
SAME = 0.5  # intersection over union from which two boxes are of one face; another detector or processor moves a box


@dataclass(frozen=True)
class Row:
    """A row of labels.csv. label: empty if the face was skipped. when: date and time in UTC, ISO 8601."""

    image: str
    box: Box
    person: str
    label: str
    when: str

    @property
    def name(self) -> str:
        """File name of the crop; no other face has it, whatever its label and person."""
        return f"{mark_name(clean_stem(self.image), f'{self.image}:{_format(self.box)}')}.png"

    @property
    def file(self) -> Path:
        """Path of the crop below the folder."""
        return Path(self.label, self.person, self.name)


class Store:
    """The folder of labelled crops. One process at a time may write it; its methods are for one thread at a time."""

    def __init__(self, out: Path, labels: Sequence[str], record: CropRecord | None) -> None:
        """Read what is there; nothing is written before `prepare`.

        labels: of the model. record: how the faces are cropped; None: they are ready crops.

        Raises UsageError for a folder that edgeemo label did not write, or one with other labels or crops; DataError
        for a labels.csv that cannot be read.
        """
        self.out, self._record = out, record
        self._table = out / LABELS
        self.rows: list[Row] = []
        self._size = -1  # bytes of the table
        if _is_used(out):
            self.rows = self._read(labels)
            self._check_crop()

    def prepare(self) -> None:
        """Create the folder, or drop rows of labels.csv without a crop; raise MachineError if it cannot be written."""
        make_folder(self.out)
        with atomic_write(self._table) as partial:
            partial.write_bytes(b"".join(map(_encode, [COLUMNS, *map(_to_cells, self.rows)])))
        self._size = self._table.stat().st_size
        if self._record and not (self.out / RECORD).exists():
            write_json(self.out / RECORD, to_json(self._record))

    def leave_out_known(self, candidates: Iterable[Candidate]) -> list[Candidate]:
        """Return the faces that were neither labelled nor skipped."""
        rows: dict[str, list[Row]] = defaultdict(list)
        for row in self.rows:
            rows[row.image].append(row)
        return [one for one in candidates if not any(is_same(row, one) for row in rows[one.image])]

    def count_labels(self) -> Counter[str]:
        """Return the number of labelled faces by label."""
        return Counter(row.label for row in self.rows if row.label)

    def count_people(self) -> Counter[str]:
        """Return the number of labelled faces by person."""
        return Counter(row.person for row in self.rows if row.label)

    def add(self, one: Candidate, label: str, pixels: np.ndarray) -> None:
        """Write the crop of a face under its label, with its row; an empty label skips the face.

        Raises MachineError, and leaves everything as it was, if it cannot be written; UsageError if another process
        has written labels.csv meanwhile.
        """
        row = Row(one.image, one.box, one.person, label, datetime.now(timezone.utc).isoformat(timespec="seconds"))
        self._append(row)
        if not label:
            return
        try:
            with atomic_write(self.out / row.file, sweep=False) as partial:
                Image.fromarray(pixels).save(partial, "PNG")
        except BaseException:
            self._remove_last()
            raise

    def undo(self) -> Row | None:
        """Remove the last row and its crop, and return the row; None if there is none."""
        if not self.rows:
            return None
        row = self.rows[-1]
        self._check_size()
        if row.label:
            moved = self.out.glob(f"*/*/{escape(PurePath(row.file).name)}")  # by hand, to another label's folder
            file = next(moved, self.out / row.file)
            with _explaining(file):
                file.unlink(missing_ok=True)
            for folder in (file.parent, file.parent.parent):  # an empty folder of a label is refused when it is read
                with suppress(OSError):
                    folder.rmdir()
        self._remove_last()
        return row

    def _append(self, row: Row) -> None:
        self._check_size()
        line = _encode(_to_cells(row))
        with _explaining(self._table), self._table.open("ab") as file:
            try:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                with suppress(OSError):
                    os.truncate(self._table, self._size)
                raise
        self._size += len(line)
        self.rows.append(row)

    def _remove_last(self) -> None:
        self._size -= len(_encode(_to_cells(self.rows.pop())))
        with _explaining(self._table), self._table.open("r+b") as file:
            file.truncate(self._size)
            os.fsync(file.fileno())

    def _check_size(self) -> None:
        """Raise UsageError if the table is not as this process left it."""
        with _explaining(self._table):
            size = self._table.stat().st_size
        if size != self._size:
            raise UsageError(
                f"{self._table} was changed by another program; stop, close that, and call edgeemo label again"
            )

    def _read(self, labels: Sequence[str]) -> list[Row]:
        """Return the rows whose crops are there, with the label and person of the folders in which they are."""
        rows = list(_parse(self._table))
        files = {file.name: file.relative_to(self.out) for file in self.out.glob("*/*/*.png")}
        kept = [
            replace(row, label=files[row.name].parts[0], person=files[row.name].parts[1]) if row.label else row
            for row in rows
            if not row.label or row.name in files
        ]
        if foreign := sorted({row.label for row in kept if row.label} - set(labels)):
            raise UsageError(
                f"{self.out} has faces labelled {', '.join(foreign)}, which the model does not predict; expected "
                f"{', '.join(labels)}: choose another --out, or the model that it was labelled for"
            )
        lost = [self.out / row.file for row in rows if row.label and row.name not in files]
        remove_leftovers(lost)
        if lost:
            log.warning("%s: %s without a crop, shown again", self._table, count(len(lost), "labelled face"))
        return kept

    def _check_crop(self) -> None:
        """Raise UsageError if the crops that are there were cut otherwise than those to come."""
        if not any(row.label for row in self.rows):
            return
        there = read_crop(open_tree(self.out, expected="LABEL/PERSON/*.png"))
        wanted = self._record.crop if self._record else None
        if there != wanted:
            raise UsageError(
                f"{self.out} holds {_describe(there)}, not {_describe(wanted)}; faces of one folder are cropped alike: "
                "choose another --out"
            )


def is_same(row: Row, one: Candidate) -> bool:
    """Return whether a row is about this face: of the same photo, in about the same place."""
    if row.image != one.image:
        return False
    return bool(compute_iou(np.array([row.box]), np.array([one.box]))[0, 0] > SAME)


def _is_used(out: Path) -> bool:
    """Return whether a folder was written before; raise UsageError if something else is there."""
    if not os.path.lexists(out):
        return False
    if not out.is_dir():
        raise UsageError(f"--out {out} is no folder; choose another one")
    with _explaining(out):
        names = [file.name for file in out.iterdir() if not is_system_name(file.name)]
    if names and LABELS not in names:
        raise UsageError(
            f"{out} is not empty, and not written by edgeemo label: it has no {LABELS}; choose another --out"
        )
    return LABELS in names


def _parse(table: Path) -> Iterator[Row]:
    """Yield the rows of labels.csv; a last line without its end, of a process that was killed, is left out."""
    try:
        content = table.read_bytes()
        text = content[: content.rfind(b"\n") + 1].decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{table} cannot be read ({error}); choose another --out") from error
    cells = csv.reader(StringIO(text, newline=""))
    if tuple(next(cells, ())) != COLUMNS:
        raise UsageError(
            f"{table} was not written by edgeemo label: its first line is not {','.join(COLUMNS)}; choose another --out"
        )
    for number, values in enumerate(cells, 2):
        try:
            image, box, person, label, when = values
            yield Row(image, _parse_box(box), person, label, when)
        except ValueError as error:
            raise DataError(
                f"{table}, line {number}: expected {', '.join(COLUMNS)}, got {','.join(values)!r}; correct or remove it"
            ) from error


def _parse_box(text: str) -> Box:
    x, y, width, height = map(float, text.split())
    return x, y, width, height


def _format(box: Box) -> str:
    return " ".join(f"{value:.10g}" for value in box)


def _to_cells(row: Row) -> tuple[str, ...]:
    return row.image, _format(row.box), row.person, row.label, row.when


def _encode(cells: Sequence[str]) -> bytes:
    line = StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue().encode()


def _describe(crop: Crop | None) -> str:
    return f"crops of whole photos with {describe(crop)}" if crop else "ready crops"


@contextmanager
def _explaining(path: Path) -> Iterator[None]:
    """Raise MachineError for an error of the system about a file that is written."""
    try:
        yield
    except OSError as error:
        raise MachineError(f"cannot write {path}: {error.strerror or error}") from error
