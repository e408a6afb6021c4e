"""hosts/cpp: built here with sanitizers, it gives Python's answers, and says what is wrong with a file."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import make_tiny
import numpy as np
import pytest
from cpp_build import (
    FIXTURES,
    ROOT,
    SOURCE,
    Difference,
    NotInstalledError,
    build,
    compare,
    expect,
    find_onnxruntime,
    list_fixtures,
    predict_in_python,
    run_host,
)
from orientations import TRANSPOSED
from PIL import ExifTags, Image

from edgeemo.card import Crop, InputContract, read_card, write_card
from edgeemo.data.drawing import draw_face
from edgeemo.faces.cards import FOLDER as DETECTORS
from edgeemo.runtime import shipped

TOLERANCES = json.loads((FIXTURES / "expected.json").read_text(encoding="utf-8"))["tolerances"]
PICTURES, READY = list_fixtures("pictures"), list_fixtures("ready")
DETECTOR = DETECTORS / "blazeface-full.onnx"
# Both hosts run one library on one processor, and print rounded numbers.
ROUNDING = Difference(same=True, box_px=0.011, score=0.00011, probability=0.000011)
Predict = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the build, which takes half a minute."""
    folder = tmp_path_factory.mktemp("cpp")
    try:
        return build(
            folder, "-DEDGEEMO_TESTS=ON", "-DEDGEEMO_SANITIZE=ON", "-DEDGEEMO_WERROR=ON", "-DCMAKE_BUILD_TYPE=Debug"
        )
    except NotInstalledError as error:
        pytest.skip(f"the C++ host cannot be built here: {error}")


@pytest.fixture
def program(built: Path) -> Path:
    return built / "edgeemo-predict"


@pytest.fixture
def predict_in_cpp(program: Path) -> Predict:
    """Predict images with a model, and return the parsed lines."""

    def predict(images: list[Path], model: str | Path, *options: str | Path) -> list[dict[str, Any]]:
        done = run_host(program, "--model", shipped.find(model), "--detector", DETECTOR, *options, *images)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return predict


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return make_tiny.write(tmp_path / "tiny.onnx")


def list_keys(lines: list[dict[str, Any]]) -> list[list[str]]:
    """In their order, of images, faces and probabilities."""
    faces = [face for line in lines for face in line["faces"]]
    return [list(one) for one in (*lines, *faces)] + [list(face["probabilities"]) for face in faces]


def check_same(expected: list[dict[str, Any]], actual: list[dict[str, Any]]) -> None:
    assert list_keys(expected) == list_keys(actual)
    difference = compare(expected, actual)
    assert difference.same, (expected, actual)
    assert difference.box_px <= ROUNDING.box_px
    assert difference.score <= ROUNDING.score
    assert difference.probability <= ROUNDING.probability


@pytest.mark.parametrize("model", shipped.NAMES)
def test_cpp_prints_what_python_prints(model: str, predict_in_cpp: Predict) -> None:
    """The same keys, order and text; numbers to their last decimal place."""
    check_same(predict_in_python(PICTURES, model), predict_in_cpp(PICTURES, model))
    check_same(predict_in_python(READY, model, crop=True), predict_in_cpp(READY, model, "--crop"))


@pytest.mark.parametrize("model", shipped.NAMES)
def test_cpp_gives_the_expected_answers(model: str, predict_in_cpp: Predict) -> None:
    """Those of hosts/fixtures, on any processor."""
    for kind, images, options in (("pictures", PICTURES, []), ("ready", READY, ["--crop"])):
        lines = predict_in_cpp(images, model, *options)
        difference = compare(expect(model, lines, kind), lines)
        assert difference.same
        assert difference.box_px <= TOLERANCES["box_px"]
        assert difference.score <= TOLERANCES["score"]
        assert difference.probability <= TOLERANCES["probability"]


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ({"faces": "many"}, ["--faces", "many"]),
        ({"faces": "few"}, ["--faces", "few"]),
        ({"augment": False}, ["--no-augment"]),
        ({"threshold": 0.92}, ["--threshold", "0.92"]),
        ({"threshold": 0.1}, ["--threshold", "0.1"]),
        ({"label_set": "six"}, ["--label-set", "six"]),
        ({"label_set": "seven"}, ["--label-set", "seven"]),
    ],
)
def test_options_mean_what_they_mean_in_python(given: dict, options: list[str], predict_in_cpp: Predict) -> None:
    images = [FIXTURES / "pictures" / f"{name}.png" for name in ("four", "tiles", "empty")]
    check_same(predict_in_python(images, "nano", **given), predict_in_cpp(images, "nano", *options))


