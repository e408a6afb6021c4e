"""What is minimised: targets from labels and votes, weights per class, cross-entropy and focal loss."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from edgeemo.data import Faces
from edgeemo.stages import Train

RESOLUTION = 2.0**-24  # the least 1 - p above 0 in float32; at 0 a power below 1 has no slope
WEIGHT_POWERS = {"mild": 0.25, "sqrt": 0.5, "full": 1.0}  # of a class's inverse frequency


def targets(faces: Faces, classes: int, *, vote_share: float) -> np.ndarray:
    """(N, K) float32: the label's one-hot mixed with the shares of votes (Barsoum et al. 2016, PLD, at 1.0)."""
    hard = np.eye(classes, dtype=np.float32)[faces.truth]
    mixed: np.ndarray = (1 - vote_share) * hard + vote_share * faces.votes
    return mixed.astype(np.float32)


def class_weights(truth: np.ndarray, classes: int, *, rule: str) -> torch.Tensor | None:
    """(K,) loss weights with mean 1 over the faces: a power of the inverse frequency, or none."""
    if rule == "none":
        return None
    share = np.bincount(truth, minlength=classes) / len(truth)
    raw = share ** -WEIGHT_POWERS[rule]
    return torch.from_numpy((raw / (share * raw).sum()).astype(np.float32))


class Focal(nn.Module):
    """Cross-entropy whose terms fade as (1 - p)^gamma (Lin et al. 2017), for targets that are shares of classes."""

    def __init__(self, *, gamma: float, weight: torch.Tensor | None, smoothing: float) -> None:
        super().__init__()
        self.weight: torch.Tensor | None
        self.gamma, self.smoothing = gamma, smoothing
        self.register_buffer("weight", weight)

    def forward(self, logits: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        """(N, K) logits and (N, K) target shares → the mean over N."""
        smooth = (1 - self.smoothing) * goal + self.smoothing / goal.shape[1]
        told = logits.log_softmax(1)
        terms = smooth * (1 - told.exp()).clamp_min(RESOLUTION) ** self.gamma * -told
        if self.weight is not None:
            terms = terms * self.weight
        return terms.sum(1).mean()


class Distilled(nn.Module):
    """A loss of which a share is the divergence from a teacher, both softened by a temperature (Hinton et al. 2015)."""

    def __init__(self, own: nn.Module, *, share: float, temperature: float) -> None:
        super().__init__()
        self.own, self.share, self.temperature = own, share, temperature

    def forward(self, logits: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        """(N, K) logits and (N, 2, K) goals, the targets and the teacher's log-probabilities → the mean over N."""
        targets, told = goal.unbind(1)
        soft, sure = (logits / self.temperature).log_softmax(1), (told / self.temperature).log_softmax(1)
        divergence = (sure.exp() * (sure - soft)).sum(1).mean() * self.temperature**2
        loss: torch.Tensor = (1 - self.share) * self.own(logits, targets) + self.share * divergence
        return loss


def criterion(config: Train, weights: torch.Tensor | None) -> nn.Module:
    """The loss of ((N, K) logits, goals as `Batches` gives them): a mean over N, so parts of a batch average to it.

    cross-entropy has label smoothing (Szegedy et al. 2015), and so has focal.
    """
    own: nn.Module
    if config.loss == "focal":
        own = Focal(gamma=config.focal_gamma, weight=weights, smoothing=config.smoothing)
    else:
        own = nn.CrossEntropyLoss(weight=weights, label_smoothing=config.smoothing)
    if config.teacher:
        return Distilled(own, share=config.teacher_share, temperature=config.teacher_temperature)
    return own
