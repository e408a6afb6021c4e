"""Cards, results and calibration lists as an attacker or an accident leaves them: refused in a line, and at once."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import make_tiny
import pytest

import edgeemo
from edgeemo.artifact import hash_file
from edgeemo.card import card_path, format1
from edgeemo.card.layout import compute_seal
from edgeemo.compress.quantize import calibrate
from edgeemo.errors import DataError, EdgeemoError, IntegrityError, UsageError
from edgeemo.reading import read_json
from edgeemo.report import files

FIXTURES = Path(__file__).parent / "fixtures"
LIST = Path(__file__).parents[1] / "calibration" / "ferplus-six-512.json"
RESULT = Path(__file__).parents[1] / "benchmarks" / "results" / "install.json"
MISSING = object()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_tiny.write(tmp_path / "model.onnx")


def read_raw(model: Path, number: int) -> dict[str, Any]:
    """The model's card, or one of format 1 that fits its file and its labels; sealed."""
    if number == 2:
        return json.loads(card_path(model).read_text())
    raw = json.loads((FIXTURES / "card-format-1.json").read_text())
    raw |= {"sha256": hash_file(model), "labels": list(make_tiny.LABELS), "label_set": "six"}
    raw["input"] |= {"size": make_tiny.SIZE}
    return raw | {"seal": format1.compute_seal(raw)}


def reverse_labels(raw: dict[str, Any]) -> dict[str, Any]:
    """Labels under which every answer is wrong, as a set of its own."""
    return raw | {"labels": raw["labels"][::-1], "label_set": "own"}


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize(
    "seal", [MISSING, None, "", " ", 0, False, [], {}, "0" * 64, "0" * 63, "F" * 64, 1, True, ["0" * 64]], ids=repr
)
def test_reversed_labels_are_not_believed_without_the_seal(number: int, seal: Any, model: Path) -> None:
    """Whatever stands in its place; the sealed card opens, and the error names the next command."""
    card_path(model).write_text(json.dumps(read_raw(model, number)))
    edgeemo.load(model).close()
    raw = reverse_labels(read_raw(model, number))
    raw = {name: value for name, value in raw.items() if name != "seal"} | ({} if seal is MISSING else {"seal": seal})
    card_path(model).write_text(json.dumps(raw))
    with pytest.raises(IntegrityError, match=r"no seal|its seal is not|not an edgeemo card: seal") as caught:
        edgeemo.load(model)
    assert "make them again:  edgeemo compress" in str(caught.value)


@pytest.mark.parametrize("stated", [1, True, 1.0, 2.0, 0, 3, -1, "1", "2", None, [2], {}, 10**400], ids=repr)
def test_another_format_opens_no_way_around_the_seal(stated: Any, model: Path) -> None:
    """A card of format 2 is one only with the whole number 2, however it is sealed; format 1 has a seal of its own."""
    raw = read_raw(model, 2) | {"format": stated}
    own = () if type(stated) is int and stated == 1 else (format1.compute_seal(raw),)
    for seal in (raw["seal"], "" if stated == 10**400 else compute_seal(raw), *own):
        card_path(model).write_text(json.dumps(raw | {"seal": seal}))
        with pytest.raises(IntegrityError, match="edgeemo compress"):
            edgeemo.load(model)


def spoil_text(change: Callable[[str], str]) -> Callable[[bytes], bytes]:
    return lambda content: change(content.decode()).encode("utf-8", errors="surrogatepass")


# What is done to the bytes of a file that holds a JSON object.
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "a key twice": spoil_text(lambda text: text.replace("{", '{"format": 9, ', 1)),
    "a nested key twice": spoil_text(lambda text: text.replace("{", '{"more": {"a": 1, "a": 2}, ', 1)),
    "NaN": spoil_text(lambda text: text.replace("{", '{"format": NaN, "x": NaN, ', 1)),
    "a huge number": spoil_text(lambda text: text.replace("{", '{"x": 1' + "0" * 5000 + ", ", 1)),
    "a huge exponent": spoil_text(lambda text: text.replace("{", '{"x": 1e999999, ', 1)),
    "deep lists": spoil_text(lambda text: text.replace("{", '{"x": ' + "[" * 100_000 + "]" * 100_000 + ", ", 1)),
    "deep objects": spoil_text(lambda text: text.replace("{", '{"x": ' + '{"a":' * 100_000 + "1" + "}" * 100_000, 1)),
    "a byte-order mark": lambda content: b"\xef\xbb\xbf" + content,
    "UTF-16": lambda content: content.decode().encode("utf-16"),
    "not UTF-8": lambda content: content.replace(b"{", b'{"\xff": 1, ', 1),
    "half a surrogate": spoil_text(lambda text: text.replace("{", '{"\\ud800": 1, ', 1)),
    "text behind it": lambda content: content + b"{}",
    "a list": lambda content: b"[" + content + b"]",
    "a word": lambda _: b"null",
    "empty": lambda _: b"",
    "zeros": lambda content: bytes(len(content)),
    "half of it": lambda content: content[: len(content) // 2],
    "a long key": spoil_text(lambda text: text.replace("{", '{"' + "k\\n" * 100_000 + '": 1, ', 1)),
}


def make_file(kind: str, folder: Path) -> tuple[Path, Callable[[], object]]:
    """A card, a result or a calibration list, and what reads it."""
    if kind == "card":
        model = make_tiny.write(folder / "model.onnx")
        return card_path(model), lambda: edgeemo.load(model)
    source = {"result": RESULT, "calibration": LIST}[kind]
    path = folder / source.name
    shutil.copy(source, path)
    return path, lambda: files.read(path) if kind == "result" else calibrate.read(path)


