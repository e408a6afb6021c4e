"""The origin document's calls keep working."""

import numpy as np
import pytest
import torch

from edgeemo.train import create_enhanced_transforms, create_improved_model
from edgeemo.train.augment import TRANSFORMS, transforms


def test_the_documents_model_call_works():
    """Its own arguments, without the download: six logits, and the enhanced head."""
    model = create_improved_model(
        num_classes=6,
        backbone="resnet50",
        pretrained=False,
        freeze_backbone=False,
        dropout_rate=0.5,
        use_attention=True,
        device="cpu",
    ).eval()
    with torch.inference_mode():
        assert model(torch.randn(2, 3, 64, 64)).shape == (2, 6)
    assert 24e6 < sum(p.numel() for p in model.parameters()) < 28e6  # the document says 26 to 28 million


def test_a_frozen_backbone_leaves_the_new_layers_to_train():
    """Nothing of the backbone, all of attention and head."""
    model = create_improved_model(backbone="resnet18", pretrained=False, freeze_backbone=True)
    assert not any(p.requires_grad for p in model.backbone.parameters())
    assert all(p.requires_grad for part in (model.attention, model.head) for p in part.parameters())


def test_xavier_starts_the_head():
    """Uniform weights within the bound of Glorot and Bengio, biases zero."""
    layer = create_improved_model(backbone="resnet18", pretrained=False).head[1]
    bound = (6 / (layer.in_features + layer.out_features)) ** 0.5
    assert 0.95 * bound < layer.weight.abs().max() <= bound
    assert not layer.bias.any()


@pytest.mark.parametrize("is_training", [True, False])
def test_the_documents_transforms_call_works(is_training):
    """A picture of any size becomes a (3, 224, 224) float32 tensor around zero."""
    picture = np.random.default_rng(0).integers(0, 256, (300, 200, 3), np.uint8)
    tensor = create_enhanced_transforms(224, is_training=is_training)(image=picture)["image"]
    assert tensor.shape == (3, 224, 224)
    assert tensor.dtype == torch.float32
    assert -2.2 < float(tensor.min()) < float(tensor.max()) < 2.7  # black and white on ImageNet's scale


def test_evaluation_transforms_change_nothing_by_chance():
    """Twice the same."""
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    pipeline = create_enhanced_transforms(64, is_training=False)
    assert torch.equal(pipeline(image=picture)["image"], pipeline(image=picture)["image"])


def test_the_model_stands_on_the_cpu_unless_told():
    """Without a device, or with None, as in the document's first call."""
    model = create_improved_model(backbone="resnet18", pretrained=False, device=None)
    assert {p.device.type for p in model.parameters()} == {"cpu"}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_gray_face_in_three_channels_stays_gray(name):
    """gray3 promises equal channels, whatever happens to the face: noise, light and holes included."""
    face = np.random.default_rng(0).integers(0, 256, (48, 48, 1), np.uint8).repeat(3, axis=2)
    pipeline = transforms(name, vertical_flips=True)
    for seed in range(100):
        pipeline.set_random_seed(seed)
        changed = pipeline(image=face)["image"]
        assert (changed == changed[..., :1]).all()


def test_training_transforms_hold_all_that_the_document_lists():
    """Flips both ways, rotation of 20 degrees, light, noise, blur and coarse dropout; evaluation has none."""
    inside = str(create_enhanced_transforms(224, is_training=True))
    listed = ("HorizontalFlip", "VerticalFlip", "Rotate", "RandomBrightnessContrast", "GaussNoise", "GaussianBlur")
    assert all(name in inside for name in (*listed, "CoarseDropout"))
    still = create_enhanced_transforms(224, is_training=False)
    assert [type(step).__name__ for step in still.transforms] == ["Resize", "Normalize", "ToTensorV2"]
