"""Scene -> canvas: each function paints one part of the face; `paint_scene` calls them from back to front.

Tones are grey levels 0..255, most of them a fraction of the person's skin or hair.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from edgeemo.data.drawing.canvas import (
    Scene,
    ellipse,
    enlarge,
    fill,
    grid_on_head,
    new_layer,
    ribbon,
    soften,
    to_canvas,
)
from edgeemo.data.drawing.geometry import SIGNS, STEPS, TURN, arc, head_outline
from edgeemo.data.drawing.wrinkles import crease, depth_of_creases


def shading_blobs(scene: Scene) -> np.ndarray:
    """Return (n, 5) float32 soft highlights and shadows: x, y, radius x, radius y, gain (fraction of the skin tone)."""
    p, au = scene.identity, scene.actions.mean(axis=0)
    lamp = np.cos(scene.light.angle_rad)
    mouth_low = scene.features.lip_bottom[6, 1]
    blobs = [
        (0.0, -0.55, 0.40, 0.22, 0.08), (0.0, 0.02, 0.05, 0.22, 0.10), (0.0, p.nose_y - 0.04, 0.06, 0.05, 0.14),
        (0.0, p.nose_y + 0.09, p.nose_width, 0.04, -0.20), (0.0, mouth_low + 0.05, 0.16, 0.04, -0.16),
        (0.0, mouth_low + 0.18, 0.16, 0.09, 0.07), (0.0, -0.20, 0.10, 0.10, -0.12 * au[4]),
        (-0.12 * np.sign(lamp), 0.08, 0.06, 0.20, -0.16 * abs(lamp)),
    ]  # fmt: skip
    for side, sign in enumerate(SIGNS):
        au = scene.actions[side]
        smile = max(au[6], au[12])
        blobs += [
            (sign * p.eye_x, -0.17, 0.17, 0.08, -0.18), (sign * (p.eye_x - 0.14), -0.12, 0.06, 0.08, -0.14),
            (sign * 0.42, 0.20 - 0.07 * smile, 0.15, 0.11, 0.07 + 0.13 * smile),
            (sign * p.eye_x, 0.04, 0.14, 0.03, -0.06 - 0.10 * au[6]),
            (sign * 0.60, 0.45, 0.10, 0.22, -0.10), (sign * 0.24, 0.22, 0.05, 0.07, -0.10 * (au[9] + au[10])),
        ]  # fmt: skip
    return np.array(blobs, dtype=np.float32)


def paint_skin(scene: Scene) -> Image.Image:
    """Paint the canvas in skin tones: an ellipsoid lit by the lamp, then highlights and shadows, then blotches."""
    x, y = grid_on_head(scene)
    across, down = x / (scene.identity.width * 1.1), y / 1.15
    toward_lamp = across * np.cos(scene.light.angle_rad) + down * np.sin(scene.light.angle_rad)
    facing = np.sqrt(np.clip(1.0 - across**2 - down**2, 0.0, 1.0))
    centre_x, centre_y, radius_x, radius_y, gain = shading_blobs(scene).T[:, :, None, None]
    blobs = np.exp(-0.5 * (((x - centre_x) / radius_x) ** 2 + ((y - centre_y) / radius_y) ** 2))
    shade = scene.light.ambient + 0.45 * facing + scene.light.side * toward_lamp
    shade += (1.3 * gain * blobs).sum(axis=0) + 0.012 * scene.texture
    return enlarge(scene.identity.skin * shade, scene.canvas_px)


def paint_backdrop(scene: Scene) -> Image.Image:
    """Paint a slightly cloudy backdrop with a gradient from top to bottom."""
    top, bottom = scene.light.backdrop
    rows = np.linspace(top, bottom, 8)[:, None] + 14.0 * scene.texture[:8, :8]
    return enlarge(rows, scene.canvas_px)


def paint_behind(canvas: Image.Image, scene: Scene) -> None:
    """Paint what is behind the head: long hair, shoulders, neck and ears."""
    p, draw = scene.identity, ImageDraw.Draw(canvas)
    if p.hair_style == "long":
        fill(draw, head_outline(p, scene.features, swell=1.18) * (1.04, 1.0), tone=p.hair * 0.85, scene=scene)
        sides = p.width * 1.18 * np.array([-1.0, -1.05, 1.05, 1.0])
        fill(draw, np.stack([sides, [-0.1, 1.4, 1.4, -0.1]], axis=1), tone=p.hair * 0.8, scene=scene)
    elif p.hair_style != "bald":
        tufts = 1.0 + 0.025 * scene.texture.ravel()[: len(TURN), None]
        crown = head_outline(p, scene.features, swell=1.13) * (1.0, 0.72) - (0.0, 0.36)
        fill(draw, crown * tufts, tone=p.hair * 0.9, scene=scene)
    fill(draw, ellipse((0.0, 1.75), (1.25, 0.6)), tone=255.0 - scene.light.backdrop[1], scene=scene)
    neck = np.array([(-0.42, 0.5), (-0.45, 1.5), (0.45, 1.5), (0.42, 0.5)])
    fill(draw, neck, tone=p.skin * 0.62, scene=scene)
    for sign in SIGNS:
        fill(draw, ellipse((sign * p.width, 0.02), (0.09, 0.17)), tone=p.skin * 0.75, scene=scene)


def crease_layer(scene: Scene) -> Image.Image:
    """Return the darkness of shadows, 0..255: wrinkles, nostrils and the sides of the nose."""
    layer, draw = new_layer(scene)
    nose_y, wide = scene.identity.nose_y, scene.identity.nose_width
    flare = 0.03 * scene.actions[:, [9, 10]].max()
    for side, sign in enumerate(SIGNS):
        for wrinkle, depth in depth_of_creases(scene.identity, scene.actions, side=side):
            fill(draw, ribbon(crease(wrinkle, scene.features, side=side), 0.045), tone=150 * depth, scene=scene)
        wing = arc((sign * wide, nose_y - 0.09 - flare), (sign * wide * 0.8, nose_y + 0.05 - flare), bow=0.0)
        wing[:, 0] += sign * 0.035 * np.sin(np.pi * STEPS)
        fill(draw, ribbon(wing, 0.04), tone=110, scene=scene)
        fill(draw, ellipse((sign * wide * 0.5, nose_y + 0.045 - flare), (0.04, 0.022)), tone=190, scene=scene)
        fill(draw, ribbon(scene.features.upper_lids[side] - (0.0, 0.045), 0.025), tone=90, scene=scene)
    return soften(layer, 0.005)


def paint_mouth(canvas: Image.Image, scene: Scene) -> None:
    """Paint the lips, the dark mouth between them, and teeth if the upper lip is raised or the lips part."""
    f, draw, skin = scene.features, ImageDraw.Draw(canvas), scene.identity.skin
    fill(draw, np.concatenate([f.lip_top, f.mouth_top[::-1]]), tone=skin * 0.62, scene=scene)
    fill(draw, np.concatenate([f.mouth_bottom, f.lip_bottom[::-1]]), tone=skin * 0.74, scene=scene)
    fill(draw, ribbon(f.mouth_top, 0.03), tone=skin * 0.32, scene=scene)
    if (f.mouth_bottom[6, 1] - f.mouth_top[6, 1]) < 0.02:
        return
    fill(draw, np.concatenate([f.mouth_top, f.mouth_bottom[::-1]]), tone=skin * 0.18, scene=scene)
    teeth = 0.55 * np.clip(f.mouth_bottom - f.mouth_top, 0.0, 0.10)
    shown = scene.actions[:, [10, 12, 20, 25]].max() * (0.75 + 0.1 * scene.texture[0, 0])
    if shown > 0.35:
        fill(draw, np.concatenate([f.mouth_top, (f.mouth_top + teeth)[::-1]]), tone=80 + 130 * shown, scene=scene)


def paint_eyes(canvas: Image.Image, scene: Scene) -> None:
    """Paint the eyeballs, visible between the lids, then the dark edges of the lids."""
    f, p = scene.features, scene.identity
    eyeballs, draw = new_layer(scene)
    draw.rectangle((0, 0, scene.canvas_px, scene.canvas_px), fill=int(95 + 0.5 * p.skin))
    gap, draw_gap = new_layer(scene)
    gaze = 0.03 * scene.texture[1, :2].clip(-1.5, 1.5) * (1.0, 0.4)
    for side, sign in enumerate(SIGNS):
        iris = (sign * p.eye_x + gaze[0], -0.085 + gaze[1])
        fill(draw, ellipse(iris, (0.072, 0.072)), tone=0.35 * p.hair + 25, scene=scene)
        fill(draw, ellipse(iris, (0.035, 0.035)), tone=8, scene=scene)
        fill(draw, ellipse((iris[0] - 0.02, iris[1] - 0.025), (0.015, 0.015)), tone=225, scene=scene)
        fill(draw, ribbon(f.upper_lids[side], 0.035), tone=55, scene=scene)
        opening = np.concatenate([f.upper_lids[side], f.lower_lids[side][::-1]])
        fill(draw_gap, opening, tone=255, scene=scene)
    canvas.paste(eyeballs, mask=gap)
    draw = ImageDraw.Draw(canvas)
    for upper, lower in zip(f.upper_lids, f.lower_lids, strict=True):
        fill(draw, ribbon(lower, 0.016), tone=p.skin * 0.6, scene=scene)
        fill(draw, ribbon(upper, 0.036, blunt=0.4), tone=p.skin * 0.22, scene=scene)


def hair_layer(scene: Scene) -> Image.Image:
    """Return the opacity of hair, 0..255: beard, moustache, brows and hair over the forehead."""
    p, f = scene.identity, scene.features
    layer, draw = new_layer(scene)
    outline = head_outline(p, f)
    if p.beard:
        cheek = arc((p.width * 0.96, 0.30), (-p.width * 0.96, 0.30), bow=0.34, fullness=3.0)
        fill(draw, np.concatenate([outline[3:22], cheek[::-1]]), tone=255 * p.beard, scene=scene)
        fill(draw, np.concatenate([f.lip_top, f.lip_bottom[::-1]]), tone=0, scene=scene)
    if p.moustache:
        fill(draw, ribbon(f.lip_top - (0.0, 0.05), 0.085), tone=255 * p.moustache, scene=scene)
    if p.hair_style != "bald":
        low = p.hairline + (0.10 if p.hair_style == "fringe" else 0.0)
        line = arc((-p.width, -0.18), (p.width, -0.18), bow=low + 0.18, fullness=3.0)
        line[:, 1] += 0.3 * (STEPS - 0.5) * p.parting * np.sin(np.pi * STEPS) + 0.02 * scene.texture[2, :13]
        fill(draw, np.concatenate([line, outline[47:24:-1] * (1.06, 1.12)]), tone=250, scene=scene)
    for brow in f.brows:
        fill(draw, ribbon(brow, p.brow_thickness * 2.0, blunt=0.75), tone=225, scene=scene)
    return soften(layer, 0.006)


def paint_glasses(canvas: Image.Image, scene: Scene) -> None:
    """Paint two rims and a bridge if the person wears glasses."""
    if not scene.identity.glasses:
        return
    draw, thick = ImageDraw.Draw(canvas), max(1, round(0.012 * scene.canvas_px))
    for sign in SIGNS:
        rim = ellipse((sign * scene.identity.eye_x, -0.05), (0.235, 0.19))
        draw.line(to_canvas(np.concatenate([rim, rim[:1]]), scene), fill=35, width=thick)
    bridge = arc((-0.12, -0.08), (0.12, -0.08), bow=-0.03)
    draw.line(to_canvas(bridge, scene), fill=35, width=thick)


def paint_occluder(canvas: Image.Image, rng: np.random.Generator, *, scene: Scene) -> None:
    """Occlude one face in eight by a strand of hair or a hand at the chin."""
    kind, side = rng.random(), rng.choice(SIGNS)
    if kind < 0.06:
        strand = arc((side * 0.2, -0.9), (side * rng.uniform(0.35, 0.6), rng.uniform(0.0, 0.6)), bow=0.1)
        band, tone = ribbon(strand, rng.uniform(0.05, 0.10)), scene.identity.hair + 20.0
    elif kind < 0.125:
        hand = arc((side * 0.95, 1.3), (side * rng.uniform(0.2, 0.5), rng.uniform(0.4, 0.8)), bow=0.0)
        band, tone = ribbon(hand, rng.uniform(0.25, 0.4), blunt=1.0), scene.identity.skin * 0.82
    else:
        return
    mask, draw = new_layer(scene)
    fill(draw, band, tone=255, scene=scene)
    canvas.paste(int(tone), mask=soften(mask, 0.006))


def paint_scene(scene: Scene, rng: np.random.Generator) -> Image.Image:
    """Paint the supersampled canvas from back to front."""
    canvas = paint_backdrop(scene)
    paint_behind(canvas, scene)
    head, draw = new_layer(scene)
    fill(draw, head_outline(scene.identity, scene.features), tone=255, scene=scene)
    canvas.paste(paint_skin(scene), mask=head)
    canvas = ImageChops.multiply(canvas, ImageChops.invert(crease_layer(scene)))
    paint_mouth(canvas, scene)
    paint_eyes(canvas, scene)
    hair = enlarge(scene.identity.hair * (1.0 + 0.13 * scene.texture[:5]) + 8.0, scene.canvas_px)
    canvas.paste(hair, mask=hair_layer(scene))
    paint_glasses(canvas, scene)
    paint_occluder(canvas, rng, scene=scene)
    return canvas
