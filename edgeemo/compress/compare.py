"""The cost of compression: every stage evaluated on the same valid faces, and compared in pairs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeemo.card import Card
from edgeemo.card.format1 import to_format_1
from edgeemo.compress.prune.channels import Size
from edgeemo.data import Faces
from edgeemo.measure.latency import advise_on_int8
from edgeemo.measure.logits import compute_logits
from edgeemo.metrics import Scores, compare_paired, scores, softmax
from edgeemo.report.facts import FacesBlock, PairedWith, Timing, Unreadable, make_header
from edgeemo.report.result import ComparedRow, ComparisonResult
from edgeemo.runtime import open_model
from edgeemo.runtime.golden import golden_batch


@dataclass(frozen=True)
class StageResult:
    """One model of the comparison, its predictions and scores."""

    name: str  # original, pruned, tuned, float, fp16, int8, int8 tensorrt
    path: Path
    card: Card
    size: Size
    predicted: np.ndarray  # (N,) labels of the valid faces
    scores: Scores


def predict_model(path: Path, faces: Faces, *, threads: int) -> np.ndarray:
    """Return (N, K) logits of a model file, computed by the runtime, as on a device."""
    with open_model(path, threads=threads) as model:
        return compute_logits(model, faces.pixels)


def predict_golden(path: Path, *, threads: int) -> np.ndarray:
    """Return (8, K) logits of a model file for the faces packaged with edgeemo."""
    with open_model(path, threads=threads) as model:
        return model.logits(golden_batch(model.card.input))


def evaluate_stage(name: str, path: Path, card: Card, size: Size, logits: np.ndarray, faces: Faces) -> StageResult:
    """Compute the scores of a stage from its logits, at the temperature of its card."""
    result = scores(softmax(logits, temperature=card.temperature), faces.truth, card.labels)
    return StageResult(name, path, card, size, logits.argmax(1), result)


def make_comparison(
    stages: list[StageResult],
    valid: Faces,
    *,
    data: str,
    protocol: str,
    latency: dict[str, Timing],
    unreadable: Unreadable | None = None,
) -> ComparisonResult:
    """Return a row per stage, with a paired comparison to every stage before it.

    latency: on one core, by name of the stage, for those that were timed.
    unreadable: faces of the split that are not among `valid`.
    """
    rows = []
    for k, stage in enumerate(stages):
        pairs = [compare_stages(earlier, stage, valid.truth) for earlier in reversed(stages[:k])]
        rows.append(_make_row(stage, latency.get(stage.name), pairs))
    faces = FacesBlock(data, "valid", protocol, len(valid), valid.fingerprint, unreadable)
    labels = list(stages[0].card.labels)
    return ComparisonResult(header=make_header(), faces=faces, labels=labels, rows=rows, advice=_advise_on_int8(rows))


def _advise_on_int8(rows: list[ComparedRow]) -> list[str]:
    """Advise on INT8 on this processor, if it and its float form were timed."""
    timed = {row.stage: row.latency_one_core.ms_p50 for row in rows if row.latency_one_core}
    floats = [row.stage for row in rows if row.precision.get("asked") == "float32" and row.stage in timed]
    if "int8" not in timed or not floats:
        return []
    return advise_on_int8(timed["int8"], timed[floats[-1]])


def compare_stages(first: StageResult, second: StageResult, truth: np.ndarray) -> PairedWith:
    """Compare a later stage with an earlier one in a paired test."""
    pair = compare_paired(first.predicted, second.predicted, truth, first.card.labels)
    return PairedWith(**vars(pair), name=first.name)


def _make_row(stage: StageResult, latency: Timing | None, pairs: list[PairedWith]) -> ComparedRow:
    return ComparedRow(
        **vars(stage.scores),
        stage=stage.name,
        file=stage.path.name,
        sha256=stage.card.sha256,
        size_bytes=stage.path.stat().st_size,
        parameters=stage.size.parameters,
        macs=stage.size.macs,
        precision=to_format_1(stage.card.precision),
        temperature=stage.card.temperature,
        latency_one_core=latency,
        against=pairs,
    )
