"""How the weights move: AdamW or SGD with a rate for each part of the network, and the rate's course."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from math import cos, pi
from typing import Any

import torch
from torch import nn

from edgeemo.stages import Train
from edgeemo.train.network import EmotionNet

log = logging.getLogger(__name__)
FLOOR = 0.01  # of the peak learning rate, where a cosine ends
MOMENTUM = 0.9


def optimizer(network: EmotionNet, config: Train) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2017) or Nesterov SGD over all parameters, frozen ones too: they may thaw."""
    groups = _groups(network, config)
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=MOMENTUM, nesterov=True)
    return torch.optim.AdamW(groups)


def _groups(network: EmotionNet, config: Train) -> list[dict[str, Any]]:
    """One rate for a pre-trained backbone and one for the rest; no decay on biases and BatchNorm."""
    backbone_lr = config.classifier_lr if config.weights == "none" else config.backbone_lr
    new_layers = nn.ModuleList([network.attention, network.head])
    groups = []
    for module, rate in ((network.backbone, backbone_lr), (new_layers, config.classifier_lr)):
        parameters = list(module.parameters())
        decayed, plain = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
        groups += [
            {"params": decayed, "lr": rate, "weight_decay": config.weight_decay},
            {"params": plain, "lr": rate, "weight_decay": 0.0},
        ]
    return [group for group in groups if group["params"]]


def schedule(moved: torch.optim.Optimizer, config: Train, *, steps_per_epoch: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up, then a cosine to FLOOR at the last step, or cosines with warm restarts."""
    warmup = round(config.warmup_epochs * steps_per_epoch)
    if config.schedule == "restarts":
        course = partial(_restarts, first=max(1, round(config.restart_epochs * steps_per_epoch)))
    else:
        course = partial(_cosine, length=max(1, round(config.epochs * steps_per_epoch) - warmup))
    return torch.optim.lr_scheduler.LambdaLR(moved, _warmed_up(course, warmup))


def check(config: Train) -> None:
    """Warn where the last of several cosines is cut short: the weights would be left while they still move fast."""
    if config.schedule != "restarts":
        return
    ends = [config.warmup_epochs + config.restart_epochs * (2**k - 1) for k in range(1, 8)]
    if config.epochs not in ends:
        log.warning(
            "--schedule restarts ends a cosine at %s ... epochs, and %d stops inside one.  Set --restart-epochs, or "
            "use --schedule cosine",
            *(", ".join(f"{end:g}" for end in ends[:3]), config.epochs),
        )


def _warmed_up(course: Callable[[int], float], warmup: int) -> Callable[[int], float]:
    return lambda step: (step + 1) / warmup if step < warmup else course(step - warmup)


def _cosine(step: int, *, length: int) -> float:
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + cos(pi * min(1.0, step / length)))


def _restarts(step: int, *, first: int) -> float:
    """SGDR (Loshchilov & Hutter 2016): each cosine twice as long as the one before."""
    length = first
    while step >= length:
        step, length = step - length, 2 * length
    return _cosine(step, length=length)
