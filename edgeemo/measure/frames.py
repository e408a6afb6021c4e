"""A process pinned to its core that takes frames to the emotions of the faces in them; started by latency.py.

    python -m edgeemo.measure.frames '{"models": [[FILE, BACKEND], ...], "detector": {...}, "frames": [[640, 480, 1]],
                                       "cores": [...], "runs": 200, "seconds": 1.0}'

Frames are drawn from packaged synthetic faces, so that they show nobody and are the same on every machine. Detector and
models run in the same process as on a device: what one leaves in the caches is what the next one finds.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from math import isqrt
from time import perf_counter_ns, thread_time_ns
from typing import Any

import numpy as np
from PIL import Image

from edgeemo.errors import UsageError
from edgeemo.faces import Detection, Detector, load_detector
from edgeemo.measure.turns import WARM_UP_RUNS, alternate, iterate_slice, pin_to_cores
from edgeemo.runtime import Model, open_model
from edgeemo.runtime.golden import list_faces

CLEAR = (0, 7)  # golden faces that the packaged detector finds in every frame of latency.FRAMES, and nothing else
FACE_SHARE = 0.22  # side of a drawn face, of the frame's height
DARKEST, BRIGHTEST = 96, 128  # of the noise behind the faces
PARTS = ("detect", "crop", "classify", "total")


def draw_frame(width: int, height: int, faces: int) -> np.ndarray:
    """Return a frame of noise with a square number of synthetic faces in a grid, (height, width, 3) uint8.

    Raises UsageError if `faces` is no square number, or the frame is too small for them.
    """
    rows = isqrt(max(faces, 0))
    side = round(FACE_SHARE * height)
    if rows * rows != faces or rows * side > min(width, height):
        raise UsageError(f"{faces} faces do not fit into a grid on a frame of {width}x{height} px; expected 1, 4 or 16")
    frame = np.random.default_rng(0).integers(DARKEST, BRIGHTEST, (height, width, 3), dtype=np.uint8)
    drawn = [_enlarge(list_faces()[number], side) for number in CLEAR]
    for number in range(faces):
        row, column = divmod(number, rows)
        left, top = (round((k + 0.5) * length / rows - side / 2) for k, length in ((column, width), (row, height)))
        frame[top : top + side, left : left + side] = drawn[number % len(drawn)][..., None]
    return frame


def _enlarge(face: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(face).resize((side, side), Image.Resampling.BICUBIC))


class MarkedModel(Model):
    """A model that says when it starts to classify."""

    mark: Callable[[], None]

    def probabilities(self, pixels: np.ndarray, *, views: int = 1) -> np.ndarray:
        """Mark the time, and classify as Model does."""
        self.mark()
        return super().probabilities(pixels, views=views)


@dataclass
class MarkedDetector:
    """A detector that says when it has finished."""

    inside: Detector
    mark: Callable[[], None]

    def detect(self, image: np.ndarray, /) -> list[Detection]:
        """Detect as the detector inside does, and mark the time."""
        found = self.inside.detect(image)
        self.mark()
        return found


@dataclass
class TimedFrame:
    """A frame, what finds and classifies its faces, and the nanoseconds of each part of every run so far."""

    frame: np.ndarray  # (H, W, 3) uint8
    detector: Detector
    model: MarkedModel
    processor_time: bool = False  # time of the processor instead of the wall clock: waiting for it does not count
    parts: dict[str, list[int]] = field(default_factory=lambda: {name: [] for name in PARTS})

    @property
    def total(self) -> list[int]:
        """Nanoseconds from the frame to the predictions."""
        return self.parts["total"]

    def run(self) -> tuple[int, ...]:
        """Run Model.faces once; return the nanoseconds of PARTS. Without a face, nothing is classified."""
        clock = thread_time_ns if self.processor_time else perf_counter_ns
        marks = [clock()]
        self.model.mark = lambda: marks.append(clock())
        self.model.faces(self.frame, color="rgb", detector=MarkedDetector(self.detector, self.model.mark))
        marks.append(clock())
        if len(marks) == len(PARTS) - 1:
            marks.append(marks[-1])
        return (*(end - start for start, end in pairwise(marks)), marks[-1] - marks[0])

    def run_slice(self) -> None:
        """Run one slice of timed runs."""
        self.run()  # not counted: the caches still hold another frame
        for _ in iterate_slice(self.total):
            for name, spent in zip(PARTS, self.run(), strict=True):
                self.parts[name].append(spent)


def measure(
    models: list[tuple[str, str]],
    detector: dict[str, Any],
    frames: list[tuple[int, int, int]],
    cores: list[int],
    runs: int,
    seconds: float,
    *,
    processor_time: bool = False,
) -> dict[str, Any]:
    """Return, per frame and model, how many faces are found and the nanoseconds of every run.

    detector: arguments of `load_detector`. frames: width, height and faces of each. All frames and models alternate in
    short slices, with one thread; runs, seconds: as in turns.alternate.
    """
    pinned = pin_to_cores(cores)
    finder, opened = load_detector(**detector), [open_marked(path, backend) for path, backend in models]
    drawn = [draw_frame(*frame) for frame in frames]
    timed = [[_warm_up(TimedFrame(frame, finder, model, processor_time)) for model in opened] for frame in drawn]
    alternate([one for row in timed for one in row], runs, seconds)
    found = [len(finder.detect(frame)) for frame in drawn]
    rows = zip(found, timed, strict=True)
    return {"pinned": pinned, "frames": [[{"found": count, **one.parts} for one in row] for count, row in rows]}


def open_marked(path: str, backend: str = "") -> MarkedModel:
    """Open a model file for timing, with one thread."""
    opened = open_model(path, backend=backend)
    return MarkedModel(opened.path, opened.card, opened.backend, opened.label_set)


def _warm_up(timed: TimedFrame) -> TimedFrame:
    for _ in range(WARM_UP_RUNS):
        timed.run()
    return timed


if __name__ == "__main__":
    json.dump(measure(**json.loads(sys.argv[1])), sys.stdout)
