"""Latency, cold start and peak memory, each measured in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np

import edgeemo
from edgeemo.errors import MachineError
from edgeemo.machine import usable_cores
from edgeemo.progress import track
from edgeemo.report.decode import decode
from edgeemo.report.facts import ColdStart, Latency, SettingTiming, Timing

MIN_SECONDS = 1.0  # of turns per model and setting, however fast it is; or turns.MAX_RUNS
COLD_STARTS = 3
PAYS = 1.3  # times as fast as its float form that INT8 must be to be worth its loss
UNSTABLE = 2.0  # p95 / p50 above which something else held the core
# Runs the module that is named first, without the current folder on the path: what python -P does from 3.11 on.
START = "import runpy, sys; sys.path[:] = filter(None, sys.path); runpy.run_module(sys.argv.pop(1), None, '__main__')"
SETTINGS = ("one_core", "all_cores")


def measure_latency(
    models: list[tuple[Path, str]], *, runs: int, settings: tuple[str, ...] = SETTINGS
) -> list[Latency]:
    """Per model and backend (empty: its format's first): latency on one core and, where asked and there, on all.

    Models take turns.
    """
    cores_of = {name: cores for name, cores in _settings(usable_cores()).items() if name in settings}
    measured: list[dict[str, SettingTiming]] = [{} for _ in models]
    for name, cores in track(cores_of.items(), "timing", total=len(cores_of)):
        job = {
            "models": [(str(path), backend) for path, backend in models],
            "cores": cores,
            "runs": runs,
            "seconds": MIN_SECONDS,
        }
        found = _child("turns", json.dumps(job))
        for model, samples in zip(measured, found["models"], strict=True):
            model[name] = _timing(samples, cores, pinned=found["pinned"])
    return [Latency(**timings) for timings in measured]


def measure_cold_start(model: Path, backend: str = "") -> ColdStart:
    """The median of three fresh processes that import edgeemo, load the model and predict once, with peak memory."""
    steps = track(range(COLD_STARTS), "cold starts", total=COLD_STARTS)
    found = [_child("cold_start", str(model), backend, str(perf_counter_ns())) for _ in steps]
    median = sorted(found, key=lambda one: one["total_ms"])[COLD_STARTS // 2]
    rounded = {name: None if value is None else round(value, 1) for name, value in median.items()}
    return decode(ColdStart, rounded, source="the measuring process")


def advise_on_int8(int8_ms: float, float_ms: float) -> list[str]:
    """A sentence if INT8 is less than PAYS times as fast as its float form on this processor; none otherwise."""
    gain = float_ms / int8_ms
    if gain >= PAYS:
        return []
    found = f"INT8 is {gain:.2f} times as fast as float on this processor, less than {PAYS}: ship the float file here"
    return [f"{found}. Very small networks, and those with Hardswish, SiLU or squeeze-and-excitation, gain little."]


def summary(samples_ns: list[int]) -> Timing:
    """Milliseconds at the quantiles, and every run in whole microseconds."""
    values = np.asarray(samples_ns) / 1e6
    p50, p95, p99 = (round(float(np.percentile(values, q)), 4) for q in (50, 95, 99))
    return Timing(
        n=len(values),
        ms_p50=p50,
        ms_p95=p95,
        ms_p99=p99,
        ms_min=round(float(values.min()), 4),
        ms_mean=round(float(values.mean()), 4),
        samples_us=" ".join(str(round(ns / 1000)) for ns in samples_ns),
    )


def _settings(cores: list[int]) -> dict[str, list[int]]:
    chosen = (cores[-1:], cores)  # one core: the last, interrupts prefer the first
    return dict(zip(SETTINGS, chosen[: min(2, len(cores))], strict=False))


def _timing(samples: dict[str, list[int]], cores: list[int], *, pinned: bool) -> SettingTiming:
    total = summary(samples["total"])
    return SettingTiming(
        threads=len(cores),
        cores=cores,
        pinned=pinned,
        unstable=total.ms_p95 > UNSTABLE * total.ms_p50,
        total=total,
        inference=summary(samples["inference"]),
    )


def _child(module: str, *arguments: str) -> dict[str, Any]:
    """What a fresh process found; it runs the same edgeemo as this one, from wherever that was imported."""
    package = str(Path(edgeemo.__file__).parent.parent)
    paths = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(  # noqa: S603  our own module, run by our own interpreter
        [sys.executable, "-c", START, f"edgeemo.measure.{module}", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": paths},
    )
    if done.returncode:
        reason = done.stderr.strip().rpartition("Error: ")[2] or "no message"  # all lines of the last one
        raise MachineError(f"the measuring process ended with {done.returncode}: {reason}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found
