"""Which layers bear pruning: each group of channels is cut alone, by several shares, and the network asked again."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np

from edgeemo.card import InputContract
from edgeemo.compress.prune.channels import Plan, groups, kept_of, prune_one, size_of
from edgeemo.data import Faces
from edgeemo.metrics import divergence
from edgeemo.progress import track
from edgeemo.train.fit import predict_logits
from edgeemo.train.network import EmotionNet, widths_of

SHARES = (0.25, 0.5, 0.75)
FACES = 512  # train faces that judge, without recovery


def scan(network: EmotionNet, contract: InputContract, faces: Faces, *, plan: Plan, seed: int) -> dict[str, Any]:
    """Per group and share: accuracy on train faces, divergence from the whole network in nats, and what was saved.

    A share that rounds to no channel, or to the same as a smaller one, is passed over. The network is left as it was.
    """
    chosen = np.random.default_rng(seed).permutation(len(faces))[:FACES]
    judges = faces.take(np.sort(chosen))
    expected = predict_logits(network, judges, contract)
    whole = size_of(network, contract)
    names = groups(copy.deepcopy(network), contract)
    rows = []
    widths = {name: widths_of(network)[name][0] for name in names}
    cuts = _cuts(widths, plan.round_to)
    for name, share in track(cuts, "cutting each layer alone", total=len(cuts)):
        cut = prune_one(network, contract, name, plan=replace(plan, share=share), train=judges).eval()
        got, size = predict_logits(cut, judges, contract), size_of(cut, contract)
        rows.append(
            {
                "layer": name,
                "share": share,
                "channels": [widths[name], widths_of(cut)[name][0]],
                "accuracy": float((got.argmax(1) == judges.truth).mean()),
                "divergence": round(divergence(expected, got), 5),
                "macs_saved": round(1 - size.macs / whole.macs, 5),
                "parameters_saved": round(1 - size.parameters / whole.parameters, 5),
            }
        )
    accuracy = float((expected.argmax(1) == judges.truth).mean())
    about = {"split": "train", "n": len(judges), "ids_sha256": judges.fingerprint, "accuracy": accuracy}
    return {"format": 1, "importance": plan.importance, "round_to": plan.round_to, "faces": about, "rows": rows}


def _cuts(widths: dict[str, int], round_to: int) -> list[tuple[str, float]]:
    """Every layer with the shares that cut it to a width of their own."""
    found = []
    for name, width in widths.items():
        shares = {width: 0.0}  # by what is left
        for share in SHARES:
            shares.setdefault(kept_of(width, share, round_to), share)
        found += [(name, share) for share in shares.values() if share]
    return found
