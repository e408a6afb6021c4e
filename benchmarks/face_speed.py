"""What finding faces costs on one core: each part of it, as milliseconds and as multiples of the model nano.

python benchmarks/face_speed.py [YUNET.onnx...]     (writes benchmarks/results/faces/speed.json)

Frames are noise with bars, in which no detector finds a face: the passes are those of any frame without doubtful faces.
Times are those of the processor, so that waiting for a busy core does not count, and the parts take turns in short
slices; a neighbour still slows caches and clock, so trust the ratios before the times. Cold start, by the wall clock:
a process that imports, opens the detector and searches one frame, the median of STARTS.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns, thread_time_ns
from typing import Any

import numpy as np
from PIL import Image

import edgeemo
from edgeemo.card import InputContract
from edgeemo.faces import Detection, crop, load_detector
from edgeemo.faces.passes import Pass, draw_canvas, plan_passes
from edgeemo.measure.turns import pin_to_cores
from edgeemo.report import files
from edgeemo.report.facts import make_header
from edgeemo.report.result import Measurement
from edgeemo.report.table import Table

OUT = Path(__file__).parent / "results" / "faces" / "speed.json"
ROUNDS, SLICE = 40, 5
STARTS = 9
FRAMES = {"640x480": (480, 640), "1920x1080": (1080, 1920), "4000x3000": (3000, 4000)}
COLD = """
import numpy as np
{work}
"""
DETECT = "from edgeemo.faces import load_detector; load_detector().detect(np.zeros((480, 640, 3), np.uint8))"
PREDICT = "import edgeemo; edgeemo.load('nano').predict(np.zeros((48, 48), np.uint8))"
STARTED = {"nothing": "", "predict": PREDICT, "detect": DETECT, "detect and predict": f"{DETECT}; {PREDICT}"}


def main() -> None:
    """Time every part in turn, and write the result."""
    pin_to_cores([0])
    parts = make_parts(list(map(Path, sys.argv[1:])))
    times = time_parts({name: work for name, (work, _) in parts.items()})
    nano = statistics.median(times["nano, one crop"])
    rows = [
        {
            "part": name,
            "passes": parts[name][1],
            "ms_p50": round(float(np.percentile(found, 50)), 3),
            "ms_p95": round(float(np.percentile(found, 95)), 3),
            "nanos": round(statistics.median(found) / nano, 2),
        }
        for name, found in times.items()
    ]
    facts = {"cold_start_ms": {name: time_start(work) for name, work in STARTED.items()}}
    settings = {"threads": 1, "rounds": ROUNDS, "runs_per_round": SLICE, "starts": STARTS}
    header = make_header(timed=True)
    files.write(Measurement(header=header, script="face_speed", settings=settings, rows=rows, facts=facts), OUT)
    print(table(rows).to_markdown(), facts, sep="\n\n")


def make_parts(yunets: list[Path]) -> dict[str, tuple[Callable[[], object], int]]:
    """What is timed by name, and its number of passes through the detector's network."""
    detector, many, model = load_detector(faces="few"), load_detector(faces="many"), edgeemo.load("nano")
    canvas = np.zeros((192, 192, 3), np.uint8)
    face = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
    parts: dict[str, tuple[Callable[[], object], int]] = {
        "nano, one crop": (lambda: model.predict(face), 0),
        "network of blazeface-full, one pass": (lambda: detector._network.find(canvas, 0.25), 1),  # noqa: SLF001
    }
    for name, shape in FRAMES.items():
        frame = make_frame(shape)
        count = len(plan_passes(shape[1], shape[0], smallest_face=detector.card.smallest_face, half=True, faces="many"))
        parts[f"canvas of {name}"] = (lambda frame=frame: draw_one(frame), 0)
        parts[f"blazeface-full few, {name}"] = (lambda frame=frame: detector.detect(frame), 2)
        parts[f"blazeface-full many, {name}"] = (lambda frame=frame: many.detect(frame), count)
    frame = make_frame(FRAMES["640x480"])
    for path in yunets:
        other = load_detector(path, faces="few")
        parts[f"{other.card.name} few, 640x480"] = (lambda other=other: other.detect(frame), 1)
    for tilt in (0, 20):
        one, contract = make_face(140, tilt), InputContract(48)
        parts[f"crop of 140 px, tilted {tilt}"] = (lambda one=one, contract=contract: crop(frame, one, contract), 0)
    return parts


def make_frame(shape: tuple[int, int]) -> np.ndarray:
    """Noise with bars, (H, W, 3) uint8."""
    frame = np.random.default_rng(0).integers(100, 140, (*shape, 3), dtype=np.uint8)
    frame[:, :: shape[1] // 8] = 20
    return frame


def draw_one(frame: np.ndarray) -> object:
    """Resize a frame for one pass, as `detect` does."""
    return draw_canvas(Image.fromarray(frame), Pass(0, 0, frame.shape[1], frame.shape[0]), 192)


def make_face(side: float, tilt: float) -> Detection:
    """A face in the middle of 640x480 whose crop has this side."""
    across = np.array([np.cos(np.radians(tilt)), np.sin(np.radians(tilt))]) * side / 2.8 / 2
    middle = np.array([320.0, 240.0])
    return Detection((250, 170, 140, 140), 0.9, (tuple(middle - across), tuple(middle + across)))


def time_parts(parts: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Milliseconds of each run; the slow ones run once a round."""
    times: dict[str, list[float]] = {name: [] for name in parts}
    for number in range(ROUNDS + 1):
        for name, work in parts.items():
            slow = bool(times[name]) and times[name][0] > 50
            for _ in range(0 if slow and number % 4 else 1 if slow else SLICE):
                start = thread_time_ns()
                work()
                if number:
                    times[name].append((thread_time_ns() - start) / 1e6)
    return times


def time_start(work: str) -> float:
    """Milliseconds of a process, the median of STARTS."""
    times = []
    for _ in range(STARTS):
        start = perf_counter_ns()
        subprocess.run([sys.executable, "-c", COLD.format(work=work)], check=True)
        times.append((perf_counter_ns() - start) / 1e6)
    return round(statistics.median(times), 1)


def table(rows: list[dict[str, Any]]) -> Table:
    """A row per part."""
    body = [
        (row["part"], str(row["passes"] or ""), f"{row['ms_p50']:.2f}", f"{row['ms_p95']:.2f}", f"{row['nanos']:.1f}")
        for row in rows
    ]
    return Table("face speed", ("part", "passes", "ms, p50", "ms, p95", "x nano"), body, "Processor time, one thread.")


if __name__ == "__main__":
    main()
