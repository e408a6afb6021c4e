"""Boxes of all passes become one box per face."""

from __future__ import annotations

import numpy as np
import pytest

from edgeemo.faces.merge import compute_iou, drop_nested, merge


def candidate(x, y, side, score=0.9):
    """A square box with one landmark, in its middle."""
    return [x, y, side, side, score, x + side / 2, y + side / 2]


def merged(*rows, cut=None, parts=None):
    faces = np.array(rows, float).reshape(-1, 7)
    cut = np.zeros(len(faces), bool) if cut is None else np.array(cut)
    return merge(faces, faces[:, :4] if parts is None else np.array(parts, float), cut)


def test_overlap_is_intersection_over_union():
    """Of two squares of 10, shifted by 5: 50 of 150."""
    first = np.array([candidate(0, 0, 10)])
    assert compute_iou(first, np.array([candidate(5, 0, 10), candidate(20, 0, 10)]))[0] == pytest.approx([1 / 3, 0])


def test_a_group_becomes_its_mean_weighted_by_score():
    """Box and landmarks move towards the higher score; the score is the highest."""
    (face,) = merged(candidate(10, 10, 20, 0.9), candidate(13, 10, 20, 0.6))
    assert face[:4] == pytest.approx([10 + 3 * 0.6 / 1.5, 10, 20, 20])
    assert face[4] == 0.9
    assert face[5] == pytest.approx(20 + 3 * 0.6 / 1.5)


def test_faces_side_by_side_stay_apart():
    """Even touching ones; the higher score comes first."""
    faces = merged(candidate(0, 0, 20, 0.6), candidate(20, 0, 20, 0.8), candidate(0, 20, 20, 0.7))
    assert faces[:, 4].tolist() == [0.8, 0.7, 0.6]


def test_a_face_cut_by_a_tile_is_not_counted_beside_the_whole_one():
    """The cut box is a guess that reaches far out of the whole one; of what the tile shows of it, most lies within."""
    whole, guess = candidate(100, 100, 60), candidate(130, 90, 70)
    assert compute_iou(np.array([whole]), np.array([guess]))[0, 0] < 0.3
    assert len(merged(whole, guess)) == 2
    assert len(merged(whole, guess, cut=[False, True], parts=[whole[:4], [130, 90, 25, 70]])) == 1


def test_a_face_that_only_cut_tiles_show_is_kept_once():
    """Each tile guesses where it ends; nobody sees it as a whole."""
    left, right = candidate(90, 100, 40), candidate(112, 100, 40)
    assert compute_iou(np.array([left]), np.array([right]))[0, 0] < 0.3
    faces = merged(left, right, cut=[True, True], parts=[[90, 100, 30, 40], [120, 100, 32, 40]])
    assert len(faces) == 2  # less than half of either lies in the other
    near = candidate(105, 100, 40)
    assert len(merged(left, near, cut=[True, True], parts=[[90, 100, 30, 40], [120, 100, 25, 40]])) == 1


@pytest.mark.parametrize(("small", "large", "left"), [(0.6, 0.9, 100), (0.7, 0.6, 100), (0.95, 0.6, 40)])
def test_a_small_box_in_a_large_one_is_part_of_it_unless_its_score_is_clearly_higher(small, large, left):
    """A covered face gives such boxes; a real small face beside a false large box survives."""
    (face,) = drop_nested(merged(candidate(30, 30, 40, small), candidate(0, 0, 100, large)))
    assert face[2] == left


def test_nothing_found_is_an_empty_list():
    """With the columns of the candidates."""
    assert merged().shape == (0, 7)
