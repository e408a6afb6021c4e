"""Adapted logits from logits: the one formula of every host."""

from __future__ import annotations

import numpy as np

from edgeemo.card import Adaptation


def adapt_logits(logits: np.ndarray, adaptation: Adaptation | None) -> np.ndarray:
    """Return (N, K) float64, matrix @ logits + bias, from (N, K); without an adaptation, the logits themselves."""
    if adaptation is None:
        return logits
    adapted: np.ndarray = logits.astype(np.float64) @ np.array(adaptation.matrix).T + np.array(adaptation.bias)
    return adapted
