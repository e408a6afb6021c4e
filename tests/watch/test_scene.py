"""A rendered room of known truth: deterministic, any frame in any order, and the packaged detector finds its faces."""

from itertools import pairwise

import numpy as np
import pytest

from edgeemo.errors import UsageError
from edgeemo.faces import load_detector
from edgeemo.watch.scene import Scene


def find_middles(boxes):
    return np.array([(x + width / 2, y + height / 2) for x, y, width, height in boxes]).reshape(-1, 2)


@pytest.mark.parametrize(("people", "seed"), [(1, 0), (4, 1), (8, 2), (20, 3)])
def test_the_packaged_detector_finds_every_face_where_the_truth_says_and_no_other(people, seed):
    scene, detector = Scene(people, seed), load_detector()
    for number in range(0, 400, 100):
        pixels, truths = scene.frame(number)
        found = detector.detect(pixels)
        assert len(found) == len(truths) == people
        apart = find_middles([one.box for one in found])[:, None] - find_middles([one.box for one in truths])
        nearest = np.hypot(*apart.transpose(2, 0, 1)).min(axis=0)
        assert (nearest < [0.25 * one.box[2] for one in truths]).all()


def test_a_frame_does_not_depend_on_the_frames_before_it():
    first, second = Scene(2, seed=5), Scene(2, seed=5)
    for number in range(3):
        first.frame(number)
    for number in (90, 7):
        (pixels, truths), (others, same) = first.frame(number), second.frame(number)
        assert (pixels == others).all()
        assert truths == same


def test_frames_are_colour_images_of_the_size_with_noise_of_the_sensor():
    scene, still = Scene(0, width=320, height=240), Scene(0, width=320, height=240, noise=0.0)
    pixels, truths = scene.frame(0)
    assert (pixels.shape, pixels.dtype, truths) == ((240, 320, 3), np.uint8, [])
    assert (pixels != scene.frame(1)[0]).any()
    assert (still.frame(0)[0] == still.frame(1)[0]).all()


def test_another_seed_is_another_room():
    assert (Scene(1, seed=0).frame(0)[0] != Scene(1, seed=1).frame(0)[0]).any()


def test_people_change_their_expression_again_and_again_but_not_their_number():
    scene = Scene(1, hold=2.0, labels=("neutral", "happiness"))
    labels = [scene.frame(number)[1][0].label for number in range(0, 2500, 5)]
    changes = sum(before != after for before, after in pairwise(labels))
    assert set(labels) == {"neutral", "happiness"}
    assert 25 <= changes <= 100  # 100 s in stretches of 1 to 3 s


def test_people_move_smoothly_and_stay_in_the_frame():
    scene = Scene(1, seed=3)
    boxes = np.array([scene.frame(number)[1][0].box for number in range(300)])
    middles = find_middles(boxes)
    assert np.abs(np.diff(middles, axis=0)).max() < 20
    assert np.ptp(middles, axis=0).min() > 30
    assert (boxes[:, :2] > 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] < (640, 480)).all()


def test_visitors_come_and_go_and_keep_their_number():
    scene = Scene(2, visit=2.0)
    present = [tuple(truth.person for truth in scene.frame(number)[1]) for number in range(0, 300, 5)]
    assert {0, 1} == {person for people in present for person in people}
    assert len(set(present)) > 2


def test_crossing_people_hide_each_other_and_others_never_do():
    def count_overlaps(scene):
        frames = [find_middles([one.box for one in scene.frame(number)[1]]) for number in range(0, 500, 10)]
        return sum(np.hypot(*(first - second)) < 60 for first, second in frames)

    assert count_overlaps(Scene(2, seed=1)) == 0
    assert count_overlaps(Scene(2, seed=1, crossing=True)) > 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"people": 25}, "25 people in a scene; expected 0 to 24"),
        ({"people": 20, "width": 160, "height": 120}, "20 people do not fit into 160x120 px"),
        ({"labels": ("joy",)}, "unknown emotion 'joy'; known: neutral"),
        ({"labels": ()}, "no emotion to show"),
    ],
)
def test_what_cannot_be_rendered_is_refused(settings, said):
    with pytest.raises(UsageError, match=said):
        Scene(**settings)
