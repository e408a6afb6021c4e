"""The predict stage on whole images: every face with its box, as text, JSON, a table and painted."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from scenes import draw

import edgeemo
from edgeemo import artifact
from edgeemo.card import card_path
from edgeemo.cli import main
from edgeemo.errors import DataError, MachineError
from edgeemo.faces import list_detectors, load_detector
from edgeemo.predict import outputs, sources
from edgeemo.predict.run import run
from edgeemo.runtime import shipped
from edgeemo.stages import Predict

PLACES = [(60, 80, 128), (400, 200, 160)]


def call(*words: object) -> Result:
    return CliRunner().invoke(main, ["predict", "--model", "nano", *map(str, words)])


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """Two faces."""
    (tmp_path / "photos").mkdir()
    Image.fromarray(draw((480, 640), *PLACES)).save(tmp_path / "photos" / "photo.png")
    return tmp_path / "photos" / "photo.png"


@pytest.fixture
def empty(photo: Path) -> Path:
    """A photo beside it without a face."""
    Image.fromarray(np.full((300, 400), 110, np.uint8)).save(photo.with_name("empty.jpg"))
    return photo.with_name("empty.jpg")


def test_a_line_per_face_says_what_and_where(photo: Path) -> None:
    """In the detector's order."""
    done = call(photo)
    assert done.exit_code == 0, done.output
    with edgeemo.load("nano") as model:
        expected = [f"{photo}: {face}" for face in model.faces(photo)]
    assert done.stdout.splitlines() == expected
    assert len(expected) == 2
    assert f"px at {round(model_box(photo)[0])}, " in expected[0]


def model_box(photo: Path) -> tuple[float, ...]:
    return load_detector().detect(np.asarray(Image.open(photo)))[0].box


def test_json_is_a_line_per_image_with_all_its_faces(photo: Path, empty: Path) -> None:
    """In pixels of the upright image."""
    rows = [json.loads(line) for line in call(photo, empty, "--json").stdout.splitlines()]
    assert [list(row) for row in rows] == [["image", "width", "height", "faces", "left_out"]] * 2
    assert [(row["image"], row["width"], row["height"]) for row in rows] == [
        (str(photo), 640, 480),
        (str(empty), 400, 300),
    ]
    assert rows[1]["faces"] == []
    with edgeemo.load("nano") as model:
        expected = model.faces(photo)
    for shown, face in zip(rows[0]["faces"], expected, strict=True):
        assert list(shown) == [
            *("box", "score", "landmarks", "label", "probability", "probabilities", "unsure", "flags"),
        ]
        assert shown["box"] == pytest.approx(face.box, abs=0.005)
        assert shown["score"] == pytest.approx(face.score, abs=5e-5)
        assert np.array(shown["landmarks"]) == pytest.approx(np.array(face.landmarks), abs=0.005)
        assert shown["label"] == face.prediction.label
        assert list(shown["probabilities"]) == list(face.prediction.probabilities)
        for label, share in face.prediction.probabilities.items():
            assert shown["probabilities"][label] == round(share, 6)
        assert shown["probability"] == shown["probabilities"][shown["label"]]


def test_the_size_is_that_of_the_upright_image(photo: Path) -> None:
    """As EXIF says how the camera was held."""
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(photo) as image:
        image.transpose(Image.Transpose.ROTATE_90).save(photo.with_name("turned.png"), exif=exif)
    upright, turned = (
        json.loads(line) for line in call(photo, photo.with_name("turned.png"), "--json").stdout.split("\n")[:2]
    )
    assert {**turned, "image": upright["image"]} == upright


def test_no_face_is_an_answer(empty: Path) -> None:
    """The exit code says that the image was read."""
    done = call(empty)
    assert (done.exit_code, done.stdout) == (0, f"{empty}: no face found\n")


