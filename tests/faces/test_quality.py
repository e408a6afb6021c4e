"""Flags on faces: which crops show a model too little."""

from __future__ import annotations

from math import cos, radians, sin

import numpy as np
import pytest

from edgeemo.card import InputContract
from edgeemo.errors import DataError
from edgeemo.faces import Detection, Framing
from edgeemo.faces.crop import Square, place
from edgeemo.faces.quality import (
    CLIPPED,
    CLIPPED_BELOW,
    MAX_SKEW,
    MAX_TILT,
    MEASURED_SIDE,
    SMALL,
    find_flags,
    measure_outside,
)
from edgeemo.faces.quality import measure_tilt as measure

GRAY = InputContract(48)
FRAMING = Framing(2.5, 0.4)
IMAGE = (640, 480)
CENTRE = (320.0, 240.0)


def make_face(*, middle=CENTRE, distance=40.0, tilt=0.0, mouth=0.0, points=6):
    """A face with its eyes about `middle`, turned by degrees; its mouth lies `mouth` degrees off the straight below."""
    across = np.array([cos(radians(tilt)), sin(radians(tilt))]) * distance / 2
    right, left = np.array(middle) - across, np.array(middle) + across
    axis = radians(tilt + mouth)
    chin = np.array(middle) + np.array([-sin(axis), cos(axis)]) * distance
    corners = [chin + 0.3 * across, chin - 0.3 * across]
    rest = {6: [chin, chin, right, left], 5: [chin, *corners], 2: [], 0: []}[points]
    landmarks = [right, left, *rest] if points else []
    box = (middle[0] - 1.25 * distance, middle[1] - 0.85 * distance, 2.5 * distance, 2.5 * distance)
    return Detection(box, 0.9, tuple(tuple(point.tolist()) for point in landmarks), FRAMING)


@pytest.mark.parametrize("points", [0, 2, 5, 6])
def test_a_large_upright_face_inside_the_image_has_no_flag(points):
    """With any number of landmarks, or none."""
    assert find_flags(make_face(points=points), *IMAGE, GRAY) == ()


def test_small_is_measured_in_pixels_of_the_square():
    """Just below the limit, and just above it."""
    limit = SMALL * 48 / 2.8  # distance between the eyes
    assert find_flags(make_face(distance=0.99 * limit), *IMAGE, GRAY) == ("small",)
    assert find_flags(make_face(distance=1.01 * limit), *IMAGE, GRAY) == ()


def test_a_larger_input_does_not_make_a_face_small():
    """An input of 224 px needs no more than was measured; one of 32 px needs less."""
    face = make_face(distance=1.01 * SMALL * MEASURED_SIDE / 2.8)
    assert find_flags(face, *IMAGE, InputContract(224)) == ()
    smaller = make_face(distance=1.01 * SMALL * 32 / 2.8)
    assert find_flags(smaller, *IMAGE, InputContract(32)) == ()
    assert find_flags(smaller, *IMAGE, GRAY) == ("small",)


@pytest.mark.parametrize("points", [2, 5, 6])
@pytest.mark.parametrize(("tilt", "flags"), [(MAX_TILT - 1, ()), (1 + MAX_TILT, ("tilted",)), (180, ("tilted",))])
def test_tilted_begins_beyond_what_turning_makes_up_for(points, tilt, flags):
    """To either side, and upside down."""
    assert find_flags(make_face(tilt=tilt, points=points), *IMAGE, GRAY) == flags
    assert find_flags(make_face(tilt=-tilt, points=points), *IMAGE, GRAY) == flags


@pytest.mark.parametrize("points", [5, 6])
@pytest.mark.parametrize("tilt", [0, 25, -25])
def test_landmarks_that_contradict_each_other_are_tilted(points, tilt):
    """The mouth of a face that lies on its side is not below the line on which its eyes were placed."""
    for mouth in (MAX_SKEW - 1, 1 - MAX_SKEW):
        assert find_flags(make_face(tilt=tilt, mouth=mouth, points=points), *IMAGE, GRAY) == ()
    for mouth in (1 + MAX_SKEW, -1 - MAX_SKEW, 180):
        assert find_flags(make_face(tilt=tilt, mouth=mouth, points=points), *IMAGE, GRAY) == ("tilted",)


