"""Every backbone: feature shapes, tensor names, and rebuilding from a card."""

from dataclasses import replace

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from edgeemo.errors import IntegrityError
from edgeemo.train import network as networks
from edgeemo.train import run
from edgeemo.train.backbones import STAGES


def resnet_weights():
    """Weights as torchvision publishes them."""
    torch.manual_seed(1)
    return torchvision.models.resnet18(weights=None).state_dict()


def describe(name):
    return networks.describe(name, labels=6, head="linear", attention=True, dropout=0.2)


@pytest.mark.parametrize("name", networks.BACKBONES)
def test_description_widths_and_weights_rebuild_the_network(name):
    """Features have the width in the table, and the rebuilt network gives bit-identical logits."""
    torch.set_num_threads(1)
    network = networks.build(describe(name)).eval()
    again = networks.build(replace(describe(name), widths=networks.widths_of(network))).eval()
    again.load_state_dict(network.state_dict())
    batch = torch.randn(1, networks.contract_for(name, 64).channels, 64, 64)
    with torch.inference_mode():
        assert network.backbone(batch).shape[1] == networks.backbone(name).features
        assert torch.equal(network(batch), again(batch))


def test_backbones_are_sequences_of_layers():
    """A Sequential of at least eight children in order of execution, which training modes unfreeze in groups."""
    with torch.device("meta"):  # without data, so that it costs nothing
        trunks = [entry.trunk(entry.model()) for entry in networks.BACKBONES.values()]
    assert all(isinstance(trunk, nn.Sequential) for trunk in trunks)
    assert min(map(len, trunks)) >= 8  # a ResNet's stem of four and its four stages


@pytest.mark.parametrize(
    ("name", "kind", "blocks", "reshaping"),
    [
        ("efficientnet_b4", "MBConv", 32, 7),
        ("resnet101", "Bottleneck", 33, 4),
        ("mobilenet_v3_large", "InvertedResidual", 15, 5),
    ],
)
def test_residual_blocks_of_deep_networks_start_as_the_identity(name, kind, blocks, reshaping):
    """With random weights, except the first block of each stage, which changes the shape."""
    modules = [m for m in networks.build(describe(name)).eval().modules() if type(m).__name__ == kind]
    identities = [block for block in modules if _is_identity(block)]
    assert (len(modules), len(modules) - len(identities)) == (blocks, reshaping)


def _is_identity(block):
    first = next(layer for layer in block.modules() if isinstance(layer, nn.Conv2d))
    batch = torch.rand(1, first.in_channels, 4, 4)  # non-negative, because a ResNet applies ReLU to the sum
    with torch.inference_mode():
        return torch.equal(block(batch), batch)


def test_densenet_features_end_with_relu():
    """DenseNet.forward of torchvision applies ReLU outside of `features`."""
    trunk = networks.build(describe("densenet121")).eval().backbone
    with torch.inference_mode():
        assert trunk(torch.randn(1, 3, 64, 64)).min() >= 0


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("edge_vgg", ("backbone.0.weight", "backbone.1.running_mean", "backbone.24.weight")),
        ("resnet50", ("backbone.0.weight", "backbone.4.0.conv1.weight", "backbone.7.2.bn3.running_var")),
    ],
)
def test_tensor_names_are_stable(name, weights):
    """Existing models are loaded by these names."""
    state = networks.build(describe(name)).state_dict()
    assert {*weights, "attention.conv.weight", "head.1.weight"} <= state.keys()


def test_a_new_width_changes_the_channels_only():
    """Stride, padding and its mode, dilation and depthwise filtering are kept."""
    trunk = nn.Sequential(nn.Conv2d(8, 8, 3, 2, padding=2, dilation=2, groups=8, bias=False, padding_mode="reflect"))
    networks.set_widths(trunk, {"0": [4, 1, 3, 3]})
    assert repr(trunk[0]) == repr(
        nn.Conv2d(4, 4, 3, 2, padding=2, dilation=2, groups=4, bias=False, padding_mode="reflect")
    )


