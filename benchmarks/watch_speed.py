"""How many frames a second one core watches: 1, 4 and 8 faces, each packaged model, and three detector intervals.

python benchmarks/watch_speed.py

Writes benchmarks/results/watch/speed.json. Frames of 640x480 are those of a rendered scene, drawn before the clock
starts; capture, decoding and outputs take no part. Times are those of the processor, so that waiting for a busy core
does not count: frames a second are 1000 over their mean. Configurations take turns, ROUNDS of FRAMES frames each.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from time import monotonic, process_time_ns
from typing import Any

import numpy as np

from edgeemo.faces import load_detector
from edgeemo.report import files
from edgeemo.report.facts import make_header
from edgeemo.report.result import Measurement
from edgeemo.report.table import Table
from edgeemo.runtime import load, shipped
from edgeemo.watch.frame import Frame
from edgeemo.watch.scene import Scene
from edgeemo.watch.watcher import Watcher

RESULT = Path(__file__).parent / "results" / "watch" / "speed.json"
FACES, INTERVALS = (1, 4, 8), (1, 5, 10)
ROUNDS, FRAMES, WARM_UP = 5, 60, 20


def main() -> None:
    """Time all configurations in turn, and write the result."""
    header = make_header(timed=True)
    models = {name: load(name) for name in shipped.NAMES}
    detector = load_detector(faces="few")
    scenes = {count: draw(count) for count in FACES}
    spent: dict[tuple[int, str, int], list[float]] = {}
    found: dict[tuple[int, str, int], list[int]] = {}
    for _, count, interval, name in itertools.product(range(ROUNDS), FACES, INTERVALS, models):
        key = (count, name, interval)
        times, faces = watch(Watcher(models[name], detector, detect_every=interval), scenes[count])
        spent.setdefault(key, []).extend(times)
        found.setdefault(key, []).extend(faces)
    rows = [make_row(key, spent[key], found[key]) for key in spent]
    settings = {"rounds": ROUNDS, "frames": FRAMES, "threads": 1, "width": 640, "height": 480}
    result = Measurement(header=header, script="watch_speed", settings=settings, rows=rows)
    files.write(result, RESULT)
    print(table(result).to_markdown())


def draw(count: int) -> list[np.ndarray]:
    """Return the frames of a scene with `count` people, warm-up included."""
    scene = Scene(people=count, seed=3)
    return [scene.frame(number)[0] for number in range(WARM_UP + FRAMES)]


def watch(watcher: Watcher, frames: list[np.ndarray]) -> tuple[list[float], list[int]]:
    """Return the milliseconds of each frame after the warm-up, and the faces in it."""
    times, faces = [], []
    for number, pixels in enumerate(frames):
        frame = Frame(pixels, number, monotonic(), 0.0, number / 25)
        start = process_time_ns()
        watched = watcher.process(frame)
        times.append((process_time_ns() - start) / 1e6)
        faces.append(len(watched.faces))
    return times[WARM_UP:], faces[WARM_UP:]


def make_row(key: tuple[int, str, int], times: list[float], faces: list[int]) -> dict[str, Any]:
    """Return what one configuration took."""
    count, model, interval = key
    return {
        "faces": count,
        "followed": round(float(np.mean(faces)), 2),
        "model": model,
        "detect_every": interval,
        "fps": round(1000 / float(np.mean(times)), 1),
        **{f"ms_p{q}": round(float(np.percentile(times, q)), 2) for q in (50, 95)},
    }


def table(result: Measurement) -> Table:
    """Make a table with a row per number of faces and interval."""
    fps = {(row["faces"], row["detect_every"], row["model"]): row for row in result.rows}
    rows = [
        (str(count), str(interval), *(_format(fps[count, interval, name]) for name in shipped.NAMES))
        for count, interval in itertools.product(FACES, INTERVALS)
    ]
    head = ("faces", "search every Nth frame", *shipped.NAMES)
    note = "Frames of 640x480 a second of one core, and p95 of a frame in ms of processor time."
    return Table("watch speed", head, rows, note, align="rrrrr")


def _format(row: dict[str, Any]) -> str:
    return f"{row['fps']:.0f}, {row['ms_p95']:.1f} ms"


if __name__ == "__main__":
    main()
