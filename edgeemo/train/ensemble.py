"""Several trained runs as one model: for evaluation, and as the teacher of a smaller network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgeemo.card import Card
from edgeemo.data import Faces
from edgeemo.labels import LabelSet
from edgeemo.metrics import merging, softmax
from edgeemo.train import checkpoint, mirror, weights
from edgeemo.train.fit import predict_logits
from edgeemo.train.network import EmotionNet

PARAMETRIZED = ".parametrizations."  # in the names of tied weights


@dataclass(frozen=True)
class Member:
    """A trained network with its card; faces come to it as its own contract asks."""

    name: str  # of its run folder
    network: EmotionNet
    card: Card

    def logits(self, faces: Faces, *, flips: bool = False) -> np.ndarray:
        """(N, K) float32 logits, with flips the mean of those of each face and of its mirror image."""
        straight = predict_logits(self.network, faces, self.card.input)
        return self.with_flips(straight, faces) if flips else straight

    def with_flips(self, straight: np.ndarray, faces: Faces) -> np.ndarray:
        """(N, K) float32 mean of the logits `straight` of the faces and of those of their mirror images."""
        mirrored = replace(faces, pixels=np.ascontiguousarray(faces.pixels[:, :, ::-1]))
        mean: np.ndarray = (straight + predict_logits(self.network, mirrored, self.card.input)) / 2
        return mean


def members(runs: Sequence[Path]) -> list[Member]:
    """The networks of run folders."""
    return [Member(run.resolve().name, *weights.load(run)) for run in runs]


def without_average(member: Member, run: Path) -> Member:
    """The member with the weights that the last step left, from the checkpoint: what its moving average gained."""
    network, card = weights.load(run)
    last = checkpoint.network_weights(run)
    if any(PARAMETRIZED in name for name in last):
        mirror.tie(network.backbone)
    network.load_state_dict(last)
    mirror.release(network)
    return Member(f"{member.name}, last weights", network.eval(), card)


def told(logits: np.ndarray, card: Card, labels: LabelSet) -> np.ndarray:
    """(N, K) logits of a member → (N, M) float32 log-probabilities of `labels`, at the member's temperature.

    Probabilities of labels that the set merges are added up; those that it does not know are left out.
    """
    shares = softmax(logits, temperature=card.temperature)
    places = {column: labels.find(name) for column, name in enumerate(card.labels)}
    kept = {column: place for column, place in places.items() if place is not None}
    summed = shares[:, list(kept)] @ merging(list(kept.values())) + 1e-12
    logs: np.ndarray = np.log(summed / summed.sum(1, keepdims=True)).astype(np.float32)
    return logs


def combined(said: Sequence[np.ndarray]) -> np.ndarray:
    """(N, K) float32 mean of the members' log-probabilities, from `told`.

    A temperature brings each member to honest confidence, so that none outvotes the others by being sure of itself.
    """
    mean: np.ndarray = np.stack(said).mean(axis=0).astype(np.float32)
    return mean
