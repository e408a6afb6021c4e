"""A run is known by its folder, its faces and its weights, not by how their paths are written."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from edgeemo import resume
from edgeemo.artifact import hash_file
from edgeemo.card import read_card
from edgeemo.cli import main
from edgeemo.labels import LABEL_SETS
from edgeemo.stages import RECIPES, Train
from edgeemo.train import checkpoint, fit, plots, pretrained, run_folder
from edgeemo.train.backbones import backbone

SETTINGS = [
    *("--recipe", "demo", "--backbone", "edge_vgg_nano", "--epochs", "2"),
    *("--batch-size", "16", "--threads", "1", "--checkpoint-steps", "1"),
]


class Stopped(Exception):
    """Simulated power failure."""


@pytest.fixture
def place(folder_of_faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the folder `faces`; no plots."""
    for plot in ("plot_curves", "plot_confusion"):
        monkeypatch.setattr(plots, plot, lambda *_, **__: None)
    monkeypatch.chdir(tmp_path)
    assert folder_of_faces.parent == tmp_path
    return tmp_path


def call(*words: Any) -> Result:
    return CliRunner().invoke(main, ["--quiet", *map(str, words)])


def train(*words: Any) -> Result:
    return call("train", *SETTINGS, *words)


def stop_after(steps: int, *command: Any) -> None:
    """Run a command that trains, and kill it after so many steps."""
    taken, step = iter(range(steps)), fit._train_step

    def counted(*arguments: Any) -> None:
        if next(taken, None) is None:
            raise Stopped
        step(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "_train_step", counted)
        done = call(*command)
    assert isinstance(done.exception, Stopped), done.output


@pytest.fixture
def stopped(place: Path) -> Path:
    """A run of `folder:faces`, stopped in its second epoch."""
    stop_after(4, "train", *SETTINGS, "--data", "folder:faces", "--out", "run")
    return place / "run"


def hash_model(run: Path) -> str:
    return hash_file(run / run_folder.MODEL)


def hash_uninterrupted(*words: Any) -> str:
    done = train("--out", "uninterrupted", *words)
    assert done.exit_code == 0, done.output
    return hash_model(Path("uninterrupted"))


def assert_resumes(*words: Any) -> None:
    """Check that the command continues the stopped run, and ends in the bits of an uninterrupted one."""
    before = checkpoint.list_checkpoints(Path("run"))[-1].name
    done = call("train", "--out", "run", "--resume", *words)
    assert done.exit_code == 0, done.output
    epochs = json.loads(Path("run/log.json").read_text())["epochs"]
    assert (before, len(epochs)) == ("00000004", 2)


def write_elsewhere(place: Path, how: str) -> str:
    """Return another way to write `folder:faces`."""
    faces = place / "faces"
    if how == "copy":
        shutil.copytree(faces, place / "disk" / "copy")
        return "folder:disk/copy"
    if how == "link":
        (place / "link").symlink_to(faces)
        return "folder:link"
    return {"slash": "folder:faces/", "dot": "folder:./faces", "up": "folder:run/../faces"}.get(how, f"folder:{faces}")


@pytest.mark.parametrize("how", ["slash", "dot", "up", "absolute", "copy", "link"])
def test_the_same_faces_written_otherwise_are_the_same_run(stopped: Path, place: Path, how: str) -> None:
    """Faces are known by their pixels and votes: the run goes on, and ends in the bits of an uninterrupted one."""
    assert_resumes(*SETTINGS, "--data", write_elsewhere(place, how))
    assert hash_model(stopped) == hash_uninterrupted("--data", "folder:faces")


def test_other_faces_of_the_same_names_are_another_run(stopped: Path, place: Path) -> None:
    """One face was replaced by another: refused, although the path is the same."""
    shutil.copy(place / "faces/fear/1.png", place / "faces/fear/2.png")
    done = call("train", "--out", stopped, "--resume")
    assert done.exit_code == 2
    assert "other settings: train faces" in done.output


@pytest.mark.parametrize("path", ["a.safetensors", "./a.safetensors", "disk/b.safetensors"])
def test_weights_are_known_by_the_hash_of_their_file(place: Path, path: str) -> None:
    """Written otherwise, or copied."""
    start = ["--data", "synthetic:60", "--weights", "a.safetensors"]
    train("--data", "synthetic:60", "--epochs", 1, "--out", "first")
    shutil.copy("first/model.safetensors", "a.safetensors")
    (place / "disk").mkdir()
    shutil.copy("a.safetensors", "disk/b.safetensors")
    stop_after(4, "train", *SETTINGS, *start, "--out", "run")
    assert_resumes(*SETTINGS, *start, "--weights", path)
    assert hash_model(place / "run") == hash_uninterrupted(*start)


