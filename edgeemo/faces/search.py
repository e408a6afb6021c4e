"""A detector: passes over the image, a network that answers on each, and one merge."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor
from typing import Protocol

import numpy as np
from PIL import Image

from edgeemo.errors import DataError
from edgeemo.faces.cards import DetectorCard
from edgeemo.faces.detection import Detection
from edgeemo.faces.merge import MAX_IOU, compute_iou, drop_nested, merge
from edgeemo.faces.passes import Faces, Pass, draw_canvas, find_cut, plan_passes

DOUBTFUL = 0.5  # part of the threshold; boxes with a score between the two are looked at once more, from closer
CERTAIN = 0.7  # score; boxes between the threshold and it are looked at once more, too
CONFIRMED = 0.9  # part of the threshold that the mean of their two scores must reach
MOST_DOUBTFUL = 4
MOST_UNCERTAIN = 8
ZOOM = 3.0  # sides of a doubtful box in the part that is looked at once more


def zoom(face: np.ndarray, width: int, height: int) -> Pass:
    """Return the pass around a doubtful box, inside the image."""
    side = ZOOM * max(face[2], face[3])
    x, y = face[0] + face[2] / 2, face[1] + face[3] / 2
    left, top = (max(0, floor(middle - side / 2)) for middle in (x, y))
    right, bottom = min(width, ceil(x + side / 2)), min(height, ceil(y + side / 2))
    return Pass(min(left, width - 1), min(top, height - 1), max(1, right - left), max(1, bottom - top))


def find_scores(faces: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Return the highest score of what was seen where each face is, 0 if nothing was, (N,)."""
    if not len(faces) or not len(seen):
        return np.zeros(len(faces))
    scores: np.ndarray = np.where(compute_iou(faces, seen) > MAX_IOU, seen[:, 4], 0.0).max(axis=1)
    return scores


class Network(Protocol):
    """A network that finds faces on one canvas."""

    def find(self, canvas: np.ndarray, /, least: float) -> np.ndarray:
        """(side, side, 3) uint8 RGB → candidates, (N, 5 + 2 K): x, y, width, height, score from `least`, landmarks."""
        ...


class SearchDetector:
    """Finds the faces of a whole image. Any number of threads may share one."""

    def __init__(
        self, card: DetectorCard, network: Network, *, faces: Faces | None = None, threshold: float | None = None
    ) -> None:
        """Called by `load_detector`. faces: as in `plan_passes`. threshold: lowest score; by default the card's."""
        self.card, self.faces = card, faces
        self.threshold = card.threshold if threshold is None else threshold
        self._network = network

    def __repr__(self) -> str:
        return f"<edgeemo detector {self.card.name}: {self.faces or 'few or many'} faces, score {self.threshold:g}>"

    def with_faces(self, faces: Faces | None) -> SearchDetector:
        """Return a detector with the same network that searches for `few` or `many` faces."""
        return SearchDetector(self.card, self._network, faces=faces, threshold=self.threshold)

    def detect(self, image: np.ndarray) -> list[Detection]:
        """Return the faces of an upright image, (H, W) gray or (H, W, 3) RGB uint8, the highest score first.

        Boxes with a score below CERTAIN are looked at once more from closer, at the price of a pass each: up to
        MOST_UNCERTAIN from the threshold on, which count if the mean of both scores is high enough, and up to
        MOST_DOUBTFUL below it, from DOUBTFUL of it on, which count if the second score reaches the threshold.

        Raises DataError for another shape or type.
        """
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)) or not image.size:
            raise DataError(f"expected (H, W) or (H, W, 3) uint8, got {image.shape} {image.dtype}")
        height, width = image.shape[:2]
        picture = Image.fromarray(image)
        passes = plan_passes(
            width,
            height,
            smallest_face=self.card.smallest_face,
            half=self.card.half_pass,
            faces=self.faces,
        )
        faces = self._search(picture, passes, self.threshold * DOUBTFUL)
        sure = faces[:, 4] >= self.threshold
        uncertain = np.flatnonzero(sure & (faces[:, 4] < CERTAIN))[:MOST_UNCERTAIN]
        doubtful = np.flatnonzero(~sure)[:MOST_DOUBTFUL]
        closer = [zoom(faces[row], width, height) for row in (*uncertain, *doubtful)]
        found = faces[sure]
        if closer:
            seen = self._search(picture, closer, self.threshold * DOUBTFUL)
            mean = (faces[uncertain, 4] + find_scores(faces[uncertain], seen)) / 2
            sure[uncertain] = mean >= self.threshold * CONFIRMED
            found = np.concatenate([faces[sure], seen[seen[:, 4] >= self.threshold]])
            found = merge(found, found[:, :4], np.zeros(len(found), bool))
        return self._to_detections(drop_nested(found))

    def _search(self, picture: Image.Image, passes: Sequence[Pass], least: float) -> np.ndarray:
        """Return one row per face that any of the passes shows."""
        candidates, parts, cut = [], [], []
        for one in passes:
            canvas = draw_canvas(picture, one, self.card.input_size)
            found = canvas.to_image(self._network.find(canvas.pixels, least))
            inside, across = find_cut(found, one, *picture.size)
            candidates.append(found)
            parts.append(inside)
            cut.append(across)
        return merge(np.concatenate(candidates), np.concatenate(parts), np.concatenate(cut))

    def _to_detections(self, faces: np.ndarray) -> list[Detection]:
        return [
            Detection(
                (row[0], row[1], row[2], row[3]),
                row[4],
                tuple(zip(row[5::2], row[6::2], strict=True)),
                self.card.box,
            )
            for row in faces.tolist()
        ]
