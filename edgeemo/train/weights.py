"""Weights on disk: safetensors with the card beside it, and foreign backbones; nothing is ever unpickled freely."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from edgeemo.artifact import written
from edgeemo.card import Card, read_card, write_card
from edgeemo.errors import IntegrityError, UsageError
from edgeemo.train.network import EmotionNet, build

MODEL = "model.safetensors"


def save(network: EmotionNet, card: Card, folder: Path) -> Path:
    """Write model.safetensors and its card; returns the model's path."""
    path = folder / MODEL
    state = {name: tensor.detach().contiguous() for name, tensor in network.state_dict().items()}
    with written(path) as partial:
        save_file(state, partial)
    write_card(path, card)
    return path


def load(folder: Path) -> tuple[EmotionNet, Card]:
    """The network of a run folder, in evaluation mode, and its card."""
    path = folder / MODEL
    card = read_card(path)
    network = build(card.architecture)
    try:
        network.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        raise IntegrityError(f"{path} does not fit the architecture in its card: {error}") from error
    return network.eval(), card


def backbone_state(file: Path, module: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of `file` under the names of `module`: torchvision's order is ours, its names are not."""
    if not file.is_file():
        raise UsageError(f"--weights {file}: no such file; expected imagenet, none, or a .pth or .safetensors file")
    try:
        state = load_file(file) if file.suffix == ".safetensors" else torch.load(file, weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise IntegrityError(f"--weights {file} is not a plain state dict: {error}") from error
    prefix = "backbone."
    own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    if own:
        return own
    names = [name for name in module.state_dict() if not name.endswith("num_batches_tracked")]
    foreign = [t for name, t in state.items() if not name.startswith("fc.") and "num_batches" not in name]
    shapes_agree = len(names) == len(foreign) and all(
        module.state_dict()[name].shape == tensor.shape for name, tensor in zip(names, foreign, strict=True)
    )
    if not shapes_agree:
        raise UsageError(f"--weights {file} holds another network: its tensors do not have this backbone's shapes")
    counters = {name: t for name, t in module.state_dict().items() if name.endswith("num_batches_tracked")}
    return dict(zip(names, foreign, strict=True)) | counters
