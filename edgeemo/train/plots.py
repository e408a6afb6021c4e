"""The plots of a training run: learning curves and confusion matrix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure  # imported here, so that it is missing before hours of training and not after

from edgeemo.metrics import Scores
from edgeemo.report import plots


def plot_curves(history: list[dict[str, Any]], path: Path, *, target: float) -> None:
    """Plot the training loss, validation accuracy and recalls per epoch, as a PNG."""
    epochs = [row["epoch"] + 1 for row in history]
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(epochs, [row["loss"] for row in history], marker=".")
    left.set(xlabel="epoch", ylabel="train loss")
    for name in history[0]["recall"]:
        recalls = [np.nan if row["recall"][name] is None else 100 * row["recall"][name] for row in history]
        right.plot(epochs, recalls, linewidth=1, alpha=0.6, label=name)
    right.plot(epochs, [100 * row["accuracy"] for row in history], color="black", linewidth=2, label="accuracy")
    right.axhline(target, color="gray", linestyle=":", label=f"target {target:g} %")
    right.set(xlabel="epoch", ylabel="validation accuracy and recall, %", ylim=(0, 100))
    figure.legend(fontsize=8, loc="outside right center")
    plots.save_png(figure, path)


def plot_confusion(result: Scores, path: Path, *, title: str) -> None:
    """Plot the confusion matrix of a result, as a PNG."""
    plots.save_png(plots.plot_confusion(result.confusion, list(result.recall), title=title), path)
