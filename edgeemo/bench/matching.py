"""Which detections are labelled faces: one-to-one, the highest score first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from edgeemo.data.boxes import LabelledBox
from edgeemo.faces import Detection
from edgeemo.faces.detection import Box
from edgeemo.faces.merge import TINY, compute_iou, intersect
from edgeemo.report.result import BoxScores, SizeScores

MIN_IOU = 0.5  # intersection over union of a detection and the face that it finds
MIN_IGNORED = 0.5  # part of a detection inside an ignored box, from which on it does not count, as in COCO's evaluation
SIZES = (0, 24, 48, 96, 192)  # pixels of the longer side; 48 is what a packaged model reads


@dataclass(frozen=True)
class Matches:
    """What the detections of an image, or of all images, are: boxes of found and missed faces, and false ones."""

    found: tuple[Box, ...]  # as labelled
    missed: tuple[Box, ...]
    false: tuple[Box, ...]

    @property
    def labelled(self) -> int:
        """Faces that count."""
        return len(self.found) + len(self.missed)

    @property
    def detected(self) -> int:
        """Detections that count."""
        return len(self.found) + len(self.false)


def match(detections: Sequence[Detection], labelled: Sequence[LabelledBox]) -> Matches:
    """Match the detections of one image with its labelled boxes.

    Each detection, in the order of their scores, finds the box with the highest intersection over union, of those that
    no other has found and that reach MIN_IOU. Any other is false, unless it lies in an ignored box by MIN_IGNORED.
    """
    faces = [one.box for one in labelled if not one.ignored]
    ignored = _to_array([one.box for one in labelled if one.ignored])
    ranked = [one.box for one in sorted(detections, key=lambda one: -one.score)]
    boxes = _to_array(ranked)
    overlap, inside = compute_iou(boxes, _to_array(faces)), _compute_inside(boxes, ignored)
    found: list[int] = []
    false: list[Box] = []
    for number, box in enumerate(ranked):
        overlap[number, found] = 0
        best = int(overlap[number].argmax()) if faces else -1
        if faces and overlap[number, best] >= MIN_IOU:
            found.append(best)
        elif inside[number].max(initial=0) < MIN_IGNORED:
            false.append(box)
    missed = [box for number, box in enumerate(faces) if number not in found]
    return Matches(tuple(faces[number] for number in sorted(found)), tuple(missed), tuple(false))


def join(matches: Iterable[Matches]) -> Matches:
    """Join the matches of several images."""
    joined: list[tuple[tuple[Box, ...], ...]] = [(one.found, one.missed, one.false) for one in matches]
    found, missed, false = (tuple(box for part in parts for box in part) for parts in zip(*joined, strict=True))
    return Matches(found, missed, false)


def score(matches: Matches) -> BoxScores:
    """Return recall and precision."""
    labelled, detected, found = matches.labelled, matches.detected, len(matches.found)
    return BoxScores(
        labelled=labelled,
        found=found,
        false=len(matches.false),
        recall=found / labelled if labelled else None,
        precision=found / detected if detected else None,
    )


def score_sizes(matches: Matches) -> list[SizeScores]:
    """Return recall and precision by the longer side of the box: the label's, or that of a false one."""
    return [
        SizeScores(**vars(score(_select(matches, least, below))), least=least, below=below)
        for least, below in zip(SIZES, (*SIZES[1:], None), strict=True)
    ]


def _select(matches: Matches, least: int, below: int | None) -> Matches:
    """Return what is of one size."""
    parts = (
        tuple(box for box in boxes if least <= max(box[2:]) and (below is None or max(box[2:]) < below))
        for boxes in (matches.found, matches.missed, matches.false)
    )
    return Matches(*parts)


def _compute_inside(boxes: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """Return the part of each box that lies in each ignored one, (N, M)."""
    area = np.maximum(boxes[:, 2] * boxes[:, 3], TINY)
    parts: np.ndarray = intersect(boxes, ignored) / area[:, None]
    return parts


def _to_array(boxes: Sequence[Box]) -> np.ndarray:
    return np.array(boxes, float).reshape(-1, 4)
