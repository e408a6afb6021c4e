"""The crop around a detected face: a square placed by the eyes, turned upright, at the size of a model's input."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, cos, floor, hypot, isfinite, radians, sin

import numpy as np
from PIL import Image

from edgeemo import images
from edgeemo.card import InputContract
from edgeemo.errors import DataError
from edgeemo.faces.detection import Located, Point, compute_tilt

AUGMENTED = (0.9, 1.0, 1.2)  # sides of the crops that test-time augmentation averages, in sides of the contract's
MIN_EYE_SHARE = 0.6  # eyes closer together than this share of what the box implies belong to a head turned sideways


@dataclass(frozen=True)
class Square:
    """Where a crop lies: centre and side in pixels of the image, and the tilt that turning removes, in degrees.

    A tilt of 20 means that the person's left eye lies lower in the image than the right one, by 20 degrees.
    """

    centre: Point
    side: float
    degrees: float = 0.0


def crop(image: np.ndarray, face: Located, contract: InputContract, *, scale: float = 1.0) -> np.ndarray:
    """Return the face as the contract defines it: upright (H, W[, 3]) uint8 image → (size, size[, 3]) uint8.

    face: a Detection, or a Face of `edgeemo.Model.faces` in the same image.

    scale: of the square's side, for test-time augmentation; 1 is the contract's.

    A square that is not turned is cut out in whole pixels and resized by `images.resize`, as a ready crop is. A turned
    one is first sampled upright, `turn`. Outside the image the nearest pixel of its edge is repeated.

    Raises DataError for an image that `images.to_pixels` does not accept, a face without eyes of a detector whose boxes
    are not known, or a square outside the image, below 16 px or above 50 megapixels.
    """
    square = place(face, contract)
    scaled = square
    if scale != 1:  # what can be cut at scale 1 can be cut at every scale
        scaled = replace(square, side=min(max(square.side * scale, images.MIN_SIDE), images.MAX_CROP))
    return images.resize(extract(image, scaled, contract.size), contract)


def extract(image: np.ndarray, square: Square, size: int) -> np.ndarray:
    """Return a square upright, ready to be resized to `size` px: (H, W[, 3]) → (side, side[, 3]) uint8.

    One that is not turned is cut out in whole pixels, the same for any size; a turned one is sampled, `turn`.
    """
    return turn(image, square, size) if square.degrees else _cut(image, square)


def place(face: Located, contract: InputContract) -> Square:
    """Return the square around a face; tilts up to the contract's `turn_from_degrees` are left as they are.

    Its side and centre are measured in distances between the eyes, which a head turned sideways shortens: below
    MIN_EYE_SHARE of the distance that the box implies, that share of it is taken. Without landmarks, eyes are assumed
    where the detector's boxes have them on average, and no tilt.
    """
    wanted = contract.face_crop
    (right, left), implied = _find_eyes(face)
    distance = max(hypot(left[0] - right[0], left[1] - right[1]), MIN_EYE_SHARE * implied)
    if not isfinite(distance) or distance <= 0:
        raise DataError(f"expected two eyes and a box with a size, got {face}")
    tilt = compute_tilt(right, left)
    below = wanted.below_eyes * distance
    turned = tilt if abs(tilt) > wanted.turn_from_degrees else 0.0
    down = (-sin(radians(tilt)), cos(radians(tilt)))  # of the face, in the image
    centre = tuple((right[axis] + left[axis]) / 2 + below * down[axis] for axis in (0, 1))
    return Square((centre[0], centre[1]), wanted.side_eye_distances * distance, turned)


def is_sideways(face: Located) -> bool:
    """Return whether the eyes are so close together, for the size of the box, that `place` takes MIN_EYE_SHARE.

    The head is turned far sideways, or an eye was not found where it is. False for a face without landmarks.
    """
    if len(face.landmarks) < 2:
        return False
    (right, left), implied = _find_eyes(face)
    return hypot(left[0] - right[0], left[1] - right[1]) < MIN_EYE_SHARE * implied


def turn(image: np.ndarray, square: Square, size: int) -> np.ndarray:
    """Sample a square upright, ready to be resized to `size` px: (H, W[, 3]) → (side, side[, 3]) uint8.

    side is the multiple of `size` that is not below the square's, so that bilinear samples lie at most a pixel of the
    image apart, and `resize` averages them without aliasing. Sample (x, y) is taken at the centre of the square plus
    (x + 0.5 - side / 2, y + 0.5 - side / 2) * square.side / side, turned by the tilt, and rounded to 8 bits.
    """
    images.check_image(image)
    _check(image, square)
    side = size * max(1, ceil(square.side / size))
    reach = ceil(square.side * 2**0.5 / 2) + 2  # of the turned square and its interpolation, from the centre
    left, top = (floor(middle) - reach for middle in square.centre)
    around = images.take_square(image, left, top, 2 * reach + 1)
    step = square.side / side
    across, down = step * cos(radians(square.degrees)), step * sin(radians(square.degrees))
    x, y = square.centre[0] - left, square.centre[1] - top
    half = side / 2
    # Pillow adds half a pixel to each coordinate, samples, and takes half a pixel as the centre of pixel 0.
    matrix = (across, -down, x - half * (across - down), down, across, y - half * (down + across))
    bands = around[..., None] if around.ndim == 2 else around
    sampled = [_sample(bands[..., band], matrix, side) for band in range(bands.shape[2])]
    return sampled[0] if around.ndim == 2 else np.stack(sampled, axis=2)


def _sample(band: np.ndarray, matrix: tuple[float, ...], side: int) -> np.ndarray:
    """Sample one channel with an affine matrix, in float, since Pillow truncates 8-bit values instead of rounding."""
    values = Image.fromarray(band.astype(np.float32)).transform(
        (side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
    )
    rounded: np.ndarray = np.floor(np.asarray(values) + np.float32(0.5)).astype(np.uint8)
    return rounded


def _find_eyes(face: Located) -> tuple[tuple[Point, Point], float]:
    """Return the eyes, and the distance between them that the box implies, 0 if its detector is not known."""
    x, y, width, height = face.box
    framing = face.framing
    implied = max(width, height) / framing.side_eye_distances if framing else 0.0
    if len(face.landmarks) >= 2:
        return (face.landmarks[0], face.landmarks[1]), implied
    if framing is None:
        raise DataError("a detection needs eyes, or a detector whose boxes are known: landmarks or framing")
    middle, line = x + width / 2, y + height / 2 - framing.below_eyes * implied
    return ((middle - implied / 2, line), (middle + implied / 2, line)), implied


def _cut(image: np.ndarray, square: Square) -> np.ndarray:
    images.check_image(image)
    _check(image, square)
    side = floor(square.side + 0.5)
    left, top = (floor(middle - side / 2 + 0.5) for middle in square.centre)
    return images.take_square(image, left, top, side)


def _check(image: np.ndarray, square: Square) -> None:
    height, width = image.shape[:2]
    if fault := find_fault(square, width, height):
        raise DataError(fault)


def find_fault(square: Square, width: int, height: int) -> str:
    """Return why a square cannot be cut out of an image of width x height px, or an empty text if it can."""
    if not images.MIN_SIDE <= floor(square.side + 0.5) <= images.MAX_CROP:
        return f"the face gives a square of {square.side:.0f} px; expected {images.MIN_SIDE} to {images.MAX_CROP}"
    reach = square.side / 2
    x, y = square.centre
    if not (-reach < x < width + reach and -reach < y < height + reach):
        return f"the face at {x:.0f}, {y:.0f} lies outside the image of {width}x{height} px"
    return ""
