"""What is wrong with a data set before anything is trained on it: counts, ties, unreadable files, copies.

Copies across splits flatter every accuracy measured on them: of FER+'s test faces 8 % are also train faces.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from PIL import Image

from edgeemo.data import faces
from edgeemo.data.sample import SPLITS, NoSuchSplit, Sample
from edgeemo.errors import DataError, require
from edgeemo.labels import LabelSet, label_set
from edgeemo.progress import track
from edgeemo.stages import Audit

log = logging.getLogger(__name__)
BLOCK = 1024  # hashes compared at once: 1024 x 32,000 distances of 8 bytes are 260 MB


@dataclass
class Seen:
    """The readable faces of one split as hashes, and the names of the rest."""

    ids: list[str] = field(default_factory=list)
    exact: list[str] = field(default_factory=list)  # SHA-1 of the decoded pixels
    near: list[tuple[int, int]] = field(default_factory=list)  # 64-bit perceptual hashes: the face, its mirror image
    unreadable: list[str] = field(default_factory=list)


def run(config: Audit) -> dict[str, Any]:
    """The report on every split that the data set has; JSON-ready."""
    labels = label_set(config.label_set)
    by_split = {split: found for split in SPLITS if (found := _samples(config.data, split, labels)) is not None}
    seen = {split: _hashed(found, split, near=config.near > 0) for split, found in by_split.items()}
    return {
        "data": faces.kind_of(config.data),
        "label_set": labels.name,
        "near_bits": config.near,
        "splits": {split: _of_split(found, seen[split], labels, config.near) for split, found in by_split.items()},
        "copies_across": [
            _across(first, second, seen[first], seen[second], config.near) for first, second in combinations(seen, 2)
        ],
    }


def _samples(data: str, split: str, labels: LabelSet) -> list[Sample] | None:
    try:
        return faces.samples(data, split, labels)
    except NoSuchSplit:
        log.info("no %s split", split)
        return None


def _hashed(found: list[Sample], split: str, *, near: bool) -> Seen:
    seen = Seen()
    for sample in track(found, f"hashing {split} faces", total=len(found)):
        try:
            pixels = sample.read()
        except DataError as error:
            seen.unreadable.append(f"{sample.id}: {error}")
            continue
        seen.ids.append(sample.id)
        seen.exact.append(faces.pixels_sha1(pixels))
        if near:
            seen.near.append(_perceptual(pixels))
    return seen


def _perceptual(pixels: np.ndarray) -> tuple[int, int]:
    imagehash = require("imagehash", extra="train", purpose="finding near copies")
    picture = Image.fromarray(pixels)
    mirrored = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return int(str(imagehash.phash(picture)), 16), int(str(imagehash.phash(mirrored)), 16)


def _of_split(found: list[Sample], seen: Seen, labels: LabelSet, near: int) -> dict[str, Any]:
    repeats = sum(count - 1 for count in Counter(seen.exact).values())
    return {
        "faces": len(found),
        "unreadable": seen.unreadable,
        "exact_repeats": repeats,
        "near_repeats": _near_matches(seen, seen, near, skip_self=True),
        "ties": sum(_tied(sample, labels) for sample in found),
        "labels": {protocol: _counts(found, labels, protocol) for protocol in faces.PROTOCOLS},
    }


def _counts(found: list[Sample], labels: LabelSet, protocol: str) -> dict[str, int]:
    chosen = faces.label(found, labels, protocol=protocol)
    counts = np.bincount(chosen.truth, minlength=len(labels.labels))
    return {**dict(zip(labels.labels, map(int, counts), strict=True)), "dropped": len(found) - len(chosen.truth)}


def _tied(sample: Sample, labels: LabelSet) -> bool:
    row = faces.merged_votes(sample, labels)
    return bool((row == row.max()).sum() > 1)


def _across(first: str, second: str, left: Seen, right: Seen, near: int) -> dict[str, Any]:
    known = set(left.exact)
    return {
        "of": second,
        "in": first,
        "n": len(right.ids),
        "exact": sum(digest in known for digest in right.exact),
        "near": _near_matches(right, left, near, skip_self=False),
    }


def _near_matches(these: Seen, those: Seen, near: int, *, skip_self: bool) -> int:
    """How many of `these` have one of `those`, or its mirror image, within `near` bits (exact copies included)."""
    if not these.near or not those.near:
        return 0
    wanted = np.array([own for own, _ in these.near], np.uint64)
    others = np.array(those.near, np.uint64)  # (M, 2): face, mirror image
    matched = np.zeros(len(wanted), bool)
    for start in range(0, len(wanted), BLOCK):
        block = wanted[start : start + BLOCK, None]
        for side in (0, 1):
            close = np.bitwise_count(block ^ others[None, :, side]) <= near
            if skip_self:
                rows = np.arange(len(block))
                close[rows, start + rows] = False
            matched[start : start + BLOCK] |= close.any(1)
    return int(matched.sum())
