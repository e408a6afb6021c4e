"""Accuracy of an open model on labelled faces: under both protocols, without copies of training faces, and paired."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeemo.artifact import hash_lines
from edgeemo.card import Card, InputContract, get_label_set
from edgeemo.data import faces
from edgeemo.data.sample import NoSuchSplit, Sample
from edgeemo.data.unreadable import summarise
from edgeemo.errors import DataError, UsageError
from edgeemo.labels import LabelSet
from edgeemo.measure.logits import compute_logits
from edgeemo.metrics import PairedComparison, compare_paired, scores, wilson
from edgeemo.progress import track
from edgeemo.report.facts import FacesBlock
from edgeemo.report.result import Accuracy, Answers, FaceScores, WithoutCopies
from edgeemo.runtime import Model
from edgeemo.selective import CURVE, measure_curve


@dataclass(frozen=True)
class EvalSet:
    """The labelled faces that a bench evaluates a model on, independent of the model's input contract."""

    data: str
    split: str
    protocol: str  # the requested one
    labels: LabelSet
    labelled: faces.LabelledSamples  # under plurality, which keeps every face of majority, with the same label
    masks: dict[str, np.ndarray]  # by protocol that keeps any face, (N,) bool over `labelled`
    copies: np.ndarray | None  # (N,) bool: train has the same pixels; None: nothing to compare with
    card_ids_sha256: str  # fingerprint of the split under the card's own labels and protocol; empty if none is kept

    @property
    def requested(self) -> np.ndarray:
        """(N,) bool: the faces of the requested protocol."""
        return self.masks[self.protocol]

    def ids_sha256(self, protocol: str) -> str:
        """Return the fingerprint of the faces that a protocol keeps, computed as training writes it into a card."""
        kept = zip(self.labelled.samples, self.masks[protocol], strict=True)
        return hash_lines([sample.id for sample, keep in kept if keep])


def make_eval_set(
    data: str,
    split: str,
    protocol: str,
    card: Card,
    *,
    labels: LabelSet | None = None,
    skip_unreadable: bool = False,
) -> EvalSet:
    """Label the faces of a split and find copies of training faces; labels: None means the card's own."""
    labels = labels or get_label_set(card)
    samples = faces.list_split(data, split, labels, skip_unreadable=skip_unreadable)
    labelled = faces.label(samples, labels, protocol="plurality")
    masks = {"plurality": np.ones(len(labelled.samples), bool)}
    try:
        clear = {sample.id for sample in faces.label(samples, labels, protocol="majority").samples}
        masks["majority"] = np.array([sample.id in clear for sample in labelled.samples])
    except DataError:  # no face has a majority: an error only if majority was requested
        if protocol == "majority":
            raise
    copies = _find_copies(data, split, labels, labelled.samples, skip_unreadable=skip_unreadable)
    return EvalSet(data, split, protocol, labels, labelled, masks, copies, _hash_card_ids(samples, card))


def _hash_card_ids(samples: list[Sample], card: Card) -> str:
    try:
        kept = faces.label(samples, get_label_set(card), protocol=card.data.protocol if card.data else "plurality")
    except (DataError, UsageError):  # none of these faces has a label of the model, or some have others
        return ""
    return hash_lines([sample.id for sample in kept.samples])


def decode_faces(eval_set: EvalSet, contract: InputContract) -> np.ndarray:
    """Return (N, size, size[, 3]) uint8: every labelled face, decoded for an input contract."""
    faces.warn_of_other_crop(eval_set.data, contract)
    pixels: np.ndarray = faces.decode(eval_set.labelled, contract, what=f"{eval_set.split} faces").pixels[:]
    return pixels


def predict_probabilities(model: Model, pixels: np.ndarray) -> np.ndarray:
    """Return (N, K) probabilities of the model's labels, with a progress bar."""
    return model.merge_probabilities(compute_logits(model, pixels))


def score(
    predicted: np.ndarray, eval_set: EvalSet, *, caveat: str = "", card_threshold: float | None = None
) -> Accuracy:
    """Score (N, K) probabilities under the requested protocol, the other one, and without copies of training faces.

    card_threshold: the probability below which the model's predictions are unsure; None: its card has none.
    """
    requested = eval_set.requested
    other = next((name for name, mask in eval_set.masks.items() if (mask != requested).any()), None)
    return Accuracy(
        **vars(_score_protocol(predicted, eval_set, eval_set.protocol)),
        other_protocol=_score_protocol(predicted, eval_set, other) if other else None,
        without_copies=_score_without_copies(predicted, eval_set),
        caveat=caveat,
        answers=_measure_answers(predicted[requested], eval_set.labelled.truth[requested], card_threshold),
    )


