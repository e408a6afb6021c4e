"""Mirrored pairs of filters: exact during training, plain weights afterwards."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from edgeemo.errors import UsageError
from edgeemo.stages import Train
from edgeemo.train import mirror, run_folder
from edgeemo.train import network as networks
from edgeemo.train.run import run

PLAIN = [name for name, entry in networks.BACKBONES.items() if entry.plain]


def network_of(name):
    torch.manual_seed(0)
    return networks.build(networks.describe(name, labels=6, head="linear", attention=False, dropout=0.0))


def swapped(features):
    """Swap the two halves of the channels of (N, C, h, w)."""
    return torch.cat(features.chunk(2, dim=1)[::-1], dim=1)


@pytest.mark.parametrize("name", PLAIN)
def test_a_mirrored_face_gives_mirrored_features_in_swapped_channels(name):
    """During training and after untying; filters that were never tied do not."""
    network, faces = network_of(name), torch.randn(4, 1, 48, 48)

    def gap():
        return (network.backbone(faces.flip(3)) - swapped(network.backbone(faces)).flip(3)).abs().max()

    with torch.no_grad():
        assert gap() > 0.1
        mirror.tie(network.backbone)
        assert gap() < 1e-4
        network.eval()
        assert gap() > 0.01, "the statistics of these few faces are not symmetric"
        mirror.untie(network)
        assert gap() < 1e-4


def test_an_optimizer_step_keeps_pairs_tied():
    """Both filters of a pair change in the same way, although the batch is not symmetric."""
    network = network_of("edge_vgg_slim")
    mirror.tie(network.backbone)
    before = network.backbone[3].weight.clone()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    torch.nn.functional.cross_entropy(network(torch.randn(8, 1, 48, 48)), torch.arange(8) % 6).backward()
    optimizer.step()
    after = network.backbone[3].weight
    half, other = after.chunk(2)
    assert (after - before).abs().max() > 1e-4
    assert torch.equal(other, torch.cat(half.flip(3).chunk(2, dim=1)[::-1], dim=1))


def test_untied_filters_are_plain_weights_with_the_same_logits():
    """Bit-identical logits if the statistics are symmetric, and the state dict of an ordinary network."""
    network, faces = network_of("edge_vgg_slim").eval(), torch.randn(2, 1, 48, 48)
    names = list(network.state_dict())
    mirror.tie(network.backbone)
    with torch.no_grad():
        before = network(faces)
        assert list(network.state_dict()) != names
        mirror.untie(network)
        assert set(network.state_dict()) == set(names)
        assert torch.equal(network(faces), before)


def test_a_run_with_mirrored_filters_gives_an_ordinary_model(tiny):
    """The second filter of each pair mirrors the first; without the option it does not."""
    tied, free = (run(replace(tiny, mirror=on, out=f"{tiny.out}-{on}", epochs=1)) for on in (True, False))
    network, card = run_folder.load(tied.parent)
    assert card.history[0].config["mirror"] is True
    assert type(network.backbone[0]) is torch.nn.Conv2d
    pairs = [load_file(path)["backbone.0.weight"].chunk(2) for path in (tied, free)]
    assert torch.equal(pairs[0][0].flip(3), pairs[0][1])
    assert not torch.equal(pairs[1][0].flip(3), pairs[1][1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "resnet18", "weights": "none"}, "edge_vgg_wide, not resnet18: omit --mirror"),
        ({"backbone": "edge_vgg", "weights": "imagenet"}, "half of the initial weights"),
    ],
)
def test_unsupported_networks_cannot_be_mirrored(tmp_path, changes, message):
    """Before any face is read."""
    with pytest.raises(UsageError, match=message):
        run(Train(mirror=True, data="folder:none", out=str(tmp_path / "run"), **changes))
