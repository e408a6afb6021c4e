"""Faces in whole images: synthetic ones, and photos where a package brings them."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hard_faces import EYES, SCALES, crowd, find_photos, read_people, show
from PIL import Image
from scenes import draw

from edgeemo.errors import DataError, IntegrityError, UsageError
from edgeemo.faces import Detection, list_detectors, load_detector
from edgeemo.faces.merge import compute_iou
from edgeemo.faces.search import SearchDetector
from edgeemo.runtime import shipped


def centres(detections):
    return sorted((round(one.box[0] + one.box[2] / 2), round(one.box[1] + one.box[3] / 2)) for one in detections)


def test_every_face_is_found_where_it_is(detector):
    """Two synthetic faces: boxes inside them, eyes in the upper half, the right one of the person on the left."""
    places = [(60, 80, 128), (400, 200, 160)]
    found = sorted(detector.detect(draw((480, 640), *places)), key=lambda one: one.box[0])
    assert len(found) == 2
    for one, (x, y, side) in zip(found, places, strict=True):
        assert x < one.box[0] + one.box[2] / 2 < x + side
        assert len(one.landmarks) == len(detector.card.landmarks) == 6
        right, left = one.eyes
        assert x < right[0] < left[0] < x + side
        assert y < right[1] < y + 0.6 * side
        assert 0.5 <= one.score <= 1
    assert found == sorted(detector.detect(draw((480, 640), *places)), key=lambda one: one.box[0])


def test_colour_and_gray_give_the_same_faces(detector):
    """A gray image is searched as its three equal channels."""
    image = draw((480, 640), (200, 150, 128))
    assert detector.detect(image) == detector.detect(np.repeat(image[..., None], 3, axis=2))


@pytest.mark.parametrize("level", [0, 128, 255])
def test_nothing_is_found_where_there_is_no_face(detector, level):
    """In flat images and noise."""
    assert detector.detect(np.full((480, 640, 3), level, np.uint8)) == []
    noise = np.random.default_rng(level).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    assert detector.detect(noise) == []


@pytest.mark.parametrize("shape", [(16, 16), (1, 700, 3), (700, 2, 3), (33, 47)])
def test_tiny_and_narrow_images_are_searched(detector, shape):
    """Without an error, and without a face."""
    assert detector.detect(np.zeros(shape, np.uint8)) == []


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((48, 48), np.float32),
        np.zeros((48, 48, 4), np.uint8),
        np.zeros((0, 48), np.uint8),
        np.zeros(48, np.uint8),
    ],
    ids=["float", "RGBA", "empty", "one-dimensional"],
)
def test_other_arrays_are_refused(detector, image):
    """A frame of another kind is never searched in silence."""
    with pytest.raises(DataError, match=r"expected \(H, W\) or \(H, W, 3\) uint8"):
        detector.detect(image)


def test_many_finds_small_faces_once():
    """Faces of about 45 px, some over the borders of tiles, are found by `many`, each once, and missed by `few`."""
    places = [(x, y, 64) for x, y in ((60, 60), (288, 60), (288, 208), (288, 380), (520, 208), (560, 400))]
    image = draw((480, 640), *places)
    few, many = load_detector(faces="few").detect(image), load_detector(faces="many").detect(image)
    assert len(many) == len(places)
    assert len(few) < len(many)
    for left, top, side in places:
        assert sum(left < x < left + side and top < y < top + side for x, y in centres(many)) == 1


def test_a_face_that_fills_the_image_is_found_at_half_the_size(detector, photo):
    """A ready crop, as the shipped models were trained on, without any margin."""
    photo("grace_hopper.jpg")
    person = read_people(find_photos())[-1]
    tight = show(person, 150, size=(160, 160))
    (found,) = detector.detect(np.asarray(tight.image))
    assert compute_iou(tight.boxes, np.array([found.box]))[0, 0] > 0.5


@pytest.mark.parametrize("name", [name for name in EYES if name in ("astronaut.png", "grace_hopper.jpg")])
def test_eyes_of_a_photo_are_found(detector, photo, name):
    """To 12 % of the distance between them, and nothing else."""
    (found,) = detector.detect(photo(name))
    right, left = map(np.array, EYES[name])
    error = np.linalg.norm(np.array(found.eyes) - [right, left], axis=1).mean()
    assert error < 0.12 * np.linalg.norm(left - right)


@pytest.mark.parametrize("turned", [-30, 15, 45])
def test_a_turned_face_is_found_with_its_tilt(detector, photo, turned):
    """Its eyes turn with it; anticlockwise, the person's left eye rises."""
    photo("grace_hopper.jpg")
    person = read_people(find_photos())[-2]
    scene = show(person, SCALES[1], turned=turned)
    (found,) = detector.detect(np.asarray(scene.image))
    (rx, ry), (lx, ly) = found.eyes
    assert np.degrees(np.arctan2(ly - ry, lx - rx)) == pytest.approx(-turned, abs=10)


