"""The model that serves, used by several threads, and replaced while it is used."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

from edgeemo.runtime import Model
from edgeemo.watch.notify import Notifier
from edgeemo.watch.swap import ModelHolder


class Models:
    """Lends a model to each worker; close it at the end.

    ONNX Runtime runs the calls of several threads in parallel, so all share one model. Other backends hold one input at
    a time: each of `workers` threads gets a model of its own, opened from the same file.
    """

    def __init__(self, open_model: Callable[[], Model], *, workers: int, notifier: Notifier | None = None) -> None:
        """open_model: opens the file, now and at each reload; what it raises now is raised."""
        self._workers = workers
        self._lock = Lock()
        self._lent: Counter[int] = Counter()  # by identity: how many threads use a model
        self._retired: dict[int, Model] = {}  # replaced, and closed after their last use
        self._holder = ModelHolder(open_model, notifier=notifier, retire=self._retire)
        self.current = self._holder.take()
        self._free = self._copy(self.current)
        self._copies = {id(model) for model in self._free}  # those of the current file

    @property
    def swaps(self) -> int:
        """How many models have replaced the one before."""
        return self._holder.swaps

    @property
    def failures(self) -> int:
        """How many new models were refused."""
        return self._holder.failures

    def request_reload(self) -> None:
        """Load the file again, in the background; may be called from a signal handler."""
        self._holder.request()

    @contextmanager
    def lend(self) -> Iterator[Model]:
        """Yield the model for one job; it is not closed inside the block. At most `workers` threads may be inside."""
        with self._lock:
            newest = self._holder.take()
            if newest is not self.current:
                self._replace(newest)
            model = self._free.pop() if self._free else self.current
            self._lent[id(model)] += 1
        try:
            yield model
        finally:
            with self._lock:
                self._give_back(model)

    def close(self) -> None:
        """Close all models; no thread may use one any more."""
        with self._lock:
            for model in (*self._free, *self._retired.values()):
                if model is not self.current:
                    model.close()
            self._free.clear()
            self._retired.clear()
        self._holder.close()

    def _copy(self, model: Model) -> list[Model]:
        """Return the models to lend; none if one serves all threads."""
        if model.backend.concurrent:
            return []
        return [model, *(copy.copy(model) for _ in range(self._workers - 1))]

    def _replace(self, newest: Model) -> None:
        for model in self._free:
            if model is not self.current:
                model.close()
        self.current, self._free = newest, self._copy(newest)
        self._copies = {id(model) for model in self._free}

    def _give_back(self, model: Model) -> None:
        self._lent[id(model)] -= 1
        if self._lent[id(model)]:
            return
        del self._lent[id(model)]
        if self._retired.pop(id(model), None):
            model.close()
        elif id(model) in self._copies:
            self._free.append(model)
        elif model is not self.current:
            model.close()

    def _retire(self, model: Model) -> None:
        """Close a replaced model, or let its last user do it; called by `lend`, with the lock."""
        if self._lent[id(model)]:
            self._retired[id(model)] = model
        else:
            model.close()
