"""From an image to a prediction, with the tiny model and the real ONNX Runtime."""

from __future__ import annotations

from dataclasses import asdict, replace
from io import BytesIO
from pathlib import Path

import make_tiny
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from orientations import TRANSPOSED
from PIL import Image

import edgeemo
from edgeemo.card import Answers, write_card
from edgeemo.errors import DataError, MachineError, UsageError
from edgeemo.labels import LabelSet
from edgeemo.runtime import Model
from edgeemo.runtime.model import BATCH_SIZE

ONLY_RED = np.zeros((make_tiny.FEATURES, 3, 3, 3), np.float32)
ONLY_RED[:, 0] = 1


@pytest.fixture
def opened(tiny: Path):
    with edgeemo.load(tiny) as loaded:
        yield loaded


def test_probabilities_of_a_prediction_sum_to_one_and_the_label_leads(opened: Model, face: np.ndarray) -> None:
    prediction = opened.predict(face)
    assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-12)  # float64 softmax
    assert set(prediction.probabilities) == set(opened.labels)
    assert prediction.probability == max(prediction.probabilities.values())
    assert next(iter(prediction.probabilities)) == prediction.label
    assert str(prediction).startswith(f"{prediction.label} {100 * prediction.probability:.1f} %")


@pytest.mark.parametrize(("threshold", "unsure"), [(None, None), (0.0, False), (1.0, True)])
def test_a_prediction_below_the_card_s_threshold_is_unsure(
    copy: Path, face: np.ndarray, threshold: float | None, unsure: bool | None
) -> None:
    """In text, JSON and batches; None without a threshold."""
    answers = None if threshold is None else Answers(threshold, 0.9, 0.95, 0.9, 0.97, 0.5, 500)
    write_card(copy, replace(make_tiny.card(), answers=answers))
    with edgeemo.load(copy) as model:
        one, (same,) = model.predict(face), model.predict_batch([face])
    assert one.unsure is same.unsure is asdict(one)["unsure"] is unsure
    assert str(one).startswith(f"unsure: {one.label} " if unsure else f"{one.label} ")


def test_merged_labels_are_unsure_by_their_summed_probability(copy: Path, face: np.ndarray) -> None:
    """The probability that is shown is the one that is compared; exactly on the threshold, it is not unsure."""
    halves = LabelSet("halves", ("a", "b"), dict(zip(make_tiny.LABELS, "aaabbb", strict=True)))
    with edgeemo.load(copy) as model, edgeemo.load(copy, labels=halves) as merged:
        own, summed = model.predict(face).probability, merged.predict(face).probability
    assert own < summed
    write_card(copy, replace(make_tiny.card(), answers=Answers(summed, 0.9, 0.95, 0.9, 0.97, 0.5, 500)))
    with edgeemo.load(copy) as model, edgeemo.load(copy, labels=halves) as merged:
        assert (model.predict(face).unsure, merged.predict(face).unsure) == (True, False)


def test_gray_and_rgb_of_the_same_gray_picture_agree(opened: Model, face: np.ndarray) -> None:
    gray = face[..., 0]
    assert opened.predict(gray) == opened.predict(np.stack([gray] * 3, axis=2))


def test_a_colour_model_gets_three_channels_red_first(tmp_path: Path) -> None:
    path = tmp_path / "colour.onnx"
    network = make_tiny.network(channels=3)
    network.graph.initializer[0].CopyFrom(numpy_helper.from_array(ONLY_RED, "kernel"))
    onnx.save(network, path)
    contract = replace(make_tiny.card().input, colour="rgb", mean=(0.5,) * 3, std=(0.25,) * 3)
    write_card(path, replace(make_tiny.card(), input=contract))
    black, red, blue = (np.full((48, 48, 3), colour, np.uint8) for colour in ((0, 0, 0), (255, 0, 0), (0, 0, 255)))
    with edgeemo.load(path) as opened:
        assert opened.predict(blue) == opened.predict(black)
        assert opened.predict(red) != opened.predict(black)


