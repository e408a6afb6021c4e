"""A video file."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from edgeemo.errors import DataError, UsageError
from edgeemo.names import count, escape_name, is_utf8
from edgeemo.watch.frame import Frame
from edgeemo.watch.sources.opencv import Reader, require_opencv
from edgeemo.watch.sources.source import make_frame

COMPLETE = 0.9  # of the frames that a container states, which may be an estimate
ATTEMPTS, PATIENCE = 250, 2.0  # reads after one that failed, and seconds: behind damage there may be frames again
DEFAULT_FPS = 25.0  # of a file that does not state its rate
log = logging.getLogger(__name__)


@dataclass
class VideoFile:
    """A video file, whose frames have the position that the file states, upright by its metadata."""

    path: Path
    live: ClassVar[bool] = False
    _clock: FileClock | None = field(default=None, init=False, repr=False)

    @property
    def name(self) -> str:
        """The path."""
        return escape_name(str(self.path))

    def open(self) -> None:
        """Open the file; UsageError if it is none, DataError if it holds no video that can be decoded."""
        if not self.path.is_file():
            raise UsageError(f"{self.name} is no regular file; expected a video, such as one that ends in .mp4")
        if not is_utf8(self.path):
            raise UsageError(f"{self.name}: its name is not UTF-8, which OpenCV needs; rename it")
        cv2 = require_opencv("reading a video")
        # An absolute path, because FFmpeg would take the start of another for a protocol, as in concat:FILE.
        reader = Reader(cv2, str(self.path.absolute()), backend=cv2.CAP_FFMPEG)
        if not reader.is_open:
            reader.close()
            raise DataError(
                f"{self.name} holds no video that FFmpeg can decode; look at it with  ffprobe {self.name}  or "
                f"convert it:  ffmpeg -i {self.name} video.mp4"
            )
        self._clock = FileClock(reader, self.name)

    def read(self) -> Frame | None:
        """Return the next frame; None at the end."""
        return self._clock.read() if self._clock else None

    def close(self) -> None:
        """Close the file."""
        if self._clock:
            self._clock.reader.close()
        self._clock = None


@dataclass
class FileClock:
    """Reads frames of a file that is open, each with its position, which never decreases."""

    reader: Reader
    name: str
    number: int = 0
    last: float = -1.0

    def read(self) -> Frame | None:
        """Return the next frame, None at the end; DataError if there is not one."""
        pixels = self.reader.read()
        if pixels is None:
            pixels = self._read_on()
        if pixels is None:
            self._check_end()
            return None
        fps = self.reader.get("CAP_PROP_FPS")
        fps = fps if 0 < fps < 1000 else DEFAULT_FPS
        stated = self.reader.get("CAP_PROP_POS_MSEC") / 1000
        if self.number == 0:
            stated = max(0.0, stated)  # in this order 0.0 where it is NaN
        elif not stated > self.last:  # also NaN
            stated = self.last + 1 / fps
        self.last = stated
        self.number += 1
        return make_frame(pixels, self.number - 1, stated)

    def _read_on(self) -> np.ndarray | None:
        """Return the next frame behind damage; None where nothing is missing, or no frame follows."""
        if not 0 < self.number < COMPLETE * self.reader.get("CAP_PROP_FRAME_COUNT"):
            return None
        start = time.monotonic()
        for _ in range(ATTEMPTS):
            if time.monotonic() - start > PATIENCE:  # a server that is gone
                break
            if (pixels := self.reader.read()) is not None:
                log.warning("%s is damaged after %s; it goes on behind", self.name, count(self.number, "frame"))
                return pixels
        return None

    def _check_end(self) -> None:
        if self.number == 0:
            raise DataError(f"{self.name}: not one frame can be decoded; look at it with  ffprobe FILE")
        stated = self.reader.get("CAP_PROP_FRAME_COUNT")
        if self.number < COMPLETE * stated:
            log.warning("%s ended after %s of %.0f; it may be damaged", self.name, count(self.number, "frame"), stated)
