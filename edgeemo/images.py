"""From one image to the model's input, exactly as its card defines it. Training and all runtimes share this code.

Preprocessing must be identical in training and deployment: emotion models often lose accuracy silently to a colour
order or a resize filter that differs. A ready crop (`central_square`) and a detector's box (`crop`) become squares by
indexing only, so that both are resampled once, by `resize`.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from io import BytesIO
from math import floor, isfinite, sqrt
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from PIL import ExifTags, Image

from edgeemo import image_files
from edgeemo.card import InputContract
from edgeemo.errors import DataError
from edgeemo.image_files import png
from edgeemo.limits import check_shortage

log = logging.getLogger(__name__)
FORMATS = tuple(image_files.FORMATS)  # allowed decoders; Pillow's others are attack surface
Source = Path | bytes | bytearray | memoryview | BinaryIO | Image.Image
MAX_PIXELS = 9280 * 6944  # a 64-megapixel phone photo
MAX_BYTES = 4 * MAX_PIXELS + (1 << 20)  # a 32-bit BMP of as many pixels
MIN_SIDE = 16  # pixels; below it no expression is recognisable
MAX_CROP = 7094  # pixels a side of a crop that extends over the edges; its square is 50 megapixels
MID_GREY = 128  # background of transparent pixels
_warned: list[str] = []  # what was logged about 14-bit values, at most one message
# By EXIF orientation, the operation that turns an image upright; 1 is upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Pixels(Protocol):
    """(N, size, size) or (N, size, size, 3) uint8 faces: an array, or a file from which an index reads one."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any: ...

    def __iter__(self) -> Iterator[Any]: ...


