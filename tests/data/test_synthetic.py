"""The built-in data set."""

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
    """60 training faces are ten of each label; valid has a fifth as many."""
    train, valid = (faces.load("synthetic:60", split, SIX, contract=InputContract(48)) for split in ("train", "valid"))
    assert np.bincount(train.truth).tolist() == [10] * 6
    assert len(valid) == 12


def test_loading_twice_gives_identical_faces(monkeypatch):
    """Faces depend on their number alone. Here they are drawn every time; other tests share a cache."""
    monkeypatch.setattr(synthetic, "draw_face", draw_face)
    first, second = (faces.load("synthetic:60", "valid", SIX, contract=InputContract(48)) for _ in range(2))
    assert np.array_equal(first.pixels, second.pixels)


def test_splits_share_no_face():
    """No face is in two splits."""
    splits = [
        {face.tobytes() for face in faces.load("synthetic:60", split, SIX, contract=InputContract(48)).pixels}
        for split in ("train", "valid", "test")
    ]
    assert [len(split) for split in splits] == [60, 12, 12]
    assert len(set.union(*splits)) == 84


@pytest.mark.parametrize(
    ("backbone", "data", "colour"),
    [
        ("resnet18", "synthetic:60", "gray3"),
        ("resnet18", "ferplus:x", "gray3"),
        ("resnet18", "folder:x", "rgb"),
        ("edge_vgg", "synthetic:60", "gray"),
    ],
)
def test_a_colour_backbone_trained_on_gray_faces_gets_gray_input(backbone, data, colour):
    """Inference must not have colour that training did not have; mean and std are the backbone's."""
    contract = contract_for(backbone, 64, gray_faces=faces.is_grayscale(data))
    assert contract.colour == colour
    assert contract.mean == contract_for(backbone, 64).mean


@pytest.mark.parametrize("count", ["5", "many", "-60"])
def test_an_invalid_count_is_refused(count):
    """Too few faces for the labels, or not a number."""
    with pytest.raises(UsageError, match="whole number"):
        faces.samples(f"synthetic:{count}", "train", SIX)


def test_faces_are_taken_at_even_intervals():
    """From the first to the last; at most all of them."""
    train = faces.load("synthetic:60", "train", SIX, contract=InputContract(48))
    assert train.take_evenly(3).ids == [train.ids[row] for row in (0, 30, 59)]
    assert train.take_evenly(1000).ids == train.ids


def test_faces_are_decoded_once_per_contract() -> None:
    """At even intervals; labels and ids are the same under every contract."""
    decoded = faces.DecodedFaces("synthetic:60", "valid", label_set("six"), count=5)
    small, large = (decoded.decode(InputContract(size)) for size in (32, 48))
    assert decoded.decode(InputContract(32)) is small is decoded.first
    assert (small.pixels.shape, large.pixels.shape) == ((5, 32, 32), (5, 48, 48))
    assert small.ids == large.ids
