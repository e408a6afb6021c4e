"""The state of a training on disk: written whole after every epoch, read back without unpickling anything freely."""

from __future__ import annotations

import logging
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel

from edgeemo.artifact import written
from edgeemo.errors import IntegrityError
from edgeemo.train.network import EmotionNet

log = logging.getLogger(__name__)
CHECKPOINT = "checkpoint.pt"
PARTS = ("network", "average", "adam", "schedule")  # of a State, each with a state dict of its own


@dataclass
class State:
    """Everything that changes while training runs."""

    network: EmotionNet
    average: AveragedModel | None
    adam: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    epoch: int = 0  # finished ones
    best: dict[str, Any] = field(default_factory=lambda: {"epoch": -1, "accuracy": -1.0, "state": None})
    history: list[dict[str, Any]] = field(default_factory=list)  # a row per finished epoch

    @property
    def judged(self) -> EmotionNet:
        """The network that is evaluated and kept: the moving average where there is one."""
        if self.average is None:
            return self.network
        averaged: EmotionNet = self.average.module  # type: ignore[assignment]
        return averaged


def save(state: State, path: Path, identity: dict[str, Any], *, threads: int) -> None:
    """Write the state, and the identity of the run: what a resumed one must have in common with it."""
    content: dict[str, Any] = {"epoch": state.epoch, "best": state.best, "history": state.history}
    for part in PARTS:
        holder = getattr(state, part)
        content[part] = None if holder is None else holder.state_dict()
    with written(path) as partial:
        torch.save(content | {"identity": identity, "threads": threads}, partial)


def restore(state: State, path: Path, identity: dict[str, Any], *, threads: int) -> None:
    """Read a state back; IntegrityError if the file is damaged or belongs to another run. No file: start anew."""
    if not path.is_file():
        log.info("no checkpoint in %s: starting from the beginning", path.parent)
        return
    content = _read(path, state)
    changed = [key for key, value in identity.items() if content["identity"].get(key) != value]
    if changed:
        raise IntegrityError(
            f"{path} was written with other settings of {', '.join(changed)}; use those, or a new --out"
        )
    if content["threads"] != threads:
        log.warning(
            "%d threads instead of %d: sums round differently, so the bits will differ", threads, content["threads"]
        )
    for part in PARTS:
        if (holder := getattr(state, part)) is not None:
            holder.load_state_dict(content[part])
    state.epoch, state.best, state.history = content["epoch"], content["best"], content["history"]
    log.info("resuming after epoch %d from %s", state.epoch, path)


def _read(path: Path, state: State) -> dict[str, Any]:
    advice = "delete it to start anew"
    try:
        device = next(state.network.parameters()).device
        content: dict[str, Any] = torch.load(path, weights_only=True, map_location=device)
        missing = {"epoch", "best", "history", "identity", "threads", *PARTS} - set(content)
    except (OSError, RuntimeError, EOFError, TypeError, ValueError, pickle.UnpicklingError) as error:
        raise IntegrityError(f"{path} is not a readable checkpoint ({error}); {advice}") from error
    if missing:
        raise IntegrityError(f"{path} is not a checkpoint of this edgeemo: it lacks {sorted(missing)}; {advice}")
    return content
