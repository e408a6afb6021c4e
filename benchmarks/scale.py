"""How many cores a thousand cameras need: processor time to decode a frame, to be added to that of watching it.

pip install av && python benchmarks/scale.py

Writes benchmarks/results/scale/decode.json: H.264 video as edgeemo watch decodes it, with OpenCV, and JPEG as edgeemo
serve does, with Pillow. Frames are those of a rendered scene with grain; PyAV encodes the video, and does nothing else.
For docs/scale.md, `cores_table` adds results/watch/speed.json (watch_speed.py), and `posts_table` reads
results/serve/load.json (serve_load.py).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from io import BytesIO
from math import ceil
from pathlib import Path
from time import process_time_ns

import numpy as np
from PIL import Image

from edgeemo import images
from edgeemo.packages import require
from edgeemo.report import files
from edgeemo.report.facts import make_header
from edgeemo.report.result import Measurement
from edgeemo.report.table import Table
from edgeemo.runtime import shipped
from edgeemo.watch.scene import Scene

RESULT = Path(__file__).parent / "results" / "scale" / "decode.json"
SIZES = ((640, 480), (1280, 720), (1920, 1080))
FRAMES, ROUNDS, RATE = 50, 9, 25  # frames of a video, times that it is decoded, frames a second
CRF = 23  # x264's default quality
CAMERAS = 1000
# Frames a second that are watched, and the interval of the detector among them.
WATCHED = ((5, 1), (25, 5), (25, 10))
POSTED = (1, 5)  # images a second of a camera


def main() -> None:
    """Measure, write the result and print it."""
    require("av", purpose="encoding video", install="pip install av")
    header = make_header(timed=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for width, height in SIZES:
            scene = Scene(people=4, seed=3, width=width, height=height)
            frames = [scene.frame(number)[0] for number in range(FRAMES)]
            for kind, encode, decode in (("H.264", encode_video, decode_video), ("JPEG", encode_jpegs, decode_jpegs)):
                file = Path(folder) / f"{kind}-{width}.bin"
                encode(frames, file)
                rows.append({"kind": kind, "width": width, "height": height, **measure(decode, file)})
    settings = {"frames": FRAMES, "rounds": ROUNDS, "rate": RATE, "crf": CRF, "jpeg_quality": 90}
    result = Measurement(header=header, script="scale", settings=settings, rows=rows)
    files.write(result, RESULT)
    print(table(result).to_markdown())


def measure(decode: Callable[[Path], int], file: Path) -> dict[str, float]:
    """Return the processor time of a frame in ms, the least of the rounds, and the frames' mean size in kB.

    Other programs on the machine make processor time longer, too, because they share its caches.
    """
    decode(file)
    times = []
    for _ in range(ROUNDS):
        start = process_time_ns()
        count = decode(file)
        times.append((process_time_ns() - start) / 1e6 / count)
    return {"ms": round(min(times), 3), "kilobytes": round(file.stat().st_size / FRAMES / 1000, 1)}


def encode_video(frames: list[np.ndarray], file: Path) -> None:
    """Write H.264 in Matroska, as x264 encodes it for live streams."""
    av = require("av", purpose="encoding video", install="pip install av")
    with av.open(str(file), "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"crf": str(CRF), "tune": "zerolatency"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def decode_video(file: Path) -> int:
    """Read all frames; return how many."""
    cv2 = require("cv2", purpose="decoding video", extra="video")
    video = cv2.VideoCapture(str(file), cv2.CAP_FFMPEG)
    count = 0
    while video.read()[0]:
        count += 1
    video.release()
    if count != FRAMES:
        raise SystemExit(f"{file.name}: {count} of {FRAMES} frames could be read")
    return count


def encode_jpegs(frames: list[np.ndarray], file: Path) -> None:
    """Write JPEGs one after the other, each after its size."""
    with file.open("wb") as out:
        for pixels in frames:
            content = BytesIO()
            Image.fromarray(pixels).save(content, "JPEG", quality=90)
            out.write(len(content.getvalue()).to_bytes(4, "big") + content.getvalue())


def decode_jpegs(file: Path) -> int:
    """Decode all images with the checks of edgeemo.images; return how many."""
    content, at, count = file.read_bytes(), 0, 0
    while at < len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        images.read(content[at + 4 : at + 4 + size])
        at, count = at + 4 + size, count + 1
    return count


def table(result: Measurement) -> Table:
    """A row for each kind and size."""
    rows = [
        (row["kind"], f"{row['width']}x{row['height']}", f"{row['kilobytes']:.1f}", f"{row['ms']:.2f}")
        for row in result.rows
    ]
    note = "Processor time of one frame, of all threads, the least of the rounds; a rendered scene with grain."
    return Table("decoding", ("format", "pixels", "kB a frame", "ms"), rows, note, align="llrr")


def cores_table(speed: Measurement, decode: Measurement) -> Table:
    """Cores for CAMERAS cameras of 640x480 in H.264: 25 frames a second decoded, some or all of them watched."""
    (decoding,) = (row["ms"] for row in decode.rows if (row["kind"], row["width"]) == ("H.264", 640))
    fps = {(row["faces"], row["detect_every"], row["model"]): row["fps"] for row in speed.rows}
    rows = []
    for rate, interval in WATCHED:
        for faces in sorted({row["faces"] for row in speed.rows}):
            loads = [RATE * decoding + rate * 1000 / fps[faces, interval, name] for name in shipped.NAMES]
            rows.append((str(rate), str(interval), str(faces), *(f"{count_cores(load):,}" for load in loads)))
    rows.append(("0 (decoding alone)", "", "", *[f"{count_cores(RATE * decoding):,}"] * len(shipped.NAMES)))
    head = ("frames watched a second", "search every Nth", "faces", *shipped.NAMES)
    note = f"Cores for {CAMERAS:,} cameras of 640x480 that send {RATE} frames a second, each core fully used."
    return Table("cores", head, rows, note)


def posts_table(load: Measurement) -> Table:
    """Cores for CAMERAS cameras that post images to edgeemo serve, by what they post."""
    own = [row for row in load.rows if (row["load"], row["server"]) == ("beside", "edgeemo serve")]
    rows = [
        (row["images"], f"{row['cpu_ms']:.1f}", *(f"{count_cores(rate * row['cpu_ms']):,}" for rate in POSTED))
        for row in own
    ]
    head = ("posted", "ms a request", *(f"cores, {rate} a second" for rate in POSTED))
    note = f"Processor time of the server, and cores for {CAMERAS:,} cameras that post so many a second each."
    return Table("posts", head, rows, note)


def count_cores(load: float) -> int:
    """Return the cores of CAMERAS cameras that take `load` ms of processor time a second each."""
    return ceil(CAMERAS * load / 1000)


if __name__ == "__main__":
    main()
