"""Golden answers: eight synthetic faces come with edgeemo, and a card holds the logits of its model for them.

A processor, an update or a damaged library that changes what a model computes is seen on the device itself, with
`edgeemo doctor --check`, without any data set.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from edgeemo.artifact import sha256_of
from edgeemo.card import Card, Golden, InputContract
from edgeemo.errors import IntegrityError
from edgeemo.images import to_input, to_pixels
from edgeemo.runtime.shipped import FOLDER

FACES = FOLDER / "faces.png"  # side by side; benchmarks/golden_faces.py draws them
COUNT = 8
SAMPLE = 2  # of surprise, which every shipped model recognises
DECIMALS = 5  # of a stored logit
# Of a logit. INT8 gave the same bits on every x86 and ARM core tried (benchmarks/results/processors/parity.json); float
# kernels add in another order, which moves a logit by about 1e-5. Saturation moves one by 0.1 to 8.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Difference:
    """How far a model's answers are from its card's."""

    largest: float  # of a logit
    changed: int  # faces with another label
    faces: int

    @property
    def passed(self) -> bool:
        """Whether every label is the same, and every logit within the tolerance."""
        return not self.changed and self.largest <= TOLERANCE


def record(logits: np.ndarray) -> Golden:
    """The card's section for (8, K) logits of the faces."""
    return Golden(faces_sha256(), tuple(map(tuple, np.round(logits.astype(float), DECIMALS).tolist())))


def compare(card: Card, logits: np.ndarray) -> Difference | None:
    """(8, K) logits of the faces against the card's; None if the card has none, or of other faces.

    IntegrityError if what the card holds is not (8, K).
    """
    if card.golden is None or card.golden.faces_sha256 != faces_sha256():
        return None
    expected = _stored(card.golden, logits.shape)
    changed = int((expected.argmax(1) != logits.argmax(1)).sum())
    return Difference(float(np.abs(expected - logits).max()), changed, len(expected))


def _stored(golden: Golden, shape: tuple[int, ...]) -> np.ndarray:
    """The card's logits, checked."""
    try:
        stored = np.array(golden.logits, dtype=float)
    except ValueError:  # ragged
        stored = np.empty(())
    if stored.shape != shape:
        raise IntegrityError(
            f"the card's golden logits are not {' x '.join(map(str, shape))} numbers, one row per golden face; "
            "the card is damaged: copy model and card again, or make them again with  edgeemo compress RUN"
        )
    return stored


def golden_batch(contract: InputContract) -> np.ndarray:
    """The faces as a model's input: (8, channels, size, size) float32."""
    return to_input(np.stack([to_pixels(face, contract) for face in _faces()]), contract)


@cache
def faces_sha256() -> str:
    """Hex SHA-256 of the file of faces."""
    return sha256_of(FACES)


def sample_face() -> np.ndarray:
    """One of the faces, (64, 64) uint8: a synthetic one that shows surprise."""
    return _faces()[SAMPLE]


@cache
def _faces() -> list[np.ndarray]:
    """Eight (64, 64) uint8 faces."""
    with Image.open(FACES, formats=("PNG",)) as strip:
        return np.split(np.asarray(strip), COUNT, axis=1)
