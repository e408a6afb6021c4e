"""Train on 400,000 faces at 224 px, more than memory holds: peak memory, and seconds of a first and a second start.

python benchmarks/large_dataset.py [FOLDER] [FACES]   (default: a temporary folder, 400000; needs 25 GB of disk there)

The faces are hard links to 3,000 synthetic ones. The first training decodes all of them to disk and is killed after 20
steps; the second one resumes it for 20 more. Before the second, the decoded faces are dropped from the page cache. A
checkpoint after every step shows when the step was done. FOLDER's contents are removed afterwards.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

from edgeemo.artifact import write_text
from edgeemo.data.cache import FOLDER
from edgeemo.data.drawing import draw_face
from edgeemo.labels import label_set
from edgeemo.report import files
from edgeemo.report.facts import make_header
from edgeemo.report.result import Measurement
from edgeemo.report.table import Table

ROOT = Path(__file__).parents[1]
OUT = ROOT / "benchmarks" / "results" / "training" / "large-dataset.json"
FACES, VALID, DRAWN, SIZE, STEPS = 400_000, 600, 3000, 224, 20
LABELS = label_set("six").labels
TRAIN = [
    "train",
    "--recipe",
    "edge",
    "--backbone",
    "edge_vgg_slim",
    "--size",
    str(SIZE),
    "--batch-size",
    "32",
    "--precision",
    "fp32",
]
EXACT = ["--threads", "1", "--checkpoint-steps", "1", "--resume"]


def main() -> None:
    """Make the faces, train twice, and write the result."""
    count = int(sys.argv[2]) if len(sys.argv) > 2 else FACES
    folder = Path(tempfile.mkdtemp(dir=sys.argv[1] if len(sys.argv) > 1 else None))
    try:
        begun = time.perf_counter()
        link_faces(folder, count)
        print(f"{count} faces: {time.perf_counter() - begun:.0f} s", flush=True)
        rows = [measure_start(folder, "first")]
        print(rows[-1], flush=True)
        drop_from_page_cache(folder / "run" / FOLDER)
        rows.append(measure_start(folder, "second"))
        size = sum(file.stat().st_size for file in (folder / "run" / FOLDER).glob("*/*"))
    finally:
        shutil.rmtree(folder)
    settings = {"command": TRAIN + EXACT, "train_faces": count, "valid_faces": VALID, "distinct_faces": DRAWN}
    facts = {"decoded_bytes": size, "input": f"{SIZE} px gray"}
    result = Measurement(header=make_header(), script="large_dataset", settings=settings, rows=rows, facts=facts)
    files.write(result, OUT)
    write_text(OUT.with_suffix(".md"), page(result))
    print(page(result))


def link_faces(folder: Path, count: int) -> None:
    """Draw the distinct faces, and link them to train/LABEL and valid/LABEL."""
    drawn = folder / "drawn"
    drawn.mkdir()
    for k in range(DRAWN):
        Image.fromarray(draw_face(LABELS[k % 6], seed=k, size=SIZE)).save(drawn / f"{k}.png")
    for split, faces in (("train", count), ("valid", VALID)):
        for label in LABELS:
            (folder / "faces" / split / label).mkdir(parents=True)
        for k in range(faces):
            name = Path(split, LABELS[k % 6], f"{k:06d}.png")
            os.link(drawn / f"{k % DRAWN}.png", folder / "faces" / name)


def measure_start(folder: Path, name: str) -> dict[str, Any]:
    """Start or resume the training, kill it after 20 more steps, and return its times and peak memory."""
    run = folder / "run"
    target = ["--data", f"folder:{folder / 'faces'}", "--out", str(run)]
    begun, before = time.perf_counter(), count_steps(run)
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "cli.py"), *TRAIN, *EXACT, *target], env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    first, peak = None, 0
    while (steps := count_steps(run)) < before + STEPS:
        if process.poll() is not None:
            sys.exit(f"the training ended with {process.returncode} after {steps} steps")
        if first is None and steps > before:
            first = time.perf_counter() - begun
        peak = max(peak, read_peak(process.pid))
        time.sleep(0.2)
    seconds = time.perf_counter() - begun
    process.send_signal(signal.SIGKILL)
    process.wait()
    return {
        "start": name,
        "seconds_to_first_step": round(first or seconds, 1),
        "seconds_to_last_step": round(seconds, 1),
        "steps": steps - before,
        "peak_rss_bytes": peak,
    }


def count_steps(run: Path) -> int:
    """Return the number of the last complete checkpoint, which is that of its step; 0 without one."""
    return max((int(path.name) for path in (run / "checkpoints").glob("[0-9]*")), default=0)


def read_peak(pid: int) -> int:
    """Return the largest resident memory that a process has had, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(found[1]) * 1024 if (found := re.search(r"VmHWM:\s+(\d+) kB", status)) else 0


def drop_from_page_cache(folder: Path) -> None:
    """Make the kernel forget the contents of files, so that they are read from the disk."""
    for file in folder.glob("*/*.npy"):
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def page(result: Measurement) -> str:
    """Return the page: the data set, and a row per start."""
    return f"{table(result).to_markdown()}\n"


def table(result: Measurement) -> Table:
    """Return the table: a row per start."""
    head = ("start", "until the first step", f"until step {STEPS} of it", "peak resident memory")
    rows = [
        (
            row["start"],
            f"{row['seconds_to_first_step']:.0f} s",
            f"{row['seconds_to_last_step']:.0f} s",
            f"{row['peak_rss_bytes'] / 2**30:.2f} GiB",
        )
        for row in result.rows
    ]
    size = result.facts["decoded_bytes"] / 1e9
    note = (
        f"{result.settings['train_faces']:,} train faces at {result.facts['input']}, hard links to "
        f"{result.settings['distinct_faces']:,} synthetic ones; {size:.1f} GB on disk; "
        "edge_vgg_slim, batch 32, one thread"
    )
    return Table("large data set", head, rows, note, align="lrrr")


if __name__ == "__main__":
    main()
