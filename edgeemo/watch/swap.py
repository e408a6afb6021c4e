"""Replace the model of a running program by a new file under the same name, without missing a frame.

The new one is loaded and checked in a background thread; the old one stays in use until the new one has passed, and for
good if it does not.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import TYPE_CHECKING

import numpy as np

from edgeemo.errors import EdgeemoError, IntegrityError, UsageError
from edgeemo.names import escape_message
from edgeemo.runtime import Model, golden
from edgeemo.watch.notify import Notifier

if TYPE_CHECKING:
    from typing_extensions import Self

log = logging.getLogger(__name__)
EXACT = "onnxruntime"  # on a CPU: logits as in the card. Rounding elsewhere differs by unmeasured amounts: labels count


class ModelHolder:
    """Holds the model of the loop; use it in a with-block, or close it.

    swaps, failures: how many new models have replaced the one before, and how many were refused.
    """

    def __init__(
        self,
        open_model: Callable[[], Model],
        *,
        notifier: Notifier | None = None,
        retire: Callable[[Model], None] = Model.close,
    ) -> None:
        """open_model: opens the model's file, now and at each request; what it raises now is raised.

        notifier: gets the start and the end of a reload. retire: gets a model that was replaced; by default it is
        closed at once.
        """
        self._open, self._notifier, self._retire = open_model, notifier or Notifier({}), retire
        self._model = open_model()
        self._next: Model | None = None
        self._lock = Lock()  # of _next
        self._requests: SimpleQueue[bool] = (
            SimpleQueue()
        )  # True: load; False: end. Its put may be interrupted by itself
        self.swaps = self.failures = 0
        self._thread = Thread(target=self._serve, name="edgeemo-model", daemon=True)
        self._thread.start()

    def request(self) -> None:
        """Load the file again, in the background; may be called from a signal handler.

        Requests that arrive while one is waiting are served by the same load.
        """
        self._requests.put(True)

    def take(self) -> Model:
        """Return the model for the next frame; the one before is retired: by default no frame may use it any more."""
        with self._lock:
            replacement, self._next = self._next, None
        if replacement is not None:
            old, self._model = self._model, replacement
            self._retire(old)
            self.swaps += 1
            log.info("model swapped: %s, sha256 %s", replacement.path.name, replacement.card.sha256[:12])
        return self._model

    def close(self) -> None:
        """End the background thread, after the load that it is at, and close all models."""
        self._requests.put(False)
        self._thread.join()
        if self._next is not None:
            self._next.close()
        self._model.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve(self) -> None:
        while self._requests.get():
            if not self._drain():
                return
            self._notifier.reloading()
            self._load()
            self._notifier.ready()

    def _drain(self) -> bool:
        """Drop the requests that wait; return whether to go on."""
        try:
            while self._requests.get_nowait():
                pass
        except Empty:
            return True
        return False

    def _load(self) -> None:
        """Offer a new model to `take`, or log why there is none."""
        with self._lock:
            current = self._next or self._model
        try:
            new = self._open_checked(current)
        except Exception as error:  # noqa: BLE001  whatever is wrong with a file, the model that is loaded stays in use
            self._refuse(error)
            return
        if new is not None:
            with self._lock:
                unused, self._next = self._next, new
            if unused is not None:
                unused.close()

    def _open_checked(self, current: Model) -> Model | None:
        """Return a model that may replace the current one; None if it is the same."""
        new = self._open()
        try:
            if new.card != current.card:
                check_replacement(new, current)
                return new
        except BaseException:
            new.close()
            raise
        new.close()
        log.info("model not swapped: %s is unchanged", new.path.name)
        return None

    def _refuse(self, error: Exception) -> None:
        self.failures += 1
        reason = str(error) if isinstance(error, EdgeemoError) else f"{type(error).__name__}: {error}"
        log.error("model not swapped, the old one stays in use: %s", escape_message(reason))


def check_replacement(new: Model, current: Model) -> None:
    """Check that a model reports the labels of the current one, and computes what its card says on this machine.

    The logits of the packaged golden faces are compared with the card's; of a card without them, finite probabilities
    are required. Neither changes an estimate of the prior `auto`.

    Raises UsageError for other labels, IntegrityError for other answers.
    """
    if (new.label_set.name, new.labels) != (current.label_set.name, current.labels):
        raise UsageError(
            f"{new.path} reports {', '.join(new.labels)} ({new.label_set.name}); expected {', '.join(current.labels)} "
            f"({current.label_set.name}), as the model that runs: restart to change labels"
        )
    logits = new.logits(golden.golden_batch(new.card.input))
    if not np.isfinite(new.merge_probabilities(logits)).all():
        raise IntegrityError(f"{new.path} returned probabilities that are not finite; rebuild it")
    found = golden.compare(new.card, logits)
    if found and (found.changed or (new.backend.name == EXACT and not found.passed)):
        raise IntegrityError(
            f"{new.path} fails its self-check: {found.changed} of {found.faces} labels differ from its card, and "
            f"logits by up to {found.largest:.3f} (at most {golden.TOLERANCE}).  See  edgeemo doctor --check FILE"
        )
