"""Training modes: all layers, new layers only, or gradual unfreezing."""

import logging
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torchvision

from edgeemo.stages import Train
from edgeemo.train import modes, optim
from edgeemo.train import network as networks

CONFIG = Train(classifier_lr=0.1, backbone_lr=0.1, optimizer="sgd", weight_decay=0.1)


def build_network(name):
    torch.manual_seed(0)
    return networks.build(networks.describe(name, labels=6, head="linear", attention=True, dropout=0.1))


def build_on_meta(name):
    """Build the same network without data, which costs nothing."""
    with torch.device("meta"):
        return build_network(name)


def train_one_step(network, config, epoch):
    """Return the names of the tensors that a step at `epoch` changed."""
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.train()
    modes.unfreeze(network, config, epoch=epoch)
    optimizer = optim.make_optimizer(network, config)
    channels = next(m for m in network.modules() if isinstance(m, torch.nn.Conv2d)).in_channels
    torch.nn.functional.cross_entropy(network(torch.randn(4, channels, 64, 64)), torch.arange(4)).backward()
    optimizer.step()
    return {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}


@pytest.mark.parametrize("name", networks.BACKBONES)
def test_stages_hold_every_layer_with_parameters_once(name):
    """At least three stages; together they have all parameters of the backbone."""
    backbone = build_on_meta(name).backbone
    groups = modes.split_into_stages(backbone)
    assert len(groups) >= 3
    parameters = [p for group in groups for layer in group for p in layer.parameters()]
    assert [id(p) for p in parameters] == [id(p) for p in backbone.parameters()]


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("resnet18", [2, 1, 1, 1, 1]),  # stem, then layer1 to layer4
        ("densenet121", [2, 2, 2, 2, 2]),  # stem, three blocks with their transitions, a block and the last BatchNorm
        ("vgg16", [2, 2, 3, 3, 3]),  # convolutions between poolings
        ("edge_vgg", [4, 4, 4, 4]),  # convolutions and BatchNorms between poolings
        ("efficientnet_b4", [1] * 9),
    ],
)
def test_stages_are_those_of_the_paper(name, layers):
    """Number of layers with parameters in each stage, from the input on."""
    assert [len(group) for group in modes.split_into_stages(build_on_meta(name).backbone)] == layers


@pytest.mark.parametrize("name", ["densenet121", "vgg16_bn", "mobilenet_v3_large"])
def test_a_wrapped_backbone_has_the_same_stages(name):
    """The features of a torchvision model, alone and in a Sequential with another layer."""
    with torch.device("meta"):
        features = torchvision.models.get_model(name, weights=None).features
    plain, wrapped = (
        modes.split_into_stages(features),
        modes.split_into_stages(torch.nn.Sequential(features, torch.nn.ReLU())),
    )
    assert len(plain) >= 3
    assert wrapped == plain


@pytest.mark.parametrize("mode", ["features", "gradual"])
def test_frozen_layers_keep_weights_and_statistics(mode):
    """At first only attention and head change; the backbone's BatchNorm statistics do not."""
    changed = train_one_step(build_network("resnet18"), replace(CONFIG, mode=mode), 0)
    assert changed
    assert {name.partition(".")[0] for name in changed} <= {"attention", "head"}


def test_gradual_mode_unfreezes_from_the_top():
    """One more stage every two epochs, layer4 first; finally all of them."""
    config = replace(CONFIG, mode="gradual", unfreeze_epochs=2.0)
    at = {epoch: train_one_step(build_network("resnet18"), config, epoch) for epoch in (2, 4, 100)}
    trained = {
        epoch: {name.split(".")[1] for name in names if name.startswith("backbone")} for epoch, names in at.items()
    }
    assert trained[2] == {"7"}
    assert trained[4] == {"6", "7"}
    assert trained[100] == {"0", "1", "4", "5", "6", "7"}


@pytest.mark.parametrize("name", networks.BACKBONES)
def test_unfreeze_counts_trainable_parameters(name):
    """New layers only at first, one more stage per `unfreeze_epochs`, finally all layers."""
    network, config = build_on_meta(name), replace(CONFIG, mode="gradual", unfreeze_epochs=0.5)
    groups = modes.split_into_stages(network.backbone)
    counts = [modes.unfreeze(network.train(), config, epoch=0.5 * k) for k in range(len(groups) + 1)]
    assert counts[0] == sum(p.numel() for part in (network.attention, network.head) for p in part.parameters())
    gained = [after - before for before, after in pairwise(counts)]
    assert gained == [sum(p.numel() for layer in group for p in layer.parameters()) for group in reversed(groups)]
    assert counts[-1] == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("mode", ["features", "gradual"])
def test_freezing_a_random_backbone_gives_a_warning(mode, caplog):
    """It suggests what to do, and appears for these two modes without weights only."""
    with caplog.at_level(logging.WARNING):
        modes.check(replace(CONFIG, weights="imagenet", mode=mode))
        modes.check(replace(CONFIG, weights="none", mode="finetune"))
        assert not caplog.records
        modes.check(replace(CONFIG, weights="none", mode=mode))
    assert "--mode finetune" in caplog.text


def test_finetune_trains_all_layers():
    """All stages change from the first step on."""
    changed = train_one_step(build_network("resnet18"), CONFIG, 0)
    assert {"backbone.0.weight", "backbone.7.0.conv1.weight", "head.1.weight"} <= changed
