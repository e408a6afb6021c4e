"""The line that a stage leaves in a card: what ran, with which settings and versions, and how long it took."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import edgeemo
from edgeemo.card import HistoryEntry
from edgeemo.options import public_settings

WATCHED = (
    *("torch", "torchvision", "albumentations", "torch-pruning", "onnx", "onnxruntime", "numpy"),
    *("pillow", "opencv-python-headless", "torchao", "optuna", "openvino", "tensorrt", "tensorrt_rtx_cu12"),
)


def entry(stage: str, config: Any, *, seconds: float, parent: str = "", **measured: Any) -> HistoryEntry:
    """A history entry; of paths only the last part is kept, so that no card tells where it was made."""
    return HistoryEntry(
        stage=stage,
        config=public_settings(config),
        edgeemo=edgeemo.__version__,
        versions=versions(),
        parent_sha256=parent,
        seconds=round(seconds, 1),
        measured=measured,
    )


def versions() -> dict[str, str]:
    """Installed versions of the packages that decide results."""
    found = {}
    for name in WATCHED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