KINDS = pytest.mark.parametrize("kind", ["card", "result", "calibration"])


@KINDS
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_json_file_is_refused_in_a_line(kind: str, damage: str, tmp_path: Path) -> None:
    """With an error of ours that names the file, and is no longer than a screen."""
    path, read = make_file(kind, tmp_path)
    content = path.read_bytes()
    if kind == "calibration" and damage not in CHANGES_NOTHING:
        read()
    path.write_bytes(DAMAGE[damage](content))
    if kind == "calibration" and damage in CHANGES_NOTHING:
        assert read()  # its hash covers the ids; other keys are not read
        return
    with pytest.raises(EdgeemoError, match=path.name) as caught:
        read()
    assert caught.value.exit_code in (3, 4)
    assert len(str(caught.value)) < 1000


CHANGES_NOTHING = ("a huge exponent", "half a surrogate", "a long key")


@KINDS
def test_a_json_file_cut_anywhere_is_refused(kind: str, tmp_path: Path) -> None:
    """At every hundredth byte, and at each of the last ones but the newline."""
    path, read = make_file(kind, tmp_path)
    content = path.read_bytes().rstrip()
    for end in {*range(0, len(content), 101), *range(len(content) - 5, len(content))}:
        path.write_bytes(content[:end])
        with pytest.raises(EdgeemoError, match=path.name):
            read()


PLACES = {
    "folder": "it is a folder",
    "pipe": "it is a pipe",
    "device": "it is a device",
    "loop": "symbolic links",
    "huge": "104,857,600 bytes",
    "dangling link": r"does not exist|No such file",
}


@KINDS
@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_regular_file_of_a_fair_size_is_not_read(kind: str, place: str, tmp_path: Path) -> None:
    """No waiting for somebody to write into a pipe; a hundred megabytes are refused by their size."""
    path, read = make_file(kind, tmp_path)
    path.unlink()
    makers: dict[str, Callable[[], object]] = {
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "loop": lambda: path.symlink_to(path),
        "huge": lambda: (path.touch(), os.truncate(path, 100 * 2**20)),
        "dangling link": lambda: path.symlink_to(tmp_path / "nowhere"),
    }
    makers[place]()
    with pytest.raises(EdgeemoError, match=path.name) as caught:
        read()
    assert re.search(PLACES[place], str(caught.value))


@pytest.mark.parametrize("place", ["folder", "pipe", "device", "loop", "huge"])
@pytest.mark.parametrize("suffix", [".onnx", ".trt"])
def test_a_model_that_is_no_regular_file_is_not_read(suffix: str, place: str, tmp_path: Path) -> None:
    """Neither hashed nor opened; a sparse file of a terabyte would take an hour."""
    model = make_tiny.write(tmp_path / "model.onnx").rename(tmp_path / f"m{suffix}")
    shutil.copy(tmp_path / "model.onnx.json", card_path(model))
    model.unlink()
    makers: dict[str, Callable[[], object]] = {
        "folder": model.mkdir,
        "pipe": lambda: os.mkfifo(model),
        "device": lambda: model.symlink_to("/dev/zero"),
        "loop": lambda: model.symlink_to(model),
        "huge": lambda: (model.touch(), os.truncate(model, 1 << 40)),
    }
    makers[place]()
    expected = UsageError if place == "folder" else IntegrityError  # a run folder is a common mistake
    with pytest.raises(expected, match=r"is a folder|regular file|symbolic links|1,099,511,627,776 bytes"):
        edgeemo.load(model)


@pytest.mark.parametrize(
    "change",
    [{"ids": [1] * 64}, {"ids": "abc"}, {"ids": ["\ud800"] * 64}, {"seed": "0"}, {"data": None}, {"label_set": []}],
    ids=str,
)
def test_a_calibration_list_with_other_types_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    """Not as a TypeError when the ids are hashed."""
    path = tmp_path / "ids.json"
    path.write_text(json.dumps(json.loads(LIST.read_text()) | change))
    with pytest.raises(DataError, match="is not a calibration list"):
        calibrate.read(path)


def test_a_key_twice_is_named(tmp_path: Path) -> None:
    """Python takes the last, others the first."""
    path = tmp_path / "x.json"
    path.write_text('{"a": {"b": 1, "c": 2, "b": 3}}')
    with pytest.raises(ValueError, match="the key 'b' twice"):
        read_json(path, max_bytes=100)


@pytest.mark.parametrize(("name", "value"), [("size", 10**6), ("size", 1025)])
def test_a_card_that_asks_for_a_huge_input_is_refused(name: str, value: int, model: Path) -> None:
    """Every face would be resized to a terabyte."""
    raw = read_raw(model, 2)
    raw["input"][name] = value
    card_path(model).write_text(json.dumps(raw | {"seal": compute_seal(raw)}))
    with pytest.raises(IntegrityError, match=r"input\.size: expected a whole number, 1 or more, at most 1024"):
        edgeemo.load(model)


@pytest.mark.parametrize("value", [1e-300, 0.0, 1e300])
def test_a_temperature_that_leaves_no_probabilities_is_refused(value: float, model: Path) -> None:
    """Divided by nearly 0, logits become infinite and probabilities NaN."""
    raw = read_raw(model, 2) | {"temperature": value}
    card_path(model).write_text(json.dumps(raw | {"seal": compute_seal(raw)}))
    with pytest.raises(IntegrityError, match="temperature: expected a number"):
        edgeemo.load(model)
