"""Image files before and after Pillow decodes them: metadata out, damage found that its decoders pass over in silence.

Each format has `strip(content)`, which returns the file with nothing but its pixels, tables and EXIF, and raises
DataError where its structure is damaged; and `check(data, image)`, which raises DataError if the decoded pixels are not
all in the file.

Guaranteed: a file that was cut anywhere is refused, and so is one whose lengths, checksums or end marker were written
again after the cut, unless it still gives the same pixels; arithmetic-coded JPEGs that were closed again are the
exception. In a PNG, every changed byte of the pixels is refused.

Not guaranteed: bytes changed in the middle of JPEG, WebP and BMP pixels. These formats have no checksum. In a JPEG,
such damage usually shifts the rest of the scan and is refused because data are missing or left over at its end; where a
scan ends exactly where it should, and in BMP and most WebP, nobody can tell the damage from the picture.
"""

from __future__ import annotations

from types import ModuleType

from PIL import Image

from edgeemo.errors import DataError
from edgeemo.image_files import bmp, jpeg, png, webp

FORMATS: dict[str, ModuleType] = {"PNG": png, "JPEG": jpeg, "WEBP": webp, "BMP": bmp}
NAMES = "PNG, JPEG, WebP or BMP"
# By their first bytes, after so many others: files that are often found among faces, or named like them.
OTHERS = (
    (0, b"GIF8", "a GIF image"),
    (0, b"II*\0", "a TIFF image"),
    (0, b"MM\0*", "a TIFF image"),
    (4, b"ftypavif", "an AVIF image"),
    (4, b"ftypavis", "an AVIF image"),
    (4, b"ftyphe", "a HEIC image"),
    (4, b"ftypmif1", "a HEIC image"),
    (4, b"ftypmsf1", "a HEIC image"),
    (0, b"\xff\x0a", "a JPEG XL image"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL image"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (0, b"8BPS", "a Photoshop image"),
    (0, b"%PDF", "a PDF document"),
    (0, b"\0\0\1\0", "an icon"),
    (4, b"ftyp", "a video"),
    (0, b"PK\3\4", "a zip archive"),
    (0, b"version https://git-lfs", "a pointer of Git LFS (git lfs pull fetches the file)"),
    (0, b"<", "a page or an SVG image"),
    *((0, b"P%d" % k, "a PPM image") for k in range(1, 7)),
)


def strip(content: bytes) -> tuple[str, bytes]:
    """Return format and content of an image file without its metadata, except EXIF, and without further frames.

    Raises DataError for a damaged structure and for other formats.
    """
    if content.startswith(png.SIGNATURE):
        return "PNG", png.strip(content)
    if content.startswith(b"\xff\xd8\xff"):
        return "JPEG", jpeg.strip(content)
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WEBP", webp.strip(content)
    if content.startswith(b"BM"):
        return "BMP", bmp.strip(content)
    if not content:
        raise DataError(f"an empty file; expected a {NAMES} image")
    what = next((what for at, magic, what in OTHERS if content.startswith(magic, at)), "")
    if "image" not in what:
        raise DataError(f"{what or 'not an image'}; expected a {NAMES} image")
    raise DataError(f"{what}; expected {NAMES}; convert it, for example with ImageMagick:  magick FILE FILE.png")


def get_size(kind: str, data: bytes) -> tuple[int, int]:
    """Return width and height from the header of what `strip` returned, which no decoder has seen yet."""
    size: tuple[int, int] = FORMATS[kind].get_size(data)
    return size


def check(kind: str, data: bytes, image: Image.Image) -> None:
    """Raise DataError if `image`, loaded from what `strip` returned, holds pixels that are not in the file."""
    FORMATS[kind].check(data, image)
