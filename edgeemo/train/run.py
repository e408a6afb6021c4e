"""The train stage: labelled faces → a run folder with model, card, curves, confusion matrix and log."""

from __future__ import annotations

import logging
from dataclasses import asdict
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from edgeemo.artifact import write_json
from edgeemo.card import Card
from edgeemo.data import faces as data
from edgeemo.errors import UsageError
from edgeemo.history import entry
from edgeemo.labels import label_set
from edgeemo.metrics import Scores, fit_temperature, scores, softmax
from edgeemo.stages import Train
from edgeemo.train import network as networks
from edgeemo.train import plots, weights
from edgeemo.train.fit import CHECKPOINT, fit, predict_logits

log = logging.getLogger(__name__)


def run(config: Train) -> Path:
    """Train as configured; returns the path of model.safetensors in the run folder."""
    start = perf_counter()
    labels = label_set(config.label_set)
    contract = networks.contract_for(config.backbone, config.size)
    folder = Path(config.out)
    _check_folder(folder, config)
    load = partial(data.load, config.data, labels=labels, contract=contract, protocol=config.protocol)
    train, valid = load("train"), load("valid")
    data.check_classes(train, labels, data=config.data)
    torch.manual_seed(config.seed)
    architecture = networks.describe(
        config.backbone,
        labels=len(labels.labels),
        head=config.head,
        attention=config.attention,
        dropout=config.dropout,
    )
    network = networks.build(architecture, weights=config.weights)
    kept, history = fit(network, train, valid, config=config, labels=labels.labels, contract=contract, folder=folder)
    logits = predict_logits(kept, valid, contract)
    temperature = fit_temperature(logits, valid.truth)
    result = scores(softmax(logits, temperature=temperature), valid.truth, labels.labels)
    card = Card(
        labels=labels.labels,
        label_set=labels.name,
        input=contract,
        architecture=architecture,
        temperature=temperature,
        precision={"asked": "float32", "got": "float32"},
        metrics={
            "valid": {"protocol": config.protocol, "selected_on_valid": bool(config.patience), **result.to_dict()}
        },
        data=_about(config, train, valid),
        licences=_licences(config),
    ).after(entry("train", config, seconds=perf_counter() - start))
    path = weights.save(kept, card, folder)
    _leave_pictures(folder, config, history, result)
    _tell(config, result)
    return path


def _check_folder(folder: Path, config: Train) -> None:
    if (folder / CHECKPOINT).exists() and not config.resume:
        raise UsageError(f"{folder} holds a run already; go on with --resume, or choose another --out")


def _about(config: Train, train: data.Faces, valid: data.Faces) -> dict[str, Any]:
    sides = {"train": train, "valid": valid}
    return {
        "kind": data.kind_of(config.data),
        "protocol": config.protocol,
        **{name: {"n": len(side), "ids_sha256": side.fingerprint} for name, side in sides.items()},
    }


def _licences(config: Train) -> dict[str, str]:
    start = {"none": "trained from scratch", "imagenet": "torchvision ImageNet weights (BSD-3; ImageNet terms)"}
    return {
        "code": "MIT",
        "faces": data.LICENCES[data.kind_of(config.data)],
        "initial weights": start.get(config.weights, "from a file given by the trainer"),
    }


def _leave_pictures(folder: Path, config: Train, history: list[dict[str, Any]], result: Scores) -> None:
    write_json(folder / "log.json", {"config": asdict(config), "epochs": history})
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
