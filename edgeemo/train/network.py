"""The networks: a backbone from the table, optional spatial attention, and a classifier head.

A network is described by the card's `architecture`; `build` makes it again from that description, pruned widths
included, so that weights are always a plain state dict and never a pickled module.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from edgeemo.card import Architecture, InputContract
from edgeemo.train.backbones import BACKBONES, backbone
from edgeemo.train.pretrained import build_trunk

__all__ = ["BACKBONES", "backbone"]


class SpatialAttention(nn.Module):
    """Spatial attention of CBAM (Woo et al. 2018): a sigmoid of each position's mean and maximum over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel_size=7, padding=3)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map (N, C, h, w) to (N, C, h, w)."""
        summary = torch.cat([features.mean(1, keepdim=True), features.amax(1, keepdim=True)], 1)
        return features * torch.sigmoid(self.conv(summary))


class EmotionNet(nn.Module):
    """Backbone, attention, global average pooling and head: (N, C, S, S) float32 → (N, K) logits."""

    def __init__(self, backbone: nn.Module, attention: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.attention, self.head = backbone, attention, head

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Map normalised pixels to logits."""
        features = self.attention(self.backbone(batch)).mean((2, 3))
        logits: torch.Tensor = self.head(features)
        return logits


def contract_for(name: str, size: int | None = None, *, gray_faces: bool = False) -> InputContract:
    """Return the input contract of a backbone at `size` pixels (None: the backbone's default).

    gray_faces: the training faces have no colour, so a colour backbone must not get any afterwards (gray3).
    """
    entry = backbone(name)
    contract = InputContract(size=size or entry.size, **entry.pixels)
    return replace(contract, colour="gray3") if gray_faces and contract.colour == "rgb" else contract


def describe(name: str, *, labels: int, head: str, attention: bool, dropout: float) -> Architecture:
    """The architecture of an unpruned network."""
    return Architecture(name, labels=labels, head=head, attention=attention, dropout=dropout)


def build(architecture: Architecture, *, weights: str = "none") -> EmotionNet:
    """The network of an architecture, initialised; `weights` is imagenet, none or a file for the backbone."""
    entry = backbone(architecture.backbone)
    trunk = build_trunk(entry, architecture.backbone, weights=weights)
    head = HEADS[architecture.head](entry.features, architecture.labels, architecture.dropout)
    attention = SpatialAttention() if architecture.attention else nn.Identity()
    network = EmotionNet(trunk, attention, head)
    initialise(network.attention, network.head)
    set_widths(network, architecture.widths)
    return network.to(memory_format=torch.channels_last)


def _make_enhanced_head(features: int, labels: int, dropout: float) -> nn.Sequential:
    """Return the origin document's classifier: three layers with BatchNorm and decreasing dropout."""
    return nn.Sequential(
        nn.Dropout(dropout),
        *(nn.Linear(features, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Dropout(dropout / 2)),
        *(nn.Linear(512, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Dropout(dropout / 4)),
        nn.Linear(256, labels),
    )


def _make_linear_head(features: int, labels: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Dropout(dropout), nn.Linear(features, labels))


HEADS = {"enhanced": _make_enhanced_head, "linear": _make_linear_head}


def initialise(*modules: nn.Module) -> None:
    """Initialise new layers with Xavier uniform weights (Glorot & Bengio 2010) and zero biases."""
    for module in modules:
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)


def widths_of(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Weight shape of every convolution and linear layer and size of every BatchNorm, by module name."""
    layers = ((name, m) for name, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear | _BATCH_NORM))
    return {name: tuple(m.weight.shape) for name, m in layers}


_BATCH_NORM = nn.BatchNorm1d | nn.BatchNorm2d
_CONV_OPTIONS = ("kernel_size", "stride", "padding", "dilation", "padding_mode")  # unchanged by a new width


def set_widths(network: nn.Module, widths: dict[str, tuple[int, ...]]) -> None:
    """Replace layers by fresh ones of the given weight shapes: the pruned architecture, ready for its state dict."""
    for name, shape in widths.items():
        old = network.get_submodule(name)
        if widths_of(old)[""] != shape:
            parent, _, leaf = name.rpartition(".")
            setattr(network.get_submodule(parent), leaf, _resize_layer(old, shape))


def _resize_layer(layer: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    if isinstance(layer, nn.Conv2d):
        kept: dict[str, Any] = {name: getattr(layer, name) for name in _CONV_OPTIONS}
        groups = shape[0] if layer.groups == layer.out_channels else layer.groups  # depthwise stays depthwise
        return nn.Conv2d(shape[1] * groups, shape[0], groups=groups, bias=layer.bias is not None, **kept)
    if isinstance(layer, nn.Linear):
        return nn.Linear(shape[1], shape[0], bias=layer.bias is not None)
    return type(layer)(shape[0], eps=layer.eps, momentum=layer.momentum)
