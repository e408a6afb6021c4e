"""Quantization-aware training: fake quantization matches the INT8 file, and is removed completely."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch.nn.utils import parametrize

from edgeemo.card import read_card
from edgeemo.compress.quantize.qat import PASS_THROUGH, FakeQuantizedNetwork
from edgeemo.compress.quantize.qdq import quantize
from edgeemo.compress.quantize.ranges import observe, predict_onnx
from edgeemo.data import Faces
from edgeemo.train import run_folder
from edgeemo.train.fit import predict_logits
from edgeemo.train.network import BACKBONES, EmotionNet, build, contract_for, describe


def make_network(trained: Path, faces: Faces, *, target_format: str = "cpu") -> FakeQuantizedNetwork:
    network, card = run_folder.load(trained)
    network = FakeQuantizedNetwork(network, target_format=target_format)
    network.calibrate(faces, card.input)
    return network.eval()


@pytest.mark.parametrize("target_format", ["cpu", "tensorrt"])
def test_fake_quantization_matches_the_file(
    target_format: str, trained: Path, float_model: Path, calibration_faces: Faces, tmp_path: Path
) -> None:
    """Its logits are closer to those of the INT8 file than the file's are to float: most of the error is the same."""
    network, card = run_folder.load(trained)
    exact = predict_logits(network, calibration_faces, card.input)
    fake = predict_logits(
        make_network(trained, calibration_faces, target_format=target_format), calibration_faces, card.input
    )
    ranges = observe(float_model, calibration_faces, card.input, method="minmax")
    quantize(ranges, tmp_path / "int8.onnx", target_format=target_format)
    actual = predict_onnx(tmp_path / "int8.onnx", calibration_faces, card.input, threads=1)
    assert (fake - actual).std() < 0.85 * (actual - exact).std()
    assert (fake.argmax(1) == actual.argmax(1)).mean() >= 0.95


def test_weights_have_the_integers_of_the_file(
    trained: Path, float_model: Path, calibration_faces: Faces, tmp_path: Path
) -> None:
    """In every layer, except ties changed by the folding of BatchNorm: fewer than one in a thousand."""
    network = make_network(trained, calibration_faces)
    ranges = observe(float_model, calibration_faces, read_card(float_model).input, method="minmax")
    quantize(ranges, tmp_path / "int8.onnx", target_format="cpu")
    stored = {t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / "int8.onnx").graph.initializer}
    for name in ranges.layers:
        layer = network.get_submodule(name)
        scale = layer.parametrizations.weight[0].scale.reshape(-1, *[1] * (layer.weight.ndim - 1))
        fake = (layer.weight.detach() / scale).round().numpy()
        actual = stored[f"{name}.weight_quantized"]
        assert (np.abs(fake - actual.reshape(fake.shape)) > 0).mean() < 1e-3, name


@pytest.mark.parametrize("target_format", ["cpu", "tensorrt"])
def test_the_input_has_the_scale_of_the_file(
    target_format: str, trained: Path, float_model: Path, calibration_faces: Faces, tmp_path: Path
) -> None:
    """The scale without rounding ties, even on faces without black, and after a training step."""
    faces = replace(calibration_faces, pixels=calibration_faces.pixels.clip(1, 255))
    network = make_network(trained, faces, target_format=target_format)
    network.train()(torch.zeros(2, 1, 64, 64))
    ranges = observe(float_model, faces, read_card(float_model).input, method="minmax")
    quantize(ranges, tmp_path / "int8.onnx", target_format=target_format)
    stored = {t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / "int8.onnx").graph.initializer}
    assert float(network.quantizers["at_0"].scale) == pytest.approx(float(stored["images_scale"]), rel=1e-6)


def test_tensors_have_at_most_eight_bits(trained: Path, calibration_faces: Faces) -> None:
    """Weights have at most 255 values per channel, activations at most 256."""
    network = make_network(trained, calibration_faces)
    first = network.backbone[0]
    assert all(len(channel.unique()) <= 255 for channel in first.weight.detach())
    outputs: list[torch.Tensor] = []
    network.quantizers["at_1"].register_forward_hook(lambda _, __, out: outputs.append(out))
    network(torch.randn(4, 1, 48, 48))
    assert 16 < len(outputs[0].unique()) <= 256


