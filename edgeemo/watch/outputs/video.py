"""A video of watched frames, with a constant frame rate whatever the rate of the frames."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np

from edgeemo.artifact import atomic_write
from edgeemo.errors import UsageError
from edgeemo.packages import require
from edgeemo.watch.frame import WatchedFrame
from edgeemo.watch.outputs.overlay import Overlay

log = logging.getLogger(__name__)
CODECS = {".mp4": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}  # encoders that every wheel of OpenCV has
FPS = 25.0
LONGEST_GAP = 10.0  # seconds without a frame that are filled with the last one; longer gaps are cut to this
LEAST_FREE = 64e6  # bytes of disk; OpenCV does not report a write that fails, so the video is finished before
CHECK_FRAMES = 25  # between two looks at the disk


class VideoFile:
    """A sink that paints watched frames and appends them to a video.

    A frame is repeated, or left out, so that each is shown when it was captured. Frames of another size than the first
    are resized to it. The video has a temporary name, `.NAME.HOST.PID.partial.SUFFIX`, until `close`; a killed process
    leaves it. What there is of it can then be played if it is .mkv or .avi, not if it is .mp4. keep: do not replace a
    video of this name, nor remove one that was left and can be played, because nobody can record them again; the new
    one gets a number, as NAME-2.mp4. If the disk is nearly
    full, the video is finished, and further frames are lost.

    Raises UsageError for another suffix than those of CODECS, MachineError if OpenCV is missing or the file cannot be
    written.
    """

    batch = 1

    def __init__(self, path: Path, overlay: Overlay, *, fps: float = FPS, keep: bool = False) -> None:
        if path.suffix.lower() not in CODECS:
            raise UsageError(f"--save {path}: expected a file that ends in {', '.join(CODECS)}")
        self._cv2 = require("cv2", extra="video", purpose="--save")
        path = _find_free(path) if keep else path
        self.name, self._path, self._overlay, self._fps = str(path), path, overlay, fps
        self._stack = ExitStack()
        self._partial = self._stack.enter_context(atomic_write(path, sweep=not keep or path.suffix.lower() == ".mp4"))
        self._writer: Any = None
        self._size = (0, 0)  # width, height
        self._start = 0.0  # clock of the first frame, later by what was cut
        self._waiting: tuple[int, np.ndarray] | None = None  # the newest image, and its number in the video
        self._frames, self._full = 0, False

    def send(self, items: Sequence[WatchedFrame]) -> None:
        """Append frames."""
        for watched in items:
            if self._full:
                raise OSError(f"less than {LEAST_FREE / 1e6:.0f} MB of disk are free; the video has ended")
            image = self._cv2.cvtColor(self._overlay.paint(watched), self._cv2.COLOR_RGB2BGR)
            if self._waiting is None:
                self._open(image, watched.frame.clock)
            number = self._number(watched.frame.clock)
            if self._waiting is not None:
                last, waiting = self._waiting
                number = max(number, last)
                for _ in range(last, number):
                    self._writer.write(waiting)
            self._waiting = number, self._fit(image)
            self._check_disk()

    def abort(self) -> None:
        """A frame is encoded in milliseconds."""

    def close(self) -> None:
        """Finish the video and give it its name; without a frame, there is none."""
        if self._waiting is None:
            self._discard()
            return
        self._finish()

    def _open(self, image: np.ndarray, clock: float) -> None:
        self._start, self._size = clock, (image.shape[1] // 2 * 2, image.shape[0] // 2 * 2)  # encoders want even sides
        codec = self._cv2.VideoWriter_fourcc(*CODECS[self._path.suffix.lower()])
        self._writer = self._cv2.VideoWriter(str(self._partial), codec, self._fps, self._size)
        if not self._writer.isOpened():
            raise UsageError(f"OpenCV cannot write {self._path} with {self._size[0]}x{self._size[1]} px; try .avi")

    def _number(self, clock: float) -> int:
        """Return the number in the video of a frame of this time, after a long gap as if it had been shorter."""
        number = round((clock - self._start) * self._fps)
        longest = round(LONGEST_GAP * self._fps)
        if self._waiting is not None and (gap := number - self._waiting[0]) > longest:
            log.warning("%s: %.0f s without a frame are shortened to %.0f", self.name, gap / self._fps, LONGEST_GAP)
            self._start += (gap - longest) / self._fps
            return self._waiting[0] + longest
        return number

    def _fit(self, image: np.ndarray) -> np.ndarray:
        if (image.shape[1], image.shape[0]) == self._size:
            return image
        resized: np.ndarray = self._cv2.resize(image, self._size)
        return resized

    def _check_disk(self) -> None:
        self._frames += 1
        if self._frames % CHECK_FRAMES == 0 and shutil.disk_usage(self._partial.parent).free < LEAST_FREE:
            self._finish()
            self._full = True

    def _finish(self) -> None:
        if self._full or self._waiting is None:
            return
        self._writer.write(self._waiting[1])
        self._writer.release()
        self._stack.close()

    def _discard(self) -> None:
        nothing = UsageError(f"{self._path}: there was no frame")
        with suppress(UsageError):
            self._stack.__exit__(UsageError, nothing, None)


def _find_free(path: Path) -> Path:
    """Return the path or, if there is something, the first one with a number that is free."""
    found, number = path, 1
    while os.path.lexists(found):
        number += 1
        found = path.with_name(f"{path.stem}-{number}{path.suffix}")
    if number > 1:
        log.warning("%s exists; the video is written to %s", path, found)
    return found
