"""What a face detector answers."""

from __future__ import annotations

from dataclasses import dataclass
from math import atan2, degrees
from typing import Annotated, Protocol

import numpy as np

from edgeemo.card.keys import Key

Box = tuple[float, float, float, float]
Point = tuple[float, float]


def compute_tilt(right: Point, left: Point) -> float:
    """Return the tilt of the person's eyes in degrees, -180..180; positive: the left one lies lower in the image."""
    return degrees(atan2(left[1] - right[1], left[0] - right[0]))


@dataclass(frozen=True)
class Framing:
    """How a square lies about the eyes of an upright, frontal face."""

    side_eye_distances: Annotated[float, Key("side of the square", unit="distances between the eyes", above=0)]
    below_eyes: Annotated[
        float, Key("its centre lies this far below the midpoint of the eyes", unit="distances between the eyes")
    ]


class Located(Protocol):
    """What a crop needs to know of a face: a Detection, or a Face of `edgeemo.Model.faces`."""

    @property
    def box(self) -> Box:
        """x, y, width, height in pixels."""

    @property
    def landmarks(self) -> tuple[Point, ...]:
        """The eyes first; may be empty."""

    @property
    def framing(self) -> Framing | None:
        """How the boxes lie about the eyes."""


@dataclass(frozen=True)
class Detection:
    """One face, in pixels of the upright image; (0, 0) is the top left corner of its top left pixel.

    box: x, y, width, height, x and y of the top left corner; it may extend over the edges of the image. score: 0..1,
    which is no probability. landmarks: (x, y) of each point that the detector's card lists, the eyes first: the
    person's right eye (on the left of the image), then the left; empty if the detector has none. framing: how the
    detector's boxes lie about the eyes, for faces without landmarks; None: not known.
    """

    box: Box
    score: float
    landmarks: tuple[Point, ...] = ()
    framing: Framing | None = None

    @property
    def eyes(self) -> tuple[Point, Point] | None:
        """The person's right and left eye; None without landmarks."""
        return (self.landmarks[0], self.landmarks[1]) if len(self.landmarks) >= 2 else None


class Detector(Protocol):
    """Anything that finds faces."""

    def detect(self, image: np.ndarray, /) -> list[Detection]:
        """Return the faces of an upright image, (H, W) gray or (H, W, 3) RGB uint8, the highest score first."""
        ...
