"""The data audit: label counts, ties, unreadable files and duplicates, to be checked before training.

The report lists faces by id, so that they can be inspected or removed; duplicates are pairs of ids.

Duplicates across splits inflate the measured accuracy: of FER+'s 3,579 validation faces, 279 are also training faces.
"""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image

from edgeemo import options
from edgeemo.card import Card
from edgeemo.data import faces
from edgeemo.data.sample import SPLITS, DataSet, NoSuchSplit, Sample
from edgeemo.errors import DataError
from edgeemo.labels import LabelSet, label_set
from edgeemo.metrics import find_label_errors
from edgeemo.packages import require
from edgeemo.progress import track
from edgeemo.report import files
from edgeemo.report.facts import make_header
from edgeemo.report.result import AuditResult, CopiesAcross, Interpretation, LabelCounts, LabelError, SplitAudit
from edgeemo.runtime import open_model
from edgeemo.stages import Audit

log = logging.getLogger(__name__)
CAVEAT = (
    "The model was trained on faces of this kind of data set: where it learned wrong labels, it does not find them."
)
EXAMPLES = 20  # names of unused files
BLOCK = 1024  # hashes compared at a time: 1024 x 32,000 distances of 8 bytes are 260 MB


@dataclass
class SplitHashes:
    """The hashes of the readable faces of one split, and why the others cannot be read."""

    ids: list[str] = field(default_factory=list)
    exact: list[str] = field(default_factory=list)  # SHA-1 of the decoded pixels
    near: list[tuple[int, int]] = field(default_factory=list)  # 64-bit perceptual hashes: the face, its mirror image
    unreadable: dict[str, str] = field(default_factory=dict)  # id: reason
    labels: dict[str, int | None] = field(default_factory=dict)  # id: position of the label with the most votes


def run(config: Audit) -> AuditResult:
    """Audit every split of the data set; the result is also written to config.out."""
    options.check(config)
    if config.out:
        files.check_replaceable(config.out, AuditResult)
    labels = label_set(config.label_set)
    opened = faces.open_data(config.data)
    by_split = _list_splits(config.data, opened, labels)
    hashes = {split: _hash_split(found, split, labels, near=config.near > 0) for split, found in by_split.items()}
    pairs = combinations(hashes, 2)
    found = {split: _audit_split(split, part, hashes[split], labels, config.near) for split, part in by_split.items()}
    card = _find_label_errors(config.model, found, by_split, hashes, labels) if config.model else None
    result = AuditResult(
        header=make_header(),
        data=faces.kind_of(config.data),
        label_set=labels.name,
        labels=list(labels.labels),
        near_bits=config.near,
        splits=list(found.values()),
        copies_across=[
            _compare_splits(first, second, hashes[first], hashes[second], config.near) for first, second in pairs
        ],
        interpretation=_describe_interpretation(opened, by_split, labels) if opened else None,
        model=Path(config.model).name if config.model else "",
        caveat=CAVEAT if card and card.data and card.data.kind == faces.kind_of(config.data) else "",
    )
    if config.out:
        files.write(result, config.out)
    return result


def _list_splits(data: str, opened: DataSet | None, labels: LabelSet) -> dict[str, list[Sample]]:
    """Return the samples of every split that the data set has."""
    if opened is None:
        return {split: faces.samples(data, split, labels) for split in SPLITS}
    by_split = {}
    for split in opened.sources:
        with suppress(NoSuchSplit):  # too few faces to give valid its share
            by_split[split] = faces.list_samples(opened, split, labels)
    if not by_split:
        raise DataError(f"{data} has no faces: expected at least one of the splits {', '.join(SPLITS)}")
    return by_split


def _find_label_errors(
    name: str,
    found: dict[str, SplitAudit],
    by_split: dict[str, list[Sample]],
    hashes: dict[str, SplitHashes],
    labels: LabelSet,
) -> Card:
    """Add the probable label errors of the readable faces to each split; return the card of the model."""
    with open_model(name, labels=labels) as model:
        for split, samples in by_split.items():
            readable = set(hashes[split].ids)
            labelled = faces.label([one for one in samples if one.id in readable], labels, protocol="plurality")
            decoded = faces.decode(labelled, model.card.input, what=f"{split} faces")
            errors = _list_label_errors(model.probabilities(decoded.pixels[:]), decoded, labels)
            found[split] = replace(found[split], label_errors=errors)
        return model.card


def _list_label_errors(probabilities: np.ndarray, decoded: faces.Faces, labels: LabelSet) -> list[LabelError]:
    return [
        LabelError(
            id=decoded.ids[row],
            label=labels.labels[decoded.truth[row]],
            label_probability=round(float(probabilities[row, decoded.truth[row]]), 4),
            suggested=labels.labels[suggested],
            suggested_probability=round(float(probabilities[row, suggested]), 4),
        )
        for row, suggested in find_label_errors(probabilities, decoded.truth)
    ]


