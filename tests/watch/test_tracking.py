"""Faces keep their numbers while they move, cross, and are missed; and are where they are said to be in between."""

from __future__ import annotations

from math import inf, nan
from time import process_time

import numpy as np
import pytest

from edgeemo.errors import DataError, UsageError
from edgeemo.faces import Detection, Framing
from edgeemo.watch.tracking import Tracker

SIDE = 60.0


def at(x: float, y: float = 200.0, side: float = SIDE, score: float = 0.9) -> Detection:
    """A face with two eyes whose box has its centre at x, y."""
    eyes = ((x - side / 5, y - side / 8), (x + side / 5, y - side / 8))
    return Detection((x - side / 2, y - side / 2, side, side), score, eyes, Framing(2.5, 0.4))


def centre(track) -> np.ndarray:
    """Of a track's box."""
    x, y, width, height = track.detection.box
    return np.array([x + width / 2, y + height / 2])


def numbers(tracks) -> list[int]:
    """Of tracks."""
    return [one.number for one in tracks]


def test_a_face_that_moves_keeps_its_number_and_its_first_time():
    tracker = Tracker()
    for n in range(50):
        (track,) = tracker.update([at(100 + 6 * n)], 10 + n / 25)
        assert (track.number, track.first, track.detected) == (1, 10, True)


@pytest.mark.parametrize("fps", [5, 25])
def test_a_face_is_where_it_moves_between_detections(fps):
    """3 face widths a second, growing: box and eyes are predicted for 0.2 s."""
    tracker, speed = Tracker(), 3 * SIDE
    for n in range(fps):
        tracker.update([at(100 + speed * n / fps, side=SIDE * 1.2 ** (n / fps))], n / fps)
    seconds = (fps - 1) / fps + 0.2
    (track,) = tracker.predict(seconds)
    true = at(100 + speed * seconds, side=SIDE * 1.2**seconds)
    assert not track.detected
    assert centre(track)[0] == pytest.approx(100 + speed * seconds, abs=0.25 * 0.2 * speed)
    assert track.detection.box[2] == pytest.approx(true.box[2], rel=0.02)
    width = track.detection.box[2]
    for eye, share in zip(track.detection.landmarks, (0.3, 0.7), strict=True):
        assert eye[0] == pytest.approx(track.detection.box[0] + share * width)
    assert track.detection.score == 0.9
    assert track.detection.framing == Framing(2.5, 0.4)


def test_jitter_of_a_detector_does_not_become_motion():
    """Of a face that rests, a prediction is not farther off than a detection, and boxes jitter less than detections."""
    rng, tracker = np.random.default_rng(0), Tracker()
    predicted, shown, noise = [], [], 0.03 * SIDE
    for n in range(500):
        (track,) = tracker.update([at(*(200 + noise * rng.normal(size=2)))], n / 25)
        if n > 25:
            shown.append(centre(track) - 200)
            if n % 5 == 0:
                predicted.append(centre(tracker.predict(n / 25 + 0.02)[0]) - 200)
    assert np.std(shown) < 0.85 * noise
    assert np.std(predicted) < noise


def test_boxes_of_a_fast_face_do_not_lag():
    """At 4 face widths a second the box is within 2 % of a width of the face."""
    tracker = Tracker()
    for n in range(40):
        (track,) = tracker.update([at(100 + 4 * SIDE * n / 25)], n / 25)
    assert abs(centre(track)[0] - (100 + 4 * SIDE * 39 / 25)) < 0.02 * SIDE


def test_faces_that_cross_keep_their_numbers():
    """Two heads pass each other; while they overlap, only the front one is detected."""
    tracker = Tracker()
    for n in range(100):
        left, right = 100 + 3 * n, 400 - 3 * n
        hidden = abs(left - right) < SIDE / 2
        tracks = tracker.update([at(left)] if hidden else [at(left), at(right, 206)], n / 25)
    assert [(one.number, centre(one)[0] > 300) for one in tracks] == [(1, True), (2, False)]


