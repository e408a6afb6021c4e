"""An exported file computes what torch computes, for any batch, and tells nothing about the machine."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from edgeemo.card import Card, read_card
from edgeemo.errors import GateError
from edgeemo.export import TOLERANCE, to_onnx
from edgeemo.labels import LABEL_SETS
from edgeemo.runtime import load
from edgeemo.train.network import BACKBONES, EmotionNet, build, contract_for, describe

ARCHITECTURE = describe("edge_vgg_slim", labels=6, head="enhanced", attention=True, dropout=0.1)
CARD = Card(LABEL_SETS["six"].labels, "six", contract_for("edge_vgg_slim"), ARCHITECTURE)


@pytest.fixture(scope="module")
def network() -> EmotionNet:
    """A network whose BatchNorms have seen numbers, so that folding them can go wrong."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = build(ARCHITECTURE).train()
    for _ in range(3):
        net(torch.randn(16, 1, 48, 48) * 2 + 1)
    return net


@pytest.fixture(scope="module")
def exported(network: EmotionNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That network as ONNX."""
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    to_onnx(network, CARD, path)
    return path


@pytest.mark.parametrize("count", [1, 2, 7])
def test_logits_are_those_of_torch_for_any_batch(count: int, network: EmotionNet, exported: Path) -> None:
    """The file and the network agree within TOLERANCE on one face and on many."""
    faces = np.random.default_rng(3).standard_normal((count, 1, 48, 48)).astype(np.float32)
    with torch.inference_mode():
        expected = network.eval()(torch.from_numpy(faces)).numpy()
    np.testing.assert_allclose(load(exported).logits(faces), expected, atol=TOLERANCE)


def test_no_batchnorm_remains(exported: Path) -> None:
    """Convolutions and linear layers have swallowed theirs."""
    operators = {node.op_type for node in onnx.load(exported).graph.node}
    assert "BatchNormalization" not in operators
    assert {"Conv", "Gemm"} <= operators


def test_the_file_holds_no_path_of_this_machine(exported: Path) -> None:
    """Nothing but names and numbers: no folders, no source files, no stack traces."""
    model = onnx.load(exported)
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")  # weights may spell anything by chance
    text = model.SerializeToString()
    home = re.escape(str(Path(__file__).parents[1]).encode())
    assert not re.search(home + rb"|/home|/usr|/tmp|site-packages|\.py|File \"", text)


def test_weights_lie_inside_and_the_card_beside(exported: Path) -> None:
    """One model file, one card, and the card describes the file."""
    assert sorted(file.name for file in exported.parent.iterdir()) == ["model.onnx", "model.onnx.json"]
    assert read_card(exported).labels == CARD.labels


def test_the_network_is_left_as_it_was(network: EmotionNet, tmp_path: Path) -> None:
    """Export works on a copy: mode and weights do not change."""
    network.train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    to_onnx(network, CARD, tmp_path / "model.onnx")
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_export_says_nothing_of_its_own(network: EmotionNet, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The exporter's chatter does not reach the user."""
    to_onnx(network, CARD, tmp_path / "model.onnx")
    assert capfd.readouterr() == ("", "")


def test_a_file_that_computes_something_else_is_not_written(
    network: EmotionNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where ONNX Runtime and torch disagree there is an GateError and no file."""
    monkeypatch.setattr("edgeemo.export.TOLERANCE", -1.0)
    with pytest.raises(GateError, match="not written"):
        to_onnx(network, CARD, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_exports_to_the_same_logits(name: str, backbone_as_onnx: Callable[[str], Any]) -> None:
    """With settled BatchNorms, enhanced head and attention, at 64 px: to_onnx refuses more than 1e-3 of a logit."""
    made = backbone_as_onnx(name)
    assert made.logits.std(0).max() > 0.1, "a network that says the same of every face proves nothing"
    assert TOLERANCE == 1e-3
    np.testing.assert_allclose(load(made.path).logits(made.faces[:3]), made.logits[:3], atol=TOLERANCE)
