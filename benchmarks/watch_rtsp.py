"""Watch an RTSP camera on loopback: delay, whether it grows, and a server that is killed, hangs or repeats an image.

python benchmarks/watch_rtsp.py [--minutes 10] [--port 18554]

Writes benchmarks/results/watch/rtsp.json. The server is a process of its own, on other cores where there are any, and
sends a rendered scene with one face at 640x480 and 25 frames a second. This process, pinned to one core, captures,
finds, follows and classifies the face. Every frame carries its number, so that its delay from sending to answer is
known as well as that from capture to answer; both are compared between the first and the last WINDOW seconds.

First GStreamer's server with x264 (rtsp_gstreamer.py; on a machine without it, the second server) for the time given:
it is killed and restarted twice, and stopped once for longer than the time-out with its connection open. Then the
tests' server, JPEG over RTP, for REPEAT_RUN seconds: it sends the same image for a while, which a video codec would
not reproduce exactly. `noticed_s` is the time from what happened until the capture was not healthy, `back_s` that from
its end until it was.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgeemo.faces import load_detector
from edgeemo.report import files
from edgeemo.report.facts import make_header
from edgeemo.report.result import Measurement
from edgeemo.runtime import load
from edgeemo.watch.capture import Capture
from edgeemo.watch.scene import CLEAR, Scene
from edgeemo.watch.sources import open_source
from edgeemo.watch.watcher import Watcher

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "fixtures"))
from rtsp_server import BLOCK, read_number

RESULT = Path(__file__).parent / "results" / "watch" / "rtsp.json"
GSTREAMER = Path(__file__).with_name("rtsp_gstreamer.py")
FIXTURE = Path(__file__).parents[1] / "tests" / "fixtures" / "rtsp_server.py"
WIDTH, HEIGHT, FPS, FRAMES = 640, 480, 25, 100
WINDOW = 60.0  # seconds at both ends, at most a quarter of the whole
TIMEOUT, FROZEN, DOWN, REPEAT_RUN = 5.0, 10.0, 3.0, 40.0  # seconds
# What happens to a server: name, when as a share of the whole time, for how many seconds.
TROUBLES = (("killed", 0.3, DOWN), ("killed", 0.5, DOWN), ("stopped", 0.6, TIMEOUT + DOWN))
REPEATS = (("repeats an image", 0.3, FROZEN + DOWN),)
MODEL = "small"


@dataclass
class Server:
    """The process that sends; its log has the time at which each number was sent."""

    command: list[str]
    folder: Path
    cores: set[int]
    starts: int = 0
    child: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def log(self) -> Path:
        """A line per frame: number, seconds."""
        return self.folder / "sent"

    def start(self) -> None:
        """Start it with numbers that no other start has used, and wait until it listens."""
        command = [*self.command, str(self.log), str(1_000_000 * self.starts)]
        self.child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        os.sched_setaffinity(self.child.pid, self.cores)
        if not (self.child.stdout and self.child.stdout.readline()):
            sys.exit(f"the server does not start:  {' '.join(command)}")
        self.starts += 1

    def kill(self) -> None:
        """Kill it, as a power failure would."""
        if self.child:
            self.child.kill()
            self.child.wait()

    def begin(self, trouble: str) -> None:
        """Let something happen to it."""
        if self.child and trouble == "killed":
            self.kill()
        elif self.child:
            self.child.send_signal({"stopped": signal.SIGSTOP, "repeats an image": signal.SIGUSR1}[trouble])

    def end(self, trouble: str) -> None:
        """End what has happened to it."""
        if trouble == "killed":
            self.start()
        elif self.child:
            self.child.send_signal({"stopped": signal.SIGCONT, "repeats an image": signal.SIGUSR1}[trouble])


@dataclass(frozen=True)
class Answer:
    """A frame that was answered: its number, and seconds of time.monotonic."""

    number: int
    captured: float
    answered: float
    faces: int


@dataclass
class Course:
    """What happens to a server, one thing after another: name, time.monotonic and seconds of each; and what is seen."""

    server: Server
    coming: list[tuple[str, float, float]]
    seen: list[dict[str, Any]] = field(default_factory=list)
    began: float = 0.0  # of the first of `coming`; 0: not yet
    ended: float = 0.0

    def follow(self, capture: Capture) -> None:
        """Begin and end what is due, and note when the capture notices."""
        now = time.monotonic()
        if self.coming and not self.began and now >= self.coming[0][1]:
            self.server.begin(self.coming[0][0])
            self.began, self.ended = now, 0.0
            self.seen.append({"what": self.coming[0][0], "noticed_s": None, "back_s": None})
        if not self.began:
            return
        if not capture.healthy and self.seen[-1]["noticed_s"] is None:
            self.seen[-1]["noticed_s"] = round(now - self.began, 2)
        if not self.ended and now >= self.began + self.coming[0][2]:
            self.server.end(self.coming[0][0])
            self.ended = now
        if self.ended and capture.healthy:
            self.seen[-1]["back_s"] = round(now - self.ended, 2)
            self.began = 0.0
            self.coming.pop(0)


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--port", type=int, default=18_554)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    header = make_header(timed=True)
    everything = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {everything[0]})
    url, others = f"rtsp://127.0.0.1:{arguments.port}/camera", set(everything[1:] or everything)
    runs = ((has_gstreamer(), 60 * arguments.minutes, TROUBLES), (False, REPEAT_RUN, REPEATS))
    rows = []
    for gstreamer, seconds, troubles in runs:
        with serve(arguments.port, others, gstreamer=gstreamer) as server:
            measured = watch(server, url, seconds, troubles)
        rows.append({"server": "GStreamer, H.264" if gstreamer else "tests, JPEG", "seconds": seconds, **measured})
    settings = {
        "frame": f"{WIDTH}x{HEIGHT}",
        "fps": FPS,
        "model": MODEL,
        "timeout_s": TIMEOUT,
        "frozen_after_s": FROZEN,
        "cores": 1,
    }
    files.write(Measurement(header=header, script="watch_rtsp", settings=settings, rows=rows), RESULT)
    print(json.dumps(rows, indent=2))


@contextmanager
def serve(port: int, cores: set[int], *, gstreamer: bool) -> Iterator[Server]:
    """Render the scene and start a server."""
    with tempfile.TemporaryDirectory() as name:
        frames = Path(name, "frames")
        with frames.open("wb") as file:
            scene = Scene(1, labels=CLEAR)
            for number in range(FRAMES):
                pixels, _ = scene.frame(number)
                pixels[:BLOCK] = 128
                file.write(cv2.cvtColor(pixels, cv2.COLOR_RGB2YUV_I420).tobytes())
        program = ["/usr/bin/python3", str(GSTREAMER)] if gstreamer else [sys.executable, str(FIXTURE)]
        arguments = [str(port), str(frames), str(WIDTH), str(HEIGHT), str(FPS)]
        server = Server([*program, *arguments], Path(name), cores)
        server.start()
        try:
            yield server
        finally:
            server.kill()


def has_gstreamer() -> bool:
    """Return whether the system's Python has GStreamer's RTSP server and x264."""
    code = (
        "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import Gst, GstRtspServer; "
        "Gst.init(None); raise SystemExit(Gst.ElementFactory.find('x264enc') is None)"
    )
    try:
        return subprocess.run(["/usr/bin/python3", "-c", code], check=False, capture_output=True).returncode == 0
    except OSError:
        return False


def watch(server: Server, url: str, seconds: float, troubles: Sequence[tuple[str, float, float]]) -> dict[str, Any]:
    """Watch for some seconds while things happen to the server; return what was measured."""
    watcher = Watcher(load(MODEL), load_detector(faces="few"), detect_every=5)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used = usage.ru_utime + usage.ru_stime
    answers: list[Answer] = []
    memory: list[float] = []
    source = open_source(url, timeout=TIMEOUT)
    with Capture(source, lost_after=TIMEOUT, frozen_after=FROZEN) as capture:
        start = time.monotonic()
        course = Course(server, [(name, start + share * seconds, length) for name, share, length in troubles])
        while time.monotonic() - start < seconds:
            course.follow(capture)
            if (frame := capture.read(timeout=0.25)) is None:
                continue
            watched = watcher.process(frame, capture.dropped)
            number = read_number(frame.pixels)
            answers.append(Answer(number, frame.captured, frame.captured + watched.latency, len(watched.faces)))
            if len(answers) % 250 == 0:
                memory.append(read_memory())
        facts = {"dropped": capture.dropped, "reconnects": capture.reconnects, "read": capture.frames}
    facts |= {"troubles": course.seen, "rss_mb": [memory[0], memory[-1]] if memory else []}
    usage = resource.getrusage(resource.RUSAGE_SELF)
    facts["cpu_share"] = round((usage.ru_utime + usage.ru_stime - used) / seconds, 3)
    return facts | summarise(answers, read_log(server.log), start, seconds)


def read_memory() -> float:
    """Return the resident set in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * resource.getpagesize() / 1e6, 1)


