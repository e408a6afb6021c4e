"""Frames of one WebSocket: each connection has its own tracks and steady labels, and its newest frame wins."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any

import anyio
import numpy as np
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from edgeemo import images
from edgeemo.errors import DataError
from edgeemo.predict.result import make_record
from edgeemo.runtime import Face
from edgeemo.runtime.loading import load_image
from edgeemo.serve.problems import Problem, make_problem
from edgeemo.serve.service import Search, Service
from edgeemo.watch.frame import Frame, TrackedFace, WatchedFrame
from edgeemo.watch.watcher import Watcher

log = logging.getLogger(__name__)
UNSUPPORTED, TOO_LARGE, TRY_LATER, GOING_AWAY = 1003, 1009, 1013, 1001  # close codes, RFC 6455
CHANNELS = {"rgb": 3, "bgr": 3, "gray": 1}


@dataclass(frozen=True)
class Raw:
    """The layout of frames that are no image files: width x height pixels of 8 bits per channel, row by row."""

    width: int
    height: int
    color: str

    def read(self, content: bytes) -> np.ndarray:
        """Return (H, W) or (H, W, 3) RGB uint8; DataError for another number of bytes."""
        channels = CHANNELS[self.color]
        expected = self.width * self.height * channels
        if len(content) != expected:
            raise DataError(
                f"a raw frame of {len(content)} bytes; expected {expected}, {self.width}x{self.height} {self.color}"
            )
        shape = (self.height, self.width, channels) if channels > 1 else (self.height, self.width)
        pixels = load_image(np.frombuffer(content, np.uint8).reshape(shape), None if channels == 1 else self.color)
        return np.ascontiguousarray(pixels)


class Stream:
    """Answers the frames of one WebSocket until it is closed."""

    def __init__(self, service: Service, socket: WebSocket, search: Search, raw: Raw | None = None) -> None:
        """raw: the layout of the frames; None: they are image files."""
        self._service, self._socket, self._raw = service, socket, raw
        detector = service.detector.with_faces(search.faces or "few")
        self._watcher = Watcher(service.models.current, detector, augment=search.augment)
        self._newest: tuple[int, bytes] | None = None
        self._arrived = asyncio.Event()
        self._received = self._dropped = 0

    async def run(self) -> None:
        """Answer frames until the client leaves, is silent for too long or sends anything but frames."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._answer_all)
            await self._receive_all()
            group.cancel_scope.cancel()

    async def _receive_all(self) -> None:
        timeout = self._service.config.timeout
        while True:
            try:
                with anyio.fail_after(timeout):
                    message = await self._socket.receive()
            except TimeoutError:
                await self._close(GOING_AWAY, f"no frame for {timeout:g} s")
                return
            if message["type"] == "websocket.disconnect":
                return
            content = message.get("bytes")
            if content is None:
                await self._close(UNSUPPORTED, "expected binary messages, one frame each")
                return
            self._offer(content)

    def _offer(self, content: bytes) -> None:
        if self._newest is not None:
            self._dropped += 1
            self._service.metrics.dropped.inc()
        self._newest = (self._received, content)
        self._received += 1
        self._arrived.set()

    async def _answer_all(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            if self._newest is None:
                continue
            (number, content), self._newest = self._newest, None
            captured = monotonic()
            try:
                answer = await self._service.workers.run(lambda: self._process(number, content, captured))  # noqa: B023
            except Exception as error:  # noqa: BLE001  the next frame may be better
                answer = self._describe_error(number, error)
            self._service.metrics.frames.inc()
            with suppress(RuntimeError, WebSocketDisconnect):  # the client has left; `_receive_all` learns of it
                await self._socket.send_text(json.dumps({**answer, "dropped": self._dropped}))

    def _process(self, number: int, content: bytes, captured: float) -> dict[str, Any]:
        """Return the faces of a frame; in a worker thread."""
        pixels = self._read(content)
        with self._service.models.lend() as model:
            if model is not self._watcher.model:
                self._watcher.replace_model(model)
            watched = self._watcher.process(Frame(pixels, number, captured, 0.0))
        return describe(watched)

    def _read(self, content: bytes) -> np.ndarray:
        if self._raw:
            return self._raw.read(content)
        return images.read(content, name="frame", max_pixels=self._service.config.max_pixels)

    def _describe_error(self, number: int, error: Exception) -> dict[str, Any]:
        problem = make_problem(error)
        if problem.status == 500:
            log.error("a frame failed", exc_info=error)
        return {"frame": number, "error": problem.describe()}

    async def _close(self, code: int, reason: str) -> None:
        with suppress(RuntimeError, WebSocketDisconnect):
            if self._socket.application_state is WebSocketState.CONNECTED:
                await self._socket.close(code, reason)


def describe(watched: WatchedFrame) -> dict[str, Any]:
    """Return the faces of a frame, JSON-ready: each as in `predict --json`, with its track and steady label."""
    height, width = watched.frame.pixels.shape[:2]
    return {
        "frame": watched.frame.number,
        "width": width,
        "height": height,
        "latency_ms": round(1000 * watched.latency, 3),
        "faces": [_describe_face(face) for face in watched.faces],
        "ended": list(watched.ended),
    }


def _describe_face(face: TrackedFace) -> dict[str, Any]:
    record = make_record(Face(face.box, face.score, face.landmarks, face.prediction, face.flags, face.framing))
    steady = {"label": face.smoothed.label, "probability": round(face.smoothed.probability, 6)}
    steady["unsure"] = face.smoothed.unsure
    return {
        "track": face.track,
        "seconds": round(face.seconds, 3),
        "detected": face.detected,
        "steady": steady,
        **record,
    }


def check_raw(width: int | None, height: int | None, color: str, max_pixels: int) -> Raw | None:
    """Return the layout of raw frames; None without width and height.

    Raises Problem 422 for one without the other, or too many pixels.
    """
    if width is None and height is None:
        return None
    if width is None or height is None:
        raise Problem(422, "raw frames need both width and height; without them, frames are image files")
    if width * height > max_pixels:
        raise Problem(422, f"frames of {width}x{height} pixels; the limit is {max_pixels:,}")
    return Raw(width, height, color)
