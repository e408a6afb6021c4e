"""The bench stage: a model, and faces if there are any → a result with machine facts, raw samples and a verdict."""

from __future__ import annotations

import logging
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

from edgeemo import options
from edgeemo.bench import accuracy, gates, plots, robustness
from edgeemo.card import to_json
from edgeemo.card.format1 import precision_of
from edgeemo.errors import MachineError, UsageError
from edgeemo.measure.latency import advise_on_int8, measure_cold_start, measure_latency
from edgeemo.metrics import PairedComparison
from edgeemo.report import render
from edgeemo.report.facts import Latency, ModelFacts, make_header
from edgeemo.report.files import check_replaceable, page_path
from edgeemo.report.result import Accuracy, Against, BenchResult, Robustness, Target
from edgeemo.runtime import Model, open_model
from edgeemo.runtime.advice import saturates_here
from edgeemo.stages import Bench

log = logging.getLogger(__name__)


class Judged(NamedTuple):
    """What the faces say of a model; None where there are none, or no other model."""

    accuracy: Accuracy | None = None
    robustness: Robustness | None = None
    paired: PairedComparison | None = None


def run(config: Bench) -> BenchResult:
    """Measure as configured. With `out`, JSON goes there and a Markdown report with plots beside it."""
    _check(config)
    target = gates.read_target(config.target)
    with ExitStack() as opened:
        model = opened.enter_context(open_model(config.engine, backend=config.backend, labels=config.label_set))
        other = _other(config)
        opened.enter_context(other or nullcontext())
        measured = _measured(config, target, model, other)
    rows = gates.judge(target, measured)
    passed, verdict = gates.verdict(target, rows)
    result = replace(measured, gates=rows, passed=passed, verdict=verdict)
    if config.out:
        log.info("%s and %s", config.out, write(result, config.out))
    return result


def write(result: BenchResult, path: Path) -> Path:
    """Write the result's JSON and, beside it, its page with plots where matplotlib is installed; returns the page."""
    try:
        pictures = [picture.name for picture in plots.draw(result, path.with_suffix(""))]
    except MachineError as error:
        pictures = [f"No plots: {error}"]
    return render.write(result, path, pictures=pictures)


def _other(config: Bench) -> Model | None:
    if not config.against:
        return None
    return open_model(config.against, backend=config.against_backend, labels=config.label_set)


def about(model: Model) -> ModelFacts:
    """What identifies a model, from its card and its file."""
    card = model.card
    return ModelFacts(
        file=model.path.name,
        sha256=card.sha256,
        size_bytes=model.path.stat().st_size,
        labels=list(model.labels),
        architecture=to_json(card.architecture),
        precision=precision_of(card.precision),
        input=asdict(card.input),
        backend=model.backend.name,
        overflow_safe=card.overflow_safe,
        exact_arithmetic=model.backend.name == "onnxruntime" and saturates_here(card),
        advice=model.advice,
    )


def _check(config: Bench) -> None:
    options.check(config)
    if config.out and config.out.suffix != ".json":
        raise UsageError(f"--out {config.out}: expected a .json file; the report goes beside it as .md")
    if config.out:
        check_replaceable(config.out, BenchResult, page=page_path(config.out))


def _measured(config: Bench, target: Target, model: Model, other: Model | None) -> BenchResult:
    """The result before its gates are judged."""
    about_here = make_header(timed=True)
    judged = _judged(config, config.data, model, other) if config.data else Judged()
    models = [(model.path, config.backend or "")] + ([(other.path, config.against_backend or "")] if other else [])
    latency, *rest = measure_latency(models, runs=config.runs)
    return BenchResult(
        header=about_here,
        runs_asked=config.runs,
        model=about(model),
        latency=latency,
        cold_start=measure_cold_start(model.path, config.backend or ""),
        accuracy=judged.accuracy,
        robustness=judged.robustness,
        against=_against(model, latency, other, rest[0], judged.paired) if other else None,
        target=target,
        gates=[],
        passed=False,
        verdict="",
    )


def _against(model: Model, latency: Latency, other: Model, its: Latency, paired: PairedComparison | None) -> Against:
    ratio = latency.one_core.total.ms_p50 / its.one_core.total.ms_p50
    advice = advise_on_int8(ratio, 1.0) if _is_int8(model) and not _is_int8(other) else []
    return Against(about(other), its, round(ratio, 4), paired, advice)


def _is_int8(model: Model) -> bool:
    return model.card.precision.is_int8


def _judged(config: Bench, data: str, model: Model, other: Model | None) -> Judged:
    """Accuracy, robustness if it is requested, and the paired comparison if there is another model."""
    if other:
        accuracy.check_comparable(model, other)
    asked = accuracy.trial(data, config.split, config.protocol, model.card, labels=model.view)
    pixels = accuracy.decoded(asked, model.card.input)
    ours = accuracy.probabilities(model, pixels)
    own = accuracy.judged(ours, asked, caveat=accuracy.caveat(model.card, asked))
    corrupted = robustness.judged(model, pixels, asked) if config.robustness else None
    if not other:
        return Judged(own, corrupted)
    if other.card.input != model.card.input:
        pixels = accuracy.decoded(asked, other.card.input)
    return Judged(own, corrupted, accuracy.compared(accuracy.probabilities(other, pixels), ours, asked))
