"""Every kind of image, from its file to the crops of its faces: right, or refused with one clear error.

Each kind is written from the same picture with two drawn faces. What is read must give the plain picture's boxes and
crops, so that a detector never searches a turned, inverted or half-read picture in silence.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from image_samples import encode, filter_rows, make_png
from orientations import TRANSPOSED
from PIL import Image, ImageCms

import edgeemo
from edgeemo import images
from edgeemo.card import InputContract
from edgeemo.data.drawing import draw_face
from edgeemo.errors import DataError
from edgeemo.faces import Detection, crop, load_detector
from edgeemo.faces.merge import compute_iou

CONTRACT = InputContract(48)
BACK = images.MID_GREY  # what transparent pixels become, so that a picture without its background stays the same
TINTS = (1.0, 0.9, 0.8)  # of red, green, blue: a picture whose channels were swapped would not be the same
FACES = ((60, 80, 128, 10), (400, 200, 160, 16))  # x, y, side, seed


def draw_picture(*, colour: bool) -> Image.Image:
    """640x480 px, a background of BACK and two faces."""
    picture = np.full((480, 640, 3), BACK, np.uint8)
    for x, y, side, seed in FACES:
        face = draw_face("neutral", seed=seed, size=side)[..., None]
        picture[y : y + side, x : x + side] = face * (TINTS if colour else (1, 1, 1))
    return Image.fromarray(picture)


PLAIN, GRAY = draw_picture(colour=True), draw_picture(colour=False).convert("L")
MASK = Image.fromarray(np.where((np.asarray(PLAIN) == BACK).all(axis=2), 0, 255).astype(np.uint8))


def write_turned(orientation: int, kind: str) -> bytes:
    """The picture as a camera stores it that was held in another way."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    turn = TRANSPOSED[orientation]
    stored = PLAIN if turn is None else PLAIN.transpose(turn)
    return encode(stored, kind, exif=exif, **({} if kind == "PNG" else {"quality": 95}))


def write_cut_out(mode: str) -> bytes:
    """The faces on a transparent background, whose colour is black where it can be seen."""
    cut = Image.new("RGB", PLAIN.size)
    cut.paste(PLAIN if mode != "LA" else GRAY, mask=MASK)
    if mode != "P":
        cut.putalpha(MASK)
        return encode(cut.convert(mode), "PNG")
    palette = cut.quantize(255)
    indices = np.array(palette)
    indices[np.asarray(MASK) == 0] = 255
    found = Image.fromarray(indices, "P")
    found.putpalette([*palette.getpalette()[: 3 * 255], 0, 0, 0][: 3 * 256])
    return encode(found, "PNG", transparency=255)


def write_16_bit(picture: Image.Image) -> bytes:
    """A PNG whose low bytes are noise."""
    values = np.asarray(picture).astype(np.uint16) * 256
    values += np.random.default_rng(0).integers(0, 256, values.shape, dtype=np.uint16)
    rows = filter_rows(values.astype(">u2").view(np.uint8).reshape(picture.height, -1))
    return make_png(rows, picture.size, depth=16, colour=2 if picture.mode == "RGB" else 0)


def write_ycck() -> bytes:
    """A JPEG with Adobe's transform 2: C, M, Y as Y, Cb, Cr, and K, all inverted."""
    inks = Image.fromarray(255 - np.asarray(PLAIN)).convert("YCbCr").split()
    parts = [*inks, Image.new("L", PLAIN.size, 255)]
    image = Image.merge("CMYK", [part.point(lambda value: 255 - value) for part in parts])
    data = encode(image, "JPEG", quality=95)
    at = data.index(b"Adobe") + 11
    return data[:at] + b"\2" + data[at + 1 :]


def write_animation(kind: str) -> bytes:
    """The picture, then two black ones."""
    black = [Image.new("RGB", PLAIN.size, (k, k, k)) for k in (0, 1)]
    return encode(PLAIN, kind, save_all=True, append_images=black, duration=50, lossless=True)


