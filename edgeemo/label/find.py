"""The faces of photos: where they are and what the model predicts; pixels are read again when a face is shown."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np

from edgeemo import images
from edgeemo.card import InputContract
from edgeemo.errors import DataError
from edgeemo.faces.crop import Square, extract, place
from edgeemo.faces.detection import Box, Detector
from edgeemo.label.photos import Photo
from edgeemo.names import count
from edgeemo.progress import track
from edgeemo.runtime import Model, Prediction

log = logging.getLogger(__name__)
LISTED = 10  # photos without a readable image that are named in the log
DECIMALS = 2  # of a box in pixels
FindIn = Callable[[np.ndarray], list[tuple[Box, Square | None, Prediction]]]


@dataclass(frozen=True)
class Candidate:
    """A face to label, in pixels of its upright photo.

    box: x, y, width, height. square: what is cut out; None for a ready crop, of which the central square is taken.
    probabilities: of each label, most probable first. checksum: of the photo's pixels, CRC-32.
    """

    number: int  # in the list of all faces
    photo: Photo
    box: Box
    square: Square | None
    probabilities: tuple[tuple[str, float], ...]
    checksum: int

    @property
    def image(self) -> str:
        """The name of its photo."""
        return self.photo.name

    @property
    def person(self) -> str:
        """Whose face it is."""
        return self.photo.person

    @property
    def margin(self) -> float:
        """The difference between the two highest probabilities, 0..1."""
        return self.probabilities[0][1] - self.probabilities[1][1]


def find_candidates(photos: Sequence[Photo], model: Model, detector: Detector | None) -> list[Candidate]:
    """Return the faces of all photos; those that cannot be read are logged.

    detector: None for ready crops. Probabilities are those of the crop that is written, without test-time augmentation.

    Raises DataError if no photo can be read.
    """
    find_in = _make_finder(model, detector)
    found: list[Candidate] = []
    failed: list[str] = []
    for photo in track(photos, "finding faces", total=len(photos), unit="photos"):
        try:
            pixels = photo.source.read()
            checksum = compute_checksum(pixels)
            for box, square, prediction in find_in(pixels):
                ranked = tuple(prediction.probabilities.items())
                found.append(Candidate(len(found), photo, box, square, ranked, checksum))
        except DataError as error:
            failed.append(str(error))  # without its traceback, which holds the image
    if len(failed) == len(photos):
        others = f" (and {count(len(failed) - 1, 'other')} cannot be read)" if len(failed) > 1 else ""
        raise DataError(f"{failed[0]}{others}")
    _log_failed(failed)
    return found


def cut(one: Candidate, contract: InputContract) -> np.ndarray:
    """Return the crop of a face as `edgeemo data crop` writes it, (side, side[, 3]) uint8, before it is resized.

    Raises DataError if the photo is gone, or is not what it was when its faces were found.
    """
    pixels = one.photo.source.read()
    if compute_checksum(pixels) != one.checksum:
        raise DataError(f"{one.photo.source.name} has changed since its faces were found")
    square = images.central_square(pixels) if one.square is None else extract(pixels, one.square, contract.size)
    return np.array(square)  # a copy, because a view would hold the photo


def compute_checksum(pixels: np.ndarray) -> int:
    """Return the CRC-32 of the pixels and shape of an image."""
    return crc32(np.ascontiguousarray(pixels).data, crc32(str(pixels.shape).encode()))


def _make_finder(model: Model, detector: Detector | None) -> FindIn:
    if detector is None:
        return lambda pixels: [(_round(_find_central(pixels)), None, model.predict(pixels))]

    def find(pixels: np.ndarray) -> list[tuple[Box, Square | None, Prediction]]:
        found = model.find_faces(pixels, color="rgb", detector=detector, augment=False)
        return [(_round(face.box), place(face, model.card.input), face.prediction) for face in found.faces]

    return find


def _find_central(pixels: np.ndarray) -> Box:
    height, width = pixels.shape[:2]
    side = min(height, width)
    return (width - side) // 2, (height - side) // 2, side, side


def _round(box: Box) -> Box:
    x, y, width, height = (round(float(value), DECIMALS) for value in box)
    return x, y, width, height


def _log_failed(failed: Sequence[str]) -> None:
    for reason in failed[:LISTED]:
        log.warning("left out: %s", reason)
    if len(failed) > LISTED:
        log.warning("left out: %s more that cannot be read", count(len(failed) - LISTED, "photo"))
