"""A watched frame as an image: boxes and labels, and faces made unrecognisable."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil, floor

import numpy as np

from edgeemo.faces.detection import Box
from edgeemo.predict.paint import paint
from edgeemo.runtime import Face
from edgeemo.watch.frame import TrackedFace, WatchedFrame

BLOCKS = 4  # across a hidden area, in both directions
ENLARGE = 1.6  # side of a hidden area, of the box's longer side: hair, ears and chin, and where the face moves to
HOLD = 1.0  # seconds for which an area stays hidden after its face was last seen


class Overlay:
    """Paints what was found onto frames of one source, in order.

    blur: make faces unrecognisable. Around every box, classified or not, an area is replaced by BLOCKS x BLOCKS
    rectangles of its mean colours, in this frame and for HOLD seconds after it; the labels then carry no track number.
    It hides only faces that the detector finds: one that it misses stays visible, as does one until it is first found,
    where not every frame is searched. Clothes, body and place may identify somebody. That the packaged detector
    finds no hidden face, and a model names its emotion as if by chance, is measured on rendered faces in
    benchmarks/watch_outputs.py; no software that recognises people was tried.
    """

    def __init__(self, *, blur: bool = False) -> None:
        self._blur = blur
        self._recent: list[tuple[float, Box]] = []  # clock and box of hidden faces, none within a newer one

    def paint(self, watched: WatchedFrame) -> np.ndarray:
        """Return a copy of the frame's image with a box and smoothed label per face, (H, W, 3) uint8 RGB."""
        pixels = watched.frame.pixels
        if self._blur:
            pixels = hide(pixels, self._find_hidden(watched))
        names = [] if self._blur else [f"#{face.track}" for face in watched.faces]
        painted: np.ndarray = np.asarray(paint(pixels, [_to_face(face) for face in watched.faces], names=names))
        return painted

    def _find_hidden(self, watched: WatchedFrame) -> list[Box]:
        """Return the boxes of this frame, and of faces shortly before it of which it has none."""
        now = watched.frame.clock
        boxes = [*(face.box for face in watched.faces), *watched.unclassified]
        kept = [
            (seen, box)
            for seen, box in self._recent
            if 0 <= now - seen <= HOLD and not any(_has_centre(new, box) for new in boxes)
        ]
        self._recent = [*kept, *((now, box) for box in boxes)]
        return [box for _, box in self._recent]


def hide(pixels: np.ndarray, boxes: Iterable[Box]) -> np.ndarray:
    """Return a copy of an image, (H, W, 3) uint8, with an area around each box replaced by blocks of mean colours."""
    hidden: np.ndarray = pixels.copy()
    for left, top, right, bottom in dict.fromkeys(_enlarge(box, pixels.shape) for box in boxes):
        if left == right or top == bottom:
            continue
        rows, columns = _divide(top, bottom), _divide(left, right)
        area = pixels[top:bottom, left:right].astype(np.float32)
        sums = np.add.reduceat(np.add.reduceat(area, rows[:-1] - top, axis=0), columns[:-1] - left, axis=1)
        high, wide = np.diff(rows), np.diff(columns)
        means = sums / (high[:, None] * wide)[..., None]
        hidden[top:bottom, left:right] = means.astype(np.uint8).repeat(high, axis=0).repeat(wide, axis=1)
    return hidden


def _enlarge(box: Box, shape: Sequence[int]) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of the square around a box, inside the image; empty if it is outside."""
    x, y, width, height = box
    half = ENLARGE * max(width, height) / 2
    left, right = (min(max(0, value), shape[1]) for value in (floor(x + width / 2 - half), ceil(x + width / 2 + half)))
    top, bottom = (
        min(max(0, value), shape[0]) for value in (floor(y + height / 2 - half), ceil(y + height / 2 + half))
    )
    return left, top, right, bottom


def _divide(start: int, end: int) -> np.ndarray:
    """Return the edges of at most BLOCKS blocks, (N + 1,) integers that increase."""
    return np.unique(np.linspace(start, end, BLOCKS + 1).round().astype(int))


def _has_centre(one: Box, other: Box) -> bool:
    """Return whether the centre of a box lies in another one."""
    x, y = other[0] + other[2] / 2, other[1] + other[3] / 2
    return one[0] <= x <= one[0] + one[2] and one[1] <= y <= one[1] + one[3]


def _to_face(face: TrackedFace) -> Face:
    return Face(face.box, face.score, face.landmarks, face.smoothed, face.flags, face.framing)
