"""Model.faces: every face of a whole image with its box and its emotion, whatever the image came as."""

from __future__ import annotations

import logging
import pickle
import threading
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scenes import draw

import edgeemo
from edgeemo.errors import DataError, UsageError
from edgeemo.faces import Detection, Framing, crop, load_detector
from edgeemo.faces.crop import AUGMENTED
from edgeemo.runtime import Face, Model, find

PLACES = [(60, 80, 128), (400, 200, 160)]
EYES = ((40.0, 40.0), (72.0, 40.0))
TURNED_BACK = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}


@dataclass(frozen=True)
class Fixed:
    """A detector that always answers the same."""

    detections: tuple[Detection, ...]

    def detect(self, _: np.ndarray) -> list[Detection]:
        """Answer as if these were the image's faces."""
        return list(self.detections)


@pytest.fixture(scope="module")
def model() -> Model:
    return edgeemo.load("nano")


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    """Two faces in colour, which differs from gray and from its channels in reverse."""
    gray = draw((480, 640), *PLACES)
    return np.stack([gray, gray // 2 + 40, gray // 3], axis=2)


def encode(image: np.ndarray, **options: object) -> bytes:
    Image.fromarray(image).save(file := BytesIO(), "PNG", **options)
    return file.getvalue()


def test_every_face_is_found_and_classified_as_its_crop_would_be(model: Model, scene: np.ndarray) -> None:
    """With the detector's box, score and landmarks, the highest score first."""
    found = model.faces(scene, color="rgb", augment=False)
    detections = load_detector().detect(scene)
    assert [(one.box, one.score, one.landmarks) for one in found] == [
        (one.box, one.score, one.landmarks) for one in detections
    ]
    assert len(found) == 2
    for face, detection in zip(found, detections, strict=True):
        alone = model.predict(crop(scene, detection, model.card.input))
        assert face.prediction.label == alone.label
        assert face.prediction.probability == pytest.approx(alone.probability, abs=1e-6)
        assert face.prediction.unsure is (face.prediction.probability < model.card.answers.least_probability)
        assert face.flags == ()


def test_a_face_is_cropped_as_its_detection_is(model: Model, scene: np.ndarray) -> None:
    """By its landmarks, or, without any, by its detector's framing."""
    framed = (Detection((60.0, 80.0, 128.0, 128.0), 0.9, framing=Framing(2.7, 0.39)),)
    for detector in (load_detector(), Fixed(framed)):
        for face, one in zip(model.faces(scene, color="rgb", detector=detector), detector.detect(scene), strict=True):
            expected = crop(scene, one, model.card.input, scale=1.2)
            np.testing.assert_array_equal(crop(scene, face, model.card.input, scale=1.2), expected)


def test_all_faces_of_an_image_run_as_one_batch(
    model: Model, scene: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network is not called once per face."""
    sizes: list[int] = []
    logits = model.backend.logits
    monkeypatch.setattr(model.backend, "logits", lambda batch: (sizes.append(len(batch)), logits(batch))[1])
    model.faces(scene, color="rgb")
    model.faces(scene, color="rgb", augment=False)
    assert sizes == [2 * len(AUGMENTED), 2]


def test_augmentation_averages_three_crops(model: Model, scene: np.ndarray) -> None:
    """Of the contract's square, a smaller and a larger one; their probabilities have the same weight."""
    for face, detection in zip(model.faces(scene, color="rgb"), load_detector().detect(scene), strict=True):
        rows = model.probabilities(
            np.stack([crop(scene, detection, model.card.input, scale=scale) for scale in (0.9, 1.0, 1.2)])
        )
        assert list(map(face.prediction.probabilities.get, model.labels)) == pytest.approx(rows.mean(axis=0), abs=1e-6)
        assert not np.allclose(rows[0], rows[2], atol=1e-3)


def test_path_bytes_file_pillow_image_and_array_agree(model: Model, scene: np.ndarray, tmp_path: Path) -> None:
    """Also BGR and alpha, where the caller states it; a file states its own order."""
    expected = model.faces(scene, color="rgb")
    content = encode(scene)
    (tmp_path / "photo.png").write_bytes(content)
    for same in (tmp_path / "photo.png", str(tmp_path / "photo.png"), content, BytesIO(content)):
        assert model.faces(same) == model.faces(same, color="bgr") == expected
    assert model.faces(Image.fromarray(scene)) == expected
    assert model.faces(scene[..., ::-1], color="bgr") == expected
    opaque = np.full(scene.shape[:2], 255, np.uint8)
    assert model.faces(np.dstack([scene, opaque]), color="rgb") == expected
    assert model.faces(np.dstack([scene[..., ::-1], opaque]), color="bgr") == expected
    assert model.faces(scene, color="bgr") != expected


def test_gray_arrays_need_no_order(model: Model) -> None:
    """With and without an axis for the one channel."""
    gray = draw((480, 640), *PLACES)
    assert model.faces(gray) == model.faces(gray[..., None]) == model.faces(np.stack([gray] * 3, axis=2), color="bgr")
    assert len(model.faces(gray)) == 2


@pytest.mark.parametrize("channels", [3, 4])
def test_a_colour_array_without_its_order_is_refused(model: Model, channels: int) -> None:
    """With both orders: a frame of OpenCV must not be taken for RGB."""
    with pytest.raises(UsageError, match=r'color="rgb", or color="bgr" for a frame of OpenCV'):
        model.faces(np.zeros((48, 48, channels), np.uint8))
    with pytest.raises(UsageError, match="unknown color 'gray'; known: rgb, bgr"):
        model.faces(np.zeros((48, 48, channels), np.uint8), color="gray")


@pytest.mark.parametrize("method", ["predict", "predict_batch"])
def test_a_crop_may_be_bgr(model: Model, face: np.ndarray, method: str) -> None:
    """RGB is the default there."""
    colour = np.stack([face[..., 0], face[..., 0] // 2, face[..., 0] // 3], axis=2)
    predict = getattr(model, method)
    wrap = (lambda image: [image]) if method == "predict_batch" else (lambda image: image)
    assert predict(wrap(colour)) == predict(wrap(colour[..., ::-1]), color="bgr") != predict(wrap(colour), color="bgr")
    with pytest.raises(UsageError, match="unknown color"):
        predict(wrap(colour), color="gbr")


@pytest.mark.parametrize("orientation", TURNED_BACK)
def test_boxes_are_those_of_the_upright_image(model: Model, scene: np.ndarray, orientation: int) -> None:
    """A phone stores a photo turned, and how in EXIF."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = np.asarray(Image.fromarray(scene).transpose(TURNED_BACK[orientation]))
    assert model.faces(encode(turned, exif=exif)) == model.faces(scene, color="rgb")


def test_an_image_without_a_face_gives_none(model: Model) -> None:
    """And no error."""
    assert model.faces(np.full((480, 640), 110, np.uint8)) == []


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((48, 48), np.float32), "expected .* uint8"),
        (np.zeros((48, 48, 2), np.uint8), "expected .* uint8"),
        (np.zeros((8, 48), np.uint8), "at least 16 px"),
        (b"no image", "image of 8 bytes"),
        (7, "expected an image as numpy array"),
    ],
    ids=["float", "two channels", "narrow", "no image", "a number"],
)
def test_what_is_no_image_is_refused(model: Model, image: object, message: str) -> None:
    """Before any face is searched."""
    with pytest.raises(DataError, match=message):
        model.faces(image)  # type: ignore[arg-type]


def test_any_detector_may_find_the_faces(model: Model, scene: np.ndarray) -> None:
    """Its detections are the faces; a name is no detector."""
    one = Detection((20, 20, 80, 80), 0.7, EYES)
    (found,) = model.faces(scene, color="rgb", detector=Fixed((one,)))
    assert (found.box, found.score, found.landmarks) == (one.box, one.score, one.landmarks)
    assert str(found).endswith("face of 80x80 px at 20, 20, score 0.70")
    with pytest.raises(UsageError, match=r"'yunet.onnx' is no detector; .*load_detector"):
        model.faces(scene, color="rgb", detector="yunet.onnx")  # type: ignore[arg-type]


def test_a_poor_face_is_flagged_and_a_good_one_is_not(model: Model, scene: np.ndarray) -> None:
    """By where its square lies in this image, as `find_flags` says; the text names the flags."""
    small, cut = (Detection((x, 200, 25, 25), 0.7, ((x, 200.0), (x + side, 200.0))) for x, side in ((300, 8), (2, 40)))
    good = Detection((20, 20, 80, 80), 0.7, EYES)
    found = model.faces(scene, color="rgb", detector=Fixed((small, cut, good)))
    assert [one.flags for one in found] == [("small",), ("clipped",), ()]
    assert str(found[0]).endswith(", small")


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (Detection((300, 300, 6, 6), 0.9, ((301, 302), (304, 302))), "square of 8 px; expected 16 to"),
        (Detection((3000, 300, 60, 60), 0.9, ((3010, 302), (3040, 302))), "lies outside the image of 640x480 px"),
        (Detection((0, 0, 9000, 9000), 0.9, ((2000, 300), (5000, 300))), "square of 8400 px; expected 16 to"),
    ],
    ids=["too small", "outside", "too large"],
)
def test_a_face_that_cannot_be_cropped_costs_no_other_face(
    model: Model, scene: np.ndarray, caplog: pytest.LogCaptureFixture, other: Detection, reason: str
) -> None:
    """It is left out, and not in silence."""
    good = Detection((20, 20, 80, 80), 0.7, EYES)
    with caplog.at_level(logging.WARNING):
        found = model.faces(scene, color="rgb", detector=Fixed((other, good)))
    assert [one.score for one in found] == [0.7]
    assert f"1 face left out: the face {'' if 'outside' in reason else 'gives a '}" in caplog.text
    assert reason in caplog.text
    assert model.find_faces(scene, color="rgb", detector=Fixed((other,))).faces == []


@pytest.mark.parametrize(("distance", "expected"), [(5.6, 1), (6.2, 1), (2500, 1)])
def test_augmentation_leaves_no_face_out(model: Model, distance: float, expected: int) -> None:
    """A square near a limit is varied within it: the smallest one that can be cropped, and one near the largest."""
    image = np.zeros((600, 600), np.uint8)
    face = Detection((100, 100, distance, distance), 0.9, ((300, 300), (300 + distance, 300)))
    for augment in (False, True):
        assert len(model.faces(image, detector=Fixed((face,)), augment=augment)) == expected


def test_faces_come_with_the_highest_score_first(model: Model, scene: np.ndarray) -> None:
    """Whatever the order of the detector is, which may be a generator."""
    faces = [Detection((20, 20, 80, 80), score, EYES) for score in (0.1, 0.9, 0.5)]

    class Lazy:
        def detect(self, _):
            yield from faces

    assert [one.score for one in model.faces(scene, color="rgb", detector=Lazy())] == [0.9, 0.5, 0.1]


@dataclass
class Other:
    """Something with the method of a detector."""

    returned: object

    def detect(self, _: np.ndarray) -> object:
        """Return what is no list of detections."""
        return self.returned


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "returned NoneType; expected an iterable of edgeemo.faces.Detection"),
        ([(1, 2, 3, 4)], "returned a tuple"),
        (np.zeros((2, 4)), "returned a ndarray"),
        ([Detection((float("nan"), 20, 80, 80), 0.7, EYES)], "finite numbers"),
        ([Detection((20, 20, 80, 80), 0.7, ((30, 40), (float("inf"), 40)))], "finite numbers"),
        ([Detection((20, 20, -80, 80), 0.7, EYES)], "boxes of more than 0 px"),
    ],
    ids=["nothing", "tuples", "an array", "a box of NaN", "an infinite landmark", "a negative width"],
)
def test_a_detector_that_returns_something_else_is_named(
    model: Model, scene: np.ndarray, returned: object, message: str
) -> None:
    """With what was expected."""
    with pytest.raises(UsageError, match=message):
        model.faces(scene, color="rgb", detector=Other(returned))


def test_the_detector_is_opened_once_and_with_the_threads_of_the_model(
    scene: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the first call; a model for crops has no use for it. Any number of threads may make that call."""
    opened: list[int] = []
    load = find.load_detector
    monkeypatch.setattr(find, "load_detector", lambda *, threads: (opened.append(threads), load(threads=threads))[1])
    with edgeemo.load("nano", threads=2) as model:
        model.predict(np.zeros((48, 48), np.uint8))
        assert opened == []
        answers: list[list[Face]] = []
        callers = [threading.Thread(target=lambda: answers.append(model.faces(scene, color="rgb"))) for _ in range(4)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert opened == [2]
        assert answers == [answers[0]] * 4


def test_a_pickled_model_finds_the_same_faces(model: Model, scene: np.ndarray) -> None:
    """Its detector is opened again, in the process that needs it."""
    expected = model.faces(scene, color="rgb")
    with pickle.loads(pickle.dumps(model)) as copy:  # noqa: S301  our own bytes
        assert copy.faces(scene, color="rgb") == expected


def test_a_closed_model_finds_no_faces() -> None:
    """An image without a face is no exception."""
    model = edgeemo.load("nano")
    model.close()
    with pytest.raises(UsageError, match="the model is closed"):
        model.faces(np.full((64, 64), 110, np.uint8))
    model.close()
