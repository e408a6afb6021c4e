"""The embedded data set: faces drawn from Facial Action Units, for the demo, the tests and anyone without a licence.

Numbers measured on it speak of drawings, not of people; everything that shows them says "synthetic".
"""

from __future__ import annotations

from functools import partial

from edgeemo.data.drawing import draw_face
from edgeemo.data.sample import Sample
from edgeemo.errors import UsageError
from edgeemo.labels import LabelSet, emotion

DEFAULT_COUNT = 3000  # train faces; valid and test get a fifth of it each
FIRST_SEED = {"train": 0, "valid": 1_000_000, "test": 2_000_000}  # far apart: no face stands in two splits
SIDE = 64  # pixels drawn, 4 ms a face; the contract resizes


def samples(count: str, split: str, labels: LabelSet) -> list[Sample]:
    """`count` train faces (empty: 3000), a fifth of that for valid and test, labels in turn."""
    least = 10 * len(labels.labels)
    if count and not (count.isdigit() and int(count) >= least):
        raise UsageError(f"synthetic:{count}: expected a whole number of train faces, at least {least}")
    train = int(count or DEFAULT_COUNT)
    names = labels.labels
    total = train if split == "train" else train // 5
    return [_sample(names[k % len(names)], k, split) for k in range(total)]


def _sample(label: str, number: int, split: str) -> Sample:
    read = partial(draw_face, emotion(label), seed=FIRST_SEED[split] + number, size=SIDE)
    return Sample(f"{split}/{label}/{number:06d}", {label: 1.0}, read)
