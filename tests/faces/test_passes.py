"""Which parts of an image are searched."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from edgeemo.errors import UsageError
from edgeemo.faces.passes import MAX_TILES, OVERLAP, TILE_FACE, Pass, draw_canvas, find_cut, plan_passes, resize

SMALLEST = 0.067


def tiles_of(width, height, faces="many"):
    return [
        one for one in plan_passes(width, height, smallest_face=SMALLEST, half=True, faces=faces) if one.share == 1
    ][1:]


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (1920, 1080), (4000, 3000), (2000, 150), (100, 100)])
def test_tiles_cover_the_image_and_overlap(size):
    """Every face that is small enough lies as a whole in at least one tile."""
    tiles = tiles_of(*size)
    assert 2 <= len(tiles) <= MAX_TILES
    face = int(OVERLAP * min(max(one.width, one.height) for one in tiles))
    rng = np.random.default_rng(0)
    for _ in range(200):
        side = min(face, *size)
        x, y = (rng.integers(0, length - side + 1) for length in size)
        assert any(
            one.left <= x and one.top <= y and x + side <= one.left + one.width and y + side <= one.top + one.height
            for one in tiles
        )
    for one in tiles:
        assert one.left >= 0
        assert one.top >= 0
        assert one.left + one.width <= size[0]
        assert one.top + one.height <= size[1]


def test_tiles_are_small_enough_for_the_smallest_face():
    """A face of 48 px is as large in them as the network needs it."""
    assert max(one.width for one in tiles_of(1920, 1080)) * SMALLEST <= TILE_FACE + 0.1


def test_few_faces_take_two_passes_and_many_are_the_default_of_large_images():
    """The whole image, and once more at half the size for a network that misses faces that fill it."""
    few = plan_passes(1920, 1080, smallest_face=SMALLEST, half=True, faces="few")
    assert few == (Pass(0, 0, 1920, 1080), Pass(0, 0, 1920, 1080, 0.5))
    assert len(plan_passes(1920, 1080, smallest_face=SMALLEST, half=False, faces="few")) == 1
    largest = int(TILE_FACE / SMALLEST)  # in which the whole image shows what tiles are made for
    assert len(plan_passes(largest, 480, smallest_face=SMALLEST, half=True)) == 2
    assert len(plan_passes(largest + 1, 480, smallest_face=SMALLEST, half=True)) > 2


def test_another_number_of_faces_is_refused():
    """With the two that exist."""
    with pytest.raises(UsageError, match="known: few, many"):
        plan_passes(640, 480, smallest_face=SMALLEST, half=True, faces="all")


@pytest.mark.parametrize("one", [Pass(0, 0, 300, 200), Pass(0, 0, 300, 200, 0.5), Pass(101, 53, 120, 120)])
def test_a_point_of_the_canvas_is_that_of_the_image(one):
    """The centre of a bright square is found again, to a pixel of the canvas."""
    image = np.zeros((200, 300), np.uint8)
    image[90:110, 150:170] = 255  # centre: 160, 100
    canvas = draw_canvas(Image.fromarray(image), one, 192)
    assert canvas.pixels.shape == (192, 192, 3)
    weights = canvas.pixels[..., 0].astype(float)
    x, y = ((weights.sum(axis=axis) @ (np.arange(192) + 0.5)) / weights.sum() for axis in (0, 1))
    candidate = np.array([[x - 2, y - 3, 4, 6, 0.9, x, y]])
    found = canvas.to_image(candidate)[0]
    scale = max(one.width, one.height) / 192 / one.share
    assert found[5:] == pytest.approx([160, 100], abs=scale)
    assert found[:2] + found[2:4] / 2 == pytest.approx(found[5:])
    assert found[2:4] == pytest.approx([4 * scale, 6 * scale], rel=0.02)
    assert found[4] == 0.9


def test_boxes_over_an_inner_edge_of_a_tile_are_cut():
    """An edge of the image cuts nothing that another tile would show."""
    one = Pass(100, 0, 100, 100)
    boxes = np.array(
        [[150, 20, 20, 20], [90, 20, 20, 20], [190, 20, 20, 20], [150, -5, 20, 20], [150, 90, 20, 20]], float
    )
    parts, cut = find_cut(boxes, one, 400, 100)
    assert cut.tolist() == [False, True, True, False, False]
    assert parts.tolist() == [
        [150, 20, 20, 20],
        [100, 20, 10, 20],
        [190, 20, 10, 20],
        [150, 0, 20, 15],
        [150, 90, 20, 10],
    ]


@pytest.mark.parametrize(
    ("one", "width", "height"),
    [
        (Pass(0, 0, 300, 200), 192, 128),
        (Pass(0, 0, 300, 200), 40, 27),  # averaged down before
        (Pass(31, 20, 150, 101), 60, 40),
        (Pass(31, 20, 250, 151), 31, 19),
        (Pass(0, 0, 300, 200), 450, 300),
    ],
)
def test_a_wide_pass_is_resized_as_pillow_does(one: Pass, width: int, height: int, rng: np.random.Generator) -> None:
    image = Image.fromarray(rng.integers(0, 256, (200, 300, 3), dtype=np.uint8))
    box = (one.left, one.top, one.left + one.width, one.top + one.height)
    expected = image.resize((width, height), Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)
    assert np.array_equal(resize(image, one, width, height), expected)


def test_rows_are_resized_before_columns_whatever_pillow_does(rng: np.random.Generator) -> None:
    """Pillow 13 begins with the columns of a tall image, older ones with the rows."""
    image = Image.fromarray(rng.integers(0, 256, (300, 60, 3), dtype=np.uint8))
    narrow = image.resize((38, 300), Image.Resampling.BILINEAR)
    expected = narrow.resize((38, 192), Image.Resampling.BILINEAR)
    flat = image.resize((60, 192), Image.Resampling.BILINEAR)
    assert np.array_equal(resize(image, Pass(0, 0, 60, 300), 38, 192), expected)
    assert not np.array_equal(flat.resize((38, 192), Image.Resampling.BILINEAR), expected)
