"""The packaged detector is Google's: the same bytes from the same source, and the same answers."""

from __future__ import annotations

import hashlib
import json
import subprocess
from importlib.util import find_spec
from pathlib import Path

import convert_blazeface
import numpy as np
import pytest

from edgeemo.artifact import hash_file
from edgeemo.faces import blazeface, list_detectors

CARD = next(card for card in list_detectors() if card.name == "blazeface-full")
# Float kernels add in another order. A box differs by thousandths of a pixel of 192, a score by 1e-5 of a probability.
BOXES, SCORES = 2e-3, 2e-4


def test_outputs_are_those_of_litert() -> None:
    """On noise, gradients and synthetic faces, against what LiteRT gave for the highest scores of each."""
    with np.load(convert_blazeface.EXPECTED) as stored:
        anchors, expected = stored["anchors"].astype(int), {kind: stored[kind] for kind in ("boxes", "scores")}
    found = convert_blazeface.run_onnx(CARD.path.read_bytes(), convert_blazeface.make_inputs())
    assert expected["scores"].max() > 1  # some of them are faces
    for kind, limit in (("boxes", BOXES), ("scores", SCORES)):
        same = np.take_along_axis(found[kind], anchors[..., None], axis=1)
        assert np.abs(same - expected[kind]).max() < limit


def test_the_cards_difference_is_within_the_tolerance() -> None:
    """What the converter measured over all outputs, and wrote down."""
    assert CARD.conversion is not None
    assert CARD.conversion.boxes < BOXES
    assert CARD.conversion.scores < SCORES


def test_the_card_names_the_file_beside_it() -> None:
    """By hash and size, and the licence and the notice are beside it, with the changes stated."""
    assert hash_file(CARD.path) == CARD.sha256
    assert CARD.path.stat().st_size == CARD.size_bytes
    notice = (CARD.path.parent / "NOTICE").read_text(encoding="utf-8")
    assert "Apache License" in (CARD.path.parent / "LICENSE").read_text(encoding="utf-8")
    assert CARD.path.name in notice
    assert "Changed: converted from TFLite" in notice


def test_the_file_is_reproducible_from_the_package(tmp_path: Path) -> None:
    """The converter gives the same bytes, wherever the original comes from."""
    if find_spec("tflite") is None:
        pytest.skip("the package tflite is not installed (pip install tflite)")
    try:
        original = convert_blazeface.fetch(tmp_path).read_bytes()
    except subprocess.CalledProcessError:
        pytest.skip("pip does not reach a package index")
    assert hashlib.sha256(original).hexdigest() == convert_blazeface.TFLITE_SHA256 == CARD.source.original_sha256
    assert hashlib.sha256(convert_blazeface.convert(original)).hexdigest() == CARD.sha256


def test_decoding_places_boxes_about_their_anchors() -> None:
    """One anchor in the middle of each cell of 4 px, row by row; sizes and landmarks in pixels of the canvas."""
    boxes, logits = np.zeros((2304, 16), np.float32), np.full(2304, -9, np.float32)
    column, row = 10, 20
    anchor = row * 48 + column
    logits[anchor] = 2
    boxes[anchor] = [1, -1, 40, 30, *range(12)]
    (found,) = blazeface.decode(boxes, logits, 0.5)
    x, y = column * 4 + 2, row * 4 + 2
    assert found[:4] == pytest.approx([x + 1 - 20, y - 1 - 15, 40, 30])
    assert found[4] == pytest.approx(1 / (1 + np.exp(-2)))
    assert found[5:].reshape(6, 2) == pytest.approx(np.arange(12).reshape(6, 2) + np.array([x, y]))
    assert len(blazeface.decode(boxes, logits, 0.9)) == 0  # sigmoid(2) is 0.88


@pytest.mark.parametrize("card", list_detectors(), ids=lambda card: card.name)
def test_boxes_lie_about_the_eyes_as_measured(card) -> None:
    """`box` of each card is the median over FER+ train faces, and the crop contract's defaults are near it."""
    path = Path(convert_blazeface.__file__).parent / "results" / "faces" / "framing.json"
    rows = {row["detector"]: row for row in json.loads(path.read_text(encoding="utf-8"))["rows"]}
    row = rows[card.name]
    assert card.box.side_eye_distances == pytest.approx(row["box_side_eye_distances"]["p50"], abs=0.005)
    assert card.box.below_eyes == pytest.approx(row["box_below_eyes"]["p50"], abs=0.005)
