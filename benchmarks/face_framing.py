"""How FER+ train faces are framed, in distances between the eyes, and how each detector's boxes lie about the eyes.

python benchmarks/face_framing.py [DETECTOR ...]     (writes benchmarks/results/faces/framing.json)

The crop contract of the cards (side, eyes above the centre) and `box` of the detectors' cards are its medians. Each
face of 48 px is enlarged four times and placed on a flat gray canvas, which has no context; faces that the detector
misses, or finds twice, are left out, and so are tilted ones for the centre. DETECTOR: further ones, as `load_detector`
takes them: centerface, or the path of a YuNet file.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgeemo.card import InputContract
from edgeemo.data import faces
from edgeemo.faces import Detection, load_detector
from edgeemo.faces.search import SearchDetector
from edgeemo.labels import LABEL_SETS
from edgeemo.progress import track
from edgeemo.report import files
from edgeemo.report.facts import make_header
from edgeemo.report.result import Measurement
from edgeemo.report.table import Table

OUT = Path(__file__).parent / "results" / "faces" / "framing.json"
DATA = "ferplus:../shared/data/ferplus.zip"
COUNT = 2048  # evenly over the train split
SIDE, TIMES, CANVAS = 48, 4, 320
GRAY = 110
MAX_TILT = 10  # degrees; more tilted faces say less about where the centre lies
PERCENTILES = (10, 50, 90)


def main() -> None:
    """Measure with each detector, and write the result."""
    found = faces.load(DATA, "train", LABEL_SETS["ferplus8"], contract=InputContract(SIDE)).take_evenly(COUNT)
    rows = [measure(load_detector(path), found.pixels) for path in (None, *sys.argv[1:])]
    settings = {"data": "ferplus", "split": "train", "faces": len(found), "enlarged": TIMES, "canvas": CANVAS}
    result = Measurement(header=make_header(), script="face_framing", settings=settings, rows=rows)
    files.write(result, OUT)
    print(table(rows).to_markdown())


def measure(detector: SearchDetector, pixels: Iterable[np.ndarray]) -> dict[str, Any]:
    """Medians and percentiles over the faces that the detector finds once."""
    measured = []
    for face in track(pixels, detector.card.name, total=COUNT):
        detections = detector.detect(place(face))
        if len(detections) == 1:
            measured.append(describe(detections[0]))
    values = {name: np.array([one[name] for one in measured]) for name in measured[0]}
    upright = np.abs(values["tilt"]) <= MAX_TILT
    return {
        "detector": detector.card.name,
        "found": len(measured),
        "tilted_share": float(1 - upright.mean()),
        **{name: spread(some if name in FREE_OF_TILT else some[upright]) for name, some in values.items()},
    }


FREE_OF_TILT = ("side_eye_distances", "box_side_eye_distances", "side_boxes", "tilt")


def place(face: np.ndarray) -> np.ndarray:
    """(48, 48) uint8 → the face, enlarged, in the middle of a flat canvas."""
    large = Image.fromarray(face).resize((SIDE * TIMES, SIDE * TIMES), Image.Resampling.BICUBIC)
    canvas = Image.new("L", (CANVAS, CANVAS), GRAY)
    canvas.paste(large, ((CANVAS - SIDE * TIMES) // 2,) * 2)
    return np.asarray(canvas)


def describe(detection: Detection) -> dict[str, float]:
    """Where the face's own square, and the detector's box, lie about the eyes."""
    right, left = map(np.array, detection.landmarks[:2])
    across = left - right
    distance = float(np.hypot(*across))
    down = np.array([-across[1], across[0]]) / distance
    eyes = (right + left) / 2
    x, y, width, height = detection.box
    box = np.array([x + width / 2, y + height / 2])
    return {
        "side_eye_distances": SIDE * TIMES / distance,
        "below_eyes": float((np.full(2, CANVAS / 2) - eyes) @ down) / distance,
        "right_of_eyes": float((np.full(2, CANVAS / 2) - eyes) @ across) / distance**2,
        "box_side_eye_distances": max(width, height) / distance,
        "box_below_eyes": float((box - eyes) @ down) / distance,
        "side_boxes": SIDE * TIMES / max(width, height),
        "tilt": float(np.degrees(np.arctan2(across[1], across[0]))),
    }


def spread(values: np.ndarray) -> dict[str, float]:
    """Percentiles of values."""
    return {f"p{percent}": round(float(np.percentile(values, percent)), 4) for percent in PERCENTILES}


def table(rows: list[dict[str, Any]]) -> Table:
    """A row per detector."""
    names = ("side_eye_distances", "below_eyes", "box_side_eye_distances", "box_below_eyes", "side_boxes", "tilt")
    head = ("detector", "found", *names)
    text = "{p50:.2f} ({p10:.2f} to {p90:.2f})"
    body = [(row["detector"], str(row["found"]), *(text.format(**row[name]) for name in names)) for row in rows]
    return Table("framing", head, body, "Median, and 10th to 90th percentile.")


if __name__ == "__main__":
    main()
