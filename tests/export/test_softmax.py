"""The form of a model that returns probabilities: those of Model.probabilities, in ONNX Runtime itself."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import make_tiny
import numpy as np
import onnx
import pytest

import edgeemo
from edgeemo import images
from edgeemo.card import read_card, write_card
from edgeemo.compress.quantize import fp16
from edgeemo.errors import IntegrityError
from edgeemo.export.softmax import write_probabilities
from edgeemo.runtime import shipped
from edgeemo.runtime.backends.ort import OnnxBackend
from edgeemo.runtime.golden import list_faces

TOLERANCE = 1e-6


def run(file: Path, batch: np.ndarray) -> np.ndarray:
    """With the options of ONNX Runtime that the model itself is opened with: others round INT8 in other ways."""
    opened = OnnxBackend(file, threads=1)
    try:
        return opened.logits(batch)
    finally:
        opened.close()


@pytest.mark.parametrize("name", shipped.NAMES)
@pytest.mark.parametrize("target_format", ["cpu", "tensorrt"])
def test_the_packaged_models_return_their_probabilities(name: str, target_format: str, tmp_path: Path) -> None:
    """Of the eight packaged faces, in both INT8 formats."""
    source = shipped.find(name, target_format=target_format)
    write_probabilities(source, read_card(source), tmp_path / "model.onnx")
    onnx.checker.check_model(tmp_path / "model.onnx", full_check=True)
    with edgeemo.load(source) as model:
        faces = np.stack([images.to_pixels(face, model.card.input) for face in list_faces()])
        expected = model.probabilities(faces)
        actual = run(tmp_path / "model.onnx", images.to_input(faces, model.card.input))
    assert actual.dtype == np.float32
    assert np.abs(actual - expected).max() <= TOLERANCE


def test_adaptation_and_temperature_are_part_of_the_graph(tmp_path: Path) -> None:
    """A full matrix, which is not symmetric."""
    source = make_tiny.write(tmp_path / "model.onnx")
    rng = np.random.default_rng(0)
    count = len(make_tiny.LABELS)
    adaptation = replace(
        make_tiny.make_adaptation(read_card(source).sha256),
        form="matrix",
        matrix=tuple(map(tuple, (np.eye(count) + rng.normal(0, 0.2, (count, count))).tolist())),
        bias=tuple(rng.normal(0, 1, count).tolist()),
    )
    write_card(source, replace(make_tiny.card(), temperature=1.7, adaptation=adaptation))
    write_probabilities(source, read_card(source), tmp_path / "other.onnx")
    faces = rng.integers(0, 256, (5, 48, 48), np.uint8)
    with edgeemo.load(source) as model:
        expected = model.probabilities(faces)
        actual = run(tmp_path / "other.onnx", images.to_input(faces, model.card.input))
    assert np.abs(actual - expected).max() <= TOLERANCE


def test_a_float16_model_returns_float32_probabilities(tmp_path: Path) -> None:
    """The last nodes compute in float32, as the logits are."""
    float_file = make_tiny.write(tmp_path / "model.onnx")
    source = tmp_path / "half.onnx"
    fp16.convert(float_file, source)
    write_card(source, replace(make_tiny.card(), temperature=0.6))
    write_probabilities(source, read_card(source), tmp_path / "other.onnx")
    faces = np.random.default_rng(0).integers(0, 256, (5, 48, 48), np.uint8)
    with edgeemo.load(source) as model:
        expected = model.probabilities(faces)
        actual = run(tmp_path / "other.onnx", images.to_input(faces, model.card.input))
    assert actual.dtype == np.float32
    assert np.abs(actual - expected).max() <= TOLERANCE


def test_everything_else_of_the_file_is_kept(tmp_path: Path) -> None:
    """Weights, nodes, names, operator set and IR version."""
    source = shipped.find("nano")
    write_probabilities(source, read_card(source), tmp_path / "model.onnx")
    before, after = onnx.load(source), onnx.load(tmp_path / "model.onnx")
    assert [node.op_type for node in after.graph.node][-2:] == ["Div", "Softmax"]
    del after.graph.node[-2:], after.graph.initializer[-1:]
    after.graph.output[0].CopyFrom(before.graph.output[0])
    assert after == before


@pytest.mark.parametrize("problem", ["output", "name"])
def test_a_file_that_cannot_be_changed_is_refused(problem: str, tmp_path: Path) -> None:
    """It has a second output, or a tensor with the new name."""
    network = make_tiny.network()
    if problem == "output":
        network.graph.output.append(onnx.helper.make_tensor_value_info("active", 1, ["batch", 16, 24, 24]))
    else:
        network.graph.node[0].output[0] = network.graph.node[1].input[0] = "probabilities"
    source = tmp_path / "model.onnx"
    onnx.save(network, source)
    message = {"output": "has 2 outputs; expected one", "name": "makes 'probabilities', which is already there"}[
        problem
    ]
    with pytest.raises(IntegrityError, match=re.escape(message)):
        write_probabilities(source, make_tiny.card(), tmp_path / "other.onnx")
