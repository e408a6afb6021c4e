"""Draw the eight synthetic faces that are packaged with edgeemo, for which every card has golden logits.

python benchmarks/golden_faces.py

Changing them invalidates the golden logits of every earlier card: doctor --check then reports that there are none.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from edgeemo.data.drawing import draw_face
from edgeemo.data.synthetic import SIDE
from edgeemo.runtime.golden import FACES

LABELS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
SEED = 3_000_000  # far from those of the synthetic splits: no face of the check was trained on


def main() -> None:
    """Write the strip, one face per label."""
    faces = [draw_face(label, seed=SEED + number, size=SIDE) for number, label in enumerate(LABELS)]
    Image.fromarray(np.concatenate(faces, axis=1)).save(FACES, optimize=True)


if __name__ == "__main__":
    main()
