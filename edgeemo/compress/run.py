"""The compress stage: a run folder → ONNX files with cards, and a comparison of every step on the same faces."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from edgeemo.artifact import check_writable, write_json, written
from edgeemo.card import Card, card_path, label_set_of, write_card
from edgeemo.compress import calibrate, precision
from edgeemo.compress.calibrate import CalibrationList
from edgeemo.compress.compare import Stage, against, answers, comparison, judge, table
from edgeemo.compress.prune import IMPORTANCE, MAX_SHARE, Size, prune, size_of
from edgeemo.compress.quantize import FLAVOURS, METHODS, quantize
from edgeemo.data import Faces, load
from edgeemo.data.faces import LICENCES, kind_of
from edgeemo.errors import UsageError, known
from edgeemo.export import to_onnx
from edgeemo.history import entry
from edgeemo.labels import LabelSet
from edgeemo.machine import usable_cores
from edgeemo.metrics import Scores, fit_temperature, scores, softmax
from edgeemo.stages import Compress, Train, check_ranges
from edgeemo.train import checkpoint, weights
from edgeemo.train.fit import fit, predict_logits
from edgeemo.train.network import EmotionNet, widths_of

__all__ = ["run", "table"]
log = logging.getLogger(__name__)
ORIGINAL, FLOAT = "original.float.onnx", "model.float.onnx"
COMPARISON = "comparison.json"
CALIBRATION = "calibration.json"
WARMUP_EPOCHS = 0.2  # the weights that pruning left are trained; they need no long start


@dataclass(frozen=True)
class Job:
    """What every step of one compression needs to know."""

    config: Compress
    trained: Train  # how the network was trained, with the data of this run
    labels: LabelSet
    valid: Faces
    calibration: tuple[CalibrationList, Faces] | None  # None: stay in float
    out: Path
    threads: int

    def faces(self, split: str, card: Card) -> Faces:
        """The labelled faces of a split, as the network was trained on them."""
        return load(self.trained.data, split, self.labels, contract=card.input, protocol=self.trained.protocol)


@dataclass(frozen=True)
class Made:
    """A model file that was just written and not judged yet."""

    name: str  # of its row in the comparison
    step: str  # of its line in the card's history
    path: Path
    card: Card
    parent: str  # sha256 of the file it was made from
    size: Size
    start: float  # perf_counter when making it began


def run(config: Compress) -> Path:
    """Compress as configured; returns the path of the last model. Beside it lies comparison.json."""
    _check(config)
    network, card = weights.load(Path(config.run))
    job = _job(config, card)
    _clear(job.out)
    stages = []
    if config.prune:
        stages.append(_exported(job, network, card, "original", ORIGINAL))
        network, card = _pruned(job, network, card)
    stages.append(_exported(job, network, card, "pruned" if config.prune else "float", FLOAT))
    if job.calibration:
        stages.append(_quantized(job, stages[-1], *job.calibration))
    found = comparison(stages, job.valid, data=kind_of(job.trained.data), protocol=job.trained.protocol)
    write_json(job.out / COMPARISON, found)
    return stages[-1].path


def _clear(out: Path) -> None:
    """Remove what an earlier compression left: its files beside ours would look like steps of one model."""
    check_writable(out)
    int8 = [f"model.{flavour.suffix}" for flavour in FLAVOURS.values()]
    models = [out / name for name in (ORIGINAL, FLOAT, weights.MODEL, *int8)]
    for old in (*models, *map(card_path, models), out / COMPARISON, out / CALIBRATION):
        old.unlink(missing_ok=True)
    checkpoint.remove(out)  # of a recovery that was stopped: it would outlive the younger ones of the next


def _check(config: Compress) -> None:
    """UsageError for a setting that cannot be meant, before any face is read."""
    if not config.run:
        raise UsageError("compress needs the run folder of a training.  Make one:  edgeemo train --recipe demo")
    ranges: dict[str, tuple[bool, str]] = {
        "prune": (0 <= config.prune <= MAX_SHARE, f"a share of channels, 0 to {MAX_SHARE:g}"),
        "round_to": (config.round_to >= 1, "1 or more channels"),
        "epochs": (config.epochs >= 0, "0 or more epochs"),
        "lr": (config.lr > 0, "a learning rate above 0"),
        "min_int8_share": (0 <= config.min_int8_share <= 1, "a share of the multiply-adds, 0 to 1"),
        "threads": (config.threads >= 0, "0 (all cores) or more"),
        "seed": (config.seed >= 0, "0 or more"),
        "calibration_count": (config.calibration_count >= 1, "1 or more faces"),
    }
    check_ranges(config, ranges)
    for name, names in (("importance", IMPORTANCE), ("flavour", FLAVOURS), ("method", METHODS)):
        if getattr(config, name) not in names:
            raise known(name, getattr(config, name), names)
    if config.out and Path(config.out).resolve() == Path(config.run).resolve():
        raise UsageError(f"--out {config.out} is the run folder itself; its model would be overwritten. Choose another")


def _job(config: Compress, card: Card) -> Job:
    threads = config.threads or len(usable_cores())
    torch.set_num_threads(threads)
    trained = weights.trained(Path(config.run), card, data=config.data)
    labels = label_set_of(card)
    calibration = _calibration(config, trained, labels, card) if config.int8 else None
    valid = load(trained.data, "valid", labels, contract=card.input, protocol=trained.protocol)
    if valid.fingerprint != card.data.get("valid", {}).get("ids_sha256"):
        log.warning("%s: not the valid faces of the training; do not compare with its accuracy", trained.data)
    out = Path(config.out or Path(config.run) / "compressed")
    return Job(config, trained, labels, valid, calibration, out, threads)


def _calibration(config: Compress, trained: Train, labels: LabelSet, card: Card) -> tuple[CalibrationList, Faces]:
    """The list, given or drawn, and its faces: read before hours of recovery, because a list can be wrong."""
    if config.calibration:
        chosen = calibrate.read(Path(config.calibration))
    else:
        log.info("no --calibration list: drawing %d train faces, seed %d", config.calibration_count, config.seed)
        how = {"count": config.calibration_count, "seed": config.seed}
        chosen = calibrate.draw(trained.data, labels, protocol=trained.protocol, **how)
    return chosen, calibrate.faces(chosen, trained.data, card.input)


def _pruned(job: Job, network: EmotionNet, card: Card) -> tuple[EmotionNet, Card]:
    """Prune, recover and save; returns what was saved, read back from its file."""
    start, config = perf_counter(), job.config
    before, train = size_of(network, card.input), job.faces("train", card)
    network = prune(
        network, card.input, share=config.prune, round_to=config.round_to, importance=config.importance, train=train
    )
    after = size_of(network, card.input)
    hurt = _accuracy(network, job, card)
    log.info(
        "pruned %d to %d parameters, %.1f to %.1f million multiply-adds; valid %.2f %% before recovery",
        *(before.parameters, after.parameters, before.macs / 1e6, after.macs / 1e6, 100 * hurt),
    )
    network, _ = fit(
        network, train, job.valid, config=_recovery(job), labels=card.labels, contract=card.input, folder=job.out
    )
    checkpoint.remove(job.out)  # a recovery is not resumed
    logits = predict_logits(network, job.valid, card.input)
    temperature = fit_temperature(logits, job.valid.truth)
    recovered = scores(softmax(logits, temperature=temperature), job.valid.truth, card.labels)
    measured = {"before": vars(before), "after": vars(after), "accuracy_before_recovery": hurt}
    saved = card.after(
        entry("prune", config, seconds=perf_counter() - start, parent=card.sha256, **measured),
        architecture={**card.architecture, "widths": widths_of(network)},
        temperature=temperature,
        metrics=_metrics(job, card, recovered),
        **_recovered_on(job, card, train),
    )
    weights.save(network, saved, job.out)
    return weights.load(job.out)


def _recovery(job: Job) -> Train:
    """The training's own recipe at a low rate; too short for a moving average or a choice of epochs on valid."""
    config = job.config
    return replace(
        job.trained,
        out=str(job.out),
        epochs=config.epochs,
        classifier_lr=config.lr,
        backbone_lr=config.lr,
        warmup_epochs=WARMUP_EPOCHS,
        schedule="cosine",
        mode="finetune",
        patience=0,
        ema=0.0,
        threads=job.threads,
        seed=config.seed,
        resume=False,
    )


