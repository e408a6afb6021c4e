"""Structured pruning: channels are removed, which leaves a smaller dense network that is faster on any runtime."""

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
# Importance of a channel: the norm of its own weights (Li et al. 2017), the norm of all weights of its group (Fang et
# al. 2023), or the first-order Taylor estimate of how much its removal changes the loss: the sum of |weight * gradient|
# (after Molchanov et al. 2019, who sum before they take the square).
IMPORTANCE: dict[str, tuple[str, dict[str, Any]]] = {
    "magnitude": ("GroupMagnitudeImportance", {"group_reduction": "first"}),
    "group-norm": ("GroupMagnitudeImportance", {}),
    "taylor": ("GroupTaylorImportance", {}),
}
TAYLOR_FACES = 512  # training faces whose gradients rank the channels
TAYLOR_BATCH = 64


@dataclass(frozen=True)
class PruningPlan:
    """How many channels to remove, and how to choose them."""

    share: float = 0.5  # of channels to remove
    round_to: int = 8
    importance: str = "group-norm"
    ranking: str = "layer"


@dataclass(frozen=True)
class Size:
    """Size of a network: its parameters, and its multiply-adds for one face."""

    parameters: int
    macs: int


def measure_size(network: nn.Module, contract: InputContract) -> Size:
    """Count the parameters of a network, and the multiply-adds of its convolutions and linear layers for one face."""
    macs = 0

    def count(layer: Any, _: object, output: torch.Tensor) -> None:
        nonlocal macs
        positions = output.numel() // layer.weight.shape[0]
        macs += positions * layer.weight.numel()

    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.inference_mode():
        network.eval()(_make_example(contract))
    for hook in hooks:
        hook.remove()
    return Size(sum(p.numel() for p in network.parameters()), macs)


def prune(
    network: EmotionNet,
    contract: InputContract,
    *,
    plan: PruningPlan,
    train: Faces | None = None,
    original: dict[str, tuple[int, ...]] | None = None,
) -> EmotionNet:
    """Remove `plan.share` of the channels of the `original` widths from `network`, in place; return it.

    original: widths_of the network before the first of several pruning steps; default: of this network. With layer
    ranking, every layer loses the same share; with global ranking, the least important channels of the network are
    removed, at most 90 % per layer. Widths are rounded to the nearest multiple of `plan.round_to`, at least `round_to`;
    if that gives the current width everywhere, nothing changes. The outputs of the classifier are kept.

    train: required by the importance `taylor`.
    """
    if plan.importance == "taylor":
        _accumulate_gradients(network, train, contract)
    widths = _plan_widths(network, contract, plan, original or widths_of(network))
    _remove_channels(network, contract, widths, plan)
    network.zero_grad(set_to_none=True)
    return network.to(memory_format=torch.channels_last)


def list_groups(network: EmotionNet, contract: InputContract) -> list[str]:
    """List the layers whose channels can be removed, from input to output; each represents all layers of its group."""
    names = {module: name for name, module in network.named_modules()}
    with _make_pruner(network, contract, PruningPlan()) as pruner:
        roots = {names[root] for root, _ in _iterate_groups(pruner)}
    return [name for name in names.values() if name in roots]


def prune_layer(
    network: EmotionNet, contract: InputContract, layer: str, *, plan: PruningPlan, train: Faces | None = None
) -> EmotionNet:
    """Return a copy of `network` without `plan.share` of the channels of one group of `list_groups`."""
    pruned = copy.deepcopy(network)
    if plan.importance == "taylor":
        _accumulate_gradients(pruned, train, contract)
    widths = {layer: compute_kept_width(widths_of(pruned)[layer][0], plan.share, plan.round_to)}
    _remove_channels(pruned, contract, widths, plan)
    pruned.zero_grad(set_to_none=True)
    return pruned.to(memory_format=torch.channels_last)


def compute_kept_width(width: int, share: float, round_to: int) -> int:
    """Return how many channels to keep: the nearest multiple of `round_to`, at least `round_to`, at most all."""
    return min(width, max(round_to, round(width * (1 - share) / round_to) * round_to))


