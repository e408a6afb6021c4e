"""A bounded queue and a thread between the loop that watches and a slow, failing or dead receiver."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Protocol

from edgeemo.names import count

log = logging.getLogger(__name__)
CAPACITY = 10_000  # records: 50 s of eight faces at 25 frames a second
FLUSH_SECONDS = 5.0
POLL = 0.25  # seconds between looks at `ending`
BACK_OFF = (0.5, 30.0)  # seconds: after the first failure, doubled after each further one; at most


class Output(Protocol):
    """Somewhere records or frames go."""

    name: str  # for people; without passwords
    written: int  # records or frames that arrived
    lost: int  # that were dropped because too many were waiting, were rejected, or were left at the end
    failed: str | None  # why nothing arrives at the moment; None: it works

    def write(self, item: Any, /) -> None:
        """Take a record or frame, without waiting."""

    def stop(self) -> None:
        """Begin to flush."""

    def close(self) -> None:
        """Flush and release everything, within FLUSH_SECONDS of `stop` unless a file takes longer to finish."""


class UndeliveredError(Exception):
    """The receiver takes nothing at the moment: the same items are to be sent again.

    after: seconds to wait at least; None: as BACK_OFF says.
    """

    def __init__(self, message: str, *, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class RejectedError(Exception):
    """The receiver will never take these items; later ones perhaps."""


class Sink(Protocol):
    """What sends items, used by one thread alone."""

    name: str
    batch: int  # items at a time, at most

    def send(self, items: Sequence[Any]) -> None:
        """Send items; may take as long as it likes.

        Raises UndeliveredError or OSError if none of them arrived, RejectedError if none ever will. Any other
        error ends the program.
        """

    def abort(self) -> None:
        """Let `send` return soon, with an error; called by another thread when the time to flush is over."""

    def close(self) -> None:
        """Release what it holds; nothing is sent any more."""


class Background:
    """An output whose `write` only appends to a queue; a thread sends.

    Where the queue is full, the oldest items are dropped and counted; one line is logged when that begins, and one when
    the receiver has caught up; likewise when sending begins to fail, and when it works again.

    waits: let `write` wait for a place in a full queue instead, unless the receiver fails. For a source that waits too,
    such as a video file. ending: whether the program is about to end, so that `write` waits no longer.

    finish_seconds: how much longer than the time to flush `close` waits for the sink's `close`, which may have a file
    to complete on a slow disk.

    error: what has ended the output for good: the loop that watches raises it, or who has closed the output.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        capacity: int = CAPACITY,
        waits: bool = False,
        ending: Callable[[], bool] = lambda: False,
        flush_seconds: float = FLUSH_SECONDS,
        finish_seconds: float = 0.0,
        back_off: tuple[float, float] = BACK_OFF,
    ) -> None:
        self.name, self.written, self.lost = sink.name, 0, 0
        self.failed: str | None = None
        self.error: Exception | None = None
        self._sink, self._capacity, self._waits, self._ending = sink, capacity, waits, ending
        self._flush_seconds, self._finish_seconds, self._back_off = flush_seconds, finish_seconds, back_off
        self._queue: deque[Any] = deque()
        self._sending = 0
        self._dropping_since: int | None = None  # what `lost` was before
        self._changed = threading.Condition()
        self._deadline: float | None = None
        self._thread = threading.Thread(target=self._run, name=f"edgeemo {sink.name}", daemon=True)
        self._thread.start()

    def write(self, item: Any, /) -> None:
        """Append an item to the queue."""
        with self._changed:
            while self._waits and len(self._queue) >= self._capacity and self._works() and not self._ending():
                self._changed.wait(POLL)
            if self._deadline is not None or self.error:
                self.lost += 1
                return
            if len(self._queue) >= self._capacity:
                self._drop_oldest()
            self._queue.append(item)
            self._changed.notify_all()

    def stop(self) -> None:
        """Let the thread send what is in the queue, and end."""
        with self._changed:
            if self._deadline is None:
                self._deadline = monotonic() + self._flush_seconds
                self._changed.notify_all()

    def close(self) -> None:
        """Wait until everything is sent, or FLUSH_SECONDS are over; what is left then is counted as lost.

        Then wait until the sink is closed, for at most `finish_seconds`.
        """
        self.stop()
        self._thread.join(max(0.0, (self._deadline or 0.0) - monotonic()))
        if self._thread.is_alive():
            self._sink.abort()
        with self._changed:
            if left := len(self._queue) + self._sending:
                self.lost += left
                self._queue.clear()
                self._sending = 0
                log.warning("%s: %s not delivered before the end", self.name, count(left, "item"))
                self._changed.notify_all()
        self._thread.join(self._finish_seconds)
        if self._finish_seconds and self._thread.is_alive():
            log.error("%s is not complete after %g s more", self.name, self._finish_seconds)

    def _works(self) -> bool:
        return self.failed is None and self.error is None and self._deadline is None

    def _drop_oldest(self) -> None:
        if self._dropping_since is None:
            self._dropping_since = self.lost
            log.warning("%s does not keep up; the oldest items are dropped", self.name)
        self._queue.popleft()
        self.lost += 1

    def _run(self) -> None:
        while items := self._take():
            self._send(items)
        try:
            self._sink.close()
        except Exception as error:  # noqa: BLE001  who has closed the output raises it
            self._give_up(error)

    def _take(self) -> list[Any]:
        """Wait for items and return them, at most a batch; none at the end."""
        with self._changed:
            if not self._queue and self._dropping_since is not None:
                log.warning("%s keeps up again; %s lost", self.name, count(self.lost - self._dropping_since, "item"))
                self._dropping_since = None
            self._changed.wait_for(lambda: self._queue or self._deadline is not None)
            if self._deadline is not None and monotonic() >= self._deadline:
                return []
            items = [self._queue.popleft() for _ in range(min(len(self._queue), self._sink.batch))]
            self._sending = len(items)
            self._changed.notify_all()
            return items

    def _send(self, items: list[Any]) -> None:
        """Send a batch until it arrives or is rejected, or the time to flush is over."""
        pause, longest = self._back_off
        while not self._is_over():
            try:
                self._sink.send(items)
            except RejectedError as error:
                self._fail(error, lost=len(items))
                self._rest(pause)
                return
            except (UndeliveredError, OSError) as error:
                self._fail(error)
                self._rest(max(pause, getattr(error, "after", None) or 0.0))
                pause = min(2 * pause, longest)
            except Exception as error:  # noqa: BLE001  the loop that watches raises it
                self._give_up(error)
                return
            else:
                self._succeed(len(items))
                return

    def _is_over(self) -> bool:
        with self._changed:
            return self._sending == 0 or (self._deadline is not None and monotonic() >= self._deadline)

    def _rest(self, seconds: float) -> None:
        """Wait; at the end of the program, no longer than the shortest time."""
        with self._changed:
            end = monotonic() + seconds
            while (left := end - monotonic()) > 0:
                if self._deadline is not None:
                    left = min(left, self._back_off[0], self._deadline - monotonic())
                    self._changed.wait_for(lambda: self._sending == 0, max(0.0, left))
                    return
                self._changed.wait_for(lambda: self._deadline is not None, left)

    def _fail(self, error: Exception, *, lost: int = 0) -> None:
        with self._changed:
            if self.failed is None and self._sending:
                log.warning("%s fails: %s", self.name, error)
            self.failed = str(error)
            self.lost += min(lost, self._sending)
            self._sending = 0 if lost else self._sending
            self._changed.notify_all()

    def _give_up(self, error: Exception) -> None:
        with self._changed:
            self.error, self.failed = self.error or error, str(error)
            self.lost += self._sending + len(self._queue)
            self._sending = 0
            self._queue.clear()
            self._changed.notify_all()

    def _succeed(self, sent: int) -> None:
        with self._changed:
            if self.failed is not None:
                log.warning("%s works again", self.name)
            self.failed = None
            self.written += min(sent, self._sending)
            self._sending = 0
            self._changed.notify_all()
