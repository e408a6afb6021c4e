"""What is predicted for images, as text and as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import isnan
from typing import Any

from edgeemo.errors import DataError
from edgeemo.names import escape_name
from edgeemo.runtime import Face, Prediction

NO_SCORE = float("nan")  # of a ready crop, in which nothing was searched
CROP_SIDE = 256  # pixels; an image without a face that is no larger may be a ready crop
DECIMALS = {"box": 2, "score": 4, "probability": 6}  # in JSON and tables; boxes and landmarks are in pixels


@dataclass(frozen=True)
class ImageFaces:
    """The faces of one image of width x height pixels, upright; of a ready crop, its central square.

    left_out: why further faces that were found are not classified.
    """

    image: str
    width: int
    height: int
    faces: tuple[Face, ...]
    left_out: tuple[str, ...] = ()
    crop: bool = False

    def __str__(self) -> str:
        """Return a line per face, and one if others are too small or there is none, whatever the image is named."""
        lines = [str(face.prediction if self.crop else face) for face in self.faces]
        lines += [f"1 face left out: {reason}" for reason in self.left_out]
        name = escape_name(self.image)
        return "\n".join(f"{name}: {line}" for line in lines or [f"no face found{self._advise()}"])

    def _advise(self) -> str:
        if max(self.width, self.height) > CROP_SIDE:
            return ""
        return f"; if these {self.width}x{self.height} px are a ready crop of a face, use --crop"

    def to_json(self) -> str:
        """Return a JSON object on one line."""
        faces = [make_record(face) for face in self.faces]
        size = {"width": self.width, "height": self.height}
        return json.dumps({"image": self.image, **size, "faces": faces, "left_out": self.left_out})


@dataclass(frozen=True)
class Predictions:
    """The faces of images, in order, and the errors of images that cannot be read."""

    images: tuple[ImageFaces, ...]
    unreadable: tuple[DataError, ...]

    @property
    def passed(self) -> bool:
        """Every image was read."""
        return not self.unreadable

    def __str__(self) -> str:
        """Return a line per face."""
        return "\n".join(map(str, self.images))

    def to_json(self) -> str:
        """Return one JSON object per image, on a line each."""
        return "\n".join(one.to_json() for one in self.images)


def make_crop_face(width: int, height: int, prediction: Prediction) -> Face:
    """Return the face of a ready crop of width x height px: its central square, without a score."""
    side = min(height, width)
    box = (float((width - side) // 2), float((height - side) // 2), float(side), float(side))
    return Face(box, NO_SCORE, (), prediction)


def make_record(face: Face) -> dict[str, Any]:
    """Return a face as JSON-ready values; its score is None in a ready crop."""
    places, shares = DECIMALS["box"], DECIMALS["probability"]
    prediction = face.prediction
    return {
        "box": [round(value, places) for value in face.box],
        "score": None if isnan(face.score) else round(face.score, DECIMALS["score"]),
        "landmarks": [[round(value, places) for value in point] for point in face.landmarks],
        "label": prediction.label,
        "probability": round(prediction.probability, shares),
        "probabilities": {label: round(share, shares) for label, share in prediction.probabilities.items()},
        "unsure": prediction.unsure,
        "flags": list(face.flags),
    }
