"""The bench stage: a model, and faces if given, or a detector → a result with machine facts, samples and a verdict."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

from edgeemo import options
from edgeemo.bench import accuracy, detection, gates, plots, robustness
from edgeemo.card import to_json
from edgeemo.card.format1 import to_format_1
from edgeemo.errors import MachineError, UsageError
from edgeemo.faces.search import SearchDetector
from edgeemo.measure.latency import advise_on_int8, measure_cold_start, measure_frames, measure_latency
from edgeemo.metrics import PairedComparison
from edgeemo.report import render
from edgeemo.report.facts import Frames, Latency, ModelFacts, make_header
from edgeemo.report.files import check_replaceable, page_path
from edgeemo.report.result import Accuracy, Against, BenchResult, DetectionResult, Robustness, Target
from edgeemo.runtime import Model, open_model
from edgeemo.runtime.advice import saturates_here
from edgeemo.stages import Bench

log = logging.getLogger(__name__)


class FaceMetrics(NamedTuple):
    """What is measured on faces; None without faces, and `paired` also without another model."""

    accuracy: Accuracy | None = None
    robustness: Robustness | None = None
    paired: PairedComparison | None = None


def run(config: Bench) -> BenchResult | DetectionResult:
    """Measure as configured; with `out`, write JSON there and a Markdown report, of a model with plots, next to it."""
    _check(config)
    return _run_detector(config, config.boxes) if config.boxes else _run_model(config)


def _run_detector(config: Bench, boxes: Path) -> DetectionResult:
    result = detection.measure(config, boxes)
    if config.out:
        log.info("%s and %s", config.out, render.write(result, config.out))
    return result


def _run_model(config: Bench) -> BenchResult:
    target = gates.read_target(config.target, frames=config.frames)
    detector = detection.load(config) if config.frames else None
    with ExitStack() as opened:
        model = opened.enter_context(open_model(config.engine, backend=config.backend, labels=config.label_set))
        other = None
        if config.against:
            other = open_model(config.against, backend=config.against_backend, labels=config.label_set)
            opened.enter_context(other)
        measured = _measure(config, target, model, other)
        if detector:
            measured = replace(measured, frames=_time_frames(config, model, detector))
    rows = gates.check_gates(target, measured)
    passed, verdict = gates.make_verdict(target, rows)
    result = replace(measured, gates=rows, passed=passed, verdict=verdict)
    if config.out:
        log.info("%s and %s", config.out, write(result, config.out))
    return result


def write(result: BenchResult, path: Path) -> Path:
    """Write the JSON and, next to it, the page, with plots if matplotlib is installed; return the path of the page."""
    try:
        images = [image.name for image in plots.draw(result, path.with_suffix(""))]
    except MachineError as error:
        images = [f"No plots: {error}"]
    return render.write(result, path, images=images)


def describe_model(model: Model) -> ModelFacts:
    """Return the facts that identify a model, from its card and its file."""
    card = model.card
    return ModelFacts(
        file=model.path.name,
        sha256=card.sha256,
        size_bytes=model.path.stat().st_size,
        labels=list(model.labels),
        architecture=to_json(card.architecture),
        precision=to_format_1(card.precision),
        input=asdict(card.input),
        backend=model.backend.name,
        overflow_safe=card.overflow_safe,
        exact_arithmetic=model.backend.name == "onnxruntime" and saturates_here(card),
        advice=model.advice,
    )


def _check(config: Bench) -> None:
    options.check(config)
    if config.out and config.out.suffix != ".json":
        raise UsageError(f"--out {config.out}: expected a .json file; the report is written next to it as .md")
    if config.out:
        kind = DetectionResult if config.boxes else BenchResult
        check_replaceable(config.out, kind, page=page_path(config.out))


def _measure(config: Bench, target: Target, model: Model, other: Model | None) -> BenchResult:
    """Return the result before its gates are checked."""
    header = make_header(timed=True)
    metrics = _evaluate(config, config.data, model, other) if config.data else FaceMetrics()
    models = [(model.path, config.backend or "")] + ([(other.path, config.against_backend or "")] if other else [])
    latency, *rest = measure_latency(models, runs=config.runs)
    return BenchResult(
        header=header,
        runs_asked=config.runs,
        model=describe_model(model),
        latency=latency,
        cold_start=measure_cold_start(model.path, config.backend or ""),
        accuracy=metrics.accuracy,
        robustness=metrics.robustness,
        against=_compare(model, latency, other, rest[0], metrics.paired) if other else None,
        target=target,
        gates=[],
        passed=False,
        verdict="",
    )


def _time_frames(config: Bench, model: Model, detector: SearchDetector) -> Frames:
    """Time a detector and the model on whole frames."""
    about = {"detector": config.detector, "faces": config.faces, "threshold": config.threshold}
    (rows,) = measure_frames([(model.path, config.backend or "")], detector=about, runs=config.runs)
    return Frames(detection.describe_detector(detector), rows)


def _compare(
    model: Model, latency: Latency, other: Model, other_latency: Latency, paired: PairedComparison | None
) -> Against:
    ratio = latency.one_core.total.ms_p50 / other_latency.one_core.total.ms_p50
    is_gain_of_int8 = model.card.precision.is_int8 and not other.card.precision.is_int8
    advice = advise_on_int8(ratio, 1.0) if is_gain_of_int8 else []
    return Against(describe_model(other), other_latency, round(ratio, 4), paired, advice)


def _evaluate(config: Bench, data: str, model: Model, other: Model | None) -> FaceMetrics:
    """Measure accuracy, robustness if requested, and the paired comparison if there is another model."""
    if other:
        accuracy.check_comparable(model, other)
    eval_set = accuracy.make_eval_set(
        data,
        config.split,
        config.protocol,
        model.card,
        labels=model.label_set,
        skip_unreadable=config.skip_unreadable,
    )
    pixels = accuracy.decode_faces(eval_set, model.card.input)
    predicted = accuracy.predict_probabilities(model, pixels)
    caveat = accuracy.make_caveat(model.card, eval_set)
    scored = accuracy.score(predicted, eval_set, caveat=caveat, card_threshold=model.least_probability)
    corrupted = robustness.measure_robustness(model, pixels, eval_set) if config.robustness else None
    if not other:
        return FaceMetrics(scored, corrupted)
    if other.card.input != model.card.input:
        pixels = accuracy.decode_faces(eval_set, other.card.input)
    other_predicted = accuracy.predict_probabilities(other, pixels)
    return FaceMetrics(scored, corrupted, accuracy.compare_models(other_predicted, predicted, eval_set))
