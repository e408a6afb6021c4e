"""The modules of edgeemo/web/page in Node.js: the same pixels, boxes and probabilities as Python's."""

from __future__ import annotations

import json
from base64 import b64decode
from dataclasses import asdict
from functools import cache
from pathlib import Path

import node
import numpy as np
import pytest
from PIL import Image
from web_host import EXPECTED, FIXTURES, make_adaptation

from edgeemo import images
from edgeemo.adaptation import adapt_logits
from edgeemo.card import InputContract, card_path, get_label_set, read_card, to_json
from edgeemo.card.layout import compute_seal
from edgeemo.errors import UsageError
from edgeemo.faces import Detection, find_flags, list_detectors, load_detector
from edgeemo.faces.crop import crop, find_fault, place
from edgeemo.faces.passes import plan_passes
from edgeemo.labels import LABEL_SETS
from edgeemo.metrics import merge_matrix, softmax
from edgeemo.runtime import shipped
from edgeemo.runtime.prediction import make_prediction

ROOT = Path(__file__).parents[2]
# Pictures, and the standard deviation of noise on them: with it, boxes are uncertain or doubtful.
PICTURES = [
    *((one["file"], 0) for one in EXPECTED["pictures"]),
    ("pictures/portrait.png", 90),
    ("pictures/clipped.png", 60),
]
VECTORS = json.loads((ROOT / "docs" / "crop-vectors.json").read_text(encoding="utf-8"))
BLAZEFACE = next(card for card in list_detectors() if card.name == "blazeface-full")
# Width and height of an image and of what it is resized to, the part that is resized, and Pillow's reducing_gap.
RESIZES = {
    "photo to a canvas": ((640, 480), (192, 144), None, 2),
    "to half a canvas": ((640, 480), (96, 72), None, 2),
    "large photo": ((1701, 1301), (192, 147), None, 2),
    "tile": ((1280, 720), (192, 192), (100, 3, 715, 618), 2),
    "reduced part": ((1301, 701), (96, 50), (13, 17, 1299, 687), 2),
    "enlarged": ((50, 40), (192, 154), None, 2),
    "odd square": ((61, 61), (48, 48), None, 0),
    "narrower alone": ((48, 48), (20, 48), None, 0),
    "unchanged": ((30, 48), (30, 48), None, 0),
}
pytestmark = node.needs_node


def draw_noise(width: int, height: int, channels: int = 3) -> np.ndarray:
    """(height, width, channels) uint8, in which every pixel matters."""
    return np.random.default_rng(width).integers(0, 256, (height, width, channels), np.uint8)


@pytest.mark.parametrize("name", RESIZES)
def test_images_are_resized_as_pillow_does(name: str) -> None:
    """Every level is the same, also of parts of an image, and where Pillow first averages whole blocks."""
    (width, height), size, part, gap = RESIZES[name]
    noise, box = draw_noise(width, height), part or (0, 0, width, height)
    (found,) = node.call("images.js", ("resize", node.image(noise), *size, box, gap))
    expected = Image.fromarray(noise).resize(size, Image.Resampling.BILINEAR, box=box, reducing_gap=gap or None)
    np.testing.assert_array_equal(node.pixels_of(found), np.asarray(expected))


