"""Knowledge distillation: a trained run, or an ensemble of several, as the teacher (Hinton et al. 2015).

A teacher is slow, so it is evaluated in advance. Every training face gets a fixed number of augmented views; epoch e
uses view e modulo that number, so that the student is trained on exactly the pixels that the teacher saw (consistent
teaching, Beyer et al. 2022). The teacher runs in the student's precision. The logits of each member are cached in its
run folder, one file per view, for the next student.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from edgeemo.artifact import atomic_write
from edgeemo.card import InputContract
from edgeemo.data import Faces
from edgeemo.errors import UsageError
from edgeemo.images import to_pixels
from edgeemo.labels import LabelSet
from edgeemo.progress import counter
from edgeemo.stages import Train
from edgeemo.train.augment import augment_view, make_augmentation
from edgeemo.train.device import keep_freed_memory, resolve_precision
from edgeemo.train.ensemble import Member, average, load_members, log_probabilities
from edgeemo.train.fit import predict_logits

FOLDER = "views"
CHUNK = 1024  # faces of a view in memory at once


def load_teachers(runs: Sequence[Path], labels: LabelSet) -> list[Member]:
    """Load the members of the teacher; raise UsageError if one of them lacks a label of the student."""
    teachers = load_members(runs)
    for member in teachers:
        known = {labels.find(name) for name in member.card.labels}
        if missing := [name for k, name in enumerate(labels.labels) if k not in known]:
            raise UsageError(
                f"--teacher {member.name} predicts {', '.join(member.card.labels)}; the student also needs "
                f"{', '.join(missing)}. Train a teacher with these labels"
            )
    return teachers


def describe_teachers(teachers: Sequence[Member]) -> dict[str, Any]:
    """Return the members of a teacher for the history in a card."""
    return {"teachers": [{"name": m.name, "sha256": m.card.sha256} for m in teachers]} if teachers else {}


def collect_licences(masters: Sequence[Member]) -> str | None:
    """The terms that a student inherits: those of the members' faces and first weights, None where they have none."""
    terms = {text for member in masters for text in member.card.licences.list_terms().values()}
    return "; ".join(sorted(terms)) or None


def predict_views(
    teachers: Sequence[Member], config: Train, faces: Faces, *, labels: LabelSet, contract: InputContract
) -> np.ndarray:
    """Return (V, N, K) float32 log-probabilities of the teacher for `labels`, for every view of every face.

    `teachers` are the members loaded from config.teacher. Each predicts at its own fitted temperature. If a member has
    more labels than the student, probabilities of labels that the student's set merges are summed (FER+'s eight to
    six), and others are left out.
    """
    keep_freed_memory()
    pairs = list(zip(config.teacher, teachers, strict=True))
    logits = [_predict_member(run, member, config, faces, contract) for run, member in pairs]
    return np.stack([_average_view(logits, teachers, labels, view) for view in range(_count_views(config))])


def _average_view(logits: list[np.ndarray], teachers: Sequence[Member], labels: LabelSet, view: int) -> np.ndarray:
    return average([log_probabilities(own[view], m.card, labels) for own, m in zip(logits, teachers, strict=True)])


def _count_views(config: Train) -> int:
    """Return the number of views that the epochs use."""
    return min(config.views, config.epochs)


def _predict_member(run: Path, member: Member, config: Train, faces: Faces, contract: InputContract) -> np.ndarray:
    """Return (V, N, K) logits of one member, from its cache as far as possible."""
    folder = run / FOLDER / _make_cache_key(member, config, faces, contract)
    files = [folder / f"{view}.npy" for view in range(_count_views(config))]
    missing = [view for view, file in enumerate(files) if not file.is_file()]
    with counter(
        f"predicting {len(missing)} views with {member.name}", total=len(missing) * len(faces), unit="faces"
    ) as advance:
        for view in missing:
            transform, parts = make_augmentation(config.augment, vertical_flips=config.vertical_flips), []
            for rows in np.array_split(np.arange(len(faces)), -(-len(faces) // CHUNK)):
                pixels = augment_view(faces.pixels, rows, transform, seed=(config.seed, view))
                inputs = _convert_for_member(pixels, faces, rows, member)
                with torch.autocast("cpu", torch.bfloat16, enabled=_choose_teacher_precision(config) == "bf16"):
                    parts.append(predict_logits(member.network, inputs, member.card.input))
                advance(len(rows), "")
            folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(files[view]) as partial, partial.open("wb") as file:
                np.save(file, np.concatenate(parts))
    return np.stack([np.load(file, allow_pickle=False) for file in files])


def _choose_teacher_precision(config: Train) -> str:
    """Return the precision of the teacher, which runs on the CPU; bf16 halves the time and keeps 99.8 % of labels."""
    return "fp32" if config.precision == "fp16" else resolve_precision(config.precision, "cpu")[0]


def _convert_for_member(pixels: np.ndarray, faces: Faces, rows: np.ndarray, member: Member) -> Faces:
    """Convert the student's pixels of these rows to the member's size and colour."""
    converted = np.stack([to_pixels(face, member.card.input) for face in pixels])
    return Faces(converted, faces.votes[rows], faces.truth[rows], [faces.ids[row] for row in rows])


def _make_cache_key(member: Member, config: Train, faces: Faces, contract: InputContract) -> str:
    """Return a hash of everything that determines a member's logits.

    Views are numbered from zero; a student with more views reuses the first ones.
    """
    facts = {
        "weights": member.card.sha256,
        "faces": faces.content_sha256,
        "seed": config.seed,
        "views": make_augmentation(
            config.augment, vertical_flips=config.vertical_flips
        ).to_dict(),  # with its library's version
        "cv2": cv2.__version__,
        "size": contract.size,
        "colour": contract.colour,
        "precision": _choose_teacher_precision(config),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
