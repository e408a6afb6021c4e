"""Boxes and labels on an image, legible on any background, with Pillow alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from edgeemo.runtime import Face, Prediction

LEAST_SIDE = 256  # pixels of the longer side of what is painted; smaller images, such as ready crops, are enlarged
COLOUR, EDGE = (255, 210, 0), (0, 0, 0)  # bright on dark: one of the two stands out on any background
LINE = 1 / 250  # width of a box's line, of the image's longer side; at most THICKEST of the face
THICKEST = 1 / 32
# Height of a letter: TEXT of the face's longer side, within these shares of the image's longer side.
TEXT, SMALLEST_TEXT, LARGEST_TEXT = 0.16, 1 / 80, 1 / 25
LEGIBLE, LEAST = 11, 6  # pixels; below the first only where the image is too narrow, below the second never
PADDING = 0.2  # around the text, of its height

Area = tuple[int, int, int, int]  # left, top, right, bottom


@dataclass(frozen=True)
class Text:
    """Lines of text in a font, and the size in pixels of the ground on which they stand at (x, y)."""

    lines: str
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont
    spacing: int
    x: float
    y: float
    width: int
    height: int


def paint(image: np.ndarray, faces: Sequence[Face], *, names: Sequence[str] = ()) -> Image.Image:
    """Return a copy of an upright image, (H, W) or (H, W, 3) uint8, with a box, label and probability per face.

    names: of the faces, in the same order, written before their labels; by default, none.

    An image of less than LEAST_SIDE pixels is enlarged by a whole factor, so that a label does not cover its face.
    Lines and letters scale with the image and the face. A label stands above its box, or where it covers less of the
    other labels and of the faces, always inside the image; an image too small for any legible label gets the boxes
    alone. Boxes that extend over the edges of the image are drawn along them.
    """
    factor = ceil(LEAST_SIDE / max(image.shape[:2]))
    enlarged = image if factor == 1 else image.repeat(factor, axis=0).repeat(factor, axis=1)
    painted = Image.fromarray(enlarged).convert("RGB")  # a copy
    draw = ImageDraw.Draw(painted)
    boxes = [_clip([factor * value for value in face.box], painted) for face in faces]
    for box in boxes:
        _draw_box(draw, box, painted)
    labels: list[Area] = []
    for face, box, name in zip(faces, boxes, names or [""] * len(faces), strict=True):
        if text := _fit_text(face.prediction, name, box, draw, painted):
            labels.append(_place(text, box, labels, boxes, painted))
            _draw_text(draw, text, labels[-1])
    return painted


def _clip(box: Sequence[float], image: Image.Image) -> Area:
    """Return the part of a face's box that is in the image, at least a pixel."""
    x, y, width, height = box
    left, top = min(max(0, round(x)), image.width - 1), min(max(0, round(y)), image.height - 1)
    right, bottom = min(round(x + width), image.width), min(round(y + height), image.height)
    return left, top, max(left + 1, right), max(top + 1, bottom)


def _draw_box(draw: ImageDraw.ImageDraw, box: Area, image: Image.Image) -> None:
    """Draw a bright line between two dark ones, inside the box."""
    left, top, right, bottom = box
    thickest = max(1, THICKEST * max(right - left, bottom - top))
    line = max(1, round(min(LINE * max(image.size), thickest)))
    edge = ceil(line / 3)
    draw.rectangle((left, top, right - 1, bottom - 1), outline=EDGE, width=line + 2 * edge)
    inner = (left + edge, top + edge, right - 1 - edge, bottom - 1 - edge)
    if inner[0] <= inner[2] and inner[1] <= inner[3]:
        draw.rectangle(inner, outline=COLOUR, width=line)


def _fit_text(
    prediction: Prediction, name: str, box: Area, draw: ImageDraw.ImageDraw, image: Image.Image
) -> Text | None:
    """Return the label as large as the face suggests, on two lines or smaller in a narrow image; None if none fits."""
    longest = max(image.size)
    wanted = TEXT * max(box[2] - box[0], box[3] - box[1])
    size = max(LEGIBLE, round(min(max(wanted, SMALLEST_TEXT * longest), LARGEST_TEXT * longest)))
    share = f"{100 * prediction.probability:.0f} %"
    label = f"{name} {prediction.label}{'?' * bool(prediction.unsure)}".lstrip()
    choices = [(f"{label} {share}", size), *((f"{label}\n{share}", smaller) for smaller in range(size, LEAST - 1, -1))]
    texts = (_measure(lines, height, draw) for lines, height in choices)
    return next((text for text in texts if text.width <= image.width and text.height <= image.height), None)


def _measure(lines: str, size: int, draw: ImageDraw.ImageDraw) -> Text:
    font, padding = _load_font(size), max(2, round(PADDING * size))
    left, top, right, bottom = draw.multiline_textbbox((0, 0), lines, font, spacing=padding)
    width, height = ceil(right - left) + 2 * padding, ceil(bottom - top) + 2 * padding
    return Text(lines, font, padding, padding - left, padding - top, width, height)


@lru_cache(maxsize=64)
def _load_font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)  # it is decoded each time


def _place(text: Text, box: Area, labels: Sequence[Area], boxes: Sequence[Area], image: Image.Image) -> Area:
    """Return where in the image the text covers least: above the box, below it, or inside it at the top or bottom."""
    left, top, _, bottom = box
    x = max(0, min(left, image.width - text.width))
    rows = (max(0, min(y, image.height - text.height)) for y in (top - text.height, bottom, top, bottom - text.height))
    areas = [(x, y, x + text.width, y + text.height) for y in rows]
    return min(areas, key=lambda area: (_cover(area, labels), _cover(area, boxes)))


def _cover(one: Area, others: Sequence[Area]) -> int:
    """Return the sum of the areas that one shares with each other one."""
    wide = (max(0, min(one[2], other[2]) - max(one[0], other[0])) for other in others)
    high = (max(0, min(one[3], other[3]) - max(one[1], other[1])) for other in others)
    return sum(width * height for width, height in zip(wide, high, strict=True))


def _draw_text(draw: ImageDraw.ImageDraw, text: Text, area: Area) -> None:
    """Write dark letters on a bright ground with a dark edge."""
    left, top, right, bottom = area
    draw.rectangle((left, top, right - 1, bottom - 1), fill=COLOUR, outline=EDGE)
    draw.multiline_text((left + text.x, top + text.y), text.lines, EDGE, text.font, spacing=text.spacing)
