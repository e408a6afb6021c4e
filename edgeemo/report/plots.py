"""Plotting shared by all stages: an empty figure, the confusion matrix, and writing a PNG."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from edgeemo.artifact import atomic_write
from edgeemo.packages import no_caches, require


def make_axes(width: float, height: float) -> Any:
    """Return empty axes on a figure of this size in inches; raise MachineError without matplotlib."""
    figures = _import_figures()
    return figures.Figure(figsize=(width, height), layout="constrained").subplots()


def plot_confusion(counts: list[list[int]], labels: Sequence[str], *, title: str) -> Any:
    """Return a figure of the confusion matrix: counts, rows by true label, coloured by fraction of the row."""
    cells = np.array(counts)
    shares = cells / np.maximum(cells.sum(1, keepdims=True), 1)
    axes = make_axes(1.6 + 0.8 * len(labels), 1.2 + 0.7 * len(labels))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(cells.shape):
        shade = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, f"{cells[row, column]:,}", ha="center", va="center", color=shade, fontsize=9)
    axes.set_xticks(range(len(labels)), labels, rotation=40, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    return axes.figure


def save_png(figure: Any, path: Path) -> Path:
    """Write a figure as PNG, atomically; return its path."""
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=110)
    return path


def _import_figures() -> ModuleType:
    """Import matplotlib.figure without creating a font cache in the user's home; MachineError if it is missing."""
    if "matplotlib" in sys.modules:
        return require("matplotlib.figure", extra="bench", purpose="drawing plots")
    with no_caches():
        return require("matplotlib.figure", extra="bench", purpose="drawing plots")
