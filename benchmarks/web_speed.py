"""The page in Chromium: does it answer as Python does, how long does a frame take, and how much does it load?

python benchmarks/web_speed.py [SECONDS]

Needs Chromium, and onnxruntime-web in the cache (edgeemo build small --for web --out DIR). Every packaged model answers
the pictures and ready crops of hosts/fixtures, which are compared with expected.json. Then the page watches a camera,
which is a video of the fixture four.png (640x480, four faces) or one.png (one face), for SECONDS; the time of a frame
is that of its worker, from the pixels to the predictions. Other programs on the machine lengthen it; the processor time
of the page, with decoding, drawing and the list, is beside it. Sizes are those of the files, and as a host that
compresses with gzip sends them. Writes benchmarks/results/web/speed.json.
"""

from __future__ import annotations

import gzip
import os
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "fixtures"))
import chromium
import web_host

from edgeemo import images
from edgeemo.report import files
from edgeemo.report.facts import make_header
from edgeemo.report.result import Measurement
from edgeemo.report.table import Table
from edgeemo.runtime import shipped
from edgeemo.web.pages import make_pages
from edgeemo.web.runtime import VERSION, find_runtime

OUT = Path(__file__).parent / "results" / "web" / "speed.json"
SECONDS = 30.0
SKIPPED = 20  # frames, before the browser has compiled what it runs often
LIMIT = 90  # seconds for anything else
CAMERAS = {1: "one", 4: "four"}  # fixtures by number of faces
READY = "document.getElementById('status').textContent === 'Ready.'"
RECORD = """
const times = [];
window.times = times;
const label = document.getElementById('latency');
new MutationObserver(() => times.push([performance.now(), Number(label.textContent.split(' ')[0])]))
  .observe(label, { childList: true });
"""


def main() -> None:
    """Measure every packaged model, and write the result."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    header, runtime = make_header(timed=True), find_runtime()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in shipped.NAMES:
            row = {"model": name, **compare(name, runtime, Path(folder))}
            for faces, picture in CAMERAS.items():
                row[f"faces_{faces}"] = watch(name, picture, runtime, Path(folder), seconds)
            rows.append({**row, **measure_bytes(name, runtime)})
    facts = {"onnxruntime_web": VERSION, "browser": read_browser(), "cores": os.cpu_count()}
    settings = {"seconds": seconds, "skipped_frames": SKIPPED, "threads": 1, "frame": "640x480"}
    result = Measurement(header=header, script="web_speed", settings=settings, rows=rows, facts=facts)
    files.write(result, OUT)
    print(table(result).to_markdown(), facts, sep="\n\n")


def compare(name: str, runtime: Path, folder: Path) -> dict[str, Any]:
    """Return how far the answers for all fixtures are from Python's, and how long the page takes to load."""
    with (
        web_host.serve(web_host.list_files(runtime, [name])) as (url, _),
        chromium.open_page("about:blank", folder / f"{name}-compare") as page,
    ):
        page.record_requests()
        start = perf_counter()
        page.call("Page.navigate", url=url)
        page.wait(READY, LIMIT)
        loaded = perf_counter() - start
        expected = web_host.EXPECTED
        answers = page.run(web_host.make_answering(name))
        elsewhere = [one for one in page.requests if not one.startswith((url, "blob:"))]
    pairs = [
        (found, face)
        for picture in expected["pictures"]
        for found, face in zip(answers[picture["file"]]["faces"], picture["faces"], strict=True)
    ]
    predictions = [(found, face["predictions"][name]) for found, face in pairs]
    predictions += [(answers[crop["file"]], crop["predictions"][name]) for crop in expected["ready"]]
    return {
        "images": len(answers),
        "faces": len(predictions),
        "labels_changed": sum(found["label"] != other["label"] for found, other in predictions),
        "flags_changed": sum(found["flags"] != face["flags"] for found, face in pairs),
        "largest_probability_difference": max(
            abs(found["probabilities"][label] - share)
            for found, other in predictions
            for label, share in other["probabilities"].items()
        ),
        "largest_box_difference_px": max(np.abs(np.subtract(one["box"], other["box"])).max() for one, other in pairs),
        "requests_elsewhere": len(elsewhere),
        "load_s": round(loaded, 2),
    }


