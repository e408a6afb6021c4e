"""Selective classification: how accurate a model is on the faces for which it is sure enough to give an answer.

R. El-Yaniv and Y. Wiener, "On the Foundations of Noise-free Selective Classification", JMLR 2010; Y. Geifman and R.
El-Yaniv, "Selective Classification for Deep Neural Networks", 2017, arXiv:1705.08500. An answer is given where the
probability of the most probable label reaches a threshold; coverage is the share of faces that get one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeemo.card import Answers
from edgeemo.metrics import wilson

STEPS = 100  # candidates are whole percents: finer thresholds would be fitted to single faces
MIN_ANSWERS = 100  # with fewer, chance alone makes an accuracy of 90 % or more hard to show
MIN_COVERAGE = 0.2  # a threshold that leaves fewer faces an answer is of little use
CURVE = (0.5, 0.7, 0.9)  # thresholds of a short risk-coverage curve


@dataclass(frozen=True)
class SelectiveAccuracy:
    """Accuracy of the answers given at one threshold; None if no face gets one."""

    least_probability: float  # of the most probable label, 0..1
    n: int  # faces, with and without an answer
    answered: int
    coverage: float  # answered / n
    accuracy: float | None
    accuracy_low: float | None  # 95 % Wilson interval
    accuracy_high: float | None


def measure_answers(probabilities: np.ndarray, truth: np.ndarray, least_probability: float) -> SelectiveAccuracy:
    """Return accuracy and coverage at a threshold, from (N, K) probabilities and (N,) integer labels, N >= 1."""
    given = probabilities.max(1) >= least_probability
    answered = int(given.sum())
    right = int((probabilities.argmax(1) == truth)[given].sum())
    around = (right / answered, *wilson(right, answered)) if answered else (None, None, None)
    return SelectiveAccuracy(least_probability, len(truth), answered, answered / len(truth), *around)


def measure_curve(
    probabilities: np.ndarray, truth: np.ndarray, thresholds: Sequence[float] = CURVE
) -> list[SelectiveAccuracy]:
    """Return a point per threshold, as `measure_answers` does."""
    return [measure_answers(probabilities, truth, threshold) for threshold in thresholds]


def fit_threshold(probabilities: np.ndarray, truth: np.ndarray, least_accuracy: float) -> SelectiveAccuracy | None:
    """Return the lowest threshold at which the answers reach an accuracy, 0..1, or None if none is shown to.

    It is reached where the lower end of the 95 % Wilson interval is not below it (one-sided 97.5 %), so that the
    threshold also holds on other faces of the same kind. Thresholds are tried from the highest that answers for
    MIN_COVERAGE and MIN_ANSWERS faces downwards, up to the first that fails: in such a fixed sequence, trying many
    needs no correction (A. Angelopoulos et al., "Learn then Test", 2021, arXiv:2110.01052).
    """
    reached = None
    for percent in reversed(range(STEPS)):
        found = measure_answers(probabilities, truth, percent / STEPS)
        if found.answered < MIN_ANSWERS or found.coverage < MIN_COVERAGE:
            continue
        if found.accuracy_low is None or found.accuracy_low < least_accuracy:
            break
        reached = found
    return reached


def fit_answers(probabilities: np.ndarray, truth: np.ndarray, least_accuracy: float) -> Answers | None:
    """Return the card's section of the threshold that `fit_threshold` finds; None without one."""
    found = fit_threshold(probabilities, truth, least_accuracy)
    if found is None or found.accuracy is None or found.accuracy_low is None or found.accuracy_high is None:
        return None
    return Answers(
        least_probability=found.least_probability,
        least_accuracy=least_accuracy,
        accuracy=found.accuracy,
        accuracy_low=found.accuracy_low,
        accuracy_high=found.accuracy_high,
        coverage=found.coverage,
        n=found.n,
    )
