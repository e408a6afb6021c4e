"""Labels that do not flip, and how long a real change takes."""

from __future__ import annotations

import json
from math import inf, log, nan
from pathlib import Path

import numpy as np
import pytest

from edgeemo.errors import DataError, UsageError
from edgeemo.stages import Watch
from edgeemo.watch.smoothing import Smoother, Smoothing

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
A, B = np.eye(3)[:2]


def show(smoothing: Smoothing, rows, fps: float = 25.0) -> list[int]:
    """The labels that are shown for rows of probabilities."""
    smoother = Smoother(len(rows[0]), smoothing)
    return [smoother.update(1, row, n / fps)[1] for n, row in enumerate(rows)]


@pytest.mark.parametrize("fps", [5, 25, 60])
@pytest.mark.parametrize(
    "smoothing",
    [Smoothing(), Smoothing(300, 0.0, 0), Smoothing(100, 0.5, 50), Smoothing(400, 0.2, 300)],
    ids=lambda one: f"{one.time_constant_ms:g}-{one.hysteresis:g}",
)
def test_a_change_between_two_certain_labels_takes_the_stated_delay(smoothing, fps):
    """Shown at the first frame that is so long after the last frame before the change."""
    before = 20 * fps
    shown = show(smoothing, [A] * before + [B] * 3 * fps, fps)
    frames = shown.index(1) - (before - 1)
    assert (frames - 1) * 1000 / fps < smoothing.delay_ms + 1e-6
    assert frames * 1000 / fps >= smoothing.delay_ms - 1e-6


def test_the_defaults_are_those_that_were_chosen_by_measuring():
    result = json.loads((BENCHMARKS / "results" / "watch" / "flicker.json").read_text())
    assert Smoothing(**result["settings"]["smoothing"]) == Smoothing()
    assert result["facts"]["delay_ms"] == round(Smoothing().delay_ms)


def test_a_change_was_measured_to_be_shown_within_half_a_second_and_labels_to_flip_less():
    """Of every model, on rendered rooms and moving faces at 25 fps that nothing was chosen on."""
    rows = json.loads((BENCHMARKS / "results" / "watch" / "flicker.json").read_text())["rows"]
    of = {(row["source"], row["model"], row["label"]): row for row in rows if row.get("fps") == 25}
    steady = [key for key in of if key[2] == "smoothed"]
    assert len(steady) == 6
    for key in steady:
        assert of[key]["detect_ms_p95"] <= 500
        assert of[key]["flips_per_minute"] < 0.3 * of[(*key[:2], "raw")]["flips_per_minute"]


def test_the_command_has_the_same_defaults():
    config = Watch()
    assert Smoothing(config.time_constant, config.hysteresis, config.dwell) == Smoothing()


def test_dropped_frames_do_not_change_the_delay():
    smoothing, rng = Smoothing(300, 0.2, 0), np.random.default_rng(0)
    seconds = np.cumsum(rng.choice([0.04, 0.08, 0.2], 400))
    change = seconds[200]
    smoother = Smoother(3, smoothing)
    shown = [smoother.update(1, B if one > change else A, one)[1] for one in seconds]
    at = shown.index(1)
    assert 1000 * (seconds[at] - change) >= smoothing.delay_ms > 1000 * (seconds[at - 1] - change)


def test_labels_flip_less_and_the_truth_is_still_shown():
    """A model that names the right label in 60 % of the frames, in two periods of 20 s each."""
    rng = np.random.default_rng(0)
    rows = []
    for truth in (0, 1):
        logits = rng.normal(0, 1, (500, 3))
        logits[:, truth] += 1
        rows += list(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))
    raw, steady = show(Smoothing(0, 0, 0), rows), show(Smoothing(), rows)
    flips = [int(np.count_nonzero(np.diff(one))) for one in (raw, steady)]
    assert flips[0] > 300
    assert flips[1] < flips[0] / 10
    assert np.mean(np.array(steady) == np.repeat([0, 1], 500)) > np.mean(np.array(raw) == np.repeat([0, 1], 500)) + 0.2