def write_claim(width: int, height: int) -> bytes:
    """A JPEG whose header claims another size, which is refused before anything is decoded."""
    data = encode(PLAIN, "JPEG")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def write_with_profile(kind: str) -> bytes:
    """With a profile of which nothing must be heeded."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    return encode(PLAIN, kind, icc_profile=profile, quality=95)


SAME: dict[str, Callable[[], bytes | Image.Image]] = {
    **{
        f"{kind}, orientation {number}": lambda number=number, kind=kind: write_turned(number, kind)
        for kind in ("JPEG", "PNG", "WEBP")
        for number in TRANSPOSED
    },
    "gray PNG": lambda: encode(GRAY, "PNG"),
    "gray JPEG": lambda: encode(GRAY, "JPEG", quality=95),
    "progressive JPEG": lambda: encode(PLAIN, "JPEG", quality=90, progressive=True),
    "JPEG of quality 30": lambda: encode(PLAIN, "JPEG", quality=30),
    "BMP": lambda: encode(PLAIN, "BMP"),
    "lossy WebP": lambda: encode(PLAIN, "WEBP", quality=80),
    "palette": lambda: encode(PLAIN.quantize(256), "PNG"),
    "palette with transparency": lambda: write_cut_out("P"),
    "RGBA": lambda: write_cut_out("RGBA"),
    "LA": lambda: write_cut_out("LA"),
    "16-bit gray PNG": lambda: write_16_bit(GRAY),
    "16-bit RGB PNG": lambda: write_16_bit(PLAIN),
    "CMYK JPEG": lambda: encode(PLAIN.convert("CMYK"), "JPEG", quality=95),
    "YCCK JPEG": write_ycck,
    "PNG with a colour profile": lambda: write_with_profile("PNG"),
    "JPEG with a colour profile": lambda: write_with_profile("JPEG"),
    "animated PNG": lambda: write_animation("PNG"),
    "animated WebP": lambda: write_animation("WEBP"),
    "Pillow image, YCbCr": lambda: PLAIN.convert("YCbCr"),
    "Pillow image, HSV": lambda: PLAIN.convert("HSV"),
    "Pillow image, premultiplied": lambda: Image.open(BytesIO(write_cut_out("RGBA"))).convert("RGBa"),
    "Pillow image, not loaded": lambda: Image.open(BytesIO(write_turned(6, "JPEG"))),
    "Pillow image, RGBX": lambda: PLAIN.convert("RGBX"),
    "Pillow image, 16-bit gray": lambda: Image.fromarray(np.asarray(GRAY).astype(np.uint16) * 257),
}
CUT = encode(PLAIN, "PNG")
REFUSED: dict[str, tuple[Callable[[], bytes | Image.Image], str]] = {
    "nothing": (lambda: b"", "an empty file; expected a PNG, JPEG, WebP or BMP image"),
    "zeros": (lambda: bytes(4096), "not an image; expected"),
    "truncated PNG": (lambda: CUT[: len(CUT) // 2], "truncated"),
    "truncated JPEG": (lambda: encode(PLAIN, "JPEG")[:-200], "truncated"),
    "truncated WebP": (lambda: encode(PLAIN, "WEBP")[:-20], "truncated"),
    "truncated BMP": (lambda: encode(PLAIN, "BMP")[:-2000], "truncated"),
    "GIF": (lambda: encode(PLAIN.quantize(256), "GIF"), "a GIF image; expected .* convert it"),
    "animated GIF": (
        lambda: encode(PLAIN.quantize(256), "GIF", save_all=True, append_images=[Image.new("P", PLAIN.size)]),
        "a GIF image; expected .* convert it",
    ),
    "TIFF": (lambda: encode(PLAIN, "TIFF"), "a TIFF image; expected .* convert it"),
    "one pixel wide": (lambda: encode(PLAIN.crop((0, 0, 1, 480)), "PNG"), "1x480 px; a face needs at least 16 px"),
    "one pixel high": (lambda: encode(PLAIN.crop((0, 0, 640, 1)), "JPEG"), "640x1 px; a face needs at least 16 px"),
    "15 px": (lambda: PLAIN.resize((15, 15)), "15x15 px; a face needs at least 16 px"),
    "12-bit values in 16 bits": (
        lambda: Image.fromarray(np.asarray(GRAY).astype(np.uint16) * 16),
        "12 bits or less; scale them to 65535",
    ),
    "floating point": (lambda: GRAY.convert("F"), "expected 8- or 16-bit integer pixels, got F"),
    "premultiplied gray": (lambda: GRAY.convert("LA").convert("La"), "conversion from La"),
    "108 megapixels": (
        lambda: write_claim(12000, 9000),
        "12000x9000 pixels; the limit is 64,440,320: reduce it.*magick FILE -resize 77%",
    ),
}


@pytest.fixture(scope="module")
def expected(detector) -> list[Detection]:
    """The faces of the plain picture."""
    found = find(detector, encode(PLAIN, "PNG"))[1]
    assert len(found) == len(FACES)
    return found


def find(detector, source: bytes | Image.Image) -> tuple[np.ndarray, list[Detection]]:
    """The pixels of a source, and its faces from left to right."""
    pixels = images.read(source)
    return pixels, sorted(detector.detect(pixels), key=lambda one: one.box[0])


@pytest.mark.parametrize("kind", SAME)
def test_every_kind_gives_the_faces_of_the_plain_picture(detector, expected, kind):
    """The same boxes to a tenth of their area, eyes to a tenth of the distance between them, and the same crops."""
    pixels, found = find(detector, SAME[kind]())
    assert pixels.shape[:2] == (PLAIN.height, PLAIN.width)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert compute_iou(np.array([one.box]), np.array([other.box]))[0, 0] > 0.9
        distance = np.linalg.norm(np.subtract(*other.eyes))
        assert np.abs(np.subtract(one.eyes, other.eyes)).max() < 0.1 * distance
        # Gray pictures have no tint, which makes them up to a tenth brighter, and lossy ones are not exact.
        apart = crop(pixels, other, CONTRACT).astype(int) - crop(np.asarray(PLAIN), other, CONTRACT)
        assert np.abs(apart).mean() < (20 if pixels.ndim == 2 or kind == "LA" else 4)


@pytest.fixture(scope="module")
def model():
    """A packaged model with its detector."""
    with edgeemo.load("nano") as opened:
        yield opened


@pytest.mark.parametrize("kind", SAME)
def test_every_kind_gives_the_emotions_of_the_plain_picture(model, kind):
    """Through Model.faces, in one call, with the probability of the plain picture's label to a tenth."""
    expected, found = (sorted(model.faces(source), key=lambda one: one.box[0]) for source in (PLAIN, SAME[kind]()))
    assert len(found) == len(expected) == len(FACES)
    for one, other in zip(found, expected, strict=True):
        assert compute_iou(np.array([one.box]), np.array([other.box]))[0, 0] > 0.9
        label = other.prediction.label
        assert one.prediction.probabilities[label] == pytest.approx(other.prediction.probability, abs=0.1)


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_is_refused_by_model_faces(model, kind):
    """With the same error; no face is ever found in it."""
    make, says = REFUSED[kind]
    with pytest.raises(DataError, match=says):
        model.faces(make())


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_rightly_is_one_clear_error(kind):
    """One line, which says what was expected or what to do."""
    make, says = REFUSED[kind]
    with pytest.raises(DataError, match=says) as refused:
        images.read(make())
    assert "\n" not in str(refused.value)


