"""The table of backends: which files each one runs, and how to open them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from edgeemo.card import Card
from edgeemo.runtime.advice import saturates_here
from edgeemo.runtime.backends.openvino import OpenvinoBackend
from edgeemo.runtime.backends.ort import OnnxBackend
from edgeemo.runtime.backends.tensorrt import TensorrtBackend


class Backend(Protocol):
    """Runs a model file: opened with its path and a thread count, closed when done."""

    name: str  # as in BACKENDS
    concurrent: bool  # whether `logits` may be called from several threads at once
    inputs: list[tuple[int | str | None, ...]]  # shape of every input; a name or None where it may vary
    outputs: list[tuple[int | str | None, ...]]

    def logits(self, batch: np.ndarray) -> np.ndarray:
        """Run (N, channels, size, size) float32, normalised; return (N, K) float32 logits; N may be 0."""

    def close(self) -> None:
        """Free the backend's memory."""


@dataclass(frozen=True)
class Entry:
    """A backend: the suffix of its files, and a function that opens one with a number of threads."""

    suffix: str
    open: Callable[[Path, Card, int], Backend]


def _make_ort_entry(name: str) -> Entry:
    return Entry(".onnx", lambda file, _, threads: OnnxBackend(file, threads=threads, name=name))


# The first backend of a suffix is the default.
BACKENDS = {
    "onnxruntime": Entry(
        ".onnx", lambda file, card, threads: OnnxBackend(file, threads=threads, exact=saturates_here(card))
    ),
    "openvino": Entry(".onnx", lambda file, _, threads: OpenvinoBackend(file, threads=threads)),
    "onnxruntime-cuda": _make_ort_entry("onnxruntime-cuda"),
    "onnxruntime-tensorrt": _make_ort_entry("onnxruntime-tensorrt"),
    "tensorrt": Entry(".trt", lambda file, card, _: TensorrtBackend(file, card)),
    "tensorrt-graph": Entry(".trt", lambda file, card, _: TensorrtBackend(file, card, graphs=True)),
}
FORMATS = tuple(dict.fromkeys(entry.suffix for entry in BACKENDS.values()))


def backends_of(suffix: str) -> list[str]:
    """Return the names of the backends that run files of a suffix, the default first."""
    return [name for name, entry in BACKENDS.items() if entry.suffix == suffix]
