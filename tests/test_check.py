"""`doctor --check` passes if outputs and latency are as required, and otherwise fails with the cause."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from full_range import full_range
from PIL import Image

from edgeemo import check
from edgeemo.bench.processors import PROCESSORS, make_launcher
from edgeemo.card import InputContract, card_path, read_card, write_card
from edgeemo.card.layout import compute_seal
from edgeemo.cli import main
from edgeemo.errors import DataError, MachineError
from edgeemo.report.files import write
from edgeemo.runtime import golden, open_model, shipped
from edgeemo.stages import Doctor


def copy_of(name: str, folder: Path, **changes) -> Path:
    """A shipped model in a folder, its card changed."""
    path = folder / f"{name}.onnx"
    shutil.copy(shipped.find(name), path)
    write_card(path, replace(read_card(shipped.find(name)), **changes))
    return path


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "RUNS", 5)


def test_every_shipped_model_passes_here() -> None:
    """Exit 0, a row each, whatever processor this is."""
    done = CliRunner().invoke(main, ["doctor", "--check", "--json"])
    assert done.exit_code == 0, done.output
    rows = json.loads(done.output)["models"]
    assert [row["file"] for row in rows] == [f"{name}.onnx" for name in shipped.NAMES]
    assert all(row["golden"]["changed"] == 0 and not row["failures"] for row in rows)


def test_the_table_says_pass_and_names_each_model() -> None:
    done = CliRunner().invoke(main, ["doctor", "--check", "nano"])
    assert done.exit_code == 0
    assert "nano.onnx" in done.output
    assert done.output.rstrip().endswith("PASS")


@pytest.mark.parametrize("shift", [golden.TOLERANCE * 2, -5.0])
def test_other_answers_fail(shift: float, tmp_path: Path) -> None:
    """By a little in one logit, or by a label; exit 1, and the sentence says how far."""
    wanted = read_card(shipped.find("nano")).golden
    logits = np.array(wanted.logits)
    logits[0, logits[0].argmax()] += shift
    path = copy_of("nano", tmp_path, golden=replace(wanted, logits=logits.tolist()))
    done = CliRunner().invoke(main, ["doctor", "--check", str(path)])
    assert done.exit_code == 1
    found = " ".join(done.output.split())
    assert f"differ from its card, and logits by up to {abs(shift):.3f}" in found
    assert f"{int(shift < -1)} of 8 labels" in found


@pytest.mark.parametrize("kept", [None, golden.Golden("0" * 64, ())])
def test_a_card_without_golden_logits_of_these_faces_fails(kept: golden.Golden | None, tmp_path: Path) -> None:
    """What was not compared has not passed."""
    found = check.run(Doctor(models=(str(copy_of("nano", tmp_path, golden=kept)),), check=True))
    assert not found.passed
    assert "edgeemo compress RUN" in found.models[0].failures[0]


def test_a_model_slower_than_its_baseline_fails(tmp_path: Path) -> None:
    """And the same one passes against a time that holds."""
    first = check.run(Doctor(models=("nano",), check=True))
    for factor, passed in ((100.0, True), (0.001, False)):
        baseline = tmp_path / "baseline.json"
        write(replace(first, models=[replace(first.models[0], ms_p50=factor)]), baseline)
        found = check.run(Doctor(models=("nano",), check=True, baseline=str(baseline)))
        assert found.passed == passed
        assert passed or "of the baseline" in found.models[0].failures[0]


def test_a_model_over_the_limit_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """The product's own gate, 50 ms."""
    monkeypatch.setattr(check, "_measure_latency", lambda _: (40.0, 60.0))
    assert check.run(Doctor(models=("nano",), check=True)).models[0].failures == [
        "p95 on one thread is 60.0 ms, limit 50 ms"
    ]


@pytest.mark.parametrize(
    "logits", [None, "NaN", [[1.0, 2.0], [3.0]], [[0.0] * 8] * 7, [[0.0] * 7] * 8, [[float("nan")] * 8] * 8]
)
def test_damaged_golden_logits_are_refused(logits: object, tmp_path: Path) -> None:
    """Not a traceback, and not a pass."""
    path = copy_of("nano", tmp_path)
    raw = json.loads(card_path(path).read_text())
    raw["golden"]["logits"] = logits
    with suppress(ValueError):  # a NaN has no seal
        raw["seal"] = compute_seal(raw)
    card_path(path).write_text(json.dumps(raw))
    done = CliRunner().invoke(main, ["doctor", "--check", str(path)])
    assert done.exit_code == 4, done.output
    assert re.search(r"golden\.logits\S*: expected|8 x 8 numbers", " ".join(done.output.split()))


