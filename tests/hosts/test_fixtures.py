"""hosts/fixtures: Python finds, crops and predicts what expected.json says, on any processor."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import host_fixtures
import numpy as np
import pytest
from PIL import Image

import edgeemo
from edgeemo.faces import crop, load_detector
from edgeemo.images import to_pixels
from edgeemo.runtime import Prediction, shipped

FOLDER = Path(__file__).parents[2] / "hosts" / "fixtures"
EXPECTED = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))
TOLERANCES = EXPECTED["tolerances"]
PICTURES = {Path(picture["file"]).stem: picture for picture in EXPECTED["pictures"]}
READY = {Path(picture["file"]).stem: picture for picture in EXPECTED["ready"]}


@pytest.fixture(scope="module")
def models() -> Iterator[dict[str, edgeemo.Model]]:
    opened = {name: edgeemo.load(name) for name in shipped.NAMES}
    yield opened
    for model in opened.values():
        model.close()


def read_pixels(file: str) -> np.ndarray:
    with Image.open(FOLDER / file) as image:
        return np.asarray(image)


def check_prediction(prediction: Prediction, expected: dict[str, Any]) -> None:
    assert prediction.label == expected["label"]
    assert prediction.unsure == expected["unsure"]
    assert prediction.probabilities.keys() == expected["probabilities"].keys()
    for label, probability in expected["probabilities"].items():
        assert prediction.probabilities[label] == pytest.approx(probability, abs=TOLERANCES["probability"])


@pytest.mark.parametrize("name", PICTURES)
def test_python_finds_the_expected_faces(name: str, models: dict[str, edgeemo.Model]) -> None:
    """Boxes, scores, landmarks, flags, their order, and the predictions of every model."""
    picture = PICTURES[name]
    for model_name, model in models.items():
        found = model.find_faces(FOLDER / picture["file"])
        assert found.left_out == picture["left_out"]
        assert len(found.faces) == len(picture["faces"])
        for face, expected in zip(found.faces, picture["faces"], strict=True):
            assert np.abs(np.subtract(face.box, expected["box"])).max() <= TOLERANCES["box_px"]
            assert np.abs(np.subtract(face.landmarks, expected["landmarks"])).max() <= TOLERANCES["box_px"]
            assert face.score == pytest.approx(expected["score"], abs=TOLERANCES["score"])
            assert list(face.flags) == expected["flags"]
            check_prediction(face.prediction, expected["predictions"][model_name])


@pytest.mark.parametrize("name", PICTURES)
def test_python_cuts_the_expected_crops(name: str, models: dict[str, edgeemo.Model]) -> None:
    """At the size of the input, as a model reads them."""
    picture = PICTURES[name]
    contract = models["small"].card.input
    for face, expected in zip(models["small"].faces(FOLDER / picture["file"]), picture["faces"], strict=True):
        actual = crop(read_pixels(picture["file"]), face, contract).astype(int)
        assert np.abs(actual - read_pixels(expected["crop"])).max() <= TOLERANCES["crop_levels"]


@pytest.mark.parametrize("name", READY)
def test_a_ready_crop_becomes_exactly_the_expected_input(name: str, models: dict[str, edgeemo.Model]) -> None:
    """And gives the expected probabilities."""
    picture = READY[name]
    pixels = read_pixels(picture["file"])
    assert np.array_equal(to_pixels(pixels, models["small"].card.input), read_pixels(picture["input"]))
    for model_name, model in models.items():
        check_prediction(model.predict(pixels), picture["predictions"][model_name])


def test_the_fixtures_are_of_the_packaged_files(models: dict[str, edgeemo.Model]) -> None:
    """A model or detector that is made again needs new ones: python benchmarks/host_fixtures.py."""
    assert EXPECTED["tolerances"] == host_fixtures.TOLERANCES
    assert EXPECTED["detector"]["sha256"] == load_detector().card.sha256
    assert {name: model.card.sha256 for name, model in models.items()} == {
        name: one["sha256"] for name, one in EXPECTED["models"].items()
    }
    assert all(tuple(EXPECTED["models"][name]["labels"]) == model.labels for name, model in models.items())


def test_every_file_belongs_to_a_picture() -> None:
    """None is left of earlier ones."""
    named = {picture["file"] for picture in EXPECTED["pictures"]}
    named |= {face["crop"] for picture in EXPECTED["pictures"] for face in picture["faces"]}
    named |= {picture[key] for picture in EXPECTED["ready"] for key in ("file", "input")}
    there = {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.png")}
    assert there == named


@pytest.mark.parametrize("name", PICTURES)
def test_the_pictures_can_be_drawn_again(name: str) -> None:
    """By benchmarks/host_fixtures.py; lines and text of another Pillow may differ at their edges, by few pixels."""
    drawn = host_fixtures.PICTURES[name]().astype(int)
    saved = read_pixels(f"pictures/{name}.png")
    assert drawn.shape == saved.shape
    assert (np.abs(drawn - saved) > 2).mean() < 0.01
