"""The train stage, end to end on a few drawn faces."""

import json
import pickle
import shutil
from dataclasses import replace
from functools import cache
from itertools import cycle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from edgeemo.artifact import alone_in
from edgeemo.card import read_card
from edgeemo.errors import IntegrityError, UsageError
from edgeemo.stages import RECIPES
from edgeemo.train import checkpoint, fit
from edgeemo.train.run import run


def states_equal(first, second):
    left, right = load_file(first), load_file(second)
    return left.keys() == right.keys() and all((left[name] == right[name]).all() for name in left)


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """The model of a run that was never stopped; each way to train is gone once."""

    @cache
    def trained(config):
        return run(replace(config, out=str(tmp_path_factory.mktemp("whole") / "run")))

    def whole(config):
        return trained(replace(config, out="", checkpoint_steps=type(config).checkpoint_steps))

    return whole


@pytest.fixture
def finished(tiny, once):
    """A tiny run that ended, as its own copy."""
    shutil.copytree(once(tiny).parent, tiny.out)
    return tiny


def test_run_folder_holds_all_that_was_promised(tiny_with_pictures):
    """Model, card, curves, confusion matrix, log; the card says what was measured on how many faces."""
    path = run(tiny_with_pictures)
    names = {file.name for file in path.parent.iterdir()}
    assert names >= {"model.safetensors", "model.safetensors.json", "curves.png", "confusion.png", "log.json"}
    card = read_card(path)
    assert card.metrics["valid"].n == 24
    assert card.history[0].config["data"] == "synthetic:120"
    assert len(json.loads((path.parent / "log.json").read_text())["epochs"]) == 2


def test_loss_falls(tiny):
    """Eight epochs on 120 faces: the last loss is below the first."""
    path = run(replace(tiny, epochs=8, batch_size=16, augment="none"))
    epochs = json.loads((path.parent / "log.json").read_text())["epochs"]
    assert epochs[-1]["loss"] < 0.8 * epochs[0]["loss"]


class Stopped(Exception):
    """Power lost."""


def stop_after(config, *, steps):
    """Train until so many steps have been taken, then fall over, as often as not between two checkpoints."""
    taken = []

    def step(*arguments):
        if len(taken) == steps:
            raise Stopped
        taken.append(1)
        real(*arguments)

    real, fit._step = fit._step, step
    try:
        with pytest.raises(Stopped):
            run(config)
    finally:
        fit._step = real


@pytest.mark.parametrize("steps", [1, 3, 5])
@pytest.mark.parametrize(("checkpoint_steps", "accumulate"), [(1, 1), (2, 1), (200, 1), (1, 2), (2, 3)])
def test_a_run_stopped_anywhere_resumes_to_the_same_bits(tiny, once, steps, checkpoint_steps, accumulate):
    """Stopped after a step, with or without a checkpoint there: weights and log equal those of a whole run.

    That one writes no checkpoint but after its epochs. A checkpoint never falls between steps whose gradients are still
    being added up.
    """
    parts = replace(tiny, batch_size=24, checkpoint_steps=checkpoint_steps, accumulate=accumulate)
    whole = once(parts)
    stop_after(parts, steps=steps)
    again = run(replace(parts, resume=True))
    assert states_equal(whole, again)
    assert losses_of(whole) == losses_of(again)


def losses_of(model):
    return [row["loss"] for row in json.loads((model.parent / "log.json").read_text())["epochs"]]


def test_interrupted_judging_is_done_again(tiny, once, monkeypatch):
    """Stopped while its second epoch is judged and resumed, a run ends with the weights of one never stopped."""
    stopped = replace(tiny, epochs=3)
    whole = once(stopped)
    judge, calls = fit._judged, []

    def stop_in_the_second_epoch(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return judge(*arguments)

    monkeypatch.setattr(fit, "_judged", stop_in_the_second_epoch)
    with pytest.raises(KeyboardInterrupt):
        run(stopped)
    monkeypatch.setattr(fit, "_judged", judge)
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


def test_finished_folder_is_not_overwritten(finished):
    """A second run in the same folder needs --resume or another --out."""
    with pytest.raises(UsageError, match="--resume"):
        run(finished)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classifier_lr": 1.0}, r"other settings: classifier_lr 0\.\d+ there, 1\.0 here"),
        ({"data": "synthetic:180"}, "train faces, valid faces; use those"),
    ],
    ids=["settings", "faces"],
)
def test_resuming_another_run_is_refused(finished, change, message):
    """Other settings or other faces: it would not be the same run."""
    with pytest.raises(UsageError, match=message):
        run(replace(finished, resume=True, **change))


