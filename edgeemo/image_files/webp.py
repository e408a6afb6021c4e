"""WebP: libwebp refuses missing data itself; what is left is the container around it."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

from PIL import Image

from edgeemo.errors import DataError
from edgeemo.names import escape_name

KEPT = (b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF", b"EXIF")
PIXELS = (b"VP8 ", b"VP8L", b"ANMF")
COLOUR_PROFILE, XMP = 0x20, 0x04  # bits of the extended header
MAX_EXIF = 1 << 16  # bytes, as in a JPEG


def strip(content: bytes) -> bytes:
    """Keep extended header, alpha, EXIF and the first frame; colour profile, XMP and what follows the file go.

    Raises DataError for a file that is shorter than its header or one of its chunks says.
    """
    end = 8 + int.from_bytes(content[4:8], "little")
    if end > len(content):
        raise DataError(f"truncated WebP: {len(content):,} bytes; its header says {end:,}")
    kept, names = [], []
    for name, data in _walk(content[12:end]):
        if name == b"VP8X" and len(data) >= 10:
            kept.append(_pack(name, bytes((data[0] & ~(COLOUR_PROFILE | XMP) & 0xFF,)) + data[1:10]))
        repeated = name in names
        if name in KEPT and not repeated and (name != b"EXIF" or len(data) <= MAX_EXIF):
            kept.append(_pack(name, data))
            names.append(name)
    if sum(names.count(name) for name in PIXELS) != 1:
        raise DataError("damaged WebP: expected one image or an animation")
    return b"RIFF" + _pack(b"WEBP", b"".join(kept), header=4)


def get_size(data: bytes) -> tuple[int, int]:
    """Return width and height in pixels; of the canvas, if there is an extended header."""
    name = data[12:16]
    if name == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if name == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", data, 26) if len(data) >= 30 else (0, 0)
    return width & 0x3FFF, height & 0x3FFF


def check(data: bytes, image: Image.Image) -> None:
    """Nothing: libwebp has refused what is missing."""


def _walk(chunks: bytes) -> Iterator[tuple[bytes, bytes]]:
    start = 0
    while start + 8 <= len(chunks):
        name, size = struct.unpack_from("<4sI", chunks, start)
        if start + 8 + size > len(chunks):
            raise DataError(f"truncated WebP: it ends within its chunk {escape_name(os.fsdecode(name))}")
        yield name, chunks[start + 8 : start + 8 + size]
        start += 8 + size + size % 2


def _pack(name: bytes, data: bytes, *, header: int = 0) -> bytes:
    """Return a chunk; with `header` bytes, those of its name are counted too, as those of the file are."""
    size = struct.pack("<I", len(data) + header)
    return size + name + data if header else name + size + data + bytes(len(data) % 2)
