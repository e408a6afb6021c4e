"""From samples to arrays: the label that the votes give, and the pixels that the contract asks for."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeemo import images
from edgeemo.artifact import sha256_of_lines
from edgeemo.card import InputContract
from edgeemo.data import ferplus, folder, synthetic
from edgeemo.data.sample import SPLITS, Sample
from edgeemo.errors import DataError, UsageError, known
from edgeemo.labels import LabelSet
from edgeemo.progress import track

KINDS = ("synthetic[:COUNT]", "ferplus:PATH", "folder:PATH")
PROTOCOLS = ("plurality", "majority")
NOT_A_FACE = ("unknown", "NF")
GRAY = ("synthetic", "ferplus")  # kinds without any colour
LICENCES = {
    "synthetic": "drawn by edgeemo (MIT)",
    "ferplus": "labels MIT (Microsoft); images collected from the web for FER2013, for research use",
    "folder": "the owner's",
}


@dataclass(frozen=True)
class Faces:
    """Labelled faces, ready for a model. Row i of every field is one face."""

    pixels: np.ndarray  # (N, size, size) or (N, size, size, 3) uint8, as images.to_pixels gives them
    votes: np.ndarray  # (N, K) float32, shares of the votes, each row sums to 1
    truth: np.ndarray  # (N,) int64, the label that the protocol gives
    ids: list[str]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: np.ndarray) -> Faces:
        """The faces of these rows, in this order."""
        return Faces(self.pixels[rows], self.votes[rows], self.truth[rows], [self.ids[row] for row in rows])

    def spread(self, count: int) -> Faces:
        """`count` of the faces or all there are, evenly spread: a folder's stand label by label."""
        return self.take(np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(np.int64))

    def __add__(self, other: Faces) -> Faces:
        """These faces, then the other ones; both as one contract asks for them."""
        votes, truth = np.concatenate([self.votes, other.votes]), np.concatenate([self.truth, other.truth])
        return Faces(np.concatenate([self.pixels, other.pixels]), votes, truth, self.ids + other.ids)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the ids in their order."""
        return sha256_of_lines(self.ids)

    @property
    def content_sha256(self) -> str:
        """SHA-256 over pixels and votes: another picture under the same name is another set of faces."""
        digest = hashlib.sha256(self.pixels.tobytes())
        digest.update(self.votes.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Labelled:
    """Samples that kept their place under a protocol, with their label."""

    samples: list[Sample]
    votes: np.ndarray  # (N, K) float32 shares
    truth: np.ndarray  # (N,) int64


def kind_of(data: str) -> str:
    """The part of a data name before the colon: synthetic, ferplus or folder."""
    kind = data.partition(":")[0]
    if kind not in LICENCES:
        raise known("data set", data, KINDS)
    return kind


def are_gray(data: str) -> bool:
    """Whether no face of the data set has colour; a folder's may."""
    return kind_of(data) in GRAY


def samples(data: str, split: str, labels: LabelSet) -> list[Sample]:
    """All samples of `synthetic[:COUNT]`, `ferplus:PATH` or `folder:PATH`, before any protocol."""
    if split not in SPLITS:
        raise known("split", split, SPLITS)
    kind, _, where = data.partition(":")
    if kind_of(data) == "synthetic":
        return synthetic.samples(where, split, labels)
    if not where:
        raise UsageError(f"{kind} needs a path:  --data {kind}:PATH")
    read = {"ferplus": ferplus.samples, "folder": folder.samples}[kind]
    return read(Path(where), split)


def load(data: str, split: str, labels: LabelSet, *, contract: InputContract, protocol: str = "plurality") -> Faces:
    """The labelled faces of one split as arrays; DataError names a face that cannot be read."""
    return decode(label(samples(data, split, labels), labels, protocol=protocol), contract, what=f"{split} faces")


def label(found: list[Sample], labels: LabelSet, *, protocol: str) -> Labelled:
    """Give each sample the label its votes give; drop those without one.

    Both protocols first drop labels with a single vote where the face has ten (Microsoft's FER+ rule), then merge the
    votes as the label set says. `plurality`: the most votes win. `majority`: the winner needs more than half of the
    votes that remain, else the face is dropped (microsoft/FERPlus, src/ferplus.py). Faces won by `unknown` or `NF`
    are dropped; in a tie the earlier label wins.
    """
    if protocol not in PROTOCOLS:
        raise known("protocol", protocol, PROTOCOLS)
    if not found:
        raise DataError("the split is empty: there is no face to label")
    kept, rows, truth = [], [], []
    for sample in found:
        row = merged_votes(sample, labels)
        if (won := winner(row, protocol=protocol)) is not None:
            kept.append(sample)
            rows.append(row[: len(labels.labels)] / row[: len(labels.labels)].sum())
            truth.append(won)
    if not kept:
        raise DataError(f"no face has a label under the protocol {protocol!r} ({len(found)} samples)")
    return Labelled(kept, np.stack(rows).astype(np.float32), np.array(truth, np.int64))


def merged_votes(sample: Sample, labels: LabelSet) -> np.ndarray:
    """(K + 2,) votes over the label set, then unknown and NF, without single votes of a crowd."""
    outlier = 1 if sum(sample.votes.values()) > 1 else 0
    row = np.zeros(len(labels.labels) + len(NOT_A_FACE))
    for name, count in sample.votes.items():
        if count > outlier:
            column = len(labels.labels) + NOT_A_FACE.index(name) if name in NOT_A_FACE else labels.index(name)
            row[column] += count
    return row


def winner(votes: np.ndarray, *, protocol: str) -> int | None:
    """The label that a row of merged votes gives under a protocol; None if the face is dropped."""
    best = int(votes.argmax())
    bar = 0.5 * votes.sum() if protocol == "majority" else 0
    return best if best < len(votes) - len(NOT_A_FACE) and votes[best] > bar else None


def decode(chosen: Labelled, contract: InputContract, *, what: str) -> Faces:
    """Read and resize every chosen face; one unreadable face stops it, with its name."""
    pixels = np.empty((len(chosen.samples), *contract.pixels), np.uint8)
    for row, sample in zip(pixels, track(chosen.samples, f"reading {what}", total=len(pixels)), strict=True):
        row[:] = images.to_pixels(_read(sample), contract)
    return Faces(pixels, chosen.votes, chosen.truth, [sample.id for sample in chosen.samples])


def check_classes(faces: Faces, labels: LabelSet, *, data: str) -> None:
    """DataError unless every label of the set has at least two faces to train on."""
    counts = np.bincount(faces.truth, minlength=len(labels.labels))
    scarce = [f"{name} ({n})" for name, n in zip(labels.labels, counts, strict=True) if n < 2]
    if scarce:
        raise DataError(
            f"{data}: too few train faces of {', '.join(scarce)}; each of {', '.join(labels.labels)} needs at least 2. "
            f"Add faces, or name the labels you have with --label-set a,b,c"
        )


def pixels_sha1(pixels: np.ndarray) -> str:
    """Hex SHA-1 of decoded pixels and their shape: equal for byte-identical pictures whatever their file format."""
    return hashlib.sha1(str(pixels.shape).encode() + pixels.tobytes(), usedforsecurity=False).hexdigest()


def _read(sample: Sample) -> np.ndarray:
    try:
        return sample.read()
    except DataError as error:
        raise DataError(f"{error}\n  list every unreadable face with:  edgeemo data audit --data DATA") from error
