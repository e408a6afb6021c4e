"""The label command: from photos to labelled crops in the terminal, and what it refuses."""

from __future__ import annotations

import io
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import make_tiny
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import edgeemo
from edgeemo import stages
from edgeemo.cli import main
from edgeemo.data import faces as data_faces
from edgeemo.data.crop import run as crop_photos
from edgeemo.data.layouts.folder import open_folder
from edgeemo.label import terminal
from edgeemo.label.session import Session

ANSWERS = "h\nn\ns\nanger\n"


def label(*words: object, answers: str = "") -> Result:
    return CliRunner().invoke(main, ["label", *map(str, words), "--terminal"], input=answers)


def list_crops(out: Path) -> list[list[str]]:
    """Label, person and photo of each crop."""
    files = [file.relative_to(out) for file in out.glob("*/*/*.png")]
    return sorted([*file.parts[:2], file.name.rpartition("-")[0]] for file in files)


def test_piped_answers_label_the_faces(photos: Path, tmp_path: Path) -> None:
    """The three photos with faces, one of them with two; the next command is printed."""
    out = tmp_path / "mine"
    done = label(photos, "--out", out, answers=ANSWERS)
    assert done.exit_code == 0, done.output
    crops = list_crops(out)
    assert len(crops) == 3
    assert {name for name, *_ in crops} == {"happiness", "neutral", "anger"}
    assert {person for _, person, _ in crops} == {"anna", "ben"}
    assert done.stdout.splitlines()[-2:] == [
        str(out),
        f"next:  edgeemo adapt small --data folder:{out} --people folder",
    ]


def test_the_same_command_goes_on_and_ends_when_all_is_done(photos: Path, tmp_path: Path) -> None:
    """Without asking about a face twice."""
    for answers, first in (
        ("n\n", "0 labelled, 4 left"),
        ("s\nn\n", "1 labelled, 3 left"),
        ("1\n", "2 labelled, 1 left"),
    ):
        done = label(photos, "--out", tmp_path / "mine", answers=answers)
        assert first in done.output.splitlines()[1]
        assert done.exit_code == 0
    last = label(photos, "--out", tmp_path / "mine", answers="n\n")
    assert last.exit_code == 0
    assert len(last.stdout.splitlines()) == 2  # the folder, and what comes next
    assert len(list_crops(tmp_path / "mine")) == 3


def test_a_crop_is_what_the_model_reads_of_the_photo(photos: Path, tmp_path: Path) -> None:
    """A model predicts the same for both, to the bit."""
    label(photos, "--out", tmp_path / "mine", answers="h\n" * 4)
    with edgeemo.load() as model:
        for file in (tmp_path / "mine").glob("*/anna/*.png"):
            photo = photos / "anna" / f"{file.name.partition('-')[0]}.png"
            (face,) = model.faces(photo, augment=False)
            assert model.predict(file) == face.prediction


