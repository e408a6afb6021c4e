"""Threads that do what would block the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from queue import PriorityQueue
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")
Job = tuple[int, int, "Callable[[], Any] | None", "asyncio.Future[Any] | None"]
SOON, LATER = 0, 1  # jobs that complete a request before those that begin one


class Workers:
    """A number of threads with one queue; `run` is called in the event loop."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._jobs: PriorityQueue[Job] = PriorityQueue()
        self._order = count()
        self._threads = [Thread(target=self._serve, name=f"edgeemo-worker-{k}", daemon=True) for k in range(number)]
        for thread in self._threads:
            thread.start()

    def run(self, function: Callable[[], T], *, priority: int = LATER) -> asyncio.Future[T]:
        """Call a function in a worker thread; return a future of its result or exception."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.put((priority, next(self._order), function, future))
        return future

    def close(self) -> None:
        """End the threads, after the jobs that wait."""
        for _ in self._threads:
            self._jobs.put((LATER + 1, next(self._order), None, None))
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        while True:
            _, _, function, future = self._jobs.get()
            if function is None or future is None:
                return
            if not future.cancelled():
                _run(function, future)


def _run(function: Callable[[], Any], future: asyncio.Future[Any]) -> None:
    try:
        result, error = function(), None
    except BaseException as raised:  # noqa: BLE001  it is raised where the result is awaited
        result, error = None, raised
    with suppress(RuntimeError):  # the loop has ended, and nobody waits any more
        future.get_loop().call_soon_threadsafe(_set, future, result, error)


def _set(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():  # cancelled meanwhile
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
