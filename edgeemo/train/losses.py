"""Loss functions: targets from labels and votes, class weights, cross-entropy, focal loss and distillation."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from edgeemo.data import Faces
from edgeemo.stages import Train

RESOLUTION = 2.0**-24  # smallest 1 - p above 0 in float32; at 0 a power below 1 has no finite gradient
WEIGHT_POWERS = {"mild": 0.25, "sqrt": 0.5, "full": 1.0}  # of a class's inverse frequency


def make_targets(faces: Faces, classes: int, *, vote_share: float) -> np.ndarray:
    """Return (N, K) float32: one-hot labels mixed with the distribution of votes (1.0: PLD of Barsoum et al. 2016)."""
    hard = np.eye(classes, dtype=np.float32)[faces.truth]
    mixed: np.ndarray = (1 - vote_share) * hard + vote_share * faces.votes
    return mixed.astype(np.float32)


def compute_class_weights(truth: np.ndarray, classes: int, *, rule: str) -> torch.Tensor | None:
    """Return (K,) loss weights with mean 1 over the faces, a power of the inverse class frequency; None for `none`."""
    if rule == "none":
        return None
    share = np.bincount(truth, minlength=classes) / len(truth)
    raw = share ** -WEIGHT_POWERS[rule]
    return torch.from_numpy((raw / (share * raw).sum()).astype(np.float32))


class FocalLoss(nn.Module):
    """Focal loss (Lin et al. 2017) for soft targets: cross-entropy terms scaled by (1 - p)^gamma."""

    def __init__(self, *, gamma: float, weight: torch.Tensor | None, smoothing: float) -> None:
        super().__init__()
        self.weight: torch.Tensor | None
        self.gamma, self.smoothing = gamma, smoothing
        self.register_buffer("weight", weight)

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the mean loss over N, from (N, K) logits and (N, K) target probabilities."""
        smooth = (1 - self.smoothing) * target + self.smoothing / target.shape[1]
        log_probs = logits.log_softmax(1)
        terms = smooth * (1 - log_probs.exp()).clamp_min(RESOLUTION) ** self.gamma * -log_probs
        if self.weight is not None:
            terms = terms * self.weight
        return terms.sum(1).mean()


class DistillationLoss(nn.Module):
    """Knowledge distillation (Hinton et al. 2015): `share` of the loss is the divergence from the teacher.

    Teacher and student are softened by `temperature`.
    """

    def __init__(self, label_loss: nn.Module, *, share: float, temperature: float) -> None:
        super().__init__()
        self.label_loss, self.share, self.temperature = label_loss, share, temperature

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the mean loss over N, from (N, K) logits and (N, 2, K): targets and teacher log-probabilities."""
        targets, teacher = target.unbind(1)
        student, teacher = (logits / self.temperature).log_softmax(1), (teacher / self.temperature).log_softmax(1)
        divergence = (teacher.exp() * (teacher - student)).sum(1).mean() * self.temperature**2
        loss: torch.Tensor = (1 - self.share) * self.label_loss(logits, targets) + self.share * divergence
        return loss


def make_criterion(config: Train, weights: torch.Tensor | None) -> nn.Module:
    """Return the loss of (N, K) logits and the targets of `BatchDataset`.

    It is a mean over N, so the losses of equal parts of a batch average to that of the batch. Both cross-entropy and
    focal loss use label smoothing (Szegedy et al. 2015).
    """
    label_loss: nn.Module
    if config.loss == "focal":
        label_loss = FocalLoss(gamma=config.focal_gamma, weight=weights, smoothing=config.smoothing)
    else:
        label_loss = nn.CrossEntropyLoss(weight=weights, label_smoothing=config.smoothing)
    if config.teacher:
        return DistillationLoss(label_loss, share=config.teacher_share, temperature=config.teacher_temperature)
    return label_loss
