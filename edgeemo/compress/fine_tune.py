"""The steps of a compression that train: fine-tuning after pruning or at another input size, and QAT.

Each training has its own folder of checkpoints, which are kept until the last file is written: a resumed run goes
through all steps again, and finished ones take no time.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from edgeemo import resume
from edgeemo.artifact import write_json
from edgeemo.card import Card, Metrics, Recovery, from_json
from edgeemo.card.history import make_entry
from edgeemo.compress.plan import Job
from edgeemo.compress.prune.channels import measure_size, prune
from edgeemo.compress.quantize.qat import FakeQuantizedNetwork
from edgeemo.data import Faces
from edgeemo.data.faces import LICENCES, kind_of
from edgeemo.errors import UsageError
from edgeemo.metrics import Scores, fit_temperature, scores, softmax
from edgeemo.resume import COMPRESSION
from edgeemo.resume import FINE_TUNING as FOLDER
from edgeemo.stages import Compress, Train
from edgeemo.train import checkpoint, run_folder, teacher
from edgeemo.train.fit import TrainingData, fit, predict_logits
from edgeemo.train.network import EmotionNet, widths_of
from edgeemo.train.prior import find_prior

log = logging.getLogger(__name__)
WARMUP_EPOCHS = 0.2  # already trained: a short warm-up is enough
# Settings that determine the network to fine-tune.
IDENTITY_SETTINGS = ("size", "prune", "prune_steps", "importance", "ranking", "round_to")


def check_interrupted(config: Compress, out: Path) -> None:
    """Raise UsageError if `out` has checkpoints that would be lost: without --resume, or of steps not requested now."""
    started = sorted(folder.name for folder in (out / FOLDER).glob("*") if checkpoint.list_checkpoints(folder))
    if started and not config.resume:
        raise UsageError(
            f"{out} contains an interrupted compression; continue it with the same command and --resume, or choose "
            "another --out"
        )
    if others := [name for name in started if name not in _list_trainings(config)]:
        raise UsageError(
            f"{out / FOLDER} has checkpoints of {', '.join(others)}, which this command does not include; repeat the "
            "original command with --resume, or choose another --out"
        )


def _list_trainings(config: Compress) -> list[str]:
    """List the folders of the trainings of a compression, in order."""
    prune_steps = [f"prune-{step}" for step in range(1, config.prune_steps + 1)] if config.prune else []
    resize = ["resize"] if config.size and not config.prune else []
    return [*resize, *prune_steps, *(["tune"] if config.qat else [])] if config.epochs else []


def store_settings(config: Compress, out: Path) -> None:
    """Store the settings of a compression that trains, for `--resume` alone."""
    if _list_trainings(config):
        write_json(out / COMPRESSION, resume.describe(config, out))


def remove_checkpoints(out: Path) -> None:
    """Remove the checkpoints and stored settings in `out`, and their folders if these are empty then."""
    (out / COMPRESSION).unlink(missing_ok=True)
    for folder in (out / FOLDER).glob("*"):
        checkpoint.remove(folder)
        _remove_if_empty(folder)
    _remove_if_empty(out / FOLDER)


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def prune_in_steps(job: Job, network: EmotionNet, card: Card) -> tuple[EmotionNet, Card]:
    """Prune in steps, fine-tune after each, and save; return network and card as loaded from the file."""
    config = job.config
    before, original = measure_size(network, card.input), widths_of(network)
    accuracies: list[float] = []  # after each step, before fine-tuning
    rows: list[dict[str, Any]] = []  # one per epoch of fine-tuning
    for step in range(1, config.prune_steps + 1):
        share = 1 - (1 - config.prune) ** (step / config.prune_steps)
        widths = widths_of(network)
        network = prune(network, card.input, plan=replace(job.plan, share=share), train=job.train, original=original)
        if widths_of(network) == widths:
            continue  # every width rounds to its current value; the next step prunes more, and gets the epochs of both
        accuracies.append(_measure_accuracy(network, job, card))
        accuracy = 100 * accuracies[-1]
        log.info("pruned %.0f %% of the channels: valid %.2f %% before fine-tuning", 100 * share, accuracy)
        done = len(rows)
        epochs = ceil(config.epochs * step / config.prune_steps) - done
        if epochs:
            settings = replace(job.recipe, epochs=epochs)
            earlier = {"epochs before": done} if done else {}
            network, history = _fine_tune(
                job, network, settings, name=f"prune-{step}", extra_identity=earlier, first_epoch=done
            )
            rows += history
    if widths_of(network) == original:
        raise UsageError(
            f"--prune {config.prune:g} with --round-to {config.round_to} removes no channel: every width is "
            "rounded to its current value. Prune more, or use a smaller --round-to"
        )
    if len(rows) < config.epochs:
        log.info("the last pruning steps removed nothing: %d of %d epochs of fine-tuning", len(rows), config.epochs)
    after = measure_size(network, card.input)
    log.info(
        "pruned %d to %d parameters, %.1f to %.1f million multiply-adds",
        *(before.parameters, after.parameters, before.macs / 1e6, after.macs / 1e6),
    )
    measured = {"before": vars(before), "after": vars(after), "accuracy_before_recovery": accuracies}
    return _save(job, network, card, "prune", rows, measured)


def fine_tune_at_size(job: Job, network: EmotionNet, card: Card) -> tuple[EmotionNet, Card]:
    """Fine-tune at the requested input size, and save; return network and card as loaded from the file."""
    before = _measure_accuracy(network, job, card)
    network, history = _fine_tune(job, network, job.recipe, name="resize")
    return _save(job, network, card, "resize", history, {"accuracy_before_recovery": before})


def fine_tune_for_int8(job: Job, network: EmotionNet, card: Card) -> tuple[EmotionNet, Card]:
    """Fine-tune with fake quantization, and save the float network; return it and its card as loaded from the file."""
    config = job.config
    # For both target formats, the coarser steps of TensorRT: weights that tolerate them tolerate finer ones too.
    settings: dict[str, Any] = {"target_format": job.target_formats[-1], "reduce_range": config.reduce_range}
    quantized = FakeQuantizedNetwork(network, **settings)
    quantized.calibrate(job.calibration_faces, card.input)
    before = _measure_accuracy(quantized, job, card)
    # Half-precision autocast would round to about as few steps as INT8.
    recipe = replace(job.recipe, classifier_lr=config.qat_lr, backbone_lr=config.qat_lr, precision="fp32")
    identity = {"calibration": job.calibration_faces.fingerprint, **settings}
    on_epoch_start = quantized.make_epoch_hook(config.epochs)
    quantized, history = _fine_tune(
        job, quantized, recipe, name="tune", extra_identity=identity, on_epoch_start=on_epoch_start
    )
    measured = {"simulated_accuracy_before": before, "simulated_accuracy_after": history[-1]["accuracy"]}
    return _save(job, quantized.to_float().eval(), card, "tune", history, measured)


def _fine_tune(
    job: Job, network: Any, recipe: Train, *, name: str, extra_identity: dict[str, Any] | None = None, **kwargs: Any
) -> tuple[Any, list[dict[str, Any]]]:
    """Train for `recipe.epochs`; return the network and a row per epoch. `name` is that of the folder."""
    data = TrainingData(job.train, job.valid, job.card.labels, job.card.input, job.teacher_log_probs)
    warmup = min(WARMUP_EPOCHS, recipe.epochs / 2)
    settings = {setting: getattr(job.config, setting) for setting in IDENTITY_SETTINGS}
    identity = {"network": job.card.sha256, **settings, **(extra_identity or {})}
    folder, config = job.out / FOLDER / name, replace(recipe, warmup_epochs=warmup)
    return fit(network, data, config=config, folder=folder, extra_identity=identity, **kwargs)


def _save(
    job: Job, network: EmotionNet, card: Card, step: str, rows: list[dict[str, Any]], measured: dict[str, Any]
) -> tuple[EmotionNet, Card]:
    logits = predict_logits(network, job.valid, card.input)
    temperature = fit_temperature(logits, job.valid.truth)
    result = scores(softmax(logits, temperature=temperature), job.valid.truth, card.labels)
    measured = {**measured, **teacher.describe_teachers(job.teachers)}
    saved = card.with_entry(
        make_entry(step, job.config, seconds=sum(row["seconds"] for row in rows), parent=card.sha256, **measured),
        architecture=replace(card.architecture, widths=widths_of(network)),
        temperature=temperature,
        metrics=make_metrics(job, card, result),
        **_describe_data(job, card, job.train, teacher.collect_licences(job.teachers)),
    )
    run_folder.save(network, saved, job.out)
    return run_folder.load(job.out)


def make_metrics(job: Job, card: Card, result: Scores) -> dict[str, Metrics]:
    """Return the metrics of a card. The temperature was fitted on the same faces, so ece is slightly optimistic."""
    selected = "valid" in card.metrics and card.metrics["valid"].selected_on_valid
    faces = {"data": kind_of(job.recipe.data), "ids_sha256": job.valid.fingerprint, "protocol": job.recipe.protocol}
    about = {**faces, "selected_on_valid": selected, "temperature_fitted_on": "valid"}
    return {"valid": from_json(Metrics, {**about, **result.to_dict()})}


def _measure_accuracy(network: EmotionNet, job: Job, card: Card) -> float:
    logits: np.ndarray = predict_logits(network, job.valid, card.input)
    return scores(softmax(logits), job.valid.truth, card.labels).accuracy


def _describe_data(job: Job, card: Card, train: Faces, inherited: str | None) -> dict[str, Any]:
    """Return the sections of the card on data and licences, with the faces of the fine-tuning if these differ.

    The prior is that of the last training.
    """
    licences = replace(card.licences, teacher=inherited or card.licences.teacher)
    weighting = {"sampler": job.recipe.sampler, "class_weights": job.recipe.class_weights}
    data = card.data and replace(card.data, prior=find_prior(train.truth, card.labels, **weighting))
    if card.data and train.fingerprint == card.data.train.ids_sha256:
        return {"data": data, "licences": licences}
    kind = kind_of(job.recipe.data)
    recovery = Recovery(kind, len(train), train.fingerprint)
    data = data and replace(data, recovery=recovery)
    return {"data": data, "licences": replace(licences, recovery_faces=LICENCES[kind])}
