"""The adapt stage and Model.adapt: a new card for the same file, which every host applies by one formula."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import make_tiny
import numpy as np
import pytest
from click.testing import CliRunner, Result
from place import LABELS, write_faces

import edgeemo
from edgeemo.card import Answers, Target, card_path, read_card, write_card
from edgeemo.cli import main
from edgeemo.errors import DataError, IntegrityError, MachineError, UsageError
from edgeemo.runtime import Model, adapting, shipped

NANO = shipped.find("nano")


def adapt(*arguments: object) -> Result:
    """Run `edgeemo adapt`."""
    return CliRunner().invoke(main, ["adapt", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture(scope="module")
def adapted(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nano, adapted to the place."""
    out = tmp_path_factory.mktemp("adapted") / "mine.onnx"
    done = adapt("nano", "--data", f"folder:{place}", "--people", "folder", "--out", out)
    assert done.exit_code == 0, done.output
    return out


def read_faces(folder: Path) -> tuple[list[Path], list[str], list[str]]:
    """Paths, labels and people."""
    paths = sorted(folder.rglob("*.png"))
    return paths, [path.parts[-3] for path in paths], [path.parts[-2] for path in paths]


def test_the_adapted_model_is_the_same_file_with_another_card(adapted: Path) -> None:
    """The card says from what, how, and what it gained."""
    before, card = read_card(NANO), read_card(adapted)
    found = card.adaptation
    assert adapted.read_bytes() == NANO.read_bytes()
    assert found is not None
    assert (found.faces, found.people, found.data, found.shown) == (120, 10, "folder", True)
    assert found.labels == dict.fromkeys(LABELS, 20)
    assert found.after.accuracy > found.before.accuracy + 0.05
    assert found.p_value < 0.05
    assert found.model_sha256 == card.sha256 == before.sha256
    assert found.answers_before == before.answers
    assert [entry.stage for entry in card.history] == [*(entry.stage for entry in before.history), "adapt"]
    assert replace(card, adaptation=None, answers=before.answers, history=before.history, seal=before.seal) == before


def test_new_people_are_classified_better(adapted: Path, tmp_path: Path) -> None:
    """By predict, as by the command that measured it."""
    paths, labels, _ = read_faces(write_faces(tmp_path, range(100, 115)))
    accuracy = {}
    for name in (NANO, adapted):
        with edgeemo.load(name) as model:
            accuracy[name] = np.mean(
                [model.predict(path).label == label for path, label in zip(paths, labels, strict=True)]
            )
    assert accuracy[adapted] > accuracy[NANO] + 0.05


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_every_host_applies_the_formula_of_the_card(adapted: Path, place: Path, backend: str) -> None:
    """Computed here with Python's own floats, from the logits of the host."""
    if backend == "openvino":
        pytest.importorskip("openvino")
    paths, _, _ = read_faces(place)
    with edgeemo.load(adapted, backend=backend) as model:
        pixels = np.stack([model._read(path, "rgb") for path in paths[:64]])
        logits = model.logits(edgeemo.images.to_input(pixels, model.card.input))
        probabilities = model.probabilities(pixels)
    card = read_card(adapted)
    assert card.adaptation is not None
    for row, found in zip(logits.tolist(), probabilities.tolist(), strict=True):
        changed = [
            sum(factor * logit for factor, logit in zip(factors, row, strict=True)) + bias
            for factors, bias in zip(card.adaptation.matrix, card.adaptation.bias, strict=True)
        ]
        powers = [np.exp(one / card.temperature) for one in changed]
        assert [one / sum(powers) for one in powers] == pytest.approx(found, abs=1e-6)


def test_a_refusal_writes_nothing_and_says_what_is_needed(place: Path, tmp_path: Path) -> None:
    """Exit code 1; --unproven writes it, and the card says so."""
    few = tmp_path / "few"
    for label in LABELS[:3]:
        for path in sorted((place / label).rglob("*.png"))[:2]:
            (few / label).mkdir(parents=True, exist_ok=True)
            (few / label / path.name).write_bytes(path.read_bytes())
    out = tmp_path / "out.onnx"
    done = adapt("nano", "--data", f"folder:{few}", "--out", out)
    assert done.exit_code == 1
    assert "not adapted: " in done.output
    assert not out.exists()
    assert not card_path(out).exists()
    done = adapt("nano", "--data", f"folder:{few}", "--out", out, "--unproven")
    found = read_card(out).adaptation if out.exists() else None
    assert (done.exit_code, found is not None) in ((0, True), (1, False))  # the second: no change is best
    assert found is None or not found.shown


