"""Made-up files in the layouts of public data sets."""

import csv

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def put(tmp_path, rng):
    """Write images of noise into a folder, numbered from 0; returns their paths."""

    def write(folder, count, *, suffix=".png", side=48, stem=""):
        (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
        paths = [tmp_path / "data" / folder / f"{stem}{k}{suffix}" for k in range(count)]
        for path in paths:
            Image.fromarray(rng.integers(0, 256, (side, side), dtype=np.uint8)).save(path)
        return paths

    return write


@pytest.fixture
def write_table():
    """Write rows as CSV."""

    def write(path, rows):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
        return path

    return write


@pytest.fixture
def root(tmp_path):
    """The folder that `put` writes into."""
    (tmp_path / "data").mkdir(exist_ok=True)
    return tmp_path / "data"


def count_labels(samples):
    """Return {label: number of faces}."""
    names = [next(iter(sample.votes)) for sample in samples]
    return {name: names.count(name) for name in names}


@pytest.fixture
def labels_of():
    return count_labels
