"""A tenth of benchmarks/fuzz_models.py: no mutated model or card crashes, hangs, or answers wrongly in silence."""

from __future__ import annotations

import random
from pathlib import Path

import fuzz_models
import model_mutations
import pytest

from edgeemo.report import files
from edgeemo.report.result import Measurement


def test_two_hundred_mutations_are_refused_or_answered_rightly() -> None:
    """With another seed than the committed result's; each kind has cases of its own."""
    result = fuzz_models.run(200, seed=1)
    assert result.facts["failures"] == []
    assert [row["cases"] for row in result.rows] == [50] * 4
    assert result.rows[0]["refused"] == 50  # by the hash in the card
    assert all(row["refused"] > 25 for row in result.rows)
    assert result.facts["largest_growth_of_a_child_mib"] < 64


def test_the_committed_result_has_no_failures() -> None:
    """Of two thousand cases."""
    result = files.read_as(Measurement, fuzz_models.OUT)
    assert result.facts["failures"] == []
    assert sum(row["cases"] for row in result.rows) == result.settings["cases"] == 2000


@pytest.mark.parametrize(
    ("kind", "outcome"), [("model", "another answer in silence"), ("card sealed again", "other answer")]
)
def test_a_wrong_answer_is_found(kind: str, outcome: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose check is switched off: where nothing was sealed again, it is a failure."""
    answers = iter(["wrong", "right"])
    monkeypatch.setattr(fuzz_models, "answer_of", lambda _: next(answers))
    monkeypatch.setattr(fuzz_models, "answer", lambda _: "right")
    case = fuzz_models.KINDS.index(kind)
    assert fuzz_models.try_case(0, case, tmp_path).outcome == outcome
    assert fuzz_models.try_case(0, case, tmp_path).outcome == "same answer"


@pytest.mark.parametrize("error", [ValueError("x"), MemoryError()])
def test_a_traceback_is_found(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anything but an error of ours."""

    def fail(_: Path) -> None:
        raise error

    monkeypatch.setattr(fuzz_models, "answer_of", fail)
    assert fuzz_models.try_case(0, 0, tmp_path).outcome.startswith(type(error).__name__)


def test_a_case_is_the_same_every_time() -> None:
    """So that a failure can be repeated; and no two cases are the same."""
    model = (fuzz_models.shipped.FOLDER / "nano.onnx").read_bytes()
    once, again, other = (model_mutations.mutate_model(random.Random(seed), model, model) for seed in ("a", "a", "b"))
    assert once == again
    assert model not in (once, other)
    assert once != other
