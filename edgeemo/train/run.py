"""The train stage: from labelled faces to a run folder with model, card, learning curves, confusion matrix and log."""

from __future__ import annotations

import logging
import shlex
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from edgeemo import options, resume
from edgeemo.artifact import check_writable, hash_file, lock_folder, write_json
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
from edgeemo.data.unreadable import summarise
from edgeemo.errors import UsageError
from edgeemo.labels import LabelSet, label_set
from edgeemo.machine import is_first_process, usable_cores
from edgeemo.metrics import Scores, fit_temperature, scores, softmax
from edgeemo.names import escape_name
from edgeemo.stages import Train
from edgeemo.train import batches, checkpoint, device, mirror, modes, optim, plots, run_folder, teacher
from edgeemo.train import network as networks
from edgeemo.train.fit import TrainingData, fit, predict_logits
from edgeemo.train.network import EmotionNet
from edgeemo.train.pretrained import check_weights_file
from edgeemo.train.prior import find_prior

log = logging.getLogger(__name__)


def run(config: Train) -> Path:
    """Train as configured; return the path of model.safetensors in the run folder."""
    _check(config)
    if config.resume:
        if run_folder.is_finished(config):
            _log_finished(config)
            return config.out / run_folder.MODEL
        config = run_folder.locate_inputs(config)
    with lock_folder(config.out) if is_first_process() else nullcontext():
        return _run(config)


def _run(config: Train) -> Path:
    labels = label_set(config.label_set)
    teachers = teacher.load_teachers(config.teacher, labels) if config.teacher else []
    contract = networks.contract_for(config.backbone, config.size, gray_faces=data.is_grayscale(config.data))
    contract = replace(contract, crop=data.find_crop(config.data))
    folder = config.out
    goes_on = config.resume and bool(checkpoint.list_checkpoints(folder))
    start = _describe_initial_weights(config, resumed=goes_on)
    network, architecture = _build_network(config, labels, weights="none" if goes_on else config.weights)
    cache = Cache.choose(config.cache, folder)
    train, valid = _load_faces(config, labels, contract, cache)
    terms = Licences(
        code="MIT",
        faces=data.LICENCES[data.kind_of(config.data)],
        initial_weights=start["terms"],
        teacher=teacher.collect_licences(teachers),
    )
    teacher_log_probs = None
    if teachers:
        teacher_log_probs = teacher.predict_views(teachers, config, train, labels=labels, contract=contract)
    training_data = TrainingData(train, valid, labels.labels, contract, teacher_log_probs)
    facts = {
        "initial_weights": start,
        "faces": {"train": _describe_faces(train), "valid": _describe_faces(valid)},
        "unreadable": _describe_unreadable(config),
    }
    if not goes_on:
        _save_log(config, [], facts)
    identity = {"weights": start["weights"], "size": contract.size}
    trained, history = fit(network, training_data, config=config, folder=folder, extra_identity=identity)
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
        data=_describe_data(config, train, valid, labels),
        licences=terms,
    )
    seconds = sum(row["seconds"] for row in history)
    entry = make_entry("train", config, seconds=seconds, **teacher.describe_teachers(teachers))
    path = run_folder.save(trained, card.with_entry(entry), folder)
    _save_log(config, history, facts)
    _save_plots(folder, config, history, result)
    cache.remove()
    _log_accuracy(config, result)
    if len(history) < config.epochs:
        log.info("stopped after %d of %d epochs; %s", len(history), config.epochs, _advise_on_more_epochs(config))
    return path


def _load_faces(config: Train, labels: LabelSet, contract: InputContract, cache: Cache) -> tuple[data.Faces, ...]:
    """Return the train and the valid faces, which are listed and checked before any is read."""
    batches.check_memory(contract, batch_size=config.batch_size)
    selection: dict[str, Any] = {"protocol": config.protocol, "skip_unreadable": config.skip_unreadable}
    listed = list_faces(config.data, ("train", "valid"), labels, **selection)
    data.check_classes(listed.splits["train"], labels, data=config.data)
    return listed.load(contract, cache=cache, threads=config.threads or len(usable_cores()))


def _check(config: Train) -> None:
    """Raise UsageError for invalid settings, before any face is read."""
    options.check(config)
    data.check_outside(config.out, config.data, option="--out")
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