def test_black_and_white_gives_no_face_elsewhere(detector, expected):
    """A dithered picture may hide a face; what is found is where one is."""
    _, found = find(detector, encode(PLAIN.convert("1"), "PNG"))
    boxes = np.array([one.box for one in expected])
    assert all(compute_iou(np.array([one.box]), boxes).max() > 0.5 for one in found)


@pytest.mark.parametrize("side", [16, 24, 32, 48])
def test_tiny_pictures_give_their_face_or_none(detector, side):
    """A face that fills the picture, as a ready crop does, is found once and inside it, or not at all."""
    face = Image.fromarray(draw_face("neutral", seed=10, size=128)).resize((side, side))
    _, found = find(detector, face)
    assert len(found) <= 1
    for one in found:
        x, y, width, height = one.box
        assert 0 < x + width / 2 < side
        assert 0 < y + height / 2 < side
        assert max(width, height) < 1.5 * side


@pytest.mark.parametrize("size", [(16, 3000), (3000, 16)])
def test_strips_give_no_face(detector, size):
    """Of the plain picture's background, with a stripe of a face in it."""
    strip = PLAIN.resize((640, 480)).crop((100, 0, 116, 480)).resize(size)
    assert find(detector, strip)[1] == []


def test_sixty_megapixels_give_the_same_faces(expected):
    """A phone's photo, searched as a whole: the boxes are in its own pixels."""
    scale = 14
    photo = encode(GRAY.resize((640 * scale, 480 * scale)), "JPEG", quality=80)
    pixels, found = find(load_detector(faces="few"), photo)
    assert pixels.size > 60e6
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert compute_iou(np.array([one.box]), scale * np.array([other.box]))[0, 0] > 0.9


def test_a_file_object_is_read_from_its_start(detector, expected):
    """Wherever it was left."""
    stream = BytesIO(encode(PLAIN, "PNG"))
    stream.seek(100)
    assert find(detector, stream)[1] == expected