def test_crops_read_back_are_those_that_the_model_expects(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With labels of the model, and no warning."""
    out = tmp_path / "mine"
    label(photos, "--out", out, answers="h\nn\nh\nn\n")
    caplog.clear()
    with edgeemo.load() as model:
        data_faces.warn_of_other_crop(f"folder:{out}", model.card.input)
        found = {label for sample in open_folder(out).samples("train") for label in sample.votes}
        assert found == {"happiness", "neutral"} <= set(model.labels)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_ready_crops_need_no_detector(tmp_path: Path, rng: np.random.Generator) -> None:
    """Noise, in which no face would be found; the central square is kept."""
    Image.fromarray(rng.integers(0, 256, (50, 60), dtype=np.uint8)).save(tmp_path / "face.png")
    out = tmp_path / "mine"
    assert label(tmp_path / "face.png", "--out", out, "--crop", answers="f\n").exit_code == 0
    (file,) = out.glob("fear/person/*.png")
    assert Image.open(file).size == (50, 50)
    assert not (out / "crop.json").exists()


def test_only_chosen_labels_are_offered(photos: Path, tmp_path: Path) -> None:
    """Others are unknown answers, which change nothing."""
    done = label(photos, "--out", tmp_path / "mine", "--labels", "happy,neutral", answers="anger\nhappiness\n")
    assert "unknown: anger.  1 h happiness; 2 n neutral;" in done.output
    assert [name for name, *_ in list_crops(tmp_path / "mine")] == ["happiness"]


def test_prediction_is_shown_on_demand_only(photos: Path, tmp_path: Path) -> None:
    """It would bias who labels."""
    hidden = label(photos, "--out", tmp_path / "mine", answers="n\n")
    assert "%" not in hidden.output
    shown = label(photos, "--out", tmp_path / "mine", answers="p\nu\nq\n")
    assert " %, " in shown.output
    assert "undone: neutral" in shown.output
    assert shown.exit_code == 3  # nothing is left


def test_nothing_labelled_is_no_success(photos: Path, tmp_path: Path) -> None:
    """Adapt could not read it."""
    done = label(photos, "--out", tmp_path / "mine", answers="s\n")
    assert done.exit_code == 3
    assert "holds no labelled face" in done.output


def test_a_model_with_own_labels_gives_its_labels(photos: Path, tmp_path: Path) -> None:
    """And they are read back although they are no emotions."""
    model = make_tiny.write(tmp_path / "tiny.onnx")
    with edgeemo.load(model) as opened:
        first = opened.labels[0]
    done = label(photos, "--out", tmp_path / "mine", "--model", model, answers="1\n")
    assert done.exit_code == 0, done.output
    assert [name for name, *_ in list_crops(tmp_path / "mine")] == [first]


def test_an_unreadable_photo_costs_no_other(photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is named, with the reason."""
    (photos / "anna" / "broken.png").write_bytes(b"\x89PNG")
    done = label(photos, "--out", tmp_path / "mine", answers="h\n")
    assert done.exit_code == 0
    (message,) = (text for text in caplog.messages if text.startswith("left out: "))
    assert "broken.png: not an image" in message


REFUSED: dict[str, tuple[Callable[[Path], list[object]], int, str]] = {
    "no photo": (lambda photos: [photos.parent / "nothing"], 3, "does not exist"),
    "empty folder": (lambda photos: [photos.parent / "empty"], 3, "holds no images"),
    "no face": (lambda photos: [photos / "ben" / "none.png"], 3, "no face found in 1 photo; use --crop if they are"),
    "inside": (lambda photos: [photos, "--out", photos / "ben" / "mine"], 2, "lies inside the folder of photos"),
    "photos inside": (lambda photos: [photos / "ben", "--out", photos], 2, "lies inside --out"),
    "foreign folder": (lambda photos: [photos / "anna", "--out", photos.parent / "full"], 2, "not written by edgeemo"),
    "labels": (lambda photos: [photos, "--labels", "bored,happy"], 2, "unknown label 'bored'; known: neutral, "),
    "port": (lambda photos: [photos, "--port", "80"], 2, "--port has no effect with --terminal"),
    "faces": (lambda photos: [photos, "--crop", "--faces", "many"], 2, "--faces has no effect with --crop"),
    "model": (lambda photos: [photos, "--model", "huge"], 2, "unknown model 'huge'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_labelled_is_one_line(case: str, photos: Path, tmp_path: Path) -> None:
    """Nothing is written."""
    make, code, message = REFUSED[case]
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    words = make(photos)
    before = sorted(tmp_path.rglob("*"))
    done = label(*words, *([] if "--out" in words else ["--out", tmp_path / "mine"]), answers="h\n")
    assert done.exit_code == code, done.output
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_a_port_in_use_is_refused(photos: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        words = ["label", str(photos), "--out", str(tmp_path / "mine"), "--port", str(port), "--no-browser"]
        done = CliRunner().invoke(main, words)
    assert done.exit_code == 2
    assert f"port {port} is in use; choose another --port" in done.output


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        """Say so."""
        return True


def test_a_terminal_shows_the_crop_and_reads_keys(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """In half blocks, two pixels each; with NO_COLOR, only where the face is."""
    keys = iter("ax")
    monkeypatch.setattr(terminal.click, "getchar", lambda: next(keys, "q"))
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    for colour, blocks in (("", True), ("1", False)):
        monkeypatch.setenv("NO_COLOR", colour)
        monkeypatch.setattr(sys, "stdout", shown := Terminal())
        terminal.label_in_terminal(session)
        assert (terminal.BLOCK in shown.getvalue()) is blocks
        assert "person" in shown.getvalue()
    assert session.get_progress().labels["anger"] == 1


def test_half_blocks_have_the_colours_of_the_pixels() -> None:
    """The upper pixel in front, the lower one behind."""
    pixels = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [1, 2, 3]]], np.uint8)
    first, second = terminal.draw(pixels, side=2).split(terminal.BLOCK)[:2]
    assert first == "\x1b[38;2;255;0;0m\x1b[48;2;0;0;255m"
    assert second == "\x1b[38;2;0;255;0m\x1b[48;2;1;2;3m"


def test_label_and_data_crop_write_the_same_crop(photos: Path, tmp_path: Path) -> None:
    """Of the same photo, with the same description beside it."""
    (tmp_path / "labelled").mkdir()
    shutil.copytree(photos / "anna", tmp_path / "labelled" / "happiness")
    cropped = crop_photos(
        stages.CropPhotos(source=f"folder:{tmp_path / 'labelled'}", out=tmp_path / "crops", threads=1)
    )
    label(photos / "anna", "--out", tmp_path / "mine", answers="h\nh\n")
    assert open_folder(tmp_path / "mine").crop == open_folder(cropped).crop
    for file in (tmp_path / "mine").glob("happiness/person/*.png"):
        other = next(cropped.rglob(f"{file.name.partition('-')[0]}.png"))
        assert np.array_equal(np.asarray(Image.open(file)), np.asarray(Image.open(other)))
