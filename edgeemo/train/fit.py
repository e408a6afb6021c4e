"""The training loop, shared by training and by recovery after pruning."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import numpy as np
import torch
from lightning_fabric.wrappers import _FabricModule
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchmetrics import MeanMetric

from edgeemo.card import InputContract
from edgeemo.data import Faces
from edgeemo.errors import UsageError
from edgeemo.images import to_input
from edgeemo.metrics import scores, softmax
from edgeemo.options import settings
from edgeemo.progress import counter
from edgeemo.stages import Train
from edgeemo.train import checkpoint, losses, modes, optim
from edgeemo.train.batches import Batches, loader, plan
from edgeemo.train.checkpoint import State
from edgeemo.train.network import EmotionNet
from edgeemo.train.place import Place, place_for
from edgeemo.train.watch import watching

log = logging.getLogger(__name__)
EVALUATION_BATCH = 256
# between two sittings of one run
OF_A_TEACHER = ("teacher_share", "teacher_temperature", "views")  # settings that decide nothing without one
FREE_TO_CHANGE = (
    "resume",
    "out",
    "threads",
    "workers",
    "target_accuracy",
    "checkpoint_steps",
    "tensorboard",
    "teacher",
)


@dataclass(frozen=True)
class Material:
    """What a network learns from, and what it is judged on after every epoch."""

    train: Faces
    valid: Faces
    labels: tuple[str, ...]
    contract: InputContract
    taught: np.ndarray | None = None  # (V, N, K) float32, what a teacher told of every view of the train faces


@dataclass(frozen=True)
class Task:
    """What does not change while training runs."""

    config: Train
    material: Material
    batches: Batches
    batch_size: int
    criterion: nn.Module
    model: _FabricModule  # the network as Fabric runs it: autocast, gradients summed over processes
    optimizer: Any  # the optimizer as Fabric runs it
    place: Place
    folder: Path
    identity: dict[str, Any]
    each_epoch: Callable[[EmotionNet, int], None]
    first_epoch: int

    @property
    def steps(self) -> int:
        """Batches of one epoch."""
        return max(1, len(self.material.train) // self.batch_size)


def _as_it_is(network: EmotionNet, epoch: int) -> None:
    """What most trainings do to their network when an epoch begins: nothing."""


def fit(
    network: EmotionNet,
    material: Material,
    *,
    config: Train,
    folder: Path,
    origin: dict[str, Any] | None = None,
    each_epoch: Callable[[EmotionNet, int], None] = _as_it_is,
    first_epoch: int = 0,
) -> tuple[EmotionNet, list[dict[str, Any]]]:
    """Train `network` for config.epochs; returns the network to keep, in evaluation mode, and a row per epoch.

    With patience the epoch that was best on valid is kept, without it the last one. Checkpoints go to `folder` every
    config.checkpoint_steps and after every epoch; with config.resume training goes on from the last whole one, bit for
    bit as if never stopped. origin says where a network that was not made by `config` comes from: who resumes must have
    the same. each_epoch gets the network, ready to train, and the number of the epoch that begins. first_epoch is how
    many epochs an earlier part of the training had, whose order and views of the faces are not repeated.
    """
    how: dict[str, Any] = {"origin": origin, "each_epoch": each_epoch, "first_epoch": first_epoch}
    task, state = prepare(network, material, config=config, folder=folder, **how)
    with watching(folder, config, task.place, epoch=state.epoch) as watch:
        while state.epoch < config.epochs and not _out_of_patience(state, config.patience):
            row = one_epoch(task, state)
            watch(_judged(task, state, row))
            state.epoch, state.step = state.epoch + 1, 0
            _save(task, state)
    task.place.check_together(state.network)
    task.place.leave()
    if config.patience:
        state.judged.load_state_dict(state.best_weights)
    return state.judged.eval().cpu(), state.history


def predict_logits(network: nn.Module, faces: Faces, contract: InputContract) -> np.ndarray:
    """(N, K) float32 logits of a network on faces, without augmentation, in fp32."""
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    out = []
    with torch.inference_mode():
        for start in range(0, len(faces), EVALUATION_BATCH):
            batch = torch.from_numpy(to_input(faces.pixels[start : start + EVALUATION_BATCH], contract))
            out.append(network(batch.to(device, memory_format=torch.channels_last)).float().cpu().numpy())
    network.train(was_training)
    return np.concatenate(out)


def prepare(
    network: EmotionNet,
    material: Material,
    *,
    config: Train,
    folder: Path,
    origin: dict[str, Any] | None = None,
    each_epoch: Callable[[EmotionNet, int], None] = _as_it_is,
    first_epoch: int = 0,
) -> tuple[Task, State]:
    """Everything in place for the first step, or for the one after the last checkpoint."""
    place = place_for(config)
    log.info("training on %s in %s (%s), %d threads", place.device, place.precision, place.reason, place.threads)
    device = place.fabric.device
    network.to(device)
    optimizer = optim.optimizer(network, config)
    if config.mode == "features":  # DDP sums no gradients of layers that are frozen now, so gradual freezes later
        modes.thaw(network, config, epoch=0)
    model, stepped = place.fabric.setup(network, optimizer)
    train, classes = material.train, len(material.labels)
    weights = losses.class_weights(train.truth, classes, rule=config.class_weights)
    goal = losses.targets(train, classes, vote_share=config.vote_share)
    task = Task(
        config=config,
        material=material,
        batches=Batches(train, goal, material.contract, config, taught=material.taught),
        batch_size=min(config.batch_size, len(train)),
        criterion=losses.criterion(config, weights).to(device),
        model=model,
        optimizer=stepped,
        place=place,
        folder=folder,
        identity=_identity(config, place, material) | (origin or {}),
        each_epoch=each_epoch,
        first_epoch=first_epoch,
    )
    schedule = optim.schedule(optimizer, config, steps_per_epoch=math.ceil(task.steps / config.accumulate))
    average = None
    if config.ema:
        average = AveragedModel(network, multi_avg_fn=_ramped_average(config.ema), use_buffers=True)
    state = State(
        network,
        average,
        optimizer,
        schedule,
        place.plugin,
        MeanMetric(sync_on_compute=False, nan_strategy="disable").to(device),
    )
    if config.resume:
        checkpoint.restore(state, folder, identity=task.identity, arithmetic=_arithmetic(place))
    return task, state


def _out_of_patience(state: State, patience: int) -> bool:
    if not patience or state.epoch - 1 - state.best["epoch"] < patience:
        return False
    log.info("no better valid accuracy for %d epochs: stopping", patience)
    return True


def _ramped_average(decay: float) -> Callable[..., None]:
    """Exponential moving average whose decay grows to `decay`, so that the random start is forgotten in a few steps."""

    def update(averaged: list[torch.Tensor], current: list[torch.Tensor], count: torch.Tensor) -> None:
        steps = int(count)
        get_ema_multi_avg_fn(min(decay, (1 + steps) / (10 + steps)))(averaged, current, count)

    return update


def one_epoch(task: Task, state: State) -> dict[str, Any]:
    """Train on what is left of the epoch; returns its row of the log."""
    config, start, waited = task.config, perf_counter(), 0.0
    state.network.train()
    modes.thaw(state.network, config, epoch=state.epoch)
    task.each_epoch(state.network, state.epoch)
    if state.step == 0:
        state.loss.reset()
    jobs = plan(
        task.material.train.truth,
        batch_size=task.batch_size,
        seed=config.seed,
        epoch=task.first_epoch + state.epoch,
        sampler=config.sampler,
        shard=task.place.shard,
    )[state.step :]
    with counter(f"epoch {state.epoch + 1}", total=task.steps) as advance:
        advance(state.step, "")
        batches = _timed(loader(task.batches, jobs, workers=config.workers))
        for count, (seconds, (pixels, goal)) in enumerate(batches, 1):
            waited += seconds
            _step(task, state, pixels, goal)
            if _due(state.step, config) and state.step < task.steps:
                _save(task, state)
            speed = count * task.batch_size / (perf_counter() - start)
            advance(1, f"loss {float(state.loss.compute()):.3f}  {speed:.0f} images/s")
    seconds = perf_counter() - start
    loss = cast(torch.Tensor, task.place.fabric.all_reduce(state.loss.compute(), reduce_op="mean"))
    return {
        "epoch": state.epoch,
        "loss": _finite(float(loss), state),
        "seconds": round(seconds, 1),
        "images_per_second": round(len(jobs) * task.batch_size / seconds, 1),
        "data_share": round(waited / seconds, 4),  # of the time, spent on making batches
        "learning_rates": sorted({float(rate) for rate in state.schedule.get_last_lr()}),
    }


def _due(step: int, config: Train) -> bool:
    """Whether a checkpoint is due: at a multiple of checkpoint_steps, or as soon after it as the weights move.

    In between there are gradients, which a checkpoint does not hold.
    """
    moved = step % config.accumulate == 0
    return moved and step // config.checkpoint_steps > (step - config.accumulate) // config.checkpoint_steps


def _timed(batches: Any) -> Iterator[tuple[float, Any]]:
    """Each batch with the seconds that it was waited for."""
    source = iter(batches)
    while True:
        start = perf_counter()
        try:
            batch = next(source)
        except StopIteration:
            return
        yield perf_counter() - start, batch


def _step(task: Task, state: State, pixels: torch.Tensor, goal: torch.Tensor) -> None:
    """Gradients of one batch; the weights move when `accumulate` of them are together, or the epoch ends."""
    config, fabric = task.config, task.place.fabric
    torch.manual_seed(_dropout_seed(config.seed, state, fabric.global_rank))
    first = state.step - state.step % config.accumulate
    group = min(config.accumulate, task.steps - first)
    moves = state.step - first == group - 1
    batch = pixels.to(fabric.device, memory_format=torch.channels_last)
    waits = nullcontext() if moves else fabric.no_backward_sync(task.model)
    with waits:
        loss = task.criterion(task.model(batch).float(), goal.to(fabric.device))
        fabric.backward(loss / group)
    state.loss.update(loss.detach())
    state.step += 1
    if moves:
        fabric.clip_gradients(task.model, task.optimizer, max_norm=config.clip, error_if_nonfinite=False)
        task.optimizer.step()
        task.optimizer.zero_grad(set_to_none=True)
        state.schedule.step()
        if state.average is not None:
            state.average.update_parameters(state.network)


def _dropout_seed(seed: int, state: State, rank: int) -> int:
    """A function of the step, so that a resumed run draws what it would have drawn."""
    return int(np.random.SeedSequence((seed, state.epoch, state.step, rank)).generate_state(1, np.uint64)[0] >> 1)


def _judged(task: Task, state: State, row: dict[str, Any]) -> dict[str, Any]:
    """The row with what valid says; the first process judges, the others hear of it. Remembers the best epoch."""
    fabric, material = task.place.fabric, task.material
    if fabric.is_global_zero:
        logits = predict_logits(state.judged, material.valid, material.contract)
        result = scores(softmax(logits), material.valid.truth, material.labels)
        row |= {"accuracy": result.accuracy, "macro_f1": result.macro_f1, "recall": result.recall}
    row = fabric.broadcast(row)
    state.history.append(row)
    recalls = " ".join(f"{name[:4]} {'-' if r is None else f'{r:.2f}'}" for name, r in row["recall"].items())
    log.info(
        "epoch %d: loss %.3f, valid %.2f %% (%s), %.0f s, %.0f images/s",
        *(row["epoch"] + 1, row["loss"], 100 * row["accuracy"], recalls, row["seconds"], row["images_per_second"]),
    )
    if task.config.patience and row["accuracy"] > state.best["accuracy"]:
        state.best = {"epoch": row["epoch"], "accuracy": row["accuracy"]}
        state.best_weights = {name: tensor.clone() for name, tensor in state.judged.state_dict().items()}
    return row


def _save(task: Task, state: State) -> None:
    if task.place.fabric.is_global_zero:
        _finite(float(state.loss.compute()) if state.step else state.history[-1]["loss"], state)
        steps = state.epoch * task.steps + state.step
        checkpoint.save(state, task.folder, steps=steps, identity=task.identity, arithmetic=_arithmetic(task.place))


def _finite(loss: float, state: State) -> float:
    """The loss; UsageError where it or a weight is no number, before a checkpoint holds that."""
    broken = "" if math.isfinite(loss) else f"the loss became {loss}"
    if not all(bool(weight.isfinite().all()) for weight in state.network.parameters()):
        broken = broken or "a weight became infinite or NaN"
    if broken:
        raise UsageError(
            f"{broken} in epoch {state.epoch + 1}; the checkpoint before is kept.  Start anew with a "
            "lower learning rate (train: --classifier-lr, compress: --lr or --qat-lr) or, in train, --precision fp32"
        )
    return loss


def _arithmetic(place: Place) -> dict[str, int]:
    """What rounds sums differently."""
    return {"threads": place.threads, "processes": place.fabric.world_size}


def _identity(config: Train, place: Place, material: Material) -> dict[str, Any]:
    """What decides the weights: settings, arithmetic, faces and what a teacher told of them."""
    deciding = {
        name: value
        for name, value in settings(config).items()
        if name not in FREE_TO_CHANGE and (name not in OF_A_TEACHER or config.teacher)
    }
    faces = {"train faces": material.train.content_sha256, "valid faces": material.valid.content_sha256}
    taught = material.taught
    told = {} if taught is None else {"teacher": hashlib.sha256(taught.tobytes()).hexdigest()}
    return {**deciding, "device": place.device, "arithmetic": place.precision, **faces, **told}
