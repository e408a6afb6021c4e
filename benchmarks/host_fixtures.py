"""Write hosts/fixtures: pictures with what every host must find, crop and predict in them.

python benchmarks/host_fixtures.py

pictures/NAME.png are inputs, drawn here, so that they show nobody. crops/NAME-FACE.png are the crops of the faces, and
expected.json has all else: boxes, scores, landmarks, flags and probabilities of every packaged model, of Python with
ONNX Runtime, and how far a host may differ. docs/hosts.md explains the fields.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import edgeemo
from edgeemo import images
from edgeemo.data.drawing import draw_face
from edgeemo.faces import crop, load_detector
from edgeemo.predict.result import make_record
from edgeemo.runtime import shipped
from edgeemo.watch.scene import CLEAR, Scene

FOLDER = Path(__file__).parents[1] / "hosts" / "fixtures"
# How far a host may differ: of boxes and landmarks in pixels, of scores and probabilities, of a crop in grey levels.
TOLERANCES = {"box_px": 0.1, "score": 1e-3, "probability": 1e-3, "crop_levels": 1}
CROPS = {"upright": (48, 48), "wide": (61, 100), "large": (211, 160)}  # ready crops: height and width in pixels


def draw_scene(people: int, width: int, height: int, seed: int) -> Callable[[], np.ndarray]:
    """Return what draws a room with people, in colour."""
    return lambda: Scene(people, seed, width, height, labels=CLEAR).frame(0)[0]


def draw_turned() -> np.ndarray:
    """Draw a gray image with a face tilted by 25 degrees."""
    canvas = np.full((300, 300), 110, np.uint8)
    canvas[60:240, 60:240] = draw_face("happiness", seed=16, size=180)
    return np.asarray(Image.fromarray(canvas).rotate(-25, Image.Resampling.BILINEAR, fillcolor=110))


def draw_clipped() -> np.ndarray:
    """Draw a gray image with a face that extends over its left and lower edge."""
    image = np.full((240, 320), 110, np.uint8)
    face = draw_face("neutral", seed=10, size=180)
    image[84:, :140] = face[:156, 40:]
    return image


def draw_empty() -> np.ndarray:
    """Draw waves in colour, without a face."""
    y, x = np.mgrid[:270, :480]
    bands = [(x * x // 50 + y * (7 + k) + x * y // (30 + k) + 60 * k) % 511 for k in range(3)]
    return np.stack([np.minimum(band, 510 - band) for band in bands], axis=2).astype(np.uint8)


PICTURES: dict[str, Callable[[], np.ndarray]] = {
    "one": draw_scene(1, 640, 480, 3),
    "four": draw_scene(4, 640, 480, 3),
    "small": draw_scene(1, 160, 120, 5),
    "portrait": draw_scene(2, 363, 651, 7),  # odd sides, and resized by less than a half
    "tiles": draw_scene(6, 1280, 720, 11),  # searched in tiles, too
    "turned": draw_turned,
    "clipped": draw_clipped,
    "empty": draw_empty,
}


def main() -> None:
    """Draw all pictures, and write what Python makes of them."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    for name in ("pictures", "crops", "ready"):
        (FOLDER / name).mkdir(parents=True)
    models = {name: edgeemo.load(name) for name in shipped.NAMES}
    detector = load_detector()
    expected = {
        "format": 1,
        "tolerances": TOLERANCES,
        "detector": {"name": detector.card.name, "sha256": detector.card.sha256},
        "models": {name: {"sha256": model.card.sha256, "labels": list(model.labels)} for name, model in models.items()},
        "pictures": [describe(name, draw(), models) for name, draw in PICTURES.items()],
        "ready": [describe_ready(name, size, models) for name, size in CROPS.items()],
    }
    (FOLDER / "expected.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")


def describe(name: str, pixels: np.ndarray, models: dict[str, edgeemo.Model]) -> dict[str, Any]:
    """Save a picture and the crops of its faces; return what is found in it."""
    file = FOLDER / "pictures" / f"{name}.png"
    Image.fromarray(pixels).save(file, optimize=True)
    found = {model: opened.find_faces(file) for model, opened in models.items()}
    first = found["small"]
    faces = []
    for number, face in enumerate(first.faces):
        crop_file = FOLDER / "crops" / f"{name}-{number}.png"
        Image.fromarray(crop(pixels, face, models["small"].card.input)).save(crop_file, optimize=True)
        record = make_record(face)
        faces.append(
            {
                **{key: record[key] for key in ("box", "score", "landmarks", "flags")},
                "crop": f"crops/{crop_file.name}",
                "predictions": {model: predict(found[model].faces[number]) for model in models},
            }
        )
    height, width = pixels.shape[:2]
    return {
        "file": f"pictures/{file.name}",
        "width": width,
        "height": height,
        "faces": faces,
        "left_out": first.left_out,
    }


def predict(face: edgeemo.Face) -> dict[str, Any]:
    """Return what a model predicts for a face, averaged over three crops."""
    record = make_record(face)
    return {key: record[key] for key in ("label", "probability", "unsure", "probabilities")}


def describe_ready(name: str, size: tuple[int, int], models: dict[str, edgeemo.Model]) -> dict[str, Any]:
    """Save a ready crop, gray and of this height and width; return what is predicted for it."""
    height, width = size
    side = min(size)
    pixels = np.full(size, 110, np.uint8)
    top, left = (height - side) // 2, (width - side) // 2
    pixels[top : top + side, left : left + side] = draw_face("surprise", seed=4, size=side)
    file = FOLDER / "ready" / f"{name}.png"
    Image.fromarray(pixels).save(file, optimize=True)
    input_file = FOLDER / "ready" / f"{name}-input.png"
    Image.fromarray(images.to_pixels(pixels, models["small"].card.input)).save(input_file, optimize=True)
    predictions = {}
    for model, opened in models.items():
        one = opened.predict(pixels)
        rounded = {label: round(share, 6) for label, share in one.probabilities.items()}
        predictions[model] = {
            "label": one.label,
            "probability": round(one.probability, 6),
            "unsure": one.unsure,
            "probabilities": rounded,
        }
    return {"file": f"ready/{file.name}", "input": f"ready/{input_file.name}", "predictions": predictions}


if __name__ == "__main__":
    main()
