"""FP16 conversion, and the checks that nothing overflows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeemo.card import read_card
from edgeemo.compress.quantize import fp16
from edgeemo.compress.quantize.ranges import Ranges, observe
from edgeemo.data import Faces
from edgeemo.errors import GateError


@pytest.fixture(scope="module")
def ranges(float_model: Path, calibration_faces: Faces) -> Ranges:
    return observe(float_model, calibration_faces, read_card(float_model).input, method="minmax")


@pytest.fixture(scope="module")
def fp16_model(float_model: Path) -> Path:
    path = float_model.with_name("half.onnx")
    fp16.convert(float_model, path)
    return path


def test_it_is_half_as_large_and_predicts_the_same(
    float_model: Path, fp16_model: Path, ranges: Ranges, calibration_faces: Faces
) -> None:
    """Weights are float16, input and logits float32, and the label of every face is the same except for near ties."""
    section = fp16.check_overflow(
        float_model, fp16_model, ranges, calibration_faces, read_card(float_model).input, threads=1
    )
    assert set(section.weight_types) <= {"float16", "int64"}
    assert section.fidelity.agreement >= 0.98
    assert fp16_model.stat().st_size < 0.55 * float_model.stat().st_size
    graph = onnx.load(fp16_model).graph
    assert {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)} == {onnx.TensorProto.FLOAT}


def test_an_activation_near_the_end_of_float16_is_refused(
    float_model: Path, fp16_model: Path, ranges: Ranges, calibration_faces: Faces
) -> None:
    """With 20,000 on these faces, there is too little headroom for new ones."""
    wide = replace(ranges, tensors=Wide())
    with pytest.raises(GateError, match=r"far reaches 20000 on 64 train faces; float16 ends at 65504"):
        fp16.check_overflow(float_model, fp16_model, wide, calibration_faces, read_card(float_model).input, threads=1)


class Wide:
    """Ranges with one wide tensor."""

    range_value = (np.float32(-3), np.float32(20_000))

    def keys(self) -> list[str]:
        """Names of the tensors."""
        return ["far"]

    def __getitem__(self, name: str) -> Wide:
        return self


def test_a_weight_beyond_float16_is_refused(float_model: Path, tmp_path: Path) -> None:
    """The converter would clip it, which changes the network."""
    model = onnx.load(float_model)
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "head.1.bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(6, 1e5, np.float32), bias.name))
    onnx.save(model, tmp_path / "wide.onnx")
    with pytest.raises(GateError, match=r"head\.1\.bias has a weight of 100000; float16 ends at 65504"):
        fp16.convert(tmp_path / "wide.onnx", tmp_path / "half.onnx")


def test_different_predictions_are_refused(
    float_model: Path, ranges: Ranges, calibration_faces: Faces, tmp_path: Path
) -> None:
    """Rounded weights may change the label of near ties only."""
    model = onnx.load(float_model)
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "head.1.bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.arange(6, dtype=np.float32) * 9, bias.name))
    onnx.save(model, tmp_path / "other.onnx")
    other = tmp_path / "other.onnx"
    with pytest.raises(GateError, match="expected 98 % or more"):
        fp16.check_overflow(float_model, other, ranges, calibration_faces, read_card(float_model).input, threads=1)


def test_nan_logits_are_refused(float_model: Path, ranges: Ranges, calibration_faces: Faces, tmp_path: Path) -> None:
    """A file without finite logits is not a model."""
    model = onnx.load(float_model)
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "head.1.bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(6, np.nan, np.float32), bias.name))
    onnx.save(model, tmp_path / "broken.onnx")
    broken = tmp_path / "broken.onnx"
    with pytest.raises(GateError, match="64 of 64 train faces no finite logits"):
        fp16.check_overflow(float_model, broken, ranges, calibration_faces, read_card(float_model).input, threads=1)
