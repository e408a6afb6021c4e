"""Write into the packaged cards which shares the labels had in training, `data.prior`; nothing else is changed.

python benchmarks/state_priors.py [DATA]

The shares are those of the train faces, whose ids must have the hash in the card, as the sampler and class weights in
its history weigh them: what `edgeemo train` writes.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from edgeemo.artifact import hash_lines
from edgeemo.card import read_card, write_card
from edgeemo.data import faces
from edgeemo.labels import LABEL_SETS
from edgeemo.runtime import shipped
from edgeemo.train.prior import find_prior

DATA = "ferplus:../shared/data/ferplus.zip"


def main() -> None:
    """State the prior in each card that has another one, or none."""
    train = faces.list_labelled(sys.argv[1] if len(sys.argv) > 1 else DATA, "train", LABEL_SETS["ferplus8"])
    fingerprint = hash_lines([sample.id for sample in train.samples])
    for path in sorted(shipped.FOLDER.glob("*.onnx")):
        card = read_card(path)
        if card.data is None or card.data.train.ids_sha256 != fingerprint:
            sys.exit(f"the faces are not those of the card of {path.name}")
        trained = card.history[0].config
        weighting = {"sampler": trained["sampler"], "class_weights": trained["class_weights"]}
        prior = find_prior(train.truth, card.labels, **weighting)
        if prior != card.data.prior:
            write_card(path, replace(card, data=replace(card.data, prior=prior)))
        print(path.name, prior)


if __name__ == "__main__":
    main()