def test_other_initial_weights_are_another_run(place: Path) -> None:
    """A file, or none, instead of another file."""
    for seed in (0, 1):
        train("--data", "synthetic:60", "--epochs", 1, "--out", f"start-{seed}", "--seed", seed)
    command = ["train", *SETTINGS, "--data", "synthetic:60", "--out", "run"]
    stop_after(2, *command, "--weights", "start-0/model.safetensors")
    for other in ("start-1/model.safetensors", "none"):
        done = call(*command, "--resume", "--weights", other)
        assert done.exit_code == 2
        assert "other settings: weights" in done.output
    assert (place / "run/checkpoints").is_dir()


@pytest.mark.parametrize(
    "option",
    [
        ("--size", backbone("edge_vgg_nano").size),
        ("--label-set", ",".join(LABEL_SETS["six"].labels)),
        ("--backbone-lr", 0.5),  # has no effect without initial weights
        ("--target-accuracy", 50),
        ("--workers", 1),
        ("--checkpoint-steps", 7),
    ],
    ids=lambda option: option[0],
)
def test_settings_that_change_no_result_may_differ(stopped: Path, option: tuple[str, Any]) -> None:
    """The default written out, or what has no effect."""
    assert_resumes(*SETTINGS, "--data", "folder:faces", *option)
    assert hash_model(stopped) == hash_uninterrupted("--data", "folder:faces")


def test_resume_alone_goes_on_with_the_settings_of_the_run(stopped: Path) -> None:
    """Neither recipe nor faces nor threads need to be repeated."""
    assert_resumes()
    config = json.loads((stopped / "log.json").read_text())["config"]
    assert (config["backbone"], config["threads"]) == ("edge_vgg_nano", 1)
    assert hash_model(stopped) == hash_uninterrupted("--data", "folder:faces")


@pytest.mark.parametrize("weights", ["imagenet", "file"])
def test_a_resumed_run_needs_no_initial_weights(place: Path, monkeypatch: pytest.MonkeyPatch, weights: str) -> None:
    """Its checkpoint has all weights: nothing is downloaded, and the file may be gone; the card still names them."""
    monkeypatch.setattr(pretrained, "_download", lambda entry, _: entry.model().state_dict())
    if weights == "file":
        train("--data", "synthetic:60", "--epochs", 1, "--out", "first")
    start = "imagenet" if weights == "imagenet" else "first/model.safetensors"
    stop_after(4, "train", *SETTINGS, "--data", "synthetic:60", "--weights", start, "--out", "run")
    monkeypatch.setattr(pretrained, "_download", None)
    shutil.rmtree("first", ignore_errors=True)
    assert_resumes()
    terms = read_card(place / "run/model.safetensors").licences.initial_weights
    assert terms.startswith("from another model" if weights == "file" else "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--epochs", 3), "--epochs (stored 2, requested 3)"),
        (("--dropout", 0.1, "--seed", 1), "--dropout (stored 0.2, requested 0.1), --seed (stored 0, requested 1)"),
        (("--recipe", "edge"), "--backbone (stored edge_vgg_nano, requested edge_vgg)"),
        (("--protocol", "majority"), "--protocol (stored plurality, requested majority)"),
    ],
)
def test_options_that_contradict_the_run_are_refused_by_name(stopped: Path, words: Any, message: str) -> None:
    """With both values, before any face is read."""
    shutil.rmtree("faces")
    done = call("train", "--out", stopped, "--resume", *words)
    assert done.exit_code == 2
    assert message in done.output
    assert "leave these options out to continue it, or choose another --out" in done.output


def test_resume_without_a_run_says_so(place: Path) -> None:
    """In one line, instead of starting a training of the default recipe."""
    done = call("train", "--resume")
    assert done.exit_code == 2
    assert done.output == (
        "error: runs/train has no run to continue: neither checkpoints nor log.json.  Start one without --resume\n"
    )
    assert not (place / "runs").exists()