def _plan_widths(
    network: EmotionNet, contract: InputContract, plan: PruningPlan, original: dict[str, tuple[int, ...]]
) -> dict[str, int]:
    """Return the number of channels to keep by layer name."""
    current = _count_channels(network)
    if plan.ranking == "layer":
        kept = {name: compute_kept_width(original[name][0], plan.share, plan.round_to) for name in current}
        return {name: min(count, current[name]) for name, count in kept.items()}
    names = {module: name for name, module in network.named_modules()}
    with _make_pruner(network, contract, plan) as pruner:
        scores = {names[root]: pruner.estimate_importance(group) for root, group in _iterate_groups(pruner)}
    relative = {name: importance / importance.mean() for name, importance in scores.items()}
    total = (1 - plan.share) * sum(original[name][0] for name in relative)
    ranked = torch.cat(list(relative.values())).sort(descending=True).values
    threshold = ranked[min(len(ranked), max(1, round(total))) - 1]
    kept = {}
    for name, importance in relative.items():
        width = original[name][0]
        count = max(int((importance >= threshold).sum()), ceil(width * (1 - MAX_SHARE)))
        kept[name] = min(len(importance), compute_kept_width(width, 1 - count / width, plan.round_to))
    return kept


def _remove_channels(network: EmotionNet, contract: InputContract, kept: dict[str, int], plan: PruningPlan) -> None:
    """Reduce each layer to its number of kept channels.

    torch-pruning's own round_to is not used: it prunes nothing from layers that it would round to zero channels.
    """
    before = _count_channels(network)
    # Half a channel more, because torch-pruning rounds width * (1 - ratio) down.
    ratios = {network.get_submodule(name): max(0.0, 1 - (kept[name] + 0.5) / before[name]) for name in kept}
    last = list(network.head.named_children())[-1][0]
    with _make_pruner(network, contract, plan, ratios) as pruner:
        pruner.step()
    after = _count_channels(network)
    if wrong := [name for name in kept if name != f"head.{last}" and after[name] != kept[name]]:
        widths = ", ".join(f"{name} has {after[name]} channels instead of {kept[name]}" for name in wrong[:3])
        raise UsageError(f"the network cannot be pruned like this: {widths}. Choose another --ranking or --round-to")


def _count_channels(network: EmotionNet) -> dict[str, int]:
    """Return the output channels of every convolution and linear layer by name."""
    return {name: len(m.weight) for name, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}


@contextmanager
def _make_pruner(
    network: EmotionNet, contract: InputContract, plan: PruningPlan, ratios: dict[nn.Module, float] | None = None
) -> Iterator[Any]:
    """Yield a torch-pruning pruner of the network. Layers without a ratio keep their channels."""
    tp = require("torch_pruning", extra="train", purpose="pruning")
    network.requires_grad_(True)  # frozen layers would be skipped silently
    # Attention has no weight per channel, but its mean and maximum over channels would couple the last layer to its two
    # inputs in the dependency graph.
    attention, network.attention = network.attention, nn.Identity()
    name, options = IMPORTANCE[plan.importance]
    try:
        yield tp.pruner.BasePruner(
            network,
            _make_example(contract),
            importance=getattr(tp.importance, name)(**options),
            pruning_ratio=0.0,
            pruning_ratio_dict=ratios or {},
            ignored_layers=[list(network.head.children())[-1]],
            in_channel_groups={},  # the defaults are mutable dicts, shared by all pruners of a process
            out_channel_groups={},
            num_heads={},
        )
    finally:
        network.attention = attention


def _iterate_groups(pruner: Any) -> Iterator[tuple[nn.Module, Any]]:
    """Yield every group of coupled layers, after its root: the layer whose channels count."""
    for group in pruner.DG.get_all_groups(
        ignored_layers=pruner.ignored_layers, root_module_types=pruner.root_module_types
    ):
        yield group[0].dep.target.module, group


def _accumulate_gradients(network: EmotionNet, train: Faces | None, contract: InputContract) -> None:
    """Sum the gradients of the loss over training faces, in evaluation mode to keep BatchNorm's statistics."""
    if train is None:
        raise UsageError("the importance 'taylor' needs train faces; pass train=, or use 'magnitude'")
    network.eval().requires_grad_(True).zero_grad(set_to_none=True)
    chosen = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:TAYLOR_FACES].numpy()
    for start in range(0, len(chosen), TAYLOR_BATCH):
        rows = chosen[start : start + TAYLOR_BATCH]
        logits = network(torch.from_numpy(to_input(train.pixels[rows], contract)))
        nn.functional.cross_entropy(logits, torch.from_numpy(train.truth[rows]), reduction="sum").backward()


def _make_example(contract: InputContract) -> torch.Tensor:
    return torch.zeros(1, contract.channels, contract.size, contract.size)
