"""edgeemo: labelled faces in, a proven emotion model for a device out.

`edgeemo.load(path)` gives a model to call; everything else is loaded when it is needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeemo.card import Card
    from edgeemo.runtime import Model, Prediction, load

__version__ = "0.1.0"
__all__ = ["Card", "Model", "Prediction", "__version__", "load"]

_HOMES = {
    "Card": "edgeemo.card",
    "Model": "edgeemo.runtime",
    "Prediction": "edgeemo.runtime",
    "load": "edgeemo.runtime",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edgeemo' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
