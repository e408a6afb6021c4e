"""The host's arithmetic stays as it is, and exported networks have no weights that would be slow in it."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from edgeemo.card import Card
from edgeemo.compress import export
from edgeemo.labels import LABEL_SETS
from edgeemo.runtime.backends.ort import OnnxBackend
from edgeemo.sessions import make_options
from edgeemo.train.network import EmotionNet, build, contract_for, describe

NAME = "edge_vgg_nano"
SMALLEST_NORMAL = np.finfo(np.float32).tiny
# Double and single precision, in the thread that asks and in a new one.
CHECK_ARITHMETIC = """
import math, sys, threading
import edgeemo, numpy as np

def has_denormals():
    doubles = np.array([2.3e-308, 2.2251e-308])
    singles = np.array([1e-40], np.float32) * np.float32(1)
    return math.ulp(0.0) > 0 and 2.3e-308 - 2.2251e-308 > 0 and doubles[0] - doubles[1] > 0 and bool(singles[0] > 0)

def check(when):
    flags = [has_denormals()]
    thread = threading.Thread(target=lambda: flags.append(has_denormals()))
    thread.start()
    thread.join()
    print(when, *flags)

check("begin")
model = edgeemo.load("nano", backend=sys.argv[1])
check("load")
model.predict(np.zeros((48, 48), np.uint8))
check("predict")
model.close()
check("close")
"""


@pytest.fixture(scope="module")
def decayed() -> EmotionNet:
    """A network in which a quarter of each convolution's channels has decayed to denormal weights."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = build(describe(NAME, labels=6, head="linear", attention=False, dropout=0.0)).eval()
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, torch.nn.Conv2d):
                layer.weight[::4] *= 1e-39
    return network


@pytest.fixture(scope="module")
def exported(decayed: EmotionNet, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The file as it is exported, and what it would be without the flush."""
    card = Card(
        LABEL_SETS["six"].labels,
        "six",
        contract_for(NAME),
        describe(NAME, labels=6, head="linear", attention=False, dropout=0.0),
    )
    files = {name: tmp_path_factory.mktemp(name) / "model.onnx" for name in ("flushed", "kept")}
    export.to_onnx(decayed, card, files["flushed"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "NEGLIGIBLE", 0.0)
        export.to_onnx(decayed, card, files["kept"])
    return files


def smallest_weight(path: Path) -> float:
    """The smallest magnitude in the file that is not 0."""
    weights = [numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]
    magnitudes = np.concatenate([np.abs(values).ravel() for values in weights if values.dtype == np.float32])
    return float(magnitudes[magnitudes > 0].min())


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_the_arithmetic_of_the_host_stays(backend: str) -> None:
    """Denormal numbers are computed after load, predict and close as before, in this thread and in a new one."""
    if find_spec(backend) is None:
        pytest.skip("OpenVINO is not installed: pip install 'edgeemo[openvino]'")
    command = [sys.executable, "-c", CHECK_ARITHMETIC, backend]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{when} True True" for when in ("begin", "load", "predict", "close")]


def test_no_session_option_flushes_denormals() -> None:
    """ONNX Runtime would do so in the calling thread and in every thread begun later, and never undo it."""
    with pytest.raises(RuntimeError, match="does not have configuration"):
        make_options(onnxruntime, 1).get_session_config_entry("session.set_denormal_as_zero")


def test_an_exported_network_has_no_denormal_weights(exported: dict[str, Path]) -> None:
    """Each would be computed in microcode; without the flush they would be in the file."""
    assert smallest_weight(exported["flushed"]) >= export.NEGLIGIBLE
    assert 0 < smallest_weight(exported["kept"]) < SMALLEST_NORMAL


def test_flushed_weights_change_no_logit(exported: dict[str, Path]) -> None:
    """The logits are those of the file that keeps the denormal weights, bit for bit."""
    faces = np.random.default_rng(0).standard_normal((4, 1, 48, 48)).astype(np.float32)
    flushed, kept = (OnnxBackend(exported[name], threads=1).logits(faces) for name in ("flushed", "kept"))
    np.testing.assert_array_equal(flushed, kept)


def test_a_scalar_is_not_flushed() -> None:
    """An epsilon that guards a division stays, however small."""
    small = {"epsilon": 1e-30, "weights": [1e-30, -1e-40, 0.5]}
    tensors = [numpy_helper.from_array(np.array(values, np.float32), name) for name, values in small.items()]
    graph = onnx.helper.make_graph([], "weights", [], [], tensors)
    epsilon, weights = export.flush_weights(onnx.helper.make_model(graph)).graph.initializer
    assert numpy_helper.to_array(epsilon) == np.float32(1e-30)
    np.testing.assert_array_equal(numpy_helper.to_array(weights), np.array([0, 0, 0.5], np.float32))
