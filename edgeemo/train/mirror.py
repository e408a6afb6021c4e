"""Filters tied in mirrored pairs: mirroring the face mirrors the features and swaps the channels of each pair.

The second half of a layer's filters mirrors the first half and swaps the pairs of input channels: a group convolution
(Cohen & Welling 2016) for the group of one reflection. Filters are tied during training only. Afterwards they are plain
weights, so pruning, quantization and engines are not affected.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils import parametrize

from edgeemo.errors import UsageError
from edgeemo.stages import Train
from edgeemo.train.backbones import BACKBONES


class _MirroredFilters(nn.Module):
    """Maps (O / 2, I, h, w) filters to (O, I, h, w); the second half is the mirrored first half."""

    def __init__(self, *, swaps: bool) -> None:
        super().__init__()
        self.swaps = swaps  # whether the input channels are in pairs; those of an image are not

    def forward(self, half: torch.Tensor) -> torch.Tensor:
        mirrored = half.flip(3)
        if self.swaps:
            mirrored = torch.cat(mirrored.chunk(2, dim=1)[::-1], dim=1)
        return torch.cat([half, mirrored])

    def right_inverse(self, values: torch.Tensor) -> torch.Tensor:
        return values[: len(values) // 2].clone()


class _SharedParameters(nn.Module):
    """Maps (C / 2,) to (C,): both channels of a pair share scale and shift."""

    def forward(self, half: torch.Tensor) -> torch.Tensor:
        return torch.cat([half, half])

    def right_inverse(self, values: torch.Tensor) -> torch.Tensor:
        return values[: len(values) // 2].clone()


def check(config: Train) -> None:
    """Raise UsageError for a backbone with branches or with pre-trained weights."""
    if not config.mirror:
        return
    plain = [name for name, entry in BACKBONES.items() if entry.plain]
    if config.backbone not in plain:
        raise UsageError(f"--mirror supports {', '.join(plain)}, not {config.backbone}: omit --mirror")
    if config.weights != "none":
        raise UsageError(
            f"--mirror would discard half of the initial weights, --weights {config.weights}: use --weights none, or "
            "omit --mirror"
        )


def tie(backbone: nn.Module) -> None:
    """Tie the filters of a plain backbone; the second half of each layer's weights is discarded."""
    for layer in backbone.children():
        if isinstance(layer, nn.Conv2d):
            parametrize.register_parametrization(layer, "weight", _MirroredFilters(swaps=layer.in_channels > 1))
        if isinstance(layer, nn.BatchNorm2d):
            for parameter in ("weight", "bias"):
                parametrize.register_parametrization(layer, parameter, _SharedParameters())


def untie(network: nn.Module) -> None:
    """Turn tied filters into plain weights; both channels of a pair get the mean of their BatchNorm statistics.

    The two channels receive mirrored features. If half of the faces are flipped horizontally, their true mean and
    variance are equal; without such flips, the mean accounts for the mirrored faces that were never seen.
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
