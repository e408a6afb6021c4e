"""A change of the logits, fitted by penalized maximum likelihood: at most 72 numbers for 8 labels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np

from edgeemo.card.adaptation import FORMS
from edgeemo.metrics import softmax

# Strengths of the shrinkage that are tried. Coefficients of a form have a normal prior around no change with a standard
# deviation of 1 / sqrt(penalty): of the bias in nats, of factors per SPREAD nats. Weaker ones lost on few faces.
PENALTIES = {"bias": (1.0, 3.0, 10.0), "diagonal": (3.0, 10.0, 30.0), "matrix": (10.0, 30.0, 100.0)}
WEAKER = {"bias": 0.3, "diagonal": 1.0, "matrix": 3.0}  # also tried from MANY faces on
MANY = 50
SPREAD = 2.3  # standard deviation of the packaged models' logits over their temperature, on FER+ valid
STEPS = 20  # of Newton's method, which needs 3 to 6
TINY = 1e-300
ENOUGH = 1e-4  # nats, of all faces together, by which a step must lower the loss to go on


@dataclass(frozen=True)
class Candidate:
    """A form of the change, and the strength of its shrinkage."""

    form: str
    penalty: float


@dataclass(frozen=True)
class Change:
    """changed = matrix @ logits + bias; (K, K) and (K,) float64, for logits that are divided by the temperature."""

    matrix: np.ndarray
    bias: np.ndarray

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """Return (N, K) changed logits from (N, K)."""
        changed: np.ndarray = logits @ self.matrix.T + self.bias
        return changed


def list_candidates(faces: int) -> list[Candidate]:
    """Return what is tried on so many faces, the strongest shrinkage of a form first."""
    penalties = {form: PENALTIES[form] + ((WEAKER[form],) if faces >= MANY else ()) for form in FORMS}
    return [Candidate(form, one) for form in FORMS for one in sorted(penalties[form], reverse=True)]


@dataclass(frozen=True)
class Problem:
    """Faces to fit a change on.

    logits: (N, K) float64, divided by the temperature. allowed: (N, K) bool, the labels of the model that count as the
    true label of a face: several where the labels are merged.

    Labels of the model without a face are left alone: their logits do not change, and neither does their difference
    from the mean of the other logits, so the faces say nothing on how probable those labels are. `closed` treats them
    as labels that do not occur.
    """

    logits: np.ndarray
    allowed: np.ndarray
    closed: bool = False

    def take(self, rows: np.ndarray) -> Problem:
        """Return the problem of some faces."""
        return Problem(self.logits[rows], self.allowed[rows], self.closed)

    @property
    def fitted(self) -> np.ndarray:
        """The indices of the labels whose logits change."""
        labels = self.logits.shape[1]
        return np.arange(labels) if self.closed else np.flatnonzero(self.allowed.any(0))

    @property
    def is_convex(self) -> bool:
        """Whether the loss has one minimum: that of merged labels may have several."""
        return bool((self.allowed.sum(1) == 1).all())

    def fit(self, candidate: Candidate, start: np.ndarray | None = None) -> tuple[Change, np.ndarray]:
        """Return the best change, and its coefficients, from which similar fits start; by Newton's method.

        The loss is the negative log-likelihood of the faces plus half the penalty times the squared coefficients.
        """
        space = self._make_space(candidate.form)
        at = start if start is not None and len(start) == space.shape[1] else np.zeros(space.shape[1])
        loss = self._compute_loss(space, at, candidate.penalty)
        for _ in range(STEPS):
            step = self._compute_step(space, at, candidate.penalty)
            size, after = 1.0, self._compute_loss(space, at - step, candidate.penalty)
            while after > loss and size > 1 / 256:
                size /= 2
                after = self._compute_loss(space, at - size * step, candidate.penalty)
            if after > loss:
                break
            gain, at, loss = loss - after, at - size * step, after
            if gain < ENOUGH:
                break
        return self._make_change(space @ at), at

    def _make_space(self, form: str) -> np.ndarray:
        """Return the (P * F, M) basis of a form: changes of P fitted labels by F = 1 + K features, bias first.

        The mean over the fitted labels does not change, which costs nothing if no label is left alone, because softmax
        does not see it; then a diagonal need not be centred.
        """
        count, features = len(self.fitted), 1 + self.logits.shape[1]
        centred = np.linalg.qr(np.column_stack([np.ones(count), np.eye(count)[:, 1:]]))[0][:, 1:]
        if form == "matrix":
            space: np.ndarray = np.kron(centred, np.eye(features))
            return space
        bias: np.ndarray = np.kron(centred, np.eye(features)[:, :1])
        if form == "bias":
            return bias
        factors = np.zeros((count, features, count))
        factors[np.arange(count), 1 + self.fitted, np.arange(count)] = 1
        if count < self.logits.shape[1]:
            factors -= factors.mean(0)
        return np.column_stack([bias, factors.reshape(count * features, count)])

    @cached_property
    def _features(self) -> np.ndarray:
        """(N, F): 1, and the logits in units of SPREAD."""
        return np.column_stack([np.ones(len(self.logits)), self.logits / SPREAD])

    @cached_property
    def _products(self) -> np.ndarray:
        """(N, F * F): products of the features."""
        one = self._features
        products: np.ndarray = one[:, :, None] * one[:, None, :]
        return products.reshape(len(one), -1)

    def _make_change(self, flat: np.ndarray) -> Change:
        labels, fitted = self.logits.shape[1], self.fitted
        changes = np.zeros((labels, 1 + labels))
        changes[fitted] = flat.reshape(len(fitted), -1)
        return Change(np.eye(labels) + changes[:, 1:] / SPREAD, changes[:, 0])

    def _compute_logits(self, flat: np.ndarray) -> np.ndarray:
        changed: np.ndarray = self.logits.copy()
        changed[:, self.fitted] += self._features @ flat.reshape(len(self.fitted), -1).T
        return changed

    def _compute_loss(self, space: np.ndarray, at: np.ndarray, penalty: float) -> float:
        return float(
            -compute_log_likelihood(self._compute_logits(space @ at), self.allowed).sum() + penalty / 2 * at @ at
        )

    def _compute_step(self, space: np.ndarray, at: np.ndarray, penalty: float) -> np.ndarray:
        """Return Newton's step. Where labels are merged, the curvature of the true ones is left out: it is concave."""
        changed, fitted = self._compute_logits(space @ at), self.fitted
        p = softmax(changed)[:, fitted]
        q = softmax(np.where(self.allowed, changed, -np.inf))[:, fitted]
        gradient = space.T @ ((p - q).T @ self._features).ravel() + penalty * at
        weights = p[:, :, None] * (np.eye(len(fitted)) - p[:, None, :])  # (N, P, P)
        count, features = len(fitted), self._features.shape[1]
        blocks = (weights.reshape(len(p), -1).T @ self._products).reshape(count, count, features, features)
        curvature = blocks.transpose(0, 2, 1, 3).reshape(count * features, -1)
        step: np.ndarray = np.linalg.solve(space.T @ curvature @ space + penalty * np.eye(len(at)), gradient)
        return step


def compute_log_likelihood(logits: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Return (N,) log-probabilities of the true labels, which are summed where several are allowed; at least -690."""
    powers = np.exp(logits - reduce(np.maximum, logits.T)[:, None])  # max(axis=1) of 8 columns takes 5 times as long
    every = np.ones(logits.shape[1])
    given: np.ndarray = np.log(np.maximum((powers * allowed) @ every, TINY)) - np.log(powers @ every)
    return given
