"""One tiny trained run for all tests of this folder, and its network as float ONNX."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch

from edgeemo.card import InputContract
from edgeemo.compress import export
from edgeemo.compress.export import to_onnx
from edgeemo.compress.quantize import calibrate
from edgeemo.data import Faces
from edgeemo.labels import LABEL_SETS
from edgeemo.measure import latency
from edgeemo.stages import RECIPES
from edgeemo.train import run as training
from edgeemo.train import run_folder

DATA = "synthetic:120"
TRANSLATED: dict[str, bytes] = {}  # networks as ONNX, by their layers, weights and input


@pytest.fixture(autouse=True, scope="module")
def hurried() -> Iterator[None]:
    """Models take turns for their number of runs alone, and a network is translated to ONNX once.

    That takes 2 s each time, and most of these tests export the same few networks. `to_onnx` goes on comparing every
    file with its network, whoever translated it.
    """
    translate = export._export_graph

    def translated(network: torch.nn.Module, contract: InputContract) -> onnx.ModelProto:
        digest = hashlib.sha256(f"{network}{contract}".encode())
        for name, tensor in network.state_dict().items():
            digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
        if digest.hexdigest() not in TRANSLATED:
            TRANSLATED[digest.hexdigest()] = translate(network, contract).SerializeToString()
        return onnx.ModelProto.FromString(TRANSLATED[digest.hexdigest()])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "_export_graph", translated)
        patch.setattr(latency, "MIN_SECONDS", 0.0)
        yield


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder: edge_vgg_slim that has learned 120 drawn faces by heart.

    After one epoch its logits are nearly constant, and any quantization would pass a test on them. In fp32, which a
    processor with bf16 would not choose: what it learns shall not depend on that.
    """
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("run")
    by_heart = replace(RECIPES["demo"], epochs=12, ema=0.0, augment="none", smoothing=0.0, precision="fp32")
    training.run(replace(by_heart, data=DATA, batch_size=16, threads=1, out=str(folder)))
    return folder


@pytest.fixture(scope="session")
def float_model(trained: Path) -> Path:
    """The trained network as float ONNX, its card beside it."""
    network, card = run_folder.load(trained)
    path = trained / "exported" / "model.float.onnx"
    to_onnx(network, card, path)
    return path


@pytest.fixture(scope="session")
def calibration_faces(trained: Path) -> Faces:
    """64 drawn train faces."""
    _, card = run_folder.load(trained)
    chosen = calibrate.draw(DATA, LABEL_SETS["six"], protocol="plurality", count=64, seed=0)
    return calibrate.faces(chosen, DATA, card.input)
