"""What compression cost: every stage judged on the same valid faces, and tested in pairs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeemo.card import Card
from edgeemo.card.format1 import precision_of
from edgeemo.compress.prune.channels import Size
from edgeemo.data import Faces
from edgeemo.measure.latency import advise_on_int8
from edgeemo.measure.logits import logits_of
from edgeemo.metrics import Scores, compare_paired, scores, softmax
from edgeemo.report.facts import FacesBlock, PairedWith, Timing, make_header
from edgeemo.report.result import ComparedRow, ComparisonResult
from edgeemo.runtime import open_model
from edgeemo.runtime.golden import golden_batch


@dataclass(frozen=True)
class Stage:
    """One model of the comparison and what it answered."""

    name: str  # original, pruned, tuned, float, fp16, int8, int8 tensorrt
    path: Path
    card: Card
    size: Size
    predicted: np.ndarray  # (N,) labels of the valid faces
    scores: Scores


def answers(path: Path, faces: Faces, *, threads: int) -> np.ndarray:
    """(N, K) logits of a model file, through the runtime that a device uses."""
    with open_model(path, threads=threads) as model:
        return logits_of(model, faces.pixels)


def golden_logits(path: Path, *, threads: int) -> np.ndarray:
    """(8, K) logits of a model file for the faces that come with edgeemo."""
    with open_model(path, threads=threads) as model:
        return model.logits(golden_batch(model.card.input))


def judge(name: str, path: Path, card: Card, size: Size, logits: np.ndarray, faces: Faces) -> Stage:
    """A stage from its logits on the faces, at the temperature of its card."""
    result = scores(softmax(logits, temperature=card.temperature), faces.truth, card.labels)
    return Stage(name, path, card, size, logits.argmax(1), result)


def comparison(
    stages: list[Stage], valid: Faces, *, data: str, protocol: str, latency: dict[str, Timing]
) -> ComparisonResult:
    """The comparison: a row per stage, each tested against every stage before it; timed where it could be.

    latency: by stage, on one core.
    """
    rows = []
    for k, stage in enumerate(stages):
        pairs = [against(earlier, stage, valid.truth) for earlier in reversed(stages[:k])]
        rows.append(_row(stage, latency.get(stage.name), pairs))
    faces = FacesBlock(data, "valid", protocol, len(valid), valid.fingerprint)
    labels = list(stages[0].card.labels)
    return ComparisonResult(header=make_header(), faces=faces, labels=labels, rows=rows, advice=_advice(rows))


def _advice(rows: list[ComparedRow]) -> list[str]:
    """Whether INT8 pays on this processor, where it and the float form that it was made from were timed."""
    timed = {row.stage: row.latency_one_core.ms_p50 for row in rows if row.latency_one_core}
    floats = [row.stage for row in rows if row.precision.get("asked") == "float32" and row.stage in timed]
    if "int8" not in timed or not floats:
        return []
    return advise_on_int8(timed["int8"], timed[floats[-1]])


def against(first: Stage, second: Stage, truth: np.ndarray) -> PairedWith:
    """A later stage compared with an earlier one, face by face."""
    pair = compare_paired(first.predicted, second.predicted, truth, first.card.labels)
    return PairedWith(**vars(pair), name=first.name)


def _row(stage: Stage, latency: Timing | None, pairs: list[PairedWith]) -> ComparedRow:
    return ComparedRow(
        **vars(stage.scores),
        stage=stage.name,
        file=stage.path.name,
        sha256=stage.card.sha256,
        size_bytes=stage.path.stat().st_size,
        parameters=stage.size.parameters,
        macs=stage.size.macs,
        precision=precision_of(stage.card.precision),
        temperature=stage.card.temperature,
        latency_one_core=latency,
        against=pairs,
    )
