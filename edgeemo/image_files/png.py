"""PNG: a chunk has a checksum, so every changed byte is found; Pillow itself fills missing rows with black."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress

from PIL import Image

from edgeemo.errors import DataError
from edgeemo.names import escape_name

SIGNATURE = b"\x89PNG\r\n\x1a\n"
KEPT = (b"IHDR", b"PLTE", b"tRNS", b"sBIT", b"IDAT", b"IEND")
ANCILLARY = (b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"tIME", b"pHYs", b"hIST", b"sPLT", b"bKGD", b"acTL", b"fcTL", b"fdAT")
METADATA = (*ANCILLARY, b"iCCP", b"gAMA", b"cHRM", b"sRGB", b"cICP")
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
# Adam7: first column and row of each pass, and its steps in both.
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
MAX_EXIF = 1 << 16  # bytes, as in a JPEG


def strip(content: bytes) -> bytes:
    """Keep header, palette, transparency, significant bits, pixels and EXIF; text, colour profile and animation go.

    Raises DataError for a chunk that is cut or whose checksum is wrong, for an unknown chunk that pixels depend on, and
    for a missing palette or IEND. A damaged chunk of well-known metadata is left out.
    """
    kept: list[bytes] = [SIGNATURE]
    names: list[bytes] = []
    for name, start, end in _walk(content):
        data = memoryview(content)[start + 8 : end - 4]
        whole = zlib.crc32(data, zlib.crc32(name)) == int.from_bytes(content[end - 4 : end], "big")
        if not whole and name not in METADATA:  # its name may be what is wrong
            raise DataError(f"damaged PNG: the checksum of its chunk {escape_name(os.fsdecode(name))} is wrong")
        if not names and (name != b"IHDR" or len(data) != 13):
            raise DataError("damaged PNG: it does not begin with a header")
        if name not in KEPT and not name[0] & 0x20:
            raise DataError(f"PNG with an unknown critical chunk, {escape_name(os.fsdecode(name))}")
        if name in KEPT or (name == b"eXIf" and whole and len(data) <= MAX_EXIF):
            kept.append(content[start:end])
            names.append(name)
    if names[-1:] != [b"IEND"]:
        raise DataError("truncated PNG: its last chunk, IEND, is missing")
    if names.count(b"IHDR") > 1 or b"IDAT" not in names or (content[25] == 3 and b"PLTE" not in names):
        raise DataError("damaged PNG: expected one header, pixels, and a palette if they need one")
    return b"".join(kept)


def get_size(data: bytes) -> tuple[int, int]:
    """Return width and height in pixels."""
    return struct.unpack_from(">II", data, 16)


def check(data: bytes, _: Image.Image) -> None:
    """Raise DataError if there are fewer rows in the file than in its header."""
    needed = _compute_size(data)
    unpacker = zlib.decompressobj()
    for name, start, end in _walk(data):
        piece = data[start + 8 : end - 4] if name == b"IDAT" else b""
        while piece and needed > 0 and not unpacker.eof:
            needed -= len(unpacker.decompress(piece, 1 << 20))
            piece = unpacker.unconsumed_tail
    with suppress(zlib.error):
        needed -= len(unpacker.flush()) if needed > 0 else 0
    if needed > 0:
        raise DataError(f"truncated PNG: {needed:,} bytes of its pixels are missing")


def get_depth(data: bytes) -> tuple[int, int]:
    """Return bits per sample as stored, and as in the original: the smallest number of the sBIT chunk, or the same."""
    depth = data[24]
    significant = [min(data[start + 8 : end - 4], default=0) for name, start, end in _walk(data) if name == b"sBIT"]
    return depth, significant[0] if significant and 0 < significant[0] <= depth else depth


def _walk(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Return name, start and end of each chunk, length and checksum included, up to the end of the image."""
    start, name = len(SIGNATURE), b""
    while name != b"IEND" and start + 12 <= len(content):
        length, name = struct.unpack_from(">I4s", content, start)
        if start + 12 + length > len(content):
            raise DataError(f"truncated PNG: it ends within its chunk {escape_name(os.fsdecode(name))}")
        yield name, start, start + 12 + length
        start += 12 + length


def _compute_size(data: bytes) -> int:
    """Return the bytes of all rows, each with its filter, before compression."""
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    bits = depth * CHANNELS[colour]
    sizes = [(width, height)]
    if interlaced:
        sizes = [((width - x + dx - 1) // dx, (height - y + dy - 1) // dy) for x, y, dx, dy in PASSES]
    return sum(rows * (1 + (columns * bits + 7) // 8) for columns, rows in sizes if columns > 0 and rows > 0)
