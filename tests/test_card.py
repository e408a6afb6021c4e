"""Cards, the files they describe and the history they tell."""

import copy
import errno
import json
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path

import card_page
import jsonschema
import pytest
import rewrite_cards
from safetensors import SafetensorError

from edgeemo.artifact import atomic_write, check_writable, write_json, write_text
from edgeemo.card import (
    Answers,
    Architecture,
    Card,
    Crop,
    Fidelity,
    InputContract,
    Precision,
    Target,
    card_path,
    format1,
    from_json,
    get_label_set,
    read_card,
    to_json,
    write_card,
)
from edgeemo.card.files import parse_card, write_sealed
from edgeemo.card.format1 import to_format_1
from edgeemo.card.history import make_entry
from edgeemo.card.keys import list_keys
from edgeemo.card.layout import to_canonical
from edgeemo.compress.quantize.qdq import TARGET_FORMATS
from edgeemo.errors import IntegrityError, MachineError
from edgeemo.runtime import shipped
from edgeemo.runtime.backends.tensorrt import LIBRARIES
from edgeemo.stages import Compress, Train

FIXTURES = Path(__file__).parent / "fixtures"
NETWORK = Architecture("x", labels=2, head="linear", attention=False, dropout=0.0)
CARD = Card(("a", "b"), "own", InputContract(48), NETWORK, temperature=0.9)


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
    [{"format": 1}, {"labels": 3}, {"input": {"side": 48}}, {"surprise": 1}],
    ids=["format", "labels", "input", "unknown key"],
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
        ({"metrics": []}, "metrics: expected an object, got"),
        ({"precision": {"requested": "int4"}}, "precision.requested: expected text, one of float32, float16, int8"),
        ({"precision": {"asked": "int8"}}, "precision.asked is not a key of a card"),
        ({"precision": {"overflow": {"safe": 1, "unsafe": []}}}, "precision.overflow.safe: expected true or false"),
        ({"precision": {"overflow": {"safe": True}}}, "precision.overflow.unsafe is missing"),
        (
            {"golden": {"faces_sha256": "0" * 64, "logits": [[0.0, None]]}},
            r"golden.logits\[0\]\[1\]: expected a number",
        ),
        ({"golden": {"faces_sha256": "0", "logits": []}}, "golden.faces_sha256: expected text that matches"),
        ({"target": {}}, "target.library is missing"),
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
        *(("crop", value) for value in ([], {}, {"side_eye_distances": 2.8})),
        ("crop", {"side_eye_distances": 0.5, "below_eyes": 0.3, "turn_from_degrees": 10}),
        ("crop", {"side_eye_distances": 2.8, "below_eyes": float("nan"), "turn_from_degrees": 10}),
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


def test_the_crop_survives_the_round_trip_and_may_be_absent(model):
    """A card that does not state it has no such key, so that its seal stays that of earlier cards."""
    for crop in (None, Crop(3.0, 0.25, 15.0)):
        write_card(model, replace(CARD, input=InputContract(48, crop=crop)))
        assert read_card(model).input.crop == crop
        assert ("crop" in json.loads(card_path(model).read_text())["input"]) == (crop is not None)


@pytest.mark.parametrize(("colour", "channels"), [("gray", 1), ("rgb", 3), ("gray3", 3)])
def test_every_colour_survives_the_round_trip(model, colour, channels):
    """With a mean and a std for each of its channels."""
    contract = InputContract(48, colour, (0.5,) * channels, (0.25,) * channels)
    write_card(model, replace(CARD, input=contract))
    assert read_card(model).input == contract
    assert contract.channels == channels


@pytest.mark.parametrize("number", [0, 3, "2", None])
def test_card_of_an_unknown_format_is_refused_in_one_line(model, number):
    """It says which formats can be read, whatever else the card holds."""
    path = card_path(model)
    write_json(path, json.loads(path.read_text()) | {"format": number, "surprise": 1})
    with pytest.raises(IntegrityError, match=f"has card format {number}; this edgeemo reads formats 1 and 2") as caught:
        read_card(model)
    assert len(str(caught.value).splitlines()) == 1


def test_changed_card_is_refused(model):
    """One number in it, and its seal no longer holds."""
    path = card_path(model)
    path.write_text(path.read_text().replace('"temperature": 0.9', '"temperature": 1.9'))
    with pytest.raises(IntegrityError, match="its seal is not that of its content"):
        read_card(model)


