"""Accuracy of an open model on labelled faces: under both protocols, without copies of train faces, and in pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeemo.artifact import sha256_of_lines
from edgeemo.card import Card, InputContract, label_set_of
from edgeemo.data import faces
from edgeemo.data.sample import NoSuchSplit, Sample
from edgeemo.errors import UsageError
from edgeemo.labels import LabelSet
from edgeemo.metrics import mcnemar, scores, wilson
from edgeemo.progress import track
from edgeemo.runtime import Model

SLICE = 64  # faces between two steps of the bar


@dataclass(frozen=True)
class Trial:
    """The faces that a bench asks about, before any model has seen them."""

    data: str
    split: str
    protocol: str
    labels: LabelSet
    chosen: faces.Labelled  # under plurality, which keeps every face that majority keeps, with the same label
    kept: dict[str, np.ndarray]  # by protocol, (N,) bool over the chosen
    copies: np.ndarray | None  # (N,) bool: the same pixels stand in train; None: there is nothing to compare with

    @property
    def asked(self) -> np.ndarray:
        """(N,) bool: the faces of the protocol that was asked for."""
        return self.kept[self.protocol]


def trial(name: str, split: str, protocol: str, card: Card) -> Trial:
    """Label the faces of a split as the card's label set says, and find those that are copies of train faces."""
    labels = label_set_of(card)
    found = faces.samples(name, split, labels)
    chosen = faces.label(found, labels, protocol="plurality")
    ids = [sample.id for sample in chosen.samples]
    clear = faces.label(found, labels, protocol="majority")
    kept = {"plurality": np.ones(len(ids), bool), "majority": _among(ids, clear)}
    return Trial(name, split, protocol, labels, chosen, kept, _copies(name, split, labels, chosen.samples))


def decoded(asked: Trial, contract: InputContract) -> np.ndarray:
    """(N, size, size[, 3]) uint8: every chosen face as a contract asks."""
    return faces.decode(asked.chosen, contract, what=f"{asked.split} faces").pixels


def probabilities(model: Model, pixels: np.ndarray) -> np.ndarray:
    """(N, K) probabilities, while a bar counts."""
    starts = range(0, len(pixels), SLICE)
    steps = track(starts, f"running {model.path.name}", total=len(starts))
    return np.concatenate([model.probabilities(pixels[start : start + SLICE]) for start in steps])


def judged(predicted: np.ndarray, asked: Trial) -> dict[str, Any]:
    """Scores under the protocol that was asked for, under the other one, and without copies of train faces."""
    other = next(protocol for protocol in faces.PROTOCOLS if protocol != asked.protocol)
    differs = bool((asked.kept[other] != asked.asked).any())
    return {
        "data": faces.kind_of(asked.data),
        "split": asked.split,
        **_scored(predicted, asked, asked.protocol),
        "other_protocol": _scored(predicted, asked, other) if differs else None,
        "without_copies": _without_copies(predicted, asked),
    }


def compared(baseline: np.ndarray, predicted: np.ndarray, asked: Trial) -> dict[str, Any]:
    """The model against a baseline on the same faces: paired test, agreement and recall gained per class."""
    rows, truth = asked.asked, asked.chosen.truth
    first, second, truth = baseline[rows].argmax(1), predicted[rows].argmax(1), truth[rows]
    paired = mcnemar(first, second, truth)
    hits = {name: int((truth == k).sum()) for k, name in enumerate(asked.labels.labels)}
    gained = {
        name: float(((second == k) & (truth == k)).sum() - ((first == k) & (truth == k)).sum()) / n if n else None
        for k, (name, n) in enumerate(hits.items())
    }
    return {
        "n": paired.n,
        "baseline_accuracy": float((first == truth).mean()),
        "difference": paired.difference,
        "p_value": paired.p_value,
        "only_baseline_right": paired.only_first,
        "only_this_right": paired.only_second,
        "agreement": float((first == second).mean()),
        "recall_difference": gained,
    }


def caveat(card: Card, asked: Trial) -> str:
    """What the model has seen of these faces before, as far as its card tells; empty if nothing."""
    if card.data.get("kind") != faces.kind_of(asked.data):
        return ""
    if asked.split == "train":
        return "The model was trained on these faces: new ones will be harder."
    if card.metrics.get(asked.split, {}).get("selected_on_valid"):
        return "Epoch and temperature were chosen on these faces: expect a little less on new ones."
    return ""


def check_comparable(first: Card, second: Card) -> None:
    """UsageError unless both models name the same labels in the same order."""
    if first.labels != second.labels:
        raise UsageError(
            f"--against needs a model of the same labels; this one has {', '.join(first.labels)}, "
            f"the other {', '.join(second.labels)}"
        )


def _scored(predicted: np.ndarray, asked: Trial, protocol: str) -> dict[str, Any]:
    rows = asked.kept[protocol]
    ids = [sample.id for sample, keep in zip(asked.chosen.samples, rows, strict=True) if keep]
    result = scores(predicted[rows], asked.chosen.truth[rows], asked.labels.labels)
    return {"protocol": protocol, "ids_sha256": sha256_of_lines(ids), **result.to_dict()}


def _without_copies(predicted: np.ndarray, asked: Trial) -> dict[str, Any] | None:
    if asked.copies is None:
        return None
    rows = asked.asked & ~asked.copies
    found = {"copies": int((asked.asked & asked.copies).sum()), "n": int(rows.sum())}
    if not found["n"]:
        return found
    right = int((predicted[rows].argmax(1) == asked.chosen.truth[rows]).sum())
    low, high = wilson(right, found["n"])
    return {**found, "accuracy": right / found["n"], "accuracy_low": low, "accuracy_high": high}


def _among(ids: list[str], kept: faces.Labelled) -> np.ndarray:
    names = {sample.id for sample in kept.samples}
    return np.array([name in names for name in ids])


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
    return [faces.pixels_sha1(sample.read()) for sample in track(samples, f"hashing {split} faces", total=len(samples))]
