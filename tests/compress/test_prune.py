"""Pruning removes the requested channels in every layer, and the network can be rebuilt from its widths."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edgeemo.card import Card
from edgeemo.compress.prune.channels import (
    IMPORTANCE,
    PruningPlan,
    compute_kept_width,
    list_groups,
    measure_size,
    prune,
    prune_layer,
)
from edgeemo.data import Faces, load
from edgeemo.errors import UsageError
from edgeemo.labels import LABEL_SETS, label_set
from edgeemo.train import run_folder
from edgeemo.train.network import BACKBONES, EmotionNet, build, contract_for, describe, widths_of

CONTRACT = contract_for("edge_vgg_slim")


def slim(*, head: str = "enhanced", attention: bool = True) -> EmotionNet:
    torch.manual_seed(0)
    return build(describe("edge_vgg_slim", labels=6, head=head, attention=attention, dropout=0.1)).eval()


def pruned(network: EmotionNet, share: float = 0.5) -> EmotionNet:
    return prune(network, CONTRACT, plan=PruningPlan(share))


@pytest.mark.parametrize(("head", "attention"), [("enhanced", True), ("linear", False)])
def test_every_layer_but_the_classifier_loses_half(head: str, attention: bool) -> None:
    """--prune 0.5 halves every width except the six outputs and the one channel of the attention."""
    before = widths_of(slim(head=head, attention=attention))
    after = widths_of(pruned(slim(head=head, attention=attention)))
    last = list(before)[-1]
    for name in before:
        same = name in (last, "attention.conv")
        assert after[name][0] == (before[name][0] if same else before[name][0] // 2), name


def test_a_pruned_network_is_rebuilt_exactly(tmp_path: Path) -> None:
    """The widths in the card and a plain state dict give bit-identical logits."""
    network = pruned(slim()).eval()
    architecture = describe("edge_vgg_slim", labels=6, head="enhanced", attention=True, dropout=0.1)
    card = Card(LABEL_SETS["six"].labels, "six", CONTRACT, replace(architecture, widths=widths_of(network)))
    run_folder.save(network, card, tmp_path)
    again, _ = run_folder.load(tmp_path)
    faces = torch.randn(4, 1, 48, 48, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(network(faces), again(faces))


def test_pruning_more_costs_less() -> None:
    """Parameters and multiply-adds decrease with the share, up to the largest: rounding exempts no layer."""
    sizes = [measure_size(slim(), CONTRACT)] + [
        measure_size(pruned(slim(), share), CONTRACT) for share in (0.3, 0.6, 0.9)
    ]
    for smaller, larger in zip(sizes[1:], sizes, strict=False):
        assert smaller.parameters < larger.parameters
        assert smaller.macs < larger.macs


def test_frozen_layers_are_pruned_too() -> None:
    """A frozen network loses the same channels as a trainable one."""
    assert widths_of(pruned(slim().requires_grad_(False))) == widths_of(pruned(slim()))


def test_one_pruning_does_not_leak_into_the_next() -> None:
    """Pruning another network in between changes neither widths nor channels."""
    first = pruned(slim())
    pruned(slim(head="linear", attention=False), 0.3)
    second = pruned(slim())
    assert torch.equal(first.backbone[0].weight, second.backbone[0].weight)


def test_the_channels_with_the_largest_weights_are_kept() -> None:
    """Channels whose weights were set close to zero are removed."""
    network = slim(head="linear", attention=False)
    with torch.no_grad():
        network.backbone[24].weight[::2] *= 1e-3
        network.head[1].weight[:, ::2] *= 1e-3
        network.backbone[25].weight[::2] *= 1e-3
        expected = network.head[1].weight[:, 1::2].clone()
    assert torch.equal(pruned(network).head[1].weight, expected)


def test_taylor_needs_train_faces(calibration_faces: Faces) -> None:
    """Without faces it is refused; it keeps as many channels as magnitude, but others, and leaves no gradients."""
    settings = {"plan": PruningPlan(importance="taylor")}
    with pytest.raises(UsageError, match="needs train faces"):
        prune(slim(), CONTRACT, **settings)
    network = prune(slim(), CONTRACT, **settings, train=calibration_faces)
    assert widths_of(network) == widths_of(pruned(slim()))
    assert all(p.grad is None for p in network.parameters())
    assert not torch.equal(network.backbone[0].weight, pruned(slim()).backbone[0].weight)


def test_a_share_that_rounds_to_nothing_changes_nothing() -> None:
    """The stage refuses it; one of several steps may be skipped."""
    network = slim(head="linear", attention=False)
    before = widths_of(network)
    assert widths_of(pruned(network, 0.01)) == before


@pytest.mark.parametrize("ranking", ["layer", "global"])
@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_is_pruned_and_rebuilt_from_its_widths(name: str, ranking: str) -> None:
    """With head and attention: every width is a multiple of eight, and card and weights give the same logits."""
    torch.manual_seed(0)
    contract = contract_for(name, 32)
    architecture = describe(name, labels=6, head="enhanced", attention=True, dropout=0.1)
    before = widths_of(build(architecture))
    network = prune(build(architecture), contract, plan=PruningPlan(0.4, ranking=ranking)).eval()
    after = widths_of(network)
    cut = {layer: shape[0] for layer, shape in after.items() if shape[0] != before[layer][0]}
    assert cut
    assert all(width % 8 == 0 for width in cut.values())
    again = build(replace(architecture, widths=after)).eval()
    again.load_state_dict(network.state_dict())
    batch = torch.randn(2, contract.channels, 32, 32)
    with torch.inference_mode():
        assert torch.equal(again(batch), network(batch))


@pytest.mark.parametrize(
    ("width", "share", "kept"), [(16, 0.5, 8), (16, 0.9, 8), (64, 0.4, 40), (6, 0.5, 6), (24, 2 / 3, 8)]
)
def test_kept_widths_are_multiples_and_never_zero(width: int, share: float, kept: int) -> None:
    """The nearest multiple of eight, at least eight, at most all."""
    assert compute_kept_width(width, share, 8) == kept


def test_channels_can_be_ranked_over_the_whole_network() -> None:
    """A layer with many unimportant channels loses more than the others, but never more than nine tenths."""
    network = slim()
    with torch.no_grad():
        network.backbone[21].weight[16:] *= 1e-3  # 112 of 128 channels
    before = widths_of(network)
    after = widths_of(prune(network, CONTRACT, plan=PruningPlan(0.4, importance="magnitude", ranking="global")))
    names = list_groups(slim(), CONTRACT)
    total = sum(after[name][0] for name in names) / sum(before[name][0] for name in names)
    assert total == pytest.approx(0.6, abs=0.05)
    assert 0.1 <= after["backbone.21"][0] / before["backbone.21"][0] <= 0.2
    assert after["backbone.24"][0] / before["backbone.24"][0] > 0.5


def test_pruning_in_steps_ends_where_pruning_at_once_does() -> None:
    """The share of each step refers to the original channels."""
    stepped, original = slim(), widths_of(slim())
    for share in (0.2, 0.5):
        stepped = prune(stepped, CONTRACT, plan=PruningPlan(share), original=original)
    assert widths_of(stepped) == widths_of(pruned(slim()))


def test_one_layer_is_pruned_in_a_copy() -> None:
    """The other layers keep their channels, and so does the original network."""
    network = slim()
    cut = prune_layer(network, CONTRACT, "backbone.7", plan=PruningPlan(0.5))
    changed = {name for name, shape in widths_of(cut).items() if shape[0] != widths_of(network)[name][0]}
    assert changed == {"backbone.7", "backbone.8"}
    assert widths_of(network) == widths_of(slim())


@pytest.mark.parametrize("importance", IMPORTANCE)
def test_every_importance_gives_the_same_widths(importance: str) -> None:
    """Half of the channels, and every width a multiple of `round_to`; only the choice of channels differs."""
    faces = load("synthetic:60", "train", label_set("six"), contract=CONTRACT)
    small = prune(slim(), CONTRACT, plan=PruningPlan(0.5, 16, importance), train=faces)
    before, after = widths_of(slim()), widths_of(small)
    assert all(after[name][0] == compute_kept_width(before[name][0], 0.5, 16) for name in list_groups(slim(), CONTRACT))


def test_groups_are_listed_from_input_to_output() -> None:
    """Eight convolutions, then the head's two inner layers."""
    assert list_groups(slim(), CONTRACT)[:2] == ["backbone.0", "backbone.3"]
    assert list_groups(slim(), CONTRACT)[-1] == "head.5"
