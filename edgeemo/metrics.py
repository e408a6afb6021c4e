"""Evaluation metrics: accuracy with its interval, per-class recall, macro-F1, calibration error and paired tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import comb, sqrt
from typing import Any

import numpy as np

Z_95 = 1.959964  # standard normal quantile at 0.975


@dataclass(frozen=True)
class Scores:
    """Metrics of one model on one list of faces, as fractions in 0..1; a class without faces has recall None."""

    n: int
    accuracy: float
    accuracy_low: float  # 95 % Wilson interval
    accuracy_high: float
    macro_f1: float  # over the classes that occur
    recall: dict[str, float | None]
    support: dict[str, int]
    ece: float  # expected calibration error, 15 equal bins
    confusion: list[list[int]]  # rows: true label, columns: predicted label

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON-ready form."""
        return asdict(self)


@dataclass(frozen=True)
class PairedComparison:
    """Two models on the same faces: how often they agree, and how often only one of them is correct."""

    n: int
    agreement: float  # fraction of the faces with the same predicted label
    only_first: int  # faces that only the first classifies correctly
    only_second: int
    difference: float  # accuracy of the second minus the first
    p_value: float  # of that difference, by McNemar's exact test
    recall_difference: dict[str, float | None]  # per label, second minus first; None without faces


def scores(probabilities: np.ndarray, truth: np.ndarray, labels: tuple[str, ...]) -> Scores:
    """Return the metrics of (N, K) probabilities against (N,) integer labels."""
    predicted = probabilities.argmax(1)
    confusion = np.zeros((len(labels), len(labels)), int)
    np.add.at(confusion, (truth, predicted), 1)
    right = int(np.trace(confusion))
    low, high = wilson(right, len(truth))
    support = confusion.sum(1)
    recall = [float(confusion[k, k] / n) if n else None for k, n in enumerate(support)]
    return Scores(
        n=len(truth),
        accuracy=right / len(truth),
        accuracy_low=low,
        accuracy_high=high,
        macro_f1=_compute_macro_f1(confusion),
        recall=dict(zip(labels, recall, strict=True)),
        support=dict(zip(labels, map(int, support), strict=True)),
        ece=ece(probabilities, truth),
        confusion=confusion.tolist(),
    )


def wilson(right: int, n: int) -> tuple[float, float]:
    """Return the 95 % score interval of a proportion (Wilson 1927)."""
    share, z2 = right / n, Z_95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 * sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def ece(probabilities: np.ndarray, truth: np.ndarray, *, bins: int = 15) -> float:
    """Return the expected calibration error of the top class (Guo et al. 2017), over bins of equal width."""
    confidence, hit = probabilities.max(1), probabilities.argmax(1) == truth
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(confidence[which == b].mean() - hit[which == b].mean()) * (which == b).sum() for b in np.unique(which)]
    return float(sum(gaps) / len(truth))


def compare_paired(
    first: np.ndarray, second: np.ndarray, truth: np.ndarray, labels: tuple[str, ...]
) -> PairedComparison:
    """Compare two (N,) predictions for the same faces, face by face."""
    gain = (second == truth).astype(int) - (
        first == truth
    )  # (N,): 1 if only the second is correct, -1 if only the first
    only_first, only_second = int((gain < 0).sum()), int((gain > 0).sum())
    by_label = {label: gain[truth == k] for k, label in enumerate(labels)}
    return PairedComparison(
        n=len(truth),
        agreement=float((first == second).mean()),
        only_first=only_first,
        only_second=only_second,
        difference=float(gain.mean()),
        p_value=mcnemar(only_first, only_second),
        recall_difference={label: float(own.mean()) if len(own) else None for label, own in by_label.items()},
    )


def find_label_errors(probabilities: np.ndarray, truth: np.ndarray) -> list[tuple[int, int]]:
    """Return the rows whose labels are probably wrong with the more probable label, the most certain first.

    probabilities: (N, K), rows sum to 1; truth: (N,) integers, the given labels.

    By confident learning, a row is suspect if the most probable of the labels that reach their threshold is another
    one than the given. The threshold of a label is the mean of its probability over the rows that were given it
    (Northcutt et al., Confident Learning, JAIR 2021); rows are ranked by how much less probable the given label is.
    """
    rows = np.arange(len(truth))
    given = probabilities[rows, truth]
    classes = probabilities.shape[1]
    thresholds = np.array([given[truth == k].mean() if (truth == k).any() else np.inf for k in range(classes)])
    confident = np.where(probabilities >= thresholds, probabilities, -np.inf)
    best = confident.argmax(1)
    suspect = np.flatnonzero(np.isfinite(confident.max(1)) & (best != truth))
    margin = given[suspect] - probabilities[suspect, best[suspect]]
    return [(int(row), int(best[row])) for row in suspect[np.argsort(margin, kind="stable")]]


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided p-value of McNemar's exact test (McNemar 1947) for the two kinds of disagreement."""
    n = only_first + only_second
    tail: float = sum(comb(n, k) for k in range(min(only_first, only_second) + 1)) / 2**n
    return min(1.0, 2 * tail)


def softmax(logits: np.ndarray, *, temperature: float = 1.0) -> np.ndarray:
    """Return (N, K) float64 probabilities, which sum to 1, of (N, K) logits."""
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(1, keepdims=True))
    probabilities: np.ndarray = powers / powers.sum(1, keepdims=True)
    return probabilities


def merge_matrix(positions: Sequence[int]) -> np.ndarray:
    """Return the (K, M) float64 matrix that maps probabilities of K labels to M; label k is added to positions[k].

    Sums are exact probabilities, because labels are mutually exclusive. The matrix is made once per model: the product
    takes 1 µs, adding columns one by one 15.
    """
    matrix: np.ndarray = np.eye(max(positions) + 1)[list(positions)]
    return matrix


def fit_temperature(logits: np.ndarray, truth: np.ndarray) -> float:
    """Return the temperature in 0.25..4 with the lowest negative log-likelihood (Guo et al. 2017)."""
    ratio = (sqrt(5) - 1) / 2  # golden-section search
    low, high = 0.25, 4.0
    while high - low > 1e-4:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if _compute_nll(logits, truth, left) < _compute_nll(logits, truth, right):
            high = right
        else:
            low = left
    return round((low + high) / 2, 4)


def _compute_nll(logits: np.ndarray, truth: np.ndarray, temperature: float) -> float:
    chosen = softmax(logits, temperature=temperature)[np.arange(len(truth)), truth]
    return float(-np.log(np.maximum(chosen, 1e-12)).mean())


def _compute_macro_f1(confusion: np.ndarray) -> float:
    truth, predicted, hit = confusion.sum(1), confusion.sum(0), np.diag(confusion)
    f1 = 2 * hit / np.maximum(truth + predicted, 1)
    return float(f1[truth > 0].mean())


def divergence(expected: np.ndarray, actual: np.ndarray) -> float:
    """Return the mean Kullback-Leibler divergence KL(expected || actual) in nats, from (N, K) logits."""
    p, q = softmax(expected), softmax(actual)
    terms = p * (np.log(np.maximum(p, 1e-12)) - np.log(np.maximum(q, 1e-12)))
    return float(terms.sum(1).mean())
