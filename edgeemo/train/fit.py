"""The training loop, shared by training and by recovery after pruning."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from edgeemo.artifact import written
from edgeemo.card import InputContract
from edgeemo.data import Faces
from edgeemo.errors import IntegrityError
from edgeemo.images import to_input
from edgeemo.machine import this_machine, usable_cores
from edgeemo.metrics import scores, softmax
from edgeemo.progress import counter
from edgeemo.stages import Train
from edgeemo.train import objective
from edgeemo.train.batches import Batches, loader, plan
from edgeemo.train.network import EmotionNet

log = logging.getLogger(__name__)
CHECKPOINT = "checkpoint.pt"
EVALUATION_BATCH = 256
FREE_TO_CHANGE = ("resume", "out", "threads", "workers", "target_accuracy")  # between two sittings of one run


@dataclass(frozen=True)
class Setting:
    """Where and how the arithmetic runs, and why."""

    device: str
    bf16: bool
    reason: str


@dataclass
class State:
    """Everything that changes while training runs; what a checkpoint holds."""

    network: EmotionNet
    average: AveragedModel | None
    adam: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    epoch: int = 0
    best: dict[str, Any] = field(default_factory=lambda: {"epoch": -1, "accuracy": -1.0, "state": None})
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def judged(self) -> EmotionNet:
        """The network that is evaluated and kept: the moving average where there is one."""
        if self.average is None:
            return self.network
        averaged: EmotionNet = self.average.module  # type: ignore[assignment]
        return averaged


def setting(config: Train) -> Setting:
    """Device and precision for a config; an automatic choice carries its reason."""
    torch.set_num_threads(config.threads or len(usable_cores()))
    if torch.cuda.is_available():
        return Setting("cuda", config.precision != "fp32" and torch.cuda.is_bf16_supported(), "CUDA device found")
    native = {"avx512_bf16", "amx_bf16"} & set(this_machine().features)
    if config.precision != "auto":
        return Setting("cpu", config.precision == "bf16", f"--precision {config.precision}")
    reason = f"this CPU has {', '.join(sorted(native))}" if native else "this CPU has no bf16 instructions"
    return Setting("cpu", bool(native), reason)


def fit(
    network: EmotionNet,
    train: Faces,
    valid: Faces,
    *,
    config: Train,
    labels: tuple[str, ...],
    contract: InputContract,
    folder: Path,
) -> tuple[EmotionNet, list[dict[str, Any]]]:
    """Train `network` for config.epochs; returns the network to keep, in evaluation mode, and a row per epoch.

    With patience the epoch that was best on valid is kept, without it the last one. A checkpoint in `folder` is
    written after every epoch; with config.resume training goes on from it, bit for bit as if never stopped.
    """
    where = setting(config)
    log.info("training on %s in %s (%s)", where.device, "bf16 autocast" if where.bf16 else "fp32", where.reason)
    network.to(where.device)
    batch_size = min(config.batch_size, len(train))
    state = _start(network, config, steps=max(1, len(train) // batch_size))
    if config.resume:
        _restore(state, folder / CHECKPOINT, config)
    goal = objective.targets(train, len(labels), vote_share=config.vote_share)
    weights = objective.class_weights(train.truth, len(labels), rule=config.class_weights)
    criterion = objective.loss_function(config, weights).to(where.device)
    batches = Batches(train, goal, contract, augment=config.augment)
    for epoch in range(state.epoch, config.epochs):
        torch.manual_seed(config.seed * 100_003 + epoch)  # dropout; order and augmentation have seeds of their own
        start = perf_counter()
        jobs = plan(len(train), batch_size=batch_size, seed=config.seed, epoch=epoch)
        loss = _one_epoch(state, loader(batches, jobs, workers=config.workers), criterion, where, config.clip)
        seconds = perf_counter() - start
        _judge(state, valid, labels, contract, {"epoch": epoch, "loss": loss, "seconds": round(seconds, 1)})
        state.epoch = epoch + 1
        _save(state, folder / CHECKPOINT, config)
        if config.patience and epoch - state.best["epoch"] >= config.patience:
            log.info("no better valid accuracy for %d epochs: stopping", config.patience)
            break
    if config.patience:
        state.judged.load_state_dict(state.best["state"])
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


def _start(network: EmotionNet, config: Train, *, steps: int) -> State:
    adam = objective.optimiser(network, config)
    warmup = round(config.warmup_epochs * steps)
    schedule = objective.warmup_cosine(adam, warmup=warmup, steps=config.epochs * steps)
    average = None
    if config.ema:
        average = AveragedModel(network, multi_avg_fn=_ramped_average(config.ema), use_buffers=True)
    return State(network, average, adam, schedule)


def _ramped_average(decay: float) -> Callable[..., None]:
    """Exponential moving average whose decay grows to `decay`, so that the random start is forgotten in a few steps."""

    def update(averaged: list[torch.Tensor], current: list[torch.Tensor], count: torch.Tensor) -> None:
        steps = int(count)
        get_ema_multi_avg_fn(min(decay, (1 + steps) / (10 + steps)))(averaged, current, count)

    return update


def _one_epoch(state: State, batches: Any, criterion: nn.Module, where: Setting, clip: float) -> float:
    """Train on every batch; returns the mean loss."""
    state.network.train()
    losses, seen, start = [], 0, perf_counter()
    with counter(f"epoch {state.epoch + 1}", total=len(batches)) as advance:
        for pixels, goal in batches:
            batch = pixels.to(where.device, memory_format=torch.channels_last)
            with torch.autocast(where.device, torch.bfloat16) if where.bf16 else contextlib.nullcontext():
                logits = state.network(batch)
            loss = criterion(logits.float(), goal.to(where.device))
            state.adam.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(state.network.parameters(), clip)
            state.adam.step()
            state.schedule.step()
            if state.average is not None:
                state.average.update_parameters(state.network)
            losses.append(loss.item())
            seen += len(batch)
            advance(1, f"loss {np.mean(losses[-50:]):.3f}  {seen / (perf_counter() - start):.0f} images/s")
    return float(np.mean(losses))


def _judge(state: State, valid: Faces, labels: tuple[str, ...], contract: InputContract, row: dict[str, Any]) -> None:
    result = scores(softmax(predict_logits(state.judged, valid, contract)), valid.truth, labels)
    row |= {"accuracy": result.accuracy, "macro_f1": result.macro_f1, "recall": result.recall}
    state.history.append(row)
    recalls = " ".join(f"{name[:4]} {'-' if r is None else f'{r:.2f}'}" for name, r in result.recall.items())
    log.info(
        "epoch %d: loss %.3f, valid %.2f %% (%s), %.0f s",
        *(row["epoch"] + 1, row["loss"], 100 * result.accuracy, recalls, row["seconds"]),
    )
    if result.accuracy > state.best["accuracy"]:
        kept = {name: tensor.clone() for name, tensor in state.judged.state_dict().items()}
        state.best = {"epoch": row["epoch"], "accuracy": result.accuracy, "state": kept}


def _save(state: State, path: Path, config: Train) -> None:
    content = {
        "epoch": state.epoch,
        "network": state.network.state_dict(),
        "average": state.average.state_dict() if state.average is not None else None,
        "adam": state.adam.state_dict(),
        "schedule": state.schedule.state_dict(),
        "best": state.best,
        "history": state.history,
        "config": _identity(config),
    }
    with written(path) as partial:
        torch.save(content, partial)


def _restore(state: State, path: Path, config: Train) -> None:
    if not path.is_file():
        log.info("no checkpoint in %s: starting from the beginning", path.parent)
        return
    try:
        content = torch.load(path, weights_only=True)
    except Exception as error:
        raise IntegrityError(f"{path} is not a readable checkpoint ({error}); delete it to start anew") from error
    if content["config"] != _identity(config):
        changed = [key for key, value in _identity(config).items() if content["config"].get(key) != value]
        raise IntegrityError(
            f"{path} was written with other settings of {', '.join(changed)}; use those, or a new --out"
        )
    state.network.load_state_dict(content["network"])
    if state.average is not None:
        state.average.load_state_dict(content["average"])
    state.adam.load_state_dict(content["adam"])
    state.schedule.load_state_dict(content["schedule"])
    state.epoch, state.best, state.history = content["epoch"], content["best"], content["history"]
    log.info("resuming after epoch %d from %s", state.epoch, path)


def _identity(config: Train) -> dict[str, Any]:
    """The settings that decide the weights."""
    return {name: value for name, value in vars(config).items() if name not in FREE_TO_CHANGE}
