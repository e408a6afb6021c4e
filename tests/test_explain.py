"""The explain stage: Grad-CAM, attention maps and most confident mistakes."""

from __future__ import annotations

import logging
from itertools import cycle
from pathlib import Path
from typing import Any

import make_tiny
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import nn

from edgeemo.artifact import lock_folder
from edgeemo.card import Card, InputContract
from edgeemo.card.history import make_entry
from edgeemo.cli import main
from edgeemo.data import Faces, load
from edgeemo.errors import DataError, IntegrityError, UsageError
from edgeemo.labels import label_set
from edgeemo.stages import Explain, Train
from edgeemo.train import explain, run_folder
from edgeemo.train import network as networks
from edgeemo.train.backbones import BACKBONES
from edgeemo.train.network import EmotionNet

DATA = "synthetic:60"
SIX = label_set("six")


def make_network(backbone: str, *, head: str, attention: bool) -> tuple[EmotionNet, Card]:
    """Return an untrained network and its card."""
    torch.manual_seed(0)
    architecture = networks.describe(backbone, labels=6, head=head, attention=attention, dropout=0.5)
    contract = networks.contract_for(backbone, 48)
    card = Card(SIX.labels, SIX.name, contract, architecture).with_entry(
        make_entry("train", Train(data=DATA), seconds=0)
    )
    return networks.build(architecture).eval(), card


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder of a small network with attention."""
    run_folder.save(*make_network("edge_vgg_slim", head="enhanced", attention=True), tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def photo(tmp_path: Path, face: np.ndarray) -> Path:
    Image.fromarray(face).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def size_of(plot: Path) -> tuple[int, int]:
    with Image.open(plot) as image:
        return image.size


@pytest.mark.parametrize(("backbone", "head"), list(zip(BACKBONES, cycle(["enhanced", "linear"]))))
def test_every_backbone_can_be_explained(backbone: str, head: str) -> None:
    """One map per face, of the size of the face, in 0..1; attention if the network has it."""
    torch.set_num_threads(1)
    network, card = make_network(backbone, head=head, attention=head == "enhanced")
    faces = load(DATA, "valid", SIX, contract=card.input)
    explanations = explain.explain_faces(network, card, faces.pixels[:2], faces.ids[:2])
    assert len(explanations) == 2
    for explanation in explanations:
        assert explanation.cam.shape == (48, 48)
        assert np.isfinite(explanation.cam).all()
        assert 0 <= explanation.cam.min() <= explanation.cam.max() <= 1
        assert (explanation.attention is None) == (head == "linear")
        assert explanation.predicted in card.labels


@pytest.mark.parametrize("pool", [nn.Identity(), nn.MaxPool2d(2)])
def test_the_map_is_high_at_the_evidence(pool: nn.Module) -> None:
    """A network that counts bright pixels: the map of `bright` is the bright corner; a final pooling is ignored."""
    brightness = nn.Conv2d(1, 1, 1)
    nn.init.ones_(brightness.weight)
    nn.init.zeros_(brightness.bias)
    head = nn.Linear(1, 2)
    head.weight.data = torch.tensor([[1.0], [-1.0]])
    network = EmotionNet(nn.Sequential(brightness, nn.ReLU(), pool), nn.Identity(), nn.Sequential(head)).eval()
    card = Card(("bright", "dark"), "own", InputContract(48, mean=(0.0,), std=(1.0,)), make_tiny.card().architecture)
    pixels = np.zeros((1, 48, 48), np.uint8)
    pixels[0, 4:12, 30:40] = 255
    bright, dark = (explain.explain_faces(network, card, pixels, ["x"], label=name)[0].cam for name in card.labels)
    assert (bright > 0.5).sum() == 80
    assert bright[4:12, 30:40].min() > 0.99
    assert dark[4:12, 30:40].max() < 0.01


def test_no_hook_remains_on_the_network() -> None:
    """A second explanation is the same as the first."""
    network, card = make_network("edge_vgg_slim", head="linear", attention=True)
    pixels = np.zeros((1, 48, 48), np.uint8)
    first, second = (explain.explain_faces(network, card, pixels, ["x"])[0] for _ in range(2))
    assert np.array_equal(first.cam, second.cam)
    assert not any(module._forward_hooks for module in network.modules())
    assert first.weights[0] <= first.weights[1]


def test_examples_are_the_best_of_each_class_and_mistakes() -> None:
    """For any number of classes; a mistake that is the best of its class appears once."""
    probabilities = np.eye(8)[[0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3]]
    truth = np.array([0, 1, 2, 3, 4, 5, 6, 7, 0, 0, 0])
    faces = Faces(np.zeros((11, 2, 2), np.uint8), probabilities, truth, list("abcdefghijk"))
    assert list(explain._select_examples(faces, probabilities)) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_the_most_confident_mistakes_come_first() -> None:
    """Correctly classified faces are left out, whatever their probability."""
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.3, 0.7]])
    faces = Faces(np.zeros((4, 2, 2), np.uint8), probabilities, np.array([0, 1, 1, 0]), list("abcd"))
    assert explain.rank_mistakes(faces, probabilities, 2) == [2, 3]


def test_without_images_faces_of_the_data_set_are_explained(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two plots in RUN/explained; for synthetic faces there is no reminder of a licence."""
    caplog.set_level(logging.INFO)
    plots = sorted(explain.run(Explain(run=str(run), count=7, threads=1)).iterdir())
    assert [plot.name for plot in plots] == ["gradcam.png", "mistakes.png"]
    assert all(plot.parent == run / "explained" and min(size_of(plot)) > 300 for plot in plots)
    assert "licence" not in caplog.text


