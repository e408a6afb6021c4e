"""The calibration set: train faces on which the quantizer observes the range of each activation.

The file lists ids only, never pixels; the hash in its header detects changes made after the list was drawn.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeemo.artifact import hash_lines, write_json
from edgeemo.card import InputContract
from edgeemo.data import Faces, Sample, samples
from edgeemo.data.faces import decode, hash_pixels, kind_of, label
from edgeemo.data.sample import NoSuchSplit
from edgeemo.errors import DataError, IntegrityError
from edgeemo.labels import LABEL_SETS, LabelSet, label_set
from edgeemo.reading import read_json

log = logging.getLogger(__name__)
FORMAT = 1
SPLIT = "train"  # faces that a model is evaluated on must not influence it
MIN_FACES = 64  # with fewer, ranges depend on single faces
RECOMMENDED_FACES = 256
MIN_LABELS = 4  # with fewer, what the other emotions activate is not observed
EVALUATION_SPLITS = ("valid", "test")
TYPES = {"data": str, "label_set": str, "protocol": str, "seed": int, "ids": list, "ids_sha256": str}
MAX_BYTES = 64 * 2**20  # of a list; one of 512 faces has 12 kB


@dataclass(frozen=True)
class CalibrationList:
    """Ids of train faces, in alphabetical order, and how they were drawn."""

    data: str  # kind of data source, such as folder
    label_set: str  # six, seven, ferplus8, or own labels as a,b,c
    protocol: str
    seed: int
    ids: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Fingerprint of the ids."""
        return hash_lines(list(self.ids))

    def header(self) -> dict[str, Any]:
        """Return everything except the ids, with their count and hash."""
        facts = {key: value for key, value in asdict(self).items() if key != "ids"}
        return {**facts, "format": FORMAT, "split": SPLIT, "count": len(self.ids), "ids_sha256": self.sha256}


def draw(data: str, labels: LabelSet, *, protocol: str, count: int, seed: int) -> CalibrationList:
    """Draw `count` train faces of `data`, balanced over the labels as far as possible; raise DataError below 64.

    Balanced, not by frequency in the data: activations of rare emotions should be in range too. Images without any
    contrast, unreadable ones, and copies of valid and test faces are left out.
    """
    labelled = label(samples(data, SPLIT, labels), labels, protocol=protocol)
    _check_count(min(count, len(labelled.samples)), requested=count, available=len(labelled.samples))
    order = np.random.default_rng(seed).permutation(len(labelled.samples))
    rank = np.empty(len(order), int)  # of each face within its label, in shuffled order
    for k in range(len(labels.labels)):
        own = order[labelled.truth[order] == k]
        rank[own] = np.arange(len(own))
    ordered = [labelled.samples[row] for row in np.lexsort((labelled.truth, rank))]
    chosen = _select_usable(ordered, _hash_evaluation_faces(data, labels), count)
    if len(chosen) < min(count, len(ordered)):
        _check_count(len(chosen), requested=count, available=len(chosen))
    ids = tuple(sorted(sample.id for sample in chosen))
    return CalibrationList(kind_of(data), format_label_set(labels), protocol, seed, ids)


def _select_usable(ordered: list[Sample], evaluated: set[str], count: int) -> list[Sample]:
    """Return the first `count` samples that can be used; log how many before them cannot."""
    chosen: list[Sample] = []
    copies = unusable = 0
    for sample in ordered:
        if len(chosen) == count:
            break
        try:
            pixels = sample.read()
        except DataError:
            unusable += 1
            continue
        if pixels.min() == pixels.max():
            unusable += 1
        elif evaluated and hash_pixels(pixels) in evaluated:
            copies += 1
        else:
            chosen.append(sample)
    if copies or unusable:
        log.info(
            "calibration: left out %d copies of valid or test faces, and %d unreadable or blank images",
            *(copies, unusable),
        )
    return chosen


def _hash_evaluation_faces(data: str, labels: LabelSet) -> set[str]:
    """Return the hashes of the pixels of all valid and test faces; none for synthetic ones, which never repeat."""
    if kind_of(data) == "synthetic":
        return set()
    hashes: set[str] = set()
    for split in EVALUATION_SPLITS:
        with suppress(NoSuchSplit):
            for sample in samples(data, split, labels):
                with suppress(DataError):
                    hashes.add(hash_pixels(sample.read()))
    return hashes


def write(chosen: CalibrationList, path: Path) -> None:
    """Write the list with its header."""
    write_json(path, {**chosen.header(), "ids": list(chosen.ids)})