def test_a_crowd_needs_tiles(photo):
    """30 faces of 44 px in 640x480."""
    photo("grace_hopper.jpg")
    scene = crowd(read_people(find_photos()), 44, size=(640, 480), grid=(6, 5), back=None)
    found = load_detector(faces="many").detect(np.asarray(scene.image))
    overlap = compute_iou(scene.boxes, np.array([one.box for one in found]))
    assert (overlap.max(axis=1) > 0.35).sum() >= 29
    assert len(found) <= 31


def test_yunet_finds_the_same_face(yunet, photo):
    """By the path of its file, with five landmarks."""
    found = load_detector(yunet)
    assert len(found.card.landmarks) == 5
    (one,) = found.detect(photo("grace_hopper.jpg"))
    assert len(one.landmarks) == 5
    assert np.array(one.eyes) == pytest.approx(np.array(EYES["grace_hopper.jpg"]), abs=8)


def test_threads_may_share_a_detector(detector):
    """Each gets its own answer."""
    scenes = [draw((240, 320), (20 * k, 10 * k, 128)) for k in range(6)]
    expected = [detector.detect(scene) for scene in scenes]
    found: list[list[Detection]] = [[] for _ in scenes]

    def run(number: int) -> None:
        for _ in range(5):
            found[number] = detector.detect(scenes[number])

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(scenes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


def test_an_unknown_file_is_refused_with_the_known_ones(tmp_path):
    """A classifier is no detector, nor is a changed detector; neither is opened."""
    changed = tmp_path / "changed.onnx"
    changed.write_bytes(list_detectors()[0].path.read_bytes()[:-1] + b"\0")
    for path in (shipped.find("nano"), changed):
        with pytest.raises(
            IntegrityError, match=r"no known face detector.*blazeface-full.*centerface.*yunet-n.*yunet-s"
        ):
            load_detector(path)
    with pytest.raises(IntegrityError, match="cannot be read"):
        load_detector(tmp_path / "missing.onnx")
    with pytest.raises(IntegrityError, match="cannot be read"):
        load_detector(tmp_path)


def test_unknown_names_and_settings_are_refused():
    """With what is known."""
    with pytest.raises(UsageError, match="unknown detector 'haar'; known: blazeface-full, centerface, or the path"):
        load_detector("haar")
    with pytest.raises(
        UsageError, match=r"yunet-n is not packaged.*give its path.*\./yunet-n.onnx.*SHA-256 104ee26c71"
    ):
        load_detector("yunet-n")
    with pytest.raises(UsageError, match="known: few, many"):
        load_detector(faces="some")
    with pytest.raises(UsageError, match="threads is 0; expected a whole number"):
        load_detector(threads=0)
    with pytest.raises(UsageError, match=r"threshold is 1; expected a number from 0\.001 to below 1"):
        load_detector(threshold=1)
    for threshold in (0, 5e-324, "0.5", float("nan")):
        with pytest.raises(UsageError, match=r"expected a number from 0\.001"):
            load_detector(threshold=threshold)


def test_the_threshold_is_the_lowest_score():
    """A higher one leaves fewer faces."""
    image = draw((480, 640), (60, 80, 128), (400, 200, 160))
    low, high = (load_detector(threshold=score).detect(image) for score in (0.3, 0.8))
    assert len(low) >= len(high)
    assert all(one.score >= 0.8 for one in high)


def test_faces_are_found_wherever_the_image_is_in_memory(detector):
    """A view of a frame, as `frame[..., ::-1]` gives it for OpenCV's BGR."""
    image = np.repeat(draw((480, 640), (200, 150, 128))[..., None], 3, axis=2)
    image[..., 0] = image[..., 0] // 2
    assert detector.detect(image[..., ::-1]) == detector.detect(np.ascontiguousarray(image[..., ::-1]))
    assert Image.fromarray(image).size == (640, 480)


class Faint:
    """A network that is unsure of a face until it fills more than a quarter of the canvas."""

    def __init__(self, sure: float = 0.9) -> None:
        self.calls, self.sure = 0, sure

    def find(self, canvas, /, least):
        """One bright square as a face with two landmarks; its score grows with its size."""
        self.calls += 1
        rows, columns = np.nonzero(canvas[..., 0] > 200)
        if not len(rows):
            return np.zeros((0, 9))
        x, y = columns.min(), rows.min()
        width, height = columns.max() + 1 - x, rows.max() + 1 - y
        score = self.sure if width > len(canvas) / 4 else 0.3
        face = [x, y, width, height, score, x + width / 4, y, x + 3 * width / 4, y]
        return np.array([face], float)[[score >= least]]


@pytest.mark.parametrize(("side", "found"), [(60, 1), (15, 1)])
def test_a_doubtful_face_is_looked_at_from_closer(side, found):
    """And is where it was; what is sure costs no further pass."""
    network = Faint()
    card = next(card for card in list_detectors() if card.name == "blazeface-full")
    image = np.zeros((200, 200, 3), np.uint8)
    image[40 : 40 + side, 90 : 90 + side] = 255
    detections = SearchDetector(card, network, faces="few").detect(image)
    assert len(detections) == found
    assert detections[0].box == pytest.approx((90, 40, side, side), abs=2)
    assert network.calls == 2 + (side < 50)


@pytest.mark.parametrize(("threshold", "calls"), [(0.55, 3), (0.7, 2)])
def test_what_stays_doubtful_is_no_face(threshold, calls):
    """Half of the threshold is the least that is looked at again."""
    card = next(card for card in list_detectors() if card.name == "blazeface-full")
    image = np.zeros((200, 200, 3), np.uint8)
    image[40:55, 90:105] = 255
    network = Faint(sure=0.3)
    assert SearchDetector(card, network, faces="few", threshold=threshold).detect(image) == []
    assert network.calls == calls


class Square(Faint):
    """A network that takes any bright square for a face, with a score that depends on its size on the canvas."""

    def __init__(self, score):
        super().__init__()
        self.score = score

    def find(self, canvas, /, least):
        """The square with two landmarks."""
        found = super().find(canvas, 0.0)
        if len(found):
            found[0, 4] = self.score(found[0, 2] / len(canvas))
        return found[found[:, 4] >= least] if len(found) else found


@pytest.mark.parametrize(
    ("score", "found"),
    [
        (lambda size: 0.6 if size > 0.06 else 0.0, 1),  # from closer, too
        (lambda size: 0.6 if size < 0.2 else 0.32, 1),  # less from closer, but enough
        (lambda size: 0.6 if size < 0.2 else 0.28, 0),
        (lambda size: 0.6 if size < 0.2 else 0.0, 0),  # not from closer
        (lambda size: 0.9 if size < 0.2 else 0.0, 1),  # certain at once
    ],
    ids=["confirmed", "confirmed by the mean", "not confirmed", "refuted", "certain"],
)
@pytest.mark.parametrize("faces", ["few", "many"])
def test_an_uncertain_face_is_confirmed_from_closer(score, found, faces):
    """Textures look like faces at one size, faces at each."""
    card = next(card for card in list_detectors() if card.name == "blazeface-full")
    image = np.zeros((400, 400, 3), np.uint8)
    image[200:240, 220:260] = 255
    assert len(SearchDetector(card, Square(score), faces=faces).detect(image)) == found
