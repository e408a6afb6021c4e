"""Initial weights of a backbone: published ImageNet weights, or a file (torchvision's or a model of edgeemo)."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from edgeemo.errors import IntegrityError, MachineError, UsageError
from edgeemo.limits import check_shortage
from edgeemo.train.backbones import Backbone, Tensors, load_published

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network")  # of training scripts' checkpoints
PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and DistributedDataParallel, and of torch.compile
COUNTER = "n_averaged"  # of torch's AveragedModel, beside the weights
OURS = "backbone."  # prefix of the backbone's tensors in an edgeemo model


def build_trunk(entry: Backbone, name: str, *, weights: str) -> nn.Sequential:
    """Return the initialised backbone; `weights` is imagenet, none or a file."""
    model = entry.model()
    if weights == "none":
        return entry.trunk(model)
    if weights == "imagenet":
        load_published(model, _download(entry, name), source=f"the download of {name}")
        return entry.trunk(model)
    return _build_from_file(entry, model, Path(weights))


def _download(entry: Backbone, name: str) -> Tensors:
    if entry.download is None:
        raise UsageError(f"there are no ImageNet weights for {name}; use --weights none or a file")
    if torch.hub.get_dir().startswith("~"):  # it would make a folder of that name here
        raise MachineError(
            "this user has no home folder for the ImageNet weights.  Set TORCH_HOME to a folder for downloads, or give "
            "a file, --weights FILE"
        )
    try:
        return entry.download()
    except (OSError, RuntimeError) as error:  # torch.hub raises RuntimeError for a wrong hash
        place = (
            "Set TORCH_HOME to a folder that can be written, or give" if getattr(error, "filename", None) else "Give"
        )
        raise MachineError(
            f"cannot download the ImageNet weights of {name} ({error}).  {place} a file instead, --weights FILE "
            f"(torchvision's own .pth), or start from scratch, --weights none"
        ) from error


def _build_from_file(entry: Backbone, model: nn.Module, file: Path) -> nn.Sequential:
    state = _read_state_dict(file)
    trunk = entry.trunk(model)
    own = {name.removeprefix(OURS): tensor for name, tensor in state.items() if name.startswith(OURS)}
    load_published(trunk if own else model, own or state, source=f"--weights {file}")
    return trunk


def _load_pth(file: Path) -> Any:
    return torch.load(file, map_location="cpu", weights_only=True)  # opens files saved on a GPU without one


def check_weights_file(file: Path) -> None:
    """Raise UsageError if there is no such file."""
    if not file.is_file():
        raise UsageError(f"--weights {file}: no such file; expected imagenet, none, or a .pth or .safetensors file")


def _read_state_dict(file: Path) -> Tensors:
    check_weights_file(file)
    try:
        state = load_file(file) if file.suffix.lower() == ".safetensors" else _load_pth(file)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        check_shortage(error)
        # torch's own message is left out, because it recommends unsafe loading.
        raise IntegrityError(
            f"--weights {file} is not a plain state dict: expected a .safetensors file, or a .pth file as "
            "torch.save(model.state_dict(), FILE) writes it"
        ) from error
    state = _unwrap(state)
    if not _is_state_dict(state):
        raise IntegrityError(
            f"--weights {file} is not a plain state dict: expected names with tensors, got {_describe(state)}"
        )
    state = _strip_prefixes({name: tensor for name, tensor in state.items() if name != COUNTER})
    if broken := [name for name, tensor in state.items() if not bool(tensor.isfinite().all())]:
        raise IntegrityError(
            f"--weights {file} holds NaN or infinity in {len(broken)} tensors, such as {broken[0]}; expected the "
            "weights of a training that did not diverge"
        )
    return state


def _unwrap(content: Any) -> Any:
    """Return the state dict in a training checkpoint, which keeps it under one of WRAPPERS; other content as it is."""
    if not isinstance(content, dict) or _is_state_dict(content):
        return content
    inner = [content[key] for key in WRAPPERS if _is_state_dict(content.get(key))]
    return inner[0] if len(inner) == 1 else content


def _is_state_dict(content: Any) -> bool:
    return isinstance(content, dict) and all(isinstance(tensor, torch.Tensor) for tensor in content.values())


def _strip_prefixes(state: Tensors) -> Tensors:
    """Return a state dict without the prefixes that torch's wrappers give to every name."""
    while prefix := next((one for one in PREFIXES if state and all(name.startswith(one) for name in state)), ""):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _describe(content: Any) -> str:
    if not isinstance(content, dict):
        return type(content).__name__
    return f"the keys {', '.join(map(str, list(content)[:6]))}; save only the state dict"