def test_a_face_that_jumps_keeps_its_number_and_is_shown_where_it_is():
    """By half a width, as at a low frame rate, or when the detector changes its mind about the size."""
    for jumped in (at(230), at(200, side=1.5 * SIDE)):
        tracker = Tracker()
        for n in range(50):
            tracker.update([at(200)], n / 25)
        (track,) = tracker.update([jumped], 2.0)
        assert track.number == 1
        assert track.detection.box == pytest.approx(jumped.box)


def test_a_face_that_was_just_seen_goes_before_one_that_was_lost():
    """A person walks in front of another one who is hidden for a second, and whose place is a guess by then."""
    tracker = Tracker(keep=2.0)
    for n in range(25):
        tracker.update([at(200), at(260)], n / 25)
    for n in range(25, 50):
        tracks = tracker.update([at(260 - 60 * (n - 24) / 25)], n / 25)
        assert numbers(tracks)[-1] == 2
    assert tracks[-1].detected
    assert centre(tracks[-1])[0] == pytest.approx(200, abs=2)


def test_a_missed_face_is_answered_for_a_short_time_and_then_found_again():
    tracker = Tracker(keep=1.0, show=0.2)
    for n in range(10):
        tracker.update([at(200)], n * 0.1)
    (track,) = tracker.update([], 1.0)
    assert (track.number, track.detected) == (1, False)
    assert tracker.needs_detection
    assert tracker.predict(1.15) == []  # still kept
    assert not tracker.needs_detection
    assert tracker.ended == ()
    assert numbers(tracker.update([at(203)], 1.5)) == [1]


@pytest.mark.parametrize(("missed", "number"), [(1, 2), (25, 1)])
def test_a_face_may_be_the_farther_away_the_longer_it_was_missed(missed, number):
    """A face that rested turns up 0.9 widths to the side, after one frame or a second."""
    tracker = Tracker(keep=2.0)
    for n in range(50):
        tracker.update([at(200)], n / 25)
    for n in range(50, 50 + missed):
        tracker.update([], n / 25)
    assert number in numbers(tracker.update([at(200 + 0.9 * SIDE)], (50 + missed) / 25))


@pytest.mark.parametrize("call", ["update", "predict"])
def test_a_face_that_stays_away_ends_and_its_number_is_not_used_again(call):
    tracker = Tracker(keep=1.0)
    tracker.update([at(200)], 0.0)
    tracker.update([], 0.5)
    if call == "update":
        tracker.update([], 1.1)
    else:
        tracker.predict(1.1)
    assert tracker.ended == (1,)
    assert numbers(tracker.update([at(200)], 1.2)) == [2]
    assert tracker.ended == ()


def test_a_face_that_the_detector_did_not_look_for_does_not_end():
    """Every tenth frame at 5 fps is searched: 2 s between detections are longer than tracks are kept."""
    tracker = Tracker(keep=1.0)
    for n in range(41):
        tracks = tracker.predict(n / 5) if n % 10 else tracker.update([at(200 + n)], n / 5)
        assert numbers(tracks) == [1]


def test_a_doubtful_face_needs_a_second_detection():
    tracker = Tracker(sure=0.8)
    assert tracker.update([at(200, score=0.6)], 0.0) == []
    assert tracker.needs_detection
    (track,) = tracker.update([at(201, score=0.6)], 0.04)
    assert (track.number, track.first) == (1, 0.0)
    assert not tracker.needs_detection


def test_a_doubtful_face_that_is_not_seen_again_was_never_one():
    tracker = Tracker(sure=0.8)
    tracker.update([at(200, score=0.6)], 0.0)
    assert tracker.update([], 0.04) == []
    assert tracker.ended == ()
    assert not tracker.needs_detection
    assert tracker.update([at(200, score=0.6)], 0.08) == []
    assert numbers(tracker.update([at(400)], 0.12)) == [1]


def test_all_faces_end_after_a_gap():
    """As after a stream was lost: who is there now need not be who was there before."""
    tracker = Tracker(keep=1.0)
    tracker.update([at(200), at(400)], 5.0)
    assert numbers(tracker.update([at(200), at(400)], 9.0)) == [3, 4]
    assert tracker.ended == (1, 2)


