"""Reading images and the image contract."""

import errno
import os
import socket
import struct
from contextlib import suppress
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from image_samples import filter_rows, make_chunk, make_png
from PIL import Image

from edgeemo import images
from edgeemo.card import InputContract
from edgeemo.errors import DataError

GRAY = InputContract(48)
RGB = InputContract(48, "rgb", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
GRAY3 = InputContract(48, "gray3", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def encoded(image, kind="PNG", **options):
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_contract_shapes(face):
    """Gray gives one channel, rgb three; both square."""
    assert images.to_pixels(face, GRAY).shape == (48, 48)
    assert images.to_pixels(face, RGB).shape == (48, 48, 3)
    assert images.to_input(images.to_pixels(face, GRAY)[None], GRAY).shape == (1, 1, 48, 48)
    assert images.to_input(images.to_pixels(face, RGB)[None], RGB).shape == (1, 3, 48, 48)


def test_colour_does_not_reach_a_net_trained_on_gray_faces(face):
    """gray3: a photo and its gray version give the same three channels, whatever the size."""
    gray = np.asarray(Image.fromarray(face).convert("L"))
    colour, plain = (images.to_pixels(image, GRAY3) for image in (face, gray))
    assert colour.shape == (48, 48, 3)
    assert np.array_equal(colour, plain)
    assert np.array_equal(colour, np.repeat(images.to_pixels(face, GRAY)[..., None], 3, axis=2))
    assert np.array_equal(images.to_input(colour[None], GRAY3), images.to_input(plain[None], GRAY3))


def resized(pixels, size):
    """(side, side) → (side, size): the horizontal pass as InputContract defines it."""
    side = pixels.shape[1]
    reach = max(1, side / size)
    centre = (np.arange(size)[:, None] + 0.5) * side / size
    weights = np.maximum(0, 1 - abs(np.arange(side) + 0.5 - centre) / reach)
    scaled = np.floor(weights / weights.sum(1, keepdims=True) * 2**22 + 0.5).astype(np.int64)
    return np.clip((pixels @ scaled.T + 2**21) >> 22, 0, 255)


@pytest.mark.parametrize("shape", [(61, 50, 3), (200, 331, 3), (24, 31, 3), (48, 53, 3), (901, 777, 3), (17, 16, 3)])
def test_contract_is_what_its_docstring_tells(rng, shape):
    """A host that follows InputContract's five steps computes exactly our pixels."""
    photo = rng.integers(0, 256, shape, dtype=np.uint8)
    side = min(shape[:2])
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    red, green, blue = photo[top : top + side, left : left + side].astype(int).transpose(2, 0, 1)
    gray = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16
    expected = gray if side == 48 else resized(resized(gray, 48).T, 48).T
    got = images.to_pixels(photo, GRAY)
    assert np.array_equal(got, expected)
    channels = images.to_input(images.to_pixels(photo, GRAY3)[None], GRAY3)[0]
    for channel, mean, std in zip(channels, GRAY3.mean, GRAY3.std, strict=True):
        assert channel == pytest.approx((got / 255 - mean) / std, abs=1e-5)  # float32


@pytest.mark.parametrize("contract", [GRAY, RGB, GRAY3], ids=lambda contract: contract.colour)
@pytest.mark.parametrize("shape", [(64, 64), (61, 50, 3), (200, 331, 3)])
def test_a_detectors_box_and_a_ready_crop_meet_one_resize(rng, contract, shape):
    """The box of the central square gives the pixels of the ready crop, to the bit."""
    photo = rng.integers(0, 256, shape, dtype=np.uint8)
    side = min(shape[:2])
    box = ((shape[1] - side) // 2, (shape[0] - side) // 2, side, side)
    found = images.resize(images.crop(photo, box, contract), contract)
    assert np.array_equal(found, images.to_pixels(photo, contract))


@pytest.mark.parametrize(
    ("box", "margin", "left", "top", "side"),
    [
        ((30, 40, 20, 20), 1.0, 30, 40, 20),
        ((30, 40, 20, 30), 1.0, 25, 40, 30),  # a square of the longer side, about the centre
        ((30, 40, 20, 20), 1.5, 25, 35, 30),
        ((30.4, 39.6, 20, 20), 1.0, 30, 40, 20),  # the nearest whole pixel
        ((30.5, 40.5, 20, 20), 1.0, 31, 41, 20),  # halves up, as Math.floor(x + 0.5) in any language
        ((30, 40, 20, 21), 1.0, 30, 40, 21),  # an odd side: the centre is 40 and a half
        ((30, 40, 20, 20), 1.13, 29, 39, 23),
    ],
)
def test_a_box_becomes_a_square_of_whole_pixels(rng, box, margin, left, top, side):
    """As step 1 of InputContract has it, without any resampling."""
    photo = rng.integers(0, 256, (100, 120, 3), dtype=np.uint8)
    found = images.crop(photo, box, replace(GRAY, crop_margin=margin))
    assert np.array_equal(found, photo[top : top + side, left : left + side])


@pytest.mark.parametrize("box", [(-10, 5, 40, 40), (100, 70, 40, 40), (-30, -30, 200, 200), (50, -15, 16, 16)])
def test_edges_are_repeated_around_a_face_at_the_edge(rng, box):
    """The face keeps its place and size in the square; a moved or shrunk square would change them."""
    photo = rng.integers(0, 256, (100, 120, 3), dtype=np.uint8)
    x, y, side, _ = box
    beyond = 200
    padded = np.pad(photo, ((beyond, beyond), (beyond, beyond), (0, 0)), mode="edge")
    expected = padded[y + beyond : y + beyond + side, x + beyond : x + beyond + side]
    assert np.array_equal(images.crop(photo, box, GRAY), expected)


@pytest.mark.parametrize(
    ("box", "says"),
    [
        *((box, "x, y, width, height") for box in ((1, 2, 3), (0, 0, 0, 48), (0, 0, 48, -1), (0, 0, float("nan"), 48))),
        *(
            (box, "lies outside the image")
            for box in ((120, 0, 48, 48), (0, 100, 48, 48), (-48, 0, 48, 48), (0, 1e300, 48, 48))
        ),
        *((box, "expected 16 to 7094") for box in ((0, 0, 15, 15), (-9000, -9000, 20000, 20000), (0, 0, 1e308, 1))),
    ],
)
def test_a_box_without_a_face_in_it_is_refused(box, says):
    """By its numbers, before anything is cut out."""
    with pytest.raises(DataError, match=says):
        images.crop(np.zeros((100, 120), np.uint8), box, GRAY)


def test_only_squares_are_resized(face):
    """Another shape would be squeezed in silence."""
    with pytest.raises(DataError, match="expected a square, got 50x60 px"):
        images.resize(face, GRAY)


def test_normalisation_is_the_cards():
    """Black and white at mean 0.5 and std 0.25 become -2 and 2."""
    pixels = np.stack([np.zeros((48, 48), np.uint8), np.full((48, 48), 255, np.uint8)])
    assert images.to_input(pixels, GRAY)[:, 0, 0, 0] == pytest.approx([-2, 2])


def test_face_of_the_right_size_is_not_touched(rng):
    """No resampling where none is needed."""
    pixels = rng.integers(0, 256, (48, 48), dtype=np.uint8)
    assert np.array_equal(images.to_pixels(pixels, GRAY), pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_does_not_change_the_face(face, orientation):
    """All eight ways a camera can be held show the same upright image."""
    undo = [None, *(Image.Transpose(k) for k in (0, 3, 1, 5, 2, 6, 4))][orientation - 1]
    image = Image.fromarray(face) if undo is None else Image.fromarray(face).transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(images.read(encoded(image, exif=exif)), face)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "I;16"])
def test_picture_modes_read_as_8_bit(mode):
    """A mid-gray square is mid-gray in every mode (1 bit: black or white)."""
    if mode == "I;16":
        data = encoded(Image.fromarray(np.full((32, 32), 128 * 257, np.uint16)))
    else:
        kind = "JPEG" if mode == "CMYK" else "PNG"
        data = encoded(Image.new("L", (32, 32), 128).convert("RGB" if mode == "CMYK" else "L").convert(mode), kind)
    pixels = images.read(data)
    assert pixels.dtype == np.uint8
    assert mode == "1" or abs(int(pixels.mean()) - 128) <= 1


def test_transparent_parts_become_mid_gray():
    """Neither black nor white: what shows through says nothing."""
    assert images.read(encoded(Image.new("RGBA", (32, 32), (255, 0, 0, 0))))[0, 0].tolist() == [128, 128, 128]


@pytest.mark.parametrize("cut", [0, 1, 20, 60, 500])
def test_truncated_picture_is_refused(face, cut):
    """A half-read face is never shown to a model."""
    with pytest.raises(DataError):
        images.read(encoded(Image.fromarray(face))[:cut])


def write_exif(*tags):
    """EXIF with these (tag, type, count, four bytes), whatever they are worth."""
    entries = b"".join(struct.pack("<HHI", *tag[:3]) + tag[3] for tag in sorted(tags))
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


ODD_TAGS = {
    "no orientation": [],
    "resolution as text": [(0x11A, 2, 4, b"72\0\0")],
    "width as text": [(0x100, 2, 4, b"640\0")],
    "positioning as float": [(0x213, 11, 1, struct.pack("<f", 1))],
    "unknown type": [(0x10F, 99, 1, b"abcd")],
    "offset past the end": [(0x10F, 2, 900, struct.pack("<I", 70_000))],
    "GPS that is no folder": [(0x8825, 4, 1, struct.pack("<I", 9_999))],
    "maker's note": [(0x927C, 7, 4, b"\xff\xff\xff\xff")],
}


@pytest.mark.filterwarnings("ignore")  # Pillow's own about the damage
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("odd", ODD_TAGS)
def test_an_odd_tag_costs_neither_pixels_nor_orientation(face, odd, orientation, kind):
    """Only the orientation is read, so no other tag can refuse an image or leave it on its side."""
    stored = Image.fromarray(face if orientation == 1 else np.rot90(face).copy())
    tags = [(0x112, 3, 1, struct.pack("<I", orientation)), *ODD_TAGS[odd]]
    options = {"lossless": True} if kind == "WEBP" else {}
    plain, tagged = (encoded(stored, kind, **options, **more) for more in ({}, {"exif": write_exif(*tags)}))
    expected = images.read(plain)
    assert np.array_equal(images.read(tagged), expected if orientation == 1 else np.rot90(expected, -1))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize(
    "junk",
    [b"Exif\0\0junk", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", write_exif((0x112, 2, 4, b"up\0\0"))],
    ids=["junk", "empty", "offset", "orientation as text"],
)
def test_unreadable_exif_leaves_the_pixels_as_stored(face, junk, kind):
    """The face is whole, only what is said about it is not."""
    image = Image.fromarray(face)
    options = {"lossless": True} if kind == "WEBP" else {}
    assert np.array_equal(
        images.read(encoded(image, kind, exif=junk, **options)), images.read(encoded(image, kind, **options))
    )


@pytest.mark.parametrize("kind", images.FORMATS)
@pytest.mark.filterwarnings("ignore")  # Pillow's own about the damage
def test_flipped_bytes_raise_nothing_but_data_errors(face, rng, kind):
    """75 times one to five wrong bytes, most of them in the headers."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "camera"
    whole = encoded(Image.fromarray(face[:24, :20]), kind, **({} if kind == "BMP" else {"exif": exif}))
    for _ in range(75):
        data = bytearray(whole)
        for _ in range(rng.integers(1, 6)):
            data[rng.integers(min(200, len(data)))] = rng.integers(256)
        with suppress(DataError):
            images.read(bytes(data))


@pytest.mark.parametrize("name", ["", "fear/3.png"])
def test_too_small_a_picture_is_named(tmp_path, name):
    """Among a thousand files, the message says which; a caller's name for it replaces the path."""
    Image.new("L", (8, 48)).save(tmp_path / "small.png")
    with pytest.raises(DataError, match="at least 16") as caught:
        images.read(tmp_path / "small.png", name=name)
    assert str(caught.value).startswith(name or str(tmp_path / "small.png"))
    assert not name or str(tmp_path) not in str(caught.value)


def test_other_formats_are_refused(face):
    """TIFF and the rest of the decoders stay closed."""
    with pytest.raises(DataError, match="PNG, JPEG"):
        images.read(encoded(Image.fromarray(face), "TIFF"))


def test_missing_file_is_named(tmp_path):
    """The message holds the path."""
    with pytest.raises(DataError, match=r"nobody\.png does not exist"):
        images.read(tmp_path / "nobody.png")


def test_picture_bomb_is_refused_by_its_header(monkeypatch):
    """Too many pixels are refused before they are decoded."""
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    with pytest.raises(DataError, match="limit"):
        images.read(encoded(Image.new("L", (32, 32))))


@pytest.mark.parametrize(
    "bad",
    [np.zeros((48, 48), np.float32), np.zeros((48, 48, 4), np.uint8), np.zeros((2, 48, 48, 3), np.uint8)],
)
def test_other_arrays_are_refused(bad):
    """Only 8-bit gray or RGB images are accepted."""
    with pytest.raises(DataError, match="expected"):
        images.to_pixels(bad, GRAY)


def test_too_small_a_face_is_refused():
    """Below 16 px no expression can be seen."""
    with pytest.raises(DataError, match="at least 16"):
        images.to_pixels(np.zeros((8, 48), np.uint8), GRAY)


def gray_16_bit(highest, *, bits=None):
    """A gray ramp from 0 to `highest` as a 16-bit PNG, with an sBIT chunk of so many bits."""
    values = np.add.outer(np.zeros(32, int), np.linspace(0, highest, 64).astype(int))
    data = encoded(Image.fromarray(values.astype(np.uint16)))
    return data[:33] + (make_chunk(b"sBIT", bytes([bits])) if bits else b"") + data[33:]


@pytest.mark.parametrize("highest", [0, 255, 1023, 4095])
def test_a_16_bit_image_of_at_most_12_bit_values_is_refused_with_advice(highest):
    """Cameras store 10 and 12 bits so; as 16-bit values they would be black."""
    with pytest.raises(DataError, match=f"highest value is {highest}: values of 12 bits or less; scale them to 65535"):
        images.read(gray_16_bit(highest))


def test_a_pillow_image_of_32_bit_integers_below_4096_is_refused():
    """8-bit values in a wider type, too."""
    with pytest.raises(DataError, match="highest value is 200: values of 12 bits or less"):
        images.read(Image.fromarray(np.full((32, 32), 200, np.int32)))


def test_a_dark_16_bit_image_is_logged_once(caplog, monkeypatch):
    """It may hold 14-bit values, or be dark."""
    monkeypatch.setattr(images, "_warned", [])
    for name in ("a.png", "b.png"):
        assert images.read(gray_16_bit(16383), name=name).max() == 64
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["a.png"]
    assert "if its values have 14 bits, scale them to 65535" in caplog.text
    assert images.read(gray_16_bit(16384)).max() == 64


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_values_that_an_sbit_chunk_proves_unscaled_are_scaled(bits):
    """PNG wants 12-bit values shifted to 16 bits, with zeros below; others were stored as they were."""
    pixels = images.read(gray_16_bit(2**bits - 1, bits=bits))
    assert np.array_equal(pixels[0], np.round(np.linspace(0, 2**bits - 1, 64).astype(int) * 255 / (2**bits - 1)))


def test_scaled_values_with_an_sbit_chunk_are_taken_as_they_are():
    """A conforming file of 12 bits reaches 65520."""
    values = np.add.outer(np.zeros(32, int), np.arange(0, 4096, 64)) << 4
    data = encoded(Image.fromarray(values.astype(np.uint16)))
    tagged = data[:33] + make_chunk(b"sBIT", bytes([12])) + data[33:]
    assert np.array_equal(images.read(tagged), images.read(data))
    dark = encoded(Image.fromarray((values >> 4 & ~15).astype(np.uint16)))
    with pytest.raises(DataError, match="12 bits or less"):
        images.read(dark[:33] + make_chunk(b"sBIT", bytes([12])) + dark[33:])


@pytest.mark.parametrize("colour", [2, 4, 6], ids=["RGB", "gray and alpha", "RGBA"])
def test_12_bit_values_in_several_channels_are_refused(colour):
    """Pillow keeps their upper eight bits, of which four are left. Alpha does not count, nor what is behind it."""
    values = np.full((20, 20, {2: 3, 4: 2, 6: 4}[colour]), 4095, np.uint16)
    if colour != 2:
        values[..., -1] = 32768
    rows = filter_rows(values.astype(">u2").view(np.uint8).reshape(20, -1))
    with pytest.raises(DataError, match="highest value is 4095: values of 12 bits or less"):
        images.read(make_png(rows, (20, 20), depth=16, colour=colour))


def test_float_images_are_refused():
    """Their range is unknown."""
    with pytest.raises(DataError, match=r"expected 8- or 16-bit integer pixels, got F from 0.0 to 0.5"):
        images.read(Image.fromarray(np.linspace(0, 0.5, 400, dtype=np.float32).reshape(20, 20)))


def test_paths_that_are_no_files_are_refused_at_once(tmp_path, monkeypatch):
    """A FIFO without a writer would block for ever, a device would never end."""
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing")
    (tmp_path / "empty.png").touch()
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    monkeypatch.chdir(tmp_path)  # the path of a socket may have 107 bytes
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
        expected = {
            "fifo.png": "not a regular file",
            "zero.png": "not a regular file",
            "folder.png": "Is a directory",
            "loop.png": "Too many levels of symbolic links",
            "gone.png": "does not exist",
            "empty.png": "an empty file; expected a PNG",
            "socket.png": "cannot be read",
        }
        for name, match in expected.items():
            with pytest.raises(DataError, match=f"{name}.*{match}") as caught:
                images.read(tmp_path / name)
            assert "\n" not in str(caught.value)


def test_permission_denied_is_one_line(tmp_path, monkeypatch):
    """With the system's reason."""
    (tmp_path / "mine.png").touch()
    monkeypatch.setattr(
        os, "open", lambda *_: (_ for _ in ()).throw(PermissionError(errno.EACCES, "Permission denied"))
    )
    with pytest.raises(DataError, match=r"mine\.png cannot be read: Permission denied$"):
        images.read(tmp_path / "mine.png")


@pytest.mark.parametrize("kind", ["path", "bytes", "file"])
def test_too_large_a_file_is_not_read(tmp_path, monkeypatch, face, kind):
    """Its size is limited before its content is looked at."""
    data = encoded(Image.fromarray(face))
    monkeypatch.setattr(images, "MAX_BYTES", len(data) - 1)
    (tmp_path / "a.png").write_bytes(data)
    source = {"path": tmp_path / "a.png", "bytes": data, "file": BytesIO(data)}[kind]
    with pytest.raises(DataError, match=f"larger than {len(data) - 1:,} bytes, the limit"):
        images.read(source)
    monkeypatch.setattr(images, "MAX_BYTES", len(data))
    assert images.read(tmp_path / "a.png").shape == face.shape
