"""The crop stage: labelled photos become crops in folders by split and label, cut out as faces are when a model runs.

A crop is the square itself, before it is resized: `images.to_pixels` makes of the file what `edgeemo.faces.crop` makes
of the photo, to the bit, if the face is not turned, or the model's input is `size` px. With `resize` it is that input.
"""

from __future__ import annotations

import csv
import logging
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgeemo import __version__, images, options
from edgeemo.artifact import check_empty, new_folder, write_json
from edgeemo.card import Crop, InputContract, to_json
from edgeemo.data import faces
from edgeemo.data.crop_record import FORMAT, RECORD, TABLE, CropRecord
from edgeemo.data.sample import DataSet, NoSuchSplit, Sample
from edgeemo.errors import DataError, UsageError
from edgeemo.faces import Detection, load_detector
from edgeemo.faces.crop import extract, is_sideways, place
from edgeemo.faces.detection import compute_tilt
from edgeemo.faces.search import SearchDetector
from edgeemo.machine import usable_cores
from edgeemo.names import clean_stem, count, escape_message, fold_name, is_portable_name, mark_name
from edgeemo.progress import track
from edgeemo.stages import CropPhotos, after_crop

log = logging.getLogger(__name__)
CROPPED, NO_FACE, SEVERAL, NO_SQUARE, UNREADABLE = "cropped", "no face", "several faces", "no square", "unreadable"
OUTCOMES = (CROPPED, NO_FACE, SEVERAL, NO_SQUARE, UNREADABLE)
LISTED = 10  # unreadable photos named in the log
CHUNK = 256  # photos handed to the threads at once


@dataclass(frozen=True)
class Photo:
    """A labelled photo, and the file of its crop, relative to the output folder."""

    sample: Sample
    split: str
    label: str
    file: str


@dataclass(frozen=True)
class Row:
    """A row of crops.csv: a photo, and its face, the largest if there are several; in pixels of the upright photo."""

    photo: str  # its id in the data set
    split: str
    label: str
    outcome: str  # one of OUTCOMES
    crop: str = ""  # file, relative to the folder of crops.csv
    faces: int | None = None  # number found
    x: float | None = None  # of the box, as are the next three
    y: float | None = None
    width: float | None = None
    height: float | None = None
    score: float | None = None
    tilt: float | None = None  # degrees; positive: the person's left eye lies lower
    sideways: bool | None = None  # the head is turned so far that the box, not the eyes, gave the square's side
    side: float | None = None  # of the square
    turned: bool | None = None
    reason: str = ""


def run(config: CropPhotos) -> Path:
    """Crop as configured; return the folder.

    Raises DataError if no photo gives a crop, and, after everything is written, if photos cannot be read, unless
    `skip_unreadable` is set.
    """
    options.check(config)
    faces.check_outside(config.out, config.source, option="--out")
    check_empty(config.out)
    detector = load_detector(config.detector, faces=config.faces, threshold=config.threshold)  # type: ignore[arg-type]
    photos = _list_photos(_open(config.source))
    with new_folder(config.out) as folder:
        for parent in {(folder / photo.file).parent for photo in photos}:
            parent.mkdir(parents=True, exist_ok=True)
        cropper = Cropper(config, detector, folder)
        rows = list(track(cropper.crop_all(photos), "cropping photos", total=len(photos), unit="photos"))
        if not any(row.crop for row in rows):
            raise DataError(
                f"{config.source}: none of {count(len(rows), 'photo')} gave a crop ({_count(rows)}); nothing written"
            )
        _remove_empty(folder)
        _write_table(folder / TABLE, rows)
        write_json(folder / RECORD, to_json(_make_record(config, detector, rows)))
    _log_summary(config, rows)
    _report_unreadable(config, rows)
    return config.out


def _open(source: str) -> DataSet:
    if ":" not in source and Path(source).exists():
        raise UsageError(
            f"expected photos as KIND:PATH, got {source}.  Did you mean  edgeemo data crop folder:{source}"
        )
    opened = faces.open_data(source)
    if opened is None:
        raise UsageError("synthetic faces are crops already; expected photos, as folder:PATH")
    if opened.crop:
        raise UsageError(f"{opened.name} holds crops already, as its {RECORD} states; expected whole photos")
    return opened


