"""The settings, faces and folders that the steps of a compression share, and the checks of its settings."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edgeemo import options
from edgeemo.card import Card, InputContract, get_label_set
from edgeemo.compress.prune.channels import PruningPlan
from edgeemo.compress.quantize import calibrate
from edgeemo.compress.quantize.calibrate import CalibrationList
from edgeemo.compress.quantize.qdq import TARGET_FORMATS
from edgeemo.data import Faces
from edgeemo.data.cache import Cache, Listed, list_faces
from edgeemo.data.faces import check_outside
from edgeemo.errors import UsageError, known
from edgeemo.labels import LabelSet
from edgeemo.machine import usable_cores
from edgeemo.stages import Compress, Train
from edgeemo.train import run_folder, teacher
from edgeemo.train.ensemble import Member

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One compression: its settings, faces and fine-tuning recipe."""

    config: Compress
    recipe: Train  # for fine-tuning: that of the training, with data, teacher and learning rate of this run
    labels: LabelSet
    valid: Faces
    origin: Card  # of the trained network
    card: Card  # the same, with the requested input size
    calibration: tuple[CalibrationList, Faces] | None  # None without --int8
    out: Path
    threads: int
    teachers: list[Member]  # of the fine-tuning; empty without --teacher
    cache: Cache  # of faces that do not fit in memory

    @cached_property
    def at_trained_size(self) -> Job:
        """The same job at the input size of the training."""
        if self.card.input == self.origin.input:
            return self
        return replace(self, card=self.origin, valid=self._load("valid", self.origin.input))

    @cached_property
    def train(self) -> Faces:
        """The labelled train faces."""
        return self._load("train", self.card.input)

    def _load(self, split: str, contract: InputContract) -> Faces:
        listed = _list_faces(self.recipe, split, self.labels)
        return listed.load(contract, cache=self.cache, threads=self.threads)[0]

    @cached_property
    def teacher_log_probs(self) -> np.ndarray | None:
        """(V, N, K) float32 teacher log-probabilities for every view of the train faces; None without a teacher."""
        if not self.teachers:
            return None
        contract = self.card.input
        return teacher.predict_views(self.teachers, self.recipe, self.train, labels=self.labels, contract=contract)

    @property
    def calibration_faces(self) -> Faces:
        """The faces of the calibration set; UsageError without one."""
        if not self.calibration:
            raise UsageError("there are no calibration faces without --int8; add it")
        return self.calibration[1]

    @property
    def plan(self) -> PruningPlan:
        """The settings of pruning."""
        config = self.config
        return PruningPlan(config.prune, config.round_to, config.importance, config.ranking)

    @property
    def rounding(self) -> str:
        """The rounding of weights: gptq or nearest."""
        if self.config.rounding != "auto":
            return self.config.rounding
        return "nearest" if self.config.qat else "gptq"

    @property
    def target_formats(self) -> tuple[str, ...]:
        """The target formats to write."""
        return tuple(TARGET_FORMATS) if self.config.target_format == "both" else (self.config.target_format,)


def prepare(config: Compress, card: Card) -> Job:
    """Load what the compression of the network with this card needs; everything that can be checked early is."""
    origin = card
    if config.size:
        card = replace(card, input=replace(card.input, size=config.size))
    threads = config.threads or len(usable_cores())
    torch.set_num_threads(threads)
    training = run_folder.load_config(config.run, card, data=config.data)
    training = replace(training, skip_unreadable=config.skip_unreadable)
    labels = get_label_set(card)
    teachers = teacher.load_teachers(config.teacher, labels) if config.teacher else []
    calibration = _load_calibration(config, training, labels, card) if config.int8 else None
    out = get_output_folder(config)
    cache = Cache.choose(config.cache, out)
    (valid,) = _list_faces(training, "valid", labels).load(card.input, cache=cache, threads=threads)
    if calibration and config.calibration:
        calibrate.check_apart(calibration[1], valid, training.data)
    if card.data is None or valid.fingerprint != card.data.valid.ids_sha256:
        log.warning("%s: not the valid faces of the training; accuracies are not comparable", training.data)
    recipe = _make_recipe(config, training, out, threads)
    return Job(config, recipe, labels, valid, origin, card, calibration, out, threads, teachers, cache)