def watch(name: str, picture: str, runtime: Path, folder: Path, seconds: float) -> dict[str, Any]:
    """Return the times of the frames of a camera."""
    pixels = images.read(web_host.FIXTURES / "pictures" / f"{picture}.png")
    video = web_host.write_camera(folder / f"{picture}.y4m", pixels)
    flags = web_host.camera_flags(video)
    with (
        web_host.serve(web_host.list_files(runtime, [name])) as (url, _),
        chromium.open_page(url, folder / f"{name}-{picture}", *flags) as page,
    ):
        page.wait(READY, LIMIT)
        page.run(RECORD)
        page.evaluate("document.getElementById('camera').click()")
        page.wait(f"times.length > {SKIPPED}", LIMIT)
        first, cpu = page.evaluate("times.length"), read_cpu(page)
        page.wait(f"performance.now() - times[{first}]?.[0] >= {1000 * seconds}", seconds + LIMIT)
        times, cpu = np.array(page.evaluate("times"))[first:], read_cpu(page) - cpu
    ms = times[:, 1]
    return {
        "frames": len(ms),
        "cpu_ms": round(1000 * cpu / len(ms), 1),
        "ms_p50": float(np.percentile(ms, 50)),
        "ms_p95": float(np.percentile(ms, 95)),
        "frames_per_s": round((len(ms) - 1) / (times[-1, 0] - times[0, 0]) * 1000, 1),
    }


def read_cpu(page: chromium.Page) -> float:
    """Return the seconds of processor time that the page and its worker have taken."""
    processes = page.call_browser("SystemInfo.getProcessInfo")["processInfo"]
    return sum(one["cpuTime"] for one in processes if one["type"] == "renderer")


def measure_bytes(name: str, runtime: Path) -> dict[str, int]:
    """Return how many bytes a visit of the page loads, and compressed with gzip."""
    pages = make_pages([shipped.find(name)], runtime)
    contents = [page.read() for path, page in pages.items() if not path.startswith("licences/")]
    return {"bytes": sum(map(len, contents)), "bytes_gzip": sum(len(gzip.compress(one, 6)) for one in contents)}


def read_browser() -> str:
    """Return name and version of the browser."""
    with tempfile.TemporaryDirectory() as folder, chromium.open_page("about:blank", Path(folder) / "profile") as page:
        product: str = page.call("Browser.getVersion")["product"]
        return product


def table(result: Measurement) -> Table:
    """Make a table with a row per model."""
    head = (
        "model",
        "largest difference of a probability",
        "p50 / p95 ms, 1 face",
        "4 faces",
        "CPU ms, 1 and 4 faces",
        "MB",
        "MB with gzip",
    )
    facts = result.facts
    note = f"{facts['browser']}, onnxruntime-web {facts['onnxruntime_web']}, one thread; camera frames of 640x480."
    return Table("the page in a browser", head, [_make_row(row) for row in result.rows], note)


def _make_row(row: dict[str, Any]) -> tuple[str, ...]:
    times = (f"{row[key]['ms_p50']:.0f} / {row[key]['ms_p95']:.0f}" for key in ("faces_1", "faces_4"))
    sizes = (f"{row[key] / 1e6:.1f}" for key in ("bytes", "bytes_gzip"))
    cpu = f"{row['faces_1']['cpu_ms']:.0f}, {row['faces_4']['cpu_ms']:.0f}"
    return (row["model"], f"{row['largest_probability_difference']:.1e}", *times, cpu, *sizes)


if __name__ == "__main__":
    main()
