"""BatchDataset: order, augmentation and targets."""

import numpy as np
import pytest
import torch

from edgeemo.card import InputContract
from edgeemo.data import load
from edgeemo.errors import MachineError
from edgeemo.labels import label_set
from edgeemo.stages import Train
from edgeemo.train import batches, losses
from edgeemo.train.augment import TRANSFORMS, Corruption, make_augmentation
from edgeemo.train.batches import BatchDataset, Shard, make_loader, plan_epoch

WHOLE = Shard()
RGB = InputContract(224, "rgb", (0.5,) * 3, (0.5,) * 3)


def plan(count, *, batch_size, seed=0, epoch=0, shard=WHOLE):
    truth = np.zeros(count, np.int64)
    return plan_epoch(truth, batch_size=batch_size, seed=seed, epoch=epoch, sampler="shuffle", shard=shard)


@pytest.fixture(scope="module")
def faces():
    return load("synthetic:60", "train", label_set("six"), contract=InputContract(48))


def test_an_epoch_contains_every_face_once():
    """Sixteen faces in batches of four: four batches, no face twice."""
    rows = np.concatenate([spec.rows for spec in plan(16, batch_size=4)])
    assert sorted(rows) == list(range(16))


def test_order_depends_on_seed_and_epoch_only():
    """The same seed and epoch give the same batches and augmentation; another epoch or seed gives others."""
    first, again, *others = (
        plan(64, batch_size=8, seed=seed, epoch=epoch) for seed, epoch in ((1, 0), (1, 0), (1, 1), (2, 0))
    )
    assert all(np.array_equal(a.rows, b.rows) and a.seed == b.seed for a, b in zip(first, again, strict=True))
    for other in others:
        assert any(not np.array_equal(a.rows, b.rows) for a, b in zip(first, other, strict=True))
        assert not {spec.seed for spec in first} & {spec.seed for spec in other}


def test_processes_split_a_batch_without_overlap():
    """Three processes together have the faces of a single process, each with its own augmentation seed."""
    (full,) = plan(12, batch_size=12)
    parts = [plan(12, batch_size=12, shard=Shard(rank, 3))[0] for rank in range(3)]
    assert sorted(np.concatenate([part.rows for part in parts])) == sorted(full.rows)
    assert len({part.seed for part in parts}) == 3


@pytest.mark.parametrize("augment", TRANSFORMS)
def test_batches_do_not_depend_on_the_number_of_workers(faces, augment):
    """Zero or two workers: the same bytes in the same order."""
    batches = BatchDataset(
        faces, losses.make_targets(faces, 6, vote_share=0.5), InputContract(48), Train(augment=augment)
    )
    specs = plan(len(faces), batch_size=20)
    for (here, target), (there, _) in zip(
        make_loader(batches, specs, workers=0), make_loader(batches, specs, workers=2), strict=True
    ):
        assert torch.equal(here, there)
        assert target.shape == (20, 6)


def test_a_batch_that_memory_does_not_hold_is_refused(monkeypatch):
    """Before any face is read: 64 faces of 224 x 224 x 3 pixels, one byte and two floats of four bytes each."""
    size = 64 * 224 * 224 * 3 * 9
    monkeypatch.setattr(batches, "available_memory", lambda: size)
    batches.check_memory(RGB, batch_size=64)
    monkeypatch.setattr(batches, "available_memory", lambda: size - 1)
    expected = "a batch of 64 faces at 224 px RGB needs 87 MB of memory; 87 MB are available: .*--batch-size or --size"
    with pytest.raises(MachineError, match=expected):
        batches.check_memory(RGB, batch_size=64)


def test_enhanced_augmentation_keeps_faces_upright():
    """Without the origin document's vertical flips, a bright forehead stays in the upper half."""
    face = np.zeros((48, 48, 3), np.uint8)
    face[:16] = 200
    pipeline = make_augmentation("enhanced")
    for seed in range(100):
        pipeline.set_random_seed(seed)
        turned = pipeline(image=face)["image"].astype(float)
        assert turned[:24].mean() > turned[24:].mean()


def test_vertical_flips_turn_half_of_the_faces():
    """The bright forehead is in the lower half of about every second face."""
    face = np.zeros((48, 48), np.uint8)
    face[:16] = 200
    pipeline = make_augmentation("enhanced", vertical_flips=True)
    below = 0
    for seed in range(100):
        pipeline.set_random_seed(seed)
        turned = pipeline(image=face)["image"].astype(float)
        below += turned[:24].mean() < turned[24:].mean()
    assert 30 <= below <= 70


def test_corruption_is_reproducible_and_affects_the_given_fraction(faces):
    """About 30 % of 600 faces, each with its own seed; identical for the same seed; none for a fraction of 0."""
    pixels = np.repeat(faces.pixels, 10, axis=0)
    corrupt = Corruption(0.3)
    corrupted = corrupt(pixels, seed=7)
    changed = (corrupted != pixels).any(axis=(1, 2))
    assert 0.22 <= changed.mean() <= 0.38
    assert np.array_equal(corrupted, corrupt(pixels, seed=7))
    assert not np.array_equal(corrupted, corrupt(pixels, seed=8))
    assert np.array_equal(Corruption(0.0)(pixels, seed=7), pixels)
    assert len(np.unique(Corruption(1.0)(pixels[:10], seed=7), axis=0)) == 10


def test_corruption_keeps_gray_faces_gray_and_does_not_modify_its_input(faces):
    """Three equal channels stay equal under every corruption."""
    gray3 = np.repeat(faces.pixels[..., None], 3, axis=3)
    before = gray3.copy()
    corrupted = Corruption(1.0)(gray3, seed=1)
    assert np.array_equal(corrupted, np.repeat(corrupted[..., :1], 3, axis=3))
    assert np.array_equal(gray3, before)
