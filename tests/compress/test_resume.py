"""A compression that was stopped goes on with --resume, and ends as one that never stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from edgeemo.artifact import sha256_of
from edgeemo.card import read_card
from edgeemo.compress import fine_tune
from edgeemo.compress.run import run
from edgeemo.errors import IntegrityError, UsageError
from edgeemo.stages import Compress
from edgeemo.train import fit

# Seven steps an epoch: pruned in two parts of an epoch each, then tuned for two.
ALL = Compress(
    run="to be replaced",
    epochs=2,
    threads=1,
    prune=0.5,
    prune_steps=2,
    int8=True,
    qat=True,
    calibration_count=64,
    min_agreement=0,
    time=False,
)
STEPS_AN_EPOCH = 7


class Stopped(BaseException):
    """As SIGKILL: nothing catches it."""


def stop_after(config: Compress, monkeypatch: pytest.MonkeyPatch, *, steps: int) -> None:
    """Run, and die when `steps` steps of all trainings have been taken."""
    taken = iter(range(steps))
    step = fit._train_step

    def counted(*arguments: Any) -> None:
        if next(taken, None) is None:
            raise Stopped
        step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(fit, "_train_step", counted)
        with pytest.raises(Stopped):
            run(config)


@pytest.fixture(scope="module")
def whole(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a compression that was never stopped."""
    out = tmp_path_factory.mktemp("whole")
    run(replace(ALL, run=str(trained), out=str(out)))
    return out


@pytest.mark.parametrize("steps", [0, 4, STEPS_AN_EPOCH, STEPS_AN_EPOCH + 5, 3 * STEPS_AN_EPOCH + 4])
def test_stopped_anywhere_it_ends_in_the_same_bits(
    steps: int, whole: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first step, in either part of the pruning and in the half of the tuning where the ranges stand."""
    config = replace(ALL, run=str(trained), out=str(tmp_path))
    stop_after(config, monkeypatch, steps=steps)
    path = run(replace(config, resume=True))
    assert sha256_of(path) == sha256_of(whole / path.name)
    expected, found = load_file(whole / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(file.name for file in whole.iterdir())


def test_what_ended_is_not_trained_again(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gate that fails after an hour of recovery costs no second hour: no step is taken; the card tells the first."""
    config = replace(ALL, run=str(trained), out=str(tmp_path), qat=False, rounding="nearest")
    with monkeypatch.context() as patch:
        patch.setattr("edgeemo.compress.quantize.fidelity.check", _refuse)
        with pytest.raises(IntegrityError, match="refused here"):
            run(config)
    monkeypatch.setattr(fit, "_train_step", _refuse)
    path = run(replace(config, resume=True))
    assert [line.seconds > 0 for line in read_card(path).history if line.stage == "prune"] == [True]


def _refuse(*_: Any, **__: Any) -> None:
    raise IntegrityError("refused here")


def test_without_resume_nothing_is_lost(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same command again is refused with the next one, and the checkpoints stay."""
    config = replace(ALL, run=str(trained), out=str(tmp_path))
    stop_after(config, monkeypatch, steps=STEPS_AN_EPOCH + 1)
    with pytest.raises(
        UsageError, match=r"a compression that did not end; go on with the same command and --resume, or choose another"
    ):
        run(config)
    assert list((tmp_path / fine_tune.FOLDER).glob("*/checkpoints/*"))


@pytest.mark.parametrize(
    ("change", "lost"),
    [({"prune": 0.0, "prune_steps": 1, "qat": False, "epochs": 3}, "prune-1, prune-2, tune"), ({"qat": False}, "tune")],
)
def test_resumed_without_a_step_nothing_is_lost(
    change: dict[str, Any], lost: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Options that were forgotten would end the run without the hours that its checkpoints hold, and remove them."""
    config = replace(ALL, run=str(trained), out=str(tmp_path))
    stop_after(config, monkeypatch, steps=3 * STEPS_AN_EPOCH + 1)
    with pytest.raises(UsageError, match=f"holds checkpoints of {lost}, which is no part"):
        run(replace(config, resume=True, **change))
    assert list((tmp_path / fine_tune.FOLDER).glob("tune/checkpoints/*"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"importance": "taylor"}, r"importance \(stored 'group-norm', requested 'taylor'\)"),
        ({"lr": 1e-3}, r"classifier_lr \(stored 0.0003, requested 0.001\)"),
        ({"prune": 0.3}, r"prune \(stored 0.5, requested 0.3\)"),
    ],
)
def test_other_settings_are_refused(
    change: dict[str, Any], told: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would go on from a network that was cut, or learned, in another way."""
    config = replace(ALL, run=str(trained), out=str(tmp_path))
    stop_after(config, monkeypatch, steps=STEPS_AN_EPOCH + 1)
    with pytest.raises(UsageError, match=f"other settings: .*{told}"):
        run(replace(config, resume=True, **change))
