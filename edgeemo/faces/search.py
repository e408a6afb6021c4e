"""A detector: passes over the image, a network that answers on each, and one merge."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from PIL import Image

from edgeemo.errors import DataError
from edgeemo.faces.cards import DetectorCard
from edgeemo.faces.detection import Detection
from edgeemo.faces.merge import merge
from edgeemo.faces.passes import Faces, draw_canvas, find_cut, plan_passes


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
        candidates, parts, cut = [], [], []
        for one in passes:
            canvas = draw_canvas(picture, one, self.card.input_size)
            found = canvas.to_image(self._network.find(canvas.pixels, self.threshold))
            inside, across = find_cut(found, one, width, height)
            candidates.append(found)
            parts.append(inside)
            cut.append(across)
        return self._to_detections(merge(np.concatenate(candidates), np.concatenate(parts), np.concatenate(cut)))

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
