"""The steps of a compression that write model files: export, FP16, INT8; each file is evaluated as a device runs it."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np

from edgeemo.artifact import atomic_write, write_json
from edgeemo.card import Answers, Calibration, Card, Precision, from_json, write_card
from edgeemo.card.history import make_entry
from edgeemo.compress import opset, plots
from edgeemo.compress.compare import StageResult, compare_stages, evaluate_stage, predict_golden, predict_model
from edgeemo.compress.export import to_onnx
from edgeemo.compress.fine_tune import make_metrics
from edgeemo.compress.plan import Job, chooses_layers, get_named_layers
from edgeemo.compress.prune.channels import Size, measure_size
from edgeemo.compress.quantize import calibrate, fidelity, fp16, overflow, precision, rounding
from edgeemo.compress.quantize.calibrate import CalibrationList
from edgeemo.compress.quantize.qdq import TARGET_FORMATS, quantize
from edgeemo.compress.quantize.ranges import Ranges, observe
from edgeemo.data import Faces
from edgeemo.images import to_input
from edgeemo.measure import latency
from edgeemo.metrics import fit_temperature, softmax
from edgeemo.report.facts import Timing
from edgeemo.runtime.golden import record
from edgeemo.selective import fit_answers
from edgeemo.stages import Compress
from edgeemo.train.network import EmotionNet

log = logging.getLogger(__name__)
ORIGINAL, PRUNED, FLOAT, FP16 = "original.float.onnx", "pruned.float.onnx", "model.float.onnx", "model.fp16.onnx"
CALIBRATION = "calibration.json"
LAYERS, LAYERS_PLOT = "layers.json", "layers.png"
TIMED_RUNS = 50
OPSET_FACES = 32  # on which a file in an older opset is compared with the default one
FP16_FACES = 512  # train faces on which overflow is checked without a calibration set


@dataclass(frozen=True)
class WrittenModel:
    """A model file that has been written but not evaluated."""

    name: str  # of its row in the comparison
    step: str  # of its entry in the history of the card
    path: Path
    card: Card
    parent: str  # sha256 of the file it was made from
    size: Size
    start: float  # perf_counter when the step began


def write_float(job: Job, network: EmotionNet, card: Card, name: str, file: str) -> StageResult:
    """Export a network to float ONNX, and evaluate the file."""
    start, path = perf_counter(), job.out / file
    precise = replace(card, precision=Precision("float32", actual="float32"))
    exported = to_onnx(network, precise, path, version=job.config.opset)
    size = measure_size(network, card.input)
    return _evaluate(job, WrittenModel(name, "export", path, exported, card.sha256, size, start))


def write_fp16(job: Job, source: StageResult) -> StageResult:
    """Convert a float stage to FP16, and evaluate the file; raise GateError if it may overflow."""
    start, path = perf_counter(), job.out / FP16
    faces = job.calibration[1] if job.calibration else job.train.take_evenly(FP16_FACES)
    with atomic_write(path) as partial:
        fp16.convert(source.path, partial)
        _check_opset(job, partial, faces, source.card)
        ranges = observe(source.path, faces, source.card.input, method="minmax")
        section = fp16.check_overflow(source.path, partial, ranges, faces, source.card.input, threads=job.threads)
    card = replace(source.card, precision=section)
    return _evaluate(job, WrittenModel("fp16", "halve", path, card, source.card.sha256, source.size, start), source)


def write_int8(job: Job, source: StageResult, chosen: CalibrationList) -> list[StageResult]:
    """Quantize a float stage to every target format, with the same ranges, and evaluate the files."""
    ranges, tried = fidelity.choose_ranges(
        source.path,
        job.calibration_faces,
        source.card.input,
        method=job.config.method,
        target_format=job.target_formats[0],
        reduce_range=job.config.reduce_range,
        threads=job.threads,
    )
    for mismatch in fidelity.find_mismatched_branches(ranges):
        log.warning("%s; the narrow branch has few steps left in INT8", mismatch)
    calibrate.write(chosen, job.out / CALIBRATION)
    section = Precision(
        "int8",
        calibration=from_json(Calibration, chosen.header()),
        calibration_method=ranges.method,
        calibration_methods=tried or None,
        rounding=job.rounding,
    )
    return [_write_int8(job, source, ranges, target_format, section) for target_format in job.target_formats]


def _write_int8(job: Job, source: StageResult, ranges: Ranges, target_format: str, section: Precision) -> StageResult:
    """Quantize to one target format, and evaluate the file.

    Raises GateError if too few multiply-adds are in integers, or agreement with float is too low.
    """
    start, config = perf_counter(), job.config
    keep = _choose_float_layers(job, source, ranges, target_format)
    path = job.out / f"model.{TARGET_FORMATS[target_format].suffix}"
    with atomic_write(path) as partial:
        quantize(ranges, partial, target_format=target_format, reduce_range=config.reduce_range, keep_float=keep)
        _check_opset(job, partial, job.calibration_faces, source.card)
        if job.rounding == "gptq":
            exact = rounding.compute_exact_weights(partial, ranges.model.graph)
            count = rounding.round_weights(partial, exact, job.calibration_faces, source.card.input)
            section = replace(section, gptq_layers=count)
        integers = precision.count_integer_share(partial, target_format=target_format)
        weights = overflow.check_weights(partial)
        precision.check_integer_share(integers, least=config.min_int8_share / 100)
        faces = fidelity.select_agreement_faces(job.valid, job.calibration_faces)
        agreement = fidelity.compare_files(source.path, partial, faces, source.card.input, threads=job.threads)
        fidelity.check_agreement(
            agreement, len(faces), least=config.min_agreement / 100, untried=_list_untried_options(config)
        )
    log.info("%s: %.1f %% of the multiply-adds in integers", path.name, 100 * (integers.int8_share_of_macs or 0.0))
    section = replace(
        section,
        actual="int8" if target_format == "cpu" else "int8 in the file",  # TensorRT may choose another precision
        target_format=target_format,
        keep_float=keep,
        int8_share_of_macs=integers.int8_share_of_macs,
        macs=integers.macs,
        operators=integers.operators,
        counted_by=integers.counted_by,
        overflow=weights,
        fidelity=agreement.to_card(len(faces)),
    )
    card = replace(source.card, precision=section)
    name = "int8" if target_format == "cpu" else f"int8 {target_format}"
    return _evaluate(job, WrittenModel(name, "quantize", path, card, source.card.sha256, source.size, start), source)


def _check_opset(job: Job, file: Path, faces: Faces, card: Card) -> None:
    """Raise GateError if an older opset changes what a converted file computes for some faces."""
    if job.config.opset != opset.DEFAULT:
        batch = to_input(faces.take_evenly(OPSET_FACES).pixels[:], card.input)
        opset.check_logits(file, opset.raise_to_default(file), batch)


def _list_untried_options(config: Compress) -> list[str]:
    """List the options that may improve agreement with float and were not given, the fastest first."""
    used = {
        "--rounding gptq": config.rounding != "nearest" or config.qat,
        "--method auto": config.method == "auto",
        "--qat": config.qat,
        "--keep-float auto": config.keep_float,
    }
    return [name for name, given in used.items() if not given]


def _choose_float_layers(job: Job, source: StageResult, ranges: Ranges, target_format: str) -> tuple[str, ...]:
    """Return the layers to keep in float: named, chosen by measurement, or none; write the --layers report."""
    config = job.config
    named = get_named_layers(config)
    if not config.layers and not chooses_layers(config):
        return named
    faces, contract = job.calibration_faces, source.card.input
    reference = fidelity.Reference.compute(
        source.path,
        faces,
        contract,
        target_format=target_format,
        reduce_range=config.reduce_range,
        threads=job.threads,
    )
    errors = fidelity.measure_layers(ranges, reference)
    report = {
        "target_format": target_format,
        "faces": len(reference.faces),
        "layers": {name: error.to_dict() for name, error in errors.items()},
    }
    suffix = "" if target_format == job.target_formats[0] else f".{target_format}"
    write_json((job.out / LAYERS).with_suffix(f"{suffix}.json"), report)
    plots.plot_layers(errors, (job.out / LAYERS_PLOT).with_suffix(f"{suffix}.png"), target_format=target_format)
    worst = ", ".join(f"{name} {error.divergence:.5f}" for name, error in list(errors.items())[:3])
    log.info("%s: layers with the largest divergence when quantized alone, in nats: %s", target_format, worst)
    if chooses_layers(config):
        return fidelity.choose_float_layers(ranges, reference, errors)
    return named


def time_stages(job: Job, stages: list[StageResult]) -> dict[str, Timing]:
    """Measure the latency of stages on one core, in turns; files for other engines are left out."""
    if not job.config.time:
        return {}
    local = [stage for stage in stages if stage.card.precision.target_format in (None, "cpu") and stage.name != "fp16"]
    latencies = latency.measure_latency([(stage.path, "") for stage in local], runs=TIMED_RUNS, settings=("one_core",))
    return {stage.name: timed.one_core.total for stage, timed in zip(local, latencies, strict=True)}


def _evaluate(job: Job, model: WrittenModel, source: StageResult | None = None) -> StageResult:
    """Evaluate a file by the runtime, fit temperature and threshold, write its card; compare it with `source`."""
    write_card(model.path, model.card)
    logits = predict_model(model.path, job.valid, threads=job.threads)
    golden = record(predict_golden(model.path, threads=job.threads))
    temperature = fit_temperature(logits, job.valid.truth)
    answers = _fit_answers(job, model.path, softmax(logits, temperature=temperature))
    card = replace(model.card, temperature=temperature, answers=answers, golden=golden)
    stage = evaluate_stage(model.name, model.path, card, model.size, logits, job.valid)
    result = {"accuracy": stage.scores.accuracy, "n": stage.scores.n, **vars(model.size)}
    if source:
        result["against_source"] = asdict(compare_stages(source, stage, job.valid.truth))
    step = make_entry(model.step, job.config, seconds=perf_counter() - model.start, parent=model.parent, **result)
    sealed = write_card(model.path, card.with_entry(step, metrics=make_metrics(job, card, stage.scores)))
    return replace(stage, card=sealed)


def _fit_answers(job: Job, path: Path, probabilities: np.ndarray) -> Answers | None:
    """Fit the threshold below which predictions are unsure; None, which is logged, if no threshold reaches the aim."""
    wanted = job.config.answer_accuracy
    answers = fit_answers(probabilities, job.valid.truth, wanted / 100)
    if answers is None:
        log.info(
            "%s: no prediction will be flagged as unsure: on %d valid faces no threshold is shown to reach %g %% "
            "accuracy; use more valid faces, or a lower --answer-accuracy",
            path.name,
            len(job.valid),
            wanted,
        )
        return None
    log.info(
        "%s: unsure below %.0f %%; the other predictions, %.1f %% of the valid faces, are right for %.1f %% of them",
        path.name,
        100 * answers.least_probability,
        100 * answers.coverage,
        100 * answers.accuracy,
    )
    return answers
