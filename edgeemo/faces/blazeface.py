"""BlazeFace full range: its anchors and the decoding of its outputs.

V. Bazarevsky et al., "BlazeFace: Sub-millisecond Neural Face Detection on Mobile GPUs", 2019, arXiv:1907.05047; the
parameters are those of MediaPipe's face_detection_full_range.
"""

from __future__ import annotations

from math import log
from typing import Any

import numpy as np

SIDE = 192  # pixels of the canvas
STRIDE = 4  # pixels; one anchor in the centre of each cell
CELLS = SIDE // STRIDE
ROW, COLUMN = np.divmod(np.arange(CELLS * CELLS), CELLS)
ANCHORS = (np.stack([COLUMN, ROW], axis=1) + 0.5) * STRIDE  # (2304, 2): x, y in pixels


class BlazeFace:
    """The network; answers with six landmarks: eyes, tip of the nose, middle of the mouth, tragus of each ear."""

    def __init__(self, session: Any) -> None:
        """session: an ONNX Runtime session of blazeface-full.onnx."""
        self._session = session

    def find(self, canvas: np.ndarray, /, least: float) -> np.ndarray:
        """(192, 192, 3) uint8 RGB → (N, 17): x, y, width, height, score of at least `least`, six landmarks."""
        batch = canvas.transpose(2, 0, 1)[None].astype(np.float32, order="C")
        batch *= np.float32(2 / 255)
        batch -= 1
        boxes, scores = self._session.run(["boxes", "scores"], {"image": batch})
        return decode(boxes[0], scores[0, :, 0], least)


def decode(boxes: np.ndarray, logits: np.ndarray, least: float) -> np.ndarray:
    """(2304, 16) and (2304,) float32 → (N, 17) float64 in pixels of the canvas, as `find` returns them.

    A row of `boxes` is the centre of a box, its size and the landmarks, as x, y in pixels; all but the size are
    relative to the anchor.
    """
    kept = logits >= log(least / (1 - least))
    raw, anchors = boxes[kept].astype(np.float64), ANCHORS[kept]
    size = raw[:, 2:4]
    corner = raw[:, :2] + anchors - size / 2
    score = 1 / (1 + np.exp(-logits[kept].astype(np.float64)))
    landmarks = raw[:, 4:] + np.tile(anchors, 6)
    return np.concatenate([corner, size, score[:, None], landmarks], axis=1)