def _describe_interpretation(opened: DataSet, by_split: dict[str, list[Sample]], labels: LabelSet) -> Interpretation:
    names = {name for samples in by_split.values() for sample in samples for name in sample.votes}
    found = {name: position for name in sorted(names) if (position := labels.find(name)) is not None}
    return Interpretation(
        layout=opened.layout,
        splits=opened.sources,
        labels={**opened.codes, **{name: labels.labels[k] for name, k in found.items() if name != labels.labels[k]}},
        unused=len(opened.unused),
        unused_examples=opened.unused[:EXAMPLES],
        passed_over=len(opened.passed_over),
        passed_over_examples=opened.passed_over[:EXAMPLES],
    )


def _hash_split(samples: list[Sample], split: str, labels: LabelSet, *, near: bool) -> SplitHashes:
    hashes = SplitHashes()
    for sample in track(samples, f"hashing {split} faces", total=len(samples), unit="faces"):
        try:
            pixels = sample.read()
        except DataError as error:
            hashes.unreadable[sample.id] = str(error)
            continue
        hashes.ids.append(sample.id)
        hashes.labels[sample.id] = _pick_label(sample, labels, "plurality")
        hashes.exact.append(faces.hash_pixels(pixels))
        if near:
            hashes.near.append(_compute_perceptual_hashes(pixels))
    return hashes


def _compute_perceptual_hashes(pixels: np.ndarray) -> tuple[int, int]:
    imagehash = require("imagehash", extra="train", purpose="finding near duplicates")
    image = Image.fromarray(pixels)
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return int(str(imagehash.phash(image)), 16), int(str(imagehash.phash(mirrored)), 16)


def _audit_split(split: str, samples: list[Sample], hashes: SplitHashes, labels: LabelSet, near: int) -> SplitAudit:
    repeats = _find_exact_pairs(hashes, hashes)
    return SplitAudit(
        split=split,
        faces=len(samples),
        unreadable=hashes.unreadable,
        exact_repeats=repeats,
        near_repeats=_find_near_pairs(hashes, hashes, near),
        ties=[sample.id for sample in samples if _is_tie(sample, labels)],
        labels=[_count_labels(samples, labels, protocol) for protocol in faces.PROTOCOLS],
        conflicts=_find_conflicts(repeats, hashes, hashes),
    )


def _count_labels(samples: list[Sample], labels: LabelSet, protocol: str) -> LabelCounts:
    won = Counter(_pick_label(sample, labels, protocol) for sample in samples)
    return LabelCounts(protocol, {name: won[k] for k, name in enumerate(labels.labels)}, won[None])


def _pick_label(sample: Sample, labels: LabelSet, protocol: str) -> int | None:
    return faces.pick_label(faces.merge_votes(sample, labels), protocol=protocol)


def _is_tie(sample: Sample, labels: LabelSet) -> bool:
    row = faces.merge_votes(sample, labels)
    return bool(row.any() and (row == row.max()).sum() > 1)


def _compare_splits(first: str, second: str, left: SplitHashes, right: SplitHashes, near: int) -> CopiesAcross:
    exact, close = _find_exact_pairs(right, left), _find_near_pairs(right, left, near)
    return CopiesAcross(second, first, len(right.ids), exact, close, _find_conflicts(exact, right, left))


def _find_conflicts(pairs: list[list[str]], these: SplitHashes, those: SplitHashes) -> list[list[str]]:
    """Return the pairs of identical images whose labels differ: at least one of them is wrong."""
    return [[one, other] for one, other in pairs if these.labels[one] != those.labels[other]]


def _find_exact_pairs(these: SplitHashes, those: SplitHashes) -> list[list[str]]:
    """Return [id, id of the first of `those` with the same pixels] for each of `these`, not counting itself."""
    first = {digest: row for row, digest in reversed(list(enumerate(those.exact)))}
    rows = ((row, first[digest]) for row, digest in enumerate(these.exact) if digest in first)
    return [[these.ids[row], those.ids[match]] for row, match in rows if these is not those or match != row]


def _find_near_pairs(these: SplitHashes, those: SplitHashes, near: int) -> list[list[str]]:
    """Return [id, id of the first of `those` within `near` bits], also mirrored, including exact duplicates."""
    if not those.near:
        return []
    own = np.array([face for face, _ in these.near], np.uint64)
    others = np.array(those.near, np.uint64)  # (M, 2): face, mirror image
    pairs = []
    for start in range(0, len(own), BLOCK):
        block = own[start : start + BLOCK, None]
        close = np.zeros((len(block), len(others)), bool)
        for side in (0, 1):
            close |= np.bitwise_count(block ^ others[None, :, side]) <= near
        if these is those:
            np.fill_diagonal(close[:, start:], val=False)  # a face is not a duplicate of itself
        matches = enumerate(close.argmax(1))
        pairs += [[these.ids[start + row], those.ids[match]] for row, match in matches if close[row, match]]
    return pairs
