"""The entry of a stage in a card's history: what ran, with which settings and versions, and how long it took."""

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


def make_entry(stage: str, config: Any, *, seconds: float, parent: str = "", **measured: Any) -> HistoryEntry:
    """Return a history entry; of paths only the last part is kept, so that no card shows a machine's folders."""
    return HistoryEntry(
        stage=stage,
        config=public_settings(config),
        edgeemo=edgeemo.__version__,
        versions=list_versions(),
        parent_sha256=parent,
        seconds=round(seconds, 1),
        measured=measured,
    )


def list_versions() -> dict[str, str]:
    """Return the installed versions of the packages that affect results."""
    found = {}
    for name in WATCHED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
