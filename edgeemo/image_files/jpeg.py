"""JPEG: libjpeg fills what is missing in a scan with gray, and only warns; Pillow does not pass its warnings on.

A scan is whole if its picture depends neither on the bytes after it nor on codes that its Huffman tables lack. So the
file is decoded a second time, with other bytes after each scan and each restart interval and with codes added to the
tables: where data are missing or damaged, the two decoded images differ. In a baseline file of one scan it is also seen
whether the decoder was done before the end of the data.

Not found: damage after which a scan needs exactly as many bytes as it has, bytes left over in progressive scans and in
restart intervals but the last, and what is missing in arithmetic coding, where an encoder may leave out zeros at the
end.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from math import ceil

from PIL import Image

from edgeemo.errors import DataError

EOI, SOS, DHT, DRI, EXIF, JFIF, ADOBE = 0xD9, 0xDA, 0xC4, 0xDD, 0xE1, 0xE0, 0xEE

RESTARTS = range(0xD0, 0xD8)
BASELINE, PROGRESSIVE, ARITHMETIC = (0xC0, 0xC1), (0xC2, 0xCA), (0xC9, 0xCA)
REFUSED = {0xC3: "lossless", 0xF7: "JPEG-LS"} | dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "hierarchical")
FRAMES = {*BASELINE, *PROGRESSIVE, *ARITHMETIC, *REFUSED, 0xCB}
TABLES = {DHT, 0xCC, 0xDB, DRI}  # Huffman, arithmetic, quantization, restart interval
MARKER = re.compile(rb"\xff([\x01-\xfe])")
FILLER = bytes(range(0xFE, 0x5E, -5))  # 32 bytes that begin with ones, since libjpeg puts zeros for what is missing
MAX_UNUSED = 8  # bytes at the end of a scan; some cameras leave a few
MAX_SCANS = 100  # libtiff's limit; encoders write about ten, and each takes as long as the whole picture
MAX_SEGMENTS = 10_000  # markers outside scans; a million of them, in 4 MB, took 14 s


@dataclass(frozen=True)
class Segment:
    """A marker with its parameters, or a scan with its entropy-coded data, in content[start:end]."""

    marker: int
    start: int
    body: int  # after marker and length
    data: int  # SOS: where the entropy-coded data begin
    end: int


@dataclass(frozen=True)
class Scan:
    """A scan header: components, first and last coefficient, and how many low bits of them are left to later scans."""

    components: bytes
    first: int
    last: int
    bits: int


@dataclass(frozen=True)
class Frame:
    """A frame header."""

    marker: int
    width: int
    height: int
    sampling: dict[int, tuple[int, int]]  # by component: blocks per MCU, horizontally and vertically

    def count_mcus(self, components: bytes) -> int:
        """Return how many MCUs a scan of these components has: of one block each if it is a single one."""
        across = max(x for x, _ in self.sampling.values())
        down = max(y for _, y in self.sampling.values())
        if len(components) > 1:
            return ceil(self.width / (8 * across)) * ceil(self.height / (8 * down))
        x, y = self.sampling.get(components[0], (1, 1))
        return ceil(ceil(self.width * x / across) / 8) * ceil(ceil(self.height * y / down) / 8)


def strip(content: bytes) -> bytes:
    """Keep tables, frame, scans, JFIF, Adobe's colour transform and the first EXIF, up to the end marker.

    Raises DataError for a cut file, restart markers that are missing or out of order, missing scans, more than 100
    scans or 10,000 segments, more or less than 8 bits per sample, and the lossless and hierarchical modes.
    """
    kept, frame, scans, interval, has_exif = [content[:2]], None, [], 0, False
    for segment in _walk(content):
        marker, body = segment.marker, content[segment.body : segment.data]
        if marker in FRAMES:
            frame = _read_frame(marker, body)
        if marker == DRI:
            interval = int.from_bytes(body[:2], "big")
        if marker == SOS and frame:
            scans.append(_read_scan(body))
            _check_restarts(content, segment, interval, frame.count_mcus(scans[-1].components))
        is_exif = marker == EXIF and body.startswith(b"Exif\0\0") and not has_exif
        has_exif |= is_exif
        is_colour = (marker, body[:5]) in ((JFIF, b"JFIF\0"), (ADOBE, b"Adobe"))
        if marker in {*FRAMES, *TABLES, SOS, EOI} or is_colour or is_exif:
            kept.append(content[segment.start : segment.end])
    if frame is None:
        raise DataError("damaged JPEG: it has no frame header")
    _check_scans(frame, scans)
    return b"".join(kept)


def get_size(data: bytes) -> tuple[int, int]:
    """Return width and height in pixels."""
    frame = next(segment for segment in _walk(data) if segment.marker in FRAMES)
    height, width = struct.unpack_from(">HH", data, frame.body + 1)
    return width, height


def check(data: bytes, image: Image.Image) -> None:
    """Raise DataError if the pixels of `image` depend on bytes after a scan, or a baseline scan has bytes left over."""
    segments = list(_walk(data))
    frame = next(segment.marker for segment in segments if segment.marker in FRAMES)
    if frame in ARITHMETIC:
        return
    scans = [segment for segment in segments if segment.marker == SOS]
    padded, last = _pad(data, segments)
    single = frame in BASELINE and len(scans) == 1 and scans[0].end - scans[0].data > MAX_UNUSED
    stream = _Stream(padded, last - MAX_UNUSED if single else len(padded))
    with Image.open(stream, formats=("JPEG",)) as other:
        other.load()
        if not _is_same(image, other):
            raise DataError("truncated or damaged JPEG: its data end before its pixels do")
    if not stream.past_stop:
        raise DataError("damaged JPEG: its pixels end before its data do")


class _Stream(BytesIO):
    """A file that ends at a position at first, and records whether the decoder read beyond it."""

    def __init__(self, content: bytes, stop: int) -> None:
        super().__init__(content)
        self.stop = stop
        self.past_stop = stop >= len(content)

    def read(self, size: int | None = -1, /) -> bytes:
        left = self.stop - self.tell()
        if left <= 0:
            self.past_stop = True
            return super().read(size)
        return super().read(left if size is None or size < 0 else min(size, left))


def _walk(content: bytes) -> Iterator[Segment]:
    """Return the segments after the start marker, up to and with the end marker, as far as libjpeg reads the file."""
    start, seen = 2, 0
    while found := MARKER.search(content, start):
        seen += 1
        if seen > MAX_SEGMENTS:
            raise DataError(f"JPEG of more than {MAX_SEGMENTS:,} segments, the limit")
        marker, start, body = found[1][0], found.start(), found.end()
        if marker == EOI:
            yield Segment(marker, start, body, body, body)
            return
        if marker in RESTARTS or marker == 0x01:  # without parameters, and without meaning outside a scan
            start = body
            continue
        if marker == 0xD8 or body + 2 > len(content):
            break
        end = body + max(2, int.from_bytes(content[body : body + 2], "big"))
        if end > len(content):
            break
        data = end
        if marker == SOS:
            end = _find_end(content, data)
        yield Segment(marker, start, body + 2, data, end)
        start = end
    raise DataError("truncated JPEG: it ends before its end marker")


def _find_end(content: bytes, start: int) -> int:
    """Return where the entropy-coded data of a scan end: at the next marker that is no restart marker."""
    for found in MARKER.finditer(content, start):
        if found[1][0] not in RESTARTS:
            return found.start()
    return len(content)


def _split(content: bytes, scan: Segment) -> list[bytes]:
    """Return the restart intervals of a scan, each with the marker before it."""
    marks = [found.start() for found in MARKER.finditer(content, scan.data, scan.end)]
    return [content[start:end] for start, end in zip([scan.data, *marks], [*marks, scan.end], strict=True)]


def _check_restarts(content: bytes, scan: Segment, interval: int, mcus: int) -> None:
    restarts = [piece[1] for piece in _split(content, scan)[1:]]
    expected = [RESTARTS[k % 8] for k in range(ceil(mcus / interval) - 1)] if interval else []
    if restarts != expected:
        raise DataError("damaged JPEG: its restart markers are missing or out of order")


def _pad(data: bytes, segments: list[Segment]) -> tuple[bytes, int]:
    """Return the file with FILLER after every restart interval and scan and with every code in its Huffman tables.

    Also returns where the last scan's own data end.
    """
    parts, last, size = [data[:2]], 0, 2
    for segment in segments:
        pieces = [data[segment.start : segment.data]]
        if segment.marker == DHT:
            pieces = [_add_codes(data[segment.body : segment.end])]
        if segment.marker == SOS:
            # An FF at the end is no data, but a fill byte of the marker.
            intervals = [interval.rstrip(b"\xff") for interval in _split(data, segment)]
            pieces += [piece for interval in intervals for piece in (interval, FILLER)]
        size += sum(map(len, pieces))
        last = size - len(FILLER) if segment.marker == SOS else last
        parts += pieces
    return b"".join(parts), last


def _add_codes(tables: bytes) -> bytes:
    """Return a DHT segment with codes for bit sequences that are none in its Huffman tables, except 16 ones.

    libjpeg takes a sequence that is no code for symbol 0; the codes added have another symbol.
    """
    done = b""
    while tables:
        counts, total = list(tables[1:17]), sum(tables[1:17])
        symbols, tables, head = tables[17 : 17 + total], tables[17 + total :], tables[:1]
        longest = max((k for k in range(16) if counts[k]), default=-1)
        free = (1 << longest + 1) - sum(count << (longest - k) for k, count in enumerate(counts[: longest + 1]))
        if free == 1 and total + 15 - longest <= 256:
            for k in range(longest + 1, 16):
                counts[k] = 1
            symbols += bytes([1]) * (15 - longest)
        done += head + bytes(counts) + symbols
    return b"\xff\xc4" + struct.pack(">H", len(done) + 2) + done


def _read_frame(marker: int, body: bytes) -> Frame:
    if marker in REFUSED:
        raise DataError(f"JPEG in {REFUSED[marker]} mode; expected a baseline or progressive one")
    if len(body) < 9 or len(body) != 6 + 3 * body[5]:
        raise DataError("damaged JPEG: its frame header has another length than expected")
    if body[0] != 8:
        raise DataError(f"JPEG of {body[0]} bits per sample; expected 8")
    height, width = struct.unpack_from(">HH", body, 1)
    sampling = {body[k]: (body[k + 1] >> 4, body[k + 1] & 15) for k in range(6, len(body), 3)}
    if not all(1 <= factor <= 4 for factors in sampling.values() for factor in factors):
        raise DataError("damaged JPEG: expected sampling factors from 1 to 4")
    return Frame(marker, width, height, sampling)


def _read_scan(body: bytes) -> Scan:
    if not body or not body[0] or len(body) != 4 + 2 * body[0]:
        raise DataError("damaged JPEG: the header of a scan has another length than expected")
    first, last, bits = body[-3:]
    return Scan(body[1:-3:2], first, last, bits & 15)


def _check_scans(frame: Frame, scans: list[Scan]) -> None:
    """Raise DataError if scans are missing: of a component, or of the bits of a progressive file's coefficients."""
    if len(scans) > MAX_SCANS:
        raise DataError(f"JPEG of {len(scans)} scans; the limit is {MAX_SCANS}")
    missing = {component: [True] * 64 for component in frame.sampling}
    for scan in scans:
        first, last, missed = scan.first, scan.last, scan.bits > 0
        if frame.marker not in PROGRESSIVE:
            first, last, missed = 0, 63, False
        for component in scan.components:
            if component in missing:
                missing[component][first : last + 1] = [missed] * (last + 1 - first)
    if any(map(any, missing.values())):
        raise DataError("truncated JPEG: some of its scans are missing")


def _is_same(one: Image.Image, other: Image.Image) -> bool:
    """Return whether two images have the same pixels, compared in strips to need little memory."""
    strips = [(0, top, one.width, min(top + 256, one.height)) for top in range(0, one.height, 256)]
    return one.mode == other.mode and all(one.crop(strip).tobytes() == other.crop(strip).tobytes() for strip in strips)