def _measure_answers(predicted: np.ndarray, truth: np.ndarray, card_threshold: float | None) -> Answers:
    thresholds = {*CURVE, *([] if card_threshold is None else [card_threshold])}
    return Answers(card_threshold, measure_curve(predicted, truth, sorted(thresholds)))


def compare_models(other: np.ndarray, predicted: np.ndarray, eval_set: EvalSet) -> PairedComparison:
    """Compare the model, second, with another, first, on the faces of the requested protocol."""
    rows = eval_set.requested
    first, second = other[rows].argmax(1), predicted[rows].argmax(1)
    return compare_paired(first, second, eval_set.labelled.truth[rows], eval_set.labels.labels)


def make_caveat(card: Card, eval_set: EvalSet) -> str:
    """Return sentences on how training used these faces, as far as the card records it; empty if it did not."""
    if not _used_in_training(card, eval_set):
        return ""
    metrics = card.metrics.get(eval_set.split)
    caveats = {
        "The model was trained on these faces: new ones will be harder.": eval_set.split == "train",
        "The epoch was chosen on these faces: expect a little less on new ones.": metrics and metrics.selected_on_valid,
        "The temperature was fitted on these faces: expect a larger calibration error (ECE) on new ones.": (
            metrics and metrics.temperature_fitted_on == eval_set.split
        ),
        "The threshold was fitted on these faces: expect slightly fewer correct predictions above it on new ones.": (
            card.answers and metrics and metrics.temperature_fitted_on == eval_set.split
        ),
    }
    return " ".join(sentence for sentence, holds in caveats.items() if holds)


def check_comparable(first: Model, second: Model) -> None:
    """Raise UsageError unless both models have the same labels in the same order."""
    if first.labels != second.labels:
        raise UsageError(
            f"--against needs a model of the same labels; this one has {', '.join(first.labels)}, "
            f"the other {', '.join(second.labels)}.  Name labels that both can report with --label-set"
        )


def _score_protocol(predicted: np.ndarray, eval_set: EvalSet, protocol: str) -> FaceScores:
    rows = eval_set.masks[protocol]
    result = scores(predicted[rows], eval_set.labelled.truth[rows], eval_set.labels.labels)
    kind, ids_sha256 = faces.kind_of(eval_set.data), eval_set.ids_sha256(protocol)
    unreadable = summarise(eval_set.data, eval_set.split)
    about = FacesBlock(kind, eval_set.split, protocol, result.n, ids_sha256, unreadable)
    return FaceScores(**vars(result), faces=about)


def _used_in_training(card: Card, eval_set: EvalSet) -> bool:
    """Return whether the card lists these faces, under its own labels and protocol: bench may evaluate a part only."""
    if card.data is None or card.data.kind != faces.kind_of(eval_set.data):
        return False
    recorded = card.data.get(eval_set.split)
    return recorded is not None and recorded.ids_sha256 == eval_set.card_ids_sha256


def _score_without_copies(predicted: np.ndarray, eval_set: EvalSet) -> WithoutCopies | None:
    if eval_set.copies is None:
        return None
    rows = eval_set.requested & ~eval_set.copies
    copies, n = int((eval_set.requested & eval_set.copies).sum()), int(rows.sum())
    if not n:
        return WithoutCopies(copies, n)
    correct = int((predicted[rows].argmax(1) == eval_set.labelled.truth[rows]).sum())
    return WithoutCopies(copies, n, correct / n, *wilson(correct, n))


def _find_copies(
    data: str, split: str, labels: LabelSet, samples: list[Sample], *, skip_unreadable: bool
) -> np.ndarray | None:
    if split == "train" or faces.kind_of(data) == "synthetic":  # every synthetic face has its own seed
        return None
    try:
        train = faces.list_split(data, "train", labels, skip_unreadable=skip_unreadable)
    except NoSuchSplit:
        return None
    known = set(_hash_faces(train, "train"))
    return np.array([digest in known for digest in _hash_faces(samples, split)])


def _hash_faces(samples: list[Sample], split: str) -> list[str]:
    return [
        faces.hash_pixels(faces.read(sample)) for sample in track(samples, f"hashing {split} faces", total=len(samples))
    ]
