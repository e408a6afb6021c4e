"""Find the faces of a whole image, and crop each as a model reads it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from math import floor
from threading import Lock

import numpy as np

from edgeemo import images
from edgeemo.card import InputContract
from edgeemo.errors import UsageError
from edgeemo.faces import Detection, Detector, crop, load_detector
from edgeemo.faces.crop import place
from edgeemo.names import count

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


def drop_small(
    detections: Iterable[Detection], contract: InputContract, scales: Sequence[float] = (1.0,)
) -> list[Detection]:
    """Return the faces whose smallest square has at least images.MIN_SIDE pixels a side; others show no expression."""
    smallest = min(scales)
    return [one for one in detections if floor(place(one, contract).side * smallest + 0.5) >= images.MIN_SIDE]


def crop_faces(
    image: np.ndarray, detections: Iterable[Detection], contract: InputContract, scales: Sequence[float] = (1.0,)
) -> tuple[list[Detection], np.ndarray]:
    """Return the faces that are large enough, and their crops: (N * len(scales), size, size[, 3]) uint8, face by face.

    The others, as `drop_small` says, are left out, and logged.

    Raises DataError as `faces.crop` does.
    """
    found = list(detections)
    kept = drop_small(found, contract, scales)
    if small := len(found) - len(kept):
        log.warning("%d of %s left out: smaller than %d px", small, count(len(found), "face"), images.MIN_SIDE)
    crops = [crop(image, one, contract, scale=scale) for one in kept for scale in scales]
    return kept, np.stack(crops) if crops else np.zeros((0, *contract.pixels), np.uint8)
