"""A tiny trained run for all tests of this folder, and its network as float ONNX."""

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
EXPORTED: dict[str, bytes] = {}  # ONNX models, by hash of layers, weights and input


@pytest.fixture(autouse=True, scope="module")
def speed_up() -> Iterator[None]:
    """Measure latency without a minimum time, and export each network to ONNX only once.

    An export takes 2 s, and most of these tests export the same few networks. `to_onnx` still compares every file with
    its network.
    """
    export_graph = export._export_graph

    def export_once(network: torch.nn.Module, contract: InputContract) -> onnx.ModelProto:
        digest = hashlib.sha256(f"{network}{contract}".encode())
        for name, tensor in network.state_dict().items():
            digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
        if digest.hexdigest() not in EXPORTED:
            EXPORTED[digest.hexdigest()] = export_graph(network, contract).SerializeToString()
        return onnx.ModelProto.FromString(EXPORTED[digest.hexdigest()])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "_export_graph", export_once)
        patch.setattr(latency, "MIN_SECONDS", 0.0)
        yield


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder: edge_vgg_slim overfitted to 120 synthetic faces.

    After one epoch, logits are nearly constant, and any quantization would pass a test on them. In fp32, so that the
    result does not depend on whether the processor has bf16.
    """
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("run")
    overfit = replace(RECIPES["demo"], epochs=12, ema=0.0, augment="none", smoothing=0.0, precision="fp32")
    training.run(replace(overfit, data=DATA, batch_size=16, threads=1, out=str(folder)))
    return folder


@pytest.fixture(scope="session")
def float_model(trained: Path) -> Path:
    """The trained network as float ONNX, with its card."""
    network, card = run_folder.load(trained)
    path = trained / "exported" / "model.float.onnx"
    to_onnx(network, card, path)
    return path


@pytest.fixture(scope="session")
def calibration_faces(trained: Path) -> Faces:
    """64 synthetic train faces."""
    _, card = run_folder.load(trained)
    chosen = calibrate.draw(DATA, LABEL_SETS["six"], protocol="plurality", count=64, seed=0)
    return calibrate.load_faces(chosen, DATA, card.input)
