"""A file predicts the same wherever it runs; a backend that does not is reported."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sections
from click.testing import CliRunner

from edgeemo.bench import parity
from edgeemo.card import read_card, write_card
from edgeemo.cli import main
from edgeemo.errors import MachineError, UsageError
from edgeemo.report.files import read
from edgeemo.runtime.backends import table
from edgeemo.stages import Parity

TINY = Path(__file__).parents[1] / "fixtures" / "tiny.onnx"
CONFIG = Parity(models=(str(TINY),), data="synthetic:300", count=40)


class Skewed:
    """ONNX Runtime with something added to every logit; NaN where `broken`."""

    name = "openvino"
    concurrent = True

    def __init__(self, file, threads, shift):
        self._inside, self._shift = table.OnnxBackend(file, threads=threads), np.float32(shift)
        self.inputs, self.outputs = self._inside.inputs, self._inside.outputs

    def logits(self, batch):
        """The shifted logits."""
        return self._inside.logits(batch) + self._shift

    def close(self):
        """Close what is inside."""
        self._inside.close()


def with_shift(monkeypatch, shift):
    """OpenVINO, as if it added `shift` to the logits."""
    monkeypatch.setitem(
        table.BACKENDS, "openvino", table.Entry(".onnx", lambda file, _, threads: Skewed(file, threads, shift))
    )


def test_two_backends_agree_on_one_file():
    """The real ones: ONNX Runtime and OpenVINO predict the same labels."""
    pytest.importorskip("openvino", reason="pip install 'edgeemo[openvino]'")
    result = parity.run(CONFIG)
    first, second, *_ = result.rows
    assert result.passed
    assert (first.backend, second.backend, result.faces.n) == ("onnxruntime", "openvino", 40)
    assert first.same_file is None
    assert second.same_file.agreement == 1
    assert second.same_file.largest_difference < 1e-3


def test_a_backend_that_answers_otherwise_fails_the_gate(monkeypatch, tmp_path):
    """Exit 1; the table says which labels moved."""
    with_shift(monkeypatch, [9, 0, 0, 0, 0, 0])
    out = tmp_path / "parity.json"
    done = CliRunner().invoke(
        main, ["parity", str(TINY), "--data", "synthetic:300", "--count", "40", "--out", str(out)]
    )
    assert done.exit_code == 1
    row = read(out).rows[1]
    assert not row.passed
    assert row.same_file.moved["neutral"] > 0
    assert "FAIL (tiny.onnx in openvino)" in out.with_suffix(".md").read_text(encoding="utf-8")


def test_nan_is_counted_and_fails(monkeypatch):
    """A logit that is no number stands for no label."""
    with_shift(monkeypatch, [0, 0, np.nan, 0, 0, 0])
    result = parity.run(CONFIG)
    assert result.rows[1].not_finite == 40
    assert not result.passed


def test_what_cannot_run_is_told_and_not_counted(monkeypatch):
    """A missing backend is no failure of the file; without any there is nothing to say."""

    def missing(*_):
        raise MachineError("this backend needs OpenVINO:  pip install 'edgeemo[openvino]'")

    monkeypatch.setitem(table.BACKENDS, "openvino", table.Entry(".onnx", missing))
    result = parity.run(CONFIG)
    assert result.passed
    assert "edgeemo[openvino]" in result.rows[1].not_run
    assert "no file ran in a second backend" in result.verdict
    monkeypatch.setitem(table.BACKENDS, "onnxruntime", table.Entry(".onnx", missing))
    with pytest.raises(MachineError, match="edgeemo doctor"):
        parity.run(CONFIG)


def test_a_named_file_that_nothing_runs_is_no_pass(tmp_path):
    """The engine is what was to be proven: without what runs it there is no verdict, and the exit code is 5."""
    engine = tmp_path / "tiny.trt"
    engine.write_bytes(b"an engine")
    write_card(engine, replace(read_card(TINY), target=sections.target()))
    command = ["parity", str(TINY), str(engine), "--data", "synthetic:300", "--count", "40"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 5
    assert "tiny.trt" in done.output
    assert "PASS" not in done.output


def test_files_of_other_labels_are_refused(tmp_path):
    """Their predictions cannot be compared."""
    other = tmp_path / "other.onnx"
    shutil.copy(TINY, other)
    card = read_card(TINY)
    write_card(other, replace(card, labels=card.labels[::-1], label_set=",".join(card.labels[::-1])))
    with pytest.raises(UsageError, match="same labels"):
        parity.run(replace(CONFIG, models=[TINY, other]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": ""}, "--data is empty: expected text"),
        ({"count": -1}, "--count -1"),
        ({"out": "x.csv"}, r"\.json"),
        ({"threads": 0}, "--threads 0: expected 1 to 1024"),
    ],
)
def test_what_cannot_be_meant_is_refused(change, message):
    """Before a face is read."""
    with pytest.raises(UsageError, match=message):
        parity.run(replace(CONFIG, **change))
