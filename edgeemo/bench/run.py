"""The bench stage: a model, and faces if there are any → a result with machine facts, raw samples and a verdict."""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack, nullcontext
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

import edgeemo
from edgeemo import options
from edgeemo.artifact import check_result, write_json
from edgeemo.bench import accuracy, gates, measure, report, robustness
from edgeemo.bench.tables import show
from edgeemo.card import to_json
from edgeemo.card.format1 import precision_of
from edgeemo.errors import UsageError
from edgeemo.history import versions
from edgeemo.machine import this_machine
from edgeemo.runtime import Model, open_model
from edgeemo.runtime.advice import saturates_here
from edgeemo.stages import Bench

__all__ = ["run", "show"]

log = logging.getLogger(__name__)


def run(config: Bench) -> dict[str, Any]:
    """Measure as configured. With `out`, JSON goes there and a Markdown report with plots beside it.

    The result is JSON-ready; `passed` and `verdict` hold the outcome.
    """
    _check(config)
    target = gates.read_target(config.target)
    with ExitStack() as opened:
        model = opened.enter_context(open_model(config.engine, backend=config.backend, labels=config.label_set))
        other = _other(config)
        opened.enter_context(other or nullcontext())
        result = _setting(config, model) | _measured(config, model, other)
    rows = gates.judge(target, result)
    passed, verdict = gates.verdict(target, rows)
    result |= {"target": asdict(target), "gates": rows, "passed": passed, "verdict": verdict}
    if config.out:
        write_json(config.out, result)
        log.info("%s and %s", config.out, report.write(result, config.out))
    return result


def _other(config: Bench) -> Model | None:
    if not config.against:
        return None
    return open_model(config.against, backend=config.against_backend, labels=config.label_set)


def about(model: Model) -> dict[str, Any]:
    """What tells one model from another, from its card and its file; no path."""
    card = model.card
    return {
        "file": model.path.name,
        "backend": model.backend.name,
        "sha256": card.sha256,
        "size_bytes": model.path.stat().st_size,
        "architecture": to_json(card.architecture),
        "precision": precision_of(card.precision),
        "overflow_safe": card.overflow_safe,
        "exact_arithmetic": model.backend.name == "onnxruntime" and saturates_here(card),
        "advice": model.advice,
        "labels": list(model.labels),
        "input": asdict(card.input),
    }


def _check(config: Bench) -> None:
    options.check(config)
    if config.out and config.out.suffix != ".json":
        raise UsageError(f"--out {config.out}: expected a .json file; the report goes beside it as .md")
    if config.out:
        check_result(config.out, "gates", page=report.page_of(config.out))


def _setting(config: Bench, model: Model) -> dict[str, Any]:
    load_1min = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    return {
        "format": report.FORMAT,
        "edgeemo": edgeemo.__version__,
        "versions": versions(),
        "measured_utc": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": {**asdict(this_machine()), "load_1min": load_1min},
        "runs_asked": config.runs,
        "model": about(model),
    }


def _measured(config: Bench, model: Model, other: Model | None) -> dict[str, Any]:
    judged = (
        _judged(config, config.data, model, other)
        if config.data
        else {"accuracy": None, "robustness": None, "paired": None}
    )
    models = [(model.path, config.backend or "")] + ([(other.path, config.against_backend or "")] if other else [])
    latency, *rest = measure.latency(models, runs=config.runs)
    against = None
    if other:
        ratio = latency["one_core"]["total"]["ms_p50"] / rest[0]["one_core"]["total"]["ms_p50"]
        advice = measure.advise_on_int8(ratio, 1.0) if _is_int8(model) and not _is_int8(other) else []
        sides = {
            "latency": rest[0],
            "latency_ratio_p50": round(ratio, 4),
            "accuracy": judged["paired"],
            "advice": advice,
        }
        against = {"model": about(other), **sides}
    cold_start = measure.cold_start(model.path, config.backend or "")
    faces = {"accuracy": judged["accuracy"], "robustness": judged["robustness"]}
    return {**faces, "latency": latency, "cold_start": cold_start, "against": against}


def _is_int8(model: Model) -> bool:
    return model.card.precision.is_int8


def _judged(config: Bench, data: str, model: Model, other: Model | None) -> dict[str, Any]:
    """Accuracy, robustness if it is asked for, and the paired comparison if there is another model."""
    if other:
        accuracy.check_comparable(model, other)
    asked = accuracy.trial(data, config.split, config.protocol, model.card, labels=model.view)
    pixels = accuracy.decoded(asked, model.card.input)
    ours = accuracy.probabilities(model, pixels)
    found: dict[str, Any] = {
        "accuracy": accuracy.judged(ours, asked) | {"caveat": accuracy.caveat(model.card, asked)},
        "robustness": robustness.judged(model, pixels, asked) if config.robustness else None,
        "paired": None,
    }
    if not other:
        return found
    if other.card.input != model.card.input:
        pixels = accuracy.decoded(asked, other.card.input)
    return found | {"paired": accuracy.compared(accuracy.probabilities(other, pixels), ours, asked)}
