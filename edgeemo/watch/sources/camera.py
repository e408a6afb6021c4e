"""A webcam, by its number or its device file."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from edgeemo.watch.frame import Frame
from edgeemo.watch.sources.opencv import Reader, require_opencv
from edgeemo.watch.sources.source import SourceLostError, make_frame

DEVICES = Path("/dev")
SMALL = 640 * 480  # pixels; USB 2 carries more of them at full rate only as JPEG
log = logging.getLogger(__name__)


@dataclass
class Camera:
    """A webcam; on Linux through V4L2, with the time-out of OpenCV's.

    device: number, or path such as /dev/video0 or /dev/v4l/by-id/NAME. width, height, fps: what to ask the camera for;
    it may choose others.
    """

    device: int | str
    width: int | None = None
    height: int | None = None
    fps: float | None = None
    live: ClassVar[bool] = True
    _reader: Reader | None = field(default=None, init=False, repr=False)
    _number: int = field(default=0, init=False, repr=False)

    @property
    def name(self) -> str:
        """`camera 0`, or the path."""
        return f"camera {self.device}" if isinstance(self.device, int) else self.device

    def open(self) -> None:
        """Open the camera; raise SourceLostError with the cameras that are there."""
        cv2 = require_opencv("reading a camera")
        linux = sys.platform == "linux"
        if linux:
            self._check_device()
        reader = Reader(cv2, self.device, backend=cv2.CAP_V4L2 if linux else cv2.CAP_ANY)
        if not reader.is_open:
            reader.close()
            raise SourceLostError(
                f"{self.name} cannot be opened as a camera; another program may be using it, or it is a "
                f"camera's second device, which has no images.  {list_cameras()}"
            )
        reader.set("CAP_PROP_BUFFERSIZE", 1)  # fewer stale frames where the driver allows it
        if (self.width or 0) * (self.height or 0) > SMALL:
            reader.set("CAP_PROP_FOURCC", cv2.VideoWriter.fourcc(*"MJPG"))
        asked = {"CAP_PROP_FRAME_WIDTH": self.width, "CAP_PROP_FRAME_HEIGHT": self.height, "CAP_PROP_FPS": self.fps}
        for name, value in asked.items():
            if value is not None:
                reader.set(name, value)
        if chosen := {name: reader.get(name) for name, value in asked.items() if value not in (None, reader.get(name))}:
            got = ", ".join(f"{name.removeprefix('CAP_PROP_').lower()} {value:g}" for name, value in chosen.items())
            log.warning("%s does not deliver what was asked for, but %s", self.name, got)
        self._reader = reader

    def _check_device(self) -> None:
        path = DEVICES / f"video{self.device}" if isinstance(self.device, int) else Path(self.device)
        if not path.exists():
            raise SourceLostError(f"{path} does not exist.  {list_cameras()}")
        if not os.access(path, os.R_OK | os.W_OK):
            raise SourceLostError(
                f"{path} is not accessible to this user; join its group and log in again:  sudo usermod -aG video $USER"
            )

    def read(self) -> Frame | None:
        """Return the next frame; SourceLostError where the camera was unplugged."""
        pixels = self._reader.read() if self._reader else None
        if pixels is None:
            raise SourceLostError(f"{self.name} delivers no more frames; is it plugged in?")
        self._number += 1
        return make_frame(pixels, self._number - 1)

    def close(self) -> None:
        """Release the camera."""
        if self._reader:
            self._reader.close()
        self._reader = None


def list_cameras() -> str:
    """Return a sentence with the cameras that this machine has."""
    paths = sorted(DEVICES.glob("video*"), key=lambda path: (len(path.name), path.name))
    if paths:
        return f"Video devices found: {', '.join(map(str, paths))}"
    return "There is no /dev/video*: plug in a camera; a camera on a Raspberry Pi's ribbon cable is picamera2"
