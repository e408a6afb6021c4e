"""Rates per part of the network, and their course over the steps."""

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
    moved = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = optim.schedule(moved, config, steps_per_epoch=steps_per_epoch)
    found = []
    for _ in range(round(config.epochs * steps_per_epoch) + 1):
        found.append(schedule.get_last_lr()[0])
        moved.step()
        schedule.step()
    return found


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_backbone_and_new_layers_have_their_own_rates(name):
    """The document's 5e-6 and 1e-3; biases and BatchNorm do not decay; no parameter is left out."""
    network = tiny_network()
    groups = optim.optimizer(network, replace(PLAIN, optimizer=name)).param_groups
    assert {group["lr"] for group in groups} == {5e-6, 1e-3}
    assert all((group["weight_decay"] == 0) == (p.ndim <= 1) for group in groups for p in group["params"])
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))


def test_without_weights_the_backbone_is_new_too():
    """From scratch one rate counts for all."""
    groups = optim.optimizer(tiny_network(), replace(PLAIN, weights="none")).param_groups
    assert {group["lr"] for group in groups} == {1e-3}


def test_cosine_rises_then_falls_to_a_hundredth():
    """Linear to the peak in the warm-up, a cosine to the end."""
    found = rates(PLAIN)
    assert found[:10] == pytest.approx([k / 10 for k in range(1, 11)])
    assert found[10] == 1
    assert found[10:] == sorted(found[10:], reverse=True)
    assert found[-1] == pytest.approx(0.01)


def test_the_enhanced_recipe_restarts_once_and_ends_low():
    """25 epochs: one of warm-up, a cosine of eight, a warm restart, a cosine of sixteen."""
    enhanced = RECIPES["enhanced"]
    assert (enhanced.epochs, enhanced.schedule) == (25, "restarts")
    found = rates(enhanced)
    assert found[10] == 1
    assert found[89] < 0.02
    assert found[90] == 1
    assert found[249] < 0.02


def test_each_restart_lasts_twice_as_long():
    """Peaks after the warm-up and then after 2, 4 and 8 epochs; every cosine falls all the way."""
    found = rates(replace(PLAIN, epochs=20, schedule="restarts", restart_epochs=2.0, warmup_epochs=0.0))
    peaks = [step for step, rate in enumerate(found) if rate == 1]
    assert peaks == [0, 20, 60, 140]
    assert all(found[peak - 1] < 0.02 for peak in peaks[1:])


def test_frozen_layers_are_the_optimizers_too():
    """They may thaw later, and a resumed run needs the same groups."""
    network = tiny_network()
    network.backbone.requires_grad_(requires_grad=False)
    groups = optim.optimizer(network, PLAIN).param_groups
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))


@pytest.mark.parametrize("schedule", ["cosine", "restarts"])
def test_a_schedule_read_back_goes_on_where_it_was(schedule):
    """The rate is a function of the step alone."""
    config = replace(PLAIN, schedule=schedule)
    moved = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    course = optim.schedule(moved, config, steps_per_epoch=10)
    for _ in range(97):
        moved.step()
        course.step()
    again = optim.schedule(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0), config, steps_per_epoch=10)
    again.load_state_dict(course.state_dict())
    moved.step()
    course.step()
    again.step()
    assert again.get_last_lr() == course.get_last_lr()


@pytest.mark.parametrize(("epochs", "warned"), [(9, False), (25, False), (5, True)])
def test_a_cosine_that_is_cut_short_is_told(epochs, warned, caplog):
    """The document's 25 epochs end with the second cosine; its quick run of 5 stops inside the first."""
    optim.check(replace(RECIPES["enhanced"], epochs=epochs))
    assert ("stops inside one" in caplog.text) == warned
