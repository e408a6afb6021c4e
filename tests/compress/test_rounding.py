"""GPTQ: less error in the output of a layer, and nothing else in the file changes."""

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
from edgeemo.compress.quantize.rounding import Layer, compute_exact_weights, round_weights, round_with_compensation
from edgeemo.data import Faces
from edgeemo.errors import UsageError
from edgeemo.stages import Compress


@pytest.fixture(scope="module")
def ranges(float_model: Path, calibration_faces: Faces) -> Ranges:
    return observe(float_model, calibration_faces, read_card(float_model).input, method="minmax")


def constants(path: Path) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def test_inputs_without_correlation_are_rounded_to_the_nearest(rng: np.random.Generator) -> None:
    """No weight can compensate for another."""
    weights = rng.normal(0, 30, (8, 12)).clip(-60, 60)
    assert np.array_equal(round_with_compensation(weights, np.eye(12), largest=64), np.rint(weights))


def test_correlated_inputs_give_less_error_than_nearest_rounding(rng: np.random.Generator) -> None:
    """The mean squared error of the output is less than a quarter, and no weight exceeds the largest."""
    inputs = rng.normal(size=(2000, 4)) @ rng.normal(size=(4, 16)) + 0.1 * rng.normal(size=(2000, 16))
    weights = rng.normal(0, 20, (8, 16)).clip(-64, 64)
    rounded = round_with_compensation(weights, inputs.T @ inputs / len(inputs), largest=64)
    gptq, nearest = (np.square(inputs @ (integers - weights).T).mean() for integers in (rounded, np.rint(weights)))
    assert gptq < nearest / 4
    assert np.abs(rounded).max() <= 64
    assert np.array_equal(rounded, np.rint(rounded))


@pytest.mark.parametrize(("stride", "pads"), [((1, 1), (1, 1, 1, 1)), ((2, 1), (0, 2, 1, 1))])
def test_the_vectors_of_a_convolution_are_those_that_meet_its_weights(
    stride: tuple[int, int], pads: tuple[int, ...], rng: np.random.Generator
) -> None:
    """Multiplied by the weights, they give the outputs of torch's convolution."""
    data, weights = rng.normal(size=(2, 3, 9, 7)), rng.normal(size=(5, 3, 3, 3))
    node = helper.make_node("Conv", ["x", "w"], ["y"], strides=list(stride), pads=list(pads))
    layer = Layer(node, "w_quantized")
    outputs = layer.sample_inputs(data, (3, 3), 10**6, rng) @ layer.to_matrix(weights).T
    top, left, bottom, right = pads
    padded = torch.nn.functional.pad(torch.from_numpy(data), (left, right, top, bottom))
    expected = torch.nn.functional.conv2d(padded, torch.from_numpy(weights), stride=stride)
    assert np.allclose(outputs, expected.permute(0, 2, 3, 1).reshape(-1, 5).numpy())


@pytest.mark.parametrize(
    ("attributes", "supported"), [({}, True), ({"group": 3}, False), ({"dilations": [2, 2]}, False)]
)
def test_layers_whose_vectors_differ_are_not_supported(attributes: dict, supported: bool) -> None:
    """With groups or dilation, weights are multiplied by other inputs."""
    assert Layer(helper.make_node("Conv", ["x", "w"], ["y"], **attributes), "w").supported == supported


@pytest.mark.parametrize("target_format", ["cpu", "tensorrt"])
def test_the_error_of_layers_decreases_and_only_weights_change(
    target_format: str, ranges: Ranges, float_model: Path, calibration_faces: Faces, tmp_path: Path
) -> None:
    """At most half of the squared output error; the same scales and biases; no weight beyond the limit."""
    contract, path, rounded = read_card(float_model).input, tmp_path / "nearest.onnx", tmp_path / "gptq.onnx"
    for file in (path, rounded):
        quantize(ranges, file, target_format=target_format)
    exact = compute_exact_weights(rounded, ranges.model.graph)
    assert len(exact) == len(ranges.layers)
    assert round_weights(rounded, exact, calibration_faces, contract) == len(exact)
    before, after = map(constants, (path, rounded))
    assert {name for name in before if not np.array_equal(before[name], after[name])} == set(exact)
    assert all(np.abs(before[name] - exact[name]).max() <= 0.5 + 1e-4 for name in exact)  # what `exact` means
    assert check_weights(rounded).safe
    model = onnx.load(path)
    layers = list(rounding._iterate_layers(model))
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    hessians = rounding._compute_hessians(model, layers, tensors, calibration_faces, contract)
    for layer, hessian in zip(layers, hessians, strict=True):
        expected = layer.to_matrix(exact[layer.stored])
        errors = [layer.to_matrix(weights[layer.stored].astype(float)) - expected for weights in (before, after)]
        nearest, gptq = (np.einsum("oi,ij,oj->", error, hessian, error) for error in errors)
        assert gptq < nearest / 2, layer.stored


def test_wide_layers_keep_nearest_rounding(
    ranges: Ranges, float_model: Path, calibration_faces: Faces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are not counted either."""
    quantize(ranges, tmp_path / "int8.onnx", target_format="cpu")
    exact, before = compute_exact_weights(tmp_path / "int8.onnx", ranges.model.graph), constants(tmp_path / "int8.onnx")
    inputs = {name: weights[0].size for name, weights in exact.items() if weights.ndim == 4}
    monkeypatch.setattr(rounding, "MAX_INPUTS", min(inputs.values()))
    count = round_weights(tmp_path / "int8.onnx", exact, calibration_faces, read_card(float_model).input)
    after = constants(tmp_path / "int8.onnx")
    assert 0 < count < len(exact)
    assert sum(not np.array_equal(before[name], after[name]) for name in exact) == count


@pytest.mark.parametrize("name", ["rounding", "method", "target_format", "importance", "ranking"])
def test_an_unknown_name_is_refused_before_any_face_is_read(name: str) -> None:
    """In the Python API, where click does not check it."""
    with pytest.raises(UsageError, match=f"unknown {name.replace('_', ' ')} 'oracle'; known: "):
        plan.check(replace(Compress(run="runs/any", int8=True, prune=0.5), **{name: "oracle"}))


def test_gptq_is_refused_after_qat() -> None:
    """QAT simulates nearest rounding."""
    with pytest.raises(UsageError, match=r"--rounding gptq with --qat"):
        plan.check(Compress(run="runs/any", int8=True, qat=True, rounding="gptq"))


@pytest.mark.parametrize(
    ("scale", "dimensions", "axis", "shape"),
    [(np.ones(()), 1, 1, ()), (np.ones(1), 4, 1, ()), (np.ones(5), 4, 0, (5, 1, 1, 1)), (np.ones(3), 2, 1, (1, 3))],
)
def test_a_scale_is_broadcast_to_its_weights(
    scale: np.ndarray, dimensions: int, axis: int, shape: tuple[int, ...]
) -> None:
    """One scale for all, as for the one-dimensional constants of DenseNet, or one per channel."""
    assert rounding._broadcast_scale(scale, dimensions, axis).shape == shape
