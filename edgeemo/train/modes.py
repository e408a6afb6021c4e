"""Which layers are trained: all, the new ones only, or one stage after another from the top (gradual unfreezing)."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from torch import nn

from edgeemo.stages import Train
from edgeemo.train.network import EmotionNet

log = logging.getLogger(__name__)
POOLS = nn.MaxPool2d | nn.AvgPool2d


def check(config: Train) -> None:
    """Warn if the mode freezes a randomly initialised backbone; allowed, so that modes can be compared."""
    if config.mode == "finetune" or config.weights != "none":
        return
    log.warning(
        "--mode %s freezes a backbone with random weights (--weights none): expect a low accuracy.  Start from "
        "--weights imagenet or a file, or train all layers with --mode finetune",
        config.mode,
    )


def split_into_stages(backbone: nn.Module) -> list[list[nn.Module]]:
    """Split the backbone's layers, from input to features, into stages that are unfrozen together.

    A stage starts at every pooling layer and every block (a ResNet's layer1, a dense block, an inverted residual), and
    includes everything up to the next one, such as a dense block's transition or DenseNet's last BatchNorm.
    """
    groups: list[list[nn.Module]] = [[]]
    for layer in _list_layers(backbone):
        if isinstance(layer, POOLS) or _is_block(layer):
            groups.append([])
        if _has_parameters(layer):
            groups[-1].append(layer)
    return [group for group in groups if group]


def unfreeze(network: EmotionNet, config: Train, *, epoch: float) -> int:
    """Unfreeze the layers that `config.mode` trains in `epoch`, freeze the rest; return the trainable parameter count.

    Gradual unfreezing follows Howard & Ruder (2018), one stage every config.unfreeze_epochs. Frozen stages are put in
    evaluation mode, so that their BatchNorm statistics do not change: call this after network.train().
    """
    groups = split_into_stages(network.backbone)
    trained = {"finetune": len(groups), "features": 0, "gradual": int(epoch / config.unfreeze_epochs)}[config.mode]
    frozen = max(0, len(groups) - trained)
    for number, group in enumerate(groups):
        for layer in group:
            layer.requires_grad_(number >= frozen)
            if number < frozen:
                layer.eval()
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def _list_layers(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the children, or those of the only child with parameters if it is a container."""
    trainable = [child for child in module.children() if _has_parameters(child)]
    if len(trainable) == 1 and list(trainable[0].children()):
        yield from _list_layers(trainable[0])
    else:
        yield from module.children()


def _has_parameters(layer: nn.Module) -> bool:
    return next(layer.parameters(), None) is not None


def _is_block(layer: nn.Module) -> bool:
    """Return whether a layer is a container, except DenseNet's transitions, which end with average pooling."""
    inside = list(layer.children())
    return bool(inside) and not isinstance(inside[-1], nn.AvgPool2d)
