"""GPTQ rounding: integers that err less in the output of a layer, and nothing else in the file changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from edgeemo.card import read_card
from edgeemo.compress import plan
from edgeemo.compress.quantize import rounding
from edgeemo.compress.quantize.overflow import check_weights
from edgeemo.compress.quantize.qdq import quantize
from edgeemo.compress.quantize.ranges import Ranges, observe
from edgeemo.compress.quantize.rounding import Layer, compensate, exact_weights, round_weights
from edgeemo.data import Faces
from edgeemo.errors import UsageError
from edgeemo.stages import Compress


@pytest.fixture(scope="module")
def ranges(float_model: Path, calibration_faces: Faces) -> Ranges:
    return observe(float_model, calibration_faces, read_card(float_model).input, method="minmax")


def constants(path: Path) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def test_inputs_without_correlation_are_rounded_to_the_nearest(rng: np.random.Generator) -> None:
    """No later weight can make up for an earlier one."""
    weights = rng.normal(0, 30, (8, 12)).clip(-60, 60)
    assert np.array_equal(compensate(weights, np.eye(12), largest=64), np.rint(weights))


def test_correlated_inputs_err_less_than_by_the_nearest(rng: np.random.Generator) -> None:
    """On inputs that go together, the output errs by less than half as much, and no weight exceeds the largest."""
    inputs = rng.normal(size=(2000, 4)) @ rng.normal(size=(4, 16)) + 0.1 * rng.normal(size=(2000, 16))
    weights = rng.normal(0, 20, (8, 16)).clip(-64, 64)
    rounded = compensate(weights, inputs.T @ inputs / len(inputs), largest=64)
    ours, nearest = (np.square(inputs @ (found - weights).T).mean() for found in (rounded, np.rint(weights)))
    assert ours < nearest / 4
    assert np.abs(rounded).max() <= 64
    assert np.array_equal(rounded, np.rint(rounded))


@pytest.mark.parametrize(("stride", "pads"), [((1, 1), (1, 1, 1, 1)), ((2, 1), (0, 2, 1, 1))])
def test_the_vectors_of_a_convolution_are_those_that_meet_its_weights(
    stride: tuple[int, int], pads: tuple[int, ...], rng: np.random.Generator
) -> None:
    """Multiplied by the weights they give what torch's convolution gives, in any order."""
    data, weights = rng.normal(size=(2, 3, 9, 7)), rng.normal(size=(5, 3, 3, 3))
    node = helper.make_node("Conv", ["x", "w"], ["y"], strides=list(stride), pads=list(pads))
    layer = Layer(node, "w_quantized")
    found = layer.vectors(data, (3, 3), 10**6, rng) @ layer.by_output(weights).T
    top, left, bottom, right = pads
    padded = torch.nn.functional.pad(torch.from_numpy(data), (left, right, top, bottom))
    expected = torch.nn.functional.conv2d(padded, torch.from_numpy(weights), stride=stride)
    assert np.allclose(found, expected.permute(0, 2, 3, 1).reshape(-1, 5).numpy())


@pytest.mark.parametrize(
    ("attributes", "supported"), [({}, True), ({"group": 3}, False), ({"dilations": [2, 2]}, False)]
)
def test_layers_whose_vectors_are_others_are_left_alone(attributes: dict, supported: bool) -> None:
    """Groups and dilation meet other inputs."""
    assert Layer(helper.make_node("Conv", ["x", "w"], ["y"], **attributes), "w").supported == supported


@pytest.mark.parametrize("target_format", ["cpu", "tensorrt"])
def test_layers_err_less_and_only_their_weights_change(
    target_format: str, ranges: Ranges, float_model: Path, calibration_faces: Faces, tmp_path: Path
) -> None:
    """Half of the squared error in the outputs or less; the same scales and biases; no weight beyond the limit."""
    contract, path, rounded = read_card(float_model).input, tmp_path / "nearest.onnx", tmp_path / "gptq.onnx"
    for file in (path, rounded):
        quantize(ranges, file, target_format=target_format)
    exact = exact_weights(rounded, ranges.model.graph)
    assert len(exact) == len(ranges.layers)
    assert round_weights(rounded, exact, calibration_faces, contract) == len(exact)
    before, after = map(constants, (path, rounded))
    assert {name for name in before if not np.array_equal(before[name], after[name])} == set(exact)
    assert all(np.abs(before[name] - exact[name]).max() <= 0.5 + 1e-4 for name in exact)  # what `exact` means
    assert check_weights(rounded).safe
    model = onnx.load(path)
    layers = list(rounding._layers(model))
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    hessians = rounding._hessians(model, layers, tensors, calibration_faces, contract)
    for layer, hessian in zip(layers, hessians, strict=True):
        wanted = layer.by_output(exact[layer.stored])
        errors = [layer.by_output(found[layer.stored].astype(float)) - wanted for found in (before, after)]
        nearest, ours = (np.einsum("oi,ij,oj->", error, hessian, error) for error in errors)
        assert ours < nearest / 2, layer.stored


def test_wide_layers_keep_the_nearest_integers(
    ranges: Ranges, float_model: Path, calibration_faces: Faces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And are not counted."""
    quantize(ranges, tmp_path / "int8.onnx", target_format="cpu")
    exact, before = exact_weights(tmp_path / "int8.onnx", ranges.model.graph), constants(tmp_path / "int8.onnx")
    inputs = {name: weights[0].size for name, weights in exact.items() if weights.ndim == 4}
    monkeypatch.setattr(rounding, "MOST_INPUTS", min(inputs.values()))
    count = round_weights(tmp_path / "int8.onnx", exact, calibration_faces, read_card(float_model).input)
    after = constants(tmp_path / "int8.onnx")
    assert 0 < count < len(exact)
    assert sum(not np.array_equal(before[name], after[name]) for name in exact) == count


@pytest.mark.parametrize("name", ["rounding", "method", "target_format", "importance", "ranking"])
def test_an_unknown_name_is_refused_before_any_face_is_read(name: str) -> None:
    """From Python, where click has not looked at it."""
    with pytest.raises(UsageError, match=rf"unknown {name.replace('_', ' ')} 'oracle'; known: "):
        plan.check(replace(Compress(run="runs/any", int8=True, prune=0.5), **{name: "oracle"}))


def test_tuned_weights_are_rounded_as_they_were_simulated() -> None:
    """QAT simulates the nearest integers, so GPTQ after it is refused."""
    with pytest.raises(UsageError, match=r"--rounding gptq with --qat"):
        plan.check(Compress(run="runs/any", int8=True, qat=True, rounding="gptq"))


@pytest.mark.parametrize(
    ("scale", "dimensions", "axis", "shape"),
    [(np.ones(()), 1, 1, ()), (np.ones(1), 4, 1, ()), (np.ones(5), 4, 0, (5, 1, 1, 1)), (np.ones(3), 2, 1, (1, 3))],
)
def test_a_scale_divides_its_weights(scale: np.ndarray, dimensions: int, axis: int, shape: tuple[int, ...]) -> None:
    """One for all, as of the one-dimensional constants that DenseNet has, or one for each channel."""
    assert rounding._along(scale, dimensions, axis).shape == shape
