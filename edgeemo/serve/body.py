"""The content of a request: capped while it arrives, never written to a file, and split into the parts of a form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import anyio
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from edgeemo.serve.problems import Problem

LINGER = 2.0  # seconds for which a body that is too large is read and dropped, so that its sender sees the answer
MOST_PARTS = 256  # of a form
HELD = 16  # times the largest body: what all bodies that arrive may hold together, and all that are in work


@dataclass(eq=False)
class Part:
    """A part of a form: its field, the name of its file, and its content."""

    name: str = ""
    filename: str = ""
    content: bytearray | bytes = field(default_factory=bytearray)


class Bodies:
    """Receives bodies within limits of bytes and time; used by the event loop alone."""

    def __init__(self, max_bytes: int, timeout: float) -> None:
        """max_bytes: of one body. timeout: seconds in which one must arrive."""
        self.max_bytes, self.timeout = max_bytes, timeout
        self.held = 0  # bytes of bodies that are not complete
        self._scopes: set[anyio.CancelScope] = set()
        self._stopping = False

    async def read(self, headers: Mapping[str, str], receive: Receive) -> bytes:
        """Return the body of a request.

        Raises Problem 413 if it is, or says to be, too large; 408 if it takes too long; 415 if it is compressed; 503
        if the bodies of all clients take too much memory, or the server stops; ClientDisconnect if the client leaves.
        """
        if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            raise Problem(415, "a compressed body; send the image as it is, without Content-Encoding")
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length[:20]) > self.max_bytes:
            if "expect" not in headers:  # else the client waits for the answer
                await self._drop(receive)
            raise self._make_size_problem()
        chunks: list[bytes] = []
        try:
            with self._time_limit():
                await self._collect(chunks, receive)
        except TimeoutError:
            close = {"Connection": "close"}
            if self._stopping:
                raise Problem(503, "the server stops", {"Retry-After": "5", **close}) from None
            raise Problem(408, f"the body did not arrive within {self.timeout:g} s", close) from None
        finally:
            self.held -= sum(map(len, chunks))
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def stop(self) -> None:
        """Give bodies that still arrive one more second."""
        self._stopping = True
        for scope in self._scopes:
            scope.deadline = min(scope.deadline, anyio.current_time() + 1)

    @contextmanager
    def _time_limit(self) -> Iterator[None]:
        with anyio.fail_after(1 if self._stopping else self.timeout) as scope:
            self._scopes.add(scope)
            try:
                yield
            finally:
                self._scopes.discard(scope)

    async def _collect(self, chunks: list[bytes], receive: Receive) -> None:
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            if chunk := message.get("body", b""):
                size += len(chunk)
                self.held += len(chunk)
                chunks.append(chunk)
            if size > self.max_bytes:
                self.held -= size
                chunks.clear()
                await self._drop(receive)
                raise self._make_size_problem()
            if not message.get("more_body", False):
                return
            if self.held > HELD * self.max_bytes:
                raise Problem(503, "too many large bodies arrive at once", {"Retry-After": "5", "Connection": "close"})

    async def _drop(self, receive: Receive) -> None:
        with anyio.move_on_after(LINGER):
            for _ in range(4 * self.max_bytes // 65536 + 16):
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return

    def _make_size_problem(self) -> Problem:
        sentence = f"the body is larger than {self.max_bytes:,} bytes, the limit of this server: send a smaller image"
        return Problem(413, sentence, {"Connection": "close"})


def is_form(content_type: str) -> bool:
    """Return whether a body is a form of several parts."""
    return content_type.partition(";")[0].strip().lower() == "multipart/form-data"


def parse_form(body: bytes, content_type: str) -> list[Part]:
    """Return the parts of a form that are files, in order.

    Raises Problem 400 for a form that is not complete, or has too many parts.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not boundary:
        raise Problem(400, "multipart/form-data without a boundary; let the client library write the Content-Type")
    reader = _FormReader()
    try:
        parser = MultipartParser(boundary, reader.make_callbacks())  # type: ignore[arg-type]
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise Problem(400, f"not a form as RFC 7578 defines it: {error}") from error
    if not reader.ended:
        raise Problem(400, "the form ends before its last boundary: it was cut")
    return [part for part in reader.parts if part.filename]


class _FormReader:
    """Collects what the parser finds."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.ended = False
        self._field, self._value = bytearray(), bytearray()

    def make_callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._begin,
            "on_part_data": self._add,
            "on_header_begin": self._begin_header,
            "on_header_field": lambda data, start, end: self._field.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.parts) >= MOST_PARTS:
            raise Problem(413, f"more than {MOST_PARTS} parts in one form; send fewer")
        self.parts.append(Part())

    def _add(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].content += data[start:end]

    def _begin_header(self) -> None:
        self._field, self._value = bytearray(), bytearray()

    def _end_header(self) -> None:
        if bytes(self._field).lower() != b"content-disposition":
            return
        options = parse_options_header(bytes(self._value))[1]
        self.parts[-1].name = options.get(b"name", b"").decode("utf-8", "replace")
        self.parts[-1].filename = options.get(b"filename", b"").decode("utf-8", "replace")

    def _end(self) -> None:
        self.ended = True
