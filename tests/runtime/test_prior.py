"""Predictions are corrected for the mix of emotions where a model runs, as given or as estimated."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import make_tiny
import numpy as np
import pytest
from sections import HASH

import edgeemo
from edgeemo.card import Answers, Data, FaceList, read_card, write_card
from edgeemo.errors import IntegrityError, UsageError
from edgeemo.labels import LABEL_SETS, LabelSet
from edgeemo.runtime import open_model, shipped
from edgeemo.runtime.prior import (
    BOUND,
    MINIMUM,
    WINDOW,
    EstimatedCorrection,
    correct,
    estimate_shares,
    find_shares,
    find_training_shares,
)

LABELS = ("neutral", "happiness", "fear")
TRAINING = np.array([0.5, 0.3, 0.2])
PRIOR = dict(zip(make_tiny.LABELS, (0.4, 0.2, 0.15, 0.1, 0.1, 0.05), strict=True))
HALVES = LabelSet("halves", ("a", "b"), dict(zip(make_tiny.LABELS, "aaabbb", strict=True)))


def state_prior(path: Path, prior: Mapping[str, float] | None = PRIOR) -> Path:
    """Write a card whose section on data states the shares of training."""
    about = FaceList(10, HASH)
    data = Data("synthetic", "plurality", train=about, valid=about, prior=dict(prior) if prior else None)
    write_card(path, replace(make_tiny.card(), data=data))
    return path


@pytest.fixture
def stated(copy: Path) -> Path:
    return state_prior(copy)


@pytest.fixture
def faces(rng: np.random.Generator) -> np.ndarray:
    """Noise of several brightnesses, of which the tiny model is not always equally certain."""
    return (rng.integers(0, 256, (40, 48, 48)) * rng.uniform(0.1, 1, (40, 1, 1))).astype(np.uint8)


def test_the_correction_is_the_ratio_of_shares_computed_by_hand() -> None:
    """(0.6, 0.3, 0.1) times (0.2/0.5, 0.6/0.3, 0.2/0.2) is (0.24, 0.6, 0.1), of 0.94."""
    found = correct(np.array([[0.6, 0.3, 0.1]]), np.array([0.2, 0.6, 0.2]) / TRAINING)
    assert found == pytest.approx(np.array([[0.24, 0.6, 0.1]]) / 0.94)


def test_a_face_without_evidence_for_a_possible_label_gets_the_factors() -> None:
    """Not NaN."""
    assert correct(np.array([[1.0, 0.0, 0.0]]), np.array([0.0, 3.0, 1.0])) == pytest.approx(np.array([[0, 0.75, 0.25]]))


@pytest.mark.parametrize(
    ("prior", "expected"),
    [
        ("uniform", [1 / 3, 1 / 3, 1 / 3]),
        ("neutral=0.2,happiness=0.3,fear=0.5", [0.2, 0.3, 0.5]),
        (" fear = 0.5 , Happy=0.3, neutral=.2", [0.2, 0.3, 0.5]),
        ({"fear": 0.5}, [0.3125, 0.1875, 0.5]),  # the others 5 : 3, as in training
        ("neutral=0", [0, 0.6, 0.4]),
        ("neutral=0.6,happiness=0.4", [0.6, 0.4, 0]),
        ("neutral=0.333,happiness=0.333,fear=0.333", [1 / 3, 1 / 3, 1 / 3]),
        ({"happiness": np.float32(1)}, [0, 1, 0]),
    ],
)
def test_labels_that_are_not_named_share_what_is_left(prior: str | dict[str, float], expected: list[float]) -> None:
    """A share of 0 stays 0, synonyms name labels, and rounded shares are scaled."""
    assert find_shares(prior, LABELS, TRAINING) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ("neutral=0.9,fear=0.4", r"the shares sum to 1\.3; expected at most 1"),
        ("neutral=0.2,happiness=0.3,fear=0.3", r"the shares sum to 0\.8; expected 1$"),
        ("neutral=0,happiness=0,fear=0", r"the shares sum to 0; expected 1$"),
        ("sadness=0.5", "the model does not report 'sadness'; expected labels of neutral, happiness, fear"),
        ("neutral=0.5,neutrality=0.2", "'neutrality' names neutral again"),
        ("neutral=-0.1", "share of neutral is '-0.1'; expected a number, 0 to 1"),
        ("neutral=60", "share of neutral is '60'; expected a number, 0 to 1"),
        ("neutral=nan", "share of neutral is 'nan'"),
        ("neutral=much", "share of neutral is 'much'"),
        ({"neutral": None}, "share of neutral is None"),
        ("neutral", "'neutral' has no label and share; expected uniform, auto, or the share of each label"),
        ("neutral=0.5,", "'' has no label and share"),
        ("=0.5", "'0.5' has no label and share"),
        ("", "'' has no label and share"),
        ({}, "prior {}: expected uniform, auto"),
        (0.5, r"prior 0\.5: expected uniform, auto"),
    ],
)
def test_a_prior_that_is_none_is_refused(prior: str | dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find_shares(prior, LABELS, TRAINING)


def test_the_shares_of_training_are_summed_as_the_labels_are(stated: Path) -> None:
    card = read_card(stated)
    assert find_training_shares(card, LABEL_SETS["six"], stated) == pytest.approx(list(PRIOR.values()))
    assert find_training_shares(card, HALVES, stated) == pytest.approx([0.75, 0.25])


def test_every_answer_of_a_model_is_corrected_alike(stated: Path, faces: np.ndarray) -> None:
    """Batches, single faces and averaged crops; the probabilities of logits are left alone, for bench and hosts."""
    new = {"neutral": 0.0, "fear": 0.5}
    with open_model(stated) as plain, open_model(stated, prior=new) as model:
        ratios = find_shares(new, model.labels, np.array(list(PRIOR.values()))) / np.array(list(PRIOR.values()))
        expected = correct(plain.probabilities(faces), ratios)
        assert model.probabilities(faces) == pytest.approx(expected)
        assert model.predict(faces[3]).probabilities == pytest.approx(dict(zip(model.labels, expected[3], strict=True)))
        assert [one.probabilities["neutral"] for one in model.predict_batch(faces)] == [0.0] * len(faces)
        averaged = correct(plain.probabilities(faces, views=4), ratios)
        assert averaged == pytest.approx(correct(plain.probabilities(faces).reshape(10, 4, 6).mean(axis=1), ratios))
        assert model.probabilities(faces, views=4) == pytest.approx(averaged)
        logits = np.zeros((1, 6), np.float32)
        assert np.array_equal(model.merge_probabilities(logits), plain.merge_probabilities(logits))


def test_merged_labels_are_corrected_by_their_summed_shares(stated: Path, faces: np.ndarray) -> None:
    with open_model(stated, labels=HALVES) as plain, open_model(stated, labels=HALVES, prior="uniform") as model:
        expected = correct(plain.probabilities(faces), np.array([0.5 / 0.75, 0.5 / 0.25]))
        assert model.probabilities(faces) == pytest.approx(expected)


def test_the_strength_is_the_exponent_of_the_ratio(stated: Path, faces: np.ndarray) -> None:
    """0 changes nothing, not even for a label that does not occur."""
    shares = np.array(list(PRIOR.values()))
    with open_model(stated) as plain:
        before = plain.probabilities(faces)
    for prior, strength, expected in (
        ({"neutral": 0.0}, 0, before),
        ("auto", 0.0, before),
        ("uniform", 0.5, correct(before, (1 / 6 / shares) ** 0.5)),
    ):
        with open_model(stated, prior=prior, prior_strength=strength) as model:
            assert model.probabilities(faces) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan"), "0.5"])
def test_another_strength_is_refused(stated: Path, strength: float) -> None:
    with pytest.raises(UsageError, match=r"expected 0 \(no correction\) to 1"):
        edgeemo.load(stated, prior="uniform", prior_strength=strength)


def test_unsure_is_decided_by_the_corrected_probability(stated: Path, face: np.ndarray) -> None:
    card = replace(read_card(stated), answers=Answers(0.99, 0.9, 0.95, 0.9, 0.97, 0.5, 500))
    write_card(stated, card)
    with open_model(stated) as plain, open_model(stated, prior={"fear": 1.0}) as certain:
        assert (plain.predict(face).unsure, certain.predict(face).unsure) == (True, False)


@pytest.mark.parametrize("without", [None, "data"])
def test_a_card_without_shares_of_training_is_refused(copy: Path, without: str | None) -> None:
    """With what to do; without a prior, it opens."""
    if without is None:
        state_prior(copy, None)
    with pytest.raises(UsageError, match=r"copy\.onnx does not state .*data\.prior.* train it again with  edgeemo tra"):
        edgeemo.load(copy, prior="auto")
    with edgeemo.load(copy) as model:
        assert model.prior is None


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ({**PRIOR, "fear": 0.5}, "data.prior: expected shares that sum to 1, got 1.45"),
        ({"neutral": 1.0}, "data.prior: expected a share of each label"),
        ({**PRIOR, "fear": 0.0}, "data.prior.fear: expected a number above 0"),
    ],
)
def test_a_card_with_impossible_shares_is_refused(copy: Path, prior: dict[str, float], message: str) -> None:
    with pytest.raises(IntegrityError, match=message):
        edgeemo.load(state_prior(copy, prior))


def test_every_packaged_model_states_its_shares() -> None:
    """Both target formats of a model the same ones."""
    for name in shipped.NAMES:
        one, other = (read_card(shipped.find(name, target_format=form)).data for form in shipped.SUFFIXES)
        assert one
        assert other
        assert one.prior == other.prior
        assert one.prior


def draw_probabilities(rng: np.random.Generator, shares: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, 3) posteriors under TRAINING of faces with these shares, by Gaussian scores of known density; (n,) truth."""
    truth = rng.choice(3, n, p=shares)
    scores = np.eye(3)[truth] * 2 + rng.normal(size=(n, 3))
    weights = TRAINING * np.exp(2 * scores)  # densities of unit variance around 2 and 0: their ratio is exp(2 x)
    return weights / weights.sum(1, keepdims=True), truth


