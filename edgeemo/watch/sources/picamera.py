"""A camera on the ribbon cable of a Raspberry Pi, through picamera2, which comes with Raspberry Pi OS."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar

from edgeemo.packages import require
from edgeemo.watch.frame import Frame
from edgeemo.watch.sources.source import SourceLostError, make_frame

INSTALL = (
    "sudo apt install -y python3-picamera2   (on Raspberry Pi OS; a virtual environment sees it if made with  "
    "python3 -m venv --system-site-packages)"
)
RGB = "BGR888"  # libcamera names the bytes from the highest one down: in memory it is R, G, B


@dataclass
class PiCamera:
    """A camera of libcamera's; `number` counts from 0.

    width, height, fps: of the frames, by default 640x480 at the camera's rate. timeout: seconds without a frame after
    which it is lost; old versions of picamera2 ignore it.
    """

    number: int = 0
    width: int | None = None
    height: int | None = None
    fps: float | None = None
    timeout: float = 10.0
    live: ClassVar[bool] = True
    _camera: Any = field(default=None, init=False, repr=False)
    _next: int = field(default=0, init=False, repr=False)

    @property
    def name(self) -> str:
        """`picamera2:0`."""
        return f"picamera2:{self.number}"

    def open(self) -> None:
        """Start the camera; SourceLostError if it is not there or in use."""
        module = require("picamera2", purpose="a Raspberry Pi camera", install=INSTALL)
        camera = None
        try:
            camera = module.Picamera2(self.number)
            size = (self.width or 640, self.height or 480)
            controls = {} if self.fps is None else {"FrameRate": self.fps}
            camera.configure(
                # queue: a frame that was taken before it is asked for is stale
                camera.create_video_configuration(main={"size": size, "format": RGB}, controls=controls, queue=False)
            )
            camera.start()
        except Exception as error:  # IndexError without a camera, RuntimeError while another program has it
            _stop(camera)
            raise SourceLostError(
                f"{self.name} cannot be opened ({type(error).__name__}: {error}); list the cameras:  "
                "rpicam-hello --list-cameras"
            ) from error
        self._camera = camera

    def read(self) -> Frame | None:
        """Return the next frame; SourceLostError if none comes within the time-out."""
        try:
            pixels = self._camera.capture_array("main", wait=self.timeout)
        except Exception as error:  # TimeoutError, or whatever libcamera says
            raise SourceLostError(
                f"{self.name} delivers no more frames ({type(error).__name__}: {error}); check its cable"
            ) from error
        self._next += 1
        return make_frame(pixels, self._next - 1)

    def close(self) -> None:
        """Release the camera for other programs."""
        _stop(self._camera)
        self._camera = None


def _stop(camera: Any) -> None:
    if camera is not None:
        with suppress(Exception):
            camera.stop()
        with suppress(Exception):
            camera.close()
