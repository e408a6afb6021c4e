"""Which faces an epoch shows, and in which order."""

from __future__ import annotations

import numpy as np

POWERS = {"sqrt": 0.5, "weighted": 1.0}  # of the inverse frequency of a face's class


def order(truth: np.ndarray, rng: np.random.Generator, *, sampler: str) -> np.ndarray:
    """(N,) int64 rows for N labels: each once (shuffle), or drawn with replacement so that rare classes come oftener.

    weighted draws every class equally often, sqrt by the square root of the inverse frequency.
    """
    if sampler == "shuffle":
        return rng.permutation(len(truth))
    counts = np.bincount(truth)
    share = (1.0 / counts[truth]) ** POWERS[sampler]
    return rng.choice(len(truth), size=len(truth), p=share / share.sum())
