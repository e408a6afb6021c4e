"""A rendered scene as a live camera."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import floor
from typing import ClassVar

from edgeemo.watch.frame import Frame
from edgeemo.watch.scene import Scene
from edgeemo.watch.sources.source import make_frame


@dataclass
class Synthetic:
    """Frames of a scene at its rate; who reads too late misses frames, as of a camera, whose numbers then jump.

    clock, sleep: of the time in seconds, for tests.
    """

    scene: Scene
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    live: ClassVar[bool] = True
    _start: float | None = field(default=None, init=False, repr=False)
    _next: int = field(default=0, init=False, repr=False)

    @property
    def name(self) -> str:
        """`synthetic:PEOPLE`."""
        return f"synthetic:{self.scene.people}"

    def open(self) -> None:
        """Start the scene's clock; a scene that was closed goes on where it was."""
        self._start = self.clock() - self._next / self.scene.fps

    def read(self) -> Frame | None:
        """Wait until the next frame is due and render it."""
        if self._start is None:
            self.open()
            return self.read()
        early = self._start + self._next / self.scene.fps - self.clock()
        if early > 0:
            self.sleep(early)
        else:
            self._next = max(self._next, floor((self.clock() - self._start) * self.scene.fps))
        pixels, _ = self.scene.frame(self._next)
        self._next += 1
        return make_frame(pixels, self._next - 1)

    def close(self) -> None:
        """Stop the clock."""
        self._start = None
