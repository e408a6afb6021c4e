"""Faces that cannot be read, for `--skip-unreadable`: found and left out before a split is labelled."""

from __future__ import annotations

import logging

from edgeemo.data.sample import Sample
from edgeemo.errors import DataError
from edgeemo.progress import track
from edgeemo.report.facts import Unreadable

log = logging.getLogger(__name__)
LISTED = 10  # faces named one by one
_found: dict[tuple[str, str], dict[str, str]] = {}  # reason by id, by data set and split: each is read once


def list_readable(samples: list[Sample], data: str, split: str) -> list[Sample]:
    """Return the samples of a split that can be read; log the others. Every face is decoded once per process.

    Raises DataError if none can be read.
    """
    if (data, split) not in _found:
        _found[data, split] = reasons = _find_unreadable(samples, split)
        if reasons:
            log.warning("%s", _describe(reasons, len(samples), data, split))
    readable = [sample for sample in samples if sample.id not in _found[data, split]]
    if samples and not readable:
        raise DataError(f"{data}: none of the {len(samples)} {split} faces can be read; see the list above")
    return readable


def summarise(data: str, split: str) -> Unreadable | None:
    """Return how many faces of a split were passed over, and the first of them; None if none was."""
    ids = list(_found.get((data, split), ()))
    return Unreadable(len(ids), ids[:LISTED]) if ids else None


def _find_unreadable(samples: list[Sample], split: str) -> dict[str, str]:
    reasons = {}
    for sample in track(samples, f"checking {split} faces", total=len(samples), unit="faces"):
        try:
            sample.read()
        except DataError as error:
            reasons[sample.id] = str(error)
    return reasons


def _describe(reasons: dict[str, str], total: int, data: str, split: str) -> str:
    lines = [f"  {number}. {reason}" for number, reason in enumerate(list(reasons.values())[:LISTED], 1)]
    if len(reasons) > LISTED:
        lines.append(f"  … and {len(reasons) - LISTED} more; all:  edgeemo data audit --data DATA")
    head = f"{data}: passed over {len(reasons)} of {total} {split} faces, which cannot be read:"
    return "\n".join([head, *lines])
