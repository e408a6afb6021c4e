"""The training loop, shared by `edgeemo train` and by fine-tuning after pruning."""

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
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchmetrics import MeanMetric

from edgeemo.card import InputContract
from edgeemo.data import Faces
from edgeemo.errors import DataError, UsageError
from edgeemo.images import to_input
from edgeemo.metrics import scores, softmax
from edgeemo.options import settings
from edgeemo.progress import counter
from edgeemo.resume import MAY_DIFFER, RESOLVED
from edgeemo.stages import Train
from edgeemo.train import checkpoint, losses, modes, optim
from edgeemo.train.batches import BatchDataset, make_loader, plan_epoch
from edgeemo.train.checkpoint import TrainingState
from edgeemo.train.device import MIN_SHARD, DeviceSetup, set_up_device
from edgeemo.train.network import EmotionNet
from edgeemo.train.tensorboard import log_epochs

log = logging.getLogger(__name__)
EVALUATION_BATCH = 256
TEACHER_SETTINGS = ("teacher_share", "teacher_temperature", "views")  # without a teacher they have no effect


@dataclass(frozen=True)
class TrainingData:
    """The faces a network is trained on, and those it is evaluated on after every epoch."""

    train: Faces
    valid: Faces
    labels: tuple[str, ...]
    contract: InputContract
    teacher_log_probs: np.ndarray | None = None  # (V, N, K) float32, of every view of the training faces


