"""Sampling: the faces of an epoch and their order."""

from __future__ import annotations

import numpy as np

POWERS = {"sqrt": 0.5, "weighted": 1.0}  # of the inverse frequency of a face's class


def draw_order(truth: np.ndarray, rng: np.random.Generator, *, sampler: str) -> np.ndarray:
    """Return (N,) int64 rows for N labels: a permutation (shuffle), or drawn with replacement to favour rare classes.

    weighted draws every class equally often; sqrt weighs classes by the square root of their inverse frequency.
    """
    if sampler == "shuffle":
        return rng.permutation(len(truth))
    counts = np.bincount(truth)
    share = (1.0 / counts[truth]) ** POWERS[sampler]
    return rng.choice(len(truth), size=len(truth), p=share / share.sum())