def test_resuming_without_the_teacher_is_refused(tiny, tmp_path):
    """The second half would learn from labels alone, and the card would name no teacher."""
    master = run(replace(tiny, epochs=1, out=str(tmp_path / "master"))).parent
    taught = replace(tiny, teacher=str(master), views=1)
    stop_after(taught, steps=4)
    with pytest.raises(UsageError, match=r"other settings: .*teacher"):
        run(replace(tiny, resume=True))
    assert states_equal(run(replace(taught, resume=True)), run(replace(taught, out=tiny.out + "-whole")))


def test_two_trainings_do_not_share_a_folder(tiny):
    """The second is refused while the first is at work, though there is no checkpoint yet; then the folder is free."""
    with alone_in(Path(tiny.out)), pytest.raises(UsageError, match="another process is at work in"):
        run(tiny)
    assert not (run(tiny).parent / ".lock").exists()


def test_a_card_that_cannot_be_read_is_told_before_training(tiny, tmp_path, monkeypatch):
    """That of the weights it starts from: its terms are wanted at the end, after hours."""
    start = run(replace(tiny, epochs=1, out=str(tmp_path / "start")))
    (tmp_path / "start" / "model.safetensors.json").write_text("{}")
    monkeypatch.setattr("edgeemo.train.run.fit", None)
    with pytest.raises(IntegrityError, match=r"model\.safetensors\.json"):
        run(replace(tiny, weights=str(start)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"views": 4}, "--views has no effect without --teacher"),
        ({"teacher_share": 0.5}, "--teacher-share has no effect without --teacher"),
        ({"focal_gamma": 1.0}, "--focal-gamma has no effect without --loss focal"),
        ({"restart_epochs": 1.0}, "--restart-epochs has no effect without --schedule restarts"),
        ({"unfreeze_epochs": 1.0}, "--unfreeze-epochs has no effect without --mode gradual"),
    ],
)
def test_an_option_that_decides_nothing_is_refused(tiny, change, message):
    """Before any face is read, with the option that it is for."""
    with pytest.raises(UsageError, match=message):
        run(replace(tiny, data="folder:none", **change))


def newest(config):
    return checkpoint.in_folder(Path(config.out))[-1]


def test_two_checkpoints_are_kept(tiny):
    """Five steps with a checkpoint each leave the last two, and nothing half written."""
    run(replace(tiny, epochs=5, batch_size=120))
    names = sorted(path.name for path in (Path(tiny.out) / checkpoint.FOLDER).iterdir())
    assert names == ["00000004", "00000005"]


@pytest.mark.parametrize("file", [checkpoint.STATE, checkpoint.WEIGHTS])
def test_damaged_checkpoint_gives_way_to_the_one_before(finished, file, caplog):
    """One damaged byte in the newest: it is named, and the run ends in the same bits from the one before."""
    whole = load_file(Path(finished.out) / "model.safetensors")
    damaged = newest(finished) / file
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 0xFF
    damaged.write_bytes(content)
    again = load_file(run(replace(finished, resume=True)))
    assert str(newest(finished)) in caplog.text
    assert all((whole[name] == tensor).all() for name, tensor in again.items())


def test_no_readable_checkpoint_is_refused(finished):
    """Both damaged: nothing is made up."""
    for path in checkpoint.in_folder(Path(finished.out)):
        (path / checkpoint.STATE).write_bytes(b"damaged")
    with pytest.raises(IntegrityError, match=r"to start anew"):
        run(replace(finished, resume=True))


def test_checkpoint_runs_no_foreign_code(finished, tmp_path):
    """A pickle that would write a file when opened, with the right hash: refused, nothing written."""
    for path in checkpoint.in_folder(Path(finished.out)):
        (path / checkpoint.STATE).write_bytes(pickle.dumps(Bomb(tmp_path / "fallen")))
        (path / checkpoint.SUMS).write_text(checkpoint._sums(path))
    with pytest.raises(IntegrityError):
        run(replace(finished, resume=True))
    assert not (tmp_path / "fallen").exists()