@dataclass(frozen=True)
class TrainingContext:
    """Everything that stays constant during training."""

    config: Train
    data: TrainingData
    batches: BatchDataset
    batch_size: int
    criterion: nn.Module
    model: _FabricModule  # the network as Fabric runs it: autocast, gradients summed over processes
    optimizer: Any  # the optimizer as Fabric runs it
    device_setup: DeviceSetup
    folder: Path
    identity: dict[str, Any]
    on_epoch_start: Callable[[EmotionNet, int], None]
    first_epoch: int

    @property
    def steps(self) -> int:
        """Number of batches per epoch."""
        return max(1, len(self.data.train) // self.batch_size)

    @property
    def fabric(self) -> Fabric:
        """Lightning Fabric, which runs the model on the device."""
        return self.device_setup.fabric


def _do_nothing(network: EmotionNet, epoch: int) -> None:
    """Leave the network as it is: the default `on_epoch_start`."""


def fit(
    network: EmotionNet,
    data: TrainingData,
    *,
    config: Train,
    folder: Path,
    extra_identity: dict[str, Any] | None = None,
    on_epoch_start: Callable[[EmotionNet, int], None] = _do_nothing,
    first_epoch: int = 0,
) -> tuple[EmotionNet, list[dict[str, Any]]]:
    """Train `network` for config.epochs; return it in evaluation mode, with one log row per epoch.

    With patience, the weights of the epoch with the best validation accuracy are returned, otherwise the last ones.
    Checkpoints are written to `folder` every config.checkpoint_steps and after every epoch. With config.resume,
    training continues from the last intact one; the result is bit for bit that of an uninterrupted run.

    extra_identity: facts about the initial network that `config` does not describe (the hash of its weights, or how it
        was pruned); a resumed run must have the same.
    on_epoch_start: called with the network, in training mode, and the number of the epoch that starts.
    first_epoch: number of epochs already trained elsewhere; their order and augmented views are not repeated.
    """
    options: dict[str, Any] = {
        "extra_identity": extra_identity,
        "on_epoch_start": on_epoch_start,
        "first_epoch": first_epoch,
    }
    context, state = prepare(network, data, config=config, folder=folder, **options)
    with log_epochs(folder, config, context.device_setup, epoch=state.epoch) as log_epoch:
        while state.epoch < config.epochs and not _should_stop_early(state, config.patience):
            row = train_epoch(context, state)
            log_epoch(_evaluate_epoch(context, state, row))
            state.epoch, state.step = state.epoch + 1, 0
            _save_checkpoint(context, state)
    context.device_setup.check_in_sync(state.network)
    context.device_setup.leave_process_group()
    if config.patience:
        state.evaluated.load_state_dict(state.best_weights)
    return state.evaluated.eval().cpu(), state.history


def predict_logits(network: nn.Module, faces: Faces, contract: InputContract, *, mirrored: bool = False) -> np.ndarray:
    """Return (N, K) float32 logits for N faces or their mirror images, not augmented, in fp32 unless autocast is on."""
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    out = []
    with torch.inference_mode():
        for start in range(0, len(faces), EVALUATION_BATCH):
            pixels = faces.pixels[start : start + EVALUATION_BATCH]
            batch = torch.from_numpy(to_input(pixels[:, :, ::-1] if mirrored else pixels, contract))
            out.append(network(batch.to(device, memory_format=torch.channels_last)).float().cpu().numpy())
    network.train(was_training)
    return np.concatenate(out)


def prepare(
    network: EmotionNet,
    data: TrainingData,
    *,
    config: Train,
    folder: Path,
    extra_identity: dict[str, Any] | None = None,
    on_epoch_start: Callable[[EmotionNet, int], None] = _do_nothing,
    first_epoch: int = 0,
) -> tuple[TrainingContext, TrainingState]:
    """Set up the device, optimizer and loss, and restore the last checkpoint if config.resume is set."""
    device_setup = set_up_device(config)
    log.info(
        "training on %s in %s (%s), %d threads",
        device_setup.device,
        device_setup.precision,
        device_setup.reason,
        device_setup.threads,
    )
    device = device_setup.fabric.device
    network.to(device)
    optimizer = optim.make_optimizer(network, config)
    if config.mode == "features":  # DDP ignores layers that are frozen now, so gradual mode must freeze later
        modes.unfreeze(network, config, epoch=0)
    model, fabric_optimizer = device_setup.fabric.setup(network, optimizer)
    train, classes = data.train, len(data.labels)
    weights = losses.compute_class_weights(train.truth, classes, rule=config.class_weights)
    target = losses.make_targets(train, classes, vote_share=config.vote_share)
    context = TrainingContext(
        config=config,
        data=data,
        batches=BatchDataset(train, target, data.contract, config, teacher_log_probs=data.teacher_log_probs),
        batch_size=_choose_batch_size(config.batch_size, len(train), device_setup.shard.processes),
        criterion=losses.make_criterion(config, weights).to(device),
        model=model,
        optimizer=fabric_optimizer,
        device_setup=device_setup,
        folder=folder,
        identity=_build_identity(config, device_setup, data) | (extra_identity or {}),
        on_epoch_start=on_epoch_start,
        first_epoch=first_epoch,
    )
    schedule = optim.make_schedule(optimizer, config, steps_per_epoch=math.ceil(context.steps / config.accumulate))
    average = None
    if config.ema:
        average = AveragedModel(network, multi_avg_fn=_make_ema_update(config.ema), use_buffers=True)
    state = TrainingState(
        network,
        average,
        optimizer,
        schedule,
        device_setup.precision_plugin,
        MeanMetric(sync_on_compute=False, nan_strategy="disable").to(device),
    )
    if config.resume:
        checkpoint.restore(state, folder, identity=context.identity, parallelism=_describe_parallelism(device_setup))
    return context, state


def _should_stop_early(state: TrainingState, patience: int) -> bool:
    if not patience or state.epoch - 1 - state.best["epoch"] < patience:
        return False
    log.info("validation accuracy has not improved for %d epochs: stopping", patience)
    return True


def _make_ema_update(decay: float) -> Callable[..., None]:
    """Return an update for an exponential moving average whose decay grows to `decay`.

    The growing decay lets the average forget the random initial weights within a few steps.
    """

    def update(averaged: list[torch.Tensor], current: list[torch.Tensor], count: torch.Tensor) -> None:
        steps = int(count)
        get_ema_multi_avg_fn(min(decay, (1 + steps) / (10 + steps)))(averaged, current, count)

    return update


def train_epoch(context: TrainingContext, state: TrainingState) -> dict[str, Any]:
    """Train on the rest of the current epoch; return its log row."""
    config, start, waited = context.config, perf_counter(), 0.0
    state.network.train()
    modes.unfreeze(state.network, config, epoch=state.epoch)
    context.on_epoch_start(state.network, state.epoch)
    if state.step == 0:
        state.loss.reset()
    specs = plan_epoch(
        context.data.train.truth,
        batch_size=context.batch_size,
        seed=config.seed,
        epoch=context.first_epoch + state.epoch,
        sampler=config.sampler,
        shard=context.device_setup.shard,
    )[state.step :]
    with counter(f"epoch {state.epoch + 1}", total=context.steps) as advance:
        advance(state.step, "")
        batches = _time_batches(make_loader(context.batches, specs, workers=config.workers))
        for count, (seconds, (pixels, target)) in enumerate(batches, 1):
            waited += seconds
            _train_step(context, state, pixels, target)
            if _is_checkpoint_due(state.step, config) and state.step < context.steps:
                _save_checkpoint(context, state)
            speed = count * context.batch_size / (perf_counter() - start)
            advance(1, f"loss {float(state.loss.compute()):.3f}  {speed:.0f} images/s")
    seconds = perf_counter() - start
    loss = cast(torch.Tensor, context.fabric.all_reduce(state.loss.compute(), reduce_op="mean"))
    return {
        "epoch": state.epoch,
        "loss": _check_finite(float(loss), state),
        "seconds": round(seconds, 1),
        "images_per_second": round(len(specs) * context.batch_size / seconds, 1),
        "data_share": round(waited / seconds, 4),  # fraction of the time spent waiting for batches
        "learning_rates": sorted({float(rate) for rate in state.schedule.get_last_lr()}),
    }


def _is_checkpoint_due(step: int, config: Train) -> bool:
    """Return whether to write a checkpoint: every checkpoint_steps, delayed to the next optimizer step.

    Between optimizer steps there are accumulated gradients, which a checkpoint does not contain.
    """
    updated = step % config.accumulate == 0
    return updated and step // config.checkpoint_steps > (step - config.accumulate) // config.checkpoint_steps


def _time_batches(batches: Any) -> Iterator[tuple[float, Any]]:
    """Yield each batch with the seconds spent waiting for it."""
    source = iter(batches)
    while True:
        start = perf_counter()
        try:
            batch = next(source)
        except StopIteration:
            return
        yield perf_counter() - start, batch


def _train_step(context: TrainingContext, state: TrainingState, pixels: torch.Tensor, target: torch.Tensor) -> None:
    """Compute the gradients of one batch; update the weights after `accumulate` batches, or at the end of the epoch."""
    config, fabric = context.config, context.fabric
    torch.manual_seed(_compute_dropout_seed(config.seed, state, fabric.global_rank))
    first = state.step - state.step % config.accumulate
    group = min(config.accumulate, context.steps - first)
    updates = state.step - first == group - 1
    batch = pixels.to(fabric.device, memory_format=torch.channels_last)
    with nullcontext() if updates else fabric.no_backward_sync(context.model):
        loss = context.criterion(context.model(batch).float(), target.to(fabric.device))
        fabric.backward(loss / group)
    state.loss.update(loss.detach())
    state.step += 1
    if updates:
        fabric.clip_gradients(context.model, context.optimizer, max_norm=config.clip, error_if_nonfinite=False)
        context.optimizer.step()
        context.optimizer.zero_grad(set_to_none=True)
        state.schedule.step()
        if state.average is not None:
            state.average.update_parameters(state.network)


def _compute_dropout_seed(seed: int, state: TrainingState, rank: int) -> int:
    """Return a seed that depends on the step alone, so that a resumed run repeats the same dropout."""
    return int(np.random.SeedSequence((seed, state.epoch, state.step, rank)).generate_state(1, np.uint64)[0] >> 1)


def _evaluate_epoch(context: TrainingContext, state: TrainingState, row: dict[str, Any]) -> dict[str, Any]:
    """Add the validation scores to the log row and remember the best epoch.

    The first process evaluates and broadcasts the row to the others.
    """
    fabric, data = context.fabric, context.data
    if fabric.is_global_zero:
        logits = predict_logits(state.evaluated, data.valid, data.contract)
        result = scores(softmax(logits), data.valid.truth, data.labels)
        row |= {"accuracy": result.accuracy, "macro_f1": result.macro_f1, "recall": result.recall}
    row = fabric.broadcast(row)
    state.history.append(row)
    recalls = " ".join(f"{name[:4]} {'-' if r is None else f'{r:.2f}'}" for name, r in row["recall"].items())
    log.info(
        "epoch %d: loss %.3f, validation accuracy %.2f %% (%s), %.0f s, %.0f images/s",
        *(row["epoch"] + 1, row["loss"], 100 * row["accuracy"], recalls, row["seconds"], row["images_per_second"]),
    )
    if context.config.patience and row["accuracy"] > state.best["accuracy"]:
        state.best = {"epoch": row["epoch"], "accuracy": row["accuracy"]}
        state.best_weights = {name: tensor.clone() for name, tensor in state.evaluated.state_dict().items()}
    return row


def _save_checkpoint(context: TrainingContext, state: TrainingState) -> None:
    if context.fabric.is_global_zero:
        _check_finite(float(state.loss.compute()) if state.step else state.history[-1]["loss"], state)
        steps = state.epoch * context.steps + state.step
        checkpoint.save(
            state,
            context.folder,
            steps=steps,
            identity=context.identity,
            parallelism=_describe_parallelism(context.device_setup),
        )


def _check_finite(loss: float, state: TrainingState) -> float:
    """Return the loss; raise UsageError if it or a weight is not finite, before that reaches a checkpoint."""
    broken = "" if math.isfinite(loss) else f"the loss became {loss}"
    if not all(bool(weight.isfinite().all()) for weight in state.network.parameters()):
        broken = broken or "a weight became infinite or NaN"
    if broken:
        raise UsageError(
            f"{broken} in epoch {state.epoch + 1}; the previous checkpoint is kept.  Start again with a "
            "lower learning rate (train: --classifier-lr, compress: --lr or --qat-lr) or, in train, --precision fp32"
        )
    return loss


def _describe_parallelism(device_setup: DeviceSetup) -> dict[str, int]:
    """Return the numbers of threads and processes, which change how sums are rounded."""
    return {"threads": device_setup.threads, "processes": device_setup.fabric.world_size}


def _choose_batch_size(requested: int, faces: int, processes: int) -> int:
    """Return the requested batch size, or the largest multiple of the processes that so few faces fill."""
    size = min(requested, faces // processes * processes)
    if size < MIN_SHARD * processes:
        raise DataError(
            f"{faces} train faces: expected {MIN_SHARD * processes} or more, because BatchNorm needs {MIN_SHARD} per "
            f"process; add faces{' or start fewer processes' if processes > 1 else ''}"
        )
    return size


def _build_identity(config: Train, device_setup: DeviceSetup, data: TrainingData) -> dict[str, Any]:
    """Collect everything that determines the weights: settings, device, precision, faces and teacher predictions.

    Faces and teacher are known by hashes, not by their paths. The keys are stored in checkpoints.
    """
    left_out = {*MAY_DIFFER, *RESOLVED, *(() if config.teacher else TEACHER_SETTINGS)}
    if config.weights == "none":
        left_out.add("backbone_lr")  # has no effect
    deciding = {name: value for name, value in settings(config).items() if name not in left_out}
    faces = {"train faces": data.train.content_sha256, "valid faces": data.valid.content_sha256}
    teacher = {}
    if data.teacher_log_probs is not None:
        teacher["teacher"] = hashlib.sha256(data.teacher_log_probs.tobytes()).hexdigest()
    setup = {"device": device_setup.device, "arithmetic": device_setup.precision}
    return {**deciding, "labels": list(data.labels), **setup, **faces, **teacher}
