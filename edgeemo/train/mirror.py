"""Filters in mirrored pairs: a mirrored face gives the same features, mirrored, with the two of a pair swapped.

The second half of a layer's filters mirrors the first, reading its input's pairs swapped: group convolution (Cohen &
Welling 2016) over the group of one reflection. It is a way to train. Afterwards the filters are plain weights, so that
pruning, quantization and engines know nothing of it.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils import parametrize

from edgeemo.errors import UsageError
from edgeemo.stages import Train
from edgeemo.train.backbones import BACKBONES


class _Mirrored(nn.Module):
    """(O / 2, I, h, w) filters → (O, I, h, w), the second half mirrored."""

    def __init__(self, *, swaps: bool) -> None:
        super().__init__()
        self.swaps = swaps  # the input comes in pairs as well; an image does not

    def forward(self, half: torch.Tensor) -> torch.Tensor:
        mirrored = half.flip(3)
        if self.swaps:
            mirrored = torch.cat(mirrored.chunk(2, dim=1)[::-1], dim=1)
        return torch.cat([half, mirrored])

    def right_inverse(self, whole: torch.Tensor) -> torch.Tensor:
        return whole[: len(whole) // 2].clone()


class _Shared(nn.Module):
    """(C / 2,) → (C,): both of a pair are scaled and shifted alike."""

    def forward(self, half: torch.Tensor) -> torch.Tensor:
        return torch.cat([half, half])

    def right_inverse(self, whole: torch.Tensor) -> torch.Tensor:
        return whole[: len(whole) // 2].clone()


def check(config: Train) -> None:
    """UsageError for a backbone whose layers do more than follow one another, or whose weights are not fresh."""
    if not config.mirror:
        return
    plain = [name for name, entry in BACKBONES.items() if entry.plain]
    if config.backbone not in plain:
        raise UsageError(f"--mirror is for {', '.join(plain)}, not for {config.backbone}: use --no-mirror")
    if config.weights != "none":
        raise UsageError("--mirror would drop half of the weights it starts from: use --weights none or --no-mirror")


def tie(backbone: nn.Module) -> None:
    """Tie the filters of a plain backbone; the second half of each layer's weights is forgotten."""
    for layer in backbone.children():
        if isinstance(layer, nn.Conv2d):
            parametrize.register_parametrization(layer, "weight", _Mirrored(swaps=layer.in_channels > 1))
        if isinstance(layer, nn.BatchNorm2d):
            for parameter in ("weight", "bias"):
                parametrize.register_parametrization(layer, parameter, _Shared())


def release(network: nn.Module) -> None:
    """Make every tied filter a plain weight, and give both of a pair the mean of their BatchNorm statistics.

    The two see mirrored features: where every second face is shown mirrored, their true mean and variance are the same.
    Without such flips the mean of the two stands for the mirrored faces that were not shown.
    """
    for layer in network.modules():
        if parametrize.is_parametrized(layer):
            for parameter in list(layer.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(layer, parameter)
            if isinstance(layer, nn.BatchNorm2d):
                for statistic in (layer.running_mean, layer.running_var):
                    _average_pairs(statistic)


def _average_pairs(values: torch.Tensor | None) -> None:
    if values is not None:
        values.copy_(torch.stack(values.chunk(2)).mean(0).repeat(2))