def test_plots_of_real_faces_come_with_a_reminder(
    run: Path, folder_of_faces: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """For faces of a folder, the log says which licence applies to the plots."""
    caplog.set_level(logging.INFO)
    explain.run(Explain(run=str(run), data=f"folder:{folder_of_faces}", threads=1))
    assert caplog.text.count("show faces of the data set") == 1


def test_given_images_are_explained(run: Path, photo: Path, tmp_path: Path) -> None:
    """A row per image, for the given label, in the given folder; no grid of mistakes, since true labels are unknown."""
    one, two = (
        list(explain.run(Explain(run, (photo,) * n, label="fear", out=tmp_path / str(n), threads=1)).iterdir())
        for n in (1, 2)
    )
    assert [plot.name for plot in one] == ["gradcam.png"]
    assert one[0].parent == tmp_path / "1"
    assert size_of(two[0])[1] > 1.6 * size_of(one[0])[1]


def test_a_run_without_mistakes_gives_an_empty_grid(tmp_path: Path) -> None:
    """The title says 0 of 0."""
    _, card = make_network("edge_vgg_slim", head="linear", attention=False)
    faces = load(DATA, "valid", SIX, contract=card.input)
    assert size_of(explain.plot_mistakes(faces, np.eye(6)[faces.truth], card, tmp_path / "m.png", 24))[0] > 300


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": "joy"}, "unknown label 'joy'; known: neutral, happiness, surprise"),
        ({"count": 0}, "--count 0: expected 1 or more"),
    ],
)
def test_invalid_options_are_refused(run: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        explain.run(Explain(run=str(run), threads=1, **changes))


@pytest.mark.parametrize("options", [{"data": "synthetic:30"}, {"split": "train"}, {"count": 3}])
def test_options_of_a_data_set_beside_images_are_refused(run: Path, photo: Path, options: dict[str, Any]) -> None:
    """They would have no effect."""
    with pytest.raises(UsageError, match=f"--{next(iter(options))} has no effect with IMAGES"):
        explain.run(Explain(run=str(run), **options, images=[photo]))


def test_more_images_than_fit_in_a_plot_are_refused(run: Path, photo: Path) -> None:
    with pytest.raises(UsageError, match="51 images: expected at most 50"):
        explain.run(Explain(run=str(run), threads=1, images=[photo] * 51))


def test_a_missing_run_and_a_missing_image_are_reported(run: Path, tmp_path: Path) -> None:
    """A folder without model and card, and a file that does not exist."""
    with pytest.raises(IntegrityError, match="does not exist; a model is a file with its card"):
        explain.run(Explain(run=str(tmp_path), threads=1))
    with pytest.raises(DataError, match=r"gone\.png"):
        explain.run(Explain(run=str(run), threads=1, images=[tmp_path / "gone.png"]))


def test_the_command_prints_the_folder_of_the_plots(run: Path, photo: Path) -> None:
    """`edgeemo explain RUN IMAGE` succeeds."""
    done = CliRunner().invoke(main, ["explain", str(run), str(photo), "--threads", "1"])
    assert (done.exit_code, done.output.strip()) == (0, str(run / "explained"))


def test_two_explanations_cannot_share_a_folder(run: Path, photo: Path, tmp_path: Path) -> None:
    """The plots would be of different faces; afterwards the lock is gone."""
    config = Explain(run=str(run), images=(str(photo),), out=str(tmp_path / "plots"))
    (tmp_path / "plots").mkdir()
    with lock_folder(tmp_path / "plots"), pytest.raises(UsageError, match="another process is writing to"):
        explain.run(config)
    assert [file.name for file in explain.run(config).iterdir()] == ["gradcam.png"]
