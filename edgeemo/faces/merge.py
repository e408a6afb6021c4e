"""Candidates of all passes become faces: weighted non-maximum suppression, in numpy.

Candidates are (N, 5 + 2 K) float64: x, y, width, height, score, then K landmarks as x, y.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

MAX_IOU = 0.3  # intersection over union; above it, two boxes are one face, as in MediaPipe's face detection
MAX_COVERED = 0.5  # part of a box that lies in another one, where a tile cuts either; above it, both are one face
MAX_NESTED = 0.7  # part of a box that lies in a larger one; above it, both are one face
CLEARLY = 0.2  # of a score
TINY = 1e-9  # instead of an area of 0


def merge(candidates: np.ndarray, parts: np.ndarray, cut: np.ndarray) -> np.ndarray:
    """Return one row per face, the highest score first.

    parts: (N, 4), what is inside the tile of each box. cut: (N,) bool, boxes that extend over an edge of their tile
    that is inside the image, whose position is a guess. A cut box is dropped if a whole one covers most of its part.
    The faces that remain are in no tile as a whole: their boxes are merged if one lies mostly in the other.
    """
    whole = suppress(candidates[~cut], compute_iou, MAX_IOU)
    rest, parts = candidates[cut], parts[cut]
    if len(rest) and len(whole):
        covered = intersect(parts, whole) / np.maximum(_area(parts), TINY)[:, None]
        rest = rest[covered.max(axis=1) <= MAX_COVERED]
    faces = np.concatenate([whole, suppress(rest, compute_cover, MAX_COVERED)])
    return faces[np.argsort(-faces[:, 4], kind="stable")]


def suppress(
    candidates: np.ndarray, overlap: Callable[[np.ndarray, np.ndarray], np.ndarray], most: float
) -> np.ndarray:
    """Return one row per group of candidates that overlap by more than `most` with the group's highest score.

    Boxes and landmarks are the mean of the group, weighted by score; the score is its highest. This is the weighted
    non-maximum suppression of MediaPipe, which steadies boxes between frames.
    """
    left = candidates[np.argsort(-candidates[:, 4], kind="stable")]
    faces = []
    while len(left):
        same = overlap(left[:1], left)[0] > most
        same[0] = True
        group = left[same]
        face = np.average(group, axis=0, weights=group[:, 4])
        face[4] = group[0, 4]
        faces.append(face)
        left = left[~same]
    return np.array(faces).reshape(-1, candidates.shape[1])


def drop_nested(faces: np.ndarray) -> np.ndarray:
    """Return the faces without one of each two of which the smaller lies mostly in the larger.

    Parts of a large face, above all of a covered one, look like small faces. The smaller box is dropped unless its
    score is clearly higher, which is a small face on which the larger box is false.
    """
    area = _area(faces)
    inside = (compute_cover(faces, faces) > MAX_NESTED) & (area[:, None] < area[None])  # [smaller, larger]
    better = faces[:, None, 4] > faces[None, :, 4] + CLEARLY
    kept: np.ndarray = faces[~((inside & ~better).any(axis=1) | (inside & better).any(axis=0))]
    return kept


def compute_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the intersection over union of (N, 4+) and (M, 4+) boxes, (N, M)."""
    shared = intersect(first, second)
    united = _area(first)[:, None] + _area(second)[None] - shared
    result: np.ndarray = shared / np.maximum(united, TINY)
    return result


def compute_cover(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the part of the smaller box that lies in the larger, of (N, 4+) and (M, 4+) boxes, (N, M)."""
    smaller = np.minimum(_area(first)[:, None], _area(second)[None])
    result: np.ndarray = intersect(first, second) / np.maximum(smaller, TINY)
    return result


def intersect(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the areas that (N, 4+) and (M, 4+) boxes share, (N, M)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, :2] + first[:, None, 2:4], second[None, :, :2] + second[None, :, 2:4])
    areas: np.ndarray = np.maximum(high - low, 0).prod(axis=2)
    return areas


def _area(boxes: np.ndarray) -> np.ndarray:
    areas: np.ndarray = boxes[:, 2] * boxes[:, 3]
    return areas
