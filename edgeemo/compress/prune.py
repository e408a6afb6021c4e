"""Structured pruning: whole channels go, so that what remains is a smaller dense network any runtime speeds up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from edgeemo.card import InputContract
from edgeemo.data import Faces
from edgeemo.errors import UsageError, require
from edgeemo.images import to_input
from edgeemo.train.network import EmotionNet, widths_of

MAX_SHARE = 0.9
IMPORTANCE = {"magnitude": "GroupMagnitudeImportance", "taylor": "GroupTaylorImportance"}
TAYLOR_FACES = 512  # gradients of so many train faces rank the channels
TAYLOR_BATCH = 64


@dataclass(frozen=True)
class Size:
    """What a network costs: its parameters, and the multiply-adds of one face."""

    parameters: int
    macs: int


def size_of(network: nn.Module, contract: InputContract) -> Size:
    """Parameters of a network, and the multiply-adds of its convolutions and linear layers for one face."""
    macs = 0

    def count(layer: Any, _: object, output: torch.Tensor) -> None:
        nonlocal macs
        positions = output.numel() // layer.weight.shape[0]
        macs += positions * layer.weight.numel()

    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.inference_mode():
        network.eval()(_example(contract))
    for hook in hooks:
        hook.remove()
    return Size(sum(p.numel() for p in network.parameters()), macs)


def prune(
    network: EmotionNet,
    contract: InputContract,
    *,
    share: float,
    round_to: int,
    importance: str,
    train: Faces | None = None,
) -> EmotionNet:
    """Remove `share` of the channels of every layer from `network`, which is changed and returned.

    Each layer loses the same share (local ranking): ranked over the whole network, layers of a small one can vanish,
    and the share would say even less about the cost. Every kept width is the multiple of `round_to` nearest to what
    the share leaves, and at least `round_to`. The labels stay. `train` is needed by the importance `taylor`.
    """
    if importance == "taylor":
        _leave_gradients(network, train, contract)
    before = widths_of(network)
    _remove_channels(network, contract, _ratios(network, share, round_to), importance)
    network.zero_grad(set_to_none=True)
    if widths_of(network) == before:
        raise UsageError(
            f"--prune {share:g} with --round-to {round_to} removes no channel: every width rounds to what it was. "
            f"Prune more, or round to less"
        )
    return network.to(memory_format=torch.channels_last)


def _remove_channels(
    network: EmotionNet, contract: InputContract, ratios: dict[nn.Module, float], importance: str
) -> None:
    tp = require("torch_pruning", extra="train", purpose="pruning")
    network.requires_grad_(True)  # a frozen layer would be skipped without a word
    # Attention has no weight per channel, but its mean and maximum over channels tie the last layer to its two inputs.
    attention, network.attention = network.attention, nn.Identity()
    pruner = tp.pruner.BasePruner(
        network,
        _example(contract),
        importance=getattr(tp.importance, IMPORTANCE[importance])(),
        pruning_ratio_dict=ratios,
        ignored_layers=[list(network.head.children())[-1]],
        in_channel_groups={},  # the defaults are dicts that all pruners of a process share
        out_channel_groups={},
        num_heads={},
    )
    pruner.step()
    network.attention = attention


def _ratios(network: EmotionNet, share: float, round_to: int) -> dict[nn.Module, float]:
    """The part of its channels that each layer loses.

    Not torch-pruning's own round_to: that rounds down, and a layer which rounds to nothing keeps all its channels.
    """
    layers = (m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear))
    widths = {layer: layer.weight.shape[0] for layer in layers}
    # Half a channel more, because torch-pruning cuts width * (1 - ratio) down to a whole number.
    return {layer: 1 - (kept_of(width, share, round_to) + 0.5) / width for layer, width in widths.items()}


def kept_of(width: int, share: float, round_to: int) -> int:
    """How many of `width` channels stay: the nearest multiple of `round_to`, at least one, at most all."""
    return min(width, max(round_to, round(width * (1 - share) / round_to) * round_to))


def _leave_gradients(network: EmotionNet, train: Faces | None, contract: InputContract) -> None:
    """Sum up the gradients of the loss over a few train faces, in evaluation mode so that BatchNorm stays as it is."""
    if train is None:
        raise UsageError("the importance 'taylor' needs train faces; give them, or use 'magnitude'")
    network.eval().requires_grad_(True).zero_grad(set_to_none=True)
    chosen = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:TAYLOR_FACES].numpy()
    for start in range(0, len(chosen), TAYLOR_BATCH):
        some = chosen[start : start + TAYLOR_BATCH]
        logits = network(torch.from_numpy(to_input(train.pixels[some], contract)))
        nn.functional.cross_entropy(logits, torch.from_numpy(train.truth[some]), reduction="sum").backward()


def _example(contract: InputContract) -> torch.Tensor:
    return torch.zeros(1, contract.channels, contract.size, contract.size)