def read_log(path: Path) -> dict[int, float]:
    """Return when each number was sent; a line that a kill cut is left out."""
    lines = (line.split() for line in path.read_text().splitlines())
    return {int(line[0]): float(line[1]) for line in lines if len(line) == 2}


def summarise(answers: list[Answer], sent: dict[int, float], start: float, seconds: float) -> dict[str, Any]:
    """Return quantiles of both delays, in all and at both ends."""
    window = min(WINDOW, seconds / 4)
    known = [one for one in answers if one.number in sent]
    ends = {
        "all": known,
        "first": [one for one in known if one.captured - start < window],
        "last": [one for one in known if one.captured - start >= seconds - window],
    }
    return {
        "answered": len(answers),
        "number_unknown": len(answers) - len(known),
        "with_one_face": round(sum(one.faces == 1 for one in answers) / max(1, len(answers)), 4),
        "window_s": window,
        "capture_to_answer_ms": {
            name: quantiles([one.answered - one.captured for one in part]) for name, part in ends.items()
        },
        "sent_to_answer_ms": {
            name: quantiles([one.answered - sent[one.number] for one in first_of_each(part)])
            for name, part in ends.items()
        },
    }


def first_of_each(answers: list[Answer]) -> list[Answer]:
    """Return the first answer to each number; a frozen server sends one again and again."""
    return list({one.number: one for one in reversed(answers)}.values())


def quantiles(seconds: list[float]) -> dict[str, float]:
    """Return p50, p95 and the largest in milliseconds."""
    if not seconds:
        return {}
    values = 1000 * np.array(seconds)
    return {f"p{q}": round(float(np.percentile(values, q)), 1) for q in (50, 95)} | {
        "max": round(float(values.max()), 1)
    }


if __name__ == "__main__":
    main()
