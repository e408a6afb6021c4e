"""Which face of this frame is which of the frames before, and where faces are in frames that were not searched.

Boxes are predicted with constant velocity, as in SORT (Bewley et al. 2016). A detection belongs to the track for which
it is most likely, within the Mahalanobis gate of Deep SORT (Wojke et al. 2017), and what is left is matched by overlap.
A track that was missed is kept for a while, as in ByteTrack (Zhang et al. 2022). Times are in seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np

from edgeemo.errors import DataError, UsageError
from edgeemo.faces.detection import Box, Detection, Framing
from edgeemo.faces.merge import compute_iou
from edgeemo.watch.motion import Motion

KEEP_SECONDS = 2.0
SHOW_SECONDS = 0.4
SURE_SCORE = 0.8
MAX_DISTANCE = 16.0  # squared Mahalanobis distance, of 4 dimensions; 0.3 % of the true ones are beyond
MIN_IOU = 0.3  # of boxes beyond it; below, they are two faces


@dataclass(frozen=True)
class Track:
    """A face that is followed.

    number: from 1, in the order in which faces were confirmed, never used again. detection: where the face is now, box
    and landmarks filtered over time, with the score of its last detection. first: seconds of its first detection.
    detected: whether the detector ran now and found it.
    """

    number: int
    detection: Detection
    first: float
    detected: bool


@dataclass
class _Face:
    """What is known of a track besides its motion."""

    first: float  # seconds of the first detection
    seen: float  # of the last one
    score: float
    landmarks: np.ndarray  # (L, 2), from the centre of the box, in its widths and heights
    framing: Framing | None
    number: int = 0  # 0: not confirmed
    missed: bool = False  # the detector has run since it was seen


class Tracker:
    """Follows faces over time.

    keep: seconds after which a track that is not detected any more ends, and longest time between two calls after which
    faces are taken for the same. show: seconds for which a track that the detector misses is still answered. sure:
    score from which a face is confirmed at once; others are confirmed by a second detection, and dropped without it.

    Raises UsageError if one of them is negative or not finite, or `show` is longer than `keep`.
    """

    def __init__(self, *, keep: float = KEEP_SECONDS, show: float = SHOW_SECONDS, sure: float = SURE_SCORE) -> None:
        """Start without a face."""
        values = {"keep": keep, "show": show, "sure": sure}
        for name, value in values.items():
            if not isfinite(value) or value < 0:
                raise UsageError(f"{name} of a tracker: expected a number from 0, got {value}")
        if show > keep:
            raise UsageError(f"show of a tracker: expected at most keep, which is {keep} s, got {show}")
        self._keep, self._show, self._sure = keep, show, sure
        self._faces: list[_Face] = []
        self._motion = Motion.start(np.empty((0, 4)))
        self._now = -float("inf")
        self._numbers = 0
        self.ended: tuple[int, ...] = ()  # numbers of the tracks that the last call has ended

    @property
    def needs_detection(self) -> bool:
        """Whether the next frame should be searched: a face is new and unconfirmed, or was just missed."""
        return any(not one.number or (one.missed and self._is_shown(one)) for one in self._faces)

    @property
    def hidden(self) -> tuple[Box, ...]:
        """Boxes of the faces that are not answered: not confirmed yet, or missed for longer than `show`."""
        return tuple(
            (x, y, width, height)
            for one, (x, y, width, height) in zip(self._faces, self._motion.boxes.tolist(), strict=True)
            if not (one.number and self._is_shown(one))
        )

    def update(self, detections: Sequence[Detection], seconds: float) -> list[Track]:
        """Return the confirmed faces of a frame that was searched, the oldest first.

        seconds: when the frame was captured, on any clock. Times that go back by up to `keep` count as equal; after a
        longer way back or gap, all tracks end.

        Raises DataError for a time, box, score or landmark that is not finite, or a box without an area.
        """
        boxes = _check(detections)
        self.ended = ()
        self._move(seconds)
        pairs = self._match(boxes)
        self._take(detections, pairs)
        matched = {row for row, _ in pairs}
        for row, one in enumerate(self._faces):
            one.missed = row not in matched
        self._drop([not one.missed or bool(one.number and self._age(one) <= self._keep) for one in self._faces])
        self._add(detections, boxes, set(range(len(detections))) - {column for _, column in pairs})
        return self._answer(detected=True)

    def predict(self, seconds: float) -> list[Track]:
        """Return the confirmed faces of a frame that was not searched; seconds as for `update`."""
        self.ended = ()
        self._move(seconds)
        self._drop([not one.missed or self._age(one) <= self._keep for one in self._faces])
        return self._answer(detected=False)

    def _move(self, seconds: float) -> None:
        """Predict all tracks; end them after a gap."""
        if not isfinite(seconds):
            raise DataError(f"expected the time of a frame in seconds, got {seconds}")
        passed = seconds - self._now
        if self._faces and abs(passed) > self._keep:
            self._drop([False] * len(self._faces))
        self._now = seconds if abs(passed) > self._keep else max(seconds, self._now)
        if self._faces and passed > 0:
            self._motion.move(passed)

    def _match(self, boxes: np.ndarray) -> list[tuple[int, int]]:
        """Return rows of tracks and of boxes that belong together, and move the tracks there."""
        distances = self._motion.compute_distances(boxes)
        unlikely = distances + self._motion.vagueness[:, None]  # twice the negative log-likelihood
        near = _pair(np.where(distances <= MAX_DISTANCE, unlikely, np.inf))
        overlap = compute_iou(self._motion.boxes, boxes)
        for row, column in near:
            overlap[row] = overlap[:, column] = 0
        jumped = _pair(np.where(overlap >= MIN_IOU, -overlap, np.inf))
        for pairs, move in ((near, self._motion.correct), (jumped, self._motion.restart)):
            if pairs:
                rows, columns = np.array(pairs).T
                move(rows, boxes[columns])
        return near + jumped

    def _take(self, detections: Sequence[Detection], pairs: list[tuple[int, int]]) -> None:
        """Note what was detected of the matched tracks."""
        for row, column in pairs:
            one, found = self._faces[row], detections[column]
            one.seen, one.score, one.framing = self._now, found.score, found.framing
            one.landmarks = _to_shape(found)
            self._confirm(one)

    def _add(self, detections: Sequence[Detection], boxes: np.ndarray, columns: Iterable[int]) -> None:
        """Start tracks, those with the highest score first."""
        order = sorted(columns, key=lambda column: -detections[column].score)
        self._motion = self._motion.join(Motion.start(boxes[order]))
        for column in order:
            found = detections[column]
            one = _Face(self._now, self._now, found.score, _to_shape(found), found.framing)
            if one.score >= self._sure:
                self._confirm(one)
            self._faces.append(one)

    def _confirm(self, face: _Face) -> None:
        if not face.number:
            self._numbers += 1
            face.number = self._numbers

    def _drop(self, kept: list[bool]) -> None:
        """Forget the other tracks."""
        if all(kept):
            return
        self.ended += tuple(
            sorted(one.number for one, keep in zip(self._faces, kept, strict=True) if one.number > 0 and not keep)
        )
        self._faces = [one for one, keep in zip(self._faces, kept, strict=True) if keep]
        self._motion = self._motion.select(np.array(kept))

    def _age(self, face: _Face) -> float:
        return self._now - face.seen

    def _is_shown(self, face: _Face) -> bool:
        return not face.missed or self._age(face) <= self._show

    def _answer(self, *, detected: bool) -> list[Track]:
        tracks = [
            Track(one.number, _to_detection(one, box), one.first, detected and not one.missed)
            for one, box in zip(self._faces, self._motion.boxes, strict=True)
            if one.number and self._is_shown(one)
        ]
        return sorted(tracks, key=lambda track: track.number)


def _pair(costs: np.ndarray) -> list[tuple[int, int]]:
    """Return rows and columns of (N, M) costs, the lowest first, each row and column once, none of infinite cost."""
    rows, columns = np.nonzero(np.isfinite(costs))
    pairs: dict[int, int] = {}
    used = set[int]()
    for k in np.argsort(costs[rows, columns], kind="stable"):
        row, column = int(rows[k]), int(columns[k])
        if row not in pairs and column not in used:
            pairs[row] = column
            used.add(column)
    return list(pairs.items())


def _check(detections: Sequence[Detection]) -> np.ndarray:
    """Return the boxes, (N, 4)."""
    for one in detections:
        numbers = [*one.box, one.score, *(value for point in one.landmarks for value in point)]
        if not np.isfinite(numbers).all() or min(one.box[2:]) <= 0:
            raise DataError(f"expected a detection of finite numbers and a box with an area, got {one}")
    return np.array([one.box for one in detections], float).reshape(-1, 4)


def _to_shape(found: Detection) -> np.ndarray:
    """Return where the landmarks lie in the box, (L, 2)."""
    x, y, width, height = found.box
    return (np.array(found.landmarks, float).reshape(-1, 2) - [x, y]) / [width, height]


def _to_detection(face: _Face, box: np.ndarray) -> Detection:
    x, y, width, height = box.tolist()
    points = face.landmarks * [width, height] + [x, y]
    landmarks = tuple((px, py) for px, py in points.tolist())
    return Detection((x, y, width, height), face.score, landmarks, face.framing)