def read(source: Source, *, name: str = "", max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read an image as (H, W) or (H, W, 3) uint8, upright, at least 16 px a side and at most 64 megapixels.

    source: path, content as bytes, file object, or Pillow image. Of the metadata only the EXIF orientation is read;
    where that is damaged, the pixels are taken as they are stored. Colour profiles and gamma are ignored, and of an
    animation the first frame is read. The largest image takes up to 1.7 GiB of memory; larger ones are refused by their
    header, and so are those of more than `max_pixels`. `image_files` states which damage is found, and which cannot be;
    the file behind a Pillow image is not checked.

    Raises DataError if it cannot be read completely, with the image's `name`, by default its path or length in bytes.
    """
    name = name or _name(source)
    try:
        if isinstance(source, Image.Image):
            return _convert(source, name)
        return _decode(_read_content(source), name, max_pixels)
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    except FileNotFoundError as error:
        raise DataError(f"{name} does not exist; expected a {image_files.NAMES} image") from error
    except (
        Exception
    ) as error:  # damaged files make Pillow raise almost anything: struct.error, zlib.error, TypeError, …
        check_shortage(error)
        raise DataError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _read_content(source: Path | bytes | bytearray | memoryview | BinaryIO) -> bytes:
    if isinstance(source, (bytes, bytearray, memoryview)):
        content = bytes(source)
    elif isinstance(source, Path):
        with open(source, "rb", opener=_open_at_once) as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise DataError(f"not a regular file; expected a {image_files.NAMES} image")
            _check_bytes(facts.st_size)
            content = file.read()
    else:
        with suppress(AttributeError, OSError):
            source.seek(0)
        content = source.read(MAX_BYTES + 1)
    _check_bytes(len(content))
    return content


def _open_at_once(path: str, flags: int) -> int:
    """Open a path without waiting for a writer, as a FIFO would."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _check_bytes(size: int) -> None:
    if size > MAX_BYTES:
        raise DataError(f"larger than {MAX_BYTES:,} bytes, the limit")


def _name(source: Source) -> str:
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"image of {len(source)} bytes"
    if isinstance(source, Image.Image):
        return f"Pillow image of {source.width}x{source.height} px"
    return str(source) if isinstance(source, Path) else str(getattr(source, "name", "") or "image of a file object")


def from_array(image: np.ndarray) -> np.ndarray:
    """Return (H, W) or (H, W, 3) uint8 from an array that may also be (H, W, 1) or (H, W, 4), RGBA.

    Transparent pixels are blended with mid-grey, as `read` does. Other arrays are returned as they are, and refused by
    `to_pixels`.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 4) or 0 in image.shape:
        return image
    return image[..., 0] if image.shape[2] == 1 else np.asarray(_flatten(Image.fromarray(image)))


def to_pixels(image: np.ndarray, contract: InputContract) -> np.ndarray:
    """Crop, convert and resize one ready crop, which the face fills, as the contract defines.

    image: (H, W) gray or (H, W, 3) RGB, uint8, at least 16 px a side.

    Returns (size, size) uint8 for gray, (size, size, 3) for rgb and gray3. Raises DataError for anything else.
    """
    return resize(central_square(image), contract)


def central_square(image: np.ndarray) -> np.ndarray:
    """Return the largest central square of a ready crop, as a view: (H, W[, 3]) → (min(H, W), min(H, W)[, 3]) uint8.

    Raises DataError for another shape or type, or less than 16 px a side.
    """
    check_image(image)
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]


def crop(image: np.ndarray, box: Sequence[float], contract: InputContract) -> np.ndarray:
    """Return the square around a detector's box, without resampling: (H, W[, 3]) uint8 → (side, side[, 3]) uint8.

    box: x, y, width, height in pixels, x and y of its top left corner; it may extend over the edges of the image. Its
    longer side is scaled by the contract's crop_margin about the box's centre, and the square is rounded to whole
    pixels (step 1 of InputContract). Outside the image the nearest pixel of its edge is repeated: moving or shrinking
    the square into the image would change position and size of a face at the edge, and models tolerate little of
    either (on held-out faces 10 % of the side and 5 % of shift had no measurable cost; 30 % of the side cost 1 to 3.5
    points).

    Raises DataError for an image that `to_pixels` does not accept, a box without width or height or outside the image,
    or a square below 16 px or above 50 megapixels.
    """
    check_image(image)
    left, top, side = _compute_square(box, contract.crop_margin)
    height, width = image.shape[:2]
    if not (-side < left < width and -side < top < height):
        raise DataError(f"the box {tuple(box)} lies outside the image of {width}x{height} px")
    return take_square(image, left, top, side)


def take_square(image: np.ndarray, left: int, top: int, side: int) -> np.ndarray:
    """Return the square of whole pixels from column `left` and row `top`; outside, the nearest pixel is repeated."""
    height, width = image.shape[:2]
    if 0 <= left <= width - side and 0 <= top <= height - side:
        return image[top : top + side, left : left + side]
    rows = np.clip(np.arange(top, top + side), 0, height - 1)
    columns = np.clip(np.arange(left, left + side), 0, width - 1)
    square: np.ndarray = image[rows[:, None], columns]
    return square


def resize(square: np.ndarray, contract: InputContract) -> np.ndarray:
    """Convert and resize a square from `crop` or `central_square` to the colour and size of the contract.

    Returns (size, size) uint8 for gray, (size, size, 3) for rgb and gray3. Raises DataError for anything else.
    """
    check_image(square)
    if square.shape[0] != square.shape[1]:
        raise DataError(f"expected a square, got {square.shape[1]}x{square.shape[0]} px; crop it first")
    image = Image.fromarray(square).convert("RGB" if contract.colour == "rgb" else "L")
    if image.width != contract.size:
        image = image.resize((contract.size, contract.size), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return np.repeat(pixels[..., None], 3, axis=2) if contract.colour == "gray3" else pixels


def to_input(pixels: np.ndarray, contract: InputContract) -> np.ndarray:
    """Normalise (N, size, size[, 3]) uint8 from `to_pixels` to (N, channels, size, size) float32."""
    batch = pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)
    values: np.ndarray = batch.astype(np.float32, order="C")
    values *= np.float32(1 / 255)
    values -= _reshape_per_channel(contract.mean)
    values /= _reshape_per_channel(contract.std)
    return values


@cache  # without it, mean and std take 1.5 µs per face
def _reshape_per_channel(numbers: tuple[float, ...]) -> np.ndarray:
    return np.array(numbers, np.float32).reshape(-1, 1, 1)


def _decode(content: bytes, name: str, max_pixels: int) -> np.ndarray:
    kind, data = image_files.strip(content)
    _check_size(*image_files.get_size(kind, data), min(max_pixels, MAX_PIXELS))
    with Image.open(BytesIO(data), formats=(kind,)) as image:
        image.load()
        image_files.check(kind, data, image)
        return _convert(image, name, *(png.get_depth(data) if kind == "PNG" else ()))


def _check_size(width: int, height: int, max_pixels: int = MAX_PIXELS) -> None:
    if width * height > max_pixels:
        percent = max(1, floor(100 * sqrt(max_pixels / (width * height))))
        raise DataError(
            f"{width}x{height} pixels; the limit is {max_pixels:,}: reduce it, for example with ImageMagick:  "
            f"magick FILE -resize {percent}% FILE.jpg"
        )
    if min(width, height) < MIN_SIDE:
        raise DataError(f"image is {width}x{height} px; a face needs at least {MIN_SIDE} px a side")


def _convert(image: Image.Image, name: str, depth: int = 8, significant: int = 16) -> np.ndarray:
    """Return upright 8-bit pixels. depth, significant: bits per sample in a PNG file, as in png.get_depth."""
    _check_size(*image.size)
    image.load()
    operation = UPRIGHT.get(_read_orientation(image))
    upright = image if operation is None else image.transpose(operation)
    if image.mode.startswith("I") or image.mode == "F":
        return _from_16_bit(upright, name, significant)
    if depth == 16:  # of several channels, of which Pillow keeps the upper 8 bits
        colours = image.split()[: 3 if image.mode.startswith("RGB") else 1]  # without alpha
        _check_range(int(max(np.asarray(band).max() for band in colours)) * 256 + 255, name)
    pixels = _to_uint8(upright)
    check_image(pixels)
    return pixels


def _read_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of a loaded image, 1 to 8; 1 if there is none or it cannot be read."""
    with suppress(Exception):  # damaged metadata makes Pillow raise almost anything
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    return 1


def check_image(image: np.ndarray) -> None:
    """Raise DataError for what is no (H, W) or (H, W, 3) uint8 image of at least MIN_SIDE px a side."""
    shape_ok = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)
    if image.dtype != np.uint8 or not shape_ok:
        raise DataError(f"expected (H, W) or (H, W, 3) uint8, got {image.shape} {image.dtype}")
    if min(image.shape[:2]) < MIN_SIDE:
        raise DataError(f"image is {image.shape[1]}x{image.shape[0]} px; a face needs at least {MIN_SIDE} px a side")