@pytest.mark.parametrize("size", [(2400, 1733), (1201, 97), (16, 700), (61, 59)])
def test_pictures_of_any_shape_are_searched_as_in_python(
    size: tuple[int, int], tmp_path: Path, predict_in_cpp: Predict
) -> None:
    """Averaged down by whole factors, in tiles, or smaller than the canvas."""
    file = tmp_path / "picture.png"
    Image.open(PICTURES[1]).resize(size).save(file)
    check_same(predict_in_python([file], "nano", threshold=0.2), predict_in_cpp([file], "nano", "--threshold", "0.2"))


def test_crops_are_those_of_the_vectors(built: Path) -> None:
    """Those that are not turned to the pixel, the others to a level."""
    vectors = json.loads((ROOT / "docs" / "crop-vectors.json").read_text(encoding="utf-8"))["faces"]
    done = subprocess.run(
        [built / "crop_vectors", ROOT / "docs" / "crop-vectors.json"], capture_output=True, text=True, check=True
    )
    largest = {line.split(" ", 1)[1]: int(line.split(" ", 1)[0]) for line in done.stdout.splitlines()}
    assert largest.keys() == {face["name"] for face in vectors}
    for face in vectors:
        assert largest[face["name"]] <= (1 if face["square"]["degrees"] else 0)


@pytest.mark.parametrize("contract", [
    InputContract(48, "rgb", (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)),
    InputContract(48, "gray3", (0.4, 0.5, 0.6), (0.2, 0.3, 0.25), crop=Crop(2.2, 0.5, 0.0)),
])  # fmt: skip
def test_the_card_decides_on_colour_and_crop(contract: InputContract, tmp_path: Path, predict_in_cpp: Predict) -> None:
    import onnx

    file = tmp_path / "colour.onnx"
    onnx.save(make_tiny.network(channels=3), file)
    write_card(file, replace(make_tiny.card(), input=contract))
    check_same(predict_in_python(PICTURES[1:4], str(file)), predict_in_cpp(PICTURES[1:4], file))


def test_an_adaptation_changes_the_answers_as_in_python(tiny: Path, predict_in_cpp: Predict) -> None:
    before = predict_in_cpp(PICTURES[:1], tiny)
    card = read_card(tiny)
    rng = np.random.default_rng(0)
    matrix = tuple(map(tuple, (np.eye(6) + rng.normal(0, 0.1, (6, 6))).tolist()))
    write_card(tiny, replace(card, adaptation=replace(make_tiny.make_adaptation(card.sha256), matrix=matrix)))
    after = predict_in_cpp(PICTURES[:1], tiny)
    check_same(predict_in_python(PICTURES[:1], str(tiny)), after)
    assert compare(before, after).probability > 0.01


def draw_colour(width: int = 220, height: int = 200) -> np.ndarray:
    """Draw a face in colour, in an image that is not symmetrical."""
    canvas = np.full((height, width, 3), (90, 140, 60), np.uint8)
    canvas[20:180, 30:190] = (draw_face("happiness", seed=16, size=160)[..., None] * [1.0, 0.8, 0.7]).astype(np.uint8)
    return canvas


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_upright(orientation: int, tmp_path: Path, predict_in_cpp: Predict) -> None:
    file, exif = tmp_path / "photo.jpg", Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    image, operation = Image.fromarray(draw_colour()), TRANSPOSED[orientation]
    (image if operation is None else image.transpose(operation)).save(file, quality=95, exif=exif)
    found = predict_in_cpp([file], "nano")
    assert (found[0]["width"], found[0]["height"], len(found[0]["faces"])) == (220, 200, 1)
    expected = predict_in_python([file], "nano")
    difference = compare(expected, found)  # another JPEG library may decode a pixel to another level
    assert difference.same
    assert max(difference.box_px / 0.5, difference.score / 0.01, difference.probability / 0.02) <= 1


