"""The train stage, end to end on a few drawn faces."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from edgeemo.card import read_card
from edgeemo.errors import IntegrityError, UsageError
from edgeemo.train import fit
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


def test_early_stopping_keeps_the_best_epoch(tiny):
    """With patience the kept model has the best valid accuracy of all epochs."""
    path = run(replace(tiny, epochs=6, patience=2, ema=0.0))
    epochs = json.loads((path.parent / "log.json").read_text())["epochs"]
    assert read_card(path).metrics["valid"]["accuracy"] == pytest.approx(max(row["accuracy"] for row in epochs))


def test_finished_folder_is_not_overwritten(tiny):
    """A second run in the same folder needs --resume or another --out."""
    run(tiny)
    with pytest.raises(UsageError, match="--resume"):
        run(tiny)


@pytest.mark.parametrize("fault", ["changed settings", "damaged"])
def test_foreign_checkpoint_is_refused(tiny, fault):
    """Resuming with other settings, or from a damaged file, would not be the same run."""
    run(tiny)
    if fault == "damaged":
        (Path(tiny.out) / fit.CHECKPOINT).write_bytes(b"damaged")
    with pytest.raises(IntegrityError, match=r"other settings of classifier_lr|not a readable checkpoint"):
        run(replace(tiny, resume=True, classifier_lr=1.0))


def test_enhanced_head_attention_and_class_weights_train(tiny):
    """The origin document's parts work together on a small backbone."""
    config = replace(tiny, head="enhanced", attention=True, augment="enhanced", class_weights="sqrt", epochs=1)
    assert read_card(run(config)).architecture["attention"] is True
