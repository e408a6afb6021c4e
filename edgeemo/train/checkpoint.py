"""Checkpoints: written atomically as folders, the last two kept, loaded without executing pickled code.

`checkpoints/00000123/` holds weights.safetensors (the network, its moving average, the best weights so far) and
state.pt (optimizer, schedule, metrics, history and the identity of the run), with their hashes in SHA256SUMS.
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

from edgeemo.artifact import atomic_folder, hash_file
from edgeemo.errors import IntegrityError, UsageError
from edgeemo.labels import label_set
from edgeemo.limits import check_shortage
from edgeemo.resume import CHECKPOINTS as FOLDER
from edgeemo.resume import PUBLISHED, RESOLVED
from edgeemo.train.backbones import backbone
from edgeemo.train.network import EmotionNet

log = logging.getLogger(__name__)
WEIGHTS, STATE, SUMS = "weights.safetensors", "state.pt", "SHA256SUMS"  # the last is in the format of sha256sum --check
HEX_DIGITS = 64  # of a SHA-256
KEPT = 2  # whatever ended the run may have damaged the newest one
ADVICE = f"delete the run's {FOLDER} to start again"
DAMAGE = (OSError, RuntimeError, EOFError, TypeError, ValueError, KeyError, pickle.UnpicklingError, SafetensorError)

Tensors = dict[str, torch.Tensor]


@dataclass
class TrainingState:
    """Everything that changes during training; random numbers depend on seed, epoch and step alone."""

    network: EmotionNet
    average: AveragedModel | None
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    precision: Precision  # the loss scale of fp16
    loss: MeanMetric  # over the current epoch
    epoch: int = 0  # number of finished epochs
    step: int = 0  # number of finished steps of the current epoch
    best: dict[str, Any] = field(default_factory=lambda: {"epoch": -1, "accuracy": -1.0})
    best_weights: Tensors = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)  # one row per finished epoch

    def __post_init__(self) -> None:
        self.loss.persistent(mode=True)

    @property
    def evaluated(self) -> EmotionNet:
        """The network that is evaluated and saved: the moving average if there is one."""
        if self.average is None:
            return self.network
        averaged: EmotionNet = self.average.module  # type: ignore[assignment]
        return averaged

    @property
    def components(self) -> dict[str, Any]:
        """The objects with a small state dict, by name."""
        return {name: getattr(self, name) for name in ("optimizer", "schedule", "precision", "loss")}

    def weights(self) -> Tensors:
        """Return every large tensor by name; `average` includes its number of updates."""
        named = {"network": self.network.state_dict(), "best": self.best_weights}
        if self.average is not None:
            named["average"] = self.average.state_dict()
        return {f"{part}.{name}": t.detach() for part, tensors in named.items() for name, t in tensors.items()}


def list_checkpoints(run: Path) -> list[Path]:
    """List the checkpoints of a run folder, oldest first."""
    return sorted(path for path in (run / FOLDER).glob("[0-9]*") if path.is_dir())


def remove(run: Path) -> None:
    """Delete the checkpoints of a run folder."""
    shutil.rmtree(run / FOLDER, ignore_errors=True)


def save(state: TrainingState, run: Path, *, steps: int, identity: dict[str, Any], parallelism: dict[str, int]) -> None:
    """Write the state after `steps` steps in total, with the identity that a resumed run must match."""
    with atomic_folder(run / FOLDER / f"{steps:08d}") as partial:
        save_file({name: t.contiguous() for name, t in state.weights().items()}, partial / WEIGHTS)
        small = {name: part.state_dict() for name, part in state.components.items()}
        progress = {name: getattr(state, name) for name in ("epoch", "step", "best", "history")}
        torch.save({**small, **progress, "identity": identity, "arithmetic": parallelism}, partial / STATE)
        (partial / SUMS).write_text(_hash_lines(partial), encoding="ascii")
    for old in list_checkpoints(run)[:-KEPT]:
        shutil.rmtree(old)


def restore(state: TrainingState, run: Path, *, identity: dict[str, Any], parallelism: dict[str, int]) -> None:
    """Restore the newest intact checkpoint.

    Raises IntegrityError if all are damaged, UsageError if it belongs to a run with another identity.
    """
    paths = list_checkpoints(run)
    if not paths:
        log.info("no checkpoint in %s: starting from the beginning", run)
        return
    damage = []
    for path in reversed(paths):
        try:
            weights, content = _read(path, state)
        except DAMAGE as error:
            check_shortage(error)
            damage.append(f"{path} is not a readable checkpoint ({error})")
            log.warning("%s; trying the previous one", damage[-1])
            continue
        _check_same_run(path, content, identity, parallelism)
        _load_into(state, weights, content)
        log.info("resuming in epoch %d after step %d from %s", state.epoch + 1, state.step, path)
        return
    raise IntegrityError(f"{damage[0]}; {ADVICE}")


def load_last_weights(run: Path) -> Tensors:
    """Return the last weights, without moving average, from the newest checkpoint; IntegrityError if there is none."""
    if not (paths := list_checkpoints(run)):
        raise IntegrityError(
            f"{run} has no {FOLDER}; expected {run / FOLDER} as training wrote it. Train again, or omit --last"
        )
    if not _is_intact(paths[-1]):
        raise IntegrityError(f"{paths[-1]} is damaged: its files do not have the hashes in {SUMS}; train it again")
    return _select(load_file(paths[-1] / WEIGHTS), "network")


def _hash_lines(folder: Path) -> str:
    return "".join(f"{hash_file(folder / name)}  {name}\n" for name in (WEIGHTS, STATE))


def _is_intact(path: Path) -> bool:
    return (path / SUMS).read_text(encoding="ascii") == _hash_lines(path)


def _read(path: Path, state: TrainingState) -> tuple[Tensors, dict[str, Any]]:
    if not _is_intact(path):
        raise ValueError(f"its files do not have the hashes in {SUMS}")
    device = next(state.network.parameters()).device
    content: dict[str, Any] = torch.load(path / STATE, weights_only=True, map_location=device)
    missing = {"epoch", "step", "best", "history", "identity", "arithmetic", *state.components} - set(content)
    if missing:
        raise ValueError(f"it lacks {sorted(missing)}")
    return load_file(path / WEIGHTS, device=str(device)), content


def _check_same_run(path: Path, content: dict[str, Any], identity: dict[str, Any], parallelism: dict[str, int]) -> None:
    stored = _resolve(content["identity"], identity)
    stored = {key: value for key, value in stored.items() if key in identity or value}
    keys = list(dict.fromkeys([*identity, *stored]))  # a key that only one of them has, such as teacher, differs too
    pairs = [(key, stored.get(key), identity.get(key)) for key in keys]
    changed = [_describe_change(key, old, new) for key, old, new in pairs if old != new and (old or new is not None)]
    if changed:
        raise UsageError(
            f"{path} was written with other settings: {', '.join(changed)}; use the stored ones, or another --out"
        )
    for name, now in parallelism.items():
        if (before := content["arithmetic"].get(name)) != now:
            log.warning(
                "%d %s instead of %d: sums are rounded differently, so the weights will not be bit-identical",
                *(now, name, before),
            )


def _resolve(stored: dict[str, Any], identity: dict[str, Any]) -> dict[str, Any]:
    """Return a stored identity with what its settings stand for; earlier versions stored them as typed.

    The hash of a weights file, of which they stored the path, is not known: the file is taken for the same.
    """
    if "label_set" not in stored:
        return stored
    resolved = {name: value for name, value in stored.items() if name not in RESOLVED}
    resolved["labels"] = list(label_set(stored["label_set"]).labels)
    resolved["size"] = stored["size"]
    if "weights" in identity:  # of a training; fine-tuning has the hash of its network
        is_file = stored["weights"] not in PUBLISHED and identity["weights"] not in PUBLISHED
        resolved["weights"] = identity["weights"] if is_file else stored["weights"]
        resolved["size"] = stored["size"] or backbone(stored["backbone"]).size
    if stored["weights"] == "none":
        resolved.pop("backbone_lr", None)
    return resolved


def _describe_change(key: str, stored: Any, requested: Any) -> str:
    """Return the key with both values, or alone if they are hashes."""
    hashes = any(isinstance(value, str) and len(value) == HEX_DIGITS for value in (stored, requested))
    return key if hashes else f"{key} (stored {stored!r}, requested {requested!r})"


def _load_into(state: TrainingState, weights: Tensors, content: dict[str, Any]) -> None:
    state.network.load_state_dict(_select(weights, "network"))
    if state.average is not None:
        state.average.load_state_dict(_select(weights, "average"))
    state.best_weights = _select(weights, "best")
    for name, part in state.components.items():
        part.load_state_dict(content[name])
    for name in ("epoch", "step", "best", "history"):
        setattr(state, name, content[name])


def _select(weights: Tensors, name: str) -> Tensors:
    prefix = f"{name}."
    return {key.removeprefix(prefix): tensor for key, tensor in weights.items() if key.startswith(prefix)}
