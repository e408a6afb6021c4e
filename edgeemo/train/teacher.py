"""Distillation: a trained run, or an ensemble of several, teaches a smaller network (Hinton et al. 2015).

A teacher is slow, so it answers once. Every train face gets a fixed number of augmented views, and epoch e shows view
e modulo that number, so that the student sees just the pixels that the teacher saw: a teacher is to be patient and
consistent (Beyer et al. 2022). It looks in the student's arithmetic. A member's answers are kept in its own run folder,
view by view, for the next student.
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

from edgeemo.artifact import written
from edgeemo.card import InputContract
from edgeemo.data import Faces
from edgeemo.errors import UsageError
from edgeemo.images import to_pixels
from edgeemo.labels import LabelSet
from edgeemo.progress import counter
from edgeemo.stages import Train
from edgeemo.train.augment import transforms, view_of
from edgeemo.train.ensemble import Member, combined, members, told
from edgeemo.train.fit import predict_logits
from edgeemo.train.place import keep_freed_memory, precision_for

FOLDER = "views"
CHUNK = 1024  # faces of a view that are in memory at once


def check(runs: Sequence[Path], labels: LabelSet) -> list[Member]:
    """The members of the teacher; UsageError if one of them does not tell every one of the student's labels."""
    found = members(runs)
    for member in found:
        known = {labels.find(name) for name in member.card.labels}
        if missing := [name for k, name in enumerate(labels.labels) if k not in known]:
            raise UsageError(
                f"--teacher {member.name} tells {', '.join(member.card.labels)}; the student also needs "
                f"{', '.join(missing)}. Train a teacher with these labels"
            )
    return found


def told_by(masters: Sequence[Member]) -> dict[str, Any]:
    """What a card's history says of the members of a teacher."""
    return {"teachers": [{"name": m.name, "sha256": m.card.sha256} for m in masters]} if masters else {}


def licences(masters: Sequence[Member]) -> str | None:
    """The terms that a student inherits: those of the members' faces and first weights, None where they have none."""
    terms = {text for member in masters for text in member.card.licences.terms().values()}
    return "; ".join(sorted(terms)) or None


def taught(config: Train, faces: Faces, *, labels: LabelSet, contract: InputContract) -> np.ndarray:
    """(V, N, K) float32 log-probabilities of the teacher for `labels`, for every view of every face that will be shown.

    Each member answers at its own fitted temperature. Of one that knows more labels than the student, those that the
    student's set merges are added up, as FER+'s eight are for six, and others left out.
    """
    keep_freed_memory()
    masters = check(config.teacher, labels)
    answers = [_answers(run, m, config, faces, contract) for run, m in zip(config.teacher, masters, strict=True)]
    members = list(zip(answers, masters, strict=True))
    return np.stack([combined([told(a[view], m.card, labels) for a, m in members]) for view in range(_shown(config))])


def _shown(config: Train) -> int:
    """How many views the epochs come to."""
    return min(config.views, config.epochs)


def _answers(run: Path, member: Member, config: Train, faces: Faces, contract: InputContract) -> np.ndarray:
    """(V, N, K) logits of one member, read where they were kept."""
    folder = run / FOLDER / _key(member, config, faces, contract)
    files = [folder / f"{view}.npy" for view in range(_shown(config))]
    missing = [view for view, file in enumerate(files) if not file.is_file()]
    with counter(f"{member.name} looks at {len(missing)} views", total=len(missing) * len(faces)) as advance:
        for view in missing:
            transform, parts = transforms(config.augment, vertical_flips=config.vertical_flips), []
            for rows in np.array_split(np.arange(len(faces)), -(-len(faces) // CHUNK)):
                seen = _as_member_sees(
                    view_of(faces.pixels, rows, transform, seed=(config.seed, view)), faces.take(rows), member
                )
                with torch.autocast("cpu", torch.bfloat16, enabled=_precision(config) == "bf16"):
                    parts.append(predict_logits(member.network, seen, member.card.input))
                advance(len(rows), "")
            folder.mkdir(parents=True, exist_ok=True)
            with written(files[view]) as partial, partial.open("wb") as file:
                np.save(file, np.concatenate(parts))
    return np.stack([np.load(file, allow_pickle=False) for file in files])


def _precision(config: Train) -> str:
    """On the CPU, where a teacher looks; bf16 halves the time and names 99.8 % of faces alike."""
    return "fp32" if config.precision == "fp16" else precision_for(config.precision, "cpu")[0]


def _as_member_sees(pixels: np.ndarray, faces: Faces, member: Member) -> Faces:
    """The student's pixels at the member's size and colour."""
    seen = np.stack([to_pixels(face, member.card.input) for face in pixels])
    return Faces(seen, faces.votes, faces.truth, faces.ids)


def _key(member: Member, config: Train, faces: Faces, contract: InputContract) -> str:
    """What decides a member's answers; views are counted on from zero, so more of them keep the first."""
    facts = {
        "weights": member.card.sha256,
        "faces": faces.content_sha256,
        "seed": config.seed,
        "views": transforms(
            config.augment, vertical_flips=config.vertical_flips
        ).to_dict(),  # with its library's version
        "cv2": cv2.__version__,
        "size": contract.size,
        "colour": contract.colour,
        "precision": _precision(config),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
