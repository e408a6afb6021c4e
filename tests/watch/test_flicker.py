"""What counts as a flip, and how long a change takes."""

from __future__ import annotations

import numpy as np
import pytest
from watch_flicker import RAW, Sequence, count

from edgeemo.watch.smoothing import Smoothing


def make(truth: str, answers: str) -> Sequence:
    """A frame per letter; the model is certain."""
    rows = np.eye(3)[["abc".index(one) for one in answers]]
    return Sequence(
        np.array(["abc".index(one) for one in truth]), np.ones(len(truth), int), rows, np.arange(len(truth))
    )


@pytest.mark.parametrize(
    ("truth", "answers", "flips"),
    [
        ("aaaabbbb", "aaaabbbb", 0),
        ("aaaabbbb", "aaaaaabb", 0),  # late
        ("aaaabbbb", "aabaabbb", 2),
        ("aaaabbbb", "aaaacbbb", 1),  # by way of another label
        ("aaaabbbb", "aaaabcbb", 2),
        ("aaaabbbb", "aaaaaccc", 1),  # never right
        ("aaaabbbb", "aabbbbbb", 1),  # before there was a reason
        ("aaaaaaaa", "bbbbaaaa", 1),
    ],
)
def test_flips_are_changes_without_a_change_of_the_truth(truth, answers, flips):
    assert count([make(truth, answers)], RAW).flips == flips


def test_the_time_to_detect_ends_with_the_first_frame_that_shows_the_new_label():
    tally = count([make("aaaabbbbbb", "aaaaaabbbb")], RAW)
    assert (tally.changes, tally.delays) == (1, (80.0,))


@pytest.mark.parametrize("answers", ["aaaaaaaaab", "bbbabbbbbb"])
def test_changes_that_the_model_does_not_see_are_left_out(answers):
    tally = count([make("aaaabbbbbb", answers)], RAW)
    assert (tally.changes, tally.left_out, tally.delays) == (1, 1, ())


def test_a_change_that_is_never_shown_is_missed():
    tally = count([make("aaaabbbbbb", "aaaabbbbbb")], Smoothing(10_000, 0.5, 0))
    assert (tally.missed, tally.left_out) == (1, 0)
    assert tally.to_row()["detect_ms_p50"] is None


def test_minutes_are_those_of_the_face_at_any_frame_rate():
    one = make("a" * 1500, "a" * 1500)
    assert count([one], RAW).minutes == count([one], RAW, step=5).minutes == 1
