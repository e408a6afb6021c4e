"""A trained network on disk: safetensors with the card beside it, never a pickled module."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from edgeemo.artifact import written
from edgeemo.card import Card, read_card, write_card
from edgeemo.errors import IntegrityError, UsageError
from edgeemo.options import read_settings
from edgeemo.stages import Train
from edgeemo.train import checkpoint
from edgeemo.train.network import EmotionNet, build

MODEL, LOG = "model.safetensors", "log.json"


def save(network: EmotionNet, card: Card, folder: Path) -> Path:
    """Write model.safetensors and its card; returns the model's path."""
    path = folder / MODEL
    state = {name: tensor.detach().contiguous() for name, tensor in network.state_dict().items()}
    with written(path) as partial:
        save_file(state, partial)
    write_card(path, card)
    return path


def holds_training(folder: Path) -> bool:
    """Whether a training has written into the folder, to its end or not."""
    return (folder / LOG).is_file() or bool(checkpoint.in_folder(folder))


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


def trained(folder: Path, card: Card, *, data: str | None = None) -> Train:
    """The training's settings from the run's log, else from the card, which keeps no folders; `data` overrides."""
    file = folder / LOG
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))["config"] if file.is_file() else card.history[0].config
        config: Train = read_settings(Train, settings)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise IntegrityError(f"{folder} does not say how it was trained ({error}); train it again") from error
    if not data and not file.is_file() and config.data.partition(":")[0] != "synthetic":
        raise UsageError(f"{file} is missing, so where the faces lie is not known; name them with --data")
    return replace(config, data=data or config.data)
