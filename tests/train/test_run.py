"""The train stage, end to end on a few drawn faces."""

import json
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from edgeemo.card import read_card
from edgeemo.errors import IntegrityError, UsageError
from edgeemo.train import fit
from edgeemo.train.checkpoint import CHECKPOINT
from edgeemo.train.run import run


def states_equal(first, second):
    left, right = load_file(first), load_file(second)
    return left.keys() == right.keys() and all((left[name] == right[name]).all() for name in left)


def test_run_folder_holds_all_that_was_promised(tiny):
    """Model, card, curves, confusion matrix, log; the card says what was measured on how many faces."""
    path = run(tiny)
    names = {file.name for file in path.parent.iterdir()}
    assert names >= {"model.safetensors", "model.safetensors.json", "curves.png", "confusion.png", "log.json"}
    card = read_card(path)
    assert card.metrics["valid"]["n"] == 24
    assert card.history[0]["config"]["data"] == "synthetic:120"
    assert len(json.loads((path.parent / "log.json").read_text())["epochs"]) == 2


def test_loss_falls(tiny):
    """Eight epochs on 120 faces: the last loss is below the first."""
    path = run(replace(tiny, epochs=8, batch_size=16, augment="none"))
    epochs = json.loads((path.parent / "log.json").read_text())["epochs"]
    assert epochs[-1]["loss"] < 0.8 * epochs[0]["loss"]


def test_interrupted_run_resumes_to_the_same_bits(tiny, monkeypatch):
    """Stopped in its second epoch and resumed, a run ends with the weights of one that was never stopped."""
    whole = run(replace(tiny, epochs=3))
    stopped = replace(tiny, epochs=3, out=tiny.out + "-stopped")
    judge, calls = fit._judge, []

    def stop_in_the_second_epoch(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        judge(*arguments)

    monkeypatch.setattr(fit, "_judge", stop_in_the_second_epoch)
    with pytest.raises(KeyboardInterrupt):
        run(stopped)
    monkeypatch.setattr(fit, "_judge", judge)
    assert states_equal(whole, run(replace(stopped, resume=True)))


@pytest.fixture
def scripted(monkeypatch):
    """Valid accuracies as the test wants them: best in the second epoch."""
    wanted = cycle([0.3, 0.6, 0.5, 0.4])
    real = fit.scores
    monkeypatch.setattr(fit, "scores", lambda *arguments: replace(real(*arguments), accuracy=next(wanted)))


@pytest.mark.usefixtures("scripted")
def test_early_stopping_keeps_the_best_epoch_and_stays_stopped(tiny):
    """Stopped two epochs after the best one; --resume trains no further and leaves the same weights."""
    path = run(replace(tiny, epochs=5, patience=2, ema=0.0))
    log = path.parent / "log.json"
    assert [row["accuracy"] for row in json.loads(log.read_text())["epochs"]] == [0.3, 0.6, 0.5, 0.4]
    kept = load_file(path)
    again = run(replace(tiny, epochs=5, patience=2, ema=0.0, resume=True))
    assert len(json.loads(log.read_text())["epochs"]) == 4
    assert all((kept[name] == tensor).all() for name, tensor in load_file(again).items())


@pytest.mark.usefixtures("scripted")
def test_the_kept_epoch_is_not_the_last(tiny):
    """With patience the second of four epochs is kept, without it the last."""
    best = load_file(run(replace(tiny, epochs=4, patience=2, ema=0.0)))
    last = load_file(run(replace(tiny, epochs=4, ema=0.0, out=tiny.out + "-last")))
    assert any((best[name] != last[name]).any() for name in best)


def test_finished_folder_is_not_overwritten(tiny):
    """A second run in the same folder needs --resume or another --out."""
    run(tiny)
    with pytest.raises(UsageError, match="--resume"):
        run(tiny)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"classifier_lr": 1.0}, "other settings of classifier_lr"), ({"data": "synthetic:180"}, "train faces")],
    ids=["settings", "faces"],
)
def test_resuming_another_run_is_refused(tiny, change, message):
    """Other settings or other faces: it would not be the same run."""
    run(tiny)
    with pytest.raises(IntegrityError, match=message):
        run(replace(tiny, resume=True, **change))


@pytest.mark.parametrize("content", ["damaged", "empty"])
def test_unreadable_checkpoint_is_refused(tiny, content):
    """Damaged bytes, and a file that holds something else."""
    run(tiny)
    file = Path(tiny.out) / CHECKPOINT
    file.write_bytes(b"damaged") if content == "damaged" else torch.save({}, file)
    with pytest.raises(IntegrityError, match=r"delete it to start anew"):
        run(replace(tiny, resume=True))


def test_model_without_checkpoint_is_not_overwritten(tiny):
    """A finished model is as precious as a checkpoint."""
    (run(tiny).parent / CHECKPOINT).unlink()
    for resume in (False, True):
        with pytest.raises(UsageError, match=r"model\.safetensors"):
            run(replace(tiny, resume=resume))


def test_enhanced_head_attention_and_class_weights_train(tiny):
    """The origin document's parts work together on a small backbone."""
    config = replace(tiny, head="enhanced", attention=True, augment="enhanced", class_weights="sqrt", epochs=1)
    assert read_card(run(config)).architecture["attention"] is True
