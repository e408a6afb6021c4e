"""What every step of one compression needs to know, and the settings that cannot be meant."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import nn

from edgeemo.card import Card, label_set_of
from edgeemo.compress import calibrate
from edgeemo.compress.calibrate import CalibrationList
from edgeemo.compress.prune import IMPORTANCE, MAX_SHARE, RANKINGS, Plan
from edgeemo.compress.quantize import FLAVOURS
from edgeemo.compress.ranges import METHODS
from edgeemo.data import Faces, load
from edgeemo.errors import UsageError, known
from edgeemo.labels import LabelSet
from edgeemo.machine import usable_cores
from edgeemo.stages import OF_A_TEACHER, Compress, Train, check_idle, check_ranges
from edgeemo.train import teacher, weights

log = logging.getLogger(__name__)
# What decides nothing without another option: by that option, its dependants.
OF_INT8 = (
    *("calibration", "calibration_count", "method", "flavour", "min_int8_share", "min_agreement"),
    *("qat", "reduce_range", "rounding", "layers", "keep_float"),
)
OF_CUTS = ("importance", "round_to")  # of --prune and --sensitivity
OF_PRUNING = ("prune_steps", "ranking")


@dataclass(frozen=True)
class Job:
    """One compression: its settings, the training before it, and the faces."""

    config: Compress
    trained: Train  # how the network was trained, with the data of this run and the teacher of its recovery
    labels: LabelSet
    valid: Faces
    origin: Card  # of the trained network
    card: Card  # the same, with the input size that was asked
    calibration: tuple[CalibrationList, Faces] | None  # None: stay in float
    out: Path
    threads: int

    @cached_property
    def as_trained(self) -> Job:
        """The same job at the input size that the network was trained at."""
        if self.card.input == self.origin.input:
            return self
        data, protocol = self.trained.data, self.trained.protocol
        valid = load(data, "valid", self.labels, contract=self.origin.input, protocol=protocol)
        return replace(self, card=self.origin, valid=valid)

    @cached_property
    def train(self) -> Faces:
        """The labelled train faces, as the network was trained on them."""
        return load(self.trained.data, "train", self.labels, contract=self.card.input, protocol=self.trained.protocol)

    @cached_property
    def taught(self) -> np.ndarray | None:
        """What the teacher told of every view of the train faces, if there is one."""
        if not self.config.teacher:
            return None
        return teacher.taught(self.trained, self.train, labels=self.labels, contract=self.card.input)

    @property
    def calibration_faces(self) -> Faces:
        """The faces of the calibration list; UsageError without one."""
        if not self.calibration:
            raise UsageError("there are no calibration faces without --int8; add it")
        return self.calibration[1]

    @property
    def plan(self) -> Plan:
        """How to prune."""
        config = self.config
        return Plan(config.prune, config.round_to, config.importance, config.ranking)

    @property
    def rounding(self) -> str:
        """How weights become integers: gptq or nearest."""
        if self.config.rounding != "auto":
            return self.config.rounding
        return "nearest" if self.config.qat else "gptq"

    @property
    def flavours(self) -> tuple[str, ...]:
        """The INT8 forms to write."""
        return tuple(FLAVOURS) if self.config.flavour == "both" else (self.config.flavour,)


def prepared(config: Compress, card: Card) -> Job:
    """The job of a configuration on the network with this card; everything that can be refused early is."""
    origin = card
    if config.size:
        card = replace(card, input=replace(card.input, size=config.size))
    threads = config.threads or len(usable_cores())
    torch.set_num_threads(threads)
    trained = weights.trained(Path(config.run), card, data=config.data)
    labels = label_set_of(card)
    if config.teacher:
        teacher.check(config.teacher, labels)
    calibration = _calibration(config, trained, labels, card) if config.int8 else None
    valid = load(trained.data, "valid", labels, contract=card.input, protocol=trained.protocol)
    if valid.fingerprint != card.data.get("valid", {}).get("ids_sha256"):
        log.warning("%s: not the valid faces of the training; do not compare with its accuracy", trained.data)
    out = Path(config.out or Path(config.run) / "compressed")
    recovery = _recovery(config, trained, out, threads)
    return Job(config, recovery, labels, valid, origin, card, calibration, out, threads)


def check(config: Compress) -> None:
    """UsageError for a setting that cannot be meant, before any face is read."""
    if not config.run:
        raise UsageError("compress needs the run folder of a training.  Make one:  edgeemo train --recipe demo")
    ranges: dict[str, tuple[bool, str]] = {
        "size": (config.size == 0 or 32 <= config.size <= 512, "32 to 512 pixels, or 0"),
        "prune": (0 <= config.prune <= MAX_SHARE, f"a share of channels, 0 to {MAX_SHARE:g}"),
        "round_to": (config.round_to >= 1, "1 or more channels"),
        "prune_steps": (config.prune_steps >= 1, "1 or more steps"),
        "epochs": (config.epochs >= 0, "0 or more epochs"),
        "lr": (config.lr > 0, "a learning rate above 0"),
        "qat_lr": (config.qat_lr > 0, "a learning rate above 0"),
        "corrupt_share": (config.corrupt_share == -1 or 0 <= config.corrupt_share <= 1, "0 to 1, or -1 (as trained)"),
        "teacher_share": (0 < config.teacher_share <= 1, "above 0, at most 1"),
        "teacher_temperature": (config.teacher_temperature > 0, "above 0"),
        "views": (config.views >= 1, "1 or more views"),
        "min_int8_share": (0 <= config.min_int8_share <= 1, "a share of the multiply-adds, 0 to 1"),
        "min_agreement": (0 <= config.min_agreement <= 1, "a share of the faces, 0 to 1"),
        "threads": (config.threads >= 0, "0 (all cores) or more"),
        "seed": (config.seed >= 0, "0 or more"),
        "calibration_count": (config.calibration_count >= 1, "1 or more faces"),
    }
    check_ranges(config, ranges)
    tables = {
        "importance": IMPORTANCE,
        "ranking": RANKINGS,
        "flavour": (*FLAVOURS, "both"),
        "method": (*METHODS, "auto"),
        "rounding": ("auto", "nearest", "gptq"),
    }
    for name, names in tables.items():
        if getattr(config, name) not in names:
            raise known(name, getattr(config, name), names)
    _check_together(config)


def check_layers(config: Compress, network: nn.Module) -> None:
    """UsageError for a layer to keep in float that the network does not have, before hours of recovery."""
    layers = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    for name in named_layers(config) if config.keep_float != "auto" else ():
        if name not in layers:
            raise known("layer to keep in float", name, layers)


def named_layers(config: Compress) -> tuple[str, ...]:
    """The names in --keep-float."""
    return tuple(name.strip() for name in config.keep_float.split(",") if name.strip())


def check_no_training(out: Path, masters: str) -> None:
    """UsageError if a network that was trained lies in `out`, where a compression would put its own."""
    if weights.holds_training(out) or out.resolve() in [run.resolve() for run in teacher.runs_of(masters)]:
        raise UsageError(f"{out} is the folder of a training; its model would be overwritten. Choose another --out")


def _check_together(config: Compress) -> None:
    if config.out and Path(config.out).resolve() == Path(config.run).resolve():
        raise UsageError(f"--out {config.out} is the run folder itself; its model would be overwritten. Choose another")
    check_no_training(Path(config.out or Path(config.run) / "compressed"), config.teacher)
    trains = config.epochs and (config.prune or config.size or config.qat)
    if config.teacher and not trains:
        raise UsageError(
            "--teacher without anything to teach: add --prune, --size or --qat, and --epochs, or leave it out"
        )
    _check_idle(config)
    if config.qat and not config.epochs:
        raise UsageError("--qat --epochs 0 tunes nothing, which is PTQ: leave out --qat, or give it epochs")
    if config.qat and config.rounding == "gptq":
        raise UsageError("--rounding gptq with --qat, which tunes the weights for nearest: leave out one of them")


def _check_idle(config: Compress) -> None:
    """UsageError for an option that was set and would do nothing."""
    recovers = bool(config.prune or config.size)
    needs = {
        "--int8": (config.int8, OF_INT8),
        "--prune or --sensitivity": (bool(config.prune or config.sensitivity), OF_CUTS),
        "--prune": (bool(config.prune), OF_PRUNING),
        "--teacher": (bool(config.teacher), OF_A_TEACHER),
        "--prune, --size or --qat": (recovers or config.qat, ("epochs", "corrupt_share")),
        "--prune or --size, and --epochs": (recovers and bool(config.epochs), ("lr",)),
        "--qat": (config.qat, ("qat_lr",)),
    }
    check_idle(config, needs)
    if config.calibration and config.calibration_count != Compress.calibration_count:
        raise UsageError("--calibration gives a list, --calibration-count is about one that is drawn: leave out one")


def _recovery(config: Compress, trained: Train, out: Path, threads: int) -> Train:
    """The training's own recipe at a low rate; too short for a moving average or a choice of epochs on valid."""
    return replace(
        trained,
        out=str(out),
        epochs=config.epochs,
        classifier_lr=config.lr,
        backbone_lr=config.lr,
        schedule="cosine",
        mode="finetune",
        patience=0,
        corrupt_share=trained.corrupt_share if config.corrupt_share < 0 else config.corrupt_share,
        ema=0.0,
        teacher=config.teacher,
        teacher_share=config.teacher_share,
        teacher_temperature=config.teacher_temperature,
        views=config.views,
        threads=threads,
        seed=config.seed,
        resume=config.resume,
    )


def _calibration(config: Compress, trained: Train, labels: LabelSet, card: Card) -> tuple[CalibrationList, Faces]:
    """The list, given or drawn, and its faces: read before hours of recovery, because a list can be wrong."""
    if config.calibration:
        chosen = calibrate.read(Path(config.calibration))
    else:
        log.info("no --calibration list: drawing %d train faces, seed %d", config.calibration_count, config.seed)
        how = {"count": config.calibration_count, "seed": config.seed}
        chosen = calibrate.draw(trained.data, labels, protocol=trained.protocol, **how)
    return chosen, calibrate.faces(chosen, trained.data, card.input)
