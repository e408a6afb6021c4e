"""Weights that a backbone can start from, out of a file: torchvision's own .pth, or a model of ours."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from edgeemo.errors import IntegrityError, UsageError

OURS = "backbone."  # how the names of an edgeemo model's backbone begin
CLASSIFIER = "fc."  # torchvision's, which we replace
COUNTER = "num_batches_tracked"  # of a BatchNorm; old files lack it

Tensors = dict[str, torch.Tensor]


def load_backbone(module: nn.Module, file: Path) -> None:
    """Fill a backbone from `file`; UsageError if the file holds another network."""
    state = _read(file)
    own = {name.removeprefix(OURS): tensor for name, tensor in state.items() if name.startswith(OURS)}
    found = own or _in_our_order(state, module)
    wanted = {name: tensor.shape for name, tensor in module.state_dict().items() if not name.endswith(COUNTER)}
    if wanted != {name: tensor.shape for name, tensor in found.items() if not name.endswith(COUNTER)}:
        raise UsageError(f"--weights {file} holds another network: its tensors do not have this backbone's shapes")
    module.load_state_dict(found, strict=False)  # only the counters may be missing


def _read(file: Path) -> Tensors:
    if not file.is_file():
        raise UsageError(f"--weights {file}: no such file; expected imagenet, none, or a .pth or .safetensors file")
    try:
        state = load_file(file) if file.suffix == ".safetensors" else torch.load(file, weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise IntegrityError(f"--weights {file} is not a plain state dict: {error}") from error
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise IntegrityError(f"--weights {file} is not a plain state dict: names with tensors")
    return state


def _in_our_order(state: Tensors, module: nn.Module) -> Tensors:
    """The tensors under our names: torchvision's layers stand in the same order."""
    names = [name for name in module.state_dict() if not name.endswith(COUNTER)]
    tensors = [t for name, t in state.items() if not name.startswith(CLASSIFIER) and not name.endswith(COUNTER)]
    return dict(zip(names, tensors, strict=False)) if len(names) == len(tensors) else {}
