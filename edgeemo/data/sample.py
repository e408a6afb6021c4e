"""One face of a data set with its votes, before a protocol gives it a label; and a data set as a layout reads it."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from edgeemo.card import Crop
from edgeemo.errors import DataError

log = logging.getLogger(__name__)
SPLITS = ("train", "valid", "test")
SHOWN = 20  # faulty rows listed in one error
NOT_A_TABLE = (UnicodeDecodeError, csv.Error)


@dataclass(frozen=True, slots=True)
class Sample:
    """A face that can be read, and its votes by label, which may include `unknown` and `NF` (no face)."""

    id: str  # unique within a data set, the same on every machine
    votes: dict[str, float]
    read: Callable[[], np.ndarray]  # (H, W) or (H, W, 3) uint8; DataError if it cannot be decoded
    sources: tuple[str, ...]  # paths of the files that determine its pixels, as text to save memory; none: it is drawn


@dataclass(frozen=True)
class DataSet:
    """The splits of a data set, listed only when they are read, and how the files were interpreted."""

    name: str  # its path, for messages
    layout: str  # what it was recognised as
    sources: dict[str, str]  # where the faces of each split are
    read: Callable[[str], list[Sample]]  # the faces of one of `sources`, in a fixed order
    unused: list[str] = field(default_factory=list)  # files and folders that hold no face of the data set
    passed_over: list[str] = field(default_factory=list)  # hidden and system files and folders
    codes: dict[str, str] = field(default_factory=dict)  # the label that each number found stands for
    crop: Crop | None = None  # how its faces were cropped; None: not stated
    hint: str = ""  # what else the files may be, for errors; starts with two spaces

    def samples(self, split: str) -> list[Sample]:
        """Return the faces of one split; raise NoSuchSplit if the data set does not have it."""
        if split not in self.sources:
            raise NoSuchSplit(
                f"{self.name} has no {split} split; it was read as {self.layout}, with {', '.join(self.sources)}"
            )
        return self.read(split)


class NoSuchSplit(DataError):
    """The data set exists, but does not have this split."""


@cache
def log_once(message: str) -> None:
    """Log a message about a data set the first time: its splits are listed one by one, and often again."""
    log.info("%s", message)


def raise_faults(faults: list[str], table: str) -> None:
    """Raise DataError with the first faulty rows of a table, if there are any."""
    if faults:
        more = f"\n  … and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise DataError(f"{table} has {len(faults)} faulty rows:\n  " + "\n  ".join(faults[:SHOWN]) + more)
