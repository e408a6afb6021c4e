"""Run an open model on many faces with a progress bar: for the training side; a device predicts face by face."""

from __future__ import annotations

import numpy as np

from edgeemo.images import Pixels, to_input
from edgeemo.progress import track
from edgeemo.runtime.model import BATCH_SIZE, Model


def compute_logits(model: Model, pixels: Pixels) -> np.ndarray:
    """Return (N, K) float32 logits of (N, size, size) or (N, size, size, 3) uint8, as the card's input defines them."""
    starts = range(0, len(pixels), BATCH_SIZE)
    steps = track(starts, f"running {model.path.name}", total=len(starts))
    batches = (to_input(pixels[start : start + BATCH_SIZE], model.card.input) for start in steps)
    return np.concatenate([model.logits(batch) for batch in batches])