def _list_photos(opened: DataSet) -> list[Photo]:
    """Return the photos of every split, each with a file name of its own; UsageError for faces with votes."""
    listed: list[tuple[str, str, Sample]] = []
    for split in opened.sources:
        with suppress(NoSuchSplit):  # too few photos to give valid its share
            listed += [(split, _get_label(sample, opened), sample) for sample in opened.samples(split)]
    if not listed:
        raise DataError(f"{opened.name} lists no photo ({opened.layout}); expected labelled photos")
    names = [f"{split}/{label}/{clean_stem(sample.id)}" for split, label, sample in listed]
    keys = _number_repeats([f"{split}/{label}/{sample.id}" for split, label, sample in listed])
    while len(counts := Counter(map(fold_name, names))) < len(names):
        repeated = [counts[fold_name(name)] > 1 for name in names]
        names = [mark_name(name, key) if more else name for name, key, more in zip(names, keys, repeated, strict=True)]
    return [
        Photo(sample, split, label, f"{name}.png") for name, (split, label, sample) in zip(names, listed, strict=True)
    ]


def _get_label(sample: Sample, opened: DataSet) -> str:
    """Return the only label; folders by label cannot hold votes, which would be lost."""
    if list(sample.votes.values()) != [1.0]:
        raise UsageError(
            f"{opened.name}: {sample.id} has {sum(sample.votes.values()):g} votes, which folders by label cannot hold; "
            "expected one label for each photo. FER+'s faces are crops already:  edgeemo train --data ferplus:PATH"
        )
    (label,) = sample.votes
    if not is_portable_name(label):
        raise DataError(f"{opened.name}: the label {label!r} cannot be the name of a folder on Windows; rename it")
    return label


def _number_repeats(keys: list[str]) -> list[str]:
    """Return keys that differ: a table may list a photo twice, for two faces or by mistake."""
    seen: Counter[str] = Counter()
    numbered = []
    for key in keys:
        numbered.append(f"{key}:{seen[key]}")
        seen[key] += 1
    return numbered


class Cropper:
    """Finds and writes the crops of photos."""

    def __init__(self, config: CropPhotos, detector: SearchDetector, folder: Path) -> None:
        """folder: has the folders of all crops."""
        self._several, self._resize, self._detector, self._folder = config.several, config.resize, detector, folder
        self._threads = config.threads or len(usable_cores())
        self._contract = InputContract(config.size, crop=_get_crop(config))

    def crop_all(self, photos: list[Photo]) -> Iterator[Row]:
        """Write the crops; yield what became of each photo, in order."""
        if self._threads == 1 or photos[0].sample.sources == photos[-1].sample.sources:  # an archive: by one thread
            yield from map(self.crop, photos)
            return
        with ThreadPoolExecutor(self._threads) as pool:
            for start in range(0, len(photos), CHUNK):
                yield from pool.map(self.crop, photos[start : start + CHUNK])

    def crop(self, photo: Photo) -> Row:
        """Write the crop of a photo, if it shows one face; return what became of it."""
        make = partial(Row, photo.sample.id, photo.split, photo.label)
        try:
            image = photo.sample.read()
        except DataError as error:
            return make(UNREADABLE, reason=escape_message(str(error)))
        found = self._detector.detect(image)
        if not found:
            return make(NO_FACE, faces=0)
        face = max(found, key=lambda one: one.box[2] * one.box[3])
        facts = {"faces": len(found), **_describe(face)}
        if len(found) > 1 and self._several == "skip":
            return make(SEVERAL, **facts)
        try:
            square = place(face, self._contract)
            pixels = self._finish(extract(image, square, self._contract.size))
        except DataError as error:
            return make(NO_SQUARE, **facts, reason=escape_message(str(error)))
        Image.fromarray(pixels).save(self._folder / photo.file)
        turned = bool(square.degrees)
        return make(CROPPED, photo.file, **facts, side=round(square.side, 2), turned=turned)

    def _finish(self, square: np.ndarray) -> np.ndarray:
        if not self._resize:
            return square
        colour = "gray" if square.ndim == 2 else "rgb"
        return images.resize(square, InputContract(self._contract.size, colour))


