"""Several trained runs as one model: for evaluation, and as the teacher of a smaller network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgeemo.card import Card
from edgeemo.data import Faces
from edgeemo.errors import UsageError
from edgeemo.metrics import softmax
from edgeemo.train import checkpoint, weights
from edgeemo.train.fit import predict_logits
from edgeemo.train.network import EmotionNet


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
    """The networks of run folders; UsageError where two do not tell the same labels."""
    found = [Member(run.resolve().name, *weights.load(run)) for run in runs]
    for member in found[1:]:
        if member.card.labels != found[0].card.labels:
            raise UsageError(
                f"{member.name} tells {', '.join(member.card.labels)}, but {found[0].name} tells "
                f"{', '.join(found[0].card.labels)}; expected runs with the same labels in the same order"
            )
    return found


def without_average(member: Member, run: Path) -> Member:
    """The member with the weights that the last step left, from the checkpoint: what its moving average gained."""
    network, card = weights.load(run)
    network.load_state_dict(checkpoint.network_weights(run))
    return Member(f"{member.name}, last weights", network.eval(), card)


def combined(logits: Sequence[np.ndarray], temperatures: Sequence[float]) -> np.ndarray:
    """(N, K) float32 mean of the members' log-probabilities, each at its own temperature.

    A temperature brings each member to honest confidence, so that none outvotes the others by being sure of itself.
    """
    told = [np.log(softmax(rows, temperature=t) + 1e-12) for rows, t in zip(logits, temperatures, strict=True)]
    mean: np.ndarray = np.mean(told, axis=0).astype(np.float32)
    return mean
