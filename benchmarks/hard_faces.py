"""Recall of a face detector on hard inputs, made of public-domain photos that packages from registries bring.

python benchmarks/hard_faces.py [FOLDER | DETECTOR ...]     (writes benchmarks/results/faces/hard.json)

FOLDER: further photos, by the names below: biden.jpg and obama.jpg of the source archive of face_recognition 1.3.0,
official portraits (tests/test_images). The others are in matplotlib and scikit-image. They show four people, each in
VARIANTS sizes and mirrored: that is enough to see what fails, and too little to rank detectors by a few points.

DETECTOR: further ones, as `load_detector` takes them: centerface, or the path of a YuNet file.

A face counts as found if its box and the square about its true eyes overlap by MIN_IOU; any other box is false.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from edgeemo import images
from edgeemo.faces import load_detector
from edgeemo.faces.merge import compute_iou
from edgeemo.faces.passes import FACES
from edgeemo.faces.search import SearchDetector
from edgeemo.progress import track
from edgeemo.report import files
from edgeemo.report.facts import make_header
from edgeemo.report.result import Measurement
from edgeemo.report.table import Table

OUT = Path(__file__).parent / "results" / "faces" / "hard.json"
EYES = {  # of the person: right, left, in pixels; set by hand
    "astronaut.png": ((204, 103), (245, 105)),
    "grace_hopper.jpg": ((219, 191), (306, 188)),
    "obama.jpg": ((438, 213), (550, 215)),
    "biden.jpg": ((525, 325), (655, 338)),
}
FACELESS = ("coffee.png", "chelsea.png", "brick.png", "grass.png", "gravel.png", "hubble_deep_field.jpg", "moon.png")
FACELESS += ("motorcycle_left.png", "page.png", "retina.jpg", "rocket.jpg", "text.png", "ihc.png", "cell.png")
PACKAGES = {"skimage": "data", "matplotlib": "mpl-data/sample_data"}
MIN_IOU = 0.35
FACE = 2.5  # side of a face's square, in distances between the eyes; its centre lies 0.4 of them below the eyes
BELOW = 0.4
SCALES = (100, 120, 140, 160)  # pixels of the face; each also mirrored
SMALL = (16, 20, 24, 28, 32, 40)  # pixels of the face in 640x480
VGA, PHOTO = (640, 480), (4000, 3000)
GRAY = (96, 96, 96)


@dataclass(frozen=True)
class Scene:
    """An image and its true faces."""

    image: Image.Image
    eyes: np.ndarray  # (N, 2, 2): right and left eye, x and y

    @property
    def boxes(self) -> np.ndarray:
        """(N, 4): the squares about the eyes."""
        across = self.eyes[:, 1] - self.eyes[:, 0]
        distance = np.linalg.norm(across, axis=1)[:, None]
        down = np.stack([-across[:, 1], across[:, 0]], axis=1)
        centre = self.eyes.mean(axis=1) + BELOW * down
        side = np.repeat(FACE * distance, 2, axis=1)
        return np.concatenate([centre - side / 2, side], axis=1)


def find_photos(folders: Sequence[Path] = ()) -> dict[str, Path]:
    """Paths of the photos that are here, by file name."""
    places = list(folders)
    for package, below in PACKAGES.items():
        spec = find_spec(package)
        if spec and spec.submodule_search_locations:
            places += [Path(spec.submodule_search_locations[0]) / below]
    return {name: place / name for place in places for name in (*EYES, *FACELESS) if (place / name).is_file()}


def read_people(photos: dict[str, Path]) -> list[Scene]:
    """The photos with a face, and their mirror images."""
    people = []
    for name, eyes in EYES.items():
        if name in photos:
            image = Image.fromarray(images.read(photos[name])).convert("RGB")
            points = np.array([eyes], float)
            mirrored = np.stack([[image.width, 0] + points[0, k] * [-1, 1] for k in (1, 0)])[None]
            people += [Scene(image, points), Scene(ImageOps.mirror(image), mirrored)]
    return people


def show(
    person: Scene, face: float, *, size: tuple[int, int] = VGA, at: tuple[float, float] = (0.5, 0.5), turned: float = 0
) -> Scene:
    """The person's photo on a canvas, turned anticlockwise by degrees.

    face: side of the face in pixels; at: where its centre is, as parts of the canvas.
    """
    scale = face / person.boxes[0, 2]
    width, height = (round(length * scale) for length in person.image.size)
    photo = person.image.resize((width, height), Image.Resampling.LANCZOS)
    box, eyes = person.boxes[0] * scale, person.eyes * scale
    centre = box[:2] + box[2:] / 2
    photo = photo.rotate(turned, Image.Resampling.BICUBIC, center=tuple(centre), fillcolor=GRAY)
    angle = np.radians(turned)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    target = np.round(np.array(size) * at - centre)
    canvas = Image.new("RGB", size, GRAY)
    canvas.paste(photo, tuple(int(one) for one in target))
    return Scene(canvas, (eyes - centre) @ turn.T + centre + target)


def crowd(
    people: Sequence[Scene], face: int, *, size: tuple[int, int], grid: tuple[int, int], back: Image.Image | None
) -> Scene:
    """Many faces with their surroundings, twice as wide as the face, in the cells of a grid."""
    canvas = back.resize(size) if back else Image.new("RGB", size, GRAY)
    eyes, patch = [], 2 * face
    cells = [(column, row) for row in range(grid[1]) for column in range(grid[0])]
    rng = np.random.default_rng(face)
    for number, cell in enumerate(cells):
        part = show(people[number % len(people)], face, size=(patch, patch))
        room = [length / count - patch for length, count in zip(size, grid, strict=True)]
        corner = [
            int(k * length / count + max(0, gap) * rng.random())
            for k, length, count, gap in zip(cell, size, grid, room, strict=True)
        ]
        canvas.paste(part.image, tuple(corner))
        eyes.append(part.eyes[0] + corner)
    return Scene(canvas, np.stack(eyes))


def scale_values(scene: Scene, factor: float) -> Scene:
    """A darker or brighter image, clipped to 8 bits; a dark one has the noise of a camera, of 2 levels."""
    values = np.asarray(scene.image).astype(float) * factor
    if factor < 1:
        values += np.random.default_rng(0).normal(0, 2, values.shape)
    return replace(scene, image=Image.fromarray(np.clip(np.round(values), 0, 255).astype(np.uint8)))


def cover(scene: Scene) -> Scene:
    """The lower half of the face, from below the eyes' line by 0.4 distances, under a flat patch."""
    image = scene.image.copy()
    x, y, side, _ = scene.boxes[0]
    image.paste((70, 90, 140), (int(x), int(y + side / 2), int(x + side), int(y + side)))
    return replace(scene, image=image)


