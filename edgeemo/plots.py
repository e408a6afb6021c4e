"""What the pictures of a run and of a result share: an empty figure, the confusion matrix, and a PNG of it."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from edgeemo.artifact import written
from edgeemo.packages import require

CONFIG = "MPLCONFIGDIR"  # where matplotlib keeps its list of fonts; by default in the user's home


def axes(width: float, height: float) -> Any:
    """Empty axes on a figure of so many inches; MachineError without matplotlib."""
    figures = _import_figures()
    return figures.Figure(figsize=(width, height), layout="constrained").subplots()


def confusion(counts: list[list[int]], labels: Sequence[str], *, title: str) -> Any:
    """A figure with the counts, rows truth, in cells coloured by their share of the true class (recall)."""
    cells = np.array(counts)
    shares = cells / np.maximum(cells.sum(1, keepdims=True), 1)
    drawn = axes(1.6 + 0.8 * len(labels), 1.2 + 0.7 * len(labels))
    drawn.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(cells.shape):
        shade = "white" if shares[row, column] > 0.5 else "black"
        drawn.text(column, row, f"{cells[row, column]:,}", ha="center", va="center", color=shade, fontsize=9)
    drawn.set_xticks(range(len(labels)), labels, rotation=40, ha="right")
    drawn.set_yticks(range(len(labels)), labels)
    drawn.set(xlabel="predicted", ylabel="true", title=title)
    return drawn.figure


def save(figure: Any, path: Path) -> Path:
    """Write a figure as PNG, whole or not at all; returns its path."""
    with written(path) as partial:
        figure.savefig(partial, dpi=110)
    return path


def _import_figures() -> ModuleType:
    """matplotlib.figure; MachineError without it. Leaves no list of fonts in a home that has none yet."""
    cached = Path.home().joinpath(".cache", "matplotlib").is_dir() or CONFIG in os.environ
    if cached or "matplotlib" in sys.modules:
        return require("matplotlib.figure", extra="bench", purpose="drawing plots")
    with tempfile.TemporaryDirectory() as folder:
        os.environ[CONFIG] = folder
        try:
            return require("matplotlib.figure", extra="bench", purpose="drawing plots")
        finally:
            os.environ.pop(CONFIG, None)
