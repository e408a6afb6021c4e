"""Frame by frame: detections become tracks, their crops predictions, and those steady ones."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic

import numpy as np

from edgeemo.errors import UsageError
from edgeemo.faces import Detector, find_flags
from edgeemo.faces.crop import AUGMENTED
from edgeemo.runtime import Model, Prediction
from edgeemo.runtime.find import check_detections, crop_faces
from edgeemo.runtime.prediction import make_prediction
from edgeemo.watch.frame import Frame, TrackedFace, WatchedFrame
from edgeemo.watch.smoothing import Smoother, Smoothing
from edgeemo.watch.tracking import Track, Tracker


class Watcher:
    """Follows the faces of one source, frame by frame. Not thread-safe: use one per source."""

    def __init__(
        self,
        model: Model,
        detector: Detector,
        *,
        detect_every: int = 5,
        smoothing: Smoothing | None = None,
        augment: bool = False,
    ) -> None:
        """detector: searched with in every `detect_every`-th frame, and in those in which a track is uncertain.

        smoothing: by default Smoothing(). augment: average three crops of each face, as `Model.faces` does.

        Raises UsageError if `detect_every` is below 1.
        """
        if detect_every < 1:
            raise UsageError(f"detect_every is {detect_every}; expected at least 1")
        self.model = model
        self._detector = detector
        self._detect_every = detect_every
        self._scales: Sequence[float] = AUGMENTED if augment else (1.0,)
        self._tracker = Tracker()
        self._smoother = Smoother(len(model.labels), smoothing or Smoothing())
        self._since_detection = detect_every  # frames; the first one is searched

    def process(self, frame: Frame, dropped: int = 0) -> WatchedFrame:
        """Return the faces of the next frame.

        dropped: frames of the source that were dropped so far, for the result. Raises UsageError for a detector that
        returns something else than Detections.
        """
        tracks = self._locate(frame)
        for number in self._tracker.ended:
            self._smoother.drop(number)
        faces = self._classify(frame, tracks)
        shown = {face.track for face in faces}
        left = [track.detection.box for track in tracks if track.number not in shown]
        return WatchedFrame(
            frame,
            faces,
            ended=self._tracker.ended,
            latency=monotonic() - frame.captured,
            dropped=dropped,
            unclassified=(*left, *self._tracker.hidden),
        )

    def replace_model(self, model: Model) -> None:
        """Predict with another model of the same labels from the next frame on; tracks and smoothing continue."""
        self.model = model

    def _locate(self, frame: Frame) -> list[Track]:
        self._since_detection += 1
        if self._since_detection < self._detect_every and not self._tracker.needs_detection:
            return self._tracker.predict(frame.clock)
        self._since_detection = 0
        found = check_detections(self._detector.detect(frame.pixels), self._detector)
        return self._tracker.update(found, frame.clock)

    def _classify(self, frame: Frame, tracks: Sequence[Track]) -> tuple[TrackedFace, ...]:
        """Predict the emotion of each track that can be cropped, in one batch."""
        owners = {id(track.detection): track for track in tracks}
        detections = [track.detection for track in tracks]
        kept, crops, _ = crop_faces(frame.pixels, detections, self.model.card.input, self._scales)
        if not kept:
            return ()
        rows = self.model.probabilities(crops, views=len(self._scales))
        followed = [owners[id(one)] for one in kept]
        faces = [self._make_face(frame, track, row) for track, row in zip(followed, rows, strict=True)]
        return tuple(sorted(faces, key=lambda face: face.track))

    def _make_face(self, frame: Frame, track: Track, row: np.ndarray) -> TrackedFace:
        labels, least = self.model.labels, self.model.least_probability
        smoothed, steady = self._smoother.update(track.number, row, frame.clock)
        height, width = frame.pixels.shape[:2]
        found = track.detection
        return TrackedFace(
            track=track.number,
            box=found.box,
            score=found.score,
            landmarks=found.landmarks,
            prediction=make_prediction(row, labels, least),
            smoothed=_make_steady(smoothed, steady, labels, least),
            seconds=frame.clock - track.first,
            detected=track.detected,
            flags=find_flags(found, width, height, self.model.card.input),
            framing=found.framing,
        )


def _make_steady(row: np.ndarray, steady: int, labels: tuple[str, ...], least: float | None) -> Prediction:
    """Return the prediction that shows the steady label, which is not always the most probable one."""
    probability = float(row[steady])
    ranked = make_prediction(row, labels, least).probabilities
    return Prediction(labels[steady], probability, ranked, None if least is None else probability < least)
