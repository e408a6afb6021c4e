"""The training loop, shared by training and by recovery after pruning."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from edgeemo.card import InputContract
from edgeemo.data import Faces
from edgeemo.images import to_input
from edgeemo.machine import this_machine, usable_cores
from edgeemo.metrics import scores, softmax
from edgeemo.progress import counter
from edgeemo.stages import Train
from edgeemo.train import objective
from edgeemo.train.batches import Batches, loader, plan
from edgeemo.train.checkpoint import CHECKPOINT, State, restore, save
from edgeemo.train.network import EmotionNet

log = logging.getLogger(__name__)
EVALUATION_BATCH = 256
FREE_TO_CHANGE = ("resume", "out", "threads", "workers", "target_accuracy")  # between two sittings of one run


@dataclass(frozen=True)
class Setting:
    """Where and how the arithmetic runs, and why."""

    device: str
    bf16: bool
    threads: int
    reason: str


def setting(config: Train) -> Setting:
    """Device and precision for a config; an automatic choice carries its reason."""
    threads = config.threads or len(usable_cores())
    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        bf16 = config.precision != "fp32" and torch.cuda.is_bf16_supported()
        return Setting("cuda", bf16, threads, "CUDA device found")
    native = {"avx512_bf16", "amx_bf16"} & set(this_machine().features)
    if config.precision != "auto":
        return Setting("cpu", config.precision == "bf16", threads, f"--precision {config.precision}")
    reason = f"this CPU has {', '.join(sorted(native))}" if native else "this CPU has no bf16 instructions"
    return Setting("cpu", bool(native), threads, reason)


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
    file, identity = folder / CHECKPOINT, _identity(config, where, train, valid)
    if config.resume:
        restore(state, file, identity, threads=where.threads)
    goal = objective.targets(train, len(labels), vote_share=config.vote_share)
    weights = objective.class_weights(train.truth, len(labels), rule=config.class_weights)
    criterion = objective.loss_function(config, weights).to(where.device)
    batches = Batches(train, goal, contract, augment=config.augment)
    while state.epoch < config.epochs and not _out_of_patience(state, config.patience):
        epoch, start = state.epoch, perf_counter()
        torch.manual_seed(config.seed * 100_003 + epoch)  # dropout; order and augmentation have seeds of their own
        jobs = plan(len(train), batch_size=batch_size, seed=config.seed, epoch=epoch)
        loss = _one_epoch(state, loader(batches, jobs, workers=config.workers), criterion, where, config.clip)
        row = {"epoch": epoch, "loss": loss, "seconds": round(perf_counter() - start, 1)}
        _judge(state, valid, labels, contract, row)
        state.epoch += 1
        save(state, file, identity, threads=where.threads)
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


def _identity(config: Train, where: Setting, train: Faces, valid: Faces) -> dict[str, Any]:
    """What decides the weights: settings, arithmetic and faces."""
    settings = {name: value for name, value in vars(config).items() if name not in FREE_TO_CHANGE}
    faces = {"train faces": train.content_sha256, "valid faces": valid.content_sha256}
    return {**settings, "device": where.device, "bf16": where.bf16, **faces}
