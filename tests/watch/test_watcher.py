"""From frames to steady predictions: when the detector runs, and what a followed face carries."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

import edgeemo
from edgeemo.errors import UsageError
from edgeemo.faces import Detection, load_detector
from edgeemo.watch.frame import Frame
from edgeemo.watch.scene import CLEAR, Scene
from edgeemo.watch.smoothing import Smoothing
from edgeemo.watch.watcher import Watcher

FPS = 25


class Scripted:
    """A detector that finds what a list says, one item per call."""

    def __init__(self, *answers: Sequence[Detection]) -> None:
        self.answers = list(answers)
        self.calls = 0

    def detect(self, _: np.ndarray) -> list[Detection]:
        """Return the next item, or the last one again."""
        answer = self.answers[min(self.calls, len(self.answers) - 1)]
        self.calls += 1
        return list(answer)


def make_detection(x: float, y: float, side: float = 100.0, score: float = 0.9) -> Detection:
    eyes = ((x + 0.3 * side, y + 0.35 * side), (x + 0.7 * side, y + 0.35 * side))
    return Detection((x, y, side, side), score, eyes)


def make_frame(number: int, pixels: np.ndarray | None = None) -> Frame:
    if pixels is None:
        pixels = np.full((240, 320, 3), 100, np.uint8)
    return Frame(pixels, number, time.monotonic(), 0.0, number / FPS)


@pytest.fixture(scope="module")
def model() -> Iterator[edgeemo.Model]:
    with edgeemo.load("nano") as opened:
        yield opened


def test_a_rate_of_searches_below_one_is_refused(model: edgeemo.Model) -> None:
    with pytest.raises(UsageError, match="detect_every is 0"):
        Watcher(model, Scripted([]), detect_every=0)


def test_the_detector_runs_on_every_nth_frame(model: edgeemo.Model) -> None:
    """A sure face that stays where it is needs no more."""
    detector = Scripted([make_detection(50, 50)])
    watcher = Watcher(model, detector, detect_every=4)
    searched = [watcher.process(make_frame(number)).faces[0].detected for number in range(9)]
    assert detector.calls == 3
    assert searched == [True, False, False, False, True, False, False, False, True]


def test_a_face_that_was_missed_is_searched_in_the_next_frame(model: edgeemo.Model) -> None:
    """Not only after as many frames as usual."""
    detector = Scripted([make_detection(50, 50)], [], [make_detection(50, 50)])
    watcher = Watcher(model, detector, detect_every=5)
    watched = [watcher.process(make_frame(number)) for number in range(7)]
    assert detector.calls == 3  # frames 0, 5 and 6
    assert [len(one.faces) for one in watched] == [1] * 7
    assert [one.faces[0].detected for one in watched] == [True, False, False, False, False, False, True]


def test_a_face_keeps_its_track_and_a_new_one_gets_the_next(model: edgeemo.Model) -> None:
    detector = Scripted([make_detection(50, 50)], [make_detection(52, 50), make_detection(200, 50)])
    watcher = Watcher(model, detector, detect_every=1)
    assert [face.track for face in watcher.process(make_frame(0)).faces] == [1]
    assert [face.track for face in watcher.process(make_frame(1)).faces] == [1, 2]


def test_a_track_that_is_lost_ends(model: edgeemo.Model) -> None:
    """And its number is named once."""
    detector = Scripted([make_detection(50, 50)], [])
    watcher = Watcher(model, detector, detect_every=1)
    watched = [watcher.process(make_frame(number)) for number in range(100)]
    assert [number for one in watched for number in one.ended] == [1]
    assert not watched[-1].faces


def test_a_face_outside_the_frame_is_not_classified(model: edgeemo.Model) -> None:
    watcher = Watcher(model, Scripted([make_detection(500, 50), make_detection(20, 20)]))
    watched = watcher.process(make_frame(0))
    assert [face.box[:2] for face in watched.faces] == [pytest.approx((20, 20))]
    assert [box[:2] for box in watched.unclassified] == [pytest.approx((500, 50))]


def test_faces_that_are_not_shown_are_named_for_blurring(model: edgeemo.Model) -> None:
    """One that is not confirmed, and one that was missed for longer than it is shown."""
    unsure = make_detection(50, 50, score=0.6)
    watcher = Watcher(model, Scripted([unsure], [unsure], []), detect_every=1)
    watched = [watcher.process(make_frame(number)) for number in range(2 + FPS)]
    assert (len(watched[0].faces), len(watched[0].unclassified)) == (0, 1)
    assert (len(watched[1].faces), len(watched[1].unclassified)) == (1, 0)
    assert (len(watched[-1].faces), len(watched[-1].unclassified)) == (0, 1)


def test_smoothing_keeps_the_label_of_a_flicker(model: edgeemo.Model) -> None:
    """The raw prediction of the frame is there beside it; the steady label's probability is its own."""
    rows = iter(np.eye(len(model.labels))[[0] * 20 + [1] + [0] * 3])
    watcher = Watcher(model, Scripted([make_detection(50, 50)]), detect_every=1)
    watcher.model = Answering(model, rows)  # type: ignore[assignment]
    watched = [watcher.process(make_frame(number)) for number in range(24)]
    raw = [one.faces[0].prediction.label for one in watched]
    steady = [one.faces[0].smoothed for one in watched]
    assert raw[20] == model.labels[1]
    assert {one.label for one in steady} == {model.labels[0]}
    assert 0.5 < steady[20].probability < 1
    assert steady[20].probability == steady[20].probabilities[model.labels[0]]


