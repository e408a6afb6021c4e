"""Sampling of the faces of an epoch."""

import numpy as np
import pytest

from edgeemo.train.sampling import draw_order

TRUTH = np.repeat([0, 1, 2], [8_100, 1_600, 100])


def shares(sampler):
    rows = draw_order(TRUTH, np.random.default_rng(0), sampler=sampler)
    assert len(rows) == len(TRUTH)
    return np.bincount(TRUTH[rows], minlength=3) / len(TRUTH)


def test_shuffle_contains_each_face_once():
    """The same permutation as in earlier versions, so that their runs can be resumed and repeated."""
    rows = draw_order(TRUTH, np.random.default_rng(0), sampler="shuffle")
    assert sorted(rows) == list(range(len(TRUTH)))
    assert np.array_equal(rows, np.random.default_rng(0).permutation(len(TRUTH)))


def test_weighted_draws_every_class_equally_often():
    """A third each, within the error of that many draws."""
    assert shares("weighted") == pytest.approx([1 / 3] * 3, abs=0.02)


def test_sqrt_is_in_between():
    """Classes of 8100, 1600 and 100 faces are drawn as 90 : 40 : 10."""
    assert shares("sqrt") == pytest.approx([90 / 140, 40 / 140, 10 / 140], abs=0.02)


@pytest.mark.parametrize("sampler", ["sqrt", "weighted"])
def test_all_faces_of_a_class_are_equally_likely(sampler):
    """Over 200 epochs, each of the 100 rare faces is drawn equally often, within 5 standard deviations."""
    rng = np.random.default_rng(0)
    times = sum(np.bincount(draw_order(TRUTH, rng, sampler=sampler), minlength=len(TRUTH)) for _ in range(200))[-100:]
    assert abs(times - times.mean()).max() < 5 * times.mean() ** 0.5


@pytest.mark.parametrize("sampler", ["shuffle", "weighted", "sqrt"])
def test_the_same_seed_draws_the_same_faces(sampler):
    """Another seed draws others."""
    first, again, other = (draw_order(TRUTH, np.random.default_rng(seed), sampler=sampler) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
