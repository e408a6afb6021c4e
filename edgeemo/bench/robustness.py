"""What a camera does to faces: accuracy on the same faces, corrupted in eleven ways and three strengths.

The ways are those of Hendrycks & Dietterich 2019 that happen between a face and a small picture of it, and what a face
detector adds: poor crops. The strengths are ours. Corruption starts from the crop that the model gets, so it is the
same for every model of one input size and colour; each face has its own seed.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from edgeemo.bench import accuracy
from edgeemo.bench.accuracy import Trial
from edgeemo.metrics import scores
from edgeemo.progress import track
from edgeemo.report.result import Robustness
from edgeemo.runtime import Model

Face = Image.Image
Corrupt = Callable[[Face, float, np.random.Generator], Face]
STRENGTHS = ("light", "medium", "strong")


def _noisy(face: Face, deviation: float, rng: np.random.Generator) -> Face:
    pixels = np.asarray(face, np.float32)
    return Image.fromarray((pixels + rng.normal(0, deviation, pixels.shape)).clip(0, 255).round().astype(np.uint8))


def _blurred(face: Face, radius: float, _: np.random.Generator) -> Face:
    return face.filter(ImageFilter.GaussianBlur(radius * face.width))


def _exposed(face: Face, factor: float, _: np.random.Generator) -> Face:
    return ImageEnhance.Brightness(face).enhance(factor)


def _flat(face: Face, factor: float, _: np.random.Generator) -> Face:
    return ImageEnhance.Contrast(face).enhance(factor)


def _compressed(face: Face, quality: float, _: np.random.Generator) -> Face:
    file = io.BytesIO()
    face.save(file, "JPEG", quality=int(quality))
    return Image.open(file).convert(face.mode)


def _far(face: Face, share: float, _: np.random.Generator) -> Face:
    small = face.resize((round(share * face.width),) * 2, Image.Resampling.BOX)
    return small.resize(face.size, Image.Resampling.BILINEAR)


def _tilted(face: Face, degrees: float, rng: np.random.Generator) -> Face:
    return _placed(face, angle=float(rng.choice([-degrees, degrees])))


def _shifted(face: Face, share: float, rng: np.random.Generator) -> Face:
    right, down = share * face.width * rng.choice([-1, 1], 2)
    return _placed(face, right=right, down=down)


def _tight(face: Face, share: float, _: np.random.Generator) -> Face:
    edge = (1 - share) * face.width / 2
    return face.resize(face.size, Image.Resampling.BILINEAR, box=(edge, edge, face.width - edge, face.height - edge))


def _covered(face: Face, share: float, rng: np.random.Generator) -> Face:
    side = round(share * face.width)
    left, top = (int(place) for place in rng.integers(0, face.width - side + 1, 2))
    hidden = face.copy()
    hidden.paste(Image.new(face.mode, (side, side)), (left, top))
    return hidden


def _placed(face: Face, *, angle: float = 0.0, right: float = 0.0, down: float = 0.0) -> Face:
    """Turned about its middle and moved; its edge pixels go on beyond it, as a picture's surroundings would."""
    pixels, margin = np.asarray(face), face.width
    widths = ((margin, margin), (margin, margin), (0, 0))[: pixels.ndim]
    around = Image.fromarray(np.pad(pixels, widths, mode="edge"))
    moved = around.rotate(angle, Image.Resampling.BILINEAR, translate=(round(right), round(down)))
    return moved.crop((margin, margin, 2 * margin, 2 * margin))


# How, and how much: light, medium, strong.
CORRUPTIONS: dict[str, tuple[Corrupt, tuple[float, float, float]]] = {
    "sensor noise": (_noisy, (8, 16, 28)),  # standard deviation, of 255
    "out of focus": (_blurred, (0.015, 0.03, 0.045)),  # standard deviation, of the side
    "dark": (_exposed, (0.6, 0.4, 0.2)),  # times as bright
    "overexposed": (_exposed, (1.4, 1.8, 2.4)),
    "low contrast": (_flat, (0.6, 0.4, 0.2)),  # of the contrast
    "JPEG": (_compressed, (30, 15, 8)),  # quality
    "far away": (_far, (0.67, 0.5, 0.33)),  # of the pixels in a row
    "tilted": (_tilted, (10, 20, 30)),  # degrees
    "crop off centre": (_shifted, (0.05, 0.1, 0.15)),  # of the side, in both directions
    "crop too tight": (_tight, (0.9, 0.8, 0.7)),  # of the side
    "partly covered": (_covered, (0.2, 0.3, 0.4)),  # side of a black square, of the face's
}


def corrupted(pixels: np.ndarray, name: str, strength: int) -> np.ndarray:
    """(N, S, S) or (N, S, S, 3) uint8 → the same, each face under the corruption `name` of CORRUPTIONS; strength 0..2.

    Face i is corrupted alike wherever it is, by a seed of i.
    """
    corrupt, amounts = CORRUPTIONS[name]
    seeds = (np.random.default_rng((strength, number)) for number in range(len(pixels)))
    return np.stack(
        [
            np.asarray(corrupt(Image.fromarray(face), amounts[strength], rng))
            for face, rng in zip(pixels, seeds, strict=True)
        ]
    )


def judged(model: Model, pixels: np.ndarray, asked: Trial) -> Robustness:
    """Accuracy of the faces that are asked about, as they are and under every corruption, and the mean over these.

    pixels: every chosen face as the model's input asks, uint8.
    """
    rows = asked.asked
    faces, truth = pixels[rows], asked.chosen.truth[rows]

    def right(seen: np.ndarray) -> float:
        return scores(accuracy.probabilities(model, seen), truth, asked.labels.labels).accuracy

    clean = right(faces)
    repeats = model.card.input.colour == "gray3"  # of one channel; noise with a colour never comes to such a model

    def under(name: str, strength: int) -> np.ndarray:
        seen = corrupted(faces[..., 0] if repeats else faces, name, strength)
        return np.repeat(seen[..., None], 3, axis=3) if repeats else seen

    found = {
        name: [right(under(name, strength)) for strength in range(len(STRENGTHS))]
        for name in track(CORRUPTIONS, "corrupting faces", total=len(CORRUPTIONS))
    }
    mean = float(np.mean(list(found.values())))
    return Robustness(len(faces), clean, mean, list(STRENGTHS), found)