def _accuracy(network: EmotionNet, job: Job, card: Card) -> float:
    return scores(softmax(predict_logits(network, job.valid, card.input)), job.valid.truth, card.labels).accuracy


def _exported(job: Job, network: EmotionNet, card: Card, name: str, file: str) -> Stage:
    """The float ONNX of a network, judged."""
    start, path = perf_counter(), job.out / file
    form = to_onnx(network, replace(card, precision={"asked": "float32", "got": "float32"}), path)
    size = size_of(network, card.input)
    return _judged(job, Made(name, "export", path, form, card.sha256, size, start))


def _quantized(job: Job, source: Stage, chosen: CalibrationList, faces: Faces) -> Stage:
    """The INT8 ONNX of a float stage, judged; IntegrityError if too little of it is in integers."""
    start, config = perf_counter(), job.config
    path = job.out / f"model.{FLAVOURS[config.flavour].suffix}"
    with written(path) as partial:
        quantize(source.path, partial, faces, source.card.input, flavour=config.flavour, method=config.method)
        found = precision.truth(partial, flavour=config.flavour)
        precision.check(found, least=config.min_int8_share)
    calibrate.write(chosen, job.out / CALIBRATION)
    log.info("%s: %.1f %% of the multiply-adds in integers", path.name, 100 * found["int8_share_of_macs"])
    got = "int8" if config.flavour == "cpu" else "int8 in the file"  # TensorRT may still choose otherwise
    form = {"asked": "int8", "got": got, "flavour": config.flavour, "method": config.method}
    card = replace(source.card, precision={**form, "calibration": chosen.header(), **found})
    return _judged(job, Made("int8", "quantize", path, card, source.card.sha256, source.size, start), source)


