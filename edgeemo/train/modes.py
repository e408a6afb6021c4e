"""What is trained: all layers, the new ones alone, or stage after stage from the top (gradual unfreezing)."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from torch import nn

from edgeemo.stages import Train
from edgeemo.train.network import EmotionNet

log = logging.getLogger(__name__)
POOLS = nn.MaxPool2d | nn.AvgPool2d


def check(config: Train) -> None:
    """Warn where the mode freezes a backbone that has learnt nothing yet; allowed, so that modes can be compared."""
    if config.mode == "finetune" or config.weights != "none":
        return
    log.warning(
        "--mode %s freezes a backbone that --weights none left random: expect a poor accuracy.  Start from --weights "
        "imagenet or a file, or train all layers with --mode finetune",
        config.mode,
    )


def stages(backbone: nn.Module) -> list[list[nn.Module]]:
    """The backbone's layers from the image to the features, in groups that thaw together.

    A stage begins at every pooling layer and every block (a ResNet's layer1, a dense block, an inverted residual), and
    takes what follows up to the next: a dense block's transition, DenseNet's last BatchNorm.
    """
    found: list[list[nn.Module]] = [[]]
    for layer in _layers(backbone):
        if isinstance(layer, POOLS) or _is_block(layer):
            found.append([])
        if _learns(layer):
            found[-1].append(layer)
    return [group for group in found if group]


def thaw(network: EmotionNet, config: Train, *, epoch: float) -> int:
    """Let the layers learn that `config.mode` allows in `epoch`; returns the number of parameters that do.

    Gradual unfreezing is Howard & Ruder's (2018), with a stage every config.unfreeze_epochs. A frozen stage is in
    evaluation mode, so that its BatchNorm keeps the statistics it has: call this after network.train().
    """
    groups = stages(network.backbone)
    learning = {"finetune": len(groups), "features": 0, "gradual": int(epoch / config.unfreeze_epochs)}[config.mode]
    frozen = max(0, len(groups) - learning)
    for number, group in enumerate(groups):
        for layer in group:
            layer.requires_grad_(number >= frozen)
            if number < frozen:
                layer.eval()
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """The children, or those of the only child that has parameters, if it wraps layers of its own."""
    learning = [child for child in module.children() if _learns(child)]
    if len(learning) == 1 and list(learning[0].children()):
        yield from _layers(learning[0])
    else:
        yield from module.children()


def _learns(layer: nn.Module) -> bool:
    return next(layer.parameters(), None) is not None


def _is_block(layer: nn.Module) -> bool:
    """Whether it holds layers and not those of a DenseNet transition, whose last one averages (Huang et al. 2017)."""
    inside = list(layer.children())
    return bool(inside) and not isinstance(inside[-1], nn.AvgPool2d)
