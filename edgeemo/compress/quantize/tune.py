"""Quantization-aware training: the network feels the rounding while it learns, so that its weights come to bear it.

Every tensor that will have 8 bits goes through torchao's fake quantization: rounded forwards, passed on as it is
backwards (Jacob et al. 2018). BatchNorm needs no folding for that. It scales each channel, each channel of weights has
a scale of its own, so rounding before the BatchNorm or after folding it gives the same integers. From the middle of
the epochs on BatchNorm's statistics and the ranges stand still (Krishnamoorthi 2018): for the last two of three, and
for all of a single one, which learns weights alone.

The network's own modules are tuned in place and come back without a trace of the simulation; what follows, export,
ranges and Q/DQ, is the road that PTQ goes. PTQ is this with no epochs.
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
RANGE_STEP = 0.01  # part of a batch's range that moves an activation's range while it learns
BATCH_NORM = nn.BatchNorm1d | nn.BatchNorm2d
RECTIFIERS = nn.ReLU | nn.ReLU6  # an engine fuses them with what comes before, so nothing is rounded between
# What hands on the numbers it gets: no new range, so no second rounding.
HANDING_ON = nn.Dropout | nn.Identity | nn.MaxPool2d | nn.ZeroPad2d | nn.Flatten
# uint8 as ONNX Runtime's kernels want it, or int8 around zero as TensorRT does.
ACTIVATIONS = {
    "cpu": {"dtype": torch.uint8, "quant_min": 0, "quant_max": 255, "qscheme": torch.per_tensor_affine},
    "tensorrt": {"dtype": torch.int8, "quant_min": -127, "quant_max": 127, "qscheme": torch.per_tensor_symmetric},
}
WEIGHTS = {"dtype": torch.int8, "qscheme": torch.per_channel_symmetric, "ch_axis": 0}
LARGEST_WEIGHT = {True: 64, False: 127}  # by reduce_range, as the quantizer stores them


class Simulated(EmotionNet):
    """A network that rounds as its INT8 form will; its backbone, attention and head are those of the real one."""

    simulation: fx.GraphModule
    of_input: str  # name of the quantizer of the network's input, whose range is the contract's

    def __init__(self, network: EmotionNet, *, target_format: str, reduce_range: bool = True) -> None:
        super().__init__(network.backbone, network.attention, network.head)
        self.still = False
        self.quantizers = nn.ModuleDict()
        graph = fx.Tracer().trace(network.eval())
        for number, node in enumerate(_rounded(graph, network)):
            name = f"at_{number}"
            form = dict(ACTIVATIONS[target_format])
            if node.op == "placeholder":
                self.of_input = name
                form["quant_max"] = INPUT_STEPS if target_format == "cpu" else form["quant_max"]
            self.quantizers[name] = _fake_quantize("MovingAverageMinMaxObserver", RANGE_STEP, form)
            with graph.inserting_after(node):
                after = graph.call_module(f"quantizers.{name}", (node,))
            node.replace_all_uses_with(after)
            after.args = (node,)
        largest = LARGEST_WEIGHT[reduce_range]
        weights = {**WEIGHTS, "quant_min": -largest, "quant_max": largest}
        for layer in self._weighted():
            observer = _fake_quantize("MovingAveragePerChannelMinMaxObserver", 1.0, weights)
            parametrize.register_parametrization(layer, "weight", observer)
        # Not a child of this module: it shares all of its layers.
        object.__setattr__(self, "simulation", fx.GraphModule(self, graph))

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """(N, C, S, S) float32 → (N, K) logits, with the noise of 8 bits."""
        logits: torch.Tensor = self.simulation(batch)
        return logits

    def train(self, mode: bool = True) -> Simulated:  # noqa: FBT002  torch's own signature
        """As any module; ranges are learned in training mode only, so that faces which judge do not shape them."""
        super().train(mode)
        learns = mode and not self.still
        for name, quantizer in self.quantizers.items():
            cast("Any", quantizer).enable_observer(learns and name != self.of_input)
        for norm in self._norms():
            norm.train(learns)
        return self

    def calibrate(self, faces: Faces, contract: InputContract) -> None:
        """Set the range of every activation to the widest on these faces, as minmax does for the file.

        The input's is that of the contract, and stays it.
        """
        self.eval()
        quantizers: list[Any] = list(self.quantizers.values())
        for quantizer in quantizers:
            quantizer.enable_observer(True)
            quantizer.enable_fake_quant(False)
            quantizer.activation_post_process.averaging_constant = 1.0  # the range of each batch by itself
        seen = []  # per batch, (quantizers, 2)
        starts = range(0, len(faces), CALIBRATION_BATCH)
        with torch.inference_mode():
            for start in track(starts, "calibrating the simulation", total=len(starts)):
                self(torch.from_numpy(to_input(faces.pixels[start : start + CALIBRATION_BATCH], contract)))
                observers = [quantizer.activation_post_process for quantizer in quantizers]
                seen.append(torch.tensor([[float(one.min_val), float(one.max_val)] for one in observers]))
        ranges = torch.stack(seen)
        for quantizer, low, high in zip(quantizers, ranges[..., 0].amin(0), ranges[..., 1].amax(0), strict=True):
            _set_range(quantizer, low, high)
        _set_range(self.quantizers[self.of_input], *map(torch.tensor, contract.range))

    def each_epoch(self, epochs: int) -> Any:
        """What `fit` is to call when an epoch begins: from the middle on ranges and BatchNorm's statistics stand.

        An odd number of epochs has its middle one in the part that stands.
        """

        def begin(_: EmotionNet, epoch: int) -> None:
            self.still = epoch >= epochs // 2
            self.train()

        return begin

    def real(self) -> EmotionNet:
        """The tuned network, free of the simulation; this object must not be used afterwards."""
        for layer in self._weighted():
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
        return EmotionNet(self.backbone, self.attention, self.head).to(memory_format=torch.channels_last)

    def _weighted(self) -> list[nn.Module]:
        parts = (self.backbone, self.attention, self.head)
        return [m for part in parts for m in part.modules() if isinstance(m, nn.Conv2d | nn.Linear)]

    def _norms(self) -> Iterator[nn.Module]:
        parts = (self.backbone, self.attention, self.head)
        return (m for part in parts for m in part.modules() if isinstance(m, BATCH_NORM))


def _fake_quantize(observer: str, step: float, options: dict[str, Any]) -> nn.Module:
    with silence():  # torchao's import warns of torch's own plans
        library = require("torchao.quantization.pt2e", extra="train", purpose="quantization-aware training")
    # Not torchao's fused form: its symmetric scales are 0.4 % off, and a fifth of edge_vgg_slim's first weights got
    # another integer than in the file.
    made: nn.Module = library.FakeQuantize(observer=getattr(library, observer), averaging_constant=step, **options)
    return made


def _set_range(quantizer: Any, low: torch.Tensor, high: torch.Tensor) -> None:
    """From here on it rounds to this range, which training moves by RANGE_STEP of each batch's."""
    observer = quantizer.activation_post_process
    observer.min_val.copy_(low)
    observer.max_val.copy_(high)
    observer.averaging_constant = RANGE_STEP
    scale, zero_point = quantizer.calculate_qparams()
    quantizer.scale.copy_(scale)
    quantizer.zero_point.copy_(zero_point)
    quantizer.enable_fake_quant(True)


def _rounded(graph: fx.Graph, network: nn.Module) -> list[fx.Node]:
    """The tensors that have 8 bits in the INT8 form: every new one but logits and what is fused with the next layer."""
    return [node for node in graph.nodes if node.op != "output" and _is_rounded(node, network)]


def _is_rounded(node: fx.Node, network: nn.Module) -> bool:
    layer = _layer(node, network)
    after = [_layer(user, network) for user in node.users]
    if node.op == "get_attr" or isinstance(layer, HANDING_ON) or "stochastic_depth" in str(node.target):
        return False
    if any(user.op == "output" for user in node.users):
        return False
    return not (len(after) == 1 and isinstance(after[0], BATCH_NORM | RECTIFIERS))


def _layer(node: fx.Node, network: nn.Module) -> nn.Module | None:
    return network.get_submodule(str(node.target)) if node.op == "call_module" else None
