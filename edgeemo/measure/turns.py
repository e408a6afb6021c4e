"""A process pinned to its cores in which one or more models alternate at batch 1; started by latency.py.

    python -m edgeemo.measure.turns '{"models": [[FILE, BACKEND], ...], "cores": [...], "runs": 200, "seconds": 1.0}'

Compared models must run at the same clock rate, temperature and machine load, so they alternate in short slices.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Any, Protocol

import numpy as np

from edgeemo.runtime import Backend, Model, open_model

WARM_UP_RUNS = 10
SLICE_SECONDS = 0.1
SLICE_RUNS = 3  # at least, however slow the model
MAX_RUNS = 5000  # per model, approximately: enough for a p99, and the result file stays below 100 kB


class TimedBackend:
    """A backend that records how long the backend inside it took."""

    concurrent = False  # it keeps one time

    def __init__(self, inside: Backend) -> None:
        self.name, self.inputs, self.outputs = inside.name, inside.inputs, inside.outputs
        self._inside = inside
        self.last_ns = 0

    def logits(self, batch: np.ndarray) -> np.ndarray:
        """Run the backend inside and record the time."""
        start = perf_counter_ns()
        logits = self._inside.logits(batch)
        self.last_ns = perf_counter_ns() - start
        return logits

    def close(self) -> None:
        """Close the backend inside."""
        self._inside.close()


@dataclass
class TimedModel:
    """A model, its input, and the nanoseconds of its runs so far."""

    model: Model
    backend: TimedBackend
    pixels: np.ndarray  # (1, size, size[, 3]) uint8
    total: list[int] = field(default_factory=list)  # pixels → probabilities
    inference: list[int] = field(default_factory=list)  # the part of it inside the backend

    def run(self) -> tuple[int, int]:
        """Run once; return the nanoseconds in total, and those of the inference."""
        start = perf_counter_ns()
        self.model.probabilities(self.pixels)
        return perf_counter_ns() - start, self.backend.last_ns

    def run_slice(self) -> None:
        """Run one slice of timed runs."""
        self.run()  # not counted: the caches still hold the other model
        for _ in iterate_slice(self.total):
            total, inference = self.run()
            self.total.append(total)
            self.inference.append(inference)


class Timed(Protocol):
    """Anything that takes turns."""

    @property
    def total(self) -> list[int]:
        """Nanoseconds of every run."""
        ...

    def run_slice(self) -> None:
        """Run one slice of timed runs."""
        ...


def iterate_slice(done: list[int]) -> Iterator[None]:
    """Yield once per run of a slice; `done` has the runs so far, to which the caller adds each one."""
    end, least = perf_counter_ns() + SLICE_SECONDS * 1e9, len(done) + SLICE_RUNS
    while len(done) < MAX_RUNS and (len(done) < least or perf_counter_ns() < end):
        yield


def measure(models: list[tuple[str, str]], cores: list[int], runs: int, seconds: float) -> dict[str, Any]:
    """Return every model's runs in nanoseconds, one thread per core, and whether the process was pinned to them."""
    pinned = pin_to_cores(cores)
    timed = [open_timed(path, backend, threads=len(cores)) for path, backend in models]
    alternate(timed, runs, seconds)
    return {"pinned": pinned, "models": [{"total": one.total, "inference": one.inference} for one in timed]}


def alternate(models: Sequence[Timed], runs: int, seconds: float) -> None:
    """Run the models alternately, in slices in shuffled order, until each has `runs` runs and the time is over.

    seconds: at least this long per model on average, unless all reach MAX_RUNS runs.
    """
    rng, end = random.Random(0), perf_counter_ns() + seconds * 1e9 * len(models)
    while _any_below(models, runs) or (perf_counter_ns() < end and _any_below(models, MAX_RUNS)):
        rng.shuffle(order := list(models))
        for one in order:
            one.run_slice()


def _any_below(models: Sequence[Timed], runs: int) -> bool:
    return any(len(one.total) < runs for one in models)


def open_timed(path: str, backend: str, *, threads: int) -> TimedModel:
    """Open a model file for timing, and warm it up."""
    opened = open_model(path, threads=threads, backend=backend)
    timed = TimedBackend(opened.backend)
    model = Model(opened.path, opened.card, timed, opened.label_set)
    pixels = np.random.default_rng(0).integers(0, 256, (1, *model.card.input.pixels), dtype=np.uint8)
    warmed_up = TimedModel(model, timed, pixels)
    for _ in range(WARM_UP_RUNS):
        warmed_up.run()
    return warmed_up


def pin_to_cores(cores: list[int]) -> bool:
    """Pin this process to these cores; return False if the system does not support that."""
    if not hasattr(os, "sched_setaffinity"):
        return False
    os.sched_setaffinity(0, cores)
    return True


if __name__ == "__main__":
    json.dump(measure(**json.loads(sys.argv[1])), sys.stdout)
