"""What every step of one compression needs to know, and the settings that cannot be meant."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import nn

from edgeemo import options
from edgeemo.card import Card, label_set_of
from edgeemo.compress.prune.channels import Plan
from edgeemo.compress.quantize import calibrate
from edgeemo.compress.quantize.calibrate import CalibrationList
from edgeemo.compress.quantize.qdq import TARGET_FORMATS
from edgeemo.data import Faces, load
from edgeemo.errors import UsageError, known
from edgeemo.labels import LabelSet
from edgeemo.machine import usable_cores
from edgeemo.stages import Compress, Train
from edgeemo.train import run_folder, teacher
from edgeemo.train.ensemble import Member

log = logging.getLogger(__name__)


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
    teachers: list[Member]  # of the fine-tuning; empty without --teacher

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
    def teacher_log_probs(self) -> np.ndarray | None:
        """(V, N, K) float32 teacher log-probabilities for every view of the train faces; None without a teacher."""
        if not self.teachers:
            return None
        contract = self.card.input
        return teacher.predict_views(self.teachers, self.trained, self.train, labels=self.labels, contract=contract)

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
    def target_formats(self) -> tuple[str, ...]:
        """The INT8 forms to write."""
        return tuple(TARGET_FORMATS) if self.config.target_format == "both" else (self.config.target_format,)


def prepare(config: Compress, card: Card) -> Job:
    """The job of a configuration on the network with this card; everything that can be refused early is."""
    origin = card
    if config.size:
        card = replace(card, input=replace(card.input, size=config.size))
    threads = config.threads or len(usable_cores())
    torch.set_num_threads(threads)
    trained = run_folder.load_config(config.run, card, data=config.data)
    labels = label_set_of(card)
    teachers = teacher.load_teachers(config.teacher, labels) if config.teacher else []
    calibration = _calibration(config, trained, labels, card) if config.int8 else None
    valid = load(trained.data, "valid", labels, contract=card.input, protocol=trained.protocol)
    if card.data is None or valid.fingerprint != card.data.valid.ids_sha256:
        log.warning("%s: not the valid faces of the training; do not compare with its accuracy", trained.data)
    out = output_folder(config)
    recovery = _recovery(config, trained, out, threads)
    return Job(config, recovery, labels, valid, origin, card, calibration, out, threads, teachers)


def check(config: Compress) -> None:
    """UsageError for a setting that cannot be meant, before any face is read."""
    options.check(config)
    _check_together(config)


def check_layers(config: Compress, network: nn.Module) -> None:
    """UsageError for a layer to keep in float that the network does not have, before hours of recovery."""
    layers = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    for name in named_layers(config):
        if name not in layers:
            raise known("layer to keep in float", name, layers)


def named_layers(config: Compress) -> tuple[str, ...]:
    """The names in --keep-float; none where they are chosen automatically."""
    return () if chooses_layers(config) else config.keep_float


def chooses_layers(config: Compress) -> bool:
    """Whether the layers that stay in float are chosen by measurement."""
    return config.keep_float == ("auto",)


def output_folder(config: Compress) -> Path:
    """Where the results go."""
    return config.out or config.run / "compressed"


def check_no_training(out: Path, teachers: Sequence[Path]) -> None:
    """UsageError if a network that was trained lies in `out`, where a compression would put its own."""
    if run_folder.holds_training(out) or out.resolve() in [run.resolve() for run in teachers]:
        raise UsageError(f"{out} is the folder of a training; its model would be overwritten. Choose another --out")


def _check_together(config: Compress) -> None:
    if config.out and config.out.resolve() == config.run.resolve():
        raise UsageError(f"--out {config.out} is the run folder itself; its model would be overwritten. Choose another")
    check_no_training(output_folder(config), config.teacher)
    trains = config.epochs and (config.prune or config.size or config.qat)
    if config.teacher and not trains:
        raise UsageError(
            "--teacher without anything to teach: add --prune, --size or --qat, and --epochs, or leave it out"
        )
    if config.qat and not config.epochs:
        raise UsageError("--qat --epochs 0 tunes nothing, which is PTQ: leave out --qat, or give it epochs")
    if config.qat and config.rounding == "gptq":
        raise UsageError("--rounding gptq with --qat, which tunes the weights for nearest: leave out one of them")


def _recovery(config: Compress, trained: Train, out: Path, threads: int) -> Train:
    """The training's own recipe at a low rate; too short for a moving average or a choice of epochs on valid."""
    return replace(
        trained,
        out=out,
        epochs=config.epochs,
        classifier_lr=config.lr,
        backbone_lr=config.lr,
        schedule="cosine",
        mode="finetune",
        patience=0,
        corrupt_share=trained.corrupt_share if config.corrupt_share is None else config.corrupt_share,
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
        chosen = calibrate.read(config.calibration)
    else:
        log.info("no --calibration list: drawing %d train faces, seed %d", config.calibration_count, config.seed)
        how = {"count": config.calibration_count, "seed": config.seed}
        chosen = calibrate.draw(trained.data, labels, protocol=trained.protocol, **how)
    return chosen, calibrate.faces(chosen, trained.data, card.input)
