"""Boxes and labels on an image: legible on any background, at any size, and inside the image."""

from __future__ import annotations

import numpy as np
import pytest

from edgeemo.predict import paint
from edgeemo.predict.paint import COLOUR, EDGE
from edgeemo.runtime import Face, Prediction


def face(x: float, y: float, side: float, label: str = "happiness", *, unsure: bool | None = None) -> Face:
    return Face((x, y, side, side), 0.9, (), Prediction(label, 0.923, {label: 0.923}, unsure))


def find(painted: np.ndarray, colour: tuple[int, int, int] = COLOUR) -> np.ndarray:
    """(H, W) bool: where a colour is."""
    return (painted == colour).all(axis=2)


@pytest.mark.parametrize("level", [0, 128, 255, 210])
@pytest.mark.parametrize("shape", [(300, 400), (300, 400, 3)])
def test_box_and_label_stand_out_on_any_background(level: int, shape: tuple[int, ...]) -> None:
    """A bright line and ground, a dark edge and letters; the rest of the image, and the image given, stay."""
    image = np.full(shape, level, np.uint8)
    painted = np.asarray(paint.paint(image, [face(100, 120, 90)]))
    assert painted.shape == (300, 400, 3)
    assert (image == level).all()
    bright, dark = find(painted), find(painted, EDGE)
    rows, columns = np.nonzero(bright)
    assert (columns.min(), rows.max()) == (101, 208)  # the line, inside its dark edge
    assert bright[165].sum() == 4  # two pixels each of the left and the right line
    if level:
        assert dark[120:210, 100].all()
        assert dark[:119].sum() > 100  # letters
    changed = np.argwhere((painted != level).any(axis=2))
    assert changed.min() > 90
    assert changed.max() < 220


@pytest.fixture
def labels(monkeypatch: pytest.MonkeyPatch) -> list[paint.Area]:
    """The areas of the labels that are painted."""
    areas: list[paint.Area] = []
    draw = paint._draw_text
    monkeypatch.setattr(paint, "_draw_text", lambda *about: (areas.append(about[-1]), draw(*about)))
    return areas


@pytest.mark.parametrize(
    ("x", "y"), [(-30, -30), (370, -30), (-30, 270), (370, 270), (170, -20), (170, 260), (360, 120), (-1e4, 50)]
)
def test_a_face_at_an_edge_keeps_its_label_inside(labels: list[paint.Area], x: float, y: float) -> None:
    """And off the face; the box is drawn along the edge."""
    painted = np.asarray(paint.paint(np.zeros((300, 400), np.uint8), [face(x, y, 60, "surprise")]))
    ((left, top, right, bottom),) = labels
    assert 0 <= left < right <= 400
    assert 0 <= top < bottom <= 300
    assert bottom <= y or top >= y + 60
    bright = find(painted)
    bright[top:bottom, left:right] = False
    assert bright.any() == (x > -60)


def test_labels_of_neighbours_do_not_cover_each_other(labels: list[paint.Area]) -> None:
    """Two faces that overlap."""
    paint.paint(np.zeros((300, 400), np.uint8), [face(180, 120, 60), face(190, 130, 60, "sadness")])
    one, other = labels
    assert one[3] <= other[1] or other[3] <= one[1] or one[2] <= other[0] or other[2] <= one[0]


@pytest.mark.parametrize(("shape", "side"), [((260, 260), 250), ((40, 300), 38), ((300, 60), 50), ((480, 640), 470)])
def test_where_a_face_leaves_no_room_its_label_is_inside(
    labels: list[paint.Area], shape: tuple[int, int], side: int
) -> None:
    """As far up or down as possible."""
    paint.paint(np.zeros(shape, np.uint8), [face((shape[1] - side) / 2, (shape[0] - side) / 2, side)])
    ((left, top, right, bottom),) = labels
    assert 0 <= left < right <= shape[1]
    assert 0 <= top < bottom <= shape[0]


@pytest.mark.parametrize("side", [1, 16, 24, 48, 64, 200, 2000])
def test_any_size_of_image_can_be_painted(side: int) -> None:
    """Letters shrink with the image, and are left out where none would be legible."""
    painted = np.asarray(paint.paint(np.full((side, side), 128, np.uint8), [face(0.1 * side, 0.1 * side, 0.8 * side)]))
    share = find(painted).mean()
    assert share < 0.6
    assert share > 0 or side < 16


@pytest.mark.parametrize(("side", "factor"), [(48, 6), (64, 4), (255, 2), (256, 1)])
def test_the_label_of_a_small_crop_leaves_its_face_to_be_seen(labels: list[paint.Area], side: int, factor: int) -> None:
    """The image is enlarged by a whole factor, without new pixel values."""
    crop = np.random.default_rng(0).integers(0, 200, (side, side), np.uint8)
    painted = np.asarray(paint.paint(crop, [face(0, 0, side)]))
    assert painted.shape == (factor * side, factor * side, 3)
    ((left, top, right, bottom),) = labels
    assert (right - left) * (bottom - top) < 0.05 * painted.shape[0] ** 2
    middle = slice(side // 3, side // 2)
    enlarged = painted[..., 0][factor // 2 :: factor, factor // 2 :: factor]
    np.testing.assert_array_equal(enlarged[middle, middle], crop[middle, middle])


def test_lines_and_letters_grow_with_the_image() -> None:
    """A photo of 12 megapixels is looked at from as far away as a small one."""
    small, large = (
        find(np.asarray(paint.paint(np.zeros((3 * k, 4 * k), np.uint8), [face(k, k, k)]))).mean() for k in (150, 600)
    )
    assert large == pytest.approx(small, rel=0.35)


def test_an_unsure_prediction_is_marked() -> None:
    """By a question mark, which takes room."""
    image = np.zeros((300, 400), np.uint8)
    sure, unsure = (find(np.asarray(paint.paint(image, [face(100, 120, 90, unsure=one)]))) for one in (False, True))
    assert unsure.sum() > sure.sum()
