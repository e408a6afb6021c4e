"""The order in which faces are shown: person by person in turn, the most informative face of each first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from hashlib import sha256

from edgeemo.label.find import Candidate


def sort_candidates(
    candidates: Iterable[Candidate], *, order: str = "margin", labelled: Mapping[str, int] | None = None
) -> list[Candidate]:
    """Return the faces in the order in which they are shown.

    Whoever has the fewest labelled faces comes first, so that few labels cover many people, which tells more about a
    place than many faces of one. Of one person, `margin` takes the face whose two most probable labels are closest
    (margin sampling; Scheffer, Decomain, Wrobel 2001); `random` any, always the same for the same photo and box.

    labelled: number of labelled faces by person, so far.
    """
    rank = {"margin": _get_margin, "random": _draw}[order]
    people: dict[str, list[Candidate]] = defaultdict(list)
    for one in candidates:
        people[one.person].append(one)
    turns: list[tuple[int, float, int, Candidate]] = []
    for person, faces in people.items():
        done = (labelled or {}).get(person, 0)
        turns += [(done + turn, rank(one), one.number, one) for turn, one in enumerate(sorted(faces, key=rank))]
    return [one for *_, one in sorted(turns, key=lambda turn: turn[:3])]


def _get_margin(one: Candidate) -> float:
    return one.margin


def _draw(one: Candidate) -> float:
    """Return a number from 0 to 1 that depends on the photo's name and the box alone."""
    digest = sha256(f"{one.image}:{one.box}".encode(errors="backslashreplace")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