class Answering:
    """A model with given probabilities."""

    def __init__(self, model: edgeemo.Model, rows: Iterator[np.ndarray]) -> None:
        self.card, self.labels, self.least_probability = model.card, model.labels, 0.7
        self._rows = rows

    def probabilities(self, crops: np.ndarray, *, views: int) -> np.ndarray:
        """Return the next rows."""
        return np.array([next(self._rows) for _ in range(len(crops) // views)])


def test_without_smoothing_both_predictions_are_the_same(model: edgeemo.Model) -> None:
    scene = Scene(people=2, seed=3)
    watcher = Watcher(model, load_detector(faces="few"), smoothing=Smoothing(0, 0, 0))
    for number in range(0, 100, 10):
        for face in watcher.process(make_frame(number, scene.frame(number)[0])).faces:
            assert face.smoothed.label == face.prediction.label
            assert face.smoothed.probabilities == pytest.approx(face.prediction.probabilities)


def test_a_face_is_predicted_as_in_a_photo(model: edgeemo.Model) -> None:
    """In a frame that is searched, with the same crops as `Model.faces`."""
    pixels, _ = Scene(people=1, seed=3).frame(0)
    detector = load_detector(faces="few")
    (photo,) = model.faces(pixels, color="rgb", detector=detector)
    (watched,) = Watcher(model, detector, augment=True).process(make_frame(0, pixels)).faces
    assert watched.prediction.probabilities == pytest.approx(photo.prediction.probabilities, abs=1e-6)
    assert watched.box == pytest.approx(photo.box)
    assert watched.flags == photo.flags


def test_emotions_of_a_scene_are_seen() -> None:
    """Between detections, too; the packaged model recognises most of these drawn faces."""
    scene = Scene(people=2, seed=3, labels=CLEAR)
    with edgeemo.load("small") as small:
        watcher = Watcher(small, load_detector(faces="few"), detect_every=5)
        right = total = 0
        for number in range(250):
            pixels, truths = scene.frame(number)
            for face in watcher.process(make_frame(number, pixels)).faces:
                nearest = min(truths, key=lambda truth: abs(truth.box[0] - face.box[0]))
                right, total = right + (face.smoothed.label == nearest.label), total + 1
    assert total > 450
    assert right / total > 0.6


def test_a_replaced_model_answers_from_the_next_frame_on(model: edgeemo.Model) -> None:
    watcher = Watcher(model, Scripted([make_detection(50, 50)]))
    first = watcher.process(make_frame(0)).faces[0]
    with edgeemo.load("base") as other:
        watcher.replace_model(other)
        second = watcher.process(make_frame(1)).faces[0]
    assert second.track == first.track
    assert second.prediction.probabilities != first.prediction.probabilities


def test_the_latency_counts_from_the_capture(model: edgeemo.Model) -> None:
    watcher = Watcher(model, Scripted([]))
    frame = Frame(np.zeros((240, 320, 3), np.uint8), 0, time.monotonic() - 3.0, 0.0)
    assert 3.0 < watcher.process(frame, dropped=7).latency < 5.0
    assert watcher.process(frame, dropped=7).dropped == 7


def test_a_detector_of_something_else_is_refused(model: edgeemo.Model) -> None:
    class Wrong:
        def detect(self, _: np.ndarray) -> list[int]:
            return [1]

    with pytest.raises(UsageError, match="expected an iterable of"):
        Watcher(model, Wrong()).process(make_frame(0))  # type: ignore[arg-type]
