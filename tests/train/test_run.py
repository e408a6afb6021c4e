"""The train stage, end to end on a few synthetic faces."""

import json
import os
import pickle
import shutil
import sys
from dataclasses import replace
from functools import cache
from itertools import cycle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from edgeemo.artifact import lock_folder
from edgeemo.card import Crop, read_card, to_json
from edgeemo.errors import IntegrityError, UsageError
from edgeemo.stages import RECIPES
from edgeemo.train import checkpoint, fit, run_folder
from edgeemo.train.run import run


def states_equal(first, second):
    left, right = load_file(first), load_file(second)
    return left.keys() == right.keys() and all((left[name] == right[name]).all() for name in left)


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """Return the model of an uninterrupted run; each configuration is trained once."""

    @cache
    def trained(config):
        return run(replace(config, out=str(tmp_path_factory.mktemp("uninterrupted") / "run")))

    def uninterrupted(config):
        return trained(replace(config, out=Path("of the cached run"), checkpoint_steps=type(config).checkpoint_steps))

    return uninterrupted


@pytest.fixture
def finished(tiny, once):
    """A copy of a finished tiny run."""
    shutil.copytree(once(tiny).parent, tiny.out)
    return tiny


@pytest.fixture
def unsaved(finished):
    """A tiny run whose last checkpoint was written, but not its model."""
    (Path(finished.out) / run_folder.MODEL).unlink()
    return finished


@pytest.mark.parametrize("stated", [None, Crop(3.2, 0.4, 15.0)])
def test_the_card_has_the_crop_of_the_faces(tiny, folder_of_faces, stated):
    """As their crop.json states it, so that faces in photos are cropped alike; without one, the card has none."""
    if stated:
        (folder_of_faces / "crop.json").write_text(json.dumps({"format": 1, "crop": to_json(stated)}))
    path = run(replace(tiny, data=f"folder:{folder_of_faces}", epochs=1))
    assert read_card(path).input.crop == stated


def test_the_run_folder_has_all_results(tiny_with_plots):
    """Model, card, learning curves, confusion matrix and log; the card has the metrics and the number of faces."""
    path = run(tiny_with_plots)
    names = {file.name for file in path.parent.iterdir()}
    assert names >= {"model.safetensors", "model.safetensors.json", "curves.png", "confusion.png", "log.json"}
    card = read_card(path)
    assert card.metrics["valid"].n == 24
    assert card.history[0].config["data"] == "synthetic:120"
    assert len(json.loads((path.parent / "log.json").read_text())["epochs"]) == 2


def test_the_loss_decreases(tiny):
    """Eight epochs on 120 faces: the last loss is lower than the first."""
    path = run(replace(tiny, epochs=8, batch_size=16, augment="none"))
    epochs = json.loads((path.parent / "log.json").read_text())["epochs"]
    assert epochs[-1]["loss"] < 0.8 * epochs[0]["loss"]


class Stopped(Exception):
    """Simulated power failure."""


def stop_after(config, *, steps):
    """Train for that many steps, then fail, possibly between two checkpoints."""
    done = []

    def step(*arguments):
        if len(done) == steps:
            raise Stopped
        done.append(1)
        real(*arguments)

    real, fit._train_step = fit._train_step, step
    try:
        with pytest.raises(Stopped):
            run(config)
    finally:
        fit._train_step = real


@pytest.mark.parametrize("steps", [1, 3, 5])
@pytest.mark.parametrize(("checkpoint_steps", "accumulate"), [(1, 1), (2, 1), (200, 1), (1, 2), (2, 3)])
def test_a_run_stopped_anywhere_resumes_bit_identically(tiny, once, steps, checkpoint_steps, accumulate):
    """Stopped after a step, with or without a checkpoint there: weights and log equal those of an uninterrupted run.

    That run writes checkpoints after its epochs only. There are no checkpoints between steps whose gradients are being
    accumulated.
    """
    parts = replace(tiny, batch_size=24, checkpoint_steps=checkpoint_steps, accumulate=accumulate)
    uninterrupted = once(parts)
    stop_after(parts, steps=steps)
    again = run(replace(parts, resume=True))
    assert states_equal(uninterrupted, again)
    assert losses_of(uninterrupted) == losses_of(again)