@pytest.mark.parametrize("kind", ["RGBA", "LA", "P", "1", "16-bit gray", "gray JPEG", "interlaced"])
def test_images_of_every_kind_are_read_as_in_python(kind: str, tmp_path: Path, predict_in_cpp: Predict) -> None:
    image = Image.fromarray(draw_colour())
    file = tmp_path / ("image.jpg" if kind == "gray JPEG" else "image.png")
    if kind in ("RGBA", "LA"):
        alpha = Image.fromarray((np.indices((200, 220)).sum(0) % 256).astype(np.uint8))
        image.putalpha(alpha)
        image.convert(kind).save(file)
    elif kind == "16-bit gray":
        Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257).save(file)
    elif kind in ("gray JPEG", "interlaced"):
        image.convert("L" if kind == "gray JPEG" else "RGB").save(file, quality=95)
    else:
        image.convert(kind).save(file)
    expected = predict_in_python([file], "nano", crop=True)
    difference = compare(expected, predict_in_cpp([file], "nano", "--crop"))
    assert difference.same
    assert difference.probability <= (0.02 if kind == "gray JPEG" else ROUNDING.probability)


def test_names_are_written_as_in_python(tmp_path: Path, predict_in_cpp: Predict) -> None:
    """Quotes, other scripts, and characters that take two UTF-16 units."""
    file = tmp_path / 'a "quoted"\tné 笑 😀.png'
    shutil.copy(READY[0], file)
    check_same(predict_in_python([file], "nano", crop=True), predict_in_cpp([file], "nano", "--crop"))


def test_an_unreadable_image_does_not_stop_the_others(program: Path, tmp_path: Path) -> None:
    cut, text, large = tmp_path / "cut.png", tmp_path / "text.jpg", tmp_path / "small.png"
    cut.write_bytes(PICTURES[0].read_bytes()[:5000])
    text.write_text("no image")
    Image.new("L", (15, 40)).save(large)
    missing = tmp_path / "missing.png"
    done = run_host(program, "--model", shipped.find("nano"), cut, text, large, missing, PICTURES[0])
    assert done.returncode == 3
    assert [Path(json.loads(line)["image"]) for line in done.stdout.splitlines()] == [PICTURES[0]]
    errors = done.stderr.splitlines()
    assert len(errors) == 4
    assert "cut.png: the PNG cannot be read: it ends too early" in errors[0]
    assert "text.jpg: expected a PNG or JPEG" in errors[1]
    assert "image is 15x40 px; a face needs at least 16 px a side" in errors[2]


def change(file: Path, **values: Any) -> None:
    """Change a card, and leave its seal as it is."""
    card = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**card, **values}), encoding="utf-8")


WRONG: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "no model": (lambda model, _: model.unlink(), "tiny.onnx cannot be read: No such file or directory"),
    "no card": (lambda _, card: card.unlink(), "tiny.onnx.json cannot be read: No such file or directory"),
    "a changed model": (lambda model, _: model.write_bytes(b"x" + model.read_bytes()[1:]), "is not the file that its"),
    "a folder as card": (lambda _, card: (card.unlink(), card.mkdir()), "is not a regular file"),
    "another format": (lambda _, card: change(card, format=3), "format 3; this host reads format 2"),
    "a changed card": (lambda _, card: change(card, temperature=2.0), "its seal is not that of its content"),
    "an unknown key": (lambda _, card: change(card, colour="red"), '"colour" is not a key of a card'),
    "no UTF-8": (lambda _, card: card.write_bytes(b'{"format": "\xff\xc3'), "is not a card"),
    "no JSON": (lambda _, card: card.write_text("{"), "is not a card"),
    "a key twice": (
        lambda _, card: card.write_text(card.read_text().replace('"output"', '"labels"')),
        'it has the key "labels" twice',
    ),
    "deep nesting": (lambda _, card: card.write_text("[" * 100_000), "nested too deeply"),
}


@pytest.mark.parametrize("what", WRONG)
def test_files_that_do_not_fit_are_refused(what: str, tiny: Path, program: Path) -> None:
    damage, words = WRONG[what]
    damage(tiny, tiny.with_name("tiny.onnx.json"))
    done = run_host(program, "--model", tiny, "--crop", READY[0])
    assert (done.returncode, done.stdout) == (4, "")
    assert words in done.stderr


