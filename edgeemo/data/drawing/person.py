"""Person, pose and lighting: everything about a face except its expression.

Each class has a `sample_` function that returns a random instance, within the range of people and snapshots.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Identity:
    """The person: lengths in half head heights, tones in grey levels 0..255."""

    width: float = 0.76
    jaw: float = 0.75  # width of the jaw over the width at the ears
    eye_x: float = 0.34
    eye_width: float = 0.155  # half the distance between its corners
    eye_open: float = 0.07
    brow_y: float = -0.33
    brow_tilt: float = 0.0  # at rest: > 0 lowers the inner end, as in anger
    brow_thickness: float = 0.035
    nose_width: float = 0.13
    nose_y: float = 0.27
    mouth_y: float = 0.55
    mouth_width: float = 0.25  # half the distance between the lip corners
    mouth_tilt: float = 0.0  # at rest: > 0 lowers the corners, as in sadness
    lip: float = 0.05
    skin: float = 170.0
    hair: float = 50.0
    hair_style: str = "short"
    hairline: float = -0.66
    parting: float = 0.0
    age: float = 0.2  # 0..1: how deep the creases are at rest
    glasses: bool = False
    beard: float = 0.0  # opacity 0..1
    moustache: float = 0.0  # opacity 0..1


@dataclass(frozen=True)
class Pose:
    """The pose of the head: angles in radians, shifts in half head heights, scale relative to the image."""

    roll_rad: float = 0.0
    yaw_rad: float = 0.0
    pitch_rad: float = 0.0
    shift_x: float = 0.0
    shift_y: float = 0.0
    scale: float = 0.48  # half a head height over the side of the image


@dataclass(frozen=True)
class Light:
    """Lighting and camera: direction in radians, everything else as fractions unless stated otherwise."""

    angle_rad: float = -1.2  # direction of the lamp in the image plane; -pi/2 is overhead
    side: float = 0.25  # brightness the lamp adds on its side of the head
    ambient: float = 0.6
    contrast: float = 1.0
    gamma: float = 1.0
    blur: float = 0.0  # sigma over the side of the image
    noise: float = 0.0  # standard deviation in grey levels
    backdrop: tuple[float, float] = (110.0, 150.0)  # grey level at the top and at the bottom


def sample_identity(rng: np.random.Generator) -> Identity:
    """Sample a person; one in seven has glasses, one in four facial hair."""
    u = rng.uniform
    skin = u(95, 215)
    bearded = rng.random() < 0.22
    return Identity(
        width=u(0.68, 0.82), jaw=u(0.62, 0.88), eye_x=u(0.31, 0.37), eye_width=u(0.135, 0.175),
        eye_open=u(0.055, 0.085), brow_y=u(-0.37, -0.29), brow_tilt=rng.normal(0.0, 0.024),
        brow_thickness=u(0.02, 0.05), nose_width=u(0.10, 0.17), nose_y=u(0.22, 0.31),
        mouth_y=u(0.52, 0.60), mouth_width=u(0.21, 0.29), mouth_tilt=rng.normal(0.0, 0.022),
        lip=u(0.035, 0.07), skin=skin, hair=u(15, min(skin * 0.75, 120)) if u() < 0.9 else u(150, 210),
        hair_style=str(rng.choice(["short", "long", "fringe", "bald"], p=[0.4, 0.3, 0.2, 0.1])),
        hairline=u(-0.76, -0.60), parting=u(-0.5, 0.5), age=u(0.0, 0.6),
        glasses=bool(rng.random() < 0.14), beard=u(0.25, 0.7) * bearded,
        moustache=u(0.3, 0.8) * (bearded or rng.random() < 0.05),
    )  # fmt: skip


def sample_pose(rng: np.random.Generator) -> Pose:
    """Sample a head turned by less than 20 degrees and roughly centred, as a face detector crops it."""
    roll, yaw, pitch = rng.normal(0.0, (0.09, 0.16, 0.10)).clip(-0.33, 0.33)
    shift_x, shift_y = rng.normal(0.0, 0.04, 2)
    return Pose(roll, yaw, pitch, shift_x, shift_y, scale=rng.uniform(0.43, 0.54))


def sample_light(rng: np.random.Generator) -> Light:
    """Sample a lamp above the head on either side, and an imperfect camera."""
    u = rng.uniform
    return Light(
        angle_rad=u(-2.8, -0.3), side=u(0.05, 0.40), ambient=u(0.42, 0.72), contrast=u(0.75, 1.2),
        gamma=u(0.75, 1.35), blur=u(0.002, 0.012), noise=u(1.5, 9.0),
        backdrop=(u(15, 235), u(15, 235)),
    )  # fmt: skip
