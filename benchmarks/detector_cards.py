"""Time every face detector side by side, and write speed and quality into their cards: `measured`.

python benchmarks/detector_cards.py [DETECTOR ...]     (after hard_faces.py with the same detectors)

Writes benchmarks/results/faces/detectors.json, then the cards. DETECTOR: further ones than the packaged, as
`load_detector` takes them: centerface, or the path of a YuNet file. The frame of 640x480 px is noise with bars, in
which no detector finds a face, so that nothing is looked at once more. Times are those of the processor, on one thread;
detectors and nano take turns in short slices. A detector that hard_faces.py did not measure keeps its card.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import thread_time_ns

import hard_faces
import numpy as np

import edgeemo
from edgeemo.artifact import write_text
from edgeemo.card import to_json
from edgeemo.card.layout import to_text
from edgeemo.faces import DetectorCard, list_detectors, load_detector
from edgeemo.faces.cards import FOLDER, Measured, Search
from edgeemo.faces.passes import FACES
from edgeemo.measure.turns import pin_to_cores
from edgeemo.report import files
from edgeemo.report.amounts import format_amount
from edgeemo.report.facts import make_header
from edgeemo.report.result import Measurement
from edgeemo.report.table import Table

OUT = Path(__file__).parent / "results" / "faces" / "detectors.json"
ROUNDS, SLICE = 40, 3
SHAPE = (480, 640, 3)
NANO = "nano"


def main() -> None:
    """Time the detectors, and write the result and the cards."""
    pin_to_cores([0])
    times = time_all([None, *sys.argv[1:]])
    nano = statistics.median(times.pop(NANO))
    rows = [
        {
            "detector": name,
            "ms_p50": round(float(np.percentile(found, 50)), 3),
            "ms_p95": round(float(np.percentile(found, 95)), 3),
            "nanos": round(statistics.median(found) / nano, 2),
        }
        for name, found in times.items()
    ]
    settings = {"frame": "640x480", "threads": 1, "rounds": ROUNDS, "runs_per_round": SLICE}
    speed = Measurement(header=make_header(timed=True), script="detector_cards", settings=settings, rows=rows)
    files.write(speed, OUT)
    hard = files.read_as(Measurement, hard_faces.OUT)
    for card in list_detectors():
        if measured := measure(card, hard, speed):
            text = to_text(to_json(replace(card, measured=measured)))
            write_text(FOLDER / f"{card.name}.json", text + "\n")


def time_all(names: list[str | None]) -> dict[str, list[float]]:
    """Milliseconds of each search, by detector and number of faces, and of a prediction by nano."""
    frame = np.random.default_rng(0).integers(100, 140, SHAPE, dtype=np.uint8)
    frame[:, :: SHAPE[1] // 8] = 20
    face, model = np.full((48, 48), 128, np.uint8), edgeemo.load(NANO)
    parts: dict[str, Callable[[], object]] = {NANO: lambda: model.predict(face)}
    for name in names:
        for faces in FACES:
            detector = load_detector(name, faces=faces)
            parts[f"{detector.card.name} {faces}"] = lambda detector=detector: detector.detect(frame)
    times: dict[str, list[float]] = {name: [] for name in parts}
    for number in range(ROUNDS + 1):
        for name, work in parts.items():
            for _ in range(SLICE):
                start = thread_time_ns()
                work()
                if number:  # the first round warms up
                    times[name].append((thread_time_ns() - start) / 1e6)
    return times


def measure(card: DetectorCard, hard: Measurement, speed: Measurement) -> Measured | None:
    """What the results say about a detector; None if either lacks it."""
    quality = {faces: [row for row in hard.rows if row["detector"] == f"{card.name} {faces}"] for faces in FACES}
    times = {faces: [row for row in speed.rows if row["detector"] == f"{card.name} {faces}"] for faces in FACES}
    if not (all(quality.values()) and all(times.values())):
        return None
    found = {
        faces: Search(
            ms=round(times[faces][0]["ms_p50"], 1),
            nanos=round(times[faces][0]["nanos"], 1),
            found=sum(row["found"] for row in quality[faces]),
            false_boxes=sum(row["false"] for row in quality[faces]),
        )
        for faces in FACES
    }
    machine, versions = speed.header.machine, speed.header.versions
    return Measured(
        quality=f"{name_file(hard_faces.OUT)}: turned, dark, overexposed, covered, cut, small and many faces",
        speed=f"{name_file(OUT)}: {machine.processor}, ONNX Runtime {versions['onnxruntime']}",
        images=sum(row["images"] for row in quality["few"]),
        faces=sum(row["faces"] for row in quality["few"]),
        **found,
    )


def name_file(path: Path) -> str:
    """Return a result's path from the root of the checkout."""
    return path.relative_to(Path(__file__).parents[1]).as_posix()


def table(_: Measurement) -> Table:
    """A row per detector: what the cards say, which are held to the results by a test."""
    head = (
        "detector",
        "licence",
        "file",
        "how to get it",
        "faces from",
        "ms (times nano)",
        "hard faces",
        "false boxes",
    )
    cards = [card for card in list_detectors() if card.measured]
    rows = []
    for card in cards:
        few, many = card.measured.few, card.measured.many
        rows.append(
            (
                card.name,
                card.source.licence,
                format_amount(card.size_bytes, "bytes"),
                "packaged" if card.packaged else card.source.install or "by the path of its file",
                f"{100 * card.smallest_face:g} %",
                f"{few.ms:.0f} ({few.nanos:.0f}) / {many.ms:.0f} ({many.nanos:.0f})",
                f"{few.found} / {many.found} of {card.measured.faces}",
                f"{few.false_boxes} / {many.false_boxes}",
            )
        )
    about = cards[0].measured
    note = (
        f"With few / many. Faces from: the smallest box that is found, of the longer side of what is searched. Times: "
        f"640x480 px, one thread, {about.speed}. Hard faces and false boxes in {about.images} images: {about.quality}."
    )
    return Table("detectors", head, rows, note, align="llrlrrrr")


if __name__ == "__main__":
    main()
