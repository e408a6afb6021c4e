"""What is trained: all layers, the new ones alone, or stage after stage from the top (gradual unfreezing)."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from edgeemo.stages import Train
from edgeemo.train.network import EmotionNet

POOLS = nn.MaxPool2d | nn.AvgPool2d


def stages(backbone: nn.Module) -> list[list[nn.Module]]:
    """The backbone's layers from the image to the features, in groups that thaw together.

    A block (a ResNet's layer1, a dense block, an inverted residual) is a stage of its own; single layers up to the next
    pooling or block are one together.
    """
    found: list[list[nn.Module]] = [[]]
    for layer in _layers(backbone):
        if isinstance(layer, POOLS) or list(layer.children()):
            found.append([])
        if any(True for _ in layer.parameters()):
            found[-1].append(layer)
        if list(layer.children()):
            found.append([])
    return [group for group in found if group]


def thaw(network: EmotionNet, config: Train, *, epoch: int) -> int:
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
    """The children, or those of an only child that wraps them."""
    children = list(module.children())
    while len(children) == 1 and list(children[0].children()):
        children = list(children[0].children())
    yield from children
