"""Ensembles of trained runs, for evaluation and as teachers in knowledge distillation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeemo.card import Card
from edgeemo.data import Faces
from edgeemo.labels import LabelSet
from edgeemo.metrics import merge_matrix, softmax
from edgeemo.train import checkpoint, mirror, run_folder
from edgeemo.train.fit import predict_logits
from edgeemo.train.network import EmotionNet

PARAMETRIZED = ".parametrizations."  # part of the names of tied weights


@dataclass(frozen=True)
class Member:
    """A trained network with its card, which gives the input contract of its faces."""

    name: str  # of its run folder
    network: EmotionNet
    card: Card

    def logits(self, faces: Faces, *, flips: bool = False) -> np.ndarray:
        """Return (N, K) float32 logits; with flips, averaged over each face and its mirror image."""
        logits = predict_logits(self.network, faces, self.card.input)
        return self.average_flips(logits, faces) if flips else logits

    def average_flips(self, logits: np.ndarray, faces: Faces) -> np.ndarray:
        """Return the (N, K) float32 mean of the faces' `logits` and those of their mirror images."""
        mean: np.ndarray = (logits + predict_logits(self.network, faces, self.card.input, mirrored=True)) / 2
        return mean


def load_members(runs: Sequence[Path]) -> list[Member]:
    """Load the networks of run folders."""
    return [Member(run.resolve().name, *run_folder.load(run)) for run in runs]


def load_without_average(member: Member, run: Path) -> Member:
    """Load a member's last weights, without moving average, from its checkpoint: shows what the average gained."""
    network, card = run_folder.load(run)
    last = checkpoint.load_last_weights(run)
    if any(PARAMETRIZED in name for name in last):
        mirror.tie(network.backbone)
    network.load_state_dict(last)
    mirror.untie(network)
    return Member(f"{member.name}, last weights", network.eval(), card)


def log_probabilities(logits: np.ndarray, card: Card, labels: LabelSet) -> np.ndarray:
    """Return (N, M) float32 log-probabilities of `labels` from a member's (N, K) logits, at its temperature.

    Probabilities of labels that the set merges are summed; labels outside the set are left out, and the rest is
    normalised.
    """
    probabilities = softmax(logits, temperature=card.temperature)
    targets = {column: labels.find(name) for column, name in enumerate(card.labels)}
    known = {column: target for column, target in targets.items() if target is not None}
    merged = probabilities[:, list(known)] @ merge_matrix(list(known.values())) + 1e-12
    log_probs: np.ndarray = np.log(merged / merged.sum(1, keepdims=True)).astype(np.float32)
    return log_probs


def average(log_probs: Sequence[np.ndarray]) -> np.ndarray:
    """Return the (N, K) float32 mean of the members' `log_probabilities`.

    Each member is calibrated by its own temperature, so that an overconfident one does not outvote the others.
    """
    mean: np.ndarray = np.stack(log_probs).mean(axis=0).astype(np.float32)
    return mean
