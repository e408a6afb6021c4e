"""Weights that a backbone can start from: published ones, or out of a file, torchvision's own or a model of ours."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from edgeemo.errors import IntegrityError, MachineError, UsageError
from edgeemo.train.backbones import Backbone, Tensors, fill

OURS = "backbone."  # how the names of an edgeemo model's backbone begin


def trunk_of(entry: Backbone, name: str, *, weights: str) -> nn.Sequential:
    """The backbone, initialised; `weights` is imagenet, none or a file."""
    whole = entry.whole()
    if weights == "none":
        return entry.trunk(whole)
    if weights == "imagenet":
        fill(whole, _published(entry, name), source=f"the download of {name}")
        return entry.trunk(whole)
    return _from_file(entry, whole, Path(weights))


def _published(entry: Backbone, name: str) -> Tensors:
    if entry.published is None:
        raise UsageError(f"there are no ImageNet weights for {name}; use --weights none or a file")
    try:
        return entry.published()
    except (OSError, RuntimeError) as error:  # torch.hub raises the second for a download with a wrong hash
        raise MachineError(
            f"cannot download the ImageNet weights of {name} ({error}).  Give a file instead, --weights FILE "
            f"(torchvision's own .pth), or start from scratch, --weights none"
        ) from error


def _from_file(entry: Backbone, whole: nn.Module, file: Path) -> nn.Sequential:
    state = _read(file)
    trunk = entry.trunk(whole)
    own = {name.removeprefix(OURS): tensor for name, tensor in state.items() if name.startswith(OURS)}
    fill(trunk if own else whole, own or state, source=f"--weights {file}")
    return trunk


def _unpickled(file: Path) -> Any:
    return torch.load(file, map_location="cpu", weights_only=True)  # a file saved on a GPU opens without one


def _read(file: Path) -> Tensors:
    if not file.is_file():
        raise UsageError(f"--weights {file}: no such file; expected imagenet, none, or a .pth or .safetensors file")
    try:
        state = load_file(file) if file.suffix == ".safetensors" else _unpickled(file)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        # Without torch's own words, which advise to load it unsafely.
        raise IntegrityError(
            f"--weights {file} is no plain state dict: expected a .safetensors file, or a .pth file as "
            "torch.save(model.state_dict(), FILE) writes it"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise IntegrityError(f"--weights {file} is not a plain state dict: names with tensors")
    return state
