"""Where faces are between and after detections: a Kalman filter with constant velocity, for all tracks at once.

As in SORT (Bewley et al. 2016), boxes move in a straight line until a detection says otherwise. Unlike there, time is
in seconds, as frames are dropped, and lengths are in sizes of the face, so that near and far faces behave alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Of the centre of a box in sizes of the face, and of the logarithm of its size; chosen with benchmarks/watch_tracks.py.
MEASURED = np.array([0.04, 0.06]) ** 2  # variance of a detector's boxes
DRIVEN = np.array([3.0, 0.01])  # variance that a second adds to the speed: how abruptly faces move
STARTED = np.array([1.5, 0.3]) ** 2  # variance of the speed of a new face
CALM_SECONDS = 3.0  # time constant with which a face comes to rest, unless detections say otherwise
CENTRE, SIZE = slice(0, 2), slice(2, 4)


@dataclass
class Motion:
    """State of N boxes.

    place: (N, 4), centre x and y in pixels, natural logarithms of width and height. speed: (N, 4), the same per second.
    variance: (N, 2, 3), of place, of place with speed, and of speed, for the centre (in sizes of the face) and the
    size.
    """

    place: np.ndarray
    speed: np.ndarray
    variance: np.ndarray

    @classmethod
    def start(cls, boxes: np.ndarray) -> Motion:
        """Return boxes at rest, (N, 4): x, y, width, height."""
        place = to_place(boxes)
        first = np.stack([MEASURED, np.zeros(2), STARTED], axis=1)
        return cls(place, np.zeros_like(place), np.repeat(first[None], len(place), axis=0))

    def select(self, rows: np.ndarray) -> Motion:
        """Return some of the boxes."""
        return Motion(self.place[rows], self.speed[rows], self.variance[rows])

    def join(self, other: Motion) -> Motion:
        """Return these boxes and others."""
        both = zip((self.place, self.speed, self.variance), (other.place, other.speed, other.variance), strict=True)
        return Motion(*(np.concatenate(pair) for pair in both))

    def move(self, seconds: float) -> None:
        """Predict the boxes so many seconds later."""
        kept = np.exp(-seconds / CALM_SECONDS)
        reach = CALM_SECONDS * (1 - kept)  # how far a speed of 1 carries
        self.place = self.place + reach * self.speed
        self.speed = kept * self.speed
        place, both, speed = np.moveaxis(self.variance, 2, 0)
        moved = (
            place + 2 * reach * both + reach**2 * speed + DRIVEN * seconds**3 / 3,
            kept * (both + reach * speed) + DRIVEN * seconds**2 / 2,
            kept**2 * speed + DRIVEN * seconds,
        )
        self.variance = np.stack(moved, axis=2)

    def restart(self, rows: np.ndarray, boxes: np.ndarray) -> None:
        """Put some rows, (M,), to rest in other boxes, (M, 4)."""
        new = Motion.start(boxes)
        self.place[rows], self.speed[rows], self.variance[rows] = new.place, new.speed, new.variance

    def correct(self, rows: np.ndarray, boxes: np.ndarray) -> None:
        """Take in what was detected: the boxes, (M, 4), of some rows, (M,)."""
        place, both, speed = np.moveaxis(self.variance[rows], 2, 0)  # (M, 2) each
        total = place + MEASURED
        to_place_gain, to_speed_gain = place / total, both / total
        error = to_place(boxes) - self.place[rows]
        self.place[rows] += np.repeat(to_place_gain, 2, axis=1) * error
        self.speed[rows] += np.repeat(to_speed_gain, 2, axis=1) * error
        corrected = ((1 - to_place_gain) * place, (1 - to_place_gain) * both, speed - to_speed_gain * both)
        self.variance[rows] = np.stack(corrected, axis=2)

    def compute_distances(self, boxes: np.ndarray) -> np.ndarray:
        """Return squared Mahalanobis distances of these N boxes from M detected ones, (M, 4), as (N, M)."""
        error = to_place(boxes)[None] - self.place[:, None]
        error[..., CENTRE] /= self.sizes[:, None, None]
        total = np.repeat(self.variance[:, :, 0] + MEASURED, 2, axis=1)
        distances: np.ndarray = (error**2 / total[:, None]).sum(axis=2)
        return distances

    @property
    def vagueness(self) -> np.ndarray:
        """(N,): logarithm of the determinant of the covariance of where a detection is expected."""
        vagueness: np.ndarray = 2 * np.log(self.variance[:, :, 0] + MEASURED).sum(axis=1)
        return vagueness

    @property
    def sizes(self) -> np.ndarray:
        """(N,): side in pixels of a square of the same area."""
        sizes: np.ndarray = np.exp(self.place[:, SIZE].mean(axis=1))
        return sizes

    @property
    def boxes(self) -> np.ndarray:
        """(N, 4): x, y, width, height in pixels."""
        lengths = np.exp(self.place[:, SIZE])
        return np.concatenate([self.place[:, CENTRE] - lengths / 2, lengths], axis=1)


def to_place(boxes: np.ndarray) -> np.ndarray:
    """Return (N, 4) centres and logarithms of width and height of boxes x, y, width, height."""
    return np.concatenate([boxes[:, :2] + boxes[:, 2:] / 2, np.log(boxes[:, 2:])], axis=1)
