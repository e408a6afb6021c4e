"""Selective accuracy: which predictions count at a threshold, and the threshold that is shown to reach an accuracy."""

from __future__ import annotations

import numpy as np
import pytest

from edgeemo import metrics
from edgeemo.selective import MIN_ANSWERS, fit_answers, fit_threshold, measure_answers, measure_curve


def two_labels(top: list[float] | np.ndarray) -> np.ndarray:
    """(N, 2) probabilities; label 0 has the given one."""
    return np.stack([np.asarray(top), 1 - np.asarray(top)], axis=1)


def calibrated(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Top probabilities of 0.5 to 1, each as often right as it says."""
    top = rng.uniform(0.5, 1, n)
    return two_labels(top), (rng.random(n) > top).astype(int)


def test_a_prediction_counts_from_the_threshold_on() -> None:
    """One exactly on it does; accuracy is over those alone, with the interval of their number."""
    probabilities, truth = two_labels([0.9, 0.7, 0.6, 0.2]), np.array([0, 1, 1, 1])
    found = measure_answers(probabilities, truth, 0.7)
    assert (found.n, found.answered, found.coverage, found.accuracy) == (4, 3, 0.75, pytest.approx(2 / 3))
    assert (found.accuracy_low, found.accuracy_high) == metrics.wilson(2, 3)


def test_without_any_answer_there_is_no_accuracy() -> None:
    """Not 0 %, and not 100 %."""
    found = measure_answers(two_labels([0.6]), np.array([0]), 0.9)
    assert (found.answered, found.coverage, found.accuracy, found.accuracy_low) == (0, 0.0, None, None)


def test_at_zero_every_face_has_an_answer(rng: np.random.Generator) -> None:
    """The accuracy is the ordinary one."""
    probabilities, truth = calibrated(rng, 300)
    (found,) = measure_curve(probabilities, truth, [0.0])
    assert (found.coverage, found.accuracy) == (1.0, metrics.scores(probabilities, truth, ("a", "b")).accuracy)


def test_the_threshold_is_the_lowest_that_is_shown_to_reach_the_accuracy(rng: np.random.Generator) -> None:
    """A step lower the interval reaches below the aim, and the point estimate alone would go lower still."""
    probabilities, truth = calibrated(rng, 2000)
    found = fit_threshold(probabilities, truth, 0.9)
    assert found.accuracy_low >= 0.9
    lower = measure_answers(probabilities, truth, round(found.least_probability - 0.01, 2))
    assert lower.accuracy_low < 0.9 <= lower.accuracy


def test_the_threshold_holds_on_other_faces(rng: np.random.Generator) -> None:
    """Of a calibrated model: fitted 50 times on 3,000 faces, it reaches the aim on a million in at least 45."""
    unseen, truth = calibrated(rng, 1_000_000)
    fitted = [fit_threshold(*calibrated(rng, 3000), 0.85) for _ in range(50)]
    thresholds = [one.least_probability for one in fitted]
    accuracy = {at: measure_answers(unseen, truth, at).accuracy for at in set(thresholds)}
    assert sum(accuracy[at] >= 0.85 for at in thresholds) >= 45


def test_a_model_that_does_not_reach_it_gets_no_threshold(rng: np.random.Generator) -> None:
    """A coin that is sure of itself, and too few faces to show anything."""
    coin = two_labels(np.full(1000, 0.95))
    assert fit_answers(coin, rng.integers(0, 2, 1000), 0.9) is None
    few = MIN_ANSWERS - 1
    assert fit_answers(two_labels(np.ones(few)), np.zeros(few, int), 0.9) is None
    rare = two_labels(np.repeat([0.95, 0.5], [150, 850]))  # right where it is sure, which it is for 15 % of the faces
    assert fit_answers(rare, np.repeat([0, 1], [150, 850]), 0.9) is None


def test_a_model_that_reaches_it_on_every_face_is_never_unsure() -> None:
    """The threshold is 0."""
    answers = fit_answers(two_labels(np.full(200, 0.6)), np.zeros(200, int), 0.9)
    assert (answers.least_probability, answers.coverage, answers.accuracy, answers.n) == (0.0, 1.0, 1.0, 200)


def test_one_lucky_threshold_below_a_failing_one_does_not_count() -> None:
    """500 certain and right, 100 less certain and wrong, 1,800 uncertain and right: it ends at the wrong ones."""
    top = np.repeat([0.95, 0.8, 0.6], [500, 100, 1800])
    truth = np.repeat([0, 1, 0], [500, 100, 1800])
    found = fit_threshold(two_labels(top), truth, 0.9)
    assert found.least_probability == 0.81
    assert measure_answers(two_labels(top), truth, 0.6).accuracy_low > 0.9
