"""The order in which faces are shown: person by person in turn, of each the most informative face and any in turn."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256

from edgeemo.label.find import Candidate


def sort_candidates(
    candidates: Iterable[Candidate], *, order: str = "mixed", labelled: Mapping[str, int] | None = None
) -> list[Candidate]:
    """Return the faces in the order in which they are shown.

    Whoever has the fewest labelled faces comes first, so that few labels cover many people, which represents a place
    better than many faces of one. Of one person, `margin` takes the face whose two most probable labels are closest
    (margin sampling; Scheffer, Decomain, Wrobel 2001); `random` any, always the same for the same photo and box;
    `mixed` one of each in turn, every second person starting with any, because margins alone never show the faces
    that a model is wrongly sure of (benchmarks/results/adapt/orders.json).

    labelled: number of labelled faces by person, so far.
    """
    people: dict[str, list[Candidate]] = defaultdict(list)
    for one in candidates:
        people[one.person].append(one)
    turns: list[tuple[int, float, int, Candidate]] = []
    for number, (person, faces) in enumerate(sorted(people.items())):
        done = (labelled or {}).get(person, 0)
        ranked = _rank(faces, order, start=number + done)
        turns += [(done + turn, one.margin, one.number, one) for turn, one in enumerate(ranked)]
    return [one for *_, one in sorted(turns, key=lambda turn: turn[:3])]


def _rank(faces: Sequence[Candidate], order: str, *, start: int) -> list[Candidate]:
    """Return the faces of a person in order; start: even to begin with the least margin where they are mixed."""
    drawn, closest = sorted(faces, key=_draw), sorted(faces, key=lambda one: one.margin)
    if order != "mixed":
        return {"margin": closest, "random": drawn}[order]
    ranked: dict[int, Candidate] = {}
    left = (iter(closest), iter(drawn))
    for turn in range(start, start + len(faces)):
        following = next(one for one in left[turn % 2] if one.number not in ranked)
        ranked[following.number] = following
    return list(ranked.values())


def _draw(one: Candidate) -> float:
    """Return a number from 0 to 1 that depends on the photo's name and the box alone."""
    digest = sha256(f"{one.image}:{one.box}".encode(errors="backslashreplace")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
