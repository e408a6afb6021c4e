"""BMP: nothing but rows after a header; Pillow reads them from wherever the header says."""

from __future__ import annotations

import struct

from PIL import Image

from edgeemo.errors import DataError

HEADERS = (12, 40, 52, 56, 64, 108, 124)  # by size: OS/2 1, Windows 3, 4 and 5 with their variants, OS/2 2
RLE = (1, 2)  # 8 and 4 bits per pixel; Pillow itself refuses those that do not fill the picture
BITFIELDS = 3


def strip(content: bytes) -> bytes:
    """Return the file as it is. Raises DataError if it is shorter than its header says, or its rows overlap that."""
    if len(content) < 26:
        raise DataError("truncated BMP: it ends within its header")
    header = int.from_bytes(content[14:18], "little")
    if header not in HEADERS:
        raise DataError(
            f"damaged or unknown BMP: a header of {header:,} bytes; expected {', '.join(map(str, HEADERS))}"
        )
    if len(content) < 14 + header:
        raise DataError("truncated BMP: it ends within its header")
    width, height = get_size(content)
    bits = int.from_bytes(content[24:26] if header == 12 else content[28:30], "little")
    compression, size, colours = (0, 0, 0) if header == 12 else struct.unpack_from("<II8xI", content, 30)
    table = (colours or 1 << bits) * (3 if header == 12 else 4) if bits <= 8 else 0
    masks = 12 if compression == BITFIELDS and header == 40 else 0
    rows = int.from_bytes(content[10:14], "little") or 14 + header + table + masks
    if rows < 14 + header + masks:
        raise DataError("damaged BMP: its rows begin within its header")
    end = rows + (size if compression in RLE else height * ((width * bits + 31) // 32 * 4))
    if end > len(content):
        raise DataError(f"truncated BMP: {len(content):,} bytes; its header says {end:,}")
    return content


def get_size(data: bytes) -> tuple[int, int]:
    """Return width and height in pixels."""
    if data[14] == 12:
        return struct.unpack_from("<HH", data, 18)
    width, height = struct.unpack_from("<Ii", data, 18)
    return width, abs(height)


def check(data: bytes, image: Image.Image) -> None:
    """Nothing: `strip` has counted the rows."""