def check(config: Compress) -> None:
    """Raise UsageError for invalid settings, before any face is read."""
    options.check(config)
    _check_combinations(config)


def check_layers(config: Compress, network: nn.Module) -> None:
    """Raise UsageError if the network lacks a layer to keep in float, before hours of fine-tuning."""
    layers = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    for name in get_named_layers(config):
        if name not in layers:
            raise known("layer to keep in float", name, layers)


def get_named_layers(config: Compress) -> tuple[str, ...]:
    """Return the names in --keep-float; none if they are chosen automatically."""
    return () if chooses_layers(config) else config.keep_float


def chooses_layers(config: Compress) -> bool:
    """Return whether the layers to keep in float are chosen by measurement."""
    return config.keep_float == ("auto",)


def get_output_folder(config: Compress) -> Path:
    """Return the folder of the results."""
    return config.out or config.run / "compressed"


def check_no_training(out: Path, teachers: Sequence[Path]) -> None:
    """Raise UsageError if `out` is the folder of a training, whose model would be overwritten."""
    if run_folder.holds_training(out) or out.resolve() in [run.resolve() for run in teachers]:
        raise UsageError(f"{out} is the folder of a training; its model would be overwritten. Choose another --out")


def _check_combinations(config: Compress) -> None:
    if config.data:
        check_outside(get_output_folder(config), config.data, option="--out")
    if config.out and config.out.resolve() == config.run.resolve():
        raise UsageError(f"--out {config.out} is the run folder itself; its model would be overwritten. Choose another")
    check_no_training(get_output_folder(config), config.teacher)
    trains = config.epochs and (config.prune or config.size or config.qat)
    if config.teacher and not trains:
        raise UsageError(
            "--teacher without any fine-tuning: add --prune, --size or --qat, and --epochs, or leave it out"
        )
    if config.qat and not config.epochs:
        raise UsageError("--qat --epochs 0 trains nothing, which is PTQ: leave out --qat, or give --epochs")
    if config.qat and config.rounding == "gptq":
        raise UsageError(
            "--rounding gptq with --qat, which trains the weights for nearest rounding: leave out one of them"
        )


def _make_recipe(config: Compress, training: Train, out: Path, threads: int) -> Train:
    """Return the recipe of the training at a low learning rate, without early stopping or a moving average."""
    return replace(
        training,
        out=out,
        epochs=config.epochs,
        classifier_lr=config.lr,
        backbone_lr=config.lr,
        schedule="cosine",
        mode="finetune",
        patience=0,
        corrupt_share=training.corrupt_share if config.corrupt_share is None else config.corrupt_share,
        ema=0.0,
        teacher=config.teacher,
        teacher_share=config.teacher_share,
        teacher_temperature=config.teacher_temperature,
        views=config.views,
        threads=threads,
        seed=config.seed,
        resume=config.resume,
    )


def _list_faces(training: Train, split: str, labels: LabelSet) -> Listed:
    selection: dict[str, Any] = {"protocol": training.protocol, "skip_unreadable": training.skip_unreadable}
    return list_faces(training.data, (split,), labels, **selection)


def _load_calibration(config: Compress, training: Train, labels: LabelSet, card: Card) -> tuple[CalibrationList, Faces]:
    """Read or draw the calibration list and load its faces, before hours of fine-tuning, as a list can be invalid."""
    if config.calibration:
        chosen = calibrate.read(config.calibration)
    else:
        log.info("no --calibration list: drawing %d train faces, seed %d", config.calibration_count, config.seed)
        chosen = calibrate.draw(
            training.data,
            labels,
            protocol=training.protocol,
            count=config.calibration_count,
            seed=config.seed,
        )
    return chosen, calibrate.load_faces(chosen, training.data, card.input)
