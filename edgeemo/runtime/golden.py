"""Golden logits: eight synthetic faces are packaged with edgeemo, and a card records its model's logits for them.

If a processor, an update or a damaged library changes what a model computes, `edgeemo doctor --check` detects it on the
device itself, without any data set.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from edgeemo.artifact import hash_file
from edgeemo.card import Card, Golden, InputContract
from edgeemo.errors import IntegrityError
from edgeemo.images import to_input, to_pixels
from edgeemo.runtime.shipped import FOLDER

FACES = FOLDER / "faces.png"  # side by side; benchmarks/golden_faces.py draws them
COUNT = 8
SAMPLE = 2  # shows surprise, which every packaged model recognises
DECIMALS = 5  # of a stored logit
# Of a logit. INT8 gave the same bits on every x86 and ARM core tested (benchmarks/results/processors/parity.json);
# float kernels add in another order, which changes a logit by about 1e-5. Saturation changes one by 0.1 to 8.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Difference:
    """How far a model's logits are from those in its card."""

    largest: float  # of a logit
    changed: int  # faces with another predicted label
    faces: int

    @property
    def passed(self) -> bool:
        """Every label is the same, and every logit within the tolerance."""
        return not self.changed and self.largest <= TOLERANCE


def record(logits: np.ndarray) -> Golden:
    """Return the card's section for (8, K) logits of the faces."""
    return Golden(faces_sha256(), tuple(map(tuple, np.round(logits.astype(float), DECIMALS).tolist())))


def compare(card: Card, logits: np.ndarray) -> Difference | None:
    """Compare (8, K) logits of the faces with the card's; None if the card has none, or those of other faces.

    Raises IntegrityError if the card's are not (8, K).
    """
    if card.golden is None or card.golden.faces_sha256 != faces_sha256():
        return None
    expected = _read_logits(card.golden, logits.shape)
    changed = int((expected.argmax(1) != logits.argmax(1)).sum())
    return Difference(float(np.abs(expected - logits).max()), changed, len(expected))


def _read_logits(golden: Golden, shape: tuple[int, ...]) -> np.ndarray:
    """Return the card's logits, after checking their shape."""
    try:
        stored = np.array(golden.logits, dtype=float)
    except ValueError:  # ragged
        stored = np.empty(())
    if stored.shape != shape:
        raise IntegrityError(
            f"the card's golden logits are not {' x '.join(map(str, shape))} numbers, one row per golden face; "
            "the card is damaged: copy model and card again, or rebuild both:  edgeemo compress RUN"
        )
    return stored


def golden_batch(contract: InputContract) -> np.ndarray:
    """Return the faces as a model's input: (8, channels, size, size) float32."""
    return to_input(np.stack([to_pixels(face, contract) for face in list_faces()]), contract)


@cache
def faces_sha256() -> str:
    """Return the hex SHA-256 of the file of faces."""
    return hash_file(FACES)


def sample_face() -> np.ndarray:
    """Return one of the faces, (64, 64) uint8: a synthetic one with the expression surprise."""
    return list_faces()[SAMPLE]


@cache
def list_faces() -> list[np.ndarray]:
    """Return the eight faces, each (64, 64) uint8."""
    with Image.open(FACES, formats=("PNG",)) as strip:
        return np.split(np.asarray(strip), COUNT, axis=1)
