"""Geometry -> pixels: the scene, the projection of the head onto the canvas, and the drawing tools.

The canvas is a grey Pillow image, a few times larger than the photograph; a layer is another one of the same size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from edgeemo.data.drawing.geometry import STEPS, TURN, Features
from edgeemo.data.drawing.person import Identity, Light, Pose

SHADE_GRID = 32  # shading is smooth, so it is computed on 32 x 32 points and enlarged
AHEAD, BEHIND = np.array([*range(1, 13), 12]), np.array([0, *range(12)])  # the neighbours of a curve's 13 points
CIRCLE = np.stack([np.cos(TURN[::3]), np.sin(TURN[::3])], axis=1)


@dataclass(frozen=True)
class Scene:
    """Everything needed to paint one image; `canvas_px` is the side of the supersampled canvas."""

    identity: Identity
    features: Features
    actions: np.ndarray  # (2, 28) float64 in 0..1, by side and action unit
    pose: Pose
    light: Light
    canvas_px: int
    to_px: np.ndarray  # (4, 2) float64: [x, y, z, 1] of the head -> canvas pixels
    texture: np.ndarray  # (32, 32) float64, standard normal


def depth(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the distance by which the head, modelled as half an ellipsoid, protrudes towards the camera at (x, y)."""
    return 0.6 * np.sqrt(np.maximum(1.0 - (x / 0.85) ** 2 - (y / 1.1) ** 2, 0.0))


def projection(pose: Pose, canvas_px: int) -> np.ndarray:
    """Return (4, 2) float64 that maps [x, y, z, 1] to canvas pixels: yaw and pitch, then roll, then scale."""
    cos, sin = np.cos(pose.roll_rad), np.sin(pose.roll_rad)
    roll = np.array([[cos, sin], [-sin, cos]])
    turned = np.array([
        [np.cos(pose.yaw_rad), 0.0], [0.0, np.cos(pose.pitch_rad)],
        [np.sin(pose.yaw_rad), np.sin(pose.pitch_rad)],
    ])  # fmt: skip
    shift = np.array([[pose.shift_x, pose.shift_y]]) + 0.5 / pose.scale
    return pose.scale * canvas_px * np.concatenate([turned @ roll, shift])


def to_canvas(points: np.ndarray, scene: Scene) -> list[float]:
    """Return flat [x, y, x, y, ...] in canvas pixels, from (n, 2) head coordinates."""
    solid = np.ones((len(points), 4))
    solid[:, :2] = points
    solid[:, 2] = depth(points[:, 0], points[:, 1])
    flat: list[float] = (solid @ scene.to_px).ravel().tolist()
    return flat


def grid_on_head(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Return two (32, 32) float32: the head coordinates of each shading point (the inverse of `to_canvas`)."""
    pose, axis = scene.pose, (np.arange(SHADE_GRID, dtype=np.float32) + 0.5) / SHADE_GRID - 0.5
    x, y = np.meshgrid(axis / pose.scale - pose.shift_x, axis / pose.scale - pose.shift_y)
    cos, sin = np.cos(pose.roll_rad), np.sin(pose.roll_rad)
    x, y = x * cos + y * sin, y * cos - x * sin
    z = depth(x, y)  # of the turned head; accurate enough at these angles
    return x - z * np.sin(pose.yaw_rad), y - z * np.sin(pose.pitch_rad)


def ribbon(curve: np.ndarray, width: float, *, blunt: float = 0.0) -> np.ndarray:
    """Return a (26, 2) polygon around a curve, tapered at both ends, less at the first as blunt -> 1."""
    along = curve[AHEAD] - curve[BEHIND]
    across = along[:, ::-1] * (-1.0, 1.0) / (np.hypot(along[:, :1], along[:, 1:]) + 1e-9)
    taper = np.maximum(np.sin(np.pi * STEPS), blunt * (1.0 - STEPS) ** 0.5)
    offset = across * (0.5 * width * taper)[:, None]
    return np.concatenate([curve + offset, (curve - offset)[::-1]])


def fill(draw: ImageDraw.ImageDraw, points: np.ndarray, *, tone: float, scene: Scene) -> None:
    """Fill a polygon of head coordinates with one grey level."""
    draw.polygon(to_canvas(points, scene), fill=int(min(max(tone, 0.0), 255.0)))


def ellipse(centre: tuple[float, float], radii: tuple[float, float]) -> np.ndarray:
    """Return a (16, 2) ellipse."""
    return CIRCLE * radii + centre


def new_layer(scene: Scene) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Return an empty grey layer of the size of the canvas, and its `ImageDraw`."""
    layer = Image.new("L", (scene.canvas_px, scene.canvas_px), 0)
    return layer, ImageDraw.Draw(layer)


def soften(layer: Image.Image, radius: float) -> Image.Image:
    """Blur a layer; the radius is a fraction of the side of the canvas."""
    return layer.filter(ImageFilter.GaussianBlur(radius * layer.width))


def enlarge(values: np.ndarray, canvas_px: int) -> Image.Image:
    """Enlarge a coarse (h, w) array of grey levels to a smooth canvas."""
    grey = Image.fromarray(np.clip(values, 0.0, 255.0).astype(np.uint8))
    return grey.resize((canvas_px, canvas_px), Image.Resampling.BICUBIC)