def test_a_card_of_another_shape_is_refused(tiny: Path, program: Path) -> None:
    """Sealed, but for inputs and outputs that the file does not have."""
    write_card(tiny, replace(make_tiny.card(), input=InputContract(32)))
    done = run_host(program, "--model", tiny, "--crop", READY[0])
    assert done.returncode == 4
    assert "expected an input (N, 1, 32, 32) and an output (N, 6)" in done.stderr


def test_an_adaptation_of_another_model_is_refused(tiny: Path, program: Path) -> None:
    write_card(tiny, replace(make_tiny.card(), adaptation=make_tiny.make_adaptation("0" * 64)))
    done = run_host(program, "--model", tiny, "--crop", READY[0])
    assert done.returncode == 4
    assert "fitted on another model, 000000000000" in done.stderr


def test_another_detector_is_refused(tmp_path: Path, program: Path) -> None:
    for suffix in (".onnx", ".json"):
        shutil.copy(DETECTOR.with_suffix(suffix), tmp_path / f"face{suffix}")
    face = tmp_path / "face.onnx"
    face.write_bytes(face.read_bytes() + b"\0")
    done = run_host(program, "--model", shipped.find("nano"), "--detector", face, PICTURES[0])
    assert done.returncode == 4
    assert "face.onnx is not the file that its card describes" in done.stderr


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--label-set", "five"], 2, "expected the label set six, seven or ferplus8, got five"),
        (["--threshold", "1"], 2, "expected a threshold from 0.001 to below 1"),
        (["--threads", "-1"], 2, "expected 1 thread or more"),
        (["--onnxruntime", "/nowhere.so"], 5, "ONNX Runtime cannot be loaded"),
        (["--fast"], 2, "--fast is no option"),
    ],
)
def test_options_out_of_range_are_refused(options: list[str], code: int, words: str, program: Path) -> None:
    done = run_host(program, "--model", shipped.find("nano"), *options, PICTURES[0])
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr


def test_threads_share_one_model(built: Path) -> None:
    """Also a BGR frame with gaps between its rows gives what the gray one gives."""
    gray = np.asarray(Image.open(FIXTURES / "pictures" / "clipped.png"))
    command = [built / "threads", shipped.find("nano"), DETECTOR, str(gray.shape[1]), str(gray.shape[0])]
    done = subprocess.run(
        command, input=gray.tobytes(), capture_output=True, check=True, env={"EDGEEMO_ONNXRUNTIME": find_onnxruntime()}
    )
    assert done.stdout.decode() == "80 same\n"


def test_damaged_cards_harm_nothing(built: Path) -> None:
    """The sanitizers find no error; hardly any damage is not noticed."""
    card = shipped.find("nano").with_name("nano.onnx.json")
    done = subprocess.run([built / "mutate_card", card, "400"], capture_output=True, text=True, check=True)
    refused, read = (int(word) for word in done.stdout.replace(",", "").split() if word.isdecimal())
    assert refused + read == 400
    assert read <= 4


def test_the_library_exports_its_six_functions_alone(built: Path) -> None:
    if not shutil.which("nm"):
        pytest.skip("nm is not installed")
    done = subprocess.run(
        ["nm", "-D", "--defined-only", built / "libedgeemo.so"], capture_output=True, text=True, check=True
    )
    names = {line.split()[-1] for line in done.stdout.splitlines()}
    assert names == {f"edgeemo_{name}" for name in ("open", "faces", "predict", "free", "close", "error")}


def test_the_readme_shows_valid_c(built: Path, tmp_path: Path) -> None:
    """Without a warning, and with the header, in C99."""
    code = (SOURCE / "README.md").read_text(encoding="utf-8").split("```c\n")[1].split("```")[0]
    (tmp_path / "show.c").write_text(code, encoding="utf-8")
    assert built.is_dir()  # a compiler is here
    strict = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only", "-I", SOURCE / "include"]
    subprocess.run(["g++", "-x", "c", *strict, tmp_path / "show.c"], check=True)
