"""A status line: refreshed on a terminal, once a minute in a log."""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import TextIO

import numpy as np

from edgeemo.watch.frame import WatchedFrame

log = logging.getLogger(__name__)
WINDOW = 5.0  # seconds that frame rate and latencies are taken of
REFRESH, MINUTE = 0.5, 60.0  # seconds between two lines on a terminal, and in a log
ERASE = "\r\x1b[K"


@dataclass(frozen=True)
class _Seen:
    clock: float
    latency: float


class Terminal:
    """Shows frames per second, latency from capture to answer, and dropped frames.

    stream: where to, by default standard error; a line is refreshed there if it is a terminal, and logged otherwise.
    faces: show how many faces are in the frame; False where nothing about single people may be shown. clock: seconds.
    """

    def __init__(
        self, stream: TextIO | None = None, *, faces: bool = True, clock: Callable[[], float] = monotonic
    ) -> None:
        self._stream, self._faces, self._clock = stream or sys.stderr, faces, clock
        self._refreshes = self._stream.isatty()
        self._period = REFRESH if self._refreshes else MINUTE
        self._recent: deque[_Seen] = deque()
        self._due = clock() + self._period
        self._shown = False

    def update(self, watched: WatchedFrame, *, reconnects: int = 0, lost: int = 0) -> None:
        """Count a frame, and refresh the line if it is time. lost: what all outputs have dropped."""
        now = self._clock()
        self._recent.append(_Seen(now, watched.latency))
        while now - self._recent[0].clock > WINDOW:
            self._recent.popleft()
        if now < self._due:
            return
        self._due = now + self._period
        line = self._describe(watched, reconnects, lost)
        if self._refreshes:
            self._write(f"{ERASE}{line}")
        else:
            log.info("%s", line)

    def close(self) -> None:
        """Erase the line: the summary of the program takes its place."""
        if self._shown:
            self._write(ERASE)

    def _describe(self, watched: WatchedFrame, reconnects: int, lost: int) -> str:
        passed = self._recent[-1].clock - self._recent[0].clock
        rate = (len(self._recent) - 1) / passed if passed else 0.0
        middle, high = np.percentile([1000 * one.latency for one in self._recent], (50, 95))
        parts = [f"{rate:.1f} fps", f"latency p50 {middle:.0f} ms, p95 {high:.0f} ms", f"dropped {watched.dropped}"]
        parts += [f"faces {len(watched.faces)}"] if self._faces else []
        parts += [f"reconnects {reconnects}"] if reconnects else []
        parts += [f"not written {lost}"] if lost else []
        return " | ".join(parts)

    def _write(self, text: str) -> None:
        with suppress(OSError, ValueError):  # a terminal that is gone does not end the program
            self._stream.write(text)
            self._stream.flush()
            self._shown = True
