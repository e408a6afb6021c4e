"""Which detections are labelled faces, worked by hand."""

from __future__ import annotations

import pytest

from edgeemo.bench.matching import Matches, join, match, score, score_sizes
from edgeemo.data.boxes import LabelledBox
from edgeemo.faces import Detection

A, B = (0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 10.0, 10.0)


def label(*boxes, ignored=False):
    return [LabelledBox(box, "", ignored) for box in boxes]


def detect(*boxes):
    """Detections whose scores fall in order."""
    return [Detection(box, 0.9 - number / 10) for number, box in enumerate(boxes)]


def test_a_face_is_found_from_half_overlap_on() -> None:
    """10x10 moved by 3: 70 of 130 shared; by 4: 60 of 140. A third of 15x10 outside: 100 of 150."""
    assert match(detect((3, 0, 10, 10)), label(A)) == Matches((A,), (), ())
    assert match(detect((4, 0, 10, 10)), label(A)) == Matches((), (A,), ((4, 0, 10, 10),))
    assert match(detect((0, 0, 15, 10)), label(A)).found == (A,)
    assert match(detect((0, 0, 20, 10)), label(A)).found == (A,)  # exactly one half
    assert match(detect((0, 0, 20.1, 10)), label(A)).missed == (A,)


def test_a_face_is_found_once() -> None:
    """By the detection with the highest score, wherever it is in the list; the second is false."""
    second, first = Detection((0, 0, 10, 10), 0.6), Detection((1, 0, 10, 10), 0.8)
    assert match([second, first], label(A)) == Matches((A,), (), (second.box,))


def test_a_detection_takes_the_best_of_the_faces_that_are_left() -> None:
    """Two faces that overlap: the first detection lies on both, better on the second."""
    left, right = (0.0, 0.0, 10.0, 10.0), (2.0, 0.0, 10.0, 10.0)
    assert match(detect((2, 0, 10, 10), (1, 0, 10, 10)), label(left, right)) == Matches((left, right), (), ())
    assert match(detect((2, 0, 10, 10)), label(left, right)) == Matches((right,), (left,), ())


def test_a_detection_never_changes_its_face_for_a_later_one() -> None:
    """Greedy, as in the evaluations of WIDER FACE and COCO: the first takes the only face of the second."""
    near, far = (0.0, 0.0, 10.0, 10.0), (-4.0, 0.0, 10.0, 10.0)  # the second detection reaches `near` alone
    found = match(detect((-1, 0, 10, 10), (2, 0, 10, 10)), label(near, far))
    assert found == Matches((near,), (far,), ((2, 0, 10, 10),))


def test_ignored_faces_count_neither_as_missed_nor_as_false() -> None:
    """However many detections lie in one by half of their area; a face that counts comes first."""
    crowd = (0.0, 0.0, 100.0, 100.0)
    inside, across, outside = (10.0, 10, 20, 20), (90.0, 0, 20, 20), (95.0, 0, 20, 20)
    assert match(detect(inside, across, outside), label(crowd, ignored=True)) == Matches((), (), (outside,))
    assert match([], label(crowd, ignored=True)) == Matches((), (), ())
    both = [*label(crowd, ignored=True), *label(inside)]
    assert match(detect(inside, inside), both) == Matches((inside,), (), ())


def test_images_without_faces_or_detections_are_counted() -> None:
    """Everything false, everything missed, nothing."""
    assert match(detect(A), []) == Matches((), (), (A,))
    assert match([], label(A, B)) == Matches((), (A, B), ())
    assert match([], []) == Matches((), (), ())


def test_rates_are_those_of_all_images() -> None:
    """Three faces of which two were found, with one false box; without any, no rate."""
    joined = join([Matches((A,), (B,), ()), Matches((B,), (), (A,)), Matches((), (), ())])
    total = score(joined)
    assert (total.labelled, total.found, total.false) == (3, 2, 1)
    assert total.recall == total.precision == pytest.approx(2 / 3)
    empty = score(Matches((), (), ()))
    assert (empty.recall, empty.precision) == (None, None)


def test_sizes_are_those_of_the_longer_side_of_labels_and_of_false_boxes() -> None:
    """A limit belongs to the larger size."""
    small, exact, large = (0.0, 0, 10, 23.9), (0.0, 0, 48, 10), (0.0, 0, 500, 600)
    rows = score_sizes(Matches((exact,), (small, large), ((0.0, 0, 95.9, 1),)))
    assert [(row.least, row.below, row.labelled, row.found, row.false) for row in rows] == [
        (0, 24, 1, 0, 0),
        (24, 48, 0, 0, 0),
        (48, 96, 1, 1, 1),
        (96, 192, 0, 0, 0),
        (192, None, 1, 0, 0),
    ]
    assert (rows[2].recall, rows[2].precision) == (1.0, 0.5)
