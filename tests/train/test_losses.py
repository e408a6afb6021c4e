"""Targets, class weights and loss functions."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from edgeemo.card import InputContract
from edgeemo.data import load
from edgeemo.labels import label_set
from edgeemo.stages import Train
from edgeemo.train import losses

LOSSES = {
    "cross-entropy": Train(),
    "focal": Train(loss="focal"),
    "focal without smoothing": Train(loss="focal", smoothing=0.0, focal_gamma=4.0),
}


@pytest.fixture(scope="module")
def faces():
    return load("synthetic:60", "train", label_set("six"), contract=InputContract(48))


def random_batch(rows=32, classes=6):
    torch.manual_seed(0)
    return torch.randn(rows, classes), torch.softmax(torch.randn(rows, classes), 1)


def test_targets_mix_label_and_votes(faces):
    """Half one-hot label, half distribution of votes."""
    votes = np.full((len(faces), 6), 1 / 6, np.float32)
    mixed = losses.make_targets(type(faces)(faces.pixels, votes, faces.truth, faces.ids), 6, vote_share=0.5)
    assert mixed[np.arange(len(faces)), faces.truth] == pytest.approx(0.5 + 1 / 12)
    assert mixed.sum(1) == pytest.approx(1)


def test_class_weights_have_mean_one_over_the_faces():
    """Rare classes have a higher weight; the scale of the loss is unchanged."""
    truth = np.array([0] * 90 + [1] * 10)
    for rule, ratio in (("mild", 3**0.5), ("sqrt", 3.0), ("full", 9.0)):
        weights = losses.compute_class_weights(truth, 2, rule=rule).numpy()
        assert weights[truth].mean() == pytest.approx(1)
        assert weights[1] / weights[0] == pytest.approx(ratio)


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0, 0.5, 1.0, 1.0, 3.0])])
def test_focal_with_gamma_zero_is_cross_entropy(weights):
    """For soft targets, with smoothing and class weights: equal to float precision."""
    logits, target = random_batch()
    focal = losses.make_criterion(replace(Train(), loss="focal", focal_gamma=0.0), weights)(logits, target)
    assert float(focal) == pytest.approx(float(losses.make_criterion(Train(), weights)(logits, target)), rel=1e-5)


def test_focal_loss_downweights_well_classified_faces():
    """An easy face has a smaller part of the loss than with cross-entropy."""
    target = torch.eye(2)
    logits = torch.tensor([[3.0, 0.0], [1.0, 0.0]])  # classified correctly, and incorrectly
    shares = {}
    for name in ("cross-entropy", "focal"):
        loss = losses.make_criterion(Train(loss=name, smoothing=0.0), None)
        easy, hard = (float(loss(logits[k : k + 1], target[k : k + 1])) for k in (0, 1))
        shares[name] = easy / (easy + hard)
    assert shares["focal"] < 0.2 * shares["cross-entropy"]


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_loss_has_a_finite_gradient_at_certainty(gamma):
    """float32 rounds a probability to 1 from a margin of 17 logits on."""
    logits = torch.tensor([[30.0, 0.0], [0.0, 30.0]], requires_grad=True)
    losses.make_criterion(Train(loss="focal", focal_gamma=gamma), None)(logits, torch.eye(2)[[0, 0]]).backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[1, 0] < 0  # the misclassified face is moved towards its label


@pytest.mark.parametrize("name", LOSSES)
def test_parts_of_a_batch_average_to_the_whole(name):
    """Several processes together compute the loss of a single one."""
    logits, target = random_batch()
    loss = losses.make_criterion(LOSSES[name], torch.tensor([1.0, 2.0, 0.5, 1.0, 1.0, 3.0]))
    halves = (loss(logits[:16], target[:16]) + loss(logits[16:], target[16:])) / 2
    assert float(loss(logits, target)) == pytest.approx(float(halves), rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_minimal_at_the_target(name):
    """Gradient descent on the logits leads to the label of the target."""
    logits = torch.zeros(1, 6, requires_grad=True)
    target = torch.eye(6)[2:3]
    loss = losses.make_criterion(LOSSES[name], None)
    for _ in range(200):
        (gradient,) = torch.autograd.grad(loss(logits, target), logits)
        logits = (logits - gradient).detach().requires_grad_()
    assert int(logits.argmax()) == 2
