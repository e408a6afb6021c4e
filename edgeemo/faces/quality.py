"""Flags on faces whose crop shows the model less than it needs, whatever probability it then gives.

benchmarks/face_quality.py measures accuracy on such faces of FER+ valid with the packaged models, and writes
benchmarks/results/faces/quality.json; docs/runtime.md has the tables. Small and clipped faces are flagged from where on
the predictions that are not unsure miss the accuracy that the cards' thresholds were fitted to, 90 %; tilted ones, from
where on accuracy falls steeply although the crop is turned.
"""

from __future__ import annotations

from math import atan2, cos, degrees, radians, sin

import numpy as np

from edgeemo.card import InputContract
from edgeemo.faces.crop import Square, place
from edgeemo.faces.detection import Detection, Point, compute_tilt

SMALL = 2 / 3  # of the side of the input, or of MEASURED_SIDE if that is less: 32 of 48 px
MEASURED_SIDE = 48  # pixels; what a model with a larger input needs of a face was not measured
MAX_TILT = 40.0  # degrees of the line between the eyes, beyond which turning the crop no longer makes up for it
# Degrees between the axes of eyes and mouth; beyond, landmarks are misplaced, as on faces that lie on their side.
MAX_SKEW = 10.0
CLIPPED = 0.25  # share of the square outside the image
CLIPPED_BELOW = 0.3  # share of its lower half, with the mouth, outside the image; 15 % of the square below the image
MOUTH = {5: (3, 4), 6: (3,)}  # by number of landmarks: both corners in YuNet and its kind, the centre in BlazeFace
GRID = 32  # samples a side, to count how much of a square lies outside


def find_flags(detection: Detection, width: int, height: int, contract: InputContract) -> tuple[str, ...]:
    """Return what is wrong with a face in an image of width x height px, in this order, or ().

    small: the square around it has so few pixels that its expression is lost. tilted: it is tilted so far that it
    cannot be turned upright reliably, or its landmarks contradict each other; upside down, detectors often place them
    as if the face were upright, which cannot be seen from them. clipped: too much of the square lies outside the image.
    Faces without landmarks are never tilted.

    Raises DataError as `place` does.
    """
    square = place(detection, contract)
    flags = {
        "small": square.side < SMALL * min(contract.size, MEASURED_SIDE),
        "tilted": _is_tilted(detection),
        "clipped": _is_clipped(square, width, height),
    }
    return tuple(name for name, holds in flags.items() if holds)


def measure_outside(square: Square, width: int, height: int) -> tuple[float, float]:
    """Return the share of a square outside an image of width x height px, and that of the lower half of the face's."""
    reach, (x, y) = square.side / 2**0.5, square.centre
    if reach <= x <= width - reach and reach <= y <= height - reach:
        return 0.0, 0.0
    steps = ((np.arange(GRID) + 0.5) / GRID - 0.5) * square.side
    across, down = np.meshgrid(steps, steps)
    cosine, sine = cos(radians(square.degrees)), sin(radians(square.degrees))
    columns, rows = x + across * cosine - down * sine, y + across * sine + down * cosine
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    return float(1 - inside.mean()), float(1 - inside[GRID // 2 :].mean())


def measure_tilt(detection: Detection) -> tuple[float, float]:
    """Return the tilt of the eyes in degrees, -180..180, and its difference from that of eyes and mouth, 0..180.

    The difference is 0 for detections without a known mouth, both are 0 without landmarks.
    """
    if detection.eyes is None:
        return 0.0, 0.0
    right, left = detection.eyes
    tilt = compute_tilt(right, left)
    if len(detection.landmarks) not in MOUTH:
        return tilt, 0.0
    mouth = _find_middle([detection.landmarks[number] for number in MOUTH[len(detection.landmarks)]])
    eyes = _find_middle([right, left])
    axis = degrees(atan2(eyes[0] - mouth[0], mouth[1] - eyes[1]))  # of a face whose mouth lies straight below: 0
    return tilt, abs((axis - tilt + 180) % 360 - 180)


def _is_clipped(square: Square, width: int, height: int) -> bool:
    whole, lower = measure_outside(square, width, height)
    return whole > CLIPPED or lower > CLIPPED_BELOW


def _is_tilted(detection: Detection) -> bool:
    tilt, skew = measure_tilt(detection)
    return abs(tilt) > MAX_TILT or skew > MAX_SKEW


def _find_middle(points: list[Point]) -> Point:
    return sum(x for x, _ in points) / len(points), sum(y for _, y in points) / len(points)
