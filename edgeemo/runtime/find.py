"""Find the faces of a whole image, and crop each as a model reads it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from threading import Lock

import numpy as np

from edgeemo.card import InputContract
from edgeemo.errors import UsageError
from edgeemo.faces import Detection, Detector, crop, find_flags, load_detector
from edgeemo.faces.crop import AUGMENTED, find_fault, place
from edgeemo.runtime.prediction import Face, Prediction

log = logging.getLogger(__name__)


class PackagedDetector:
    """The packaged detector, opened at the first call. Any number of threads may share one."""

    def __init__(self, threads: int) -> None:
        """threads: CPU threads of the detector."""
        self._threads, self._closed = threads, False
        self._detector: Detector | None = None
        self._lock = Lock()

    def detect(self, image: np.ndarray) -> list[Detection]:
        """Return the faces of an upright image, as SearchDetector does; raise UsageError after `close`."""
        with self._lock:
            if self._closed:
                raise UsageError("the model is closed; open it again with edgeemo.load")
            if self._detector is None:
                self._detector = load_detector(threads=self._threads)
            detector = self._detector
        return detector.detect(image)

    def close(self) -> None:
        """Free the detector's memory; may be called twice."""
        with self._lock:
            self._detector, self._closed = None, True


@dataclass(frozen=True)
class LocatedFaces:
    """The faces of an image before they are classified.

    crops: (N * views, size, size[, 3]) uint8, face by face. left_out: why further faces that were found have none.
    """

    width: int
    height: int
    detections: list[Detection]
    crops: np.ndarray
    views: int
    left_out: list[str]

    def make_faces(self, predictions: Iterable[Prediction], contract: InputContract) -> list[Face]:
        """Return the faces with their predictions, one per detection."""
        return [
            Face(
                one.box,
                one.score,
                one.landmarks,
                prediction,
                find_flags(one, self.width, self.height, contract),
                one.framing,
            )
            for one, prediction in zip(self.detections, predictions, strict=True)
        ]


def locate_faces(
    pixels: np.ndarray, detector: Detector, contract: InputContract, *, augment: bool = True
) -> LocatedFaces:
    """Find the faces of an upright image, (H, W) gray or (H, W, 3) RGB uint8, and crop them as the contract says.

    augment: crop each face in three sizes.

    Raises UsageError for a detector that returns something else than Detections.
    """
    found = check_detections(detector.detect(pixels), detector)
    scales = AUGMENTED if augment else (1.0,)
    kept, crops, left_out = crop_faces(pixels, found, contract, scales)
    height, width = pixels.shape[:2]
    return LocatedFaces(width, height, kept, crops, len(scales), left_out)


def check_detections(detections: object, detector: object) -> list[Detection]:
    """Return what a detector found, the highest score first.

    Raises UsageError if it is no iterable of Detections with finite numbers and boxes that have a size.
    """
    expected = "expected an iterable of edgeemo.faces.Detection with finite numbers, and boxes of more than 0 px"
    if not isinstance(detections, Iterable):
        raise UsageError(f"{detector!r} returned {type(detections).__name__}; {expected}")
    found = []
    for one in detections:
        if not isinstance(one, Detection):
            raise UsageError(f"{detector!r} returned a {type(one).__name__}; {expected}")
        numbers = (*one.box, one.score, *(value for point in one.landmarks for value in point))
        if not all(map(isfinite, numbers)) or min(one.box[2:]) <= 0:
            raise UsageError(f"{detector!r} returned {one}; {expected}")
        found.append(one)
    return sorted(found, key=lambda one: -one.score)


def crop_faces(
    image: np.ndarray, detections: Iterable[Detection], contract: InputContract, scales: Sequence[float] = (1.0,)
) -> tuple[list[Detection], np.ndarray, list[str]]:
    """Return the faces that can be cropped, their crops, and why the others cannot.

    The crops are (N * len(scales), size, size[, 3]) uint8, face by face. Left out are faces whose square is too small
    to show an expression, too large, or outside the image.

    Raises DataError for a face without eyes of a detector whose boxes are not known.
    """
    height, width = image.shape[:2]
    kept: list[Detection] = []
    faults: list[str] = []
    for one in detections:
        fault = find_fault(place(one, contract), width, height)
        if fault:
            faults.append(fault)
        else:
            kept.append(one)
    crops = [crop(image, one, contract, scale=scale) for one in kept for scale in scales]
    return kept, np.stack(crops) if crops else np.zeros((0, *contract.pixels), np.uint8), faults
