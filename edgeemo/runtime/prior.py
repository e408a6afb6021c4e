"""Prior correction: predictions for a place where emotions are mixed otherwise than among the training faces.

Bayes' rule multiplies each probability by the ratio of the label's share in that place to its share in training, and
normalises (Saerens, Latinne and Decaestecker 2002); the strength is the exponent of the ratio, as in logit adjustment
(Menon et al. 2021). The shares are given, or estimated from unlabelled predictions by EM, also after Saerens et al.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from threading import Lock

import numpy as np

from edgeemo.card import Card
from edgeemo.errors import UsageError
from edgeemo.labels import LabelSet, normalize_label

UNIFORM, AUTO = "uniform", "auto"
TOLERANCE = 0.01  # of a sum of shares, which may be rounded
EXPECTED = f"expected {UNIFORM}, {AUTO}, or the share of each label, 0 to 1, as neutral=0.6,happiness=0.2"
# Chosen on a half of FER+ valid by benchmarks/priors.py: of those tried, the fewest pseudo-faces with
# which no model loses 0.5 points on faces mixed as there.
WINDOW = 500  # faces; twice as many bring little
MINIMUM = 30  # faces from which on an estimate is used
PSEUDO_FACES = 100.0  # faces with the shares of training that count beside those of the window
BOUND = 4.0  # largest factor of a label, and the inverse of the smallest one
STEPS, CONVERGED = 100, 1e-4  # of EM: most steps, and the change of a share at which it stops


@dataclass(frozen=True)
class Prior:
    """The shares of the labels that a model assumes where it runs."""

    kind: str  # uniform, given, or auto
    shares: dict[str, float]  # by label, in the order of Model.labels; they sum to 1
    acting: bool  # auto: whether it changes predictions; with too few faces, the shares are those of training
    faces: int = 0  # auto: faces in the window, from which the shares are estimated

    def __str__(self) -> str:
        return ", ".join(f"{label} {100 * share:.1f} %" for label, share in self.shares.items())


class FixedCorrection:
    """The correction for given shares."""

    def __init__(self, kind: str, shares: np.ndarray, training: np.ndarray, strength: float) -> None:
        """shares, training: (K,), each sums to 1; strength: 0 (no correction) to 1."""
        self._kind, self._shares = kind, shares
        self._factors = (shares / training) ** strength

    def correct(self, probabilities: np.ndarray) -> np.ndarray:
        """Return (N, K) corrected probabilities, rows sum to 1."""
        return correct(probabilities, self._factors)

    def describe(self, labels: Sequence[str]) -> Prior:
        """Return the shares by label."""
        return Prior(self._kind, _by_label(labels, self._shares), acting=True)


class EstimatedCorrection:
    """The correction for shares that are estimated from the last faces, thread-safe.

    Every call adds its faces to a window, and corrects them by what the window then holds: a correction depends on the
    faces before it. The estimate maximises the posterior under a Dirichlet prior, `pseudo_faces` with the shares of
    training, so that few faces change little; the factor of a label is limited to 1 / bound..bound.
    """

    def __init__(
        self,
        training: np.ndarray,
        strength: float = 1.0,
        *,
        window: int = WINDOW,
        minimum: int = MINIMUM,
        pseudo_faces: float = PSEUDO_FACES,
        bound: float = BOUND,
    ) -> None:
        """training: (K,), sums to 1; strength: 0 to 1; window, minimum: faces that count at most, and at least."""
        self._training, self._strength = training, strength
        self._rows = np.empty((window, len(training)))
        self._minimum, self._pseudo_faces, self._bound = minimum, pseudo_faces, bound
        self._faces = self._next = 0  # rows in use; the oldest row, which is replaced next
        self._shares = training
        self._lock = Lock()

    def correct(self, probabilities: np.ndarray) -> np.ndarray:
        """Add (N, K) probabilities to the window; return them corrected."""
        with self._lock:
            for row in probabilities[-len(self._rows) :]:
                self._rows[self._next] = row
                self._next = (self._next + 1) % len(self._rows)
                self._faces = min(self._faces + 1, len(self._rows))
            if self._faces < self._minimum:
                return probabilities
            rows = self._rows[: self._faces]
            self._shares = estimate_shares(rows, self._training, pseudo_faces=self._pseudo_faces, start=self._shares)
            factors = self._limit() ** self._strength
        return correct(probabilities, factors)

    def find_factors(self) -> np.ndarray:
        """Return the (K,) factors of the probabilities; ones while there are too few faces."""
        with self._lock:
            return self._limit() ** self._strength

    def describe(self, labels: Sequence[str]) -> Prior:
        """Return the estimate by label, with the limits on the factors applied."""
        with self._lock:
            faces, shares = self._faces, self._limit() * self._training
        return Prior(AUTO, _by_label(labels, shares / shares.sum()), faces >= self._minimum, faces)

    def _limit(self) -> np.ndarray:
        ratios: np.ndarray = np.clip(self._shares / self._training, 1 / self._bound, self._bound)
        return ratios


Correction = FixedCorrection | EstimatedCorrection


def make_correction(
    prior: str | Mapping[str, float] | None, strength: float, card: Card, labels: LabelSet, file: Path
) -> Correction | None:
    """Return the correction for a prior, as `edgeemo.load` takes it, in the reported labels; None without a prior.

    file: the model's, for errors.

    Raises UsageError for a prior or a strength that is not as expected, or a card that does not state the shares of
    training, or has an adaptation.
    """
    if not isinstance(strength, Real) or not 0 <= strength <= 1:
        raise UsageError(f"prior strength {strength!r}: expected 0 (no correction) to 1 (full correction)")
    if prior is None:
        return None
    if card.adaptation:
        raise UsageError(
            f"{file} is adapted to a place, and with it to the mix of emotions there; open it without a prior, or open "
            "the model that it was made from"
        )
    training = find_training_shares(card, labels, file)
    if prior == AUTO:
        return EstimatedCorrection(training, strength)
    kind = UNIFORM if prior == UNIFORM else "given"
    return FixedCorrection(kind, find_shares(prior, labels.labels, training), training, strength)


def find_training_shares(card: Card, labels: LabelSet, file: Path) -> np.ndarray:
    """Return (K,) shares of the reported labels among the training faces, summed as their probabilities are.

    Raises UsageError for a card that does not state them.
    """
    if card.data is None or card.data.prior is None:
        raise UsageError(
            f"the card of {file} does not state the shares of the labels in training (data.prior), without which no "
            "prior can be corrected for; use it without a prior, or train it again with  edgeemo train"
        )
    shares = np.bincount(labels.map_labels(card.labels), [card.data.prior[label] for label in card.labels])
    scaled: np.ndarray = shares / shares.sum()
    return scaled


def find_shares(prior: str | Mapping[str, float], labels: Sequence[str], training: np.ndarray) -> np.ndarray:
    """Return (K,) shares, which sum to 1, of a given prior: `uniform`, `neutral=0.6,happiness=0.2`, or a mapping.

    Labels that are not named share what is left in the proportion of their shares in training, (K,). A label with the
    share 0 does not occur.

    Raises UsageError for other text, an unknown or repeated label, a share that is not 0 to 1, or shares whose sum
    is more than 1 (or less, if all labels are named) by more than 1 %.
    """
    if prior == UNIFORM:
        return np.full(len(labels), 1 / len(labels))
    given = _parse(prior) if isinstance(prior, str) else _check_mapping(prior)
    shares = np.full(len(labels), np.nan)
    for name, share in given:
        position = _find_label(name, labels)
        if not np.isnan(shares[position]):
            raise UsageError(f"prior: {name!r} names {labels[position]} again; expected each label once")
        shares[position] = share
    free = np.isnan(shares)
    total = float(shares[~free].sum())
    if total > 1 + TOLERANCE or (not free.any() and total < 1 - TOLERANCE):
        most = "at most 1, because the other labels share what is left" if free.any() else "1"
        raise UsageError(f"prior: the shares sum to {total:.4g}; expected {most}")
    shares[free] = max(0.0, 1 - total) * training[free] / training[free].sum()
    scaled: np.ndarray = shares / shares.sum()
    return scaled


def _parse(text: str) -> list[tuple[str, float]]:
    parts = [part.rpartition("=") for part in text.split(",")]
    if wrong := [value for name, equals, value in parts if not (equals and name.strip())]:
        raise UsageError(f"prior {text!r}: {wrong[0].strip()!r} has no label and share; {EXPECTED}")
    return _check_pairs([(name.strip(), value.strip()) for name, _, value in parts])


def _check_mapping(prior: object) -> list[tuple[str, float]]:
    if not isinstance(prior, Mapping) or not prior:
        raise UsageError(f"prior {prior!r}: {EXPECTED}, or a mapping of them")
    return _check_pairs(list(prior.items()))


def _check_pairs(pairs: Sequence[tuple[object, object]]) -> list[tuple[str, float]]:
    checked = []
    for name, value in pairs:
        try:
            share = float(value)  # type: ignore[arg-type]  # whatever it is
        except (TypeError, ValueError):
            share = np.nan
        if not 0 <= share <= 1 + TOLERANCE:
            raise UsageError(f"prior: the share of {name} is {value!r}; expected a number, 0 to 1")
        checked.append((str(name), share))
    return checked


def _find_label(name: str, labels: Sequence[str]) -> int:
    """Return the position of a label, by its name or a synonym of it."""
    if name in labels:
        return labels.index(name)
    for position, label in enumerate(labels):
        if normalize_label(label) == normalize_label(name):
            return position
    raise UsageError(f"prior: the model does not report {name!r}; expected labels of {', '.join(labels)}")


def correct(probabilities: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Return (N, K) probabilities times (K,) factors, rows sum to 1.

    A row that gives every possible label, whose factor is above 0, the probability 0 gets the factors' proportions.
    """
    weighted = probabilities * factors
    weighted[weighted.sum(1) == 0] = factors
    corrected: np.ndarray = weighted / weighted.sum(1, keepdims=True)
    return corrected


def estimate_shares(
    probabilities: np.ndarray, training: np.ndarray, *, pseudo_faces: float, start: np.ndarray | None = None
) -> np.ndarray:
    """Return (K,) shares of the labels among the faces of (N, K) probabilities, by EM (Saerens et al. 2002).

    training: (K,) shares that the probabilities assume, all above 0; `pseudo_faces` faces with them are added to the
    N. start: shares from which EM starts, such as an estimate for almost the same faces; default: training.
    """
    shares = training if start is None else start
    for _ in range(STEPS):
        ratios = shares / training
        expected = ratios * ((1 / (probabilities @ ratios)) @ probabilities)
        updated = (expected + pseudo_faces * training) / (len(probabilities) + pseudo_faces)
        change, shares = np.abs(updated - shares).max(), updated
        if change < CONVERGED:
            break
    return shares


def _by_label(labels: Sequence[str], shares: np.ndarray) -> dict[str, float]:
    return dict(zip(labels, map(float, shares), strict=True))
