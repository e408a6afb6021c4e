"""Damaged and odd image files: refused, or read as the picture that they hold."""

from __future__ import annotations

import re
import struct
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from image_samples import FACE, GRAY, SAMPLES, encode, filter_rows, make_bmp, make_chunk, make_png, run_length
from PIL import Image, ImageCms

from edgeemo import images
from edgeemo.errors import DataError
from edgeemo.image_files import jpeg

PIXELS = np.asarray(FACE)
END = b"\xff\xd9"
JPEGS = {name: data for name, data in SAMPLES.items() if name.startswith("jpeg")}
HUFFMAN = pytest.mark.parametrize("name", JPEGS)
PATTERN = np.stack([*np.mgrid[:48, :48][::-1] * 5, np.prod(np.mgrid[:48, :48], axis=0) // 9], -1).astype(np.uint8)
FIXTURES = Path(__file__).parent / "fixtures"
ARITHMETIC = (FIXTURES / "arithmetic.jpg").read_bytes()  # cjpeg -arithmetic, of PATTERN
SAMPLING_411 = (FIXTURES / "sampling-411.jpg").read_bytes()  # cjpeg -sample 4x1, of PATTERN


def read_or_none(data: bytes) -> np.ndarray | None:
    try:
        return images.read(data)
    except DataError:
        return None


@pytest.mark.parametrize("name", SAMPLES)
def test_a_file_cut_anywhere_is_refused(name):
    """At every length, the end of its last chunk or marker included."""
    data = SAMPLES[name]
    assert images.read(data).shape[:2] == (48, 48)
    assert [size for size in range(len(data)) if read_or_none(data[:size]) is not None] == []


@HUFFMAN
def test_a_jpeg_that_was_cut_and_closed_again_is_refused(name):
    """Libjpeg fills it with gray. Accepted is only what gives the same pixels: without padding, and without the end."""
    data, expected = JPEGS[name], images.read(JPEGS[name])
    for size in range(2, len(data)):
        pixels = read_or_none(data[:size] + END)
        assert pixels is None or (np.array_equal(pixels, expected) and size >= len(data) - 3)


def close_png(data):
    """The same cut file with a smaller chunk of pixels, a right checksum and an end."""
    start = data.index(b"IDAT")
    return data[: start - 4] + make_chunk(b"IDAT", data[start + 4 :]) + make_chunk(b"IEND", b"")


def close_webp(data):
    """The same cut file with sizes that fit, of the file and of its last chunk of pixels."""
    at = max(data.rfind(name) for name in (b"VP8 ", b"VP8L", b"ANMF"))
    body = data[at + 8 :]
    size = len(data) - 8 + len(body) % 2
    return (
        data[:4]
        + struct.pack("<I", size)
        + data[8 : at + 4]
        + struct.pack("<I", len(body))
        + body
        + bytes(len(body) % 2)
    )


@pytest.mark.parametrize("name", ["png", "png-interlaced", "png-palette", "png-16-bit"])
def test_a_png_that_was_cut_and_closed_again_is_refused(name):
    """Its compressed data end too early. Only the checksum after the compressed data may be missing."""
    data = SAMPLES[name]
    expected, start, end = images.read(data), data.index(b"IDAT"), len(data) - 16
    for size in range(start + 5, end):
        pixels = read_or_none(close_png(data[:size]))
        assert pixels is None or (np.array_equal(pixels, expected) and size >= end - 8)


@pytest.mark.parametrize("name", ["webp", "webp-lossless", "webp-alpha"])
def test_a_webp_that_was_cut_and_closed_again_is_refused(name):
    """Accepted is only what gives the same pixels."""
    data, expected = SAMPLES[name], images.read(SAMPLES[name])
    for size in range(data.rfind(b"VP8") + 10, len(data) - 2):
        pixels = read_or_none(close_webp(data[:size]))
        assert pixels is None or np.array_equal(pixels, expected)


@pytest.mark.parametrize("name", [name for name in SAMPLES if name.startswith("png")])
def test_every_changed_byte_of_a_png_is_refused_or_metadata(name):
    """Each chunk has a checksum."""
    data = SAMPLES[name]
    expected = images.read(data)
    for at in range(0, len(data), 3):
        changed = bytearray(data)
        changed[at] ^= 0x11
        pixels = read_or_none(bytes(changed))
        assert pixels is None or (np.array_equal(pixels, expected) and name == "png-animated")


@HUFFMAN
def test_what_libjpeg_warns_of_in_a_jpeg_is_refused(name, capfd):
    """OpenCV prints its warnings. Bytes left over are seen in a single baseline scan alone, from a dozen or so on."""
    data = JPEGS[name]
    start = data.index(b"\xff\xda") + 14
    single = "restarts" not in name and "progressive" not in name
    warning = re.compile(r"premature|Huffman" + (r"|(\d{3}|[2-9]\d) extraneous" if single else ""))
    noticed = accepted = 0
    for at in range(start, len(data) - 42, 7):
        holed = data[:at] + bytes(40) + data[at + 40 :]
        cv2.imdecode(np.frombuffer(holed, np.uint8), cv2.IMREAD_COLOR)
        if warning.search(capfd.readouterr().err):
            noticed += 1
            accepted += read_or_none(holed) is not None
    assert noticed >= 2
    assert accepted <= noticed // 50


@pytest.mark.parametrize(
    ("name", "share"),
    [
        *(("jpeg", 0.4), ("jpeg-422", 0.4), ("jpeg-444", 0.75), ("jpeg-gray", 0.8), ("jpeg-cmyk", 0.9)),
        *(("jpeg-restarts", 0.8), ("jpeg-progressive", 0.8), ("jpeg-progressive-restarts", 0.9)),
    ],
)
def test_so_many_holes_in_a_jpeg_are_refused(name, share):
    """40 zeros in the scan. The rest ends where it should, so that nobody can tell: JPEG has no checksum."""
    data = JPEGS[name]
    places = range(data.index(b"\xff\xda") + 14, len(data) - 42, 7)
    refused = sum(read_or_none(data[:at] + bytes(40) + data[at + 40 :]) is None for at in places)
    assert refused >= share * len(places), f"{refused} of {len(places)}"


def test_data_left_over_after_a_jpegs_pixels_are_refused():
    """A few bytes are not: some cameras leave them."""
    data = SAMPLES["jpeg"][:-2]
    assert np.array_equal(images.read(data + bytes(range(1, 5)) + END), images.read(data + END))
    with pytest.raises(DataError, match="its pixels end before its data do"):
        images.read(data + bytes(range(1, 40)) + END)


def test_a_code_that_a_jpegs_tables_lack_is_refused(monkeypatch):
    """Libjpeg takes it for the code of 0. Ten ones and zeros after them are such a code, where a code begins there."""
    data = SAMPLES["jpeg-gray"]
    start = data.index(b"\xff\xda") + 10
    changed = [data[:at] + b"\xff\0\xf8" + data[at + 3 :] for at in range(start, len(data) - 8)]
    found = [read_or_none(one) is None for one in changed]
    monkeypatch.setattr(jpeg, "_add_codes", lambda tables: b"\xff\xc4" + struct.pack(">H", len(tables) + 2) + tables)
    without = [read_or_none(one) is None for one in changed]
    assert all(with_ or not old for with_, old in zip(found, without, strict=True))
    assert sum(found) >= sum(without) + 50, (sum(found), sum(without), len(changed))


@pytest.mark.parametrize("lost", [1, 8])
@pytest.mark.parametrize("name", ["jpeg-restarts", "jpeg-progressive-restarts"])
def test_lost_restart_intervals_are_refused(name, lost):
    """Eight of them leave the numbers of the markers in order."""
    data = encode(FACE.resize((192, 192)), "JPEG", restart_marker_blocks=2, progressive="progressive" in name)
    segment = next(segment for segment in jpeg._walk(data) if segment.marker == jpeg.SOS)
    marks = [segment.data + at for at in range(segment.end - segment.data) if data[segment.data + at] == 0xFF]
    marks = [at for at in marks if data[at + 1] in jpeg.RESTARTS]
    with pytest.raises(DataError, match="restart markers"):
        images.read(data[: marks[1]] + data[marks[1 + lost] :])


def test_missing_scans_of_a_progressive_jpeg_are_refused():
    """Libjpeg would show a coarse picture without a warning."""
    data = SAMPLES["jpeg-progressive"]
    scans = [segment.start for segment in jpeg._walk(data) if segment.marker == jpeg.SOS]
    assert len(scans) == 10
    for start in scans[1:]:
        with pytest.raises(DataError, match="scans are missing"):
            images.read(data[:start] + END)


@pytest.mark.parametrize(
    "segment", [b"\xff\xfe\0\2", b"\xff\xdb\0\2", b"\xff\xd0"], ids=["comment", "table", "restart"]
)
def test_a_jpeg_of_endless_segments_is_refused(segment):
    """Each takes little time, and a file has room for millions."""
    data = SAMPLES["jpeg"]
    images.read(data[:2] + segment * 1000 + data[2:])
    with pytest.raises(DataError, match="more than 10,000 segments"):
        images.read(data[:2] + segment * 20_000 + data[2:])


def test_a_jpeg_of_endless_scans_is_refused():
    """Each takes as long as the whole picture."""
    data = SAMPLES["jpeg-progressive"]
    last = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(DataError, match="2010 scans; the limit is 100"):
        images.read(data[:-2] + last * 2000 + END)


def with_app(data, marker, body):
    return data[:2] + struct.pack(">HH", 0xFF00 | marker, len(body) + 2) + body + data[2:]


@HUFFMAN
@pytest.mark.parametrize(
    "kind", ["trailing bytes", "a second picture", "fill bytes", "metadata", "multi-picture index"]
)
def test_what_phones_and_cameras_add_to_a_jpeg_is_no_damage(name, kind):
    """Motion photos and multi-picture files have more after the end; markers may be preceded by FF."""
    data = JPEGS[name]
    odd = {
        "trailing bytes": data + bytes(range(200)),
        "a second picture": data + encode(GRAY, "JPEG"),
        "fill bytes": data[:-2] + b"\xff\xff\xff" + END,
        "metadata": with_app(with_app(data, 0xFE, b"comment"), 0xED, b"Photoshop 3.0\0" + bytes(999)),
        "multi-picture index": with_app(data, 0xE2, b"MPF\0II*\0\x08\0\0\0\xff\xff"),
    }
    assert np.array_equal(images.read(odd[kind]), images.read(data))


@pytest.mark.parametrize("side", [16, 17, 31, 64])
@pytest.mark.parametrize("level", [0, 255, 128])
@pytest.mark.parametrize(
    "options", [{}, {"optimize": True}, {"progressive": True}, {"restart_marker_blocks": 1}], ids=str
)
def test_flat_jpegs_are_read(side, level, options):
    """Their scans have hardly any bytes, in which missing ones might not show."""
    data = encode(Image.new("RGB", (side, side + 3), (level, 255 - level, level)), "JPEG", **options)
    assert images.read(data).shape == (side + 3, side, 3)


def test_noise_at_every_quality_is_read(rng):
    """Nothing in a whole file looks like damage."""
    noise = Image.fromarray(rng.integers(0, 256, (40, 37, 3), dtype=np.uint8))
    for quality in range(1, 101, 3):
        for options in ({}, {"progressive": True}, {"optimize": True, "subsampling": 1}):
            images.read(encode(noise, "JPEG", quality=quality, **options))


def test_arithmetic_jpegs_are_read():
    """Rare, and legal: the pixels of the same picture in Huffman codes."""
    assert np.array_equal(images.read(ARITHMETIC), images.read(encode(Image.fromarray(PATTERN), "JPEG", quality=75)))


def test_an_arithmetic_jpeg_that_was_cut_and_closed_again_is_read():
    """The limit of what is found: its encoder may leave out zeros at the end, and libjpeg puts zeros there."""
    with pytest.raises(DataError, match="truncated JPEG"):
        images.read(ARITHMETIC[:-10])
    assert images.read(ARITHMETIC[:-10] + END).shape == PATTERN.shape


@pytest.mark.parametrize("name", ["webp", "bmp"])
def test_a_hole_in_pixels_without_a_checksum_is_read(name):
    """The limit of what is found: any bytes there are a picture."""
    data = SAMPLES[name]
    at = len(data) - 60
    assert images.read(data[:at] + bytes(20) + data[at + 20 :]).shape == PIXELS.shape


def test_jpegs_with_a_quarter_of_the_colours_are_read():
    """4:1:1, which Pillow does not write: gray is as exact as in 4:2:0."""
    expected = np.asarray(Image.fromarray(PATTERN).convert("L")).astype(int)
    gray = np.asarray(Image.fromarray(images.read(SAMPLING_411)).convert("L"))
    assert abs(gray - expected).mean() < 2
    assert all(read_or_none(SAMPLING_411[:size] + END) is None for size in range(2, len(SAMPLING_411) - 3))


@pytest.mark.parametrize(("marker", "mode"), [(0xC3, "lossless"), (0xC5, "hierarchical"), (0xF7, "JPEG-LS")])
def test_other_jpeg_modes_are_refused_by_name(marker, mode):
    """Also by a decoder that might know them one day."""
    data = SAMPLES["jpeg"].replace(b"\xff\xc0", bytes((0xFF, marker)), 1)
    with pytest.raises(DataError, match=f"JPEG in {mode} mode; expected a baseline or progressive one"):
        images.read(data)


def test_a_jpeg_of_12_bits_is_refused():
    """And said to be one."""
    data = SAMPLES["jpeg"]
    at = data.index(b"\xff\xc0") + 4
    with pytest.raises(DataError, match="12 bits per sample; expected 8"):
        images.read(data[:at] + b"\x0c" + data[at + 1 :])


COLOURS = {"light": (235, 240, 230), "red": (200, 40, 30), "blue": (30, 60, 190), "dark": (20, 25, 15)}


def make_ycck(colour):
    """A JPEG with Adobe's transform 2: C, M, Y as Y, Cb, Cr, and K inverted."""
    inks = tuple(255 - value for value in colour)
    parts = Image.new("RGB", (32, 32), inks).convert("YCbCr").split()
    stored = [*parts, Image.new("L", (32, 32), 255)]
    image = Image.merge("CMYK", [part.point(lambda value: 255 - value) for part in stored])
    data = encode(image, "JPEG", quality=95)
    at = data.index(b"Adobe") + 11
    return data[:at] + b"\2" + data[at + 1 :]


@pytest.mark.parametrize("colour", COLOURS.values(), ids=COLOURS)
@pytest.mark.parametrize("kind", ["CMYK", "YCCK", "RGB", "YCbCr"])
def test_every_colour_space_of_jpeg_gives_its_colours(kind, colour):
    """Adobe stores CMYK inverted: read otherwise, light becomes dark and red becomes cyan."""
    square = Image.new("RGB", (32, 32), colour)
    data = {
        "CMYK": lambda: encode(square.convert("CMYK"), "JPEG", quality=95),
        "YCCK": lambda: make_ycck(colour),
        "RGB": lambda: encode(square, "JPEG", quality=95, keep_rgb=True),
        "YCbCr": lambda: encode(square, "JPEG", quality=95),
    }[kind]()
    assert abs(images.read(data).astype(int) - colour).max() <= 3  # quality 95, and rounding of the colour space


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_colour_profile_is_ignored(kind):
    """The pixels are taken as stored, as in training: here they are sRGB although the profile says Lab."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    options = {"lossless": True} if kind == "WEBP" else {}
    tagged = encode(FACE, kind, icc_profile=profile, **options)
    assert len(tagged) > len(encode(FACE, kind, **options)) + 200
    assert np.array_equal(images.read(tagged), images.read(encode(FACE, kind, **options)))


@pytest.mark.parametrize("name", ["png-animated", "webp-animated"])
def test_of_an_animation_the_first_frame_is_read(name):
    """The others are not even decoded."""
    with Image.open(BytesIO(SAMPLES[name])) as image:
        assert image.n_frames == 3
    assert np.array_equal(images.read(SAMPLES[name]), PIXELS)


def test_a_damaged_second_frame_costs_nothing():
    """It is not read."""
    data = SAMPLES["png-animated"]
    at = data.index(b"fdAT") + 20
    assert np.array_equal(images.read(data[:at] + bytes(8) + data[at + 8 :]), PIXELS)


OTHERS = {
    "GIF": ("a GIF image", lambda: encode(FACE, "GIF")),
    "TIFF": ("a TIFF image", lambda: encode(FACE, "TIFF")),
    "PPM": ("a PPM image", lambda: encode(FACE, "PPM")),
    "AVIF": ("an AVIF image", lambda: b"\0\0\0\x20ftypavif" + bytes(99)),
    "HEIC": ("a HEIC image", lambda: b"\0\0\0\x18ftypheic" + bytes(99)),
    "JPEG 2000": ("a JPEG 2000 image", lambda: b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(99)),
    "JPEG XL": ("a JPEG XL image", lambda: b"\xff\x0a" + bytes(99)),
    "Photoshop": ("a Photoshop image", lambda: b"8BPS" + bytes(99)),
    "SVG": ("a page or an SVG image", lambda: b"<svg></svg>"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_another_image_format_is_refused_by_name_with_what_to_do(kind):
    """Its decoder stays closed."""
    what, make = OTHERS[kind]
    with pytest.raises(DataError, match=rf"{what}; expected PNG, JPEG, WebP or BMP; convert it, .*  magick FILE"):
        images.read(make())


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "an empty file"),
        (b"%PDF-1.7", "a PDF document"),
        (b"\0\0\0\x18ftypmp42", "a video"),
        (b"PK\3\4", "a zip archive"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (bytes(500), "not an image"),
        (b"hello", "not an image"),
    ],
)
def test_what_is_no_image_is_named(content, what):
    """A face's name on something else."""
    with pytest.raises(DataError, match=rf"{what}.*; expected a PNG, JPEG, WebP or BMP image"):
        images.read(content)


def gray_png(values, depth, extra=b""):
    """A gray PNG of (H, W) integers of so many bits."""
    bits = (values[..., None] >> np.arange(depth - 1, -1, -1) & 1).reshape(len(values), -1).astype(np.uint8)
    return make_png(filter_rows(np.packbits(bits, axis=1)), values.shape[::-1], depth=depth, extra=extra)


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_gray_pngs_of_every_depth_reach_from_black_to_white(depth):
    """Each depth's highest value is white."""
    values = np.add.outer(np.zeros(20, int), np.arange(32)) * (2**depth - 1) // 31
    expected = np.round(values * 255 / (2**depth - 1))
    assert abs(images.read(gray_png(values, depth)) - expected).max() == 0


@pytest.mark.parametrize("colour", [4, 2, 6], ids=["gray and alpha", "RGB", "RGBA"])
def test_16_bit_channels_become_8_bit(colour):
    """Of several channels too; opaque ones keep their values."""
    channels = {4: 2, 2: 3, 6: 4}[colour]
    values = np.full((20, 20, channels), 65535, np.uint16)
    values[..., : 3 if colour != 4 else 1] = 200 * 257
    rows = filter_rows(values.astype(">u2").view(np.uint8).reshape(20, -1))
    assert set(images.read(make_png(rows, (20, 20), depth=16, colour=colour)).flat) == {200}


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_a_transparent_colour_becomes_mid_gray(mode):
    """In gray, RGB and palettes."""
    image = Image.new("RGB", (32, 32), (255, 255, 255)).convert(mode)  # both colours are in the palette
    image.paste(Image.new("RGB", (16, 32), (51, 51, 51)).convert(mode), (0, 0))
    colour = image.getpixel((0, 0))
    pixels = images.read(encode(image, "PNG", transparency=colour))
    assert set(pixels[:, :16].flat) == {128}
    assert set(pixels[:, 16:].flat) == {255}


def test_a_gamma_chunk_is_ignored():
    """As are colour profiles."""
    gamma = make_chunk(b"gAMA", struct.pack(">I", 100_000))
    values = np.add.outer(np.arange(32), np.arange(32)) * 4
    assert np.array_equal(images.read(gray_png(values, 8, gamma)), values)


LIST = np.arange(48 * 48).reshape(48, 48) * 37 % 256


@pytest.mark.parametrize("kind", ["bottom-up", "top-down", "alpha", "565", "OS/2", "RLE"])
def test_bmps_of_every_kind_give_the_same_pixels(kind):
    """Header by header."""
    rows = np.ascontiguousarray(PIXELS[::-1, :, ::-1])
    table = b"".join(bytes((k, k, k, 0)) for k in range(256))
    if kind == "bottom-up":
        data, expected = make_bmp(rows.tobytes(), (48, 48), 24), PIXELS
    elif kind == "top-down":
        data, expected = make_bmp(rows[::-1].tobytes(), (48, -48), 24), PIXELS
    elif kind == "alpha":
        whole = np.dstack([rows, np.full((48, 48), 255, np.uint8)])
        masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
        header = struct.pack("<IiiHHIIiiII", 56, 48, 48, 1, 32, 3, whole.size, 0, 0, 0, 0) + masks
        data = b"BM" + struct.pack("<IHHI", 70 + whole.size, 0, 0, 70) + header + whole.tobytes()
        expected = PIXELS
    elif kind == "565":
        packed = (rows[..., 2] >> 3).astype("<u2") << 11 | (rows[..., 1] >> 2).astype("<u2") << 5 | rows[..., 0] >> 3
        masks = struct.pack("<3I", 0xF800, 0x7E0, 0x1F)
        data = make_bmp(packed.astype("<u2").tobytes(), (48, 48), 16, compression=3, table=masks)
        expected = np.round((PIXELS >> (3, 2, 3)) * (255 / np.array([31, 63, 31])))
    elif kind == "OS/2":
        palette = b"".join(bytes((k, k, k)) for k in range(256))
        body = struct.pack("<IHHHH", 12, 48, 48, 1, 8) + palette + LIST[::-1].astype(np.uint8).tobytes()
        data, expected = b"BM" + struct.pack("<IHHI", 14 + len(body), 0, 0, 26 + len(palette)) + body, LIST
    else:
        data, expected = run_length(LIST.astype(np.uint8)), LIST
    assert table
    assert abs(images.read(data).astype(int) - expected).max() <= (1 if kind == "565" else 0)


def edit(data, at, form, value):
    changed = bytearray(data)
    struct.pack_into(form, changed, at, value)
    return bytes(changed)


@pytest.mark.parametrize(
    ("at", "form", "value", "match"),
    [
        (18, "<i", 49, "truncated BMP"),  # wider: longer rows
        (22, "<i", 49, "truncated BMP"),  # one row more
        (22, "<i", -49, "truncated BMP"),
        (10, "<I", 20, "rows begin within its header"),
        (14, "<I", 41, "a header of 41 bytes"),
        (14, "<I", 2**32 - 1, "a header of"),
        (30, "<I", 4, "BMP compression"),
    ],
)
def test_a_bmp_that_contradicts_its_header_is_refused(at, form, value, match):
    """Rather than read from elsewhere."""
    with pytest.raises(DataError, match=match):
        images.read(edit(SAMPLES["bmp"], at, form, value))


@pytest.mark.parametrize("missing", [1, 8, 40])
def test_an_rle_bmp_that_ends_early_is_refused(missing):
    """Rows without data would be black."""
    data = SAMPLES["bmp-rle"][: -2 - 98 * missing] + b"\0\1"
    with pytest.raises(DataError):
        images.read(data)


def test_a_png_with_fewer_rows_than_its_header_says_is_refused():
    """Pillow fills them with black."""
    rows = filter_rows(PIXELS.reshape(48, -1))
    for size in ((48, 49), (48, 400), (49, 48)):
        with pytest.raises(DataError, match=r"truncated PNG|cannot be read"):
            images.read(make_png(rows, size, colour=2))
    assert np.array_equal(images.read(make_png(rows, (48, 48), colour=2)), PIXELS)


@pytest.mark.parametrize(("old", "new"), [(b"PLTE", b"pLTE"), (b"PLTE", b"\xe9LTg"), (b"tRNS", b"tSNS")])
@pytest.mark.parametrize("is_whole", [True, False])
def test_a_png_whose_palette_or_transparency_got_another_name_is_refused(old, new, is_whole):
    """It would be passed over as unknown metadata, and other colours read; with a right checksum, only tSNS may be."""
    data = encode(FACE.quantize(32), "PNG", transparency=3)
    at = data.index(old)
    size = int.from_bytes(data[at - 4 : at], "big")
    renamed = make_chunk(new, data[at + 4 : at + 4 + size])
    if not is_whole:
        renamed = renamed[:-4] + data[at + 4 + size : at + 8 + size]
    changed = data[: at - 4] + renamed + data[at + 8 + size :]
    if is_whole and new == b"tSNS":
        assert images.read(changed).shape == PIXELS.shape
        return
    with pytest.raises(DataError, match="damaged PNG"):
        images.read(changed)


def test_an_unknown_critical_chunk_of_a_png_is_refused():
    """Apple's CgBI changes what the pixels mean."""
    data = SAMPLES["png"]
    with pytest.raises(DataError, match="unknown critical chunk, CgBI"):
        images.read(data[:33] + make_chunk(b"CgBI", bytes(4)) + data[33:])


def test_metadata_of_a_png_with_a_wrong_checksum_costs_no_pixels():
    """Only text is lost."""
    data = SAMPLES["png"]
    text = bytearray(make_chunk(b"tEXt", b"Comment\0a face"))
    text[-1] ^= 1
    assert np.array_equal(images.read(data[:33] + bytes(text) + data[33:]), PIXELS)


@pytest.mark.parametrize(
    "data", [SAMPLES["webp"][:12] + b"\n\xff\0\x1b\xff\0\0\0", SAMPLES["png"][:37] + b"\n\xff\0\x1b"]
)
def test_the_name_of_a_damaged_chunk_fits_into_a_line(data):
    """It may be any four bytes."""
    data = edit(data, 4, "<I", len(data) - 8) if data.startswith(b"RIFF") else data + b"abcd"
    with pytest.raises(DataError, match=r"chunk .*\\x0a\\xff\\x00\\x1b"):
        images.read(data)


@pytest.mark.parametrize("name", ["webp", "webp-lossless"])
def test_what_follows_a_webp_is_ignored(name):
    """As after a JPEG; a size above the file's is a cut."""
    data = SAMPLES[name]
    assert np.array_equal(images.read(data + b"motion photo"), images.read(data))
    with pytest.raises(DataError, match="truncated WebP"):
        images.read(edit(data, 4, "<I", len(data)))
    with pytest.raises(DataError, match="truncated WebP"):
        images.read(edit(data, 16, "<I", len(data)))
