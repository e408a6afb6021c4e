"""Accuracy on small, clipped and tilted faces: where the flags of edgeemo/faces/quality.py begin.

python benchmarks/face_quality.py [FOLDER]   (writes benchmarks/results/faces/quality.json; FOLDER as for hard_faces.py)

small     FER+ valid faces, reduced to fewer pixels and enlarged again as every crop is
clipped   part of each face lies outside the image, on one of four sides: the nearest pixel of the edge is repeated
tilted    faces in the frames of face_chain.py, tilted to either side, found, turned by their eyes and cropped
found     the same, tilted at random by -20 to 20 degrees: how well the cards' thresholds hold on such crops

Like `Model.faces`, the last two average the crops of AUGMENTED; the "one crop" of the last does not.

"answers" are the predictions that the card's threshold does not flag as unsure.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from face_chain import DATA, MODELS, SIDE, find_face, make_frames
from hard_faces import Scene, find_photos, read_people
from PIL import Image

import edgeemo
from edgeemo import images
from edgeemo.card import InputContract
from edgeemo.data import faces
from edgeemo.faces import crop, load_detector
from edgeemo.faces.crop import AUGMENTED
from edgeemo.faces.quality import MAX_SKEW, find_flags, measure_tilt
from edgeemo.labels import LABEL_SETS
from edgeemo.progress import track
from edgeemo.report import files
from edgeemo.report.facts import make_header
from edgeemo.report.result import Measurement
from edgeemo.report.table import Table
from edgeemo.selective import measure_answers

OUT = Path(__file__).parent / "results" / "faces" / "quality.json"
CONTRACT = InputContract(SIDE)
COUNT, TILTED, RANDOM = 2000, 200, 500  # faces
PIXELS = (16, 20, 24, 28, 32, 36, 40, 44)  # sides
OUTSIDE = (2, 5, 7, 10, 12, 14, 17, 19, 24)  # pixels of 48
EDGES = {"left": (0, 1), "top": (1, 1), "right": (0, -1), "bottom": (1, -1)}  # axis and direction of what is lost
ANGLES = (0, 10, 20, 30, 40, 50, 60, 75, 90, 120, 150, 180)
SHOWN = {"left or right": ("left", "right"), "top": ("top",), "bottom": ("bottom",)}
ANSWERS = "In brackets, accuracy of the predictions that are not unsure, and their share of the faces."
BY_TILT, BY_SKEW = (0, 10, 20, 30, 40, 50, 90), (0, 5, 10, 15, 20, 30, 180)


@dataclass(frozen=True)
class Found:
    """A tilted face that was found."""

    row: int  # of the ready face
    angle: float | None  # None: at random
    error: float  # of the tilt by the eyes, degrees
    tilt: float  # by the eyes, without its sign
    skew: float
    flagged: bool
    pixels: np.ndarray  # (len(AUGMENTED), 48, 48) uint8, as cropped


def shrink(pixels: np.ndarray, side: int) -> np.ndarray:
    """(N, 48, 48) uint8 → the same of `side` px a side, enlarged again."""
    small = (Image.fromarray(face).resize((side, side), Image.Resampling.BOX) for face in pixels)
    return np.stack([images.resize(np.asarray(face), CONTRACT) for face in small])


def clip(pixels: np.ndarray, edge: str, lost: int) -> np.ndarray:
    """(N, 48, 48) uint8 → the same without `lost` px at one edge of the image."""
    axis, direction = EDGES[edge]
    kept = slice(lost, None) if direction > 0 else slice(None, -lost)
    start = -lost if direction > 0 else 0
    corner = (start, 0) if axis == 0 else (0, start)
    cut = pixels[:, :, kept] if axis == 0 else pixels[:, kept]
    return np.stack([images.take_square(np.ascontiguousarray(face), *corner, SIDE) for face in cut])


def measure_ready(pixels: np.ndarray, truth: np.ndarray) -> Iterator[dict[str, Any]]:
    """Accuracy by size, and by the edge outside the image."""
    conditions = [("as it is", "", SIDE, pixels)]
    conditions += [("small", "", side, shrink(pixels, side)) for side in PIXELS]
    conditions += [("clipped", edge, lost, clip(pixels, edge, lost)) for lost in OUTSIDE for edge in EDGES]
    for name in MODELS:
        with edgeemo.load(name) as model:
            for what, edge, amount, changed in track(conditions, name, total=len(conditions)):
                predicted = model.probabilities(changed)
                answers = measure_answers(predicted, truth, model.least_probability or 0.0)
                yield {
                    "what": what,
                    "model": name,
                    "edge": edge,
                    "pixels": amount,
                    "share": round(amount / SIDE, 4),
                    "faces": len(truth),
                    "accuracy": round(float((predicted.argmax(1) == truth).mean()), 4),
                    "answers": round(answers.coverage, 4),
                    "answers_accuracy": round(answers.accuracy or 0.0, 4),
                }


def find(pixels: np.ndarray, people: list[Scene], angles: Sequence[float | None]) -> list[Found]:
    """The faces that are found at each angle; None: tilted at random by -20 to 20 degrees."""
    detector, found = load_detector(), []
    for angle in track(angles, "tilting", total=len(angles)):
        for row, frame in enumerate(make_frames(pixels, people, tilted=angle)):
            detection = find_face(frame, detector.detect(frame.pixels))
            if detection is None:
                continue
            tilt, skew = measure_tilt(detection)
            error = abs((tilt + frame.tilt + 180) % 360 - 180)  # Pillow turns anticlockwise
            height, width = frame.pixels.shape[:2]
            flagged = "tilted" in find_flags(detection, width, height, CONTRACT)
            crops = np.stack([crop(frame.pixels, detection, CONTRACT, scale=scale) for scale in AUGMENTED])
            found.append(Found(row, angle, error, abs(tilt), skew, flagged, crops))
    return found


def measure_tilted(pixels: np.ndarray, truth: np.ndarray, found: list[Found]) -> Iterator[dict[str, Any]]:
    """Accuracy, as a mean of the models, by true angle, by the tilt of the eyes, and by how landmarks disagree."""
    rows = np.array([one.row for one in found])
    ready, chain = np.zeros(len(found)), np.zeros(len(found))
    for name in MODELS:
        with edgeemo.load(name) as model:
            ready += (model.probabilities(pixels).argmax(1) == truth)[rows] / len(MODELS)
            chain += (average(model, found).argmax(1) == truth[rows]) / len(MODELS)
    angle, tilt, skew = (np.array([getattr(one, name) for one in found]) for name in ("angle", "tilt", "skew"))
    flagged, error = np.array([one.flagged for one in found]), np.array([one.error for one in found])
    groups = [("tilted", f"{one} degrees", angle == one) for one in ANGLES]
    for low, high in pairwise(BY_TILT):
        groups.append(("eyes", f"{low} to {high} degrees", (tilt >= low) & (tilt < high) & (skew <= MAX_SKEW)))
    for low, high in pairwise(BY_SKEW):
        groups.append(("landmarks", f"{low} to {high} degrees", (skew >= low) & (skew < high)))
    groups += [("flag", "none", ~flagged), ("flag", "tilted", flagged)]
    for what, group, mask in groups:
        kept = mask & ~flagged
        yield {
            "what": what,
            "group": group,
            "faces": len(pixels) if what == "tilted" else None,
            "found": int(mask.sum()),
            "flagged": int((mask & flagged).sum()),
            "tilt_error": _round(np.median(error[mask])) if mask.any() else None,
            "ready": _round(ready[mask].mean()) if mask.any() else None,
            "accuracy": _round(chain[mask].mean()) if mask.any() else None,
            "not_flagged": _round(chain[kept].mean()) if kept.any() else None,
        }


def average(model: edgeemo.Model, found: list[Found]) -> np.ndarray:
    """(N, K) probabilities of found faces, averaged over their crops."""
    crops = np.concatenate([one.pixels for one in found])
    mean: np.ndarray = model.probabilities(crops).reshape(len(found), len(AUGMENTED), -1).mean(axis=1)
    return mean


def measure_found(pixels: np.ndarray, truth: np.ndarray, found: list[Found]) -> Iterator[dict[str, Any]]:
    """Accuracy and answers of each model on faces that are found and not flagged, and on the same as ready crops."""
    found = [one for one in found if not one.flagged]
    rows = np.array([one.row for one in found])
    for name in MODELS:
        with edgeemo.load(name) as model:
            alone = model.probabilities(np.stack([one.pixels[AUGMENTED.index(1.0)] for one in found]))
            crops = {"ready": model.probabilities(pixels[rows]), "one crop": alone, "averaged": average(model, found)}
            for kind, predicted in crops.items():
                answers = measure_answers(predicted, truth[rows], model.least_probability or 0.0)
                yield {
                    "what": "found",
                    "model": name,
                    "group": kind,
                    "faces": len(pixels),
                    "found": len(found),
                    "accuracy": _round((predicted.argmax(1) == truth[rows]).mean()),
                    "answers": _round(answers.coverage),
                    "answers_accuracy": _round(answers.accuracy or 0.0),
                }


def _round(value: float) -> float:
    return round(float(value), 4)


def small_table(result: Measurement) -> Table:
    """A row per size, a column per model."""
    rows = [row for row in result.rows if row["what"] in ("as it is", "small")]
    sides = sorted({row["pixels"] for row in rows}, reverse=True)
    cells = [
        [_cell([row for row in rows if (row["model"], row["pixels"]) == (name, side)]) for name in MODELS]
        for side in sides
    ]
    body = [(f"{side} px", *line) for side, line in zip(sides, cells, strict=True)]
    return Table(
        "small", ("side of the square", *MODELS), body, f"{result.settings['faces']:,} FER+ valid faces. {ANSWERS}"
    )


def clipped_table(result: Measurement) -> Table:
    """A row per share outside the image, a column per edge."""
    rows = [row for row in result.rows if row["what"] == "clipped"]
    body = []
    for share in sorted({row["share"] for row in rows}):
        of = [[row for row in rows if row["share"] == share and row["edge"] in edges] for edges in SHOWN.values()]
        body.append((f"{100 * share:.0f} %", *map(_cell, of)))
    note = f"Mean of the three models on {result.settings['faces']:,} FER+ valid faces. {ANSWERS}"
    return Table("clipped", ("outside the image", *SHOWN), body, note)


def _cell(rows: list[dict[str, Any]]) -> str:
    accuracy, right, answers = (
        100 * sum(row[name] for row in rows) / len(rows) for name in ("accuracy", "answers_accuracy", "answers")
    )
    return f"{accuracy:.1f} % ({right:.1f} of {answers:.0f})"


def tilt_table(result: Measurement) -> Table:
    """A row per true angle."""
    rows = [row for row in result.rows if row["what"] == "tilted"]
    head = ("tilted by", "found", "error of the eyes", "ready", "found and cropped", "flagged", "not flagged")
    body = [
        (
            row["group"],
            f"{100 * row['found'] / row['faces']:.0f} %",
            f"{row['tilt_error']:.0f} degrees",
            *(f"{100 * row[name]:.1f} %" for name in ("ready", "accuracy")),
            f"{100 * row['flagged'] / row['found']:.0f} %",
            "-" if row["not_flagged"] is None else f"{100 * row['not_flagged']:.1f} %",
        )
        for row in rows
    ]
    return Table(
        "tilt",
        head,
        body,
        f"Mean accuracy of the three models on the faces that are found, of {result.settings['tilted']} of FER+ valid.",
    )


def found_table(result: Measurement) -> Table:
    """A row per model, a column per kind of crop."""
    rows = [row for row in result.rows if row["what"] == "found"]
    kinds = list(dict.fromkeys(row["group"] for row in rows))
    body = [
        (name, *(_cell([row for row in rows if (row["model"], row["group"]) == (name, kind)]) for kind in kinds))
        for name in MODELS
    ]
    note = f"The {rows[0]['found']} of {rows[0]['faces']} FER+ valid faces that are found and not tilted. {ANSWERS}"
    return Table("found", ("model", *kinds), body, note)


def main() -> None:
    """Measure, and write the result."""
    people = read_people(find_photos(list(map(Path, sys.argv[1:]))))
    valid = faces.load(DATA, "valid", LABEL_SETS["ferplus8"], contract=CONTRACT)
    some, few = valid.take_evenly(COUNT), valid.take_evenly(TILTED)
    rows = list(measure_ready(np.asarray(some.pixels), some.truth))
    rows += measure_tilted(np.asarray(few.pixels), few.truth, find(np.asarray(few.pixels), people, ANGLES))
    more = valid.take_evenly(RANDOM)
    rows += measure_found(np.asarray(more.pixels), more.truth, find(np.asarray(more.pixels), people, (None,)))
    counts = {"faces": COUNT, "tilted": TILTED, "found": RANDOM, "people": len(people) // 2}
    settings = {"data": "ferplus", "split": "valid", **counts}
    result = Measurement(header=make_header(), script="face_quality", settings=settings, rows=rows)
    files.write(result, OUT)
    print(*(table(result).to_markdown() for table in (small_table, clipped_table, tilt_table, found_table)), sep="\n\n")


if __name__ == "__main__":
    main()
