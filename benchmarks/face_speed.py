"""What a device does on one core, in one run: finding, cropping and classifying faces, as times and as ratios.

python benchmarks/face_speed.py [avx2 | avx512] [YUNET.onnx...]

Writes benchmarks/results/faces/speed.json, or speed-avx2.json as a processor with no later instruction set, which are
hidden from ONNX Runtime and NumPy (edgeemo/bench/masking.py). Frames are those of `edgeemo bench --frames`, and one of
12 megapixels. Each is searched by the packaged detector, as it does by default and with `few`, and by detectors given
by path; its faces are classified by nano, small and base, all of which take turns. Times are those of the processor,
so that waiting for a busy core does not count; `edgeemo bench --frames` has those of the clock. A neighbour still slows
caches, so trust the ratios before the times. A ratio is the p50 of a part to that of nano on the same faces.

Cold start, by the wall clock: a process that imports, opens the detector and searches one frame, the median of STARTS.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np

from edgeemo.bench.processors import PROCESSORS, make_launcher
from edgeemo.card import InputContract
from edgeemo.faces import Detection, crop, load_detector
from edgeemo.measure.frames import draw_frame
from edgeemo.measure.latency import FRAMES, measure_frames
from edgeemo.report import files
from edgeemo.report.facts import FrameTiming, Timing, make_header
from edgeemo.report.result import Measurement
from edgeemo.report.table import Table
from edgeemo.runtime import shipped
from edgeemo.runtime.probe import kernels_saturate

FOLDER = Path(__file__).parent / "results" / "faces"
NAME = "EDGEEMO_FACE_SPEED_AS"  # name of the processor that the masked child runs as
RUNS, STARTS = 100, 9
LARGE = (4000, 3000, 1)
DETECT = "from edgeemo.faces import load_detector; load_detector().detect(np.zeros((480, 640, 3), np.uint8))"
PREDICT = "import edgeemo; edgeemo.load('nano').predict(np.zeros((48, 48), np.uint8))"
STARTED = {"nothing": "", "predict": PREDICT, "detect": DETECT, "detect and predict": f"{DETECT}; {PREDICT}"}


def main() -> None:
    """Time every part, on this or as another processor, and write the result."""
    processor, paths = "", sys.argv[1:]
    if paths and paths[0] in PROCESSORS:
        processor, *paths = paths
    if processor == os.environ.get(NAME, ""):
        measure(processor, paths)
        return
    with make_launcher(PROCESSORS[processor]) as launcher:
        if launcher.how not in ("masked", "patched"):
            sys.exit(f"{processor} can only be emulated here, and the times of an emulator mean nothing")
        environment = {**launcher.environment, NAME: processor}
        done = subprocess.run([sys.executable, __file__, *sys.argv[1:]], check=False, env=environment)
    sys.exit(done.returncode)


def measure(processor: str, paths: list[str]) -> None:
    """Time every part in processes that inherit what is hidden from this one."""
    header = make_header(timed=True)
    searches: list[dict[str, Any]] = [{"detector": None}, {"detector": None, "faces": "few"}]
    searches += [{"detector": path} for path in paths]
    rows = [row for search in searches for row in time_search(search)]
    facts = {"crop_ms": time_crops(), "cold_start_ms": {name: time_start(work) for name, work in STARTED.items()}}
    facts["kernels_saturate"] = kernels_saturate()
    settings = {"as": processor, "runs": RUNS, "starts": STARTS, "threads": 1}
    result = Measurement(header=header, script="face_speed", settings=settings, rows=rows, facts=facts)
    files.write(result, FOLDER / f"speed{'-' if processor else ''}{processor}.json")
    print(table(result).to_markdown(), facts, sep="\n\n")


def time_search(search: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row per frame, of one detector with all models."""
    name, faces = load_detector(search["detector"]).card.name, search.get("faces", "default")
    models = [(shipped.find(model), "") for model in shipped.NAMES]
    measured = measure_frames(models, detector=search, runs=RUNS, frames=(*FRAMES, LARGE), processor_time=True)
    return [
        {"detector": name, "faces": faces, **make_row(dict(zip(shipped.NAMES, timings, strict=True)))}
        for timings in zip(*measured, strict=True)
    ]


def make_row(timings: dict[str, FrameTiming]) -> dict[str, Any]:
    """Return p50 and p95 of every part of a frame, and ratios to nano; detector and crop are those of all models."""
    first = next(iter(timings.values()))
    parts = {
        "detector": pool([one.detect for one in timings.values()]),
        "crop": pool([one.crop for one in timings.values()]),
        **{model: pool([one.classify]) for model, one in timings.items()},
    }
    return {
        "frame": first.size,
        "drawn": first.drawn,
        "found": first.found,
        "parts_ms": {name: quantiles(values) for name, values in parts.items()},
        "total_ms": {model: quantiles(pool([one.total])) for model, one in timings.items()},
        "to_nano": {
            name: round(float(np.median(values) / np.median(parts["nano"])), 2) for name, values in parts.items()
        },
        "unstable": any(one.unstable for one in timings.values()),
    }


def pool(timings: list[Timing]) -> np.ndarray:
    """Return the milliseconds of all runs."""
    return np.array([int(us) for one in timings for us in one.samples_us.split()]) / 1000


def quantiles(values: np.ndarray) -> dict[str, float]:
    """Return p50 and p95."""
    return {f"p{q}": round(float(np.percentile(values, q)), 3) for q in (50, 95)}


def time_crops() -> dict[str, float]:
    """Return the p50 of a crop of 140 px as it lies in the frame, and turned upright."""
    return {f"tilted by {tilt} degrees": time_crop(tilt) for tilt in (0, 20)}


def time_crop(tilt: float) -> float:
    """Return the p50 of a crop of 140 px in the middle of a frame of 640x480."""
    across = np.array([np.cos(np.radians(tilt)), np.sin(np.radians(tilt))]) * 140 / 2.8 / 2
    middle = np.array([320.0, 240.0])
    one = Detection((250, 170, 140, 140), 0.9, (tuple(middle - across), tuple(middle + across)))
    frame, spent = draw_frame(640, 480, 1), []
    for _ in range(RUNS):
        start = perf_counter_ns()
        crop(frame, one, InputContract(48))
        spent.append((perf_counter_ns() - start) / 1e6)
    return round(statistics.median(spent), 3)


def time_start(work: str) -> float:
    """Return the milliseconds of a process, the median of STARTS."""
    times = []
    for _ in range(STARTS):
        start = perf_counter_ns()
        subprocess.run([sys.executable, "-c", f"import numpy as np\n{work}"], check=True)
        times.append((perf_counter_ns() - start) / 1e6)
    return round(statistics.median(times), 1)


def table(result: Measurement) -> Table:
    """Make a table with a row per frame and detector."""
    rows = [
        (
            f"{row['detector']}, {row['faces']}",
            row["frame"],
            f"{row['found']} of {row['drawn']}",
            f"{row['total_ms']['small']['p50']:.1f} / {row['total_ms']['small']['p95']:.1f}",
            " : ".join(f"{row['to_nano'][part]:.3g}" for part in ("detector", "crop", *shipped.NAMES)),
        )
        for row in result.rows
    ]
    head = ("detector", "frame", "found", "p50 / p95 ms with small", f"detector : crop : {' : '.join(shipped.NAMES)}")
    note = "Processor time, one thread; all faces of a frame. Ratios of p50 to nano's on the same faces."
    return Table("face speed", head, rows, note, align="lllrr")


if __name__ == "__main__":
    main()
