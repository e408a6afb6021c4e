"""The calibration list: which train faces show the quantizer what range each activation has.

Only ids are kept, never pixels; the hash in the header says that nobody changed the list since it was drawn.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeemo.artifact import sha256_of_lines, write_json
from edgeemo.card import InputContract
from edgeemo.data import Faces, samples
from edgeemo.data.faces import decode, kind_of, label
from edgeemo.errors import DataError, IntegrityError
from edgeemo.labels import LABEL_SETS, LabelSet, label_set

log = logging.getLogger(__name__)
FORMAT = 1
SPLIT = "train"  # a face that judges a model must not have shaped it
FEWEST = 64  # below, a range hangs on single faces
ENOUGH = 256


@dataclass(frozen=True)
class CalibrationList:
    """Ids of train faces and how they were drawn; ids stand in alphabetical order."""

    data: str  # synthetic, ferplus or folder
    label_set: str  # six, ferplus8, or own labels as a,b,c
    protocol: str
    seed: int
    ids: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Fingerprint of the ids."""
        return sha256_of_lines(list(self.ids))

    def header(self) -> dict[str, Any]:
        """Everything but the ids, with their count and hash."""
        facts = {key: value for key, value in asdict(self).items() if key != "ids"}
        return {**facts, "format": FORMAT, "split": SPLIT, "count": len(self.ids), "ids_sha256": self.sha256}


def draw(data: str, labels: LabelSet, *, protocol: str, count: int, seed: int) -> CalibrationList:
    """`count` train faces of `data`, as evenly over the labels as they allow; DataError under 64.

    Even, not as frequent as in the data: a rare emotion's activations should be in range too.
    """
    found = label(samples(data, SPLIT, labels), labels, protocol=protocol)
    order = np.random.default_rng(seed).permutation(len(found.samples))
    rank = np.empty(len(order), int)  # the how-manieth face of its label each one is, in shuffled order
    for k in range(len(labels.labels)):
        own = order[found.truth[order] == k]
        rank[own] = np.arange(len(own))
    chosen = np.lexsort((found.truth, rank))[:count]
    ids = tuple(sorted(found.samples[i].id for i in chosen))
    drawn = CalibrationList(kind_of(data), name_of(labels), protocol, seed, ids)
    _check_count(drawn, wanted=count)
    return drawn


def write(chosen: CalibrationList, path: Path) -> None:
    """Write the list with its header."""
    write_json(path, {**chosen.header(), "ids": list(chosen.ids)})


def read(path: Path) -> CalibrationList:
    """A list from its file; DataError if it is none, IntegrityError if its ids are not those that were drawn."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        fields = (raw["data"], raw["label_set"], raw["protocol"], raw["seed"], tuple(raw["ids"]))
        chosen, promised = CalibrationList(*fields), raw["ids_sha256"]
        written_for = (raw["format"], raw["split"])
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; draw a list with:  python calibration/draw.py --out {path}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a calibration list: {type(error).__name__}: {error}") from error
    if written_for != (FORMAT, SPLIT):
        raise DataError(f"{path}: expected format and split {(FORMAT, SPLIT)}, got {written_for}")
    if chosen.sha256 != promised:
        raise IntegrityError(
            f"{path}: its ids hash to {chosen.sha256[:12]}…, its header says {str(promised)[:12]}…: the list was "
            f"changed after it was drawn.  Draw it again:  python calibration/draw.py --out {path}"
        )
    _check_count(chosen, wanted=len(chosen.ids))
    return chosen


def faces(chosen: CalibrationList, data: str, contract: InputContract) -> Faces:
    """The listed faces of `data`, decoded; DataError unless each of them is a labelled train face there."""
    if chosen.data != kind_of(data):
        raise DataError(f"the calibration list is of {chosen.data} faces, but --data is {data}")
    labels = label_set(chosen.label_set)
    wanted = set(chosen.ids)
    listed = [sample for sample in samples(data, SPLIT, labels) if sample.id in wanted]
    if missing := sorted(wanted - {sample.id for sample in listed}):
        raise DataError(
            f"{len(missing)} ids of the calibration list are not train faces of {data}, first {missing[0]}; "
            f"draw a list of this data:  python calibration/draw.py --data {data}"
        )
    kept = label(listed, labels, protocol=chosen.protocol)
    if len(kept.samples) != len(wanted):
        lost = len(wanted) - len(kept.samples)
        raise DataError(f"{lost} faces of the calibration list have no label under {chosen.protocol!r} in {data}")
    return decode(kept, contract, what="calibration faces")


def name_of(labels: LabelSet) -> str:
    """What `label_set` makes the set of again."""
    return labels.name if labels.name in LABEL_SETS else ",".join(labels.labels)


def _check_count(chosen: CalibrationList, *, wanted: int) -> None:
    got = len(set(chosen.ids))
    if got < FEWEST:
        raise DataError(f"calibration needs at least {FEWEST} train faces, got {got}; draw more: --calibration-count")
    if got < ENOUGH:
        log.warning("calibrating on %d faces; %d or more give steadier ranges", got, ENOUGH)
    if got < wanted:
        log.warning("asked for %d calibration faces, the train split has %d", wanted, got)