def read(path: Path) -> CalibrationList:
    """Read a list; raise DataError if the file is not a list, IntegrityError if its ids have been changed."""
    try:
        raw = read_json(path, max_bytes=MAX_BYTES)
        if wrong := [name for name, kind in TYPES.items() if type(raw[name]) is not kind]:
            raise TypeError(f"{wrong[0]} is a {type(raw[wrong[0]]).__name__}")  # noqa: TRY301  as those of `raw`
        fields = (raw["data"], raw["label_set"], raw["protocol"], raw["seed"], tuple(raw["ids"]))
        chosen, expected = CalibrationList(*fields), raw["ids_sha256"]
        found, kind = chosen.sha256, (raw["format"], raw["split"])
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; draw a list with:  python calibration/draw.py --out {path}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a calibration list: {type(error).__name__}: {error}") from error
    if kind != (FORMAT, SPLIT):
        raise DataError(f"{path}: expected format and split {(FORMAT, SPLIT)}, got {kind}")
    if found != expected:
        raise IntegrityError(
            f"{path}: its ids hash to {found[:12]}…, its header has {expected[:12]}…: the list was "
            f"changed after it was drawn.  Draw it again:  python calibration/draw.py --out {path}"
        )
    count = len(set(chosen.ids))
    if count < MIN_FACES:
        raise DataError(
            f"{path} lists {count} faces; expected {MIN_FACES} or more:  python calibration/draw.py --out {path}"
        )
    _warn_of_few(count)
    return chosen


def load_faces(chosen: CalibrationList, data: str, contract: InputContract) -> Faces:
    """Load the listed faces of `data`; raise DataError unless each of them is a labelled train face of it."""
    if chosen.data != kind_of(data):
        raise DataError(f"the calibration list is of {chosen.data} faces, but --data is {data}")
    labels = label_set(chosen.label_set)
    ids = set(chosen.ids)
    listed = [sample for sample in samples(data, SPLIT, labels) if sample.id in ids]
    if missing := sorted(ids - {sample.id for sample in listed}):
        raise DataError(
            f"{len(missing)} ids of the calibration list are not train faces of {data}, first {missing[0]}; "
            f"draw a list from this data:  python calibration/draw.py --data {data}"
        )
    labelled = label(listed, labels, protocol=chosen.protocol)
    if unlabelled := len(ids) - len(labelled.samples):
        raise DataError(f"{unlabelled} faces of the calibration list have no label under {chosen.protocol!r} in {data}")
    faces = decode(labelled, contract, what="calibration faces")
    _check_variety(faces, labels, data)
    return faces


def check_apart(calibration: Faces, valid: Faces, data: str) -> None:
    """Raise DataError if a calibration face has the same pixels as a valid face, as (N, size, size[, 3]) uint8."""
    known = set(map(hash_pixels, valid.pixels))
    copies = [
        face for face, pixels in zip(calibration.ids, calibration.pixels, strict=True) if hash_pixels(pixels) in known
    ]
    if copies:
        raise DataError(
            f"{len(copies)} faces of the calibration list are copies of valid faces, which evaluate the model, such as "
            f"{copies[0]}; draw a list without them:  python calibration/draw.py --data {data}"
        )


def _check_variety(faces: Faces, labels: LabelSet, data: str) -> None:
    """Raise DataError for images without any contrast, or faces of fewer than four labels."""
    flat = faces.pixels[:].reshape(len(faces), -1)
    blank = np.flatnonzero(flat.min(1) == flat.max(1))
    again = f"draw a list from faces:  python calibration/draw.py --data {data}"
    if len(blank):
        raise DataError(f"{len(blank)} calibration images are blank, such as {faces.ids[blank[0]]}; {again}")
    needed, found = min(MIN_LABELS, len(labels.labels)), len(np.unique(faces.truth))
    if found < needed:
        raise DataError(
            f"the calibration faces show {found} of {len(labels.labels)} labels; expected {needed}: {again}"
        )


def format_label_set(labels: LabelSet) -> str:
    """Return the string from which `label_set` makes the same set."""
    return labels.name if labels.name in LABEL_SETS else ",".join(labels.labels)


def _check_count(count: int, *, requested: int, available: int) -> None:
    if available < MIN_FACES:
        raise DataError(
            f"INT8 needs at least {MIN_FACES} labelled train faces to calibrate, the data has {available}: add "
            "faces, give a larger data set with --data, or leave out --int8"
        )
    if count < MIN_FACES:
        raise DataError(f"--calibration-count {requested}: expected {MIN_FACES} or more; the data has {available}")
    _warn_of_few(count)
    if count < requested:
        log.warning("requested %d calibration faces, the train split has %d", requested, count)


def _warn_of_few(count: int) -> None:
    if count < RECOMMENDED_FACES:
        log.warning("calibrating on %d faces; %d or more give more stable ranges", count, RECOMMENDED_FACES)
