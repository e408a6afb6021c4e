"""The workshop's first room: labelled faces in, a trained network with its card out. Needs torch."""

from importlib import import_module
from typing import Any

ORIGIN = ("create_improved_model", "create_enhanced_transforms")
__all__ = ["create_enhanced_transforms", "create_improved_model"]


def __getattr__(name: str) -> Any:
    """The origin document's calls, imported when they are asked for."""
    if name in ORIGIN:
        return getattr(import_module("edgeemo.train.origin"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
