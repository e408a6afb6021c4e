"""The train stage: labelled faces → a run folder with model, card, curves, confusion matrix and log."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from edgeemo import options
from edgeemo.artifact import alone_in, check_writable, write_json
from edgeemo.card import (
    Architecture,
    Card,
    Data,
    FaceList,
    Licences,
    Metrics,
    Precision,
    card_path,
    from_json,
    read_card,
)
from edgeemo.data import faces as data
from edgeemo.errors import UsageError
from edgeemo.history import entry
from edgeemo.labels import LabelSet, label_set
from edgeemo.machine import is_first_process
from edgeemo.metrics import Scores, fit_temperature, scores, softmax
from edgeemo.stages import Train
from edgeemo.train import checkpoint, mirror, modes, optim, place, plots, teacher, weights
from edgeemo.train import network as networks
from edgeemo.train.fit import Material, fit, predict_logits
from edgeemo.train.network import EmotionNet

log = logging.getLogger(__name__)


def run(config: Train) -> Path:
    """Train as configured; returns the path of model.safetensors in the run folder."""
    _check(config)
    with alone_in(config.out) if is_first_process() else nullcontext():
        return _run(config)


def _run(config: Train) -> Path:
    labels = label_set(config.label_set)
    masters = teacher.check(config.teacher, labels) if config.teacher else []
    contract = networks.contract_for(config.backbone, config.size, gray_faces=data.are_gray(config.data))
    network, architecture = _network(config, labels)
    load = partial(data.load, config.data, labels=labels, contract=contract, protocol=config.protocol)
    train, valid = load("train"), load("valid")
    data.check_classes(train, labels, data=config.data)
    terms = replace(_licences(config), teacher=teacher.licences(masters))
    folder = config.out
    taught = teacher.taught(config, train, labels=labels, contract=contract) if masters else None
    material = Material(train, valid, labels.labels, contract, taught)
    kept, history = fit(network, material, config=config, folder=folder)
    if not is_first_process():
        return folder / weights.MODEL
    mirror.release(kept)
    logits = predict_logits(kept, valid, contract)
    temperature = fit_temperature(logits, valid.truth)
    result = scores(softmax(logits, temperature=temperature), valid.truth, labels.labels)
    card = Card(
        labels=labels.labels,
        label_set=labels.name,
        input=contract,
        architecture=architecture,
        temperature=temperature,
        precision=Precision("float32", actual="float32"),
        metrics={"valid": _metrics(config, valid, result)},
        data=_about(config, train, valid),
        licences=terms,
    ).after(entry("train", config, seconds=sum(row["seconds"] for row in history), **teacher.told_by(masters)))
    path = weights.save(kept, card, folder)
    _leave_pictures(folder, config, history, result)
    _tell(config, result)
    return path


def _check(config: Train) -> None:
    """UsageError for a setting that cannot be meant, before any face is read."""
    options.check(config)
    _check_folder(config.out, resume=config.resume)
    mirror.check(config)
    modes.check(config)
    optim.check(config)
    place.check(config)


def _check_folder(folder: Path, *, resume: bool) -> None:
    begun = checkpoint.in_folder(folder)
    if begun and not resume:
        raise UsageError(f"{folder} holds a run already; go on with --resume, or choose another --out")
    if (folder / weights.MODEL).exists() and not begun:
        raise UsageError(f"{folder} holds a finished {weights.MODEL} and no checkpoint; choose another --out")
    check_writable(folder)


def _network(config: Train, labels: LabelSet) -> tuple[EmotionNet, Architecture]:
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


def _metrics(config: Train, valid: data.Faces, result: Scores) -> Metrics:
    """Which faces evaluated, and what was chosen on them before; the temperature always is."""
    about = {
        "data": data.kind_of(config.data),
        "ids_sha256": valid.fingerprint,
        "protocol": config.protocol,
        "selected_on_valid": bool(config.patience),
        "temperature_fitted_on": "valid",
    }
    return from_json(Metrics, {**about, **result.to_dict()})


def _about(config: Train, train: data.Faces, valid: data.Faces) -> Data:
    seen, watched = (FaceList(len(side), side.fingerprint) for side in (train, valid))
    return Data(data.kind_of(config.data), config.protocol, train=seen, valid=watched)


def _licences(config: Train) -> Licences:
    start = {"none": "trained from scratch", "imagenet": networks.backbone(config.backbone).terms}
    return Licences(
        code="MIT",
        faces=data.LICENCES[data.kind_of(config.data)],
        initial_weights=start.get(config.weights) or _terms_of(Path(config.weights)),
    )


def _terms_of(file: Path) -> str:
    """What a file of weights brings along: the terms in its card, where it is a model of ours."""
    if not card_path(file).is_file():
        return "from a file given by the trainer"
    told = "; ".join(f"{what}: {text}" for what, text in read_card(file).licences.terms().items())
    return f"from another model ({told})"


def _leave_pictures(folder: Path, config: Train, history: list[dict[str, Any]], result: Scores) -> None:
    write_json(folder / weights.LOG, {"config": options.settings(config), "epochs": history})
    plots.curves(history, folder / "curves.png", target=config.target_accuracy)
    title = f"{data.kind_of(config.data)} valid, {config.protocol}, n = {result.n}: {100 * result.accuracy:.2f} %"
    plots.confusion(result, folder / "confusion.png", title=title)


def _tell(config: Train, result: Scores) -> None:
    got, wanted = 100 * result.accuracy, config.target_accuracy
    verdict = "reached" if got >= wanted else f"missed by {wanted - got:.2f} points"
    log.info(
        "valid accuracy %.2f %% (95 %% interval %.2f to %.2f, n = %d, %s): target %g %% %s",
        *(got, 100 * result.accuracy_low, 100 * result.accuracy_high, result.n, config.protocol, wanted, verdict),
    )
