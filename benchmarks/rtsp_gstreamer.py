"""An RTSP camera of GStreamer's (H.264, zero latency) for watch_rtsp.py, run by the system's Python, which has `gi`.

/usr/bin/python3 benchmarks/rtsp_gstreamer.py PORT FRAMES WIDTH HEIGHT FPS LOG FIRST

Sends the I420 frames of the file FRAMES again and again, forwards and backwards, each with its number, from FIRST, as
blocks in its top rows (tests/fixtures/rtsp_server.py). The file LOG gets a line per frame: number and seconds of
CLOCK_MONOTONIC, which all processes share.
"""

import mmap
import sys
import time
from pathlib import Path
from typing import Any

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

BITS, BLOCK = 24, 16  # as in tests/fixtures/rtsp_server.py
PIPELINE = (
    "( appsrc name=source is-live=true format=time caps=video/x-raw,format=I420,width={width},height={height},"
    "framerate={fps}/1 ! x264enc tune=zerolatency speed-preset=ultrafast bitrate=3000 key-int-max={fps} ! "
    "rtph264pay name=pay0 pt=96 config-interval=1 )"
)


class Camera:
    """Pushes a frame whenever one is due."""

    def __init__(self, frames: str, width: int, height: int, fps: int, log: str, first: int) -> None:
        """Open the frames; `first` is the number of the next one."""
        self.width, self.size, self.fps, self.number = width, width * height * 3 // 2, fps, first
        with Path(frames).open("rb") as file:
            self.frames = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.count = len(self.frames) // self.size
        self.log = Path(log).open("a", buffering=1)  # noqa: SIM115  until this process is killed

    def start(self, _factory: Any, media: Any) -> None:
        """Send to the first client; all others get the same."""
        self.source, self.due, self.pushed = media.get_element().get_by_name("source"), time.monotonic(), 0
        GLib.timeout_add(0, self.push)

    def push(self) -> bool:
        """Send a frame and come again when the next one is due."""
        buffer = Gst.Buffer.new_wrapped(self.make())
        buffer.pts, buffer.duration = self.pushed * Gst.SECOND // self.fps, Gst.SECOND // self.fps
        self.log.write(f"{self.number} {time.monotonic():.6f}\n")
        self.number += 1
        if self.source.emit("push-buffer", buffer) != Gst.FlowReturn.OK:
            return False
        self.pushed += 1
        wait = self.due + self.pushed / self.fps - time.monotonic()
        GLib.timeout_add(max(0, round(1000 * wait)), self.push)
        return False

    def make(self) -> bytes:
        """Return the bytes of the next frame with its number."""
        place = self.number % (2 * self.count - 2)
        place = min(place, 2 * self.count - 2 - place)
        content = bytearray(self.frames[place * self.size : (place + 1) * self.size])
        row = b"".join(bytes([235 if self.number >> bit & 1 else 16]) * BLOCK for bit in range(BITS))
        for line in range(BLOCK):
            content[line * self.width : line * self.width + len(row)] = row
        return bytes(content)


def main() -> None:
    """Serve until killed."""
    port, frames, width, height, fps, log, first = sys.argv[1:]
    Gst.init(None)
    camera = Camera(frames, int(width), int(height), int(fps), log, int(first))
    server, factory = GstRtspServer.RTSPServer(), GstRtspServer.RTSPMediaFactory()
    server.set_address("127.0.0.1")
    server.set_service(port)
    factory.set_shared(True)
    factory.set_launch(PIPELINE.format(width=width, height=height, fps=fps))
    factory.connect("media-configure", camera.start)
    server.get_mount_points().add_factory("/camera", factory)
    server.attach(None)
    print("ready", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
