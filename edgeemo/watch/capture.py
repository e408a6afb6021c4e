"""A thread that reads a source, so that the newest frame is there when it is wanted."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from edgeemo.watch.frame import Frame
from edgeemo.watch.sources.source import Source, SourceLostError

PAUSES = (0.5, 30.0)  # seconds before the first attempt to reconnect, which double up to the second
CLOSING = 1.0  # seconds that `close` waits for the thread, which a read may block for longer
SAMPLED = 4  # of a frame, each fourth row and column shows whether it is the very same as the one before
if TYPE_CHECKING:
    from typing_extensions import Self

log = logging.getLogger(__name__)


class Capture:
    """Frames of a source in a queue of one, as a context manager and an iterator.

    Of a live source it holds the newest frame, and a lost one is opened again and again, with pauses that double from
    `pauses[0]` to `pauses[1]` seconds, less up to half at random. Of a file or folder it holds the next frame, and none
    is dropped.

    realtime: play a file or folder at its own rate, and drop frames as a camera does. wait: keep trying where a live
    source cannot be opened the first time, instead of raising. lost_after: seconds without a frame of a live source
    after which it is not connected. frozen_after: seconds of the very same pixels, to a sample of them, after which it
    is frozen; a camera that hangs before its video codec is not noticed, since keyframes of one image differ a little,
    as those of a still room do. clock: seconds that only increase. pause: waits for seconds, or until `close`.

    dropped: frames that nobody took in time. reconnects: how often a live source came back. frames: how many were
    read. ended: no frame will come any more.
    """

    def __init__(
        self,
        source: Source,
        *,
        realtime: bool = False,
        wait: bool = False,
        lost_after: float = 10.0,
        frozen_after: float = 10.0,
        pauses: tuple[float, float] = PAUSES,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], object] | None = None,
    ) -> None:
        self.source = source
        self.dropped = self.reconnects = self.frames = 0
        self.frozen = self.ended = False
        self._realtime, self._wait, self._clock = realtime, wait, clock
        self._lost_after, self._frozen_after, self._pauses = lost_after, frozen_after, pauses
        self._stopped = threading.Event()
        self._pause = pause or self._stopped.wait
        self._changed = threading.Condition()  # of what follows
        self._slot: Frame | None = None
        self._error: BaseException | None = None
        self._lost = False  # and logged
        self._arrived: float | None = None  # when the last frame came
        self._connected_since = self._began = self._moved = 0.0
        self._next_pause = pauses[0]
        self._sample: np.ndarray | None = None
        self._number = -1  # of the last frame
        self._thread = threading.Thread(target=self._run, name=f"capture of {source.name}", daemon=True)

    @property
    def connected(self) -> bool:
        """Whether frames come: the last one is at most `lost_after` seconds old; of a file, whether it goes on."""
        if self.ended or self._arrived is None:
            return False
        return not self.source.live or not (self._lost or self._clock() - self._arrived > self._lost_after)

    @property
    def healthy(self) -> bool:
        """Whether frames come and change."""
        return self.connected and not self.frozen

    def start(self) -> None:
        """Open the source and start the thread; errors of opening are raised here, unless it is to wait."""
        if not (self._wait and self.source.live):
            self.source.open()
        self._thread.start()

    def close(self) -> None:
        """Stop; a thread that a read still blocks releases the source when that returns, within its time-out."""
        self._stopped.set()
        with self._changed:
            self.ended, self._slot = True, None
            self._changed.notify_all()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(CLOSING)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        frame = self.read()
        if frame is None:
            raise StopIteration
        return frame

    def read(self, timeout: float | None = None) -> Frame | None:
        """Wait for a frame and take it; None at the end, which `ended` says, or after `timeout` seconds.

        Raises what the source raised, other than that a live one was lost.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while self._slot is None and not self.ended:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return None
                self._changed.wait(self._lost_after if left is None else min(left, self._lost_after))
                self._check_silence()
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            frame, self._slot = self._slot, None
            self._changed.notify_all()
            return frame

    def _check_silence(self) -> None:
        """Report a live source whose read blocks for longer than it should."""
        if self.source.live and self._arrived is not None and self._clock() - self._arrived > self._lost_after:
            self._report_loss(f"{self.source.name} has delivered no frame for {self._lost_after:g} s")

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            self._read_all()
        except BaseException as caught:  # noqa: BLE001  whatever it is, it is raised where frames are taken
            error = caught
        with suppress(Exception):
            self.source.close()
        with self._changed:
            if not self._stopped.is_set():
                self._changed.wait_for(lambda: self._slot is None or self._stopped.is_set())  # the last frame is taken
                self._error = error
            self.ended = True
            self._changed.notify_all()

    def _read_all(self) -> None:
        frame = self._open_first() if self._wait and self.source.live else self._read()
        while frame is not None and not self._stopped.is_set():
            self._deliver(frame)
            frame = self._read()

    def _open_first(self) -> Frame | None:
        try:
            self.source.open()
            return self.source.read()
        except SourceLostError as error:
            return self._recover(error)

    def _read(self) -> Frame | None:
        """Return the next frame, of a live source whenever it comes; None at the end."""
        try:
            return self.source.read()
        except SourceLostError as error:
            if not self.source.live:
                raise
            return self._recover(error)

    def _recover(self, error: SourceLostError) -> Frame | None:
        """Open the source again and again until a frame comes; None if meanwhile closed."""
        with self._changed:
            self._report_loss(str(error))
        self.frozen, self._sample = False, None
        if self._clock() - self._connected_since >= self._lost_after:  # otherwise it comes and goes: do not hurry
            self._next_pause = self._pauses[0]
        while not self._stopped.is_set():
            with suppress(Exception):
                self.source.close()
            self._pause(self._next_pause * random.uniform(0.5, 1.0))
            self._next_pause = min(2 * self._next_pause, self._pauses[1])
            if self._stopped.is_set():
                break
            with suppress(SourceLostError):
                self.source.open()
                return self.source.read()
        return None

    def _report_loss(self, reason: str) -> None:
        if not self._lost and not self._stopped.is_set():
            self._lost = True
            log.warning("%s; trying to reconnect", reason)

    def _deliver(self, frame: Frame) -> None:
        if self.source.live:
            self._check_frozen(frame)
        elif self._realtime:
            frame = self._keep_time(frame)
        dropping = self.source.live or self._realtime
        with self._changed:
            self._note_arrival(frame)
            if dropping and self._slot is not None:
                self.dropped += 1
            elif not dropping:
                self._changed.wait_for(lambda: self._slot is None or self._stopped.is_set())
            if not self._stopped.is_set():
                self._slot = frame
            self._changed.notify_all()

    def _note_arrival(self, frame: Frame) -> None:
        now = self._clock()
        if self._lost or self._arrived is None:
            self._connected_since = now
        if self._lost:
            self._lost = False
            self.reconnects += self._arrived is not None
            log.warning("%s delivers frames again", self.source.name)
        if self.source.live:  # it may number frames that nobody could read in time
            self.dropped += max(0, frame.number - self._number - 1)
        self._arrived, self._number = now, frame.number
        self.frames += 1

    def _keep_time(self, frame: Frame) -> Frame:
        """Wait until a frame of a file is due; it counts as captured then."""
        position = frame.position or 0.0
        if self._arrived is None:
            self._began = self._clock() - position  # when the file did
        self._pause(max(0.0, self._began + position - self._clock()))
        return replace(frame, captured=time.monotonic(), time=time.time())

    def _check_frozen(self, frame: Frame) -> None:
        now, sample = self._clock(), frame.pixels[::SAMPLED, ::SAMPLED].copy()
        if self._sample is None or not np.array_equal(self._sample, sample):
            if self.frozen:
                log.warning("%s: its images change again", self.source.name)
            self.frozen, self._moved, self._sample = False, now, sample
        elif not self.frozen and now - self._moved >= self._frozen_after:
            self.frozen = True
            log.warning(
                "%s is frozen: it has delivered the very same image for %.0f s; restart the camera or its server",
                self.source.name,
                now - self._moved,
            )