@pytest.mark.parametrize("shares", [(0.1, 0.2, 0.7), (0.0, 0.5, 0.5), (0.5, 0.3, 0.2)])
def test_em_finds_the_shares_of_many_faces(rng: np.random.Generator, shares: tuple[float, ...]) -> None:
    """Of 20,000 with exact posteriors, to 0.02: twice the standard error of a share is 0.007, of EM's somewhat more."""
    probabilities, _ = draw_probabilities(rng, np.array(shares), 20_000)
    assert estimate_shares(probabilities, TRAINING, pseudo_faces=0) == pytest.approx(np.array(shares), abs=0.02)


def test_pseudo_faces_keep_few_faces_from_deciding() -> None:
    """Ten certain faces of one label beside a hundred of training."""
    certain = np.tile([0.001, 0.001, 0.998], (10, 1))
    assert estimate_shares(certain, TRAINING, pseudo_faces=0)[2] > 0.99
    kept = estimate_shares(certain, TRAINING, pseudo_faces=100)
    assert kept == pytest.approx((100 * TRAINING + [0, 0, 10]) / 110, abs=0.001)


def test_an_estimate_acts_from_the_least_number_of_faces_on(rng: np.random.Generator) -> None:
    """Up to then, nothing is changed and the shares are those of training."""
    probabilities, _ = draw_probabilities(rng, np.array([0.0, 0.1, 0.9]), MINIMUM)
    estimate = EstimatedCorrection(TRAINING)
    assert np.array_equal(estimate.correct(probabilities[:-1]), probabilities[:-1])
    before = estimate.describe(LABELS)
    assert (before.acting, before.faces) == (False, MINIMUM - 1)
    assert list(before.shares.values()) == pytest.approx(TRAINING)
    assert not np.array_equal(estimate.correct(probabilities[-1:]), probabilities[-1:])
    after = estimate.describe(LABELS)
    assert (after.acting, after.faces) == (True, MINIMUM)
    assert after.shares["fear"] > TRAINING[2]


