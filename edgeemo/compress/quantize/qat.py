"""Quantization-aware training (QAT): fine-tuning with fake quantization, so that the weights adapt to rounding.

Every tensor that will have 8 bits passes torchao's fake quantization: rounded in the forward pass, with a
straight-through gradient (Jacob et al. 2018). BatchNorm need not be folded for this: it scales each channel, and each
channel of weights has its own scale, so rounding before BatchNorm or after folding gives the same integers. In the
second half of the epochs, the ranges and BatchNorm's statistics are frozen (Krishnamoorthi 2018): for the last two of
three epochs, and for all of a single epoch, which trains weights only.

The network's own modules are fine-tuned in place, and the fake quantization is removed afterwards; export, ranges and
Q/DQ then follow as after training. Post-training quantization (PTQ) is QAT with 0 epochs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import fx, nn
from torch.nn.utils import parametrize

from edgeemo.card import InputContract
from edgeemo.compress.export import silence
from edgeemo.compress.quantize.qdq import INPUT_STEPS
from edgeemo.data import Faces
from edgeemo.images import to_input
from edgeemo.packages import require
from edgeemo.progress import track
from edgeemo.train.network import EmotionNet

CALIBRATION_BATCH = 32
RANGE_STEP = 0.01  # weight of the range of each batch in the moving average, in training
BATCH_NORM = nn.BatchNorm1d | nn.BatchNorm2d
RECTIFIERS = nn.ReLU | nn.ReLU6  # engines fuse them with the preceding layer, so there is no rounding in between
# Modules that do not change values: no new range, so no second rounding.
PASS_THROUGH = nn.Dropout | nn.Identity | nn.MaxPool2d | nn.ZeroPad2d | nn.Flatten
# uint8 for ONNX Runtime's kernels, symmetric int8 for TensorRT.
ACTIVATIONS = {
    "cpu": {"dtype": torch.uint8, "quant_min": 0, "quant_max": 255, "qscheme": torch.per_tensor_affine},
    "tensorrt": {"dtype": torch.int8, "quant_min": -127, "quant_max": 127, "qscheme": torch.per_tensor_symmetric},
}
WEIGHTS = {"dtype": torch.int8, "qscheme": torch.per_channel_symmetric, "ch_axis": 0}
MAX_WEIGHT = {True: 64, False: 127}  # by reduce_range, as in the INT8 file


class FakeQuantizedNetwork(EmotionNet):
    """A network with the rounding of its INT8 form; backbone, attention and head are those of the float network."""

    simulation: fx.GraphModule
    input_quantizer: str  # name of the quantizer of the network's input, whose range is that of the contract

    def __init__(self, network: EmotionNet, *, target_format: str, reduce_range: bool = True) -> None:
        super().__init__(network.backbone, network.attention, network.head)
        self.frozen = False
        self.quantizers = nn.ModuleDict()
        graph = fx.Tracer().trace(network.eval())
        quantized_nodes = [node for node in graph.nodes if _is_quantized(node, network)]
        for number, node in enumerate(quantized_nodes):
            name = f"at_{number}"
            options = dict(ACTIVATIONS[target_format])
            if node.op == "placeholder":
                self.input_quantizer = name
                options["quant_max"] = INPUT_STEPS if target_format == "cpu" else options["quant_max"]
            self.quantizers[name] = _make_fake_quantizer("MovingAverageMinMaxObserver", RANGE_STEP, options)
            with graph.inserting_after(node):
                quantized = graph.call_module(f"quantizers.{name}", (node,))
            node.replace_all_uses_with(quantized)
            quantized.args = (node,)
        largest = MAX_WEIGHT[reduce_range]
        weights = {**WEIGHTS, "quant_min": -largest, "quant_max": largest}
        for layer in self._list_weighted_layers():
            quantizer = _make_fake_quantizer("MovingAveragePerChannelMinMaxObserver", 1.0, weights)
            parametrize.register_parametrization(layer, "weight", quantizer)
        # Not registered as a child: it shares all layers with this module.
        object.__setattr__(self, "simulation", fx.GraphModule(self, graph))

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return (N, K) logits of a (N, C, S, S) float32 batch, with the rounding error of 8 bits."""
        logits: torch.Tensor = self.simulation(batch)
        return logits

    def train(self, mode: bool = True) -> FakeQuantizedNetwork:  # noqa: FBT002  torch's own signature
        """Set the mode as usual; ranges are updated in training mode only, so evaluation does not influence them."""
        super().train(mode)
        updates = mode and not self.frozen
        for name, quantizer in self.quantizers.items():
            cast("Any", quantizer).enable_observer(updates and name != self.input_quantizer)
        for norm in self._list_norms():
            norm.train(updates)
        return self

    def calibrate(self, faces: Faces, contract: InputContract) -> None:
        """Set the range of every activation to its extremes on these faces, as minmax does for the file.

        The range of the input is always that of the contract.
        """
        self.eval()
        quantizers: list[Any] = list(self.quantizers.values())
        for quantizer in quantizers:
            quantizer.enable_observer(True)
            quantizer.enable_fake_quant(False)
            quantizer.activation_post_process.averaging_constant = 1.0  # no averaging over batches
        batch_ranges = []  # (quantizers, 2) per batch
        starts = range(0, len(faces), CALIBRATION_BATCH)
        with torch.inference_mode():
            for start in track(starts, "calibrating the fake quantization", total=len(starts)):
                self(torch.from_numpy(to_input(faces.pixels[start : start + CALIBRATION_BATCH], contract)))
                observers = [quantizer.activation_post_process for quantizer in quantizers]
                limits = [[float(observer.min_val), float(observer.max_val)] for observer in observers]
                batch_ranges.append(torch.tensor(limits))
        ranges = torch.stack(batch_ranges)
        for quantizer, low, high in zip(quantizers, ranges[..., 0].amin(0), ranges[..., 1].amax(0), strict=True):
            _set_range(quantizer, low, high)
        _set_range(self.quantizers[self.input_quantizer], *map(torch.tensor, contract.range))

    def make_epoch_hook(self, epochs: int) -> Any:
        """Return a function for `fit` to call at the start of each epoch, which freezes the second half of the epochs.

        Frozen are the ranges and BatchNorm's statistics, also in the middle one of an odd number of epochs.
        """

        def on_epoch_start(_: EmotionNet, epoch: int) -> None:
            self.frozen = epoch >= epochs // 2
            self.train()

        return on_epoch_start

    def to_float(self) -> EmotionNet:
        """Return the float network without fake quantization; this object must not be used afterwards."""
        for layer in self._list_weighted_layers():
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
        return EmotionNet(self.backbone, self.attention, self.head).to(memory_format=torch.channels_last)

    def _list_weighted_layers(self) -> list[nn.Module]:
        parts = (self.backbone, self.attention, self.head)
        return [m for part in parts for m in part.modules() if isinstance(m, nn.Conv2d | nn.Linear)]

    def _list_norms(self) -> Iterator[nn.Module]:
        parts = (self.backbone, self.attention, self.head)
        return (m for part in parts for m in part.modules() if isinstance(m, BATCH_NORM))


