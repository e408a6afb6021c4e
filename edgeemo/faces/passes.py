"""Which parts of an image a network searches, and at which scale.

A network sees a square canvas of fixed size, so the smallest face that it finds is a share of the part that is resized
to the canvas. `few` searches the whole image; `many` also tiles of it, at as much time per tile as for the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Literal

import numpy as np
from PIL import Image

from edgeemo.errors import known

Faces = Literal["few", "many"]
FACES = ("few", "many")
TILE_FACE = 48  # pixels of the smallest face that tiles are made for; a model's input is hardly larger
MAX_TILES = 36
OVERLAP = 0.25  # of a tile with the next one
REDUCING_GAP = 2.0  # Pillow: a photo is first averaged down to twice the canvas


@dataclass(frozen=True)
class Pass:
    """A part of the image, in pixels, that is resized to `share` of the canvas, centred; the rest is black."""

    left: int
    top: int
    width: int
    height: int
    share: float = 1.0


def plan_passes(
    width: int, height: int, *, smallest_face: float, half: bool, faces: Faces | None = None
) -> tuple[Pass, ...]:
    """Return the passes for an image of width x height px.

    smallest_face: of what the network finds, as a share of the longer side of what it sees. half: whether it misses
    faces that fill the canvas, so that the image is searched again at half the size. faces: `few` or `many`; None:
    `few` if it finds faces of TILE_FACE pixels, else `many`.

    Raises UsageError for another word.
    """
    if faces not in (None, *FACES):
        raise known("number of faces", str(faces), FACES)
    whole = [Pass(0, 0, width, height, share) for share in ((1.0, 0.5) if half else (1.0,))]
    if (faces or ("few" if smallest_face * max(width, height) <= TILE_FACE else "many")) == "few":
        return tuple(whole)
    side = min(TILE_FACE / smallest_face, max(width, height) / (2 - OVERLAP))  # at least two tiles
    while _count(width, side) * _count(height, side) > MAX_TILES:
        side *= 1.02
    return (*whole, *make_tiles(width, height, min(ceil(side), max(width, height))))


def make_tiles(width: int, height: int, side: int) -> list[Pass]:
    """Return square tiles of at most `side` px, spread evenly, each of which overlaps the next by OVERLAP or more."""
    columns, rows = (_spread(length, side) for length in (width, height))
    return [Pass(left, top, min(side, width), min(side, height)) for top in rows for left in columns]


def _spread(length: int, side: int) -> list[int]:
    count = _count(length, side)
    return [round(k * (length - side) / (count - 1)) for k in range(count)] if count > 1 else [0]


def _count(length: int, side: float) -> int:
    return 1 if side >= length else ceil((length / side - OVERLAP) / (1 - OVERLAP) - 1e-9)


@dataclass(frozen=True)
class Canvas:
    """What a network sees of a pass: (side, side, 3) uint8, and the way back to the image."""

    pixels: np.ndarray
    scale: tuple[float, float]  # pixels of the image per pixel of the canvas
    corner: tuple[float, float]  # of the canvas, in pixels of the image

    def to_image(self, candidates: np.ndarray) -> np.ndarray:
        """Return candidates, (N, 5 + 2 K) in pixels of the canvas, in pixels of the image."""
        found = candidates.astype(np.float64)
        for axis in (0, 1):
            found[:, 2 + axis] *= self.scale[axis]
            for column in (axis, *range(5 + axis, found.shape[1], 2)):
                found[:, column] = found[:, column] * self.scale[axis] + self.corner[axis]
        return found


def draw_canvas(image: Image.Image, one: Pass, side: int) -> Canvas:
    """Resize a pass of a gray or RGB image onto a black canvas of side x side px."""
    fit = side * one.share / max(one.width, one.height)
    width, height = (max(1, round(length * fit)) for length in (one.width, one.height))
    part = resize(image, one, width, height)
    x, y = (side - width) // 2, (side - height) // 2
    canvas = Image.new("RGB", (side, side))
    canvas.paste(part, (x, y))
    scale = (one.width / width, one.height / height)
    return Canvas(np.asarray(canvas), scale, (one.left - x * scale[0], one.top - y * scale[1]))


def resize(image: Image.Image, one: Pass, width: int, height: int) -> Image.Image:
    """Resize a pass to width x height px as Pillow does with a reducing gap, but every row before every column.

    Each step rounds to 8 bits, so that their order matters; from 13 on, Pillow begins with the columns of tall images.
    """
    last = (one.left + one.width, one.top + one.height)
    across, down = one.width / width, one.height / height
    factors = (max(1, int(across / REDUCING_GAP)), max(1, int(down / REDUCING_GAP)))
    left, top = max(0, int(one.left - across / 2)), max(0, int(one.top - down / 2))  # with all that resizing weighs
    right, bottom = min(image.width, ceil(last[0] + across / 2)), min(image.height, ceil(last[1] + down / 2))
    around = image.reduce(factors, box=(left, top, right, bottom))
    columns = ((one.left - left) / factors[0], 0, (last[0] - left) / factors[0], around.height)
    rows = (0, (one.top - top) / factors[1], width, (last[1] - top) / factors[1])
    narrow = around.resize((width, around.height), Image.Resampling.BILINEAR, box=columns)
    return narrow.resize((width, height), Image.Resampling.BILINEAR, box=rows)


def find_cut(candidates: np.ndarray, one: Pass, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what is inside the pass of each candidate's box, (N, 4), and which boxes extend over an inner edge, (N,).

    An inner edge is one of the pass that is no edge of the image, width x height px.
    """
    low, high = candidates[:, :2], candidates[:, :2] + candidates[:, 2:4]
    first = np.array([one.left, one.top], float)
    last = first + np.array([one.width, one.height])
    inside = np.clip(low, first, last)
    parts = np.concatenate([inside, np.clip(high, first, last) - inside], axis=1)
    cut = ((low < first) & (first > 0)) | ((high > last) & (last < (width, height)))
    return parts, cut.any(axis=1)
