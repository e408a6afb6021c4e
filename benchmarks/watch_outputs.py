"""Whether the outputs of `edgeemo watch` deliver every record, and what they cost the loop that watches.

python benchmarks/watch_outputs.py

Writes benchmarks/results/watch/outputs.json. Needs mosquitto and its port, paho-mqtt and OpenCV.

SECONDS of FACES faces at FPS frames a second, every face of every frame, go to mosquitto and to an HTTP server in
processes of their own on this machine. In the middle, the peer keeps running, hangs (SIGSTOP) or is ended and started
again, each for AWAY seconds; or it hangs until after the end. A row says how many records were handed over, how many
different ones the peer has in the end, and how long the calls of `Outputs.write` took.

Overlay: milliseconds of the processor per frame of 640x480 from `edgeemo.watch.scene`. Hidden: how many
faces the packaged detector finds in such frames, and for how many the model nano names the label that is shown, one of
three, with and without `--blur`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as paho

from edgeemo.faces import load_detector
from edgeemo.report import files
from edgeemo.report.facts import make_header
from edgeemo.report.result import Measurement
from edgeemo.runtime import Model, load
from edgeemo.runtime.prediction import Prediction
from edgeemo.stages import Watch
from edgeemo.watch.frame import Frame, TrackedFace, WatchedFrame
from edgeemo.watch.outputs.opening import open_outputs
from edgeemo.watch.outputs.overlay import Overlay
from edgeemo.watch.scene import CLEAR, Scene

OUT = Path(__file__).parent / "results" / "watch" / "outputs.json"
SECONDS, FPS, FACES, AWAY = 20, 25, 4, 5
LABELS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
TOPIC = "benchmark"
FRAMES = 200  # of the overlay
SERVER = """
import json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with open(sys.argv[2], "ab") as file:
            file.write(b"".join(json.dumps(one).encode() + b"\\n" for one in json.loads(body)["events"]))
        self.send_response(204)
        self.end_headers()
    def log_message(self, *args):
        pass
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
Start = Callable[[], "subprocess.Popen[bytes]"]


def main() -> None:
    """Measure, write the result and print it."""
    header = make_header(timed=True)
    rows = [
        measure_peer(peer, how)
        for peer in ("mosquitto", "HTTP server")
        for how in ("runs", "hangs", "restarts", "dies")
    ]
    facts = {"overlay_ms": [time_overlay(people, blur) for blur in (False, True) for people in (1, 4, 8)]}
    facts |= {"hidden": {"without": find_faces(blur=False), "with": find_faces(blur=True)}}
    settings = {"seconds": SECONDS, "fps": FPS, "faces": FACES, "away_seconds": AWAY, "frames": FRAMES}
    result = Measurement(header=header, script="watch_outputs", settings=settings, rows=rows, facts=facts)
    files.write(result, OUT)
    print(json.dumps([*rows, facts], indent=1))


def measure_peer(peer: str, how: str) -> dict[str, Any]:
    """Return what a peer has received that behaves like this in the middle."""
    with tempfile.TemporaryDirectory() as folder, run_peer(peer, Path(folder)) as (options, start, receive):
        process = [start()]
        outputs = open_outputs(Watch(publish="frames", **options), LABELS, live=True, status=False)
        away = threading.Thread(target=disturb, args=(process, start, how), daemon=True)
        away.start()
        spent = play(outputs.write)
        away.join()
        began = time.monotonic()
        outputs.close()
        closing = time.monotonic() - began
        (count,) = outputs.count().values()
        if how == "dies":
            process[0].send_signal(signal.SIGCONT)
        received = receive()
        process[0].terminate()
        process[0].wait()
    handed = SECONDS * FPS * FACES
    row = {"peer": peer, "it": how, "records": handed, "acknowledged": count.written, "lost": count.lost}
    row |= {"received": len(set(received)), "twice": len(received) - len(set(received))}
    print(row, flush=True)
    quantiles = {f"write_ms_{name}": round(float(value), 3) for name, value in describe(spent).items()}
    return {**row, **quantiles, "close_s": round(closing, 2)}


def describe(milliseconds: list[float]) -> dict[str, float]:
    """Return p50, p99 and the longest."""
    p50, p99 = np.percentile(milliseconds, (50, 99))
    return {"p50": p50, "p99": p99, "max": max(milliseconds)}


def play(write: Callable[[WatchedFrame], None]) -> list[float]:
    """Hand over frames at their times; return the milliseconds of each call."""
    pixels, spent, start = np.zeros((480, 640, 3), np.uint8), [], time.monotonic()
    for number in range(SECONDS * FPS):
        time.sleep(max(0.0, start + number / FPS - time.monotonic()))
        watched = make_watched(pixels, number, [(60.0 * k, 80.0, 50.0, 50.0) for k in range(FACES)])
        began = time.perf_counter_ns()
        write(watched)
        spent.append((time.perf_counter_ns() - began) / 1e6)
    return spent


def disturb(process: list[subprocess.Popen[bytes]], start: Start, how: str) -> None:
    """Let a peer hang, or end and start it, after a third of the time."""
    time.sleep(SECONDS / 3)
    if how in ("hangs", "dies"):
        process[0].send_signal(signal.SIGSTOP)
    elif how == "restarts":
        process[0].terminate()
        process[0].wait()
    time.sleep(AWAY)
    if how == "hangs":
        process[0].send_signal(signal.SIGCONT)
    elif how == "restarts":
        process[0] = start()


