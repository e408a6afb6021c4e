"""Learning rates per part of the network, and learning-rate schedules."""

from dataclasses import replace

import pytest
import torch

from edgeemo.stages import RECIPES, Train
from edgeemo.train import network as networks
from edgeemo.train import optim

PLAIN = Train(backbone="edge_vgg_slim", epochs=25, warmup_epochs=1.0)


def tiny_network():
    return networks.build(networks.describe("edge_vgg_slim", labels=6, head="enhanced", attention=True, dropout=0.1))


def rates(config, *, steps_per_epoch=10):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = optim.make_schedule(optimizer, config, steps_per_epoch=steps_per_epoch)
    curve = []
    for _ in range(round(config.epochs * steps_per_epoch) + 1):
        curve.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return curve


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_backbone_and_new_layers_have_their_own_learning_rates(name):
    """The origin document's 5e-6 and 1e-3; no weight decay for biases and BatchNorm; no parameter is missing."""
    network = tiny_network()
    groups = optim.make_optimizer(network, replace(PLAIN, optimizer=name)).param_groups
    assert {group["lr"] for group in groups} == {5e-6, 1e-3}
    assert all((group["weight_decay"] == 0) == (p.ndim <= 1) for group in groups for p in group["params"])
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))


def test_a_backbone_without_weights_counts_as_new():
    """Training from scratch has one learning rate for all layers."""
    groups = optim.make_optimizer(tiny_network(), replace(PLAIN, weights="none")).param_groups
    assert {group["lr"] for group in groups} == {1e-3}


def test_cosine_schedule_warms_up_and_ends_at_a_hundredth():
    """Linear warm-up to the peak, then a cosine."""
    curve = rates(PLAIN)
    assert curve[:10] == pytest.approx([k / 10 for k in range(1, 11)])
    assert curve[10] == 1
    assert curve[10:] == sorted(curve[10:], reverse=True)
    assert curve[-1] == pytest.approx(0.01)


def test_the_enhanced_recipe_restarts_once_and_ends_at_a_low_rate():
    """25 epochs: one of warm-up, a cosine of eight, a warm restart, a cosine of sixteen."""
    enhanced = RECIPES["enhanced"]
    assert (enhanced.epochs, enhanced.schedule) == (25, "restarts")
    curve = rates(enhanced)
    assert curve[10] == 1
    assert curve[89] < 0.02
    assert curve[90] == 1
    assert curve[249] < 0.02


def test_each_restart_is_twice_as_long():
    """Peaks at the start and then after 2, 4 and 8 more epochs; every cosine is complete."""
    curve = rates(replace(PLAIN, epochs=20, schedule="restarts", restart_epochs=2.0, warmup_epochs=0.0))
    peaks = [step for step, rate in enumerate(curve) if rate == 1]
    assert peaks == [0, 20, 60, 140]
    assert all(curve[peak - 1] < 0.02 for peak in peaks[1:])


def test_the_optimizer_has_frozen_layers_too():
    """They may be unfrozen later, and a resumed run needs the same groups."""
    network = tiny_network()
    network.backbone.requires_grad_(requires_grad=False)
    groups = optim.make_optimizer(network, PLAIN).param_groups
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))


@pytest.mark.parametrize("schedule", ["cosine", "restarts"])
def test_a_restored_schedule_continues(schedule):
    """The learning rate depends on the step alone."""
    config = replace(PLAIN, schedule=schedule)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    original = optim.make_schedule(optimizer, config, steps_per_epoch=10)
    for _ in range(97):
        optimizer.step()
        original.step()
    restored = optim.make_schedule(
        torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0), config, steps_per_epoch=10
    )
    restored.load_state_dict(original.state_dict())
    optimizer.step()
    original.step()
    restored.step()
    assert restored.get_last_lr() == original.get_last_lr()


@pytest.mark.parametrize(("epochs", "warned"), [(9, False), (25, False), (5, True)])
def test_an_incomplete_cosine_gives_a_warning(epochs, warned, caplog):
    """The origin document's 25 epochs complete the second cosine; its quick run of 5 ends inside the first."""
    optim.check(replace(RECIPES["enhanced"], epochs=epochs))
    assert ("end inside one" in caplog.text) == warned
