"""The card of a trained model states the shares of the labels, as the loss weighed them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgeemo.card import read_card
from edgeemo.data import faces
from edgeemo.labels import label_set
from edgeemo.train.losses import WEIGHT_POWERS, compute_class_weights
from edgeemo.train.prior import find_prior
from edgeemo.train.run import run
from edgeemo.train.sampling import POWERS, draw_order

TRUTH = np.repeat([0, 1, 2], [810, 160, 30])
LABELS = ("a", "b", "c")


@pytest.mark.parametrize("rule", ["none", *WEIGHT_POWERS])
@pytest.mark.parametrize("sampler", ["shuffle", *POWERS])
def test_the_shares_are_what_sampler_and_weights_make_of_them(
    rng: np.random.Generator, sampler: str, rule: str
) -> None:
    """The mean weight of each label over 40 epochs, to 0.02: a drawn share has a standard error of at most 0.003."""
    prior = find_prior(TRUTH, LABELS, sampler=sampler, class_weights=rule)
    drawn = np.concatenate([draw_order(TRUTH, rng, sampler=sampler) for _ in range(40)])
    weights = compute_class_weights(TRUTH, 3, rule=rule)
    seen = np.bincount(TRUTH[drawn]) * (1 if weights is None else weights.numpy())
    assert list(prior.values()) == pytest.approx(seen / seen.sum(), abs=0.02)
    assert sum(prior.values()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("rule", "power"), [("none", 1.0), ("sqrt", 0.5)])
def test_training_writes_the_shares_to_the_card(tiny, rule, power):
    config = replace(tiny, epochs=1, class_weights=rule)
    labels = label_set(config.label_set)
    counts = np.bincount(faces.list_labelled(config.data, "train", labels).truth) ** power
    card = read_card(run(config))
    assert card.data.prior == pytest.approx(dict(zip(labels.labels, counts / counts.sum(), strict=True)), abs=1e-6)
