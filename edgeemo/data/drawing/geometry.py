"""Action units -> geometry: the curves of a person's brows, lids and lips after the muscles have moved.

Each `shape_` function is a sum: the position of the part at rest, plus a term for each action unit that moves it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeemo.data.drawing.person import Identity

Point = tuple[float, float] | np.ndarray
STEPS = np.linspace(0.0, 1.0, 13)  # a curve is 13 points
TURN = np.linspace(0.0, 2.0 * np.pi, 48, endpoint=False)  # an outline is 48 points
SIGNS = (-1.0, 1.0)  # x direction of side 0 and side 1


@dataclass(frozen=True)
class Features:
    """The moved face: every curve is (13, 2) float64; pairs are ordered by side."""

    brows: tuple[np.ndarray, np.ndarray]  # from the inner end outward
    upper_lids: tuple[np.ndarray, np.ndarray]  # from the inner corner outward
    lower_lids: tuple[np.ndarray, np.ndarray]
    lip_top: np.ndarray  # the four lip edges run from side 0 to side 1
    mouth_top: np.ndarray
    mouth_bottom: np.ndarray
    lip_bottom: np.ndarray
    jaw_drop: float


def arc(start: Point, end: Point, *, bow: float, fullness: float = 2.0) -> np.ndarray:
    """Return a (13, 2) curve from start to end, its middle lower by `bow`; higher fullness makes it boxier."""
    line = np.outer(1.0 - STEPS, start) + np.outer(STEPS, end)
    line[:, 1] += bow * (1.0 - np.abs(2.0 * STEPS - 1.0) ** fullness)
    return line


def shape_brow(person: Identity, au: np.ndarray, *, sign: float) -> np.ndarray:
    """Return (13, 2): AU1 lifts the inner end, AU2 the outer; AU4 lowers both and draws them together."""
    inner_y = person.brow_y + person.brow_tilt - 0.13 * au[1] - 0.02 * au[2] + 0.12 * au[4] + 0.05 * au[9]
    outer_y = person.brow_y + 0.03 - person.brow_tilt + 0.02 * au[1] - 0.14 * au[2] + 0.02 * au[4]
    inner_x = person.eye_x - 0.19 - 0.055 * au[4] - 0.02 * au[9]
    outer_x = person.eye_x + 0.21
    arch = -0.05 - 0.04 * au[2] + 0.035 * au[4] + 0.02 * au[1]
    return arc((sign * inner_x, inner_y), (sign * outer_x, outer_y), bow=arch)


def shape_lids(person: Identity, au: np.ndarray, *, sign: float) -> tuple[np.ndarray, np.ndarray]:
    """Return two (13, 2) lids: AU5 lifts the upper; AU6, AU7 and AU9 push the lower up and narrow the eye."""
    inner = (sign * (person.eye_x - person.eye_width), -0.07)
    outer = (sign * (person.eye_x + person.eye_width), -0.08 + 0.02 * au[1] * au[4])
    squint = 0.40 * au[6] + 0.35 * au[7] + 0.40 * au[9]
    up = person.eye_open * (1.0 + 0.75 * au[5] - 0.5 * squint - 0.2 * au[15] - 0.15 * au[4])
    low = person.eye_open * 0.7 * (1.0 + 0.2 * au[5] - 1.1 * squint)
    return arc(inner, outer, bow=-up, fullness=2.4), arc(inner, outer, bow=low, fullness=2.4)


def lip_corner(person: Identity, au: np.ndarray, *, sign: float) -> tuple[float, float]:
    """Return the lip corner on one side: AU12 moves it up and out, AU15 down, AU20 sideways, AU23 in."""
    x = person.mouth_width + 0.12 * au[12] + 0.02 * au[14] + 0.11 * au[20] - 0.04 * au[23] - 0.06 * au[26]
    y = person.mouth_y + person.mouth_tilt - 0.14 * au[12] - 0.03 * au[14] + 0.10 * au[15]
    return sign * x, y + 0.03 * au[20] + 0.05 * au[26] + 0.015 * au[25]


def shape_mouth(person: Identity, actions: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return four (13, 2) lip edges, top to bottom; AU25 and AU26 open the mouth, AU10 and AU16 move one lip."""
    au = actions.mean(axis=0)
    left, right = (lip_corner(person, actions[side], sign=SIGNS[side]) for side in (0, 1))
    thin = person.lip * (1.0 - 0.55 * au[23] - 0.25 * au[12] - 0.25 * au[20])
    top = person.mouth_y + 0.035 * au[12] - 0.05 * au[10] - 0.02 * au[15] - 0.02 * au[25] - 0.03 * au[26]
    bottom = top + 0.10 * au[25] + 0.30 * au[26] + 0.05 * au[16] + 0.05 * au[10]
    middle_y = (left[1] + right[1]) / 2.0
    edges = (top - thin, top, bottom, bottom + 1.25 * thin)
    fullness = 2.0 + 0.8 * au[26]
    curves = tuple(arc(left, right, bow=y - middle_y, fullness=fullness) for y in edges)
    curves[0][:, 1] += 0.35 * thin * np.exp(-(((STEPS - 0.5) / 0.07) ** 2))  # the dip of Cupid's bow
    return curves


def shape_face(person: Identity, actions: np.ndarray) -> Features:
    """Return the curves of a person for these actions, (2, 28) float64 in 0..1 by side and unit."""
    brows = [shape_brow(person, actions[side], sign=SIGNS[side]) for side in (0, 1)]
    lids = [shape_lids(person, actions[side], sign=SIGNS[side]) for side in (0, 1)]
    lip_top, mouth_top, mouth_bottom, lip_bottom = shape_mouth(person, actions)
    return Features(
        brows=(brows[0], brows[1]),
        upper_lids=(lids[0][0], lids[1][0]),
        lower_lids=(lids[0][1], lids[1][1]),
        lip_top=lip_top,
        mouth_top=mouth_top,
        mouth_bottom=mouth_bottom,
        lip_bottom=lip_bottom,
        jaw_drop=float(0.13 * actions[:, 26].mean()),
    )


def head_outline(person: Identity, features: Features, *, swell: float = 1.0) -> np.ndarray:
    """Return the (48, 2) closed outline of skull and jaw; `swell` > 1 gives that of the hair."""
    x, y = np.cos(TURN), np.sin(TURN)
    below = np.clip(y, 0.0, 1.0)
    x = np.sign(x) * np.abs(x) ** 0.85 * (1.0 - (1.0 - person.jaw) * below**1.5)
    y = y + features.jaw_drop * below**2
    return np.stack([person.width * swell * x, swell * y], axis=1)
