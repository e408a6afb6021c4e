"""A change of the logits: what is fitted, what is left alone, what is held out, and when it counts as shown."""

from __future__ import annotations

import tracemalloc
from itertools import combinations

import numpy as np
import pytest

from edgeemo.adaptation import count_more_faces, explain_refusal, fit_adaptation, list_left_alone, list_warnings
from edgeemo.adaptation.choose import compute_p_value
from edgeemo.adaptation.fit import (
    MANY,
    PENALTIES,
    Candidate,
    Change,
    Problem,
    compute_log_likelihood,
    list_candidates,
)
from edgeemo.adaptation.folds import BLOCKS, FOLDS, make_folds
from edgeemo.metrics import softmax

LABELS = ("neutral", "happiness", "sadness", "anger")
SHIFT = np.array([2.5, 0.0, 0.0, -2.5])  # anger looks neutral


def draw(n: int, *, shift: np.ndarray | float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(n, 4) logits of a calibrated model, plus a shift, and (n,) labels."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2.3, (n, len(LABELS)))
    truth = np.array([rng.choice(len(LABELS), p=row) for row in softmax(logits)])
    return logits + shift, truth


def allow(truth: np.ndarray) -> np.ndarray:
    """(N, K) bool: the true label alone."""
    return np.arange(len(LABELS))[None] == truth[:, None]


def compute_penalized_loss(problem: Problem, change: Change, candidate: Candidate) -> float:
    """The loss that `fit` states, from its result."""
    factors = (change.matrix - np.eye(len(LABELS))) * 2.3
    squares = (factors**2).sum() + (change.bias**2).sum()
    return float(
        -compute_log_likelihood(change.apply(problem.logits), problem.allowed).sum() + candidate.penalty / 2 * squares
    )


@pytest.mark.parametrize("form", PENALTIES)
def test_no_small_step_from_a_fit_is_better(form: str) -> None:
    """It is the minimum of a convex loss, over changes of the form."""
    logits, truth = draw(60, shift=SHIFT)
    problem, candidate = Problem(logits, allow(truth)), Candidate(form, PENALTIES[form][0])
    change, _ = problem.fit(candidate)
    least = compute_penalized_loss(problem, change, candidate)
    rng = np.random.default_rng(1)
    for _ in range(20):
        step = rng.normal(0, 0.02, (4, 5))
        step[:, 0] -= step[:, 0].mean()
        factors = {"bias": 0, "diagonal": np.diag(np.diag(step[:, 1:])), "matrix": step[:, 1:] - step[:, 1:].mean(0)}
        other = Change(change.matrix + factors[form], change.bias + step[:, 0])
        assert compute_penalized_loss(problem, other, candidate) > least - 1e-4


@pytest.mark.parametrize(("form", "shape"), [("bias", np.eye(4)), ("diagonal", np.eye(4)), ("matrix", np.ones((4, 4)))])
def test_a_form_changes_no_more_than_it_says(form: str, shape: np.ndarray) -> None:
    """A bias leaves the factors at 1, a diagonal those between labels at 0."""
    logits, truth = draw(80, shift=SHIFT)
    change, _ = Problem(logits, allow(truth)).fit(Candidate(form, 3.0))
    assert not change.matrix[shape == 0].any()
    assert (form == "bias") == np.array_equal(change.matrix, np.eye(4))
    assert np.abs(change.bias).max() > 0.1


def test_a_strong_penalty_changes_almost_nothing() -> None:
    """It shrinks towards the model as it is."""
    logits, truth = draw(80, shift=SHIFT)
    change, _ = Problem(logits, allow(truth)).fit(Candidate("matrix", 1e6))
    assert np.abs(change.apply(logits) - logits).max() < 0.01


def test_a_bias_on_many_faces_undoes_a_shift() -> None:
    """Up to a constant, which softmax does not see."""
    logits, truth = draw(4000, shift=SHIFT)
    change, _ = Problem(logits, allow(truth)).fit(Candidate("bias", 0.3))
    assert change.bias - change.bias.mean() == pytest.approx(SHIFT.mean() - SHIFT, abs=0.2)


@pytest.mark.parametrize("form", PENALTIES)
def test_a_label_without_a_face_is_left_alone(form: str) -> None:
    """Neither its logit nor its distance from the mean of the others moves; closed, it becomes improbable."""
    logits, truth = draw(200, shift=SHIFT)
    rows = truth != 0
    problem = Problem(logits[rows], allow(truth)[rows])
    change, _ = problem.fit(Candidate(form, 1.0))
    changed = change.apply(logits)
    assert changed[:, 0] == pytest.approx(logits[:, 0])
    assert changed[:, 1:].mean(1) == pytest.approx(logits[:, 1:].mean(1))
    closed, _ = Problem(logits[rows], allow(truth)[rows], closed=True).fit(Candidate(form, 1.0))
    assert softmax(closed.apply(logits))[:, 0].mean() < softmax(changed)[:, 0].mean() / 2


def test_merged_labels_count_by_their_sum() -> None:
    """Which of two merged labels a face has is not known, and no matter."""
    logits, allowed = np.array([[2.0, 1.0, 0.0, 0.0]]), np.array([[True, True, False, False]])
    p = softmax(logits)[0]
    assert compute_log_likelihood(logits, allowed) == pytest.approx(np.log(p[0] + p[1]))
    shifted, truth = draw(300, shift=SHIFT)
    merged = np.where(truth == 3, 2, truth)  # sadness and anger are one label
    fitted = fit_adaptation(shifted, merged, LABELS[:3], positions=(0, 1, 2, 2))
    assert fitted.shown
    assert fitted.evidence.after.accuracy > fitted.evidence.before.accuracy + 0.03


def test_weak_penalties_are_for_many_faces() -> None:
    """The strongest of a form comes first."""
    few, many = list_candidates(MANY - 1), list_candidates(MANY)
    assert set(few) < set(many)
    assert [one.penalty for one in many if one.form == "bias"] == [10.0, 3.0, 1.0, 0.3]


def test_people_are_held_out_whole() -> None:
    """In folds of about the same number of faces."""
    people = [f"p{k % 11}" for k in range(100)]
    folds = make_folds(*draw(100), people)
    assert (folds.people, folds.by_people, folds.count) == (11, True, FOLDS)
    fold_of = {person: {folds.fold[k] for k in range(100) if people[k] == person} for person in people}
    assert {len(found) for found in fold_of.values()} == {1}
    assert len({folds.unit[k] for k in range(100)}) == 11
    assert np.ptp(np.bincount(folds.fold)) <= 10


def test_without_people_neighbours_are_held_out_together() -> None:
    """The frames of a burst follow each other within a label; every block has several labels."""
    truth = np.repeat([0, 1, 2], 200)
    folds = make_folds(draw(600)[0] * 10, truth, None)
    assert (folds.people, folds.by_people, len(np.unique(folds.unit))) == (None, False, BLOCKS)
    for label in range(3):
        assert (np.diff(folds.unit[truth == label]) != 0).sum() == BLOCKS - 1
    assert {len(np.unique(truth[folds.unit == unit])) for unit in range(BLOCKS)} == {3}


@pytest.mark.parametrize("frames", [4, 10])
def test_frames_of_a_burst_do_not_pass_for_a_gain(frames: int) -> None:
    """Without people: the network sees them almost alike, so they are held out together, however few there are."""
    shown = 0
    for seed in range(20):
        logits, truth = draw(20, seed=seed)
        rows = np.repeat(np.argsort(truth, kind="stable"), frames)
        jitter = np.random.default_rng(seed).normal(0, 0.2, (len(rows), len(LABELS)))
        shown += fit_adaptation(logits[rows] + jitter, truth[rows], LABELS).shown
    assert shown <= 2


@pytest.mark.parametrize("people", [["a"] * 30, ["a", "b"] * 15])
def test_one_or_two_people_cannot_be_held_out(people: list[str]) -> None:
    """Blocks of their faces are, and a warning says what that does not show."""
    logits, truth = draw(30, shift=SHIFT)
    fitted = fit_adaptation(logits, truth, LABELS, people=people)
    assert not fitted.evidence.folds.by_people
    assert "the gain on other people is not measured" in list_warnings(fitted.evidence)[0]


def test_a_test_on_few_people_is_over_their_faces() -> None:
    """With three people no sign-flip test on people can be below 1/8."""
    logits, truth = draw(90, shift=SHIFT)
    fitted = fit_adaptation(logits, truth, LABELS, people=[f"p{k % 3}" for k in range(90)])
    assert fitted.evidence.folds.by_people
    assert len(np.unique(fitted.evidence.folds.unit)) == 90
    assert "only 3 people" in list_warnings(fitted.evidence)[0]


def test_a_shift_is_found_and_shown() -> None:
    """On held-out faces, as on new ones."""
    logits, truth = draw(200, shift=SHIFT)
    fitted = fit_adaptation(logits, truth, LABELS, people=[f"p{k % 20}" for k in range(200)])
    new, new_truth = draw(4000, shift=SHIFT, seed=9)
    gain = (fitted.change.apply(new).argmax(1) == new_truth).mean() - (new.argmax(1) == new_truth).mean()
    assert fitted.shown
    assert gain > 0.05
    assert fitted.evidence.paired.difference == pytest.approx(gain, abs=0.05)
    assert [one.faces for one in fitted.evidence.curve] == [0, 5, 10, 20, 50, 100, 160]
    assert fitted.evidence.curve[0].accuracy == fitted.evidence.before.accuracy
    assert fitted.evidence.curve[-1].accuracy == pytest.approx(fitted.evidence.after.accuracy)
    assert list_warnings(fitted.evidence) == []


def test_without_a_shift_nothing_is_shown() -> None:
    """At most 1 of 20 draws, at each size."""
    for n in (10, 30, 100):
        shown = [fit_adaptation(*draw(n, seed=seed), LABELS).shown for seed in range(20)]
        assert sum(shown) <= 1


def test_wrong_labels_do_little_harm() -> None:
    """One of ten: what new faces lose by an adaptation that is shown stays below a point, on average."""
    new, new_truth = draw(4000, seed=99)
    losses = []
    for seed in range(20):
        logits, truth = draw(60, seed=seed)
        rng = np.random.default_rng(seed)
        wrong = rng.random(60) < 0.1
        truth[wrong] = rng.integers(0, 4, wrong.sum())
        fitted = fit_adaptation(logits, truth, LABELS)
        change = fitted.change.apply(new) if fitted.shown else new
        losses.append((new.argmax(1) == new_truth).mean() - (change.argmax(1) == new_truth).mean())
    assert np.mean(losses) < 0.01


@pytest.mark.parametrize(("n", "words"), [(2, "2 faces, expected 3 or more that differ"), (8, "label 22 more")])
def test_too_few_faces_are_refused_with_what_is_needed(n: int, words: str) -> None:
    """Not an error of NumPy."""
    fitted = fit_adaptation(draw(n, seed=3)[0], np.arange(n) % 2, LABELS)
    assert not fitted.shown
    assert words in explain_refusal(fitted)


def test_faces_of_one_label_are_refused() -> None:
    """They cannot say which label is which."""
    logits, _ = draw(30)
    fitted = fit_adaptation(logits, np.zeros(30, int), LABELS)
    assert fitted.candidate is None
    assert "all 30 faces have one label; expected two" in explain_refusal(fitted)


def test_a_gain_that_may_be_chance_says_how_many_more_faces_would_show_it() -> None:
    """From the mean and the spread of the gains."""
    found = []
    for seed in range(30):
        fitted = fit_adaptation(*draw(14, shift=SHIFT / 2, seed=seed), LABELS)
        if not fitted.shown and "more faces would show such a gain" in explain_refusal(fitted):
            assert fitted.evidence.needed is not None
            assert f"about {count_more_faces(fitted.evidence)} more" in explain_refusal(fitted)
            assert count_more_faces(fitted.evidence) == fitted.evidence.needed - 14
            found.append(seed)
    assert found


def test_labels_without_a_face_are_listed() -> None:
    """So that the user can say that they do not occur."""
    logits, truth = draw(60, shift=SHIFT)
    fitted = fit_adaptation(logits[truth > 0], truth[truth > 0], LABELS)
    assert list_left_alone(fitted, closed=False) == ["neutral"]
    assert list_left_alone(fitted, closed=True) == []


def test_the_p_value_is_the_share_of_signs_with_such_a_sum() -> None:
    """Counted by hand for few units; 1 without any change, small for many equal gains."""
    gains = np.array([3.0, 1.0, -0.5, 2.0])
    sums = [gains.sum() - 2 * gains[list(flipped)].sum() for n in range(5) for flipped in combinations(range(4), n)]
    assert compute_p_value(gains) == np.mean(np.array(sums) >= gains.sum() - 1e-9)
    assert compute_p_value(np.zeros(5)) == 1.0
    assert compute_p_value(np.full(40, 0.1)) < 0.001
    assert compute_p_value(-np.full(40, 0.1)) > 0.99


def test_the_p_value_of_many_units_takes_little_memory() -> None:
    """50,000 faces; all signs at once would take gigabytes."""
    tracemalloc.start()
    assert compute_p_value(np.random.default_rng(0).normal(0.1, 1, 50_000)) < 0.001
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * 2**20


def test_a_fit_is_the_same_each_time() -> None:
    """Folds, draws and tests are seeded."""
    logits, truth = draw(80, shift=SHIFT)
    first, second = (fit_adaptation(logits, truth, LABELS) for _ in range(2))
    assert np.array_equal(first.change.matrix, second.change.matrix)
    assert first.evidence.p_value == second.evidence.p_value
    assert first.evidence.curve == second.evidence.curve
