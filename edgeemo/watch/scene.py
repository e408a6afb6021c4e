"""A room that is rendered, with people whose places and emotions are known: a source without a camera.

The faces are synthetic (`edgeemo.data.drawing`): they show nobody, and results on them say nothing about photographs.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cache
from itertools import accumulate
from math import ceil, pi, sin, sqrt

import numpy as np
from PIL import Image

from edgeemo.data.drawing.actions import PROTOTYPES, sample_actions
from edgeemo.data.drawing.camera import draw_person
from edgeemo.data.drawing.person import Light, Pose, sample_identity
from edgeemo.errors import UsageError, known
from edgeemo.faces.detection import Box

LABELS = tuple(PROTOTYPES)
CLEAR = ("neutral", "happiness", "surprise")  # those that models of FER+ recognise on drawn faces
# Seeds of people whom the packaged detector finds with each emotion, of the first 60 those with the highest scores.
IDENTITIES = (3, 23, 35, 29, 19, 42, 16, 24, 33, 28, 44, 48, 13, 36, 15, 38, 30, 51, 59, 8, 0, 7, 5, 31)
MIN_SIDE = 48  # pixels of a face with its shoulders
GRAIN = 64  # the noise is a part of a larger field, shifted at random by up to as many pixels
TILE_PX = 160  # side of a rendered face; it is resized to what the frame needs
VARIANTS = 4  # of each face, with other small movements of face and head
MOVE_SECONDS = 0.32  # a face shows one variant as long as this
HELD = 24  # emotions in a row, which then start again
SCALE = 0.42  # half a head height over the side of a rendered face
HEAD = (0.5 - 0.72 * SCALE, 0.5 - 0.57 * SCALE, 1.42 * SCALE)  # left, top, side of a face in its tile
BACKDROP = 118  # grey level behind the people
TINTS = ((1.0, 0.86, 0.76), (1.0, 0.90, 0.82), (0.98, 0.82, 0.70))  # of skin and hair; walls are bluish
WALL = (0.94, 0.98, 1.0)


@dataclass(frozen=True)
class Truth:
    """A face in a frame of a scene.

    person: from 0, the same for the same face. box: x, y, width, height in pixels, about as the packaged detector's.
    label: the emotion that it shows, one of `edgeemo.data.drawing.PROTOTYPES`.
    """

    person: int
    box: Box
    label: str


@dataclass(frozen=True)
class _Person:
    """What does not change about a person.

    centre, swing: of the path, in pixels. periods, phases: (4,) seconds and radians of its four sines. side: of the
    tile, in pixels. ends: seconds after which each of `labels` ends. away: seconds of a visit and between two, or None.
    """

    identity: int
    centre: tuple[float, float]
    swing: tuple[float, float]
    periods: np.ndarray
    phases: np.ndarray
    side: float
    labels: tuple[str, ...]
    ends: tuple[float, ...]
    tint: tuple[float, float, float]
    visit: float | None
    arrives: float

    def is_present(self, seconds: float) -> bool:
        """Return whether the person is in the room; who visits is away every third part of the time."""
        return self.visit is None or (seconds + self.arrives) % (1.5 * self.visit) < self.visit

    def locate(self, seconds: float) -> tuple[float, float, int]:
        """Return centre and side of the tile, in pixels."""
        waves = [
            sin(2 * pi * seconds / period + phase) for period, phase in zip(self.periods, self.phases, strict=True)
        ]
        x = self.centre[0] + self.swing[0] * (0.75 * waves[0] + 0.25 * waves[1])
        y = self.centre[1] + self.swing[1] * (0.75 * waves[2] + 0.25 * waves[3])
        return x, y, round(self.side * (1 + 0.06 * waves[1]))

    def show(self, seconds: float) -> str:
        """Return the label at a time."""
        return self.labels[bisect_right(self.ends, seconds % self.ends[-1])]


@dataclass
class Scene:
    """Frames of people who wander, change their expressions, and may come and go; any frame in any order.

    people: how many. seed: another room; the same seed gives the same frames on one machine. width, height: of a frame
    in pixels. fps: frames per second. labels: which emotions are shown. hold: mean seconds of one expression, between
    half and one and a half of it. crossing: people walk the whole room and hide each other, instead of each staying in
    a part of it. visit: seconds that a person stays, who is then away half as long; None: for ever. noise: standard
    deviation of the sensor's noise, in grey levels.

    Raises UsageError for a number of people that does not fit into the frame, and unknown labels.
    """

    people: int = 1
    seed: int = 0
    width: int = 640
    height: int = 480
    fps: float = 25.0
    _: KW_ONLY
    labels: Sequence[str] = LABELS
    hold: float = 4.0
    crossing: bool = False
    visit: float | None = None
    noise: float = 2.5

    def __post_init__(self) -> None:
        if not self.labels:
            raise UsageError(f"no emotion to show; known: {', '.join(LABELS)}")
        for label in self.labels:
            if label not in PROTOTYPES:
                raise known("emotion", label, PROTOTYPES)
        if not 0 <= self.people <= len(IDENTITIES):
            raise UsageError(f"{self.people} people in a scene; expected 0 to {len(IDENTITIES)}")
        self._side, cells = _divide(self.people, self.width, self.height)
        if self._side < MIN_SIDE:
            size = f"{self.width}x{self.height} px"
            raise UsageError(f"{self.people} people do not fit into {size}; give fewer people or a larger frame")
        self._people = [self._make_person(number, cell) for number, cell in enumerate(cells)]
        self._wall = _make_wall(self.width, self.height)
        grain = np.random.default_rng(self.seed).normal(size=(self.height + GRAIN, self.width + GRAIN, 1))
        self._noise = np.rint(self.noise * grain).astype(np.int16)
        self._draw = cache(self._draw_tile)

    def frame(self, number: int) -> tuple[np.ndarray, list[Truth]]:
        """Return frame `number` >= 0, (height, width, 3) uint8 RGB, and the faces in it, the nearest last."""
        seconds = number / self.fps
        image, truths = self._wall.copy(), []
        for k, person in enumerate(self._people):
            if person.is_present(seconds):
                label = person.show(seconds)
                truths.append(Truth(k, _paste(image, self._choose(k, label, seconds), person.locate(seconds)), label))
        rows, columns = np.random.default_rng([self.seed, number]).integers(0, GRAIN, 2)
        noisy = np.asarray(image) + self._noise[rows : rows + self.height, columns : columns + self.width]
        return np.clip(noisy, 0, 255).astype(np.uint8), truths

    def _make_person(self, number: int, cell: Box) -> _Person:
        rng = np.random.default_rng([self.seed, number])
        x, y, width, height = (0.0, 0.0, self.width, self.height) if self.crossing else cell
        margin = 0.53 * self._side
        shown = [self.labels[int(rng.integers(len(self.labels)))]]
        while len(self.labels) > 1 and len(shown) < HELD:
            others = [one for one in self.labels if one != shown[-1]]
            shown.append(others[int(rng.integers(len(others)))])
        held = self.hold * rng.uniform(0.5, 1.5, len(shown))
        return _Person(
            identity=IDENTITIES[(number + self.seed) % len(IDENTITIES)],
            centre=(x + width / 2, y + height / 2),
            swing=(max(width / 2 - margin, 0.0), max(height / 2 - margin, 0.0)),
            periods=rng.uniform(5.0, 9.0, 4) * (1.0, 0.6, 1.3, 0.7),
            phases=rng.uniform(0.0, 2 * pi, 4),
            side=self._side,
            labels=tuple(shown),
            ends=tuple(accumulate(float(one) for one in held)),
            tint=TINTS[number % len(TINTS)],
            visit=self.visit,
            arrives=float(rng.uniform(0.0, 1.5 * self.visit)) if self.visit else 0.0,
        )

    def _choose(self, number: int, label: str, seconds: float) -> Image.Image:
        moment = int(seconds / MOVE_SECONDS)
        variant = int(np.random.default_rng([self.seed, number, moment]).integers(VARIANTS))
        return self._draw(number, label, variant)

    def _draw_tile(self, number: int, label: str, variant: int) -> Image.Image:
        """Return a face with its soft outline as RGBA."""
        person = self._people[number]
        rng = np.random.default_rng([self.seed, number, LABELS.index(label), variant])
        light = Light(blur=0.004, backdrop=(BACKDROP, BACKDROP))  # its noise would move with the face
        roll, yaw, pitch = rng.normal(0.0, (0.04, 0.08, 0.05)).clip(-0.15, 0.15)
        pose = Pose(roll, yaw, pitch, scale=SCALE)
        identity = sample_identity(np.random.default_rng(person.identity))
        actions = sample_actions(label, rng)
        grey = draw_person(identity, actions, rng, size=TILE_PX, pose=pose, light=light)
        colour = np.rint(grey[..., None] * np.array(person.tint)).astype(np.uint8)
        return Image.fromarray(np.dstack([colour, _make_outline()]))


def _divide(people: int, width: int, height: int) -> tuple[float, list[Box]]:
    """Return the side of a tile and the part of the frame, x, y, width, height, of each person."""
    columns = max(1, ceil(sqrt(people * width / height / 1.2)))
    rows = max(1, ceil(people / columns))
    across, down = width / columns, height / rows
    side = min(0.42 * height, 0.9 * across, 0.9 * down)
    return side, [(k % columns * across, k // columns * down, across, down) for k in range(people)]


@cache
def _make_outline() -> np.ndarray:
    """Return (TILE_PX, TILE_PX) uint8: opaque over head and shoulders, with a soft edge."""
    axis = (np.arange(TILE_PX) + 0.5) / TILE_PX - 0.5
    distance = np.hypot(axis[None] / 0.46, axis[:, None] / 0.5)
    return np.clip((1.0 - distance) * 255 * 8, 0, 255).astype(np.uint8)


def _make_wall(width: int, height: int) -> Image.Image:
    shade = BACKDROP + 12 * np.linspace(-1, 1, height)[:, None] * np.ones(width)
    return Image.fromarray(np.rint(shade[..., None] * np.array(WALL)).astype(np.uint8))


def _paste(image: Image.Image, tile: Image.Image, place: tuple[float, float, int]) -> Box:
    """Paste a face at centre and side; return its box."""
    x, y, side = place
    left, top = round(x - side / 2), round(y - side / 2)
    small = tile.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0)
    image.paste(small, (left, top), small)
    return left + HEAD[0] * side, top + HEAD[1] * side, HEAD[2] * side, HEAD[2] * side
