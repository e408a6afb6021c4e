"""Accuracy of an open model on labelled faces: under both protocols, without copies of train faces, and in pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeemo.artifact import sha256_of_lines
from edgeemo.card import Card, InputContract, label_set_of
from edgeemo.data import faces
from edgeemo.data.sample import NoSuchSplit, Sample
from edgeemo.errors import DataError, UsageError
from edgeemo.labels import LabelSet
from edgeemo.measure.logits import logits_of
from edgeemo.metrics import PairedComparison, compare_paired, scores, wilson
from edgeemo.progress import track
from edgeemo.report.facts import FacesBlock
from edgeemo.report.result import Accuracy, FaceScores, WithoutCopies
from edgeemo.runtime import Model


@dataclass(frozen=True)
class Trial:
    """The faces that a bench asks about, before any model has seen them."""

    data: str
    split: str
    protocol: str
    labels: LabelSet
    chosen: faces.LabelledSamples  # under plurality, which keeps every face that majority keeps, with the same label
    kept: dict[str, np.ndarray]  # by protocol that keeps any face, (N,) bool over the chosen
    copies: np.ndarray | None  # (N,) bool: the same pixels stand in train; None: there is nothing to compare with
    as_trained: str  # fingerprint of the split as the card's own labels and protocol keep it; empty if they keep none

    @property
    def asked(self) -> np.ndarray:
        """(N,) bool: the faces of the protocol that was asked for."""
        return self.kept[self.protocol]

    def ids_sha256(self, protocol: str) -> str:
        """Fingerprint of the faces that a protocol keeps, as training writes it into a card."""
        kept = zip(self.chosen.samples, self.kept[protocol], strict=True)
        return sha256_of_lines([sample.id for sample, keep in kept if keep])


def trial(name: str, split: str, protocol: str, card: Card, *, labels: LabelSet | None = None) -> Trial:
    """Label the faces of a split and find those that are copies of train faces; labels: None means the card's own."""
    labels = labels or label_set_of(card)
    found = faces.samples(name, split, labels)
    chosen = faces.label(found, labels, protocol="plurality")
    kept = {"plurality": np.ones(len(chosen.samples), bool)}
    try:
        clear = {sample.id for sample in faces.label(found, labels, protocol="majority").samples}
        kept["majority"] = np.array([sample.id in clear for sample in chosen.samples])
    except DataError:  # no face has a majority: an error only for those who asked for it
        if protocol == "majority":
            raise
    copies = _copies(name, split, labels, chosen.samples)
    return Trial(name, split, protocol, labels, chosen, kept, copies, _as_trained(found, card))


def _as_trained(found: list[Sample], card: Card) -> str:
    try:
        kept = faces.label(found, label_set_of(card), protocol=card.data.protocol if card.data else "plurality")
    except (DataError, UsageError):  # these faces have none of the model's labels, or others
        return ""
    return sha256_of_lines([sample.id for sample in kept.samples])


def decoded(asked: Trial, contract: InputContract) -> np.ndarray:
    """(N, size, size[, 3]) uint8: every chosen face as a contract asks."""
    return faces.decode(asked.chosen, contract, what=f"{asked.split} faces").pixels


def probabilities(model: Model, pixels: np.ndarray) -> np.ndarray:
    """(N, K) probabilities of the model's labels, while a bar counts."""
    return model.shares(logits_of(model, pixels))


def judged(predicted: np.ndarray, asked: Trial, *, caveat: str = "") -> Accuracy:
    """Scores under the protocol that was asked for, under the other one, and without copies of train faces."""
    other = next((name for name, rows in asked.kept.items() if (rows != asked.asked).any()), None)
    return Accuracy(
        **vars(_scored(predicted, asked, asked.protocol)),
        other_protocol=_scored(predicted, asked, other) if other else None,
        without_copies=_without_copies(predicted, asked),
        caveat=caveat,
    )


def compared(other: np.ndarray, predicted: np.ndarray, asked: Trial) -> PairedComparison:
    """The model, second, with another, first, on the faces that were asked about."""
    rows = asked.asked
    first, second = other[rows].argmax(1), predicted[rows].argmax(1)
    return compare_paired(first, second, asked.chosen.truth[rows], asked.labels.labels)


def caveat(card: Card, asked: Trial) -> str:
    """What the model has seen of these very faces before, as far as its card tells; empty if nothing."""
    if not _known_to(card, asked):
        return ""
    chosen = card.metrics.get(asked.split)
    seen = {
        "The model was trained on these faces: new ones will be harder.": asked.split == "train",
        "The epoch was chosen on these faces: expect a little less on new ones.": chosen and chosen.selected_on_valid,
        "The temperature was fitted on these faces: expect a larger calibration error (ECE) on new ones.": (
            chosen and chosen.temperature_fitted_on == asked.split
        ),
    }
    return " ".join(sentence for sentence, holds in seen.items() if holds)


def check_comparable(first: Model, second: Model) -> None:
    """UsageError unless both models name the same labels in the same order."""
    if first.labels != second.labels:
        raise UsageError(
            f"--against needs a model of the same labels; this one has {', '.join(first.labels)}, "
            f"the other {', '.join(second.labels)}.  Labels that both tell can be named with --label-set"
        )


def _scored(predicted: np.ndarray, asked: Trial, protocol: str) -> FaceScores:
    rows = asked.kept[protocol]
    result = scores(predicted[rows], asked.chosen.truth[rows], asked.labels.labels)
    about = FacesBlock(faces.kind_of(asked.data), asked.split, protocol, result.n, asked.ids_sha256(protocol))
    return FaceScores(**vars(result), faces=about)


def _known_to(card: Card, asked: Trial) -> bool:
    """Whether the card names these faces, by the labels and protocol of its training: bench may judge only some."""
    if card.data is None or card.data.kind != faces.kind_of(asked.data):
        return False
    known = card.data.of(asked.split)
    return known is not None and known.ids_sha256 == asked.as_trained


def _without_copies(predicted: np.ndarray, asked: Trial) -> WithoutCopies | None:
    if asked.copies is None:
        return None
    rows = asked.asked & ~asked.copies
    copies, n = int((asked.asked & asked.copies).sum()), int(rows.sum())
    if not n:
        return WithoutCopies(copies, n)
    right = int((predicted[rows].argmax(1) == asked.chosen.truth[rows]).sum())
    return WithoutCopies(copies, n, right / n, *wilson(right, n))


def _copies(name: str, split: str, labels: LabelSet, chosen: list[Sample]) -> np.ndarray | None:
    if split == "train" or faces.kind_of(name) == "synthetic":  # every synthetic face has a seed of its own
        return None
    try:
        train = faces.samples(name, "train", labels)
    except NoSuchSplit:
        return None
    known = set(_hashes(train, "train"))
    return np.array([digest in known for digest in _hashes(chosen, split)])


def _hashes(samples: list[Sample], split: str) -> list[str]:
    return [faces.hash_pixels(sample.read()) for sample in track(samples, f"hashing {split} faces", total=len(samples))]
