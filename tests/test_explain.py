"""Pictures of where a run looks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from edgeemo import explain
from edgeemo.card import Card
from edgeemo.data import Faces
from edgeemo.errors import UsageError
from edgeemo.labels import label_set
from edgeemo.stages import RECIPES, Explain
from edgeemo.train import network as networks
from edgeemo.train.run import run as train

TINY = replace(RECIPES["demo"], data="synthetic:120", epochs=1, batch_size=32, threads=1, attention=True)
LABELS = label_set("six").labels


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return train(replace(TINY, out=str(tmp_path_factory.mktemp("explain") / "run"))).parent


def test_pictures_of_a_data_set_are_written(folder):
    """Grad-CAM and the surest mistakes, as PNGs that open."""
    paths = explain.run(Explain(run=str(folder), threads=1, count=7), [])
    assert [path.name for path in paths] == ["gradcam.png", "mistakes.png"]
    for path in paths:
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) > 100


def test_an_image_of_the_user_is_explained(folder, tmp_path):
    """Any picture file, for a label that the user asks about."""
    file = tmp_path / "face.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 60, 3), np.uint8)).save(file)
    config = Explain(run=str(folder), label="fear", out=str(tmp_path / "out"), threads=1)
    assert explain.run(config, [file]) == [tmp_path / "out" / "gradcam.png"]


@pytest.mark.parametrize("idle", [{"data": "synthetic:30"}, {"split": "train"}, {"count": 3}])
def test_options_of_a_data_set_beside_images_are_refused(folder, tmp_path, idle):
    """They would do nothing."""
    with pytest.raises(UsageError, match=f"--{next(iter(idle))} would do nothing here: add no IMAGE"):
        explain.run(Explain(run=str(folder), **idle), [tmp_path / "face.png"])


def test_an_unknown_label_lists_the_known_ones(folder):
    """A typo is answered with the labels."""
    with pytest.raises(UsageError, match=r"happyness.*happiness"):
        explain.run(Explain(run=str(folder), label="happyness"), [])


@pytest.mark.parametrize("name", networks.BACKBONES)
@pytest.mark.parametrize("attention", [True, False])
def test_every_backbone_can_be_explained(name, attention):
    """Maps of the input's size within 0..1, and attention where there is any."""
    torch.manual_seed(0)
    architecture = networks.describe(name, labels=6, head="linear", attention=attention, dropout=0.0)
    contract = networks.contract_for(name, 64)
    shape = (2, 64, 64) if contract.channels == 1 else (2, 64, 64, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    card = Card(LABELS, "six", contract, architecture)
    for face in explain.looked_at(networks.build(architecture).eval(), card, pixels, ["a", "b"]):
        assert face.cam.shape == (64, 64)
        assert 0 <= face.cam.min() <= face.cam.max() <= 1
        assert (face.attention is None) == (not attention)
        assert face.attention is None or face.attention.shape == (64, 64)


def test_grad_cam_finds_what_decides():
    """A network that answers to the upper left corner alone is shown to look there."""
    architecture = networks.describe("edge_vgg_slim", labels=6, head="linear", attention=False, dropout=0.0)
    network = networks.build(architecture).eval()
    network.backbone = torch.nn.Sequential(torch.nn.Conv2d(1, 128, 1), torch.nn.MaxPool2d(8))
    with torch.no_grad():
        network.backbone[0].weight.fill_(1.0)
        network.backbone[0].bias.zero_()
        network.head[1].weight.fill_(1.0)
    pixels = np.full((1, 48, 48), 128, np.uint8)
    pixels[0, :16, :16] = 255
    (face,) = explain.looked_at(
        network, Card(LABELS, "six", networks.contract_for("edge_vgg_slim", 0), architecture), pixels, ["a"]
    )
    assert face.cam[:16, :16].mean() > 5 * face.cam[24:, 24:].mean() + 0.1


def test_maps_are_drawn_of_the_best_of_each_class_and_of_mistakes():
    """However many classes there are; a mistake that is the best of its class stands once."""
    probabilities = np.eye(8)[[0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3]]
    truth = np.array([0, 1, 2, 3, 4, 5, 6, 7, 0, 0, 0])
    faces = Faces(np.zeros((11, 2, 2), np.uint8), probabilities, truth, list("abcdefghijk"))
    assert list(explain._examples(faces, probabilities)) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_the_surest_mistakes_come_first():
    """Right faces are left out, whatever their probability."""
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.3, 0.7]])
    faces = Faces(np.zeros((4, 2, 2), np.uint8), probabilities, np.array([0, 1, 1, 0]), list("abcd"))
    assert explain.surest_mistakes(faces, probabilities, 2) == [2, 3]
