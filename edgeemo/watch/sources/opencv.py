"""OpenCV's VideoCapture: opened with time-outs, without messages of its libraries, and read as RGB."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from edgeemo.packages import require

LOG_LEVEL, FFMPEG_LOG_LEVEL, FFMPEG_OPTIONS = (
    "OPENCV_LOG_LEVEL",
    "OPENCV_FFMPEG_LOGLEVEL",
    "OPENCV_FFMPEG_CAPTURE_OPTIONS",
)
QUIET = "-8"  # FFmpeg's AV_LOG_QUIET
_lock = threading.Lock()  # of the environment, which FFmpeg's options travel in


def require_opencv(purpose: str) -> Any:
    """Import cv2, without its messages and FFmpeg's unless the user has set their levels.

    Raises MachineError with the command that installs it.
    """
    os.environ.setdefault(FFMPEG_LOG_LEVEL, QUIET)  # read once, when a video is first opened or written
    cv2 = require("cv2", purpose=purpose, extra="video")
    if LOG_LEVEL not in os.environ:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2


class Reader:
    """An open VideoCapture.

    source: index, path or URL. backend: one of cv2.CAP_*. settings: properties and their values, applied while it is
    opened. options: of FFmpeg, as in OPENCV_FFMPEG_CAPTURE_OPTIONS, which a user may have set and which then counts.
    """

    def __init__(
        self, cv2: Any, source: int | str, *, backend: int, settings: Sequence[int] = (), options: str = ""
    ) -> None:
        self.cv2 = cv2
        with _set_environment({FFMPEG_OPTIONS: options}):
            self._capture = cv2.VideoCapture(source, backend, list(settings))
        self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)

    @property
    def is_open(self) -> bool:
        """Return whether it delivers frames."""
        return bool(self._capture.isOpened())

    def get(self, name: str) -> float:
        """Return a property, such as CAP_PROP_FPS."""
        return float(self._capture.get(getattr(self.cv2, name)))

    def set(self, name: str, value: float) -> None:
        """Ask for the value of a property; a camera may refuse, or choose another."""
        self._capture.set(getattr(self.cv2, name), value)

    def read(self) -> np.ndarray | None:
        """Return the next frame, upright, (H, W, 3) uint8 RGB; None where there is none."""
        done, pixels = self._capture.read()
        return self._convert(pixels) if done and pixels is not None and pixels.size else None

    def _convert(self, pixels: np.ndarray) -> np.ndarray:
        if pixels.dtype == np.uint16:  # infrared and depth cameras
            pixels = (pixels >> 8).astype(np.uint8)
        channels = 1 if pixels.ndim == 2 else pixels.shape[2]
        code = {1: "COLOR_GRAY2RGB", 3: "COLOR_BGR2RGB", 4: "COLOR_BGRA2RGB"}[channels]
        converted: np.ndarray = self.cv2.cvtColor(pixels, getattr(self.cv2, code))
        return converted

    def close(self) -> None:
        """Release it."""
        self._capture.release()


@contextmanager
def _set_environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables that the user has not set, while something is opened."""
    with _lock:
        ours = {name: value for name, value in values.items() if value and name not in os.environ}
        os.environ.update(ours)
        try:
            yield
        finally:
            for name in ours:
                os.environ.pop(name, None)
