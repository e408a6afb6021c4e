"""Ensembles of runs."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from edgeemo.card import Card
from edgeemo.data import load
from edgeemo.labels import label_set
from edgeemo.metrics import softmax
from edgeemo.train import ensemble, run_folder
from edgeemo.train import network as networks

SIX = label_set("six")


def write_run(folder, *, labels="six", backbone="edge_vgg_slim", size=None, temperature=1.0):
    """Write a run folder with an untrained network."""
    torch.manual_seed(0)
    own = label_set(labels)
    architecture = networks.describe(backbone, labels=len(own.labels), head="linear", attention=False, dropout=0.0)
    card = Card(
        own.labels,
        own.name,
        networks.contract_for(backbone, size),
        architecture,
        temperature=temperature,
    )
    run_folder.save(networks.build(architecture).eval(), card, folder)
    return folder


def load_faces(member):
    return load("synthetic:60", "valid", label_set("six"), contract=member.card.input)


def make_card(labels, *, temperature=1.0):
    architecture = networks.describe("edge_vgg_slim", labels=len(labels), head="linear", attention=False, dropout=0.0)
    contract = networks.contract_for("edge_vgg_slim")
    return Card(labels, "own", contract, architecture, temperature=temperature)


def test_probabilities_of_eight_labels_are_summed_to_six(rng):
    """Disgust is added to anger, contempt to neutral; the others and the total are unchanged."""
    eight = label_set("ferplus8")
    logits = rng.normal(0, 2, (20, 8)).astype(np.float32)
    probabilities = softmax(logits, temperature=1.3)
    actual = np.exp(ensemble.log_probabilities(logits, make_card(eight.labels, temperature=1.3), SIX))
    of = {name: probabilities[:, k] for k, name in enumerate(eight.labels)}
    expected = {**{name: of[name] for name in SIX.labels}, "anger": of["anger"] + of["disgust"]}
    expected["neutral"] = of["neutral"] + of["contempt"]
    assert np.allclose(actual, np.stack(list(expected.values()), axis=1), atol=1e-6)


def test_the_order_of_a_members_labels_does_not_matter(rng):
    """Columns are ordered by label."""
    logits = rng.normal(0, 2, (20, 6)).astype(np.float32)
    reversed_ = ensemble.log_probabilities(logits[:, ::-1], make_card(SIX.labels[::-1]), SIX)
    assert np.allclose(reversed_, ensemble.log_probabilities(logits, make_card(SIX.labels), SIX))


def test_a_label_outside_the_set_is_left_out(rng):
    """The probabilities of the others are normalised."""
    logits = rng.normal(0, 2, (20, 6)).astype(np.float32)
    actual = np.exp(ensemble.log_probabilities(logits, make_card(SIX.labels), label_set("sadness,happiness")))
    assert np.allclose(actual, softmax(logits[:, [3, 1]]), atol=1e-6)


def test_each_member_has_its_own_input_contract(tmp_path):
    """A gray network of 48 px and a colour network of 64 px predict the same faces."""
    runs = [write_run(tmp_path / "gray"), write_run(tmp_path / "colour", backbone="resnet18")]
    members = ensemble.load_members(runs)
    logits = [member.logits(load_faces(member)) for member in members]
    assert [(rows.shape, rows.dtype) for rows in logits] == [((12, 6), np.float32)] * 2
    assert load_faces(members[0]).pixels.shape[1:] == (48, 48)
    assert load_faces(members[1]).pixels.shape[1:] == (64, 64, 3)


@pytest.mark.parametrize("backbone", ["edge_vgg_slim", "resnet18"])
def test_with_flips_a_face_and_its_mirror_image_have_equal_logits(tmp_path, backbone):
    """Without flips they differ; gray and colour."""
    member = ensemble.load_members([write_run(tmp_path, backbone=backbone)])[0]
    faces = load_faces(member)
    mirrored = replace(faces, pixels=faces.pixels[:, :, ::-1].copy())
    assert not np.allclose(member.logits(faces), member.logits(mirrored), atol=1e-4)
    assert np.allclose(member.logits(faces, flips=True), member.logits(mirrored, flips=True), atol=1e-6)


def test_a_single_member_keeps_its_probabilities(rng):
    """The average of one model has the probabilities of that model at its temperature."""
    logits = rng.normal(0, 3, (50, 6)).astype(np.float32)
    mixed = ensemble.average([ensemble.log_probabilities(logits, make_card(SIX.labels, temperature=1.7), SIX)])
    assert mixed.dtype == np.float32
    assert np.allclose(softmax(mixed), softmax(logits, temperature=1.7), atol=1e-6)


def mixed(first, second, *, temperature=1.0):
    other = make_card(SIX.labels, temperature=temperature)
    return ensemble.average(
        [ensemble.log_probabilities(first, make_card(SIX.labels), SIX), ensemble.log_probabilities(second, other, SIX)]
    )


def test_an_overconfident_member_does_not_outvote_the_others(rng):
    """Logits and temperature multiplied by ten do not change the average."""
    first, second = rng.normal(0, 2, (2, 50, 6))
    plain = mixed(first, second)
    assert np.allclose(plain, mixed(first, 10 * second, temperature=10.0), atol=1e-5)
    assert not np.allclose(plain, mixed(first, 10 * second), atol=0.1)


def test_different_errors_cancel(rng):
    """The average of five noisy models is more accurate than the best of them."""
    truth = np.arange(600) % 6
    members = [2 * np.eye(6)[truth] + rng.normal(0, 1.5, (600, 6)) for _ in range(5)]
    best = max((rows.argmax(1) == truth).mean() for rows in members)
    assert (ensemble.average(members).argmax(1) == truth).mean() > best + 0.05
