"""A window on the screen with the watched frames."""

from __future__ import annotations

import os
import re
import sys
from typing import Any

from edgeemo.errors import MachineError
from edgeemo.packages import require
from edgeemo.watch.frame import WatchedFrame
from edgeemo.watch.outputs.overlay import Overlay

TITLE = "edgeemo watch"
QUIT = (ord("q"), 27)  # 27: Esc
ADVICE = "write a video with --save out.mp4"


class Window:
    """Shows watched frames; in the thread that calls, because systems allow windows in the main thread alone.

    Raises MachineError if OpenCV has no windows, as in opencv-python-headless, or there is no screen.
    """

    def __init__(self, overlay: Overlay) -> None:
        self._cv2 = require("cv2", extra="video", purpose="--show")
        _check_screen(self._cv2)
        self._overlay, self._opened = overlay, False

    def show(self, watched: WatchedFrame) -> bool:
        """Show a frame; return False if the user has pressed q or Esc, or closed the window."""
        cv2 = self._cv2
        closed = self._opened and cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) < 1
        if closed:
            return False
        cv2.imshow(TITLE, cv2.cvtColor(self._overlay.paint(watched), cv2.COLOR_RGB2BGR))
        self._opened = True
        return (cv2.waitKey(1) & 0xFF) not in QUIT

    def close(self) -> None:
        """Close the window."""
        if self._opened:
            self._cv2.destroyAllWindows()


def _check_screen(cv2: Any) -> None:
    toolkit = re.search(r"GUI:\s*(\S+)", cv2.getBuildInformation())
    if toolkit and toolkit[1] == "NONE":
        raise MachineError(
            f"--show: this OpenCV has no windows; {ADVICE}, or replace it:  pip uninstall opencv-python-headless; "
            "pip install opencv-python"
        )
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise MachineError(f"--show: there is no screen (DISPLAY is not set); {ADVICE}")
