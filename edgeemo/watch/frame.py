"""What travels through `watch`: a frame of a source, and what was found in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeemo.faces.detection import Box, Framing, Point
from edgeemo.runtime.prediction import Prediction


@dataclass(frozen=True)
class Frame:
    """An upright image of a source.

    pixels: (H, W, 3) uint8 RGB. number: of the frame in its source, from 0; dropped frames count. captured: when it was
    read, in seconds of time.monotonic. time: the same in seconds since 1970. position: seconds since the start of a
    file or folder, None for a live source.
    """

    pixels: np.ndarray
    number: int
    captured: float
    time: float
    position: float | None = None

    @property
    def clock(self) -> float:
        """Seconds on the source's own clock, for durations between frames of one source."""
        return self.captured if self.position is None else self.position


@dataclass(frozen=True)
class TrackedFace:
    """A face in a frame, followed over time.

    track: number of the face, from 1, never used again while the program runs. box, score, landmarks, flags, framing:
    as of `edgeemo.Face`; between detections they are extrapolated. prediction: of this frame alone. smoothed: over
    time, its label changes rarely. seconds: since the track's first frame. detected: whether the detector ran on this
    frame and found it.
    """

    track: int
    box: Box
    score: float
    landmarks: tuple[Point, ...]
    prediction: Prediction
    smoothed: Prediction
    seconds: float
    detected: bool
    flags: tuple[str, ...] = ()
    framing: Framing | None = None


@dataclass(frozen=True)
class WatchedFrame:
    """What was found in a frame.

    faces: the oldest track first. ended: tracks that were given up in this frame. latency: seconds from capture to this
    answer. dropped: frames of the source that were never answered, so far. unclassified: boxes of further faces, such
    as those that are not confirmed yet or too small, which a blurred video hides as well.
    """

    frame: Frame
    faces: tuple[TrackedFace, ...]
    ended: tuple[int, ...] = ()
    latency: float = 0.0
    dropped: int = 0
    unclassified: tuple[Box, ...] = ()
