"""Augmentation with Albumentations: what may happen to a face between the file and the network."""

from __future__ import annotations

import os

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # else the library asks the network for news at import

import albumentations as A  # noqa: N812  the library's own custom
import cv2
import numpy as np

cv2.setNumThreads(0)  # faces are small: a thread pool costs more than it saves, and steals cores from training


def _enhanced() -> list[A.BasicTransform]:
    """The origin document's list without its vertical flips: nobody stands on their head before a camera.

    Noise is one for all channels, because a gray face in three channels (gray3) must stay gray.
    """
    noise = A.GaussNoise(std_range=(0.02, 0.08), per_channel=False)
    return [
        A.HorizontalFlip(p=0.5),
        A.Rotate(limit=20, border_mode=cv2.BORDER_REFLECT_101, p=0.7),
        A.RandomBrightnessContrast(brightness_limit=0.2, contrast_limit=0.2, p=0.5),
        A.OneOf([noise, A.GaussianBlur(blur_limit=(3, 5))], p=0.3),
        A.CoarseDropout(num_holes_range=(1, 4), hole_height_range=(0.05, 0.15), hole_width_range=(0.05, 0.15), p=0.3),
    ]


def _edge() -> list[A.BasicTransform]:
    """For faces of 48 to 64 px: shift, scale, turn, light and one hole; noise and blur would erase them."""
    return [
        A.HorizontalFlip(p=0.5),
        A.Affine(
            scale=(0.88, 1.12),
            translate_percent=(-0.08, 0.08),
            rotate=(-15, 15),
            border_mode=cv2.BORDER_REFLECT_101,
            p=0.9,
        ),
        A.RandomBrightnessContrast(brightness_limit=0.2, contrast_limit=0.25, p=0.6),
        A.CoarseDropout(num_holes_range=(1, 1), hole_height_range=(0.1, 0.35), hole_width_range=(0.1, 0.35), p=0.4),
    ]


TRANSFORMS = {"enhanced": _enhanced, "edge": _edge, "none": list}


def transforms(name: str, *, vertical_flips: bool = False) -> A.Compose:
    """The named augmentation; call `.set_random_seed(seed)`, then `(image=pixels)["image"]`, uint8 in and out."""
    upside_down = [A.VerticalFlip(p=0.5)] if vertical_flips else []
    return A.Compose([*upside_down, *TRANSFORMS[name]()])


def view_of(pixels: np.ndarray, rows: np.ndarray, transform: A.Compose, *, seed: tuple[int, int]) -> np.ndarray:
    """These rows of (N, S, S[, 3]) uint8 faces, augmented: each by `seed` and its row alone, whatever comes with it."""
    views = []
    for row in rows:
        transform.set_random_seed(int(np.random.SeedSequence((*seed, int(row))).generate_state(1)[0]) >> 1)
        views.append(transform(image=pixels[row])["image"])
    return np.stack(views)
