"""A stream from an RTSP server on loopback: no delay, killed and restarted twice, silent, and frozen."""

import time

import numpy as np
import pytest
from rtsp_server import RtspServer, read_number

from edgeemo.watch.capture import Capture
from edgeemo.watch.sources import open_source

pytest.importorskip("cv2")
PATIENCE = 15.0  # seconds within which each step must happen; it takes one or two


@pytest.fixture
def camera():
    """A server at 25 frames a second and a capture with short time-outs."""
    with RtspServer() as server:
        source = open_source(server.url, timeout=1.0)
        with Capture(source, lost_after=1.0, frozen_after=0.8, pauses=(0.1, 0.4)) as capture:
            yield server, capture


def read_until(capture, condition):
    """Take frames until a condition is true of what has been taken; return them with the delay of each in seconds."""
    taken, deadline = [], time.monotonic() + PATIENCE
    while not condition(taken):
        assert time.monotonic() < deadline
        if (frame := capture.read(timeout=0.1)) is not None:
            taken.append((frame, time.monotonic() - frame.captured))
    return taken


def test_frames_of_a_stream_arrive_in_order_without_a_growing_delay(camera):
    server, capture = camera
    read_until(capture, lambda taken: len(taken) >= 25)  # what was sent while FFmpeg recognised the stream
    frames = read_until(capture, lambda taken: len(taken) >= 100)
    numbers = [read_number(frame.pixels) for frame, _ in frames]
    assert numbers == sorted(set(numbers))
    assert np.percentile([delay for _, delay in frames], 95) < 0.1
    since_sent = [frame.captured - server.sent[number] for (frame, _), number in zip(frames, numbers, strict=True)]
    assert np.median(since_sent[-25:]) < np.median(since_sent[:25]) + 0.2
    assert capture.healthy


def test_a_server_that_is_killed_and_restarted_twice_is_found_again(camera, caplog):
    server, capture = camera
    for restarts in (1, 2):
        read_until(capture, lambda taken: len(taken) >= 5)
        server.kill()
        read_until(capture, lambda _: not capture.connected)
        server.start()
        read_until(capture, lambda _: capture.connected)
        assert capture.reconnects == restarts
    assert [text.rpartition("; ")[2].rpartition("camera ")[2] for text in caplog.messages] == [
        "trying to reconnect",
        "delivers frames again",
    ] * 2


def test_a_stream_that_falls_silent_is_lost_and_one_that_freezes_is_not_healthy(camera):
    server, capture = camera
    read_until(capture, lambda taken: len(taken) >= 5)
    server.still.set()
    read_until(capture, lambda _: capture.frozen)
    assert (capture.connected, capture.healthy) == (True, False)
    server.still.clear()
    read_until(capture, lambda _: capture.healthy)
    server.silent.set()
    read_until(capture, lambda _: not capture.connected)
    server.silent.clear()
    read_until(capture, lambda _: capture.healthy)
    assert capture.reconnects == 1