def losses_of(model):
    return [row["loss"] for row in json.loads((model.parent / "log.json").read_text())["epochs"]]


def test_an_interrupted_evaluation_is_repeated(tiny, once, monkeypatch):
    """A run stopped during the evaluation of its second epoch and resumed has the weights of an uninterrupted one."""
    stopped = replace(tiny, epochs=3)
    uninterrupted = once(stopped)
    evaluate, calls = fit._evaluate_epoch, []

    def stop_in_the_second_epoch(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return evaluate(*arguments)

    monkeypatch.setattr(fit, "_evaluate_epoch", stop_in_the_second_epoch)
    with pytest.raises(KeyboardInterrupt):
        run(stopped)
    monkeypatch.setattr(fit, "_evaluate_epoch", evaluate)
    assert states_equal(uninterrupted, run(replace(stopped, resume=True)))


@pytest.fixture
def scripted(monkeypatch):
    """Given validation accuracies, best in the second epoch."""
    accuracies = cycle([0.3, 0.6, 0.5, 0.4])
    real = fit.scores
    monkeypatch.setattr(fit, "scores", lambda *arguments: replace(real(*arguments), accuracy=next(accuracies)))


@pytest.mark.usefixtures("scripted")
def test_early_stopping_keeps_the_best_epoch_also_after_resuming(tiny):
    """Stopped two epochs after the best one; --resume does not train further and keeps the weights."""
    path = run(replace(tiny, epochs=5, patience=2, ema=0.0))
    log = path.parent / "log.json"
    assert [row["accuracy"] for row in json.loads(log.read_text())["epochs"]] == [0.3, 0.6, 0.5, 0.4]
    kept = load_file(path)
    path.unlink()
    again = run(replace(tiny, epochs=5, patience=2, ema=0.0, resume=True))
    assert len(json.loads(log.read_text())["epochs"]) == 4
    assert all((kept[name] == tensor).all() for name, tensor in load_file(again).items())


@pytest.mark.usefixtures("scripted")
def test_patience_keeps_the_best_epoch(tiny):
    """With patience, the second of four epochs is kept, without it the last."""
    best = load_file(run(replace(tiny, epochs=4, patience=2, ema=0.0)))
    last = load_file(run(replace(tiny, epochs=4, ema=0.0, out=f"{tiny.out}-last")))
    assert any((best[name] != last[name]).any() for name in best)


def test_a_finished_run_is_not_overwritten(finished):
    """A second run in the same folder needs --resume or another --out."""
    with pytest.raises(UsageError, match="--resume"):
        run(finished)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classifier_lr": 1.0}, r"other settings: classifier_lr \(stored 0\.\d+, requested 1\.0\)"),
        ({"data": "synthetic:180"}, "train faces, valid faces; use the stored ones"),
    ],
    ids=["settings", "faces"],
)
def test_resuming_with_other_settings_or_faces_is_refused(finished, change, message):
    """It would not be the same run."""
    with pytest.raises(UsageError, match=message):
        run(replace(finished, resume=True, **change))


