"""The square around a face: where it lies, that it is upright, and that a ready crop and it meet one resize."""

from __future__ import annotations

from dataclasses import replace
from math import cos, radians, sin

import numpy as np
import pytest
from PIL import Image

from edgeemo import images
from edgeemo.card import Crop, InputContract, card_path, read_card
from edgeemo.errors import DataError
from edgeemo.faces import Detection, Framing, crop
from edgeemo.faces.crop import MIN_EYE_SHARE, is_sideways, place
from edgeemo.runtime import shipped

GRAY = InputContract(48)
RGB = InputContract(48, "rgb", (0.5,) * 3, (0.25,) * 3)
BOX = (0.0, 0.0, 1.0, 1.0)  # of faces whose eyes are known, it does not matter
FRAMING = Framing(2.5, 0.4)


def with_eyes(middle, distance, tilt=0.0, box=BOX, framing=None):
    """A face with its eyes about `middle`; tilt in degrees, the person's left eye lower if positive."""
    across = np.array([cos(radians(tilt)), sin(radians(tilt))]) * distance / 2
    right, left = np.array(middle) - across, np.array(middle) + across
    return Detection(box, 0.9, (tuple(right.tolist()), tuple(left.tolist())), framing)


@pytest.fixture(scope="module")
def smooth():
    """A smooth colour image of (300, 400), in which any shift or turn changes every pixel."""
    y, x = np.mgrid[:300, :400]
    bands = [127 + 120 * np.sin(x / 31 + k) * np.cos(y / 23 - k) for k in range(3)]
    return np.stack(bands, axis=2).astype(np.uint8)


@pytest.mark.parametrize("contract", [GRAY, RGB], ids=lambda one: one.colour)
@pytest.mark.parametrize("tilt", [0, 9.9, -9.9])
def test_a_square_that_is_not_turned_is_a_ready_crop(smooth, contract, tilt):
    """To the bit: whole pixels of the image, resized as everything is."""
    middle, distance = (180.0, 140.0), 40.0
    found = crop(smooth, with_eyes(middle, distance, tilt), contract)
    side = 112  # 2.8 distances
    x = middle[0] - 0.3 * distance * sin(radians(tilt))
    y = middle[1] + 0.3 * distance * cos(radians(tilt))
    left, top = (int(np.floor(one - side / 2 + 0.5)) for one in (x, y))
    assert np.array_equal(found, images.to_pixels(smooth[top : top + side, left : left + side], contract))


@pytest.mark.parametrize("distance", [14, 17.1, 40, 60])
@pytest.mark.parametrize("tilt", [12, -25, 45, 90, -135, 180])
def test_a_tilted_face_comes_out_upright(smooth, tilt, distance):
    """An image turned about the face gives the crop of the upright one, up to the interpolation of the turning."""
    middle = (200.0, 150.0)
    upright = crop(smooth, with_eyes(middle, distance), RGB)
    # Pillow turns anticlockwise: eyes that were level are tilted by minus the angle.
    turned = Image.fromarray(smooth).rotate(-tilt, Image.Resampling.BICUBIC, center=middle)
    found = crop(np.asarray(turned), with_eyes(middle, distance, tilt), RGB)
    apart = np.abs(found.astype(int) - upright)
    assert np.median(apart) <= 2
    assert apart.mean() < 3


def test_turning_by_nothing_changes_almost_nothing(smooth):
    """At the angle from which on faces are turned, no step: the sampled square is the cut one, to 2 levels of 255."""
    face = with_eyes((180.3, 140.7), 40.2, 0.01)
    turned = replace(RGB, crop=Crop(turn_from_degrees=0))
    apart = np.abs(crop(smooth, face, turned).astype(int) - crop(smooth, face, RGB))
    assert apart.mean() < 1.5
    assert apart.max() <= 8


