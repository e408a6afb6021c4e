"""One tiny trained run for all tests of this folder, and its network as float ONNX."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edgeemo.compress import calibrate
from edgeemo.data import Faces
from edgeemo.export import to_onnx
from edgeemo.labels import LABEL_SETS
from edgeemo.stages import RECIPES
from edgeemo.train import run as training
from edgeemo.train import weights

DATA = "synthetic:120"


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder: edge_vgg_slim that has learned 120 drawn faces by heart.

    After one epoch its logits are nearly constant, and any quantization would pass a test on them.
    """
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("run")
    by_heart = replace(RECIPES["demo"], epochs=12, ema=0.0, augment="none", smoothing=0.0)
    training.run(replace(by_heart, data=DATA, batch_size=16, threads=1, out=str(folder)))
    return folder


@pytest.fixture(scope="session")
def float_model(trained: Path) -> Path:
    """The trained network as float ONNX, its card beside it."""
    network, card = weights.load(trained)
    path = trained / "exported" / "model.float.onnx"
    to_onnx(network, card, path)
    return path


@pytest.fixture(scope="session")
def calibration_faces(trained: Path) -> Faces:
    """64 drawn train faces."""
    _, card = weights.load(trained)
    chosen = calibrate.draw(DATA, LABEL_SETS["six"], protocol="plurality", count=64, seed=0)
    return calibrate.faces(chosen, DATA, card.input)