def test_a_checkpoint_of_an_earlier_version_is_resumed(tiny, once):
    """It stored settings as typed, 0 and empty text for what was not given, and options that are gone."""
    parts = replace(tiny, checkpoint_steps=1)
    stop_after(parts, steps=4)
    path = max((Path(tiny.out) / "checkpoints").iterdir())
    content = torch.load(path / "state.pt", weights_only=True)
    stored = content["identity"]
    assert stored.pop("labels")
    as_typed = {name: getattr(parts, name) for name in ("label_set", "data", "weights", "precision", "backbone_lr")}
    stored.update(as_typed, size="", bias_folds=0)
    torch.save(content, path / "state.pt")
    (path / checkpoint.SUMS).write_text(checkpoint._hash_lines(path), encoding="ascii")
    assert states_equal(run(replace(parts, resume=True)), once(parts))


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ([], "list"),
        ({}, "data"),
        ({"data": 7}, "expected text"),
        ({"data": ""}, "is empty"),
        ({"data": "synthetic", "epochs": -1}, "expected 1 or more"),
    ],
)
def test_a_log_without_usable_settings_is_refused(finished, config, reason):
    """With the file, before anything is loaded."""
    folder = Path(finished.out)
    (folder / "log.json").write_text(json.dumps({"config": config}))
    with pytest.raises(IntegrityError, match=rf"log\.json does not record how the run was started \(.*{reason}"):
        run_folder.load_config(folder, read_card(folder / run_folder.MODEL))


@pytest.mark.skipif(sys.platform != "linux", reason="the file system decides which names it allows")
def test_a_data_set_whose_name_is_not_utf8_is_trained_and_resumed(tiny, folder_of_faces, tmp_path):
    """Nothing is lost after the last epoch, and the card has a name that every reader can read."""
    data = tmp_path / os.fsdecode(b"caf\xe9")
    folder_of_faces.rename(data)
    (data / "fear" / "3.png").rename(data / "fear" / os.fsdecode(b"\xe9.png"))
    config = replace(tiny, data=f"folder:{data}")
    stop_after(config, steps=1)
    path = run(replace(config, resume=True))
    assert read_card(path).history[0].config["data"] == r"folder:caf\xe9"
    assert run_folder.load_config(path.parent, read_card(path)).data == config.data


def test_resuming_without_the_teacher_is_refused(tiny, tmp_path):
    """The second half would be trained on labels only, and the card would not have the teacher."""
    teacher = run(replace(tiny, epochs=1, out=str(tmp_path / "teacher"))).parent
    student = replace(tiny, teacher=str(teacher), views=1)
    stop_after(student, steps=4)
    with pytest.raises(UsageError, match=r"other settings: .*teacher"):
        run(replace(tiny, resume=True))
    assert states_equal(run(replace(student, resume=True)), run(replace(student, out=f"{tiny.out}-uninterrupted")))


def test_two_runs_cannot_share_a_folder(tiny):
    """The second is refused while the first runs, even before its first checkpoint; afterwards the lock is gone."""
    with lock_folder(Path(tiny.out)), pytest.raises(UsageError, match="another process is writing to"):
        run(tiny)
    assert not (run(tiny).parent / ".lock").exists()


def test_an_unreadable_card_of_the_initial_weights_is_reported_before_training(tiny, tmp_path, monkeypatch):
    """Its licences are needed at the end, after hours."""
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
def test_an_option_without_effect_is_refused(tiny, change, message):
    """Before any face is read, with the option that it needs."""
    with pytest.raises(UsageError, match=message):
        run(replace(tiny, data="folder:none", **change))


def newest(config):
    return checkpoint.list_checkpoints(Path(config.out))[-1]


def test_two_checkpoints_are_kept(tiny):
    """Of five steps with a checkpoint each, the last two remain, without partial files."""
    run(replace(tiny, epochs=5, batch_size=120))
    names = sorted(path.name for path in (Path(tiny.out) / checkpoint.FOLDER).iterdir())
    assert names == ["00000004", "00000005"]


@pytest.mark.parametrize("file", [checkpoint.STATE, checkpoint.WEIGHTS])
def test_a_damaged_checkpoint_is_skipped_for_the_previous_one(unsaved, once, file, caplog):
    """One damaged byte in the newest: it is reported, and the run resumes bit-identically from the previous one."""
    uninterrupted = once(unsaved)
    damaged = newest(unsaved) / file
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 0xFF
    damaged.write_bytes(content)
    again = run(replace(unsaved, resume=True))
    assert str(newest(unsaved)) in caplog.text
    assert states_equal(uninterrupted, again)


