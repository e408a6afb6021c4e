"""With --skip-unreadable, faces that cannot be read are passed over, counted and named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import make_tiny
import pytest
from click.testing import CliRunner

from edgeemo.bench import accuracy
from edgeemo.card import InputContract, read_card
from edgeemo.cli import main
from edgeemo.data import faces, unreadable
from edgeemo.errors import DataError
from edgeemo.labels import LABEL_SETS
from edgeemo.report.facts import Unreadable
from edgeemo.report.files import read
from edgeemo.train import plots

SIX = LABEL_SETS["six"]
BAD = 12


@pytest.fixture
def spoiled(folder_of_faces: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Split folders with 48 train and 12 valid faces; 12 of train and one of valid cannot be read."""
    for plot in ("plot_curves", "plot_confusion"):
        monkeypatch.setattr(plots, plot, lambda *_, **__: None)
    root = folder_of_faces.with_name("split")
    for file in sorted(folder_of_faces.glob("*/*.png")):
        split = "valid" if int(file.stem) < 2 else "train"
        target = root / split / file.parent.name / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        file.rename(target)
    for label in ("fear", "happy", "angry"):
        for number in (2, 5, 7, 9):
            spoil(root / "train" / label / f"{number}.png", number)
    spoil(root / "valid/fear/1.png", 1)
    return f"folder:{root}"


def spoil(file: Path, number: int) -> None:
    """Cut a file, empty it, or replace it by text."""
    content = file.read_bytes()
    file.write_bytes((content[: len(content) // 2], b"", b"no picture")[number % 3])


def call(*words: Any) -> Any:
    return CliRunner().invoke(main, [str(word) for word in words])


def train(data: str, out: Path, *words: Any) -> Any:
    settings = ("--recipe", "demo", "--backbone", "edge_vgg_nano", "--epochs", 1, "--batch-size", 16, "--threads", 1)
    return call("train", *settings, "--data", data, "--out", out, *words)


def test_training_goes_on_without_unreadable_faces(
    spoiled: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log numbers the first ten and counts the rest, log.json has both, and card and resume have those used."""
    with caplog.at_level("INFO", logger="edgeemo"):
        done = train(spoiled, tmp_path / "run", "--skip-unreadable")
    assert done.exit_code == 0, done.output
    assert f"{spoiled}: passed over {BAD} of 48 train faces, which cannot be read:" in caplog.text
    assert "\n  10. train/happy/5.png" in caplog.text
    assert "11. " not in caplog.text
    assert "  … and 2 more" in caplog.text
    log = json.loads((tmp_path / "run/log.json").read_text())
    assert (log["unreadable"]["train"]["n"], len(log["unreadable"]["train"]["first"])) == (BAD, 10)
    assert log["unreadable"]["valid"] == {"n": 1, "first": ["valid/fear/1.png"]}
    assert log["faces"]["train"]["n"] == read_card(tmp_path / "run/model.safetensors").data.train.n == 48 - BAD
    assert call("train", "--resume", "--out", tmp_path / "run", "--data", spoiled).exit_code == 0


def test_without_the_option_training_is_refused_with_it_as_advice(spoiled: str, tmp_path: Path) -> None:
    """Before the first epoch."""
    done = train(spoiled, tmp_path / "run")
    assert done.exit_code == 3
    assert "edgeemo data audit" in done.output
    assert "--skip-unreadable" in done.output
    assert not (tmp_path / "run/checkpoints").exists()


def test_a_run_is_compressed_and_evaluated_without_them(spoiled: str, tmp_path: Path) -> None:
    """The results count and name the valid faces that are missing, without a path."""
    assert train(spoiled, tmp_path / "run", "--skip-unreadable").exit_code == 0
    out = tmp_path / "evaluation.json"
    for command in (("evaluate", tmp_path / "run", "--out", out), ("compress", tmp_path / "run", "--no-time")):
        assert call(*command).exit_code == 3
        assert call(*command, "--skip-unreadable").exit_code == 0
    for file in (out, tmp_path / "run/compressed/comparison.json"):
        assert read(file).faces.unreadable == Unreadable(1, ["valid/fear/1.png"])
        assert read(file).faces.n == 11
        assert read(file).faces.name == "folder valid without 1 unreadable"
        assert str(tmp_path) not in file.read_text()


def test_bench_scores_the_others(spoiled: str) -> None:
    """Only with the option; copies of train faces are looked for among those that can be read."""
    with pytest.raises(DataError, match="--skip-unreadable"):
        accuracy.make_eval_set(spoiled, "valid", "plurality", make_tiny.card())
    found = accuracy.make_eval_set(spoiled, "valid", "plurality", make_tiny.card(), skip_unreadable=True)
    scored = accuracy.score(accuracy.np.eye(6)[found.labelled.truth], found)
    assert (scored.n, scored.faces.unreadable) == (11, Unreadable(1, ["valid/fear/1.png"]))


def test_a_split_without_a_readable_face_is_refused(folder_of_faces: Path) -> None:
    """There is nothing to go on with."""
    for file in folder_of_faces.glob("*/*.png"):
        file.write_bytes(b"")
    with pytest.raises(DataError, match="none of the 60 train faces can be read"):
        faces.list_labelled(f"folder:{folder_of_faces}", "train", SIX, skip_unreadable=True)


def test_readable_faces_are_the_same_with_and_without_the_option(folder_of_faces: Path) -> None:
    """Order and labels do not change, and nothing is reported."""
    data = f"folder:{folder_of_faces}"
    first, second = (
        faces.load(data, "train", SIX, contract=InputContract(48), skip_unreadable=skip) for skip in (False, True)
    )
    assert (first.content_sha256, first.ids) == (second.content_sha256, second.ids)
    assert unreadable.summarise(data, "train") is None