@pytest.mark.parametrize(("tilt", "mouth"), [(0, 0), (30, 5), (-120, 20), (175, -15)])
def test_tilt_and_skew_are_those_of_the_landmarks(tilt, mouth):
    """In degrees, across ±180 as well."""
    assert measure(make_face(tilt=tilt, mouth=mouth)) == pytest.approx((tilt, abs(mouth)))
    assert measure(make_face(tilt=tilt, mouth=mouth, points=2)) == pytest.approx((tilt, 0))
    assert measure(make_face(points=0)) == (0, 0)


def test_clipped_is_the_share_of_the_square_outside_the_image():
    """Just above the limit, and just below it, on the left, at the top and on the right."""
    face = make_face()
    square = place(face, GRAY)
    left, top = (middle - square.side / 2 for middle in square.centre)
    for share, flags in ((CLIPPED + 0.04, ("clipped",)), (CLIPPED - 0.04, ())):
        lost = share * square.side
        assert find_flags(make_face(middle=(CENTRE[0] - left - lost, 240)), *IMAGE, GRAY) == flags
        assert find_flags(make_face(middle=(320, CENTRE[1] - top - lost)), *IMAGE, GRAY) == flags
        assert find_flags(face, round(left + square.side - lost), 480, GRAY) == flags


def test_less_may_be_lost_of_the_mouth():
    """Below the image, a share is too much that would be none too much at the other edges."""
    face = make_face()
    square = place(face, GRAY)
    for share, flags in ((CLIPPED_BELOW / 2 + 0.04, ("clipped",)), (CLIPPED_BELOW / 2 - 0.04, ())):
        assert share < CLIPPED
        height = round(square.centre[1] + (0.5 - share) * square.side)
        assert find_flags(face, 640, height, GRAY) == flags


def test_the_share_outside_is_exact_for_upright_and_close_for_turned_squares():
    """A turned one whose centre lies on the edge is half outside; a whole one inside or outside is nothing or all."""
    assert measure_outside(Square((50, 50), 40), 100, 100) == (0, 0)
    assert measure_outside(Square((100, 50), 40), 100, 100) == (0.5, 0.5)
    assert measure_outside(Square((50, 90), 40), 100, 100) == (0.25, 0.5)
    assert measure_outside(Square((50, 10), 40), 100, 100) == (0.25, 0)
    assert measure_outside(Square((100, 100), 40), 100, 100) == (0.75, 1)
    assert measure_outside(Square((100, 50), 40, 30), 100, 100)[0] == pytest.approx(0.5, abs=0.01)
    assert measure_outside(Square((100 + 20 * 2**0.5 + 1, 50), 40, 45), 100, 100) == (1, 1)
    assert 0 < measure_outside(Square((100 - 21, 50), 40, 45), 100, 100)[0] < 0.2  # only its corner


@pytest.mark.parametrize(("turned", "centre"), [(90, (10, 50)), (-90, (90, 50)), (180, (50, 10))])
def test_the_lower_half_is_that_of_the_face(turned, centre):
    """The mouth of a face that lies on its side is at the side of the image, that of one upside down at its top."""
    assert measure_outside(Square(centre, 40, turned), 100, 100) == pytest.approx((0.25, 0.5))


def test_all_flags_of_a_face_are_named():
    """In a fixed order."""
    face = make_face(middle=(0.0, 0.0), distance=3.0, tilt=90.0)
    assert find_flags(face, *IMAGE, GRAY) == ("small", "tilted", "clipped")


def test_a_face_that_cannot_be_placed_is_refused():
    """As by `place`: there is no square to measure."""
    with pytest.raises(DataError, match="landmarks or framing"):
        find_flags(Detection((0, 0, 10, 10), 0.9), *IMAGE, GRAY)
