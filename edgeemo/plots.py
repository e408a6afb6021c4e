"""What the pictures of a run and of a result share: an empty figure, the confusion matrix, and a PNG of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeemo.artifact import written
from edgeemo.errors import require


def axes(width: float, height: float) -> Any:
    """Empty axes on a figure of so many inches; MachineError without matplotlib."""
    figures = require("matplotlib.figure", extra="bench", purpose="drawing plots")
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
