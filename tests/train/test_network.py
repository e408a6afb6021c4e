"""The table of networks, and rebuilding them from their description."""

import numpy as np
import pytest
import torch

from edgeemo.card import Card, InputContract
from edgeemo.errors import EdgeemoError, IntegrityError, MachineError, UsageError
from edgeemo.train import network as networks
from edgeemo.train import weights


def describe(name, **changes):
    return networks.describe(name, **{"labels": 6, "head": "linear", "attention": False, "dropout": 0.2} | changes)


@pytest.mark.parametrize("name", networks.BACKBONES)
@pytest.mark.parametrize("head", networks.HEADS)
def test_every_backbone_and_head_gives_logits(name, head):
    """(2, C, S, S) → (2, 6), with attention."""
    network = networks.build(describe(name, head=head, attention=True)).eval()
    contract = networks.contract_for(name, 64)
    with torch.inference_mode():
        assert network(torch.randn(2, contract.channels, 64, 64)).shape == (2, 6)


def test_attention_weighs_positions_alike_in_all_channels():
    """The ratio of output to input is one map per image, between 0 and 1."""
    features = torch.rand(2, 8, 5, 5) + 0.1
    ratio = networks.SpatialAttention()(features) / features
    assert torch.allclose(ratio, ratio[:, :1].expand_as(ratio), atol=1e-6)
    assert 0 < ratio.min() <= ratio.max() < 1


def test_narrowed_network_is_rebuilt_from_its_card(tmp_path):
    """Widths in the card and a state dict are enough: the logits are the same to the bit."""
    narrow = describe("edge_vgg_slim")
    narrow["widths"] = {"backbone.0": [8, 1, 3, 3], "backbone.1": [8], "backbone.3": [16, 8, 3, 3]}
    network = networks.build(narrow).eval()
    narrow["widths"] = networks.widths_of(network)
    weights.save(network, Card(tuple("abcdef"), "own", InputContract(48), narrow), tmp_path)
    again, _ = weights.load(tmp_path)
    batch = torch.randn(2, 1, 48, 48)
    with torch.inference_mode():
        assert torch.equal(network(batch), again(batch))


def test_weights_of_another_architecture_are_refused(tmp_path):
    """The card's architecture and the tensors must fit."""
    network = networks.build(describe("edge_vgg_slim"))
    weights.save(network, Card(tuple("abcdef"), "own", InputContract(48), describe("edge_vgg")), tmp_path)
    with pytest.raises(IntegrityError, match="does not fit the architecture"):
        weights.load(tmp_path)


def test_unknown_backbone_lists_the_known_ones():
    """A typo is answered with the table."""
    with pytest.raises(UsageError, match=r"resnet51.*edge_vgg.*resnet50"):
        networks.backbone("resnet51")


def test_imagenet_for_a_net_that_has_none_is_refused():
    """Our plain nets start from scratch, and say so."""
    with pytest.raises(UsageError, match="--weights none"):
        networks.build(describe("edge_vgg"), weights="imagenet")


def test_offline_download_names_both_other_ways(monkeypatch):
    """Without a network: a file, or from scratch."""

    def refuse(*_, **__):
        raise OSError("network is unreachable")

    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    monkeypatch.setattr("torch.hub.os.path.exists", lambda _: False)
    with pytest.raises(MachineError, match=r"--weights FILE.*--weights none"):
        networks.build(describe("resnet18"), weights="imagenet")


def test_torchvision_file_fills_the_backbone(tmp_path):
    """A .pth as torchvision publishes it gives the same features as the model it came from."""
    import torchvision

    source = torchvision.models.resnet18(weights=None).eval()
    torch.save(source.state_dict(), tmp_path / "resnet18.pth")
    network = networks.build(describe("resnet18"), weights=str(tmp_path / "resnet18.pth")).eval()
    batch = torch.randn(1, 3, 64, 64)
    source.fc = torch.nn.Identity()
    with torch.inference_mode():
        ours, theirs = network.backbone(batch).mean((2, 3)), source(batch)
    assert np.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("content", ["missing", "noise", "another net", "a list", "another of ours"])
def test_unusable_weights_file_is_explained(tmp_path, content):
    """Missing, damaged and foreign files each get their sentence."""
    file = tmp_path / "weights.pth"
    if content == "noise":
        file.write_bytes(b"noise")
    if content == "another net":
        torch.save({"layer": torch.zeros(3)}, file)
    if content == "a list":
        torch.save([1, 2], file)
    if content == "another of ours":
        torch.save(networks.build(describe("edge_vgg")).state_dict(), file)
    with pytest.raises(EdgeemoError, match="--weights"):
        networks.build(describe("resnet18"), weights=str(file))
