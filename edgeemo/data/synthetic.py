"""The built-in data set: faces rendered from facial action units, for the demo, the tests and use without a licence.

Results on it say nothing about photographs of people; every report of them is marked "synthetic".
"""

from __future__ import annotations

from functools import partial

from edgeemo.data.drawing import draw_face
from edgeemo.data.sample import Sample
from edgeemo.errors import UsageError
from edgeemo.labels import LabelSet, emotion

DEFAULT_COUNT = 3000  # training faces; valid and test have a fifth as many each
MAX_COUNT = 1_000_000  # the distance of the seeds below
FIRST_SEED = {"train": 0, "valid": 1_000_000, "test": 2_000_000}  # far apart, so that no face is in two splits
SIDE = 64  # pixels, rendered in 4 ms per face; the input contract resizes them


def samples(count: str, split: str, labels: LabelSet) -> list[Sample]:
    """Return `count` training faces (empty: 3000), or a fifth as many for valid and test; labels alternate."""
    least = 10 * len(labels.labels)
    if count and not (count.isdecimal() and len(count) < 10 and least <= int(count) <= MAX_COUNT):
        raise UsageError(f"synthetic:{count}: expected a whole number of training faces, {least} to {MAX_COUNT:,}")
    train = int(count or DEFAULT_COUNT)
    names = labels.labels
    total = train if split == "train" else train // 5
    return [_make_sample(names[k % len(names)], k, split) for k in range(total)]


def _make_sample(label: str, number: int, split: str) -> Sample:
    read = partial(draw_face, emotion(label), seed=FIRST_SEED[split] + number, size=SIDE)
    return Sample(f"{split}/{label}/{number:06d}", {label: 1.0}, read, sources=())
