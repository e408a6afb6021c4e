"""What a model says of a face: its emotion, and where the face is in an image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeemo.faces.detection import Box, Framing, Point


@dataclass(frozen=True)
class Prediction:
    """The emotion that a face expresses, as predicted by the model; not what the person feels."""

    label: str
    probability: float  # of `label`, 0..1
    probabilities: dict[str, float]  # of every label, most probable first; they sum to 1
    unsure: bool | None = None  # whether `probability` is below the card's threshold; None: it has none

    def __str__(self) -> str:
        others = [f"{name} {100 * share:.1f} %" for name, share in list(self.probabilities.items())[1:3]]
        unsure = "unsure: " if self.unsure else ""
        return f"{unsure}{self.label} {100 * self.probability:.1f} % ({', '.join(others)})"


@dataclass(frozen=True)
class Face:
    """A face in a whole image, in pixels of the upright image, with the emotion that the model predicts for it.

    box: x, y, width, height, x and y of the top left corner; it may extend over the edges of the image. score: the
    detector's, 0..1, which is no probability. landmarks: (x, y) of the points that the detector finds, its right and
    left eye first (the person's); empty if it finds none. flags: why the prediction may be poor, as
    `faces.find_flags` says: `small`, `tilted`, `clipped`. framing: how the detector's boxes lie about the eyes, for
    `faces.crop`; None: not known.
    """

    box: Box
    score: float
    landmarks: tuple[Point, ...]
    prediction: Prediction
    flags: tuple[str, ...] = ()
    framing: Framing | None = None

    def __str__(self) -> str:
        x, y, width, height = (round(value) for value in self.box)
        notes = "".join(f", {flag}" for flag in self.flags)
        return f"{self.prediction}; face of {width}x{height} px at {x}, {y}, score {self.score:.2f}{notes}"


@dataclass(frozen=True)
class FoundFaces:
    """The faces of an image, the highest score first, and why each of the others was left out."""

    faces: list[Face]
    left_out: list[str]


def make_prediction(row: np.ndarray, labels: tuple[str, ...], least_probability: float | None) -> Prediction:
    """Return the prediction of a row of probabilities, (K,), one per label."""
    ranked = {labels[k]: float(row[k]) for k in np.argsort(-row, kind="stable")}
    label, probability = next(iter(ranked.items()))
    return Prediction(
        label, probability, ranked, None if least_probability is None else probability < least_probability
    )
