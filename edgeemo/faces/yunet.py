"""YuNet: the decoding of its outputs, as OpenCV's FaceDetectorYN does it.

W. Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence Research 20, 2023.
"""

from __future__ import annotations

from typing import Any

import numpy as np

STRIDES = (8, 16, 32)
OUTPUTS = [f"{kind}_{stride}" for stride in STRIDES for kind in ("cls", "obj", "bbox", "kps")]


class YuNet:
    """The network; answers with five landmarks: eyes, tip of the nose, corners of the mouth."""

    def __init__(self, session: Any) -> None:
        """session: an ONNX Runtime session of one of the known files."""
        self._session = session

    def find(self, canvas: np.ndarray, /, least: float) -> np.ndarray:
        """(side, side, 3) uint8 RGB → (N, 15): x, y, width, height, score of at least `least`, five landmarks."""
        batch = canvas[..., ::-1].transpose(2, 0, 1)[None].astype(np.float32, order="C")  # BGR, 0..255
        found = [output[0] for output in self._session.run(OUTPUTS, {"input": batch})]
        parts = zip(STRIDES, found[::4], found[1::4], found[2::4], found[3::4], strict=True)
        return np.concatenate([decode(*part, side=len(canvas), least=least) for part in parts])


def decode(
    stride: int,
    faces: np.ndarray,
    objects: np.ndarray,
    boxes: np.ndarray,
    points: np.ndarray,
    *,
    side: int,
    least: float,
) -> np.ndarray:
    """(M, 1), (M, 1), (M, 4) and (M, 10) float32 of one stride → (N, 15) float64, as `find` returns them.

    The score is the geometric mean of the two probabilities. Offsets are in strides from the corner of a cell; sizes
    are logarithms.
    """
    scores = np.sqrt(np.clip(faces[:, 0], 0, 1) * np.clip(objects[:, 0], 0, 1))
    kept = np.flatnonzero(scores >= least)
    corner = np.stack([kept % (side // stride), kept // (side // stride)], axis=1)
    centre = boxes[kept, :2] + corner
    size = np.exp(boxes[kept, 2:])
    landmarks = points[kept] + np.tile(corner, 5)
    rows = np.concatenate([centre - size / 2, size, landmarks], axis=1).astype(np.float64) * stride
    return np.insert(rows, 4, scores[kept], axis=1)