def _describe(face: Detection) -> dict[str, Any]:
    box = dict(zip(("x", "y", "width", "height"), (round(value, 2) for value in face.box), strict=True))
    found: dict[str, Any] = {**box, "score": round(face.score, 4)}
    if face.eyes:
        found["tilt"] = round(compute_tilt(*face.eyes), 2)
        found["sideways"] = is_sideways(face)
    return found


def _get_crop(config: CropPhotos) -> Crop:
    return Crop(config.side_eye_distances, config.below_eyes, config.turn_from_degrees)


def _remove_empty(folder: Path) -> None:
    """Remove the folders of labels and splits without a crop."""
    for path in sorted(folder.rglob("*"), reverse=True):  # what is inside a folder before the folder
        if path.is_dir():
            with suppress(OSError):
                path.rmdir()


def _write_table(path: Path, rows: list[Row]) -> None:
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.DictWriter(file, [one.name for one in fields(Row)])
        writer.writeheader()
        writer.writerows(map(asdict, rows))


def _make_record(config: CropPhotos, detector: SearchDetector, rows: list[Row]) -> CropRecord:
    crops: dict[str, dict[str, int]] = {}
    for row in rows:
        by_label = crops.setdefault(row.split, {})
        by_label[row.label] = by_label.get(row.label, 0) + bool(row.crop)
    return CropRecord(
        FORMAT,
        _get_crop(config),
        size=config.size,
        resized=config.resize,
        detector=detector.card.name,
        detector_sha256=detector.card.sha256,
        faces=config.faces,
        threshold=detector.threshold,
        several=config.several,
        edgeemo=__version__,
        outcomes=dict(Counter(row.outcome for row in rows)),
        crops=crops,
    )


def _count(rows: list[Row]) -> str:
    counts = Counter(row.outcome for row in rows)
    return ", ".join(f"{outcome} {counts[outcome]}" for outcome in OUTCOMES if counts[outcome])


def _log_summary(config: CropPhotos, rows: list[Row]) -> None:
    log.info("%s: %s; listed in %s", count(len(rows), "photo"), _count(rows), config.out / TABLE)
    for split in dict.fromkeys(row.split for row in rows):
        of_split = [row for row in rows if row.split == split]
        total, cropped = Counter(row.label for row in of_split), Counter(row.label for row in of_split if row.crop)
        log.info("%s: %s", split, ", ".join(f"{label} {cropped[label]} of {n}" for label, n in total.items()))
    several = sum((row.faces or 0) > 1 for row in rows)
    if several and config.several == "largest":
        log.warning(
            "%s with several faces: the largest was taken, which may not be the labelled one; see column faces of %s",
            *(count(several, "photo"), TABLE),
        )
    elif several:
        left_out = count(several, "photo")
        log.warning("%s with several faces left out; --several largest takes the largest face", left_out)
    if sideways := sum(bool(row.crop and row.sideways) for row in rows):
        message = "%s of heads turned far sideways, which may show a part of the face only; see column sideways of %s"
        log.warning(message, count(sideways, "crop"), TABLE)


def _report_unreadable(config: CropPhotos, rows: list[Row]) -> None:
    """Log the first unreadable photos, a line each; raise DataError if there are any, unless they may be skipped."""
    reasons = [row.reason for row in rows if row.outcome == UNREADABLE]
    for reason in reasons[:LISTED]:
        log.warning("%s", reason)
    if reasons and not config.skip_unreadable:
        raise DataError(
            f"{len(reasons)} of {count(len(rows), 'photo')} cannot be read, as listed in {config.out / TABLE}; the "
            f"crops of the others are in {config.out}, and --skip-unreadable makes this no error.  Next:  "
            f"edgeemo {after_crop(config, config.out)}"
        )
