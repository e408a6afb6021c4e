"""Cards and the files they describe."""

import json
from dataclasses import replace

import pytest

from edgeemo.artifact import write_json, written
from edgeemo.card import Card, InputContract, card_path, label_set_of, read_card, write_card
from edgeemo.errors import IntegrityError

CARD = Card(("a", "b"), "own", InputContract(48), {"backbone": "x"}, temperature=0.9)


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"weights")
    write_card(path, CARD)
    return path


def test_card_survives_the_round_trip(model):
    """What was written is what is read, plus the file's hash."""
    read = read_card(model)
    assert read == write_card(model, CARD)
    assert len(read.sha256) == 64


def test_changed_model_is_refused(model):
    """One changed byte, and file and card no longer belong together."""
    model.write_bytes(b"Weights")
    with pytest.raises(IntegrityError, match="is not the file that its card describes"):
        read_card(model)


@pytest.mark.parametrize("lost", ["model", "card"])
def test_missing_half_is_named(model, lost):
    """A model is a file with its card; the message says which is missing."""
    (model if lost == "model" else card_path(model)).unlink()
    with pytest.raises(IntegrityError, match=f"^{lost} .* does not exist"):
        read_card(model)


@pytest.mark.parametrize(
    "change",
    [{"format": 2}, {"labels": 3}, {"input": {"side": 48}}, {"surprise": 1}],
    ids=["format", "labels", "input", "unknown field"],
)
def test_foreign_card_is_refused(model, change):
    """Nothing is guessed from a card that is not ours."""
    path = card_path(model)
    write_json(path, json.loads(path.read_text()) | change)
    with pytest.raises(IntegrityError):
        read_card(model)


def test_card_that_is_not_json_is_refused(model):
    """The message names the card."""
    card_path(model).write_text("hello")
    with pytest.raises(IntegrityError, match=r"model\.onnx\.json is not an edgeemo card"):
        read_card(model)


def test_failed_write_leaves_the_old_file(model):
    """A file appears whole or not at all, and no temporary name is left behind."""

    def write_half():
        with written(model) as partial:
            partial.write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert model.read_bytes() == b"weights"
    assert sorted(file.name for file in model.parent.iterdir()) == ["model.onnx", "model.onnx.json"]


def test_a_card_that_misnames_its_label_set_is_refused():
    """The name `six` belongs to six labels, in their order."""
    with pytest.raises(IntegrityError, match="label set 'six'"):
        label_set_of(replace(CARD, label_set="six"))


def test_labels_of_ones_own_are_read_off_the_card():
    """A set that has no name in our table is what the card lists."""
    assert label_set_of(CARD).labels == ("a", "b")
