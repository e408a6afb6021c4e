"""The pictures of a run: learning curves and the confusion matrix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from edgeemo.artifact import written
from edgeemo.metrics import Scores


def curves(history: list[dict[str, Any]], path: Path, *, target: float) -> None:
    """Loss on train, and accuracy and recalls on valid, per epoch, as a PNG."""
    epochs = [row["epoch"] + 1 for row in history]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    left.plot(epochs, [row["loss"] for row in history], marker=".")
    left.set(xlabel="epoch", ylabel="train loss")
    for name in history[0]["recall"]:
        recalls = [np.nan if row["recall"][name] is None else 100 * row["recall"][name] for row in history]
        right.plot(epochs, recalls, linewidth=1, alpha=0.6, label=name)
    right.plot(epochs, [100 * row["accuracy"] for row in history], color="black", linewidth=2, label="accuracy")
    right.axhline(target, color="gray", linestyle=":", label=f"target {target:g} %")
    right.set(xlabel="epoch", ylabel="valid accuracy and recall, %", ylim=(0, 100))
    right.legend(fontsize=8, loc="lower right")
    _save(figure, path)


def confusion(result: Scores, path: Path, *, title: str) -> None:
    """Counts in each cell, colour by share of the true class (recall), as a PNG."""
    counts = np.array(result.confusion)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    names = list(result.recall)
    figure, axes = plt.subplots(figsize=(1.2 + 0.8 * len(names), 1 + 0.7 * len(names)), layout="constrained")
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(counts.shape):
        shade = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, counts[row, column], ha="center", va="center", color=shade, fontsize=9)
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    with written(path) as partial:
        figure.savefig(partial, dpi=110)
    plt.close(figure)
