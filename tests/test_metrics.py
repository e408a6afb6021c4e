"""Metrics against values computed by hand or published."""

import numpy as np
import pytest

from edgeemo import metrics

LABELS = ("a", "b", "c")


def one_hot(classes):
    return np.eye(3)[classes]


def test_scores_of_a_small_confusion_matrix():
    """3 of 4 correct: recalls 1/2 and 1; a class without faces has no recall and is not part of macro-F1."""
    result = metrics.scores(one_hot([0, 1, 1, 1]), np.array([0, 0, 1, 1]), LABELS)
    assert result.accuracy == 0.75
    assert result.recall == {"a": 0.5, "b": 1.0, "c": None}
    assert result.macro_f1 == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert result.confusion == [[1, 1, 0], [0, 2, 0], [0, 0, 0]]


def test_wilson_interval_of_a_textbook_case():
    """81 of 263 (Newcombe 1998, table I): 0.2553 to 0.3662."""
    assert metrics.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_mcnemar_counts_disagreements_only():
    """2 and 8 of ten disagreements: two-sided exact p = 2 * 56 / 1024."""
    truth = np.zeros(100, int)
    first, second = truth.copy(), truth.copy()
    first[:8], second[8:10] = 1, 1
    pair = metrics.compare_paired(first, second, truth, LABELS)
    assert (pair.only_first, pair.only_second) == (2, 8)
    assert pair.p_value == pytest.approx(2 * (1 + 10 + 45) / 1024)
    assert pair.difference == pytest.approx(0.06)
    assert pair.agreement == 0.9
    assert pair.recall_difference == {"a": pytest.approx(0.06), "b": None, "c": None}


def test_equal_predictions_have_p_value_one():
    """A model compared with itself."""
    truth = np.arange(10) % 3
    assert metrics.compare_paired(truth, truth, truth, LABELS).p_value == 1.0


def test_recall_differences_are_the_differences_of_the_recalls(rng):
    """The paired comparison gives the difference of the recalls of both models."""
    first, second, truth = rng.integers(0, 3, (3, 200))
    old, new = (metrics.scores(one_hot(answers), truth, LABELS).recall for answers in (first, second))
    difference = metrics.compare_paired(first, second, truth, LABELS).recall_difference
    assert difference == {label: pytest.approx(new[label] - old[label]) for label in LABELS}


def test_ece_is_one_if_always_certain_and_wrong():
    """The largest possible calibration error."""
    assert metrics.ece(one_hot([1, 1]), np.array([0, 0])) == pytest.approx(1.0)


def test_temperature_corrects_a_known_overconfidence(rng):
    """Logits of a calibrated model, multiplied by 3, have a temperature near 3."""
    logits = rng.normal(size=(20_000, 3)) * 1.5
    truth = np.array([rng.choice(3, p=row) for row in metrics.softmax(logits)])
    assert metrics.fit_temperature(3 * logits, truth) == pytest.approx(3, rel=0.05)


def test_softmax_does_not_overflow():
    """Rows sum to one for large logits."""
    assert metrics.softmax(np.array([[1000.0, 0.0], [-1000.0, -1000.0]])).sum(1) == pytest.approx([1, 1])
