"""The compress stage: a run folder → ONNX files with cards, and a comparison of all steps on the same faces."""

from __future__ import annotations

import logging
from pathlib import Path

from edgeemo.artifact import check_writable, lock_folder, write_json
from edgeemo.card import Card, card_path
from edgeemo.compress import fine_tune, plan, plots, write
from edgeemo.compress.compare import StageResult, make_comparison
from edgeemo.compress.plan import Job
from edgeemo.compress.prune import sensitivity
from edgeemo.compress.quantize.qdq import TARGET_FORMATS
from edgeemo.data.faces import kind_of
from edgeemo.data.unreadable import summarise
from edgeemo.report import files as results
from edgeemo.stages import Compress
from edgeemo.train import run_folder
from edgeemo.train.network import EmotionNet

log = logging.getLogger(__name__)
COMPARISON = "comparison.json"
FINE_TUNING_STEPS = {
    "resized": fine_tune.fine_tune_at_size,
    "pruned": fine_tune.prune_in_steps,
    "tuned": fine_tune.fine_tune_for_int8,
}
SENSITIVITY, SENSITIVITY_PLOT = "sensitivity.json", "sensitivity.png"


def run(config: Compress) -> Path:
    """Compress as configured; return the path of the last model, next to which comparison.json is written."""
    plan.check(config)
    network, card = run_folder.load(config.run)
    plan.check_layers(config, network)
    job = plan.prepare(config, card)
    check_writable(job.out)
    with lock_folder(job.out):
        return _run(job, network)


def _run(job: Job, network: EmotionNet) -> Path:
    config = job.config
    fine_tune.check_interrupted(config, job.out)
    _clear(job.out)
    fine_tune.store_settings(config, job.out)
    if config.sensitivity:
        _scan(job.at_trained_size, network)
    stages = _write_float_stages(job, network, job.card)
    source = stages[-1]
    if config.fp16:
        stages.append(write.write_fp16(job, source))
    if job.calibration:
        stages += write.write_int8(job, source, job.calibration[0])
    comparison = make_comparison(
        stages,
        job.valid,
        data=kind_of(job.recipe.data),
        protocol=job.recipe.protocol,
        unreadable=summarise(job.recipe.data, "valid"),
        latency=write.time_stages(job, stages),
    )
    results.write(comparison, job.out / COMPARISON)
    fine_tune.remove_checkpoints(job.out)
    job.cache.remove()
    return stages[-1].path


def _write_float_stages(job: Job, network: EmotionNet, card: Card) -> list[StageResult]:
    """Export the network as trained and after each fine-tuning step; the last is the source of INT8 and FP16."""
    config = job.config
    new_size = config.size and config.epochs and not config.prune  # pruning includes fine-tuning at the new size
    requested = {"resized": new_size, "pruned": config.prune, "tuned": config.qat}
    steps = [step for step in requested if requested[step]]
    if not steps:
        return [write.write_float(job, network, card, "float", write.FLOAT)]
    original = job.at_trained_size
    stages = [write.write_float(original, network, original.card, "original", write.ORIGINAL)]
    for step in steps:
        network, card = FINE_TUNING_STEPS[step](job, network, card)
        file = write.FLOAT if step == steps[-1] else write.PRUNED
        stages.append(write.write_float(job, network, card, step, file))
    return stages


def _scan(job: Job, network: EmotionNet) -> None:
    result = sensitivity.scan(network, job.card.input, job.train, plan=job.plan, seed=job.config.seed)
    write_json(job.out / SENSITIVITY, result)
    plots.plot_sensitivity(result, job.out / SENSITIVITY_PLOT)
    log.info("sensitivity of layers to pruning: %s, %s", job.out / SENSITIVITY, job.out / SENSITIVITY_PLOT)


def _clear(out: Path) -> None:
    """Remove the files of an earlier compression, which would look like steps of this one."""
    int8 = [f"model.{target_format.suffix}" for target_format in TARGET_FORMATS.values()]
    names = (write.ORIGINAL, write.PRUNED, write.FLOAT, write.FP16, run_folder.MODEL, *int8)
    models = [out / name for name in names]
    reports = [out / name for name in (COMPARISON, write.CALIBRATION, SENSITIVITY, SENSITIVITY_PLOT)]
    for old in (*models, *map(card_path, models), *reports, *out.glob("layers*.json"), *out.glob("layers*.png")):
        old.unlink(missing_ok=True)
