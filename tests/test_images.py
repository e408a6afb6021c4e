"""Reading pictures and the image contract."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from edgeemo import images
from edgeemo.card import InputContract
from edgeemo.errors import DataError

GRAY = InputContract(48)
RGB = InputContract(48, "rgb", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def encoded(picture, kind="PNG", **options):
    stream = BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def test_contract_shapes(face):
    """Gray gives one channel, rgb three; both square."""
    assert images.to_pixels(face, GRAY).shape == (48, 48)
    assert images.to_pixels(face, RGB).shape == (48, 48, 3)
    assert images.to_input(images.to_pixels(face, GRAY)[None], GRAY).shape == (1, 1, 48, 48)
    assert images.to_input(images.to_pixels(face, RGB)[None], RGB).shape == (1, 3, 48, 48)


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
    """All eight ways a camera can be held show the same upright picture."""
    undo = [None, *(Image.Transpose(k) for k in (0, 3, 1, 5, 2, 6, 4))][orientation - 1]
    picture = Image.fromarray(face) if undo is None else Image.fromarray(face).transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(images.read(encoded(picture, exif=exif)), face)


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
    """Only 8-bit gray or RGB pictures are taken."""
    with pytest.raises(DataError, match="expected"):
        images.to_pixels(bad, GRAY)


def test_too_small_a_face_is_refused():
    """Below 16 px no expression can be seen."""
    with pytest.raises(DataError, match="at least 16"):
        images.to_pixels(np.zeros((8, 48), np.uint8), GRAY)