def crop_tight(person: Scene, share: float) -> Scene:
    """A square of 160 px whose side the face fills to `share`, without any margin around it."""
    return show(person, 160 * share, size=(160, 160))


def make_scenes(people: list[Scene], photos: dict[str, Path]) -> Iterator[tuple[str, list[Scene]]]:
    """Every condition with its scenes."""
    plain = [show(person, face) for person in people for face in SCALES]
    yield "as it is", plain
    for turned in (15, 30, 45, 90, 180):
        yield f"turned {turned} degrees", [show(one, face, turned=turned) for one in people for face in SCALES]
    for factor in (0.12, 0.05, 0.025):
        yield f"dark x{factor}", [scale_values(one, factor) for one in plain]
    yield "overexposed x2.5", [scale_values(one, 2.5) for one in plain]
    yield "lower half covered", [cover(one) for one in plain]
    yield "left half outside the frame", [show(one, face, at=(0, 0.5)) for one in people for face in SCALES]
    for share in (0.6, 0.85):
        yield f"face fills {share:.0%}", [show(one, 480 * share) for one in people]
    yield "tight crop of 160 px", [crop_tight(one, share) for one in people for share in (0.75, 0.84, 0.95)]
    for face in SMALL:
        yield (
            f"face of {face} px in 640x480",
            [show(one, face, at=at) for one in people for at in ((0.5, 0.5), (0.3, 0.6))],
        )
    yield "30 faces of 44 px in 640x480", [crowd(people[k:], 44, size=VGA, grid=(6, 5), back=None) for k in range(2)]
    back = Image.fromarray(images.read(photos["coffee.png"])) if "coffee.png" in photos else None
    for face in (300, 160, 96, 64, 48):
        yield f"12 faces of {face} px in 4000x3000", [crowd(people, face, size=PHOTO, grid=(4, 3), back=back)]
    flat = [Scene(Image.fromarray(noise), np.zeros((0, 2, 2))) for noise in make_noise()]
    empty = [
        Scene(Image.fromarray(images.read(photos[name])), np.zeros((0, 2, 2))) for name in FACELESS if name in photos
    ]
    yield "without a face", [*flat, *empty]


