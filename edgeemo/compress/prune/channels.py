"""Structured pruning: whole channels go, so that what remains is a smaller dense network any runtime speeds up."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
from torch import nn

from edgeemo.card import InputContract
from edgeemo.data import Faces
from edgeemo.errors import UsageError
from edgeemo.images import to_input
from edgeemo.packages import require
from edgeemo.train.network import EmotionNet, widths_of

MAX_SHARE = 0.9
RANKINGS = ("layer", "global")
# What a channel is worth: the norm of its own weights (Li et al. 2017), that of all weights which go with it (Fang et
# al. 2023), or to first order what its removal changes the loss by: the sum of |weight * gradient| (after Molchanov
# et al. 2019, who sum before they take the square).
IMPORTANCE: dict[str, tuple[str, dict[str, Any]]] = {
    "magnitude": ("GroupMagnitudeImportance", {"group_reduction": "first"}),
    "group-norm": ("GroupMagnitudeImportance", {}),
    "taylor": ("GroupTaylorImportance", {}),
}
TAYLOR_FACES = 512  # gradients of so many train faces rank the channels
TAYLOR_BATCH = 64


@dataclass(frozen=True)
class Plan:
    """Which channels go, and how many."""

    share: float = 0.5
    round_to: int = 8
    importance: str = "group-norm"
    ranking: str = "layer"


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
    plan: Plan,
    train: Faces | None = None,
    original: dict[str, tuple[int, ...]] | None = None,
) -> EmotionNet:
    """Remove channels from `network`, which is changed and returned: `plan.share` of those that `original` had.

    original: widths_of an earlier network, for pruning in steps; None: of this one. Ranked by layer, every layer loses
    the same share; ranked globally, the channels that matter least go, wherever they are, and no layer loses more than
    90 %. Every kept width is the multiple of `plan.round_to` nearest to that, and at least `round_to`. The labels stay.
    `train` is needed by the importance `taylor`. Where every width rounds to what it is, nothing changes.
    """
    if plan.importance == "taylor":
        _leave_gradients(network, train, contract)
    kept = _kept(network, contract, plan, original or widths_of(network))
    _remove_channels(network, contract, kept, plan)
    network.zero_grad(set_to_none=True)
    return network.to(memory_format=torch.channels_last)


def groups(network: EmotionNet, contract: InputContract) -> list[str]:
    """The layers whose channels can go, by name; each stands for all layers that share its channels."""
    names = {module: name for name, module in network.named_modules()}
    with _pruner(network, contract, Plan()) as pruner:
        found = {names[root] for root, _ in _roots(pruner)}
    return [name for name in names.values() if name in found]  # from the image up


def prune_one(
    network: EmotionNet, contract: InputContract, layer: str, *, plan: Plan, train: Faces | None = None
) -> EmotionNet:
    """A copy of `network` without `plan.share` of the channels of one group of `groups`."""
    cut = copy.deepcopy(network)
    if plan.importance == "taylor":
        _leave_gradients(cut, train, contract)
    kept = {layer: kept_of(widths_of(cut)[layer][0], plan.share, plan.round_to)}
    _remove_channels(cut, contract, kept, plan)
    cut.zero_grad(set_to_none=True)
    return cut.to(memory_format=torch.channels_last)


def kept_of(width: int, share: float, round_to: int) -> int:
    """How many of `width` channels stay: the nearest multiple of `round_to`, at least one, at most all."""
    return min(width, max(round_to, round(width * (1 - share) / round_to) * round_to))


def _kept(
    network: EmotionNet, contract: InputContract, plan: Plan, original: dict[str, tuple[int, ...]]
) -> dict[str, int]:
    """How many channels stay in each layer, by its name."""
    layers = _widths(network)
    if plan.ranking == "layer":
        kept = {name: kept_of(original[name][0], plan.share, plan.round_to) for name in layers}
        return {name: min(count, layers[name]) for name, count in kept.items()}
    names = {module: name for name, module in network.named_modules()}
    with _pruner(network, contract, plan) as pruner:
        found = {names[root]: pruner.estimate_importance(group) for root, group in _roots(pruner)}
    relative = {name: importance / importance.mean() for name, importance in found.items()}
    wanted = (1 - plan.share) * sum(original[name][0] for name in relative)
    ranked = torch.cat(list(relative.values())).sort(descending=True).values
    threshold = ranked[min(len(ranked), max(1, round(wanted))) - 1]
    kept = {}
    for name, importance in relative.items():
        width = original[name][0]
        stays = max(int((importance >= threshold).sum()), ceil(width * (1 - MAX_SHARE)))
        kept[name] = min(len(importance), kept_of(width, 1 - stays / width, plan.round_to))
    return kept


def _remove_channels(network: EmotionNet, contract: InputContract, kept: dict[str, int], plan: Plan) -> None:
    """Leave each named layer so many channels. Not torch-pruning's round_to: what it rounds to nothing keeps all."""
    widths = _widths(network)
    # Half a channel more, because torch-pruning cuts width * (1 - ratio) down to a whole number.
    ratios = {network.get_submodule(name): max(0.0, 1 - (kept[name] + 0.5) / widths[name]) for name in kept}
    last = list(network.head.named_children())[-1][0]
    with _pruner(network, contract, plan, ratios) as pruner:
        pruner.step()
    got = _widths(network)
    if wrong := [name for name in kept if name != f"head.{last}" and got[name] != kept[name]]:
        told = ", ".join(f"{name} has {got[name]} channels instead of {kept[name]}" for name in wrong[:3])
        raise UsageError(f"this network cannot be pruned so: {told}. Choose another --ranking or --round-to")


def _widths(network: EmotionNet) -> dict[str, int]:
    """Output channels of every convolution and linear layer, by name."""
    return {name: len(m.weight) for name, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}


@contextmanager
def _pruner(
    network: EmotionNet, contract: InputContract, plan: Plan, ratios: dict[nn.Module, float] | None = None
) -> Iterator[Any]:
    """torch-pruning's view of the network. Layers without a ratio keep their channels."""
    tp = require("torch_pruning", extra="train", purpose="pruning")
    network.requires_grad_(True)  # a frozen layer would be skipped without a word
    # Attention has no weight per channel, but its mean and maximum over channels tie the last layer to its two inputs.
    attention, network.attention = network.attention, nn.Identity()
    name, options = IMPORTANCE[plan.importance]
    try:
        yield tp.pruner.BasePruner(
            network,
            _example(contract),
            importance=getattr(tp.importance, name)(**options),
            pruning_ratio=0.0,
            pruning_ratio_dict=ratios or {},
            ignored_layers=[list(network.head.children())[-1]],
            in_channel_groups={},  # the defaults are dicts that all pruners of a process share
            out_channel_groups={},
            num_heads={},
        )
    finally:
        network.attention = attention


def _roots(pruner: Any) -> Iterator[tuple[nn.Module, Any]]:
    """Every group of layers that lose channels together, with the layer that its channels are counted by."""
    for group in pruner.DG.get_all_groups(
        ignored_layers=pruner.ignored_layers, root_module_types=pruner.root_module_types
    ):
        yield group[0].dep.target.module, group


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
