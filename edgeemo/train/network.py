"""The networks: a backbone from the table, optional spatial attention, and a classifier head.

A network is described by a plain dict (the card's `architecture`); `build` makes it again from that dict, pruned
widths included, so that weights are always a plain state dict and never a pickled module.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgeemo.card import InputContract
from edgeemo.errors import MachineError, UsageError, known
from edgeemo.train.pretrained import load_backbone

GRAY = {"colour": "gray", "mean": (0.5,), "std": (0.25,)}  # FER+ pixels: mean 0.505, std 0.255 of 0..1
IMAGENET = {"colour": "rgb", "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@dataclass(frozen=True)
class Backbone:
    """One line of the table: `make(pretrained)` gives a module (N, C, S, S) → (N, features, h, w)."""

    make: Callable[[bool], nn.Module]
    features: int
    size: int  # pixels, the input side it is meant for
    pixels: dict[str, Any]  # colour, mean, std of the input contract
    has_imagenet: bool = False


def _plain(widths: tuple[int, ...]) -> Callable[[bool], nn.Module]:
    """VGG with BatchNorm (Simonyan & Zisserman 2014): two 3x3 convolutions a stage, then halve."""

    def make(pretrained: bool) -> nn.Module:
        del pretrained  # the table says that there are no weights
        layers: list[nn.Module] = []
        channels = 1
        for stage, width in enumerate(widths):
            if stage:
                layers.append(nn.MaxPool2d(2))
            for _ in range(2):
                layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
                channels = width
        return nn.Sequential(*layers)

    return make


def _resnet(name: str) -> Callable[[bool], nn.Module]:
    """A torchvision ResNet (He et al. 2015) without its pooling and classifier."""

    def make(pretrained: bool) -> nn.Module:
        import torchvision

        weights = "IMAGENET1K_V1" if pretrained else None
        return nn.Sequential(*list(torchvision.models.get_model(name, weights=weights).children())[:-2])

    return make


BACKBONES = {
    "edge_vgg": Backbone(_plain((32, 64, 128, 256)), 256, 48, GRAY),
    "edge_vgg_slim": Backbone(_plain((16, 32, 64, 128)), 128, 48, GRAY),
    "resnet18": Backbone(_resnet("resnet18"), 512, 64, IMAGENET, has_imagenet=True),
    "resnet50": Backbone(_resnet("resnet50"), 2048, 224, IMAGENET, has_imagenet=True),
}


class SpatialAttention(nn.Module):
    """Weigh each position by a sigmoid of its mean and maximum over channels (CBAM's spatial half, Woo et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel_size=7, padding=3)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(N, C, h, w) → (N, C, h, w)."""
        summary = torch.cat([features.mean(1, keepdim=True), features.amax(1, keepdim=True)], 1)
        return features * torch.sigmoid(self.conv(summary))


class EmotionNet(nn.Module):
    """Backbone, attention, global average pooling and head: (N, C, S, S) float32 → (N, K) logits."""

    def __init__(self, backbone: nn.Module, attention: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.attention, self.head = backbone, attention, head

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Normalised pixels → logits."""
        features = self.attention(self.backbone(batch)).mean((2, 3))
        logits: torch.Tensor = self.head(features)
        return logits


def backbone(name: str) -> Backbone:
    """The table's entry; UsageError lists the known names."""
    if name not in BACKBONES:
        raise known("backbone", name, BACKBONES)
    return BACKBONES[name]


def contract_for(name: str, size: int, *, gray_faces: bool = False) -> InputContract:
    """The input contract of a backbone at `size` pixels; 0 is the backbone's own size.

    gray_faces: a colour backbone will see no colour in training, so it must be shown none afterwards (gray3).
    """
    entry = backbone(name)
    if size and not 32 <= size <= 512:
        raise UsageError(f"--size {size}: expected 32 to 512 pixels, or 0 for the backbone's own ({entry.size})")
    contract = InputContract(size=size or entry.size, **entry.pixels)
    return replace(contract, colour="gray3") if gray_faces and contract.colour == "rgb" else contract


def describe(name: str, *, labels: int, head: str, attention: bool, dropout: float) -> dict[str, Any]:
    """The architecture dict of an unpruned network."""
    return {"backbone": name, "labels": labels, "head": head, "attention": attention, "dropout": dropout, "widths": {}}


def build(architecture: dict[str, Any], *, weights: str = "none") -> EmotionNet:
    """The network of an architecture dict, initialised; `weights` is imagenet, none or a file for the backbone."""
    entry = backbone(architecture["backbone"])
    if weights == "imagenet" and not entry.has_imagenet:
        raise UsageError(f"there are no ImageNet weights for {architecture['backbone']}; use --weights none or a file")
    trunk = _download(entry, architecture["backbone"]) if weights == "imagenet" else entry.make(False)
    head = HEADS[architecture["head"]](entry.features, architecture["labels"], architecture["dropout"])
    attention = SpatialAttention() if architecture["attention"] else nn.Identity()
    network = EmotionNet(trunk, attention, head)
    initialise(network.attention, network.head)
    if weights not in ("imagenet", "none"):
        load_backbone(network.backbone, Path(weights))
    set_widths(network, architecture["widths"])
    return network.to(memory_format=torch.channels_last)


def _enhanced_head(features: int, labels: int, dropout: float) -> nn.Sequential:
    """Three layers with BatchNorm and falling dropout, the origin document's classifier."""
    return nn.Sequential(
        nn.Dropout(dropout),
        *(nn.Linear(features, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Dropout(dropout / 2)),
        *(nn.Linear(512, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Dropout(dropout / 4)),
        nn.Linear(256, labels),
    )


def _linear_head(features: int, labels: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Dropout(dropout), nn.Linear(features, labels))


HEADS = {"enhanced": _enhanced_head, "linear": _linear_head}


def initialise(*modules: nn.Module) -> None:
    """Xavier uniform weights and zero biases (Glorot & Bengio 2010) for new layers."""
    for module in modules:
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)


def _download(entry: Backbone, name: str) -> nn.Module:
    try:
        return entry.make(True)
    except OSError as error:
        raise MachineError(
            f"cannot download the ImageNet weights of {name} ({error}).  Give a file instead, --weights FILE "
            f"(torchvision's own .pth), or start from scratch, --weights none"
        ) from error


def widths_of(network: nn.Module) -> dict[str, list[int]]:
    """Weight shape of every convolution and linear layer and size of every BatchNorm, by module name."""
    layers = ((name, m) for name, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear | _BATCH_NORM))
    return {name: list(m.weight.shape) for name, m in layers}


_BATCH_NORM = nn.BatchNorm1d | nn.BatchNorm2d


def set_widths(network: nn.Module, widths: dict[str, list[int]]) -> None:
    """Replace layers by fresh ones of the given weight shapes: the pruned architecture, ready for its state dict."""
    for name, shape in widths.items():
        old = network.get_submodule(name)
        if widths_of(old)[""] != shape:
            parent, _, leaf = name.rpartition(".")
            setattr(network.get_submodule(parent), leaf, _resized(old, shape))


def _resized(layer: nn.Module, shape: list[int]) -> nn.Module:
    if isinstance(layer, nn.Conv2d):
        size: dict[str, Any] = {"kernel_size": layer.kernel_size, "stride": layer.stride, "padding": layer.padding}
        return nn.Conv2d(shape[1] * layer.groups, shape[0], groups=layer.groups, bias=layer.bias is not None, **size)
    if isinstance(layer, nn.Linear):
        return nn.Linear(shape[1], shape[0], bias=layer.bias is not None)
    return type(layer)(shape[0], eps=layer.eps, momentum=layer.momentum)
