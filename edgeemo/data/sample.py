"""One face of a data set with its votes, before a protocol gives it a label."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgeemo.errors import DataError

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Sample:
    """A face that can be read, and its votes by label, which may include `unknown` and `NF` (no face)."""

    id: str  # unique within a data set, the same on every machine
    votes: dict[str, float]
    read: Callable[[], np.ndarray]  # (H, W) or (H, W, 3) uint8; DataError if it cannot be decoded


class NoSuchSplit(DataError):
    """The data set exists, but does not have this split."""
