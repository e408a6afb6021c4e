"""A long-lived process: a thousand models opened, asked and closed take no memory and no descriptors with them."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import numpy as np
import pytest

import edgeemo

ROUNDS, WARM_UP = 1000, 200
GROWTH = 8 << 20  # of resident memory; a session of nano holds 3 MB, so one in a hundred that stays is found


def read_memory() -> int:
    """Return the resident memory of this process in bytes."""
    gc.collect()
    return 4096 * int(Path("/proc/self/statm").read_text().split()[1])


def count_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_thousand_models_leave_nothing_open() -> None:
    """Resident memory and open files are those after the first two hundred."""
    face = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
    labels = set()
    for number in range(ROUNDS):
        with edgeemo.load("nano") as model:
            labels.add(model.predict(face).label)
        if number == WARM_UP:
            memory, descriptors = read_memory(), count_descriptors()
    assert len(labels) == 1
    assert count_descriptors() == descriptors
    assert read_memory() - memory < GROWTH