class Bomb:
    """Writes a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_diverged_training_stops_and_keeps_the_checkpoint_before(tiny):
    """An absurd rate: the loss is no number, the error says what to change, no checkpoint holds it."""
    with pytest.raises(UsageError, match="lower learning rate"):
        run(
            replace(
                tiny, epochs=20, classifier_lr=1e30, warmup_epochs=0.0, clip=1e30, batch_size=16, checkpoint_steps=1
            )
        )
    kept = checkpoint.in_folder(Path(tiny.out))
    assert kept
    for path in kept:
        assert all(bool(weight.isfinite().all()) for weight in load_file(path / checkpoint.WEIGHTS).values())


def test_model_without_checkpoint_is_not_overwritten(finished):
    """A finished model is as precious as a checkpoint."""
    checkpoint.remove(Path(finished.out))
    for resume in (False, True):
        with pytest.raises(UsageError, match=r"model\.safetensors"):
            run(replace(finished, resume=resume))


def test_enhanced_head_attention_and_class_weights_train(tiny):
    """The origin document's parts work together on a small backbone."""
    config = replace(tiny, head="enhanced", attention=True, augment="enhanced", class_weights="sqrt", epochs=1)
    assert read_card(run(config)).architecture.attention is True


@pytest.mark.parametrize(
    "change",
    [
        {"loss": "focal"},
        {"optimizer": "sgd", "classifier_lr": 0.05},
        {"schedule": "restarts", "restart_epochs": 1.0},
        {"sampler": "weighted"},
        {"mode": "features"},
        {"mode": "gradual", "unfreeze_epochs": 0.5},
        {"accumulate": 2},
        {"tensorboard": True},
        {"mirror": True},
    ],
    ids=lambda change: "-".join(map(str, change.values())),
)
def test_a_resumed_run_equals_a_whole_one(tiny, once, change):
    """Whatever is chosen, two epochs in one sitting or in two end in the same bits."""
    parts = replace(tiny, **change)
    whole = once(parts)
    stop_after(parts, steps=4)
    assert states_equal(whole, run(replace(parts, resume=True)))


def test_tensorboard_gets_the_curves(tiny):
    """One event file with the recalls of the last epoch."""
    folder = run(replace(tiny, tensorboard=True)).parent / "tensorboard"
    events = EventAccumulator(str(folder)).Reload()
    assert {"train/loss", "valid/accuracy", "valid recall/fear"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("valid/accuracy")] == [0, 1]


def test_accumulated_steps_are_one_large_step(tiny):
    """Without BatchNorm's batch statistics, four small batches move the weights as one of their faces does."""
    still = {"mode": "features", "augment": "none", "dropout": 0.0, "clip": 1e9}
    config = replace(tiny, **still, optimizer="sgd", precision="fp32", epochs=1, warmup_epochs=0.0)
    large = load_file(run(replace(config, batch_size=120)))
    small = load_file(run(replace(config, batch_size=30, accumulate=4, out=tiny.out + "-small")))
    assert large["head.1.weight"].numpy() == pytest.approx(small["head.1.weight"].numpy(), abs=1e-6)


def test_fp16_without_cuda_is_refused(tiny):
    """No silent bf16 instead."""
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(UsageError, match="fp16 needs a CUDA device"):
        run(replace(tiny, precision="fp16"))


def test_the_enhanced_recipe_is_the_documents():
    """Every figure that the origin document gives, and its techniques switched on; ours stand no face on its head."""
    found = vars(RECIPES["enhanced"])
    document = {
        "backbone": "resnet50",
        "head": "enhanced",
        "attention": True,
        "dropout": 0.5,
        "epochs": 25,
        "batch_size": 32,
        "target_accuracy": 80.0,
        "backbone_lr": 5e-6,
        "classifier_lr": 1e-3,
        "weight_decay": 1e-4,
        "optimizer": "adamw",
        "schedule": "restarts",
        "smoothing": 0.1,
        "sampler": "weighted",
        "augment": "enhanced",
        "vertical_flips": True,
    }
    assert {name: found[name] for name in document} == document
    assert found["accumulate"] > 1
    assert found["clip"] > 0
    assert found["patience"] > 0
    assert not any(RECIPES[name].vertical_flips for name in ("edge", "demo"))