def test_tall_images_are_resized_within_a_level() -> None:
    """Rows come first, as docs/card.md says; Pillow 13 takes columns first where an image shrinks more in height."""
    noise = draw_noise(116, 216)
    (found,) = node.call("images.js", ("resize", node.image(noise), 57, 72))
    expected = Image.fromarray(noise).resize((57, 72), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(node.pixels_of(found), np.asarray(expected, int), atol=1)


def test_transparent_pixels_are_blended_as_python_does() -> None:
    """With mid-grey; every value of alpha occurs."""
    noise = draw_noise(64, 64, 4)
    noise[..., 3] = np.arange(64 * 64).reshape(64, 64) % 256
    (found,) = node.call("images.js", ("toRgb", node.image_data(noise)))
    np.testing.assert_array_equal(node.pixels_of(found), images.from_array(noise))


@pytest.mark.parametrize("colour", ["gray", "rgb", "gray3"])
@pytest.mark.parametrize("side", [16, 48, 97])
def test_squares_become_the_models_input(colour: str, side: int) -> None:
    """Pixels and normalised values have the same bits, for each colour of a card."""
    channels = 1 if colour == "gray" else 3
    contract = InputContract(48, colour, (0.51, 0.48, 0.4)[:channels], (0.25, 0.21, 0.3)[:channels])
    squares = [draw_noise(side, side), draw_noise(side, side)[::-1]]
    wanted = to_json(contract)
    pixels = node.call("images.js", *(("toPixels", node.image(one), wanted) for one in squares))
    expected = np.stack([images.to_pixels(one, contract) for one in squares])
    np.testing.assert_array_equal([node.pixels_of(one) for one in pixels], expected)
    (values,) = node.call("images.js", ("toInput", pixels, wanted))
    np.testing.assert_array_equal(values, images.to_input(expected, contract).ravel())


def decode_image(width: int, height: int, pixels: str) -> np.ndarray:
    """(height, width[, 3]) uint8 from base64."""
    values = np.frombuffer(b64decode(pixels), np.uint8)
    return values.reshape((height, width, -1) if len(values) > width * height else (height, width))


@pytest.mark.parametrize("vector", VECTORS["faces"], ids=lambda vector: vector["name"])
def test_crop_vectors_are_reproduced(vector: dict) -> None:
    """The square, and the pixels within the tolerance that docs/crop-vectors.json states."""
    face = {"box": vector["box"], "landmarks": vector["eyes"] or []}
    (square,) = node.call("crop.js", ("place", face, vector["input"], vector["detector_box"]))
    np.testing.assert_allclose(square["centre"], vector["square"]["centre"], rtol=1e-12)
    assert square["side"] == pytest.approx(vector["square"]["side"], rel=1e-12)
    assert square["degrees"] == pytest.approx(vector["square"]["degrees"], rel=1e-12)
    picture = node.image(decode_image(**VECTORS["image"]))
    (found,) = node.call("crop.js", ("crop", picture, square, vector["input"]))
    size = vector["input"]["size"]
    expected = decode_image(size, size, vector["crop"]).astype(int)
    np.testing.assert_allclose(node.pixels_of(found), expected, atol=vector["tolerance"])


def draw_detections(count: int) -> list[Detection]:
    """Faces of every tilt and size, many of which extend over the edges of an image of 200x150 px."""
    rng = np.random.default_rng(5)
    faces = []
    for _ in range(count):
        middle, size, tilt = rng.uniform(-20, (220, 170)), rng.uniform(8, 200), np.radians(rng.normal(0, 25))
        turn = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
        points = np.array([(-0.2, -0.1), (0.2, -0.1), (0, 0.05), (0, 0.2), (-0.4, 0), (0.4, 0)])
        points = (points + rng.normal(0, 0.02, points.shape)) @ turn * size + middle
        box = tuple(float(value) for value in (*(middle - size / 2), size, size))
        landmarks = tuple((float(x), float(y)) for x, y in points)
        faces.append(Detection((box[0], box[1], box[2], box[3]), 0.9, landmarks, BLAZEFACE.box))
    return faces


def test_flags_and_faults_are_those_of_python() -> None:
    """Of 200 faces, among which every flag and every fault occurs."""
    contract, width, height = InputContract(48), 200, 150
    framing, wanted = to_json(BLAZEFACE.box), to_json(contract)
    detections = draw_detections(200)
    faces = [{"box": one.box, "landmarks": one.landmarks} for one in detections]
    squares = node.call("crop.js", *(("place", face, wanted, framing) for face in faces))
    flags = node.call(
        "crop.js",
        *(("findFlags", face, square, width, height, wanted) for face, square in zip(faces, squares, strict=True)),
    )
    expected = [list(find_flags(one, width, height, contract)) for one in detections]
    assert flags == expected
    assert {flag for found in expected for flag in found} == {"small", "tilted", "clipped"}
    faults = node.call("crop.js", *(("findFault", square, width, height) for square in squares))
    assert faults == [find_fault(place(one, contract), width, height) for one in detections]
    assert {fault.split()[2] for fault in faults if fault} == {"gives", "at"}


@pytest.mark.parametrize("scale", [0.9, 1.0, 1.2])
def test_crops_of_the_fixtures_are_those_of_python(scale: float) -> None:
    """At each size of test-time augmentation, within a level, which only turned faces may need."""
    contract = read_card(shipped.find("small")).input
    framing, wanted = to_json(BLAZEFACE.box), to_json(contract)
    for picture in EXPECTED["pictures"]:
        pixels, faces = images.read(FIXTURES / picture["file"]), picture["faces"]
        squares = node.call("crop.js", *(("place", face, wanted, framing) for face in faces))
        found = node.call("crop.js", *(("crop", node.image(pixels), square, wanted, scale) for square in squares))
        for face, square, one in zip(faces, squares, found, strict=True):
            landmarks = tuple(map(tuple, face["landmarks"]))
            detection = Detection(tuple(face["box"]), face["score"], landmarks, BLAZEFACE.box)
            expected = crop(pixels, detection, contract, scale=scale).astype(int)
            np.testing.assert_allclose(node.pixels_of(one), expected, atol=1 if square["degrees"] else 0)


@pytest.mark.parametrize("size", [(640, 480), (1280, 720), (717, 716), (4000, 3000), (300, 5000), (16, 16)])
def test_the_same_parts_of_an_image_are_searched(size: tuple[int, int]) -> None:
    """The whole image, at both sizes, and tiles of large ones."""
    (found,) = node.call("detector.js", ("planPasses", *size, to_json(BLAZEFACE)))
    expected = plan_passes(*size, smallest_face=BLAZEFACE.smallest_face, half=BLAZEFACE.half_pass)
    assert found == [asdict(one) for one in expected]


class Recorder:
    """A session that records what a network is given and answers."""

    def __init__(self, session: object) -> None:
        self.session, self.batches, self.outputs = session, [], []

    def run(self, names: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Run the network."""
        boxes, scores = self.session.run(names, feeds)
        self.batches.append(feeds["image"].ravel())
        self.outputs.append({"boxes": boxes.ravel(), "scores": scores.ravel()})
        return [boxes, scores]


@cache
def detect(picture: str, noise: float) -> tuple[np.ndarray, list[Detection], Recorder]:
    """A fixture as RGB, what Python finds in it, and what the network was given and answered."""
    pixels = images.read(FIXTURES / picture)
    noisy = pixels + np.random.default_rng(0).normal(0, 1, pixels.shape) * noise
    pixels = np.clip(noisy, 0, 255).astype(np.uint8)
    detector = load_detector()
    recorder = detector._network._session = Recorder(detector._network._session)
    found = detector.detect(pixels)
    return np.asarray(Image.fromarray(pixels).convert("RGB")), found, recorder


@pytest.mark.parametrize(("picture", "noise"), PICTURES)
def test_detector_finds_what_python_finds(picture: str, noise: float) -> None:
    """The network is given the same canvases; from its answers come the same faces.

    A tall part that is looked at from closer may differ by a level: `test_tall_images_are_resized_within_a_level`.
    """
    pixels, expected, recorder = detect(picture, noise)
    request = ("detect", to_json(BLAZEFACE), node.image(pixels), recorder.outputs)
    (found,) = node.call("detector.js", request)
    assert len(found["batches"]) == len(recorder.batches)
    for one, other in zip(found["batches"], recorder.batches, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2.01 / 255 if noise else 0)
    assert len(found["faces"]) == len(expected)
    for face, detection in zip(found["faces"], expected, strict=True):
        np.testing.assert_allclose(face["box"], detection.box, atol=1e-9)
        np.testing.assert_allclose(face["landmarks"], detection.landmarks, atol=1e-9)
        assert face["score"] == pytest.approx(detection.score, abs=1e-12)


def test_pictures_need_every_step_of_the_detector() -> None:
    """Tiles and a closer look; else the test above would show less than it says."""
    planned = {
        (picture, noise): len(plan_passes(*Image.open(FIXTURES / picture).size, smallest_face=0.067, half=True))
        for picture, noise in PICTURES
    }
    assert max(planned.values()) > 2
    looked_again = {key for key, count in planned.items() if len(detect(*key)[2].batches) > count}
    assert looked_again >= {("pictures/portrait.png", 90), ("pictures/clipped.png", 60)}


def draw_candidates(count: int) -> np.ndarray:
    """(count, 17): overlapping, nested and tiny boxes of every score."""
    rng = np.random.default_rng(3)
    corner, size = (
        rng.uniform(0, 100, (count, 2)),
        rng.choice([4, 20, 60], (count, 1)) * rng.uniform(0.7, 1.4, (count, 1)),
    )
    return np.concatenate(
        [corner, size, size, rng.uniform(0.25, 1, (count, 1)), rng.uniform(0, 100, (count, 12))], axis=1
    )


def test_candidates_are_merged_as_python_does() -> None:
    """Of 120 crowded boxes, of which a third are cut by a tile."""
    from edgeemo.faces.merge import drop_nested, merge

    rows = draw_candidates(120)
    cut = np.arange(len(rows)) % 3 == 0
    parts = rows[:, :4] * (1, 1, 0.6, 0.8)
    expected = merge(rows, parts, cut)
    (found,) = node.call("detector.js", ("merge", rows.tolist(), parts.tolist(), cut.tolist()))
    np.testing.assert_allclose(found, expected, atol=1e-9)
    (kept,) = node.call("detector.js", ("dropNested", found))
    np.testing.assert_allclose(kept, drop_nested(expected), atol=1e-9)
    assert 0 < len(kept) < len(found) < len(rows)


def test_label_sets_are_those_of_python() -> None:
    """And a model reports in those that its labels can be merged to."""
    sets = {name: {"labels": list(one.labels), "merged": one.merged} for name, one in LABEL_SETS.items()}
    assert node.read("model.js", "LABEL_SETS") == sets
    for own in LABEL_SETS:
        card = {"label_set": own, "labels": LABEL_SETS[own].labels}
        (names,) = node.call("model.js", ("listLabelSets", card))
        fitting = [name for name in LABEL_SETS if fits(name, own)]
        assert sorted(names) == sorted(fitting)
        assert names[0] == own


def fits(name: str, own: str) -> bool:
    """Whether a model of one label set can report in another."""
    try:
        LABEL_SETS[name].map_labels(LABEL_SETS[own].labels)
    except UsageError:
        return False
    return True


@pytest.mark.parametrize("labels", ["ferplus8", "six"])
@pytest.mark.parametrize("adapted", [False, True])
def test_logits_become_the_probabilities_of_python(labels: str, adapted: bool) -> None:
    """Adaptation, temperature, merged labels, and the order of equal ones."""
    card = read_card(shipped.find("small"))
    adaptation = make_adaptation(card.sha256)
    positions = LABEL_SETS[labels].map_labels(get_label_set(card).labels)
    names = LABEL_SETS[labels].labels
    raw = {**to_json(card), "adaptation": to_json(adaptation)}
    reported = {"labels": names, "positions": positions}
    logits = np.concatenate([np.random.default_rng(2).normal(0, 3, (20, 8)), np.zeros((1, 8))])
    changed = adapt_logits(logits, adaptation if adapted else None)
    rows = softmax(changed, temperature=card.temperature) @ merge_matrix(positions)
    found = node.call("model.js", *(("toProbabilities", one.tolist(), raw, reported, adapted) for one in logits))
    np.testing.assert_allclose(found, rows, atol=1e-12)
    predictions = node.call("model.js", *(("makePrediction", row.tolist(), names, 0.73) for row in rows))
    for row, prediction in zip(rows, predictions, strict=True):
        expected = make_prediction(row, names, 0.73)
        assert prediction == {**asdict(expected), "probabilities": pytest.approx(expected.probabilities)}
        assert list(prediction["probabilities"]) == list(expected.probabilities)


def test_cards_are_checked() -> None:
    """Seal, format and hash: a changed card or another file is refused."""
    path = shipped.find("small")
    text, content = card_path(path).read_text(encoding="utf-8"), np.frombuffer(path.read_bytes(), np.uint8)
    raw = json.loads(text)
    warmer = json.dumps({**raw, "temperature": 1.5})
    future = {**raw, "format": 3}
    sealed = json.dumps({**future, "seal": compute_seal(future)})
    foreign = {**raw, "adaptation": to_json(make_adaptation("0" * 64))}
    foreign["seal"] = compute_seal(foreign)
    (card,) = node.call("model.js", ("readCard", text, content, "small"))
    assert card["labels"] == raw["labels"]
    refused = [
        ("changed after it was written", warmer, content),
        ("card format 3", sealed, content),
        ("is not the file of its card", text, content[:-1]),
        ("fitted on another model", json.dumps(foreign), content),
    ]
    for reason, card_text, file in refused:
        with pytest.raises(AssertionError, match=reason):
            node.call("model.js", ("readCard", card_text, file, "small"))


def test_threshold_of_an_adapted_model_goes_with_its_adaptation() -> None:
    """`answers` belongs to the adapted model, `answers_before` to the model without it."""
    adapted = {"answers": {"least_probability": 0.6}, "adaptation": {"answers_before": {"least_probability": 0.7}}}
    assert node.call("model.js", ("getLeastProbability", adapted, True), ("getLeastProbability", adapted, False)) == [
        0.6,
        0.7,
    ]
    assert node.call("model.js", ("getLeastProbability", {"adaptation": {}}, False), ("getLeastProbability", {})) == [
        None,
        None,
    ]
