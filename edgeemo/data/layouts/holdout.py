"""A valid split out of the training faces, for data sets that have none."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

from edgeemo.data.sample import SPLITS, DataSet, NoSuchSplit, Sample
from edgeemo.errors import DataError
from edgeemo.labels import normalize_label

VALID_SHARE = 0.2  # of the distinct images of each label
FEWEST = 3  # distinct images of a label from which valid gets one: round(0.2 * 3) = 1
SHARE = "a fifth of the distinct images of each label"


def add_valid(data: DataSet, hash_sample: Callable[[Sample], str]) -> DataSet:
    """Return a data set that has a train and no valid split with both, the others unchanged.

    A fifth of the distinct images of each label is valid, chosen by hash: copies end up in the same split, and names
    do not matter. hash_sample: gives the hash of a face's content.
    """
    if "train" not in data.sources or "valid" in data.sources:
        return data
    whole = data.sources["train"]
    sources = {**data.sources, "train": f"the rest of {whole}", "valid": f"{SHARE} of {whole}"}

    def read(split: str) -> list[Sample]:
        if split not in ("train", "valid"):
            return data.read(split)
        return _hold_out(data.read("train"), hash_sample, split, where=data.name)

    return replace(data, sources={split: sources[split] for split in SPLITS if split in sources}, read=read)


def hash_pixels(sample: Sample) -> str:
    """Return the hex SHA-256 of a face's pixels, equal for copies; its id if it cannot be read, which fails later."""
    try:
        return hashlib.sha256(sample.read().tobytes()).hexdigest()
    except DataError:
        return sample.id


def _get_label(sample: Sample) -> str:
    return max(sample.votes, key=lambda name: sample.votes[name], default="")


def _hold_out(samples: list[Sample], hash_sample: Callable[[Sample], str], split: str, *, where: str) -> list[Sample]:
    hashes = [hash_sample(sample) for sample in samples]
    by_label: dict[str, set[str]] = {}
    for sample, digest in zip(samples, hashes, strict=True):
        by_label.setdefault(normalize_label(_get_label(sample)), set()).add(digest)
    valid: set[str] = set()
    for distinct in by_label.values():
        valid.update(sorted(distinct)[: round(VALID_SHARE * len(distinct))])
    if split == "valid" and not valid:
        raise NoSuchSplit(
            f"{where}: the valid split is empty; it gets {SHARE}, so a label needs at least {FEWEST}.  "
            "Add images, or lay out train/LABEL and valid/LABEL"
        )
    return [sample for sample, digest in zip(samples, hashes, strict=True) if (digest in valid) == (split == "valid")]
