"""The OpenVINO backend, where it is installed."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeemo.card import read_card, write_card
from edgeemo.errors import IntegrityError, MachineError, UsageError
from edgeemo.runtime import load


@pytest.fixture
def installed() -> None:
    pytest.importorskip("openvino", reason="pip install 'edgeemo[openvino]'")


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("count", [0, 1, 7])
def test_it_answers_as_onnx_runtime_does(tiny: Path, rng: np.random.Generator, count: int) -> None:
    """Any number of faces, none included."""
    pixels = rng.integers(0, 256, (count, 48, 48), dtype=np.uint8)
    with load(tiny) as first, load(tiny, backend="openvino") as second:
        assert second.probabilities(pixels) == pytest.approx(first.probabilities(pixels), abs=1e-4)


@pytest.mark.usefixtures("installed")
def test_answers_stay_when_the_next_are_asked_for(tiny: Path, rng: np.random.Generator) -> None:
    """They are no view of a buffer that is used again."""
    with load(tiny, backend="openvino") as model:
        batches = rng.random((2, 1, 1, 48, 48), np.float32)
        first = model.logits(batches[0])
        kept = first.copy()
        model.logits(batches[1])
        assert np.array_equal(first, kept)


@pytest.mark.usefixtures("installed")
def test_a_damaged_file_is_refused_with_the_way_to_a_new_one(copy: Path) -> None:
    """Even where its card was sealed on it."""
    card = read_card(copy)
    copy.write_bytes(copy.read_bytes()[:-200])
    write_card(copy, replace(card, history=()))
    with pytest.raises(IntegrityError, match="edgeemo compress"):
        load(copy, backend="openvino")


@pytest.mark.usefixtures("installed")
def test_a_closed_model_says_so(tiny: Path) -> None:
    """And closing twice is fine."""
    model = load(tiny, backend="openvino")
    model.close()
    model.close()
    with pytest.raises(UsageError, match="closed"):
        model.logits(np.zeros((1, 1, 48, 48), np.float32))


def test_without_it_the_extra_is_named(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the moment of need."""
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MachineError, match=r"edgeemo\[openvino\]"):
        load(tiny, backend="openvino")
