"""The pictures of a run: learning curves and the confusion matrix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure  # here, so that it is missed before the hours of training and not after

from edgeemo import plots
from edgeemo.metrics import Scores


def curves(history: list[dict[str, Any]], path: Path, *, target: float) -> None:
    """Loss on train, and accuracy and recalls on valid, per epoch, as a PNG."""
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
    right.set(xlabel="epoch", ylabel="valid accuracy and recall, %", ylim=(0, 100))
    figure.legend(fontsize=8, loc="outside right center")
    plots.save(figure, path)


def confusion(result: Scores, path: Path, *, title: str) -> None:
    """The confusion matrix of the result, as a PNG."""
    plots.save(plots.confusion(result.confusion, list(result.recall), title=title), path)
