"""What signals ask of a loop: to end, or to load the model again."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType
from typing import Any


class Signals:
    """Remembers that a signal asked to end.

    stopped_by: name of the signal, as SIGTERM; empty until one has come.
    """

    def __init__(self) -> None:
        self.stopped_by = ""

    def stop(self, number: int, _: FrameType | None) -> None:
        """Remember the signal; at a second Ctrl-C, raise KeyboardInterrupt for those who cannot wait."""
        if self.stopped_by and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.stopped_by = signal.Signals(number).name


@contextmanager
def catch_signals(reload: Callable[[], None]) -> Iterator[Signals]:
    """Catch SIGINT and SIGTERM to end, and SIGHUP to call `reload`, inside the block.

    Handlers of Python run between two instructions of the main thread, so they only set what the loop reads, and
    `reload` must do no more. In another thread nothing is caught, because signals reach the main thread alone.
    """
    signals = Signals()
    handlers: dict[str, Any] = {"SIGINT": signals.stop, "SIGTERM": signals.stop, "SIGHUP": lambda *_: reload()}
    numbers = {getattr(signal, name): handler for name, handler in handlers.items() if hasattr(signal, name)}
    if current_thread() is not main_thread():
        yield signals
        return
    before = {number: signal.signal(number, handler) for number, handler in numbers.items()}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