def test_an_estimate_improves_predictions_where_the_mix_is_another(rng: np.random.Generator) -> None:
    probabilities, truth = draw_probabilities(rng, np.array([0.05, 0.15, 0.8]), 400)
    corrected = EstimatedCorrection(TRAINING).correct(probabilities)
    assert (corrected.argmax(1) == truth).mean() > (probabilities.argmax(1) == truth).mean() + 0.02


def test_the_factors_of_an_estimate_are_bounded() -> None:
    """However many faces seem to show one label, no other is ruled out."""
    training = np.array([0.9, 0.05, 0.05])
    estimate = EstimatedCorrection(training)
    for _ in range(4):
        estimate.correct(np.tile([1e-6, 1e-6, 1 - 2e-6], (WINDOW, 1)))
    factors = estimate.find_factors()
    assert factors == pytest.approx([1 / BOUND, 1 / BOUND, BOUND], rel=0.3)
    assert factors.max() <= BOUND
    assert factors.min() >= 1 / BOUND
    assert sum(estimate.describe(LABELS).shares.values()) == pytest.approx(1)


def test_only_the_last_faces_count(rng: np.random.Generator) -> None:
    """A window full of new ones gives what an estimate gives that saw no others."""
    old, _ = draw_probabilities(rng, np.array([0.9, 0.1, 0.0]), WINDOW + 50)
    new, _ = draw_probabilities(rng, np.array([0.1, 0.1, 0.8]), WINDOW)
    used, fresh = EstimatedCorrection(TRAINING), EstimatedCorrection(TRAINING)
    used.correct(old)
    for batch in np.array_split(new, 7):
        used.correct(batch)
    fresh.correct(new)
    assert used.describe(LABELS).faces == WINDOW
    expected = fresh.describe(LABELS).shares
    assert used.describe(LABELS).shares == pytest.approx(expected, abs=0.005)  # EM stops at changes of 1e-4


