"""Measure the C++ host: time to the first answer, memory, size, and how far its answers are from Python's.

python benchmarks/cpp_host.py

Builds hosts/cpp in a temporary folder, runs edgeemo-predict with the library of the Python package onnxruntime, and
writes benchmarks/results/hosts/cpp.json. A time is from the start of the process to its end, with one answer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from cpp_build import FIXTURES, build, compare, find_onnxruntime, find_tool, list_fixtures, predict_in_python, run_host

from edgeemo.report import files
from edgeemo.report.facts import make_header
from edgeemo.report.result import Measurement
from edgeemo.report.table import Table
from edgeemo.runtime import shipped

RESULT = Path(__file__).parent / "results" / "hosts" / "cpp.json"
GOALS = {"first_answer_ms": 100, "resident_mib": 35}
RUNS = 31
# A process counts the memory of the one that started it until it runs its program, so a small one starts it.
LAUNCHER = """
import os, sys, time
null = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
start = time.perf_counter()
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=null)
_, status, used = os.wait4(child, 0)
print(time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def main() -> None:
    """Build, compare and measure."""
    header = make_header(timed=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = build(Path(temporary))
        rows = [make_row(folder / "edgeemo-predict", name) for name in shipped.NAMES]
        facts = {"stripped_bytes": {name: measure_size(folder / name) for name in ("edgeemo-predict", "libedgeemo.so")}}
    settings = {"runs": RUNS, "goals": GOALS, "picture": "pictures/one.png, 640x480", "crop": "ready/upright.png"}
    result = Measurement(header=header, script="cpp_host", settings=settings, rows=rows, facts=facts)
    files.write(result, RESULT)
    print(table(result).to_markdown())


def table(result: Measurement) -> Table:
    """Make a table with a row per model and kind of image."""
    names = {"ready": "ready crop", "pictures": "picture of 640x480"}
    keys = ("first_answer_ms", "processor_ms", "resident_mib")
    rows = [
        (row["model"], name, *(f"{row[kind][key]:.0f}" for key in keys))
        for row in result.rows
        for kind, name in names.items()
    ]
    sizes = ", ".join(f"{name} {size / 1000:,.0f} kB" for name, size in result.facts["stripped_bytes"].items())
    head = ("model", "image", "first answer, ms", "of the processor, ms", "memory, MiB")
    note = f"Medians of {result.settings['runs']} runs; resident memory at its highest. Without symbols: {sizes}."
    return Table("C++ host", head, rows, note, align="llrrr")


def measure_size(file: Path) -> int:
    """Return the bytes of a program or library without its symbols."""
    stripped = file.with_suffix(".stripped")
    subprocess.run([find_tool("strip"), "-o", stripped, file], check=True)
    return stripped.stat().st_size


def make_row(program: Path, name: str) -> dict[str, Any]:
    """Return what is measured of a model."""
    file, row = shipped.find(name), {"model": name}
    for kind, image, options in (("pictures", "one", []), ("ready", "upright", ["--crop"])):
        images = list_fixtures(kind)
        lines = run_host(program, "--model", file, *options, *images).stdout.splitlines()
        expected = predict_in_python(images, name, crop=bool(options))
        row[kind] = {
            "images": len(images),
            "faces": sum(len(line["faces"]) for line in expected),
            "difference_from_python": vars(compare(expected, list(map(json.loads, lines)))),
            **measure(program, "--model", file, *options, FIXTURES / kind / f"{image}.png"),
        }
    return row


def measure(program: Path, *arguments: str | Path) -> dict[str, float]:
    """Return the time of one answer, and the highest resident memory of the process."""
    environment = {**os.environ, "EDGEEMO_ONNXRUNTIME": str(find_onnxruntime())}
    command = [sys.executable, "-I", "-S", "-c", LAUNCHER, program, *arguments]
    runs = []
    for _ in range(RUNS):
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        runs.append([float(word) for word in done.stdout.split()])
    wall, processor, resident = zip(*runs, strict=True)
    return {
        "first_answer_ms": round(1000 * median(wall), 1),
        "least_ms": round(1000 * min(wall), 1),
        "processor_ms": round(1000 * median(processor), 1),
        "resident_mib": round(median(resident) / 1024, 1),
    }


if __name__ == "__main__":
    main()
