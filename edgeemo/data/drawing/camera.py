"""Canvas -> photograph: lens and sensor effects, and `draw_face`, which runs all steps for a label and a seed."""

from __future__ import annotations

import zlib

import numpy as np
from PIL import Image

from edgeemo.data.drawing.actions import PROTOTYPES, sample_actions
from edgeemo.data.drawing.canvas import SHADE_GRID, Scene, projection, soften
from edgeemo.data.drawing.geometry import shape_face
from edgeemo.data.drawing.paint import paint_scene
from edgeemo.data.drawing.person import Identity, Light, Pose, sample_identity, sample_light, sample_pose

SUPERSAMPLE = 3  # canvas pixels per image pixel: Pillow's polygons are not anti-aliased


def photograph(canvas: Image.Image, light: Light, *, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return (size, size) uint8: the canvas downscaled, blurred, exposed and with sensor noise."""
    sampled = soften(canvas.resize((size, size), Image.Resampling.BOX), light.blur)
    grey = np.asarray(sampled, dtype=np.float32) / 255.0
    exposed = 0.5 + light.contrast * (grey**light.gamma - 0.5)
    noise = light.noise * rng.standard_normal((size, size), dtype=np.float32)
    return np.clip(255.0 * exposed + noise, 0.0, 255.0).astype(np.uint8)


def draw_face(label: str, *, seed: int, size: int = 64) -> np.ndarray:
    """Draw a face with the emotion `label`: (size, size) uint8, grey, the same for the same seed.

    `seed` is an integer >= 0; person, pose and lighting do not depend on `size`.

    Raises ValueError if the label is not in `PROTOTYPES`.
    """
    if label not in PROTOTYPES:
        raise ValueError(f"no synthetic face for the label {label!r}; known: {', '.join(PROTOTYPES)}")
    # crc32, because Python's hash of a string differs between processes.
    rng = np.random.default_rng(np.random.SeedSequence([zlib.crc32(label.encode()), seed]))
    person, actions = sample_identity(rng), sample_actions(label, rng)
    return draw_person(person, actions, rng, size=size)


def draw_person(
    person: Identity,
    actions: np.ndarray,
    rng: np.random.Generator,
    *,
    size: int,
    pose: Pose | None = None,
    light: Light | None = None,
) -> np.ndarray:
    """Draw a person with these action units, (2, 28) of 0..1: (size, size) uint8, grey; pose and light are random."""
    pose = pose or sample_pose(rng)
    scene = Scene(
        identity=person,
        features=shape_face(person, actions),
        actions=actions,
        pose=pose,
        light=light or sample_light(rng),
        canvas_px=size * SUPERSAMPLE,
        to_px=projection(pose, size * SUPERSAMPLE),
        texture=rng.standard_normal((SHADE_GRID, SHADE_GRID)),
    )
    return photograph(paint_scene(scene, rng), scene.light, size=size, rng=rng)
