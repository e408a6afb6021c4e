"""Watch a rendered scene for half an hour, and end it: memory, threads, complete files.

python benchmarks/watch_soak.py [--minutes 30]

Writes benchmarks/results/watch/soak.json. `edgeemo watch` runs as a process of its own with a JSON Lines file, a table,
and health and metrics, which are asked every SAMPLE seconds, while PEOPLE come and go, and ends by SIGTERM; then for
VIDEO_MINUTES also with a video, and ends by Ctrl-C (SIGINT). Memory is the resident set of the process; its growth is
that between the medians of the first and the last GROWTH_WINDOW samples after WARM_UP seconds, in which the scene
draws its faces. The index of a video grows with its frames, so a long one is no measure of the rest.
"""

from __future__ import annotations

import argparse
import csv
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from edgeemo.report import files
from edgeemo.report.facts import make_header
from edgeemo.report.result import Measurement

RESULT = Path(__file__).parent / "results" / "watch" / "soak.json"
PEOPLE, SAMPLE, WARM_UP, GROWTH_WINDOW, VIDEO_MINUTES = 4, 5.0, 90.0, 12, 5.0
PORT = 18_640


def main() -> None:
    """Run for the given time, then with a video; write the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=30)
    minutes = parser.parse_args().minutes
    header = make_header(timed=True)
    rows = [run(minutes, signal.SIGTERM, video=False), run(VIDEO_MINUTES, signal.SIGINT, video=True)]
    settings = {"people": PEOPLE, "sample_s": SAMPLE, "warm_up_s": WARM_UP}
    files.write(Measurement(header=header, script="watch_soak", settings=settings, rows=rows), RESULT)
    print(json.dumps(rows, indent=2))


def run(minutes: float, ending: signal.Signals, *, video: bool) -> dict[str, Any]:
    """Watch for some minutes, send the signal, and return what was seen."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        outputs = {"--jsonl": folder / "faces.jsonl", "--csv": folder / "faces.csv"}
        outputs |= {"--save": folder / "faces.mp4"} if video else {}
        written = [str(word) for pair in outputs.items() for word in pair]
        command = [sys.executable, "-m", "edgeemo", "watch", f"synthetic:{PEOPLE}", "--health", str(PORT), *written]
        with (folder / "log").open("w") as log:
            child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)
            samples = sample(child, 60 * minutes)
            child.send_signal(ending)
            start = time.monotonic()
            code = child.wait(60)
        ended = time.monotonic() - start
        return {
            "minutes": minutes,
            "signal": ending.name,
            "exit_code": code,
            "seconds_to_end": round(ended, 2),
            **summarise(samples),
            **check_files(outputs),
            "last_line": (folder / "log").read_text().splitlines()[-1],
        }


def sample(child: subprocess.Popen[bytes], seconds: float) -> list[dict[str, float]]:
    """Return memory in MB, threads and metrics of the process, every SAMPLE seconds."""
    start, samples = time.monotonic(), []
    while (passed := time.monotonic() - start) < seconds:
        time.sleep(SAMPLE)
        if child.poll() is not None:
            sys.exit(f"edgeemo watch ended after {passed:.0f} s with code {child.returncode}")
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{child.pid}/status").read_text().splitlines() if ":" in line
        )
        samples.append(
            {
                "seconds": time.monotonic() - start,
                "rss_mb": int(status["VmRSS"].split()[0]) * 1024 / 1e6,
                "threads": int(status["Threads"]),
                "files": len(list(Path(f"/proc/{child.pid}/fd").iterdir())),
                **ask_metrics(),
            }
        )
    return samples


def ask_metrics() -> dict[str, float]:
    """Return the counters of the process."""
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in values.items() if "{" not in name and name.startswith("edgeemo_")}


def summarise(samples: list[dict[str, float]]) -> dict[str, Any]:
    """Return memory at the start and the end, its growth, threads, open files and counters."""
    steady = [one for one in samples if one["seconds"] >= WARM_UP] or samples
    first, last = (
        statistics.median(one["rss_mb"] for one in part) for part in (steady[:GROWTH_WINDOW], steady[-GROWTH_WINDOW:])
    )
    counters = {name: value for name, value in samples[-1].items() if name.endswith("_total")}
    return {
        "rss_mb": [round(first, 1), round(last, 1)],
        "growth_mb": round(last - first, 1),
        "threads": sorted({int(one["threads"]) for one in steady}),
        "open_files": sorted({int(one["files"]) for one in steady}),
        "counters": counters,
    }


def check_files(outputs: dict[str, Path]) -> dict[str, Any]:
    """Read every record of each file and every frame of the video, and return how many there are."""
    records = [json.loads(line) for line in outputs["--jsonl"].read_text().splitlines()]
    with outputs["--csv"].open(newline="") as file:
        rows = list(csv.DictReader(file))
    frames = count_frames(outputs["--save"]) if "--save" in outputs else None
    tracks = len({record["track"] for record in records})
    return {"jsonl_records": len(records), "csv_rows": len(rows), "video_frames": frames, "tracks": tracks}


def count_frames(file: Path) -> int:
    """Return how many frames of a video can be read."""
    import cv2  # noqa: PLC0415  needed only now

    video = cv2.VideoCapture(str(file))
    count = 0
    while video.read()[0]:
        count += 1
    return count


if __name__ == "__main__":
    main()