def _judged(job: Job, made: Made, source: Stage | None = None) -> Stage:
    """Ask the file through the runtime, fit its temperature on valid and seal its card; tested against `source`."""
    write_card(made.path, made.card)
    logits = answers(made.path, job.valid, threads=job.threads)
    card = replace(made.card, temperature=fit_temperature(logits, job.valid.truth))
    stage = judge(made.name, made.path, card, made.size, logits, job.valid)
    result = {"accuracy": stage.scores.accuracy, "n": stage.scores.n, **vars(made.size)}
    if source:
        result["against_source"] = against(source, stage, job.valid.truth)
    line = entry(made.step, job.config, seconds=perf_counter() - made.start, parent=made.parent, **result)
    sealed = write_card(made.path, card.after(line, metrics=_metrics(job, card, stage.scores)))
    return replace(stage, card=sealed)


def _metrics(job: Job, card: Card, result: Scores) -> dict[str, Any]:
    """What a card says was measured. The temperature was fitted on these faces, so ece flatters a little."""
    chosen = card.metrics.get("valid", {}).get("selected_on_valid", False)
    faces = {"data": kind_of(job.trained.data), "ids_sha256": job.valid.fingerprint, "protocol": job.trained.protocol}
    about = {**faces, "selected_on_valid": chosen, "temperature_fitted_on": "valid"}
    return {"valid": {**about, **result.to_dict()}}


def _recovered_on(job: Job, card: Card, train: Faces) -> dict[str, Any]:
    """The card's account of faces, with those of the recovery where they are others than the training's."""
    if train.fingerprint == card.data.get("train", {}).get("ids_sha256"):
        return {}
    kind = kind_of(job.trained.data)
    about = {"kind": kind, "n": len(train), "ids_sha256": train.fingerprint}
    licences = {**card.licences, "recovery faces": LICENCES[kind]}
    return {"data": {**card.data, "recovery": about}, "licences": licences}
