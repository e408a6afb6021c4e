"""The functions of the origin document keep working."""

import numpy as np
import pytest
import torch

from edgeemo.train import create_enhanced_transforms, create_improved_model
from edgeemo.train.augment import TRANSFORMS, make_augmentation


def test_create_improved_model_works_as_documented():
    """With the document's arguments, except for the download: six logits, and the enhanced head."""
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


def test_with_a_frozen_backbone_only_new_layers_are_trainable():
    """No parameter of the backbone, all of attention and head."""
    model = create_improved_model(backbone="resnet18", pretrained=False, freeze_backbone=True)
    assert not any(p.requires_grad for p in model.backbone.parameters())
    assert all(p.requires_grad for part in (model.attention, model.head) for p in part.parameters())


def test_the_head_has_xavier_initialisation():
    """Uniform weights within the bound of Glorot and Bengio, zero biases."""
    layer = create_improved_model(backbone="resnet18", pretrained=False).head[1]
    bound = (6 / (layer.in_features + layer.out_features)) ** 0.5
    assert 0.95 * bound < layer.weight.abs().max() <= bound
    assert not layer.bias.any()


@pytest.mark.parametrize("is_training", [True, False])
def test_create_enhanced_transforms_works_as_documented(is_training):
    """An image of any size becomes a normalised (3, 224, 224) float32 tensor."""
    image = np.random.default_rng(0).integers(0, 256, (300, 200, 3), np.uint8)
    tensor = create_enhanced_transforms(224, is_training=is_training)(image=image)["image"]
    assert tensor.shape == (3, 224, 224)
    assert tensor.dtype == torch.float32
    assert -2.2 < float(tensor.min()) < float(tensor.max()) < 2.7  # black and white, normalised as for ImageNet


def test_evaluation_transforms_are_deterministic():
    """The same image gives the same tensor."""
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    pipeline = create_enhanced_transforms(64, is_training=False)
    assert torch.equal(pipeline(image=image)["image"], pipeline(image=image)["image"])


def test_the_model_is_on_the_cpu_by_default():
    """With device None, as in the document's first call."""
    model = create_improved_model(backbone="resnet18", pretrained=False, device=None)
    assert {p.device.type for p in model.parameters()} == {"cpu"}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_gray_face_in_three_channels_stays_gray(name):
    """gray3 has equal channels, under every augmentation, including noise, brightness and holes."""
    face = np.random.default_rng(0).integers(0, 256, (48, 48, 1), np.uint8).repeat(3, axis=2)
    pipeline = make_augmentation(name, vertical_flips=True)
    for seed in range(100):
        pipeline.set_random_seed(seed)
        changed = pipeline(image=face)["image"]
        assert (changed == changed[..., :1]).all()


def test_training_transforms_are_those_of_the_document():
    """Flips both ways, rotation by 20 degrees, brightness, noise, blur and coarse dropout; evaluation has none."""
    names = str(create_enhanced_transforms(224, is_training=True))
    listed = ("HorizontalFlip", "VerticalFlip", "Rotate", "RandomBrightnessContrast", "GaussNoise", "GaussianBlur")
    assert all(name in names for name in (*listed, "CoarseDropout"))
    evaluation = create_enhanced_transforms(224, is_training=False)
    assert [type(step).__name__ for step in evaluation.transforms] == ["Resize", "Normalize", "ToTensorV2"]
