"""The origin document's two calls, under their own names."""

from __future__ import annotations

import albumentations as A  # noqa: N812  the library's own custom
import torch
from albumentations.pytorch import ToTensorV2

from edgeemo.train.augment import transforms
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
    """A network with the enhanced head: (N, 3, S, S) float32, normalised → (N, num_classes) logits.

    freeze_backbone leaves attention and head to train; device None is the CPU. MachineError where `pretrained` weights
    cannot be downloaded.
    """
    architecture = describe(
        backbone, labels=num_classes, head="enhanced", attention=use_attention, dropout=dropout_rate
    )
    network = build(architecture, weights="imagenet" if pretrained else "none")
    network.backbone.requires_grad_(not freeze_backbone)
    return network.to(device or "cpu")


def create_enhanced_transforms(size: int = 224, *, is_training: bool = True) -> A.Compose:
    """Call it as `(image=pixels)["image"]`: (H, W, 3) uint8 RGB → (3, size, size) float32 tensor, ImageNet's scale.

    For training with flips both ways, turns, light, noise or blur, and holes; else resized and scaled alone.
    """
    changes = transforms("enhanced", vertical_flips=True).transforms if is_training else []
    scaled = A.Normalize(mean=IMAGENET["mean"], std=IMAGENET["std"])
    return A.Compose([A.Resize(size, size), *changes, scaled, ToTensorV2()])
