"""Whatever a caller passes as an image becomes the pixels of an upright image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL.Image import Image as PillowImage

from edgeemo import images
from edgeemo.errors import DataError, UsageError, known

COLORS = ("rgb", "bgr")  # orders of the channels of a colour array
Image = np.ndarray | str | images.Source


def load_image(image: Image, color: str | None) -> np.ndarray:
    """Return (H, W) or (H, W, 3) RGB uint8 from an array, a path, bytes, a file object or a Pillow image.

    color: order of the channels of an (H, W, 3) or (H, W, 4) array, `rgb` or `bgr`, alpha last; files and Pillow images
    state their own. None: not known.

    Raises DataError for an image that cannot be read, UsageError for another order, or a colour array without one.
    """
    if color is not None and color not in COLORS:
        raise known("color", str(color), COLORS)
    if isinstance(image, np.ndarray):
        return images.from_array(_to_rgb(image, color))
    if isinstance(image, str):
        return images.read(Path(image))
    if isinstance(image, (Path, bytes, bytearray, memoryview, PillowImage)) or hasattr(image, "read"):
        return images.read(image)
    expected = "numpy array, path, bytes, file object or Pillow image"
    raise DataError(f"expected an image as {expected}, got {type(image).__name__}")


def _to_rgb(image: np.ndarray, color: str | None) -> np.ndarray:
    if image.ndim != 3 or image.shape[2] not in (3, 4):
        return image
    if color is None:
        raise UsageError(
            f'an array of shape {image.shape} does not state the order of its channels: pass color="rgb", or '
            'color="bgr" for a frame of OpenCV'
        )
    if color == "rgb":
        return image
    return image[..., ::-1] if image.shape[2] == 3 else image[..., [2, 1, 0, 3]]
