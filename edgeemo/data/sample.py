"""One labelled face before any decision is taken about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgeemo.errors import DataError

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Sample:
    """A face that can be read and the votes it got, by label; `unknown` and `NF` (no face) may be among them."""

    id: str  # unique inside a data set, the same on every machine
    votes: dict[str, float]
    read: Callable[[], np.ndarray]  # (H, W) or (H, W, 3) uint8; DataError if it cannot be decoded


class NoSuchSplit(DataError):
    """The data set is there, but it has no such split."""