def test_a_small_image_without_a_face_may_be_a_crop(tmp_path: Path) -> None:
    """Which --crop would take as it is."""
    Image.fromarray(np.full((48, 48), 110, np.uint8)).save(tmp_path / "face.png")
    line = call(tmp_path / "face.png").stdout
    assert line == f"{tmp_path}/face.png: no face found; if these 48x48 px are a ready crop of a face, use --crop\n"


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A face that is found, but whose crop has less than 16 pixels a side."""
    Image.fromarray(draw((200, 200), (50, 50, 20))).save(tmp_path / "tiny.png")
    return tmp_path / "tiny.png"


def test_a_face_too_small_to_be_classified_is_reported_with_its_image(tiny: Path, photo: Path, caplog: Any) -> None:
    """Not as if there were none: in the text, in JSON, and not as a warning of which no image is known."""
    done = call(tiny, photo)
    first, *others = done.stdout.splitlines()
    assert re.fullmatch(
        rf"{re.escape(str(tiny))}: 1 face left out: the face gives a square of 1\d px; expected 16 to 7094", first
    )
    assert len(others) == 2
    assert "left out" not in caplog.text
    rows = [json.loads(line) for line in call(tiny, photo, "--json").stdout.splitlines()]
    assert [(len(row["faces"]), len(row["left_out"])) for row in rows] == [(0, 1), (2, 0)]


def test_a_higher_threshold_leaves_out_doubtful_faces(photo: Path) -> None:
    """By the score, which the text shows; it has no effect on crops."""
    lines = call(photo).stdout.splitlines()
    scores = [float(line.rpartition("score ")[2]) for line in lines]
    assert scores == [round(one.score, 2) for one in load_detector().detect(np.asarray(Image.open(photo)))]
    assert call(photo, "--threshold", 0.99).stdout == f"{photo}: no face found\n"
    assert "--threshold has no effect with --crop" in call(photo, "--crop", "--threshold", 0.7).output


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "nowhere",
            "nowhere does not exist; expected a PNG, JPEG, WebP or BMP image, a folder of images, or a pattern",
        ),
        ("https://example.com/a.jpg?b=*", "https://example.com/a.jpg?b=* is a URL, which is not read; download"),
    ],
)
def test_what_is_no_file_is_named(name: str, message: str, photo: Path) -> None:
    """A path that is not there, and a URL with both of its slashes; the others are predicted."""
    done = call(photo, name)
    assert done.exit_code == 3
    assert f"error: {message}" in done.stderr
    assert len(done.stdout.splitlines()) == 2


def test_many_finds_what_few_misses(tmp_path: Path) -> None:
    """Small faces, in more time."""
    Image.fromarray(draw((480, 640), (60, 60, 64), (288, 208, 64))).save(tmp_path / "crowd.png")
    few, many = (call(tmp_path / "crowd.png", "--faces", faces).stdout.splitlines() for faces in ("few", "many"))
    assert len(many) == 2
    assert many != few


def test_the_detector_may_be_named(photo: Path) -> None:
    """An unknown name is wrong usage, a foreign file no detector; neither has effect on crops."""
    assert call(photo, "--detector", "blazeface-full").stdout == call(photo).stdout
    assert call(photo, "--detector", "haar").exit_code == 2
    assert call(photo, "--detector", photo).exit_code == 4
    assert "--detector has no effect with --crop" in call(photo, "--detector", "blazeface-full", "--crop").output


def test_an_image_whose_faces_cannot_be_cropped_is_named(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that cannot be read."""

    def refuse(*_: object, **__: object) -> None:
        raise DataError("the face gives a square of 9000 px")

    monkeypatch.setattr(edgeemo.Model, "find_faces", refuse)
    done = call(photo)
    assert done.exit_code == 3
    assert f"error: {photo}: the face gives a square of 9000 px" in done.stderr


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(36, "File name too long")])
@pytest.mark.parametrize("pattern", ["out of reach.png", "out of reac[h].png"])
def test_an_image_out_of_reach_costs_no_other(
    photo: Path, tmp_path: Path, pattern: str, error: OSError, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below a folder that may not be entered, or of a name too long for the system; it is named with the reason."""
    far = tmp_path / "out of reach.png"
    far.touch()

    def refuse(function: Callable[..., Any]) -> Callable[..., Any]:
        def call_unless_far(path: Any, *words: Any, **named: Any) -> Any:
            if isinstance(path, (str, os.PathLike)) and Path(path) == far:
                raise error
            return function(path, *words, **named)

        return call_unless_far

    long = tmp_path / f"{'a' * 300}.png"
    for name in ("stat", "lstat", "open"):
        monkeypatch.setattr(os, name, refuse(getattr(os, name)))
    done = call(tmp_path / pattern, long, photo, "--csv", tmp_path / "faces.csv", "--draw", tmp_path / "drawn")
    assert done.exit_code == 3, done.output
    assert f"{far} cannot be read: {error.strerror}" in done.stderr
    assert f"error: {long} " in done.stderr
    assert len(done.stdout.splitlines()) == 2


@pytest.mark.parametrize("pattern", ["*.png", "**/*.png", "ph?to.png", "[p]hoto.png", "*"])
def test_a_pattern_stands_for_the_images_that_it_matches(photo: Path, pattern: str) -> None:
    """Where no shell has expanded it: on Windows, or in quotes. A folder or a text is no image."""
    (photo.parent / "notes.txt").touch()
    (photo.parent / "below.png").mkdir()
    (photo.parent / ".hidden.png").touch()
    done = call(photo.parent / pattern, "--json")
    assert done.exit_code == 0, done.output
    assert [json.loads(line)["image"] for line in done.stdout.splitlines()] == [str(photo)]


def test_a_pattern_without_an_image_costs_no_other(photo: Path) -> None:
    """It is an error, after the others were predicted; a file whose name looks like a pattern is that file."""
    odd = photo.with_name("a[0].png")
    shutil.copy(photo, odd)
    done = call(odd, photo.parent / "*.webp")
    assert done.exit_code == 3
    assert len(done.stdout.splitlines()) == 2
    assert "*.webp matches no image; expected files that end in .png" in done.stderr


def test_results_come_one_by_one(photo: Path) -> None:
    """The first is shown before the second image is read, and none is kept."""
    second = photo.with_name("second.png")
    shutil.copy(photo, second)
    shown = []

    def show(row: Any) -> None:
        shown.append(row.image)
        second.unlink()

    result = run(Predict(images=[photo, second], model="nano"), show=show)  # type: ignore[arg-type]
    assert shown == [str(photo)]
    assert result.images == ()
    assert "second.png does not exist" in str(result.unreadable[0])
    assert result.unreadable[0].__traceback__ is None  # which would hold the image


def test_without_show_the_result_holds_every_image(photo: Path, empty: Path) -> None:
    """For a program; its text and JSON are those of the command."""
    result = run(Predict(images=[photo, empty], model="nano"))  # type: ignore[arg-type]
    assert [len(one.faces) for one in result.images] == [2, 0]
    assert result.passed
    assert f"{result}\n" == call(photo, empty).stdout
    assert f"{result.to_json()}\n" == call(photo, empty, "--json").stdout


def test_several_images_are_summed_up(photo: Path, empty: Path, caplog: pytest.LogCaptureFixture) -> None:
    """How many faces, and how many images have none or cannot be read."""
    photo.with_name("broken.png").write_bytes(b"no image")
    assert call(photo.parent).exit_code == 3
    assert "3 images: 2 faces; 1 without a face, 1 not read" in caplog.text
    assert empty.is_file()


def test_the_table_has_a_row_per_face(photo: Path, empty: Path, tmp_path: Path) -> None:
    """With box, score, label and every probability, in the order of the labels; an image without a face has none."""
    assert call(photo, empty, "--csv", tmp_path / "out" / "faces.csv", "--label-set", "six").exit_code == 0
    text = (tmp_path / "out" / "faces.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    with edgeemo.load("nano", labels="six") as model:
        expected = model.faces(photo)
        labels = model.labels
    assert list(rows[0]) == [*outputs.COLUMNS, *(f"probability_{label}" for label in labels)]
    assert len(rows) == len(expected) == 2
    for row, face in zip(rows, expected, strict=True):
        assert row["image"] == str(photo)
        assert [float(row[key]) for key in ("x", "y", "width", "height")] == pytest.approx(face.box, abs=0.005)
        assert row["label"] == face.prediction.label
        shares = [float(row[f"probability_{label}"]) for label in labels]
        assert shares == pytest.approx([face.prediction.probabilities[label] for label in labels], abs=1e-6)


def test_an_interrupted_table_is_not_there(photo: Path, tmp_path: Path) -> None:
    """Half a table would look like a whole one."""

    def stop(_: object) -> None:
        raise MachineError("cannot write to standard output")

    with pytest.raises(MachineError, match="standard output"):
        run(Predict(images=[photo], csv=tmp_path / "faces.csv", model="nano"), show=stop)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == [photo.parent]


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".webp", ".bmp", ".jpg", ".jpeg"])
def test_a_photo_is_drawn_in_the_format_of_the_suffix(photo: Path, tmp_path: Path, suffix: str) -> None:
    """Upright, at its size; away from box and label the pixels are those of the photo, in JPEG nearly."""
    assert call(photo, "--draw", tmp_path / f"drawn{suffix}").exit_code == 0
    with Image.open(tmp_path / f"drawn{suffix}") as image, Image.open(photo) as original:
        assert image.format == {".png": "PNG", ".webp": "WEBP", ".bmp": "BMP"}.get(suffix.lower(), "JPEG")
        drawn, before = np.asarray(image.convert("RGB")).astype(int), np.asarray(original.convert("RGB"))
    assert drawn.shape == before.shape
    apart = np.abs(drawn - before)
    assert apart.max() > 100
    rest = apart[:70]  # above the labels
    assert rest.max() <= (8 if suffix.startswith(".jp") else 0)


def test_several_images_are_drawn_to_a_folder(photo: Path, empty: Path, tmp_path: Path) -> None:
    """As PNG, which loses nothing, and in the folders in which they were; one without a face, too."""
    (photo.parent / "below").mkdir()
    shutil.copy(photo, photo.parent / "below" / "photo.png")
    for words in ([photo.parent], [photo.parent / "**" / "*"]):
        assert call(*words, "--draw", tmp_path / "drawn").exit_code == 0
        found = sorted(file.relative_to(tmp_path / "drawn") for file in (tmp_path / "drawn").rglob("*.*"))
        assert found == [Path("below/photo.png"), Path("empty.jpg.png"), Path("photo.png")]
        shutil.rmtree(tmp_path / "drawn")
    assert empty.is_file()


@pytest.mark.parametrize("link", [None, os.symlink, os.link], ids=["itself", "symbolic link", "hard link"])
def test_an_input_is_never_overwritten(photo: Path, tmp_path: Path, link: Callable[..., None] | None) -> None:
    """By whatever name, and before anything is predicted."""
    if link and sys.platform == "win32":
        pytest.skip("links need a privilege on Windows")
    content = photo.read_bytes()
    target = photo
    if link:
        target = tmp_path / "other.png"
        link(photo, target)
    for option, out in (("--draw", target), ("--csv", target), ("--draw", photo.parent)):
        done = call(photo, option, out)
        assert done.exit_code == 2
        assert "is an image to predict, which is not overwritten" in done.stderr
        assert done.stdout == ""
    assert photo.read_bytes() == content


def test_the_model_and_the_detector_are_not_overwritten(photo: Path, tmp_path: Path) -> None:
    """Nor the model's card: they are inputs as well."""
    model, detector = tmp_path / "nano.onnx", tmp_path / "detector.onnx"
    shutil.copy(shipped.find("nano"), model)
    shutil.copy(card_path(shipped.find("nano")), card_path(model))
    shutil.copy(list_detectors()[0].find() or "", detector)
    before = {path: path.read_bytes() for path in (model, card_path(model), detector)}
    for path, what in zip(before, ("the model", "the model's card", "the detector"), strict=True):
        done = call(photo, "--model", model, "--detector", detector, "--csv", path)
        assert done.exit_code == 2
        assert f"{path} is {what}, which is not overwritten" in done.stderr
    assert before == {path: path.read_bytes() for path in before}


@pytest.mark.skipif(sys.platform == "win32", reason="names as POSIX allows them")
def test_a_line_break_in_a_name_breaks_no_row(photo: Path, tmp_path: Path) -> None:
    """As csv reads it, and spreadsheets."""
    odd = [photo.rename(photo.with_name("a\rb.png"))]
    odd += [Path(shutil.copy(odd[0], photo.with_name(name))) for name in ("a\nb.png", 'a,"b.png')]
    assert call(*odd, "--csv", tmp_path / "faces.csv").exit_code == 0
    with (tmp_path / "faces.csv").open(newline="", encoding="utf-8") as file:
        names = [row["image"] for row in csv.DictReader(file)]
    assert names == [str(path) for path in odd for _ in PLACES]


def test_drawings_are_swept_once(photo: Path, empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a killed command left is removed without a look at the whole folder for each image."""
    folder = tmp_path / "drawn"
    folder.mkdir()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = folder / f".photo.{artifact._this_host()}.{dead.pid}.partial.png"
    left.touch()
    listed = []
    iterdir = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: listed.append(self) or iterdir(self))
    for images in ([photo], [photo, empty]):
        listed.clear()
        assert call(*images, "--draw", folder).exit_code == 0
        assert listed.count(folder) == 2  # for a probe, and for drawings
    monkeypatch.undo()
    assert sorted(file.name for file in folder.iterdir()) == ["empty.jpg.png", "photo.png"]


def test_what_was_written_is_logged(photo: Path, empty: Path, tmp_path: Path, caplog: Any) -> None:
    """With how much there is in it."""
    table, folder = tmp_path / "faces.csv", tmp_path / "drawn"
    assert call(photo, empty, "--csv", table, "--draw", folder).exit_code == 0
    assert f"{table}: 2 rows" in caplog.text
    assert f"{folder}: 2 images drawn" in caplog.text


def test_drawings_in_a_folder_that_is_read_are_refused(photo: Path, tmp_path: Path) -> None:
    """The next run would predict them."""
    for out in (photo.parent / "drawn", photo.parent / "drawn.png", photo.parent.parent / "photos" / "a" / "b"):
        done = call(photo.parent, "--draw", out)
        assert done.exit_code == 2
        assert f"--draw would write into {photo.parent}, whose images are predicted" in done.stderr
        assert done.stdout == ""
    assert list(photo.parent.iterdir()) == [photo]
    assert call(photo.parent, "--draw", tmp_path / "photos drawn").exit_code == 0


def test_table_and_drawings_of_one_name_are_refused(photo: Path, empty: Path, tmp_path: Path) -> None:
    """Before anything is predicted."""
    same, other = tmp_path / "same", tmp_path / "other" / ".." / "same"
    (tmp_path / "blocked" / "photo.png").mkdir(parents=True)
    for words, message in (
        (["--csv", same, "--draw", same], "--csv and --draw would both write to"),
        (["--csv", other, "--draw", same], "--csv and --draw would both write to"),
        (["--csv", same / "photo.png", "--draw", same], "--csv and --draw would both write to"),
        (["--csv", tmp_path], "is a folder; expected the name of a file"),
        (["--csv", "."], "is a folder; expected the name of a file"),
        (["--draw", tmp_path / "blocked"], "is a folder; expected the name of a file"),
    ):
        done = call(photo, empty, *words)
        assert done.exit_code == 2
        assert message in done.stderr
        assert done.stdout == ""
    assert not same.exists()


def test_a_name_too_long_for_an_output_is_refused_at_the_start(photo: Path) -> None:
    """In a line, before anything is predicted."""
    for option in ("--csv", "--draw"):
        done = call(photo, option, "a" * 300)
        assert done.exit_code == 5
        assert "cannot write" in done.stderr
        assert done.stdout == ""


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
def test_table_and_drawings_of_one_name_are_refused_by_a_link_too(photo: Path, tmp_path: Path) -> None:
    """Two names of a folder lead to one temporary file."""
    (tmp_path / "link").symlink_to(tmp_path)
    done = call(photo, "--csv", tmp_path / "link" / "same.png", "--draw", tmp_path / "same.png")
    assert done.exit_code == 2
    assert "--csv and --draw would both write to" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="pipes")
def test_a_closed_pipe_ends_the_command_without_an_error(photo: Path, tmp_path: Path) -> None:
    """As with other commands before `| head`; files that are not complete are named."""
    script = [sys.executable, "-m", "edgeemo", "predict", "--model", "nano", str(photo), str(photo)]
    for words, expected in (([], ""), (["--csv", str(tmp_path / "faces.csv")], "faces.csv is not written\n")):
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run([*script, *words], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
        os.close(writer)
        assert done.returncode == 141
        assert done.stderr.endswith(expected)
        assert "error" not in done.stderr
        assert len(done.stderr.splitlines()) == bool(words)
    assert not (tmp_path / "faces.csv").exists()


def test_drawings_that_cannot_be_meant_are_refused(photo: Path, empty: Path, tmp_path: Path) -> None:
    """One file for several images, another format, and two images with one name."""
    (tmp_path / "other").mkdir()
    other = Path(shutil.copy(photo, tmp_path / "other"))
    for words, message in (
        ([photo, empty, "--draw", tmp_path / "a.png"], "is one file for 2 images; expected a folder"),
        ([photo, "--draw", tmp_path / "a.gif"], "expected a folder, or a file that ends in .png"),
        ([photo, other, "--draw", tmp_path / "a"], "would both be drawn to"),
    ):
        done = call(*words)
        assert done.exit_code == 2
        assert message in done.stderr
    assert call(photo, photo, "--draw", tmp_path / "a.png").exit_code == 0  # one image, twice


def test_a_format_too_small_for_the_image_is_named(tmp_path: Path) -> None:
    """WebP ends at 16,383 pixels a side."""
    Image.fromarray(np.full((16, 16400), 110, np.uint8)).save(tmp_path / "wide.png")
    done = call(tmp_path / "wide.png", "--draw", tmp_path / "drawn.webp")
    assert done.exit_code == 2
    assert "cannot hold 16400x16 px" in done.stderr
    assert not (tmp_path / "drawn.webp").exists()


def test_a_sample_and_crops_are_drawn_as_well(tmp_path: Path) -> None:
    """With their square as the box."""
    assert call("--sample", "--draw", tmp_path / "sample.png").exit_code == 0
    with Image.open(tmp_path / "sample.png") as image:
        assert image.size == (256, 256)  # four times that of the sample, for the label
        assert sources.SAMPLE.read().shape == (64, 64)
        assert image.getcolors(1 << 16) is not None