def test_the_result_as_json(place: Path, tmp_path: Path) -> None:
    """The same figures as in the card."""
    out = tmp_path / "out.onnx"
    options = ("--people", "folder", "--out", out, "--check", "synthetic:300", "--json")
    done = CliRunner().invoke(main, ["adapt", "nano", "--data", f"folder:{place}", *map(str, options)])
    found, card = json.loads(done.stdout), read_card(out)
    assert card.adaptation is not None
    assert (found["adapted"], found["shown"], found["form"]) == (str(out), True, card.adaptation.form)
    assert found["after"]["accuracy"] == card.adaptation.after.accuracy
    assert found["check"]["before"]["n"] == 300
    assert found["notes"][0] == "no face of disgust, contempt: left alone; if none occurs in this place, add --closed"
    fallen = {label for label, points in found["paired"]["recall_difference"].items() if points and points <= -0.1}
    assert {note.split()[2] for note in found["notes"][1:]} == fallen
    assert found["more_faces_needed"] is None


def test_people_of_merged_labels_are_found(place: Path, tmp_path: Path) -> None:
    """The folders have the model's labels, though fewer are reported."""
    mine = tmp_path / "mine"
    shutil.copytree(place, mine)
    (mine / "fear").rename(mine / "disgust")  # counts as anger
    done = adapt(
        "nano", "--data", f"folder:{mine}", "--people", "folder", "--label-set", "six", "--out", tmp_path / "x.onnx"
    )
    assert done.exit_code in (0, 1)
    assert "120 labelled faces of 10 people" in done.output