def test_no_readable_checkpoint_is_refused(unsaved):
    """Both are damaged."""
    for path in checkpoint.list_checkpoints(Path(unsaved.out)):
        (path / checkpoint.STATE).write_bytes(b"damaged")
    with pytest.raises(IntegrityError, match=r"to start again"):
        run(replace(unsaved, resume=True))


def test_a_checkpoint_cannot_execute_code(unsaved, tmp_path):
    """A pickle that would write a file when loaded, with the right hash, is refused; nothing is written."""
    for path in checkpoint.list_checkpoints(Path(unsaved.out)):
        (path / checkpoint.STATE).write_bytes(pickle.dumps(Bomb(tmp_path / "fallen")))
        (path / checkpoint.SUMS).write_text(checkpoint._hash_lines(path))
    with pytest.raises(IntegrityError):
        run(replace(unsaved, resume=True))
    assert not (tmp_path / "fallen").exists()


class Bomb:
    """Writes a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_diverged_training_stops_and_keeps_the_previous_checkpoint(tiny):
    """With a huge learning rate the loss is not finite: the error says what to change; no checkpoint contains it."""
    with pytest.raises(UsageError, match="lower learning rate"):
        run(
            replace(
                tiny, epochs=20, classifier_lr=1e30, warmup_epochs=0.0, clip=1e30, batch_size=16, checkpoint_steps=1
            )
        )
    kept = checkpoint.list_checkpoints(Path(tiny.out))
    assert kept
    for path in kept:
        assert all(bool(weight.isfinite().all()) for weight in load_file(path / checkpoint.WEIGHTS).values())


def test_a_model_without_checkpoints_is_not_overwritten(finished):
    """With or without --resume."""
    checkpoint.remove(Path(finished.out))
    for resume in (False, True):
        with pytest.raises(UsageError, match=r"model\.safetensors"):
            run(replace(finished, resume=resume))


def test_enhanced_head_attention_and_class_weights_train(tiny):
    """The parts of the origin document work together on a small backbone."""
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
def test_a_resumed_run_equals_an_uninterrupted_one(tiny, once, change):
    """With every option, two epochs with or without an interruption give bit-identical weights."""
    parts = replace(tiny, **change)
    uninterrupted = once(parts)
    stop_after(parts, steps=4)
    assert states_equal(uninterrupted, run(replace(parts, resume=True)))


def test_tensorboard_logs_every_epoch(tiny):
    """One event file with loss, accuracy and recalls."""
    folder = run(replace(tiny, tensorboard=True)).parent / "tensorboard"
    events = EventAccumulator(str(folder)).Reload()
    assert {"train/loss", "valid/accuracy", "valid recall/fear"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("valid/accuracy")] == [0, 1]


def test_accumulated_steps_equal_one_large_step(tiny):
    """Without BatchNorm's batch statistics, four small batches update the weights like one large one."""
    deterministic = {"mode": "features", "augment": "none", "dropout": 0.0, "clip": 1e9}
    config = replace(tiny, **deterministic, optimizer="sgd", precision="fp32", epochs=1, warmup_epochs=0.0)
    large = load_file(run(replace(config, batch_size=120)))
    small = load_file(run(replace(config, batch_size=30, accumulate=4, out=f"{tiny.out}-small")))
    assert large["head.1.weight"].numpy() == pytest.approx(small["head.1.weight"].numpy(), abs=1e-6)


def test_fp16_without_cuda_is_refused(tiny):
    """It is not silently replaced by bf16."""
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(UsageError, match="fp16 needs a CUDA device"):
        run(replace(tiny, precision="fp16"))


def test_the_enhanced_recipe_follows_the_origin_document():
    """All of its numbers and techniques; only this recipe has vertical flips."""
    settings = vars(RECIPES["enhanced"])
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
    assert {name: settings[name] for name in document} == document
    assert settings["accumulate"] > 1
    assert settings["clip"] > 0
    assert settings["patience"] > 0
    assert not any(RECIPES[name].vertical_flips for name in ("edge", "demo"))