def test_averaged_crops_of_a_face_count_once(stated: Path, faces: np.ndarray) -> None:
    with open_model(stated, prior="auto") as model:
        model.probabilities(faces, views=4)
        assert model.prior
        assert model.prior.faces == len(faces) / 4


def test_threads_share_one_estimate(rng: np.random.Generator) -> None:
    """No face is lost, and the estimate is that of one thread."""
    probabilities, _ = draw_probabilities(rng, np.array([0.1, 0.1, 0.8]), WINDOW - 20)
    shared, alone = EstimatedCorrection(TRAINING), EstimatedCorrection(TRAINING)
    with ThreadPoolExecutor(6) as pool:
        rows = list(pool.map(lambda k: shared.correct(probabilities[k : k + 1]), range(len(probabilities))))
    alone.correct(probabilities)
    assert np.concatenate(rows).sum(1) == pytest.approx(np.ones(len(probabilities)))
    assert shared.describe(LABELS).faces == len(probabilities)
    assert shared.describe(LABELS).shares == pytest.approx(alone.describe(LABELS).shares, abs=0.005)


def test_a_pickled_model_keeps_its_prior_and_starts_with_an_empty_window(stated: Path, faces: np.ndarray) -> None:
    with open_model(stated, prior="auto", prior_strength=0.5) as model:
        first = model.probabilities(faces)
        assert model.prior == replace(model.prior, acting=True, faces=len(faces))
        with pickle.loads(pickle.dumps(model)) as again:  # noqa: S301
            assert (again.prior.kind, again.prior.acting, again.prior.faces) == ("auto", False, 0)
            assert np.array_equal(again.probabilities(faces), first)


def test_a_pickled_model_keeps_the_shares_it_was_given(stated: Path) -> None:
    """Also if the mapping has changed since."""
    shares = {"fear": 0.5}
    with open_model(stated, prior=shares) as model:
        shares["fear"] = 0.9
        with pickle.loads(pickle.dumps(model)) as again:  # noqa: S301
            assert again.prior == model.prior
            assert again.prior.shares["fear"] == 0.5