def test_seal_does_not_depend_on_the_layout(model):
    """Another order of keys, other white space, another form of the same number: the same card."""
    path, before = card_path(model), read_card(model)
    text = json.dumps(json.loads(path.read_text()), sort_keys=True, indent=7)
    path.write_text(
        text.replace('"dropout": 0.0', '"dropout": 0e0').replace('"temperature": 0.9', '"temperature": 9E-1')
    )
    assert read_card(model) == before


@pytest.mark.parametrize(
    ("number", "text"),
    [
        *(
            (0.0, "0"),
            (-0.0, "0"),
            (1.0, "1"),
            (5e-06, "0.000005"),
            (1e-07, "1e-7"),
            (-1.5, "-1.5"),
            (2**53, str(2**53)),
        ),
        *(
            (5e-324, "5e-324"),
            (1.7976931348623157e308, "1.7976931348623157e+308"),
            (1e21, "1e+21"),
            (1e20, "1" + "0" * 20),
        ),
        *((9.999999999999997e22, "9.999999999999997e+22"), (1e23, "1e+23"), (333333333.3333332, "333333333.3333332")),
        *(
            (0.9259, "0.9259"),
            (-0.0000033333333333333333, "-0.0000033333333333333333"),
            (295147905179352825856.0, "295147905179352830000"),
        ),
    ],
)
def test_numbers_are_sealed_as_rfc_8785_writes_them(number, text):
    """Most are samples of its appendix B; 1.0 and 1 are one number."""
    assert to_canonical(number) == text


def test_a_card_with_a_threshold_survives_the_round_trip(model):
    """And one without has no key for it, as cards had before there were thresholds."""
    assert "answers" not in json.loads(card_path(model).read_text())
    fitted = replace(CARD, answers=Answers(0.7, 0.9, 0.92, 0.9, 0.94, 0.8, 500))
    write_card(model, fitted)
    assert read_card(model).answers == fitted.answers


def test_a_threshold_that_is_no_probability_is_refused(model):
    """It would flag every prediction, or none."""
    write_card(model, replace(CARD, answers=Answers(70, 0.9, 0.92, 0.9, 0.94, 0.8, 500)))
    with pytest.raises(IntegrityError, match=r"answers\.least_probability: expected a number, 0 or more, at most 1"):
        read_card(model)


def test_text_is_sealed_as_rfc_8785_writes_it():
    """Its section 3.2.3: keys by UTF-16 code units, so an emoji comes before U+FB33; no more escapes than needed."""
    keys = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\x80", "\u00f6"]
    found = list(json.loads(to_canonical(dict.fromkeys(keys))))
    assert found == ["\r", "1", "\x80", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]
    assert to_canonical(['\x0f\n"\\/€']) == '["\\u000f\\n\\"\\\\/€"]'


def test_what_a_host_needs_first_stands_first():
    """In the order of the page, the input on one line in the first ten, and no line over 120 characters."""
    for path in sorted(shipped.FOLDER.glob("*.json")):
        lines = path.read_text(encoding="utf-8").splitlines()
        first = ["format", "sha256", "seal", "labels", "label_set", "input", "output", "temperature", "precision"]
        assert [line.split('"')[1] for line in lines[1:10]] == first
        wide = [line for line in lines if len(line) > 120]
        assert not [line for line in wide if "[" in line or "{" in line], path.name


def test_card_of_format_1_opens_as_the_same_card(tmp_path):
    """A real one, of the model small as it shipped: every value is where it belongs, and it stays sealed."""
    path = tmp_path / "small.onnx"
    shutil.copy(shipped.find("small"), path)
    old = card_path(path)
    shutil.copy(FIXTURES / "card-format-1.json", old)
    assert replace(read_card(path), seal="") == strip_additions(read_card(shipped.find("small")))
    old.write_text(old.read_text().replace("0.9259", "0.9258"))
    with pytest.raises(IntegrityError, match="its seal is not that of its content"):
        read_card(path)


def test_no_value_is_lost_from_format_1():
    """Its numbers and texts, counted, are those of the new card; precision goes back to its old words."""
    raw = json.loads((FIXTURES / "card-format-1.json").read_text())
    assert leaves(raw) == leaves(to_json(strip_additions(read_card(shipped.find("small")))))
    assert to_format_1(read_card(shipped.find("small")).precision) == raw["precision"]


def strip_additions(card):
    """The card before its threshold was fitted and its prior stated, which format 1 does not have; without its seal."""
    history = tuple(entry for entry in card.history if entry.stage != "fit answers")
    return replace(card, seal="", answers=None, data=replace(card.data, prior=None), history=history)