def test_the_learning_curve_is_drawn(place: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot = tmp_path / "curve.png"
    adapt("nano", "--data", f"folder:{place}", "--out", tmp_path / "out.onnx", "--plot", plot)
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_adaptations_do_not_stack_and_can_be_undone(adapted: Path, place: Path, tmp_path: Path) -> None:
    """Undone, the card is that of the model, but for its history."""
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(adapted.read_bytes())
    card_path(copy).write_bytes(card_path(adapted).read_bytes())
    stacked = adapt(copy, "--data", f"folder:{place}", "--out", tmp_path / "twice.onnx")
    assert stacked.exit_code == 2
    assert "adaptations do not stack" in stacked.output
    assert adapt(copy, "--undo").exit_code == 0
    card, before = read_card(copy), read_card(NANO)
    assert card.history[-1].stage == "undo adaptation"
    assert replace(card, history=before.history, seal=before.seal) == before
    assert adapt(copy, "--undo").exit_code == 2


def test_nothing_is_overwritten(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a file of the default name, nor a card without its model, and it is said before the faces are read."""
    monkeypatch.chdir(tmp_path)
    Path("nano-adapted.onnx").write_text("mine")
    done = adapt("nano", "--data", f"folder:{place}")
    assert done.exit_code == 2
    assert "nano-adapted.onnx exists already" in done.output
    assert Path("nano-adapted.onnx").read_text() == "mine"
    Path("other.onnx.json").write_text("mine")
    assert adapt("nano", "--data", f"folder:{place}", "--out", "other.onnx").exit_code == 2
    assert not Path("other.onnx").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nano"], "no faces: name them with --data"),
        (["nano", "--undo"], "nothing to undo"),
        (["nano", "--data", "synthetic:80", "--out", "x.trt"], "expected a name that ends with .onnx"),
        (["nano", "--data", "synthetic:80", "--plot", "curve.pdf"], "expected a name that ends with .png"),
        (["nano", "--data", "synthetic:80", "--people", "faces"], "expected folder, name:PATTERN"),
        (["nano", "--data", "synthetic:80", "--undo"], "undo"),
    ],
)
def test_wrong_usage_is_one_line(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = adapt(*arguments)
    assert done.exit_code == 2
    assert words in done.output


def test_from_python_it_is_pure_and_serialisable(place: Path, tmp_path: Path) -> None:
    """The model itself stays as it is; the adapted one can be pickled and saved."""
    paths, labels, people = read_faces(place)
    with edgeemo.load("nano") as model:
        before = model.predict(paths[0])
        with model.adapt(paths, labels, people=people) as adapted, pickle.loads(pickle.dumps(adapted)) as sent:  # noqa: S301
            assert model.card.adaptation is None
            assert model.predict(paths[0]) == before
            assert adapted.card.adaptation is not None
            assert adapted.predict(paths[0]) == sent.predict(paths[0]) != before
            saved = adapted.save(tmp_path / "saved.onnx")
            with edgeemo.load(saved) as again:
                assert again.predict(paths[0]) == adapted.predict(paths[0])
            with pytest.raises(UsageError, match="exists already"):
                adapted.save(saved)
            with pytest.raises(UsageError, match="do not stack"):
                adapted.adapt(paths, labels)


def test_an_adaptation_never_goes_with_another_file(place: Path, tmp_path: Path) -> None:
    """Neither where a pickled model is opened, nor where one is saved, after the file was replaced."""
    paths, labels, people = read_faces(place)
    copy = tmp_path / "copy.onnx"
    with edgeemo.load("nano") as nano:
        nano.save(copy)
    with edgeemo.load(copy) as model, model.adapt(paths, labels, people=people) as adapted:
        sent = pickle.dumps(adapted)
        other = shipped.find("small")
        copy.write_bytes(other.read_bytes())
        with pytest.raises(IntegrityError, match="was replaced meanwhile"):
            adapted.save(tmp_path / "saved.onnx")
        assert not (tmp_path / "saved.onnx").exists()
        card_path(copy).write_bytes(card_path(other).read_bytes())
        with pytest.raises(IntegrityError, match="was replaced meanwhile"):
            pickle.loads(sent)  # noqa: S301


def test_a_card_that_cannot_be_written_leaves_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It could not be opened, and would stand in the way."""

    def fail(*_: object) -> None:
        raise MachineError("disk full")

    monkeypatch.setattr(adapting, "write_card", fail)
    with edgeemo.load("nano") as model, pytest.raises(MachineError):
        model.save(tmp_path / "saved.onnx")
    assert list(tmp_path.iterdir()) == []


def test_from_python_a_refusal_is_logged(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The model is returned as it is; without proof it may be adapted."""
    paths, labels, _ = read_faces(place)
    with edgeemo.load("nano") as model, model.adapt(paths[::24], labels[::24]) as same:
        assert same.card.adaptation is None
        assert same.predict(paths[0]) == model.predict(paths[0])
    assert "not adapted: " in caplog.text


def test_merged_labels_can_be_adapted(place: Path) -> None:
    """Reported in six labels, changed in the model's eight."""
    paths, labels, people = read_faces(place)
    with edgeemo.load("nano", labels="six") as model, model.adapt(paths, labels, people=people) as adapted:
        assert adapted.labels == model.labels
        assert adapted.card.adaptation is not None
        assert len(adapted.card.adaptation.bias) == 8
        assert list(adapted.card.adaptation.labels) == [label for label in model.labels if label in LABELS]
        assert sum(adapted.predict(paths[0]).probabilities.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("labels", "people", "words"),
    [
        (["happiness"], None, "expected 2 labels, one for each crop, got 1"),
        (["happiness", "joyless"], None, "unknown label"),
        (["happiness", "anger"], ["anna"], "expected 2 people"),
        (["happiness", "anger"], ["anna", None], "expected a name of each person"),
        (["happiness", 3], None, "expected names of labels, such as neutral, got 3"),
        ("ab", None, "expected 2 labels"),
    ],
)
def test_labels_and_people_must_fit_the_crops(
    place: Path, labels: list[str], people: list[str] | None, words: str
) -> None:
    paths, _, _ = read_faces(place)
    with edgeemo.load("nano") as model, pytest.raises(UsageError, match=words):
        model.adapt(paths[:2], labels, people=people)
    with edgeemo.load("nano") as model, pytest.raises(DataError, match="got none"):
        model.adapt([], [])
    with edgeemo.load("nano") as model, pytest.raises(DataError, match="expected several face crops, got one"):
        model.adapt(str(paths[0]), ["anger"])


def test_an_adaptation_of_another_model_is_refused(tmp_path: Path) -> None:
    """Copied from one card to another; an engine keeps that of the file it was built from."""
    path = make_tiny.write(tmp_path / "tiny.onnx")
    card = read_card(path)
    write_card(path, replace(card, adaptation=make_tiny.make_adaptation(card.sha256)))
    edgeemo.load(path).close()
    write_card(path, replace(card, adaptation=make_tiny.make_adaptation("a" * 64)))
    with pytest.raises(IntegrityError, match=r"fitted on another model, aaaaaaaaaaaa….*edgeemo adapt"):
        edgeemo.load(path)
    target = Target("rtx", "1", ("8.7",), "", "", "linux", 1, False, False, -1, 0, "tiny.onnx", "a" * 64, "")
    write_card(path, replace(card, adaptation=make_tiny.make_adaptation("a" * 64), target=target))
    assert read_card(path).adaptation is not None


@pytest.mark.parametrize("change", [{"bias": (1.0, 2.0)}, {"matrix": ((1.0, 0.0), (0.0, 1.0))}])
def test_an_adaptation_of_another_size_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    """It could not be applied."""
    path = make_tiny.write(tmp_path / "tiny.onnx")
    card = read_card(path)
    write_card(path, replace(card, adaptation=replace(make_tiny.make_adaptation(card.sha256), **change)))
    with pytest.raises(IntegrityError, match="expected 6 x 6 factors and 6 numbers"):
        read_card(path)


def test_the_threshold_is_fitted_again_or_left_out(place: Path) -> None:
    """That of the model was fitted on other probabilities."""
    paths, labels, _ = read_faces(place)
    with edgeemo.load("nano") as model, model.adapt(paths, labels) as adapted:
        assert isinstance(model.card.answers, Answers)
        fitted = adapted.card.answers
        assert fitted is None or fitted.n == len(paths)
        assert isinstance(adapted.predict(paths[0]).unsure, bool) == (fitted is not None)
        assert isinstance(model, Model)
