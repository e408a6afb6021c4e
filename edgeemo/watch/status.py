"""How `watch` is doing, in plain numbers that the loop writes and the health server reads.

Nothing is kept of a single person: no track, box or label.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from threading import Lock

from edgeemo.watch.frame import WatchedFrame

# Upper limits of the latency histogram, in seconds: a frame at 25 fps takes 0.04, and half a second is felt.
BUCKETS = (0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
STALE_SECONDS = 10.0


@dataclass
class OutputState:
    """What became of the records of an output, since the start."""

    sent: int = 0
    lost: int = 0
    failed: bool = False  # it cannot send at present


@dataclass
class Numbers:
    """The state at one moment. Times are seconds of time.monotonic; counts are since the start."""

    started: float
    answered: int = 0
    last_answer: float | None = None
    faces: int = 0  # in the last frame
    tracks: int = 0
    latencies: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))  # frames per bucket, the last: above
    latency_sum: float = 0.0
    connected: bool = False
    was_connected: bool = False
    frozen: bool = False
    dropped: int = 0
    reconnects: int = 0
    outputs: dict[str, OutputState] = field(default_factory=dict)
    model: str = ""
    model_sha256: str = ""
    swaps: int = 0
    swap_failures: int = 0


class Status:
    """The numbers of a running loop. Any thread may call any method; none waits longer than a copy takes."""

    def __init__(
        self,
        *,
        stale_seconds: float = STALE_SECONDS,
        aggregate: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """stale_seconds: without an answer for so long, the program counts as unhealthy.

        aggregate: only counts per period may be known, so the numbers of faces and tracks are not published.
        """
        self.stale_seconds, self.aggregate = stale_seconds, aggregate
        self._clock, self._lock = clock, Lock()
        self._numbers = Numbers(started=clock())

    def answered(self, watched: WatchedFrame) -> None:
        """Count a frame that was answered."""
        now = self._clock()
        with self._lock:
            numbers = self._numbers
            numbers.answered += 1
            numbers.last_answer = now
            numbers.faces = len(watched.faces)
            numbers.tracks = max(numbers.tracks, *(face.track for face in watched.faces), 0)
            numbers.latencies[bisect_left(BUCKETS, watched.latency)] += 1
            numbers.latency_sum += watched.latency
            numbers.dropped = max(numbers.dropped, watched.dropped)

    def source(self, connected: bool, *, frozen: bool = False, dropped: int = 0, reconnects: int = 0) -> None:
        """Set the state of the source, with its counts since the start."""
        with self._lock:
            numbers = self._numbers
            numbers.connected, numbers.frozen, numbers.reconnects = connected, frozen, reconnects
            numbers.was_connected |= connected
            numbers.dropped = max(numbers.dropped, dropped)
            if not connected:
                numbers.faces = 0

    def output(self, name: str, sent: int, lost: int = 0, *, failed: bool = False) -> None:
        """Set the counts of an output since the start, and whether it cannot send at present."""
        with self._lock:
            self._numbers.outputs[name] = OutputState(sent, lost, failed)

    def model(self, name: str, sha256: str, swaps: int = 0, failures: int = 0) -> None:
        """Set the name and the SHA-256 of the model that serves, and how often it was swapped or a new one refused."""
        with self._lock:
            numbers = self._numbers
            numbers.model, numbers.model_sha256 = name, sha256
            numbers.swaps, numbers.swap_failures = swaps, failures

    def read(self) -> Numbers:
        """Return a copy of the numbers."""
        with self._lock:
            return deepcopy(self._numbers)

    def now(self) -> float:
        """Return the time on the clock of the numbers."""
        return self._clock()

    def find_faults(self) -> list[str]:
        """Return in words why the program is unhealthy; empty if it is not."""
        numbers, faults = self.read(), []
        since = numbers.started if numbers.last_answer is None else numbers.last_answer
        silent = self._clock() - since
        if not numbers.connected and numbers.was_connected:
            faults.append("the source is lost")
        elif not numbers.connected and silent > self.stale_seconds:
            faults.append("the source cannot be opened")
        elif numbers.frozen:
            faults.append("the source is frozen: it delivers the same image again and again")
        if silent > self.stale_seconds:
            faults.append(f"no frame was answered for {silent:.0f} s")
        faults += [f"the output {name} has failed" for name, output in numbers.outputs.items() if output.failed]
        return faults
