"""NVIDIA's own parser and compiler say of each form whether TensorRT takes it; they need no GPU for that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgeemo.card import read_card
from edgeemo.compress import half
from edgeemo.compress.quantize import quantize
from edgeemo.compress.ranges import Ranges, observe
from edgeemo.data import Faces

trt = pytest.importorskip("tensorrt_rtx", reason="pip install 'edgeemo[rtx]'; it is for x86-64 alone")


@pytest.fixture(scope="module")
def ranges(float_model: Path, calibration_faces: Faces) -> Ranges:
    return observe(float_model, calibration_faces, read_card(float_model).input, method="minmax")


def parsed(path: Path) -> tuple[Any, Any, str]:
    """The builder, the strongly typed network that the parser made of a file, and what it said against it."""
    builder = trt.Builder(trt.Logger(trt.Logger.INTERNAL_ERROR))
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, builder.logger)
    taken = parser.parse(path.read_bytes())
    said = "" if taken else "; ".join(parser.get_error(k).desc() for k in range(parser.num_errors))
    return builder, network, said


def built(path: Path) -> int:
    """Bytes of the engine for compute capability 8.6 and batches of one to eight."""
    builder, network, said = parsed(path)
    assert not said
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    profile = builder.create_optimization_profile()
    shape = tuple(network.get_input(0).shape)[1:]
    profile.set_shape(network.get_input(0).name, (1, *shape), (1, *shape), (8, *shape))
    config.add_optimization_profile(profile)
    return int(builder.build_serialized_network(network, config).nbytes)


def test_the_tensorrt_flavour_becomes_an_engine(ranges: Ranges, tmp_path: Path) -> None:
    """Parsed without a word against it, and compiled."""
    quantize(ranges, tmp_path / "int8.onnx", flavour="tensorrt")
    assert built(tmp_path / "int8.onnx") > 100_000


def test_the_fp16_form_becomes_an_engine(float_model: Path, tmp_path: Path) -> None:
    """As strongly typed as the file."""
    half.halve(float_model, tmp_path / "half.onnx")
    assert built(tmp_path / "half.onnx") > 100_000


def test_the_cpu_flavour_is_refused(ranges: Ranges, tmp_path: Path) -> None:
    """For its int32 biases: why there are two flavours."""
    quantize(ranges, tmp_path / "int8.onnx", flavour="cpu")
    assert "Int32" in parsed(tmp_path / "int8.onnx")[2]


def test_a_layer_kept_in_float_is_taken_too(ranges: Ranges, tmp_path: Path) -> None:
    """Half of a network in INT8 is as well typed as all of it."""
    quantize(ranges, tmp_path / "mixed.onnx", flavour="tensorrt", keep_float=["backbone.3"])
    assert built(tmp_path / "mixed.onnx") > 100_000
