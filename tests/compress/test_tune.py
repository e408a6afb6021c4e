"""Simulated INT8: what it rounds, that it leaves no trace, and that it is what the engine computes."""

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
from edgeemo.compress.quantize.qdq import quantize
from edgeemo.compress.quantize.ranges import file_logits, observe
from edgeemo.compress.quantize.tune import HANDING_ON, Simulated
from edgeemo.data import Faces
from edgeemo.train import run_folder
from edgeemo.train.fit import predict_logits
from edgeemo.train.network import BACKBONES, EmotionNet, build, contract_for, describe


def simulated(trained: Path, faces: Faces, *, target_format: str = "cpu") -> Simulated:
    network, card = run_folder.load(trained)
    made = Simulated(network, target_format=target_format)
    made.calibrate(faces, card.input)
    return made.eval()


@pytest.mark.parametrize("target_format", ["cpu", "tensorrt"])
def test_the_simulation_rounds_as_the_file_does(
    target_format: str, trained: Path, float_model: Path, calibration_faces: Faces, tmp_path: Path
) -> None:
    """Its logits are nearer to the INT8 file's than the file's are to float's: most of the noise is the same noise."""
    network, card = run_folder.load(trained)
    exact = predict_logits(network, calibration_faces, card.input)
    ours = predict_logits(
        simulated(trained, calibration_faces, target_format=target_format), calibration_faces, card.input
    )
    ranges = observe(float_model, calibration_faces, card.input, method="minmax")
    quantize(ranges, tmp_path / "int8.onnx", target_format=target_format)
    theirs = file_logits(tmp_path / "int8.onnx", calibration_faces, card.input, threads=1)
    assert (ours - theirs).std() < 0.85 * (theirs - exact).std()
    assert (ours.argmax(1) == theirs.argmax(1)).mean() >= 0.95


def test_weights_get_the_integers_that_they_have_in_the_file(
    trained: Path, float_model: Path, calibration_faces: Faces, tmp_path: Path
) -> None:
    """Of every layer, but for ties that the folding of BatchNorm turns: fewer than one in a thousand."""
    made = simulated(trained, calibration_faces)
    ranges = observe(float_model, calibration_faces, read_card(float_model).input, method="minmax")
    quantize(ranges, tmp_path / "int8.onnx", target_format="cpu")
    stored = {t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / "int8.onnx").graph.initializer}
    for name in ranges.layers:
        layer = made.get_submodule(name)
        scale = layer.parametrizations.weight[0].scale.reshape(-1, *[1] * (layer.weight.ndim - 1))
        ours = (layer.weight.detach() / scale).round().numpy()
        theirs = stored[f"{name}.weight_quantized"]
        assert (np.abs(ours - theirs.reshape(ours.shape)) > 0).mean() < 1e-3, name


@pytest.mark.parametrize("target_format", ["cpu", "tensorrt"])
def test_the_input_has_the_steps_that_it_has_in_the_file(
    target_format: str, trained: Path, float_model: Path, calibration_faces: Faces, tmp_path: Path
) -> None:
    """Where no gray level lies on a rounding tie; not even where faces lack black, and not after some training."""
    faces = replace(calibration_faces, pixels=calibration_faces.pixels.clip(1, 255))
    made = simulated(trained, faces, target_format=target_format)
    made.train()(torch.zeros(2, 1, 64, 64))
    ranges = observe(float_model, faces, read_card(float_model).input, method="minmax")
    quantize(ranges, tmp_path / "int8.onnx", target_format=target_format)
    stored = {t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / "int8.onnx").graph.initializer}
    assert float(made.quantizers["at_0"].scale) == pytest.approx(float(stored["images_scale"]), rel=1e-6)


def test_eight_bits_are_eight_bits(trained: Path, calibration_faces: Faces) -> None:
    """Weights have at most 255 values a channel, activations at most 256."""
    made = simulated(trained, calibration_faces)
    first = made.backbone[0]
    assert all(len(channel.unique()) <= 255 for channel in first.weight.detach())
    seen: list[torch.Tensor] = []
    made.quantizers["at_1"].register_forward_hook(lambda _, __, out: seen.append(out))
    made(torch.randn(4, 1, 48, 48))
    assert 16 < len(seen[0].unique()) <= 256


