"""How much of a change the faces support, chosen by leaving out people, and what it gains on people who were left out.

Each fold of people is predicted by a change that was chosen and fitted without it: the choice is made by
cross-validation on the other folds (nested cross-validation; S. Varma and R. Simon, 2006, "Bias in error estimation
when using cross-validation for model selection"). The change that is kept is chosen and fitted alike on all faces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from edgeemo.adaptation.fit import Candidate, Change, Problem, compute_log_likelihood, list_candidates
from edgeemo.adaptation.folds import Folds, make_folds
from edgeemo.metrics import PairedComparison, Scores, compare_paired, merge_matrix, scores, softmax

FEWEST_FOLDS = 3  # one to predict, one to choose on, one to fit on
SIGNIFICANT = 0.05
LEAST_GAIN = 0.07  # nats per face; 1,000 faces of FER+ valid gain up to 0.043, though nothing has shifted there
EXACT_UP_TO = 12  # units whose 2**12 signs are all tried; of more, SIGNS random ones
SIGNS, CHUNK = 10_000, 100  # tried at once
Z_TEST, Z_POWER = 1.645, 0.842  # normal quantiles: one-sided test at 5 %, which then succeeds in 80 % of cases
CURVE_SIZES = (5, 10, 20, 50, 100, 200, 500, 1000)
CURVE_DRAWS = 4


@dataclass(frozen=True)
class CurvePoint:
    """Accuracy on held-out faces after fitting on so many others, the mean of draws and folds."""

    faces: int
    accuracy: float


@dataclass(frozen=True)
class Evidence:
    """What a change gains on faces of people who took no part in choosing and fitting it, in the reported labels.

    gain: of the log-likelihood per face, in nats. p_value: of the gain, by a one-sided sign-flip test on the units of
    Folds. needed: how many faces would show this gain in four of five cases; None if there is none.
    """

    folds: Folds
    before: Scores
    after: Scores
    held_out: np.ndarray  # (N, M) probabilities of each face, adapted without its fold
    paired: PairedComparison
    gain: float
    p_value: float
    needed: int | None
    curve: tuple[CurvePoint, ...]

    @property
    def shown(self) -> bool:
        """Whether the faces show a gain: more of them are right, and chance is an unlikely cause."""
        return self.paired.difference > 0 and self.gain >= LEAST_GAIN and self.p_value < SIGNIFICANT


@dataclass(frozen=True)
class Fitted:
    """The change to keep, of logits that are divided by the temperature; candidate: None if no change is best."""

    candidate: Candidate | None
    change: Change
    evidence: Evidence

    @property
    def shown(self) -> bool:
        """Whether there is a change, and the faces show that it helps."""
        return self.candidate is not None and self.evidence.shown


def fit_adaptation(
    logits: np.ndarray,
    truth: np.ndarray,
    labels: tuple[str, ...],
    *,
    positions: Sequence[int] | None = None,
    people: Sequence[str] | None = None,
    closed: bool = False,
) -> Fitted:
    """Choose and fit a change for (N, K) logits, divided by the temperature, and (N,) integer labels; N >= 1.

    labels: M names of `truth`. positions: which of them each of the K labels of the model is reported as; None: they
    are the same. people: who is on each face; None: not known. closed: only labels of the faces occur.
    """
    where = np.arange(logits.shape[1]) if positions is None else np.asarray(positions)
    problem = Problem(logits.astype(np.float64), where[None] == truth[:, None], closed)
    folds = make_folds(problem.logits, truth, people)
    merge = merge_matrix(where.tolist())
    if folds.count < FEWEST_FOLDS or len(np.unique(truth)) < 2:
        return Fitted(None, _make_identity(problem), _measure(problem, folds, truth, labels, merge, problem.logits, ()))
    search = _Search(problem, folds)
    held_out = search.predict_held_out()
    evidence = _measure(problem, folds, truth, labels, merge, held_out, search.measure_curve(truth, merge))
    chosen = search.choose(range(folds.count))
    change = problem.fit(chosen)[0] if chosen else _make_identity(problem)
    return Fitted(chosen, change, evidence)


def _make_identity(problem: Problem) -> Change:
    labels = problem.logits.shape[1]
    return Change(np.eye(labels), np.zeros(labels))


class _Search:
    """All fits that leave out one fold or two: those of two serve the choices of both."""

    def __init__(self, problem: Problem, folds: Folds) -> None:
        self.problem, self.folds = problem, folds
        self.candidates = list_candidates(len(problem.logits))
        self.choices: dict[int, Candidate | None] = {}  # without each fold
        self.starts: dict[Candidate, np.ndarray] = {}  # coefficients of the fits on all faces
        self._fit_all(self._without(), keep=True)
        count = range(folds.count)
        self.changed = {  # by the folds that took no part in the fits, which are equal where one is left out
            (i, j): self._fit_all(self._without(i, j)) for i, j in product(count, count) if i <= j
        }

    def _without(self, *left_out: int) -> np.ndarray:
        return ~np.isin(self.folds.fold, left_out)

    def _fit_all(self, rows: np.ndarray, *, keep: bool = False) -> dict[Candidate, Change]:
        """Return the change of every candidate; keep: start other fits from these."""
        part, found = self.problem.take(rows), {}
        for one in self.candidates:
            found[one], coefficients = part.fit(one, self.starts.get(one))
            if keep and part.is_convex:  # else where a fit starts from may decide where it ends
                self.starts[one] = coefficients
        return found

    def choose(self, folds: Sequence[int]) -> Candidate | None:
        """Return the candidate with the highest likelihood on each of these folds, fitted on the rest of them.

        The first of `candidates` if equal; None if no change is as good. Without one fold, that one is predicted last.
        """
        missing = [one for one in range(self.folds.count) if one not in folds]
        totals: dict[Candidate | None, float] = dict.fromkeys([None, *self.candidates], 0.0)
        for fold in folds:
            pair = (min(fold, *missing), max(fold, *missing)) if missing else (fold, fold)
            rows = self.folds.fold == fold
            logits, allowed = self.problem.logits[rows], self.problem.allowed[rows]
            totals[None] += compute_log_likelihood(logits, allowed).sum()
            for one, change in self.changed[pair].items():
                totals[one] += compute_log_likelihood(change.apply(logits), allowed).sum()
        return max(totals, key=lambda one: totals[one])

    def predict_held_out(self) -> np.ndarray:
        """Return (N, K) logits of each face, changed without its fold."""
        changed: np.ndarray = self.problem.logits.copy()
        for fold in range(self.folds.count):
            if chosen := self._choose_without(fold):
                rows = self.folds.fold == fold
                changed[rows] = self.changed[fold, fold][chosen].apply(self.problem.logits[rows])
        return changed

    def _choose_without(self, fold: int) -> Candidate | None:
        if fold not in self.choices:
            self.choices[fold] = self.choose([one for one in range(self.folds.count) if one != fold])
        return self.choices[fold]

    def measure_curve(self, truth: np.ndarray, merge: np.ndarray) -> tuple[CurvePoint, ...]:
        """Return the accuracy by number of faces, as if only so many had been labelled; each fold is held out once."""
        most = int(min(self._without(fold).sum() for fold in range(self.folds.count)))
        sizes = [size for size in CURVE_SIZES if size <= 0.7 * most]
        points = [CurvePoint(0, self._measure_part(truth, merge, 0))]
        return (*points, *(CurvePoint(size, self._measure_part(truth, merge, size)) for size in [*sizes, most]))

    def _measure_part(self, truth: np.ndarray, merge: np.ndarray, size: int) -> float:
        rng, hits = np.random.default_rng(size), []
        for fold, _ in product(range(self.folds.count), range(CURVE_DRAWS if size else 1)):
            held = self.folds.fold == fold
            rows, chosen = _draw(self.folds, ~held, size, rng), self._choose_without(fold)
            change = self.problem.take(rows).fit(chosen)[0] if chosen and size else _make_identity(self.problem)
            predicted = (softmax(change.apply(self.problem.logits[held])) @ merge).argmax(1)
            hits.append((predicted == truth[held]).sum())
        return float(np.sum(hits) / len(truth) / (CURVE_DRAWS if size else 1))


def _draw(folds: Folds, rows: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return the indices of `size` of these faces, person by person."""
    units = rng.permutation(np.unique(folds.unit[rows]))
    order = np.concatenate([rng.permutation(np.flatnonzero(rows & (folds.unit == unit))) for unit in units])
    return np.sort(order[:size])


