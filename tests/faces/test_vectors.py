"""docs/crop-vectors.json: what hosts in other languages check their crop with."""

from __future__ import annotations

import json
from base64 import b64decode
from math import atan2, ceil, cos, degrees, floor, hypot, radians, sin
from typing import Any

import crop_vectors
import pytest

VECTORS: dict[str, Any] = json.loads(crop_vectors.OUT.read_text(encoding="utf-8"))
WIDTH, HEIGHT = VECTORS["image"]["width"], VECTORS["image"]["height"]
PIXELS = b64decode(VECTORS["image"]["pixels"])
Rows = list[list[float]]


def test_the_file_is_what_the_script_writes() -> None:
    """Up to the last digits of the squares, in which libraries of mathematics differ."""
    made = json.loads(json.dumps(crop_vectors.make_vectors()))
    assert made["image"] == VECTORS["image"]
    assert {face["square"]["degrees"] != 0 for face in made["faces"]} == {True, False}
    for face, stored in zip(made["faces"], VECTORS["faces"], strict=True):
        apart = [abs(a - b) for a, b in zip(b64decode(face["crop"]), b64decode(stored["crop"]), strict=True)]
        assert max(apart) <= face["tolerance"]
        assert flatten(face["square"]) == pytest.approx(flatten(stored["square"]))
        assert {**face, "crop": "", "square": ""} == {**stored, "crop": "", "square": ""}


def flatten(square: dict[str, Any]) -> list[float]:
    return [*square["centre"], square["side"], square["degrees"]]


@pytest.mark.parametrize("face", VECTORS["faces"], ids=lambda face: face["name"])
def test_a_host_that_follows_the_page_gets_them(face: dict[str, Any]) -> None:
    """docs/card.md, steps 1 to 3, in plain Python, from the file alone."""
    (x, y), side, tilt = place(face)
    assert [x, y, side, tilt] == pytest.approx(flatten(face["square"]))
    size, colour = face["input"]["size"], face["input"]["colour"]
    bands = [sample(band, x, y, side, tilt, size) if tilt else cut(band, x, y, side) for band in range(3)]
    if colour == "gray":
        red, green, blue = bands
        bands = [
            [
                [(19595 * r + 38470 * g + 7471 * b + 32768) >> 16 for r, g, b in zip(*rows, strict=True)]
                for rows in zip(red, green, blue, strict=True)
            ]
        ]
    shrunk = [transpose(resize(transpose(resize(band, size)), size)) for band in bands]
    found = [int(band[row][column]) for row in range(size) for column in range(size) for band in shrunk]
    apart = [abs(a - b) for a, b in zip(found, b64decode(face["crop"]), strict=True)]
    assert max(apart) <= face["tolerance"]


def place(face: dict[str, Any]) -> tuple[tuple[float, float], float, float]:
    """Step 1: centre, side and tilt."""
    x, y, width, height = face["box"]
    of_box, wanted = face["detector_box"], face["input"]["crop"]
    implied = max(width, height) / of_box["side_eye_distances"] if of_box else 0
    if face["eyes"]:
        right, left = face["eyes"]
    else:
        line = y + height / 2 - of_box["below_eyes"] * implied
        right, left = (x + width / 2 - implied / 2, line), (x + width / 2 + implied / 2, line)
    distance = max(hypot(left[0] - right[0], left[1] - right[1]), 0.6 * implied)
    tilt = atan2(left[1] - right[1], left[0] - right[0])
    below = wanted["below_eyes"] * distance
    centre = ((right[0] + left[0]) / 2 - below * sin(tilt), (right[1] + left[1]) / 2 + below * cos(tilt))
    turned = degrees(tilt) if abs(degrees(tilt)) > wanted["turn_from_degrees"] else 0.0
    return centre, wanted["side_eye_distances"] * distance, turned


def pixel(column: int, row: int, band: int) -> int:
    column, row = min(max(column, 0), WIDTH - 1), min(max(row, 0), HEIGHT - 1)
    return PIXELS[(row * WIDTH + column) * 3 + band]


def cut(band: int, x: float, y: float, side: float) -> Rows:
    whole = floor(side + 0.5)
    left, top = floor(x - whole / 2 + 0.5), floor(y - whole / 2 + 0.5)
    return [[pixel(left + i, top + j, band) for i in range(whole)] for j in range(whole)]


def sample(band: int, x: float, y: float, side: float, tilt: float, size: int) -> Rows:
    n = size * ceil(side / size)
    return [[sample_one(band, x, y, side, tilt, n, (i, j)) for i in range(n)] for j in range(n)]


def sample_one(band: int, x: float, y: float, side: float, tilt: float, n: int, at: tuple[int, int]) -> int:
    across, down = ((one + 0.5 - n / 2) * side / n for one in at)
    angle = radians(tilt)
    u = x + across * cos(angle) - down * sin(angle) - 0.5
    v = y + across * sin(angle) + down * cos(angle) - 0.5
    column, row = floor(u), floor(v)
    upper, lower = (
        (1 - u + column) * pixel(column, row + k, band) + (u - column) * pixel(column + 1, row + k, band)
        for k in (0, 1)
    )
    return floor((1 - v + row) * upper + (v - row) * lower + 0.5)


def resize(rows: Rows, size: int) -> Rows:
    """Step 3, along the rows."""
    side = len(rows[0])
    if side == size:
        return rows
    reach = max(1.0, side / size)
    kernels = []
    for out in range(size):
        middle = (out + 0.5) * side / size
        weights = [max(0.0, 1 - abs(i + 0.5 - middle) / reach) for i in range(side)]
        kernels.append([floor(weight / sum(weights) * 2**22 + 0.5) for weight in weights])
    return [
        [min(max((sum(k * p for k, p in zip(kernel, row, strict=True)) + 2**21) >> 22, 0), 255) for kernel in kernels]
        for row in rows
    ]


def transpose(rows: Rows) -> Rows:
    return [list(column) for column in zip(*rows, strict=True)]
