"""Small files that claim or unpack to much: refused by their headers or passed over, in little memory and time."""

from __future__ import annotations

import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path

from image_samples import SAMPLES, make_bmp, make_chunk, make_png

ZEROS = zlib.compress(bytes(1 << 28), 1)
ROWS = bytes(48 * 49)  # of a gray PNG of 48x48, with their filters
MIB = 1 << 20
# Reads each file and prints its shape or error, then by how many KiB the memory rose in all.
READ_ALL = """
import resource, sys
from pathlib import Path
from edgeemo import images
from edgeemo.errors import DataError
images.read(Path(sys.argv[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in map(Path, sys.argv[2:]):
    try:
        print(path.name, images.read(path).shape)
    except DataError as error:
        print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def write(folder: Path, files: dict[str, bytes]) -> list[Path]:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in files]


def read_in_child(folder: Path, paths: list[Path]) -> tuple[list[str], int]:
    """Return what the child printed of each file, and by how many bytes its memory rose."""
    first = folder / "first"
    first.write_bytes(SAMPLES["png"])
    command = [sys.executable, "-c", READ_ALL, str(first), *map(str, paths)]
    limit = 3 << 30  # of address space, so that a bomb fails here instead of filling the machine
    child = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    *lines, rise = child.stdout.splitlines()
    return lines, int(rise) * 1024


def jpeg_of(width, height):
    data = SAMPLES["jpeg"]
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def webp_of(width, height):
    canvas = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    data = b"VP8X" + struct.pack("<I", 10) + bytes(4) + canvas + SAMPLES["webp"][12:]
    return b"RIFF" + struct.pack("<I", len(data) + 4) + b"WEBP" + data


def test_pictures_too_large_are_refused_by_their_headers_in_50_mb(tmp_path):
    """The traps' limit: nothing is allocated before the header is looked at."""
    lossless = SAMPLES["webp-lossless"]
    files = {
        "square.png": make_png(ROWS, (50_000, 50_000)),
        "line.png": make_png(ROWS, (1, 2**31 - 1)),
        "above.png": make_png(ROWS, (9281, 6944)),
        "square.jpg": jpeg_of(50_000, 50_000),
        "largest.jpg": jpeg_of(65_535, 65_535),
        "line.jpg": jpeg_of(1, 65_535),
        "canvas.webp": webp_of(1 << 24, 255),
        "lossless.webp": lossless[:21] + struct.pack("<I", 0x0FFFFFFF) + lossless[25:],
        "square.bmp": make_bmp(b"", (50_000, 50_000), 24),
        "line.bmp": make_bmp(b"", (2**31 - 1, -1), 1),
        "rle.bmp": make_bmp(b"\0\1", (50_000, 50_000), 8, compression=1),
    }
    lines, rise = read_in_child(tmp_path, write(tmp_path, files))
    assert len(lines) == len(files)
    assert all(
        "limit is 64,440,320" in line or "at least 16 px" in line or "truncated BMP" in line for line in lines
    ), lines
    assert rise < 50 * MIB


def test_bombs_in_metadata_are_never_unpacked(tmp_path):
    """Text, colour profile and animation are left out before Pillow sees the file; pixels beyond the last row too."""
    text = {
        "zTXt": b"Comment\0\0" + ZEROS,
        "iTXt": b"Comment\0\1\0\0\0" + ZEROS,
        "iCCP": b"profile\0\0" + ZEROS,
        "eXIf": bytes(1 << 23),
        "prVt": bytes(1 << 23),
    }
    files = {
        f"{name}.png": make_png(ROWS, (48, 48), extra=make_chunk(name.encode(), data)) for name, data in text.items()
    }
    files["many.png"] = make_png(ROWS, (48, 48), extra=make_chunk(b"tEXt", b"Comment\0" + bytes(99)) * 20_000)
    header = make_chunk(b"IHDR", struct.pack(">IIBBBBB", 48, 48, 8, 0, 0, 0, 0))
    files["pixels.png"] = b"\x89PNG\r\n\x1a\n" + header + make_chunk(b"IDAT", ZEROS) + make_chunk(b"IEND", b"")
    data = SAMPLES["webp-animated"]
    frame = data[data.index(b"ANMF") :]
    frame = frame[: 8 + struct.unpack_from("<I", frame, 4)[0]]
    frame += bytes(len(frame) % 2)
    files["frames.webp"] = data[:4] + struct.pack("<I", len(data) - 8 + 3000 * len(frame)) + data[8:] + frame * 3000
    palette = make_bmp(bytes(48 * 48), (48, 48), 8, table=bytes(1024))
    files["palette.bmp"] = palette[:46] + struct.pack("<I", 2**32 - 1) + palette[50:]
    lines, rise = read_in_child(tmp_path, write(tmp_path, files))
    assert len(lines) == len(files)
    assert [line for line in lines if not line.split(" ", 1)[1].startswith("(48, 48")] == [lines[-1]]
    assert "BMP" in lines[-1]
    assert rise < 50 * MIB


# 9280x6944 px of one transparent colour, with an EXIF orientation of 6.
LARGEST = bytes.fromhex(
    "524946465200000057454250565038580a000000180000003f24001f1b005650384c110000002f3fe4c7160750b22257a663"
    "8188e87f0000455849461a0000004d4d002a00000008000101120003000000010006000000000000"
)


def test_the_largest_picture_takes_as_much_memory_as_documented(tmp_path):
    """Of what was measured, a lossless WebP with alpha that is turned takes the most; this one has 90 bytes."""
    lines, rise = read_in_child(tmp_path, write(tmp_path, {"largest.webp": LARGEST}))
    assert lines == ["largest.webp (9280, 6944, 3)"]
    assert rise < 1.7 * (1 << 30)


def test_more_bytes_than_an_uncompressed_picture_has_are_not_read(tmp_path):
    """A sparse file of a terabyte costs nothing."""
    with (tmp_path / "sparse.bmp").open("wb") as file:
        file.write(make_bmp(b"", (9280, 6944), 32))
        file.truncate(1 << 40)
    lines, rise = read_in_child(tmp_path, [tmp_path / "sparse.bmp"])
    assert "larger than 258,809,856 bytes, the limit" in lines[0]
    assert rise < 50 * MIB
