"""What compression cost: every stage judged on the same valid faces, and tested in pairs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeemo.bench.measure import advise_on_int8
from edgeemo.bench.tables import Table
from edgeemo.card import Card
from edgeemo.card.format1 import precision_of
from edgeemo.compress.prune import Size
from edgeemo.data import Faces
from edgeemo.metrics import Scores, paired, scores, softmax
from edgeemo.runtime import open_model
from edgeemo.runtime.golden import golden_batch
from edgeemo.runtime.many import logits_of

FORMAT = 1


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
    stages: list[Stage], valid: Faces, *, data: str, protocol: str, latency: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """The JSON of the comparison: a row per stage, each tested against every stage before it; timed where it could be.

    latency: by stage, milliseconds on one core as bench.measure sums them up.
    """
    rows = []
    for k, stage in enumerate(stages):
        pairs = [against(earlier, stage, valid.truth) for earlier in reversed(stages[:k])]
        rows.append({**_row(stage), "latency_one_core": latency.get(stage.name), "against": pairs})
    labels = list(stages[0].card.labels)
    about = {"data": data, "split": "valid", "protocol": protocol, "n": len(valid), "ids_sha256": valid.fingerprint}
    return {"format": FORMAT, "faces": about, "labels": labels, "rows": rows, "advice": _advice(rows)}


def _advice(rows: list[dict[str, Any]]) -> list[str]:
    """Whether INT8 pays on this processor, where it and the float form that it was made from were timed."""
    timed = {row["stage"]: row["latency_one_core"]["ms_p50"] for row in rows if row["latency_one_core"]}
    floats = [row["stage"] for row in rows if row["precision"].get("asked") == "float32" and row["stage"] in timed]
    if "int8" not in timed or not floats:
        return []
    return advise_on_int8(timed["int8"], timed[floats[-1]])


def against(first: Stage, second: Stage, truth: np.ndarray) -> dict[str, Any]:
    """A later stage compared with an earlier one, face by face."""
    return {"stage": first.name, **asdict(paired(first.predicted, second.predicted, truth, first.card.labels))}


def table(found: dict[str, Any]) -> str:
    """The comparison as aligned text: a line per stage, recall per class in percent, then a line per paired test."""
    shown = as_table(found)
    return "\n".join([*_aligned([shown.head, *shown.rows]), shown.title, *_tests(found), *found["advice"]])


def as_table(found: dict[str, Any]) -> Table:
    """A row per stage, recall per class in percent; the title says of which faces, the note holds the paired tests."""
    labels, faces = found["labels"], found["faces"]
    head = ("stage", "parameters", "MACs (M)", "KB", "ms", "accuracy %", "95 % interval", "macro-F1", *labels)
    where = f"{faces['data']} {faces['split']}, {faces['protocol']}, n = {faces['n']}"
    title = f"{where}; under a label its recall in percent; ms: p50 on one core"
    note = ". ".join([title, *_tests(found)]) + "."
    rows = [_cells(row, labels) for row in found["rows"]]
    return Table(title, head, rows, " ".join([note, *found.get("advice", [])]))


def _tests(found: dict[str, Any]) -> list[str]:
    return [_sentence(row["stage"], pair) for row in found["rows"] for pair in row["against"]]


def _row(stage: Stage) -> dict[str, Any]:
    return {
        "stage": stage.name,
        "file": stage.path.name,
        "sha256": stage.card.sha256,
        "size_bytes": stage.path.stat().st_size,
        "parameters": stage.size.parameters,
        "macs": stage.size.macs,
        "precision": precision_of(stage.card.precision),
        "temperature": stage.card.temperature,
        **stage.scores.to_dict(),
    }


def _cells(row: dict[str, Any], labels: list[str]) -> tuple[str, ...]:
    interval = f"{100 * row['accuracy_low']:.2f}..{100 * row['accuracy_high']:.2f}"
    timed = row["latency_one_core"]
    took = f"{timed['ms_p50']:.2f}" if timed else "-"
    cost = [f"{row['parameters']:,}", f"{row['macs'] / 1e6:.2f}", f"{row['size_bytes'] / 1000:,.0f}", took]
    recall = ["-" if share is None else f"{100 * share:.1f}" for share in map(row["recall"].get, labels)]
    return (row["stage"], *cost, f"{100 * row['accuracy']:.2f}", interval, f"{row['macro_f1']:.3f}", *recall)


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    first, *rest = widths
    return ["  ".join([row[0].ljust(first), *map(str.rjust, row[1:], rest)]) for row in rows]


def _sentence(name: str, pair: dict[str, Any]) -> str:
    change, worst = min((share, label) for label, share in pair["recall_difference"].items() if share is not None)
    lost = f"lost most: {worst} {100 * change:+.1f}" if change < 0 else "no label lost"
    p_value = f"p = {pair['p_value']:.3f}" if pair["p_value"] >= 0.001 else "p < 0.001"
    return (
        f"{name} against {pair['stage']}: {100 * pair['difference']:+.2f} points ({p_value}; "
        f"{pair['only_first']} faces lost, {pair['only_second']} won); {lost}"
    )
