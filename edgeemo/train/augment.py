"""Augmentation and corruption of training faces, with Albumentations."""

from __future__ import annotations

import os

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # else the library checks for updates online at import

import albumentations as A  # noqa: N812  as in the library's documentation
import cv2
import numpy as np

from edgeemo.images import Pixels

cv2.setNumThreads(0)  # faces are small: a thread pool costs more than it saves and takes cores from training


def _make_enhanced() -> list[A.BasicTransform]:
    """Return the origin document's augmentation without vertical flips: faces in front of a camera are upright.

    All channels get the same noise, because a gray face in three channels (gray3) must stay gray.
    """
    noise = A.GaussNoise(std_range=(0.02, 0.08), per_channel=False)
    return [
        A.HorizontalFlip(p=0.5),
        A.Rotate(limit=20, border_mode=cv2.BORDER_REFLECT_101, p=0.7),
        A.RandomBrightnessContrast(brightness_limit=0.2, contrast_limit=0.2, p=0.5),
        A.OneOf([noise, A.GaussianBlur(blur_limit=(3, 5))], p=0.3),
        A.CoarseDropout(num_holes_range=(1, 4), hole_height_range=(0.05, 0.15), hole_width_range=(0.05, 0.15), p=0.3),
    ]


def _make_edge() -> list[A.BasicTransform]:
    """Return the augmentation for faces of 48 to 64 px, without noise and blur, which would erase such small faces."""
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


def _make_corruptions() -> list[A.BasicTransform]:
    """Return one of five corruptions: sensor noise, defocus, distance (downscaling), JPEG compression and exposure."""
    return [
        A.OneOf(
            [
                A.GaussNoise(std_range=(0.02, 0.12), per_channel=False),
                A.GaussianBlur(sigma_limit=(0.4, 2.2)),
                A.Downscale(
                    scale_range=(0.3, 0.8),
                    interpolation_pair={"downscale": cv2.INTER_AREA, "upscale": cv2.INTER_LINEAR},
                ),
                A.ImageCompression(quality_range=(6, 50)),
                A.RandomBrightnessContrast(brightness_limit=0, contrast_limit=(-0.8, 1.4)),  # pixels times 0.2 to 2.4
            ],
            p=1.0,
        )
    ]


TRANSFORMS = {"enhanced": _make_enhanced, "edge": _make_edge, "none": list}


def make_augmentation(name: str, *, vertical_flips: bool = False) -> A.Compose:
    """Return an augmentation; call `.set_random_seed(seed)`, then `(image=pixels)["image"]`, uint8 in and out."""
    upside_down = [A.VerticalFlip(p=0.5)] if vertical_flips else []
    return A.Compose([*upside_down, *TRANSFORMS[name]()])


class Corruption:
    """Corrupts a fraction of the faces of a batch after augmentation: one of five corruptions, at random strength.

    `bench --robustness` measures some of the same corruptions. A network trained with them is therefore measured there
    on corruptions it has seen in training.
    """

    def __init__(self, share: float) -> None:
        self.share, self.transform = share, A.Compose(_make_corruptions())

    def __call__(self, pixels: np.ndarray, *, seed: int) -> np.ndarray:
        """Return a copy of (N, S, S[, 3]) uint8 faces with about `share` of them corrupted."""
        rng = np.random.default_rng((seed, 1))
        corrupted: np.ndarray = pixels.copy()
        for row in np.flatnonzero(rng.random(len(pixels)) < self.share):
            self.transform.set_random_seed(int(rng.integers(2**31)))
            corrupted[row] = self.transform(image=pixels[row])["image"]
        return corrupted


def augment_view(pixels: Pixels, rows: np.ndarray, transform: A.Compose, *, seed: tuple[int, int]) -> np.ndarray:
    """Return these rows of (N, S, S[, 3]) uint8 faces, augmented; each depends on `seed` and its row number alone."""
    views = []
    for row in rows:
        transform.set_random_seed(int(np.random.SeedSequence((*seed, int(row))).generate_state(1)[0]) >> 1)
        views.append(transform(image=pixels[row])["image"])
    return np.stack(views)
