"""Does this machine still run models as it should? Golden answers and speed, without any data: `doctor --check`.

Every card holds the logits of its model for eight synthetic faces that come with edgeemo. They are computed again in
the kernels that ONNX Runtime chooses here, without the exact arithmetic that edgeemo falls back to for files that could
saturate, because other hosts of the same file have no such fallback.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from math import inf
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np
from rich.box import SIMPLE
from rich.console import Group
from rich.table import Table
from rich.text import Text

import edgeemo
from edgeemo.errors import DataError
from edgeemo.history import versions
from edgeemo.machine import this_machine
from edgeemo.runtime import Model, golden, open_model, shipped
from edgeemo.runtime.onnx import OnnxBackend
from edgeemo.runtime.probe import kernels_saturate
from edgeemo.stages import Doctor

# The cause of other answers where this processor's kernels saturate, by whether the card calls the weights safe.
SATURATED = {
    False: "its weights saturate this processor's INT8 kernels.  edgeemo.load asks for exact arithmetic, which is "
    "slower; other hosts need weights of at most 64:  edgeemo compress RUN --int8",
    True: "the installed ONNX Runtime computes something else than where the model was made, or the weights saturate "
    "this processor's INT8 kernels although the card calls them safe.  Make both again:  edgeemo compress RUN --int8",
}
WARM_UP, RUNS = 20, 300
SLOWEST_MS = 50.0  # p95 at batch 1 on one thread, the product's own gate
BASELINE = "Make one:  edgeemo doctor --check --json > baseline.json"
SLOWER = 1.5  # times the p50 of an earlier check; the same machine, quiet, repeats within 1.1


def run(config: Doctor) -> dict[str, Any]:
    """Check the named models, or all that edgeemo ships; `passed` says whether all answers and times hold.

    config.baseline: JSON of an earlier check on this machine, whose times must not have grown by half; DataError for
    another file, or one without these models.
    """
    earlier = _read(config.baseline) if config.baseline else None
    rows = [_check(name, earlier) for name in config.models or shipped.NAMES]
    return {
        "kind": "check",
        "edgeemo": edgeemo.__version__,
        "versions": versions(),
        "machine": asdict(this_machine()),
        "kernels_saturate": kernels_saturate(),
        "models": rows,
        "passed": not any(row["failures"] for row in rows),
    }


def show(result: dict[str, Any]) -> Group:
    """The result for a terminal, verdict last."""
    table = Table(box=SIMPLE, pad_edge=False)
    for head in ("model", "same labels", "largest difference", "p50 / p95 ms", "result"):
        table.add_column(head, justify="left" if head == "model" else "right")
    for row in result["models"]:
        table.add_row(*_cells(row))
    failures = [Text(f"{row['file']}: {sentence}") for row in result["models"] for sentence in row["failures"]]
    verdict = Text("PASS" if result["passed"] else "FAIL", style="bold green" if result["passed"] else "bold red")
    return Group(table, *failures, verdict)


def _check(name: str, earlier: dict[str, float] | None) -> dict[str, Any]:
    with open_model(name) as model:
        logits = _logits(model)
        difference = golden.compare(model.card, logits)
        p50, p95 = _milliseconds(model)
        row = {
            "file": model.path.name,
            "sha256": model.card.sha256,
            "overflow_safe": model.card.overflow_safe,
            "golden": asdict(difference) if difference else None,
            "ms_p50": p50,
            "ms_p95": p95,
        }
        if earlier is not None and model.card.sha256 not in earlier:
            raise DataError(f"--baseline has no times of {model.path.name} as it is now; {BASELINE}")
        failures = [*_wrong(model, difference), *_slow(p50, p95, (earlier or {}).get(model.card.sha256))]
    return {**row, "failures": failures}


def _logits(model: Model) -> np.ndarray:
    """(8, K) in the fast kernels of ONNX Runtime, or in the model's own backend if it is no ONNX file."""
    batch = golden.golden_batch(model.card.input)
    if model.path.suffix != ".onnx":
        return model.logits(batch)
    backend = OnnxBackend(model.path, threads=1)
    logits = backend.logits(batch)
    backend.close()
    return logits


def _wrong(model: Model, difference: golden.Difference | None) -> list[str]:
    if difference is None:
        return ["its card holds no golden logits for the faces of this edgeemo.  Make it again:  edgeemo compress RUN"]
    engine = model.path.suffix != ".onnx"  # a GPU rounds in its own way, by how much was not measured: labels count
    if difference.passed or (engine and not difference.changed):
        return []
    cause = "the installed ONNX Runtime or the processor computes something else than where the model was made"
    if kernels_saturate() and not engine:
        cause = SATURATED[model.card.overflow_safe]
    changed = f"{difference.changed} of {difference.faces} labels and logits by up to {difference.largest:.3f}"
    return [f"{changed} differ from its card (at most {golden.TOLERANCE} is allowed): {cause}"]


def _slow(p50: float, p95: float, before: float | None) -> list[str]:
    """Milliseconds of now against the limit, and against the p50 of the baseline."""
    found = []
    if p95 >= SLOWEST_MS:
        found.append(f"p95 on one thread is {p95:.1f} ms, limit {SLOWEST_MS:g} ms")
    if before and p50 > SLOWER * before:
        found.append(f"p50 is {p50:.3f} ms, {p50 / before:.1f} times the {before:.3f} ms of the baseline")
    return found


def _milliseconds(model: Model) -> tuple[float, float]:
    """p50 and p95 of pixels → probabilities at batch 1, as the model is loaded by default."""
    pixels = np.zeros((1, *model.card.input.pixels), np.uint8)
    spans = []
    for _ in range(WARM_UP + RUNS):
        start = perf_counter_ns()
        model.probabilities(pixels)
        spans.append(perf_counter_ns() - start)
    p50, p95 = np.percentile(spans[WARM_UP:], [50, 95]) / 1e6
    return round(float(p50), 4), round(float(p95), 4)


def _read(path: Path) -> dict[str, float]:
    """The p50 of each model of an earlier check, by its hash."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        times = {row["sha256"]: float(row["ms_p50"]) for row in found["models"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"--baseline {path} is no result of a check ({type(error).__name__}: {error}).  {BASELINE}"
        ) from error
    if not all(0 < time < inf for time in times.values()):
        raise DataError(f"--baseline {path}: expected a p50 above 0 ms for every model, got {times}.  {BASELINE}")
    return times


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    found = row["golden"]
    same = f"{found['faces'] - found['changed']} of {found['faces']}" if found else "-"
    largest = f"{found['largest']:.5f}" if found else "-"
    times = f"{row['ms_p50']:.3f} / {row['ms_p95']:.3f}"
    return (row["file"], same, largest, times, "FAIL" if row["failures"] else "pass")