def test_all_zero_is_raw():
    rng = np.random.default_rng(0)
    rows = rng.dirichlet(np.ones(8), 200)
    smoother = Smoother(8, Smoothing(0, 0, 0))
    for n, row in enumerate(rows):
        filtered, label = smoother.update(1, row, n / 25)
        assert np.array_equal(filtered, row)
        assert label == row.argmax()


def test_without_a_filter_a_label_must_lead_by_the_hysteresis():
    rows = [[0.6, 0.4], [0.45, 0.55], [0.41, 0.59], [0.39, 0.61], [0.55, 0.45]]
    assert show(Smoothing(0, 0.2, 0), rows) == [0, 0, 0, 1, 1]


def test_a_label_is_shown_for_the_dwell():
    """Raw labels alternate in every frame at 25 fps; 200 ms are five frames."""
    assert show(Smoothing(0, 0, 200), [A, B] * 8) == [0] * 5 + [1] * 5 + [0] * 5 + [1]


def test_the_filter_follows_its_time_constant():
    smoother = Smoother(3, Smoothing(200, 0, 0))
    for n in range(100):
        smoother.update(1, A, n / 25)
    filtered, _ = smoother.update(1, B, 99 / 25 + 0.2)
    assert filtered == pytest.approx([np.exp(-1), 1 - np.exp(-1), 0], abs=1e-6)


def test_the_first_frame_is_no_more_than_any_other():
    """After two frames, their mean to within what has faded; not 90 % of the first one."""
    smoother = Smoother(3, Smoothing(400, 0, 0))
    assert np.array_equal(smoother.update(1, A, 0.0)[0], A)
    assert smoother.update(1, B, 0.04)[0] == pytest.approx([0.475, 0.525, 0], abs=0.001)


def test_filtered_probabilities_sum_to_one():
    smoother, rng = Smoother(8), np.random.default_rng(0)
    for n, row in enumerate(rng.dirichlet(np.full(8, 0.3), 100)):
        filtered, _ = smoother.update(1, row, n * rng.uniform(0, 0.5))
        assert filtered.sum() == pytest.approx(1)
        assert filtered.min() >= 0


def test_equal_times_and_steps_back_are_no_division_by_zero():
    smoother = Smoother(3)
    for seconds in (1.0, 1.0, 1.0, 0.5, 1.0, 1.04):
        filtered, label = smoother.update(1, A, seconds)
        assert np.array_equal(filtered, A)
        assert label == 0


def test_tracks_do_not_mix_and_a_dropped_one_starts_anew():
    smoother = Smoother(3, Smoothing(1000, 0.1, 0))
    for n in range(50):
        assert smoother.update(1, A, n / 25)[1] == 0
        assert smoother.update(2, B, n / 25)[1] == 1
    smoother.drop(1)
    smoother.drop(7)  # never seen
    filtered, label = smoother.update(1, B, 2.0)
    assert np.array_equal(filtered, B)
    assert label == 1


def test_what_is_returned_is_not_the_state():
    smoother, row = Smoother(3), A.copy()
    filtered, _ = smoother.update(1, row, 0.0)
    filtered[:] = row[:] = 9
    assert smoother.update(1, A, 0.04)[0] == pytest.approx(A)


@pytest.mark.parametrize("row", [[0.5, nan, 0.5], [0.5, 0.5], [[0.2, 0.3, 0.5]], [inf, 0, 0]])
def test_what_is_no_row_of_probabilities_is_refused(row):
    with pytest.raises(DataError, match="expected 3 finite probabilities"):
        Smoother(3).update(1, np.array(row), 0.0)


def test_a_time_that_is_none_is_refused():
    with pytest.raises(DataError, match="and a time"):
        Smoother(3).update(1, A, nan)


@pytest.mark.parametrize(
    "wrong",
    [{"time_constant_ms": -1}, {"time_constant_ms": inf}, {"hysteresis": 1.0}, {"hysteresis": nan}, {"dwell_ms": -0.1}],
)
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(UsageError, match=f"{next(iter(wrong))} of smoothing"):
        Smoothing(**wrong)


def test_the_delay_is_the_formula():
    assert Smoothing(300, 0.2, 0).delay_ms == pytest.approx(300 * log(2.5))
    assert Smoothing(0, 0, 0).delay_ms == 0
