"""What a model is judged by: accuracy with its interval, recall per class, macro-F1, calibration, paired tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import comb, sqrt
from typing import Any

import numpy as np

Z_95 = 1.959964  # standard normal quantile at 0.975


@dataclass(frozen=True)
class Scores:
    """One model on one list of faces. Shares are fractions in 0..1; a class without faces has recall None."""

    n: int
    accuracy: float
    accuracy_low: float  # 95 % Wilson interval
    accuracy_high: float
    macro_f1: float  # over the classes that occur
    recall: dict[str, float | None]
    support: dict[str, int]
    ece: float  # expected calibration error, 15 equal bins
    confusion: list[list[int]]  # rows truth, columns prediction

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


@dataclass(frozen=True)
class Paired:
    """Two models on the same faces: how often they agree, and who is right where the other is wrong."""

    n: int
    agreement: float  # share of the faces that get the same label from both
    only_first: int  # faces that the first alone has right
    only_second: int
    difference: float  # accuracy of the second minus the first
    p_value: float  # of that difference, by McNemar's exact test
    recall_difference: dict[str, float | None]  # by label, second minus first; None without faces


def scores(probabilities: np.ndarray, truth: np.ndarray, labels: tuple[str, ...]) -> Scores:
    """Scores of (N, K) probabilities against (N,) integer labels."""
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
        macro_f1=_macro_f1(confusion),
        recall=dict(zip(labels, recall, strict=True)),
        support=dict(zip(labels, map(int, support), strict=True)),
        ece=ece(probabilities, truth),
        confusion=confusion.tolist(),
    )


def wilson(right: int, n: int) -> tuple[float, float]:
    """95 % score interval of a proportion (Wilson 1927)."""
    share, z2 = right / n, Z_95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 * sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def ece(probabilities: np.ndarray, truth: np.ndarray, *, bins: int = 15) -> float:
    """Expected calibration error of the top class (Guo et al. 2017): mean |confidence - accuracy| over equal bins."""
    confidence, hit = probabilities.max(1), probabilities.argmax(1) == truth
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(confidence[which == b].mean() - hit[which == b].mean()) * (which == b).sum() for b in np.unique(which)]
    return float(sum(gaps) / len(truth))


def paired(first: np.ndarray, second: np.ndarray, truth: np.ndarray, labels: tuple[str, ...]) -> Paired:
    """Two (N,) predictions on the same faces, compared face by face."""
    gain = (second == truth).astype(int) - (first == truth)  # (N,): 1 where only the second is right, -1 the first
    only_first, only_second = int((gain < 0).sum()), int((gain > 0).sum())
    by_label = {label: gain[truth == k] for k, label in enumerate(labels)}
    return Paired(
        n=len(truth),
        agreement=float((first == second).mean()),
        only_first=only_first,
        only_second=only_second,
        difference=float(gain.mean()),
        p_value=mcnemar(only_first, only_second),
        recall_difference={label: float(own.mean()) if len(own) else None for label, own in by_label.items()},
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p-value of a split of disagreements (McNemar 1947; exact binomial form)."""
    n = only_first + only_second
    tail: float = sum(comb(n, k) for k in range(min(only_first, only_second) + 1)) / 2**n
    return min(1.0, 2 * tail)


def softmax(logits: np.ndarray, *, temperature: float = 1.0) -> np.ndarray:
    """(N, K) logits → (N, K) float64 probabilities that sum to 1."""
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(1, keepdims=True))
    shares: np.ndarray = powers / powers.sum(1, keepdims=True)
    return shares


def merging(places: Sequence[int]) -> np.ndarray:
    """(K, M) float64: probabilities of K labels times it are those of M, each added to the one at its place.

    Exact, as labels exclude each other. Made once per model: the product takes 1 µs, adding columns one by one 15.
    """
    matrix: np.ndarray = np.eye(max(places) + 1)[list(places)]
    return matrix


def fit_temperature(logits: np.ndarray, truth: np.ndarray) -> float:
    """The temperature in 0.25..4 of lowest negative log-likelihood (Guo et al. 2017), by golden-section search."""
    ratio = (sqrt(5) - 1) / 2
    low, high = 0.25, 4.0
    while high - low > 1e-4:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if _nll(logits, truth, left) < _nll(logits, truth, right):
            high = right
        else:
            low = left
    return round((low + high) / 2, 4)


def _nll(logits: np.ndarray, truth: np.ndarray, temperature: float) -> float:
    chosen = softmax(logits, temperature=temperature)[np.arange(len(truth)), truth]
    return float(-np.log(np.maximum(chosen, 1e-12)).mean())


def _macro_f1(confusion: np.ndarray) -> float:
    truth, predicted, hit = confusion.sum(1), confusion.sum(0), np.diag(confusion)
    f1 = 2 * hit / np.maximum(truth + predicted, 1)
    return float(f1[truth > 0].mean())


def divergence(expected: np.ndarray, got: np.ndarray) -> float:
    """Mean Kullback-Leibler divergence in nats of the probabilities of (N, K) logits `got` from those of `expected`."""
    sure, told = softmax(expected), softmax(got)
    terms = sure * (np.log(np.maximum(sure, 1e-12)) - np.log(np.maximum(told, 1e-12)))
    return float(terms.sum(1).mean())
