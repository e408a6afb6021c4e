"""The train stage: from labelled faces to a run folder with model, card, learning curves, confusion matrix and log."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from edgeemo import options
from edgeemo.artifact import check_writable, lock_folder, write_json
from edgeemo.card import (
    Architecture,
    Card,
    Data,
    FaceList,
    InputContract,
    Licences,
    Metrics,
    Precision,
    card_path,
    from_json,
    read_card,
)
from edgeemo.card.history import make_entry
from edgeemo.data import faces as data
from edgeemo.data.cache import Cache, list_faces
from edgeemo.errors import UsageError
from edgeemo.labels import LabelSet, label_set
from edgeemo.machine import is_first_process, usable_cores
from edgeemo.metrics import Scores, fit_temperature, scores, softmax
from edgeemo.stages import Train
from edgeemo.train import batches, checkpoint, device, mirror, modes, optim, plots, run_folder, teacher
from edgeemo.train import network as networks
from edgeemo.train.fit import TrainingData, fit, predict_logits
from edgeemo.train.network import EmotionNet

log = logging.getLogger(__name__)


def run(config: Train) -> Path:
    """Train as configured; return the path of model.safetensors in the run folder."""
    _check(config)
    with lock_folder(config.out) if is_first_process() else nullcontext():
        return _run(config)


def _run(config: Train) -> Path:
    labels = label_set(config.label_set)
    teachers = teacher.load_teachers(config.teacher, labels) if config.teacher else []
    contract = networks.contract_for(config.backbone, config.size, gray_faces=data.is_grayscale(config.data))
    network, architecture = _build_network(config, labels)
    cache = Cache.choose(config.cache, config.out)
    train, valid = _load_faces(config, labels, contract, cache)
    terms = replace(_collect_licences(config), teacher=teacher.collect_licences(teachers))
    folder = config.out
    teacher_log_probs = None
    if teachers:
        teacher_log_probs = teacher.predict_views(teachers, config, train, labels=labels, contract=contract)
    training_data = TrainingData(train, valid, labels.labels, contract, teacher_log_probs)
    trained, history = fit(network, training_data, config=config, folder=folder)
    if not is_first_process():
        return folder / run_folder.MODEL
    mirror.untie(trained)
    logits = predict_logits(trained, valid, contract)
    temperature = fit_temperature(logits, valid.truth)
    result = scores(softmax(logits, temperature=temperature), valid.truth, labels.labels)
    card = Card(
        labels=labels.labels,
        label_set=labels.name,
        input=contract,
        architecture=architecture,
        temperature=temperature,
        precision=Precision("float32", actual="float32"),
        metrics={"valid": _describe_metrics(config, valid, result)},
        data=_describe_data(config, train, valid),
        licences=terms,
    )
    seconds = sum(row["seconds"] for row in history)
    entry = make_entry("train", config, seconds=seconds, **teacher.describe_teachers(teachers))
    path = run_folder.save(trained, card.with_entry(entry), folder)
    _save_log_and_plots(folder, config, history, result)
    cache.remove()
    _log_accuracy(config, result)
    return path


def _load_faces(config: Train, labels: LabelSet, contract: InputContract, cache: Cache) -> tuple[data.Faces, ...]:
    """Return the train and the valid faces, which are listed and checked before any is read."""
    batches.check_memory(contract, batch_size=config.batch_size)
    listed = list_faces(config.data, ("train", "valid"), labels, protocol=config.protocol)
    data.check_classes(listed.splits["train"], labels, data=config.data)
    return listed.load(contract, cache=cache, threads=config.threads or len(usable_cores()))


def _check(config: Train) -> None:
    """Raise UsageError for invalid settings, before any face is read."""
    options.check(config)
    _check_folder(config.out, resume=config.resume)
    mirror.check(config)
    modes.check(config)
    optim.check(config)
    device.check(config)


def _check_folder(folder: Path, *, resume: bool) -> None:
    checkpoints = checkpoint.list_checkpoints(folder)
    if checkpoints and not resume:
        raise UsageError(f"{folder} already holds a run; continue it with --resume, or choose another --out")
    if (folder / run_folder.MODEL).exists() and not checkpoints:
        raise UsageError(
            f"{folder} holds a finished {run_folder.MODEL} without checkpoints, which would be overwritten; "
            "choose another --out"
        )
    check_writable(folder)


def _build_network(config: Train, labels: LabelSet) -> tuple[EmotionNet, Architecture]:
    architecture = networks.describe(
        config.backbone,
        labels=len(labels.labels),
        head=config.head,
        attention=config.attention,
        dropout=config.dropout,
    )
    torch.manual_seed(config.seed)
    network = networks.build(architecture, weights=config.weights)
    if config.mirror:
        mirror.tie(network.backbone)
    return network, architecture


def _describe_metrics(config: Train, valid: data.Faces, result: Scores) -> Metrics:
    """Which faces evaluated, and what was chosen on them before; the temperature always is."""
    about = {
        "data": data.kind_of(config.data),
        "ids_sha256": valid.fingerprint,
        "protocol": config.protocol,
        "selected_on_valid": bool(config.patience),
        "temperature_fitted_on": "valid",
    }
    return from_json(Metrics, {**about, **result.to_dict()})


def _describe_data(config: Train, train: data.Faces, valid: data.Faces) -> Data:
    seen, watched = (FaceList(len(side), side.fingerprint) for side in (train, valid))
    return Data(data.kind_of(config.data), config.protocol, train=seen, valid=watched)


def _collect_licences(config: Train) -> Licences:
    start = {"none": "trained from scratch", "imagenet": networks.backbone(config.backbone).terms}
    return Licences(
        code="MIT",
        faces=data.LICENCES[data.kind_of(config.data)],
        initial_weights=start.get(config.weights) or _read_terms(Path(config.weights)),
    )


def _read_terms(file: Path) -> str:
    """Return the licences in the card of a weights file, if it is a model of edgeemo."""
    if not card_path(file).is_file():
        return "from a file given by the trainer"
    terms = "; ".join(f"{what}: {text}" for what, text in read_card(file).licences.list_terms().items())
    return f"from another model ({terms})"


def _save_log_and_plots(folder: Path, config: Train, history: list[dict[str, Any]], result: Scores) -> None:
    write_json(folder / run_folder.LOG, {"config": options.settings(config), "epochs": history})
    plots.plot_curves(history, folder / "curves.png", target=config.target_accuracy)
    title = f"{data.kind_of(config.data)} valid, {config.protocol}, n = {result.n}: {100 * result.accuracy:.2f} %"
    plots.plot_confusion(result, folder / "confusion.png", title=title)


def _log_accuracy(config: Train, result: Scores) -> None:
    accuracy, target = 100 * result.accuracy, config.target_accuracy
    verdict = "reached" if accuracy >= target else f"missed by {target - accuracy:.2f} points"
    log.info(
        "validation accuracy %.2f %% (95 %% interval %.2f to %.2f, n = %d, %s): target %g %% %s",
        *(accuracy, 100 * result.accuracy_low, 100 * result.accuracy_high, result.n, config.protocol, target, verdict),
    )