def _make_fake_quantizer(observer: str, step: float, options: dict[str, Any]) -> nn.Module:
    with silence():  # importing torchao prints deprecation warnings of torch
        library = require("torchao.quantization.pt2e", extra="train", purpose="quantization-aware training")
    # Not torchao's fused fake quantization: its symmetric scales are off by 0.4 %, which gave a fifth of the weights of
    # edge_vgg_slim's first layer another integer than in the file.
    quantizer: nn.Module = library.FakeQuantize(observer=getattr(library, observer), averaging_constant=step, **options)
    return quantizer


def _set_range(quantizer: Any, low: torch.Tensor, high: torch.Tensor) -> None:
    """Start rounding to this range, which training updates by a moving average with weight RANGE_STEP."""
    observer = quantizer.activation_post_process
    observer.min_val.copy_(low)
    observer.max_val.copy_(high)
    observer.averaging_constant = RANGE_STEP
    scale, zero_point = quantizer.calculate_qparams()
    quantizer.scale.copy_(scale)
    quantizer.zero_point.copy_(zero_point)
    quantizer.enable_fake_quant(True)


def _is_quantized(node: fx.Node, network: nn.Module) -> bool:
    """Return whether a tensor has 8 bits in the INT8 form: all but logits and those fused with the next layer."""
    layer = _get_layer(node, network)
    following = [_get_layer(user, network) for user in node.users]
    if node.op in ("get_attr", "output") or isinstance(layer, PASS_THROUGH) or "stochastic_depth" in str(node.target):
        return False
    if any(user.op == "output" for user in node.users):
        return False
    return not (len(following) == 1 and isinstance(following[0], BATCH_NORM | RECTIFIERS))


def _get_layer(node: fx.Node, network: nn.Module) -> nn.Module | None:
    return network.get_submodule(str(node.target)) if node.op == "call_module" else None
