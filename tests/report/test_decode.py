"""JSON comes back as the dataclasses that it was made of, and what does not fit is named."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from edgeemo.errors import DataError
from edgeemo.report.decode import decode


@dataclass(frozen=True)
class Leaf:
    """A required and an optional field."""

    share: float
    name: str | None = None


@dataclass(frozen=True)
class Refusal:
    """What stands for a leaf that is not there."""

    reason: str


@dataclass(frozen=True)
class Tree:
    """Every kind of annotation."""

    leaf: Leaf
    either: list[Leaf | Refusal] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    sizes: tuple[int, ...] = ()
    sure: bool = True
    free: Any = None


def test_every_annotation_is_read() -> None:
    """Nested, in lists, tuples and dicts; of a union the member whose fields are there; anything where Any stands."""
    found = decode(
        Tree,
        {
            "leaf": {"share": 0.5, "name": None},
            "either": [{"share": 1.0}, {"reason": "none"}],
            "counts": {"a": 1},
            "sizes": [1, 2],
            "free": {"x": [None]},
        },
        source="x.json",
    )
    leaves = [Leaf(1.0), Refusal("none")]
    assert found == Tree(Leaf(0.5), leaves, {"a": 1}, (1, 2), sure=True, free={"x": [None]})


def test_a_whole_number_stays_one() -> None:
    """Where a float is expected, 4 is not written back as 4.0."""
    share = decode(Leaf, {"share": 4}, source="x.json").share
    assert (share, type(share)) == (4, int)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({}, "leaf: expected a value, found nothing"),
        ([], r"the file: expected an object, found \[\]"),
        ({"leaf": {}}, r"leaf\.share: expected a value, found nothing"),
        ({"leaf": {"share": "x"}}, r'leaf\.share: expected float, found "x"'),
        ({"leaf": {"share": True}}, r"leaf\.share: expected float, found true"),
        ({"leaf": {"share": 1.0, "name": 3}}, r"leaf\.name: expected str, found 3"),
        ({"leaf": {"share": 1.0}, "counts": {"a": 1.5}}, r"counts\.a: expected int, found 1\.5"),
        ({"leaf": {"share": 1.0}, "sizes": [1, None]}, r"sizes\[1\]: expected int, found null"),
        ({"leaf": {"share": 1.0}, "either": [{"reason": 1}]}, r"either\[0\]\.reason: expected str, found 1"),
        ({"leaf": {"share": 1.0}, "either": {}}, "either: expected a list, found {}"),
        ({"leaf": {"share": 1.0}, "sure": 1}, "sure: expected bool, found 1"),
        ({"leaf": {"share": 1.0}, "leaves": 1}, "the file: expected no other fields than .*, found leaves"),
    ],
)
def test_what_does_not_fit_is_named(value: object, says: str) -> None:
    """The file, the field, what was expected and what was found."""
    with pytest.raises(DataError, match=rf"^x\.json: {says}; do this$"):
        decode(Tree, value, source="x.json", remedy="; do this")
