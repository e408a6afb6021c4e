"""Training: from labelled faces to a trained network with its card. Needs torch."""

from importlib import import_module
from typing import Any

from edgeemo.packages import no_caches

with no_caches():  # here, before the modules of this package import what these import
    import lightning_fabric  # noqa: F401
    import matplotlib.figure  # noqa: F401

ORIGIN_API = ("create_improved_model", "create_enhanced_transforms")
__all__ = ["create_enhanced_transforms", "create_improved_model"]


def __getattr__(name: str) -> Any:
    """Import the functions of `edgeemo.train.origin` on first access."""
    if name in ORIGIN_API:
        return getattr(import_module("edgeemo.train.origin"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
