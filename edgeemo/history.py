"""The line that a stage leaves in a card: what ran, with which settings and versions, and how long it took."""

from __future__ import annotations

from dataclasses import asdict
from importlib import metadata
from pathlib import PurePath
from typing import Any

import edgeemo

WATCHED = (
    *("torch", "torchvision", "albumentations", "torch-pruning", "onnx", "onnxruntime", "numpy"),
    *("pillow", "opencv-python-headless", "torchao", "optuna", "openvino", "tensorrt", "tensorrt_rtx_cu12"),
)
# Config fields that may hold a path of this machine.
PATHS = ("data", "out", "run", "calibration", "weights", "teacher", "model", "timing_cache")


def entry(stage: str, config: Any, *, seconds: float, parent: str = "", **measured: Any) -> dict[str, Any]:
    """A JSON-ready history entry; of paths only the last part is kept, so that no card tells where it was made."""
    return {
        "stage": stage,
        "config": settings_of(config),
        "edgeemo": edgeemo.__version__,
        "versions": versions(),
        "parent_sha256": parent,
        "seconds": round(seconds, 1),
        "measured": measured,
    }


def settings_of(config: Any) -> dict[str, Any]:
    """A config as JSON-ready settings; of paths only the last part is kept."""
    return {key: _without_folders(key, value) if key in PATHS else value for key, value in asdict(config).items()}


def versions() -> dict[str, str]:
    """Installed versions of the packages that decide results."""
    found = {}
    for name in WATCHED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _without_folders(key: str, value: str) -> str:
    kind, colon, where = value.partition(":") if key == "data" else ("", "", value)  # data is KIND:PATH
    names = [PurePath(part.strip()).name for part in where.split(",")] if key == "teacher" else [PurePath(where).name]
    return kind + colon + ",".join(names)
