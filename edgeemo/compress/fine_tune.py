"""The steps of a compression that train: pruning with its recovery, and tuning for INT8.

Each training has a folder of its own for its checkpoints, and they stay until the last file is written: who resumes
goes through the steps again, and those that had ended take no time.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from edgeemo.card import Card, Metrics, Recovery, from_json
from edgeemo.card.history import entry
from edgeemo.compress.plan import Job
from edgeemo.compress.prune.channels import prune, size_of
from edgeemo.compress.quantize.tune import Simulated
from edgeemo.data import Faces
from edgeemo.data.faces import LICENCES, kind_of
from edgeemo.errors import UsageError
from edgeemo.metrics import Scores, fit_temperature, scores, softmax
from edgeemo.stages import Compress, Train
from edgeemo.train import checkpoint, run_folder, teacher
from edgeemo.train.fit import TrainingData, fit, predict_logits
from edgeemo.train.network import EmotionNet, widths_of

log = logging.getLogger(__name__)
WARMUP_EPOCHS = 0.2  # weights that have learned need no long start
FOLDER = "learning"  # in the folder of the results
SHAPING = ("size", "prune", "prune_steps", "importance", "ranking", "round_to")  # settings that decide what recovers


def check_begun(config: Compress, out: Path) -> None:
    """UsageError if `out` holds checkpoints that would be lost: of what is not to go on, or is no part of it."""
    begun = sorted(folder.name for folder in (out / FOLDER).glob("*") if checkpoint.list_checkpoints(folder))
    if begun and not config.resume:
        raise UsageError(
            f"{out} holds a compression that did not end; go on with the same command and --resume, or choose "
            "another --out"
        )
    if strange := [name for name in begun if name not in _trainings(config)]:
        raise UsageError(
            f"{out / FOLDER} holds checkpoints of {', '.join(strange)}, which is no part of what was asked now; repeat "
            "the command that began it, with --resume, or choose another --out"
        )


def _trainings(config: Compress) -> list[str]:
    """The folders of the trainings of a compression, in their order."""
    pruned = [f"prune-{step}" for step in range(1, config.prune_steps + 1)] if config.prune else []
    resized = ["resize"] if config.size and not config.prune else []
    return [*resized, *pruned, *(["tune"] if config.qat else [])] if config.epochs else []


def remove_checkpoints(out: Path) -> None:
    """Remove the checkpoints in `out`, and their folders where nothing else lies in them."""
    for folder in (out / FOLDER).glob("*"):
        checkpoint.remove(folder)
        _remove_if_empty(folder)
    _remove_if_empty(out / FOLDER)


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def prune_in_steps(job: Job, network: EmotionNet, card: Card) -> tuple[EmotionNet, Card]:
    """Prune in steps, recover after each and save; returns what was saved, read back from its file."""
    config = job.config
    before, original = size_of(network, card.input), widths_of(network)
    hurt: list[float] = []  # accuracy after each cut
    rows: list[dict[str, Any]] = []  # one per epoch of recovery
    for step in range(1, config.prune_steps + 1):
        share = 1 - (1 - config.prune) ** (step / config.prune_steps)
        widths = widths_of(network)
        network = prune(network, card.input, plan=replace(job.plan, share=share), train=job.train, original=original)
        if widths_of(network) == widths:
            continue  # every width rounds to what it is; the next step goes further, and recovers for both
        hurt.append(_accuracy(network, job, card))
        log.info("pruned %.0f %% of the channels: valid %.2f %% before recovery", 100 * share, 100 * hurt[-1])
        done = len(rows)
        epochs = ceil(config.epochs * step / config.prune_steps) - done
        if epochs:
            settings = replace(job.trained, epochs=epochs)
            name, came = f"prune-{step}", {"epochs before": done} if done else {}
            network, history = _recovered(job, network, settings, name=name, extra_identity=came, first_epoch=done)
            rows += history
    if widths_of(network) == original:
        raise UsageError(
            f"--prune {config.prune:g} with --round-to {config.round_to} removes no channel: every width rounds to "
            "what it was. Prune more, or round to less"
        )
    if len(rows) < config.epochs:
        log.info("the last steps of pruning removed nothing: %d of %d epochs of recovery", len(rows), config.epochs)
    after = size_of(network, card.input)
    log.info(
        "pruned %d to %d parameters, %.1f to %.1f million multiply-adds",
        *(before.parameters, after.parameters, before.macs / 1e6, after.macs / 1e6),
    )
    measured = {"before": vars(before), "after": vars(after), "accuracy_before_recovery": hurt}
    return _saved(job, network, card, "prune", rows, measured)


def fine_tune_at_size(job: Job, network: EmotionNet, card: Card) -> tuple[EmotionNet, Card]:
    """Train on at the input size that was asked, and save; returns what was saved, read back from its file."""
    before = _accuracy(network, job, card)
    network, history = _recovered(job, network, job.trained, name="resize")
    return _saved(job, network, card, "resize", history, {"accuracy_before_recovery": before})


def fine_tune_for_int8(job: Job, network: EmotionNet, card: Card) -> tuple[EmotionNet, Card]:
    """Train with simulated INT8, save the float network that came of it; returns it, read back from its file."""
    config = job.config
    # For both target formats the coarser steps of TensorRT's: what bears them bears the finer ones too.
    form: dict[str, Any] = {"target_format": job.target_formats[-1], "reduce_range": config.reduce_range}
    simulated = Simulated(network, **form)
    simulated.calibrate(job.calibration_faces, card.input)
    untuned = _accuracy(simulated, job, card)
    # Half-precision autocast would round to about as few steps as INT8 has.
    settings = replace(job.trained, classifier_lr=config.qat_lr, backbone_lr=config.qat_lr, precision="fp32")
    calibrated = {"calibration": job.calibration_faces.fingerprint, **form}
    on_epoch_start = simulated.each_epoch(config.epochs)
    simulated, history = _recovered(
        job, simulated, settings, name="tune", extra_identity=calibrated, on_epoch_start=on_epoch_start
    )
    measured = {"simulated_accuracy_before": untuned, "simulated_accuracy_after": history[-1]["accuracy"]}
    return _saved(job, simulated.real().eval(), card, "tune", history, measured)


def _recovered(
    job: Job, network: Any, settings: Train, *, name: str, extra_identity: dict[str, Any] | None = None, **how: Any
) -> tuple[Any, list[dict[str, Any]]]:
    """The network after `settings.epochs`, and their rows; `name` is that of its folder."""
    data = TrainingData(job.train, job.valid, job.card.labels, job.card.input, job.teacher_log_probs)
    warmup = min(WARMUP_EPOCHS, settings.epochs / 2)
    shaped = {setting: getattr(job.config, setting) for setting in SHAPING}
    came = {"network": job.card.sha256, **shaped, **(extra_identity or {})}
    folder, config = job.out / FOLDER / name, replace(settings, warmup_epochs=warmup)
    return fit(network, data, config=config, folder=folder, extra_identity=came, **how)


def _saved(
    job: Job, network: EmotionNet, card: Card, step: str, rows: list[dict[str, Any]], measured: dict[str, Any]
) -> tuple[EmotionNet, Card]:
    logits = predict_logits(network, job.valid, card.input)
    temperature = fit_temperature(logits, job.valid.truth)
    found = scores(softmax(logits, temperature=temperature), job.valid.truth, card.labels)
    measured = {**measured, **teacher.describe_teachers(job.teachers)}
    saved = card.after(
        entry(step, job.config, seconds=sum(row["seconds"] for row in rows), parent=card.sha256, **measured),
        architecture=replace(card.architecture, widths=widths_of(network)),
        temperature=temperature,
        metrics=metrics(job, card, found),
        **_learned_on(job, card, job.train, teacher.collect_licences(job.teachers)),
    )
    run_folder.save(network, saved, job.out)
    return run_folder.load(job.out)


def metrics(job: Job, card: Card, result: Scores) -> dict[str, Metrics]:
    """What a card says was measured. The temperature was fitted on these faces, so ece flatters a little."""
    chosen = "valid" in card.metrics and card.metrics["valid"].selected_on_valid
    faces = {"data": kind_of(job.trained.data), "ids_sha256": job.valid.fingerprint, "protocol": job.trained.protocol}
    about = {**faces, "selected_on_valid": chosen, "temperature_fitted_on": "valid"}
    return {"valid": from_json(Metrics, {**about, **result.to_dict()})}


def _accuracy(network: EmotionNet, job: Job, card: Card) -> float:
    logits: np.ndarray = predict_logits(network, job.valid, card.input)
    return scores(softmax(logits), job.valid.truth, card.labels).accuracy


def _learned_on(job: Job, card: Card, train: Faces, inherited: str | None) -> dict[str, Any]:
    """The card's account of faces and terms, with those of the recovery where they are others than the training's."""
    licences = replace(card.licences, teacher=inherited or card.licences.teacher)
    if card.data and train.fingerprint == card.data.train.ids_sha256:
        return {"licences": licences}
    kind = kind_of(job.trained.data)
    recovery = Recovery(kind, len(train), train.fingerprint)
    data = card.data and replace(card.data, recovery=recovery)
    return {"data": data, "licences": replace(licences, recovery_faces=LICENCES[kind])}
