"""Which ONNX files NVIDIA's parser and compiler accept; this needs no GPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgeemo.build import run as build
from edgeemo.card import read_card, write_card
from edgeemo.compress.quantize import fp16
from edgeemo.compress.quantize.qdq import quantize
from edgeemo.compress.quantize.ranges import Ranges, observe
from edgeemo.data import Faces
from edgeemo.errors import UsageError
from edgeemo.stages import Build

pytest.importorskip("tensorrt_rtx", reason="pip install 'edgeemo[rtx]'; x86-64 only")


@pytest.fixture(scope="module")
def ranges(float_model: Path, calibration_faces: Faces) -> Ranges:
    return observe(float_model, calibration_faces, read_card(float_model).input, method="minmax")


def build_engine(path: Path, float_model: Path, *, target_format: str | None = None) -> int:
    """Return the size in bytes of the engine for compute capability 8.6; the card states this target format."""
    card = read_card(float_model)
    write_card(path, replace(card, precision=replace(card.precision, target_format=target_format)))
    return build(Build(model=str(path), library="rtx", compute_capability="8.6")).stat().st_size


def test_the_tensorrt_target_format_becomes_an_engine(ranges: Ranges, float_model: Path, tmp_path: Path) -> None:
    """It is parsed and compiled."""
    quantize(ranges, tmp_path / "int8.onnx", target_format="tensorrt")
    assert build_engine(tmp_path / "int8.onnx", float_model, target_format="tensorrt") > 100_000


def test_the_fp16_form_becomes_an_engine(float_model: Path, tmp_path: Path) -> None:
    """It is strongly typed, as the file is."""
    fp16.convert(float_model, tmp_path / "half.onnx")
    assert build_engine(tmp_path / "half.onnx", float_model) > 100_000


def test_the_cpu_target_format_is_refused(ranges: Ranges, float_model: Path, tmp_path: Path) -> None:
    """By the file itself, even if the card hides the format: NVIDIA's parser refuses its int32 biases too."""
    quantize(ranges, tmp_path / "int8.onnx", target_format="cpu")
    with pytest.raises(UsageError, match="uint8 activations"):
        build_engine(tmp_path / "int8.onnx", float_model, target_format="tensorrt")


def test_a_layer_kept_in_float_is_accepted(ranges: Ranges, float_model: Path, tmp_path: Path) -> None:
    """A network partly in INT8 is strongly typed too."""
    quantize(ranges, tmp_path / "mixed.onnx", target_format="tensorrt", keep_float=["backbone.3"])
    assert build_engine(tmp_path / "mixed.onnx", float_model, target_format="tensorrt") > 100_000
