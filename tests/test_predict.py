"""The predict stage on ready crops: a line or a JSON object per image, and whether all were read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from edgeemo.card import read_card
from edgeemo.cli import main
from edgeemo.runtime import shipped


def call(*words: object) -> Result:
    return CliRunner().invoke(main, ["predict", *map(str, words)])


def crop(*words: object) -> Result:
    return call("--crop", *words)


@pytest.fixture
def image(tmp_path: Path, face: np.ndarray) -> Path:
    Image.fromarray(face).save(tmp_path / "face.png")
    return tmp_path / "face.png"


@pytest.mark.skipif(sys.platform != "linux", reason="the file system decides which names it allows")
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_any_name_is_printed_on_any_console(image: Path, tmp_path: Path, encoding: str) -> None:
    """As an escape where the console's encoding does not have the letter."""
    odd = image.rename(tmp_path / os.fsdecode(b"caf\xe9 \xf0\x9f\x98\x80.png"))
    env = {**os.environ, "PYTHONIOENCODING": f"{encoding}:strict"}
    for words in ([odd], [odd, "--json"], [tmp_path / os.fsdecode(b"no\xe9.png")]):
        command = [sys.executable, "-m", "edgeemo", "predict", "--crop", "--model", "nano", *words]
        done = subprocess.run(command, env=env, capture_output=True, check=False)
        assert done.returncode == (0 if words[0] == odd else 3)
        assert b"Traceback" not in done.stderr
        shown = done.stdout + done.stderr
        escapes = [rb"\udce9", rb"\xe9"] + [b"?"] * (encoding == "ascii")  # Click shows ? on an ASCII console
        assert any(escape in shown for escape in escapes)


def test_a_name_cannot_control_the_terminal(image: Path, tmp_path: Path) -> None:
    """A line per image, and no escape sequence from a file's name."""
    done = crop(image.rename(tmp_path / "a\nb\x1b[31m.png"))
    assert len(done.output.splitlines()) == 1
    assert r"a\x0ab\x1b[31m.png: " in done.output


@pytest.mark.parametrize("model", shipped.NAMES)
def test_the_sample_is_recognised_by_every_shipped_model(model: str) -> None:
    """Without any image of the user's."""
    done = call("--sample", "--model", model)
    assert done.exit_code == 0, done.output
    assert done.output.startswith("sample: surprise ")


def test_one_unreadable_image_does_not_cost_the_others(image: Path, tmp_path: Path) -> None:
    """They are predicted, it is named, and the exit code is that of unusable data."""
    (tmp_path / "broken.png").write_bytes(b"no image")
    done = crop(image, tmp_path / "broken.png", tmp_path / "gone.png", image)
    assert done.exit_code == 3
    assert done.stdout.count(f"{image}: ") == 2
    assert done.stderr.count("error: ") == 2
    assert "broken.png" in done.stderr
    assert "gone.png" in done.stderr


def test_json_has_a_line_per_image(image: Path) -> None:
    """With one face, the central square, whose score no detector gave."""
    rows = [json.loads(line) for line in crop(image, image, "--json").output.splitlines()]
    assert [row["image"] for row in rows] == [str(image)] * 2
    assert [(row["width"], row["height"]) for row in rows] == [(50, 60)] * 2
    (one,) = rows[0]["faces"]
    assert (one["box"], one["score"], one["landmarks"]) == ([0, 5, 50, 50], None, [])
    assert len(one["probabilities"]) == 8
    assert one["label"] == next(iter(one["probabilities"]))
    assert one["unsure"] is (one["probability"] < read_card(shipped.find()).answers.least_probability)


def test_the_box_of_a_crop_is_its_central_square(face: np.ndarray, tmp_path: Path) -> None:
    """What was classified, of an image that is no square."""
    Image.fromarray(np.pad(face, ((0, 0), (10, 41), (0, 0)))).save(tmp_path / "wide.png")
    (row,) = map(json.loads, crop(tmp_path / "wide.png", "--json").output.splitlines())
    assert (row["width"], row["height"]) == (101, 60)
    assert row["faces"][0]["box"] == [20, 0, 60, 60]


def test_no_image_names_the_sample() -> None:
    """A first try needs no image."""
    done = call()
    assert done.exit_code == 2
    assert "edgeemo predict --sample" in done.output


def test_the_sample_and_images_exclude_each_other(image: Path) -> None:
    """Which one was meant is not known."""
    assert call(image, "--sample").exit_code == 2
    assert call("--crop", "--sample").exit_code == 2


def test_a_folder_stands_for_its_images(image: Path, tmp_path: Path) -> None:
    """Also those below it, sorted; hidden and system files are not images."""
    (tmp_path / "below").mkdir()
    for name in ("below/b.jpg", "._face.png", "below/.hidden.png", "notes.txt"):
        (tmp_path / name).write_bytes(image.read_bytes())
    done = crop(tmp_path)
    assert done.exit_code == 0, done.output
    assert [line.partition(": ")[0] for line in done.stdout.splitlines()] == [
        str(tmp_path / "below" / "b.jpg"),
        str(image),
    ]


def test_a_folder_without_images_is_reported(tmp_path: Path) -> None:
    """With the suffixes that were expected."""
    done = crop(tmp_path)
    assert done.exit_code == 3
    assert "holds no images; expected files that end in .png" in done.output


def test_linked_folders_are_followed_and_other_files_counted(
    image: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A link in a circle ends; a TIFF is named."""
    (tmp_path / "real").mkdir()
    image.rename(tmp_path / "real" / "face.png")
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "circle").symlink_to(tmp_path / "faces")
    (tmp_path / "faces" / "a.tiff").touch()
    done = crop(tmp_path / "faces")
    assert done.exit_code == 0, done.output
    assert len(done.stdout.splitlines()) == 1
    assert "1 file of another type not read, such as a.tiff" in caplog.text


def test_a_folder_that_cannot_be_listed_is_reported(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its faces are not forgotten in silence; the others are predicted."""
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def refuse(path: str) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    done = crop(tmp_path)
    assert done.exit_code == 3
    assert done.stdout.startswith(f"{image}: ")
    assert "locked cannot be listed; make it readable" in done.output


def test_an_empty_folder_costs_no_other_image(image: Path, tmp_path: Path) -> None:
    """As a missing image does not."""
    (tmp_path / "empty").mkdir()
    done = crop(image, tmp_path / "empty", image)
    assert done.exit_code == 3
    assert len([line for line in done.stdout.splitlines() if line.startswith(str(image))]) == 2


def test_a_run_folder_in_place_of_a_model_is_named(image: Path, tmp_path: Path) -> None:
    """With the model inside it, or how to make one."""
    (tmp_path / "run" / "compressed").mkdir(parents=True)
    assert "edgeemo compress RUN --int8" in call(image, "--model", tmp_path / "run").output
    (tmp_path / "run" / "compressed" / "model.int8.onnx").touch()
    done = call(image, "--model", tmp_path / "run")
    assert done.exit_code == 2
    assert (
        f"is a folder; expected a model file (.onnx, .trt), such as {tmp_path}/run/compressed/model.int8" in done.output
    )
