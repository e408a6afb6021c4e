"""Cards, the files they describe and the history they tell."""

import errno
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors import SafetensorError

from edgeemo.artifact import check_writable, write_json, write_text, written
from edgeemo.card import Card, InputContract, card_path, label_set_of, read_card, write_card
from edgeemo.errors import IntegrityError, MachineError
from edgeemo.history import entry
from edgeemo.stages import Compress, Train

CARD = Card(("a", "b"), "own", InputContract(48), {"backbone": "x"}, temperature=0.9)


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"weights")
    write_card(path, CARD)
    return path


def test_card_survives_the_round_trip(model):
    """What was written is what is read, plus the file's hash."""
    read = read_card(model)
    assert read == write_card(model, CARD)
    assert len(read.sha256) == 64


def test_changed_model_is_refused(model):
    """One changed byte, and file and card no longer belong together."""
    model.write_bytes(b"Weights")
    with pytest.raises(IntegrityError, match="is not the file that its card describes"):
        read_card(model)


@pytest.mark.parametrize("kept", ["model", "card"])
def test_a_file_that_may_not_be_read_is_named(model, kept, monkeypatch):
    """As one that was copied by another user: no traceback."""
    locked = model if kept == "model" else card_path(model)
    opened = Path.open

    def refuses(path, *how, **more):
        if path == locked:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, *how, **more)

    monkeypatch.setattr(Path, "open", refuses)
    with pytest.raises(IntegrityError, match=rf"{re.escape(str(locked))} cannot be read \(Permission denied\)"):
        read_card(model)


@pytest.mark.parametrize("lost", ["model", "card"])
def test_missing_half_is_named(model, lost):
    """A model is a file with its card; the message says which is missing."""
    (model if lost == "model" else card_path(model)).unlink()
    with pytest.raises(IntegrityError, match=f"^{lost} .* does not exist"):
        read_card(model)


@pytest.mark.parametrize(
    "change",
    [{"format": 2}, {"labels": 3}, {"input": {"side": 48}}, {"surprise": 1}],
    ids=["format", "labels", "input", "unknown field"],
)
def test_foreign_card_is_refused(model, change):
    """Nothing is guessed from a card that is not ours."""
    path = card_path(model)
    write_json(path, json.loads(path.read_text()) | change)
    with pytest.raises(IntegrityError):
        read_card(model)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"labels": ["neutral"] * 6}, "labels"),
        ({"labels": ["alone"]}, "labels"),
        ({"labels": "abc"}, "labels"),
        ({"labels": ["a", 1]}, "labels"),
        ({"label_set": None}, "label_set"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": 10**400}, "temperature"),
        ({"metrics": []}, "metrics"),
        ({"history": {"stage": "train"}}, "history"),
        ({"history": ["train"]}, "history"),
    ],
    ids=lambda value: "" if isinstance(value, str) else json.dumps(value)[:24],
)
def test_card_with_a_senseless_value_is_refused(model, change, says):
    """Not when the model runs, not as a TypeError: when the card is read, with the field's name."""
    path = card_path(model)
    write_json(path, json.loads(path.read_text()) | change)
    with pytest.raises(IntegrityError, match=says):
        read_card(model)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("colour", value) for value in ("bgr", 3, [])),
        *(("size", value) for value in (0, -48, 48.0, "48", True)),
        *(("mean", value) for value in (0.5, ["x"], [], [0.5, 0.5], [float("inf")])),
        *(("std", value) for value in (0.25, [0], [0.25, 0.25], [None])),
        ("crop_margin", 0),
    ],
)
def test_contract_with_a_senseless_value_is_refused(model, name, value):
    """What a host would compute with it is no face."""
    path = card_path(model)
    card = json.loads(path.read_text())
    card["input"][name] = value
    write_json(path, card)
    with pytest.raises(IntegrityError, match=name):
        read_card(model)


@pytest.mark.parametrize(("colour", "channels"), [("gray", 1), ("rgb", 3), ("gray3", 3)])
def test_every_colour_survives_the_round_trip(model, colour, channels):
    """With a mean and a std for each of its channels."""
    contract = InputContract(48, colour, (0.5,) * channels, (0.25,) * channels)
    write_card(model, replace(CARD, input=contract))
    assert read_card(model).input == contract
    assert contract.channels == channels


def test_card_that_is_not_json_is_refused(model):
    """The message names the card."""
    card_path(model).write_text("hello")
    with pytest.raises(IntegrityError, match=r"model\.onnx\.json is not an edgeemo card"):
        read_card(model)


