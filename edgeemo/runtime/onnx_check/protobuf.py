"""Read protobuf messages by a schema, without the protobuf package and without copying what is large.

Stricter than protobuf's own parsers, which skip unknown fields, keep the last of several values, and merge repeated
messages: a file that two parsers could read differently is refused.
Encoding: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from dataclasses import dataclass
from mmap import mmap
from typing import Any

import numpy as np

VARINT, DELIMITED, FIXED32 = 0, 2, 5  # wire types; 3 and 4, groups, are not in ONNX
FIXED_BYTES = {1: 8, FIXED32: 4}  # of the wire types of fixed size
MAX_VARINT_BYTES = 10
MAX_TEXT_BYTES = 4096  # of a name
CHUNK_BYTES = 1 << 20

# Kinds of fields: INT an int, FLOAT its place, TEXT a str, SPAN the place (start, end) of bytes that are not read. A
# dict is the schema of a message.
INT, FLOAT, TEXT, SPAN = "int", "float", "text", "span"
WIRE_TYPES = {INT: VARINT, FLOAT: FIXED32, TEXT: DELIMITED, SPAN: DELIMITED}  # of a single value
Span = tuple[int, int]


@dataclass(frozen=True)
class Field:
    """A field of a message: `refused`, if given, is why no file may have it."""

    name: str
    kind: Any = SPAN
    repeated: bool = False
    refused: str = ""

    @property
    def title(self) -> str:
        """The name in words."""
        return self.name.replace("_", " ")


Schema = dict[int, Field]


class Reader:
    """Reads messages from `data`, with a limit on the number of fields, because each takes about a microsecond."""

    def __init__(self, data: mmap | bytes, *, max_fields: int) -> None:
        """Raises nothing; `read` raises ValueError for what is not a message of its schema."""
        self._data = data
        self._left = max_fields

    def read(self, schema: Schema, start: int, end: int, *, what: str) -> dict[str, Any]:
        """Read the message in data[start:end]; return its fields by name, repeated ones as lists.

        what: the message, for the error. Raises ValueError for a truncated or overlong value, a field that the schema
        does not have or has with another type, and a second value of a field that is not repeated.
        """
        found: dict[str, Any] = {}
        data, at = self._data, start
        while at < end:
            self._count(what)
            tag, at = (data[at], at + 1) if data[at] < 0x80 else self._read_varint(at, end, what)
            content, at = self._read_content(tag, at, end, what)
            field = schema.get(tag >> 3)
            if field is None:
                raise ValueError(f"{what} has a field {tag >> 3} that edgeemo does not know")
            if field.refused:
                raise ValueError(f"{what} {field.refused}")
            if field.repeated:
                values = found.setdefault(field.name, [])
                if tag & 7 == DELIMITED and field.kind == INT:
                    values.extend(self.read_ints(content, what))
                else:
                    values.append(self._decode(field, tag & 7, content, what))
            elif field.name in found:
                raise ValueError(f"{what} has more than one {field.name}")
            else:
                found[field.name] = self._decode(field, tag & 7, content, what)
        return found

    def bytes_of(self, span: Span) -> bytes:
        """Return a copy of the bytes of a SPAN."""
        return bytes(self._data[span[0] : span[1]])

    def read_ints(self, span: Span, what: str) -> list[int]:
        """Return the packed varints of a SPAN, as int64; ValueError if they do not end with it."""
        at, values = span[0], []
        while at < span[1]:
            self._count(what)
            value, at = self._read_varint(at, span[1], what)
            values.append(_to_signed(value))
        return values

    def count_varints(self, span: Span, what: str) -> int:
        """Return the number of packed varints of a SPAN, of any length; ValueError if the last one does not end."""
        if self._data[span[1] - 1] >= 0x80:
            raise ValueError(f"{what} is truncated: its last number does not end")
        starts = range(span[0], span[1], CHUNK_BYTES)
        chunks = (self.bytes_of((start, min(start + CHUNK_BYTES, span[1]))) for start in starts)
        return sum(int(np.count_nonzero(np.frombuffer(chunk, np.uint8) < 0x80)) for chunk in chunks)

    def _read_content(self, tag: int, at: int, end: int, what: str) -> tuple[Any, int]:
        """Return the content of a field, the number of a VARINT or the Span of any other, and where it ends."""
        wire_type = tag & 7
        if wire_type == VARINT:
            return self._read_varint(at, end, what)
        if wire_type == DELIMITED:
            size, at = self._read_varint(at, end, what)
        elif wire_type in FIXED_BYTES:
            size = FIXED_BYTES[wire_type]
        else:
            raise ValueError(f"{what} has a field {tag >> 3} of the unknown wire type {wire_type}")
        if at + size > end:
            raise ValueError(f"{what} is truncated: its field {tag >> 3} ends at byte {at + size:,}, {what} at {end:,}")
        return (at, at + size), at + size

    def _decode(self, field: Field, wire_type: int, content: Any, what: str) -> Any:
        """Return the value of a field that is not a packed INT."""
        kind = field.kind
        if wire_type != WIRE_TYPES.get(kind if type(kind) is str else SPAN) and not (
            field.repeated and kind == FLOAT and wire_type == DELIMITED
        ):
            raise ValueError(f"{what} has its {field.name} in another type, wire type {wire_type}")
        if kind == TEXT:
            return self._read_text(content, field.name, what)
        if kind == INT:
            return _to_signed(content)
        return self.read(kind, *content, what=field.title) if isinstance(kind, dict) else content

    def _read_text(self, place: Span, name: str, what: str) -> str:
        if place[1] - place[0] > MAX_TEXT_BYTES:
            raise ValueError(
                f"the {name} of {what} has {place[1] - place[0]:,} bytes; expected at most {MAX_TEXT_BYTES:,}"
            )
        try:
            return self.bytes_of(place).decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"the {name} of {what} is not UTF-8") from error

    def _read_varint(self, at: int, end: int, what: str) -> tuple[int, int]:
        """Return an unsigned varint and where it ends."""
        if at < end and (byte := self._data[at]) < 0x80:
            return byte, at + 1
        value = 0
        for k in range(MAX_VARINT_BYTES):
            if at + k >= end:
                raise ValueError(f"{what} is truncated: a number at byte {at:,} does not end in it")
            byte = self._data[at + k]
            value |= (byte & 0x7F) << (7 * k)
            if byte < 0x80:
                if value >> 64 or byte == 0:  # too large, or longer than it needs to be
                    break
                return value, at + k + 1
        raise ValueError(f"{what} has an overlong number at byte {at:,}")

    def _count(self, what: str) -> None:
        self._left -= 1
        if self._left < 0:
            raise ValueError(f"{what} is beyond the fields that a model of an edge device has")


def _to_signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
