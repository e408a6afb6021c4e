"""The models that are packaged with edgeemo, each by name and in both INT8 target formats.

A word without a suffix is a name; anything else is the path of a file.
"""

from __future__ import annotations

import re
from pathlib import Path

from edgeemo.errors import MachineError, known

NAMES = ("nano", "small", "base")  # from the fastest to the most accurate
DEFAULT = "small"
FOLDER = Path(__file__).parent.parent / "models"
SUFFIXES = {"cpu": ".onnx", "tensorrt": ".tensorrt.onnx"}  # by target format


def is_name(model: str | Path) -> bool:
    """Return whether this is the name of a packaged model, a single word, and not the path of a file."""
    return re.fullmatch(r"\w+", str(model)) is not None


def find(model: str | Path | None = None, *, target_format: str = "cpu") -> Path:
    """Return the file of a packaged model in this target format, or the path as given; None and "": the default model.

    Raises UsageError for an unknown name, MachineError if edgeemo was installed without its models.
    """
    name = str(model or DEFAULT)
    if not is_name(name):
        return Path(name)
    if name not in NAMES:
        raise known("model", name, (*NAMES, "or the path of a file, .onnx or .trt"))
    file = FOLDER / (name + SUFFIXES[target_format])
    if not file.is_file():
        raise MachineError(
            f"this edgeemo was installed without its model {name}; give a file, as in edgeemo.load('model.onnx')"
        )
    return file