def leaves(card):
    """The values of a card but for its format and seal, each as text, and how often it occurs."""
    stack = [value for name, value in card.items() if name not in ("format", "seal")]
    found = Counter()
    while stack:
        value = stack.pop()
        inner = value.values() if isinstance(value, dict) else value
        if isinstance(value, (dict, list)):
            stack.extend(inner)
        else:
            found[json.dumps(value)] += 1
    return found


@pytest.mark.parametrize("seal", [None, "", "0" * 64])
def test_a_card_of_format_1_without_its_seal_is_refused(model, seal):
    """Otherwise removing the seal would let changed labels pass. The sealed card opens."""
    raw = json.loads((FIXTURES / "card-format-1.json").read_text()) | {"sha256": read_card(model).sha256}
    write_json(card_path(model), raw | {"seal": seal})
    with pytest.raises(IntegrityError, match="was changed" if seal else "has no seal"):
        read_card(model)


def test_a_card_of_format_1_on_fp16_and_further_faces_opens(model):
    """What it records of FP16 and of training faces has its place."""
    raw = json.loads((FIXTURES / "card-format-1.json").read_text())
    raw["sha256"] = read_card(model).sha256
    raw["precision"] = {"asked": "float16", "got": "float16 in the file", "types": {"float16": 3}, "agreement": 1.0}
    raw["precision"] |= {"divergence": 0.0, "faces": 9}
    raw["licences"]["recovery faces"] = "MIT"
    write_json(card_path(model), raw | {"seal": format1.compute_seal(raw)})
    card = read_card(model)
    assert card.precision.weight_types == {"float16": 3}
    assert card.precision.fidelity == Fidelity(1.0, 0.0, faces=9)
    assert card.licences.recovery_faces == "MIT"
    assert write_card(model, card) == read_card(model)


@pytest.mark.parametrize("page", [card_page.SCHEMA, card_page.PAGE], ids=lambda path: path.name)
def test_schema_and_page_are_what_the_code_generates(page):
    """After a change of the dataclasses: make card."""
    text = page.read_text(encoding="utf-8")
    assert text == (card_page.schema_text() if page == card_page.SCHEMA else card_page.rendered(text))


def test_choices_of_a_card_are_those_of_the_code():
    """What compress and build write is what a card may hold."""
    choices = {one.name: one.key.choices for section in (Precision, Target) for one in list_keys(section)}
    assert choices["target_format"] == tuple(TARGET_FORMATS) == tuple(shipped.SUFFIXES)
    assert set(choices["library"]) == set(LIBRARIES)


def test_page_describes_every_section():
    """A table for each dataclass that the card holds."""
    named = set(re.findall(r"<!-- keys: (\w+) -->", card_page.PAGE.read_text(encoding="utf-8")))
    assert named == {"Card", *card_page.schema()["$defs"]}


def committed_cards():
    return [
        *sorted(shipped.FOLDER.glob("*.json")),
        *sorted(rewrite_cards.TEACHERS.glob("*.json")),
        FIXTURES / "tiny.onnx.json",
    ]


@pytest.mark.parametrize("path", committed_cards(), ids=lambda path: path.name)
def test_committed_cards_fit_the_schema_and_are_as_they_would_be_written(path, tmp_path):
    """A host that generates its types from the schema can read them."""
    jsonschema.validate(json.loads(path.read_text()), json.loads(card_page.SCHEMA.read_text()))
    write_sealed(tmp_path / "again.json", parse_card(path))
    assert (tmp_path / "again.json").read_text() == path.read_text()


def test_schema_refuses_what_reading_refuses():
    """Of a real card: every key left out that must be there, and a value of another type in every place."""
    schema = jsonschema.Draft202012Validator(json.loads(card_page.SCHEMA.read_text()))
    raw = json.loads(card_path(shipped.find("small")).read_text())
    spoiled = list(spoilt(raw))
    assert len(spoiled) > 100
    for where, card in spoiled:
        with pytest.raises(ValueError, match=r"expected|missing"):
            from_json(Card, card)
        assert not schema.is_valid(card), where


def spoilt(raw, *path):
    """Copies of a card with one value replaced by an empty list of lists, or by an object where a list belongs."""
    free = ("config", "measured")
    here = raw
    for step in path:
        here = here[step]
    for key, value in here.items() if isinstance(here, dict) else enumerate(here[:1]):
        card = copy.deepcopy(raw)
        place = card
        for step in path:
            place = place[step]
        place[key] = {"x": {}} if isinstance(value, list) else [[]]
        yield (*path, key), card
        if isinstance(value, (dict, list)) and key not in free:
            yield from spoilt(raw, *path, key)


