"""The compress stage: a run folder → ONNX files with cards, and a comparison of every step on the same faces."""

from __future__ import annotations

import logging
from pathlib import Path

from edgeemo.artifact import check_writable, lock_folder, write_json
from edgeemo.card import Card, card_path
from edgeemo.compress import fine_tune, plan, plots, write
from edgeemo.compress.compare import Stage, comparison
from edgeemo.compress.plan import Job
from edgeemo.compress.prune import sensitivity
from edgeemo.compress.quantize.qdq import TARGET_FORMATS
from edgeemo.data.faces import kind_of
from edgeemo.report import files as results
from edgeemo.stages import Compress
from edgeemo.train import run_folder
from edgeemo.train.network import EmotionNet

log = logging.getLogger(__name__)
COMPARISON = "comparison.json"
LEARN = {
    "resized": fine_tune.fine_tune_at_size,
    "pruned": fine_tune.prune_in_steps,
    "tuned": fine_tune.fine_tune_for_int8,
}
SENSITIVITY, SENSITIVITY_PICTURE = "sensitivity.json", "sensitivity.png"


def run(config: Compress) -> Path:
    """Compress as configured; returns the path of the last model. Beside it lies comparison.json."""
    plan.check(config)
    network, card = run_folder.load(config.run)
    plan.check_layers(config, network)
    asked = plan.prepare(config, card)
    check_writable(asked.out)
    with lock_folder(asked.out):
        return _run(asked, network)


def _run(asked: Job, network: EmotionNet) -> Path:
    config = asked.config
    fine_tune.check_begun(config, asked.out)
    _clear(asked.out)
    if config.sensitivity:
        _scan(asked.as_trained, network)
    stages = _float_stages(asked, network, asked.card)
    source = stages[-1]
    if config.fp16:
        stages.append(write.write_fp16(asked, source))
    if asked.calibration:
        stages += write.write_int8(asked, source, asked.calibration[0])
    about = {"data": kind_of(asked.trained.data), "protocol": asked.trained.protocol}
    found = comparison(stages, asked.valid, latency=write.time_stages(asked, stages), **about)
    results.write(found, asked.out / COMPARISON)
    fine_tune.remove_checkpoints(asked.out)
    return stages[-1].path


def _float_stages(asked: Job, network: EmotionNet, card: Card) -> list[Stage]:
    """The network as it came, and after each step that trains it; the last is what INT8 and FP16 are made from."""
    config = asked.config
    new_size = config.size and config.epochs and not config.prune  # pruning recovers at the new size by itself
    wanted = {"resized": new_size, "pruned": config.prune, "tuned": config.qat}
    steps = [step for step in wanted if wanted[step]]
    if not steps:
        return [write.write_float(asked, network, card, "float", write.FLOAT)]
    before = asked.as_trained
    stages = [write.write_float(before, network, before.card, "original", write.ORIGINAL)]
    for step in steps:
        network, card = LEARN[step](asked, network, card)
        file = write.FLOAT if step == steps[-1] else write.PRUNED
        stages.append(write.write_float(asked, network, card, step, file))
    return stages


def _scan(asked: Job, network: EmotionNet) -> None:
    found = sensitivity.scan(network, asked.card.input, asked.train, plan=asked.plan, seed=asked.config.seed)
    write_json(asked.out / SENSITIVITY, found)
    plots.sensitivity(found, asked.out / SENSITIVITY_PICTURE)
    log.info("%s and %s", asked.out / SENSITIVITY, asked.out / SENSITIVITY_PICTURE)


def _clear(out: Path) -> None:
    """Remove what an earlier compression left: its files beside ours would look like steps of one model."""
    int8 = [f"model.{target_format.suffix}" for target_format in TARGET_FORMATS.values()]
    names = (write.ORIGINAL, write.PRUNED, write.FLOAT, write.FP16, run_folder.MODEL, *int8)
    models = [out / name for name in names]
    reports = [out / name for name in (COMPARISON, write.CALIBRATION, SENSITIVITY, SENSITIVITY_PICTURE)]
    for old in (*models, *map(card_path, models), *reports, *out.glob("layers*.json"), *out.glob("layers*.png")):
        old.unlink(missing_ok=True)
