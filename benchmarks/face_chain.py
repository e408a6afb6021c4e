"""FER+ valid faces through the whole chain: put onto people in photos, found, cropped, classified, and as ready crops.

python benchmarks/face_chain.py [FOLDER]     (writes benchmarks/results/faces/chain.json; FOLDER: as of hard_faces.py)

FER+ has no more than the face, without which a detector has little to go by: hair, neck, shoulders. So each of COUNT
faces, 48 px wide, is enlarged to 60 to 200 px and laid over the face of one of the people of hard_faces.py in a frame
of 640x480, turned by -20 to 20 degrees as a whole. It is framed as the contract has it only on average, which is part
of what is measured. A face that is not found counts as wrong. "true square" is cut where the face was laid, so that it
shows what pasting alone costs: its edges are blended with the person's.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from hard_faces import FACE, MIN_IOU, VGA, Scene, find_photos, read_people, show
from PIL import Image, ImageDraw, ImageFilter

import edgeemo
from edgeemo import images
from edgeemo.card import Crop, InputContract
from edgeemo.data import faces
from edgeemo.faces import Detection, crop, load_detector
from edgeemo.faces.crop import Square, turn
from edgeemo.faces.crop import place as locate
from edgeemo.faces.merge import compute_iou
from edgeemo.labels import LABEL_SETS
from edgeemo.progress import track
from edgeemo.report import files
from edgeemo.report.facts import make_header
from edgeemo.report.result import Measurement
from edgeemo.report.table import Table

OUT = Path(__file__).parent / "results" / "faces" / "chain.json"
DATA = "ferplus:../shared/data/ferplus.zip"
COUNT = 500
SIDE = 48
SIZES, TILTS = ((60, 90), (90, 130), (130, 200)), ((0, 5), (5, 10), (10, 15), (15, 20))
MODELS = ("nano", "small", "base")
NOTE = "Accuracy in %, as ready crops → found and cut."
CROPS = {  # what the contract could be instead
    "contract": Crop(),
    "side x0.9": Crop(side_eye_distances=2.8 * 0.9),
    "side x1.1": Crop(side_eye_distances=2.8 * 1.1),
    "0.1 higher": Crop(below_eyes=0.2),
    "0.1 lower": Crop(below_eyes=0.4),
    "never turned": Crop(turn_from_degrees=180),
    "always turned": Crop(turn_from_degrees=0),
}


@dataclass(frozen=True)
class Frame:
    """A photo of a person with a FER+ face."""

    pixels: np.ndarray  # (480, 640, 3) uint8
    box: np.ndarray  # (4,): the square about the eyes of the person, which a detector's box should overlap
    size: float  # pixels of the side of the FER+ square
    tilt: float  # degrees, anticlockwise
    centre: tuple[float, float]  # of the FER+ square


def make_frames(pixels: np.ndarray, people: list[Scene]) -> Iterator[Frame]:
    """Lay each face over that of a person, in turn."""
    rng = np.random.default_rng(0)
    for number, face in enumerate(pixels):
        size, tilt = int(rng.integers(60, 201)), float(rng.uniform(-20, 20))
        at = tuple(rng.uniform(0.35, 0.65, 2))
        scene = show(people[number % len(people)], size * FACE / Crop().side_eye_distances, at=at)
        square = locate(Detection((0, 0, 1, 1), 1.0, tuple(map(tuple, scene.eyes[0]))), InputContract(SIDE))
        corner = tuple(round(middle - size / 2) for middle in square.centre)
        mask, edge = Image.new("L", (size, size)), size / 12
        ImageDraw.Draw(mask).rounded_rectangle((edge, edge, size - edge, size - edge), size / 4, fill=255)
        large = Image.fromarray(face).resize((size, size), Image.Resampling.BICUBIC).convert("RGB")
        frame = scene.image.convert("L").convert("RGB")
        frame.paste(large, corner, mask.filter(ImageFilter.GaussianBlur(edge / 2)))
        turned = frame.rotate(tilt, Image.Resampling.BICUBIC, center=tuple(one + size / 2 for one in corner))
        yield Frame(np.asarray(turned), scene.boxes[0], size, tilt, (corner[0] + size / 2, corner[1] + size / 2))


def find_face(frame: Frame, detections: list[Detection]) -> Detection | None:
    """The detection that overlaps the face most, if by enough."""
    if not detections:
        return None
    overlap = compute_iou(frame.box[None], np.array([one.box for one in detections]))[0]
    return detections[int(overlap.argmax())] if overlap.max() >= MIN_IOU else None


def classify(name: str, found: list[np.ndarray | None]) -> np.ndarray:
    """Index of the most probable label of each face, -1 where there is no crop."""
    with edgeemo.load(name) as model:
        rows = [number for number, one in enumerate(found) if one is not None]
        labels = [model.labels.index(one.label) for one in model.predict_batch([found[row] for row in rows])]
    answers = np.full(len(found), -1)
    answers[rows] = labels
    return answers


def main() -> None:
    """Measure, and write the result."""
    photos = find_photos(list(map(Path, sys.argv[1:])))
    people = read_people(photos)
    valid = faces.load(DATA, "valid", LABEL_SETS["ferplus8"], contract=InputContract(SIDE)).take_evenly(COUNT)
    detector = load_detector()
    frames = list(make_frames(np.asarray(valid.pixels), people))
    detections = [detector.detect(frame.pixels) for frame in track(frames, "detecting", total=len(frames))]
    found = [find_face(*pair) for pair in zip(frames, detections, strict=True)]
    crops = {name: cut_all(frames, found, wanted) for name, wanted in CROPS.items()}
    crops["true square"] = [cut_true(frame) for frame in frames]
    rows = [row for name in MODELS for row in measure(name, valid, frames, crops)]
    facts = {
        "found": sum(one is not None for one in found),
        "false": sum(len(one) for one in detections) - sum(one is not None for one in found),
        "people": len(people) // 2,
    }
    settings = {"data": "ferplus", "split": "valid", "faces": COUNT, "frame": VGA, "detector": detector.card.name}
    result = Measurement(header=make_header(), script="face_chain", settings=settings, rows=rows, facts=facts)
    files.write(result, OUT)
    print(facts, table(rows).to_markdown(), sep="\n\n")


def cut_all(frames: list[Frame], found: list[Detection | None], wanted: Crop) -> list[np.ndarray | None]:
    """Crop each face that was found."""
    contract = replace(InputContract(SIDE), crop=wanted)
    pairs = zip(frames, found, strict=True)
    return [None if one is None else crop(frame.pixels, one, contract) for frame, one in pairs]


def cut_true(frame: Frame) -> np.ndarray:
    """Cut the FER+ square where it was laid, turned upright."""
    contract = InputContract(SIDE)
    return images.resize(turn(frame.pixels, Square(frame.centre, frame.size, -frame.tilt), SIDE), contract)


def measure(
    name: str, valid: faces.Faces, frames: list[Frame], crops: dict[str, list[np.ndarray | None]]
) -> Iterator[dict[str, Any]]:
    """Accuracy of a model on ready crops and through the chain: in all, by size, by tilt, and with other crops."""
    ready = classify(name, list(valid.pixels)) == valid.truth
    chain = {kind: classify(name, found) == valid.truth for kind, found in crops.items()}
    size, tilt = np.array([one.size for one in frames]), np.abs([one.tilt for one in frames])
    groups = {"all": np.ones(len(frames), bool)}
    groups |= {f"{low} to {high} px": (size >= low) & (size < high + (high == 200)) for low, high in SIZES}
    groups |= {f"tilted {low} to {high} degrees": (tilt >= low) & (tilt < high) for low, high in TILTS}
    for group, rows in groups.items():
        both = {"ready": round(float(ready[rows].mean()), 4), "chain": round(float(chain["contract"][rows].mean()), 4)}
        seen = sum(one is not None for one, row in zip(crops["contract"], rows, strict=True) if row)
        yield {"model": name, "group": group, "faces": int(rows.sum()), "found": seen, "crop": "contract", **both}
    found = sum(one is not None for one in crops["contract"])
    for kind, right in chain.items():
        if kind != "contract":
            both = {"ready": round(float(ready.mean()), 4), "chain": round(float(right.mean()), 4)}
            yield {"model": name, "group": "all", "faces": len(frames), "found": found, "crop": kind, **both}


def table(rows: list[dict[str, Any]]) -> Table:
    """A row per group and crop, a column per model."""
    keys = list(dict.fromkeys((row["group"], row["crop"]) for row in rows))
    body = []
    for group, kind in keys:
        of = {row["model"]: row for row in rows if (row["group"], row["crop"]) == (group, kind)}
        cells = (f"{100 * of[name]['ready']:.1f} → {100 * of[name]['chain']:.1f}" for name in MODELS)
        body.append((group, kind, str(of[MODELS[0]]["faces"]), str(of[MODELS[0]]["found"]), *cells))
    return Table("face chain", ("faces", "crop", "n", "found", *MODELS), body, NOTE)


if __name__ == "__main__":
    main()
