"""Connections of uvicorn that do not wait for ever: for the header of a request, or for a client to read."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from edgeemo.serve.problems import MEDIA_TYPE, Problem

BAD_HANDSHAKE = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

READ = 16 * 1024  # bytes that are received at once; asyncio takes 256 KiB, and parsing as many tiny frames takes long
SLICE = 4096  # bytes of a WebSocket that are parsed at once; a frame may have as few as 6
FRAMES, FRAMES_PER_SECOND, BYTES_PER_FRAME = 2000, 500, 128  # that a WebSocket may send: at once, by time and by bytes


class _ReadInTime(asyncio.Protocol):
    """Aborts a connection whose client does not read what was sent to it within `seconds`.

    Closing would not end it: a transport waits for ever for a client that takes no more bytes.
    """

    seconds = 10.0
    transport: asyncio.Transport
    loop: asyncio.AbstractEventLoop
    _write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Have pause_writing called as soon as anything waits for the client."""
        transport.set_write_buffer_limits(high=1, low=0)
        transport.max_size = READ
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_write_timer()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Start to wait for a client that does not read its answer."""
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self.seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop waiting: the client has read all."""
        super().resume_writing()
        self._stop_write_timer()

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None


class GuardedWebSocket(_ReadInTime, WebSocketsSansIOProtocol):
    """Closes connections whose client does not read, whose handshake is none, or that send endless tiny frames."""

    _frames_left = float(FRAMES)
    _counted_at = 0.0

    def data_received(self, data: bytes) -> None:
        """Refuse a handshake that websockets does not accept, such as one with a long header: uvicorn would wait."""
        if self.handshake_initiated:
            self._receive_slices(data)
            return
        super().data_received(data)
        if not self.handshake_initiated:  # uvicorn hands over a complete header
            self.transport.write(BAD_HANDSHAKE)
            self.transport.close()

    def _receive_slices(self, data: bytes) -> None:
        now = self.loop.time()
        self._frames_left += (now - self._counted_at) * FRAMES_PER_SECOND
        self._counted_at = now
        for start in range(0, len(data), SLICE):
            part = data[start : start + SLICE]
            self._frames_left = min(FRAMES, self._frames_left + len(part) / BYTES_PER_FRAME)
            super().data_received(part)
            if self.transport.is_closing():
                return

    def handle_events(self) -> None:
        """Abort a connection of too many frames, whose parsing would keep the event loop from other clients."""
        self._frames_left -= len(self.conn.events)
        if self._frames_left < 0:
            self.transport.abort()
        else:
            super().handle_events()

    def send_receive_event_to_app(self) -> None:
        """Drop the content of text, which no route takes; uvicorn logs a traceback for what is not UTF-8."""
        if self.curr_msg_data_type == "text":
            self.frames = [b""]
        super().send_receive_event_to_app()


class GuardedProtocol(_ReadInTime, H11Protocol):
    """Closes connections whose header or reading takes longer than `seconds`, and those beyond `most_connections`.

    uvicorn limits how long a connection may be idle after an answer, and nothing else.
    """

    most_connections = 512
    _timer: asyncio.TimerHandle | None = None  # of the header

    def connection_made(self, transport: Any) -> None:
        """Start to wait for a header."""
        super().connection_made(transport)
        if len(self.connections) > self.most_connections:
            transport.abort()
            return
        self._wait_for_header()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Stop waiting once a header is complete."""
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._stop_waiting()

    def handle_websocket_upgrade(self, event: Any) -> None:
        """Leave the connection to another protocol, with time-outs of its own, unless answers wait to be read."""
        self._stop_waiting()
        if self._write_timer is not None:
            self.transport.abort()
            return
        super().handle_websocket_upgrade(event)

    def on_response_complete(self) -> None:
        """Wait for the header of the next request."""
        before = self.cycle
        super().on_response_complete()
        if self.cycle is before and not self.transport.is_closing():
            self._wait_for_header()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP with a problem, as all other errors."""
        content = json.dumps(Problem(400, msg).describe()).encode()
        headers = [("content-type", MEDIA_TYPE), ("content-length", str(len(content))), ("connection", "close")]
        answer = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
        with suppress(h11.LocalProtocolError):  # an answer is on its way already
            for event in (answer, h11.Data(data=content), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        if (
            self.cycle is not None and not self.cycle.response_complete
        ):  # the fault is in a body, which nobody awaits now
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()

    def _wait_for_header(self) -> None:
        self._stop_waiting()
        self._timer = self.loop.call_later(self.seconds, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def make_protocols(seconds: float, most_connections: int) -> tuple[type[GuardedProtocol], type[GuardedWebSocket]]:
    """Return the protocols of HTTP and WebSocket with these limits."""
    http = type("Protocol", (GuardedProtocol,), {"seconds": seconds, "most_connections": most_connections})
    return http, type("WebSocket", (GuardedWebSocket,), {"seconds": seconds})
