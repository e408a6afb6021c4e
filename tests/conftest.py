"""Shared by all tests: small data, and where the real faces would be."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import fake_cudart
import fake_tensorrt
import make_tiny
import numpy as np
import pytest
from PIL import Image

from edgeemo.data import synthetic
from edgeemo.data.drawing import draw_face
from edgeemo.images import to_input
from edgeemo.sessions import import_onnxruntime

# Some test modules import these engines themselves, before edgeemo does; neither shall collect usage data meanwhile.
import_onnxruntime()
sys.modules["openvino_telemetry"] = None
FERPLUS = Path(__file__).parents[2] / "shared" / "data" / "ferplus.zip"


@pytest.fixture(scope="session")
def ferplus() -> str:
    """The real FER+ faces as a data name, or a skip with its reason."""
    if not FERPLUS.is_file():
        pytest.skip("the real FER+ faces (../shared/data/ferplus.zip) are not here")
    return f"ferplus:{FERPLUS}"


@pytest.fixture(scope="session", autouse=True)
def drawn_once() -> Iterator[None]:
    """Cache synthetic faces, which take 4 ms each; tests/data checks that their pixels depend on their number alone."""

    @cache
    def draw(label: str, *, seed: int, size: int) -> np.ndarray:
        face = draw_face(label, seed=seed, size=size)
        face.flags.writeable = False  # every test gets this one
        return face

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "draw_face", draw)
        yield


@pytest.fixture(autouse=True)
def level_of_logging() -> Iterator[None]:
    """Reset what a command of one test, such as one with --quiet, would hide from the next."""
    yield
    logging.getLogger("edgeemo").setLevel(logging.NOTSET)


@dataclass(frozen=True)
class Exported:
    """A backbone's float ONNX with its card beside it, and what torch says of the same faces."""

    path: Path
    pixels: np.ndarray  # (16, 64, 64[, 3]) uint8 noise, on which the BatchNorms have settled
    faces: np.ndarray  # (16, C, 64, 64) float32, the same as the network takes them
    logits: np.ndarray  # (16, 6) float32


@pytest.fixture(scope="session")
def backbone_as_onnx(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    """By its name, with enhanced head, attention and settled BatchNorms, at 64 px; exported once, for up to 20 s."""
    import grid
    import torch

    from edgeemo.card import Card
    from edgeemo.compress.export import to_onnx
    from edgeemo.labels import LABEL_SETS

    @cache
    def export(name: str) -> Exported:
        torch.set_num_threads(1)
        contract = grid.contract(name)
        pixels = np.random.default_rng(0).integers(0, 256, (16, *contract.pixels), dtype=np.uint8)
        faces = to_input(pixels, contract)
        network = grid.make_network(name, torch.from_numpy(faces))
        path = tmp_path_factory.mktemp(name) / "float.onnx"
        to_onnx(network, Card(LABEL_SETS["six"].labels, "six", contract, grid.architecture(name)), path)
        with torch.inference_mode():
            return Exported(path, pixels, faces, network(torch.from_numpy(faces)).numpy())

    return export


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def orin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An Orin with TensorRT 10.3, both fakes; at the end nothing may be left on it."""
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", fake_cudart)
    monkeypatch.setattr(fake_tensorrt.Scene, "face", (1, make_tiny.SIZE, make_tiny.SIZE))
    yield
    machine = fake_cudart.Machine
    assert not machine.held, "memory of the GPU is still held"
    assert not machine.locked
    assert not machine.streams
    assert not machine.graphs


@pytest.fixture
def face(rng: np.random.Generator) -> np.ndarray:
    """(60, 50, 3) uint8 noise: any picture will do where content does not matter."""
    return rng.integers(0, 256, (60, 50, 3), dtype=np.uint8)


@pytest.fixture
def folder_of_faces(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A folder per label of the set `six`, ten distinct gray PNGs in each."""
    for name in ("neutral", "happy", "surprise", "sadness", "angry", "fear"):
        (tmp_path / "faces" / name).mkdir(parents=True)
        for k in range(10):
            pixels = rng.integers(0, 256, (48, 48), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "faces" / name / f"{k}.png")
    return tmp_path / "faces"
