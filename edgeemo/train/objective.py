"""What is minimised and how: targets from votes, class weights, optimiser and its schedule."""

from __future__ import annotations

from math import cos, pi

import numpy as np
import torch
from torch import nn

from edgeemo.data import Faces
from edgeemo.stages import Train
from edgeemo.train.network import EmotionNet

FLOOR = 0.01  # of the peak learning rate, where the cosine ends


def targets(faces: Faces, classes: int, *, vote_share: float) -> np.ndarray:
    """(N, K) float32: the label's one-hot mixed with the shares of votes (Barsoum et al. 2016, PLD, at 1.0)."""
    hard = np.eye(classes, dtype=np.float32)[faces.truth]
    mixed: np.ndarray = (1 - vote_share) * hard + vote_share * faces.votes
    return mixed.astype(np.float32)


def class_weights(truth: np.ndarray, classes: int, *, rule: str) -> torch.Tensor | None:
    """(K,) loss weights with mean 1 over the faces: inverse frequency (full), its square root (sqrt), or none."""
    if rule == "none":
        return None
    share = np.bincount(truth, minlength=classes) / len(truth)
    raw = share ** {"sqrt": -0.5, "full": -1.0}[rule]
    return torch.from_numpy((raw / (share * raw).sum()).astype(np.float32))


def loss_function(config: Train, weights: torch.Tensor | None) -> nn.Module:
    """Cross-entropy against (N, K) target shares, with label smoothing (Szegedy et al. 2015)."""
    return nn.CrossEntropyLoss(weight=weights, label_smoothing=config.smoothing)


def optimiser(network: EmotionNet, config: Train) -> torch.optim.AdamW:
    """AdamW with one rate for a pre-trained backbone and one for the rest; no decay on biases and BatchNorm."""
    backbone_lr = config.classifier_lr if config.weights == "none" else config.backbone_lr
    new_layers = nn.ModuleList([network.attention, network.head])
    groups = []
    for module, rate in ((network.backbone, backbone_lr), (new_layers, config.classifier_lr)):
        parameters = [p for p in module.parameters() if p.requires_grad]
        decayed, plain = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
        groups += [
            {"params": decayed, "lr": rate, "weight_decay": config.weight_decay},
            {"params": plain, "lr": rate, "weight_decay": 0.0},
        ]
    return torch.optim.AdamW([group for group in groups if group["params"]])


def warmup_cosine(adam: torch.optim.Optimizer, *, warmup: int, steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up over `warmup` steps, then half a cosine down to FLOOR at `steps` (Loshchilov & Hutter 2016)."""

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        progress = min(1.0, (step - warmup) / max(1, steps - warmup))
        return FLOOR + (1 - FLOOR) * 0.5 * (1 + cos(pi * progress))

    return torch.optim.lr_scheduler.LambdaLR(adam, factor)