def test_failed_write_leaves_the_old_file(model):
    """A file appears whole or not at all, and no temporary name is left behind."""

    def write_half():
        with written(model) as partial:
            partial.write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert model.read_bytes() == b"weights"
    assert sorted(file.name for file in model.parent.iterdir()) == ["model.onnx", "model.onnx.json"]


def test_whoever_may_read_new_files_may_read_what_was_written(model):
    """Also where a library writes for its own user alone, as safetensors does."""
    (model.parent / "new").touch()
    with written(model) as partial:
        partial.unlink()
        partial.write_bytes(b"weights")
        partial.chmod(0o600)
    assert model.stat().st_mode == (model.parent / "new").stat().st_mode


@pytest.fixture(params=["below a file", "kernel", "a folder", "too long a name"])
def unwritable(request, tmp_path):
    """A path that nobody can write, not even root."""
    (tmp_path / "file").write_text("")
    return {
        "below a file": tmp_path / "file" / "model.onnx",
        "kernel": Path("/proc/edgeemo/model.onnx"),
        "a folder": tmp_path,
        "too long a name": tmp_path / ("m" * 250),
    }[request.param]


def test_path_that_cannot_be_written_is_a_fault_of_the_machine(unwritable):
    """The message names the path."""
    with pytest.raises(MachineError, match="cannot write") as caught:
        write_text(unwritable, "text")
    assert str(unwritable) in str(caught.value)


def test_full_disk_is_a_fault_of_the_machine(model):
    """An error number that only a write has."""
    with pytest.raises(MachineError, match=r"cannot write .*model\.onnx: No space left"), written(model):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_full_disk_is_read_off_the_words_of_safetensors(model):
    """Its error is no OSError and holds the number in its text; it has cleaned up, so nothing is full any more."""
    text = "Error while serializing: I/O error: No space left on device (os error 28)"
    with pytest.raises(MachineError, match="No space left"), written(model):
        raise SafetensorError(text)


def test_writer_that_does_not_say_why_it_failed_is_a_fault_of_the_machine(tmp_path):
    """RuntimeError from torch, when a folder has gone or a disk is full."""
    folder = tmp_path / "run"

    def lose_the_folder():
        with written(folder / "model.pt") as partial:
            partial.unlink()
            folder.rmdir()
            folder.write_text("")
            raise RuntimeError("PytorchStreamWriter failed writing file")

    with pytest.raises(MachineError, match="cannot write"):
        lose_the_folder()


def test_failure_to_read_is_not_called_a_failure_to_write(model):
    """What a block reads is not what it writes."""
    with pytest.raises(FileNotFoundError), written(model):
        (model.parent / "elsewhere").read_bytes()
    with pytest.raises(PermissionError), written(model):
        raise PermissionError(errno.EACCES, "Permission denied", "elsewhere")


def test_writable_folder_is_made_and_left_empty(tmp_path):
    """The probe goes again."""
    check_writable(tmp_path / "new" / "run")
    assert list((tmp_path / "new" / "run").iterdir()) == []


@pytest.mark.parametrize("folder", ["/proc/edgeemo", "file/run"])
def test_folder_that_cannot_be_written_is_found_before_the_work(tmp_path, folder):
    """Before hours of training, not after them."""
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="cannot write"):
        check_writable(tmp_path / folder)


@pytest.mark.parametrize("folder", ["/home/me", "/home/me/a:b", "/a:b/c:d"])
def test_history_does_not_tell_where_a_model_was_made(folder):
    """Of every path the last part alone is kept, whatever colons are in it."""
    run = f"{folder}/run"
    train = Train(data=f"folder:{folder}/faces:2", out=run, weights=f"{folder}/r50.pth")
    compress = Compress(run=run, data=f"ferplus:{folder}/ferplus.zip", out=run, calibration=f"{folder}/ids.json")
    trained, compressed = (entry("any", config, seconds=1)["config"] for config in (train, compress))
    assert "/" not in json.dumps([trained, compressed])
    assert (trained["data"], trained["out"], trained["weights"]) == ("folder:faces:2", "run", "r50.pth")
    assert (compressed["data"], compressed["run"]) == ("ferplus:ferplus.zip", "run")


@pytest.mark.parametrize("data", ["synthetic", "synthetic:600", ""])
def test_history_keeps_a_data_name_without_a_path(data):
    """Counts and names are no folders."""
    assert entry("train", Train(data=data), seconds=1)["config"]["data"] == data


def test_a_card_that_misnames_its_label_set_is_refused():
    """The name `six` belongs to six labels, in their order."""
    with pytest.raises(IntegrityError, match="label set 'six'"):
        label_set_of(replace(CARD, label_set="six"))


def test_labels_of_ones_own_are_read_off_the_card():
    """A set that has no name in our table is what the card lists."""
    assert label_set_of(CARD).labels == ("a", "b")
