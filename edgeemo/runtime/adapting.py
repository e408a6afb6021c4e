"""Adapt an open model: fit a change of its logits on labelled faces, and make the card of the adapted model."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeemo import images
from edgeemo.adaptation import Fitted, fit_adaptation
from edgeemo.artifact import atomic_write, hash_file
from edgeemo.card import Adaptation, Card, HeldOut, card_path, write_card
from edgeemo.errors import DataError, IntegrityError, UsageError
from edgeemo.labels import LabelSet
from edgeemo.metrics import Scores
from edgeemo.selective import fit_answers

if TYPE_CHECKING:
    from edgeemo.runtime.model import Model

DECIMALS = 8  # of the numbers in a card: the rounding changes no probability by 1e-6


@dataclass(frozen=True)
class LabelledFaces:
    """Faces to adapt to; row i of every field belongs to the same face.

    pixels: (N, size, size[, 3]) uint8, as the card's input defines them. truth: (N,) int, positions in the model's
    reported labels. people: who is on each, None: not known. data: the kind of source, for the card.
    """

    pixels: np.ndarray
    truth: np.ndarray
    people: Sequence[str] | None
    data: str


def check_faces(
    pixels: Sequence[np.ndarray], labels: Sequence[str], people: Sequence[str] | None, label_set: LabelSet
) -> LabelledFaces:
    """Return the faces of a call from Python; UsageError if lengths differ or a label is unknown."""
    if not pixels:
        raise DataError("expected labelled face crops, got none")
    for what, given in (("labels", labels), ("people", people)):
        if given is not None and (isinstance(given, str) or len(given) != len(pixels)):
            raise UsageError(f"expected {len(pixels)} {what}, one for each crop, got {len(given)}: {given!r:.60}")
    if people is not None and not all(isinstance(one, str) and one for one in people):
        raise UsageError("expected a name of each person, as text; leave people out if they are not known")
    if wrong := [label for label in labels if not isinstance(label, str)]:
        raise UsageError(f"expected names of labels, such as {label_set.labels[0]}, got {wrong[0]!r:.60}")
    truth = np.array([label_set.index(label) for label in labels], np.int64)
    return LabelledFaces(np.stack(pixels), truth, people, "python")


def save(file: Path, card: Card, path: Path) -> Path:
    """Copy a model file, and write its card beside it; neither is left if one cannot be written.

    Raises UsageError if one exists or the suffix is another, IntegrityError if the file is not that of the card.
    """
    check_new(path, file.suffix)
    with atomic_write(path) as temporary:
        shutil.copyfile(file, temporary)
        if hash_file(temporary) != card.sha256:
            raise make_changed_error(file, card)
    try:
        write_card(path, card)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


def check_new(path: Path, suffix: str) -> None:
    """Raise UsageError if a model cannot be written to a path: it exists, or has another suffix."""
    if path.suffix != suffix:
        raise UsageError(f"{path}: expected a name that ends with {suffix}, as the model's does")
    for one in (path, card_path(path)):
        if os.path.lexists(one):
            raise UsageError(f"{one} exists already, and is not overwritten; choose another name, or delete it")


def make_changed_error(file: Path, card: Card) -> IntegrityError:
    """Return the error for a model file that was replaced after its card was read."""
    return IntegrityError(
        f"{file} is not the file that was opened, {card.sha256[:12]}…: it was replaced meanwhile; adapt it again"
    )


def adapt(model: Model, faces: LabelledFaces, *, closed: bool = False) -> tuple[Fitted, Card | None]:
    """Fit a change for a model; return it with the card of the adapted model, None if no change is best.

    closed: no other labels than those of the faces occur; else labels without a face are left alone.

    Raises UsageError if the model is adapted already, or corrects for a prior.
    """
    card = model.card
    if card.adaptation:
        raise UsageError(
            f"{model.path} is adapted already, on {card.adaptation.faces} faces at {card.adaptation.fitted_at}; "
            f"adaptations do not stack.  Adapt the model it was made from, or undo this one:  "
            f"edgeemo adapt {model.path} --undo"
        )
    if model.prior:
        raise UsageError("the model corrects for a prior; open it without one to adapt it, which fits the mix as well")
    logits = compute_logits(model, faces.pixels)
    fitted = fit_adaptation(
        logits.astype(np.float64) / card.temperature,
        faces.truth,
        model.labels,
        positions=model.label_set.map_labels(card.labels),
        people=faces.people,
        closed=closed,
    )
    if fitted.candidate is None:
        return fitted, None
    return fitted, _make_card(card, fitted, faces, model.labels)


def compute_logits(model: Model, pixels: np.ndarray) -> np.ndarray:
    """Return (N, K) float32 logits, before any adaptation."""
    size = 64  # that of Model.probabilities
    starts = range(0, len(pixels), size)
    return np.concatenate([model.logits(images.to_input(pixels[at : at + size], model.card.input)) for at in starts])


def remove(card: Card) -> Card:
    """Return the card without its adaptation; UsageError if it has none."""
    if not card.adaptation:
        raise UsageError("the model is not adapted: there is nothing to undo")
    return replace(card, adaptation=None, answers=card.adaptation.answers_before)


def _make_card(card: Card, fitted: Fitted, faces: LabelledFaces, labels: tuple[str, ...]) -> Card:
    """Return a card with the adaptation; its threshold is fitted again on the held-out predictions, or left out."""
    evidence, candidate = fitted.evidence, fitted.candidate
    if candidate is None:
        raise ValueError("no change was fitted")
    adaptation = Adaptation(
        form=candidate.form,
        matrix=tuple(tuple(row) for row in fitted.change.matrix.round(DECIMALS).tolist()),
        bias=tuple((card.temperature * fitted.change.bias).round(DECIMALS).tolist()),
        model_sha256=card.sha256,
        penalty=candidate.penalty,
        faces=len(faces.truth),
        people=evidence.folds.people,
        labels={name: count for name, count in evidence.before.support.items() if count},
        data=faces.data,
        content_sha256=_hash_faces(faces, labels),
        fitted_at=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        before=_make_held_out(evidence.before),
        after=_make_held_out(evidence.after),
        p_value=evidence.p_value,
        shown=fitted.shown,
        answers_before=card.answers,
    )
    aim = card.answers.least_accuracy if card.answers else None
    answers = fit_answers(evidence.held_out, faces.truth, aim) if aim is not None else None
    return replace(card, adaptation=adaptation, answers=answers)


def _make_held_out(found: Scores) -> HeldOut:
    return HeldOut(found.accuracy, found.accuracy_low, found.accuracy_high, found.ece, found.recall)


def _hash_faces(faces: LabelledFaces, labels: tuple[str, ...]) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(faces.pixels).data)
    digest.update("\n".join(labels[k] for k in faces.truth).encode())
    return digest.hexdigest()
