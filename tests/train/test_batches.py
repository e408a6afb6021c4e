"""Batches: order, augmentation and targets."""

import numpy as np
import pytest
import torch

from edgeemo.card import InputContract
from edgeemo.data import load
from edgeemo.labels import label_set
from edgeemo.train import objective
from edgeemo.train.augment import TRANSFORMS, transforms
from edgeemo.train.batches import Batches, loader, plan


@pytest.fixture(scope="module")
def faces():
    return load("synthetic:60", "train", label_set("six"), contract=InputContract(48))


def test_an_epoch_shows_every_face_once():
    """Sixteen faces in batches of four: four batches, no face twice."""
    rows = np.concatenate([job.rows for job in plan(16, batch_size=4, seed=0, epoch=0)])
    assert sorted(rows) == list(range(16))


def test_order_depends_on_seed_and_epoch_alone():
    """Same seed and epoch, same plan; the next epoch has another."""
    first, again, other = (plan(64, batch_size=8, seed=1, epoch=epoch) for epoch in (0, 0, 1))
    assert all(np.array_equal(a.rows, b.rows) and a.seed == b.seed for a, b in zip(first, again, strict=True))
    assert any(not np.array_equal(a.rows, b.rows) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("augment", TRANSFORMS)
def test_batches_are_the_same_however_many_processes_make_them(faces, augment):
    """Zero workers or two: the same bytes in the same order."""
    batches = Batches(faces, objective.targets(faces, 6, vote_share=0.5), InputContract(48), augment=augment)
    jobs = plan(len(faces), batch_size=20, seed=0, epoch=0)
    for (here, goal), (there, _) in zip(
        loader(batches, jobs, workers=0), loader(batches, jobs, workers=2), strict=True
    ):
        assert torch.equal(here, there)
        assert goal.shape == (20, 6)


def test_enhanced_augmentation_never_stands_a_face_on_its_head():
    """The origin document's vertical flip is left out: a bright forehead stays above."""
    face = np.zeros((48, 48, 3), np.uint8)
    face[:16] = 200
    pipeline = transforms("enhanced")
    for seed in range(100):
        pipeline.set_random_seed(seed)
        turned = pipeline(image=face)["image"].astype(float)
        assert turned[:24].mean() > turned[24:].mean()


def test_targets_mix_label_and_votes(faces):
    """Half of the label's one-hot, half of the shares of votes."""
    votes = np.full((len(faces), 6), 1 / 6, np.float32)
    mixed = objective.targets(type(faces)(faces.pixels, votes, faces.truth, faces.ids), 6, vote_share=0.5)
    assert mixed[np.arange(len(faces)), faces.truth] == pytest.approx(0.5 + 1 / 12)
    assert mixed.sum(1) == pytest.approx(1)


def test_class_weights_have_mean_one_over_the_faces():
    """A rare class weighs more; the loss keeps its scale."""
    truth = np.array([0] * 90 + [1] * 10)
    for rule, ratio in (("sqrt", 3.0), ("full", 9.0)):
        weights = objective.class_weights(truth, 2, rule=rule).numpy()
        assert weights[truth].mean() == pytest.approx(1)
        assert weights[1] / weights[0] == pytest.approx(ratio)


def test_learning_rate_rises_then_falls():
    """Linear to the peak in the warm-up, a cosine to a hundredth at the end."""
    adam = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = objective.warmup_cosine(adam, warmup=10, steps=100)
    rates = []
    for _ in range(100):
        rates.append(schedule.get_last_lr()[0])
        adam.step()
        schedule.step()
    assert rates[9] == pytest.approx(1)
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert schedule.get_last_lr()[0] == pytest.approx(0.01)