@pytest.mark.parametrize("time", [0, -1, float("nan"), float("inf")])
def test_a_baseline_without_a_time_is_refused(time: float, tmp_path: Path) -> None:
    """Nothing is 1.5 times as slow as that."""
    made = check.run(Doctor(models=("nano",), check=True))
    write(replace(made, models=[replace(made.models[0], ms_p50=time)]), tmp_path / "baseline.json")
    with pytest.raises(DataError, match="expected a p50 above 0 ms"):
        check.run(Doctor(models=("nano",), check=True, baseline=str(tmp_path / "baseline.json")))


def test_a_baseline_without_the_model_is_refused(tmp_path: Path) -> None:
    """What was not compared has not passed."""
    write(check.run(Doctor(models=("nano",), check=True)), tmp_path / "baseline.json")
    with pytest.raises(DataError, match=r"no times of the current small.onnx"):
        check.run(Doctor(models=("nano", "small"), check=True, baseline=str(tmp_path / "baseline.json")))


def test_a_card_that_wrongly_claims_safety_is_suspected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where kernels saturate, saturation is a cause whatever the card says."""
    card = read_card(shipped.find("nano"))
    wrong = replace(card.golden, logits=(np.array(card.golden.logits) + 1).tolist())
    path = copy_of("nano", tmp_path, golden=wrong)
    for saturates in (False, True):
        monkeypatch.setattr(check, "kernels_saturate", lambda saturates=saturates: saturates)
        (sentence,) = check.run(Doctor(models=(str(path),), check=True)).models[0].failures
        assert ("although the card calls them safe" in sentence) == saturates


@pytest.mark.parametrize("text", ["", "[]", '{"models": [{"file": "nano.onnx"}]}', '{"kind": "doctor", "format": 2}'])
def test_a_baseline_of_something_else_is_refused(text: str, tmp_path: Path) -> None:
    """With the command that makes one."""
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(DataError, match=r"edgeemo doctor.* --json > FILE.json"):
        check.run(Doctor(models=("nano",), check=True, baseline=str(tmp_path / "other.json")))


def test_options_of_the_check_alone_are_refused_without_it() -> None:
    """They would do nothing."""
    for arguments in (["nano"], ["--baseline", "x.json"]):
        assert CliRunner().invoke(main, ["doctor", *arguments]).exit_code == 2


def test_weights_that_saturate_fail_without_vnni(tmp_path: Path) -> None:
    """As AVX2 runs it, with the cause; on a processor whose kernels are exact the same file passes."""
    path = full_range(tmp_path / "full.onnx")
    card = read_card(path)
    with open_model(path) as model:
        exact = golden.record(model.logits(golden.golden_batch(card.input)))
    write_card(path, replace(card, golden=exact))
    try:
        with make_launcher(PROCESSORS["avx2"]) as launcher:
            start = "from edgeemo.cli import main; main()"
            command = [*launcher.command, "-c", start, "doctor", "--check", str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=launcher.environment)
    except MachineError as error:
        pytest.skip(str(error))
    assert done.returncode == 1, done.stderr
    assert "saturate this processor's INT8 kernels" in " ".join(done.stdout.split())


def test_the_faces_are_eight_and_fit_every_contract() -> None:
    """64 px gray; they are also converted for a colour model of another size."""
    with Image.open(golden.FACES) as strip:
        assert (strip.mode, strip.size) == ("L", (golden.COUNT * 64, 64))
    rgb = InputContract(size=32, colour="rgb", mean=(0.5,) * 3, std=(0.25,) * 3)
    assert golden.golden_batch(rgb).shape == (golden.COUNT, 3, 32, 32)


def test_the_package_needs_no_workshop_for_the_check() -> None:
    """On a device: no torch, no onnx."""
    blocked = "import sys; sys.modules['torch'] = sys.modules['onnx'] = None; "
    script = blocked + "from edgeemo import check; from edgeemo.stages import Doctor; check.RUNS = 3; "
    script += "print(check.run(Doctor(models=('nano',), check=True)).passed)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