def _compute_square(box: Sequence[float], margin: float) -> tuple[int, int, int]:
    """Return left, top and side of the square around a box, in whole pixels."""
    try:
        x, y, width, height = map(float, box)
    except (TypeError, ValueError) as error:
        raise DataError(f"expected a box as x, y, width, height, got {box!r}") from error
    if not all(map(isfinite, (x, y, width, height))) or min(width, height) <= 0:
        raise DataError(f"expected a box as x, y, width, height with a width and height above 0 px, got {tuple(box)}")
    exact = max(width, height) * margin
    side = floor(min(exact, MAX_CROP + 1) + 0.5)
    if not MIN_SIDE <= side <= MAX_CROP:
        raise DataError(f"the box {tuple(box)} gives a square of {exact:.0f} px; expected {MIN_SIDE} to {MAX_CROP}")
    return floor(x + width / 2 - side / 2 + 0.5), floor(y + height / 2 - side / 2 + 0.5), side


def _to_uint8(image: Image.Image) -> np.ndarray:
    if image.mode in ("RGBA", "RGBa", "LA", "PA") or "transparency" in image.info:
        image = _flatten(image)
    mode = "L" if image.mode in ("1", "L") else "RGB"
    return np.asarray(image if image.mode == mode else image.convert(mode))


def _from_16_bit(image: Image.Image, name: str, significant: int) -> np.ndarray:
    """Return 16-bit gray as 8-bit; values of `significant` bits that were not scaled to 16, as PNG demands, are scaled.

    Scaled values below 2^significant have zeros in their lower 16 - significant bits; others were not scaled.
    """
    values = np.asarray(image)
    lowest, highest = values.min(), values.max()
    if values.dtype.kind == "f" or lowest < 0 or highest > 65535:
        raise DataError(f"expected 8- or 16-bit integer pixels, got {image.mode} from {lowest} to {highest}")
    full = 65535
    if highest < 1 << significant and np.any(values & ((1 << 16 - significant) - 1)):
        full = (1 << significant) - 1
    else:
        _check_range(int(highest), name)
    pixels = np.empty(values.shape, np.uint8)
    for rows, scaled in zip(values, pixels, strict=True):  # by row, since 32 bits for all would take much memory
        scaled[:] = (rows.astype(np.uint32) * 255 + full // 2) // full
    return pixels


def _check_range(highest: int, name: str) -> None:
    """Raise DataError where 16-bit values, up to `highest`, are surely those of 12 bits or less; log where they may be.

    A picture of scaled values would have less than a sixteenth, or a quarter, of full brightness at most.
    """
    remedy = "scale them to 65535, or save them with 8 bits"
    if highest < 1 << 12:
        raise DataError(f"16-bit image whose highest value is {highest}: values of 12 bits or less; {remedy}")
    if highest < 1 << 14:
        _warn_once(f"{name}: 16-bit image whose highest value is {highest}: if its values have 14 bits, {remedy}")


def _warn_once(message: str) -> None:
    if not _warned:
        _warned.append(message)
        log.warning("%s (further images of this kind are not logged)", message)


def _flatten(image: Image.Image) -> Image.Image:
    """Blend transparent pixels with mid-grey, in strips, since each step would copy the whole image."""
    flat = Image.new("RGB", image.size)
    for top in range(0, image.height, 256):
        layer = image.crop((0, top, image.width, min(top + 256, image.height))).convert("RGBA")
        background = Image.new("RGBA", layer.size, (MID_GREY, MID_GREY, MID_GREY, 255))
        flat.paste(Image.alpha_composite(background, layer).convert("RGB"), (0, top))
    return flat
