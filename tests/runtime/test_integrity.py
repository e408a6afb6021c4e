"""A model that is not what its card says is refused when it is opened, never served."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import make_tiny
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import edgeemo
from edgeemo.card import card_path, write_card
from edgeemo.errors import IntegrityError, UsageError

BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "onnxruntime", "onnx", "matplotlib", "tensorrt"}:
            raise ModuleNotFoundError(name + " is blocked", name=name)

sys.meta_path.insert(0, Blocker())
import edgeemo, edgeemo.runtime
try:
    edgeemo.load(sys.argv[1])
except edgeemo.errors.MachineError as error:
    print(error)
"""


def changed(path: Path, initializer: str, value: np.ndarray) -> Path:
    """The model with one weight replaced, and a card that fits the new file."""
    network = onnx.load(path)
    weight = next(one for one in network.graph.initializer if one.name == initializer)
    weight.CopyFrom(numpy_helper.from_array(value.astype(np.float32), initializer))
    onnx.save(network, path)
    write_card(path, make_tiny.card())
    return path


def test_tiny_is_what_its_script_makes(tiny: Path) -> None:
    assert onnx.load(tiny) == make_tiny.network()


def test_runtime_imports_without_torch_and_onnxruntime_and_names_what_is_missing(tiny: Path) -> None:
    done = subprocess.run([sys.executable, "-c", BLOCKED, tiny], capture_output=True, text=True, check=True)
    assert "pip install onnxruntime" in done.stdout


@pytest.mark.parametrize("name", ["model.engine", "model.pt", "runs/model"])
def test_a_format_without_a_backend_is_refused_and_the_known_ones_are_named(name: str) -> None:
    with pytest.raises(UsageError, match=r"known: \.onnx"):
        edgeemo.load(name)


def test_a_model_without_its_card_is_refused(copy: Path) -> None:
    card_path(copy).unlink()
    with pytest.raises(IntegrityError, match=r"copy\.onnx\.json does not exist"):
        edgeemo.load(copy)


def test_a_changed_file_is_refused(copy: Path) -> None:
    content = bytearray(copy.read_bytes())
    content[-1] ^= 1
    copy.write_bytes(content)
    with pytest.raises(IntegrityError, match="not the file that its card describes"):
        edgeemo.load(copy)


@pytest.mark.parametrize("content", [b"", b"not a model at all", None], ids=["empty", "foreign", "truncated"])
def test_a_damaged_file_is_refused_even_if_the_card_was_sealed_on_it(copy: Path, content: bytes | None) -> None:
    copy.write_bytes(copy.read_bytes()[:-200] if content is None else content)
    write_card(copy, make_tiny.card())
    with pytest.raises(IntegrityError, match=r"copy\.onnx"):
        edgeemo.load(copy)


def test_a_model_with_weights_in_a_second_file_is_refused(copy: Path) -> None:
    onnx.save(make_tiny.network(), copy, save_as_external_data=True, location="weights.bin", size_threshold=0)
    write_card(copy, make_tiny.card())
    with pytest.raises(IntegrityError, match="second file"):
        edgeemo.load(copy)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"labels": ("yes", "no"), "label_set": "own"}, "one per label"),
        ({"labels": ("yes", "no")}, "names the label set 'six'"),
        ({"input": replace(make_tiny.card().input, size=64)}, r"\(N, 1, 64, 64\)"),
        (
            {"input": replace(make_tiny.card().input, colour="rgb", mean=(0.5,) * 3, std=(0.25,) * 3)},
            r"\(N, 3, 48, 48\)",
        ),
        ({"temperature": 0.0}, "temperature"),
        ({"output": "probabilities"}, "logits"),
    ],
)
def test_a_card_of_another_model_is_refused(copy: Path, change: dict[str, Any], says: str) -> None:
    write_card(copy, replace(make_tiny.card(), **change))
    with pytest.raises(IntegrityError, match=says):
        edgeemo.load(copy)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_logits_that_are_not_numbers_are_refused_and_never_become_a_label(
    copy: Path, face: np.ndarray, poison: float
) -> None:
    with (
        edgeemo.load(changed(copy, "bias", np.full(6, poison))) as model,
        pytest.raises(IntegrityError, match="NaN or infinity"),
    ):
        model.predict(face)
