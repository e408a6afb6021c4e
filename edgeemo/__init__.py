"""edgeemo: labelled faces in, a proven emotion model for a device out.

`edgeemo.load(path)` opens a model for prediction; `edgeemo.stream(source)` watches a camera or a video;
`edgeemo.run(config)` runs a stage of the pipeline, as its command does, with a config of edgeemo.stages. Everything
else is imported when it is needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeemo.card import Card
    from edgeemo.runtime import Face, Model, Prediction, load
    from edgeemo.stages import run
    from edgeemo.watch.stream import stream

__version__ = "0.1.0"
__all__ = ["Card", "Face", "Model", "Prediction", "__version__", "load", "run", "stream"]

_HOMES = {
    "Card": "edgeemo.card",
    "Face": "edgeemo.runtime",
    "Model": "edgeemo.runtime",
    "Prediction": "edgeemo.runtime",
    "load": "edgeemo.runtime",
    "run": "edgeemo.stages",
    "stream": "edgeemo.watch.stream",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edgeemo' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