@pytest.mark.parametrize("orientation", TRANSPOSED)
def test_all_eight_exif_orientations_of_a_picture_agree(opened: Model, face: np.ndarray, orientation: int) -> None:
    image, method = Image.fromarray(face), TRANSPOSED[orientation]
    turned = image.transpose(method) if method is not None else image
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned.save(file := BytesIO(), "PNG", exif=exif)
    assert opened.predict(file.getvalue()) == opened.predict(face)


def test_path_string_bytes_and_array_of_one_picture_agree(opened: Model, face: np.ndarray, tmp_path: Path) -> None:
    file = tmp_path / "face.png"
    Image.fromarray(face).save(file)
    expected = opened.predict(face)
    content = file.read_bytes()
    kinds = [file, str(file), content, bytearray(content), memoryview(content), BytesIO(content), Image.fromarray(face)]
    assert opened.predict_batch(kinds) == [expected] * len(kinds)
    with file.open("rb") as stream, Image.open(file) as image:
        assert opened.predict(stream) == opened.predict(image) == expected
        assert opened.predict(image) == expected  # it is not closed


def test_arrays_with_a_channel_of_their_own_or_alpha_agree(opened: Model, face: np.ndarray) -> None:
    """(H, W, 1) is gray; RGBA is blended with mid-grey, as in a file."""
    gray = face[..., 1].copy()
    assert opened.predict(gray[..., None]) == opened.predict(gray)
    assert opened.predict(np.dstack([face, np.full(face.shape[:2], 255, np.uint8)])) == opened.predict(face)
    half = np.dstack([face, np.full(face.shape[:2], 90, np.uint8)])
    Image.fromarray(half).save(file := BytesIO(), "PNG")
    assert opened.predict(half) == opened.predict(file.getvalue()) != opened.predict(face)


def test_a_batch_may_be_any_iterable(opened: Model, face: np.ndarray) -> None:
    expected = opened.predict_batch([face, face])
    assert opened.predict_batch(iter([face, face])) == expected
    assert opened.predict_batch(np.stack([face, face])) == expected
    assert opened.predict_batch(iter([])) == []


def test_the_bad_image_of_a_batch_is_numbered(opened: Model, face: np.ndarray) -> None:
    with pytest.raises(DataError, match="image 30 of the batch: image is 48x3 px"):
        opened.predict_batch([face] * 30 + [np.zeros((3, 48), np.uint8)] + [face] * 19)


def test_a_batch_gives_what_its_images_give_alone(opened: Model, rng: np.random.Generator) -> None:
    faces = [rng.integers(0, 256, (16 + k, 80, 3), dtype=np.uint8) for k in range(BATCH_SIZE + 6)]
    for together, alone in zip(opened.predict_batch(faces), map(opened.predict, faces), strict=True):
        assert together.label == alone.label
        # float32 sums in another order: a few parts in 1e6
        assert together.probability == pytest.approx(alone.probability, rel=1e-5)


def test_an_empty_batch_gives_no_predictions(opened: Model) -> None:
    assert opened.predict_batch([]) == []
    assert opened.probabilities(np.zeros((0, 48, 48), np.uint8)).shape == (0, 6)


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((48, 48), np.float32),
        np.zeros((48, 48, 5), np.uint8),
        np.zeros((0, 48, 4), np.uint8),
        np.zeros((15, 48), np.uint8),
        np.zeros((0, 0), np.uint8),
        [[0, 1], [2, 3]],
        b"not an image",
        "no/such/file.png",
    ],
    ids=["float", "five channels", "no rows", "too small", "empty", "list", "foreign bytes", "no file"],
)
def test_what_is_no_face_crop_is_refused(opened: Model, bad: object) -> None:
    with pytest.raises(DataError):
        opened.predict(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("one", ["face.png", b"", Path("face.png"), Image.new("L", (48, 48)), None])
def test_one_picture_is_no_batch(opened: Model, one: object) -> None:
    """Its letters or bytes are not images either."""
    with pytest.raises(DataError, match="for one image use predict"):
        opened.predict_batch(one)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(2, 47, 48), (48, 48), (2, 48, 48, 3)])
