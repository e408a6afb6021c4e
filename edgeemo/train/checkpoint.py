"""The state of a training on disk: whole folders, the last two kept, read back without unpickling anything freely.

`checkpoints/00000123/` holds weights.safetensors (the network, its moving average, the best so far) and state.pt
(optimizer, schedule, meters, history and the identity of the run), with their hashes in SHA256SUMS.
"""

from __future__ import annotations

import logging
import pickle
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import Precision
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.optim.swa_utils import AveragedModel
from torchmetrics import MeanMetric

from edgeemo.artifact import sha256_of, written_folder
from edgeemo.errors import IntegrityError, UsageError
from edgeemo.train.network import EmotionNet

log = logging.getLogger(__name__)
FOLDER = "checkpoints"
WEIGHTS, STATE, SUMS = "weights.safetensors", "state.pt", "SHA256SUMS"  # sha256sum --check reads the last
HEX_DIGITS = 64  # of a SHA-256
KEPT = 2  # the newest may be damaged by what ended the run
ADVICE = f"delete the run's {FOLDER} to start anew"
DAMAGE = (OSError, RuntimeError, EOFError, TypeError, ValueError, KeyError, pickle.UnpicklingError, SafetensorError)

Tensors = dict[str, torch.Tensor]


@dataclass
class State:
    """Everything that changes while training runs; random numbers depend on seed, epoch and step alone."""

    network: EmotionNet
    average: AveragedModel | None
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    precision: Precision  # the loss scale of fp16
    loss: MeanMetric  # over the epoch so far
    epoch: int = 0  # finished ones
    step: int = 0  # finished ones of the epoch under way
    best: dict[str, Any] = field(default_factory=lambda: {"epoch": -1, "accuracy": -1.0})
    best_weights: Tensors = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)  # a row per finished epoch

    def __post_init__(self) -> None:
        self.loss.persistent(mode=True)

    @property
    def judged(self) -> EmotionNet:
        """The network that is evaluated and kept: the moving average where there is one."""
        if self.average is None:
            return self.network
        averaged: EmotionNet = self.average.module  # type: ignore[assignment]
        return averaged

    @property
    def parts(self) -> dict[str, Any]:
        """What has a small state dict of its own, by name."""
        return {name: getattr(self, name) for name in ("optimizer", "schedule", "precision", "loss")}

    def weights(self) -> Tensors:
        """Every large tensor under one name; `average` has the count of its updates too."""
        named = {"network": self.network.state_dict(), "best": self.best_weights}
        if self.average is not None:
            named["average"] = self.average.state_dict()
        return {f"{part}.{name}": t.detach() for part, tensors in named.items() for name, t in tensors.items()}


def in_folder(run: Path) -> list[Path]:
    """The checkpoints of a run folder, oldest first."""
    return sorted(path for path in (run / FOLDER).glob("[0-9]*") if path.is_dir())


def remove(run: Path) -> None:
    """Forget the checkpoints of a run folder."""
    shutil.rmtree(run / FOLDER, ignore_errors=True)


def save(state: State, run: Path, *, steps: int, identity: dict[str, Any], arithmetic: dict[str, int]) -> None:
    """Write the state after `steps` steps in all; what a resumed run must have in common with it goes along."""
    with written_folder(run / FOLDER / f"{steps:08d}") as partial:
        save_file({name: t.contiguous() for name, t in state.weights().items()}, partial / WEIGHTS)
        small = {name: part.state_dict() for name, part in state.parts.items()}
        progress = {name: getattr(state, name) for name in ("epoch", "step", "best", "history")}
        torch.save({**small, **progress, "identity": identity, "arithmetic": arithmetic}, partial / STATE)
        (partial / SUMS).write_text(_sums(partial), encoding="ascii")
    for old in in_folder(run)[:-KEPT]:
        shutil.rmtree(old)


def restore(state: State, run: Path, *, identity: dict[str, Any], arithmetic: dict[str, int]) -> None:
    """Read the newest whole checkpoint back; IntegrityError if all are damaged, UsageError if it is another run's."""
    found = in_folder(run)
    if not found:
        log.info("no checkpoint in %s: starting from the beginning", run)
        return
    damage = []
    for path in reversed(found):
        try:
            weights, content = _read(path, state)
        except DAMAGE as error:
            damage.append(f"{path} is not a readable checkpoint ({error})")
            log.warning("%s; trying the one before", damage[-1])
            continue
        _check_same_run(path, content, identity, arithmetic)
        _fill(state, weights, content)
        log.info("resuming in epoch %d after step %d from %s", state.epoch + 1, state.step, path)
        return
    raise IntegrityError(f"{damage[0]}; {ADVICE}")


def network_weights(run: Path) -> Tensors:
    """The newest checkpoint's weights as trained last, without moving average; IntegrityError if there are none."""
    if not (found := in_folder(run)):
        raise IntegrityError(f"{run} has no {FOLDER}; they are kept until the folder is cleaned")
    if not _is_whole(found[-1]):
        raise IntegrityError(f"{found[-1]} is damaged: its files do not have the hashes in {SUMS}; train it again")
    return _part(load_file(found[-1] / WEIGHTS), "network")


def _sums(folder: Path) -> str:
    return "".join(f"{sha256_of(folder / name)}  {name}\n" for name in (WEIGHTS, STATE))


def _is_whole(path: Path) -> bool:
    return (path / SUMS).read_text(encoding="ascii") == _sums(path)


def _read(path: Path, state: State) -> tuple[Tensors, dict[str, Any]]:
    if not _is_whole(path):
        raise ValueError(f"its files do not have the hashes in {SUMS}")
    device = next(state.network.parameters()).device
    content: dict[str, Any] = torch.load(path / STATE, weights_only=True, map_location=device)
    missing = {"epoch", "step", "best", "history", "identity", "arithmetic", *state.parts} - set(content)
    if missing:
        raise ValueError(f"it lacks {sorted(missing)}")
    return load_file(path / WEIGHTS, device=str(device)), content


def _check_same_run(path: Path, content: dict[str, Any], identity: dict[str, Any], arithmetic: dict[str, int]) -> None:
    before = content["identity"]
    keys = list(dict.fromkeys([*identity, *before]))  # what only one of them has, as a teacher, is a difference too
    both = [(key, before.get(key), identity.get(key)) for key in keys]
    changed = [_told(key, there, here) for key, there, here in both if there != here]
    if changed:
        raise UsageError(f"{path} was written with other settings: {', '.join(changed)}; use those, or a new --out")
    for name, now in arithmetic.items():
        if (there := content["arithmetic"].get(name)) != now:
            log.warning("%d %s instead of %d: sums round differently, so the bits will differ", now, name, there)


def _told(key: str, before: Any, now: Any) -> str:
    """What was changed, and from what to what where a person can read it: hashes say nothing."""
    hashes = any(isinstance(value, str) and len(value) == HEX_DIGITS for value in (before, now))
    return key if hashes else f"{key} {before!r} there, {now!r} here"


def _fill(state: State, weights: Tensors, content: dict[str, Any]) -> None:
    state.network.load_state_dict(_part(weights, "network"))
    if state.average is not None:
        state.average.load_state_dict(_part(weights, "average"))
    state.best_weights = _part(weights, "best")
    for name, part in state.parts.items():
        part.load_state_dict(content[name])
    for name in ("epoch", "step", "best", "history"):
        setattr(state, name, content[name])


def _part(weights: Tensors, name: str) -> Tensors:
    prefix = f"{name}."
    return {key.removeprefix(prefix): tensor for key, tensor in weights.items() if key.startswith(prefix)}