def test_the_real_network_comes_back_as_it_was(trained: Path, calibration_faces: Faces) -> None:
    """Without training: the same tensors under the same names, and no rounding left."""
    before = {name: tensor.clone() for name, tensor in run_folder.load(trained)[0].state_dict().items()}
    made = simulated(trained, calibration_faces)
    real = made.real()
    assert type(real) is EmotionNet
    assert set(real.state_dict()) == set(before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in real.state_dict().items())
    assert not any(parametrize.is_parametrized(module) for module in real.modules())


def test_faces_that_judge_do_not_move_the_ranges(trained: Path, calibration_faces: Faces) -> None:
    """In evaluation a harsher face changes no scale; in training it does; standing still it does not."""
    made = simulated(trained, calibration_faces)
    bright = torch.tensor([-40.0, 40.0]).reshape(2, 1, 1, 1).expand(2, 1, 48, 48)

    def scale_after(*, training: bool) -> float:
        made.train(training)
        made(bright)
        return float(made.quantizers["at_1"].scale)

    made(bright)  # a scale is worked out when it is first used
    still = float(made.quantizers["at_1"].scale)
    assert scale_after(training=False) == still
    assert scale_after(training=True) != still
    moved = float(made.quantizers["at_1"].scale)
    made.still = True
    assert scale_after(training=True) == moved


@pytest.mark.parametrize(("epochs", "moving"), [(4, 2), (3, 1), (1, 0)])
def test_from_the_middle_on_batchnorm_stands_still(
    epochs: int, moving: int, trained: Path, calibration_faces: Faces
) -> None:
    """Of four epochs the first two move the running means, of three the first, of one none."""
    made = simulated(trained, calibration_faces)
    begin, mean = made.each_epoch(epochs), made.backbone[1].running_mean
    for epoch in range(epochs):
        begin(made, epoch)
        moves = epoch < moving
        before = mean.clone()
        made(torch.randn(8, 1, 48, 48))
        assert (not torch.equal(mean, before)) == moves


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_can_be_simulated(name: str) -> None:
    """Each conv's input is rounded, gradients reach the first layer, and the logits are finite."""
    torch.manual_seed(0)
    network = build(describe(name, labels=6, head="enhanced", attention=True, dropout=0.1))
    for norm in network.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.momentum = 1.0  # a random network fades to nothing until its BatchNorms have seen a batch
    network.train()(torch.randn(16, contract_for(name, 64).channels, 64, 64))
    made = Simulated(network, target_format="tensorrt")
    contract = contract_for(name, 64)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3)[: 3 if contract.channels == 1 else 4], np.uint8)
    made.calibrate(Faces(pixels, np.eye(6, dtype=np.float32)[:4], np.arange(4), list("abcd")), contract)
    layers = made.simulation
    convs = [
        node
        for node in layers.graph.nodes
        if node.op == "call_module" and isinstance(layers.get_submodule(node.target), torch.nn.Conv2d)
    ]
    assert len(convs) == sum(isinstance(layer, torch.nn.Conv2d) for layer in network.modules())
    assert all(_comes_rounded(node.args[0], made) for node in convs)
    made.train()
    logits = made(torch.randn(4, contract.channels, 64, 64))
    assert torch.isfinite(logits).all()
    logits.square().sum().backward()
    first = next(p for p in made.backbone.parameters() if p.ndim == 4)
    assert torch.isfinite(first.grad).all()
    assert first.grad.abs().max() > 0


def _comes_rounded(node: torch.fx.Node, made: Simulated) -> bool:
    """Whether a tensor comes out of a quantizer, perhaps through layers that hand its numbers on."""
    if node.op == "call_module" and str(node.target).startswith("quantizers."):
        return True
    hands_on = node.op == "call_module" and isinstance(made.simulation.get_submodule(node.target), HANDING_ON)
    return hands_on and _comes_rounded(node.args[0], made)
