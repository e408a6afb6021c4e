"""Find the faces of a whole image, and crop each as a model reads it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from math import isfinite
from threading import Lock

import numpy as np

from edgeemo.card import InputContract
from edgeemo.errors import UsageError
from edgeemo.faces import Detection, Detector, crop, load_detector
from edgeemo.faces.crop import find_fault, place

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
