"""Pruning sensitivity: prune each group of layers alone, by several shares, and evaluate the network."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np

from edgeemo.card import InputContract
from edgeemo.compress.prune.channels import PruningPlan, compute_kept_width, list_groups, measure_size, prune_layer
from edgeemo.data import Faces
from edgeemo.metrics import divergence
from edgeemo.progress import track
from edgeemo.train.fit import predict_logits
from edgeemo.train.network import EmotionNet, widths_of

SHARES = (0.25, 0.5, 0.75)
FACES = 512  # train faces to evaluate on, without fine-tuning


def scan(network: EmotionNet, contract: InputContract, faces: Faces, *, plan: PruningPlan, seed: int) -> dict[str, Any]:
    """Return per group and share: accuracy on train faces, divergence from the unpruned network in nats, and savings.

    Shares that round to no channel, or to the same width as a smaller one, are skipped. The network is not changed.
    """
    chosen = np.random.default_rng(seed).permutation(len(faces))[:FACES]
    faces = faces.take(np.sort(chosen))
    expected = predict_logits(network, faces, contract)
    before = measure_size(network, contract)
    names = list_groups(copy.deepcopy(network), contract)
    rows = []
    widths = {name: widths_of(network)[name][0] for name in names}
    cuts = _list_cuts(widths, plan.round_to)
    for name, share in track(cuts, "pruning each layer alone", total=len(cuts), unit="layers"):
        pruned = prune_layer(network, contract, name, plan=replace(plan, share=share), train=faces).eval()
        logits, after = predict_logits(pruned, faces, contract), measure_size(pruned, contract)
        rows.append(
            {
                "layer": name,
                "share": share,
                "channels": [widths[name], widths_of(pruned)[name][0]],
                "accuracy": float((logits.argmax(1) == faces.truth).mean()),
                "divergence": round(divergence(expected, logits), 5),
                "macs_saved": round(1 - after.macs / before.macs, 5),
                "parameters_saved": round(1 - after.parameters / before.parameters, 5),
            }
        )
    accuracy = float((expected.argmax(1) == faces.truth).mean())
    about = {"split": "train", "n": len(faces), "ids_sha256": faces.fingerprint, "accuracy": accuracy}
    return {"format": 1, "importance": plan.importance, "round_to": plan.round_to, "faces": about, "rows": rows}


def _list_cuts(widths: dict[str, int], round_to: int) -> list[tuple[str, float]]:
    """List every layer with each share that gives it another width."""
    cuts = []
    for name, width in widths.items():
        shares = {width: 0.0}  # by remaining width
        for share in SHARES:
            shares.setdefault(compute_kept_width(width, share, round_to), share)
        cuts += [(name, share) for share in shares.values() if share]
    return cuts
