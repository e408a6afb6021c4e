"""FER+ valid faces through the whole chain: put onto people in photos, found, cropped, classified, and as ready crops.

python benchmarks/face_chain.py [FOLDER]     (writes benchmarks/results/faces/chain.json; FOLDER: as of hard_faces.py)

FER+ has no more than the face, without which a detector has little to go by: hair, neck, shoulders. So each face, 48 px
wide, is enlarged to 60 to 200 px and laid over the face of one of the people of hard_faces.py in a frame of 640x480,
turned by -20 to 20 degrees as a whole. It is framed as the contract has it only on average, which is part of what is
measured. A face that is not found counts as wrong. "true square" is cut where the face was laid, so that it shows what
pasting alone costs: its edges are blended with the person's, and it is resampled twice. "augmented" averages the crops
that Model.faces averages.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import copysign
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
from edgeemo.faces.crop import AUGMENTED, Square, turn
from edgeemo.faces.crop import place as locate
from edgeemo.faces.merge import compute_iou
from edgeemo.faces.passes import FACES
from edgeemo.labels import LABEL_SETS
from edgeemo.progress import track
from edgeemo.report import files
from edgeemo.report.facts import make_header
from edgeemo.report.result import Measurement
from edgeemo.report.table import Table

OUT = Path(__file__).parent / "results" / "faces" / "chain.json"
DATA = "ferplus:../shared/data/ferplus.zip"
SIDE = 48
SIZES, TILTS = ((60, 90), (90, 130), (130, 200)), ((0, 5), (5, 10), (10, 15), (15, 20))
MODELS = ("nano", "small", "base")
TRUE = "true square"
NOTE = "Accuracy in %, as ready crops → found and cut. Where a crop is named, of the faces that were found alone."
SCALES = {"augmented": AUGMENTED}  # of the contract's square; any other crop is a single one
CROPS = {  # what the contract could be instead
    "augmented": Crop(),
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


def make_frames(pixels: np.ndarray, people: list[Scene], *, tilted: float | None = None) -> Iterator[Frame]:
    """Lay each face over that of a person, in turn; tilted: by so many degrees to either side; None: at random."""
    rng = np.random.default_rng(0)
    for number, face in enumerate(pixels):
        size, drawn = int(rng.integers(60, 201)), float(rng.uniform(-20, 20))
        tilt = drawn if tilted is None else copysign(tilted, drawn)
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


@dataclass
class Tally:
    """What is kept of each frame: crops of the faces that were found, and how they lay in it."""

    found: list[bool] = field(default_factory=list)
    sizes: list[float] = field(default_factory=list)
    tilts: list[float] = field(default_factory=list)
    crops: dict[str, list[np.ndarray]] = field(default_factory=lambda: {name: [] for name in (*CROPS, TRUE)})
    false: int = 0

    def add(self, frame: Frame, detections: list[Detection]) -> None:
        """Crop the face of a frame in every way."""
        face = find_face(frame, detections)
        self.found.append(face is not None)
        self.sizes.append(frame.size)
        self.tilts.append(abs(frame.tilt))
        self.false += len(detections) - (face is not None)
        if face is None:
            return
        for name, wanted in CROPS.items():
            contract = replace(InputContract(SIDE), crop=wanted)
            self.crops[name] += [crop(frame.pixels, face, contract, scale=one) for one in SCALES.get(name, (1.0,))]
        self.crops[TRUE].append(cut_true(frame))


def cut_true(frame: Frame) -> np.ndarray:
    """Cut the FER+ square where it was laid, turned upright."""
    contract = InputContract(SIDE)
    return images.resize(turn(frame.pixels, Square(frame.centre, frame.size, -frame.tilt), SIDE), contract)


def main() -> None:
    """Measure, and write the result."""
    people = read_people(find_photos(list(map(Path, sys.argv[1:]))))
    valid = faces.load(DATA, "valid", LABEL_SETS["ferplus8"], contract=InputContract(SIDE))
    rows, facts = [], {"people": len(people) // 2}
    for search in FACES:
        detector, tally = load_detector(faces=search), Tally()
        frames = make_frames(np.asarray(valid.pixels), people)
        for frame in track(frames, f"detecting, {search}", total=len(valid)):
            tally.add(frame, detector.detect(frame.pixels))
        rows += [{"search": search, **row} for name in MODELS for row in measure(name, valid, tally)]
        facts[f"false, {search}"] = tally.false
    settings = {"data": "ferplus", "split": "valid", "faces": len(valid), "frame": VGA, "detector": detector.card.name}
    result = Measurement(header=make_header(), script="face_chain", settings=settings, rows=rows, facts=facts)
    files.write(result, OUT)
    print(facts, table(rows).to_markdown(), sep="\n\n")


def measure(name: str, valid: faces.Faces, tally: Tally) -> Iterator[dict[str, Any]]:
    """Accuracy of a model on ready crops and through the chain: in all, by size, by tilt, and with other crops."""
    found = np.array(tally.found)
    with edgeemo.load(name) as model:
        ready = model.probabilities(np.asarray(valid.pixels)).argmax(axis=1) == valid.truth
        right = {kind: classify(model, cut, found, valid.truth) for kind, cut in tally.crops.items()}
    size, tilt = np.array(tally.sizes), np.array(tally.tilts)
    groups = {"all": np.ones(len(found), bool)}
    groups |= {f"{low} to {high} px": (size >= low) & (size < high + (high == 200)) for low, high in SIZES}
    groups |= {f"tilted {low} to {high} degrees": (tilt >= low) & (tilt < high) for low, high in TILTS}
    about = {"model": name}
    for group, rows in groups.items():
        yield {**about, "group": group, "crop": "augmented", **compare(ready, right["augmented"], found, rows)}
    for kind, one in right.items():
        yield {**about, "group": "found", "crop": kind, **compare(ready, one, found, found)}


def classify(model: edgeemo.Model, cut: list[np.ndarray], found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Whether each face is found and its label is right; the crops of a face are averaged."""
    probabilities = model.probabilities(np.stack(cut)).reshape(found.sum(), -1, len(model.labels)).mean(axis=1)
    right = np.zeros(len(found), bool)
    right[found] = probabilities.argmax(axis=1) == truth[found]
    return right


def compare(ready: np.ndarray, chain: np.ndarray, found: np.ndarray, rows: np.ndarray) -> dict[str, Any]:
    """Counts and accuracies of some of the faces."""
    shares = {"ready": round(float(ready[rows].mean()), 4), "chain": round(float(chain[rows].mean()), 4)}
    return {"faces": int(rows.sum()), "found": int(found[rows].sum()), **shares}


def summarize(result: Measurement) -> Table:
    """The table for the docs: crops that the contract could have been stand in the first search alone."""
    first = result.rows[0]["search"]
    return table([row for row in result.rows if row["search"] == first or row["crop"] in ("augmented", TRUE)])


def table(rows: list[dict[str, Any]]) -> Table:
    """A row per group and crop, a column per model."""
    names = ("search", "group", "crop")
    body = []
    for key in dict.fromkeys(tuple(row[name] for name in names) for row in rows):
        of = {row["model"]: row for row in rows if tuple(row[name] for name in names) == key}
        cells = (f"{100 * of[name]['ready']:.1f} → {100 * of[name]['chain']:.1f}" for name in MODELS)
        body.append((*key, str(of[MODELS[0]]["faces"]), str(of[MODELS[0]]["found"]), *cells))
    return Table("face chain", ("search", "faces", "crop", "n", "found", *MODELS), body, NOTE)


if __name__ == "__main__":
    main()
