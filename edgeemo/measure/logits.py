"""Many faces through an open model, while a bar counts: for the workshop; a device asks face by face."""

from __future__ import annotations

import numpy as np

from edgeemo.images import to_input
from edgeemo.progress import track
from edgeemo.runtime.model import SLICE, Model


def logits_of(model: Model, pixels: np.ndarray) -> np.ndarray:
    """(N, size, size) or (N, size, size, 3) uint8, as the card's input says → (N, K) float32 logits."""
    starts = range(0, len(pixels), SLICE)
    parts = track(starts, f"asking {model.path.name}", total=len(starts))
    return np.concatenate([model.logits(to_input(pixels[k : k + SLICE], model.card.input)) for k in parts])
