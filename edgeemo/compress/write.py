"""The steps of a compression that write model files: export, FP16, INT8; each file is judged as a device runs it."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from edgeemo.artifact import atomic_write, write_json
from edgeemo.card import Calibration, Card, Precision, from_json, write_card
from edgeemo.card.history import entry
from edgeemo.compress import plots
from edgeemo.compress.compare import Stage, against, answers, golden_logits, judge
from edgeemo.compress.export import to_onnx
from edgeemo.compress.fine_tune import metrics
from edgeemo.compress.plan import Job, chooses_layers, named_layers
from edgeemo.compress.prune.channels import Size, size_of
from edgeemo.compress.quantize import calibrate, fidelity, fp16, overflow, precision, rounding
from edgeemo.compress.quantize.calibrate import CalibrationList
from edgeemo.compress.quantize.qdq import TARGET_FORMATS, quantize
from edgeemo.compress.quantize.ranges import Ranges, observe
from edgeemo.measure import latency
from edgeemo.metrics import fit_temperature
from edgeemo.report.facts import Timing
from edgeemo.runtime.golden import record
from edgeemo.stages import Compress
from edgeemo.train.network import EmotionNet

log = logging.getLogger(__name__)
ORIGINAL, PRUNED, FLOAT, FP16 = "original.float.onnx", "pruned.float.onnx", "model.float.onnx", "model.fp16.onnx"
CALIBRATION = "calibration.json"
LAYERS, LAYERS_PICTURE = "layers.json", "layers.png"
TIMED_RUNS = 50
FP16_FACES = 512  # train faces that look for an overflow where no calibration list was asked for


@dataclass(frozen=True)
class Made:
    """A model file that was just written and not judged yet."""

    name: str  # of its row in the comparison
    step: str  # of its line in the card's history
    path: Path
    card: Card
    parent: str  # sha256 of the file it was made from
    size: Size
    start: float  # perf_counter when making it began


def write_float(job: Job, network: EmotionNet, card: Card, name: str, file: str) -> Stage:
    """The float ONNX of a network, judged."""
    start, path = perf_counter(), job.out / file
    form = to_onnx(network, replace(card, precision=Precision("float32", actual="float32")), path)
    size = size_of(network, card.input)
    return _judged(job, Made(name, "export", path, form, card.sha256, size, start))


def write_fp16(job: Job, source: Stage) -> Stage:
    """The FP16 ONNX of a float stage, judged; GateError if it may overflow."""
    start, path = perf_counter(), job.out / FP16
    faces = job.calibration[1] if job.calibration else job.train.take_evenly(FP16_FACES)
    with atomic_write(path) as partial:
        fp16.halve(source.path, partial)
        ranges = observe(source.path, faces, source.card.input, method="minmax")
        found = fp16.overflow(source.path, partial, ranges, faces, source.card.input, threads=job.threads)
    card = replace(source.card, precision=found)
    return _judged(job, Made("fp16", "halve", path, card, source.card.sha256, source.size, start), source)


def write_int8(job: Job, source: Stage, chosen: CalibrationList) -> list[Stage]:
    """The INT8 files of a float stage, a target format each and all from the same ranges, judged."""
    ranges, tried = fidelity.choose_ranges(
        source.path,
        job.calibration_faces,
        source.card.input,
        method=job.config.method,
        target_format=job.target_formats[0],
        reduce_range=job.config.reduce_range,
        threads=job.threads,
    )
    for sentence in fidelity.find_mismatched_branches(ranges):
        log.warning("%s; the narrow branch loses most of its steps in INT8", sentence)
    calibrate.write(chosen, job.out / CALIBRATION)
    about = Precision(
        "int8",
        calibration=from_json(Calibration, chosen.header()),
        calibration_method=ranges.method,
        calibration_methods=tried or None,
        rounding=job.rounding,
    )
    return [_write_int8(job, source, ranges, target_format, about) for target_format in job.target_formats]


def _write_int8(job: Job, source: Stage, ranges: Ranges, target_format: str, about: Precision) -> Stage:
    """One INT8 file, judged; GateError if too little of it is in integers or it disagrees with float too often."""
    start, config = perf_counter(), job.config
    keep = _kept_float(job, source, ranges, target_format)
    path = job.out / f"model.{TARGET_FORMATS[target_format].suffix}"
    with atomic_write(path) as partial:
        quantize(ranges, partial, target_format=target_format, reduce_range=config.reduce_range, keep_float=keep)
        if job.rounding == "gptq":
            exact = rounding.exact_weights(partial, ranges.model.graph)
            count = rounding.round_weights(partial, exact, job.calibration_faces, source.card.input)
            about = replace(about, gptq_layers=count)
        found = precision.count_integer_share(partial, target_format=target_format)
        safety = overflow.check_weights(partial)
        precision.check(found, least=config.min_int8_share / 100)
        faces = fidelity.agreement_faces(job.valid, job.calibration_faces)
        agrees = fidelity.compare_files(source.path, partial, faces, source.card.input, threads=job.threads)
        fidelity.check(agrees, len(faces), least=config.min_agreement / 100, untried=_untried(config))
    log.info("%s: %.1f %% of the multiply-adds in integers", path.name, 100 * (found.int8_share_of_macs or 0.0))
    form = replace(
        about,
        actual="int8" if target_format == "cpu" else "int8 in the file",  # TensorRT may still choose otherwise
        target_format=target_format,
        keep_float=keep,
        int8_share_of_macs=found.int8_share_of_macs,
        macs=found.macs,
        operators=found.operators,
        counted_by=found.counted_by,
        overflow=safety,
        fidelity=agrees.section(len(faces)),
    )
    card = replace(source.card, precision=form)
    name = "int8" if target_format == "cpu" else f"int8 {target_format}"
    return _judged(job, Made(name, "quantize", path, card, source.card.sha256, source.size, start), source)


def _untried(config: Compress) -> list[str]:
    """The options for a more faithful INT8 that were not given, the cheapest first."""
    ways = {
        "--rounding gptq": config.rounding != "nearest" or config.qat,
        "--method auto": config.method == "auto",
        "--qat": config.qat,
        "--keep-float auto": config.keep_float,
    }
    return [way for way, given in ways.items() if not given]


def _kept_float(job: Job, source: Stage, ranges: Ranges, target_format: str) -> tuple[str, ...]:
    """The layers that are to stay in float: named, chosen by measurement, or none. Leaves the report that was asked."""
    config = job.config
    named = named_layers(config)
    if not config.layers and not chooses_layers(config):
        return named
    faces, contract = job.calibration_faces, source.card.input
    how: dict[str, Any] = {"target_format": target_format, "reduce_range": config.reduce_range, "threads": job.threads}
    judges = fidelity.Judge.of(source.path, faces, contract, **how)
    errors = fidelity.measure_layers(ranges, judges)
    told = {
        "target_format": target_format,
        "faces": len(judges.faces),
        "layers": {k: v.to_dict() for k, v in errors.items()},
    }
    suffix = "" if target_format == job.target_formats[0] else f".{target_format}"
    write_json((job.out / LAYERS).with_suffix(f"{suffix}.json"), told)
    plots.layers(errors, (job.out / LAYERS_PICTURE).with_suffix(f"{suffix}.png"), target_format=target_format)
    worst = ", ".join(f"{name} {error.divergence:.5f}" for name, error in list(errors.items())[:3])
    log.info("%s: the layers that cost most alone, in nats of divergence: %s", target_format, worst)
    if chooses_layers(config):
        return fidelity.choose_float_layers(ranges, judges, errors)
    return named


def time_stages(job: Job, stages: list[Stage]) -> dict[str, Timing]:
    """Latency on one core by stage, taken in turns; only of files that are made for this engine."""
    if not job.config.time:
        return {}
    ours = [stage for stage in stages if stage.card.precision.target_format in (None, "cpu") and stage.name != "fp16"]
    found = latency.measure_latency([(stage.path, "") for stage in ours], runs=TIMED_RUNS, settings=("one_core",))
    return {stage.name: one.one_core.total for stage, one in zip(ours, found, strict=True)}


def _judged(job: Job, made: Made, source: Stage | None = None) -> Stage:
    """Ask the file through the runtime, fit its temperature on valid and seal its card; tested against `source`."""
    write_card(made.path, made.card)
    logits = answers(made.path, job.valid, threads=job.threads)
    golden = record(golden_logits(made.path, threads=job.threads))
    card = replace(made.card, temperature=fit_temperature(logits, job.valid.truth), golden=golden)
    stage = judge(made.name, made.path, card, made.size, logits, job.valid)
    result = {"accuracy": stage.scores.accuracy, "n": stage.scores.n, **vars(made.size)}
    if source:
        result["against_source"] = asdict(against(source, stage, job.valid.truth))
    line = entry(made.step, job.config, seconds=perf_counter() - made.start, parent=made.parent, **result)
    sealed = write_card(made.path, card.after(line, metrics=metrics(job, card, stage.scores)))
    return replace(stage, card=sealed)