def _measure(
    problem: Problem,
    folds: Folds,
    truth: np.ndarray,
    labels: tuple[str, ...],
    merge: np.ndarray,
    held_out: np.ndarray,
    curve: tuple[CurvePoint, ...],
) -> Evidence:
    before, after = (softmax(one) @ merge for one in (problem.logits, held_out))
    gains = compute_log_likelihood(held_out, problem.allowed) - compute_log_likelihood(problem.logits, problem.allowed)
    units = np.bincount(folds.unit, weights=gains)
    return Evidence(
        folds=folds,
        before=scores(before, truth, labels),
        after=scores(after, truth, labels),
        held_out=after,
        paired=compare_paired(before.argmax(1), after.argmax(1), truth, labels),
        gain=float(gains.mean()),
        p_value=compute_p_value(units),
        needed=_estimate_faces(units, len(truth)),
        curve=curve,
    )


def compute_p_value(gains: np.ndarray) -> float:
    """Return the p-value of a sum above 0, of independent gains; the one-sided sign-flip test (R. A. Fisher, 1935).

    Without a gain each is as likely to be negative: the p-value is the share of signs with at least this sum.
    """
    if not gains.any():
        return 1.0
    if len(gains) <= EXACT_UP_TO:
        signs = np.array(list(product((1, -1), repeat=len(gains))))
        return float((signs @ gains >= gains.sum() - 1e-9).mean())
    rng, reached = np.random.default_rng(0), 1
    for _ in range(SIGNS // CHUNK):
        flipped = rng.integers(0, 2, (CHUNK, len(gains)), np.int8)
        reached += int((flipped @ gains <= 1e-9).sum())  # the sum loses twice what is flipped
    return reached / (1 + SIGNS)


def _estimate_faces(gains: np.ndarray, faces: int) -> int | None:
    """Return how many faces the test needs, if the gain of all is like that of these."""
    mean, deviation = gains.mean(), gains.std()
    if mean <= 0 or not deviation:
        return None
    return int(np.ceil(((Z_TEST + Z_POWER) * deviation / mean) ** 2 * faces / len(gains)))
