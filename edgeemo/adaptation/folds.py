"""Which faces are held out together: those of a person, or, where people are not known, faces that lie together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FOLDS = 5
FEWEST_PEOPLE = 3  # with fewer, leaving out a person leaves too little, or nothing, to choose by
BLOCKS = 20  # of faces in order, label by label
ALIKE = (
    2.0  # distance of logits below which neighbours are frames of one burst; one in ten pairs of strangers is as close
)
FEWEST_UNITS = 6  # independent units that a test can reach 0.05 with: 1 / 2**5 is 0.03


@dataclass(frozen=True)
class Folds:
    """What is held out together: row i of both arrays belongs to face i.

    fold: (N,) int, 0..count - 1. unit: (N,) int, the person or block, or the face where people are so few that no test
    on people could show anything; what the test takes for independent. people: how many, None if they are not known.
    by_people: whether whole people are held out.
    """

    fold: np.ndarray
    unit: np.ndarray
    people: int | None
    by_people: bool

    @property
    def count(self) -> int:
        """The number of folds."""
        return int(self.fold.max()) + 1


def make_folds(logits: np.ndarray, truth: np.ndarray, people: Sequence[str] | None) -> Folds:
    """Assign faces to folds, from (N, K) logits over the temperature, (N,) integer labels, and who is on each face."""
    _, person = np.unique(
        np.asarray(people, dtype=str) if people is not None else np.empty(0, str), return_inverse=True
    )
    count = int(person.max()) + 1 if len(person) else None
    by_people = count is not None and count >= FEWEST_PEOPLE
    held = person if by_people else _make_blocks(logits, truth)
    alone = by_people and len(np.unique(held)) < FEWEST_UNITS
    return Folds(_assign(held), np.arange(len(truth)) if alone else held, count, by_people)


def _make_blocks(logits: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return (N,) int: the bursts of each label in order, in at most BLOCKS parts, one of each label to a block."""
    block = np.empty(len(truth), int)
    following = 0
    for label in np.unique(truth):
        rows = np.flatnonzero(truth == label)
        burst = _number_bursts(logits[rows])
        parts = min(BLOCKS, burst[-1] + 1)
        block[rows] = (following + burst * parts // (burst[-1] + 1)) % BLOCKS
        following += parts  # labels with few faces fill different blocks
    numbered: np.ndarray = np.unique(block, return_inverse=True)[1]
    return numbered


def _number_bursts(logits: np.ndarray) -> np.ndarray:
    """Return (N,) int from 0: a face has the number of the one before it if the network sees both almost alike."""
    centred = logits - logits.mean(1, keepdims=True)
    steps = np.linalg.norm(np.diff(centred, axis=0), axis=1)
    numbers: np.ndarray = np.concatenate([[0], np.cumsum(steps >= ALIKE)])
    return numbers


def _assign(held: np.ndarray) -> np.ndarray:
    """Return (N,) int: the fold of each person or block; the largest go first, each to the smallest fold."""
    sizes = np.bincount(held)
    shuffled = np.random.default_rng(0).permutation(len(sizes))  # so that names in order do not decide
    folds, load = np.zeros(len(sizes), int), np.zeros(min(FOLDS, len(sizes)))
    for one in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        folds[one] = load.argmin()
        load[folds[one]] += sizes[one]
    assigned: np.ndarray = folds[held]
    return assigned
