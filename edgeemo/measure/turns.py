"""A process pinned to its cores in which one or more models take turns at batch 1: measure.py runs it.

    python -m edgeemo.measure.turns '{"models": [[FILE, BACKEND], ...], "cores": [...], "runs": 200, "seconds": 1.0}'

Two models that are compared must meet the same clock, heat and neighbours, so they alternate in short slices.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Any

import numpy as np

from edgeemo.runtime import Backend, Model, open_model

WARM_UP_RUNS = 10
SLICE_SECONDS = 0.1
SLICE_RUNS = 3  # at least, however slow the model
MAX_RUNS = 5000  # about, per model: enough for a p99, and the result file stays below 100 kB


class Stopwatch:
    """A backend that notes how long the one inside it took."""

    concurrent = False  # one time is kept

    def __init__(self, inside: Backend) -> None:
        self.name, self.inputs, self.outputs = inside.name, inside.inputs, inside.outputs
        self._inside = inside
        self.last_ns = 0

    def logits(self, batch: np.ndarray) -> np.ndarray:
        """What the backend inside returns."""
        start = perf_counter_ns()
        logits = self._inside.logits(batch)
        self.last_ns = perf_counter_ns() - start
        return logits

    def close(self) -> None:
        """Close the backend inside."""
        self._inside.close()


@dataclass
class Turns:
    """A model, its input, and the nanoseconds of its runs so far."""

    model: Model
    watch: Stopwatch
    pixels: np.ndarray  # (1, size, size[, 3]) uint8
    total: list[int] = field(default_factory=list)  # pixels → probabilities
    inference: list[int] = field(default_factory=list)  # the part of it inside the backend

    def run(self) -> tuple[int, int]:
        """Nanoseconds of one run, and of the inference in it."""
        start = perf_counter_ns()
        self.model.probabilities(self.pixels)
        return perf_counter_ns() - start, self.watch.last_ns

    def take(self) -> None:
        """One slice of timed runs."""
        self.run()  # not counted: the caches still hold the other model
        until, enough = perf_counter_ns() + SLICE_SECONDS * 1e9, len(self.total) + SLICE_RUNS
        while (count := len(self.total)) < MAX_RUNS and (count < enough or perf_counter_ns() < until):
            total, inference = self.run()
            self.total.append(total)
            self.inference.append(inference)


def latency(models: list[tuple[str, str]], cores: list[int], runs: int, seconds: float) -> dict[str, Any]:
    """Every model's runs in nanoseconds, one thread per core, and whether the process was pinned to the cores."""
    pinned = pin(cores)
    players = [player(path, backend, threads=len(cores)) for path, backend in models]
    play(players, runs, seconds)
    return {"pinned": pinned, "models": [{"total": one.total, "inference": one.inference} for one in players]}


def play(players: Sequence[Turns], runs: int, seconds: float) -> None:
    """Let the players take turns, in slices of shuffled order, until each has `runs` runs and they had the time.

    seconds: of each on average, at least, or MAX_RUNS runs.
    """
    shuffled, until = random.Random(0), perf_counter_ns() + seconds * 1e9 * len(players)
    while _unfinished(players, runs) or (perf_counter_ns() < until and _unfinished(players, MAX_RUNS)):
        shuffled.shuffle(order := list(players))
        for one in order:
            one.take()


def _unfinished(players: Sequence[Turns], runs: int) -> bool:
    return any(len(one.total) < runs for one in players)


def player(path: str, backend: str, *, threads: int) -> Turns:
    """A model file, warmed up."""
    opened = open_model(path, threads=threads, backend=backend)
    watch = Stopwatch(opened.backend)
    model = Model(opened.path, opened.card, watch, opened.view)
    pixels = np.random.default_rng(0).integers(0, 256, (1, *model.card.input.pixels), dtype=np.uint8)
    ready = Turns(model, watch, pixels)
    for _ in range(WARM_UP_RUNS):
        ready.run()
    return ready


def pin(cores: list[int]) -> bool:
    """Keep this process on these cores; whether the system can do that."""
    if not hasattr(os, "sched_setaffinity"):
        return False
    os.sched_setaffinity(0, cores)
    return True


if __name__ == "__main__":
    json.dump(latency(**json.loads(sys.argv[1])), sys.stdout)
