"""The embedded data set."""

import numpy as np
import pytest

from edgeemo.card import InputContract
from edgeemo.data import faces, synthetic
from edgeemo.data.drawing import draw_face
from edgeemo.errors import UsageError
from edgeemo.labels import label_set
from edgeemo.train.network import contract_for

SIX = label_set("six")


def test_labels_are_balanced_and_counts_exact():
    """60 train faces are ten of each label; valid gets a fifth."""
    train, valid = (faces.load("synthetic:60", split, SIX, contract=InputContract(48)) for split in ("train", "valid"))
    assert np.bincount(train.truth).tolist() == [10] * 6
    assert len(valid) == 12


def test_two_readings_are_identical(monkeypatch):
    """Drawn faces depend on their number alone, each time anew; other tests share one drawing."""
    monkeypatch.setattr(synthetic, "draw_face", draw_face)
    first, second = (faces.load("synthetic:60", "valid", SIX, contract=InputContract(48)) for _ in range(2))
    assert np.array_equal(first.pixels, second.pixels)


def test_splits_share_no_face():
    """No drawing stands in two splits."""
    drawn = [
        {face.tobytes() for face in faces.load("synthetic:60", split, SIX, contract=InputContract(48)).pixels}
        for split in ("train", "valid", "test")
    ]
    assert [len(split) for split in drawn] == [60, 12, 12]
    assert len(set.union(*drawn)) == 84


@pytest.mark.parametrize(
    ("backbone", "data", "colour"),
    [
        ("resnet18", "synthetic:60", "gray3"),
        ("resnet18", "ferplus:x", "gray3"),
        ("resnet18", "folder:x", "rgb"),
        ("edge_vgg", "synthetic:60", "gray"),
    ],
)
def test_a_colour_backbone_trained_on_gray_faces_is_shown_gray(backbone, data, colour):
    """What it never saw in training it shall not see afterwards; mean and std stay the backbone's."""
    contract = contract_for(backbone, 64, gray_faces=faces.are_gray(data))
    assert contract.colour == colour
    assert contract.mean == contract_for(backbone, 64).mean


@pytest.mark.parametrize("count", ["5", "many", "-60"])
def test_senseless_count_is_refused(count):
    """Too few faces for the labels, or no number at all."""
    with pytest.raises(UsageError, match="whole number"):
        faces.samples(f"synthetic:{count}", "train", SIX)


def test_some_of_the_faces_are_taken_from_all_over():
    """First, last and evenly between; never more than there are."""
    train = faces.load("synthetic:60", "train", SIX, contract=InputContract(48))
    assert train.spread(3).ids == [train.ids[row] for row in (0, 30, 59)]
    assert train.spread(1000).ids == train.ids
