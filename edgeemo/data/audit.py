"""What is wrong with a data set before anything is trained on it: counts, ties, unreadable files, copies.

The report names faces by their ids, so that anyone can look at them or leave them out; copies are pairs of ids.

Copies across splits flatter every accuracy measured on them: of FER+'s 3,579 valid faces 279 are also train faces.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from PIL import Image

from edgeemo import options
from edgeemo.data import faces
from edgeemo.data.sample import SPLITS, NoSuchSplit, Sample
from edgeemo.errors import DataError
from edgeemo.labels import LabelSet, label_set
from edgeemo.packages import require
from edgeemo.progress import track
from edgeemo.report import files
from edgeemo.report.facts import make_header
from edgeemo.report.result import AuditResult, CopiesAcross, LabelCounts, SplitAudit
from edgeemo.stages import Audit

log = logging.getLogger(__name__)
BLOCK = 1024  # hashes compared at once: 1024 x 32,000 distances of 8 bytes are 260 MB


@dataclass
class Seen:
    """The readable faces of one split as hashes, and the names of the rest."""

    ids: list[str] = field(default_factory=list)
    exact: list[str] = field(default_factory=list)  # SHA-1 of the decoded pixels
    near: list[tuple[int, int]] = field(default_factory=list)  # 64-bit perceptual hashes: the face, its mirror image
    unreadable: dict[str, str] = field(default_factory=dict)  # id: why


def run(config: Audit) -> AuditResult:
    """The report on every split that the data set has; it is also written to config.out."""
    options.check(config)
    if config.out:
        files.check_replaceable(config.out, AuditResult)
    labels = label_set(config.label_set)
    by_split = {split: found for split in SPLITS if (found := _samples(config.data, split, labels)) is not None}
    if not by_split:
        raise DataError(f"{config.data} has no faces: none of the splits {', '.join(SPLITS)} is there")
    seen = {split: _hashed(found, split, near=config.near > 0) for split, found in by_split.items()}
    pairs = combinations(seen, 2)
    result = AuditResult(
        header=make_header(),
        data=faces.kind_of(config.data),
        label_set=labels.name,
        labels=list(labels.labels),
        near_bits=config.near,
        splits=[_of_split(split, found, seen[split], labels, config.near) for split, found in by_split.items()],
        copies_across=[_across(first, second, seen[first], seen[second], config.near) for first, second in pairs],
    )
    if config.out:
        files.write(result, config.out)
    return result


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
            seen.unreadable[sample.id] = str(error)
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


def _of_split(split: str, found: list[Sample], seen: Seen, labels: LabelSet, near: int) -> SplitAudit:
    return SplitAudit(
        split=split,
        faces=len(found),
        unreadable=seen.unreadable,
        exact_repeats=_exact_pairs(seen, seen),
        near_repeats=_near_pairs(seen, seen, near),
        ties=[sample.id for sample in found if _tied(sample, labels)],
        labels=[_counts(found, labels, protocol) for protocol in faces.PROTOCOLS],
    )


def _counts(found: list[Sample], labels: LabelSet, protocol: str) -> LabelCounts:
    won = Counter(faces.winner(faces.merged_votes(sample, labels), protocol=protocol) for sample in found)
    return LabelCounts(protocol, {name: won[k] for k, name in enumerate(labels.labels)}, won[None])


def _tied(sample: Sample, labels: LabelSet) -> bool:
    row = faces.merged_votes(sample, labels)
    return bool(row.any() and (row == row.max()).sum() > 1)


def _across(first: str, second: str, left: Seen, right: Seen, near: int) -> CopiesAcross:
    return CopiesAcross(second, first, len(right.ids), _exact_pairs(right, left), _near_pairs(right, left, near))


def _exact_pairs(these: Seen, those: Seen) -> list[list[str]]:
    """[id, id of the first of `those` with the same pixels]; a face does not repeat itself."""
    first = {digest: row for row, digest in reversed(list(enumerate(those.exact)))}
    rows = ((row, first[digest]) for row, digest in enumerate(these.exact) if digest in first)
    return [[these.ids[row], those.ids[match]] for row, match in rows if these is not those or match != row]


def _near_pairs(these: Seen, those: Seen, near: int) -> list[list[str]]:
    """[id, id of the first of `those` that is, or whose mirror image is, within `near` bits], exact copies included."""
    if not those.near:
        return []
    wanted = np.array([own for own, _ in these.near], np.uint64)
    others = np.array(those.near, np.uint64)  # (M, 2): face, mirror image
    pairs = []
    for start in range(0, len(wanted), BLOCK):
        block = wanted[start : start + BLOCK, None]
        close = np.zeros((len(block), len(others)), bool)
        for side in (0, 1):
            close |= np.bitwise_count(block ^ others[None, :, side]) <= near
        if these is those:
            np.fill_diagonal(close[:, start:], val=False)  # a face is no copy of itself
        matches = enumerate(close.argmax(1))
        pairs += [[these.ids[start + row], those.ids[match]] for row, match in matches if close[row, match]]
    return pairs
