"""A bias per class from out-of-fold predictions."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edgeemo.card import InputContract
from edgeemo.data import Faces, load
from edgeemo.data.faces import pixels_sha1
from edgeemo.errors import UsageError
from edgeemo.labels import label_set
from edgeemo.train import folds
from edgeemo.train import network as networks

LABELS = label_set("six").labels


@pytest.fixture(scope="module")
def faces():
    drawn = load("synthetic:90", "train", label_set("six"), contract=InputContract(48))
    twice = [*range(len(drawn)), *range(10)]  # ten faces stand in twice
    return Faces(drawn.pixels[twice], drawn.votes[twice], drawn.truth[twice], [f"{k}" for k in range(len(twice))])


def skewed(n=4000, classes=3):
    """Logits of a model that tells too rarely the last of three classes."""
    rng = np.random.default_rng(0)
    truth = rng.choice(classes, n, p=[0.6, 0.3, 0.1])
    logits = rng.normal(0, 1, (n, classes)) + 2 * np.eye(classes)[truth] - [0, 0, 1.0]
    return logits, truth


def test_balance_lifts_the_lowest_recall_within_the_allowed_loss():
    """More of the rarest class is told, for no more accuracy than allowed."""
    logits, truth = skewed()
    bias = folds.balance(logits, truth, allowed_loss=0.01)
    moved = logits + bias
    assert folds._lowest_recall(moved, truth) > folds._lowest_recall(logits, truth) + 0.05
    assert (moved.argmax(1) == truth).mean() >= (logits.argmax(1) == truth).mean() - 0.01
    assert bias.sum() == pytest.approx(0, abs=1e-6)


def test_balance_leaves_alone_what_it_cannot_help():
    """All right already: zeros."""
    truth = np.arange(60) % 6
    assert not folds.balance(10 * np.eye(6)[truth], truth).any()


def test_copies_and_classes_are_spread_over_the_folds(faces):
    """Equal pixels lie in one fold; every fold has every class."""
    fold = folds.split(faces, folds=3, seed=0)
    of_content = {}
    for row, number in zip(faces.pixels, fold, strict=True):
        assert of_content.setdefault(pixels_sha1(row), number) == number
    assert all(set(faces.truth[fold == k]) == set(range(6)) for k in range(3))


def test_no_network_is_asked_for_a_face_that_it_saw(faces, tiny):
    """Each of three trainings leaves out the faces that it is asked for, copies included."""
    asked = []

    def fit(network, material, **_):
        seen = {pixels_sha1(row) for row in material.train.pixels}
        assert not seen & {pixels_sha1(row) for row in material.valid.pixels}
        asked.extend(material.valid.ids)
        return network.eval(), []

    config = replace(tiny, bias_folds=3)
    how = {"labels": LABELS, "contract": InputContract(48), "fit": fit, "make": small}
    logits = folds.out_of_fold(config, faces, **how)
    assert sorted(asked) == sorted(faces.ids)
    assert logits.shape == (len(faces), 6)
    again = folds.out_of_fold(config, faces, **{**how, "fit": None})  # read back, no training
    assert np.array_equal(logits, again)


def small():
    torch.manual_seed(0)
    return networks.build(networks.describe("edge_vgg_slim", labels=6, head="enhanced", attention=False, dropout=0.1))


def test_the_bias_is_in_the_network():
    """Every logit is moved by its bias, no more."""
    network, bias = small().eval(), np.arange(6, dtype=np.float32) / 10
    batch = torch.randn(3, 1, 48, 48)
    with torch.inference_mode():
        before = network(batch)
        folds.apply(network, bias)
        assert torch.allclose(network(batch) - before, torch.from_numpy(bias).expand(3, 6), atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_balance_never_loses_more_than_allowed(seed):
    """On problems of six classes of any skew: the lowest recall never falls, accuracy by no more than half a point."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(6, 1500, p=rng.dirichlet(np.ones(6) * 3))
    logits = rng.normal(0, 1, (1500, 6)) + 2 * np.eye(6)[truth] + rng.normal(0, 0.5, 6)
    moved = logits + folds.balance(logits, truth)
    assert folds._lowest_recall(moved, truth) >= folds._lowest_recall(logits, truth)
    assert (moved.argmax(1) == truth).mean() >= (logits.argmax(1) == truth).mean() - folds.ALLOWED_LOSS


def test_a_finished_fold_leaves_no_checkpoint(faces, tiny):
    """Weights of K networks would fill the disk; only their answers stay, and other free settings read them back."""
    config = replace(tiny, bias_folds=2)

    def fit(network, *_, folder, **__):
        (folder / "checkpoints" / "00000001").mkdir(parents=True)
        return network.eval(), []

    how = {"labels": LABELS, "contract": InputContract(48), "make": small}
    first = folds.out_of_fold(config, faces, **how, fit=fit)
    assert not list(Path(config.out).rglob("checkpoints"))
    again = folds.out_of_fold(replace(config, workers=1, checkpoint_steps=7), faces, **how, fit=None)
    assert np.array_equal(first, again)


def test_answers_of_another_recipe_are_not_read_back(faces, tiny):
    """Another learning rate: the folds are trained anew."""
    trained = []

    def fit(network, *_, **__):
        trained.append(1)
        return network.eval(), []

    how = {"labels": LABELS, "contract": InputContract(48), "fit": fit, "make": small}
    for rate in (1e-3, 2e-3):
        folds.out_of_fold(replace(tiny, bias_folds=2, classifier_lr=rate), faces, **how)
    assert len(trained) == 4


def test_more_folds_than_different_faces_are_refused(faces, tiny):
    """Fear stands there five times, but as one picture and its copies."""
    rare = np.flatnonzero(faces.truth == LABELS.index("fear"))[0]
    rows = np.array([*np.flatnonzero(faces.truth != LABELS.index("fear")), *[rare] * 5])
    with pytest.raises(UsageError, match=r"--bias-folds 3: .* fewer of fear"):
        folds.check(replace(tiny, bias_folds=3), faces.take(rows), LABELS)