def test_pixels_of_another_shape_than_the_card_says_are_refused(opened: Model, shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"expected \(N, 48, 48\) uint8"):
        opened.probabilities(np.zeros(shape, np.uint8))


def test_too_small_a_picture_is_named(opened: Model, tmp_path: Path) -> None:
    Image.new("L", (15, 48)).save(tmp_path / "small.png")
    for path in (tmp_path / "small.png", str(tmp_path / "small.png")):
        with pytest.raises(DataError, match=r"small\.png.*at least 16"):
            opened.predict(path)


def test_a_model_trained_on_gray_faces_sees_no_colour(tmp_path: Path, face: np.ndarray) -> None:
    path = tmp_path / "gray3.onnx"
    onnx.save(make_tiny.network(channels=3), path)
    contract = replace(make_tiny.card().input, colour="gray3", mean=(0.5,) * 3, std=(0.25,) * 3)
    write_card(path, replace(make_tiny.card(), input=contract))
    with edgeemo.load(path) as opened:
        assert opened.predict(face) == opened.predict(np.asarray(Image.fromarray(face).convert("L")))
        assert opened.probabilities(np.zeros((2, 48, 48, 3), np.uint8)).shape == (2, 6)


def test_a_closed_model_says_that_it_is_closed(tiny: Path, face: np.ndarray) -> None:
    with edgeemo.load(tiny) as loaded:
        pass
    loaded.close()
    with pytest.raises(UsageError, match="closed"):
        loaded.predict(face)


def test_no_thread_at_all_is_refused(tiny: Path) -> None:
    with pytest.raises(UsageError, match="threads is 0"):
        edgeemo.load(tiny, threads=0)
    with pytest.raises(UsageError, match="threads is 'two'; expected a whole number"):
        edgeemo.load(tiny, threads="two")  # type: ignore[arg-type]


def test_a_provider_that_is_not_here_is_refused_and_not_replaced(tiny: Path) -> None:
    """ONNX Runtime itself would go on, on the CPU, without a word."""
    with pytest.raises(MachineError, match=r"CPUExecutionProvider.* needs CUDAExecutionProvider.*onnxruntime-gpu"):
        edgeemo.load(tiny, backend="onnxruntime-cuda")


def test_a_backend_of_another_format_is_refused(tiny: Path) -> None:
    """With the ones that run the file."""
    with pytest.raises(UsageError, match="known: onnxruntime, openvino"):
        edgeemo.load(tiny, backend="tensorrt")


def test_answers_in_a_smaller_label_set_are_sums(face: np.ndarray) -> None:
    """Probabilities of labels that are merged are added up; nothing else changes."""
    pleasant, unpleasant = ("neutral", "happiness", "surprise"), ("sadness", "anger", "fear")
    merges = {**dict.fromkeys(pleasant, "good"), **dict.fromkeys(unpleasant, "bad")}
    mood = LabelSet("mood", ("good", "bad"), merges)
    tiny = make_tiny.HERE / "tiny.onnx"
    with edgeemo.load(tiny) as plain, edgeemo.load(tiny, labels=mood) as merged:
        six, two = plain.predict(face), merged.predict(face)
        assert merged.labels == ("good", "bad")
    good = sum(six.probabilities[name] for name in pleasant)
    assert two.probabilities["good"] == pytest.approx(good, abs=1e-12)
    assert sum(two.probabilities.values()) == pytest.approx(1)


def test_labels_that_a_model_does_not_tell_are_refused() -> None:
    """A model of six labels cannot report eight."""
    with pytest.raises(UsageError, match="also needs disgust, contempt"):
        edgeemo.load(make_tiny.HERE / "tiny.onnx", labels="ferplus8")


def test_a_provider_that_does_not_start_is_no_reason_to_run_on_the_cpu(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime goes on without it and says so at most in a warning; edgeemo refuses."""
    compiled = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: compiled)
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"), pytest.raises(MachineError, match="does not start"):
        edgeemo.load(tiny, backend="onnxruntime-cuda")
