"""Committed gains of adaptation keep their limits, and the draws behind them are what they say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import adapt_hosts
import adapt_shifts
import numpy as np
import pytest
from adapt_shifts import SHIFTS, Place, Shift, draw_mix, draw_person, flip, split, state_facts, summarize, widen

import edgeemo
from edgeemo.card import Adaptation, HeldOut
from edgeemo.labels import FERPLUS8
from edgeemo.report.files import read_as
from edgeemo.report.result import Measurement

TRUTH = np.repeat(np.arange(8), (400, 300, 150, 120, 100, 20, 60, 20))
DRAW = {
    "faces": 10,
    "others": 90,
    "before": 0.8,
    "gain": -4.0,
    "missing": 10,
    "missing_gain": -2,
    "ece_before": 0.02,
    "ece": 0.06,
    "form": "bias",
    "shown": False,
    "needed": None,
}


@pytest.fixture
def rng() -> np.random.Generator:
    """Seeded."""
    return np.random.default_rng(0)


def test_committed_gains_keep_their_limits() -> None:
    """Of every model, shift and size; the facts are those of the rows."""
    result = read_as(Measurement, adapt_shifts.OUT)
    cells = {(row["model"], row["shift"], row["size"]) for row in result.rows}
    assert len(cells) == len(result.rows) == 3 * len(SHIFTS) * len(adapt_shifts.SIZES)
    assert result.facts == state_facts(result.rows)
    assert result.facts["worst_mean_kept"]
    assert min(row["gain"] for row in result.rows) >= -0.5


def test_unshifted_faces_are_rarely_adapted_to() -> None:
    """At most one draw in 20, whatever their number."""
    accepted = read_as(Measurement, adapt_shifts.OUT).facts["accepted_unshifted"]
    assert set(accepted) == set(map(str, adapt_shifts.SIZES))
    assert max(accepted.values()) <= 0.05


def test_committed_hosts_follow_the_formula() -> None:
    """Of every model and form, in both."""
    rows = [row for row in read_as(Measurement, adapt_hosts.OUT).rows if row["what"] == "formula"]
    assert len(rows) == 3 * 3 * 2
    assert max(row["largest_difference"] for row in rows) <= 1e-6


def test_facts_find_a_loss_and_changes_that_nothing_called_for() -> None:
    """Of one model each."""
    good = {**summarize([DRAW] * 20), "model": "nano", "shift": "unshifted"}
    rows = [{**good, "size": size} for size in adapt_shifts.SIZES]
    facts = state_facts(rows)
    assert facts["accepted_unshifted_kept"]
    assert facts["worst_mean_kept"]
    lost = state_facts([*rows, {**good, "model": "base", "shift": "blurred", "size": 10, "gain": -0.6}])
    assert not lost["worst_mean_kept"]
    assert lost["worst_mean"] == {"model": "base", "shift": "blurred", "size": 10, "gain": -0.6}
    accepted = {**good, "model": "base", "size": 30, "adapted": 0.15}
    assert state_facts([*rows, accepted])["accepted_unshifted"]["30"] == pytest.approx(0.075)
    assert not state_facts([*rows, accepted])["accepted_unshifted_kept"]


def test_a_draw_without_a_shown_gain_changes_nothing() -> None:
    """But counts in what is always applied."""
    shown = {**DRAW, "gain": 2.0, "shown": True, "form": "matrix", "needed": 50, "missing_gain": 1, "ece": 0.01}
    found = summarize([DRAW, shown])
    assert (found["gain"], found["worst"], found["gain_always"], found["worst_always"]) == (1.0, 0.0, -1.0, -4.0)
    assert (found["missing_recall"], found["missing_recall_always"]) == (5.0, -5.0)
    assert (found["ece_before"], found["ece"], found["ece_always"]) == (0.02, 0.015, 0.035)
    assert (found["forms"], found["forms_adapted"]) == ({"bias": 1, "matrix": 1}, {"matrix": 1})
    assert (found["adapted"], found["needed"], found["needed_known"]) == (0.5, 50, 0.5)


@pytest.mark.parametrize("shift", [one for one in SHIFTS if one.labels or one.even], ids=lambda one: one.name)
def test_a_mix_has_its_shares(shift: Shift, rng: np.random.Generator) -> None:
    """No face twice, and as many as there are."""
    rows = draw_mix(TRUTH, shift, rng)
    counts = np.bincount(TRUTH[rows], minlength=8)
    assert len(set(rows.tolist())) == len(rows)
    assert (rows[:50] != np.sort(rows[:50])).any()
    if shift.even:
        assert counts.tolist() == [60 if label in shift.even else 0 for label in FERPLUS8]
    else:
        chosen = [FERPLUS8.index(label) for label in shift.labels]
        assert counts[chosen].sum() / len(rows) == pytest.approx(shift.share, abs=1e-3)
        whole = np.bincount(TRUTH)
        others = np.setdiff1d(np.arange(8), chosen)
        assert (counts[chosen] == whole[chosen]).all() or (counts[others] == whole[others]).all()


@pytest.mark.parametrize("size", [10, 12, 13, 30])
def test_people_are_drawn_whole_until_the_number_is_reached(size: int, rng: np.random.Generator) -> None:
    """And nobody is on both sides."""
    people = np.repeat([f"p{number}" for number in range(10)], 12)
    rows, others = split(Place(np.zeros((120, 8)), np.zeros(120, int), people), Shift("drawn"), size, rng)
    assert len(rows) == -(-size // 12) * 12
    assert sorted([*rows, *others]) == list(range(120))
    assert not set(people[rows]) & set(people[others])


def test_wrong_labels_are_a_share_and_occur(rng: np.random.Generator) -> None:
    """Each is another label than the right one."""
    given = flip(TRUTH[:850], 0.1, np.array([0, 1, 2]), rng)
    assert (given != TRUTH[:850]).sum() == 85
    assert set(given) == {0, 1, 2}
    assert flip(TRUTH, 0.0, np.arange(8), rng).tolist() == TRUTH.tolist()


def test_a_wider_frame_has_the_face_smaller_in_its_middle() -> None:
    """The edge is repeated around it."""
    face = np.full((1, 48, 48), 10, np.uint8)
    face[:, 1:-1, 1:-1] = 200
    wide = widen(face)
    assert wide.shape == face.shape
    assert wide[0, 24, 24] == 200
    assert (wide[0, :6] == wide[0, 5]).all()
    assert wide[0, 5:42, 5:42].mean() == pytest.approx(face.mean(), abs=2)


def test_a_drawn_person_differs_by_shot_and_by_number() -> None:
    """Shots differ; the same one is drawn again."""
    shots = [(1, 0), (1, 1), (2, 0)]
    first, second, other = (draw_person(number, "neutral", shot, size=48) for number, shot in shots)
    assert (first != second).any()
    assert (first == draw_person(1, "neutral", 0, size=48)).all()
    assert (first != other).any()


def test_the_plain_formula_is_the_runtimes() -> None:
    """Without a change, and with one."""
    with edgeemo.load("nano") as model:
        logits = np.random.default_rng(0).normal(0, 3, (5, 8)).astype(np.float32)
        matrix = np.eye(8) + np.random.default_rng(1).normal(0, 0.1, (8, 8))
        held = HeldOut(0.5, 0.4, 0.6, 0.1, {})
        change: dict[str, Any] = {"form": "matrix", "matrix": tuple(map(tuple, matrix.tolist())), "bias": (0.5,) * 8}
        about = {"faces": 5, "labels": {}, "data": "python", "content_sha256": "0" * 64, "fitted_at": "", "penalty": 1}
        proof = {"before": held, "after": held, "p_value": 0.01, "shown": True, "model_sha256": model.card.sha256}
        for adaptation in (None, Adaptation(**change, **about, **proof)):
            model.card = replace(model.card, adaptation=adaptation)
            plain = [adapt_hosts.compute_plain(row, model.card) for row in logits.tolist()]
            assert np.allclose(plain, model.merge_probabilities(logits), rtol=0, atol=1e-12)