def _build_network(config: Train, labels: LabelSet, *, weights: str) -> tuple[EmotionNet, Architecture]:
    architecture = networks.describe(
        config.backbone,
        labels=len(labels.labels),
        head=config.head,
        attention=config.attention,
        dropout=config.dropout,
    )
    torch.manual_seed(config.seed)
    network = networks.build(architecture, weights=weights)
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


def _describe_data(config: Train, train: data.Faces, valid: data.Faces, labels: LabelSet) -> Data:
    seen, watched = (FaceList(**_describe_faces(side)) for side in (train, valid))
    shares = find_prior(train.truth, labels.labels, sampler=config.sampler, class_weights=config.class_weights)
    return Data(data.kind_of(config.data), config.protocol, train=seen, valid=watched, prior=shares)


def _describe_faces(faces: data.Faces) -> dict[str, Any]:
    return {"n": len(faces), "ids_sha256": faces.fingerprint}


def _describe_unreadable(config: Train) -> dict[str, Any]:
    """Return how many faces of each split were passed over, and the first ones."""
    found = {split: summarise(config.data, split) for split in ("train", "valid")} if config.skip_unreadable else {}
    return {split: asdict(summary) for split, summary in found.items() if summary}


def _describe_initial_weights(config: Train, *, resumed: bool) -> dict[str, str]:
    """Return what identifies the initial weights (imagenet, none or the hash of their file), and their terms.

    A resumed run does not need the file: those of the same path in its log are used.
    """
    log_content = resume.read(config.out / resume.LOG) if resumed else {}
    same = log_content.get("config", {}).get("weights") == resume.make_absolute(config).weights
    if same and (stored := log_content.get("initial_weights")):
        return {"weights": str(stored["weights"]), "terms": str(stored["terms"])}
    if config.weights == "none":
        return {"weights": "none", "terms": "trained from scratch"}
    if config.weights == "imagenet":
        return {"weights": "imagenet", "terms": networks.backbone(config.backbone).terms}
    file = Path(config.weights)
    check_weights_file(file)
    return {"weights": hash_file(file), "terms": _read_terms(file)}


def _read_terms(file: Path) -> str:
    """Return the licences in the card of a weights file, if it is a model of edgeemo."""
    if not card_path(file).is_file():
        return "from a file given by the trainer"
    terms = "; ".join(f"{what}: {text}" for what, text in read_card(file).licences.list_terms().items())
    return f"from another model ({terms})"


def _save_log(config: Train, history: list[dict[str, Any]], facts: dict[str, Any]) -> None:
    """Write the log: settings and facts when the run starts, with a row per epoch when it is finished."""
    if is_first_process():
        file = config.out / resume.LOG
        described = resume.describe(config, config.out, earlier=resume.read(file) if config.resume else None)
        write_json(file, {**described, **facts, "epochs": history})


def _save_plots(folder: Path, config: Train, history: list[dict[str, Any]], result: Scores) -> None:
    plots.plot_curves(history, folder / "curves.png", target=config.target_accuracy)
    title = f"{data.kind_of(config.data)} valid, {config.protocol}, n = {result.n}: {100 * result.accuracy:.2f} %"
    plots.plot_confusion(result, folder / "confusion.png", title=title)


def _log_finished(config: Train) -> None:
    if is_first_process():
        log.warning("%s is finished, nothing is left to resume; %s", config.out, _advise_on_more_epochs(config))


def _advise_on_more_epochs(config: Train) -> str:
    """Return how to train on from the weights of a run, in another one."""
    model = shlex.quote(escape_name(str(config.out / run_folder.MODEL)))
    without = " and without --mirror" if config.mirror else ""  # which only works from scratch
    return (
        f"to train its backbone further, start another run: repeat the command with  --weights {model} --out FOLDER"
        f"{without}"
    )


def _log_accuracy(config: Train, result: Scores) -> None:
    accuracy, target = 100 * result.accuracy, config.target_accuracy
    verdict = "reached" if accuracy >= target else f"missed by {target - accuracy:.2f} points"
    log.info(
        "validation accuracy %.2f %% (95 %% interval %.2f to %.2f, n = %d, %s): target %g %% %s",
        *(accuracy, 100 * result.accuracy_low, 100 * result.accuracy_high, result.n, config.protocol, target, verdict),
    )