def test_all_faces_end_when_time_starts_again():
    """As in a file that is played again."""
    tracker = Tracker(keep=1.0)
    tracker.update([at(200)], 100.0)
    assert tracker.predict(0.0) == []
    assert tracker.ended == (1,)
    assert numbers(tracker.update([at(200)], 0.04)) == [2]
    assert numbers(tracker.update([at(201)], 0.08)) == [2]


@pytest.mark.parametrize("back", [0.0, 0.04, 0.5])
def test_a_small_step_back_in_time_counts_as_the_same_time(back):
    tracker = Tracker(keep=1.0)
    for n in range(50):
        (before,) = tracker.update([at(100 + 6 * n)], n / 25)
    (track,) = tracker.predict(49 / 25 - back)
    assert track.detection == before.detection
    (track,) = tracker.predict(50 / 25)  # 40 ms on, whatever was in between
    assert centre(track)[0] == pytest.approx(400, abs=1)


def test_nothing_in_nothing_out():
    tracker = Tracker()
    assert tracker.update([], 0.0) == []
    assert tracker.predict(0.04) == []
    assert tracker.ended == ()
    assert not tracker.needs_detection


def test_eyes_follow_each_detection():
    """Those of a head that turns aside move within its box."""
    tracker, front = Tracker(), at(200)
    tracker.update([front], 0.0)
    aside = Detection(front.box, 0.7, tuple((x + 9, y) for x, y in front.landmarks), None)
    (track,) = tracker.update([aside], 0.04)
    assert np.array(track.detection.landmarks) == pytest.approx(np.array(aside.landmarks))
    assert (track.detection.score, track.detection.framing) == (0.7, None)


def test_faces_without_landmarks_stay_without():
    tracker = Tracker()
    (track,) = tracker.update([Detection((10, 20, 30, 40), 0.9)], 0.0)
    assert track.detection.landmarks == ()
    assert track.detection.box == pytest.approx((10, 20, 30, 40))


@pytest.mark.parametrize(
    "found",
    [
        Detection((nan, 0, 9, 9), 0.9),
        Detection((0, 0, 9, inf), 0.9),
        Detection((0, 0, 0, 9), 0.9),
        Detection((0, 0, 9, 9), nan),
        Detection((0, 0, 9, 9), 0.9, ((1, 2), (3, nan))),
    ],
)
def test_what_is_no_detection_is_refused_and_changes_nothing(found):
    tracker = Tracker()
    tracker.update([at(200)], 0.0)
    with pytest.raises(DataError, match="finite numbers and a box with an area"):
        tracker.update([at(200), found], 0.04)
    assert numbers(tracker.predict(0.04)) == [1]


@pytest.mark.parametrize("seconds", [nan, inf])
def test_a_time_that_is_none_is_refused(seconds):
    with pytest.raises(DataError, match="time of a frame"):
        Tracker().update([at(200)], seconds)


@pytest.mark.parametrize("wrong", [{"keep": -1}, {"sure": nan}, {"show": inf}, {"show": 2, "keep": 1}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(UsageError, match="of a tracker"):
        Tracker(**wrong)


def test_a_hundred_faces_keep_their_numbers_in_milliseconds():
    rng, tracker = np.random.default_rng(0), Tracker()
    places = np.stack(np.meshgrid(np.arange(10), np.arange(10)), axis=2).reshape(-1, 2) * 80.0 + 60
    first, start = [], process_time()
    for n in range(50):
        found = [at(*(place + rng.normal(0, 1.5, 2))) for place in places]
        tracks = tracker.update([found[k] for k in rng.permutation(100)], n / 25)
        by_place = [one.number for one in sorted(tracks, key=lambda one: tuple(np.round(centre(one) / 80)))]
        first = first or by_place
        assert by_place == first
    assert (process_time() - start) / 50 < 0.1  # of the time of the processor; a few milliseconds where nothing is slow
