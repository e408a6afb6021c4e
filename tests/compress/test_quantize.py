"""Both INT8 target formats meet the requirements of their engines, and agree with the float model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgeemo.card import read_card, write_card
from edgeemo.compress.compare import predict_model
from edgeemo.compress.export import INPUT
from edgeemo.compress.prune.channels import measure_size
from edgeemo.compress.quantize import precision
from edgeemo.compress.quantize.qdq import INPUT_STEPS, quantize
from edgeemo.compress.quantize.ranges import observe
from edgeemo.data import Faces
from edgeemo.errors import GateError
from edgeemo.train import run_folder


@pytest.fixture(scope="session")
def int8(float_model: Path, calibration_faces: Faces) -> dict[str, Path]:
    """The trained network in INT8, by target format."""
    card = read_card(float_model)
    files, ranges = {}, observe(float_model, calibration_faces, card.input, method="minmax")
    for target_format in ("cpu", "tensorrt"):
        files[target_format] = float_model.with_name(f"{target_format}.onnx")
        quantize(ranges, files[target_format], target_format=target_format)
        write_card(files[target_format], card)
    return files


def constants(path: Path) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


@pytest.mark.parametrize("target_format", ["cpu", "tensorrt"])
def test_int8_predicts_the_same_emotion_as_float(
    target_format: str, int8: dict[str, Path], float_model: Path, calibration_faces: Faces
) -> None:
    """On at least 95 % of synthetic faces, except near ties; the error of logits is below a tenth of their spread."""
    exact, rounded = (predict_model(path, calibration_faces, threads=1) for path in (float_model, int8[target_format]))
    assert (exact.argmax(1) == rounded.argmax(1)).mean() >= 0.95
    assert len(np.unique(exact.argmax(1))) == 6  # else any two models would agree
    assert (rounded - exact).std() < 0.1 * exact.std(axis=0).mean()


def test_the_cpu_target_format_runs_in_integer_kernels(int8: dict[str, Path]) -> None:
    """ONNX Runtime's optimised graph has QLinear kernels for at least 90 % of the multiply-adds."""
    section = precision.count_integer_share(int8["cpu"], target_format="cpu")
    assert section.int8_share_of_macs >= 0.9
    assert section.operators == {"QLinearConv": 8, "QGemm": 1}


def test_a_float_file_has_no_integer_kernels(float_model: Path) -> None:
    """The share of multiply-adds in integers is 0."""
    assert precision.count_integer_share(float_model, target_format="cpu").int8_share_of_macs == 0
    assert precision.count_integer_share(float_model, target_format="tensorrt").int8_share_of_macs == 0


def test_all_counts_of_multiply_adds_agree(trained: Path, float_model: Path, int8: dict[str, Path]) -> None:
    """Torch's layers, the float file and both INT8 files have the same count."""
    network, card = run_folder.load(trained)
    expected = measure_size(network, card.input).macs
    files = {float_model: "cpu", int8["cpu"]: "cpu", int8["tensorrt"]: "tensorrt"}
    assert {
        precision.count_integer_share(path, target_format=target_format).macs for path, target_format in files.items()
    } == {expected}


def test_too_small_an_integer_share_is_refused(int8: dict[str, Path]) -> None:
    """The TensorRT file on this CPU: the error names the executed operators."""
    section = precision.count_integer_share(int8["tensorrt"], target_format="cpu")
    with pytest.raises(GateError, match=r"of the multiply-adds are in integers.*FusedConv"):
        precision.check_integer_share(section, least=0.9)
    precision.check_integer_share(section, least=0.0)


def test_tensorrt_gets_no_zero_points(int8: dict[str, Path]) -> None:
    """Every zero point of the TensorRT target format is an int8 zero."""
    values = constants(int8["tensorrt"])
    for node in onnx.load(int8["tensorrt"]).graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero_point = values[node.input[2]]
            assert zero_point.dtype == np.int8
            assert not zero_point.any()


def test_tensorrt_gets_float_biases(int8: dict[str, Path]) -> None:
    """TensorRT's format dequantizes no int32 tensor, and both inputs of every layer with weights are int8."""
    values = constants(int8["tensorrt"])
    dequantized = [n.input[0] for n in onnx.load(int8["tensorrt"]).graph.node if n.op_type == "DequantizeLinear"]
    assert {values[name].dtype.name for name in dequantized if name in values} == {"int8"}
    assert precision.count_integer_share(int8["tensorrt"], target_format="tensorrt").int8_share_of_macs == 1


