"""Does this machine run models correctly and fast enough? Golden logits and latency, without data: `doctor --check`.

Every card records its model's logits for eight synthetic faces that are packaged with edgeemo. They are computed again
with the kernels that ONNX Runtime chooses on this machine, without the exact arithmetic that edgeemo uses for files
that could saturate, because other hosts of the same file have no such fallback.
"""

from __future__ import annotations

from dataclasses import asdict
from math import inf
from pathlib import Path
from time import perf_counter_ns

import numpy as np

from edgeemo.errors import DataError
from edgeemo.report.facts import make_header
from edgeemo.report.files import read_as
from edgeemo.report.result import CheckedModel, CheckResult, GoldenDifference
from edgeemo.runtime import Model, golden, open_model, shipped
from edgeemo.runtime.backends.ort import OnnxBackend
from edgeemo.runtime.probe import kernels_saturate
from edgeemo.stages import Doctor

# The cause of other logits where this processor's kernels saturate, by whether the card calls the weights safe.
SATURATED = {
    False: "its weights saturate this processor's INT8 kernels.  edgeemo.load uses exact arithmetic, which is slower; "
    "other hosts need weights of at most 64:  edgeemo compress RUN --int8",
    True: "the installed ONNX Runtime computes other logits than the one that made the card, or the weights saturate "
    "this processor's INT8 kernels although the card calls them safe.  Rebuild both:  edgeemo compress RUN --int8",
}
WARM_UP, RUNS = 20, 300
MAX_P95_MS = 50.0  # at batch 1 on one thread, the gate of the default target
BASELINE = "Make one:  edgeemo doctor --check --json > baseline.json"
MAX_SLOWDOWN = 1.5  # over the p50 of an earlier check; an idle machine repeats within 1.1


def run(config: Doctor) -> CheckResult:
    """Check the named models, by default all packaged ones; `passed`: all logits and latencies are as required.

    config.baseline: JSON of an earlier check on this machine; the latency may be at most 1.5 times as high.

    Raises DataError if the baseline is another kind of file, or has no times of these models.
    """
    baseline = _read_baseline(config.baseline) if config.baseline else None
    rows = [_check_model(name, baseline) for name in config.models or shipped.NAMES]
    passed = not any(row.failures for row in rows)
    return CheckResult(header=make_header(), kernels_saturate=kernels_saturate(), models=rows, passed=passed)


def _check_model(name: str, baseline: dict[str, float] | None) -> CheckedModel:
    with open_model(name) as model:
        logits = _compute_logits(model)
        difference = golden.compare(model.card, logits)
        p50, p95 = _measure_latency(model)
        if baseline is not None and model.card.sha256 not in baseline:
            raise DataError(f"--baseline has no times of the current {model.path.name}; {BASELINE}")
        return CheckedModel(
            file=model.path.name,
            sha256=model.card.sha256,
            overflow_safe=model.card.overflow_safe,
            golden=GoldenDifference(**asdict(difference)) if difference else None,
            ms_p50=p50,
            ms_p95=p95,
            failures=[
                *_check_difference(model, difference),
                *_check_latency(p50, p95, (baseline or {}).get(model.card.sha256)),
            ],
        )


def _compute_logits(model: Model) -> np.ndarray:
    """Return (8, K) logits from the fast kernels of ONNX Runtime, or from the model's backend if it is no ONNX file."""
    batch = golden.golden_batch(model.card.input)
    if model.path.suffix != ".onnx":
        return model.logits(batch)
    backend = OnnxBackend(model.path, threads=1)
    logits = backend.logits(batch)
    backend.close()
    return logits


def _check_difference(model: Model, difference: golden.Difference | None) -> list[str]:
    if difference is None:
        return ["its card has no golden logits for the faces of this edgeemo.  Rebuild it:  edgeemo compress RUN"]
    is_engine = model.path.suffix != ".onnx"  # rounding on a GPU differs, by an unmeasured amount: only labels count
    if difference.passed or (is_engine and not difference.changed):
        return []
    cause = "the installed ONNX Runtime or the processor computes other logits than those that made the card"
    if kernels_saturate() and not is_engine:
        cause = SATURATED[model.card.overflow_safe]
    changed = f"{difference.changed} of {difference.faces} labels differ from its card, and logits by up to"
    return [f"{changed} {difference.largest:.3f} (at most {golden.TOLERANCE} is allowed): {cause}"]


def _check_latency(p50: float, p95: float, baseline: float | None) -> list[str]:
    """Check milliseconds against the limit, and against the p50 of the baseline."""
    failures = []
    if p95 >= MAX_P95_MS:
        failures.append(f"p95 on one thread is {p95:.1f} ms, limit {MAX_P95_MS:g} ms")
    if baseline and p50 > MAX_SLOWDOWN * baseline:
        failures.append(f"p50 is {p50:.3f} ms, {p50 / baseline:.1f} times the {baseline:.3f} ms of the baseline")
    return failures


def _measure_latency(model: Model) -> tuple[float, float]:
    """Return p50 and p95 in ms of pixels → probabilities at batch 1, with the model loaded by default."""
    pixels = np.zeros((1, *model.card.input.pixels), np.uint8)
    spans = []
    for _ in range(WARM_UP + RUNS):
        start = perf_counter_ns()
        model.probabilities(pixels)
        spans.append(perf_counter_ns() - start)
    p50, p95 = np.percentile(spans[WARM_UP:], [50, 95]) / 1e6
    return round(float(p50), 4), round(float(p95), 4)


def _read_baseline(path: Path) -> dict[str, float]:
    """Return the p50 in ms of each model of an earlier check, by its hash."""
    times = {row.sha256: row.ms_p50 for row in read_as(CheckResult, path).models}
    if not all(0 < time < inf for time in times.values()):
        raise DataError(f"--baseline {path}: expected a p50 above 0 ms for every model, got {times}.  {BASELINE}")
    return times
