"""Robustness: accuracy on the same faces under eleven corruptions of a camera, each in three strengths.

The corruptions are those of Hendrycks & Dietterich 2019 that can occur between a face and a small image of it, and
poor crops by a face detector. The strengths are ours. The model's input crop is corrupted, so the result is the same
for every model with the same input size and colour; each face has its own seed.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from edgeemo.bench import accuracy
from edgeemo.bench.accuracy import EvalSet
from edgeemo.metrics import scores
from edgeemo.progress import track
from edgeemo.report.result import Robustness
from edgeemo.runtime import Model

Face = Image.Image
Corrupt = Callable[[Face, float, np.random.Generator], Face]
STRENGTHS = ("light", "medium", "strong")


def _add_noise(face: Face, deviation: float, rng: np.random.Generator) -> Face:
    pixels = np.asarray(face, np.float32)
    return Image.fromarray((pixels + rng.normal(0, deviation, pixels.shape)).clip(0, 255).round().astype(np.uint8))


def _blur(face: Face, radius: float, _: np.random.Generator) -> Face:
    return face.filter(ImageFilter.GaussianBlur(radius * face.width))


def _scale_brightness(face: Face, factor: float, _: np.random.Generator) -> Face:
    return ImageEnhance.Brightness(face).enhance(factor)


def _scale_contrast(face: Face, factor: float, _: np.random.Generator) -> Face:
    return ImageEnhance.Contrast(face).enhance(factor)


def _compress(face: Face, quality: float, _: np.random.Generator) -> Face:
    file = io.BytesIO()
    face.save(file, "JPEG", quality=int(quality))
    return Image.open(file).convert(face.mode)


def _downscale(face: Face, share: float, _: np.random.Generator) -> Face:
    small = face.resize((round(share * face.width),) * 2, Image.Resampling.BOX)
    return small.resize(face.size, Image.Resampling.BILINEAR)


def _rotate(face: Face, degrees: float, rng: np.random.Generator) -> Face:
    return _move(face, angle=float(rng.choice([-degrees, degrees])))


def _shift(face: Face, share: float, rng: np.random.Generator) -> Face:
    right, down = share * face.width * rng.choice([-1, 1], 2)
    return _move(face, right=right, down=down)


def _crop_tightly(face: Face, share: float, _: np.random.Generator) -> Face:
    edge = (1 - share) * face.width / 2
    return face.resize(face.size, Image.Resampling.BILINEAR, box=(edge, edge, face.width - edge, face.height - edge))


def _occlude(face: Face, share: float, rng: np.random.Generator) -> Face:
    side = round(share * face.width)
    left, top = (int(start) for start in rng.integers(0, face.width - side + 1, 2))
    occluded = face.copy()
    occluded.paste(Image.new(face.mode, (side, side)), (left, top))
    return occluded


def _move(face: Face, *, angle: float = 0.0, right: float = 0.0, down: float = 0.0) -> Face:
    """Rotate a face about its centre and shift it; its edge pixels are repeated outside, in place of a background."""
    pixels, margin = np.asarray(face), face.width
    widths = ((margin, margin), (margin, margin), (0, 0))[: pixels.ndim]
    padded = Image.fromarray(np.pad(pixels, widths, mode="edge"))
    moved = padded.rotate(angle, Image.Resampling.BILINEAR, translate=(round(right), round(down)))
    return moved.crop((margin, margin, 2 * margin, 2 * margin))


# The function and its amounts: light, medium, strong.
CORRUPTIONS: dict[str, tuple[Corrupt, tuple[float, float, float]]] = {
    "sensor noise": (_add_noise, (8, 16, 28)),  # standard deviation, of 255
    "out of focus": (_blur, (0.015, 0.03, 0.045)),  # standard deviation, of the side
    "dark": (_scale_brightness, (0.6, 0.4, 0.2)),  # times as bright
    "overexposed": (_scale_brightness, (1.4, 1.8, 2.4)),
    "low contrast": (_scale_contrast, (0.6, 0.4, 0.2)),  # of the contrast
    "JPEG": (_compress, (30, 15, 8)),  # quality
    "far away": (_downscale, (0.67, 0.5, 0.33)),  # of the pixels in a row
    "tilted": (_rotate, (10, 20, 30)),  # degrees
    "crop off centre": (_shift, (0.05, 0.1, 0.15)),  # of the side, in both directions
    "crop too tight": (_crop_tightly, (0.9, 0.8, 0.7)),  # of the side
    "partly covered": (_occlude, (0.2, 0.3, 0.4)),  # side of a black square, of the face's
}


def corrupt(pixels: np.ndarray, name: str, strength: int) -> np.ndarray:
    """Corrupt (N, S, S[, 3]) uint8 faces by `name` of CORRUPTIONS at strength 0..2; return the same shape.

    The seed is the index of the face, so face i is always corrupted alike.
    """
    apply, amounts = CORRUPTIONS[name]
    generators = (np.random.default_rng((strength, number)) for number in range(len(pixels)))
    return np.stack(
        [
            np.asarray(apply(Image.fromarray(face), amounts[strength], rng))
            for face, rng in zip(pixels, generators, strict=True)
        ]
    )


def measure_robustness(model: Model, pixels: np.ndarray, eval_set: EvalSet) -> Robustness:
    """Measure accuracy on the requested faces, clean and under every corruption, and the mean over the corruptions.

    pixels: every labelled face, decoded for the model's input contract, uint8.
    """
    rows = eval_set.requested
    faces, truth = pixels[rows], eval_set.labelled.truth[rows]

    def measure_accuracy(batch: np.ndarray) -> float:
        predicted = accuracy.predict_probabilities(model, batch)
        return scores(predicted, truth, eval_set.labels.labels).accuracy

    clean = measure_accuracy(faces)
    repeats = model.card.input.colour == "gray3"  # three equal channels: coloured noise never reaches such a model

    def corrupt_faces(name: str, strength: int) -> np.ndarray:
        batch = corrupt(faces[..., 0] if repeats else faces, name, strength)
        return np.repeat(batch[..., None], 3, axis=3) if repeats else batch

    by_corruption = {
        name: [measure_accuracy(corrupt_faces(name, strength)) for strength in range(len(STRENGTHS))]
        for name in track(CORRUPTIONS, "corrupting faces", total=len(CORRUPTIONS), unit="corruptions")
    }
    mean = float(np.mean(list(by_corruption.values())))
    return Robustness(len(faces), clean, mean, list(STRENGTHS), by_corruption)