def make_noise() -> list[np.ndarray]:
    """Flat, noisy and striped images of 640x480."""
    rng = np.random.default_rng(0)
    shape = (480, 640, 3)
    stripes = np.broadcast_to((np.arange(640)[None, :, None] // 16 % 2 * 255).astype(np.uint8), shape)
    return [np.full(shape, level, np.uint8) for level in (0, 128, 255)] + [
        rng.integers(0, 256, shape, dtype=np.uint8),
        stripes,
    ]


def measure(detector: SearchDetector, scenes: list[Scene]) -> dict[str, Any]:
    """Faces found, false boxes, and how far the eyes are off, in distances between them."""
    faces = found = false = 0
    errors = []
    for scene in scenes:
        detections = detector.detect(np.asarray(scene.image))
        boxes = np.array([one.box for one in detections]).reshape(-1, 4)
        overlap = (
            compute_iou(scene.boxes, boxes)
            if len(boxes) and len(scene.eyes)
            else np.zeros((len(scene.eyes), len(boxes)))
        )
        used: set[int] = set()
        for number, row in enumerate(overlap):
            best = int(row.argmax()) if len(row) else -1
            if best >= 0 and row[best] >= MIN_IOU and best not in used:
                used.add(best)
                eyes = np.array(detections[best].landmarks[:2])
                distance = np.linalg.norm(scene.eyes[number, 1] - scene.eyes[number, 0])
                errors.append(float(np.linalg.norm(eyes - scene.eyes[number], axis=1).mean() / distance))
        faces, found, false = faces + len(scene.eyes), found + len(used), false + len(boxes) - len(used)
    eye_error = round(float(np.median(errors)), 4) if errors else None
    return {"images": len(scenes), "faces": faces, "found": found, "false": false, "eye_error": eye_error}


def main() -> None:
    """Measure every condition with each detector, and write the result."""
    folders = [Path(name) for name in sys.argv[1:] if Path(name).is_dir()]
    photos = find_photos(folders)
    people = read_people(photos)
    detectors = {f"blazeface-full {faces}": load_detector(faces=faces) for faces in FACES}
    for name in sys.argv[1:]:
        if Path(name) not in folders:
            for faces in FACES:
                detector = load_detector(name, faces=faces)
                detectors[f"{detector.card.name} {faces}"] = detector
    rows = []
    for condition, scenes in track(make_scenes(people, photos), "conditions", total=23 + len(SMALL)):
        for name, detector in detectors.items():
            rows.append({"condition": condition, "detector": name, **measure(detector, scenes)})
    settings = {"photos": sorted(photos), "min_iou": MIN_IOU, "scales": SCALES, "edgeemo_default_threshold": True}
    files.write(Measurement(header=make_header(), script="hard_faces", settings=settings, rows=rows), OUT)
    print(table(rows).to_markdown())


def table(rows: list[dict[str, Any]]) -> Table:
    """A row per condition, a column per detector."""
    detectors = list(dict.fromkeys(row["detector"] for row in rows))
    body = []
    for condition in dict.fromkeys(row["condition"] for row in rows):
        of = {row["detector"]: row for row in rows if row["condition"] == condition}
        cells = (f"{of[name]['found']}/{of[name]['faces']}, {of[name]['false']}" for name in detectors)
        body.append((condition, *cells))
    return Table("hard faces", ("input", *detectors), body, "Faces found of all, and false boxes.")


if __name__ == "__main__":
    main()