def test_lite0_is_b0_without_squeeze_and_excitation():
    """Sixteen blocks, only ReLU6, and the published 4,652,008 parameters minus those of the ImageNet classifier."""
    trunk = networks.build(describe("efficientnet_lite0")).backbone
    assert sum(repeats for *_, repeats, _ in STAGES) == 16
    activations = {type(m) for m in trunk.modules() if type(m).__module__.endswith("activation")}
    assert activations == {nn.ReLU6}
    assert sum(p.numel() for p in trunk.parameters()) == 4_652_008 - (1280 + 1) * 1000


def test_the_card_tells_whose_weights_it_started_from(tmp_path, tiny):
    """Lite0's are not torchvision's; another model's card hands on its terms; a bare file has none to tell."""

    def terms(**changes):
        return run._describe_initial_weights(replace(tiny, **changes), resumed=False)["terms"]

    assert "Apache-2.0" in terms(backbone="efficientnet_lite0", weights="imagenet")
    assert "torchvision" in terms(backbone="resnet18", weights="imagenet")
    other = run.run(replace(tiny, out=str(tmp_path / "other")))
    assert "generated by edgeemo" in terms(weights=str(other))
    (tmp_path / "some.pth").touch()
    assert terms(weights=str(tmp_path / "some.pth")) == "from a file given by the trainer"


def test_weights_of_a_moving_average_are_taken(tmp_path):
    """An AveragedModel of torch adds a prefix and a counter."""
    plain = resnet_weights()
    torch.save(plain, tmp_path / "plain.pth")
    torch.save({"n_averaged": torch.tensor(9), **{f"module.{k}": v for k, v in plain.items()}}, tmp_path / "ema.pth")
    expected, other = (
        networks.build(describe("resnet18"), weights=str(tmp_path / name)).state_dict()
        for name in ("plain.pth", "ema.pth")
    )
    assert all(torch.equal(other[name], tensor) for name, tensor in expected.items() if "backbone" in name)


def test_weights_that_are_not_numbers_are_refused_before_training(tmp_path):
    """With the file and a tensor, not as a learning rate that is too high."""
    weights = {name: tensor.clone() for name, tensor in resnet_weights().items()}
    weights["conv1.weight"][0, 0, 0, 0] = torch.nan
    torch.save(weights, tmp_path / "nan.pth")
    with pytest.raises(IntegrityError, match=r"nan\.pth holds NaN or infinity in 1 tensors, such as conv1\.weight"):
        networks.build(describe("resnet18"), weights=str(tmp_path / "nan.pth"))


@pytest.mark.parametrize("wrap", ["state_dict", "model_state_dict", "model", "net"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_the_usual_wrappers_of_weights_are_removed(tmp_path, wrap, prefix):
    """DataParallel's and torch.compile's prefixes, and checkpoints of training scripts; the weights are the same."""
    plain = resnet_weights()
    torch.save(plain, tmp_path / "plain.pth")
    wrapped = {f"{prefix}{name}": tensor for name, tensor in plain.items()}
    torch.save({"epoch": 3, wrap: wrapped, "optimizer": {"state": {}}}, tmp_path / "wrapped.pth")
    save_file(wrapped, tmp_path / "prefixed.safetensors")
    expected, *others = (
        networks.build(describe("resnet18"), weights=str(tmp_path / name)).state_dict()
        for name in ("plain.pth", "wrapped.pth", "prefixed.safetensors")
    )
    for other in others:
        assert all(torch.equal(other[name], tensor) for name, tensor in expected.items() if "backbone" in name)


def test_a_checkpoint_without_a_known_wrapper_is_refused_with_its_keys(tmp_path):
    """Two state dicts, or one under another name, cannot be chosen from."""
    torch.save({"generator": resnet_weights(), "epoch": 3}, tmp_path / "gan.pth")
    with pytest.raises(IntegrityError, match="got the keys generator, epoch; save only the state dict"):
        networks.build(describe("resnet18"), weights=str(tmp_path / "gan.pth"))


def test_a_file_without_weights_is_refused_without_unsafe_advice(tmp_path):
    """Torch's own message recommends weights_only=False."""
    (tmp_path / "image.pth").write_bytes(b"\x89PNG")
    with pytest.raises(IntegrityError, match=r"expected a \.safetensors file") as refused:
        networks.build(describe("resnet18"), weights=str(tmp_path / "image.pth"))
    assert "weights_only" not in str(refused.value)
