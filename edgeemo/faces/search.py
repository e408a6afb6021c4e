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
CERTAIN = 0.7  # score; boxes below it that only a tile shows are looked at once more, too
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

    def detect(self, image: np.ndarray) -> list[Detection]:
        """Return the faces of an upright image, (H, W) gray or (H, W, 3) RGB uint8, the highest score first.

        Up to MOST_DOUBTFUL boxes with a score of less than the threshold, but DOUBTFUL of it, are looked at once more
        from closer, at the price of a pass each, and so are up to MOST_UNCERTAIN boxes with a score below CERTAIN that
        no pass of the whole image shows. They count if the score then reaches the threshold.

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
        faces, whole = self._search(picture, passes, self.threshold * DOUBTFUL)
        sure = faces[:, 4] >= self.threshold
        uncertain = np.flatnonzero(sure & ~whole & (faces[:, 4] < CERTAIN))[:MOST_UNCERTAIN]
        sure[uncertain] = False
        doubtful = np.flatnonzero(faces[:, 4] < self.threshold)[:MOST_DOUBTFUL]
        closer = [zoom(faces[row], width, height) for row in (*uncertain, *doubtful)]
        found = faces[sure]
        if closer:
            found = np.concatenate([found, self._search(picture, closer, self.threshold)[0]])
            found = merge(found, found[:, :4], np.zeros(len(found), bool))
        return self._to_detections(drop_nested(found))

    def _search(self, picture: Image.Image, passes: Sequence[Pass], least: float) -> tuple[np.ndarray, np.ndarray]:
        """Return one row per face that any of the passes shows, and whether one of the whole image shows it, (N,)."""
        candidates, parts, cut, whole = [], [], [], []
        for one in passes:
            canvas = draw_canvas(picture, one, self.card.input_size)
            found = canvas.to_image(self._network.find(canvas.pixels, least))
            inside, across = find_cut(found, one, *picture.size)
            candidates.append(found)
            parts.append(inside)
            cut.append(across)
            if (one.width, one.height) == picture.size:
                whole.append(found[found[:, 4] >= self.threshold])
        faces = merge(np.concatenate(candidates), np.concatenate(parts), np.concatenate(cut))
        shown = np.concatenate(whole) if whole else faces[:0]
        overlap = compute_iou(faces, shown) if len(faces) and len(shown) else np.zeros((len(faces), 1))
        return faces, overlap.max(axis=1) > MAX_IOU

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
