"""Write docs/crop-vectors.json: faces with the square and the pixels of their crop, for hosts in other languages.

python benchmarks/crop_vectors.py

The image is computed and the faces are made up, so that no picture of a person is needed.
"""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import numpy as np

from edgeemo import images
from edgeemo.card import Crop, InputContract, to_json
from edgeemo.faces import Detection, Framing
from edgeemo.faces.crop import extract, place

OUT = Path(__file__).parents[1] / "docs" / "crop-vectors.json"
WIDTH, HEIGHT = 64, 48
BLAZEFACE = Framing(2.54, 0.44)  # as edgeemo/models/detectors/blazeface-full.json has them
YUNET = Framing(2.7, 0.39)
Face = tuple[tuple[float, ...], tuple[tuple[float, float], ...], Framing | None]
FACES: dict[str, tuple[Face, Crop, int, str]] = {
    "level": (((15.2, 9.1, 30.4, 33.3), ((22.3, 20.2), (36.1, 20.9)), BLAZEFACE), Crop(), 16, "gray"),
    "tilted, but not turned": (((14.0, 8.0, 31.0, 31.0), ((21.3, 18.9), (34.2, 20.7)), None), Crop(), 16, "gray"),
    "turned clockwise": (((14.0, 8.0, 31.0, 31.0), ((23.4, 15.1), (34.9, 20.6)), BLAZEFACE), Crop(), 16, "gray"),
    "turned anticlockwise": (((18.0, 9.0, 27.0, 27.0), ((25.2, 26.3), (33.1, 19.4)), YUNET), Crop(), 24, "rgb"),
    "upside down": (((20.0, 10.0, 24.0, 24.0), ((37.2, 27.9), (27.1, 26.3)), BLAZEFACE), Crop(), 16, "gray"),
    "enlarged": (((24.0, 16.0, 16.0, 16.0), ((28.4, 21.3), (35.3, 21.9)), BLAZEFACE), Crop(), 32, "rgb"),
    "head turned sideways": (((16.0, 9.0, 29.0, 30.0), ((24.7, 19.2), (28.4, 19.4)), BLAZEFACE), Crop(), 16, "gray"),
    "without landmarks": (((17.3, 10.2, 24.1, 27.6), (), YUNET), Crop(), 16, "gray"),
    "over a corner": (((42.0, -9.0, 30.0, 30.0), ((50.3, 1.2), (62.4, 2.1)), BLAZEFACE), Crop(), 16, "gray"),
    "turned, over an edge": (((-8.0, 22.0, 30.0, 30.0), ((1.3, 28.1), (10.2, 38.7)), BLAZEFACE), Crop(), 16, "rgb"),
    "another crop": (((15.0, 9.0, 30.0, 30.0), ((23.1, 20.4), (36.3, 21.6)), None), Crop(2.2, 0.5, 3.0), 16, "gray"),
}
ABOUT = (
    "For a port of step 1 to 3 of docs/card.md. Pixels are uint8, row by row, red first, in base64. Square: centre and "
    "side in pixels of the image, degrees that it is turned by. Crop: the face after step 3. tolerance: levels that a "
    "pixel may differ by; where faces are turned, a sample may lie between two levels."
)


def draw_image() -> np.ndarray:
    """Return (48, 64, 3) uint8: waves in every direction, of which no two places are alike."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    bands = [(x * x // 5 + y * (7 + k) + x * y // (3 + k) + 60 * k) % 511 for k in range(3)]
    return np.stack([np.minimum(band, 510 - band) for band in bands], axis=2).astype(np.uint8)


def make_vectors() -> dict[str, Any]:
    """Return the content of the file."""
    image = draw_image()
    return {
        "about": ABOUT,
        "image": {"width": WIDTH, "height": HEIGHT, "pixels": _encode(image)},
        "faces": [_make_face(name, image, *about) for name, about in FACES.items()],
    }


def _make_face(name: str, image: np.ndarray, face: Face, crop: Crop, size: int, colour: str) -> dict[str, Any]:
    box, landmarks, framing = face
    channels = 3 if colour == "rgb" else 1
    contract = InputContract(size, colour, (0.5,) * channels, (0.25,) * channels, crop=crop)
    square = place(Detection((box[0], box[1], box[2], box[3]), 1.0, landmarks, framing), contract)
    return {
        "name": name,
        "box": box,
        "eyes": landmarks or None,
        "detector_box": to_json(framing) if framing else None,
        "input": {"size": size, "colour": colour, "crop": to_json(crop)},
        "square": {"centre": square.centre, "side": square.side, "degrees": square.degrees},
        "crop": _encode(images.resize(extract(image, square, size), contract)),
        "tolerance": 1 if square.degrees else 0,
    }


def _encode(pixels: np.ndarray) -> str:
    return b64encode(pixels.tobytes()).decode()


if __name__ == "__main__":
    OUT.write_text(json.dumps(make_vectors(), indent=1) + "\n", encoding="utf-8")
