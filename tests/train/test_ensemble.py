"""Several runs as one model."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from edgeemo.card import Card
from edgeemo.data import load
from edgeemo.labels import label_set
from edgeemo.metrics import softmax
from edgeemo.train import ensemble, weights
from edgeemo.train import network as networks

SIX = label_set("six")


def made(folder, *, labels="six", backbone="edge_vgg_slim", size=None, temperature=1.0):
    """A run folder with a network that knows nothing."""
    torch.manual_seed(0)
    found = label_set(labels)
    architecture = networks.describe(backbone, labels=len(found.labels), head="linear", attention=False, dropout=0.0)
    card = Card(found.labels, found.name, networks.contract_for(backbone, size), architecture, temperature=temperature)
    weights.save(networks.build(architecture).eval(), card, folder)
    return folder


def shown(member):
    return load("synthetic:60", "valid", label_set("six"), contract=member.card.input)


def card_of(labels, *, temperature=1.0):
    architecture = networks.describe("edge_vgg_slim", labels=len(labels), head="linear", attention=False, dropout=0.0)
    contract = networks.contract_for("edge_vgg_slim")
    return Card(labels, "own", contract, architecture, temperature=temperature)


def test_eight_labels_are_told_as_six_by_adding_up(rng):
    """Disgust counts as anger, contempt as neutral; all else stays, and the sum too."""
    eight = label_set("ferplus8")
    logits = rng.normal(0, 2, (20, 8)).astype(np.float32)
    shares = softmax(logits, temperature=1.3)
    found = np.exp(ensemble.told(logits, card_of(eight.labels, temperature=1.3), SIX))
    of = {name: shares[:, k] for k, name in enumerate(eight.labels)}
    expected = {**{name: of[name] for name in SIX.labels}, "anger": of["anger"] + of["disgust"]}
    expected["neutral"] = of["neutral"] + of["contempt"]
    assert np.allclose(found, np.stack(list(expected.values()), axis=1), atol=1e-6)


def test_the_order_of_a_members_labels_does_not_matter(rng):
    """Columns go where their label stands."""
    logits = rng.normal(0, 2, (20, 6)).astype(np.float32)
    turned = ensemble.told(logits[:, ::-1], card_of(SIX.labels[::-1]), SIX)
    assert np.allclose(turned, ensemble.told(logits, card_of(SIX.labels), SIX))


def test_a_label_that_the_set_does_not_know_is_left_out(rng):
    """The others share its part."""
    logits = rng.normal(0, 2, (20, 6)).astype(np.float32)
    found = np.exp(ensemble.told(logits, card_of(SIX.labels), label_set("sadness,happiness")))
    assert np.allclose(found, softmax(logits[:, [3, 1]]), atol=1e-6)


def test_each_member_is_asked_at_its_own_contract(tmp_path):
    """A gray net of 48 px and a colour net of 64 px answer for the same faces."""
    runs = [made(tmp_path / "gray"), made(tmp_path / "colour", backbone="resnet18")]
    found = ensemble.members(runs)
    said = [member.logits(shown(member)) for member in found]
    assert [(rows.shape, rows.dtype) for rows in said] == [((12, 6), np.float32)] * 2
    assert shown(found[0]).pixels.shape[1:] == (48, 48)
    assert shown(found[1]).pixels.shape[1:] == (64, 64, 3)


@pytest.mark.parametrize("backbone", ["edge_vgg_slim", "resnet18"])
def test_with_flips_a_face_and_its_mirror_image_are_told_alike(tmp_path, backbone):
    """Without flips they are not; gray and colour."""
    member = ensemble.members([made(tmp_path, backbone=backbone)])[0]
    faces = shown(member)
    mirrored = replace(faces, pixels=faces.pixels[:, :, ::-1].copy())
    assert not np.allclose(member.logits(faces), member.logits(mirrored), atol=1e-4)
    assert np.allclose(member.logits(faces, flips=True), member.logits(mirrored, flips=True), atol=1e-6)


def test_one_member_alone_keeps_its_probabilities(rng):
    """Combined at its temperature, a single model says what it says by itself."""
    logits = rng.normal(0, 3, (50, 6)).astype(np.float32)
    mixed = ensemble.combined([ensemble.told(logits, card_of(SIX.labels, temperature=1.7), SIX)])
    assert mixed.dtype == np.float32
    assert np.allclose(softmax(mixed), softmax(logits, temperature=1.7), atol=1e-6)


def mixed(first, second, *, temperature=1.0):
    other = card_of(SIX.labels, temperature=temperature)
    return ensemble.combined([ensemble.told(first, card_of(SIX.labels), SIX), ensemble.told(second, other, SIX)])


def test_being_too_sure_of_itself_does_not_outvote(rng):
    """Logits ten times as large at a temperature ten times as high weigh as before."""
    first, second = rng.normal(0, 2, (2, 50, 6))
    plain = mixed(first, second)
    assert np.allclose(plain, mixed(first, 10 * second, temperature=10.0), atol=1e-5)
    assert not np.allclose(plain, mixed(first, 10 * second), atol=0.1)


def test_errors_that_differ_cancel(rng):
    """Five noisy models together are right more often than the best of them."""
    truth = np.arange(600) % 6
    said = [2 * np.eye(6)[truth] + rng.normal(0, 1.5, (600, 6)) for _ in range(5)]
    best = max((rows.argmax(1) == truth).mean() for rows in said)
    assert (ensemble.combined(said).argmax(1) == truth).mean() > best + 0.05
