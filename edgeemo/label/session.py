"""The labelling: which face is shown, what is known of all, and label, skip and undo; for any number of threads."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np

from edgeemo.errors import DataError
from edgeemo.label.find import Candidate
from edgeemo.label.keys import assign_keys
from edgeemo.label.store import Store, is_same

log = logging.getLogger(__name__)


class OtherFaceError(Exception):
    """An answer to a face that is not shown any more, as after a double click or in a second window."""


@dataclass(frozen=True)
class Shown:
    """The face that is shown, and its crop: (side, side[, 3]) uint8."""

    face: Candidate
    pixels: np.ndarray


@dataclass(frozen=True)
class Progress:
    """What is done: labelled faces by label and by person, and the number of skipped and remaining faces."""

    labels: dict[str, int]
    people: dict[str, int]
    skipped: int
    left: int

    @property
    def labelled(self) -> int:
        """Number of labelled faces."""
        return sum(self.labels.values())


class Session:
    """Shows the faces of a queue one by one and stores the answers."""

    def __init__(
        self,
        queue: Sequence[Candidate],
        faces: Sequence[Candidate],
        store: Store,
        labels: Sequence[str],
        cut: Callable[[Candidate], np.ndarray],
    ) -> None:
        """queue: faces to show, in order. faces: all of them, for undo. cut: returns the crop, or raises DataError."""
        self.keys = assign_keys(labels)
        self._queue, self._faces, self._store, self._cut = deque(queue), faces, store, cut
        self._people = tuple(dict.fromkeys(one.person for one in faces))
        self._lock = Lock()
        self._shown: Shown | None = None
        self._show_next()

    @property
    def shown(self) -> Shown | None:
        """The face that is shown; None when all are done."""
        return self._shown

    def get_progress(self) -> Progress:
        """Return what is done, with every label and person that there is."""
        with self._lock:
            labels, people = self._store.count_labels(), self._store.count_people()
            names = dict.fromkeys([*self._people, *people])
            skipped = sum(not row.label for row in self._store.rows)
            known = dict.fromkeys([*self.keys, *labels])
            left = len(self._queue) + (self._shown is not None)
        return Progress({one: labels[one] for one in known}, {one: people[one] for one in names}, skipped, left)

    def label(self, number: int, label: str) -> None:
        """Store a label of the face with this number, and show the next one; an empty label skips it.

        Raises OtherFaceError if another face is shown, and errors as Store.add does.
        """
        with self._lock:
            if self._shown is None or self._shown.face.number != number:
                raise OtherFaceError
            self._store.add(self._shown.face, label, self._shown.pixels)
            self._show_next()

    def undo(self) -> str:
        """Take the last answer back, also one of an earlier call, and show its face again; return what was undone.

        An empty text says that there was nothing to undo. Raises errors as Store.undo does.
        """
        with self._lock:
            row = self._store.undo()
            if row is None:
                return ""
            again = next((one for one in self._faces if is_same(row, one)), None)
            if again:
                self._queue.extendleft([self._shown.face] if self._shown else [])
                self._queue.appendleft(again)
                self._show_next()
            return row.label or "skipped"

    def _show_next(self) -> None:
        """Show the first face of the queue whose photo can still be read."""
        self._shown = None
        while self._queue and self._shown is None:
            one = self._queue.popleft()
            try:
                self._shown = Shown(one, self._cut(one))
            except DataError as error:
                log.warning("left out: %s", error)