def test_checkpoints_without_settings_are_refused_in_one_line(stopped: Path) -> None:
    """Those of an earlier edgeemo, which wrote its log at the end; with the original command they go on."""
    (stopped / "log.json").unlink()
    done = call("train", "--out", "run", "--resume")
    assert done.exit_code == 2
    assert "run has checkpoints but no log.json" in done.output
    assert len(done.output.splitlines()) == 1
    assert_resumes(*SETTINGS, "--data", "folder:faces")


def test_a_run_killed_before_its_first_checkpoint_starts_again(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With its settings, which are stored before the first step; the log says that there was no checkpoint."""
    stop_after(0, "train", *SETTINGS, "--data", "folder:faces", "--out", "run")
    with caplog.at_level("INFO", logger="edgeemo"):
        done = CliRunner().invoke(main, ["train", "--out", "run", "--resume"])
    assert done.exit_code == 0
    assert "no checkpoint in run: starting from the beginning" in caplog.text
    assert hash_model(place / "run") == hash_uninterrupted("--data", "folder:faces")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"config": 3}', '{"config": {"data": "synthetic", "epochs": 0}}'])
def test_a_damaged_log_is_refused(stopped: Path, content: str) -> None:
    """Not replaced by guesses; without it, the original command goes on."""
    (stopped / "log.json").write_text(content)
    done = call("train", "--out", "run", "--resume")
    assert done.exit_code == 4
    assert "log.json does not record how the run was started" in done.output


def test_a_finished_run_says_so_and_what_to_do_instead(stopped: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without reading a face or writing a file."""
    assert_resumes()
    shutil.rmtree("faces")
    before = {path: path.stat().st_mtime_ns for path in stopped.rglob("*") if path.is_file()}
    done = call("train", "--out", "run", "--resume")
    assert done.exit_code == 0
    assert "run is finished, nothing is left to resume" in caplog.text
    assert "--weights run/model.safetensors --out FOLDER" in caplog.text
    assert before == {path: path.stat().st_mtime_ns for path in stopped.rglob("*") if path.is_file()}


def test_a_finished_run_is_not_one_with_a_teacher(stopped: Path) -> None:
    """Its targets would have been others: refused, not called finished."""
    assert_resumes()
    done = call("train", "--out", stopped, "--resume", "--teacher", stopped)
    assert done.exit_code == 2
    assert "other settings: teacher" in done.output


@pytest.fixture
def stops_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """No epoch is better than the first."""
    monkeypatch.setattr(fit, "_should_stop_early", lambda state, patience: bool(patience and state.epoch))


@pytest.mark.usefixtures("stops_early", "place")
@pytest.mark.parametrize("mirror", [(), ("--mirror",)])
def test_after_an_early_stop_the_log_says_how_to_train_on(mirror: tuple[str], caplog: pytest.LogCaptureFixture) -> None:
    """What it says works: the new run starts with the trained backbone."""
    data = ("--data", "synthetic:60", "--patience", 1)
    with caplog.at_level("INFO", logger="edgeemo"):
        done = CliRunner().invoke(main, ["train", *SETTINGS, *data, *mirror, "--out", "a b"])
    assert done.exit_code == 0, done.output
    advice = "repeat the command with  --weights 'a b/model.safetensors' --out FOLDER"
    assert f"stopped after 1 of 2 epochs; to train its backbone further, start another run: {advice}" in caplog.text
    assert ("and without --mirror" in caplog.text) == bool(mirror)
    assert train(*data, "--weights", "a b/model.safetensors", "--out", "on").exit_code == 0


def test_the_log_has_absolute_paths_and_the_text_as_typed(stopped: Path, place: Path) -> None:
    """From the first step on."""
    log = json.loads((stopped / "log.json").read_text())
    assert (log["config"]["data"], log["config"]["out"]) == (f"folder:{place / 'faces'}", str(place / "run"))
    assert (log["typed"], log["beside"]) == ({"data": "folder:faces", "out": "run"}, {"data": "../faces"})
    assert log["epochs"] == []
    assert_resumes()
    assert json.loads((stopped / "log.json").read_text())["typed"]["data"] == "folder:faces"


@pytest.mark.parametrize("text", ["synthetic:60", "synthetic", "imagenet", "none"])
def test_what_is_no_path_stays_as_it_is(text: str) -> None:
    """Names of data sets and of published weights."""
    name = "data" if text.startswith("synthetic") else "weights"
    assert getattr(resume.make_absolute(Train(**{name: text})), name) == text


def test_a_path_through_a_link_keeps_its_meaning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`link/..` is the folder above the link's target."""
    (tmp_path / "far/away").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far/away")
    monkeypatch.chdir(tmp_path)
    assert resume.make_absolute(Train(data="folder:link/../faces")).data == f"folder:{tmp_path / 'far/faces'}"


@pytest.fixture
def trained(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run of `folder:faces`; the working directory is another one."""
    assert train("--data", "folder:faces", "--out", "runs/a").exit_code == 0
    (place / "other").mkdir()
    monkeypatch.chdir(place / "other")
    return place / "runs/a"


@pytest.mark.parametrize("command", [("evaluate",), ("explain", "--count", 1), ("compress", "--no-time")])
def test_a_run_finds_its_faces_from_any_folder(trained: Path, command: tuple[Any, ...]) -> None:
    """The path that was typed is relative to the folder in which it was typed."""
    done = call(command[0], f"../runs/{trained.name}", *command[1:])
    assert done.exit_code == 0, done.output


@pytest.mark.usefixtures("trained")
def test_faces_that_moved_with_the_run_are_found(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where they were relative to the run folder; the log says so."""
    (place / "new").mkdir()
    for name in ("runs", "faces"):
        (place / name).rename(place / "new" / name)
    assert call("evaluate", place / "new/runs/a").exit_code == 0
    assert f"{place / 'faces'} is gone; using {place / 'new/faces'}, which has the faces of the run" in caplog.text


def test_other_faces_beside_a_moved_run_are_not_taken(trained: Path, place: Path) -> None:
    """Their ids differ: the error has the stored path, the text as typed and what to type."""
    (place / "faces").rename(place / "gone")
    (place / "new").mkdir()
    shutil.copytree(place / "gone", place / "new/faces")
    shutil.copy(place / "gone/fear/1.png", place / "new/faces/fear/11.png")
    trained.parent.rename(place / "new/runs")
    done = call("evaluate", "../new/runs/a")
    assert done.exit_code == 2
    assert done.output == (
        f"error: ../new/runs/a was trained on folder:{place / 'faces'} (typed as folder:faces), which does not exist; "
        "give its present path:  --data folder:PATH\n"
    )
    assert call("evaluate", "../new/runs/a", "--data", "folder:../gone").exit_code == 0


def test_a_run_and_its_faces_moved_while_it_was_stopped_go_on(stopped: Path, place: Path) -> None:
    """With --resume alone."""
    expected = hash_uninterrupted("--data", "folder:faces")
    (place / "new").mkdir()
    for name in ("run", "faces"):
        (place / name).rename(place / "new" / name)
    done = call("train", "--out", "new/run", "--resume")
    assert done.exit_code == 0, done.output
    assert hash_model(place / "new/run") == expected
    assert not stopped.exists()


def test_a_teacher_that_moved_with_the_run_is_found(place: Path) -> None:
    """Its predictions are compared by their hash."""
    train("--data", "folder:faces", "--epochs", 1, "--out", "old/teacher")
    student = ("--data", f"folder:{place / 'faces'}", "--teacher", "old/teacher", "--views", 1)
    expected = hash_uninterrupted(*student)
    stop_after(4, "train", *SETTINGS, *student, "--out", "old/run")
    (place / "old").rename(place / "new")
    done = call("train", "--out", "new/run", "--resume")
    assert done.exit_code == 0, done.output
    assert hash_model(place / "new/run") == expected


@pytest.mark.skipif(sys.platform != "linux", reason="the file system decides which names it allows")
def test_faces_in_a_folder_of_any_name_are_found_again(place: Path) -> None:
    """Bytes that are not UTF-8, relative and moved."""
    name = os.fsdecode(b"caf\xe9")
    (place / "faces").rename(place / name)
    stop_after(2, "train", *SETTINGS, "--data", f"folder:{name}", "--out", "run")
    (place / "new").mkdir()
    for moved in ("run", name):
        (place / moved).rename(place / "new" / moved)
    assert call("train", "--out", "new/run", "--resume").exit_code == 0


def test_a_recipe_fits_the_run_that_was_started_with_it() -> None:
    """Settings that it changes are requested; others are not."""
    changed = resume._list_recipe_settings("edge")
    assert changed["backbone"] == "edge_vgg"
    assert "data" not in changed
    assert all(getattr(RECIPES["edge"], name) == value for name, value in changed.items())
    assert resume._list_recipe_settings(None) == {}
