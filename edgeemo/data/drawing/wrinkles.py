"""The creases that action units cause in the skin, and their depth on a given face."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgeemo.data.drawing.geometry import SIGNS, Features, arc
from edgeemo.data.drawing.person import Identity


@dataclass(frozen=True)
class Wrinkle:
    """One crease of the right half: from `start` to `end`, bent by `bow`, relative to `anchor`."""

    start: tuple[float, float]
    end: tuple[float, float]
    bow: float = 0.0
    anchor: str = "face"  # "face", "eye" (its outer corner) or "mouth" (its corner)


# Action unit -> creases it causes, as the FACS manual lists them under "appearance changes".
WRINKLES: dict[int, tuple[Wrinkle, ...]] = {
    1: (Wrinkle((0.0, -0.57), (0.30, -0.55), -0.01), Wrinkle((0.0, -0.65), (0.26, -0.64), -0.01)),
    2: (Wrinkle((0.20, -0.58), (0.52, -0.53), -0.04), Wrinkle((0.20, -0.66), (0.48, -0.62), -0.03)),
    4: (Wrinkle((0.05, -0.40), (0.06, -0.20)), Wrinkle((0.11, -0.36), (0.08, -0.24))),
    6: (
        Wrinkle((0.04, -0.03), (0.16, -0.09), 0.0, "eye"),
        Wrinkle((0.04, 0.01), (0.17, 0.02), 0.0, "eye"),
        Wrinkle((-0.30, 0.08), (0.0, 0.07), 0.05, "eye"),
    ),
    7: (Wrinkle((-0.28, 0.06), (-0.02, 0.04), 0.05, "eye"),),
    9: (
        Wrinkle((0.0, -0.15), (0.10, -0.12), -0.01),
        Wrinkle((0.0, -0.08), (0.12, -0.03), -0.01),
        Wrinkle((0.10, 0.02), (0.17, 0.14), 0.0),
    ),
    10: (Wrinkle((0.18, 0.20), (0.36, 0.40), -0.05),),
    12: (Wrinkle((-0.14, -0.26), (0.07, 0.02), -0.03, "mouth"),),
    14: (Wrinkle((0.05, -0.07), (0.06, 0.08), 0.0, "mouth"),),
    15: (Wrinkle((0.01, 0.03), (0.05, 0.16), 0.0, "mouth"),),
    16: (Wrinkle((0.0, 0.80), (0.16, 0.77), -0.03),),
    20: (Wrinkle((0.06, -0.08), (0.07, 0.12), 0.0, "mouth"),),
    23: (Wrinkle((0.0, 0.71), (0.17, 0.70), -0.01),),
}


def crease(wrinkle: Wrinkle, features: Features, *, side: int) -> np.ndarray:
    """Return the (13, 2) curve of a wrinkle on one side of the face, relative to its anchor."""
    mirror = np.array([SIGNS[side], 1.0])
    corners = (features.lip_top[0], features.lip_top[-1])
    anchors = {"face": np.zeros(2), "eye": features.upper_lids[side][-1], "mouth": corners[side]}
    start, end = (anchors[wrinkle.anchor] + mirror * end for end in (wrinkle.start, wrinkle.end))
    return arc(start, end, bow=wrinkle.bow)


def depth_of_creases(person: Identity, actions: np.ndarray, *, side: int) -> Iterator[tuple[Wrinkle, float]]:
    """Yield every wrinkle with its depth 0..1, which follows the action unit; smile lines also follow the age."""
    for unit, wrinkles in WRINKLES.items():
        depth = actions[side, unit] * (0.6 + 0.6 * person.age)
        if unit == 12:
            depth = max(depth, 0.6 * person.age)
        if depth > 0.05:
            yield from ((wrinkle, min(depth, 1.0)) for wrinkle in wrinkles)