def test_the_pages_seal_is_the_cards(tmp_path):
    """Its JavaScript, run by Node, accepts a shipped card in any layout, and no changed one."""
    if not shutil.which("node"):
        pytest.skip("Node.js is not installed")
    (code,) = re.findall(r"```js\n(.*?)```", card_page.PAGE.read_text(encoding="utf-8"), re.DOTALL)
    script = tmp_path / "seal.mjs"
    main = "for (const text of JSON.parse(process.argv[2])) console.log(await isSealed(text));"
    script.write_text(
        f"globalThis.crypto ??= (await import('node:crypto')).webcrypto;\n{code}\n{main}\n", encoding="utf-8"
    )
    text = card_path(shipped.find("nano")).read_text()
    texts = [text, json.dumps(json.loads(text), sort_keys=True), text.replace('"count": 512', '"count": 513')]
    done = subprocess.run(["node", script, json.dumps(texts)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["true", "true", "false"]


def test_card_that_is_not_json_is_refused(model):
    """The message names the card."""
    card_path(model).write_text("hello")
    with pytest.raises(IntegrityError, match=r"model\.onnx\.json is not an edgeemo card"):
        read_card(model)


def test_failed_write_leaves_the_old_file(model):
    """A file appears whole or not at all, and no temporary name is left behind."""

    def write_half():
        with atomic_write(model) as partial:
            partial.write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert model.read_bytes() == b"weights"
    assert sorted(file.name for file in model.parent.iterdir()) == ["model.onnx", "model.onnx.json"]


def test_whoever_may_read_new_files_may_read_what_was_written(model):
    """Also where a library writes for its own user alone, as safetensors does."""
    (model.parent / "new").touch()
    with atomic_write(model) as partial:
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
        "too long a name": tmp_path / ("m" * 256),
    }[request.param]


def test_path_that_cannot_be_written_is_a_fault_of_the_machine(unwritable):
    """The message names the path."""
    with pytest.raises(MachineError, match="cannot write") as caught:
        write_text(unwritable, "text")
    assert str(unwritable) in str(caught.value)


def test_full_disk_is_a_fault_of_the_machine(model):
    """An error number that only a write has."""
    with pytest.raises(MachineError, match=r"cannot write .*model\.onnx: No space left"), atomic_write(model):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_full_disk_is_read_off_the_words_of_safetensors(model):
    """Its error is no OSError and holds the number in its text; it has cleaned up, so nothing is full any more."""
    text = "Error while serializing: I/O error: No space left on device (os error 28)"
    with pytest.raises(MachineError, match="No space left"), atomic_write(model):
        raise SafetensorError(text)


def test_writer_that_does_not_say_why_it_failed_is_a_fault_of_the_machine(tmp_path):
    """RuntimeError from torch, when a folder has gone or a disk is full."""
    folder = tmp_path / "run"

    def lose_the_folder():
        with atomic_write(folder / "model.pt") as partial:
            partial.unlink()
            folder.rmdir()
            folder.write_text("")
            raise RuntimeError("PytorchStreamWriter failed writing file")

    with pytest.raises(MachineError, match="cannot write"):
        lose_the_folder()


def test_failure_to_read_is_not_called_a_failure_to_write(model):
    """What a block reads is not what it writes."""
    with pytest.raises(FileNotFoundError), atomic_write(model):
        (model.parent / "elsewhere").read_bytes()
    with pytest.raises(PermissionError), atomic_write(model):
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
    trained, compressed = (make_entry("any", config, seconds=1).config for config in (train, compress))
    assert "/" not in json.dumps([trained, compressed])
    assert (trained["data"], trained["out"], trained["weights"]) == ("folder:faces:2", "run", "r50.pth")
    assert (compressed["data"], compressed["run"]) == ("ferplus:ferplus.zip", "run")


@pytest.mark.parametrize("data", ["synthetic", "synthetic:600", ""])
def test_history_keeps_a_data_name_without_a_path(data):
    """Counts and names are no folders."""
    assert make_entry("train", Train(data=data), seconds=1).config["data"] == data


def test_a_card_that_misnames_its_label_set_is_refused():
    """The name `six` belongs to six labels, in their order."""
    with pytest.raises(IntegrityError, match="label set 'six'"):
        get_label_set(replace(CARD, label_set="six"))


def test_labels_of_ones_own_are_read_off_the_card():
    """A set that has no name in our table is what the card lists."""
    assert get_label_set(CARD).labels == ("a", "b")
