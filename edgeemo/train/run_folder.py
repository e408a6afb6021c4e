"""The run folder: model.safetensors with its card, never a pickled module, and the log with the settings."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from edgeemo.artifact import atomic_write
from edgeemo.card import Card, read_card, write_card
from edgeemo.errors import IntegrityError, UsageError
from edgeemo.options import check, read_settings
from edgeemo.stages import Train
from edgeemo.train import checkpoint
from edgeemo.train.network import EmotionNet, build

MODEL, LOG = "model.safetensors", "log.json"


def save(network: EmotionNet, card: Card, folder: Path) -> Path:
    """Write model.safetensors and its card; return the path of the model."""
    path = folder / MODEL
    state = {name: tensor.detach().contiguous() for name, tensor in network.state_dict().items()}
    with atomic_write(path) as partial:
        save_file(state, partial)
    write_card(path, card)
    return path


def holds_training(folder: Path) -> bool:
    """Return whether a training run, finished or not, has written to the folder."""
    return (folder / LOG).is_file() or bool(checkpoint.list_checkpoints(folder))


def load(folder: Path) -> tuple[EmotionNet, Card]:
    """Load the network of a run folder, in evaluation mode, and its card."""
    if folder.is_file():
        raise UsageError(f"{folder} is a file; expected the run folder of  edgeemo train, which holds {MODEL}")
    path = folder / MODEL
    card = read_card(path)
    network = build(card.architecture)
    try:
        network.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        raise IntegrityError(f"{path} does not fit the architecture in its card: {error}") from error
    return network.eval(), card


def load_config(folder: Path, card: Card, *, data: str | None = None) -> Train:
    """Return the settings of the run, from its log or else its card, which has no folders; `data` overrides theirs."""
    file = folder / LOG
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))["config"] if file.is_file() else card.history[0].config
        config: Train = read_settings(Train, {"data": settings["data"], **settings})
        check(config)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, UsageError, RecursionError) as error:
        source = file if file.is_file() else folder / MODEL
        raise IntegrityError(f"{source} does not record how the run was trained ({error}); train it again") from error
    if not data and not file.is_file() and config.data.partition(":")[0] != "synthetic":
        raise UsageError(f"{file} is missing, so the path of the faces is unknown; give it with --data")
    return replace(config, data=data or config.data)
