"""Optimizers with a learning rate per part of the network, and learning-rate schedules."""

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
FLOOR = 0.01  # fraction of the peak learning rate at which a cosine ends
MOMENTUM = 0.9


def make_optimizer(network: EmotionNet, config: Train) -> torch.optim.Optimizer:
    """Return AdamW (Loshchilov & Hutter 2017) or Nesterov SGD over all parameters, including those frozen for now."""
    groups = _group_parameters(network, config)
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=MOMENTUM, nesterov=True)
    return torch.optim.AdamW(groups)


def _group_parameters(network: EmotionNet, config: Train) -> list[dict[str, Any]]:
    """Separate a pre-trained backbone from new layers; no weight decay on biases and BatchNorm."""
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


def make_schedule(
    optimizer: torch.optim.Optimizer, config: Train, *, steps_per_epoch: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """Return a linear warm-up, then a cosine that ends at FLOOR with the last step, or cosines with warm restarts."""
    warmup = round(config.warmup_epochs * steps_per_epoch)
    if config.schedule == "restarts":
        curve = partial(_follow_restarts, first=max(1, round(config.restart_epochs * steps_per_epoch)))
    else:
        curve = partial(_follow_cosine, length=max(1, round(config.epochs * steps_per_epoch) - warmup))
    return torch.optim.lr_scheduler.LambdaLR(optimizer, _add_warmup(curve, warmup))


def check(config: Train) -> None:
    """Warn if the epochs end before the last cosine does: the learning rate would still be high."""
    if config.schedule != "restarts":
        return
    ends = [config.warmup_epochs + config.restart_epochs * (2**k - 1) for k in range(1, 8)]
    if config.epochs not in ends:
        log.warning(
            "--schedule restarts completes a cosine after %s ... epochs, and %d epochs end inside one.  "
            "Set --restart-epochs, or use --schedule cosine",
            *(", ".join(f"{end:g}" for end in ends[:3]), config.epochs),
        )


def _add_warmup(curve: Callable[[int], float], warmup: int) -> Callable[[int], float]:
    return lambda step: (step + 1) / warmup if step < warmup else curve(step - warmup)


def _follow_cosine(step: int, *, length: int) -> float:
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + cos(pi * min(1.0, step / length)))


def _follow_restarts(step: int, *, first: int) -> float:
    """SGDR (Loshchilov & Hutter 2016): each cosine is twice as long as the previous one."""
    length = first
    while step >= length:
        step, length = step - length, 2 * length
    return _follow_cosine(step, length=length)
