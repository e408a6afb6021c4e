"""The shares of the labels that a network was trained to expect, for its card."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeemo.train.losses import WEIGHT_POWERS
from edgeemo.train.sampling import POWERS

DECIMALS = 6


def find_prior(truth: np.ndarray, labels: Sequence[str], *, sampler: str, class_weights: str) -> dict[str, float]:
    """Return the share of each label among the (N,) labels of training faces as the loss weighs them; they sum to 1.

    A sampler multiplies the share of a class by its chance to be drawn, class weights by its weight in the loss; both
    are powers of the inverse share, so both together are a product. With `shuffle` and `none` these are the plain
    shares, with `weighted` or `full` alone all classes are equal, and with both the rarest class weighs most.

    The rest changes the prior too little, or in no known way, and is left out: the votes in the targets and label
    smoothing move little between the classes, focal loss depends on the faces, and teachers pass on the prior of their
    own training. On FER+ valid as it is, estimates by EM lose next to nothing with the weighted shares, and two to
    three points of nano and small with the plain ones (benchmarks/results/adapt/prior.json, `training`).

    Every label must have a face, which `faces.check_classes` ensures.
    """
    counts = np.bincount(truth, minlength=len(labels)).astype(np.float64)
    shares = counts ** (1 - POWERS.get(sampler, 0.0) - WEIGHT_POWERS.get(class_weights, 0.0))
    shares /= shares.sum()
    return {label: round(float(share), DECIMALS) for label, share in zip(labels, shares, strict=True)}
