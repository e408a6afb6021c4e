"""A trained network on disk: safetensors with the card beside it, never a pickled module."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from edgeemo.artifact import written
from edgeemo.card import Card, read_card, write_card
from edgeemo.errors import IntegrityError
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