def test_sampling_is_what_the_page_says():
    """docs/card.md, step 1, in plain loops."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (90, 120), dtype=np.uint8)
    contract = replace(GRAY, size=16)
    face = with_eyes((50.0, 40.0), 12.0, 30)
    square = place(face, contract)
    n = 16 * int(np.ceil(square.side / 16))
    angle, step = radians(square.degrees), square.side / n
    sampled = np.zeros((n, n), np.uint8)
    for j in range(n):
        for i in range(n):
            across, down = (i + 0.5 - n / 2) * step, (j + 0.5 - n / 2) * step
            x = square.centre[0] + across * cos(angle) - down * sin(angle) - 0.5
            y = square.centre[1] + across * sin(angle) + down * cos(angle) - 0.5
            column, row = int(np.floor(x)), int(np.floor(y))
            near = [
                [float(image[np.clip(row + dy, 0, 89), np.clip(column + dx, 0, 119)]) for dx in (0, 1)] for dy in (0, 1)
            ]
            upper, lower = (a + (b - a) * (x - column) for a, b in near)
            sampled[j, i] = int(np.floor(upper + (lower - upper) * (y - row) + 0.5))
    expected = images.resize(sampled, contract)
    apart = np.abs(crop(image, face, contract).astype(int) - expected)
    assert apart.max() <= 1  # a sample that lies between two levels


@pytest.mark.parametrize("tilt", [0, 30])
@pytest.mark.parametrize("middle", [(0.0, 0.0), (119.0, 50.0), (60.0, 95.0)])
def test_edges_are_repeated(tilt, middle):
    """A face at the edge keeps its place: the crop is that of an image with its edges repeated."""
    image = np.random.default_rng(1).integers(0, 256, (100, 120, 3), dtype=np.uint8)
    padded = np.pad(image, ((80, 80), (80, 80), (0, 0)), mode="edge")
    inside = with_eyes((middle[0] + 80, middle[1] + 80), 20.0, tilt)
    assert np.array_equal(crop(image, with_eyes(middle, 20.0, tilt), RGB), crop(padded, inside, RGB))


def test_the_numbers_of_the_card_decide():
    """Side, shift and the angle from which on it is turned."""
    face = with_eyes((200.0, 150.0), 30.0, 20)
    square = place(face, replace(GRAY, crop=Crop(2.0, 0.5, 25)))
    assert (square.side, square.degrees) == (pytest.approx(60), 0)
    assert square.centre == pytest.approx((200 - 15 * sin(radians(20)), 150 + 15 * cos(radians(20))))
    assert place(face, replace(GRAY, crop=Crop(turn_from_degrees=19))).degrees == pytest.approx(20)
    assert place(face, GRAY).side == pytest.approx(84)


def test_a_face_without_landmarks_is_framed_by_its_box():
    """Where a detector's box has the eyes on average: half the numbers are the detector's, half the contract's."""
    square = place(Detection((100, 50, 50, 40), 0.9, (), FRAMING), GRAY)
    distance = 50 / 2.5
    assert square.side == pytest.approx(2.8 * distance)
    assert square.centre == pytest.approx((125, 70 + (0.3 - 0.4) * distance))
    with pytest.raises(DataError, match="landmarks or framing"):
        place(Detection((100, 50, 50, 40), 0.9), GRAY)


def test_a_head_turned_sideways_is_not_framed_too_tightly():
    """Its eyes lie close together; the box says how large it is."""
    box = (100.0, 100.0, 100.0, 100.0)
    square = place(with_eyes((140.0, 140.0), 8.0, box=box, framing=FRAMING), GRAY)
    assert square.side == pytest.approx(2.8 * MIN_EYE_SHARE * 100 / 2.5)


def test_a_head_is_turned_sideways_where_the_box_gives_the_side():
    """Not where the eyes do, and not where there are none, or nothing is known of the box."""
    least = MIN_EYE_SHARE * 100 / 2.5
    box = (100.0, 100.0, 100.0, 100.0)
    near, apart = (with_eyes((140.0, 140.0), k * least, box=box, framing=FRAMING) for k in (0.9, 1.1))
    assert (is_sideways(near), is_sideways(apart)) == (True, False)
    assert not is_sideways(replace(near, framing=None))
    assert not is_sideways(replace(near, landmarks=()))
    assert not is_sideways(replace(near, landmarks=(), framing=None))
    wide = place(with_eyes((140.0, 140.0), 40.0, box=box, framing=FRAMING), GRAY)
    assert wide.side == pytest.approx(2.8 * 40)


@pytest.mark.parametrize(
    ("face", "says"),
    [
        (with_eyes((50.0, 50.0), 2.0), "gives a square of 6 px; expected 16 to 7094"),
        (with_eyes((50.0, 50.0), 9e3), "expected 16 to 7094"),
        (with_eyes((50.0, 500.0), 20.0), "outside the image"),
        (with_eyes((50.0, 500.0), 20.0, 40), "outside the image"),
        (with_eyes((50.0, 50.0), 0.0), "two eyes"),
        (with_eyes((float("nan"), 50.0), 20.0), "two eyes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_face_that_gives_no_square_is_refused(face, says):
    """With what was expected."""
    with pytest.raises(DataError, match=says):
        crop(np.zeros((100, 120, 3), np.uint8), face, RGB)


def test_another_array_is_refused():
    """As by `images.to_pixels`."""
    for tilt in (0, 30):
        with pytest.raises(DataError, match=r"expected \(H, W\) or \(H, W, 3\) uint8"):
            crop(np.zeros((100, 120, 3), np.float32), with_eyes((50.0, 50.0), 20.0, tilt), RGB)


def test_cards_without_a_crop_have_the_default():
    """Those of the shipped models were written before the key; a card that states it gives its own."""
    card = read_card(shipped.find("nano"))
    assert card_path(shipped.find("nano")).is_file()
    assert card.input.face_crop == Crop(2.8, 0.3, 10.0)
    assert replace(card.input, crop=Crop(3.0)).face_crop.side_eye_distances == 3.0
