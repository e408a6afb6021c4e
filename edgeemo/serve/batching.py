"""Classify crops of several requests in one call of the model.

Crops that arrive while all workers classify are in the next batch, at no delay. With a free worker a batch waits for
further crops, up to a stated delay, while other requests are in work: their crops, or those of the next requests of
the same clients, may come. A client that is alone never waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from edgeemo.runtime import Prediction
from edgeemo.serve.problems import make_replaced_problem
from edgeemo.serve.workers import SOON, Workers

MOST = 64  # crops in one call, as in Model.probabilities
Prepare = Callable[[], np.ndarray]  # called in a worker thread; what it raises is raised for its request alone
Classify = Callable[[np.ndarray, int], Sequence[Prediction]]  # crops and views -> a prediction per face


@dataclass(eq=False)
class _Waiting:
    prepare: Prepare
    crops: int
    views: int
    since: float
    future: asyncio.Future[list[Prediction]]


class Batcher:
    """Gathers the crops of requests; used by the event loop alone."""

    def __init__(
        self,
        workers: Workers,
        classify: Classify,
        *,
        delay: float,
        count_requests: Callable[[], int],
        observe: Callable[[int], None] = lambda _: None,
    ) -> None:
        """delay: seconds that a batch waits at most while a worker is free.

        count_requests: how many are in work, with those whose crops wait. observe: is given the crops of each call.
        """
        self._workers, self._classify, self._delay = workers, classify, delay
        self._count_requests, self._observe = count_requests, observe
        self._waiting: deque[_Waiting] = deque()
        self._running = 0  # batches
        self._timer: asyncio.TimerHandle | None = None

    def predict(self, prepare: Prepare, *, crops: int, views: int = 1) -> asyncio.Future[list[Prediction]]:
        """Return a future of the predictions of one request: one per `views` crops that `prepare` returns."""
        future: asyncio.Future[list[Prediction]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(prepare, crops, views, perf_counter(), future))
        self._start()
        return future

    def _start(self) -> None:
        while self._waiting and self._running < self._workers.number and self._is_due():
            batch = self._take()
            self._running += 1
            job = self._workers.run(lambda batch=batch: self._run(batch), priority=SOON)  # type: ignore[misc]
            job.add_done_callback(lambda done, batch=batch: self._finish(batch, done))  # type: ignore[misc]

    def _is_due(self) -> bool:
        rest = self._waiting[0].since + self._delay - perf_counter()
        full = sum(one.crops for one in self._waiting) >= MOST
        alone = not self._running and len(self._waiting) >= self._count_requests()
        if full or rest <= 0 or alone:
            return True
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(rest, self._wake)
        return False

    def _wake(self) -> None:
        self._timer = None
        self._start()

    def _take(self) -> list[_Waiting]:
        """Return the oldest crops that one call takes: at least one request, and only those with as many views."""
        batch = [self._waiting.popleft()]
        crops = batch[0].crops
        while self._waiting and self._waiting[0].views == batch[0].views and crops + self._waiting[0].crops <= MOST:
            crops += self._waiting[0].crops
            batch.append(self._waiting.popleft())
        return batch

    def _run(self, batch: Sequence[_Waiting]) -> list[list[Prediction] | Exception]:
        """Return the predictions of each request, or what is wrong with its crops; in a worker thread."""
        results: list[list[Prediction] | Exception] = []
        prepared: list[np.ndarray] = []
        for one in batch:
            try:
                prepared.append(one.prepare())
                results.append([])
            except Exception as error:  # noqa: BLE001  it is raised for its request
                results.append(error)
        if prepared:
            views = batch[0].views
            if len({crops.shape[1:] for crops in prepared}) > 1:
                raise make_replaced_problem()
            rest = list(self._classify(np.concatenate(prepared), views))
            counts = iter([len(crops) // views for crops in prepared])
            for row in results:
                if isinstance(row, list):
                    count = next(counts)
                    row[:], rest = rest[:count], rest[count:]
        return results

    def _finish(self, batch: Sequence[_Waiting], job: asyncio.Future[list[list[Prediction] | Exception]]) -> None:
        self._running -= 1
        self._observe(sum(one.crops for one in batch))
        error = job.exception()
        results = [error] * len(batch) if error else job.result()
        for one, result in zip(batch, results, strict=True):
            if one.future.done():  # cancelled
                continue
            if isinstance(result, BaseException):
                one.future.set_exception(result)
            else:
                one.future.set_result(result)  # type: ignore[arg-type]  # of a list without errors
        self._start()
