"""Latency, cold start and peak memory, each measured in its own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np

import edgeemo
from edgeemo.errors import MachineError
from edgeemo.machine import usable_cores
from edgeemo.progress import track
from edgeemo.report.decode import decode
from edgeemo.report.facts import ColdStart, FrameTiming, Latency, SettingTiming, Timing

MIN_SECONDS = 1.0  # of timed runs per model and setting, however fast it is; or turns.MAX_RUNS
COLD_STARTS = 3
MIN_INT8_SPEEDUP = 1.3  # over the float form; below it, INT8 is not worth its loss of accuracy
UNSTABLE = 2.0  # p95 / p50 above which another process used the core
# Runs the module of the first argument without the current folder on the path, as python -P does from 3.11 on.
START = "import runpy, sys; sys.path[:] = filter(None, sys.path); runpy.run_module(sys.argv.pop(1), None, '__main__')"
SETTINGS = ("one_core", "all_cores")
Frame = tuple[int, int, int]  # width, height, faces
FRAMES: tuple[Frame, ...] = tuple((*size, faces) for size in ((640, 480), (1920, 1080)) for faces in (1, 4, 16))


def measure_latency(
    models: list[tuple[Path, str]], *, runs: int, settings: tuple[str, ...] = SETTINGS
) -> list[Latency]:
    """Measure latency per model and backend (empty: the default of its format), on one core and on all if available.

    The models alternate in one process.
    """
    cores_of = {name: cores for name, cores in _list_settings(usable_cores()).items() if name in settings}
    measured: list[dict[str, SettingTiming]] = [{} for _ in models]
    for name, cores in track(cores_of.items(), "timing", total=len(cores_of), unit="settings of cores"):
        job = {
            "models": [(str(path), backend) for path, backend in models],
            "cores": cores,
            "runs": runs,
            "seconds": MIN_SECONDS,
        }
        output = _run_module("turns", json.dumps(job))
        for model, samples in zip(measured, output["models"], strict=True):
            model[name] = _make_timing(samples, cores, pinned=output["pinned"])
    return [Latency(**timings) for timings in measured]


def measure_frames(
    models: list[tuple[Path, str]],
    *,
    detector: dict[str, Any],
    runs: int,
    frames: Sequence[Frame] = FRAMES,
    processor_time: bool = False,
) -> list[list[FrameTiming]]:
    """Measure a detector and each model on each frame, on one core: a list of frames per model.

    detector: arguments of faces.load_detector, in JSON types. Frames larger than the first take a quarter of the runs.
    All models and frames of one size alternate in one process. processor_time: leave out the time in which another
    process had the core, for ratios on a busy machine.
    """
    core = _list_settings(usable_cores())["one_core"]
    measured: list[list[FrameTiming]] = [[] for _ in models]
    sizes = list(dict.fromkeys(frame[:2] for frame in frames))
    for size in track(sizes, "timing frames", total=len(sizes), unit="sizes"):
        same = [frame for frame in frames if frame[:2] == size]
        job = {
            "models": [(str(path), backend) for path, backend in models],
            "detector": detector,
            "frames": same,
            "cores": core,
            "runs": runs if size == sizes[0] else max(1, runs // 4),
            "seconds": MIN_SECONDS,
            "processor_time": processor_time,
        }
        for frame, timed in zip(same, _run_module("frames", json.dumps(job))["frames"], strict=True):
            for model, samples in zip(measured, timed, strict=True):
                model.append(_make_frame_timing(frame, samples))
    return measured


def measure_cold_start(model: Path, backend: str = "") -> ColdStart:
    """Return the median of three new processes that import edgeemo, load the model and predict once."""
    steps = track(range(COLD_STARTS), "cold starts", total=COLD_STARTS)
    starts = [_run_module("cold_start", str(model), backend, str(perf_counter_ns())) for _ in steps]
    median = sorted(starts, key=lambda one: one["total_ms"])[COLD_STARTS // 2]
    rounded = {name: None if value is None else round(value, 1) for name, value in median.items()}
    return decode(ColdStart, rounded, source="the measuring process")


def advise_on_int8(int8_ms: float, float_ms: float) -> list[str]:
    """Return a sentence if INT8 is less than MIN_INT8_SPEEDUP times as fast as float on this processor, else none."""
    speedup = float_ms / int8_ms
    if speedup >= MIN_INT8_SPEEDUP:
        return []
    measured = f"INT8 is {speedup:.2f} times as fast as float on this processor, less than {MIN_INT8_SPEEDUP}"
    measured += ": ship the float file here"
    return [f"{measured}. Very small networks, and those with Hardswish, SiLU or squeeze-and-excitation, gain little."]


def summarise(samples_ns: list[int]) -> Timing:
    """Return the quantiles in milliseconds, and every run in whole microseconds."""
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


def _list_settings(cores: list[int]) -> dict[str, list[int]]:
    by_setting = (cores[-1:], cores)  # one core: the last, because interrupts prefer the first
    return dict(zip(SETTINGS, by_setting[: min(2, len(cores))], strict=False))


def _make_timing(samples: dict[str, list[int]], cores: list[int], *, pinned: bool) -> SettingTiming:
    total = summarise(samples["total"])
    return SettingTiming(
        threads=len(cores),
        cores=cores,
        pinned=pinned,
        unstable=total.ms_p95 > UNSTABLE * total.ms_p50,
        total=total,
        inference=summarise(samples["inference"]),
    )


def _make_frame_timing(frame: Frame, samples: dict[str, Any]) -> FrameTiming:
    detect, crop, classify, total = (summarise(samples[name]) for name in ("detect", "crop", "classify", "total"))
    unstable = total.ms_p95 > UNSTABLE * total.ms_p50
    return FrameTiming(*frame, samples["found"], unstable, detect, crop, classify, total)


def _run_module(module: str, *arguments: str) -> dict[str, Any]:
    """Run a module of this package in a new process, with the same edgeemo as in this one; return its JSON output."""
    package = str(Path(edgeemo.__file__).parent.parent)
    paths = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(  # noqa: S603  our own module, run by our own interpreter
        [sys.executable, "-c", START, f"edgeemo.measure.{module}", *arguments],
        capture_output=True,
        encoding="utf-8",  # whatever the console's, for the paths in a message
        errors="replace",
        check=False,
        env={**os.environ, "PYTHONPATH": paths, "PYTHONIOENCODING": "utf-8:backslashreplace"},
    )
    if done.returncode:
        reason = done.stderr.strip().rpartition("Error: ")[2] or "no message"  # all lines of the last error
        raise MachineError(f"the measuring process ended with {done.returncode}: {reason}")
    output: dict[str, Any] = json.loads(done.stdout)
    return output