def test_the_float_network_is_restored(trained: Path, calibration_faces: Faces) -> None:
    """Without training: the same tensors by name, and no rounding."""
    before = {name: tensor.clone() for name, tensor in run_folder.load(trained)[0].state_dict().items()}
    network = make_network(trained, calibration_faces)
    real = network.to_float()
    assert type(real) is EmotionNet
    assert set(real.state_dict()) == set(before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in real.state_dict().items())
    assert not any(parametrize.is_parametrized(module) for module in real.modules())


def test_evaluation_does_not_change_the_ranges(trained: Path, calibration_faces: Faces) -> None:
    """A face with more contrast changes a scale in training only, and not when the ranges are frozen."""
    network = make_network(trained, calibration_faces)
    bright = torch.tensor([-40.0, 40.0]).reshape(2, 1, 1, 1).expand(2, 1, 48, 48)

    def scale_after(*, training: bool) -> float:
        network.train(training)
        network(bright)
        return float(network.quantizers["at_1"].scale)

    network(bright)  # the scale is computed at first use
    before = float(network.quantizers["at_1"].scale)
    assert scale_after(training=False) == before
    assert scale_after(training=True) != before
    moved = float(network.quantizers["at_1"].scale)
    network.frozen = True
    assert scale_after(training=True) == moved


@pytest.mark.parametrize(("epochs", "updated"), [(4, 2), (3, 1), (1, 0)])
def test_batchnorm_is_frozen_in_the_second_half(
    epochs: int, updated: int, trained: Path, calibration_faces: Faces
) -> None:
    """The running means are updated in the first two of four epochs, the first of three, and not in a single one."""
    network = make_network(trained, calibration_faces)
    on_epoch_start, mean = network.make_epoch_hook(epochs), network.backbone[1].running_mean
    for epoch in range(epochs):
        on_epoch_start(network, epoch)
        before = mean.clone()
        network(torch.randn(8, 1, 48, 48))
        assert (not torch.equal(mean, before)) == (epoch < updated)


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_can_be_fake_quantized(name: str) -> None:
    """The input of every convolution is quantized, gradients reach the first layer, and the logits are finite."""
    torch.manual_seed(0)
    network = build(describe(name, labels=6, head="enhanced", attention=True, dropout=0.1))
    for norm in network.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.momentum = 1.0  # activations of a random network vanish until its BatchNorms have seen a batch
    network.train()(torch.randn(16, contract_for(name, 64).channels, 64, 64))
    network = FakeQuantizedNetwork(network, target_format="tensorrt")
    contract = contract_for(name, 64)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3)[: 3 if contract.channels == 1 else 4], np.uint8)
    network.calibrate(Faces(pixels, np.eye(6, dtype=np.float32)[:4], np.arange(4), list("abcd")), contract)
    layers = network.simulation
    convs = [
        node
        for node in layers.graph.nodes
        if node.op == "call_module" and isinstance(layers.get_submodule(node.target), torch.nn.Conv2d)
    ]
    assert len(convs) == sum(isinstance(layer, torch.nn.Conv2d) for layer in network.modules())
    assert all(_is_quantized(node.args[0], network) for node in convs)
    network.train()
    logits = network(torch.randn(4, contract.channels, 64, 64))
    assert torch.isfinite(logits).all()
    logits.square().sum().backward()
    first = next(p for p in network.backbone.parameters() if p.ndim == 4)
    assert torch.isfinite(first.grad).all()
    assert first.grad.abs().max() > 0


def _is_quantized(node: torch.fx.Node, network: FakeQuantizedNetwork) -> bool:
    """Return whether a tensor is the output of a quantizer, possibly through layers that do not change values."""
    if node.op == "call_module" and str(node.target).startswith("quantizers."):
        return True
    passes_through = node.op == "call_module" and isinstance(
        network.simulation.get_submodule(node.target), PASS_THROUGH
    )
    return passes_through and _is_quantized(node.args[0], network)