def test_tensorrt_can_fuse_convolution_and_relu(int8: dict[str, Path]) -> None:
    """Nothing is between a convolution and its ReLU."""
    nodes = onnx.load(int8["tensorrt"]).graph.node
    after = {name: node.op_type for node in nodes for name in node.input}
    assert {after[node.output[0]] for node in nodes if node.op_type == "Conv"} == {"Relu"}


def test_percentile_clips_ranges(
    float_model: Path, calibration_faces: Faces, tmp_path: Path, int8: dict[str, Path]
) -> None:
    """With percentile, some activations have a finer scale than with minmax, and none a coarser one."""
    path = tmp_path / "percentile.onnx"
    contract = read_card(float_model).input
    quantize(observe(float_model, calibration_faces, contract, method="percentile"), path, target_format="cpu")
    clipped, full = constants(path), constants(int8["cpu"])
    ratios = [clipped[name] / full[name] for name in full if name.endswith("_scale") and full[name].ndim == 0]
    assert min(ratios) < 0.99
    assert max(ratios) <= 1.001


def test_the_last_odd_batch_is_calibrated_too(float_model: Path, calibration_faces: Faces) -> None:
    """A last batch of one face counts too: the brightest one, put last, widens a range."""
    pixels = np.full_like(calibration_faces.pixels[:33], 128)
    pixels[-1] = 255
    faces = replace(calibration_faces.take(np.arange(33)), pixels=pixels)
    contract, all_but_last = read_card(float_model).input, faces.take(np.arange(32))
    without, with_last = (observe(float_model, some, contract, method="minmax") for some in (all_but_last, faces))
    logits = without.model.graph.output[0].name
    assert without.get(logits) != with_last.get(logits)


@pytest.mark.parametrize("method", ["minmax", "percentile"])
@pytest.mark.parametrize(("darkest", "brightest"), [(0, 254), (1, 255), (90, 170)])
def test_the_range_of_the_input_is_black_to_white(
    darkest: int, brightest: int, method: str, float_model: Path, calibration_faces: Faces, tmp_path: Path
) -> None:
    """Whatever the faces span: 254 gray levels would put every level on a rounding tie again."""
    faces = replace(calibration_faces, pixels=calibration_faces.pixels.clip(darkest, brightest))
    ranges = observe(float_model, faces, read_card(float_model).input, method=method)
    assert ranges.get(INPUT) == (-2, 2)
    quantize(ranges, tmp_path / "int8.onnx", target_format="cpu")
    # (255 / 255 - 0.5) / 0.25 = 2 is the brightest input.
    assert constants(tmp_path / "int8.onnx")["images_scale"] == pytest.approx(4 / INPUT_STEPS)


@pytest.mark.parametrize("target_format", ["cpu", "tensorrt"])
def test_no_gray_level_is_on_a_rounding_tie(target_format: str, int8: dict[str, Path]) -> None:
    """All 256 are more than 0.001 steps away from one, so the last bit of a float does not matter.

    Three float32 implementations of the contract's normalisation give the same integers.
    """
    stored = constants(int8[target_format])
    scale, zero_point = float(stored["images_scale"]), int(stored["images_zero_point"])
    pixels = np.arange(256)
    steps = (pixels / 255 - 0.5) / 0.25 / scale + zero_point
    assert np.abs(steps - np.floor(steps) - 0.5).min() > 1e-3
    single = pixels.astype(np.float32)
    ways = (
        (single * np.float32(1 / 255) - np.float32(0.5)) / np.float32(0.25),
        (single / np.float32(255) - np.float32(0.5)) / np.float32(0.25),
        single * np.float32(4 / 255) - np.float32(2),
    )
    integers = [np.rint(way / np.float32(scale)) + zero_point for way in ways]
    assert all(np.array_equal(levels, np.rint(steps)) for levels in integers)
    assert len(np.unique(integers[0])) >= 254


@pytest.mark.parametrize("target_format", ["cpu", "tensorrt"])
def test_a_quantized_file_contains_no_path_of_this_machine(target_format: str, int8: dict[str, Path]) -> None:
    """No metadata of the exporter, no source paths on any node, and no temporary folder."""
    model = onnx.load(int8[target_format])
    assert not [part for part in (model, model.graph, *model.graph.node) if part.metadata_props or part.doc_string]
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")
    assert b"/tmp" not in model.SerializeToString()


@pytest.mark.parametrize("target_format", ["cpu", "tensorrt"])
def test_a_quantized_file_is_a_quarter_of_the_float_one(
    target_format: str, int8: dict[str, Path], float_model: Path
) -> None:
    """Weights have one byte instead of four; scales and nodes add less than 5 % of the float file."""
    assert int8[target_format].stat().st_size < 0.3 * float_model.stat().st_size
