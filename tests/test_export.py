"""An exported file has torch's logits, for any batch size, and no information about the machine."""

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
from edgeemo.compress.export import TOLERANCE, to_onnx
from edgeemo.errors import GateError
from edgeemo.labels import LABEL_SETS
from edgeemo.runtime import load
from edgeemo.train.network import BACKBONES, EmotionNet, build, contract_for, describe

ARCHITECTURE = describe("edge_vgg_slim", labels=6, head="enhanced", attention=True, dropout=0.1)
CARD = Card(LABEL_SETS["six"].labels, "six", contract_for("edge_vgg_slim"), ARCHITECTURE)


@pytest.fixture(scope="module")
def network() -> EmotionNet:
    """A network whose BatchNorms have statistics, so that errors in folding are detected."""
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
def test_logits_are_those_of_torch_for_any_batch_size(count: int, network: EmotionNet, exported: Path) -> None:
    """File and network agree within TOLERANCE for one face and for several."""
    faces = np.random.default_rng(3).standard_normal((count, 1, 48, 48)).astype(np.float32)
    with torch.inference_mode():
        expected = network.eval()(torch.from_numpy(faces)).numpy()
    np.testing.assert_allclose(load(exported).logits(faces), expected, atol=TOLERANCE)


def test_no_batchnorm_remains(exported: Path) -> None:
    """BatchNorms are folded into convolutions and linear layers."""
    operators = {node.op_type for node in onnx.load(exported).graph.node}
    assert "BatchNormalization" not in operators
    assert {"Conv", "Gemm"} <= operators


def test_the_file_contains_no_path_of_this_machine(exported: Path) -> None:
    """No folders, source files or stack traces."""
    model = onnx.load(exported)
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")  # weights may contain any text by chance
    text = model.SerializeToString()
    home = re.escape(str(Path(__file__).parents[1]).encode())
    assert not re.search(home + rb"|/home|/usr|/tmp|site-packages|\.py|File \"", text)


def test_export_writes_one_file_and_its_card(exported: Path) -> None:
    """The file contains the weights, and the card describes the file."""
    assert sorted(file.name for file in exported.parent.iterdir()) == ["model.onnx", "model.onnx.json"]
    assert read_card(exported).labels == CARD.labels


def test_export_does_not_change_the_network(network: EmotionNet, tmp_path: Path) -> None:
    """Mode and weights stay the same, because export uses a copy."""
    network.train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    to_onnx(network, CARD, tmp_path / "model.onnx")
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_export_prints_nothing(network: EmotionNet, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The output of torch's exporter is suppressed."""
    to_onnx(network, CARD, tmp_path / "model.onnx")
    assert capfd.readouterr() == ("", "")


def test_a_file_with_other_logits_is_not_written(
    network: EmotionNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If ONNX Runtime and torch disagree, there is a GateError and no file."""
    monkeypatch.setattr("edgeemo.compress.export.TOLERANCE", -1.0)
    with pytest.raises(GateError, match="not written"):
        to_onnx(network, CARD, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_is_exported_with_the_same_logits(name: str, backbone_as_onnx: Callable[[str], Any]) -> None:
    """With BatchNorm statistics, enhanced head and attention, at 64 px: to_onnx refuses more than 1e-3 of a logit."""
    made = backbone_as_onnx(name)
    assert made.logits.std(0).max() > 0.1, "a network with the same logits for every face proves nothing"
    assert TOLERANCE == 1e-3
    np.testing.assert_allclose(load(made.path).logits(made.faces[:3]), made.logits[:3], atol=TOLERANCE)
