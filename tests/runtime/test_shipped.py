"""The packaged models: each name, both target formats, and the error for an unknown name."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

import edgeemo
from edgeemo.bench.gates import read_target
from edgeemo.build import run as build
from edgeemo.card import read_card
from edgeemo.data import load
from edgeemo.errors import MachineError, UsageError
from edgeemo.labels import label_set
from edgeemo.runtime import shipped
from edgeemo.stages import Build, Compress

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RESULTS, TARGETS = BENCHMARKS / "results" / "models", BENCHMARKS / "targets" / "models"
LARGEST = {"nano": 700_000, "small": 3_000_000, "base": 12_000_000}  # bytes of an INT8 file


@pytest.mark.parametrize("name", shipped.NAMES)
@pytest.mark.parametrize("target_format", shipped.SUFFIXES)
def test_every_name_is_a_whole_model_in_int8(name: str, target_format: str) -> None:
    """Its card matches it, and has the requested target format."""
    file = shipped.find(name, target_format=target_format)
    card = read_card(file)
    assert (card.label_set, card.precision.requested, card.precision.target_format) == (
        "ferplus8",
        "int8",
        target_format,
    )
    assert file.stat().st_size <= LARGEST[name]


@pytest.mark.parametrize("name", shipped.NAMES)
def test_the_target_formats_of_a_name_are_one_network(name: str) -> None:
    """Quantized from the same float file, so they name nearly every face alike."""
    files = [shipped.find(name, target_format=target_format) for target_format in shipped.SUFFIXES]
    first, second = (read_card(file) for file in files)
    parents = [{line.stage: line.parent_sha256 for line in card.history}["quantize"] for card in (first, second)]
    assert parents[0] == parents[1]
    faces = load("synthetic:400", "valid", label_set("six"), contract=first.input).pixels
    predicted = []
    for file in files:
        with edgeemo.load(file) as model:
            predicted.append(model.probabilities(faces).argmax(1))
    assert len(faces) >= 80
    assert np.mean(predicted[0] == predicted[1]) >= 0.95


@pytest.mark.parametrize("name", shipped.NAMES)
@pytest.mark.parametrize("target_format", shipped.SUFFIXES)
def test_the_card_has_the_threshold_of_the_committed_result(name: str, target_format: str) -> None:
    """The one that `compress` would fit by default, on the faces on which the temperature was fitted."""
    file = shipped.find(name, target_format=target_format)
    card = read_card(file)
    rows = json.loads((RESULTS / "selective.json").read_text(encoding="utf-8"))["rows"]
    (row,) = (row for row in rows if row["what"] == "card" and row["model"] == file.name)
    assert {"what": "card", "model": file.name, **asdict(card.answers)} == row
    assert card.answers.least_accuracy == Compress.answer_accuracy / 100 <= card.answers.accuracy_low
    assert card.answers.n == card.metrics["valid"].n


@pytest.mark.parametrize("name", shipped.NAMES)
def test_a_name_opens_a_model(name: str, face: np.ndarray) -> None:
    """In its own labels, and in six."""
    with edgeemo.load(name) as model, edgeemo.load(name, labels="six") as six:
        assert len(model.predict(face).probabilities) == 8
        assert len(six.predict(face).probabilities) == 6


@pytest.mark.parametrize("labels", ["", "-six"])
@pytest.mark.parametrize("name", shipped.NAMES)
def test_the_committed_result_is_of_this_file_and_these_gates(name: str, labels: str) -> None:
    """Whoever puts another model here has to measure it."""
    found = json.loads((RESULTS / f"{name}{labels}.json").read_text(encoding="utf-8"))
    assert found["model"]["sha256"] == read_card(shipped.find(name)).sha256
    assert found["target"]["limits"] == read_target(str(TARGETS / f"{name}{labels}.toml")).limits


@pytest.mark.parametrize("name", shipped.NAMES)
def test_the_card_of_every_teacher_lies_beside_the_results(name: str) -> None:
    """Of just the weights that the model's own card names."""
    taught = [
        line.measured["teachers"] for line in read_card(shipped.find(name)).history if "teachers" in line.measured
    ]
    assert taught
    for teacher in taught[-1]:
        card = json.loads((RESULTS / "teachers" / f"{teacher['name']}.json").read_text(encoding="utf-8"))
        assert card["sha256"] == teacher["sha256"]


@pytest.mark.parametrize("name", shipped.NAMES)
def test_both_forms_were_asked_about_the_same_faces(name: str) -> None:
    """Whoever puts another model here has to measure both."""
    found = json.loads((RESULTS / f"{name}-parity.json").read_text(encoding="utf-8"))
    checked = {(row["file"], row["model"]["sha256"]) for row in found["rows"] if "model" in row}
    files = [shipped.find(name, target_format=target_format) for target_format in shipped.SUFFIXES]
    assert checked == {(file.name, read_card(file).sha256) for file in files}


@pytest.mark.parametrize("name", shipped.NAMES)
def test_a_model_is_as_right_as_its_result_says(name: str, ferplus: str) -> None:
    """On FER+ valid, on every processor: no kernel saturates, and no gray level lies on a rounding tie."""
    found = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    with edgeemo.load(name) as model:
        faces = load(ferplus, "valid", label_set("ferplus8"), contract=model.card.input)
        right = (model.probabilities(faces.pixels).argmax(1) == faces.truth).mean()
    assert len(faces) == found["accuracy"]["n"]
    assert right == pytest.approx(found["accuracy"]["accuracy"], abs=1 / len(faces))  # a face whose logits are equal


def test_without_a_name_the_default_is_meant() -> None:
    """For load as for the command line's empty options."""
    assert shipped.find() == shipped.find("") == shipped.find("small") == shipped.FOLDER / "small.onnx"


def test_an_unknown_name_lists_the_known_ones() -> None:
    """And says that a file would do as well."""
    with pytest.raises(UsageError, match=r"unknown model 'tiny'; known: nano, small, base, or the path of a file"):
        edgeemo.load("tiny")


@pytest.mark.parametrize("path", ["tiny.onnx", "runs/tiny", Path("small.onnx"), "./small.trt", ".", "./small"])
def test_a_path_stays_a_path(path: str | Path) -> None:
    """Even one whose file is called like a model."""
    assert shipped.find(path) == Path(str(path))


def test_an_installation_without_models_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It was made so on purpose, so the way out is a file."""
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    with pytest.raises(MachineError, match="give a file"):
        edgeemo.load()


def test_a_shipped_model_becomes_an_engine_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the target format that TensorRT takes, and in the working folder; what INT8 is worth there is not promised."""
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.chdir(tmp_path)
    engine = build(Build(model="nano", library="rtx", compute_capability="8.9"))
    assert engine == Path("nano.trt")
    assert "does not list them as supported" in caplog.text
    assert read_card(engine).precision.target_format == "tensorrt"