@contextmanager
def run_peer(peer: str, folder: Path) -> Iterator[tuple[dict[str, Any], Start, Callable[[], list[Any]]]]:
    """Yield the option of the output, a function that starts the peer, and one that returns what it has received."""
    port = find_port()
    if peer == "HTTP server":
        file = folder / "received"
        file.touch()
        start = partial(start_listener, [sys.executable, "-c", SERVER, str(port), str(file)], port)
        yield {"webhook": f"http://127.0.0.1:{port}/"}, start, lambda: [identify(one) for one in file.open("rb")]
        return
    program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if not program:
        sys.exit("mosquitto is not installed")
    folder.chmod(0o777)  # mosquitto may change its user
    lines = f"listener {port} 127.0.0.1", "allow_anonymous true", "persistence true", f"persistence_location {folder}/"
    (folder / "conf").write_text("\n".join((*lines, "max_queued_messages 0", "user root", "")))
    start = partial(start_listener, [program, "-c", str(folder / "conf")], port)
    subscribed = threading.Event()
    with subscribe(port, subscribed) as receive:

        def start_and_wait() -> subprocess.Popen[bytes]:
            process = start()
            subscribed.wait(20)
            return process

        yield {"mqtt": f"mqtt://127.0.0.1:{port}/{TOPIC}"}, start_and_wait, receive


@contextmanager
def subscribe(port: int, subscribed: threading.Event) -> Iterator[Callable[[], list[Any]]]:
    """Yield a function that waits until nothing arrives any more, and returns what has; set the event before that."""
    received: list[Any] = []
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="subscriber", clean_session=False)
    client.reconnect_delay_set(1, 1)
    client.on_connect = lambda *_: client.subscribe(TOPIC, qos=1)
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_message = lambda _client, _data, message: received.append(identify(message.payload))
    client.connect_async("127.0.0.1", port)
    client.loop_start()

    def receive() -> list[Any]:
        if not subscribed.is_set():
            sys.exit("the subscriber has no connection")
        before = -1
        while len(received) != before:
            before = len(received)
            time.sleep(3)
        return received

    try:
        yield receive
    finally:
        client.disconnect()
        client.loop_stop()


def start_listener(command: list[str], port: int) -> subprocess.Popen[bytes]:
    """Start a program; return when it listens."""
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
        except OSError:
            time.sleep(0.05)
            continue
        return process
    sys.exit(f"{command[0]} does not listen")


def find_port() -> int:
    """Return a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def identify(record: bytes) -> tuple[int, int]:
    """Return frame and track of a record."""
    one = json.loads(record)
    return one["frame"], one["track"]


def make_watched(pixels: np.ndarray, number: int, boxes: list[Any]) -> WatchedFrame:
    """Return a frame with a face in each box."""
    one = Prediction(LABELS[0], 0.65, {label: 0.65 if label == LABELS[0] else 0.05 for label in LABELS}, unsure=False)
    faces = tuple(
        TrackedFace(k + 1, box, 0.9, (), one, one, number / FPS, detected=True) for k, box in enumerate(boxes)
    )
    return WatchedFrame(Frame(pixels, number, number / FPS, time.time(), number / FPS), faces)


def time_overlay(people: int, blur: bool) -> dict[str, Any]:
    """Return p50 and p95 of painting a frame of this many people."""
    scene, overlay, spent = Scene(people=people, seed=1), Overlay(blur=blur), []
    for number in range(FRAMES):
        pixels, truths = scene.frame(number)
        watched = make_watched(pixels, number, [truth.box for truth in truths])
        began = time.thread_time_ns()
        overlay.paint(watched)
        spent.append((time.thread_time_ns() - began) / 1e6)
    p50, p95 = np.percentile(spent, (50, 95))
    return {"faces": people, "blur": blur, "p50": round(float(p50), 2), "p95": round(float(p95), 2)}


def find_faces(*, blur: bool) -> dict[str, int]:
    """Return how many faces there are, are found, and get the label that they show."""
    scene, overlay, detector = Scene(people=4, seed=1, labels=CLEAR), Overlay(blur=blur), load_detector()
    counts = dict.fromkeys(("faces", "found", "right_label"), 0)
    with load("nano") as model:
        for number in range(0, 10 * FRAMES, 10):
            pixels, truths = scene.frame(number)
            watched = make_watched(pixels, number, [truth.box for truth in truths])
            painted = overlay.paint(replace(watched, faces=(), unclassified=tuple(truth.box for truth in truths)))
            counts["faces"] += len(truths)
            counts["found"] += len(detector.detect(painted))
            counts["right_label"] += sum(predict(model, painted, truth.box) == truth.label for truth in truths)
    return counts


def predict(model: Model, pixels: np.ndarray, box: Any) -> str:
    """Return the label of the face in a box."""
    x, y, width, height = (round(value) for value in box)
    return model.predict(pixels[max(0, y) : y + height, max(0, x) : x + width], color="rgb").label


if __name__ == "__main__":
    main()
