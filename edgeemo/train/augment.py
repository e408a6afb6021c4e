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


def _poor_camera() -> list[A.BasicTransform]:
    """One of what a cheap sensor, a missed focus, distance, a narrow line or the light does to a small face."""
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


TRANSFORMS = {"enhanced": _enhanced, "edge": _edge, "none": list}


def transforms(name: str, *, vertical_flips: bool = False) -> A.Compose:
    """The named augmentation; call `.set_random_seed(seed)`, then `(image=pixels)["image"]`, uint8 in and out."""
    upside_down = [A.VerticalFlip(p=0.5)] if vertical_flips else []
    return A.Compose([*upside_down, *TRANSFORMS[name]()])


class PoorCamera:
    """Corrupts a share of a batch's faces after their augmentation, in one of five ways and a random strength each.

    The ways are some of those that `bench --robustness` measures: a network that saw them here is judged by them there
    as by faces it has practised on.
    """

    def __init__(self, share: float) -> None:
        self.share, self.transform = share, A.Compose(_poor_camera())

    def __call__(self, pixels: np.ndarray, *, seed: int) -> np.ndarray:
        """(N, S, S[, 3]) uint8 → the same, about `share` of them corrupted."""
        rng = np.random.default_rng((seed, 1))
        seen: np.ndarray = pixels.copy()
        for place in np.flatnonzero(rng.random(len(pixels)) < self.share):
            self.transform.set_random_seed(int(rng.integers(2**31)))
            seen[place] = self.transform(image=pixels[place])["image"]
        return seen


def view_of(pixels: np.ndarray, rows: np.ndarray, transform: A.Compose, *, seed: tuple[int, int]) -> np.ndarray:
    """These rows of (N, S, S[, 3]) uint8 faces, augmented: each by `seed` and its row alone, whatever comes with it."""
    views = []
    for row in rows:
        transform.set_random_seed(int(np.random.SeedSequence((*seed, int(row))).generate_state(1)[0]) >> 1)
        views.append(transform(image=pixels[row])["image"])
    return np.stack(views)
