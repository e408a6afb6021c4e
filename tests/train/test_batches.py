"""Batches: order, augmentation and targets."""

import numpy as np
import pytest
import torch

from edgeemo.card import InputContract
from edgeemo.data import load
from edgeemo.labels import label_set
from edgeemo.stages import Train
from edgeemo.train import losses
from edgeemo.train.augment import TRANSFORMS, PoorCamera, transforms
from edgeemo.train.batches import Batches, Shard, loader, plan

WHOLE = Shard()


def planned(count, *, batch_size, seed=0, epoch=0, shard=WHOLE):
    truth = np.zeros(count, np.int64)
    return plan(truth, batch_size=batch_size, seed=seed, epoch=epoch, sampler="shuffle", shard=shard)


@pytest.fixture(scope="module")
def faces():
    return load("synthetic:60", "train", label_set("six"), contract=InputContract(48))


def test_an_epoch_shows_every_face_once():
    """Sixteen faces in batches of four: four batches, no face twice."""
    rows = np.concatenate([job.rows for job in planned(16, batch_size=4)])
    assert sorted(rows) == list(range(16))


def test_order_depends_on_seed_and_epoch_alone():
    """Same seed and epoch, same plan and augmentation; another epoch or seed has others."""
    first, again, *others = (
        planned(64, batch_size=8, seed=seed, epoch=epoch) for seed, epoch in ((1, 0), (1, 0), (1, 1), (2, 0))
    )
    assert all(np.array_equal(a.rows, b.rows) and a.seed == b.seed for a, b in zip(first, again, strict=True))
    for other in others:
        assert any(not np.array_equal(a.rows, b.rows) for a, b in zip(first, other, strict=True))
        assert not {job.seed for job in first} & {job.seed for job in other}


def test_processes_share_a_batch_without_overlap():
    """Three processes: together the faces of the one process's batch, each with another augmentation."""
    (whole,) = planned(12, batch_size=12)
    parts = [planned(12, batch_size=12, shard=Shard(rank, 3))[0] for rank in range(3)]
    assert sorted(np.concatenate([part.rows for part in parts])) == sorted(whole.rows)
    assert len({part.seed for part in parts}) == 3


@pytest.mark.parametrize("augment", TRANSFORMS)
def test_batches_are_the_same_however_many_processes_make_them(faces, augment):
    """Zero workers or two: the same bytes in the same order."""
    batches = Batches(faces, losses.targets(faces, 6, vote_share=0.5), InputContract(48), Train(augment=augment))
    jobs = planned(len(faces), batch_size=20)
    for (here, goal), (there, _) in zip(
        loader(batches, jobs, workers=0), loader(batches, jobs, workers=2), strict=True
    ):
        assert torch.equal(here, there)
        assert goal.shape == (20, 6)


def test_enhanced_augmentation_never_stands_a_face_on_its_head():
    """Without the origin document's vertical flips a bright forehead stays above."""
    face = np.zeros((48, 48, 3), np.uint8)
    face[:16] = 200
    pipeline = transforms("enhanced")
    for seed in range(100):
        pipeline.set_random_seed(seed)
        turned = pipeline(image=face)["image"].astype(float)
        assert turned[:24].mean() > turned[24:].mean()


def test_vertical_flips_turn_half_of_the_faces():
    """With them the bright forehead is below in about every second face."""
    face = np.zeros((48, 48), np.uint8)
    face[:16] = 200
    pipeline = transforms("enhanced", vertical_flips=True)
    below = 0
    for seed in range(100):
        pipeline.set_random_seed(seed)
        turned = pipeline(image=face)["image"].astype(float)
        below += turned[:24].mean() < turned[24:].mean()
    assert 30 <= below <= 70


def test_a_poor_camera_corrupts_its_share_of_the_faces_alike_for_one_seed(faces):
    """Of 600 faces about 30 %, each by a seed of its own; the same again under the same seed; none under 0."""
    pixels = np.repeat(faces.pixels, 10, axis=0)
    camera = PoorCamera(0.3)
    seen = camera(pixels, seed=7)
    touched = (seen != pixels).any(axis=(1, 2))
    assert 0.22 <= touched.mean() <= 0.38
    assert np.array_equal(seen, camera(pixels, seed=7))
    assert not np.array_equal(seen, camera(pixels, seed=8))
    assert np.array_equal(PoorCamera(0.0)(pixels, seed=7), pixels)
    assert len(np.unique(PoorCamera(1.0)(pixels[:10], seed=7), axis=0)) == 10


def test_a_poor_camera_leaves_gray_gray_and_the_faces_themselves_as_they_are(faces):
    """Three channels alike stay alike, in every way of corrupting; what came in is not written to."""
    gray3 = np.repeat(faces.pixels[..., None], 3, axis=3)
    before = gray3.copy()
    seen = PoorCamera(1.0)(gray3, seed=1)
    assert np.array_equal(seen, np.repeat(seen[..., :1], 3, axis=3))
    assert np.array_equal(gray3, before)
