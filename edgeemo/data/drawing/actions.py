"""Label -> action units: which muscles an emotion moves and how far, and random other movements.

Actions are (2, 28) float64 in 0..1, indexed by side of the face and number of the action unit.
"""

from __future__ import annotations

import numpy as np

ACTION_UNITS = 28  # action unit n is at index n; the highest one drawn is 26

# EMFACS prototypes: label -> {action unit: intensity 0..1}.
PROTOTYPES: dict[str, dict[int, float]] = {
    "neutral": {},
    "happiness": {6: 0.8, 12: 1.0},
    "sadness": {1: 0.8, 4: 0.6, 15: 0.8},
    "surprise": {1: 0.9, 2: 0.9, 5: 0.8, 26: 0.9},
    "fear": {1: 0.9, 2: 0.7, 4: 0.5, 5: 0.9, 7: 0.4, 20: 0.7, 26: 0.65},
    "anger": {4: 0.9, 5: 0.4, 7: 0.6, 23: 0.9},
    "disgust": {9: 1.0, 10: 0.8, 15: 0.5, 16: 0.6},
    "contempt": {12: 0.7, 14: 1.0},
}
ONE_SIDED = frozenset({"contempt"})  # the only prototype that moves one side of the face
# label -> how often the lips also part (AU25), as FACS allows and photographs show.
PARTS_LIPS = {"happiness": 0.6, "anger": 0.3, "disgust": 0.4, "sadness": 0.1, "neutral": 0.08}
# Up to two of these also move a little, although they are not part of the prototype.
INCIDENTAL = (1, 2, 4, 5, 7, 12, 14, 15, 20, 23, 25, 26)


def sample_actions(label: str, rng: np.random.Generator) -> np.ndarray:
    """Sample (2, 28) float64 in 0..1: the prototype at 0.5..1.0 of its strength, slightly asymmetric."""
    actions = np.zeros((2, ACTION_UNITS))
    strength = rng.uniform(0.5, 1.0)
    for unit, intensity in PROTOTYPES[label].items():
        actions[:, unit] = intensity * np.clip(strength + rng.normal(0.0, 0.12), 0.5, 1.0)
    if rng.random() < PARTS_LIPS.get(label, 0.0):
        actions[:, 25] = rng.uniform(0.2, 0.8)
    for unit in rng.choice(INCIDENTAL, rng.integers(0, 3), replace=False):
        actions[:, unit] = np.maximum(actions[:, unit], rng.uniform(0.1, 0.5))
    asymmetry = 1.0 - np.abs(rng.normal(0.0, 0.08)).clip(0.0, 0.25)
    weaker_side = rng.integers(2)
    actions[weaker_side] *= 0.0 if label in ONE_SIDED else asymmetry
    return actions
