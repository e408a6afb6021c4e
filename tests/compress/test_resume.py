"""A compression resumed after an interruption gives the same result as an uninterrupted one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file

from edgeemo.artifact import hash_file
from edgeemo.card import read_card
from edgeemo.cli import main
from edgeemo.compress import fine_tune
from edgeemo.compress.run import run
from edgeemo.errors import IntegrityError, UsageError
from edgeemo.resume import make_compress_config
from edgeemo.stages import Compress
from edgeemo.train import fit

# Seven steps per epoch: two pruning steps with one epoch each, then two epochs of QAT.
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
    """Like SIGKILL: nothing catches it."""


def stop_after(config: Compress, monkeypatch: pytest.MonkeyPatch, *, steps: int) -> None:
    """Run, and stop after `steps` steps of all trainings."""
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
def uninterrupted(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted compression."""
    out = tmp_path_factory.mktemp("uninterrupted")
    run(replace(ALL, run=str(trained), out=str(out)))
    return out


@pytest.mark.parametrize("steps", [0, 4, STEPS_AN_EPOCH, STEPS_AN_EPOCH + 5, 3 * STEPS_AN_EPOCH + 4])
def test_a_resumed_compression_is_bit_identical(
    steps: int, uninterrupted: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before the first step, in either pruning step, and in the half of QAT with frozen ranges."""
    config = replace(ALL, run=str(trained), out=str(tmp_path))
    stop_after(config, monkeypatch, steps=steps)
    path = run(replace(config, resume=True))
    assert hash_file(path) == hash_file(uninterrupted / path.name)
    expected, actual = load_file(uninterrupted / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(tensor, actual[name]) for name, tensor in expected.items())
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(file.name for file in uninterrupted.iterdir())


def test_finished_steps_are_not_repeated(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failed gate no training step is repeated, and the card has the time of the first run."""
    config = replace(ALL, run=str(trained), out=str(tmp_path), qat=False, rounding="nearest")
    with monkeypatch.context() as patch:
        patch.setattr("edgeemo.compress.quantize.fidelity.check_agreement", _refuse)
        with pytest.raises(IntegrityError, match="refused here"):
            run(config)
    monkeypatch.setattr(fit, "_train_step", _refuse)
    path = run(replace(config, resume=True))
    assert [entry.seconds > 0 for entry in read_card(path).history if entry.stage == "prune"] == [True]


def _refuse(*_: Any, **__: Any) -> None:
    raise IntegrityError("refused here")


def test_without_resume_checkpoints_are_kept(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same command without --resume is refused, and the checkpoints are kept."""
    config = replace(ALL, run=str(trained), out=str(tmp_path))
    stop_after(config, monkeypatch, steps=STEPS_AN_EPOCH + 1)
    with pytest.raises(
        UsageError,
        match=r"an interrupted compression; continue it with the same command and --resume, or choose another",
    ):
        run(config)
    assert list((tmp_path / fine_tune.FOLDER).glob("*/checkpoints/*"))


@pytest.mark.parametrize(
    ("change", "lost"),
    [({"prune": 0.0, "prune_steps": 1, "qat": False, "epochs": 3}, "prune-1, prune-2, tune"), ({"qat": False}, "tune")],
)
def test_resuming_without_a_step_is_refused(
    change: dict[str, Any], lost: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forgotten option would otherwise discard hours of training."""
    config = replace(ALL, run=str(trained), out=str(tmp_path))
    stop_after(config, monkeypatch, steps=3 * STEPS_AN_EPOCH + 1)
    with pytest.raises(UsageError, match=f"has checkpoints of {lost}, which this command does not include"):
        run(replace(config, resume=True, **change))
    assert list((tmp_path / fine_tune.FOLDER).glob("tune/checkpoints/*"))


def call(*words: Any) -> Result:
    return CliRunner().invoke(main, ["--quiet", "compress", *map(str, words)])


def test_resume_alone_goes_on_with_the_settings_of_the_compression(
    uninterrupted: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are stored before the first step, and removed with the last checkpoint."""
    stop_after(replace(ALL, run=str(trained), out=str(tmp_path)), monkeypatch, steps=3 * STEPS_AN_EPOCH)
    done = call(trained, "--out", tmp_path, "--resume")
    assert done.exit_code == 0, done.output
    for name in ("model.safetensors", "model.int8.onnx"):
        assert hash_file(tmp_path / name) == hash_file(uninterrupted / name)
    assert not (tmp_path / fine_tune.FOLDER).exists()


def test_options_of_a_resumed_compression_are_refused_or_taken(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the fine-tuning are refused by name, with both values; a gate may change."""
    stop_after(replace(ALL, run=str(trained), out=str(tmp_path)), monkeypatch, steps=1)
    done = call(trained, "--out", tmp_path, "--resume", "--prune", 0.3, "--lr", 0.1)
    assert done.exit_code == 2
    assert "other settings: --prune (stored 0.5, requested 0.3), --lr (stored 0.0003, requested 0.1)" in done.output
    typed = {"run": trained, "out": tmp_path, "resume": True, "min_agreement": 50.0}
    assert make_compress_config(typed) == replace(ALL, run=trained, out=tmp_path, resume=True, min_agreement=50.0)


@pytest.mark.parametrize("words", [[], ["--threads", 1]])
def test_resume_without_an_interrupted_compression_says_so(trained: Path, tmp_path: Path, words: list[Any]) -> None:
    """In one line, instead of exporting the float model."""
    done = call(trained, "--out", tmp_path, "--resume", *words)
    assert done.exit_code == 2
    assert done.output.startswith(f"error: {tmp_path} has no interrupted compression to continue")
    assert len(done.output.splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"importance": "taylor"}, r"importance \(stored 'group-norm', requested 'taylor'\)"),
        ({"lr": 1e-3}, r"classifier_lr \(stored 0.0003, requested 0.001\)"),
        ({"prune": 0.3}, r"prune \(stored 0.5, requested 0.3\)"),
    ],
)
def test_other_settings_are_refused(
    change: dict[str, Any], difference: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would continue from a network that was pruned or trained differently."""
    config = replace(ALL, run=str(trained), out=str(tmp_path))
    stop_after(config, monkeypatch, steps=STEPS_AN_EPOCH + 1)
    with pytest.raises(UsageError, match=f"other settings: .*{difference}"):
        run(replace(config, resume=True, **change))
