"""The two functions of the specification this project started from (the origin document), under their own names."""

from __future__ import annotations

import albumentations as A  # noqa: N812  the library's own custom
import torch
from albumentations.pytorch import ToTensorV2

from edgeemo.train.augment import make_augmentation
from edgeemo.train.backbones import IMAGENET
from edgeemo.train.network import EmotionNet, build, describe


def create_improved_model(
    num_classes: int = 6,
    backbone: str = "resnet50",
    *,
    pretrained: bool = True,
    freeze_backbone: bool = False,
    dropout_rate: float = 0.5,
    use_attention: bool = True,
    device: str | torch.device | None = None,
) -> EmotionNet:
    """Return a network with the enhanced head: (N, 3, S, S) float32, normalised → (N, num_classes) logits.

    freeze_backbone: train attention and head only.
    device: None is the CPU.

    Raises MachineError if the `pretrained` weights cannot be downloaded.
    """
    architecture = describe(
        backbone, labels=num_classes, head="enhanced", attention=use_attention, dropout=dropout_rate
    )
    network = build(architecture, weights="imagenet" if pretrained else "none")
    network.backbone.requires_grad_(not freeze_backbone)
    return network.to(device or "cpu")


def create_enhanced_transforms(size: int = 224, *, is_training: bool = True) -> A.Compose:
    """Return a transform; `(image=pixels)["image"]` maps (H, W, 3) uint8 RGB to a (3, size, size) float32 tensor.

    Pixels are normalised with ImageNet's mean and standard deviation. For training, images are also flipped (both
    ways), rotated, changed in brightness and contrast, and given noise or blur, and holes.
    """
    augmentations = make_augmentation("enhanced", vertical_flips=True).transforms if is_training else []
    scaled = A.Normalize(mean=IMAGENET["mean"], std=IMAGENET["std"])
    return A.Compose([A.Resize(size, size), *augmentations, scaled, ToTensorV2()])
