"""Does this machine still run models as it should? Golden answers and speed, without any data: `doctor --check`.

Every card holds the logits of its model for eight synthetic faces that come with edgeemo. They are computed again in
the kernels that ONNX Runtime chooses here, without the exact arithmetic that edgeemo falls back to for files that could
saturate, because other hosts of the same file have no such fallback.
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


def run(config: Doctor) -> CheckResult:
    """Check the named models, or all that edgeemo ships; `passed` says whether all answers and times hold.

    config.baseline: JSON of an earlier check on this machine, whose times must not have grown by half; DataError for
    another file, or one without these models.
    """
    earlier = _read(config.baseline) if config.baseline else None
    rows = [_check(name, earlier) for name in config.models or shipped.NAMES]
    passed = not any(row.failures for row in rows)
    return CheckResult(header=make_header(), kernels_saturate=kernels_saturate(), models=rows, passed=passed)


def _check(name: str, earlier: dict[str, float] | None) -> CheckedModel:
    with open_model(name) as model:
        logits = _logits(model)
        difference = golden.compare(model.card, logits)
        p50, p95 = _milliseconds(model)
        if earlier is not None and model.card.sha256 not in earlier:
            raise DataError(f"--baseline has no times of {model.path.name} as it is now; {BASELINE}")
        return CheckedModel(
            file=model.path.name,
            sha256=model.card.sha256,
            overflow_safe=model.card.overflow_safe,
            golden=GoldenDifference(**asdict(difference)) if difference else None,
            ms_p50=p50,
            ms_p95=p95,
            failures=[*_wrong(model, difference), *_slow(p50, p95, (earlier or {}).get(model.card.sha256))],
        )


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
    times = {row.sha256: row.ms_p50 for row in read_as(CheckResult, path).models}
    if not all(0 < time < inf for time in times.values()):
        raise DataError(f"--baseline {path}: expected a p50 above 0 ms for every model, got {times}.  {BASELINE}")
    return times
